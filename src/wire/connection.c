/*
 * connection.c - one connection: handshake, HELLO, frames in, its end. (Frames out:
 * send.c.)
 *
 * W4: handlers may end any connection, their own included. So every callback of the loop
 * counts itself in `busy`, nothing is freed while it is above 0, and connection_leave()
 * does what was put off. What a caller's own call brings about is told from the loop.
 */
#include "wire_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Life ------------------------------------------------------------------------ */

static void on_timer(evutil_socket_t fd, short what, void *context);
static void on_later(evutil_socket_t fd, short what, void *context);

struct wire_connection *connection_new(struct wire_endpoint *e, enum wire_peer_kind kind)
{
    struct wire_connection *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->queue = evbuffer_new();
    if (!c->queue) {
        free(c);
        return NULL;
    }
    c->endpoint = e;
    c->kind = kind;
    c->since_us = clock_boot_us();
    event_assign(&c->timer, e->loop, -1, 0, on_timer, c);
    event_assign(&c->later, e->loop, -1, 0, on_later, c);
    TAILQ_INSERT_TAIL(&e->connections, c, link);
    return c;
}

/* A peer that is proven, or gone, leaves its place among the unproven. */
static void count_as_proven(struct wire_connection *c)
{
    if (c->unproven) {
        ensure(c->endpoint->unproven > 0);
        c->endpoint->unproven--;
        c->unproven = false;
    }
}

static void leave_limits(struct wire_connection *c)
{
    count_as_proven(c);
    if (c->dialed)
        return;
    size_t *count =
        c->kind == WIRE_PEER_LOCAL ? &c->endpoint->local : &c->endpoint->accepted;
    ensure(*count > 0);
    --*count;
}

static void free_stream(struct wire_connection *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    bufferevent_setcb(c->bev, NULL, NULL, NULL, NULL);
    if (ssl && SSL_is_init_finished(ssl))
        SSL_shutdown(ssl); /* as far as the socket takes it */
    ERR_clear_error();
    /* libevent frees its buffers a turn of the loop later; parts are given back now. */
    struct evbuffer *output = bufferevent_get_output(c->bev);
    evbuffer_unfreeze(output, 1);
    evbuffer_drain(output, evbuffer_get_length(output));
    bufferevent_free(c->bev);
    c->bev = NULL;
}

/* What came last was a sign of life all the same. */
static void note_parted(const struct wire_connection *c)
{
    struct wire_endpoint *e = c->endpoint;
    bool was_open = c->version != 0;
    if (c->heard && was_open && c->kind == WIRE_PEER_NODE && e->parted_count < PARTED_MAX)
        e->parted[e->parted_count++] = c->peer_id;
}

void connection_free(struct wire_connection *c)
{
    ensure(c->busy == 0);
    note_parted(c);
    leave_limits(c);
    TAILQ_REMOVE(&c->endpoint->connections, c, link);
    event_del(&c->timer);
    event_del(&c->later);
    dial_free(c);
    if (c->bev)
        free_stream(c);
    if (c->queued)
        TAILQ_REMOVE(&c->endpoint->unsent, c, unsent);
    evbuffer_free(c->queue);
    free(c);
}

void connection_enter(struct wire_connection *c)
{
    c->busy++;
}

void connection_leave(struct wire_connection *c)
{
    ensure(c->busy > 0);
    if (c->busy == 1 && c->state == CONNECTION_FAILED) {
        const struct wire_handlers *h = &c->endpoint->handlers;
        c->state = CONNECTION_DEAD;
        if (c->announced && h->closed)
            h->closed(h->context, c, c->reason);
    }
    if (--c->busy == 0 && c->state == CONNECTION_DEAD)
        connection_free(c);
}

void connection_fail(struct wire_connection *c, const char *format, ...)
{
    if (c->state >= CONNECTION_FAILED)
        return;
    if (c->state == CONNECTION_CLOSING && !c->refused)
        c->announced = false; /* its user has taken leave already */
    c->state = CONNECTION_FAILED;
    va_list args;
    va_start(args, format);
    if (!c->refused) /* that is the first reason */
        vsnprintf(c->reason, sizeof(c->reason), format, args);
    va_end(args);
    if (c->busy == 0)
        event_active(&c->later, 0, 0);
}

static void on_later(evutil_socket_t fd, short what, void *context)
{
    struct wire_connection *c = context;
    connection_enter(c);
    if (c->state == CONNECTION_CONNECTING)
        dial_go_on(c);
    connection_leave(c);
}

