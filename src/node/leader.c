/*
 * leader.c - operations come in, entries and answers go out.
 *
 * An operation is judged by its session (S2), evaluated in the order of its session (S3),
 * appended and proposed; its answer leaves when every reachable node has applied the
 * entry (but for who is left out as late: D27). An answer without an entry is a read: it
 * leaves once all it was evaluated against is committed in this term and leadership was
 * confirmed after the evaluation (S4). Nothing is evaluated before an entry of the own term
 * is applied (S1).
 */
#include "node_core.h"

#include <errno.h>

/* ---- Lists ------------------------------------------------------------------------- */

static void waiting_add(struct waiting_list *list, struct waiting *w)
{
    w->next = NULL;
    if (list->tail)
        list->tail->next = w;
    else
        list->head = w;
    list->tail = w;
}

static struct waiting *waiting_take(struct waiting_list *list)
{
    struct waiting *w = list->head;
    list->head = w->next;
    if (!list->head)
        list->tail = NULL;
    return w;
}

static void operation_add(struct operation **head, struct operation **tail,
                          struct operation *o)
{
    o->next = NULL;
    if (*tail)
        (*tail)->next = o;
    else
        *head = o;
    *tail = o;
}

static struct operation *operation_take(struct operation **head, struct operation **tail)
{
    struct operation *o = *head;
    *head = o->next;
    if (!*head)
        *tail = NULL;
    return o;
}

static void park(struct node *n, struct session *s, struct operation *o)
{
    s->parked_bytes += o->length;
    n->leader.parked_bytes += o->length;
    queue_note(n, QUEUE_PARKED, s->parked_bytes);
    operation_add(&s->parked_head, &s->parked_tail, o);
}

static struct operation *unpark(struct node *n, struct session *s)
{
    struct operation *o = operation_take(&s->parked_head, &s->parked_tail);
    s->parked_bytes -= o->length;
    n->leader.parked_bytes -= o->length;
    return o;
}

/* ---- Answers ----------------------------------------------------------------------- */

static void send_answer(struct node *n, struct wire_connection *to, bool internal,
                        const struct answer *a)
{
    if (internal)
        return;
    if (!to) {
        client_answer(n, a);
        return;
    }
    struct buf bytes = {0};
    answer_encode(a, &bytes);
    node_must(bytes.failed ? -ENOMEM : 0, "answering");
    wire_send_bytes(to, WIRE_ANSWER, a->stream, bytes.data, bytes.length);
    buf_release(&bytes);
}

static void refuse(struct node *n, struct operation *o, enum wire_status status)
{
    struct answer a = {
        .status = status, .request = o->head.request, .stream = o->head.stream};
    if (n->driver.raft && status != WIRE_EXPIRED)
        a.index = raft_term(n->driver.raft);
    send_answer(n, o->from, o->internal, &a);
    free(o);
}

static struct waiting *waiting_new(struct node *n, const struct operation *o)
{
    struct waiting *w = calloc(1, sizeof(*w));
    node_must(w ? 0 : -ENOMEM, "evaluating");
    queue_note(n, QUEUE_ANSWERS, ++n->leader.answers);
    w->to = o->from;
    w->internal = o->internal;
    w->session = o->head.session;
    w->answer.request = o->head.request;
    w->answer.stream = o->head.stream;
    return w;
}

static void waiting_free(struct node *n, struct waiting *w)
{
    n->leader.answers--;
    free(w);
}

/* The connection a list's answers were for is gone; its origin will ask again. */
static void forget_in(struct waiting_list *list, const struct wire_connection *c)
{
    for (struct waiting *w = list->head; w; w = w->next)
        if (w->to == c) {
            w->to = NULL;
            w->internal = true;
        }
}

static void forget_operations(struct operation *o, const struct wire_connection *c)
{
    for (; o; o = o->next)
        if (o->from == c) {
            o->from = NULL;
            o->internal = true;
        }
}

