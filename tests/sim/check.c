/*
 * check.c - what must hold, seen from outside: beside every append, truncation,
 * application, message and start of every node, and after every event.
 *
 *   V1  a term has one leader, in one life
 *   V2  a leader never truncates
 *   V3  (index, term) names one entry, byte for byte
 *   V4  a new leader's log has what was committed in earlier terms
 *   V5  all apply the same entry at an index, in order
 *   V6  the commit index never goes back; after a restart it names what was committed
 *   V7  term and vote never go back, over restarts too; one vote a term
 *   V8  nothing is applied before a majority has it on disk, and a disk keeps its word
 *   V9  the keydir equals a replay of what is committed, up to what is applied
 *   V10 a request is committed once, whatever is sent again (S2)
 *   V11 one membership change at a time
 *   V12 sessions and members at an index are the same on all nodes
 *   V13 no queue is longer than its bound (check_bounds.c)
 *   V14 a leader has heard from a majority lately (check_leader.c)
 *   V15 timestamps rise along the log; nobody leads with a clock an hour ahead of all
 *
 *   V16 what rotted is repaired in the end (plan.c)
 *   V17 a session ends when its node is dead, not while it lives; nothing is committed
 *       behind its end
 *   V18 the cluster's version never goes back, nor above a member's
 *
 * V9, V12, V25 and V26 (orphans) are in check_state.c, V14, V15 and V17 in check_leader.c,
 * V23 and V24 (locks) in locker.c.
 */
#include "ledger.h"

#include "store_internal.h"

#include <errno.h>

struct seen { /* an entry of a node's log */
    uint64_t term, hash;
};

struct shadow {       /* what a node's log is, over its lives */
    struct seen *log; /* by index */
    size_t capacity;
    uint64_t base, last;
    uint64_t durable;           /* said so, before it died */
    uint64_t sent_term;         /* of messages */
    uint64_t voted_term, voted; /* as messages said */
    uint64_t term, commit;      /* in this life */
    enum raft_role role;
    bool lived;
    uint64_t merges;
    uint64_t config; /* the newest membership in it */
    bool was_installing, was_merging;
};

static struct shadow shadows[SIM_NODES];
static struct {
    uint64_t term, id;
    unsigned life;
} * leaders;
static size_t leader_count, leader_capacity;

static struct shadow *shadow_of(const struct sim_node *n)
{
    return &shadows[n->number];
}

static struct seen *seen_at(struct shadow *s, uint64_t index)
{
    if (index >= s->capacity) {
        size_t more = max_u64(index + 1, 2 * s->capacity + 256);
        s->log = realloc(s->log, more * sizeof(*s->log));
        ensure(s->log);
        memset(s->log + s->capacity, 0, (more - s->capacity) * sizeof(*s->log));
        s->capacity = more;
    }
    return &s->log[index];
}

/* ---- What is committed ---------------------------------------------------------------
 */

static uint64_t durable_of(struct sim_node *n)
{
    return n->up && n->node && n->node->driver.raft ? raft_durable(n->node->driver.raft)
                                                    : shadow_of(n)->durable;
}

static uint64_t claim_of(const struct sim_node *n)
{
    return n->up && n->node && n->node->driver.raft ? raft_claim(n->node->driver.raft)
                                                    : 0;
}

static bool has_on_disk(struct sim_node *n, uint64_t index, uint64_t hash)
{
    struct shadow *s = shadow_of(n);
    uint64_t durable = durable_of(n);
    if (index <= s->base)
        return true;
    /* Behind a hole it is there, and the node claims it. */
    if (index > s->last && index <= claim_of(n))
        return seen_at(s, index)->hash == hash;
    return index <= durable && index <= s->last && seen_at(s, index)->hash == hash;
}

static bool majority_has(const struct members *members, uint64_t index, uint64_t hash)
{
    unsigned voters = 0, have = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        if (!members->list[i].voter)
            continue;
        struct sim_node *n = sim_of_id(members->list[i].id);
        voters++;
        have += n && has_on_disk(n, index, hash);
    }
    return voters > 0 && 2 * have > voters;
}

/* V8. The membership in force at the leader may be one change newer than here. */
static void check_majority(struct sim_node *n, uint64_t index, uint64_t hash)
{
    if (majority_has(&n->node->members, index, hash) ||
        majority_has(&n->node->members_applied, index, hash))
        return;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct sim_node *m = &sim_nodes[i];
        if (m->up && m->node && m->node->driver.raft &&
            majority_has(&m->node->members, index, hash))
            return;
    }
    sim_fail("V8: %s applies %llu, which no majority has on disk", n->name,
             (unsigned long long)index);
}

