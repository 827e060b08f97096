/*
 * store.h - the log is the database: Raft's log segments are the Bitcask's data files.
 *
 * An entry is written once. Appending gives its records their place (segment, offset);
 * applying moves keydir pointers there. Formats: docs/format.md; rules G1-G6 of the design
 * are kept here, see README.md.
 *
 * Threads. The *loop* is the only writer of the in-memory state: every function belongs to
 * it unless said otherwise. It never does I/O itself: appends, truncations and the small
 * files are collected into a *job*, which the *log thread* runs, one at a time, in order.
 * Readers (any thread) take no lock: the keydir is read under RCU (liburcu, bulletproof
 * flavour: threads need no registration), values by pread.
 *
 * Errors are negative errno. A failed write or sync of a job is final: the caller must stop
 * the process (DESIGN section 3), it is not retried.
 */
#ifndef TIERCE_STORE_H
#define TIERCE_STORE_H

#include "base.h"

#include <sys/uio.h>

struct store;

/* The version of the files (docs/format.md): the newest that this program reads, and the
 * oldest. */
enum {
    STORE_FORMAT_VERSION = 1 + TIERCE_RAISE_VERSION,
    STORE_FORMAT_OLDEST = 1,
};

/* ---- The disk: one small table of functions, so that tests can be the disk ------------ */

/* A sync whose result nobody looks at acknowledges what may be lost: it does not compile. */
#define STORE_CHECKED __attribute__((warn_unused_result))

/* Each returns 0 (or a count, or a descriptor) or a negative errno. */
struct store_io {
    void *context;
    int (*open)(void *context, const char *path, int flags, int mode);
    int (*close)(void *context, int fd);
    ssize_t (*pread)(void *context, int fd, void *to, size_t length, uint64_t offset);
    /* Only what is in memory: -EAGAIN where it would wait for the disk. */
    ssize_t (*pread_nowait)(void *context, int fd, void *to, size_t length,
                            uint64_t offset);
    ssize_t (*pwritev)(void *context, int fd, const struct iovec *iov, int count,
                       uint64_t offset);
    /* fdatasync; fsync, that is with the size and the rest. */
    STORE_CHECKED int (*sync)(void *context, int fd);
    STORE_CHECKED int (*sync_all)(void *context, int fd);
    /* Bytes up to `end` begin to go to the disk, when those are there that came long before
     * `begin`; nothing is durable by that. NULL: nothing waits for this disk. */
    STORE_CHECKED int (*write_out)(void *context, int fd, uint64_t begin, uint64_t end);
    int (*truncate)(void *context, int fd, uint64_t size);
    int (*allocate)(void *context, int fd, uint64_t size); /* zeros to `size`, reserved */
    int (*size)(void *context, int fd, uint64_t *ret);
    int (*mkdir)(void *context, const char *path, int mode); /* 0 where it exists */
    int (*unlink)(void *context, const char *path);
    int (*rename)(void *context, const char *from, const char *to);
    STORE_CHECKED int (*sync_dir)(void *context, const char *path);
    /* Calls `each` with every name but . and ..; stops at a non-zero return. */
    int (*list)(void *context, const char *path, int (*each)(void *arg, const char *name),
                void *arg);
    int (*space)(void *context, const char *path, uint64_t *ret_free, uint64_t *ret_total);
};

extern const struct store_io store_io_posix;

/* ---- Records and entries ------------------------------------------------------------- */

enum {
    STORE_RECORD_HEADER = 20,
    STORE_ENTRY_VALUE = 76,                                     /* the entry record's value */
    STORE_ENTRY_HEADER = STORE_RECORD_HEADER + 1 + STORE_ENTRY_VALUE, /* 97 bytes */
    STORE_RESULT_BYTES = 16,
    STORE_CLUSTER_ID_BYTES = 16,
};

#define STORE_TOMBSTONE UINT32_MAX

struct store_record {
    uint64_t timestamp_us;
    const uint8_t *key;
    uint32_t key_size;
    const uint8_t *value; /* NULL: a tombstone */
    uint32_t value_size;  /* 0 for a tombstone */
};

/* Reads one record at the reader's place and checks its checksum. -EBADMSG where it is
 * damaged, cut short or beyond the limits; the reader then stands anywhere. */
int store_record_read(struct reader *r, struct store_record *ret);

