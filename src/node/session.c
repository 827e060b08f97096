/*
 * session.c - what each session has had committed (S2). Replicated state: made from the
 * entries in the order of the log alone, so that every node has the same.
 *
 * A session's number is the timestamp of the entry that opened it; that entry carries the
 * number as its session and 0 as its request. The record `S` number -> (node, nonce)
 * keeps it alive; its tombstone ends it. The window keeps the last LIMIT_SESSION_WINDOW
 * requests: an origin has no more than that many in flight, so what is older has been
 * answered.
 */
#include "node_core.h"

#include <errno.h>

void session_key(struct fs_key *key, uint64_t number)
{
    key->bytes[0] = FS_CLASS_SESSION;
    put_be64(key->bytes + 1, number);
    key->size = 9;
}

void session_record_encode(uint64_t node_id, uint64_t nonce, struct buf *to)
{
    buf_u64(to, node_id);
    buf_u64(to, nonce);
}

int session_record_decode(const void *data, size_t length, uint64_t *ret_node_id,
                          uint64_t *ret_nonce)
{
    struct reader r = reader_of(data, length);
    uint64_t node_id = reader_u64(&r), nonce = reader_u64(&r);
    if (!reader_done(&r))
        return -EBADMSG;
    *ret_node_id = node_id;
    *ret_nonce = nonce;
    return 0;
}

struct session *session_find(struct node *n, uint64_t number)
{
    for (struct session *s = n->sessions; s; s = s->next)
        if (s->number == number)
            return s;
    return NULL;
}

uint64_t node_of_session(struct node *n, uint64_t number)
{
    const struct session *s = session_find(n, number);
    return s ? s->node_id : 0;
}

const struct window_slot *session_slot(const struct session *s, size_t i)
{
    const struct window_slot *chunk = s->chunks[i / SESSION_CHUNK_SLOTS];
    return chunk ? &chunk[i % SESSION_CHUNK_SLOTS] : NULL;
}

struct window_slot *session_take_slot(struct session *s, size_t i)
{
    struct window_slot **chunk = &s->chunks[i / SESSION_CHUNK_SLOTS];
    if (!*chunk)
        *chunk = calloc(SESSION_CHUNK_SLOTS, sizeof(**chunk));
    return *chunk ? &(*chunk)[i % SESSION_CHUNK_SLOTS] : NULL;
}

enum session_verdict session_judge(const struct session *s, uint64_t request,
                                   const struct window_slot **ret_slot)
{
    ensure(request > 0);
    const struct window_slot *slot = session_slot(s, request % LIMIT_SESSION_WINDOW);
    if (slot && slot->request == request) {
        *ret_slot = slot;
        return SESSION_ANSWERED;
    }
    if (request < s->lowest || (slot && slot->request > request) ||
        request + LIMIT_SESSION_WINDOW <= s->highest)
        return SESSION_EXPIRED;
    return SESSION_NEW;
}

struct session *session_new(struct node *n, uint64_t number)
{
    struct session *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->number = number;
    s->next = n->sessions;
    n->sessions = s;
    uint64_t count = 0;
    for (const struct session *any = s; any; any = any->next)
        count++;
    queue_note(n, QUEUE_SESSIONS, count);
    return s;
}

static int session_open(struct node *n, uint64_t number)
{
    return session_find(n, number) || session_new(n, number) ? 0 : -ENOMEM;
}

static void operations_free(struct operation *o)
{
    while (o) {
        struct operation *next = o->next;
        free(o);
        o = next;
    }
}

static void session_free(struct session *s)
{
    operations_free(s->parked_head);
    for (size_t i = 0; i < SESSION_CHUNKS; i++)
        free(s->chunks[i]);
    free(s);
}

static void session_end(struct node *n, uint64_t number)
{
    for (struct session **at = &n->sessions; *at; at = &(*at)->next)
        if ((*at)->number == number) {
            struct session *gone = *at;
            *at = gone->next;
            leader_session_over(n, gone);
            session_free(gone);
            return;
        }
}

int session_note_entry(struct node *n, const struct store_entry *entry)
{
    if (entry->session == 0)
        return 0;
    if (entry->request == 0)
        return session_open(n, entry->session);
    struct session *s = session_find(n, entry->session);
    if (!s)
        return 0; /* ended later in a log that is replayed: reconciled away already */
    struct window_slot *slot =
        session_take_slot(s, entry->request % LIMIT_SESSION_WINDOW);
    if (!slot)
        return -ENOMEM;
    if (slot->request > entry->request)
        return 0;
    slot->request = entry->request;
    slot->index = entry->index;
    memcpy(slot->result, entry->result, sizeof(slot->result));
    s->highest = max_u64(s->highest, entry->request);
    return 0;
}

int session_note_record(struct node *n, const struct store_record *record)
{
    if (record->key_size != 9 || record->key[0] != FS_CLASS_SESSION)
        return 0;
    uint64_t number = get_be64(record->key + 1);
    if (!record->value) {
        session_end(n, number);
        return 0;
    }
    uint64_t node_id, nonce;
    int ret = session_record_decode(record->value, record->value_size, &node_id, &nonce);
    if (ret < 0)
        return ret;
    ret = session_open(n, number);
    if (ret < 0)
        return ret;
    struct session *s = session_find(n, number);
    s->node_id = node_id;
    s->nonce = nonce;
    return 0;
}

static int reconcile_one(struct store *store, struct session *s)
{
    struct fs_key key;
    struct buf value = {0};
    session_key(&key, s->number);
    int ret = store_get(store, key.bytes, key.size, 0, &value, NULL);
    if (ret == 0)
        ret = session_record_decode(value.data, value.length, &s->node_id, &s->nonce);
    buf_release(&value);
    return ret;
}

int session_reconcile(struct node *n, struct store *store)
{
    struct session *next;
    for (struct session *s = n->sessions; s; s = next) {
        next = s->next;
        int ret = reconcile_one(store, s);
        if (ret == -ENOENT)
            session_end(n, s->number);
        else if (ret < 0)
            return ret;
    }
    return 0;
}

/* The dead go at once: a log that is replayed may have opened any number of them. */
int session_replay(struct node *n, struct store *store, const struct store_entry *entry)
{
    int ret = session_note_entry(n, entry);
    if (ret == 0 && entry->session && entry->request == 0)
        ret = session_reconcile(n, store);
    return ret;
}

void sessions_release(struct node *n)
{
    while (n->sessions) {
        struct session *s = n->sessions;
        n->sessions = s->next;
        session_free(s);
    }
}
