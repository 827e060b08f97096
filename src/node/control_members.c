/*
 * control_members.c - REMOVE, LEAVE and TRANSFER: who belongs to the cluster, who leads it.
 *
 *   REMOVE    name -> NODE_OP_REMOVE, committed --> answer
 *   LEAVE     NODE_OP_REMOVE that only asks --> node_leave(), the answer when it ends
 *   TRANSFER  NODE_OP_TRANSFER, begun --> another leads (control_tick) --> answer
 */
#include "control.h"

#include <errno.h>

/* ---- Why not ----------------------------------------------------------------------- */

/* `name`: whom the change is about; `lacking`: a node's id, or 0. */
void control_members_why(struct node *n, int error, const char *name, uint64_t lacking,
                         char text[NODE_ERROR_BYTES])
{
    const struct member *m = lacking ? members_find(node_members(n), lacking) : NULL;
    const char *who = m ? m->name : "another voter";
    text[0] = 0;
    switch (-error) {
    case ENOENT:
        node_error(text, 0, "no member is called \"%.255s\"; see `tierce members`", name);
        break;
    case MEMBERS_LAST_VOTER:
        node_error(text, 0,
                   "%.255s is the last voter: without it nothing is left of the cluster, "
                   "which ends with `tierce stop` on its last node",
                   name);
        break;
    case MEMBERS_NO_MAJORITY:
        node_error(text, 0,
                   "without %.255s a majority of the voters would be lost, as %.255s "
                   "cannot be reached or is far behind: start that one again, or remove "
                   "or replace it first",
                   name, who);
        break;
    case MEMBERS_NO_VOTER:
        node_error(text, 0, "%.255s does not vote, so it cannot lead", name);
        break;
    case MEMBERS_NO_HEIR:
        node_error(text, 0,
                   name[0] ? "%.255s cannot be reached by the leader"
                           : "no other voter can be reached by the leader",
                   name);
        break;
    }
}

struct change { /* of a request */
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t from;    /* TRANSFER: who led */
    uint64_t node_id; /* ... and who shall; 0: the best */
    uint64_t until_us;
};

static void release_change(void *state)
{
    free(state);
}

static struct change *change_of(struct control_request *r)
{
    struct change *c = calloc(1, sizeof(*c));
    if (!c) {
        control_answer_error(r, -ENOMEM, "the node has no memory left");
        return NULL;
    }
    r->state = c;
    r->release_state = release_change;
    return c;
}

static void refuse_change(struct control_request *r, int error)
{
    const struct change *c = r->state;
    char text[NODE_ERROR_BYTES];
    struct fs_result result = {0};
    fs_result_decode(r->op.result, &result);
    control_members_why(r->node, error, c->name, result.value, text);
    control_answer_error(r, error, text);
}

static void submit(struct control_request *r, const struct node_op *op,
                   void (*done)(struct client_op *op))
{
    node_op_encode(op, &r->op.op);
    if (r->op.op.failed) {
        control_answer_error(r, -ENOMEM, "the node has no memory left");
        return;
    }
    r->op.session = 0; /* not in that of the step before, which may be over */
    r->op.done = done;
    client_submit(r->node, &r->op);
}

/* The name of the request, and whose it is. False: it has been answered. */
static bool read_name(struct control_request *r, struct reader *frame, bool may_be_empty)
{
    struct change *c = change_of(r);
    if (!c)
        return false;
    reader_cstring(frame, c->name, sizeof(c->name));
    if (!reader_done(frame)) {
        control_malformed(r);
        return false;
    }
    if (may_be_empty && !c->name[0])
        return true;
    const struct member *m = members_find_name(node_members(r->node), c->name);
    if (!m) {
        refuse_change(r, -ENOENT);
        return false;
    }
    c->node_id = m->id;
    return true;
}

/* ---- REMOVE and LEAVE -------------------------------------------------------------- */

static void removed(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    if (op->error)
        refuse_change(r, op->error);
    else
        control_answer(r, NULL, 0);
}

void control_remove(struct control_request *r, struct reader *frame)
{
    if (!read_name(r, frame, false))
        return;
    const struct change *c = r->state;
    if (c->node_id == node_directory(r->node)->node_id) {
        control_refuse(r, "that is this very node: use `tierce leave`");
        return;
    }
    submit(r, &(struct node_op){.type = NODE_OP_REMOVE, .node_id = c->node_id}, removed);
}

static void left(void *context, int error)
{
    struct control_request *r = context;
    const struct directory *d = node_directory(r->node);
    char text[NODE_ERROR_BYTES];
    if (error == -EBUSY) {
        control_answer_busy(r);
    } else if (error == -EAGAIN) {
        control_answer_error(r, error, "the node is starting or stopping: try again");
    } else if (error) {
        node_error(
            text, 0,
            "it was not seen to be removed (%s) and has stopped: see whether `tierce "
            "members` on another node still shows %.255s, and if so start it again, "
            "or run `tierce remove` there",
            strerror(-error), d->name);
        control_answer_error(r, error == -EROFS ? -ETIMEDOUT : error, text);
    } else {
        control_answer(r, NULL, 0);
    }
}

static void may_leave(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    if (op->error)
        refuse_change(r, op->error);
    else
        node_leave(r->node, left, r);
}

void control_leave(struct control_request *r, struct reader *frame)
{
    const struct directory *d = node_directory(r->node);
    if (!reader_done(frame)) {
        control_malformed(r);
        return;
    }
    struct change *c = change_of(r);
    if (!c)
        return;
    strcpy(c->name, d->name);
    submit(r,
           &(struct node_op){.type = NODE_OP_REMOVE, .node_id = d->node_id, .ask = true},
           may_leave);
}

/* ---- TRANSFER ------------------------------------------------------------------------ */

static void answer_leader(struct control_request *r, uint64_t leader)
{
    const struct member *m = members_find(node_members(r->node), leader);
    const char *name = m ? m->name : "another node";
    control_answer(r, name, strlen(name));
}

void control_transfer_tick(struct control_request *r)
{
    struct change *c = r->state;
    uint64_t leader = node_leader(r->node);
    if (leader && (c->node_id ? leader == c->node_id : leader != c->from)) {
        answer_leader(r, leader);
    } else if (clock_boot_us() >= c->until_us) {
        const struct member *m = members_find(node_members(r->node), leader);
        char text[NODE_ERROR_BYTES];
        node_error(text, 0, "nobody took over in time: %.255s leads",
                   m ? m->name : "nobody");
        control_answer_error(r, -ETIMEDOUT, text);
    }
}

static void begun(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    struct change *c = r->state;
    if (op->error) {
        refuse_change(r, op->error);
        return;
    }
    c->until_us = clock_boot_us() + CONTROL_TRANSFER_US;
    control_transfer_tick(r);
}

bool control_awaits_transfer(const struct control_request *r)
{
    const struct change *c = r->op.done == begun ? r->state : NULL;
    return c && c->until_us;
}

void control_transfer(struct control_request *r, struct reader *frame)
{
    if (!read_name(r, frame, true))
        return;
    struct change *c = r->state;
    c->from = node_leader(r->node);
    submit(r, &(struct node_op){.type = NODE_OP_TRANSFER, .node_id = c->node_id}, begun);
}
