/*
 * test_map.c - the keydir's ordered map against a skip list that holds the same keys.
 * White-box: the map has no face of its own.
 */
#include "map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct key {
    uint8_t bytes[LIMIT_KEY_BYTES];
    uint32_t size;
};

/* ---- The same in a skip list --------------------------------------------------------
 */

struct twin {
    struct map map;
    struct skip_list model; /* keys alone */
};

static void twin_init(struct twin *t)
{
    *t = (struct twin){0};
    skip_init(&t->model);
}

static struct keydir_node *record_new(const struct key *key)
{
    struct keydir_node *record = calloc(1, sizeof(*record) + key->size);
    ensure(record);
    record->key_size = (uint16_t)key->size;
    memcpy(record->bytes, key->bytes, key->size);
    return record;
}

static void model_put(struct twin *t, const struct key *key)
{
    unsigned height = skip_draw_height(&t->model);
    struct skip_node *node = malloc(sizeof(*node) + skip_extra(height, key->size));
    ensure(node);
    skip_node_init(node, height, key->bytes, key->size);
    free(skip_put(&t->model, node));
}

/* Claims of a whole group come first, as an entry's do. */
static void twin_change(struct twin *t, const struct key *keys, size_t count, bool put)
{
    map_begin_claims(&t->map);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(map_claim(&t->map, keys[i].bytes, keys[i].size, put), 0);
    for (size_t i = 0; i < count; i++) {
        const struct key *key = &keys[i];
        bool there = skip_find(&t->model, key->bytes, key->size);
        struct keydir_node *old = put ? map_put(&t->map, record_new(key))
                                      : map_remove(&t->map, key->bytes, key->size);
        assert_true((old != NULL) == there);
        free(old);
        if (put)
            model_put(t, key);
        else
            free(skip_remove(&t->model, key->bytes, key->size));
    }
    map_free_blocks(map_take_retired(&t->map));
}

static void check_scan(struct twin *t, const struct key *from)
{
    struct keydir_cursor cursor;
    const struct keydir_node *record =
        map_seek(&t->map, &cursor, from->bytes, from->size);
    const struct skip_node *node = skip_seek(&t->model, from->bytes, from->size);
    for (; record && node; record = map_next(&cursor), node = skip_next(node)) {
        assert_int_equal(
            key_compare(record->bytes, record->key_size, skip_key(node), node->key_size),
            0);
        assert_ptr_equal(map_find(&t->map, record->bytes, record->key_size), record);
    }
    assert_true(!record && !node);
}

static void twin_check(struct twin *t)
{
    static const struct key first;
    map_check(&t->map);
    assert_int_equal(t->map.count, t->model.count);
    check_scan(t, &first);
}

static void twin_release(struct twin *t)
{
    for (struct skip_node *at = t->model.head[0]; at;) {
        struct skip_node *next = at->next[0];
        free(at);
        at = next;
    }
    struct keydir_cursor cursor;
    const struct keydir_node *record = map_seek(&t->map, &cursor, (uint8_t *)"", 0);
    while (record) {
        const struct keydir_node *next = map_next(&cursor);
        free((void *)record);
        record = next;
    }
    map_release(&t->map);
}

/* ---- Kinds of keys ------------------------------------------------------------------
 */

typedef void make_key(uint64_t i, struct key *ret);

static void numbered(uint64_t i, struct key *ret)
{
    ret->size = (uint32_t)snprintf((char *)ret->bytes, sizeof(ret->bytes),
                                   "a long way to file-%06llu", (unsigned long long)i);
}

static void spread(uint64_t i, struct key *ret)
{
    put_u64(ret->bytes, i * 0x9e3779b97f4a7c15);
    ret->size = 8;
}

/* Few bytes, zeros at the end: heads that are equal where keys are not. */
static void tiny(uint64_t i, struct key *ret)
{
    ret->size = 1 + (uint32_t)(i % 11);
    memset(ret->bytes, 0, ret->size);
    ret->bytes[0] = (uint8_t)(i / 11 % 5);
    ret->bytes[ret->size / 2] |= (uint8_t)(i / 55 % 3);
}

/* Directories of names, of any length up to the limit. */
static void nested(uint64_t i, struct key *ret)
{
    memset(ret->bytes, 'd', sizeof(ret->bytes));
    put_be64(ret->bytes + 1, i / 300);
    ret->size = 9 + (uint32_t)(i * 37 % (LIMIT_KEY_BYTES - 20));
    put_u32(ret->bytes + ret->size, (uint32_t)i);
    ret->size += 4;
}

static make_key *const kinds[] = {numbered, spread, tiny, nested};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* ---- Tests --------------------------------------------------------------------------
 */

enum { KEYS = 12000, GROUP = 300 };

