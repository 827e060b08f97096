/*
 * mount_internal.h - what the files of the mount share.
 *
 * Identities. A *file* is what this host knows of an inode beyond the committed state:
 * its open handles and its overlay. It exists only while there is something to know. A
 * *handle* is one open(2). A *call* is a kernel request that cannot be answered on the
 * spot: it owns the fuse_req_t until it is answered, once.
 *
 * Locks. One lock, fs_mount.lock, for all of it; it is never held over the view, a
 * notification or any other I/O, so that the loop (flight_done, call_done) may take it.
 * backend.submit and backend.interrupt are called with it held: neither waits, and
 * neither calls done() before it returns.
 *
 * A file's commits (S3): one *flight* at a time.
 *
 *   open layer --file_seal--> sealed --file_kick--> flying --flight_done--> popped
 *   open replace layer, full --file_kick--> build flying --flight_done--> open
 */
#ifndef TIERCE_FS_MOUNT_INTERNAL_H
#define TIERCE_FS_MOUNT_INTERNAL_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "fs.h"
#include "lookups.h"
#include "overlay.h"

/* Rounded up by the kernel to the next tick of its clock (4 ms at HZ 250). */
#define MOUNT_DIRECTORY_TIMEOUT_S 1e-6

enum {
    MOUNT_BUCKETS = 4096,
    MOUNT_WORKERS = 16,
    MOUNT_IDLE_WORKERS = 16,        /* all: making and ending threads costs more */
    MOUNT_WRITE_BYTES = 1 << 20,    /* of one WRITE request */
    MOUNT_BACKGROUND = 4096,        /* requests of the kernel's own, in flight */
    MOUNT_COMMIT_DELAY_US = 100000, /* from the first buffered byte */
    MOUNT_SHOWN_US = 1000000,       /* how long a layer's mtime stays while it is written to */
    MOUNT_LANDING_US = 20000,       /* a read waits so long for a commit that is landing */
    MOUNT_WATCH_US = 200000,        /* how often callers that wait are looked at (K14) */
    MOUNT_PAGES = 4096,             /* files whose pages' version is remembered */
    MOUNT_NAMES_AGAIN_US = 20000,   /* until a directory is looked at again that was in use */
    MOUNT_DETACHED_US = 3000000,    /* from an umount to the end of the session */
    MOUNT_SESSION_US = 1000000, /* how often it is made sure that the session of who holds
                                   locks is alive; what was not unlocked is tried again */
};

struct file;
struct fs_mount;

/* Whoever has locked through a handle, or has tried: RELEASE names nobody (K13). */
struct handle_lock {
    struct handle_lock *next;
    uint64_t owner;
    uint8_t kind;
};

struct handle {
    struct handle *next, **at; /* in file->handles */
    struct file *file;
    int flags;        /* of the open */
    uint64_t written; /* the layer it last wrote to; gone: committed, or truncated away */
    uint64_t first_written; /* the first one; 0: none */
    uint64_t truncated; /* the replace layer its O_TRUNC began */
    int error; /* of a commit nobody waited for: its next fsync or close says it */
    struct handle_lock *locks;
    uint64_t lock_session; /* of what was granted; 0: nothing was */
    bool lock_lost; /* the session of its locks may have ended: it is of no use any more */
};

enum drop_state {
    DROP_WAITS, /* for what was written before */
    DROP_SENT,
    DROP_FAILED, /* to be sent again */
};

/* To be unlocked, though nobody waits for that. */
struct lock_drop {
    struct lock_drop *next; /* in file->lock_drops, until it is done */
    struct file *file;
    struct fs_request request;
    struct fs_lock lock;
    enum drop_state state;
    uint64_t session;  /* 0: not known */
    uint64_t layer;    /* that one and those before it are committed first; 0: none */
    uint64_t progress; /* so is this one, a value in progress, if that comes ... */
    uint64_t until_us; /* ... by then */
    struct mount_call *waiting; /* its owner's calls, which want to lock again */
};

