/*
 * test_mount_backend.h - a node for the mount's tests: a name space in memory, a loop
 * thread that evaluates what the mount submits, and handles to delay, hold and fail it.
 * It counts operations, and remembers whether a watched name was ever without a value.
 */
#ifndef TIERCE_TEST_MOUNT_BACKEND_H
#define TIERCE_TEST_MOUNT_BACKEND_H

#include "memory_view.h"

enum { LONG_TEXT_BYTES = 300000 }; /* of .tierce/metrics, at least */
enum { BACKEND_OTHER = 8 }; /* the session of another host, by which backend_do() does */

struct queued;

struct backend {
    struct memory memory;
    struct fs_backend table; /* for fs_mount_start */
    pthread_t loop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct queued *first, **end;
    bool stopping, unmounted;
    bool held;             /* operations stay queued */
    unsigned delay_us;     /* of each */
    uint32_t fail_type;    /* operations of this type fail ... */
    int fail_error;        /* ... with this */
    bool no_inodes;        /* take_inode gives none */
    _Atomic bool alone;    /* no majority */
    _Atomic bool full;     /* no room */
    _Atomic bool unsure;   /* the session may have ended */
    _Atomic uint64_t session; /* of the mount */
    struct fs_op told; /* of the operation that was done last, where it may change locks */
    struct fs_mount *_Atomic mount; /* told of locks and orphans, where it is set */
    _Atomic bool no_texts; /* of .tierce */
    _Atomic unsigned texts; /* how many it gave */
    unsigned queued_count; /* submitted, not done */
    unsigned interrupts, fatal_interrupts;
    unsigned counts[32], total; /* done, without those that failed by fail_type */
    unsigned failed;
    struct buf orphans;  /* struct orphaned: the mount is to be told */
    struct buf released; /* inodes, u64 each: it does not hold them */
    unsigned releases;   /* inodes released so far */
    uint64_t next_inode, last_inode;
    void (*_Atomic after_get)(void); /* called after each get of the view, by who asked */
    char watched[256];               /* in the root */
    const char *remove_made; /* in the root: removed by another host before its MAKE is
                                answered, once */
    unsigned empties; /* how often it was there without a byte, after an operation */
};

void backend_start(struct backend *b);
void backend_stop(struct backend *b);
void backend_hold(struct backend *b, bool held);
/* Waits until so many operations are queued. */
void backend_await_queued(struct backend *b, unsigned count);
bool backend_is_unmounted(struct backend *b);
void backend_await_unmounted(struct backend *b);
void backend_fail(struct backend *b, uint32_t type, int error);
/* Waits until the inode is gone. */
void backend_await_gone(struct backend *b, uint64_t inode);
bool backend_is_there(struct backend *b, uint64_t inode);
void backend_reset_counts(struct backend *b);
unsigned backend_total(struct backend *b);
unsigned backend_count(struct backend *b, uint32_t type);
/* Another host's doing: an operation that does not come from the mount. */
int backend_do(struct backend *b, const struct fs_op *op, struct fs_result *ret);
/* What a name in the root holds there, NUL-terminated; to be freed. NULL: no such name.
 */
char *backend_value(struct backend *b, const char *name, size_t *ret_size);
int backend_stat(struct backend *b, const char *name, struct fs_inode *ret);
/* Another host replaces, or makes, a name in the root. */
void backend_put(struct backend *b, const char *name, const void *data, size_t size);

#endif
