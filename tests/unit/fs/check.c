/* check.c - reads everything, then compares. It uses the keys and the inode codec of fs,
 * and none of the code that keeps the rules. */
#include "check.h"

#include <dirent.h>
#include <sys/stat.h>

struct name {
    uint64_t parent, inode;
    uint8_t type;
};

struct node {
    struct fs_inode inode;
    struct buf value;
    uint64_t names, entries, directories, bytes, found_parent, holders;
};

struct extent_row {
    uint64_t content, offset, length, timestamp_us;
};

struct content_row {
    uint64_t content, session, more;
    bool used;
};

struct xattr_row {
    uint64_t inode;
};

struct holder_row {
    uint64_t inode, session;
};

struct locker_row {
    uint64_t session, inode, waits;
    bool used;
};

struct all {
    uint64_t *locked; /* inodes */
    struct locker_row *lockers;
    size_t locked_count, locker_count;
    struct xattr_row *xattrs;
    struct name *names;
    struct node *nodes;
    struct extent_row *extents;
    struct content_row *contents;
    struct holder_row *holders;
    size_t name_count, node_count, extent_count, content_count, void_count, xattr_count,
        holder_count;
};

#define GROW(array, count)                                                               \
    do {                                                                                 \
        if (((count) & ((count)-1)) == 0) {                                              \
            (array) = realloc((array), ((count) ? 2 * (count) : 1) * sizeof(*(array)));  \
            ensure(array);                                                               \
        }                                                                                \
        (count)++;                                                                       \
    } while (0)

static int add(void *arg, const struct fs_item *item)
{
    struct all *all = arg;
    uint64_t first = get_be64(item->key + 1);
    switch (item->key[0]) {
    case FS_CLASS_NAME:
        ensure(item->key_size > 9 && item->value && item->value_size == 9);
        GROW(all->names, all->name_count);
        all->names[all->name_count - 1] =
            (struct name){first, get_u64(item->value), item->value[8]};
        break;
    case FS_CLASS_INODE:
        ensure(item->key_size == 9);
        GROW(all->nodes, all->node_count);
        all->nodes[all->node_count - 1] = (struct node){.inode.inode = first};
        break;
    case FS_CLASS_EXTENT:
        ensure(item->key_size == 17);
        GROW(all->extents, all->extent_count);
        all->extents[all->extent_count - 1] = (struct extent_row){
            first, get_be64(item->key + 9), item->value_size, item->timestamp_us};
        break;
    case FS_CLASS_CONTENT:
        ensure(item->key_size == 9 && item->value && item->value_size == 16);
        GROW(all->contents, all->content_count);
        all->contents[all->content_count - 1] = (struct content_row){
            first, get_u64(item->value), get_u64(item->value + 8), 0};
        break;
    case FS_CLASS_XATTR:
        ensure(item->key_size > 9 && item->key_size <= 9 + LIMIT_NAME_BYTES);
        GROW(all->xattrs, all->xattr_count);
        all->xattrs[all->xattr_count - 1] = (struct xattr_row){first};
        break;
    case FS_CLASS_ORPHAN:
        ensure(item->key_size == 17 && item->value_size == 0);
        GROW(all->holders, all->holder_count);
        all->holders[all->holder_count - 1] =
            (struct holder_row){first, get_be64(item->key + 9)};
        break;
    case FS_CLASS_LOCKS:
        ensure(item->key_size == 9);
        GROW(all->locked, all->locked_count);
        all->locked[all->locked_count - 1] = first;
        break;
    case FS_CLASS_LOCKER:
        ensure(item->key_size == 17 && item->value && item->value_size == 8);
        GROW(all->lockers, all->locker_count);
        all->lockers[all->locker_count - 1] = (struct locker_row){
            first, get_be64(item->key + 9), get_u64(item->value), false};
        break;
    case FS_CLASS_SESSION: /* the node's */
        break;
    default:
        ensure(!"a class that fs does not write");
    }
    return 0;
}

static struct node *node_of(struct all *all, uint64_t inode)
{
    size_t low = 0, high = all->node_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (all->nodes[middle].inode.inode < inode)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < all->node_count && all->nodes[low].inode.inode == inode;
    return found ? &all->nodes[low] : NULL;
}

