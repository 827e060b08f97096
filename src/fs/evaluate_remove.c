/* evaluate_remove.c - UNLINK, RMDIR. */
#include "evaluate.h"

#include <errno.h>
#include <sys/stat.h>

int eval_unlink(struct eval *e, struct eval_inode *i)
{
    struct fs_inode *inode = &i->inode;
    eval_change(e, i);
    if (!S_ISDIR(inode->mode) && inode->nlink > 1) {
        inode->nlink--;
        return 0;
    }
    inode->nlink = 0;
    return eval_orphan(e, i);
}

/* The directory and the inode that a name of it leads to. */
static int find(struct eval *e, struct eval_inode **ret_parent, struct eval_inode **ret)
{
    const struct fs_op *op = e->op;
    uint64_t number;
    uint8_t type;
    int error = eval_directory(e, op->parent, ret_parent);
    if (!error)
        error = eval_name_check(op->name, op->name_size);
    if (!error)
        error = name_get(e->view, op->parent, op->name, op->name_size, &number, &type);
    return error ? error : eval_named_inode(e, number, ret);
}

static int remove_name(struct eval *e, struct eval_inode *parent, struct eval_inode *i)
{
    int error = eval_unlink(e, i);
    if (error)
        return error;
    eval_delete_name(e, e->op->parent, e->op->name, e->op->name_size);
    parent->inode.size--;
    parent->inode.nlink -= S_ISDIR(i->inode.mode) ? 1 : 0;
    eval_touch(e, parent);
    e->result.value = i->inode.inode;
    e->result.more = i->inode.nlink;
    return 0;
}

int evaluate_unlink(struct eval *e)
{
    struct eval_inode *parent, *i;
    int error = find(e, &parent, &i);
    if (error)
        return error;
    return S_ISDIR(i->inode.mode) ? -EISDIR : remove_name(e, parent, i);
}

int evaluate_rmdir(struct eval *e)
{
    struct eval_inode *parent, *i;
    int error = find(e, &parent, &i);
    if (error)
        return error;
    if (!S_ISDIR(i->inode.mode))
        return -ENOTDIR;
    return i->inode.size ? -ENOTEMPTY : remove_name(e, parent, i);
}
