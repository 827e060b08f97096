/*
 * rig.h - what the rows of the store's benchmark share: a store in a directory, driven as
 * a node of one does, clocks, and the lines that are printed.
 */
#ifndef TIERCE_BENCH_RIG_H
#define TIERCE_BENCH_RIG_H

#include "store.h"

enum { KEY_BYTES = 24, VALUE_BYTES = 256, SEGMENT_MIB = 64 };

struct bench {
    const char *directory;
    bool smoke; /* little of everything: that it runs is what is shown */
    bool missed;
};

_Noreturn void die(const char *what, const char *why);
uint64_t now_ns(void);
uint64_t thread_cpu_ns(void);
/* Of `count` numbers, which are sorted. */
double median(double *numbers, size_t count);
/* Fields of /proc/self: bytes of write calls; resident bytes. */
uint64_t bytes_written(void);
uint64_t bytes_resident(void);
/* A path in the benchmark's directory, until the next call. */
const char *path_in(const struct bench *b, const char *name);
void remove_tree(const char *path);
uint64_t disk_use(const char *path); /* of all files below, as allocated */

/* The mark is a bound for `ratio` (or, without a yardstick, for `value`): at most, where
 * `at_most`, else at least. */
struct line {
    const char *row, *unit;
    double value, yardstick, ratio, mark;
    bool at_most;
};
void print_line(struct bench *b, const struct line *line);

/* In a process of its own: with a fresh heap, and no thread of a former store's. */
void in_child(struct bench *b, void (*run)(struct bench *b));

struct background; /* the merge thread */
struct log_thread;

struct rig {
    struct store *s;
    struct background *background; /* NULL: nothing is merged */
    struct log_thread *log;        /* NULL: rig_commit writes itself */
    struct store_options options;
    struct store_recovery recovery;
    struct store_builder builder;
    uint32_t records;
    uint64_t opened_ns; /* how long store_open took */
};

void rig_make(struct rig *rig, const char *path); /* an empty store, open */
void rig_open(struct rig *rig, const char *path);
void rig_close(struct rig *rig);
/* A record for the entry that rig_entry appends; a full entry is appended on the way. */
void rig_put(struct rig *rig, const void *key, size_t key_size, const void *value,
             size_t value_size);
void rig_entry(struct rig *rig);
/* What was appended is written, synced and applied. With a log thread: handed to it, when
 * what was handed to it before is done, and applied. */
void rig_commit(struct rig *rig);
void rig_start_log(struct rig *rig);
void rig_finish_log(struct rig *rig); /* all is applied */

/* From here on each rig_commit lets the merge thread begin what is due. */
void rig_start_background(struct rig *rig);
/* Until nothing is due any more, without pauses. */
void rig_finish_background(struct rig *rig);

/* The i-th key: spread over the whole key space, in no order. */
void key_of(uint64_t i, uint8_t to[KEY_BYTES]);
/* `keys` records, in entries of as many as fit. */
void rig_fill(struct rig *rig, uint64_t keys, size_t value_bytes);

/* ---- The rows ---------------------------------------------------------------------- */

void row_append(struct bench *b);
void row_written(struct bench *b);
void row_overwrite(struct bench *b);
void row_single(struct bench *b);
void row_get(struct bench *b);
void row_beside_writer(struct bench *b);
void row_beside_merges(struct bench *b);
void row_keys(struct bench *b); /* memory per key, and start-up */
void row_scan(struct bench *b);

#endif
