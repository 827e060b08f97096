/*
 * keydir.c - from key to place, in key order.
 *
 * A node is made, published and never changed but for its place: a new version is a new
 * node. An entry's nodes are allocated before the first is published, so that applying
 * cannot fail half-way; the nodes they replace are freed together, when no reader can
 * hold one.
 */
#include "pool.h"

struct keydir_change {
    struct rcu_head rcu;
    struct pool *pool;        /* a reference, of a change that is deferred */
    struct map_block *blocks; /* of the map, retired */
    uint32_t count;
    void *nodes[]; /* by record; before the commit: to put; after: retired */
};

static bool is_inline(uint32_t value_size)
{
    return value_size <= LIMIT_KEYDIR_INLINE_BYTES;
}

uint64_t keydir_count(const struct keydir *keydir)
{
    return keydir->map.count;
}

const uint8_t *keydir_key(const struct keydir_node *node)
{
    return node->bytes;
}

uint32_t keydir_key_size(const struct keydir_node *node)
{
    return node->key_size;
}

const uint8_t *keydir_value(const struct keydir_node *node)
{
    return is_inline(node->value_size) ? keydir_key(node) + keydir_key_size(node) : NULL;
}

uint64_t keydir_record_bytes(const struct keydir_node *node)
{
    return STORE_RECORD_HEADER + (uint64_t)keydir_key_size(node) + node->value_size;
}

uint64_t keydir_place(const struct keydir_node *node)
{
    return atomic_load_explicit(&node->place, memory_order_acquire);
}

const struct keydir_node *keydir_find(const struct keydir *keydir, const void *key,
                                      size_t size)
{
    return map_find(&keydir->map, key, size);
}

const struct keydir_node *keydir_seek(const struct keydir *keydir,
                                      struct keydir_cursor *cursor, const void *key,
                                      size_t size)
{
    return map_seek(&keydir->map, cursor, size > 0 ? key : "", size);
}

const struct keydir_node *keydir_next(struct keydir_cursor *cursor)
{
    return map_next(cursor);
}

/* ---- Live bytes -------------------------------------------------------------------- */

static void gain(const struct keydir *keydir, uint64_t place, uint64_t bytes)
{
    struct segment *segment = place_segment(keydir->slots, place);
    atomic_fetch_add_explicit(&segment->live_bytes, bytes, memory_order_relaxed);
}

static void lose(const struct keydir *keydir, uint64_t place, uint64_t bytes)
{
    struct segment *segment = place_segment(keydir->slots, place);
    uint64_t before =
        atomic_fetch_sub_explicit(&segment->live_bytes, bytes, memory_order_relaxed);
    ensure(before >= bytes);
}

/* Before the node is published. */
static void enter(struct keydir *keydir, const struct keydir_node *node)
{
    uint64_t bytes = keydir_record_bytes(node);
    gain(keydir, keydir_place(node), bytes);
    keydir->live_bytes += bytes;
}

/* The node is in the keydir no more: whoever finds it all the same looks again. */
static void leave(struct keydir *keydir, struct keydir_node *node)
{
    uint64_t bytes = keydir_record_bytes(node);
    uint64_t place =
        atomic_exchange_explicit(&node->place, PLACE_GONE, memory_order_acq_rel);
    lose(keydir, place, bytes);
    keydir->live_bytes -= bytes;
}

/* The new place's bytes are added first, so that no sum is ever short: the loop may take
 * the node out as soon as it is there. */
bool keydir_relocate(const struct keydir *keydir, const struct keydir_node *node,
                     uint64_t from, uint64_t to)
{
    struct keydir_node *moved = (struct keydir_node *)node;
    uint64_t bytes = keydir_record_bytes(node);
    gain(keydir, to, bytes);
    bool done = atomic_compare_exchange_strong_explicit(
        &moved->place, &from, to, memory_order_acq_rel, memory_order_acquire);
    lose(keydir, done ? from : to, bytes);
    return done;
}

/* ---- Applying ---------------------------------------------------------------------- */

static struct keydir_node *node_new(struct pool *pool, const uint8_t *key,
                                    uint32_t key_size, const uint8_t *value,
                                    uint32_t value_size)
{
    size_t in_node = is_inline(value_size) ? value_size : 0;
    struct keydir_node *node =
        pool_take(pool, offsetof(struct keydir_node, bytes) + key_size + in_node);
    if (!node)
        return NULL;
    node->value_size = value_size;
    node->key_size = (uint16_t)key_size;
    memcpy(node->bytes, key, key_size);
    if (in_node > 0)
        memcpy(node->bytes + key_size, value, in_node);
    return node;
}

static void node_settle(struct keydir_node *node, uint64_t timestamp_us, uint64_t place)
{
    node->timestamp_us = timestamp_us;
    atomic_init(&node->place, place);
}

/* The writer, where no reader knows of the nodes. */
static void change_free(struct keydir *keydir, struct keydir_change *change)
{
    map_free_blocks(change->blocks);
    for (uint32_t i = 0; i < change->count; i++)
        if (change->nodes[i])
            pool_give(keydir->pool, change->nodes[i]);
    free(change);
}

