/* cluster.c - see cluster.h. */
#include <errno.h>

#include "cluster.h"

uint64_t cluster_seed_running;

#define check(condition)                                                                 \
    do {                                                                                 \
        if (!(condition))                                                                \
            check_failed(c, #condition, __LINE__);                                       \
    } while (0)

static void check_failed(const struct cluster *c, const char *condition, int line)
{
    print_error("cluster.c:%d: %s (seed %llu, at %llu us)\n", line, condition,
                (unsigned long long)cluster_seed_running, (unsigned long long)c->now_us);
    fail();
}

uint64_t cluster_chance(struct cluster *c, uint64_t below)
{
    return random_next(&c->seed) % below;
}

static bool per_mille(struct cluster *c, uint32_t rate)
{
    return rate && cluster_chance(c, 1000) < rate;
}

/* ---- What must hold
 * ----------------------------------------------------------------------- */

static uint64_t chain_of(uint64_t before, const struct entry *e)
{
    uint64_t words[4] = {before, e->term, e->value, (uint64_t)e->config};
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < array_length(words); i++)
        hash = (hash ^ words[i]) * 1099511628211u ^ (hash >> 29);
    return hash;
}

/* Log matching: who has an entry of this index and term has the same log up to it. */
static void check_matching(struct cluster *c, uint64_t index, const struct entry *e)
{
    uint64_t slot = (index * 2654435761u + e->term * 40503u) % SEEN_SLOTS;
    for (size_t i = 0; i < SEEN_SLOTS; i++, slot = (slot + 1) % SEEN_SLOTS) {
        struct seen *s = &c->seen[slot];
        if (!s->index) {
            *s = (struct seen){index, e->term, e->chain};
            return;
        }
        if (s->index == index && s->term == e->term) {
            check(s->chain == e->chain);
            return;
        }
    }
    check(!"room for what was seen");
}

static void check_leader(struct cluster *c, struct node *n)
{
    uint64_t term = raft_term(n->raft);
    check(term < TERMS_MAX);
    if (n->leading_term == term)
        return;
    check(!c->leader_of[term] || c->leader_of[term] == n->id); /* election safety */
    c->leader_of[term] = n->id;
    n->leading_term = term;
    c->counts.elections++;
    for (uint64_t i = 1; i <= c->committed_last; i++) { /* leader completeness */
        if (c->committed_in[i] < term)
            check(i <= n->last && n->log[i].chain == c->committed[i].chain);
    }
}

static void check_commit(struct cluster *c, struct node *n)
{
    uint64_t commit = raft_commit(n->raft);
    check(commit >= n->commit && commit <= n->last);
    for (uint64_t i = n->commit + 1; i <= commit; i++) {
        if (i > c->committed_last) {
            /* Which alone decides it; and may step down in the same step. */
            check(n->role == RAFT_LEADER || raft_role(n->raft) == RAFT_LEADER);
            c->committed[i] = n->log[i];
            c->committed_in[i] = raft_term(n->raft);
            c->committed_last = i;
            c->counts.committed++;
        }
        check(n->log[i].chain == c->committed[i].chain); /* state-machine safety */
    }
    n->commit = commit;
}

static void check_reads(struct cluster *c, struct node *n, uint64_t confirmed)
{
    for (size_t i = 0; i < c->read_count;) {
        struct pending_read *p = &c->reads[i];
        bool mine = p->node == n->id;
        bool over =
            mine && (raft_role(n->raft) != RAFT_LEADER || raft_term(n->raft) != p->term);
        bool confirms = mine && !over && confirmed >= p->round;
        if (confirms) {
            check(p->index >= p->committed);
            c->counts.reads_confirmed++;
        }
        if (over || confirms)
            *p = c->reads[--c->read_count];
        else
            i++;
    }
}

/* ---- Disk
 * ------------------------------------------------------------------------------------ */

static void log_put(struct cluster *c, struct node *n, uint64_t index, struct entry e)
{
    check(index == n->last + 1 && index <= LOG_MAX);
    e.chain = chain_of(n->log[index - 1].chain, &e);
    n->log[index] = e;
    n->last = index;
    check_matching(c, index, &n->log[index]);
}

