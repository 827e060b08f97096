/*
 * evaluate_zero.c - ZERO, COPY: a stretch of a file that is made room for, becomes a hole,
 * or gets the bytes of another. A long one takes several operations: each says how far it
 * came (V2).
 */
#include "evaluate.h"

#include <errno.h>

_Static_assert((size_t)COPY_SLOTS <= FS_OP_SLOTS, "a copy emits what a write may");

static int subject(struct eval *e, struct eval_inode **ret)
{
    const struct fs_op *op = e->op;
    if (op->set & FS_SET_SIZE || op->offset + op->size < op->offset)
        return -EINVAL;
    int error = eval_inode(e, op->inode, ret);
    return error ? error : eval_regular(&(*ret)->inode);
}

static int settle(struct eval *e, struct eval_inode *i)
{
    eval_settle(e, e->op->inode);
    i->inode.mtime_ns = eval_written(e, &i->inode);
    eval_set(e, &i->inode);
    i->dirty = true;
    return xattr_drop_privileges(e, e->op->inode);
}

int evaluate_zero(struct eval *e)
{
    const struct fs_op *op = e->op;
    const struct buf none = {0};
    struct eval_inode *i;
    uint64_t from = 0, to = 0, end = op->offset + op->size, reached;
    int error = subject(e, &i);
    if (error)
        return error;
    if (op->size == 0)
        return -EINVAL;
    if (end > LIMIT_FILE_BYTES)
        return -EFBIG;
    uint64_t old = i->inode.size;
    if (op->flags & FS_PUNCH) {
        from = min_u64(op->offset, old);
        to = min_u64(end, old);
    }
    uint64_t size = op->flags & FS_KEEP_SIZE ? old : max_u64(old, end);
    error = eval_zero(e, &i->inode, from, to, &none, size, &reached);
    if (error)
        return error;
    e->result.value = reached == to ? end : reached;
    return settle(e, i);
}

/* The data in `length` bytes of the source, as ranges of the target. */
static int source_ranges(struct eval *e, uint64_t length, struct buf *ranges)
{
    const struct fs_op *op = e->op;
    uint64_t at = op->source_offset, end = at + length, from, to;
    int error = 0;
    while (at < end && !error) {
        error = fs_data(e->view, op->source, at, &from, &to);
        if (error == -ENXIO || (!error && from >= end))
            return 0;
        if (error)
            return error;
        from = max_u64(from, at);
        at = min_u64(to, end); /* which is not behind the source's */
        size_t got, part = at - from;
        buf_u64(ranges, op->offset + (from - op->source_offset));
        buf_u32(ranges, (uint32_t)part);
        uint8_t *bytes = buf_extend(ranges, part);
        if (!bytes)
            return -ENOMEM;
        error = fs_read(e->view, op->source, from, part, bytes, &got);
        if (!error && got != part)
            error = -EIO;
    }
    return error;
}

/* How much there is to copy. */
static int copy_length(const struct fs_op *op, const struct fs_inode *source,
                       uint64_t *ret)
{
    *ret = 0;
    if (op->source_offset >= source->size || op->size == 0)
        return 0;
    if (op->offset >= LIMIT_FILE_BYTES)
        return -EFBIG;
    *ret = min_u64(min_u64(op->size, source->size - op->source_offset),
                   LIMIT_FILE_BYTES - op->offset);
    return 0;
}

/* How much of that lies before the source's next data. */
static int copy_hole_length(struct eval *e, uint64_t length, uint64_t *ret)
{
    uint64_t at = e->op->source_offset, from, to;
    int error = fs_data(e->view, e->op->source, at, &from, &to);
    *ret = error ? length : min_u64(length, max_u64(from, at) - at);
    return error == -ENXIO ? 0 : error;
}

/* A hole of any length becomes one: what it emits is what the target has there. */
static int copy_hole(struct eval *e, struct fs_inode *to, uint64_t length)
{
    const struct buf none = {0};
    uint64_t old = to->size, end = e->op->offset + length, reached;
    uint64_t last = min_u64(end, old);
    int error = eval_zero(e, to, min_u64(e->op->offset, old), last, &none,
                          max_u64(old, end), &reached);
    if (error)
        return error;
    e->result.value = length;
    if (reached < last) {
        to->size = old; /* it is no longer than what was come to */
        e->result.value = reached - e->op->offset;
    }
    return 0;
}

static int copy_data(struct eval *e, struct fs_inode *to, uint64_t length)
{
    struct buf ranges = {0};
    uint64_t end = e->op->offset + length, reached;
    int error = source_ranges(e, length, &ranges);
    if (!error)
        error = eval_zero(e, to, e->op->offset, end, &ranges, max_u64(to->size, end),
                          &reached);
    buf_release(&ranges);
    e->result.value = length;
    return error;
}

static int copy(struct eval *e, struct fs_inode *to, uint64_t length)
{
    uint64_t first = e->op->offset / SLOT_BYTES, hole;
    uint64_t most = (first + COPY_SLOTS) * SLOT_BYTES - e->op->offset; /* of data */
    int error = copy_hole_length(e, length, &hole);
    if (error)
        return error;
    return hole > most ? copy_hole(e, to, hole) : copy_data(e, to, min_u64(length, most));
}

int evaluate_copy(struct eval *e)
{
    const struct fs_op *op = e->op;
    struct eval_inode *to, *from;
    uint64_t length;
    int error = subject(e, &to);
    if (!error)
        error = eval_inode(e, op->source, &from);
    if (!error)
        error = eval_regular(&from->inode);
    if (!error)
        error = copy_length(op, &from->inode, &length);
    if (error || length == 0)
        return error;
    error = copy(e, &to->inode, length);
    return error ? error : settle(e, to);
}
