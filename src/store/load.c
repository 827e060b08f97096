/*
 * load.c - the keydir from hints: all of them are read side by side in key order, of each
 * key the newest record is taken, and what is taken is appended to the keydir. No value
 * is read and nothing is searched for, so start-up costs little more than reading the
 * hints.
 */
#include "pool.h"

/* Where a source stands: the first 8 bytes of its record's key decide most comparisons.
 */
struct load_cursor {
    uint64_t prefix;
    size_t source;
};

struct keydir_loader {
    struct keydir *keydir;
    const struct load_source *sources;
    size_t source_count;
    bool filled;
    struct hint_record *records; /* by source */
    struct load_cursor *heap;    /* the lowest key first, of one key the newest record */
    size_t count;
    size_t bad;
    uint64_t prefix; /* of: */
    uint8_t
        key[LIMIT_KEY_BYTES]; /* the last that was taken or, for a tombstone, passed */
    uint32_t key_size;
};

static uint64_t prefix_of(const uint8_t *key, uint32_t size)
{
    if (size >= 8)
        return get_be64(key);
    uint8_t bytes[8] = {0};
    memcpy(bytes, key, size);
    return get_be64(bytes);
}

static bool comes_before(const struct keydir_loader *load, const struct load_cursor *a,
                         const struct load_cursor *b)
{
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix;
    const struct hint_record *x = &load->records[a->source];
    const struct hint_record *y = &load->records[b->source];
    int order = key_compare(x->key, x->key_size, y->key, y->key_size);
    return order != 0 ? order < 0 : x->timestamp_us > y->timestamp_us;
}

/* The same as a number, without a branch where the prefixes tell: which of two children
 * is lower cannot be foretold. */
static size_t lower(const struct keydir_loader *load, const struct load_cursor *a,
                    const struct load_cursor *b)
{
    if (__builtin_expect(a->prefix == b->prefix, 0))
        return comes_before(load, a, b);
    return a->prefix < b->prefix;
}

static void sift_down(struct keydir_loader *load, size_t i)
{
    struct load_cursor moved = load->heap[i];
    for (size_t child; (child = 2 * i + 1) < load->count; i = child) {
        if (child + 1 < load->count)
            child += lower(load, &load->heap[child + 1], &load->heap[child]);
        if (!comes_before(load, &load->heap[child], &moved))
            break;
        load->heap[i] = load->heap[child];
    }
    load->heap[i] = moved;
}

/* 1: the cursor stands at its source's next record; 0: that is at its end. */
static int advance(struct keydir_loader *load, struct load_cursor *cursor)
{
    struct hint_record *record = &load->records[cursor->source];
    int rc = hint_reader_next(load->sources[cursor->source].hint, record);
    if (rc < 0)
        load->bad = cursor->source;
    if (rc > 0)
        cursor->prefix = prefix_of(record->key, record->key_size);
    return rc;
}

static int fill_heap(struct keydir_loader *load)
{
    for (size_t i = 0; i < load->source_count; i++) {
        struct load_cursor *cursor = &load->heap[load->count];
        cursor->source = i;
        int rc = advance(load, cursor);
        if (rc < 0)
            return rc;
        load->count += (size_t)rc;
    }
    for (size_t i = load->count / 2; i-- > 0;)
        sift_down(load, i);
    load->filled = true;
    return 0;
}

/* The newest record of a key stands first: those that follow are superseded. */
static int take(struct keydir_loader *load, const struct load_cursor *cursor)
{
    const struct hint_record *record = &load->records[cursor->source];
    if (cursor->prefix == load->prefix &&
        key_compare(record->key, record->key_size, load->key, load->key_size) == 0)
        return 0;
    load->prefix = cursor->prefix;
    memcpy(load->key, record->key, record->key_size);
    load->key_size = record->key_size;
    if (record->value_size == STORE_TOMBSTONE)
        return 0;
    return keydir_load(load->keydir, record, load->sources[cursor->source].segment);
}

int keydir_loader_new(struct keydir *keydir, const struct load_source *sources,
                      size_t count, struct keydir_loader **ret)
{
    struct keydir_loader *load = calloc(1, sizeof(*load));
    if (!load)
        return -ENOMEM;
    load->keydir = keydir;
    load->sources = sources;
    load->source_count = count;
    load->heap = calloc(count + 1, sizeof(*load->heap));
    load->records = calloc(count + 1, sizeof(*load->records));
    if (!load->heap || !load->records) {
        keydir_loader_free(load);
        return -ENOMEM;
    }
    *ret = load;
    return 0;
}

/* The lowest key's newest record, and its source one further. */
static int load_one(struct keydir_loader *load)
{
    int rc = take(load, &load->heap[0]);
    if (rc == 0)
        rc = advance(load, &load->heap[0]);
    if (rc == 0)
        load->heap[0] = load->heap[--load->count];
    if (rc >= 0 && load->count > 0)
        sift_down(load, 0);
    return rc < 0 ? rc : 0;
}

int keydir_loader_step(struct keydir_loader *load, size_t records, size_t *ret_bad)
{
    int rc = load->filled ? 0 : fill_heap(load);
    pool_expect_many(load->keydir->pool, true);
    for (; rc == 0 && load->count > 0 && records > 0; records--)
        rc = load_one(load);
    pool_expect_many(load->keydir->pool, false);
    if (rc == -EBADMSG)
        *ret_bad = load->bad;
    return rc == 0 && load->count > 0 ? 1 : rc;
}

void keydir_loader_free(struct keydir_loader *load)
{
    if (!load)
        return;
    free(load->heap);
    free(load->records);
    free(load);
}

int keydir_load_all(struct keydir *keydir, const struct load_source *sources,
                    size_t count, size_t *ret_bad)
{
    struct keydir_loader *load;
    int rc = keydir_loader_new(keydir, sources, count, &load);
    if (rc != 0)
        return rc;
    rc = keydir_loader_step(load, SIZE_MAX, ret_bad);
    keydir_loader_free(load);
    return rc;
}
