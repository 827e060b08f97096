/*
 * raft.c - life, the step and its tables, and what the driver may ask.
 */
#include <errno.h>

#include "raft_internal.h"

typedef int (*handler)(struct raft *r, const struct raft_event *e);

/* A step sends each other member at most one VOTE, one empty APPEND, one with entries and
 * one TIMEOUT_NOW; and its one reply. */
_Static_assert(RAFT_UPDATE_MESSAGES >= 4 * (LIMIT_MEMBERS - 1) + 1,
               "an update holds a step");

struct raft_message *message_add(struct raft *r, enum raft_message_type type, uint64_t to)
{
    ensure(r->out.message_count < RAFT_UPDATE_MESSAGES);
    ensure(to && to != r->id);
    struct raft_message *m = &r->out.messages[r->out.message_count++];
    *m = (struct raft_message){.type = type, .from = r->id, .to = to, .term = r->term};
    return m;
}

/* ---- Links
 * -------------------------------------------------------------------------------- */

static uint32_t link_find(const struct raft *r, uint64_t id)
{
    uint32_t i = 0;
    while (i < r->link_count && r->links[i] != id)
        i++;
    return i;
}

bool link_is_up(const struct raft *r, uint64_t id)
{
    return link_find(r, id) < r->link_count;
}

static void link_remove(struct raft *r, uint32_t i)
{
    r->links[i] = r->links[--r->link_count];
}

/* There is always room for a member: twice as many links as members can be. */
static void link_add(struct raft *r, uint64_t id)
{
    if (link_is_up(r, id))
        return;
    for (uint32_t i = 0; r->link_count == LINKS_MAX && i < LINKS_MAX; i++) {
        if (!config_find(config_in_force(r), r->links[i]))
            link_remove(r, i);
    }
    ensure(r->link_count < LINKS_MAX);
    r->links[r->link_count++] = id;
}

static void peer_reconnect(struct raft *r, struct peer *p)
{
    peer_probe(r, p);
    p->sending = false;
    p->full = false;
    visible_forget(p);
}

static int connected_handle(struct raft *r, const struct raft_event *e)
{
    ensure(e->peer && e->peer != r->id);
    link_add(r, e->peer);
    struct peer *p = peer_find(r, e->peer);
    if (p) {
        peer_reconnect(r, p);
        p->match = 0; /* G6: a new life may have found a hole in its log */
        p->tell_due = true;
    }
    return 0;
}

static int disconnected_handle(struct raft *r, const struct raft_event *e)
{
    uint32_t i = link_find(r, e->peer);
    if (i < r->link_count)
        link_remove(r, i);
    struct peer *p = peer_find(r, e->peer);
    if (p) {
        peer_reconnect(r, p);
        transfer_lose(r, e->peer);
    }
    return 0;
}

/* ---- Events
 * ---------------------------------------------------------------------------------- */

static int tick_handle(struct raft *r, const struct raft_event *e)
{
    if (r->role == RAFT_LEADER)
        lead_tick(r);
    else
        election_tick(r);
    return 0;
}

static int durable_handle(struct raft *r, const struct raft_event *e)
{
    if (e->generation != r->generation)
        return 0; /* G3: of entries that were truncated meanwhile */
    ensure(e->index <= runs_last_index(&r->log));
    uint64_t former = append_match(r);
    r->durable = max_u64(r->durable, e->index);
    if (r->role == RAFT_LEADER)
        commit_advance(r);
    else if (r->follow.leader && append_match(r) > former)
        append_reply(r);
    return 0;
}

static int applied_handle(struct raft *r, const struct raft_event *e)
{
    ensure(e->index <= r->commit);
    if (e->index <= r->applied)
        return 0;
    r->applied = e->index;
    if (r->follow.leader)
        append_reply(r);
    return 0;
}

/* ---- Messages
 * ---------------------------------------------------------------------------------- */

bool position_is_possible(uint64_t index, uint64_t at_term, uint64_t term)
{
    return !index == !at_term && at_term <= term;
}

static bool configs_are_possible(const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    uint64_t after = m->prev_index;
    if (e->previous_config) {
        if (!e->config || !config_valid(e->previous_config) ||
            e->previous_config_index <= after || e->previous_config_index > m->last)
            return false;
        after = e->previous_config_index;
    }
    return !e->config || (config_valid(e->config) && e->config_index > after &&
                          e->config_index <= m->last);
}

static bool append_is_possible(const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (!position_is_possible(m->prev_index, m->prev_term, m->term))
        return false;
    if (!runs_follow(e->runs, e->run_count, m->prev_index, m->prev_term, m->term))
        return false;
    uint64_t last = e->run_count ? e->runs[e->run_count - 1].last : m->prev_index;
    return m->last == last && configs_are_possible(e);
}