/* A name that only this host knows, until its value is committed with it. */
struct pending {
    struct pending *next, **at; /* in fs_mount.pendings */
    struct file *file;
    uint64_t parent;
    uint16_t name_size;
    uint8_t name[LIMIT_NAME_BYTES];
    uint32_t mode, uid, gid;
    uint32_t set; /* of the times: which were set by hand */
    int64_t atime_ns, mtime_ns, ctime_ns;
};

struct file {
    struct file *next; /* in its bucket */
    struct fs_mount *mount;
    uint64_t inode;
    struct handle *handles;
    struct overlay overlay;
    uint64_t generation;     /* changes whenever what is below the overlay may have */
    struct pending *pending; /* not made yet */
    struct file *alias;      /* made elsewhere first: that file is meant from now on */
    uint64_t aliases;        /* files that have this one as their alias */
    bool lost;               /* its making failed: there is nothing to write to */
    /* Of the kernel's pages (M17): the mtime they were told to be of, and the version of the
     * record since which only this host has written; 0: not known. */
    int64_t told_mtime_ns;
    uint64_t told_version;
    uint64_t flight_version; /* told_version when the flight began */
    struct spans read;       /* what was read since the last write came */
    struct file *timed_next;
    bool timed;
    uint64_t due_us;
    uint64_t version; /* while it is open: of its record as last seen; 0: not known */
    bool making;      /* its flight is in a section: it may bring another inode */
    unsigned section;
    bool flying;        /* `flight` is on its way, or about to be sent */
    bool flight_builds; /* it is a build, not a commit */
    struct overlay_layer *flight_layer;
    uint64_t flight_content;
    struct fs_request flight;
    struct file *send_next;
    struct mount_call *parked; /* writes that wait for the flight to end */
    uint64_t buffered;         /* as it counts in fs_mount.load */
    struct mount_call *lockers;   /* that wait for a lock of it */
    uint64_t locks_changed;       /* counts what was applied */
    struct lock_drop *lock_drops;
    uint64_t locked_version; /* the record's, when pages were dropped for a lock last */
};

/*
 * A request for a lock:
 *
 *   COMMIT --what is buffered is committed--> ASKED --refused, or failed--> answered
 *     LOOK <--granted, queued, or changed---- ASKED, PARKED
 *     LOOK --not granted yet--> PARKED --interrupted--> CANCEL --it was waiting--> EINTR
 *     LOOK --granted, pages dropped--> answered     CANCEL --granted meanwhile--> LOOK
 */
enum lock_step {
    LOCK_NONE, /* another request */
    LOCK_COMMIT,
    LOCK_ASKED,  /* its operation is on its way */
    LOCK_LOOK,   /* the notifier sees to it */
    LOCK_PARKED, /* in file->lockers */
    LOCK_CANCEL, /* the operation that takes it back is on its way */
};

/* What is left to do of a change of a stretch, in as many operations as it takes. */
struct mount_area {
    struct handle *target, *source; /* source: of a copy */
    uint64_t offset, end, source_offset;
    uint64_t done;      /* bytes copied */
    uint64_t layers[2]; /* of target and source: what was written here before */
    uint32_t flags, set;
    unsigned copies; /* operations done */
};

struct mount_call {
    struct mount_call *next, **at;             /* in the list of who waits for the same */
    struct mount_call *table_next, **table_at; /* in fs_mount.calls */
    struct fs_mount *mount;
    uint64_t id;
    fuse_req_t req;
    pid_t pid;
    uint64_t since_us;
    bool interrupted, fatal; /* noted before the operation was submitted */
    bool submitted;
    bool settled;     /* on its way to its answer: leave it alone */
    bool holds_pages; /* a WRITE: answered before pages are dropped, which waits for it
                         (K2) */
    struct file *waits_for; /* whose flight it waits for, NULL: its own operation's */
    void (*resume)(struct mount_call *call, int error); /* instead of the answer */
    void (*answer)(struct mount_call *call, int error); /* replies; then it is freed */
    struct fs_request request;
    struct handle *handle;
    struct fuse_file_info fi;
    struct stat attr;
    size_t size;
    bool in_section; /* its answer brings an inode */
    unsigned section;
    uint64_t subject;  /* the kernel's number of what the operation is about; 0: none */
    bool after_writes; /* what is buffered of the subject is committed first */
    struct mount_area area;
    struct fs_lock lock; /* LOCK, UNLOCK: what is wanted */
    enum lock_step lock_step;
    bool lock_waits; /* it may be queued */
    int lock_error;  /* of what it answers when the lock is gone */
    uint64_t lock_session; /* UNLOCK: in which it was locked */
    bool drops_setid;  /* an open with O_TRUNC, of who may not keep set-id bits */
    /* Names and directories the operation touches: what is pending there is made first.
     */
    struct {
        uint64_t parent;
        const char *name; /* NULL: any name in it */
    } touches[4];
    int touched;
    char names[2][LIMIT_NAME_BYTES + 1];
};

