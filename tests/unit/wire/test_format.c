/* test_format.c - header, verdicts, HELLO and addresses, byte by byte. */
#include "harness.h"

#include <errno.h>

static void test_header_bytes(void **state)
{
    static const uint8_t expected[] = {0x21, 0x34, 0x12, 0xdd, 0xcc, 0x0b, 0x00};
    uint8_t bytes[WIRE_FRAME_HEADER];
    frame_header_put(bytes, (struct frame_header){0x21, 0x1234, 0x000bccdd});
    assert_memory_equal(bytes, expected, sizeof(expected));
    struct frame_header h = frame_header_get(bytes);
    assert_int_equal(h.type, 0x21);
    assert_int_equal(h.stream, 0x1234);
    assert_int_equal(h.length, 0x000bccdd);
}

static void test_verdicts(void **state)
{
    static const struct {
        enum wire_peer_kind kind;
        enum frame_phase phase;
        uint8_t type;
        uint32_t length;
        enum frame_verdict verdict;
    } cases[] = {
        {WIRE_PEER_NODE, PHASE_HELLO, WIRE_HELLO, 50, FRAME_IS_HELLO},
        {WIRE_PEER_NODE, PHASE_HELLO, WIRE_RAFT_VOTE, 50, FRAME_REFUSED},
        {WIRE_PEER_NODE, PHASE_HELLO, 0x77, 0, FRAME_REFUSED},
        {WIRE_PEER_NODE, PHASE_HELLO, WIRE_HELLO, LIMIT_JOIN_FRAME_BYTES, FRAME_IS_HELLO},
        {WIRE_PEER_NODE, PHASE_HELLO, WIRE_HELLO, LIMIT_JOIN_FRAME_BYTES + 1,
         FRAME_TOO_LONG},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_HELLO, 50, FRAME_REFUSED},
        {WIRE_PEER_NODE, PHASE_HELLO, WIRE_REFUSAL, 9, FRAME_IS_REFUSAL},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_REFUSAL, 9, FRAME_IS_REFUSAL},
        {WIRE_PEER_NODE, PHASE_HELLO, WIRE_REFUSAL, LIMIT_JOIN_FRAME_BYTES + 1,
         FRAME_TOO_LONG},
        {WIRE_PEER_JOINER, PHASE_HELLO, WIRE_REFUSAL, 9, FRAME_REFUSED},
        {WIRE_PEER_JOINER, PHASE_OPEN, WIRE_REFUSAL, 9, FRAME_REFUSED},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_REFUSAL, 9, FRAME_SKIPPED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_ERROR, 1, FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_ERROR, 2, FRAME_REFUSED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_RAFT_VOTE, 0, FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_RAFT_TIMEOUT_NOW, 0, FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_RAFT_SNAPSHOT, 48, FRAME_DELIVERED},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_RAFT_SNAPSHOT, 48, FRAME_SKIPPED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_RAFT_APPEND, LIMIT_FRAME_BYTES,
         FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_RAFT_APPEND, LIMIT_FRAME_BYTES + 1,
         FRAME_TOO_LONG},
        {WIRE_PEER_NODE, PHASE_OPEN, 0x77, LIMIT_FRAME_BYTES + 1, FRAME_TOO_LONG},
        {WIRE_PEER_NODE, PHASE_OPEN, 0x77, UINT32_MAX, FRAME_TOO_LONG},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_OPERATION, 9, FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_FETCH, 9, FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_FETCHED, 12, FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_ANSWER, 9, FRAME_DELIVERED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_CONTROL, 9, FRAME_SKIPPED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_CONTROL_ANSWER, 9, FRAME_SKIPPED},
        {WIRE_PEER_NODE, PHASE_OPEN, WIRE_JOIN, 9, FRAME_SKIPPED},
        {WIRE_PEER_NODE, PHASE_OPEN, 0x00, 9, FRAME_SKIPPED},
        {WIRE_PEER_NODE, PHASE_OPEN, 0xff, 9, FRAME_SKIPPED},
        {WIRE_PEER_JOINER, PHASE_HELLO, WIRE_JOIN, 9, FRAME_REFUSED},
        {WIRE_PEER_JOINER, PHASE_HELLO, WIRE_HELLO, 9, FRAME_IS_HELLO},
        {WIRE_PEER_JOINER, PHASE_OPEN, WIRE_JOIN, LIMIT_JOIN_FRAME_BYTES,
         FRAME_DELIVERED},
        {WIRE_PEER_JOINER, PHASE_OPEN, WIRE_JOIN, LIMIT_JOIN_FRAME_BYTES + 1,
         FRAME_TOO_LONG},
        {WIRE_PEER_JOINER, PHASE_OPEN, WIRE_OPERATION, 9, FRAME_REFUSED},
        {WIRE_PEER_JOINER, PHASE_OPEN, WIRE_FETCH, 9, FRAME_REFUSED},
        {WIRE_PEER_JOINER, PHASE_OPEN, 0x77, 9, FRAME_REFUSED},
        {WIRE_PEER_JOINER, PHASE_OPEN, WIRE_HELLO, 9, FRAME_REFUSED},
        {WIRE_PEER_JOINER, PHASE_JOINED, WIRE_JOIN, 9, FRAME_REFUSED},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_CONTROL, LIMIT_FRAME_BYTES, FRAME_DELIVERED},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_CONTROL, LIMIT_FRAME_BYTES + 1,
         FRAME_TOO_LONG},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_OPERATION, 9, FRAME_SKIPPED},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_FETCH, 9, FRAME_SKIPPED},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_HELLO, 9, FRAME_SKIPPED},
        {WIRE_PEER_LOCAL, PHASE_OPEN, WIRE_RAFT_VOTE, 9, FRAME_SKIPPED},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        struct frame_header h = {.type = cases[i].type, .length = cases[i].length};
        if (frame_judge(cases[i].kind, cases[i].phase, &h) != cases[i].verdict)
            fail_msg("case %zu", i);
    }
}