void leader_forget(struct node *n, struct wire_connection *c)
{
    forget_in(&n->leader.entries, c);
    forget_in(&n->leader.late, c);
    forget_in(&n->leader.reads, c);
    forget_operations(n->leader.gate_head, c);
    for (struct session *s = n->sessions; s; s = s->next)
        forget_operations(s->parked_head, c);
}

/* ---- Entries ----------------------------------------------------------------------- */

static uint64_t next_timestamp(struct node *n)
{
    uint64_t term, last;
    uint32_t crc;
    store_chain(n->store, &term, &crc, &last);
    return max_u64(clock_real_us(), last + 1);
}

/* Appends what was built; the core hears of it at the next flush. */
static struct store_bytes *append(struct node *n, struct store_builder *builder,
                                  const struct operation_head *head,
                                  const struct fs_result *result)
{
    struct store_entry entry = {
        .index = store_last_index(n->store) + 1,
        .term = raft_term(n->driver.raft),
        .commit = raft_commit(n->driver.raft),
        .session = head->session,
        .request = head->request,
    };
    uint64_t timestamp;
    store_chain(n->store, &entry.prev_term, &entry.prev_crc, &timestamp);
    fs_result_encode(result, entry.result);
    struct store_bytes *bytes;
    int ret = store_builder_finish(builder, &entry, &bytes);
    node_must(ret == -E2BIG ? 0 : ret, "appending");
    if (ret < 0)
        return NULL;
    node_must(store_append(n->store, bytes, true), "appending");
    queue_note(n, QUEUE_LOG, store_unwritten_bytes(n->store));
    return bytes;
}

static void propose_config(struct node *n, const struct members *members)
{
    members_to_raft(members, &n->leader.config);
    n->leader.proposed++;
    n->members = *members;
    driver_step(n, &(struct raft_event){
                       .type = RAFT_PROPOSE, .count = 1, .config = &n->leader.config});
    peers_refresh(n);
}

void leader_flush(struct node *n)
{
    struct leader *l = &n->leader;
    if (!node_is_leader(n))
        return;
    uint64_t last = store_last_index(n->store);
    if (l->proposed < last) {
        uint64_t count = last - l->proposed;
        l->proposed = last;
        driver_step(n, &(struct raft_event){.type = RAFT_PROPOSE, .count = count});
    }
    bool ask = false;
    for (struct waiting *w = l->reads.head; w && !ask; w = w->next)
        ask = w->round == 0;
    if (ask)
        driver_step(n, &(struct raft_event){.type = RAFT_READ});
}

static void append_operation(struct node *n, struct operation *o,
                             struct store_builder *builder, struct evaluation *e)
{
    struct operation_head head = o->head;
    if (o->bytes[0] == NODE_OP_SESSION) /* it opens one: see session.c */
        head.session = e->result.value;
    struct store_bytes *bytes = append(n, builder, &head, &e->result);
    struct waiting *w = waiting_new(n, o);
    if (!bytes) {
        w->answer.status = WIRE_FAILED;
        w->answer.error = EFBIG;
        w->answer.index = store_last_index(n->store);
        waiting_add(&n->leader.reads, w);
        driver_flush_soon(n);
        return;
    }
    w->answer.index = store_last_index(n->store);
    w->bytes = bytes->length;
    fs_result_encode(&e->result, w->answer.result);
    n->leader.inflight_bytes += w->bytes;
    queue_note(n, QUEUE_INFLIGHT, n->leader.inflight_bytes);
    waiting_add(&n->leader.entries, w);
    store_bytes_unref(bytes);
    if (e->config_changed)
        propose_config(n, &e->members);
    driver_flush_soon(n);
}

/* An errno, or nothing to do: S4. */
static void answer_read(struct node *n, struct operation *o, int error,
                        const struct fs_result *result)
{
    struct waiting *w = waiting_new(n, o);
    w->answer.status = error ? WIRE_FAILED : WIRE_OK;
    w->answer.error = -error;
    w->answer.index = store_last_index(n->store);
    fs_result_encode(result, w->answer.result);
    waiting_add(&n->leader.reads, w);
    driver_flush_soon(n);
}

