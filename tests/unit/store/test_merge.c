/* test_merge.c - merging: what stays, what goes and when, against a model; space and
 * bytes written; beside readers and a writer. */
#include "merging.h"

#include "store_internal.h" /* tombstones are seen in the manifest only */

#include <pthread.h>
#include <stdlib.h>

/* ---- One after the other ----------------------------------------------------------- */

static void test_a_sealed_segment_gets_a_hint(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    put_key(&f, 0, 0, 100);
    assert_false(run_task(&f)); /* it is the active one */
    fill_segments_with(&f, 1, 1, 2000);
    assert_false(memory_disk_exists(f.disk, file_of(1, "hint")));
    assert_true(run_task(&f));
    assert_true(memory_disk_exists(f.disk, file_of(1, "hint")));
    assert_true(stats_of(&f).hint_bytes > 0);
    assert_false(run_task(&f)); /* all of it is live */
    assert_int_equal(stats_of(&f).merges, 0);
    store_check(f.s);
    fixture_release(&f);
}

static void test_no_hint_before_all_is_applied(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    while (stats_of(&f).segments < 2) {
        append_one(&f, 1, "k", value_of(1, 1, 200));
        run(&f);
    }
    assert_false(run_task(&f));
    apply_to(&f, store_last_index(f.s) - 2);
    assert_false(run_task(&f));
    apply_to(&f, store_last_index(f.s));
    assert_true(run_task(&f));
    fixture_release(&f);
}

static void test_what_is_overwritten_goes(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    unsigned last = fill_segments(&f, 0, 1);
    for (unsigned version = 1; stats_of(&f).segments < 4; version++)
        put_key(&f, 1, version, 200);
    uint64_t former_base = base_of(&f);
    assert_int_equal(former_base, 0);
    assert_true(run_tasks(&f) >= 4);
    struct store_stats stats = stats_of(&f);
    assert_true(stats.merges >= 1 && stats.merged_files >= 1);
    assert_true(stats.merge_bytes_written >= stats.merged_bytes);
    assert_int_equal(stats.segments, 1);
    assert_true(base_of(&f) > 0);
    assert_int_equal(stats.entries, store_last_index(f.s) - base_of(&f));
    assert_false(memory_disk_exists(f.disk, file_of(1, "seg")));
    assert_false(memory_disk_exists(f.disk, file_of(1, "hint")));
    assert_true(memory_disk_exists(f.disk, "d/log/MANIFEST"));
    struct store_manifest manifest;
    assert_true(store_manifest(f.s, &manifest));
    assert_int_equal(manifest.merged_index, base_of(&f));
    assert_int_equal(manifest.merged_term, 1);
    assert_int_equal(manifest.applied_index, store_applied(f.s));
    assert_int_equal(manifest.applied_index, f.saved);
    assert_true(store_is_ready(f.s));
    for (unsigned key = 0; key < last; key++) {
        if (key != 1)
            assert_value(f.s, key_of(key), value_of(key, 0, 200));
    }
    store_check(f.s);
    struct store_read *read;
    assert_int_equal(store_read_plan(f.s, base_of(&f), 1, &read), -ENOENT);
    assert_int_equal(store_read_plan(f.s, base_of(&f) + 1, 1, &read), 0);
    store_read_free(read);
    assert_null(store_entry_cached(f.s, base_of(&f)));
    fixture_release(&f);
}

static void test_what_is_deleted_leaves_nothing(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    unsigned last = fill_segments(&f, 0, 3);
    for (unsigned key = 0; key < last; key++)
        put_one(&f, key_of(key), NULL);
    for (int i = 0; stats_of(&f).segments < 8; i++) {
        put_one(&f, "k", "v");
        put_one(&f, "k", NULL);
        run_tasks(&f);
        if (i > 200)
            break;
    }
    run_tasks(&f);
    assert_int_equal(stats_of(&f).live_bytes, 0);
    assert_int_equal(stats_of(&f).merged_files, 0);
    assert_int_equal(stats_of(&f).segments, 1);
    store_check(f.s);
    fixture_release(&f);
}

/* ---- A model ----------------------------------------------------------------------- */

enum { MODEL_KEYS = 300 };

struct model {
    unsigned version[MODEL_KEYS]; /* 0: not there */
    unsigned size[MODEL_KEYS];
};

