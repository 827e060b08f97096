/* test_hostile.c - what a node gets from those who are not what they should be. */
#include "harness.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>

struct setting {
    struct cluster *cl;
    struct event_base *loop;
    struct side *s;
    char *cert, *key; /* node 9's, for raw peers */
};

static int setup(void **state)
{
    struct setting *t = calloc(1, sizeof(*t));
    t->cl = cluster_new();
    t->loop = loop_new();
    t->s = side_new(t->cl, t->loop, 1);
    cluster_certify(t->cl, 9, &t->cert, &t->key);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct setting *t = *state;
    /* Whatever was done to it, the node still lets a good peer in. */
    struct side *good = side_new(t->cl, t->loop, 2);
    t->s->on_opened = NULL;
    connect_sides(good, t->s);
    side_free(good);
    side_free(t->s);
    loop_free(t->loop);
    cluster_free(t->cl);
    free(t->cert);
    free(t->key);
    free(t);
    return 0;
}

/* A raw peer with node 9's certificate, its HELLO said and the node's received. */
static struct raw raw_node(struct setting *t)
{
    struct raw r = raw_connect(t->s);
    unsigned had = t->s->opened;
    assert_int_equal(raw_handshake(&r, &(struct raw_tls){.cert = t->cert, .key = t->key}),
                     0);
    uint8_t header[WIRE_FRAME_HEADER], value[LIMIT_JOIN_FRAME_BYTES];
    assert_true(raw_receive(&r, header, sizeof(header)));
    assert_int_equal(header[0], WIRE_HELLO);
    assert_true(raw_receive(&r, value, get_u32(header + 3)));
    raw_send_hello(&r, t->cl, 9);
    run_until(t->loop, t->s->opened > had);
    assert_int_equal(wire_peer_id(t->s->last), 9);
    return r;
}

/* ---- Before the handshake is done ------------------------------------------------ */

