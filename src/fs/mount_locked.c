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
        m->session_due_us = ticks_us() + MOUNT_SESSION_US;
        committer_wake(m, m->session_due_us);
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

uint64_t file_locks_session(const struct file *file)
{
    for (const struct handle *h = file->handles; h; h = h->next)
        if (h->lock_session)
            return h->lock_session;
    return 0;
}

/* ---- Unlocking for nobody ---- */

static void drop_done(struct fs_request *request)
{
    struct lock_drop *d = container_of(request, struct lock_drop, request);
    struct fs_mount *m = d->mount;
    int error = request->error;
    pthread_mutex_lock(&m->lock);
    m->lock_drops_out--;
    pthread_cond_broadcast(&m->idle);
    /* EIO: its session has ended, and the lock with it. ENOENT: so has the file. */
    bool again = (error == -EROFS || error == -EINTR || error == -ENOSPC) && !m->ended;
    if (again) {
        d->next = m->lock_retries;
        m->lock_retries = d;
        m->session_due_us = ticks_us() + MOUNT_SESSION_US;
        committer_wake(m, m->session_due_us);
    }
    pthread_mutex_unlock(&m->lock);
    if (again)
        return;
    buf_release(&request->op);
    free(d);
}

static void drop_submit(struct lock_drop *d)
{
    struct fs_mount *m = d->mount;
    d->request.done = drop_done;
    d->request.error = 0;
    d->request.session = d->session;
    m->lock_drops_out++;
    m->backend.submit(m->backend.context, &d->request);
}

static void drop_encode(struct lock_drop *d, uint64_t inode)
{
    struct fs_op op = {.type = FS_UNLOCK, .inode = inode, .lock = d->lock};
    fs_op_encode(&op, &d->request.op);
    if (d->request.op.failed)
        log_fatal("out of memory for the unlocking of a file");
    d->request.subject = fs_op_subject(&op);
}

void lock_drop_new(struct file *file, const struct fs_lock *lock, uint64_t session)
{
    struct lock_drop *d = calloc(1, sizeof(*d));
    if (!d)
        log_fatal("out of memory for the unlocking of a file");
    d->mount = file->mount;
    d->lock = *lock;
    d->session = session;
    d->next = file->lock_drops;
    file->lock_drops = d;
}

void lock_drops_send(struct file *file)
{
    struct fs_mount *m = file->mount;
    const struct overlay_layer *first = file->overlay.first;
    if (file->flying || first || m->ended)
        return;
    while (file->lock_drops) {
        struct lock_drop *d = file->lock_drops;
        file->lock_drops = d->next;
        drop_encode(d, file->inode);
        drop_submit(d);
    }
}

void handle_locks_drop(struct handle *handle)
{
    for (const struct handle_lock *l = handle->locks; l; l = l->next) {
        struct fs_lock all = {.owner = l->owner, .kind = l->kind, .end = FS_LOCK_END};
        lock_drop_new(handle->file, &all, handle->lock_session);
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
    return m->lock_handles || m->lock_retries ? m->session_due_us : UINT64_MAX;
}

void lock_tick(struct fs_mount *m, uint64_t now_us)
{
    if (now_us < lock_tick_due(m))
        return;
    m->session_due_us = now_us + MOUNT_SESSION_US;
    struct lock_drop *again = m->lock_retries;
    m->lock_retries = NULL;
    while (again) {
        struct lock_drop *d = again;
        again = d->next;
        drop_submit(d);
    }
    if (m->lock_handles)
        check_session(m);
}
