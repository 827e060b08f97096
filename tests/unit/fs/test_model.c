/*
 * test_model.c - random operations, against a plain file system in memory.
 *
 * After each step the file or directory it touched is compared, and at times everything,
 * with the invariants of the folder's README. A failing seed is printed with its step,
 * and is replayed with MODEL_SEED=seed.
 */
#include "check.h"
#include "ops.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum {
    NODES = 24,
    NAMES = 6,      /* names in use in any directory: few, so that they meet */
    ALL_NAMES = 40, /* of all nodes together */
    XATTRS = 4,     /* of a node */
    FILE_BYTES = 1 << 20,
    SESSIONS = 2, /* the operations' own, and one that dies at times */
    STEPS = 1500,
    SEEDS = 6,
};

struct node {
    bool used;
    uint64_t inode;
    uint32_t mode;
    int parent; /* of a directory: a place in nodes; the root's is itself */
    unsigned names;      /* 0: an orphan, */
    bool held[SESSIONS]; /* ... and by whom it may be */
    uint8_t xattrs[XATTRS]; /* the value of user.N; 0: none */
    uint8_t *bytes; /* FILE_BYTES, for a file */
    size_t size;
};

struct name {
    bool used;
    int parent, node; /* places in nodes */
    char text[4];
};

struct model {
    struct memory memory;
    struct fs_view view;
    struct node nodes[NODES];
    struct name names[ALL_NAMES];
    uint64_t sessions[SESSIONS];
    uint64_t random;
    uint64_t content; /* being built, with these bytes; 0: none */
    uint8_t *built;
    size_t built_end;
    uint8_t *data;
    uint64_t seed;
    unsigned step;
};

static uint64_t below(struct model *m, uint64_t limit)
{
    return random_next(&m->random) % limit;
}

/* Offsets and sizes near where something changes. */
static size_t some_size(struct model *m)
{
    static const size_t edges[] = {0, 4096, 8192, 65536, 131072, 65536 + 4096, 500000};
    size_t edge = edges[below(m, array_length(edges))];
    switch (below(m, 4)) {
    case 0:
        return below(m, 200);
    case 1:
        return edge + below(m, 5);
    case 2:
        return edge > 4 ? edge - below(m, 4) : edge;
    default:
        return below(m, FILE_BYTES / 2);
    }
}

static const uint8_t *some_data(struct model *m, size_t length)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t v = random_next(&m->random) | 0x0101010101010101; /* no byte is zero */
        memcpy(m->data + i, &v, min_u64(8, length - i));
    }
    return m->data;
}

static struct name *find_name(struct model *m, int parent, const char *text)
{
    for (int i = 0; i < ALL_NAMES; i++)
        if (m->names[i].used && m->names[i].parent == parent &&
            strcmp(m->names[i].text, text) == 0)
            return &m->names[i];
    return NULL;
}

static struct node *find_node(struct model *m, int parent, const char *text)
{
    const struct name *name = find_name(m, parent, text);
    return name ? &m->nodes[name->node] : NULL;
}

static size_t entries_of(struct model *m, int directory, size_t *ret_directories)
{
    size_t count = 0;
    *ret_directories = 0;
    for (int i = 0; i < ALL_NAMES; i++)
        if (m->names[i].used && m->names[i].parent == directory) {
            count++;
            *ret_directories += S_ISDIR(m->nodes[m->names[i].node].mode);
        }
    return count;
}

/* A directory with a name, or a file with or without. */
static int some_node(struct model *m, bool directory)
{
    for (int tries = 0; tries < 100; tries++) {
        int i = (int)below(m, NODES);
        if (m->nodes[i].used && S_ISDIR(m->nodes[i].mode) == directory &&
            (!directory || m->nodes[i].names))
            return i;
    }
    return directory ? 0 : -1;
}

static void some_name(struct model *m, char name[4])
{
    snprintf(name, 4, "n%u", (unsigned)below(m, NAMES));
}

/* ---- Comparing ---- */

static void compare_range(struct model *m, const struct node *n, size_t offset,
                          size_t length)
{
    uint8_t *got = malloc(length + 1);
    size_t read = 77, expected = offset < n->size ? min_u64(length, n->size - offset) : 0;
    memset(got, 0xEE, length + 1);
    assert_int_equal(fs_read(&m->view, n->inode, offset, length, got, &read), 0);
    assert_int_equal(read, expected);
    assert_memory_equal(got, n->bytes + offset, expected);
    free(got);
}

