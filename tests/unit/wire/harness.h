/*
 * harness.h - a cluster's identities and some endpoints in one process, on one loop, over
 * the loopback; what their handlers saw; and a raw peer that may do what tierce would
 * not.
 */
#ifndef TIERCE_TEST_WIRE_HARNESS_H
#define TIERCE_TEST_WIRE_HARNESS_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire_internal.h"

struct cluster {
    uint8_t id[WIRE_CLUSTER_ID_BYTES];
    char *ca_key, *ca_cert;
};

struct cluster *cluster_new(void);
void cluster_free(struct cluster *cl);
/* A signed certificate for `node_id` and its key; the caller frees both. */
void cluster_certify(const struct cluster *cl, uint64_t node_id, char **ret_cert,
                     char **ret_key);

struct side {
    struct event_base *loop;
    struct wire_endpoint *endpoint;
    uint64_t node_id;
    char address[64];
    /* What its handlers saw. */
    unsigned opened, frames, closed, drained, asked;
    struct wire_connection *last; /* of the last opened(), until its closed() */
    struct wire_hello hello;
    char reason[WIRE_ERROR_BYTES];
    enum wire_refusal refusal;
    uint8_t type;
    uint16_t stream;
    struct buf value; /* of the last frame */
    /* What a test wants done in the handlers. */
    int refuses; /* admit's answer, with this text: */
    const char *refusal_text;
    void (*on_admit)(struct side *s, struct wire_connection *c);
    void (*on_opened)(struct side *s, struct wire_connection *c);
    void (*on_frame)(struct side *s, struct wire_connection *c,
                     const struct wire_frame *frame);
    void (*on_drained)(struct side *s, struct wire_connection *c);
    void *test;
};

struct event_base *loop_new(void);
/* Frees the loop after what endpoints left behind has been cleaned up. */
void loop_free(struct event_base *loop);

struct side *side_new(const struct cluster *cl, struct event_base *loop,
                      uint64_t node_id);
/* The same, but it says in its HELLO what `hello` says. */
struct side *side_new_as(const struct cluster *cl, struct event_base *loop,
                         uint64_t node_id, uint64_t certified_id);
void side_free(struct side *s);
/* It speaks these versions from now on. */
void side_speaks(struct side *s, uint16_t oldest, uint16_t newest);
struct wire_connection *side_dial(struct side *from, const struct side *to);
/* Runs the loop until both sides have one open connection. */
void connect_sides(struct side *from, struct side *to);
const struct wire_counters *counters_of(const struct side *s);

/* Nodes 1 and 2 of a cluster on one loop: a fixture of cmocka's, its state a pair. */
struct pair {
    struct cluster *cl;
    struct event_base *loop;
    struct side *a, *b;
};
int pair_setup(void **state);
int pair_teardown(void **state);

/* Runs the loop until the condition holds; the test's own alarm ends a wait in vain. */
#define run_until(loop, condition)                                                       \
    do {                                                                                 \
        while (!(condition))                                                             \
            event_base_loop(loop, EVLOOP_ONCE);                                          \
    } while (0)

/* ---- A raw peer ------------------------------------------------------------------ */

struct raw {
    struct event_base *loop;
    int fd;
    SSL_CTX *context;
    SSL *tls;
};

struct raw raw_connect(struct side *to);
/* Options of a TLS client: what tierce would never offer. */
struct raw_tls {
    const char *cert, *key;
    int max_version;
};
/* Handshakes, running the loop meanwhile. 0, or -1: refused. */
int raw_handshake(struct raw *r, const struct raw_tls *how);
void raw_send(struct raw *r, const void *data, size_t length);
void raw_send_frame(struct raw *r, uint8_t type, uint16_t stream, const void *value,
                    size_t length);
void raw_send_hello(struct raw *r, const struct cluster *cl, uint64_t node_id);
/* Runs the loop until `length` bytes have come; false: the connection ended before. */
bool raw_receive(struct raw *r, void *to, size_t length);
/* Runs the loop until the other end has closed. Bytes that came before it did. */
size_t raw_until_closed(struct raw *r);
void raw_close(struct raw *r);

#endif
