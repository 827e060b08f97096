/* mount_attr.c - attributes, as this host's processes are to see them (K11, K16). */
#include "mount_internal.h"

#include <sys/statvfs.h>
#include <time.h>

/* 1677-09-21 to 2262-04-11; a time out of that is its end, as on ext4. */
int64_t timespec_ns(struct timespec t)
{
    const int64_t end_s = INT64_MAX / 1000000000;
    if (t.tv_sec < -end_s)
        return -end_s * 1000000000;
    if (t.tv_sec >= end_s)
        return end_s * 1000000000;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

struct timespec ns_timespec(int64_t ns)
{
    int64_t seconds = ns / 1000000000 - (ns % 1000000000 < 0);
    return (struct timespec){.tv_sec = seconds, .tv_nsec = ns - seconds * 1000000000};
}

int64_t now_ns(void)
{
    return (int64_t)clock_real_us() * 1000;
}

void stat_of_inode(const struct fs_inode *inode, struct stat *ret)
{
    uint64_t bytes = inode->kind == FS_CONTENT_EXTENTS  ? inode->content_bytes
                     : inode->kind == FS_CONTENT_INLINE ? inode->size
                                                        : 0;
    *ret = (struct stat){
        .st_ino = inode->inode,
        .st_mode = inode->mode,
        .st_nlink = inode->nlink,
        .st_uid = inode->uid,
        .st_gid = inode->gid,
        .st_rdev = inode->rdev,
        .st_size = (off_t)inode->size,
        .st_blksize = 4096,
        .st_blocks = (blkcnt_t)((bytes + 511) / 512),
        .st_atim = ns_timespec(inode->atime_ns),
        .st_mtim = ns_timespec(inode->mtime_ns),
        .st_ctim = ns_timespec(inode->ctime_ns),
    };
}

/* M23: what the commits will make of them. */
static void times_onto(const struct file *file, struct stat *attr)
{
    int64_t shown = timespec_ns(attr->st_ctim);
    for (const struct overlay_layer *l = file->overlay.first; l; l = l->next)
        if (l->written_ns) {
            shown = l->written_ns > shown ? l->written_ns : shown + 1;
            attr->st_mtim = attr->st_ctim = ns_timespec(shown);
        }
}

/* What is written and not committed, laid over the committed attributes. */
static void overlay_attributes_onto(const struct file *file, struct stat *attr)
{
    if (overlay_empty(&file->overlay))
        return;
    attr->st_size = (off_t)overlay_size(&file->overlay, (uint64_t)attr->st_size);
    uint64_t stored = (uint64_t)attr->st_blocks * 512;
    stored = overlay_stored(&file->overlay, stored, (uint64_t)attr->st_size);
    attr->st_blocks = (blkcnt_t)((stored + 511) / 512);
    times_onto(file, attr);
    for (const struct overlay_layer *l = file->overlay.first; l; l = l->next)
        if ((l->attributes.set & (FS_SET_NO_SETID | FS_SET_MODE)) == FS_SET_NO_SETID)
            attr->st_mode = fs_mode_without_setid(attr->st_mode);
}

/* With the lock held: of what this host alone can tell. False: it cannot. */
static bool attributes_local(const struct file *file, struct stat *ret)
{
    if (file->pending)
        pending_attributes(file, ret);
    return file->pending;
}

/* With the lock held. The committed attributes were read when the file's generation was
 * `generation`. -EAGAIN: something landed meanwhile. */
static int attributes_merge(struct fs_mount *m, uint64_t inode, uint64_t generation,
                            int error, struct stat *attr)
{
    struct file *file = file_find(m, inode);
    if (generation != (file ? file->generation : 0))
        return -EAGAIN;
    if (error)
        return error == -ENOENT ? -ESTALE : error;
    if (file)
        overlay_attributes_onto(file, attr);
    attr->st_ino = inode; /* an alias keeps the number its descriptors have shown */
    return 0;
}

/* With the lock held: a commit of this host is being applied, and not answered yet. Whether
 * something was answered soon. */
static bool wait_for_landing(struct fs_mount *m)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until = ns_timespec(timespec_ns(until) + MOUNT_LANDING_US * (int64_t)1000);
    return pthread_cond_timedwait(&m->idle, &m->lock, &until) == 0;
}

/* With the lock held (M17): the mtime by which the kernel judges its pages. A read is told
 * the one it was told before, where nobody else has written since; else another one, if
 * need be by a nanosecond. -EAGAIN: to be looked at anew. */
