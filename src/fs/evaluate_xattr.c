/* evaluate_xattr.c - XATTR: an extended attribute is set or removed; and those that go with
 * their inode, or with what it holds. */
#include "evaluate.h"
#include "xattr.h"

#include <errno.h>
#include <sys/stat.h>

enum {
    XATTR_FLAGS =
        FS_XATTR_CREATE | FS_XATTR_REPLACE | FS_XATTR_REMOVE | FS_XATTR_NO_SETGID
};

static int count_name(void *arg, const uint8_t *name, size_t size)
{
    ++*(unsigned *)arg;
    return 0;
}

int xattr_room(struct eval *e, uint64_t inode)
{
    unsigned count = 0;
    int error = xattr_each(e->view, inode, count_name, &count);
    return error ? error : count >= FS_XATTRS_MOST ? -ENOSPC : 0;
}

static int check_fields(const struct fs_op *op)
{
    bool removes = op->flags & FS_XATTR_REMOVE;
    if (op->flags & ~(uint32_t)XATTR_FLAGS || op->set ||
        (removes && (op->flags != FS_XATTR_REMOVE || op->value_size)))
        return -EINVAL;
    if (op->value_size > FS_XATTR_BYTES)
        return -E2BIG;
    return xattr_name_check(op->name, op->name_size);
}

/* As the kernel has it: user attributes are for what has content of its own. */
static int check_kind(const struct fs_op *op, const struct fs_inode *inode)
{
    bool user = xattr_name_begins(op->name, op->name_size, "user.");
    return user && !S_ISREG(inode->mode) && !S_ISDIR(inode->mode) ? -EPERM : 0;
}

static int check_there(struct eval *e)
{
    const struct fs_op *op = e->op;
    int error = xattr_find(e->view, op->inode, op->name, op->name_size, NULL);
    if (error && error != -ENODATA)
        return error;
    if (!error)
        return op->flags & FS_XATTR_CREATE ? -EEXIST : 0;
    if (op->flags & (FS_XATTR_REPLACE | FS_XATTR_REMOVE))
        return -ENODATA;
    return xattr_room(e, op->inode);
}

static int set(struct eval *e, struct eval_inode *i)
{
    const struct fs_op *op = e->op;
    struct fs_key key;
    int error = op->flags & FS_XATTR_NO_SETGID ? -EINVAL : check_kind(op, &i->inode);
    if (!error)
        error = check_there(e);
    if (error)
        return error;
    fs_key_xattr(&key, op->inode, op->name, op->name_size);
    if (op->flags & FS_XATTR_REMOVE)
        eval_delete(e, &key);
    else
        eval_put(e, &key, op->value_size ? op->value : (const uint8_t *)"",
                 op->value_size);
    eval_change(e, i);
    return 0;
}

int evaluate_xattr(struct eval *e)
{
    struct eval_inode *i;
    int error = check_fields(e->op);
    if (!error)
        error = eval_inode(e, e->op->inode, &i);
    if (error)
        return error;
    return xattr_name_is_acl(e->op->name, e->op->name_size) ? acl_set(e, i) : set(e, i);
}

int xattr_drop_privileges(struct eval *e, uint64_t inode)
{
    struct fs_key key;
    size_t size = strlen(XATTR_CAPABILITY);
    int error = xattr_find(e->view, inode, XATTR_CAPABILITY, size, NULL);
    if (error)
        return error == -ENODATA ? 0 : error;
    fs_key_xattr(&key, inode, XATTR_CAPABILITY, size);
    eval_delete(e, &key);
    return 0;
}

static int keep_name(void *arg, const uint8_t *name, size_t size)
{
    struct buf *names = arg;
    buf_string(names, name, size);
    return 0;
}

int xattrs_drop(struct eval *e, uint64_t inode)
{
    struct buf names = {0};
    int error = xattr_each(e->view, inode, keep_name, &names);
    if (!error && names.failed)
        error = -ENOMEM;
    struct reader r = reader_of(names.data, names.length);
    while (!error && reader_left(&r)) {
        size_t size;
        struct fs_key key;
        const uint8_t *name = reader_string(&r, &size);
        fs_key_xattr(&key, inode, name, size);
        eval_delete(e, &key);
    }
    buf_release(&names);
    return error;
}
