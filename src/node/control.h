/* control.h - what control.c, control_keys.c and join.c share: the life of a request. */
#ifndef TIERCE_NODE_CONTROL_H
#define TIERCE_NODE_CONTROL_H

#include "node_internal.h"

/* A request of the control socket, or a JOIN, that waits for the loop, the pager or the
 * leader: one of a connection at a time. It ends with exactly one of the answers below,
 * which free it. Where its connection is closed meanwhile it runs on, and the answer is
 * dropped. */
struct control_request {
    struct node *node;
    struct wire_connection *connection; /* NULL: closed */
    uint16_t stream;
    uint8_t answer_type;
    struct control_request *next, *previous;
    void *state; /* the command's own, released by `release_state` */
    void (*release_state)(void *state);
    struct client_op op;
    struct pager_task task;
};

/* NULL: refused (one is on its way), or no memory; the connection has been closed. */
struct control_request *control_begin(struct node *n, struct wire_connection *c,
                                      const struct wire_frame *f, uint8_t answer_type);
void control_answer(struct control_request *r, const void *value, size_t length);
void control_answer_error(struct control_request *r, int error, const char *text);
void control_refuse(struct control_request *r, const char *why); /* WIRE_REFUSED */
void control_answer_busy(struct control_request *r); /* files of the mount are open */
/* Fields that did not fill their frame: no answer, the connection is closed. */
void control_malformed(struct control_request *r);

/* control_keys.c: the commands on paths. Each gets the frame after its first byte. */
void control_get(struct control_request *r, struct reader *frame);
void control_put(struct control_request *r, struct reader *frame);
void control_del(struct control_request *r, struct reader *frame);
void control_list(struct control_request *r, struct reader *frame);

void control_locks(struct control_request *r, struct reader *frame); /* control_locks.c */

/* control_members.c. */
enum { CONTROL_TRANSFER_US = 3000 * 1000 }; /* after so long nobody takes over any more */
void control_rotate_ca(struct control_request *r, struct reader *frame); /* control_ca.c */
void control_remove(struct control_request *r, struct reader *frame);
void control_leave(struct control_request *r, struct reader *frame);
void control_transfer(struct control_request *r, struct reader *frame);
/* Its transfer is under way: to be looked at with the tick. */
bool control_awaits_transfer(const struct control_request *r);
void control_transfer_tick(struct control_request *r);
/* Why a change of the members was refused, in words; "": by something else. */
void control_members_why(struct node *n, int error, const char *name, uint64_t lacking,
                         char text[NODE_ERROR_BYTES]);

/* control_backup.c: a backup's three commands, and its connection's end. */
void control_backup(struct control_request *r, struct reader *frame);
void control_backup_records(struct control_request *r, struct reader *frame);
void control_backup_entries(struct control_request *r, struct reader *frame);
void control_backup_closed(struct wire_connection *c);
/* The log is not kept for them any more: they fail. */
void control_backups_unpin(struct node *n);

/* A fresh token for this cluster, with this node's and the voters' addresses, and its
 * record. */
int token_make_here(struct node *n, uint64_t ttl_s, struct token *ret,
                    struct token_record *ret_record);

#endif
