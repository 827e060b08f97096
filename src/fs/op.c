/*
 * op.c - operations and results as bytes.
 *
 *   op     = type u8 | flags u32 | set u32 | inode u64 | parent u64 | parent2 u64
 *            | name string | name2 string | mode u32 | uid u32 | gid u32 | rdev u32
 *            | size u64 | content u64 | atime i64 | mtime i64 | target string
 *            | ranges_size u32 | range* | of XATTR: value_size u32 | value
 *            | of RELEASE: inode_count u16 | inode u64* | of LOCK, UNLOCK: lock
 *            | with flag UMASK: umask u32 | of ZERO and COPY: area
 *            | with WRITTEN in set: written i64 | changed i64
 *   string = length u16 | bytes
 *   range  = offset u64 | length u32 | bytes
 *   lock   = owner u64 | pid u32 | kind u8 | writes u8 | start u64 | end u64 | ticket u64
 *
 * Valid: known type, flags and set; a range holds at least one byte, ranges ascend, do
 * not overlap and end below 2^63; a RELEASE has inodes, which ascend and are not 0; strings
 * are within their limits; a lock is of a known kind and ends, below 2^63, not before it
 * starts; nothing is left over.
 */
#include "fs.h"

#include <errno.h>

enum {
    OP_FLAGS = FS_OVER | FS_NOREPLACE | FS_APPEND | FS_PARENTS | FS_EXCHANGE |
               FS_XATTR_CREATE | FS_XATTR_REPLACE | FS_XATTR_REMOVE | FS_XATTR_NO_SETGID |
               FS_UMASK | FS_KEEP_SIZE | FS_PUNCH | FS_LOCK_WAITS | FS_LOCKS_ALONE,
    OP_SET = FS_SET_MODE | FS_SET_UID | FS_SET_GID | FS_SET_SIZE | FS_SET_ATIME |
             FS_SET_MTIME | FS_SET_ATIME_NOW | FS_SET_MTIME_NOW | FS_SET_NO_SETID |
             FS_SET_WRITTEN,
    OP_FIXED_BYTES = 91, /* all that is of one size */
    OP_AREA_BYTES = 24,
    OP_WRITTEN_BYTES = 16,
    OP_LOCK_BYTES = 38,
    OP_INODE = 9, /* where the inode stands */
};

bool fs_op_known(uint32_t type)
{
    return (type >= FS_MAKE && type <= FS_COPY) || type == FS_LOCK || type == FS_UNLOCK ||
           type == FS_RELEASE;
}

static bool has_lock(uint8_t type)
{
    return type == FS_LOCK || type == FS_UNLOCK;
}

static void lock_encode(const struct fs_lock *lock, struct buf *to)
{
    buf_u64(to, lock->owner);
    buf_u32(to, lock->pid);
    buf_u8(to, lock->kind);
    buf_u8(to, lock->writes);
    buf_u64(to, lock->start);
    buf_u64(to, lock->end);
    buf_u64(to, lock->ticket);
}

static void lock_decode(struct reader *r, struct fs_lock *lock)
{
    lock->owner = reader_u64(r);
    lock->pid = reader_u32(r);
    lock->kind = reader_u8(r);
    uint8_t writes = reader_u8(r);
    lock->writes = writes;
    lock->start = reader_u64(r);
    lock->end = reader_u64(r);
    lock->ticket = reader_u64(r);
    r->bad |= lock->kind > FS_LOCK_FLOCK || writes > 1 || lock->start > lock->end ||
              lock->end > FS_LOCK_END;
}

static bool has_value(uint32_t type)
{
    return type == FS_XATTR;
}

static bool has_area(uint32_t type)
{
    return type == FS_ZERO || type == FS_COPY;
}

