/* test_endpoint.c - two endpoints and what they promise each other. */
#include "harness.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

static void test_opens(void **state)
{
    struct pair *p = *state;
    struct wire_connection *c = side_dial(p->a, p->b);
    assert_int_equal(wire_send_bytes(c, WIRE_RAFT_VOTE, 0, "x", 1), -ENOTCONN);
    assert_false(wire_is_open(c));
    assert_int_equal(p->a->opened, 0);
    run_until(p->loop, p->a->opened && p->b->opened);
    assert_ptr_equal(c, p->a->last);
    assert_int_equal(wire_peer_id(c), 2);
    assert_int_equal(wire_peer_id(p->b->last), 1);
    assert_int_equal(wire_kind(p->b->last), WIRE_PEER_NODE);
    assert_string_equal(p->b->hello.name, "node1");
    assert_int_equal(p->b->hello.features, 5);
    assert_true(p->b->hello.clock_us > 0);
    assert_int_equal(counters_of(p->a)->dialed, 1);
    assert_int_equal(counters_of(p->b)->accepted, 1);
    assert_int_equal(p->b->endpoint->unproven, 0);
    wire_set_tag(c, p);
    assert_ptr_equal(wire_tag(c), p);
}

static void exchange(struct pair *p, struct side *from, struct side *to, size_t length)
{
    uint8_t *value = malloc(length + 1);
    random_bytes(value, length);
    unsigned had = to->frames;
    int rc = wire_send_bytes(from->last, WIRE_RAFT_APPEND, 77, value, length);
    assert_int_equal(rc, 0);
    run_until(p->loop, to->frames > had);
    assert_int_equal(to->type, WIRE_RAFT_APPEND);
    assert_int_equal(to->stream, 77);
    assert_int_equal(to->value.length, length);
    if (length)
        assert_memory_equal(to->value.data, value, length);
    free(value);
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = {0,
                                   1,
                                   6,
                                   7,
                                   200,
                                   4089,
                                   16377,
                                   16384,
                                   16385,
                                   65529,
                                   65536,
                                   100000,
                                   1 << 20,
                                   4 << 20,
                                   LIMIT_FRAME_BYTES - 1,
                                   LIMIT_FRAME_BYTES};
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    for (size_t i = 0; i < array_length(sizes); i++) {
        exchange(p, p->a, p->b, sizes[i]);
        exchange(p, p->b, p->a, sizes[i]);
    }
    assert_int_equal(counters_of(p->b)->bytes_in, counters_of(p->a)->bytes_out);
    assert_int_equal(p->a->closed + p->b->closed, 0);
}

/* Many frames in flight at once, sent in parts lent and copied. */
static void count_release(void *owner)
{
    ++*(unsigned *)owner;
}

enum { MANY = 300 };

struct many {
    uint64_t seed;
    uint8_t body[40000];
    unsigned wrong;
};

static size_t many_length(unsigned i)
{
    uint64_t seed = i * 7919 + 1;
    return random_next(&seed) % sizeof(((struct many *)0)->body);
}

static void check_many(struct side *s, struct wire_connection *c,
                       const struct wire_frame *frame)
{
    struct many *m = s->test;
    unsigned i = s->frames - 1;
    m->wrong += frame->stream != i || frame->length != 4 + many_length(i) ||
                get_u32(frame->value) != i ||
                memcmp(frame->value + 4, m->body, many_length(i)) != 0;
}

static void test_many_frames_in_parts(void **state)
{
    struct pair *p = *state;
    struct many *m = calloc(1, sizeof(*m));
    unsigned released = 0;
    random_bytes(m->body, sizeof(m->body));
    connect_sides(p->a, p->b);
    p->b->test = m;
    p->b->on_frame = check_many;
    for (unsigned i = 0; i < MANY; i++) {
        uint8_t number[4];
        put_u32(number, i);
        struct wire_part parts[] = {
            {.data = number, .length = 4},
            {.data = m->body, .length = many_length(i), count_release, &released},
        };
        assert_int_equal(wire_send(p->a->last, WIRE_RAFT_APPEND, (uint16_t)i, parts, 2),
                         0);
    }
    run_until(p->loop, p->b->frames == MANY);
    assert_int_equal(m->wrong, 0);
    run_until(p->loop, wire_queued_bytes(p->a->last) == 0);
    assert_int_equal(released, MANY);
    free(m);
}

static void note_heard(void *context, uint64_t node_id)
{
    *(uint64_t *)context = node_id;
}

