/*
 * node_core.h - struct node and what the files around the loop share. See README.md for
 * the walk of an operation through them.
 */
#ifndef TIERCE_NODE_CORE_H
#define TIERCE_NODE_CORE_H

#include "fetch.h"
#include "node_internal.h"

enum {
    NODE_TICK_US = 100 * 1000,     /* housekeeping */
    NODE_SECOND_US = 1000 * 1000,  /* the commit hint (G6), the disk's space */
    NODE_ELECTION_US = 150 * 1000, /* T: election timeouts are in [T, 2T) */
    NODE_HEARTBEAT_US = 50 * 1000,
    NODE_QUORUM_GRACE_US = 3000 * 1000, /* a new call waits this long, then EROFS */
    NODE_READY_GRACE_US = 10000 * 1000, /* `mount` waits this long for a majority */
    NODE_INTERRUPT_US =
        1000 * 1000, /* a caught signal ends a call only after this (K14) */
    NODE_TRANSFER_US = 2000 * 1000, /* `stop` waits this long for a successor */
    NODE_SESSION_SILENT_US = 10 * 1000 * 1000, /* without contact: it is ended (S6) */
    NODE_SESSION_SURE_US = 8 * 1000 * 1000, /* since something was sent that has arrived:
                                               so long it cannot have been ended */
    NODE_NEW_LEADER_US = 1000 * 1000, /* so new a leader may not know yet who is there */
    NODE_LEAVE_US = 30 * 1000 * 1000, /* `leave` waits this long to be removed */
    NODE_DIAL_FIRST_US = 20 * 1000, /* back-off of a lost peer: first, and most */
    NODE_DIAL_MOST_US = 1000 * 1000,
    NODE_DIAL_STALE_US = 1000 * 1000, /* a dial this old is begun anew when the peer comes */
    NODE_APPEND_ENTRIES = 256,    /* entries of one APPEND frame */
    NODE_FLIGHT_MESSAGES = 16,    /* of those on their way to a peer: more waits */
    NODE_OPERATION_BYTES = 2 << 20, /* unsent on the way to the leader: more waits */
    NODE_PROMOTE_LAG = 64,        /* entries a learner may be behind to be promoted */
    NODE_CAUGHT_UP_LAG = 4096,    /* and a voter, for others to be removed: under load more
                                     than that are not on their way */
    NODE_INODES_RESERVED = 4096,  /* numbers asked for at once */
    NODE_INODES_LOW = 2048,       /* ask again below this */
    NODE_SESSIONS_PER_ENTRY = 64, /* older sessions a new one ends at once */
    NODE_RECLAIMS_TICK = 64,      /* contents whose extents go with a tick, at most, */
    NODE_RECLAIMS_APPLIED = 4,    /* and with what was applied at once */
    NODE_ORPHANS_TICK = 16384,    /* O records looked at in a tick, for this session's */
    NODE_CLOCK_SET_US = 1000 * 1000, /* a gap this much wider: the clock was set */
    NODE_HUNG_US = 2000 * 1000,   /* a job of the log this old: others are to lead */
    NODE_READ_PATIENCE_US = 5000 * 1000, /* for the state to be complete, for repairs */
    NODE_REPAIRS = 16,                   /* asked for at once */
    NODE_REPAIR_WAIT_US = 1000 * 1000, /* for a connection to anybody */
    NODE_LOG_AGAIN_US = 10 * 1000 * 1000, /* of what is tried at each tick */
    NODE_HAND_AGAIN_US = 60 * 1000 * 1000, /* leadership, for damage that stays */
    NODE_SERVINGS = 16, /* questions of one node that are being answered */
    NODE_SNAPSHOT_IDLE_US = 60 * 1000 * 1000, /* without progress: unpinned */
    NODE_SNAPSHOT_KEEP_US = 20 * 1000 * 1000, /* said so often that there is some */
    NODE_PINS_BYTES = 1 << 30, /* of log beyond twice what is live, that pins keep */
    NODE_SNAPSHOT_SILENT_US = 4 * 1000 * 1000, /* then another that offers one is asked */
    NODE_SNAPSHOT_RETRY_US = 30 * 1000 * 1000, /* between tries, at most */
    NODE_ARENAS = 4, /* of malloc: each keeps up to 64 MiB that are free */
};

