/*
 * solo.h - one node, driven by hand: each call is one step, `u` the update of the last.
 */
#ifndef TIERCE_TEST_RAFT_SOLO_H
#define TIERCE_TEST_RAFT_SOLO_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>

#include "raft.h"

enum { T_US = 150000, BEAT_US = 50000 };

struct solo {
    struct raft *raft;
    uint64_t now_us;
    struct raft_update u;
};

/* Node 1 of voters 1..`voters`, whose log has entries of these terms (0 ends them). */
struct solo solo_new(uint32_t voters, const uint64_t *terms);
void solo_free(struct solo *s);

int solo_step(struct solo *s, struct raft_event e);      /* and raft_check() */
int solo_tick(struct solo *s, uint64_t us);              /* `us` later */
int solo_receive(struct solo *s, struct raft_message m); /* to 1; no entries */
/* An APPEND of `term` from `from` with entries of these terms after (prev, prev_term). */
int solo_append(struct solo *s, uint64_t from, uint64_t term, uint64_t prev,
                uint64_t prev_term, const uint64_t *terms, uint64_t commit);
int solo_durable(struct solo *s, uint64_t index); /* of the current generation */
int solo_propose(struct solo *s, uint64_t count);
int solo_compact(struct solo *s, uint64_t index);
int solo_apply(struct solo *s, uint64_t index);
/* Makes node 1 the leader of term + 1, its own first entry durable, all connected. */
void solo_lead(struct solo *s);
/* Peer says: match, applied, round in the current term. */
int solo_ack(struct solo *s, uint64_t from, uint64_t match, uint64_t applied,
             uint64_t round);
/* The driver sent everything it was asked to in the last update. */
void solo_sent_all(struct solo *s);

/* The `nth` (from 0) message of the last update of this type to `to` (0: anyone). */
const struct raft_message *solo_message(const struct solo *s, enum raft_message_type type,
                                        uint64_t to, size_t nth);

/* An APPEND to `to` of the last update, with entries, or without. */
const struct raft_message *solo_entries_to(const struct solo *s, uint64_t to);
const struct raft_message *solo_empty_to(const struct solo *s, uint64_t to);

/* A new node 1 that leads; and one whose own entry is committed and everything answered:
 * its log is 1..1. */
struct solo solo_leader_of(uint32_t voters, const uint64_t *terms);
struct solo solo_settled(uint32_t voters);
int solo_sent(struct solo *s, uint64_t peer, uint64_t index);
int solo_refuse(struct solo *s, uint64_t from, uint64_t index, uint64_t term);

#define TERMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

#endif
