/* storm.c - see storm.h. */
#include "storm.h"

enum {
    STEPS = 2500,
    PROPOSALS_MAX = 400,
    PROGRESS_TIMEOUTS = 8, /* 4 at most in ten thousand seeds */
};

struct counts storm_totals;
uint64_t storm_all_at_once;

/* Of this seed: logs get holes, and membership stays as it is, so that who has a hole is
 * never the only one that has what it lost. */
static bool may_damage;

static uint64_t any_node(struct cluster *c)
{
    return 1 + cluster_chance(c, c->node_count);
}

static uint64_t any_up(struct cluster *c)
{
    uint64_t id = any_node(c);
    return cluster_raft(c, id) ? id : 0;
}

static void act_propose(struct cluster *c)
{
    uint64_t id = cluster_chance(c, 4) ? cluster_leader(c) : any_up(c);
    if (id && c->counts.proposed < PROPOSALS_MAX)
        cluster_propose(c, id, 1 + cluster_chance(c, 3));
}

static void act_read(struct cluster *c)
{
    uint64_t id = any_up(c);
    if (id)
        cluster_read(c, id);
}

static void act_cut(struct cluster *c)
{
    uint64_t id = any_node(c);
    switch (cluster_chance(c, 4)) {
    case 0:
        cluster_isolate(c, id, true);
        break;
    case 1: { /* one way only */
        uint64_t to = any_node(c);
        c->cut[id][to] = true;
        break;
    }
    default:
        memset(c->cut, 0, sizeof(c->cut));
        return;
    }
    c->counts.partitions++;
}

static void act_compact(struct cluster *c)
{
    uint64_t id = any_up(c);
    if (!id)
        return;
    const struct node *n = &c->nodes[id];
    uint64_t to = n->base + cluster_chance(c, n->applied - n->base + 1);
    if (cluster_chance(c, 2)) /* as a driver does that keeps what others lack (G8) */
        to = min_u64(to, raft_floor(n->raft));
    if (to > n->base)
        cluster_compact(c, id, to);
}

static void damage(struct cluster *c, const struct node *n)
{
    if (!may_damage || n->last == n->base)
        return;
    for (uint32_t id = 1; id <= c->node_count; id++) {
        if (c->nodes[id].claim_index > c->nodes[id].durable)
            return; /* one at a time */
    }
    cluster_damage(c, n->id, n->base + cluster_chance(c, n->last - n->base));
}

static void act_power(struct cluster *c)
{
    uint64_t id = any_node(c);
    if (cluster_raft(c, id)) {
        cluster_crash(c, id);
    } else {
        damage(c, &c->nodes[id]);
        cluster_start(c, id);
        c->counts.restarts++;
    }
}

static void act_pause(struct cluster *c)
{
    uint64_t id = any_up(c);
    if (id)
        cluster_pause(c, id, cluster_chance(c, 8 * ELECTION_US));
}

static void act_link(struct cluster *c)
{
    uint64_t a = any_node(c), b = any_node(c);
    if (a == b)
        return;
    if (cluster_chance(c, 2)) {
        cluster_reconnect(c, a, b);
    } else if (cluster_raft(c, a) && !c->nodes[a].link_full[b]) {
        c->nodes[a].link_full[b] = true;
        c->counts.full_links++;
    } else if (cluster_raft(c, a)) {
        cluster_drain(c, a, b);
    }
}

static void config_mutate(struct cluster *c, struct raft_config *config)
{
    uint64_t id = any_node(c);
    for (uint32_t i = 0; i < config->count; i++) {
        if (config->members[i].id != id)
            continue;
        if (cluster_chance(c, 2))
            config->members[i].voter = !config->members[i].voter;
        else
            config->members[i] = config->members[--config->count];
        return;
    }
    bool voter = cluster_chance(c, 2);
    config->members[config->count++] = (struct raft_member){id, voter};
}

static void act_config(struct cluster *c)
{
    uint64_t id = may_damage ? 0 : cluster_leader(c);
    if (!id)
        return;
    struct raft_config config = *raft_config(cluster_raft(c, id), NULL);
    do
        config_mutate(c, &config);
    while (cluster_chance(c, 3)); /* refused where that changes two voters */
    cluster_config(c, id, &config);
}

static void act_transfer(struct cluster *c)
{
    uint64_t id = cluster_leader(c);
    if (!id)
        return;
    uint64_t to = cluster_chance(c, 2) ? any_node(c) : 0;
    struct raft_event e = {.type = RAFT_TRANSFER, .peer = to};
    c->counts.transfers += !cluster_event(c, id, e);
}

static void act_eligible(struct cluster *c)
{
    uint64_t id = any_up(c);
    bool eligible = cluster_chance(c, 3);
    if (id)
        cluster_event(c, id,
                      (struct raft_event){.type = RAFT_ELIGIBLE, .eligible = eligible});
}

