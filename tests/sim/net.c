/*
 * net.c - wire.h in memory. A connection is two ends; each direction is a stream: frames
 * arrive in order, or the connection ends. Frames of consensus promise nothing (raft.h)
 * and may also be lost, doubled, and overtake each other.
 */
#include "sim.h"

#include <errno.h>

enum {
    HELLO_TIMEOUT_US = 5 * 1000 * 1000,
    SOCKET_BYTES = 16 * 1024, /* taken by the kernel before anything queues */
    QUEUE_END_BYTES = 4 * LIMIT_SEND_QUEUE_BYTES,
};

struct wire_connection {
    struct wire_connection *next; /* of all */
    struct wire_endpoint *endpoint;
    struct wire_connection *other; /* NULL: not connected, or gone */
    uint64_t peer_id;
    bool dialed, open, closed, closing, full, refused, heard;
    enum wire_refusal refusal; /* by the peer */
    uint16_t version;          /* the one that is spoken, once it is open */
    void *tag;
    uint64_t last_arrival; /* of what was sent from here */
    size_t queued;
};

struct wire_endpoint {
    struct sim_node *node;
    unsigned life;
    struct wire_handlers handlers;
    struct wire_hello hello;
    struct wire_counters counters;
    uint64_t parted[64]; /* heard since wire_each_heard(), and gone */
    size_t parted_count;
    bool listens;
};

enum frame_kind { FRAME_DATA, FRAME_HELLO, FRAME_REFUSAL, FRAME_END };

struct frame {
    struct frame *next;
    enum frame_kind kind;
    struct wire_connection *from, *to;
    struct sim_node *from_node, *to_node;
    unsigned to_life;
    uint8_t type;
    uint16_t stream;
    uint32_t length;
    bool in_order;
    uint8_t bytes[];
};

static bool cuts[SIM_NODES][SIM_NODES];
static uint64_t slow_us[SIM_NODES][SIM_NODES];
static struct wire_connection *connections;
static struct frame *stuck, **stuck_tail = &stuck; /* sent over links that are cut */

/* ---- Ends ------------------------------------------------------------------------- */

static struct wire_connection *end_new(struct wire_endpoint *e, uint64_t peer)
{
    struct wire_connection *c = calloc(1, sizeof(*c)), **at = &connections;
    ensure(c);
    c->endpoint = e;
    c->peer_id = peer;
    while (*at)
        at = &(*at)->next;
    *at = c;
    return c;
}

static void end_drop(struct wire_connection *c)
{
    struct wire_endpoint *e = c->endpoint;
    if (c->open && c->heard && e->parted_count < array_length(e->parted))
        e->parted[e->parted_count++] = c->peer_id;
    c->closed = true;
    if (c->other)
        c->other->other = NULL;
    c->other = NULL;
    /* It stays in memory: events may lead to it. */
    for (struct wire_connection **at = &connections; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            return;
        }
}

struct closing {
    struct wire_connection *c;
    const char *reason;
};

static void tell_closed(void *arg)
{
    struct closing *closing = arg;
    struct wire_connection *c = closing->c;
    if (!c->closed) {
        end_drop(c);
        c->endpoint->handlers.closed(c->endpoint->handlers.context, c, closing->reason);
    }
    free(closing);
}

static void post_closed(void *arg)
{
    struct closing *closing = arg;
    if (sim_at_node->loop)
        loop_post(sim_at_node, tell_closed, closing);
}

/* closed() follows at this end, never from within. */
static void end_fail(struct wire_connection *c, const char *reason, uint64_t delay_us)
{
    struct closing *closing = malloc(sizeof(*closing));
    ensure(closing);
    *closing = (struct closing){c, reason};
    sim_after(delay_us, c->endpoint->node, post_closed, closing);
}

static bool promises_nothing(uint8_t type)
{
    return type >= WIRE_RAFT_VOTE && type <= WIRE_RAFT_SNAPSHOT;
}

/* ---- Frames on their way -------------------------------------------------------------
 */

static uint64_t latency(void)
{
    uint64_t us = chance_latency(CHANCE_NET, plan.latency_us);
    if (plan.faults && chance_of(CHANCE_NET, plan.delay)) {
        fault(message_delayed);
        us += chance_below(CHANCE_NET, 400 * SIM_MS);
    }
    return us;
}

static void arrived(void *arg);

