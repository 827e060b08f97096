/*
 * map.c - the keydir's ordered map: read, and the writer's way through it; see map.h.
 */
#include "map.h"

/* ---- Blocks ------------------------------------------------------------------------ */

static const size_t block_bytes[MAP_KINDS] = {
    [MAP_LEAF] = sizeof(struct map_leaf),
    [MAP_INNER] = sizeof(struct map_inner),
    [MAP_SEPARATOR] = sizeof(struct map_separator) + LIMIT_KEY_BYTES,
};

int map_reserve(struct map *map, enum map_kind kind, size_t count)
{
    struct map_reserve *r = &map->reserves[kind];
    while (r->count < count) {
        struct map_block *block = malloc(block_bytes[kind]);
        if (!block)
            return -ENOMEM;
        block->next = r->blocks;
        r->blocks = block;
        r->count++;
    }
    return 0;
}

int map_reserve_more(struct map *map, enum map_kind kind, size_t count)
{
    return map_reserve(map, kind, map->reserves[kind].count + count);
}

void *map_take(struct map *map, enum map_kind kind)
{
    struct map_reserve *r = &map->reserves[kind];
    struct map_block *block = r->blocks;
    ensure(block);
    r->blocks = block->next;
    r->count--;
    return block;
}

void map_retire(struct map *map, void *block)
{
    struct map_block *retired = block;
    retired->next = map->retired;
    map->retired = retired;
}

struct map_block *map_take_retired(struct map *map)
{
    struct map_block *retired = map->retired;
    map->retired = NULL;
    return retired;
}