/* What a queue's own sources can put into it at once: README.md has them. */
enum {
    /* one for each call of the mount and each file that is buffered, each connection of
     * the control socket, each host that joins, and the node's own */
    NODE_OPERATIONS_MOST = FS_CALLS_MOST + FS_BUFFERED_BYTES / FS_BUFFERED_LEAST +
                           LIMIT_LOCAL_CONNECTIONS + LIMIT_UNPROVEN_CONNECTIONS + 3,
    /* half a window of each session */
    NODE_ANSWERS_MOST = LIMIT_SESSIONS * (LIMIT_SESSION_WINDOW / 2),
    /* one for each session, member, connection of the control socket, host that joins */
    NODE_READER_MOST = LIMIT_SESSIONS + LIMIT_MEMBERS + LIMIT_LOCAL_CONNECTIONS +
                       LIMIT_UNPROVEN_CONNECTIONS + 1,
    /* what other members ask, this node's repairs and its snapshot's chunks */
    NODE_BULK_MOST = LIMIT_MEMBERS * NODE_SERVINGS + NODE_REPAIRS + 8,
};

_Static_assert(NODE_SESSION_SURE_US + NODE_SESSION_SURE_US / 8 < NODE_SESSION_SILENT_US,
               "a node's own view ends first, whatever a clock's drift");

#define NODE_CLOCK_AHEAD_US                                                              \
    ((int64_t)3600 * 1000 * 1000) /* G2: may not lead beyond this */

/* ---- mail.c: from other threads to the loop ---------------------------------------- */

struct mail {
    struct mail *next;
    void (*deliver)(struct node *n, struct mail *mail); /* on the loop; owns it */
};

struct mailbox {
    struct mail *_Atomic head;
    int wake_fd;
    struct event *event;
};

int mailbox_init(struct node *n);
void mailbox_release(struct node *n);
void mail_post(struct node *n, struct mail *mail); /* any thread */

/* ---- metrics.c: how full the queues are ---------------------------------------------- */

enum node_queue {
    QUEUE_OPERATIONS,
    QUEUE_SESSIONS,
    QUEUE_GATE,
    QUEUE_PARKED,
    QUEUE_INFLIGHT,
    QUEUE_ANSWERS,
    QUEUE_LOG,
    QUEUE_READER,
    QUEUE_MERGE,
    QUEUE_REPAIRS,
    QUEUE_FLIGHT,
    QUEUE_SEND,
    QUEUE_CONNECTIONS,
    QUEUE_UNPROVEN,
    QUEUE_LOCAL,
    QUEUE_EVENTS,
    QUEUE_HELD,
    QUEUE_COUNT,
};

struct queue_marks {
    uint64_t most, waits; /* since the start */
};


/* ---- log_thread.c: runs the store's jobs, one at a time, in order ------------------ */

struct log_thread {
    pthread_t thread;
    bool started, stopping; /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct store_job *job; /* under mutex: to run */
    bool busy;             /* loop: a job is out */
    uint64_t since_us;     /* loop: since when */
    bool hung;             /* loop: it was said that the disk hangs */
    struct mail mail;
    struct store_job *finished; /* with the mail */
};

int log_thread_start(struct node *n);
void log_thread_stop(struct node *n); /* after the job that runs */
void log_thread_kick(struct node *n); /* hands over what the store has collected */
void log_thread_tick(struct node *n, uint64_t now_us);

/* ---- identity.c: this node's certificate, and the CAs it believes ------------------ */

struct identity {
    bool is_known; /* the cluster's CA has been read, and the node is as it demands */
    uint32_t step; /* the CA's, that is in force here */
    bool is_rotating; /* with another to follow */
    int64_t begin_s, end_s, renew_s; /* the certificate's, CLOCK_REALTIME */
    bool is_due;            /* the CA may be another */
    bool stale;             /* the endpoint has not got what the files say */
    uint64_t again_us;      /* not before, after a failure */
    /* Connections of a former CA are ending: till then they are dialed again at once. */
    uint64_t redial_until_us;
    struct identity_work *work; /* on the reader thread; NULL: none */
};

/* Before the port is opened; waits for the disk. What fails is tried again later. */
void identity_start(struct node *n);
void identity_note(struct node *n); /* the record of the CA was applied, or may be another */
void identity_tick(struct node *n, uint64_t now_us);
void identity_release(struct node *n); /* the reader thread has ended */
/* The CA's step to be reported; `self`: this node's member record. */
uint32_t identity_step(const struct node *n, const struct member *self);

/* ---- pager.c ----------------------------------------------------------------------- */

struct pager {
    pthread_t thread;
    bool started, stopping; /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct pager_task *head, *tail; /* under mutex */
    uint64_t queued;                /* loop: tasks that are not done */
};

int pager_start(struct node *n);
void pager_stop(struct node *n);
/* On a thread that has run task->work: its done() follows on the loop. */
void pager_post_done(struct node *n, struct pager_task *task);

/* ---- merge_thread.c: the store's tasks, and bulk I/O that nobody waits for ---------- */