static void dispatch(struct frame *f)
{
    struct wire_connection *c = f->from;
    uint64_t at = sim_now + latency() + slow_us[f->from_node->number][f->to_node->number];
    if (f->in_order) {
        at = max_u64(at, c->last_arrival + 1);
        c->last_arrival = at;
    }
    sim_after(at - sim_now, NULL, arrived, f);
}

static void send_frame(struct frame *f)
{
    if (cuts[f->from_node->number][f->to_node->number]) {
        f->next = NULL;
        *stuck_tail = f;
        stuck_tail = &f->next;
    } else {
        dispatch(f);
    }
}

struct delivery {
    struct frame *frame;
};

static void note_drained(struct wire_connection *c)
{
    if (!c->full || c->closed || c->queued > LIMIT_SEND_QUEUE_BYTES / 2)
        return;
    c->full = false;
    c->endpoint->handlers.drained(c->endpoint->handlers.context, c);
}

static void tell_drained(void *arg)
{
    note_drained(arg);
}

static void post_drained(void *arg)
{
    if (sim_at_node->loop)
        loop_post(sim_at_node, tell_drained, arg);
}

static struct frame *frame_new(struct wire_connection *c, enum frame_kind kind,
                               size_t length);

/* Its number is the frame's type. */
static void send_refusal(struct wire_connection *c, enum wire_refusal reason,
                         const char *text)
{
    if (!c->other)
        return;
    struct frame *f = frame_new(c, FRAME_REFUSAL, strlen(text) + 1);
    f->type = (uint8_t)reason;
    memcpy(f->bytes, text, f->length);
    send_frame(f);
}

static void send_end(struct wire_connection *c)
{
    if (c->other)
        send_frame(frame_new(c, FRAME_END, 0));
}

/* 0, or why the peer that said this is not let in. */
static enum wire_refusal judge_hello(struct wire_connection *c,
                                     const struct wire_hello *hello,
                                     char text[WIRE_ERROR_BYTES])
{
    struct wire_endpoint *e = c->endpoint;
    if (hello->version < e->hello.oldest || hello->oldest > e->hello.version) {
        snprintf(text, WIRE_ERROR_BYTES, "no version of the protocol is spoken by both");
        return WIRE_REFUSAL_VERSION;
    }
    const struct wire_handlers *h = &e->handlers;
    return h->admit ? (enum wire_refusal)h->admit(h->context, c, hello, text)
                    : WIRE_REFUSAL_NONE;
}

static void tell_hello(struct wire_connection *c, const struct wire_hello *hello)
{
    struct wire_endpoint *e = c->endpoint;
    char text[WIRE_ERROR_BYTES] = "";
    enum wire_refusal reason = judge_hello(c, hello, text);
    if (c->closed)
        return;
    if (reason == WIRE_REFUSAL_NONE) {
        c->open = true;
        c->version = (uint16_t)min_u64(hello->version, e->hello.version);
        e->counters.opened++;
        e->handlers.opened(e->handlers.context, c, hello);
        return;
    }
    e->counters.refused_hellos++;
    send_refusal(c, reason, text);
    send_end(c);
    end_drop(c);
    if (c->dialed)
        e->handlers.closed(e->handlers.context, c, text);
}

/* An end that was accepted and never opened is not known to the handlers. */
static void tell_end(struct wire_connection *c, const char *reason)
{
    struct wire_endpoint *e = c->endpoint;
    end_drop(c);
    if (c->dialed || c->open)
        e->handlers.closed(e->handlers.context, c, reason);
}

static void tell_frame(void *arg)
{
    struct frame *f = arg;
    struct wire_connection *c = f->to;
    struct wire_endpoint *e = c->endpoint;
    if (c->closed) {
        /* it came too late */
    } else if (f->kind == FRAME_END) {
        tell_end(c, "the other side closed it");
    } else if (f->kind == FRAME_REFUSAL) {
        c->refusal = (enum wire_refusal)f->type;
        tell_end(c, (const char *)f->bytes);
    } else if (f->kind == FRAME_HELLO) {
        struct wire_hello hello;
        memcpy(&hello, f->bytes, sizeof(hello));
        tell_hello(c, &hello);
    } else {
        struct wire_frame frame = {f->type, f->stream, f->bytes, f->length};
        trace_number(f->type);
        trace_number(f->length);
        if (plan.exact)
            scenario_frame(f->from_node, f->to_node, f->type, f->bytes, f->length);
        e->counters.bytes_in += f->length;
        c->heard = true;
        if (promises_nothing(f->type))
            verify_heard(f->to_node, f->from_node);
        e->handlers.frame(e->handlers.context, c, &frame);
    }
    free(f);
}

