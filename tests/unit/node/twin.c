/* twin.c - see twin.h. */
#include "twin.h"

#include <errno.h>
#include <event2/thread.h>

/* ---- The view -------------------------------------------------------------------- */

static int view_get(void *context, const void *key, size_t key_size, struct buf *to,
                    uint64_t *ret_timestamp)
{
    return store_get(context, key, key_size, 0, to, ret_timestamp);
}

static int view_scan(void *context, const void *from, size_t from_size, const void *to,
                     size_t to_size, int (*each)(void *arg, const struct fs_item *item),
                     void *arg)
{
    return records_scan(store_scan, context, from, from_size, to, to_size, each, arg);
}

/* ---- Operations ------------------------------------------------------------------ */

static void run_jobs(struct store *s)
{
    char error[STORE_ERROR_BYTES];
    for (struct store_job *job; (job = store_take_job(s));) {
        ensure(!store_run_job(job, error));
        store_finish_job(s, job);
    }
}

static void put_token(struct fs_change *change, uint64_t id,
                      const struct token_record *record)
{
    struct fs_key key;
    struct buf value = {0};
    cluster_key_token(&key, id);
    token_record_encode(record, &value);
    change->put(change->context, key.bytes, key.size, value.data, value.length);
    change->records++;
    buf_release(&value);
}

/* As little of a join as its two sides need: the token, who used it, and the members. */
static int evaluate_join(struct node *n, const struct node_op *op,
                         struct fs_change *change, struct fs_result *result)
{
    struct fs_key key;
    struct buf value = {0};
    struct token_record record;
    uint8_t hash[WIRE_HASH_BYTES];
    cluster_key_token(&key, op->token_id);
    int error = store_get(n->store, key.bytes, key.size, 0, &value, NULL);
    if (!error)
        error = token_record_decode(value.data, value.length, &record);
    buf_release(&value);
    wire_hash(op->secret, sizeof(op->secret), hash);
    if (error || memcmp(hash, record.secret_hash, sizeof(hash)))
        return -JOIN_UNKNOWN_TOKEN;
    if (record.expires_us < change->timestamp_us)
        return -JOIN_EXPIRED_TOKEN;
    result->value = record.node_id;
    if (record.node_id) /* the same key: a retry */
        return memcmp(op->key_hash, record.key_hash, sizeof(hash)) ? -JOIN_USED_TOKEN : 0;
    struct member m = {.id = change->timestamp_us, .version = op->version};
    strcpy(m.name, op->name);
    strcpy(m.address, op->address);
    n->directory.members.list[n->directory.members.count++] = m;
    result->value = record.node_id = m.id;
    memcpy(record.key_hash, op->key_hash, sizeof(hash));
    put_token(change, op->token_id, &record);
    put_token(change, op->next_token_id, &op->record);
    return 0;
}

static int evaluate_own(struct node *n, const struct buf *bytes, struct fs_change *change,
                        struct fs_result *result)
{
    struct node_op op;
    if (node_op_decode(bytes->data, bytes->length, &op))
        return -EPROTO;
    if (op.type == NODE_OP_JOIN)
        return evaluate_join(n, &op, change, result);
    if (op.type == NODE_OP_INVITE)
        put_token(change, op.token_id, &op.record);
    n->last_op = op;
    if (op.type == NODE_OP_TRANSFER)
        n->leader = op.node_id;
    return 0;
}

static int evaluate_op(struct node *n, const struct buf *bytes, struct fs_change *change,
                       struct fs_result *result)
{
    struct fs_op op;
    if (bytes->data[0] >= NODE_OP_FIRST)
        return evaluate_own(n, bytes, change, result);
    int error = fs_op_decode(bytes->data, bytes->length, &op);
    return error ? error : fs_evaluate(&n->view, &op, change, result);
}

static void append(struct node *n, struct store_builder *b)
{
    struct store_entry head = {.index = store_last_index(n->store) + 1, .term = 1};
    struct store_bytes *bytes = NULL, *applied = NULL;
    uint64_t newest;
    store_chain(n->store, &head.prev_term, &head.prev_crc, &newest);
    ensure(!store_builder_finish(b, &head, &bytes));
    ensure(!store_append(n->store, bytes, false));
    run_jobs(n->store);
    ensure(!store_apply(n->store, head.index, &head, &applied));
    store_bytes_unref(bytes);
    store_bytes_unref(applied);
}

static void commit(struct node *n, struct client_op *op)
{
    struct store_builder b = {0};
    struct fs_result result = {0};
    uint64_t now = max_u64(clock_real_us(), node_last_timestamp(n) + 1);
    store_builder_begin(&b, now);
    struct fs_change change = records_change(&b, now);
    change.session = 1;
    op->error = n->error;
    result.value = n->lacking;
    if (!op->error)
        op->error = evaluate_op(n, &op->op, &change, &result);
    if (!op->error && change.records)
        append(n, &b);
    if (n->lose_answer)
        op->error = -EROFS;
    store_builder_release(&b);
    fs_result_encode(&result, op->result);
    op->done(op);
}

