/*
 * test_identity.c - another certificate, and another CA, under open connections: who goes
 * on, who ends, and who is let in.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>

enum { OLD, NEW, CAS };

struct rotating {
    struct cluster *cl;
    char *ca_key[CAS], *ca[CAS]; /* the first is the cluster's */
    struct event_base *loop;
    struct side *sides[2];
    char *keys[2];
    char error[WIRE_ERROR_BYTES];
};

static int setup(void **state)
{
    struct rotating *p = calloc(1, sizeof(*p));
    p->cl = cluster_new();
    p->ca_key[OLD] = p->cl->ca_key;
    p->ca[OLD] = p->cl->ca_cert;
    assert_int_equal(wire_pki_make_ca(p->cl->id, &p->ca_key[NEW], &p->ca[NEW]), 0);
    p->loop = loop_new();
    for (uint64_t i = 0; i < 2; i++) {
        p->sides[i] = side_new(p->cl, p->loop, i + 1);
        assert_int_equal(wire_pki_make_key(&p->keys[i]), 0);
    }
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct rotating *p = *state;
    for (size_t i = 0; i < 2; i++) {
        side_free(p->sides[i]);
        free(p->keys[i]);
    }
    loop_free(p->loop);
    free(p->ca_key[NEW]);
    free(p->ca[NEW]);
    cluster_free(p->cl);
    free(p);
    return 0;
}

/* Gives a side a certificate of one CA, and makes it believe these; both: CAS. */
static int identify(struct rotating *p, size_t side, int signer, int believed)
{
    char *request, *cert, *cas;
    assert_int_equal(wire_pki_make_request(p->keys[side], &request), 0);
    assert_int_equal(wire_pki_sign(p->ca_key[signer], p->ca[signer], request, p->cl->id,
                                   side + 1, "", 1000, &cert),
                     0);
    assert_true(asprintf(&cas, "%s%s", p->ca[believed == CAS ? OLD : believed],
                         believed == CAS ? p->ca[NEW] : "") > 0);
    struct wire_identity identity = {
        .ca_pem = cas, .cert_pem = cert, .key_pem = p->keys[side], .node_id = side + 1};
    memcpy(identity.cluster_id, p->cl->id, sizeof(p->cl->id));
    int rc = wire_endpoint_set_identity(p->sides[side]->endpoint, &identity, p->error);
    free(request);
    free(cert);
    free(cas);
    return rc;
}

static X509 *shown_to(struct side *s)
{
    return SSL_get0_peer_certificate(bufferevent_openssl_get_ssl(s->last->bev));
}

static bool is_signed_by(X509 *certificate, const char *ca_pem)
{
    X509 *ca = pki_read_certificate(ca_pem);
    bool is = X509_verify(certificate, X509_get0_pubkey(ca)) == 1;
    X509_free(ca);
    return is;
}

static void exchange(struct rotating *p, struct side *from, struct side *to)
{
    unsigned had = to->frames;
    assert_int_equal(wire_send_bytes(from->last, WIRE_RAFT_VOTE, 0, "x", 1), 0);
    run_until(p->loop, to->frames > had);
}

static void test_renewed(void **state)
{
    struct rotating *p = *state;
    struct side *a = p->sides[0], *b = p->sides[1];
    connect_sides(a, b);
    X509 *before = shown_to(a);
    X509_up_ref(before);
    assert_int_equal(identify(p, 1, OLD, OLD), 0);
    exchange(p, a, b);
    exchange(p, b, a);
    assert_int_equal(a->closed + b->closed, 0);
    connect_sides(a, b);
    assert_int_not_equal(X509_cmp(before, shown_to(a)), 0);
    exchange(p, a, b);
    X509_free(before);
}

/* The four steps of a rotation, one side after the other: at each the two can meet. */
static void test_ca_replaced(void **state)
{
    static const int steps[][2] = {{OLD, CAS}, {NEW, CAS}, {NEW, NEW}};
    struct rotating *p = *state;
    struct side *a = p->sides[0], *b = p->sides[1];
    connect_sides(a, b);
    for (size_t i = 0; i < array_length(steps); i++)
        for (size_t side = 0; side < 2; side++) {
            assert_int_equal(identify(p, side, steps[i][0], steps[i][1]), 0);
            connect_sides(a, b);
            exchange(p, a, b);
            connect_sides(b, a);
            exchange(p, b, a);
        }
    assert_true(is_signed_by(shown_to(a), p->ca[NEW]));
    assert_true(is_signed_by(shown_to(b), p->ca[NEW]));
}

