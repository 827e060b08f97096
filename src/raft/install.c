/*
 * install.c - where the log begins and what lies beyond its end: a merge moves the base,
 * a snapshot replaces log and state, and a claim is what is known to have been committed
 * here though the log does not reach it.
 */
#include <errno.h>

#include "raft_internal.h"

void claim_note(struct raft *r, uint64_t index, uint64_t term)
{
    if (index > r->claim_index) {
        r->claim_index = index;
        r->claim_term = term;
    }
    /* A log that ends in a later term is the more current one: what was claimed beyond it
     * was never committed, for the leader of that term would have it. */
    if (r->claim_index <= runs_last_index(&r->log) ||
        r->claim_term < runs_last_term(&r->log))
        r->claim_index = r->claim_term = 0;
}

/* What was merged was applied, even where a restart has not told so yet. */
int compacted_handle(struct raft *r, const struct raft_event *e)
{
    if (e->index <= r->log.base_index)
        return 0; /* a snapshot came first */
    if (e->index > min_u64(r->commit, r->durable))
        return -EINVAL;
    runs_compact(&r->log, e->index);
    r->applied = max_u64(r->applied, e->index);
    if (r->role == RAFT_LEADER)
        peers_compact(r);
    return 0;
}

/* Whether the snapshot lies beyond all that must not be lost. Entries after (index, term)
 * in a log that has it may be counted in a majority: such a log needs no snapshot. One
 * that has another term there, or ends before, holds after its commit nothing that
 * counts. */
static bool snapshot_is_ahead(const struct raft *r, const struct raft_event *e)
{
    return e->index > r->commit && e->index > r->follow.verified &&
           e->index >= r->config_index && runs_term_of(&r->log, e->index) != e->term;
}

bool raft_may_install(const struct raft *r, const struct raft_event *e)
{
    if (r->role != RAFT_FOLLOWER || !e->index || !snapshot_is_ahead(r, e))
        return false;
    return position_is_possible(e->index, e->term, r->term) &&
           position_is_possible(e->claim_index, e->claim_term, r->term) && e->config &&
           config_valid(e->config) && e->config_index <= e->index;
}

int installed_handle(struct raft *r, const struct raft_event *e)
{
    if (!raft_may_install(r, e))
        return -EINVAL;
    runs_restart(&r->log, e->index, e->term);
    r->commit = r->applied = r->durable = e->index;
    r->generation++; /* G3: what the former log's disk still says does not count */
    r->config = *e->config;
    r->config_index = e->config_index;
    r->pending_config_index = 0;
    claim_note(r, e->claim_index, e->claim_term);
    if (r->follow.leader) {
        r->follow.verified = e->index; /* every leader has what is committed */
        append_reply(r);
    }
    return 0;
}
