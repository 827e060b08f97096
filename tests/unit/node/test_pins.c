/*
 * test_pins.c - snapshots that another node fetches from a node of one: what they keep
 * from merges, and until when. The other node is a learner that is there only in what the
 * core is told of it.
 */
#include "one_node.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

/* 40 MiB are merged; so many entries that half of them are not "nearly all". */
enum { BIG = 256 << 10, WRITES = 160 };

struct pinning {
    struct node *node;
    uint64_t inode, peer;
    int round;
};

/* ---- What happens to the node ------------------------------------------------------ */

static void overwrite(struct pinning *t, int times)
{
    static uint8_t bytes[BIG];
    while (times-- > 0) {
        struct buf ranges = {0};
        memset(bytes, ++t->round, sizeof(bytes));
        buf_u64(&ranges, 0);
        buf_u32(&ranges, sizeof(bytes));
        buf_bytes(&ranges, bytes, sizeof(bytes));
        struct fs_op op = {.type = FS_REPLACE,
                           .inode = t->inode,
                           .size = sizeof(bytes),
                           .ranges = ranges.data,
                           .ranges_size = (uint32_t)ranges.length};
        assert_int_equal(one_node_fs(t->node, &op, NULL), 0);
        buf_release(&ranges);
    }
}

static bool is_merged_beyond(struct node *n, void *arg)
{
    return n->base > *(uint64_t *)arg && !n->merge.out;
}

/* A merge that is not due now will not be without a write. */
static bool is_at_rest(struct node *n, void *arg)
{
    return !n->merge.out && store_applied(n->store) == store_last_index(n->store);
}

static void merge(struct pinning *t)
{
    uint64_t base = t->node->base;
    overwrite(t, WRITES);
    one_node_run(t->node, is_merged_beyond, &base);
}

/* As much as merge() writes, and all that can be merged is. */
static void merge_in_vain(struct pinning *t)
{
    overwrite(t, WRITES);
    one_node_run(t->node, is_at_rest, NULL);
}

/* The other node tells that it has the log up to `match`. */
static void tell_match(struct pinning *t, uint64_t match)
{
    struct raft *raft = t->node->driver.raft;
    struct raft_message m = {.type = RAFT_APPEND_REPLY,
                             .from = t->peer,
                             .to = t->node->directory.node_id,
                             .term = raft_term(raft),
                             .ok = true,
                             .match = match,
                             .applied = match};
    driver_step(t->node, &(struct raft_event){.type = RAFT_CONNECTED, .peer = t->peer});
    driver_step(t->node, &(struct raft_event){.type = RAFT_RECEIVE, .message = &m});
    struct raft_peer_status status;
    assert_true(raft_peer_status(raft, t->peer, node_now(), &status));
    assert_int_equal(status.match, match);
}

static int setup(void **state)
{
    static struct pinning t;
    struct fs_op op = {.type = FS_MAKE,
                       .parent = FS_ROOT_INODE,
                       .name = (const uint8_t *)"f",
                       .name_size = 1,
                       .mode = S_IFREG | 0644};
    struct fs_result result;
    t = (struct pinning){.node = one_node_start()};
    assert_int_equal(one_node_fs(t.node, &op, &result), 0);
    t.inode = result.value;
    t.peer = one_node_join(t.node, "127.0.0.1:7371");
    merge(&t);
    *state = &t;
    return 0;
}

static int teardown(void **state)
{
    struct pinning *t = *state;
    one_node_stop(t->node);
    return 0;
}

/* ---- The log behind a snapshot ----------------------------------------------------- */

static bool is_closed(struct node *n, void *arg)
{
    return !((struct pinned *)arg)->snapshot;
}

static void test_the_log_stays_until_the_other_has_caught_up(void **state)
{
    struct pinning *t = *state;
    struct node *n = t->node;
    struct pinned *p;
    uint64_t base = n->base;
    assert_int_equal(pins_take(n, t->peer, &p), 0);
    merge_in_vain(t);
    assert_int_equal(n->base, base); /* while it is fetched, */
    pins_installed(p);
    merge_in_vain(t);
    assert_int_equal(n->base, base); /* and when it is there */
    one_node_run(n, is_closed, p); /* its files may go, with the next tick */
    assert_int_equal(n->base, base);
    uint64_t match = base + (store_last_index(n->store) - base) / 2;
    tell_match(t, match);
    merge(t);
    assert_true(n->base <= match); /* it has arrived half-way */
    tell_match(t, store_last_index(n->store) - 1);
    pins_tick(n, node_now());
    assert_null(n->pinned);
}