struct merge_thread {
    pthread_t thread;
    bool started, stopping; /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct pager_task *head, *tail; /* under mutex: before the store's task */
    struct store_task *task;        /* under mutex: to run */
    uint64_t task_at_us;            /* thread: CLOCK_MONOTONIC, not before */
    struct store_task *out;         /* loop: under way; NULL: none */
    unsigned holds;                 /* loop: above 0: no new one */
    uint64_t queued;                /* loop: tasks of the queue that are not done */
    struct mail mail;
};

int merge_thread_start(struct node *n);
void merge_thread_stop(struct node *n); /* after the stretch that runs */
void merge_thread_kick(struct node *n); /* begins what is due */
/* No task is begun until released as often; when the one under way has ended,
 * snapshot_install_due() and serve_pin_due() are called. */
void merge_thread_hold(struct node *n);
void merge_thread_release(struct node *n);
void merge_thread_submit(struct node *n, struct pager_task *task); /* as pager_submit */

/* ---- view.c: reading on other threads ----------------------------------------------- */

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    _Atomic uint64_t epoch;   /* odd: the state is not complete (G7) */
    _Atomic uint64_t repairs; /* how often something was repaired */
    bool told, repairing;     /* under mutex: damage that the loop will see to; sees to */
    uint64_t patience_us;     /* NODE_READ_PATIENCE_US */
};

void gate_init(struct node *n);
bool gate_is_open(const struct node *n);
void gate_set(struct node *n, bool open);
bool gate_note_damage(struct node *n); /* any thread; true: the loop is to be told */
void gate_take_damage(struct node *n);
void gate_note_repairs(struct node *n, bool repairing, bool repaired);

/* ---- repair.c: what went bad on this disk (G9) --------------------------------------- */

void repair_init(struct node *n);
void repair_damaged(void *context); /* any thread: store_options.damaged */
void repair_pump(struct node *n);
void repair_tick(struct node *n);
void repair_issued(struct node *n);   /* what was collected is a job now */
void repair_job_done(struct node *n); /* ... and done */
void repair_release(struct node *n);

/* ---- snapshot.c: log and state from another node -------------------------------------- */

/* By the leader, for a log that ends before `index`. */
void snapshot_offered(struct node *n, uint64_t from, uint64_t index);
void snapshot_tick(struct node *n, uint64_t now_us);
void snapshot_install_due(struct node *n); /* the merge thread has no task */
bool snapshot_is_installing(const struct node *n);
void snapshot_installed(struct node *n); /* by a job */
void snapshot_install_failed(struct node *n, struct store_incoming *incoming);
/* Of the one that is being fetched; 0, 0: none. */
void snapshot_progress(const struct node *n, uint64_t *ret_bytes, uint64_t *ret_total);
void snapshot_release(struct node *n);

/* ---- pins.c: snapshots that other nodes fetch from this one -------------------------- */

struct pinned {
    struct pinned *next;
    uint64_t number, peer, used_us;
    uint64_t base; /* the log's, when it was pinned */
    unsigned reading;
    uint32_t file;   /* the farthest chunk that was read, */
    uint64_t offset; /* ... its end */
    bool closed;    /* gone at the next tick */
    bool installed; /* there: only the log is kept, */
    struct store_snapshot *snapshot;
    struct store_pin *log; /* ... by this instead, */
    uint64_t first;        /* from here on */
};

/* That of `peer` which is being fetched; NULL: another, or none. */
struct pinned *pins_find(struct node *n, uint64_t peer, uint64_t number);
struct pinned *pins_still(struct node *n, uint64_t peer); /* ... if it is of use yet */
/* That, or a new one; merging must not be under way. -ENOENT: nothing is merged; -EBUSY:
 * too much of the log is kept already. */
int pins_take(struct node *n, uint64_t peer, struct pinned **ret);
void pins_read(struct pinned *p); /* another thread reads it, until: */
void pins_have_read(struct pinned *p, uint32_t file, uint64_t end, int error);
void pins_keep(struct pinned *p);      /* by who has all of it, and checks it */
void pins_installed(struct pinned *p); /* by who fetched it */
void pins_init(struct node *n);
void pins_tick(struct node *n, uint64_t now_us);
void pins_release(struct node *n);

/* ---- state.c: what the node knows from entries alone, kept with what is merged -------- */

int state_save(void *context, struct buf *to);
int state_load(void *context, const void *data, size_t length); /* -EBADMSG, -ENOMEM */

/* ---- session.c: the replicated window of each session (S2) ------------------------- */

struct window_slot {
    uint64_t request; /* 0: none */
    uint64_t index;
    uint8_t result[STORE_RESULT_BYTES];
};