/* ---- Evaluation, and what it waits for --------------------------------------------- */

static void open_gate(struct node *n);

bool leader_is_open(const struct node *n)
{
    return raft_established(n->driver.raft) && n->leader.noop_index > 0 &&
           store_applied(n->store) >= n->leader.noop_index && /* S1 */
           store_is_ready(n->store) &&                        /* G7 */
           n->leader.inflight_bytes < LIMIT_INFLIGHT_BYTES &&
           !raft_transferring(n->driver.raft) && !n->leader.evaluating;
}

struct page_task {
    struct pager_task task;
    struct node *node;
    uint64_t session; /* 0: an operation of none, which is asked again */
    struct fs_key key;
};

static void page_in(struct pager_task *task)
{
    struct page_task *t = container_of(task, struct page_task, task);
    struct buf value = {0};
    /* An error shows again when the operation is evaluated anew. */
    store_get(t->node->store, t->key.bytes, t->key.size, 0, &value, NULL);
    buf_release(&value);
}

static void paged_in(struct pager_task *task)
{
    struct page_task *t = container_of(task, struct page_task, task);
    struct session *s = session_find(t->node, t->session);
    if (s)
        s->paging = false;
    if (node_is_leader(t->node))
        open_gate(t->node);
    free(t);
}

static void ask_for_page(struct node *n, uint64_t session)
{
    struct page_task *t = calloc(1, sizeof(*t));
    node_must(t ? 0 : -ENOMEM, "evaluating");
    t->task.work = page_in;
    t->task.done = paged_in;
    t->node = n;
    t->session = session;
    t->key = n->missed;
    pager_submit(n, &t->task);
}

static bool changes_members(const struct operation *o)
{
    return o->bytes[0] == NODE_OP_JOIN || o->bytes[0] == NODE_OP_PROMOTE ||
           o->bytes[0] == NODE_OP_REMOVE || o->bytes[0] == NODE_OP_REPORT ||
           o->bytes[0] == NODE_OP_VERSION;
}

/* A RECLAIM that was evaluated: whether there may be more to do. */
static void note_reclaimed(struct node *n, const struct operation *o, bool entry,
                           const struct fs_result *result)
{
    struct fs_op op;
    ensure(fs_op_decode(o->bytes, o->length, &op) == 0);
    if (op.inode)
        n->leader.orphans_from = result->more;
    else if (!entry)
        n->leader.reclaim = false;
}

static void conclude(struct node *n, struct operation *o, int error,
                     struct store_builder *builder, struct evaluation *e)
{
    bool entry = builder->record_count > 0 || o->bytes[0] == FS_RESERVE;
    if (error == 0 && entry)
        append_operation(n, o, builder, e);
    else if (!o->internal)
        answer_read(n, o, error, &e->result);
    if (error == 0 && o->bytes[0] == FS_RECLAIM)
        note_reclaimed(n, o, entry, &e->result);
    free(o);
}

/* What it needs is damaged on this disk. True: it is evaluated again when it was
 * repaired; who belongs to no session asks again. */
static bool await_repair(struct node *n, const struct operation *o, int *ret)
{
    struct session *s = session_find(n, o->head.session);
    uint64_t now_us = node_now();
    if (s && s->damaged_until_us == 0)
        s->damaged_until_us = now_us + n->gate.patience_us;
    bool wait = s ? now_us < s->damaged_until_us : o->internal;
    if (!wait && s)
        s->damaged_until_us = 0;
    *ret = wait ? -EBADMSG : -EIO;
    return wait;
}

/* Its entry may have been committed by the very member that is to go, and the others not
 * have been heard yet. */