struct listing {
    struct model *model;
    int directory;
    size_t count;
};

static int compare_name(void *arg, const uint8_t *name, size_t name_size, uint64_t inode,
                        uint8_t type)
{
    struct listing *l = arg;
    char text[4] = {0};
    assert_true(name_size < sizeof(text));
    memcpy(text, name, name_size);
    struct node *n = find_node(l->model, l->directory, text);
    assert_non_null(n);
    assert_int_equal(n->inode, inode);
    assert_int_equal(IFTODT(n->mode), type);
    l->count++;
    return 0;
}

static void compare_xattrs(struct model *m, const struct node *n)
{
    for (unsigned i = 0; i < XATTRS; i++) {
        char name[16];
        struct buf value = {0};
        snprintf(name, sizeof(name), "user.%u", i);
        int error = fs_xattr_get(&m->view, n->inode, name, strlen(name), &value);
        assert_int_equal(error, n->xattrs[i] ? 0 : -ENODATA);
        assert_true(error || (value.length == 1 && value.data[0] == n->xattrs[i]));
        buf_release(&value);
    }
}

/* What is said to be a hole reads as zeros, and stretches are ever further on. */
static void compare_holes(struct model *m, const struct node *n)
{
    uint64_t at = 0, start, end;
    int error;
    while ((error = fs_data(&m->view, n->inode, at, &start, &end)) == 0) {
        assert_true(start < end && end > at && start < n->size);
        assert_true(start % 4096 == 0 && end % 4096 == 0);
        for (; at < start; at++)
            assert_int_equal(n->bytes[at], 0);
        at = end; /* which may lie behind the file's */
    }
    assert_int_equal(error, -ENXIO);
    for (; at < n->size; at++)
        assert_int_equal(n->bytes[at], 0);
}

static void compare_node(struct model *m, int i)
{
    struct node *n = &m->nodes[i];
    struct fs_inode inode;
    compare_xattrs(m, n);
    assert_int_equal(op_stat(&m->memory, n->inode, &inode), 0);
    assert_int_equal(inode.mode, n->mode);
    if (!S_ISDIR(n->mode)) {
        assert_int_equal(inode.size, n->size);
        assert_int_equal(inode.nlink, n->names);
        compare_range(m, n, 0, n->size + 10);
        size_t offset = below(m, n->size + 100);
        compare_range(m, n, offset, below(m, 150000));
        compare_holes(m, n);
        return;
    }
    if (!n->names) {
        assert_int_equal(inode.nlink, 0);
        return;
    }
    size_t directories;
    struct listing l = {.model = m, .directory = i};
    assert_int_equal(fs_list(&m->view, n->inode, NULL, 0, compare_name, &l), 0);
    assert_int_equal(l.count, entries_of(m, i, &directories));
    assert_int_equal(inode.size, l.count);
    assert_int_equal(inode.nlink, 2 + directories);
    assert_int_equal(inode.parent, m->nodes[n->parent].inode);
}

static void compare_built(struct model *m)
{
    if (!m->content)
        return;
    size_t offset = below(m, m->built_end + 100), length = below(m, 200000);
    length = min_u64(length, FILE_BYTES - offset);
    uint8_t *got = malloc(length + 1);
    assert_int_equal(fs_read_content(&m->view, m->content, offset, length, got), 0);
    assert_memory_equal(got, m->built + offset, length);
    free(got);
}

static void compare_all(struct model *m)
{
    for (int i = 0; i < NODES; i++)
        if (m->nodes[i].used)
            compare_node(m, i);
    compare_built(m);
    check_view(&m->view);
}

/* ---- Steps: the operation, what it must answer, and its effect on the model ---- */

static void forget(struct node *n)
{
    free(n->bytes);
    *n = (struct node){0};
}

static struct name *free_name(struct model *m)
{
    for (int i = 0; i < ALL_NAMES; i++)
        if (!m->names[i].used)
            return &m->names[i];
    return NULL;
}

static void put_name(struct name *name, int parent, const char *text, int node)
{
    *name = (struct name){.used = true, .parent = parent, .node = node};
    memcpy(name->text, text, sizeof(name->text));
}

/* The name is gone; with the last one the node is an orphan of all sessions. */
static void remove_name(struct model *m, struct name *name)
{
    struct node *n = &m->nodes[name->node];
    name->used = false;
    if (--n->names == 0)
        n->held[0] = n->held[1] = true;
}

