/*
 * mount_locked.c - whose locks there are on this host: by handle, since a RELEASE names
 * nobody (K13); what is to be unlocked though nobody waits for it; and whether the session
 * that all of it belongs to is alive (S6).
 *
 * A lock is held by right of this node's session. The session dies when the leader has heard
 * nothing for some time, and others get the lock then. This node's own view ends earlier:
 * from then on a handle that has had locks says EIO, until it is closed, whatever becomes
 * of the session. So that the view is never older than it need be, an operation that changes
 * nothing is sent every second while there are locks.
 */
#include "mount_internal.h"

/* ---- By handle ---- */

/* With the lock held: lock_tick() is due within a second. */
static void tick_soon(struct fs_mount *m)
{
    uint64_t now = ticks_us();
    if (m->session_due_us <= now)
        m->session_due_us = now + MOUNT_SESSION_US;
    committer_wake(m, m->session_due_us);
}

struct handle_lock *handle_locks_find(const struct handle *handle, uint8_t kind,
                                      uint64_t owner)
{
    struct handle_lock *l = handle->locks;
    while (l && (l->kind != kind || l->owner != owner))
        l = l->next;
    return l;
}

bool file_locks_find(const struct file *file, uint8_t kind, uint64_t owner)
{
    for (const struct handle *h = file->handles; h; h = h->next)
        if (handle_locks_find(h, kind, owner))
            return true;
    return false;
}

uint64_t file_locks_owned_in(const struct file *file, uint8_t kind, uint64_t owner)
{
    for (const struct handle *h = file->handles; h; h = h->next)
        if (h->lock_session && handle_locks_find(h, kind, owner))
            return h->lock_session;
    return 0;
}

static void has_none(struct handle *handle)
{
    handle->lock_session = 0;
    handle->file->mount->lock_handles--;
}

int handle_locks_note(struct handle *handle, uint8_t kind, uint64_t owner)
{
    struct fs_mount *m = handle->file->mount;
    if (handle_check(handle))
        return -EIO;
    if (handle_locks_find(handle, kind, owner))
        return 0;
    struct handle_lock *l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    if (!handle->locks) {
        m->lock_handles++;
        tick_soon(m);
    }
    *l = (struct handle_lock){.next = handle->locks, .owner = owner, .kind = kind};
    handle->locks = l;
    return 0;
}

void handle_locks_granted(struct handle *handle, uint64_t session)
{
    if (!handle->lock_session)
        handle->lock_session = session;
}

static void forget(struct handle *handle, uint8_t kind, uint64_t owner)
{
    struct handle_lock **at = &handle->locks;
    while (*at && ((*at)->kind != kind || (*at)->owner != owner))
        at = &(*at)->next;
    struct handle_lock *gone = *at;
    if (!gone)
        return;
    *at = gone->next;
    free(gone);
    if (!handle->locks)
        has_none(handle);
}

void file_locks_forget(struct file *file, uint8_t kind, uint64_t owner)
{
    for (struct handle *h = file->handles; h; h = h->next)
        forget(h, kind, owner);
}

void handle_locks_free(struct handle *handle)
{
    while (handle->locks)
        forget(handle, handle->locks->kind, handle->locks->owner);
}

/* ---- The session ---- */

int handle_check(struct handle *handle)
{
    struct file *file = handle->file;
    struct fs_mount *m = file->mount;
    bool sure;
    if (handle->lock_lost)
        return -EIO;
    if (!handle->lock_session)
        return 0;
    uint64_t session = m->backend.session(m->backend.context, &sure);
    if (sure && session == handle->lock_session)
        return 0;
    handle->lock_lost = true;
    log_warn("the locks of inode %llu that were held here are lost: this node was out of "
             "touch for too long; who has it open gets EIO until it is closed",
             (unsigned long long)file->inode);
    notify_drop(m, file->inode, NULL, 0); /* and no page of it is read */
    return -EIO;
}

