/*
 * mount_orphans.c - what the kernel holds, and what has no name (S8, K15).
 *
 * Held is what the kernel has looked up and not forgotten: it asks by number, and may open, map
 * or stand in it. Held is also what this mount knows of beyond the committed state.
 *
 * An orphan that nothing holds is released only when all *sections* have ended that were open
 * when it was applied: one of them may have read its name before, and give its number to the
 * kernel now. What is not decided waits in two lists, as its sections do in two epochs:
 *
 *   young --the sections of the epoch before have ended--> old --again--> decided
 *   decided: held --FORGET, or the file is put--> released
 *            not held ----------------------------> released
 */
#include "mount_internal.h"

/* ---- Counting ---- */

void lookup_count(struct fs_mount *m, uint64_t inode)
{
    if (inode != FS_ROOT_INODE) /* held for ever */
        lookups_get(&m->lookups, inode)->count++;
}

bool lookup_is_held(struct fs_mount *m, uint64_t inode)
{
    const struct lookup *l = lookups_find(&m->lookups, inode);
    return l && l->count;
}

static bool is_held(struct fs_mount *m, uint64_t inode)
{
    return lookup_is_held(m, inode) || file_is_known(m, inode);
}

/* ---- Deciding ---- */

static void release(struct fs_mount *m, uint64_t inode)
{
    m->backend.release(m->backend.context, inode);
}

void orphan_settle(struct fs_mount *m, uint64_t inode)
{
    struct lookup *l = lookups_find(&m->lookups, inode);
    if (!l || !l->orphan || is_held(m, inode))
        return;
    lookups_remove(&m->lookups, l);
    release(m, inode);
}

static void decide(struct fs_mount *m, struct buf *orphans)
{
    struct reader r = reader_of(orphans->data, orphans->length);
    while (reader_left(&r)) {
        size_t size;
        uint64_t inode = reader_u64(&r), parent = reader_u64(&r);
        const uint8_t *name = reader_string(&r, &size);
        if (!is_held(m, inode)) {
            release(m, inode);
            continue;
        }
        lookups_get(&m->lookups, inode)->orphan = 1;
        if (parent)
            notify_name(m, parent, name, size, inode);
    }
    buf_clear(orphans);
}

static void advance(struct fs_mount *m)
{
    struct undecided *u = &m->undecided;
    while (u->sections[!u->epoch] == 0 && (u->old.length || u->young.length)) {
        decide(m, &u->old);
        struct buf old = u->old;
        u->old = u->young;
        u->young = old;
        u->epoch = !u->epoch;
    }
}

unsigned section_begin(struct fs_mount *m)
{
    m->undecided.sections[m->undecided.epoch]++;
    return m->undecided.epoch;
}

void section_end(struct fs_mount *m, unsigned section)
{
    m->undecided.sections[section]--;
    advance(m);
}

/* ---- From the node ---- */

void fs_mount_orphaned(struct fs_mount *m, uint64_t inode, uint64_t parent,
                       const void *name, size_t size, bool own)
{
    pthread_mutex_lock(&m->lock);
    struct buf *young = &m->undecided.young;
    buf_u64(young, inode);
    buf_u64(young, own ? 0 : parent);
    buf_string(young, name, size);
    if (young->failed)
        log_fatal("out of memory for a file that has lost its name");
    advance(m);
    pthread_mutex_unlock(&m->lock);
}

void fs_mount_unnamed(struct fs_mount *m, uint64_t parent, const void *name, size_t size)
{
    pthread_mutex_lock(&m->lock);
    notify_name(m, parent, name, size, 0);
    pthread_mutex_unlock(&m->lock);
}

void orphans_end(struct fs_mount *m)
{
    buf_release(&m->undecided.young);
    buf_release(&m->undecided.old);
    lookups_release(&m->lookups);
    while (m->names) {
        struct gone_name *gone = m->names;
        m->names = gone->next;
        free(gone);
    }
}
