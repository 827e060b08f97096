/*
 * plan.c - what a seed does: its options are drawn first, some faults often, some rarely,
 * some not at all; then two phases. Safety: faults of all kinds, any number of nodes
 * down. Liveness: faults freeze; a minority may stay away, among all others links heal,
 * and who can run runs. They must answer within a bound. Then the minority comes back,
 * and all must come to hold the same.
 */
#include "sim.h"

enum {
    LIVE_ELECTIONS = 60, /* longest election timeouts until something is answered */
    MISSING_S = 15,      /* longer than a session lives */
    CONVERGE_S = 120,
    REPAIR_S = 60,
    FULL_STEPS = 1000, /* between two looks at all of the keydirs */
};

struct sim_plan plan;
uint64_t election_longest_us;

static uint64_t between(uint64_t low, uint64_t high)
{
    return low + chance_below(CHANCE_PLAN, high - low + 1);
}

static bool one_in(uint64_t n)
{
    return chance_below(CHANCE_PLAN, n) == 0;
}

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
    plan.read_us = between(10, 300);
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
    plan.first_object = (unsigned)between(0, 5);
    plan.objects = one_in(3) ? 1 : 6;
    plan.value_bytes = one_in(3) ? 12000 : one_in(2) ? 3000 : 200;
}

/* ---- Choices ------------------------------------------------------------------------
 */

static struct sim_node *any(bool (*fits)(const struct sim_node *n))
{
    struct sim_node *found[SIM_NODES];
    size_t count = 0;
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made && !sim_nodes[i].gone && fits(&sim_nodes[i]))
            found[count++] = &sim_nodes[i];
    return count ? found[chance_below(CHANCE_PLAN, count)] : NULL;
}

static bool is_up(const struct sim_node *n)
{
    return n->up;
}

static bool is_running(const struct sim_node *n)
{
    return n->up && !n->paused && n->serves;
}

static bool is_bad(const struct sim_node *n)
{
    return n->bad_disk && n->up;
}

/* Now and then exactly where it hurts: at the leader, or in a merge, or in an install. */
static struct sim_node *victim(void)
{
    struct sim_node *leader = sim_leader();
    if (leader && chance_below(CHANCE_PLAN, 3) == 0)
        return leader;
    for (unsigned i = 0; i < SIM_NODES && chance_below(CHANCE_PLAN, 2); i++) {
        struct sim_node *n = &sim_nodes[i];
        if (n->up && n->node && (n->node->merge.out || n->node->snapshot))
            return n;
    }
    return any(is_up);
}

/* ---- Faults, each on its own clock
 * ------------------------------------------------------ */

static void restart(void *arg)
{
    struct sim_node *n = arg;
    if (n->up || n->gone || n->refused || n->missing ||
        (plan.faults && sim_now < n->down_until_us) || n->id > UINT64_MAX / 2)
        return;
    fault(node_restarted);
    sim_boot(n);
}

/* Whoever is down comes back after a while, however it went. */
static void look_after(void *arg)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made && !sim_nodes[i].up && (!plan.faults || one_in(6)))
            restart(&sim_nodes[i]);
    sim_after(500 * SIM_MS, NULL, look_after, NULL);
}

static void do_kill(void)
{
    struct sim_node *n = victim();
    if (!n)
        return;
    fault(node_killed);
    sim_kill(n, NULL);
    if (one_in(16)) /* longer than its session lives */
        n->down_until_us = sim_now + between(10, 40) * SIM_S;
}

static void do_stop(void)
{
    struct sim_node *n = any(is_running);
    if (!n)
        return;
    fault(node_stopped);
    sim_stop(n);
}

static void resume_node(void *arg)
{
    struct sim_node *n = arg;
    if (n->paused && !n->missing) {
        story("%s runs again", n->name);
        sim_pause(n, false);
    }
}

static void do_pause(void)
{
    struct sim_node *n = victim();
    if (!n || n->paused)
        return;
    fault(node_paused);
    story("%s is paused", n->name);
    sim_pause(n, true);
    sim_after(between(10, 5000) * SIM_MS, NULL, resume_node, n);
}

static void heal_link(void *arg)
{
    uintptr_t link = (uintptr_t)arg;
    if (sim_nodes[link / SIM_NODES].missing || sim_nodes[link % SIM_NODES].missing)
        return;
    net_cut((unsigned)(link / SIM_NODES), (unsigned)(link % SIM_NODES), false);
}

static void cut_for_a_while(unsigned from, unsigned to, uint64_t us)
{
    net_cut(from, to, true);
    sim_after(us, NULL, heal_link, (void *)(uintptr_t)(from * SIM_NODES + to));
}

static void do_link(void)
{
    struct sim_node *a = any(is_up), *b = any(is_up);
    if (!a || !b || a == b)
        return;
    uint64_t us = between(10, 8000) * SIM_MS;
    bool both = one_in(2);
    cut_for_a_while(a->number, b->number, us);
    if (both)
        cut_for_a_while(b->number, a->number, us);
    if (both)
        fault(link_cut_two_ways);
    else
        fault(link_cut_one_way);
    story("%s to %s is cut%s", a->name, b->name, both ? ", both ways" : "");
}

