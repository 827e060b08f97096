/*
 * faults.c - what happens to nodes, links, disks and clocks while faults are not frozen:
 * each kind on its own clock, as often as the plan says, now and then where it hurts most.
 */
#include "plan.h"

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

void plan_restart(struct sim_node *n)
{
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
            plan_restart(&sim_nodes[i]);
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

/* It is up, and knows of each other one where it is, and of which version. */
static bool knows_all(const struct sim_node *n)
{
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
    return true;
}

static bool all_are_known(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made && !sim_nodes[i].gone && !knows_all(&sim_nodes[i]))
            return false;
    return true;
}

static bool some_have_moved(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made && !sim_nodes[i].gone && sim_nodes[i].moves)
            return true;
    return false;
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

/* Who does not know where the others are cannot hear from them that it is removed. */
static void do_remove(void)
{
    struct sim_node *leader = sim_leader(), *n = any(is_member);
    if (!n || !leader || !leader->loop || !leader->serves || verify_is_changing() ||
        !can_do_without(n, true) || (some_have_moved() && !knows_all(n)))
        return;
    struct sim_node *by = one_in(2) ? leader : any(is_running);
    if (n->up && n->serves && one_in(3))
        sim_leave(n);
    else if (by)
        sim_ask(by, &(struct node_op){.type = NODE_OP_REMOVE, .node_id = n->id});
}

/* One at a time: nobody finds anybody where all have moved; nor while one is removed, who
 * is to hear of that. Nor one whose log may have a hole: it would come back with addresses
 * of long ago, and its own is not known yet. */
static void do_move(void)
{
    struct sim_node *n = any(is_up);
    if (!n || n->bad_disk || !all_are_known() || verify_is_changing())
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
