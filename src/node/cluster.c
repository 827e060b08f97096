/* cluster.c - the bytes of what a cluster keeps about itself (class C), and of the
 * operations that change it. They are evaluated in evaluate.c, evaluate_members.c
 * and evaluate_ca.c. */
#include "node_internal.h"

#include <errno.h>

enum {
    MEMBER_VOTER = 1,
    MEMBER_OBSERVER = 2,
};

enum { JOIN_OBSERVER = 1 };
enum { REMOVE_ASKS = 1 };

static void key_of(struct fs_key *key, const char *what)
{
    size_t length = strlen(what);
    key->size = (uint32_t)(1 + length);
    key->bytes[0] = FS_CLASS_CLUSTER;
    memcpy(key->bytes + 1, what, length);
}

static void key_of_id(struct fs_key *key, const char *what, uint64_t id)
{
    key_of(key, what);
    put_be64(key->bytes + key->size, id);
    key->size += 8;
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
    key_of_id(key, "token", id);
}

void cluster_key_removed(struct fs_key *key, uint64_t node_id)
{
    key_of_id(key, "removed", node_id);
}

/* ---- Records --------------------------------------------------------------------- */

static uint8_t member_flags(const struct member *m)
{
    return (uint8_t)((m->voter ? MEMBER_VOTER : 0) | (m->observer ? MEMBER_OBSERVER : 0));
}

void members_encode(const struct members *members, struct buf *to)
{
    ensure(members->count <= LIMIT_MEMBERS);
    buf_u16(to, members->version);
    buf_u32(to, members->count);
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member *m = &members->list[i];
        buf_u64(to, m->id);
        buf_u8(to, member_flags(m));
        buf_u16(to, m->version);
        buf_u32(to, m->ca);
        buf_cstring(to, m->name);
        buf_cstring(to, m->address);
    }
    for (uint32_t i = 0; i < members->count; i++)
        if (members->version >= NODE_VERSION_PROGRAMS)
            buf_cstring(to, members->list[i].program);
}

static void read_member(struct reader *r, struct member *m)
{
    m->id = reader_u64(r);
    uint8_t flags = reader_u8(r);
    m->voter = flags == MEMBER_VOTER;
    m->observer = flags == MEMBER_OBSERVER;
    m->version = reader_u16(r);
    m->ca = reader_u32(r);
    reader_cstring(r, m->name, sizeof(m->name));
    reader_cstring(r, m->address, sizeof(m->address));
    if (!m->id || flags > MEMBER_OBSERVER || !m->version)
        r->bad = true;
}

