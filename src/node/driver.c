/*
 * driver.c - steps the consensus core and does what its updates say, in the order that
 * raft.h demands.
 */
#include "node_core.h"

#include <errno.h>

bool node_is_leader(const struct node *n)
{
    return raft_role(n->driver.raft) == RAFT_LEADER;
}

bool node_has_quorum(const struct node *n)
{
    return raft_has_quorum(n->driver.raft, node_now());
}

static void note_members(struct node *n, const struct members *members)
{
    n->members = *members;
    peers_refresh(n);
}

/* ---- What an update says ----------------------------------------------------------- */

/* The newest membership beyond what is applied, from the entries that are in memory. */
static void find_newest_config(struct node *n, struct members *ret)
{
    for (uint64_t i = store_applied(n->store) + 1; i <= store_last_index(n->store); i++) {
        struct store_bytes *b = store_entry_cached(n->store, i);
        if (b)
            entry_config(b->data, b->length, ret);
        store_bytes_unref(b);
    }
}

static void do_truncate(struct node *n, const struct raft_update *u)
{
    log_info("dropping entries after %llu, which were never committed",
             (unsigned long long)u->truncate_to);
    node_must(store_truncate(n->store, u->truncate_to, u->generation), "truncating");
    struct members members = n->members_applied;
    find_newest_config(n, &members);
    note_members(n, &members);
}

static void append_received(struct node *n, const struct raft_update *u)
{
    struct driver *d = &n->driver;
    for (size_t i = 0; i < d->received_count; i++) {
        const struct received_entry *e = &d->received[i];
        if (e->entry.index < u->append_first || e->entry.index > u->append_last)
            continue;
        if (!store_continues(n->store, &e->entry))
            log_fatal(
                "entry %llu of the leader does not continue the log of this node, "
                "though their terms agree: the two have diverged; remove this node's "
                "data directory and join again",
                (unsigned long long)e->entry.index);
        struct store_bytes *bytes = store_bytes_of(e->data, e->entry.length);
        node_must(bytes ? 0 : -ENOMEM, "appending");
        node_must(store_append(n->store, bytes, false), "appending");
        queue_note(n, QUEUE_LOG, store_unwritten_bytes(n->store));
        store_bytes_unref(bytes);
        struct members members;
        if (entry_config(e->data, e->entry.length, &members))
            note_members(n, &members);
    }
}

/* While a hard state is being written no message may leave (raft.h, duty 1). */
static void hold(struct node *n, const struct raft_message *m)
{
    struct driver *d = &n->driver;
    if (m->type == RAFT_APPEND && m->last > m->prev_index) {
        driver_step(n, &(struct raft_event){
                           .type = RAFT_SENT, .peer = m->to, .index = m->prev_index});
        return;
    }
    if (d->held_count == DRIVER_HELD) {
        queue_wait(n, QUEUE_HELD); /* it is lost, as any message may be */
        return;
    }
    d->held[d->held_count++] = *m;
    queue_note(n, QUEUE_HELD, d->held_count);
}

static void release_held(struct node *n)
{
    struct driver *d = &n->driver;
    for (size_t i = 0; i < d->held_count; i++)
        peers_send(n, &d->held[i]);
    d->held_count = 0;
    for (size_t i = 0; i < n->peer_count; i++)
        driver_step(n, &(struct raft_event){
                           .type = RAFT_SENT, .peer = n->peers[i].id, .index = 0});
}

static void note_role(struct node *n)
{
    struct driver *d = &n->driver;
    enum raft_role role = raft_role(d->raft);
    uint64_t term = raft_term(d->raft), leader = raft_leader(d->raft);
    bool was_leader = d->role == RAFT_LEADER;
    if (was_leader && (role != RAFT_LEADER || term != d->term))
        leader_end(n);
    if (role == RAFT_LEADER)
        peers_lead(n);
    bool changed = leader != d->leader || term != d->term;
    if (changed && leader)
        log_info("term %llu, leader %016llx", (unsigned long long)term,
                 (unsigned long long)leader);
    else if (changed)
        log_info("term %llu, no leader", (unsigned long long)term);
    d->role = role;
    d->term = term;
    d->leader = leader;
    node_role_changed(n);
}

static void set_deadline(struct node *n, uint64_t deadline_us)
{
    uint64_t now = node_now();
    uint64_t wait_us = deadline_us > now ? deadline_us - now : 0;
    struct timeval t = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};
    event_add(n->driver.deadline, &t);
}