/* What the entry record says (G1). */
struct store_entry {
    uint64_t timestamp_us; /* of the entry record; its data records follow with +1, +2, ... */
    uint64_t index, term;
    uint64_t prev_term; /* of the previous entry, and the checksum of its entry record: */
    uint32_t prev_crc;  /* the chain */
    uint64_t commit;    /* the leader's, when it encoded this */
    uint64_t session, request;
    uint8_t result[STORE_RESULT_BYTES];
    uint32_t record_count; /* data records */
    uint32_t length;       /* bytes of the whole entry, the entry record included */
    uint32_t crc;          /* of the entry record */
};

/* Immutable bytes that several threads and queues share. */
struct store_bytes {
    _Atomic uint32_t references;
    uint32_t length;
    uint8_t data[];
};

struct store_bytes *store_bytes_new(size_t length); /* one reference; NULL: no memory */
struct store_bytes *store_bytes_of(const void *data, size_t length);
struct store_bytes *store_bytes_ref(struct store_bytes *b);
void store_bytes_unref(struct store_bytes *b); /* any thread; NULL is allowed */

/* The head of the entry that begins at `data`: checks the entry record's own checksum and
 * bounds, and that `ret->length` bytes are there. -EBADMSG otherwise. */
int store_entry_decode(const void *data, size_t length, struct store_entry *ret);
/* The whole entry: also each data record's checksum, count, lengths, timestamps (entry's
 * + 1, + 2, ...) and that no key stands twice (G2). */
int store_entry_verify(const void *data, size_t length, struct store_entry *ret);
/* Calls `each` for every data record of a verified entry, in order, with its offset. */
int store_entry_each(const void *data, size_t length,
                     int (*each)(void *arg, const struct store_record *record,
                                 uint32_t offset_bytes),
                     void *arg);

/* Builds an entry's bytes. The data records' timestamps are given as they are added. */
struct store_builder {
    struct buf bytes;
    uint64_t timestamp_us; /* of the last record added */
    uint32_t record_count;
};

/* `timestamp_us`: of the entry record. _finish takes what was built out of the builder,
 * which may begin anew. */
void store_builder_begin(struct store_builder *b, uint64_t timestamp_us);
/* Both return the record's timestamp. value NULL: a tombstone. */
uint64_t store_builder_put(struct store_builder *b, const void *key, size_t key_size,
                           const void *value, size_t value_size);
/* Bytes so far, entry record included. */
size_t store_builder_length(const struct store_builder *b);
/* Fills in the entry record from `head` (its timestamp, record_count, length and crc are the
 * builder's) and gives the bytes. -ENOMEM, or -E2BIG beyond LIMIT_ENTRY_BYTES or
 * LIMIT_ENTRY_RECORDS. */
int store_builder_finish(struct store_builder *b, const struct store_entry *head,
                         struct store_bytes **ret);
void store_builder_release(struct store_builder *b);

/* ---- Life ------------------------------------------------------------------------------ */

enum { STORE_ERROR_BYTES = 512 };

struct store_options {
    const struct store_io *io;
    const char *path; /* the data directory; files of the store are made under it */
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    uint64_t segment_bytes; /* at least 2 * LIMIT_ENTRY_BYTES, below 4 GiB */
    /* Called by store_open for every entry of the log that is applied, in order; may be
     * NULL. Of an entry whose values are not read only index, term, timestamp, session,
     * request, result, record count and crc are known. `s` may be asked with store_get():
     * it has this entry, and may have later ones. */
    void (*replay)(void *context, struct store *s, const struct store_entry *entry);
    /* The caller's state as of the last applied entry, kept beside what is merged, since
     * the entries it was made of go; at open it is given back before any replay. Loop;
     * either may be NULL. -ENOMEM; -EBADMSG: not the caller's. */
    int (*save_state)(void *context, struct buf *to);
    int (*load_state)(void *context, const void *data, size_t length);
    /* Any thread: store_next_damage() has something to say. May be NULL. */
    void (*damaged)(void *context);
    void *context;
    /* Each 0: the default below. */
    uint64_t retain_bytes;      /* of log kept for members that are behind (G8) */
    uint64_t merge_bytes_per_s; /* of merging where space does not press */
    uint64_t scrub_period_us;   /* of one pass over all files; STORE_NEVER: none */
    /* Of the files that are made, unless this store had a higher one already; and the newest
     * that is read. */
    uint32_t format, format_newest; /* each 0: STORE_FORMAT_VERSION */
};

#define STORE_RETAIN_BYTES      ((uint64_t)256 << 20)
#define STORE_MERGE_BYTES_PER_S ((uint64_t)32 << 20)
#define STORE_SCRUB_PERIOD_US   ((uint64_t)7 * 24 * 3600 * 1000 * 1000)
#define STORE_NEVER             UINT64_MAX