static void load(const struct fs_view *view, struct all *all)
{
    *all = (struct all){0};
    uint8_t from = 'A', to = 'Z';
    ensure(view->scan(view->context, &from, 1, &to, 1, add, all) == 0);
    for (size_t i = 0; i < all->node_count; i++) {
        struct node *n = &all->nodes[i];
        ensure(fs_stat(view, n->inode.inode, &n->value, &n->inode) == 0);
    }
}

static void unload(struct all *all)
{
    for (size_t i = 0; i < all->node_count; i++)
        buf_release(&all->nodes[i].value);
    free(all->names);
    free(all->xattrs);
    free(all->nodes);
    free(all->extents);
    free(all->contents);
    free(all->locked);
    free(all->lockers);
    free(all->holders);
}

/* N4: who may hold an inode is said of those without a name, and of all of them. */
static uint64_t check_orphans(struct all *all)
{
    uint64_t orphans = 0;
    for (size_t i = 0; i < all->holder_count; i++) {
        struct node *n = node_of(all, all->holders[i].inode);
        ensure(n && n->inode.nlink == 0 && n->names == 0);
        n->holders++;
    }
    for (size_t i = 0; i < all->node_count; i++) {
        const struct node *n = &all->nodes[i];
        ensure((n->inode.nlink == 0) == (n->holders > 0));
        orphans += n->holders > 0;
    }
    return orphans;
}

static void check_names(struct all *all)
{
    for (size_t i = 0; i < all->name_count; i++) {
        const struct name *name = &all->names[i];
        struct node *parent = node_of(all, name->parent);
        struct node *child = node_of(all, name->inode);
        ensure(parent && S_ISDIR(parent->inode.mode));            /* N1 */
        ensure(child && IFTODT(child->inode.mode) == name->type); /* N1 */
        parent->entries++;
        parent->directories += name->type == DT_DIR;
        child->names++;
        child->found_parent = name->parent;
    }
    for (size_t i = 0; i < all->node_count; i++) {
        struct node *n = &all->nodes[i];
        bool root = n->inode.inode == FS_ROOT_INODE;
        if (n->inode.nlink == 0) {
            ensure(n->names == 0 && n->entries == 0); /* N4 */
            continue;
        }
        if (!S_ISDIR(n->inode.mode)) {
            ensure(n->names > 0 && n->names == n->inode.nlink); /* N1 */
            continue;
        }
        ensure(n->names == (root ? 0 : 1));                                  /* N1 */
        ensure(n->inode.size == n->entries);                                 /* N2 */
        ensure(n->inode.nlink == 2 + n->directories);                        /* N2 */
        ensure(n->inode.parent == (root ? FS_ROOT_INODE : n->found_parent)); /* N2 */
        size_t steps = 0;
        for (struct node *up = n; up->inode.inode != FS_ROOT_INODE; steps++) {
            up = node_of(all, up->inode.parent);
            ensure(up && steps <= all->node_count); /* N3 */
        }
    }
}

static void check_xattrs(struct all *all)
{
    size_t same = 0;
    for (size_t i = 0; i < all->xattr_count; i++) {
        same = i && all->xattrs[i].inode == all->xattrs[i - 1].inode ? same + 1 : 1;
        ensure(node_of(all, all->xattrs[i].inode)); /* A1 */
        ensure(same <= FS_XATTRS_MOST);             /* A1 */
    }
}

static struct node *owner_of(struct all *all, uint64_t content)
{
    struct node *found = NULL;
    for (size_t i = 0; i < all->node_count; i++) {
        const struct fs_inode *inode = &all->nodes[i].inode;
        if (inode->kind == FS_CONTENT_EXTENTS && inode->content == content) {
            ensure(!found); /* E5 */
            found = &all->nodes[i];
        }
    }
    return found;
}

static struct content_row *record_of(struct all *all, uint64_t content)
{
    for (size_t i = 0; i < all->content_count; i++)
        if (all->contents[i].content == content)
            return &all->contents[i];
    return NULL;
}

static bool is_void(const struct fs_inode *inode, const struct extent_row *x)
{
    uint64_t floor = 0;
    for (uint32_t i = 0; i < inode->trim_count; i++)
        if (get_u64(inode->trims + 16 * i) <= x->offset)
            floor = get_u64(inode->trims + 16 * i + 8);
    return x->timestamp_us < floor;
}

