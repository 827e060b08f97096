/* evaluate.h - what evaluate.c and evaluate_members.c share. */
#ifndef TIERCE_NODE_EVALUATE_H
#define TIERCE_NODE_EVALUATE_H

#include "node_core.h"

/* What is applied plus what is in flight. -EAGAIN: n->missed names what must be read in. */
int evaluate_get(struct node *n, const struct fs_key *key, struct buf *to);
/* Into the entry being built; `value` NULL: a tombstone. */
void evaluate_put(struct evaluation *e, const struct fs_key *key,
                  const struct buf *value);
/* Ends the sessions of a node, as many as go into this entry, which has begun (S6, S7). */
int evaluate_end_sessions(struct node *n, uint64_t node_id, struct evaluation *e);

/* evaluate_members.c. A membership is the first record of its entry: that is how a change of
 * it is known. */
void evaluate_put_members(struct evaluation *e);
int evaluate_invite(struct node *n, const struct node_op *op, struct evaluation *e);
int evaluate_join(struct node *n, const struct node_op *op, struct evaluation *e);
int evaluate_promote(struct node *n, const struct node_op *op, struct evaluation *e);
int evaluate_remove(struct node *n, const struct node_op *op, struct evaluation *e);
int evaluate_report(struct node *n, uint64_t session, const struct node_op *op,
                    struct evaluation *e);
int evaluate_version(struct node *n, const struct node_op *op, struct evaluation *e);
int evaluate_transfer(struct node *n, const struct node_op *op, struct evaluation *e);

/* evaluate_ca.c. Result of the first: the step that is now, and the last one. */
int evaluate_rotate_ca(struct node *n, const struct node_op *op, struct evaluation *e);
int evaluate_advance_ca(struct node *n, const struct node_op *op, struct evaluation *e);

#endif