enum {
    SESSION_CHUNK_SLOTS = LIMIT_OF(64, 8), /* that get their memory together */
    SESSION_CHUNKS = LIMIT_SESSION_WINDOW / SESSION_CHUNK_SLOTS,
};

struct session {
    struct session *next;
    uint64_t number, node_id, nonce;
    uint64_t highest; /* committed request */
    uint64_t lowest;  /* leader: all below were answered, as the origin says */
    bool heard;       /* leader: the origin has sent something, last in: */
    uint16_t sending; /* ... this sending of its (S2) */
    struct window_slot *chunks[SESSION_CHUNKS]; /* NULL: nothing fell into it yet */
    uint64_t silent_us; /* leader: time without contact (contact.c) */
    /* leader: operations behind one that waits for the disk (S3) */
    struct operation *parked_head, *parked_tail;
    uint64_t parked_bytes;
    uint64_t refused; /* leader: those behind this request must not overtake it; 0: none */
    bool paging; /* its first parked operation waits for the reader thread */
    bool config; /* ... or for a membership change to be applied */
    bool damaged;              /* ... or for a repair, */
    uint64_t damaged_until_us; /* at most until then; 0: it did not yet */
};

enum session_verdict {
    SESSION_NEW,      /* not seen: execute */
    SESSION_ANSWERED, /* committed: *ret_slot */
    SESSION_EXPIRED,  /* below the window */
};

struct session *session_find(struct node *n, uint64_t number);
/* The i-th of LIMIT_SESSION_WINDOW slots; NULL: nothing fell into it yet. */
const struct window_slot *session_slot(const struct session *s, size_t i);
/* ... to be written to; NULL: no memory. */
struct window_slot *session_take_slot(struct session *s, size_t i);
/* An empty one, first in the list of sessions. NULL: no memory. */
struct session *session_new(struct node *n, uint64_t number);
enum session_verdict session_judge(const struct session *s, uint64_t request,
                                   const struct window_slot **ret_slot);
/* An entry was applied. */
int session_note_entry(struct node *n, const struct store_entry *entry);
/* ... or is replayed at start, when the store may have later ones already. */
int session_replay(struct node *n, struct store *store, const struct store_entry *entry);
/* A record of class S was applied: the session's node, or its end. */
int session_note_record(struct node *n, const struct store_record *record);
/* Of recovery: sessions whose record is gone from the store are over. */
int session_reconcile(struct node *n, struct store *store);
void sessions_release(struct node *n);
enum { SESSION_ENDING_NONCE = 0 }; /* in its record: it is being ended; no session's own */
int session_record_decode(const void *data, size_t length, uint64_t *ret_node_id,
                          uint64_t *ret_nonce);
void session_key(struct fs_key *key, uint64_t number);
void session_record_encode(uint64_t node_id, uint64_t nonce, struct buf *to);

/* ---- removed.c: who was a member once ------------------------------------------------ */

struct removed {
    uint64_t *ids; /* ascending */
    size_t count, room;
};

bool removed_find(const struct node *n, uint64_t id);
int removed_load(struct node *n); /* what the store has, beside what is known */
/* A record of class C was applied. */
int removed_note_record(struct node *n, const struct store_record *record);
/* 0, or why not, as a wire_handlers.admit(). */
int removed_admit(const struct node *n, uint64_t id, char text[WIRE_ERROR_BYTES]);
/* Somebody may have been: their connections are turned away; this very node stops. */
void removed_applied(struct node *n);
void removed_release(struct node *n);

/* ---- upgrade.c: programs of two versions in one cluster ------------------------------ */

/* 0, or -EPROTONOSUPPORT with n->error: this program is not for the cluster that its store
 * is of. */
int upgrade_check(struct node *n);
/* As a wire_handlers.admit(). */
int upgrade_admit(const struct node *n, const struct wire_hello *hello,
                  char text[WIRE_ERROR_BYTES]);
int upgrade_judge_joiner(const struct node *n, uint16_t version); /* 0, JOIN_TOO_... */
void upgrade_applied(struct node *n); /* members_applied is another, or was read */
uint16_t upgrade_common(const struct node *n); /* the newest that every member speaks */
void upgrade_raise(struct node *n);            /* a leader: where it is due */
void upgrade_tick(struct node *n, uint64_t now_us);
struct peer;
void upgrade_refused(struct node *n, struct peer *p, const char *text); /* by a peer */
void upgrade_release(struct node *n);

/* ---- peers.c: connections to the other members, and consensus messages on them ----- */

/* Messages with entries on their way to a peer, in order. */
struct flight {
    bool waits; /* RAFT_SENT 0 is due when there is room */
    unsigned first, count; /* a ring */
    size_t bytes;
    struct flight_message {
        uint64_t last; /* entry */
        size_t bytes;
    } messages[NODE_FLIGHT_MESSAGES];
};

