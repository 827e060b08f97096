/* test_overlay.c - the overlay against a flat array of bytes: random writes, appends,
 * truncations, new values, builds and commits in flight, some of them failing. */
#include "fs.h"
#include "overlay.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { SPACE = 300 * 1024, STEPS = 400, SEEDS = 60 };

struct value {
    uint64_t size;
    uint8_t bytes[SPACE];
};

static struct {
    struct overlay overlay;
    uint64_t next_id, seed;
    struct value committed, expected;
    struct value contents[64]; /* what was built, by content id */
    uint64_t content_count;
} world;

static uint64_t chance(uint64_t below)
{
    return random_next(&world.seed) % below;
}

static void value_write(struct value *v, uint64_t offset, const void *data, size_t length)
{
    memcpy(v->bytes + offset, data, length);
    v->size = max_u64(v->size, offset + length);
}

static void value_resize(struct value *v, uint64_t size)
{
    if (size < v->size)
        memset(v->bytes + size, 0, v->size - size);
    v->size = size;
}

static void value_ranges(struct value *v, const struct overlay_ranges *ranges)
{
    for (size_t i = 0; i < ranges->count; i++)
        value_write(v, ranges->at[i].offset, ranges->at[i].data.data,
                    ranges->at[i].data.length);
}

/* What the leader would do with the first layer. */
static void commit_layer(const struct overlay_layer *l, struct value *v)
{
    assert_true(overlay_fits(l));
    if (l->kind == OVERLAY_REPLACE) {
        struct value *built = &world.contents[l->content];
        memset(v, 0, sizeof(*v));
        if (l->content)
            *v = *built;
        value_ranges(v, &l->ranges);
        value_resize(v, l->size);
        return;
    }
    assert_true(!l->sized || !l->ranges.count);
    value_ranges(v, &l->ranges);
    if (l->sized)
        value_resize(v, l->size);
}

/* The whole and a random window, read through the overlay. */
static void check_reads(void)
{
    static uint8_t window[SPACE];
    uint64_t content = 0;
    const struct value *base = &world.committed;
    bool hidden = overlay_hides_base(&world.overlay, &content);
    static const struct value nothing;
    if (hidden)
        base = content ? &world.contents[content] : &nothing;
    check_overlay(&world.overlay);
    assert_int_equal(overlay_size(&world.overlay, base->size), world.expected.size);
    for (int pass = 0; pass < 2; pass++) {
        uint64_t offset = pass ? chance(SPACE) : 0;
        size_t length = pass ? (size_t)chance(SPACE - offset) + 1 : SPACE;
        uint64_t told = min_u64(base->size, offset + length);
        memcpy(window, base->bytes + offset, length);
        uint64_t size =
            overlay_apply(&world.overlay, max_u64(told, offset), offset, window, length);
        uint64_t end = min_u64(world.expected.size, offset + length);
        if (end <= offset)
            assert_true(size <= offset);
        else
            assert_int_equal(min_u64(size, offset + length), end);
        if (end > offset)
            assert_memory_equal(window, world.expected.bytes + offset, end - offset);
    }
}

static void step_write(void)
{
    static uint8_t data[20000];
    size_t length = 1 + chance(chance(4) ? 300 : sizeof(data));
    uint64_t offset = chance(SPACE - length), id;
    bool append = chance(4) == 0 && world.expected.size + length <= SPACE;
    if (chance(3) == 0 && world.expected.size + length <= SPACE)
        offset = world.expected.size;
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)random_next(&world.seed);
    if (append)
        offset = world.expected.size;
    assert_int_equal(
        overlay_write(&world.overlay, &world.next_id, offset, data, length, append, &id),
        0);
    value_write(&world.expected, offset, data, length);
    assert_non_null(overlay_find(&world.overlay, id));
}

static void step_truncate(void)
{
    struct overlay_layer *l = overlay_open(&world.overlay);
    uint64_t size = chance(SPACE);
    if (l && l->kind == OVERLAY_REPLACE) {
        if (!overlay_resize(&world.overlay, size))
            l->sealed = true;
    } else {
        struct overlay_attributes none = {0};
        assert_int_equal(overlay_set(&world.overlay, &world.next_id, &none, &size, &l),
                         0);
    }
    value_resize(&world.expected, size);
}

