/*
 * append.c - a follower's side of replication: the consistency check, what to truncate
 * and to append, and the answers, which count only what is durable here.
 */
#include <errno.h>

#include "raft_internal.h"

/* What a message does to this log; made before anything is changed. */
struct plan {
    bool agrees;
    bool truncates;
    uint64_t first; /* of what is missing here; 0: nothing */
};

/* Entries from before the base on must have the base's term there. */
static bool base_agrees(const struct raft *r, const struct raft_event *e)
{
    uint64_t base = r->log.base_index;
    if (e->message->prev_index >= base || e->message->last < base)
        return true;
    for (size_t i = 0; i < e->run_count; i++) {
        if (e->runs[i].last >= base)
            return e->runs[i].term == r->log.base_term;
    }
    return false;
}

/* What is committed, or was verified with this leader, no correct leader takes back. */
static bool plan_is_safe(const struct raft *r, const struct raft_message *m,
                         const struct plan *plan)
{
    if (!plan->agrees)
        return m->prev_index > r->commit;
    if (!plan->truncates)
        return true;
    uint64_t to = plan->first - 1;
    uint64_t verified = m->term == r->term ? r->follow.verified : 0;
    return to >= r->commit && to >= r->config_index && to >= verified;
}

static int plan_make(const struct raft *r, const struct raft_event *e, struct plan *ret)
{
    const struct raft_message *m = e->message;
    struct plan plan = {0};
    /* What is before the base was committed, and is not known any more. */
    plan.agrees = m->prev_index < r->log.base_index ||
                  (m->prev_index <= runs_last_index(&r->log) &&
                   runs_term_of(&r->log, m->prev_index) == m->prev_term);
    if (plan.agrees)
        plan.first = runs_difference(&r->log, m->prev_index, e->runs, e->run_count);
    plan.truncates = plan.first && plan.first <= runs_last_index(&r->log);
    if (!plan_is_safe(r, m, &plan) || !base_agrees(r, e))
        return -EPROTO;
    *ret = plan;
    return 0;
}

static void log_truncate(struct raft *r, uint64_t to)
{
    ensure(to >= r->commit);
    runs_truncate(&r->log, to);
    config_truncate(r, to);
    r->durable = min_u64(r->durable, to);
    r->generation++; /* G3: completions of what was dropped do not count */
    r->out.truncate = true;
    r->out.truncate_to = to;
}

static void log_append(struct raft *r, const struct raft_event *e, uint64_t first)
{
    for (size_t i = 0; i < e->run_count; i++) {
        if (e->runs[i].last >= first)
            runs_append(&r->log, e->runs[i].last, e->runs[i].term);
    }
    if (e->previous_config && e->previous_config_index >= first)
        config_adopt(r, e->previous_config, e->previous_config_index);
    if (e->config && e->config_index >= first)
        config_adopt(r, e->config, e->config_index);
    claim_note(r, 0, 0);
    r->out.append_first = first;
    r->out.append_last = e->message->last;
}

uint64_t append_match(const struct raft *r)
{
    return min_u64(r->durable, r->follow.verified);
}

static struct raft_message *reply_add(struct raft *r)
{
    struct raft_message *reply = message_add(r, RAFT_APPEND_REPLY, r->follow.leader);
    reply->round = r->follow.round;
    reply->applied = r->applied;
    return reply;
}

void append_reply(struct raft *r)
{
    struct raft_message *reply = reply_add(r);
    reply->ok = true;
    reply->match = append_match(r);
}

/* The newest entry here that can equal the leader's: before prev, and of no later term
 * than prev's, for the leader has none such there. */
static void append_refuse(struct raft *r, const struct raft_message *m)
{
    struct raft_message *reply = reply_add(r);
    reply->hint_index = runs_newest_at(&r->log, m->prev_index - 1, m->prev_term);
    reply->hint_term = runs_term_of(&r->log, reply->hint_index);
}

static void append_take(struct raft *r, const struct raft_event *e,
                        const struct plan *plan)
{
    const struct raft_message *m = e->message;
    if (plan->truncates)
        log_truncate(r, plan->first - 1);
    if (plan->first)
        log_append(r, e, plan->first);
    r->follow.verified = max_u64(r->follow.verified, m->last);
    r->commit = max_u64(r->commit, min_u64(m->commit, r->follow.verified));
    config_commit(r);
    if (m->last == m->prev_index || m->last <= r->durable)
        append_reply(r);
}

static void snapshot_offer(struct raft *r, const struct raft_message *m)
{
    r->out.snapshot_offered = true;
    r->out.snapshot_index = m->prev_index;
    r->out.snapshot_term = m->prev_term;
    r->out.snapshot_from = m->from;
}

static void leader_hear(struct raft *r, const struct raft_message *m)
{
    r->follow.heard_us = r->now_us;
    if (m->round >= r->follow.round)
        r->follow.floor = m->floor;
    r->follow.round = max_u64(r->follow.round, m->round);
    election_reset(r);
}

/* A SNAPSHOT is an append without entries after the leader's base: a log that agrees
 * there needs no snapshot, or not any more. One that does not is answered as any refusal
 * is, so that it stays alive for the leader, and the leader for it, while it installs. */
int append_receive(struct raft *r, const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (m->term < r->term) {
        message_add(r, RAFT_APPEND_REPLY, m->from);
        return 0;
    }
    bool known = m->term == r->term && r->follow.leader;
    if (m->term == r->term && r->role == RAFT_LEADER)
        return -EPROTO;
    if (known && r->follow.leader != m->from)
        return -EPROTO;
    struct plan plan;
    int error = plan_make(r, e, &plan);
    if (!error)
        error = runs_reserve(&r->log, e->run_count);
    if (error)
        return error;

    if (!known)
        role_follow(r, m->term, m->from);
    leader_hear(r, m);
    if (plan.agrees)
        append_take(r, e, &plan);
    else
        append_refuse(r, m);
    if (!plan.agrees && m->type == RAFT_SNAPSHOT)
        snapshot_offer(r, m);
    return 0;
}