static int pages_judge(struct file *file, uint64_t version, bool reads, struct stat *attr)
{
    int64_t mtime = timespec_ns(attr->st_mtim);
    if (file->aliases) { /* the kernel has pages of two inodes: none are kept */
        file->told_version = 0;
        if (reads) {
            file->told_mtime_ns =
                mtime > file->told_mtime_ns ? mtime : file->told_mtime_ns + 1;
            attr->st_mtim = ns_timespec(file->told_mtime_ns);
        }
        return 0;
    }
    bool same = version == file->told_version;
    if (reads && same) {
        attr->st_mtim = ns_timespec(file->told_mtime_ns);
        return 0;
    }
    if (reads && file->flying && file->told_version &&
        file->flight_version == file->told_version && wait_for_landing(file->mount))
        return -EAGAIN;
    if (reads && mtime == file->told_mtime_ns)
        attr->st_mtim = ns_timespec(++mtime);
    if (!same && mtime != file->told_mtime_ns)
        file->told_version = version;
    file->told_mtime_ns = mtime;
    return 0;
}

static int attributes_look(struct fs_mount *m, uint64_t inode, bool reads,
                           struct stat *ret)
{
    struct buf scratch = {0};
    struct stat attr;
    int error = -EAGAIN;
    while (error == -EAGAIN) {
        pthread_mutex_lock(&m->lock);
        const struct file *file = file_find(m, inode);
        uint64_t generation = file ? file->generation : 0;
        uint64_t number = file ? file->inode : inode;
        bool local = file && attributes_local(file, &attr);
        pthread_mutex_unlock(&m->lock);
        error = 0;
        if (local)
            break;
        struct fs_inode committed;
        int missing = fs_stat(&m->backend.view, number, &scratch, &committed);
        if (!missing)
            stat_of_inode(&committed, &attr);
        pthread_mutex_lock(&m->lock);
        error = attributes_merge(m, inode, generation, missing, &attr);
        struct file *now = file_find(m, number);
        if (!error && !missing && now) {
            file_saw(now, committed.version);
            if (now->handles && S_ISREG(attr.st_mode))
                error = pages_judge(now, committed.version, reads, &attr);
        }
        pthread_mutex_unlock(&m->lock);
    }
    buf_release(&scratch);
    if (!error)
        *ret = attr;
    return error;
}

int mount_attributes(struct fs_mount *m, uint64_t inode, struct stat *ret)
{
    return attributes_look(m, inode, false, ret);
}

int mount_attributes_for_read(struct fs_mount *m, uint64_t inode, struct stat *ret)
{
    return attributes_look(m, inode, true, ret);
}

/* The kernel asks for every name and for every file's attributes each time. Those of
 * directories, which a walk asks for again and again, are good for one tick of its clock.
 */
static double attribute_timeout_s(const struct stat *attr)
{
    return S_ISDIR(attr->st_mode) ? MOUNT_DIRECTORY_TIMEOUT_S : 0;
}

void mount_show(const struct fs_mount *m, struct stat *attr)
{
    const struct mount_shown *shown = &m->shown;
    if (shown->has_uid)
        attr->st_uid = shown->uid;
    if (shown->has_gid)
        attr->st_gid = shown->gid;
    if (shown->has_umask)
        attr->st_mode = (attr->st_mode & S_IFMT) | (0777 & ~shown->umask);
}

void entry_of(const struct fs_mount *m, const struct stat *attr,
              struct fuse_entry_param *ret)
{
    *ret = (struct fuse_entry_param){
        .ino = attr->st_ino, .attr = *attr, .attr_timeout = attribute_timeout_s(attr)};
    mount_show(m, &ret->attr);
}

/* What the kernel reads from its pages it asks for by this first. */
static int check_handle(struct fs_mount *m, const struct fuse_file_info *fi)
{
    pthread_mutex_lock(&m->lock);
    int error = handle_check(handle_of(fi));
    pthread_mutex_unlock(&m->lock);
    return error;
}

void on_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    struct stat attr;
    struct fs_mount *m = fuse_req_userdata(req);
    int error = fi ? check_handle(m, fi) : 0;
    if (!error) /* with a descriptor it is not fstat, but the kernel before it reads */
        error = fi ? mount_attributes_for_read(m, inode, &attr)
                   : mount_attributes(m, inode, &attr);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    mount_show(m, &attr);
    fuse_reply_attr(req, &attr, attribute_timeout_s(&attr));
}

/* ---- SETATTR ---- */

