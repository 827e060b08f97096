/*
 * test_lies.c - each write of a store's life lands elsewhere, and bits rot all over its
 * files: nothing wrong is ever read; see crash.h.
 */
#include "crash.h"

static void scenario_log(struct scenario_run *r)
{
    do_hard_state(r, 1, 7);
    do_append(r, 1, 4, 700);
    do_run(r);
    do_apply(r, 3);
    do_append(r, 1, 8, 900);
    do_run(r);
    do_apply(r, 9);
    do_hint(r, 9);
    do_run(r);
}

static void scenario_merges(struct scenario_run *r)
{
    for (unsigned round = 0; round < 3; round++) {
        do_append(r, 1, 9, 500 + 100 * round);
        do_run(r);
        do_apply(r, 9 * round + 8);
        do_tasks(r, NULL);
    }
    do_hint(r, 26);
    do_run(r);
}

static void test_misdirected_log(void **state)
{
    lie_everywhere(scenario_log);
}

static void test_misdirected_merges(void **state)
{
    lie_everywhere(scenario_merges);
}

static void test_rotten_log(void **state)
{
    rot_everywhere(scenario_log);
}

static void test_rotten_merges(void **state)
{
    rot_everywhere(scenario_merges);
}

/* An argument is a pattern of tests' names. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_misdirected_log),
        cmocka_unit_test(test_misdirected_merges),
        cmocka_unit_test(test_rotten_log),
        cmocka_unit_test(test_rotten_merges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
