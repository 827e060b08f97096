/*
 * raft.h - consensus as a pure step: (state, event, time) -> update.
 *
 * No I/O, no clock, no threads, no callbacks; memory is allocated only in raft_new() and when
 * the list of term runs grows. The core never sees entry bytes: it knows the log as *runs*
 * (consecutive entries of one term) and asks its driver to append, send and truncate ranges of
 * indexes. The simulator and the daemon drive the very same code.
 *
 * After Ongaro's dissertation (2014): sections 3 (basics), 4.1 (single-server membership
 * changes), 4.2.1 (learners), 3.10 (transfer), 6.4 (ReadIndex), 9.6 (pre-vote).
 *
 * The driver's duties, in this order, for each update:
 *   1. hard_state_changed: make (term, vote) durable. Until that is done it sends no message
 *      of this or a later update (they queue up in order), and writes no later append.
 *   2. truncate: drop all entries after truncate_to, durably, before any later append (G3).
 *   3. append_first..append_last: append these entries of the RAFT_RECEIVE event's message.
 *      When they are durable: RAFT_DURABLE with the generation of this update.
 *   4. Send the messages, in order. Losing, delaying, doubling any is allowed.
 *   5. Apply entries up to `commit`, as far as they are durable here; then RAFT_APPLIED.
 *   6. want_noop: propose one entry (RAFT_PROPOSE) in the same turn.
 *   7. Call again at deadline_us with RAFT_TICK at the latest.
 *   8. snapshot_offered: fetch the merged files and install them, beside all else.
 *
 * The log's beginning is the driver's: it may drop entries that are applied once a merge
 * has published them (RAFT_COMPACTED), and replace log and state by another node's merged
 * files (RAFT_INSTALLED). A *claim* is what this node can prove to have been committed here
 * beyond the end of its log: behind a hole in the log (G6), or at the index E > last at
 * which merged files were made (G7). Until the log has reached it, or ends in a later term
 * (whose leader would have what was committed), this node votes only for
 * logs that are at least as current, and is no candidate itself.
 *
 * Times are microseconds of a clock that does not go back (CLOCK_BOOTTIME). Indexes start at
 * 1; 0 means none. Node ids are not 0. One thread at a time.
 */
#ifndef TIERCE_RAFT_H
#define TIERCE_RAFT_H

#include "base.h"

struct raft;

enum raft_role {
    RAFT_FOLLOWER,  /* also a learner, whose configuration entry says voter = false */
    RAFT_CANDIDATE, /* asking, in pre-vote or in a vote */
    RAFT_LEADER,
};

struct raft_member {
    uint64_t id;
    bool voter;
};

struct raft_config {
    uint32_t count;
    struct raft_member members[LIMIT_MEMBERS];
};

/* Entries after the former run's last (or the log's base) up to `last` have `term`. */
struct raft_run {
    uint64_t last;
    uint64_t term;
};

/* What recovery found; copied by raft_new(). */
struct raft_options {
    uint64_t id;
    uint64_t seed;         /* of the election timeouts; not 0 */
    uint64_t election_us;  /* T: timeouts are drawn from [T, 2T); 150000 by default */
    uint64_t heartbeat_us; /* 50000 by default */
    uint64_t term, vote;   /* hard state */
    uint64_t base_index, base_term; /* of the last entry before the log's first (merge) */
    const struct raft_run *runs;
    size_t run_count;
    uint64_t commit; /* proven committed; at least base_index, at most the log's last */
    uint64_t claim_index, claim_term; /* up to the log's last (0): none. Exact: too low a
                                         term would give votes away */
    /* The newest configuration at or below `commit`, and the one after it, if any. Where
     * the log has two beyond `commit`: these two, for the former must be committed. */
    struct raft_config config;
    uint64_t config_index;
    struct raft_config pending_config;
    uint64_t pending_config_index; /* 0: none */
};

/* ---- Messages ------------------------------------------------------------------------- */

enum raft_message_type {
    RAFT_VOTE = 1,
    RAFT_VOTE_REPLY,
    RAFT_APPEND, /* also the heartbeat: no entries */
    RAFT_APPEND_REPLY,
    RAFT_TIMEOUT_NOW, /* a transfer: campaign at once */
    RAFT_SNAPSHOT,    /* a heartbeat to a peer that this log cannot serve: "yours ends
                         before mine begins: fetch my merged files" */
};

