/* test_peers.c - when a peer is dialed anew. */
#include "one_node.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { PEER = 77, WAITING = 8 };

/* A host that answers nobody any more: its queue of connections is full. */
struct busy_host {
    int listening, waiting[WAITING];
    struct wire_hello hello;
};

static void fill_queue(struct busy_host *h, const struct sockaddr_in *at)
{
    for (size_t i = 0; i < WAITING; i++) {
        h->waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(h->waiting[i], (const struct sockaddr *)at, sizeof(*at));
    }
}

static void make_busy_host(struct busy_host *h)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    h->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(h->listening, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(h->listening, 0), 0);
    assert_int_equal(getsockname(h->listening, (struct sockaddr *)&at, &size), 0);
    fill_queue(h, &at);
    h->hello = (struct wire_hello){.version = WIRE_PROTOCOL_VERSION, .node_id = PEER};
    snprintf(h->hello.address, sizeof(h->hello.address), "127.0.0.1:%u",
             ntohs(at.sin_port));
}

static void remove_busy_host(struct busy_host *h)
{
    for (size_t i = 0; i < WAITING; i++)
        close(h->waiting[i]);
    close(h->listening);
}

/* A connection of the peer's comes: of it only that it is none of this node's is asked. */
static uint64_t dials_when_it_comes(struct node *n, const struct busy_host *h)
{
    char its_own;
    uint64_t before = wire_endpoint_counters(n->endpoint)->dialed;
    peers_opened(n, (struct wire_connection *)&its_own, &h->hello);
    return wire_endpoint_counters(n->endpoint)->dialed - before;
}

static bool is_dialed(struct node *n, void *arg)
{
    return wire_is_connecting(peers_find(n, PEER)->connection);
}

/* N41 */
static void test_a_dial_in_vain_is_begun_anew_when_the_peer_comes(void **state)
{
    struct busy_host h;
    struct node *n = one_node_start();
    make_busy_host(&h);
    assert_int_equal(dials_when_it_comes(n, &h), 1);
    one_node_run(n, is_dialed, NULL);
    assert_int_equal(dials_when_it_comes(n, &h), 0); /* it may yet be answered */
    struct peer *p = peers_find(n, PEER);
    p->dialed_us -= NODE_DIAL_STALE_US;
    assert_int_equal(dials_when_it_comes(n, &h), 1);
    assert_int_equal(dials_when_it_comes(n, &h), 0);
    remove_busy_host(&h);
    one_node_stop(n);
}

static bool is_answered(struct node *n, void *arg)
{
    return !wire_is_connecting(peers_find(n, PEER)->connection);
}

/* Both might else close what the other is about to open, again and again. */
static void test_a_handshake_under_way_goes_on(void **state)
{
    struct busy_host h;
    struct node *n = one_node_start();
    make_busy_host(&h);
    listen(h.listening, 2 * WAITING); /* there is room again */
    assert_int_equal(dials_when_it_comes(n, &h), 1);
    one_node_run(n, is_answered, NULL);
    peers_find(n, PEER)->dialed_us -= NODE_DIAL_STALE_US;
    assert_int_equal(dials_when_it_comes(n, &h), 0);
    remove_busy_host(&h);
    one_node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_dial_in_vain_is_begun_anew_when_the_peer_comes),
        cmocka_unit_test(test_a_handshake_under_way_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
