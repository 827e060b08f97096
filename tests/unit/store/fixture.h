/* fixture.h - a store on a disk in memory, and short words for what tests do with it. */
#ifndef TIERCE_STORE_FIXTURE_H
#define TIERCE_STORE_FIXTURE_H

#include "memory_disk.h"
#include "store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define SMALL_SEGMENT                                                                    \
    4096 /* far below what the contract allows, for rolls with few bytes */

struct fixture {
    struct memory_disk *disk;
    struct store_io io;
    struct store_options options;
    struct store *s;
    struct store_recovery recovery;
    char error[STORE_ERROR_BYTES];
    uint64_t first_replayed, replayed; /* the entries that store_open replayed */
    uint64_t now_us;                   /* moves on with every task */
    uint64_t saved;                    /* the entry whose state was saved last, */
    uint64_t loaded;                   /* and the one that store_open gave back */
    bool unchecked; /* damaged by the test, or used by another thread */
};

/* A new disk with a store made on it, not open. */
void fixture_init(struct fixture *f, uint64_t segment_bytes);
/* Takes over `disk`. */
void fixture_init_on(struct fixture *f, struct memory_disk *disk, uint64_t segment_bytes);
void fixture_release(struct fixture *f);
int fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);
void fixture_reopen(struct fixture *f); /* must succeed */

struct put {
    const char *key;
    const char *value; /* NULL: a tombstone */
    size_t value_size; /* 0: as a string */
};

/* The next entry of the log, not appended. */
struct store_bytes *make_entry(struct store *s, uint64_t term, uint64_t commit,
                               const struct put *puts, size_t count);
/* Appends one entry; the caller runs a job. */
void append(struct fixture *f, uint64_t term, const struct put *puts, size_t count);
void append_one(struct fixture *f, uint64_t term, const char *key, const char *value);
/* Runs what is asked for; must succeed. */
struct store_done run(struct fixture *f);
void apply_to(struct fixture *f, uint64_t index);
/* append_one, run, apply. */
void put_one(struct fixture *f, const char *key, const char *value);

/* One task that is due, to its end; false: there is none. Must succeed. */
bool run_task(struct fixture *f);
unsigned run_tasks(struct fixture *f); /* until none is due; how many there were */

void assert_value(struct store *s, const char *key, const char *value); /* NULL: none */
void assert_value_ahead(struct store *s, const char *key, const char *value);
/* The path of the n-th segment file by id, "d/log/....seg". */
const char *segment_file(uint64_t id);
/* Where entry `index` begins, by walking the file's intact lengths. */
uint64_t entry_offset(struct memory_disk *disk, const char *path, uint64_t index);

#endif