static void attributes_of(const struct stat *attr, int set,
                          struct overlay_attributes *ret)
{
    static const struct {
        int theirs;
        uint32_t ours;
    } map[] = {
        {FUSE_SET_ATTR_MODE, FS_SET_MODE},
        {FUSE_SET_ATTR_UID, FS_SET_UID},
        {FUSE_SET_ATTR_GID, FS_SET_GID},
        {FUSE_SET_ATTR_ATIME, FS_SET_ATIME},
        {FUSE_SET_ATTR_MTIME, FS_SET_MTIME},
        {FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME_NOW},
        {FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME_NOW},
    };
    *ret = (struct overlay_attributes){
        .mode = attr->st_mode,
        .uid = attr->st_uid,
        .gid = attr->st_gid,
        .atime_ns = timespec_ns(attr->st_atim),
        .mtime_ns = timespec_ns(attr->st_mtim),
    };
    for (size_t i = 0; i < array_length(map); i++)
        if (set & map[i].theirs)
            ret->set |= map[i].ours;
    if (ret->set & FS_SET_ATIME_NOW)
        ret->set &= ~(uint32_t)FS_SET_ATIME;
    if (ret->set & FS_SET_MTIME_NOW)
        ret->set &= ~(uint32_t)FS_SET_MTIME;
}

/* What the caller is shown once it is done; the kernel asks anew before it relies on it.
 */
static void attributes_show(const struct overlay_attributes *a, const uint64_t *size,
                            struct stat *attr)
{
    struct timespec now = ns_timespec(now_ns());
    if (a->set & FS_SET_NO_SETID)
        attr->st_mode = fs_mode_without_setid(attr->st_mode);
    if (a->set & FS_SET_MODE)
        attr->st_mode = (attr->st_mode & S_IFMT) | (a->mode & 07777);
    if (a->set & FS_SET_UID)
        attr->st_uid = a->uid;
    if (a->set & FS_SET_GID)
        attr->st_gid = a->gid;
    if (a->set & (FS_SET_ATIME | FS_SET_ATIME_NOW))
        attr->st_atim = a->set & FS_SET_ATIME ? ns_timespec(a->atime_ns) : now;
    if (a->set & (FS_SET_MTIME | FS_SET_MTIME_NOW))
        attr->st_mtim = a->set & FS_SET_MTIME ? ns_timespec(a->mtime_ns) : now;
    if (size)
        attr->st_size = (off_t)*size;
    attr->st_ctim = now;
}

static void answer_attr(struct mount_call *call, int error)
{
    if (error) {
        fuse_reply_err(call->req, error == -ENOENT ? ESTALE : -error);
        return;
    }
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    struct file *file = file_find(m, call->attr.st_ino);
    if (file) {
        file_changed(file);
        file->told_version = 0;
        file->told_mtime_ns = timespec_ns(call->attr.st_mtim);
    }
    pthread_mutex_unlock(&m->lock);
    mount_show(m, &call->attr);
    fuse_reply_attr(call->req, &call->attr, 0);
}

static void wait_for_layer(struct mount_call *call, struct file *file,
                           struct overlay_layer *l)
{
    call_wait(call, &l->waiting, file);
    file_seal(file, l);
}

enum outcome {
    DONE,    /* taken into the overlay */
    WAITING, /* travels with a layer's commit */
    PLAIN,   /* an operation of its own */
};

/* Set by hand while nothing is written yet: if nothing will be, the commit of the empty value is to
 * leave it as it was set. A write after it undoes that (file_touch). */
static void mtime_keep(struct file *file, struct overlay_layer *l,
                       const struct overlay_attributes *a)
{
    if (!(a->set & (FS_SET_MTIME | FS_SET_MTIME_NOW)))
        return;
    l->attributes.set &= ~(uint32_t)FS_SET_MTIME;
    l->attributes.set |= a->set & FS_SET_MTIME;
    l->attributes.mtime_ns = a->mtime_ns;
    l->written_ns = 0;
}

