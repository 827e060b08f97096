/* ledger.c - tables of what was written, committed, and asked for. */
#include "ledger.h"

/* ---- Tables: two numbers to four ------------------------------------------------------
 */

struct row {
    uint64_t a, b; /* a 0: free */
    uint64_t value[4];
};

struct table {
    struct row *rows;
    size_t capacity, count;
};

static struct row *slot(const struct table *t, uint64_t a, uint64_t b)
{
    size_t at = ledger_mix(a, b) % t->capacity;
    while (t->rows[at].a && (t->rows[at].a != a || t->rows[at].b != b))
        at = (at + 1) % t->capacity;
    return &t->rows[at];
}

static void grow(struct table *t)
{
    struct table old = *t;
    t->capacity = old.capacity ? 2 * old.capacity : 1024;
    t->rows = calloc(t->capacity, sizeof(*t->rows));
    ensure(t->rows);
    for (size_t i = 0; i < old.capacity; i++)
        if (old.rows[i].a)
            *slot(t, old.rows[i].a, old.rows[i].b) = old.rows[i];
    free(old.rows);
}

static uint64_t *find(const struct table *t, uint64_t a, uint64_t b)
{
    struct row *row = t->capacity ? slot(t, a, b) : NULL;
    return row && row->a ? row->value : NULL;
}

/* Zeros where it is new. */
static uint64_t *find_or_add(struct table *t, uint64_t a, uint64_t b)
{
    ensure(a);
    if (2 * t->count >= t->capacity)
        grow(t);
    struct row *row = slot(t, a, b);
    if (!row->a) {
        row->a = a;
        row->b = b;
        t->count++;
    }
    return row->value;
}

uint64_t ledger_hash(const void *data, size_t length)
{
    const uint8_t *at = data;
    uint64_t h = 0xcbf29ce484222325ull ^ length;
    while (length >= 8) {
        uint64_t v;
        memcpy(&v, at, 8);
        h = (h ^ v) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 32;
        at += 8;
        length -= 8;
    }
    while (length--)
        h = (h ^ *at++) * 0x100000001b3ull;
    return h ^ (h >> 29);
}

uint64_t ledger_mix(uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ (b + 0x9e3779b97f4a7c15ull + (a << 6))) * 0xff51afd7ed558ccdull;
    return h ^ (h >> 33);
}

/* ---- Written ----------------------------------------------------------------------- */

static struct table entries;

_Static_assert(sizeof(struct written) <= sizeof(((struct row *)0)->value),
               "it fits a row");

void ledger_write(const struct store_entry *e, uint64_t hash, bool again)
{
    struct written *w = (struct written *)find_or_add(&entries, e->index, e->term);
    if (w->hash && w->hash != hash && !again)
        sim_fail("V3: two entries %llu of term %llu", (unsigned long long)e->index,
                 (unsigned long long)e->term);
    *w = (struct written){hash, e->prev_term, e->crc};
}

const struct written *ledger_written(uint64_t index, uint64_t term)
{
    return (const struct written *)find(&entries, index, term);
}

/* ---- Committed --------------------------------------------------------------------- */

enum { KEY_VERSION, KEY_VALUE, KEY_LIVE }; /* of a row of `keys` */

static struct table keys, requests;
static struct table ended, taken; /* sessions; taken: with their node's removal */
static struct decided *decided;
static size_t capacity;
static uint64_t last, digest, newest; /* newest: timestamp of a record */

static uint64_t key_hash(const void *key, size_t size)
{
    return ledger_hash(key, size) | 1;
}

uint64_t ledger_key_digest(const void *key, size_t size, uint64_t timestamp_us)
{
    return ledger_mix(key_hash(key, size), timestamp_us);
}

/* Nothing of it is evaluated any more: it is gone, or goes in batches. */
static bool ends_session(const struct store_record *r)
{
    uint64_t node_id, nonce;
    return r->key[0] == FS_CLASS_SESSION && r->key_size == 9 &&
           (!r->value ||
            (session_record_decode(r->value, r->value_size, &node_id, &nonce) == 0 &&
             nonce == SESSION_ENDING_NONCE));
}

/* `arg`: whether members change as well; who is removed has no say. */
static int replay_record(void *arg, const struct store_record *r, uint32_t offset)
{
    if (r->timestamp_us <= newest)
        sim_fail("V15: a record of %llu follows one of %llu",
                 (unsigned long long)r->timestamp_us, (unsigned long long)newest);
    newest = r->timestamp_us;
    if (r->key[0] == FS_CLASS_SESSION && r->key_size == 9 && !r->value)
        *find_or_add(&ended, get_be64(r->key + 1), 0) = 1;
    if (ends_session(r) && *(const bool *)arg)
        *find_or_add(&taken, get_be64(r->key + 1), 0) = 1;
    else if (ends_session(r))
        verify_session_ends(get_be64(r->key + 1));
    uint64_t *k = find_or_add(&keys, key_hash(r->key, r->key_size), 0);
    if (k[KEY_LIVE])
        digest -= ledger_key_digest(r->key, r->key_size, k[KEY_VERSION]);
    k[KEY_LIVE] = r->value != NULL;
    k[KEY_VERSION] = r->timestamp_us;
    k[KEY_VALUE] = r->value ? ledger_hash(r->value, r->value_size) : 0;
    if (k[KEY_LIVE])
        digest += ledger_key_digest(r->key, r->key_size, k[KEY_VERSION]);
    return 0;
}

bool ledger_took(uint64_t session)
{
    return find(&taken, session, 0);
}

static void note_request(const struct store_entry *e)
{
    uint64_t *asked = find_or_add(&requests, e->session, e->request);
    if (*asked)
        sim_fail("V10: request %llu of session %llu is committed twice",
                 (unsigned long long)e->request, (unsigned long long)e->session);
    *asked = 1;
}

void ledger_decide(const struct store_entry *e, const uint8_t *data, size_t length,
                   uint64_t hash)
{
    ensure(e->index == last + 1);
    if (e->index >= capacity) {
        capacity = 2 * capacity + 1024;
        decided = realloc(decided, capacity * sizeof(*decided));
        ensure(decided);
    }
    if (e->session && e->request && find(&ended, e->session, 0))
        sim_fail("V17: request %llu of session %llu is committed behind its end",
                 (unsigned long long)e->request, (unsigned long long)e->session);
    struct members members;
    bool changes = entry_config(data, length, &members);
    store_entry_each(data, length, replay_record, &changes);
    decided[e->index] = (struct decided){.term = e->term, .hash = hash, .digest = digest};
    last = e->index;
    if (e->session && e->request)
        note_request(e);
    else if (e->session)
        fault(session_opened);
}

uint64_t ledger_last(void)
{
    return last;
}

struct decided *ledger_at(uint64_t index)
{
    ensure(index > 0 && index <= last);
    return &decided[index];
}

bool ledger_value(const void *key, size_t size, uint64_t *ret_hash)
{
    const uint64_t *k = find(&keys, key_hash(key, size), 0);
    if (!k || !k[KEY_LIVE])
        return false;
    *ret_hash = k[KEY_VALUE];
    return true;
}

bool verify_happened(uint64_t session, uint64_t request)
{
    return find(&requests, session, request) != NULL;
}

uint64_t verify_committed(void)
{
    return last;
}
