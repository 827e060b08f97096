/*
 * replicate.c - a leader's side: what each peer has and is sent, and what is committed.
 *
 * Within a step peers are only marked (beat_due, tell_due); lead_finish() then sends each
 * at most one empty append and one with entries, which bounds the messages of an update.
 */
#include <errno.h>

#include "raft_internal.h"

/* ---- Peers
 * ------------------------------------------------------------------------------ */

struct peer *peer_find(struct raft *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        if (r->lead.peers[i].id == id)
            return &r->lead.peers[i];
    }
    return NULL;
}

static struct peer peer_new(const struct raft *r, uint64_t id, bool holds)
{
    uint64_t last = runs_last_index(&r->log);
    return (struct peer){
        .id = id,
        .next = last + 1,
        .probe = last,
        .progress_us = r->now_us,
        .heard_us = r->now_us,
        .applied_us = r->now_us,
        .late_spent_at_us = r->now_us,
        .holds = holds && link_is_up(r, id),
    };
}

void peers_sync(struct raft *r, bool holds)
{
    struct peer peers[LIMIT_MEMBERS] = {0};
    uint32_t count = 0;
    const struct raft_config *c = config_in_force(r);
    for (uint32_t i = 0; i < c->count; i++) {
        uint64_t id = c->members[i].id;
        if (id == r->id)
            continue;
        const struct peer *known = peer_find(r, id);
        peers[count++] = known ? *known : peer_new(r, id, holds);
    }
    memcpy(r->lead.peers, peers, sizeof(peers));
    r->lead.peer_count = count;
}

/* It gets no entries, and holds nothing back, until its log has reached this one's. */
static void peer_snapshot(struct raft *r, struct peer *p)
{
    if (p->mode != PEER_SNAPSHOT)
        p->tell_due = true;
    p->mode = PEER_SNAPSHOT;
    p->probe = r->log.base_index;
    p->next = p->probe + 1;
    p->refused = false;
    p->holds = false;
}

/* All appends must follow something that is still in the log. */
static void peer_ground(struct raft *r, struct peer *p)
{
    uint64_t base = r->log.base_index;
    if (p->mode == PEER_SNAPSHOT || p->next <= base)
        peer_snapshot(r, p);
    else if (p->mode == PEER_PROBE && p->probe < base) {
        p->probe = base; /* it was sent, and may be refused */
        p->refused = true;
    }
}

void peers_compact(struct raft *r)
{
    for (uint32_t i = 0; i < r->lead.peer_count; i++)
        peer_ground(r, &r->lead.peers[i]);
}

/* What was sent ahead may be lost: begin again after what is known to have arrived. */
void peer_probe(struct raft *r, struct peer *p)
{
    if (p->mode == PEER_SNAPSHOT)
        return;
    if (p->mode == PEER_REPLICATE)
        p->probe = p->match;
    p->mode = PEER_PROBE;
    p->next = p->probe + 1;
    peer_ground(r, p);
}

void peers_beat(struct raft *r, bool voters_only)
{
    const struct raft_config *c = config_in_force(r);
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        struct peer *p = &r->lead.peers[i];
        if (!voters_only || config_votes(c, p->id))
            p->beat_due = true;
    }
}

static void peers_tell(struct raft *r)
{
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        struct peer *p = &r->lead.peers[i];
        if (p->mode != PEER_SNAPSHOT) /* commits are nothing to it */
            p->tell_due = true;
    }
}

/* G8: who waits for a snapshot, or is out of reach, would keep the log for ever. */
uint64_t lead_floor(const struct raft *r)
{
    uint64_t floor = r->durable;
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        const struct peer *p = &r->lead.peers[i];
        if (p->mode != PEER_SNAPSHOT && peer_is_reachable(r, p, r->now_us))
            floor = min_u64(floor, p->match);
    }
    return floor;
}

/* ---- Sending
 * ------------------------------------------------------------------------------ */

static bool peer_takes_entries(const struct raft *r, const struct peer *p)
{
    if (p->sending || p->full || p->next > runs_last_index(&r->log))
        return false;
    if (!link_is_up(r, p->id))
        return false;
    return p->mode == PEER_REPLICATE ||
           (p->mode == PEER_PROBE && !p->refused && p->next == p->probe + 1);
}

