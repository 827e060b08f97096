/*
 * config.c - membership: which configuration is in force, what a change may be, and the
 * one function that says what a majority has reached.
 *
 * The newest configuration in the log is in force, committed or not (section 4.1). Since
 * a leader proposes one only after the former is committed, two are enough: `config`,
 * which no truncation can reach, and `pending_config` after it.
 */
#include "raft_internal.h"

const struct raft_member *config_find(const struct raft_config *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->members[i].id == id)
            return &c->members[i];
    }
    return NULL;
}

bool config_votes(const struct raft_config *c, uint64_t id)
{
    const struct raft_member *m = config_find(c, id);
    return m && m->voter;
}

bool config_valid(const struct raft_config *c)
{
    if (c->count > LIMIT_MEMBERS)
        return false;
    uint32_t voters = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        if (!c->members[i].id || config_find(c, c->members[i].id) != &c->members[i])
            return false;
        voters += c->members[i].voter;
    }
    return voters > 0;
}

/* Voters of `a` that do not vote in `b`. */
static uint32_t config_voters_lost(const struct raft_config *a,
                                   const struct raft_config *b)
{
    uint32_t lost = 0;
    for (uint32_t i = 0; i < a->count; i++)
        lost += a->members[i].voter && !config_votes(b, a->members[i].id);
    return lost;
}

bool config_is_near(const struct raft_config *a, const struct raft_config *b)
{
    return config_voters_lost(a, b) + config_voters_lost(b, a) <= 1;
}

const struct raft_config *config_in_force(const struct raft *r)
{
    return r->pending_config_index ? &r->pending_config : &r->config;
}

bool config_is_sole_voter(const struct raft *r)
{
    const struct raft_config *c = config_in_force(r);
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->members[i].voter && c->members[i].id != r->id)
            return false;
    }
    return config_votes(c, r->id);
}

void config_adopt(struct raft *r, const struct raft_config *c, uint64_t index)
{
    ensure(index > r->config_index && index > r->pending_config_index);
    if (r->pending_config_index) {
        r->config = r->pending_config;
        r->config_index = r->pending_config_index;
    }
    r->pending_config = *c;
    r->pending_config_index = index;
}

void config_truncate(struct raft *r, uint64_t to)
{
    ensure(to >= r->config_index);
    if (r->pending_config_index > to)
        r->pending_config_index = 0;
}

void config_commit(struct raft *r)
{
    if (!r->pending_config_index || r->pending_config_index > r->commit)
        return;
    r->config = r->pending_config;
    r->config_index = r->pending_config_index;
    r->pending_config_index = 0;
}

uint64_t quorum_value(uint64_t *values, uint32_t count)
{
    ensure(count);
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t j = i; j && values[j - 1] < values[j]; j--) {
            uint64_t lower = values[j - 1];
            values[j - 1] = values[j];
            values[j] = lower;
        }
    }
    return values[count / 2];
}

uint64_t quorum_of(const struct raft *r, uint64_t own,
                   uint64_t (*of)(const struct peer *))
{
    const struct raft_config *c = config_in_force(r);
    uint64_t values[LIMIT_MEMBERS];
    uint32_t count = 0;
    if (config_votes(c, r->id))
        values[count++] = own;
    for (uint32_t i = 0; i < r->lead.peer_count; i++) {
        const struct peer *p = &r->lead.peers[i];
        if (config_votes(c, p->id))
            values[count++] = of(p);
    }
    return quorum_value(values, count);
}
