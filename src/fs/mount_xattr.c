/* mount_xattr.c - extended attributes: read from the view, set by operations of their own. */
#include "acl.h"
#include "mount_internal.h"
#include "xattr.h"

#include <sys/xattr.h>

/* The number that the store knows; false: the file is not made yet, and has none. */
static bool committed_number(struct fs_mount *m, uint64_t inode, uint64_t *ret)
{
    pthread_mutex_lock(&m->lock);
    const struct file *file = file_find(m, inode);
    bool made = !file || !file->pending;
    *ret = file ? file->inode : inode;
    pthread_mutex_unlock(&m->lock);
    return made;
}

static bool name_is_acl(const char *name)
{
    return xattr_name_is_acl((const uint8_t *)name, strlen(name));
}

/* As where a file system has none (M12). */
static bool refuses(const struct fs_mount *m, const char *name)
{
    return m->shown.no_acl && name_is_acl(name);
}

/* ---- Reading ---- */

static void reply_bytes(fuse_req_t req, const struct buf *bytes, size_t size, int error)
{
    if (!error && size && bytes->length > size)
        error = -ERANGE;
    if (error)
        fuse_reply_err(req, -error);
    else if (!size)
        fuse_reply_xattr(req, bytes->length);
    else
        fuse_reply_buf(req, (const char *)bytes->data, bytes->length);
}

void on_getxattr(fuse_req_t req, fuse_ino_t inode, const char *name, size_t size)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct buf value = {0};
    uint64_t number;
    int error = xattr_name_check((const uint8_t *)name, strlen(name));
    if (!error && refuses(m, name))
        error = -EOPNOTSUPP;
    if (!error && !committed_number(m, inode, &number))
        error = -ENODATA;
    if (!error)
        error = fs_xattr_get(&m->backend.view, number, name, strlen(name), &value);
    reply_bytes(req, &value, size, error);
    buf_release(&value);
}

/* Names of trusted. are nobody's business but root's (CAP_SYS_ADMIN is not told). */
static void hide(struct buf *names, bool trusted, bool acls)
{
    size_t kept = 0;
    for (size_t at = 0, size; at < names->length; at += size) {
        const uint8_t *name = names->data + at;
        size = strlen((const char *)name) + 1;
        if ((trusted && xattr_name_begins(name, size, "trusted.")) ||
            (acls && name_is_acl((const char *)name)))
            continue;
        memmove(names->data + kept, name, size);
        kept += size;
    }
    names->length = kept;
}

void on_listxattr(fuse_req_t req, fuse_ino_t inode, size_t size)
{
    struct fs_mount *m = fuse_req_userdata(req);
    struct buf names = {0};
    uint64_t number;
    int error = 0;
    if (committed_number(m, inode, &number))
        error = fs_xattr_list(&m->backend.view, number, &names);
    if (!error)
        hide(&names, fuse_req_ctx(req)->uid != 0, m->shown.no_acl);
    reply_bytes(req, &names, size, error);
    buf_release(&names);
}

/* ---- Changing ---- */

static void answer_xattr(struct mount_call *call, int error)
{
    struct fs_mount *m = call->mount;
    pthread_mutex_lock(&m->lock);
    struct file *file = file_find(m, call->subject);
    if (file && !error)
        file_changed(file);
    pthread_mutex_unlock(&m->lock);
    fuse_reply_err(call->req, error == -ENOENT ? ESTALE : -error);
}

/* The kernel takes it away itself before a write that it has seen it for; so may the commit of
 * an earlier write have done, and the later one must not fail for that. */
static void answer_capability_removed(struct mount_call *call, int error)
{
    answer_xattr(call, error == -ENODATA ? 0 : error);
}

static void change(fuse_req_t req, uint64_t inode, const char *name, const char *value,
                   size_t size, uint32_t flags)
{
    bool capability = !strcmp(name, XATTR_CAPABILITY), removes = flags & FS_XATTR_REMOVE;
    struct mount_call *call =
        call_new(fuse_req_userdata(req), req,
                 capability && removes ? answer_capability_removed : answer_xattr);
    if (!call)
        return;
    struct fs_op op = {
        .type = FS_XATTR,
        .flags = flags,
        .inode = inode,
        .name = (const uint8_t *)name,
        .name_size = (uint16_t)strlen(name),
        .value = (const uint8_t *)value,
        .value_size = (uint32_t)size,
    };
    call_subject(call, inode);
    /* What was written before takes no privilege away that is given now. */
    call->after_writes = capability && !removes;
    call_start(call, &op);
}

/* Whether the caller keeps set-group-id, which goes with a foreign group's ACL. */
static bool keeps_setgid(fuse_req_t req, uint64_t inode)
{
    enum { GROUPS = 256 };
    gid_t groups[GROUPS];
    struct stat attr;
    const struct fuse_ctx *who = fuse_req_ctx(req);
    if (who->uid == 0 || mount_attributes(fuse_req_userdata(req), inode, &attr) != 0 ||
        !(attr.st_mode & S_ISGID) || attr.st_gid == who->gid)
        return true;
    int count = fuse_req_getgroups(req, GROUPS, groups);
    for (int i = 0; i < count && i < GROUPS; i++)
        if (groups[i] == attr.st_gid)
            return true;
    return false;
}

static bool name_refused(fuse_req_t req, const char *name)
{
    int error = xattr_name_check((const uint8_t *)name, strlen(name));
    if (!error && refuses(fuse_req_userdata(req), name))
        error = -EOPNOTSUPP;
    if (error)
        fuse_reply_err(req, -error);
    return error;
}

void on_setxattr(fuse_req_t req, fuse_ino_t inode, const char *name, const char *value,
                 size_t size, int flags)
{
    if (name_refused(req, name))
        return;
    if (size > FS_XATTR_BYTES)
        fuse_reply_err(req, E2BIG);
    else
        change(req, inode, name, value, size,
               (flags & XATTR_CREATE ? FS_XATTR_CREATE : 0) |
                   (flags & XATTR_REPLACE ? FS_XATTR_REPLACE : 0) |
                   (!strcmp(name, ACL_ACCESS) && !keeps_setgid(req, inode)
                        ? FS_XATTR_NO_SETGID
                        : 0));
}

void on_removexattr(fuse_req_t req, fuse_ino_t inode, const char *name)
{
    if (!name_refused(req, name))
        change(req, inode, name, NULL, 0, FS_XATTR_REMOVE);
}