/* Pages the kernel must drop, and who is to be answered when it has. */
struct drop {
    struct drop *next;
    uint64_t inode;
    int error;
    struct spans spans; /* of it; none: all of them */
    struct mount_call *calls;
};

/* A name that leads nowhere any more, which the kernel is to forget. */
struct gone_name {
    struct gone_name *next;
    uint64_t parent, inode; /* inode 0: it has other names */
    char name[];
};

/* Orphans that are not decided yet (mount_orphans.c). */
struct undecided {
    unsigned sections[2]; /* open ones, of this epoch and of the one before */
    unsigned epoch;       /* 0 or 1 */
    struct buf young, old; /* inode u64 | parent u64 | name string, each */
};

/* The version that counted when the kernel last dropped its pages of an inode (0: none)
 * at an open. */
struct pages {
    uint64_t inode, version;
};

/* What -o says that everything here belongs to, and may be done with: shown to this
 * host's kernel, which checks permissions by it, and nowhere else. */
struct mount_shown {
    bool has_uid, has_gid, has_umask;
    bool no_acl; /* the kernel is told of no ACL, and asks for none */
    uint32_t uid, gid, umask;
};

struct fs_mount {
    struct fs_backend backend;
    struct mount_shown shown;
    struct fuse_session *session;
    char *mountpoint;
    dev_t device;
    int mount_id; /* of /proc/self/mountinfo */
    uint64_t init_unique; /* of INIT, until it is answered */
    bool tells_setid;     /* the kernel says who may keep set-id bits, and leaves them to us */
    bool io_ended;        /* nothing is written to the kernel any more ... */
    unsigned answers_kept; /* ... and so often was nothing */
    pthread_mutex_t lock;
    pthread_cond_t idle;  /* something was committed or answered */
    pthread_cond_t timer; /* for the committer */
    pthread_cond_t drops_changed;
    struct file *files[MOUNT_BUCKETS];
    struct mount_call *calls[MOUNT_BUCKETS];
    struct pending *pendings;
    struct text *texts; /* open files of `.tierce/` */
    struct lookups lookups;
    struct undecided undecided;
    struct gone_name *names, **names_end;
    pthread_cond_t names_changed;
    struct pages pages[MOUNT_PAGES];
    struct listing *listings; /* open directories */
    uint64_t next_layer, next_call, next_generation;
    size_t watch_at; /* of `calls`: the bucket to be watched next */
    struct fs_mount_load load;
    unsigned calls_waiting; /* workers that wait for `idle`: there are too many calls */
    uint64_t wakes_at_us;   /* when the committer looks next */
    struct file *timed_first, *timed_last;
    struct file *send_first, *send_last;
    struct drop *drops, **drops_end;
    bool dropping;     /* the notifier is at work */
    struct mount_call *lock_looks, **lock_looks_end; /* for the notifier */
    unsigned lock_drops;     /* of all files */
    unsigned lock_drops_out; /* on their way */
    unsigned lock_handles;   /* that have locks, or try */
    struct fs_request session_check;
    bool session_checking;
    uint64_t session_due_us; /* the next check, or retry */
    bool locks_ended;  /* nobody waits for one any more */
    unsigned flushing; /* who waits for `idle` */
    bool stopping;     /* committer and notifier are to end */
    bool ended;        /* the session has, and backend.unmounted() was called */
    bool session_started, helpers_started;
    pthread_t session_thread, committer_thread, notifier_thread, namer_thread;
};

/* ---- mount_file.c: files and handles; all with the lock held ---- */

struct file *file_find(struct fs_mount *m,
                       uint64_t inode); /* NULL; aliases are followed */