static uint64_t members_since;

uint64_t verify_members_since(void)
{
    return members_since;
}

bool verify_is_changing(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made && !sim_nodes[i].gone && shadows[i].config > ledger_last())
            return true;
    return false;
}

static void note_members(uint64_t index, const struct store_bytes *bytes)
{
    static uint32_t before;
    struct members members;
    uint32_t voters = 0;
    if (!entry_config(bytes->data, bytes->length, &members))
        return;
    static uint16_t version;
    members_since = members_since ? members_since : index;
    if (version && members.version > version) {
        fault(version_raised);
        story("the cluster's version is %u from %llu on", members.version,
              (unsigned long long)index);
    }
    if (members.version < version)
        sim_fail("V18: the cluster's version goes back");
    version = members.version;
    for (uint32_t i = 0; i < members.count; i++)
        if (members.list[i].version < version)
            sim_fail("V18: the cluster's version is above that of %s",
                     members.list[i].name);
    for (uint32_t i = 0; i < members.count; i++)
        voters += members.list[i].voter;
    if (before && voters > before)
        fault(member_promoted);
    before = voters;
    story("members as of %llu: %u voters of %u", (unsigned long long)index, voters,
          members.count);
}

static void decide(struct sim_node *n, const struct store_entry *e,
                   const struct store_bytes *bytes, uint64_t hash)
{
    check_majority(n, e->index, hash);
    ledger_decide(e, bytes->data, bytes->length, hash);
    ledger_at(e->index)->by_term = raft_term(n->node->driver.raft);
    note_members(e->index, bytes);
}

static void applied(struct sim_node *n, const struct store_entry *e,
                    const struct store_bytes *bytes)
{
    uint64_t hash = ledger_hash(bytes->data, bytes->length);
    struct shadow *s = shadow_of(n);
    if (e->index > s->last || seen_at(s, e->index)->hash != hash)
        sim_fail("V5: %s applies %llu, which is not in its log", n->name,
                 (unsigned long long)e->index);
    if (e->index == ledger_last() + 1)
        decide(n, e, bytes, hash);
    else if (e->index > ledger_last() || ledger_at(e->index)->hash != hash)
        sim_fail("V5: %s applies another entry %llu than was committed", n->name,
                 (unsigned long long)e->index);
}

/* ---- Hooks (--wrap)
 * -------------------------------------------------------------------- */

int __real_store_append(struct store *s, struct store_bytes *entry, bool ahead);
int __wrap_store_append(struct store *s, struct store_bytes *entry, bool ahead);
int __real_store_truncate(struct store *s, uint64_t index, uint64_t generation);
int __wrap_store_truncate(struct store *s, uint64_t index, uint64_t generation);
int __real_store_apply(struct store *s, uint64_t index, struct store_entry *ret_entry,
                       struct store_bytes **ret_bytes);
int __wrap_store_apply(struct store *s, uint64_t index, struct store_entry *ret_entry,
                       struct store_bytes **ret_bytes);
int __real_store_open(struct store **ret, const struct store_options *options,
                      struct store_recovery *recovery, char error[STORE_ERROR_BYTES]);
int __wrap_store_open(struct store **ret, const struct store_options *options,
                      struct store_recovery *recovery, char error[STORE_ERROR_BYTES]);
struct store_done __real_store_finish_job(struct store *s, struct store_job *job);
struct store_done __wrap_store_finish_job(struct store *s, struct store_job *job);

static void note_entry(struct shadow *s, const uint8_t *data, size_t length, bool leads,
                       bool alone)
{
    struct store_entry e;
    ensure(store_entry_decode(data, length, &e) == 0);
    uint64_t hash = ledger_hash(data, length);
    *seen_at(s, e.index) = (struct seen){e.term, hash};
    s->last = e.index;
    ledger_write(&e, hash, alone);
    struct members members;
    if (!entry_config(data, length, &members))
        return;
    uint64_t committed = ledger_last();
    if (leads) /* what is committed is applied in a moment, and judged then (V8) */
        committed = max_u64(committed, raft_commit(sim_at_node->node->driver.raft));
    if (s->config > committed && s->config < e.index && leads) /* V11 */
        sim_fail("V11: a membership change at %llu, and that of %llu is not committed",
                 (unsigned long long)e.index, (unsigned long long)s->config);
    s->config = e.index;
    sim_at_node->config_us = sim_now;
}