static void check_model(struct fixture *f, const struct model *model)
{
    for (unsigned key = 0; key < MODEL_KEYS; key++)
        assert_value(f->s, key_of(key),
                     model->version[key]
                         ? value_of(key, model->version[key], model->size[key])
                         : NULL);
}

static void change(struct fixture *f, struct model *model, uint64_t *seed,
                   unsigned version)
{
    struct put puts[4];
    char keys[4][16], *values[4] = {0};
    size_t count = 0, wanted = 1 + random_next(seed) % 4;
    unsigned first = (unsigned)(random_next(seed) % MODEL_KEYS);
    for (; count < wanted; count++) {
        unsigned key = (first + (unsigned)count * 7) % MODEL_KEYS;
        bool gone = random_next(seed) % 4 == 0;
        model->version[key] = gone ? 0 : version;
        model->size[key] = 20 + (unsigned)(random_next(seed) % 300);
        snprintf(keys[count], sizeof(keys[0]), "%s", key_of(key));
        if (!gone)
            values[count] = strdup(value_of(key, version, model->size[key]));
        puts[count] = (struct put){.key = keys[count], .value = values[count]};
    }
    append(f, 1 + version / 700, puts, count);
    run(f);
    apply_to(f, store_last_index(f->s));
    for (size_t i = 0; i < count; i++)
        free(values[i]);
}

static void reopen_with_hint(struct fixture *f)
{
    store_set_commit_hint(f->s, store_applied(f->s));
    run(f);
    fixture_reopen(f);
    assert_int_equal(f->recovery.base_index, base_of(f));
}

static void test_against_a_model(void **state)
{
    uint64_t merges = 0, hidden = 0;
    for (uint64_t run_seed = 1; run_seed <= 6; run_seed++) {
        uint64_t seed = run_seed;
        struct model model = {0};
        struct fixture f;
        open_new(&f, SEGMENT);
        for (unsigned version = 1; version <= 2000; version++) {
            change(&f, &model, &seed, version);
            if (random_next(&seed) % 8 == 0 && run_task(&f))
                store_check(f.s);
            if (random_next(&seed) % 400 == 0) {
                merges += stats_of(&f).merges;
                reopen_with_hint(&f);
                check_model(&f, &model);
                store_check(f.s);
            }
        }
        run_tasks(&f);
        check_model(&f, &model);
        store_check(f.s);
        merges += stats_of(&f).merges;
        hidden += stats_of(&f).merged_files;
        fixture_release(&f);
    }
    assert_true(merges > 100 && hidden > 6);
}

/* ---- Space and bytes --------------------------------------------------------------- */

/* Uniform overwriting: what is on disk, reserved space included, and what was written. */
static void overwrite(unsigned keys, size_t size, unsigned rounds, double *ret_written)
{
    struct fixture f;
    uint64_t seed = 7, peak = 0, live = 0, over = 0;
    const uint64_t segment = 128 << 10;
    open_new(&f, segment);
    for (unsigned i = 0; i < keys; i++)
        put_key(&f, i, 0, size);
    live = stats_of(&f).live_bytes;
    run_tasks(&f);
    uint64_t before = stats_of(&f).bytes_written;
    uint64_t merged_before = stats_of(&f).merge_bytes_written;
    for (unsigned i = 1; i <= keys * rounds; i++) {
        put_key(&f, (unsigned)(random_next(&seed) % keys), i, size);
        run_tasks(&f);
        uint64_t used = memory_disk_used(f.disk) - STATE_FILES;
        peak = max_u64(peak, used);
        over += used > 2 * live + 2 * segment;
    }
    assert_int_equal(stats_of(&f).live_bytes, live);
    assert_true(stats_of(&f).merges > 5);
    assert_int_equal(over, 0);
    uint64_t written = stats_of(&f).bytes_written - before +
                       stats_of(&f).merge_bytes_written - merged_before;
    *ret_written = (double)written / ((double)keys * rounds * (double)size);
    store_check(f.s);
    fixture_release(&f);
    print_message("at most %.2f times the live bytes on disk, and two segments\n",
                  ((double)peak - 2 * segment) / (double)live);
}

static void test_space_is_bounded_and_bytes_written_too(void **state)
{
    double written;
    overwrite(3000, 1000, 6, &written);
    print_message("bytes written per byte of value: %.2f\n", written);
    assert_true(written < 2);
}

