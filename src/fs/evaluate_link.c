/* evaluate_link.c - LINK: one name more for an inode that is no directory. */
#include "evaluate.h"

#include <errno.h>
#include <sys/stat.h>

/* In the order in which link(2) would find what is wrong. */
static int check(struct eval *e, const struct eval_inode *subject)
{
    const struct fs_op *op = e->op;
    uint64_t number;
    uint8_t type;
    int error = name_get(e->view, op->parent, op->name, op->name_size, &number, &type);
    if (error != -ENOENT)
        return error ? error : -EEXIST;
    if (S_ISDIR(subject->inode.mode))
        return -EPERM;
    return subject->inode.nlink >= FS_LINKS_MOST ? -EMLINK : 0;
}

int evaluate_link(struct eval *e)
{
    const struct fs_op *op = e->op;
    struct eval_inode *parent, *subject;
    int error = op->flags || op->set ? -EINVAL : 0;
    if (!error)
        error = eval_directory(e, op->parent, &parent);
    if (!error)
        error = eval_name_check(op->name, op->name_size);
    if (!error)
        error = eval_inode(e, op->inode, &subject);
    if (!error && subject->inode.nlink == 0)
        error = -ENOENT; /* what has lost its last name gets no other (N4) */
    if (!error)
        error = check(e, subject);
    if (error)
        return error;
    eval_put_name(e, op->parent, op->name, op->name_size, op->inode, subject->inode.mode);
    subject->inode.nlink++;
    parent->inode.size++;
    eval_change(e, subject);
    eval_touch(e, parent);
    e->result.value = op->inode;
    return 0;
}