static void append_send(struct raft *r, struct peer *p, uint64_t prev, uint64_t last)
{
    enum raft_message_type type = p->mode == PEER_SNAPSHOT ? RAFT_SNAPSHOT : RAFT_APPEND;
    ensure(prev >= r->log.base_index);
    struct raft_message *m = message_add(r, type, p->id);
    m->prev_index = prev;
    m->prev_term = runs_term_of(&r->log, prev);
    m->last = last;
    m->commit = r->commit;
    m->round = r->lead.round;
    m->floor = lead_floor(r);
}

/* An empty append must not fail where entries are only late: it follows what is known to
 * be there (or, where that is not in the log any more, the base, which was sent), or, to
 * a peer that is probed, what is asked. */
static void peer_send_empty(struct raft *r, struct peer *p)
{
    uint64_t sure = max_u64(p->match, r->log.base_index);
    uint64_t prev = p->mode == PEER_REPLICATE ? sure : p->probe;
    append_send(r, p, prev, prev);
}

static void peer_send_entries(struct raft *r, struct peer *p)
{
    p->sending = true;
    p->sending_prev = p->next - 1;
    p->sending_last = runs_last_index(&r->log);
    append_send(r, p, p->sending_prev, p->sending_last);
}

static void peer_flush(struct raft *r, struct peer *p)
{
    bool entries = peer_takes_entries(r, p);
    if (p->beat_due || (p->tell_due && !entries))
        peer_send_empty(r, p);
    if (entries)
        peer_send_entries(r, p);
    p->beat_due = p->tell_due = false;
}

static bool peer_has_in_flight(const struct peer *p)
{
    return p->mode == PEER_REPLICATE && p->next > p->match + 1;
}

int sent_handle(struct raft *r, const struct raft_event *e)
{
    struct peer *p = r->role == RAFT_LEADER ? peer_find(r, e->peer) : NULL;
    if (!p)
        return 0;
    if (!p->sending) {
        if (!e->index)
            p->full = false;
        return 0;
    }
    if (e->index < p->sending_prev || e->index > p->sending_last)
        return 0; /* of a message of a former connection */
    p->sending = false;
    if (e->index == p->sending_prev) {
        p->full = true;
        p->tell_due = true; /* the commit index that it carried */
        return 0;
    }
    if (p->mode != PEER_SNAPSHOT && p->next == p->sending_prev + 1) {
        if (!peer_has_in_flight(p))
            p->progress_us = r->now_us;
        p->next = e->index + 1;
    }
    return 0;
}

/* ---- Answers
 * ------------------------------------------------------------------------------ */

static void peer_agrees(struct raft *r, struct peer *p, uint64_t match)
{
    if (match > p->match) {
        p->match = match;
        p->progress_us = r->now_us;
    }
    if (p->mode == PEER_SNAPSHOT) {
        if (p->match < r->log.base_index)
            return; /* from before the base, or not durable yet */
        p->mode = PEER_PROBE;
        p->probe = p->match;
    }
    /* An answer that reaches the probe proves it; an older one may not. */
    if (p->mode == PEER_PROBE && p->match >= p->probe) {
        p->mode = PEER_REPLICATE;
        p->refused = false;
        p->progress_us = r->now_us;
    }
    p->next = max_u64(p->next, p->match + 1);
    if (p->mode == PEER_PROBE)
        p->probe = max_u64(p->probe, p->match);
}

/* Whole terms are skipped on both sides: the follower's hint is its newest entry that may
 * agree, this log's newest of no later term up to there is the next guess. Where that
 * lies before the base, the log cannot help. */
static void peer_refuses(struct raft *r, struct peer *p, const struct raft_message *m)
{
    if (m->hint_index < r->log.base_index && p->match < r->log.base_index) {
        peer_snapshot(r, p);
        return;
    }
    uint64_t guess = runs_newest_at(&r->log, m->hint_index, m->hint_term);
    guess = max_u64(guess, p->match);
    if (p->mode == PEER_PROBE && guess >= p->probe)
        return; /* nothing new; the next heartbeat asks again */
    bool arrived = p->mode == PEER_SNAPSHOT;
    p->mode = PEER_PROBE;
    p->refused = true;
    p->probe = arrived ? guess : min_u64(guess, p->next - 1);
    p->next = p->probe + 1;
    p->tell_due = true;
}

static bool reply_is_possible(const struct raft *r, const struct raft_message *m)
{
    uint64_t last = runs_last_index(&r->log);
    return m->match <= last && m->applied <= last && m->hint_index <= last &&
           m->round <= r->lead.round;
}

