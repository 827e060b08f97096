/* ops.c - fills in a struct fs_op and does it. */
#include "ops.h"

#include <sys/stat.h>

static int run(struct memory *m, struct fs_op *op, uint64_t *ret_value)
{
    struct fs_result result;
    int error = memory_do(m, op, OPS_SESSION, &result);
    if (!error && ret_value)
        *ret_value = result.value;
    return error;
}

static int run_range(struct memory *m, struct fs_op *op, uint64_t offset,
                     const void *data, size_t length, uint64_t *ret_value)
{
    struct buf ranges = {0};
    if (length)
        fs_range_add(&ranges, offset, data, length);
    op->ranges = ranges.data;
    op->ranges_size = (uint32_t)ranges.length;
    int error = run(m, op, ret_value);
    buf_release(&ranges);
    return error;
}

static struct fs_op named(enum fs_op_type type, uint64_t parent, const char *name)
{
    return (struct fs_op){
        .type = type,
        .parent = parent,
        .name = (const uint8_t *)name,
        .name_size = (uint16_t)strlen(name),
    };
}

int op_make(struct memory *m, uint64_t parent, const char *name, uint32_t mode,
            uint64_t *ret_inode)
{
    struct fs_op op = named(FS_MAKE, parent, name);
    op.mode = mode;
    return run(m, &op, ret_inode);
}

int op_symlink(struct memory *m, uint64_t parent, const char *name, const char *target,
               uint64_t *ret_inode)
{
    struct fs_op op = named(FS_MAKE, parent, name);
    op.mode = S_IFLNK | 0777;
    op.target = (const uint8_t *)target;
    op.target_size = (uint16_t)strlen(target);
    return run(m, &op, ret_inode);
}

int op_link(struct memory *m, uint64_t inode, uint64_t parent, const char *name)
{
    struct fs_op op = named(FS_LINK, parent, name);
    op.inode = inode;
    return run(m, &op, NULL);
}

int op_unlink(struct memory *m, uint64_t parent, const char *name)
{
    struct fs_op op = named(FS_UNLINK, parent, name);
    return run(m, &op, NULL);
}

int op_rmdir(struct memory *m, uint64_t parent, const char *name)
{
    struct fs_op op = named(FS_RMDIR, parent, name);
    return run(m, &op, NULL);
}

int op_rename(struct memory *m, uint64_t parent, const char *name, uint64_t parent2,
              const char *name2, uint32_t flags)
{
    struct fs_op op = named(FS_RENAME, parent, name);
    op.flags = flags;
    op.parent2 = parent2;
    op.name2 = (const uint8_t *)name2;
    op.name2_size = (uint16_t)strlen(name2);
    return run(m, &op, NULL);
}

int op_xattr(struct memory *m, uint64_t inode, const char *name, const void *value,
             size_t size, uint32_t flags)
{
    struct fs_op op = named(FS_XATTR, 0, name);
    op.inode = inode;
    op.flags = flags;
    op.value = value;
    op.value_size = (uint32_t)size;
    return run(m, &op, NULL);
}

int op_write(struct memory *m, uint64_t inode, uint64_t offset, const void *data,
             size_t length)
{
    struct fs_op op = {.type = FS_WRITE, .inode = inode};
    return run_range(m, &op, offset, data, length, NULL);
}

int op_append(struct memory *m, uint64_t inode, const void *data, size_t length,
              uint64_t *ret_end)
{
    struct fs_op op = {.type = FS_WRITE, .inode = inode, .flags = FS_APPEND};
    return run_range(m, &op, 12345, data, length, ret_end);
}

int op_truncate(struct memory *m, uint64_t inode, uint64_t size)
{
    struct fs_op op = {
        .type = FS_SETATTR, .inode = inode, .set = FS_SET_SIZE, .size = size};
    return run(m, &op, NULL);
}

int op_zero(struct memory *m, uint64_t inode, uint32_t flags, uint64_t offset,
            uint64_t size, unsigned *ret_steps)
{
    uint64_t end = offset + size, reached = offset;
    unsigned steps = 0;
    do {
        struct fs_op op = {
            .type = FS_ZERO, .flags = flags, .inode = inode, .offset = reached};
        op.size = end - reached;
        int error = run(m, &op, &reached);
        if (error)
            return error;
        ensure(reached > op.offset && reached <= end);
        steps++;
    } while (reached < end);
    if (ret_steps)
        *ret_steps = steps;
    return 0;
}

int op_copy(struct memory *m, uint64_t source, uint64_t source_offset, uint64_t inode,
            uint64_t offset, uint64_t size, uint64_t *ret_size)
{
    uint64_t done = 0, part = 1;
    while (done < size && part) {
        struct fs_op op = {.type = FS_COPY, .inode = inode, .source = source};
        op.offset = offset + done;
        op.source_offset = source_offset + done;
        op.size = size - done;
        int error = run(m, &op, &part);
        if (error)
            return error;
        ensure(part <= op.size);
        done += part;
    }
    *ret_size = done;
    return 0;
}

int op_replace(struct memory *m, uint64_t inode, uint64_t content, uint64_t offset,
               const void *data, size_t length, uint64_t size)
{
    struct fs_op op = {
        .type = FS_REPLACE, .inode = inode, .content = content, .size = size};
    return run_range(m, &op, offset, data, length, NULL);
}

int op_build(struct memory *m, uint64_t *content, uint64_t offset, const void *data,
             size_t length)
{
    struct fs_op op = {.type = FS_BUILD, .content = *content};
    return run_range(m, &op, offset, data, length, content);
}

bool op_reclaim(struct memory *m)
{
    struct fs_op op = {.type = FS_RECLAIM};
    struct fs_result result;
    ensure(memory_do(m, &op, OPS_SESSION, &result) == 0);
    return result.more;
}

void op_session(struct memory *m, uint64_t session, bool lives)
{
    struct fs_change *change = memory_begin(m, 0, 0);
    struct fs_key key = {.size = 9, .bytes = {FS_CLASS_SESSION}};
    uint8_t value[16] = {1};
    put_be64(key.bytes + 1, session);
    change->records++;
    change->put(change->context, key.bytes, key.size, lives ? value : NULL,
                lives ? sizeof(value) : 0);
    memory_commit(m);
}

int op_release(struct memory *m, uint64_t session, const uint64_t *inodes, size_t count)
{
    struct buf list = {0};
    struct fs_result result;
    for (size_t i = 0; i < count; i++)
        buf_u64(&list, inodes[i]);
    struct fs_op op = {
        .type = FS_RELEASE, .inodes = list.data, .inode_count = (uint16_t)count};
    int error = memory_do(m, &op, session, &result);
    buf_release(&list);
    return error ? error : (int)result.value;
}

uint64_t op_reclaim_orphans(struct memory *m, uint64_t from)
{
    struct fs_op op = {.type = FS_RECLAIM, .inode = from};
    struct fs_result result;
    ensure(memory_do(m, &op, OPS_SESSION, &result) == 0);
    return result.more;
}

int op_stat(struct memory *m, uint64_t inode, struct fs_inode *ret)
{
    struct fs_view view = memory_view(m);
    struct buf scratch = {0};
    int error = fs_stat(&view, inode, &scratch, ret);
    buf_release(&scratch);
    if (!error)
        ret->inline_bytes = ret->trims = NULL;
    return error;
}
