/* test_versions.c - which version two ends speak, who is not let in, and what it is told. */
#include "harness.h"

enum { OWN = WIRE_PROTOCOL_VERSION };

static void run_until_gone(struct pair *p)
{
    run_until(p->loop, TAILQ_EMPTY(&p->a->endpoint->connections) &&
                           TAILQ_EMPTY(&p->b->endpoint->connections));
}

/* ---- Versions -------------------------------------------------------------------- */

static void expect_version(struct pair *p, uint16_t version)
{
    connect_sides(p->a, p->b);
    assert_int_equal(wire_version(p->a->last), version);
    assert_int_equal(wire_version(p->b->last), version);
    wire_close(p->a->last);
    run_until_gone(p);
}

static void test_the_newest_of_both(void **state)
{
    struct pair *p = *state;
    expect_version(p, OWN);
    side_speaks(p->b, OWN, OWN + 1);
    expect_version(p, OWN);
    side_speaks(p->a, OWN + 1, OWN + 7);
    expect_version(p, OWN + 1);
    side_speaks(p->b, OWN + 7, OWN + 9);
    expect_version(p, OWN + 7);
    assert_int_equal(counters_of(p->a)->refused_hellos, 0);
    assert_int_equal(p->b->hello.version, OWN + 7);
    assert_int_equal(p->b->hello.oldest, OWN + 1);
}

/* Both find out, and each of them says so or is told: whichever came first. */
static void expect_no_version(struct pair *p)
{
    unsigned had = p->a->closed;
    uint64_t refused =
        counters_of(p->a)->refused_hellos + counters_of(p->b)->refused_hellos;
    side_dial(p->a, p->b);
    run_until(p->loop, p->a->closed > had);
    run_until_gone(p);
    assert_true(counters_of(p->a)->refused_hellos + counters_of(p->b)->refused_hellos >
                refused);
    assert_non_null(strstr(p->a->reason, "speaks protocol version"));
    assert_non_null(strstr(p->a->reason, "upgrade the older one's program"));
    assert_int_equal(p->a->opened + p->b->opened + p->b->closed, 0);
    assert_int_equal(p->a->asked + p->b->asked, 0);
    assert_int_equal(p->b->endpoint->accepted + p->b->endpoint->unproven, 0);
}

static void test_none_in_common(void **state)
{
    struct pair *p = *state;
    side_speaks(p->b, OWN + 1, OWN + 2);
    expect_no_version(p);
    side_speaks(p->a, OWN + 3, OWN + 3);
    expect_no_version(p);
}

/* Which of the two says it does not matter to the other: here only b is able to. */
static void test_the_number_of_a_refusal(void **state)
{
    struct pair *p = *state;
    side_speaks(p->a, 1, OWN);
    side_speaks(p->b, 1, OWN);
    p->b->refuses = WIRE_REFUSAL_VERSION;
    p->b->refusal_text = "too old";
    side_dial(p->a, p->b);
    run_until(p->loop, p->a->closed);
    assert_int_equal(p->a->refusal, WIRE_REFUSAL_VERSION);
    assert_string_equal(p->a->reason, "too old");
    run_until_gone(p);
}

/* ---- Who is not admitted --------------------------------------------------------- */

static void test_accepted_is_refused(void **state)
{
    struct pair *p = *state;
    p->b->refuses = WIRE_REFUSAL_REMOVED;
    p->b->refusal_text = "node1 is no member any more";
    side_dial(p->a, p->b);
    run_until(p->loop, p->a->closed);
    assert_string_equal(p->a->reason, "node1 is no member any more");
    assert_int_equal(p->a->refusal, WIRE_REFUSAL_REMOVED);
    run_until_gone(p);
    assert_int_equal(p->b->asked, 1);
    assert_int_equal(p->b->opened + p->b->closed, 0); /* it never knew it */
    assert_int_equal(counters_of(p->b)->refused_hellos, 1);
    assert_int_equal(p->b->endpoint->unproven, 0);
}

static void test_dialed_is_refused(void **state)
{
    struct pair *p = *state;
    p->a->refuses = WIRE_REFUSAL_REMOVED;
    p->a->refusal_text = "node2 is no member any more";
    side_dial(p->a, p->b);
    run_until(p->loop, p->a->closed);
    assert_string_equal(p->a->reason, "refused: node2 is no member any more");
    assert_int_equal(p->a->refusal, WIRE_REFUSAL_NONE); /* that was its own word */
    assert_int_equal(p->a->opened, 0);
    run_until_gone(p);
    if (p->b->opened) { /* our HELLO was right, and came first */
        assert_int_equal(p->b->closed, 1);
        assert_int_equal(p->b->refusal, WIRE_REFUSAL_REMOVED);
        assert_string_equal(p->b->reason, "node2 is no member any more");
    }
}

