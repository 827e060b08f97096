/* control_codec.c - a node's status as bytes. */
#include "node_internal.h"

#include <errno.h>

enum { STATUS_QUORUM = 1, STATUS_SPACE_LOW = 2, STATUS_FLAGS = 3 };
enum { MEMBER_VOTER = 1, MEMBER_REACHABLE = 2, MEMBER_FLAGS = 3 };

void node_status_encode(const struct node_status *s, struct buf *to)
{
    ensure(s->member_count <= LIMIT_MEMBERS);
    buf_cstring(to, s->name);
    buf_u64(to, s->id);
    buf_bytes(to, s->cluster, sizeof(s->cluster));
    buf_u8(to, (uint8_t)s->role);
    buf_u64(to, s->term);
    buf_u64(to, s->leader);
    buf_u64(to, s->commit);
    buf_u64(to, s->applied);
    buf_u64(to, s->last);
    buf_u8(to, (uint8_t)((s->quorum ? STATUS_QUORUM : 0) |
                         (s->space_low ? STATUS_SPACE_LOW : 0)));
    buf_cstring(to, s->mountpoint);
    buf_cstring(to, s->version);
    buf_u32(to, s->pid);
    buf_u64(to, s->keys);
    buf_u64(to, s->log_bytes);
    buf_u64(to, s->disk_free_bytes);
    buf_u64(to, s->refused);
    buf_u32(to, s->member_count);
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct node_member *m = &s->members[i];
        buf_cstring(to, m->name);
        buf_u64(to, m->id);
        buf_cstring(to, m->address);
        buf_u8(to, (uint8_t)((m->voter ? MEMBER_VOTER : 0) |
                             (m->reachable ? MEMBER_REACHABLE : 0)));
        buf_u64(to, m->applied);
    }
}

static void read_state(struct reader *r, struct node_status *s)
{
    uint8_t role = reader_u8(r);
    s->role = (enum node_role)role;
    r->bad |= role > NODE_LEARNER;
    s->term = reader_u64(r);
    s->leader = reader_u64(r);
    s->commit = reader_u64(r);
    s->applied = reader_u64(r);
    s->last = reader_u64(r);
    uint8_t flags = reader_u8(r);
    r->bad |= flags & ~STATUS_FLAGS;
    s->quorum = flags & STATUS_QUORUM;
    s->space_low = flags & STATUS_SPACE_LOW;
}

static void read_member(struct reader *r, struct node_member *m)
{
    reader_cstring(r, m->name, sizeof(m->name));
    m->id = reader_u64(r);
    reader_cstring(r, m->address, sizeof(m->address));
    uint8_t flags = reader_u8(r);
    r->bad |= flags & ~MEMBER_FLAGS;
    m->voter = flags & MEMBER_VOTER;
    m->reachable = flags & MEMBER_REACHABLE;
    m->applied = reader_u64(r);
}

int node_status_decode(const void *data, size_t length, struct node_status *ret)
{
    struct reader r = reader_of(data, length);
    struct node_status *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    reader_cstring(&r, s->name, sizeof(s->name));
    s->id = reader_u64(&r);
    const uint8_t *cluster = reader_bytes(&r, sizeof(s->cluster));
    if (cluster)
        memcpy(s->cluster, cluster, sizeof(s->cluster));
    read_state(&r, s);
    reader_cstring(&r, s->mountpoint, sizeof(s->mountpoint));
    reader_cstring(&r, s->version, sizeof(s->version));
    s->pid = reader_u32(&r);
    s->keys = reader_u64(&r);
    s->log_bytes = reader_u64(&r);
    s->disk_free_bytes = reader_u64(&r);
    s->refused = reader_u64(&r);
    s->member_count = reader_u32(&r);
    r.bad |= s->member_count > LIMIT_MEMBERS;
    for (uint32_t i = 0; i < s->member_count && !r.bad; i++)
        read_member(&r, &s->members[i]);
    int result = reader_done(&r) ? 0 : -EPROTO;
    if (!result)
        *ret = *s;
    free(s);
    return result;
}