/* What is built cannot be cut there: it is committed first. */
static void step_punch(void)
{
    struct overlay_layer *l = overlay_open(&world.overlay);
    uint64_t offset = chance(SPACE), end = offset + 1 + chance(SPACE - offset);
    bool done;
    if (!l || l->kind != OVERLAY_REPLACE || l->building)
        return;
    assert_int_equal(overlay_punch(&world.overlay, offset, end, &done), 0);
    assert_int_equal(done, offset >= min_u64(end, l->size) || offset >= l->built_end);
    memset(world.expected.bytes + offset, 0, end - offset);
    if (done)
        return;
    l->sealed = true;
    while (!overlay_empty(&world.overlay)) {
        l = overlay_pop(&world.overlay);
        while (!overlay_fits(l)) {
            assert_int_equal(overlay_build(l), 0);
            value_ranges(&world.contents[l->content], &l->build);
            overlay_built(l, l->content);
        }
        commit_layer(l, &world.committed);
        overlay_layer_free(l);
    }
    memset(world.committed.bytes + offset, 0, end - offset);
}

/* What was written lies in the stretches that are told. */
static void check_data(void)
{
    uint64_t at = 0, start = 0, end = 0;
    const struct overlay_layer *l = overlay_open(&world.overlay);
    if (!l || l != world.overlay.first)
        return;
    for (size_t i = 0; i < l->ranges.count; i++) {
        uint64_t from = l->ranges.at[i].offset, to = from + l->ranges.at[i].data.length;
        for (at = from; at < to; at = end) {
            assert_true(overlay_data(&world.overlay, at, &start, &end));
            assert_true(start <= at && end > at && start % 4096 == 0 && end % 4096 == 0);
        }
    }
    if (!l->building && at >= (world.expected.size + 4095) / 4096 * 4096)
        assert_false(overlay_data(&world.overlay, at, &start, &end));
}

static void step_replace(const struct overlay_layer *flying)
{
    uint64_t id;
    assert_int_equal(overlay_replace(&world.overlay, &world.next_id, flying, &id), 0);
    assert_int_equal(overlay_open(&world.overlay)->id, id);
    memset(&world.expected, 0, sizeof(world.expected));
}

/* Builds a part of the open value, with other steps while it is on its way. */
static void step_build(void)
{
    struct overlay_layer *l = world.overlay.first;
    if (!l || l->kind != OVERLAY_REPLACE || !l->ranges.count ||
        world.content_count + 1 >= array_length(world.contents))
        return;
    uint64_t content = l->content;
    assert_int_equal(overlay_build(l), 0);
    if (!content) {
        content = ++world.content_count;
        memset(&world.contents[content], 0, sizeof(struct value));
    }
    check_reads();
    if (chance(2))
        step_write();
    if (chance(8) == 0)
        step_replace(l);
    check_reads();
    if (!l->stale)
        value_ranges(&world.contents[content], &l->build);
    overlay_built(l, content);
}

/* Seals all, and commits the layers one by one, with writes while they are in flight. */
static void step_commit(void)
{
    if (overlay_empty(&world.overlay))
        return;
    world.overlay.last->sealed = true;
    uint64_t last = world.overlay.last->id;
    while (overlay_find(&world.overlay, last)) {
        struct overlay_layer *l = world.overlay.first;
        if (chance(4) == 0)
            step_write();
        check_reads();
        commit_layer(l, &world.committed);
        assert_ptr_equal(overlay_pop(&world.overlay), l);
        overlay_layer_free(l);
        check_reads();
    }
}

/* A commit fails: the buffer is dropped, and what is committed is seen again. */
static void step_fail(void)
{
    overlay_release(&world.overlay);
    world.expected = world.committed;
}

