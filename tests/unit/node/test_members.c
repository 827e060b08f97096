/* test_members.c - who belongs to the cluster, as its leader evaluates it: a node of one, whose
 * other members exist only in the log. */
#include "one_node.h"

#include "common.h"

#include <errno.h>

/* What an operation would do; lives until the next one. */
static struct evaluation e;
static struct store_builder builder;

static int setup(void **state)
{
    *state = one_node_start();
    return 0;
}

static int teardown(void **state)
{
    store_builder_release(&builder);
    builder = (struct store_builder){0};
    one_node_stop(*state);
    return 0;
}

enum { SECRET = 9 };

static void invite(struct node *n, uint64_t token_id)
{
    struct node_op op = {.type = NODE_OP_INVITE, .token_id = token_id};
    uint8_t secret[NODE_SECRET_BYTES];
    memset(secret, SECRET, sizeof(secret));
    wire_hash(secret, sizeof(secret), op.record.secret_hash);
    op.record.expires_us = clock_real_us() + 1000000000;
    assert_int_equal(one_node_op(n, &op, NULL), 0);
}

static struct node_op join_op(uint64_t token_id, const char *name, const char *address)
{
    struct node_op op = {.type = NODE_OP_JOIN,
                         .token_id = token_id,
                         .version = WIRE_PROTOCOL_VERSION,
                         .next_token_id = token_id + 100};
    strcpy(op.name, name);
    strcpy(op.address, address);
    memset(op.secret, SECRET, sizeof(op.secret));
    memset(op.key_hash, (int)token_id, sizeof(op.key_hash));
    op.record.expires_us = clock_real_us() + 1000000000;
    return op;
}

static uint64_t join(struct node *n, uint64_t token_id, const char *name,
                     const char *address)
{
    struct node_op op = join_op(token_id, name, address);
    struct fs_result result;
    invite(n, token_id);
    assert_int_equal(one_node_op(n, &op, &result), 0);
    return result.value;
}

static int remove_one(struct node *n, uint64_t id)
{
    return one_node_op(n, &(struct node_op){.type = NODE_OP_REMOVE, .node_id = id}, NULL);
}

static int judge(struct node *n, const struct node_op *op)
{
    struct buf bytes = {0};
    store_builder_release(&builder);
    builder = (struct store_builder){0};
    e = (struct evaluation){.builder = &builder,
                            .timestamp_us = node_last_timestamp(n) + 1};
    node_op_encode(op, &bytes);
    int ret = evaluate(n, n->client.session, bytes.data, bytes.length, &e);
    buf_release(&bytes);
    return ret;
}

static int judge_removal(struct node *n, uint64_t id)
{
    return judge(n, &(struct node_op){.type = NODE_OP_REMOVE, .node_id = id});
}

/* Members that nobody has heard of. */
static void add_voter(struct node *n, uint64_t id, const char *name)
{
    struct member *m = &n->members.list[n->members.count++];
    *m = (struct member){.id = id, .voter = true, .version = 3, .address = "h:1"};
    strcpy(m->name, name);
}

/* ---- Removal ----------------------------------------------------------------------- */

static void test_a_member_is_removed_for_good(void **state)
{
    struct node *n = *state;
    char text[WIRE_ERROR_BYTES];
    struct fs_result opened;
    uint64_t id = join(n, 500, "two", "127.0.0.1:1");
    struct node_op session = {.type = NODE_OP_SESSION, .node_id = id, .nonce = 5};
    assert_int_equal(one_node_op(n, &session, &opened), 0);
    assert_non_null(session_find(n, opened.value));
    assert_false(removed_find(n, id));
    assert_int_equal(removed_admit(n, id, text), 0);

    assert_int_equal(remove_one(n, id), 0);
    assert_int_equal(n->members.count, 1);
    assert_int_equal(n->members_applied.count, 1);
    assert_true(removed_find(n, id));
    assert_false(removed_find(n, n->directory.node_id));
    assert_int_equal(removed_admit(n, id, text), WIRE_REFUSAL_REMOVED);
    assert_null(session_find(n, opened.value)); /* in the same entry */
    assert_null(peers_find(n, id));

    session.nonce = 6; /* of another life */
    assert_int_equal(one_node_op(n, &session, NULL), -EPERM);
    uint64_t before = store_last_index(n->store);
    assert_int_equal(remove_one(n, id), 0); /* a retry */
    assert_int_equal(remove_one(n, 77), -ENOENT);
    struct node_op again = join_op(500, "two", "127.0.0.1:1");
    assert_int_equal(one_node_op(n, &again, NULL), -JOIN_REMOVED);
    assert_int_equal(store_last_index(n->store), before);
}

