/*
 * role.c - the only place where role, term and vote change. Each change of role zeroes
 * what belonged to the former one: no flag of a leadership can outlive it.
 */
#include "raft_internal.h"

static void role_enter(struct raft *r, enum raft_role role)
{
    memset(&r->follow, 0, sizeof(r->follow));
    memset(&r->campaign, 0, sizeof(r->campaign));
    memset(&r->lead, 0, sizeof(r->lead));
    r->role = role;
}

static void term_set(struct raft *r, uint64_t term)
{
    ensure(term >= r->term);
    if (term == r->term)
        return;
    r->term = term;
    r->vote = 0;
    r->out.hard_state_changed = true;
}

void vote_set(struct raft *r, uint64_t vote)
{
    ensure(!r->vote || r->vote == vote);
    if (r->vote == vote)
        return;
    r->vote = vote;
    r->out.hard_state_changed = true;
}

void role_follow(struct raft *r, uint64_t term, uint64_t leader)
{
    term_set(r, term);
    role_enter(r, RAFT_FOLLOWER);
    r->follow.leader = leader;
    r->follow.heard_us = leader ? r->now_us : 0;
    election_reset(r);
}

static void votes_ask(struct raft *r)
{
    const struct raft_config *c = config_in_force(r);
    for (uint32_t i = 0; i < c->count; i++) {
        if (!c->members[i].voter || c->members[i].id == r->id)
            continue;
        struct raft_message *m = message_add(r, RAFT_VOTE, c->members[i].id);
        m->term = r->campaign.pre ? r->term + 1 : r->term;
        m->pre = r->campaign.pre;
        m->transfer = r->campaign.transfer;
        m->last_index = runs_last_index(&r->log);
        m->last_term = runs_last_term(&r->log);
    }
}

void role_campaign(struct raft *r, bool pre, bool transfer)
{
    ensure(election_may_campaign(r));
    if (!pre)
        term_set(r, r->term + 1);
    role_enter(r, RAFT_CANDIDATE);
    r->campaign.pre = pre;
    r->campaign.transfer = transfer;
    if (!pre)
        vote_set(r, r->id);
    election_reset(r);
    votes_ask(r);
    election_count(r, r->id);
}

void role_lead(struct raft *r)
{
    ensure(r->role == RAFT_CANDIDATE && !r->campaign.pre && r->vote == r->id);
    role_enter(r, RAFT_LEADER);
    r->lead.elected_us = r->now_us;
    r->lead.elected_last = runs_last_index(&r->log);
    r->lead.elected_commit = r->commit;
    r->lead.heartbeat_due_us = r->now_us + r->heartbeat_us;
    peers_sync(r, true);
    round_begin(r);
    peers_beat(r, false);
    r->out.want_noop = true;
}
