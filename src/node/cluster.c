/* cluster.c - the bytes of what a cluster keeps about itself (class C), and of the
 * operations that change it. Their evaluation is in evaluate.c. */
#include "node_internal.h"

#include <errno.h>

enum {
    MEMBER_VOTER = 1,
};

static void key_of(struct fs_key *key, const char *what)
{
    size_t length = strlen(what);
    key->size = (uint32_t)(1 + length);
    key->bytes[0] = FS_CLASS_CLUSTER;
    memcpy(key->bytes + 1, what, length);
}

void cluster_key_config(struct fs_key *key)
{
    key_of(key, "config");
}

void cluster_key_ca(struct fs_key *key)
{
    key_of(key, "ca");
}

void cluster_key_token(struct fs_key *key, uint64_t id)
{
    key_of(key, "token");
    put_be64(key->bytes + key->size, id);
    key->size += 8;
}

/* ---- Records --------------------------------------------------------------------- */

void members_encode(const struct members *members, struct buf *to)
{
    ensure(members->count <= LIMIT_MEMBERS);
    buf_u32(to, members->count);
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member *m = &members->list[i];
        buf_u64(to, m->id);
        buf_u8(to, m->voter ? MEMBER_VOTER : 0);
        buf_cstring(to, m->name);
        buf_cstring(to, m->address);
    }
}

static void read_members(struct reader *r, struct members *ret)
{
    ret->count = reader_u32(r);
    if (ret->count > LIMIT_MEMBERS) {
        r->bad = true;
        ret->count = 0;
    }
    for (uint32_t i = 0; i < ret->count && !r->bad; i++) {
        struct member *m = &ret->list[i];
        m->id = reader_u64(r);
        uint8_t flags = reader_u8(r);
        m->voter = flags == MEMBER_VOTER;
        reader_cstring(r, m->name, sizeof(m->name));
        reader_cstring(r, m->address, sizeof(m->address));
        if (!m->id || flags > MEMBER_VOTER)
            r->bad = true;
        for (uint32_t k = 0; k < i; k++)
            if (ret->list[k].id == m->id)
                r->bad = true;
    }
}

int members_decode(const void *data, size_t length, struct members *ret)
{
    struct reader r = reader_of(data, length);
    struct members members = {0};
    read_members(&r, &members);
    if (!reader_done(&r))
        return -EBADMSG;
    *ret = members;
    return 0;
}

const struct member *members_find(const struct members *members, uint64_t id)
{
    for (uint32_t i = 0; i < members->count; i++)
        if (members->list[i].id == id)
            return &members->list[i];
    return NULL;
}

void ca_encode(const char *key_pem, const char *cert_pem, struct buf *to)
{
    buf_cstring(to, key_pem);
    buf_cstring(to, cert_pem);
}

int ca_decode(const void *data, size_t length, char **ret_key_pem, char **ret_cert_pem)
{
    struct reader r = reader_of(data, length);
    char key[CLUSTER_PEM_BYTES], cert[CLUSTER_PEM_BYTES];
    reader_cstring(&r, key, sizeof(key));
    reader_cstring(&r, cert, sizeof(cert));
    if (!reader_done(&r))
        return -EBADMSG;
    char *key_pem = strdup(key), *cert_pem = strdup(cert);
    if (!key_pem || !cert_pem) {
        free(key_pem);
        free(cert_pem);
        return -ENOMEM;
    }
    *ret_key_pem = key_pem;
    *ret_cert_pem = cert_pem;
    return 0;
}

static void read_fixed(struct reader *r, void *to, size_t length)
{
    const uint8_t *at = reader_bytes(r, length);
    if (at)
        memcpy(to, at, length);
}

void token_record_encode(const struct token_record *record, struct buf *to)
{
    buf_bytes(to, record->secret_hash, sizeof(record->secret_hash));
    buf_u64(to, record->expires_us);
    buf_u64(to, record->node_id);
    buf_bytes(to, record->key_hash, sizeof(record->key_hash));
}

static void read_token_record(struct reader *r, struct token_record *ret)
{
    read_fixed(r, ret->secret_hash, sizeof(ret->secret_hash));
    ret->expires_us = reader_u64(r);
    ret->node_id = reader_u64(r);
    read_fixed(r, ret->key_hash, sizeof(ret->key_hash));
}

int token_record_decode(const void *data, size_t length, struct token_record *ret)
{
    struct reader r = reader_of(data, length);
    struct token_record record = {0};
    read_token_record(&r, &record);
    if (!reader_done(&r))
        return -EBADMSG;
    *ret = record;
    return 0;
}

/* ---- Operations ------------------------------------------------------------------ */

void node_op_encode(const struct node_op *op, struct buf *to)
{
    buf_u8(to, (uint8_t)op->type);
    switch (op->type) {
    case NODE_OP_SESSION:
        buf_u64(to, op->node_id);
        buf_u64(to, op->nonce);
        return;
    case NODE_OP_INVITE:
        buf_u64(to, op->token_id);
        token_record_encode(&op->record, to);
        return;
    case NODE_OP_JOIN:
        buf_u64(to, op->token_id);
        buf_bytes(to, op->secret, sizeof(op->secret));
        buf_bytes(to, op->key_hash, sizeof(op->key_hash));
        buf_cstring(to, op->name);
        buf_cstring(to, op->address);
        buf_u64(to, op->next_token_id);
        token_record_encode(&op->record, to);
        return;
    case NODE_OP_PROMOTE:
        buf_u64(to, op->node_id);
        return;
    }
    ensure(!"a type of node operation");
}

static void read_join(struct reader *r, struct node_op *op)
{
    op->token_id = reader_u64(r);
    read_fixed(r, op->secret, sizeof(op->secret));
    read_fixed(r, op->key_hash, sizeof(op->key_hash));
    reader_cstring(r, op->name, sizeof(op->name));
    reader_cstring(r, op->address, sizeof(op->address));
    op->next_token_id = reader_u64(r);
    read_token_record(r, &op->record);
    if (!node_name_valid(op->name) || !node_address_valid(op->address) || !op->token_id ||
        !op->next_token_id || op->next_token_id == op->token_id || op->record.node_id)
        r->bad = true;
}

int node_op_decode(const void *data, size_t length, struct node_op *ret)
{
    struct reader r = reader_of(data, length);
    struct node_op op = {.type = (enum node_op_type)reader_u8(&r)};
    switch (op.type) {
    case NODE_OP_SESSION:
        op.node_id = reader_u64(&r);
        op.nonce = reader_u64(&r);
        r.bad |= !op.node_id;
        break;
    case NODE_OP_INVITE:
        op.token_id = reader_u64(&r);
        read_token_record(&r, &op.record);
        r.bad |= !op.token_id || op.record.node_id;
        break;
    case NODE_OP_JOIN:
        read_join(&r, &op);
        break;
    case NODE_OP_PROMOTE:
        op.node_id = reader_u64(&r);
        r.bad |= !op.node_id;
        break;
    default:
        return -EPROTO;
    }
    if (!reader_done(&r))
        return -EPROTO;
    *ret = op;
    return 0;
}
