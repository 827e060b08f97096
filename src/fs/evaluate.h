/*
 * evaluate.h - private: what the families of operations share.
 *
 * An evaluation collects the inodes it changes and puts each once, at its end (G2);
 * names, extents and P records are put as they come, each key in one place of the code
 * only.
 */
#ifndef TIERCE_FS_EVALUATE_H
#define TIERCE_FS_EVALUATE_H

#include "extent.h"

enum {
    EVAL_INODES = 4,              /* two parents, the subject, and whom it replaces */
    DROP_EXTENTS = 16,            /* deleted with the name; more: FS_RECLAIM's */
    RECLAIM_EXTENTS = 1024,       /* deleted by one FS_RECLAIM, or one truncation */
    RECLAIM_SCAN = 8192,          /* looked at by one FS_RECLAIM */
    ABANDON_CONTENTS = 1024,      /* marked by one FS_ABANDON */
    ABANDON_LOCKS = LIMIT_OF(256, 2), /* inodes seen to by one FS_ABANDON of locks, */
    ABANDON_LOCKS_BYTES = 1 << 20, /* ... as long as they take no more than this */
    WALK_OWNERS = 1024,           /* looked at for a deadlock, */
    WALK_SESSIONS = 256,          /* ... theirs, */
    WALK_LOCKERS = 16384,         /* ... W records of these together, */
    WALK_INODES = 256,            /* ... L records, */
    WALK_STEPS = 1 << 18,         /* ... and locks, each as often as it was */
    RESERVE_INODES = 65536,       /* given by one FS_RESERVE */
    COPY_SLOTS = LIMIT_OF(16, 1), /* written by one FS_COPY */
    ORPHANS_SCAN = 1024,          /* O records looked at by one FS_RECLAIM of orphans */
    /* No orphan more is deleted in an entry that has so many records: with as many again
     * for the last one. */
    ORPHANS_RECORDS = LIMIT_ENTRY_RECORDS / 2,
    PARENTS_WALKED = 1 << 16,
    CONTENT_VALUE_BYTES = 16,
    LOCKER_VALUE_BYTES = 8,
};

_Static_assert((uint64_t)FS_OP_SLOTS *SLOT_GRAINS + RECLAIM_EXTENTS + 64 <=
                   LIMIT_ENTRY_RECORDS,
               "a write and a truncation fit an entry");
_Static_assert((size_t)RECLAIM_EXTENTS >= TRIM_UNIT_EXTENTS,
               "a trim unit goes in one entry");
_Static_assert((FS_OP_SLOTS + 1) * (uint64_t)(SLOT_BYTES + 1024) +
                       RECLAIM_EXTENTS * (uint64_t)64 + 16 * 1024 <
                   LIMIT_ENTRY_BYTES,
               "so do their bytes");

/* A P record: session u64 | more u64, as README lists its kinds. */
enum content_record {
    CONTENT_UNRECORDED, /* an inode's, whole */
    CONTENT_BUILDING,   /* session, stored bytes */
    CONTENT_TRIMMED,    /* 0, inode: has void extents */
    CONTENT_DROPPED,    /* 0, 0: nobody's */
};

/* The content that an operation writes to. */
struct content {
    uint64_t id;
    uint64_t bytes;             /* stored, void ones included */
    struct buf trims;           /* encoded */
    enum content_record record; /* as it stands in the view */
};

struct eval_inode {
    struct fs_inode inode;
    struct buf value; /* what it was parsed from */
    bool dirty, gone;
};

struct eval {
    const struct fs_view *view;
    const struct fs_op *op;
    struct fs_change *change;
    struct fs_result result;
    int64_t now_ns;
    struct eval_inode inodes[EVAL_INODES];
    unsigned inode_count;
    struct content content;
    struct buf inline_bytes; /* new inline content of the subject */
    struct buf scratch;
    uint8_t *slot_bytes; /* SLOT_BYTES, made when first needed */
};

/* ---- evaluate.c: the collected inodes, records ---- */

/* The timestamp that the next record gets. */
uint64_t eval_next(const struct eval *e);
void eval_put(struct eval *e, const struct fs_key *key, const void *value, size_t size);
void eval_delete(struct eval *e, const struct fs_key *key);
/* The same pointer for the same number. -ENOENT. */
int eval_inode(struct eval *e, uint64_t number, struct eval_inode **ret);
/* One that a name leads to: its absence is damage (-EIO). */
int eval_named_inode(struct eval *e, uint64_t number, struct eval_inode **ret);
/* -ENOENT, -ENOTDIR. */
int eval_directory(struct eval *e, uint64_t number, struct eval_inode **ret);
int eval_name_check(const uint8_t *name, size_t size);
void eval_put_name(struct eval *e, uint64_t parent, const uint8_t *name, size_t size,
                   uint64_t inode, uint32_t mode);
void eval_delete_name(struct eval *e, uint64_t parent, const uint8_t *name, size_t size);
void eval_put_inode(struct eval *e, const struct fs_inode *inode);
/* Now, as the time of a change of this inode: later than the one before (M23). */
int64_t eval_now(const struct eval *e, const struct fs_inode *inode);
/* The mtime of an inode whose bytes change; before eval_set(). */
int64_t eval_written(const struct eval *e, const struct fs_inode *inode);
/* What the writer said as a time of this inode, where it can be one; else now. */
int64_t eval_said(const struct eval *e, const struct fs_inode *inode, int64_t said_ns);
/* mtime and ctime are now: of a directory whose names changed. */
void eval_touch(struct eval *e, struct eval_inode *i);
/* ctime is now. */
void eval_change(struct eval *e, struct eval_inode *i);

/* ---- evaluate_attr.c ---- */

