/*
 * control_backup.c - a running node gives a backup of the cluster, piece by piece:
 *
 *   BACKUP          what is applied now is A; the log after A stays while the
 *                   connection does
 *   BACKUP_RECORDS  live records in key order, each as it is when it is read: A or later
 *   BACKUP_ENTRIES  the entries after A, up to B: what is applied at the first call
 *
 * Entries laid over records give the state as of B, so nothing has to stand still
 * meanwhile. Keys of the cluster itself (its CA's private key is one) are left out.
 */
#include "backup.h"
#include "control.h"

#include <errno.h>

/* A connection that is given a backup. Of this process; on the loop; few at a time. */
struct backup {
    struct node *node;
    struct wire_connection *connection;
    struct store_pin *pin;
    struct event *idle;
    struct backup *next;
};

static struct backup *backups;

static struct backup **find_backup(const struct wire_connection *c)
{
    struct backup **at = &backups;
    while (*at && (*at)->connection != c)
        at = &(*at)->next;
    return at;
}

static void release(struct backup *b)
{
    if (b->idle)
        event_free(b->idle);
    store_unpin_log(node_store(b->node), b->pin);
    free(b);
}

void control_backup_closed(struct wire_connection *c)
{
    struct backup **at = find_backup(c), *b = *at;
    if (!b)
        return;
    *at = b->next;
    release(b);
}

void control_backups_release(struct node *n)
{
    for (struct backup **at = &backups; *at;) {
        struct backup *b = *at;
        if (b->node == n) {
            *at = b->next;
            release(b);
        } else {
            at = &b->next;
        }
    }
}

void control_backups_unpin(struct node *n)
{
    for (struct backup *b = backups; b; b = b->next)
        if (b->node == n) {
            store_unpin_log(node_store(n), b->pin);
            b->pin = NULL;
        }
}

static void stands_still(int fd, short events, void *arg)
{
    struct backup *b = arg;
    struct wire_connection *c = b->connection;
    control_closed(b->node, c); /* frees b */
    wire_close(c);
}

/* A caller that stands still must not keep the log for ever. */
static void moves(struct backup *b)
{
    uint32_t idle_ms = node_backup_idle_ms(b->node);
    const struct timeval wait = {idle_ms / 1000, idle_ms % 1000 * 1000};
    event_add(b->idle, &wait);
}

static int pin(struct node *n, struct wire_connection *c, uint64_t first)
{
    struct backup *b = calloc(1, sizeof(*b));
    if (!b)
        return -ENOMEM;
    b->node = n;
    b->connection = c;
    b->idle = evtimer_new(node_loop(n), stands_still, b);
    int result = b->idle ? store_pin_log(node_store(n), first, &b->pin) : -ENOMEM;
    if (result) {
        release(b);
        return result;
    }
    moves(b);
    b->next = backups;
    backups = b;
    return 0;
}

/* Whether this request is of a backup that goes on; else it is answered. */
static bool goes_on(struct control_request *r)
{
    struct backup *b = *find_backup(r->connection);
    if (!b) {
        control_malformed(r);
        return false;
    }
    if (!b->pin) {
        control_answer_error(r, -ESTALE,
                             "so much was written meanwhile that the node could not keep "
                             "it all for the backup: try again when less is written");
        return false;
    }
    moves(b);
    return true;
}

static bool has_quorum(struct node *n)
{
    struct node_status *status = calloc(1, sizeof(*status));
    if (status)
        node_fill_status(n, status);
    bool has = status && status->quorum;
    free(status);
    return has;
}

static void answer_begin(struct control_request *r, const struct store_point *begin)
{
    struct buf to = {0};
    buf_bytes(&to, node_directory(r->node)->cluster_id, STORE_CLUSTER_ID_BYTES);
    buf_u64(&to, begin->index);
    buf_u64(&to, begin->term);
    buf_u64(&to, begin->timestamp_us);
    buf_u32(&to, begin->crc);
    buf_u8(&to, has_quorum(r->node));
    buf_u32(&to, version_format(node_members(r->node)->version));
    if (to.failed)
        control_answer_error(r, -ENOMEM, "");
    else
        control_answer(r, to.data, to.length);
    buf_release(&to);
}

void control_backup(struct control_request *r, struct reader *frame)
{
    struct store *s = node_store(r->node);
    if (!reader_done(frame) || !r->connection || *find_backup(r->connection)) {
        control_malformed(r);
        return;
    }
    struct store_point begin = store_applied_point(s);
    if (!store_is_ready(s) || !begin.index) {
        control_answer_error(r, -EAGAIN,
                             "the node is still catching up with the cluster: try again "
                             "later, or on another node");
        return;
    }
    int result = pin(r->node, r->connection, begin.index + 1);
    if (result)
        control_answer_error(r, result, "");
    else
        answer_begin(r, &begin);
}

