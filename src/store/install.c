/*
 * install.c - a snapshot that was received and verified takes the place of log and state.
 *
 *   the loop        store_install: from here on nothing may be appended
 *   the log thread  the spare for the new log, if it is not there  (no room: given up)
 *                   incoming/X.part -> log/ID.mrg, each; directories synced
 *                   MANIFEST.new -> MANIFEST                       <- this installs it
 * (G7) the new log's first segment, which begins with M + 1 the former files go the loop
 * store_finish_job: keydir, files, log and applied change in one step
 *
 * A crash before the rename leaves merged files that no manifest lists: they mean
 * nothing. A crash after it leaves log segments with a lower file id than the manifest's
 * first_file, which mean nothing either, and perhaps no segment of the new log.
 */
#include "store_internal.h"

/* ---- The loop ---------------------------------------------------------------------- */

/* The files that go, for the log thread. */
static void note_former(const struct store *s, struct buf *to)
{
    for (size_t i = 0; i < s->segment_count; i++) {
        buf_u64(to, s->segments[i]->file_id);
        buf_u8(to, SEGMENT_LOG);
    }
    for (size_t i = s->beyond_first; i < s->beyond_count; i++) { /* a hole */
        buf_u64(to, s->beyond[i]->file_id);
        buf_u8(to, SEGMENT_LOG);
    }
    for (size_t i = 0; i < s->merged_count; i++) {
        buf_u64(to, s->merged[i]->file_id);
        buf_u8(to, SEGMENT_MERGED);
    }
}

/* The first segment of the log to be: the spare, or one that is made when it is needed.
 */
static struct segment *take_spare(struct store *s)
{
    if (!s->spare)
        return segment_new(s, SEGMENT_LOG, store_new_file_id(s));
    struct segment *spare = s->spare;
    s->spare = NULL;
    s->spare_state = SPARE_NONE;
    return spare;
}

int store_install(struct store *s, struct store_incoming *in)
{
    ensure(in->step == INCOMING_READY && in->s == s && !s->installing);
    uint64_t index = in->installed.merged.index;
    if (index <= s->applied.index || index <= min_u64(s->hint, s->end.index))
        return -ESTALE;
    if (!task_stop(s))
        return -EBUSY;
    buf_clear(&in->former); /* an earlier call may have lacked memory */
    note_former(s, &in->former);
    if (in->former.failed || job_reserve(s, 1) != 0 || store_reserve_segment(s) != 0)
        return -ENOMEM;
    struct segment *next = take_spare(s);
    if (!next)
        return -ENOMEM;
    next->first_index = index + 1;
    next->limit_bytes = s->segment_bytes;
    in->installed.first_file = next->file_id;
    in->next = next;
    job_add(s, OP_INSTALL)->install = in;
    s->installing = true;
    s->dropped = true;
    store_refresh_space(
        s); /* the next spare; without memory now, it is asked for later */
    return 0;
}

/* ---- The log thread ---------------------------------------------------------------- */

/* Each file gets its place among the store's. */
static int move_files(struct store_incoming *in, char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = in->s->io;
    struct path from, to, directory;
    for (size_t i = 0; i < in->count; i++) {
        incoming_part_path(&from, in->s->path, in->files[i].from.file_id);
        merged_path(&to, in->s->path, in->segments[i]->file_id);
        int rc = io->rename(io->context, from.text, to.text);
        if (rc != 0)
            return store_fail_call(error, rc, "rename", from.text);
    }
    log_directory_path(&directory, in->s->path);
    int rc = io->sync_dir(io->context, directory.text);
    /* Both: a part that had its former name, too, after a power cut would be received
     * into again, by its new one. */
    if (rc == 0) {
        incoming_path(&directory, in->s->path, "");
        rc = io->sync_dir(io->context, directory.text);
    }
    return rc == 0 ? 0 : store_fail_call(error, rc, "sync", directory.text);
}

/* Those that have one go back to where they came from, or, where there is no room for
 * their names, away: they are then fetched anew. */
static int move_back(struct store_incoming *in, char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = in->s->io;
    struct path from, to, directory;
    for (size_t i = 0; i < in->count; i++) {
        merged_path(&from, in->s->path, in->segments[i]->file_id);
        incoming_part_path(&to, in->s->path, in->files[i].from.file_id);
        int rc = io->rename(io->context, from.text, to.text);
        if (no_room(rc) || rc == -ENOMEM)
            rc = io->unlink(io->context, from.text);
        if (rc != 0 && rc != -ENOENT)
            return store_fail_call(error, rc, "rename", from.text);
    }
    log_directory_path(&directory, in->s->path);
    int rc = io->sync_dir(io->context, directory.text);
    return rc == 0 ? 0 : store_fail_call(error, rc, "sync", directory.text);
}

static int remove_file(struct store *s, const struct path *path, bool must,
                       char error[STORE_ERROR_BYTES])
{
    int rc = s->io->unlink(s->io->context, path->text);
    if (rc == 0 || (rc == -ENOENT && !must))
        return 0;
    return store_fail_call(error, rc, "remove", path->text);
}