/* ---- Who does not get on ----------------------------------------------------------- */

static void read_to(struct pinned *p, uint32_t file, uint64_t end, int error)
{
    pins_read(p);
    pins_have_read(p, file, end, error);
}

static void test_asking_for_the_same_again_is_no_progress(void **state)
{
    struct pinning *t = *state;
    struct node *n = t->node;
    struct pinned *p, *again;
    assert_int_equal(pins_take(n, t->peer, &p), 0);
    read_to(p, 1, 100, 0);
    n->pinned->used_us -= NODE_SNAPSHOT_IDLE_US;
    read_to(p, 1, 200, 0); /* farther */
    pins_tick(n, node_now());
    assert_ptr_equal(n->pinned, p);
    n->pinned->used_us -= NODE_SNAPSHOT_IDLE_US;
    pins_keep(p); /* it says that it is busy with it */
    pins_tick(n, node_now());
    assert_ptr_equal(n->pinned, p);
    n->pinned->used_us -= NODE_SNAPSHOT_IDLE_US;
    read_to(p, 2, 50, 0); /* the next file */
    pins_tick(n, node_now());
    assert_ptr_equal(n->pinned, p);
    n->pinned->used_us -= NODE_SNAPSHOT_IDLE_US;
    assert_int_equal(pins_take(n, t->peer, &again), 0);
    assert_ptr_equal(again, p);
    read_to(p, 1, 200, 0);
    read_to(p, 2, 50, 0);
    pins_tick(n, node_now() + 1);
    assert_null(n->pinned);
}

static void test_a_node_that_does_not_apply_the_log_loses_it(void **state)
{
    struct pinning *t = *state;
    struct pinned *p;
    assert_int_equal(pins_take(t->node, t->peer, &p), 0);
    merge_in_vain(t);
    pins_installed(p);
    pins_tick(t->node, node_now());
    assert_ptr_equal(t->node->pinned, p);
    pins_tick(t->node, node_now() + NODE_SNAPSHOT_IDLE_US + NODE_SECOND_US);
    assert_null(t->node->pinned);
}

/* What is damaged here, and dead, is in no later snapshot. */
static void test_what_cannot_be_read_is_pinned_anew(void **state)
{
    struct pinning *t = *state;
    struct node *n = t->node;
    const int errors[] = {-EBADMSG, -EIO};
    for (size_t i = 0; i < array_length(errors); i++) {
        struct pinned *p, *again;
        uint64_t base = n->base;
        assert_int_equal(pins_take(n, t->peer, &p), 0);
        uint64_t number = p->number;
        read_to(p, 0, 100, errors[i]);
        assert_null(pins_find(n, t->peer, number));
        merge(t); /* it is not kept from it */
        assert_int_equal(pins_take(n, t->peer, &again), 0);
        assert_true(again->base > base);
        assert_int_not_equal(again->number, number);
        read_to(again, 0, 100, -ENOMEM); /* another time, perhaps */
        assert_ptr_equal(pins_find(n, t->peer, again->number), again);
        again->closed = true;
    }
}

static bool may_pin(struct node *n, void *arg)
{
    struct pinning *t = arg;
    struct pinned *p;
    return pins_take(n, t->peer, &p) == 0;
}

/* However well it gets on: what is written here is faster. */
static void test_no_more_of_the_log_is_kept_than_it_is_worth(void **state)
{
    struct pinning *t = *state;
    struct node *n = t->node;
    struct pinned *p;
    assert_int_equal(pins_take(n, t->peer, &p), 0);
    n->pins_bytes = (uint64_t)WRITES * BIG / 2;
    merge(t); /* all the same */
    assert_null(n->pinned);
    one_node_run(n, may_pin, t); /* when merges have made the log short enough */
    n->pins_bytes = 0;
    overwrite(t, 10);
    pins_tick(n, node_now());
    assert_null(n->pinned);
    assert_int_equal(pins_take(n, t->peer, &p), -EBUSY); /* merges are to come first */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_the_log_stays_until_the_other_has_caught_up),
        TEST(test_asking_for_the_same_again_is_no_progress),
        TEST(test_a_node_that_does_not_apply_the_log_loses_it),
        TEST(test_what_cannot_be_read_is_pinned_anew),
        TEST(test_no_more_of_the_log_is_kept_than_it_is_worth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
