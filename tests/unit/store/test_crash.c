/*
 * test_crash.c - the power goes at every call, and any part of what was not synced is
 * lost.
 *
 * A scenario is run again and again, each time cut at the next call. From each cut, disks
 * are made that kept different subsets of the loose changes (all of them where there are
 * at most eight, a sample of 256 above that, with a torn write among them). Each must
 * recover to a state the scenario explains: nothing that was acknowledged is missing,
 * nothing is there that was not written, nothing is applied that was not committed.
 */
#include "fixture.h"

enum { LOG_MAX = 512, SAMPLES = 256, EXHAUSTIVE = 8 };

/* What the world outside was told, and what is under way. */
struct truth {
    struct { /* every entry ever appended */
        uint64_t index;
        uint32_t crc;
    } written[LOG_MAX];
    size_t written_count;
    uint64_t durable; /* acknowledged */
    uint64_t lowest;  /* the lowest index a truncation under way goes to */
    uint64_t term, vote, next_term, next_vote;
    uint64_t hint, next_hint;
    uint64_t commit; /* the highest that is known */
};

struct scenario_run {
    struct fixture f;
    struct truth truth;
    bool cut;
};

static void note_append(struct scenario_run *r)
{
    uint64_t term, timestamp;
    struct truth *t = &r->truth;
    ensure(t->written_count < LOG_MAX);
    t->written[t->written_count].index = store_last_index(r->f.s);
    store_chain(r->f.s, &term, &t->written[t->written_count].crc, &timestamp);
    t->written_count++;
}

static void do_append(struct scenario_run *r, uint64_t term, unsigned count, size_t size)
{
    static char value[8192];
    memset(value, 'v', sizeof(value));
    for (unsigned i = 0; i < count && !r->cut; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key%llu",
                 (unsigned long long)store_last_index(r->f.s) % 7);
        append(&r->f, term, &(struct put){key, value, size + i}, 1);
        note_append(r);
    }
}

static void do_truncate(struct scenario_run *r, uint64_t index, uint64_t generation)
{
    if (r->cut)
        return;
    assert_int_equal(store_truncate(r->f.s, index, generation), 0);
    r->truth.lowest = min_u64(r->truth.lowest, index);
}

static void do_hard_state(struct scenario_run *r, uint64_t term, uint64_t vote)
{
    if (r->cut)
        return;
    assert_int_equal(store_set_hard_state(r->f.s, term, vote), 0);
    r->truth.next_term = term;
    r->truth.next_vote = vote;
}

static void do_hint(struct scenario_run *r, uint64_t commit)
{
    if (r->cut)
        return;
    assert_int_equal(store_set_commit_hint(r->f.s, commit), 0);
    r->truth.next_hint = commit;
    r->truth.commit = max_u64(r->truth.commit, commit);
}

/* Runs the job; false where the power went. */
static bool do_run(struct scenario_run *r)
{
    struct truth *t = &r->truth;
    struct store_job *job = r->cut ? NULL : store_take_job(r->f.s);
    if (!job)
        return false;
    if (store_run_job(job, r->f.error) != 0) {
        r->cut = true;
        return false;
    }
    struct store_done done = store_finish_job(r->f.s, job);
    t->lowest = UINT64_MAX;
    t->durable = done.durable_index ? done.durable_index : t->durable;
    t->term = t->next_term;
    t->vote = t->next_vote;
    t->hint = t->next_hint;
    return true;
}

static void do_apply(struct scenario_run *r, uint64_t index)
{
    if (r->cut)
        return;
    apply_to(&r->f, index);
    r->truth.commit = max_u64(r->truth.commit, index);
}

/* ---- Scenarios --------------------------------------------------------------------- */

static void scenario_append(struct scenario_run *r)
{
    do_append(r, 1, 2, 100);
    do_run(r);
    do_append(r, 1, 4, 700); /* several sectors each */
    do_run(r);
    do_apply(r, 3);
    do_append(r, 1, 1, 30);
    do_run(r);
}

static void scenario_roll(struct scenario_run *r)
{
    do_append(r, 1, 3, 900);
    do_run(r);
    do_append(r, 1, 2, 1200); /* rolls within the job */
    do_run(r);
    do_apply(r, 5);
    do_append(r, 1, 6, 1000); /* and twice in this one */
    do_run(r);
    do_append(r, 1, 1, 20);
    do_run(r);
}

