/*
 * inspect.h - what the files of inspecting share. They look at the files as they are, by
 * docs/format.md, and not through recovery: so they see what recovery would mend, and can
 * be wrong about other things than it.
 */
#ifndef TIERCE_STORE_INSPECT_H
#define TIERCE_STORE_INSPECT_H

#include "store_internal.h"

enum { FACT_FIELDS = 24, INSPECT_UNFINISHED = 3 };

struct file_id_list {
    uint64_t *ids;
    size_t count, capacity;
};

struct inspection {
    const struct store_inspect_options *options;
    const struct store_io *io;
    char *error;
    struct store
        place;        /* directory, cluster and I/O, for the readers that want a store */
    bool has_cluster; /* place.cluster_id is known */
    uint64_t problems;
    uint64_t files, bytes; /* read as a whole */
    int stopped;           /* what `fact` returned, where that is not 0 */
    /* The fact being made: */
    struct fact_field fields[FACT_FIELDS];
    size_t field_count;
    const char *kind;
    /* What the small files say: */
    struct manifest manifest; /* zeros where there is none */
    bool has_manifest;
    bool has_state;
    uint64_t state_term;          /* of raft.state */
    uint64_t commit, commit_term; /* the highest of commit.hint; term 0: not told */
    struct file_id_list segments, merged, hints, parts;
    struct file_id_list unfinished[INSPECT_UNFINISHED]; /* by suffix */
    bool lost_manifest; /* there must be one, and it is missing or damaged */
};

/* ---- Facts */

void fact_begin(struct inspection *x, const char *kind);
void fact_number(struct inspection *x, const char *name, uint64_t value);
void fact_id(struct inspection *x, const char *name, uint64_t value);
void fact_text(struct inspection *x, const char *name, const char *value);
void fact_bytes(struct inspection *x, const char *name, const void *data, size_t size);
void fact_hex(struct inspection *x, const char *name, const void *data, size_t size);
void fact_flag(struct inspection *x, const char *name, bool value);
int fact_end(struct inspection *x); /* x->stopped */
/* What is wrong, where; `offset` UINT64_MAX: with the file as a whole. */
int inspect_problem(struct inspection *x, const char *path, uint64_t offset,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));
int inspect_note(struct inspection *x, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A problem of a file that could not be read: an error of the call, not the end. */
int inspect_unreadable(struct inspection *x, const char *path, int rc);
/* Checks the cluster that a file names against that of the others. */
int inspect_cluster(struct inspection *x, const char *path,
                    const uint8_t id[STORE_CLUSTER_ID_BYTES]);
/* The file's name under the data directory, or as it was given. */
const char *inspect_name(const struct inspection *x, const char *path);

/* ---- A file, seen through a window */

struct image {
    const struct store_io *io;
    int fd;
    uint64_t size;
    struct buf window;
    uint64_t window_offset;
    size_t window_bytes; /* read at once */
};

int image_open(struct inspection *x, const char *path, size_t window_bytes,
               struct image *ret);
/* `length` bytes at `offset`, fewer at the end of the file. */
int image_look(struct image *image, uint64_t offset, size_t length, const uint8_t **ret,
               size_t *ret_length);
/* Whether there are only zeros from `offset` on. */
int image_is_zero(struct image *image, uint64_t offset, bool *ret);
void image_close(struct image *image);

/* Tells all that is in one file. */
typedef int inspect_fn(struct inspection *x, const char *path, struct image *image);

/* A file that need not be there: *ret_missing. */
int inspect_small(struct inspection *x, const char *path, inspect_fn *inspect,
                  bool *ret_missing);

/* ---- inspect_log.c: segments */

int inspect_log(struct inspection *x); /* all, in order, as one chain */
/* Of the header; an error where it has no right one. */
int inspect_first_index(struct inspection *x, uint64_t file_id, uint64_t *ret);
inspect_fn inspect_segment_file;
void inspect_say_record(struct inspection *x, const struct store_record *record,
                        uint64_t offset);
/* `whole`: with what a hint does not say. */
void inspect_say_entry(struct inspection *x, const struct store_entry *entry,
                       uint64_t offset, bool whole);

/* ---- inspect_hint.c: hints */

struct summary_record {
    size_t at; /* of the key in `bytes`; a small value follows it */
    uint64_t timestamp_us;
    uint32_t key_size, offset, value_size;
};

struct summary_entry {
    struct store_entry entry;
    uint32_t offset;
};

/* What a hint of a data file should say. */
struct summary {
    struct buf bytes;
    struct summary_record *records;
    size_t count, capacity;
    struct summary_entry *entries;
    size_t entry_count, entry_capacity;
};

int summary_add(struct summary *s, const struct store_record *record, uint32_t offset);
int summary_add_entry(struct summary *s, const struct store_entry *entry,
                      uint32_t offset);
void summary_release(struct summary *s);

inspect_fn inspect_hint_file;
/* The hint beside a data file, if there is one; against `summary`, unless NULL, which is
 * sorted. `active`: the file is written to, so that a hint may be an old one, or none. *ret_usable: it is there, and
 * intact as far as it was looked at. */
int inspect_hint(struct inspection *x, uint64_t file_id, enum segment_kind kind,
                 uint64_t data_bytes, bool active, struct summary *summary,
                 bool *ret_usable);

/* ---- inspect_merged.c: merged files */

int inspect_merged(struct inspection *x); /* all that MANIFEST names */
inspect_fn inspect_merged_file;
/* Bytes of the record that begins here, by its sizes; 0: those make no sense. */
size_t inspect_record_bytes(const uint8_t *data, size_t length);

/* ---- inspect_lost.c: what may be lost */

int inspect_lost(struct inspection *x); /* scrub.state, and incoming/ */
inspect_fn inspect_scrub_file, inspect_incoming_file;

#endif
