/*
 * test_crash.c - the power goes at every call of what a store does to its log and small
 * files; see crash.h.
 */
#include "crash.h"

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
    do_truncate(r, 9, 5); /* alone: it is durable before anything follows */
    do_run(r);
    do_append(r, 5, 1, 300);
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
    scenario_begin(&r);
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
            check_recovered(&r.truth, &third);
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
    scenario_begin(&r);
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
    check_recovered(&r.truth, &killed);
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

static void test_failing_calls(void **state)
{
    crash_recovery_everywhere(scenario_truncate);
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

/* An argument is a pattern of tests' names. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
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
