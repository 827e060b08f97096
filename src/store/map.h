/*
 * map.h - the keydir's ordered map: a B+-tree of wide nodes, one writer, readers that
 * take no lock. Private to map.c and map_node.c, but for what keydir.c uses.
 *
 * A reader that has loaded a pointer to a node finds it complete and, but for the
 * pointers in it, never changed: an insertion, a removal, a split, a merge make new nodes
 * and publish them by one store to the pointer above. Only two kinds of pointers are
 * stored to in place: a child's, when a new node takes an old one's part of the keys, and
 * a record's in a leaf, when a new version of the key replaces the former. What was
 * replaced is *retired*: the caller frees it when no reader can be inside any more.
 */
#ifndef TIERCE_STORE_MAP_H
#define TIERCE_STORE_MAP_H

#include "store_internal.h"

/* First in whatever is allocated here: chains what is in reserve, or retired. */
struct map_block {
    struct map_block *next;
};

/* Divides two children: no key of the left one is as high, no key of the right one lower.
 * As short as that allows. */
struct map_separator {
    struct map_block block;
    uint16_t size;
    uint8_t bytes[];
};

struct map_node {
    struct map_block block;
    uint8_t level; /* 0: a leaf */
    uint16_t count;
};

/* The tag of a key is a byte of its hash: a look-up compares only keys whose tag is
 * right. */
struct map_leaf {
    struct map_node node;
    /* The writer's: */
    bool rising;          /* the last insertion was at the end */
    uint16_t claims;      /* insertions that are to come, */
    uint32_t claim_epoch; /* if this is the map's */
    uint8_t tags[MAP_WIDTH];
    struct keydir_node *records[MAP_WIDTH];
};

/* heads[i]: the 8 bytes of separator i after `prefix`, which all have in common. */
struct map_inner {
    struct map_node node;
    uint16_t prefix_size;
    const uint8_t *prefix; /* in the first separator */
    uint64_t heads[MAP_WIDTH - 1];
    struct map_separator *separators[MAP_WIDTH - 1];
    struct map_node *children[MAP_WIDTH];
};

static inline struct map_leaf *map_leaf_of(struct map_node *node)
{
    return container_of(node, struct map_leaf, node);
}

static inline struct map_inner *map_inner_of(struct map_node *node)
{
    return container_of(node, struct map_inner, node);
}

static inline struct map_node *map_load(struct map_node *const *pointer)
{
    return __atomic_load_n(pointer, __ATOMIC_ACQUIRE);
}

static inline struct keydir_node *map_load_record(struct keydir_node *const *pointer)
{
    return __atomic_load_n(pointer, __ATOMIC_ACQUIRE);
}

/* ---- Nodes: map_node.c ------------------------------------------------------------- */

/* The byte of a key's hash that stands for it in a leaf. */
uint8_t map_tag(const uint8_t *key, size_t size);
/* Where the key is; -1: not in this leaf. */
int map_leaf_find(const struct map_leaf *leaf, const uint8_t *key, size_t size,
                  uint8_t tag);
/* The first position whose key is not below this. */
unsigned map_leaf_seek(const struct map_leaf *leaf, const uint8_t *key, size_t size);
/* Which child may hold the key. */
unsigned map_inner_seek(const struct map_inner *inner, const uint8_t *key, size_t size);

void map_leaf_set(struct map_leaf *leaf, unsigned at, struct keydir_node *record);
/* `to` becomes the records [first, last) of `from`. */
void map_leaf_slice(struct map_leaf *to, const struct map_leaf *from, unsigned first,
                    unsigned last);
void map_leaf_insert(struct map_leaf *leaf, unsigned at, struct keydir_node *record);
void map_leaf_remove(struct map_leaf *leaf, unsigned at);

/* The bytes of the shortest separator between two neighbours. */
size_t map_separator_size(const struct keydir_node *left,
                          const struct keydir_node *right);
/* After the separators have changed. */
void map_inner_settle(struct map_inner *inner);

/* ---- The writer's way through the map: map.c ----------------------------------------
 */

/* At least `count` blocks in reserve; -ENOMEM. */
int map_reserve(struct map *map, enum map_kind kind, size_t count);
int map_reserve_more(struct map *map, enum map_kind kind, size_t count);
void *map_take(struct map *map, enum map_kind kind);
void map_retire(struct map *map, void *block);

struct map_step {
    struct map_inner *inner;
    unsigned at; /* which child */
};

/* Where a key's leaf hangs: steps[level - 1] is the inner node of that level. */
struct map_path {
    struct map_step steps[MAP_HEIGHT];
    unsigned height; /* inner levels */
    struct map_leaf *leaf;
};

void map_walk(const struct map *map, const uint8_t *key, size_t size,
              struct map_path *ret);
/* `node` takes the place of the node of `level`. */
void map_hang(struct map *map, const struct map_path *path, unsigned level,
              struct map_node *node);

/* Children and separators on their way into one inner node, or two. */
struct map_wide {
    struct map_node *children[MAP_WIDTH + 1];
    struct map_separator *separators[MAP_WIDTH];
    unsigned count; /* of children */
};

/* Children [first, last), and the separators between them. */
struct map_node *map_inner_new(struct map *map, const struct map_wide *w, unsigned level,
                               unsigned first, unsigned last);

#endif
