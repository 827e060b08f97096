/*
 * mount_lock.c - requests about locks: flock, fcntl, OFD, which the kernel tells apart by
 * their owner alone (K13). mount_internal.h draws the way of one.
 *
 * What was written under a lock is committed before it is unlocked, and pages are dropped
 * before one is granted: so who holds it sees what those wrote who have held it before.
 */
#include "mount_internal.h"

#include <sys/file.h>

static const struct fs_lock everything = {.end = FS_LOCK_END};

/* With the lock held: the newest layer that is to be committed; NULL: none. */
static struct overlay_layer *last_layer(const struct file *file)
{
    struct overlay_layer *last = file->overlay.last;
    return last;
}

/* ---- Answers ---- */

static void answer_lock(struct mount_call *call, int error)
{
    fuse_reply_err(call->req, -error);
}

/* With the lock held: it will never be answered that this waits. */
static void take_back(struct mount_call *call)
{
    struct file *file = call->handle->file;
    if (!call->lock_waits)
        return;
    lock_drop_new(file, &call->lock, 0, false);
    lock_drops_send(file, false);
}

bool lock_tells_nothing(const struct mount_call *call)
{
    return call->answer == answer_lock;
}

static void finish_locked(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    call->settled = true;
    pthread_mutex_unlock(&m->lock);
    call_finish(call, error);
}

/* ---- The operation ---- */

/* With the lock held. */
static void submit(struct mount_call *call, const struct fs_op *op, uint64_t session,
                   void (*done)(struct fs_request *request))
{
    struct fs_mount *m = call->mount;
    buf_clear(&call->request.op);
    fs_op_encode(op, &call->request.op);
    if (call->request.op.failed)
        log_fatal("out of memory for a lock");
    call->request.subject = fs_op_subject(op);
    call->request.done = done;
    call->request.session = session;
    call->settled = false;
    call->submitted = true;
    m->backend.submit(m->backend.context, &call->request);
}

/* With the lock held. */
static void lock_answered(struct mount_call *call, int error)
{
    struct handle *handle = call->handle;
    uint64_t outcome = call->request.result.value;
    if (error) {
        take_back(call);
        finish_locked(call, error == -ENOENT ? -ESTALE : error);
    } else if (outcome == FS_LOCK_REFUSED) {
        finish_locked(call, -EAGAIN);
    } else {
        handle_locks_granted(handle, call->request.session);
        notify_look(call->mount, call);
        pthread_mutex_unlock(&call->mount->lock);
    }
}

static void lock_done(struct fs_request *request)
{
    struct mount_call *call = container_of(request, struct mount_call, request);
    pthread_mutex_lock(&call->mount->lock);
    call->submitted = false;
    lock_answered(call, request->error);
}

static void unlock_done(struct fs_request *request)
{
    struct mount_call *call = container_of(request, struct mount_call, request);
    struct file *file = call->handle->file;
    int error = request->error;
    pthread_mutex_lock(&call->mount->lock);
    call->submitted = false;
    if (error == -EINTR || error == -EROFS || error == -ENOSPC) {
        lock_drop_new(file, &call->lock, call->lock_session, false);
        lock_drops_send(file, false);
    }
    if (error == -ENOENT || error == -EIO)
        error = 0; /* the file is gone, or the session: so is the lock */
    finish_locked(call, call->lock_error ? call->lock_error : error);
}

static bool is_whole(const struct fs_lock *lock)
{
    return lock->start == 0 && lock->end == FS_LOCK_END;
}

static void ask(struct mount_call *call, int error);

static void ask_after_drop(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    if (!error) {
        ask(call, 0);
        return;
    }
    pthread_mutex_lock(&m->lock);
    finish_locked(call, error);
}

/* With the lock held. What its owner has unlocked, and what has not come through yet, would else
 * take away what is granted now. */
