/*
 * read.c - rounds, which prove that this leader is not deposed (ReadIndex, section 6.4),
 * and `visible`, up to which every member in reach has applied.
 *
 * V, whom `visible` waits for: at an election every connected member, whose applied index
 * is not known yet and counts as 0. A member leaves V when it disconnects, needs a snapshot,
 * is silent or lags for VISIBLE_TIMEOUTS without applying anything. It enters when an answer
 * shows that it lacks at most VISIBLE_SLACK entries, and no snapshot; after leaving for its
 * lag, not before it has applied something.
 */
#include <errno.h>

#include "raft_internal.h"

/* ---- Rounds ------------------------------------------------------------ */

static uint64_t round_of(const struct peer *p)
{
    return p->round;
}

void round_confirm(struct raft *r)
{
    uint64_t confirmed = quorum_of(r, r->lead.round, round_of);
    r->lead.confirmed_round = max_u64(r->lead.confirmed_round, confirmed);
}

void round_begin(struct raft *r)
{
    r->lead.round++;
    round_confirm(r);
}

int read_handle(struct raft *r, const struct raft_event *e)
{
    if (r->role != RAFT_LEADER)
        return -ENOTCONN;
    if (!raft_established(r))
        return -EAGAIN; /* S1 */
    /* A number of its own: answers to what was sent before prove nothing for it (S4). */
    round_begin(r);
    peers_beat(r, true);
    r->out.read_round = r->lead.round;
    return 0;
}

/* ---- Visible ------------------------------------------------------------ */

static bool peer_lags(const struct raft *r, const struct peer *p)
{
    return p->applied < r->commit;
}

void visible_hear(struct raft *r, struct peer *p, uint64_t applied)
{
    if (applied > p->applied) {
        p->applied = applied;
        p->applied_us = r->now_us;
        p->stuck = false;
    }
    if (p->holds || p->stuck || p->mode == PEER_SNAPSHOT || !link_is_up(r, p->id))
        return;
    if (p->applied + VISIBLE_SLACK >= r->commit) {
        p->holds = true;
        p->applied_us = r->now_us;
    }
}

void visible_lag(struct raft *r, uint64_t former_commit)
{
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        struct peer *p = &r->lead.peers[i];
        if (p->applied >= former_commit)
            p->applied_us = r->now_us;
    }
}

/* A new connection may be to a new life, which applies from the beginning. */
void visible_forget(struct peer *p)
{
    p->applied = 0;
    p->holds = false;
    p->stuck = false;
}

uint64_t visible_deadline(const struct raft *r, const struct peer *p)
{
    uint64_t due = p->heard_us + VISIBLE_TIMEOUTS * r->election_us;
    if (peer_lags(r, p))
        due = min_u64(due, p->applied_us + VISIBLE_TIMEOUTS * r->election_us);
    return due;
}

static void visible_expire(struct raft *r, struct peer *p)
{
    if (!p->holds || r->now_us < visible_deadline(r, p))
        return;
    p->holds = false;
    p->stuck = r->now_us < p->heard_us + VISIBLE_TIMEOUTS * r->election_us;
}

void visible_update(struct raft *r)
{
    uint64_t visible = min_u64(r->applied, r->commit);
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        struct peer *p = &r->lead.peers[i];
        visible_expire(r, p);
        if (p->holds)
            visible = min_u64(visible, p->applied);
    }
    r->lead.visible = max_u64(r->lead.visible, visible);
}