static uint64_t heard_by(struct side *s)
{
    uint64_t node_id = 0;
    wire_each_heard(s->endpoint, note_heard, &node_id);
    return node_id;
}

/* A part of a frame is a sign of life, too. */
static void test_who_was_heard(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    assert_int_equal(heard_by(p->b), 1); /* its HELLO */
    assert_int_equal(heard_by(p->b), 0);
    static uint8_t large[LIMIT_FRAME_BYTES];
    wire_send_bytes(p->a->last, WIRE_RAFT_APPEND, 0, large, sizeof(large));
    while (heard_by(p->b) != 1)
        event_base_loop(p->loop, EVLOOP_ONCE);
    assert_int_equal(p->b->frames, 0);
    run_until(p->loop, p->b->frames == 1);
    heard_by(p->b);
    assert_int_equal(heard_by(p->b), 0);
    wire_send_bytes(p->a->last, WIRE_RAFT_APPEND, 0, large, 100);
    wire_close_after_sending(p->a->last);
    run_until(p->loop, p->b->closed == 1);
    assert_int_equal(heard_by(p->b), 1); /* it came, and the connection went */
    assert_int_equal(heard_by(p->b), 0);
}

static void test_parts_are_released_once(void **state)
{
    static uint8_t large[100000], small[10];
    struct pair *p = *state;
    unsigned released = 0;
    struct wire_part parts[] = {{large, sizeof(large), count_release, &released},
                                {small, sizeof(small), count_release, &released},
                                {NULL, 0, count_release, &released},
                                {small, sizeof(small), NULL, NULL}};
    struct wire_connection *c = side_dial(p->a, p->b);
    assert_int_equal(wire_send(c, WIRE_ANSWER, 1, parts, 4), -ENOTCONN);
    assert_int_equal(released, 3); /* not open */
    run_until(p->loop, p->a->opened && p->b->opened);
    assert_int_equal(wire_send(c, WIRE_ANSWER, 1, parts, 4), 0);
    run_until(p->loop, p->b->frames == 1);
    run_until(p->loop, wire_queued_bytes(c) == 0);
    assert_int_equal(released, 6); /* sent */
    assert_int_equal(p->b->value.length, sizeof(large) + 2 * sizeof(small));
    assert_int_equal(wire_send(c, WIRE_ANSWER, 1, parts, 4), 0);
    wire_close(c);
    assert_int_equal(released, 9); /* dropped */
    p->a->last = NULL;
    run_until(p->loop, p->b->closed);
    connect_sides(p->a, p->b);
    assert_int_equal(wire_send(p->a->last, WIRE_ANSWER, 1, parts, 4), 0);
    wire_refuse(p->a->last, "a test");
    assert_int_equal(wire_send(p->a->last, WIRE_ANSWER, 1, parts, 4), -ENOTCONN);
    run_until(p->loop, p->a->closed);
    assert_int_equal(released, 15);
}

static void test_back_pressure(void **state)
{
    struct pair *p = *state;
    uint8_t *chunk = calloc(1, 1 << 20);
    unsigned sent = 0;
    int rc = 0;
    connect_sides(p->a, p->b);
    while (rc == 0) {
        rc = wire_send_bytes(p->a->last, WIRE_ANSWER, 0, chunk, 1 << 20);
        sent++;
    }
    assert_int_equal(rc, -ENOBUFS);
    assert_int_equal(sent, LIMIT_SEND_QUEUE_BYTES >> 20);
    assert_int_equal(p->a->drained, 0);
    run_until(p->loop, p->a->drained);
    assert_true(wire_queued_bytes(p->a->last) < LIMIT_SEND_QUEUE_BYTES / 2);
    run_until(p->loop,
              p->b->frames == sent); /* what was over the mark was queued as well */
    assert_int_equal(p->a->drained, 1);
    free(chunk);
}

static void test_a_peer_far_behind_is_cut_off(void **state)
{
    struct pair *p = *state;
    uint8_t *chunk = calloc(1, 4 << 20);
    int rc = 0;
    connect_sides(p->a, p->b);
    while (rc != -ENOTCONN)
        rc = wire_send_bytes(p->a->last, WIRE_ANSWER, 0, chunk, 4 << 20);
    assert_int_equal(p->a->closed, 0); /* never from within */
    run_until(p->loop, p->a->closed);
    assert_non_null(strstr(p->a->reason, "too slowly"));
    free(chunk);
}

/* ---- Ends ------------------------------------------------------------------------ */

