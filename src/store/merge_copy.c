/*
 * merge_copy.c - the live records of a round's victims, in key order, to its outputs.
 *
 * The victims' hints are walked together. Of the records of one key only the newest can
 * be live: it is, if the keydir points at this very place. What the loop applies
 * meanwhile makes some copies dead again: they are found out when the pointers move.
 *
 * A tombstone stays only as long as it hides something: its key is not in the keydir, and
 * a merged file that is not of this round holds an older record of it. The log behind the
 * victims is newer than they are, the files before them are merged ones, or victims.
 */
#include "merge.h"

#include <fcntl.h>

enum { KEY_COST_BYTES = 128 }; /* a look-up takes the time of about this much I/O */

/* ---- Sources ----------------------------------------------------------------------- */

/* A record that does not come along: tombstones of later files may have hidden it. */
static void note_dropped(struct merge *m, const struct hint_record *record)
{
    if (record->value_size != STORE_TOMBSTONE)
        m->oldest_dropped = min_u64(m->oldest_dropped, record->timestamp_us);
}

static int advance(struct merge *m, struct merge_source *source)
{
    int rc = hint_reader_next(source->hint, &source->at);
    source->more = rc == 1;
    if (rc == -EBADMSG)
        m->bad_hint = source->segment;
    return rc < 0 ? rc : 0;
}

static int open_hint(struct merge *m, struct merge_source *source)
{
    const struct segment *segment = source->segment;
    int rc = hint_reader_new(m->task.store, segment->file_id, segment->kind,
                             segment->used, &source->hint);
    if (rc == -ENOENT)
        rc = -EBADMSG;
    if (rc == -EBADMSG)
        m->bad_hint = source->segment;
    return rc == 0 ? advance(m, source) : rc;
}

static int order(const struct merge_source *a, const struct merge_source *b)
{
    int by_key = key_compare(a->at.key, a->at.key_size, b->at.key, b->at.key_size);
    if (by_key != 0)
        return by_key;
    return a->at.timestamp_us > b->at.timestamp_us ? -1 : 1;
}

static void heap_push(struct merge *m, struct merge_source *source)
{
    size_t i = m->heap_count++;
    while (i > 0 && order(source, m->heap[(i - 1) / 2]) < 0) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = source;
}

static struct merge_source *heap_pop(struct merge *m)
{
    struct merge_source *top = m->heap[0], *last = m->heap[--m->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= m->heap_count)
            break;
        if (child + 1 < m->heap_count && order(m->heap[child + 1], m->heap[child]) < 0)
            child++;
        if (order(last, m->heap[child]) < 0)
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

/* One victim a stretch. */
int merge_open(struct merge *m, uint64_t *ret_bytes)
{
    size_t i = 0;
    while (i < m->victim_count && m->victims[i].hint)
        i++;
    if (i == m->victim_count)
        return 0;
    struct merge_source *victim = &m->victims[i];
    int rc = open_hint(m, victim);
    if (rc != 0)
        return rc;
    if (i < m->log_count)
        m->merged = hint_reader_info(victim->hint)->end;
    if (victim->more)
        heap_push(m, victim);
    *ret_bytes += hint_reader_bytes(victim->hint);
    return 1;
}

/* ---- What stays -------------------------------------------------------------------- */

static bool is_live(const struct merge *m, const struct merge_source *source)
{
    reading_begin();
    const struct keydir_node *node =
        keydir_find(store_keydir(m->task.store), source->at.key, source->at.key_size);
    bool live =
        node && keydir_place(node) == place_of(source->segment, source->at.offset);
    reading_end();
    return live;
}

static bool has_key(const struct merge *m, const struct merge_source *source)
{
    reading_begin();
    bool found = keydir_find(store_keydir(m->task.store), source->at.key,
                             source->at.key_size) != NULL;
    reading_end();
    return found;
}

/* A damaged hint is made anew later, and one more file may be opened then; until then its
 * file may hold an older record. */
static int go_blind(struct merge_source *observer, int rc)
{
    if (rc != -EBADMSG && !no_descriptor(rc))
        return rc;
    observer->blind = true;
    return 0;
}

/* Their hints are needed only where there is a tombstone to judge. */
static int open_observers(struct merge *m)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < m->observer_count; i++) {
        struct merge_source *observer = &m->observers[i];
        if (!observer->hint && !observer->blind)
            rc = go_blind(observer, open_hint(m, observer));
    }
    m->observing = rc == 0;
    return rc;
}

static int seek(struct merge *m, struct merge_source *observer,
                const struct hint_record *record)
{
    if (observer->blind || !observer->more ||
        key_compare(observer->at.key, observer->at.key_size, record->key,
                    record->key_size) >= 0)
        return 0;
    int rc = hint_reader_seek(observer->hint, record->key, record->key_size);
    if (rc == -EBADMSG)
        m->bad_hint = observer->segment;
    return go_blind(observer, rc < 0 ? rc : advance(m, observer));
}

static bool may_hold_older(const struct merge_source *observer,
                           const struct hint_record *record)
{
    if (observer->blind)
        return true;
    return observer->more && observer->at.timestamp_us < record->timestamp_us &&
           key_compare(observer->at.key, observer->at.key_size, record->key,
                       record->key_size) == 0;
}

/* 1: some file that stays has an older record of this key. */
static int hides_something(struct merge *m, const struct hint_record *tombstone)
{
    int rc = m->observing ? 0 : open_observers(m);
    for (size_t i = 0; rc == 0 && i < m->observer_count; i++) {
        struct merge_source *observer = &m->observers[i];
        if (observer->min_timestamp_us >= tombstone->timestamp_us)
            continue;
        rc = seek(m, observer, tombstone);
        if (rc == 0 && may_hold_older(observer, tombstone))
            rc = 1;
    }
    return rc;
}

