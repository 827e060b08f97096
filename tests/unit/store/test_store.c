/* test_store.c - append, roll, apply, read; against a simple model; room and its lack. */
#include "fixture.h"

static void test_first_steps(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    assert_int_equal(store_create(&f.options, f.error), -EEXIST);
    fixture_reopen(&f);
    assert_int_equal(f.recovery.last_index, 0);
    assert_int_equal(f.recovery.run_count, 0);
    store_check(f.s);
    append_one(&f, 1, "a", "one");
    assert_value(f.s, "a", NULL); /* not before it is applied */
    assert_value_ahead(f.s, "a", "one");
    store_set_generation(f.s, 5);
    append_one(&f, 1, "b", "a value of more than sixteen bytes");
    struct store_done done = run(&f);
    assert_int_equal(done.durable_index, 2);
    assert_int_equal(done.generation, 5);
    assert_false(done.hard_state);
    assert_value(f.s, "a", NULL);
    apply_to(&f, 2);
    assert_value(f.s, "a", "one");
    assert_value(f.s, "b", "a value of more than sixteen bytes");
    store_check(f.s);
    append(&f, 1, (struct put[]){{"a", NULL}, {"c", ""}}, 2);
    run(&f);
    apply_to(&f, 3);
    assert_value(f.s, "a", NULL);
    assert_value(f.s, "c", "");
    struct store_stats stats;
    store_stats(f.s, &stats);
    assert_int_equal(stats.keys, 2);
    assert_int_equal(stats.entries, 3);
    assert_int_equal(stats.live_bytes, 20 + 1 + 34 + 20 + 1);
    store_check(f.s);
    fixture_release(&f);
}

static void test_consecutive_appends_share_one_sync(void **state)
{
    struct fixture f;
    struct store_stats before, after;
    fixture_init(&f, 1 << 20);
    fixture_reopen(&f);
    store_stats(f.s, &before);
    for (int i = 0; i < 1500; i++) /* more than one pwritev takes */
        append_one(&f, 1, "k", "v");
    assert_int_equal(run(&f).durable_index, 1500);
    store_stats(f.s, &after);
    assert_int_equal(after.syncs - before.syncs, 1);
    apply_to(&f, 1500);
    store_check(f.s);
    fixture_release(&f);
}

static void test_roll_and_reopen(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    char key[16], value[64];
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "key%03d", i % 50);
        snprintf(value, sizeof(value), "value number %d, not a short one", i);
        put_one(&f, key, value);
    }
    struct store_stats stats;
    store_stats(f.s, &stats);
    assert_true(stats.segments > 5);
    store_check(f.s);
    store_set_commit_hint(f.s, 200);
    run(&f);
    for (int round = 0; round < 2; round++) {
        fixture_reopen(&f);
        assert_int_equal(f.recovery.commit, 200);
        assert_int_equal(f.recovery.last_index, 200);
        assert_int_equal(f.recovery.run_count, 1);
        assert_int_equal(f.recovery.runs[0].last, 200);
        assert_int_equal(f.recovery.cut_bytes, 0);
        assert_value(f.s, "key007", "value number 157, not a short one");
        store_check(f.s);
    }
    put_one(&f, "after", "x");
    store_check(f.s);
    fixture_release(&f);
}

static void test_sealed_segments_have_their_used_length(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    for (int i = 0; i < 40; i++)
        put_one(&f, "k", "some value of some length");
    assert_true(memory_disk_size(f.disk, segment_file(1)) < SMALL_SEGMENT);
    assert_true(memory_disk_size(f.disk, segment_file(1)) > SMALL_SEGMENT - 200);
    fixture_release(&f);
}

static void test_large_entries(void **state)
{
    struct fixture f;
    fixture_init(&f, 2 * LIMIT_ENTRY_BYTES);
    fixture_reopen(&f);
    size_t size = LIMIT_ENTRY_BYTES - STORE_ENTRY_HEADER - STORE_RECORD_HEADER - 1;
    char *value = malloc(size + 1);
    memset(value, 'x', size);
    value[size] = 0;
    for (int i = 0; i < 5; i++) {
        value[0] = (char)('0' + i);
        append(&f, 1, &(struct put){"k", value, size}, 1);
    }
    run(&f);
    apply_to(&f, 5);
    assert_value(f.s, "k", value);
    store_set_commit_hint(f.s, 5);
    run(&f);
    fixture_reopen(&f);
    assert_value(f.s, "k", value);
    struct store_stats stats;
    store_stats(f.s, &stats);
    assert_int_equal(stats.segments, 5);
    store_check(f.s);
    free(value);
    fixture_release(&f);
}