static void execute(struct node *n, const struct raft_update *u)
{
    struct driver *d = &n->driver;
    if (u->hard_state_changed) {
        node_must(store_set_hard_state(n->store, raft_term(d->raft), raft_vote(d->raft)),
                  "voting");
        d->hard_states++;
    }
    if (u->role_changed)
        note_role(n);
    if (u->truncate)
        do_truncate(n, u);
    store_set_generation(n->store, u->generation);
    if (u->append_last > 0 && d->received)
        append_received(n, u);
    for (size_t i = 0; i < u->message_count; i++) {
        if (d->hard_states > 0)
            hold(n, &u->messages[i]);
        else
            peers_send(n, &u->messages[i]);
    }
    if (u->want_noop)
        leader_begin(n);
    if (u->snapshot_offered)
        snapshot_offered(n, u->snapshot_from, u->snapshot_index);
    set_deadline(n, u->deadline_us);
    driver_flush_soon(n);
}

/* ---- Steps ------------------------------------------------------------------------- */

static void step_one(struct node *n, const struct raft_event *event)
{
    struct driver *d = &n->driver;
    int ret = raft_step(d->raft, event, node_now(), &d->update);
    node_must(ret == -ENOMEM ? ret : 0, "consensus");
    if (ret == -EPROTO)
        log_warn("node %016llx sent a message no correct node sends",
                 (unsigned long long)(event->message ? event->message->from : 0));
    if (ret < 0) {
        /* It was appended, merged or installed here already: the core must not refuse it. */
        ensure(event->type != RAFT_PROPOSE && event->type != RAFT_COMPACTED &&
               event->type != RAFT_INSTALLED);
        return;
    }
    d->visible = d->update.visible;
    d->confirmed_round = d->update.confirmed_round;
    if (event->type == RAFT_READ)
        leader_round_asked(n, d->update.read_round);
    execute(n, &d->update);
}

static void drain(struct node *n)
{
    struct driver *d = &n->driver;
    while (d->event_count > 0) {
        struct raft_event next = d->events[d->event_head];
        d->event_head = (d->event_head + 1) % DRIVER_EVENTS;
        d->event_count--;
        step_one(n, &next);
    }
}

/* Steps `event` (NULL: none) and all that comes of it. */
static void run(struct node *n, const struct raft_event *event)
{
    struct driver *d = &n->driver;
    d->stepping = true;
    /* What was appended here must be the core's before anything changes its role. */
    leader_flush(n);
    drain(n);
    if (event)
        step_one(n, event);
    d->received = NULL;
    drain(n);
    d->stepping = false;
    driver_apply(n);
}

void driver_step(struct node *n, const struct raft_event *event)
{
    struct driver *d = &n->driver;
    if (d->stepping) {
        ensure(event->type != RAFT_RECEIVE);
        ensure(d->event_count < DRIVER_EVENTS);
        d->events[(d->event_head + d->event_count++) % DRIVER_EVENTS] = *event;
        queue_note(n, QUEUE_EVENTS, d->event_count);
        return;
    }
    run(n, event);
}

void driver_durable(struct node *n, const struct store_done *done)
{
    struct driver *d = &n->driver;
    if (done->hard_state) {
        ensure(d->hard_states_issued > 0 && d->hard_states >= d->hard_states_issued);
        d->hard_states -= d->hard_states_issued;
        d->hard_states_issued = 0;
        if (d->hard_states == 0)
            release_held(n);
    }
    if (done->durable_index > 0)
        driver_step(n, &(struct raft_event){.type = RAFT_DURABLE,
                                            .index = done->durable_index,
                                            .generation = done->generation});
}

/* ---- Applying ---------------------------------------------------------------------- */

struct applying {
    struct node *node;
    int error;
};

static bool is_ca(const struct store_record *record)
{
    struct fs_key key;
    if (record->key[0] != FS_CLASS_CLUSTER)
        return false;
    cluster_key_ca(&key);
    return record->key_size == key.size && !memcmp(record->key, key.bytes, key.size);
}

static int apply_record(void *arg, const struct store_record *record, uint32_t offset)
{
    struct applying *a = arg;
    if (record->key[0] == FS_CLASS_SESSION)
        a->error = session_note_record(a->node, record);
    if (record->key[0] == FS_CLASS_SESSION && !record->value)
        a->node->leader.orphans_from = FS_ROOT_INODE; /* it held some, maybe */
    if (record->key[0] == FS_CLASS_ORPHAN)
        orphans_note_record(a->node, record);
    if (is_ca(record))
        identity_note(a->node);
    if (record->key[0] == FS_CLASS_CLUSTER)
        a->error = removed_note_record(a->node, record);
    if (record->key[0] == FS_CLASS_CONTENT)
        a->node->leader.reclaim = true;
    mount_note_record(a->node, record);
    return a->error;
}

