/*
 * snapshot.c - a node whose log ends before its leader's begins fetches the leader's
 * merged files, and puts them in the place of its own log and state.
 *
 *   NONE --offered--> ASKING --pinned there--> OPENING --> FETCHING  chunks, in order,
 *    ^                                                        |      four on their way
 *    |                                                     all here
 *    |                                                        v
 *    |                                                    PREPARING
 *    |                                                        v
 *    +-- RAFT_INSTALLED -- INSTALLING <-- no task runs --- READY
 *                          (the log thread's job)      until the core takes it
 *
 * Wherever it fails it goes back to NONE, what is on disk stays, and the next offer goes
 * on with it. Reading, writing and checking are the merge thread's; the loop never waits.
 */
#include "node_core.h"

#include <errno.h>

enum snapshot_state {
    SNAPSHOT_NONE,
    SNAPSHOT_ASKING,
    SNAPSHOT_OPENING,
    SNAPSHOT_FETCHING,
    SNAPSHOT_PREPARING,
    SNAPSHOT_READY,
    SNAPSHOT_INSTALLING,
};

enum { WINDOW = 4 }; /* chunks on their way */

struct chunk {
    struct fetch fetch;
    uint32_t file, length;
    uint64_t offset;
    bool asked, arrived;
    struct buf bytes;
};

struct snapshot {
    struct node *node;
    enum snapshot_state state;
    uint64_t from, number; /* whose; of its pinned one */
    bool cut; /* it was not `from`'s fault: what is here of its files is to be used */
    struct fetch question; /* ASKING */
    struct pager_task task;
    bool working; /* the merge thread has it: leave `incoming` alone */
    bool given_up;
    int error;
    char why[STORE_ERROR_BYTES];
    struct buf description;
    struct store_incoming *incoming;
    struct chunk chunks[WINDOW]; /* a ring, in the order of asking */
    unsigned first, count;
    uint64_t index; /* it must reach so far */
    uint64_t retry_us, backoff_us;
    uint64_t heard_us;   /* something of it came, or was first asked for */
    uint64_t keep_us;    /* PREPARING and after: when to say there that it goes on */
    uint64_t pause_us;   /* PREPARING: before the next stretch, */
    struct event *pause; /* ... by this */
    struct pager_task freeing;
    struct store_incoming *freed; /* by the merge thread; NULL when it has been, */
    bool is_freeing;              /* ... and until the loop knows */
};

static void drop_chunks(struct node *n, struct snapshot *s)
{
    for (unsigned i = 0; i < WINDOW; i++) {
        fetch_cancel(n, &s->chunks[i].fetch);
        buf_release(&s->chunks[i].bytes);
        s->chunks[i] = (struct chunk){0};
    }
    s->first = s->count = 0;
}

static void free_incoming(struct pager_task *task)
{
    struct snapshot *s = container_of(task, struct snapshot, freeing);
    store_incoming_free(s->freed);
    s->freed = NULL;
}

static void incoming_freed(struct pager_task *task)
{
    container_of(task, struct snapshot, freeing)->is_freeing = false;
}

/* It syncs, removes files, and frees a whole keydir: not on the loop. */
static void let_go(struct node *n, struct snapshot *s)
{
    if (!s->incoming)
        return;
    ensure(!s->is_freeing);
    s->is_freeing = true;
    s->freed = s->incoming;
    s->incoming = NULL;
    s->freeing = (struct pager_task){.work = free_incoming, .done = incoming_freed};
    merge_thread_submit(n, &s->freeing);
}

static void reset(struct node *n, struct snapshot *s)
{
    fetch_cancel(n, &s->question);
    drop_chunks(n, s);
    event_del(s->pause);
    let_go(n, s);
    buf_release(&s->description);
    if (s->state >= SNAPSHOT_READY)
        merge_thread_release(n);
    s->state = SNAPSHOT_NONE;
    s->given_up = false;
    s->retry_us = node_now() + s->backoff_us;
    s->backoff_us = min_u64(2 * s->backoff_us, NODE_SNAPSHOT_RETRY_US);
}

/* What the merge thread is at is waited for. */
static void give_up(struct node *n, struct snapshot *s, int error, const char *what)
{
    if (!s->given_up) {
        s->cut =
            s->state == SNAPSHOT_FETCHING && (error == -ENOTCONN || error == -ETIMEDOUT);
        log_warn("the snapshot of node %016llx could not be %s: %s; it is tried again",
                 (unsigned long long)s->from, what,
                 s->why[0] ? s->why : strerror(-error));
    }
    s->given_up = true;
    if (!s->working)
        reset(n, s);
}

