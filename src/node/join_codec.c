/* join_codec.c - JOIN and its answer as bytes (docs/protocol.md). */
#include "node_internal.h"

#include <errno.h>

enum { JOIN_OBSERVER = 1 }; /* of flags */

void join_request_encode(const struct join_request *r, struct buf *to)
{
    buf_u64(to, r->token_id);
    buf_bytes(to, r->secret, sizeof(r->secret));
    buf_cstring(to, r->name);
    buf_cstring(to, r->address);
    buf_cstring(to, r->request_pem);
    buf_u8(to, r->observer ? JOIN_OBSERVER : 0);
    buf_u16(to, r->version);
    buf_cstring(to, r->replace);
}

int join_request_decode(const void *data, size_t length, struct join_request *ret)
{
    struct reader r = reader_of(data, length);
    struct join_request request = {.token_id = reader_u64(&r)};
    const uint8_t *secret = reader_bytes(&r, sizeof(request.secret));
    if (secret)
        memcpy(request.secret, secret, sizeof(request.secret));
    reader_cstring(&r, request.name, sizeof(request.name));
    reader_cstring(&r, request.address, sizeof(request.address));
    reader_cstring(&r, request.request_pem, sizeof(request.request_pem));
    uint8_t flags = reader_u8(&r);
    request.observer = flags == JOIN_OBSERVER;
    request.version = reader_u16(&r);
    reader_cstring(&r, request.replace, sizeof(request.replace));
    if (!reader_done(&r) || flags > JOIN_OBSERVER || !request.version)
        return -EPROTO;
    *ret = request;
    return 0;
}

void join_answer_encode(const struct join_answer *a, struct buf *to)
{
    buf_u64(to, a->node_id);
    buf_bytes(to, a->cluster_id, sizeof(a->cluster_id));
    buf_cstring(to, a->ca_pem);
    buf_cstring(to, a->cert_pem);
    buf_cstring(to, a->next_token);
    members_encode(&a->members, to);
}

int join_answer_decode(const void *data, size_t length, struct join_answer *ret)
{
    struct reader r = reader_of(data, length);
    struct join_answer *a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    a->node_id = reader_u64(&r);
    const uint8_t *cluster_id = reader_bytes(&r, sizeof(a->cluster_id));
    if (cluster_id)
        memcpy(a->cluster_id, cluster_id, sizeof(a->cluster_id));
    reader_cstring(&r, a->ca_pem, sizeof(a->ca_pem));
    reader_cstring(&r, a->cert_pem, sizeof(a->cert_pem));
    reader_cstring(&r, a->next_token, sizeof(a->next_token));
    int result = r.bad ? -EPROTO : members_decode(r.at, reader_left(&r), &a->members);
    if (result || !members_find(&a->members, a->node_id))
        result = -EPROTO;
    else
        *ret = *a;
    free(a);
    return result;
}
