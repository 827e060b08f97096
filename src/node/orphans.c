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

#include <dirent.h>
#include <errno.h>

static void add(struct buf *to, uint64_t inode)
{
    buf_u64(to, inode);
    node_must(to->failed ? -ENOMEM : 0, "noting a removed inode");
}

/* ---- Deciding ---------------------------------------------------------------------- */

struct name {
    uint64_t parent; /* 0: not known */
    const uint8_t *bytes;
    size_t size;
    bool directory;
};

/* While the mount is being made its threads may look up what the loop does not know of. */
static void decide(struct node *n, uint64_t inode, const struct name *name, bool own)
{
    if (n->mount_shown)
        fs_mount_orphaned(n->mount.mount, inode, name->parent, name->bytes, name->size,
                          own);
    else if (n->phase != NODE_MOUNTING)
        add(&n->orphans.released, inode);
}

/* ---- Entries ----------------------------------------------------------------------- */

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

struct names {
    struct name gone, put;
    int gone_count, put_count;
};

static int note_name(void *arg, const struct store_record *record, uint32_t offset)
{
    struct names *names = arg;
    if (record->key[0] != FS_CLASS_NAME || record->key_size < 10)
        return 0;
    bool put = record->value;
    *(put ? &names->put : &names->gone) = (struct name){
        .parent = get_be64(record->key + 1),
        .bytes = record->key + 9,
        .size = record->key_size - 9,
        .directory =
            record->value_size && record->value[record->value_size - 1] == DT_DIR};
    names->put_count += put;
    names->gone_count += !put;
    return 0;
}

/* A name that led to a file which may have others: of an UNLINK, or the new one of a RENAME. */
static const struct name *unnamed(const struct names *names)
{
    if (names->gone_count != 1 || names->put_count > 1)
        return NULL;
    if (names->put_count == 0)
        return &names->gone;
    return names->put.directory ? NULL : &names->put;
}

void orphans_entry_applied(struct node *n, const struct store_entry *entry,
                           const struct store_bytes *bytes)
{
    struct buf *applied = &n->orphans.applied;
    struct names names = {0};
    bool own = mount_asked(n, entry);
    if (n->mount_shown && (applied->length || !own))
        store_entry_each(bytes->data, bytes->length, note_name, &names);
    const struct name *name = names.put_count ? &names.put : &names.gone;
    const struct name *other = own || applied->length ? NULL : unnamed(&names);
    for (size_t i = 0; i < applied->length; i += 8)
        decide(n, get_u64(applied->data + i), name, own);
    if (other)
        fs_mount_unnamed(n->mount.mount, other->parent, other->bytes, other->size);
    buf_clear(applied);
}

/* ---- Looking ----------------------------------------------------------------------- */

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
        decide(n, get_u64(s.own.data + i), &(struct name){0}, false);
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
    o->op.session = 0; /* not in that of the last time, which may be over */
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
    mount_take_released(n, &n->orphans.released);
    send_released(n);
}

void orphans_release(struct node *n)
{
    buf_release(&n->orphans.applied);
    buf_release(&n->orphans.released);
    buf_release(&n->orphans.sent);
    buf_release(&n->orphans.op.op);
}
