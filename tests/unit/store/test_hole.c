/*
 * test_hole.c - a log that ends before entries which were here (G6): filled again by what
 * the leader sends, replaced by what it sends instead, and the power gone at every call.
 */
#include "fixture.h"
#include "store_internal.h"

enum { MOST = 64 };

static char long_value[1200];

/* A log of four segments, three entries each, and its entries. */
struct log {
    struct fixture f;
    struct store_bytes *entries[MOST + 1];
    uint64_t last;
};

static void log_init(struct log *l, uint64_t term)
{
    struct store_stats stats = {0};
    memset(long_value, 'x', sizeof(long_value));
    *l = (struct log){0};
    fixture_init(&l->f, SMALL_SEGMENT);
    fixture_reopen(&l->f);
    while (stats.segments < 5 || l->last % 3 != 1) {
        char key[8];
        snprintf(key, sizeof(key), "k%u", (unsigned)(++l->last % 5));
        struct put put = {key, long_value, sizeof(long_value)};
        l->entries[l->last] = make_entry(l->f.s, 1, 0, &put, 1);
        assert_int_equal(store_append(l->f.s, l->entries[l->last], false), 0);
        run(&l->f);
        store_stats(l->f.s, &stats);
    }
    assert_int_equal(l->last, 13);
    store_set_hard_state(l->f.s, term, 0);
    run(&l->f);
    fixture_close(&l->f);
}

static void log_release(struct log *l)
{
    for (uint64_t i = 1; i <= l->last; i++)
        store_bytes_unref(l->entries[i]);
    fixture_release(&l->f);
}

static void zero_entry(struct memory_disk *disk, uint64_t index)
{
    static const uint8_t zeros[1300];
    const char *file = segment_file((index + 2) / 3);
    memory_disk_poke(disk, file, entry_offset(disk, file, index), zeros, sizeof(zeros));
}

static void expect_open(struct log *l, uint64_t last, uint64_t claim)
{
    if (l->f.s)
        fixture_close(&l->f);
    if (fixture_open(&l->f) != 0)
        fail_msg("%s", l->f.error);
    assert_int_equal(l->f.recovery.last_index, last);
    assert_int_equal(l->f.recovery.claim_index, claim);
    store_check(l->f.s);
}

static void send(struct log *l, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) {
        assert_int_equal(store_has_room(l->f.s, l->entries[i]->length), 0);
        assert_int_equal(store_append(l->f.s, l->entries[i], false), 0);
    }
}

static void expect_counts(struct log *l, uint64_t damaged, uint64_t repaired)
{
    struct store_stats stats;
    store_stats(l->f.s, &stats);
    assert_int_equal(stats.damaged, damaged);
    assert_int_equal(stats.repaired, repaired);
}

static unsigned segment_files(struct fixture *f)
{
    unsigned count = 0;
    for (uint64_t id = 1; id <= 20; id++)
        count += memory_disk_exists(f->disk, segment_file(id));
    return count;
}

/* All in one job, or each in its own: no segment is made, none is lost. */
static void test_filled(void **state)
{
    for (int together = 0; together < 2; together++) {
        struct log l;
        log_init(&l, 1);
        for (uint64_t i = 8; i >= 4; i--) /* an entry is found by those before it */
            zero_entry(l.f.disk, i);
        expect_open(&l, 3, 13);
        for (uint64_t i = 4; i <= 13; i++) {
            send(&l, i, i);
            if (!together)
                assert_int_equal(run(&l.f).durable_index, i);
            store_check(l.f.s);
        }
        run(&l.f);
        assert_int_equal(segment_files(&l.f), 5);
        apply_to(&l.f, 13);
        append_one(&l.f, 2, "new", "value");
        run(&l.f);
        expect_open(&l, 14, 0);
        log_release(&l);
    }
}

/* Holes in two segments, the first filled, then a restart: the second is still there. */
static void test_two_holes(void **state)
{
    struct log l;
    log_init(&l, 1);
    zero_entry(l.f.disk, 5);
    zero_entry(l.f.disk, 11);
    expect_open(&l, 4, 13);
    send(&l, 5, 5);
    run(&l.f);
    expect_counts(&l, 1, 0);
    expect_open(&l, 10, 13);
    expect_counts(&l, 1, 0);
    send(&l, 11, 13);
    run(&l.f);
    expect_counts(&l, 1, 1);
    expect_open(&l, 13, 0);
    expect_counts(&l, 0, 0);
    log_release(&l);
}

/* A file that is gone is made anew, at its place in the log whatever its name. */
static void test_missing_segment(void **state)
{
    struct log l;
    log_init(&l, 1);
    memory_disk_remove(l.f.disk, segment_file(3));
    expect_open(&l, 6, 13);
    send(&l, 7, 8);
    run(&l.f);
    expect_open(&l, 8, 13);
    send(&l, 9, 13);
    run(&l.f);
    assert_int_equal(segment_files(&l.f), 5);
    assert_false(memory_disk_exists(l.f.disk, segment_file(3)));
    apply_to(&l.f, 13);
    expect_open(&l, 13, 0);
    log_release(&l);
}