static void hand_over(struct node *n, struct snapshot *s,
                      void (*work)(struct pager_task *task),
                      void (*done)(struct pager_task *task))
{
    s->working = true;
    s->error = 0;
    s->why[0] = '\0';
    s->task = (struct pager_task){.work = work, .done = done};
    merge_thread_submit(n, &s->task);
}

/* After the work: whether to go on. */
static bool worked(struct snapshot *s, const char *what)
{
    s->working = false;
    if (s->error == 0 && !s->given_up)
        return true;
    give_up(s->node, s, s->error, what);
    return false;
}

/* ---- What is told to the peer while it has nothing to send -------------------------- */

/* Nobody waits for the answer. */
static void was_told(struct node *n, struct fetch *f, int error, const uint8_t *bytes,
                     size_t length)
{
}

static void tell_there(struct node *n, struct snapshot *s, enum fetch_kind kind)
{
    struct fetch_request q = {.kind = kind, .snapshot = s->number};
    fetch_cancel(n, &s->question);
    s->question.done = was_told;
    fetch_start(n, &s->question, s->from, &q, FETCH_SOON_US);
}

/* Checking a large snapshot takes long, and it is to stay pinned. */
void snapshot_tick(struct node *n, uint64_t now_us)
{
    struct snapshot *s = n->snapshot;
    if (!s || s->state < SNAPSHOT_PREPARING)
        return;
    if (now_us >= s->keep_us) {
        s->keep_us = now_us + NODE_SNAPSHOT_KEEP_US;
        tell_there(n, s, FETCH_KEEP);
    }
    snapshot_install_due(n);
}

/* ---- Installing -------------------------------------------------------------------- */

static struct raft_event installed_event(struct node *n, const struct store_manifest *m,
                                         struct raft_config *config)
{
    members_to_raft(&n->members_applied, config);
    bool claims = m->applied_index > m->merged_index;
    return (struct raft_event){.type = RAFT_INSTALLED,
                               .index = m->merged_index,
                               .term = m->merged_term,
                               .config = config,
                               .config_index = m->merged_index,
                               .claim_index = claims ? m->applied_index : 0,
                               .claim_term = claims ? m->applied_term : 0};
}

/* The core must take it: nothing may change that answer until it is installed, so from
 * then on the core gets no message but heartbeats of its leader and knows no time
 * (peers_frame, deadline_passed), and nothing is applied (driver_apply). */
static bool may_install(struct node *n, const struct store_manifest *m)
{
    struct raft_config config;
    struct raft_event ev = installed_event(n, m, &config);
    return raft_may_install(n->driver.raft, &ev);
}

/* Whether it is only refused for now: in an election, or before a message of the term in
 * which it was made has come. What was made ready with much work stays then. */
static bool may_install_later(const struct node *n, const struct store_manifest *m)
{
    const struct raft *raft = n->driver.raft;
    enum raft_role role = raft_role(raft);
    uint64_t term = max_u64(m->merged_term, m->applied_term);
    return role != RAFT_LEADER && (role != RAFT_FOLLOWER || term > raft_term(raft));
}

void snapshot_install_due(struct node *n)
{
    struct snapshot *s = n->snapshot;
    struct store_manifest m;
    if (!s || s->state != SNAPSHOT_READY)
        return;
    store_incoming_manifest(s->incoming, &m);
    if (!may_install(n, &m)) {
        if (!may_install_later(n, &m)) /* else at the next tick */
            give_up(n, s, -ESTALE, "installed");
        return;
    }
    gate_set(n, false);
    int ret = store_install(n->store, s->incoming);
    if (ret == 0) {
        s->incoming = NULL;
        s->state = SNAPSHOT_INSTALLING;
        driver_flush_soon(n);
        return;
    }
    gate_set(n, store_is_ready(n->store));
    if (ret != -EBUSY) /* else the task that runs ends soon, and this is called again */
        give_up(n, s, ret, "installed");
}

bool snapshot_is_installing(const struct node *n)
{
    return n->snapshot && n->snapshot->state == SNAPSHOT_INSTALLING;
}

void snapshot_installed(struct node *n)
{
    struct snapshot *s = n->snapshot;
    struct raft_config config;
    struct store_manifest m;
    size_t length;
    const void *state = store_state(n->store, &length);
    ensure(snapshot_is_installing(n) && store_manifest(n->store, &m));
    node_must(state_load(n, state, length), "taking the state of a snapshot");
    node_must(session_reconcile(n, n->store), "taking the sessions of a snapshot");
    node_must(removed_load(n), "taking the removed nodes of a snapshot");
    struct raft_event ev = installed_event(n, &m, &config);
    n->base = m.merged_index;
    n->members = n->members_applied;
    identity_note(n);
    log_info("the snapshot of node %016llx is installed: the log begins after %llu",
             (unsigned long long)s->from, (unsigned long long)m.merged_index);
    reset(n, s);
    tell_there(n, s, FETCH_CLOSE);
    s->retry_us = 0;
    driver_step(n, &ev);
    peers_refresh(n);
    driver_note_ready(n);
    mount_state_replaced(n);
    orphans_look(n);
    client_applied(n);
    removed_applied(n);
    upgrade_applied(n);
}

