/*
 * cli.h - what the subcommands share: their table, their options, and how they speak.
 *
 * Exit codes: 0 done, 1 failed (`tierce: message` on stderr), 2 used wrongly.
 */
#ifndef TIERCE_CLI_H
#define TIERCE_CLI_H

#include "node.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

enum cli_option {
    CLI_DATA = 1 << 0,
    CLI_LISTEN = 1 << 1,
    CLI_ADVERTISE = 1 << 2,
    CLI_NAME = 1 << 3,
    CLI_TTL = 1 << 4,
    CLI_FOREGROUND = 1 << 5,
    CLI_MOUNT_OPTIONS = 1 << 6,
    CLI_JSON = 1 << 7,
    CLI_NUL = 1 << 8,
    CLI_VERIFY = 1 << 9,
    CLI_REPLACE = 1 << 10,
    CLI_LEARNER = 1 << 11,
    CLI_FORCE = 1 << 12,
};

struct cli_call {
    const struct cli_command *command;
    unsigned given; /* of enum cli_option */
    const char *data, *listen, *advertise, *name, *ttl, *replace;
    struct buf mount_options; /* joined by commas, NUL-terminated; empty: none */
    char **arguments;
    int argument_count;
};

enum { CLI_ARGUMENTS = 2 }; /* the most that a command takes */

struct cli_command {
    const char *name;
    const char *usage;   /* after the name */
    const char *summary; /* one line */
    const char *help;
    unsigned options;                     /* those it takes */
    const char *arguments[CLI_ARGUMENTS]; /* their names, in order */
    int arguments_min;
    int (*run)(struct cli_call *call);
};

/* One per family; see main.c's table. */
int cli_init(struct cli_call *call);
int cli_join(struct cli_call *call);
int cli_invite(struct cli_call *call);
int cli_mount(struct cli_call *call);
int cli_serve(struct cli_call *call);
int cli_stop(struct cli_call *call);
int cli_status(struct cli_call *call);
int cli_members(struct cli_call *call);
int cli_remove(struct cli_call *call);
int cli_leave(struct cli_call *call);
int cli_transfer(struct cli_call *call);
int cli_locks(struct cli_call *call);
int cli_metrics(struct cli_call *call);
int cli_get(struct cli_call *call);
int cli_put(struct cli_call *call);
int cli_del(struct cli_call *call);
int cli_ls(struct cli_call *call);
int cli_inspect(struct cli_call *call);
int cli_backup(struct cli_call *call);
int cli_restore(struct cli_call *call);
int cli_rotate_ca(struct cli_call *call);
int cli_recover(struct cli_call *call);

/* `tierce: message` on stderr; returns CLI_FAILED. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with where to find help; returns CLI_USAGE. */
int cli_misused(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* What was printed has arrived: CLI_OK, or CLI_FAILED with the message. */
int cli_flush(void);

/* main.c: what stood after one more -o. 0, or CLI_FAILED with the message. */
int cli_add_mount_options(struct cli_call *call, const char *options);

/* helper.c: whether mount(8) called, by the name of its helper or without a subcommand; and
 * what is done then. */
bool cli_is_helper(int argc, char **argv);
int cli_helper(int argc, char **argv);

/* daemon.c: the node as a process of its own (or in this one). `mountpoint` NULL: none.
 */
int cli_run_node(struct cli_call *call, const char *mountpoint);

/* mountpoint.c: absolute and fit to be mounted on: a directory, apart from the data
 * directory (which need not exist yet). -1: the message has been printed. */
int cli_mountpoint(const char *path, const char *data, char **ret);

/* status.c: a status as an object of JSON, a line. */
void cli_json_status(struct buf *to, const struct node_status *s);

/* members.c: the members of a status, as a table and as an array of JSON. */
void cli_format_members(struct buf *to, const struct node_status *s);
void cli_json_members(struct buf *to, const struct node_status *s);
/* Asks the node, and prints what one of these makes of its answer. */
typedef void cli_format_fn(struct buf *to, const struct node_status *s);
int cli_show_status(const struct cli_call *call, cli_format_fn *text, cli_format_fn *json);

/* rotate.c: the step of a replacement of the CA that is under way, from 1; 0: there is none. */
enum { CLI_ROTATION_STEPS = 3 };
unsigned cli_rotation_step(const struct node_status *s);
/* Who has not taken it, each with a blank or a comma before it. */
void cli_format_behind(struct buf *to, const struct node_status *s);

/* json.c: `text` as a JSON string, quoted; bytes that are no UTF-8 become U+FFFD. */
void cli_json_string(struct buf *to, const char *text);

#endif
