/*
 * contact.c - the leader ends sessions that it has no contact with (S6).
 *
 * Contact is a byte of the node the session belongs to, on any connection: a node that is
 * slow to send a large frame is not dead. Only the node's newest session has it; what an
 * earlier life left behind goes.
 *
 * Time is counted by the ticks of this leader, each for at most CONTACT_TICK_MOST_US: a
 * leader that was paused, or whose loop was held up, finds all that came meanwhile still
 * to be read, and must not take its own silence for that of others. A new leader has heard
 * nobody yet, and counts from nothing.
 *
 * The death is an entry like any other: it takes a majority, and what is evaluated behind
 * it finds the session gone (evaluate_is_session_open), whoever leads then.
 */
#include "node_core.h"

#include <errno.h>

enum {
    CONTACT_TICK_MOST_US = 2 * NODE_TICK_US,
    CONTACT_ENDS_TICK = 8, /* sessions that a tick ends at most; others follow */
};

void contact_begin(struct node *n)
{
    for (struct session *s = n->sessions; s; s = s->next)
        s->silent_us = 0;
    n->leader.contact_us = node_now();
}

static void note_contact(void *context, uint64_t node_id)
{
    struct node *n = context;
    struct session *newest = NULL;
    for (struct session *s = n->sessions; s; s = s->next)
        if (s->node_id == node_id && (!newest || s->number > newest->number))
            newest = s;
    if (newest)
        newest->silent_us = 0;
}

static void end_session(struct node *n, uint64_t number)
{
    struct buf op = {0};
    node_op_encode(&(struct node_op){.type = NODE_OP_END_SESSION, .session = number},
                   &op);
    node_must(op.failed ? -ENOMEM : 0, "ending a session");
    leader_run_internal(n, &op);
    buf_release(&op);
}

/* One whose end has begun goes on to it, whoever began that. */
static bool is_to_end(struct node *n, const struct session *s)
{
    enum session_life life = evaluate_session_life(n, s->number);
    return life == SESSION_ENDING ||
           (life == SESSION_OPEN && s->silent_us >= NODE_SESSION_SILENT_US);
}

static void log_death(const struct session *s)
{
    log_warn("session %llu of node %016llx is ended: nothing came from that node for %d "
             "s",
             (unsigned long long)s->number, (unsigned long long)s->node_id,
             NODE_SESSION_SILENT_US / 1000000);
}

void contact_tick(struct node *n, uint64_t now_us)
{
    uint64_t elapsed_us = min_u64(now_us - n->leader.contact_us, CONTACT_TICK_MOST_US);
    uint64_t silent[CONTACT_ENDS_TICK];
    size_t count = 0;
    n->leader.contact_us = now_us;
    for (struct session *s = n->sessions; s; s = s->next)
        s->silent_us += elapsed_us;
    wire_each_heard(n->endpoint, note_contact, n);
    note_contact(n, n->directory.node_id);
    for (struct session *s = n->sessions; s && count < CONTACT_ENDS_TICK; s = s->next)
        if (is_to_end(n, s)) {
            if (evaluate_is_session_open(n, s->number))
                log_death(s);
            silent[count++] = s->number;
        }
    for (size_t i = 0; i < count && leader_is_open(n); i++)
        end_session(n, silent[i]);
}
