/*
 * seal.c - the task that gives a sealed, wholly applied log segment its hint, and a
 * merged file that has lost its own another.
 *
 * Not before the segment is sealed on disk, nor with entries that a truncation may still
 * take: a hint never has to be changed.
 */
#include "store_internal.h"

enum { READ_SHARE = 8 }; /* what was just written is read from memory */

struct seal {
    struct store_task task;
    struct segment *segment; /* a reference */
    struct hint_builder *builder;
    bool late; /* another one waits: no merge can begin before all are hinted */
    uint64_t hint_bytes;
    int rc;
};

/* The first, and whether there is another. */
static struct segment *find_segment(const struct store *s, uint64_t now_us,
                                    bool *ret_another)
{
    struct segment *found = NULL;
    for (size_t i = 0; i < s->merged_count; i++) {
        struct segment *segment = s->merged[i];
        if (segment->hint_bytes == 0 && segment->hurt_until_us <= now_us)
            return segment;
    }
    for (size_t i = 0; space_is_sealed(s, i); i++) {
        struct segment *segment = s->segments[i];
        if (segment_last(segment) > s->applied.index)
            break;
        if (segment->hint_bytes > 0 || segment->hurt_until_us > now_us)
            continue;
        *ret_another = found != NULL;
        if (found)
            break;
        found = segment;
    }
    return found;
}

static struct store_task *plan(struct store *s, uint64_t now_us)
{
    bool another = false;
    struct segment *segment = find_segment(s, now_us, &another);
    if (!segment)
        return NULL;
    struct seal *seal = calloc(1, sizeof(*seal));
    if (!seal)
        return NULL;
    seal->task = (struct store_task){.kind = &seal_kind, .store = s};
    seal->segment = segment_ref(segment);
    seal->late = another;
    return &seal->task;
}

static int sync_log_directory(const struct store *s)
{
    struct path directory;
    log_directory_path(&directory, s->path);
    return s->io->sync_dir(s->io->context, directory.text);
}

/* 1: more to do. */
static int build(struct store *s, struct seal *seal)
{
    int rc = 0;
    if (!seal->builder)
        rc = hint_builder_new(s, seal->segment, seal->segment->used, &seal->builder);
    if (rc == 0)
        rc = hint_builder_step(seal->builder, &seal->hint_bytes);
    if (rc == 0)
        rc = sync_log_directory(s);
    return rc;
}

/* The store can do without this hint, but not with a disk that fails. */
static int run(struct store_task *task, uint64_t *ret_wait_us,
               char error[STORE_ERROR_BYTES])
{
    struct seal *seal = container_of(task, struct seal, task);
    if (task_stopping(task->store))
        return 0;
    int rc = build(task->store, seal);
    if (rc == 1) {
        *ret_wait_us =
            seal->late ? 0 : task_pace(task->store, STRETCH_BYTES / READ_SHARE);
        return 1;
    }
    seal->rc = rc;
    if (rc == 0 || rc == -EBADMSG || rc == -ENOMEM || no_room(rc) || no_descriptor(rc))
        return 0;
    struct path path;
    hint_path(&path, task->store->path, seal->segment->file_id);
    return store_fail_call(error, rc, "make", path.text);
}

static bool step(struct store *s, struct store_task *task)
{
    struct seal *seal = container_of(task, struct seal, task);
    if (seal->rc == 0) {
        seal->segment->hint_bytes = seal->hint_bytes;
        s->stats.merge_bytes_written += seal->hint_bytes;
    } else if (seal->rc == -EBADMSG) {
        seal->segment->hurt_until_us = s->task_now_us + HURT_US;
        scrub_suspect(s, seal->segment); /* which names all that is bad in it */
    } else {
        task_gave_up(s, task);
    }
    return false;
}

static void seal_free(struct store_task *task)
{
    struct seal *seal = container_of(task, struct seal, task);
    hint_builder_free(seal->builder);
    segment_unref(seal->segment);
    free(seal);
}

const struct task_kind seal_kind = {plan, run, step, seal_free};
