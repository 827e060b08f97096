/* test_snapshot.c - whole clusters whose logs are merged, torn and replaced, one scene
 * each; cluster.c checks every step of them. */
#include <errno.h>

#include "cluster.h"

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

static void compact_all(struct cluster *c, uint32_t except)
{
    for (uint32_t id = 1; id <= c->node_count; id++) {
        const struct node *n = &c->nodes[id];
        if (n->raft && !(except & 1u << id) && n->applied > n->base)
            cluster_compact(c, id, n->applied);
    }
}

static struct raft_peer_status status_of(struct cluster *c, uint64_t leader, uint64_t id)
{
    struct raft_peer_status p;
    assert_true(raft_peer_status(cluster_raft(c, leader), id, c->now_us, &p));
    return p;
}

/* Nothing but what a snapshot brings: 20 entries, and a log that begins after them. */
static struct cluster *cluster_with_a_laggard(uint64_t seed, uint64_t *ret_leader,
                                              uint64_t *ret_laggard)
{
    struct cluster *c = cluster_new(3, 3, seed);
    *ret_leader = cluster_elect(c);
    *ret_laggard = another(c, *ret_leader);
    cluster_isolate(c, *ret_laggard, true);
    write_some(c, *ret_leader, 1u << *ret_laggard);
    compact_all(c, 1u << *ret_laggard);
    cluster_isolate(c, *ret_laggard, false);
    return c;
}

/* Until it is being sent merged files. */
static void run_to_the_fetch(struct cluster *c, uint64_t id)
{
    for (int i = 0; i < 1000 && !c->nodes[id].fetch.from; i++)
        cluster_run(c, c->latency_us);
    assert_true(c->nodes[id].fetch.from);
}

static void settle(struct cluster *c)
{
    cluster_run(c, 6 * ELECTION_US);
    write_some(c, cluster_elect(c), 0);
    for (uint32_t id = 1; id <= c->node_count; id++)
        assert_int_equal(raft_claim(cluster_raft(c, id)), 0);
}

static void test_a_laggard_gets_a_snapshot_while_writes_go_on(void **state)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        uint64_t leader, laggard;
        struct cluster *c = cluster_with_a_laggard(seed, &leader, &laggard);
        uint64_t term = raft_term(cluster_raft(c, leader));
        run_to_the_fetch(c, laggard);
        c->nodes[laggard].fetch.due_us = c->now_us + 10 * ELECTION_US;
        assert_true(status_of(c, leader, laggard).snapshot);
        for (int i = 0; i < 8; i++) {
            cluster_propose(c, leader, 5);
            uint64_t last = c->nodes[leader].last;
            cluster_run(c, ELECTION_US); /* alive all the time, and in nobody's way */
            assert_true(status_of(c, leader, laggard).reachable);
            assert_true(c->nodes[leader].visible >= last);
            assert_true(raft_has_quorum(cluster_raft(c, laggard), c->now_us));
        }
        settle(c);
        assert_int_equal(c->counts.installs, 1);
        assert_int_equal(cluster_leader(c), leader);
        assert_int_equal(raft_term(cluster_raft(c, leader)), term);
        assert_false(status_of(c, leader, laggard).snapshot);
        cluster_free(c);
    }
}

/* Cut off again and again, the merges going on meanwhile. */
static void test_a_laggard_comes_and_goes(void **state)
{
    uint64_t leader, laggard;
    struct cluster *c = cluster_with_a_laggard(5, &leader, &laggard);
    for (int i = 0; i < 6; i++) {
        run_to_the_fetch(c, laggard);
        cluster_reconnect(c, leader, laggard);
        cluster_propose(c, leader, 5);
        cluster_run(c, ELECTION_US / 10);
        compact_all(c, 1u << laggard);
    }
    settle(c);
    assert_true(c->counts.installs > 0);
    cluster_free(c);
}

static void test_who_fetches_restarts(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t leader, laggard;
        struct cluster *c = cluster_with_a_laggard(seed, &leader, &laggard);
        for (int i = 0; i < 3; i++) {
            run_to_the_fetch(c, laggard);
            cluster_crash(c, laggard);
            cluster_run(c, ELECTION_US / 3);
            cluster_start(c, laggard);
        }
        settle(c);
        assert_int_equal(c->counts.installs, 1);
        cluster_crash(c, laggard); /* and what it installed is what it starts with */
        cluster_start(c, laggard);
        settle(c);
        assert_int_equal(c->counts.installs, 1);
        cluster_free(c);
    }
}

/* The leader that sends goes away: the next one, which has or has not merged, takes over.
 */
static void test_who_sends_goes_away(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t leader, laggard;
        struct cluster *c = cluster_with_a_laggard(seed, &leader, &laggard);
        run_to_the_fetch(c, laggard);
        uint64_t third = 6 - leader - laggard;
        if (seed % 2) {
            c->nodes[third].base = 0; /* it has its whole log after all */
            cluster_crash(c, third);
            cluster_start(c, third);
            run_to_the_fetch(c, laggard);
        }
        cluster_crash(c, leader);
        assert_int_equal(cluster_elect(c), third);
        cluster_propose(c, third, 5);
        cluster_run(c, 6 * ELECTION_US);
        assert_int_equal(c->counts.installs, seed % 2 ? 0 : 1);
        cluster_start(c, leader);
        settle(c);
        cluster_free(c);
    }
}

