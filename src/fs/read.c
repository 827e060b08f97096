/*
 * read.c - look-ups, listings and content, without a lock.
 *
 * G10. A content is read in several steps, while entries are applied underneath. Every
 * entry that changes extents carries the record they belong to (S9): the inode's, or for
 * content in progress its P record. So what was read is one version if no entry was
 * applied meanwhile (view.retry), or if, looked at in a moment in which none was being
 * applied, that record still has the timestamp it had at the start. The second needs a
 * quiet moment for one look into memory only: writers of other files cannot starve a
 * reader.
 */
#include "extent.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

static uint64_t view_begin(const struct fs_view *view)
{
    return view->begin ? view->begin(view->context) : 0;
}

static bool view_retry(const struct fs_view *view, uint64_t begun)
{
    return view->begin && view->retry(view->context, begun);
}

static int take_timestamp(void *arg, const struct fs_item *item)
{
    *(uint64_t *)arg = item->timestamp_us;
    return 0;
}

/* The timestamp of one record, from memory; 0: there is none. */
static int version_look(const struct fs_view *view, const struct fs_key *key,
                        uint64_t *ret)
{
    struct fs_key to = *key;
    to.bytes[to.size++] = 0;
    *ret = 0;
    return view->scan(view->context, key->bytes, key->size, to.bytes, to.size,
                      take_timestamp, ret);
}

/* Whether what was read since `begun` is not all of `version` of the record `key`. */
static bool version_lost(const struct fs_view *view, uint64_t begun,
                         const struct fs_key *key, uint64_t version)
{
    if (!view_retry(view, begun))
        return false;
    uint64_t now;
    do {
        begun = view_begin(view);
        if (version_look(view, key, &now))
            return false;
    } while (view_retry(view, begun));
    return now != version;
}

/* The part of one extent that lies in [offset, offset + length) of its slot. */
static int extent_read(const struct fs_view *view, const struct slot *slot,
                       const struct extent *extent, uint64_t offset, size_t length,
                       uint8_t *to, struct buf *scratch)
{
    uint64_t from = max_u64(extent->start, offset);
    uint64_t end = min_u64(extent->start + extent->length, offset + length);
    if (extent->is_void || from >= end)
        return 0;
    int error = extent_get(view, slot, extent, scratch);
    if (error)
        return error == -ENOENT ? -EIO : error;
    memcpy(to + (from - offset), scratch->data + (from - extent->start), end - from);
    return 0;
}

static int slot_read(const struct fs_view *view, uint64_t content, uint64_t floor,
                     uint64_t offset, size_t length, uint8_t *to, struct buf *scratch)
{
    struct slot slot;
    uint64_t base = offset / SLOT_BYTES * SLOT_BYTES;
    int error = slot_load(view, content, base, floor, &slot);
    memset(to, 0, length);
    for (unsigned i = 0; !error && i < slot.count; i++)
        error = extent_read(view, &slot, &slot.extents[i], offset - base, length, to,
                            scratch);
    return error;
}

static int content_read(const struct fs_view *view, uint64_t content,
                        const uint8_t *trims, uint32_t trim_count, uint64_t offset,
                        size_t length, uint8_t *to)
{
    struct buf scratch = {0};
    int error = 0;
    while (length && !error) {
        size_t part = min_u64(length, SLOT_BYTES - offset % SLOT_BYTES);
        error = slot_read(view, content, trims_floor(trims, trim_count, offset), offset,
                          part, to, &scratch);
        offset += part;
        to += part;
        length -= part;
    }
    buf_release(&scratch);
    return error;
}

static int inode_read(const struct fs_view *view, const struct fs_inode *inode,
                      uint64_t offset, size_t length, uint8_t *to, size_t *ret_length)
{
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    if (!S_ISREG(inode->mode))
        return -EINVAL;
    length = offset < inode->size ? min_u64(length, inode->size - offset) : 0;
    int error = 0;
    if (inode->kind == FS_CONTENT_EXTENTS)
        error = content_read(view, inode->content, inode->trims, inode->trim_count,
                             offset, length, to);
    else if (length)
        memcpy(to, inode->inline_bytes + offset, length);
    if (error == 0)
        *ret_length = length;
    return error;
}

