/* call.h - one connection of the command line to a node: what call.c and backup_call.c
 * share. */
#ifndef TIERCE_NODE_CALL_H
#define TIERCE_NODE_CALL_H

#include "node_internal.h"

struct call {
    const char *data;
    const char *what; /* "put \"a/b\"": what is being done, for messages */
    int fd;
    struct buf request, answer;
    struct reader fields; /* of a good answer, after its status */
};

/* call_close() follows in every case. */
int call_open(struct call *c, const char *data, const char *what,
              char error[NODE_ERROR_BYTES]);
void call_close(struct call *c);
/* The request, for its fields. */
struct buf *call_begin(struct call *c, enum control_command command);
/* Sends what stands in `request`; 0: c->fields are the answer's. timeout_ms 0: none. */
int call_ask(struct call *c, unsigned timeout_ms, char error[NODE_ERROR_BYTES]);
/* A request whose answer comes when the node ends: returns when its process has. */
int call_until_end(const char *data, enum control_command command, const char *what,
                   char error[NODE_ERROR_BYTES]);
/* Whether the node's process was killed and is still there: what keeps it in the kernel is
 * ended (K9), and it will be gone soon. It answers nobody. */
bool call_end_killed(const char *data);
/* Says that the answer's fields make no sense. */
int call_bad_answer(const struct call *c, char error[NODE_ERROR_BYTES]);

#endif
