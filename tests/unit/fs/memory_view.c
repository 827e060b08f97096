/* memory_view.c - an array of records, ordered by key. */
#include "memory_view.h"

#include <errno.h>

static int key_compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
    int order = memcmp(a, b, min_u64(a_size, b_size));
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

/* The place of the first record whose key is not below this one. */
static size_t find(const struct memory *m, const void *key, size_t key_size)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct memory_record *r = m->records[middle];
        if (key_compare(r->key, r->key_size, key, key_size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct memory *m, size_t at, const void *key, size_t key_size)
{
    return at < m->count &&
           key_compare(m->records[at]->key, m->records[at]->key_size, key, key_size) == 0;
}

static int enter(struct memory *m)
{
    if (m->before)
        m->before(m->before_arg);
    pthread_mutex_lock(&m->mutex);
    m->calls++;
    return m->calls == m->fail_at ? m->fail_error : 0;
}

static int view_get(void *context, const void *key, size_t key_size, struct buf *to,
                    uint64_t *ret_timestamp)
{
    struct memory *m = context;
    int error = enter(m);
    size_t at = find(m, key, key_size);
    if (!error && !is_at(m, at, key, key_size))
        error = -ENOENT;
    if (!error) {
        buf_bytes(to, m->records[at]->value, m->records[at]->value_size);
        if (ret_timestamp)
            *ret_timestamp = m->records[at]->timestamp_us;
    }
    pthread_mutex_unlock(&m->mutex);
    return error;
}

static int view_scan(void *context, const void *from, size_t from_size, const void *to,
                     size_t to_size, int (*each)(void *arg, const struct fs_item *item),
                     void *arg)
{
    struct memory *m = context;
    int result = enter(m);
    for (size_t at = find(m, from, from_size); !result && at < m->count; at++) {
        const struct memory_record *r = m->records[at];
        if (to_size && key_compare(r->key, r->key_size, to, to_size) >= 0)
            break;
        struct fs_item item = {
            .key = r->key,
            .key_size = r->key_size,
            .value = r->value_size <= LIMIT_KEYDIR_INLINE_BYTES ? r->value : NULL,
            .value_size = r->value_size,
            .timestamp_us = r->timestamp_us,
        };
        result = each(arg, &item);
    }
    pthread_mutex_unlock(&m->mutex);
    return result;
}

static uint64_t view_begin(void *context)
{
    struct memory *m = context;
    pthread_mutex_lock(&m->mutex);
    uint64_t sequence = m->sequence;
    pthread_mutex_unlock(&m->mutex);
    return sequence;
}

static bool view_retry(void *context, uint64_t begun)
{
    return begun % 2 || view_begin(context) != begun;
}

static uint64_t change_put(void *context, const void *key, size_t key_size,
                           const void *value, size_t value_size)
{
    struct memory *m = context;
    ensure(key_size > 0 && key_size <= LIMIT_KEY_BYTES && (value || value_size == 0));
    struct memory_record *r = malloc(sizeof(*r) + key_size + value_size);
    ensure(r);
    *r = (struct memory_record){
        .timestamp_us = m->change.timestamp_us + m->pending_count + 1,
        .key_size = (uint32_t)key_size,
        .value_size = (uint32_t)value_size,
        .tombstone = !value,
        .value = r->key + key_size,
    };
    memcpy(r->key, key, key_size);
    if (value_size)
        memcpy(r->value, value, value_size);
    if (m->pending_count == m->pending_capacity) {
        m->pending_capacity = m->pending_capacity ? 2 * m->pending_capacity : 64;
        m->pending = realloc(m->pending, m->pending_capacity * sizeof(*m->pending));
        ensure(m->pending);
    }
    m->pending[m->pending_count++] = r;
    m->pending_bytes += key_size + value_size;
    return r->timestamp_us;
}

static int record_compare(const void *a, const void *b)
{
    const struct memory_record *ra = *(struct memory_record *const *)a;
    const struct memory_record *rb = *(struct memory_record *const *)b;
    return key_compare(ra->key, ra->key_size, rb->key, rb->key_size);
}

static void check_pending(struct memory *m)
{
    enum { RECORD_HEADER = 20, ENTRY_HEADER = 97 };
    ensure(m->pending_count == m->change.records);
    ensure(m->pending_count <= LIMIT_ENTRY_RECORDS);
    ensure(m->pending_bytes + m->pending_count * RECORD_HEADER + ENTRY_HEADER <=
           LIMIT_ENTRY_BYTES);
    if (m->pending_count)
        m->timestamp_us = m->change.timestamp_us + m->pending_count;
    qsort(m->pending, m->pending_count, sizeof(*m->pending), record_compare);
    for (size_t i = 1; i < m->pending_count; i++)
        ensure(record_compare(&m->pending[i - 1], &m->pending[i]) != 0);
}

static void apply(struct memory *m, struct memory_record *r)
{
    size_t at = find(m, r->key, r->key_size);
    bool there = is_at(m, at, r->key, r->key_size);
    if (there)
        free(m->records[at]);
    if (r->tombstone) {
        /* A tombstone of nothing is a waste that evaluation should not make. */
        ensure(there);
        memmove(m->records + at, m->records + at + 1,
                (m->count - at - 1) * sizeof(*m->records));
        m->count--;
        free(r);
        return;
    }
    if (!there) {
        if (m->count == m->capacity) {
            m->capacity = m->capacity ? 2 * m->capacity : 256;
            m->records = realloc(m->records, m->capacity * sizeof(*m->records));
            ensure(m->records);
        }
        memmove(m->records + at + 1, m->records + at,
                (m->count - at) * sizeof(*m->records));
        m->count++;
    }
    m->records[at] = r;
}

void memory_init(struct memory *m)
{
    *m = (struct memory){.timestamp_us = 1000000};
    pthread_mutex_init(&m->mutex, NULL);
    fs_format(memory_begin(m, 0, 0));
    memory_commit(m);
}

void memory_release(struct memory *m)
{
    memory_abort(m);
    for (size_t i = 0; i < m->count; i++)
        free(m->records[i]);
    free(m->records);
    free(m->pending);
    pthread_mutex_destroy(&m->mutex);
}

struct fs_view memory_view(struct memory *m)
{
    return (struct fs_view){
        .context = m,
        .get = view_get,
        .scan = view_scan,
        .begin = view_begin,
        .retry = view_retry,
    };
}

struct fs_change *memory_begin(struct memory *m, uint64_t session, uint64_t timestamp_us)
{
    ensure(m->pending_count == 0);
    m->change = (struct fs_change){
        .context = m,
        .put = change_put,
        .timestamp_us = max_u64(m->timestamp_us + 1, timestamp_us),
        .session = session,
    };
    return &m->change;
}

void memory_commit(struct memory *m)
{
    pthread_mutex_lock(&m->mutex);
    check_pending(m);
    m->sequence += m->pending_count > 0;
    for (size_t i = 0; i < m->pending_count; i++) {
        apply(m, m->pending[i]);
        pthread_mutex_unlock(&m->mutex); /* readers see an entry half applied */
        pthread_mutex_lock(&m->mutex);
    }
    m->sequence += m->pending_count > 0;
    m->pending_count = 0;
    m->pending_bytes = 0;
    pthread_mutex_unlock(&m->mutex);
}

void memory_abort(struct memory *m)
{
    for (size_t i = 0; i < m->pending_count; i++)
        free(m->pending[i]);
    m->pending_count = 0;
    m->pending_bytes = 0;
}

int memory_do(struct memory *m, const struct fs_op *op, uint64_t session,
              struct fs_result *ret)
{
    struct fs_view view = memory_view(m);
    uint64_t reserved = op->type == FS_RESERVE ? op->size : 0;
    struct fs_change *change = memory_begin(m, session, m->timestamp_us + 1 + reserved);
    int error = fs_evaluate(&view, op, change, ret);
    if (error)
        memory_abort(m);
    else if (op->type == FS_RESERVE)
        m->timestamp_us = change->timestamp_us;
    if (!error)
        memory_commit(m);
    return error;
}
