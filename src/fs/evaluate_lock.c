/*
 * evaluate_lock.c - LOCK, UNLOCK, and the locks that an inode or a session leaves behind.
 *
 * An L record holds all locks of an inode, those that wait too: so a grant is a change of
 * the record, which the origin sees when it applies it, and a new leader knows all. A W record
 * stands for each session in it, and says how many of its fcntl locks wait there: by those
 * a session's locks are found when it dies, and who waits for whom.
 */
#include "evaluate.h"
#include "locks.h"

#include <errno.h>

/* ---- Records ---- */

struct tally {
    uint64_t session;
    bool was, is;
    uint64_t waited, waits; /* for fcntl locks */
};

struct tallies {
    struct tally *at;
    size_t count;
};

static struct tally *tally_of(struct tallies *t, uint64_t session)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->at[i].session == session)
            return &t->at[i];
    t->at[t->count] = (struct tally){.session = session};
    return &t->at[t->count++];
}

static int tally(const struct fs_locks *before, const struct fs_locks *after,
                 struct tallies *ret)
{
    ret->at = calloc(before->count + after->count + 1, sizeof(*ret->at));
    if (!ret->at)
        return -ENOMEM;
    for (size_t i = 0; i < before->count; i++) {
        struct tally *t = tally_of(ret, before->at[i].session);
        t->was = true;
        t->waited += before->at[i].waits && before->at[i].kind == FS_LOCK_FCNTL;
    }
    for (size_t i = 0; i < after->count; i++) {
        struct tally *t = tally_of(ret, after->at[i].session);
        t->is = true;
        t->waits += after->at[i].waits && after->at[i].kind == FS_LOCK_FCNTL;
    }
    return 0;
}

static void put_tally(struct eval *e, uint64_t inode, const struct tally *t)
{
    struct fs_key key;
    uint8_t value[LOCKER_VALUE_BYTES];
    fs_key_locker(&key, t->session, inode);
    put_u64(value, t->waits);
    if (!t->is)
        eval_delete(e, &key);
    else if (!t->was || t->waited != t->waits)
        eval_put(e, &key, value, sizeof(value));
}

/* Records for what has become of an inode's locks. */
static int put_locks(struct eval *e, uint64_t inode, const struct fs_locks *before,
                     const struct fs_locks *after)
{
    struct tallies t = {0};
    struct fs_key key;
    int error = tally(before, after, &t);
    if (error)
        return error;
    fs_key_locks(&key, inode);
    buf_clear(&e->scratch);
    locks_encode(after, &e->scratch);
    if (e->scratch.failed)
        error = -ENOMEM;
    else if (after->count)
        eval_put(e, &key, e->scratch.data, e->scratch.length);
    else if (before->count)
        eval_delete(e, &key);
    for (size_t i = 0; i < t.count && !error; i++)
        put_tally(e, inode, &t.at[i]);
    free(t.at);
    return error;
}

/* Of one inode, as they were and as they are to be. */
struct subject {
    uint64_t inode;
    struct fs_locks before, after;
};

static int subject_open(struct eval *e, uint64_t inode, struct subject *ret)
{
    *ret = (struct subject){.inode = inode};
    int error = fs_locks_read(e->view, inode, &ret->before);
    if (error)
        return error;
    struct fs_locks *to = &ret->after, *from = &ret->before;
    *to = *from;
    to->at = calloc(to->room, sizeof(*to->at));
    if (!to->at)
        return -ENOMEM;
    if (from->count)
        memcpy(to->at, from->at, from->count * sizeof(*to->at));
    return 0;
}

static void subject_release(struct subject *s)
{
    fs_locks_release(&s->before);
    fs_locks_release(&s->after);
}

/* More than before, and too many. (Who waits was counted, what a grant makes of it was not:
 * that must not fail.) */
static bool is_too_many(const struct subject *s)
{
    return s->after.count > FS_LOCKS_MOST && s->after.count > s->before.count;
}

/* ---- LOCK, UNLOCK ---- */

static uint64_t now_us(const struct eval *e)
{
    return e->change->timestamp_us;
}

static struct fs_lock wanted_of(const struct eval *e)
{
    struct fs_lock lock = e->op->lock;
    lock.session = e->change->session;
    lock.waits = false;
    if (lock.kind == FS_LOCK_FLOCK) {
        lock.start = 0;
        lock.end = FS_LOCK_END;
    }
    return lock;
}

static bool is_held_as_wanted(const struct fs_locks *locks, const struct fs_lock *wanted)
{
    for (size_t i = 0; i < locks->held; i++) {
        const struct fs_lock *l = &locks->at[i];
        if (lock_is_of(l, wanted) && l->writes == wanted->writes &&
            l->start <= wanted->start && l->end >= wanted->end)
            return true;
    }
    return false;
}

/* flock(2): of a lock that becomes another the old one goes first, and who waits comes
 * before its owner. (Two that have it shared, and both want it alone, would else wait for
 * each other.) */
static bool convert(struct eval *e, struct fs_locks *locks, const struct fs_lock *wanted)
{
    bool converts = wanted->kind == FS_LOCK_FLOCK && locks_cut(locks, wanted);
    if (converts)
        locks_grant(locks, now_us(e));
    return converts;
}

