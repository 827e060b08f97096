/* control_codec.c - a node's status as bytes. */
#include "node_internal.h"

#include <errno.h>

enum {
    STATUS_QUORUM = 1,
    STATUS_SPACE_LOW = 2,
    STATUS_COMPLETE = 4,
    STATUS_DISK_HUNG = 8,
    STATUS_FLAGS = 15,
};
enum { MEMBER_VOTER = 1, MEMBER_REACHABLE = 2, MEMBER_OBSERVER = 4, MEMBER_FLAGS = 7 };

/* Of what is on the disk, in the order of their bytes. */
static const size_t disk_numbers[] = {
    offsetof(struct node_status, keys),
    offsetof(struct node_status, log_bytes),
    offsetof(struct node_status, disk_free_bytes),
    offsetof(struct node_status, base),
    offsetof(struct node_status, live_bytes),
    offsetof(struct node_status, merged_bytes),
    offsetof(struct node_status, merged_files),
    offsetof(struct node_status, hint_bytes),
    offsetof(struct node_status, merges),
    offsetof(struct node_status, merge_bytes_written),
    offsetof(struct node_status, scrubs),
    offsetof(struct node_status, scrubbed_bytes),
    offsetof(struct node_status, bad_reads),
    offsetof(struct node_status, damaged),
    offsetof(struct node_status, repaired),
    offsetof(struct node_status, unrepaired),
    offsetof(struct node_status, snapshot_bytes),
    offsetof(struct node_status, snapshot_total),
};

static uint8_t status_flags(const struct node_status *s)
{
    return (uint8_t)((s->quorum ? STATUS_QUORUM : 0) |
                     (s->space_low ? STATUS_SPACE_LOW : 0) |
                     (s->complete ? STATUS_COMPLETE : 0) |
                     (s->disk_hung ? STATUS_DISK_HUNG : 0));
}

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
    buf_u8(to, status_flags(s));
    buf_cstring(to, s->mountpoint);
    buf_cstring(to, s->version);
    buf_u32(to, s->pid);
    for (size_t i = 0; i < array_length(disk_numbers); i++)
        buf_u64(to, *(const uint64_t *)((const char *)s + disk_numbers[i]));
    buf_u64(to, s->refused);
    buf_u16(to, s->cluster_version);
    buf_u64(to, s->certificate_end_s);
    buf_u32(to, s->member_count);
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct node_member *m = &s->members[i];
        buf_cstring(to, m->name);
        buf_u64(to, m->id);
        buf_cstring(to, m->address);
        buf_u8(to, (uint8_t)((m->voter ? MEMBER_VOTER : 0) |
                             (m->reachable ? MEMBER_REACHABLE : 0) |
                             (m->observer ? MEMBER_OBSERVER : 0)));
        buf_u64(to, m->applied);
        buf_u16(to, m->version);
        buf_u32(to, m->ca);
        buf_cstring(to, m->program);
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
    s->complete = flags & STATUS_COMPLETE;
    s->disk_hung = flags & STATUS_DISK_HUNG;
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
    m->observer = flags & MEMBER_OBSERVER;
    m->applied = reader_u64(r);
    m->version = reader_u16(r);
    m->ca = reader_u32(r);
    reader_cstring(r, m->program, sizeof(m->program));
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
    for (size_t i = 0; i < array_length(disk_numbers); i++)
        *(uint64_t *)((char *)s + disk_numbers[i]) = reader_u64(&r);
    s->refused = reader_u64(&r);
    s->cluster_version = reader_u16(&r);
    s->certificate_end_s = reader_u64(&r);
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
