/*
 * recovery_settle.c - what was judged becomes so on disk, and durable (G4). Only here
 * something is changed, but for hints that were made again.
 */
#include "recovery.h"

#include <fcntl.h>

/* ---- Names ------------------------------------------------------------------------- */

/* What was found there may be in memory only: the process may have stopped between a
 * rename and its sync. */
static int sync_directories(struct recovery *r)
{
    struct store *s = r->s;
    struct path path;
    log_directory_path(&path, s->path);
    int rc = s->io->sync_dir(s->io->context, path.text);
    if (rc != 0)
        return store_fail_call(r->error, rc, "sync", path.text);
    rc = s->io->sync_dir(s->io->context, s->path);
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "sync", s->path);
}

/* ---- Leftovers --------------------------------------------------------------------- */

typedef void make_path(struct path *ret, const char *directory, uint64_t file_id);

/* A hint that was rebuilt took the name of what was left of another with it. */
static int remove_file(struct recovery *r, make_path *name, const char *more, uint64_t id)
{
    struct path path, whole;
    name(&path, r->s->path, id);
    snprintf(whole.text, sizeof(whole.text), "%.*s%s", LIMIT_PATH_BYTES - 8, path.text,
             more);
    int rc = r->s->io->unlink(r->s->io->context, whole.text);
    return rc == 0 || rc == -ENOENT ? 0
                                    : store_fail_call(r->error, rc, "remove", whole.text);
}

static bool is_listed(const struct store *s, uint64_t id)
{
    for (size_t i = 0; i < s->manifest.count; i++)
        if (s->manifest.files[i].file_id == id)
            return true;
    return false;
}

/* Whether a hint of this id still says something. The active segment is not sealed: where
 * it has one, it was before. */
static bool hint_has_file(const struct recovery *r, uint64_t id)
{
    if (is_listed(r->s, id))
        return true;
    for (size_t i = 0; i < r->file_count; i++)
        if (r->files[i].segment->file_id == id)
            return i + 1 != r->walked;
    return false;
}

static bool is_leftover(const struct recovery *r, enum name_kind kind, uint64_t id)
{
    switch (kind) {
    case NAME_SEGMENT:
        return id_list_has(&r->merged_away, id);
    case NAME_MERGED:
        return !is_listed(r->s, id);
    case NAME_HINT:
        return !hint_has_file(r, id);
    default:
        return true;
    }
}

static int remove_leftovers(struct recovery *r)
{
    static const struct {
        make_path *name;
        const char *more;
    } names[NAME_KINDS] = {
        [NAME_SEGMENT] = {segment_path, ""},
        [NAME_MERGED] = {merged_path, ""},
        [NAME_HINT] = {hint_path, ""},
        [NAME_SPARE] = {segment_spare_path, ""},
        [NAME_MERGED_NEW] = {merged_path, ".new"},
        [NAME_HINT_NEW] = {hint_path, ".new"},
    };
    for (int kind = 0; kind < NAME_KINDS; kind++)
        for (size_t i = 0; i < r->names[kind].count; i++) {
            uint64_t id = r->names[kind].ids[i];
            int rc = is_leftover(r, (enum name_kind)kind, id)
                         ? remove_file(r, names[kind].name, names[kind].more, id)
                         : 0;
            if (rc != 0)
                return rc;
        }
    if (!r->manifest_new)
        return 0;
    struct path path;
    manifest_path(&path, r->s->path, ".new");
    int rc = r->s->io->unlink(r->s->io->context, path.text);
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "remove", path.text);
}

/* ---- The log ----------------------------------------------------------------------- */

/* A restart may have read from the page cache what a failed sync left clean there and not
 * on disk. Such bytes are in the last segment, above the hint: written again, they are
 * synced for certain. */
static int rewrite_tail(struct recovery *r)
{
    struct store *s = r->s;
    uint64_t index = max_u64(r->hint + 1, r->at->first_index);
    if (index > s->end.index)
        return 0;
    uint64_t offset = r->at->offsets[index - r->at->first_index];
    while (offset < r->end_offset) {
        const uint8_t *data;
        size_t length;
        int rc = recovery_look(r, offset, min_u64(WINDOW_BYTES, r->end_offset - offset),
                               &data, &length);
        struct iovec iov = {(void *)data, length};
        if (rc == 0)
            rc = length > 0 ? write_full(s->io, r->at->fd, &iov, 1, offset) : -EIO;
        if (rc != 0)
            return rc;
        offset += length;
    }
    return 0;
}

/* With a hole nothing is cut, and room for what stood there is room that there is. */
static int settle_last(struct recovery *r)
{
    struct store *s = r->s;
    int rc = 0;
    if (r->cut_bytes > 0)
        rc = s->io->truncate(s->io->context, r->at->fd, r->end_offset);
    if (rc == 0)
        rc = rewrite_tail(r);
    if (rc != 0)
        return rc;
    uint64_t kept = r->hole ? max_u64(r->at_size, r->at->used) : r->at->used;
    r->at->limit_bytes = max_u64(s->segment_bytes, kept);
    bool sealed = r->walked < r->file_count; /* it has the size that it should have */
    if (sealed || (r->cut_bytes == 0 && r->at_size >= s->segment_bytes))
        return 0;
    rc = s->io->allocate(s->io->context, r->at->fd, s->segment_bytes);
    if (rc == -ENOSPC || rc == -EDQUOT) { /* as good as full */
        r->at->limit_bytes = kept;
        rc = 0;
    }
    return rc;
}

