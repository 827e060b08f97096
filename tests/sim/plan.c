/*
 * plan.c - what a seed does: its options are drawn first, some faults often, some rarely,
 * some not at all; then two phases. Safety: faults of all kinds (faults.c), any number of
 * nodes down. Liveness: faults freeze; a minority may stay away, among all others links heal,
 * and who can run runs. They must answer within a bound. Then the minority comes back,
 * and all must come to hold the same.
 */
#include "plan.h"

enum {
    LIVE_ELECTIONS = 60, /* longest election timeouts until something is answered */
    MISSING_S = 25,      /* longer than a session lives */
    CONVERGE_S = 120,
    REPAIR_S = 60,
    FULL_STEPS = 1000, /* between two looks at all of the keydirs */
};

struct sim_plan plan;
uint64_t election_longest_us;

/* Swarms: each kind of fault is off in a third of the seeds. */
static double rate(double most)
{
    return one_in(3) ? 0 : most * (double)between(1, 1000) / 1000;
}

static uint64_t every(uint64_t least_us)
{
    return one_in(3) ? 0 : between(least_us, 10 * least_us);
}

void plan_draw(uint64_t seed)
{
    plan = (struct sim_plan){.seed = seed, .faults = true};
    plan.voters = one_in(4) ? 5 : one_in(12) ? 1 : 3;
    plan.clients = (unsigned)between(1, 4);
    plan.think_us = (one_in(4) ? between(20, 100) : between(100, 1500)) * SIM_MS;
    plan.safety_us = between(20, 100) * SIM_S;
    plan.latency_us = between(50, 5000);
    plan.lose = rate(0.1);
    plan.delay = rate(0.05);
    plan.twice = rate(0.1);
    plan.reorder = rate(0.1);
    plan.cut_frame = rate(0.0005);
    plan.lose_answer = rate(0.02);
    plan.write_us = between(10, 300);
    plan.sync_us = one_in(4) ? between(8000, 60000) : between(100, 8000);
    plan.read_us = one_in(4) ? between(1000, 20000) : between(10, 300);
    plan.cold = rate(0.3);
    plan.read_error = rate(0.0002);
    plan.write_error = rate(0.0003);
    plan.sync_error = rate(0.0003);
    plan.shorten = rate(0.01);
    plan.misdirect = rate(0.01);
    plan.kill_us = every(1 * SIM_S);
    plan.pause_us = every(2 * SIM_S);
    plan.link_us = every(1 * SIM_S);
    plan.partition_us = every(2 * SIM_S);
    plan.cut_us = every(2 * SIM_S);
    plan.rot_us = every(5 * SIM_S);
    plan.clock_us = every(8 * SIM_S);
    plan.join_us = every(30 * SIM_S);
    plan.transfer_us = every(6 * SIM_S);
    plan.stop_us = every(8 * SIM_S);
    plan.full_us = every(20 * SIM_S);
    plan.slow_us = every(1 * SIM_S);
    plan.hang_us = every(10 * SIM_S);
    plan.upgrade_us = every(2 * SIM_S);
    plan.version = WIRE_PROTOCOL_VERSION - (plan.upgrade_us > 0);
    plan.remove_us = every(8 * SIM_S);
    plan.move_us = every(10 * SIM_S);
    plan.wipe_us = one_in(3) ? between(20, 60) * SIM_S : 0;
    plan.rot_hints = one_in(2);
    plan.drift = rate(0.01);
    plan.segment_bytes = 2 * LIMIT_ENTRY_BYTES + between(0, 128) * KiB;
    plan.retain_bytes = between(16, 512) * KiB;
    plan.scrub_us = one_in(2) ? between(20, 100) * SIM_S : 0; /* a week */
    plan.lockers = true;
    plan.first_object = (unsigned)between(0, 5);
    plan.objects = one_in(3) ? 1 : 6;
    plan.value_bytes = one_in(3) ? 12000 : one_in(2) ? 3000 : 200;
}

/* ---- The phases ----------------------------------------------------------------------
 */

static void run_until(uint64_t until_us)
{
    while (world_step(until_us)) {
        verify_step();
        if (sim_steps % FULL_STEPS == 0)
            verify_full();
    }
}

/* ---- A minority that stays away ---- */

static bool is_good(const struct sim_node *n)
{
    return n && !n->gone && !n->bad_disk && !n->refused && !n->missing;
}

/* A minority of the voters at random; the rest has a majority with good disks. None while
 * members change: of which membership would it be one? */
static void draw_missing(void)
{
    const struct members *members = sim_members();
    struct sim_node *voters[LIMIT_MEMBERS];
    size_t count = 0, good = 0;
    if (!members || verify_is_changing())
        return;
    for (uint32_t i = 0; i < members->count; i++)
        if (members->list[i].voter) {
            voters[count] = sim_of_id(members->list[i].id);
            good += is_good(voters[count++]);
        }
    for (size_t left = count; left > 0; left--) {
        size_t at = chance_below(CHANCE_PLAN, left);
        struct sim_node *n = voters[at];
        voters[at] = voters[left - 1];
        if (!n || n->gone || n->refused || 2 * (good - is_good(n)) <= count)
            continue;
        good -= is_good(n);
        n->missing = true;
        if (one_in(3))
            return;
    }
}

