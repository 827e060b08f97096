/*
 * wire.h - frames over mutual TLS 1.3, the same frames on the node's local control socket,
 * and the certificates that make a cluster. docs/protocol.md has every byte.
 *
 * Threads: an endpoint and its connections belong to the thread that runs their event_base
 * (the loop); handlers are called there. The wire_call_* functions block, and are for the
 * command line. PKI functions may be called anywhere.
 *
 * Errors: 0 or a negative errno; `error` arrays get one line that names what failed, on what,
 * and what to do.
 */
#ifndef TIERCE_WIRE_H
#define TIERCE_WIRE_H

#include "base.h"

struct event_base;

enum {
    WIRE_PROTOCOL_VERSION = 3 + TIERCE_RAISE_VERSION, /* the newest it speaks */
    WIRE_PROTOCOL_OLDEST = 3,  /* the oldest that it still speaks */
    WIRE_FRAME_HEADER = 7, /* type u8, stream u16, length u32 */
    WIRE_ERROR_BYTES = 512,
    WIRE_CLUSTER_ID_BYTES = 16,
    WIRE_HASH_BYTES = 32, /* SHA-256 */
    WIRE_DEFAULT_PORT = 7370,
};

/* ---- Frames ------------------------------------------------------------------------------ */

enum wire_frame_type {
    WIRE_HELLO = 0x01,
    WIRE_ERROR = 0x02, /* answer to a frame of unknown type: u8 that type */
    WIRE_JOIN = 0x03,
    WIRE_JOIN_ANSWER = 0x04,
    WIRE_REFUSAL = 0x05, /* why a peer is not let in, or not any more */
    /* consensus: between nodes, one way, stream 0 */
    WIRE_RAFT_VOTE = 0x10,
    WIRE_RAFT_VOTE_REPLY = 0x11,
    WIRE_RAFT_APPEND = 0x12,
    WIRE_RAFT_APPEND_REPLY = 0x13,
    WIRE_RAFT_TIMEOUT_NOW = 0x14,
    WIRE_RAFT_SNAPSHOT = 0x15,
    /* operations: a node to the leader */
    WIRE_OPERATION = 0x20,
    WIRE_ANSWER = 0x21,
    /* what another node has on its disk */
    WIRE_FETCH = 0x28,
    WIRE_FETCHED = 0x29,
    /* the local command line to its node; never accepted on the TLS port */
    WIRE_CONTROL = 0x30,
    WIRE_CONTROL_ANSWER = 0x31,
};

/* The first byte of an ANSWER, JOIN_ANSWER or CONTROL_ANSWER. */
enum wire_status {
    WIRE_OK = 0,
    WIRE_FAILED = 1,     /* with an errno (u32, Linux numbering) */
    WIRE_NOT_LEADER = 2, /* ask again: the core tells who leads */
    WIRE_NO_QUORUM = 3,
    WIRE_EXPIRED = 4, /* the request is below the session's window, or the session is over */
    WIRE_REFUSED = 5, /* text says why */
};

struct wire_frame {
    uint8_t type;
    uint16_t stream;
    const uint8_t *value; /* until the handler returns */
    uint32_t length;
};

struct wire_hello {
    uint16_t version, oldest; /* the newest and the oldest that its sender speaks */
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    uint64_t node_id; /* 0: a joiner */
    uint64_t features;
    uint64_t clock_us; /* CLOCK_REALTIME when it was sent (G2) */
    char name[LIMIT_NAME_BYTES + 1];
    char address[LIMIT_ADDRESS_BYTES + 1]; /* what others should dial */
};

void wire_hello_encode(const struct wire_hello *hello, struct buf *to);
/* Of a newer version than ours: what follows the fields known here is ignored. -EPROTO. */
int wire_hello_decode(const void *data, size_t length, struct wire_hello *ret);

