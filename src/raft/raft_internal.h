/*
 * raft_internal.h - the state of one node, and what the files of this folder share.
 *
 * All functions run inside raft_step(): `now_us` is its time, `out` the update that it
 * builds. A handler first checks and reserves, then changes, so that an error leaves the
 * state as it was.
 */
#ifndef TIERCE_RAFT_INTERNAL_H
#define TIERCE_RAFT_INTERNAL_H

#include "raft.h"

enum {
    VISIBLE_SLACK = 64,            /* entries a member may lack when it enters V */
    LINKS_MAX = 2 * LIMIT_MEMBERS, /* connected nodes remembered, members or not */
    QUORUM_TIMEOUTS = 2,           /* election timeouts until a leader gives up */
    TRANSFER_TIMEOUTS = 2,         /* until a transfer is abandoned */
    VISIBLE_TIMEOUTS =
        4,              /* until a silent member, or one that applies nothing, leaves V */
    VISIBLE_FORGIVEN = 8, /* of so much time one part in which a member was late */
    REACH_TIMEOUTS = 2, /* until a silent node counts as unreachable */
};

/* ---- The log, as runs of one term
 * -------------------------------------------------------- */

struct runs {
    uint64_t base_index, base_term;
    struct raft_run *at; /* `last` and `term` both ascend strictly */
    size_t count, capacity;
};

void runs_release(struct runs *l);
int runs_reserve(struct runs *l, size_t more); /* 0 or -ENOMEM */
/* Room must have been reserved; `last` lies beyond the log's, `term` not before its. */
void runs_append(struct runs *l, uint64_t last, uint64_t term);
void runs_truncate(struct runs *l, uint64_t to);
void runs_compact(struct runs *l, uint64_t to); /* up to `to`, in the log: the new base */
/* Nothing is left: the next entry follows (index, term). */
void runs_restart(struct runs *l, uint64_t index, uint64_t term);
uint64_t runs_last_index(const struct runs *l);
uint64_t runs_last_term(const struct runs *l);
/* 0 where the index is neither in the log nor its base. */
uint64_t runs_term_of(const struct runs *l, uint64_t index);
/* The newest index, at most `index`, whose term is at most `term`; the base at least. */
uint64_t runs_newest_at(const struct runs *l, uint64_t index, uint64_t term);
/* The first index after `after` at which the given runs and the log differ, or at which
 * the log has ended; 0: none up to the last of the runs. */
uint64_t runs_difference(const struct runs *l, uint64_t after, const struct raft_run *at,
                         size_t count);
/* Whether `count` runs follow (index, term) with ascending indexes and terms up to `max`.
 */
bool runs_follow(const struct raft_run *at, size_t count, uint64_t index, uint64_t term,
                 uint64_t max);

/* ---- State
 * --------------------------------------------------------------------------------- */

/* As a follower: gone with the leader it speaks of. */
struct following {
    uint64_t leader;
    uint64_t heard_us;
    uint64_t verified; /* the log is known to equal the leader's up to this */
    uint64_t round;    /* the newest that the leader sent */
    uint64_t floor;    /* what it said with that */
};

struct campaign {
    bool pre;
    bool transfer;
    uint32_t granted_count;
    uint64_t granted[LIMIT_MEMBERS];
};

enum peer_mode {
    PEER_PROBE, /* where the logs part is not known: one append with entries at most */
    PEER_REPLICATE, /* entries are sent ahead of the answers */
    PEER_SNAPSHOT,  /* what it lacks is not in the log any more */
};

struct peer {
    uint64_t id;
    enum peer_mode mode;
    uint64_t match; /* durable there, and equal to this log */
    uint64_t next;  /* the first entry not sent yet */
    uint64_t probe; /* PROBE: what its appends follow; sent entries lie above */
    bool refused;   /* PROBE: entries only after an answer that agrees */
    bool sending;   /* RAFT_SENT is awaited, for entries after sending_prev */
    bool full;      /* its connection: RAFT_SENT with 0 is awaited */
    uint64_t sending_prev, sending_last;
    uint64_t progress_us; /* of match, or the begin of what is in flight */
    uint64_t heard_us;
    uint64_t round;
    /* V, the members that hold `visible` back. */
    uint64_t applied;
    uint64_t applied_us; /* it advanced, or began to lag */
    bool holds;
    bool stuck; /* left V lagging, and has applied nothing since */
    bool slow;  /* left V because it alone was late too often */
    uint64_t late_index; /* not applied here when all others in V had it; 0: none */
    uint64_t late_us;    /* since then */
    uint64_t late_spent_us, late_spent_at_us; /* lately, and reckoned up to then */
    /* Within one step. */
    bool beat_due; /* an empty append, whatever else is sent */
    bool tell_due; /* any append */
};

struct leadership {
    uint64_t elected_us;
    uint64_t elected_last, elected_commit;
    uint64_t heartbeat_due_us;
    uint64_t round, confirmed_round;
    uint64_t visible;
    uint64_t transfer_to; /* 0: none */
    uint64_t transfer_due_us;
    bool transfer_asked; /* TIMEOUT_NOW is sent */
    bool resign;         /* step down when the transfer times out */
    uint32_t peer_count;
    struct peer peers[LIMIT_MEMBERS];
};

struct raft {
    uint64_t id;
    uint64_t seed;
    uint64_t election_us, heartbeat_us;
    uint64_t now_us;

    uint64_t term, vote;
    enum raft_role role;
    bool eligible;
    uint64_t election_due_us; /* not the leader's */

