/* test_call.c - the control socket, and the command line's blocking calls against a node.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct setting {
    struct cluster *cl;
    struct event_base *loop;
    struct side *s;
    char directory[64], path[128];
    uint8_t ca_hash[WIRE_HASH_BYTES];
};

static int setup(void **state)
{
    struct setting *t = calloc(1, sizeof(*t));
    t->cl = cluster_new();
    t->loop = loop_new();
    t->s = side_new(t->cl, t->loop, 1);
    strcpy(t->directory, "/tmp/tierce-wire-XXXXXX");
    assert_non_null(mkdtemp(t->directory));
    snprintf(t->path, sizeof(t->path), "%s/control", t->directory);
    assert_int_equal(wire_pki_fingerprint(t->cl->ca_cert, t->ca_hash), 0);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct setting *t = *state;
    side_free(t->s);
    assert_int_equal(access(t->path, F_OK), -1); /* the node took its socket with it */
    assert_int_equal(rmdir(t->directory), 0);
    loop_free(t->loop);
    cluster_free(t->cl);
    free(t);
    return 0;
}

static void listen_local(struct setting *t)
{
    char error[WIRE_ERROR_BYTES];
    assert_int_equal(wire_listen_local(t->s->endpoint, t->path, error), 0);
}

/* ---- A blocking call, in a thread while the loop runs here ----------------------- */

struct call {
    struct setting *setting;
    const char *address; /* of a join; NULL: a local call on `fd` */
    uint8_t ca_hash[WIRE_HASH_BYTES];
    int fd;
    const void *request;
    size_t length;
    unsigned timeout_ms;
    struct buf answer;
    char error[WIRE_ERROR_BYTES];
    int rc;
    int done[2]; /* a pipe: wakes the loop */
};

static void *run_call(void *context)
{
    struct call *call = context;
    call->rc = call->address ? wire_call_join(call->address, call->ca_hash, call->request,
                                              call->length, call->timeout_ms,
                                              &call->answer, call->error)
                             : wire_call_local(call->fd, call->request, call->length,
                                               call->timeout_ms, &call->answer);
    close(call->done[1]);
    return NULL;
}

static void call_is_done(evutil_socket_t fd, short what, void *context)
{
    event_base_loopbreak(context);
}

static int do_call(struct call *call)
{
    pthread_t thread;
    struct event_base *loop = call->setting->loop;
    assert_int_equal(pipe(call->done), 0);
    struct event *done = event_new(loop, call->done[0], EV_READ, call_is_done, loop);
    event_add(done, NULL);
    assert_int_equal(pthread_create(&thread, NULL, run_call, call), 0);
    event_base_dispatch(loop);
    pthread_join(thread, NULL);
    event_free(done);
    close(call->done[0]);
    return call->rc;
}

static struct call join_call(struct setting *t)
{
    struct call call = {.setting = t,
                        .address = t->s->address,
                        .request = "let me in",
                        .length = 9,
                        .timeout_ms = 20000};
    memcpy(call.ca_hash, t->ca_hash, sizeof(call.ca_hash));
    return call;
}

/* ---- Joining --------------------------------------------------------------------- */

static void welcome(struct side *s, struct wire_connection *c,
                    const struct wire_frame *frame)
{
    wire_send_bytes(c, WIRE_JOIN_ANSWER, frame->stream, "\0welcome", 8);
    wire_close_after_sending(c);
}

static void test_join(void **state)
{
    struct setting *t = *state;
    struct call call = join_call(t);
    t->s->on_frame = welcome;
    assert_int_equal(do_call(&call), 0);
    assert_int_equal(t->s->type, WIRE_JOIN);
    assert_int_equal(t->s->value.length, 9);
    assert_memory_equal(t->s->value.data, "let me in", 9);
    assert_int_equal(call.answer.length, 8);
    assert_memory_equal(call.answer.data, "\0welcome", 8);
    buf_release(&call.answer);
}

