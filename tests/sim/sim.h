/*
 * sim.h - whole nodes in one process and one thread, in virtual time; one seed decides
 * everything. docs/simulator.md is the tour.
 *
 *   world.c    time, the events' heap, threads as coroutines, chance, the trace
 *   threads.c  pthread_* for the code under test: each thread is a coroutine
 *   loop.c     libevent for the code under test: one loop a node
 *   net.c      wire.h: connections, frames, and what is done to them
 *   disk.c     store_io over a memory disk: latencies and faults
 *   seams.c    clock, randomness, log, RCU, mailbox, directory, the mount's entry
 *   node.c     nodes: made, booted, killed, paused, joined
 *   ledger.c   what was written, and what is committed
 *   check.c    invariants (numbered), beside every step; check_*.c
 *   client.c   what calls, and the history of it
 *   linear.c   the checker of histories
 *   plan.c     a seed's options, its phases
 *   faults.c   its faults
 *   scenario.c plays a script, for golden traces
 *   main.c     seeds, reports
 */
#ifndef TIERCE_SIM_H
#define TIERCE_SIM_H

#include "memory_disk.h"
#include "node_core.h"

enum {
    SIM_NODES = 12, /* in one life of a cluster, dead ones included */
    SIM_STACK = 256 * 1024,
};

#define SIM_MS ((uint64_t)1000)
#define SIM_S  ((uint64_t)1000 * 1000)

/* ---- world.c ------------------------------------------------------------------------
 */

struct sim_node;

struct sim_thread {
    struct sim_thread *next;
    struct sim_node *node;
    unsigned life;
    void *(*main)(void *arg);
    void *arg;
    void *context; /* world.c's */
    const void *waits_for;
    uint64_t waits; /* how often it has waited: an old timeout is not a new one's */
    bool timed_out, done;
    int saved_errno;
};

extern uint64_t sim_now;              /* true time, from 0 */
extern struct sim_node *sim_at_node;  /* whose code runs; NULL: the world's */
extern struct sim_thread *sim_thread; /* NULL: the scheduler itself */
extern uint64_t sim_steps;
extern struct sim_node *sim_last_node; /* of the last event */

void world_begin(uint64_t seed);
/* Calls fn(arg) after `delay_us`, for a node while it lives that life (NULL: the world).
 */
void sim_after(uint64_t delay_us, struct sim_node *node, void (*fn)(void *arg),
               void *arg);
/* Runs the next event. False: there is none up to `until_us`, and that is the time now.
 */
bool world_step(uint64_t until_us);
struct sim_thread *sim_thread_new(struct sim_node *node, void *(*main)(void *arg),
                                  void *arg, uint64_t delay_us);
/* In a thread. */
void sim_sleep(uint64_t us);
/* Until sim_wake() of the same; -ETIMEDOUT. UINT64_MAX: no timeout. */
int sim_wait(const void *what, uint64_t timeout_us);
void sim_wake(const void *what, bool all, uint64_t delay_us);
_Noreturn void sim_thread_exit(void);
/* The threads of a node that is no more. */
void sim_threads_drop(struct sim_node *node);

enum sim_stream {
    CHANCE_PLAN,
    CHANCE_NET,
    CHANCE_DISK,
    CHANCE_NODE,
    CHANCE_CLIENT,
    CHANCE_CPU,
    CHANCES
};
uint64_t chance(enum sim_stream stream);
uint64_t chance_below(enum sim_stream stream, uint64_t bound); /* [0, bound) */
bool chance_of(enum sim_stream stream, double probability);
/* Mostly near `mean`, sometimes far above. */
uint64_t chance_latency(enum sim_stream stream, uint64_t mean);

