/*
 * mount_list.c - directories. A handle keeps the names it has handed out, and is extended
 * in batches, each a range of names in key order after the last one: so a name that stays
 * is neither lost nor repeated, whatever happens to others; one that leads to another file
 * by the time it is shown is shown with that. A name's offset is its ordinal. Pending
 * names are merged in at their place; they are looked at before the view is, so that one
 * that is made meanwhile is seen here or there.
 */
#include "mount_internal.h"

#include <dirent.h>

enum { LISTING_BATCH = 1024, LISTING_DOTS = 2 };

struct listed {
    uint64_t inode;
    uint32_t name; /* offset into `names`, where it ends with a NUL */
    uint16_t name_size;
    uint8_t type;
};

struct listing {
    pthread_mutex_t lock;
    uint64_t inode;
    struct buf names, entries; /* of struct listed */
    bool ended;
};

struct batch {
    struct listing *listing;
    struct buf pending; /* type u8, inode u64, string: ascending, after the last name */
    struct reader left;
    size_t count;
};

static size_t listing_count(const struct listing *l)
{
    return l->entries.length / sizeof(struct listed);
}

static const struct listed *listing_at(const struct listing *l, size_t i)
{
    return (const struct listed *)(const void *)l->entries.data + i;
}

static int name_compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
    int order = memcmp(a, b, min_u64(a_size, b_size));
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static void listing_add(struct listing *l, const void *name, size_t size, uint64_t inode,
                        uint8_t type)
{
    struct listed one = {.inode = inode,
                         .name = (uint32_t)l->names.length,
                         .name_size = (uint16_t)size,
                         .type = type};
    buf_bytes(&l->names, name, size);
    buf_u8(&l->names, 0);
    buf_bytes(&l->entries, &one, sizeof(one));
}

static const void *listing_last(const struct listing *l, size_t *ret_size)
{
    *ret_size = 0;
    if (!listing_count(l))
        return NULL;
    const struct listed *last = listing_at(l, listing_count(l) - 1);
    *ret_size = last->name_size;
    return l->names.data + last->name;
}

/* ---- Pending names ---- */

static int pending_compare(const void *a, const void *b)
{
    const struct pending *p = a, *q = b;
    return name_compare(p->name, p->name_size, q->name, q->name_size);
}

/* Copies of the pending names after the last one handed out. */
static void batch_collect(struct fs_mount *m, struct batch *b)
{
    size_t size;
    struct buf found = {0};
    const void *last = listing_last(b->listing, &size);
    pthread_mutex_lock(&m->lock);
    for (struct pending *p = m->pendings; p; p = p->next)
        if (p->parent == b->listing->inode &&
            (!last || name_compare(p->name, p->name_size, last, size) > 0)) {
            struct pending copy = *p;
            copy.parent = p->file->inode;
            buf_bytes(&found, &copy, sizeof(copy));
        }
    pthread_mutex_unlock(&m->lock);
    size_t count = found.length / sizeof(struct pending);
    if (count)
        qsort(found.data, count, sizeof(struct pending), pending_compare);
    b->pending = found;
    b->left = reader_of(found.data, found.length);
}

/* Adds the pending names before `name` (NULL: all), and passes over an equal one: it was
 * made meanwhile. */
static void batch_merge(struct batch *b, const void *name, size_t size)
{
    while (reader_left(&b->left)) {
        const struct pending *p = (const void *)b->left.at;
        int order = name ? name_compare(p->name, p->name_size, name, size) : -1;
        if (order > 0)
            return;
        reader_bytes(&b->left, sizeof(*p));
        if (order < 0)
            listing_add(b->listing, p->name, p->name_size, p->parent, DT_REG);
    }
}

static int batch_each(void *arg, const uint8_t *name, size_t size, uint64_t inode,
                      uint8_t type)
{
    struct batch *b = arg;
    batch_merge(b, name, size);
    listing_add(b->listing, name, size, inode, type);
    return ++b->count == LISTING_BATCH;
}

static int listing_extend(struct fs_mount *m, struct listing *l)
{
    struct batch b = {.listing = l};
    struct buf after = {0};
    size_t size;
    const void *last = listing_last(l, &size);
    if (last)
        buf_bytes(&after, last, size);
    batch_collect(m, &b);
    int end =
        fs_list(&m->backend.view, l->inode, after.data, after.length, batch_each, &b);
    if (end == 0) {
        batch_merge(&b, NULL, 0);
        l->ended = true;
    }
    buf_release(&after);
    buf_release(&b.pending);
    if (l->names.failed || l->entries.failed)
        return -ENOMEM;
    return end < 0 ? end : 0;
}

/* ---- Requests ---- */

static struct listing *listing_of(const struct fuse_file_info *fi)
{
    return (struct listing *)(uintptr_t)fi->fh;
}

static void listing_free(struct listing *l)
{
    pthread_mutex_destroy(&l->lock);
    buf_release(&l->names);
    buf_release(&l->entries);
    free(l);
}