void flight_clear(struct flight *f);
bool flight_has_room(const struct flight *f);
/* What has arrived (all up to `match`) and what will be sent again (from `next` on). */
void flight_settle(struct flight *f, uint64_t match, uint64_t next);
void flight_add(struct flight *f, uint64_t last, size_t bytes);

struct peer {
    uint64_t id;
    /* Of one that has come to us, and is no member as far as this log knows: it may be the
     * leader that has what is missing here. "": a member. */
    char guest[LIMIT_ADDRESS_BYTES + 1];
    char address[LIMIT_ADDRESS_BYTES + 1]; /* a member's, as the log had it last */
    /* A member that came from another address than the log says: it has moved there. */
    char moved[LIMIT_ADDRESS_BYTES + 1];
    unsigned dials;
    struct wire_connection *connection; /* dialed from here; NULL: none */
    bool open;
    bool came; /* it has dialed this node, since the start */
    uint64_t dial_at_us, backoff_us;
    uint64_t dialed_us; /* when that connection was */
    uint16_t version;       /* the newest it speaks, by its last HELLO; 0: none came */
    bool refused;           /* it does not speak with this node, for its version */
    bool full;              /* the send queue; RAFT_SENT 0 is due when it drains */
    struct flight flight;
    bool has_clock;       /* G2: it has told its real time, */
    int64_t clock_gap_us; /* ... minus our boot time then */
    int64_t told_gap_us;  /* our own, as it was told there; on the open connection */
    /* entries read from disk for a peer that is behind */
    bool reading, read_failed;
    uint64_t unread_logged_us;
    struct store_bytes *block;
    uint64_t block_first, block_last;
};

/* Message, term and entries as they stand in a RAFT_APPEND frame. */
struct received_entry {
    const uint8_t *data;
    struct store_entry entry;
};

void peers_refresh(struct node *n); /* the membership may have changed */
void peers_dial_due(struct node *n, uint64_t now_us);
struct peer *peers_find(struct node *n, uint64_t id);
void peers_send(struct node *n, const struct raft_message *m);
void peers_opened(struct node *n, struct wire_connection *c,
                  const struct wire_hello *hello);
void peers_closed(struct node *n, struct wire_connection *c, const char *reason);
void peers_drained(struct node *n, struct wire_connection *c);
/* It is about to be closed from here; it is dialed no more. */
void peers_forget(struct node *n, const struct wire_connection *c);
void peers_lead(struct node *n); /* a leadership begins */
void peers_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f);
/* A leader has more for it than was sent: RAFT_SENT 0 asks for that. */
void peers_ask_again(struct node *n, uint64_t peer_id);
void peers_note_sent(struct node *n, const struct peer *p); /* for the queue's metric */
void peers_release(struct node *n);

/* ---- entries.c: entries, to a peer and from one --------------------------------------- */

void entries_send(struct node *n, struct peer *p, const struct raft_message *m);
void entries_receive(struct node *n, struct wire_connection *c,
                    const struct raft_message *m, const uint8_t *data, size_t length);
/* The membership an entry carries, if it is a change of it. */
bool entry_config(const uint8_t *data, size_t length, struct members *ret);
void members_to_raft(const struct members *members, struct raft_config *ret);

/* ---- eligible.c: whether this node may lead -------------------------------------------- */

void eligible_judge(struct node *n); /* G2, and a full disk */
void eligible_watch_clock(struct node *n); /* ... at once, where this host's clock was set */
/* What a peer has said of its own. `p` is to be found anew afterwards. */
void eligible_note_clock(struct node *n, struct peer *p, uint64_t clock_us);

/* ---- messages.c: consensus messages as bytes (docs/protocol.md) -------------------- */

uint8_t message_encode(const struct raft_message *m, struct buf *to); /* its frame type */
/* `ret_rest`: an APPEND's entries. -EPROTO. */
int message_decode(uint8_t type, const void *data, size_t length,
                   struct raft_message *ret, const uint8_t **ret_rest,
                   size_t *ret_rest_length, uint64_t *ret_clock_us);

struct operation_head {
    uint64_t session, request;
    uint64_t lowest; /* the session's lowest unanswered request */
    uint16_t stream; /* of its frame; the answer's too */
    uint64_t term;   /* of the leader it was sent to */
};
void operation_encode(const struct operation_head *head, const void *op, size_t length,
                      struct buf *to);
int operation_decode(const void *data, size_t length, struct operation_head *ret,
                     const uint8_t **ret_op, size_t *ret_length);

