/*
 * linear.h - is a history linearizable? After Wing and Gong (1993), with the memory of
 * configurations of Lowe (2016): depth first over the orders that respect real time,
 * never twice from the same (set of calls done, state).
 *
 * A call whose answer never came may have happened at any time after it was made, or
 * never.
 */
#ifndef TIERCE_LINEAR_H
#define TIERCE_LINEAR_H

#include "base.h"

enum { LINEAR_STATE = 128, LINEAR_CALLS = 1024 };

struct linear_call {
    uint64_t invoked,
        returned; /* of one clock that never stands; UINT64_MAX: no answer */
    unsigned kind, client;
    uint64_t a, b; /* what was asked */
    int64_t error; /* what was answered */
    uint64_t r1, r2;
};

/* In r1, r2: answered, but without this, as calls through a mount are. */
#define LINEAR_NOT_TOLD UINT64_MAX

struct linear_model {
    size_t state_bytes; /* at most LINEAR_STATE; compared as bytes */
    void (*begin)(void *state);
    /* Whether the call may give this answer in this state (without one: any), and the
     * state after it. */
    bool (*step)(void *state, const struct linear_call *call, bool answered);
};

enum linear_verdict { LINEAR_YES, LINEAR_NO, LINEAR_UNDECIDED };

/* `budget`: steps to take at most. `ret_stuck`: of LINEAR_NO, the call that no order
 * could place, of the longest attempt. */
enum linear_verdict linear_check(const struct linear_model *model,
                                 const struct linear_call *calls, size_t count,
                                 uint64_t budget, size_t *ret_stuck);

/* ---- The models of models.c
 * ------------------------------------------------------------ */

enum linear_register { REGISTER_WRITE, REGISTER_READ };
extern const struct linear_model linear_register; /* a: written; r1: read (0: none yet) */

enum linear_list { LIST_APPEND, LIST_READ };
/* a: appended; r1: length after it. READ: r1 length, r2 linear_list_hash of all. */
extern const struct linear_model linear_list;
uint64_t linear_list_hash(uint64_t hash, uint64_t value);

enum { NAMES = 6, NAMES_LINKS_MOST = LIMIT_OF(65000, 4) };
enum linear_names {
    NAMES_MAKE,   /* a: name; b: inode asked for, 0: any; r1: inode */
    NAMES_MKDIR,  /* likewise */
    NAMES_UNLINK, /* a: name; r1: the inode that went */
    NAMES_RMDIR,
    NAMES_RENAME, /* a, b: names; r1: inode moved, r2: the one that lost its last name */
    NAMES_RENAME_NOREPLACE,
    NAMES_LOOKUP,   /* a: name; r1: inode, 0: none */
    NAMES_LINK,     /* a: inode; b: its new name */
    NAMES_EXCHANGE, /* a, b: names; r1: inode that was at a */
};
/* Errors are negative errno. Directories stay empty. */
extern const struct linear_model linear_names;

#endif
