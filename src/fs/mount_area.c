/* mount_area.c - requests about a stretch of a file: room for it and holes (FALLOCATE), its
 * copy (COPY_FILE_RANGE), where data lies (LSEEK).
 *
 * The first two change what is committed, in as many operations as it takes; what was
 * written here before is committed first. A value in progress (O_TRUNC) is changed where
 * it is; or the kernel copies, by reading and writing.
 *
 *   area_advance --layers of before--> area_waited --> area_advance
 *   area_advance --operation--> area_landed --more to do--> area_advance
 */
#include "mount_internal.h"

#include <linux/falloc.h>

/* Of one request: the caller asks again. */
enum { COPY_MOST_BYTES = 1 << 30, COPY_MOST_OPERATIONS = 64 };

/* ---- In as many operations as it takes ---- */

static void area_answer(struct mount_call *call, int error)
{
    const struct mount_area *area = &call->area;
    if (area->source && (area->done || !error))
        fuse_reply_write(call->req, (size_t)area->done);
    else
        fuse_reply_err(call->req, error == -ENOENT ? ESTALE : -error);
}

static int area_encode(struct mount_call *call)
{
    const struct mount_area *area = &call->area;
    struct fs_op op = {
        .type = area->source ? FS_COPY : FS_ZERO,
        .flags = area->flags,
        .set = area->set,
        .inode = area->target->file->inode,
        .offset = area->offset,
        .size = area->end - area->offset,
        .source = area->source ? area->source->file->inode : 0,
        .source_offset = area->source_offset,
    };
    struct fs_request *r = &call->request;
    buf_clear(&r->op);
    fs_op_encode(&op, &r->op);
    r->subject = fs_op_subject(&op);
    r->error = 0;
    r->result = (struct fs_result){0};
    return r->op.failed ? -ENOMEM : 0;
}

static void area_waited(struct mount_call *call, int error);
static void area_landed(struct mount_call *call, int error);

/* With the lock held. */
static bool area_waits(struct mount_call *call, struct handle *handle, uint64_t layer)
{
    struct overlay_layer *l = handle ? overlay_find(&handle->file->overlay, layer) : NULL;
    if (!l)
        return false;
    call->resume = area_waited;
    call_wait(call, &l->waiting, handle->file);
    file_seal(handle->file, l);
    return true;
}

/* With the lock held. */
static int area_advance(struct mount_call *call)
{
    const struct mount_area *area = &call->area;
    if (area_waits(call, area->target, area->layers[0]) ||
        area_waits(call, area->source, area->layers[1]))
        return 0;
    int error = area_encode(call);
    if (error)
        return error;
    call->resume = area_landed;
    call_submit(call);
    return 0;
}

/* Mostly on the loop, which must not send what was sealed. */
static void area_waited(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    if (!error) {
        pthread_mutex_lock(&m->lock);
        error = area_advance(call);
        if (m->send_first)
            committer_wake(m, 0);
        pthread_mutex_unlock(&m->lock);
    }
    if (error)
        call_finish(call, error);
}

/* Whether there is more to do. */
static bool area_moves(struct mount_call *call)
{
    struct mount_area *area = &call->area;
    uint64_t value = call->request.result.value;
    if (!area->source) {
        area->offset = value;
        return value < area->end;
    }
    area->offset += value;
    area->source_offset += value;
    area->done += value;
    return value && area->offset < area->end && !call->interrupted &&
           ++area->copies < COPY_MOST_OPERATIONS;
}

static void area_landed(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    file_changed(call->area.target->file);
    bool more = !error && area_moves(call);
    if (more)
        error = area_advance(call);
    if (m->send_first)
        committer_wake(m, 0);
    pthread_mutex_unlock(&m->lock);
    if (error || !more)
        call_finish(call, error);
}

static uint64_t last_layer(const struct handle *handle)
{
    const struct overlay_layer *l = handle->file->overlay.last;
    return l ? l->id : 0;
}

