/*
 * read.c - values and entries, from any thread.
 *
 * A reader's section (RCU) lasts over its pread: the node it found and the node's
 * segment, file descriptor and all, stay until it is out. A slow disk so delays only the
 * freeing of memory, never the loop. What is read is believed only if its checksum is
 * right and it is the record the keydir means: same key, same timestamp (G1).
 */
#include "store_internal.h"

static ssize_t read_bytes(const struct store_io *io, int fd, void *to, size_t length,
                          uint64_t offset, unsigned flags)
{
    if (!(flags & STORE_NOWAIT))
        return read_full(io, fd, to, length, offset);
    ssize_t n = io->pread_nowait(io->context, fd, to, length, offset);
    return n >= 0 && (size_t)n < length ? -EAGAIN : n;
}

static bool is_record_of(const struct keydir_node *node, const uint8_t *data,
                         size_t length, struct store_record *ret)
{
    struct reader r = reader_of(data, length);
    return store_record_read(&r, ret) == 0 && reader_done(&r) && ret->value &&
           ret->value_size == node->value_size &&
           ret->timestamp_us == node->timestamp_us &&
           key_compare(ret->key, ret->key_size, keydir_key(node),
                       keydir_key_size(node)) == 0;
}

/* Reads the node's whole record behind `to`'s end, without taking it in. */
static int read_behind(const struct store *s, const struct keydir_node *node,
                       unsigned flags, struct buf *to, struct store_record *ret)
{
    uint64_t place = keydir_place(node);
    if (place == PLACE_GONE)
        return -ESTALE;
    size_t start = to->length, length = keydir_record_bytes(node);
    uint8_t *data = buf_extend(to, length);
    if (!data)
        return -ENOMEM;
    to->length = start;
    ssize_t n = read_bytes(s->io, place_segment(s->slots, place)->fd, data, length,
                           place_offset(place), flags);
    if (n < 0)
        return (int)n;
    return (size_t)n == length && is_record_of(node, data, length, ret) ? 0 : -EBADMSG;
}

int read_raw(const struct store *s, const struct keydir_node *node, unsigned flags,
             struct buf *to)
{
    struct store_record record;
    int rc = read_behind(s, node, flags, to, &record);
    if (rc == 0)
        to->length += keydir_record_bytes(node);
    return rc;
}

int read_value(const struct store *s, const struct keydir_node *node, unsigned flags,
               struct buf *to)
{
    struct store_record record;
    int rc = read_behind(s, node, flags, to, &record);
    if (rc != 0)
        return rc;
    memmove(to->data + to->length, record.value, record.value_size);
    to->length += record.value_size;
    return 0;
}

/* The loop replaces it whole when a snapshot is installed. */
const struct keydir *store_keydir(const struct store *s)
{
    return __atomic_load_n(&s->keydir, __ATOMIC_ACQUIRE);
}

/* *ret_timestamp also where it cannot be read: what is damaged has a name. */
static int get_once(struct store *s, const void *key, size_t key_size, unsigned flags,
                    struct buf *to, uint64_t *ret_timestamp)
{
    const struct keydir_node *node = keydir_find(store_keydir(s), key, key_size);
    if (!node)
        return -ENOENT;
    *ret_timestamp = node->timestamp_us;
    const uint8_t *value = keydir_value(node);
    if (!value)
        return read_value(s, node, flags, to);
    buf_bytes(to, value, node->value_size);
    return to->failed ? -ENOMEM : 0;
}

int store_get(struct store *s, const void *key, size_t key_size, unsigned flags,
              struct buf *to, uint64_t *ret_timestamp)
{
    int rc = -EBADMSG;
    uint64_t timestamp = 0;
    /* Twice: a repair may be writing the block just now (G9). */
    for (int attempt = 0; attempt < 2 && rc == -EBADMSG; attempt++) {
        do {
            reading_begin();
            rc = get_once(s, key, key_size, flags, to, &timestamp);
            reading_end();
        } while (rc == -ESTALE); /* its successor is there by now */
        if (rc == -EIO)          /* a block that cannot be read is one to be repaired */
            rc = -EBADMSG;
        if (rc == -EBADMSG)
            atomic_fetch_add_explicit(&s->bad_reads, 1, memory_order_relaxed);
    }
    if (rc == -EBADMSG)
        damage_found_record(s, key, key_size, timestamp);
    if (rc == 0 && ret_timestamp)
        *ret_timestamp = timestamp;
    return rc;
}