static void log_write(struct cluster *c, struct node *n, uint64_t generation)
{
    check(n->write_count < WRITES_MAX);
    uint64_t due = c->now_us + c->disk_us + cluster_chance(c, c->disk_us + 1);
    if (n->write_count)
        due = max_u64(due, n->writes[n->write_count - 1].due_us);
    n->writes[n->write_count++] = (struct write){n->last, generation, due, n->last};
}

static void log_cut(struct cluster *c, struct node *n, uint64_t to)
{
    check(to < n->last);
    check(raft_role(n->raft) != RAFT_LEADER); /* leader append-only */
    n->last = to;
    n->durable = min_u64(n->durable, to);
    check(n->hint <= to);
    for (size_t i = 0; i < n->write_count; i++)
        n->writes[i].kept = min_u64(n->writes[i].kept, to);
    c->counts.truncations++;
}

/* ---- Network
 * ------------------------------------------------------------------------------------ */

static void packet_queue(struct cluster *c, const struct packet *p, uint64_t due_us)
{
    check(c->packet_count < PACKETS_MAX);
    struct packet *copy = malloc(sizeof(*copy));
    check(copy);
    *copy = *p;
    copy->due_us = due_us;
    copy->order = c->order++;
    c->packets[c->packet_count++] = copy;
}

static void packet_send(struct cluster *c, const struct packet *p)
{
    const struct raft_message *m = &p->message;
    if (c->cut[m->from][m->to] || per_mille(c, c->faults.lose)) {
        c->counts.lost++;
        return;
    }
    uint64_t due = c->now_us + c->latency_us;
    if (per_mille(c, c->faults.reorder)) {
        due += cluster_chance(c, 20 * c->latency_us);
        c->counts.reordered++;
    }
    packet_queue(c, p, due);
    if (per_mille(c, c->faults.duplicate)) {
        packet_queue(c, p, due + cluster_chance(c, 50 * c->latency_us));
        c->counts.duplicated++;
    }
}

static void packets_drop(struct cluster *c, uint64_t a, uint64_t b)
{
    for (size_t i = 0; i < c->packet_count;) {
        const struct raft_message *m = &c->packets[i]->message;
        if ((m->from == a && m->to == b) || (m->from == b && m->to == a)) {
            free(c->packets[i]);
            c->packets[i] = c->packets[--c->packet_count];
        } else {
            i++;
        }
    }
}

static void inner_add(struct cluster *c, struct node *n, struct raft_event e)
{
    check(n->inner_count < INNER_MAX);
    n->inner[n->inner_count++] = e;
}

static void message_send(struct cluster *c, struct node *n, const struct raft_message *m)
{
    struct packet p = {.message = *m};
    if (m->type == RAFT_APPEND || m->type == RAFT_SNAPSHOT) {
        check(m->prev_index >= n->base && m->prev_term == n->log[m->prev_index].term);
        check(m->floor <= n->durable);
    }
    if (m->type == RAFT_APPEND && m->last > m->prev_index) {
        uint64_t left = n->link_full[m->to] ? 0 : m->last - m->prev_index;
        p.count = min_u64(left, 1 + cluster_chance(c, BATCH_MAX));
        p.message.last = m->prev_index + p.count;
        for (uint32_t i = 0; i < p.count; i++)
            p.entries[i] = n->log[m->prev_index + 1 + i];
        inner_add(c, n,
                  (struct raft_event){
                      .type = RAFT_SENT, .peer = m->to, .index = p.message.last});
        if (!p.count)
            return;
    }
    /* No acknowledgement before the disk has confirmed. */
    if (m->type == RAFT_APPEND_REPLY && m->ok)
        check(m->match <= n->durable);
    packet_send(c, &p);
}

/* ---- Merged files
 * ---------------------------------------------------------------------------- */