static bool is_too_early(const struct node *n, int error)
{
    return error == -MEMBERS_NO_MAJORITY &&
           node_now() - n->leader.since_us < NODE_NEW_LEADER_US;
}

/* It leaves no trace: a TRANSFER is answered at once, what else needs it (this node is to
 * be removed) is asked of the next leader. */
static void hand_over(struct node *n, struct operation *o, const struct evaluation *e)
{
    if (o->bytes[0] == NODE_OP_TRANSFER) {
        struct answer a = {
            .status = WIRE_OK, .request = o->head.request, .stream = o->head.stream};
        send_answer(n, o->from, o->internal, &a);
        free(o);
    } else {
        refuse(n, o, WIRE_NOT_LEADER);
    }
    driver_step(n, &(struct raft_event){.type = RAFT_TRANSFER, .peer = e->heir});
}

/* 0: done with (the operation is gone); else to be evaluated again: -EAGAIN when
 * n->missed was read in, -EBUSY after a membership change, -EBADMSG after a repair. What
 * it steps and answers may bring more operations: `evaluating` keeps them at the gate
 * until it is done, for they would be appended before it, or overtake it. */
static int execute(struct node *n, struct operation *o)
{
    struct store_builder builder = {0};
    ensure(!n->leader.evaluating);
    n->leader.evaluating = true;
    if (changes_members(o))
        leader_flush(n); /* it is proposed alone */
    struct evaluation e = {.builder = &builder, .timestamp_us = next_timestamp(n)};
    int ret = store_has_room(n->store, LIMIT_ENTRY_BYTES);
    if (ret == 0)
        ret = evaluate(n, o->head.session, o->bytes, o->length, &e);
    bool again = ret == -EAGAIN || ret == -EBUSY;
    if (ret == -EBADMSG)
        again = await_repair(n, o, &ret);
    if (ret == -EVALUATE_HAND_OVER)
        hand_over(n, o, &e);
    else if (is_too_early(n, ret))
        refuse(n, o, WIRE_NOT_LEADER); /* it is asked again in a moment */
    else if (!again)
        conclude(n, o, ret, &builder, &e);
    store_builder_release(&builder);
    n->leader.evaluating = false;
    return again ? ret : 0;
}

/* An operation that was answered before, or is in flight: its answer goes to who asks
 * now. */
static bool is_in_flight(struct node *n, struct operation *o)
{
    for (struct waiting *w = n->leader.entries.head; w; w = w->next)
        if (w->session == o->head.session && w->answer.request == o->head.request) {
            w->to = o->from;
            w->answer.stream = o->head.stream;
            w->internal = false;
            return true;
        }
    return false;
}

static void answer_late(struct node *n, struct operation *o,
                        const struct window_slot *slot)
{
    struct waiting *w = waiting_new(n, o);
    w->answer.status = WIRE_OK;
    w->answer.index = slot->index;
    memcpy(w->answer.result, slot->result, sizeof(w->answer.result));
    waiting_add(&n->leader.late, w);
}

/* An entry on its way ends the session: like any answer without an entry of its own, this
 * one rests on what may be lost yet (S4). */
static void answer_over(struct node *n, struct operation *o)
{
    struct waiting *w = waiting_new(n, o);
    w->answer.status = WIRE_EXPIRED;
    w->answer.index = store_last_index(n->store);
    waiting_add(&n->leader.reads, w);
    free(o);
    driver_flush_soon(n);
}

/* True: it goes on to be evaluated. */
static bool judge(struct node *n, struct session *s, struct operation *o)
{
    const struct window_slot *slot;
    s->lowest = max_u64(s->lowest, o->head.lowest);
    if (!evaluate_is_session_open(n, s->number)) {
        answer_over(n, o);
        return false;
    }
    switch (session_judge(s, o->head.request, &slot)) {
    case SESSION_EXPIRED:
        refuse(n, o, WIRE_EXPIRED);
        return false;
    case SESSION_ANSWERED:
        answer_late(n, o, slot);
        free(o);
        driver_flush_soon(n);
        return false;
    case SESSION_NEW:
        break;
    }
    if (!is_in_flight(n, o))
        return true;
    free(o);
    return false;
}

