/* evaluate_rename.c - RENAME: parent, name -> parent2, name2. */
#include "evaluate.h"

#include <errno.h>
#include <sys/stat.h>

struct rename {
    struct eval_inode *from, *to; /* directories; may be the same */
    struct eval_inode *subject;
    struct eval_inode
        *victim; /* NULL: the new name is free; what changes places with it */
    bool exchange;
};

/* Whether `directory` is `ancestor` or lies below it: -EINVAL. */
static int check_not_below(struct eval *e, uint64_t directory, uint64_t ancestor)
{
    struct fs_inode inode;
    for (int i = 0; i < PARENTS_WALKED; i++) {
        if (directory == ancestor)
            return -EINVAL;
        if (directory == FS_ROOT_INODE)
            return 0;
        int error = fs_stat(e->view, directory, &e->scratch, &inode);
        if (error)
            return error == -ENOENT ? -EIO : error;
        directory = inode.parent;
    }
    return -ELOOP;
}

static int check_victim(const struct fs_inode *subject, const struct fs_inode *victim)
{
    if (!S_ISDIR(subject->mode))
        return S_ISDIR(victim->mode) ? -EISDIR : 0;
    if (!S_ISDIR(victim->mode))
        return -ENOTDIR;
    return victim->size ? -ENOTEMPTY : 0;
}

static int find_directories(struct eval *e, struct rename *r)
{
    const struct fs_op *op = e->op;
    r->exchange = op->flags & FS_EXCHANGE;
    if (op->flags & ~(uint32_t)(r->exchange ? FS_EXCHANGE : FS_NOREPLACE))
        return -EINVAL;
    int error = eval_directory(e, op->parent, &r->from);
    if (!error)
        error = eval_directory(e, op->parent2, &r->to);
    if (!error)
        error = eval_name_check(op->name, op->name_size);
    if (!error)
        error = eval_name_check(op->name2, op->name2_size);
    return error;
}

/* Fills in subject and victim; the same inode for both: there is nothing to do. */
static int find_names(struct eval *e, struct rename *r)
{
    const struct fs_op *op = e->op;
    uint64_t number;
    uint8_t type;
    int error = name_get(e->view, op->parent, op->name, op->name_size, &number, &type);
    if (!error)
        error = eval_named_inode(e, number, &r->subject);
    if (error)
        return error;
    error = name_get(e->view, op->parent2, op->name2, op->name2_size, &number, &type);
    if (error == -ENOENT && !r->exchange)
        return 0;
    if (error)
        return error;
    if (op->flags & FS_NOREPLACE)
        return -EEXIST;
    return eval_named_inode(e, number, &r->victim);
}

static int check(struct eval *e, const struct rename *r)
{
    int error = 0;
    if (S_ISDIR(r->subject->inode.mode) && r->from != r->to)
        error = check_not_below(e, e->op->parent2, r->subject->inode.inode);
    if (!error && r->exchange && S_ISDIR(r->victim->inode.mode) && r->from != r->to)
        error = check_not_below(e, e->op->parent, r->victim->inode.inode);
    if (!error && !r->exchange && r->victim)
        error = check_victim(&r->subject->inode, &r->victim->inode);
    return error;
}

/* A directory counts where it is, and knows where that is. */
static void settle(struct eval_inode *i, struct eval_inode *from, struct eval_inode *to)
{
    if (!S_ISDIR(i->inode.mode))
        return;
    from->inode.nlink--;
    to->inode.nlink++;
    i->inode.parent = to->inode.inode;
}

static void move(struct eval *e, struct rename *r)
{
    const struct fs_op *op = e->op;
    struct fs_inode *subject = &r->subject->inode;
    eval_delete_name(e, op->parent, op->name, op->name_size);
    eval_put_name(e, op->parent2, op->name2, op->name2_size, subject->inode,
                  subject->mode);
    r->from->inode.size--;
    r->to->inode.size++;
    settle(r->subject, r->from, r->to);
    eval_touch(e, r->from);
    eval_touch(e, r->to);
    eval_change(e, r->subject);
}

static void exchange(struct eval *e, struct rename *r)
{
    const struct fs_op *op = e->op;
    eval_put_name(e, op->parent, op->name, op->name_size, r->victim->inode.inode,
                  r->victim->inode.mode);
    eval_put_name(e, op->parent2, op->name2, op->name2_size, r->subject->inode.inode,
                  r->subject->inode.mode);
    settle(r->subject, r->from, r->to);
    settle(r->victim, r->to, r->from);
    eval_touch(e, r->from);
    eval_touch(e, r->to);
    eval_change(e, r->subject);
    eval_change(e, r->victim);
}

int evaluate_rename(struct eval *e)
{
    struct rename r = {0};
    int error = find_directories(e, &r);
    if (!error)
        error = find_names(e, &r);
    if (error)
        return error;
    e->result.value = r.subject->inode.inode;
    if (r.victim == r.subject)
        return 0;
    error = check(e, &r);
    if (!error && r.exchange) {
        exchange(e, &r);
        return 0;
    }
    if (!error && r.victim) {
        r.to->inode.size--;
        r.to->inode.nlink -= S_ISDIR(r.victim->inode.mode) ? 1 : 0;
        error = eval_unlink(e, r.victim);
        e->result.more = r.victim->inode.nlink ? 0 : r.victim->inode.inode;
    }
    if (!error)
        move(e, &r);
    return error;
}
