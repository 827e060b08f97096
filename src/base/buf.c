/* buf.c - the growable byte string. */
#include "base.h"

#include <stdarg.h>

enum { BUF_LEAST = 64 };

void buf_release(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
    b->length = 0;
    b->failed = false;
}

void buf_reserve(struct buf *b, size_t more)
{
    if (b->failed || b->capacity - b->length >= more)
        return;
    if (more > SIZE_MAX / 2 || b->capacity > SIZE_MAX / 4) {
        b->failed = true;
        return;
    }
    /* Twice as much, and not twice that for a large piece: queues bound bytes, not room. */
    size_t capacity = b->capacity ? 2 * b->capacity : BUF_LEAST;
    if (capacity < b->length + more)
        capacity = b->length + more;
    uint8_t *data = realloc(b->data, capacity);
    if (!data) {
        b->failed = true;
        return;
    }
    b->data = data;
    b->capacity = capacity;
}

uint8_t *buf_extend(struct buf *b, size_t length)
{
    buf_reserve(b, length);
    if (b->failed)
        return NULL;
    uint8_t *at = b->data ? b->data + b->length : NULL;
    b->length += length;
    return at;
}

void buf_bytes(struct buf *b, const void *data, size_t length)
{
    uint8_t *at = buf_extend(b, length);
    if (at && length)
        memcpy(at, data, length);
}

void buf_u8(struct buf *b, uint8_t v)
{
    buf_bytes(b, &v, 1);
}

void buf_u16(struct buf *b, uint16_t v)
{
    uint8_t bytes[2];
    put_u16(bytes, v);
    buf_bytes(b, bytes, sizeof(bytes));
}

void buf_u32(struct buf *b, uint32_t v)
{
    uint8_t bytes[4];
    put_u32(bytes, v);
    buf_bytes(b, bytes, sizeof(bytes));
}

void buf_u64(struct buf *b, uint64_t v)
{
    uint8_t bytes[8];
    put_u64(bytes, v);
    buf_bytes(b, bytes, sizeof(bytes));
}

void buf_be64(struct buf *b, uint64_t v)
{
    uint8_t bytes[8];
    put_be64(bytes, v);
    buf_bytes(b, bytes, sizeof(bytes));
}

void buf_string(struct buf *b, const void *data, size_t length)
{
    ensure(length <= UINT16_MAX);
    buf_u16(b, (uint16_t)length);
    buf_bytes(b, data, length);
}

void buf_cstring(struct buf *b, const char *s)
{
    buf_string(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ensure(length >= 0);
    buf_reserve(b, (size_t)length + 1);
    if (!b->failed) {
        vsnprintf((char *)b->data + b->length, (size_t)length + 1, format, again);
        b->length += (size_t)length;
    }
    va_end(again);
}

uint8_t *buf_steal(struct buf *b, size_t *ret_length)
{
    uint8_t *data = b->data;
    *ret_length = b->length;
    *b = (struct buf){0};
    return data;
}
