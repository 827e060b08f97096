/*
 * node.c - the process: everything is started around one loop, kept going by a tick, and
 * ended in order.
 *
 *   STARTING --session, or grace--> MOUNTING --mounted--> RUNNING
 *       (no mountpoint: straight to RUNNING;                 |  stop, SIGTERM
 *        a stop: straight to TRANSFERRING)                   |
 *                                             umount by --+  v
 *                                             the kernel  | UNMOUNTING --busy--> RUNNING
 *                                                         v  v
 *                                                     TRANSFERRING --> ENDING
 */
#include "node_core.h"

#include <errno.h>
#include <event2/thread.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

uint64_t node_now(void)
{
    return clock_boot_us();
}

void node_must(int error, const char *what)
{
    if (error < 0)
        log_fatal("%s: %s; the node stops", what, strerror(-error));
}

struct store *node_store(struct node *n)
{
    return n->store;
}

const struct fs_view *node_view(struct node *n)
{
    return &n->view;
}

struct event_base *node_loop(struct node *n)
{
    return n->loop;
}

uint32_t node_backup_idle_ms(const struct node *n)
{
    return NODE_BACKUP_IDLE_MS;
}

struct wire_endpoint *node_endpoint(struct node *n)
{
    return n->endpoint;
}

const struct directory *node_directory(const struct node *n)
{
    return &n->directory;
}

const struct members *node_members(const struct node *n)
{
    return &n->members;
}

uint64_t node_leader(const struct node *n)
{
    return raft_leader(n->driver.raft);
}

uint64_t node_last_timestamp(const struct node *n)
{
    uint64_t term, timestamp_us;
    uint32_t crc;
    store_chain(n->store, &term, &crc, &timestamp_us);
    return timestamp_us;
}

static uint64_t total_refused(struct node *n)
{
    const struct wire_counters *c = wire_endpoint_counters(n->endpoint);
    return c->refused_handshakes + c->refused_hellos + c->oversized_frames +
           c->unknown_frames + c->malformed_frames + c->slow_frames + c->over_limit;
}

static enum node_role status_role(struct node *n)
{
    const struct member *self = members_find(&n->members, n->directory.node_id);
    switch (raft_role(n->driver.raft)) {
    case RAFT_LEADER:
        return NODE_LEADER;
    case RAFT_CANDIDATE:
        return NODE_CANDIDATE;
    case RAFT_FOLLOWER:
        break;
    }
    return self && self->voter ? NODE_FOLLOWER : NODE_LEARNER;
}

static void fill_member(struct node *n, const struct member *m, struct node_member *ret)
{
    struct raft_peer_status status = {0};
    raft_peer_status(n->driver.raft, m->id, node_now(), &status);
    memcpy(ret->name, m->name, sizeof(ret->name));
    memcpy(ret->address, m->address, sizeof(ret->address));
    ret->id = m->id;
    ret->voter = m->voter;
    ret->observer = m->observer;
    ret->version = m->version;
    ret->ca = m->ca;
    memcpy(ret->program, m->program, sizeof(ret->program));
    ret->applied = status.applied;
    ret->reachable = status.reachable;
    if (m->id == n->directory.node_id) {
        ret->reachable = true;
        ret->applied = store_applied(n->store);
    }
}

static void fill_disk(struct node *n, struct node_status *ret)
{
    struct store_stats stats;
    store_stats(n->store, &stats);
    ret->space_low = store_space(n->store) == STORE_SPACE_LOW;
    ret->complete = store_is_ready(n->store);
    ret->disk_hung = n->log.hung;
    ret->keys = stats.keys;
    ret->log_bytes = stats.log_bytes;
    ret->disk_free_bytes = stats.disk_free_bytes;
    ret->base = n->base;
    ret->live_bytes = stats.live_bytes;
    ret->merged_bytes = stats.merged_bytes;
    ret->merged_files = stats.merged_files;
    ret->hint_bytes = stats.hint_bytes;
    ret->merges = stats.merges;
    ret->merge_bytes_written = stats.merge_bytes_written;
    ret->scrubs = stats.scrubs;
    ret->scrubbed_bytes = stats.scrubbed_bytes;
    ret->bad_reads = stats.bad_reads;
    ret->damaged = stats.damaged;
    ret->repaired = stats.repaired;
    ret->unrepaired = stats.unrepaired;
    snapshot_progress(n, &ret->snapshot_bytes, &ret->snapshot_total);
}

