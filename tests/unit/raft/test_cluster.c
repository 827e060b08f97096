/* test_cluster.c - whole clusters, one scene each; cluster.c checks every step of them.
 */
#include <errno.h>

#include "cluster.h"

static struct raft_config config_of(uint32_t count, const uint64_t *ids)
{
    struct raft_config c = {.count = count};
    for (uint32_t i = 0; i < count; i++)
        c.members[i] = (struct raft_member){ids[i], true};
    return c;
}

static uint64_t another(const struct cluster *c, uint64_t than)
{
    return than % c->node_count + 1;
}

static void write_some(struct cluster *c, uint64_t leader, uint32_t except)
{
    assert_int_equal(cluster_propose(c, leader, 20), 0);
    uint64_t last = c->nodes[leader].last;
    cluster_run(c, 2 * ELECTION_US);
    assert_true(c->committed_last >= last);
    assert_true(cluster_agrees(c, except));
}

static void test_elections(void **state)
{
    for (uint32_t voters = 1; voters <= 5; voters++) {
        for (uint64_t seed = 1; seed <= 30; seed++) {
            struct cluster *c = cluster_new(voters, voters, seed);
            uint64_t leader = cluster_elect(c);
            write_some(c, leader, 0);
            uint64_t term = raft_term(cluster_raft(c, leader));
            cluster_run(c, 20 * ELECTION_US); /* and it stays */
            assert_int_equal(cluster_leader(c), leader);
            assert_int_equal(raft_term(cluster_raft(c, leader)), term);
            cluster_free(c);
        }
    }
}

/* All campaign at the same moment, in earnest; the votes split, chance decides later. */
static void test_split_vote(void **state)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct cluster *c = cluster_new(4, 4, seed);
        for (uint64_t id = 1; id <= 4; id++) {
            struct raft_message m = {
                .type = RAFT_TIMEOUT_NOW, .from = another(c, id), .to = id, .term = 1};
            cluster_event(c, id,
                          (struct raft_event){.type = RAFT_RECEIVE, .message = &m});
            assert_int_equal(raft_term(cluster_raft(c, id)), 2);
        }
        write_some(c, cluster_elect(c), 0);
        cluster_free(c);
    }
}

static void test_a_rejoining_node_disturbs_nobody(void **state)
{
    struct cluster *c = cluster_new(3, 3, 1);
    uint64_t leader = cluster_elect(c), lost = another(c, leader);
    uint64_t term = raft_term(cluster_raft(c, leader));
    cluster_isolate(c, lost, true);
    cluster_run(c, 40 * ELECTION_US);
    assert_int_equal(raft_term(cluster_raft(c, lost)), term);
    write_some(c, leader, 1u << lost);
    cluster_isolate(c, lost, false);
    cluster_run(c, 4 * ELECTION_US);
    assert_int_equal(cluster_leader(c), leader);
    assert_int_equal(raft_term(cluster_raft(c, leader)), term);
    assert_true(cluster_agrees(c, 0));
    cluster_free(c);
}

static void test_failover(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct cluster *c = cluster_new(3, 3, seed);
        uint64_t leader = cluster_elect(c);
        write_some(c, leader, 0);
        cluster_propose(c, leader, 5);
        cluster_crash(c, leader);
        uint64_t begin = c->now_us, next = cluster_elect(c);
        assert_int_not_equal(next, leader);
        assert_true(c->now_us - begin < 6 * ELECTION_US);
        write_some(c, next, 0);
        cluster_start(c, leader);
        cluster_run(c, 4 * ELECTION_US);
        assert_int_equal(cluster_leader(c), next);
        assert_true(cluster_agrees(c, 0));
        cluster_free(c);
    }
}