static void fetch_begin(struct cluster *c, struct node *n, const struct raft_update *u)
{
    const struct node *from = &c->nodes[u->snapshot_from];
    check(u->snapshot_index && u->snapshot_index <= c->committed_last);
    check(u->snapshot_term == c->committed[u->snapshot_index].term);
    check(n->last < u->snapshot_index ||
          n->log[u->snapshot_index].term != u->snapshot_term);
    c->counts.offers++;
    if (n->fetch.from || !from->raft)
        return;
    uint64_t index = max_u64(from->base, u->snapshot_index); /* of its newest */
    uint64_t later = max_u64(from->applied, index) - index;
    n->fetch = (struct fetch){.from = from->id,
                              .index = index,
                              .claim = index + cluster_chance(c, later + 1),
                              .due_us = c->now_us + 5 * c->latency_us +
                                        cluster_chance(c, 2 * ELECTION_US)};
}

static void disk_replace(struct cluster *c, struct node *n, const struct fetch *f)
{
    memcpy(n->log, c->committed, (f->index + 1) * sizeof(n->log[0]));
    n->last = n->durable = n->base = n->hint = n->applied = f->index;
    if (f->claim > n->claim_index) { /* a hole's claim outlives the hole */
        n->claim_index = f->claim;
        n->claim_term = c->committed[f->claim].term;
    }
    for (size_t i = 0; i < n->write_count; i++)
        n->writes[i].kept = 0; /* their confirmations are still to come */
}

static int step_all(struct cluster *c, struct node *n, const struct raft_event *e,
                    const struct packet *from);

static void fetch_finish(struct cluster *c, struct node *n)
{
    struct fetch f = n->fetch;
    n->fetch = (struct fetch){0};
    if (!c->nodes[f.from].raft)
        return; /* the next offer begins anew */
    struct raft_event e = {.type = RAFT_INSTALLED,
                           .index = f.index,
                           .term = c->committed[f.index].term,
                           .claim_index = f.claim,
                           .claim_term = c->committed[f.claim].term,
                           .config = &c->configs[0]};
    for (uint64_t i = 1; i <= f.index; i++) {
        if (c->committed[i].config) {
            e.config = &c->configs[c->committed[i].config];
            e.config_index = i;
        }
    }
    if (raft_may_install(n->raft, &e)) {
        disk_replace(c, n, &f);
        check(!step_all(c, n, &e, NULL));
        c->counts.installs++;
    } else {
        check(step_all(c, n, &e, NULL) == -EINVAL);
        c->counts.installs_refused++;
    }
}

void cluster_compact(struct cluster *c, uint64_t id, uint64_t index)
{
    struct node *n = &c->nodes[id];
    assert_true(index > n->base && index <= n->applied);
    n->base = index;
    n->hint = max_u64(n->hint, index);
    int error =
        cluster_event(c, id, (struct raft_event){.type = RAFT_COMPACTED, .index = index});
    check(!error && raft_base(n->raft) == index);
    c->counts.compactions++;
}

bool cluster_damage(struct cluster *c, uint64_t id, uint64_t to)
{
    struct node *n = &c->nodes[id];
    assert_null(n->raft);
    uint64_t last = n->last;
    assert_true(to >= n->base && to < last);
    if (last > c->committed_last || n->log[last].chain != c->committed[last].chain)
        return false;
    n->claim_index = last;
    n->claim_term = n->log[last].term;
    n->last = n->durable = to;
    n->hint = min_u64(n->hint, to);
    c->counts.damages++;
    return true;
}

void cluster_wipe(struct cluster *c, uint64_t id)
{
    struct node *n = &c->nodes[id];
    assert_null(n->raft);
    n->last = n->durable = n->hint = n->base = 0;
    n->claim_index = n->claim_term = 0;
}

/* ---- The driver's duties
 * ------------------------------------------------------------------------ */