/* 1: the record belongs into the output. */
static int stays(struct merge *m, const struct merge_source *source)
{
    if (source->at.value_size != STORE_TOMBSTONE)
        return is_live(m, source);
    return has_key(m, source) ? 0 : hides_something(m, &source->at);
}

/* ---- Outputs ----------------------------------------------------------------------- */

static int begin_output(struct merge *m)
{
    ensure(m->next_id < m->end_id);
    m->kept_bytes = 0;
    return merged_writer_new(m->task.store, m->next_id++, &m->writer);
}

static int open_output(struct merge *m, struct segment *segment)
{
    const struct store *s = m->task.store;
    struct path path;
    merged_path(&path, s->path, segment->file_id);
    int fd = s->io->open(s->io->context, path.text, O_RDWR, 0);
    segment->fd = fd < 0 ? -1 : fd;
    return fd < 0 ? fd : 0;
}

static int finish_output(struct merge *m)
{
    struct merge_output *output = &m->outputs[m->output_count];
    struct segment *segment = segment_new(m->task.store, SEGMENT_MERGED, m->next_id - 1);
    if (!segment)
        return -ENOMEM;
    int rc = merged_writer_finish(m->writer, &output->file, &segment->hint_bytes);
    if (rc == 0)
        rc = open_output(m, segment);
    if (rc != 0) {
        segment_unref_unread(segment);
        return rc;
    }
    segment->used = output->file.bytes;
    segment->kept_bytes = m->kept_bytes;
    output->segment = segment;
    m->output_count++;
    m->written += segment->used + segment->hint_bytes;
    merged_writer_free(m->writer);
    m->writer = NULL;
    return 0;
}

static int put(struct merge *m)
{
    int rc = m->writer ? 0 : begin_output(m);
    if (rc == 0)
        rc = merged_writer_put(m->writer, m->record.data, m->record.length, NULL);
    if (rc == -EFBIG) {
        rc = finish_output(m);
        if (rc == 0)
            rc = begin_output(m);
        if (rc == 0)
            rc = merged_writer_put(m->writer, m->record.data, m->record.length, NULL);
    }
    return rc;
}

/* ---- Records ----------------------------------------------------------------------- */

/* Whether it is what hint and keydir mean: nothing bad is ever copied. */
static bool is_right(const struct merge *m, const struct hint_record *at)
{
    struct reader r = reader_of(m->record.data, m->record.length);
    struct store_record record;
    return store_record_read(&r, &record) == 0 && reader_done(&r) &&
           record.timestamp_us == at->timestamp_us && record.value &&
           key_compare(record.key, record.key_size, at->key, at->key_size) == 0;
}

/* What is small is in the hint, whole, under a checksum of its own. */
static int fetch(struct merge *m, struct merge_source *source)
{
    const struct hint_record *at = &source->at;
    buf_clear(&m->record);
    if (at->value || at->value_size == STORE_TOMBSTONE) {
        record_encode(&m->record, at->timestamp_us, at->key, at->key_size, at->value,
                      at->value ? at->value_size : 0);
        return m->record.failed ? -ENOMEM : 0;
    }
    size_t length = STORE_RECORD_HEADER + (size_t)at->key_size + at->value_size;
    uint8_t *data = buf_extend(&m->record, length);
    if (!data)
        return -ENOMEM;
    ssize_t n =
        read_full(m->task.store->io, source->segment->fd, data, length, at->offset);
    if (n == (ssize_t)length && is_right(m, at))
        return 0;
    m->hurt = source->segment;
    return -EBADMSG;
}

static int copy(struct merge *m, struct merge_source *source, uint64_t *ret_bytes)
{
    int rc = fetch(m, source);
    if (rc == 0)
        rc = put(m);
    if (rc != 0)
        return rc;
    if (source->at.value_size == STORE_TOMBSTONE)
        m->kept_bytes += m->record.length;
    else
        source->copied += m->record.length;
    *ret_bytes += m->record.length;
    return 0;
}

/* The older records of its key are passed over. */
static int skip_older(struct merge *m, const struct merge_source *newest)
{
    int rc = 0;
    while (rc == 0 && m->heap_count > 0 &&
           key_compare(m->heap[0]->at.key, m->heap[0]->at.key_size, newest->at.key,
                       newest->at.key_size) == 0) {
        struct merge_source *older = heap_pop(m);
        note_dropped(m, &older->at);
        rc = advance(m, older);
        if (rc == 0 && older->more)
            heap_push(m, older);
    }
    return rc;
}

static int next_key(struct merge *m, uint64_t *ret_bytes)
{
    struct merge_source *newest = heap_pop(m);
    int rc = skip_older(m, newest);
    if (rc == 0)
        rc = stays(m, newest);
    if (rc == 1)
        rc = copy(m, newest, ret_bytes);
    else if (rc == 0)
        note_dropped(m, &newest->at);
    *ret_bytes += KEY_COST_BYTES;
    if (rc == 0)
        rc = advance(m, newest);
    if (rc == 0 && newest->more)
        heap_push(m, newest);
    return rc;
}

int merge_copy(struct merge *m, uint64_t *ret_bytes)
{
    uint64_t stretch = task_stretch(m->task.store);
    while (m->heap_count > 0) {
        int rc = next_key(m, ret_bytes);
        if (rc != 0)
            return rc;
        if (*ret_bytes >= stretch)
            return 1;
    }
    return m->writer ? finish_output(m) : 0;
}
