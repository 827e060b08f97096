/*
 * client.c - this node's own operations, on their way to the leader and back.
 *
 * They get their request numbers in the order in which they are first sent, and are sent
 * in that order again whenever the leader, or the connection to it, changes (S3); the
 * session's window at the leader makes that harmless (S2). A caller is answered when the
 * leader has said so *and* the entry is applied here (S5).
 *
 *   QUEUED --send--> SENT --answer--> ANSWERED --applied--> done()
 *     ^                |
 *     +-- NOT_LEADER, NO_QUORUM (it is in no log) ------ EROFS after the grace
 */
#include "node_core.h"

#include <errno.h>

enum client_op_state { OP_QUEUED, OP_SENT, OP_WAITING_TO_RESEND, OP_ANSWERED };

enum client_op_flags { OP_LOGGED_MAYBE = 1, OP_INTERRUPTED = 2 };

static void list_add(struct client *c, struct client_op *op)
{
    c->count++;
    op->next = NULL;
    op->previous = c->tail;
    if (c->tail)
        c->tail->next = op;
    else
        c->head = op;
    c->tail = op;
}

static void list_remove(struct client *c, struct client_op *op)
{
    c->count--;
    if (op->previous)
        op->previous->next = op->next;
    else
        c->head = op->next;
    if (op->next)
        op->next->previous = op->previous;
    else
        c->tail = op->previous;
}

static void finish(struct node *n, struct client_op *op, int error)
{
    if (op == &n->client.opening)
        n->client.opening_busy = false;
    else
        list_remove(&n->client, op);
    op->error = error;
    op->done(op);
}

/* ---- Sending ----------------------------------------------------------------------- */

static bool is_leader_reachable(struct node *n)
{
    uint64_t leader = raft_leader(n->driver.raft);
    if (leader == 0)
        return false;
    if (leader == n->directory.node_id)
        return node_has_quorum(n);
    struct peer *p = peers_find(n, leader);
    return p && p->open;
}

static uint64_t lowest_unanswered(const struct client *c)
{
    for (const struct client_op *op = c->head; op; op = op->next)
        if (op->request)
            return op->request;
    return c->next_request;
}

static void send_op(struct node *n, struct client_op *op)
{
    struct client *c = &n->client;
    struct operation_head head = {.stream = c->sending, .term = c->sent_term};
    if (op != &c->opening) {
        if (!op->request)
            op->request = c->next_request++;
        head.session = op->session = c->session;
        head.request = op->request;
        head.lowest = lowest_unanswered(c);
    }
    c->has_sent = true;
    op->state = OP_SENT;
    op->sent_us = node_now();
    op->flags |= OP_LOGGED_MAYBE;
    op->sends++;
    uint64_t leader = raft_leader(n->driver.raft);
    if (leader == n->directory.node_id) {
        leader_own_operation(n, &head, op->op.data, op->op.length);
        return;
    }
    struct buf bytes = {0};
    operation_encode(&head, op->op.data, op->op.length, &bytes);
    node_must(bytes.failed ? -ENOMEM : 0, "sending an operation");
    struct peer *p = peers_find(n, leader);
    if (wire_send_bytes(p->connection, WIRE_OPERATION, head.stream, bytes.data,
                        bytes.length) == -ENOBUFS)
        p->full = true;
    buf_release(&bytes);
}

/* A new leader, or a new connection to it, has nothing of what was sent. Only those that
 * were sent something count as sendings: a leader tells the past from the next by half of
 * what the number can be (is_of_the_past), and hears of those alone. */
static void notice_target(struct node *n)
{
    struct client *c = &n->client;
    uint64_t leader = raft_leader(n->driver.raft);
    struct peer *p = peers_find(n, leader);
    struct wire_connection *by = p ? p->connection : NULL;
    if (c->sent_to == leader && c->sent_by == by &&
        c->sent_term == raft_term(n->driver.raft))
        return;
    c->sent_to = leader;
    c->sent_by = by;
    c->sent_term = raft_term(n->driver.raft);
    c->sending += c->has_sent;
    c->has_sent = false;
    for (struct client_op *op = c->head; op; op = op->next)
        if (op->state == OP_SENT)
            op->state = OP_QUEUED;
    if (c->opening.state == OP_SENT)
        c->opening.state = OP_QUEUED;
}

static bool is_window_open(const struct client *c)
{
    return c->next_request - lowest_unanswered(c) < LIMIT_SESSION_WINDOW / 2;
}

/* Sending to this node's own leader may answer at once and change the list: begin anew
 * then. */
static struct client_op *next_to_send(struct client *c)
{
    for (struct client_op *op = c->head; op; op = op->next) {
        if (op->state == OP_WAITING_TO_RESEND)
            return NULL; /* those behind it must not overtake it (S3) */
        if (op->state == OP_QUEUED)
            return op->request || is_window_open(c) ? op : NULL;
    }
    return NULL;
}

