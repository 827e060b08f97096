/*
 * incoming_ready.c - a snapshot that has come is made ready to be installed (install.c):
 * in short steps, for other work of the same thread has its turn between them.
 *
 *   BEGIN --> HINT --> CHECK --> LOAD --> READY
 *               ^--------|
 *              each file
 *
 * Every record is verified, by making the hint; the hint is compared with what the sender
 * has described; then the keydir is loaded from all hints.
 */
#include "store_internal.h"

enum { READY_RECORDS = 4096 }; /* of hints, looked at in one step */

/* ---- Back -------------------------------------------------------------------------- */

void incoming_remove_hints(struct store_incoming *in)
{
    for (size_t i = 0; i < in->count && !in->hints_stay; i++) {
        struct path path;
        if (!in->segments || !in->segments[i])
            continue;
        hint_path(&path, in->s->path, in->segments[i]->file_id);
        in->s->io->unlink(in->s->io->context, path.text);
    }
    in->hints_stay = true; /* nothing is left to be removed */
}

static void release_load(struct store_incoming *in)
{
    keydir_loader_free(in->loader);
    in->loader = NULL;
    for (size_t i = 0; in->sources && i < in->count; i++)
        hint_reader_free(in->sources[i].hint);
    free(in->sources);
    in->sources = NULL;
}

void incoming_unprepare(struct store_incoming *in)
{
    hint_builder_free(in->builder);
    in->builder = NULL;
    hint_reader_free(in->reader);
    in->reader = NULL;
    release_load(in);
    incoming_remove_hints(in);
    for (size_t i = 0; i < in->count; i++) {
        struct segment *segment = in->segments ? in->segments[i] : NULL;
        if (!segment)
            continue;
        in->files[i].fd = segment->fd;
        segment->fd = -1;
        segment_unref(segment);
    }
    free(in->segments);
    in->segments = NULL;
    keydir_free(in->keydir);
    in->keydir = NULL;
    manifest_release(&in->installed);
    in->step = INCOMING_BEGIN;
    in->hints_stay = false;
}

/* ---- Steps: 1 where it goes on ----------------------------------------------------- */

/* The manifest as it will be; its first_file is filled in when it is installed. */
static int step_begin(struct store_incoming *in, uint64_t *ret_bytes)
{
    const struct manifest *from = &in->manifest;
    in->installed = (struct manifest){.merged = from->merged,
                                      .applied_index = from->applied_index,
                                      .applied_term = from->applied_term,
                                      .count = from->count,
                                      .state_size = from->state_size};
    in->installed.files = calloc(in->count + 1, sizeof(*in->installed.files));
    in->installed.state = malloc(from->state_size + 1);
    in->segments = calloc(in->count + 1, sizeof(*in->segments));
    if (!in->installed.files || !in->installed.state || !in->segments)
        return -ENOMEM;
    if (from->state_size > 0)
        memcpy(in->installed.state, from->state, from->state_size);
    in->at = 0;
    in->step = in->count > 0 ? INCOMING_HINT : INCOMING_LOAD;
    return 1;
}

/* The file becomes one of this store's own. */
static int adopt_file(struct store_incoming *in, size_t i)
{
    struct store *s = in->s;
    struct incoming_file *file = &in->files[i];
    struct segment *segment = segment_new(s, SEGMENT_MERGED, store_new_file_id(s));
    if (!segment)
        return -ENOMEM;
    segment->fd = file->fd;
    segment->used = file->from.bytes;
    file->fd = -1;
    in->segments[i] = segment;
    in->installed.files[i] = file->from;
    in->installed.files[i].file_id = segment->file_id;
    uint8_t head[SEGMENT_HEADER];
    merged_head_encode(head, s->cluster_id, s->format, segment->file_id);
    struct iovec iov = {head, sizeof(head)};
    int rc = write_full(s->io, segment->fd, &iov, 1, 0);
    if (rc == 0)
        rc = s->io->sync_all(s->io->context, segment->fd);
    return rc == 0 ? hint_builder_new(s, segment, segment->used, &in->builder) : rc;
}

static int open_hint(const struct store_incoming *in, size_t i, struct hint_reader **ret)
{
    const struct segment *segment = in->segments[i];
    return hint_reader_new(in->s, segment->file_id, SEGMENT_MERGED, segment->used, ret);
}

