/*
 * test_upgrade.c - a cluster's version: what goes with it, who is too old or too new for it,
 * what a node says of itself, and when the version rises.
 */
#include "one_node.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { OLD = WIRE_PROTOCOL_OLDEST, NEW = NODE_VERSION_PROGRAMS };

static int setup(void **state)
{
    *state = one_node_start();
    return 0;
}

static int teardown(void **state)
{
    one_node_stop(*state);
    return 0;
}

/* What the node says of itself is told by its tick, which other tests do without. */
static bool is_of_version(struct node *n, void *arg)
{
    upgrade_tick(n, node_now());
    return n->members_applied.version == *(uint16_t *)arg && !n->report.busy;
}

static void run_until_version(struct node *n, uint16_t version)
{
    one_node_run(n, is_of_version, &version);
}

static bool is_version_reported(struct node *n, void *arg)
{
    upgrade_tick(n, node_now());
    return n->members_applied.list[0].version == *(uint16_t *)arg && !n->report.busy;
}

static bool is_reported(struct node *n, void *arg)
{
    const char *program = arg;
    upgrade_tick(n, node_now());
    return strcmp(n->members_applied.list[0].program, program) == 0;
}

/* ---- What goes with a version -------------------------------------------------------- */

static void test_the_table(void **state)
{
    assert_int_equal(version_oldest(WIRE_PROTOCOL_VERSION), WIRE_PROTOCOL_OLDEST);
    assert_int_equal(version_oldest(3), 3);
    assert_int_equal(version_oldest(4), 3);
    assert_int_equal(version_oldest(9), 8);
    assert_int_equal(version_format(WIRE_PROTOCOL_VERSION), STORE_FORMAT_VERSION);
    assert_int_equal(version_format(3), 1);
    assert_int_equal(version_format(4), 2);
    for (uint32_t format = 1; format <= 2; format++)
        assert_int_equal(version_format(version_of_format(format)), format);
}

/* ---- Too old, too new ---------------------------------------------------------------- */

static void test_whom_peers_admit(void **state)
{
    static const struct {
        uint16_t cluster, oldest, newest;
        const char *words; /* NULL: admitted */
    } cases[] = {
        {3, 3, 3, NULL},
        {3, 3, 4, NULL},
        {4, 3, 4, NULL},
        {4, 4, 5, NULL},
        {4, 3, 3,
         "the cluster speaks protocol version 4 since all of its nodes did, and "
         "b's program no newer one than 3: start the newer program again"},
        {3, 4, 5,
         "the cluster speaks protocol version 3 still, and b's program version 5 "
         "and the one before: upgrade all nodes to version 4 first"},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        struct node *n = calloc(1, sizeof(*n));
        struct wire_hello hello = {
            .version = cases[i].newest, .oldest = cases[i].oldest, .name = "b"};
        char text[WIRE_ERROR_BYTES] = "";
        n->members.version = cases[i].cluster;
        assert_int_equal(upgrade_admit(n, &hello, text),
                         cases[i].words ? WIRE_REFUSAL_VERSION : WIRE_REFUSAL_NONE);
        assert_string_equal(text, cases[i].words ? cases[i].words : "");
        free(n);
    }
}

static void test_who_may_start(void **state)
{
    struct node *n = calloc(1, sizeof(*n));
    n->directory.path = "d";
    n->version = 3;
    n->members_applied.version = 3;
    assert_int_equal(upgrade_check(n), 0);
    n->members_applied.version = 4;
    assert_int_equal(upgrade_check(n), -EPROTONOSUPPORT);
    assert_string_equal(n->error,
                        "d: the cluster speaks protocol version 4 since all of its nodes "
                        "did, and this program no newer one than 3: start the newer "
                        "program again");
    n->version = 4;
    assert_int_equal(upgrade_check(n), 0);
    n->version = 5;
    assert_int_equal(upgrade_check(n), 0);
    n->members_applied.version = 3;
    assert_int_equal(upgrade_check(n), -EPROTONOSUPPORT);
    assert_non_null(strstr(n->error, "upgrade all nodes to version 4 first"));
    free(n);
}

static struct node_op join_of(uint16_t version)
{
    struct node_op op = {.type = NODE_OP_JOIN,
                         .token_id = 5,
                         .next_token_id = 6,
                         .name = "two",
                         .address = "127.0.0.1:2",
                         .version = version};
    memset(op.key_hash, 1, sizeof(op.key_hash));
    return op;
}

static void invite(struct node *n, const struct node_op *join)
{
    struct node_op op = {.type = NODE_OP_INVITE, .token_id = join->token_id};
    wire_hash(join->secret, sizeof(join->secret), op.record.secret_hash);
    op.record.expires_us = UINT64_MAX;
    assert_int_equal(one_node_op(n, &op, NULL), 0);
}

static void test_who_may_join(void **state)
{
    struct node *n = *state;
    struct node_op join = join_of(OLD - 1);
    invite(n, &join);
    assert_int_equal(one_node_op(n, &join, NULL), -JOIN_TOO_OLD);
    join.version = OLD + 2;
    assert_int_equal(one_node_op(n, &join, NULL), -JOIN_TOO_NEW);
    assert_int_equal(n->members.count, 1);
    join.version = OLD + 1; /* one that speaks what the cluster speaks as well */
    assert_int_equal(one_node_op(n, &join, NULL), 0);
    assert_int_equal(n->members.count, 2);
    assert_int_equal(n->members.list[1].version, OLD + 1);
}

