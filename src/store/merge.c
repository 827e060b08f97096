/*
 * merge.c - the life of a round of merging (drawn in merge.h), and what makes it safe
 * (G7):
 *
 * - An output has everything of the victims that was live at E, the entry applied when it
 * was complete, but lacks what later entries had superseded. So the manifest that lists
 * it names E, and is written when all up to E is on disk here (it is: it was applied).
 * - The manifest replaces all in one rename. Until then the outputs mean nothing, from
 * then on the victims mean nothing: a recovery removes the ones or the others.
 * - Only then the keydir's pointers move; only when none leads to a victim its file goes.
 *   Readers keep files open as long as they are inside (RCU), transfers as long as they
 * hold a reference.
 *
 * A round that lacks memory or room, or meets damage, is given up: nothing was lost.
 */
#include "merge.h"

enum { RELOCATE_KEYS = 8192, RELOCATE_SECTION = 256 }; /* in a stretch; in a section */
enum { REMOVE_SHARE = 16 }; /* removing a file costs as much as writing this part of it */

/* ---- Giving up --------------------------------------------------------------------- */

static bool can_give_up(int rc)
{
    return rc == -EBADMSG || rc == -ENOMEM || no_room(rc) || no_descriptor(rc);
}

static int begin_give_up(struct merge *m)
{
    m->phase = MERGE_GIVE_UP;
    merged_writer_free(m->writer);
    m->writer = NULL;
    return 1;
}

static int remove_path(const struct store *s, const struct path *path,
                       char error[STORE_ERROR_BYTES])
{
    int rc = s->io->unlink(s->io->context, path->text);
    return rc == 0 || rc == -ENOENT ? 0
                                    : store_fail_call(error, rc, "remove", path->text);
}

static int remove_file(const struct store *s, enum segment_kind kind, uint64_t file_id,
                       char error[STORE_ERROR_BYTES])
{
    struct path data, hint;
    if (kind == SEGMENT_LOG)
        segment_path(&data, s->path, file_id);
    else
        merged_path(&data, s->path, file_id);
    hint_path(&hint, s->path, file_id);
    int rc = remove_path(s, &data, error);
    return rc == 0 ? remove_path(s, &hint, error) : rc;
}

/* One that was begun may have its name too. */
static int run_give_up(struct merge *m, uint64_t *ret_wait_us,
                       char error[STORE_ERROR_BYTES])
{
    int rc = 0;
    for (uint64_t id = m->first_id; rc == 0 && id < m->next_id; id++)
        rc = remove_file(m->task.store, SEGMENT_MERGED, id, error);
    if (!no_room(rc))
        return rc;
    *ret_wait_us = TASK_RETRY_US;
    return 1;
}

/* ---- Copying ----------------------------------------------------------------------- */

static int sync_directory(const struct store *s, char error[STORE_ERROR_BYTES])
{
    struct path directory;
    log_directory_path(&directory, s->path);
    int rc = s->io->sync_dir(s->io->context, directory.text);
    return rc == 0 ? 0 : store_fail_call(error, rc, "sync", directory.text);
}

static int fail_copy(struct merge *m, int rc, char error[STORE_ERROR_BYTES])
{
    if (can_give_up(rc))
        return begin_give_up(m);
    return store_fail_call(error, rc, "merge the log in", m->task.store->path);
}

typedef int copy_step(struct merge *m, uint64_t *ret_bytes);

static int run_copy_step(struct merge *m, copy_step *step, enum merge_phase next,
                         uint64_t *ret_wait_us, char error[STORE_ERROR_BYTES])
{
    uint64_t bytes = 0;
    if (task_stopping(m->task.store))
        return begin_give_up(m);
    int rc = step(m, &bytes);
    *ret_wait_us = task_pace(m->task.store, bytes);
    if (rc < 0)
        return fail_copy(m, rc, error);
    if (rc == 0)
        m->phase = next;
    return 1;
}

/* Closed at once, for else it would keep its space. */
static int give_up_spare(struct merge *m, char error[STORE_ERROR_BYTES])
{
    const struct store *s = m->task.store;
    struct path path;
    segment_spare_path(&path, s->path, m->spare->file_id);
    int rc = s->io->unlink(s->io->context, path.text);
    segment_unref_unread(m->spare);
    m->spare = NULL;
    return rc == 0 || rc == -ENOENT ? 0 : store_fail_call(error, rc, "remove", path.text);
}