/* ---- Time ------------------------------------------------------------------------ */

void connection_set_timer(struct wire_connection *c, uint64_t from_us, uint64_t ms)
{
    uint64_t now = clock_boot_us();
    uint64_t end = from_us + ms * 1000;
    uint64_t left = end > now ? end - now : 0;
    struct timeval t = {.tv_sec = (time_t)(left / 1000000),
                        .tv_usec = (suseconds_t)(left % 1000000)};
    event_add(&c->timer, &t);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct wire_connection *c = context;
    struct wire_counters *counters = &c->endpoint->counters;
    connection_enter(c);
    switch (c->state) {
    case CONNECTION_CONNECTING:
        connection_fail(c, "cannot connect to %s: no answer in time", c->peer);
        break;
    case CONNECTION_HANDSHAKE:
    case CONNECTION_HELLO:
        counters->refused_handshakes++;
        connection_fail(c, "%s did not finish the handshake in time", c->peer);
        break;
    case CONNECTION_OPEN:
        if (c->in_frame)
            counters->slow_frames++;
        connection_fail(c, "%s %s", c->peer,
                        c->in_frame ? "took too long to send a frame"
                                    : "was not let in in time");
        break;
    case CONNECTION_CLOSING:
        connection_fail(c, "%s did not take what was sent in time", c->peer);
        break;
    case CONNECTION_FAILED:
    case CONNECTION_DEAD:
        break;
    }
    connection_leave(c);
}

/* How long a frame may take: the header alone, then more for what it announced. */
static uint64_t frame_time_ms(const struct wire_connection *c)
{
    return c->endpoint->timeouts.frame_ms +
           (uint64_t)c->frame_length * 1000 / (FRAME_FLOOR_KIB_S * KiB);
}

/* W7: a frame that has begun must end. (A joiner's timer runs for all it does.) */
static void watch_frame(struct wire_connection *c, uint32_t length)
{
    if (c->state != CONNECTION_OPEN || c->kind == WIRE_PEER_JOINER)
        return;
    if (c->in_frame && c->frame_length == length)
        return;
    if (!c->in_frame)
        c->frame_since_us = clock_boot_us();
    c->in_frame = true;
    c->frame_length = length;
    connection_set_timer(c, c->frame_since_us, frame_time_ms(c));
}

static void frame_is_whole(struct wire_connection *c)
{
    if (c->in_frame)
        event_del(&c->timer);
    c->in_frame = false;
    c->expanded = false;
    c->frame_length = 0;
}

/* ---- The intended end -------------------------------------------------------------- */

/* All is written: tells the peer so, and waits for its end. Closing here would make the
 * kernel reset the connection over what the peer still sends, and drop our last bytes. */
static void say_goodbye(struct wire_connection *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl)
        SSL_shutdown(ssl);
    ERR_clear_error();
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
}

void connection_close_after_sending(struct wire_connection *c)
{
    c->state = CONNECTION_CLOSING;
    if (c->kind != WIRE_PEER_JOINER) /* its own timer goes on */
        connection_set_timer(c, clock_boot_us(), c->endpoint->timeouts.closing_ms);
    connection_flush(c);
    if (wire_queued_bytes(c) == 0)
        say_goodbye(c);
}

/* ---- Frames in ------------------------------------------------------------------- */

static void announce(struct wire_connection *c, const struct wire_hello *hello)
{
    const struct wire_handlers *h = &c->endpoint->handlers;
    c->state = CONNECTION_OPEN;
    c->announced = true;
    c->endpoint->counters.opened++;
    if (h->opened)
        h->opened(h->context, c, hello);
}

static void connection_hello(struct wire_connection *c, const struct wire_frame *frame)
{
    struct wire_hello hello;
    if (!connection_admits(c, frame, &hello))
        return;
    c->version = (uint16_t)min_u64(hello.version, c->endpoint->hello.version);
    if (c->kind == WIRE_PEER_NODE) {
        count_as_proven(c);
        event_del(&c->timer);
        bufferevent_setwatermark(c->bev, EV_READ, 0, INPUT_BYTES);
    }
    announce(c, &hello);
}

static void deliver(struct wire_connection *c, const struct wire_frame *frame)
{
    const struct wire_handlers *h = &c->endpoint->handlers;
    if (frame->type == WIRE_JOIN)
        c->joined = true;
    if (!c->unwelcome) {
        h->frame(h->context, c, frame);
        return;
    }
    char text[WIRE_ERROR_BYTES];
    memcpy(text, c->reason, sizeof(text));
    connection_refuse(c, WIRE_REFUSAL_VERSION, text);
}

