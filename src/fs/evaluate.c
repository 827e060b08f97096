/* evaluate.c - the dispatch of operations, and the inodes an evaluation collects. */
#include "evaluate.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

uint64_t eval_next(const struct eval *e)
{
    return e->change->timestamp_us + e->change->records + 1;
}

static void eval_record(struct eval *e, const struct fs_key *key, const void *value,
                        size_t size)
{
    struct fs_change *change = e->change;
    uint64_t expected = eval_next(e);
    change->records++;
    ensure(change->put(change->context, key->bytes, key->size, value, size) == expected);
}

void eval_put(struct eval *e, const struct fs_key *key, const void *value, size_t size)
{
    ensure(value);
    eval_record(e, key, value, size);
}

void eval_delete(struct eval *e, const struct fs_key *key)
{
    eval_record(e, key, NULL, 0);
}

int eval_inode(struct eval *e, uint64_t number, struct eval_inode **ret)
{
    for (unsigned i = 0; i < e->inode_count; i++)
        if (e->inodes[i].inode.inode == number) {
            *ret = &e->inodes[i];
            return 0;
        }
    ensure(e->inode_count < EVAL_INODES);
    struct eval_inode *i = &e->inodes[e->inode_count];
    int error = fs_stat(e->view, number, &i->value, &i->inode);
    if (error)
        return error;
    e->inode_count++;
    *ret = i;
    return 0;
}

int eval_named_inode(struct eval *e, uint64_t number, struct eval_inode **ret)
{
    int error = eval_inode(e, number, ret);
    return error == -ENOENT ? -EIO : error;
}

int eval_directory(struct eval *e, uint64_t number, struct eval_inode **ret)
{
    struct eval_inode *i;
    int error = eval_inode(e, number, &i);
    if (error)
        return error;
    if (!S_ISDIR(i->inode.mode))
        return -ENOTDIR;
    if (i->inode.nlink == 0)
        return -ENOENT; /* an orphan: nothing is made in it any more */
    *ret = i;
    return 0;
}

int eval_name_check(const uint8_t *name, size_t size)
{
    if (size > LIMIT_NAME_BYTES)
        return -ENAMETOOLONG;
    if (size == 0 || memchr(name, 0, size) || memchr(name, '/', size))
        return -EINVAL;
    if (size <= 2 && name[0] == '.' && name[size - 1] == '.')
        return -EINVAL;
    return 0;
}

void eval_put_name(struct eval *e, uint64_t parent, const uint8_t *name, size_t size,
                   uint64_t inode, uint32_t mode)
{
    struct fs_key key;
    uint8_t value[NAME_VALUE_BYTES];
    fs_key_name(&key, parent, name, size);
    put_u64(value, inode);
    value[8] = IFTODT(mode);
    eval_put(e, &key, value, sizeof(value));
}

void eval_delete_name(struct eval *e, uint64_t parent, const uint8_t *name, size_t size)
{
    struct fs_key key;
    fs_key_name(&key, parent, name, size);
    eval_delete(e, &key);
}

void eval_put_inode(struct eval *e, const struct fs_inode *inode)
{
    struct fs_key key;
    fs_key_inode(&key, inode->inode);
    buf_clear(&e->scratch);
    fs_inode_encode(inode, &e->scratch);
    if (!e->scratch.failed) /* else fs_evaluate answers -ENOMEM */
        eval_put(e, &key, e->scratch.data, e->scratch.length);
}

/* ctime never goes back, and every change is seen by it. */
static int64_t behind_ctime(const struct fs_inode *inode, int64_t ns)
{
    bool later = ns > inode->ctime_ns || inode->ctime_ns == INT64_MAX;
    return later ? ns : inode->ctime_ns + 1;
}

int64_t eval_now(const struct eval *e, const struct fs_inode *inode)
{
    return behind_ctime(inode, e->now_ns);
}