static void act_knobs(struct cluster *c)
{
    struct node *n = &c->nodes[any_node(c)];
    n->disk_held = !cluster_chance(c, 4);
    n->apply_held = !cluster_chance(c, 4);
    c->faults.lose = cluster_chance(c, 2) ? cluster_chance(c, 200) : 0;
    c->faults.duplicate = cluster_chance(c, 2) ? cluster_chance(c, 200) : 0;
    c->faults.reorder = cluster_chance(c, 2) ? cluster_chance(c, 300) : 0;
    c->disk_us = 100 + cluster_chance(c, 20000);
}

static void act(struct cluster *c)
{
    static const struct {
        uint32_t per_mille;
        void (*run)(struct cluster *c);
    } acts[] = {
        {80, act_propose}, {40, act_read},   {8, act_cut},      {6, act_power},
        {10, act_link},    {6, act_config},  {4, act_transfer}, {2, act_eligible},
        {8, act_knobs},    {6, act_compact}, {3, act_pause},
    };
    uint64_t chance = cluster_chance(c, 1000);
    for (size_t i = 0; i < array_length(acts); i++) {
        if (chance < acts[i].per_mille) {
            acts[i].run(c);
            return;
        }
        chance -= acts[i].per_mille;
    }
}

static void heal(struct cluster *c)
{
    memset(c->cut, 0, sizeof(c->cut));
    c->faults = (struct faults){0};
    c->disk_us = 1000;
    for (uint32_t id = 1; id <= c->node_count; id++) {
        struct node *n = &c->nodes[id];
        n->disk_held = n->apply_held = false;
        n->paused_until_us = 0;
        if (!n->raft)
            cluster_start(c, id);
        cluster_event(c, id,
                      (struct raft_event){.type = RAFT_ELIGIBLE, .eligible = true});
        for (uint32_t peer = 1; peer <= c->node_count; peer++) {
            if (peer != id && n->link_full[peer])
                cluster_drain(c, id, peer);
        }
    }
}

static bool makes_progress(struct cluster *c)
{
    uint64_t id = cluster_leader(c);
    return id && raft_established(cluster_raft(c, id)) &&
           c->nodes[id].commit == c->nodes[id].last;
}

/* Once the faults end, a leader is found, commits all it has, and every member catches up.
 */
static void converge(struct cluster *c)
{
    heal(c);
    uint64_t until_us = c->now_us + PROGRESS_TIMEOUTS * ELECTION_US;
    while (!makes_progress(c) && c->now_us < until_us)
        cluster_run(c, ELECTION_US / 4);
    if (!makes_progress(c))
        fail_msg("no progress: seed %llu", (unsigned long long)cluster_seed_running);
    for (int i = 0; i < 100; i++) {
        cluster_run(c, 2 * ELECTION_US);
        uint64_t id = cluster_leader(c);
        if (!id || cluster_propose(c, id, 1))
            continue;
        uint64_t last = c->nodes[id].last;
        cluster_run(c, 10 * ELECTION_US);
        uint32_t outside = 0;
        const struct raft_config *config = raft_config(cluster_raft(c, id), NULL);
        for (uint32_t n = 1; n <= c->node_count; n++) {
            bool member = false;
            for (uint32_t m = 0; m < config->count; m++)
                member = member || config->members[m].id == n;
            outside |= member ? 0 : 1u << n;
        }
        if (c->committed_last >= last && cluster_agrees(c, outside))
            return;
    }
    fail_msg("no convergence: seed %llu", (unsigned long long)cluster_seed_running);
}

static void counts_add(const struct counts *counts)
{
    const uint64_t *from = (const uint64_t *)counts;
    uint64_t *to = (uint64_t *)&storm_totals;
    for (size_t i = 0; i < sizeof(storm_totals) / sizeof(*to); i++)
        to[i] += from[i];
}

void storm_run(uint64_t seed, cluster_watch *watch)
{
    uint32_t voters = 1 + seed % 5, learners = seed / 5 % 2;
    struct cluster *c = cluster_make(voters, voters + learners, seed);
    may_damage = voters >= 3 && seed % 3 == 0;
    if (seed / 10 % 2)
        cluster_outsider(c);
    c->watch = watch;
    cluster_seed_running = seed;
    for (uint32_t id = 1; id <= c->node_count; id++)
        cluster_start(c, id);
    for (int i = 0; i < STEPS; i++) {
        cluster_advance(c);
        act(c);
    }
    converge(c);
    const struct counts *n = &c->counts;
    storm_all_at_once += n->partitions && n->crashes && n->pauses && n->config_changes &&
                         n->transfers && n->compactions;
    counts_add(n);
    cluster_free(c);
}