void node_fill_status(struct node *n, struct node_status *ret)
{
    *ret = (struct node_status){
        .id = n->directory.node_id,
        .role = status_role(n),
        .term = raft_term(n->driver.raft),
        .leader = raft_leader(n->driver.raft),
        .commit = raft_commit(n->driver.raft),
        .applied = store_applied(n->store),
        .last = store_last_index(n->store),
        .quorum = node_has_quorum(n),
        .pid = (uint32_t)getpid(),
        .cluster_version = n->members.version,
        .refused = total_refused(n),
        .member_count = n->members.count,
    };
    fill_disk(n, ret);
    ret->certificate_end_s = (uint64_t)n->identity.end_s;
    memcpy(ret->name, n->directory.name, sizeof(ret->name));
    memcpy(ret->cluster, n->directory.cluster_id, sizeof(ret->cluster));
    snprintf(ret->version, sizeof(ret->version), "%s", TIERCE_VERSION);
    if (n->mount_shown)
        snprintf(ret->mountpoint, sizeof(ret->mountpoint), "%s", n->options->mountpoint);
    for (uint32_t i = 0; i < n->members.count; i++)
        fill_member(n, &n->members.list[i], &ret->members[i]);
}

/* ---- Phases ------------------------------------------------------------------------ */

static void enter(struct node *n, enum node_phase phase)
{
    n->phase = phase;
    n->phase_us = node_now();
}

/* One that is there, and from which nothing comes: what it says it says where it dials. */
static const struct peer *find_who_does_not_come(const struct node *n)
{
    for (size_t i = 0; i < n->peer_count; i++)
        if (n->peers[i].open && !n->peers[i].came)
            return &n->peers[i];
    return NULL;
}

/* NULL: nothing. */
static const char *warning_at_start(struct node *n, char text[NODE_ERROR_BYTES])
{
    bool alone = !n->client.session && !node_has_quorum(n);
    const struct peer *p = alone ? find_who_does_not_come(n) : NULL;
    if (p) {
        snprintf(
            text, NODE_ERROR_BYTES,
            "the node at %s can be reached from here, and has not dialed %s, where "
            "%.200s/%s says that this node is: correct advertise there, or let others "
            "reach that address. Until then reads may be old, and writes answer EROFS",
            p->address, n->directory.advertise, n->directory.path, DIRECTORY_CONF);
        return text;
    }
    if (alone)
        return "no majority of the cluster is reachable: reads may be old, and writes "
               "answer EROFS until it is";
    uint64_t here, total; /* of a snapshot that is fetched; 0: none is */
    snapshot_progress(n, &here, &total);
    if (total || !store_is_ready(n->store))
        return "this node is behind, and fetches from the others what it misses: until "
               "it has that, reads here may be old or wait, and writes wait; see `tierce "
               "status`";
    if (!n->client.session)
        return "a majority of the cluster is reachable, but has not answered yet: writes "
               "wait until it does";
    return NULL;
}

static void run_now(struct node *n)
{
    enter(n, NODE_RUNNING);
    char text[NODE_ERROR_BYTES];
    const char *warning = warning_at_start(n, text);
    log_info("node %s (%016llx) serves%s%s", n->directory.name,
             (unsigned long long)n->directory.node_id,
             n->options->mountpoint ? " at " : "",
             n->options->mountpoint ? n->options->mountpoint : "");
    n->options->ready(n->options->context, warning);
    if (n->stop_wanted)
        node_stop(n, true, NULL, NULL);
}