/* One session less may hold it. */
static void let_go(struct model *m, int i, int by)
{
    struct node *n = &m->nodes[i];
    struct fs_inode inode;
    uint64_t number = n->inode;
    n->held[by] = false;
    if (n->held[0] || n->held[1]) {
        compare_node(m, i);
        return;
    }
    forget(n);
    assert_int_equal(op_stat(&m->memory, number, &inode), -ENOENT);
}

/* Some of the orphans that a session may hold, and others that mean nothing to it. */
static void step_release(struct model *m)
{
    int by = (int)below(m, SESSIONS), chosen[FS_RELEASE_MOST];
    uint64_t inodes[FS_RELEASE_MOST];
    size_t count = 0;
    for (int i = 0; i < NODES; i++) {
        if (!m->nodes[i].used || below(m, 2) || count == FS_RELEASE_MOST)
            continue;
        size_t at = count++;
        for (; at && inodes[at - 1] > m->nodes[i].inode; at--) {
            inodes[at] = inodes[at - 1];
            chosen[at] = chosen[at - 1];
        }
        inodes[at] = m->nodes[i].inode;
        chosen[at] = i;
    }
    if (!count)
        return;
    assert_int_equal(op_release(&m->memory, m->sessions[by], inodes, count), count);
    for (size_t i = 0; i < count; i++)
        if (m->nodes[chosen[i]].names == 0 && m->nodes[chosen[i]].held[by])
            let_go(m, chosen[i], by);
}

/* The second session dies, and another comes in its place: what it held is let go. */
static void step_death(struct model *m)
{
    if (below(m, 4))
        return;
    op_session(&m->memory, m->sessions[1], false);
    op_session(&m->memory, ++m->sessions[1], true);
    for (uint64_t from = FS_ROOT_INODE; from;)
        from = op_reclaim_orphans(&m->memory, from);
    for (int i = 0; i < NODES; i++)
        if (m->nodes[i].used && !m->nodes[i].names && m->nodes[i].held[1])
            let_go(m, i, 1);
}

static void step_link(struct model *m)
{
    int parent = some_node(m, true), i = some_node(m, below(m, 10) == 0);
    struct name *place = free_name(m);
    char name[4];
    some_name(m, name);
    if (i < 0 || !place)
        return;
    struct node *n = &m->nodes[i];
    int expected = !n->names                     ? -ENOENT
                   : find_name(m, parent, name) ? -EEXIST
                   : S_ISDIR(n->mode)           ? -EPERM
                                                : 0;
    assert_int_equal(op_link(&m->memory, n->inode, m->nodes[parent].inode, name),
                     expected);
    if (expected)
        return;
    put_name(place, parent, name, i);
    n->names++;
    compare_node(m, i);
    compare_node(m, parent);
}

/* The number of a name that it has, or of one that it has not. */
static void step_xattr(struct model *m)
{
    int i = some_node(m, below(m, 3) == 0);
    if (i < 0)
        return;
    struct node *n = &m->nodes[i];
    unsigned name = (unsigned)below(m, XATTRS);
    uint32_t flags = 1u << (3 + below(m, 4)); /* none, CREATE, REPLACE, REMOVE */
    bool there = n->xattrs[name], removes = flags == FS_XATTR_REMOVE;
    char text[16];
    snprintf(text, sizeof(text), "user.%u", name);
    uint8_t value = (uint8_t)(1 + below(m, 255));
    int expected = there && flags == FS_XATTR_CREATE ? -EEXIST
                   : !there && flags > FS_XATTR_CREATE ? -ENODATA
                                                       : 0;
    assert_int_equal(op_xattr(&m->memory, n->inode, text, &value, !removes,
                              flags < FS_XATTR_CREATE ? 0 : flags),
                     expected);
    if (!expected)
        n->xattrs[name] = removes ? 0 : value;
    compare_node(m, i);
}