struct raft_message {
    enum raft_message_type type;
    uint64_t from, to;
    uint64_t term; /* sender's; of a pre-vote and its reply: the term asked for */
    /* VOTE, VOTE_REPLY */
    bool pre;
    bool transfer; /* VOTE: the leader asked for it; stickiness does not apply */
    bool granted;
    uint64_t last_index, last_term;
    /* APPEND: entries first..last (none: last = prev_index), which follow (prev_index,
     * prev_term); the driver encodes them, may send a shorter prefix, and reports
     * RAFT_SENT with what it sent.
     * SNAPSHOT: prev is the base of the leader's log; last = prev_index. */
    uint64_t prev_index, prev_term;
    uint64_t last;
    uint64_t commit;
    uint64_t round; /* numbers the leader's rounds within its term; each new */
    uint64_t floor; /* the leader's raft_floor() */
    /* APPEND_REPLY */
    bool ok;          /* the consistency check passed */
    uint64_t match;   /* ok: durable here and known to equal the leader's log up to this */
    uint64_t applied; /* applied here */
    uint64_t hint_index, hint_term; /* !ok: the newest entry here that may agree */
};

/* ---- Events --------------------------------------------------------------------------- */

enum raft_event_type {
    RAFT_TICK = 1,     /* time has passed */
    RAFT_RECEIVE,      /* `message`; for APPEND with entries also runs and config */
    RAFT_DURABLE,      /* entries up to `index` of `generation` are durable here */
    RAFT_APPLIED,      /* entries up to `index` are applied here */
    RAFT_PROPOSE,      /* `count` entries, already encoded for last_index + 1.., are appended
                          by the driver if the step returns 0. `config`: the one entry is a
                          membership change (count = 1). */
    RAFT_READ,         /* wants leadership confirmed: update.read_round says by which round */
    RAFT_SENT,         /* entries up to `index` were sent to `peer` (prev_index of the
                          message: none could be sent now; RAFT_SENT again with 0 when the
                          connection drains) */
    RAFT_CONNECTED,    /* messages to `peer` may arrive again */
    RAFT_DISCONNECTED, /* what was in flight to and from `peer` may be lost */
    RAFT_TRANSFER,     /* hand leadership to `peer`, 0: to the best */
    RAFT_ELIGIBLE,     /* `eligible`: may this node lead? (G2: not with a wild clock) */
    RAFT_COMPACTED,    /* the log now begins after `index`, which is applied and durable;
                          0 and no effect where it does so already */
    RAFT_INSTALLED,    /* log and state were replaced by a snapshot that ends in (`index`,
                          `term`), durably; `config` of `config_index` (<= index) is in
                          force there; claim_index, claim_term (0: none): where its merged
                          files were made (G7). Nothing of the former log is left: its
                          RAFT_DURABLE do not count any more. A farther claim of before
                          stays: what recovery finds must then prove that too. Where
                          replacing takes time: step this first, and hold messages and
                          appends back until it is durable, as for a hard state. */
};

struct raft_event {
    enum raft_event_type type;
    uint64_t index;
    uint64_t generation;
    uint64_t peer;
    uint64_t count;
    bool eligible;
    uint64_t term;                    /* RAFT_INSTALLED */
    uint64_t claim_index, claim_term; /* RAFT_INSTALLED */
    const struct raft_message *message;
    /* RAFT_RECEIVE of APPEND: the terms of the message's entries, as runs that end at
     * message->last; and the configuration among them, if there is one (at most one may be
     * uncommitted at a time; of several the driver gives the last, and in previous_config
     * the one before it). */
    const struct raft_run *runs;
    size_t run_count;
    const struct raft_config *config;
    uint64_t config_index;
    const struct raft_config *previous_config;
    uint64_t previous_config_index;
};

/* ---- Update ---------------------------------------------------------------------------- */

enum { RAFT_UPDATE_MESSAGES = 4 * LIMIT_MEMBERS };

struct raft_update {
    bool hard_state_changed;
    bool truncate;
    uint64_t truncate_to;
    uint64_t append_first, append_last; /* 0, 0: none, and always of RAFT_PROPOSE */
    uint64_t generation;                /* current; tags the append (G3) */
    bool want_noop;                     /* became leader */
    bool role_changed;                  /* role, term or leader differ from before */
    uint64_t commit;
    uint64_t visible;      /* leader: all reachable members, but for the late (D27), have
                              applied up to this */
    uint64_t read_round;   /* RAFT_READ: confirmed once confirmed_round reaches it */
    uint64_t confirmed_round; /* leader: a majority answered a round first sent at or after */
    /* The leader's log begins after snapshot_index, where this one has not arrived: fetch
     * merged files from snapshot_from that reach at least so far. Said again with each of
     * its heartbeats, until the log has arrived there, by whatever way. */
    bool snapshot_offered;
    uint64_t snapshot_index, snapshot_term;
    uint64_t snapshot_from;
    uint64_t deadline_us;
    size_t message_count;
    struct raft_message messages[RAFT_UPDATE_MESSAGES];
};

