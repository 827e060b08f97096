/*
 * upgrade.c - what this node says of itself: whenever the cluster's record of it is not
 * what it is (its program's version, the CA's step, its address), it reports that.
 */
#include "node_core.h"

#include <errno.h>

static void reported(struct client_op *op)
{
    struct node *n = container_of(op, struct node, report.op);
    n->report.busy = false;
    if (op->error)
        n->report.again_us = node_now() + NODE_SECOND_US;
    buf_clear(&op->op);
    if (op->error == n->report.error)
        return;
    n->report.error = op->error;
    if (op->error && op->error != -EROFS && op->error != -EIO)
        log_warn("the cluster does not take what this node says of itself: %s",
                 op->error == -EADDRINUSE ? "another member has its address"
                                          : strerror(-op->error));
}

static bool is_known(const struct member *m, const struct node_op *report)
{
    return m->version == report->version && m->ca == report->ca &&
           strcmp(m->address, report->address) == 0;
}

void upgrade_tick(struct node *n, uint64_t now_us)
{
    const struct directory *d = &n->directory;
    const struct member *self = members_find(&n->members_applied, d->node_id);
    if (!self || !n->client.session || n->report.busy || now_us < n->report.again_us ||
        n->phase >= NODE_LEAVING)
        return;
    struct node_op report = {.type = NODE_OP_REPORT,
                             .node_id = d->node_id,
                             .version = WIRE_PROTOCOL_VERSION,
                             .ca = identity_step(n, self)};
    memcpy(report.address, d->advertise, sizeof(report.address));
    if (is_known(self, &report))
        return;
    buf_clear(&n->report.op.op);
    node_op_encode(&report, &n->report.op.op);
    n->report.op.done = reported;
    n->report.busy = true;
    client_submit(n, &n->report.op);
}

void upgrade_release(struct node *n)
{
    buf_release(&n->report.op.op);
}
