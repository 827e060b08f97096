/* mount_commit.c - layers become operations: one flight per file at a time (S3), by
 * whoever waits for it, when full, or by the committer's clock. */
#include "mount_internal.h"

#include <time.h>

uint64_t ticks_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void committer_wake(struct fs_mount *m, uint64_t due_us)
{
    if (due_us < m->wakes_at_us)
        pthread_cond_signal(&m->timer);
}

/* ---- Sending ---- */

static void send_enqueue(struct file *file)
{
    struct fs_mount *m = file->mount;
    file->send_next = NULL;
    if (m->send_last)
        m->send_last->send_next = file;
    else
        m->send_first = file;
    m->send_last = file;
}

static struct file *send_dequeue(struct fs_mount *m)
{
    struct file *file = m->send_first;
    m->send_first = file->send_next;
    if (!m->send_first)
        m->send_last = NULL;
    return file;
}

static void encode_ranges(const struct overlay_ranges *ranges, struct buf *to)
{
    buf_reserve(to, ranges->bytes + ranges->count * 16);
    for (size_t i = 0; i < ranges->count; i++)
        fs_range_add(to, ranges->at[i].offset, ranges->at[i].data.data,
                     ranges->at[i].data.length);
}

/* M23: as shown. Who sets attributes waits for this commit: they changed with it. */
static void layer_times(const struct overlay_layer *l, struct fs_op *op)
{
    if (!l->written_ns)
        return;
    bool sets = l->attributes.set & ~(uint32_t)FS_SET_NO_SETID;
    op->set |= FS_SET_WRITTEN;
    op->written_ns = l->written_ns;
    op->changed_ns = sets ? 0 : l->written_ns;
}

static void layer_op(const struct file *file, const struct overlay_layer *l,
                     struct fs_op *op)
{
    const struct overlay_attributes *a = &l->attributes;
    if (file->pending) {
        pending_op(file->pending, op);
    } else {
        bool sets_only = l->kind == OVERLAY_WRITE && !l->ranges.count;
        *op = (struct fs_op){
            .type = l->kind == OVERLAY_REPLACE ? FS_REPLACE
                    : sets_only                ? FS_SETATTR
                                               : FS_WRITE,
            .flags = l->kind == OVERLAY_APPEND ? FS_APPEND : 0,
            .inode = file->inode,
            .set = a->set | (l->kind == OVERLAY_WRITE && l->sized ? FS_SET_SIZE : 0),
            .mode = a->mode,
            .uid = a->uid,
            .gid = a->gid,
            .atime_ns = a->atime_ns,
            .mtime_ns = a->mtime_ns,
        };
        layer_times(l, op);
    }
    op->content = op->type == FS_WRITE ? file->flight_version : l->content;
    op->size = l->size;
}

/* Without the lock: what a flight carries does not change until it is done. */
static void flight_encode(struct file *file)
{
    const struct overlay_layer *l = file->flight_layer;
    struct fs_op op = {.type = FS_BUILD, .content = file->flight_content};
    struct buf ranges = {0};
    if (!file->flight_builds)
        layer_op(file, l, &op);
    encode_ranges(file->flight_builds ? &l->build : &l->ranges, &ranges);
    op.ranges = ranges.data;
    op.ranges_size = (uint32_t)ranges.length;
    fs_op_encode(&op, &file->flight.op);
    if (ranges.failed || file->flight.op.failed)
        log_fatal("out of memory for the commit of a value");
    file->flight.subject = fs_op_subject(&op);
    buf_release(&ranges);
}

void mount_unlock_and_send(struct fs_mount *m)
{
    while (m->send_first) {
        struct file *file = send_dequeue(m);
        pthread_mutex_unlock(&m->lock);
        flight_encode(file);
        pthread_mutex_lock(&m->lock);
        file->flight.session = file->flight_layer->session;
        m->backend.submit(m->backend.context, &file->flight);
    }
    pthread_mutex_unlock(&m->lock);
}

/* ---- Landing ---- */

static void stick_error(struct file *file, uint64_t layer, int error)
{
    bool told = false;
    for (struct handle *h = file->handles; h; h = h->next) {
        /* One that has written since may have written to this layer too: told once too often
         * is better than not at all. */
        bool may_have = h->first_written <= layer && layer <= h->written;
        if (!may_have && h->truncated != layer)
            continue;
        h->error = error;
        told = true;
    }
    if (!told)
        log_warn("what was written to inode %llu is lost: %s",
                 (unsigned long long)file->inode, strerror(-error));
}

/* A waiting call tells its own handle's error by its answer; but for one that locks or unlocks,
 * which is about something else: the next fsync or close says it. */