static void step_make(struct model *m)
{
    int parent = some_node(m, true), free_place = -1;
    uint32_t mode = below(m, 3) ? S_IFREG | 0644 : S_IFDIR | 0755;
    char name[4];
    some_name(m, name);
    for (int i = 1; i < NODES; i++)
        if (!m->nodes[i].used)
            free_place = i;
    struct name *place = free_name(m);
    if (free_place < 0 || !place)
        return;
    bool exists = find_name(m, parent, name) != NULL;
    uint64_t inode;
    int error = op_make(&m->memory, m->nodes[parent].inode, name, mode, &inode);
    assert_int_equal(error, exists ? -EEXIST : 0);
    if (error)
        return;
    struct node *n = &m->nodes[free_place];
    *n = (struct node){.used = true, .inode = inode, .mode = mode, .parent = parent};
    n->names = 1;
    put_name(place, parent, name, free_place);
    if (S_ISREG(mode))
        n->bytes = calloc(1, FILE_BYTES + 200);
    compare_node(m, free_place);
    compare_node(m, parent);
}

static void step_write(struct model *m)
{
    int i = some_node(m, false);
    if (i < 0)
        return;
    struct node *n = &m->nodes[i];
    size_t offset = below(m, 3) ? some_size(m) : below(m, n->size + 1);
    size_t length = min_u64(some_size(m) + 1, FILE_BYTES - offset);
    const uint8_t *data = some_data(m, length);
    assert_int_equal(op_write(&m->memory, n->inode, offset, data, length), 0);
    memcpy(n->bytes + offset, data, length);
    n->size = max_u64(n->size, offset + length);
    compare_node(m, i);
}

/* Several ranges in one operation. */
static void step_write_ranges(struct model *m)
{
    int i = some_node(m, false);
    if (i < 0)
        return;
    struct node *n = &m->nodes[i];
    struct buf ranges = {0};
    size_t offset = below(m, 20000);
    for (uint64_t left = 1 + below(m, 12); left; left--) {
        size_t length = 1 + below(m, below(m, 2) ? 20000 : 50);
        if (offset + length > FILE_BYTES)
            break;
        const uint8_t *data = some_data(m, length);
        fs_range_add(&ranges, offset, data, length);
        memcpy(n->bytes + offset, data, length);
        n->size = max_u64(n->size, offset + length);
        offset += length + (below(m, 3) ? below(m, 30000) : 0);
    }
    struct fs_op op = {.type = FS_WRITE, .inode = n->inode, .ranges = ranges.data};
    op.ranges_size = (uint32_t)ranges.length;
    struct fs_result result;
    assert_int_equal(memory_do(&m->memory, &op, OPS_SESSION, &result), 0);
    buf_release(&ranges);
    compare_node(m, i);
}

static void step_append(struct model *m)
{
    int i = some_node(m, false);
    if (i < 0)
        return;
    struct node *n = &m->nodes[i];
    size_t length = 1 + below(m, below(m, 2) ? 300 : 70000);
    if (n->size + length > FILE_BYTES)
        return;
    const uint8_t *data = some_data(m, length);
    uint64_t end;
    assert_int_equal(op_append(&m->memory, n->inode, data, length, &end), 0);
    assert_int_equal(end, n->size + length);
    memcpy(n->bytes + n->size, data, length);
    n->size += length;
    compare_node(m, i);
}

static void step_truncate(struct model *m)
{
    int i = some_node(m, false);
    if (i < 0)
        return;
    struct node *n = &m->nodes[i];
    size_t size = below(m, 2) ? some_size(m) : below(m, n->size + 1);
    assert_int_equal(op_truncate(&m->memory, n->inode, size), 0);
    if (size < n->size)
        memset(n->bytes + size, 0, n->size - size);
    n->size = size;
    compare_node(m, i);
}

static void step_zero(struct model *m)
{
    static const uint32_t all_flags[] = {0, FS_KEEP_SIZE, FS_PUNCH,
                                         FS_PUNCH | FS_KEEP_SIZE};
    uint32_t flags = all_flags[below(m, array_length(all_flags))];
    int i = some_node(m, false);
    if (i < 0)
        return;
    struct node *n = &m->nodes[i];
    size_t offset = below(m, 2) ? some_size(m) : below(m, n->size + 1);
    size_t length = min_u64(some_size(m) + 1, FILE_BYTES - offset);
    assert_int_equal(op_zero(&m->memory, n->inode, flags, offset, length, NULL), 0);
    if (flags & FS_PUNCH)
        memset(n->bytes + offset, 0, length);
    if (!(flags & FS_KEEP_SIZE))
        n->size = max_u64(n->size, offset + length);
    compare_node(m, i);
}