static void update_do(struct cluster *c, struct node *n, const struct raft_event *e,
                      const struct raft_update *u, const struct packet *from)
{
    if (u->hard_state_changed) {
        n->term = raft_term(n->raft);
        n->vote = raft_vote(n->raft);
    }
    if (u->truncate)
        log_cut(c, n, u->truncate_to);
    if (u->append_first) {
        check(from);
        for (uint64_t i = u->append_first; i <= u->append_last; i++)
            log_put(c, n, i, from->entries[i - from->message.prev_index - 1]);
        log_write(c, n, u->generation);
    }
    if (e->type == RAFT_PROPOSE) {
        for (uint64_t i = 0; i < e->count; i++) {
            struct entry entry = {.term = raft_term(n->raft), .value = ++c->next_value};
            if (e->config) {
                check(c->config_count < CONFIGS_MAX);
                c->configs[c->config_count] = *e->config;
                entry.config = c->config_count++;
            }
            log_put(c, n, n->last + 1, entry);
        }
        log_write(c, n, u->generation);
    }
    check(raft_last_index(n->raft) == n->last);
    for (size_t i = 0; i < u->message_count; i++)
        message_send(c, n, &u->messages[i]);
    if (raft_role(n->raft) == RAFT_LEADER)
        check_leader(c, n);
    check_commit(c, n);
    if (u->snapshot_offered)
        fetch_begin(c, n, u);
    check_reads(c, n, u->confirmed_round);
    check(u->visible <= n->commit);
    n->visible = u->visible;
    n->confirmed_round = u->confirmed_round;
    n->deadline_us = u->deadline_us;
    n->role = raft_role(n->raft);
    if (u->want_noop)
        inner_add(c, n, (struct raft_event){.type = RAFT_PROPOSE, .count = 1});
}

static void node_apply(struct cluster *c, struct node *n)
{
    uint64_t to = min_u64(n->commit, raft_durable(n->raft)); /* as the driver does */
    if (n->apply_held || to <= n->applied)
        return;
    n->applied = to;
    if (cluster_chance(c, 2))
        n->hint = to;
    inner_add(c, n, (struct raft_event){.type = RAFT_APPLIED, .index = to});
}

static int step(struct cluster *c, struct node *n, const struct raft_event *e,
                const struct packet *from)
{
    static struct raft_update u;
    c->counts.steps++;
    int error = raft_step(n->raft, e, c->now_us, &u);
    raft_check(n->raft);
    if (error)
        return error;
    if (e->type == RAFT_READ && c->read_count < READS_MAX)
        c->reads[c->read_count++] =
            (struct pending_read){n->id, raft_term(n->raft), u.read_round,
                                  raft_commit(n->raft), c->committed_last};
    update_do(c, n, e, &u, from);
    node_apply(c, n);
    if (c->watch)
        c->watch(c, n, e);
    return 0;
}

static int step_all(struct cluster *c, struct node *n, const struct raft_event *e,
                    const struct packet *from)
{
    int error = step(c, n, e, from);
    while (n->inner_count) {
        struct raft_event inner = n->inner[0];
        n->inner_count--;
        memmove(n->inner, n->inner + 1, n->inner_count * sizeof(inner));
        int inner_error = step(c, n, &inner, NULL);
        check(!inner_error || inner.type == RAFT_PROPOSE);
    }
    return error;
}

int cluster_event(struct cluster *c, uint64_t id, struct raft_event event)
{
    struct node *n = &c->nodes[id];
    assert_non_null(n->raft);
    return step_all(c, n, &event, NULL);
}

static void packet_deliver(struct cluster *c, const struct packet *p)
{
    struct node *n = &c->nodes[p->message.to];
    if (!n->raft)
        return;
    struct raft_run runs[BATCH_MAX];
    size_t run_count = 0;
    struct raft_event e = {.type = RAFT_RECEIVE, .message = &p->message, .runs = runs};
    for (uint32_t i = 0; i < p->count; i++) {
        if (!run_count || runs[run_count - 1].term != p->entries[i].term)
            run_count++;
        runs[run_count - 1] =
            (struct raft_run){p->message.prev_index + 1 + i, p->entries[i].term};
        if (!p->entries[i].config)
            continue;
        e.previous_config = e.config;
        e.previous_config_index = e.config_index;
        e.config = &c->configs[p->entries[i].config];
        e.config_index = p->message.prev_index + 1 + i;
    }
    e.run_count = run_count;
    check(!step_all(c, n, &e, p));
}

/* ---- Life -------------------------------------------------------------------------- */

