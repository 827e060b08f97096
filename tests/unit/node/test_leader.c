/*
 * test_leader.c - operations through a node of one: exactly once (S2), answers without an
 * entry (S4), sessions that begin and end, tokens that let one node in.
 */
#include "one_node.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <cmocka.h>

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

static struct fs_op make_op(const char *name)
{
    return (struct fs_op){.type = FS_MAKE,
                          .parent = FS_ROOT_INODE,
                          .name = (const uint8_t *)name,
                          .name_size = (uint16_t)strlen(name),
                          .mode = S_IFREG | 0644};
}

static uint64_t look_up(struct node *n, const char *name)
{
    uint64_t inode = 0;
    fs_lookup(&n->view, FS_ROOT_INODE, name, strlen(name), &inode);
    return inode;
}

static bool is_applied(struct node *n, void *arg)
{
    return store_applied(n->store) >= *(uint64_t *)arg;
}

static void settle(struct node *n)
{
    driver_flush_soon(n);
    uint64_t last = store_last_index(n->store);
    one_node_run(n, is_applied, &last);
}

/* ---- Entries read for a peer
 * ------------------------------------------------------------------------------- */

/* They may have been truncated before this node led again. */
static void test_a_former_leaderships_entries_are_not_sent(void **state)
{
    struct node *n = *state;
    struct peer *p = &n->peers[n->peer_count++];
    struct store_bytes *block = store_bytes_of("entries", 7);
    assert_non_null(block);
    *p = (struct peer){.id = 77, .block_first = 3, .block_last = 9};
    p->block = store_bytes_ref(block);
    p->flight.count = 1;
    p->flight.bytes = 7;
    peers_lead(n);
    assert_null(p->block);
    assert_int_equal(p->flight.count, 0);
    assert_int_equal(block->references, 1);
    store_bytes_unref(block);
    n->peer_count--;
}

/* ---- S2, S4
 * ------------------------------------------------------------------------------- */

static void test_an_operation_is_applied_when_it_is_answered(void **state)
{
    struct node *n = *state;
    struct fs_op op = make_op("a");
    struct fs_result result;
    assert_int_equal(one_node_fs(n, &op, &result), 0);
    assert_int_equal(look_up(n, "a"), result.value);
    assert_int_equal(raft_commit(n->driver.raft), store_applied(n->store));
}

/* The same (session, request) again, as after a lost answer: nothing happens twice. */
static void test_an_operation_sent_twice_is_done_once(void **state)
{
    struct node *n = *state;
    struct fs_op op = make_op("a");
    struct buf bytes = {0};
    fs_op_encode(&op, &bytes);
    struct operation_head head = {n->client.session, n->client.next_request, 0};
    n->client.next_request++;
    head.lowest = head.request;
    uint64_t before = store_last_index(n->store);
    leader_own_operation(n, &head, bytes.data, bytes.length); /* in flight ... */
    leader_own_operation(n, &head, bytes.data, bytes.length);
    settle(n);
    leader_own_operation(n, &head, bytes.data, bytes.length); /* ... and applied */
    settle(n);
    assert_int_equal(store_last_index(n->store), before + 1);
    const struct window_slot *slot;
    struct session *s = session_find(n, head.session);
    assert_int_equal(session_judge(s, head.request, &slot), SESSION_ANSWERED);
    struct fs_result result;
    fs_result_decode(slot->result, &result);
    assert_int_equal(result.value, look_up(n, "a"));
    buf_release(&bytes);
}

/* What the origin has had answered is never executed again, not even as a late duplicate.
 */
static void test_below_the_lowest_nothing_is_executed(void **state)
{
    struct node *n = *state;
    struct fs_op op = make_op("late");
    struct buf bytes = {0};
    fs_op_encode(&op, &bytes);
    struct operation_head head = {n->client.session, 20, 20};
    leader_own_operation(n, &head, bytes.data, bytes.length);
    settle(n);
    uint64_t before = store_last_index(n->store);
    op = make_op("other");
    buf_clear(&bytes);
    fs_op_encode(&op, &bytes);
    head.request = head.lowest = 19;
    leader_own_operation(n, &head, bytes.data, bytes.length);
    settle(n);
    assert_int_equal(store_last_index(n->store), before);
    assert_int_equal(look_up(n, "other"), 0);
    buf_release(&bytes);
}

static void test_an_errno_logs_nothing(void **state)
{
    struct node *n = *state;
    struct fs_op op = make_op("a");
    assert_int_equal(one_node_fs(n, &op, NULL), 0);
    uint64_t before = store_last_index(n->store);
    assert_int_equal(one_node_fs(n, &op, NULL), -EEXIST);
    op = (struct fs_op){.type = FS_RMDIR,
                        .parent = FS_ROOT_INODE,
                        .name = (const uint8_t *)"a",
                        .name_size = 1};
    assert_int_equal(one_node_fs(n, &op, NULL), -ENOTDIR);
    assert_int_equal(store_last_index(n->store), before);
}

