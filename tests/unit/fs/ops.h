/* ops.h - operations in one line each, on a struct memory, by session OPS_SESSION. */
#ifndef TIERCE_TEST_OPS_H
#define TIERCE_TEST_OPS_H

#include "memory_view.h"

enum { OPS_SESSION = 5 };

int op_make(struct memory *m, uint64_t parent, const char *name, uint32_t mode,
            uint64_t *ret_inode);
int op_symlink(struct memory *m, uint64_t parent, const char *name, const char *target,
               uint64_t *ret_inode);
int op_unlink(struct memory *m, uint64_t parent, const char *name);
int op_rmdir(struct memory *m, uint64_t parent, const char *name);
int op_link(struct memory *m, uint64_t inode, uint64_t parent, const char *name);
int op_rename(struct memory *m, uint64_t parent, const char *name, uint64_t parent2,
              const char *name2, uint32_t flags);
/* FS_XATTR_* in flags. */
int op_xattr(struct memory *m, uint64_t inode, const char *name, const void *value,
             size_t size, uint32_t flags);
int op_write(struct memory *m, uint64_t inode, uint64_t offset, const void *data,
             size_t length);
int op_append(struct memory *m, uint64_t inode, const void *data, size_t length,
              uint64_t *ret_end);
int op_truncate(struct memory *m, uint64_t inode, uint64_t size);
/* In as many operations as it takes; *ret_steps (may be NULL): so many. */
int op_zero(struct memory *m, uint64_t inode, uint32_t flags, uint64_t offset,
            uint64_t size, unsigned *ret_steps);
/* *ret_size: how many bytes there were. */
int op_copy(struct memory *m, uint64_t source, uint64_t source_offset, uint64_t inode,
            uint64_t offset, uint64_t size, uint64_t *ret_size);
/* `data` at `offset` over `content` (0: over nothing), `size` in all. */
int op_replace(struct memory *m, uint64_t inode, uint64_t content, uint64_t offset,
               const void *data, size_t length, uint64_t size);
int op_build(struct memory *m, uint64_t *content, uint64_t offset, const void *data,
             size_t length);
bool op_reclaim(struct memory *m); /* whether there was something to do */
/* A session begins, or ends: without the node that keeps it, its record alone. */
void op_session(struct memory *m, uint64_t session, bool lives);
/* `session` does not hold these; how many were seen to, or a negative errno. */
int op_release(struct memory *m, uint64_t session, const uint64_t *inodes, size_t count);
/* Orphans from one on that no living session holds: where to go on, 0: all is seen to. */
uint64_t op_reclaim_orphans(struct memory *m, uint64_t from);
int op_stat(struct memory *m, uint64_t inode, struct fs_inode *ret); /* no inline bytes */

#endif