/* What a REFUSAL begins with. */
enum wire_refusal {
    WIRE_REFUSAL_NONE = 0,
    WIRE_REFUSAL_REMOVED = 1, /* no member of the cluster any more */
    WIRE_REFUSAL_VERSION = 2, /* no version that both speak, or older than the cluster's */
    WIRE_REFUSAL_OTHER = 3,
};

/* "HOST:PORT", "[V6]:PORT", "HOST" or ":PORT" -> host (may be "" = every address) and
 * port (default_port where absent). -EINVAL. */
int wire_address_split(const char *text, uint16_t default_port,
                       char host[LIMIT_ADDRESS_BYTES + 1], uint16_t *ret_port);

/* ---- Identity: a cluster's CA, a node's certificate ----------------------------------------- */

/* Keys are EC P-256. All PEM strings are malloc'ed, NUL-terminated, owned by the caller. */
int wire_pki_make_ca(const uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES], char **ret_key_pem,
                     char **ret_cert_pem);
int wire_pki_make_key(char **ret_key_pem);
/* A certificate request for that key (PEM). The subject is decided by who signs. */
int wire_pki_make_request(const char *key_pem, char **ret_request_pem);
/* Checks the request's signature and signs: CN = node id as 16 hex digits, O = cluster id,
 * valid for `life_s` seconds (at most 68 years), for client and server. -EBADMSG a bad
 * request. */
int wire_pki_sign(const char *ca_key_pem, const char *ca_cert_pem, const char *request_pem,
                  const uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES], uint64_t node_id,
                  const char *name, uint64_t life_s, char **ret_cert_pem);
/* From when to when a certificate was made for, in seconds since 1970: without the day by
 * which it is backdated, as clocks differ. -EBADMSG. */
int wire_pki_times(const char *cert_pem, int64_t *ret_begin_s, int64_t *ret_end_s);
/* Whether this CA (the text's first) has signed it; not whether it is in time. */
bool wire_pki_is_signed_by(const char *cert_pem, const char *ca_pem);
/* Whether one of these CAs' certificates has this hash. */
bool wire_pki_holds(const char *ca_pem, const uint8_t hash[WIRE_HASH_BYTES]);
/* SHA-256 of the certificate's DER (of several: the first's), and of a request's public key. */
int wire_pki_fingerprint(const char *cert_pem, uint8_t ret[WIRE_HASH_BYTES]);
int wire_pki_request_key_hash(const char *request_pem, uint8_t ret[WIRE_HASH_BYTES]);
void wire_hash(const void *data, size_t length, uint8_t ret[WIRE_HASH_BYTES]);
/* The same of bytes that come one after another; NULL: no memory. */
struct wire_hasher;
struct wire_hasher *wire_hasher_new(void);
void wire_hasher_add(struct wire_hasher *h, const void *data, size_t length);
void wire_hasher_get(const struct wire_hasher *h, uint8_t ret[WIRE_HASH_BYTES]);
void wire_hasher_free(struct wire_hasher *h);

struct wire_identity {
    const char *ca_pem;   /* of the CAs, one of which peers must be signed by */
    const char *cert_pem; /* this node's */
    const char *key_pem;
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    uint64_t node_id;
};
/* That certificate, key and CA fit each other and the ids, and are in time.
 * -EKEYREJECTED with the reason in `error`. */
int wire_identity_check(const struct wire_identity *identity, char error[WIRE_ERROR_BYTES]);

/* ---- Endpoint: the listener and the connections of one node ------------------------------------ */

struct wire_endpoint;
struct wire_connection;

enum wire_peer_kind {
    WIRE_PEER_NODE,   /* proven by a certificate of the cluster's CA */
    WIRE_PEER_JOINER, /* no certificate: may send one JOIN, nothing else */
    WIRE_PEER_LOCAL,  /* the control socket */
};