static int run_open(struct merge *m, uint64_t *ret_wait_us, char error[STORE_ERROR_BYTES])
{
    int rc = m->spare ? give_up_spare(m, error) : 0;
    if (rc != 0)
        return rc;
    return run_copy_step(m, merge_open, MERGE_COPY, ret_wait_us, error);
}

static int run_copy(struct merge *m, uint64_t *ret_wait_us, char error[STORE_ERROR_BYTES])
{
    return run_copy_step(m, merge_copy, MERGE_CLOSE, ret_wait_us, error);
}

static int run_close(struct merge *m, uint64_t *ret_wait_us,
                     char error[STORE_ERROR_BYTES])
{
    return m->output_count > 0 ? sync_directory(m->task.store, error) : 0;
}

/* ---- Publishing -------------------------------------------------------------------- */

/* File ids grow along the log, but where a segment that was lost has been filled again.
 */
static uint64_t lowest_file(const struct store *s, size_t first)
{
    uint64_t lowest = UINT64_MAX;
    for (size_t i = first; i < s->segment_count; i++)
        lowest = min_u64(lowest, s->segments[i]->file_id);
    for (size_t i = s->beyond_first; i < s->beyond_count; i++)
        lowest = min_u64(lowest, s->beyond[i]->file_id);
    return lowest;
}

/* The loop: the manifest of what stays, and of what was made. */
static int make_manifest(struct store *s, struct merge *m)
{
    size_t count = m->observer_count + m->output_count, n = 0;
    m->manifest = (struct manifest){.merged = m->merged,
                                    .applied_index = s->applied.index,
                                    .applied_term = s->applied.term,
                                    .first_file = lowest_file(s, m->log_count)};
    m->manifest.files = calloc(count + 1, sizeof(*m->manifest.files));
    m->list = calloc(count + 1, sizeof(struct segment *));
    if (!m->manifest.files || !m->list)
        return -ENOMEM;
    for (size_t i = 0; i < s->merged_count; i++) {
        if (atomic_load_explicit(&s->merged[i]->merging, memory_order_relaxed))
            continue;
        m->manifest.files[n] = s->manifest.files[i];
        m->list[n++] = s->merged[i];
    }
    for (size_t i = 0; i < m->output_count; i++) {
        m->manifest.files[n] = m->outputs[i].file;
        m->list[n++] = m->outputs[i].segment;
    }
    ensure(n == count);
    m->manifest.count = count;
    struct buf state = {0};
    int rc = s->save_state ? s->save_state(s->context, &state) : 0;
    if (rc == 0 && state.failed)
        rc = -ENOMEM;
    m->manifest.state = state.data; /* the manifest's from now on */
    m->manifest.state_size = state.length;
    return rc;
}

/* What is live in a victim has been copied: it only grows less. Seen before the victims
 * stop to count. */
static void check_copied(const struct merge *m)
{
    for (size_t i = 0; i < m->victim_count; i++) {
        const struct merge_source *victim = &m->victims[i];
        ensure(atomic_load_explicit(&victim->segment->live_bytes, memory_order_relaxed) <=
               victim->copied);
    }
}

static bool same_files(const struct manifest *a, const struct manifest *b)
{
    if (a->first_file != b->first_file || a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        if (a->files[i].file_id != b->files[i].file_id)
            return false;
    }
    return true;
}

/* Whether the manifest on disk may be the new one, though writing it has failed. */
static bool may_be_published(const struct merge *m)
{
    struct manifest found = {0};
    char error[STORE_ERROR_BYTES];
    int rc = manifest_read(m->task.store, &found, error);
    bool may_be = rc == 0 ? same_files(&found, &m->manifest) : rc != -ENOENT;
    manifest_release(&found);
    return may_be;
}

static int run_publish(struct merge *m, uint64_t *ret_wait_us,
                       char error[STORE_ERROR_BYTES])
{
    int rc = manifest_write(m->task.store, &m->manifest, error);
    if (rc == 0) {
        m->phase = MERGE_RELOCATE;
        return 1;
    }
    if ((rc == -ENOMEM || no_room(rc) || no_descriptor(rc)) && !may_be_published(m))
        return begin_give_up(m);
    return rc;
}

/* ---- Relocating -------------------------------------------------------------------- */

/* The version is the same, so it is the very record that was copied. */
static void relocate(const struct merge *m, const struct segment *output,
                     const struct hint_record *record)
{
    const struct store *s = m->task.store;
    const struct keydir *keydir = store_keydir(s);
    if (record->value_size == STORE_TOMBSTONE)
        return;
    const struct keydir_node *node = keydir_find(keydir, record->key, record->key_size);
    if (!node || node->timestamp_us != record->timestamp_us)
        return;
    uint64_t place = keydir_place(node);
    if (place == PLACE_GONE)
        return;
    const struct segment *segment = place_segment(keydir->slots, place);
    if (atomic_load_explicit(&segment->merging, memory_order_relaxed))
        keydir_relocate(keydir, node, place, place_of(output, record->offset));
}