static void close_it(struct side *s, struct wire_connection *c)
{
    wire_close(c);
}

/* W4: a handler may end any connection, also the one that it is asked about. */
static void test_closed_while_asked(void **state)
{
    struct pair *p = *state;
    p->b->on_admit = close_it;
    side_dial(p->a, p->b);
    run_until(p->loop, p->a->closed);
    run_until_gone(p);
    assert_int_equal(p->b->opened + p->b->closed, 0);
    assert_int_equal(counters_of(p->b)->refused_hellos, 0);
}

/* What the refused one has sent meanwhile does not cost it the reason: no reset. */
static void send_much(struct side *s, struct wire_connection *c)
{
    static const uint8_t zeros[256 << 10];
    for (unsigned i = 0; i < 8; i++)
        wire_send_bytes(c, WIRE_RAFT_APPEND, 0, zeros, sizeof(zeros));
}

static void test_the_reason_arrives(void **state)
{
    struct pair *p = *state;
    p->b->refuses = WIRE_REFUSAL_OTHER;
    p->b->refusal_text = "not today";
    p->a->on_opened = send_much;
    for (unsigned i = 1; i <= 20; i++) {
        side_dial(p->a, p->b);
        run_until(p->loop, p->a->closed == i);
        assert_string_equal(p->a->reason, "not today");
        run_until_gone(p);
    }
    assert_int_equal(p->b->frames, 0);
}

/* Who is refused and does not go is put out. */
static void test_a_refused_one_that_stays(void **state)
{
    struct pair *p = *state;
    char *cert, *key;
    cluster_certify(p->cl, 9, &cert, &key);
    p->b->refuses = WIRE_REFUSAL_OTHER;
    p->b->refusal_text = "go";
    wire_endpoint_timeouts(p->b->endpoint)->closing_ms = 50;
    struct raw r = raw_connect(p->b);
    assert_int_equal(raw_handshake(&r, &(struct raw_tls){.cert = cert, .key = key}), 0);
    raw_send_hello(&r, p->cl, 9);
    run_until(p->loop, counters_of(p->b)->refused_hellos == 1);
    run_until_gone(p);
    raw_close(&r);
    free(cert);
    free(key);
}

/* ---- Turning away an open connection --------------------------------------------- */

static void test_turned_away(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    wire_turn_away(p->b->last, WIRE_REFUSAL_REMOVED, "you are out");
    p->b->last = NULL;
    run_until(p->loop, p->a->closed);
    assert_int_equal(p->a->refusal, WIRE_REFUSAL_REMOVED);
    assert_string_equal(p->a->reason, "you are out");
    run_until_gone(p);
    assert_int_equal(p->b->closed, 0);
}

static void test_turned_away_before_it_is_open(void **state)
{
    struct pair *p = *state;
    wire_turn_away(side_dial(p->a, p->b), WIRE_REFUSAL_REMOVED, "you are out");
    run_until_gone(p);
    assert_int_equal(p->a->opened + p->a->closed, 0);
}

static void test_malformed_refusal(void **state)
{
    struct pair *p = *state;
    connect_sides(p->a, p->b);
    wire_send_bytes(p->b->last, WIRE_REFUSAL, 0, "\1\5\0abc", 6);
    run_until(p->loop, p->a->closed);
    assert_int_equal(p->a->refusal, WIRE_REFUSAL_NONE);
    assert_int_equal(counters_of(p->a)->malformed_frames, 1);
    assert_non_null(strstr(p->a->reason, "malformed REFUSAL"));
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, pair_setup, pair_teardown)
    const struct CMUnitTest tests[] = {
        with(test_the_newest_of_both),
        with(test_none_in_common),
        with(test_the_number_of_a_refusal),
        with(test_accepted_is_refused),
        with(test_dialed_is_refused),
        with(test_closed_while_asked),
        with(test_the_reason_arrives),
        with(test_a_refused_one_that_stays),
        with(test_turned_away),
        with(test_turned_away_before_it_is_open),
        with(test_malformed_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
