/*
 * locker.c - who locks: a thread at each node's mount, with ranges of one inode, as its kernel
 * would. V23: while one believes in its lock, by right of its session as its node sees it
 * (S6), nobody else believes in one that excludes it; but where its node was removed
 * meanwhile. V24: what a record holds goes together, and is of sessions that live.
 *
 * A lock that is queued is granted when its ticket waits no more in what is applied here.
 */
#include "ledger.h"
#include "sim.h"

#include <errno.h>

enum { BYTES = 4, LOOKS = 40 };

struct locker {
    struct sim_node *node;
    struct fs_request request;
    bool done;
    struct fs_lock lock;
    uint64_t session;
    bool holds; /* since a grant, until it is about to unlock */
};

static struct locker lockers[SIM_NODES];
static uint64_t tickets;
static bool frozen;

void lockers_freeze(void)
{
    frozen = true;
}

/* ---- Operations ---- */

static void request_done(struct fs_request *request)
{
    struct locker *l = container_of(request, struct locker, request);
    l->done = true;
    sim_wake(l, true, chance_below(CHANCE_CPU, 20));
}

static int submit(struct locker *l, enum fs_op_type type, bool waits, uint64_t ticket)
{
    const struct fs_backend *b = l->node->backend;
    struct fs_op op = {.type = type,
                       .flags = waits ? FS_LOCK_WAITS : 0,
                       .inode = FS_ROOT_INODE,
                       .lock = l->lock};
    if (!b)
        return -EIO;
    op.lock.ticket = ticket;
    buf_clear(&l->request.op);
    fs_op_encode(&op, &l->request.op);
    l->request.subject = fs_op_subject(&op);
    l->request.session = type == FS_UNLOCK ? l->session : 0;
    l->request.done = request_done;
    l->done = false;
    b->submit(b->context, &l->request);
    while (!l->done)
        sim_wait(l, UINT64_MAX);
    return l->request.error;
}

static void reader_leaves(struct sim_node *n)
{
    if (--n->readers == 0)
        sim_wake(&n->readers, true, 0);
}

/* Whether the request still waits; an error of the view: it does, as far as is known. */
static bool is_queued(struct locker *l, uint64_t ticket)
{
    struct sim_node *n = l->node;
    struct fs_locks locks = {0};
    bool found = false;
    if (!n->backend)
        return true;
    n->readers++;
    int error = fs_locks_read(&n->backend->view, FS_ROOT_INODE, &locks);
    reader_leaves(n);
    for (size_t i = locks.held; i < locks.count; i++)
        found |= locks.at[i].session == l->session && locks.at[i].ticket == ticket;
    fs_locks_release(&locks);
    return error || found;
}

/* ---- Belief ---- */

static bool believes(const struct locker *l)
{
    struct sim_node *before = sim_at_node;
    bool sure = false;
    if (!l->holds || !l->node->up || !l->node->backend)
        return false;
    sim_at_node = l->node; /* by its clock */
    uint64_t session = l->node->backend->session(l->node->backend->context, &sure);
    sim_at_node = before;
    return sure && session == l->session && !ledger_took(session);
}

/* Of two sessions. Not fs_lock_conflicts(), which is under test. */
static bool exclude(const struct fs_lock *a, const struct fs_lock *b)
{
    return (a->writes || b->writes) && a->start <= b->end && b->start <= a->end;
}

static void check_alone(const struct locker *l)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        const struct locker *other = &lockers[i];
        if (other != l && believes(other) && exclude(&l->lock, &other->lock))
            sim_fail("V23: %s and %s both hold a lock", l->node->name, other->node->name);
    }
}

/* ---- A round: lock, hold, unlock ---- */

static void choose(struct locker *l)
{
    uint64_t a = chance_below(CHANCE_CLIENT, BYTES),
             b = chance_below(CHANCE_CLIENT, BYTES);
    l->lock = (struct fs_lock){.owner = 1,
                               .writes = chance_below(CHANCE_CLIENT, 3) > 0,
                               .start = min_u64(a, b),
                               .end = max_u64(a, b)};
}

/* True: it is granted. */
static bool await(struct locker *l, uint64_t ticket)
{
    for (int i = 0; i < LOOKS && l->node->backend && !frozen; i++) {
        if (!is_queued(l, ticket))
            return true;
        sim_sleep(chance_latency(CHANCE_CLIENT, plan.think_us));
    }
    int error = submit(l, FS_UNLOCK, false, ticket);
    return !error && !l->request.result.value;
}

static void hold(struct locker *l)
{
    l->lock.session = l->session;
    l->holds = true;
    if (believes(l)) {
        check_alone(l);
        fault(locked);
        sim_sleep(chance_latency(CHANCE_CLIENT, plan.think_us));
        if (believes(l))
            check_alone(l);
    }
    l->holds = false; /* whatever becomes of the unlocking */
}

static void lock_once(struct locker *l)
{
    uint64_t ticket = ++tickets;
    bool waits = chance_below(CHANCE_CLIENT, 2);
    choose(l);
    int error = submit(l, FS_LOCK, waits, waits ? ticket : 0);
    l->session = l->request.session;
    uint64_t outcome = l->request.result.value;
    if (!error &&
        (outcome == FS_LOCK_GRANTED || (outcome == FS_LOCK_QUEUED && await(l, ticket))))
        hold(l);
    l->lock.start = 0;
    l->lock.end = FS_LOCK_END;
    while (l->node->backend && l->session && submit(l, FS_UNLOCK, false, 0) == -EROFS)
        sim_sleep(plan.think_us);
}

static void *locker_main(void *arg)
{
    struct locker *l = arg;
    while (l->node->backend) {
        sim_sleep(chance_latency(CHANCE_CLIENT, plan.think_us));
        if (!frozen && l->node->backend)
            lock_once(l);
    }
    return NULL;
}

void lockers_node_up(struct sim_node *n)
{
    struct locker *l = &lockers[n->number];
    *l = (struct locker){.node = n};
    if (!plan.lockers)
        return;
    sim_thread_new(n, locker_main, l, chance_below(CHANCE_CLIENT, plan.think_us));
}

void lockers_node_down(struct sim_node *n)
{
    lockers[n->number].holds = false;
}

/* ---- V24 ---- */

void lockers_check(struct sim_node *n)
{
    struct fs_key key;
    struct buf value = {0};
    struct fs_locks locks = {0};
    fs_key_locks(&key, FS_ROOT_INODE);
    if (!store_is_ready(n->node->store) ||
        store_get(n->node->store, key.bytes, key.size, 0, &value, NULL) < 0)
        goto out; /* none, or they cannot be read now */
    if (fs_locks_decode(value.data, value.length, &locks) < 0)
        sim_fail("V24: locks that %s cannot read", n->name);
    for (size_t i = 0; i < locks.count; i++) {
        if (!session_find(n->node, locks.at[i].session))
            sim_fail("V24: %s knows a lock of a session that is over", n->name);
        for (size_t k = 0; k < i && i < locks.held; k++)
            if (locks.at[i].session != locks.at[k].session &&
                exclude(&locks.at[i], &locks.at[k]))
                sim_fail("V24: two locks that %s knows conflict", n->name);
    }
out:
    buf_release(&value);
    fs_locks_release(&locks);
}