static void scenario_truncate(struct scenario_run *r)
{
    do_append(r, 1, 4, 600);
    do_run(r);
    do_apply(r, 2);
    do_append(r, 1, 9, 900); /* three segments */
    do_run(r);
    do_truncate(r, 3, 2);
    do_append(r, 2, 1, 600);
    do_run(r);
    do_append(r, 2, 3, 600);
    do_run(r);
    do_truncate(r, 6, 3); /* and back within one job */
    do_append(r, 3, 2, 550);
    do_truncate(r, 7, 4);
    do_append(r, 4, 4, 500);
    do_run(r);
}

static void scenario_state(struct scenario_run *r)
{
    do_hard_state(r, 1, 7);
    do_run(r);
    do_append(r, 1, 3, 50);
    do_hard_state(r, 2, 0);
    do_run(r);
    do_hard_state(r, 2, 9);
    do_append(r, 2, 1, 50);
    do_run(r);
}

static void scenario_hint(struct scenario_run *r)
{
    do_append(r, 1, 3, 50);
    do_hint(r, 2);
    do_run(r);
    do_append(r, 1, 3, 50);
    do_run(r);
    do_apply(r, 5);
    do_hint(r, 5);
    do_run(r);
    do_append(r, 1, 2, 50);
    do_hint(r, 6);
    do_hint(r, 8);
    do_run(r);
}

/* ---- The loop over cuts and subsets ------------------------------------------------ */

static void check_recovered(struct scenario_run *r, struct fixture *after)
{
    const struct truth *t = &r->truth;
    if (fixture_open(after) != 0)
        fail_msg("%s", after->error);
    const struct store_recovery *found = &after->recovery;
    assert_true(found->last_index >= min_u64(t->durable, t->lowest));
    assert_true(found->commit <= t->commit && found->commit >= t->hint);
    bool is_old = found->term == t->term && found->vote == t->vote;
    bool is_new = found->term == t->next_term && found->vote == t->next_vote;
    assert_true(is_old || is_new);
    uint64_t term, timestamp;
    uint32_t crc;
    store_chain(after->s, &term, &crc, &timestamp);
    bool known = found->last_index == 0;
    for (size_t i = 0; i < t->written_count && !known; i++)
        known = t->written[i].index == found->last_index && t->written[i].crc == crc;
    assert_true(known); /* the chain vouches for all before it */
    store_check(after->s);
}

/* It goes on: appends, stops, and finds what it was told is durable. */
static void check_goes_on(struct fixture *after)
{
    uint64_t term = 100, index = after->recovery.last_index;
    append_one(after, term, "new", "a value written after the crash");
    run(after);
    fixture_reopen(after);
    assert_int_equal(after->recovery.last_index, index + 1);
    assert_int_equal(after->recovery.cut_bytes, 0);
    apply_to(after, index + 1);
    assert_value(after->s, "new", "a value written after the crash");
    store_check(after->s);
}

static void try_subset(struct scenario_run *r, const bool *keep, size_t torn, bool go_on)
{
    struct fixture after;
    fixture_init_on(&after, memory_disk_crash(r->f.disk, keep, torn), SMALL_SEGMENT);
    check_recovered(r, &after);
    if (go_on)
        check_goes_on(&after);
    fixture_release(&after);
}

static size_t try_subsets(struct scenario_run *r, uint64_t *random)
{
    bool keep[4096];
    size_t loose = memory_disk_loose(r->f.disk);
    ensure(loose <= array_length(keep));
    size_t count = loose <= EXHAUSTIVE ? (size_t)1 << loose : SAMPLES;
    for (size_t n = 0; n < count; n++) {
        /* Beyond the exhaustive: none, all, then by chance, dense and sparse. */
        uint64_t odds = random_next(random) % 8;
        for (size_t i = 0; i < loose; i++)
            keep[i] = loose <= EXHAUSTIVE ? n >> i & 1
                      : n < 2             ? n == 1
                                          : random_next(random) % 8 >= odds;
        try_subset(r, keep, SIZE_MAX, n % 16 == 0);
        if (loose > 0)
            try_subset(r, keep, random_next(random) % loose, false);
    }
    return count;
}

