/* evaluate_write.c - WRITE, REPLACE, BUILD, and the size of SETATTR: what a file holds.
 */
#include "evaluate.h"

#include <errno.h>
#include <sys/stat.h>

int eval_regular(const struct fs_inode *inode)
{
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    return S_ISREG(inode->mode) ? 0 : -EINVAL;
}

static uint64_t ranges_end(const struct fs_op *op)
{
    struct reader r = reader_of(op->ranges, op->ranges_size);
    uint64_t offset, end = 0;
    const uint8_t *data;
    uint32_t length;
    while (fs_range_next(&r, &offset, &data, &length))
        end = offset + length;
    return end;
}

/* A content id is the timestamp of the record put next: never given twice. */
static void content_begin(struct eval *e)
{
    e->content = (struct content){.id = eval_next(e), .record = CONTENT_UNRECORDED};
}

static void content_load(struct eval *e, const struct fs_inode *inode)
{
    struct content *c = &e->content;
    *c = (struct content){.id = inode->content, .bytes = inode->content_bytes};
    c->record = inode->trim_count ? CONTENT_TRIMMED : CONTENT_UNRECORDED;
    buf_bytes(&c->trims, inode->trims, (size_t)inode->trim_count * TRIM_RECORD_BYTES);
}

static void content_store(struct eval *e, struct fs_inode *inode, uint64_t size)
{
    const struct content *c = &e->content;
    inode->kind = FS_CONTENT_EXTENTS;
    inode->size = size;
    inode->content = c->id;
    inode->content_bytes = c->bytes;
    inode->trims = c->trims.data;
    inode->trim_count = (uint32_t)(c->trims.length / TRIM_RECORD_BYTES);
    inode->inline_bytes = NULL;
}

/* `size` bytes of inline content: what `old` had, then zeros, with ranges over it. */
static void inline_store(struct eval *e, struct fs_inode *inode,
                         const struct fs_inode *old, const uint8_t *ranges,
                         size_t ranges_size, uint64_t size)
{
    struct reader r = reader_of(ranges, ranges_size);
    uint64_t offset;
    const uint8_t *data;
    uint32_t length;
    uint8_t *bytes = buf_extend(&e->inline_bytes, size);
    inode->kind = FS_CONTENT_INLINE;
    inode->inline_bytes = bytes;
    inode->size = bytes ? size : 0;
    inode->trim_count = 0;
    if (!bytes || size == 0)
        return; /* a failed buffer is fs_evaluate's -ENOMEM */
    memset(bytes, 0, size);
    if (old && old->size)
        memcpy(bytes, old->inline_bytes, min_u64(old->size, size));
    while (fs_range_next(&r, &offset, &data, &length))
        memcpy(bytes + offset, data, length);
}

/* Ranges over what a file has. */
static int inode_write(struct eval *e, struct fs_inode *inode, const uint8_t *ranges,
                       size_t ranges_size, uint64_t end)
{
    uint64_t size = max_u64(inode->size, end);
    struct fs_inode old = *inode;
    const uint8_t *base = NULL;
    size_t base_size = 0;
    if (inode->kind == FS_CONTENT_INLINE && size <= LIMIT_INLINE_BYTES) {
        inline_store(e, inode, &old, ranges, ranges_size, size);
        return 0;
    }
    if (inode->kind == FS_CONTENT_INLINE) {
        content_begin(e);
        base = inode->inline_bytes;
        base_size = inode->size;
    } else {
        content_load(e, inode);
    }
    int error = content_write(e, base, base_size, ranges, ranges_size, CONTENT_UNCUT);
    if (!error)
        content_store(e, inode, size);
    return error;
}

/* Takes over content in progress, which must be of this session (S7). */
static int content_adopt(struct eval *e, uint64_t id)
{
    enum content_record record;
    uint64_t session, bytes;
    int error = content_record_get(e, id, &record, &session, &bytes);
    if (error == -ENOENT)
        return -ESTALE;
    if (error)
        return error;
    if (record != CONTENT_BUILDING || session != e->change->session)
        return -ESTALE;
    e->content = (struct content){.id = id, .bytes = bytes, .record = CONTENT_BUILDING};
    return 0;
}