static void note_quorum(struct node *n, uint64_t now_us)
{
    struct client *c = &n->client;
    n->writable = is_leader_reachable(n) && node_has_quorum(n);
    if (n->writable)
        c->no_quorum_since_us = 0;
    else if (c->no_quorum_since_us == 0)
        c->no_quorum_since_us = now_us;
}

/* Consensus shares the connection: what waits on it must not hold that up. More is sent
 * when answers come, when it drains, or at the next tick. */
static bool has_room_for_operations(struct node *n)
{
    struct peer *p = peers_find(n, raft_leader(n->driver.raft));
    return !p || (!p->full && wire_queued_bytes(p->connection) < NODE_OPERATION_BYTES);
}

void client_pump(struct node *n)
{
    struct client *c = &n->client;
    if (!n->driver.raft || c->pumping)
        return;
    notice_target(n);
    note_quorum(n, node_now());
    c->pumping = true;
    if (c->opening_busy && c->opening.state == OP_QUEUED && is_leader_reachable(n))
        send_op(n, &c->opening);
    struct client_op *op;
    while (c->session && is_leader_reachable(n) && has_room_for_operations(n) &&
           (op = next_to_send(c))) {
        if (op->session && op->session != c->session)
            finish(n, op, -EIO); /* what it rests on has ended with its session (S6) */
        else
            send_op(n, op);
    }
    c->pumping = false;
}

/* ---- Coming back ------------------------------------------------------------------- */

static struct client_op *find(struct client *c, uint64_t request)
{
    if (request == 0)
        return c->opening_busy ? &c->opening : NULL;
    for (struct client_op *op = c->head; op; op = op->next)
        if (op->request == request)
            return op;
    return NULL;
}

/* The leader would not take it now. If this was the only time it was sent it is in no
 * log. */
static void put_back(struct client_op *op)
{
    op->state = OP_WAITING_TO_RESEND;
    if (op->sends == 1)
        op->flags &= ~(unsigned)OP_LOGGED_MAYBE;
    op->sends = op->flags & OP_LOGGED_MAYBE ? op->sends : 0;
}

/* Sent, and not answered. */
static struct client_op *first_unknown(struct client *c)
{
    struct client_op *op = c->head;
    while (op && (!op->request || op->state == OP_ANSWERED))
        op = op->next;
    return op;
}

static void choose_nonce(struct client *c)
{
    do
        random_bytes(&c->nonce, sizeof(c->nonce));
    while (c->nonce == SESSION_ENDING_NONCE);
}

static void session_lost(struct node *n)
{
    struct client *c = &n->client;
    log_warn("the session of this node is over: what was on its way may or may not have "
             "happened; opening another");
    c->session = n->session = 0;
    struct client_op *op;
    while ((op = first_unknown(c)))
        finish(n, op, -EIO);
    choose_nonce(c);
    client_open_session(n);
}

/* The leader has heard this node since that was sent, and counts from then at the earliest
 * (contact.c); so does each leader that follows. */
static void note_contact(struct node *n, const struct client_op *op)
{
    n->session_sure_us = max_u64(n->session_sure_us, op->sent_us + NODE_SESSION_SURE_US);
}

static void settle(struct node *n, struct client_op *op)
{
    if (op->index <= store_applied(n->store))
        finish(n, op, op->answer_error);
}

/* A late answer to an earlier opening. (Requests are told apart by their numbers, which
 * go on from session to session.) */
static bool is_of_another_nonce(const struct client *c, const struct answer *a)
{
    struct fs_result result;
    fs_result_decode(a->result, &result);
    return a->status == WIRE_OK && result.more != c->nonce;
}

void client_note_room(struct node *n)
{
    n->full = n->client.refused_room || store_space(n->store) == STORE_SPACE_LOW;
}

/* The leader's disk may be full while this one is not. */
static void note_room_answer(struct node *n, const struct client_op *op)
{
    struct client *c = &n->client;
    if (op->answer_error == -ENOSPC)
        c->refused_room = true;
    else if (c->refused_room && op->answer_error == 0 &&
             evaluate_needs_room(op->op.data, op->op.length))
        c->refused_room = false;
    client_note_room(n);
}

void client_answer(struct node *n, const struct answer *a)
{
    struct client *c = &n->client;
    struct client_op *op = find(c, a->request);
    /* An errno that an earlier target gave leaves no trace in the log: what was sent
     * again since is evaluated anew, and that answer is the one that counts (S2). */
    if (!op || op->state == OP_ANSWERED || a->stream != c->sending ||
        (op == &c->opening && is_of_another_nonce(c, a)))
        return;
    switch (a->status) {
    case WIRE_OK:
    case WIRE_FAILED:
        op->state = OP_ANSWERED;
        op->index = a->index;
        op->answer_error = a->status == WIRE_OK ? 0 : -a->error;
        memcpy(op->result, a->result, sizeof(op->result));
        note_room_answer(n, op);
        note_contact(n, op);
        settle(n, op);
        break;
    case WIRE_EXPIRED:
        if (op != &c->opening)
            session_lost(n);
        break;
    case WIRE_NOT_LEADER:
    case WIRE_NO_QUORUM:
    case WIRE_REFUSED:
        put_back(op);
        break;
    }
    client_pump(n);
}