/* ---- The version rises --------------------------------------------------------------- */

static void test_a_newer_program_raises_it(void **state)
{
    struct node *n = *state;
    assert_int_equal(n->members_applied.version, OLD);
    assert_string_equal(n->members_applied.list[0].program, "");
    assert_int_equal(store_format(n->store), 1);
    upgrade_applied(n);
    assert_int_equal(store_format(n->store), 1);
    n->version = NEW; /* the program of the next version, from here on */
    run_until_version(n, NEW);
    assert_int_equal(n->members_applied.list[0].version, NEW);
    assert_int_equal(store_format(n->store), version_format(NEW));
    one_node_run(n, is_reported, (void *)TIERCE_VERSION);
    /* And then there is nothing more to say. */
    uint64_t last = store_last_index(n->store);
    upgrade_tick(n, UINT64_MAX);
    upgrade_raise(n);
    assert_false(n->report.busy);
    assert_int_equal(store_last_index(n->store), last);
}

static void test_all_members_must_speak_it(void **state)
{
    struct node *n = *state;
    struct node_op join = join_of(OLD);
    invite(n, &join);
    assert_int_equal(one_node_op(n, &join, NULL), 0);
    n->version = NEW;
    one_node_run(n, is_version_reported, &(uint16_t){NEW});
    assert_int_equal(upgrade_common(n), OLD);
    uint64_t last = store_last_index(n->store);
    upgrade_raise(n);
    assert_int_equal(store_last_index(n->store), last);
    /* Nor is it done by who asks for it all the same. */
    struct node_op raise = {.type = NODE_OP_VERSION, .version = NEW};
    assert_int_equal(one_node_op(n, &raise, NULL), 0);
    assert_int_equal(n->members_applied.version, OLD);
}

/* It reported the newer one, and went back to the older program since. */
static void test_what_a_hello_says_counts(void **state)
{
    struct node *n = *state;
    struct node_op join = join_of(NEW);
    invite(n, &join);
    assert_int_equal(one_node_op(n, &join, NULL), 0);
    n->version = NEW;
    n->members.list[0].version = NEW;
    assert_int_equal(n->peer_count, 1);
    assert_int_equal(upgrade_common(n), NEW);
    n->peers[0].version = OLD;
    assert_int_equal(upgrade_common(n), OLD);
    n->peers[0].version = NEW;
    assert_int_equal(upgrade_common(n), NEW);
}

static void test_it_never_falls(void **state)
{
    struct node *n = *state;
    n->version = NEW;
    run_until_version(n, NEW);
    struct node_op lower = {.type = NODE_OP_VERSION, .version = OLD};
    assert_int_equal(one_node_op(n, &lower, NULL), 0);
    assert_int_equal(n->members_applied.version, NEW);
    struct node_op report = {
        .type = NODE_OP_REPORT, .node_id = n->directory.node_id, .version = OLD};
    strcpy(report.address, n->directory.advertise);
    assert_int_equal(one_node_op(n, &report, NULL), 0);
    assert_int_equal(n->members_applied.version, NEW);
}

/* A node does not speak for another, and a leader of the older version takes no news. */
static void test_reports(void **state)
{
    struct node *n = *state;
    struct node_op report = {.type = NODE_OP_REPORT,
                             .node_id = n->directory.node_id + 1,
                             .version = NEW,
                             .address = "127.0.0.1:1"};
    assert_int_equal(one_node_op(n, &report, NULL), -EPERM);
    report.node_id = n->directory.node_id;
    strcpy(report.program, "9.9");
    assert_int_equal(one_node_op(n, &report, NULL), -EPROTO);
}

/* ---- When this program is the one that is too old -------------------------------------- */

static void test_raised_above_this_program(void **state)
{
    struct node *n = *state;
    n->version = NEW;
    run_until_version(n, NEW);
    n->version = OLD;
    n->said_version = OLD;
    n->phase = NODE_ENDING; /* there is nothing here that could stop */
    upgrade_applied(n);
    assert_int_equal(n->exit_error, -EPROTONOSUPPORT);
    assert_non_null(strstr(n->error, "start the newer program again"));
    n->phase = NODE_RUNNING;
}

static void test_refused_by_a_majority(void **state)
{
    struct node *n = *state;
    n->phase = NODE_ENDING;
    n->peer_count = 2;
    n->members.count = 3;
    for (unsigned i = 0; i < 2; i++) {
        n->peers[i] = (struct peer){.id = 100 + i, .dial_at_us = UINT64_MAX};
        n->members.list[1 + i] =
            (struct member){.id = 100 + i, .voter = true, .version = NEW};
    }
    upgrade_refused(n, &n->peers[0], "too old");
    assert_int_equal(n->exit_error, 0); /* that one is odd */
    upgrade_refused(n, &n->peers[0], "too old");
    assert_int_equal(n->exit_error, 0);
    upgrade_refused(n, &n->peers[1], "too old");
    assert_int_equal(n->exit_error, -EPROTONOSUPPORT);
    assert_string_equal(n->error, "too old");
    n->peer_count = 0;
    n->members.count = 1;
    n->phase = NODE_RUNNING;
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table),
        cmocka_unit_test(test_whom_peers_admit),
        cmocka_unit_test(test_who_may_start),
        with(test_who_may_join),
        with(test_a_newer_program_raises_it),
        with(test_all_members_must_speak_it),
        with(test_what_a_hello_says_counts),
        with(test_it_never_falls),
        with(test_reports),
        with(test_raised_above_this_program),
        with(test_refused_by_a_majority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
