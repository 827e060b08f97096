/* mount_call.c - kernel requests that wait: for an operation of their own, for a commit,
 * for a pending name to be made. Each is answered exactly once, and its killed caller is
 * let go (K14). */
#include "mount_internal.h"

#include <time.h>

enum {
    WATCH_AT_ONCE = 64,     /* calls whose callers are looked at without the lock */
    WATCH_MOST = 1024,      /* and in one turn: a look costs some 20 us */
    INTERRUPT_US = 1000000, /* without a majority, until a mere signal is EINTR */
};

static struct mount_call **call_bucket(struct fs_mount *m, uint64_t id)
{
    return &m->calls[id % MOUNT_BUCKETS];
}

static struct mount_call *call_find(struct fs_mount *m, uint64_t id)
{
    struct mount_call *call = *call_bucket(m, id);
    while (call && call->id != id)
        call = call->table_next;
    return call && !call->settled ? call : NULL;
}

static void table_add(struct mount_call *call)
{
    struct mount_call **bucket = call_bucket(call->mount, call->id);
    call->table_next = *bucket;
    call->table_at = bucket;
    if (call->table_next)
        call->table_next->table_at = &call->table_next;
    *bucket = call;
    call->mount->load.calls++;
    call->mount->load.calls_most =
        max_u64(call->mount->load.calls_most, call->mount->load.calls);
}

static void table_remove(struct mount_call *call)
{
    *call->table_at = call->table_next;
    if (call->table_next)
        call->table_next->table_at = call->table_at;
    call->mount->load.calls--;
}

static void list_remove(struct mount_call *call)
{
    *call->at = call->next;
    if (call->next)
        call->next->at = call->at;
    call->at = NULL;
    call->next = NULL;
}

/* ---- Interrupts ---- */

/* With the lock held: what the call waits for goes on without it, since others wait for it
 * as well, and what they have written is not to be lost by one caller's signal. */
static bool may_leave(const struct mount_call *call, bool fatal)
{
    struct fs_backend *b = &call->mount->backend;
    return fatal ||
           (ticks_us() - call->since_us > INTERRUPT_US && !b->writable(b->context));
}

/* With the lock held. Returns the call where its caller is to be answered -EINTR now. */
static struct mount_call *call_interrupted(struct mount_call *call, bool fatal)
{
    struct fs_backend *b = &call->mount->backend;
    call->interrupted = true;
    call->fatal |= fatal;
    if (call->waits_for && may_leave(call, fatal)) {
        list_remove(call);
        call->settled = true;
        call->resume = NULL;
        return call;
    }
    if (call->lock_step && !call->waits_for)
        return lock_interrupted(call, fatal);
    if (call->submitted)
        b->interrupt(b->context, &call->request, fatal);
    return NULL;
}

/* By id: libfuse may call this for a request that is being answered at this moment. */
static void interrupt_by_id(struct fs_mount *m, uint64_t id, pid_t pid)
{
    bool fatal = caller_fate(pid) == CALLER_KILLED;
    pthread_mutex_lock(&m->lock);
    struct mount_call *call = call_find(m, id);
    struct mount_call *let_go = call ? call_interrupted(call, fatal) : NULL;
    pthread_mutex_unlock(&m->lock);
    if (let_go)
        call_finish(let_go, -EINTR);
}

static void on_interrupt(fuse_req_t req, void *data)
{
    struct fs_mount *m = fuse_req_userdata(req);
    uint64_t id = (uint64_t)(uintptr_t)data;
    pthread_mutex_lock(&m->lock);
    struct mount_call *call = call_find(m, id);
    pid_t pid = call ? call->pid : 0;
    pthread_mutex_unlock(&m->lock);
    if (call)
        interrupt_by_id(m, id, pid);
}

struct watched {
    uint64_t id;
    pid_t pid;
    bool interrupted;
};

/* With the lock held: calls of a bucket that have waited for a while. Returns how many are
 * in `to` by then. */
static size_t watch_bucket(const struct fs_mount *m, size_t at, uint64_t now,
                           struct watched to[WATCH_AT_ONCE], size_t count)
{
    for (const struct mount_call *call = m->calls[at]; call && count < WATCH_AT_ONCE;
         call = call->table_next)
        if (!call->settled && now - call->since_us >= MOUNT_WATCH_US)
            to[count++] = (struct watched){call->id, call->pid, call->interrupted};
    return count;
}

