/*
 * test_silence.c - W7: a link that is cut without a word is noticed, at both ends, sooner
 * than a dial in vain ends; a peer that takes nothing, on a host that does, is not silent.
 */
#include "harness.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SENT_EVERY_MS = 50 };

struct stage {
    struct cluster *cl;
    struct event_base *loop;
    struct side *a, *b;
    struct side *dialer; /* dials in vain all the while */
    int nobody;          /* listens, and never answers */
    struct event *often;
};

static int listen_for_nobody(uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

static void dial_nobody(struct stage *t)
{
    uint16_t port;
    char address[32];
    struct wire_connection *c;
    t->nobody = listen_for_nobody(&port);
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    assert_int_equal(wire_dial(t->dialer->endpoint, address, 9, &c), 0);
}

static void send_some(evutil_socket_t fd, short what, void *context)
{
    struct stage *t = context;
    if (t->a->last)
        wire_send_bytes(t->a->last, WIRE_RAFT_APPEND, 0, "beat", 4);
}

static int setup(void **state)
{
    struct stage *t = calloc(1, sizeof(*t));
    t->cl = cluster_new();
    t->loop = loop_new();
    t->a = side_new(t->cl, t->loop, 1);
    t->b = side_new(t->cl, t->loop, 2);
    t->dialer = side_new(t->cl, t->loop, 3);
    t->often = event_new(t->loop, -1, EV_PERSIST, send_some, t);
    connect_sides(t->a, t->b);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct stage *t = *state;
    event_free(t->often);
    side_free(t->a);
    side_free(t->b);
    side_free(t->dialer);
    loop_free(t->loop);
    cluster_free(t->cl);
    close(t->nobody);
    free(t);
    return 0;
}

static void send_often(struct stage *t)
{
    event_add(t->often, &(struct timeval){.tv_usec = SENT_EVERY_MS * 1000});
}

/* What comes is dropped before TCP sees it: nothing is acknowledged, refused or reset. */
static void make_deaf(const struct side *s)
{
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog all = {.len = 1, .filter = &drop};
    int fd = bufferevent_getfd(s->last->bev);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &all, sizeof(all)), 0);
}

static void until_noticed(struct stage *t)
{
    dial_nobody(t);
    run_until(t->loop, (t->a->closed && t->b->closed) || t->dialer->closed);
    assert_int_equal(t->a->closed, 1);
    assert_int_equal(t->b->closed, 1);
    assert_int_equal(t->dialer->closed, 0);
}

/* One end sends all the time, the other has nothing to say. */
static void test_a_cut_is_noticed(void **state)
{
    struct stage *t = *state;
    make_deaf(t->a);
    make_deaf(t->b);
    send_often(t);
    until_noticed(t);
}

static void test_a_cut_of_an_idle_connection_is_noticed(void **state)
{
    struct stage *t = *state;
    make_deaf(t->a);
    make_deaf(t->b);
    until_noticed(t);
}

/* What the one sends arrives, and that it did does not come back. */
static void test_a_cut_one_way_is_noticed(void **state)
{
    struct stage *t = *state;
    make_deaf(t->a);
    send_often(t);
    dial_nobody(t);
    run_until(t->loop, t->a->closed || t->dialer->closed);
    assert_int_equal(t->a->closed, 1);
    assert_int_equal(t->dialer->closed, 0);
}

static void test_a_peer_that_is_stopped_is_not_silent(void **state)
{
    struct stage *t = *state;
    bufferevent_disable(t->b->last->bev, EV_READ);
    send_often(t);
    dial_nobody(t);
    run_until(t->loop, t->dialer->closed);
    assert_int_equal(t->a->closed, 0);
    bufferevent_enable(t->b->last->bev, EV_READ);
    run_until(t->loop, t->b->frames > 0);
    assert_int_equal(t->b->closed, 0);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_a_cut_is_noticed),
        with(test_a_cut_of_an_idle_connection_is_noticed),
        with(test_a_cut_one_way_is_noticed),
        with(test_a_peer_that_is_stopped_is_not_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
