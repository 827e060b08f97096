/*
 * fetch.h - what a node asks of another's disk: a snapshot's files, a record, an entry.
 *
 * fetch.c asks, serve.c answers, fetch_codec.c has the bytes. An answer comes by the
 * connection its question went by; a question that is not answered in time, or whose
 * connection ends, has failed, and is asked again by who wants to know.
 */
#ifndef TIERCE_NODE_FETCH_H
#define TIERCE_NODE_FETCH_H

#include "node_internal.h"

enum {
    FETCH_HEAD_BYTES = 12,       /* of a FETCHED: id, errno */
    FETCH_SOON_US = 2000 * 1000, /* a record or an entry: others may be asked */
    FETCH_BULK_US = 20 * 1000 * 1000,
};

enum fetch_kind {
    FETCH_SNAPSHOT = 1, /* pins what is merged: its number u64, description */
    FETCH_CHUNK,        /* crc32 u32, bytes of one of its files */
    FETCH_CLOSE,        /* it is installed, its files may go: nothing */
    FETCH_RECORD,       /* a version of a key: the record */
    FETCH_ENTRY,        /* (index, term): the entry */
    FETCH_KEEP,         /* all of it is there, and is being checked: nothing */
};

struct fetch_request {
    uint64_t id; /* the asker's own, for the answer */
    enum fetch_kind kind;
    uint64_t snapshot; /* CHUNK, CLOSE, KEEP */
    uint32_t file;     /* CHUNK */
    uint64_t offset;
    uint32_t length;       /* at most STORE_CHUNK_BYTES */
    uint64_t timestamp_us; /* RECORD */
    uint8_t key[LIMIT_KEY_BYTES];
    uint32_t key_size;
    uint64_t index, term; /* ENTRY */
};

void fetch_request_encode(const struct fetch_request *q, struct buf *to);
int fetch_request_decode(const void *data, size_t length,
                         struct fetch_request *ret); /* -EPROTO */
/* The head of an answer; what was asked for follows it. error: 0, or a positive errno. */
void fetch_answer_head(uint8_t to[FETCH_HEAD_BYTES], uint64_t id, int error);
int fetch_answer_decode(const void *data, size_t length, uint64_t *ret_id, int *ret_error,
                        const uint8_t **ret_bytes, size_t *ret_length); /* -EPROTO */

/* One question on its way; the memory is the asker's until done() or fetch_cancel(). */
struct fetch {
    struct fetch *next;
    uint64_t id, peer, due_us;
    struct wire_connection *by;
    /* Once, on the loop, never from within fetch_start: 0 and the bytes (until it
     * returns), or a negative errno: -ETIMEDOUT, -ENOTCONN, or what the peer said. */
    void (*done)(struct node *n, struct fetch *f, int error, const uint8_t *bytes,
                 size_t length);
};

/* `q`'s id is filled in. -ENOTCONN: no connection to that peer, done() is not called. */
int fetch_start(struct node *n, struct fetch *f, uint64_t peer, struct fetch_request *q,
                uint64_t timeout_us);
void fetch_cancel(struct node *n,
                  struct fetch *f); /* nothing where it is not on its way */
void fetch_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f);
void fetch_forget(struct node *n, struct wire_connection *c); /* it is closed */
void fetch_tick(struct node *n, uint64_t now_us);

void serve_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f);
void serve_forget(struct node *n, struct wire_connection *c);
void serve_pin_due(struct node *n); /* the merge thread has no task */
void serve_release(struct node *n);

#endif