static struct wire_hello some_hello(void)
{
    struct wire_hello h = {.version = 2,
                           .oldest = 1,
                           .node_id = 0x1122334455667788,
                           .features = 3,
                           .clock_us = 1000001,
                           .name = "alpha",
                           .address = "alpha.example:7370"};
    memset(h.cluster_id, 0xab, sizeof(h.cluster_id));
    return h;
}

static void test_hello_round(void **state)
{
    struct wire_hello sent = some_hello(), got;
    struct buf b = {0};
    wire_hello_encode(&sent, &b);
    assert_int_equal(b.length, 2 + 2 + 16 + 8 + 8 + 8 + 2 + 5 + 2 + 18);
    assert_int_equal(wire_hello_decode(b.data, b.length, &got), 0);
    assert_memory_equal(&sent, &got, sizeof(sent));
    buf_release(&b);
}

static void test_hello_every_cut(void **state)
{
    struct wire_hello sent = some_hello(), got;
    struct buf b = {0};
    wire_hello_encode(&sent, &b);
    memset(&got, 0x5a, sizeof(got));
    for (size_t length = 0; length < b.length; length++) {
        uint8_t *exact = malloc(length + 1); /* so that a read too far is seen */
        memcpy(exact, b.data, length);
        assert_int_equal(wire_hello_decode(exact, length, &got), -EPROTO);
        free(exact);
    }
    buf_u8(&b, 0); /* one byte too many */
    assert_int_equal(wire_hello_decode(b.data, b.length, &got), -EPROTO);
    assert_int_equal(((uint8_t *)&got)[0], 0x5a); /* untouched on failure */
    buf_release(&b);
}

static void test_hello_bad_strings(void **state)
{
    struct wire_hello sent = some_hello(), got;
    struct buf b = {0};
    wire_hello_encode(&sent, &b);
    b.data[4 + 16 + 24 + 2] = 0; /* a NUL in the name */
    assert_int_equal(wire_hello_decode(b.data, b.length, &got), -EPROTO);
    buf_clear(&b);
    buf_bytes(&b, b.data, 4 + 16 + 24);
    char name[LIMIT_NAME_BYTES + 1];
    memset(name, 'n', sizeof(name));
    buf_string(&b, name, sizeof(name)); /* one byte too long */
    buf_cstring(&b, "");
    assert_int_equal(wire_hello_decode(b.data, b.length, &got), -EPROTO);
    buf_release(&b);
}

static int decode_range(uint16_t oldest, uint16_t newest, size_t more)
{
    struct wire_hello sent = some_hello(), got;
    struct buf b = {0};
    sent.version = newest;
    sent.oldest = oldest;
    wire_hello_encode(&sent, &b);
    memset(buf_extend(&b, more), 0, more);
    int rc = wire_hello_decode(b.data, b.length, &got);
    if (rc == 0)
        assert_memory_equal(&sent, &got, sizeof(sent));
    buf_release(&b);
    return rc;
}

static void test_hello_versions(void **state)
{
    const uint16_t own = WIRE_PROTOCOL_VERSION;
    assert_int_equal(decode_range(own, own, 0), 0);
    assert_int_equal(decode_range(1, own, 0), 0);
    assert_int_equal(decode_range(0, own, 0), -EPROTO);
    assert_int_equal(decode_range(own + 1, own, 0), -EPROTO);
    assert_int_equal(decode_range(0, 0, 0), -EPROTO);
    assert_int_equal(decode_range(own, own, 1), -EPROTO);
    assert_int_equal(decode_range(own, own + 1, 0), 0); /* a newer one ... */
    assert_int_equal(decode_range(own, own + 1, 9), 0); /* ... may say more */
}