/* The peer does not let us in, or not any more. */
static void connection_refused(struct wire_connection *c, const struct wire_frame *frame)
{
    char text[WIRE_ERROR_BYTES];
    if (refusal_decode(frame->value, frame->length, &c->refusal, text) < 0) {
        c->endpoint->counters.malformed_frames++;
        connection_fail(c, "%s sent a malformed REFUSAL", c->peer);
    } else {
        connection_fail(c, "%s", text);
    }
}

static void skip(struct wire_connection *c, const struct wire_frame *frame)
{
    c->endpoint->counters.unknown_frames++;
    wire_send_bytes(c, WIRE_ERROR, frame->stream, &frame->type, 1);
}

static void refuse_frame(struct wire_connection *c, const struct frame_header *header)
{
    if (c->state == CONNECTION_HELLO)
        c->endpoint->counters.refused_hellos++;
    else
        c->endpoint->counters.malformed_frames++;
    connection_fail(
        c, "%s sent a frame of type 0x%02x and %u bytes, which has no place here",
        c->peer, header->type, header->length);
}

static void refuse_length(struct wire_connection *c, const struct frame_header *header)
{
    c->endpoint->counters.oversized_frames++;
    connection_fail(c, "%s announced a frame of %u bytes", c->peer, header->length);
}

static enum frame_phase phase_of(const struct wire_connection *c)
{
    return c->state == CONNECTION_HELLO ? PHASE_HELLO
           : c->joined                  ? PHASE_JOINED
                                        : PHASE_OPEN;
}

/* Gives a large frame its place in one piece before it comes, so that it is not copied.
 */
static void expect_frame(struct wire_connection *c, struct evbuffer *input,
                         uint32_t length)
{
    size_t whole = WIRE_FRAME_HEADER + (size_t)length;
    watch_frame(c, length);
    if (!c->expanded && whole > EXPANDED_FRAME_BYTES)
        evbuffer_expand(input, whole - evbuffer_get_length(input));
    c->expanded = true;
}

static void handle_frame(struct wire_connection *c, enum frame_verdict verdict,
                         const struct wire_frame *frame)
{
    c->endpoint->counters.bytes_in += WIRE_FRAME_HEADER + frame->length;
    frame_is_whole(c);
    if (verdict == FRAME_IS_HELLO)
        connection_hello(c, frame);
    else if (verdict == FRAME_IS_REFUSAL)
        connection_refused(c, frame);
    else if (verdict == FRAME_DELIVERED)
        deliver(c, frame);
    else
        skip(c, frame);
}

/* Takes one frame off the input. False: it holds no whole one, or the connection ended.
 */
static bool take_frame(struct wire_connection *c, struct evbuffer *input)
{
    uint8_t bytes[WIRE_FRAME_HEADER];
    ev_ssize_t got = evbuffer_copyout(input, bytes, sizeof(bytes));
    if (got < (ev_ssize_t)sizeof(bytes)) {
        if (got > 0)
            watch_frame(c, 0);
        return false;
    }
    struct frame_header header = frame_header_get(bytes);
    enum frame_verdict verdict = frame_judge(c->kind, phase_of(c), &header);
    if (verdict == FRAME_TOO_LONG)
        refuse_length(c, &header);
    else if (verdict == FRAME_REFUSED)
        refuse_frame(c, &header);
    if (verdict == FRAME_TOO_LONG || verdict == FRAME_REFUSED)
        return false;
    size_t whole = sizeof(bytes) + header.length;
    if (evbuffer_get_length(input) < whole) {
        expect_frame(c, input, header.length);
        return false;
    }
    const uint8_t *data = evbuffer_pullup(input, (ev_ssize_t)whole);
    if (!data) {
        connection_fail(c, "no memory for a frame of %s", c->peer);
        return false;
    }
    struct wire_frame frame = {.type = header.type,
                               .stream = header.stream,
                               .value = data + sizeof(bytes),
                               .length = header.length};
    handle_frame(c, verdict, &frame);
    evbuffer_drain(input, whole);
    return true;
}

static bool takes_frames(const struct wire_connection *c)
{
    return c->state == CONNECTION_HELLO || c->state == CONNECTION_OPEN;
}

/* ---- Callbacks of the stream ----------------------------------------------------- */