static bool waits_for_drop(struct mount_call *call, struct file *file)
{
    struct lock_drop *d = lock_drop_find(file, &call->lock);
    if (!d || call->mount->ended)
        return false;
    lock_drops_hurry(file);
    call->resume = ask_after_drop;
    call_wait(call, &d->waiting, file);
    return true;
}

/* What had to be committed first is. */
static void ask(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    struct file *file = call->handle->file;
    if (!file->lost && waits_for_drop(call, file)) {
        pthread_mutex_unlock(&m->lock);
        return;
    }
    struct fs_op op = {.type = FS_LOCK,
                       .flags = call->lock_waits ? FS_LOCK_WAITS : 0,
                       .inode = file->inode,
                       .lock = call->lock};
    call->lock_step = LOCK_ASKED;
    if (file->lost)
        finish_locked(call, -ESTALE);
    else {
        submit(call, &op, call->handle->lock_session, lock_done);
        pthread_mutex_unlock(&m->lock);
    }
}

static void ask_to_unlock(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    struct handle *handle = call->handle;
    struct fs_op op = {
        .type = FS_UNLOCK, .inode = handle->file->inode, .lock = call->lock};
    call->lock_step = LOCK_ASKED;
    call->lock_session =
        file_locks_owned_in(handle->file, call->lock.kind, call->lock.owner);
    submit(call, &op, call->lock_session, unlock_done);
    if (is_whole(&call->lock))
        file_locks_forget(handle->file, call->lock.kind, call->lock.owner);
    pthread_mutex_unlock(&m->lock);
}

/* With the lock held, which is given up. */
static void commit_then(struct mount_call *call, struct overlay_layer *layer,
                        void (*then)(struct mount_call *call, int error))
{
    struct fs_mount *m = call->mount;
    struct file *file = call->handle->file;
    call->lock_step = LOCK_COMMIT;
    call->resume = then;
    if (layer) {
        call_wait(call, &layer->waiting, file);
        file_seal(file, layer);
    }
    mount_unlock_and_send(m);
    if (!layer)
        call_finish(call, 0);
}

/* ---- Looking at the record, on the notifier ---- */

enum lock_state { STATE_WAITS, STATE_HELD, STATE_GONE, STATE_FAILED };

static bool is_mine(const struct fs_lock *l, const struct mount_call *call)
{
    return l->session == call->request.session && l->kind == call->lock.kind;
}

/* The owner's locks may have become one, or been split since: all of its range is held. */
static bool is_covered(const struct fs_locks *locks, const struct mount_call *call)
{
    const struct fs_lock *wanted = &call->lock;
    uint64_t next = wanted->start;
    for (bool found = true; found && next <= wanted->end;) {
        found = false;
        for (size_t i = 0; i < locks->held; i++) {
            const struct fs_lock *l = &locks->at[i];
            if (!is_mine(l, call) || l->owner != wanted->owner || l->start > next ||
                l->end < next)
                continue;
            next = l->end + 1;
            found = true;
        }
    }
    return next > wanted->end;
}

static enum lock_state state_of(struct fs_mount *m, uint64_t inode,
                                const struct mount_call *call)
{
    struct fs_locks locks = {0};
    if (fs_locks_read(&m->backend.view, inode, &locks))
        return STATE_FAILED;
    enum lock_state state = is_covered(&locks, call) ? STATE_HELD : STATE_GONE;
    for (size_t i = locks.held; i < locks.count; i++)
        if (is_mine(&locks.at[i], call) && locks.at[i].ticket == call->lock.ticket)
            state = STATE_WAITS;
    fs_locks_release(&locks);
    return state;
}

/* Pages of before may be older than what the last holder wrote. Not dropped are those that
 * were read since the same drop for the same record: whoever locks often reads from them. */
