/*
 * control.c - the control socket's requests: their life, and the commands on the node itself.
 *
 *   frame --> control_begin --> [pager] [operation committed] ... --> one answer, freed
 *
 * Each stage holds the control_request; where its connection is closed meanwhile, the
 * stages run on (an operation on its way is not called back) and the answer is dropped.
 */
#include "control.h"

#include <errno.h>

/* Of this process; on the loop. A list, as there are few at a time. */
static struct control_request *requests;

static struct control_request *find_request(const struct wire_connection *c)
{
    struct control_request *r = requests;
    while (r && r->connection != c)
        r = r->next;
    return r;
}

struct control_request *control_begin(struct node *n, struct wire_connection *c,
                                      const struct wire_frame *f, uint8_t answer_type)
{
    if (find_request(c)) {
        wire_refuse(c, "a request before the former one was answered");
        return NULL;
    }
    struct control_request *r = calloc(1, sizeof(*r));
    if (!r) {
        wire_refuse(c, "out of memory");
        return NULL;
    }
    r->node = n;
    r->connection = c;
    r->stream = f->stream;
    r->answer_type = answer_type;
    r->next = requests;
    if (requests)
        requests->previous = r;
    requests = r;
    return r;
}

static void end_request(struct control_request *r)
{
    if (r->previous)
        r->previous->next = r->next;
    else
        requests = r->next;
    if (r->next)
        r->next->previous = r->previous;
    if (r->release_state)
        r->release_state(r->state);
    buf_release(&r->op.op);
    free(r);
}

static void send_answer(struct control_request *r, enum wire_status status,
                        const void *value, size_t length)
{
    struct wire_connection *c = r->connection;
    uint8_t first = (uint8_t)status;
    if (c) {
        const struct wire_part parts[] = {{.data = &first, .length = 1},
                                          {.data = value, .length = length}};
        /* Of a queue that is full nothing is to be done: the client sends no more until
         * it has read this. */
        wire_send(c, r->answer_type, r->stream, parts, length ? 2 : 1);
        if (r->answer_type == WIRE_JOIN_ANSWER)
            wire_close_after_sending(c);
    }
    end_request(r);
}

void control_answer(struct control_request *r, const void *value, size_t length)
{
    send_answer(r, WIRE_OK, value, length);
}

static void send_text(struct control_request *r, enum wire_status status, int error,
                      const char *text)
{
    struct buf to = {0};
    if (status == WIRE_FAILED)
        buf_u32(&to, (uint32_t)error);
    buf_cstring(&to, text);
    send_answer(r, status, to.failed ? NULL : to.data, to.failed ? 0 : to.length);
    buf_release(&to);
}

void control_answer_error(struct control_request *r, int error, const char *text)
{
    ensure(error < 0);
    if (error == -EROFS)
        send_text(
            r, WIRE_NO_QUORUM, 0,
            "no majority of the cluster is reachable: changes are refused until one "
            "is; see `tierce status`");
    else
        send_text(r, WIRE_FAILED, -error, text);
}

void control_refuse(struct control_request *r, const char *why)
{
    send_text(r, WIRE_REFUSED, 0, why);
}

void control_malformed(struct control_request *r)
{
    if (r->connection)
        wire_refuse(r->connection, "a malformed request");
    end_request(r);
}

void control_closed(struct node *n, struct wire_connection *c)
{
    struct control_request *r = find_request(c);
    if (r)
        r->connection = NULL;
    control_backup_closed(c);
}

/* ---- Commands on the node itself ------------------------------------------------- */

static void control_status(struct control_request *r, struct reader *frame)
{
    if (!reader_done(frame)) {
        control_malformed(r);
        return;
    }
    struct node_status *status = calloc(1, sizeof(*status));
    struct buf to = {0};
    if (status) {
        node_fill_status(r->node, status);
        node_status_encode(status, &to);
    }
    if (!status || to.failed)
        control_answer_error(r, -ENOMEM, "");
    else
        control_answer(r, to.data, to.length);
    buf_release(&to);
    free(status);
}