struct file *file_get(struct fs_mount *m, uint64_t inode); /* NULL: out of memory */
void file_put(struct file *file); /* frees it where nothing is left to know */
struct handle *handle_new(struct file *file, int flags);
void handle_free(struct handle *handle);
struct handle *handle_of(const struct fuse_file_info *fi);
void handle_wrote(struct handle *handle, uint64_t layer);
/* Something was buffered in the last layer: mtime and ctime are now. They are shown so and
 * committed so (M23), and stay for later writes to that layer (K16), for a while. */
void file_touch(struct file *file);
/* Made, but as another inode: handles, layers and waiting calls move there. */
void file_rebind(struct file *file, uint64_t inode);
void file_forget(struct fs_mount *m, uint64_t inode, uint64_t count);
/* What is committed may have changed by this host's doing: what was read before is void.
 */
void file_changed(struct file *file);
/* Its overlay has changed: counts what it holds. */
void file_count(struct file *file);
/* Whether so much is buffered here that who writes has to wait. */
bool mount_is_full(const struct fs_mount *m);
/* Its record was read in this generation. */
void file_saw(struct file *file, uint64_t version);
/* Whether anything is known of it by this very number. */
bool file_is_known(struct fs_mount *m, uint64_t inode);

/* ---- pending.c; with the lock held ---- */

struct pending *pending_find(struct fs_mount *m, uint64_t parent, const void *name,
                             size_t name_size);
struct pending *pending_in(struct fs_mount *m, uint64_t parent);
/* Begins a file that is not made yet. */
int pending_new(struct fs_mount *m, uint64_t inode, uint64_t parent, const char *name,
                mode_t mode, uid_t uid, gid_t gid, struct file **ret);
void pending_end(struct file *file); /* made, or failed */
void pending_attributes(const struct file *file, struct stat *ret);
void pending_set(struct pending *p, const struct overlay_attributes *attributes);
/* The operation that makes it, but for its ranges. */
void pending_op(const struct pending *p, struct fs_op *op);

/* ---- mount_orphans.c: what the kernel holds, and what has no name (S8, K15); with the lock
 * held ---- */

/* Who may give the kernel an inode's number does so in a section: from before it reads that
 * a name leads there until it has counted. */
unsigned section_begin(struct fs_mount *m);
void section_end(struct fs_mount *m, unsigned section);
/* The kernel is about to be given this number once more. */
void lookup_count(struct fs_mount *m, uint64_t inode);
bool lookup_is_held(struct fs_mount *m, uint64_t inode); /* the kernel holds the number */
/* Nothing is known of it any more but what the kernel holds: it may be let go. */
void orphan_settle(struct fs_mount *m, uint64_t inode);
void orphans_end(struct fs_mount *m); /* frees what there is */

/* ---- mount_pages.c; with the lock held ---- */

/* Whether an open of the kernel's number `inode` may let it keep the pages it has.
 * *ret_version: what counts now, for pages_begin(); 0: not known. */
bool pages_may_stay(struct fs_mount *m, const struct file *file, uint64_t inode,
                    uint64_t *ret_version);
/* After an open that did not: the kernel has dropped them all. */
void pages_begin(struct fs_mount *m, uint64_t inode, uint64_t version);
void pages_forget(struct fs_mount *m); /* of all files */
void spans_add(struct spans *spans, uint64_t from, uint64_t end);
/* A READ is answered with what is there now. */
void pages_read(struct file *file, uint64_t offset, size_t size);
/* A WRITE was taken into the layer, at the kernel's offset; not one of a mapping's pages.
 * past: the kernel did not copy it into its pages. */
void pages_written(struct file *file, struct overlay_layer *layer, uint64_t offset,
                   size_t size, bool past);

/* ---- mount_locked.c: whose locks there are; with the lock held ---- */

struct handle_lock *handle_locks_find(const struct handle *handle, uint8_t kind,
                                      uint64_t owner);