/* S4: an errno that rests on an entry in flight leaves after that entry is committed. */
static void test_an_errno_waits_for_what_it_rests_on(void **state)
{
    struct node *n = *state;
    struct fs_op op = make_op("a");
    struct buf bytes = {0};
    fs_op_encode(&op, &bytes);
    struct operation_head head = {n->client.session, n->client.next_request++, 1};
    leader_own_operation(n, &head, bytes.data, bytes.length);
    uint64_t in_flight = store_last_index(n->store);
    assert_true(store_applied(n->store) < in_flight);
    assert_int_equal(one_node_fs(n, &op, NULL), -EEXIST);
    assert_true(store_applied(n->store) >= in_flight);
    buf_release(&bytes);
}

/* ---- S3: what waits for the disk ---- */

static int drop_segment(void *arg, const char *name)
{
    struct node *n = arg;
    char path[512];
    snprintf(path, sizeof(path), "%s/log/%s", n->directory.path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
    return 0;
}

/* Everything on disk leaves the page cache; false: not sure on this file system. */
static bool make_cold(struct node *n)
{
    struct statfs fs;
    char path[512];
    snprintf(path, sizeof(path), "%s/log", n->directory.path);
    assert_int_equal(statfs(path, &fs), 0);
    assert_int_equal(store_io_posix.list(NULL, path, drop_segment, n), 0);
    return fs.f_type == EXT4_SUPER_MAGIC;
}

static void send_append(struct node *n, uint64_t inode, const char *text)
{
    struct buf op = {0}, ranges = {0};
    fs_range_add(&ranges, 0, text, strlen(text));
    fs_op_encode(&(struct fs_op){.type = FS_WRITE,
                                 .flags = FS_APPEND,
                                 .inode = inode,
                                 .ranges = ranges.data,
                                 .ranges_size = (uint32_t)ranges.length},
                 &op);
    struct operation_head head = {n->client.session, n->client.next_request++, 1};
    leader_own_operation(n, &head, op.data, op.length);
    buf_release(&op);
    buf_release(&ranges);
}

static bool nothing_is_parked(struct node *n, void *arg)
{
    struct session *s = session_find(n, n->client.session);
    return !s->parked_head && !s->paging;
}

/* The first needs a record that is not in memory: it waits, the loop goes on, and those
 * behind it do not overtake it. */
static void test_a_parked_operation_keeps_its_place(void **state)
{
    struct node *n = *state;
    struct fs_op op = make_op("a");
    struct fs_result result;
    assert_int_equal(one_node_fs(n, &op, &result), 0);
    bool disk = make_cold(n);
    send_append(n, result.value, "one ");
    struct session *s = session_find(n, n->client.session);
    if (disk)
        assert_true(s->paging);
    send_append(n, result.value, "two ");
    send_append(n, result.value, "three");
    one_node_run(n, nothing_is_parked, NULL);
    settle(n);
    uint8_t text[32] = {0};
    size_t length;
    assert_int_equal(fs_read(&n->view, result.value, 0, sizeof(text), text, &length), 0);
    assert_string_equal((char *)text, "one two three");
}

/* ---- S3: what is sent again on another connection ---- */

static uint64_t open_session(struct node *n)
{
    struct node_op op = {.type = NODE_OP_SESSION, .node_id = 77, .nonce = 5};
    struct fs_result result;
    assert_int_equal(one_node_op(n, &op, &result), 0);
    return result.value;
}

/* Makes a file that is called as the request is. */
static void send_request(struct node *n, uint64_t session, char request, uint16_t sending)
{
    struct fs_op op = make_op((char[]){request, '\0'});
    struct buf bytes = {0}, value = {0};
    struct operation_head head = {.session = session,
                                  .request = (uint64_t)request,
                                  .lowest = 1,
                                  .term = raft_term(n->driver.raft)};
    fs_op_encode(&op, &bytes);
    operation_encode(&head, bytes.data, bytes.length, &value);
    struct wire_frame frame = {WIRE_OPERATION, sending, value.data, value.length};
    leader_operation(n, one_node_connection(), &frame);
    buf_release(&bytes);
    buf_release(&value);
}

static void send_to_full_gate(struct node *n, uint64_t session, char request,
                              uint16_t sending)
{
    n->leader.gate_bytes += LIMIT_INFLIGHT_BYTES;
    send_request(n, session, request, sending);
    n->leader.gate_bytes -= LIMIT_INFLIGHT_BYTES;
}

static bool is_made(struct node *n, char request)
{
    settle(n);
    return look_up(n, (char[]){request, '\0'}) != 0;
}

static void check_both_go_on(struct node *n, uint64_t session, uint16_t sending)
{
    send_request(n, session, 'd', sending);
    assert_false(is_made(n, 'd')); /* it would overtake c */
    send_request(n, session, 'c', sending);
    send_request(n, session, 'd', sending);
    assert_true(is_made(n, 'c'));
    assert_true(is_made(n, 'd'));
}

static void test_a_copy_of_the_past_is_not_the_request_that_is_back(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n);
    send_request(n, session, 'b', 6);
    assert_true(is_made(n, 'b'));
    send_to_full_gate(n, session, 'c', 6);
    send_request(n, session, 'c', 5); /* by the connection that was given up */
    assert_false(is_made(n, 'c'));
    check_both_go_on(n, session, 6);
}