static void drop_pages(struct fs_mount *m, struct file *file, uint64_t inode)
{
    struct fs_inode now = {0};
    struct buf record = {0};
    int error = fs_stat(&m->backend.view, inode, &record, &now);
    buf_release(&record);
    pthread_mutex_lock(&m->lock);
    bool drops = error || file->locked_version != now.version;
    file->locked_version = error ? 0 : now.version;
    pthread_mutex_unlock(&m->lock);
    if (drops)
        fuse_lowlevel_notify_inval_inode(m->session, inode, 0, 0);
}

static void cancel_done(struct fs_request *request);

/* With the lock held. */
static void cancel(struct mount_call *call)
{
    struct fs_op op = {
        .type = FS_UNLOCK, .inode = call->handle->file->inode, .lock = call->lock};
    call->lock_step = LOCK_CANCEL;
    submit(call, &op, call->handle->lock_session, cancel_done);
}

static void cancel_done(struct fs_request *request)
{
    struct mount_call *call = container_of(request, struct mount_call, request);
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    call->submitted = false;
    if (!request->error && !request->result.value) { /* too late: it was granted */
        call->interrupted = false;
        request->result.value = FS_LOCK_QUEUED;
        notify_look(m, call);
        pthread_mutex_unlock(&m->lock);
        return;
    }
    if (request->error)
        take_back(call);
    finish_locked(call, -EINTR);
}

/* With the lock held, which is given up. True: the call waits, or is being taken back. */
static bool wait_on(struct mount_call *call, struct file *file, uint64_t seen)
{
    struct fs_mount *m = call->mount;
    bool waits = file->locks_changed == seen;
    if (waits && m->locks_ended) {
        call->settled = true;
    } else if (waits && call->interrupted) {
        cancel(call);
    } else if (waits) {
        call->lock_step = LOCK_PARKED;
        call_park(call, &file->lockers);
    }
    bool ended = waits && m->locks_ended;
    pthread_mutex_unlock(&m->lock);
    if (ended)
        call_finish(call, -EIO);
    return waits;
}

/* The record says that it is held; whether that counts yet is up to the session. */
static void grant(struct mount_call *call, struct file *file, uint64_t inode,
                  enum lock_state state)
{
    struct fs_mount *m = call->mount;
    if (state == STATE_HELD)
        drop_pages(m, file, inode);
    pthread_mutex_lock(&m->lock);
    int error = handle_check(call->handle);
    if (!error && state == STATE_FAILED) {
        take_back(call);
        error = -EIO;
    }
    finish_locked(call, error);
}

static void getlk_look(struct mount_call *call);

void lock_look(struct mount_call *call)
{
    struct fs_mount *m = call->mount;
    enum lock_state state;
    if (call->answer != answer_lock) {
        getlk_look(call);
        return;
    }
    for (;;) {
        pthread_mutex_lock(&m->lock);
        struct file *file = call->handle->file;
        uint64_t seen = file->locks_changed, inode = file->inode;
        bool queued = call->request.result.value == FS_LOCK_QUEUED;
        pthread_mutex_unlock(&m->lock);
        state = queued ? state_of(m, inode, call) : STATE_HELD;
        if (state != STATE_WAITS) {
            grant(call, file, inode, state);
            return;
        }
        pthread_mutex_lock(&m->lock);
        if (wait_on(call, file, seen))
            return;
    }
}

/* ---- Interrupts, and the end ---- */

struct mount_call *lock_interrupted(struct mount_call *call, bool fatal)
{
    struct fs_backend *b = &call->mount->backend;
    if (call->submitted) {
        b->interrupt(b->context, &call->request, fatal);
        return NULL;
    }
    if (call->lock_step != LOCK_PARKED)
        return NULL; /* it is being looked at, and sees that it was interrupted */
    call_unpark(call);
    if (!fatal) {
        cancel(call);
        return NULL;
    }
    take_back(call);
    call->settled = true;
    return call;
}