struct answer {
    enum wire_status status;
    uint64_t request; /* 0: of opening a session; then `nonce` tells which */
    uint64_t index;   /* to be applied at the origin before its caller is answered; of a
                         refusal: the term of who refuses */
    int error;        /* FAILED: positive errno */
    uint8_t result[STORE_RESULT_BYTES];
    uint16_t stream; /* of its frame: of which sending it is the answer */
};
void answer_encode(const struct answer *a, struct buf *to);
int answer_decode(const void *data, size_t length, struct answer *ret);

/* ---- driver.c: steps the core and does what it says -------------------------------- */

enum { DRIVER_EVENTS = 1024, DRIVER_HELD = 512 };

struct driver {
    struct raft *raft;
    struct raft_update update;
    bool stepping;
    struct raft_event events[DRIVER_EVENTS]; /* to be stepped after the one in work */
    size_t event_head, event_count;
    unsigned hard_states;        /* not durable yet: messages are held */
    unsigned hard_states_issued; /* of those: in the job that runs */
    struct raft_message held[DRIVER_HELD];
    size_t held_count;
    const struct received_entry *received; /* of the RAFT_RECEIVE in work */
    size_t received_count;
    struct event *deadline, *flush;
    uint64_t visible, confirmed_round; /* of the last update */
    uint64_t term, leader;             /* as last seen */
    enum raft_role role;
};

int driver_start(struct node *n, const struct store_recovery *recovery);
void driver_stop(struct node *n);
/* Never with RAFT_RECEIVE from within a step; others queue up. */
void driver_step(struct node *n, const struct raft_event *event);
void driver_flush_soon(struct node *n); /* at the end of this turn of the loop */
void driver_durable(struct node *n, const struct store_done *done);
void driver_apply(struct node *n);
void driver_note_ready(struct node *n); /* readers are let in where the state is whole */

/* ---- leader.c: evaluates operations, proposes, answers ----------------------------- */

struct operation { /* come to the leader, not in the log yet */
    struct operation *next;
    struct wire_connection *from; /* NULL: this node's own client */
    bool internal;                /* nobody waits for it */
    struct operation_head head;
    size_t length;
    uint8_t bytes[];
};

struct waiting { /* an answer that may not leave yet */
    struct waiting *next;
    struct wire_connection *to;
    bool internal;
    uint64_t session;
    struct answer answer;
    uint64_t round; /* an answer without an entry (S4): leadership confirmed by this; 0:
                       not asked yet */
    uint32_t bytes; /* of the entry; counts as in flight until applied */
};

struct waiting_list {
    struct waiting *head, *tail;
};

struct leader {
    struct operation *gate_head, *gate_tail; /* before S1, or too much is in flight */
    struct waiting_list entries;             /* by index: until visible */
    struct waiting_list late;                /* answered before: until visible */
    struct waiting_list reads;               /* S4: until confirmed */
    uint64_t since_us;         /* elected */
    uint64_t noop_index;       /* S1: applied up to here, and it may evaluate */
    uint64_t proposed;         /* appended and handed to the core up to here */
    struct raft_config config; /* of the membership change being proposed */
    uint64_t inflight_bytes;
    uint64_t gate_bytes;
    uint64_t parked_bytes; /* of all sessions */
    uint64_t answers;      /* in the three lists */
    uint64_t contact_us;   /* contact.c: the last tick */
    bool evaluating; /* an operation: others stay at the gate */
    bool reclaim;               /* something may be there to be reclaimed */
    uint64_t orphans_from; /* from this inode on: held by sessions that died; 0: none */
};

void leader_operation(struct node *n, struct wire_connection *from,
                      const struct wire_frame *f);
/* This node's own client; the bytes are copied. */
void leader_own_operation(struct node *n, const struct operation_head *head,
                          const void *op, size_t length);
void leader_begin(struct node *n); /* elected: the entry of its own term */
void leader_end(struct node *n);   /* what was not evaluated yet is answered NOT_LEADER */
void leader_round_asked(struct node *n, uint64_t round); /* S4 */
void leader_flush(struct node *n); /* proposes what was appended, asks for rounds */
void leader_applied(struct node *n);
/* Something was, or could not be: what waits for it looks again; without hope it is told. */
void leader_repaired(struct node *n, bool hope);
void leader_release(struct node *n); /* answers that may leave now */
void leader_forget(struct node *n, struct wire_connection *c);
void leader_tick(struct node *n);
void leader_advance_ca(struct node *n); /* evaluate_ca.c: the rotation, where it can go on */

/* The leader's own operation; where it cannot be evaluated now it is dropped. */
void leader_run_internal(struct node *n, const struct buf *op);
bool leader_is_open(const struct node *n); /* S1's gate, and what else shuts it */
/* It is about to go, by an entry that was applied: who waits in it is told so. */
void leader_session_over(struct node *n, struct session *s);