static void read_members(struct reader *r, struct members *ret)
{
    ret->version = reader_u16(r);
    r->bad |= !ret->version;
    ret->count = reader_u32(r);
    if (ret->count > LIMIT_MEMBERS) {
        r->bad = true;
        ret->count = 0;
    }
    for (uint32_t i = 0; i < ret->count && !r->bad; i++) {
        read_member(r, &ret->list[i]);
        for (uint32_t k = 0; k < i; k++)
            if (ret->list[k].id == ret->list[i].id)
                r->bad = true;
    }
    for (uint32_t i = 0; i < ret->count && !r->bad; i++)
        if (ret->version >= NODE_VERSION_PROGRAMS)
            reader_cstring(r, ret->list[i].program, sizeof(ret->list[i].program));
    if (ret->version > NODE_VERSION_PROGRAMS && !r->bad)
        r->at = r->end; /* who must know what follows is told so by the version */
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

const struct member *members_find_name(const struct members *members, const char *name)
{
    for (uint32_t i = 0; i < members->count; i++)
        if (strcmp(members->list[i].name, name) == 0)
            return &members->list[i];
    return NULL;
}

void removed_record_encode(const struct removed_record *record, struct buf *to)
{
    buf_u64(to, record->timestamp_us);
    buf_cstring(to, record->name);
}

int removed_record_decode(const void *data, size_t length, struct removed_record *ret)
{
    struct reader r = reader_of(data, length);
    struct removed_record record = {.timestamp_us = reader_u64(&r)};
    reader_cstring(&r, record.name, sizeof(record.name));
    if (!reader_done(&r) || !node_name_valid(record.name))
        return -EBADMSG;
    *ret = record;
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

static void encode_join(const struct node_op *op, struct buf *to)
{
    buf_u64(to, op->token_id);
    buf_bytes(to, op->secret, sizeof(op->secret));
    buf_bytes(to, op->key_hash, sizeof(op->key_hash));
    buf_cstring(to, op->name);
    buf_cstring(to, op->address);
    buf_u64(to, op->next_token_id);
    token_record_encode(&op->record, to);
    buf_u8(to, op->observer ? JOIN_OBSERVER : 0);
    buf_u16(to, op->version);
    buf_cstring(to, op->replace);
}

static void decode_join(struct reader *r, struct node_op *op)
{
    op->token_id = reader_u64(r);
    read_fixed(r, op->secret, sizeof(op->secret));
    read_fixed(r, op->key_hash, sizeof(op->key_hash));
    reader_cstring(r, op->name, sizeof(op->name));
    reader_cstring(r, op->address, sizeof(op->address));
    op->next_token_id = reader_u64(r);
    read_token_record(r, &op->record);
    uint8_t flags = reader_u8(r);
    op->observer = flags == JOIN_OBSERVER;
    op->version = reader_u16(r);
    reader_cstring(r, op->replace, sizeof(op->replace));
    if (!node_name_valid(op->name) || !node_address_valid(op->address) || !op->token_id ||
        !op->next_token_id || op->next_token_id == op->token_id || op->record.node_id ||
        flags > JOIN_OBSERVER || !op->version ||
        (op->replace[0] && !node_name_valid(op->replace)))
        r->bad = true;
}

static void encode_session(const struct node_op *op, struct buf *to)
{
    buf_u64(to, op->node_id);
    buf_u64(to, op->nonce);
}

static void decode_session(struct reader *r, struct node_op *op)
{
    op->node_id = reader_u64(r);
    op->nonce = reader_u64(r);
    r->bad |= !op->node_id;
}

static void encode_invite(const struct node_op *op, struct buf *to)
{
    buf_u64(to, op->token_id);
    token_record_encode(&op->record, to);
}

static void decode_invite(struct reader *r, struct node_op *op)
{
    op->token_id = reader_u64(r);
    read_token_record(r, &op->record);
    r->bad |= !op->token_id || op->record.node_id;
}

static void encode_id(const struct node_op *op, struct buf *to)
{
    buf_u64(to, op->node_id);
}

static void decode_any_id(struct reader *r, struct node_op *op)
{
    op->node_id = reader_u64(r);
}

static void decode_id(struct reader *r, struct node_op *op)
{
    decode_any_id(r, op);
    r->bad |= !op->node_id;
}

static void encode_remove(const struct node_op *op, struct buf *to)
{
    buf_u64(to, op->node_id);
    buf_u8(to, op->ask ? REMOVE_ASKS : 0);
}

static void decode_remove(struct reader *r, struct node_op *op)
{
    op->node_id = reader_u64(r);
    uint8_t flags = reader_u8(r);
    op->ask = flags == REMOVE_ASKS;
    r->bad |= !op->node_id || flags > REMOVE_ASKS;
}

static void encode_report(const struct node_op *op, struct buf *to)
{
    buf_u64(to, op->node_id);
    buf_u16(to, op->version);
    buf_u32(to, op->ca);
    buf_cstring(to, op->address);
    if (op->program[0])
        buf_cstring(to, op->program);
}

static void decode_report(struct reader *r, struct node_op *op)
{
    op->node_id = reader_u64(r);
    op->version = reader_u16(r);
    op->ca = reader_u32(r);
    reader_cstring(r, op->address, sizeof(op->address));
    bool program = !r->bad && reader_left(r) > 0;
    if (program)
        reader_cstring(r, op->program, sizeof(op->program));
    r->bad |= !op->node_id || !op->version || !node_address_valid(op->address) ||
              (program && !op->program[0]);
}

static void encode_version(const struct node_op *op, struct buf *to)
{
    buf_u16(to, op->version);
}

static void decode_version(struct reader *r, struct node_op *op)
{
    op->version = reader_u16(r);
    r->bad |= !op->version;
}

static void encode_rotate(const struct node_op *op, struct buf *to)
{
    buf_u32(to, op->ca);
    buf_cstring(to, op->ca_key_pem);
    buf_cstring(to, op->ca_cert_pem);
}

static void decode_rotate(struct reader *r, struct node_op *op)
{
    op->ca = reader_u32(r);
    reader_cstring(r, op->ca_key_pem, sizeof(op->ca_key_pem));
    reader_cstring(r, op->ca_cert_pem, sizeof(op->ca_cert_pem));
    r->bad |= !op->ca_key_pem[0] || !op->ca_cert_pem[0];
}

static void encode_step(const struct node_op *op, struct buf *to)
{
    buf_u32(to, op->ca);
}

static void decode_step(struct reader *r, struct node_op *op)
{
    op->ca = reader_u32(r);
}

static void encode_end(const struct node_op *op, struct buf *to)
{
    buf_u64(to, op->session);
}

static void decode_end(struct reader *r, struct node_op *op)
{
    op->session = reader_u64(r);
    r->bad |= !op->session;
}

static const struct op_codec {
    void (*encode)(const struct node_op *op, struct buf *to);
    void (*decode)(struct reader *r, struct node_op *op); /* r->bad: not valid */
} op_codecs[NODE_OP_LAST + 1 - NODE_OP_FIRST] = {
    [NODE_OP_SESSION - NODE_OP_FIRST] = {encode_session, decode_session},
    [NODE_OP_INVITE - NODE_OP_FIRST] = {encode_invite, decode_invite},
    [NODE_OP_JOIN - NODE_OP_FIRST] = {encode_join, decode_join},
    [NODE_OP_PROMOTE - NODE_OP_FIRST] = {encode_id, decode_id},
    [NODE_OP_REMOVE - NODE_OP_FIRST] = {encode_remove, decode_remove},
    [NODE_OP_REPORT - NODE_OP_FIRST] = {encode_report, decode_report},
    [NODE_OP_TRANSFER - NODE_OP_FIRST] = {encode_id, decode_any_id},
    [NODE_OP_VERSION - NODE_OP_FIRST] = {encode_version, decode_version},
    [NODE_OP_ROTATE_CA - NODE_OP_FIRST] = {encode_rotate, decode_rotate},
    [NODE_OP_ADVANCE_CA - NODE_OP_FIRST] = {encode_step, decode_step},
    [NODE_OP_END_SESSION - NODE_OP_FIRST] = {encode_end, decode_end},
};

void node_op_encode(const struct node_op *op, struct buf *to)
{
    ensure(op->type >= NODE_OP_FIRST && op->type <= NODE_OP_LAST);
    buf_u8(to, (uint8_t)op->type);
    op_codecs[op->type - NODE_OP_FIRST].encode(op, to);
}

int node_op_decode(const void *data, size_t length, struct node_op *ret)
{
    struct reader r = reader_of(data, length);
    uint8_t type = reader_u8(&r);
    if (r.bad || type < NODE_OP_FIRST || type > NODE_OP_LAST)
        return -EPROTO;
    struct node_op op = {.type = (enum node_op_type)type};
    op_codecs[type - NODE_OP_FIRST].decode(&r, &op);
    if (!reader_done(&r))
        return -EPROTO;
    *ret = op;
    return 0;
}