/* Then file ids do not grow along the log. A merge of what is before takes nothing with
 * it that is behind. */
static void test_merged_before_it(void **state)
{
    struct log l;
    struct store_pin *pin;
    uint64_t term;
    log_init(&l, 1);
    memory_disk_remove(l.f.disk, segment_file(3));
    expect_open(&l, 6, 13);
    send(&l, 7, 13);
    run(&l.f);
    apply_to(&l.f, 13);
    assert_int_equal(store_pin_log(l.f.s, 7, &pin), 0);
    assert_true(run_tasks(&l.f) > 0);
    assert_int_equal(store_base(l.f.s, &term), 6);
    assert_false(memory_disk_exists(l.f.disk, segment_file(2)));
    assert_true(memory_disk_exists(l.f.disk, segment_file(4)));
    expect_open(&l, 13, 0);
    assert_int_equal(l.f.recovery.base_index, 6);
    run_tasks(&l.f); /* and of what was filled again, whose file id is the highest */
    assert_true(store_base(l.f.s, &term) > 8);
    log_release(&l);
}

/* The last file is gone: nobody knows what it held, but that the one before was sealed
 * and applied. That is the active one again: its hint is not for long. */
static void test_last_segment_missing(void **state)
{
    struct log l;
    struct store_pin *pin;
    log_init(&l, 1);
    expect_open(&l, 13, 0);
    apply_to(&l.f, 13);
    assert_int_equal(store_pin_log(l.f.s, 1, &pin), 0);
    assert_true(run_tasks(&l.f) >= 4);
    fixture_close(&l.f);
    assert_true(memory_disk_exists(l.f.disk, "d/log/0000000000000004.hint"));
    memory_disk_remove(l.f.disk, segment_file(5));
    expect_open(&l, 12, 0);
    assert_int_equal(l.f.recovery.commit, 12);
    assert_int_equal(l.f.recovery.hints_used, 3);
    assert_false(memory_disk_exists(l.f.disk, "d/log/0000000000000004.hint"));
    fixture_close(&l.f);
    zero_entry(l.f.disk, 5);
    fixture_reopen(&l.f); /* hints tell what is there */
    assert_int_equal(l.f.recovery.last_index, 12);
    log_release(&l);
}

/* A leader of a higher term has other entries: what was behind was never committed. */
static void test_replaced(void **state)
{
    struct log l;
    log_init(&l, 1);
    zero_entry(l.f.disk, 5);
    expect_open(&l, 4, 13);
    append_one(&l.f, 2, "k", "another");
    run(&l.f);
    store_check(l.f.s);
    assert_int_equal(segment_files(&l.f), 2);
    expect_open(&l, 5, 0);
    assert_int_equal(l.f.recovery.cut_bytes, 0);
    log_release(&l);
}

/* Elections raised the hard state's term after the last entry: the claim is of that
 * entry's own, so that the node votes for logs that have it. */
static void test_claims_the_term_of_the_hint(void **state)
{
    for (uint64_t term = 0; term < 2; term++) {
        struct log l;
        uint8_t slot[SLOT_BYTES];
        struct commit_hint hint = {.commit = 13, .term = term, .format = 1};
        log_init(&l, 7);
        fixture_reopen(&l.f);
        assert_int_equal(store_set_commit_hint(l.f.s, 13), 0);
        run(&l.f);
        fixture_close(&l.f);
        if (term == 0) { /* by an earlier tierce */
            memcpy(hint.cluster_id, l.f.options.cluster_id, sizeof(hint.cluster_id));
            commit_hint_encode(slot, &hint);
            for (uint64_t i = 0; i < 2; i++)
                memory_disk_poke(l.f.disk, "d/commit.hint", i * SLOT_STRIDE, slot,
                                 sizeof(slot));
        }
        for (uint64_t i = 13; i >= 5; i--)
            if (i % 3 != 0)
                zero_entry(l.f.disk, i);
        expect_open(&l, 4, 13);
        assert_int_equal(l.f.recovery.claim_term, term ? 1 : 7);
        log_release(&l);
    }
}

/* The same where the claim's term is too high to tell, and the entries do not fit on. */
static void test_replaced_late(void **state)
{
    struct log l;
    log_init(&l, 7);
    for (uint64_t i = 13; i >= 5; i--)
        if (i != 7 && i != 10)
            zero_entry(l.f.disk, i);
    memory_disk_poke(l.f.disk, segment_file(5), 64 + 30, "?", 1);
    expect_open(&l, 4, 12);
    assert_int_equal(l.f.recovery.claim_term, 7);
    append_one(&l.f, 2, "k", "another");
    append_one(&l.f, 2, "k", "one more");
    run(&l.f);
    assert_int_equal(segment_files(&l.f), 5);
    append_one(&l.f, 2, "k", "where a segment begins, of others");
    run(&l.f);
    assert_int_equal(segment_files(&l.f), 2);
    store_check(l.f.s);
    expect_open(&l, 7, 0);
    log_release(&l);
}