/* ---- Life and the step ------------------------------------------------------------------- */

/* 0 or -ENOMEM; -EINVAL where the options contradict each other (runs not ascending, commit
 * beyond the log, no configuration). The new node is a follower. */
int raft_new(struct raft **ret, const struct raft_options *options, uint64_t now_us);
void raft_free(struct raft *r);

/* Errors leave the state as it was: -ENOMEM; RAFT_PROPOSE: -ENOTCONN not leader, -EBUSY a
 * transfer is under way or (config) another change is not committed yet, or no entry of the
 * own term is (S1); -EINVAL a config whose voters differ by more than one, or that has none;
 * RAFT_READ: -ENOTCONN, or -EAGAIN before S1; RAFT_TRANSFER: -ENOTCONN, -ENOENT no such
 * voter; RAFT_RECEIVE: -EPROTO a message no correct node sends (it is ignored);
 * RAFT_COMPACTED: -EINVAL beyond what is committed and durable; RAFT_INSTALLED: -EINVAL
 * where raft_may_install() says no. */
int raft_step(struct raft *r, const struct raft_event *event, uint64_t now_us,
              struct raft_update *ret);

/* Whether RAFT_INSTALLED would be taken now: to be asked before files are replaced, with no
 * step in between. A follower only; index beyond what is committed here, and not in the
 * log with that term already: what follows it there may count for somebody's majority. A
 * term above this node's: not yet, the messages of that term come first. */
bool raft_may_install(const struct raft *r, const struct raft_event *event);

/* ---- What the driver may ask --------------------------------------------------------------- */

enum raft_role raft_role(const struct raft *r);
uint64_t raft_term(const struct raft *r);
uint64_t raft_vote(const struct raft *r);
uint64_t raft_leader(const struct raft *r); /* 0: not known */
uint64_t raft_last_index(const struct raft *r);
uint64_t raft_last_term(const struct raft *r);
uint64_t raft_commit(const struct raft *r);
uint64_t raft_durable(const struct raft *r);
uint64_t raft_base(const struct raft *r);  /* the log begins after this index */
uint64_t raft_claim(const struct raft *r); /* the index of the claim; 0: none */
uint64_t raft_claim_term(const struct raft *r);
/* G8: all nodes keep their log from here on, where it does not go too far back, so that a
 * short lag never costs a snapshot: what every member that is reachable, and not waiting
 * for a snapshot, has durable. On a follower what its leader last said; 0: not known, as at
 * the begin of a leadership. */
uint64_t raft_floor(const struct raft *r);
/* Leader with an entry of its own term committed: S1's gate, but for applying it. */
bool raft_established(const struct raft *r);
/* Leader: a majority of voters is connected and was heard within an election timeout.
 * Others: a leader was heard within 2 * election_us and is connected. */
bool raft_has_quorum(const struct raft *r, uint64_t now_us);
bool raft_transferring(const struct raft *r);
/* 0 where `index` is not in the log (nor its base). */
uint64_t raft_term_of(const struct raft *r, uint64_t index);
/* The configuration in force: the newest in the log, committed or not. */
const struct raft_config *raft_config(const struct raft *r, uint64_t *ret_index);
bool raft_config_is_pending(const struct raft *r);

struct raft_peer_status {
    uint64_t match;   /* leader: known durable there */
    uint64_t applied; /* leader: known applied there */
    uint64_t next;    /* leader: the first entry not sent there, or to be sent again */
    bool reachable;   /* connected, and heard within 2 * election_us (own node: true) */
    bool snapshot;    /* leader: its log ends before this one begins */
};
/* False where `id` is not a member. On a follower only `reachable` of the leader and what
 * RAFT_CONNECTED said is known. */
bool raft_peer_status(const struct raft *r, uint64_t id, uint64_t now_us,
                      struct raft_peer_status *ret);

/* Verifies the invariants R1-R10 of README.md; ends the process where one is broken. */
void raft_check(const struct raft *r);

#endif
