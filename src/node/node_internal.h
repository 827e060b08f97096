/*
 * node_internal.h - what the files of this folder share. One struct node; the loop thread
 * owns it, but for what is marked.
 */
#ifndef TIERCE_NODE_INTERNAL_H
#define TIERCE_NODE_INTERNAL_H

#include "fs.h"
#include "node.h"
#include "raft.h"
#include "store.h"
#include "wire.h"

#include <event2/event.h>
#include <pthread.h>

enum {
    NODE_CERTIFICATE_S = 365 * 24 * 3600, /* default of certificate_life in tierce.conf */
    NODE_CA_WARN_S = 365 * 24 * 3600, /* before the CA ends it is said */
    NODE_CERTIFICATE_S_MIN = 10,
    NODE_CERTIFICATE_EARLY_S = 24 * 3600, /* before its time it is valid (W5) */
    NODE_CERTIFICATE_S_MAX = 3650 * 24 * 3600,
    NODE_SECRET_BYTES = 16,
    NODE_SEGMENT_MIB = 64, /* default of segment_mib in tierce.conf */
    NODE_SEGMENT_MIB_MIN = 16,
    NODE_SEGMENT_MIB_MAX = 1024,
};

/* ---- directory.c: the data directory's identity files ------------------------------ */

struct member {
    uint64_t id;
    bool voter;
    bool observer; /* joined to stay a learner: never promoted, never a voter */
    /* As last reported: the newest protocol version its program speaks; its CA step. */
    uint16_t version;
    uint32_t ca;
    char name[LIMIT_NAME_BYTES + 1];
    char address[LIMIT_ADDRESS_BYTES + 1];
    char program[NODE_PROGRAM_BYTES]; /* "": not told (NODE_VERSION_PROGRAMS) */
};

struct members {
    uint16_t version; /* the cluster's: every member speaks it */
    uint32_t count;
    struct member list[LIMIT_MEMBERS];
};

/* version.c: what goes with a version of the protocol (docs/protocol.md, "Versions"). */
enum {
    /* From this cluster's version on members say which program they run. No program speaks
     * it, but one that is made for the tests of an upgrade (-Draise_version=true). */
    NODE_VERSION_PROGRAMS = 4,
};
uint16_t version_oldest(uint16_t newest);      /* the oldest that such a program speaks */
uint32_t version_format(uint16_t version);     /* of the files in a cluster of this version */
uint16_t version_of_format(uint32_t format);   /* the oldest that such files may be of */

#define DIRECTORY_CONF   "tierce.conf"
#define DIRECTORY_CA     "ca.crt"
#define DIRECTORY_CERT   "node.crt"
#define DIRECTORY_KEY    "node.key"
#define DIRECTORY_LOCK   "lock"
#define DIRECTORY_SOCKET "control" /* wire_listen_local() and wire_call_local_open() */
#define DIRECTORY_LOG    "node.log"
#define DIRECTORY_REMOVED "removed" /* there: this node was removed from its cluster */
#define DIRECTORY_RECOVERY "recovery" /* a directory: what `recover` makes first */

/* tierce.conf (text, `key = value`), and ca.crt, node.crt, node.key beside it. */
struct directory {
    char *path;  /* absolute */
    int lock_fd; /* flock on PATH/lock; -1: not held */
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    uint64_t node_id;
    char name[LIMIT_NAME_BYTES + 1];
    char listen[LIMIT_ADDRESS_BYTES + 1];
    char advertise[LIMIT_ADDRESS_BYTES + 1];
    uint64_t segment_bytes;
    uint64_t scrub_period_us, merge_bytes_per_s; /* as store_options: 0: not told */
    uint64_t certificate_life_s;                 /* 0: not told */
    char *ca_pem, *cert_pem, *key_pem;
    struct members members; /* as of joining: whom to ask before the log says */
};

/* Reads and checks everything and takes the lock. -ENOENT missing, -EBADMSG not tierce's
 * or broken, -EPROTONOSUPPORT newer, -EBUSY another process uses it. */