static void leave_starting(struct node *n)
{
    if (!n->options->mountpoint) {
        run_now(n);
        return;
    }
    enter(n, NODE_MOUNTING);
    mount_start(n);
}

void node_session_opened(struct node *n)
{
    mount_reserve(n);
    orphans_look(n); /* a removal may have named the session before its opening was told */
    if (n->phase == NODE_STARTING)
        leave_starting(n);
}

static void end(struct node *n)
{
    enter(n, NODE_ENDING);
    client_fail_all(n, -EIO);
    if (n->stop_answer)
        n->stop_answer(n->stop_context, n->leave_error);
    n->stop_answer = NULL;
    /* One more turn, so that the answer leaves. */
    event_add(n->ending, &(struct timeval){0, 20 * 1000});
}

static void transfer(struct node *n)
{
    enter(n, NODE_TRANSFERRING);
    if (!node_is_leader(n) || n->members.count < 2 ||
        raft_role(n->driver.raft) != RAFT_LEADER) {
        end(n);
        return;
    }
    driver_step(n, &(struct raft_event){.type = RAFT_TRANSFER});
    if (!node_is_leader(n) || !raft_transferring(n->driver.raft))
        end(n); /* there is nobody to hand it to */
}

/* ---- No member any more ---------------------------------------------------------------- */

void node_removed(struct node *n)
{
    if (n->is_removed)
        return;
    n->is_removed = true;
    if (n->leaving)
        log_info("this node has left the cluster");
    else
        log_warn("this node was removed from the cluster: it stops, and cannot be "
                 "started again");
    if (n->phase == NODE_STARTING)
        n->exit_error =
            node_error(n->error, -ESHUTDOWN,
                       "this node was removed from the cluster, which turned "
                       "it away: it cannot come back. To join again as another "
                       "node remove %s, or give another --data, and run "
                       "`tierce join TOKEN`",
                       n->directory.path);
    client_fail_all(n, -EIO); /* the leave that brought this about, too */
    node_stop(n, true, NULL, NULL);
}

static void left(struct client_op *op)
{
    struct node *n = container_of(op, struct node, leave);
    if (op->error == 0)
        n->is_removed = true; /* who was faster turned it away before the answer came */
    n->leave_error = n->is_removed ? 0 : op->error;
    buf_release(&op->op);
    transfer(n);
}

/* Nothing of this node's is on its way any more. */
static void leave(struct node *n)
{
    struct node_op op = {.type = NODE_OP_REMOVE, .node_id = n->directory.node_id};
    enter(n, NODE_LEAVING);
    node_op_encode(&op, &n->leave.op);
    node_must(n->leave.op.failed ? -ENOMEM : 0, "leaving");
    n->leave.session = 0; /* not in that of the last time, which may be over */
    n->leave.done = left;
    client_submit(n, &n->leave);
}

static void go(struct node *n)
{
    if (n->leaving && !n->is_removed)
        leave(n);
    else
        transfer(n);
}

void node_leave(struct node *n, void (*answer)(void *context, int error), void *context)
{
    if (n->phase != NODE_RUNNING) {
        answer(context, -EAGAIN);
        return;
    }
    n->leaving = true;
    node_stop(n, false, answer, context);
}

void node_role_changed(struct node *n)
{
    client_pump(n);
}

void node_mount_started(struct node *n, int error)
{
    if (error == 0) {
        n->mount_shown = true;
        run_now(n);
        orphans_look(n);
        if (n->was_unmounted)
            node_unmounted(n);
        return;
    }
    n->exit_error = error;
    snprintf(n->error, sizeof(n->error), "%s", n->mount.error);
    transfer(n);
}

void node_mount_stopped(struct node *n, int error)
{
    if (error == -EBUSY && n->force_stop && !n->mount.force) {
        mount_stop(n, true); /* SIGTERM came while a stop was being refused */
        return;
    }
    if (error == -EBUSY) {
        enter(n, NODE_RUNNING);
        n->leaving = false;
        if (n->stop_answer)
            n->stop_answer(n->stop_context, -EBUSY);
        n->stop_answer = NULL;
        if (n->was_unmounted)
            node_unmounted(n);
        return;
    }
    go(n);
}