static uint32_t dropped_setid(fuse_req_t req)
{
    return fuse_req_ctx(req)->uid == 0 ? 0 : FS_SET_NO_SETID;
}

/* ---- FALLOCATE ---- */

/* What is promised is not kept for the caller: others may take the room. */
static int room_check(struct fs_mount *m, uint64_t inode, uint64_t length)
{
    struct stat attr;
    uint64_t free_bytes = 0, total_bytes = 0, keys = 0;
    int error = mount_attributes(m, inode, &attr);
    if (error)
        return error;
    m->backend.space(m->backend.context, &free_bytes, &total_bytes, &keys);
    uint64_t there = (uint64_t)attr.st_blocks * 512;
    if (!m->backend.has_room(m->backend.context) || length > free_bytes + there)
        return -ENOSPC;
    return 0;
}

/* With the lock held: a value in progress, which may have to be published to be cut. */
static int zero_replacing(struct mount_call *call, struct handle *handle, bool *ret_done)
{
    const struct mount_area *area = &call->area;
    struct file *file = handle->file;
    struct overlay_layer *l = overlay_open(&file->overlay);
    int error = 0;
    *ret_done = true;
    if (area->flags & FS_PUNCH)
        error = overlay_punch(&file->overlay, area->offset, area->end, ret_done);
    if (!error && !(area->flags & FS_KEEP_SIZE) && area->end > l->size)
        overlay_resize(&file->overlay, area->end);
    handle_wrote(handle, l->id);
    file_touch(file);
    file_count(file);
    return error;
}

/* With the lock held. */
static int zero_begin(struct mount_call *call, struct handle *handle, bool *ret_done)
{
    const struct overlay_layer *l = overlay_open(&handle->file->overlay);
    int error = 0;
    *ret_done = false;
    if (handle->file->lost)
        return -ESTALE;
    if (l && l->kind == OVERLAY_REPLACE)
        error = zero_replacing(call, handle, ret_done);
    call->area.layers[0] = last_layer(handle);
    if (!error && !*ret_done)
        error = area_advance(call);
    return error;
}

void on_fallocate(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset, off_t length,
                  struct fuse_file_info *fi)
{
    const int zeroes = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    struct fs_mount *m = fuse_req_userdata(req);
    uint64_t end = (uint64_t)offset + (uint64_t)length;
    int error = mode & ~(zeroes | FALLOC_FL_KEEP_SIZE) ? -EOPNOTSUPP
                : end > LIMIT_FILE_BYTES               ? -EFBIG
                : mode & zeroes                        ? 0
                                : room_check(m, inode, (uint64_t)length);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    struct mount_call *call = call_new(m, req, area_answer);
    if (!call)
        return;
    call->area = (struct mount_area){
        .target = handle_of(fi),
        .offset = (uint64_t)offset,
        .end = end,
        .flags = (mode & zeroes ? FS_PUNCH : 0) |
                 (mode & FALLOC_FL_KEEP_SIZE ? FS_KEEP_SIZE : 0),
        .set = dropped_setid(req),
    };
    bool done = false;
    pthread_mutex_lock(&m->lock);
    error = handle_check(handle_of(fi));
    if (!error)
        error = zero_begin(call, handle_of(fi), &done);
    mount_unlock_and_send(m);
    if (error || done)
        call_finish(call, error);
}

/* ---- COPY_FILE_RANGE ---- */

/* With the lock held: what only this host has of it, the leader cannot copy. */
static bool is_unfinished(const struct handle *handle)
{
    const struct file *file = handle->file;
    const struct overlay_layer *l = overlay_open(&file->overlay);
    return file->lost || file->pending || (l && l->kind == OVERLAY_REPLACE);
}