static void park_again(struct node *n, struct session *s, struct operation *o, int why)
{
    o->next = s->parked_head;
    s->parked_head = o;
    if (!s->parked_tail)
        s->parked_tail = o;
    s->parked_bytes += o->length;
    n->leader.parked_bytes += o->length;
    s->paging = why == -EAGAIN;
    s->config = why == -EBUSY;
    s->damaged = why == -EBADMSG;
    if (s->paging)
        ask_for_page(n, s->number);
}

static bool is_runnable(const struct session *s)
{
    return s->parked_head && !s->paging && !s->config && !s->damaged;
}

/* The operations of one session, in order; one that must wait keeps back those behind it.
 */
static void run_session(struct node *n, struct session *s)
{
    uint64_t number = s->number;
    while (s && is_runnable(s) && leader_is_open(n)) {
        struct operation *o = unpark(n, s);
        if (!judge(n, s, o))
            continue;
        int ret = execute(n, o);
        s = session_find(n, number); /* what was applied meanwhile may have ended it */
        if (s && ret != -EBADMSG)
            s->damaged_until_us = 0;
        if (ret == 0)
            continue;
        if (!s) {
            refuse(n, o, WIRE_EXPIRED);
            return;
        }
        park_again(n, s, o, ret);
    }
}

/* It is asked again in a moment. Until then those of its session that follow are turned
 * away as well: they would overtake it (S3). */
static void turn_away(struct node *n, struct operation *o, enum wire_status status)
{
    struct session *s = session_find(n, o->head.session);
    if (s && (!s->refused || o->head.request < s->refused))
        s->refused = o->head.request;
    refuse(n, o, status);
}

static bool overtakes(struct session *s, const struct operation *o)
{
    if (!s || !s->refused)
        return false;
    if (o->head.request == s->refused || o->head.lowest > s->refused)
        s->refused = 0; /* it is back, or its origin has given it up */
    return s->refused && o->head.request > s->refused;
}

/* Of no session: it opens one, or is the leader's own. It is asked again. */
static void run_alone(struct node *n, struct operation *o)
{
    int ret = execute(n, o);
    if (ret == 0)
        return;
    if (ret == -EAGAIN)
        ask_for_page(n, 0);
    if (o->internal)
        free(o);
    else
        refuse(n, o, WIRE_NOT_LEADER);
}

/* On a connection that its origin has given up: it was sent again since, on another, and
 * what that was answered without an entry nobody knows any more (S2). This is asked of what
 * comes before it may be turned away: one that is turned away on the new connection makes
 * the old one's copies void too, and those do not pass for a request that is back (S3). It
 * is asked again of what leaves the gate, though nobody may wait for it any more. */
static bool is_of_the_past(struct session *s, const struct operation *o)
{
    if (!o->from && !o->internal)
        return false; /* this node's own: nothing delays it */
    if (s->heard && (int16_t)(o->head.stream - s->sending) < 0)
        return true;
    s->heard = true;
    s->sending = o->head.stream;
    return false;
}

static void run_operation(struct node *n, struct operation *o)
{
    if (o->head.session == 0) {
        run_alone(n, o);
        return;
    }
    struct session *s = session_find(n, o->head.session);
    if (!s) {
        refuse(n, o, WIRE_EXPIRED);
        return;
    }
    if (is_of_the_past(s, o)) {
        refuse(n, o, WIRE_NOT_LEADER);
        return;
    }
    if (overtakes(s, o) ||
        (s->parked_head && s->parked_bytes + o->length > LIMIT_PARKED_BYTES)) {
        queue_wait(n, QUEUE_PARKED);
        turn_away(n, o, WIRE_NOT_LEADER);
        return;
    }
    park(n, s, o);
    run_session(n, s);
}