struct data_scan {
    const uint8_t *trims;
    uint32_t trim_count;
    uint64_t offset;
    uint64_t start, end; /* what was found; end 0: nothing yet */
};

/* The extents of one stretch, which is as long as they touch each other. */
static int data_item(void *arg, const struct fs_item *item)
{
    struct data_scan *scan = arg;
    if (item->key_size != 17)
        return -EBADMSG;
    uint64_t start = get_be64(item->key + 9);
    uint64_t grains = (item->value_size + GRAIN_BYTES - 1) / GRAIN_BYTES;
    uint64_t end = start + grains * GRAIN_BYTES;
    if (end <= scan->offset ||
        item->timestamp_us < trims_floor(scan->trims, scan->trim_count, start))
        return 0;
    if (scan->end && start > scan->end)
        return 1;
    if (!scan->end)
        scan->start = start;
    scan->end = end;
    return 0;
}

static int content_data(const struct fs_view *view, uint64_t content,
                        struct data_scan *scan)
{
    struct fs_key from, to;
    if (scan->offset > LIMIT_FILE_BYTES)
        return -ENXIO;
    fs_key_extent(&from, content, scan->offset / SLOT_BYTES * SLOT_BYTES);
    fs_key_extent(&to, content, UINT64_MAX);
    int error = view->scan(view->context, from.bytes, from.size, to.bytes, to.size,
                           data_item, scan);
    return error < 0 ? error : scan->end ? 0 : -ENXIO;
}

static int inode_data(const struct fs_view *view, const struct fs_inode *inode,
                      uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
    struct data_scan scan = {.offset = offset, .end = GRAIN_BYTES}; /* inline */
    if (!S_ISREG(inode->mode))
        return S_ISDIR(inode->mode) ? -EISDIR : -EINVAL;
    if (inode->size == 0 || (inode->kind == FS_CONTENT_INLINE && offset >= scan.end))
        return -ENXIO;
    if (inode->kind == FS_CONTENT_EXTENTS) {
        scan = (struct data_scan){
            .trims = inode->trims, .trim_count = inode->trim_count, .offset = offset};
        int error = content_data(view, inode->content, &scan);
        if (error)
            return error;
    }
    *ret_start = scan.start;
    *ret_end = scan.end;
    return 0;
}

struct list {
    int (*each)(void *arg, const uint8_t *name, size_t name_size, uint64_t inode,
                uint8_t type);
    void *arg;
};

static int list_item(void *arg, const struct fs_item *item)
{
    struct list *list = arg;
    uint64_t inode;
    uint8_t type;
    if (item->key_size <= 9 ||
        !name_value_read(item->value, item->value_size, &inode, &type))
        return -EBADMSG;
    return list->each(list->arg, item->key + 9, item->key_size - 9, inode, type);
}

/* The next part of a path: its length, 0 at the end. */
static size_t path_part(const char **path)
{
    while (**path == '/')
        (*path)++;
    return strcspn(*path, "/");
}

static bool is_dots(const char *name, size_t size)
{
    return (size == 1 || size == 2) && name[0] == '.' && name[size - 1] == '.';
}

int fs_lookup(const struct fs_view *view, uint64_t parent, const void *name,
              size_t name_size, uint64_t *ret_inode)
{
    uint8_t type;
    return name_get(view, parent, name, name_size, ret_inode, &type);
}

int fs_stat(const struct fs_view *view, uint64_t inode, struct buf *scratch,
            struct fs_inode *ret)
{
    struct fs_key key;
    uint64_t timestamp;
    fs_key_inode(&key, inode);
    buf_clear(scratch);
    int error = view->get(view->context, key.bytes, key.size, scratch, &timestamp);
    if (error)
        return error;
    if (scratch->failed)
        return -ENOMEM;
    return fs_inode_decode(inode, timestamp, scratch->data, scratch->length, ret);
}