/* ---- contact.c: which sessions are alive (S6) ---------------------------------------- */

void contact_begin(struct node *n); /* a new term of office */
void contact_tick(struct node *n, uint64_t now_us);

/* ---- evaluate.c: (state, operation) -> records, for fs and for the cluster's own --- */

struct evaluation {
    struct store_builder *builder;
    struct fs_result result;
    uint64_t timestamp_us; /* of the entry; may be moved on (RESERVE) */
    bool config_changed;
    struct members members; /* config_changed: the new ones */
    uint64_t heir;          /* EVALUATE_HAND_OVER: to whom; 0: the best */
    bool locks_changed;     /* of a session that ends: a key is put once (G2) */
};

/* As of the state to be: an entry on its way may end it (S6). ENDING: it is being ended, in
 * batches, and nothing of it is evaluated any more. */
enum session_life { SESSION_OVER, SESSION_ENDING, SESSION_OPEN };
enum session_life evaluate_session_life(struct node *n, uint64_t number);
bool evaluate_is_session_open(struct node *n, uint64_t number);
/* No errno: this leader hands over, and then the operation is asked of the next one; but a
 * TRANSFER is done with that. */
enum { EVALUATE_HAND_OVER = 4096 };

/* Whether a disk that is nearly full refuses it. */
bool evaluate_needs_room(const uint8_t *op, size_t length);
/* 0, an errno of the caller's, -EAGAIN (n->missed: a key to be read in), -EBUSY: a
 * membership change is under way, evaluate again when it is applied. */
int evaluate(struct node *n, uint64_t session, const uint8_t *op, size_t length,
             struct evaluation *e);

/* ---- client.c ---------------------------------------------------------------------- */

struct client {
    uint64_t session; /* 0: not open */
    uint64_t nonce;
    struct client_op opening;
    bool opening_busy;
    struct client_op *head, *tail; /* in order of submission = of request */
    uint64_t count;
    uint64_t next_request;
    uint64_t sent_to, sent_term; /* leader that has what is SENT */
    struct wire_connection *sent_by;
    uint16_t sending; /* counts these targets: answers to earlier ones are void */
    bool has_sent;    /* something to this one; one that was sent nothing is not counted */
    bool pumping;
    uint64_t open_at_us;         /* try again to open a session */
    uint64_t no_quorum_since_us; /* 0: there is one */
    bool refused_room;           /* the leader's last answer to what needs room */
};

int client_start(struct node *n);
void client_release(struct node *n);
void client_open_session(struct node *n);
void client_pump(struct node *n);
void client_tick(struct node *n, uint64_t now_us);
void client_answer(struct node *n, const struct answer *a);
void client_applied(struct node *n);
void client_note_room(struct node *n); /* sets n->full */
/* done() with -EINTR, now or when that is right (K14). */
void client_interrupt(struct node *n, struct client_op *op, bool fatal);
void client_fail_all(struct node *n, int error);

/* ---- mount.c: the node as the mount's backend -------------------------------------- */

struct mount {
    struct fs_mount *mount;
    struct fs_backend backend;
    pthread_mutex_t mutex;
    uint64_t inode_next, inode_end; /* under mutex: the reserved numbers */
    bool reserving;
    struct client_op reserve;
    struct mail reserve_mail, unmounted_mail, call_mail;
    bool reserve_asked; /* under mutex: reserve_mail is on its way */
    struct buf released; /* under mutex: orphans that the kernel has forgotten, u64 each */
    pthread_t caller; /* of fs_mount_start, fs_mount_stop, which may wait for the loop */
    bool calling, starting, force;
    int call_error;
    char error[FS_ERROR_BYTES];
};

void mount_init(struct node *n);
void mount_release(struct node *n);
/* Both on a thread of their own; node_mount_started, node_mount_stopped follow on the
 * loop. */
void mount_start(struct node *n);
void mount_stop(struct node *n, bool force);
void mount_reserve(struct node *n); /* asks for inode numbers where they run low */
/* Whether the mount waits for this entry, so that the kernel knows what it does. */
bool mount_asked(const struct node *n, const struct store_entry *entry);
void mount_take_released(struct node *n, struct buf *to);
void mount_state_replaced(struct node *n); /* what the kernel holds may be old */
void mount_note_record(struct node *n, const struct store_record *record);

/* ---- orphans.c: inodes without a name, and whether they are held here (S8) ----------- */

struct orphans {
    struct buf applied;  /* u64 each: of the entry that is being applied */
    struct buf released; /* u64 each: not held here, to be said so */
    struct buf sent;     /* ... and on its way, ascending */
    struct client_op op;
    bool busy;
    uint64_t scan_from; /* O records from this inode on may name this session; 0: none */
};