static void test_of_the_former_ca(void **state)
{
    struct rotating *p = *state;
    struct side *a = p->sides[0], *b = p->sides[1];
    connect_sides(a, b);
    assert_int_equal(identify(p, 1, OLD, CAS), 0);
    assert_int_equal(identify(p, 0, NEW, CAS), 0);
    exchange(p, b, a);
    /* b's certificate is of the former CA still: when a no longer believes it, b is out. */
    assert_int_equal(identify(p, 0, NEW, NEW), 0);
    assert_int_equal(a->closed, 0); /* never from within */
    run_until(p->loop, a->closed && b->closed);
    assert_non_null(strstr(a->reason, "of a CA that was replaced"));
    uint64_t refused = counters_of(a)->refused_handshakes;
    side_dial(b, a);
    run_until(p->loop, b->closed == 2 && counters_of(a)->refused_handshakes > refused);
    assert_int_equal(b->opened, 1);
}

static void test_replaced_in_the_handshake(void **state)
{
    struct rotating *p = *state;
    struct side *a = p->sides[0], *b = p->sides[1];
    assert_int_equal(identify(p, 0, NEW, CAS), 0);
    assert_int_equal(identify(p, 1, OLD, CAS), 0);
    side_dial(b, a);
    run_until(p->loop, !TAILQ_EMPTY(&a->endpoint->connections)); /* accepted, no more */
    assert_int_equal(a->opened, 0);
    assert_int_equal(identify(p, 0, NEW, NEW), 0);
    run_until(p->loop, b->closed && TAILQ_EMPTY(&a->endpoint->connections));
    assert_int_equal(a->opened, 0);
    assert_int_equal(counters_of(a)->refused_handshakes, 1);
}

static void test_unfit(void **state)
{
    struct rotating *p = *state;
    struct side *a = p->sides[0], *b = p->sides[1];
    connect_sides(a, b);
    assert_int_equal(identify(p, 0, OLD, NEW), -EKEYREJECTED);
    assert_non_null(strstr(p->error, "not one of this cluster's CA"));
    exchange(p, a, b);
    connect_sides(b, a);
    assert_true(is_signed_by(shown_to(b), p->ca[OLD]));
}

/* A joiner knows one CA by its hash: the token's. */
struct join {
    const char *address;
    uint8_t ca_hash[WIRE_HASH_BYTES];
    struct buf answer;
    int rc;
    _Atomic bool done;
    char error[WIRE_ERROR_BYTES];
};

static void *run_join(void *arg)
{
    struct join *j = arg;
    j->rc = wire_call_join(j->address, j->ca_hash, "x", 1, 20000, &j->answer, j->error);
    j->done = true;
    return NULL;
}

static void welcome(struct side *s, struct wire_connection *c,
                    const struct wire_frame *frame)
{
    wire_send_bytes(c, WIRE_JOIN_ANSWER, frame->stream, "", 1);
    wire_close_after_sending(c);
}

static int join(struct rotating *p, int ca, char error[WIRE_ERROR_BYTES])
{
    struct side *s = p->sides[0];
    struct join j = {.address = s->address};
    pthread_t thread;
    s->on_frame = welcome;
    assert_int_equal(wire_pki_fingerprint(p->ca[ca], j.ca_hash), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_join, &j), 0);
    while (!j.done) {
        struct timeval pause = {.tv_usec = 1000};
        event_base_loopexit(p->loop, &pause);
        event_base_dispatch(p->loop);
    }
    pthread_join(thread, NULL);
    buf_release(&j.answer);
    memcpy(error, j.error, sizeof(j.error));
    return j.rc;
}

static void test_tokens(void **state)
{
    struct rotating *p = *state;
    char error[WIRE_ERROR_BYTES];
    assert_int_equal(identify(p, 0, NEW, CAS), 0);
    assert_int_equal(join(p, OLD, error), -EKEYREJECTED);
    assert_non_null(strstr(error, "replacing its CA, run `tierce invite`"));
    assert_int_equal(identify(p, 0, NEW, NEW), 0);
    assert_int_equal(join(p, OLD, error), -EKEYREJECTED);
    assert_non_null(strstr(error, "has replaced its CA since the token was made"));
    assert_int_equal(join(p, NEW, error), 0);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_renewed),
        with(test_ca_replaced),
        with(test_of_the_former_ca),
        with(test_replaced_in_the_handshake),
        with(test_unfit),
        with(test_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
