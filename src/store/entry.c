/*
 * entry.c - the entry: one entry record, then its data records (G1, G2).
 *
 * The entry record is a record with the key 0x00 and this value of 76 bytes:
 *
 *   0  index u64          28  commit u64 (the leader's)   52  result, 16 bytes
 *   8  term u64           36  session u64                 68  record_count u32
 *  16  prev_term u64      44  request u64                 72  length u32
 *  24  prev_crc u32
 *
 * prev_crc is the crc32 field of the previous entry's entry record; both are 0 for
 * entry 1. The data records follow without a gap; their timestamps are the entry record's
 * + 1, + 2,
 * ...; no key stands twice, none is 0x00. `length` counts all bytes, the entry record's
 * too.
 */
#include "store_internal.h"

enum { BUILDER_BYTES = 512 }; /* a builder begins with: most entries are small */

static const uint8_t entry_key[1] = {0};

int entry_head_decode(const void *data, size_t length, struct store_entry *ret)
{
    if (length < STORE_ENTRY_HEADER)
        return -EBADMSG;
    struct reader r = reader_of(data, STORE_ENTRY_HEADER);
    struct store_record record;
    if (store_record_read(&r, &record) != 0 || !reader_done(&r) || !record.value ||
        record.key_size != sizeof(entry_key) || record.key[0] != entry_key[0])
        return -EBADMSG;
    struct reader v = reader_of(record.value, record.value_size);
    struct store_entry e = {.timestamp_us = record.timestamp_us, .crc = get_u32(data)};
    e.index = reader_u64(&v);
    e.term = reader_u64(&v);
    e.prev_term = reader_u64(&v);
    e.prev_crc = reader_u32(&v);
    e.commit = reader_u64(&v);
    e.session = reader_u64(&v);
    e.request = reader_u64(&v);
    const uint8_t *result = reader_bytes(&v, STORE_RESULT_BYTES);
    e.record_count = reader_u32(&v);
    e.length = reader_u32(&v);
    if (!reader_done(&v) || e.index == 0 || e.length < STORE_ENTRY_HEADER ||
        e.length > LIMIT_ENTRY_BYTES || e.record_count > LIMIT_ENTRY_RECORDS ||
        e.timestamp_us > UINT64_MAX - LIMIT_ENTRY_RECORDS)
        return -EBADMSG;
    memcpy(e.result, result, sizeof(e.result));
    *ret = e;
    return 0;
}

int store_entry_decode(const void *data, size_t length, struct store_entry *ret)
{
    struct store_entry e;
    if (entry_head_decode(data, length, &e) != 0 || e.length > length)
        return -EBADMSG;
    *ret = e;
    return 0;
}

bool chain_continues(const struct chain *end, const struct store_entry *entry)
{
    return entry->index == end->index + 1 && entry->prev_term == end->term &&
           entry->prev_crc == end->crc && entry->term >= end->term &&
           entry->timestamp_us > end->timestamp_us;
}

struct chain chain_after(const struct store_entry *entry)
{
    return (struct chain){.index = entry->index,
                          .term = entry->term,
                          .timestamp_us = entry->timestamp_us + entry->record_count,
                          .crc = entry->crc};
}

/* ---- No key twice (G2) ------------------------------------------------------------- */

/* Open addressing over the offsets of the records seen so far; 0 is free, as no data
 * record begins there. */
struct key_set {
    const uint8_t *data;
    uint32_t mask;
    uint32_t slots[2 * LIMIT_ENTRY_RECORDS];
};

_Static_assert((LIMIT_ENTRY_RECORDS & (LIMIT_ENTRY_RECORDS - 1)) == 0, "a power of two");

static void key_set_init(struct key_set *set, const uint8_t *data, uint32_t count)
{
    uint32_t size = 2;
    while (size < 2 * count)
        size *= 2;
    set->data = data;
    set->mask = size - 1;
    memset(set->slots, 0, size * sizeof(set->slots[0]));
}

/* Whether the key of the record at `offset` is new. */
static bool key_set_add(struct key_set *set, const struct store_record *record,
                        uint32_t offset)
{
    uint32_t at = crc32_of(0, record->key, record->key_size) & set->mask;
    for (; set->slots[at]; at = (at + 1) & set->mask) {
        const uint8_t *other = set->data + set->slots[at];
        if (get_u32(other + 12) == record->key_size &&
            memcmp(other + STORE_RECORD_HEADER, record->key, record->key_size) == 0)
            return false;
    }
    set->slots[at] = offset;
    return true;
}

int store_entry_verify(const void *data, size_t length, struct store_entry *ret)
{
    struct store_entry e;
    if (store_entry_decode(data, length, &e) != 0)
        return -EBADMSG;
    struct key_set set;
    key_set_init(&set, data, e.record_count);
    struct reader r = reader_of((const uint8_t *)data + STORE_ENTRY_HEADER,
                                e.length - STORE_ENTRY_HEADER);
    for (uint32_t i = 0; i < e.record_count; i++) {
        uint32_t offset = (uint32_t)(r.at - (const uint8_t *)data);
        struct store_record record;
        if (store_record_read(&r, &record) != 0 ||
            record.timestamp_us != e.timestamp_us + 1 + i ||
            (record.key_size == sizeof(entry_key) && record.key[0] == entry_key[0]) ||
            !key_set_add(&set, &record, offset))
            return -EBADMSG;
    }
    if (!reader_done(&r))
        return -EBADMSG;
    *ret = e;
    return 0;
}