struct cluster *cluster_make(uint32_t voters, uint32_t total, uint64_t seed)
{
    assert_true(total < NODES_MAX && voters <= total);
    struct cluster *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    c->seed = seed * 0x9e3779b97f4a7c15u | 1;
    c->now_us = 1000000;
    c->latency_us = 1000;
    c->disk_us = 1000;
    c->node_count = total;
    c->config_count = 1;
    for (uint32_t id = 1; id <= total; id++) {
        c->nodes[id].id = id;
        c->configs[0].members[id - 1] = (struct raft_member){id, id <= voters};
    }
    c->configs[0].count = total;
    return c;
}

uint64_t cluster_outsider(struct cluster *c)
{
    uint64_t id = ++c->node_count;
    assert_true(id < NODES_MAX);
    c->nodes[id].id = id;
    return id;
}

void cluster_log(struct cluster *c, uint64_t id, const uint64_t *terms, size_t count)
{
    struct node *n = &c->nodes[id];
    for (size_t i = 0; i < count; i++)
        log_put(c, n, i + 1,
                (struct entry){.term = terms[i], .value = 1000 * terms[i] + i});
    n->durable = n->last;
    n->term = max_u64(n->term, count ? terms[count - 1] : 0);
}

struct cluster *cluster_new(uint32_t voters, uint32_t total, uint64_t seed)
{
    struct cluster *c = cluster_make(voters, total, seed);
    for (uint32_t id = 1; id <= total; id++)
        cluster_start(c, id);
    return c;
}

void cluster_free(struct cluster *c)
{
    for (uint32_t id = 1; id <= c->node_count; id++)
        raft_free(c->nodes[id].raft);
    for (size_t i = 0; i < c->packet_count; i++)
        free(c->packets[i]);
    free(c);
}

static void recover_configs(struct cluster *c, const struct node *n,
                            struct raft_options *o)
{
    o->config = c->configs[0];
    for (uint64_t i = 1; i <= n->last; i++) {
        if (!n->log[i].config)
            continue;
        if (o->pending_config_index) {
            o->config = o->pending_config;
            o->config_index = o->pending_config_index;
        }
        o->pending_config = c->configs[n->log[i].config];
        o->pending_config_index = i;
    }
}

void cluster_start(struct cluster *c, uint64_t id)
{
    struct node *n = &c->nodes[id];
    assert_null(n->raft);
    n->lives++;
    struct raft_run runs[LOG_MAX];
    struct raft_options o = {.id = id,
                             .seed = random_next(&c->seed) | 1,
                             .election_us = ELECTION_US,
                             .heartbeat_us = HEARTBEAT_US,
                             .term = n->term,
                             .vote = n->vote,
                             .base_index = n->base,
                             .base_term = n->log[n->base].term,
                             .runs = runs,
                             .commit = n->hint,
                             .claim_index = n->claim_index,
                             .claim_term = n->claim_term};
    for (uint64_t i = n->base + 1; i <= n->last; i++) {
        if (!o.run_count || runs[o.run_count - 1].term != n->log[i].term)
            o.run_count++;
        runs[o.run_count - 1] = (struct raft_run){i, n->log[i].term};
    }
    recover_configs(c, n, &o);
    assert_int_equal(raft_new(&n->raft, &o, c->now_us), 0);
    n->durable = n->last;
    n->commit = n->hint;
    n->applied = n->base;
    n->visible = n->confirmed_round = n->leading_term = 0;
    n->fetch = (struct fetch){0};
    n->deadline_us = c->now_us;
    n->role = RAFT_FOLLOWER;
    memset(n->link_full, 0, sizeof(n->link_full));
    for (uint32_t peer = 1; peer <= c->node_count; peer++) {
        if (peer == id || !c->nodes[peer].raft)
            continue;
        cluster_event(c, id, (struct raft_event){.type = RAFT_CONNECTED, .peer = peer});
        cluster_event(c, peer, (struct raft_event){.type = RAFT_CONNECTED, .peer = id});
    }
}

