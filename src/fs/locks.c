/*
 * locks.c - the locks of one inode, as the value of its L record, and what changes them.
 *
 *   lock    = session u64 | owner u64 | pid u32 | flags u8 | reserved u8 (0)
 *             | start u64 | end u64 | ticket u64 | since u64
 *   flags   = 1 flock | 2 writes | 4 waits
 *   value   = lock*, at least one: what is held, then who waits
 *
 * Valid: known flags, start <= end < 2^63, nothing is held behind one that waits, at most
 * 2 * FS_LOCKS_MOST.
 *
 *   queued --locks_grant()--> held --locks_cut(), locks_drop_session()--> gone
 *      \------ locks_cancel(), locks_drop_session() -----------------------^
 *
 * Fair: who comes waits behind those that wait already and want what it does not go
 * together with. But who holds a lock there waits for holders alone: others may wait for
 * it, and with the same lock asked for twice it would wait for itself.
 */
#include "locks.h"

#include <errno.h>

enum { LOCK_FLOCK = 1, LOCK_WRITES = 2, LOCK_WAITS = 4, LOCK_FLAGS = 7 };

/* ---- Bytes ---- */

static void encode_one(const struct fs_lock *l, struct buf *to)
{
    buf_u64(to, l->session);
    buf_u64(to, l->owner);
    buf_u32(to, l->pid);
    buf_u8(to, (uint8_t)((l->kind == FS_LOCK_FLOCK ? LOCK_FLOCK : 0) |
                         (l->writes ? LOCK_WRITES : 0) | (l->waits ? LOCK_WAITS : 0)));
    buf_u8(to, 0);
    buf_u64(to, l->start);
    buf_u64(to, l->end);
    buf_u64(to, l->ticket);
    buf_u64(to, l->since_us);
}

void locks_encode(const struct fs_locks *locks, struct buf *to)
{
    buf_reserve(to, locks->count * FS_LOCK_BYTES);
    for (size_t i = 0; i < locks->count; i++)
        encode_one(&locks->at[i], to);
}

static bool decode_one(struct reader *r, struct fs_lock *l)
{
    l->session = reader_u64(r);
    l->owner = reader_u64(r);
    l->pid = reader_u32(r);
    uint8_t flags = reader_u8(r), reserved = reader_u8(r);
    l->kind = flags & LOCK_FLOCK ? FS_LOCK_FLOCK : FS_LOCK_FCNTL;
    l->writes = flags & LOCK_WRITES;
    l->waits = flags & LOCK_WAITS;
    l->start = reader_u64(r);
    l->end = reader_u64(r);
    l->ticket = reader_u64(r);
    l->since_us = reader_u64(r);
    return !r->bad && !reserved && !(flags & ~LOCK_FLAGS) && l->start <= l->end &&
           l->end <= FS_LOCK_END;
}

/* A change makes of each that waits one more at most, and of one that is cut in its middle
 * two, beside the one that is asked for. */
int locks_open(const void *data, size_t length, struct fs_locks *ret)
{
    struct reader r = reader_of(data, length);
    struct fs_locks locks = {.count = length / FS_LOCK_BYTES};
    if (length % FS_LOCK_BYTES || locks.count > 2 * FS_LOCKS_MOST)
        return -EBADMSG;
    locks.room = 2 * locks.count + 4;
    locks.at = calloc(locks.room, sizeof(*locks.at));
    if (!locks.at)
        return -ENOMEM;
    bool good = true;
    for (size_t i = 0; i < locks.count; i++) {
        good &= decode_one(&r, &locks.at[i]);
        good &= locks.at[i].waits || locks.held == i;
        locks.held += !locks.at[i].waits;
    }
    if (!good) {
        free(locks.at);
        return -EBADMSG;
    }
    *ret = locks;
    return 0;
}

void fs_locks_release(struct fs_locks *locks)
{
    free(locks->at);
    *locks = (struct fs_locks){0};
}

int fs_locks_decode(const void *data, size_t length, struct fs_locks *ret)
{
    return length ? locks_open(data, length, ret) : -EBADMSG;
}

int fs_locks_read(const struct fs_view *view, uint64_t inode, struct fs_locks *ret)
{
    struct fs_key key;
    struct buf value = {0};
    fs_key_locks(&key, inode);
    int error = view->get(view->context, key.bytes, key.size, &value, NULL);
    if (!error)
        error = value.failed ? -ENOMEM : fs_locks_decode(value.data, value.length, ret);
    else if (error == -ENOENT)
        error = locks_open(NULL, 0, ret);
    buf_release(&value);
    return error;
}

/* ---- Who keeps whom ---- */

bool lock_is_of(const struct fs_lock *lock, const struct fs_lock *owner)
{
    return lock->session == owner->session && lock->owner == owner->owner &&
           lock->kind == owner->kind;
}

static bool overlap(const struct fs_lock *a, const struct fs_lock *b)
{
    return a->start <= b->end && b->start <= a->end;
}

