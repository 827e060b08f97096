/*
 * pending.c - names that only this host knows: files opened with O_CREAT|O_TRUNC whose
 * name, inode and value are to be made by one operation, so that no other host meets them
 * empty.
 */
#include "mount_internal.h"

#include <time.h>

struct pending *pending_find(struct fs_mount *m, uint64_t parent, const void *name,
                             size_t name_size)
{
    struct pending *p = m->pendings;
    while (p && (p->parent != parent || p->name_size != name_size ||
                 memcmp(p->name, name, name_size)))
        p = p->next;
    return p;
}

struct pending *pending_in(struct fs_mount *m, uint64_t parent)
{
    struct pending *p = m->pendings;
    while (p && p->parent != parent)
        p = p->next;
    return p;
}

int pending_new(struct fs_mount *m, uint64_t inode, uint64_t parent, const char *name,
                mode_t mode, uid_t uid, gid_t gid, struct file **ret)
{
    struct pending *p = calloc(1, sizeof(*p));
    struct file *file = p ? file_get(m, inode) : NULL;
    if (!file) {
        free(p);
        return -ENOMEM;
    }
    p->file = file;
    p->parent = parent;
    p->name_size = (uint16_t)strlen(name);
    memcpy(p->name, name, p->name_size);
    p->mode = S_IFREG | (mode & 07777);
    p->uid = uid;
    p->gid = gid;
    p->atime_ns = p->mtime_ns = p->ctime_ns = now_ns();
    p->next = m->pendings;
    p->at = &m->pendings;
    if (p->next)
        p->next->at = &p->next;
    m->pendings = p;
    file->pending = p;
    *ret = file;
    return 0;
}

void pending_end(struct file *file)
{
    struct pending *p = file->pending;
    *p->at = p->next;
    if (p->next)
        p->next->at = p->at;
    file->pending = NULL;
    free(p);
}

void pending_attributes(const struct file *file, struct stat *ret)
{
    const struct pending *p = file->pending;
    uint64_t size = overlay_size(&file->overlay, 0);
    *ret = (struct stat){
        .st_ino = file->inode,
        .st_mode = p->mode,
        .st_nlink = 1,
        .st_uid = p->uid,
        .st_gid = p->gid,
        .st_size = (off_t)size,
        .st_blksize = 4096,
        .st_blocks = (blkcnt_t)((overlay_stored(&file->overlay, 0, size) + 511) / 512),
        .st_atim = ns_timespec(p->atime_ns),
        .st_mtim = ns_timespec(p->mtime_ns),
        .st_ctim = ns_timespec(p->ctime_ns),
    };
}

void pending_set(struct pending *p, const struct overlay_attributes *a)
{
    p->ctime_ns = now_ns();
    if (a->set & FS_SET_NO_SETID)
        p->mode = fs_mode_without_setid(p->mode);
    if (a->set & FS_SET_MODE)
        p->mode = (p->mode & S_IFMT) | (a->mode & 07777);
    if (a->set & FS_SET_UID)
        p->uid = a->uid;
    if (a->set & FS_SET_GID)
        p->gid = a->gid;
    if (a->set & (FS_SET_ATIME | FS_SET_ATIME_NOW)) {
        p->atime_ns = a->set & FS_SET_ATIME ? a->atime_ns : p->ctime_ns;
        p->set |= FS_SET_ATIME;
    }
    if (a->set & (FS_SET_MTIME | FS_SET_MTIME_NOW)) {
        p->mtime_ns = a->set & FS_SET_MTIME ? a->mtime_ns : p->ctime_ns;
        p->set |= FS_SET_MTIME;
    }
}

void pending_op(const struct pending *p, struct fs_op *op)
{
    *op = (struct fs_op){
        .type = FS_MAKE,
        .flags = FS_OVER,
        .set = p->set | FS_SET_WRITTEN,
        .inode = p->file->inode,
        .parent = p->parent,
        .name = p->name,
        .name_size = p->name_size,
        .mode = p->mode,
        .uid = p->uid,
        .gid = p->gid,
        .atime_ns = p->atime_ns,
        .mtime_ns = p->mtime_ns,
        .written_ns = p->mtime_ns,
        .changed_ns = p->ctime_ns,
    };
}
