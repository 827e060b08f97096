/*
 * check_leader.c - what a leader owes: V14 it has heard from a majority lately; V15 its
 * clock is not far ahead; V17 it ends the sessions of nodes that are dead, and no others.
 */
#include "sim.h"

#include "store_internal.h"

enum {
    SILENT_US = 2 * 1000 * 1000,        /* far more than a leader waits for a majority */
    SESSION_LIVES_US = 8 * 1000 * 1000, /* heard that long ago: surely not to be ended */
    SESSION_DEAD_US = 20 * 1000 * 1000, /* ... surely ended */
    SETTLE_US = 3 * 1000 * 1000,        /* until all have been told a clock */
    CLOCK_SLACK_US = 60 * 1000 * 1000,  /* drift, and the way */
    STEADY_US = 8 * 1000 * 1000,        /* longer than a merge lasts */
};

/* ---- A leader that nobody hears: V14 -------------------------------------------------
 */

static uint64_t heard[SIM_NODES]
                     [SIM_NODES]; /* when n had something of consensus from m */

void verify_heard(const struct sim_node *n, const struct sim_node *from)
{
    heard[n->number][from->number] = sim_now;
}

/* It runs, and would have been told: since then. */
static bool is_silent(const struct sim_node *n, const struct sim_node *from)
{
    uint64_t since = max_u64(heard[n->number][from->number], n->leads_us);
    since = max_u64(since, n->config_us); /* a new one is given that time */
    return sim_now > max_u64(since, n->resumed_us) + SILENT_US;
}

static void check_quorum(const struct sim_node *n)
{
    const struct members *members = &n->node->members;
    unsigned voters = 0, silent = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        struct sim_node *m = sim_of_id(members->list[i].id);
        voters += members->list[i].voter;
        silent += members->list[i].voter && m && m != n && is_silent(n, m);
    }
    if (voters > 0 && 2 * (voters - silent) <= voters)
        sim_fail("V14: %s leads, and has not heard from a majority for %d s", n->name,
                 (int)(SILENT_US / SIM_S));
}

/* ---- A leader with a wild clock: V15 ------------------------------------------------- */

static bool has_settled(const struct sim_node *n)
{
    return n->up && !n->paused && sim_now > n->clock_set_us + SETTLE_US &&
           sim_now > n->resumed_us + SETTLE_US && n->serves;
}

static int64_t real_of(const struct sim_node *n)
{
    double run = (double)(sim_now - n->true_base) * n->rate;
    return (int64_t)n->boot_base + (int64_t)run + n->real_offset;
}

/* Ahead of all others by more than it may be ahead of their median; and they tell it. */
static void check_clock(const struct sim_node *n)
{
    const struct members *members = &n->node->members;
    unsigned others = 0;
    if (sim_now < max_u64(n->config_us, n->leads_us) + SETTLE_US)
        return; /* of whom a vote is new */
    for (uint32_t i = 0; i < members->count; i++) {
        struct sim_node *m = sim_of_id(members->list[i].id);
        if (m == n || !members->list[i].voter) /* whose clock does not count */
            continue;
        if (!m || !has_settled(m) || !has_settled(n) ||
            sim_now > heard[n->number][m->number] + SIM_S ||
            real_of(n) - real_of(m) < NODE_CLOCK_AHEAD_US + CLOCK_SLACK_US)
            return;
        others++;
    }
    if (others > 0)
        sim_fail("V15: %s leads, and its clock is more than an hour ahead", n->name);
}

/* ---- Sessions of nodes that are dead, and of nodes that live: V17 -------------------- */

static const struct session *newest_of(const struct node *n, uint64_t node_id)
{
    const struct session *newest = NULL;
    for (const struct session *s = n->sessions; s; s = s->next)
        if (s->node_id == node_id && (!newest || s->number > newest->number))
            newest = s;
    return newest;
}

/* In the leader's context, about to be ended. */
static void check_death(const struct sim_node *n, uint64_t number)
{
    const struct session *s = session_find(n->node, number);
    struct sim_node *m = s ? sim_of_id(s->node_id) : NULL;
    if (!m || !m->up || newest_of(n->node, m->id) != s)
        return;
    /* What comes at the end of a connection that was cut is long past. */
    if (m != n && !wire_find(n->node->endpoint, m->id))
        return;
    if (m == n || sim_now < heard[n->number][m->number] + SESSION_LIVES_US)
        sim_fail("V17: %s ends the session of %s, which it has just heard", n->name,
                 m->name);
}