void node_unmounted(struct node *n)
{
    n->was_unmounted = true;
    if (n->phase == NODE_RUNNING) {
        log_info("%s was unmounted: the node stops", n->options->mountpoint);
        enter(n, NODE_UNMOUNTING);
        mount_stop(n, true); /* joins its threads, commits what is buffered */
    }
}

void node_stop(struct node *n, bool force, void (*answer)(void *context, int error),
               void *context)
{
    if (n->phase == NODE_MOUNTING) {
        n->stop_wanted = true;
        if (answer)
            answer(context, 0);
        return;
    }
    if (n->phase > NODE_RUNNING) {
        n->force_stop |= force;
        if (force && n->phase == NODE_LEAVING)
            client_fail_all(n, -EIO); /* and the leave with them */
        if (answer)
            answer(context, 0);
        return;
    }
    n->stop_answer = answer;
    n->stop_context = context;
    n->force_stop = force;
    log_info("stopping");
    if (!n->mount.mount) {
        go(n);
        return;
    }
    enter(n, NODE_UNMOUNTING);
    mount_stop(n, force);
}

static void signalled(evutil_socket_t number, short what, void *arg)
{
    node_stop(arg, true, NULL, NULL);
}

static void last_turn(evutil_socket_t fd, short what, void *arg)
{
    struct node *n = arg;
    event_base_loopbreak(n->loop);
}

/* ---- The tick ---------------------------------------------------------------------- */

static void tick_phase(struct node *n, uint64_t now_us)
{
    if (n->phase == NODE_STARTING && (now_us - n->started_us > NODE_READY_GRACE_US))
        leave_starting(n);
    /* Without a majority what is buffered cannot be kept: its writers are told. */
    if (n->phase == NODE_UNMOUNTING && n->client.no_quorum_since_us &&
        now_us - n->phase_us > NODE_QUORUM_GRACE_US)
        client_fail_all(n, -EIO);
    if (n->phase == NODE_LEAVING && now_us - n->phase_us > NODE_LEAVE_US)
        client_fail_all(n, -ETIMEDOUT);
    if (n->phase == NODE_TRANSFERRING &&
        (!node_is_leader(n) || now_us - n->phase_us > NODE_TRANSFER_US))
        end(n);
}

/* For statfs, which is answered on other threads. */
static void note_space(struct node *n)
{
    struct store_stats stats;
    store_stats(n->store, &stats);
    n->space_free = stats.disk_free_bytes;
    n->space_total = stats.disk_total_bytes;
    n->space_keys = stats.keys;
}

static void tick_second(struct node *n, uint64_t now_us)
{
    /* G6: what is applied is committed, and durable here: a hint beyond what a power cut
     * leaves of the log would make damage of what was never written. */
    uint64_t applied = store_applied(n->store);
    if (applied > n->hinted_commit) { /* never less: behind a hole it is the only proof */
        n->hinted_commit = applied;
        node_must(store_set_commit_hint(n->store, applied), "noting the commit index");
    }
    node_must(store_refresh_space(n->store), "looking at the disk");
    note_space(n);
    bool low = store_space(n->store) == STORE_SPACE_LOW;
    if (low != n->was_low)
        log_warn(low ? "the disk of %s is nearly full: only deletes are taken (ENOSPC)"
                     : "the disk of %s has room again",
                 n->directory.path);
    n->was_low = low;
    client_note_room(n);
    eligible_judge(n);
    n->second_us = now_us;
}