    struct runs log;
    uint64_t commit, durable, applied;
    uint64_t claim_index, claim_term; /* committed here, and beyond the log; 0: none */
    uint64_t generation;
    struct raft_config config, pending_config;
    uint64_t config_index, pending_config_index; /* pending: 0, none */

    uint32_t link_count;
    uint64_t links[LINKS_MAX]; /* connected */

    /* Of these only the role's own is not zero; role.c alone begins and ends them. */
    struct following follow;
    struct campaign campaign;
    struct leadership lead;

    struct raft_update out;
};

/* ---- raft.c
 * -------------------------------------------------------------------------------- */

/* A new message of this step, from here, with the current term. */
struct raft_message *message_add(struct raft *r, enum raft_message_type type,
                                 uint64_t to);
bool link_is_up(const struct raft *r, uint64_t id);
/* (0, 0), or an index and a term of a log that ends in `term` at the latest. */
bool position_is_possible(uint64_t index, uint64_t at_term, uint64_t term);

/* ---- role.c: every change of role and term
 * ---------------------------------------------------- */

void role_follow(struct raft *r, uint64_t term, uint64_t leader);
void role_campaign(struct raft *r, bool pre, bool transfer);
void role_lead(struct raft *r);
void vote_set(struct raft *r, uint64_t vote);

/* ---- config.c
 * ---------------------------------------------------------------------------------- */

bool config_valid(const struct raft_config *c);
const struct raft_member *config_find(const struct raft_config *c, uint64_t id);
bool config_votes(const struct raft_config *c, uint64_t id);
bool config_is_near(const struct raft_config *a, const struct raft_config *b);
const struct raft_config *config_in_force(const struct raft *r);
bool config_is_sole_voter(const struct raft *r);
void config_adopt(struct raft *r, const struct raft_config *c, uint64_t index);
void config_truncate(struct raft *r, uint64_t to);
void config_commit(struct raft *r);
/* The highest value that a majority of `count` (not 0) reaches; sorts them. */
uint64_t quorum_value(uint64_t *values, uint32_t count);
/* The same over the voters in force: `own` for this node, `of` for the others. */
uint64_t quorum_of(const struct raft *r, uint64_t own,
                   uint64_t (*of)(const struct peer *));

/* ---- election.c
 * -------------------------------------------------------------------------------- */

void election_reset(struct raft *r);
void election_tick(struct raft *r);
bool election_may_campaign(const struct raft *r);
bool election_is_alone(const struct raft *r); /* it may campaign, and needs nobody */
void election_count(struct raft *r, uint64_t voter);
int vote_receive(struct raft *r, const struct raft_event *e);
int vote_reply_receive(struct raft *r, const struct raft_event *e);
int timeout_now_receive(struct raft *r, const struct raft_event *e);

/* ---- append.c: a follower's side
 * ----------------------------------------------------------------- */

int append_receive(struct raft *r, const struct raft_event *e);
void append_reply(struct raft *r); /* what is durable and applied here, to the leader */
uint64_t append_match(const struct raft *r);

/* ---- install.c: where the log begins, and what lies beyond its end
 * -------------------------- */

int compacted_handle(struct raft *r, const struct raft_event *e);
int installed_handle(struct raft *r, const struct raft_event *e);
/* Of two claims the farther counts, and none that the log has reached. */
void claim_note(struct raft *r, uint64_t index, uint64_t term);

/* ---- replicate.c: a leader's side
 * ---------------------------------------------------------------- */

struct peer *peer_find(struct raft *r, uint64_t id);
void peer_probe(struct raft *r, struct peer *p);
void peers_compact(struct raft *r); /* the log's base has moved */
uint64_t lead_floor(const struct raft *r);
/* Takes the configuration in force over into the peers; `holds`: new ones enter V. */
void peers_sync(struct raft *r, bool holds);
void peers_beat(struct raft *r, bool voters_only);
int append_reply_receive(struct raft *r, const struct raft_event *e);
int propose_handle(struct raft *r, const struct raft_event *e);
int sent_handle(struct raft *r, const struct raft_event *e);
void commit_advance(struct raft *r);
bool lead_is_heard(const struct raft *r); /* by a majority, lately */
void lead_tick(struct raft *r);
void lead_finish(struct raft *r); /* at the end of each step of a leader */
uint64_t lead_deadline(const struct raft *r);

/* ---- read.c: rounds, and what is visible
 * --------------------------------------------------------- */

int read_handle(struct raft *r, const struct raft_event *e);
void round_begin(struct raft *r);
void round_confirm(struct raft *r);
void visible_hear(struct raft *r, struct peer *p, uint64_t applied);
void visible_lag(struct raft *r, uint64_t former_commit);
void visible_forget(struct peer *p);
void visible_update(struct raft *r);
uint64_t visible_deadline(const struct raft *r, const struct peer *p);

/* ---- transfer.c
 * ---------------------------------------------------------------------------------- */

int transfer_handle(struct raft *r, const struct raft_event *e);
int eligible_handle(struct raft *r, const struct raft_event *e);
void transfer_try(struct raft *r);
void transfer_lose(struct raft *r, uint64_t peer);
void transfer_tick(struct raft *r);
uint64_t transfer_best(const struct raft *r);
bool peer_is_reachable(const struct raft *r, const struct peer *p, uint64_t now_us);

/* ---- check.c ----------------------------------------------------------------------- */

void check_state(
    const struct raft *r); /* all of raft_check() but the walk over the runs */

#endif
