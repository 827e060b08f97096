/*
 * map_change.c - the keydir's ordered map: put, remove, append; see map.h.
 *
 * What an entry's records may need is put in reserve before the first is put or removed
 * (map_claim), so that neither can fail: a leaf for each insertion and removal, one more
 * for each leaf that may have to be split, and for each of those a separator and what the
 * levels above may need. What is in reserve and not used stays for the next entry.
 */
#include "map.h"

enum {
    HALF = MAP_WIDTH / 2,
    /* Two neighbours that hold no more than this become one: half of it stays free. */
    MERGE_COUNT = HALF,
    /* Of a leaf that is loaded: the first keys that come between cut none. */
    APPEND_COUNT = MAP_WIDTH - MAP_WIDTH / 8,
    RESERVE_KEEP = 8192, /* blocks of a kind, for the next entry */
};

/* Of its own size where there is memory, else one in reserve. */
static struct map_separator *separator_new(struct map *map,
                                           const struct keydir_node *left,
                                           const struct keydir_node *right)
{
    size_t size = map_separator_size(left, right);
    struct map_separator *separator = malloc(sizeof(*separator) + size);
    if (!separator)
        separator = map_take(map, MAP_SEPARATOR);
    separator->size = (uint16_t)size;
    memcpy(separator->bytes, right->bytes, size);
    return separator;
}

/* ---- Splitting --------------------------------------------------------------------- */

/* The children of a node, with `right`, behind `separator`, after the one at `at`, which
 * is `left`: one more than a node may hold. */
static void widen(struct map_wide *w, const struct map_inner *inner, unsigned at,
                  struct map_node *left, struct map_separator *separator,
                  struct map_node *right)
{
    unsigned count = inner->node.count;
    memcpy(w->children, inner->children, at * sizeof(left));
    w->children[at] = left;
    w->children[at + 1] = right;
    memcpy(w->children + at + 2, inner->children + at + 1,
           (count - at - 1) * sizeof(left));
    memcpy(w->separators, inner->separators, at * sizeof(separator));
    w->separators[at] = separator;
    memcpy(w->separators + at + 1, inner->separators + at,
           (count - 1 - at) * sizeof(separator));
    w->count = count + 1;
}

/* Below `level`, `left` and `right` take the place of the node of the path. Keys that
 * grow leave full nodes behind. */
static void grow(struct map *map, const struct map_path *path, unsigned level,
                 struct map_node *left, struct map_separator *separator,
                 struct map_node *right)
{
    for (;; level++) {
        struct map_wide w = {
            .children = {left, right}, .separators = {separator}, .count = 2};
        bool at_end = false;
        if (level <= path->height) {
            const struct map_step *step = &path->steps[level - 1];
            at_end = step->at + 1u == step->inner->node.count;
            widen(&w, step->inner, step->at, left, separator, right);
            map_retire(map, step->inner);
        }
        if (w.count <= MAP_WIDTH) {
            map_hang(map, path, level, map_inner_new(map, &w, level, 0, w.count));
            return;
        }
        unsigned cut = at_end ? MAP_WIDTH - 1 : HALF;
        left = map_inner_new(map, &w, level, 0, cut);
        right = map_inner_new(map, &w, level, cut, w.count);
        separator = w.separators[cut - 1];
    }
}

/* Keys that grow leave full leaves behind; but a full leaf that was left so is cut in
 * halves next time, or keys that fall would each get a leaf of its own. */
static void split_leaf(struct map *map, const struct map_path *path, unsigned at,
                       struct keydir_node *record)
{
    struct map_leaf *leaf = path->leaf;
    struct map_leaf *left = map_take(map, MAP_LEAF), *right = map_take(map, MAP_LEAF);
    unsigned cut = at == MAP_WIDTH && leaf->rising ? MAP_WIDTH : HALF;
    map_leaf_slice(left, leaf, 0, cut);
    map_leaf_slice(right, leaf, cut, MAP_WIDTH);
    if (at <= cut && cut < MAP_WIDTH)
        map_leaf_insert(left, at, record);
    else
        map_leaf_insert(right, at - cut, record);
    struct map_separator *separator =
        separator_new(map, left->records[left->node.count - 1], right->records[0]);
    map_retire(map, leaf);
    grow(map, path, 1, &left->node, separator, &right->node);
}

