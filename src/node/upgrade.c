/*
 * upgrade.c - programs of two versions in one cluster: one node after another is upgraded.
 *
 * A program speaks a version of the protocol and the one before. The *cluster's version*, in
 * `C config`, is one that every member speaks: what goes into the log, into operations and
 * onto disks is of it. Members say which versions they speak (HELLO, REPORT); when all speak
 * a newer one the leader raises it (VERSION). It never falls: from then on a program that is
 * older is refused, at its start, by its peers, and as a joiner.
 */
#include "node_core.h"

#include <errno.h>

/* ---- Who is too old, or too new ------------------------------------------------------ */

/* A program that speaks oldest to newest, in a cluster of this version. */
static int judge(uint16_t cluster, uint16_t oldest, uint16_t newest)
{
    return newest < cluster ? -1 : oldest > cluster ? 1 : 0;
}

static void explain(int verdict, const char *whose, uint16_t cluster, uint16_t newest,
                    char *to, size_t size)
{
    if (verdict < 0)
        snprintf(to, size,
                 "the cluster speaks protocol version %u since all of its nodes did, and "
                 "%s program no newer one than %u: start the newer program again",
                 cluster, whose, newest);
    else
        snprintf(
            to, size,
            "the cluster speaks protocol version %u still, and %s program version %u "
            "and the one before: upgrade all nodes to version %u first",
            cluster, whose, newest, cluster + 1u);
}

int upgrade_admit(const struct node *n, const struct wire_hello *hello,
                  char text[WIRE_ERROR_BYTES])
{
    uint16_t cluster = n->members.version;
    int verdict = judge(cluster, hello->oldest, hello->version);
    if (verdict == 0)
        return WIRE_REFUSAL_NONE;
    char whose[LIMIT_NAME_BYTES + 8];
    snprintf(whose, sizeof(whose), "%s's", hello->name);
    explain(verdict, whose, cluster, hello->version, text, WIRE_ERROR_BYTES);
    return WIRE_REFUSAL_VERSION;
}

int upgrade_judge_joiner(const struct node *n, uint16_t version)
{
    int verdict = judge(n->members.version, version_oldest(version), version);
    return verdict < 0 ? -JOIN_TOO_OLD : verdict > 0 ? -JOIN_TOO_NEW : 0;
}

int upgrade_check(struct node *n)
{
    uint16_t cluster = n->members_applied.version;
    int verdict = judge(cluster, version_oldest(n->version), n->version);
    if (verdict == 0)
        return 0;
    char text[NODE_ERROR_BYTES / 2];
    explain(verdict, "this", cluster, n->version, text, sizeof(text));
    return node_error(n->error, -EPROTONOSUPPORT, "%.300s: %s", n->directory.path, text);
}

/* It goes on for others, but this node is no use to them any more. */
static void give_up(struct node *n, const char *why)
{
    if (n->exit_error)
        return;
    n->exit_error = node_error(n->error, -EPROTONOSUPPORT, "%s", why);
    log_error("this node stops: %s", why);
    client_fail_all(n, -EIO);
    node_stop(n, true, NULL, NULL);
}

/* ---- The cluster's version ----------------------------------------------------------- */

void upgrade_applied(struct node *n)
{
    uint16_t cluster = n->members_applied.version;
    if (cluster > n->version) {
        if (upgrade_check(n) < 0) {
            char why[NODE_ERROR_BYTES];
            memcpy(why, n->error, sizeof(why));
            give_up(n, why);
        }
        return;
    }
    if (n->said_version && cluster > n->said_version)
        log_info("the cluster speaks protocol version %u from now on", cluster);
    n->said_version = cluster;
    store_set_format(n->store, version_format(cluster));
}

/* The newest that everybody speaks: as they reported, and as they say now. */
uint16_t upgrade_common(const struct node *n)
{
    uint16_t common = n->version;
    for (uint32_t i = 0; i < n->members.count; i++)
        common = (uint16_t)min_u64(common, n->members.list[i].version);
    for (size_t i = 0; i < n->peer_count; i++)
        if (n->peers[i].version)
            common = (uint16_t)min_u64(common, n->peers[i].version);
    return common;
}

void upgrade_raise(struct node *n)
{
    struct buf op = {0};
    struct node_op raise = {.type = NODE_OP_VERSION, .version = upgrade_common(n)};
    if (raise.version <= n->members.version)
        return;
    log_info("all members speak protocol version %u: the cluster goes over to it",
             raise.version);
    node_op_encode(&raise, &op);
    leader_run_internal(n, &op);
    buf_release(&op);
}

/* ---- What this node says of itself --------------------------------------------------- */

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
                 strerror(-op->error));
}

/* Whether the cluster's record of this node is right. */
static bool is_known(const struct member *m, const struct node_op *report)
{
    return m->version == report->version && m->ca == report->ca &&
           strcmp(m->address, report->address) == 0 &&
           strcmp(m->program, report->program) == 0;
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
                             .version = n->version,
                             .ca = identity_step(n, self)};
    memcpy(report.address, d->advertise, sizeof(report.address));
    if (n->members_applied.version >= NODE_VERSION_PROGRAMS)
        snprintf(report.program, sizeof(report.program), "%s", TIERCE_VERSION);
    if (is_known(self, &report))
        return;
    buf_clear(&n->report.op.op);
    node_op_encode(&report, &n->report.op.op);
    n->report.op.session = 0; /* not in that of the last time, which may be over */
    n->report.op.done = reported;
    n->report.busy = true;
    client_submit(n, &n->report.op);
}

void upgrade_release(struct node *n)
{
    buf_release(&n->report.op.op);
}

/* ---- Peers that refuse this node ----------------------------------------------------- */

/* One that does is odd; where a majority does, this node is. */
void upgrade_refused(struct node *n, struct peer *p, const char *text)
{
    if (!p->refused)
        log_error("node %016llx does not speak with this one: %s",
                  (unsigned long long)p->id, text);
    p->refused = true;
    uint32_t voters = 0, refusing = 0;
    for (uint32_t i = 0; i < n->members.count; i++) {
        const struct member *m = &n->members.list[i];
        const struct peer *q = peers_find(n, m->id);
        voters += m->voter;
        refusing += m->voter && q && q->refused;
    }
    if (refusing > voters / 2)
        give_up(n, text);
}