int fs_read(const struct fs_view *view, uint64_t inode, uint64_t offset, size_t length,
            uint8_t *to, size_t *ret_length)
{
    struct buf record = {0};
    struct fs_inode found;
    int error =
        fs_read_inode(view, inode, offset, length, to, ret_length, &record, &found);
    buf_release(&record);
    return error;
}

int fs_read_inode(const struct fs_view *view, uint64_t inode, uint64_t offset,
                  size_t length, uint8_t *to, size_t *ret_length, struct buf *record,
                  struct fs_inode *ret)
{
    struct fs_key key;
    struct fs_inode found;
    uint64_t begun;
    int error;
    fs_key_inode(&key, inode);
    do {
        begun = view_begin(view);
        error = fs_stat(view, inode, record, &found);
        if (error)
            return error;
        error = inode_read(view, &found, offset, length, to, ret_length);
    } while (error != -EAGAIN && version_lost(view, begun, &key, found.version));
    if (!error)
        *ret = found;
    return error;
}

int fs_read_content(const struct fs_view *view, uint64_t content, uint64_t offset,
                    size_t length, uint8_t *to)
{
    struct fs_key key;
    uint64_t begun, version;
    int error;
    fs_key_content(&key, content);
    do {
        begun = view_begin(view);
        error = version_look(view, &key, &version);
        if (error)
            break;
        error = content_read(view, content, NULL, 0, offset, length, to);
    } while (error != -EAGAIN && version_lost(view, begun, &key, version));
    return error;
}

int fs_data(const struct fs_view *view, uint64_t inode, uint64_t offset,
            uint64_t *ret_start, uint64_t *ret_end)
{
    struct buf record = {0};
    struct fs_inode found;
    struct fs_key key;
    uint64_t begun;
    int error;
    fs_key_inode(&key, inode);
    do {
        begun = view_begin(view);
        error = fs_stat(view, inode, &record, &found);
        if (error)
            break;
        error = inode_data(view, &found, offset, ret_start, ret_end);
    } while (error != -EAGAIN && version_lost(view, begun, &key, found.version));
    buf_release(&record);
    return error;
}

int fs_data_content(const struct fs_view *view, uint64_t content, uint64_t offset,
                    uint64_t *ret_start, uint64_t *ret_end)
{
    struct data_scan scan = {.offset = offset};
    int error =
        content_data(view, content, &scan); /* it only grows: any moment will do */
    if (error)
        return error;
    *ret_start = scan.start;
    *ret_end = scan.end;
    return 0;
}

int fs_list(const struct fs_view *view, uint64_t directory, const void *after,
            size_t after_size,
            int (*each)(void *arg, const uint8_t *name, size_t name_size, uint64_t inode,
                        uint8_t type),
            void *arg)
{
    struct fs_key from, to;
    struct list list = {.each = each, .arg = arg};
    if (after_size > LIMIT_NAME_BYTES)
        return -ENAMETOOLONG;
    ensure(directory != UINT64_MAX);
    fs_key_name(&from, directory, after, after_size);
    if (after_size)
        from.bytes[from.size++] = 0; /* the first key behind `after` */
    fs_key_name(&to, directory + 1, NULL, 0);
    return view->scan(view->context, from.bytes, from.size, to.bytes, to.size, list_item,
                      &list);
}

int fs_resolve(const struct fs_view *view, const char *path, uint64_t *ret_parent,
               const char **ret_name, uint64_t *ret_inode)
{
    uint64_t parent = FS_ROOT_INODE, inode = FS_ROOT_INODE;
    uint8_t type = DT_DIR;
    const char *name = path;
    size_t size;
    while ((size = path_part(&path)) != 0) {
        if (is_dots(path, size))
            return -EINVAL;
        if (type != DT_DIR)
            return type == DT_LNK ? -ELOOP : -ENOTDIR;
        name = path;
        path += size;
        parent = inode;
        int error = name_get(view, parent, name, size, &inode, &type);
        if (error && (error != -ENOENT || *path))
            return error;
        if (error) {
            inode = 0;
            type = DT_UNKNOWN;
        }
    }
    *ret_parent = parent;
    *ret_name = name;
    *ret_inode = inode;
    return 0;
}
