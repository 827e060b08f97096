/*
 * election.c - who may lead: timeouts, pre-votes, votes, and the order to campaign at
 * once.
 */
#include <errno.h>

#include "raft_internal.h"

/* A live leader is in sight: no vote that it did not ask for itself
 * (sections 4.2.3, 6.4.1 and 9.6). */
static bool leader_is_live(const struct raft *r)
{
    if (r->role == RAFT_LEADER)
        return raft_has_quorum(r, r->now_us);
    return r->follow.leader && r->now_us < r->follow.heard_us + r->election_us;
}

static bool is_current(const struct raft_message *m, uint64_t index, uint64_t term)
{
    return m->last_term == term ? m->last_index >= index : m->last_term > term;
}

/* What was committed beyond the end of this log counts as if it were there (G6). */
static bool log_is_current(const struct raft *r, const struct raft_message *m)
{
    return is_current(m, runs_last_index(&r->log), runs_last_term(&r->log)) &&
           is_current(m, r->claim_index, r->claim_term);
}

/* A voter that the newest configuration removes or demotes is needed until that is
 * committed (section 4.2.2): it may alone have the entry, and the remaining voters, whose
 * former majority it is part of, can then be led by nobody else.
 * A node with a claim lacks what is committed: as a leader it would take it back (G6). */
bool election_may_campaign(const struct raft *r)
{
    if (!r->eligible || r->claim_index)
        return false;
    return config_votes(config_in_force(r), r->id) ||
           (r->pending_config_index && config_votes(&r->config, r->id));
}

bool election_is_alone(const struct raft *r)
{
    return election_may_campaign(r) && config_is_sole_voter(r);
}

void election_reset(struct raft *r)
{
    uint64_t extra = random_next(&r->seed) % r->election_us;
    r->election_due_us = r->now_us + r->election_us + extra;
}

void election_tick(struct raft *r)
{
    if (!election_is_alone(r) && r->now_us < r->election_due_us)
        return;
    if (election_may_campaign(r))
        role_campaign(r, true, false);
    else
        role_follow(r, r->term, 0);
}

static uint32_t voter_count(const struct raft_config *c)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->count; i++)
        count += c->members[i].voter;
    return count;
}

void election_count(struct raft *r, uint64_t voter)
{
    struct campaign *c = &r->campaign;
    if (!config_votes(config_in_force(r), voter))
        return;
    for (uint32_t i = 0; i < c->granted_count; i++) {
        if (c->granted[i] == voter)
            return;
    }
    ensure(c->granted_count < LIMIT_MEMBERS);
    c->granted[c->granted_count++] = voter;
    if (c->granted_count <= voter_count(config_in_force(r)) / 2)
        return;
    if (c->pre)
        role_campaign(r, false, false);
    else
        role_lead(r);
}

static void vote_answer(struct raft *r, const struct raft_message *m, bool granted)
{
    struct raft_message *reply = message_add(r, RAFT_VOTE_REPLY, m->from);
    reply->pre = m->pre;
    reply->granted = granted;
    /* A refusal says the own term: one that lags behind would else ask for an outdated
     * term for ever. */
    if (m->pre && granted)
        reply->term = m->term;
}

static void pre_vote_receive(struct raft *r, const struct raft_message *m)
{
    bool granted = m->term > r->term && !leader_is_live(r) && log_is_current(r, m);
    vote_answer(r, m, granted);
}

int vote_receive(struct raft *r, const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (m->pre) {
        pre_vote_receive(r, m);
        return 0;
    }
    bool heeded = m->transfer || !leader_is_live(r);
    if (heeded && m->term > r->term)
        role_follow(r, m->term, 0);
    bool granted = heeded && m->term == r->term && (!r->vote || r->vote == m->from) &&
                   log_is_current(r, m);
    if (granted) {
        if (r->role == RAFT_CANDIDATE)
            role_follow(r, r->term, 0);
        vote_set(r, m->from);
        election_reset(r);
    }
    vote_answer(r, m, granted);
    return 0;
}

int vote_reply_receive(struct raft *r, const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (m->granted && m->term > r->term + (m->pre ? 1 : 0))
        return -EPROTO; /* never asked for */
    if (!m->granted && m->term > r->term) {
        role_follow(r, m->term, 0);
        return 0;
    }
    if (!m->granted || r->role != RAFT_CANDIDATE || m->pre != r->campaign.pre)
        return 0;
    if (m->term == (m->pre ? r->term + 1 : r->term))
        election_count(r, m->from);
    return 0;
}

int timeout_now_receive(struct raft *r, const struct raft_event *e)
{
    const struct raft_message *m = e->message;
    if (m->term < r->term)
        return 0;
    if (m->term == r->term) {
        if (r->role == RAFT_LEADER || (r->follow.leader && r->follow.leader != m->from))
            return -EPROTO;
        if (r->role == RAFT_CANDIDATE)
            return 0;
    } else {
        role_follow(r, m->term, m->from);
    }
    if (election_may_campaign(r))
        role_campaign(r, false, true);
    return 0;
}