/* `size` bytes of content in progress, with the ranges over it. */
static int value_built(struct eval *e, struct fs_inode *inode)
{
    const struct fs_op *op = e->op;
    int error = content_adopt(e, op->content);
    if (error)
        return error;
    if (op->size == 0) {
        e->content.id = 0; /* nothing to settle */
        inline_store(e, inode, NULL, NULL, 0, 0);
        return content_drop(e, op->content, true);
    }
    error = content_write(e, NULL, 0, op->ranges, op->ranges_size, op->size);
    if (!error)
        content_store(e, inode, op->size);
    return error;
}

static int value_new(struct eval *e, struct fs_inode *inode)
{
    const struct fs_op *op = e->op;
    if (op->size <= LIMIT_INLINE_BYTES) {
        inline_store(e, inode, NULL, op->ranges, op->ranges_size, op->size);
        return 0;
    }
    content_begin(e);
    int error = content_write(e, NULL, 0, op->ranges, op->ranges_size, CONTENT_UNCUT);
    if (!error)
        content_store(e, inode, op->size);
    return error;
}

int eval_value(struct eval *e, struct fs_inode *inode)
{
    const struct fs_op *op = e->op;
    struct fs_inode old = *inode;
    if (op->size > LIMIT_FILE_BYTES)
        return -EFBIG;
    if (ranges_end(op) > op->size)
        return -EINVAL;
    int error = op->content ? value_built(e, inode) : value_new(e, inode);
    if (!error && old.kind == FS_CONTENT_EXTENTS)
        error = content_drop(e, old.content, old.trim_count > 0);
    return error;
}

/* From inline content beyond what may be inline, or back to nothing. */
static int resize_kind(struct eval *e, struct fs_inode *inode, uint64_t size)
{
    struct fs_inode old = *inode;
    if (inode->kind == FS_CONTENT_EXTENTS) {
        inline_store(e, inode, NULL, NULL, 0, 0);
        return content_drop(e, old.content, old.trim_count > 0);
    }
    content_begin(e);
    int error = content_write(e, old.inline_bytes, old.size, NULL, 0, CONTENT_UNCUT);
    if (!error)
        content_store(e, inode, size);
    return error;
}

int eval_resize(struct eval *e, struct fs_inode *inode)
{
    uint64_t size = e->op->size;
    struct fs_inode old = *inode;
    int error = eval_regular(inode);
    if (error)
        return error;
    if (size > LIMIT_FILE_BYTES)
        return -EFBIG;
    if (inode->kind == FS_CONTENT_INLINE && size <= LIMIT_INLINE_BYTES) {
        inline_store(e, inode, &old, NULL, 0, size);
        return 0;
    }
    if (inode->kind == FS_CONTENT_INLINE || size == 0)
        return resize_kind(e, inode, size);
    content_load(e, inode);
    if (size < inode->size)
        error = content_write(e, NULL, 0, NULL, 0, size);
    if (!error)
        content_store(e, inode, size);
    return error;
}

static int zero_inline(struct eval *e, struct fs_inode *inode, uint64_t from,
                       uint64_t end, const struct buf *ranges, uint64_t size)
{
    struct fs_inode old = *inode;
    struct buf base = {0};
    int error = 0;
    buf_bytes(&base, old.inline_bytes, old.size);
    if (base.failed)
        return -ENOMEM;
    if (from < min_u64(end, old.size))
        memset(base.data + from, 0, min_u64(end, old.size) - from);
    old.inline_bytes = base.data;
    if (size <= LIMIT_INLINE_BYTES) {
        inline_store(e, inode, &old, ranges->data, ranges->length, size);
    } else {
        content_begin(e);
        error = content_write(e, base.data, base.length, ranges->data, ranges->length,
                              CONTENT_UNCUT);
        if (!error)
            content_store(e, inode, size);
    }
    buf_release(&base);
    return error;
}

int eval_zero(struct eval *e, struct fs_inode *inode, uint64_t from, uint64_t end,
              const struct buf *ranges, uint64_t size, uint64_t *ret_end)
{
    int error;
    *ret_end = end;
    if (inode->kind == FS_CONTENT_INLINE)
        return zero_inline(e, inode, from, end, ranges, size);
    content_load(e, inode);
    if (ranges->length)
        error = content_overwrite(e, from, end, ranges->data, ranges->length);
    else
        error = content_punch(e, from, end, ret_end);
    if (!error)
        content_store(e, inode, size);
    return error;
}