/* A group of keys that differ. */
static size_t draw(make_key *make, uint64_t *random, uint64_t range, struct key *keys)
{
    struct twin seen;
    size_t count = 0, wanted = 1 + random_next(random) % GROUP;
    twin_init(&seen);
    for (size_t i = 0; i < wanted; i++) {
        make(random_next(random) % range, &keys[count]);
        if (skip_find(&seen.model, keys[count].bytes, keys[count].size))
            continue;
        model_put(&seen, &keys[count]);
        count++;
    }
    twin_release(&seen);
    return count;
}

/* It grows, is thinned out, grows again, and is emptied. */
static void test_random(void **state)
{
    static struct key keys[GROUP];
    uint64_t random = 20;
    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct twin t;
        twin_init(&t);
        for (unsigned round = 0; round < 400; round++) {
            bool growing = round / 100 % 2 == 0;
            bool put = random_next(&random) % 8 != 0 ? growing : !growing;
            size_t count = draw(kinds[kind], &random, KEYS, keys);
            twin_change(&t, keys, count, put);
            if (round % 20 == 0)
                twin_check(&t);
            kinds[kind](random_next(&random) % KEYS, &keys[0]);
            check_scan(&t, &keys[0]);
        }
        for (uint64_t i = 0; i < KEYS; i++) {
            kinds[kind](i, &keys[0]);
            twin_change(&t, keys, 1, false);
        }
        twin_check(&t);
        assert_null(t.map.root);
        twin_release(&t);
    }
}

static size_t count_leaves(const struct map *map)
{
    struct keydir_cursor cursor;
    const struct map_leaf *last = NULL;
    size_t leaves = 0;
    const uint8_t none = 0;
    for (const struct keydir_node *at = map_seek(map, &cursor, &none, 0); at;
         at = map_next(&cursor)) {
        leaves += cursor.leaf != last;
        last = cursor.leaf;
    }
    return leaves;
}

/* In one group, one by one; upwards, downwards, from the middle out, in steps: leaves
 * stay filled, fully where keys grow. */
static void test_orders(void **state)
{
    static struct key keys[KEYS];
    for (unsigned order = 0; order < 4; order++) {
        struct twin t;
        twin_init(&t);
        for (uint64_t i = 0; i < KEYS; i++) {
            uint64_t out = i % 2 ? KEYS / 2 - i / 2 - 1 : KEYS / 2 + i / 2;
            uint64_t at[] = {i, KEYS - 1 - i, out, i * 7 % KEYS};
            numbered(at[order], &keys[i]);
        }
        size_t group = order == 3 ? KEYS : order == 2 ? 64 : 1;
        for (size_t i = 0; i < KEYS; i += group)
            twin_change(&t, keys + i, group < KEYS - i ? group : KEYS - i, true);
        twin_check(&t);
        size_t leaves = count_leaves(&t.map);
        size_t filled = order == 0 ? MAP_WIDTH : MAP_WIDTH / 3;
        assert_true(leaves <= KEYS / filled + 1);
        twin_release(&t);
    }
}

/* Downwards behind a leaf that is full, each below the separator before: not a leaf for
 * each key. */
static void test_falling_behind_full(void **state)
{
    struct twin t;
    struct key key = {.size = 2};
    twin_init(&t);
    for (unsigned i = 0; i < MAP_WIDTH; i++) {
        key.bytes[1] = (uint8_t)i;
        twin_change(&t, &key, 1, true);
    }
    for (unsigned i = UINT8_MAX; i > 0; i--) {
        key.bytes[0] = (uint8_t)i;
        twin_change(&t, &key, 1, true);
    }
    twin_check(&t);
    assert_true(count_leaves(&t.map) <= t.map.count / (MAP_WIDTH / 3));
    twin_release(&t);
}

/* What is left after most keys have gone takes no more leaves than it would alone. */
static void test_thinned_out(void **state)
{
    struct twin t;
    struct key key;
    twin_init(&t);
    for (uint64_t i = 0; i < KEYS; i++) {
        numbered(i, &key);
        twin_change(&t, &key, 1, true);
    }
    for (uint64_t i = 0; i < KEYS; i++) {
        numbered(i, &key);
        if (i % 64 != 0)
            twin_change(&t, &key, 1, false);
    }
    twin_check(&t);
    assert_true(count_leaves(&t.map) <= t.map.count / (MAP_WIDTH / 8));
    twin_release(&t);
}

static void test_append(void **state)
{
    for (uint64_t count = 0; count < 10000; count = count * 3 + 1) {
        struct twin t;
        struct key key;
        twin_init(&t);
        for (uint64_t i = 0; i < count; i++) {
            numbered(i, &key);
            assert_int_equal(map_append(&t.map, record_new(&key)), 0);
            model_put(&t, &key);
        }
        twin_check(&t);
        assert_true(count_leaves(&t.map) <= count / (MAP_WIDTH * 3 / 4) + 1);
        numbered(count / 2 + 100000, &key);
        twin_change(&t, &key, 1, true); /* it is a map as any other */
        numbered(count / 2, &key);
        twin_change(&t, &key, 1, false);
        twin_check(&t);
        twin_release(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_falling_behind_full),
        cmocka_unit_test(test_thinned_out),
        cmocka_unit_test(test_append),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
