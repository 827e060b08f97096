/* mount_files.c - requests about the bytes of files: handles, reads through the overlay,
 * buffered writes, and what FLUSH, FSYNC and RELEASE make of them (K10, K11, K12). */
#include "mount_internal.h"

/* ---- Opening ---- */

/* With the lock held. Commits what only this handle still owes; frees it. */
static void handle_release(struct handle *handle)
{
    struct file *file = handle->file;
    struct overlay_layer *l = overlay_find(&file->overlay, handle->written);
    if (!l)
        l = overlay_find(&file->overlay, handle->truncated);
    bool is_last = file->handles == handle && !handle->next;
    if (l)
        file_seal(file, l);
    if (is_last)
        file_seal(file, NULL);
    handle_locks_drop(handle);
    handle_free(handle);
    lock_drops_send(file, false);
    file_put(file);
}

/* Through the page cache the kernel cuts a write(2) at page boundaries into several WRITEs,
 * between which another host's append may be committed: a torn line. Past it a write comes
 * whole. Such a handle could not be mapped anyway, since it cannot be read (K12). */
static bool takes_whole_appends(int open_flags)
{
    return (open_flags & O_APPEND) && (open_flags & O_ACCMODE) == O_WRONLY;
}

bool handle_reply(fuse_req_t req, struct handle *handle, struct fuse_file_info *fi,
                  const struct fuse_entry_param *entry)
{
    struct fs_mount *m = fuse_req_userdata(req);
    fi->fh = (uint64_t)(uintptr_t)handle;
    fi->direct_io = takes_whole_appends(fi->flags);
    int error = entry ? fuse_reply_create(req, entry, fi) : fuse_reply_open(req, fi);
    if (error != -ENOENT)
        return true;
    pthread_mutex_lock(&m->lock); /* the caller is gone: no RELEASE will come */
    handle_release(handle);
    if (entry)
        file_forget(m, entry->ino, 1);
    if (m->send_first)
        committer_wake(m, 0);
    pthread_mutex_unlock(&m->lock);
    return false;
}

/* With the lock held: the kernel leaves it to us to drop set-id bits. They go with the value
 * that was theirs. */
static void drop_setid(struct file *file, struct overlay_layer *l)
{
    if (file->pending)
        file->pending->mode = fs_mode_without_setid(file->pending->mode);
    l->attributes.set |= FS_SET_NO_SETID;
}

/* With the lock held: the handle's O_TRUNC begins a new value. */
static int open_truncated(struct handle *handle, bool drops)
{
    struct file *file = handle->file;
    uint64_t session = file_locks_session(file);
    int error =
        overlay_replace(&file->overlay, &file->mount->next_layer,
                        file->flying ? file->flight_layer : NULL, &handle->truncated);
    if (error)
        return error;
    overlay_open(&file->overlay)->session = session;
    if (drops)
        drop_setid(file, overlay_open(&file->overlay));
    file_touch(file);
    lock_drops_send(file, false); /* what they waited for may be hidden for ever */
    return 0;
}

static void finish_open(fuse_req_t req, fuse_ino_t inode, struct handle *handle,
                        struct fuse_file_info *fi, bool drops, int error)
{
    struct fs_mount *m = fuse_req_userdata(req);
    uint64_t version = 0;
    pthread_mutex_lock(&m->lock);
    if (!error && fi->flags & O_TRUNC)
        error = open_truncated(handle, drops);
    if (error)
        handle_release(handle);
    else
        fi->keep_cache = pages_may_stay(m, handle->file, inode, &version);
    mount_unlock_and_send(m);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    bool kept = fi->keep_cache || takes_whole_appends(fi->flags);
    if (!handle_reply(req, handle, fi, NULL) || kept || !version)
        return;
    pthread_mutex_lock(&m->lock);
    pages_begin(m, inode, version);
    pthread_mutex_unlock(&m->lock);
}