static void on_readable(struct bufferevent *bev, void *context)
{
    struct wire_connection *c = context;
    struct evbuffer *input = bufferevent_get_input(bev);
    connection_enter(c);
    c->heard = true;
    while (takes_frames(c) && take_frame(c, input))
        ;
    if (!takes_frames(c)) /* what comes while the last bytes go out is dropped */
        evbuffer_drain(input, evbuffer_get_length(input));
    connection_leave(c);
}

void connection_written(struct wire_connection *c)
{
    const struct wire_handlers *h = &c->endpoint->handlers;
    connection_enter(c);
    size_t queued = wire_queued_bytes(c);
    if (c->state == CONNECTION_CLOSING && queued == 0)
        say_goodbye(c);
    if (c->state == CONNECTION_OPEN && c->full && queued < LIMIT_SEND_QUEUE_BYTES / 2) {
        c->full = false;
        if (h->drained)
            h->drained(h->context, c);
    }
    connection_leave(c);
}

static void on_written(struct bufferevent *bev, void *context)
{
    struct wire_connection *c = context;
    connection_written(c);
}

/* What was believed when the handshake began may be so no more. */
static bool is_of_our_cas(const struct wire_connection *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    return SSL_get_SSL_CTX(ssl) == c->endpoint->tls || !certificate ||
           pki_is_of(certificate, c->endpoint->cas);
}

void connection_trust_again(struct wire_connection *c)
{
    if ((c->state != CONNECTION_HELLO && c->state != CONNECTION_OPEN &&
         c->state != CONNECTION_CLOSING) ||
        c->kind != WIRE_PEER_NODE || is_of_our_cas(c))
        return; /* of one in its handshake connection_secured() asks */
    connection_fail(c, "the certificate of %s is of a CA that was replaced", c->peer);
}

/* The handshake is done: who is it? (W5) */
static void connection_secured(struct wire_connection *c)
{
    X509 *certificate = SSL_get0_peer_certificate(bufferevent_openssl_get_ssl(c->bev));
    c->state = CONNECTION_HELLO;
    if (!certificate) {
        ensure(!c->dialed);
        c->kind = WIRE_PEER_JOINER;
        connection_set_timer(c, c->since_us, c->endpoint->timeouts.joiner_ms);
        return;
    }
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    uint64_t node_id = 0;
    if (!is_of_our_cas(c)) {
        c->endpoint->counters.refused_handshakes++;
        connection_fail(c, "the certificate of %s is of a CA that was replaced", c->peer);
    } else if (pki_certificate_ids(certificate, cluster_id, &node_id) < 0 ||
               memcmp(cluster_id, c->endpoint->hello.cluster_id, sizeof(cluster_id)) !=
                   0) {
        c->endpoint->counters.refused_handshakes++;
        connection_fail(c, "the certificate of %s is of no node of this cluster",
                        c->peer);
    } else if (c->dialed && node_id != c->peer_id) {
        c->endpoint->counters.refused_handshakes++;
        connection_fail(c, "at %s node %016llx answers, not node %016llx", c->peer,
                        (unsigned long long)node_id, (unsigned long long)c->peer_id);
    } else {
        c->peer_id = node_id;
        connection_send_hello(c);
    }
}

/* The first error of OpenSSL itself; 0: there is none. */
static unsigned long stream_error(struct bufferevent *bev)
{
    unsigned long code, found = 0;
    while ((code = bufferevent_get_openssl_error(bev)) != 0)
        if (!found && ERR_GET_LIB(code) == ERR_LIB_SSL)
            found = code;
    return found;
}

static void connection_broken(struct wire_connection *c, short what)
{
    int saved = EVUTIL_SOCKET_ERROR();
    unsigned long code = stream_error(c->bev);
    bool handshake = c->state == CONNECTION_HANDSHAKE;
    if (handshake && (!c->dialed || code))
        c->endpoint->counters.refused_handshakes++;
    if (code) {
        char text[128];
        tls_error_text(code, text, sizeof(text));
        connection_fail(c, "TLS with %s failed: %s", c->peer, text);
    } else if (what & BEV_EVENT_EOF) {
        connection_fail(c, "%s closed the connection%s", c->peer,
                        handshake ? " in the handshake" : "");
    } else {
        connection_fail(c, "connection to %s lost: %s", c->peer, strerror(saved));
    }
}