/* Within a file too, onto itself. */
static void step_copy(struct model *m)
{
    int from = some_node(m, false), to = below(m, 4) ? some_node(m, false) : from;
    if (from < 0 || to < 0)
        return;
    struct node *source = &m->nodes[from], *n = &m->nodes[to];
    size_t offset = below(m, 2) ? some_size(m) : below(m, n->size + 1);
    size_t source_offset = below(m, 2) ? some_size(m) : below(m, source->size + 1);
    size_t length = min_u64(some_size(m), FILE_BYTES - offset), expected = 0;
    if (source_offset < source->size)
        expected = min_u64(length, source->size - source_offset);
    if (from == to && source_offset < offset + length && offset < source_offset + length)
        return;
    if (from == to)
        length = expected; /* the source would become longer meanwhile */
    uint64_t got;
    assert_int_equal(
        op_copy(&m->memory, source->inode, source_offset, n->inode, offset, length, &got),
        0);
    assert_int_equal(got, expected);
    memmove(n->bytes + offset, source->bytes + source_offset, expected);
    if (expected)
        n->size = max_u64(n->size, offset + expected);
    compare_node(m, to);
}

static void set_value(struct node *n, const uint8_t *built, size_t built_end,
                      const uint8_t *data, size_t offset, size_t length, size_t size)
{
    memset(n->bytes, 0, FILE_BYTES);
    if (built)
        memcpy(n->bytes, built, min_u64(built_end, size));
    memcpy(n->bytes + offset, data, length);
    n->size = size;
}

static void step_replace(struct model *m)
{
    int i = some_node(m, false);
    if (i < 0)
        return;
    struct node *n = &m->nodes[i];
    size_t offset = below(m, 4) ? 0 : some_size(m);
    size_t length = min_u64(some_size(m), FILE_BYTES - offset);
    size_t size = length ? offset + length + (below(m, 3) ? 0 : below(m, 9000)) : 0;
    const uint8_t *data = some_data(m, length);
    size = min_u64(size, FILE_BYTES);
    uint64_t content = below(m, 2) ? m->content : 0;
    assert_int_equal(
        op_replace(&m->memory, n->inode, content, offset, data, length, size), 0);
    set_value(n, content ? m->built : NULL, m->built_end, data, offset, length, size);
    if (content) {
        assert_int_equal(
            op_replace(&m->memory, n->inode, content, offset, data, length, size),
            -ESTALE);
        m->content = 0;
    }
    compare_node(m, i);
}

static void step_build(struct model *m)
{
    size_t offset = some_size(m), length = min_u64(some_size(m), FILE_BYTES - offset);
    const uint8_t *data = some_data(m, length);
    if (!m->content) {
        memset(m->built, 0, FILE_BYTES);
        m->built_end = 0;
    }
    assert_int_equal(op_build(&m->memory, &m->content, offset, data, length), 0);
    memcpy(m->built + offset, data, length);
    if (length)
        m->built_end = max_u64(m->built_end, offset + length);
    compare_built(m);
}

static void step_remove(struct model *m)
{
    int parent = some_node(m, true);
    bool directory = below(m, 3) == 0;
    char name[4];
    some_name(m, name);
    struct name *found = find_name(m, parent, name);
    struct node *n = found ? &m->nodes[found->node] : NULL;
    int expected = 0;
    size_t directories;
    if (!n)
        expected = -ENOENT;
    else if (directory && !S_ISDIR(n->mode))
        expected = -ENOTDIR;
    else if (!directory && S_ISDIR(n->mode))
        expected = -EISDIR;
    else if (directory && entries_of(m, (int)(n - m->nodes), &directories))
        expected = -ENOTEMPTY;
    uint64_t inode = m->nodes[parent].inode;
    int error = directory ? op_rmdir(&m->memory, inode, name)
                          : op_unlink(&m->memory, inode, name);
    assert_int_equal(error, expected);
    if (error == 0) {
        int place = found->node;
        remove_name(m, found);
        if (m->nodes[place].used)
            compare_node(m, place);
    }
    compare_node(m, parent);
}

static bool is_below(struct model *m, int node, int ancestor)
{
    while (node != ancestor && node != 0)
        node = m->nodes[node].parent;
    return node == ancestor;
}