static void test_the_removed_are_known_after_a_start(void **state)
{
    struct node *n = *state;
    uint64_t ids[3];
    for (size_t i = 0; i < array_length(ids); i++) {
        char name[] = {(char)('a' + i), 0}, address[] = {'h', ':', (char)('1' + i), 0};
        ids[i] = join(n, 500 + i, name, address);
    }
    assert_int_equal(remove_one(n, ids[1]), 0);
    assert_int_equal(remove_one(n, ids[0]), 0);
    removed_release(n);
    assert_false(removed_find(n, ids[0]));
    assert_int_equal(removed_load(n), 0);
    assert_int_equal(n->removed.count, 2);
    assert_true(removed_find(n, ids[0]) && removed_find(n, ids[1]));
    assert_false(removed_find(n, ids[2]));
    assert_int_equal(removed_load(n), 0);
    assert_int_equal(n->removed.count, 2);
    struct fs_key key;
    struct buf value = {0};
    struct removed_record record;
    cluster_key_removed(&key, ids[1]);
    assert_int_equal(store_get(n->store, key.bytes, key.size, 0, &value, NULL), 0);
    assert_int_equal(removed_record_decode(value.data, value.length, &record), 0);
    assert_string_equal(record.name, "b");
    buf_release(&value);
}

/* A majority of those that stay must be there, whoever goes. */
static void test_a_majority_must_be_left(void **state)
{
    struct node *n = *state;
    uint64_t self = n->directory.node_id;
    assert_int_equal(judge_removal(n, self), -MEMBERS_LAST_VOTER);
    add_voter(n, 71, "b");
    assert_int_equal(judge_removal(n, 71), 0); /* alone is a majority of one */
    assert_int_equal(builder.record_count, 2);
    assert_true(e.config_changed);
    assert_int_equal(e.members.count, 1);
    assert_int_equal(judge_removal(n, self), -MEMBERS_NO_MAJORITY);
    assert_int_equal(e.result.value, 71);
    assert_false(e.config_changed);
    add_voter(n, 72, "c");
    assert_int_equal(judge_removal(n, 72), -MEMBERS_NO_MAJORITY); /* one of two is none */
    assert_int_equal(e.result.value, 71);
    n->members.list[1].voter = false;
    assert_int_equal(judge_removal(n, 72), 0); /* learners do not count */
    assert_int_equal(judge_removal(n, 71), 0); /* nor are they missed */
    assert_int_equal(e.members.list[1].id, 72);
    n->members.list[2].voter = false;
    assert_int_equal(judge_removal(n, self), -MEMBERS_LAST_VOTER);
    n->members = n->members_applied;
}

/* It has not heard of all yet, so it does not say that they are missing. */
static void test_a_new_leader_does_not_refuse(void **state)
{
    struct node *n = *state;
    add_voter(n, 71, "b");
    add_voter(n, 72, "c");
    n->leader.since_us = node_now();
    uint64_t since_us = n->leader.since_us;
    assert_int_equal(remove_one(n, 72), -MEMBERS_NO_MAJORITY);
    assert_true(node_now() >= since_us + NODE_NEW_LEADER_US);
    n->members = n->members_applied;
}

static void test_who_only_asks_changes_nothing(void **state)
{
    struct node *n = *state;
    uint64_t id = join(n, 500, "two", "127.0.0.1:1"), before = store_last_index(n->store);
    struct node_op op = {.type = NODE_OP_REMOVE, .node_id = id, .ask = true};
    assert_int_equal(one_node_op(n, &op, NULL), 0);
    op.node_id = n->directory.node_id;
    assert_int_equal(one_node_op(n, &op, NULL), -MEMBERS_LAST_VOTER);
    assert_int_equal(store_last_index(n->store), before);
    assert_int_equal(n->members.count, 2);
}

/* ---- A leader that is to go, and one that is asked to ------------------------------- */

/* The other node is connected, and has the log up to its end. */
static void hear(struct node *n, uint64_t id)
{
    struct raft_message m = {.type = RAFT_APPEND_REPLY,
                             .from = id,
                             .to = n->directory.node_id,
                             .term = raft_term(n->driver.raft),
                             .ok = true,
                             .match = store_last_index(n->store),
                             .applied = store_applied(n->store)};
    driver_step(n, &(struct raft_event){.type = RAFT_CONNECTED, .peer = id});
    driver_step(n, &(struct raft_event){.type = RAFT_RECEIVE, .message = &m});
}