static void ticked(evutil_socket_t fd, short what, void *arg)
{
    struct node *n = arg;
    uint64_t now_us = node_now();
    peers_dial_due(n, now_us);
    client_tick(n, now_us);
    mount_reserve(n);
    orphans_tick(n);
    log_thread_tick(n, now_us);
    leader_tick(n);
    fetch_tick(n, now_us);
    repair_tick(n);
    pins_tick(n, now_us);
    snapshot_tick(n, now_us);
    identity_tick(n, now_us);
    upgrade_tick(n, now_us);
    control_tick(n);
    tick_phase(n, now_us);
    store_set_retention(n->store, raft_floor(n->driver.raft) + 1);
    merge_thread_kick(n);
    if (now_us - n->second_us >= NODE_SECOND_US)
        tick_second(n, now_us);
    driver_flush_soon(n);
}

/* ---- What the port brings ---------------------------------------------------------- */

static int admit(void *context, struct wire_connection *c, const struct wire_hello *hello,
                 char text[WIRE_ERROR_BYTES])
{
    int reason = removed_admit(context, hello->node_id, text);
    return reason ? reason : upgrade_admit(context, hello, text);
}

static void opened(void *context, struct wire_connection *c,
                   const struct wire_hello *hello)
{
    if (wire_kind(c) == WIRE_PEER_NODE)
        peers_opened(context, c, hello);
}

void node_forget(struct node *n, struct wire_connection *c)
{
    leader_forget(n, c);
    serve_forget(n, c);
    fetch_forget(n, c);
}

static void closed(void *context, struct wire_connection *c, const char *reason)
{
    enum wire_refusal refusal = wire_refusal(c);
    control_closed(context, c);
    node_forget(context, c);
    peers_closed(context, c, reason);
    if (refusal == WIRE_REFUSAL_REMOVED)
        node_removed(context);
}

static void drained(void *context, struct wire_connection *c)
{
    peers_drained(context, c);
}

static void answer_frame(struct node *n, struct wire_connection *c,
                         const struct wire_frame *f)
{
    struct answer a;
    if (answer_decode(f->value, f->length, &a) < 0)
        wire_refuse(c, "a malformed answer");
    else {
        a.stream = f->stream;
        client_answer(n, &a);
    }
}

static void frame(void *context, struct wire_connection *c, const struct wire_frame *f)
{
    struct node *n = context;
    switch (f->type) {
    case WIRE_CONTROL:
        control_frame(n, c, f);
        break;
    case WIRE_JOIN:
        join_frame(n, c, f);
        break;
    case WIRE_OPERATION:
        leader_operation(n, c, f);
        break;
    case WIRE_ANSWER:
        answer_frame(n, c, f);
        break;
    case WIRE_FETCH:
        serve_frame(n, c, f);
        break;
    case WIRE_FETCHED:
        fetch_frame(n, c, f);
        break;
    case WIRE_RAFT_VOTE:
    case WIRE_RAFT_VOTE_REPLY:
    case WIRE_RAFT_APPEND:
    case WIRE_RAFT_APPEND_REPLY:
    case WIRE_RAFT_TIMEOUT_NOW:
    case WIRE_RAFT_SNAPSHOT:
        peers_frame(n, c, f);
        break;
    case WIRE_ERROR: /* a node of another version did not know a frame, and said so */
        log_warn("node %016llx does not know a frame it was sent",
                 (unsigned long long)wire_peer_id(c));
        break;
    default:
        wire_refuse(c, "a frame that is not for a node");
    }
}

/* ---- Starting ---------------------------------------------------------------------- */

static void replay(void *context, struct store *s, const struct store_entry *entry)
{
    node_must(session_replay(context, s, entry), "recovering");
}

/* While entries are missing up to where it was merged, the store may lack the membership
 * in force, but then the state kept with it has that (G7). */
static int read_members(struct node *n)
{
    if (n->has_state && !store_is_ready(n->store)) {
        n->members = n->members_applied;
        return 0;
    }
    struct fs_key key;
    struct buf value = {0};
    cluster_key_config(&key);
    int ret = store_get(n->store, key.bytes, key.size, 0, &value, NULL);
    if (ret == 0)
        ret = members_decode(value.data, value.length, &n->members_applied);
    else if (ret == -ENOENT) {
        n->members_applied = n->directory.members; /* joined, and has no log yet */
        ret = 0;
    }
    buf_release(&value);
    n->members = n->members_applied;
    return ret;
}

