/*
 * transfer.h - snapshots from one store to another. White-box: what a merge makes is made
 * by hand, to have it of any shape.
 */
#ifndef TIERCE_TRANSFER_H
#define TIERCE_TRANSFER_H

#include "fixture.h"
#include "store_internal.h"

enum { SENDER = 77 };

/* Puts so many keys, "key 00000" and so on, each fifth of a small value. */
void fill(struct fixture *f, int count, size_t value_bytes);
/* Everything that is live, in merged files of about `bytes` each, published in memory
 * only, so this store is good for sending alone: M and E are what is applied. A tombstone
 * stands last. */
void merge_all(struct fixture *f, size_t bytes);
/* A store with so much in it, merged. */
void sender_init(struct fixture *f, int count, size_t value_bytes, size_t file_bytes);

/* All steps: 0, or the error. */
int prepare_all(struct store_incoming *in, char error[STORE_ERROR_BYTES]);

struct transfer {
    struct store_snapshot *snapshot;
    struct store_incoming *in;
    struct buf description;
    uint64_t bytes; /* that were sent */
};

void transfer_open(struct transfer *t, struct fixture *from, struct fixture *to);
void transfer_run(struct transfer *t, struct fixture *to, size_t count); /* pieces */
void transfer_prepare(struct transfer *t, struct fixture *to);
void transfer_install(struct transfer *t, struct fixture *to);
void transfer_close(struct transfer *t, struct fixture *from);
/* All of these. */
void transfer_all(struct transfer *t, struct fixture *from, struct fixture *to);
/* The receiver follows the sender's log from there on. */
void follow(struct fixture *from, struct fixture *to);
/* Both hold the same keys, of the same timestamps, and can be read. */
void assert_same(struct fixture *a, struct fixture *b);

#endif
