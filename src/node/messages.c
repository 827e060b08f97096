/* messages.c - consensus messages, operations and answers as bytes: docs/protocol.md. */
#include "node_core.h"

#include <errno.h>

enum { VOTE_PRE = 1, VOTE_TRANSFER = 2, VOTE_GRANTED = 4 };

uint8_t message_encode(const struct raft_message *m, struct buf *to)
{
    uint8_t flags =
        (uint8_t)((m->pre ? VOTE_PRE : 0) | (m->transfer ? VOTE_TRANSFER : 0) |
                  (m->granted ? VOTE_GRANTED : 0));
    buf_u64(to, m->term);
    switch (m->type) {
    case RAFT_VOTE:
        buf_u8(to, flags);
        buf_u64(to, m->last_index);
        buf_u64(to, m->last_term);
        /* Without a leader nothing else would show that a wild clock was set right (G2). */
        buf_u64(to, clock_real_us());
        return WIRE_RAFT_VOTE;
    case RAFT_VOTE_REPLY:
        buf_u8(to, flags);
        return WIRE_RAFT_VOTE_REPLY;
    case RAFT_APPEND:
        buf_u64(to, m->prev_index);
        buf_u64(to, m->prev_term);
        buf_u64(to, m->last);
        buf_u64(to, m->commit);
        buf_u64(to, m->round);
        buf_u64(to, m->floor);
        return WIRE_RAFT_APPEND;
    case RAFT_APPEND_REPLY:
        buf_u8(to, m->ok);
        buf_u64(to, m->round);
        buf_u64(to, m->match);
        buf_u64(to, m->applied);
        buf_u64(to, m->hint_index);
        buf_u64(to, m->hint_term);
        buf_u64(to, clock_real_us());
        return WIRE_RAFT_APPEND_REPLY;
    case RAFT_TIMEOUT_NOW:
        return WIRE_RAFT_TIMEOUT_NOW;
    case RAFT_SNAPSHOT:
        buf_u64(to, m->prev_index);
        buf_u64(to, m->prev_term);
        buf_u64(to, m->commit);
        buf_u64(to, m->round);
        buf_u64(to, m->floor);
        return WIRE_RAFT_SNAPSHOT;
    }
    ensure(false && "a message type the core knows");
    return 0;
}

static bool decode_flags(struct reader *r, uint8_t allowed, struct raft_message *m)
{
    uint8_t flags = reader_u8(r);
    m->pre = flags & VOTE_PRE;
    m->transfer = flags & VOTE_TRANSFER;
    m->granted = flags & VOTE_GRANTED;
    return (flags & ~allowed) == 0;
}

int message_decode(uint8_t type, const void *data, size_t length,
                   struct raft_message *ret, const uint8_t **ret_rest,
                   size_t *ret_rest_length, uint64_t *ret_clock_us)
{
    struct reader r = reader_of(data, length);
    struct raft_message m = {.term = reader_u64(&r)};
    const uint8_t *rest = NULL;
    size_t rest_length = 0;
    uint64_t clock_us = 0;
    bool good = true;
    switch (type) {
    case WIRE_RAFT_VOTE:
        m.type = RAFT_VOTE;
        good = decode_flags(&r, VOTE_PRE | VOTE_TRANSFER, &m);
        m.last_index = reader_u64(&r);
        m.last_term = reader_u64(&r);
        clock_us = reader_u64(&r);
        break;
    case WIRE_RAFT_VOTE_REPLY:
        m.type = RAFT_VOTE_REPLY;
        good = decode_flags(&r, VOTE_PRE | VOTE_GRANTED, &m);
        break;
    case WIRE_RAFT_APPEND:
        m.type = RAFT_APPEND;
        m.prev_index = reader_u64(&r);
        m.prev_term = reader_u64(&r);
        m.last = reader_u64(&r);
        m.commit = reader_u64(&r);
        m.round = reader_u64(&r);
        m.floor = reader_u64(&r);
        rest_length = reader_left(&r);
        rest = reader_bytes(&r, rest_length);
        good = m.last >= m.prev_index && (m.last > m.prev_index) == (rest_length > 0);
        break;
    case WIRE_RAFT_APPEND_REPLY:
        m.type = RAFT_APPEND_REPLY;
        m.ok = reader_u8(&r);
        m.round = reader_u64(&r);
        m.match = reader_u64(&r);
        m.applied = reader_u64(&r);
        m.hint_index = reader_u64(&r);
        m.hint_term = reader_u64(&r);
        clock_us = reader_u64(&r);
        break;
    case WIRE_RAFT_TIMEOUT_NOW:
        m.type = RAFT_TIMEOUT_NOW;
        break;
    case WIRE_RAFT_SNAPSHOT:
        m.type = RAFT_SNAPSHOT;
        m.prev_index = m.last = reader_u64(&r);
        m.prev_term = reader_u64(&r);
        m.commit = reader_u64(&r);
        m.round = reader_u64(&r);
        m.floor = reader_u64(&r);
        break;
    default:
        return -EPROTO;
    }
    if (!good || !reader_done(&r))
        return -EPROTO;
    *ret = m;
    *ret_rest = rest;
    *ret_rest_length = rest_length;
    *ret_clock_us = clock_us;
    return 0;
}

void operation_encode(const struct operation_head *head, const void *op, size_t length,
                      struct buf *to)
{
    buf_u64(to, head->session);
    buf_u64(to, head->request);
    buf_u64(to, head->lowest);
    buf_u64(to, head->term);
    buf_bytes(to, op, length);
}

int operation_decode(const void *data, size_t length, struct operation_head *ret,
                     const uint8_t **ret_op, size_t *ret_length)
{
    struct reader r = reader_of(data, length);
    struct operation_head head = {.session = reader_u64(&r)};
    head.request = reader_u64(&r);
    head.lowest = reader_u64(&r);
    head.term = reader_u64(&r);
    size_t left = reader_left(&r);
    const uint8_t *op = reader_bytes(&r, left);
    if (r.bad || left == 0 || (head.session == 0) != (head.request == 0) ||
        head.lowest > head.request)
        return -EPROTO;
    *ret = head;
    *ret_op = op;
    *ret_length = left;
    return 0;
}

void answer_encode(const struct answer *a, struct buf *to)
{
    buf_u8(to, (uint8_t)a->status);
    buf_u64(to, a->request);
    buf_u64(to, a->index);
    buf_u32(to, (uint32_t)a->error);
    buf_bytes(to, a->result, sizeof(a->result));
}

int answer_decode(const void *data, size_t length, struct answer *ret)
{
    struct reader r = reader_of(data, length);
    struct answer a = {.status = reader_u8(&r)};
    a.request = reader_u64(&r);
    a.index = reader_u64(&r);
    uint32_t error = reader_u32(&r);
    const uint8_t *result = reader_bytes(&r, sizeof(a.result));
    if (!reader_done(&r) || a.status > WIRE_REFUSED || error > 4095 ||
        (a.status == WIRE_FAILED) != (error != 0))
        return -EPROTO;
    a.error = (int)error;
    memcpy(a.result, result, sizeof(a.result));
    *ret = a;
    return 0;
}
