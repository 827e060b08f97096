/*
 * evaluate.c - an operation becomes records, once, on the leader: against what is applied
 * plus what is in flight. It never waits: what is not in memory is named in n->missed.
 */
#include "evaluate.h"

#include <errno.h>

/* ---- The view of the state to be --------------------------------------------------- */

static int ahead_get(void *context, const void *key, size_t key_size, struct buf *to,
                     uint64_t *ret_timestamp)
{
    struct node *n = context;
    int ret = store_get_ahead(n->store, key, key_size, to, ret_timestamp);
    if (ret == -EAGAIN) {
        memcpy(n->missed.bytes, key, key_size);
        n->missed.size = (uint32_t)key_size;
    }
    return ret;
}

static int ahead_scan(void *context, const void *from, size_t from_size, const void *to,
                      size_t to_size, int (*each)(void *arg, const struct fs_item *item),
                      void *arg)
{
    struct node *n = context;
    return records_scan(store_scan_ahead, n->store, from, from_size, to, to_size, each,
                        arg);
}

int evaluate_get(struct node *n, const struct fs_key *key, struct buf *to)
{
    return ahead_get(n, key->bytes, key->size, to, NULL);
}

static struct fs_view ahead_view(struct node *n)
{
    return (struct fs_view){.context = n, .get = ahead_get, .scan = ahead_scan};
}

/* ---- Records into the entry being built -------------------------------------------- */

void evaluate_put(struct evaluation *e, const struct fs_key *key, const struct buf *value)
{
    store_builder_put(e->builder, key->bytes, key->size, value ? value->data : NULL,
                      value ? value->length : 0);
}

/* ---- Operations of the cluster itself ---------------------------------------------- */

static int evaluate_fs(struct node *n, uint64_t session, const struct fs_op *op,
                       struct evaluation *e)
{
    struct fs_view view = ahead_view(n);
    if (op->type == FS_RESERVE && op->size > NODE_INODES_RESERVED)
        return -EINVAL; /* a clock far ahead would stay in the log for ever (G2) */
    if (op->type == FS_RESERVE)
        e->timestamp_us += op->size; /* the numbers lie before the entry's timestamp */
    store_builder_begin(e->builder, e->timestamp_us);
    struct fs_change change = records_change(e->builder, e->timestamp_us);
    change.session = session;
    return fs_evaluate(&view, op, &change, &e->result);
}

struct older_sessions {
    uint64_t numbers[NODE_SESSIONS_PER_ENTRY];
    size_t count, others;    /* of other nodes */
    uint64_t node_id, nonce; /* nonce 0: of none in particular */
    uint64_t same;           /* a session that was opened with this very nonce */
};

static int each_session(void *arg, const struct store_item *item)
{
    struct older_sessions *o = arg;
    uint64_t node_id, nonce;
    if (item->key_size != 9 || !item->value ||
        session_record_decode(item->value, item->value_size, &node_id, &nonce) < 0)
        return 0;
    if (node_id != o->node_id) {
        o->others++;
        return 0;
    }
    uint64_t number = get_be64(item->key + 1);
    if (o->nonce && nonce == o->nonce)
        o->same = number;
    else if (o->count < NODE_SESSIONS_PER_ENTRY)
        o->numbers[o->count++] = number;
    return 0;
}

/* What it leaves behind, in part; 1: there is more. */
static int abandon(struct node *n, uint64_t number, uint32_t flags, struct evaluation *e)
{
    struct fs_view view = ahead_view(n);
    struct fs_change change = records_change(e->builder, e->timestamp_us);
    struct fs_op op = {.type = FS_ABANDON, .flags = flags, .content = number};
    struct fs_result result = {0};
    int ret = fs_evaluate(&view, &op, &change, &result);
    return ret < 0 ? ret : result.more > 0;
}

static int any_item(void *arg, const struct store_item *item)
{
    return 1;
}

/* Others get its locks by this entry, and one inode's are one record: so an entry sees to the
 * locks of one session alone. */
