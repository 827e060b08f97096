/* test_session.c - the replicated window of requests (S2). */
#include "node_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct node));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    sessions_release(*state);
    free(*state);
    return 0;
}

static struct session *open_session(struct node *n, uint64_t number)
{
    struct store_entry e = {.index = 1, .session = number, .request = 0};
    assert_int_equal(session_note_entry(n, &e), 0);
    return session_find(n, number);
}

static void commit(struct node *n, uint64_t session, uint64_t request, uint64_t index)
{
    struct store_entry e = {.index = index, .session = session, .request = request};
    e.result[0] = (uint8_t)request;
    assert_int_equal(session_note_entry(n, &e), 0);
}

static enum session_verdict verdict(struct session *s, uint64_t request)
{
    const struct window_slot *slot;
    return session_judge(s, request, &slot);
}

static void test_a_request_is_executed_once(void **state)
{
    struct node *n = *state;
    struct session *s = open_session(n, 1000);
    const struct window_slot *slot;
    assert_int_equal(verdict(s, 1), SESSION_NEW);
    commit(n, 1000, 1, 42);
    assert_int_equal(session_judge(s, 1, &slot), SESSION_ANSWERED);
    assert_int_equal(slot->index, 42);
    assert_int_equal(slot->result[0], 1);
    assert_int_equal(verdict(s, 2), SESSION_NEW);
}

/* A late duplicate of what fell out of the window must not be executed. */
static void test_below_the_window_is_expired(void **state)
{
    struct node *n = *state;
    struct session *s = open_session(n, 1000);
    for (uint64_t r = 1; r <= LIMIT_SESSION_WINDOW + 5; r++)
        commit(n, 1000, r, r);
    for (uint64_t r = 1; r <= 5; r++)
        assert_int_equal(verdict(s, r), SESSION_EXPIRED);
    assert_int_equal(verdict(s, 6), SESSION_ANSWERED);
    assert_int_equal(verdict(s, LIMIT_SESSION_WINDOW + 6), SESSION_NEW);
}

/* Requests that were answered without an entry leave holes; a hole below the window is not new. */
static void test_a_hole_below_the_window_is_expired(void **state)
{
    struct node *n = *state;
    struct session *s = open_session(n, 1000);
    commit(n, 1000, LIMIT_SESSION_WINDOW + 10, 7);
    assert_int_equal(verdict(s, 3), SESSION_EXPIRED);
    assert_int_equal(verdict(s, 10), SESSION_EXPIRED);
    assert_int_equal(verdict(s, 11), SESSION_NEW);
}

static void test_below_the_lowest_unanswered_is_expired(void **state)
{
    struct session *s = open_session(*state, 1000);
    s->lowest = 5;
    assert_int_equal(verdict(s, 4), SESSION_EXPIRED);
    assert_int_equal(verdict(s, 5), SESSION_NEW);
}

/* A restarted node's request 1 is another incarnation's. */
static void test_a_new_session_has_a_window_of_its_own(void **state)
{
    struct node *n = *state;
    open_session(n, 1000);
    commit(n, 1000, 1, 42);
    struct session *second = open_session(n, 2000);
    assert_int_equal(verdict(second, 1), SESSION_NEW);
}

static void test_a_tombstone_ends_a_session(void **state)
{
    struct node *n = *state;
    open_session(n, 1000);
    struct fs_key key;
    session_key(&key, 1000);
    struct store_record r = {.key = key.bytes, .key_size = key.size};
    assert_int_equal(session_note_record(n, &r), 0);
    assert_null(session_find(n, 1000));
    commit(n, 1000, 1, 5); /* an entry of an ended session is nobody's */
    assert_null(session_find(n, 1000));
}

static void test_a_record_names_the_node(void **state)
{
    struct node *n = *state;
    struct fs_key key;
    struct buf value = {0};
    session_key(&key, 1000);
    session_record_encode(77, 88, &value);
    struct store_record r = {.key = key.bytes,
                             .key_size = key.size,
                             .value = value.data,
                             .value_size = (uint32_t)value.length};
    assert_int_equal(session_note_record(n, &r), 0);
    assert_int_equal(session_find(n, 1000)->node_id, 77);
    assert_int_equal(session_find(n, 1000)->nonce, 88);
    r.value_size--;
    assert_true(session_note_record(n, &r) < 0);
    buf_release(&value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_request_is_executed_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_below_the_window_is_expired, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hole_below_the_window_is_expired, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_below_the_lowest_unanswered_is_expired, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_new_session_has_a_window_of_its_own, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_tombstone_ends_a_session, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_record_names_the_node, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