static void on_event(struct bufferevent *bev, short what, void *context)
{
    struct wire_connection *c = context;
    connection_enter(c);
    if (what & BEV_EVENT_CONNECTED) {
        if (c->state == CONNECTION_HANDSHAKE)
            connection_secured(c);
    } else {
        connection_broken(c, what);
    }
    ERR_clear_error(); /* nothing of one connection shows up in another */
    connection_leave(c);
}

static void start_stream(struct wire_connection *c, size_t input_bytes)
{
    bufferevent_setcb(c->bev, on_readable, on_written, on_event, c);
    bufferevent_setwatermark(c->bev, EV_READ, 0, input_bytes);
    bufferevent_setwatermark(c->bev, EV_WRITE, LIMIT_SEND_QUEUE_BYTES / 2, 0);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void set_option(int fd, int level, int option, int value)
{
    /* Each of them only betters a connection that works without it. */
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* W7: the kernel counts, so that it is bytes that tell, not frames: a host that takes in the
 * first part of a long one, or whose node is stopped and still has room for what comes, is
 * not silent. */
static void tune_socket(int fd)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, SILENCE_MS);
}

void connection_start_tls(struct wire_connection *c, int fd)
{
    struct wire_endpoint *e = c->endpoint;
    tune_socket(fd);
    SSL *ssl = SSL_new(e->tls);
    if (ssl && tls_attach(ssl, fd) == 0)
        c->bev = bufferevent_openssl_socket_new(e->loop, fd, ssl,
                                                c->dialed ? BUFFEREVENT_SSL_CONNECTING
                                                          : BUFFEREVENT_SSL_ACCEPTING,
                                                BEV_OPT_CLOSE_ON_FREE);
    if (!c->bev) {
        SSL_free(ssl);
        close(fd);
        connection_fail(c, "no memory for a connection to %s", c->peer);
        return;
    }
    bufferevent_openssl_set_allow_dirty_shutdown(c->bev, 1);
    c->state = CONNECTION_HANDSHAKE;
    connection_set_timer(c, c->since_us, e->timeouts.hello_ms);
    start_stream(c, INPUT_BYTES_UNPROVEN);
}

int connection_start_local(struct wire_connection *c, int fd)
{
    c->bev = bufferevent_socket_new(c->endpoint->loop, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!c->bev) {
        close(fd);
        return -ENOMEM;
    }
    start_stream(c, INPUT_BYTES);
    struct wire_hello nobody = {.version = c->endpoint->hello.version};
    c->version = nobody.version;
    memcpy(nobody.cluster_id, c->endpoint->hello.cluster_id, sizeof(nobody.cluster_id));
    connection_enter(c);
    announce(c, &nobody);
    connection_leave(c);
    return 0;
}

/* ---- The public face ------------------------------------------------------------- */

enum wire_peer_kind wire_kind(const struct wire_connection *c)
{
    return c->kind;
}

uint64_t wire_peer_id(const struct wire_connection *c)
{
    return c->peer_id;
}

bool wire_is_open(const struct wire_connection *c)
{
    return c->state == CONNECTION_OPEN;
}

bool wire_is_connecting(const struct wire_connection *c)
{
    return c->state == CONNECTION_CONNECTING;
}

uint16_t wire_version(const struct wire_connection *c)
{
    ensure(c->version > 0);
    return c->version;
}

enum wire_refusal wire_refusal(const struct wire_connection *c)
{
    return c->refusal;
}

void wire_set_tag(struct wire_connection *c, void *tag)
{
    c->tag = tag;
}

void *wire_tag(const struct wire_connection *c)
{
    return c->tag;
}

void wire_close(struct wire_connection *c)
{
    if (c->state == CONNECTION_DEAD)
        return;
    c->state = CONNECTION_DEAD;
    if (c->busy == 0)
        connection_free(c);
}

void wire_close_after_sending(struct wire_connection *c)
{
    if (c->state == CONNECTION_CLOSING)
        return;
    if (c->state != CONNECTION_OPEN) {
        wire_close(c);
        return;
    }
    connection_close_after_sending(c);
}

void wire_turn_away(struct wire_connection *c, enum wire_refusal reason, const char *text)
{
    if (c->state == CONNECTION_OPEN)
        connection_send_refusal(c, reason, text);
    wire_close_after_sending(c);
}

void wire_refuse(struct wire_connection *c, const char *reason)
{
    if (c->state != CONNECTION_OPEN)
        return;
    c->endpoint->counters.malformed_frames++;
    connection_fail(c, "%s sent a malformed frame: %s", c->peer, reason);
}
