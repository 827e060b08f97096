/* store.c - a store's life: made, opened, closed, counted. */
#include "store_internal.h"

#include <fcntl.h>

enum { NAMES_BYTES = 64 }; /* what the store's own names add to the directory's */

static int check_options(const struct store_options *options,
                         char error[STORE_ERROR_BYTES])
{
    ensure(options->io && options->path);
    ensure(options->segment_bytes >= SEGMENT_MIN && options->segment_bytes <= UINT32_MAX);
    if (strlen(options->path) + NAMES_BYTES > LIMIT_PATH_BYTES)
        return store_fail_call(error, -ENAMETOOLONG, "use", options->path);
    return 0;
}

/* ---- Making ------------------------------------------------------------------------ */

static int is_data_name(void *arg, const char *name)
{
    size_t length = strlen(name);
    const char *end = length > 4 ? name + length - 4 : "";
    bool data = strcmp(end, ".seg") == 0 || strcmp(end, ".mrg") == 0;
    return data || strcmp(name, "MANIFEST") == 0 ? -EEXIST : 0;
}

static int check_absent(const struct store_options *options,
                        char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = options->io;
    struct path state, log;
    hard_state_path(&state, options->path, "");
    log_directory_path(&log, options->path);
    int fd = io->open(io->context, state.text, O_RDONLY, 0);
    if (fd >= 0)
        io->close(io->context, fd);
    int rc = fd >= 0 ? -EEXIST : fd == -ENOENT ? 0 : fd;
    if (rc == 0)
        rc = io->list(io->context, log.text, is_data_name, NULL);
    if (rc == -EEXIST)
        return store_fail(error, rc,
                          "there is a store in %s already: use it, or another directory",
                          options->path);
    return rc == 0 || rc == -ENOENT ? 0 : store_fail_call(error, rc, "read", log.text);
}