int __wrap_store_append(struct store *s, struct store_bytes *entry, bool ahead)
{
    int ret = __real_store_append(s, entry, ahead);
    struct sim_node *n = sim_at_node;
    if (ret < 0 || !n)
        return ret;
    note_entry(shadow_of(n), entry->data, entry->length, ahead,
               n->node->members.count == 1);
    if (ahead) {
        struct store_entry e;
        ensure(store_entry_decode(entry->data, entry->length, &e) == 0);
        trace("appends %llu: request %llu of session %llu", (unsigned long long)e.index,
              (unsigned long long)e.request, (unsigned long long)e.session);
    }
    return ret;
}

int __wrap_store_truncate(struct store *s, uint64_t index, uint64_t generation)
{
    struct sim_node *n = sim_at_node;
    struct shadow *shadow = shadow_of(n);
    if (node_is_leader(n->node))
        sim_fail("V2: %s leads, and drops entries after %llu", n->name,
                 (unsigned long long)index);
    if (index < store_applied(s))
        sim_fail("V5: %s drops what it has applied", n->name);
    for (uint64_t i = index + 1; i <= shadow->last && i <= ledger_last(); i++)
        if (seen_at(shadow, i)->hash == ledger_at(i)->hash)
            sim_fail("V8: %s drops %llu, which was committed", n->name,
                     (unsigned long long)i);
    shadow->last = min_u64(shadow->last, index);
    if (shadow->config > index)
        shadow->config = 0;
    story("drops entries after %llu", (unsigned long long)index);
    plan_tempt(n, 3);
    return __real_store_truncate(s, index, generation);
}

int __wrap_store_apply(struct store *s, uint64_t index, struct store_entry *ret_entry,
                       struct store_bytes **ret_bytes)
{
    int ret = __real_store_apply(s, index, ret_entry, ret_bytes);
    if (ret == 0 && sim_at_node && ret_bytes)
        applied(sim_at_node, ret_entry, *ret_bytes);
    return ret;
}

struct store_done __wrap_store_finish_job(struct store *s, struct store_job *job)
{
    struct store_done done = __real_store_finish_job(s, job);
    struct sim_node *n = sim_at_node;
    if (!n)
        return done;
    fault_counts[FAULT_record_repaired] += done.repaired;
    if (done.installed) {
        struct store_manifest m;
        struct shadow *shadow = shadow_of(n);
        ensure(store_manifest(s, &m));
        fault(snapshot_installed);
        if (m.merged_index > ledger_last() ||
            ledger_at(m.merged_index)->term != m.merged_term)
            sim_fail("V5: %s installs what was not committed", n->name);
        story("has installed a snapshot");
        trace("up to %llu, made at %llu", (unsigned long long)m.merged_index,
              (unsigned long long)m.applied_index);
        shadow->base = shadow->last = m.merged_index;
    }
    return done;
}

/* ---- Lives ------------------------------------------------------------------------- */

/* V3: what it comes back with was written, by whatever life of whoever; perhaps it is
 * from before a truncation that did not reach the disk. The chain names all that is
 * before. */
static void recover_shadow(struct sim_node *n, struct shadow *s, struct store *store,
                           const struct store_recovery *r)
{
    uint64_t term, timestamp, index = r->last_index;
    uint32_t crc;
    store_chain(store, &term, &crc, &timestamp);
    if (index > r->base_index) {
        const struct written *w = ledger_written(index, term);
        if (!w || w->crc != crc)
            sim_fail("V3: %s recovers another entry %llu than was written", n->name,
                     (unsigned long long)index);
    }
    for (; index > r->base_index && index > s->base; index--) {
        const struct written *w = ledger_written(index, term);
        ensure(w);
        *seen_at(s, index) = (struct seen){term, w->hash};
        term = w->prev_term;
    }
}