/* ---- Records ----------------------------------------------------------------------- */

struct piece {
    struct store *store;
    int error;
    uint8_t after[LIMIT_KEY_BYTES];
    size_t after_size;
    struct store_read *read;
    uint64_t last; /* entries: B */
    struct buf out;
};

static void release_piece(void *state)
{
    struct piece *p = state;
    store_read_free(p->read);
    buf_release(&p->out);
    free(p);
}

static struct piece *begin_piece(struct control_request *r)
{
    struct piece *p = calloc(1, sizeof(*p));
    if (!p) {
        control_answer_error(r, -ENOMEM, "");
        return NULL;
    }
    p->store = node_store(r->node);
    r->state = p;
    r->release_state = release_piece;
    return p;
}

static struct control_request *request_of(struct pager_task *task)
{
    return container_of(task, struct control_request, task);
}

static void answer_piece(struct pager_task *task)
{
    struct control_request *r = request_of(task);
    struct piece *p = r->state;
    if (!p->error && p->out.failed)
        p->error = -ENOMEM;
    if (p->error == -EBADMSG)
        control_answer_error(r, p->error,
                             "it is damaged on this node's disk: make the backup on "
                             "another node");
    else if (p->error)
        control_answer_error(r, p->error, "");
    else
        control_answer(r, p->out.data, p->out.length);
}

static int keep_users(const struct buf *records, struct buf *to)
{
    struct reader from = reader_of(records->data, records->length);
    while (reader_left(&from)) {
        struct store_record record;
        const uint8_t *begin = from.at;
        if (store_record_read(&from, &record))
            return -EBADMSG;
        if (!backup_is_cluster_key(record.key, record.key_size))
            buf_bytes(to, begin, (size_t)(from.at - begin));
    }
    return 0;
}

static void copy_records(struct pager_task *task)
{
    struct piece *p = request_of(task)->state;
    struct buf records = {0}, last = {0};
    p->error = store_copy(p->store, p->after, p->after_size, CONTROL_PIECE_BYTES,
                          &records, &last);
    buf_string(&p->out, last.data, last.length);
    if (!p->error)
        p->error = keep_users(&records, &p->out);
    buf_release(&records);
    buf_release(&last);
}

static void page(struct control_request *r, void (*work)(struct pager_task *task))
{
    r->task = (struct pager_task){.work = work, .done = answer_piece};
    pager_submit(r->node, &r->task);
}

void control_backup_records(struct control_request *r, struct reader *frame)
{
    size_t size;
    const uint8_t *after = reader_string(frame, &size);
    if (!reader_done(frame) || size > LIMIT_KEY_BYTES) {
        control_malformed(r);
        return;
    }
    if (!goes_on(r))
        return;
    struct piece *p = begin_piece(r);
    if (!p)
        return;
    memcpy(p->after, after, size);
    p->after_size = size;
    page(r, copy_records);
}

/* ---- Entries ----------------------------------------------------------------------- */

static void read_entries(struct pager_task *task)
{
    struct piece *p = request_of(task)->state;
    struct store_bytes *bytes = NULL;
    uint64_t last;
    p->error = store_read_run(p->read, &bytes, &last);
    if (p->error)
        return;
    size_t length = 0;
    struct store_entry e;
    while (length < bytes->length &&
           !store_entry_decode(bytes->data + length, bytes->length - length, &e) &&
           e.index <= p->last)
        length += e.length;
    buf_bytes(&p->out, bytes->data, length);
    store_bytes_unref(bytes);
}

void control_backup_entries(struct control_request *r, struct reader *frame)
{
    struct store *s = node_store(r->node);
    uint64_t first = reader_u64(frame), last = reader_u64(frame);
    if (!last)
        last = store_applied(s);
    if (!reader_done(frame) || !first || last > store_applied(s)) {
        control_malformed(r);
        return;
    }
    if (!goes_on(r))
        return;
    struct piece *p = begin_piece(r);
    if (!p)
        return;
    p->last = last;
    buf_u64(&p->out, last);
    if (first > last) {
        answer_piece(&r->task);
        return;
    }
    int result = store_read_plan(s, first, CONTROL_PIECE_BYTES, &p->read);
    if (result)
        control_answer_error(r, result,
                             result == -ENOENT ? "the node got its log anew from another "
                                                 "one meanwhile: try again"
                                               : "");
    else
        page(r, read_entries);
}