static void watch_look(struct fs_mount *m, const struct watched *calls, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (calls[i].interrupted || caller_fate(calls[i].pid) != CALLER_LIVES)
            interrupt_by_id(m, calls[i].id, calls[i].pid);
}

/* The kernel interrupts a request once; a SIGKILL after a SIGCHLD, or while an exiting
 * process closes its files, is seen only by looking. One who exits, and may or may not have
 * been killed since, is let go like one who was interrupted. Where more wait than are
 * looked at in one turn, the next one goes on behind them. */
void calls_watch(struct fs_mount *m)
{
    struct watched some[WATCH_AT_ONCE];
    size_t count = 0, looked = 0;
    uint64_t now = ticks_us();
    for (size_t i = 0; i < MOUNT_BUCKETS && m->load.calls && looked < WATCH_MOST; i++) {
        count = watch_bucket(m, m->watch_at, now, some, count);
        m->watch_at = (m->watch_at + 1) % MOUNT_BUCKETS;
        if (count < WATCH_AT_ONCE / 2 && i + 1 < MOUNT_BUCKETS)
            continue;
        pthread_mutex_unlock(&m->lock);
        watch_look(m, some, count);
        pthread_mutex_lock(&m->lock);
        looked += count;
        count = 0;
    }
}

/* ---- Life of a call ---- */

/* With the lock held. The worker that waits here reads no further request, so that the
 * callers wait in the kernel: answers come from the loop, and need no worker. False: the
 * caller is being killed meanwhile, who is not known by a call yet (K14). */
static bool wait_for_room(struct fs_mount *m, pid_t pid)
{
    bool dying = false;
    if (m->load.calls < FS_CALLS_MOST)
        return true;
    m->load.calls_waits++;
    m->calls_waiting++;
    while (m->load.calls >= FS_CALLS_MOST && !dying) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until = ns_timespec(timespec_ns(until) + (int64_t)MOUNT_WATCH_US * 1000);
        if (pthread_cond_clockwait(&m->idle, &m->lock, CLOCK_MONOTONIC, &until) == 0)
            continue;
        pthread_mutex_unlock(&m->lock);
        dying = caller_fate(pid) == CALLER_KILLED;
        pthread_mutex_lock(&m->lock);
    }
    m->calls_waiting--;
    return !dying;
}

struct mount_call *call_new(struct fs_mount *m, fuse_req_t req,
                            void (*answer)(struct mount_call *call, int error))
{
    struct mount_call *call = calloc(1, sizeof(*call));
    if (!call) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    call->mount = m;
    call->req = req;
    call->answer = answer;
    call->pid = fuse_req_ctx(req)->pid;
    call->since_us = ticks_us();
    pthread_mutex_lock(&m->lock);
    if (!wait_for_room(m, call->pid)) {
        pthread_mutex_unlock(&m->lock);
        free(call);
        fuse_reply_err(req, EINTR);
        return NULL;
    }
    call->id = m->next_call++;
    table_add(call);
    committer_wake(m, call->since_us + MOUNT_WATCH_US);
    pthread_mutex_unlock(&m->lock);
    fuse_req_interrupt_func(req, on_interrupt, (void *)(uintptr_t)call->id);
    return call;
}

void call_touch(struct mount_call *call, uint64_t parent, const char *name)
{
    ensure(call->touched < (int)array_length(call->touches));
    call->touches[call->touched].parent = parent;
    call->touches[call->touched++].name = name;
}

void call_finish(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    if (call->resume) {
        void (*resume)(struct mount_call *, int) = call->resume;
        call->resume = NULL;
        resume(call, error);
        return;
    }
    call->answer(call, error);
    pthread_mutex_lock(&m->lock);
    table_remove(call);
    if (call->in_section)
        section_end(m, call->section);
    if (m->flushing || m->calls_waiting)
        pthread_cond_broadcast(&m->idle);
    pthread_mutex_unlock(&m->lock);
    buf_release(&call->request.op);
    free(call);
}

static void call_done(struct fs_request *request)
{
    struct mount_call *call = container_of(request, struct mount_call, request);
    pthread_mutex_lock(&call->mount->lock);
    call->settled = true;
    call->submitted = false;
    pthread_mutex_unlock(&call->mount->lock);
    call_finish(call, request->error);
}