/* In as much memory as it is long: it waits in it until it is answered, and many do. */
void fs_op_encode(const struct fs_op *op, struct buf *to)
{
    size_t length = OP_FIXED_BYTES + op->name_size + op->name2_size + op->target_size +
                    op->ranges_size +
                    (has_value(op->type) ? sizeof(uint32_t) + op->value_size : 0) +
                    (op->type == FS_RELEASE ? 2 + (size_t)op->inode_count * 8 : 0) +
                    (has_lock((uint8_t)op->type) ? OP_LOCK_BYTES : 0) +
                    (op->flags & FS_UMASK ? sizeof(uint32_t) : 0) +
                    (has_area(op->type) ? OP_AREA_BYTES : 0) +
                    (op->set & FS_SET_WRITTEN ? OP_WRITTEN_BYTES : 0),
           before = to->length;
    buf_reserve(to, length);
    buf_u8(to, (uint8_t)op->type);
    buf_u32(to, op->flags);
    buf_u32(to, op->set);
    buf_u64(to, op->inode);
    buf_u64(to, op->parent);
    buf_u64(to, op->parent2);
    buf_string(to, op->name, op->name_size);
    buf_string(to, op->name2, op->name2_size);
    buf_u32(to, op->mode);
    buf_u32(to, op->uid);
    buf_u32(to, op->gid);
    buf_u32(to, op->rdev);
    buf_u64(to, op->size);
    buf_u64(to, op->content);
    buf_u64(to, (uint64_t)op->atime_ns);
    buf_u64(to, (uint64_t)op->mtime_ns);
    buf_string(to, op->target, op->target_size);
    buf_u32(to, op->ranges_size);
    buf_bytes(to, op->ranges, op->ranges_size);
    if (has_value(op->type)) {
        buf_u32(to, op->value_size);
        buf_bytes(to, op->value, op->value_size);
    }
    if (op->type == FS_RELEASE) {
        buf_u16(to, op->inode_count);
        buf_bytes(to, op->inodes, (size_t)op->inode_count * 8);
    }
    if (has_lock((uint8_t)op->type))
        lock_encode(&op->lock, to);
    if (op->flags & FS_UMASK)
        buf_u32(to, op->umask);
    if (has_area(op->type)) {
        buf_u64(to, op->offset);
        buf_u64(to, op->source);
        buf_u64(to, op->source_offset);
    }
    if (op->set & FS_SET_WRITTEN) {
        buf_u64(to, (uint64_t)op->written_ns);
        buf_u64(to, (uint64_t)op->changed_ns);
    }
    ensure(to->failed || to->length == before + length);
}

static bool ranges_valid(const uint8_t *ranges, size_t size)
{
    struct reader r = reader_of(ranges, size);
    uint64_t end = 0;
    while (reader_left(&r)) {
        uint64_t offset = reader_u64(&r);
        uint32_t length = reader_u32(&r);
        reader_bytes(&r, length);
        if (r.bad || length == 0 || offset < end || offset > (uint64_t)INT64_MAX - length)
            return false;
        end = offset + length;
    }
    return true;
}

static bool inodes_valid(const struct fs_op *op, uint8_t type)
{
    uint64_t last = 0;
    if (type == FS_RELEASE && op->inode_count == 0)
        return false;
    if (op->inode_count > FS_RELEASE_MOST)
        return false;
    for (size_t i = 0; i < op->inode_count; i++) {
        uint64_t inode = get_u64(op->inodes + 8 * i);
        if (inode <= last)
            return false;
        last = inode;
    }
    return true;
}

static void read_strings(struct reader *r, struct fs_op *op)
{
    size_t size;
    op->name = reader_string(r, &size);
    op->name_size = (uint16_t)size;
    op->name2 = reader_string(r, &size);
    op->name2_size = (uint16_t)size;
}

static void read_tail(struct reader *r, struct fs_op *op)
{
    op->mode = reader_u32(r);
    op->uid = reader_u32(r);
    op->gid = reader_u32(r);
    op->rdev = reader_u32(r);
    op->size = reader_u64(r);
    op->content = reader_u64(r);
    op->atime_ns = (int64_t)reader_u64(r);
    op->mtime_ns = (int64_t)reader_u64(r);
    size_t size;
    op->target = reader_string(r, &size);
    op->target_size = (uint16_t)size;
    op->ranges_size = reader_u32(r);
    op->ranges = reader_bytes(r, op->ranges_size);
}