static void test_join_wrong_hash(void **state)
{
    struct setting *t = *state;
    struct call call = join_call(t);
    call.ca_hash[31] ^= 1;
    assert_int_equal(do_call(&call), -EKEYREJECTED);
    assert_non_null(strstr(call.error, "another cluster"));
    assert_int_equal(t->s->opened + t->s->frames, 0); /* its secret was not told */
}

/* A leaf of an impostor's own CA, with the real CA's certificate shown beside it. */
static void test_join_impostor(void **state)
{
    struct setting *t = *state;
    struct cluster *other = cluster_new();
    struct side *impostor = side_new(other, t->loop, 3);
    X509 *ca = pki_read_certificate(t->cl->ca_cert);
    SSL_CTX_add1_chain_cert(impostor->endpoint->tls, ca);
    X509_free(ca);
    struct call call = join_call(t);
    call.address = impostor->address;
    assert_int_equal(do_call(&call), -EKEYREJECTED);
    assert_non_null(strstr(call.error, "no valid certificate"));
    assert_int_equal(impostor->frames, 0);
    side_free(impostor);
    cluster_free(other);
}

static void test_join_nobody_there(void **state)
{
    struct setting *t = *state;
    struct side *gone = side_new(t->cl, t->loop, 3);
    char address[64];
    strcpy(address, gone->address);
    side_free(gone);
    struct call call = join_call(t);
    call.address = address;
    assert_int_equal(do_call(&call), -ECONNREFUSED);
    assert_non_null(strstr(call.error, address));
    call.address = "nonsense:nonsense";
    assert_int_equal(do_call(&call), -EINVAL);
    call.address = "no-such-host.invalid:1";
    assert_int_equal(do_call(&call), -EHOSTUNREACH);
    assert_non_null(strstr(call.error, "no-such-host.invalid"));
}

static void test_join_no_answer(void **state)
{
    struct setting *t = *state;
    struct call call = join_call(t);
    call.timeout_ms = 300; /* the node's handler says nothing */
    assert_int_equal(do_call(&call), -ETIMEDOUT);
    assert_non_null(strstr(call.error, "in time"));
}

static void refuse_join(struct side *s, struct wire_connection *c,
                        const struct wire_frame *frame)
{
    wire_close(c);
    s->last = NULL;
}

static void test_join_is_cut(void **state)
{
    struct setting *t = *state;
    struct call call = join_call(t);
    t->s->on_frame = refuse_join;
    assert_int_equal(do_call(&call), -EPIPE);
    assert_non_null(strstr(call.error, "closed the connection"));
}

static void test_join_another_version(void **state)
{
    struct setting *t = *state;
    struct call call = join_call(t);
    side_speaks(t->s, WIRE_PROTOCOL_VERSION + 1, WIRE_PROTOCOL_VERSION + 2);
    assert_int_equal(do_call(&call), -EPROTONOSUPPORT);
    char expected[200];
    snprintf(expected, sizeof(expected),
             "node1 speaks protocol versions %u to %u, the other version %u",
             WIRE_PROTOCOL_VERSION + 1, WIRE_PROTOCOL_VERSION + 2, WIRE_PROTOCOL_VERSION);
    assert_non_null(strstr(call.error, expected));
    assert_int_equal(call.answer.length, 0);
    assert_int_equal(t->s->opened + t->s->frames, 0);
    side_speaks(t->s, 1, WIRE_PROTOCOL_VERSION + 2); /* and newer is none the worse */
    t->s->on_frame = welcome;
    assert_int_equal(do_call(&call), 0);
    assert_int_equal(t->s->asked, 0); /* a joiner is judged by its JOIN */
    buf_release(&call.answer);
}

/* ---- The control socket ---------------------------------------------------------- */

static void echo(struct side *s, struct wire_connection *c,
                 const struct wire_frame *frame)
{
    assert_int_equal(frame->type, WIRE_CONTROL);
    assert_int_equal(wire_kind(c), WIRE_PEER_LOCAL);
    wire_send_bytes(c, WIRE_CONTROL_ANSWER, frame->stream, frame->value, frame->length);
}