/* The leader has heard of the new connection, though it turned away what came on it. */
static void test_what_is_turned_away_ends_the_past_too(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n);
    send_request(n, session, 'b', 5);
    assert_true(is_made(n, 'b'));
    send_to_full_gate(n, session, 'c', 6);
    send_request(n, session, 'c', 5);
    assert_false(is_made(n, 'c'));
    check_both_go_on(n, session, 6);
}

/* The same where the copy was at the gate already, and its connection has ended. */
static void test_what_leaves_the_gate_may_be_of_the_past(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n);
    n->leader.evaluating = true; /* the gate is shut */
    send_request(n, session, 'c', 5);
    n->leader.evaluating = false;
    assert_non_null(n->leader.gate_head);
    leader_forget(n, one_node_connection());
    n->leader.evaluating = true;
    send_to_full_gate(n, session, 'c', 6);
    n->leader.evaluating = false;
    leader_release(n); /* it opens */
    assert_null(n->leader.gate_head);
    assert_false(is_made(n, 'c'));
    check_both_go_on(n, session, 6);
}

static bool is_idle(struct node *n, void *arg)
{
    return !n->client.count;
}

/* A leader tells the past by half of what the number can be: targets that were sent nothing
 * are not counted, however many there were. */
static void test_only_sendings_that_were_sent_count(void **state)
{
    struct node *n = *state;
    one_node_run(n, is_idle, NULL);
    uint16_t before = n->client.sending;
    for (int i = 0; i < 40000; i++) {
        n->client.sent_term = 0; /* it was another */
        client_pump(n);
    }
    assert_in_range((uint16_t)(n->client.sending - before), 0, 1);
    struct fs_op op = make_op("a");
    assert_int_equal(one_node_fs(n, &op, NULL), 0);
    before = n->client.sending;
    n->client.sent_term = 0;
    client_pump(n);
    assert_int_equal((uint16_t)(n->client.sending - before), 1);
}

/* ---- Sessions
 * ------------------------------------------------------------------------------ */

static void test_opening_again_with_the_nonce_is_the_same_session(void **state)
{
    struct node *n = *state;
    struct node_op op = {.type = NODE_OP_SESSION, .node_id = 77, .nonce = 5};
    struct fs_result first, again;
    assert_int_equal(one_node_op(n, &op, &first), 0);
    uint64_t before = store_last_index(n->store);
    assert_int_equal(one_node_op(n, &op, &again), 0);
    assert_int_equal(first.value, again.value);
    assert_int_equal(store_last_index(n->store), before);
}

static bool build(struct node *n, uint64_t session, uint64_t request)
{
    struct buf op = {0}, ranges = {0};
    fs_range_add(&ranges, 0, "content", 7);
    fs_op_encode(&(struct fs_op){.type = FS_BUILD,
                                 .ranges = ranges.data,
                                 .ranges_size = (uint32_t)ranges.length},
                 &op);
    uint64_t before = store_last_index(n->store);
    struct operation_head head = {session, request, request};
    leader_own_operation(n, &head, op.data, op.length);
    settle(n);
    buf_release(&op);
    buf_release(&ranges);
    return store_last_index(n->store) == before + 1;
}

static int count_one(void *arg, const struct store_item *item)
{
    ++*(unsigned *)arg;
    return 0;
}

static unsigned count_class(struct node *n, uint8_t class)
{
    unsigned count = 0;
    uint8_t from = class, to = (uint8_t)(class + 1);
    store_scan(n->store, &from, 1, &to, 1, count_one, &count);
    return count;
}

static bool is_reclaimed(struct node *n, void *arg)
{
    return count_class(n, FS_CLASS_CONTENT) == 0 && count_class(n, FS_CLASS_EXTENT) == 0;
}