/* What only some operations have. */
static void read_parts(struct reader *r, struct fs_op *op, uint8_t type)
{
    if (has_value(type)) {
        op->value_size = reader_u32(r);
        op->value = reader_bytes(r, op->value_size);
    }
    if (type == FS_RELEASE) {
        op->inode_count = reader_u16(r);
        op->inodes = reader_bytes(r, (size_t)op->inode_count * 8);
    }
    if (has_lock(type))
        lock_decode(r, &op->lock);
    if (op->flags & FS_UMASK)
        op->umask = reader_u32(r);
    if (has_area(type)) {
        op->offset = reader_u64(r);
        op->source = reader_u64(r);
        op->source_offset = reader_u64(r);
    }
    if (op->set & FS_SET_WRITTEN) {
        op->written_ns = (int64_t)reader_u64(r);
        op->changed_ns = (int64_t)reader_u64(r);
    }
}

int fs_op_decode(const void *data, size_t length, struct fs_op *ret)
{
    struct reader r = reader_of(data, length);
    struct fs_op op = {0};
    uint8_t type = reader_u8(&r);
    op.flags = reader_u32(&r);
    op.set = reader_u32(&r);
    op.inode = reader_u64(&r);
    op.parent = reader_u64(&r);
    op.parent2 = reader_u64(&r);
    read_strings(&r, &op);
    read_tail(&r, &op);
    read_parts(&r, &op, type);
    if (!reader_done(&r) || !fs_op_known(type))
        return -EPROTO;
    if (op.flags & ~(uint32_t)OP_FLAGS || op.set & ~(uint32_t)OP_SET ||
        op.name_size > LIMIT_NAME_BYTES || op.name2_size > LIMIT_NAME_BYTES ||
        op.target_size > LIMIT_PATH_BYTES || op.value_size > FS_XATTR_BYTES ||
        op.umask > 0777 || op.ranges_size > LIMIT_FRAME_BYTES ||
        !ranges_valid(op.ranges, op.ranges_size) || !inodes_valid(&op, type))
        return -EPROTO;
    op.type = (enum fs_op_type)type;
    *ret = op;
    return 0;
}

void fs_op_retarget(struct buf *op, uint64_t inode)
{
    ensure(!op->failed && op->length >= OP_FIXED_BYTES);
    put_u64(op->data + OP_INODE, inode);
}

void fs_range_add(struct buf *ranges, uint64_t offset, const void *data, size_t length)
{
    ensure(length > 0 && length <= UINT32_MAX);
    buf_u64(ranges, offset);
    buf_u32(ranges, (uint32_t)length);
    buf_bytes(ranges, data, length);
}

bool fs_range_next(struct reader *ranges, uint64_t *ret_offset, const uint8_t **ret_data,
                   uint32_t *ret_length)
{
    if (reader_left(ranges) == 0)
        return false;
    uint64_t offset = reader_u64(ranges);
    uint32_t length = reader_u32(ranges);
    const uint8_t *data = reader_bytes(ranges, length);
    if (ranges->bad)
        return false;
    *ret_offset = offset;
    *ret_data = data;
    *ret_length = length;
    return true;
}

uint32_t fs_ranges_slots(const void *ranges, size_t ranges_size)
{
    struct reader r = reader_of(ranges, ranges_size);
    uint64_t offset, slots = 0, next = 0; /* the first slot not yet counted */
    const uint8_t *data;
    uint32_t length;
    while (fs_range_next(&r, &offset, &data, &length)) {
        uint64_t first = max_u64(next, offset / LIMIT_EXTENT_BYTES);
        uint64_t end = (offset + length - 1) / LIMIT_EXTENT_BYTES + 1;
        slots += end > first ? end - first : 0;
        next = max_u64(next, end);
    }
    return (uint32_t)min_u64(slots, UINT32_MAX);
}

uint64_t fs_op_subject(const struct fs_op *op)
{
    if (op->inode)
        return op->inode;
    return op->parent ? op->parent : op->content;
}

void fs_result_encode(const struct fs_result *result, uint8_t to[16])
{
    put_u64(to, result->value);
    put_u64(to + 8, result->more);
}

void fs_result_decode(const uint8_t from[16], struct fs_result *ret)
{
    ret->value = get_u64(from);
    ret->more = get_u64(from + 8);
}