static void post_frame(void *arg)
{
    struct frame *f = arg;
    if (sim_at_node->loop)
        loop_post(sim_at_node, tell_frame, f);
}

static void arrived(void *arg)
{
    struct frame *f = arg;
    struct wire_connection *from = f->from;
    if (f->kind == FRAME_DATA && !from->closed) {
        from->queued -= min_u64(from->queued, f->length);
        if (from->full && from->queued <= LIMIT_SEND_QUEUE_BYTES / 2)
            sim_after(0, from->endpoint->node, post_drained, from);
    }
    if (!f->to_node->up || f->to_node->life != f->to_life || f->to->closed) {
        free(f);
        return;
    }
    sim_after(0, f->to_node, post_frame, f);
}

static struct frame *frame_new(struct wire_connection *c, enum frame_kind kind,
                               size_t length)
{
    struct frame *f = malloc(sizeof(*f) + length);
    ensure(f);
    *f = (struct frame){.kind = kind, .from = c, .to = c->other, .in_order = true};
    f->from_node = c->endpoint->node;
    f->to_node = c->other->endpoint->node;
    f->to_life = c->other->endpoint->life;
    f->length = (uint32_t)length;
    return f;
}

static void send_hello(struct wire_connection *c)
{
    struct frame *f = frame_new(c, FRAME_HELLO, sizeof(struct wire_hello));
    struct wire_hello hello = c->endpoint->hello;
    hello.clock_us = clock_real_us();
    memcpy(f->bytes, &hello, sizeof(hello));
    send_frame(f);
}

/* ---- Links ------------------------------------------------------------------------ */

bool net_is_cut(unsigned from, unsigned to)
{
    return cuts[from][to];
}

void net_cut(unsigned from, unsigned to, bool cut)
{
    if (cuts[from][to] == cut)
        return;
    cuts[from][to] = cut;
    if (cut)
        return;
    struct frame *all = stuck;
    stuck = NULL;
    stuck_tail = &stuck;
    while (all) {
        struct frame *f = all;
        all = f->next;
        send_frame(f);
    }
}

void net_slow(unsigned from, unsigned to, uint64_t us)
{
    slow_us[from][to] = us;
}

void net_heal(void)
{
    memset(slow_us, 0, sizeof(slow_us));
    for (unsigned a = 0; a < SIM_NODES; a++)
        for (unsigned b = 0; b < SIM_NODES; b++)
            net_cut(a, b, false);
}

/* Both ends hear of it; what was on its way is lost. */
static void break_both(struct wire_connection *c)
{
    struct wire_connection *other = c->other;
    end_fail(c, "reset", latency());
    if (other)
        end_fail(other, "reset", latency());
    c->other = NULL;
    if (other)
        other->other = NULL;
}

void net_break(struct sim_node *a, struct sim_node *b)
{
    for (struct wire_connection *c = connections; c; c = c->next)
        if (c->other && c->endpoint->node == a && c->other->endpoint->node == b) {
            fault(connection_cut);
            break_both(c);
        }
}

void net_drop_node(struct sim_node *n)
{
    struct wire_connection *next;
    for (struct wire_connection *c = connections; c; c = next) {
        next = c->next;
        if (c->endpoint->node != n)
            continue;
        if (c->other) /* its kernel says so, or a timeout */
            end_fail(c->other, "reset by peer",
                     latency() + (chance_below(CHANCE_NET, 4) ? 0 : SIM_S));
        end_drop(c);
    }
}

/* ---- wire.h ------------------------------------------------------------------------ */

int __wrap_wire_identity_check(const struct wire_identity *identity,
                               char error[WIRE_ERROR_BYTES]);

int __wrap_wire_identity_check(const struct wire_identity *identity,
                               char error[WIRE_ERROR_BYTES])
{
    return 0;
}

/* There are no certificates here, and no record of a CA. */
int wire_endpoint_set_identity(struct wire_endpoint *e,
                               const struct wire_identity *identity,
                               char error[WIRE_ERROR_BYTES])
{
    ensure(!"a certificate to renew");
    return 0;
}