static void test_garbage(void **state)
{
    struct setting *t = *state;
    static const char garbage[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    struct raw r = raw_connect(t->s);
    raw_send(&r, garbage, sizeof(garbage));
    raw_until_closed(&r);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    assert_int_equal(t->s->opened + t->s->closed, 0); /* the handlers never knew it */
    raw_close(&r);
}

static void test_frames_without_tls(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_connect(t->s);
    raw_send_hello(&r, t->cl, 9);
    raw_until_closed(&r);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    raw_close(&r);
}

static void test_random_garbage(void **state)
{
    struct setting *t = *state;
    uint64_t seed = 20260101;
    for (unsigned i = 0; i < 50; i++) {
        uint8_t bytes[600];
        for (size_t j = 0; j < sizeof(bytes); j++)
            bytes[j] = (uint8_t)random_next(&seed);
        if (i % 2) /* what looks like a record of a handshake */
            memcpy(bytes, "\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03", 11);
        struct raw r = raw_connect(t->s);
        raw_send(&r, bytes, sizeof(bytes));
        shutdown(r.fd, SHUT_WR);
        raw_until_closed(&r);
        raw_close(&r);
    }
    assert_int_equal(counters_of(t->s)->refused_handshakes, 50);
}

static void test_silence(void **state)
{
    struct setting *t = *state;
    wire_endpoint_timeouts(t->s->endpoint)->hello_ms = 50;
    struct raw r = raw_connect(t->s);
    assert_int_equal(raw_until_closed(&r), 0);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    wire_endpoint_timeouts(t->s->endpoint)->hello_ms = TIMEOUT_HELLO_MS;
    raw_close(&r);
}

static void test_tls_1_2(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_connect(t->s);
    struct raw_tls how = {.cert = t->cert, .key = t->key, .max_version = TLS1_2_VERSION};
    assert_int_equal(raw_handshake(&r, &how), -1);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    raw_close(&r);
}

static void test_certificate_of_another_ca(void **state)
{
    struct setting *t = *state;
    struct cluster *other = cluster_new();
    char *cert, *key;
    memcpy(other->id, t->cl->id, sizeof(other->id)); /* all right but for the signature */
    cluster_certify(other, 9, &cert, &key);
    struct raw r = raw_connect(t->s);
    raw_handshake(&r, &(struct raw_tls){.cert = cert, .key = key});
    raw_send_hello(&r, t->cl, 9);
    assert_int_equal(raw_until_closed(&r), 0); /* not a byte of frame */
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    assert_int_equal(t->s->opened, 0);
    raw_close(&r);
    free(cert);
    free(key);
    cluster_free(other);
}

static void test_dial_into_another_ca(void **state)
{
    struct setting *t = *state;
    struct cluster *other = cluster_new();
    memcpy(other->id, t->cl->id, sizeof(other->id));
    struct side *impostor = side_new(other, t->loop, 2);
    side_dial(t->s, impostor);
    run_until(t->loop, t->s->closed);
    assert_non_null(strstr(t->s->reason, "certificate verify failed"));
    assert_int_equal(t->s->opened + impostor->opened, 0);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    side_free(impostor);
    cluster_free(other);
}

/* The CA's own key used as a node's: signed, but of no node. */
static void test_ca_certificate_as_a_node(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_connect(t->s);
    raw_handshake(&r, &(struct raw_tls){.cert = t->cl->ca_cert, .key = t->cl->ca_key});
    raw_send_hello(&r, t->cl, 9);
    assert_int_equal(raw_until_closed(&r), 0);
    assert_int_equal(t->s->opened, 0);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    raw_close(&r);
}

/* Signed by the same CA, for another cluster. */
static void test_certificate_of_another_cluster(void **state)
{
    struct setting *t = *state;
    struct cluster other = *t->cl;
    char *cert, *key;
    other.id[0] ^= 1;
    cluster_certify(&other, 9, &cert, &key);
    struct raw r = raw_connect(t->s);
    raw_handshake(&r, &(struct raw_tls){.cert = cert, .key = key});
    raw_send_hello(&r, t->cl, 9);
    assert_int_equal(raw_until_closed(&r), 0);
    assert_int_equal(t->s->opened, 0);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    raw_close(&r);
    free(cert);
    free(key);
}

/* ---- HELLO ----------------------------------------------------------------------- */

/* Says something else than a right HELLO; the node must close. */
static void expect_refused_hello(struct setting *t, uint8_t type, const struct buf *value)
{
    struct raw r = raw_connect(t->s);
    assert_int_equal(raw_handshake(&r, &(struct raw_tls){.cert = t->cert, .key = t->key}),
                     0);
    raw_send_frame(&r, type, 0, value->data, value->length);
    raw_until_closed(&r);
    assert_int_equal(t->s->opened, 0);
    raw_close(&r);
}

static struct wire_hello hello_of_9(struct setting *t)
{
    struct wire_hello hello = {
        .version = WIRE_PROTOCOL_VERSION, .oldest = WIRE_PROTOCOL_OLDEST, .node_id = 9};
    memcpy(hello.cluster_id, t->cl->id, sizeof(hello.cluster_id));
    return hello;
}

static void test_wrong_hellos(void **state)
{
    struct setting *t = *state;
    struct buf value = {0};
    for (int i = 0; i < 4; i++) {
        struct wire_hello hello = hello_of_9(t);
        hello.version += i == 0;
        hello.oldest += i == 0;
        hello.cluster_id[15] ^= i == 1;
        hello.node_id -= i == 2;
        hello.node_id *= i != 3;
        buf_clear(&value);
        wire_hello_encode(&hello, &value);
        expect_refused_hello(t, WIRE_HELLO, &value);
        assert_int_equal(counters_of(t->s)->refused_hellos, i + 1);
    }
    buf_release(&value);
}

static void test_malformed_hello(void **state)
{
    struct setting *t = *state;
    struct buf value = {0};
    struct wire_hello hello = hello_of_9(t);
    wire_hello_encode(&hello, &value);
    buf_u8(&value, 1);
    expect_refused_hello(t, WIRE_HELLO, &value);
    assert_int_equal(counters_of(t->s)->malformed_frames, 1);
    buf_release(&value);
}

static void test_no_hello_first(void **state)
{
    struct setting *t = *state;
    struct buf value = {0};
    buf_u8(&value, 1);
    expect_refused_hello(t, WIRE_RAFT_VOTE, &value);
    expect_refused_hello(t, 0x99, &value);
    assert_int_equal(counters_of(t->s)->refused_hellos, 2);
    assert_int_equal(t->s->frames, 0);
    buf_release(&value);
}

static void test_large_hello(void **state)
{
    struct setting *t = *state;
    struct buf value = {0};
    memset(buf_extend(&value, LIMIT_JOIN_FRAME_BYTES + 1), 0, LIMIT_JOIN_FRAME_BYTES + 1);
    expect_refused_hello(t, WIRE_HELLO, &value);
    assert_int_equal(counters_of(t->s)->oversized_frames, 1);
    buf_release(&value);
}

static void test_hello_never_comes(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_connect(t->s);
    wire_endpoint_timeouts(t->s->endpoint)->hello_ms = 1000;
    if (raw_handshake(&r, &(struct raw_tls){.cert = t->cert, .key = t->key}) == 0)
        raw_until_closed(&r); /* else this machine stood still for a second */
    assert_int_equal(counters_of(t->s)->refused_handshakes, 1);
    wire_endpoint_timeouts(t->s->endpoint)->hello_ms = TIMEOUT_HELLO_MS;
    raw_close(&r);
}

static void test_dialed_node_lies_in_its_hello(void **state)
{
    struct setting *t = *state;
    struct side *liar = side_new_as(t->cl, t->loop, 5, 4);
    struct wire_connection *c;
    assert_int_equal(wire_dial(t->s->endpoint, liar->address, 4, &c), 0);
    run_until(t->loop, t->s->closed);
    assert_non_null(strstr(t->s->reason, "another node than its certificate"));
    assert_int_equal(counters_of(t->s)->refused_hellos, 1);
    assert_int_equal(t->s->opened, 0);
    side_free(liar);
}

/* ---- A proven peer --------------------------------------------------------------- */

static void test_second_hello(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_node(t);
    raw_send_hello(&r, t->cl, 9);
    raw_until_closed(&r);
    assert_int_equal(counters_of(t->s)->malformed_frames, 1);
    assert_int_equal(t->s->closed, 1);
    raw_close(&r);
}

static void test_oversized_header(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_node(t);
    uint8_t header[WIRE_FRAME_HEADER];
    frame_header_put(header,
                     (struct frame_header){WIRE_ANSWER, 1, LIMIT_FRAME_BYTES + 1});
    raw_send(&r, header, sizeof(header));
    raw_until_closed(&r);
    assert_int_equal(counters_of(t->s)->oversized_frames, 1);
    assert_int_equal(t->s->closed, 1);
    assert_int_equal(t->s->frames, 0);
    raw_close(&r);
}

static void test_half_a_frame_then_cut(void **state)
{
    struct setting *t = *state;
    for (size_t length = 1; length < 2 * WIRE_FRAME_HEADER; length += 3) {
        struct raw r = raw_node(t);
        uint8_t frame[2 * WIRE_FRAME_HEADER] = {0};
        frame_header_put(frame, (struct frame_header){WIRE_ANSWER, 1, WIRE_FRAME_HEADER});
        raw_send(&r, frame, length);
        unsigned had = t->s->closed;
        raw_close(&r);
        run_until(t->loop, t->s->closed > had);
    }
    assert_int_equal(t->s->frames, 0);
}

static void test_byte_by_byte_in_time(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_node(t);
    uint8_t frame[2 * WIRE_FRAME_HEADER] = {0};
    frame_header_put(frame, (struct frame_header){WIRE_ANSWER, 1, WIRE_FRAME_HEADER});
    for (size_t i = 0; i < sizeof(frame); i++)
        raw_send(&r, frame + i, 1);
    run_until(t->loop, t->s->frames);
    assert_int_equal(t->s->value.length, WIRE_FRAME_HEADER);
    raw_close(&r);
    run_until(t->loop, t->s->closed);
    assert_int_equal(counters_of(t->s)->slow_frames, 0);
}

/* A trickle, in its header or in its value: each byte is progress, and does not help. */
static void test_slow_trickle(void **state)
{
    struct setting *t = *state;
    for (size_t first = 1; first <= WIRE_FRAME_HEADER; first += 6) {
        struct raw r = raw_node(t);
        uint8_t frame[WIRE_FRAME_HEADER] = {0}, sink;
        unsigned had = t->s->closed;
        wire_endpoint_timeouts(t->s->endpoint)->frame_ms = 50;
        frame_header_put(frame, (struct frame_header){WIRE_ANSWER, 1, 10});
        raw_send(&r, frame, first);
        if (first == WIRE_FRAME_HEADER)
            for (int i = 0; i < 5; i++)
                raw_send(&r, "x", 1);
        assert_false(raw_receive(&r, &sink, 1));
        assert_int_equal(t->s->closed, had + 1);
        assert_non_null(strstr(t->s->reason, "too long"));
        raw_close(&r);
    }
    assert_int_equal(counters_of(t->s)->slow_frames, 2);
    wire_endpoint_timeouts(t->s->endpoint)->frame_ms = TIMEOUT_FRAME_MS;
}

/* Between frames a peer may be silent for as long as it likes. */
static void test_silence_between_frames(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_node(t);
    wire_endpoint_timeouts(t->s->endpoint)->frame_ms = 20;
    raw_send_frame(&r, WIRE_ANSWER, 1, "1", 1);
    run_until(t->loop, t->s->frames == 1);
    assert_false(event_pending(&t->s->last->timer, EV_TIMEOUT, NULL));
    raw_send(&r, "\x21", 1); /* half a header starts the clock, its end stops it */
    run_until(t->loop, event_pending(&t->s->last->timer, EV_TIMEOUT, NULL));
    wire_endpoint_timeouts(t->s->endpoint)->frame_ms = TIMEOUT_FRAME_MS;
    raw_send(&r, "\x01\x00\x00\x00\x00\x00", 6);
    run_until(t->loop, t->s->frames == 2 || t->s->closed);
    if (t->s->frames == 2) /* else this machine stood still for 20 ms */
        assert_false(event_pending(&t->s->last->timer, EV_TIMEOUT, NULL));
    raw_close(&r);
}

static void test_unknown_type(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_node(t);
    static const uint8_t unknown[] = {0x77, WIRE_CONTROL, WIRE_CONTROL_ANSWER, WIRE_JOIN};
    for (size_t i = 0; i < sizeof(unknown); i++) {
        uint8_t answer[WIRE_FRAME_HEADER + 1];
        raw_send_frame(&r, unknown[i], (uint16_t)(300 + i), "skip me", 7);
        assert_true(raw_receive(&r, answer, sizeof(answer)));
        assert_int_equal(answer[0], WIRE_ERROR);
        assert_int_equal(get_u16(answer + 1), 300 + i);
        assert_int_equal(get_u32(answer + 3), 1);
        assert_int_equal(answer[7], unknown[i]);
    }
    assert_int_equal(t->s->frames, 0);
    raw_send_frame(&r, WIRE_OPERATION, 5, "next", 4);
    run_until(t->loop, t->s->frames == 1);
    assert_memory_equal(t->s->value.data, "next", 4);
    assert_int_equal(counters_of(t->s)->unknown_frames, sizeof(unknown));
    raw_close(&r);
}

static void test_error_frame_is_delivered(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_node(t);
    raw_send_frame(&r, WIRE_ERROR, 12, "\x77", 1);
    run_until(t->loop, t->s->frames);
    assert_int_equal(t->s->type, WIRE_ERROR);
    assert_int_equal(t->s->stream, 12);
    raw_send_frame(&r, WIRE_ERROR, 12, "", 0);
    raw_until_closed(&r);
    assert_int_equal(counters_of(t->s)->malformed_frames, 1);
    raw_close(&r);
}

/* A peer that never reads cannot make the node hold more than the bound. */
static void test_errors_nobody_reads(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_node(t);
    struct wire_connection *c = t->s->last;
    uint8_t *chunk = calloc(1, 1 << 20);
    while (wire_send_bytes(c, WIRE_ANSWER, 0, chunk, 1 << 20) != -ENOTCONN)
        ;
    run_until(t->loop, t->s->closed);
    free(chunk);
    raw_close(&r);
}

/* ---- Joiners --------------------------------------------------------------------- */

static struct raw raw_joiner(struct setting *t)
{
    struct raw r = raw_connect(t->s);
    assert_int_equal(raw_handshake(&r, &(struct raw_tls){0}), 0);
    return r;
}

static void answer_join(struct side *s, struct wire_connection *c,
                        const struct wire_frame *frame)
{
    assert_int_equal(frame->type, WIRE_JOIN);
    assert_int_equal(wire_kind(c), WIRE_PEER_JOINER);
    assert_int_equal(wire_peer_id(c), 0);
    assert_int_equal(wire_send_bytes(c, WIRE_ANSWER, 0, "x", 1), -ENOTCONN);
    assert_int_equal(wire_send_bytes(c, WIRE_JOIN_ANSWER, frame->stream, "welcome", 7),
                     0);
    wire_close_after_sending(c);
    s->last = NULL;
}

static void send_early(struct side *s, struct wire_connection *c)
{
    assert_int_equal(wire_send_bytes(c, WIRE_JOIN_ANSWER, 0, "x", 1), -ENOTCONN);
}

static void test_joiner(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_joiner(t);
    uint8_t answer[WIRE_FRAME_HEADER + 7];
    t->s->on_opened = send_early;
    t->s->on_frame = answer_join;
    raw_send_hello(&r, t->cl, 0);
    raw_send_frame(&r, WIRE_JOIN, 6, "let me in", 9);
    assert_true(raw_receive(&r, answer, sizeof(answer))); /* the first bytes it gets */
    assert_int_equal(answer[0], WIRE_JOIN_ANSWER);
    assert_int_equal(get_u16(answer + 1), 6);
    assert_memory_equal(answer + WIRE_FRAME_HEADER, "welcome", 7);
    assert_int_equal(raw_until_closed(&r), 0);
    raw_close(&r);
    run_until(t->loop, t->s->endpoint->unproven == 0);
    assert_int_equal(t->s->closed, 0);
    t->s->on_frame = NULL;
}

static void expect_joiner_refused(struct setting *t, uint8_t type, size_t length,
                                  bool hello)
{
    struct raw r = raw_joiner(t);
    uint8_t *value = calloc(1, length);
    if (hello)
        raw_send_hello(&r, t->cl, 0);
    raw_send_frame(&r, type, 6, value, length);
    assert_int_equal(raw_until_closed(&r), 0);
    assert_int_equal(t->s->frames, 0);
    free(value);
    raw_close(&r);
}

static void test_joiner_may_not(void **state)
{
    struct setting *t = *state;
    const struct wire_counters *n = counters_of(t->s);
    expect_joiner_refused(t, WIRE_JOIN, 9, false);
    assert_int_equal(n->refused_hellos, 1);
    expect_joiner_refused(t, WIRE_OPERATION, 9, true);
    expect_joiner_refused(t, WIRE_CONTROL, 9, true);
    expect_joiner_refused(t, WIRE_RAFT_VOTE, 9, true);
    expect_joiner_refused(t, 0x77, 9, true);
    assert_int_equal(n->malformed_frames, 4);
    expect_joiner_refused(t, WIRE_JOIN, LIMIT_JOIN_FRAME_BYTES + 1, true);
    assert_int_equal(n->oversized_frames, 1);
}

static void test_joiner_with_a_nodes_id(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_joiner(t);
    raw_send_hello(&r, t->cl, 9);
    assert_int_equal(raw_until_closed(&r), 0);
    assert_int_equal(t->s->opened, 0);
    assert_int_equal(counters_of(t->s)->refused_hellos, 1);
    raw_close(&r);
}

static void test_joiner_asks_twice(void **state)
{
    struct setting *t = *state;
    struct raw r = raw_joiner(t);
    raw_send_hello(&r, t->cl, 0);
    raw_send_frame(&r, WIRE_JOIN, 6, "1", 1);
    raw_send_frame(&r, WIRE_JOIN, 6, "2", 1);
    assert_int_equal(raw_until_closed(&r), 0);
    assert_int_equal(t->s->frames, 1);
    assert_int_equal(t->s->closed, 1);
    raw_close(&r);
}

static void test_joiner_has_little_time(void **state)
{
    struct setting *t = *state;
    wire_endpoint_timeouts(t->s->endpoint)->joiner_ms = 1000;
    struct raw r = raw_joiner(t);
    raw_send_hello(&r, t->cl, 0);
    raw_send_frame(&r, WIRE_JOIN, 6, "1", 1); /* and the node does not answer */
    assert_int_equal(raw_until_closed(&r), 0);
    assert_int_equal(t->s->endpoint->unproven, 0);
    assert_int_equal(counters_of(t->s)->slow_frames, 0);
    raw_close(&r);
}

/* ---- Limits ---------------------------------------------------------------------- */

static void test_unproven_limit(void **state)
{
    struct setting *t = *state;
    struct raw some[LIMIT_UNPROVEN_CONNECTIONS];
    for (size_t i = 0; i < array_length(some); i++)
        some[i] = raw_connect(t->s);
    run_until(t->loop, t->s->endpoint->unproven == array_length(some));
    assert_int_equal(counters_of(t->s)->over_limit, 0);
    struct raw beyond = raw_connect(t->s);
    assert_int_equal(raw_until_closed(&beyond), 0);
    assert_int_equal(counters_of(t->s)->over_limit, 1);
    raw_close(&beyond);
    for (size_t i = 0; i < array_length(some); i++)
        raw_close(&some[i]);
    run_until(t->loop, t->s->endpoint->unproven == 0);
    assert_int_equal(t->s->endpoint->accepted, 0);
}

/* Out of descriptors: the node pauses instead of being woken again and again, then goes
 * on. */
static void test_no_descriptors(void **state)
{
    struct setting *t = *state;
    struct rlimit files, none;
    struct listener *l = &t->s->endpoint->listeners[0];
    struct raw r = raw_connect(t->s);
    getrlimit(RLIMIT_NOFILE, &files);
    none = files;
    none.rlim_cur = (rlim_t)r.fd + 1; /* it got the lowest that was free */
    setrlimit(RLIMIT_NOFILE, &none);
    run_until(t->loop, counters_of(t->s)->over_limit);
    setrlimit(RLIMIT_NOFILE, &files);
    assert_true(event_pending(&l->resume, EV_TIMEOUT, NULL));
    assert_int_equal(counters_of(t->s)->accepted, 0);
    assert_int_equal(raw_handshake(&r, &(struct raw_tls){.cert = t->cert, .key = t->key}),
                     0);
    assert_int_equal(counters_of(t->s)->accepted, 1);
    raw_close(&r);
}

/* The end of one connection in an error of TLS leaves no trace in another's. */
static void test_errors_do_not_leak(void **state)
{
    struct setting *t = *state;
    struct side *good = side_new(t->cl, t->loop, 2);
    connect_sides(good, t->s);
    for (unsigned i = 0; i < 20; i++) {
        struct raw bad = raw_connect(t->s);
        raw_send(&bad, "no TLS at all, no TLS at all", 28);
        wire_send_bytes(good->last, WIRE_ANSWER, 0, "x", 1);
        wire_send_bytes(t->s->last, WIRE_ANSWER, 0, "x", 1);
        raw_until_closed(&bad);
        raw_close(&bad);
        run_until(t->loop, t->s->frames == i + 1 && good->frames == i + 1);
    }
    assert_int_equal(t->s->closed + good->closed, 0);
    assert_int_equal(counters_of(t->s)->refused_handshakes, 20);
    side_free(good);
    run_until(t->loop, t->s->closed);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_garbage),
        with(test_frames_without_tls),
        with(test_random_garbage),
        with(test_silence),
        with(test_tls_1_2),
        with(test_certificate_of_another_ca),
        with(test_dial_into_another_ca),
        with(test_ca_certificate_as_a_node),
        with(test_certificate_of_another_cluster),
        with(test_wrong_hellos),
        with(test_malformed_hello),
        with(test_no_hello_first),
        with(test_large_hello),
        with(test_hello_never_comes),
        with(test_dialed_node_lies_in_its_hello),
        with(test_second_hello),
        with(test_oversized_header),
        with(test_half_a_frame_then_cut),
        with(test_byte_by_byte_in_time),
        with(test_slow_trickle),
        with(test_silence_between_frames),
        with(test_unknown_type),
        with(test_error_frame_is_delivered),
        with(test_errors_nobody_reads),
        with(test_joiner),
        with(test_joiner_may_not),
        with(test_joiner_with_a_nodes_id),
        with(test_joiner_asks_twice),
        with(test_joiner_has_little_time),
        with(test_unproven_limit),
        with(test_no_descriptors),
        with(test_errors_do_not_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
