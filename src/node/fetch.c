/* fetch.c - asks other nodes for what is on their disks. */
#include "node_core.h"

#include <errno.h>

static void take_out(struct node *n, struct fetch *f)
{
    for (struct fetch **at = &n->fetches; *at; at = &(*at)->next)
        if (*at == f) {
            *at = f->next;
            return;
        }
}

static void finish(struct node *n, struct fetch *f, int error, const uint8_t *bytes,
                   size_t length)
{
    take_out(n, f);
    f->done(n, f, error, bytes, length);
}

int fetch_start(struct node *n, struct fetch *f, uint64_t peer, struct fetch_request *q,
                uint64_t timeout_us)
{
    struct peer *p = peers_find(n, peer);
    if (!p || !p->open)
        return -ENOTCONN;
    struct buf bytes = {0};
    q->id = f->id = ++n->next_fetch;
    f->peer = peer;
    f->by = p->connection;
    f->due_us = node_now() + timeout_us;
    fetch_request_encode(q, &bytes);
    node_must(bytes.failed ? -ENOMEM : 0, "asking a node");
    int ret = wire_send_bytes(p->connection, WIRE_FETCH, 0, bytes.data, bytes.length);
    buf_release(&bytes);
    if (ret == -ENOBUFS)
        p->full = true;
    else if (ret < 0)
        return ret;
    f->next = n->fetches;
    n->fetches = f;
    return 0;
}

void fetch_cancel(struct node *n, struct fetch *f)
{
    take_out(n, f);
}

void fetch_frame(struct node *n, struct wire_connection *c,
                 const struct wire_frame *frame)
{
    uint64_t id;
    int error;
    const uint8_t *bytes;
    size_t length;
    if (fetch_answer_decode(frame->value, frame->length, &id, &error, &bytes, &length) <
        0) {
        wire_refuse(c, "a malformed answer to a fetch");
        return;
    }
    for (struct fetch *f = n->fetches; f; f = f->next)
        if (f->id == id && f->by == c) {
            finish(n, f, -error, bytes, length);
            return;
        }
}

/* done() may ask anew, and so change the list: begin anew after each. */
static struct fetch *first_by(struct node *n, const struct wire_connection *c)
{
    struct fetch *f = n->fetches;
    while (f && f->by != c)
        f = f->next;
    return f;
}

void fetch_forget(struct node *n, struct wire_connection *c)
{
    struct fetch *f;
    while ((f = first_by(n, c)))
        finish(n, f, -ENOTCONN, NULL, 0);
}

static struct fetch *first_due(struct node *n, uint64_t now_us)
{
    struct fetch *f = n->fetches;
    while (f && f->due_us > now_us)
        f = f->next;
    return f;
}

void fetch_tick(struct node *n, uint64_t now_us)
{
    struct fetch *f;
    while ((f = first_due(n, now_us)))
        finish(n, f, -ETIMEDOUT, NULL, 0);
}
