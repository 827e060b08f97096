/* evaluate_ca.c - another CA, step by step: see ca.c. */
#include "ca.h"
#include "evaluate.h"

#include <errno.h>

static int get(void *n, const struct fs_key *key, struct buf *to)
{
    return evaluate_get(n, key, to);
}

static void put(struct evaluation *e, const struct ca_record *ca)
{
    struct fs_key key;
    struct buf value = {0};
    store_builder_begin(e->builder, e->timestamp_us);
    cluster_key_ca(&key);
    ca_record_encode(ca, &value);
    evaluate_put(e, &key, &value);
    buf_release(&value);
}

/* The step that is now, and the one that ends the rotation. */
static void tell(struct evaluation *e, const struct ca_record *ca)
{
    e->result.value = ca->step;
    e->result.more = ca_last_step(ca);
}

/* One that is under way goes on, and one that has ended since it was asked for is not done
 * again: of both the asker is told. */
int evaluate_rotate_ca(struct node *n, const struct node_op *op, struct evaluation *e)
{
    struct ca_record *ca = NULL;
    int ret = ca_record_read(get, n, &ca);
    if (ret < 0)
        return ret;
    if (ca->count == 1 && ca->step == op->ca) {
        if (wire_pki_is_signed_by(op->ca_cert_pem, op->ca_cert_pem)) {
            ca_begin_rotation(ca, op->ca_key_pem, op->ca_cert_pem);
            put(e, ca);
        } else {
            ret = -EINVAL;
        }
    }
    tell(e, ca);
    free(ca);
    return ret;
}

static bool have_all_taken(const struct node *n, uint32_t step)
{
    for (uint32_t i = 0; i < n->members.count; i++)
        if (n->members.list[i].ca != step)
            return false;
    return true;
}

int evaluate_advance_ca(struct node *n, const struct node_op *op, struct evaluation *e)
{
    struct ca_record *ca = NULL;
    if (!have_all_taken(n, op->ca))
        return 0;
    int ret = ca_record_read(get, n, &ca);
    if (ret < 0)
        return ret;
    if (ca->count > 1 && ca->step == op->ca) {
        ca_advance_rotation(ca);
        put(e, ca);
    }
    free(ca);
    return 0;
}

void leader_advance_ca(struct node *n)
{
    const struct identity *i = &n->identity;
    struct node_op advance = {.type = NODE_OP_ADVANCE_CA, .ca = i->step};
    struct buf op = {0};
    if (!i->is_known || !i->is_rotating || !have_all_taken(n, i->step))
        return;
    node_op_encode(&advance, &op);
    leader_run_internal(n, &op);
    buf_release(&op);
}