static struct client_op *first_settled(struct client *c, uint64_t applied)
{
    for (struct client_op *op = c->head; op; op = op->next)
        if (op->state == OP_ANSWERED && op->index <= applied)
            return op;
    return NULL;
}

void client_applied(struct node *n)
{
    uint64_t applied = store_applied(n->store);
    struct client *c = &n->client;
    if (c->opening_busy && c->opening.state == OP_ANSWERED && c->opening.index <= applied)
        finish(n, &c->opening, c->opening.answer_error);
    /* done() may submit, and so change the list: begin anew after each. */
    struct client_op *op;
    while ((op = first_settled(c, applied)))
        finish(n, op, op->answer_error);
    client_pump(n);
}

/* ---- Submitting -------------------------------------------------------------------- */

void client_submit(struct node *n, struct client_op *op)
{
    struct client *c = &n->client;
    op->state = OP_QUEUED;
    op->request = op->index = op->sent_us = 0;
    op->flags = op->sends = 0;
    op->error = op->answer_error = 0;
    op->arrived_us = node_now();
    list_add(c, op);
    queue_note(n, QUEUE_OPERATIONS, c->count);
    note_quorum(n, op->arrived_us);
    if (n->is_removed)
        finish(n, op, -EIO);
    else if (c->no_quorum_since_us &&
             op->arrived_us - c->no_quorum_since_us > NODE_QUORUM_GRACE_US)
        finish(n, op, -EROFS);
    else
        client_pump(n);
}

static void session_opened(struct client_op *op)
{
    struct node *n = container_of(op, struct node, client.opening);
    struct fs_result result;
    if (op->error < 0) {
        log_warn("a session could not be opened: %s", strerror(-op->error));
        n->client.open_at_us = node_now() + NODE_TICK_US;
        return;
    }
    fs_result_decode(op->result, &result);
    n->client.session = n->session = result.value;
    node_session_opened(n);
}

void client_open_session(struct node *n)
{
    struct client *c = &n->client;
    if (c->opening_busy)
        return;
    struct node_op op = {
        .type = NODE_OP_SESSION, .node_id = n->directory.node_id, .nonce = c->nonce};
    buf_clear(&c->opening.op);
    node_op_encode(&op, &c->opening.op);
    c->opening.done = session_opened;
    c->opening.state = OP_QUEUED;
    c->opening.flags = c->opening.sends = 0;
    c->opening_busy = true;
    c->open_at_us = 0;
    client_pump(n);
}

int client_start(struct node *n)
{
    choose_nonce(&n->client);
    n->client.next_request = 1;
    client_open_session(n);
    return n->client.opening.op.failed ? -ENOMEM : 0;
}

void client_release(struct node *n)
{
    buf_release(&n->client.opening.op);
}

/* ---- Time, and callers that give up ------------------------------------------------ */

static bool may_interrupt(struct node *n, const struct client_op *op, uint64_t now_us)
{
    uint64_t since_us = n->client.no_quorum_since_us;
    return since_us && now_us - max_u64(since_us, op->arrived_us) > NODE_INTERRUPT_US;
}

/* K14: a signal that is merely caught must not make a mkdir fail. */
void client_interrupt(struct node *n, struct client_op *op, bool fatal)
{
    if (fatal || may_interrupt(n, op, node_now()))
        finish(n, op, -EINTR);
    else
        op->flags |= OP_INTERRUPTED;
}

static int verdict(struct node *n, const struct client_op *op, uint64_t now_us)
{
    if ((op->flags & OP_INTERRUPTED) && may_interrupt(n, op, now_us))
        return -EINTR;
    if (!(op->flags & OP_LOGGED_MAYBE) && n->client.no_quorum_since_us &&
        now_us - op->arrived_us > NODE_QUORUM_GRACE_US)
        return -EROFS;
    return 0;
}

static struct client_op *first_given_up(struct node *n, uint64_t now_us, int *ret_error)
{
    for (struct client_op *op = n->client.head; op; op = op->next)
        if ((*ret_error = verdict(n, op, now_us)) < 0)
            return op;
    return NULL;
}

void client_tick(struct node *n, uint64_t now_us)
{
    struct client *c = &n->client;
    note_quorum(n, now_us);
    if (!c->session && !c->opening_busy && now_us >= c->open_at_us)
        client_open_session(n);
    if (c->opening.state == OP_WAITING_TO_RESEND)
        c->opening.state = OP_QUEUED;
    int error;
    struct client_op *op;
    while ((op = first_given_up(n, now_us, &error)))
        finish(n, op, error);
    for (op = c->head; op; op = op->next)
        if (op->state == OP_WAITING_TO_RESEND)
            op->state = OP_QUEUED;
    client_pump(n);
}

void client_fail_all(struct node *n, int error)
{
    while (n->client.head)
        finish(n, n->client.head, error);
}