static void answer_writable(struct mount_call *call, int error)
{
    finish_open(call->req, call->attr.st_ino, call->handle, &call->fi, call->drops_setid,
                error);
}

/* Programs look at the error of open more often than at that of close: without a majority,
 * or without room, a file is opened for writing only once an operation that changes nothing
 * has come through. */
static void open_when_writable(fuse_req_t req, fuse_ino_t inode, struct handle *handle,
                               struct fuse_file_info *fi)
{
    struct mount_call *call = call_new(fuse_req_userdata(req), req, answer_writable);
    if (!call) {
        pthread_mutex_lock(&handle->file->mount->lock);
        handle_release(handle);
        mount_unlock_and_send(fuse_req_userdata(req));
        return;
    }
    call->handle = handle;
    call->fi = *fi;
    call->attr.st_ino = inode;
    call->drops_setid = request_drops_setid(req);
    call_start(call, &(struct fs_op){.type = FS_SETATTR, .inode = handle->file->inode});
}

/* On a full disk a file may still be opened to be cut to nothing, which makes room; what
 * opens to replace or to append will need some. */
static bool must_ask_first(const struct fs_mount *m, int flags)
{
    const struct fs_backend *b = &m->backend;
    if ((flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY)
        return false;
    return !b->writable(b->context) ||
           (flags & (O_TRUNC | O_APPEND) && !b->has_room(b->context));
}

void on_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct stat attr = {.st_ino = inode};
    pthread_mutex_lock(&m->lock);
    struct file *file = file_get(m, inode);
    struct handle *handle = file ? handle_new(file, fi->flags) : NULL;
    if (file && !handle)
        file_put(file);
    pthread_mutex_unlock(&m->lock);
    if (!handle) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    int error = mount_attributes(m, inode, &attr);
    if (!error && must_ask_first(m, fi->flags))
        open_when_writable(req, inode, handle, fi);
    else
        finish_open(req, inode, handle, fi, request_drops_setid(req), error);
}

/* ---- Reading ---- */

struct base base_of(const struct file *file)
{
    struct base b = {.inode = file->inode, .generation = file->generation};
    b.hidden = overlay_hides_base(&file->overlay, &b.content);
    b.empty = overlay_empty(&file->overlay);
    return b;
}

bool base_changed(const struct file *file, const struct base *b)
{
    struct base now = base_of(file);
    return now.inode != b->inode || now.generation != b->generation ||
           now.hidden != b->hidden || now.content != b->content;
}

int base_read(struct fs_mount *m, const struct base *b, uint64_t offset, size_t length,
              uint8_t *to, uint64_t *ret_size)
{
    size_t got = length;
    int error = 0;
    if (!b->hidden)
        error = fs_read(&m->backend.view, b->inode, offset, length, to, &got);
    else if (b->content)
        error = fs_read_content(&m->backend.view, b->content, offset, length, to);
    else
        memset(to, 0, length);
    if (error)
        return error;
    if (got < length)
        memset(to + got, 0, length - got);
    *ret_size = offset + got;
    return 0;
}

/* -EAGAIN: a commit landed between the look at the overlay and the read below it. */
static int read_once(struct fs_mount *m, struct handle *handle, uint64_t offset,
                     size_t length, uint8_t *to, size_t *ret_length)
{
    uint64_t size = 0;
    pthread_mutex_lock(&m->lock);
    int error = handle_check(handle);
    struct base b = base_of(handle->file);
    pthread_mutex_unlock(&m->lock);
    if (!error)
        error = base_read(m, &b, offset, length, to, &size);
    pthread_mutex_lock(&m->lock);
    struct file *file = handle->file;
    if (base_changed(file, &b))
        error = -EAGAIN;
    else if (error == -ENOENT)
        error = -ESTALE;
    if (!error) {
        size = overlay_apply(&file->overlay, size, offset, to, length);
        pages_read(file, offset, length);
    }
    pthread_mutex_unlock(&m->lock);
    if (!error)
        *ret_length = size > offset ? (size_t)min_u64(size - offset, length) : 0;
    return error;
}