static int expect_rename(struct model *m, struct node *n, struct node *victim, int parent,
                         int parent2, uint32_t flags)
{
    size_t directories;
    if (!n)
        return -ENOENT;
    if (!victim && flags & FS_EXCHANGE)
        return -ENOENT;
    if (victim && flags & FS_NOREPLACE)
        return -EEXIST;
    if (n == victim)
        return 0;
    if (S_ISDIR(n->mode) && is_below(m, parent2, (int)(n - m->nodes)))
        return -EINVAL;
    if (flags & FS_EXCHANGE) {
        int other = (int)(victim - m->nodes);
        return S_ISDIR(victim->mode) && is_below(m, parent, other) ? -EINVAL : 0;
    }
    if (!victim)
        return 0;
    if (S_ISDIR(n->mode) != S_ISDIR(victim->mode))
        return S_ISDIR(n->mode) ? -ENOTDIR : -EISDIR;
    if (S_ISDIR(victim->mode) && entries_of(m, (int)(victim - m->nodes), &directories))
        return -ENOTEMPTY;
    return 0;
}

static void move_name(struct model *m, struct name *from, struct name *to, int parent2,
                      const char *name2, bool exchange)
{
    int node = from->node;
    if (exchange) {
        m->nodes[to->node].parent = from->parent;
        from->node = to->node;
        to->node = node;
    } else {
        if (to)
            remove_name(m, to);
        put_name(from, parent2, name2, node);
    }
    m->nodes[node].parent = parent2;
    compare_node(m, node);
    if (exchange)
        compare_node(m, from->node);
}

static void step_rename(struct model *m)
{
    int parent = some_node(m, true), parent2 = below(m, 3) ? some_node(m, true) : parent;
    static const uint32_t all_flags[] = {0, 0, 0, FS_NOREPLACE, FS_EXCHANGE, FS_EXCHANGE};
    uint32_t flags = all_flags[below(m, array_length(all_flags))];
    char name[4], name2[4];
    some_name(m, name);
    some_name(m, name2);
    struct name *from = find_name(m, parent, name), *to = find_name(m, parent2, name2);
    struct node *n = find_node(m, parent, name), *victim = find_node(m, parent2, name2);
    int expected = expect_rename(m, n, victim, parent, parent2, flags);
    assert_int_equal(op_rename(&m->memory, m->nodes[parent].inode, name,
                               m->nodes[parent2].inode, name2, flags),
                     expected);
    if (expected == 0 && n != victim) {
        move_name(m, from, to, parent2, name2, flags & FS_EXCHANGE);
    }
    compare_node(m, parent);
    compare_node(m, parent2);
}

static void step_reclaim(struct model *m)
{
    op_reclaim(&m->memory);
    compare_built(m);
}

static void (*const steps[])(struct model *m) = {
    step_make,   step_make,   step_write,    step_write,   step_write, step_write_ranges,
    step_append, step_append, step_truncate, step_replace, step_build, step_remove,
    step_remove, step_rename, step_rename,   step_reclaim, step_link,  step_link,
    step_xattr,  step_xattr,  step_release,  step_death,
    step_zero,   step_zero,   step_copy,     step_copy,
};

static void run_seed(uint64_t seed, unsigned step_count)
{
    struct model *m = calloc(1, sizeof(*m));
    m->random = seed * 0x9E3779B97F4A7C15 + 1;
    m->seed = seed;
    m->built = calloc(1, FILE_BYTES + 200);
    m->data = malloc(FILE_BYTES + 8);
    memory_init(&m->memory);
    m->view = memory_view(&m->memory);
    m->nodes[0] = (struct node){
        .used = true, .names = 1, .inode = FS_ROOT_INODE, .mode = S_IFDIR | 0755};
    m->sessions[0] = OPS_SESSION;
    m->sessions[1] = OPS_SESSION + 1;
    for (int i = 0; i < SESSIONS; i++)
        op_session(&m->memory, m->sessions[i], true);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (m->step = 0; m->step < step_count; m->step++) {
        steps[below(m, array_length(steps))](m);
        if (m->step % 50 == 0)
            compare_all(m);
    }
    compare_all(m);
    while (op_reclaim(&m->memory))
        ;
    compare_all(m);
    assert_int_equal(check_count(&m->view).contents, m->content ? 1 : 0);
    for (int i = 0; i < SESSIONS; i++)
        op_session(&m->memory, m->sessions[i], false);
    for (uint64_t from = FS_ROOT_INODE; from;)
        from = op_reclaim_orphans(&m->memory, from);
    assert_int_equal(check_count(&m->view).orphans, 0);
    for (int i = 0; i < NODES; i++)
        forget(&m->nodes[i]);
    memory_release(&m->memory);
    free(m->built);
    free(m->data);
    free(m);
}