void locks_end(struct fs_mount *m)
{
    struct mount_call *all = NULL;
    pthread_mutex_lock(&m->lock);
    m->locks_ended = true;
    for (size_t i = 0; i < MOUNT_BUCKETS; i++)
        for (struct file *file = m->files[i]; file; file = file->next)
            while (file->lockers) {
                struct mount_call *call = file->lockers;
                call_unpark(call);
                call->settled = true;
                call->next = all;
                all = call;
            }
    pthread_mutex_unlock(&m->lock);
    calls_finish(all, -EIO);
}

/* ---- Requests ---- */

static struct mount_call *lock_call(fuse_req_t req, struct fuse_file_info *fi,
                                    const struct fs_lock *lock)
{
    struct mount_call *call = call_new(fuse_req_userdata(req), req, answer_lock);
    if (!call)
        return NULL;
    call->handle = handle_of(fi);
    call->lock = *lock;
    call->lock.owner = fi->lock_owner;
    call->lock_step = LOCK_COMMIT;
    return call;
}

static void set_lock(fuse_req_t req, struct fuse_file_info *fi,
                     const struct fs_lock *lock, bool waits)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct mount_call *call = lock_call(req, fi, lock);
    if (!call)
        return;
    pthread_mutex_lock(&m->lock);
    struct file *file = call->handle->file;
    call->lock_waits = waits;
    call->lock.ticket = waits ? call->id : 0;
    int error = handle_locks_note(call->handle, call->lock.kind, call->lock.owner);
    if (error) {
        finish_locked(call, error);
        return;
    }
    /* A name that is not made yet has no inode to be locked; and what this host is about to
     * unlock is unlocked first. */
    lock_drops_hurry(file);
    commit_then(call, file->pending ? last_layer(file) : lock_drops_layer(file), ask);
}

static void unset_lock(fuse_req_t req, struct fuse_file_info *fi,
                       const struct fs_lock *lock)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct mount_call *call = lock_call(req, fi, lock);
    if (!call)
        return;
    pthread_mutex_lock(&m->lock);
    struct file *file = call->handle->file;
    if (!file_locks_find(file, call->lock.kind, call->lock.owner)) {
        finish_locked(call, 0);
        return;
    }
    commit_then(call, last_layer(file), ask_to_unlock);
}

void on_setlk(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi,
              struct flock *lock, int sleep)
{
    struct fs_lock wanted = {
        .kind = FS_LOCK_FCNTL,
        .pid = (uint32_t)lock->l_pid,
        .writes = lock->l_type == F_WRLCK,
        .start = (uint64_t)lock->l_start,
        .end = lock->l_len ? (uint64_t)(lock->l_start + lock->l_len - 1) : FS_LOCK_END,
    };
    if (lock->l_type == F_UNLCK)
        unset_lock(req, fi, &wanted);
    else
        set_lock(req, fi, &wanted, sleep);
}

void on_flock(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi, int op)
{
    struct fs_lock wanted = everything;
    wanted.kind = FS_LOCK_FLOCK;
    wanted.pid = (uint32_t)fuse_req_ctx(req)->pid;
    wanted.writes = (op & ~LOCK_NB) == LOCK_EX;
    if ((op & ~LOCK_NB) == LOCK_UN)
        unset_lock(req, fi, &wanted);
    else
        set_lock(req, fi, &wanted, !(op & LOCK_NB));
}

/* ---- GETLK ---- */

/* It replies itself where there is something to say. */
static void answer_getlk(struct mount_call *call, int error)
{
    if (error)
        fuse_reply_err(call->req, -error);
}

/* Who is on another host has no number here. */
static void reply_holder(struct mount_call *call, const struct fs_lock *l)
{
    struct fs_mount *m = call->mount;
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    bool sure;
    if (l) {
        lock.l_type = l->writes ? F_WRLCK : F_RDLCK;
        lock.l_start = (off_t)l->start;
        lock.l_len = l->end == FS_LOCK_END ? 0 : (off_t)(l->end - l->start + 1);
        if (l->session == m->backend.session(m->backend.context, &sure))
            lock.l_pid = (pid_t)l->pid;
    }
    fuse_reply_lock(call->req, &lock);
}

