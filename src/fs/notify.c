/* notify.c - notifications to the kernel: they may wait for pages and inodes, so a thread
 * of their own sends them, never the loop (K9). */
#include "mount_internal.h"

#include <time.h>

/* One that is not begun yet does for both: so each inode stands here once for each error. */
static struct drop *find_drop(struct fs_mount *m, uint64_t inode, int error)
{
    struct drop *drop = m->drops;
    while (drop && (drop->inode != inode || drop->error != error))
        drop = drop->next;
    return drop;
}

static struct drop *drop_new(struct fs_mount *m, uint64_t inode, int error)
{
    struct drop *drop = calloc(1, sizeof(*drop));
    if (!drop)
        log_fatal("out of memory for a notification");
    *drop = (struct drop){.inode = inode, .error = error};
    *m->drops_end = drop;
    m->drops_end = &drop->next;
    m->load.drops_most = max_u64(m->load.drops_most, ++m->load.drops);
    pthread_cond_signal(&m->drops_changed);
    return drop;
}

static void drop_add(struct drop *drop, struct mount_call *calls)
{
    struct mount_call **end = &drop->calls;
    while (*end)
        end = &(*end)->next;
    *end = calls;
}

void notify_drop(struct fs_mount *m, uint64_t inode, struct mount_call *calls, int error)
{
    struct drop *drop = find_drop(m, inode, error);
    if (!drop)
        drop = drop_new(m, inode, error);
    drop->spans.count = 0;
    drop_add(drop, calls);
}

void notify_drop_spans(struct fs_mount *m, uint64_t inode, const struct spans *spans,
                       struct mount_call *calls)
{
    struct drop *drop = find_drop(m, inode, 0);
    bool all = drop && !drop->spans.count;
    if (!drop)
        drop = drop_new(m, inode, 0);
    for (size_t i = 0; !all && i < spans->count; i++)
        spans_add(&drop->spans, spans->at[i].from, spans->at[i].end);
    drop_add(drop, calls);
}

void fs_mount_load(struct fs_mount *m, struct fs_mount_load *ret)
{
    pthread_mutex_lock(&m->lock);
    *ret = m->load;
    pthread_mutex_unlock(&m->lock);
}

/* With the lock held. */
static void looks_add(struct fs_mount *m, struct mount_call *calls)
{
    while (calls) {
        struct mount_call *call = calls;
        calls = call->next;
        notify_look(m, call);
    }
}

void notify_look(struct fs_mount *m, struct mount_call *call)
{
    call->lock_step = LOCK_LOOK;
    call->settled = false;
    call->next = NULL;
    *m->lock_looks_end = call;
    m->lock_looks_end = &call->next;
    pthread_cond_signal(&m->drops_changed);
}

/* With the lock held: who waits looks again. */
static void locks_changed(struct file *file)
{
    file->locks_changed++;
    looks_add(file->mount, calls_take(&file->lockers));
}

void fs_mount_locks_changed(struct fs_mount *m, uint64_t inode)
{
    pthread_mutex_lock(&m->lock);
    struct file *file = file_find(m, inode);
    if (file)
        locks_changed(file);
    pthread_mutex_unlock(&m->lock);
}

/* Of files that are not open the kernel drops its pages itself when they are opened. */
void fs_mount_replaced(struct fs_mount *m)
{
    pthread_mutex_lock(&m->lock);
    pages_forget(m);
    for (size_t i = 0; i < MOUNT_BUCKETS; i++)
        for (struct file *f = m->files[i]; f; f = f->next) {
            file_changed(f);
            if (!f->pending && !f->alias)
                notify_drop(m, f->inode, NULL, 0);
            locks_changed(f);
        }
    pthread_mutex_unlock(&m->lock);
}

/* With the lock held: the first of each kind. */
static struct drop *take_drop(struct fs_mount *m)
{
    struct drop *drop = m->drops;
    if (!drop)
        return NULL;
    m->drops = drop->next;
    m->load.drops--;
    if (!m->drops)
        m->drops_end = &m->drops;
    return drop;
}

static struct mount_call *take_look(struct fs_mount *m)
{
    struct mount_call *call = m->lock_looks;
    if (!call)
        return NULL;
    m->lock_looks = call->next;
    if (!m->lock_looks)
        m->lock_looks_end = &m->lock_looks;
    call->next = NULL;
    return call;
}