bool fs_lock_conflicts(const struct fs_lock *a, const struct fs_lock *b)
{
    return a->kind == b->kind && !lock_is_of(a, b) && (a->writes || b->writes) &&
           overlap(a, b);
}

bool locks_is_holder(const struct fs_locks *locks, const struct fs_lock *owner)
{
    for (size_t i = 0; i < locks->held; i++)
        if (lock_is_of(&locks->at[i], owner))
            return true;
    return false;
}

/* ... of what is held, or waits before place `end`. */
static const struct fs_lock *blocker(const struct fs_locks *locks,
                                     const struct fs_lock *wanted, size_t end)
{
    for (size_t i = 0; i < locks->held; i++)
        if (fs_lock_conflicts(&locks->at[i], wanted))
            return &locks->at[i];
    if (locks_is_holder(locks, wanted))
        return NULL;
    for (size_t i = locks->held; i < end; i++)
        if (fs_lock_conflicts(&locks->at[i], wanted))
            return &locks->at[i];
    return NULL;
}

const struct fs_lock *fs_locks_blocker(const struct fs_locks *locks,
                                       const struct fs_lock *wanted)
{
    return blocker(locks, wanted, locks->count);
}

/* ---- Changes ---- */

static void insert(struct fs_locks *locks, size_t at, struct fs_lock lock)
{
    ensure(locks->count < locks->room);
    memmove(locks->at + at + 1, locks->at + at, (locks->count - at) * sizeof(*locks->at));
    locks->at[at] = lock;
    locks->count++;
    locks->held += !lock.waits;
}

static void take_out(struct fs_locks *locks, size_t at)
{
    locks->held -= !locks->at[at].waits;
    locks->count--;
    memmove(locks->at + at, locks->at + at + 1, (locks->count - at) * sizeof(*locks->at));
}

bool locks_cut(struct fs_locks *locks, const struct fs_lock *lock)
{
    bool any = false;
    for (size_t i = locks->held; i-- > 0;) {
        struct fs_lock old = locks->at[i], rest = old;
        if (!lock_is_of(&old, lock) || !overlap(&old, lock))
            continue;
        any = true;
        take_out(locks, i);
        if (old.end > lock->end) {
            rest.start = lock->end + 1;
            insert(locks, i, rest);
        }
        if (old.start < lock->start) {
            rest.start = old.start;
            rest.end = lock->start - 1;
            insert(locks, i, rest);
        }
    }
    return any;
}

static bool touch(const struct fs_lock *a, const struct fs_lock *b)
{
    return overlap(a, b) || a->end + 1 == b->start || b->end + 1 == a->start;
}

void locks_hold(struct fs_locks *locks, struct fs_lock lock, uint64_t now_us)
{
    locks_cut(locks, &lock);
    lock.waits = false;
    lock.since_us = now_us;
    for (size_t i = locks->held; i-- > 0;) {
        const struct fs_lock *old = &locks->at[i];
        if (!lock_is_of(old, &lock) || old->writes != lock.writes || !touch(old, &lock))
            continue;
        lock.start = min_u64(lock.start, old->start);
        lock.end = max_u64(lock.end, old->end);
        take_out(locks, i);
    }
    insert(locks, locks->held, lock);
}

void locks_queue(struct fs_locks *locks, struct fs_lock lock, uint64_t now_us)
{
    lock.waits = true;
    lock.since_us = now_us;
    insert(locks, locks->count, lock);
}

bool locks_cancel(struct fs_locks *locks, uint64_t session, uint64_t ticket)
{
    for (size_t i = locks->held; i < locks->count; i++)
        if (locks->at[i].session == session && locks->at[i].ticket == ticket) {
            take_out(locks, i);
            return true;
        }
    return false;
}

bool locks_drop_session(struct fs_locks *locks, uint64_t session)
{
    size_t before = locks->count;
    for (size_t i = locks->count; i-- > 0;)
        if (locks->at[i].session == session)
            take_out(locks, i);
    return locks->count < before;
}

/* Whether, held, it takes something away from what its owner has: others may then go on that
 * come before it. */
static bool weakens(const struct fs_locks *locks, const struct fs_lock *lock)
{
    for (size_t i = 0; i < locks->held && !lock->writes; i++)
        if (lock_is_of(&locks->at[i], lock) && locks->at[i].writes &&
            overlap(&locks->at[i], lock))
            return true;
    return false;
}

void locks_grant(struct fs_locks *locks, uint64_t now_us)
{
    for (size_t i = locks->held; i < locks->count;) {
        struct fs_lock lock = locks->at[i];
        if (blocker(locks, &lock, i)) {
            i++;
            continue;
        }
        bool again = weakens(locks, &lock);
        size_t waiting = i - locks->held; /* that stay, before it */
        take_out(locks, i);
        locks_hold(locks, lock, now_us);
        i = locks->held + (again ? 0 : waiting);
    }
}