void cluster_crash(struct cluster *c, uint64_t id)
{
    struct node *n = &c->nodes[id];
    assert_non_null(n->raft);
    raft_free(n->raft);
    n->raft = NULL;
    n->paused_until_us = 0;
    n->write_count = n->inner_count = 0;
    uint64_t keeps = n->durable + cluster_chance(c, n->last - n->durable + 1);
    c->counts.lost_entries += n->last - keeps;
    c->counts.crashes++;
    n->last = keeps;
    for (uint32_t peer = 1; peer <= c->node_count; peer++) {
        if (peer == id)
            continue;
        packets_drop(c, id, peer);
        if (c->nodes[peer].raft)
            cluster_event(c, peer,
                          (struct raft_event){.type = RAFT_DISCONNECTED, .peer = id});
    }
    for (size_t i = 0; i < c->read_count;) {
        if (c->reads[i].node == id)
            c->reads[i] = c->reads[--c->read_count];
        else
            i++;
    }
}

void cluster_pause(struct cluster *c, uint64_t id, uint64_t us)
{
    c->nodes[id].paused_until_us = c->now_us + us;
    c->counts.pauses++;
}

void cluster_cut(struct cluster *c, uint64_t a, uint64_t b, bool cut)
{
    c->cut[a][b] = c->cut[b][a] = cut;
}

void cluster_isolate(struct cluster *c, uint64_t id, bool cut)
{
    for (uint32_t peer = 1; peer <= c->node_count; peer++) {
        if (peer != id)
            cluster_cut(c, id, peer, cut);
    }
}

static void link_event(struct cluster *c, enum raft_event_type type, uint64_t a,
                       uint64_t b)
{
    c->nodes[a].link_full[b] = c->nodes[b].link_full[a] = false;
    if (c->nodes[a].raft)
        cluster_event(c, a, (struct raft_event){.type = type, .peer = b});
    if (c->nodes[b].raft)
        cluster_event(c, b, (struct raft_event){.type = type, .peer = a});
}

void cluster_disconnect(struct cluster *c, uint64_t a, uint64_t b)
{
    packets_drop(c, a, b);
    link_event(c, RAFT_DISCONNECTED, a, b);
    c->counts.disconnects++;
}

void cluster_reconnect(struct cluster *c, uint64_t a, uint64_t b)
{
    cluster_disconnect(c, a, b);
    if (c->nodes[a].raft && c->nodes[b].raft)
        link_event(c, RAFT_CONNECTED, a, b);
}

int cluster_propose(struct cluster *c, uint64_t id, uint64_t count)
{
    int error =
        cluster_event(c, id, (struct raft_event){.type = RAFT_PROPOSE, .count = count});
    c->counts.proposed += !error;
    return error;
}

int cluster_config(struct cluster *c, uint64_t id, const struct raft_config *config)
{
    int error = cluster_event(
        c, id, (struct raft_event){.type = RAFT_PROPOSE, .count = 1, .config = config});
    c->counts.config_changes += !error;
    return error;
}

int cluster_read(struct cluster *c, uint64_t id)
{
    return cluster_event(c, id, (struct raft_event){.type = RAFT_READ});
}

void cluster_drain(struct cluster *c, uint64_t id, uint64_t peer)
{
    c->nodes[id].link_full[peer] = false;
    cluster_event(c, id, (struct raft_event){.type = RAFT_SENT, .peer = peer});
}

/* ---- Time -------------------------------------------------------------------------- */

static size_t packet_next(const struct cluster *c)
{
    size_t best = 0;
    for (size_t i = 1; i < c->packet_count; i++) {
        const struct packet *a = c->packets[i], *b = c->packets[best];
        if (a->due_us < b->due_us || (a->due_us == b->due_us && a->order < b->order))
            best = i;
    }
    return best;
}

static void packet_take(struct cluster *c, size_t i)
{
    struct packet *p = c->packets[i];
    uint64_t paused_until_us = c->nodes[p->message.to].paused_until_us;
    if (c->now_us < paused_until_us) {
        p->due_us = paused_until_us; /* its order stays */
        return;
    }
    c->packets[i] = c->packets[--c->packet_count];
    if (!c->cut[p->message.from][p->message.to])
        packet_deliver(c, p);
    free(p);
}

