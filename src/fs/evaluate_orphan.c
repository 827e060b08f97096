/*
 * evaluate_orphan.c - inodes without a name (S8): who may hold them, RELEASE, and what is
 * left of sessions that died.
 *
 * Opens are local, so the leader does not know who holds a removed inode. Its O records,
 * one for each session that lived when its last name went, say who may: each session takes
 * its own away by a RELEASE, and the last of them the inode with it. A session that has
 * died releases nothing any more: who leads looks through all O records then (RECLAIM).
 *
 * An O record has no value, and so sits in memory as a whole: evaluation needs no disk to
 * know who holds what.
 */
#include "evaluate.h"

#include <errno.h>

/* ---- Sessions ---- */

/* A node that opens another has two for a while: twice as many as there may be nodes. */
enum { SESSIONS_MOST = 2 * LIMIT_SESSIONS };

struct sessions {
    uint64_t numbers[SESSIONS_MOST];
    size_t count;
};

static int add_session(void *arg, const struct fs_item *item)
{
    struct sessions *s = arg;
    if (item->key_size != 9)
        return -EBADMSG;
    if (s->count == SESSIONS_MOST)
        return -EUSERS;
    s->numbers[s->count++] = get_be64(item->key + 1);
    return 0;
}

static int living_sessions(struct eval *e, struct sessions *ret)
{
    const uint8_t from = FS_CLASS_SESSION, to = FS_CLASS_SESSION + 1;
    ret->count = 0;
    return e->view->scan(e->view->context, &from, 1, &to, 1, add_session, ret);
}

static bool lives(const struct sessions *s, uint64_t number)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->numbers[i] == number)
            return true;
    return false;
}

/* ---- The last name goes, the last session goes ---- */

int eval_empty(struct eval *e, const struct fs_inode *inode)
{
    int error = eval_drop_locks(e, inode->inode); /* first: it may read what is cold */
    if (!error)
        error = xattrs_drop(e, inode->inode);
    if (error || inode->kind != FS_CONTENT_EXTENTS)
        return error;
    return content_drop(e, inode->content, inode->trim_count > 0);
}

int eval_orphan(struct eval *e, struct eval_inode *i)
{
    struct sessions s;
    struct fs_key key;
    int error = living_sessions(e, &s);
    if (error)
        return error;
    if (s.count == 0) {
        i->gone = true;
        return eval_empty(e, &i->inode);
    }
    for (size_t n = 0; n < s.count; n++) {
        fs_key_orphan(&key, i->inode.inode, s.numbers[n]);
        eval_put(e, &key, "", 0);
    }
    return 0;
}

static int delete_inode(struct eval *e, uint64_t number)
{
    struct fs_inode inode;
    struct fs_key key;
    int error = fs_stat(e->view, number, &e->scratch, &inode);
    if (error)
        return error == -ENOENT ? -EIO : error;
    error = eval_empty(e, &inode);
    fs_key_inode(&key, number);
    if (!error)
        eval_delete(e, &key);
    return error;
}

/* ---- RELEASE ---- */

struct holders {
    uint64_t session; /* who asks */
    bool asked, others;
};

static int note_holder(void *arg, const struct fs_item *item)
{
    struct holders *h = arg;
    uint64_t inode, session;
    if (!fs_key_is_orphan(item->key, item->key_size, &inode, &session))
        return -EBADMSG;
    if (session == h->session)
        h->asked = true;
    else
        h->others = true;
    return 0;
}

/* Reads before it puts: -EAGAIN leaves no trace. */
static int release_one(struct eval *e, uint64_t number)
{
    struct holders h = {.session = e->change->session};
    struct fs_key from, to;
    fs_key_orphan(&from, number, 0);
    fs_key_orphan(&to, number + 1, 0);
    int error = e->view->scan(e->view->context, from.bytes, from.size, to.bytes, to.size,
                              note_holder, &h);
    if (error || !h.asked)
        return error; /* not, or not any more */
    if (!h.others)
        error = delete_inode(e, number);
    fs_key_orphan(&from, number, h.session);
    if (!error)
        eval_delete(e, &from);
    return error;
}