int64_t eval_said(const struct eval *e, const struct fs_inode *inode, int64_t said_ns)
{
    const int64_t second = 1000000000;
    if (!(e->op->set & FS_SET_WRITTEN) ||
        said_ns < e->now_ns - FS_WRITTEN_BEHIND_S * second ||
        said_ns > e->now_ns + FS_WRITTEN_AHEAD_S * second)
        return eval_now(e, inode);
    return behind_ctime(inode, said_ns);
}

int64_t eval_written(const struct eval *e, const struct fs_inode *inode)
{
    return eval_said(e, inode, e->op->written_ns);
}

void eval_touch(struct eval *e, struct eval_inode *i)
{
    i->inode.mtime_ns = eval_now(e, &i->inode);
    eval_change(e, i);
}

void eval_change(struct eval *e, struct eval_inode *i)
{
    i->inode.ctime_ns = eval_now(e, &i->inode);
    i->dirty = true;
}

/* Each inode that changed, once (G2). */
static void put_inodes(struct eval *e)
{
    for (unsigned n = 0; n < e->inode_count; n++) {
        struct eval_inode *i = &e->inodes[n];
        struct fs_key key;
        fs_key_inode(&key, i->inode.inode);
        if (i->gone)
            eval_delete(e, &key);
        else if (i->dirty)
            eval_put_inode(e, &i->inode);
    }
}

static void eval_release(struct eval *e)
{
    for (unsigned i = 0; i < EVAL_INODES; i++)
        buf_release(&e->inodes[i].value);
    buf_release(&e->content.trims);
    buf_release(&e->inline_bytes);
    buf_release(&e->scratch);
    free(e->slot_bytes);
}

static int (*const evaluators[])(struct eval *e) = {
    [FS_MAKE] = evaluate_make,       [FS_UNLINK] = evaluate_unlink,
    [FS_RMDIR] = evaluate_rmdir,     [FS_RENAME] = evaluate_rename,
    [FS_SETATTR] = evaluate_setattr, [FS_WRITE] = evaluate_write,
    [FS_REPLACE] = evaluate_replace, [FS_BUILD] = evaluate_build,
    [FS_RESERVE] = evaluate_reserve, [FS_RECLAIM] = evaluate_reclaim,
    [FS_ABANDON] = evaluate_abandon, [FS_LINK] = evaluate_link,
    [FS_XATTR] = evaluate_xattr,     [FS_ZERO] = evaluate_zero,
    [FS_COPY] = evaluate_copy,       [FS_RELEASE] = evaluate_release,
    [FS_LOCK] = evaluate_lock,       [FS_UNLOCK] = evaluate_unlock,
};

int fs_evaluate(const struct fs_view *view, const struct fs_op *op,
                struct fs_change *change, struct fs_result *ret)
{
    if (op->type >= array_length(evaluators) || !evaluators[op->type])
        return -EPROTO;
    if (fs_ranges_slots(op->ranges, op->ranges_size) > FS_OP_SLOTS)
        return -E2BIG;
    struct eval e = {
        .view = view,
        .op = op,
        .change = change,
        .now_ns = (int64_t)(change->timestamp_us * 1000),
    };
    int error = evaluators[op->type](&e);
    if (error == 0)
        put_inodes(&e);
    if (error == 0 &&
        (e.scratch.failed || e.inline_bytes.failed || e.content.trims.failed))
        error = -ENOMEM;
    if (error == 0)
        *ret = e.result;
    eval_release(&e);
    return error;
}

void fs_format(struct fs_change *change)
{
    struct eval e = {.change = change, .now_ns = (int64_t)(change->timestamp_us * 1000)};
    struct fs_inode root = {
        .inode = FS_ROOT_INODE,
        .parent = FS_ROOT_INODE,
        .mode = S_IFDIR | 0755,
        .nlink = 2,
        .kind = FS_CONTENT_NONE,
        .atime_ns = e.now_ns,
        .mtime_ns = e.now_ns,
        .ctime_ns = e.now_ns,
    };
    eval_put_inode(&e, &root);
    ensure(!e.scratch.failed);
    eval_release(&e);
}
