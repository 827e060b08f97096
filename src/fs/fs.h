/*
 * fs.h - the namespace: files and directories as keys, operations that change them, and the
 * mount that shows them.
 *
 * Three parts, in the order in which a change walks through them:
 *   the mount      (FUSE; the only files that include a FUSE header) turns kernel requests
 *                  into reads of a view and into operations, and replies exactly once;
 *   operations     are bytes that travel to the leader;
 *   evaluation     turns (view, operation) into records and a small result, or an errno. It
 *                  is a pure function, done once, on the leader (DESIGN section 5).
 *
 * Identities. An *inode* number names a file for ever; it is a timestamp of the log, so it is
 * never used twice. The root is 1. A *content id* names the extents of one value of a file,
 * likewise a timestamp; replacing a value makes a new one. A *name* is (parent inode, bytes).
 *
 * Errors are negative errno. Threads are said per part.
 */
#ifndef TIERCE_FS_H
#define TIERCE_FS_H

#include "base.h"

/* ---- Keys ---------------------------------------------------------------------------- */

enum fs_class {
    FS_CLASS_NAME = 'D',    /* parent, name -> inode u64, type u8 (DT_*) */
    FS_CLASS_INODE = 'I',   /* inode -> attributes and small content */
    FS_CLASS_EXTENT = 'B',  /* content id, offset -> bytes, at most LIMIT_EXTENT_BYTES */
    FS_CLASS_CONTENT = 'P', /* content id -> session that builds it; 0: to be reclaimed (or
                               trimmed, README E6) */
    FS_CLASS_XATTR = 'X',   /* inode, name -> the value of an extended attribute */
    FS_CLASS_ORPHAN = 'O',  /* inode without a name, session that may hold it -> nothing */
    FS_CLASS_LOCKS = 'L',   /* inode -> who holds locks of it, and who waits (locks.c) */
    FS_CLASS_LOCKER = 'W',  /* session, inode -> its locks there: how many wait u64 */
    FS_CLASS_SESSION = 'S', /* session; kept by node */
    FS_CLASS_CLUSTER = 'C', /* kept by node */
};

enum { FS_ROOT_INODE = 1 };

struct fs_key {
    uint32_t size;
    uint8_t bytes[LIMIT_KEY_BYTES];
};

void fs_key_name(struct fs_key *key, uint64_t parent, const void *name, size_t name_size);
void fs_key_inode(struct fs_key *key, uint64_t inode);
void fs_key_extent(struct fs_key *key, uint64_t content, uint64_t offset);
void fs_key_content(struct fs_key *key, uint64_t content);
void fs_key_xattr(struct fs_key *key, uint64_t inode, const void *name, size_t name_size);
void fs_key_orphan(struct fs_key *key, uint64_t inode, uint64_t session);
/* False: another key. */
bool fs_key_is_orphan(const void *key, size_t key_size, uint64_t *ret_inode,
                      uint64_t *ret_session);
void fs_key_locks(struct fs_key *key, uint64_t inode);
void fs_key_locker(struct fs_key *key, uint64_t session, uint64_t inode);

/* ---- The view: what this folder knows of a store ---------------------------------------- */

struct fs_item {
    const uint8_t *key;
    uint32_t key_size;
    const uint8_t *value; /* NULL where the value is not at hand (over 16 bytes) */
    uint32_t value_size;
    uint64_t timestamp_us;
};

struct fs_view {
    void *context;
    /* Appends the value to `to`. -ENOENT; -EAGAIN: would wait for the disk, and this view
     * never waits (the evaluation is abandoned with -EAGAIN and done anew later). */
    int (*get)(void *context, const void *key, size_t key_size, struct buf *to,
               uint64_t *ret_timestamp);
    /* Keys in [from, to), in order; a non-zero return of `each` ends it and is returned.
     * `each` must not call the view. */
    int (*scan)(void *context, const void *from, size_t from_size, const void *to,
                size_t to_size, int (*each)(void *arg, const struct fs_item *item),
                void *arg);
    /* A consistent look at several keys: NULL where nothing changes underneath. `retry` is
     * true if an entry was being applied at `begin`, or has been (in part) since. */
    uint64_t (*begin)(void *context);
    bool (*retry)(void *context, uint64_t begun);
};

