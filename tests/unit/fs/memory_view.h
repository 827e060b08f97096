/*
 * memory_view.h - a store that is an ordered map in memory: it offers a view of itself
 * and takes in changes, each whole or not at all. The view may be called by any thread,
 * the rest by one at a time.
 */
#ifndef TIERCE_TEST_MEMORY_VIEW_H
#define TIERCE_TEST_MEMORY_VIEW_H

#include "fs.h"

#include <pthread.h>

struct memory_record {
    uint64_t timestamp_us;
    uint32_t key_size, value_size;
    bool tombstone; /* only in a change */
    uint8_t *value; /* behind the key */
    uint8_t key[];
};

struct memory {
    pthread_mutex_t mutex;
    struct memory_record **records; /* ordered by key */
    size_t count, capacity;
    uint64_t sequence;     /* for begin and retry: odd while a change is being applied */
    uint64_t timestamp_us; /* of the newest record */

    struct fs_change change; /* the one being made */
    struct memory_record **pending;
    size_t pending_count, pending_capacity;
    uint64_t pending_bytes; /* keys and values */

    /* Faults: the call number `fail_at` (from 1, get and scan together) answers with
     * fail_error; 0: none. */
    uint64_t calls, fail_at;
    int fail_error;
    /* Called, without the mutex, before every get and scan. */
    void (*before)(void *arg);
    void *before_arg;
};

void memory_init(struct memory *m); /* an empty, formatted name space */
void memory_release(struct memory *m);
struct fs_view memory_view(struct memory *m);

/* Begins a change at the next timestamp (at least `timestamp_us`) ... */
struct fs_change *memory_begin(struct memory *m, uint64_t session, uint64_t timestamp_us);
/* ... and takes it in, after checking it (G2: no key twice, within an entry's limits), or
 * drops it. */
void memory_commit(struct memory *m);
void memory_abort(struct memory *m);

/* fs_evaluate, then commit or abort. */
int memory_do(struct memory *m, const struct fs_op *op, uint64_t session,
              struct fs_result *ret);

#endif