static int open_store(struct node *n, struct store_recovery *recovery)
{
    char *path = n->directory.path;
    struct store_options o = directory_store_options(&n->directory);
    o.format_newest = version_format(n->version);
    o.replay = replay;
    o.save_state = state_save;
    o.load_state = state_load;
    o.damaged = repair_damaged;
    o.context = n;
    int ret = store_open(&n->store, &o, recovery, n->error);
    if (ret < 0)
        return ret;
    ret = session_reconcile(n, n->store);
    if (ret == 0)
        ret = read_members(n);
    if (ret == 0)
        ret = removed_load(n);
    if (ret < 0)
        snprintf(n->error, sizeof(n->error), "%s: what was committed cannot be read: %s",
                 path, strerror(-ret));
    if (ret == 0)
        ret = upgrade_check(n);
    if (ret == 0)
        upgrade_applied(n);
    return ret;
}

static int listen_on_port(struct node *n)
{
    const struct directory *d = &n->directory;
    char why[WIRE_ERROR_BYTES] = "";
    int ret = wire_listen(n->endpoint, d->listen, why);
    if (ret == 0)
        return 0;
    return node_error(n->error, ret, "%s; %sset listen (and advertise) in %.300s/%s", why,
                      ret == -EADDRINUSE ? "stop that one, or " : "", d->path,
                      DIRECTORY_CONF);
}

static int open_port(struct node *n)
{
    struct directory *d = &n->directory;
    struct wire_identity identity = directory_identity(d);
    struct wire_hello hello = directory_hello(d);
    hello.version = n->version;
    hello.oldest = version_oldest(n->version);
    struct wire_handlers handlers = {.context = n,
                                     .admit = admit,
                                     .opened = opened,
                                     .frame = frame,
                                     .closed = closed,
                                     .drained = drained};
    int ret = wire_identity_check(&identity, n->error);
    if (ret == 0)
        ret = wire_endpoint_new(&n->endpoint, n->loop, &identity, &hello, &handlers,
                                n->error);
    if (ret == 0)
        ret = listen_on_port(n);
    char *control = directory_file(d->path, DIRECTORY_SOCKET);
    if (ret == 0)
        ret = control ? wire_listen_local(n->endpoint, control, n->error) : -ENOMEM;
    free(control);
    return ret;
}

static int make_loop(struct node *n)
{
    evthread_use_pthreads();
    n->loop = event_base_new();
    if (!n->loop || event_base_priority_init(n->loop, 2) < 0)
        return -ENOMEM;
    n->tick = event_new(n->loop, -1, EV_PERSIST, ticked, n);
    n->sigterm = evsignal_new(n->loop, SIGTERM, signalled, n);
    n->sigint = evsignal_new(n->loop, SIGINT, signalled, n);
    n->ending = event_new(n->loop, -1, 0, last_turn, n);
    if (!n->tick || !n->sigterm || !n->sigint || !n->ending)
        return -ENOMEM;
    struct event *events[] = {n->tick, n->sigterm, n->sigint, n->ending};
    for (size_t i = 0; i < array_length(events); i++)
        event_priority_set(events[i], 0);
    event_add(n->tick, &(struct timeval){0, NODE_TICK_US});
    event_add(n->sigterm, NULL);
    event_add(n->sigint, NULL);
    signal(SIGPIPE, SIG_IGN);
    return mailbox_init(n);
}