/* ---- Inodes ------------------------------------------------------------------------------- */

enum fs_content_kind {
    FS_CONTENT_INLINE = 0,  /* regular: the bytes follow; symlink: the target */
    FS_CONTENT_EXTENTS = 1, /* regular: a content id */
    FS_CONTENT_NONE = 2,    /* directories and special files */
};

struct fs_inode {
    uint64_t inode;
    uint32_t mode; /* type and permissions, as st_mode */
    uint32_t nlink; /* 0: an orphan, held by the sessions that its O records name (S8) */
    uint32_t uid, gid;
    uint32_t rdev;
    uint64_t size;   /* of a directory: its number of names */
    uint64_t parent; /* of a directory */
    int64_t atime_ns, mtime_ns, ctime_ns; /* since 1970 */
    uint64_t version; /* timestamp of the record it was read from */
    enum fs_content_kind kind;
    uint64_t content;            /* EXTENTS */
    uint64_t content_bytes;      /* EXTENTS: stored bytes, for st_blocks */
    const uint8_t *trims;        /* EXTENTS: encoded; which extents are void (README E6) */
    uint32_t trim_count;
    const uint8_t *inline_bytes; /* INLINE: `size` bytes, in the value it was parsed from */
};

/* As a write by who is not privileged leaves a file's mode. */
uint32_t fs_mode_without_setid(uint32_t mode);
void fs_inode_encode(const struct fs_inode *inode, struct buf *to);
/* `ret` points into `data`. -EBADMSG. */
int fs_inode_decode(uint64_t number, uint64_t version, const void *data, size_t length,
                    struct fs_inode *ret);

/* ---- Locks ------------------------------------------------------------------------------------ */

enum fs_lock_kind {
    FS_LOCK_FCNTL = 0, /* ranges, of a process or of an open file (OFD) */
    FS_LOCK_FLOCK = 1, /* all of a file, of an open file */
};

struct fs_lock {
    uint64_t session; /* of the mount it came through */
    uint64_t owner;   /* whom that host's kernel takes for one owner */
    uint32_t pid;     /* who asked, there */
    uint8_t kind;     /* of enum fs_lock_kind: those of one do not know of the other's */
    bool writes;      /* it excludes all others, not only those who write */
    bool waits;       /* it is not held yet */
    uint64_t start, end; /* first and last byte */
    uint64_t ticket;     /* the session's number of a request that waits, or has waited */
    uint64_t since_us;   /* that it is held, or waits */
};

enum {
    FS_LOCKS_MOST = LIMIT_OF(1024, 24), /* of one inode, held or waited for: -ENOLCK */
    FS_LOCK_BYTES = 54,                 /* as one stands in an L record */
};
#define FS_LOCK_END ((uint64_t)INT64_MAX) /* of a range that has no end */

/* Of one inode: what is held in any order, then who waits, in the order of their coming. */
struct fs_locks {
    struct fs_lock *at;
    size_t held, count;
    size_t room; /* kept by locks.c */
};

void fs_locks_release(struct fs_locks *locks);
/* -EBADMSG, -ENOMEM. */
int fs_locks_decode(const void *data, size_t length, struct fs_locks *ret);
/* Those of an inode; none is no error. */
int fs_locks_read(const struct fs_view *view, uint64_t inode, struct fs_locks *ret);
/* Whether the two, of one inode, cannot both be held. */
bool fs_lock_conflicts(const struct fs_lock *a, const struct fs_lock *b);
/* Who keeps `wanted` from being held now; NULL: nobody. */
const struct fs_lock *fs_locks_blocker(const struct fs_locks *locks,
                                       const struct fs_lock *wanted);