static void close_it(struct side *s, struct wire_connection *c)
{
    s->last = NULL;
    wire_close(c);
}

static void close_on_frame(struct side *s, struct wire_connection *c,
                           const struct wire_frame *frame)
{
    uint8_t before = frame->value[0];
    close_it(s, c);
    assert_int_equal(frame->value[0], before); /* the frame is there until we return */
    assert_int_equal(wire_send_bytes(c, WIRE_ANSWER, 0, "x", 1), -ENOTCONN);
}

static void test_close_in_frame(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    p->b->on_frame = close_on_frame;
    wire_send_bytes(p->a->last, WIRE_ANSWER, 0, "1", 1);
    wire_send_bytes(p->a->last, WIRE_ANSWER, 0, "2", 1);
    run_until(p->loop, p->a->closed);
    assert_int_equal(p->b->frames, 1);
    assert_int_equal(p->b->closed, 0);
    assert_int_equal(p->b->endpoint->accepted, 0);
}

static void test_close_in_opened(void **state)
{
    struct pair *p = *state;
    p->a->on_opened = close_it;
    p->b->on_opened = close_it;
    side_dial(p->a, p->b);
    run_until(p->loop, TAILQ_EMPTY(&p->a->endpoint->connections) &&
                           TAILQ_EMPTY(&p->b->endpoint->connections) && p->a->opened);
    assert_int_equal(p->a->closed, 0);
}

static void test_close_in_drained(void **state)
{
    struct pair *p = *state;
    uint8_t *chunk = calloc(1, 4 << 20);
    connect_sides(p->a, p->b);
    p->a->on_drained = close_it;
    while (wire_send_bytes(p->a->last, WIRE_ANSWER, 0, chunk, 4 << 20) == 0)
        ;
    run_until(p->loop, p->b->closed);
    assert_int_equal(p->a->drained, 1);
    assert_int_equal(p->a->closed, 0);
    free(chunk);
}

/* A handler of one connection closes another. */
static void close_other(struct side *s, struct wire_connection *c,
                        const struct wire_frame *frame)
{
    wire_close(s->test);
}

static void test_close_another(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    p->b->test = p->b->last;
    connect_sides(p->a, p->b);
    p->b->on_frame = close_other;
    wire_send_bytes(p->a->last, WIRE_ANSWER, 0, "1", 1);
    run_until(p->loop, p->a->closed);
    assert_true(wire_is_open(p->a->last));
    assert_true(wire_is_open(p->b->last));
}

static void refuse_it(struct side *s, struct wire_connection *c,
                      const struct wire_frame *frame)
{
    wire_refuse(c, "a field is missing");
    wire_refuse(c, "only the first counts");
    assert_int_equal(s->closed, 0); /* never from within */
    assert_false(wire_is_open(c));
}

static void test_refuse(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    p->b->on_frame = refuse_it;
    wire_send_bytes(p->a->last, WIRE_ANSWER, 0, "1", 1);
    wire_send_bytes(p->a->last, WIRE_ANSWER, 0, "2", 1);
    run_until(p->loop, p->a->closed && p->b->closed);
    assert_non_null(strstr(p->b->reason, "a field is missing"));
    assert_int_equal(p->b->frames, 1);
    assert_int_equal(counters_of(p->b)->malformed_frames, 1);
}

static void test_close_after_refuse(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    wire_refuse(p->b->last, "first");
    wire_close(p->b->last);
    run_until(p->loop, p->a->closed);
    assert_int_equal(p->b->closed, 0);
}

static void test_close_after_sending(void **state)
{
    struct pair *p = *state;
    uint8_t *value = calloc(1, 3 << 20);
    connect_sides(p->a, p->b);
    /* Bytes on their way to the one that closes do not make its last ones get lost. */
    wire_send_bytes(p->b->last, WIRE_ANSWER, 0, value, 1 << 20);
    wire_send_bytes(p->a->last, WIRE_ANSWER, 9, value, 3 << 20);
    wire_close_after_sending(p->a->last);
    assert_int_equal(wire_send_bytes(p->a->last, WIRE_ANSWER, 0, "x", 1), -ENOTCONN);
    run_until(p->loop, p->b->closed);
    assert_int_equal(p->b->frames, 1);
    assert_int_equal(p->b->value.length, 3 << 20);
    assert_int_equal(p->a->closed, 0);
    assert_int_equal(p->a->frames, 0);
    free(value);
}