static void check_recovered(struct sim_node *n, struct store *store,
                            const struct store_recovery *r)
{
    struct shadow *s = shadow_of(n);
    uint64_t proven = max_u64(r->last_index, r->claim_index);
    if (r->term < s->sent_term || r->term < s->voted_term)
        sim_fail("V7: %s comes back in term %llu, and has spoken in %llu", n->name,
                 (unsigned long long)r->term,
                 (unsigned long long)max_u64(s->sent_term, s->voted_term));
    if (s->voted && r->term == s->voted_term && r->vote != s->voted)
        sim_fail("V7: %s has forgotten its vote of term %llu", n->name,
                 (unsigned long long)r->term);
    if (s->lived && r->base_index <= s->last && proven < s->durable)
        sim_fail("V8: %s said that %llu was durable, and comes back with %llu (claims "
                 "%llu)",
                 n->name, (unsigned long long)s->durable,
                 (unsigned long long)r->last_index, (unsigned long long)r->claim_index);
    if (r->commit > ledger_last())
        sim_fail("V6: %s recovers %llu as committed", n->name,
                 (unsigned long long)r->commit);
    /* The power may go between the rename that installs a snapshot and its effect here.
     */
    if (s->lived && r->base_index > s->last) {
        if (r->base_index > ledger_last() ||
            ledger_at(r->base_index)->term != r->base_term)
            sim_fail("V5: %s has installed what was not committed", n->name);
        s->base = s->last = r->base_index;
    }
    recover_shadow(n, s, store, r);
    if (r->commit > r->base_index && s->lived && r->commit > s->base &&
        ledger_last() >= r->commit &&
        seen_at(s, r->commit)->hash != ledger_at(r->commit)->hash)
        sim_fail("V6: %s recovers %llu as committed, which is another entry", n->name,
                 (unsigned long long)r->commit);
    s->base = max_u64(s->base, r->base_index);
    s->last = r->last_index;
    if (s->config > s->last)
        s->config = 0; /* the power went before it was synced */
    if (r->claim_index)
        story("comes back with a hole: %llu of %llu", (unsigned long long)r->last_index,
              (unsigned long long)r->claim_index);
}

int __wrap_store_open(struct store **ret, const struct store_options *options,
                      struct store_recovery *recovery, char error[STORE_ERROR_BYTES])
{
    int rc = __real_store_open(ret, options, recovery, error);
    struct sim_node *n = sim_at_node;
    if (!n)
        return rc;
    if (rc == 0) {
        check_recovered(n, *ret, recovery);
        struct shadow *s = shadow_of(n);
        s->lived = true;
        s->durable = recovery->last_index; /* recovery has synced it (G4) */
        s->term = recovery->term;
        s->commit = recovery->commit;
        s->role = RAFT_FOLLOWER;
        s->merges = 0;
        trace("recovered: term %llu, base %llu, last %llu, commit %llu",
              (unsigned long long)recovery->term,
              (unsigned long long)recovery->base_index,
              (unsigned long long)recovery->last_index,
              (unsigned long long)recovery->commit);
    } else if (rc == -EBADMSG && !n->bad_disk) {
        sim_fail("V8: %s had no fault on its disk, and: %s", n->name, error);
    }
    return rc;
}

void verify_merges(struct sim_node *n)
{
    struct store_stats stats;
    struct shadow *s = shadow_of(n);
    store_stats(n->node->store, &stats);
    fault_counts[FAULT_merge_done] += stats.merges - s->merges;
    s->merges = stats.merges;
}

void verify_killed(struct sim_node *n)
{
    struct shadow *s = shadow_of(n);
    verify_forget_state(n);
    if (!n->node || !n->node->driver.raft || !n->node->store)
        return;
    s->durable = min_u64(raft_durable(n->node->driver.raft), s->last);
    verify_merges(n);
    if (n->node->merge.out)
        fault(killed_in_merge);
    if (n->node->snapshot && snapshot_is_installing(n->node)) {
        fault(killed_in_install);
        s->durable = 0; /* of the former log, or of the new one */
    }
}

/* ---- Messages: V7 ------------------------------------------------------------------ */

static void note_vote(struct sim_node *n, uint64_t term, uint64_t whom)
{
    struct shadow *s = shadow_of(n);
    if (term < s->voted_term)
        sim_fail("V7: %s votes in term %llu after %llu", n->name,
                 (unsigned long long)term, (unsigned long long)s->voted_term);
    if (term == s->voted_term && s->voted && s->voted != whom)
        sim_fail("V7: %s votes twice in term %llu", n->name, (unsigned long long)term);
    s->voted_term = term;
    s->voted = whom;
}

void verify_sent(struct sim_node *n, uint8_t type, const uint8_t *data, size_t length,
                 uint64_t to)
{
    struct raft_message m;
    const uint8_t *rest;
    size_t rest_length;
    uint64_t clock_us;
    if (type < WIRE_RAFT_VOTE || type > WIRE_RAFT_SNAPSHOT)
        return;
    if (message_decode(type, data, length, &m, &rest, &rest_length, &clock_us) < 0)
        sim_fail("%s sends what cannot be read", n->name);
    if (m.pre)
        return;
    struct shadow *s = shadow_of(n);
    if (m.type == RAFT_VOTE)
        note_vote(n, m.term, n->id);
    if (m.type == RAFT_VOTE_REPLY && m.granted)
        note_vote(n, m.term, to);
    s->sent_term = max_u64(s->sent_term, m.term);
    if (m.type == RAFT_APPEND_REPLY && m.ok &&
        m.match > raft_durable(n->node->driver.raft))
        sim_fail("V8: %s says %llu is durable, and %llu is", n->name,
                 (unsigned long long)m.match,
                 (unsigned long long)raft_durable(n->node->driver.raft));
}