static void test_refusal_round(void **state)
{
    char text[WIRE_ERROR_BYTES] = "kept";
    enum wire_refusal reason = WIRE_REFUSAL_NONE;
    struct buf b = {0};
    refusal_encode(WIRE_REFUSAL_REMOVED, "gone", &b);
    assert_int_equal(b.length, 1 + 2 + 4);
    assert_memory_equal(b.data, "\x01\x04\x00gone", 7);
    for (size_t length = 0; length < b.length; length++) {
        uint8_t *exact = malloc(length + 1);
        memcpy(exact, b.data, length);
        assert_int_equal(refusal_decode(exact, length, &reason, text), -EPROTO);
        free(exact);
    }
    assert_string_equal(text, "kept");
    assert_int_equal(refusal_decode(b.data, b.length, &reason, text), 0);
    assert_int_equal(reason, WIRE_REFUSAL_REMOVED);
    assert_string_equal(text, "gone");
    buf_u8(&b, 0);
    assert_int_equal(refusal_decode(b.data, b.length, &reason, text), -EPROTO);
    buf_release(&b);
}

static void test_refusal_odd(void **state)
{
    char text[WIRE_ERROR_BYTES];
    enum wire_refusal reason;
    /* a reason of a later version; what would spoil a log */
    assert_int_equal(refusal_decode("\x09\x03\x00"
                                    "a\nb",
                                    6, &reason, text),
                     0);
    assert_int_equal(reason, WIRE_REFUSAL_OTHER);
    assert_string_equal(text, "a?b");
    assert_int_equal(refusal_decode("\x00\x01\x00"
                                    "a",
                                    4, &reason, text),
                     -EPROTO);
    struct buf b = {0};
    buf_u8(&b, 1);
    char longest[WIRE_ERROR_BYTES];
    memset(longest, 'n', sizeof(longest));
    buf_string(&b, longest, WIRE_ERROR_BYTES - 1);
    assert_int_equal(refusal_decode(b.data, b.length, &reason, text), 0);
    buf_clear(&b);
    buf_u8(&b, 1);
    buf_string(&b, longest, WIRE_ERROR_BYTES);
    assert_int_equal(refusal_decode(b.data, b.length, &reason, text), -EPROTO);
    buf_release(&b);
}

static void test_address_table(void **state)
{
    static const struct {
        const char *text, *host;
        int port; /* -1: refused */
    } cases[] = {
        {"a:1", "a", 1},
        {"alpha", "alpha", 7370},
        {":8000", "", 8000},
        {"127.0.0.1:65535", "127.0.0.1", 65535},
        {"127.0.0.1:0", "127.0.0.1", 0},
        {"[::1]:7", "::1", 7},
        {"[fe80::1%eth0]", "fe80::1%eth0", 7370},
        {"", NULL, -1},
        {":", NULL, -1},
        {"a:", NULL, -1},
        {"a:65536", NULL, -1},
        {"a:123456", NULL, -1},
        {"a:-1", NULL, -1},
        {"a:+1", NULL, -1},
        {"a: 1", NULL, -1},
        {"a:1x", NULL, -1},
        {"::1", NULL, -1},
        {"a:b:1", NULL, -1},
        {"[::1", NULL, -1},
        {"[]:1", NULL, -1},
        {"[::1]x", NULL, -1},
        {"[::1]1", NULL, -1},
        {"a b:1", NULL, -1},
        {"a\n:1", NULL, -1},
        {"a/b:1", NULL, -1},
        {"a]:1", NULL, -1},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        char host[LIMIT_ADDRESS_BYTES + 1] = "untouched";
        uint16_t port = 4711;
        int rc = wire_address_split(cases[i].text, 7370, host, &port);
        if (rc != (cases[i].port < 0 ? -EINVAL : 0))
            fail_msg("%s: %d", cases[i].text, rc);
        assert_string_equal(host, cases[i].host ? cases[i].host : "untouched");
        assert_int_equal(port, cases[i].port < 0 ? 4711 : cases[i].port);
    }
}

static void test_address_too_long(void **state)
{
    char text[LIMIT_ADDRESS_BYTES + 8], host[LIMIT_ADDRESS_BYTES + 1];
    uint16_t port;
    memset(text, 'a', sizeof(text));
    text[LIMIT_ADDRESS_BYTES] = 0;
    assert_int_equal(wire_address_split(text, 1, host, &port), 0);
    text[LIMIT_ADDRESS_BYTES] = 'a';
    text[LIMIT_ADDRESS_BYTES + 1] = 0;
    assert_int_equal(wire_address_split(text, 1, host, &port), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_bytes),      cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_hello_round),       cmocka_unit_test(test_hello_every_cut),
        cmocka_unit_test(test_hello_bad_strings), cmocka_unit_test(test_hello_versions),
        cmocka_unit_test(test_refusal_round),     cmocka_unit_test(test_refusal_odd),
        cmocka_unit_test(test_address_table),     cmocka_unit_test(test_address_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