static void test_close_after_sending_nothing(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    run_until(p->loop, wire_queued_bytes(p->a->last) == 0);
    wire_close_after_sending(p->a->last);
    run_until(p->loop, p->b->closed);
    assert_int_equal(p->a->closed, 0);
}

static void test_free_with_all_open(void **state)
{
    struct pair *p = *state;
    unsigned released = 0;
    static uint8_t large[100000];
    connect_sides(p->a, p->b);
    connect_sides(p->b, p->a);
    side_dial(p->a, p->b); /* on its way */
    struct wire_part part = {large, sizeof(large), count_release, &released};
    assert_int_equal(wire_send(p->a->last, WIRE_ANSWER, 0, &part, 1), 0);
    side_free(p->a);
    assert_int_equal(released, 1);
    run_until(p->loop, p->b->closed == 2);
    p->a = side_new(p->cl, p->loop, 1);
}

/* ---- Dialing --------------------------------------------------------------------- */

static void test_dial_closed_port(void **state)
{
    struct pair *p = *state;
    char address[64];
    strcpy(address, p->b->address);
    side_free(p->b);
    struct wire_connection *c;
    assert_int_equal(wire_dial(p->a->endpoint, address, 2, &c), 0);
    assert_int_equal(p->a->closed, 0);
    run_until(p->loop, p->a->closed);
    assert_non_null(strstr(p->a->reason, "refused"));
    assert_non_null(strstr(p->a->reason, address));
    assert_int_equal(p->a->opened, 0);
    p->b = side_new(p->cl, p->loop, 2);
}

static void test_dial_by_name(void **state)
{
    struct pair *p = *state;
    char address[64];
    struct wire_connection *c;
    snprintf(address, sizeof(address), "localhost:%u", wire_listen_port(p->b->endpoint));
    assert_int_equal(wire_dial(p->a->endpoint, address, 2, &c), 0);
    run_until(p->loop, p->a->opened && p->b->opened);
}

static void test_dial_bad_addresses(void **state)
{
    static const char *const bad[] = {"", ":1", "a:0", "a:b", "::1", "a:99999"};
    struct pair *p = *state;
    struct wire_connection *c = NULL;
    for (size_t i = 0; i < array_length(bad); i++)
        assert_int_equal(wire_dial(p->a->endpoint, bad[i], 2, &c), -EINVAL);
    assert_int_equal(wire_dial(p->a->endpoint, "a:1", 0, &c), -EINVAL);
    assert_null(c);
}

static void test_close_while_resolving(void **state)
{
    struct pair *p = *state;
    struct wire_connection *c;
    assert_int_equal(wire_dial(p->a->endpoint, "no-such-host.invalid:1", 2, &c), 0);
    wire_close(c);
    assert_int_equal(wire_dial(p->a->endpoint, "127.0.0.1:1", 2, &c), 0);
    wire_close(c);
    /* Both are gone without a word; the loop goes on. */
    connect_sides(p->a, p->b);
    assert_int_equal(p->a->closed, 0);
}

static void test_dial_in_vain_ends(void **state)
{
    struct pair *p = *state;
    struct wire_connection *c;
    wire_endpoint_timeouts(p->a->endpoint)->hello_ms = 50;
    assert_int_equal(wire_dial(p->a->endpoint, "no-such-host.invalid:1", 2, &c), 0);
    run_until(p->loop, p->a->closed);
    assert_non_null(strstr(p->a->reason, "no-such-host.invalid:1"));
}

static void test_dial_wrong_node(void **state)
{
    struct pair *p = *state;
    struct wire_connection *c;
    assert_int_equal(wire_dial(p->a->endpoint, p->b->address, 3, &c), 0);
    run_until(p->loop, p->a->closed);
    assert_non_null(strstr(p->a->reason, "node 0000000000000002 answers, not node "
                                         "0000000000000003"));
    assert_int_equal(p->a->opened, 0);
    assert_int_equal(p->b->opened, 0);
    assert_int_equal(counters_of(p->a)->refused_handshakes, 1);
}

/* ---- Listening ------------------------------------------------------------------- */

