/* mount_names.c - requests about names: look-ups from the view and the pending names,
 * changes as operations. */
#include "acl.h"
#include "mount_internal.h"
#include "xattr.h"

static bool name_refused(fuse_req_t req, const char *name)
{
    if (strlen(name) <= LIMIT_NAME_BYTES)
        return false;
    fuse_reply_err(req, ENAMETOOLONG);
    return true;
}

/* ---- LOOKUP, FORGET, READLINK ---- */

static void reply_entry(fuse_req_t req, const struct fuse_entry_param *entry)
{
    struct fs_mount *m = fuse_req_userdata(req);
    if (fuse_reply_entry(req, entry) != -ENOENT)
        return;
    pthread_mutex_lock(&m->lock); /* the caller is gone: no FORGET will come */
    file_forget(m, entry->ino, 1);
    pthread_mutex_unlock(&m->lock);
}

static bool lookup_pending(fuse_req_t req, struct fs_mount *m, uint64_t parent,
                           const char *name)
{
    struct stat attr;
    pthread_mutex_lock(&m->lock);
    struct pending *p = pending_find(m, parent, name, strlen(name));
    if (p) {
        lookup_count(m, p->file->inode);
        pending_attributes(p->file, &attr);
    }
    pthread_mutex_unlock(&m->lock);
    if (!p)
        return false;
    struct fuse_entry_param entry;
    entry_of(m, &attr, &entry);
    reply_entry(req, &entry);
    return true;
}

/* A rename may take the inode away between the two looks: the name leads to another one
 * by then, and must not seem to be gone. */
int mount_attributes_of_name(struct fs_mount *m, uint64_t parent, const char *name,
                             struct stat *ret)
{
    const struct fs_view *view = &m->backend.view;
    uint64_t inode, begun;
    int error;
    do {
        begun = view->begin ? view->begin(view->context) : 0;
        error = fs_lookup(view, parent, name, strlen(name), &inode);
        if (!error)
            error = mount_attributes(m, inode, ret);
        if (!error && ret->st_nlink == 0)
            error = -ESTALE;
    } while (error == -ESTALE && view->begin && view->retry(view->context, begun));
    return error;
}

void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs_mount *m = fuse_req_userdata(req);
    if (name_refused(req, name) || lookup_pending(req, m, parent, name))
        return;
    struct stat attr;
    pthread_mutex_lock(&m->lock);
    unsigned section = section_begin(m);
    pthread_mutex_unlock(&m->lock);
    int error = mount_attributes_of_name(m, parent, name, &attr);
    pthread_mutex_lock(&m->lock);
    if (!error)
        lookup_count(m, attr.st_ino);
    section_end(m, section);
    pthread_mutex_unlock(&m->lock);
    if (error) {
        fuse_reply_err(req, error == -ESTALE ? ENOENT : -error);
        return;
    }
    struct fuse_entry_param entry;
    entry_of(m, &attr, &entry);
    reply_entry(req, &entry);
}

void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct fs_mount *m = fuse_req_userdata(req);
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < count; i++)
        file_forget(m, forgets[i].ino, forgets[i].nlookup);
    pthread_mutex_unlock(&m->lock);
    fuse_reply_none(req);
}

void on_forget(fuse_req_t req, fuse_ino_t inode, uint64_t count)
{
    struct fuse_forget_data one = {.ino = inode, .nlookup = count};
    on_forget_multi(req, 1, &one);
}

void on_readlink(fuse_req_t req, fuse_ino_t number)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct buf scratch = {0}, target = {0};
    struct fs_inode inode;
    int error = fs_stat(&m->backend.view, number, &scratch, &inode);
    if (error == -ENOENT)
        error = -ESTALE;
    if (!error && !S_ISLNK(inode.mode))
        error = -EINVAL;
    if (!error) {
        buf_bytes(&target, inode.inline_bytes, inode.size);
        buf_u8(&target, 0);
        error = target.failed ? -ENOMEM : 0;
    }
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_readlink(req, (const char *)target.data);
    buf_release(&scratch);
    buf_release(&target);
}

/* ---- Making ---- */

/* What the call brings is not to be released before it is counted. */
static void call_in_section(struct mount_call *call)
{
    pthread_mutex_lock(&call->mount->lock);
    call->in_section = true;
    call->section = section_begin(call->mount);
    pthread_mutex_unlock(&call->mount->lock);
}

/* On the loop: nothing is read there, so the entry is shown as it was asked for; the
 * kernel has no timeout for it and asks anew. */
static void answer_entry(struct mount_call *call, int error)
{
    if (error) {
        fuse_reply_err(call->req, -error);
        return;
    }
    struct fs_mount *m = call->mount;
    struct fuse_entry_param entry;
    call->attr.st_ino = call->request.result.value;
    entry_of(m, &call->attr, &entry);
    entry.attr_timeout = 0; /* a directory's too: its own may say otherwise */
    pthread_mutex_lock(&m->lock);
    lookup_count(m, entry.ino);
    pthread_mutex_unlock(&m->lock);
    reply_entry(call->req, &entry);
}

