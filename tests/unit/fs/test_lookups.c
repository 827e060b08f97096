/* test_lookups.c - the counts of what the kernel holds, against a plain array. */
#include "lookups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>

#include <cmocka.h>

enum { INODES = 20000, STEPS = 300000 };

static uint64_t number_of(size_t i)
{
    return 1700000000000000 + i; /* as timestamps are: one after another */
}

static void test_counts(void **state)
{
    static struct lookups l;
    static uint64_t expected[INODES];
    uint64_t random = 1, inodes = 0;
    for (size_t step = 0; step < STEPS; step++) {
        size_t i = random_next(&random) % INODES;
        struct lookup *found = lookups_find(&l, number_of(i));
        assert_int_equal(found ? found->count : 0, expected[i]);
        /* Grows at first, shrinks in the end. */
        bool more = random_next(&random) % STEPS >= step;
        if (more) {
            lookups_get(&l, number_of(i))->count++;
            inodes += expected[i]++ == 0;
        } else if (expected[i]) {
            inodes--;
            expected[i] = 0;
            lookups_remove(&l, found);
        }
        assert_int_equal(l.count, inodes);
    }
    for (size_t i = 0; i < INODES; i++) {
        struct lookup *found = lookups_find(&l, number_of(i));
        assert_int_equal(found ? found->count : 0, expected[i]);
        if (found)
            lookups_remove(&l, found);
    }
    assert_int_equal(l.count, 0);
    lookups_release(&l);
}

/* At most 16 bytes for three quarters of a place, and half of the places free after one
 * table has doubled; nothing when all is forgotten. */
static void test_memory(void **state)
{
    enum { MANY = 1000000 };
    static struct lookups l;
    size_t room = 0;
    for (size_t i = 0; i < MANY; i++)
        lookups_get(&l, number_of(i * 7))->count++;
    for (size_t i = 0; i < LOOKUP_SHARDS; i++)
        room += l.shards[i].room;
    assert_true(room * sizeof(struct lookup) <= (size_t)MANY * 43);
    for (size_t i = 0; i < MANY; i++)
        lookups_remove(&l, lookups_find(&l, number_of(i * 7)));
    for (size_t i = 0; i < LOOKUP_SHARDS; i++)
        assert_true(l.shards[i].room <= 8);
    lookups_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