bool file_locks_find(const struct file *file, uint8_t kind, uint64_t owner);
/* Noted before the operation is sent. -ENOMEM; -EIO: it has lost its locks. */
int handle_locks_note(struct handle *handle, uint8_t kind, uint64_t owner);
void handle_locks_granted(struct handle *handle, uint64_t session);
/* All of the owner's in this file are gone. */
void file_locks_forget(struct file *file, uint8_t kind, uint64_t owner);
void handle_locks_free(struct handle *handle);
/* It has had locks, and its session may have ended since: -EIO until it is closed. */
int handle_check(struct handle *handle);
/* The session of the locks that are held here now, by whichever handle; 0: none is. */
uint64_t file_locks_session(const struct file *file);
/* The same, before something is written: an open layer of another session gets no more. (A value
 * in progress stays one: all of it rests on what its first bytes rest on.) `pages`: of a shared
 * mapping, which anybody may have written to, and long ago: a lost lock counts, too. */
uint64_t file_part_sessions(struct file *file, bool pages);
/* What is in the layer is committed in that session or not at all. */
void layer_rests_on(struct overlay_layer *layer, uint64_t session);
/* What a handle that is closed leaves behind is unlocked. */
void handle_locks_drop(struct handle *handle);
/* The same of one request, whose caller does not wait. `after_writes`: when what is buffered
 * now is committed. */
void lock_drop_new(struct file *file, const struct fs_lock *lock, uint64_t session,
                   bool after_writes);
/* Those whose turn it is, or (`again`) that failed. */
void lock_drops_send(struct file *file, bool again);
/* Somebody here wants to lock: those that failed, and those that wait for a value in progress,
 * which this host sees anyway. */
void lock_drops_hurry(struct file *file);
/* One of this owner; NULL: there is none. */
struct lock_drop *lock_drop_find(const struct file *file, const struct fs_lock *lock);
/* The newest layer that one of them waits for; NULL: there is none. */
struct overlay_layer *lock_drops_layer(const struct file *file);
/* The session in which the owner has locked; 0: not known. */
uint64_t file_locks_owned_in(const struct file *file, uint8_t kind, uint64_t owner);
/* When the committer has to call lock_tick(); UINT64_MAX: there is nothing. */
uint64_t lock_tick_due(const struct fs_mount *m);
void lock_tick(struct fs_mount *m, uint64_t now_us);
void lock_drops_free(struct lock_drop **list);

/* ---- mount_lock.c ---- */

/* With the lock held: see call_interrupted(). */
struct mount_call *lock_interrupted(struct mount_call *call, bool fatal);
/* With the lock held: a FLUSH that is to be answered will unlock what its owner has. */
bool lock_flushes(struct mount_call *call, struct handle *handle, uint64_t owner);
/* It waits for a commit whose error it will not answer. */
bool lock_tells_nothing(const struct mount_call *call);
/* On the notifier, without the lock. */
void lock_look(struct mount_call *call);
/* The session with the kernel has ended: nobody waits any more. */
void locks_end(struct fs_mount *m);

/* ---- mount_commit.c ---- */

/* With the lock held: everything up to `layer` (NULL: all) is to be committed. */
void file_seal(struct file *file, struct overlay_layer *layer);
void file_kick(struct file *file);
void file_schedule(struct file *file); /* the timer commits what is buffered */
uint64_t ticks_us(void);               /* CLOCK_MONOTONIC, as the committer counts */
void committer_wake(struct fs_mount *m, uint64_t due_us); /* to look by then; lock held */
/* Unlocks, and sends what was kicked meanwhile. Not on the loop. */
void mount_unlock_and_send(struct fs_mount *m);
void *committer_main(void *mount);
/* Commits all that is buffered by now, and waits for it and for the calls of before. Not
 * on the loop. */
void mount_flush_all(struct fs_mount *m);

/* ---- mount_io.c ---- */

/* Puts itself between libfuse and the kernel: before the session's first request. */
int mount_io_start(struct fs_mount *m);
/* When the session's loop has ended: frees what libfuse would keep for ever, an INTERRUPT that
 * came when its request had been answered and that no other request followed. */
void mount_io_end(struct fs_mount *m);
/* Whether its caller may not keep set-id bits of what it changes. In the thread and the
 * handler of a WRITE, SETATTR or OPEN. A kernel that leaves nothing to us has seen to WRITE
 * and SETATTR itself. */
