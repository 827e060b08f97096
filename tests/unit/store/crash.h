/*
 * crash.h - a scenario on a store, cut at each of its calls, and what may be found after.
 *
 * A scenario is a function that uses a store by the do_* words below. Each notes what the
 * world outside was told. crash_everywhere() runs it again and again, cut at the next
 * call, and from each cut makes disks that kept different parts of what was loose. Each
 * must recover to a state that what was noted explains: nothing that was acknowledged is
 * missing, nothing is applied that was not committed, and every key has the very value
 * and version that the committed entries give it.
 */
#ifndef TIERCE_STORE_CRASH_H
#define TIERCE_STORE_CRASH_H

#include "alloc.h"
#include "fixture.h"

enum {
    CRASH_ENTRIES = 512,
    CRASH_OPS = 3,
    CRASH_KEY_BYTES = 16,
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    CRASH_EXHAUSTIVE = 64, /* subsets of one cut: all of them up to here, */
    CRASH_SAMPLES = 16,    /* else that many by chance; and of what is older */
#else
    CRASH_EXHAUSTIVE = 4096,
    CRASH_SAMPLES = 64,
#endif
};

struct crash_op {
    char key[CRASH_KEY_BYTES];
    size_t size; /* of the value; SIZE_MAX: a tombstone */
    uint32_t serial;
    uint64_t timestamp_us;
};

struct crash_entry { /* one that was appended at some time */
    uint64_t index;
    uint32_t crc;
    bool going, gone; /* a truncation is to take it; has taken it */
    unsigned count;
    struct crash_op ops[CRASH_OPS];
};

/* What the world outside was told, and what is under way. */
struct truth {
    struct crash_entry entries[CRASH_ENTRIES];
    size_t count;
    uint64_t durable; /* acknowledged */
    uint64_t lowest;  /* the lowest index a truncation under way goes to */
    uint64_t term, vote, next_term, next_vote;
    uint64_t hint, next_hint;
    uint64_t commit;               /* the highest that is known */
    const struct history *history; /* where a follower's entries come from; NULL: here */
};

struct history;
struct scenario_run;
typedef void scenario(struct scenario_run *r);

struct scenario_run {
    struct fixture f;
    struct truth truth;
    uint64_t injected; /* faults that a call answered with an error */
    bool lying;        /* the disk: what is damaged is tried again and again */
    bool cut;          /* the power went, or a call failed: nothing more is done */
};

/* A leader: its store, and every entry it has appended. */
struct history {
    struct scenario_run run;
    struct store_bytes *bytes[CRASH_ENTRIES + 1]; /* by index */
};

/* Calls the store, and again where memory or a read failed: that leaves all as it was. */
#define CALL_STORE(run, rc, call)                                                        \
    do {                                                                                 \
        alloc_arm();                                                                     \
        (rc) = (call);                                                                   \
        alloc_disarm();                                                                  \
    } while (is_injected(run, rc))

/* Whether that is the error of a fault that was injected; the store is well then. */
bool is_injected(struct scenario_run *r, int rc);

/* A value that tells which one it is. */
void crash_value(uint8_t *to, size_t size, uint32_t serial);

/* Entries with values of about this size; some remove a key, some have several records.
 */
void do_append(struct scenario_run *r, uint64_t term, unsigned count, size_t size);
void do_truncate(struct scenario_run *r, uint64_t index, uint64_t generation);
void do_hard_state(struct scenario_run *r, uint64_t term, uint64_t vote);
void do_hint(struct scenario_run *r, uint64_t commit);
/* Runs the job; false where there is none, or where the power went. */
bool do_run(struct scenario_run *r);
void do_apply(struct scenario_run *r, uint64_t index);
/* Reads everything in every way. */
void do_look(struct scenario_run *r);
/* Background work, until none is due; false where there was none. Between its stretches
 * `beside` is called, where there is one. */
bool do_tasks(struct scenario_run *r, scenario *beside);
/* Stops and starts again. */
void do_reopen(struct scenario_run *r);

/* A leader with what the scenario does; entries are kept by do_run. */
void history_begin(struct history *h, scenario *what);
void history_release(struct history *h);
/* A follower of it appends its entries, up to this one. */
void do_follow(struct scenario_run *r, const struct history *h, uint64_t last);
/* And receives and installs its snapshot. */
void do_install(struct scenario_run *r, struct history *h);

/* Begins a run on a new store of small segments. */
void scenario_begin(struct scenario_run *r);
/* The state of an open store is the committed entries' up to what it has applied. */
void check_explained(const struct truth *t, struct store *s);
/* Opens what a crash has left, and judges what it finds. */
void check_recovered(const struct truth *t, struct fixture *after);
/* It goes on: merges, appends, stops, and finds what it was told is durable. */
void check_goes_on(const struct truth *t, struct fixture *after);

void crash_everywhere(scenario *what);
/* The process stops at any call, and the power goes at any call of the start after it. */
void crash_recovery_everywhere(scenario *what);
/* The Nth call fails, or writes half of its bytes; the process stops there and starts
 * again. */
void fail_everywhere(scenario *what);
/* The Nth allocation fails, alone or with all that the same call needs after it, or the Nth call that only reads: a clean error, nothing is
 * changed, the same call then succeeds, and nothing leaks. */
void starve_everywhere(scenario *what);
void fail_reads_everywhere(scenario *what);
/* Each write in turn lands elsewhere; one bit rots, anywhere: what is read is right, or an
 * error (lies.c). */
void lie_everywhere(scenario *what);
void rot_everywhere(scenario *what);

#endif