void map_free_blocks(struct map_block *blocks)
{
    while (blocks) {
        struct map_block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

/* ---- Reading ----------------------------------------------------------------------- */

static struct map_leaf *find_leaf(const struct map *map, const uint8_t *key, size_t size)
{
    struct map_node *node = map_load(&map->root);
    while (node && node->level > 0) {
        struct map_inner *inner = map_inner_of(node);
        node = map_load(&inner->children[map_inner_seek(inner, key, size)]);
    }
    return node ? map_leaf_of(node) : NULL;
}

struct keydir_node *map_find(const struct map *map, const uint8_t *key, size_t size)
{
    uint8_t tag = map_tag(key, size);
    const struct map_leaf *leaf = find_leaf(map, key, size);
    int at = leaf ? map_leaf_find(leaf, key, size, tag) : -1;
    return at >= 0 ? map_load_record(&leaf->records[at]) : NULL;
}

/* The leaf that may hold the key, and the separator behind it, where the next one begins;
 * NULL: it is the last. */
static const struct map_leaf *seek_leaf(const struct map *map, const uint8_t *key,
                                        size_t size, const struct map_separator **ret)
{
    const struct map_separator *behind = NULL;
    struct map_node *node = map_load(&map->root);
    while (node && node->level > 0) {
        struct map_inner *inner = map_inner_of(node);
        unsigned at = map_inner_seek(inner, key, size);
        if (at + 1u < inner->node.count)
            behind = inner->separators[at];
        node = map_load(&inner->children[at]);
    }
    *ret = behind;
    return node ? map_leaf_of(node) : NULL;
}

static void prefetch(const struct map_leaf *leaf, unsigned at)
{
    if (at < leaf->node.count)
        __builtin_prefetch(map_load_record(&leaf->records[at]));
}

/* The record at the cursor, or the first of a leaf that follows. Each leaf is sought from
 * the root, so that it is never seen as it was before the one that precedes it: a scan
 * meets a key that is moved upwards. */
static const struct keydir_node *settle(struct keydir_cursor *c)
{
    while (c->leaf && c->at == c->leaf->node.count) {
        const struct map_separator *behind = c->behind;
        c->at = 0;
        c->leaf =
            behind ? seek_leaf(c->map, behind->bytes, behind->size, &c->behind) : NULL;
        if (c->leaf && behind)
            c->at = map_leaf_seek(c->leaf, behind->bytes, behind->size);
    }
    if (!c->leaf)
        return NULL;
    prefetch(c->leaf, c->at + MAP_PREFETCH);
    return map_load_record(&c->leaf->records[c->at]);
}

const struct keydir_node *map_seek(const struct map *map, struct keydir_cursor *cursor,
                                   const uint8_t *key, size_t size)
{
    cursor->map = map;
    cursor->leaf = seek_leaf(map, key, size, &cursor->behind);
    cursor->at = cursor->leaf ? map_leaf_seek(cursor->leaf, key, size) : 0;
    for (unsigned i = 1; cursor->leaf && i < MAP_PREFETCH; i++)
        prefetch(cursor->leaf, cursor->at + i);
    return settle(cursor);
}

const struct keydir_node *map_next(struct keydir_cursor *cursor)
{
    cursor->at++;
    return settle(cursor);
}

/* ---- Writing ----------------------------------------------------------------------- */

void map_walk(const struct map *map, const uint8_t *key, size_t size,
              struct map_path *ret)
{
    struct map_node *node = map->root;
    ret->height = node ? node->level : 0;
    ensure(ret->height < MAP_HEIGHT);
    while (node && node->level > 0) {
        struct map_step *step = &ret->steps[node->level - 1];
        step->inner = map_inner_of(node);
        step->at = map_inner_seek(step->inner, key, size);
        node = step->inner->children[step->at];
    }
    ret->leaf = node ? map_leaf_of(node) : NULL;
}

void map_hang(struct map *map, const struct map_path *path, unsigned level,
              struct map_node *node)
{
    struct map_node **pointer = &map->root;
    if (level < path->height)
        pointer = &path->steps[level].inner->children[path->steps[level].at];
    __atomic_store_n(pointer, node, __ATOMIC_RELEASE);
}

struct map_node *map_inner_new(struct map *map, const struct map_wide *w, unsigned level,
                               unsigned first, unsigned last)
{
    struct map_inner *inner = map_take(map, MAP_INNER);
    inner->node.level = (uint8_t)level;
    inner->node.count = (uint16_t)(last - first);
    memcpy(inner->children, w->children + first, (last - first) * sizeof(w->children[0]));
    memcpy(inner->separators, w->separators + first,
           (last - first - 1) * sizeof(w->separators[0]));
    map_inner_settle(inner);
    return &inner->node;
}

/* ---- Life -------------------------------------------------------------------------- */

static void free_node(struct map_node *node)
{
    if (node->level == 0) {
        free(map_leaf_of(node));
        return;
    }
    struct map_inner *inner = map_inner_of(node);
    for (unsigned i = 0; i < node->count; i++)
        free_node(inner->children[i]); /* MAP_HEIGHT deep at most */
    for (unsigned i = 0; i + 1u < node->count; i++)
        free(inner->separators[i]);
    free(inner);
}

void map_release(struct map *map)
{
    if (map->root)
        free_node(map->root);
    for (unsigned kind = 0; kind < MAP_KINDS; kind++)
        map_free_blocks(map->reserves[kind].blocks);
    map_free_blocks(map->retired);
    *map = (struct map){0};
}

/* ---- Checking ---------------------------------------------------------------------- */

struct map_check {
    const struct map *map;
    const struct keydir_node *last; /* all keys are in order */
    uint64_t count;
};

static bool key_below(const struct keydir_node *record,
                      const struct map_separator *separator)
{
    return key_compare(record->bytes, record->key_size, separator->bytes,
                       separator->size) < 0;
}

static void check_leaf(struct map_check *c, const struct map_leaf *leaf,
                       const struct map_separator *low, const struct map_separator *high)
{
    for (unsigned i = 0; i < leaf->node.count; i++) {
        const struct keydir_node *record = leaf->records[i];
        ensure(leaf->tags[i] == map_tag(record->bytes, record->key_size));
        ensure(!low || !key_below(record, low));
        ensure(!high || key_below(record, high));
        ensure(!c->last || key_compare(c->last->bytes, c->last->key_size, record->bytes,
                                       record->key_size) < 0);
        c->last = record;
        c->count++;
    }
}

static void check_node(struct map_check *c, struct map_node *node,
                       const struct map_separator *low, const struct map_separator *high)
{
    ensure(node->count <= MAP_WIDTH);
    if (node->level == 0) {
        check_leaf(c, map_leaf_of(node), low, high);
        return;
    }
    struct map_inner *inner = map_inner_of(node), settled = *inner;
    ensure(node->count > 0);
    map_inner_settle(&settled);
    ensure(settled.prefix_size == inner->prefix_size);
    ensure(memcmp(settled.heads, inner->heads, (node->count - 1u) * 8) == 0);
    for (unsigned i = 0; i < node->count; i++) {
        ensure(inner->children[i]->level + 1 == node->level);
        check_node(c, inner->children[i], i > 0 ? inner->separators[i - 1] : low,
                   i + 1u < node->count ? inner->separators[i] : high);
    }
}

/* I1: all keys in order, each between the separators above it, its tag and heads right.
 */
void map_check(const struct map *map)
{
    struct map_check c = {.map = map};
    if (map->root)
        check_node(&c, map->root, NULL, NULL);
    ensure(c.count == map->count && !map->retired);
}