static void test_a_leader_that_goes_hands_over_first(void **state)
{
    struct node *n = *state;
    uint64_t self = n->directory.node_id, id = join(n, 500, "two", "127.0.0.1:1");
    struct node_op transfer = {.type = NODE_OP_TRANSFER};
    assert_int_equal(judge(n, &transfer), -MEMBERS_NO_HEIR);
    transfer.node_id = id;
    assert_int_equal(judge(n, &transfer), -MEMBERS_NO_VOTER);
    transfer.node_id = 77;
    assert_int_equal(judge(n, &transfer), -ENOENT);
    transfer.node_id = self;
    assert_int_equal(judge(n, &transfer), 0);
    assert_int_equal(builder.record_count, 0);

    n->members.list[1].voter = true;
    transfer.node_id = id;
    assert_int_equal(judge(n, &transfer), -MEMBERS_NO_HEIR);
    assert_int_equal(judge_removal(n, self), -MEMBERS_NO_MAJORITY);
    hear(n, id);
    assert_int_equal(judge(n, &transfer), -EVALUATE_HAND_OVER);
    assert_int_equal(e.heir, id);
    transfer.node_id = 0;
    assert_int_equal(judge(n, &transfer), -EVALUATE_HAND_OVER);
    assert_int_equal(e.heir, 0);
    assert_int_equal(judge_removal(n, self), -EVALUATE_HAND_OVER);
    assert_false(e.config_changed);
    struct node_op ask = {.type = NODE_OP_REMOVE, .node_id = self, .ask = true};
    assert_int_equal(judge(n, &ask), 0);
    n->members = n->members_applied;
}

/* ---- Joining ------------------------------------------------------------------------- */

static void test_an_observer_is_not_promoted(void **state)
{
    struct node *n = *state;
    struct node_op op = join_op(500, "two", "127.0.0.1:1");
    struct fs_result result;
    op.observer = true;
    op.version = WIRE_PROTOCOL_VERSION + 1;
    invite(n, 500);
    assert_int_equal(one_node_op(n, &op, &result), 0);
    const struct member *m = members_find(&n->members, result.value);
    assert_true(m->observer && !m->voter);
    assert_int_equal(m->version, WIRE_PROTOCOL_VERSION + 1);
    uint64_t before = store_last_index(n->store);
    hear(n, result.value); /* it has caught up */
    leader_tick(n);
    struct node_op promote = {.type = NODE_OP_PROMOTE, .node_id = result.value};
    assert_int_equal(one_node_op(n, &promote, NULL), 0);
    assert_int_equal(store_last_index(n->store), before);
    assert_false(members_find(&n->members, result.value)->voter);
}

static void test_a_member_is_replaced_in_one_entry(void **state)
{
    struct node *n = *state;
    uint64_t lost = join(n, 500, "two", "127.0.0.1:1");
    struct node_op op = join_op(501, "two", "127.0.0.1:1");
    struct fs_result result;
    invite(n, 501);
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_NAME_TAKEN);
    strcpy(op.replace, "three");
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_NOBODY_TO_REPLACE);
    strcpy(op.replace, n->directory.name);
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_REPLACES_THE_LIVING);
    strcpy(op.replace, "two");
    uint64_t before = store_last_index(n->store);
    assert_int_equal(one_node_op(n, &op, &result), 0);
    assert_int_equal(store_last_index(n->store), before + 1);
    assert_int_equal(n->members.count, 2);
    assert_int_equal(members_find_name(&n->members, "two")->id, result.value);
    assert_int_not_equal(result.value, lost);
    assert_true(removed_find(n, lost));
    assert_int_equal(one_node_op(n, &op, &result), 0); /* a retry: the same */
    assert_int_equal(store_last_index(n->store), before + 1);
}

static void test_who_is_reachable_is_not_replaced(void **state)
{
    struct node *n = *state;
    uint64_t id = join(n, 500, "two", "127.0.0.1:1");
    struct node_op op = join_op(501, "new", "127.0.0.1:2");
    strcpy(op.replace, "two");
    invite(n, 501);
    hear(n, id);
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_REPLACES_THE_LIVING);
    driver_step(n, &(struct raft_event){.type = RAFT_DISCONNECTED, .peer = id});
    add_voter(n, 71, "b");
    add_voter(n, 72, "c");
    strcpy(op.replace, "b");
    assert_int_equal(judge(n, &op), -MEMBERS_NO_MAJORITY);
    assert_int_equal(e.result.value, 72);
    n->members = n->members_applied;
    assert_int_equal(one_node_op(n, &op, NULL), -JOIN_NOBODY_TO_REPLACE);
    strcpy(op.replace, "two");
    assert_int_equal(one_node_op(n, &op, NULL), 0);
}

