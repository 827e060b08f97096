/* places.c - which name leads to an inode: for people, since no record of a file says that. */
#include "extent.h"

#include <errno.h>
#include <sys/stat.h>

struct seek {
    struct fs_place *places;
    size_t count, found;
};

static int compare(const void *number, const void *place)
{
    uint64_t a = *(const uint64_t *)number, b = ((const struct fs_place *)place)->inode;
    return (a > b) - (a < b);
}

static int seek_item(void *arg, const struct fs_item *item)
{
    struct seek *s = arg;
    if (item->key_size < 10 || !item->value || item->value_size != NAME_VALUE_BYTES)
        return -EBADMSG;
    uint64_t inode = get_u64(item->value);
    struct fs_place *p =
        bsearch(&inode, s->places, s->count, sizeof(*s->places), compare);
    if (!p || p->name_size)
        return 0;
    p->parent = get_be64(item->key + 1);
    p->name_size = (uint16_t)(item->key_size - 9);
    memcpy(p->name, item->key + 9, p->name_size);
    return ++s->found == s->count;
}

int fs_find_places(const struct fs_view *view, struct fs_place *places, size_t count)
{
    struct seek s = {.places = places, .count = count};
    const uint8_t from[] = {FS_CLASS_NAME}, to[] = {FS_CLASS_NAME + 1};
    for (size_t i = 0; i < count; i++) {
        ensure(i == 0 || places[i - 1].inode < places[i].inode);
        places[i].name_size = 0;
    }
    int ret = view->scan(view->context, from, 1, to, 1, seek_item, &s);
    return ret < 0 ? ret : 0;
}

struct directory_name {
    uint64_t inode;
    const char *path; /* what stands behind it */
    struct buf *to;
};

static int name_item(void *arg, const uint8_t *name, size_t size, uint64_t inode,
                     uint8_t type)
{
    struct directory_name *d = arg;
    if (inode != d->inode)
        return 0;
    buf_u8(d->to, '/');
    buf_bytes(d->to, name, size);
    buf_bytes(d->to, d->path, strlen(d->path) + 1);
    return 1;
}

/* Puts the directory's own name in front of `path`, which is replaced. */
static int add_directory(const struct fs_view *view, uint64_t parent, uint64_t inode,
                         struct buf *path)
{
    struct buf longer = {0};
    struct directory_name d = {inode, (const char *)path->data, &longer};
    int ret = fs_list(view, parent, NULL, 0, name_item, &d);
    if (ret == 0)
        ret = -ENOENT; /* it was moved meanwhile */
    if (ret > 0)
        ret = longer.failed ? -ENOMEM : 0;
    buf_release(path);
    *path = longer;
    return ret;
}

int fs_place_path(const struct fs_view *view, const struct fs_place *place,
                  struct buf *to)
{
    uint64_t inode = place->parent;
    struct buf path = {0}, scratch = {0};
    int error = place->name_size ? 0 : -ENOENT;
    buf_u8(&path, '/');
    buf_bytes(&path, place->name, place->name_size);
    buf_u8(&path, 0);
    while (!error && inode != FS_ROOT_INODE) {
        struct fs_inode directory;
        buf_clear(&scratch);
        error = path.failed ? -ENOMEM : fs_stat(view, inode, &scratch, &directory);
        if (!error && (!S_ISDIR(directory.mode) || path.length > LIMIT_PATH_BYTES))
            error = -ENAMETOOLONG;
        if (!error)
            error = add_directory(view, directory.parent, inode, &path);
        inode = error ? 0 : directory.parent;
    }
    if (!error)
        buf_bytes(to, path.data, path.length - 1);
    buf_release(&path);
    buf_release(&scratch);
    return error;
}
