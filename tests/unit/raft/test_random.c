/*
 * test_random.c - a thousand storms. RAFT_TEST_SEED=n runs that seed alone,
 * RAFT_TEST_SEEDS=n as many, of which each kind of fault is demanded from a thousand on.
 */
#include "storm.h"

enum { SEEDS = 1000 };

/* The faults are mixed: one alone, or one after the other, would not have found what
 * hurt the users of others. */
static void lesson_15_all_faults_at_once(void **state)
{
    const char *only = getenv("RAFT_TEST_SEED");
    uint64_t first = only ? strtoull(only, NULL, 10) : 1;
    const char *many = getenv("RAFT_TEST_SEEDS");
    uint64_t last = only ? first : many ? strtoull(many, NULL, 10) : SEEDS;
    for (uint64_t seed = first; seed <= last; seed++)
        storm_run(seed, NULL);
    if (only || last < SEEDS)
        return;
    assert_true(storm_all_at_once > last / 10);
    const uint64_t *count = (const uint64_t *)&storm_totals;
    for (size_t i = 0; i < sizeof(storm_totals) / sizeof(*count); i++)
        assert_true(count[i] > 0);
    print_message(
        "%llu steps, %llu committed, %llu elections, %llu crashes, %llu config "
        "changes, %llu transfers, %llu reads, %llu truncations, %llu compactions, %llu "
        "offers, %llu installs (%llu too late), %llu holes, %llu pauses; all at once in "
        "%llu seeds\n",
        (unsigned long long)storm_totals.steps,
        (unsigned long long)storm_totals.committed,
        (unsigned long long)storm_totals.elections,
        (unsigned long long)storm_totals.crashes,
        (unsigned long long)storm_totals.config_changes,
        (unsigned long long)storm_totals.transfers,
        (unsigned long long)storm_totals.reads_confirmed,
        (unsigned long long)storm_totals.truncations,
        (unsigned long long)storm_totals.compactions,
        (unsigned long long)storm_totals.offers,
        (unsigned long long)storm_totals.installs,
        (unsigned long long)storm_totals.installs_refused,
        (unsigned long long)storm_totals.damages, (unsigned long long)storm_totals.pauses,
        (unsigned long long)storm_all_at_once);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lesson_15_all_faults_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
