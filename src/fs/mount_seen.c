/*
 * mount_seen.c - what look-ups have read a moment ago (M11). The kernel walks a path with
 * LOOKUP and then asks by number. Where the name is replaced in between it gets ESTALE
 * and walks again, but only once: a program would fail that meets two renames in a row.
 * So a number that is gone is answered as it was when the name led to it.
 */
#include "mount_internal.h"

static size_t slot_of(uint64_t inode)
{
    return (inode * 0x9e3779b97f4a7c15u >> 32) % MOUNT_SEEN;
}

void seen_keep(struct fs_mount *m, uint64_t inode, const struct buf *record,
               uint64_t version)
{
    struct seen *seen = &m->seen[slot_of(inode)];
    buf_clear(&seen->record);
    buf_bytes(&seen->record, record->data, record->length);
    seen->inode = seen->record.failed ? 0 : inode;
    seen->version = version;
    seen->at_us = ticks_us();
}

int seen_find(const struct fs_mount *m, uint64_t inode, struct buf *record,
              struct fs_inode *ret)
{
    const struct seen *seen = &m->seen[slot_of(inode)];
    if (seen->inode != inode || ticks_us() - seen->at_us > MOUNT_SEEN_US)
        return -ESTALE;
    buf_clear(record);
    buf_bytes(record, seen->record.data, seen->record.length);
    if (record->failed)
        return -ENOMEM;
    return fs_inode_decode(inode, seen->version, record->data, record->length, ret);
}

void seen_release(struct fs_mount *m)
{
    for (size_t i = 0; i < MOUNT_SEEN; i++)
        buf_release(&m->seen[i].record);
}