/* A damaged inode, of which nothing was put yet: it stays as it is, and those behind it do
 * not wait for it. */
static bool is_passed(const struct eval *e, int error, uint64_t records_before)
{
    return (error == -EIO || error == -EBADMSG) && e->change->records == records_before;
}

/* Sees to as many as there is room and memory for; the first at least. */
int evaluate_release(struct eval *e)
{
    const struct fs_op *op = e->op;
    uint64_t seen = 0;
    int error = 0;
    while (seen < op->inode_count && e->change->records < ORPHANS_RECORDS) {
        uint64_t records = e->change->records;
        error = release_one(e, get_u64(op->inodes + 8 * seen));
        if (is_passed(e, error, records))
            error = 0;
        if (error)
            break;
        seen++;
    }
    e->result.value = seen;
    return error == -EAGAIN && seen ? 0 : error;
}

/* ---- RECLAIM: what no living session holds ---- */

struct found {
    uint64_t inodes[ORPHANS_SCAN], sessions[ORPHANS_SCAN];
    size_t count;
};

static int add_found(void *arg, const struct fs_item *item)
{
    struct found *f = arg;
    if (f->count == ORPHANS_SCAN)
        return 1;
    if (!fs_key_is_orphan(item->key, item->key_size, &f->inodes[f->count],
                          &f->sessions[f->count]))
        return -EBADMSG;
    f->count++;
    return 0;
}

/* O records from the operation's inode on; 1: there are more. */
static int find_orphans(struct eval *e, struct found *f)
{
    const uint8_t to = FS_CLASS_ORPHAN + 1;
    struct fs_key from;
    fs_key_orphan(&from, e->op->inode, 0);
    return e->view->scan(e->view->context, from.bytes, from.size, &to, 1, add_found, f);
}

/* All records of one inode: [first, end). */
static int reclaim_one(struct eval *e, const struct sessions *s, const struct found *f,
                       size_t first, size_t end)
{
    size_t dead = 0;
    for (size_t i = first; i < end; i++)
        dead += !lives(s, f->sessions[i]);
    int error = dead == end - first ? delete_inode(e, f->inodes[first]) : 0;
    for (size_t i = first; i < end && !error; i++) {
        struct fs_key key;
        fs_key_orphan(&key, f->inodes[i], f->sessions[i]);
        if (!lives(s, f->sessions[i]))
            eval_delete(e, &key);
    }
    e->result.value += !error && dead;
    return error;
}

static int reclaim_found(struct eval *e, const struct sessions *s, const struct found *f,
                         bool more)
{
    size_t first = 0, end;
    int error = 0;
    for (; first < f->count && e->change->records < ORPHANS_RECORDS; first = end) {
        for (end = first; end < f->count && f->inodes[end] == f->inodes[first]; end++)
            ;
        if (end == f->count && more)
            break; /* the rest of it was not looked at */
        uint64_t records = e->change->records;
        error = reclaim_one(e, s, f, first, end);
        if (is_passed(e, error, records))
            error = 0;
        if (error)
            break;
    }
    e->result.more = first < f->count ? f->inodes[first] : 0;
    return error == -EAGAIN && first ? 0 : error;
}

_Static_assert((size_t)ORPHANS_SCAN > SESSIONS_MOST,
               "the records of one inode are looked at together");
_Static_assert(ORPHANS_RECORDS >= 2 * FS_RELEASE_MOST &&
                   ORPHANS_RECORDS > SESSIONS_MOST + FS_XATTRS_MOST + DROP_EXTENTS + 16,
               "one inode more fits the entry");

int eval_reclaim_orphans(struct eval *e)
{
    struct sessions *s = malloc(sizeof(*s));
    struct found *f = calloc(1, sizeof(*f));
    int error = s && f ? living_sessions(e, s) : -ENOMEM;
    if (!error)
        error = find_orphans(e, f);
    if (error >= 0)
        error = reclaim_found(e, s, f, error > 0);
    free(s);
    free(f);
    return error;
}
