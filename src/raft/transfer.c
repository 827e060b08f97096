/*
 * transfer.c - handing leadership over (section 3.10): proposals stop, the target catches
 * up, and is told to campaign at once.
 */
#include <errno.h>

#include "raft_internal.h"

bool peer_is_reachable(const struct raft *r, const struct peer *p, uint64_t now_us)
{
    return link_is_up(r, p->id) && now_us < p->heard_us + REACH_TIMEOUTS * r->election_us;
}

uint64_t transfer_best(const struct raft *r)
{
    const struct peer *best = NULL;
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        const struct peer *p = &r->lead.peers[i];
        if (!config_votes(config_in_force(r), p->id) || p->mode == PEER_SNAPSHOT)
            continue;
        if (peer_is_reachable(r, p, r->now_us) && (!best || p->match > best->match))
            best = p;
    }
    return best ? best->id : 0;
}

static void transfer_start(struct raft *r, uint64_t to)
{
    r->lead.transfer_to = to;
    r->lead.transfer_asked = false;
    r->lead.transfer_due_us = r->now_us + TRANSFER_TIMEOUTS * r->election_us;
}

int transfer_handle(struct raft *r, const struct raft_event *e)
{
    if (r->role != RAFT_LEADER)
        return -ENOTCONN;
    uint64_t to = e->peer ? e->peer : transfer_best(r);
    if (!to || to == r->id || !config_votes(config_in_force(r), to))
        return -ENOENT;
    transfer_start(r, to);
    return 0;
}

int eligible_handle(struct raft *r, const struct raft_event *e)
{
    r->eligible = e->eligible;
    r->lead.resign = r->role == RAFT_LEADER && !e->eligible;
    if (e->eligible)
        return 0;
    uint64_t best = r->role == RAFT_LEADER ? transfer_best(r) : 0;
    if (best && !r->lead.transfer_to)
        transfer_start(r, best);
    else if (!best && r->role != RAFT_FOLLOWER)
        role_follow(r, r->term, 0);
    return 0;
}

void transfer_try(struct raft *r)
{
    struct peer *p = r->lead.transfer_to ? peer_find(r, r->lead.transfer_to) : NULL;
    if (!p || r->lead.transfer_asked || p->match < runs_last_index(&r->log))
        return;
    if (!link_is_up(r, p->id))
        return;
    message_add(r, RAFT_TIMEOUT_NOW, p->id);
    r->lead.transfer_asked = true;
}

void transfer_lose(struct raft *r, uint64_t peer)
{
    if (r->lead.transfer_to == peer)
        r->lead.transfer_due_us = r->now_us;
}

void transfer_tick(struct raft *r)
{
    if (!r->lead.transfer_to || r->now_us < r->lead.transfer_due_us)
        return;
    if (r->lead.resign) {
        role_follow(r, r->term, 0);
        return;
    }
    r->lead.transfer_to = 0;
    r->lead.transfer_asked = false;
}