void leader_session_over(struct node *n, struct session *s)
{
    while (s->parked_head)
        refuse(n, unpark(n, s), WIRE_EXPIRED);
}

/* ---- The gate ---------------------------------------------------------------------- */

static struct session *first_runnable(struct node *n)
{
    for (struct session *s = n->sessions; s; s = s->next)
        if (is_runnable(s))
            return s;
    return NULL;
}

static void open_gate(struct node *n)
{
    struct leader *l = &n->leader;
    struct session *s;
    /* What is parked came before what is at the gate. */
    while (leader_is_open(n) && (s = first_runnable(n)))
        run_session(n, s);
    while (l->gate_head && leader_is_open(n)) {
        struct operation *o = operation_take(&l->gate_head, &l->gate_tail);
        l->gate_bytes -= o->length;
        run_operation(n, o);
    }
}

static void take(struct node *n, struct operation *o)
{
    struct leader *l = &n->leader;
    eligible_watch_clock(n);
    if (!node_is_leader(n) || n->clock_wild) {
        refuse(n, o, WIRE_NOT_LEADER);
        return;
    }
    struct session *s = session_find(n, o->head.session);
    if (s && is_of_the_past(s, o)) {
        refuse(n, o, WIRE_NOT_LEADER);
        return;
    }
    if (raft_transferring(n->driver.raft) || overtakes(s, o) ||
        l->gate_bytes + o->length > LIMIT_INFLIGHT_BYTES) {
        queue_wait(n, QUEUE_GATE);
        turn_away(n, o, WIRE_NOT_LEADER);
        return;
    }
    if (!node_has_quorum(n)) {
        turn_away(n, o, WIRE_NO_QUORUM);
        return;
    }
    if (!l->gate_head && leader_is_open(n)) {
        run_operation(n, o);
        return;
    }
    l->gate_bytes += o->length;
    queue_note(n, QUEUE_GATE, l->gate_bytes);
    if (l->inflight_bytes >= LIMIT_INFLIGHT_BYTES)
        queue_wait(n, QUEUE_INFLIGHT);
    operation_add(&l->gate_head, &l->gate_tail, o);
    open_gate(n);
}

static struct operation *operation_new(struct wire_connection *from,
                                       const struct operation_head *head, const void *op,
                                       size_t length)
{
    struct operation *o = malloc(sizeof(*o) + length);
    node_must(o ? 0 : -ENOMEM, "taking an operation");
    *o = (struct operation){.from = from, .head = *head, .length = length};
    memcpy(o->bytes, op, length);
    return o;
}

static bool is_leaders_own(uint8_t type)
{
    return type == FS_RECLAIM || type == NODE_OP_PROMOTE || type == NODE_OP_VERSION ||
           type == NODE_OP_ADVANCE_CA || type == NODE_OP_END_SESSION;
}

void leader_operation(struct node *n, struct wire_connection *from,
                      const struct wire_frame *f)
{
    struct operation_head head;
    const uint8_t *op;
    size_t op_length;
    if (operation_decode(f->value, f->length, &head, &op, &op_length) < 0 ||
        (head.session == 0 && op[0] != NODE_OP_SESSION) || is_leaders_own(op[0])) {
        wire_refuse(from, "a malformed operation");
        return;
    }
    head.stream = f->stream;
    struct operation *o = operation_new(from, &head, op, op_length);
    if (n->driver.raft && head.term == raft_term(n->driver.raft))
        take(n, o);
    else
        refuse(n, o, WIRE_NOT_LEADER); /* S2: another leader may have judged it since */
}

void leader_own_operation(struct node *n, const struct operation_head *head,
                          const void *op, size_t length)
{
    take(n, operation_new(NULL, head, op, length));
}

void leader_run_internal(struct node *n, const struct buf *op)
{
    struct operation *o =
        operation_new(NULL, &(struct operation_head){0}, op->data, op->length);
    o->internal = true;
    run_alone(n, o);
}

