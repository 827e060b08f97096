/*
 * metrics.c - every queue of the node with its bound, and what it counts, as text in the
 * format that Prometheus reads. README.md has the table of queues; this one is its index.
 *
 * A queue has four numbers: what is in it now, the most there has been since the start,
 * its bound, and how often somebody had to wait, or was turned away, because it was full.
 */
#include "node_core.h"

/* ---- Queues -------------------------------------------------------------------------- */

struct reading {
    uint64_t now, most, bound, waits;
};

static struct reading reading_of(const struct node *n, enum node_queue queue,
                                 uint64_t now, uint64_t bound)
{
    const struct queue_marks *marks = &n->queues[queue];
    return (struct reading){now, max_u64(now, marks->most), bound, marks->waits};
}

static void put_number(struct buf *to, const char *name, const char *queue,
                       uint64_t value)
{
    buf_printf(to, "%s{queue=\"%s\"} %llu\n", name, queue, (unsigned long long)value);
}

struct row {
    const char *name; /* with its unit, as in the README */
    struct reading reading;
};

enum { ROWS_MAX = 32 };

struct rows {
    struct row list[ROWS_MAX];
    size_t count;
};

static void add(struct rows *rows, const char *name, struct reading reading)
{
    ensure(rows->count < ROWS_MAX);
    rows->list[rows->count++] = (struct row){name, reading};
}

static void add_operations(struct node *n, struct rows *rows)
{
    const struct leader *l = &n->leader;
    uint64_t sessions = 0, parked = 0;
    for (struct session *s = n->sessions; s; s = s->next) {
        sessions++;
        parked = max_u64(parked, s->parked_bytes);
    }
    add(rows, "operations",
        reading_of(n, QUEUE_OPERATIONS, n->client.count, NODE_OPERATIONS_MOST));
    add(rows, "sessions", reading_of(n, QUEUE_SESSIONS, sessions, LIMIT_SESSIONS));
    add(rows, "gate_bytes",
        reading_of(n, QUEUE_GATE, l->gate_bytes, LIMIT_INFLIGHT_BYTES));
    add(rows, "parked_bytes", reading_of(n, QUEUE_PARKED, parked, LIMIT_PARKED_BYTES));
    add(rows, "inflight_bytes",
        reading_of(n, QUEUE_INFLIGHT, l->inflight_bytes, LIMIT_INFLIGHT_BYTES));
    add(rows, "answers", reading_of(n, QUEUE_ANSWERS, l->answers, NODE_ANSWERS_MOST));
}

static void add_disks(struct node *n, struct rows *rows)
{
    add(rows, "log_bytes",
        reading_of(n, QUEUE_LOG, store_unwritten_bytes(n->store), LIMIT_UNWRITTEN_BYTES));
    add(rows, "reader_tasks",
        reading_of(n, QUEUE_READER, n->pager.queued, NODE_READER_MOST));
    add(rows, "merge_tasks", reading_of(n, QUEUE_MERGE, n->merge.queued, NODE_BULK_MOST));
    add(rows, "repairs", reading_of(n, QUEUE_REPAIRS, n->repair_count, NODE_REPAIRS));
}

static void add_peers(struct node *n, struct rows *rows)
{
    uint64_t flight = 0, unsent = 0;
    struct wire_load load;
    for (size_t i = 0; i < n->peer_count; i++) {
        const struct peer *p = &n->peers[i];
        flight = max_u64(flight, p->flight.bytes);
        if (p->open)
            unsent = max_u64(unsent, wire_queued_bytes(p->connection));
    }
    wire_endpoint_load(n->endpoint, &load);
    add(rows, "flight_bytes", reading_of(n, QUEUE_FLIGHT, flight, LIMIT_FLIGHT_BYTES));
    add(rows, "send_bytes", reading_of(n, QUEUE_SEND, unsent, LIMIT_SEND_QUEUE_BYTES));
    add(rows, "connections",
        reading_of(n, QUEUE_CONNECTIONS, load.accepted, LIMIT_CONNECTIONS));
    add(rows, "unproven_connections",
        reading_of(n, QUEUE_UNPROVEN, load.unproven, LIMIT_UNPROVEN_CONNECTIONS));
    add(rows, "local_connections",
        reading_of(n, QUEUE_LOCAL, load.local, LIMIT_LOCAL_CONNECTIONS));
    add(rows, "driver_events",
        reading_of(n, QUEUE_EVENTS, n->driver.event_count, DRIVER_EVENTS));
    add(rows, "held_messages",
        reading_of(n, QUEUE_HELD, n->driver.held_count, DRIVER_HELD));
}