static void test_truncated(void **state)
{
    struct log l;
    log_init(&l, 1);
    zero_entry(l.f.disk, 5);
    expect_open(&l, 4, 13);
    assert_int_equal(store_truncate(l.f.s, 2, 9), 0);
    struct store_done done = run(&l.f);
    assert_int_equal(done.durable_index, 2);
    assert_int_equal(done.generation, 9);
    assert_int_equal(segment_files(&l.f), 1);
    append_one(&l.f, 3, "k", "another");
    run(&l.f);
    expect_open(&l, 3, 0);
    log_release(&l);
}

/* With as little as there is: what is filled again needs no more than it had. */
static void test_on_a_full_disk(void **state)
{
    struct log l;
    log_init(&l, 1);
    zero_entry(l.f.disk, 5);
    memory_disk_set_capacity(l.f.disk, 0);
    expect_open(&l, 4, 13);
    send(&l, 5, 13);
    run(&l.f);
    expect_open(&l, 13, 0);
    log_release(&l);
}

/* The hole has room for the next entry, but that is another: what the hole held makes room
 * for it. */
static void test_closed_on_a_full_disk(void **state)
{
    struct log l;
    log_init(&l, 1);
    zero_entry(l.f.disk, 5);
    memory_disk_set_capacity(l.f.disk, 0);
    expect_open(&l, 4, 13);
    send(&l, 5, 6);
    run(&l.f);
    memory_disk_set_capacity(l.f.disk, memory_disk_used(l.f.disk));
    assert_null(l.f.s->spare);
    assert_int_equal(store_has_room(l.f.s, sizeof(long_value) + 200), 0);
    char value[sizeof(long_value)] = {0};
    memset(value, 'y', sizeof(value) - 1);
    append_one(&l.f, 2, "k", value);
    assert_int_equal(run(&l.f).durable_index, 7);
    expect_open(&l, 7, 0);
    log_release(&l);
}

/* ---- The power goes ---------------------------------------------------------------- */

/* Whatever is left: no entry that was acknowledged is gone for good, and filling goes on.
 */
static void expect_fillable(struct log *l, struct memory_disk *after,
                            uint64_t acknowledged)
{
    struct fixture f;
    fixture_init_on(&f, after, SMALL_SEGMENT);
    if (fixture_open(&f) != 0)
        fail_msg("%s", f.error);
    store_check(f.s);
    uint64_t last = f.recovery.last_index;
    assert_true(last >= acknowledged);
    assert_int_equal(f.recovery.claim_index, last == 13 ? 0 : 13);
    for (uint64_t i = last + 1; i <= 13; i++)
        assert_int_equal(store_append(f.s, l->entries[i], false), 0);
    run(&f);
    apply_to(&f, 13);
    fixture_reopen(&f);
    assert_int_equal(f.recovery.last_index, 13);
    assert_int_equal(f.recovery.claim_index, 0);
    fixture_release(&f);
}

/* False: the power went. */
static bool try_filling(struct log *l, uint64_t *ret_acknowledged)
{
    *ret_acknowledged = 4;
    if (fixture_open(&l->f) != 0)
        return false;
    for (uint64_t i = 5; i <= 13; i++) {
        send(l, i, i);
        struct store_job *job = store_take_job(l->f.s);
        if (store_run_job(job, l->f.error) != 0)
            return false;
        *ret_acknowledged = store_finish_job(l->f.s, job).durable_index;
    }
    return true;
}

static void test_power_cuts(void **state)
{
    unsigned cuts = 0;
    uint64_t random = 3;
    bool done = false;
    for (uint64_t call = 1; !done; call++, cuts += !done) {
        struct log l;
        uint64_t acknowledged;
        log_init(&l, 1);
        zero_entry(l.f.disk, 5);
        zero_entry(l.f.disk, 9);
        memory_disk_cut_power(l.f.disk, memory_disk_calls(l.f.disk) + call);
        done = try_filling(&l, &acknowledged);
        if (l.f.s)
            store_close(l.f.s);
        l.f.s = NULL;
        size_t loose = memory_disk_loose(l.f.disk);
        for (int round = 0; round < 32; round++) {
            bool keep[256];
            assert_true(loose <= array_length(keep));
            for (size_t i = 0; i < loose; i++)
                keep[i] = round == 0 || (round > 1 && (random_next(&random) & 1));
            expect_fillable(&l, memory_disk_crash(l.f.disk, keep, SIZE_MAX),
                            acknowledged);
        }
        log_release(&l);
    }
    assert_true(cuts > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filled),
        cmocka_unit_test(test_two_holes),
        cmocka_unit_test(test_missing_segment),
        cmocka_unit_test(test_merged_before_it),
        cmocka_unit_test(test_last_segment_missing),
        cmocka_unit_test(test_claims_the_term_of_the_hint),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_replaced_late),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_on_a_full_disk),
        cmocka_unit_test(test_closed_on_a_full_disk),
        cmocka_unit_test(test_power_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
