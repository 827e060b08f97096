/*
 * mount_virtual.c - `.tierce/` at the mount's root: what the node says of itself, as files.
 * No listing of the root shows it, so that nobody copies it; it is there for who asks by name.
 *
 * These inodes are in no store. The table of operations leads here first (README M13).
 */
#include "mount_internal.h"

#define VIRTUAL_NAME ".tierce"

/* No timestamp of a log comes that far. The directory, and behind it the files. */
static const uint64_t virtual_first = 1ULL << 62;

static const char *const text_names[FS_TEXTS] = {
    [FS_TEXT_STATUS] = "status",
    [FS_TEXT_MEMBERS] = "members",
    [FS_TEXT_METRICS] = "metrics",
};

bool mount_is_virtual(uint64_t inode)
{
    return inode >= virtual_first && inode <= virtual_first + FS_TEXTS;
}

bool mount_is_virtual_name(uint64_t parent, const char *name)
{
    return parent == FS_ROOT_INODE && !strcmp(name, VIRTUAL_NAME);
}

static uint64_t text_inode(size_t which)
{
    return virtual_first + 1 + which;
}

/* Of no size, as its text is made when it is opened. */
static void virtual_attributes(uint64_t inode, struct stat *ret)
{
    struct timespec now = ns_timespec(now_ns());
    bool directory = inode == virtual_first;
    *ret = (struct stat){
        .st_ino = inode,
        .st_mode = directory ? S_IFDIR | 0555 : S_IFREG | 0444,
        .st_nlink = directory ? 2 : 1,
        .st_blksize = 4096,
        .st_atim = now,
        .st_mtim = now,
        .st_ctim = now,
    };
}

static void virtual_entry(const struct fs_mount *m, uint64_t inode,
                          struct fuse_entry_param *ret)
{
    struct stat attr;
    virtual_attributes(inode, &attr);
    entry_of(m, &attr, ret);
}

/* ---- Names ---- */

static void virtual_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    bool top = mount_is_virtual_name(parent, name);
    if (!top && !mount_is_virtual(parent)) {
        on_lookup(req, parent, name);
        return;
    }
    size_t which = 0;
    while (!top && which < FS_TEXTS && strcmp(text_names[which], name))
        which++;
    if (which == FS_TEXTS) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    struct fuse_entry_param entry;
    virtual_entry(fuse_req_userdata(req), top ? virtual_first : text_inode(which),
                  &entry);
    fuse_reply_entry(req, &entry);
}

/* Nothing is made, removed or renamed there; the directory itself stays. */
static bool refused(fuse_req_t req, fuse_ino_t parent, const char *name, int of_itself)
{
    int error = mount_is_virtual(parent)              ? EROFS
                : mount_is_virtual_name(parent, name) ? of_itself
                                                      : 0;
    if (error)
        fuse_reply_err(req, error);
    return error != 0;
}

static void virtual_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
                          mode_t mode, dev_t rdev)
{
    if (!refused(req, parent, name, EEXIST))
        on_mknod(req, parent, name, mode, rdev);
}

static void virtual_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
                          mode_t mode)
{
    if (!refused(req, parent, name, EEXIST))
        on_mkdir(req, parent, name, mode);
}

static void virtual_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
                            const char *name)
{
    if (!refused(req, parent, name, EEXIST))
        on_symlink(req, target, parent, name);
}

static void virtual_link(fuse_req_t req, fuse_ino_t inode, fuse_ino_t parent,
                         const char *name)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EPERM);
    else if (!refused(req, parent, name, EEXIST))
        on_link(req, inode, parent, name);
}

static void virtual_create(fuse_req_t req, fuse_ino_t parent, const char *name,
                           mode_t mode, struct fuse_file_info *fi)
{
    if (!refused(req, parent, name, EEXIST))
        on_create(req, parent, name, mode, fi);
}

static void virtual_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (!refused(req, parent, name, EBUSY))
        on_unlink(req, parent, name);
}

static void virtual_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (!refused(req, parent, name, EBUSY))
        on_rmdir(req, parent, name);
}

static void virtual_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
                           fuse_ino_t parent2, const char *name2, unsigned flags)
{
    if (!refused(req, parent, name, EBUSY) && !refused(req, parent2, name2, EBUSY))
        on_rename(req, parent, name, parent2, name2, flags);
}

/* ---- Attributes ---- */

static void virtual_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    if (!mount_is_virtual(inode)) {
        on_getattr(req, inode, fi);
        return;
    }
    struct stat attr;
    virtual_attributes(inode, &attr);
    mount_show(fuse_req_userdata(req), &attr);
    fuse_reply_attr(req, &attr, 0);
}

static void virtual_setattr(fuse_req_t req, fuse_ino_t inode, struct stat *attr, int set,
                            struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EROFS);
    else
        on_setattr(req, inode, attr, set, fi);
}

static void virtual_getxattr(fuse_req_t req, fuse_ino_t inode, const char *name,
                             size_t size)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, ENODATA);
    else
        on_getxattr(req, inode, name, size);
}