int directory_open(struct directory *ret, const char *path, char error[NODE_ERROR_BYTES]);
/* The same whatever became of its node: not looked at is what directory_look() refuses. */
int directory_take(struct directory *ret, const char *path, char error[NODE_ERROR_BYTES]);
/* Writes all files, tierce.conf last, each durably; the directory exists and is locked.
 */
int directory_write(const struct directory *d, char error[NODE_ERROR_BYTES]);
void directory_release(struct directory *d);
/* PATH/NAME, malloc'ed. */
char *directory_file(const char *path, const char *name);
/* Takes the lock alone, making its file. -EBUSY: `error` names the process that has it. */
int directory_lock(const char *path, int *ret_fd, char error[NODE_ERROR_BYTES]);
/* NAME whole and durable, or as it was: written beside, synced, renamed. Mode 0600. */
int directory_put_file(const char *path, const char *name, const void *data, size_t length,
                       char error[NODE_ERROR_BYTES]);
/* A small text file as a string, malloc'ed. -ENOENT and the like; -EBADMSG: too long, or it
 * holds a NUL. */
int directory_get_file(const char *path, const char *name, char **ret,
                       char error[NODE_ERROR_BYTES]);
/* What the TLS port and the store need to know of a directory; all strings stay its own. */
struct wire_identity directory_identity(const struct directory *d);
struct wire_hello directory_hello(const struct directory *d);
struct store_options directory_store_options(const struct directory *d);
/* How long the certificates last that this node signs. */
uint64_t directory_certificate_life_s(const struct directory *d);
/* Why there is no node to be opened at `path`: -ENOENT, -EBADMSG, or -ESHUTDOWN where it was
 * removed from its cluster, with the message; 0 where there is a tierce.conf. */
int directory_look(const char *path, char error[NODE_ERROR_BYTES]);
bool directory_is_removed(const char *path);
/* Notes that its node was removed, now: no start any more. */
int directory_mark_removed(const struct directory *d, char error[NODE_ERROR_BYTES]);
/* The text of tierce.conf, and back. -EBADMSG, -EPROTONOSUPPORT: `error` names `file` and the
 * line. `ret` gets what the text says and nothing else. */
void directory_conf_format(const struct directory *d, struct buf *to);
int directory_conf_parse(const char *text, const char *file, struct directory *ret,
                         char error[NODE_ERROR_BYTES]);
