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