static void virtual_listxattr(fuse_req_t req, fuse_ino_t inode, size_t size)
{
    if (!mount_is_virtual(inode))
        on_listxattr(req, inode, size);
    else if (size)
        fuse_reply_buf(req, NULL, 0);
    else
        fuse_reply_xattr(req, 0);
}

static void virtual_setxattr(fuse_req_t req, fuse_ino_t inode, const char *name,
                             const char *value, size_t size, int flags)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EROFS);
    else
        on_setxattr(req, inode, name, value, size, flags);
}

static void virtual_removexattr(fuse_req_t req, fuse_ino_t inode, const char *name)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EROFS);
    else
        on_removexattr(req, inode, name);
}

/* ---- Files: an open one is its text ---- */

struct text {
    struct text *next, **at; /* in fs_mount.texts: the last RELEASE may not come */
    struct buf bytes;
    unsigned readers;
    bool closed; /* and freed by the last reader */
};

static struct text *text_of(const struct fuse_file_info *fi)
{
    return (struct text *)(uintptr_t)fi->fh;
}

static void text_free(struct fs_mount *m, struct text *text)
{
    pthread_mutex_lock(&m->lock);
    *text->at = text->next;
    if (text->next)
        text->next->at = text->at;
    pthread_mutex_unlock(&m->lock);
    buf_release(&text->bytes);
    free(text);
}

static int text_new(struct fs_mount *m, uint64_t inode, struct text **ret)
{
    struct text *text = calloc(1, sizeof(*text));
    if (!text)
        return -ENOMEM;
    pthread_mutex_lock(&m->lock);
    text->next = m->texts;
    text->at = &m->texts;
    if (text->next)
        text->next->at = &text->next;
    m->texts = text;
    pthread_mutex_unlock(&m->lock);
    enum fs_text which = (enum fs_text)(inode - text_inode(0));
    int error = m->backend.text(m->backend.context, which, &text->bytes);
    if (!error && text->bytes.failed)
        error = -ENOMEM;
    if (error)
        text_free(m, text);
    else
        *ret = text;
    return error;
}

/* RELEASE comes when the kernel has the answer of the last READ, which is before the thread
 * that gave it has come back from writing it. */
static void text_begin_read(struct fs_mount *m, struct text *text)
{
    pthread_mutex_lock(&m->lock);
    text->readers++;
    pthread_mutex_unlock(&m->lock);
}

static void text_end_read(struct fs_mount *m, struct text *text)
{
    pthread_mutex_lock(&m->lock);
    bool last = --text->readers == 0 && text->closed;
    pthread_mutex_unlock(&m->lock);
    if (last)
        text_free(m, text);
}

static void text_close(struct fs_mount *m, struct text *text)
{
    pthread_mutex_lock(&m->lock);
    text->closed = true;
    bool is_read = text->readers > 0;
    pthread_mutex_unlock(&m->lock);
    if (!is_read)
        text_free(m, text);
}

void virtual_release_all(struct fs_mount *m)
{
    while (m->texts)
        text_free(m, m->texts);
}

static void virtual_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    if (!mount_is_virtual(inode)) {
        on_open(req, inode, fi);
        return;
    }
    struct fs_mount *m = fuse_req_userdata(req);
    struct text *text = NULL;
    int error = (fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC
                    ? -EROFS
                    : text_new(m, inode, &text);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)text;
    fi->direct_io = 1; /* the kernel reads beyond the size, and keeps nothing */
    if (fuse_reply_open(req, fi) == -ENOENT)
        text_free(m, text); /* the caller is gone: no RELEASE will come */
}

static void virtual_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                         struct fuse_file_info *fi)
{
    if (!mount_is_virtual(inode)) {
        on_read(req, inode, size, offset, fi);
        return;
    }
    struct fs_mount *m = fuse_req_userdata(req);
    struct text *text = text_of(fi);
    const struct buf *bytes = &text->bytes;
    size_t from = (size_t)min_u64((uint64_t)offset, bytes->length);
    text_begin_read(m, text);
    fuse_reply_buf(req, (const char *)bytes->data + from,
                   (size_t)min_u64(size, bytes->length - from));
    text_end_read(m, text);
}

static void virtual_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size,
                          off_t offset, struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EROFS);
    else
        on_write(req, inode, data, size, offset, fi);
}

static void virtual_flush(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, 0);
    else
        on_flush(req, inode, fi);
}

static void virtual_fsync(fuse_req_t req, fuse_ino_t inode, int datasync,
                          struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, 0);
    else
        on_fsync(req, inode, datasync, fi);
}

static void virtual_lseek(fuse_req_t req, fuse_ino_t inode, off_t offset, int whence,
                          struct fuse_file_info *fi)
{
    if (!mount_is_virtual(inode)) {
        on_lseek(req, inode, offset, whence, fi);
        return;
    }
    struct fs_mount *m = fuse_req_userdata(req);
    pthread_mutex_lock(&m->lock);
    off_t size = (off_t)text_of(fi)->bytes.length;
    pthread_mutex_unlock(&m->lock);
    if (offset < 0 || offset >= size)
        fuse_reply_err(req, ENXIO);
    else
        fuse_reply_lseek(req, whence == SEEK_DATA ? offset : size);
}