/* What was the active one before a hole may be longer than its entries. */
static int settle_sealed(struct recovery *r, size_t i)
{
    const struct segment *segment = r->s->segments[i];
    if (r->files[i].size <= segment->used)
        return 0;
    return r->s->io->truncate(r->s->io->context, segment->fd, segment->used);
}

static int settle_segments(struct recovery *r)
{
    struct store *s = r->s;
    for (size_t i = 0; i < s->segment_count; i++) {
        struct segment *segment = s->segments[i];
        segment->limit_bytes = segment->used;
        int rc = i + 1 == s->segment_count ? settle_last(r) : settle_sealed(r, i);
        if (rc == 0)
            rc = s->io->sync_all(s->io->context, segment->fd);
        if (rc != 0) {
            struct path path;
            segment_path(&path, s->path, segment->file_id);
            return store_fail_call(r->error, rc, "settle", path.text);
        }
    }
    return 0;
}

/* ---- Small files and names --------------------------------------------------------- */

/* Both slots anew, the one it was read from last. */
static int settle_hard_state(struct recovery *r)
{
    struct store *s = r->s;
    s->hard_sequence = r->state.sequence;
    r->state.format = s->format;
    int rc = hard_state_write(s->io, s->state_fd, &r->state, !r->state_slot);
    if (rc == 0)
        rc = hard_state_write(s->io, s->state_fd, &r->state, r->state_slot);
    if (rc == 0)
        return 0;
    struct path path;
    hard_state_path(&path, s->path, "");
    return store_fail_call(r->error, rc, "write", path.text);
}

static int create_commit_hint(struct recovery *r, const char *path)
{
    struct store *s = r->s;
    s->hint_fd = s->io->open(s->io->context, path, O_RDWR | O_CREAT, 0600);
    if (s->hint_fd < 0)
        return store_fail_call(r->error, s->hint_fd, "create", path);
    int rc = s->io->sync_dir(s->io->context, s->path);
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "sync", s->path);
}

static int settle_commit_hint(struct recovery *r)
{
    struct store *s = r->s;
    struct path path;
    commit_hint_path(&path, s->path);
    int rc = s->hint_fd < 0 ? create_commit_hint(r, path.text) : 0;
    if (rc != 0)
        return rc;
    rc = s->io->allocate(s->io->context, s->hint_fd, 2 * SLOT_STRIDE);
    s->hint = r->hint;
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "reserve space for", path.text);
}

/* ---- What the running store needs -------------------------------------------------- */

static int make_first_segment(struct recovery *r)
{
    struct store *s = r->s;
    struct segment *segment = segment_new(s, SEGMENT_LOG, s->next_file_id);
    if (!segment || store_reserve_segment(s) != 0) {
        segment_unref(segment);
        return store_fail_call(r->error, -ENOMEM, "make a segment in", s->path);
    }
    s->next_file_id++;
    store_add_segment(s, segment);
    segment->first_index = s->base.index + 1;
    segment->limit_bytes = s->segment_bytes;
    int rc = segment_make_spare(s, segment, r->error);
    return rc == 0 ? segment_activate(s, segment, r->error) : rc;
}

/* Without room the store opens all the same: it can be read, and deletes may make some.
 */
static int make_spare(struct recovery *r)
{
    struct store *s = r->s;
    struct segment *spare = segment_new(s, SEGMENT_LOG, s->next_file_id);
    if (!spare)
        return store_fail_call(r->error, -ENOMEM, "make a segment in", s->path);
    s->next_file_id++;
    int rc = segment_make_spare(s, spare, r->error);
    if (rc == 0) {
        s->spare = spare;
        s->spare_state = SPARE_READY;
    } else {
        segment_unref(spare);
        if (rc != -ENOSPC && rc != -EDQUOT)
            return rc;
    }
    rc = s->io->space(s->io->context, s->path, &s->stats.disk_free_bytes,
                      &s->stats.disk_total_bytes);
    return rc == 0 ? 0
                   : store_fail_call(r->error, rc, "look at the free space of", s->path);
}

/* What the manifest replaces goes only when its own name is on disk; and what is removed
 * does not come back, as a hint of what the log says otherwise by then. */
int recovery_settle(struct recovery *r)
{
    int rc = sync_directories(r);
    if (rc == 0)
        rc = remove_leftovers(r);
    if (rc == 0)
        rc = sync_directories(r);
    if (rc == 0)
        rc = settle_segments(r);
    if (rc == 0)
        rc = settle_hard_state(r);
    if (rc == 0)
        rc = settle_commit_hint(r);
    if (rc == 0 && r->s->segment_count == 0)
        rc = make_first_segment(r);
    if (rc == 0)
        rc = make_spare(r);
    return rc;
}
