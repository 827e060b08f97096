/*
 * job.c - what the loop asked for, done in order by the log thread.
 *
 * Consecutive appends to one segment are written together and synced once: before any
 * other operation, and before the job is done. So an operation finds everything before it
 * durable.
 */
#include "store_internal.h"

int job_reserve(struct store *s, size_t more)
{
    if (!s->pending) {
        s->pending = calloc(1, sizeof(*s->pending));
        if (!s->pending)
            return -ENOMEM;
        s->pending->store = s;
        s->pending->lowest_truncate = UINT64_MAX;
    }
    struct store_job *job = s->pending;
    if (job->capacity - job->count >= more)
        return 0;
    size_t capacity = job->capacity ? job->capacity : 16;
    while (capacity - job->count < more)
        capacity *= 2;
    struct op *ops = realloc(job->ops, capacity * sizeof(*ops));
    if (!ops)
        return -ENOMEM;
    job->ops = ops;
    job->capacity = capacity;
    return 0;
}

struct op *job_add(struct store *s, enum op_kind kind)
{
    struct store_job *job = s->pending;
    ensure(job && job->count < job->capacity);
    struct op *op = &job->ops[job->count++];
    *op = (struct op){.kind = kind};
    return op;
}

void job_free(struct store_job *job)
{
    if (!job)
        return;
    for (size_t i = 0; i < job->count; i++) {
        if (job->ops[i].kind == OP_APPEND)
            job->store->unwritten_bytes -= job->ops[i].bytes->length;
        segment_unref(job->ops[i].segment);
        segment_unref(job->ops[i].next);
        segment_unref(job->ops[i].former);
        store_incoming_free(job->ops[i].install);
        store_bytes_unref(job->ops[i].bytes);
    }
    free(job->ops);
    free(job);
}

struct store_job *store_take_job(struct store *s)
{
    ensure(!s->running); /* one at a time */
    if (!s->pending || s->pending->count == 0)
        return NULL;
    s->running = s->pending;
    s->pending = NULL;
    return s->running;
}

/* ---- The log thread ---------------------------------------------------------------- */

static int fail_segment(struct store_job *job, const struct segment *segment, int rc,
                        const char *what, char error[STORE_ERROR_BYTES])
{
    struct path path;
    segment_path(&path, job->store->path, segment->file_id);
    return store_fail_call(error, rc, what, path.text);
}

/* How many operations from `first` on go into one pwritev. */
static size_t batch_length(const struct store_job *job, size_t first)
{
    size_t n = 1;
    while (n < BATCH_IOV && first + n < job->count) {
        const struct op *op = &job->ops[first + n], *former = op - 1;
        if (op->kind != OP_APPEND || op->segment != former->segment ||
            op->offset != former->offset + former->bytes->length)
            break;
        n++;
    }
    return n;
}

static int write_batch(struct store_job *job, size_t first, size_t count,
                       char error[STORE_ERROR_BYTES])
{
    struct iovec iov[BATCH_IOV];
    const struct op *ops = &job->ops[first];
    for (size_t i = 0; i < count; i++) {
        iov[i] = (struct iovec){ops[i].bytes->data, ops[i].bytes->length};
        job->bytes_written += ops[i].bytes->length;
    }
    int rc = write_full(job->store->io, ops->segment->fd, iov, (int)count, ops->offset);
    return rc == 0 ? 0 : fail_segment(job, ops->segment, rc, "write to", error);
}

static int sync_segment(struct store_job *job, const struct segment *segment,
                        char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = job->store->io;
    int rc = io->sync(io->context, segment->fd);
    job->syncs++;
    return rc == 0 ? 0 : fail_segment(job, segment, rc, "sync", error);
}

static int truncate_segment(struct store_job *job, const struct segment *segment,
                            uint64_t size, char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = job->store->io;
    int rc = io->truncate(io->context, segment->fd, size);
    if (rc == 0)
        rc = io->sync_all(io->context, segment->fd);
    job->syncs++;
    return rc == 0 ? 0 : fail_segment(job, segment, rc, "truncate", error);
}

/* A spare that found no room when it was prepared is tried once more: it is needed now.
 */
static int run_roll(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES])
{
    int rc = truncate_segment(job, op->segment, op->offset, error);
    if (op->adopt)
        return rc;
    if (rc == 0 && op->next->fd < 0)
        rc = segment_make_spare(job->store, op->next, error);
    if (rc == 0)
        rc = segment_activate(job->store, op->next, error);
    job->syncs += 2;
    return rc;
}

/* Durable one by one, newest first (G3): a gap between segments would look like damage.
 */
static int run_unlink(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = job->store->io;
    struct path path, directory;
    segment_path(&path, job->store->path, op->segment->file_id);
    log_directory_path(&directory, job->store->path);
    int rc = io->unlink(io->context, path.text);
    if (rc != 0)
        return store_fail_call(error, rc, "remove", path.text);
    rc = io->sync_dir(io->context, directory.text);
    job->syncs++;
    return rc == 0 ? 0 : store_fail_call(error, rc, "sync", directory.text);
}

/* Where another has taken the space that was given back just now, the segment goes on
 * without a reservation. */
static int run_truncate(struct store_job *job, struct op *op,
                        char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = job->store->io;
    int rc = truncate_segment(job, op->segment, op->offset, error);
    if (rc != 0)
        return rc;
    rc = io->allocate(io->context, op->segment->fd, job->store->segment_bytes);
    if (rc != 0 && !no_room(rc))
        return fail_segment(job, op->segment, rc, "reserve space for", error);
    return 0;
}