static void test_an_isolated_leader_gives_up(void **state)
{
    struct cluster *c = cluster_new(3, 3, 3);
    uint64_t old = cluster_elect(c);
    cluster_isolate(c, old, true);
    cluster_propose(c, old, 3); /* will be cut */
    cluster_read(c, old);
    cluster_run(c, 10 * ELECTION_US);
    assert_int_not_equal(raft_role(cluster_raft(c, old)), RAFT_LEADER);
    assert_false(raft_has_quorum(cluster_raft(c, old), c->now_us));
    uint64_t next = cluster_elect(c);
    assert_int_not_equal(next, old);
    write_some(c, next, 1u << old);
    cluster_isolate(c, old, false);
    cluster_run(c, 4 * ELECTION_US);
    assert_true(cluster_agrees(c, 0));
    assert_true(c->counts.truncations > 0);
    assert_int_equal(c->counts.reads_confirmed, 0);
    cluster_free(c);
}

static void test_a_slow_disk_delays_only_itself(void **state)
{
    struct cluster *c = cluster_new(3, 3, 5);
    uint64_t leader = cluster_elect(c), slow = another(c, leader);
    c->nodes[slow].disk_held = true;
    write_some(c, leader, 1u << slow);
    struct raft_peer_status p;
    raft_peer_status(cluster_raft(c, leader), slow, c->now_us, &p);
    assert_true(p.reachable && p.match < c->committed_last);
    c->nodes[leader].disk_held = true; /* now nobody's is a majority */
    uint64_t committed = c->committed_last;
    assert_int_equal(cluster_propose(c, leader, 1), 0);
    cluster_run(c, 4 * ELECTION_US);
    assert_int_equal(cluster_leader(c), leader);
    assert_int_equal(c->committed_last, committed);
    c->nodes[leader].disk_held = c->nodes[slow].disk_held = false;
    cluster_run(c, 2 * ELECTION_US);
    assert_true(cluster_agrees(c, 0));
    cluster_free(c);
}

static void test_a_full_link_delays_only_its_peer(void **state)
{
    struct cluster *c = cluster_new(3, 3, 6);
    uint64_t leader = cluster_elect(c), peer = another(c, leader);
    c->nodes[leader].link_full[peer] = true;
    write_some(c, leader, 1u << peer);
    assert_int_equal(cluster_leader(c), leader);
    cluster_drain(c, leader, peer);
    cluster_run(c, ELECTION_US);
    assert_true(cluster_agrees(c, 0));
    cluster_free(c);
}

static void test_a_lost_packet_is_sent_again(void **state)
{
    struct cluster *c = cluster_new(3, 3, 7);
    uint64_t leader = cluster_elect(c), peer = another(c, leader);
    cluster_cut(c, leader, peer, true); /* nobody is told */
    cluster_propose(c, leader, 3);
    cluster_run(c, 5 * c->latency_us);
    cluster_cut(c, leader, peer, false);
    cluster_run(c, 2 * ELECTION_US);
    assert_int_equal(cluster_leader(c), leader);
    assert_true(cluster_agrees(c, 0));
    cluster_free(c);
}

/* ---- Membership
 * ------------------------------------------------------------------------------ */

static void change_to(struct cluster *c, const struct raft_config *config)
{
    for (int i = 0; i < 20; i++) {
        uint64_t leader = cluster_elect(c);
        if (!cluster_config(c, leader, config))
            break;
        cluster_run(c, ELECTION_US);
    }
    cluster_run(c, 2 * ELECTION_US);
    uint64_t leader = cluster_elect(c);
    const struct raft_config *now = raft_config(cluster_raft(c, leader), NULL);
    assert_false(raft_config_is_pending(cluster_raft(c, leader)));
    assert_memory_equal(now->members, config->members,
                        config->count * sizeof(config->members[0]));
    assert_int_equal(now->count, config->count);
}

static void test_one_node_becomes_three(void **state)
{
    struct cluster *c = cluster_new(1, 1, 8);
    write_some(c, cluster_elect(c), 0);
    struct raft_config config = c->configs[0];
    for (uint64_t id = 2; id <= 3; id++) {
        assert_int_equal(cluster_outsider(c), id);
        cluster_start(c, id);
        cluster_run(c, 4 * ELECTION_US);
        assert_int_equal(c->nodes[id].last, 0);
        config.members[config.count++] = (struct raft_member){id, false};
        change_to(c, &config);
        assert_true(cluster_agrees(c, 0)); /* it has caught up */
        assert_int_equal(raft_role(cluster_raft(c, id)), RAFT_FOLLOWER);
        config.members[config.count - 1].voter = true;
        change_to(c, &config);
    }
    uint64_t leader = cluster_elect(c);
    cluster_crash(c, leader);
    write_some(c, cluster_elect(c), 0);
    cluster_free(c);
}

