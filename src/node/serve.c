/*
 * serve.c - answers what other nodes ask of this one's disk: chunks of snapshots (pins.c),
 * records and entries.
 */
#include "node_core.h"

#include <errno.h>

/* A question that the merge thread, or the log's cache, answers. */
struct serving {
    struct pager_task task;
    struct serving *next;
    struct node *node;
    struct wire_connection *to; /* NULL: it is closed */
    struct fetch_request asked;
    bool waits;              /* SNAPSHOT: for the store's task to end */
    struct pinned *pinned;   /* CHUNK */
    struct store_read *read; /* ENTRY */
    struct buf out;          /* head and answer */
    int error;
};

/* ---- Answers ----------------------------------------------------------------------- */

static void release_data(void *data)
{
    free(data);
}

/* Gives the bytes of `out`, which begin with room for the head, to the connection. */
static void answer(struct wire_connection *to, uint64_t id, int error, struct buf *out)
{
    uint8_t head[FETCH_HEAD_BYTES];
    if (error < 0 || out->failed) {
        fetch_answer_head(head, id, error < 0 ? -error : ENOMEM);
        wire_send_bytes(to, WIRE_FETCHED, 0, head, sizeof(head));
        return;
    }
    size_t length;
    fetch_answer_head(out->data, id, 0);
    uint8_t *data = buf_steal(out, &length);
    wire_send(to, WIRE_FETCHED, 0, &(struct wire_part){data, length, release_data, data},
              1);
}

