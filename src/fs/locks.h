/*
 * locks.h - private: changes of one inode's locks. All in memory, and nothing fails but for
 * want of memory at the beginning (locks_open).
 */
#ifndef TIERCE_FS_LOCKS_H
#define TIERCE_FS_LOCKS_H

#include "fs.h"

/* `ret` gets the locks of an L record (length 0: none), and room for one change. */
int locks_open(const void *data, size_t length, struct fs_locks *ret);
void locks_encode(const struct fs_locks *locks, struct buf *to);
bool lock_is_of(const struct fs_lock *lock, const struct fs_lock *owner);
/* The owner has a lock of this kind already: nobody who waits holds it back. */
bool locks_is_holder(const struct fs_locks *locks, const struct fs_lock *owner);
/* `lock` is held from now on, in place of what its owner had in its range. */
void locks_hold(struct fs_locks *locks, struct fs_lock lock, uint64_t now_us);
void locks_queue(struct fs_locks *locks, struct fs_lock lock, uint64_t now_us);
/* What the owner of `lock` holds in its range goes. Whether there was something. */
bool locks_cut(struct fs_locks *locks, const struct fs_lock *lock);
/* The request of this session that waits under a ticket goes. Whether there was one. */
bool locks_cancel(struct fs_locks *locks, uint64_t session, uint64_t ticket);
bool locks_drop_session(struct fs_locks *locks, uint64_t session);
/* Who has waited, and need not any more, holds. */
void locks_grant(struct fs_locks *locks, uint64_t now_us);

#endif