int wire_endpoint_new(struct wire_endpoint **ret, struct event_base *loop,
                      const struct wire_identity *identity,
                      const struct wire_hello *hello,
                      const struct wire_handlers *handlers, char error[WIRE_ERROR_BYTES])
{
    struct wire_endpoint *e = calloc(1, sizeof(*e));
    ensure(e);
    *e = (struct wire_endpoint){.node = sim_at_node,
                                .life = sim_at_node->life,
                                .handlers = *handlers,
                                .hello = *hello};
    if (e->hello.version == 0) {
        e->hello.version = WIRE_PROTOCOL_VERSION;
        e->hello.oldest = WIRE_PROTOCOL_OLDEST;
    }
    sim_at_node->endpoint = e;
    *ret = e;
    return 0;
}

void wire_endpoint_free(struct wire_endpoint *e)
{
    struct wire_connection *next;
    for (struct wire_connection *c = connections; c; c = next) {
        next = c->next;
        if (c->endpoint == e)
            wire_close(c);
    }
    e->node->endpoint = NULL;
}

int wire_listen(struct wire_endpoint *e, const char *address,
                char error[WIRE_ERROR_BYTES])
{
    e->listens = true;
    return 0;
}

int wire_listen_try(const char *address, char error[WIRE_ERROR_BYTES])
{
    return 0;
}

uint16_t wire_listen_port(const struct wire_endpoint *e)
{
    return 1;
}

int wire_listen_local(struct wire_endpoint *e, const char *path,
                      char error[WIRE_ERROR_BYTES])
{
    return 0;
}

struct dial {
    struct wire_connection *c;
    struct sim_node *to;
};

static void dial_timed_out(void *arg)
{
    struct wire_connection *c = arg;
    if (!c->closed && !c->open)
        end_fail(c, "no HELLO in time", 0);
}

/* The SYN arrived, or did not. */
static void dialed(void *arg)
{
    struct dial *d = arg;
    struct wire_connection *c = d->c;
    struct wire_endpoint *e = d->to ? d->to->endpoint : NULL;
    unsigned from = c->endpoint->node->number, to = d->to ? d->to->number : from;
    free(d);
    if (c->closed || cuts[from][to] || cuts[to][from])
        return; /* it times out */
    if (!e || !e->listens || !e->node->up) {
        end_fail(c, "connection refused", latency());
        return;
    }
    struct wire_connection *other = end_new(e, c->endpoint->node->id);
    c->other = other;
    other->other = c;
    e->counters.accepted++;
    send_hello(c);
    struct sim_node *at = sim_at_node; /* the other one's clock */
    sim_at_node = e->node;
    send_hello(other);
    sim_at_node = at;
}

int wire_dial(struct wire_endpoint *e, const char *address, uint64_t node_id,
              struct wire_connection **ret)
{
    struct sim_node *to = sim_of_address(address);
    struct wire_connection *c = end_new(e, node_id);
    c->dialed = true;
    struct dial *d = malloc(sizeof(*d));
    ensure(d);
    *d = (struct dial){c, to};
    e->counters.dialed++;
    sim_after(2 * latency(), e->node, dialed, d);
    sim_after(HELLO_TIMEOUT_US, e->node, dial_timed_out, c);
    *ret = c;
    return 0;
}

void wire_each_heard(struct wire_endpoint *e,
                     void (*each)(void *context, uint64_t node_id), void *context)
{
    for (; e->parted_count > 0; e->parted_count--)
        each(context, e->parted[e->parted_count - 1]);
    for (struct wire_connection *c = connections; c; c = c->next)
        if (c->endpoint == e && c->heard && c->open) {
            c->heard = false;
            each(context, c->peer_id);
        }
}

const struct wire_counters *wire_endpoint_counters(const struct wire_endpoint *e)
{
    return &e->counters;
}

enum wire_peer_kind wire_kind(const struct wire_connection *c)
{
    return WIRE_PEER_NODE;
}

uint64_t wire_peer_id(const struct wire_connection *c)
{
    return c->peer_id;
}

bool wire_is_open(const struct wire_connection *c)
{
    return c->open && !c->closed;
}

