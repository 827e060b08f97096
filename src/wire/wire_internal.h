/*
 * wire_internal.h - what the files of this folder share, and its unit tests see.
 *
 * A connection's life; every edge is taken by the function named at it:
 *
 *   wire_dial --> CONNECTING --dial_connected--+
 *                                              v
 *   endpoint_accept ----------------------> HANDSHAKE --connection_secured--> HELLO
 *                                                                               |
 *   local_accept ------------------------------> OPEN <--connection_hello------+
 *                                                  |
 *                        wire_close_after_sending  v        connection_refuse, in HELLO
 *                                               CLOSING <-------------------------------
 *
 *   any --connection_fail--> FAILED --connection_leave (closed())--> DEAD
 *   any --wire_close-------> DEAD   --connection_leave--> freed
 */
#ifndef TIERCE_WIRE_INTERNAL_H
#define TIERCE_WIRE_INTERNAL_H

#include "wire.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/queue.h>
#include <sys/un.h>

enum {
    TIMEOUT_HELLO_MS = 5000,    /* from the dial or accept until the peer's HELLO */
    TIMEOUT_FRAME_MS = 10000,   /* a frame begun until it is whole, and ... */
    FRAME_FLOOR_KIB_S = 64,     /* ... its bytes at this rate besides */
    TIMEOUT_JOINER_MS = 10000,  /* all that a joiner gets */
    TIMEOUT_CLOSING_MS = 10000, /* wire_close_after_sending: until all is sent */
    TIMEOUT_ADDRESS_MS = 2000,  /* one address of a name that has more of them */
    ACCEPT_PAUSE_MS = 100,      /* after accept failed, of EMFILE and the like */
    SILENCE_MS = 3000,    /* the peer's host takes nothing, and answers no probe: W7 */
    KEEPALIVE_IDLE_S = 1, /* where nothing is on its way, probes: several within that */
    KEEPALIVE_INTERVAL_S = 1,
    KEEPALIVE_PROBES = 3,
    LISTEN_BACKLOG = 512,
    LISTENERS_MAX = 8,               /* addresses one name may stand for */
    COPIED_PART_BYTES = 8 << 10,     /* up to here copying beats one more TLS record */
    EXPANDED_FRAME_BYTES = 64 << 10, /* from here a frame gets its memory at once */
    QUEUE_END_BYTES = 4 * LIMIT_SEND_QUEUE_BYTES, /* a peer this far behind is cut off */
    TLS_CERTIFICATE_BYTES = 16 << 10,             /* the longest chain a peer may send */
    TLS_RECORD_BYTES = 16 << 10,
    /* The input may hold one whole frame and the record that brought its end (W2). */
    INPUT_BYTES = WIRE_FRAME_HEADER + LIMIT_FRAME_BYTES + TLS_RECORD_BYTES,
    INPUT_BYTES_UNPROVEN = WIRE_FRAME_HEADER + LIMIT_JOIN_FRAME_BYTES + TLS_RECORD_BYTES,
};

_Static_assert(SILENCE_MS < TIMEOUT_HELLO_MS, "a dial in vain takes longer");
_Static_assert(1000 * (KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S) < SILENCE_MS,
               "one probe may be lost");
_Static_assert(INPUT_BYTES < 2 * LIMIT_FRAME_BYTES, "less than two frames are held");
_Static_assert(QUEUE_END_BYTES > LIMIT_SEND_QUEUE_BYTES + LIMIT_FRAME_BYTES,
               "one frame beyond a full queue does not end a connection");

struct wire_timeouts {
    unsigned hello_ms, frame_ms, joiner_ms, closing_ms;
};

/* ---- frame.c --------------------------------------------------------------------- */

struct frame_header {
    uint8_t type;
    uint16_t stream;
    uint32_t length;
};

void frame_header_put(uint8_t to[WIRE_FRAME_HEADER], struct frame_header header);
struct frame_header frame_header_get(const uint8_t from[WIRE_FRAME_HEADER]);

enum frame_phase {
    PHASE_HELLO,  /* nothing has come yet */
    PHASE_OPEN,   /* HELLO has come */
    PHASE_JOINED, /* a joiner's JOIN has come */
};

enum frame_verdict {
    FRAME_IS_HELLO,
    FRAME_IS_REFUSAL, /* of us: closes */
    FRAME_DELIVERED,  /* to the handler */
    FRAME_SKIPPED,    /* unknown here: ERROR answers it */
    FRAME_TOO_LONG,   /* closes */
    FRAME_REFUSED,    /* closes */
};

