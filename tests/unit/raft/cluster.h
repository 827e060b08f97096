/*
 * cluster.h - a whole cluster in one process and in virtual time: a queue of packets, a
 * disk per node that confirms late and loses what it did not confirm, and the driver's
 * duties of raft.h, kept simply: merged files are a base, and fetching them takes time
 * and copies what was committed. After every step the properties of Raft are checked
 * against what all nodes ever did; a violation fails the test.
 */
#ifndef TIERCE_TEST_RAFT_CLUSTER_H
#define TIERCE_TEST_RAFT_CLUSTER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "raft.h"

enum {
    NODES_MAX = 8,    /* ids 1 .. NODES_MAX - 1 */
    LOG_MAX = 2048,   /* entries of a log */
    TERMS_MAX = 4096, /* of a run */
    BATCH_MAX = 8,    /* entries of a packet */
    PACKETS_MAX = 4096,
    WRITES_MAX = LOG_MAX,
    CONFIGS_MAX = 512,
    INNER_MAX = 64, /* events of a node to itself */
    SEEN_SLOTS = 1 << 14,
    READS_MAX = 64,
};

enum { ELECTION_US = 150000, HEARTBEAT_US = 50000 };

struct entry {
    uint64_t term;
    uint64_t value;
    uint64_t chain; /* of all entries up to this */
    int config;     /* of cluster.configs; 0: none */
};

struct packet {
    uint64_t due_us;
    uint64_t order;
    struct raft_message message;
    uint32_t count;
    struct entry entries[BATCH_MAX];
};

struct write {
    uint64_t index, generation, due_us;
    uint64_t kept; /* of it no truncation has dropped more */
};

/* Merged files on their way here: what was committed up to `index`, made at `claim`. */
struct fetch {
    uint64_t from, index, claim, due_us; /* from 0: none */
};

struct node {
    uint64_t id;
    struct raft *raft; /* NULL: down */
    uint64_t lives;
    /* Disk: entries 1..last, of which all up to `durable` survive a crash. */
    struct entry log[LOG_MAX + 1];
    uint64_t last, durable;
    uint64_t term, vote;
    uint64_t hint; /* a commit index that was written */
    uint64_t base; /* merged: not to be read any more, but by the checks */
    uint64_t claim_index, claim_term;
    struct write writes[WRITES_MAX];
    size_t write_count;
    /* The driver's. */
    uint64_t applied, commit, visible;
    struct fetch fetch;
    uint64_t deadline_us;
    uint64_t confirmed_round;
    bool link_full[NODES_MAX];
    struct raft_event inner[INNER_MAX];
    size_t inner_count;
    enum raft_role role;
    uint64_t leading_term;
    /* Knobs. */
    bool disk_held; /* no write is confirmed */
    bool apply_held;
    uint64_t paused_until_us; /* as by SIGSTOP: all that comes waits */
};

struct pending_read {
    uint64_t node, term, round, index, committed;
};

struct faults {
    uint32_t lose, duplicate, reorder; /* per mille of packets */
};

struct counts {
    uint64_t steps, lost, duplicated, reordered, partitions, crashes, lost_entries,
        restarts, proposed, config_changes, transfers, reads_confirmed, elections,
        truncations, full_links, disconnects, committed, compactions, offers, installs,
        installs_refused, damages, pauses;
};

struct seen {
    uint64_t index, term, chain;
};

struct cluster;
/* After each step of a node that did something. */
typedef void cluster_watch(struct cluster *c, struct node *n, const struct raft_event *e);

struct cluster {
    cluster_watch *watch; /* NULL: nobody looks */
    uint64_t now_us, seed, order, next_value;
    uint64_t latency_us, disk_us;
    uint32_t node_count;
    struct node nodes[NODES_MAX]; /* by id */
    struct packet *packets[PACKETS_MAX];
    size_t packet_count;
    bool cut[NODES_MAX][NODES_MAX]; /* packets from .. to .. are lost */
    struct raft_config configs[CONFIGS_MAX];
    int config_count;
    struct faults faults;
    struct counts counts;
    /* What ever happened. */
    struct entry committed[LOG_MAX + 1];
    uint64_t committed_in[LOG_MAX + 1]; /* the term in which it first was */
    uint64_t committed_last;
    uint64_t leader_of[TERMS_MAX];
    struct seen seen[SEEN_SLOTS];
    struct pending_read reads[READS_MAX];
    size_t read_count;
};

/* Nodes 1..voters vote, voters + 1..total are learners; all are up and connected. */
struct cluster *cluster_new(uint32_t voters, uint32_t total, uint64_t seed);
/* The same, not started: logs may be made with cluster_log() first. */
struct cluster *cluster_make(uint32_t voters, uint32_t total, uint64_t seed);
/* A node that is no member: its id. */
uint64_t cluster_outsider(struct cluster *c);
/* Gives a stopped node a log, a term for each entry, all durable. */
void cluster_log(struct cluster *c, uint64_t id, const uint64_t *terms, size_t count);
void cluster_free(struct cluster *c);

void cluster_start(struct cluster *c, uint64_t id);
/* Merges a node's log up to `index`, which it has applied. */
void cluster_compact(struct cluster *c, uint64_t id, uint64_t index);
/* What a stopped node has after `to` is behind a hole; it knows that its last entry was
 * committed (false: it was not, and nothing is changed). */
bool cluster_damage(struct cluster *c, uint64_t id, uint64_t to);
/* Wiped: a stopped node's disk is empty, its hard state excepted. */
void cluster_wipe(struct cluster *c, uint64_t id);
/* Power off: of what was not confirmed as durable, any part may be gone. */
void cluster_crash(struct cluster *c, uint64_t id);
void cluster_pause(struct cluster *c, uint64_t id, uint64_t us);
void cluster_cut(struct cluster *c, uint64_t a, uint64_t b, bool cut); /* both ways */
void cluster_isolate(struct cluster *c, uint64_t id, bool cut);
/* The connection breaks and comes again: what is in flight is lost, both sides hear. */
void cluster_reconnect(struct cluster *c, uint64_t a, uint64_t b);
void cluster_disconnect(struct cluster *c, uint64_t a, uint64_t b);

/* Steps a node and does what the update asks; the step's result. */
int cluster_event(struct cluster *c, uint64_t id, struct raft_event event);
int cluster_propose(struct cluster *c, uint64_t id, uint64_t count);
int cluster_config(struct cluster *c, uint64_t id, const struct raft_config *config);
int cluster_read(struct cluster *c, uint64_t id);
void cluster_drain(struct cluster *c, uint64_t id, uint64_t peer); /* its link has room */

void cluster_advance(struct cluster *c);          /* the next thing that is due */
void cluster_run(struct cluster *c, uint64_t us); /* all of this time */
/* Until one node, up and not cut off by `except`, leads; its id. Fails the test if none.
 */
uint64_t cluster_elect(struct cluster *c);
uint64_t cluster_leader(const struct cluster *c); /* of the highest term; 0: none */
struct raft *cluster_raft(struct cluster *c, uint64_t id);
/* All nodes that are up and not in `except` (a bit per id) have applied the same. */
bool cluster_agrees(const struct cluster *c, uint32_t except);

/* Named by a failure. */
extern uint64_t cluster_seed_running;

uint64_t cluster_chance(struct cluster *c, uint64_t below);

#endif