/* A handle that has lost its locks stands for none. */
uint64_t file_locks_session(const struct file *file)
{
    if (!file->mount->lock_handles)
        return 0;
    for (struct handle *h = file->handles; h; h = h->next)
        if (h->lock_session && !handle_check(h))
            return h->lock_session;
    return 0;
}

/* Sessions are numbered upwards. */
static uint64_t oldest_session(const struct file *file)
{
    uint64_t oldest = 0;
    for (const struct handle *h = file->handles; h; h = h->next)
        if (h->lock_session && (!oldest || h->lock_session < oldest))
            oldest = h->lock_session;
    return oldest;
}

uint64_t file_part_sessions(struct file *file, bool pages)
{
    uint64_t session = pages ? oldest_session(file) : file_locks_session(file);
    const struct overlay_layer *l = overlay_open(&file->overlay);
    if (l && l->kind != OVERLAY_REPLACE && l->session != session)
        file_seal(file, NULL);
    return session;
}

void layer_rests_on(struct overlay_layer *layer, uint64_t session)
{
    if (!layer->session)
        layer->session = session;
}

/* ---- Unlocking for nobody ---- */

static void drop_remove(struct lock_drop *d)
{
    struct lock_drop **at = &d->file->lock_drops;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
    d->file->mount->lock_drops--;
}

static void drop_done(struct fs_request *request)
{
    struct lock_drop *d = container_of(request, struct lock_drop, request);
    struct file *file = d->file;
    struct fs_mount *m = file->mount;
    int error = request->error;
    pthread_mutex_lock(&m->lock);
    m->lock_drops_out--;
    pthread_cond_broadcast(&m->idle);
    struct mount_call *calls = calls_take(&d->waiting);
    /* EIO: its session has ended, and the lock with it. ENOENT: so has the file. */
    bool again = (error == -EROFS || error == -EINTR || error == -ENOSPC) && !m->ended;
    if (again) {
        d->state = DROP_FAILED;
        tick_soon(m);
    } else {
        drop_remove(d);
        file_put(file);
    }
    pthread_mutex_unlock(&m->lock);
    calls_finish(calls, again ? error : 0);
    if (again)
        return;
    buf_release(&request->op);
    free(d);
}

static void drop_submit(struct lock_drop *d)
{
    struct fs_mount *m = d->file->mount;
    d->state = DROP_SENT;
    d->request.done = drop_done;
    d->request.error = 0;
    d->request.session = d->session;
    m->lock_drops_out++;
    m->backend.submit(m->backend.context, &d->request);
}

static void drop_encode(struct lock_drop *d)
{
    struct fs_op op = {.type = FS_UNLOCK, .inode = d->file->inode, .lock = d->lock};
    fs_op_encode(&op, &d->request.op);
    if (d->request.op.failed)
        log_fatal("out of memory for the unlocking of a file");
    d->request.subject = fs_op_subject(&op);
}

/* What is written from now on is not waited for, or who writes without end would keep a lock of
 * who has long gone. Nor, but for a moment, is a value in progress: it is published when those
 * close it that have it open (M3). A process that exits closes all it has in that moment. */
void lock_drop_new(struct file *file, const struct fs_lock *lock, uint64_t session,
                   bool after_writes)
{
    struct lock_drop *d = calloc(1, sizeof(*d));
    if (!d)
        log_fatal("out of memory for the unlocking of a file");
    d->file = file;
    d->lock = *lock;
    d->session = session;
    const struct overlay_layer *l = after_writes ? file->overlay.first : NULL;
    for (; l; l = l->next)
        if (l->sealed || l->kind != OVERLAY_REPLACE)
            d->layer = l->id;
        else if (l->written)
            d->progress = l->id;
    d->until_us = ticks_us() + MOUNT_SESSION_US;
    d->next = file->lock_drops;
    file->lock_drops = d;
    file->mount->lock_drops++;
    tick_soon(file->mount);
}