int append_reply_receive(struct raft *r, const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (m->term > r->term) {
        role_follow(r, m->term, 0);
        return 0;
    }
    if (m->term < r->term || r->role != RAFT_LEADER)
        return 0;
    if (!reply_is_possible(r, m))
        return -EPROTO;
    struct peer *p = peer_find(r, m->from);
    if (!p)
        return 0; /* removed */
    p->heard_us = r->now_us;
    p->round = max_u64(p->round, m->round);
    if (m->ok)
        peer_agrees(r, p, m->match);
    else
        peer_refuses(r, p, m);
    round_confirm(r);
    commit_advance(r);
    visible_hear(r, p, m->applied);
    return 0;
}

/* ---- Commit and proposals
 * ------------------------------------------------------------------- */

static uint64_t match_of(const struct peer *p)
{
    return p->match;
}

/* S9: what a majority has durable, this node included only as far as its own disk is; and
 * never by counting for an entry of an earlier term (figure 8). */
void commit_advance(struct raft *r)
{
    uint64_t to = quorum_of(r, r->durable, match_of);
    if (to <= r->commit || runs_term_of(&r->log, to) != r->term)
        return;
    uint64_t former = r->commit;
    r->commit = to;
    config_commit(r);
    visible_lag(r, former);
    peers_tell(r);
}

static int config_may_change(const struct raft *r, const struct raft_config *c)
{
    if (r->pending_config_index || !raft_established(r))
        return -EBUSY;
    if (!config_valid(c) || !config_is_near(&r->config, c))
        return -EINVAL;
    return 0;
}

int propose_handle(struct raft *r, const struct raft_event *e)
{
    ensure(e->count && (!e->config || e->count == 1));
    if (r->role != RAFT_LEADER)
        return -ENOTCONN;
    if (r->lead.transfer_to)
        return -EBUSY;
    int error = e->config ? config_may_change(r, e->config) : 0;
    if (!error)
        error = runs_reserve(&r->log, 1);
    if (error)
        return error;
    uint64_t last = runs_last_index(&r->log) + e->count;
    runs_append(&r->log, last, r->term);
    if (e->config) {
        config_adopt(r, e->config, last);
        peers_sync(r, false);
        commit_advance(r);
        round_confirm(r);
    }
    return 0;
}

/* ---- Time
 * ----------------------------------------------------------------------------------- */

static uint64_t heard_of(const struct peer *p)
{
    return p->heard_us;
}

static uint64_t quorum_due_us(const struct raft *r)
{
    return quorum_of(r, r->now_us, heard_of) + QUORUM_TIMEOUTS * r->election_us;
}

bool lead_is_heard(const struct raft *r)
{
    return r->now_us < quorum_due_us(r);
}

/* Lost without a disconnect: nothing else would ever send it again. */
static void peer_tick(struct raft *r, struct peer *p)
{
    if (peer_has_in_flight(p) && r->now_us >= p->progress_us + r->election_us)
        peer_probe(r, p);
}

void lead_tick(struct raft *r)
{
    if (!lead_is_heard(r)) {
        role_follow(r, r->term, 0);
        return;
    }
    transfer_tick(r);
    if (r->role != RAFT_LEADER)
        return;
    for (uint32_t i = 0; i < r->lead.peer_count; i++)
        peer_tick(r, &r->lead.peers[i]);
    if (r->now_us < r->lead.heartbeat_due_us)
        return;
    r->lead.heartbeat_due_us = r->now_us + r->heartbeat_us;
    round_begin(r);
    peers_beat(r, false);
}

/* A leader that its own committed configuration gives no vote has done its last duty. */
static bool lead_is_over(const struct raft *r)
{
    return !r->pending_config_index && !config_votes(&r->config, r->id);
}

void lead_finish(struct raft *r)
{
    visible_update(r);
    for (uint32_t i = 0; i < r->lead.peer_count; i++)
        peer_flush(r, &r->lead.peers[i]);
    transfer_try(r);
    if (!lead_is_over(r))
        return;
    uint64_t heir = transfer_best(r);
    if (heir)
        message_add(r, RAFT_TIMEOUT_NOW, heir);
    role_follow(r, r->term, 0);
}

uint64_t lead_deadline(const struct raft *r)
{
    uint64_t due = min_u64(r->lead.heartbeat_due_us, quorum_due_us(r));
    if (r->lead.transfer_to)
        due = min_u64(due, r->lead.transfer_due_us);
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        const struct peer *p = &r->lead.peers[i];
        if (peer_has_in_flight(p))
            due = min_u64(due, p->progress_us + r->election_us);
        if (p->holds)
            due = min_u64(due, visible_deadline(r, p));
    }
    return due;
}
