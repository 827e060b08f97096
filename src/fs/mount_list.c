/*
 * mount_list.c - directories. A handle holds the next names, a batch of them, read from
 * the view in key order behind the last one shown: so a name that stays is neither lost nor
 * repeated, whatever happens to others; one that leads to another file by the time it is
 * shown is shown with that. A name's offset is a place (position.h), which outlives the
 * name and the batch. Pending names are merged in where they belong; they are looked at before
 * the view is, so that one that is made meanwhile is seen here or there.
 */
#include "mount_internal.h"
#include "position.h"

#include <dirent.h>

enum { LISTING_BATCH = 512, LISTING_DOTS = 2 };

struct listed {
    uint64_t inode;
    uint32_t name; /* offset into `names`, where it ends with a NUL */
    uint16_t name_size;
    uint8_t type;
};

struct listing {
    struct listing *after, **at; /* in mount->listings */
    pthread_mutex_t lock;
    uint64_t inode;
    struct buf names, entries; /* of struct listed: the batch */
    size_t next;               /* of it: to be shown next */
    struct position end;       /* behind its last name: where it is continued */
    bool ended;                /* nothing is there */
    off_t shown;               /* what the last one shown was shown with */
    struct positions positions;
};

struct batch {
    struct listing *listing;
    struct buf pending; /* struct pending, ascending, behind the listing's end */
    struct reader left;
};

static size_t listing_count(const struct listing *l)
{
    return l->entries.length / sizeof(struct listed);
}

static const struct listed *listing_at(const struct listing *l, size_t i)
{
    return (const struct listed *)(const void *)l->entries.data + i;
}

static const char *listing_name(const struct listing *l, const struct listed *e)
{
    return (const char *)l->names.data + e->name;
}