/* 1: this output has more. */
static int relocate_some(struct merge *m, const struct segment *output)
{
    int rc = 1;
    for (int done = 0; rc == 1 && done < RELOCATE_KEYS;) {
        reading_begin();
        for (int i = 0; rc == 1 && i < RELOCATE_SECTION; i++, done++) {
            struct hint_record record;
            rc = hint_reader_next(m->relocating, &record);
            if (rc == 1)
                relocate(m, output, &record);
        }
        reading_end();
    }
    return rc;
}

static int run_relocate(struct merge *m, uint64_t *ret_wait_us,
                        char error[STORE_ERROR_BYTES])
{
    if (m->relocated == m->output_count)
        return 0;
    struct segment *output = m->outputs[m->relocated].segment;
    int rc = 0;
    if (!m->relocating)
        rc = hint_reader_new(m->task.store, output->file_id, SEGMENT_MERGED, output->used,
                             &m->relocating);
    if (rc == 0)
        rc = relocate_some(m, output);
    if (rc == -ENOMEM || no_descriptor(rc)) { /* it is published, and must go on */
        *ret_wait_us = TASK_RETRY_US;
        return 1;
    }
    if (rc < 0) {
        struct path path;
        hint_path(&path, m->task.store->path, output->file_id);
        return store_fail_call(error, rc, "read", path.text);
    }
    *ret_wait_us = task_pace(m->task.store, RELOCATE_KEYS * sizeof(uint64_t));
    if (rc == 0) {
        hint_reader_free(m->relocating);
        m->relocating = NULL;
        m->relocated++;
    }
    return 1;
}

/* ---- The victims go ---------------------------------------------------------------- */

/* Tombstones that stayed because of an older record that is gone now may go next time. */
static void release_kept(const struct merge *m)
{
    for (size_t i = 0; i < m->observer_count; i++) {
        if (m->manifest.files[i].max_timestamp_us > m->oldest_dropped)
            m->list[i]->kept_bytes = 0;
    }
}

static void retire(struct store *s, struct merge *m)
{
    release_kept(m);
    for (size_t i = 0; i < m->log_count; i++)
        ensure(s->segments[i] == m->victims[i].segment);
    for (size_t i = 0; i < m->victim_count; i++) {
        struct segment *victim = m->victims[i].segment;
        ensure(atomic_load_explicit(&victim->live_bytes, memory_order_relaxed) == 0);
        segment_unref(victim); /* the list's reference */
    }
    s->segment_count -= m->log_count;
    memmove(s->segments, s->segments + m->log_count,
            s->segment_count * sizeof(struct segment *));
    for (size_t i = 0; i < m->output_count; i++)
        segment_ref(m->outputs[i].segment);
    free(s->merged);
    s->merged = m->list;
    s->merged_count = m->manifest.count;
    m->list = NULL;
    manifest_release(&s->manifest);
    s->manifest = m->manifest;
    m->manifest = (struct manifest){0};
    s->base = m->merged;
    damage_prune(s);
    tail_drop(&s->tail, s->base.index);
    s->dropped = true;
    s->stats.merges++;
    s->stats.merge_bytes_written += m->written;
}

/* Oldest first, one a stretch. Durable, before a later round drops tombstones that hid what is
 * in them. A disk that lacks the room to remove a file gets it from others. */
static int run_remove(struct merge *m, uint64_t *ret_wait_us,
                      char error[STORE_ERROR_BYTES])
{
    if (m->removed == m->victim_count)
        return sync_directory(m->task.store, error);
    const struct segment *victim = m->victims[m->removed].segment;
    int rc = remove_file(m->task.store, victim->kind, victim->file_id, error);
    if (no_room(rc)) {
        *ret_wait_us = TASK_RETRY_US;
        return 1;
    }
    if (rc != 0)
        return rc;
    *ret_wait_us = task_pace(m->task.store, victim->used / REMOVE_SHARE);
    m->removed++;
    return 1;
}

/* ---- The task ---------------------------------------------------------------------- */

static struct merge *merge_of(struct store_task *task)
{
    return container_of(task, struct merge, task);
}

static void source_release(struct merge_source *source)
{
    hint_reader_free(source->hint);
    segment_unref(source->segment);
}