static void apply_one(struct node *n, uint64_t index)
{
    struct store_entry entry;
    struct store_bytes *bytes;
    node_must(store_apply(n->store, index, &entry, &bytes), "applying");
    struct applying a = {.node = n};
    node_must(session_note_entry(n, &entry), "applying");
    store_entry_each(bytes->data, bytes->length, apply_record, &a);
    node_must(a.error, "applying");
    orphans_entry_applied(n, &entry, bytes);
    struct members members;
    if (entry_config(bytes->data, bytes->length, &members)) {
        n->members_applied = members;
        if (!raft_config_is_pending(n->driver.raft))
            note_members(n, &members);
    }
    store_bytes_unref(bytes);
}

void driver_apply(struct node *n)
{
    struct driver *d = &n->driver;
    if (snapshot_is_installing(n))
        return;
    uint64_t applied = store_applied(n->store);
    uint64_t to = min_u64(raft_commit(d->raft), raft_durable(d->raft));
    if (applied < to) {
        size_t removed = n->removed.count;
        while (applied < to)
            apply_one(n, ++applied);
        driver_note_ready(n);
        driver_step(n, &(struct raft_event){.type = RAFT_APPLIED, .index = applied});
        leader_applied(n);
        client_applied(n);
        orphans_send(n);
        if (n->removed.count > removed)
            removed_applied(n);
        if (n->members_applied.version != n->said_version)
            upgrade_applied(n);
    }
    leader_release(n);
}

void driver_note_ready(struct node *n)
{
    bool ready = store_is_ready(n->store);
    if (ready == gate_is_open(n))
        return;
    log_info(ready ? "the state is complete: it is served"
                   : "the state is complete only when entries up to where it was merged "
                     "have come: nothing is served until then");
    gate_set(n, ready);
}

/* ---- The loop's turns -------------------------------------------------------------- */

static void deadline_passed(evutil_socket_t fd, short what, void *arg)
{
    struct node *n = arg;
    if (snapshot_is_installing(n)) { /* no election upon what is being replaced */
        set_deadline(n, node_now() + NODE_HEARTBEAT_US);
        return;
    }
    driver_step(arg, &(struct raft_event){.type = RAFT_TICK});
}

static void turn_ends(evutil_socket_t fd, short what, void *arg)
{
    struct node *n = arg;
    run(n, NULL);
    log_thread_kick(n);
}

void driver_flush_soon(struct node *n)
{
    event_active(n->driver.flush, 0, 0);
}

/* The newest configuration beyond what is applied, from the entries that are in memory.
 */
static int find_pending(struct node *n, struct raft_options *o)
{
    for (uint64_t i = store_applied(n->store) + 1; i <= store_last_index(n->store); i++) {
        struct store_bytes *b = store_entry_cached(n->store, i);
        if (!b)
            return -EIO;
        struct members members;
        if (entry_config(b->data, b->length, &members)) {
            if (o->pending_config_index) { /* a later change proves this one committed */
                o->config = o->pending_config;
                o->config_index = o->pending_config_index;
            }
            members_to_raft(&members, &o->pending_config);
            o->pending_config_index = i;
            n->members = members;
        }
        store_bytes_unref(b);
    }
    return 0;
}

int driver_start(struct node *n, const struct store_recovery *recovery)
{
    struct driver *d = &n->driver;
    struct raft_options o = {
        .id = n->directory.node_id,
        .seed = random_u64() | 1,
        .election_us = NODE_ELECTION_US,
        .heartbeat_us = NODE_HEARTBEAT_US,
        .term = recovery->term,
        .vote = recovery->vote,
        .base_index = recovery->base_index,
        .base_term = recovery->base_term,
        .commit = recovery->commit,
        .config_index = recovery->commit,
        .claim_index = recovery->claim_index,
        .claim_term = recovery->claim_term,
    };
    struct raft_run *runs = calloc(recovery->run_count + 1, sizeof(*runs));
    if (!runs)
        return -ENOMEM;
    for (size_t i = 0; i < recovery->run_count; i++)
        runs[i] = (struct raft_run){recovery->runs[i].last, recovery->runs[i].term};
    o.runs = runs;
    o.run_count = recovery->run_count;
    members_to_raft(&n->members_applied, &o.config);
    int ret = find_pending(n, &o);
    if (ret == 0)
        ret = raft_new(&d->raft, &o, node_now());
    free(runs);
    if (ret < 0)
        return ret;
    d->deadline = event_new(n->loop, -1, 0, deadline_passed, n);
    d->flush = event_new(n->loop, -1, 0, turn_ends, n);
    if (!d->deadline || !d->flush)
        return -ENOMEM;
    event_priority_set(d->flush, 1);
    d->role = RAFT_FOLLOWER;
    d->term = recovery->term;
    event_active(d->deadline, 0, 0);
    return 0;
}

void driver_stop(struct node *n)
{
    if (n->driver.deadline)
        event_free(n->driver.deadline);
    if (n->driver.flush)
        event_free(n->driver.flush);
    raft_free(n->driver.raft);
}
