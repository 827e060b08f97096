/*
 * flight.c - what is on its way to a peer, and not known to be durable there: bounded in
 * messages and in bytes.
 *
 * Few large messages are better than many small ones where it is busy: what is appended
 * while the bound is reached goes in one batch with the next message. And what a peer whose
 * disk is slow holds in memory is no more than this, however far it is behind.
 */
#include "node_core.h"

void flight_clear(struct flight *f)
{
    *f = (struct flight){0};
}

bool flight_has_room(const struct flight *f)
{
    return f->count < NODE_FLIGHT_MESSAGES && f->bytes < LIMIT_FLIGHT_BYTES;
}

static struct flight_message *message_at(struct flight *f, unsigned i)
{
    return &f->messages[(f->first + i) % NODE_FLIGHT_MESSAGES];
}

void flight_settle(struct flight *f, uint64_t match, uint64_t next)
{
    while (f->count > 0 && message_at(f, 0)->last <= match) {
        f->bytes -= message_at(f, 0)->bytes;
        f->first = (f->first + 1) % NODE_FLIGHT_MESSAGES;
        f->count--;
    }
    while (f->count > 0 && message_at(f, f->count - 1)->last >= next) {
        f->bytes -= message_at(f, f->count - 1)->bytes;
        f->count--;
    }
}

void flight_add(struct flight *f, uint64_t last, size_t bytes)
{
    ensure(f->count < NODE_FLIGHT_MESSAGES);
    f->count++;
    f->bytes += bytes;
    *message_at(f, f->count - 1) = (struct flight_message){.last = last, .bytes = bytes};
}