/* What to do where the data directory cannot be made or used: for the end of a message. */
const char *directory_remedy(int result);
/* Of 1 to LIMIT_NAME_BYTES printable ASCII characters without spaces and commas. */
bool node_name_valid(const char *name);
/* HOST:PORT with a host and a port, without spaces and commas: something to dial. */
bool node_address_valid(const char *address);
/* Writes a line for a user into `error`; returns `result`. */
int node_error(char error[NODE_ERROR_BYTES], int result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* recover.c: removes what a recovery has left that ended before or after it counted. */
void recover_clean(const char *data);

/* ---- records.c: the store in the name space's terms --------------------------------- */

typedef __typeof__(store_scan) store_scan_fn; /* or store_scan_ahead */

int records_scan(store_scan_fn *scan, struct store *s, const void *from, size_t from_size,
                 const void *to, size_t to_size,
                 int (*each)(void *arg, const struct fs_item *item), void *arg);
/* A change whose records go into the entry being built, after those that are in it. */
struct fs_change records_change(struct store_builder *b, uint64_t timestamp_us);

/* ---- token.c: what `invite` prints ------------------------------------------------- */

enum {
    TOKEN_ADDRESSES = 8, /* in one token, at most */
    TOKEN_LIFETIME_S = 24 * 60 * 60,
    TOKEN_LIFETIME_MAX_S = 365 * 24 * 60 * 60,
    TOKEN_TEXT_BYTES = 2560, /* a token as text, with its NUL */
};

/* tierce1:HEX@ADDRESS[,ADDRESS...]; HEX = CA hash 32, id 8, secret 16, crc32 of those 4. */
struct token {
    uint8_t ca_hash[WIRE_HASH_BYTES];
    uint64_t id;
    uint8_t secret[NODE_SECRET_BYTES];
    char addresses[TOKEN_ADDRESSES * (LIMIT_ADDRESS_BYTES + 1)];
};

char *token_format(const struct token *token); /* malloc'ed */
int token_parse(const char *text, struct token *ret, char error[NODE_ERROR_BYTES]);
/* A fresh id and secret, for the CA with this certificate; no addresses yet. */
int token_make(const char *ca_pem, struct token *ret);
/* One address more, unless it is there already or the token is full. */
void token_add_address(struct token *token, const char *address);

/* ---- cluster.c: the records of class C, and the operations on them ----------------- */

enum { CLUSTER_PEM_BYTES = 4096 }; /* a key, certificate or request as text, with its NUL */

/* C "config": version u16, count u32, { id u64, flags u8, version u16, ca u32, name,
 * address }*; C "removed" node id (big-endian): timestamp u64, name; C "ca": see ca.h;
 * C "token" id (big-endian): secret hash, expires u64, node id u64, key hash. Strings are
 * u16 length and bytes. */
void cluster_key_config(struct fs_key *key);
void cluster_key_removed(struct fs_key *key, uint64_t node_id);
void cluster_key_ca(struct fs_key *key);
void cluster_key_token(struct fs_key *key, uint64_t id);
void members_encode(const struct members *members, struct buf *to);
int members_decode(const void *data, size_t length, struct members *ret); /* -EBADMSG */
const struct member *members_find(const struct members *members, uint64_t id);
const struct member *members_find_name(const struct members *members, const char *name);

struct removed_record {
    uint64_t timestamp_us; /* of the entry that removed it */
    char name[LIMIT_NAME_BYTES + 1];
};
void removed_record_encode(const struct removed_record *record, struct buf *to);
int removed_record_decode(const void *data, size_t length, struct removed_record *ret);

struct token_record {
    uint8_t secret_hash[WIRE_HASH_BYTES];
    uint64_t expires_us;
    uint64_t node_id; /* not 0: used, by that node with this key */
    uint8_t key_hash[WIRE_HASH_BYTES];
};
void token_record_encode(const struct token_record *record, struct buf *to);
int token_record_decode(const void *data, size_t length, struct token_record *ret);

/* Operations beside those of fs.h (their types are below NODE_OP_FIRST). */
enum node_op_type {
    NODE_OP_FIRST = 64,
    NODE_OP_SESSION = 64,     /* open a session: node id, nonce; result: its number */
    NODE_OP_INVITE = 65,      /* a token record */
    NODE_OP_JOIN = 66,        /* a token is used: a learner more; result: node id */
    NODE_OP_PROMOTE = 67,     /* a learner becomes a voter; the leader's own */
    NODE_OP_REMOVE = 68,      /* a member goes for good, and its sessions with it */
    NODE_OP_REPORT = 69,      /* what a node says of itself: version, CA step, address */
    NODE_OP_TRANSFER = 70,    /* another shall lead: node id, 0: the best */
    NODE_OP_VERSION = 71,     /* the cluster's version rises; the leader's own */
    NODE_OP_ROTATE_CA = 72,   /* another CA begins: its key and certificate */
    NODE_OP_ADVANCE_CA = 73,  /* the rotation's next step; the leader's own */
    NODE_OP_END_SESSION = 74, /* of a node that has fallen silent; the leader's own */
    NODE_OP_LAST = 74,
};

struct node_op {
    enum node_op_type type;
    uint64_t node_id, nonce;               /* SESSION; node_id: up to TRANSFER too */
    uint64_t session;                      /* END_SESSION */
    uint64_t token_id;                     /* INVITE, JOIN */
    struct token_record record;            /* INVITE; JOIN: the next token's */
    uint64_t next_token_id;                /* JOIN */
    uint8_t secret[NODE_SECRET_BYTES];     /* JOIN */
    uint8_t key_hash[WIRE_HASH_BYTES];     /* JOIN */
    char name[LIMIT_NAME_BYTES + 1];       /* JOIN */
    char address[LIMIT_ADDRESS_BYTES + 1]; /* JOIN, REPORT */
    bool observer;                         /* JOIN */
    char replace[LIMIT_NAME_BYTES + 1];    /* JOIN: who goes for it; "": nobody */
    bool ask;                              /* REMOVE: only whether it would be done */
    uint16_t version;                      /* JOIN, REPORT, VERSION */
    uint32_t ca;                           /* REPORT: its step; ROTATE_CA, ADVANCE_CA */
    char program[NODE_PROGRAM_BYTES];      /* REPORT, "": the cluster is too old for it */
    char ca_key_pem[CLUSTER_PEM_BYTES];    /* ROTATE_CA */
    char ca_cert_pem[CLUSTER_PEM_BYTES];   /* ROTATE_CA */
};
void node_op_encode(const struct node_op *op, struct buf *to);
int node_op_decode(const void *data, size_t length, struct node_op *ret); /* -EPROTO */

/* Why a JOIN is refused, as an errno in its answer: */
enum {
    JOIN_UNKNOWN_TOKEN = 2,  /* ENOENT: of another cluster, or removed after it expired */
    JOIN_EXPIRED_TOKEN = 62, /* ETIME */
    JOIN_USED_TOKEN = 114,   /* EALREADY: by another node */
    JOIN_ADDRESS_TAKEN = 98,  /* EADDRINUSE */
    JOIN_NAME_TAKEN = 17,    /* EEXIST */
    JOIN_TOO_MANY = 7,       /* E2BIG */
    JOIN_TOO_OLD = 93,       /* EPROTONOSUPPORT: older than the cluster's version */
    JOIN_TOO_NEW = 92,       /* ENOPROTOOPT: it does not speak the cluster's version */
    JOIN_REMOVED = 130,      /* EOWNERDEAD: whom the token let in has been removed since */
    JOIN_NOBODY_TO_REPLACE = 6,     /* ENXIO: no member has that name */
    JOIN_REPLACES_THE_LIVING = 106, /* EISCONN: the leader reaches it */
};
/* Why a change of the members is refused, JOIN's with a replacement too: */
enum {
    MEMBERS_NO_MAJORITY = 112, /* EHOSTDOWN: of the voters that would be left; result: the
                                  id of one that is not reachable or far behind */
    MEMBERS_LAST_VOTER = 35,   /* EDEADLK */
    MEMBERS_NO_VOTER = 95,     /* EOPNOTSUPP: TRANSFER to one that does not vote */
    MEMBERS_NO_HEIR = 113,     /* EHOSTUNREACH: TRANSFER, the leader does not reach it */
};

/* ---- control.c: the control socket's requests (first byte of a CONTROL frame) ------ */

enum control_command {
    CONTROL_STATUS = 1,
    CONTROL_INVITE = 2, /* ttl_s u64 */
    CONTROL_STOP = 3,
    CONTROL_GET = 4, /* path string, version u64 (0: any), offset u64 */
    CONTROL_PUT = 5, /* path string, flags u8 (1: last), content u64, offset u64, bytes */
    CONTROL_DEL = 6, /* path string */
    CONTROL_LIST = 7, /* path string, after string */
    CONTROL_BACKUP = 8,
    CONTROL_BACKUP_RECORDS = 9,  /* after string */
    CONTROL_BACKUP_ENTRIES = 10, /* first u64, last u64 (0: what is applied now) */
    CONTROL_REMOVE = 11,         /* name string */
    CONTROL_TRANSFER = 12,       /* name string, "": the best */
    CONTROL_ROTATE_CA = 13,
    CONTROL_LEAVE = 14,
    CONTROL_METRICS = 15,
    CONTROL_LOCKS = 16, /* after u64: an inode */
};

enum {
    CONTROL_PIECE_BYTES = 1 << 20, /* of a value, in one request or answer */
    CONTROL_LIST_NAMES = 1000,     /* in one answer */
    CONTROL_LOCKS_INODES = 4,      /* with all the locks that one may have */
};

enum control_put_flags { CONTROL_PUT_LAST = 1 };

/* CONTROL_ANSWER = status u8, then: WIRE_OK what the command's answer is (docs/protocol.md);
 * WIRE_FAILED errno u32 and text; WIRE_NO_QUORUM, WIRE_REFUSED text. */

void node_status_encode(const struct node_status *status, struct buf *to);
int node_status_decode(const void *data, size_t length, struct node_status *ret); /* -EPROTO */

struct node;

void control_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f);
/* metrics.c: queues and counters as text. */
void metrics_write(struct node *n, struct buf *to);
void control_closed(struct node *n, struct wire_connection *c);
void control_tick(struct node *n);
/* Before the store is closed: the connections are gone, without a call of the above. */
void control_backups_release(struct node *n);
/* A JOIN frame on the TLS port: checks it, runs NODE_OP_JOIN, signs, answers. */
void join_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f);