/* ---- Operations ------------------------------------------------------------------------------ */

enum fs_op_type {
    FS_MAKE = 1,   /* a name and an inode of any type; with FS_OVER, "open for a new value" */
    FS_UNLINK = 2, /* parent, name */
    FS_RMDIR = 3,
    FS_RENAME = 4,  /* parent, name -> parent2, name2; flags FS_NOREPLACE or FS_EXCHANGE */
    FS_SETATTR = 5, /* inode, set; FS_SET_SIZE truncates or extends */
    FS_WRITE = 6,   /* inode, ranges (offset ignored with FS_APPEND), set */
    FS_REPLACE = 7, /* inode gets `content` (0: none yet) with ranges applied, of `size` */
    FS_BUILD = 8,   /* content (0: a new one) gets ranges, unseen; result: content id */
    FS_RESERVE = 9, /* `size` fresh inode numbers; result: the first */
    FS_RECLAIM = 10, /* deletes some extents nobody refers to; with `inode`: orphans from
                        that one on that no living session holds. Nothing to do: no entry */
    FS_ABANDON = 11, /* content in progress of session `content` is to be reclaimed (S7) */
    FS_LINK = 12,    /* inode gets one name more: parent, name */
    FS_XATTR = 13,   /* inode, name, value: an extended attribute; flags FS_XATTR_* */
    FS_ZERO = 14, /* inode, offset, size: bytes from there on there is to be room for, or with
                     FS_PUNCH zeros; some of them, where they are many */
    FS_COPY = 15, /* inode, offset, size: bytes of `source`, from source_offset on; some */
    FS_LOCK = 16,    /* inode, lock; flag FS_LOCK_WAITS: it is queued where it must wait */
    FS_UNLOCK = 17,  /* inode, lock: its owner's in its range or, with a ticket, the request
                        that waits under it */
    FS_RELEASE = 18, /* this session does not hold these orphans: `inodes` (S8) */
};

enum {
    FS_LINKS_MOST = LIMIT_OF(65000, 4), /* names of one file: -EMLINK beyond */
    FS_RELEASE_MOST = LIMIT_OF(1024, 4), /* inodes of one RELEASE */
    FS_WRITTEN_BEHIND_S = 24 * 3600,    /* FS_SET_WRITTEN: beyond, it is as if not said */
    FS_WRITTEN_AHEAD_S = 60,
    FS_XATTRS_MOST = 256,               /* of one inode: -ENOSPC beyond */
    FS_XATTR_BYTES = 64 << 10,          /* of a value: -E2BIG beyond */
    FS_XATTR_LIST_BYTES = 64 << 10,     /* of all names of an inode, as listxattr(2) can give */
};
_Static_assert((size_t)FS_XATTRS_MOST * (LIMIT_NAME_BYTES + 1) <= FS_XATTR_LIST_BYTES,
               "all names of an inode can be listed");

enum fs_op_flags {
    FS_OVER = 1,      /* MAKE: an existing regular file gets the new value instead */
    FS_NOREPLACE = 2, /* RENAME */
    FS_APPEND = 4,    /* WRITE: at the end, decided here (one range) */
    FS_PARENTS = 8,   /* unused by evaluation; reserved */
    FS_XATTR_CREATE = 16,  /* XATTR: it must not be there yet */
    FS_XATTR_REPLACE = 32, /* XATTR: it must be there */
    FS_XATTR_REMOVE = 64,  /* XATTR: it must be there, and goes */
    FS_EXCHANGE = 128, /* RENAME: both names exist, and change places */
    FS_KEEP_SIZE = 512, /* ZERO: the file is not made longer */
    FS_PUNCH = 1024,    /* ZERO: what was there is zeros, and takes no room */
    FS_UMASK = 4096,   /* MAKE: `umask` counts, where the directory has no default ACL */
    FS_XATTR_NO_SETGID = 8192, /* XATTR, an access ACL: of who may not keep set-group-id */
    FS_LOCK_WAITS = 2048,   /* LOCK */
    FS_LOCKS_ALONE = 16384, /* ABANDON: of the session's locks, not of its content */
};