static void end_slow(void *arg)
{
    uintptr_t link = (uintptr_t)arg;
    net_slow((unsigned)(link / SIM_NODES), (unsigned)(link % SIM_NODES), 0);
}

/* All that one node sends, or all that one is sent: what a leader hears is old then. */
static void do_slow(void)
{
    struct sim_node *n = victim();
    if (!n)
        return;
    uint64_t us = between(50, 800) * SIM_MS, until = between(100, 4000) * SIM_MS;
    bool sends = one_in(2);
    fault(link_slow);
    story("what %s %s is slow", n->name, sends ? "sends" : "is sent");
    for (unsigned i = 0; i < SIM_NODES; i++) {
        unsigned from = sends ? n->number : i, to = sends ? i : n->number;
        net_slow(from, to, us);
        sim_after(until, NULL, end_slow, (void *)(uintptr_t)(from * SIM_NODES + to));
    }
}

static void do_partition(void)
{
    uint64_t us = between(100, 6000) * SIM_MS, side = chance(CHANCE_PLAN) >> 20;
    bool one_way = one_in(3);
    fault(partition);
    story("partition %llx%s", (unsigned long long)(side & ((1 << SIM_NODES) - 1)),
          one_way ? ", one way" : "");
    for (unsigned a = 0; a < SIM_NODES; a++)
        for (unsigned b = 0; b < SIM_NODES; b++)
            if ((side >> a & 1) != (side >> b & 1) && (!one_way || (side >> a & 1)))
                cut_for_a_while(a, b, us);
}

static void do_cut(void)
{
    struct sim_node *a = any(is_up), *b = any(is_up);
    if (a && b && a != b)
        net_break(a, b);
}

static void do_rot(void)
{
    struct sim_node *n = any(is_bad);
    if (n)
        sim_disk_rot(n);
}

static void do_clock(void)
{
    struct sim_node *n = any(is_up);
    if (!n)
        return;
    int64_t jump = (int64_t)between(0, 7200) * 1000000;
    n->real_offset += one_in(2) ? jump : -jump;
    n->clock_set_us = sim_now;
    trace("the clock of %s is off by %lld s", n->name,
          (long long)(n->real_offset / 1000000));
    fault(clock_jumped);
}

static void do_join(void)
{
    unsigned running = 0;
    for (unsigned i = 0; i < SIM_NODES; i++)
        running += sim_nodes[i].made && !sim_nodes[i].gone;
    if (running < 6)
        sim_join(one_in(3), NULL);
}

/* To the best, or to somebody, who may be a learner, far behind, or down. */
static void ask_transfer(void *arg)
{
    struct sim_node *n = arg;
    if (!node_is_leader(n->node))
        return;
    struct sim_node *to = one_in(2) ? any(is_up) : NULL;
    fault(transfer_asked);
    driver_step(n->node,
                &(struct raft_event){.type = RAFT_TRANSFER, .peer = to ? to->id : 0});
}

static void do_transfer(void)
{
    struct sim_node *n = sim_leader();
    if (!n || !n->loop)
        return;
    sim_at_node = n;
    loop_post(n, ask_transfer, n);
    sim_at_node = NULL;
}

static void has_room(void *arg)
{
    struct sim_node *n = arg;
    memory_disk_set_capacity(n->disk, UINT64_MAX);
}

static void do_full(void)
{
    struct sim_node *n = any(is_up);
    if (!n)
        return;
    fault(disk_full);
    story("the disk of %s is full", n->name);
    memory_disk_set_capacity(n->disk, memory_disk_used(n->disk) +
                                          between(0, 3) * plan.segment_bytes);
    sim_after(between(1, 20) * SIM_S, NULL, has_room, n);
}

static void do_hang(void)
{
    struct sim_node *n = any(is_up);
    if (!n)
        return;
    fault(disk_hung);
    story("the disk of %s hangs", n->name);
    n->hang_until = sim_now + between(100, 6000) * SIM_MS;
}

static bool is_member(const struct sim_node *n)
{
    const struct members *members = sim_members();
    return members && members_find(members, n->id);
}

/* The majority that is left has good disks, and none is gone for ever: what is asked of a
 * cluster is no more than it promises. */
static bool can_do_without(const struct sim_node *n, bool removed)
{
    const struct members *members = sim_members();
    unsigned voters = 0, good = 0;
    for (uint32_t i = 0; members && i < members->count; i++) {
        const struct sim_node *m = sim_of_id(members->list[i].id);
        if (!members->list[i].voter || !m || (m == n && removed))
            continue;
        voters++;
        good += !m->gone && !m->bad_disk && m != n;
    }
    return 2 * good > voters;
}