bool request_drops_setid(fuse_req_t req);

/* ---- mount_call.c ---- */

/* The request was answered where it returns NULL: -ENOMEM, or its caller is gone. */
struct mount_call *call_new(struct fs_mount *m, fuse_req_t req,
                            void (*answer)(struct mount_call *call, int error));
void call_touch(struct mount_call *call, uint64_t parent, const char *name);
/* The operation is about this inode, which may still have to be made, or be an alias. */
void call_subject(struct mount_call *call, uint64_t inode);
/* First makes what is pending where it touches, then submits its operation. -ENOMEM is
 * answered. Not on the loop. */
void call_start(struct mount_call *call, const struct fs_op *op);
/* With the lock held: its operation, which is encoded, is on its way. */
void call_submit(struct mount_call *call);
/* With the lock held: parks it until the layer is committed, or until the flight ends. */
void call_wait(struct mount_call *call, struct mount_call **list, struct file *file);
/* The same of what no commit ends. */
void call_park(struct mount_call *call, struct mount_call **list);
void call_unpark(struct mount_call *call);
void call_finish(struct mount_call *call, int error); /* answers now; lock not held */
/* Takes all out of a list, so that they can be finished without the lock. */
struct mount_call *calls_take(struct mount_call **list);
void calls_finish(struct mount_call *calls, int error);
void calls_watch(struct fs_mount *m); /* lets killed callers go (K14) */

void answer_nothing(struct mount_call *call, int error); /* success or errno alone */

/* ---- notify.c ---- */

/* With the lock held. The notifier drops the kernel's pages, then finishes `calls`. */
void notify_drop(struct fs_mount *m, uint64_t inode, struct mount_call *calls, int error);
/* The same of some of them; `spans` is not empty. */
void notify_drop_spans(struct fs_mount *m, uint64_t inode, const struct spans *spans,
                       struct mount_call *calls);
/* With the lock held. The notifier calls lock_look() for it. */
void notify_look(struct fs_mount *m, struct mount_call *call);
void *notifier_main(void *mount);
/* With the lock held. The namer makes the kernel forget a name; `inode`: what it led to, and
 * has no other; 0: it may have. */
void notify_name(struct fs_mount *m, uint64_t parent, const void *name, size_t size,
                 uint64_t inode);
void *namer_main(void *mount);

/* ---- fdinfo.c: what /proc says of a caller ---- */

/* Whether the process has another writable descriptor of the inode (K10). */
bool fdinfo_holds(struct fs_mount *m, pid_t pid, uint64_t inode);
enum caller_fate {
    CALLER_LIVES,
    CALLER_EXITS,  /* and closes its files: nobody is there to be told of an error */
    CALLER_KILLED, /* SIGKILL is pending, or has ended it */
};
enum caller_fate caller_fate(pid_t pid);

/* ---- mountinfo.c: the table of mounts ---- */

int mountinfo_find(const char *mountpoint, dev_t *ret_device); /* mount id, or -ENOENT */
/* Of a mount id, as that process sees it. -ENOENT. */
int mountinfo_find_id(pid_t pid, int id, dev_t *ret_device);
/* Ends all requests of a mount and its session, whoever holds files open there. */
void connection_abort(const char *mountpoint, dev_t device);
/* The same of one that no path leads to any more. */
void connection_abort_detached(dev_t device);

/* ---- mount.c ---- */

int unmount_lazily(const char *path);
/* The process behind a mount has died: long ago, or while this call waited for it. */
bool is_of_dead_mount(int error);

/* ---- mount_attr.c ---- */

void stat_of_inode(const struct fs_inode *inode, struct stat *ret);
/* As this host's processes see it: the overlay taken into account. -ESTALE: removed. */
int mount_attributes(struct fs_mount *m, uint64_t inode, struct stat *ret);
/* The same, for a read that asks whether its pages are good still. */
int mount_attributes_for_read(struct fs_mount *m, uint64_t inode, struct stat *ret);
int64_t timespec_ns(struct timespec t);
struct timespec ns_timespec(int64_t ns);
int64_t now_ns(void);
/* Attributes on their way to the kernel, as uid=, gid= and umask= want them. */
void mount_show(const struct fs_mount *m, struct stat *attr);
void entry_of(const struct fs_mount *m, const struct stat *attr,
              struct fuse_entry_param *ret);

