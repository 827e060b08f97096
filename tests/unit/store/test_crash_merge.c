/*
 * test_crash_merge.c - the power goes at every call of background work: hints of sealed
 * segments, rounds of merging, the removal of what they replace (G7); see crash.h.
 */
#include "crash.h"

/* Three segments, sealed, applied, hinted, and merged as far as that is worth it. */
static void scenario_first_round(struct scenario_run *r)
{
    do_append(r, 1, 14, 600);
    do_run(r);
    do_apply(r, 14);
    do_tasks(r, NULL);
    do_look(r);
}

/* What is merged is merged again, with tombstones for what is in it. */
static void scenario_rounds(struct scenario_run *r)
{
    for (unsigned round = 0; round < 3; round++) {
        do_append(r, 1, 9, 500 + 100 * round);
        do_run(r);
        do_apply(r, 9 * round + 8);
        do_tasks(r, NULL);
    }
    do_look(r);
}

static void put_beside(struct scenario_run *r)
{
    if (r->cut || store_last_index(r->f.s) >= 40)
        return;
    do_append(r, 2, 1, 300);
    do_run(r);
    do_apply(r, store_last_index(r->f.s) - 1);
}

/* E is beyond M: what was superseded between them is not in the output. */
static void scenario_beside_a_writer(struct scenario_run *r)
{
    do_append(r, 1, 12, 700);
    do_run(r);
    do_apply(r, 12);
    do_tasks(r, put_beside);
    do_append(r, 2, 6, 700);
    do_run(r);
    do_tasks(r, put_beside);
    do_look(r);
}

/* Entries that are not applied, and a truncation, beside rounds. */
static void scenario_truncate_beside(struct scenario_run *r)
{
    do_append(r, 1, 12, 700);
    do_run(r);
    do_apply(r, 10);
    do_tasks(r, NULL);
    do_truncate(r, 11, 2);
    do_append(r, 2, 8, 600);
    do_run(r);
    do_apply(r, 16);
    do_tasks(r, NULL);
    do_look(r);
}

static void test_first_round(void **state)
{
    crash_everywhere(scenario_first_round);
}

static void test_rounds(void **state)
{
    crash_everywhere(scenario_rounds);
}

static void test_beside_a_writer(void **state)
{
    crash_everywhere(scenario_beside_a_writer);
}

static void test_truncate_beside(void **state)
{
    crash_everywhere(scenario_truncate_beside);
}

static void test_starts(void **state)
{
    crash_recovery_everywhere(scenario_rounds);
}

static void test_failing_calls(void **state)
{
    fail_everywhere(scenario_rounds);
    fail_everywhere(scenario_beside_a_writer);
}

static void test_failing_reads(void **state)
{
    fail_reads_everywhere(scenario_rounds);
}

static void test_starving(void **state)
{
    starve_everywhere(scenario_rounds);
    starve_everywhere(scenario_beside_a_writer);
}

/* An argument is a pattern of tests' names. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_round),     cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_beside_a_writer), cmocka_unit_test(test_truncate_beside),
        cmocka_unit_test(test_failing_calls),   cmocka_unit_test(test_failing_reads),
        cmocka_unit_test(test_starving),        cmocka_unit_test(test_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