static void test_model(void **state)
{
    const char *seed = getenv("MODEL_SEED");
    if (seed) {
        run_seed(strtoull(seed, NULL, 10), STEPS);
        return;
    }
    for (uint64_t i = 1; i <= SEEDS; i++)
        run_seed(i, STEPS);
}

/* ---- Truncation of a large sparse file: more extents than one entry deletes ---- */

enum {
    LARGE_BYTES = 28 << 20,
    LARGE_STEPS = 120,
};

/* A byte in every other grain of some slots: eight extents to each. */
static void sparse_write(struct model *m, struct node *n)
{
    struct buf ranges = {0};
    uint64_t slots = 1 + below(m, FS_OP_SLOTS);
    uint64_t first = below(m, LARGE_BYTES / 65536 - slots + 1);
    for (uint64_t at = first * 65536; at < (first + slots) * 65536; at += 8192) {
        uint8_t byte = (uint8_t)(1 + below(m, 255));
        uint64_t offset = at + below(m, 4096);
        fs_range_add(&ranges, offset, &byte, 1);
        n->bytes[offset] = byte;
        n->size = max_u64(n->size, offset + 1);
    }
    struct fs_op op = {.type = FS_WRITE, .inode = n->inode, .ranges = ranges.data};
    op.ranges_size = (uint32_t)ranges.length;
    struct fs_result result;
    assert_int_equal(memory_do(&m->memory, &op, OPS_SESSION, &result), 0);
    buf_release(&ranges);
}

static void large_truncate(struct model *m, struct node *n)
{
    size_t size = 1 + below(m, below(m, 2) ? LARGE_BYTES : LARGE_BYTES / 4);
    assert_int_equal(op_truncate(&m->memory, n->inode, size), 0);
    if (size < n->size)
        memset(n->bytes + size, 0, n->size - size);
    n->size = size;
}

/* Of a part, or to the end: more extents than one operation deletes. */
static void large_punch(struct model *m, struct node *n)
{
    size_t offset = below(m, LARGE_BYTES / 4), length = 1 + below(m, LARGE_BYTES - offset);
    unsigned count;
    assert_int_equal(
        op_zero(&m->memory, n->inode, FS_PUNCH | FS_KEEP_SIZE, offset, length, &count),
        0);
    m->step = count > m->step ? count : m->step;
    memset(n->bytes + offset, 0, length);
}

static void test_trims(void **state)
{
    struct model *m = calloc(1, sizeof(*m));
    uint64_t most_void = 0, most_trims = 0;
    m->random = 4711;
    memory_init(&m->memory);
    m->view = memory_view(&m->memory);
    struct node n = {.mode = S_IFREG | 0600, .bytes = calloc(1, LARGE_BYTES + 65536)};
    assert_int_equal(op_make(&m->memory, 1, "f", n.mode, &n.inode), 0);
    for (int step = 0; step < LARGE_STEPS; step++) {
        for (uint64_t i = below(m, 12); i; i--)
            sparse_write(m, &n);
        large_truncate(m, &n);
        if (below(m, 3) == 0)
            large_truncate(m, &n);
        if (below(m, 3) == 0)
            large_punch(m, &n);
        if (below(m, 2))
            op_reclaim(&m->memory);
        struct fs_inode inode;
        assert_int_equal(op_stat(&m->memory, n.inode, &inode), 0);
        most_trims = max_u64(most_trims, inode.trim_count);
        most_void = max_u64(most_void, check_count(&m->view).void_extents);
        compare_range(m, &n, 0, LARGE_BYTES);
        compare_holes(m, &n);
    }
    assert_true(m->step > 1);
    assert_true(most_void > 1024);
    assert_true(most_trims > 1);
    while (op_reclaim(&m->memory))
        ;
    assert_int_equal(check_count(&m->view).contents, 0);
    assert_int_equal(check_count(&m->view).void_extents, 0);
    compare_range(m, &n, 0, LARGE_BYTES);
    /* Removed with void extents in it: all goes. */
    for (int i = 0; i < 20; i++)
        sparse_write(m, &n);
    assert_int_equal(op_truncate(&m->memory, n.inode, 5000), 0);
    assert_int_equal(op_unlink(&m->memory, 1, "f"), 0);
    check_view(&m->view);
    while (op_reclaim(&m->memory))
        ;
    assert_int_equal(m->memory.count, 1);
    memory_release(&m->memory);
    free(n.bytes);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_trims),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
