/* one_node.h - a node of one, without port and mount: its loop is run by the test. */
#ifndef TIERCE_TESTS_ONE_NODE_H
#define TIERCE_TESTS_ONE_NODE_H

#include "node_core.h"

/* Makes a cluster of one in a new directory and starts it; it leads when this returns. */
struct node *one_node_start(void);
void one_node_stop(struct node *n); /* removes the directory */

/* Runs the loop until `done` says so; fails the test after a generous while. */
void one_node_run(struct node *n, bool (*done)(struct node *n, void *arg), void *arg);

/* One operation through the node's own client; 0 or its errno. */
int one_node_fs(struct node *n, const struct fs_op *op, struct fs_result *ret);
int one_node_op(struct node *n, const struct node_op *op, struct fs_result *ret);
/* A learner "two" at that address, which need not run; its id. */
uint64_t one_node_join(struct node *n, const char *address);

/* Stands for a connection that is not open: what is sent on it goes nowhere. */
struct wire_connection *one_node_connection(void);

#endif
