/*
 * test_keydir.c - places and live bytes, while records are moved as a merge moves them.
 * White-box: only the merge thread moves records, and whole merges are tested elsewhere.
 */
#include "fixture.h"
#include "store_internal.h"

#include <fcntl.h>
#include <pthread.h>

/* A data file like a merged one, which nobody lists. */
static struct segment *open_copy(struct fixture *f, const char *path)
{
    struct segment *copy = segment_new(f->s, SEGMENT_MERGED, 1000);
    assert_non_null(copy);
    copy->fd = f->io.open(f->io.context, path, O_RDWR | O_CREAT, 0600);
    assert_true(copy->fd >= 0);
    return copy;
}

/* Copies the record and moves the node's place there. */
static bool move(struct store *s, struct segment *copy, const struct keydir_node *node)
{
    struct buf record = {0};
    uint64_t from = keydir_place(node);
    bool moved = false;
    if (from != PLACE_GONE && read_raw(s, node, 0, &record) == 0) {
        struct iovec iov = {record.data, record.length};
        ensure(write_full(s->io, copy->fd, &iov, 1, copy->used) == 0);
        moved =
            keydir_relocate(s->keydir, node, from, place_of(copy, (uint32_t)copy->used));
        copy->used += record.length;
    }
    buf_release(&record);
    return moved;
}

static uint64_t live(const struct segment *segment)
{
    return atomic_load(&segment->live_bytes);
}

static void test_live_bytes(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    struct segment *first = store_active(f.s);
    put_one(&f, "one", "a value of twenty-one");
    put_one(&f, "two", "small");
    assert_int_equal(live(first), 20 + 3 + 21 + 20 + 3 + 5);
    put_one(&f, "one", "");
    assert_int_equal(live(first), 20 + 3 + 20 + 3 + 5);
    put_one(&f, "two", NULL);
    assert_int_equal(live(first), 20 + 3);
    store_check(f.s);
    fixture_reopen(&f);
    apply_to(&f, store_last_index(f.s));
    assert_int_equal(live(store_active(f.s)), 20 + 3);
    fixture_release(&f);
}

static void test_relocate(void **state)
{
    struct fixture f;
    const char *value = "a value that is not in the keydir";
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    put_one(&f, "key", value);
    struct segment *log = store_active(f.s), *copy = open_copy(&f, "d/log/copy");
    const struct keydir_node *node = keydir_find(f.s->keydir, "key", 3);
    uint64_t from = keydir_place(node), bytes = keydir_record_bytes(node);
    assert_ptr_equal(place_segment(f.s->slots, from), log);
    assert_true(move(f.s, copy, node));
    assert_int_equal(live(log), 0);
    assert_int_equal(live(copy), bytes);
    assert_ptr_equal(place_segment(f.s->slots, keydir_place(node)), copy);
    store_check(f.s);
    assert_value(f.s, "key", value);
    /* What is read is the copy. */
    memory_disk_poke(f.disk, "d/log/copy", copy->used - 1, "!", 1);
    struct buf got = {0};
    assert_int_equal(store_get(f.s, "key", 3, 0, &got, NULL), -EBADMSG);
    memory_disk_poke(f.disk, "d/log/copy", copy->used - 1, "r", 1);
    /* It is no more where it was. */
    assert_false(keydir_relocate(f.s->keydir, node, from, from));
    reading_begin(); /* the node stays */
    put_one(&f, "key", "another");
    assert_int_equal(keydir_place(node), PLACE_GONE);
    assert_int_equal(read_value(f.s, node, 0, &got), -ESTALE);
    assert_false(move(f.s, copy, node));
    reading_end();
    assert_int_equal(live(copy), 0);
    assert_value(f.s, "key", "another");
    store_check(f.s);
    f.s->dropped = true;
    segment_unref(copy);
    buf_release(&got);
    fixture_release(&f);
}