static int run_hard_state(struct store_job *job, struct op *op,
                          char error[STORE_ERROR_BYTES])
{
    struct store *s = job->store;
    struct hard_state state = {.sequence = op->sequence,
                               .term = op->term,
                               .vote = op->vote,
                               .format = s->format};
    memcpy(state.cluster_id, s->cluster_id, sizeof(state.cluster_id));
    for (int slot = 0; slot < 2; slot++) { /* G5 */
        int rc = hard_state_write(s->io, s->state_fd, &state, slot);
        job->syncs++;
        if (rc != 0) {
            struct path path;
            hard_state_path(&path, s->path, "");
            return store_fail_call(error, rc, "write", path.text);
        }
    }
    return 0;
}

static int run_commit_hint(struct store_job *job, struct op *op,
                           char error[STORE_ERROR_BYTES])
{
    struct store *s = job->store;
    struct commit_hint hint = {
        .commit = op->index, .term = op->term, .format = s->format};
    memcpy(hint.cluster_id, s->cluster_id, sizeof(hint.cluster_id));
    int rc = commit_hint_write(s->io, s->hint_fd, &hint, (int)op->sequence);
    job->syncs++;
    if (rc == 0)
        return 0;
    struct path path;
    commit_hint_path(&path, s->path);
    return store_fail_call(error, rc, "write", path.text);
}

static int run_space(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES])
{
    struct store *s = job->store;
    if (op->segment) {
        int rc = segment_make_spare(s, op->segment, error);
        if (rc != 0 && !no_room(rc))
            return rc;
        op->failed = rc != 0;
    }
    int rc = s->io->space(s->io->context, s->path, &job->disk_free, &job->disk_total);
    if (rc != 0)
        return store_fail_call(error, rc, "look at the free space of", s->path);
    job->looked = true;
    return 0;
}

typedef int run_op(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES]);

static run_op *const run_table[] = {
    [OP_ROLL] = run_roll,
    [OP_UNLINK] = run_unlink,
    [OP_TRUNCATE] = run_truncate,
    [OP_HARD_STATE] = run_hard_state,
    [OP_COMMIT_HINT] = run_commit_hint,
    [OP_SPACE] = run_space,
    [OP_REPAIR] = repair_run,
    [OP_INSTALL] = install_run,
};

int store_run_job(struct store_job *job, char error[STORE_ERROR_BYTES])
{
    const struct segment *dirty = NULL;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < job->count;) {
        struct op *op = &job->ops[i];
        if (dirty && (op->kind != OP_APPEND || op->segment != dirty)) {
            rc = sync_segment(job, dirty, error);
            dirty = NULL;
        }
        if (rc != 0)
            break;
        size_t n = 1;
        if (op->kind == OP_APPEND) {
            n = batch_length(job, i);
            rc = write_batch(job, i, n, error);
            dirty = op->segment;
        } else {
            rc = run_table[op->kind](job, op, error);
        }
        i += n;
    }
    if (rc == 0 && dirty)
        rc = sync_segment(job, dirty, error);
    return rc;
}

/* ---- The loop again ---------------------------------------------------------------- */

static void finish_space(struct store *s, const struct op *op)
{
    if (!op->segment || op->segment != s->spare)
        return; /* rolled to already: that roll makes it, or fails */
    s->spare_state = op->failed ? SPARE_NONE : SPARE_READY;
    if (op->failed) {
        segment_unref(s->spare);
        s->spare = NULL;
    }
}

/* A truncation may have made it the active one again. */
static void finish_roll(struct store *s, const struct op *op)
{
    if (op->segment != store_active(s))
        op->segment->sealed = true;
}

struct store_done store_finish_job(struct store *s, struct store_job *job)
{
    ensure(job == s->running);
    struct store_done done = {0};
    bool rolled = false;
    for (size_t i = 0; i < job->count; i++) {
        struct op *op = &job->ops[i];
        if (op->kind == OP_APPEND || op->kind == OP_TRUNCATE) {
            done.durable_index = op->index;
            done.generation = op->generation;
        } else if (op->kind == OP_HARD_STATE) {
            done.hard_state = true;
        } else if (op->kind == OP_ROLL) {
            finish_roll(s, op);
            rolled = true;
        } else if (op->kind == OP_SPACE) {
            finish_space(s, op);
        } else if (op->kind == OP_REPAIR) {
            done.repaired += repair_finish(s, op);
        }
    }
    if (done.durable_index) {
        /* What was truncated meanwhile will not stay (G3). */
        uint64_t stays = s->pending ? s->pending->lowest_truncate : UINT64_MAX;
        s->durable = min_u64(done.durable_index, stays);
    }
    if (job->looked) {
        s->stats.disk_free_bytes = job->disk_free;
        s->stats.disk_total_bytes = job->disk_total;
    }
    for (size_t i = 0; i < job->count; i++) {
        if (job->ops[i].kind == OP_INSTALL) {
            done.installed = install_finish(s, &job->ops[i], &done.incoming);
            done.install_failed = !done.installed;
        }
    }
    s->stats.bytes_written += job->bytes_written;
    s->stats.syncs += job->syncs;
    s->running = NULL;
    job_free(job);
    if (rolled)
        space_update(s);
    check_step(s);
    return done;
}
