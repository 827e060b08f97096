/*
 * node.h - one host's part of a cluster: a data directory, the process that runs on it
 * (consensus, store, mount and port around one loop thread), and what the command line
 * asks of both.
 *
 * `error` arrays get one line for a user: what failed, on what, and what to do. Returns
 * are 0 or a negative errno. Everything here is called from the command line's only
 * thread.
 */
#ifndef TIERCE_NODE_H
#define TIERCE_NODE_H

#include "base.h"

enum { NODE_ERROR_BYTES = 1024 };

#define NODE_DEFAULT_DATA   "/var/lib/tierce"
#define NODE_DEFAULT_LISTEN ":7370"

/* ---- Setting up a data directory --------------------------------------------------- */

struct node_setup {
    const char *data;
    const char *name;      /* NULL: the host's name */
    const char *listen;    /* NULL: every address, port 7370 */
    const char *advertise; /* NULL: what follows from `listen` and the host's addresses */
    const char *replace;   /* join: the name of a member that goes for it; NULL: none */
    bool observer;         /* join: it stays a learner, and never votes */
};

/* Makes a cluster of one node. *ret_token (malloc'ed): lets one more node in. On failure
 * nothing is left behind. -EEXIST: the directory holds a node, or other files. */
int node_init(const struct node_setup *setup, char **ret_token,
              char error[NODE_ERROR_BYTES]);
/* Joins the cluster of the token, as a learner that is promoted once it runs and has
 * caught up (an observer never). *ret_next_token: for the next host. Run again with the same token after a
 * failure. */
int node_join(const struct node_setup *setup, const char *token, char **ret_next_token,
              char error[NODE_ERROR_BYTES]);

struct node_identity {
    uint8_t cluster[16];
    uint64_t id;
    char name[LIMIT_NAME_BYTES + 1];
    char listen[LIMIT_ADDRESS_BYTES + 1];
    char advertise[LIMIT_ADDRESS_BYTES + 1];
};
/* What the data directory says of its node, running or not. */
int node_identify(const char *data, struct node_identity *ret, char error[NODE_ERROR_BYTES]);

/* "24h", "90m", "30s", "7d" or seconds; not 0. -EINVAL. */
int node_duration_parse(const char *text, uint64_t *ret_s);

/* ---- The process ------------------------------------------------------------------- */

struct node_status;

struct node_run_options {
    const char *data;
    const char *mountpoint;    /* absolute; NULL: no mount */
    const char *mount_options; /* as after -o; may be NULL */
    /* Called once, when the node serves (its mount too). `warning` NULL, or why it is
     * read-only for now (no majority). */
    void (*ready)(void *context, const char *warning);
    void *context;
    /* What `.tierce/status` and `.tierce/members` of the mount say; NULL: nothing. On the loop:
     * they only format. */
    void (*show_status)(struct buf *to, const struct node_status *s);
    void (*show_members)(struct buf *to, const struct node_status *s);
    uint16_t version; /* of the protocol, the newest it speaks; 0: WIRE_PROTOCOL_VERSION */
};

/* Runs the node until it is stopped (STOP, SIGTERM, SIGINT, or unmounting). Blocks.
 * Signals are handled while it runs. Not 0: it could not start; after `ready`, or
 * stopped before it, it returns 0. */
int node_run(const struct node_run_options *options, char error[NODE_ERROR_BYTES]);

/* ---- Asking a running node --------------------------------------------------------- */

enum node_role { NODE_LEADER, NODE_FOLLOWER, NODE_CANDIDATE, NODE_LEARNER };

enum { NODE_PROGRAM_BYTES = 32 }; /* a program's version as text, with its NUL */

struct node_member {
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t id;
    char address[LIMIT_ADDRESS_BYTES + 1];
    bool voter;
    bool observer; /* a learner that is never promoted */
    bool reachable;
    uint64_t applied; /* as far as this node knows; 0: not */
    uint16_t version; /* the newest protocol version that its program speaks */
    uint32_t ca;      /* the step of the CA's rotation that it has taken */
    char program[NODE_PROGRAM_BYTES]; /* its version; "": not known */
};

struct node_status {
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t id;
    uint8_t cluster[16];
    enum node_role role;
    uint64_t term;
    uint64_t leader; /* 0: none known */
    uint64_t commit, applied, last;
    bool quorum;
    char mountpoint[LIMIT_PATH_BYTES + 1]; /* "": none */
    char version[NODE_PROGRAM_BYTES]; /* of the program */
    uint32_t pid;
    bool space_low;
    bool complete;  /* false: what is merged here was made later than what is applied; nothing
                       is served until then (G7) */
    bool disk_hung; /* a write of the log has not been answered for seconds */
    uint64_t keys, log_bytes, disk_free_bytes;
    uint64_t base;       /* the log begins after this entry */
    uint64_t live_bytes; /* records that count, of log and merged files */
    uint64_t merged_bytes, merged_files, hint_bytes;
    uint64_t merges, merge_bytes_written;      /* since the start */
    uint64_t scrubs, scrubbed_bytes;           /* since the start */
    uint64_t bad_reads;                        /* that failed their checksum */
    uint64_t damaged, repaired, unrepaired;    /* found; written back; no node had it */
    uint64_t snapshot_bytes, snapshot_total;   /* being fetched; 0, 0: none */
    uint16_t cluster_version;   /* the protocol version that every member speaks */
    uint64_t certificate_end_s; /* of this node, since 1970; 0: not known */
    uint64_t refused; /* connections and frames of the port that were refused, in all */
    uint32_t member_count;
    struct node_member members[LIMIT_MEMBERS];
};

