/*
 * recovery.h - what the files of recovery share: what was found on disk, and what it is
 * judged to be. See recovery.c for the order of things.
 */
#ifndef TIERCE_STORE_RECOVERY_H
#define TIERCE_STORE_RECOVERY_H

#include "store_internal.h"

enum name_kind {
    NAME_SEGMENT,
    NAME_MERGED,
    NAME_HINT,
    NAME_SPARE,
    NAME_MERGED_NEW,
    NAME_HINT_NEW,
    NAME_KINDS,
};

struct id_list {
    uint64_t *ids;
    size_t count, capacity;
};

int id_list_add(struct id_list *list, uint64_t id);
bool id_list_has(const struct id_list *list, uint64_t id);

struct log_file {            /* of the log, by first index */
    struct segment *segment; /* a reference, until the store's list takes it */
    uint64_t size;
    struct chain end; /* HINTED: its last entry */
};

struct recovery {
    struct store *s;
    const struct store_options *options;
    char *error;
    struct hard_state state;
    int state_slot;
    uint64_t hint, hint_term; /* the commit hint; its term may be 0: not told */
    struct id_list names[NAME_KINDS];
    bool manifest_new;          /* MANIFEST.new is there */
    struct id_list merged_away; /* segments up to M, to be removed */
    struct log_file *files;
    size_t file_count;
    size_t hinted;   /* of them, so many first ones are known by their hints */
    size_t walked;   /* ... and so many are in the store's list: the last has the end */
    uint64_t proven; /* an index that something proves to have been committed here */
    uint64_t commit; /* the highest that an intact entry names */
    /* A window on the segment that is being walked. */
    struct segment *at;
    uint64_t at_size;
    struct buf window;
    uint64_t window_offset;
    uint64_t end_offset; /* of the log, in the last walked file */
    /* What intact entries behind the end say: */
    uint64_t later_commit, later_index; /* the highest commit, and whose it is */
    uint64_t claim_index, claim_term;   /* the last that is known to have been here */
    bool hole;                          /* the end is damaged */
    uint64_t tail_bytes; /* after the end, up to the last that is not zero */
    uint64_t cut_bytes;
    uint64_t hints_used, hints_rebuilt;
    char damage[STORE_ERROR_BYTES];
};

/* recovery_files.c: names, small files, headers. */
int recovery_list(struct recovery *r, bool *ret_missing);
int recovery_load_small_files(struct recovery *r, bool no_log);
int recovery_open_files(struct recovery *r);

/* recovery_hints.c: what hints tell: the first segments, and the keydir so far. */
int recovery_use_hints(struct recovery *r);

/* recovery_log.c: walks what no hint tells, and judges where it ends. */
int recovery_walk(struct recovery *r);
int recovery_judge(struct recovery *r);
/* At least `length` bytes at `offset` of r->at, unless the file ends before. */
int recovery_look(struct recovery *r, uint64_t offset, size_t length, const uint8_t **ret,
                  size_t *ret_length);
void recovery_claim(struct recovery *r, uint64_t index, uint64_t term);
int recovery_add_run(struct store *s, const struct store_entry *entry);

/* recovery_settle.c: what was judged becomes so on disk, and durable (G4). */
int recovery_settle(struct recovery *r);

#endif