static int start(struct node *n)
{
    struct store_recovery recovery;
    gate_init(n);
    gate_set(n, false);
    repair_init(n);
    pins_init(n);
    int ret = make_loop(n);
    if (ret == 0)
        ret = open_store(n, &recovery);
    if (ret == 0)
        identity_start(n);
    if (ret == 0)
        ret = open_port(n);
    if (ret == 0)
        ret = driver_start(n, &recovery);
    if (ret == 0)
        ret = log_thread_start(n);
    if (ret == 0)
        ret = pager_start(n);
    if (ret == 0)
        ret = merge_thread_start(n);
    if (ret < 0)
        return ret;
    if (recovery.damage[0])
        log_warn("%s", recovery.damage);
    if (recovery.hints_rebuilt)
        log_info("%llu hints were missing or damaged, and were made again from the files "
                 "they belong to",
                 (unsigned long long)recovery.hints_rebuilt);
    if (recovery.cut_bytes)
        log_info("%llu bytes of an unfinished write were cut from the log",
                 (unsigned long long)recovery.cut_bytes);
    n->hinted_commit = max_u64(recovery.commit, recovery.claim_index);
    n->base = recovery.base_index;
    gate_set(n, store_is_ready(n->store));
    n->eligible = true;
    eligible_judge(n); /* before it may be elected */
    mount_init(n);
    note_space(n);
    peers_refresh(n);
    n->started_us = node_now();
    ret = client_start(n);
    if (ret == 0)
        removed_applied(n);
    return ret;
}

static void free_events(struct node *n)
{
    struct event *events[] = {n->tick, n->sigterm, n->sigint, n->ending};
    for (size_t i = 0; i < array_length(events); i++)
        if (events[i])
            event_free(events[i]);
}

static void finish(struct node *n)
{
    mount_release(n);
    pager_stop(n);
    merge_thread_stop(n);
    log_thread_stop(n);
    snapshot_release(n);
    repair_release(n);
    identity_release(n);
    serve_release(n);
    if (n->endpoint)
        wire_endpoint_free(n->endpoint);
    control_backups_release(n);
    peers_release(n);
    driver_stop(n);
    client_release(n);
    orphans_release(n);
    sessions_release(n);
    removed_release(n);
    upgrade_release(n);
    if (n->store)
        store_close(n->store);
    if (n->loop) {
        mailbox_release(n);
        free_events(n);
        event_base_free(n->loop);
    }
    directory_release(&n->directory);
}

/* Each file of the store takes a descriptor, and so does each connection. */
static void allow_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("the limit of open files stays at its soft value: %s", strerror(errno));
}

/* Entries come and go all the time. By default malloc gives the pages of each large one back
 * to the kernel, which clears them for the next: more work than writing it to a file. But
 * each arena keeps as much for itself, and by default there are 8 for each processor. */
static void keep_memory(void)
{
    mallopt(M_ARENA_MAX, NODE_ARENAS);
    mallopt(M_MMAP_THRESHOLD, 2 * LIMIT_ENTRY_BYTES);
    mallopt(M_TRIM_THRESHOLD, LIMIT_INFLIGHT_BYTES);
}

static void mark_removed(struct node *n)
{
    char error[NODE_ERROR_BYTES];
    if (directory_mark_removed(&n->directory, error) < 0)
        log_error("%s", error);
}

int node_run(const struct node_run_options *options, char error[NODE_ERROR_BYTES])
{
    struct node *n = calloc(1, sizeof(*n));
    if (!n) {
        snprintf(error, NODE_ERROR_BYTES, "no memory");
        return -ENOMEM;
    }
    keep_memory();
    n->mailbox.wake_fd = -1;
    n->options = options;
    n->version = options->version ? options->version : WIRE_PROTOCOL_VERSION;
    allow_descriptors();
    int ret = directory_open(&n->directory, options->data, error);
    if (ret < 0) {
        free(n);
        return ret;
    }
    recover_clean(n->directory.path);
    fs_mounts_clean(n->directory.path);
    ret = start(n);
    if (ret == 0) {
        event_base_dispatch(n->loop);
        ret = n->exit_error;
    }
    if (ret < 0)
        snprintf(error, NODE_ERROR_BYTES, "%s", n->error[0] ? n->error : strerror(-ret));
    if (n->is_removed) /* else the next start is turned away again */
        mark_removed(n);
    finish(n);
    free(n);
    return ret;
}