static void add_mount(struct node *n, struct rows *rows)
{
    struct fs_mount_load load = {0};
    if (!n->mount_shown)
        return;
    fs_mount_load(n->mount.mount, &load);
    add(rows, "mount_calls",
        (struct reading){load.calls, load.calls_most, FS_CALLS_MOST, load.calls_waits});
    add(rows, "mount_bytes",
        (struct reading){load.buffered, load.buffered_most, FS_BUFFERED_BYTES,
                         load.buffered_waits});
    add(rows, "mount_drops",
        (struct reading){load.drops, load.drops_most, FS_DROPS_MOST, 0});
    add(rows, "mount_names",
        (struct reading){load.names, load.names_most, FS_NAMES_MOST, load.names_lost});
}

static void put_queues(struct node *n, struct buf *to)
{
    struct rows rows = {0};
    add_operations(n, &rows);
    add_disks(n, &rows);
    add_peers(n, &rows);
    add_mount(n, &rows);
    static const struct {
        const char *name, *type, *help;
    } kinds[] = {
        {"tierce_queue", "gauge", "What is in a queue now; its unit is in its name."},
        {"tierce_queue_most", "gauge", "The most that has been in it since the start."},
        {"tierce_queue_bound", "gauge", "Beyond this somebody waits, or is turned away."},
        {"tierce_queue_waits_total", "counter", "How often that has happened."},
    };
    for (size_t k = 0; k < array_length(kinds); k++) {
        buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", kinds[k].name, kinds[k].help,
                   kinds[k].name, kinds[k].type);
        for (size_t i = 0; i < rows.count; i++) {
            const struct reading *r = &rows.list[i].reading;
            const uint64_t values[] = {r->now, r->most, r->bound, r->waits};
            put_number(to, kinds[k].name, rows.list[i].name, values[k]);
        }
    }
}

/* ---- Numbers -------------------------------------------------------------------------- */

static void put(struct buf *to, const char *name, const char *type, const char *help,
                uint64_t value)
{
    buf_printf(to, "# HELP tierce_%s %s\n# TYPE tierce_%s %s\ntierce_%s %llu\n", name,
               help, name, type, name, (unsigned long long)value);
}

static void put_raft(struct node *n, struct buf *to)
{
    const struct raft *r = n->driver.raft;
    put(to, "raft_term", "gauge", "The term.", raft_term(r));
    put(to, "raft_leads", "gauge", "1: this node leads.", node_is_leader(n));
    put(to, "raft_quorum", "gauge", "1: a majority is reachable.", node_has_quorum(n));
    put(to, "raft_last_index", "gauge", "The log's last entry.", raft_last_index(r));
    put(to, "raft_commit_index", "gauge", "What is committed.", raft_commit(r));
    put(to, "raft_durable_index", "gauge", "What is on this disk.", raft_durable(r));
    put(to, "raft_applied_index", "gauge", "What is applied here.",
        store_applied(n->store));
    put(to, "raft_visible_index", "gauge",
        "Leader: applied on every member in reach that is not left "
        "out as late.",
        n->driver.visible);
}