static void go_missing(struct sim_node *n, uint64_t how)
{
    if (how == 0 || (how == 1 && !n->up)) {
        fault(minority_dead);
        story("%s stays dead", n->name);
        if (n->up)
            sim_kill(n, NULL);
    } else if (how == 1) {
        fault(minority_paused);
        story("%s stays paused", n->name);
        if (!n->paused)
            sim_pause(n, true);
    } else {
        fault(minority_cut);
        story("%s stays cut off", n->name);
        if (!n->up)
            sim_boot(n);
        else if (n->paused)
            sim_pause(n, false);
        for (unsigned i = 0; i < SIM_NODES; i++) {
            net_cut(n->number, i, i != n->number);
            net_cut(i, n->number, i != n->number);
        }
    }
}

static bool some_go_missing(void)
{
    bool some = false;
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].missing) {
            go_missing(&sim_nodes[i], chance_below(CHANCE_PLAN, 3));
            some = true;
        }
    return some;
}

static void all_come_back(void)
{
    story("who was missing comes back");
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->missing)
            continue;
        n->missing = false;
        if (n->paused)
            sim_pause(n, false);
        plan_restart(n);
    }
    net_heal();
}

/* Whether some stay away: in half of the seeds, the others try what needs all. */
static bool freeze_faults(void)
{
    story("faults freeze");
    plan.faults = false;
    net_heal();
    if (one_in(2))
        draw_missing();
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->made)
            continue;
        n->real_offset = 0;
        n->clock_set_us = sim_now;
        n->hang_until = 0;
        memory_disk_set_capacity(n->disk, UINT64_MAX);
        if (n->paused && !n->missing)
            sim_pause(n, false);
        plan_restart(n);
    }
    return some_go_missing();
}

static bool converged(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->made || n->gone || n->refused || n->id > UINT64_MAX / 2)
            continue;
        if (!n->up || !n->serves || store_applied(n->node->store) != verify_committed() ||
            !store_is_ready(n->node->store))
            return false;
    }
    return sim_leader() && clients_idle();
}

static void describe(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->made)
            continue;
        if (!n->up || !n->node || !n->node->driver.raft) {
            fprintf(stderr, "  %s: down%s%s\n", n->name, n->gone ? ", gone" : "",
                    n->refused ? ", refused to start" : "");
            continue;
        }
        struct raft *r = n->node->driver.raft;
        fprintf(
            stderr,
            "  %s: role %d term %llu leader %llx last %llu commit %llu durable %llu "
            "applied %llu base %llu claim %llu ready %d serves %d members %u quorum %d "
            "session %llu eligible %d phase %d\n",
            n->name, raft_role(r), (unsigned long long)raft_term(r),
            (unsigned long long)raft_leader(r),
            (unsigned long long)store_last_index(n->node->store),
            (unsigned long long)raft_commit(r), (unsigned long long)raft_durable(r),
            (unsigned long long)store_applied(n->node->store),
            (unsigned long long)n->node->base, (unsigned long long)raft_claim(r),
            store_is_ready(n->node->store), n->serves, n->node->members.count,
            raft_has_quorum(r, 0), (unsigned long long)n->node->client.session,
            n->node->eligible, n->node->phase);
    }
}

void plan_run(void)
{
    run_until(plan.safety_us);
    bool missing = freeze_faults();
    uint64_t before = clients_answered(), froze = sim_now;
    uint64_t bound = LIVE_ELECTIONS * 2 * (uint64_t)NODE_ELECTION_US;
    while (clients_answered() == before && sim_now < froze + bound + 20 * plan.think_us)
        run_until(sim_now + 100 * SIM_MS);
    if (clients_answered() == before) {
        describe();
        sim_fail("L1: nothing is answered %d election timeouts after faults froze",
                 LIVE_ELECTIONS);
    }
    election_longest_us = sim_now - froze;
    if (missing) {
        run_until(sim_now + MISSING_S * SIM_S);
        all_come_back();
    }
    run_until(sim_now + 5 * SIM_S);
    clients_freeze();
    uint64_t until = sim_now + CONVERGE_S * SIM_S;
    while (!converged() && sim_now < until)
        run_until(sim_now + 100 * SIM_MS);
    if (!converged()) {
        describe();
        sim_fail("L2: the nodes do not come to hold the same");
    }
    until = sim_now + REPAIR_S * SIM_S;
    size_t bad;
    while ((bad = verify_end()) && sim_now < until)
        run_until(sim_now + 500 * SIM_MS);
    if (bad)
        sim_fail("V16: %zu values are not repaired, and other nodes have them", bad);
    until = sim_now + REPAIR_S * SIM_S;
    size_t left;
    while ((left = verify_leftovers()) && sim_now < until)
        run_until(sim_now + 500 * SIM_MS);
    if (left)
        sim_fail("V20: content of %zu writes of sessions that have ended is left", left);
    until = sim_now + REPAIR_S * SIM_S;
    while ((left = verify_orphans()) && sim_now < until)
        run_until(sim_now + 500 * SIM_MS);
    if (left)
        sim_fail("V26: %zu times an inode without a name is not released", left);
    clients_check();
}