/* A new last leaf. */
static void append_behind(struct map *map, const struct map_path *path,
                          struct keydir_node *record)
{
    struct map_leaf *left = path->leaf, *right = map_take(map, MAP_LEAF);
    map_leaf_slice(right, left, 0, 0);
    map_leaf_insert(right, 0, record);
    grow(map, path, 1, &left->node,
         separator_new(map, left->records[left->node.count - 1], record), &right->node);
}

/* ---- Putting ----------------------------------------------------------------------- */

static void trim_reserves(struct map *map)
{
    for (unsigned kind = 0; kind < MAP_KINDS; kind++)
        while (map->reserves[kind].count > RESERVE_KEEP)
            free(map_take(map, kind));
}

void map_begin_claims(struct map *map)
{
    trim_reserves(map);
    map->last = NULL; /* it is no more loaded */
    map->claim_epoch++;
    map->claims = map->cuts = 0;
}

/* How often a leaf that is to take so many in all may be cut. After a cut in halves
 * either takes nearly half a leaf more before it is full; a cut at the end may come
 * before each. */
static size_t cuts(size_t count)
{
    return count <= MAP_WIDTH ? 0 : 2 * ((count - MAP_WIDTH + HALF - 2) / (HALF - 1));
}

/* Counts the insertion with its leaf; how many cuts of that it may add. */
static size_t claim_insertion(struct map *map, struct map_leaf *leaf)
{
    size_t claims = leaf->claim_epoch == map->claim_epoch ? leaf->claims : 0;
    size_t count = leaf->node.count + claims;
    leaf->claims = (uint16_t)(claims + 1);
    leaf->claim_epoch = map->claim_epoch;
    return cuts(count + 1) - cuts(count);
}

/* An inner node for each cut on each level or two where it is cut as well; and so many
 * cuts may add a level, or more. */
static size_t inners_for(size_t cuts, size_t height)
{
    size_t levels = height + 1;
    for (size_t n = cuts; n >= HALF; n /= HALF)
        levels++;
    return cuts * 2 * levels;
}

int map_claim(struct map *map, const uint8_t *key, size_t size, bool put)
{
    struct map_path path;
    map_walk(map, key, size, &path);
    bool found =
        path.leaf && map_leaf_find(path.leaf, key, size, map_tag(key, size)) >= 0;
    if (found == put)
        return 0; /* a version is replaced in place; nothing is there to be removed */
    map->claims++;
    if (put && path.leaf)
        map->cuts += claim_insertion(map, path.leaf);
    else if (put)
        map->cuts = cuts(map->claims); /* all come to the first leaf */
    int rc = map_reserve(map, MAP_LEAF, map->claims + map->cuts);
    if (rc == 0)
        rc = map_reserve(map, MAP_INNER, inners_for(map->cuts, path.height));
    return rc == 0 ? map_reserve(map, MAP_SEPARATOR, map->cuts) : rc;
}

static void insert(struct map *map, const struct map_path *path,
                   struct keydir_node *record)
{
    struct map_leaf *leaf = path->leaf;
    unsigned at = map_leaf_seek(leaf, record->bytes, record->key_size);
    if (leaf->node.count == MAP_WIDTH) {
        split_leaf(map, path, at, record);
        return;
    }
    struct map_leaf *copy = map_take(map, MAP_LEAF);
    map_leaf_slice(copy, leaf, 0, leaf->node.count);
    map_leaf_insert(copy, at, record);
    map_hang(map, path, 0, &copy->node);
    map_retire(map, leaf);
}

static void insert_first(struct map *map, struct keydir_node *record)
{
    struct map_leaf *leaf = map_take(map, MAP_LEAF);
    *leaf = (struct map_leaf){.node.count = 1};
    map_leaf_set(leaf, 0, record);
    __atomic_store_n(&map->root, &leaf->node, __ATOMIC_RELEASE);
}

