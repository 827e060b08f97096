/*
 * send.c - frames out: copied or lent, queued within bounds.
 *
 * Frames of one turn of the loop are collected, and written at its end: in one record where
 * they are small, and straight to the socket. Only what the socket does not take is left to
 * the bufferevent, which would else pay two epoll_ctl and a turn of the loop for each write.
 */
#include "wire_internal.h"

#include <errno.h>
#include <openssl/err.h>

struct lent_part {
    void (*release)(void *owner);
    void *owner;
};

static void give_back(const void *data, size_t length, void *context)
{
    struct lent_part *lent = context;
    lent->release(lent->owner);
    free(lent);
}

static void release_parts(const struct wire_part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (parts[i].release)
            parts[i].release(parts[i].owner);
}

/* Releases the part in every case, now or when it has been sent (W6). */
static int append_part(struct evbuffer *output, const struct wire_part *part)
{
    if (part->release && part->length > COPIED_PART_BYTES) {
        struct lent_part *lent = malloc(sizeof(*lent));
        if (lent) {
            *lent = (struct lent_part){.release = part->release, .owner = part->owner};
            if (evbuffer_add_reference(output, part->data, part->length, give_back,
                                       lent) == 0)
                return 0;
            free(lent);
        }
        part->release(part->owner);
        return -ENOMEM;
    }
    int rc = part->length ? evbuffer_add(output, part->data, part->length) : 0;
    if (part->release)
        part->release(part->owner);
    return rc < 0 ? -ENOMEM : 0;
}

static int append_frame(struct wire_connection *c, struct frame_header header,
                        const struct wire_part *parts, size_t count)
{
    uint8_t bytes[WIRE_FRAME_HEADER];
    frame_header_put(bytes, header);
    int rc = evbuffer_add(c->queue, bytes, sizeof(bytes)) < 0 ? -ENOMEM : 0;
    size_t i = 0;
    while (rc == 0 && i < count)
        rc = append_part(c->queue, &parts[i++]);
    if (rc < 0) { /* the stream holds a torn frame */
        release_parts(parts + i, count - i);
        connection_fail(c, "no memory to send to %s", c->peer);
        return -ENOTCONN;
    }
    c->endpoint->counters.bytes_out += WIRE_FRAME_HEADER + header.length;
    if (!c->queued) {
        if (TAILQ_EMPTY(&c->endpoint->unsent))
            event_active(&c->endpoint->flush, 0, 0);
        TAILQ_INSERT_TAIL(&c->endpoint->unsent, c, unsent);
        c->queued = true;
    }
    return 0;
}

/* Writes from the queue while the socket takes it. A record that it did not take must be
 * offered again as it is: it stays first in the queue, in one piece. */
static void write_now(struct evbuffer *queue, SSL *ssl)
{
    size_t length;
    while ((length = evbuffer_get_length(queue)) > 0) {
        if (length > TLS_RECORD_BYTES)
            length = TLS_RECORD_BYTES;
        const uint8_t *data = evbuffer_pullup(queue, (ev_ssize_t)length);
        int sent = data ? SSL_write(ssl, data, (int)length) : -1;
        if (sent <= 0)
            break; /* an error shows when the bufferevent meets it */
        evbuffer_drain(queue, (size_t)sent);
    }
    ERR_clear_error();
}

void connection_flush(struct wire_connection *c)
{
    if (c->queued) {
        TAILQ_REMOVE(&c->endpoint->unsent, c, unsent);
        c->queued = false;
    }
    if (!c->bev)
        return;
    struct evbuffer *output = bufferevent_get_output(c->bev);
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl && evbuffer_get_length(output) == 0)
        write_now(c->queue, ssl);
    if (evbuffer_get_length(c->queue) > 0)
        evbuffer_add_buffer(output, c->queue);
}

void endpoint_flush(evutil_socket_t fd, short what, void *endpoint)
{
    struct wire_endpoint *e = endpoint;
    struct wire_connection *c;
    while ((c = TAILQ_FIRST(&e->unsent))) {
        connection_flush(c);
        connection_written(c);
    }
}

static int check_queue(struct wire_connection *c)
{
    size_t queued = wire_queued_bytes(c);
    if (queued < LIMIT_SEND_QUEUE_BYTES)
        return 0;
    c->full = true;
    if (queued > QUEUE_END_BYTES) {
        connection_fail(c, "%s reads too slowly: %zu bytes wait for it", c->peer, queued);
        return -ENOTCONN;
    }
    return -ENOBUFS;
}

/* Of a joiner's frames only the answer it asked for is let through (W1). */
static bool may_send(const struct wire_connection *c, uint8_t type)
{
    if (c->state != CONNECTION_OPEN)
        return false;
    return c->kind != WIRE_PEER_JOINER || (c->joined && type == WIRE_JOIN_ANSWER);
}

void connection_send_hello(struct wire_connection *c)
{
    struct buf value = {0};
    c->endpoint->hello.clock_us = clock_real_us();
    wire_hello_encode(&c->endpoint->hello, &value);
    if (value.failed) {
        connection_fail(c, "no memory to greet %s", c->peer);
    } else {
        struct frame_header header = {.type = WIRE_HELLO,
                                      .length = (uint32_t)value.length};
        append_frame(c, header,
                     &(struct wire_part){.data = value.data, .length = value.length}, 1);
    }
    buf_release(&value);
}

void connection_send_refusal(struct wire_connection *c, enum wire_refusal reason,
                             const char *text)
{
    struct buf value = {0};
    refusal_encode(reason, text, &value);
    if (value.failed) {
        connection_fail(c, "no memory to refuse %s", c->peer);
    } else {
        struct frame_header header = {.type = WIRE_REFUSAL,
                                      .length = (uint32_t)value.length};
        append_frame(c, header,
                     &(struct wire_part){.data = value.data, .length = value.length}, 1);
    }
    buf_release(&value);
}

size_t wire_queued_bytes(const struct wire_connection *c)
{
    if (!c->bev)
        return 0;
    return evbuffer_get_length(c->queue) +
           evbuffer_get_length(bufferevent_get_output(c->bev));
}

int wire_send(struct wire_connection *c, uint8_t type, uint16_t stream,
              const struct wire_part *parts, size_t count)
{
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        ensure(parts[i].length <= LIMIT_FRAME_BYTES - length);
        length += parts[i].length;
    }
    if (!may_send(c, type)) {
        release_parts(parts, count);
        return -ENOTCONN;
    }
    struct frame_header header = {
        .type = type, .stream = stream, .length = (uint32_t)length};
    int rc = append_frame(c, header, parts, count);
    return rc < 0 ? rc : check_queue(c);
}

int wire_send_bytes(struct wire_connection *c, uint8_t type, uint16_t stream,
                    const void *value, size_t length)
{
    struct wire_part part = {.data = value, .length = length};
    return wire_send(c, type, stream, &part, 1);
}