enum { LARGE_SEGMENT = 128 << 10, LARGE = 16000 }; /* hardly anything but values */

/* The log goes from its beginning: what lives there must not keep what is dead behind it. */
static void test_live_segments_do_not_shield_dead_ones(void **state)
{
    struct fixture f;
    open_new(&f, LARGE_SEGMENT);
    unsigned last = fill_segments_with(&f, 0, 6, LARGE);
    run_tasks(&f);
    assert_int_equal(stats_of(&f).merges, 0);
    for (unsigned version = 1; version <= 20 * 8; version++) {
        put_key(&f, last - 1, version, LARGE);
        run_tasks(&f);
    }
    uint64_t live = stats_of(&f).live_bytes;
    assert_true(live >= (last - 1) * (uint64_t)LARGE);
    assert_true(stats_of(&f).merges >= 6);
    assert_true(memory_disk_used(f.disk) - STATE_FILES <= 2 * live + 2 * LARGE_SEGMENT);
    for (unsigned key = 0; key + 1 < last; key++)
        assert_value(f.s, key_of(key), value_of(key, 0, LARGE));
    store_check(f.s);
    fixture_release(&f);
}

/* ---- Tombstones -------------------------------------------------------------------- */

static uint64_t merged_tombstones(struct fixture *f)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < f->s->manifest.count; i++)
        sum += f->s->manifest.files[i].tombstones;
    return sum;
}

/* Fills the log with what is dead at once, until it was left once more, and merges. */
static void merge_junk(struct fixture *f)
{
    static unsigned version;
    for (uint64_t base = base_of(f); base_of(f) == base; run_tasks(f)) {
        for (int i = 0; i < 20; i++)
            put_key(f, 99999, ++version, 1000);
    }
}

/* Keys 0 .. count - 1, merged. */
static void merge_keys(struct fixture *f, unsigned count)
{
    for (unsigned key = 0; key < count; key++)
        put_key(f, key, 0, 1000);
    merge_junk(f);
    while (f->s->segments[0]->first_index <= count)
        merge_junk(f);
}

static void test_a_tombstone_stays_while_it_hides_something(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    merge_keys(&f, 40);
    assert_int_equal(merged_tombstones(&f), 0);
    uint64_t former = f.s->manifest.files[0].file_id;
    put_one(&f, key_of(3), NULL);
    put_one(&f, "never there", NULL);
    put_key(&f, 4, 1, 1000); /* not a tombstone, hides an older one all the same */
    put_one(&f, key_of(5), NULL);
    put_key(&f, 5, 1, 1000);
    uint64_t index = store_last_index(f.s);
    while (base_of(&f) < index)
        merge_junk(&f);
    assert_int_equal(f.s->manifest.files[0].file_id,
                     former); /* it was not merged again */
    assert_int_equal(merged_tombstones(&f), 1);
    assert_value(f.s, key_of(3), NULL);
    assert_value(f.s, key_of(4), value_of(4, 1, 1000));
    assert_value(f.s, key_of(5), value_of(5, 1, 1000));
    store_check(f.s);
    /* Again and again, as long as that file stays. */
    for (int i = 0; i < 10; i++)
        merge_junk(&f);
    assert_int_equal(merged_tombstones(&f), 1);
    fixture_release(&f);
}

static void test_a_tombstone_goes_when_its_key_is_back(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    merge_keys(&f, 40);
    put_one(&f, key_of(3), NULL);
    uint64_t index = store_last_index(f.s);
    for (uint64_t segments = stats_of(&f).segments; stats_of(&f).segments < segments + 2;)
        put_key(&f, 99998, (unsigned)store_last_index(f.s), 1000);
    put_key(&f, 3, 1, 1000); /* in the active segment */
    run_tasks(&f);
    assert_true(base_of(&f) >= index && base_of(&f) < store_last_index(f.s));
    assert_int_equal(merged_tombstones(&f), 0);
    assert_value(f.s, key_of(3), value_of(3, 1, 1000));
    store_check(f.s);
    fixture_release(&f);
}