static int remove_former(struct store_job *job, struct store_incoming *in,
                         char error[STORE_ERROR_BYTES])
{
    struct store *s = job->store;
    struct path path;
    struct reader r = reader_of(in->former.data, in->former.length);
    int rc = 0;
    while (rc == 0 && reader_left(&r) > 0) {
        uint64_t file_id = reader_u64(&r);
        bool is_log = reader_u8(&r) == SEGMENT_LOG;
        (is_log ? segment_path : merged_path)(&path, s->path, file_id);
        rc = remove_file(s, &path, true, error);
        hint_path(&path, s->path, file_id);
        if (rc == 0)
            rc = remove_file(s, &path, false, error);
    }
    if (rc != 0)
        return rc;
    log_directory_path(&path, s->path);
    rc = s->io->sync_dir(s->io->context, path.text);
    job->syncs++;
    return rc == 0 ? 0 : store_fail_call(error, rc, "sync", path.text);
}

/* Whether the manifest on disk may be the new one, though writing it has failed. */
static bool may_be_published(struct store_incoming *in)
{
    struct manifest found = {0};
    char ignored[STORE_ERROR_BYTES];
    int rc = manifest_read(in->s, &found, ignored);
    bool may_be = rc == 0 ? found.first_file == in->installed.first_file : rc != -ENOENT;
    manifest_release(&found);
    return may_be;
}

static int publish(struct store_job *job, struct store_incoming *in,
                   char error[STORE_ERROR_BYTES])
{
    struct store *s = job->store;
    int rc = in->next->fd < 0 ? segment_make_spare(s, in->next, error) : 0;
    if (rc == 0)
        rc = move_files(in, error);
    if (rc == 0)
        rc = manifest_write(s, &in->installed, error);
    job->syncs += 4;
    return rc;
}

/* It is installed. What cannot be done now is an error that ends the process: entries
 * that come must find their segment. Only what is left of the transfer can wait. */
static int settle(struct store_job *job, struct store_incoming *in,
                  char error[STORE_ERROR_BYTES])
{
    int rc = segment_activate(in->s, in->next, error);
    if (rc == 0)
        rc = remove_former(job, in, error);
    if (rc != 0)
        return rc;
    char ignored[STORE_ERROR_BYTES];
    rc = incoming_drop(in, ignored);
    if (rc == 0 || rc == -ENOMEM)
        return 0; /* the next attempt removes it */
    snprintf(error, STORE_ERROR_BYTES, "%s", ignored);
    return rc;
}

int install_run(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES])
{
    struct store_incoming *in = op->install;
    int rc = publish(job, in, error);
    if ((no_room(rc) || rc == -ENOMEM) && !may_be_published(in)) {
        op->failed = true;
        incoming_remove_hints(in);
        return move_back(in, error);
    }
    in->hints_stay = true;
    return rc == 0 ? settle(job, in, error) : rc;
}

/* ---- The loop again ---------------------------------------------------------------- */

/* Readers may still be inside what they found by the former keydir. */
static void retire(struct store *s, struct segment **segments, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        atomic_store(&segments[i]->live_bytes, 0);
        segment_unref(segments[i]);
    }
    s->dropped = true;
}

static void replace_log(struct store *s, struct store_incoming *in)
{
    retire(s, s->segments, s->segment_count);
    retire(s, s->beyond + s->beyond_first, s->beyond_count - s->beyond_first);
    s->segment_count = s->beyond_first = s->beyond_count = 0;
    s->behind = false;
    if (s->claim_index > 0 && s->claim_index <= in->installed.merged.index) {
        damage_ended_hole(s);
        s->claim_index = s->claim_term = 0;
    }
    store_add_segment(s, in->next);
    in->next = NULL;
    while (s->tail.count > 0)
        tail_pop_last(&s->tail);
    ahead_clear(&s->ahead);
    s->base = s->end = s->applied = in->installed.merged;
    s->durable = s->base.index;
    damage_clear(s);
    scrub_forget(s);
}

static void replace_merged(struct store *s, struct store_incoming *in)
{
    retire(s, s->merged, s->merged_count);
    free(s->merged);
    s->merged = in->segments;
    s->merged_count = in->count;
    in->segments = NULL;
    manifest_release(&s->manifest);
    s->manifest = in->installed;
    in->installed = (struct manifest){0};
}

static void replace_keydir(struct store *s, struct store_incoming *in)
{
    struct keydir *former = s->keydir;
    __atomic_store_n(&s->sequence, s->sequence + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&s->keydir, in->keydir, __ATOMIC_RELEASE);
    __atomic_store_n(&s->sequence, s->sequence + 1, __ATOMIC_RELEASE);
    in->keydir = NULL;
    keydir_free_deferred(former);
}

/* It holds the space that the log needs to go on, on a disk that is full. */
static void give_back_spare(struct store *s, struct store_incoming *in)
{
    if (s->spare || in->next->fd < 0)
        return;
    s->spare = in->next;
    s->spare_state = SPARE_READY;
    in->next = NULL;
}

bool install_finish(struct store *s, struct op *op, struct store_incoming **ret_failed)
{
    struct store_incoming *in = op->install;
    op->install = NULL;
    s->installing = false;
    if (op->failed) {
        give_back_spare(s, in);
        *ret_failed = in;
        return false;
    }
    replace_keydir(s, in);
    replace_log(s, in);
    replace_merged(s, in);
    store_incoming_free(in); /* nothing but memory is left of it */
    return true;
}