/* What happens to a frame with this header; the whole table of who may say what, when. */
enum frame_verdict frame_judge(enum wire_peer_kind kind, enum frame_phase phase,
                               const struct frame_header *header);

/* ---- hello.c --------------------------------------------------------------------- */

void refusal_encode(enum wire_refusal reason, const char *text, struct buf *to);
/* What would spoil a log is replaced in the text. -EPROTO. */
int refusal_decode(const void *data, size_t length, enum wire_refusal *ret_reason,
                   char ret_text[WIRE_ERROR_BYTES]);

/* ---- pki.c ----------------------------------------------------------------------- */

enum { PKI_BACKDATED_DAYS = 1 }; /* a peer's clock may be behind ours */

/* NULL where the PEM text is not one. */
X509 *pki_read_certificate(const char *pem);
EVP_PKEY *pki_read_key(const char *pem);
/* All of them, one at least; NULL where one is not readable. */
STACK_OF(X509) * pki_read_certificates(const char *pem);
void pki_free_certificates(STACK_OF(X509) * all); /* NULL is allowed */
int pki_certificate_hash(const X509 *certificate, uint8_t ret[WIRE_HASH_BYTES]);

/* ---- identity.c ------------------------------------------------------------------ */

/* The ids in a node certificate's subject. -EINVAL: it has none. */
int pki_certificate_ids(const X509 *certificate,
                        uint8_t ret_cluster_id[WIRE_CLUSTER_ID_BYTES],
                        uint64_t *ret_node_id);
/* Verifies `certificate` as a server's and client's under one of exactly these CAs:
 * X509_V_OK or another X509_V_ERR_*. */
int pki_verify(X509 *certificate, const STACK_OF(X509) * cas);
/* Whether one of them has signed it, in time or not. */
bool pki_is_of(X509 *certificate, const STACK_OF(X509) * cas);

/* ---- tls.c ----------------------------------------------------------------------- */

/* One context for both directions, and the CAs that it believes. -EKEYREJECTED, -ENOMEM with
 * `error`. */
int tls_context_new(SSL_CTX **ret, STACK_OF(X509) * *ret_cas,
                    const struct wire_identity *identity, char error[WIRE_ERROR_BYTES]);
/* A context that has no certificate and believes none: the caller checks (call.c). */
SSL_CTX *tls_joiner_context_new(void);
/* Attaches a socket that is not closed with `ssl`, and never raises SIGPIPE. */
int tls_attach(SSL *ssl, int fd);
/* What went wrong, from an OpenSSL error code (0: not known); for a log. */
void tls_error_text(unsigned long code, char *to, size_t size);

/* ---- connection.c ---------------------------------------------------------------- */

enum connection_state {
    CONNECTION_CONNECTING,
    CONNECTION_HANDSHAKE,
    CONNECTION_HELLO,
    CONNECTION_OPEN,
    CONNECTION_CLOSING,
    CONNECTION_FAILED,
    CONNECTION_DEAD,
};

struct wire_connection {
    struct wire_endpoint *endpoint;
    TAILQ_ENTRY(wire_connection) link;
    enum wire_peer_kind kind;
    enum connection_state state;
    unsigned busy; /* callbacks of this connection on the stack (W4) */
    bool dialed;
    bool announced; /* the handlers know it: closed() is owed */
    bool unproven;  /* counted in endpoint->unproven */
    bool joined;
    bool unwelcome;            /* a joiner that is told so (reason) after its JOIN */
    bool refused;              /* by us: closed() says why when it has ended */
    enum wire_refusal refusal; /* by the peer */
    uint16_t version;          /* the one that is spoken, once it is open */
    bool full;                 /* -ENOBUFS was said, drained() is owed */
    bool in_frame;             /* part of a frame has come; the timer runs for it */
    bool expanded;             /* memory for the frame in progress is there */
    uint32_t frame_length; /* of the frame in progress, 0 before its header is there */
    uint64_t frame_since_us;
    uint64_t since_us;
    uint64_t peer_id; /* in its certificate; before that, the id that was dialed */
    void *tag;
    struct bufferevent *bev;
    struct evbuffer *queue;              /* frames of this turn of the loop: see send.c */
    TAILQ_ENTRY(wire_connection) unsent; /* in endpoint->unsent while `queued` */
    bool queued;
    bool heard; /* something came since wire_each_heard() */
    struct event timer;
    struct event later; /* what must not happen within the caller's own call */
    struct dial *dial;
    char peer[LIMIT_ADDRESS_BYTES + 1];
    char reason[WIRE_ERROR_BYTES];
};