static struct store_item keydir_item(const struct keydir_node *node)
{
    return (struct store_item){.key = keydir_key(node),
                               .key_size = keydir_key_size(node),
                               .value = keydir_value(node),
                               .value_size = node->value_size,
                               .timestamp_us = node->timestamp_us};
}

static struct store_item ahead_item(const struct ahead_node *node)
{
    bool small = node->value_size <= LIMIT_KEYDIR_INLINE_BYTES;
    return (struct store_item){.key = skip_key(&node->skip),
                               .key_size = node->skip.key_size,
                               .value = small ? node->value : NULL,
                               .value_size = node->value_size,
                               .timestamp_us = node->timestamp_us};
}

static bool is_below(const uint8_t *key, uint32_t key_size, const void *to,
                     size_t to_size)
{
    return to_size == 0 || key_compare(key, key_size, to, to_size) < 0;
}

static bool node_below(const struct keydir_node *node, const void *to, size_t to_size)
{
    return node && is_below(keydir_key(node), keydir_key_size(node), to, to_size);
}

int store_scan(struct store *s, const void *from, size_t from_size, const void *to,
               size_t to_size, int (*each)(void *arg, const struct store_item *item),
               void *arg)
{
    int rc = 0;
    reading_begin();
    struct keydir_cursor cursor;
    const struct keydir_node *at = keydir_seek(store_keydir(s), &cursor, from, from_size);
    for (; rc == 0 && node_below(at, to, to_size); at = keydir_next(&cursor)) {
        struct store_item item = keydir_item(at);
        rc = each(arg, &item);
    }
    reading_end();
    return rc;
}

/* Every pointer of the keydir is loaded with acquire, so that a reader that met one of an
 * entry's nodes finds the sequence changed. */
uint64_t store_read_begin(struct store *s)
{
    uint64_t sequence;
    do
        sequence = __atomic_load_n(&s->sequence, __ATOMIC_ACQUIRE);
    while (sequence & 1);
    return sequence;
}

bool store_read_retry(struct store *s, uint64_t begun)
{
    return __atomic_load_n(&s->sequence, __ATOMIC_ACQUIRE) != begun;
}

/* ---- On the loop: with what is ahead ----------------------------------------------- */

int store_get_ahead(struct store *s, const void *key, size_t key_size, struct buf *to,
                    uint64_t *ret_timestamp)
{
    const struct skip_node *found = skip_find(&s->ahead, key, key_size);
    if (!found)
        return store_get(s, key, key_size, STORE_NOWAIT, to, ret_timestamp);
    const struct ahead_node *node = ahead_node_of(found);
    if (!node->value)
        return -ENOENT;
    buf_bytes(to, node->value, node->value_size);
    if (to->failed)
        return -ENOMEM;
    if (ret_timestamp)
        *ret_timestamp = node->timestamp_us;
    return 0;
}

/* Where two ordered lists are merged: -1: the keydir's key is next, 1: the ahead index's,
 * 0: the same key in both. */
static int next_of(const struct keydir_node *applied, const struct skip_node *ahead)
{
    if (!applied || !ahead)
        return applied ? -1 : 1;
    return key_compare(keydir_key(applied), keydir_key_size(applied), skip_key(ahead),
                       ahead->key_size);
}

int store_scan_ahead(struct store *s, const void *from, size_t from_size, const void *to,
                     size_t to_size,
                     int (*each)(void *arg, const struct store_item *item), void *arg)
{
    int rc = 0;
    reading_begin();
    struct keydir_cursor cursor;
    const struct keydir_node *applied = keydir_seek(s->keydir, &cursor, from, from_size);
    const struct skip_node *ahead = skip_seek(&s->ahead, from, from_size);
    while (rc == 0) {
        bool have_applied = node_below(applied, to, to_size);
        bool have_ahead =
            ahead && is_below(skip_key(ahead), ahead->key_size, to, to_size);
        if (!have_applied && !have_ahead)
            break;
        int order = next_of(have_applied ? applied : NULL, have_ahead ? ahead : NULL);
        struct store_item item;
        bool hidden = false;
        if (order < 0) {
            item = keydir_item(applied);
        } else {
            item = ahead_item(ahead_node_of(ahead));
            hidden = !ahead_node_of(ahead)->value;
        }
        if (!hidden)
            rc = each(arg, &item);
        if (order <= 0)
            applied = keydir_next(&cursor);
        if (order >= 0)
            ahead = skip_next(ahead);
    }
    reading_end();
    return rc;
}