struct store_run { /* entries after the former run's last up to `last` have `term` */
    uint64_t last, term;
};

struct store_recovery {
    uint64_t term, vote;
    uint64_t base_index, base_term; /* the log starts after this (0, 0 until merged) */
    uint64_t last_index;
    /* Proven to have been committed here, though the log has no intact entry there: a hole
     * (G6). 0: none. The node votes and leads accordingly until its log reaches it. */
    uint64_t claim_index, claim_term;
    uint64_t commit;        /* proven; everything up to it is applied */
    struct store_run *runs; /* owned by the store until store_close */
    size_t run_count;
    uint64_t cut_bytes; /* torn bytes removed from the tail */
    uint64_t hints_used, hints_rebuilt;
    char damage[STORE_ERROR_BYTES]; /* what is damaged, where; "": nothing */
};

/* Makes an empty store: hard state (0, 0), no entries. -EEXIST where there is one. */
int store_create(const struct store_options *options, char error[STORE_ERROR_BYTES]);

/* Recovers (G4, G6, G7): cuts what is torn, syncs, applies up to what is proven committed.
 * What is damaged in the log is a hole: see store_recovery. Blocks. On failure `error` names
 * the file, what is wrong and the remedy: -ENOENT no store here; -EPROTONOSUPPORT a newer
 * format; -EXDEV of another cluster; -EBADMSG damage of what no other node has (a header, the
 * hard state, what is merged), nothing was changed on disk (`replay` may have been called:
 * throw away what it made). Starts a thread of liburcu's: fork before. */
int store_open(struct store **ret, const struct store_options *options,
               struct store_recovery *ret_recovery, char error[STORE_ERROR_BYTES]);
/* What is written from now on is of this version, where that is higher than before; at most
 * the newest that is read. Loop. */
void store_set_format(struct store *s, uint32_t format);
uint32_t store_format(const struct store *s);
/* No job may be running, nor a task, and no reader inside. Does not sync: jobs not run are
 * dropped, and a task that is not done. */
void store_close(struct store *s);

/* ---- The log: the loop's side -------------------------------------------------------------- */

uint64_t store_last_index(const struct store *s);
uint64_t store_applied(const struct store *s);
/* The end of the chain: what the next entry's prev_term, prev_crc must be, and the newest
 * timestamp of the log. */
void store_chain(const struct store *s, uint64_t *ret_term, uint32_t *ret_crc,
                 uint64_t *ret_timestamp_us);

/* Bytes that were appended and are not on the disk yet. */
uint64_t store_unwritten_bytes(const struct store *s);
/* Whether `length` more bytes have room: 0, or -ENOSPC (no next segment could be reserved). */
int store_has_room(const struct store *s, uint64_t length);

/* Appends one verified entry, which must continue the chain (ensured; a driver checks foreign
 * ones with store_continues first), under the current generation. Takes its own reference.
 * `ahead`: also visible to store_get_ahead at once (a leader's own entries). -ENOMEM. */
int store_append(struct store *s, struct store_bytes *entry, bool ahead);
/* Whether this entry may follow the log's end: index + 1, prev_term, prev_crc, a term that is
 * not lower, a growing timestamp. */
bool store_continues(const struct store *s, const struct store_entry *entry);

/* Drops all entries after `index` (at least applied) and sets the generation (G3). */
int store_truncate(struct store *s, uint64_t index, uint64_t generation);
/* Later appends belong to this generation. */
void store_set_generation(struct store *s, uint64_t generation);

int store_set_hard_state(struct store *s, uint64_t term, uint64_t vote); /* G5 */
/* At least what is applied, at most the last entry; its term is noted with it (G6). */
int store_set_commit_hint(struct store *s, uint64_t commit);
int store_refresh_space(struct store *s); /* looks at the disk, reserves the next segment */

enum store_space {
    STORE_SPACE_OK,
    STORE_SPACE_LOW, /* what is held back has been touched: only deletes */
};
enum store_space store_space(const struct store *s);

/* ---- Jobs: from the loop to the log thread and back ------------------------------------------ */

struct store_job;

/* All that was asked for since the last call, in order; NULL: nothing. One job at a time. */
struct store_job *store_take_job(struct store *s);
/* The log thread: does the I/O, with one sync for consecutive appends. 0, or the error of the
 * call that failed, with `error` naming it. */