/* A slot is another's only when no reader can mean the former segment by it. */
static void test_slots(void **state)
{
    struct fixture f;
    static struct segment *segments[LIMIT_SEGMENTS];
    size_t count = 0;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    while ((segments[count] = segment_new(f.s, SEGMENT_MERGED, count)))
        count++;
    assert_true(count < LIMIT_SEGMENTS && count + 8 > LIMIT_SEGMENTS);
    struct segment *last = segments[--count];
    uint64_t place = place_of(last, 7);
    assert_ptr_equal(place_segment(f.s->slots, place), last);
    assert_int_equal(place_offset(place), 7);
    reading_begin();
    segment_unref(last);
    assert_ptr_equal(place_segment(f.s->slots, place), last);
    assert_null(segment_new(f.s, SEGMENT_MERGED, 1));
    reading_end();
    reading_barrier();
    assert_null(place_segment(f.s->slots, place));
    last = segment_new(f.s, SEGMENT_MERGED, 1);
    assert_non_null(last);
    assert_ptr_equal(place_segment(f.s->slots, place), last);
    segment_unref_unread(last);
    while (count > 0)
        segment_unref_unread(segments[--count]);
    fixture_release(&f);
}

/* ---- Moved while written and read ---------------------------------------------------
 */

enum {
    KEYS = 64,
    ROUNDS = 2000,
    COPY_BYTES = 4 << 20
}; /* a file of the disk in memory is small */

struct moving {
    struct fixture *f;
    struct segment *copy;
    _Atomic bool stop;
    _Atomic uint64_t moved, reads;
};

static void *mover(void *arg)
{
    struct moving *m = arg;
    while (!m->stop && m->copy->used < COPY_BYTES) {
        struct keydir_cursor cursor;
        reading_begin();
        const struct keydir_node *node =
            keydir_seek(store_keydir(m->f->s), &cursor, "", 0);
        for (; node; node = keydir_next(&cursor))
            m->moved += move(m->f->s, m->copy, node);
        reading_end();
    }
    return NULL;
}

static void *mover_reader(void *arg)
{
    struct moving *m = arg;
    uint64_t random = 7;
    struct buf got = {0};
    while (!m->stop) {
        char key[8];
        uint64_t timestamp_us;
        snprintf(key, sizeof(key), "k%02u", (unsigned)(random_next(&random) % KEYS));
        buf_clear(&got);
        int rc = store_get(m->f->s, key, 3, 0, &got, &timestamp_us);
        ensure(rc == 0 || rc == -ENOENT);
        ensure(rc != 0 || memcmp(got.data, key, 3) == 0);
        m->reads++;
    }
    buf_release(&got);
    return NULL;
}

static void change_key(struct fixture *f, unsigned key, unsigned round)
{
    char name[8], value[64];
    snprintf(name, sizeof(name), "k%02u", key);
    snprintf(value, sizeof(value), "%s in round %u, too long for a node", name, round);
    append_one(f, 1, name, round % 5 == 0 ? NULL : value);
    run(f);
    apply_to(f, store_last_index(f->s));
}

/* Each record's bytes are some segment's, once, whoever was first. */
static void test_moving(void **state)
{
    struct fixture f;
    pthread_t move_thread, read_thread;
    uint64_t random = 11;
    fixture_init(&f, 1 << 20);
    fixture_reopen(&f);
    f.unchecked = true; /* another thread moves what would be looked at */
    struct moving m = {.f = &f, .copy = open_copy(&f, "d/log/copy")};
    assert_int_equal(pthread_create(&move_thread, NULL, mover, &m), 0);
    assert_int_equal(pthread_create(&read_thread, NULL, mover_reader, &m), 0);
    for (unsigned i = 0; i < ROUNDS || m.moved < KEYS || m.reads < KEYS; i++)
        change_key(&f, (unsigned)(random_next(&random) % KEYS), i);
    m.stop = true;
    pthread_join(move_thread, NULL);
    pthread_join(read_thread, NULL);
    store_check(f.s);
    for (unsigned key = 0; key < KEYS; key++)
        change_key(&f, key, 5);
    assert_int_equal(live(m.copy), 0);
    store_check(f.s);
    f.s->dropped = true;
    segment_unref(m.copy);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_live_bytes),
        cmocka_unit_test(test_relocate),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_moving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