struct wire_handlers {
    void *context;
    /* A node's HELLO has come and was right: is it let in? 0, or a wire_refusal with the
     * reason in `text`, in words for its log: it is told, and the connection ends. NULL:
     * everybody is. */
    int (*admit)(void *context, struct wire_connection *c, const struct wire_hello *hello,
                 char text[WIRE_ERROR_BYTES]);
    /* HELLO has come and was right; frames follow. A joiner's has node_id 0. */
    void (*opened)(void *context, struct wire_connection *c, const struct wire_hello *hello);
    void (*frame)(void *context, struct wire_connection *c, const struct wire_frame *frame);
    /* The last call for this connection; the pointer is dead afterwards. Also for a dial that
     * failed (never opened). Not called by wire_close or wire_endpoint_free. Where the peer
     * sent a REFUSAL, the reason is its text, and wire_refusal() its number. */
    void (*closed)(void *context, struct wire_connection *c, const char *reason);
    /* The send queue was full (wire_send said so) and is below half again. */
    void (*drained)(void *context, struct wire_connection *c);
};

struct wire_counters { /* what arrived and was refused */
    uint64_t accepted, dialed, opened;
    uint64_t refused_handshakes; /* no TLS 1.3, a certificate of another CA, timed out */
    uint64_t refused_hellos;     /* other version, cluster, id than the certificate's; or
                                    not admitted */
    uint64_t oversized_frames;   /* beyond the limit, or a joiner's beyond its own */
    uint64_t unknown_frames;     /* skipped, answered with ERROR */
    uint64_t malformed_frames;   /* wire_refuse: fields did not fill their frame */
    uint64_t slow_frames;        /* half a frame for too long */
    uint64_t over_limit;         /* connections beyond LIMIT_CONNECTIONS and the like */
    uint64_t bytes_in, bytes_out;
};

/* The identity's strings are copied. `hello` is sent on every connection (its clock is
 * filled in then; versions of 0 are this program's). SIGPIPE is ignored from now on where
 * it had its default. */
int wire_endpoint_new(struct wire_endpoint **ret, struct event_base *loop,
                      const struct wire_identity *identity, const struct wire_hello *hello,
                      const struct wire_handlers *handlers, char error[WIRE_ERROR_BYTES]);
/* From now on it shows this certificate and believes these CAs, of the same cluster and node;
 * the strings are copied. Open connections go on, but those of peers whose CA is not among
 * these end, with closed(), never from within. As wire_identity_check; on failure nothing has
 * changed. */
int wire_endpoint_set_identity(struct wire_endpoint *e, const struct wire_identity *identity,
                               char error[WIRE_ERROR_BYTES]);
/* Closes all, calls no handler; never from within one. */
void wire_endpoint_free(struct wire_endpoint *e);
/* "HOST:PORT"; an empty host: every address, v6 and v4. -EADDRINUSE, ... with `error`, which
 * leaves the remedy to the caller. Looking up a name here may block. */
int wire_listen(struct wire_endpoint *e, const char *address, char error[WIRE_ERROR_BYTES]);
/* Whether wire_listen() would succeed now; nothing stays open. */
int wire_listen_try(const char *address, char error[WIRE_ERROR_BYTES]);
/* The port that was listened on: the kernel's choice after "HOST:0". 0: none. */
uint16_t wire_listen_port(const struct wire_endpoint *e);
/* The control socket (mode 0600); an old socket file nobody listens on is replaced. */
int wire_listen_local(struct wire_endpoint *e, const char *path,
                      char error[WIRE_ERROR_BYTES]);
/* Opens a connection to a node; opened() or closed() follows, never from within. The peer
 * must prove to be `node_id`. -ENOMEM, -EINVAL (address). Resolving names does not block. */
int wire_dial(struct wire_endpoint *e, const char *address, uint64_t node_id,
              struct wire_connection **ret);
const struct wire_counters *wire_endpoint_counters(const struct wire_endpoint *e);
struct wire_load { /* connections there are */
    uint64_t accepted; /* of the port; LIMIT_CONNECTIONS */
    uint64_t unproven; /* of those; LIMIT_UNPROVEN_CONNECTIONS */
    uint64_t local;    /* LIMIT_LOCAL_CONNECTIONS */
};
void wire_endpoint_load(const struct wire_endpoint *e, struct wire_load *ret);
/* Calls `each` for every connection to a node, open or ended since, on which anything has
 * come, a part of a frame even, since the last call. `each` must not call wire_*. */