enum fs_lock_outcome { /* LOCK: its result's value */
    FS_LOCK_GRANTED = 0,
    FS_LOCK_QUEUED = 1,
    FS_LOCK_REFUSED = 2, /* another has it, and it was not to wait: EAGAIN */
};

enum fs_set { /* which attributes an operation sets besides; also of FS_MAKE (times) */
    FS_SET_MODE = 1,
    FS_SET_UID = 2,
    FS_SET_GID = 4,
    FS_SET_SIZE = 8,
    FS_SET_ATIME = 16,
    FS_SET_MTIME = 32,
    FS_SET_ATIME_NOW = 64,
    FS_SET_MTIME_NOW = 128,
    FS_SET_NO_SETID = 256, /* drops set-user-id, and set-group-id where the group may execute */
    /* What the writer was shown (M23): `written_ns` stands in for now as mtime, `changed_ns` as
     * ctime; of a new file atime_ns too. */
    FS_SET_WRITTEN = 512,
};

struct fs_op {
    enum fs_op_type type;
    uint32_t flags, set;
    uint64_t inode;  /* subject; MAKE: the reserved number (0: the leader chooses); parent of
                        UNLINK, RMDIR, RENAME is `parent` */
    uint64_t parent, parent2;
    const uint8_t *name, *name2;
    uint16_t name_size, name2_size;
    uint32_t mode, uid, gid, rdev;
    uint64_t size;
    uint64_t content;
    uint64_t offset;                /* ZERO, COPY */
    uint64_t source, source_offset; /* COPY: an inode, and where in it */
    int64_t atime_ns, mtime_ns;
    int64_t written_ns, changed_ns; /* with FS_SET_WRITTEN */
    const uint8_t *target; /* MAKE of a symlink */
    uint16_t target_size;
    const uint8_t *value; /* XATTR */
    uint32_t value_size;
    uint32_t umask; /* with FS_UMASK */
    /* Encoded ranges: { offset u64, length u32, bytes }*, ascending, not overlapping. */
    const uint8_t *ranges;
    uint32_t ranges_size;
    /* RELEASE: u64 each, ascending. */
    const uint8_t *inodes;
    uint16_t inode_count;
    struct fs_lock lock; /* LOCK, UNLOCK; `session`, `waits` and `since_us` are not sent */
};

void fs_op_encode(const struct fs_op *op, struct buf *to);
/* `ret` points into `data`. -EPROTO unless every field is within its limits and they fill it
 * exactly. */
int fs_op_decode(const void *data, size_t length, struct fs_op *ret);
bool fs_op_known(uint32_t type);
/* Another subject for an encoded operation that has one. */
void fs_op_retarget(struct buf *op, uint64_t inode);
/* One range more, at the end of `ranges`. */
void fs_range_add(struct buf *ranges, uint64_t offset, const void *data, size_t length);
/* The next range of encoded ranges; false at the end. */
bool fs_range_next(struct reader *ranges, uint64_t *ret_offset, const uint8_t **ret_data,
                   uint32_t *ret_length);
/* How many slots (aligned LIMIT_EXTENT_BYTES of a file) these ranges touch: an entry emits at
 * most that many slots whole. More than FS_OP_SLOTS: evaluation answers -E2BIG. */
uint32_t fs_ranges_slots(const void *ranges, size_t ranges_size);

enum { FS_OP_SLOTS = LIMIT_OF(56, 1) }; /* 3.5 MiB of an entry's 4 (G2) */

/* ---- Evaluation: any thread, pure -------------------------------------------------------------- */