static bool message_is_possible(const struct raft *r, const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (!m->from || m->from == r->id || m->to != r->id || !m->term)
        return false;
    switch (m->type) {
    case RAFT_VOTE:
        return !(m->pre && m->transfer) &&
               position_is_possible(m->last_index, m->last_term, m->term - 1);
    case RAFT_APPEND:
        return append_is_possible(e);
    case RAFT_SNAPSHOT:
        return m->prev_index && !e->run_count && append_is_possible(e);
    case RAFT_APPEND_REPLY:
        return m->ok || !m->hint_term == !m->hint_index;
    default:
        return true;
    }
}

static const handler receivers[] = {
    [RAFT_VOTE] = vote_receive,
    [RAFT_VOTE_REPLY] = vote_reply_receive,
    [RAFT_APPEND] = append_receive,
    [RAFT_APPEND_REPLY] = append_reply_receive,
    [RAFT_TIMEOUT_NOW] = timeout_now_receive,
    [RAFT_SNAPSHOT] = append_receive,
};

static int receive_handle(struct raft *r, const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (m->type < RAFT_VOTE || m->type > RAFT_SNAPSHOT || !message_is_possible(r, e))
        return -EPROTO;
    return receivers[m->type](r, e);
}

/* ---- Life -------------------------------------------------------------------------- */

static bool configs_are_valid(const struct raft_options *o, uint64_t last)
{
    if (!config_valid(&o->config) || o->config_index > last)
        return false;
    if (!o->pending_config_index)
        return o->config_index <= o->commit;
    return config_valid(&o->pending_config) &&
           o->pending_config_index > o->config_index && o->pending_config_index <= last;
}

static bool options_are_valid(const struct raft_options *o)
{
    if (!o->id || !o->seed || !o->heartbeat_us || o->heartbeat_us >= o->election_us)
        return false;
    if (!position_is_possible(o->base_index, o->base_term, o->term) ||
        !position_is_possible(o->claim_index, o->claim_term, o->term))
        return false;
    if (!runs_follow(o->runs, o->run_count, o->base_index, o->base_term, o->term))
        return false;
    uint64_t last = o->run_count ? o->runs[o->run_count - 1].last : o->base_index;
    return o->commit >= o->base_index && o->commit <= last && configs_are_valid(o, last);
}

static int log_copy(struct runs *l, const struct raft_options *o)
{
    l->base_index = o->base_index;
    l->base_term = o->base_term;
    int error = runs_reserve(l, o->run_count);
    for (size_t i = 0; !error && i < o->run_count; i++)
        runs_append(l, o->runs[i].last, o->runs[i].term);
    return error;
}

int raft_new(struct raft **ret, const struct raft_options *o, uint64_t now_us)
{
    if (!options_are_valid(o))
        return -EINVAL;
    struct raft *r = calloc(1, sizeof(*r));
    int error = r ? log_copy(&r->log, o) : -ENOMEM;
    if (error) {
        free(r);
        return error;
    }
    r->id = o->id;
    r->seed = o->seed;
    r->election_us = o->election_us;
    r->heartbeat_us = o->heartbeat_us;
    r->now_us = now_us;
    r->term = o->term;
    r->vote = o->vote;
    r->eligible = true;
    r->generation = 1;
    r->commit = o->commit;
    r->applied = o->base_index;
    r->durable = runs_last_index(&r->log); /* G4: recovery has synced it */
    r->config = o->config;
    r->config_index = o->config_index;
    r->pending_config = o->pending_config;
    r->pending_config_index = o->pending_config_index;
    config_commit(r);
    claim_note(r, o->claim_index, o->claim_term);
    election_reset(r);
    raft_check(r);
    *ret = r;
    return 0;
}

void raft_free(struct raft *r)
{
    if (!r)
        return;
    runs_release(&r->log);
    free(r);
}

/* ---- The step ---------------------------------------------------------------------- */

static const handler handlers[] = {
    [RAFT_TICK] = tick_handle,
    [RAFT_RECEIVE] = receive_handle,
    [RAFT_DURABLE] = durable_handle,
    [RAFT_APPLIED] = applied_handle,
    [RAFT_PROPOSE] = propose_handle,
    [RAFT_READ] = read_handle,
    [RAFT_SENT] = sent_handle,
    [RAFT_CONNECTED] = connected_handle,
    [RAFT_DISCONNECTED] = disconnected_handle,
    [RAFT_TRANSFER] = transfer_handle,
    [RAFT_ELIGIBLE] = eligible_handle,
    [RAFT_COMPACTED] = compacted_handle,
    [RAFT_INSTALLED] = installed_handle,
};

static uint64_t deadline(const struct raft *r)
{
    if (r->role == RAFT_LEADER)
        return lead_deadline(r);
    if (election_is_alone(r))
        return r->now_us; /* why wait */
    return r->election_due_us;
}

static void update_finish(struct raft *r)
{
    struct raft_update *u = &r->out;
    u->generation = r->generation;
    u->commit = r->commit;
    u->visible = r->lead.visible;
    u->confirmed_round = r->lead.confirmed_round;
    u->deadline_us = deadline(r);
}