void snapshot_install_failed(struct node *n, struct store_incoming *incoming)
{
    struct snapshot *s = n->snapshot;
    ensure(snapshot_is_installing(n));
    s->incoming = incoming;
    give_up(n, s, -ENOSPC, "installed");
    gate_set(n, store_is_ready(n->store));
}

/* ---- Preparing --------------------------------------------------------------------- */

static void prepare(struct pager_task *task)
{
    struct snapshot *s = container_of(task, struct snapshot, task);
    s->error = store_incoming_prepare(s->incoming, &s->pause_us, s->why);
}

static void prepared(struct pager_task *task)
{
    struct snapshot *s = container_of(task, struct snapshot, task);
    if (s->error == 1) { /* more; merges, fetches and the end come in between */
        s->working = false;
        struct timeval t = {(time_t)(s->pause_us / 1000000),
                            (suseconds_t)(s->pause_us % 1000000)};
        event_add(s->pause, &t);
        return;
    }
    if (!worked(s, "checked"))
        return;
    s->state = SNAPSHOT_READY;
    merge_thread_hold(s->node);
    snapshot_install_due(s->node);
}

static void pause_over(evutil_socket_t fd, short what, void *arg)
{
    struct snapshot *s = arg;
    hand_over(s->node, s, prepare, prepared);
}

/* ---- Fetching ---------------------------------------------------------------------- */

static void fill_window(struct node *n, struct snapshot *s);
static void write_first(struct node *n, struct snapshot *s);

static void write_chunk(struct pager_task *task)
{
    struct snapshot *s = container_of(task, struct snapshot, task);
    const struct chunk *c = &s->chunks[s->first];
    s->error = store_incoming_write(s->incoming, c->file, c->offset, c->bytes.data,
                                    c->bytes.length, s->why);
}

static void chunk_written(struct pager_task *task)
{
    struct snapshot *s = container_of(task, struct snapshot, task);
    struct node *n = s->node;
    if (!worked(s, "written"))
        return;
    struct chunk *c = &s->chunks[s->first];
    buf_release(&c->bytes);
    *c = (struct chunk){0};
    s->first = (s->first + 1) % WINDOW;
    s->count--;
    s->backoff_us = NODE_SECOND_US; /* it goes on */
    fill_window(n, s);
}

static void write_first(struct node *n, struct snapshot *s)
{
    if (!s->working && s->count > 0 && s->chunks[s->first].arrived)
        hand_over(n, s, write_chunk, chunk_written);
}

static bool is_whole(const struct chunk *c, const uint8_t *bytes, size_t length)
{
    return length == (size_t)c->length + 4 &&
           crc32_of(0, bytes + 4, length - 4) == get_u32(bytes);
}

static void chunk_came(struct node *n, struct fetch *f, int error, const uint8_t *bytes,
                       size_t length)
{
    struct chunk *c = container_of(f, struct chunk, fetch);
    struct snapshot *s = n->snapshot;
    if (error == 0 && !is_whole(c, bytes, length))
        error = -EBADMSG;
    if (error < 0) {
        give_up(n, s, error, "fetched");
        return;
    }
    buf_bytes(&c->bytes, bytes + 4, length - 4);
    node_must(c->bytes.failed ? -ENOMEM : 0, "fetching a snapshot");
    c->arrived = true;
    s->heard_us = node_now();
    write_first(n, s);
}

/* False: there is nothing more to ask for. */
static bool ask_chunk(struct node *n, struct snapshot *s)
{
    struct chunk *c = &s->chunks[(s->first + s->count) % WINDOW];
    if (!store_incoming_ahead(s->incoming, s->count, &c->file, &c->offset, &c->length))
        return false;
    struct fetch_request q = {.kind = FETCH_CHUNK,
                              .snapshot = s->number,
                              .file = c->file,
                              .offset = c->offset,
                              .length = c->length};
    s->count++;
    c->fetch.done = chunk_came;
    int ret = fetch_start(n, &c->fetch, s->from, &q, FETCH_BULK_US);
    if (ret < 0)
        give_up(n, s, ret, "fetched");
    return ret == 0;
}