/* A value that is being replaced, unseen: its size is nobody else's business yet. */
static enum outcome setattr_replacing(struct mount_call *call, struct file *file,
                                      const struct overlay_attributes *a,
                                      const uint64_t *size, struct handle *handle)
{
    struct overlay_layer *l = overlay_open(&file->overlay);
    bool kept = true, was_written = l->written;
    if (size) {
        layer_rests_on(l, file_locks_session(file));
        kept = overlay_resize(&file->overlay, *size);
        file_touch(file);
        if (handle)
            handle_wrote(handle, l->id);
    }
    if (file->pending)
        pending_set(file->pending, a);
    else if (a->set && was_written) {
        struct overlay_layer *same;
        overlay_set(&file->overlay, &file->mount->next_layer, a, NULL, &same);
        wait_for_layer(call, file, l);
        return WAITING;
    }
    if (!kept) { /* what was built cannot be cut there: its commit does it */
        wait_for_layer(call, file, l);
        return WAITING;
    }
    if (a->set && !file->pending) {
        mtime_keep(file, l, a);
        return PLAIN;
    }
    return DONE;
}

/* With the lock held. */
static enum outcome setattr_decide(struct mount_call *call, struct file *file,
                                   const struct overlay_attributes *a,
                                   const uint64_t *size, struct handle *handle,
                                   int *ret_error)
{
    if (!file || overlay_empty(&file->overlay))
        return PLAIN;
    struct overlay_layer *l = overlay_open(&file->overlay);
    if (l && l->kind == OVERLAY_REPLACE)
        return setattr_replacing(call, file, a, size, handle);
    uint64_t session = size ? file_locks_session(file) : 0;
    *ret_error = overlay_set(&file->overlay, &file->mount->next_layer, a, size, &l);
    if (*ret_error)
        return DONE;
    layer_rests_on(l, session);
    if (size)
        file_touch(file);
    wait_for_layer(call, file, l);
    return WAITING;
}

static void setattr_plain(struct mount_call *call, uint64_t inode,
                          const struct overlay_attributes *a, const uint64_t *size)
{
    struct fs_op op = {
        .type = FS_SETATTR,
        .inode = inode,
        .set = a->set | (size ? FS_SET_SIZE : 0),
        .mode = a->mode,
        .uid = a->uid,
        .gid = a->gid,
        .size = size ? *size : 0,
        .atime_ns = a->atime_ns,
        .mtime_ns = a->mtime_ns,
    };
    call_start(call, &op);
}

void on_setattr(fuse_req_t req, fuse_ino_t inode, struct stat *attr, int set,
                struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct overlay_attributes a;
    attributes_of(attr, set, &a);
    if (m->tells_setid && request_drops_setid(req))
        a.set |= FS_SET_NO_SETID;
    uint64_t size = (uint64_t)attr->st_size;
    const uint64_t *sized = set & FUSE_SET_ATTR_SIZE ? &size : NULL;
    struct stat shown;
    int error = fi ? check_handle(m, fi) : 0;
    if (!error)
        error = sized && size > LIMIT_FILE_BYTES ? -EFBIG
                                                 : mount_attributes(m, inode, &shown);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    /* Of nothing: chown(-1, -1), or what has no flag of its own for set-id bits (fallocate and
     * the like, of who may not keep them). ctime changes too. */
    if (!a.set && !sized)
        a.set = FS_SET_NO_SETID;
    struct mount_call *call = call_new(m, req, answer_attr);
    if (!call)
        return;
    attributes_show(&a, sized, &shown);
    call->attr = shown;
    pthread_mutex_lock(&m->lock);
    struct file *file = file_find(m, inode);
    enum outcome outcome =
        setattr_decide(call, file, &a, sized, fi ? handle_of(fi) : NULL, &error);
    uint64_t number = file ? file->inode : inode;
    bool replaced = file && overlay_open(&file->overlay) &&
                    overlay_open(&file->overlay)->kind == OVERLAY_REPLACE;
    mount_unlock_and_send(m);
    if (outcome == PLAIN)
        setattr_plain(call, number, &a, replaced ? NULL : sized);
    else if (outcome == DONE)
        call_finish(call, error);
}

void on_statfs(fuse_req_t req, fuse_ino_t inode)
{
    struct fs_mount *m = fuse_req_userdata(req);
    uint64_t free_bytes = 0, total_bytes = 0, keys = 0;
    m->backend.space(m->backend.context, &free_bytes, &total_bytes, &keys);
    struct statvfs st = {
        .f_bsize = 4096,
        .f_frsize = 4096,
        .f_blocks = total_bytes / 4096,
        .f_bfree = free_bytes / 4096,
        .f_bavail = free_bytes / 4096,
        .f_files = keys + free_bytes / 4096,
        .f_ffree = free_bytes / 4096,
        .f_favail = free_bytes / 4096,
        .f_namemax = LIMIT_NAME_BYTES,
    };
    fuse_reply_statfs(req, &st);
}