STORE_CHECKED int store_run_job(struct store_job *job, char error[STORE_ERROR_BYTES]);

struct store_done {
    uint64_t durable_index; /* 0: the job had neither append nor truncation */
    uint64_t generation;    /* of the last of those; after a truncation its own */
    bool hard_state;        /* a hard state was made durable */
    bool installed;         /* store_install() is done: log and state are others now */
    bool install_failed;    /* there was no room for it, or no memory: nothing has changed */
    struct store_incoming *incoming; /* where it failed: to be freed */
    uint64_t repaired;      /* records and entries written back */
};
/* The loop again, after a job that returned 0: frees it. */
struct store_done store_finish_job(struct store *s, struct store_job *job);

/* ---- Entries again ------------------------------------------------------------------------------ */

/* The bytes of an entry that is still in memory (each that is not applied, and the newest
 * applied ones up to a bound): a new reference; NULL where it must be read. */
struct store_bytes *store_entry_cached(struct store *s, uint64_t index);

/* Reading older entries: planned on the loop, run on any thread that may wait. */
struct store_read;
/* Entries from `first` while their bytes fit `max_bytes` (at least one). -ENOENT not in the
 * log; -ENOMEM. */
int store_read_plan(struct store *s, uint64_t first, size_t max_bytes,
                    struct store_read **ret);
/* Reads and verifies; -EBADMSG where they are damaged on disk (store_next_damage). */
int store_read_run(struct store_read *read, struct store_bytes **ret, uint64_t *ret_last);
void store_read_free(struct store_read *read);

/* Where entry `index` has been synced to disk, and is the next to apply: moves the keydir's
 * pointers. `ret_bytes` is a reference for the caller. Both outputs may be NULL. -ENOMEM:
 * nothing was changed. */
int store_apply(struct store *s, uint64_t index, struct store_entry *ret_entry,
                struct store_bytes **ret_bytes);

/* ---- Reading: any thread, no lock -------------------------------------------------------------- */

enum store_read_flags {
    STORE_NOWAIT = 1, /* -EAGAIN rather than wait for the disk */
};

/* Appends the value to `to` (which the caller owns). -ENOENT; -EAGAIN; -EBADMSG: twice read
 * and twice wrong, or not to be read (see store_next_damage). ret_timestamp may be NULL. */
int store_get(struct store *s, const void *key, size_t key_size, unsigned flags,
              struct buf *to, uint64_t *ret_timestamp);

struct store_item {
    const uint8_t *key;
    uint32_t key_size;
    const uint8_t *value; /* NULL unless value_size <= LIMIT_KEYDIR_INLINE_BYTES */
    uint32_t value_size;
    uint64_t timestamp_us;
};

/* Keys k with from <= k < to, in order (to_size 0: no end). `each` runs inside the read-side
 * section: it must not wait; a non-zero return ends the scan and is returned. */
int store_scan(struct store *s, const void *from, size_t from_size, const void *to,
               size_t to_size, int (*each)(void *arg, const struct store_item *item),
               void *arg);

/* One consistent look at several keys (G10): begin, read, and again if _retry says that an
 * entry was applied meanwhile. */
uint64_t store_read_begin(struct store *s);
bool store_read_retry(struct store *s, uint64_t begun);

/* The same two on the loop alone, with entries appended as `ahead` taken as applied: what a
 * leader evaluates against. Never wait (-EAGAIN). */
int store_get_ahead(struct store *s, const void *key, size_t key_size, struct buf *to,
                    uint64_t *ret_timestamp);
int store_scan_ahead(struct store *s, const void *from, size_t from_size, const void *to,
                     size_t to_size, int (*each)(void *arg, const struct store_item *item),
                     void *arg);

/* ---- Merging: in the background, in stretches ----------------------------------------- */

/* Work for a thread that may wait (the merge thread): a hint for a sealed segment, a merge,
 * a scrub. One at a time. */
struct store_task;
/* The loop: what is due; NULL: nothing now. `now_us`: CLOCK_BOOTTIME. */
struct store_task *store_next_task(struct store *s, uint64_t now_us);
/* The merge thread: one stretch of at most about 1 MiB. 1: call again, after *ret_wait_us;
 * 0: hand it back to the loop; negative: final, as a job's failure is. */
int store_run_task(struct store_task *task, uint64_t *ret_wait_us,
                   char error[STORE_ERROR_BYTES]);
/* The loop, after 0: true: run it again; false: it is done, and freed. */
bool store_step_task(struct store *s, struct store_task *task);