void on_copy_file_range(fuse_req_t req, fuse_ino_t inode_in, off_t offset_in,
                        struct fuse_file_info *fi_in, fuse_ino_t inode_out,
                        off_t offset_out, struct fuse_file_info *fi_out, size_t length,
                        int flags)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct handle *from = handle_of(fi_in), *to = handle_of(fi_out);
    struct mount_call *call = flags ? NULL : call_new(m, req, area_answer);
    if (flags)
        fuse_reply_err(req, EINVAL);
    if (!call)
        return;
    pthread_mutex_lock(&m->lock);
    int error = handle_check(from) ? -EIO : handle_check(to);
    if (!error && (is_unfinished(from) || is_unfinished(to)))
        error = -EOPNOTSUPP;
    call->area = (struct mount_area){
        .target = to,
        .source = from,
        .offset = (uint64_t)offset_out,
        .end = (uint64_t)offset_out + min_u64(length, COPY_MOST_BYTES),
        .source_offset = (uint64_t)offset_in,
        .layers = {last_layer(to), last_layer(from)},
        .set = dropped_setid(req),
    };
    if (!error)
        error = area_advance(call);
    mount_unlock_and_send(m);
    if (error)
        call_finish(call, error);
}

/* ---- LSEEK ---- */

/* The first stretch of data that ends behind `offset`: of what is committed or built ... */
static int data_below(struct fs_mount *m, const struct base *b, uint64_t offset,
                      uint64_t *ret_start, uint64_t *ret_end)
{
    const struct fs_view *view = &m->backend.view;
    if (!b->hidden)
        return fs_data(view, b->inode, offset, ret_start, ret_end);
    return b->content ? fs_data_content(view, b->content, offset, ret_start, ret_end)
                      : -ENXIO;
}

/* ... and of that and what is written here. -EAGAIN: a commit landed meanwhile. */
static int data_next(struct fs_mount *m, const struct handle *handle,
                     const struct base *b, uint64_t offset, uint64_t *ret_start,
                     uint64_t *ret_end)
{
    uint64_t start = UINT64_MAX, end = 0, start_here, end_here;
    int error = data_below(m, b, offset, &start, &end);
    pthread_mutex_lock(&m->lock);
    if (base_changed(handle->file, b))
        error = -EAGAIN;
    else if ((!error || error == -ENXIO) &&
             overlay_data(&handle->file->overlay, offset, &start_here, &end_here)) {
        if (error || start_here < start) {
            start = start_here;
            end = end_here;
        }
        error = 0;
    }
    pthread_mutex_unlock(&m->lock);
    if (error)
        return error;
    *ret_start = start;
    *ret_end = end;
    return 0;
}

static int seek_once(struct fs_mount *m, const struct handle *handle, uint64_t offset,
                     uint64_t size, bool hole, uint64_t *ret)
{
    uint64_t start = 0, end = 0;
    pthread_mutex_lock(&m->lock);
    struct base b = base_of(handle->file);
    pthread_mutex_unlock(&m->lock);
    int error = data_next(m, handle, &b, offset, &start, &end);
    while (hole && !error && start <= offset && offset < size) {
        offset = end;
        error = data_next(m, handle, &b, offset, &start, &end);
    }
    if (error && error != -ENXIO)
        return error;
    if (hole)
        *ret = min_u64(offset, size);
    else if (error || max_u64(start, offset) >= size)
        return -ENXIO;
    else
        *ret = max_u64(start, offset);
    return 0;
}

void on_lseek(fuse_req_t req, fuse_ino_t inode, off_t offset, int whence,
              struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct stat attr;
    uint64_t found = 0;
    int error = whence != SEEK_DATA && whence != SEEK_HOLE ? -EINVAL : -EAGAIN;
    while (error == -EAGAIN) {
        error = mount_attributes(m, inode, &attr);
        if (!error && (offset < 0 || offset >= attr.st_size))
            error = -ENXIO;
        if (!error)
            error = seek_once(m, handle_of(fi), (uint64_t)offset, (uint64_t)attr.st_size,
                              whence == SEEK_HOLE, &found);
    }
    if (error)
        fuse_reply_err(req, error == -ENOENT ? ESTALE : -error);
    else
        fuse_reply_lseek(req, (off_t)found);
}