/* ---- Peers --------------------------------------------------------------------------- */

/* What a HELLO says of the clock makes the core step, that opens the gate, and behind it
 * another peer is removed: this one is elsewhere in the list then. */
static void test_a_peer_moves_while_it_is_opened(void **state)
{
    struct node *n = *state;
    uint64_t gone = join(n, 500, "two", "127.0.0.1:1");
    uint64_t stays = join(n, 501, "three", "127.0.0.1:2");
    struct wire_hello hello = {.node_id = stays, .version = 3, .clock_us = clock_real_us()};
    struct operation_head head = {n->client.session, n->client.next_request++, 1};
    struct node_op remove = {.type = NODE_OP_REMOVE, .node_id = gone};
    struct buf op = {0};
    node_op_encode(&remove, &op);
    n->leader.evaluating = true; /* it stays at the gate */
    leader_own_operation(n, &head, op.data, op.length);
    n->leader.evaluating = false;
    buf_release(&op);
    n->eligible = false;
    assert_ptr_equal(peers_find(n, stays), &n->peers[1]);
    n->peers[1].connection = one_node_connection();
    peers_opened(n, one_node_connection(), &hello);
    assert_null(peers_find(n, gone));
    struct peer *p = peers_find(n, stays);
    assert_ptr_equal(p, &n->peers[0]);
    assert_true(p->open);
    assert_int_equal(p->version, 3);
    p->connection = NULL;
    p->open = false;
}

/* ---- Reports ------------------------------------------------------------------------- */

static void test_a_node_reports_of_itself_alone(void **state)
{
    struct node *n = *state;
    uint64_t self = n->directory.node_id, id = join(n, 500, "two", "127.0.0.1:1");
    struct member was = *members_find(&n->members, self);
    struct node_op op = {
        .type = NODE_OP_REPORT, .node_id = self, .version = was.version, .ca = was.ca};
    strcpy(op.address, was.address);
    uint64_t before = store_last_index(n->store);
    assert_int_equal(one_node_op(n, &op, NULL), 0); /* nothing new */
    assert_int_equal(store_last_index(n->store), before);
    op.version++;
    op.ca = 4;
    strcpy(op.address, "127.0.0.9:9");
    assert_int_equal(one_node_op(n, &op, NULL), 0);
    const struct member *m = members_find(&n->members_applied, self);
    assert_int_equal(m->version, was.version + 1);
    assert_int_equal(m->ca, 4);
    assert_string_equal(m->address, "127.0.0.9:9");
    assert_true(m->voter);
    op.node_id = id;
    strcpy(op.address, "127.0.0.1:5");
    assert_int_equal(one_node_op(n, &op, NULL), -EPERM);
    assert_string_equal(members_find(&n->members, id)->address, "127.0.0.1:1");
}

/* Two have exchanged their addresses: the first to say so does not wait for the other. */
static void test_who_reports_an_address_is_there(void **state)
{
    struct node *n = *state;
    uint64_t self = n->directory.node_id, id = join(n, 500, "two", "127.0.0.1:1");
    struct member was = *members_find(&n->members, self);
    struct node_op op = {.type = NODE_OP_REPORT,
                         .node_id = self,
                         .version = was.version,
                         .ca = was.ca + 1};
    strcpy(op.address, "127.0.0.1:1");
    assert_int_equal(one_node_op(n, &op, NULL), 0);
    const struct member *m = members_find(&n->members_applied, self);
    assert_string_equal(m->address, "127.0.0.1:1");
    assert_int_equal(m->ca, was.ca + 1);
    assert_string_equal(members_find(&n->members_applied, id)->address, "127.0.0.1:1");
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_member_is_removed_for_good),
        TEST(the_removed_are_known_after_a_start),
        TEST(a_majority_must_be_left),
        TEST(a_new_leader_does_not_refuse),
        TEST(who_only_asks_changes_nothing),
        TEST(a_leader_that_goes_hands_over_first),
        TEST(an_observer_is_not_promoted),
        TEST(a_member_is_replaced_in_one_entry),
        TEST(who_is_reachable_is_not_replaced),
        TEST(a_peer_moves_while_it_is_opened),
        TEST(a_node_reports_of_itself_alone),
        TEST(who_reports_an_address_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