/* ---- Entries ----------------------------------------------------------------------- */

struct store_read {
    struct store *s;
    struct segment *segment; /* a reference; NULL: the entries are in `bytes` */
    struct store_bytes *bytes;
    uint64_t offset;
    size_t length;
    uint64_t first, last;
};

static int plan_cached(struct store *s, size_t max_bytes, struct store_read *read)
{
    read->last = read->first;
    read->length = tail_at(&s->tail, read->first)->bytes->length;
    for (struct tail_entry *entry; (entry = tail_at(&s->tail, read->last + 1));
         read->last++) {
        if (read->length + entry->bytes->length > max_bytes)
            break;
        read->length += entry->bytes->length;
    }
    read->bytes = store_bytes_new(read->length);
    if (!read->bytes)
        return -ENOMEM;
    size_t at = 0;
    for (uint64_t index = read->first; index <= read->last; index++) {
        struct store_bytes *bytes = tail_at(&s->tail, index)->bytes;
        memcpy(read->bytes->data + at, bytes->data, bytes->length);
        at += bytes->length;
    }
    return 0;
}

/* Entries that are not cached are applied, so their bytes are on disk and stay. */
static void plan_disk(struct store *s, size_t max_bytes, struct store_read *read)
{
    struct segment *segment = store_segment_of(s, read->first);
    uint64_t last = segment_last(segment);
    if (s->tail.count > 0)
        last = min_u64(last, s->tail.first - 1);
    read->segment = segment_ref(segment);
    read->offset = segment->offsets[read->first - segment->first_index];
    read->last = read->first;
    read->length = segment_entry_length(segment, read->first);
    for (; read->last < last; read->last++) {
        size_t length = segment_entry_length(segment, read->last + 1);
        if (read->length + length > max_bytes)
            break;
        read->length += length;
    }
}

int store_read_plan(struct store *s, uint64_t first, size_t max_bytes,
                    struct store_read **ret)
{
    if (first <= s->base.index || first > s->end.index)
        return -ENOENT;
    struct store_read *read = calloc(1, sizeof(*read));
    if (!read)
        return -ENOMEM;
    read->s = s;
    read->first = first;
    int rc = 0;
    if (tail_at(&s->tail, first))
        rc = plan_cached(s, max_bytes, read);
    else
        plan_disk(s, max_bytes, read);
    if (rc != 0) {
        store_read_free(read);
        return rc;
    }
    *ret = read;
    return 0;
}

/* The first entry of the range that is not intact, and its term, 0 where that cannot be
 * read; 0: all are. */
static uint64_t first_bad(const struct store_read *read, const struct store_bytes *bytes,
                          uint64_t *ret_term)
{
    size_t at = 0;
    for (uint64_t index = read->first; index <= read->last; index++) {
        struct store_entry entry;
        const uint8_t *data = bytes->data + at;
        if (store_entry_verify(data, bytes->length - at, &entry) != 0 ||
            entry.index != index) {
            bool have_head = entry_head_decode(data, bytes->length - at, &entry) == 0;
            *ret_term = have_head && entry.index == index ? entry.term : 0;
            return index;
        }
        at += entry.length;
    }
    return at == bytes->length ? 0 : read->last;
}

int store_read_run(struct store_read *read, struct store_bytes **ret, uint64_t *ret_last)
{
    struct store_bytes *bytes =
        read->bytes ? store_bytes_ref(read->bytes) : store_bytes_new(read->length);
    if (!bytes)
        return -ENOMEM;
    int rc = read->bytes ? 0 : -EBADMSG;
    uint64_t bad = read->first, term = 0;
    for (int attempt = 0; attempt < 2 && rc == -EBADMSG; attempt++) {
        ssize_t n = read_full(read->segment->io, read->segment->fd, bytes->data,
                              read->length, read->offset);
        if (n < 0 && n != -EIO)
            rc = (int)n;
        else if (n == (ssize_t)read->length && (bad = first_bad(read, bytes, &term)) == 0)
            rc = 0;
    }
    if (rc == -EBADMSG)
        damage_found_entry(read->s, bad, term);
    if (rc != 0) {
        store_bytes_unref(bytes);
        return rc;
    }
    *ret = bytes;
    *ret_last = read->last;
    return 0;
}

void store_read_free(struct store_read *read)
{
    if (!read)
        return;
    segment_unref(read->segment);
    store_bytes_unref(read->bytes);
    free(read);
}
