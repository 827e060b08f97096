/* evaluate_make.c - MAKE: a name and an inode of any type. */
#include "evaluate.h"

#include <errno.h>
#include <sys/stat.h>

static int check_fields(const struct fs_op *op)
{
    bool regular = S_ISREG(op->mode);
    if (op->mode > (S_IFMT | 07777) || op->set & FS_SET_SIZE)
        return -EINVAL;
    if (!regular && (op->content || op->ranges_size || op->size || op->flags & FS_OVER))
        return -EINVAL;
    switch (op->mode & S_IFMT) {
    case S_IFLNK:
        if (op->target_size > LIMIT_PATH_BYTES)
            return -ENAMETOOLONG;
        return op->target_size && !memchr(op->target, 0, op->target_size) ? 0 : -EINVAL;
    case S_IFREG:
    case S_IFDIR:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        return op->target_size ? -EINVAL : 0;
    default:
        return -EINVAL;
    }
}

/* A reserved number must be one that the log has passed, and be free. */
static int check_number(struct eval *e)
{
    uint64_t number = e->op->inode;
    if (number == 0)
        return 0;
    if (number <= FS_ROOT_INODE || number >= e->change->timestamp_us)
        return -EINVAL;
    struct fs_key key;
    uint64_t timestamp;
    fs_key_inode(&key, number);
    buf_clear(&e->scratch);
    int error =
        e->view->get(e->view->context, key.bytes, key.size, &e->scratch, &timestamp);
    if (error == 0)
        return -EEXIST;
    return error == -ENOENT ? 0 : error;
}

static void make_attributes(struct eval *e, const struct fs_inode *parent,
                            struct fs_inode *inode)
{
    const struct fs_op *op = e->op;
    bool directory = S_ISDIR(op->mode);
    *inode = (struct fs_inode){
        .mode = op->mode,
        .uid = op->uid,
        .gid = op->gid,
        .nlink = directory ? 2 : 1,
        .rdev = S_ISCHR(op->mode) || S_ISBLK(op->mode) ? op->rdev : 0,
        .parent = directory ? parent->inode : 0,
        .kind = FS_CONTENT_NONE,
    };
    inode->atime_ns = eval_said(e, inode, op->atime_ns);
    inode->mtime_ns = eval_written(e, inode);
    eval_set(e, inode);
    if (parent->mode &
        S_ISGID) { /* as Linux does: the group, and a directory the bit too */
        inode->gid = parent->gid;
        if (directory)
            inode->mode |= S_ISGID;
    }
}

static int make_value(struct eval *e, struct fs_inode *inode)
{
    if (S_ISREG(inode->mode)) {
        inode->kind = FS_CONTENT_INLINE;
        return eval_value(e, inode);
    }
    if (S_ISLNK(inode->mode)) {
        inode->kind = FS_CONTENT_INLINE;
        inode->inline_bytes = e->op->target;
        inode->size = e->op->target_size;
    }
    return 0;
}

static int make_new(struct eval *e, struct eval_inode *parent)
{
    const struct fs_op *op = e->op;
    struct fs_inode inode;
    struct acl_made acls = {0};
    int error = check_number(e);
    if (error)
        return error;
    make_attributes(e, &parent->inode, &inode);
    error = acl_begin(e, &inode, &acls);
    if (!error)
        error = make_value(e, &inode);
    if (error)
        goto out;
    inode.inode = op->inode ? op->inode : eval_next(e);
    eval_put_inode(e, &inode);
    acl_end(e, &inode, &acls);
    eval_settle(e, inode.inode);
    eval_put_name(e, op->parent, op->name, op->name_size, inode.inode, inode.mode);
    parent->inode.size++;
    parent->inode.nlink += S_ISDIR(inode.mode) ? 1 : 0;
    eval_touch(e, parent);
    e->result.value = inode.inode;
out:
    acl_release(&acls);
    return error;
}

static int make_over(struct eval *e, uint64_t number)
{
    struct eval_inode *i;
    if (!(e->op->flags & FS_OVER))
        return -EEXIST;
    int error = eval_named_inode(e, number, &i);
    if (error)
        return error;
    if (S_ISDIR(i->inode.mode))
        return -EISDIR;
    if (S_ISLNK(i->inode.mode))
        return -ELOOP;
    if (!S_ISREG(i->inode.mode))
        return -EEXIST;
    error = eval_value(e, &i->inode);
    if (!error)
        error = xattr_drop_privileges(e, number);
    if (error)
        return error;
    eval_settle(e, number);
    if (e->op->uid != 0) /* who replaces the value need not be who made the file */
        i->inode.mode = fs_mode_without_setid(i->inode.mode);
    i->inode.mtime_ns = eval_written(e, &i->inode);
    eval_set(e, &i->inode);
    i->dirty = true;
    error = acl_follow_mode(e, &i->inode);
    e->result = (struct fs_result){.value = number, .more = 1};
    return error;
}

int evaluate_make(struct eval *e)
{
    const struct fs_op *op = e->op;
    struct eval_inode *parent;
    uint64_t number;
    uint8_t type;
    int error = eval_directory(e, op->parent, &parent);
    if (!error)
        error = eval_name_check(op->name, op->name_size);
    if (!error)
        error = check_fields(op);
    if (error)
        return error;
    error = name_get(e->view, op->parent, op->name, op->name_size, &number, &type);
    if (error == -ENOENT)
        return make_new(e, parent);
    return error ? error : make_over(e, number);
}