/* Every node is up, and knows of each other one where it is, and of which version. */
static bool all_are_known(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        const struct sim_node *n = &sim_nodes[i];
        if (!n->made || n->gone)
            continue;
        if (!n->up || !n->serves)
            return false;
        const struct members *members = &n->node->members_applied;
        for (uint32_t k = 0; k < members->count; k++) {
            const struct sim_node *m = sim_of_id(members->list[k].id);
            if (m && !m->gone &&
                (strcmp(members->list[k].address, m->address) != 0 ||
                 members->list[k].version != m->version))
                return false;
        }
    }
    return true;
}

/* The one with the bad disk alone: it may be lost for good, and a new one joins. */
static void do_wipe(void)
{
    struct sim_node *n = any(is_bad);
    if (!n || sim_now > plan.safety_us || verify_is_changing() ||
        !can_do_without(n, false))
        return;
    fault(node_wiped);
    n->gone = true;
    sim_kill(n, "for ever");
    sim_join(false, one_in(2) ? n : NULL);
}

/* ---- Members that go, and move -- */

static void do_remove(void)
{
    struct sim_node *leader = sim_leader(), *n = any(is_member);
    if (!n || !leader || !leader->loop || !leader->serves || verify_is_changing() ||
        !can_do_without(n, true))
        return;
    struct sim_node *by = one_in(2) ? leader : any(is_running);
    if (n->up && n->serves && one_in(3))
        sim_leave(n);
    else if (by)
        sim_ask(by, &(struct node_op){.type = NODE_OP_REMOVE, .node_id = n->id});
}

/* One at a time: nobody finds anybody where all have moved. Nor one whose log may have a
 * hole: it would come back with addresses of long ago, and its own is not known yet. */
static void do_move(void)
{
    struct sim_node *n = any(is_up);
    if (!n || n->bad_disk || !all_are_known())
        return;
    sim_kill(n, "to be moved");
    sim_move(n);
}

static bool is_old(const struct sim_node *n)
{
    return n->version < WIRE_PROTOCOL_VERSION && n->up;
}

/* Another program, at the next start. Back goes only who is not the last: the cluster's
 * version would be raised, and the former program refused. */
static void do_upgrade(void)
{
    struct sim_node *n = any(is_up);
    unsigned old = 0;
    for (unsigned i = 0; i < SIM_NODES; i++)
        old += sim_nodes[i].made && !sim_nodes[i].gone && is_old(&sim_nodes[i]);
    if (!n || old == 0 || !all_are_known() || verify_is_changing())
        return;
    bool back = n->version == WIRE_PROTOCOL_VERSION;
    if (back && !one_in(3))
        return;
    sim_kill(n, back ? "its former program comes back" : "to be upgraded");
    n->version = WIRE_PROTOCOL_VERSION - back;
    if (back)
        fault(node_downgraded);
    else
        fault(node_upgraded);
}

static struct process {
    void (*act)(void);
    uint64_t *every_us;
} processes[] = {
    {do_kill, &plan.kill_us},
    {do_stop, &plan.stop_us},
    {do_pause, &plan.pause_us},
    {do_link, &plan.link_us},
    {do_partition, &plan.partition_us},
    {do_cut, &plan.cut_us},
    {do_rot, &plan.rot_us},
    {do_clock, &plan.clock_us},
    {do_join, &plan.join_us},
    {do_transfer, &plan.transfer_us},
    {do_full, &plan.full_us},
    {do_hang, &plan.hang_us},
    {do_wipe, &plan.wipe_us},
    {do_slow, &plan.slow_us},
    {do_remove, &plan.remove_us},
    {do_move, &plan.move_us},
    {do_upgrade, &plan.upgrade_us},
};

static void act(void *arg)
{
    struct process *p = arg;
    if (!plan.faults)
        return;
    p->act();
    sim_after(chance_below(CHANCE_PLAN, 2 * *p->every_us) + 1, NULL, act, p);
}

void plan_start_faults(void)
{
    for (size_t i = 0; i < array_length(processes); i++)
        if (*processes[i].every_us)
            sim_after(chance_below(CHANCE_PLAN, 2 * *processes[i].every_us), NULL, act,
                      &processes[i]);
    sim_after(500 * SIM_MS, NULL, look_after, NULL);
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made && plan.drift > 0) {
            sim_nodes[i].rate = 1 + plan.drift * ((double)between(0, 2000) / 1000 - 1);
            fault(clock_drifts);
        }
}

static void kill_tempted(void *arg)
{
    fault(node_killed);
    sim_kill(arg, "at the worst moment");
}

/* It is at something that a crash could leave half done. */
void plan_tempt(struct sim_node *n, unsigned odds)
{
    if (plan.faults && plan.kill_us && one_in(odds))
        sim_after(chance_below(CHANCE_PLAN, 4 * plan.sync_us), n, kill_tempted, n);
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
        restart(n);
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
        restart(n);
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
    clients_check();
}