static bool drop_waits(const struct lock_drop *d)
{
    const struct file *file = d->file;
    if (d->state != DROP_WAITS)
        return false;
    if (d->layer && overlay_find(&file->overlay, d->layer))
        return true;
    if (file->flying && file->flight_layer->id <= d->layer)
        return true; /* those behind it are hidden by an O_TRUNC */
    return d->progress && ticks_us() < d->until_us &&
           overlay_find(&file->overlay, d->progress);
}

void lock_drops_send(struct file *file, bool again)
{
    if (file->mount->ended)
        return;
    for (struct lock_drop *d = file->lock_drops; d; d = d->next) {
        bool first = d->state == DROP_WAITS && !drop_waits(d);
        if (first)
            drop_encode(d);
        if (first || (again && d->state == DROP_FAILED))
            drop_submit(d);
    }
}

void lock_drops_hurry(struct file *file)
{
    for (struct lock_drop *d = file->lock_drops; d; d = d->next)
        d->progress = 0;
    lock_drops_send(file, true);
}

struct lock_drop *lock_drop_find(const struct file *file, const struct fs_lock *lock)
{
    struct lock_drop *d = file->lock_drops;
    while (d && (d->lock.kind != lock->kind || d->lock.owner != lock->owner))
        d = d->next;
    return d;
}

struct overlay_layer *lock_drops_layer(const struct file *file)
{
    struct overlay_layer *newest = NULL;
    for (const struct lock_drop *d = file->lock_drops; d; d = d->next) {
        struct overlay_layer *l = d->state == DROP_WAITS && d->layer
                                      ? overlay_find(&file->overlay, d->layer)
                                      : NULL;
        if (l && (!newest || l->id > newest->id))
            newest = l;
    }
    return newest;
}

void handle_locks_drop(struct handle *handle)
{
    for (const struct handle_lock *l = handle->locks; l; l = l->next) {
        struct fs_lock all = {.owner = l->owner, .kind = l->kind, .end = FS_LOCK_END};
        lock_drop_new(handle->file, &all, handle->lock_session, true);
    }
}

void lock_drops_free(struct lock_drop **list)
{
    while (*list) {
        struct lock_drop *d = *list;
        *list = d->next;
        buf_release(&d->request.op);
        free(d);
    }
}

/* ---- The committer's clock ---- */

static void check_done(struct fs_request *request)
{
    struct fs_mount *m = container_of(request, struct fs_mount, session_check);
    pthread_mutex_lock(&m->lock);
    m->session_checking = false;
    m->lock_drops_out--;
    pthread_cond_broadcast(&m->idle);
    pthread_mutex_unlock(&m->lock);
}

/* The answer says that the leader has heard this node since. */
static void check_session(struct fs_mount *m)
{
    struct fs_op op = {.type = FS_SETATTR, .inode = FS_ROOT_INODE};
    if (m->session_checking)
        return;
    buf_clear(&m->session_check.op);
    fs_op_encode(&op, &m->session_check.op);
    if (m->session_check.op.failed)
        log_fatal("out of memory for a look after the session");
    m->session_check.subject = fs_op_subject(&op);
    m->session_check.session = 0;
    m->session_check.error = 0;
    m->session_check.done = check_done;
    m->session_checking = true;
    m->lock_drops_out++;
    m->backend.submit(m->backend.context, &m->session_check);
}

uint64_t lock_tick_due(const struct fs_mount *m)
{
    return m->lock_handles || m->lock_drops ? m->session_due_us : UINT64_MAX;
}

void lock_tick(struct fs_mount *m, uint64_t now_us)
{
    if (now_us < lock_tick_due(m))
        return;
    m->session_due_us = now_us + MOUNT_SESSION_US;
    for (size_t i = 0; m->lock_drops && i < MOUNT_BUCKETS; i++)
        for (struct file *file = m->files[i]; file; file = file->next)
            lock_drops_send(file, true);
    if (m->lock_handles)
        check_session(m);
}
