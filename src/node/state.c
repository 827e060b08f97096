/*
 * state.c - what the node knows from the entries alone, as bytes: the members, and each
 * session's window. The store keeps it beside what is merged, since the entries it was
 * made of go (G7, S2); docs/format.md has the bytes.
 *
 * It is of one instant, E. Entries at or below E that are replayed on top of it change
 * nothing: a slot holds the newest request that fell to it.
 */
#include "node_core.h"

#include <errno.h>

static uint32_t count_slots(const struct session *s)
{
    uint32_t count = 0;
    for (size_t i = 0; i < LIMIT_SESSION_WINDOW; i++) {
        const struct window_slot *slot = session_slot(s, i);
        count += slot && slot->request != 0;
    }
    return count;
}

static void save_session(const struct session *s, struct buf *to)
{
    buf_u64(to, s->number);
    buf_u64(to, s->node_id);
    buf_u64(to, s->nonce);
    buf_u64(to, s->highest);
    buf_u32(to, count_slots(s));
    for (size_t i = 0; i < LIMIT_SESSION_WINDOW; i++) {
        const struct window_slot *slot = session_slot(s, i);
        if (!slot || slot->request == 0)
            continue;
        buf_u64(to, slot->request);
        buf_u64(to, slot->index);
        buf_bytes(to, slot->result, sizeof(slot->result));
    }
}

int state_save(void *context, struct buf *to)
{
    struct node *n = context;
    struct buf members = {0};
    uint32_t sessions = 0;
    for (struct session *s = n->sessions; s; s = s->next)
        sessions++;
    members_encode(&n->members_applied, &members);
    buf_u32(to, version_format(n->members_applied.version));
    buf_u32(to, (uint32_t)members.length);
    buf_bytes(to, members.data, members.length);
    buf_u32(to, sessions);
    for (struct session *s = n->sessions; s; s = s->next)
        save_session(s, to);
    bool failed = members.failed || to->failed;
    buf_release(&members);
    return failed ? -ENOMEM : 0;
}

/* -EBADMSG, -ENOMEM. */
static int load_slot(struct reader *r, struct session *s)
{
    struct window_slot slot = {.request = reader_u64(r)};
    slot.index = reader_u64(r);
    const uint8_t *result = reader_bytes(r, sizeof(slot.result));
    if (!result || slot.request == 0 || slot.request > s->highest)
        return -EBADMSG;
    memcpy(slot.result, result, sizeof(slot.result));
    struct window_slot *to = session_take_slot(s, slot.request % LIMIT_SESSION_WINDOW);
    if (!to)
        return -ENOMEM;
    if (to->request != 0)
        return -EBADMSG;
    *to = slot;
    return 0;
}

static int load_session(struct reader *r, struct node *into)
{
    uint64_t number = reader_u64(r);
    if (r->bad || number == 0 || session_find(into, number))
        return -EBADMSG;
    struct session *s = session_new(into, number);
    if (!s)
        return -ENOMEM;
    s->node_id = reader_u64(r);
    s->nonce = reader_u64(r);
    s->highest = reader_u64(r);
    uint32_t slots = reader_u32(r);
    int ret = 0;
    for (uint32_t i = 0; i < slots && ret == 0; i++)
        ret = load_slot(r, s);
    return r->bad ? -EBADMSG : ret;
}

static int load(struct reader *r, struct node *into)
{
    uint32_t version = reader_u32(r); /* a newer MANIFEST was refused already */
    uint32_t length = reader_u32(r);
    const uint8_t *members = reader_bytes(r, length);
    if (!members || members_decode(members, length, &into->members_applied) < 0 ||
        version != version_format(into->members_applied.version))
        return -EBADMSG;
    uint32_t sessions = reader_u32(r);
    int ret = 0;
    for (uint32_t i = 0; i < sessions && ret == 0; i++)
        ret = load_session(r, into);
    return ret == 0 && !reader_done(r) ? -EBADMSG : ret;
}

int state_load(void *context, const void *data, size_t length)
{
    struct node *n = context;
    struct reader r = reader_of(data, length);
    struct node *loaded = calloc(1, sizeof(*loaded)); /* for its members and sessions */
    if (!loaded)
        return -ENOMEM;
    int ret = load(&r, loaded);
    if (ret == 0) {
        sessions_release(n);
        n->sessions = loaded->sessions;
        n->members_applied = loaded->members_applied;
        n->has_state = true;
        loaded->sessions = NULL;
    }
    sessions_release(loaded);
    free(loaded);
    return ret;
}