static void control_metrics(struct control_request *r, struct reader *frame)
{
    if (!reader_done(frame)) {
        control_malformed(r);
        return;
    }
    struct buf to = {0};
    metrics_write(r->node, &to);
    if (to.failed)
        control_answer_error(r, -ENOMEM, "");
    else
        control_answer(r, to.data, to.length);
    buf_release(&to);
}

static void release_text(void *state)
{
    free(state);
}

static void invite_committed(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    const char *text = r->state;
    if (op->error)
        control_answer_error(r, op->error, "");
    else
        control_answer(r, text, strlen(text));
}

static int submit_invite(struct control_request *r, uint64_t ttl_s)
{
    struct node_op op = {.type = NODE_OP_INVITE};
    struct token token;
    int result = token_make_here(r->node, ttl_s, &token, &op.record);
    if (result)
        return result;
    r->state = token_format(&token);
    r->release_state = release_text;
    op.token_id = token.id;
    node_op_encode(&op, &r->op.op);
    if (!r->state || r->op.op.failed)
        return -ENOMEM;
    r->op.done = invite_committed;
    client_submit(r->node, &r->op);
    return 0;
}

static void control_invite(struct control_request *r, struct reader *frame)
{
    uint64_t ttl_s = reader_u64(frame);
    if (!reader_done(frame) || !ttl_s || ttl_s > TOKEN_LIFETIME_MAX_S) {
        control_malformed(r);
        return;
    }
    int result = submit_invite(r, ttl_s);
    if (result)
        control_answer_error(r, result, "cannot make a token");
}

void control_answer_busy(struct control_request *r)
{
    struct node_status *status = calloc(1, sizeof(*status));
    char text[NODE_ERROR_BYTES] = "";
    if (status) {
        node_fill_status(r->node, status);
        node_error(
            text, 0,
            "files under %.400s are open, or a process works there: end those first "
            "(see: fuser -vm %.400s)",
            status->mountpoint, status->mountpoint);
    }
    free(status);
    control_answer_error(r, -EBUSY, text);
}

static void stop_answer(void *context, int error)
{
    struct control_request *r = context;
    if (error == -EBUSY)
        control_answer_busy(r);
    else if (error)
        control_answer_error(r, error, "");
    else
        control_answer(r, NULL, 0);
}

static void control_stop(struct control_request *r, struct reader *frame)
{
    if (reader_done(frame))
        node_stop(r->node, false, stop_answer, r);
    else
        control_malformed(r);
}

static void (*const commands[])(struct control_request *r, struct reader *frame) = {
    [CONTROL_STATUS] = control_status, [CONTROL_INVITE] = control_invite,
    [CONTROL_STOP] = control_stop,     [CONTROL_GET] = control_get,
    [CONTROL_PUT] = control_put,       [CONTROL_DEL] = control_del,
    [CONTROL_LIST] = control_list,     [CONTROL_BACKUP] = control_backup,
    [CONTROL_BACKUP_RECORDS] = control_backup_records,
    [CONTROL_BACKUP_ENTRIES] = control_backup_entries,
    [CONTROL_ROTATE_CA] = control_rotate_ca,
    [CONTROL_REMOVE] = control_remove,
    [CONTROL_TRANSFER] = control_transfer,
    [CONTROL_LEAVE] = control_leave,
    [CONTROL_METRICS] = control_metrics,
    [CONTROL_LOCKS] = control_locks,
};

void control_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f)
{
    struct control_request *r = control_begin(n, c, f, WIRE_CONTROL_ANSWER);
    if (!r)
        return;
    struct reader frame = reader_of(f->value, f->length);
    uint8_t command = reader_u8(&frame);
    if (command < array_length(commands) && commands[command])
        commands[command](r, &frame);
    else
        control_refuse(r, "the node does not know this request: it is older than this "
                          "tierce; restart it");
}

void control_tick(struct node *n)
{
    struct control_request *next;
    for (struct control_request *r = requests; r; r = next) {
        next = r->next;
        if (r->node == n && control_awaits_transfer(r))
            control_transfer_tick(r);
    }
}