void on_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
             struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    uint8_t *window = malloc(size ? size : 1);
    size_t got = 0;
    int error = window ? -EAGAIN : -ENOMEM;
    while (error == -EAGAIN)
        error = read_once(m, handle_of(fi), (uint64_t)offset, size, window, &got);
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_buf(req, (const char *)window, got);
    free(window);
}

/* ---- Writing ---- */

static void answer_write(struct mount_call *call, int error)
{
    if (error)
        fuse_reply_err(call->req, -error);
    else
        fuse_reply_write(call->req, call->size);
}

enum write_wait {
    WRITE_AT_ONCE,
    WRITE_COMMIT, /* O_SYNC and the like: until it is committed */
    WRITE_ROOM,   /* until the commit in flight makes room */
};

/* With the lock held, after a write was taken into the layer. */
static enum write_wait write_settle(struct file *file, struct overlay_layer *l, bool sync)
{
    struct fs_mount *m = file->mount;
    bool crowds = mount_is_full(m); /* with what all files hold */
    bool full = overlay_full(l) || crowds;
    bool crowded = file->flying && (full || file->flight_layer->next != l);
    if (file->flying && l == file->flight_layer) /* a build of this very layer */
        crowded = full;
    if (sync || (full && l->kind != OVERLAY_REPLACE))
        file_seal(file, l);
    else if (full)
        file_kick(file);
    else
        file_schedule(file);
    if (crowds) {
        crowded = file->flying;
        m->load.buffered_waits++;
    }
    return sync ? WRITE_COMMIT : crowded ? WRITE_ROOM : WRITE_AT_ONCE;
}

static int write_check(const struct file *file, uint64_t offset, size_t size, bool append)
{
    if (file->lost)
        return -ESTALE;
    const struct overlay_layer *l = overlay_open(&file->overlay);
    if (append && l && l->kind == OVERLAY_REPLACE)
        offset = max_u64(offset, l->size);
    if (offset + size > LIMIT_FILE_BYTES)
        return -EFBIG;
    return 0;
}

/* With the lock held. */
static int write_take(struct handle *handle, const struct fuse_file_info *fi,
                      uint64_t offset, const char *data, size_t size, bool drops,
                      enum write_wait *ret_wait, struct overlay_layer **ret_layer)
{
    struct file *file = handle->file;
    struct fs_mount *m = file->mount;
    bool append = !fi->writepage && fi->flags & O_APPEND; /* K12 */
    bool sync = !fi->writepage && (fi->flags | handle->flags) & (O_DSYNC | O_DIRECT);
    uint64_t id;
    int error = fi->writepage ? handle->lock_lost ? -EIO : 0 : handle_check(handle);
    if (!error)
        error = write_check(file, offset, size, append);
    uint64_t session = error ? 0 : file_part_sessions(file, fi->writepage);
    if (!error)
        error = overlay_write(&file->overlay, &m->next_layer, offset, data, size, append,
                              &id);
    if (error)
        return error;
    file_touch(file);
    file_count(file);
    if (!fi->writepage)
        handle_wrote(handle, id);
    struct overlay_layer *l = overlay_find(&file->overlay, id);
    layer_rests_on(l, session);
    if (!fi->writepage) /* the kernel does not drop pages that are to be written */
        pages_written(file, l, offset, size, takes_whole_appends(handle->flags));
    if (drops)
        drop_setid(file, l);
    *ret_wait = write_settle(file, l, sync);
    *ret_layer = l;
    return 0;
}

