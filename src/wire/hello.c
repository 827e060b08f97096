/*
 * hello.c - the first frame each way, and the last one to who is not let in.
 *
 *   HELLO    version u16 | oldest u16 | cluster id 16 bytes | node id u64 | features u64
 *            | clock_us u64 | name: u16 length, bytes | address: u16 length, bytes
 *   REFUSAL  reason u8 | text: u16 length, bytes                     (little-endian)
 *
 * Valid HELLO: 0 < oldest <= version; the fields fill the frame, but for a version above
 * ours, which may have more; name at most LIMIT_NAME_BYTES, address at most
 * LIMIT_ADDRESS_BYTES, neither holds a NUL. Who may send which ids is connection.c's.
 * Valid REFUSAL: the fields fill the frame, the reason is not 0, text below
 * WIRE_ERROR_BYTES. The start of HELLO, and REFUSAL, are the same in every version.
 */
#include "wire_internal.h"

#include <errno.h>

void wire_hello_encode(const struct wire_hello *hello, struct buf *to)
{
    buf_u16(to, hello->version);
    buf_u16(to, hello->oldest);
    buf_bytes(to, hello->cluster_id, sizeof(hello->cluster_id));
    buf_u64(to, hello->node_id);
    buf_u64(to, hello->features);
    buf_u64(to, hello->clock_us);
    buf_cstring(to, hello->name);
    buf_cstring(to, hello->address);
}

int wire_hello_decode(const void *data, size_t length, struct wire_hello *ret)
{
    struct reader r = reader_of(data, length);
    struct wire_hello hello = {0};
    hello.version = reader_u16(&r);
    hello.oldest = reader_u16(&r);
    const uint8_t *cluster_id = reader_bytes(&r, sizeof(hello.cluster_id));
    if (cluster_id)
        memcpy(hello.cluster_id, cluster_id, sizeof(hello.cluster_id));
    hello.node_id = reader_u64(&r);
    hello.features = reader_u64(&r);
    hello.clock_us = reader_u64(&r);
    reader_cstring(&r, hello.name, sizeof(hello.name));
    reader_cstring(&r, hello.address, sizeof(hello.address));
    bool newer = hello.version > WIRE_PROTOCOL_VERSION;
    if (r.bad || (!newer && reader_left(&r)))
        return -EPROTO;
    if (hello.oldest == 0 || hello.oldest > hello.version)
        return -EPROTO;
    *ret = hello;
    return 0;
}

void refusal_encode(enum wire_refusal reason, const char *text, struct buf *to)
{
    ensure(reason != WIRE_REFUSAL_NONE && strlen(text) < WIRE_ERROR_BYTES);
    buf_u8(to, (uint8_t)reason);
    buf_cstring(to, text);
}

int refusal_decode(const void *data, size_t length, enum wire_refusal *ret_reason,
                   char ret_text[WIRE_ERROR_BYTES])
{
    struct reader r = reader_of(data, length);
    char text[WIRE_ERROR_BYTES];
    uint8_t reason = reader_u8(&r);
    reader_cstring(&r, text, sizeof(text));
    if (!reader_done(&r) || reason == WIRE_REFUSAL_NONE)
        return -EPROTO;
    for (char *at = text; *at; at++) /* it goes into a log */
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    *ret_reason = reason <= WIRE_REFUSAL_OTHER ? reason : WIRE_REFUSAL_OTHER;
    memcpy(ret_text, text, sizeof(text));
    return 0;
}
