/* test_flight.c - what is on its way to a peer is bounded, in messages and in bytes. */
#include "node_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void lesson_11_few_messages_are_in_flight(void **state)
{
    struct flight f = {0};
    for (unsigned i = 1; i <= NODE_FLIGHT_MESSAGES; i++) {
        assert_true(flight_has_room(&f));
        flight_add(&f, 10 * i, 1);
    }
    assert_false(flight_has_room(&f));
    flight_settle(&f, 9, UINT64_MAX); /* of the first not all has arrived */
    assert_false(flight_has_room(&f));
    flight_settle(&f, 10, UINT64_MAX);
    assert_true(flight_has_room(&f));
    for (unsigned i = 0; i < 5 * NODE_FLIGHT_MESSAGES; i++) { /* round and round */
        uint64_t last = 10 * (NODE_FLIGHT_MESSAGES + 1 + i);
        flight_add(&f, last, 1);
        assert_false(flight_has_room(&f));
        flight_settle(&f, last - 10 * (NODE_FLIGHT_MESSAGES - 1), UINT64_MAX);
        assert_true(flight_has_room(&f));
    }
    flight_settle(&f, UINT64_MAX - 1, UINT64_MAX);
    assert_int_equal(f.count + f.bytes, 0);
}

static void lesson_11_bytes_in_flight_are_bounded(void **state)
{
    struct flight f = {0};
    flight_add(&f, 1, LIMIT_FLIGHT_BYTES - 1);
    assert_true(flight_has_room(&f));
    flight_add(&f, 2, 2 * LIMIT_FLIGHT_BYTES); /* one entry may be larger */
    assert_false(flight_has_room(&f));
    flight_settle(&f, 1, UINT64_MAX);
    assert_false(flight_has_room(&f));
    flight_settle(&f, 2, UINT64_MAX);
    assert_true(flight_has_room(&f));
}

/* What is sent again is on its way once. */
static void test_what_is_sent_again_counts_once(void **state)
{
    struct flight f = {0};
    for (uint64_t i = 1; i <= 6; i++)
        flight_add(&f, 2 * i, 100);
    flight_settle(&f, 4, 9); /* lost from 9 on, which was in the middle of a message */
    assert_int_equal(f.count, 2);
    assert_int_equal(f.bytes, 200);
    flight_add(&f, 20, 50);
    flight_settle(&f, 8, UINT64_MAX);
    assert_int_equal(f.count, 1);
    assert_int_equal(f.bytes, 50);
    flight_settle(&f, 0, 1); /* all of it again */
    assert_int_equal(f.count + f.bytes, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) /* one of them, by its name */
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lesson_11_few_messages_are_in_flight),
        cmocka_unit_test(lesson_11_bytes_in_flight_are_bounded),
        cmocka_unit_test(test_what_is_sent_again_counts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
