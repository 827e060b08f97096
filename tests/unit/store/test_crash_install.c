/*
 * test_crash_install.c - the power goes at every call of a follower that receives a
 * snapshot and installs it, and of what it does then; see crash.h.
 */
#include "crash.h"

static struct history leader;

/* Two rounds of merging, E beyond M, and a log behind it. */
static void put_beside(struct scenario_run *r)
{
    if (store_last_index(r->f.s) >= 24)
        return;
    do_append(r, 1, 1, 300);
    do_run(r);
    do_apply(r, store_last_index(r->f.s));
}

static void scenario_leader(struct scenario_run *r)
{
    for (unsigned round = 0; round < 2; round++) {
        do_append(r, 1, 8, 600);
        do_run(r);
        do_apply(r, store_last_index(r->f.s));
        do_tasks(r, put_beside);
    }
    do_append(r, 1, 3, 400);
    do_run(r);
    do_apply(r, store_last_index(r->f.s));
}

static void catch_up(struct scenario_run *r)
{
    if (r->cut)
        return;
    do_follow(r, &leader, store_last_index(leader.run.f.s));
    do_run(r);
    do_apply(r, store_last_index(r->f.s));
    do_look(r);
}

/* One that has nothing. */
static void scenario_new(struct scenario_run *r)
{
    do_follow(r, &leader, 0);
    do_install(r, &leader);
    catch_up(r);
}

/* One that is behind, with a log and merged files of its own. */
static void scenario_behind(struct scenario_run *r)
{
    do_follow(r, &leader, 9);
    do_run(r);
    do_apply(r, 7);
    do_hint(r, 7);
    do_apply(r, 9);
    do_run(r);
    do_tasks(r, NULL);
    do_follow(r, &leader, 10); /* not applied */
    do_run(r);
    do_install(r, &leader);
    catch_up(r);
    do_tasks(r, NULL);
}

static int setup(void **state)
{
    history_begin(&leader, scenario_leader);
    struct store_manifest manifest;
    assert_true(store_manifest(leader.run.f.s, &manifest));
    assert_true(manifest.merged_index > 10);
    assert_true(manifest.applied_index > manifest.merged_index);
    return 0;
}

static int teardown(void **state)
{
    history_release(&leader);
    return 0;
}

static void test_new(void **state)
{
    crash_everywhere(scenario_new);
}

static void test_behind(void **state)
{
    crash_everywhere(scenario_behind);
}

static void test_starts(void **state)
{
    crash_recovery_everywhere(scenario_behind);
}

static void test_failing_calls(void **state)
{
    fail_everywhere(scenario_new);
    fail_everywhere(scenario_behind);
}

static void test_failing_reads(void **state)
{
    fail_reads_everywhere(scenario_behind);
}

static void test_starving(void **state)
{
    starve_everywhere(scenario_behind);
}

/* An argument is a pattern of tests' names. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new),           cmocka_unit_test(test_behind),
        cmocka_unit_test(test_failing_calls), cmocka_unit_test(test_failing_reads),
        cmocka_unit_test(test_starving),      cmocka_unit_test(test_starts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
