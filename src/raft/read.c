/*
 * read.c - rounds, which prove that this leader is not deposed (ReadIndex, section 6.4),
 * and `visible`, up to which every member in reach has applied.
 *
 * V, whom `visible` waits for: at an election every connected member, whose applied index
 * is not known yet and counts as 0. A member leaves V when it disconnects, needs a snapshot,
 * is silent or lags for VISIBLE_TIMEOUTS without applying anything. It enters when an answer
 * shows that it lacks at most VISIBLE_SLACK entries, and no snapshot; after leaving for its
 * lag, not before it has applied something.
 *
 * A member that applies, but always later than all others, would slow everybody for ever: a
 * disk that is slow, a host that is starved. So what it alone keeps the others waiting is
 * reckoned up, but for the first moments of each time; an eighth of the time is forgiven.
 * Whose account exceeds VISIBLE_TIMEOUTS leaves V until half of it is forgiven.
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
    if (p->holds || p->stuck || p->slow || p->mode == PEER_SNAPSHOT ||
        !link_is_up(r, p->id))
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
    p->late_index = 0;
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

/* The longest that a member may be late without having it reckoned. */
static uint64_t late_free_us(const struct raft *r)
{
    return 2 * r->election_us / 3;
}

static uint64_t late_limit_us(const struct raft *r)
{
    return VISIBLE_TIMEOUTS * r->election_us;
}

static void late_forgive(struct raft *r, struct peer *p)
{
    uint64_t forgiven = (r->now_us - p->late_spent_at_us) / VISIBLE_FORGIVEN;
    p->late_spent_at_us += forgiven * VISIBLE_FORGIVEN;
    p->late_spent_us -= min_u64(p->late_spent_us, forgiven);
}

/* What it is late by now is over the free time by so much. */
static uint64_t late_running_us(const struct raft *r, const struct peer *p)
{
    uint64_t us = p->late_index ? r->now_us - p->late_us : 0;
    return us - min_u64(us, late_free_us(r));
}

/* `others`: what all the others in V have applied. */
static void late_judge(struct raft *r, struct peer *p, uint64_t others)
{
    late_forgive(r, p);
    if (p->late_index && p->applied >= p->late_index) {
        uint64_t spent = p->late_spent_us + late_running_us(r, p);
        p->late_spent_us = min_u64(spent, late_limit_us(r));
        p->late_index = 0;
    }
    if (!p->late_index && p->applied < others) {
        p->late_index = others;
        p->late_us = r->now_us;
    }
    uint64_t account = p->late_spent_us + late_running_us(r, p);
    if (account >= late_limit_us(r)) {
        p->slow = true;
        p->holds = false;
    } else if (account < late_limit_us(r) / 2) {
        p->slow = false;
    }
}

/* Who is out of reach is late for a reason of its own. */
static bool is_judged(const struct raft *r, const struct peer *p)
{
    return p->mode != PEER_SNAPSHOT && link_is_up(r, p->id) && !p->stuck;
}

static void late_judge_all(struct raft *r)
{
    uint64_t least = min_u64(r->applied, r->commit), second = least;
    const struct peer *last = NULL; /* of all in V */
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        const struct peer *p = &r->lead.peers[i];
        if (!p->holds)
            continue;
        if (p->applied < least) {
            second = least;
            least = p->applied;
            last = p;
        } else {
            second = min_u64(second, p->applied);
        }
    }
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        struct peer *p = &r->lead.peers[i];
        if (is_judged(r, p))
            late_judge(r, p, p == last ? second : least);
        else
            p->late_index = 0;
    }
}

void visible_update(struct raft *r)
{
    uint64_t visible = min_u64(r->applied, r->commit);
    late_judge_all(r);
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        struct peer *p = &r->lead.peers[i];
        visible_expire(r, p);
        if (p->holds)
            visible = min_u64(visible, p->applied);
    }
    r->lead.visible = max_u64(r->lead.visible, visible);
}