void eval_settle(struct eval *e, uint64_t inode)
{
    const struct content *c = &e->content;
    if (c->id == 0)
        return;
    struct fs_key key;
    fs_key_content(&key, c->id);
    if (c->trims.length && c->record != CONTENT_TRIMMED)
        content_record_put(e, c->id, 0, inode);
    else if (!c->trims.length && c->record != CONTENT_UNRECORDED)
        eval_delete(e, &key);
}

static int write_at_end(struct eval *e, struct fs_inode *inode, uint64_t *ret_end)
{
    const struct fs_op *op = e->op;
    struct reader r = reader_of(op->ranges, op->ranges_size);
    uint64_t offset;
    const uint8_t *data;
    uint32_t length;
    if (!fs_range_next(&r, &offset, &data, &length) || reader_left(&r))
        return -EINVAL;
    uint64_t end = inode->size + length;
    if (end > LIMIT_FILE_BYTES)
        return -EFBIG;
    struct buf ranges = {0};
    fs_range_add(&ranges, inode->size, data, length);
    int error = -ENOMEM;
    if (!ranges.failed)
        error = inode_write(e, inode, ranges.data, ranges.length, end);
    buf_release(&ranges);
    *ret_end = end;
    return error;
}

static int write_ranges(struct eval *e, struct fs_inode *inode, uint64_t *ret_end)
{
    const struct fs_op *op = e->op;
    *ret_end = ranges_end(op);
    if (*ret_end > LIMIT_FILE_BYTES)
        return -EFBIG;
    return inode_write(e, inode, op->ranges, op->ranges_size, *ret_end);
}

int evaluate_write(struct eval *e)
{
    const struct fs_op *op = e->op;
    struct eval_inode *i;
    int error = eval_inode(e, op->inode, &i);
    if (!error)
        error = eval_regular(&i->inode);
    if (error)
        return error;
    if (op->set & FS_SET_SIZE)
        return -EINVAL;
    if (op->ranges_size == 0)
        return 0;
    if (op->flags & FS_APPEND)
        error = write_at_end(e, &i->inode, &e->result.value);
    else
        error = write_ranges(e, &i->inode, &e->result.value);
    if (!error)
        error = xattr_drop_privileges(e, op->inode);
    if (error)
        return error;
    eval_settle(e, op->inode);
    i->inode.mtime_ns = eval_written(e, &i->inode);
    eval_set(e, &i->inode);
    i->dirty = true;
    error = acl_follow_mode(e, &i->inode);
    if (!error && op->content && op->content == i->inode.version)
        e->result.more = eval_next(e); /* of the inode's record, which is put last */
    return error;
}

int evaluate_replace(struct eval *e)
{
    struct eval_inode *i;
    int error = eval_inode(e, e->op->inode, &i);
    if (!error)
        error = eval_regular(&i->inode);
    if (!error)
        error = eval_value(e, &i->inode);
    if (!error)
        error = xattr_drop_privileges(e, e->op->inode);
    if (error)
        return error;
    eval_settle(e, e->op->inode);
    i->inode.mtime_ns = eval_written(e, &i->inode);
    eval_set(e, &i->inode);
    i->dirty = true;
    e->result.value = e->op->inode;
    return acl_follow_mode(e, &i->inode);
}

int evaluate_build(struct eval *e)
{
    const struct fs_op *op = e->op;
    if (e->change->session == 0)
        return -EINVAL;
    if (ranges_end(op) > LIMIT_FILE_BYTES)
        return -EFBIG;
    int error = 0;
    if (op->content)
        error = content_adopt(e, op->content);
    else
        content_begin(e);
    if (!error)
        error = content_write(e, NULL, 0, op->ranges, op->ranges_size, CONTENT_UNCUT);
    if (error)
        return error;
    content_record_put(e, e->content.id, e->change->session, e->content.bytes);
    e->result.value = e->content.id;
    return 0;
}