/* A record of class O was applied. */
void orphans_note_record(struct node *n, const struct store_record *record);
void orphans_entry_applied(struct node *n, const struct store_entry *entry,
                           const struct store_bytes *bytes);
/* O records that were not noted, or not decided, may name this session. */
void orphans_look(struct node *n);
void orphans_send(struct node *n); /* where there is much to be said */
void orphans_tick(struct node *n);
void orphans_release(struct node *n);

/* ---- node.c ------------------------------------------------------------------------ */

enum node_phase {
    NODE_STARTING, /* waiting for a session, or its grace */
    NODE_MOUNTING,
    NODE_RUNNING,
    NODE_UNMOUNTING,   /* stop: buffers are committed, the mount goes */
    NODE_LEAVING,      /* leave: this node is removed */
    NODE_TRANSFERRING, /* stop: leadership goes */
    NODE_ENDING,
};

struct node {
    struct directory directory;
    const struct node_run_options *options;
    struct event_base *loop;
    struct mailbox mailbox;
    struct log_thread log;
    struct pager pager;
    struct merge_thread merge;
    struct gate gate;
    struct wire_endpoint *endpoint;
    struct store *store;
    struct fs_view view; /* any thread */
    struct session *sessions;
    struct members members;         /* newest in the log */
    struct members members_applied; /* as committed */
    uint16_t version;      /* the newest that this program speaks; version_oldest() too */
    uint16_t said_version; /* the cluster's, as last noticed */
    struct {
        struct client_op op;
        bool busy;
        uint64_t again_us;
        int error; /* that was logged */
    } report;      /* what this node says of itself, on its way */
    struct removed removed;
    struct peer peers[LIMIT_MEMBERS];
    size_t peer_count;
    struct driver driver;
    struct leader leader;
    struct client client;
    struct mount mount;
    struct orphans orphans;
    struct fs_key missed; /* by the last evaluation that was -EAGAIN */
    struct queue_marks queues[QUEUE_COUNT];
    uint64_t base;         /* the log begins after it, as the core knows */
    bool has_state;        /* state_load() has set members_applied */
    struct fetch *fetches; /* on their way */
    uint64_t next_fetch;
    struct serving *servings; /* serve.c */
    struct pinned *pinned;
    uint64_t pins_bytes; /* NODE_PINS_BYTES */
    struct repair *repairs;
    size_t repair_count;
    uint64_t repair_logged_us, repair_handed_us;
    struct mail damage_mail;
    struct snapshot *snapshot;
    struct identity identity;
    struct event *tick, *sigterm, *sigint, *ending;
    bool eligible; /* to lead */
    bool clock_wild; /* far ahead of the others' (G2) */
    int64_t clock_gap_us; /* real time minus boot time, when that was judged */
    _Atomic uint64_t session, session_sure_us; /* the client's, and until when it is alive */
    _Atomic bool writable; /* a leader with a majority is reachable */
    _Atomic bool full;     /* this disk is low, or the leader refused what needs room */
    enum node_phase phase;
    uint64_t started_us, phase_us;
    uint64_t hinted_commit, second_us;
    _Atomic uint64_t space_free, space_total, space_keys; /* of the last second */
    bool was_low, force_stop;
    bool mount_shown;   /* it is mounted, as far as the loop has been told */
    bool was_unmounted; /* by the kernel */
    bool stop_wanted; /* before it ran */
    bool leaving;     /* to be removed when the mount is gone */
    bool is_removed;  /* from the cluster */
    int leave_error;
    struct client_op leave;
    void (*stop_answer)(void *context, int error);
    void *stop_context;
    int exit_error;
    char error[NODE_ERROR_BYTES];
};

static inline void queue_note(struct node *n, enum node_queue queue, uint64_t now)
{
    n->queues[queue].most = max_u64(n->queues[queue].most, now); /* it has grown */
}

static inline void queue_wait(struct node *n, enum node_queue queue)
{
    n->queues[queue].waits++; /* it was full for somebody */
}

uint64_t node_now(void);
bool node_is_leader(const struct node *n); /* elected; not yet S1 */
bool node_has_quorum(const struct node *n);
void node_session_opened(struct node *n);
void node_mount_started(struct node *n, int error);
void node_mount_stopped(struct node *n, int error);
void node_unmounted(struct node *n);
void node_removed(struct node *n); /* from the cluster: it stops */
void node_role_changed(struct node *n);
void node_forget(struct node *n, struct wire_connection *c); /* it is closed */
/* Memory has run out where nothing can be given up. */
void node_must(int error, const char *what);

#endif