static void make_attributes(mode_t mode, const struct fuse_ctx *who, uint64_t size,
                            dev_t rdev, struct stat *ret)
{
    struct timespec now = ns_timespec(now_ns());
    *ret = (struct stat){
        .st_mode = mode,
        .st_nlink = S_ISDIR(mode) ? 2 : 1,
        .st_uid = who->uid,
        .st_gid = who->gid,
        .st_size = (off_t)size,
        .st_rdev = rdev,
        .st_blksize = 4096,
        .st_atim = now,
        .st_mtim = now,
        .st_ctim = now,
    };
}

static void make(fuse_req_t req, uint64_t parent, const char *name, mode_t mode,
                 dev_t rdev, const char *target, struct fuse_file_info *fi,
                 void (*answer)(struct mount_call *call, int error))
{
    struct fs_mount *m = fuse_req_userdata(req);
    const struct fuse_ctx *who = fuse_req_ctx(req);
    struct mount_call *call = call_new(m, req, answer);
    if (!call)
        return;
    size_t target_size = target ? strlen(target) : 0;
    make_attributes(mode & ~(S_ISLNK(mode) ? 0 : who->umask), who, target_size, rdev,
                    &call->attr);
    if (fi)
        call->fi = *fi;
    strcpy(call->names[0], name);
    call_touch(call, parent, call->names[0]);
    call_in_section(call);
    struct fs_op op = {
        .type = FS_MAKE,
        .flags = FS_UMASK,
        .umask = who->umask & 0777,
        .parent = parent,
        .name = (const uint8_t *)name,
        .name_size = (uint16_t)strlen(name),
        .mode = mode,
        .uid = who->uid,
        .gid = who->gid,
        .rdev = (uint32_t)rdev,
        .target = (const uint8_t *)target,
        .target_size = (uint16_t)target_size,
    };
    call_start(call, &op);
}

void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
              dev_t rdev)
{
    if (!name_refused(req, name))
        make(req, parent, name, mode, rdev, NULL, NULL, answer_entry);
}

void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    if (!name_refused(req, name))
        make(req, parent, name, S_IFDIR | (mode & 07777), 0, NULL, NULL, answer_entry);
}

void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    if (strlen(target) > LIMIT_PATH_BYTES)
        fuse_reply_err(req, ENAMETOOLONG);
    else if (!name_refused(req, name))
        make(req, parent, name, S_IFLNK | 0777, 0, target, NULL, answer_entry);
}

/* ---- LINK ---- */

static void answer_link(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    struct file *file = file_find(m, call->subject);
    if (file && !error)
        file_changed(file);
    pthread_mutex_unlock(&m->lock);
    answer_entry(call, error);
}

void on_link(fuse_req_t req, fuse_ino_t inode, fuse_ino_t parent, const char *name)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct stat attr;
    if (name_refused(req, name))
        return;
    int error = mount_attributes(m, inode, &attr);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    struct mount_call *call = call_new(m, req, answer_link);
    if (!call)
        return;
    call->attr = attr;
    call->attr.st_nlink++;
    call->attr.st_ctim = ns_timespec(now_ns());
    strcpy(call->names[0], name);
    call_touch(call, parent, call->names[0]);
    call_subject(call, inode);
    call_in_section(call);
    struct fs_op op = {.type = FS_LINK,
                       .inode = inode,
                       .parent = parent,
                       .name = (const uint8_t *)name,
                       .name_size = (uint16_t)strlen(name)};
    call_start(call, &op);
}

/* ---- CREATE ---- */

/* ESTALE makes the caller's kernel look the name up again, and find what was made there
 * between its look-up and this. */
static int created_meanwhile(int error, int flags)
{
    return error == -EEXIST && !(flags & O_EXCL) ? -ESTALE : error;
}

static void answer_create(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    error = created_meanwhile(error, call->fi.flags);
    struct handle *handle = NULL;
    if (!error) {
        pthread_mutex_lock(&m->lock);
        struct file *file = file_get(m, call->request.result.value);
        handle = file ? handle_new(file, call->fi.flags) : NULL;
        error = handle ? 0 : -ENOMEM;
        if (handle)
            lookup_count(m, file->inode);
        pthread_mutex_unlock(&m->lock);
    }
    if (error) {
        fuse_reply_err(call->req, -error);
        return;
    }
    struct fuse_entry_param entry;
    call->attr.st_ino = call->request.result.value;
    entry_of(call->mount, &call->attr, &entry);
    handle_reply(call->req, handle, &call->fi, &entry);
}

/* With the lock held: a handle on a pending file, new or found. */
static int pending_open(struct fs_mount *m, struct file *file, int flags,
                        struct stat *attr, struct handle **ret)
{
    uint64_t layer = 0;
    struct handle *handle = handle_new(file, flags);
    int error = handle ? 0 : -ENOMEM;
    if (handle && flags & O_TRUNC)
        error = overlay_replace(&file->overlay, &m->next_layer,
                                file->flying ? file->flight_layer : NULL, &layer);
    if (error) {
        if (handle)
            handle_free(handle);
        return error;
    }
    handle->truncated = layer;
    lookup_count(m, file->inode);
    pending_attributes(file, attr);
    *ret = handle;
    return 0;
}