void on_opendir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    struct stat attr;
    int error = mount_attributes(fuse_req_userdata(req), inode, &attr);
    struct listing *l = error ? NULL : calloc(1, sizeof(*l));
    if (!l) {
        fuse_reply_err(req, error ? -error : ENOMEM);
        return;
    }
    pthread_mutex_init(&l->lock, NULL);
    l->inode = inode;
    fi->fh = (uint64_t)(uintptr_t)l;
    if (fuse_reply_open(req, fi) == -ENOENT)
        listing_free(l); /* the caller is gone: no RELEASEDIR will come */
}

void on_releasedir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    listing_free(listing_of(fi));
    fuse_reply_err(req, 0);
}

struct page { /* an answer in the making */
    fuse_req_t req;
    char *at;
    size_t size, used;
    bool plus;
};

/* False: no room. */
static bool page_add(struct page *p, const char *name,
                     const struct fuse_entry_param *entry, off_t next)
{
    size_t left = p->size - p->used;
    size_t need =
        p->plus
            ? fuse_add_direntry_plus(p->req, p->at + p->used, left, name, entry, next)
            : fuse_add_direntry(p->req, p->at + p->used, left, name, &entry->attr, next);
    if (need > left)
        return false;
    p->used += need;
    return true;
}

/* The kernel counts a look-up for each name that READDIRPLUS shows. */
static void pending_looked_up(struct fs_mount *m, uint64_t inode)
{
    pthread_mutex_lock(&m->lock);
    struct file *file = file_find(m, inode);
    if (file && file->pending)
        file->lookups++;
    pthread_mutex_unlock(&m->lock);
}

static bool page_add_listed(struct page *p, struct fs_mount *m, const struct listing *l,
                            size_t i)
{
    const struct listed *e = listing_at(l, i);
    const char *name = (const char *)l->names.data + e->name;
    struct fuse_entry_param entry = {0};
    if (mount_is_virtual_name(l->inode, name))
        return true; /* made by a command, not through a mount: it cannot be reached */
    int error = p->plus ? mount_attributes(m, e->inode, &entry.attr) : 0;
    if (error == -ESTALE) /* the name may be there still: of what took its place */
        error = mount_attributes_of_name(m, l->inode, name, &entry.attr);
    if (error)
        return true; /* gone since: its ordinal stays unused */
    entry.ino = p->plus ? entry.attr.st_ino : 0;
    mount_show(m, &entry.attr);
    if (!p->plus) {
        entry.attr.st_ino = e->inode;
        entry.attr.st_mode = DTTOIF(e->type);
    }
    if (!page_add(p, name, &entry, (off_t)i + LISTING_DOTS + 1))
        return false;
    if (p->plus)
        pending_looked_up(m, entry.ino);
    return true;
}

static uint64_t parent_of(struct fs_mount *m, uint64_t directory)
{
    struct buf scratch = {0};
    struct fs_inode inode;
    int error = fs_stat(&m->backend.view, directory, &scratch, &inode);
    buf_release(&scratch);
    return error ? directory : inode.parent;
}

/* "." and "..": without a node, so that the kernel does not count a look-up. */
static bool page_add_dot(struct page *p, struct fs_mount *m, uint64_t inode, off_t at)
{
    struct fuse_entry_param entry = {.attr = {.st_mode = S_IFDIR}};
    entry.attr.st_ino = at == 0 ? inode : parent_of(m, inode);
    return page_add(p, at == 0 ? "." : "..", &entry, at + 1);
}

static int page_fill(struct page *p, struct fs_mount *m, struct listing *l, off_t offset)
{
    if (offset == 0) { /* rewinddir */
        buf_clear(&l->names);
        buf_clear(&l->entries);
        l->ended = false;
    }
    for (; offset < LISTING_DOTS; offset++)
        if (!page_add_dot(p, m, l->inode, offset))
            return 0;
    for (size_t i = (size_t)offset - LISTING_DOTS;; i++) {
        while (i >= listing_count(l) && !l->ended) {
            int error = listing_extend(m, l);
            if (error)
                return error;
        }
        if (i >= listing_count(l) || !page_add_listed(p, m, l, i))
            return 0;
    }
}

static void list(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi,
                 bool plus)
{
    struct listing *l = listing_of(fi);
    struct page p = {
        .req = req, .at = malloc(size ? size : 1), .size = size, .plus = plus};
    int error = -ENOMEM;
    if (p.at) {
        pthread_mutex_lock(&l->lock);
        error = page_fill(&p, fuse_req_userdata(req), l, offset);
        pthread_mutex_unlock(&l->lock);
    }
    if (error && !p.used)
        fuse_reply_err(req, -error);
    else
        fuse_reply_buf(req, p.at, p.used);
    free(p.at);
}

void on_readdir(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                struct fuse_file_info *fi)
{
    list(req, size, offset, fi, false);
}

void on_readdirplus(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    list(req, size, offset, fi, true);
}