/* ---- Reading entries --------------------------------------------------------------- */

static void read_all(struct fixture *f, size_t max_bytes)
{
    uint64_t next = 1;
    while (next <= store_last_index(f->s)) {
        struct store_read *read;
        struct store_bytes *bytes;
        uint64_t last;
        assert_int_equal(store_read_plan(f->s, next, max_bytes, &read), 0);
        assert_int_equal(store_read_run(read, &bytes, &last), 0);
        store_read_free(read);
        for (size_t at = 0; at < bytes->length; next++) {
            struct store_entry e;
            assert_int_equal(store_entry_verify(bytes->data + at, bytes->length - at, &e),
                             0);
            assert_int_equal(e.index, next);
            at += e.length;
        }
        assert_int_equal(next, last + 1);
        assert_true(bytes->length <= max_bytes || last + 1 == next);
        store_bytes_unref(bytes);
    }
}

static void test_read_plans(void **state)
{
    struct fixture f;
    struct store_read *read;
    fixture_init(&f, 1 << 20);
    fixture_reopen(&f);
    assert_int_equal(store_read_plan(f.s, 1, 100, &read), -ENOENT);
    size_t size = 100000;
    char *value = calloc(1, size);
    memset(value, 'v', size - 1);
    for (int i = 0; i < 120; i++) { /* more than stays cached */
        append(&f, 1, &(struct put){"k", value, size - (size_t)i}, 1);
        run(&f);
        apply_to(&f, store_last_index(f.s));
    }
    append_one(&f, 1, "unwritten", "v");
    assert_null(store_entry_cached(f.s, 1));
    struct store_bytes *cached = store_entry_cached(f.s, 121);
    assert_non_null(cached);
    store_bytes_unref(cached);
    read_all(&f, 1);
    read_all(&f, 250000);
    read_all(&f, 100 << 20);
    assert_int_equal(store_read_plan(f.s, 122, 100, &read), -ENOENT);
    assert_int_equal(store_read_plan(f.s, 0, 100, &read), -ENOENT);

    uint64_t offset = entry_offset(f.disk, segment_file(1), 3);
    memory_disk_poke(f.disk, segment_file(1), offset + 500, "!", 1);
    assert_int_equal(store_read_plan(f.s, 3, 1, &read), 0);
    struct store_bytes *bytes;
    uint64_t last;
    assert_int_equal(store_read_run(read, &bytes, &last), -EBADMSG);
    store_read_free(read);
    free(value);
    fixture_release(&f);
}

/* A plan ends before entries that are not written yet, though their places are known. */
static void test_read_plan_beside_unwritten(void **state)
{
    struct fixture f;
    struct store_read *read;
    struct store_bytes *bytes;
    uint64_t last;
    fixture_init(&f, 9 * MiB);
    fixture_reopen(&f);
    char *value = malloc(MiB / 2);
    memset(value, 'v', MiB / 2);
    for (int i = 0; i < 17; i++) {
        append(&f, 1, &(struct put){"k", value, MiB / 2}, 1);
        run(&f);
        apply_to(&f, store_last_index(f.s));
    }
    append_one(&f, 1, "unwritten", "v");
    assert_null(store_entry_cached(f.s, 1));
    assert_int_equal(store_read_plan(f.s, 1, SIZE_MAX, &read), 0);
    assert_int_equal(store_read_run(read, &bytes, &last), 0);
    assert_true(last < 18);
    store_read_free(read);
    store_bytes_unref(bytes);
    free(value);
    fixture_release(&f);
}