/* Of those that are held, the first in the file. */
static const struct fs_lock *first_conflict(const struct fs_locks *locks,
                                            const struct fs_lock *wanted)
{
    const struct fs_lock *first = NULL;
    for (size_t i = 0; i < locks->held; i++) {
        const struct fs_lock *l = &locks->at[i];
        if (fs_lock_conflicts(l, wanted) && (!first || l->start < first->start))
            first = l;
    }
    return first;
}

static void getlk_look(struct mount_call *call)
{
    struct fs_mount *m = call->mount;
    struct fs_locks locks = {0};
    pthread_mutex_lock(&m->lock);
    uint64_t inode = call->handle->file->inode;
    call->settled = true;
    pthread_mutex_unlock(&m->lock);
    struct fs_lock wanted = call->lock;
    wanted.session = call->request.session;
    int error = fs_locks_read(&m->backend.view, inode, &locks);
    if (!error)
        reply_holder(call, first_conflict(&locks, &wanted));
    fs_locks_release(&locks);
    call_finish(call, error);
}

static void getlk_done(struct fs_request *request)
{
    struct mount_call *call = container_of(request, struct mount_call, request);
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    call->submitted = false;
    if (request->error) {
        finish_locked(call, request->error == -ENOENT ? -ESTALE : request->error);
        return;
    }
    notify_look(m, call);
    pthread_mutex_unlock(&m->lock);
}

/* An operation that changes nothing first: what was granted when it was asked is known here
 * then. */
void on_getlk(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi,
              struct flock *lock)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct fs_lock wanted = {
        .kind = FS_LOCK_FCNTL,
        .writes = lock->l_type == F_WRLCK,
        .start = (uint64_t)lock->l_start,
        .end = lock->l_len ? (uint64_t)(lock->l_start + lock->l_len - 1) : FS_LOCK_END,
    };
    struct mount_call *call = lock_call(req, fi, &wanted);
    if (!call)
        return;
    call->answer = answer_getlk;
    pthread_mutex_lock(&m->lock);
    struct file *file = call->handle->file;
    struct fs_op op = {.type = FS_SETATTR, .inode = file->inode};
    if (file->pending) { /* nobody can have locked it */
        pthread_mutex_unlock(&m->lock);
        reply_holder(call, NULL);
        call_finish(call, 0);
        return;
    }
    call->lock_step = LOCK_ASKED;
    submit(call, &op, call->handle->lock_session, getlk_done);
    pthread_mutex_unlock(&m->lock);
}

/* ---- FLUSH ---- */

/* Where the caller was let go before that, nobody else would. */
static void answer_flush(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    if (call->lock_step == LOCK_COMMIT) {
        pthread_mutex_lock(&m->lock);
        struct file *file = call->handle->file;
        const struct fs_lock *lock = &call->lock;
        uint64_t session = file_locks_owned_in(file, lock->kind, lock->owner);
        lock_drop_new(file, lock, session, true);
        file_locks_forget(file, lock->kind, lock->owner);
        lock_drops_send(file, false);
        pthread_mutex_unlock(&m->lock);
    }
    fuse_reply_err(call->req, -error);
}

static void flush_then_unlock(struct mount_call *call, int error)
{
    call->lock_error = error;
    ask_to_unlock(call, error);
}

bool lock_flushes(struct mount_call *call, struct handle *handle, uint64_t owner)
{
    if (!file_locks_find(handle->file, FS_LOCK_FCNTL, owner))
        return false;
    call->handle = handle;
    call->lock = everything;
    call->lock.kind = FS_LOCK_FCNTL;
    call->lock.owner = owner;
    call->lock_step = LOCK_COMMIT;
    call->answer = answer_flush;
    call->resume = flush_then_unlock;
    return true;
}
