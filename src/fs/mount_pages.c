/*
 * mount_pages.c - whether the kernel may keep a file's pages when the file is opened.
 *
 * It drops them all at each open, unless the answer says that it need not. It need not
 * where the version of the inode that counts is still the one of an earlier open at which
 * it dropped them: what it has read since was of that version or of a later one, and
 * there is no later one. Size and mtime would not prove that (K1). What was written here
 * since is right as well: its commit makes another version, or fails, and then the pages
 * are dropped.
 *
 * Remembered for MOUNT_PAGES files: those that have the same place drive each other out.
 *
 * And whether they may lack a write of this host (K1). The kernel copies it into a page and
 * lets go of that before it sends the WRITE; pages dropped then are read anew without it. When
 * it drops them cannot be seen from here, but what it reads can: a WRITE of what was read
 * since the WRITE before it came (the kernel sends one at a time for each inode) is taken for
 * such a one, and its pages are dropped when it is committed. So are those of a write that
 * went past them, which older kernels leave as they are (by reading).
 */
#include "mount_internal.h"

static struct pages *pages_of(struct fs_mount *m, uint64_t inode)
{
    return &m->pages[(inode * 0x9e3779b97f4a7c15u >> 32) % MOUNT_PAGES];
}

bool pages_may_stay(struct fs_mount *m, const struct file *file, uint64_t inode,
                    uint64_t *ret_version)
{
    const struct pages *p = pages_of(m, inode);
    bool known = file->inode == inode && !file->pending && file->version;
    *ret_version = known ? file->version : 0;
    return known && p->inode == inode && p->version == file->version;
}

void pages_begin(struct fs_mount *m, uint64_t inode, uint64_t version)
{
    *pages_of(m, inode) = (struct pages){.inode = inode, .version = version};
}

void pages_forget(struct fs_mount *m)
{
    memset(m->pages, 0, sizeof(m->pages));
}

void spans_add(struct spans *spans, uint64_t from, uint64_t end)
{
    struct span *last = spans->count ? &spans->at[spans->count - 1] : NULL;
    bool joins = last && from <= last->end && last->from <= end;
    if (!joins && spans->count < SPANS) {
        spans->at[spans->count++] = (struct span){.from = from, .end = end};
        return;
    }
    last->from = min_u64(last->from, from);
    last->end = max_u64(last->end, end);
}

static bool spans_meet(const struct spans *spans, uint64_t from, uint64_t end)
{
    for (size_t i = 0; i < spans->count; i++)
        if (from < spans->at[i].end && spans->at[i].from < end)
            return true;
    return false;
}

void pages_read(struct file *file, uint64_t offset, size_t size)
{
    spans_add(&file->read, offset, offset + size);
}

void pages_written(struct file *file, struct overlay_layer *layer, uint64_t offset,
                   size_t size, bool past)
{
    if (past || spans_meet(&file->read, offset, offset + size))
        spans_add(&layer->overtaken, offset, offset + size);
    file->read.count = 0;
}