static void check_sessions(const struct sim_node *n)
{
    uint64_t since = max_u64(n->leads_us, n->resumed_us);
    if (!raft_established(n->node->driver.raft) || n->node->was_low)
        return;
    for (const struct session *s = n->node->sessions; s; s = s->next) {
        const struct sim_node *m = sim_of_id(s->node_id);
        if (m && newest_of(n->node, m->id) != s)
            sim_fail("V17: %s has two sessions of %s", n->name, m->name);
        if (m && !m->up && sim_now > max_u64(since, m->down_us) + SESSION_DEAD_US)
            sim_fail("V17: %s has a session of %s, which is down for %d s", n->name,
                     m->name, (int)((sim_now - m->down_us) / SIM_S));
    }
}

/* ---- A node's own view of its session: V22 ---------------------------------------------- */

void verify_session_ends(uint64_t session)
{
    struct sim_node *former = sim_at_node;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *n = &sim_nodes[i];
        if (!n->up || !n->node || n->node->session != session)
            continue;
        sim_at_node = n;
        if (node_now() < n->node->session_sure_us)
            sim_fail("V22: session %llu of %s ends, which is sure of it for another %llu "
                     "ms",
                     (unsigned long long)session, n->name,
                     (unsigned long long)(n->node->session_sure_us - node_now()) / 1000);
    }
    sim_at_node = former;
}

/* ---- What is kept of the log for who is behind: V21 ---------------------------------- */

static struct kept {
    unsigned life;
    uint64_t base;
    uint64_t
        since[SIM_NODES]; /* each has been in reach, and without a snapshot; 0: not */
} kept[SIM_NODES];

static uint64_t log_bytes(const struct store *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->segment_count; i++)
        bytes += s->segments[i]->used;
    return bytes;
}

static void check_retention(struct sim_node *n)
{
    struct kept *k = &kept[n->number];
    const struct members *members = &n->node->members;
    const struct store *s = n->node->store;
    bool merged = k->life == n->life && n->node->base > k->base;
    if (k->life != n->life)
        *k = (struct kept){.life = n->life};
    k->base = n->node->base;
    struct sim_node *former = sim_at_node;
    sim_at_node = n;
    for (uint32_t i = 0; i < members->count; i++) {
        struct raft_peer_status status;
        struct sim_node *m = sim_of_id(members->list[i].id);
        if (!m || m == n)
            continue;
        uint64_t *since = &k->since[m->number];
        bool steady =
            raft_peer_status(n->node->driver.raft, m->id, node_now(), &status) &&
            status.reachable && (!status.snapshot || merged) &&
            heard[n->number][m->number] + STEADY_US / 4 > sim_now;
        if (!steady || *since < n->leads_us)
            *since = steady ? sim_now : 0;
        else if (merged && sim_now > *since + STEADY_US && status.match < k->base &&
                 log_bytes(s) < s->retain_bytes)
            sim_fail("V21: %s keeps its log from %llu on only, and %s, which it reaches, "
                     "has it up to %llu",
                     n->name, (unsigned long long)k->base + 1, m->name,
                     (unsigned long long)status.match);
    }
    sim_at_node = former;
}

void verify_leader(struct sim_node *n)
{
    if (loop_has_ended(n))
        return; /* its role is a memory: nobody there ticks, or answers */
    if (sim_steps % 32 == 0 || n->node->base != kept[n->number].base)
        check_retention(n);
    check_quorum(n);
    if (sim_steps % 64 == 0)
        check_sessions(n);
    if (sim_steps % 16 == 0)
        check_clock(n);
}

int __real_evaluate(struct node *n, uint64_t session, const uint8_t *op, size_t length,
                    struct evaluation *e);
int __wrap_evaluate(struct node *n, uint64_t session, const uint8_t *op, size_t length,
                    struct evaluation *e);

int __wrap_evaluate(struct node *n, uint64_t session, const uint8_t *op, size_t length,
                    struct evaluation *e)
{
    struct node_op decoded;
    if (op[0] == NODE_OP_END_SESSION && node_op_decode(op, length, &decoded) == 0)
        check_death(sim_at_node, decoded.session);
    int ret = __real_evaluate(n, session, op, length, e);
    trace("evaluates operation %u of session %llu: %d", op[0],
          (unsigned long long)session, ret);
    if (op[0] == NODE_OP_END_SESSION && ret == 0)
        fault(session_ended);
    return ret;
}