void on_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size,
              off_t offset, struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct handle *handle = handle_of(fi);
    enum write_wait wait = WRITE_AT_ONCE;
    struct overlay_layer *l = NULL;
    bool drops = m->tells_setid && request_drops_setid(req);
    struct mount_call *call = call_new(m, req, answer_write);
    if (!call)
        return;
    if ((uint64_t)offset < LIMIT_FILE_BYTES) /* as much as there is room for below it */
        size = (size_t)min_u64(size, LIMIT_FILE_BYTES - (uint64_t)offset);
    call->size = size;
    call->holds_pages = true;
    pthread_mutex_lock(&m->lock);
    int error = write_take(handle, fi, (uint64_t)offset, data, size, drops, &wait, &l);
    if (!error && wait == WRITE_COMMIT) {
        call->handle = handle;
        call_wait(call, &l->waiting, handle->file);
    } else if (!error && wait == WRITE_ROOM) {
        call_wait(call, &handle->file->parked, handle->file);
    }
    mount_unlock_and_send(m);
    if (error || wait == WRITE_AT_ONCE)
        call_finish(call, error);
}

/* ---- FLUSH, FSYNC, RELEASE ---- */

/* With the lock held: the layer this handle has to commit; NULL: none. *ret_bare: it is
 * the emptiness its O_TRUNC began, and nobody was asked yet whether a value is to follow.
 */
static struct overlay_layer *owed_layer(const struct handle *handle, bool *ret_bare)
{
    const struct overlay *o = &handle->file->overlay;
    struct overlay_layer *l = overlay_find(o, handle->written);
    *ret_bare = false;
    if (!l) {
        l = overlay_find(o, handle->truncated);
        *ret_bare = l && !l->sealed;
    }
    return l;
}

/* Answers `call` when `l` is committed; with what is known by now where it is NULL. Takes
 * the lock's ownership. */
static void commit_and_answer(struct mount_call *call, struct handle *handle,
                              struct overlay_layer *l)
{
    struct fs_mount *m = call->mount;
    int error = handle->error;
    bool waits = l && !error;
    handle->error = 0;
    if (waits) {
        call->handle = handle;
        call_wait(call, &l->waiting, handle->file);
    }
    if (l)
        file_seal(handle->file, l);
    mount_unlock_and_send(m);
    if (!waits)
        call_finish(call, error);
}

/* K10: a shell's ">" is OPEN(O_TRUNC), FLUSH, WRITE, FLUSH: the first one, of a
 * descriptor that was duplicated, must not publish that the value is empty. */
void on_flush(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct handle *handle = handle_of(fi);
    pid_t pid = fuse_req_ctx(req)->pid;
    bool bare;
    struct mount_call *call = call_new(m, req, answer_nothing);
    if (!call)
        return;
    pthread_mutex_lock(&m->lock);
    struct overlay_layer *l = owed_layer(handle, &bare);
    if (l && bare) {
        pthread_mutex_unlock(&m->lock);
        bool goes_on = fdinfo_holds(m, pid, inode);
        pthread_mutex_lock(&m->lock);
        l = owed_layer(handle, &bare);
        if (bare && goes_on)
            l = NULL;
    }
    struct overlay_layer *last = handle->file->overlay.last;
    if (lock_flushes(call, handle, fi->lock_owner) && last &&
        (last->kind != OVERLAY_REPLACE || last->written))
        l = last; /* all that was written under its locks */
    commit_and_answer(call, handle, l);
}

void on_fsync(fuse_req_t req, fuse_ino_t inode, int datasync, struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct handle *handle = handle_of(fi);
    struct mount_call *call = call_new(m, req, answer_nothing);
    if (!call)
        return;
    pthread_mutex_lock(&m->lock);
    if (handle_check(handle))
        handle->error = -EIO;
    commit_and_answer(call, handle, handle->file->overlay.last);
}

/* Nobody waits for it: close has returned long ago. */
void on_release(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct handle *handle = handle_of(fi);
    pthread_mutex_lock(&m->lock);
    if (handle->error)
        log_warn("nobody was told that what was written to inode %llu is lost: %s",
                 (unsigned long long)handle->file->inode, strerror(-handle->error));
    handle_release(handle);
    mount_unlock_and_send(m);
    fuse_reply_err(req, 0);
}
