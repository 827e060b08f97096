/*
 * eligible.c - whether this node may lead: its disk has room and answers, and its clock is
 * not far ahead of the others' (G2), which they tell with each of their messages.
 */
#include "node_core.h"

static int64_t own_clock_gap(void)
{
    return (int64_t)(clock_real_us() - clock_boot_us());
}

static int compare_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* G2: a clock far ahead of the others' would put its time into the log for ever. A node
 * without a vote has none here either: one that joins could else stop a cluster of one. */
static bool is_clock_sane(struct node *n)
{
    int64_t gaps[LIMIT_MEMBERS];
    size_t count = 0;
    for (size_t i = 0; i < n->peer_count; i++) {
        const struct member *m = members_find(&n->members, n->peers[i].id);
        if (n->peers[i].has_clock && m && m->voter)
            gaps[count++] = n->peers[i].clock_gap_us;
    }
    if (count == 0)
        return true;
    qsort(gaps, count, sizeof(gaps[0]), compare_i64);
    return n->clock_gap_us - gaps[count / 2] < NODE_CLOCK_AHEAD_US;
}

/* This host's clock was set. A leader's messages do not say its clock, and a follower that
 * takes its own for wild by a former one could not be led to: it would stay so for as long
 * as connections live. A pre-vote of the term that is does say it, and is refused. */
static void tell_clock(struct node *n)
{
    for (size_t i = 0; i < n->peer_count; i++) {
        struct peer *p = &n->peers[i];
        if (!p->open || p->full ||
            llabs(n->clock_gap_us - p->told_gap_us) <= NODE_CLOCK_SET_US)
            continue;
        p->told_gap_us = n->clock_gap_us;
        peers_send(n, &(struct raft_message){.type = RAFT_VOTE,
                                             .to = p->id,
                                             .term = raft_term(n->driver.raft),
                                             .pre = true});
    }
}

void eligible_judge(struct node *n)
{
    n->clock_gap_us = own_clock_gap();
    tell_clock(n);
    bool sane = is_clock_sane(n);
    n->clock_wild = !sane;
    bool room = store_has_room(n->store, LIMIT_ENTRY_BYTES) == 0;
    bool eligible = sane && room && !n->log.hung;
    if (eligible == n->eligible)
        return;
    n->eligible = eligible;
    if (!sane)
        log_error(
            "this host's clock is more than an hour ahead of the other nodes': it will "
            "not lead until the clock is set right");
    else if (!room)
        log_error("the disk of %s is full: this node will not lead until there is room",
                  n->directory.path);
    driver_step(n, &(struct raft_event){.type = RAFT_ELIGIBLE, .eligible = eligible});
}

/* By the clock that is never set: when ours is, that shows at once, whoever is silent.
 * What is news is judged before anything else comes of the message; that may step the core,
 * and so end in other peers: `p` is to be found anew. */
void eligible_note_clock(struct node *n, struct peer *p, uint64_t clock_us)
{
    int64_t gap_us = (int64_t)(clock_us - clock_boot_us());
    bool news = !p->has_clock || llabs(gap_us - p->clock_gap_us) > NODE_CLOCK_SET_US;
    p->clock_gap_us = gap_us;
    p->has_clock = true;
    if (news)
        eligible_judge(n);
}

void eligible_watch_clock(struct node *n)
{
    if (llabs(own_clock_gap() - n->clock_gap_us) > NODE_CLOCK_SET_US)
        eligible_judge(n);
}