/* ---- Terms of office --------------------------------------------------------------- */

static void leader_enter(struct node *n)
{
    struct store_builder builder = {0};
    store_builder_begin(&builder, next_timestamp(n));
    struct store_bytes *bytes =
        append(n, &builder, &(struct operation_head){0}, &(struct fs_result){0});
    ensure(bytes);
    store_bytes_unref(bytes);
    store_builder_release(&builder);
    n->leader.noop_index = store_last_index(n->store);
    n->leader.inflight_bytes = 0;
    n->leader.reclaim = true;
    n->leader.orphans_from = FS_ROOT_INODE; /* a former leader may not have got to it */
    contact_begin(n);
    leader_flush(n);
}

/* Appends the entry of its own term (S1), which has a timestamp, too. Without room for it,
 * or with a wild clock (G2), this node hands over, or, where nobody takes over, tries
 * again with the tick: until then the gate stays shut. */
void leader_begin(struct node *n)
{
    n->leader.since_us = node_now();
    n->leader.noop_index = 0;
    n->leader.proposed = store_last_index(n->store);
    eligible_watch_clock(n);
    if (store_has_room(n->store, STORE_ENTRY_HEADER) != 0)
        eligible_judge(n);
    else if (!n->clock_wild)
        leader_enter(n);
}

/* What was evaluated may be in the log, or not: only a later leader can say. Their
 * origins ask it when they hear of it. */
static void drop_all(struct node *n, struct waiting_list *list)
{
    while (list->head)
        waiting_free(n, waiting_take(list));
}

void leader_end(struct node *n)
{
    struct leader *l = &n->leader;
    drop_all(n, &l->entries);
    drop_all(n, &l->late);
    drop_all(n, &l->reads);
    while (l->gate_head)
        refuse(n, operation_take(&l->gate_head, &l->gate_tail), WIRE_NOT_LEADER);
    for (struct session *s = n->sessions; s; s = s->next) {
        while (s->parked_head)
            refuse(n, unpark(n, s), WIRE_NOT_LEADER);
        s->paging = s->config = s->damaged = false;
        s->damaged_until_us = 0;
        s->lowest = s->refused = 0;
        s->heard = false;
    }
    l->noop_index = 0;
    l->inflight_bytes = l->gate_bytes = 0;
    ensure(l->parked_bytes == 0);
}

/* ---- When time or the log has moved on --------------------------------------------- */

/* One operation sees to one content. What is written makes work for it, so it goes on with
 * what is applied, not only with the ticks: else garbage would grow under many writers. */
static void reclaim(struct node *n, int most)
{
    struct buf op = {0};
    fs_op_encode(&(struct fs_op){.type = FS_RECLAIM}, &op);
    for (int i = 0; i < most && n->leader.reclaim && leader_is_open(n); i++)
        leader_run_internal(n, &op);
    buf_release(&op);
}

/* What only sessions hold that have died. One that goes no further waits for the disk. */
static void reclaim_orphans(struct node *n, int most)
{
    uint64_t from = 0;
    for (int i = 0; i < most && n->leader.orphans_from != from && leader_is_open(n); i++) {
        struct buf op = {0};
        from = n->leader.orphans_from;
        if (from)
            fs_op_encode(&(struct fs_op){.type = FS_RECLAIM, .inode = from}, &op);
        if (from)
            leader_run_internal(n, &op);
        buf_release(&op);
    }
}

void leader_applied(struct node *n)
{
    if (!node_is_leader(n))
        return;
    for (struct session *s = n->sessions; s; s = s->next)
        s->config = s->config && raft_config_is_pending(n->driver.raft);
    reclaim(n, NODE_RECLAIMS_APPLIED);
    reclaim_orphans(n, 1);
    open_gate(n);
}