static void crash_everywhere(void (*scenario)(struct scenario_run *r))
{
    uint64_t random = 0x5eed, total = 0, cuts = 0;
    for (uint64_t at = 1;; at++) {
        static struct scenario_run r;
        r = (struct scenario_run){.truth.lowest = UINT64_MAX};
        fixture_init(&r.f, SMALL_SEGMENT);
        fixture_reopen(&r.f);
        memory_disk_cut_power(r.f.disk, memory_disk_calls(r.f.disk) + at);
        scenario(&r);
        total += try_subsets(&r, &random);
        cuts++;
        bool done = !r.cut;
        fixture_release(&r.f);
        if (done)
            break;
    }
    print_message("%llu cuts, %llu disks\n", (unsigned long long)cuts,
                  (unsigned long long)total);
    assert_true(cuts > 5 && total > 100);
}

static void test_append(void **state)
{
    crash_everywhere(scenario_append);
}

static void test_roll(void **state)
{
    crash_everywhere(scenario_roll);
}

static void test_truncate(void **state)
{
    crash_everywhere(scenario_truncate);
}

static void test_hard_state(void **state)
{
    crash_everywhere(scenario_state);
}

static void test_commit_hint(void **state)
{
    crash_everywhere(scenario_hint);
}

/* A crash in the middle of making a store leaves none or a whole one. */
static void test_create(void **state)
{
    uint64_t random = 0x5eed;
    for (uint64_t at = 1;; at++) {
        struct memory_disk *disk = memory_disk_new();
        struct fixture f;
        fixture_init_on(&f, disk, SMALL_SEGMENT);
        f.options.io = &f.io;
        memory_disk_cut_power(disk, at);
        int made = store_create(&f.options, f.error);
        size_t loose = memory_disk_loose(disk);
        for (int n = 0; n < 64; n++) {
            bool keep[64];
            ensure(loose < array_length(keep));
            for (size_t i = 0; i < loose; i++)
                keep[i] = n == 1 || (n > 1 && random_next(&random) % 2);
            keep[0] = true; /* the directory's own name is its maker's to sync */
            struct fixture after;
            fixture_init_on(&after, memory_disk_crash(disk, keep, SIZE_MAX),
                            SMALL_SEGMENT);
            int rc = fixture_open(&after);
            assert_true(rc == 0 || (rc == -ENOENT && made != 0));
            if (rc == -ENOENT) {
                assert_int_equal(store_create(&after.options, after.error), 0);
                fixture_reopen(&after);
            }
            fixture_release(&after);
        }
        fixture_release(&f);
        if (made == 0)
            break;
        assert_true(at < 100);
    }
}

/* The power goes again while recovery settles what the first crash left. */
static void test_crash_in_recovery(void **state)
{
    uint64_t random = 0x5eed;
    static struct scenario_run r;
    r = (struct scenario_run){.truth.lowest = UINT64_MAX};
    fixture_init(&r.f, SMALL_SEGMENT);
    fixture_reopen(&r.f);
    do_append(&r, 1, 5, 900);
    do_hard_state(&r, 3, 4);
    do_run(&r);
    do_apply(&r, 5);
    memory_disk_cut_power(r.f.disk, memory_disk_calls(r.f.disk) + 2);
    do_append(&r, 3, 2, 900);
    assert_false(do_run(&r));
    size_t loose = memory_disk_loose(r.f.disk);
    bool keep[256];
    ensure(loose > 0 && loose < array_length(keep));
    for (uint64_t at = 1;; at++) {
        for (size_t i = 0; i < loose; i++)
            keep[i] = random_next(&random) % 3 > 0;
        struct fixture second;
        fixture_init_on(&second, memory_disk_crash(r.f.disk, keep, SIZE_MAX),
                        SMALL_SEGMENT);
        memory_disk_cut_power(second.disk, at);
        int rc = fixture_open(&second);
        size_t again = memory_disk_loose(second.disk);
        for (int n = 0; n < 32; n++) {
            bool kept[512];
            ensure(again < array_length(kept));
            for (size_t i = 0; i < again; i++)
                kept[i] = random_next(&random) % 2;
            struct fixture third;
            fixture_init_on(&third, memory_disk_crash(second.disk, kept, SIZE_MAX),
                            SMALL_SEGMENT);
            check_recovered(&r, &third);
            fixture_release(&third);
        }
        fixture_release(&second);
        if (rc == 0)
            break;
    }
    fixture_release(&r.f);
}

/* ---- Recovered is durable (G4) ----------------------------------------------------- */

