/* test_messages.c - consensus messages, operations and answers as bytes. */
#include "node_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct raft_message samples[] = {
    {.type = RAFT_VOTE, .term = 7, .pre = true, .last_index = 9, .last_term = 6},
    {.type = RAFT_VOTE, .term = 7, .transfer = true, .last_index = 9, .last_term = 6},
    {.type = RAFT_VOTE_REPLY, .term = 8, .pre = true, .granted = true},
    {.type = RAFT_VOTE_REPLY, .term = 8},
    {.type = RAFT_APPEND,
     .term = 3,
     .prev_index = 4,
     .prev_term = 2,
     .last = 4,
     .commit = 1,
     .round = 99,
     .floor = 3},
    {.type = RAFT_APPEND_REPLY,
     .term = 3,
     .ok = true,
     .match = 5,
     .applied = 4,
     .hint_index = 2,
     .hint_term = 1,
     .round = 98},
    {.type = RAFT_TIMEOUT_NOW, .term = 12},
    {.type = RAFT_SNAPSHOT,
     .term = 6,
     .prev_index = 70,
     .prev_term = 5,
     .last = 70,
     .commit = 80,
     .round = 7,
     .floor = 75},
};

static int decode(uint8_t type, const struct buf *b, size_t length,
                  struct raft_message *m)
{
    const uint8_t *rest;
    size_t rest_length;
    uint64_t clock_us;
    return message_decode(type, b->data, length, m, &rest, &rest_length, &clock_us);
}

static void test_messages_round_trip(void **state)
{
    for (size_t i = 0; i < array_length(samples); i++) {
        struct buf b = {0};
        uint8_t type = message_encode(&samples[i], &b);
        struct raft_message m;
        assert_int_equal(decode(type, &b, b.length, &m), 0);
        assert_int_equal(m.type, samples[i].type);
        struct buf again = {0};
        assert_int_equal(message_encode(&m, &again), type);
        /* Less the clock at the end of a VOTE or an APPEND_REPLY (G2). */
        bool clock = type == WIRE_RAFT_VOTE || type == WIRE_RAFT_APPEND_REPLY;
        assert_int_equal(again.length, b.length);
        assert_memory_equal(again.data, b.data, b.length - (clock ? 8 : 0));
        buf_release(&again);
        buf_release(&b);
    }
}

/* "Fields that do not fill their frame exactly": every shorter frame, and one byte more. */
static void test_messages_of_wrong_length_are_refused(void **state)
{
    for (size_t i = 0; i < array_length(samples); i++) {
        struct buf b = {0};
        uint8_t type = message_encode(&samples[i], &b);
        struct raft_message m;
        for (size_t length = 0; length < b.length; length++)
            assert_true(decode(type, &b, length, &m) < 0);
        buf_u8(&b, 0);
        assert_true(decode(type, &b, b.length, &m) < 0);
        buf_release(&b);
    }
}

static void test_append_must_say_how_many_entries_it_has(void **state)
{
    struct raft_message append = {.type = RAFT_APPEND, .prev_index = 4, .last = 6}, m;
    struct buf b = {0};
    uint8_t type = message_encode(&append, &b);
    assert_true(decode(type, &b, b.length, &m) < 0); /* 5 and 6 are missing */
    buf_u8(&b, 1);
    assert_int_equal(decode(type, &b, b.length, &m), 0);
    append.last = 3; /* before prev_index */
    buf_clear(&b);
    message_encode(&append, &b);
    assert_true(decode(type, &b, b.length, &m) < 0);
    buf_release(&b);
}

/* In memory it is an append without entries: its last is not on the wire. */
static void test_a_snapshot_message_is_an_empty_append(void **state)
{
    struct raft_message m;
    struct buf b = {0};
    uint8_t type = message_encode(&samples[array_length(samples) - 1], &b);
    assert_int_equal(type, WIRE_RAFT_SNAPSHOT);
    assert_int_equal(b.length, 48);
    assert_int_equal(decode(type, &b, b.length, &m), 0);
    assert_int_equal(m.prev_index, 70);
    assert_int_equal(m.last, 70);
    assert_int_equal(m.prev_term, 5);
    assert_int_equal(m.floor, 75);
    buf_release(&b);
}

static void test_unknown_flags_are_refused(void **state)
{
    struct buf b = {0};
    struct raft_message m;
    uint8_t type = message_encode(&samples[2], &b);
    b.data[8] |= 0x80;
    assert_true(decode(type, &b, b.length, &m) < 0);
    buf_release(&b);
}

static void test_operation(void **state)
{
    struct operation_head head = {.session = 5, .request = 9, .lowest = 7, .term = 6},
                          got;
    struct buf b = {0};
    const uint8_t *op;
    size_t length;
    operation_encode(&head, "xyz", 3, &b);
    assert_int_equal(operation_decode(b.data, b.length, &got, &op, &length), 0);
    assert_int_equal(got.session, head.session);
    assert_int_equal(got.request, head.request);
    assert_int_equal(got.lowest, head.lowest);
    assert_int_equal(got.term, head.term);
    assert_int_equal(length, 3);
    assert_memory_equal(op, "xyz", 3);
    for (size_t n = 0; n < b.length - 2; n++)
        assert_true(operation_decode(b.data, n, &got, &op, &length) < 0);
    const struct operation_head wrong[] = {
        {.session = 0, .request = 9}, {.session = 5, .request = 0}, {5, 9, 10}};
    for (size_t i = 0; i < array_length(wrong); i++) {
        buf_clear(&b);
        operation_encode(&wrong[i], "x", 1, &b);
        assert_true(operation_decode(b.data, b.length, &got, &op, &length) < 0);
    }
    buf_release(&b);
}

static void test_answer(void **state)
{
    struct answer a = {.status = WIRE_FAILED, .request = 3, .index = 4, .error = 17}, got;
    struct buf b = {0};
    memset(a.result, 0x5a, sizeof(a.result));
    answer_encode(&a, &b);
    assert_int_equal(answer_decode(b.data, b.length, &got), 0);
    assert_memory_equal(&got, &a, sizeof(a));
    for (size_t n = 0; n < b.length; n++)
        assert_true(answer_decode(b.data, n, &got) < 0);
    b.data[0] = WIRE_OK; /* with an errno */
    assert_true(answer_decode(b.data, b.length, &got) < 0);
    b.data[0] = 200;
    assert_true(answer_decode(b.data, b.length, &got) < 0);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_round_trip),
        cmocka_unit_test(test_messages_of_wrong_length_are_refused),
        cmocka_unit_test(test_append_must_say_how_many_entries_it_has),
        cmocka_unit_test(test_a_snapshot_message_is_an_empty_append),
        cmocka_unit_test(test_unknown_flags_are_refused),
        cmocka_unit_test(test_operation),
        cmocka_unit_test(test_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