void wire_each_heard(struct wire_endpoint *e,
                     void (*each)(void *context, uint64_t node_id), void *context);

enum wire_peer_kind wire_kind(const struct wire_connection *c);
/* 0 unless a node; before a dialed one is open, the node that was asked for. */
uint64_t wire_peer_id(const struct wire_connection *c);
bool wire_is_open(const struct wire_connection *c);      /* HELLOs exchanged */
/* Dialed, and no host has answered yet. */
bool wire_is_connecting(const struct wire_connection *c);
/* An open connection with this node, whoever dialed; NULL: there is none. */
struct wire_connection *wire_find(struct wire_endpoint *e, uint64_t node_id);
/* The version that is spoken on an open connection: the newest that both ends speak. */
uint16_t wire_version(const struct wire_connection *c);
/* Of the peer's REFUSAL, for closed(); WIRE_REFUSAL_NONE: it sent none. */
enum wire_refusal wire_refusal(const struct wire_connection *c);
void wire_set_tag(struct wire_connection *c, void *tag);  /* the caller's own */
void *wire_tag(const struct wire_connection *c);
size_t wire_queued_bytes(const struct wire_connection *c); /* accepted, not yet sent */

/* Part of a frame that is not copied: `release(owner)` is called once, on the loop, when the
 * bytes are no longer needed (sent or dropped; small ones before wire_send returns). It must
 * not call wire_*. release NULL: the bytes are copied. */
struct wire_part {
    const void *data;
    size_t length;
    void (*release)(void *owner);
    void *owner;
};
/* Sends one frame made of the parts. 0; -ENOBUFS: it was queued, and the queue is now full
 * (LIMIT_SEND_QUEUE_BYTES): send no more until drained() if it can wait. -ENOTCONN: not open
 * (a joiner: anything but the answer to its JOIN), or so far behind that it is closed now,
 * closed() to follow; parts are released all the same. */
int wire_send(struct wire_connection *c, uint8_t type, uint16_t stream,
              const struct wire_part *parts, size_t count);
int wire_send_bytes(struct wire_connection *c, uint8_t type, uint16_t stream,
                    const void *value, size_t length);
/* Ends a connection: now, or after what is queued has been sent. No handler is called for it
 * again, and the pointer is dead (within a handler: when that returns). */
void wire_close(struct wire_connection *c);
void wire_close_after_sending(struct wire_connection *c);
/* The same, for an open connection to a node, with a REFUSAL as its last frame. */
void wire_turn_away(struct wire_connection *c, enum wire_refusal reason, const char *text);
/* What came on `c` was malformed: counts it and closes (closed() follows, never from within). */
void wire_refuse(struct wire_connection *c, const char *reason);

/* ---- Blocking calls of the command line ------------------------------------------------------------ */

/* A connection to the control socket. -ENOENT, -ECONNREFUSED: no node runs there. */
int wire_call_local_open(const char *path, int *ret_fd);
/* One request, one answer (CONTROL, CONTROL_ANSWER). timeout_ms 0: none. -ETIMEDOUT; -EPIPE
 * the node went away. */
int wire_call_local(int fd, const void *request, size_t length, unsigned timeout_ms,
                    struct buf *ret_answer);
/* Joins: connects to `address`, requires a chain up to a CA whose certificate has this hash,
 * sends JOIN, waits for JOIN_ANSWER. -EKEYREJECTED: another cluster's CA (or an impostor);
 * -EPROTONOSUPPORT: of another version; -ECONNREFUSED, ...; `error` says it for a user. */
int wire_call_join(const char *address, const uint8_t ca_hash[WIRE_HASH_BYTES],
                   const void *request, size_t length, unsigned timeout_ms,
                   struct buf *ret_answer, char error[WIRE_ERROR_BYTES]);

#endif
