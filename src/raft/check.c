/*
 * check.c - the invariants of README.md, each by its number.
 */
#include "raft_internal.h"

/* Each byte equals the next: at every step, so in the library's strides. */
static bool is_zero(const void *data, size_t length)
{
    const uint8_t *at = data;
    return at[0] == 0 && memcmp(at, at + 1, length - 1) == 0;
}

static void check_indexes(const struct raft *r) /* R2 */
{
    uint64_t last = runs_last_index(&r->log);
    ensure(r->log.base_index <= r->commit && r->commit <= last);
    ensure(r->log.base_index <= r->durable && r->durable <= last);
    ensure(r->log.base_index <= r->applied && r->applied <= r->commit);
    ensure(runs_last_term(&r->log) <= r->term);
}

static void check_roles(const struct raft *r) /* R3, R4 */
{
    if (r->role != RAFT_FOLLOWER)
        ensure(is_zero(&r->follow, sizeof(r->follow)));
    if (r->role != RAFT_CANDIDATE)
        ensure(is_zero(&r->campaign, sizeof(r->campaign)));
    if (r->role != RAFT_LEADER)
        ensure(is_zero(&r->lead, sizeof(r->lead)));
    if (r->role == RAFT_LEADER || (r->role == RAFT_CANDIDATE && !r->campaign.pre))
        ensure(r->term && r->vote == r->id);
    ensure(r->follow.leader != r->id);
    ensure(r->follow.verified <= runs_last_index(&r->log));
    ensure(r->follow.leader ||
           !(r->follow.verified || r->follow.round || r->follow.floor));
}

static void check_claim(const struct raft *r) /* R10 */
{
    ensure(!r->claim_index == !r->claim_term && r->claim_term <= r->term);
    ensure(!r->claim_index || (r->claim_index > runs_last_index(&r->log) &&
                               r->claim_term >= runs_last_term(&r->log)));
    ensure(!r->claim_index || r->role == RAFT_FOLLOWER);
}

static void check_configs(const struct raft *r) /* R5 */
{
    uint64_t last = runs_last_index(&r->log);
    ensure(config_valid(&r->config) && r->config_index <= last);
    if (!r->pending_config_index)
        return;
    ensure(config_valid(&r->pending_config));
    ensure(r->pending_config_index > r->config_index);
    ensure(r->pending_config_index > r->commit && r->pending_config_index <= last);
}

static void check_peer_mode(const struct raft *r, const struct peer *p) /* R6 */
{
    uint64_t base = r->log.base_index;
    ensure(p->next > base);
    if (p->mode == PEER_PROBE)
        ensure(p->match <= p->probe && p->probe < p->next && base <= p->probe);
    if (p->mode == PEER_SNAPSHOT)
        ensure(p->match < base && p->probe == base && p->next == base + 1 && !p->holds);
}

static void check_peer(const struct raft *r, const struct peer *p) /* R6, R8 */
{
    uint64_t last = runs_last_index(&r->log);
    ensure(config_find(config_in_force(r), p->id) && p->id != r->id);
    ensure(p->match < p->next && p->next <= last + 1);
    check_peer_mode(r, p);
    if (p->sending)
        ensure(p->sending_prev < p->sending_last && p->sending_last <= last);
    ensure(!(p->sending && p->full));
    ensure(p->round <= r->lead.round);
    ensure(!p->holds || link_is_up(r, p->id));
    ensure(!p->beat_due && !p->tell_due);
}

static void check_leadership(const struct raft *r) /* R6, R7, R8, R9 */
{
    const struct leadership *l = &r->lead;
    const struct raft_config *c = config_in_force(r);
    bool member = config_find(c, r->id);
    ensure(l->peer_count == c->count - member);
    for (uint32_t i = 0; i < l->peer_count; i++)
        check_peer(r, &l->peers[i]);
    uint64_t last = runs_last_index(&r->log);
    ensure(last >= l->elected_last);
    uint64_t first = max_u64(l->elected_last + 1, r->log.base_index);
    ensure(last == l->elected_last || runs_term_of(&r->log, first) == r->term);
    ensure(r->commit == l->elected_commit || runs_term_of(&r->log, r->commit) == r->term);
    ensure(l->confirmed_round <= l->round);
    ensure(l->visible <= r->applied);
    ensure(!l->transfer_to || config_votes(c, l->transfer_to));
    ensure(l->transfer_to || !(l->transfer_asked || l->resign));
}

void check_state(const struct raft *r)
{
    check_indexes(r);
    check_roles(r);
    check_configs(r);
    check_claim(r);
    if (r->role == RAFT_LEADER)
        check_leadership(r);
}

static void check_runs(const struct runs *l) /* R1 */
{
    uint64_t index = l->base_index, term = 0;
    ensure(l->count <= l->capacity);
    ensure(!l->count || l->at[0].term >= l->base_term);
    for (size_t i = 0; i < l->count; i++) {
        ensure(l->at[i].last > index && l->at[i].term > term);
        index = l->at[i].last;
        term = l->at[i].term;
    }
}

void raft_check(const struct raft *r)
{
    check_runs(&r->log);
    check_state(r);
}