static void local_round(struct setting *t, int fd, size_t length)
{
    struct call call = {.setting = t, .fd = fd, .length = length, .timeout_ms = 20000};
    uint8_t *request = malloc(length + 1);
    random_bytes(request, length);
    call.request = request;
    assert_int_equal(do_call(&call), 0);
    assert_int_equal(call.answer.length, length);
    if (length)
        assert_memory_equal(call.answer.data, request, length);
    buf_release(&call.answer);
    free(request);
}

static void test_local(void **state)
{
    struct setting *t = *state;
    struct stat st;
    int fd;
    assert_int_equal(wire_call_local_open(t->path, &fd), -ENOENT);
    listen_local(t);
    assert_int_equal(stat(t->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(wire_call_local_open(t->path, &fd), 0);
    run_until(t->loop, t->s->opened);
    assert_int_equal(t->s->hello.node_id, 0);
    assert_int_equal(wire_kind(t->s->last), WIRE_PEER_LOCAL);
    t->s->on_frame = echo;
    local_round(t, fd, 0);
    local_round(t, fd, 5);
    local_round(t, fd, LIMIT_FRAME_BYTES);
    local_round(t, fd, 100);
    assert_int_equal(wire_call_local(fd, "", LIMIT_FRAME_BYTES + 1, 0, NULL), -EMSGSIZE);
    close(fd);
    run_until(t->loop, t->s->closed);
    assert_int_equal(t->s->endpoint->local, 0);
}

static void test_local_long_path(void **state)
{
    struct setting *t = *state;
    char deep[256], path[300], error[WIRE_ERROR_BYTES];
    snprintf(deep, sizeof(deep), "%s/%0150d", t->directory, 1);
    assert_int_equal(mkdir(deep, 0700), 0);
    snprintf(path, sizeof(path), "%s/control", deep);
    int fd;
    assert_int_equal(wire_call_local_open(path, &fd), -ENOENT);
    assert_int_equal(wire_listen_local(t->s->endpoint, path, error), 0);
    assert_int_equal(wire_call_local_open(path, &fd), 0);
    t->s->on_frame = echo;
    local_round(t, fd, 5);
    close(fd);
    side_free(t->s);
    assert_int_equal(rmdir(deep), 0);
    t->s = side_new(t->cl, t->loop, 1);
}

static void test_local_takes_over(void **state)
{
    struct setting *t = *state;
    char error[WIRE_ERROR_BYTES];
    struct side *second = side_new(t->cl, t->loop, 2);
    listen_local(t);
    assert_int_equal(wire_listen_local(second->endpoint, t->path, error), -EADDRINUSE);
    assert_non_null(strstr(error, "a node runs there"));
    side_free(second);
    /* A node that was killed leaves its socket behind. */
    free(t->s->endpoint->local_path);
    t->s->endpoint->local_path = NULL;
    side_free(t->s);
    assert_int_equal(access(t->path, F_OK), 0);
    int fd;
    assert_int_equal(wire_call_local_open(t->path, &fd), -ECONNREFUSED);
    t->s = side_new(t->cl, t->loop, 1);
    listen_local(t);
    assert_int_equal(wire_call_local_open(t->path, &fd), 0);
    close(fd);
}

static void test_local_spares_other_files(void **state)
{
    struct setting *t = *state;
    char error[WIRE_ERROR_BYTES];
    FILE *f = fopen(t->path, "w");
    fclose(f);
    assert_int_equal(wire_listen_local(t->s->endpoint, t->path, error), -EEXIST);
    assert_non_null(strstr(error, "no socket"));
    assert_int_equal(unlink(t->path), 0);
    assert_int_equal(wire_listen_local(t->s->endpoint, "/nonexistent/control", error),
                     -ENOENT);
    assert_non_null(strstr(error, "directory does not exist"));
}

static void test_local_other_types(void **state)
{
    struct setting *t = *state;
    struct raw r = {.loop = t->loop};
    listen_local(t);
    assert_int_equal(wire_call_local_open(t->path, &r.fd), 0);
    t->s->on_frame = echo;
    static const uint8_t others[] = {WIRE_HELLO, WIRE_JOIN, WIRE_OPERATION,
                                     WIRE_RAFT_VOTE};
    for (size_t i = 0; i < sizeof(others); i++) {
        uint8_t answer[WIRE_FRAME_HEADER + 1];
        raw_send_frame(&r, others[i], 4, "x", 1);
        assert_true(raw_receive(&r, answer, sizeof(answer)));
        assert_int_equal(answer[0], WIRE_ERROR);
        assert_int_equal(answer[7], others[i]);
    }
    assert_int_equal(t->s->frames, 0);
    local_round(t, r.fd, 7);
    raw_send(&r, "\x30\x00\x00\xff\xff\xff\xff", 7);
    raw_until_closed(&r);
    assert_int_equal(counters_of(t->s)->oversized_frames, 1);
    raw_close(&r);
}

static void hold_back(struct side *s, struct wire_connection *c,
                      const struct wire_frame *frame)
{
    if (s->frames == 2) { /* the late answer to the first call, then the second's */
        wire_send_bytes(c, WIRE_CONTROL_ANSWER, (uint16_t)(frame->stream + 1), "late", 4);
        wire_send_bytes(c, WIRE_CONTROL_ANSWER, frame->stream, "right", 5);
    }
}

static void test_local_late_answer(void **state)
{
    struct setting *t = *state;
    int fd;
    listen_local(t);
    t->s->on_frame = hold_back;
    assert_int_equal(wire_call_local_open(t->path, &fd), 0);
    struct call call = {
        .setting = t, .fd = fd, .request = "x", .length = 1, .timeout_ms = 50};
    assert_int_equal(do_call(&call), -ETIMEDOUT);
    run_until(t->loop, t->s->frames == 1);
    call.timeout_ms = 0;
    assert_int_equal(do_call(&call), 0);
    assert_int_equal(call.answer.length, 5);
    buf_release(&call.answer);
    close(fd);
}

static void go_away(struct side *s, struct wire_connection *c,
                    const struct wire_frame *frame)
{
    wire_close(c);
    s->last = NULL;
}

static void test_local_node_goes_away(void **state)
{
    struct setting *t = *state;
    int fd;
    listen_local(t);
    t->s->on_frame = go_away;
    assert_int_equal(wire_call_local_open(t->path, &fd), 0);
    struct call call = {.setting = t, .fd = fd, .request = "x", .length = 1};
    assert_int_equal(do_call(&call), -EPIPE);
    assert_int_equal(do_call(&call), -EPIPE); /* and no SIGPIPE */
    close(fd);
}

/* The one who asked is gone before its answer: no SIGPIPE on this side either. */
static void test_local_caller_goes_away(void **state)
{
    struct setting *t = *state;
    uint8_t *large = calloc(1, 1 << 20);
    int fd;
    listen_local(t);
    assert_int_equal(wire_call_local_open(t->path, &fd), 0);
    run_until(t->loop, t->s->opened);
    wire_send_bytes(t->s->last, WIRE_CONTROL_ANSWER, 0, large, 1 << 20);
    close(fd);
    run_until(t->loop, t->s->closed);
    free(large);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_join),
        with(test_join_wrong_hash),
        with(test_join_impostor),
        with(test_join_nobody_there),
        with(test_join_no_answer),
        with(test_join_is_cut),
        with(test_join_another_version),
        with(test_local),
        with(test_local_long_path),
        with(test_local_takes_over),
        with(test_local_spares_other_files),
        with(test_local_other_types),
        with(test_local_late_answer),
        with(test_local_node_goes_away),
        with(test_local_caller_goes_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