/* Whether what is made there gets an ACL, and with it another mode: by its MAKE. -ENODATA. */
static int hands_down_acl(struct fs_mount *m, uint64_t parent)
{
    return xattr_find(&m->backend.view, parent, ACL_DEFAULT, strlen(ACL_DEFAULT), NULL);
}

/* The group of what is made there: the directory's, if it is set-group-id. */
static int group_in(struct fs_mount *m, uint64_t parent, gid_t gid, gid_t *ret)
{
    struct stat attr;
    int error = mount_attributes(m, parent, &attr);
    if (error)
        return error;
    *ret = attr.st_mode & S_ISGID ? attr.st_gid : gid;
    return 0;
}

/* O_CREAT|O_TRUNC without O_EXCL: nothing is committed until there is a value. 1: not so,
 * the name is to be made at once. */
static int create_pending(struct fs_mount *m, fuse_req_t req, uint64_t parent,
                          const char *name, mode_t mode, int flags, struct stat *attr,
                          struct handle **ret)
{
    const struct fuse_ctx *who = fuse_req_ctx(req);
    uint64_t existing, number = 0;
    gid_t gid;
    bool may = (flags & (O_TRUNC | O_EXCL)) == O_TRUNC;
    int error = fs_lookup(&m->backend.view, parent, name, strlen(name), &existing);
    if (error != -ENOENT && may)
        return error ? error : -ESTALE;
    error = hands_down_acl(m, parent);
    if (error != -ENODATA)
        return error ? error : 1;
    error = group_in(m, parent, who->gid, &gid);
    if (error)
        return error;
    pthread_mutex_lock(&m->lock);
    struct pending *p = pending_find(m, parent, name, strlen(name));
    struct file *file = p && !(flags & O_EXCL) ? p->file : NULL;
    error = file ? 0 : 1;
    if (!file && may && (number = m->backend.take_inode(m->backend.context)))
        error = pending_new(m, number, parent, name, mode & ~who->umask, who->uid, gid,
                            &file);
    if (!error)
        error = pending_open(m, file, flags, attr, ret);
    if (error < 0 && number && file) {
        pending_end(file);
        file_put(file);
    }
    pthread_mutex_unlock(&m->lock);
    return error;
}

void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct handle *handle;
    struct stat attr;
    if (name_refused(req, name))
        return;
    mode = S_IFREG | (mode & 07777);
    /* Without a majority, or room, it is made at once, or refused: see open_when_writable. */
    const struct fs_backend *b = &m->backend;
    int error = 1;
    if (b->writable(b->context) && b->has_room(b->context))
        error = create_pending(m, req, parent, name, mode, fi->flags, &attr, &handle);
    if (error > 0) {
        make(req, parent, name, mode, 0, NULL, fi, answer_create);
    } else if (error) {
        fuse_reply_err(req, -error);
    } else {
        struct fuse_entry_param entry;
        entry_of(m, &attr, &entry);
        handle_reply(req, handle, fi, &entry);
    }
}

/* ---- Removing, renaming ---- */

/* What is pending in a directory that goes must be made first: it is not empty. */
static void touch_directory(struct mount_call *call, uint64_t parent, const char *name)
{
    uint64_t inode;
    if (fs_lookup(&call->mount->backend.view, parent, name, strlen(name), &inode) == 0)
        call_touch(call, inode, NULL);
}

static void remove_name(fuse_req_t req, uint64_t parent, const char *name,
                        enum fs_op_type type)
{
    struct mount_call *call = NULL;
    if (!name_refused(req, name))
        call = call_new(fuse_req_userdata(req), req, answer_nothing);
    if (!call)
        return;
    strcpy(call->names[0], name);
    call_touch(call, parent, call->names[0]);
    if (type == FS_RMDIR)
        touch_directory(call, parent, name);
    struct fs_op op = {.type = type,
                       .parent = parent,
                       .name = (const uint8_t *)name,
                       .name_size = (uint16_t)strlen(name)};
    call_start(call, &op);
}

void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, FS_UNLINK);
}

void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, FS_RMDIR);
}

void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t parent2,
               const char *name2, unsigned flags)
{
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    struct mount_call *call = NULL;
    if (!name_refused(req, name) && !name_refused(req, name2))
        call = call_new(fuse_req_userdata(req), req, answer_nothing);
    if (!call)
        return;
    strcpy(call->names[0], name);
    strcpy(call->names[1], name2);
    call_touch(call, parent, call->names[0]);
    call_touch(call, parent2, call->names[1]);
    touch_directory(call, parent2, name2);
    struct fs_op op = {.type = FS_RENAME,
                       .flags = (flags & RENAME_NOREPLACE ? FS_NOREPLACE : 0) |
                                (flags & RENAME_EXCHANGE ? FS_EXCHANGE : 0),
                       .parent = parent,
                       .parent2 = parent2,
                       .name = (const uint8_t *)name,
                       .name_size = (uint16_t)strlen(name),
                       .name2 = (const uint8_t *)name2,
                       .name2_size = (uint16_t)strlen(name2)};
    call_start(call, &op);
}
