/*
 * merge.h - a round of merging, shared by the files that make it: merge_plan.c chooses,
 * merge_copy.c copies, merge.c takes it through its life.
 */
#ifndef TIERCE_MERGE_H
#define TIERCE_MERGE_H

#include "store_internal.h"

/* What a round reads: a *victim*, whose live records are copied and which then goes, or
 * an *observer*, a merged file that stays, asked whether it holds an older record of a
 * key whose tombstone was met. */
struct merge_source {
    struct segment *segment; /* a reference */
    struct hint_reader *hint;
    struct hint_record at; /* the next record, while `more` */
    bool more;
    uint64_t copied;           /* victim: bytes of live records */
    uint64_t min_timestamp_us; /* observer */
    bool blind;                /* observer: its hint is damaged, it may hold anything */
};

struct merge_output {
    struct segment *segment; /* a reference */
    struct manifest_file file;
};

/* Each edge that is not marked is the merge thread's.
 *
 *   OPEN --> COPY --> CLOSE --step--> PUBLISH --> RELOCATE --step--> REMOVE --> done
 *     '--------'--------'----------------'--> GIVE_UP --step--> done
 */
enum merge_phase {
    MERGE_OPEN,     /* the victims' hints */
    MERGE_COPY,     /* in key order; output by output */
    MERGE_CLOSE,    /* the directory is synced: the outputs are there to stay */
    MERGE_PUBLISH,  /* the manifest */
    MERGE_RELOCATE, /* the keydir's pointers move to the outputs */
    MERGE_REMOVE,   /* the victims' files */
    MERGE_GIVE_UP,  /* the outputs' files are removed */
    MERGE_PHASES,
};

struct merge {
    struct store_task task;
    enum merge_phase phase;
    /* The plan: */
    struct merge_source *victims; /* first the log's, in order, then merged ones */
    size_t victim_count, log_count;
    struct merge_source *observers;
    size_t observer_count;
    bool observing;        /* their hints are open */
    struct segment *spare; /* lent; to be given up before anything else */
    struct chain merged;   /* M, when the round is done */
    /* The copy: */
    struct merge_source **heap; /* of victims with more, by key, the newest first */
    size_t heap_count;
    struct buf record;
    struct merged_writer *writer;
    uint64_t first_id, next_id, end_id; /* reserved for outputs */
    struct merge_output *outputs;       /* room for all those */
    size_t output_count;
    uint64_t kept_bytes;      /* of tombstones, in the output that is being written */
    uint64_t oldest_dropped;  /* timestamp: of the records that are left out */
    struct segment *bad_hint; /* a victim or observer */
    struct segment *hurt;     /* a victim with a bad record */
    /* Publishing: */
    struct manifest manifest;
    struct segment **list; /* the segments of its files */
    size_t relocated;      /* outputs done */
    struct hint_reader *relocating;
    size_t removed;   /* victims */
    uint64_t written; /* for the statistics */
};

/* The loop: chooses the victims; false: nothing is worth it now, or no memory. */
bool merge_plan(struct store *s, struct merge *m, uint64_t now_us);

/* The merge thread; 1: more to do; 0: the phase is done; -EBADMSG: bad_hint or hurt is
 * set; *ret_bytes: what was read and written. */
int merge_open(struct merge *m, uint64_t *ret_bytes);
int merge_copy(struct merge *m, uint64_t *ret_bytes);

#endif