static void notify(struct fs_mount *m, struct drop *drop, struct mount_call *look)
{
    if (look)
        lock_look(look);
    if (!drop)
        return;
    const struct spans *s = &drop->spans;
    for (size_t i = 0; i < s->count; i++)
        fuse_lowlevel_notify_inval_inode(m->session, drop->inode, (off_t)s->at[i].from,
                                         (off_t)(s->at[i].end - s->at[i].from));
    if (!s->count)
        fuse_lowlevel_notify_inval_inode(m->session, drop->inode, 0, 0);
    calls_finish(drop->calls, drop->error);
    free(drop);
}

void *notifier_main(void *mount)
{
    struct fs_mount *m = mount;
    pthread_mutex_lock(&m->lock);
    for (;;) {
        while (!m->drops && !m->lock_looks && !m->stopping)
            pthread_cond_wait(&m->drops_changed, &m->lock);
        struct mount_call *look = take_look(m);
        struct drop *drop = take_drop(m);
        if (!drop && !look)
            break;
        m->dropping = true;
        pthread_mutex_unlock(&m->lock);
        notify(m, drop, look);
        pthread_mutex_lock(&m->lock);
        m->dropping = false;
        pthread_cond_broadcast(&m->idle);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* ---- Names: a thread of their own ---- */

enum { NAMES_LOOKED_AT = 64 }; /* those behind wait with them */

/* The kernel takes the directory's lock for it, which a call may hold that waits for this
 * host: such a directory's turn comes later. The others' pages must not wait for that, for
 * answers wait for them. (A daemon that is killed while it waits there would not die: K9.) */

void notify_name(struct fs_mount *m, uint64_t parent, const void *name, size_t size,
                 uint64_t inode)
{
    bool looked_up = parent == FS_ROOT_INODE || lookup_is_held(m, parent);
    if (!looked_up)
        return;
    struct gone_name *gone =
        m->load.names < FS_NAMES_MOST ? malloc(sizeof(*gone) + size + 1) : NULL;
    if (!gone) {
        m->load.names_lost++;
        return;
    }
    *gone = (struct gone_name){.parent = parent, .inode = inode};
    memcpy(gone->name, name, size);
    gone->name[size] = '\0';
    *m->names_end = gone;
    m->names_end = &gone->next;
    m->load.names_most = max_u64(m->load.names_most, ++m->load.names);
    pthread_cond_signal(&m->names_changed);
}

/* Whether a call is on its way for which the kernel may hold the directory's lock. */
static bool is_locked(const struct fs_mount *m, uint64_t directory)
{
    for (size_t i = 0; m->load.calls && i < MOUNT_BUCKETS; i++)
        for (const struct mount_call *call = m->calls[i]; call; call = call->table_next)
            for (int t = 0; t < call->touched; t++)
                if (call->touches[t].parent == directory)
                    return true;
    return false;
}

/* One of the first whose directory is free, taken out; NULL: none. */
static struct gone_name *take_name(struct fs_mount *m)
{
    struct gone_name **at = &m->names;
    uint64_t locked = 0;
    for (int i = 0; *at && i < NAMES_LOOKED_AT; i++, at = &(*at)->next) {
        if ((*at)->parent == locked)
            continue;
        if (!is_locked(m, (*at)->parent))
            break;
        locked = (*at)->parent;
    }
    struct gone_name *gone = *at;
    if (!gone || gone->parent == locked || is_locked(m, gone->parent))
        return NULL;
    *at = gone->next;
    if (m->names_end == &gone->next)
        m->names_end = at;
    m->load.names--;
    return gone;
}

static void await_name(struct fs_mount *m)
{
    uint64_t wake = ticks_us() + MOUNT_NAMES_AGAIN_US;
    struct timespec until = {.tv_sec = (time_t)(wake / 1000000),
                             .tv_nsec = (long)(wake % 1000000) * 1000};
    if (m->names)
        pthread_cond_timedwait(&m->names_changed, &m->lock, &until);
    else
        pthread_cond_wait(&m->names_changed, &m->lock);
}

/* What is gone altogether is removed in the kernel as by a local call: a directory that a
 * process stands in answers ENOENT from then on. */
static void tell_name(struct fs_mount *m, const struct gone_name *gone)
{
    size_t size = strlen(gone->name);
    if (gone->inode)
        fuse_lowlevel_notify_delete(m->session, gone->parent, gone->inode, gone->name,
                                    size);
    else
        fuse_lowlevel_notify_inval_entry(m->session, gone->parent, gone->name, size);
}

void *namer_main(void *mount)
{
    struct fs_mount *m = mount;
    pthread_mutex_lock(&m->lock);
    while (!m->stopping) {
        struct gone_name *gone = take_name(m);
        if (!gone) {
            await_name(m);
            continue;
        }
        pthread_mutex_unlock(&m->lock);
        tell_name(m, gone);
        free(gone);
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}