/* Extents [first, end) of one content. */
static void check_content(struct all *all, size_t first, size_t end)
{
    uint64_t content = all->extents[first].content, bytes = 0, at = 0;
    struct node *owner = owner_of(all, content);
    struct content_row *record = record_of(all, content);
    bool trimmed = record && record->session == 0 && record->more;
    ensure(owner ? !record || trimmed : record && !trimmed); /* E5 */
    for (size_t i = first; i < end; i++) {
        const struct extent_row *x = &all->extents[i];
        ensure(x->offset % 4096 == 0 && x->offset % 65536 + x->length <= 65536); /* E1 */
        ensure(x->length > 0 && (x->length < 4096 || x->length % 4096 == 0));    /* E2 */
        ensure(x->offset >= at);                                                 /* E3 */
        at = x->offset + x->length;
        bytes += x->length;
        if (owner && is_void(&owner->inode, x))
            all->void_count++;
        else
            ensure(!owner || at <= owner->inode.size); /* E4 */
    }
    if (owner)
        owner->bytes = bytes;
    if (record && record->session)
        ensure(record->more == bytes);
}

static void check_extents(struct all *all)
{
    for (size_t first = 0, end; first < all->extent_count; first = end) {
        for (end = first; end < all->extent_count; end++)
            if (all->extents[end].content != all->extents[first].content)
                break;
        check_content(all, first, end);
    }
    for (size_t i = 0; i < all->node_count; i++) {
        struct node *n = &all->nodes[i];
        if (n->inode.kind != FS_CONTENT_EXTENTS)
            continue;
        ensure(n->inode.size > 0 && n->inode.content_bytes == n->bytes); /* E4 */
        struct content_row *record = record_of(all, n->inode.content);
        ensure(!record == !n->inode.trim_count); /* E6 */
        ensure(!record || (!record->session && record->more == n->inode.inode));
    }
    for (size_t i = 0; i < all->content_count; i++) { /* E5, E6 */
        struct node *owner = owner_of(all, all->contents[i].content);
        bool trimmed = !all->contents[i].session && all->contents[i].more;
        ensure(!owner == !trimmed);
    }
}

static struct locker_row *locker_of(struct all *all, uint64_t session, uint64_t inode)
{
    for (size_t i = 0; i < all->locker_count; i++)
        if (all->lockers[i].session == session && all->lockers[i].inode == inode)
            return &all->lockers[i];
    return NULL;
}

/* F1, F2 of one inode; F3 of who is in its record. */
static void check_inode_locks(struct all *all, uint64_t inode, const struct fs_locks *l)
{
    ensure(node_of(all, inode) && l->count); /* F4 */
    for (size_t i = 0; i < l->count; i++) {
        uint64_t waits = 0;
        ensure(l->at[i].waits == (i >= l->held));
        for (size_t k = 0; k < i && i < l->held; k++)
            ensure(!fs_lock_conflicts(&l->at[i], &l->at[k])); /* F1 */
        struct fs_locks before = {.at = l->at, .held = l->held, .count = i};
        ensure(i < l->held || fs_locks_blocker(&before, &l->at[i])); /* F2 */
        for (size_t k = l->held; k < l->count; k++)
            waits += l->at[k].session == l->at[i].session &&
                     l->at[k].kind == FS_LOCK_FCNTL;
        struct locker_row *row = locker_of(all, l->at[i].session, inode);
        ensure(row && row->waits == waits); /* F3 */
        row->used = true;
    }
}

static void check_locks(const struct fs_view *view, struct all *all)
{
    for (size_t i = 0; i < all->locked_count; i++) {
        struct fs_locks locks;
        ensure(fs_locks_read(view, all->locked[i], &locks) == 0);
        check_inode_locks(all, all->locked[i], &locks);
        fs_locks_release(&locks);
    }
    for (size_t i = 0; i < all->locker_count; i++)
        ensure(all->lockers[i].used); /* F3 */
}

void check_view(const struct fs_view *view)
{
    check_count(view);
}

struct check_counts check_count(const struct fs_view *view)
{
    struct all all;
    load(view, &all);
    check_names(&all);
    check_xattrs(&all);
    uint64_t orphans = check_orphans(&all);
    check_extents(&all);
    check_locks(view, &all);
    struct check_counts counts = {
        .names = all.name_count,
        .inodes = all.node_count,
        .extents = all.extent_count,
        .void_extents = all.void_count,
        .contents = all.content_count,
        .xattrs = all.xattr_count,
        .orphans = orphans,
    };
    unload(&all);
    return counts;
}
