/* fetch_codec.c - FETCH and FETCHED as bytes: docs/protocol.md. */
#include "fetch.h"

#include <errno.h>

void fetch_request_encode(const struct fetch_request *q, struct buf *to)
{
    buf_u64(to, q->id);
    buf_u8(to, (uint8_t)q->kind);
    switch (q->kind) {
    case FETCH_SNAPSHOT:
        return;
    case FETCH_CHUNK:
        buf_u64(to, q->snapshot);
        buf_u32(to, q->file);
        buf_u64(to, q->offset);
        buf_u32(to, q->length);
        return;
    case FETCH_CLOSE:
    case FETCH_KEEP:
        buf_u64(to, q->snapshot);
        return;
    case FETCH_RECORD:
        buf_u64(to, q->timestamp_us);
        buf_string(to, q->key, q->key_size);
        return;
    case FETCH_ENTRY:
        buf_u64(to, q->index);
        buf_u64(to, q->term);
        return;
    }
    ensure(false && "a kind of question");
}

static void read_chunk(struct reader *r, struct fetch_request *q)
{
    q->snapshot = reader_u64(r);
    q->file = reader_u32(r);
    q->offset = reader_u64(r);
    q->length = reader_u32(r);
    r->bad |= q->length == 0 || q->length > STORE_CHUNK_BYTES ||
              q->offset > UINT64_MAX - STORE_CHUNK_BYTES;
}

static void read_record(struct reader *r, struct fetch_request *q)
{
    size_t size;
    q->timestamp_us = reader_u64(r);
    const uint8_t *key = reader_string(r, &size);
    if (!key || size == 0 || size > LIMIT_KEY_BYTES) {
        r->bad = true;
        return;
    }
    memcpy(q->key, key, size);
    q->key_size = (uint32_t)size;
}

int fetch_request_decode(const void *data, size_t length, struct fetch_request *ret)
{
    struct reader r = reader_of(data, length);
    struct fetch_request q = {.id = reader_u64(&r)};
    uint8_t kind = reader_u8(&r);
    q.kind = (enum fetch_kind)kind;
    switch (kind) {
    case FETCH_SNAPSHOT:
        break;
    case FETCH_CHUNK:
        read_chunk(&r, &q);
        break;
    case FETCH_CLOSE:
    case FETCH_KEEP:
        q.snapshot = reader_u64(&r);
        break;
    case FETCH_RECORD:
        read_record(&r, &q);
        break;
    case FETCH_ENTRY:
        q.index = reader_u64(&r);
        q.term = reader_u64(&r);
        r.bad |= q.index == 0;
        break;
    default:
        return -EPROTO;
    }
    if (!reader_done(&r))
        return -EPROTO;
    *ret = q;
    return 0;
}

void fetch_answer_head(uint8_t to[FETCH_HEAD_BYTES], uint64_t id, int error)
{
    put_u64(to, id);
    put_u32(to + 8, (uint32_t)error);
}

int fetch_answer_decode(const void *data, size_t length, uint64_t *ret_id, int *ret_error,
                        const uint8_t **ret_bytes, size_t *ret_length)
{
    struct reader r = reader_of(data, length);
    uint64_t id = reader_u64(&r);
    uint32_t error = reader_u32(&r);
    size_t left = reader_left(&r);
    if (r.bad || error > 4095 || (error && left))
        return -EPROTO;
    *ret_id = id;
    *ret_error = (int)error;
    *ret_bytes = reader_bytes(&r, left);
    *ret_length = left;
    return 0;
}