static void test_a_wiped_node_comes_back(void **state)
{
    struct cluster *c = cluster_new(3, 3, 4);
    uint64_t leader = cluster_elect(c), wiped = another(c, leader);
    write_some(c, leader, 0);
    compact_all(c, 0);
    cluster_crash(c, wiped);
    cluster_wipe(c, wiped);
    cluster_start(c, wiped);
    settle(c);
    assert_int_equal(c->counts.installs, 1);
    cluster_free(c);
}

static void test_a_new_learner_gets_a_snapshot(void **state)
{
    struct cluster *c = cluster_new(1, 1, 8);
    write_some(c, cluster_elect(c), 0);
    compact_all(c, 0);
    uint64_t id = cluster_outsider(c);
    cluster_start(c, id);
    struct raft_config config = c->configs[0];
    config.members[config.count++] = (struct raft_member){id, false};
    assert_int_equal(cluster_config(c, 1, &config), 0);
    settle(c);
    assert_int_equal(c->counts.installs, 1);
    config.members[1].voter = true;
    assert_int_equal(cluster_config(c, 1, &config), 0);
    settle(c);
    cluster_free(c);
}

/* Any node may merge at any index, whoever lags however far. */
static void test_compaction_at_every_index(void **state)
{
    for (uint64_t to = 1; to <= 20; to++) {
        struct cluster *c = cluster_new(3, 3, to);
        uint64_t leader = cluster_elect(c), slow = another(c, leader);
        cluster_propose(c, leader, to);
        cluster_run(c, ELECTION_US);
        c->nodes[slow].disk_held = true;
        cluster_propose(c, leader, 21 - to);
        cluster_run(c, ELECTION_US);
        cluster_cut(c, leader, slow, true);
        write_some(c, leader, 1u << slow);
        cluster_compact(c, leader, to);
        cluster_compact(c, slow, to);
        cluster_cut(c, leader, slow, false);
        c->nodes[slow].disk_held = false;
        settle(c);
        assert_int_equal(c->counts.offers, 0); /* it had all of it */
        compact_all(c, 0);
        settle(c);
        cluster_free(c);
    }
}

/* G8: nobody merges what a member that is only slow still needs; so whoever leads next
 * can serve it. */
static void test_the_floor_spares_snapshots(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct cluster *c = cluster_new(3, 3, seed);
        uint64_t leader = cluster_elect(c), slow = another(c, leader);
        write_some(c, leader, 0);
        c->nodes[slow].disk_held = true;
        write_some(c, leader, 1u << slow);
        uint64_t had = c->nodes[slow].durable;
        for (uint32_t id = 1; id <= 3; id++) {
            uint64_t to = min_u64(c->nodes[id].applied, raft_floor(cluster_raft(c, id)));
            assert_int_equal(to, had);
            cluster_compact(c, id, to);
        }
        cluster_crash(c, slow);
        cluster_start(c, slow); /* what was only in its memory may be gone */
        c->nodes[slow].disk_held = false;
        struct raft_event e = {.type = RAFT_TRANSFER, .peer = 6 - leader - slow};
        assert_int_equal(cluster_event(c, leader, e), 0);
        settle(c);
        assert_int_equal(c->counts.offers, 0);
        cluster_free(c);
    }
}

/* ---- Holes
 * ----------------------------------------------------------------------------- */

static void test_a_hole_is_filled(void **state)
{
    for (uint64_t to = 3; to <= 20; to++) {
        struct cluster *c = cluster_new(3, 3, to);
        uint64_t leader = cluster_elect(c), hurt = another(c, leader);
        write_some(c, leader, 0);
        cluster_compact(c, hurt, 3);
        cluster_compact(c, leader, 10); /* beyond the hole's begin, or not */
        cluster_crash(c, hurt);
        assert_true(cluster_damage(c, hurt, to));
        cluster_start(c, hurt);
        assert_int_equal(raft_claim(cluster_raft(c, hurt)), 21);
        settle(c);
        assert_int_equal(c->counts.installs, to < 10);
        assert_int_equal(cluster_leader(c), leader);
        cluster_free(c);
    }
}

/* Of three, one has all, one has a hole, one never had it. The two that lack it would be
 * a majority: they must wait for the third. */
static void test_a_hole_is_not_voted_away(void **state)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct cluster *c = cluster_new(3, 3, seed);
        uint64_t leader = cluster_elect(c), hurt = another(c, leader);
        uint64_t late = 6 - leader - hurt;
        write_some(c, leader, 0);
        cluster_isolate(c, late, true);
        write_some(c, leader, 1u << late);
        cluster_crash(c, leader);
        cluster_crash(c, hurt);
        assert_true(cluster_damage(c, hurt, seed));
        cluster_start(c, hurt);
        cluster_isolate(c, late, false);
        cluster_run(c, 30 * ELECTION_US);
        assert_int_equal(cluster_leader(c), 0);
        cluster_start(c, leader);
        settle(c);
        cluster_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_laggard_gets_a_snapshot_while_writes_go_on),
        cmocka_unit_test(test_a_laggard_comes_and_goes),
        cmocka_unit_test(test_who_fetches_restarts),
        cmocka_unit_test(test_who_sends_goes_away),
        cmocka_unit_test(test_a_wiped_node_comes_back),
        cmocka_unit_test(test_a_new_learner_gets_a_snapshot),
        cmocka_unit_test(test_compaction_at_every_index),
        cmocka_unit_test(test_the_floor_spares_snapshots),
        cmocka_unit_test(test_a_hole_is_filled),
        cmocka_unit_test(test_a_hole_is_not_voted_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