/* JOIN request and answer (docs/protocol.md). */
struct join_request {
    uint64_t token_id;
    uint8_t secret[NODE_SECRET_BYTES];
    char name[LIMIT_NAME_BYTES + 1];
    char address[LIMIT_ADDRESS_BYTES + 1];
    char request_pem[CLUSTER_PEM_BYTES];
    bool observer;
    uint16_t version;                   /* the newest that the joiner speaks */
    char replace[LIMIT_NAME_BYTES + 1]; /* who goes for it; "": nobody */
};
struct join_answer { /* after a status byte WIRE_OK; else errno u32 and text */
    uint64_t node_id;
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    char ca_pem[CLUSTER_PEM_BYTES], cert_pem[CLUSTER_PEM_BYTES];
    struct members members;
    char next_token[TOKEN_TEXT_BYTES]; /* "": this was a retry, its next token is lost */
};
void join_request_encode(const struct join_request *r, struct buf *to);
int join_request_decode(const void *data, size_t length, struct join_request *ret);
void join_answer_encode(const struct join_answer *a, struct buf *to);
int join_answer_decode(const void *data, size_t length, struct join_answer *ret);

/* ---- node.c and the rest: what control.c and the others may ask of a running node --- */

struct client_op;

/* client.c: one operation of this node, on its way to the leader and back (exactly once).
 * On the loop. `done` is called on the loop when it is committed and applied here, or
 * refused; it may free the struct. */