static void unstick_errors(const struct mount_call *calls)
{
    for (; calls; calls = calls->next)
        if (calls->handle && !lock_tells_nothing(calls))
            calls->handle->error = 0;
}

struct landing {
    struct mount_call *calls;  /* to be answered with `error`: at once ... */
    struct mount_call *lagged; /* ... or when the kernel's pages are dropped */
    struct mount_call *parked;
    int error, parked_error;
    bool drops;
};

static void calls_move(struct mount_call **to, struct mount_call *calls)
{
    while (calls) {
        struct mount_call *call = calls;
        calls = call->next;
        call->next = *to;
        *to = call;
    }
}

/* Answers of WRITEs go first: the kernel holds their pages locked (K2). The others follow
 * the notification: one that overtakes the caller's next GETATTR has its answer thrown
 * away (K1). */
static void landing_add(struct landing *landing, struct mount_call *calls)
{
    while (calls) {
        struct mount_call *call = calls;
        calls = call->next;
        bool now = !landing->drops || call->holds_pages;
        call->next = NULL;
        calls_move(now ? &landing->calls : &landing->lagged, call);
    }
}

/* K11: what failed is dropped, with all that was to lie on top of a value that never
 * came. */
static void drop_failed(struct file *file, struct landing *landing, bool all)
{
    landing->drops = true;
    do {
        struct overlay_layer *l = overlay_pop(&file->overlay);
        struct mount_call *calls = calls_take(&l->waiting);
        stick_error(file, l->id, landing->error);
        unstick_errors(calls);
        landing_add(landing, calls);
        overlay_layer_free(l);
    } while (all && !overlay_empty(&file->overlay));
    if (all)
        landing->parked_error = landing->error;
    notify_drop(file->mount, file->inode, landing->lagged, landing->error);
}

static void land_commit(struct file *file, int error, const struct fs_result *result,
                        struct landing *landing)
{
    struct overlay_layer *l = file->flight_layer;
    bool was_pending = file->pending, replaces = l->kind == OVERLAY_REPLACE;
    if (error == -ENOENT && !was_pending)
        error = -ESTALE; /* it has no name, and this host lost its session (S8) */
    else if (!error && l->kind == OVERLAY_APPEND) /* K12 */
        landing->drops = l->strayed || result->value != overlay_layer_end(l);
    if (was_pending)
        pending_end(file);
    landing->error = error;
    if (error) {
        file->lost = was_pending;
        drop_failed(file, landing, replaces);
        return;
    }
    if (!replaces && l->ranges.count) /* 0: another host has written in between (M17) */
        file->told_version = landing->drops ? 0 : result->more;
    ensure(overlay_pop(&file->overlay) == l);
    bool strayed = landing->drops;
    landing->drops = strayed || l->overtaken.count;
    landing_add(landing, calls_take(&l->waiting));
    if (strayed)
        notify_drop(file->mount, file->inode, landing->lagged, 0);
    else if (landing->drops)
        notify_drop_spans(file->mount, file->inode, &l->overtaken, landing->lagged);
    overlay_layer_free(l);
    if (was_pending && result->value != file->inode)
        file_rebind(file, result->value);
}

static void land_build(struct file *file, int error, const struct fs_result *result,
                       struct landing *landing)
{
    struct overlay_layer *l = file->flight_layer;
    bool failed = error && !l->stale;
    overlay_built(l, result->value);
    if (!failed)
        return;
    bool was_pending = file->pending;
    if (was_pending)
        pending_end(file);
    file->lost = was_pending;
    landing->error = error;
    drop_failed(file, landing, true);
}

static void flight_done(struct fs_request *request)
{
    struct file *file = container_of(request, struct file, flight);
    struct fs_mount *m = file->mount;
    struct landing landing = {0};
    buf_release(
        &request->op); /* or each open file would keep a commit's bytes, uncounted */
    pthread_mutex_lock(&m->lock);
    file->flying = false;
    file_changed(file);
    landing.parked = calls_take(&file->parked);
    struct fs_result result = request->result;
    if (file->flight_builds)
        land_build(file, request->error, &result, &landing);
    else
        land_commit(file, request->error, &result, &landing);
    file_count(file);
    if (file->making)
        section_end(m, file->section);
    file->making = false;
    file_kick(file);
    lock_drops_send(file, false);
    file_put(file);
    if (m->send_first)
        committer_wake(m, 0);
    pthread_cond_broadcast(&m->idle);
    pthread_mutex_unlock(&m->lock);
    calls_finish(landing.calls, landing.error);
    calls_finish(landing.parked, landing.parked_error);
}

/* ---- Deciding ---- */