static void test_nowait_and_bad_reads(void **state)
{
    struct fixture f;
    struct buf got = {0};
    struct store_stats stats;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    put_one(&f, "small", "in the keydir");
    put_one(&f, "large", "not in the keydir, so on disk");
    memory_disk_set_cold(f.disk, true);
    buf_bytes(&got, "before ", 7);
    assert_int_equal(store_get(f.s, "large", 5, STORE_NOWAIT, &got, NULL), -EAGAIN);
    assert_int_equal(store_get_ahead(f.s, "large", 5, &got, NULL), -EAGAIN);
    assert_int_equal(got.length, 7);
    assert_int_equal(store_get(f.s, "small", 5, STORE_NOWAIT, &got, NULL), 0);
    assert_int_equal(got.length, 20);
    uint64_t timestamp = 0;
    assert_int_equal(store_get(f.s, "large", 5, 0, &got, &timestamp), 0);
    assert_int_equal(timestamp, 4);
    assert_int_equal(got.length, 20 + 29);
    assert_memory_equal(got.data, "before in the keydirnot in the keydir, so on disk",
                        49);
    uint64_t offset = entry_offset(f.disk, segment_file(1), 2);
    memory_disk_poke(f.disk, segment_file(1), offset + STORE_ENTRY_HEADER + 30, "!", 1);
    assert_int_equal(store_get(f.s, "large", 5, 0, &got, NULL), -EBADMSG);
    assert_int_equal(got.length, 49);
    store_stats(f.s, &stats);
    assert_int_equal(stats.bad_reads, 2);
    buf_release(&got);
    fixture_release(&f);
}

/* G1: a record with a right checksum that is not the one the keydir means. */
static void test_record_of_another_version(void **state)
{
    struct fixture f;
    struct buf got = {0};
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    put_one(&f, "key", "the first version of it");
    put_one(&f, "kez", "another key's, as large");
    put_one(&f, "key",
            "the second version of it"
            "");
    const char *file = segment_file(1);
    uint8_t record[20 + 3 + 23];
    uint64_t first = entry_offset(f.disk, file, 1) + STORE_ENTRY_HEADER;
    uint64_t second = entry_offset(f.disk, file, 2) + STORE_ENTRY_HEADER;
    memory_disk_peek(f.disk, file, first, record, sizeof(record));
    memory_disk_poke(f.disk, file, second, record, sizeof(record));
    assert_int_equal(store_get(f.s, "kez", 3, 0, &got, NULL), -EBADMSG);
    /* The same key, an older timestamp. */
    put_u64(record + 4, 3);
    memcpy(record + 20, "kez", 3);
    put_u32(record, crc32_of(0, record + 4, sizeof(record) - 4));
    memory_disk_poke(f.disk, file, second, record, sizeof(record));
    assert_int_equal(store_get(f.s, "kez", 3, 0, &got, NULL), -EBADMSG);
    put_u64(record + 4, 4);
    put_u32(record, crc32_of(0, record + 4, sizeof(record) - 4));
    memory_disk_poke(f.disk, file, second, record, sizeof(record));
    assert_int_equal(store_get(f.s, "kez", 3, 0, &got, NULL), 0);
    /* Another key, of the same timestamp. */
    memcpy(record + 20, "kex", 3);
    put_u32(record, crc32_of(0, record + 4, sizeof(record) - 4));
    memory_disk_poke(f.disk, file, second, record, sizeof(record));
    assert_int_equal(store_get(f.s, "kez", 3, 0, &got, NULL), -EBADMSG);
    buf_release(&got);
    fixture_release(&f);
}

/* ---- The model --------------------------------------------------------------------- */

enum { MODEL_KEYS = 200, MODEL_PENDING = 64 };

struct model {
    uint32_t versions[MODEL_KEYS]; /* 0: none; else the value's seed */
};

struct change {
    unsigned key;
    uint32_t version;
};

struct pending {
    struct change changes[8];
    unsigned count;
};

static void model_key(char to[16], unsigned key)
{
    snprintf(to, 16, "k%u", key * 7919 % MODEL_KEYS); /* orders differ */
}

static unsigned model_value(char to[128], uint32_t version)
{
    unsigned size = version % 60;
    for (unsigned i = 0; i < size; i++)
        to[i] = (char)('a' + (version / 60 + i) % 26);
    to[size] = 0;
    return size;
}

struct seen {
    const struct model *model;
    char last[16];
    unsigned count;
};

static int see(void *arg, const struct store_item *item)
{
    struct seen *seen = arg;
    char key[16] = {0}, expected[128];
    assert_true(item->key_size < sizeof(key));
    memcpy(key, item->key, item->key_size);
    assert_true(strcmp(seen->last, key) < 0);
    strcpy(seen->last, key);
    for (unsigned k = 0; k < MODEL_KEYS; k++) {
        char name[16];
        model_key(name, k);
        if (strcmp(name, key) != 0)
            continue;
        assert_true(seen->model->versions[k] != 0);
        unsigned size = model_value(expected, seen->model->versions[k]);
        assert_int_equal(item->value_size, size);
        assert_int_equal(item->value != NULL, size <= LIMIT_KEYDIR_INLINE_BYTES);
        if (item->value && size > 0)
            assert_memory_equal(item->value, expected, size);
    }
    seen->count++;
    return 0;
}