static int step_hint(struct store_incoming *in, uint64_t *ret_bytes)
{
    int rc = in->builder ? 0 : adopt_file(in, in->at);
    if (rc == 0)
        rc = hint_builder_step(in->builder, &in->segments[in->at]->hint_bytes);
    *ret_bytes = STRETCH_BYTES;
    if (rc != 0)
        return rc;
    hint_builder_free(in->builder);
    in->builder = NULL;
    in->found = (struct manifest_file){.min_timestamp_us = UINT64_MAX};
    rc = open_hint(in, in->at, &in->reader);
    in->step = INCOMING_CHECK;
    return rc == 0 ? 1 : rc;
}

static bool is_as_described(const struct manifest_file *found,
                            const struct manifest_file *file)
{
    if (found->records != file->records || found->tombstones != file->tombstones)
        return false;
    return found->records == 0 || (found->min_timestamp_us == file->min_timestamp_us &&
                                   found->max_timestamp_us == file->max_timestamp_us);
}

/* The hint was made by reading every record; now what it says is compared. */
static int step_check(struct store_incoming *in, uint64_t *ret_bytes)
{
    struct manifest_file *found = &in->found;
    struct hint_record record;
    int rc = 1;
    for (int i = 0; rc == 1 && i < READY_RECORDS; i++) {
        rc = hint_reader_next(in->reader, &record);
        if (rc != 1)
            break;
        found->records++;
        found->tombstones += record.value_size == STORE_TOMBSTONE;
        found->min_timestamp_us = min_u64(found->min_timestamp_us, record.timestamp_us);
        found->max_timestamp_us = max_u64(found->max_timestamp_us, record.timestamp_us);
    }
    if (rc != 0)
        return rc;
    hint_reader_free(in->reader);
    in->reader = NULL;
    if (!is_as_described(found, &in->files[in->at].from))
        return -EBADMSG;
    in->at++;
    in->step = in->at < in->count ? INCOMING_HINT : INCOMING_LOAD;
    return 1;
}

static int begin_load(struct store_incoming *in)
{
    in->sources = calloc(in->count + 1, sizeof(*in->sources));
    in->keydir = keydir_new(in->s->slots);
    int rc = in->sources && in->keydir ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < in->count; i++) {
        in->sources[i].segment = in->segments[i];
        rc = open_hint(in, i, &in->sources[i].hint);
    }
    if (rc == 0)
        rc = keydir_loader_new(in->keydir, in->sources, in->count, &in->loader);
    return rc == 0 ? 1 : rc;
}

static int step_load(struct store_incoming *in, uint64_t *ret_bytes)
{
    size_t bad;
    if (!in->loader)
        return begin_load(in);
    int rc = keydir_loader_step(in->loader, READY_RECORDS, &bad);
    if (rc != 0)
        return rc;
    release_load(in);
    in->step = INCOMING_READY;
    return 0;
}

typedef int incoming_step_run(struct store_incoming *in, uint64_t *ret_bytes);

static incoming_step_run *const steps[] = {
    [INCOMING_BEGIN] = step_begin,
    [INCOMING_HINT] = step_hint,
    [INCOMING_CHECK] = step_check,
    [INCOMING_LOAD] = step_load,
};

int store_incoming_prepare(struct store_incoming *in, uint64_t *ret_wait_us,
                           char error[STORE_ERROR_BYTES])
{
    uint64_t total, bytes = 0;
    ensure(in->step < INCOMING_READY && store_incoming_bytes(in, &total) == total);
    int rc = steps[in->step](in, &bytes);
    *ret_wait_us = task_pace(in->s, bytes);
    if (rc >= 0)
        return rc;
    struct path path;
    size_t file = min_u64(in->at, in->count - min_u64(in->count, 1));
    incoming_part_path(&path, in->s->path,
                       in->count > 0 ? in->files[file].from.file_id : 0);
    incoming_unprepare(in);
    if (rc != -EBADMSG)
        return store_fail_call(error, rc, "make a store of", path.text);
    char ignored[STORE_ERROR_BYTES];
    incoming_drop(in, ignored);
    return store_fail(
        error, rc, "%s is not what the sender described: it is fetched anew", path.text);
}