struct fs_result { /* travels in the entry record's 16 bytes */
    uint64_t value; /* MAKE: inode; BUILD: content id; WRITE: the end of what was written;
                       RESERVE: first number; UNLINK, RMDIR: the inode whose name went;
                       RENAME: the inode moved; LINK: the inode; LOCK: enum
                       fs_lock_outcome; UNLOCK: 1 where there was something; RECLAIM,
                       ABANDON: content ids (or inodes with locks) seen to; RECLAIM of
                       orphans: orphans seen to; RELEASE: how many of `inodes`, from the
                       first on, are seen to; ZERO: the offset up to which it is
                       done; COPY: how many bytes, 0 at the end of the source */
    uint64_t more;  /* MAKE: 1 where the name existed (FS_OVER); UNLINK: the names that are
                       left; RENAME: the inode that went with its last name, or 0; RECLAIM,
                       ABANDON: 1: call again; RECLAIM of orphans: where to go on, or 0;
                       WRITE: the new version of the inode where `content` was its last, or 0 */
};

/* Where evaluation puts its records. */
struct fs_change {
    void *context;
    /* Adds a record (value NULL: a tombstone) and returns its timestamp. A key is put once. */
    uint64_t (*put)(void *context, const void *key, size_t key_size, const void *value,
                    size_t value_size);
    uint64_t timestamp_us; /* of the entry: "now"; the n-th record gets timestamp_us + n */
    uint64_t session;      /* of the operation; recorded with content in progress, and
                              what RELEASE is of */
    uint64_t records;      /* put so far; kept by evaluation */
};

/* 0: the records were put (none: there was nothing to do); else an errno as the call of the
 * same name gives it, -EAGAIN from the view, -EPROTO; records put so far are void then. */
int fs_evaluate(const struct fs_view *view, const struct fs_op *op, struct fs_change *change,
                struct fs_result *ret);
/* The key by which operations of a session are kept in order (S3): the inode (or parent). */
uint64_t fs_op_subject(const struct fs_op *op);
/* The records of a new, empty name space: the root directory. */
void fs_format(struct fs_change *change);
void fs_result_encode(const struct fs_result *result, uint8_t to[16]);
void fs_result_decode(const uint8_t from[16], struct fs_result *ret);

/* ---- Reading: any thread ----------------------------------------------------------------------------- */

int fs_lookup(const struct fs_view *view, uint64_t parent, const void *name,
              size_t name_size, uint64_t *ret_inode); /* -ENOENT */
/* `scratch` gets the value that ret->inline_bytes points into. -ENOENT. */
int fs_stat(const struct fs_view *view, uint64_t inode, struct buf *scratch,
            struct fs_inode *ret);
/* Up to `length` bytes at `offset` of a regular file, one version of it (G10); holes are
 * zeros; *ret_length is short only at the end. */
int fs_read(const struct fs_view *view, uint64_t inode, uint64_t offset, size_t length,
            uint8_t *to, size_t *ret_length);
/* The same, and the inode's record of that version: `record` gets what ret->inline_bytes points
 * into. */
int fs_read_inode(const struct fs_view *view, uint64_t inode, uint64_t offset, size_t length,
                  uint8_t *to, size_t *ret_length, struct buf *record, struct fs_inode *ret);
/* The same of a content id that is not (or no longer) an inode's; beyond what is stored: zeros. */
int fs_read_content(const struct fs_view *view, uint64_t content, uint64_t offset,
                    size_t length, uint8_t *to);
/* The first stretch of a regular file, [*ret_start, *ret_end), that holds data and ends behind
 * `offset`: multiples of 4 KiB, the last of which may lie behind the file's end. What is in none
 * is zeros. -ENXIO: there is none. */
int fs_data(const struct fs_view *view, uint64_t inode, uint64_t offset, uint64_t *ret_start,
            uint64_t *ret_end);
int fs_data_content(const struct fs_view *view, uint64_t content, uint64_t offset,
                    uint64_t *ret_start, uint64_t *ret_end);
/* Names of a directory after `after` (size 0: from the start), in key order. A non-zero return
 * of `each` ends it and is returned. `each` must not call the view. */