static void test_a_tombstone_goes_with_what_it_hides(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    merge_keys(&f, 60);
    for (unsigned key = 0; key < 60; key += 10)
        put_one(&f, key_of(key), NULL);
    uint64_t index = store_last_index(f.s);
    while (base_of(&f) < index)
        merge_junk(&f);
    assert_true(merged_tombstones(&f) > 0);
    uint64_t kept = merged_tombstones(&f);
    for (unsigned key = 0; key < 60; key++) {
        if (key % 10 != 0 && key != 33)
            put_one(&f, key_of(key), NULL);
    }
    for (int i = 0; i < 30; i++)
        merge_junk(&f);
    assert_true(merged_tombstones(&f) < kept + 54 - 54 / 2); /* most are gone */
    put_one(&f, key_of(33), NULL);
    for (int i = 0; i < 30; i++)
        merge_junk(&f);
    assert_int_equal(merged_tombstones(&f), 0);
    for (unsigned key = 0; key < 60; key++)
        assert_value(f.s, key_of(key), NULL);
    store_check(f.s);
    fixture_release(&f);
}

/* ---- What must stay of the log (G8) ------------------------------------------------ */

static void test_a_member_behind_keeps_its_log(void **state)
{
    struct fixture f;
    fixture_init(&f, SEGMENT);
    f.options.retain_bytes = 3 * SEGMENT;
    fixture_reopen(&f);
    put_key(&f, 0, 0, 1000);
    store_set_retention(f.s, 1);
    for (unsigned version = 0; stats_of(&f).log_bytes < 5 * SEGMENT; version++) {
        put_key(&f, 1, version, 1000);
        run_tasks(&f);
        if (base_of(&f) > 0)
            break;
    }
    uint64_t bytes = stats_of(&f).log_bytes;
    assert_true(bytes >= 3 * SEGMENT && bytes < 5 * SEGMENT); /* more is not kept */
    store_set_retention(f.s, store_last_index(f.s));
    run_tasks(&f);
    assert_int_equal(stats_of(&f).segments, 1);
    store_check(f.s);
    fixture_release(&f);
}

static void test_a_pin_keeps_more(void **state)
{
    struct fixture f;
    struct store_pin *pin, *later;
    fixture_init(&f, SEGMENT);
    f.options.retain_bytes = SEGMENT;
    fixture_reopen(&f);
    put_key(&f, 0, 0, 1000);
    put_key(&f, 0, 1, 1000);
    assert_int_equal(store_pin_log(f.s, 2, &pin), 0);
    assert_int_equal(store_pin_log(f.s, 3, &later), 0);
    assert_int_equal(store_pin_log(f.s, 4, &later), -ENOENT);
    for (unsigned version = 2; version < 200; version++) {
        put_key(&f, 0, version, 1000);
        run_tasks(&f);
    }
    assert_int_equal(base_of(&f), 0);
    store_unpin_log(f.s, pin);
    run_tasks(&f);
    assert_int_equal(base_of(&f), 0);
    store_unpin_log(f.s, later);
    run_tasks(&f);
    assert_true(base_of(&f) > 100);
    assert_int_equal(store_pin_log(f.s, base_of(&f), &pin), -ENOENT);
    assert_int_equal(store_pin_log(f.s, base_of(&f) + 1, &pin), 0); /* closed with it */
    fixture_release(&f);
}

/* ---- Beside readers and writers ---------------------------------------------------- */

enum { SHARED_KEYS = 64, SHARED_READERS = 2, SHARED_PUTS = 12000 };

struct shared {
    struct fixture f;
    _Atomic unsigned version[SHARED_KEYS]; /* applied, at least */
    _Atomic bool stop;
    _Atomic uint64_t reads;
    /* The merge thread: */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct store_task *task;
    bool ran, quit;
};

static void *merge_thread(void *arg)
{
    struct shared *shared = arg;
    pthread_mutex_lock(&shared->lock);
    for (;;) {
        while (!shared->quit && (!shared->task || shared->ran))
            pthread_cond_wait(&shared->changed, &shared->lock);
        if (shared->quit)
            break;
        struct store_task *task = shared->task;
        pthread_mutex_unlock(&shared->lock);
        uint64_t wait_us;
        char error[STORE_ERROR_BYTES];
        int rc;
        while ((rc = store_run_task(task, &wait_us, error)) == 1)
            ;
        ensure(rc == 0);
        pthread_mutex_lock(&shared->lock);
        shared->ran = true;
        pthread_cond_signal(&shared->changed);
    }
    pthread_mutex_unlock(&shared->lock);
    return NULL;
}