static void run_seed(uint64_t seed)
{
    memset(&world, 0, sizeof(world));
    world.seed = seed;
    world.next_id = 1;
    for (int i = 0; i < STEPS; i++) {
        uint64_t what = chance(100);
        if (what < 60)
            step_write();
        else if (what < 68)
            step_truncate();
        else if (what < 72)
            step_replace(NULL);
        else if (what < 76)
            step_punch();
        else if (what < 85)
            step_build();
        else if (what < 98)
            step_commit();
        else
            step_fail();
        check_reads();
        check_data();
    }
    while (!overlay_empty(&world.overlay))
        step_commit();
    assert_int_equal(world.committed.size, world.expected.size);
    assert_memory_equal(world.committed.bytes, world.expected.bytes, SPACE);
    overlay_release(&world.overlay);
}

static void test_model(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        print_message("seed %llu\r", (unsigned long long)seed);
        run_seed(seed * 7919);
    }
}

/* A handle's claim on a layer ends when somebody truncates it away. */
static void test_new_value_ends_claims(void **state)
{
    struct overlay o = {0};
    uint64_t next = 1, first, written, second;
    assert_int_equal(overlay_replace(&o, &next, NULL, &first), 0);
    assert_int_equal(overlay_write(&o, &next, 0, "abc", 3, false, &written), 0);
    assert_int_equal(written, first);
    assert_int_equal(overlay_replace(&o, &next, NULL, &second), 0);
    assert_null(overlay_find(&o, first));
    assert_non_null(overlay_find(&o, second));
    assert_int_equal(overlay_size(&o, 10), 0);
    overlay_release(&o);
}

/* A new value drops what nobody waits for, and keeps what is on its way. */
static void test_new_value_hides_layers(void **state)
{
    struct overlay o = {0};
    uint64_t next = 1, a, b, c, d;
    assert_int_equal(overlay_write(&o, &next, 0, "abc", 3, false, &a), 0);
    struct overlay_layer *flying = o.first;
    assert_int_equal(overlay_write(&o, &next, 9, "x", 1, true, &b), 0);
    assert_int_equal(overlay_write(&o, &next, 0, "y", 1, false, &c), 0);
    assert_int_equal(overlay_replace(&o, &next, flying, &d), 0);
    assert_non_null(overlay_find(&o, a));
    assert_null(overlay_find(&o, b));
    assert_null(overlay_find(&o, c));
    assert_int_equal(overlay_size(&o, 100), 0);
    check_overlay(&o);
    overlay_release(&o);
}

/* Who may not keep set-id bits drops them, though what he wrote is hidden. */
static void test_hidden_writes_drop_setid(void **state)
{
    struct overlay o = {0};
    struct overlay_attributes mode = {.set = FS_SET_MODE};
    struct overlay_layer *l;
    uint64_t next = 1, id;
    assert_int_equal(overlay_write(&o, &next, 0, "abc", 3, false, &id), 0);
    o.last->attributes.set = FS_SET_NO_SETID;
    assert_int_equal(overlay_replace(&o, &next, NULL, &id), 0);
    assert_int_equal(o.first->id, id); /* nothing else is left */
    assert_int_equal(o.first->attributes.set, FS_SET_NO_SETID);
    assert_int_equal(overlay_set(&o, &next, &mode, NULL, &l), 0);
    assert_int_equal(l->attributes.set, FS_SET_NO_SETID | FS_SET_MODE);
    overlay_release(&o);
}

static void test_stored(void **state)
{
    struct overlay o = {0};
    uint64_t next = 1, id, size = 100000;
    assert_int_equal(overlay_stored(&o, 7000, size), 7000);
    assert_int_equal(overlay_stored(&o, 7000, 5), 5);
    assert_int_equal(overlay_write(&o, &next, 99999, "x", 1, false, &id), 0);
    assert_int_equal(overlay_stored(&o, 7000, size), 7001); /* a hole counts nothing */
    assert_int_equal(overlay_write(&o, &next, 0, "y", 1, true, &id), 0);
    assert_int_equal(overlay_stored(&o, 7000, size), 7002);
    assert_int_equal(overlay_replace(&o, &next, NULL, &id), 0);
    assert_int_equal(overlay_stored(&o, 7000, 0), 0);
    assert_int_equal(overlay_write(&o, &next, 50000, "z", 1, false, &id), 0);
    assert_int_equal(overlay_stored(&o, 7000, 50001), 1); /* what was below is gone */
    overlay_release(&o);
}