static void test_members_leave_one_by_one(void **state)
{
    struct cluster *c = cluster_new(5, 5, 9);
    uint32_t gone = 0;
    write_some(c, cluster_elect(c), 0);
    while (true) {
        uint64_t leader = cluster_elect(c);
        struct raft_config config = *raft_config(cluster_raft(c, leader), NULL);
        if (config.count == 1)
            break;
        for (uint32_t i = 0; i < config.count; i++) { /* the leader itself, always */
            if (config.members[i].id == leader) {
                config.members[i] = config.members[--config.count];
                break;
            }
        }
        gone |= 1u << leader;
        change_to(c, &config);
        assert_int_not_equal(cluster_leader(c), leader);
        write_some(c, cluster_elect(c), gone);
    }
    cluster_run(c, 20 * ELECTION_US); /* those that left stay quiet */
    write_some(c, cluster_elect(c), gone);
    cluster_free(c);
}

/* Node 3 is removed by an entry that it and node 1, a learner, alone have; node 2 is the
 * only voter left, and too far behind to win 3's vote. 3 must lead once more. */
static void test_who_is_being_removed_may_be_needed(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct cluster *c = cluster_make(3, 3, seed);
        c->configs[0].members[0].voter = false;
        for (uint64_t id = 1; id <= 3; id++)
            cluster_start(c, id);
        uint64_t leader = cluster_elect(c);
        write_some(c, leader, 0);
        uint64_t other = leader == 2 ? 3 : 2;
        cluster_isolate(c, other, true);
        struct raft_config rest = config_of(2, (const uint64_t[]){1, other});
        rest.members[0].voter = false;
        assert_int_equal(cluster_config(c, leader, &rest), 0);
        cluster_run(c, 3 * ELECTION_US);
        assert_int_equal(cluster_leader(c), 0);
        cluster_isolate(c, other, false);
        cluster_run(c, 20 * ELECTION_US);
        assert_int_equal(cluster_elect(c), other);
        write_some(c, other, 1u << leader);
        cluster_free(c);
    }
}

/* ---- Transfer
 * ---------------------------------------------------------------------------------- */

static void test_transfer(void **state)
{
    struct cluster *c = cluster_new(3, 3, 10);
    uint64_t leader = cluster_elect(c), to = another(c, leader);
    write_some(c, leader, 0);
    uint64_t term = raft_term(cluster_raft(c, leader));
    cluster_propose(c, leader, 10);
    struct raft_event e = {.type = RAFT_TRANSFER, .peer = to};
    assert_int_equal(cluster_event(c, leader, e), 0);
    cluster_run(c, ELECTION_US / 2); /* long before any timeout */
    assert_int_equal(cluster_leader(c), to);
    assert_int_equal(raft_term(cluster_raft(c, to)), term + 1);
    write_some(c, to, 0);
    cluster_crash(c, leader);
    e.peer = leader;
    assert_int_equal(cluster_event(c, to, e), 0);
    assert_int_equal(cluster_propose(c, to, 1), -EBUSY);
    cluster_run(c, 3 * ELECTION_US);
    write_some(c, to, 0);
    assert_int_equal(cluster_leader(c), to);
    cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elections),
        cmocka_unit_test(test_split_vote),
        cmocka_unit_test(test_a_rejoining_node_disturbs_nobody),
        cmocka_unit_test(test_failover),
        cmocka_unit_test(test_an_isolated_leader_gives_up),
        cmocka_unit_test(test_a_slow_disk_delays_only_itself),
        cmocka_unit_test(test_a_full_link_delays_only_its_peer),
        cmocka_unit_test(test_a_lost_packet_is_sent_again),
        cmocka_unit_test(test_one_node_becomes_three),
        cmocka_unit_test(test_members_leave_one_by_one),
        cmocka_unit_test(test_who_is_being_removed_may_be_needed),
        cmocka_unit_test(test_transfer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