int fs_list(const struct fs_view *view, uint64_t directory, const void *after,
            size_t after_size,
            int (*each)(void *arg, const uint8_t *name, size_t name_size, uint64_t inode,
                        uint8_t type),
            void *arg);
/* Appends the value of an extended attribute. -ENODATA: it has none of that name (or is
 * gone); -EOPNOTSUPP, -EINVAL: no attribute has such a name. */
int fs_xattr_get(const struct fs_view *view, uint64_t inode, const void *name,
                 size_t name_size, struct buf *to);
/* Appends the names of all, each with a NUL behind it. */
int fs_xattr_list(const struct fs_view *view, uint64_t inode, struct buf *to);
/* Walks an absolute or relative path from the root, not following symlinks, "." and ".."
 * refused (-EINVAL). On -ENOENT of the last part only, *ret_parent and *ret_name (into path)
 * are set and *ret_inode is 0, and the return is 0. */
int fs_resolve(const struct fs_view *view, const char *path, uint64_t *ret_parent,
               const char **ret_name, uint64_t *ret_inode);

/* A name that leads to an inode. */
struct fs_place {
    uint64_t inode;
    uint64_t parent;
    uint16_t name_size; /* 0: none was found */
    uint8_t name[LIMIT_NAME_BYTES];
};

/* Looks at all names there are: it takes its time, and may wait for the disk. `places` ascend
 * by their inodes, and get the rest. */
int fs_find_places(const struct fs_view *view, struct fs_place *places, size_t count);
/* Its path from the root; -ENOENT: there is none any more. */
int fs_place_path(const struct fs_view *view, const struct fs_place *place,
                  struct buf *to);

/* ---- The mount ------------------------------------------------------------------------------------------ */

/* An operation on its way. The mount owns it; the backend owns it from submit() until done(). */
struct fs_request {
    struct buf op;      /* encoded */
    uint64_t subject;   /* fs_op_subject */
    uint64_t session;   /* in which alone it may be committed, else -EIO; 0: in any. Before
                           done(): in which it was, 0: in none */
    int error;          /* set before done(): 0 or a negative errno */
    struct fs_result result;
    void (*done)(struct fs_request *request); /* on the loop */
    void *backend;                            /* the backend's own */
};

enum fs_text { FS_TEXT_STATUS, FS_TEXT_MEMBERS, FS_TEXT_METRICS, FS_TEXTS };

/* What the mount needs of a node. All may be called from any thread, and none waits. */
struct fs_backend {
    void *context;
    struct fs_view view; /* its get may wait for the disk */
    /* Commits the operation and applies it here (S5), then done(). While the node has no
     * majority: -EROFS after a grace, unless it was already on its way (K14). Operations of one
     * subject are committed in the order of their submission (S3). */
    void (*submit)(void *context, struct fs_request *request);
    /* Its caller was interrupted: done() soon, with -EINTR where the node thinks it right
     * (fatal: the caller is being killed; else only without quorum or after a second). */
    void (*interrupt)(void *context, struct fs_request *request, bool fatal);
    /* False: no majority is reachable at this moment, as far as the node knows. */
    bool (*writable)(void *context);
    /* False: what needs room would be refused with -ENOSPC, as far as the node knows. */
    bool (*has_room)(void *context);
    /* Nothing here holds the inode any more, which has lost its last name (S8). */
    void (*release)(void *context, uint64_t inode);
    /* A reserved inode number; 0: none at hand. */
    uint64_t (*take_inode)(void *context);
    /* The node's session, 0: none is open. *ret_sure: it certainly has not ended, as counted
     * from the last thing that was sent and is known to have arrived (S6). */
    uint64_t (*session)(void *context, bool *ret_sure);
    /* What the file says that is opened in `.tierce/` now. Unlike the others it may wait for
     * the loop. 0, or a negative errno. */
    int (*text)(void *context, enum fs_text which, struct buf *to);
    void (*space)(void *context, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes,
                  uint64_t *ret_keys);
    /* The kernel unmounted it (umount, fusermount3 -u), or fs_mount_stop did. */
    void (*unmounted)(void *context);
};