static void change_retired(struct rcu_head *head)
{
    reading_deferred();
    struct keydir_change *change = container_of(head, struct keydir_change, rcu);
    map_free_blocks(change->blocks);
    pool_return(change->pool, change->nodes, change->count);
    pool_unref(change->pool);
    free(change);
}

struct preparing {
    struct keydir *keydir;
    struct keydir_change *change;
    struct segment *segment;
    uint32_t offset; /* of the entry */
    uint32_t at;
};

static int prepare_record(void *arg, const struct store_record *record, uint32_t offset)
{
    struct preparing *p = arg;
    uint32_t i = p->at++;
    int rc = map_claim(&p->keydir->map, record->key, record->key_size, record->value);
    if (rc != 0 || !record->value)
        return rc;
    struct keydir_node *node = node_new(p->keydir->pool, record->key, record->key_size,
                                        record->value, record->value_size);
    if (!node)
        return -ENOMEM;
    node_settle(node, record->timestamp_us, place_of(p->segment, p->offset + offset));
    p->change->nodes[i] = node;
    return 0;
}

int keydir_prepare(struct keydir *keydir, const struct store_bytes *entry,
                   const struct store_entry *head, struct segment *segment,
                   uint32_t offset, struct keydir_change **ret)
{
    size_t size = head->record_count * sizeof(struct keydir_node *);
    struct keydir_change *change = calloc(1, sizeof(*change) + size);
    if (!change)
        return -ENOMEM;
    change->count = head->record_count;
    struct preparing p = {
        .keydir = keydir, .change = change, .segment = segment, .offset = offset};
    pool_collect(keydir->pool);
    map_begin_claims(&keydir->map);
    int rc = store_entry_each(entry->data, entry->length, prepare_record, &p);
    if (rc != 0) {
        change_free(keydir, change);
        return rc;
    }
    *ret = change;
    return 0;
}

struct committing {
    struct keydir *keydir;
    struct keydir_change *change;
    uint32_t at;
    bool removing;
};

static int commit_record(void *arg, const struct store_record *record, uint32_t offset)
{
    struct committing *c = arg;
    void **slot = &c->change->nodes[c->at++];
    if (c->removing != !record->value)
        return 0;
    struct map *map = &c->keydir->map;
    if (record->value) {
        enter(c->keydir, *slot);
        *slot = map_put(map, *slot);
    } else {
        *slot = map_remove(map, record->key, record->key_size);
    }
    if (*slot)
        leave(c->keydir, *slot);
    return 0;
}

/* Puts first, then tombstones: a rename never makes the name vanish. */
void keydir_commit(struct keydir *keydir, struct keydir_change *change,
                   const struct store_bytes *entry, bool shared)
{
    struct committing c = {.keydir = keydir, .change = change};
    store_entry_each(entry->data, entry->length, commit_record, &c);
    c.at = 0;
    c.removing = true;
    store_entry_each(entry->data, entry->length, commit_record, &c);
    change->blocks = map_take_retired(&keydir->map);
    if (!shared) {
        change_free(keydir, change);
        return;
    }
    change->pool = keydir->pool;
    pool_ref(keydir->pool);
    reading_defer(&change->rcu, change_retired);
}

int keydir_load(struct keydir *keydir, const struct hint_record *record,
                struct segment *segment)
{
    struct keydir_node *node = node_new(keydir->pool, record->key, record->key_size,
                                        record->value, record->value_size);
    if (!node)
        return -ENOMEM;
    node_settle(node, record->timestamp_us, place_of(segment, record->offset));
    enter(keydir, node);
    if (map_append(&keydir->map, node) == 0)
        return 0;
    leave(keydir, node);
    pool_give(keydir->pool, node);
    return -ENOMEM;
}

/* ---- Life -------------------------------------------------------------------------- */

struct keydir *keydir_new(struct slots *slots)
{
    struct keydir *keydir = calloc(1, sizeof(*keydir));
    if (!keydir)
        return NULL;
    keydir->slots = slots;
    keydir->pool = pool_new();
    if (!keydir->pool) {
        free(keydir);
        return NULL;
    }
    return keydir;
}

static void give_nodes(struct keydir *keydir)
{
    struct keydir_cursor cursor;
    const struct keydir_node *node = map_seek(&keydir->map, &cursor, (uint8_t *)"", 0);
    while (node) {
        const struct keydir_node *next = map_next(&cursor);
        pool_give(keydir->pool, (void *)node);
        node = next;
    }
}

void keydir_free(struct keydir *keydir)
{
    if (!keydir)
        return;
    if (!pool_frees_all())
        give_nodes(keydir);
    map_release(&keydir->map);
    pool_unref(keydir->pool);
    free(keydir);
}

static void free_deferred(struct rcu_head *head)
{
    reading_deferred();
    keydir_free(container_of(head, struct keydir, rcu));
}

void keydir_free_deferred(struct keydir *keydir)
{
    reading_defer(&keydir->rcu, free_deferred);
}

void keydir_check(const struct keydir *keydir)
{
    map_check(&keydir->map);
    pool_check(keydir->pool);
}