/* The trace: hashed always, printed where asked. */
extern uint64_t trace_hash;
extern FILE *trace_file;  /* all of it */
extern FILE *trace_story; /* what a golden trace shows */
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void trace_number(uint64_t value);
/* A readable line, also part of the trace. */
void story(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A rule is broken: says so and ends the process with SIM_FAILED. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
enum { SIM_FAILED = 3 };

/* ---- What is injected, counted ------------------------------------------------------
 */

#define SIM_FAULTS(X)                                                                    \
    X(message_lost)                                                                      \
    X(message_delayed)                                                                   \
    X(message_doubled)                                                                   \
    X(message_reordered)                                                                 \
    X(link_cut_one_way) X(link_cut_two_ways) X(link_slow) X(connection_cut) X(frame_cut) \
        X(partition) X(node_killed) X(node_paused) X(node_restarted) X(node_stopped)     \
            X(node_wiped) X(unsynced_kept_all) X(unsynced_lost_all) X(unsynced_subset)   \
                X(sector_torn) X(bit_rotted) X(write_misdirected) X(read_failed)         \
                    X(write_failed) X(write_shortened) X(sync_failed) X(disk_full)       \
                        X(disk_hung) X(clock_jumped) X(clock_drifts) X(member_joined)    \
                            X(member_promoted) X(transfer_asked) X(merge_done)           \
                                X(snapshot_installed) X(record_repaired)                 \
                                    X(killed_in_merge) X(killed_in_install)              \
                                        X(cold_reads) X(session_opened)              \
                                            X(session_ended) X(locked) X(orphan_held) X(answer_lost)              \
                                                X(observer_joined)                   \
                                                    X(member_removed)                \
                                                        X(member_left)               \
                                                            X(member_replaced)       \
                                                                X(address_moved) X(node_upgraded) X(node_downgraded) X(version_raised) X(minority_dead) X(minority_cut) X(minority_paused)

enum sim_fault {
#define X(name) FAULT_##name,
    SIM_FAULTS(X)
#undef X
        FAULT_COUNT
};
extern uint64_t fault_counts[FAULT_COUNT];
extern const char *const fault_names[FAULT_COUNT];
#define fault(name) (fault_counts[FAULT_##name]++)

/* ---- plan.c: a seed's options -------------------------------------------------------
 */

struct sim_plan {
    uint64_t seed;
    unsigned voters;   /* at first */
    unsigned clients;  /* a node */
    uint64_t think_us; /* between a client's calls, in the mean */
    uint64_t safety_us;
    bool lose_unsynced; /* a scenario's kills */
    bool exact;         /* a scenario: nothing is drawn */
    bool faults;        /* they are not frozen yet */
    bool rot_hints;     /* and no other files; or not those */
    /* the net */
    uint64_t latency_us;
    double lose, delay, twice, reorder, cut_frame, lose_answer;
    /* the disk */
    uint64_t write_us, sync_us, read_us;
    double cold, read_error, write_error, sync_error, shorten, misdirect;
    /* how often, in the mean; 0: never */
    uint64_t kill_us, pause_us, link_us, partition_us, rot_us, clock_us, join_us,
        transfer_us, stop_us, slow_us, full_us, hang_us, wipe_us, cut_us, remove_us, move_us, upgrade_us;
    double drift; /* at most */
    /* the store */
    uint64_t segment_bytes, retain_bytes, scrub_us;
    unsigned value_bytes;
    uint16_t version; /* that nodes begin with */
    bool lockers; /* at each mount one that locks */
    unsigned first_object, objects; /* of those that the clients share */
};
extern struct sim_plan plan;

void plan_draw(uint64_t seed);
void plan_start_faults(void);
void plan_run(void); /* both phases */
void plan_tempt(struct sim_node *n, unsigned odds);

/* ---- scenario.c -----------------------------------------------------------------------
 */

/* Plays traces/NAME, writes what it gives to `to`. */
void scenario_play(const char *path, FILE *to);
void scenario_frame(struct sim_node *from, struct sim_node *to, uint8_t type,
                    const uint8_t *data, size_t length);
bool scenario_loses(struct sim_node *from, struct sim_node *to, uint8_t type);

/* ---- node.c ---------------------------------------------------------------------------
 */

struct sim_node {
    unsigned number; /* from 0; shown as n1, n2, ... */
    uint64_t id;
    char name[16], address[32];
    bool made, up, paused, bad_disk, refused, gone;
    bool removed; /* its directory says so */
    bool missing; /* of the minority that stays away when faults freeze */
    unsigned moves;
    uint16_t version; /* of its program */
    bool stopping;
    unsigned life;
    struct node *node; /* once it runs */
    struct memory_disk *disk;
    struct store_io disk_io;
    struct members members; /* of joining */
    struct event_base *loop;
    void *endpoint;
    /* the clock: boot time and wall time are linear in true time between changes */
    double rate;
    uint64_t boot_base, true_base;
    int64_t real_offset;
    uint64_t clock_set_us, resumed_us; /* true time */
    uint64_t leads_us, config_us; /* ... of its election, of its newest membership */
    /* RCU */
    unsigned sections;
    struct deferred *deferred, **deferred_tail;
    bool deferring;
    /* its end of the mount */
    const struct fs_backend *backend;
    unsigned readers; /* threads of its mount that read */
    uint64_t orphan; /* the inode without a name that its kernel holds; 0: none ... */
    uint64_t orphan_session; /* ... by right of that session */
    bool serves;
    uint64_t hang_until, down_until_us, down_us; /* down_us: since then */
    uint64_t proven; /* disk.c: the hint, a while ago, in that life */
    unsigned proven_life;
    struct sim_held *held; /* events while it is paused */
};
extern struct sim_node sim_nodes[SIM_NODES];
extern uint64_t election_longest_us;

struct sim_node *sim_node_new(bool bad_disk);
void sim_format(unsigned voters); /* the first entry, on all */
void sim_boot(struct sim_node *n);
void sim_kill(struct sim_node *n, const char *why);
void sim_pause(struct sim_node *n, bool pause);
void sim_stop(struct sim_node *n);
void sim_died(struct sim_node *n, const char *why); /* by its own doing; in its context */
struct sim_node *sim_of_id(uint64_t id);
struct sim_node *sim_of_address(const char *address);
/* NULL: it replaces nobody. */
void sim_join(bool observer, const struct sim_node *replaced);
/* An operation of the cluster's own, through a node, whatever comes of it. */
void sim_ask(struct sim_node *by, const struct node_op *op);
void sim_leave(struct sim_node *n);
void sim_move(struct sim_node *n); /* it is down, and will be at another address */
const struct members *sim_members(void); /* as committed, as far as anyone knows */
struct sim_node *sim_leader(void);

/* ---- net.c ----------------------------------------------------------------------------
 */

void net_cut(unsigned from, unsigned to, bool cut); /* one way */
bool net_is_cut(unsigned from, unsigned to);
void net_slow(unsigned from, unsigned to, uint64_t us); /* more for each frame */
void net_heal(void);
void net_drop_node(struct sim_node *n); /* it is gone: its peers hear of that */
void net_break(struct sim_node *a, struct sim_node *b); /* their connections end */

/* ---- loop.c ---------------------------------------------------------------------------
 */

/* fn(arg) on the node's loop, at once. */
void loop_post(struct sim_node *n, void (*fn)(void *arg), void *arg);
void loop_signal(struct sim_node *n, int number);
/* Nothing runs there any more: it waits for its threads, perhaps behind a disk that hangs. */
bool loop_has_ended(const struct sim_node *n);

/* ---- disk.c ---------------------------------------------------------------------------
 */

struct store_io *sim_disk_io(struct sim_node *n);
void sim_disk_crash(struct sim_node *n);
void sim_disk_rot(struct sim_node *n);

/* ---- check.c --------------------------------------------------------------------------
 */

void verify_first(const uint8_t *data, size_t length); /* the entry that all begin with */
void verify_step(void);                                /* after every event */
void verify_killed(struct sim_node *n);
void verify_sent(struct sim_node *n, uint8_t type, const uint8_t *data, size_t length,
                 uint64_t to);
uint64_t verify_committed(void); /* the highest index anyone has applied */
/* Whether an entry of this request was committed. */
bool verify_happened(uint64_t session, uint64_t request);
void verify_merges(struct sim_node *n); /* counts them */
bool verify_is_changing(void);          /* a membership that is not committed is somewhere */
uint64_t verify_members_since(void);    /* the first change of them; 0: none */

/* check_state.c */
void verify_keydir(const struct sim_node *n); /* its digest */
void verify_full(void);                       /* all of all keydirs, sessions, members */
size_t verify_end(void); /* every value, from the disk; how many are damaged */
size_t verify_leftovers(void); /* content in progress of sessions that have ended */
size_t verify_orphans(void);   /* O records that stand for nobody */
void verify_forget_state(const struct sim_node *n); /* its memory is no more */

/* check_leader.c */
void verify_heard(const struct sim_node *n, const struct sim_node *from);
void verify_leader(struct sim_node *n); /* after each event */
void verify_session_ends(uint64_t session); /* by an entry that is committed now */

/* check_bounds.c */
void verify_bounds(const struct sim_node *n);

/* ---- client.c -------------------------------------------------------------------------
 */

/* locker.c: V23 and V24 */
void lockers_freeze(void);
void lockers_node_up(struct sim_node *n);
void lockers_node_down(struct sim_node *n);
void lockers_check(struct sim_node *n);

void clients_begin(void);
void clients_freeze(void); /* no new calls */
void clients_node_up(struct sim_node *n);
void clients_node_down(struct sim_node *n);
uint64_t clients_answered(void); /* changes and reads that succeeded */
bool clients_idle(void);
void clients_check(void); /* the histories */
uint64_t clients_judged(void); /* histories; undecided: it would have taken too long */
uint64_t clients_undecided(void);

#endif