/* What a restart reads may never have been synced: by the process that was killed before,
 * or by a sync that failed and left it clean in the cache. What recovery reports is on
 * disk. */
static void recovered_is_durable(uint64_t call, bool forgetful)
{
    static struct scenario_run r;
    r = (struct scenario_run){.truth.lowest = UINT64_MAX};
    fixture_init(&r.f, SMALL_SEGMENT);
    fixture_reopen(&r.f);
    do_append(&r, 1, 2, 900);
    do_hard_state(&r, 1, 5);
    do_run(&r);
    do_hard_state(&r, 2, 6);
    do_append(&r, 1, 1, 900);
    memory_disk_set_forgetful(r.f.disk, forgetful);
    memory_disk_fail_call(r.f.disk, memory_disk_calls(r.f.disk) + call, -EIO);
    assert_false(do_run(&r));
    struct fixture killed, lost;
    fixture_init_on(&killed, memory_disk_copy(r.f.disk), SMALL_SEGMENT);
    check_recovered(&r, &killed);
    bool keep[256] = {false};
    ensure(memory_disk_loose(killed.disk) < array_length(keep));
    fixture_init_on(&lost, memory_disk_crash(killed.disk, keep, SIZE_MAX), SMALL_SEGMENT);
    fixture_reopen(&lost);
    assert_int_equal(lost.recovery.last_index, killed.recovery.last_index);
    assert_int_equal(lost.recovery.term, killed.recovery.term);
    assert_int_equal(lost.recovery.vote, killed.recovery.vote);
    store_check(lost.s);
    fixture_release(&lost);
    fixture_release(&killed);
    fixture_release(&r.f);
}

static void test_recovered_is_durable(void **state)
{
    /* The calls of that job: write and sync slot 0, then slot 1, then the append. */
    for (uint64_t call = 1; call <= 6; call++) {
        recovered_is_durable(call, false);
        recovered_is_durable(call, true);
    }
}

/* ---- The Nth call fails ------------------------------------------------------------ */

static void fail_everywhere(void (*scenario)(struct scenario_run *r))
{
    bool failed = true;
    for (uint64_t at = 1; failed; at++) {
        static struct scenario_run r;
        r = (struct scenario_run){.truth.lowest = UINT64_MAX};
        fixture_init(&r.f, SMALL_SEGMENT);
        fixture_reopen(&r.f);
        r.f.error[0] = 0;
        memory_disk_fail_call(r.f.disk, memory_disk_calls(r.f.disk) + at, -EIO);
        scenario(&r);
        failed = r.cut;
        if (failed) /* it names the file */
            assert_non_null(strstr(r.f.error, "d/"));
        struct fixture after; /* as after the process stopped */
        fixture_init_on(&after, memory_disk_copy(r.f.disk), SMALL_SEGMENT);
        check_recovered(&r, &after);
        check_goes_on(&after);
        fixture_release(&after);
        fixture_release(&r.f);
    }
}

static void test_failing_calls(void **state)
{
    fail_everywhere(scenario_append);
    fail_everywhere(scenario_roll);
    fail_everywhere(scenario_truncate);
    fail_everywhere(scenario_state);
    fail_everywhere(scenario_hint);
}

/* Opening, with each call failing in turn: a clean error, and no harm done. */
static void test_failing_open(void **state)
{
    for (uint64_t at = 1;; at++) {
        struct fixture f;
        fixture_init(&f, SMALL_SEGMENT);
        fixture_reopen(&f);
        for (int i = 0; i < 30; i++)
            put_one(&f, "k", "a value of more than sixteen bytes");
        store_set_commit_hint(f.s, 30);
        run(&f);
        fixture_close(&f);
        memory_disk_fail_call(f.disk, memory_disk_calls(f.disk) + at, -EIO);
        int rc = fixture_open(&f);
        if (rc != 0) {
            assert_int_equal(rc, -EIO);
            assert_int_equal(memory_disk_open_count(f.disk), 0);
            memory_disk_fail_call(f.disk, 0, 0);
            fixture_reopen(&f);
        }
        assert_int_equal(f.recovery.commit, 30);
        store_check(f.s);
        fixture_release(&f);
        if (rc == 0)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_roll),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_hard_state),
        cmocka_unit_test(test_commit_hint),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_crash_in_recovery),
        cmocka_unit_test(test_recovered_is_durable),
        cmocka_unit_test(test_failing_calls),
        cmocka_unit_test(test_failing_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