/* The attributes of op->set but the size, and ctime. */
void eval_set(struct eval *e, struct fs_inode *inode);

/* ---- evaluate_remove.c ---- */

/* One name less leads to it. With the last it is an orphan (nlink 0), or, where no session
 * lives that could hold it, gone. */
int eval_unlink(struct eval *e, struct eval_inode *i);

/* ---- evaluate_acl.c ---- */

/* XATTR of an ACL: the mode changes with it. */
int acl_set(struct eval *e, struct eval_inode *i);
/* op->set has changed the mode: the access ACL, if there is one, says the same from now on. */
int acl_follow_mode(struct eval *e, const struct fs_inode *inode);
/* What is made gets of its directory's default ACL; {0} is valid, and nothing. */
struct acl_made {
    struct buf given, access;
};
/* Before the inode is put: its mode is what the ACL, or else the umask, leaves of it. */
int acl_begin(struct eval *e, struct fs_inode *inode, struct acl_made *ret);
/* After it: puts its ACLs. */
void acl_end(struct eval *e, const struct fs_inode *inode, const struct acl_made *made);
void acl_release(struct acl_made *made);

/* ---- evaluate_xattr.c ---- */

/* -ENOSPC: it has as many attributes as may be. */
int xattr_room(struct eval *e, uint64_t inode);

/* Deletes all extended attributes of an inode that goes. */
int xattrs_drop(struct eval *e, uint64_t inode);
/* What a write, another size and another owner take away: security.capability. */
int xattr_drop_privileges(struct eval *e, uint64_t inode);
/* ---- evaluate_orphan.c ---- */

/* Names the living sessions as who may hold it; `gone` where there is none. */
int eval_orphan(struct eval *e, struct eval_inode *i);
/* Deletes all that an inode has but its record. */
int eval_empty(struct eval *e, const struct fs_inode *inode);
int eval_reclaim_orphans(struct eval *e);
/* ---- evaluate_lock.c ---- */

/* The inode goes, and what locks of it are left. */
int eval_drop_locks(struct eval *e, uint64_t inode);
/* A batch of a session's locks; 1: there are more. */
int eval_abandon_locks(struct eval *e, uint64_t session, uint64_t *ret_count);
/* The W records of a session. */
int eval_scan_lockers(struct eval *e, uint64_t session,
                      int (*each)(void *arg, const struct fs_item *item), void *arg);
/* ---- evaluate_deadlock.c ---- */

/* Whether who waits for `wanted` would, in the end, wait for itself. Further than the bounds
 * reach nobody looks. 1, 0, or an error of the view. */
int eval_is_deadlock(struct eval *e, const struct fs_locks *locks,
                     const struct fs_lock *wanted);

/* ---- evaluate_write.c ---- */

int eval_regular(const struct fs_inode *inode); /* -EISDIR, -EINVAL */
/* Gives a regular file the value that op's content, ranges and size say; the content it
 * had is dropped. eval_settle must follow. */
int eval_value(struct eval *e, struct fs_inode *inode);
/* op->size for an inode; eval_settle must follow. */
int eval_resize(struct eval *e, struct fs_inode *inode);
/* Zeros in [from, end), with ranges over them, for an inode, which then has `size`;
 * eval_settle must follow. *ret_end: how far it came; all the way where there are ranges,
 * which touch COPY_SLOTS at most. */
int eval_zero(struct eval *e, struct fs_inode *inode, uint64_t from, uint64_t end,
              const struct buf *ranges, uint64_t size, uint64_t *ret_end);
/* Puts or deletes the P record of the content written to. */
void eval_settle(struct eval *e, uint64_t inode);

/* ---- content.c: e->content ---- */

#define CONTENT_UNCUT UINT64_MAX

/* Writes `base` at 0, then ranges over it, and removes all from `cut` on. */
int content_write(struct eval *e, const uint8_t *base, size_t base_size,
                  const uint8_t *ranges, size_t ranges_size, uint64_t cut);
/* Zeros in [from, end), with ranges within over them. */
int content_overwrite(struct eval *e, uint64_t from, uint64_t end, const uint8_t *ranges,
                      size_t ranges_size);
/* Deletes what is in [from, end): RECLAIM_EXTENTS at most, up to *ret_end. */
int content_punch(struct eval *e, uint64_t from, uint64_t end, uint64_t *ret_end);
/* Deletes all extents of a content that nobody refers to any more, or leaves that to
 * FS_RECLAIM. `recorded`: it has a P record. */
int content_drop(struct eval *e, uint64_t content, bool recorded);
int content_record_get(struct eval *e, uint64_t content, enum content_record *ret,
                       uint64_t *ret_session, uint64_t *ret_more);
bool content_value_read(const uint8_t *value, size_t size, enum content_record *ret,
                        uint64_t *ret_session, uint64_t *ret_more);
void content_record_put(struct eval *e, uint64_t content, uint64_t session,
                        uint64_t more);

/* ---- the families ---- */

int evaluate_make(struct eval *e);
int evaluate_link(struct eval *e);
int evaluate_unlink(struct eval *e);
int evaluate_rmdir(struct eval *e);
int evaluate_rename(struct eval *e);
int evaluate_setattr(struct eval *e);
int evaluate_write(struct eval *e);
int evaluate_replace(struct eval *e);
int evaluate_build(struct eval *e);
int evaluate_reserve(struct eval *e);
int evaluate_reclaim(struct eval *e);
int evaluate_abandon(struct eval *e);
int evaluate_xattr(struct eval *e);
int evaluate_zero(struct eval *e);
int evaluate_copy(struct eval *e);
int evaluate_release(struct eval *e);
int evaluate_lock(struct eval *e);
int evaluate_unlock(struct eval *e);

#endif
