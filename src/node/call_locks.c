/* call_locks.c - the command line's side of LOCKS. */
#include "call.h"

#include <errno.h>

struct listing {
    int (*each)(void *context, const struct node_lock *lock);
    void *context;
    uint64_t last; /* inode */
};

static void read_lock(struct reader *r, struct node_lock *l)
{
    reader_cstring(r, l->node, sizeof(l->node));
    l->pid = reader_u32(r);
    l->is_flock = reader_u8(r) == FS_LOCK_FLOCK;
    l->writes = reader_u8(r);
    l->waits = reader_u8(r);
    l->start = reader_u64(r);
    l->end = reader_u64(r);
    l->since_us = reader_u64(r);
    l->endless = l->end == FS_LOCK_END;
}

static int read_inode(struct reader *r, struct listing *listing)
{
    struct node_lock l = {.inode = reader_u64(r)};
    int result = 0;
    reader_cstring(r, l.path, sizeof(l.path));
    uint32_t count = reader_u32(r);
    for (uint32_t i = 0; i < count && !result; i++) {
        read_lock(r, &l);
        result = r->bad ? -EPROTO : listing->each(listing->context, &l);
    }
    listing->last = l.inode;
    return r->bad ? -EPROTO : result;
}

int node_call_locks(const char *data,
                    int (*each)(void *context, const struct node_lock *lock),
                    void *context, char error[NODE_ERROR_BYTES])
{
    struct call c;
    struct listing listing = {.each = each, .context = context};
    int result = call_open(&c, data, "list locks", error);
    for (bool more = true; more && !result;) {
        buf_u64(call_begin(&c, CONTROL_LOCKS), listing.last);
        result = call_ask(&c, 0, error);
        more = !result && reader_u8(&c.fields);
        while (!result && reader_left(&c.fields))
            result = read_inode(&c.fields, &listing);
        if (result == -EPROTO)
            result = call_bad_answer(&c, error);
    }
    call_close(&c);
    return result;
}
