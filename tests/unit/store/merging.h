/* merging.h - what the tests of merging share. */
#ifndef TIERCE_STORE_MERGING_H
#define TIERCE_STORE_MERGING_H

#include "fixture.h"

enum {
    SEGMENT = 16 << 10,
    STATE_FILES = 2 * 8192, /* raft.state and commit.hint */
};

void open_new(struct fixture *f, uint64_t segment_bytes);
/* A value that says whose it is, of at least 20 bytes: not in the keydir. */
const char *value_of(unsigned key, unsigned version, size_t size);
const char *key_of(unsigned key);
void put_key(struct fixture *f, unsigned key, unsigned version, size_t size);
struct store_stats stats_of(struct fixture *f);
uint64_t base_of(struct fixture *f);
/* Puts keys from `key` on until the active segment has been left `rolls` times; the next.
 */
unsigned fill_segments_with(struct fixture *f, unsigned key, unsigned rolls, size_t size);
unsigned fill_segments(struct fixture *f, unsigned key, unsigned rolls);
const char *file_of(uint64_t id, const char *suffix);

/* Exactly the files that belong to the store are there. */
void check_names(struct fixture *f);
/* A new store in which a merge of log and merged files is due, tombstones among them. */
void make_due(struct fixture *f);
void check_due(struct fixture *f); /* it has what was put */
/* One task: 1; 0: none is due; negative: the error that ended it. */
int try_task(struct fixture *f);

#endif
