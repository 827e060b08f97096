/*
 * mount_detached.c - files that this host removes while they are open here (M9): before
 * the removal is submitted, their value is read into the overlay, as a layer that
 * replaces what is below and is not published. Handles go on with it; it goes with the
 * last one.
 *
 *   normal --detach_victim--> detached --detach_end--> removed --detached_release--> gone
 *                             detached --detached_revert--> normal
 */
#include "mount_internal.h"

enum { DETACH_TRIES = 16 }; /* others write to it all the time: it is not detached then */

struct overlay_layer *detached_layer(const struct file *file)
{
    return file->detached.on ? file->overlay.last : NULL;
}

/* ---- Detaching ---- */

/* A value in progress stays in its own layer: to seal that would publish it unfinished.
 * One that is not made yet is sealed by the removal in any case. */
static struct overlay_layer *own_layer(const struct file *file)
{
    struct overlay_layer *l = overlay_open(&file->overlay);
    return l && l->kind == OVERLAY_REPLACE && !file->pending ? l : NULL;
}

/* NULL: there is nothing to detach, or it is too large to. */
static struct file *detachable(struct fs_mount *m, uint64_t inode)
{
    struct file *file = file_find(m, inode);
    if (!file || !file->handles || file->lost)
        return NULL;
    const struct overlay_layer *l = own_layer(file);
    return mount_is_full(m) || (l && (l->content || l->building)) ? NULL : file;
}

/* A layer of its own, on top: those below are committed as ever. */
static int layer_push(struct file *file)
{
    struct overlay above = {0};
    uint64_t id;
    int error = overlay_replace(&above, &file->mount->next_layer, NULL, &id);
    if (!error)
        overlay_move(&file->overlay, &above);
    return error;
}

static int detach(struct file *file, const struct stat *attr, const uint8_t *value,
                  size_t size)
{
    bool pushed = !own_layer(file);
    int error = pushed ? layer_push(file) : 0;
    struct overlay_layer *l = file->overlay.last;
    bool written = l->written;
    uint64_t id;
    if (!error && size)
        error = overlay_write(&file->overlay, &file->mount->next_layer, 0, value, size,
                              false, &id);
    if (error)
        log_fatal("out of memory for a file that is removed while it is open");
    l->written = written;
    l->dense = true;
    file_count(file);
    file->known = *attr;
    file->generation = file->mount->next_generation++;
    file->detached =
        (struct detached){.on = true, .pushed = pushed, .id = l->id, .removals = 1};
    file_kick(file);
    return 0;
}

/* With the lock held. `window` holds the base's bytes, one more than `attr` says there
 * are.
 */
static int detach_read(struct fs_mount *m, uint64_t inode, const struct base *b,
                       const struct stat *attr, uint64_t base_size, uint8_t *window)
{
    struct file *file = detachable(m, inode);
    size_t size = (size_t)attr->st_size;
    if (!file)
        return -ENOENT;
    if (file->detached.on || base_changed(file, b) ||
        overlay_apply(&file->overlay, base_size, 0, window, size + 1) != size)
        return -EAGAIN;
    return detach(file, attr, window, size);
}

/* With the lock held: 0: it is detached already. */
static int detach_begin(struct fs_mount *m, uint64_t inode, struct base *ret)
{
    struct file *file = detachable(m, inode);
    if (!file)
        return -ENOENT;
    *ret = base_of(file);
    if (!file->detached.on)
        return -EAGAIN;
    file->detached.removals++;
    return 0;
}

/* -EAGAIN: something changed meanwhile. */
static int detach_once(struct fs_mount *m, uint64_t inode)
{
    struct base b;
    struct stat attr;
    uint64_t size, version;
    struct buf record = {0};
    pthread_mutex_lock(&m->lock);
    int error = detach_begin(m, inode, &b);
    pthread_mutex_unlock(&m->lock);
    if (error != -EAGAIN)
        return error;
    error = mount_attributes(m, inode, &attr);
    if (!error && (!S_ISREG(attr.st_mode) || attr.st_size > MOUNT_DETACH_BYTES))
        error = -EFBIG;
    if (!error && attr.st_nlink > 1) /* it keeps a name, and so its value */
        error = -EMLINK;
    if (error)
        return error;
    size_t length = (size_t)attr.st_size + 1;
    uint8_t *window = malloc(length);
    error = window ? 0 : -ENOMEM;
    if (!error)
        error = base_read(m, &b, 0, length, window, &size, &record, &version);
    if (!error) {
        pthread_mutex_lock(&m->lock);
        error = detach_read(m, inode, &b, &attr, size, window);
        mount_unlock_and_send(m);
    }
    free(window);
    buf_release(&record);
    return error;
}

void detach_victim(struct mount_call *call, uint64_t parent, const char *name)
{
    struct fs_mount *m = call->mount;
    size_t name_size = strlen(name);
    pthread_mutex_lock(&m->lock);
    const struct pending *p = pending_find(m, parent, name, name_size);
    uint64_t inode = p ? p->file->inode : 0;
    pthread_mutex_unlock(&m->lock);
    if (!inode && fs_lookup(&m->backend.view, parent, name, name_size, &inode) != 0)
        return;
    int error = -EAGAIN;
    for (int i = 0; i < DETACH_TRIES && error == -EAGAIN; i++)
        error = detach_once(m, inode);
    if (!error)
        call->detached = inode;
}

/* ---- The end of it ---- */

/* Takes away the layer, and with it what it holds. */
static void drop(struct file *file)
{
    overlay_drop_last(&file->overlay);
    file->detached = (struct detached){0};
    file->generation = file->mount->next_generation++;
    if (overlay_empty(&file->overlay))
        file->shown_mtime_ns = 0;
}

void detached_revert(struct file *file)
{
    struct overlay_layer *l = detached_layer(file);
    struct detached was = file->detached;
    if (was.pushed && !l->written && !l->attributes.set && l->id == was.id) {
        drop(file);
        return;
    }
    l->dense = false;
    file->detached = (struct detached){0};
    file->generation = file->mount->next_generation++;
    if (was.pushed || was.owed)
        file_seal(file, NULL);
}

void detached_release(struct file *file)
{
    if (file->detached.on && !file->detached.removals && !file->handles)
        drop(file);
}

void detach_end(struct mount_call *call, uint64_t removed)
{
    struct fs_mount *m = call->mount;
    struct file *file = call->detached ? file_find(m, call->detached) : NULL;
    if (!file || !file->detached.on)
        return;
    struct detached *d = &file->detached;
    d->removals -= d->removals > 0;
    if (removed == file->inode)
        d->removed = true;
    if (!d->removals && !d->removed)
        detached_revert(file);
    else
        detached_release(file);
    file_put(file);
    if (m->send_first)
        committer_wake(m, 0);
}
