/* mount_file.c - the files this host knows something about, and their handles. */
#include "mount_internal.h"

static struct file **bucket_of(struct fs_mount *m, uint64_t inode)
{
    return &m->files[(inode * 0x9e3779b97f4a7c15u >> 32) % MOUNT_BUCKETS];
}

static struct file *file_find_exact(struct fs_mount *m, uint64_t inode)
{
    struct file *file = *bucket_of(m, inode);
    while (file && file->inode != inode)
        file = file->next;
    return file;
}

struct file *file_find(struct fs_mount *m, uint64_t inode)
{
    struct file *file = file_find_exact(m, inode);
    return file && file->alias ? file->alias : file;
}

struct file *file_get(struct fs_mount *m, uint64_t inode)
{
    struct file *file = file_find(m, inode);
    if (file)
        return file;
    file = calloc(1, sizeof(*file));
    if (!file)
        return NULL;
    struct file **bucket = bucket_of(m, inode);
    file->next = *bucket;
    file->mount = m;
    file->inode = inode;
    file->generation = m->next_generation++;
    *bucket = file;
    return file;
}

bool mount_is_full(const struct fs_mount *m)
{
    return m->load.buffered > FS_BUFFERED_BYTES;
}

void file_count(struct file *file)
{
    struct fs_mount_load *load = &file->mount->load;
    uint64_t bytes = 0;
    for (const struct overlay_layer *l = file->overlay.first; l; l = l->next)
        bytes += max_u64(l->ranges.bytes + l->build.bytes, FS_BUFFERED_LEAST);
    load->buffered += bytes - file->buffered;
    load->buffered_most = max_u64(load->buffered_most, load->buffered);
    file->buffered = bytes;
}

void file_put(struct file *file)
{
    if (file->handles || !overlay_empty(&file->overlay) || file->pending ||
        file->flying || file->timed || file->aliases || file->parked || file->lock_drops)
        return;
    if (file->alias && lookup_is_held(file->mount, file->inode))
        return;
    struct fs_mount *m = file->mount;
    uint64_t inode = file->inode;
    struct file *alias = file->alias;
    struct file **at = bucket_of(file->mount, file->inode);
    while (*at != file)
        at = &(*at)->next;
    *at = file->next;
    file_count(file);
    buf_release(&file->flight.op);
    free(file);
    if (alias) {
        alias->aliases--;
        file_put(alias);
    }
    orphan_settle(m, inode);
}

static void handle_link(struct handle *handle, struct file *file)
{
    handle->file = file;
    handle->next = file->handles;
    handle->at = &file->handles;
    if (handle->next)
        handle->next->at = &handle->next;
    file->handles = handle;
}

static void handle_unlink(struct handle *handle)
{
    *handle->at = handle->next;
    if (handle->next)
        handle->next->at = handle->at;
}

struct handle *handle_new(struct file *file, int flags)
{
    struct handle *handle = calloc(1, sizeof(*handle));
    if (!handle)
        return NULL;
    handle->flags = flags;
    handle_link(handle, file);
    return handle;
}

void handle_free(struct handle *handle)
{
    handle_unlink(handle);
    handle_locks_free(handle);
    if (!handle->file->handles)
        handle->file->version = 0;
    free(handle);
}

struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

void handle_wrote(struct handle *handle, uint64_t layer)
{
    handle->written = layer;
    if (!handle->first_written)
        handle->first_written = layer;
}

void file_touch(struct file *file)
{
    struct pending *p = file->pending;
    struct overlay_layer *l = file->overlay.last;
    bool by_hand = p && p->set & FS_SET_MTIME;
    int64_t now = now_ns();
    if (!l->sealed) /* else they came with what is written */
        l->attributes.set &= ~(uint32_t)FS_SET_MTIME;
    if (l->written_ns && !by_hand && now - l->written_ns < MOUNT_SHOWN_US * (int64_t)1000)
        return;
    l->written_ns = now;
    if (!p)
        return;
    p->set &= ~(uint32_t)FS_SET_MTIME;
    p->mtime_ns = p->ctime_ns = now;
}

/* The file was made by another host meanwhile, under another number: everything that is
 * open or buffered here goes on there. */
void file_rebind(struct file *file, uint64_t inode)
{
    struct file *to = file_get(file->mount, inode);
    if (!to)
        log_fatal("out of memory while a file changes its inode");
    ensure(to != file && !file->alias && !file->aliases);
    while (file->handles) {
        struct handle *handle = file->handles;
        handle_unlink(handle);
        handle_link(handle, to);
    }
    overlay_move(&to->overlay, &file->overlay);
    for (struct overlay_layer *l = to->overlay.first; l; l = l->next)
        for (struct mount_call *call = l->waiting; call; call = call->next)
            call->waits_for = to;
    file_changed(to);
    file->alias = to;
    to->aliases++;
    file_schedule(to);
    file_kick(to);
}

bool file_is_known(struct fs_mount *m, uint64_t inode)
{
    return file_find_exact(m, inode);
}

void file_forget(struct fs_mount *m, uint64_t inode, uint64_t count)
{
    struct lookup *l = lookups_find(&m->lookups, inode);
    if (!l)
        return;
    l->count -= min_u64(l->count, count);
    if (l->count)
        return;
    if (!l->orphan)
        lookups_remove(&m->lookups, l);
    struct file *file = file_find_exact(m, inode);
    if (file)
        file_put(file);
    else
        orphan_settle(m, inode);
}

void file_changed(struct file *file)
{
    file->generation = file->mount->next_generation++;
    file->version = 0;
}

void file_saw(struct file *file, uint64_t version)
{
    if (file->handles)
        file->version = max_u64(file->version, version);
}