static void write_finish(struct cluster *c, struct node *n)
{
    struct write w = n->writes[0];
    n->write_count--;
    memmove(n->writes, n->writes + 1, n->write_count * sizeof(w));
    n->durable = max_u64(n->durable, w.kept);
    struct raft_event e = {
        .type = RAFT_DURABLE, .index = w.index, .generation = w.generation};
    step_all(c, n, &e, NULL);
}

enum due { DUE_TICK, DUE_DISK, DUE_FETCH };

static uint64_t node_due(const struct node *n, enum due *ret)
{
    if (!n->raft)
        return UINT64_MAX;
    uint64_t due = n->deadline_us;
    *ret = DUE_TICK;
    if (n->write_count && !n->disk_held && n->writes[0].due_us <= due) {
        due = n->writes[0].due_us;
        *ret = DUE_DISK;
    }
    if (n->fetch.from && n->fetch.due_us <= due) {
        due = n->fetch.due_us;
        *ret = DUE_FETCH;
    }
    return max_u64(due, n->paused_until_us);
}

static uint64_t next_due(const struct cluster *c, uint32_t *ret_node, enum due *ret)
{
    uint64_t due = UINT64_MAX;
    *ret_node = 0;
    for (uint32_t id = 1; id <= c->node_count; id++) {
        enum due what = DUE_TICK;
        uint64_t at = node_due(&c->nodes[id], &what);
        if (at < due) {
            due = at;
            *ret_node = id;
            *ret = what;
        }
    }
    return due;
}

static bool advance_until(struct cluster *c, uint64_t end_us)
{
    uint32_t id;
    enum due what = DUE_TICK;
    uint64_t due = next_due(c, &id, &what);
    size_t i = packet_next(c);
    bool packet = c->packet_count && c->packets[i]->due_us <= due;
    if (packet)
        due = c->packets[i]->due_us;
    if (due > end_us || due == UINT64_MAX) {
        c->now_us = max_u64(c->now_us, end_us);
        return false;
    }
    c->now_us = max_u64(c->now_us, due);
    if (packet)
        packet_take(c, i);
    else if (what == DUE_DISK)
        write_finish(c, &c->nodes[id]);
    else if (what == DUE_FETCH)
        fetch_finish(c, &c->nodes[id]);
    else
        cluster_event(c, id, (struct raft_event){.type = RAFT_TICK});
    return true;
}

void cluster_advance(struct cluster *c)
{
    uint32_t id;
    enum due what;
    if (!c->packet_count && next_due(c, &id, &what) == UINT64_MAX)
        c->now_us += HEARTBEAT_US; /* all are down */
    else
        advance_until(c, UINT64_MAX - 1);
}

void cluster_run(struct cluster *c, uint64_t us)
{
    uint64_t end = c->now_us + us;
    while (advance_until(c, end))
        ;
}

uint64_t cluster_leader(const struct cluster *c)
{
    uint64_t leader = 0, term = 0;
    for (uint32_t id = 1; id <= c->node_count; id++) {
        const struct node *n = &c->nodes[id];
        if (n->raft && n->role == RAFT_LEADER && raft_term(n->raft) > term) {
            leader = id;
            term = raft_term(n->raft);
        }
    }
    return leader;
}

uint64_t cluster_elect(struct cluster *c)
{
    for (int i = 0; i < 500; i++) {
        uint64_t leader = cluster_leader(c);
        if (leader && raft_established(c->nodes[leader].raft))
            return leader;
        cluster_run(c, ELECTION_US / 10);
    }
    fail_msg("no leader");
    return 0;
}

struct raft *cluster_raft(struct cluster *c, uint64_t id)
{
    return c->nodes[id].raft;
}

bool cluster_agrees(const struct cluster *c, uint32_t except)
{
    for (uint32_t id = 1; id <= c->node_count; id++) {
        const struct node *n = &c->nodes[id];
        if (n->raft && !(except & 1u << id) && n->applied != c->committed_last)
            return false;
    }
    return true;
}