/* Entries from here on stay in the log, as far as retain_bytes allow (G8). */
void store_set_retention(struct store *s, uint64_t keep_from);
/* Until unpinned, entries from `first` on stay whatever the bounds. -ENOENT: not in the log. */
struct store_pin;
int store_pin_log(struct store *s, uint64_t first, struct store_pin **ret);
void store_unpin_log(struct store *s, struct store_pin *pin);

/* The log begins after this entry. */
uint64_t store_base(const struct store *s, uint64_t *ret_term);
/* The state that is merged was made at `applied_index`: until that is applied again, what is
 * in the store lacks what was superseded on the way, and is not to be served, evaluated or
 * merged (G7). */
bool store_is_ready(const struct store *s);
struct store_manifest {
    uint64_t merged_index, merged_term;
    uint64_t applied_index, applied_term;
    uint64_t files, bytes;
};
bool store_manifest(const struct store *s, struct store_manifest *ret); /* false: none */
/* The caller's state beside it, as save_state gave it; the store's, until merges go on. */
const void *store_state(const struct store *s, size_t *ret_length);

/* ---- Damage (G6, G9) ------------------------------------------------------------------ */

enum store_damage_kind { STORE_DAMAGED_RECORD = 1, STORE_DAMAGED_ENTRY };

struct store_damage {
    enum store_damage_kind kind;
    uint8_t key[LIMIT_KEY_BYTES]; /* RECORD */
    uint32_t key_size;
    uint64_t timestamp_us;
    uint64_t index, term; /* ENTRY */
};
/* The loop: what was found and has not been told yet. */
bool store_next_damage(struct store *s, struct store_damage *ret);
/* The loop: no peer has it; it is looked for again after the next scrub or read. */
void store_damage_stays(struct store *s, const struct store_damage *damage);
/* It was told by store_next_damage, and has neither been repaired nor superseded. */
bool store_is_damaged(struct store *s, const struct store_damage *damage);
/* Any thread that may wait: the whole record of this very version, for a peer. -ENOENT. */
int store_get_raw(struct store *s, const void *key, size_t key_size, uint64_t timestamp_us,
                  struct buf *to);
/* The loop: checks what a peer sent and writes it back in place with the pending job. -EBADMSG: not
 * what is missing; -ENOENT: not needed any more; -ENOMEM. */
int store_repair_record(struct store *s, const void *record, size_t length);
int store_repair_entry(struct store *s, const void *entry, size_t length);

/* ---- Snapshots: the merged files for a node behind the log's start -------------------- */

enum { STORE_CHUNK_BYTES = 1 << 20 };

/* Sender: the merged files as they are published now, and the log after them. */
struct store_snapshot;
int store_snapshot_open(struct store *s, struct store_snapshot **ret); /* loop; -ENOENT */
/* What a receiver needs to know. -ENOMEM. */
int store_snapshot_describe(const struct store_snapshot *snapshot, struct buf *to);
/* Any thread that may wait: bytes of a file after its header, at most STORE_CHUNK_BYTES.
 * -ENOENT, -EINVAL: not of this snapshot; -EBADMSG: damaged here: to be closed, and opened
 * anew later, when that is repaired. */
int store_snapshot_read(struct store_snapshot *snapshot, uint32_t file, uint64_t offset,
                        size_t length, struct buf *to);
void store_snapshot_close(struct store *s, struct store_snapshot *snapshot); /* loop */

/* Receiver. What is marked T is for a thread that may wait, one at a time. */
struct store_incoming;
/* T: begins, or goes on with what an earlier try left, before a restart too. `sender`: whose
 * files these are. -EPROTO: not a description. */
int store_incoming_open(struct store *s, const void *description, size_t length,
                        uint64_t sender, struct store_incoming **ret,
                        char error[STORE_ERROR_BYTES]);
/* What is missing first, in order; false: complete. */
bool store_incoming_next(const struct store_incoming *in, uint32_t *ret_file,
                         uint64_t *ret_offset, uint32_t *ret_length);
/* The same, were the next `skip` of them there already: to ask ahead. */
bool store_incoming_ahead(const struct store_incoming *in, uint64_t skip,
                          uint32_t *ret_file, uint64_t *ret_offset, uint32_t *ret_length);
/* T: the one that is missing first, or the beginning of it; -EINVAL: another. After any
 * other error it is to be freed, and opened anew later. */
int store_incoming_write(struct store_incoming *in, uint32_t file, uint64_t offset,
                         const void *data, size_t length, char error[STORE_ERROR_BYTES]);