static void test_listen_errors(void **state)
{
    struct pair *p = *state;
    char error[WIRE_ERROR_BYTES], expected[WIRE_ERROR_BYTES];
    assert_int_equal(wire_listen(p->a->endpoint, p->b->address, error), -EADDRINUSE);
    snprintf(expected, sizeof(expected),
             "cannot listen on %s: the port is already in use by another process",
             p->b->address);
    assert_string_equal(error, expected);
    error[0] = 0;
    assert_int_equal(wire_listen_try(p->b->address, error), -EADDRINUSE);
    assert_string_equal(error, expected);
    assert_int_equal(wire_listen_try("127.0.0.1:0", error), 0);
    assert_int_equal(wire_listen(p->a->endpoint, "192.0.2.1:0", error), -EADDRNOTAVAIL);
    assert_non_null(strstr(error, "no such address"));
    assert_int_equal(wire_listen(p->a->endpoint, "::1", error), -EINVAL);
    assert_non_null(strstr(error, "[V6]:PORT"));
}

static void test_listen_everywhere(void **state)
{
    struct pair *p = *state;
    char error[WIRE_ERROR_BYTES], address[64];
    struct wire_connection *c;
    assert_int_equal(wire_listen(p->b->endpoint, ":0", error), 0);
    struct listener *l = &p->b->endpoint->listeners[1];
    struct sockaddr_storage at;
    socklen_t size = sizeof(at);
    assert_int_equal(
        getsockname(evconnlistener_get_fd(l->listener), (struct sockaddr *)&at, &size),
        0);
    snprintf(address, sizeof(address), "127.0.0.1:%u",
             ntohs(((struct sockaddr_in *)&at)->sin_port)); /* the same place in both */
    assert_int_equal(wire_dial(p->a->endpoint, address, 2, &c), 0);
    run_until(p->loop, p->b->opened);
}

enum { CONNECTIONS = 1000, WAVE = 100 };

static void test_a_thousand_connections(void **state)
{
    struct pair *p = *state;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < 2 * CONNECTIONS + 100)
        skip();
    for (unsigned i = 0; i < CONNECTIONS; i += WAVE) {
        for (unsigned j = 0; j < WAVE; j++)
            side_dial(p->a, p->b);
        run_until(p->loop, p->a->opened == i + WAVE && p->b->opened == i + WAVE);
    }
    struct wire_connection *c;
    TAILQ_FOREACH(c, &p->a->endpoint->connections, link)
    assert_int_equal(wire_send_bytes(c, WIRE_ANSWER, 0, "x", 1), 0);
    run_until(p->loop, p->b->frames == CONNECTIONS);
    assert_int_equal(p->b->endpoint->accepted, CONNECTIONS);
    side_free(p->a);
    run_until(p->loop, p->b->closed == CONNECTIONS);
    assert_int_equal(p->b->endpoint->accepted, 0);
    p->a = side_new(p->cl, p->loop, 1);
}

/* ---- How long a round takes ------------------------------------------------------ */

enum { ROUNDS = 5000, PING_BYTES = 200 };

static void pong(struct side *s, struct wire_connection *c,
                 const struct wire_frame *frame)
{
    if (s->frames < ROUNDS)
        wire_send_bytes(c, frame->type, frame->stream, frame->value, frame->length);
}

static void test_ping_pong(void **state)
{
    struct pair *p = *state;
    uint8_t value[PING_BYTES] = {0};
    connect_sides(p->a, p->b);
    p->a->on_frame = pong;
    p->b->on_frame = pong;
    uint64_t begin = clock_boot_us();
    wire_send_bytes(p->a->last, WIRE_RAFT_APPEND, 0, value, sizeof(value));
    run_until(p->loop, p->a->frames + p->b->frames >= 2 * ROUNDS - 1);
    print_message("a round of %d bytes: %.1f us\n", PING_BYTES,
                  (double)(clock_boot_us() - begin) / ROUNDS);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, pair_setup, pair_teardown)
    const struct CMUnitTest tests[] = {
        with(test_opens),
        with(test_sizes),
        with(test_many_frames_in_parts),
        with(test_who_was_heard),
        with(test_parts_are_released_once),
        with(test_back_pressure),
        with(test_a_peer_far_behind_is_cut_off),
        with(test_close_in_frame),
        with(test_close_in_opened),
        with(test_close_in_drained),
        with(test_close_another),
        with(test_refuse),
        with(test_close_after_refuse),
        with(test_close_after_sending),
        with(test_close_after_sending_nothing),
        with(test_free_with_all_open),
        with(test_dial_closed_port),
        with(test_dial_by_name),
        with(test_dial_bad_addresses),
        with(test_close_while_resolving),
        with(test_dial_in_vain_ends),
        with(test_dial_wrong_node),
        with(test_listen_errors),
        with(test_listen_everywhere),
        with(test_a_thousand_connections),
        with(test_ping_pong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