/* A node that died with content in progress comes back: its older session ends, what it
 * was building is reclaimed (S7), and its old requests are nobody's. */
static void test_a_new_session_ends_the_older_one(void **state)
{
    struct node *n = *state;
    struct node_op op = {.type = NODE_OP_SESSION, .node_id = 77, .nonce = 5};
    struct fs_result first, second;
    assert_int_equal(one_node_op(n, &op, &first), 0);
    for (uint64_t request = 1; request <= 3; request++)
        assert_true(build(n, first.value, request));
    assert_int_equal(count_class(n, FS_CLASS_CONTENT), 3);
    op.nonce = 6;
    assert_int_equal(one_node_op(n, &op, &second), 0);
    assert_int_not_equal(second.value, first.value);
    assert_null(session_find(n, first.value));
    assert_non_null(session_find(n, second.value));
    assert_false(build(n, first.value, 4));
    one_node_run(n, is_reclaimed, NULL);
}

/* ---- Tokens
 * ---------------------------------------------------------------------------------- */

static struct node_op join_op(uint8_t key)
{
    struct node_op op = {.type = NODE_OP_JOIN,
                         .token_id = 500,
                         .version = WIRE_PROTOCOL_VERSION,
                         .next_token_id = 600 + key,
                         .name = "two",
                         .address = "127.0.0.1:7371"};
    memset(op.secret, 9, sizeof(op.secret));
    memset(op.key_hash, key, sizeof(op.key_hash));
    op.record.expires_us = clock_real_us() + 1000000000;
    return op;
}

static void invite(struct node *n, uint64_t expires_us)
{
    struct node_op op = {.type = NODE_OP_INVITE, .token_id = 500};
    uint8_t secret[NODE_SECRET_BYTES];
    memset(secret, 9, sizeof(secret));
    wire_hash(secret, sizeof(secret), op.record.secret_hash);
    op.record.expires_us = expires_us;
    assert_int_equal(one_node_op(n, &op, NULL), 0);
}

static void test_a_token_lets_one_node_in(void **state)
{
    struct node *n = *state;
    struct node_op op = join_op(1), other = join_op(2);
    struct fs_result first, again;
    strcpy(other.name, "three");
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_UNKNOWN_TOKEN);
    invite(n, clock_real_us() + 1000000000);
    assert_int_equal(one_node_op(n, &op, &first), 0);
    assert_int_equal(n->members.count, 2);
    assert_false(members_find(&n->members, first.value)->voter);
    assert_int_equal(one_node_op(n, &op, &again), 0); /* its answer was lost */
    assert_int_equal(again.value, first.value);
    assert_int_equal(one_node_op(n, &other, NULL), -JOIN_USED_TOKEN);
    assert_int_equal(n->members.count, 2);
}

static void test_a_wrong_secret_or_an_old_token_is_refused(void **state)
{
    struct node *n = *state;
    invite(n, clock_real_us() - 1);
    struct node_op op = join_op(1);
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_EXPIRED_TOKEN);
    op.secret[0] ^= 1;
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_UNKNOWN_TOKEN);
}

static void test_a_name_is_taken_once(void **state)
{
    struct node *n = *state;
    struct node_op op = join_op(1);
    strcpy(op.name, "one");
    invite(n, clock_real_us() + 1000000000);
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_NAME_TAKEN);
}

/* Two members at one address: the second could never be reached, nor start there. */
static void test_an_address_is_taken_once(void **state)
{
    struct node *n = *state;
    struct node_op op = join_op(1);
    strcpy(op.address, n->members.list[0].address);
    invite(n, clock_real_us() + 1000000000);
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_ADDRESS_TAKEN);
    assert_int_equal(n->members.count, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_former_leaderships_entries_are_not_sent),
        TEST(an_operation_is_applied_when_it_is_answered),
        TEST(an_operation_sent_twice_is_done_once),
        TEST(below_the_lowest_nothing_is_executed),
        TEST(an_errno_logs_nothing),
        TEST(an_errno_waits_for_what_it_rests_on),
        TEST(a_parked_operation_keeps_its_place),
        TEST(a_copy_of_the_past_is_not_the_request_that_is_back),
        TEST(what_is_turned_away_ends_the_past_too),
        TEST(what_leaves_the_gate_may_be_of_the_past),
        TEST(only_sendings_that_were_sent_count),
        TEST(opening_again_with_the_nonce_is_the_same_session),
        TEST(a_new_session_ends_the_older_one),
        TEST(a_token_lets_one_node_in),
        TEST(a_wrong_secret_or_an_old_token_is_refused),
        TEST(a_name_is_taken_once),
        TEST(an_address_is_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
