/* notify.c - notifications to the kernel: they may wait for pages and inodes, so a thread
 * of their own sends them, never the loop (K9). */
#include "mount_internal.h"

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

void notify_drop(struct fs_mount *m, uint64_t inode, struct mount_call *calls, int error)
{
    struct drop *drop = find_drop(m, inode, error);
    if (!drop)
        drop = drop_new(m, inode, error);
    struct mount_call **end = &drop->calls;
    while (*end)
        end = &(*end)->next;
    *end = calls;
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
