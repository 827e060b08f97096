/* test_orphans.c - inodes without a name (S8): sessions let go of them, and die. */
#include "one_node.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { OTHER = 77 };

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

static uint64_t open_session(struct node *n, uint64_t nonce)
{
    struct node_op op = {.type = NODE_OP_SESSION, .node_id = OTHER, .nonce = nonce};
    struct fs_result result;
    assert_int_equal(one_node_op(n, &op, &result), 0);
    return result.value;
}

static struct fs_op named(enum fs_op_type type, const char *name)
{
    return (struct fs_op){.type = type,
                          .parent = FS_ROOT_INODE,
                          .mode = S_IFREG | 0644,
                          .name = (const uint8_t *)name,
                          .name_size = (uint16_t)strlen(name)};
}

/* Makes a file and removes it; its inode. */
static uint64_t removed(struct node *n, const char *name)
{
    struct fs_op make = named(FS_MAKE, name), unlink = named(FS_UNLINK, name);
    struct fs_result result;
    assert_int_equal(one_node_fs(n, &make, &result), 0);
    uint64_t inode = result.value;
    unlink.mode = 0;
    assert_int_equal(one_node_fs(n, &unlink, &result), 0);
    return inode;
}

static bool is_gone(struct node *n, void *inode)
{
    struct fs_key key;
    struct buf value = {0};
    fs_key_inode(&key, *(uint64_t *)inode);
    int ret = store_get(n->store, key.bytes, key.size, 0, &value, NULL);
    buf_release(&value);
    return ret == -ENOENT;
}

static bool is_named(struct node *n, uint64_t inode, uint64_t session)
{
    struct fs_key key;
    struct buf value = {0};
    fs_key_orphan(&key, inode, session);
    int ret = store_get(n->store, key.bytes, key.size, 0, &value, NULL);
    buf_release(&value);
    return ret == 0;
}

struct naming {
    uint64_t inode, session;
};

static bool is_noted(struct node *n, void *arg)
{
    const struct naming *naming = arg;
    return is_named(n, naming->inode, naming->session);
}

static bool is_let_go(struct node *n, void *arg)
{
    const struct naming *naming = arg;
    return !is_named(n, naming->inode, naming->session);
}

/* Without a mount nothing is held here. */
static void test_a_node_without_a_mount_lets_go(void **state)
{
    struct node *n = *state;
    uint64_t inode = removed(n, "f");
    assert_true(is_named(n, inode, n->client.session));
    one_node_run(n, is_gone, &inode);
    assert_false(is_named(n, inode, n->client.session));
}

static void test_another_session_keeps_it(void **state)
{
    struct node *n = *state;
    uint64_t other = open_session(n, 5), inode = removed(n, "f");
    struct naming own = {inode, n->client.session};
    one_node_run(n, is_let_go, &own);
    assert_true(is_named(n, inode, other));
    assert_false(is_gone(n, &inode));
    /* It comes back, as another session: the former one held all that it did not release. */
    uint64_t next = open_session(n, 6);
    assert_false(is_named(n, inode, next));
    one_node_run(n, is_gone, &inode);
}

static void end_session(struct node *n, uint64_t session)
{
    struct node_op end = {.type = NODE_OP_END_SESSION, .session = session};
    struct buf op = {0};
    node_op_encode(&end, &op);
    leader_run_internal(n, &op);
    buf_release(&op);
}

static void test_the_dead_hold_nothing(void **state)
{
    struct node *n = *state;
    uint64_t other = open_session(n, 5), inode = removed(n, "f");
    struct naming own = {inode, n->client.session};
    one_node_run(n, is_let_go, &own);
    assert_int_equal(n->leader.orphans_from, 0); /* since it was elected */
    assert_true(is_named(n, inode, other));
    end_session(n, other);
    one_node_run(n, is_gone, &inode);
    assert_int_equal(n->leader.orphans_from, 0); /* all was looked at */
}

static bool has_session(struct node *n, void *arg)
{
    return n->client.session != 0;
}

/* What was sent in a session that is over is sent in the next one, as what follows is. */
static void test_a_session_follows_another(void **state)
{
    struct node *n = *state;
    struct fs_op nothing = {.type = FS_SETATTR, .inode = FS_ROOT_INODE};
    struct fs_result result;
    uint64_t first = n->client.session, inode = removed(n, "f");
    one_node_run(n, is_gone, &inode);
    end_session(n, first);
    while (n->client.session == first)
        one_node_fs(n, &nothing, &result);
    one_node_run(n, has_session, NULL);
    inode = removed(n, "g");
    one_node_run(n, is_gone, &inode);
}

/* What was removed before this node knew its session's number is found. */
static void test_what_was_missed_is_found(void **state)
{
    struct node *n = *state;
    uint64_t session = n->client.session;
    struct fs_op make = named(FS_MAKE, "f"), unlink = named(FS_UNLINK, "f");
    struct fs_result result;
    assert_int_equal(one_node_fs(n, &make, &result), 0);
    uint64_t inode = result.value;
    unlink.mode = 0;
    struct buf op = {0};
    fs_op_encode(&unlink, &op);
    n->client.session = 0;
    leader_run_internal(n, &op);
    buf_release(&op);
    struct naming naming = {inode, session};
    one_node_run(n, is_noted, &naming);
    assert_int_equal(n->orphans.released.length, 0);
    n->client.session = session;
    orphans_look(n);
    one_node_run(n, is_gone, &inode);
}

/* More than one RELEASE takes, and one inode twice. */
static void test_many(void **state)
{
    struct node *n = *state;
    uint64_t inodes[3 * 16];
    char name[16];
    for (size_t i = 0; i < array_length(inodes); i++) {
        snprintf(name, sizeof(name), "f%zu", i);
        inodes[i] = removed(n, name);
    }
    orphans_look(n); /* those that are on their way are noted twice */
    for (size_t i = 0; i < array_length(inodes); i++)
        one_node_run(n, is_gone, &inodes[i]);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_a_node_without_a_mount_lets_go), CASE(test_another_session_keeps_it),
        CASE(test_the_dead_hold_nothing),          CASE(test_a_session_follows_another),
        CASE(test_what_was_missed_is_found),       CASE(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