struct client_op {
    struct buf op; /* the caller fills it; released after done() by the caller */
    uint64_t subject;
    uint64_t session; /* in which alone it may be sent, else -EIO; 0: in any. When it is done:
                         in which it was (so who submits it again says anew) */
    int error;
    uint8_t result[STORE_RESULT_BYTES];
    void (*done)(struct client_op *op);
    /* kept by client.c */
    uint64_t request, index, arrived_us;
    uint64_t sent_us; /* last */
    int state, answer_error;
    unsigned flags, sends;
    struct client_op *next, *previous;
};
void client_submit(struct node *n, struct client_op *op);

struct store *node_store(struct node *n);
const struct fs_view *
node_view(struct node *n); /* any thread; its get may wait for the disk */
struct event_base *node_loop(struct node *n);
enum { NODE_BACKUP_IDLE_MS = 60 * 1000 };
/* After so long without a request the connection of a backup is closed. */
uint32_t node_backup_idle_ms(const struct node *n);
struct wire_endpoint *node_endpoint(struct node *n);
const struct directory *node_directory(const struct node *n);
const struct members *node_members(const struct node *n);
uint64_t node_last_timestamp(const struct node *n); /* the log's newest: its clock */
void node_fill_status(struct node *n, struct node_status *ret);
/* Begins to stop; `answer` is called once on the loop with 0 just before the process
 * ends, or with -EBUSY where files are open and it goes on running. */
void node_stop(struct node *n, bool force, void (*answer)(void *context, int error),
               void *context);
/* As node_stop(n, false), and when the mount is gone this node is removed from the cluster.
 * Where that was refused the process ends all the same, and `answer` gets the error. */
void node_leave(struct node *n, void (*answer)(void *context, int error), void *context);
/* The node whose session it is; 0: it is not known, or over. */
uint64_t node_of_session(struct node *n, uint64_t session);
/* 0: none known. */
uint64_t node_leader(const struct node *n);

/* pager.c: runs `work` on the reader thread (it may wait for the disk), then `done` on
 * the loop. */
struct pager_task {
    void (*work)(struct pager_task *task);
    void (*done)(struct pager_task *task);
    struct pager_task *next;
    uint64_t *queued; /* the thread's count */
};
void pager_submit(struct node *n, struct pager_task *task);

#endif
