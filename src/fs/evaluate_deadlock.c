/*
 * evaluate_deadlock.c - who waits for whom (F5).
 *
 * From owner to owner, on the loop of who leads: so all that one look costs is bounded, and
 * nothing is read twice for it. The W records of a session are scanned when the first of
 * its owners is come to, and the locks of an inode read when the first that waits there is.
 */
#include "evaluate.h"
#include "locks.h"

#include <errno.h>

enum { OWNER_PLACES = 2 * WALK_OWNERS };

struct walk {
    struct eval *e;
    const struct fs_lock *wanted;
    bool closed; /* the way has come back to who wants it */
    size_t steps;
    /* That somebody on the way waits for, in the order they were come to, and where they
     * are found by their hash: 1 + the index, or 0. */
    struct fs_lock owners[WALK_OWNERS];
    size_t count, next;
    uint16_t places[OWNER_PLACES];
    uint64_t sessions[WALK_SESSIONS]; /* whose W records were looked at */
    size_t session_count, lockers;
    uint64_t inodes[WALK_INODES]; /* where owners of these wait */
    struct fs_locks locks[WALK_INODES];
    size_t inode_count, read_count;
};

static bool is_at_end(const struct walk *w)
{
    return w->closed || w->steps >= WALK_STEPS;
}

/* ---- Owners ---- */

static uint16_t *place_of(struct walk *w, const struct fs_lock *owner)
{
    uint64_t hash = (owner->session * 31 + owner->owner) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (hash >> 32) % OWNER_PLACES;
    while (w->places[i] && !lock_is_of(&w->owners[w->places[i] - 1], owner))
        i = (i + 1) % OWNER_PLACES;
    return &w->places[i];
}

static void walk_to(struct walk *w, const struct fs_lock *owner)
{
    if (lock_is_of(owner, w->wanted)) {
        w->closed = true;
        return;
    }
    uint16_t *place = place_of(w, owner);
    if (*place || w->count == WALK_OWNERS)
        return;
    w->owners[w->count++] = *owner;
    *place = (uint16_t)w->count;
}

/* Everybody who keeps it from being held; it stands, or would, at place `end`. */
static void walk_blockers(struct walk *w, const struct fs_locks *locks,
                          const struct fs_lock *wanted, size_t end)
{
    if (locks_is_holder(locks, wanted))
        end = locks->held;
    for (size_t i = 0; i < end && !w->closed; i++)
        if (fs_lock_conflicts(&locks->at[i], wanted))
            walk_to(w, &locks->at[i]);
    w->steps += end;
}

/* ---- Sessions ---- */

static void add_inode(struct walk *w, uint64_t inode)
{
    for (size_t i = 0; i < w->inode_count; i++)
        if (w->inodes[i] == inode)
            return;
    if (w->inode_count < WALK_INODES)
        w->inodes[w->inode_count++] = inode;
}

static int locker_item(void *arg, const struct fs_item *item)
{
    struct walk *w = arg;
    if (item->key_size != 17 || !item->value || item->value_size != LOCKER_VALUE_BYTES)
        return -EBADMSG;
    if (w->lockers == WALK_LOCKERS)
        return 1;
    w->lockers++;
    if (get_u64(item->value))
        add_inode(w, get_be64(item->key + 9));
    return 0;
}

/* All inodes where one of the session waits are read from now on. */
static int enter_session(struct walk *w, uint64_t session)
{
    for (size_t i = 0; i < w->session_count; i++)
        if (w->sessions[i] == session)
            return 0;
    if (w->session_count == WALK_SESSIONS || w->lockers == WALK_LOCKERS)
        return 0;
    w->sessions[w->session_count++] = session;
    int error = eval_scan_lockers(w->e, session, locker_item, w);
    while (error >= 0 && w->read_count < w->inode_count && !is_at_end(w)) {
        struct fs_locks *locks = &w->locks[w->read_count];
        error = fs_locks_read(w->e->view, w->inodes[w->read_count], locks);
        w->read_count += !error;
        w->steps += locks->count;
    }
    return error < 0 ? error : 0;
}

/* ---- The way ---- */

/* On to those that keep `owner` from what it waits for. */
static int walk_owner(struct walk *w, const struct fs_lock *owner)
{
    int error = enter_session(w, owner->session);
    for (size_t n = 0; !error && n < w->read_count && !is_at_end(w); n++) {
        const struct fs_locks *locks = &w->locks[n];
        w->steps += 1 + locks->count - locks->held;
        for (size_t i = locks->held; i < locks->count && !is_at_end(w); i++)
            if (lock_is_of(&locks->at[i], owner))
                walk_blockers(w, locks, &locks->at[i], i);
    }
    return error;
}

int eval_is_deadlock(struct eval *e, const struct fs_locks *locks,
                     const struct fs_lock *wanted)
{
    struct walk *w = calloc(1, sizeof(*w));
    int error = 0;
    if (!w)
        return -ENOMEM;
    w->e = e;
    w->wanted = wanted;
    walk_blockers(w, locks, wanted, locks->count);
    while (!error && !is_at_end(w) && w->next < w->count) {
        struct fs_lock owner = w->owners[w->next++];
        error = walk_owner(w, &owner);
    }
    bool closed = w->closed;
    for (size_t i = 0; i < w->read_count; i++)
        fs_locks_release(&w->locks[i]);
    free(w);
    return error ? error : closed;
}