/* Nothing is being written meanwhile, or what is ahead would move. */
static void fill_window(struct node *n, struct snapshot *s)
{
    ensure(!s->working);
    while (s->count < WINDOW && ask_chunk(n, s))
        ;
    if (s->state != SNAPSHOT_FETCHING || s->given_up)
        return;
    if (s->count == 0) {
        s->state = SNAPSHOT_PREPARING;
        hand_over(n, s, prepare, prepared);
    } else {
        write_first(n, s);
    }
}

static void open_incoming(struct pager_task *task)
{
    struct snapshot *s = container_of(task, struct snapshot, task);
    s->error = store_incoming_open(s->node->store, s->description.data,
                                   s->description.length, s->from, &s->incoming, s->why);
}

static void incoming_opened(struct pager_task *task)
{
    struct snapshot *s = container_of(task, struct snapshot, task);
    struct node *n = s->node;
    struct store_manifest m;
    if (!worked(s, "begun"))
        return;
    store_incoming_manifest(s->incoming, &m);
    if (m.merged_index < s->index) { /* who offered it has merged more */
        give_up(n, s, -ESTALE, "used");
        return;
    }
    uint64_t total, here = store_incoming_bytes(s->incoming, &total);
    log_info("fetching the snapshot of node %016llx: %llu of %llu bytes are here",
             (unsigned long long)s->from, (unsigned long long)here,
             (unsigned long long)total);
    s->state = SNAPSHOT_FETCHING;
    fill_window(n, s);
}

static void described(struct node *n, struct fetch *f, int error, const uint8_t *bytes,
                      size_t length)
{
    struct snapshot *s = container_of(f, struct snapshot, question);
    if (error == 0 && length < 8)
        error = -EPROTO;
    if (error < 0) {
        give_up(n, s, error, "asked for");
        return;
    }
    s->heard_us = node_now();
    s->number = get_u64(bytes);
    buf_bytes(&s->description, bytes + 8, length - 8);
    node_must(s->description.failed ? -ENOMEM : 0, "fetching a snapshot");
    s->state = SNAPSHOT_OPENING;
    hand_over(n, s, open_incoming, incoming_opened);
}

/* The leader's files, but those of whom it was cut off from, where that is back. */
static uint64_t choose(struct node *n, const struct snapshot *s, uint64_t offered)
{
    const struct peer *p = s->cut ? peers_find(n, s->from) : NULL;
    return p && p->open ? s->from : offered;
}

/* Another node leads now, and has a snapshot for us, while the one that was asked says
 * nothing: it may be paused, and this node may be what the new leader lacks for a
 * majority. */
static bool is_stranded(const struct snapshot *s, uint64_t offered)
{
    return (s->state == SNAPSHOT_ASKING || s->state == SNAPSHOT_FETCHING) &&
           s->from != offered && node_now() - s->heard_us > NODE_SNAPSHOT_SILENT_US;
}

static struct snapshot *snapshot_new(struct node *n)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    if (s) {
        s->node = n;
        s->pause = event_new(n->loop, -1, 0, pause_over, s);
    }
    node_must(s && s->pause ? 0 : -ENOMEM, "fetching a snapshot");
    return s;
}

void snapshot_offered(struct node *n, uint64_t from, uint64_t index)
{
    if (!n->snapshot)
        n->snapshot = snapshot_new(n);
    struct snapshot *s = n->snapshot;
    if (is_stranded(s, from)) {
        give_up(n, s, -ETIMEDOUT, "had");
        s->cut = false;
    }
    if (s->state != SNAPSHOT_NONE || s->working || s->is_freeing ||
        node_now() < s->retry_us)
        return;
    struct fetch_request q = {.kind = FETCH_SNAPSHOT};
    s->index = index;
    s->from = choose(n, s, from);
    s->heard_us = node_now();
    s->backoff_us = max_u64(s->backoff_us, NODE_SECOND_US);
    s->why[0] = '\0';
    fetch_cancel(n, &s->question);
    s->question.done = described;
    if (fetch_start(n, &s->question, s->from, &q, FETCH_BULK_US) == 0)
        s->state = SNAPSHOT_ASKING;
}

void snapshot_progress(const struct node *n, uint64_t *ret_bytes, uint64_t *ret_total)
{
    const struct snapshot *s = n->snapshot;
    *ret_bytes = *ret_total = 0;
    if (s && s->incoming && s->state >= SNAPSHOT_FETCHING)
        *ret_bytes = store_incoming_bytes(s->incoming, ret_total);
}

/* The threads have ended. */
void snapshot_release(struct node *n)
{
    struct snapshot *s = n->snapshot;
    if (!s)
        return;
    drop_chunks(n, s);
    event_free(s->pause);
    store_incoming_free(s->incoming);
    store_incoming_free(s->freed);
    buf_release(&s->description);
    free(s);
    n->snapshot = NULL;
}