typedef int scan_function(struct store *s, const void *from, size_t from_size,
                          const void *to, size_t to_size,
                          int (*each)(void *arg, const struct store_item *item),
                          void *arg);

static void compare_range(struct store *s, scan_function *scan, const struct model *model,
                          const char *from, const char *to)
{
    struct seen seen = {.model = model};
    unsigned expected = 0;
    for (unsigned k = 0; k < MODEL_KEYS; k++) {
        char name[16];
        model_key(name, k);
        if (model->versions[k] && strcmp(name, from) >= 0 &&
            (!*to || strcmp(name, to) < 0))
            expected++;
    }
    assert_int_equal(scan(s, from, strlen(from), to, strlen(to), see, &seen), 0);
    assert_int_equal(seen.count, expected);
}

static void compare(struct store *s, const struct model *applied,
                    const struct model *ahead)
{
    for (unsigned k = 0; k < MODEL_KEYS; k++) {
        char name[16], value[128];
        model_key(name, k);
        model_value(value, applied->versions[k]);
        assert_value(s, name, applied->versions[k] ? value : NULL);
        model_value(value, ahead->versions[k]);
        assert_value_ahead(s, name, ahead->versions[k] ? value : NULL);
    }
    compare_range(s, store_scan, applied, "", "");
    compare_range(s, store_scan_ahead, ahead, "", "");
    compare_range(s, store_scan, applied, "k12", "k17");
    compare_range(s, store_scan_ahead, ahead, "k12", "k17");
}

struct model_run {
    struct fixture f;
    uint64_t random, term, generation, truncations, reopened, overtaken;
    uint64_t durable;
    struct store_job *job; /* what the log thread has not done yet */
    struct model applied, ahead;
    struct pending pending[MODEL_PENDING]; /* of entries after the applied ones */
    unsigned pending_count;
};

static uint64_t draw(struct model_run *m, uint64_t below)
{
    return random_next(&m->random) % below;
}

static void model_apply(struct model *model, const struct pending *p)
{
    for (unsigned i = 0; i < p->count; i++)
        model->versions[p->changes[i].key] = p->changes[i].version;
}

static void rebuild_ahead(struct model_run *m)
{
    m->ahead = m->applied;
    for (unsigned i = 0; i < m->pending_count; i++)
        model_apply(&m->ahead, &m->pending[i]);
}

static void step_append(struct model_run *m)
{
    if (m->pending_count == MODEL_PENDING)
        return;
    struct pending *p = &m->pending[m->pending_count];
    struct put puts[8];
    char names[8][16], values[8][128];
    unsigned want = (unsigned)draw(m, 9);
    p->count = 0;
    for (unsigned i = 0; i < want; i++) {
        unsigned key = (unsigned)draw(m, MODEL_KEYS);
        bool twice = false;
        for (unsigned k = 0; k < p->count; k++)
            twice = twice || p->changes[k].key == key;
        if (twice)
            continue;
        unsigned n = p->count++;
        uint32_t version = draw(m, 3) == 0 ? 0 : (uint32_t)draw(m, 100000) + 1;
        p->changes[n] = (struct change){key, version};
        model_key(names[n], key);
        model_value(values[n], version);
        puts[n] = (struct put){names[n], version ? values[n] : NULL, 0};
    }
    append(&m->f, m->term, puts, p->count);
    m->pending_count++;
    rebuild_ahead(m);
}

/* The log thread takes its time: the loop goes on between these two. */
static void step_take(struct model_run *m)
{
    if (!m->job)
        m->job = store_take_job(m->f.s);
}

static void step_finish(struct model_run *m)
{
    if (!m->job)
        return;
    if (store_run_job(m->job, m->f.error) != 0)
        fail_msg("%s", m->f.error);
    struct store_done done = store_finish_job(m->f.s, m->job);
    m->job = NULL;
    if (done.durable_index && done.generation == m->generation) /* G3 */
        m->durable = done.durable_index;
    else if (done.durable_index)
        m->overtaken++;
    store_check(m->f.s); /* also with operations that wait */
}

