/*
 * inode.c - the value of an I record.
 *
 *   mode u32 | nlink u32 | uid u32 | gid u32 | rdev u32 | atime i64 | mtime i64 | ctime
 * i64 kind u8 INLINE   the bytes, to the end: of a file 0..4096, of a symlink 1..4095
 *   EXTENTS  size u64 | content u64 | content_bytes u64 | { offset u64, timestamp u64 }*
 *            the pairs are trims (README E6), both growing, offsets of whole 4 MiB
 *   NONE     of a directory: size u64 | parent u64; else nothing
 *
 * Valid: the type in mode allows the kind, sizes are within the limits, nothing is left
 * over.
 */
#include "extent.h"

#include <errno.h>
#include <sys/stat.h>

uint32_t fs_mode_without_setid(uint32_t mode)
{
    if (S_ISDIR(mode))
        return mode;
    return mode & ~(uint32_t)(S_ISUID | (mode & S_IXGRP ? S_ISGID : 0));
}

void fs_inode_encode(const struct fs_inode *inode, struct buf *to)
{
    buf_u32(to, inode->mode);
    buf_u32(to, inode->nlink);
    buf_u32(to, inode->uid);
    buf_u32(to, inode->gid);
    buf_u32(to, inode->rdev);
    buf_u64(to, (uint64_t)inode->atime_ns);
    buf_u64(to, (uint64_t)inode->mtime_ns);
    buf_u64(to, (uint64_t)inode->ctime_ns);
    buf_u8(to, (uint8_t)inode->kind);
    switch (inode->kind) {
    case FS_CONTENT_INLINE:
        ensure(inode->size <= LIMIT_INLINE_BYTES);
        buf_bytes(to, inode->inline_bytes, inode->size);
        break;
    case FS_CONTENT_EXTENTS:
        buf_u64(to, inode->size);
        buf_u64(to, inode->content);
        buf_u64(to, inode->content_bytes);
        buf_bytes(to, inode->trims, (size_t)inode->trim_count * TRIM_RECORD_BYTES);
        break;
    case FS_CONTENT_NONE:
        if (S_ISDIR(inode->mode)) {
            buf_u64(to, inode->size);
            buf_u64(to, inode->parent);
        }
        break;
    }
}

static bool trims_read(struct reader *r, struct fs_inode *inode)
{
    size_t length = reader_left(r);
    if (length % TRIM_RECORD_BYTES || length / TRIM_RECORD_BYTES > TRIM_MAX)
        return false;
    inode->trim_count = (uint32_t)(length / TRIM_RECORD_BYTES);
    inode->trims = reader_bytes(r, length);
    uint64_t offset = 0, timestamp = 0;
    for (uint32_t i = 0; i < inode->trim_count; i++) {
        uint64_t next = get_u64(inode->trims + i * TRIM_RECORD_BYTES);
        uint64_t when = get_u64(inode->trims + i * TRIM_RECORD_BYTES + 8);
        if (next % TRIM_UNIT_BYTES || next <= offset || next >= LIMIT_FILE_BYTES ||
            when <= timestamp)
            return false;
        offset = next;
        timestamp = when;
    }
    return true;
}

static bool inline_read(struct reader *r, struct fs_inode *inode)
{
    inode->size = reader_left(r);
    inode->inline_bytes = reader_bytes(r, inode->size);
    if (S_ISLNK(inode->mode))
        return inode->size >= 1 && inode->size <= LIMIT_PATH_BYTES;
    return S_ISREG(inode->mode) && inode->size <= LIMIT_INLINE_BYTES;
}

static bool extents_read(struct reader *r, struct fs_inode *inode)
{
    inode->size = reader_u64(r);
    inode->content = reader_u64(r);
    inode->content_bytes = reader_u64(r);
    return S_ISREG(inode->mode) && !r->bad && inode->size <= LIMIT_FILE_BYTES &&
           inode->content != 0 && inode->content_bytes <= LIMIT_FILE_BYTES &&
           trims_read(r, inode);
}

static bool none_read(struct reader *r, struct fs_inode *inode)
{
    switch (inode->mode & S_IFMT) {
    case S_IFDIR:
        inode->size = reader_u64(r);
        inode->parent = reader_u64(r);
        return inode->parent != 0;
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        return true;
    default:
        return false;
    }
}

static bool content_read(struct reader *r, uint8_t kind, struct fs_inode *inode)
{
    switch (kind) {
    case FS_CONTENT_INLINE:
        return inline_read(r, inode);
    case FS_CONTENT_EXTENTS:
        return extents_read(r, inode);
    case FS_CONTENT_NONE:
        return none_read(r, inode);
    default:
        return false;
    }
}

int fs_inode_decode(uint64_t number, uint64_t version, const void *data, size_t length,
                    struct fs_inode *ret)
{
    struct reader r = reader_of(data, length);
    struct fs_inode inode = {.inode = number, .version = version};
    inode.mode = reader_u32(&r);
    inode.nlink = reader_u32(&r);
    inode.uid = reader_u32(&r);
    inode.gid = reader_u32(&r);
    inode.rdev = reader_u32(&r);
    inode.atime_ns = (int64_t)reader_u64(&r);
    inode.mtime_ns = (int64_t)reader_u64(&r);
    inode.ctime_ns = (int64_t)reader_u64(&r);
    uint8_t kind = reader_u8(&r);
    if (r.bad || inode.mode > (S_IFMT | 07777) || !content_read(&r, kind, &inode) ||
        !reader_done(&r))
        return -EBADMSG;
    inode.kind = (enum fs_content_kind)kind;
    *ret = inode;
    return 0;
}