void leader_repaired(struct node *n, bool hope)
{
    for (struct session *s = n->sessions; s; s = s->next) {
        if (s->damaged && !hope)
            s->damaged_until_us = 1; /* long ago: evaluated again, it fails */
        s->damaged = false;
    }
    if (node_is_leader(n))
        open_gate(n);
}

/* No repair came in time: the operation is told so when it is evaluated again. */
static void end_patience(struct node *n)
{
    uint64_t now_us = node_now();
    for (struct session *s = n->sessions; s; s = s->next)
        if (s->damaged && now_us >= s->damaged_until_us)
            s->damaged = false;
}

static void release_entries(struct node *n, uint64_t visible)
{
    struct waiting_list *list = &n->leader.entries;
    while (list->head && list->head->answer.index <= visible) {
        struct waiting *w = waiting_take(list);
        n->leader.inflight_bytes -= w->bytes;
        send_answer(n, w->to, w->internal, &w->answer);
        waiting_free(n, w);
    }
}

/* Late answers are few: they are looked through. */
static void release_late(struct node *n, uint64_t visible)
{
    struct waiting_list kept = {0};
    while (n->leader.late.head) {
        struct waiting *w = waiting_take(&n->leader.late);
        if (w->answer.index > visible) {
            waiting_add(&kept, w);
            continue;
        }
        send_answer(n, w->to, w->internal, &w->answer);
        waiting_free(n, w);
    }
    n->leader.late = kept;
}

static void release_reads(struct node *n, uint64_t visible, uint64_t confirmed_round)
{
    struct waiting_list *list = &n->leader.reads;
    while (list->head && list->head->round != 0 && list->head->round <= confirmed_round &&
           list->head->answer.index <= visible) {
        struct waiting *w = waiting_take(list);
        if (w->answer.status == WIRE_EXPIRED)
            w->answer.index = 0; /* it was for the order alone */
        send_answer(n, w->to, w->internal, &w->answer);
        waiting_free(n, w);
    }
}

void leader_release(struct node *n)
{
    if (!node_is_leader(n))
        return;
    release_entries(n, n->driver.visible);
    release_late(n, n->driver.visible);
    release_reads(n, n->driver.visible, n->driver.confirmed_round);
    open_gate(n);
}

void leader_round_asked(struct node *n, uint64_t round)
{
    for (struct waiting *w = n->leader.reads.head; w; w = w->next)
        if (w->round == 0)
            w->round = round;
}

/* Learners that have caught up become voters, one at a time. */
static void promote(struct node *n)
{
    for (uint32_t i = 0; i < n->members.count; i++) {
        const struct member *m = &n->members.list[i];
        struct raft_peer_status status;
        if (m->voter || m->observer || m->id == n->directory.node_id ||
            !raft_peer_status(n->driver.raft, m->id, node_now(), &status) ||
            !status.reachable || status.match == 0 /* nothing was heard of it yet */ ||
            status.match + NODE_PROMOTE_LAG < store_last_index(n->store))
            continue;
        struct buf op = {0};
        node_op_encode(&(struct node_op){.type = NODE_OP_PROMOTE, .node_id = m->id}, &op);
        log_info("node %s has caught up: it becomes a voter", m->name);
        leader_run_internal(n, &op);
        buf_release(&op);
        return;
    }
}

void leader_tick(struct node *n)
{
    if (node_is_leader(n))
        eligible_watch_clock(n);
    if (node_is_leader(n) && n->leader.noop_index == 0 &&
        !raft_transferring(n->driver.raft))
        leader_begin(n);
    if (!node_is_leader(n) || !leader_is_open(n) || !node_has_quorum(n))
        return;
    end_patience(n);
    contact_tick(n, node_now());
    if (!raft_config_is_pending(n->driver.raft))
        promote(n);
    leader_advance_ca(n);
    if (!raft_config_is_pending(n->driver.raft))
        upgrade_raise(n);
    reclaim(n, NODE_RECLAIMS_TICK);
    reclaim_orphans(n, NODE_RECLAIMS_TICK);
    open_gate(n);
}