void call_wait(struct mount_call *call, struct mount_call **list, struct file *file)
{
    call->settled = false;
    call->waits_for = file;
    call->next = *list;
    call->at = list;
    if (call->next)
        call->next->at = &call->next;
    *list = call;
}

void call_park(struct mount_call *call, struct mount_call **list)
{
    call_wait(call, list, NULL);
}

void call_unpark(struct mount_call *call)
{
    list_remove(call);
}

struct mount_call *calls_take(struct mount_call **list)
{
    struct mount_call *calls = *list;
    for (struct mount_call *call = calls; call; call = call->next) {
        call->settled = true;
        call->waits_for = NULL;
        call->at = NULL;
    }
    *list = NULL;
    return calls;
}

void calls_finish(struct mount_call *calls, int error)
{
    while (calls) {
        struct mount_call *call = calls;
        calls = call->next;
        call->next = NULL;
        call_finish(call, error);
    }
}

static struct pending *touched_pending(const struct mount_call *call)
{
    for (int i = 0; i < call->touched; i++) {
        const char *name = call->touches[i].name;
        uint64_t parent = call->touches[i].parent;
        struct pending *p = name ? pending_find(call->mount, parent, name, strlen(name))
                                 : pending_in(call->mount, parent);
        if (p)
            return p;
    }
    return NULL;
}

void call_submit(struct mount_call *call)
{
    struct fs_backend *b = &call->mount->backend;
    call->settled = false;
    call->submitted = true;
    call->request.session = 0; /* that of the step before may be over */
    call->request.done = call_done;
    b->submit(b->context, &call->request);
    if (call->interrupted)
        b->interrupt(b->context, &call->request, call->fatal);
}

/* What the kernel's number stands for may have been made meanwhile, by this host or by another
 * one, whose it is an alias of then. */
static void subject_settle(struct mount_call *call)
{
    const struct file *file = file_find(call->mount, call->subject);
    uint64_t inode = file ? file->inode : call->subject;
    fs_op_retarget(&call->request.op, inode);
    call->request.subject = inode;
}

/* What is buffered of its subject now is waited for, but not what is written meanwhile. */
static struct overlay_layer *written_before(struct mount_call *call, struct file **ret)
{
    if (!call->after_writes)
        return NULL;
    call->after_writes = false;
    *ret = file_find(call->mount, call->subject);
    struct overlay_layer *l = *ret ? (*ret)->overlay.last : NULL;
    return l;
}

/* With the lock held: waits for a pending name, or submits. */
static void call_advance(struct mount_call *call);

/* A pending name was made, or failed to be: both are good enough to go on. On the loop.
 */
static void call_resume(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    call_advance(call);
    if (m->send_first)
        committer_wake(m, 0);
    pthread_mutex_unlock(&m->lock);
}

static void call_advance(struct mount_call *call)
{
    struct pending *p = touched_pending(call);
    struct file *file = p ? p->file : NULL;
    struct overlay_layer *l = p ? file->overlay.first : written_before(call, &file);
    if (l) {
        call->resume = call_resume;
        call_wait(call, &l->waiting, file);
        file_seal(file, l);
        return;
    }
    if (call->subject)
        subject_settle(call);
    call_submit(call);
}

/* A file that has no inode yet is made first, under the name it was opened by. */
void call_subject(struct mount_call *call, uint64_t inode)
{
    struct fs_mount *m = call->mount;
    call->subject = inode;
    pthread_mutex_lock(&m->lock);
    const struct file *file = file_find(m, inode);
    const struct pending *p = file ? file->pending : NULL;
    if (p) {
        memcpy(call->names[1], p->name, p->name_size);
        call->names[1][p->name_size] = '\0';
        call_touch(call, p->parent, call->names[1]);
    }
    pthread_mutex_unlock(&m->lock);
}

void call_start(struct mount_call *call, const struct fs_op *op)
{
    struct fs_mount *m = call->mount;
    fs_op_encode(op, &call->request.op);
    call->request.subject = fs_op_subject(op);
    if (call->request.op.failed) {
        call_finish(call, -ENOMEM);
        return;
    }
    pthread_mutex_lock(&m->lock);
    call_advance(call);
    mount_unlock_and_send(m);
}

void answer_nothing(struct mount_call *call, int error)
{
    fuse_reply_err(call->req, -error);
}
