/*
 * control_ca.c - ROTATE_CA: begins, or joins in, what the leader then takes from step to
 * step.
 *
 *   ROTATE_CA --> the step that is now is read, a CA is made (pager)
 *             --> NODE_OP_ROTATE_CA, committed --> answer: the step, the last step, whether
 *                 this request has begun it
 */
#include "ca.h"
#include "control.h"

#include <errno.h>

struct rotation { /* of a request */
    struct node_op op;
    int error; /* of the pager's work */
};

static void release_rotation(void *state)
{
    free(state);
}

static void committed(struct client_op *op)
{
    struct control_request *r = container_of(op, struct control_request, op);
    const struct rotation *rotation = r->state;
    struct fs_result result;
    struct buf to = {0};
    if (op->error) {
        control_answer_error(r, op->error, "");
        return;
    }
    fs_result_decode(op->result, &result);
    buf_u32(&to, (uint32_t)result.value);
    buf_u32(&to, (uint32_t)result.more);
    buf_u8(&to, result.value == rotation->op.ca + 1);
    if (to.failed)
        control_answer_error(r, -ENOMEM, "the node has no memory left");
    else
        control_answer(r, to.data, to.length);
    buf_release(&to);
}

static int get(void *context, const struct fs_key *key, struct buf *to)
{
    const struct fs_view *view = node_view(context);
    return view->get(view->context, key->bytes, key->size, to, NULL);
}

static int make_ca(struct node *n, struct node_op *op)
{
    char *key = NULL, *cert = NULL;
    struct ca_record *ca = NULL;
    int result = ca_record_read(get, n, &ca);
    if (!result)
        result = wire_pki_make_ca(node_directory(n)->cluster_id, &key, &cert);
    if (!result && (strlen(key) >= sizeof(op->ca_key_pem) ||
                    strlen(cert) >= sizeof(op->ca_cert_pem)))
        result = -E2BIG;
    if (!result) {
        op->ca = ca->step;
        strcpy(op->ca_key_pem, key);
        strcpy(op->ca_cert_pem, cert);
    }
    free(ca);
    free(key);
    free(cert);
    return result;
}

static void make_work(struct pager_task *task)
{
    struct control_request *r = container_of(task, struct control_request, task);
    struct rotation *rotation = r->state;
    rotation->error = make_ca(r->node, &rotation->op);
}

static void make_done(struct pager_task *task)
{
    struct control_request *r = container_of(task, struct control_request, task);
    struct rotation *rotation = r->state;
    if (!rotation->error) {
        node_op_encode(&rotation->op, &r->op.op);
        rotation->error = r->op.op.failed ? -ENOMEM : 0;
    }
    if (rotation->error) {
        control_answer_error(r, rotation->error, "a CA cannot be made");
        return;
    }
    r->op.done = committed;
    client_submit(r->node, &r->op);
}

void control_rotate_ca(struct control_request *r, struct reader *frame)
{
    if (!reader_done(frame)) {
        control_malformed(r);
        return;
    }
    struct rotation *rotation = calloc(1, sizeof(*rotation));
    if (!rotation) {
        control_answer_error(r, -ENOMEM, "the node has no memory left");
        return;
    }
    rotation->op.type = NODE_OP_ROTATE_CA;
    r->state = rotation;
    r->release_state = release_rotation;
    r->task = (struct pager_task){.work = make_work, .done = make_done};
    pager_submit(r->node, &r->task);
}