int raft_step(struct raft *r, const struct raft_event *e, uint64_t now_us,
              struct raft_update *ret)
{
    ensure(e->type >= RAFT_TICK && e->type <= RAFT_INSTALLED);
    enum raft_role role = r->role;
    uint64_t term = r->term, leader = raft_leader(r);
    memset(&r->out, 0, offsetof(struct raft_update, messages));
    r->now_us = max_u64(r->now_us, now_us);

    int error = handlers[e->type](r, e);
    if (error)
        return error;
    if (r->role == RAFT_LEADER)
        lead_finish(r);
    r->out.role_changed = role != r->role || term != r->term || leader != raft_leader(r);
    update_finish(r);
    check_state(r);
    ensure(e->type != RAFT_TICK || r->out.deadline_us > r->now_us);
    memcpy(ret, &r->out,
           offsetof(struct raft_update, messages) +
               r->out.message_count * sizeof(r->out.messages[0]));
    return 0;
}

/* ---- Questions --------------------------------------------------------------------- */

enum raft_role raft_role(const struct raft *r)
{
    return r->role;
}

uint64_t raft_term(const struct raft *r)
{
    return r->term;
}

uint64_t raft_vote(const struct raft *r)
{
    return r->vote;
}

uint64_t raft_leader(const struct raft *r)
{
    return r->role == RAFT_LEADER ? r->id : r->follow.leader;
}

uint64_t raft_last_index(const struct raft *r)
{
    return runs_last_index(&r->log);
}

uint64_t raft_last_term(const struct raft *r)
{
    return runs_last_term(&r->log);
}

uint64_t raft_commit(const struct raft *r)
{
    return r->commit;
}

uint64_t raft_durable(const struct raft *r)
{
    return r->durable;
}

uint64_t raft_base(const struct raft *r)
{
    return r->log.base_index;
}

uint64_t raft_claim(const struct raft *r)
{
    return r->claim_index;
}

uint64_t raft_claim_term(const struct raft *r)
{
    return r->claim_term;
}

uint64_t raft_floor(const struct raft *r)
{
    return r->role == RAFT_LEADER ? lead_floor(r) : r->follow.floor;
}

bool raft_established(const struct raft *r)
{
    return r->role == RAFT_LEADER && runs_term_of(&r->log, r->commit) == r->term;
}

static bool lead_has_quorum(const struct raft *r, uint64_t now_us)
{
    const struct raft_config *c = config_in_force(r);
    uint32_t voters = 0, heard = 0;
    for (uint32_t i = 0; i < c->count; i++)
        voters += c->members[i].voter;
    heard += config_votes(c, r->id);
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        const struct peer *p = &r->lead.peers[i];
        heard += config_votes(c, p->id) && link_is_up(r, p->id) &&
                 now_us < p->heard_us + r->election_us;
    }
    return heard > voters / 2;
}

bool raft_has_quorum(const struct raft *r, uint64_t now_us)
{
    if (r->role == RAFT_LEADER)
        return lead_has_quorum(r, now_us);
    return r->follow.leader && link_is_up(r, r->follow.leader) &&
           now_us < r->follow.heard_us + REACH_TIMEOUTS * r->election_us;
}

bool raft_transferring(const struct raft *r)
{
    return r->lead.transfer_to != 0;
}

uint64_t raft_term_of(const struct raft *r, uint64_t index)
{
    return runs_term_of(&r->log, index);
}

const struct raft_config *raft_config(const struct raft *r, uint64_t *ret_index)
{
    if (ret_index)
        *ret_index = r->pending_config_index ? r->pending_config_index : r->config_index;
    return config_in_force(r);
}

bool raft_config_is_pending(const struct raft *r)
{
    return r->pending_config_index != 0;
}

static struct raft_peer_status own_status(const struct raft *r)
{
    return (struct raft_peer_status){
        .match = r->durable,
        .applied = r->applied,
        .next = runs_last_index(&r->log) + 1,
        .reachable = true};
}

static struct raft_peer_status other_status(const struct raft *r, uint64_t id,
                                            uint64_t now_us)
{
    struct raft_peer_status s = {.reachable = link_is_up(r, id)};
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        const struct peer *p = &r->lead.peers[i];
        if (p->id == id) {
            s.match = p->match;
            s.applied = p->applied;
            s.next = p->next;
            s.reachable = peer_is_reachable(r, p, now_us);
            s.snapshot = p->mode == PEER_SNAPSHOT;
        }
    }
    if (r->follow.leader == id)
        s.reachable = raft_has_quorum(r, now_us);
    return s;
}

bool raft_peer_status(const struct raft *r, uint64_t id, uint64_t now_us,
                      struct raft_peer_status *ret)
{
    if (!config_find(config_in_force(r), id))
        return false;
    *ret = id == r->id ? own_status(r) : other_status(r, id, now_us);
    return true;
}
