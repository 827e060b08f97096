/*
 * evaluate_reclaim.c - RECLAIM, ABANDON: extents that nobody refers to, and what a session
 * leaves, in bounded batches.
 *
 * A P record of session 0 says what is left to do: all of a content id (more = 0), or the
 * void extents of an inode (more = the inode). One RECLAIM sees to one of them. (One of
 * orphans is another thing: evaluate_orphan.c.)
 */
#include "evaluate.h"

#include <errno.h>

struct found {
    uint64_t wanted; /* session */
    struct buf ids;  /* { content u64, more u64 }* */
    uint64_t count, limit;
};

static int found_item(void *arg, const struct fs_item *item)
{
    struct found *found = arg;
    enum content_record record;
    uint64_t session, more;
    if (item->key_size != 9 ||
        !content_value_read(item->value, item->value_size, &record, &session, &more))
        return -EBADMSG;
    if (session != found->wanted)
        return 0;
    if (found->count == found->limit)
        return 1;
    buf_u64(&found->ids, get_be64(item->key + 1));
    buf_u64(&found->ids, more);
    found->count++;
    return 0;
}

/* P records of one session; 1: there are more than the limit. */
static int find_contents(struct eval *e, struct found *found)
{
    struct fs_key from, to = {.size = 1, .bytes = {FS_CLASS_CONTENT + 1}};
    fs_key_content(&from, 0);
    int more = e->view->scan(e->view->context, from.bytes, from.size, to.bytes, to.size,
                             found_item, found);
    return found->ids.failed ? -ENOMEM : more;
}

struct sweep {
    const uint8_t *trims;
    uint32_t trim_count; /* 0: all is void */
    struct buf voids;    /* offset u64, length u64 */
    unsigned count, seen;
    uint64_t reached; /* offset of the last one seen */
};

static int sweep_item(void *arg, const struct fs_item *item)
{
    struct sweep *sweep = arg;
    if (item->key_size != 17)
        return -EBADMSG;
    if (sweep->count == RECLAIM_EXTENTS || sweep->seen == RECLAIM_SCAN)
        return 1;
    sweep->seen++;
    sweep->reached = get_be64(item->key + 9);
    if (sweep->trim_count &&
        item->timestamp_us >=
            trims_floor(sweep->trims, sweep->trim_count, sweep->reached))
        return 0;
    buf_u64(&sweep->voids, sweep->reached);
    buf_u64(&sweep->voids, item->value_size);
    sweep->count++;
    return 0;
}

/* Finds a batch of void extents and deletes it; 1: not all was seen. */
static int sweep_content(struct eval *e, uint64_t content, uint64_t offset,
                         struct sweep *sweep, uint64_t *ret_bytes)
{
    struct fs_key from, to;
    fs_key_extent(&from, content, offset);
    fs_key_content(&to, content + 1);
    to.bytes[0] = FS_CLASS_EXTENT;
    int more = e->view->scan(e->view->context, from.bytes, from.size, to.bytes, to.size,
                             sweep_item, sweep);
    if (sweep->voids.failed)
        more = -ENOMEM;
    *ret_bytes = 0;
    for (unsigned i = 0; more >= 0 && i < sweep->count; i++) {
        struct fs_key key;
        fs_key_extent(&key, content, get_u64(sweep->voids.data + 16 * i));
        *ret_bytes += get_u64(sweep->voids.data + 16 * i + 8);
        eval_delete(e, &key);
    }
    buf_release(&sweep->voids);
    return more;
}

static int reclaim_dropped(struct eval *e, uint64_t content)
{
    struct sweep sweep = {0};
    struct fs_key key;
    uint64_t bytes;
    int more = sweep_content(e, content, 0, &sweep, &bytes);
    fs_key_content(&key, content);
    if (more == 0)
        eval_delete(e, &key);
    return more < 0 ? more : 0;
}

/* Trims that begin before `reached`, which is seen to, begin there now. */
static void advance_trims(struct buf *trims, uint64_t reached)
{
    uint64_t unit = reached / TRIM_UNIT_BYTES * TRIM_UNIT_BYTES;
    size_t passed = 0;
    while (passed < trims->length && get_u64(trims->data + passed) <= unit)
        passed += TRIM_RECORD_BYTES;
    if (passed == 0)
        return;
    passed -= TRIM_RECORD_BYTES;
    memmove(trims->data, trims->data + passed, trims->length - passed);
    trims->length -= passed;
    put_u64(trims->data, unit);
}

static int reclaim_trimmed(struct eval *e, uint64_t content, uint64_t number)
{
    struct eval_inode *i;
    uint64_t bytes;
    int error = eval_named_inode(e, number, &i);
    if (error)
        return error;
    struct fs_inode *inode = &i->inode;
    if (inode->kind != FS_CONTENT_EXTENTS || inode->content != content ||
        inode->trim_count == 0)
        return -EIO;
    struct buf *trims = &e->content.trims;
    buf_bytes(trims, inode->trims, (size_t)inode->trim_count * TRIM_RECORD_BYTES);
    if (trims->failed)
        return -ENOMEM;
    struct sweep sweep = {.trims = inode->trims, .trim_count = inode->trim_count};
    int more = sweep_content(e, content, get_u64(inode->trims), &sweep, &bytes);
    if (more < 0)
        return more;
    if (more) {
        advance_trims(trims, sweep.reached);
    } else {
        struct fs_key key;
        fs_key_content(&key, content);
        eval_delete(e, &key);
        trims->length = 0;
    }
    inode->content_bytes -= bytes;
    inode->trims = trims->data;
    inode->trim_count = (uint32_t)(trims->length / TRIM_RECORD_BYTES);
    i->dirty = true;
    return 0;
}

int evaluate_reclaim(struct eval *e)
{
    if (e->op->inode)
        return eval_reclaim_orphans(e);
    struct found found = {.wanted = 0, .limit = 1};
    int error = find_contents(e, &found);
    if (error >= 0 && found.count) {
        uint64_t content = get_u64(found.ids.data), inode = get_u64(found.ids.data + 8);
        error = inode ? reclaim_trimmed(e, content, inode) : reclaim_dropped(e, content);
        e->result = (struct fs_result){.value = 1, .more = 1};
    }
    buf_release(&found.ids);
    return error < 0 ? error : 0;
}

static int abandon_locks(struct eval *e)
{
    uint64_t count = 0;
    int more = eval_abandon_locks(e, e->op->content, &count);
    if (more < 0)
        return more;
    e->result = (struct fs_result){.value = count, .more = (uint64_t)more};
    return 0;
}

int evaluate_abandon(struct eval *e)
{
    struct found found = {.wanted = e->op->content, .limit = ABANDON_CONTENTS};
    if (found.wanted == 0)
        return -EINVAL;
    if (e->op->flags & FS_LOCKS_ALONE)
        return abandon_locks(e);
    int more = find_contents(e, &found);
    for (uint64_t i = 0; more >= 0 && i < found.count; i++)
        content_record_put(e, get_u64(found.ids.data + 16 * i), 0, 0);
    buf_release(&found.ids);
    e->result = (struct fs_result){.value = found.count, .more = more > 0};
    return more < 0 ? more : 0;
}