/* In a label a name's quotes and backslashes are escaped. (It has no line feeds.) */
static void put_of_member(struct buf *to, const char *metric, const struct member *m,
                          uint64_t value)
{
    buf_printf(to, "tierce_%s{member=\"", metric);
    for (const char *c = m->name; *c; c++)
        buf_printf(to, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
    buf_printf(to, "\"} %llu\n", (unsigned long long)value);
}

static void put_members(struct node *n, struct buf *to)
{
    buf_printf(to, "# HELP tierce_member_reachable 1: it is heard.\n"
                   "# TYPE tierce_member_reachable gauge\n");
    for (uint32_t i = 0; i < n->members.count; i++) {
        struct raft_peer_status status = {0};
        const struct member *m = &n->members.list[i];
        raft_peer_status(n->driver.raft, m->id, node_now(), &status);
        put_of_member(to, "member_reachable", m, status.reachable);
    }
    if (!node_is_leader(n))
        return;
    buf_printf(to, "# HELP tierce_member_lag_entries What it has not applied yet.\n"
                   "# TYPE tierce_member_lag_entries gauge\n");
    for (uint32_t i = 0; i < n->members.count; i++) {
        struct raft_peer_status status = {0};
        const struct member *m = &n->members.list[i];
        if (m->id == n->directory.node_id ||
            !raft_peer_status(n->driver.raft, m->id, node_now(), &status))
            continue;
        uint64_t commit = raft_commit(n->driver.raft);
        put_of_member(to, "member_lag_entries", m,
                      commit - min_u64(status.applied, commit));
    }
}

static void put_store(struct node *n, struct buf *to)
{
    struct store_stats s;
    store_stats(n->store, &s);
    put(to, "store_keys", "gauge", "Keys.", s.keys);
    put(to, "store_live_bytes", "gauge", "Records that count.", s.live_bytes);
    put(to, "store_log_bytes", "gauge", "The log's files.", s.log_bytes);
    put(to, "store_merged_bytes", "gauge", "Merged files.", s.merged_bytes);
    put(to, "store_disk_free_bytes", "gauge", "As last looked at.", s.disk_free_bytes);
    put(to, "store_written_bytes_total", "counter", "To the log.", s.bytes_written);
    put(to, "store_syncs_total", "counter", "Of the log.", s.syncs);
    put(to, "store_merges_total", "counter", "Merges.", s.merges);
    put(to, "store_merge_written_bytes_total", "counter", "By merges.",
        s.merge_bytes_written);
    put(to, "store_bad_reads_total", "counter", "Reads that failed their checksum.",
        s.bad_reads);
    put(to, "store_repaired_total", "counter", "Damage that was written back.",
        s.repaired);
    put(to, "store_unrepaired_total", "counter", "Damage that no node could mend.",
        s.unrepaired);
}

static void put_wire(struct node *n, struct buf *to)
{
    const struct wire_counters *c = wire_endpoint_counters(n->endpoint);
    put(to, "wire_accepted_total", "counter", "Connections that came.", c->accepted);
    put(to, "wire_dialed_total", "counter", "Connections that were begun.", c->dialed);
    put(to, "wire_opened_total", "counter", "Connections that were let in.", c->opened);
    put(to, "wire_in_bytes_total", "counter", "Bytes of frames.", c->bytes_in);
    put(to, "wire_out_bytes_total", "counter", "Bytes of frames.", c->bytes_out);
    put(to, "wire_refused_handshakes_total", "counter", "Not of this cluster.",
        c->refused_handshakes);
    put(to, "wire_refused_hellos_total", "counter", "Another version, cluster or id.",
        c->refused_hellos);
    put(to, "wire_bad_frames_total", "counter", "Too long, malformed, too slow.",
        c->oversized_frames + c->malformed_frames + c->slow_frames);
    put(to, "wire_unknown_frames_total", "counter", "Answered with ERROR.",
        c->unknown_frames);
    put(to, "wire_over_limit_total", "counter", "Connections beyond a bound.",
        c->over_limit);
}

void metrics_write(struct node *n, struct buf *to)
{
    put_queues(n, to);
    put_raft(n, to);
    put_members(n, to);
    put_store(n, to);
    put_wire(n, to);
}