static int name_compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
    int order = memcmp(a, b, min_u64(a_size, b_size));
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static bool listing_is_full(const struct listing *l)
{
    return listing_count(l) >= LISTING_BATCH;
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

static void listing_clear(struct listing *l)
{
    buf_clear(&l->names);
    buf_clear(&l->entries);
    l->next = 0;
}

/* The names that were shown go. The batch was shown but for its last name, at most. */
static void listing_drop_shown(struct listing *l)
{
    size_t count = listing_count(l);
    if (l->next < count) {
        ensure(l->next + 1 == count);
        struct listed last = *listing_at(l, l->next);
        uint8_t name[LIMIT_NAME_BYTES];
        memcpy(name, listing_name(l, &last), last.name_size);
        listing_clear(l);
        listing_add(l, name, last.name_size, last.inode, last.type);
    } else {
        listing_clear(l);
    }
}

/* ---- Pending names ---- */

static int pending_compare(const void *a, const void *b)
{
    const struct pending *p = a, *q = b;
    return name_compare(p->name, p->name_size, q->name, q->name_size);
}

/* Copies of the pending names that come next. */
static void batch_collect(struct fs_mount *m, struct batch *b)
{
    struct buf found = {0};
    pthread_mutex_lock(&m->lock);
    for (struct pending *p = m->pendings; p; p = p->next)
        if (p->parent == b->listing->inode &&
            position_is_before(&b->listing->end, p->name, p->name_size)) {
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
    while (reader_left(&b->left) && !listing_is_full(b->listing)) {
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
    if (!position_is_before(&b->listing->end, name, size))
        return 0; /* the place is behind all that begin as this one does */
    batch_merge(b, name, size);
    if (listing_is_full(b->listing))
        return 1;
    listing_add(b->listing, name, size, inode, type);
    return 0;
}

/* Reads the names that come next into the batch. */
static int batch_fill(struct fs_mount *m, struct batch *b)
{
    struct listing *l = b->listing;
    batch_collect(m, b);
    if (b->pending.failed)
        return -ENOMEM;
    int end =
        fs_list(&m->backend.view, l->inode, l->end.bytes, l->end.size, batch_each, b);
    if (end < 0)
        return end;
    if (end == 0)
        batch_merge(b, NULL, 0);
    if (l->names.failed || l->entries.failed)
        return -ENOMEM;
    l->ended = end == 0 && !reader_left(&b->left);
    return 0;
}

static int listing_extend(struct fs_mount *m, struct listing *l)
{
    struct batch b = {.listing = l};
    listing_drop_shown(l);
    size_t names = l->names.length, entries = l->entries.length;
    int error = batch_fill(m, &b);
    buf_release(&b.pending);
    if (error) { /* whole, or as it was: it goes on at its end */
        l->names.length = names;
        l->entries.length = entries;
    } else if (listing_count(l)) {
        const struct listed *last = listing_at(l, listing_count(l) - 1);
        position_set(&l->end, listing_name(l, last), last->name_size);
    }
    return error;
}

/* To where a program wants to go on, if that is elsewhere. */
static int listing_seek(struct listing *l, off_t offset)
{
    if (offset && offset == l->shown)
        return 0;
    struct position to = {0};
    int error =
        offset > LISTING_DOTS ? positions_find(&l->positions, (uint64_t)offset, &to) : 0;
    if (error)
        return error;
    listing_clear(l);
    l->end = to;
    l->ended = false;
    l->shown = offset;
    return 0;
}

/* ---- Requests ---- */

static struct listing *listing_of(const struct fuse_file_info *fi)
{
    return (struct listing *)(uintptr_t)fi->fh;
}

/* With the mount's lock held. */
static void listing_link(struct fs_mount *m, struct listing *l)
{
    l->after = m->listings;
    l->at = &m->listings;
    m->listings = l;
    if (l->after)
        l->after->at = &l->after;
}

static void listing_unlink(struct listing *l)
{
    *l->at = l->after;
    if (l->after)
        l->after->at = l->at;
}

static void listing_free(struct listing *l)
{
    pthread_mutex_destroy(&l->lock);
    buf_release(&l->names);
    buf_release(&l->entries);
    positions_release(&l->positions);
    free(l);
}

static void listing_close(struct fs_mount *m, struct listing *l)
{
    pthread_mutex_lock(&m->lock);
    listing_unlink(l);
    pthread_mutex_unlock(&m->lock);
    listing_free(l);
}

void listings_free(struct fs_mount *m)
{
    while (m->listings)
        listing_close(m, m->listings);
}

void on_opendir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct stat attr;
    int error = mount_attributes(m, inode, &attr);
    struct listing *l = error ? NULL : calloc(1, sizeof(*l));
    if (!l) {
        fuse_reply_err(req, error ? -error : ENOMEM);
        return;
    }
    pthread_mutex_init(&l->lock, NULL);
    l->inode = inode;
    pthread_mutex_lock(&m->lock);
    listing_link(m, l);
    pthread_mutex_unlock(&m->lock);
    fi->fh = (uint64_t)(uintptr_t)l;
    if (fuse_reply_open(req, fi) == -ENOENT)
        listing_close(m, l); /* the caller is gone: no RELEASEDIR will come */
}

void on_releasedir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    listing_close(fuse_req_userdata(req), listing_of(fi));
    fuse_reply_err(req, 0);
}

struct page { /* an answer in the making */
    fuse_req_t req;
    char *at;
    size_t size, used;
    bool plus;
    struct buf counted; /* inodes, u64 each */
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
static void page_count(struct page *p, struct fs_mount *m, uint64_t inode)
{
    pthread_mutex_lock(&m->lock);
    lookup_count(m, inode);
    pthread_mutex_unlock(&m->lock);
    buf_u64(&p->counted, inode);
}

/* The reply did not reach it. */
static void page_uncount(const struct page *p, struct fs_mount *m)
{
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < p->counted.length; i += 8)
        file_forget(m, get_u64(p->counted.data + i), 1);
    pthread_mutex_unlock(&m->lock);
}

static bool page_add_listed(struct page *p, struct fs_mount *m, struct listing *l,
                            const struct listed *e, off_t number)
{
    const char *name = listing_name(l, e);
    struct fuse_entry_param entry = {0};
    if (mount_is_virtual_name(l->inode, name))
        return true; /* made by a command, not through a mount: it cannot be reached */
    int error = p->plus ? mount_attributes(m, e->inode, &entry.attr) : 0;
    if (!error && p->plus && entry.attr.st_nlink == 0)
        error = -ESTALE; /* removed, and maybe released: it must not be given any more */
    if (error == -ESTALE) /* the name may be there still: of what took its place */
        error = mount_attributes_of_name(m, l->inode, name, &entry.attr);
    if (error)
        return true; /* gone since */
    entry.ino = p->plus ? entry.attr.st_ino : 0;
    mount_show(m, &entry.attr);
    if (!p->plus) {
        entry.attr.st_ino = e->inode;
        entry.attr.st_mode = DTTOIF(e->type);
    }
    if (!page_add(p, name, &entry, number))
        return false;
    if (p->plus)
        page_count(p, m, entry.ino);
    l->shown = number;
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

/* The next name of the batch. Its place is before the one after it, so that has to be
 * known. *ret_more is false where there is no room, or no name. */
static int page_add_next(struct page *p, struct fs_mount *m, struct listing *l,
                         bool *ret_more)
{
    while (l->next + 1 >= listing_count(l) && !l->ended) {
        int error = listing_extend(m, l);
        if (error)
            return error;
    }
    *ret_more = l->next < listing_count(l);
    if (!*ret_more)
        return 0;
    const struct listed *e = listing_at(l, l->next);
    bool last = l->next + 1 == listing_count(l);
    uint64_t number;
    int error = positions_number(&l->positions, listing_name(l, e), e->name_size,
                                 last ? NULL : listing_name(l, e + 1),
                                 last ? 0 : e[1].name_size, &number);
    if (error)
        return error;
    *ret_more = page_add_listed(p, m, l, e, (off_t)number);
    l->next += *ret_more;
    return 0;
}

static int page_fill(struct page *p, struct fs_mount *m, struct listing *l, off_t offset)
{
    int error = listing_seek(l, offset);
    for (; !error && offset < LISTING_DOTS; offset++) {
        if (!page_add_dot(p, m, l->inode, offset))
            return 0;
        l->shown = offset + 1;
    }
    for (bool more = true; !error && more;)
        error = page_add_next(p, m, l, &more);
    return error;
}

static void list(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi,
                 bool plus)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct listing *l = listing_of(fi);
    struct page p = {
        .req = req, .at = malloc(size ? size : 1), .size = size, .plus = plus};
    int error = -ENOMEM;
    pthread_mutex_lock(&m->lock);
    unsigned section = section_begin(m);
    pthread_mutex_unlock(&m->lock);
    if (p.at) {
        pthread_mutex_lock(&l->lock);
        error = page_fill(&p, m, l, offset);
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_lock(&m->lock);
    section_end(m, section);
    pthread_mutex_unlock(&m->lock);
    if (error && !p.used)
        fuse_reply_err(req, -error);
    else if (fuse_reply_buf(req, p.at, p.used) == -ENOENT)
        page_uncount(&p, m);
    buf_release(&p.counted);
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
