/*
 * test_ca.c - a rotation of the CA through a node of one: each step waits until every member
 * says that it has taken the one before, and none is done twice.
 */
#include "ca.h"
#include "one_node.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int setup(void **state)
{
    *state = one_node_start();
    return 0;
}

static int teardown(void **state)
{
    identity_release(*state);
    one_node_stop(*state);
    return 0;
}

static int get(void *context, const struct fs_key *key, struct buf *to)
{
    struct node *n = context;
    return store_get(n->store, key->bytes, key->size, 0, to, NULL);
}

static void expect(struct node *n, uint32_t step, uint8_t signing, uint8_t count)
{
    struct ca_record *ca = NULL;
    assert_int_equal(ca_record_read(get, n, &ca), 0);
    assert_int_equal(ca->step, step);
    assert_int_equal(ca->signing, signing);
    assert_int_equal(ca->count, count);
    free(ca);
}

static int rotate(struct node *n, uint32_t from, struct fs_result *ret)
{
    struct node_op op = {.type = NODE_OP_ROTATE_CA, .ca = from};
    char *key, *cert;
    assert_int_equal(wire_pki_make_ca(n->directory.cluster_id, &key, &cert), 0);
    strcpy(op.ca_key_pem, key);
    strcpy(op.ca_cert_pem, cert);
    free(key);
    free(cert);
    return one_node_op(n, &op, ret);
}

static int advance(struct node *n, uint32_t step)
{
    struct fs_result result;
    struct node_op op = {.type = NODE_OP_ADVANCE_CA, .ca = step};
    return one_node_op(n, &op, &result);
}

static int report(struct node *n, uint32_t step)
{
    struct fs_result result;
    struct node_op op = {.type = NODE_OP_REPORT,
                         .node_id = n->directory.node_id,
                         .version = n->members.list[0].version,
                         .ca = step};
    strcpy(op.address, n->members.list[0].address);
    return one_node_op(n, &op, &result);
}

static void test_steps(void **state)
{
    struct node *n = *state;
    struct fs_result result;
    expect(n, 0, 0, 1);
    assert_int_equal(rotate(n, 0, &result), 0);
    assert_int_equal(result.value, 1);
    assert_int_equal(result.more, 3);
    expect(n, 1, 0, 2);
    assert_int_equal(advance(n, 1), 0); /* nobody has said that it has taken it */
    expect(n, 1, 0, 2);
    assert_int_equal(report(n, 1), 0);
    assert_int_equal(advance(n, 0), 0); /* of another step */
    expect(n, 1, 0, 2);
    assert_int_equal(advance(n, 1), 0);
    expect(n, 2, 1, 2);
    assert_int_equal(advance(n, 1), 0);
    assert_int_equal(advance(n, 2), 0);
    expect(n, 2, 1, 2);
    assert_int_equal(report(n, 2), 0);
    assert_int_equal(advance(n, 2), 0);
    expect(n, 3, 0, 1);
    assert_int_equal(report(n, 3), 0);
    assert_int_equal(advance(n, 3), 0); /* there is nothing more to do */
    expect(n, 3, 0, 1);
}

static void test_one_at_a_time(void **state)
{
    struct node *n = *state;
    struct fs_result result;
    assert_int_equal(rotate(n, 0, &result), 0);
    assert_int_equal(rotate(n, 0, &result), 0); /* asked for twice at once */
    assert_int_equal(result.value, 1);
    assert_int_equal(rotate(n, 1, &result), 0); /* ... or later */
    assert_int_equal(result.more, 3);
    expect(n, 1, 0, 2);
    assert_int_equal(report(n, 1), 0);
    assert_int_equal(advance(n, 1), 0);
    assert_int_equal(rotate(n, 2, &result), 0);
    assert_int_equal(result.value, 2);
    assert_int_equal(result.more, 3);
    assert_int_equal(report(n, 2), 0);
    assert_int_equal(advance(n, 2), 0);
    assert_int_equal(rotate(n, 0, &result), 0); /* it came late: that one is done */
    assert_int_equal(result.value, 3);
    assert_int_equal(result.more, 3);
    expect(n, 3, 0, 1);
    assert_int_equal(rotate(n, 3, &result), 0);
    expect(n, 4, 0, 2);
}

static void test_what_is_no_ca(void **state)
{
    struct node *n = *state;
    struct fs_result result;
    struct node_op op = {
        .type = NODE_OP_ROTATE_CA, .ca_key_pem = "key", .ca_cert_pem = "certificate"};
    assert_int_equal(one_node_op(n, &op, &result), -EINVAL);
    expect(n, 0, 0, 1);
}

/* By itself: the node takes each step, and as the leader goes on. */
static bool has_step(struct node *n, void *arg)
{
    identity_tick(n, node_now());
    return n->identity.is_known && n->identity.step == *(uint32_t *)arg &&
           !n->identity.work;
}

static void test_the_node_follows(void **state)
{
    struct node *n = *state;
    struct fs_result result;
    char *first_ca = strdup(n->directory.ca_pem);
    uint32_t step = 0;
    identity_start(n);
    assert_true(has_step(n, &step));
    assert_int_equal(rotate(n, 0, &result), 0);
    for (step = 1; step <= 3; step++) {
        one_node_run(n, has_step, &step);
        assert_int_equal(identity_step(n, &n->members.list[0]), step);
        bool is_old = wire_pki_is_signed_by(n->directory.cert_pem, first_ca);
        assert_int_equal(is_old, step == 1);
        assert_int_equal(report(n, step), 0);
    }
    assert_null(strstr(n->directory.ca_pem, first_ca));
    expect(n, 3, 0, 1);
    free(first_ca);
}

int main(void)
{
#define with(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        with(test_steps),
        with(test_one_at_a_time),
        with(test_what_is_no_ca),
        with(test_the_node_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
