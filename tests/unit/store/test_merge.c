/* test_merge.c - merging: what stays, what goes and when, against a model; space and
 * bytes written; what it lacks, what it meets, what it waits for. */
#include "fixture.h"

#include <stdlib.h>

enum {
    SEGMENT = 16 << 10,
    STATE_FILES = 2 * 8192, /* raft.state and commit.hint */
};

static void open_new(struct fixture *f, uint64_t segment_bytes)
{
    fixture_init(f, segment_bytes);
    fixture_reopen(f);
}

/* A value that says whose it is, of at least 17 bytes: not in the keydir. */
static const char *value_of(unsigned key, unsigned version, size_t size)
{
    static char value[4096];
    ensure(size >= 20 && size < sizeof(value));
    int n = snprintf(value, sizeof(value), "%08u.%010u.", key, version);
    memset(value + n, 'a' + (int)(version % 26), size - (size_t)n);
    value[size] = 0;
    return value;
}

static const char *key_of(unsigned key)
{
    static char text[16];
    snprintf(text, sizeof(text), "key%05u", key);
    return text;
}

static void put_key(struct fixture *f, unsigned key, unsigned version, size_t size)
{
    put_one(f, key_of(key), value_of(key, version, size));
}

static struct store_stats stats_of(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->s, &stats);
    return stats;
}

static uint64_t base_of(struct fixture *f)
{
    uint64_t term;
    return store_base(f->s, &term);
}

/* Puts until the active segment has been left `rolls` times. */
static unsigned fill_with(struct fixture *f, unsigned key, unsigned rolls, size_t size)
{
    uint64_t segments = stats_of(f).segments + rolls;
    for (; stats_of(f).segments < segments; key++)
        put_key(f, key, 0, size);
    return key;
}

static unsigned fill(struct fixture *f, unsigned key, unsigned rolls)
{
    return fill_with(f, key, rolls, 200);
}

static const char *file_of(uint64_t id, const char *suffix)
{
    static char path[64];
    snprintf(path, sizeof(path), "d/log/%016llx.%s", (unsigned long long)id, suffix);
    return path;
}

/* ---- One after the other ----------------------------------------------------------- */

static void test_a_sealed_segment_gets_a_hint(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    put_key(&f, 0, 0, 100);
    assert_false(run_task(&f)); /* it is the active one */
    fill_with(&f, 1, 1, 2000);
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
    unsigned last = fill(&f, 0, 1);
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
    unsigned last = fill(&f, 0, 3);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sealed_segment_gets_a_hint),
        cmocka_unit_test(test_no_hint_before_all_is_applied),
        cmocka_unit_test(test_what_is_overwritten_goes),
        cmocka_unit_test(test_what_is_deleted_leaves_nothing),
        cmocka_unit_test(test_against_a_model),
        cmocka_unit_test(test_space_is_bounded_and_bytes_written_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
