/*
 * twin.h - a node without consensus: a data directory made by init, its store, and the
 * control socket on a loop thread. Operations are evaluated, appended and applied on the
 * spot.
 */
#ifndef TIERCE_TEST_NODE_TWIN_H
#define TIERCE_TEST_NODE_TWIN_H

#include "node_internal.h"

struct node {
    struct directory directory;
    struct event_base *loop;
    struct wire_endpoint *endpoint;
    struct store *store;
    struct fs_view view;
    pthread_t thread;
    _Atomic uint32_t backup_idle_ms; /* as a node's, unless a test sets it */
    /* What the next operations and stops meet: */
    _Atomic int error;        /* of every operation; 0: none */
    _Atomic bool busy;        /* stop: files are open */
    _Atomic bool lose_answer; /* of an operation that was done: no majority, as it seems */
    _Atomic bool hold_next;   /* an operation waits until a connection was closed */
    struct client_op *held;   /* loop */
    bool held_closed;         /* loop: its connection is gone */
    _Atomic uint64_t leader;  /* TRANSFER makes it another */
    _Atomic uint64_t lacking; /* the value of results that are refusals */
    struct node_op last_op;   /* of the cluster's own, but JOIN */
    _Atomic uint64_t dropped; /* connections that closed while an operation was held */
};

/* Ends the test where it cannot. `data`: where init has been run. */
struct node *twin_start(const char *data);
/* After its loop has ended (STOP), frees it. */
void twin_join(struct node *n);

#endif