bool wire_is_connecting(const struct wire_connection *c)
{
    return c->dialed && !c->open && !c->closed && !c->other;
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

struct wire_connection *wire_find(struct wire_endpoint *e, uint64_t node_id)
{
    for (struct wire_connection *c = connections; c; c = c->next)
        if (c->endpoint == e && c->peer_id == node_id && wire_is_open(c))
            return c;
    return NULL;
}

void wire_set_tag(struct wire_connection *c, void *tag)
{
    c->tag = tag;
}

void *wire_tag(const struct wire_connection *c)
{
    return c->tag;
}

size_t wire_queued_bytes(const struct wire_connection *c)
{
    return c->queued > SOCKET_BYTES ? c->queued - SOCKET_BYTES : 0;
}

static struct frame *frame_copy(const struct frame *f)
{
    struct frame *copy = malloc(sizeof(*copy) + f->length);
    ensure(copy);
    memcpy(copy, f, sizeof(*copy) + f->length);
    return copy;
}

/* What the plan does to one frame of consensus. False: it is lost. */
static bool mistreat(struct frame *f)
{
    if (plan.exact && scenario_loses(f->from_node, f->to_node, f->type))
        return false;
    if (!plan.faults || !promises_nothing(f->type))
        return true;
    if (chance_of(CHANCE_NET, plan.lose)) {
        fault(message_lost);
        return false;
    }
    if (chance_of(CHANCE_NET, plan.twice)) {
        struct frame *copy = frame_copy(f);
        copy->in_order = false;
        f->from->queued += f->length;
        fault(message_doubled);
        send_frame(copy);
    }
    if (chance_of(CHANCE_NET, plan.reorder)) {
        f->in_order = false;
        fault(message_reordered);
    }
    return true;
}

int wire_send(struct wire_connection *c, uint8_t type, uint16_t stream,
              const struct wire_part *parts, size_t count)
{
    size_t length = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        length += parts[i].length;
    ensure(length <= LIMIT_FRAME_BYTES);
    bool open = c->open && !c->closed && c->other;
    struct frame *f = open ? frame_new(c, FRAME_DATA, length) : NULL;
    for (size_t i = 0; i < count; i++) {
        if (f && parts[i].length)
            memcpy(f->bytes + at, parts[i].data, parts[i].length);
        at += parts[i].length;
        if (parts[i].release)
            parts[i].release(parts[i].owner);
    }
    if (!f)
        return -ENOTCONN;
    f->type = type;
    f->stream = stream;
    verify_sent(c->endpoint->node, type, f->bytes, length, c->peer_id);
    c->endpoint->counters.bytes_out += length;
    bool lost =
        type == WIRE_ANSWER && plan.faults && chance_of(CHANCE_NET, plan.lose_answer);
    if (lost || (plan.faults && chance_of(CHANCE_NET, plan.cut_frame))) {
        if (lost)
            fault(answer_lost);
        else
            fault(frame_cut);
        free(f);
        break_both(c);
        return 0;
    }
    if (!mistreat(f)) {
        free(f);
        return 0;
    }
    c->queued += length;
    send_frame(f);
    if (wire_queued_bytes(c) > QUEUE_END_BYTES + LIMIT_FRAME_BYTES) {
        break_both(c);
        return -ENOTCONN;
    }
    if (wire_queued_bytes(c) < LIMIT_SEND_QUEUE_BYTES)
        return 0;
    c->full = true;
    return -ENOBUFS;
}

int wire_send_bytes(struct wire_connection *c, uint8_t type, uint16_t stream,
                    const void *value, size_t length)
{
    struct wire_part part = {value, length, NULL, NULL};
    return wire_send(c, type, stream, &part, 1);
}

void wire_close(struct wire_connection *c)
{
    if (c->closed)
        return;
    send_end(c);
    end_drop(c);
}

void wire_close_after_sending(struct wire_connection *c)
{
    wire_close(c);
}

void wire_turn_away(struct wire_connection *c, enum wire_refusal reason, const char *text)
{
    if (wire_is_open(c))
        send_refusal(c, reason, text);
    wire_close(c);
}

void wire_refuse(struct wire_connection *c, const char *reason)
{
    if (c->refused || c->closed)
        return;
    c->refused = true;
    c->endpoint->counters.malformed_frames++;
    trace("refused: %s", reason);
    /* Bytes arrive as they were sent: this is never right. */
    sim_fail("%s refuses a frame of %llx: %s", c->endpoint->node->name,
             (unsigned long long)c->peer_id, reason);
}