static int abandon_locks(struct node *n, uint64_t number, struct evaluation *e)
{
    struct fs_key from, to;
    fs_key_locker(&from, number, 0);
    fs_key_locker(&to, number, UINT64_MAX);
    int ret = store_scan_ahead(n->store, from.bytes, from.size, to.bytes, to.size,
                               any_item, NULL);
    if (ret <= 0 || e->locks_changed)
        return ret;
    e->locks_changed = true;
    return abandon(n, number, FS_LOCKS_ALONE, e);
}

/* Nothing of it is evaluated from now on (S6), though there is more to be seen to. */
static int put_ending(struct node *n, const struct fs_key *key, struct evaluation *e)
{
    struct buf value = {0};
    uint64_t node_id = 0, nonce = 0;
    int ret = evaluate_get(n, key, &value);
    if (ret == 0)
        ret = session_record_decode(value.data, value.length, &node_id, &nonce);
    buf_clear(&value);
    session_record_encode(node_id, SESSION_ENDING_NONCE, &value);
    if (ret == 0 && nonce != SESSION_ENDING_NONCE)
        evaluate_put(e, key, &value);
    buf_release(&value);
    return ret;
}

/* Its content in progress (S7) and its locks first; where that is too much for this entry the
 * session stays, and is ended further with the leader's next tick. */
static int end_session(struct node *n, uint64_t number, struct evaluation *e)
{
    if (e->builder->record_count > LIMIT_ENTRY_RECORDS / 2)
        return 0;
    struct fs_key key;
    session_key(&key, number);
    int ret = abandon(n, number, 0, e);
    if (ret == 0)
        ret = abandon_locks(n, number, e);
    if (ret == 0)
        evaluate_put(e, &key, NULL);
    else if (ret > 0)
        ret = put_ending(n, &key, e);
    return ret;
}

enum session_life evaluate_session_life(struct node *n, uint64_t number)
{
    struct fs_key key;
    struct buf value = {0}; /* 16 bytes, which are in memory */
    uint64_t node_id, nonce;
    session_key(&key, number);
    int ret = store_get_ahead(n->store, key.bytes, key.size, &value, NULL);
    bool ending = ret == 0 &&
                  session_record_decode(value.data, value.length, &node_id, &nonce) == 0 &&
                  nonce == SESSION_ENDING_NONCE;
    buf_release(&value);
    return ret == -ENOENT ? SESSION_OVER : ending ? SESSION_ENDING : SESSION_OPEN;
}

bool evaluate_is_session_open(struct node *n, uint64_t number)
{
    return evaluate_session_life(n, number) == SESSION_OPEN;
}

/* What it leaves goes in batches, its record with the last of them. */
static int evaluate_end_session(struct node *n, const struct node_op *op,
                                struct evaluation *e)
{
    if (evaluate_session_life(n, op->session) == SESSION_OVER)
        return 0;
    store_builder_begin(e->builder, e->timestamp_us);
    return end_session(n, op->session, e);
}

static int find_sessions(struct node *n, uint64_t node_id, uint64_t nonce,
                         struct older_sessions *ret)
{
    const uint8_t from[1] = {FS_CLASS_SESSION}, to[1] = {FS_CLASS_SESSION + 1};
    *ret = (struct older_sessions){.node_id = node_id, .nonce = nonce};
    return store_scan_ahead(n->store, from, 1, to, 1, each_session, ret);
}

static int end_sessions(struct node *n, const struct older_sessions *o,
                        struct evaluation *e)
{
    int ret = 0;
    for (size_t i = 0; i < o->count && ret == 0; i++)
        ret = end_session(n, o->numbers[i], e);
    return ret;
}

int evaluate_end_sessions(struct node *n, uint64_t node_id, struct evaluation *e)
{
    struct older_sessions o;
    int ret = find_sessions(n, node_id, 0, &o);
    return ret < 0 ? ret : end_sessions(n, &o, e);
}