static void step_apply(struct model_run *m)
{
    uint64_t applied = store_applied(m->f.s);
    unsigned n = (unsigned)draw(m, m->pending_count + 1);
    n = (unsigned)min_u64(n, m->durable - min_u64(m->durable, applied));
    for (unsigned i = 0; i < n; i++) {
        apply_to(&m->f, store_applied(m->f.s) + 1);
        model_apply(&m->applied, &m->pending[i]);
    }
    memmove(m->pending, m->pending + n, (m->pending_count - n) * sizeof(m->pending[0]));
    m->pending_count -= n;
}

static void step_truncate(struct model_run *m)
{
    unsigned keep = (unsigned)draw(m, m->pending_count + 1);
    m->term++;
    uint64_t index = store_applied(m->f.s) + keep;
    assert_int_equal(store_truncate(m->f.s, index, ++m->generation), 0);
    assert_int_equal(store_last_index(m->f.s), index);
    m->durable = min_u64(m->durable, index);
    m->pending_count = keep;
    rebuild_ahead(m);
    m->truncations++;
}

static void finish_all(struct model_run *m)
{
    step_finish(m);
    step_take(m);
    step_finish(m);
    assert_int_equal(m->durable, store_last_index(m->f.s));
}

/* After a clean stop all that was written is there again, applied up to the hint. */
static void step_reopen(struct model_run *m)
{
    store_set_commit_hint(m->f.s, store_applied(m->f.s));
    finish_all(m);
    uint64_t applied = store_applied(m->f.s), last = store_last_index(m->f.s);
    fixture_reopen(&m->f);
    assert_int_equal(store_applied(m->f.s), applied);
    assert_int_equal(store_last_index(m->f.s), last);
    m->durable = applied;
    assert_int_equal(store_truncate(m->f.s, applied, ++m->generation), 0);
    run(&m->f);
    m->pending_count = 0;
    rebuild_ahead(m);
    m->reopened++;
}

static void check_all(struct model_run *m)
{
    finish_all(m);
    store_check(m->f.s);
}

static void run_model(uint64_t seed)
{
    struct model_run m = {.random = seed, .term = 1};
    fixture_init(&m.f, 8192);
    fixture_reopen(&m.f);
    for (int step = 0; step < 1500; step++) {
        uint64_t what = draw(&m, 100);
        if (what < 50)
            step_append(&m);
        else if (what < 60)
            step_take(&m);
        else if (what < 72)
            step_finish(&m);
        else if (what < 85)
            step_apply(&m);
        else if (what < 89)
            step_truncate(&m);
        else if (what < 91)
            step_reopen(&m);
        else if (what < 95)
            compare(m.f.s, &m.applied, &m.ahead);
        else
            check_all(&m);
    }
    struct store_stats stats;
    store_stats(m.f.s, &stats);
    assert_true(m.truncations > 10 && m.reopened > 5 && m.overtaken > 3);
    assert_true(stats.segments > 5);
    fixture_release(&m.f);
}

static void test_model(void **state)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        run_model(seed * 0x9e3779b97f4a7c15);
    }
}

/* A scan ends where its callback says so. */
static int stop_at_second(void *arg, const struct store_item *item)
{
    return ++*(int *)arg == 2 ? 42 : 0;
}

static void test_scan_stops(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    for (int i = 0; i < 5; i++)
        put_one(&f, (char[]){(char)('a' + i), 0}, "v");
    int count = 0;
    assert_int_equal(store_scan(f.s, "a", 1, NULL, 0, stop_at_second, &count), 42);
    assert_int_equal(count, 2);
    uint64_t begun = store_read_begin(f.s);
    assert_false(store_read_retry(f.s, begun));
    put_one(&f, "z", "v");
    assert_true(store_read_retry(f.s, begun));
    fixture_release(&f);
}

/* ---- Room -------------------------------------------------------------------------- */

