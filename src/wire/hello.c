/*
 * hello.c - the first frame each way.
 *
 *   version u16 | cluster id 16 bytes | node id u64 | features u64 | clock_us u64
 *   | name: u16 length, bytes | address: u16 length, bytes          (little-endian)
 *
 * Valid: the fields fill the frame; name at most LIMIT_NAME_BYTES, address at most
 * LIMIT_ADDRESS_BYTES, neither holds a NUL. Who may send which ids is connection.c's.
 */
#include "wire_internal.h"

#include <errno.h>

void wire_hello_encode(const struct wire_hello *hello, struct buf *to)
{
    buf_u16(to, hello->version);
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
    const uint8_t *cluster_id = reader_bytes(&r, sizeof(hello.cluster_id));
    if (cluster_id)
        memcpy(hello.cluster_id, cluster_id, sizeof(hello.cluster_id));
    hello.node_id = reader_u64(&r);
    hello.features = reader_u64(&r);
    hello.clock_us = reader_u64(&r);
    reader_cstring(&r, hello.name, sizeof(hello.name));
    reader_cstring(&r, hello.address, sizeof(hello.address));
    if (!reader_done(&r))
        return -EPROTO;
    *ret = hello;
    return 0;
}