/* Nobody reads a hint's records any more; the references stay for the end. */
static void close_hints(struct merge *m)
{
    for (size_t i = 0; i < m->victim_count; i++) {
        hint_reader_free(m->victims[i].hint);
        m->victims[i].hint = NULL;
    }
    for (size_t i = 0; i < m->observer_count; i++) {
        hint_reader_free(m->observers[i].hint);
        m->observers[i].hint = NULL;
    }
}

/* A spare that was not given up after all goes back. */
static void end_loan(struct store *s, struct merge *m)
{
    if (m->spare) {
        s->spare = m->spare;
        s->spare_state = SPARE_READY;
        m->spare = NULL;
    }
    s->spare_lent = false;
}

static void merge_free(struct store_task *task)
{
    struct merge *m = merge_of(task);
    end_loan(task->store, m);
    for (size_t i = 0; i < m->victim_count; i++)
        source_release(&m->victims[i]);
    for (size_t i = 0; i < m->observer_count; i++)
        source_release(&m->observers[i]);
    for (size_t i = 0; i < m->output_count; i++)
        segment_unref(m->outputs[i].segment);
    hint_reader_free(m->relocating);
    merged_writer_free(m->writer);
    manifest_release(&m->manifest);
    buf_release(&m->record);
    free(m->victims);
    free(m->observers);
    free(m->outputs);
    free(m->heap);
    free(m->list);
    free(m);
}

static struct store_task *plan(struct store *s, uint64_t now_us)
{
    struct merge *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->task = (struct store_task){.kind = &merge_kind, .store = s};
    m->oldest_dropped = UINT64_MAX;
    if (merge_plan(s, m, now_us))
        return &m->task;
    merge_free(&m->task);
    return NULL;
}

typedef int run_phase(struct merge *m, uint64_t *ret_wait_us,
                      char error[STORE_ERROR_BYTES]);

static run_phase *const phases[MERGE_PHASES] = {
    [MERGE_OPEN] = run_open,         [MERGE_COPY] = run_copy,
    [MERGE_CLOSE] = run_close,       [MERGE_PUBLISH] = run_publish,
    [MERGE_RELOCATE] = run_relocate, [MERGE_REMOVE] = run_remove,
    [MERGE_GIVE_UP] = run_give_up,
};

static int run(struct store_task *task, uint64_t *ret_wait_us,
               char error[STORE_ERROR_BYTES])
{
    struct merge *m = merge_of(task);
    return phases[m->phase](m, ret_wait_us, error);
}

static bool given_up(struct store *s, struct merge *m)
{
    for (size_t i = 0; i < m->victim_count; i++)
        atomic_store_explicit(&m->victims[i].segment->merging, false,
                              memory_order_relaxed);
    if (m->hurt) {
        m->hurt->hurt_until_us = s->task_now_us + HURT_US;
        scrub_suspect(s, m->hurt); /* which names all that is bad in it */
    }
    task_gave_up(s, &m->task);
    return false;
}

static bool step(struct store *s, struct store_task *task)
{
    struct merge *m = merge_of(task);
    if (m->bad_hint)
        m->bad_hint->hint_bytes = 0; /* it gets another */
    switch (m->phase) {
    case MERGE_CLOSE:
        close_hints(m);
        check_copied(m);
        m->phase = make_manifest(s, m) == 0 ? MERGE_PUBLISH : MERGE_GIVE_UP;
        return true;
    case MERGE_RELOCATE:
        retire(s, m);
        m->phase = MERGE_REMOVE;
        return true;
    case MERGE_REMOVE:
        return false;
    case MERGE_GIVE_UP:
        return given_up(s, m);
    default:
        ensure(false);
    }
}

const struct task_kind merge_kind = {plan, run, step, merge_free};

/* ---- What is merged ---------------------------------------------------------------- */

uint64_t store_base(const struct store *s, uint64_t *ret_term)
{
    *ret_term = s->base.term;
    return s->base.index;
}

bool store_is_ready(const struct store *s)
{
    return s->applied.index >= s->manifest.applied_index;
}

bool store_manifest(const struct store *s, struct store_manifest *ret)
{
    if (s->manifest.applied_index == 0)
        return false;
    *ret = (struct store_manifest){.merged_index = s->manifest.merged.index,
                                   .merged_term = s->manifest.merged.term,
                                   .applied_index = s->manifest.applied_index,
                                   .applied_term = s->manifest.applied_term,
                                   .files = s->merged_count};
    for (size_t i = 0; i < s->merged_count; i++)
        ret->bytes += s->merged[i]->used;
    return true;
}
