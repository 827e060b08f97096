/* evaluate_acl.c - ACLs in an evaluation: set, inherited, and in step with the mode (A3, A4). */
#include "acl.h"
#include "evaluate.h"
#include "xattr.h"

#include <errno.h>
#include <sys/stat.h>

static int acl_get(struct eval *e, uint64_t inode, const char *name, struct buf *to)
{
    int error = xattr_find(e->view, inode, name, strlen(name), to);
    return !error && !acl_valid(to->data, to->length) ? -EIO : error;
}

static void acl_put(struct eval *e, uint64_t inode, const char *name,
                    const struct buf *acl)
{
    struct fs_key key;
    fs_key_xattr(&key, inode, name, strlen(name));
    eval_put(e, &key, acl->data, acl->length);
}

/* `there`: 0, or -ENODATA. */
static int set_access(struct eval *e, struct eval_inode *i, const struct fs_key *key,
                      int there)
{
    const struct fs_op *op = e->op;
    bool is_mode = acl_to_mode(op->value, op->value_size, &i->inode.mode);
    if (op->flags & FS_XATTR_NO_SETGID)
        i->inode.mode &= ~(uint32_t)S_ISGID;
    if (!is_mode) {
        int error = there ? xattr_room(e, op->inode) : 0;
        if (error)
            return error;
        eval_put(e, key, op->value, op->value_size);
    } else if (!there) {
        eval_delete(e, key);
    }
    eval_change(e, i);
    return 0;
}

static int set_default(struct eval *e, struct eval_inode *i, const struct fs_key *key,
                       int there)
{
    int error = S_ISDIR(i->inode.mode) ? 0 : -EACCES;
    if (!error && there)
        error = xattr_room(e, e->op->inode);
    if (error)
        return error;
    eval_put(e, key, e->op->value, e->op->value_size);
    eval_change(e, i);
    return 0;
}

int acl_set(struct eval *e, struct eval_inode *i)
{
    const struct fs_op *op = e->op;
    struct fs_key key;
    if (op->flags & ~(uint32_t)(FS_XATTR_REMOVE | FS_XATTR_NO_SETGID))
        return -EINVAL;
    if (S_ISLNK(i->inode.mode))
        return -EOPNOTSUPP;
    int there = xattr_find(e->view, op->inode, op->name, op->name_size, NULL);
    if (there && there != -ENODATA)
        return there;
    fs_key_xattr(&key, op->inode, op->name, op->name_size);
    if (op->flags & FS_XATTR_REMOVE) {
        if (there)
            return 0; /* as ext4 has it: an inode without one has the one of its mode */
        eval_delete(e, &key);
        eval_change(e, i);
        return 0;
    }
    if (!acl_valid(op->value, op->value_size))
        return -EINVAL;
    return xattr_name_is(op->name, op->name_size, ACL_ACCESS)
               ? set_access(e, i, &key, there)
               : set_default(e, i, &key, there);
}

int acl_follow_mode(struct eval *e, const struct fs_inode *inode)
{
    struct buf acl = {0};
    if (!(e->op->set & FS_SET_MODE))
        return 0;
    int error = acl_get(e, inode->inode, ACL_ACCESS, &acl);
    if (!error) {
        acl_set_mode(acl.data, acl.length, inode->mode);
        acl_put(e, inode->inode, ACL_ACCESS, &acl);
    }
    buf_release(&acl);
    return error == -ENODATA ? 0 : error;
}

int acl_begin(struct eval *e, struct fs_inode *inode, struct acl_made *ret)
{
    const struct fs_op *op = e->op;
    *ret = (struct acl_made){0};
    if (S_ISLNK(inode->mode))
        return 0;
    int error = acl_get(e, op->parent, ACL_DEFAULT, &ret->given);
    if (error == -ENODATA)
        inode->mode &= ~(op->flags & FS_UMASK ? op->umask : 0);
    if (error)
        return error == -ENODATA ? 0 : error;
    buf_bytes(&ret->access, ret->given.data, ret->given.length);
    if (ret->access.failed)
        return -ENOMEM;
    acl_inherit(ret->access.data, ret->access.length, &inode->mode);
    return 0;
}

void acl_end(struct eval *e, const struct fs_inode *inode, const struct acl_made *made)
{
    uint32_t mode = inode->mode;
    if (made->access.length &&
        !acl_to_mode(made->access.data, made->access.length, &mode))
        acl_put(e, inode->inode, ACL_ACCESS, &made->access);
    if (made->given.length && S_ISDIR(inode->mode))
        acl_put(e, inode->inode, ACL_DEFAULT, &made->given);
}

void acl_release(struct acl_made *made)
{
    buf_release(&made->given);
    buf_release(&made->access);
}