static void serving_end(struct serving *s)
{
    struct node *n = s->node;
    for (struct serving **at = &n->servings; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    if (s->to)
        answer(s->to, s->asked.id, s->error, &s->out);
    if (s->pinned)
        pins_have_read(s->pinned, s->asked.file, s->asked.offset + s->asked.length,
                       s->error);
    store_read_free(s->read);
    buf_release(&s->out);
    free(s);
}

static unsigned servings_of(struct node *n, const struct wire_connection *c)
{
    unsigned count = 0;
    for (struct serving *s = n->servings; s; s = s->next)
        count += s->to && wire_peer_id(s->to) == wire_peer_id(c);
    return count;
}

static struct serving *serving_new(struct node *n, struct wire_connection *c,
                                   const struct fetch_request *q)
{
    struct serving *s = calloc(1, sizeof(*s));
    node_must(s ? 0 : -ENOMEM, "answering a node");
    s->node = n;
    s->to = c;
    s->asked = *q;
    s->next = n->servings;
    n->servings = s;
    buf_extend(&s->out, FETCH_HEAD_BYTES);
    return s;
}

static void served(struct pager_task *task)
{
    serving_end(container_of(task, struct serving, task));
}

static void refuse(struct wire_connection *c, const struct fetch_request *q, int error)
{
    struct buf none = {0};
    answer(c, q->id, error, &none);
}

/* ---- Snapshots --------------------------------------------------------------------- */

static void describe(struct serving *s, struct pinned *p)
{
    buf_u64(&s->out, p->number);
    s->error = store_snapshot_describe(p->snapshot, &s->out);
    if (s->error == 0 && s->out.length > LIMIT_FRAME_BYTES)
        s->error = -E2BIG;
}

static void pin_and_end(struct serving *s)
{
    struct pinned *p;
    s->error = pins_take(s->node, wire_peer_id(s->to), &p);
    if (s->error == 0)
        describe(s, p);
    serving_end(s);
}

/* A merge that is under way takes the log away that a snapshot pinned now would go on
 * with: its end is waited for, and none begins meanwhile. */
static void serve_snapshot(struct node *n, struct wire_connection *c,
                           const struct fetch_request *q)
{
    struct serving *s = serving_new(n, c, q);
    if (n->merge.out && !pins_still(n, wire_peer_id(c))) {
        s->waits = true;
        merge_thread_hold(n);
        return;
    }
    pin_and_end(s);
}

static struct serving *first_waiting(struct node *n)
{
    struct serving *s = n->servings;
    while (s && !s->waits)
        s = s->next;
    return s;
}

void serve_pin_due(struct node *n)
{
    struct serving *s;
    while (!n->merge.out && (s = first_waiting(n))) {
        s->waits = false;
        if (s->to)
            pin_and_end(s);
        else
            serving_end(s);
        merge_thread_release(n);
    }
}

static void read_chunk(struct pager_task *task)
{
    struct serving *s = container_of(task, struct serving, task);
    const struct fetch_request *q = &s->asked;
    size_t crc_at = s->out.length;
    buf_u32(&s->out, 0);
    s->error =
        store_snapshot_read(s->pinned->snapshot, q->file, q->offset, q->length, &s->out);
    if (s->error < 0 || s->out.failed)
        return;
    s->error = 0;
    const uint8_t *bytes = s->out.data + crc_at + 4;
    put_u32(s->out.data + crc_at, crc32_of(0, bytes, s->out.length - crc_at - 4));
}

static void serve_chunk(struct node *n, struct wire_connection *c,
                        const struct fetch_request *q)
{
    struct pinned *p = pins_find(n, wire_peer_id(c), q->snapshot);
    if (!p) {
        refuse(c, q, -ESTALE);
        return;
    }
    struct serving *s = serving_new(n, c, q);
    s->pinned = p;
    pins_read(p);
    s->task = (struct pager_task){.work = read_chunk, .done = served};
    merge_thread_submit(n, &s->task);
}

static void answer_nothing(struct wire_connection *c, const struct fetch_request *q)
{
    struct buf none = {0};
    buf_extend(&none, FETCH_HEAD_BYTES);
    answer(c, q->id, 0, &none);
    buf_release(&none);
}

static void serve_close(struct node *n, struct wire_connection *c,
                        const struct fetch_request *q)
{
    struct pinned *p = pins_find(n, wire_peer_id(c), q->snapshot);
    if (p)
        pins_installed(p);
    answer_nothing(c, q);
}

static void serve_keep(struct node *n, struct wire_connection *c,
                       const struct fetch_request *q)
{
    struct pinned *p = pins_find(n, wire_peer_id(c), q->snapshot);
    if (p) {
        pins_keep(p);
        answer_nothing(c, q);
    } else {
        refuse(c, q, -ESTALE);
    }
}

/* ---- Repairs ----------------------------------------------------------------------- */

static void read_record(struct pager_task *task)
{
    struct serving *s = container_of(task, struct serving, task);
    const struct fetch_request *q = &s->asked;
    s->error =
        store_get_raw(s->node->store, q->key, q->key_size, q->timestamp_us, &s->out);
}

static void serve_record(struct node *n, struct wire_connection *c,
                         const struct fetch_request *q)
{
    struct serving *s = serving_new(n, c, q);
    s->task = (struct pager_task){.work = read_record, .done = served};
    merge_thread_submit(n, &s->task);
}

/* Of one index and term there is one entry, in whatever log it stands. */
static int check_entry(const struct store_bytes *bytes, const struct fetch_request *q)
{
    struct store_entry entry;
    if (store_entry_decode(bytes->data, bytes->length, &entry) < 0)
        return -EBADMSG;
    return entry.index == q->index && entry.term == q->term ? 0 : -ENOENT;
}

static void take_entry(struct serving *s, struct store_bytes *bytes)
{
    s->error = check_entry(bytes, &s->asked);
    if (s->error == 0)
        buf_bytes(&s->out, bytes->data, bytes->length);
    store_bytes_unref(bytes);
}

static void read_entry(struct pager_task *task)
{
    struct serving *s = container_of(task, struct serving, task);
    struct store_bytes *bytes;
    uint64_t last;
    s->error = store_read_run(s->read, &bytes, &last);
    if (s->error == 0)
        take_entry(s, bytes);
}

static void serve_entry(struct node *n, struct wire_connection *c,
                        const struct fetch_request *q)
{
    struct serving *s = serving_new(n, c, q);
    struct store_bytes *bytes = store_entry_cached(n->store, q->index);
    if (bytes) {
        take_entry(s, bytes);
        serving_end(s);
        return;
    }
    s->error = store_read_plan(n->store, q->index, 1, &s->read); /* one entry */
    if (s->error < 0) {
        serving_end(s);
        return;
    }
    s->task = (struct pager_task){.work = read_entry, .done = served};
    merge_thread_submit(n, &s->task);
}

/* ---- The frame, and time ----------------------------------------------------------- */

static void (*const kinds[])(struct node *n, struct wire_connection *c,
                             const struct fetch_request *q) = {
    [FETCH_SNAPSHOT] = serve_snapshot, [FETCH_CHUNK] = serve_chunk,
    [FETCH_CLOSE] = serve_close,       [FETCH_RECORD] = serve_record,
    [FETCH_ENTRY] = serve_entry,       [FETCH_KEEP] = serve_keep,
};

void serve_frame(struct node *n, struct wire_connection *c, const struct wire_frame *f)
{
    struct fetch_request q;
    if (fetch_request_decode(f->value, f->length, &q) < 0) {
        wire_refuse(c, "a malformed fetch");
        return;
    }
    if (!members_find(&n->members, wire_peer_id(c)))
        refuse(c, &q, -EPERM);
    else if (servings_of(n, c) >= NODE_SERVINGS ||
             wire_queued_bytes(c) > LIMIT_SEND_QUEUE_BYTES)
        refuse(c, &q, -EBUSY);
    else
        kinds[q.kind](n, c, &q);
}

void serve_forget(struct node *n, struct wire_connection *c)
{
    for (struct serving *s = n->servings; s; s = s->next)
        if (s->to == c)
            s->to = NULL;
}

/* The merge thread has ended: nobody reads. */
void serve_release(struct node *n)
{
    while (n->servings) {
        n->servings->to = NULL;
        serving_end(n->servings);
    }
    pins_release(n);
}