struct keydir_node *map_put(struct map *map, struct keydir_node *record)
{
    struct map_path path;
    map_walk(map, record->bytes, record->key_size, &path);
    int at = path.leaf ? map_leaf_find(path.leaf, record->bytes, record->key_size,
                                       map_tag(record->bytes, record->key_size))
                       : -1;
    if (at >= 0) {
        struct keydir_node *old = path.leaf->records[at];
        __atomic_store_n(&path.leaf->records[at], record, __ATOMIC_RELEASE);
        return old;
    }
    map->count++;
    if (path.leaf)
        insert(map, &path, record);
    else
        insert_first(map, record);
    return NULL;
}

/* ---- Removing ---------------------------------------------------------------------- */

/* The left one of two neighbours below `level`, of which one is the path's, that fit into
 * one node when that has `count`; -1: there are none. */
static int neighbours(const struct map_path *path, unsigned level, unsigned count)
{
    if (level > path->height)
        return -1;
    const struct map_step *step = &path->steps[level - 1];
    const struct map_inner *inner = step->inner;
    if (step->at > 0 && inner->children[step->at - 1]->count + count <= MERGE_COUNT)
        return (int)step->at - 1;
    if (step->at + 1u < inner->node.count &&
        inner->children[step->at + 1]->count + count <= MERGE_COUNT)
        return (int)step->at;
    return -1;
}

/* In the inner node of `level`, `merged` takes the place of the children at `at` and
 * behind it. */
static void shrink(struct map *map, const struct map_path *path, unsigned level,
                   unsigned at, struct map_node *merged)
{
    struct map_inner *inner = path->steps[level - 1].inner;
    unsigned count = inner->node.count - 1u;
    map_retire(map, inner);
    if (count == 1 && level == path->height) {
        map_hang(map, path, level, merged); /* the root has one child: that is the root */
        return;
    }
    struct map_wide w = {.count = count};
    memcpy(w.children, inner->children, at * sizeof(merged));
    w.children[at] = merged;
    memcpy(w.children + at + 1, inner->children + at + 2,
           (count - at - 1) * sizeof(merged));
    memcpy(w.separators, inner->separators, at * sizeof(w.separators[0]));
    memcpy(w.separators + at, inner->separators + at + 1,
           (count - at - 1) * sizeof(w.separators[0]));
    map_hang(map, path, level, map_inner_new(map, &w, level, 0, count));
}

/* The children of two neighbours, and what divides them now. */
static struct map_wide join(const struct map_inner *a, struct map_separator *between,
                            const struct map_inner *b)
{
    struct map_wide w = {.count = a->node.count + b->node.count};
    unsigned count = a->node.count;
    memcpy(w.children, a->children, count * sizeof(w.children[0]));
    memcpy(w.children + count, b->children, b->node.count * sizeof(w.children[0]));
    memcpy(w.separators, a->separators, (count - 1) * sizeof(w.separators[0]));
    w.separators[count - 1] = between;
    memcpy(w.separators + count, b->separators,
           (b->node.count - 1u) * sizeof(w.separators[0]));
    return w;
}

/* When a level has shrunk, its inner node and a neighbour may fit into one as well.
 * Without memory they stay: sparse nodes are only a waste. */
static void shrink_above(struct map *map, const uint8_t *key, size_t size)
{
    struct map_path path;
    map_walk(map, key, size, &path);
    for (unsigned level = 2; level <= path.height; level++) {
        struct map_inner *inner = path.steps[level - 1].inner;
        int left = neighbours(&path, level, path.steps[level - 2].inner->node.count);
        if (left < 0 || map_reserve_more(map, MAP_INNER, 2) != 0)
            return;
        struct map_inner *a = map_inner_of(inner->children[left]);
        struct map_inner *b = map_inner_of(inner->children[left + 1]);
        struct map_wide w = join(a, inner->separators[left], b);
        map_retire(map, a);
        map_retire(map, b);
        shrink(map, &path, level, (unsigned)left,
               map_inner_new(map, &w, level - 1, 0, w.count));
        map_walk(map, key, size, &path);
    }
}