/* T: verifies all, makes hints and a keydir, in stretches of at most about 1 MiB. 1: call
 * again, after *ret_wait_us; 0: prepared. An error: to be freed; -EBADMSG: it was damaged,
 * and is dropped. It may be freed half-way as well. */
int store_incoming_prepare(struct store_incoming *in, uint64_t *ret_wait_us,
                           char error[STORE_ERROR_BYTES]);
/* The loop: replaces log and state by what was prepared, with the pending job; takes it over
 * where it returns 0, until that job is done. Nothing may be appended, truncated or applied until a job's
 * store_done says installed (then log and applied are at M, and store_state() is to be
 * taken) or install_failed. -ESTALE: what is applied is as new; -EBUSY: a task is running and has
 * been told to end: again after it; -ENOMEM. */
int store_install(struct store *s, struct store_incoming *in);
/* T: its files stay, to go on with. */
void store_incoming_free(struct store_incoming *in);
/* What its sender has merged, and when. */
void store_incoming_manifest(const struct store_incoming *in, struct store_manifest *ret);
uint64_t store_incoming_bytes(const struct store_incoming *in, uint64_t *ret_total);

/* ---- Backup --------------------------------------------------------------------------- */

/* Any thread that may wait: live records, whole, in key order, whose keys are above `after`
 * (size 0: from the first), while they fit `max_bytes` (at least one). ret_last: the last
 * one's key; empty: there is none. Not of one instant. */
int store_copy(struct store *s, const void *after, size_t after_size, size_t max_bytes,
               struct buf *to, struct buf *ret_last);

struct store_stats {
    uint64_t keys, live_bytes, log_bytes, segments, entries;
    uint64_t merged_bytes, merged_files, hint_bytes;
    uint64_t disk_free_bytes, disk_total_bytes; /* as last looked at */
    uint64_t bytes_written, syncs;              /* by jobs, since open */
    uint64_t merge_bytes_written, merges;       /* by tasks, since open */
    uint64_t bad_reads;                         /* reads that failed their checksum */
    uint64_t damaged, repaired, unrepaired;     /* found; written back; no peer had it */
    uint64_t scrubbed_bytes, scrubs;            /* since open */
};
void store_stats(struct store *s, struct store_stats *ret);

/* Verifies the invariants of README.md that can be verified in memory and by reading the
 * files; ends the process where one is broken. Loop. Slow: for tests. */
void store_check(struct store *s);

/* ---- Making a store of records that come from elsewhere ----------------------------------------- */

/* A place in the chain: this entry was the last one. */
struct store_point {
    uint64_t index, term;
    uint64_t timestamp_us; /* of its newest record */
    uint32_t crc;
};

/* The last entry that was applied. Loop. */
struct store_point store_applied_point(const struct store *s);

/* A store that holds these records, merged, and whose log begins after `end`: none may be
 * there (-EEXIST). Nothing opens it before _finish; what is left after a failure is the
 * caller's to remove. */
struct store_import;
int store_import_new(const struct store_options *options, struct store_import **ret,
                     char error[STORE_ERROR_BYTES]);
/* One whole valid record, no tombstone, with a key above the last one's. */
int store_import_record(struct store_import *import, const void *record, size_t length,
                        char error[STORE_ERROR_BYTES]);
/* `state`: for options.load_state. */
int store_import_finish(struct store_import *import, const struct store_point *end,
                        const void *state, size_t state_size,
                        char error[STORE_ERROR_BYTES]);
void store_import_free(struct store_import *import);

/* ---- Looking at a store that nobody has open ---------------------------------------------------- */

struct store_inspect_options {
    const struct store_io *io;
    const char *path; /* the data directory */
    bool verify;      /* all of it is read and checked, hints against what they summarise */
    /* A line of what is there, in order; kind "problem": what is wrong, "note": what the
     * next start sees to by itself. Not 0: ends the looking, and is returned. */
    int (*fact)(void *context, const struct fact *fact);
    void *context;
};

/* A line a file, and what is wrong with the whole. Changes nothing. -ENOENT: no store. */
int store_inspect(const struct store_inspect_options *options, uint64_t *ret_problems,
                  char error[STORE_ERROR_BYTES]);
/* All that is in one file, which is told by how it begins. -EINVAL: none of the store's. */
int store_inspect_file(const struct store_inspect_options *options, const char *file,
                       uint64_t *ret_problems, char error[STORE_ERROR_BYTES]);

#endif