void client_submit(struct node *n, struct client_op *op)
{
    if (n->hold_next) {
        n->hold_next = false;
        n->held = op;
    } else {
        commit(n, op);
    }
}

/* ---- What the node's other files offer -------------------------------------------- */

struct event_base *node_loop(struct node *n)
{
    return n->loop;
}

uint32_t node_backup_idle_ms(const struct node *n)
{
    return n->backup_idle_ms;
}

uint64_t node_of_session(struct node *n, uint64_t session)
{
    return 0;
}

struct store *node_store(struct node *n)
{
    return n->store;
}

const struct fs_view *node_view(struct node *n)
{
    return &n->view;
}

const struct directory *node_directory(const struct node *n)
{
    return &n->directory;
}

const struct members *node_members(const struct node *n)
{
    return &n->directory.members;
}

uint64_t node_last_timestamp(const struct node *n)
{
    uint64_t term, timestamp;
    uint32_t crc;
    store_chain(n->store, &term, &crc, &timestamp);
    return timestamp;
}

void node_fill_status(struct node *n, struct node_status *ret)
{
    *ret = (struct node_status){.id = n->directory.node_id, .role = NODE_LEADER};
    strcpy(ret->name, n->directory.name);
    strcpy(ret->mountpoint, "/mnt/t");
}

void node_stop(struct node *n, bool force, void (*answer)(void *context, int error),
               void *context)
{
    answer(context, n->busy ? -EBUSY : 0);
    if (!n->busy)
        event_base_loopexit(n->loop, NULL);
}

void node_leave(struct node *n, void (*answer)(void *context, int error), void *context)
{
    node_stop(n, false, answer, context);
}

uint64_t node_leader(const struct node *n)
{
    return n->leader;
}

void pager_submit(struct node *n, struct pager_task *task)
{
    task->work(task);
    task->done(task);
}

/* ---- Life ------------------------------------------------------------------------- */

/* An operation that was held ends when its connection is long gone. */
static void release_held(struct node *n)
{
    struct client_op *op = n->held;
    if (!op || !n->held_closed)
        return;
    n->held = NULL;
    commit(n, op);
    n->dropped++;
}

static void on_frame(void *context, struct wire_connection *c, const struct wire_frame *f)
{
    release_held(context);
    if (f->type == WIRE_JOIN)
        join_frame(context, c, f);
    else
        control_frame(context, c, f);
}

static void on_closed(void *context, struct wire_connection *c, const char *reason)
{
    struct node *n = context;
    control_closed(n, c);
    if (n->held)
        n->held_closed = true;
}

void metrics_write(struct node *n, struct buf *to)
{
    buf_printf(to, "tierce_of_a_twin 1\n");
}

static void *run_loop(void *context)
{
    struct node *n = context;
    event_base_dispatch(n->loop);
    wire_endpoint_free(n->endpoint);
    control_backups_release(n);
    store_close(n->store);
    event_base_free(n->loop);
    directory_release(&n->directory); /* the lock last: who waits for the end sees it */
    return NULL;
}

static void open_store(struct node *n)
{
    struct directory *d = &n->directory;
    struct store_options options = directory_store_options(d);
    struct store_recovery recovery;
    char error[STORE_ERROR_BYTES];
    ensure(!store_open(&n->store, &options, &recovery, error));
    n->view = (struct fs_view){.context = n->store, .get = view_get, .scan = view_scan};
}

static void open_socket(struct node *n)
{
    struct directory *d = &n->directory;
    struct wire_identity identity = directory_identity(d);
    struct wire_hello hello = directory_hello(d);
    struct wire_handlers handlers = {
        .context = n, .frame = on_frame, .closed = on_closed};
    char error[WIRE_ERROR_BYTES], *path = directory_file(d->path, DIRECTORY_SOCKET);
    ensure(path);
    ensure(
        !wire_endpoint_new(&n->endpoint, n->loop, &identity, &hello, &handlers, error));
    ensure(!wire_listen_local(n->endpoint, path, error));
    ensure(!wire_listen(n->endpoint, d->listen, error));
    free(path);
}

struct node *twin_start(const char *data)
{
    struct node *n = calloc(1, sizeof(*n));
    char error[NODE_ERROR_BYTES];
    ensure(n);
    ensure(!directory_open(&n->directory, data, error));
    n->directory.members.version = WIRE_PROTOCOL_VERSION;
    for (uint32_t i = 0; i < n->directory.members.count; i++)
        n->directory.members.list[i].version = WIRE_PROTOCOL_VERSION;
    ensure(!evthread_use_pthreads());
    n->loop = event_base_new();
    ensure(n->loop);
    n->backup_idle_ms = NODE_BACKUP_IDLE_MS;
    open_store(n);
    open_socket(n);
    ensure(!pthread_create(&n->thread, NULL, run_loop, n));
    return n;
}

void twin_join(struct node *n)
{
    ensure(!pthread_join(n->thread, NULL));
    free(n);
}