/* As store_record_read, of bytes whose checksum has been checked before. */
static struct store_record record_at(const uint8_t *data)
{
    struct store_record record = {.timestamp_us = get_u64(data + 4),
                                  .key = data + STORE_RECORD_HEADER,
                                  .key_size = get_u32(data + 12)};
    uint32_t value_size = get_u32(data + 16);
    if (value_size != STORE_TOMBSTONE) {
        record.value = record.key + record.key_size;
        record.value_size = value_size;
    }
    return record;
}

int store_entry_each(const void *data, size_t length,
                     int (*each)(void *arg, const struct store_record *record,
                                 uint32_t offset_bytes),
                     void *arg)
{
    for (size_t at = STORE_ENTRY_HEADER; at < length;) {
        ensure(length - at > STORE_RECORD_HEADER);
        struct store_record record = record_at((const uint8_t *)data + at);
        size_t size = STORE_RECORD_HEADER + (size_t)record.key_size + record.value_size;
        ensure(size <= length - at);
        int rc = each(arg, &record, (uint32_t)at);
        if (rc != 0)
            return rc;
        at += size;
    }
    return 0;
}

/* ---- Building ---------------------------------------------------------------------- */

/* The entry is built where it stays: as store_bytes. */
static uint8_t *built(const struct store_builder *b)
{
    return b->bytes.data + sizeof(struct store_bytes);
}

void store_builder_begin(struct store_builder *b, uint64_t timestamp_us)
{
    ensure(timestamp_us > 0 && timestamp_us <= UINT64_MAX - LIMIT_ENTRY_RECORDS);
    buf_clear(&b->bytes);
    b->timestamp_us = timestamp_us;
    b->record_count = 0;
    buf_reserve(&b->bytes, BUILDER_BYTES);
    buf_extend(&b->bytes, sizeof(struct store_bytes) + STORE_ENTRY_HEADER);
}

/* Everything but the checksum, which needs it. */
void record_encode(struct buf *to, uint64_t timestamp_us, const void *key,
                          size_t key_size, const void *value, size_t value_size)
{
    size_t at = to->length;
    buf_u32(to, 0);
    buf_u64(to, timestamp_us);
    buf_u32(to, (uint32_t)key_size);
    buf_u32(to, value ? (uint32_t)value_size : STORE_TOMBSTONE);
    buf_bytes(to, key, key_size);
    if (value)
        buf_bytes(to, value, value_size);
    if (!to->failed)
        put_u32(to->data + at, crc32_of(0, to->data + at + 4, to->length - at - 4));
}

uint64_t store_builder_put(struct store_builder *b, const void *key, size_t key_size,
                           const void *value, size_t value_size)
{
    ensure(key_size > 0 && key_size <= LIMIT_KEY_BYTES);
    ensure(key_size != sizeof(entry_key) || *(const uint8_t *)key != entry_key[0]);
    ensure(value ? value_size < STORE_TOMBSTONE : value_size == 0);
    b->timestamp_us++;
    b->record_count++;
    record_encode(&b->bytes, b->timestamp_us, key, key_size, value, value_size);
    return b->timestamp_us;
}

size_t store_builder_length(const struct store_builder *b)
{
    return b->bytes.length > 0 ? b->bytes.length - sizeof(struct store_bytes) : 0;
}

static void entry_head_encode(uint8_t to[STORE_ENTRY_HEADER], const struct store_entry *e)
{
    put_u64(to + 4, e->timestamp_us);
    put_u32(to + 12, sizeof(entry_key));
    put_u32(to + 16, STORE_ENTRY_VALUE);
    to[STORE_RECORD_HEADER] = entry_key[0];
    uint8_t *v = to + STORE_RECORD_HEADER + sizeof(entry_key);
    put_u64(v, e->index);
    put_u64(v + 8, e->term);
    put_u64(v + 16, e->prev_term);
    put_u32(v + 24, e->prev_crc);
    put_u64(v + 28, e->commit);
    put_u64(v + 36, e->session);
    put_u64(v + 44, e->request);
    memcpy(v + 52, e->result, STORE_RESULT_BYTES);
    put_u32(v + 68, e->record_count);
    put_u32(v + 72, e->length);
    put_u32(to, crc32_of(0, to + 4, STORE_ENTRY_HEADER - 4));
}

static int check_key(void *arg, const struct store_record *record, uint32_t offset)
{
    ensure(key_set_add(arg, record, offset)); /* G2 */
    return 0;
}

/* Without what was allocated ahead. NULL: no memory. */
static struct store_bytes *take_bytes(struct store_builder *b)
{
    struct store_bytes *bytes = realloc(b->bytes.data, b->bytes.length);
    if (!bytes)
        return NULL;
    atomic_init(&bytes->references, 1);
    bytes->length = (uint32_t)store_builder_length(b);
    b->bytes = (struct buf){0};
    return bytes;
}

int store_builder_finish(struct store_builder *b, const struct store_entry *head,
                         struct store_bytes **ret)
{
    ensure(head->index > 0);
    if (b->bytes.failed)
        return -ENOMEM;
    size_t length = store_builder_length(b);
    if (length > LIMIT_ENTRY_BYTES || b->record_count > LIMIT_ENTRY_RECORDS)
        return -E2BIG;
    struct key_set set;
    key_set_init(&set, built(b), b->record_count);
    store_entry_each(built(b), length, check_key, &set);
    struct store_entry e = *head;
    e.timestamp_us = b->timestamp_us - b->record_count;
    e.record_count = b->record_count;
    e.length = (uint32_t)length;
    entry_head_encode(built(b), &e);
    struct store_bytes *bytes = take_bytes(b);
    if (!bytes)
        return -ENOMEM;
    *ret = bytes;
    return 0;
}

void store_builder_release(struct store_builder *b)
{
    buf_release(&b->bytes);
}
