/* evaluate_attr.c - SETATTR, RESERVE. */
#include "evaluate.h"

#include <errno.h>
#include <sys/stat.h>

void eval_set(struct eval *e, struct fs_inode *inode)
{
    const struct fs_op *op = e->op;
    if (op->set & FS_SET_NO_SETID)
        inode->mode = fs_mode_without_setid(inode->mode);
    if (op->set & FS_SET_MODE)
        inode->mode = (inode->mode & S_IFMT) | (op->mode & 07777);
    if (op->set & FS_SET_UID)
        inode->uid = op->uid;
    if (op->set & FS_SET_GID)
        inode->gid = op->gid;
    if (op->set & FS_SET_ATIME)
        inode->atime_ns = op->atime_ns;
    if (op->set & FS_SET_MTIME)
        inode->mtime_ns = op->mtime_ns;
    if (op->set & FS_SET_ATIME_NOW)
        inode->atime_ns = e->now_ns;
    if (op->set & FS_SET_MTIME_NOW)
        inode->mtime_ns = e->now_ns;
    inode->ctime_ns = eval_said(e, inode, op->changed_ns);
}

int evaluate_setattr(struct eval *e)
{
    struct eval_inode *i;
    int error = eval_inode(e, e->op->inode, &i);
    if (error || !(e->op->set & ~(uint32_t)FS_SET_WRITTEN))
        return error;
    if (e->op->set & FS_SET_SIZE) {
        error = eval_resize(e, &i->inode);
        if (error)
            return error;
        i->inode.mtime_ns = eval_written(e, &i->inode);
        eval_settle(e, i->inode.inode);
    }
    if (e->op->set & (FS_SET_SIZE | FS_SET_UID | FS_SET_GID))
        error = xattr_drop_privileges(e, e->op->inode);
    eval_set(e, &i->inode);
    i->dirty = true;
    return error ? error : acl_follow_mode(e, &i->inode);
}

/* No record: the numbers are the timestamps below the entry's own, which the node sets
 * high enough that none of them was given before. */
int evaluate_reserve(struct eval *e)
{
    uint64_t size = e->op->size;
    if (size == 0 || size > RESERVE_INODES ||
        size + FS_ROOT_INODE >= e->change->timestamp_us)
        return -EINVAL;
    e->result.value = e->change->timestamp_us - size;
    return 0;
}