/* ---- mount_names.c ---- */

/* Of what a committed name leads to. -ENOENT, -ESTALE: it does not, or not any more. */
int mount_attributes_of_name(struct fs_mount *m, uint64_t parent, const char *name,
                             struct stat *ret);

/* ---- handlers ---- */

extern const struct fuse_lowlevel_ops mount_operations;

void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void on_forget(fuse_req_t req, fuse_ino_t inode, uint64_t count);
void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void on_readlink(fuse_req_t req, fuse_ino_t inode);
void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
              dev_t rdev);
void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void on_link(fuse_req_t req, fuse_ino_t inode, fuse_ino_t parent, const char *name);
void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t parent2,
               const char *name2, unsigned flags);
void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi);

void on_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi);
void on_setattr(fuse_req_t req, fuse_ino_t inode, struct stat *attr, int set,
                struct fuse_file_info *fi);
void on_statfs(fuse_req_t req, fuse_ino_t inode);

void on_getxattr(fuse_req_t req, fuse_ino_t inode, const char *name, size_t size);
void on_listxattr(fuse_req_t req, fuse_ino_t inode, size_t size);
void on_setxattr(fuse_req_t req, fuse_ino_t inode, const char *name, const char *value,
                 size_t size, int flags);
void on_removexattr(fuse_req_t req, fuse_ino_t inode, const char *name);

void on_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi);
void on_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
             struct fuse_file_info *fi);
void on_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size,
              off_t offset, struct fuse_file_info *fi);
void on_flush(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi);
void on_fsync(fuse_req_t req, fuse_ino_t inode, int datasync, struct fuse_file_info *fi);
void on_release(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi);

void on_getlk(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi,
              struct flock *lock);
void on_setlk(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi,
              struct flock *lock, int sleep);
void on_flock(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi, int op);

/* What lies below an overlay, looked at with the lock held. */
struct base {
    uint64_t inode, generation, content;
    bool hidden, empty;
};

struct base base_of(const struct file *file);
bool base_changed(const struct file *file, const struct base *b);
/* Without the lock. *ret_size: the base's size, as far as this window can tell. -ENOENT: it
 * was removed, and this host lost its session meanwhile. */
int base_read(struct fs_mount *m, const struct base *b, uint64_t offset, size_t length,
              uint8_t *to, uint64_t *ret_size);
void on_fallocate(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset, off_t length,
                  struct fuse_file_info *fi);
void on_copy_file_range(fuse_req_t req, fuse_ino_t inode_in, off_t offset_in,
                        struct fuse_file_info *fi_in, fuse_ino_t inode_out,
                        off_t offset_out, struct fuse_file_info *fi_out, size_t length,
                        int flags);
void on_lseek(fuse_req_t req, fuse_ino_t inode, off_t offset, int whence,
              struct fuse_file_info *fi);

/* Tells the kernel of a handle; false: takes it back, as the caller is gone. */
bool handle_reply(fuse_req_t req, struct handle *handle, struct fuse_file_info *fi,
                  const struct fuse_entry_param *entry);

void on_opendir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi);
void on_readdir(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                struct fuse_file_info *fi);
void on_readdirplus(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *fi);
void on_releasedir(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi);

/* ---- mount_virtual.c: `.tierce/` ---- */

/* An inode that is in no store: its `fi->fh` is no handle, and no handler but those of
 * mount_virtual.c may look at it. */
bool mount_is_virtual(uint64_t inode);
bool mount_is_virtual_name(uint64_t parent, const char *name);
/* Puts its handlers before those that stand there. */
void virtual_route(struct fuse_lowlevel_ops *operations);
void virtual_release_all(struct fs_mount *m); /* what is open still: the session has ended */

/* ---- mount_list.c ---- */

void listings_free(struct fs_mount *m); /* likewise */

/* ---- mount_options.c ---- */

/* The argument for fuse_session_new; *ret is to be freed. */
int mount_options_parse(const struct fs_mount_options *options, char **ret,
                        struct mount_shown *ret_shown, char error[FS_ERROR_BYTES]);

#endif