static void test_full_disk(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    memory_disk_set_capacity(f.disk, 16384 + 8 * SMALL_SEGMENT);
    fixture_reopen(&f);
    assert_int_equal(store_space(f.s), STORE_SPACE_OK);
    int rc = 0, written = 0;
    bool was_low = false;
    for (; written < 1000; written++) {
        struct store_bytes *bytes =
            make_entry(f.s, 1, 0, &(struct put){"k", "some value of some length", 0}, 1);
        rc = store_has_room(f.s, bytes->length);
        if (rc == 0)
            assert_int_equal(store_append(f.s, bytes, true), 0);
        store_bytes_unref(bytes);
        if (rc != 0)
            break;
        run(&f);
        apply_to(&f, store_last_index(f.s));
        was_low = was_low || store_space(f.s) == STORE_SPACE_LOW;
    }
    assert_int_equal(rc, -ENOSPC);
    assert_true(was_low && written > 100);
    store_check(f.s);
    /* Still full when looked at again. */
    assert_int_equal(store_refresh_space(f.s), 0);
    run(&f);
    assert_int_equal(store_has_room(f.s, 200), -ENOSPC);
    assert_int_equal(store_space(f.s), STORE_SPACE_LOW);
    /* A full store opens, reads, and still says so. */
    store_set_commit_hint(f.s, store_applied(f.s));
    run(&f);
    fixture_reopen(&f);
    assert_value(f.s, "k", "some value of some length");
    assert_int_equal(store_has_room(f.s, 4000), -ENOSPC);
    /* Room made is found without a restart. */
    memory_disk_set_capacity(f.disk, UINT64_MAX);
    assert_int_equal(store_refresh_space(f.s), 0);
    run(&f);
    assert_int_equal(store_space(f.s), STORE_SPACE_OK);
    assert_int_equal(store_has_room(f.s, 4000), 0);
    for (int i = 0; i < 100; i++)
        put_one(&f, "k", "some value of some length");
    store_check(f.s);
    fixture_release(&f);
}

/* Appends without running jobs until the active segment has been left once more. */
static void fill_one_segment(struct fixture *f)
{
    struct store_stats before, after;
    store_stats(f->s, &before);
    do {
        append_one(f, 1, "k", "some value of some length");
        store_stats(f->s, &after);
    } while (after.segments == before.segments);
}

/* How many entries still have room. */
static unsigned fill_up(struct fixture *f)
{
    unsigned count = 0;
    while (store_has_room(f->s, 150) == 0) {
        append_one(f, 1, "k", "some value of some length");
        assert_true(++count < 1000);
    }
    return count;
}

/* A spare that is still being prepared may be rolled to where the disk had room for it.
 */
static void test_spare_in_preparation(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    fill_one_segment(&f);
    assert_int_equal(store_has_room(f.s, 4000), 0);
    struct store_job *job = store_take_job(f.s);
    memory_disk_set_capacity(f.disk, 8192 * 2); /* another fills the disk */
    assert_int_equal(store_run_job(job, f.error), 0);
    fill_one_segment(&f); /* to the spare that has just failed to be made */
    store_finish_job(f.s, job);
    store_check(f.s);
    fill_up(&f);
    assert_int_equal(store_has_room(f.s, 4000),
                     -ENOSPC); /* now the disk is known to be full */
    memory_disk_set_capacity(f.disk, UINT64_MAX);
    run(&f); /* made when it is needed */
    apply_to(&f, store_last_index(f.s));
    store_check(f.s);
    fixture_release(&f);
}

/* Where even then there is no room, the job fails, and what was durable stays. */
static void test_no_room_for_a_roll(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    put_one(&f, "k", "durable");
    store_set_commit_hint(f.s, 1);
    run(&f);
    fill_one_segment(&f);
    fill_one_segment(&f);
    memory_disk_set_capacity(f.disk, 8192 * 2);
    struct store_job *job = store_take_job(f.s);
    assert_int_equal(store_run_job(job, f.error), -ENOSPC);
    assert_non_null(strstr(f.error, "reserve space for d/log/"));
    fixture_reopen(&f);
    assert_value(f.s, "k", "durable");
    assert_int_equal(store_space(f.s), STORE_SPACE_LOW);
    store_check(f.s);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_steps),
        cmocka_unit_test(test_consecutive_appends_share_one_sync),
        cmocka_unit_test(test_roll_and_reopen),
        cmocka_unit_test(test_sealed_segments_have_their_used_length),
        cmocka_unit_test(test_large_entries),
        cmocka_unit_test(test_read_plans),
        cmocka_unit_test(test_read_plan_beside_unwritten),
        cmocka_unit_test(test_nowait_and_bad_reads),
        cmocka_unit_test(test_record_of_another_version),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_scan_stops),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_spare_in_preparation),
        cmocka_unit_test(test_no_room_for_a_roll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