void file_kick(struct file *file)
{
    struct overlay_layer *l = file->overlay.first;
    if (file->flying || !l)
        return;
    bool full = overlay_full(l) || (l->written && mount_is_full(file->mount));
    bool builds = l->kind == OVERLAY_REPLACE && l->ranges.count &&
                  (l->sealed ? !overlay_fits(l) : full);
    if (!builds && !l->sealed)
        return;
    if (builds && overlay_build(l) != 0)
        log_fatal("out of memory for the commit of a value");
    file->flying = true;
    file->making = file->pending && !builds;
    if (file->making)
        file->section = section_begin(file->mount);
    file->flight_builds = builds;
    file->flight_layer = l;
    file->flight_content = l->content;
    file->flight_version = file->told_version;
    file->flight.done = flight_done;
    file->flight.error = 0;
    file->flight.result = (struct fs_result){0};
    send_enqueue(file);
}

void file_seal(struct file *file, struct overlay_layer *layer)
{
    struct overlay_layer *last = file->overlay.last;
    if (last && (!layer || layer == last))
        last->sealed = true;
    file_kick(file);
}

/* A new value has no timer: it is published whole (promise 4). */
void file_schedule(struct file *file)
{
    struct fs_mount *m = file->mount;
    const struct overlay_layer *l = overlay_open(&file->overlay);
    if (!l || l->kind == OVERLAY_REPLACE || file->timed)
        return;
    file->timed = true;
    file->timed_next = NULL;
    file->due_us = ticks_us() + MOUNT_COMMIT_DELAY_US;
    if (m->timed_last)
        m->timed_last->timed_next = file;
    else
        m->timed_first = file;
    m->timed_last = file;
    committer_wake(m, file->due_us);
}

static void commit_due(struct fs_mount *m, uint64_t now_us)
{
    while (m->timed_first && m->timed_first->due_us <= now_us) {
        struct file *file = m->timed_first;
        m->timed_first = file->timed_next;
        if (!m->timed_first)
            m->timed_last = NULL;
        file->timed = false;
        const struct overlay_layer *l = overlay_open(&file->overlay);
        if (l && l->kind != OVERLAY_REPLACE)
            file_seal(file, NULL);
        file_put(file);
    }
}

static void committer_sleep(struct fs_mount *m, uint64_t now_us)
{
    uint64_t wake = now_us + 3600 * (uint64_t)1000000;
    if (m->timed_first)
        wake = min_u64(wake, m->timed_first->due_us);
    if (m->load.calls)
        wake = min_u64(wake, now_us + MOUNT_WATCH_US);
    wake = min_u64(wake, lock_tick_due(m));
    struct timespec until = {.tv_sec = (time_t)(wake / 1000000),
                             .tv_nsec = (long)(wake % 1000000) * 1000};
    m->wakes_at_us = wake;
    pthread_cond_timedwait(&m->timer, &m->lock, &until);
    m->wakes_at_us = 0;
}

void *committer_main(void *mount)
{
    struct fs_mount *m = mount;
    uint64_t watched_us = ticks_us();
    pthread_mutex_lock(&m->lock);
    while (!m->stopping) {
        uint64_t now = ticks_us();
        commit_due(m, now);
        lock_tick(m, now);
        if (now - watched_us >= MOUNT_WATCH_US) {
            calls_watch(m);
            watched_us = now;
        }
        if (m->send_first) {
            mount_unlock_and_send(m);
            pthread_mutex_lock(&m->lock);
            continue;
        }
        committer_sleep(m, now);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* Whether anything of before these ids is still to be committed or answered. */
static bool mount_busy(struct fs_mount *m, uint64_t layer, uint64_t call)
{
    if (m->dropping || m->drops || m->lock_drops_out)
        return true;
    for (size_t i = 0; i < MOUNT_BUCKETS; i++) {
        for (struct file *file = m->files[i]; file; file = file->next)
            for (struct overlay_layer *l = file->overlay.first; l; l = l->next)
                if (l->id < layer)
                    return true;
        for (struct mount_call *c = m->calls[i]; c; c = c->table_next)
            if (c->id < call && c->lock_step != LOCK_PARKED)
                return true;
    }
    return false;
}

void mount_flush_all(struct fs_mount *m)
{
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < MOUNT_BUCKETS; i++)
        for (struct file *file = m->files[i]; file; file = file->next)
            file_seal(file, NULL);
    uint64_t layer = m->next_layer, call = m->next_call;
    m->flushing++;
    mount_unlock_and_send(m);
    pthread_mutex_lock(&m->lock);
    while (mount_busy(m, layer, call))
        pthread_cond_wait(&m->idle, &m->lock);
    m->flushing--;
    pthread_mutex_unlock(&m->lock);
}