/* Appends and positioned writes are different operations (K12). */
static void test_appends_do_not_mix(void **state)
{
    struct overlay o = {0};
    uint64_t next = 1, a, b, c;
    assert_int_equal(overlay_write(&o, &next, 5, "a", 1, true, &a), 0);
    assert_int_equal(overlay_write(&o, &next, 6, "b", 1, true, &b), 0);
    assert_int_equal(a, b);
    assert_false(o.first->strayed);
    assert_int_equal(overlay_layer_end(o.first), 7);
    assert_int_equal(overlay_write(&o, &next, 6, "c", 1, true, &b), 0);
    assert_true(o.first->strayed);
    assert_int_equal(overlay_write(&o, &next, 0, "d", 1, false, &c), 0);
    assert_int_not_equal(a, c);
    assert_true(o.first->sealed);
    overlay_release(&o);
}

/* Full: by bytes, by ranges, by the slots an entry would have to write anew. */
static void test_full(void **state)
{
    struct overlay o = {0};
    uint64_t next = 1, id, offset = 0;
    static uint8_t block[LIMIT_WRITE_BUFFER_BYTES];
    assert_int_equal(overlay_write(&o, &next, 0, block, sizeof(block) - 1, false, &id),
                     0);
    assert_false(overlay_full(o.first));
    assert_int_equal(overlay_write(&o, &next, sizeof(block) - 1, "x", 1, false, &id), 0);
    assert_true(overlay_full(o.first));
    overlay_release(&o);
    for (int i = 0; i < OVERLAY_RANGES - 1; i++)
        assert_int_equal(overlay_write(&o, &next, offset += 2, "x", 1, false, &id), 0);
    assert_false(overlay_full(o.first));
    assert_int_equal(overlay_write(&o, &next, offset + 2, "x", 1, false, &id), 0);
    assert_true(overlay_full(o.first));
    overlay_release(&o);
    for (uint64_t i = 0; i < OVERLAY_SLOTS - 1; i++)
        assert_int_equal(
            overlay_write(&o, &next, i * LIMIT_EXTENT_BYTES, "x", 1, false, &id), 0);
    assert_false(overlay_full(o.first));
    assert_int_equal(overlay_write(&o, &next, 1 << 28, "x", 1, false, &id), 0);
    assert_true(overlay_full(o.first));
    overlay_release(&o);
}

/* More than one operation takes is built in several. */
static void test_builds_are_bounded(void **state)
{
    struct overlay o = {0};
    uint64_t next = 1, id;
    int builds = 0;
    static uint8_t block[5 << 20];
    assert_int_equal(overlay_replace(&o, &next, NULL, &id), 0);
    assert_int_equal(overlay_write(&o, &next, 0, block, sizeof(block), false, &id), 0);
    for (int i = 0; i < 200; i++)
        assert_int_equal(
            overlay_write(&o, &next, (uint64_t)(100 + i) << 20, "x", 1, false, &id), 0);
    for (; !overlay_fits(o.first); builds++) {
        assert_int_equal(overlay_build(o.first), 0);
        assert_true(o.first->build.bytes <= 2 * LIMIT_WRITE_BUFFER_BYTES);
        assert_true(o.first->build.count <= OVERLAY_SLOTS_MAX);
        check_overlay(&o);
        overlay_built(o.first, 77);
    }
    assert_true(builds >= 5);
    assert_int_equal(o.first->size, (299 << 20) + 1);
    overlay_release(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_new_value_ends_claims),
        cmocka_unit_test(test_new_value_hides_layers),
        cmocka_unit_test(test_hidden_writes_drop_setid),
        cmocka_unit_test(test_stored),
        cmocka_unit_test(test_appends_do_not_mix),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_builds_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