struct wire_connection *connection_new(struct wire_endpoint *e, enum wire_peer_kind kind);
void connection_free(struct wire_connection *c);
/* Every callback of the loop begins and ends with these (W4). After connection_leave()
 * the connection may be gone. */
void connection_enter(struct wire_connection *c);
void connection_leave(struct wire_connection *c);
/* Ends it with closed(); at once when the callback on the stack returns, else from the
 * loop. Only the first reason counts. */
void connection_fail(struct wire_connection *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* What is queued is sent, then the end is said; the peer's is waited for. */
void connection_close_after_sending(struct wire_connection *c);
void connection_set_timer(struct wire_connection *c, uint64_t from_us, uint64_t ms);
/* The endpoint believes other CAs now. */
void connection_trust_again(struct wire_connection *c);
/* send.c: what was queued leaves, as far as the socket takes it. */
void connection_flush(struct wire_connection *c);
void endpoint_flush(evutil_socket_t fd, short what, void *endpoint);
/* The first frame, before the connection is open, and a last one. */
void connection_send_hello(struct wire_connection *c);
void connection_send_refusal(struct wire_connection *c, enum wire_refusal reason,
                             const char *text);
/* Some of what was queued has been written: drained(), or the end after it, may be due. */
void connection_written(struct wire_connection *c);
/* Takes over a connected socket, in every case. */
void connection_start_tls(struct wire_connection *c, int fd);
int connection_start_local(struct wire_connection *c, int fd);

/* ---- admit.c --------------------------------------------------------------------- */

/* Whether the peer that said this HELLO is let in. Else it has been refused, or is a
 * joiner that will be, or the connection has ended. */
bool connection_admits(struct wire_connection *c, const struct wire_frame *frame,
                       struct wire_hello *ret);
/* Tells the peer why, and ends the connection when that has been sent; closed() follows
 * then, with the same reason. A joiner is told nothing before its JOIN has come (W1). */
void connection_refuse(struct wire_connection *c, enum wire_refusal reason,
                       const char *text);

/* ---- dial.c ---------------------------------------------------------------------- */

/* Resolves and connects; then connection_start_tls(). Fails from the loop only. */
int dial_new(struct wire_connection *c, const char *host, uint16_t port);
void dial_go_on(struct wire_connection *c);
void dial_free(struct wire_connection *c);

/* ---- local.c --------------------------------------------------------------------- */

/* The address of a socket file, also where its path is longer than sun_path: then through
 * *ret_directory, which the caller closes (-1 where there is none). */
int local_address(const char *path, struct sockaddr_un *ret, int *ret_directory);

/* ---- endpoint.c ------------------------------------------------------------------ */

struct listener {
    struct wire_endpoint *endpoint;
    struct evconnlistener *listener;
    struct event resume; /* after a pause because accept failed */
    bool local;
};

enum { PARTED_MAX = 64 }; /* members there may be, twice */

struct wire_endpoint {
    struct event_base *loop;
    struct evdns_base *names; /* made when a name is first dialed */
    struct wire_handlers handlers;
    struct wire_hello hello;
    SSL_CTX *tls;
    STACK_OF(X509) * cas; /* what `tls` believes */
    TAILQ_HEAD(, wire_connection) connections;
    TAILQ_HEAD(, wire_connection) unsent; /* have frames of this turn of the loop */
    struct event flush;
    size_t accepted, unproven, local; /* connections there are, by their limits */
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
    char *local_path; /* the socket file that is ours to remove */
    struct wire_timeouts timeouts;
    struct wire_counters counters;
    uint64_t parted[PARTED_MAX]; /* nodes heard since wire_each_heard(), and gone */
    size_t parted_count;
};

/* Adds a listening socket, which it takes over in every case. */
int endpoint_add_listener(struct wire_endpoint *e, int fd, bool local);
/* For tests: shorter time-outs. */
struct wire_timeouts *wire_endpoint_timeouts(struct wire_endpoint *e);
/* A socket of the command line that was accepted. Takes it over. */
void endpoint_accept_local(struct wire_endpoint *e, int fd);

#endif