struct fs_mount;

struct fs_mount_options {
    const char *mountpoint;
    const char *options;  /* as after -o, may be NULL: those of mount(8), fstab and fuse */
    const char *source;   /* shown in /proc/mounts */
};

enum { FS_ERROR_BYTES = 512 };

/* Whether anything is mounted there (an absolute path without links), as far as this
 * process's mount namespace shows. Asks the mount table, and never the mount. */
bool fs_is_mounted(const char *mountpoint);
/* What a killed process leaves. To be called where the source (fs_mount_options.source) is no
 * other process's: unmounts what of it nobody serves any more; returns how many. */
unsigned fs_mounts_clean(const char *source);
/* The process that serves the source's mounts is being killed, but may never end: one of its
 * notifications waits in the kernel for a lock whose holder waits for the process (K9). Ends their
 * connections, so that it can. False: it lives. */
bool fs_mounts_release(const char *source, pid_t pid);
/* Checks the options and the mountpoint, mounts, and starts the workers. When it returns 0
 * requests are being served. `error` names what is wrong and the remedy: -ENOENT, -ENOTDIR
 * the mountpoint; -EINVAL an option; -EBUSY; -ENOTCONN a dead mount is in the way and could
 * not be replaced. */
int fs_mount_start(struct fs_mount **ret, const struct fs_mount_options *options,
                   const struct fs_backend *backend, char error[FS_ERROR_BYTES]);
/* Commits what is buffered (waits for done() of it: the loop must still run), unmounts, joins
 * the workers. Not on the loop. -EBUSY: files are open and `force` is false. */
int fs_mount_stop(struct fs_mount *m, bool force);
/* After stop, or after backend.unmounted(). */
void fs_mount_free(struct fs_mount *m);
/* The whole state was replaced by a later one (an install): what this mount has read of its
 * open files is void, and the kernel drops their pages. Any thread. */
void fs_mount_replaced(struct fs_mount *m);
/* An entry was applied that changes the locks of an inode. On the loop, or another thread. */
void fs_mount_locks_changed(struct fs_mount *m, uint64_t inode);
/* An entry was applied that took the last name of an inode away, and an O record names this
 * session: backend.release() follows when the kernel holds it no more, at once or later. `name`
 * in `parent` led to it (parent 0: not known); `own`: by an operation of this mount, so that
 * the kernel knows. Any thread. */
void fs_mount_orphaned(struct fs_mount *m, uint64_t inode, uint64_t parent,
                       const void *name, size_t size, bool own);
/* The same of a name of an inode that may have others: the kernel forgets it. */
void fs_mount_unnamed(struct fs_mount *m, uint64_t parent, const void *name, size_t size);
/* How full its queues are. Any thread; waits for nobody's I/O. */
enum {
    FS_CALLS_MOST = 16384,       /* requests that wait; more of them are not read */
    FS_BUFFERED_BYTES = 64 << 20, /* of all files; beyond, who writes waits for its commit */
    FS_BUFFERED_LEAST = 4096,    /* what a layer counts for at least */
    FS_DROPS_MOST = 1 << 20,     /* inodes the kernel is told of: each stands once */
    FS_NAMES_MOST = 1 << 16,     /* names it is told of; more are not: it finds out */
};
struct fs_mount_load {
    uint64_t calls, calls_most, calls_waits;
    uint64_t buffered, buffered_most, buffered_waits;
    uint64_t drops, drops_most;
    uint64_t names, names_most, names_lost;
};
void fs_mount_load(struct fs_mount *m, struct fs_mount_load *ret);
/* What "put" and the like changed behind the kernel's back needs no call here: nothing is
 * cached without asking (timeouts are 0). */

#endif