int node_call_status(const char *data, struct node_status *ret,
                     char error[NODE_ERROR_BYTES]);
/* Its queues and counters, as Prometheus reads them: *ret_text is to be freed. */
int node_call_metrics(const char *data, char **ret_text, char error[NODE_ERROR_BYTES]);
int node_call_invite(const char *data, uint64_t ttl_s, char **ret_token,
                     char error[NODE_ERROR_BYTES]);
/* Begins to replace the cluster's CA, or finds that under way. It goes on by itself, and is
 * done when every member of the status has taken the last step. */
int node_call_rotate_ca(const char *data, uint32_t *ret_last, bool *ret_begun,
                        char error[NODE_ERROR_BYTES]);
/* Returns when the process has ended. -EBUSY: files on its mount are open. Where it was killed,
 * the mount that it left is taken away. */
int node_call_stop(const char *data, char error[NODE_ERROR_BYTES]);
/* Where the node on `data` was unmounted, or killed, and so ends: returns when it is gone (at
 * most after 15 s), and ends what would keep it (K9). At once where none runs, or one that
 * does not end. */
void node_call_await_ending(const char *data);
/* As node_call_stop(), and this node is no member any more. -EBUSY, or why the others would not go on
 * without it: nothing has changed. */
int node_call_leave(const char *data, char error[NODE_ERROR_BYTES]);
/* Another member goes for good: its certificate is refused from then on. */
int node_call_remove(const char *data, const char *name, char error[NODE_ERROR_BYTES]);
/* Another voter leads, `name` or, where that is empty, the one that is best fit to. */
int node_call_transfer(const char *data, const char *name,
                       char ret_leader[LIMIT_NAME_BYTES + 1],
                       char error[NODE_ERROR_BYTES]);

/* A lock that is held or waited for, as this node knows it. */
struct node_lock {
    uint64_t inode;
    char path[LIMIT_PATH_BYTES + 1]; /* "": no name leads there */
    char node[LIMIT_NAME_BYTES + 1]; /* of whose mount */
    uint32_t pid;                    /* there */
    bool is_flock, writes, waits;
    uint64_t start, end; /* bytes */
    bool endless;        /* to the end of the file, however long it gets */
    uint64_t since_us;   /* 1970 */
};
int node_call_locks(const char *data,
                    int (*each)(void *context, const struct node_lock *lock),
                    void *context, char error[NODE_ERROR_BYTES]);

/* Keys. `write` gets the value in pieces (0 or a negative errno that ends the call);
 * `read` fills `to` and returns the number of bytes, 0 at the end, or a negative errno.
 */
int node_call_get(const char *data, const char *path,
                  int (*write)(void *context, const void *bytes, size_t length),
                  void *context, char error[NODE_ERROR_BYTES]);
/* Makes missing parent directories. The new value is seen whole or not at all. */
int node_call_put(const char *data, const char *path,
                  ssize_t (*read)(void *context, void *to, size_t size), void *context,
                  char error[NODE_ERROR_BYTES]);
int node_call_del(const char *data, const char *path, char error[NODE_ERROR_BYTES]);
/* Names in order; of a file: its own. `type`: DT_*. */
int node_call_ls(const char *data, const char *path,
                 int (*each)(void *context, const char *name, size_t name_size,
                             uint8_t type),
                 void *context, char error[NODE_ERROR_BYTES]);

/* ---- Backup and restore ------------------------------------------------------------- */

struct node_backup {
    uint8_t cluster[16];
    uint64_t index, term; /* the entry as of which it is */
    uint64_t records, entries, bytes;
    bool quorum; /* the node had reached a majority: what it knows is what the cluster knew */
};

/* Asks the node running on `data` for all that the cluster holds, and writes it to `file`,
 * which is replaced when all is written and synced. */
int node_call_backup(const char *data, const char *file, struct node_backup *ret,
                     char error[NODE_ERROR_BYTES]);
/* As node_init(), with the name space of a backup; all of it is checked first. */
int node_restore(const struct node_setup *setup, const char *file, char **ret_token,
                 char error[NODE_ERROR_BYTES]);

/* ---- Disaster recovery -------------------------------------------------------------- */

struct node_recovery {
    char name[LIMIT_NAME_BYTES + 1];
    uint8_t cluster[16];              /* that it was of, or has become */
    uint64_t last_index, last_term;   /* where its log ends; counted as committed */
    bool finished;                    /* an earlier recovery was finished, nothing else */
};

/* Makes the node of a stopped data directory a cluster of its own, with a new id and a new CA,
 * out of what is there. May be run again after a failure or a crash. *ret_token lets one more
 * node in; NULL where an earlier recovery was finished. `force` false: only looks, changes
 * nothing, and *ret_token is left alone. */
int node_recover(const char *data, bool force, struct node_recovery *ret, char **ret_token,
                 char error[NODE_ERROR_BYTES]);

/* ---- Looking at files while no node runs ------------------------------------------- */

struct node_inspect {
    const char *data;
    const char *file; /* as it is, or in `data` or its log; NULL: all of the store's */
    bool verify;      /* all of it is read and checked */
    /* A line of what is there; kind "problem": what is wrong, "note": what the next start
     * sees to. Not 0: ends the looking, and is returned. */
    int (*fact)(void *context, const struct fact *fact);
    void *context;
};

/* -EBUSY: a node runs there, or was started meanwhile. It is not kept from starting. */
int node_inspect(const struct node_inspect *what, uint64_t *ret_problems,
                 char error[NODE_ERROR_BYTES]);

#endif