/* ---- After each event ----------------------------------------------------------------
 */

/* Nobody else is asked: it may lead before its hard state is on disk, and again in that
 * term when that was lost with all that came of it. */
static bool is_alone(const struct sim_node *n)
{
    return n->node->members.count == 1;
}

static void note_leader(struct sim_node *n, uint64_t term) /* V1 */
{
    for (size_t i = leader_count; i-- > 0;)
        if (leaders[i].term == term) {
            if (leaders[i].id != n->id || (leaders[i].life != n->life && !is_alone(n)))
                sim_fail("V1: term %llu has a second leader, %s",
                         (unsigned long long)term, n->name);
            return;
        }
    if (leader_count == leader_capacity) {
        leader_capacity = 2 * leader_capacity + 64;
        leaders = realloc(leaders, leader_capacity * sizeof(*leaders));
        ensure(leaders);
    }
    leaders[leader_count].term = term;
    leaders[leader_count].id = n->id;
    leaders[leader_count++].life = n->life;
    sim_at_node = n;
    story("leads in term %llu", (unsigned long long)term);
    sim_at_node = NULL;
}

static void check_complete(struct sim_node *n, uint64_t term) /* V4 */
{
    struct shadow *s = shadow_of(n);
    uint64_t index = ledger_last();
    while (index > 1 && ledger_at(index)->by_term >= term)
        index--; /* in its own term, or later: that leader need not have it */
    if (index <= 1 || index <= s->base)
        return;
    if (index > s->last || seen_at(s, index)->hash != ledger_at(index)->hash)
        sim_fail("V4: %s leads in term %llu without %llu of term %llu", n->name,
                 (unsigned long long)term, (unsigned long long)index,
                 (unsigned long long)ledger_at(index)->term);
}

void verify_step(void)
{
    struct sim_node *n = sim_last_node;
    if (!n || !n->up || !n->node || !n->node->driver.raft || !n->node->store)
        return;
    if (loop_has_ended(n))
        return; /* it is being taken down: what is there of it says nothing */
    struct raft *r = n->node->driver.raft;
    struct shadow *s = shadow_of(n);
    uint64_t term = raft_term(r), commit = raft_commit(r);
    enum raft_role role = raft_role(r);
    if (term < s->term)
        sim_fail("V7: the term of %s goes back", n->name);
    if (commit < s->commit)
        sim_fail("V6: the commit index of %s goes back", n->name);
    if (role == RAFT_LEADER && (s->role != RAFT_LEADER || s->term != term)) {
        note_leader(n, term);
        check_complete(n, term);
        n->leads_us = sim_now;
    }
    s->term = term;
    s->commit = commit;
    s->role = role;
    s->durable = min_u64(raft_durable(r), s->last);
    if (raft_durable(r) > n->node->store->durable && !s->was_installing)
        sim_fail("V8: the core of %s takes %llu for durable, its store %llu", n->name,
                 (unsigned long long)raft_durable(r),
                 (unsigned long long)n->node->store->durable);
    verify_keydir(n);
    verify_bounds(n);
    if (role == RAFT_LEADER)
        verify_leader(n);
    if (sim_steps % 256 == 0)
        raft_check(r);
    bool installing = snapshot_is_installing(n->node);
    if (installing && !s->was_installing)
        plan_tempt(n, 3);
    s->was_installing = installing;
    if (n->node->merge.out && !s->was_merging)
        plan_tempt(n, 20);
    s->was_merging = n->node->merge.out != NULL;
}

/* The first entry, as written by sim_format(). */
void verify_first(const uint8_t *data, size_t length)
{
    struct store_entry e;
    ensure(store_entry_verify(data, length, &e) == 0);
    uint64_t hash = ledger_hash(data, length);
    ledger_decide(&e, data, length, hash);
    ledger_write(&e, hash, false);
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (sim_nodes[i].made) {
            *seen_at(&shadows[i], 1) = (struct seen){e.term, hash};
            shadows[i].last = 1;
            shadows[i].lived = true;
        }
}