/* The loop's side; false: no task is with the merge thread. */
static bool drive_task(struct shared *shared)
{
    struct store *s = shared->f.s;
    pthread_mutex_lock(&shared->lock);
    if (!shared->task)
        shared->task = store_next_task(s, shared->f.now_us += 1000000);
    else if (shared->ran && !store_step_task(s, shared->task))
        shared->task = NULL;
    else if (!shared->ran)
        goto out;
    shared->ran = false;
    pthread_cond_signal(&shared->changed);
out:;
    bool busy = shared->task != NULL;
    pthread_mutex_unlock(&shared->lock);
    return busy;
}

static int count_item(void *arg, const struct store_item *item)
{
    *(unsigned *)arg += 1;
    return 0;
}

static void *read_thread(void *arg)
{
    struct shared *shared = arg;
    uint64_t seed = random_u64() | 1;
    struct buf got = {0};
    while (!atomic_load(&shared->stop)) {
        unsigned key = (unsigned)(random_next(&seed) % SHARED_KEYS), version, of;
        unsigned least = atomic_load(&shared->version[key]);
        char name[16];
        snprintf(name, sizeof(name), "key%05u", key);
        buf_clear(&got);
        ensure(store_get(shared->f.s, name, strlen(name), 0, &got, NULL) == 0);
        buf_u8(&got, 0);
        ensure(sscanf((char *)got.data, "%u.%u.", &of, &version) == 2);
        ensure(of == key && version >= least);
        if (atomic_fetch_add(&shared->reads, 1) % 64 == 0) {
            unsigned count = 0;
            store_scan(shared->f.s, "", 0, NULL, 0, count_item, &count);
            ensure(count == SHARED_KEYS);
        }
    }
    buf_release(&got);
    return NULL;
}

static void test_beside_readers_and_a_writer(void **state)
{
    struct shared shared = {.lock = PTHREAD_MUTEX_INITIALIZER,
                            .changed = PTHREAD_COND_INITIALIZER};
    struct fixture *f = &shared.f;
    pthread_t readers[SHARED_READERS], merger;
    uint64_t seed = 11;
    open_new(f, SEGMENT);
    f->unchecked = true; /* the merge thread moves what would be looked at */
    for (unsigned key = 0; key < SHARED_KEYS; key++)
        put_key(f, key, 0, 200);
    for (int i = 0; i < SHARED_READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_thread, &shared), 0);
    assert_int_equal(pthread_create(&merger, NULL, merge_thread, &shared), 0);
    for (unsigned i = 1; i <= SHARED_PUTS; i++) {
        unsigned key = (unsigned)(random_next(&seed) % SHARED_KEYS);
        put_key(f, key, i, 200);
        atomic_store(&shared.version[key], i);
        while (drive_task(&shared) && stats_of(f).log_bytes > 20 * SEGMENT)
            sched_yield();
    }
    while (drive_task(&shared))
        ;
    atomic_store(&shared.stop, true);
    pthread_mutex_lock(&shared.lock);
    shared.quit = true;
    pthread_cond_signal(&shared.changed);
    pthread_mutex_unlock(&shared.lock);
    pthread_join(merger, NULL);
    for (int i = 0; i < SHARED_READERS; i++)
        pthread_join(readers[i], NULL);
    assert_true(stats_of(f).merges > 5 && atomic_load(&shared.reads) > 1000);
    assert_int_equal(stats_of(f).bad_reads, 0);
    store_check(f->s);
    fixture_release(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sealed_segment_gets_a_hint),
        cmocka_unit_test(test_no_hint_before_all_is_applied),
        cmocka_unit_test(test_what_is_overwritten_goes),
        cmocka_unit_test(test_what_is_deleted_leaves_nothing),
        cmocka_unit_test(test_against_a_model),
        cmocka_unit_test(test_space_is_bounded_and_bytes_written_too),
        cmocka_unit_test(test_live_segments_do_not_shield_dead_ones),
        cmocka_unit_test(test_a_tombstone_stays_while_it_hides_something),
        cmocka_unit_test(test_a_tombstone_goes_when_its_key_is_back),
        cmocka_unit_test(test_a_tombstone_goes_with_what_it_hides),
        cmocka_unit_test(test_a_member_behind_keeps_its_log),
        cmocka_unit_test(test_a_pin_keeps_more),
        cmocka_unit_test(test_beside_readers_and_a_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