static bool is_kept_by_holder(const struct fs_locks *locks, const struct fs_lock *wanted)
{
    for (size_t i = 0; i < locks->held; i++)
        if (fs_lock_conflicts(&locks->at[i], wanted))
            return true;
    return false;
}

/* It must wait. Whom only those who wait keep back may pass where it would wait for itself:
 * without them there would be no deadlock. */
static int wait_or_not(struct eval *e, struct fs_locks *locks,
                       const struct fs_lock *wanted)
{
    e->result.value = FS_LOCK_REFUSED;
    if (!(e->op->flags & FS_LOCK_WAITS))
        return 0;
    int deadlock = wanted->kind == FS_LOCK_FCNTL ? eval_is_deadlock(e, locks, wanted) : 0;
    if (deadlock < 0)
        return deadlock;
    if (deadlock && is_kept_by_holder(locks, wanted))
        return -EDEADLK;
    e->result.value = deadlock ? FS_LOCK_GRANTED : FS_LOCK_QUEUED;
    if (deadlock)
        locks_hold(locks, *wanted, now_us(e));
    else
        locks_queue(locks, *wanted, now_us(e));
    return 0;
}

static int lock(struct eval *e, struct subject *s)
{
    struct fs_lock wanted = wanted_of(e);
    struct fs_locks *locks = &s->after;
    int error = 0;
    e->result = (struct fs_result){.value = FS_LOCK_GRANTED};
    if (is_held_as_wanted(locks, &wanted))
        return 0;
    bool converted = convert(e, locks, &wanted);
    if (fs_locks_blocker(locks, &wanted))
        error = wait_or_not(e, locks, &wanted);
    else
        locks_hold(locks, wanted, now_us(e));
    if (error)
        return error;
    if (is_too_many(s))
        return -ENOLCK;
    if (e->result.value == FS_LOCK_GRANTED)
        locks_grant(locks, now_us(e)); /* it may take something back */
    return converted || e->result.value != FS_LOCK_REFUSED
               ? put_locks(e, s->inode, &s->before, locks)
               : 0;
}

static int unlock(struct eval *e, struct subject *s)
{
    struct fs_lock wanted = wanted_of(e);
    bool any = wanted.ticket ? locks_cancel(&s->after, wanted.session, wanted.ticket)
                             : locks_cut(&s->after, &wanted);
    e->result = (struct fs_result){.value = any};
    if (!any)
        return 0;
    if (is_too_many(s))
        return -ENOLCK;
    locks_grant(&s->after, now_us(e));
    return put_locks(e, s->inode, &s->before, &s->after);
}

static int change_locks(struct eval *e, int (*change)(struct eval *e, struct subject *s))
{
    struct eval_inode *i;
    struct subject s;
    if (e->change->session == 0)
        return -EINVAL;
    int error = eval_inode(e, e->op->inode, &i);
    if (error)
        return error;
    error = subject_open(e, e->op->inode, &s);
    if (!error)
        error = change(e, &s);
    subject_release(&s);
    return error;
}

int evaluate_lock(struct eval *e)
{
    return change_locks(e, lock);
}

int evaluate_unlock(struct eval *e)
{
    return change_locks(e, unlock);
}

/* ---- What is left behind ---- */

int eval_drop_locks(struct eval *e, uint64_t inode)
{
    struct fs_locks before = {0}, none = {0};
    int error = fs_locks_read(e->view, inode, &before);
    if (!error && before.count)
        error = put_locks(e, inode, &before, &none);
    fs_locks_release(&before);
    return error;
}

int eval_scan_lockers(struct eval *e, uint64_t session,
                      int (*each)(void *arg, const struct fs_item *item), void *arg)
{
    struct fs_key from, to;
    fs_key_locker(&from, session, 0);
    fs_key_locker(&to, session, UINT64_MAX);
    return e->view->scan(e->view->context, from.bytes, from.size, to.bytes, to.size, each,
                         arg);
}

struct left {
    uint64_t inodes[ABANDON_LOCKS];
    size_t count;
};

static int left_item(void *arg, const struct fs_item *item)
{
    struct left *left = arg;
    if (item->key_size != 17)
        return -EBADMSG;
    if (left->count == ABANDON_LOCKS)
        return 1;
    left->inodes[left->count++] = get_be64(item->key + 9);
    return 0;
}

static int drop_session(struct eval *e, uint64_t inode, uint64_t session,
                        uint64_t *ret_bytes)
{
    struct subject s;
    int error = subject_open(e, inode, &s);
    if (!error) {
        locks_drop_session(&s.after, session);
        locks_grant(&s.after, now_us(e));
        error = put_locks(e, inode, &s.before, &s.after);
    }
    *ret_bytes = s.after.count * FS_LOCK_BYTES;
    subject_release(&s);
    return error;
}

int eval_abandon_locks(struct eval *e, uint64_t session, uint64_t *ret_count)
{
    struct left left = {0};
    uint64_t bytes = 0, more_bytes;
    int more = eval_scan_lockers(e, session, left_item, &left);
    size_t i = 0;
    for (; more >= 0 && i < left.count && bytes < ABANDON_LOCKS_BYTES; i++) {
        int error = drop_session(e, left.inodes[i], session, &more_bytes);
        more = error ? error : more;
        bytes += more_bytes;
    }
    *ret_count = i;
    return more < 0 ? more : more || i < left.count;
}