/* The leaf at `left` and the one behind it become one, without the record at `at` of the
 * path's leaf. */
static void merge_leaves(struct map *map, const struct map_path *path, unsigned left,
                         unsigned at)
{
    struct map_inner *inner = path->steps[0].inner;
    struct map_leaf *a = map_leaf_of(inner->children[left]);
    struct map_leaf *b = map_leaf_of(inner->children[left + 1]);
    struct map_leaf *merged = map_take(map, MAP_LEAF);
    map_leaf_slice(merged, a, 0, a->node.count);
    for (unsigned i = 0; i < b->node.count; i++)
        map_leaf_insert(merged, merged->node.count, b->records[i]);
    map_leaf_remove(merged, path->leaf == a ? at : a->node.count + at);
    map_retire(map, a);
    map_retire(map, b);
    map_retire(map, inner->separators[left]);
    shrink(map, path, 1, left, &merged->node);
}

static void remove_at(struct map *map, const struct map_path *path, unsigned at)
{
    struct map_leaf *leaf = path->leaf;
    if (leaf->node.count == 1 && path->height == 0) {
        map_hang(map, path, 0, NULL);
    } else {
        struct map_leaf *copy = map_take(map, MAP_LEAF);
        map_leaf_slice(copy, leaf, 0, leaf->node.count);
        map_leaf_remove(copy, at);
        map_hang(map, path, 0, &copy->node);
    }
    map_retire(map, leaf);
}

struct keydir_node *map_remove(struct map *map, const uint8_t *key, size_t size)
{
    struct map_path path;
    map_walk(map, key, size, &path);
    int at = path.leaf ? map_leaf_find(path.leaf, key, size, map_tag(key, size)) : -1;
    if (at < 0)
        return NULL;
    struct keydir_node *old = path.leaf->records[at];
    map->count--;
    int left = neighbours(&path, 1, path.leaf->node.count - 1u);
    if (left >= 0 && map_reserve_more(map, MAP_INNER, 1) == 0) {
        merge_leaves(map, &path, (unsigned)left, (unsigned)at);
        shrink_above(map, key, size);
    } else {
        remove_at(map, &path, (unsigned)at);
    }
    return old;
}

/* ---- Appending --------------------------------------------------------------------- */

/* Nobody reads yet, and only inner nodes were replaced. */
static void reuse_inners(struct map *map)
{
    struct map_reserve *r = &map->reserves[MAP_INNER];
    for (struct map_block *block = map_take_retired(map), *next; block; block = next) {
        next = block->next;
        block->next = r->blocks;
        r->blocks = block;
        r->count++;
    }
}

/* The last leaf is full, or there is none. */
static int append_leaf(struct map *map, struct keydir_node *record)
{
    struct map_path path;
    map_walk(map, record->bytes, record->key_size, &path);
    if (map_reserve(map, MAP_LEAF, 2) != 0 ||
        map_reserve(map, MAP_INNER, inners_for(1, path.height)) != 0 ||
        map_reserve(map, MAP_SEPARATOR, 1) != 0)
        return -ENOMEM;
    if (path.leaf)
        append_behind(map, &path, record);
    else
        insert_first(map, record);
    reuse_inners(map);
    map_walk(map, record->bytes, record->key_size, &path);
    map->last = path.leaf;
    return 0;
}

int map_append(struct map *map, struct keydir_node *record)
{
    struct map_leaf *leaf = map->last;
    ensure(leaf || !map->root);
    if (leaf) {
        const struct keydir_node *last = leaf->records[leaf->node.count - 1];
        ensure(
            key_precedes(last->bytes, last->key_size, record->bytes, record->key_size));
    }
    if (leaf && leaf->node.count < APPEND_COUNT) {
        map_leaf_insert(leaf, leaf->node.count, record);
    } else {
        int rc = append_leaf(map, record);
        if (rc != 0)
            return rc;
    }
    map->count++;
    return 0;
}