/* The kernel copies, by reading and writing. */
static void virtual_copy(fuse_req_t req, fuse_ino_t inode_in, off_t offset_in,
                         struct fuse_file_info *fi_in, fuse_ino_t inode_out,
                         off_t offset_out, struct fuse_file_info *fi_out, size_t length,
                         int flags)
{
    if (mount_is_virtual(inode_in) || mount_is_virtual(inode_out))
        fuse_reply_err(req, EOPNOTSUPP);
    else
        on_copy_file_range(req, inode_in, offset_in, fi_in, inode_out, offset_out, fi_out,
                           length, flags);
}

static void virtual_close(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    if (!mount_is_virtual(inode)) {
        on_release(req, inode, fi);
        return;
    }
    text_close(fuse_req_userdata(req), text_of(fi));
    fuse_reply_err(req, 0);
}

/* Not ENOSYS: the kernel would ask for no lock of any file any more. */
static void virtual_getlk(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi,
                          struct flock *lock)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EOPNOTSUPP);
    else
        on_getlk(req, inode, fi, lock);
}

static void virtual_setlk(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi,
                          struct flock *lock, int sleep)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EOPNOTSUPP);
    else
        on_setlk(req, inode, fi, lock, sleep);
}

static void virtual_flock(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi,
                          int op)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, EOPNOTSUPP);
    else
        on_flock(req, inode, fi, op);
}

/* ---- The directory ---- */

static void virtual_opendir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        fuse_reply_open(req, fi);
    else
        on_opendir(req, inode, fi);
}

static void virtual_releasedir(fuse_req_t req, fuse_ino_t inode,
                               struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        fuse_reply_err(req, 0);
    else
        on_releasedir(req, inode, fi);
}

/* One name at an offset, "." and ".." first. The bytes it needs; more than `size`: it was
 * not added. */
static size_t add_name(fuse_req_t req, char *to, size_t size, size_t at, bool plus)
{
    enum { DOTS = 2 };
    struct fuse_entry_param entry;
    uint64_t inode = at >= DOTS ? text_inode(at - DOTS)
                     : at       ? FS_ROOT_INODE
                                : virtual_first;
    const char *name = at >= DOTS ? text_names[at - DOTS] : at ? ".." : ".";
    virtual_entry(fuse_req_userdata(req), inode, &entry);
    if (at < DOTS) {
        entry.attr.st_mode = S_IFDIR;
        entry.ino = 0; /* no look-up that the kernel would count */
    }
    off_t next = (off_t)at + 1;
    return plus ? fuse_add_direntry_plus(req, to, size, name, &entry, next)
                : fuse_add_direntry(req, to, size, name, &entry.attr, next);
}

static void list(fuse_req_t req, size_t size, off_t offset, bool plus)
{
    char page[4096];
    size_t used = 0, room = min_u64(size, sizeof(page));
    for (size_t at = (size_t)offset; at < FS_TEXTS + 2; at++) {
        size_t need = add_name(req, page + used, room - used, at, plus);
        if (need > room - used)
            break;
        used += need;
    }
    fuse_reply_buf(req, page, used);
}

static void virtual_readdir(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                            struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        list(req, size, offset, false);
    else
        on_readdir(req, inode, size, offset, fi);
}

static void virtual_readdirplus(fuse_req_t req, fuse_ino_t inode, size_t size,
                                off_t offset, struct fuse_file_info *fi)
{
    if (mount_is_virtual(inode))
        list(req, size, offset, true);
    else
        on_readdirplus(req, inode, size, offset, fi);
}

void virtual_route(struct fuse_lowlevel_ops *operations)
{
    struct fuse_lowlevel_ops *o = operations;
    o->lookup = virtual_lookup;
    o->getattr = virtual_getattr;
    o->setattr = virtual_setattr;
    o->getxattr = virtual_getxattr;
    o->listxattr = virtual_listxattr;
    o->setxattr = virtual_setxattr;
    o->removexattr = virtual_removexattr;
    o->mknod = virtual_mknod;
    o->mkdir = virtual_mkdir;
    o->symlink = virtual_symlink;
    o->link = virtual_link;
    o->unlink = virtual_unlink;
    o->rmdir = virtual_rmdir;
    o->rename = virtual_rename;
    o->create = virtual_create;
    o->open = virtual_open;
    o->read = virtual_read;
    o->write = virtual_write;
    o->flush = virtual_flush;
    o->fsync = virtual_fsync;
    o->lseek = virtual_lseek;
    o->copy_file_range = virtual_copy;
    o->release = virtual_close;
    o->getlk = virtual_getlk;
    o->setlk = virtual_setlk;
    o->flock = virtual_flock;
    o->opendir = virtual_opendir;
    o->readdir = virtual_readdir;
    o->readdirplus = virtual_readdirplus;
    o->releasedir = virtual_releasedir;
}