/* Ends the node's older sessions (S6) and gives their content in progress away (S7). */
static int evaluate_session(struct node *n, const struct node_op *op,
                            struct evaluation *e)
{
    struct older_sessions o;
    if (removed_find(n, op->node_id))
        return -EPERM; /* its connection has not heard of it yet */
    int ret = find_sessions(n, op->node_id, op->nonce, &o);
    if (ret < 0)
        return ret;
    e->result.more = op->nonce; /* the answer says which opening it is of */
    if (o.same) {               /* a retry whose answer was lost */
        e->result.value = o.same;
        return 0;
    }
    if (o.others >= LIMIT_SESSIONS)
        return -EUSERS; /* asked again, when some have died */
    store_builder_begin(e->builder, e->timestamp_us);
    struct fs_key key;
    struct buf value = {0};
    session_key(&key, e->timestamp_us);
    session_record_encode(op->node_id, op->nonce, &value);
    evaluate_put(e, &key, &value);
    buf_release(&value);
    e->result.value = e->timestamp_us;
    return end_sessions(n, &o, e);
}

static int evaluate_node(struct node *n, uint64_t session, const struct node_op *op,
                         struct evaluation *e)
{
    switch (op->type) {
    case NODE_OP_SESSION:
        return evaluate_session(n, op, e);
    case NODE_OP_INVITE:
        return evaluate_invite(n, op, e);
    case NODE_OP_JOIN:
        return evaluate_join(n, op, e);
    case NODE_OP_PROMOTE:
        return evaluate_promote(n, op, e);
    case NODE_OP_END_SESSION:
        return evaluate_end_session(n, op, e);
    case NODE_OP_REMOVE:
        return evaluate_remove(n, op, e);
    case NODE_OP_REPORT:
        return evaluate_report(n, session, op, e);
    case NODE_OP_VERSION:
        return evaluate_version(n, op, e);
    case NODE_OP_TRANSFER:
        return evaluate_transfer(n, op, e);
    case NODE_OP_ROTATE_CA:
        return evaluate_rotate_ca(n, op, e);
    case NODE_OP_ADVANCE_CA:
        return evaluate_advance_ca(n, op, e);
    default:
        break; /* none of these is evaluated by this version */
    }
    return -EPROTO;
}

/* What a disk that is nearly full still takes: what frees, and what keeps the node going.
 */
static bool is_allowed_when_low(const struct fs_op *op)
{
    return op->type == FS_UNLINK || op->type == FS_RMDIR || op->type == FS_RECLAIM ||
           op->type == FS_ABANDON || op->type == FS_RELEASE || op->type == FS_RESERVE ||
           (op->type == FS_ZERO && op->flags & FS_PUNCH) ||
           op->type == FS_LOCK || op->type == FS_UNLOCK ||
           (op->type == FS_XATTR && op->flags & FS_XATTR_REMOVE) ||
           (op->type == FS_SETATTR && (op->set & FS_SET_SIZE) && op->size == 0);
}

bool evaluate_needs_room(const uint8_t *op, size_t length)
{
    struct fs_op decoded;
    return op[0] < NODE_OP_FIRST && fs_op_decode(op, length, &decoded) == 0 &&
           !is_allowed_when_low(&decoded);
}

int evaluate(struct node *n, uint64_t session, const uint8_t *op, size_t length,
             struct evaluation *e)
{
    if (op[0] >= NODE_OP_FIRST) {
        struct node_op decoded;
        int ret = node_op_decode(op, length, &decoded);
        return ret < 0 ? ret : evaluate_node(n, session, &decoded, e);
    }
    struct fs_op decoded;
    int ret = fs_op_decode(op, length, &decoded);
    if (ret < 0)
        return ret;
    if (store_space(n->store) == STORE_SPACE_LOW && !is_allowed_when_low(&decoded))
        return -ENOSPC;
    return evaluate_fs(n, session, &decoded, e);
}
