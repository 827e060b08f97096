/*
 * orphans.c - inodes without a name (S8): this node says which of them nothing here holds.
 *
 * An entry that takes an inode's last name away has O records of all living sessions. Each
 * node, having applied it, releases the inode when its kernel does not hold it, in batches:
 *
 *   applied --held by the mount--> fs_mount, until the kernel forgets it --+
 *           --not held-----------------------------------------------------+--> released
 *   released --tick, or many--> sent --RELEASE is done--> gone
 *
 * What it may have missed it finds by looking through all O records: those that came with a
 * snapshot, before it knew its session's number, or while the mount was being made.
 */
#include "node_core.h"

#include <errno.h>

static void add(struct buf *to, uint64_t inode)
{
    buf_u64(to, inode);
    node_must(to->failed ? -ENOMEM : 0, "noting a removed inode");
}

/* ---- Deciding ---------------------------------------------------------------------- */

/* While the mount is being made its threads may look up what the loop does not know of. */
static void decide(struct node *n, uint64_t inode)
{
    if (n->phase != NODE_MOUNTING)
        add(&n->orphans.released, inode);
}

static bool is_own(const struct node *n, const void *key, size_t key_size,
                   uint64_t *ret_inode)
{
    uint64_t session;
    return fs_key_is_orphan(key, key_size, ret_inode, &session) && session &&
           session == n->client.session;
}

void orphans_note_record(struct node *n, const struct store_record *record)
{
    uint64_t inode;
    if (record->value && is_own(n, record->key, record->key_size, &inode))
        add(&n->orphans.applied, inode);
}

void orphans_entry_applied(struct node *n)
{
    struct buf *applied = &n->orphans.applied;
    for (size_t i = 0; i < applied->length; i += 8)
        decide(n, get_u64(applied->data + i));
    buf_clear(applied);
}

void orphans_look(struct node *n)
{
    n->orphans.scan_from = FS_ROOT_INODE;
}

struct scan {
    struct node *node;
    size_t seen;
    uint64_t next; /* where to go on */
    struct buf own;
};

static int each_orphan(void *arg, const struct store_item *item)
{
    struct scan *s = arg;
    uint64_t inode;
    if (s->seen == NODE_ORPHANS_TICK) {
        s->next = get_be64(item->key + 1);
        return 1;
    }
    s->seen++;
    if (is_own(s->node, item->key, item->key_size, &inode))
        add(&s->own, inode);
    return 0;
}

static void scan(struct node *n)
{
    struct scan s = {.node = n};
    const uint8_t to = FS_CLASS_ORPHAN + 1;
    struct fs_key from;
    fs_key_orphan(&from, n->orphans.scan_from, 0);
    store_scan(n->store, from.bytes, from.size, &to, 1, each_orphan, &s);
    n->orphans.scan_from = s.next;
    for (size_t i = 0; i < s.own.length; i += 8)
        decide(n, get_u64(s.own.data + i));
    buf_release(&s.own);
}

/* ---- Saying so --------------------------------------------------------------------- */

/* A session that was lost meanwhile is in no O record any more: what is sent again then
 * does nothing. */
static void sent(struct client_op *op)
{
    struct node *n = container_of(op, struct node, orphans.op);
    struct orphans *o = &n->orphans;
    struct fs_result result;
    fs_result_decode(op->result, &result);
    size_t seen = op->error ? 0 : (size_t)min_u64(result.value, o->sent.length / 8);
    o->busy = false;
    buf_bytes(&o->released, o->sent.data + 8 * seen, o->sent.length - 8 * seen);
    node_must(o->released.failed ? -ENOMEM : 0, "releasing removed inodes");
    buf_clear(&o->sent);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = get_u64(a), y = get_u64(b);
    return (x > y) - (x < y);
}

/* Moves the lowest ones that a RELEASE takes; none stands twice. */
static void take(struct orphans *o)
{
    size_t i = 0, length = o->released.length;
    uint64_t last = 0;
    qsort(o->released.data, length / 8, 8, compare);
    for (; i < length && o->sent.length < (size_t)FS_RELEASE_MOST * 8; i += 8) {
        uint64_t inode = get_u64(o->released.data + i);
        if (inode != last)
            add(&o->sent, inode);
        last = inode;
    }
    memmove(o->released.data, o->released.data + i, length - i);
    o->released.length = length - i;
}

static void send_released(struct node *n)
{
    struct orphans *o = &n->orphans;
    if (o->busy || !o->released.length || !n->client.session || n->is_removed ||
        n->phase == NODE_ENDING)
        return;
    take(o);
    o->busy = true;
    buf_clear(&o->op.op);
    fs_op_encode(&(struct fs_op){.type = FS_RELEASE,
                                 .inodes = o->sent.data,
                                 .inode_count = (uint16_t)(o->sent.length / 8)},
                 &o->op.op);
    node_must(o->op.op.failed ? -ENOMEM : 0, "releasing removed inodes");
    o->op.done = sent;
    client_submit(n, &o->op);
}

void orphans_send(struct node *n)
{
    if (n->orphans.released.length >= (size_t)FS_RELEASE_MOST * 8)
        send_released(n);
}

void orphans_tick(struct node *n)
{
    if (n->orphans.scan_from && n->client.session && gate_is_open(n) &&
        n->phase != NODE_MOUNTING)
        scan(n);
    send_released(n);
}

void orphans_release(struct node *n)
{
    buf_release(&n->orphans.applied);
    buf_release(&n->orphans.released);
    buf_release(&n->orphans.sent);
    buf_release(&n->orphans.op.op);
}
