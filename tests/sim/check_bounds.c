/*
 * check_bounds.c - V13: no queue of a node is longer than its bound; what counts its bytes
 * counts right.
 */
#include "sim.h"

static void bound(const struct sim_node *n, const char *what, uint64_t now, uint64_t most)
{
    if (now > most)
        sim_fail("V13: %s of %s: %llu, at most %llu", what, n->name,
                 (unsigned long long)now, (unsigned long long)most);
}

static void check_driver(const struct sim_node *n)
{
    const struct driver *d = &n->node->driver;
    bound(n, "events that wait for the core", d->event_count, DRIVER_EVENTS);
    bound(n, "messages held back", d->held_count, DRIVER_HELD);
    bound(n, "repairs", n->node->repair_count, NODE_REPAIRS);
    bound(n, "operations", n->node->client.count, NODE_OPERATIONS_MOST);
    bound(n, "answers that wait", n->node->leader.answers, NODE_ANSWERS_MOST);
    bound(n, "bytes that wait for the log's disk", store_unwritten_bytes(n->node->store),
          LIMIT_INFLIGHT_BYTES);
    for (size_t i = 0; i < n->node->peer_count; i++)
        bound(n, "bytes on their way to a member", n->node->peers[i].flight.bytes,
              LIMIT_FLIGHT_BYTES + LIMIT_APPEND_BYTES + LIMIT_ENTRY_BYTES);
}

/* Requests that have a number: the window at the leader must hold them (S2). */
static void check_client(const struct sim_node *n)
{
    const struct client *c = &n->node->client;
    for (const struct client_op *op = c->head; op; op = op->next)
        if (op->request) {
            bound(n, "requests on their way", c->next_request - op->request,
                  LIMIT_SESSION_WINDOW / 2);
            return;
        }
}

static void check_leader(const struct sim_node *n)
{
    const struct leader *l = &n->node->leader;
    uint64_t bytes = 0;
    bound(n, "bytes in flight", l->inflight_bytes,
          LIMIT_INFLIGHT_BYTES + LIMIT_ENTRY_BYTES);
    bound(n, "bytes at the gate", l->gate_bytes, LIMIT_INFLIGHT_BYTES);
    bound(n, "answers", l->answers, NODE_ANSWERS_MOST);
    if (sim_steps % 64)
        return;
    for (const struct operation *o = l->gate_head; o; o = o->next)
        bytes += o->length;
    bound(n, "the count of bytes at the gate", bytes, l->gate_bytes);
    bytes = 0;
    for (const struct waiting *w = l->entries.head; w; w = w->next)
        bytes += w->bytes;
    bound(n, "the count of bytes in flight", bytes, l->inflight_bytes);
}

/* A session's origin has no more on their way than its window is wide. */
static void check_sessions(const struct sim_node *n)
{
    uint64_t sessions = 0;
    for (const struct session *s = n->node->sessions; s; s = s->next) {
        uint64_t parked = 0, bytes = 0;
        for (const struct operation *o = s->parked_head; o; o = o->next) {
            parked++;
            bytes += o->length;
        }
        bound(n, "parked operations", parked, LIMIT_SESSION_WINDOW);
        bound(n, "the count of parked bytes", bytes, s->parked_bytes);
        bound(n, "parked bytes", bytes, LIMIT_PARKED_BYTES);
        sessions++;
    }
    bound(n, "sessions", sessions, LIMIT_SESSIONS + LIMIT_MEMBERS);
}

static void check_threads(const struct sim_node *n)
{
    bound(n, "bytes not written yet", store_unwritten_bytes(n->node->store),
          LIMIT_UNWRITTEN_BYTES + LIMIT_FRAME_BYTES);
    bound(n, "tasks of the reader", n->node->pager.queued, NODE_READER_MOST);
    bound(n, "tasks of the merge thread", n->node->merge.queued, NODE_BULK_MOST);
}

static void check_peers(const struct sim_node *n)
{
    for (size_t i = 0; i < n->node->peer_count; i++) {
        const struct peer *p = &n->node->peers[i];
        bound(n, "bytes on their way to a peer", p->flight.bytes,
              LIMIT_FLIGHT_BYTES + LIMIT_FRAME_BYTES);
        if (p->open)
            bound(n, "unsent bytes", wire_queued_bytes(p->connection),
                  4 * LIMIT_SEND_QUEUE_BYTES + LIMIT_FRAME_BYTES);
    }
}

/* Those that have to be counted, now and then. */
void verify_bounds(const struct sim_node *n)
{
    check_driver(n);
    check_client(n);
    check_leader(n);
    if (sim_steps % 64)
        return;
    check_sessions(n);
    check_threads(n);
    check_peers(n);
}