/* A file with the space of two slots. */
static int make_slots(const struct store_io *io, const char *path)
{
    int fd = io->open(io->context, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    int rc = io->allocate(io->context, fd, 2 * SLOT_STRIDE);
    if (rc == 0)
        return fd;
    io->close(io->context, fd);
    return rc;
}

static int make_commit_hint(const struct store_options *options, const char *path)
{
    const struct store_io *io = options->io;
    int fd = make_slots(io, path);
    if (fd < 0)
        return fd;
    struct commit_hint hint = {.commit = 0, .format = format_of(options)};
    memcpy(hint.cluster_id, options->cluster_id, sizeof(hint.cluster_id));
    int rc = commit_hint_write(io, fd, &hint, 0);
    if (rc == 0)
        rc = io->sync_all(io->context, fd);
    io->close(io->context, fd);
    return rc;
}

/* Complete under another name first: where there is a raft.state, there is a store. */
static int make_hard_state(const struct store_options *options, const char *new_path,
                           const char *path)
{
    const struct store_io *io = options->io;
    int fd = make_slots(io, new_path);
    if (fd < 0)
        return fd;
    struct hard_state state = {.sequence = 1, .format = format_of(options)};
    memcpy(state.cluster_id, options->cluster_id, sizeof(state.cluster_id));
    int rc = hard_state_write(io, fd, &state, 0);
    if (rc == 0)
        rc = hard_state_write(io, fd, &state, 1);
    if (rc == 0)
        rc = io->sync_all(io->context, fd);
    io->close(io->context, fd);
    if (rc == 0) /* the log directory before the name that vouches for it */
        rc = io->sync_dir(io->context, options->path);
    if (rc == 0)
        rc = io->rename(io->context, new_path, path);
    return rc == 0 ? io->sync_dir(io->context, options->path) : rc;
}

static int make_directory(const struct store_io *io, const char *path,
                          char error[STORE_ERROR_BYTES])
{
    int rc = io->mkdir(io->context, path, 0700);
    return rc == 0 ? 0 : store_fail_call(error, rc, "make the directory", path);
}

int store_create(const struct store_options *options, char error[STORE_ERROR_BYTES])
{
    int rc = check_options(options, error);
    if (rc == 0)
        rc = check_absent(options, error);
    struct path log, hint, state, new_state;
    log_directory_path(&log, options->path);
    commit_hint_path(&hint, options->path);
    hard_state_path(&state, options->path, "");
    hard_state_path(&new_state, options->path, ".new");
    if (rc == 0)
        rc = make_directory(options->io, options->path, error);
    if (rc == 0)
        rc = make_directory(options->io, log.text, error);
    if (rc != 0)
        return rc;
    rc = make_commit_hint(options, hint.text);
    if (rc != 0)
        return store_fail_call(error, rc, "make", hint.text);
    rc = make_hard_state(options, new_state.text, state.text);
    return rc == 0 ? 0 : store_fail_call(error, rc, "make", state.text);
}

/* ---- Opening and closing ----------------------------------------------------------- */

static struct store *store_new(const struct store_options *options)
{
    struct store *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->io = options->io;
    s->path = strdup(options->path);
    memcpy(s->cluster_id, options->cluster_id, sizeof(s->cluster_id));
    s->segment_bytes = options->segment_bytes;
    s->format_newest = format_newest(options);
    s->format = format_of(options);
    s->state_fd = s->hint_fd = -1;
    s->next_file_id = 1;
    s->scrub_period_us =
        options->scrub_period_us ? options->scrub_period_us : STORE_SCRUB_PERIOD_US;
    s->retain_bytes = options->retain_bytes ? options->retain_bytes : STORE_RETAIN_BYTES;
    s->merge_bytes_per_s =
        options->merge_bytes_per_s ? options->merge_bytes_per_s : STORE_MERGE_BYTES_PER_S;
    s->keep_from = UINT64_MAX;
    s->save_state = options->save_state;
    s->context = options->context;
    s->slots = slots_new();
    s->keydir = s->slots ? keydir_new(s->slots) : NULL;
    skip_init(&s->ahead);
    damage_init(&s->damage);
    s->damaged = options->damaged;
    s->context = options->context;
    return s;
}

int store_open(struct store **ret, const struct store_options *options,
               struct store_recovery *ret_recovery, char error[STORE_ERROR_BYTES])
{
    int rc = check_options(options, error);
    if (rc != 0)
        return rc;
    struct store *s = store_new(options);
    if (!s || !s->path || !s->keydir) {
        store_free(s);
        return store_fail_call(error, -ENOMEM, "open", options->path);
    }
    rc = store_recover(s, options, ret_recovery, error);
    if (rc != 0) {
        store_free(s);
        return rc;
    }
    scrub_load(s);
    s->shared = true;
    for (size_t i = 0; i + 1 < s->segment_count; i++)
        s->segments[i]->sealed = true;
    *ret = s;
    return 0;
}

void store_free(struct store *s)
{
    if (!s)
        return;
    if (s->task) {
        s->task->kind->free(s->task);
        s->dropped = true;
    }
    while (s->pins)
        store_unpin_log(s, s->pins);
    scrub_forget(s);
    job_free(s->pending);
    job_free(s->running);
    tail_release(&s->tail);
    ahead_clear(&s->ahead);
    keydir_free(s->keydir);
    for (size_t i = 0; i < s->segment_count; i++)
        segment_unref_unread(s->segments[i]);
    for (size_t i = 0; i < s->merged_count; i++)
        segment_unref_unread(s->merged[i]);
    for (size_t i = s->beyond_first; i < s->beyond_count; i++)
        segment_unref_unread(s->beyond[i]);
    segment_unref_unread(s->spare);
    if (s->dropped)
        reading_barrier(); /* all files are closed when this returns */
    if (s->state_fd >= 0)
        s->io->close(s->io->context, s->state_fd);
    if (s->hint_fd >= 0)
        s->io->close(s->io->context, s->hint_fd);
    slots_unref(s->slots);
    damage_release(&s->damage);
    manifest_release(&s->manifest);
    free(s->beyond);
    free(s->segments);
    free(s->merged);
    free(s->runs);
    free(s->path);
    free(s);
}

void store_set_format(struct store *s, uint32_t format)
{
    ensure(format >= STORE_FORMAT_OLDEST && format <= s->format_newest);
    if (format > s->format)
        s->format = format;
}

uint32_t store_format(const struct store *s)
{
    return s->format;
}

void store_close(struct store *s)
{
    store_free(s);
}

void store_stats(struct store *s, struct store_stats *ret)
{
    *ret = s->stats;
    ret->keys = keydir_count(s->keydir);
    ret->live_bytes = s->keydir->live_bytes;
    ret->segments = s->segment_count;
    ret->entries = s->end.index - s->base.index;
    ret->log_bytes = 0;
    for (size_t i = 0; i < s->segment_count; i++) {
        ret->log_bytes += s->segments[i]->used;
        ret->hint_bytes += s->segments[i]->hint_bytes;
    }
    ret->merged_files = s->merged_count;
    for (size_t i = 0; i < s->merged_count; i++) {
        ret->merged_bytes += s->merged[i]->used;
        ret->hint_bytes += s->merged[i]->hint_bytes;
    }
    damage_stats(s, ret);
    ret->bad_reads = atomic_load_explicit(&s->bad_reads, memory_order_relaxed);
}

const void *store_state(const struct store *s, size_t *ret_length)
{
    *ret_length = s->manifest.state_size;
    return s->manifest.state;
}
