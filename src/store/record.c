/*
 * record.c - the record: the unit that has a checksum, on disk, on the wire and in
 * memory.
 *
 *   0  crc32 u32         IEEE, over all that follows it
 *   4  timestamp_us u64
 *  12  key_size u32      1 .. LIMIT_KEY_BYTES
 *  16  value_size u32    0 .. LIMIT_ENTRY_BYTES, or STORE_TOMBSTONE: no value bytes
 *  20  key, value
 *
 * Little-endian. A record of any other sizes is not valid.
 */
#include "store_internal.h"

int store_record_read(struct reader *r, struct store_record *ret)
{
    uint32_t crc = reader_u32(r);
    const uint8_t *covered = r->at;
    struct store_record record = {.timestamp_us = reader_u64(r)};
    record.key_size = reader_u32(r);
    uint32_t value_size = reader_u32(r);
    if (record.key_size == 0 || record.key_size > LIMIT_KEY_BYTES)
        return -EBADMSG;
    record.key = reader_bytes(r, record.key_size);
    if (value_size != STORE_TOMBSTONE) {
        if (value_size > LIMIT_ENTRY_BYTES)
            return -EBADMSG;
        record.value = reader_bytes(r, value_size);
        record.value_size = value_size;
    }
    if (r->bad || crc32_of(0, covered, (size_t)(r->at - covered)) != crc)
        return -EBADMSG;
    *ret = record;
    return 0;
}

struct store_bytes *store_bytes_new(size_t length)
{
    ensure(length <= UINT32_MAX);
    struct store_bytes *b = malloc(sizeof(*b) + length);
    if (!b)
        return NULL;
    atomic_init(&b->references, 1);
    b->length = (uint32_t)length;
    return b;
}

struct store_bytes *store_bytes_of(const void *data, size_t length)
{
    struct store_bytes *b = store_bytes_new(length);
    if (b && length)
        memcpy(b->data, data, length);
    return b;
}

struct store_bytes *store_bytes_ref(struct store_bytes *b)
{
    uint32_t before = atomic_fetch_add_explicit(&b->references, 1, memory_order_relaxed);
    ensure(before > 0 && before < UINT32_MAX);
    return b;
}

void store_bytes_unref(struct store_bytes *b)
{
    if (!b)
        return;
    uint32_t before = atomic_fetch_sub_explicit(&b->references, 1, memory_order_acq_rel);
    ensure(before > 0);
    if (before == 1)
        free(b);
}
