/*
 * scrub.c - every byte that is kept is read again once in a while, and compared with its
 * checksums: rot is found while a peer still has what was lost.
 *
 * A pass goes over the data files in the order of their ids, those that were there when
 * it began; it is spread over the period (a week). What is asked for out of turn (a file
 * that is *suspect*) goes first, and as fast as merging may. Of a log segment the entries
 * and the chain are verified, of a merged file the records, each as its hint says it is.
 * What is bad is named in the list of damages if the keydir or the log needs it, and
 * then:
 *
 * - a record that the hint holds in full (a tombstone, a small value) is written back;
 * - a record nobody needs, in a merged file, makes the file *worn*: a merge replaces it;
 * - a hint that is bad itself is given up, and made anew (seal.c).
 *
 * Where entries or a hint cannot be trusted, the file's records are found through the
 * keydir.
 *
 * DATA/scrub.state, 64 bytes, may be lost:
 *
 *   0  magic "tierceSC"       32  last complete pass u64, microseconds since 1970
 *   8  version u32            40  this pass: the next file's id u64
 *  12  reserved u32, 0        48  this pass: files below this id u64
 *  16  cluster_id, 16 bytes   56  reserved u32, 0
 *                             60  crc32 u32, over bytes 0-59
 */
#include "store_internal.h"

#include <fcntl.h>

static const char magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'S', 'C'};

enum {
    STATE_BYTES = 64,
    LIVE_SECTION = 256,   /* keys looked at in one read-side section */
    LIVE_KEYS = 64 << 10, /* and in one stretch */
};

enum scrub_phase { SCRUB_DATA, SCRUB_HINT, SCRUB_LIVE, SCRUB_DONE };

/* One file on its way; the merge thread's while the task is there. */
struct scrub_file {
    struct segment *segment; /* a reference */
    enum scrub_phase phase;
    bool urgent; /* it was suspect */
    bool bad_hint, worn;
    bool look_live; /* its records are to be found through the keydir */
    /* A log segment: */
    size_t next; /* entry of the index map */
    struct chain chain;
    bool chained; /* the entry before was good */
    /* A merged file: */
    struct hint_reader *hint;
    struct hint_record at; /* the next record, while `more` */
    bool more;
    uint64_t end; /* of the record before it */
    struct buf window;
    uint64_t window_at;
    /* Through the keydir: */
    struct buf key;   /* the last that was looked at */
    struct buf heals; /* { offset u32, length u32, record } to be written back */
};

struct scrub_task {
    struct store_task task;
    uint64_t bytes; /* read in this stretch */
    int rc;
};

/* ---- State ------------------------------------------------------------------------- */

void scrub_state_path(struct path *ret, const char *directory)
{
    snprintf(ret->text, sizeof(ret->text), "%s/scrub.state", directory);
}

static void state_encode(const struct store *s, uint8_t to[STATE_BYTES])
{
    memset(to, 0, STATE_BYTES);
    memcpy(to, magic, sizeof(magic));
    put_u32(to + 8, s->format);
    memcpy(to + 16, s->cluster_id, STORE_CLUSTER_ID_BYTES);
    put_u64(to + 32, s->scrub.complete_us);
    put_u64(to + 40, s->scrub.next_id);
    put_u64(to + 48, s->scrub.limit_id);
    put_u32(to + 60, crc32_of(0, to, 60));
}

static void state_decode(struct store *s, const uint8_t data[STATE_BYTES])
{
    if (memcmp(data, magic, sizeof(magic)) != 0 ||
        format_check(get_u32(data + 8), s->format_newest) != 0 ||
        memcmp(data + 16, s->cluster_id, STORE_CLUSTER_ID_BYTES) != 0 ||
        get_u32(data + 60) != crc32_of(0, data, 60))
        return;
    s->scrub.complete_us = get_u64(data + 32);
    s->scrub.next_id = get_u64(data + 40);
    s->scrub.limit_id = get_u64(data + 48);
}

void scrub_load(struct store *s)
{
    struct path path;
    uint8_t data[STATE_BYTES];
    scrub_state_path(&path, s->path);
    int fd = s->io->open(s->io->context, path.text, O_RDONLY, 0);
    if (fd < 0)
        return;
    if (read_full(s->io, fd, data, sizeof(data), 0) == sizeof(data))
        state_decode(s, data);
    s->io->close(s->io->context, fd);
}

/* Neither synced nor insisted on: without it a pass begins anew. */
static void state_save(struct store *s)
{
    struct path path;
    uint8_t data[STATE_BYTES];
    struct iovec iov = {data, sizeof(data)};
    scrub_state_path(&path, s->path);
    state_encode(s, data);
    int fd = s->io->open(s->io->context, path.text, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return;
    write_full(s->io, fd, &iov, 1, 0);
    s->io->close(s->io->context, fd);
}

/* ---- The loop: which file ---------------------------------------------------------- */

void scrub_suspect(struct store *s, struct segment *segment)
{
    atomic_store_explicit(&segment->suspect, true, memory_order_relaxed);
}

static void file_free(struct scrub_file *file)
{
    if (!file)
        return;
    hint_reader_free(file->hint);
    segment_unref(file->segment);
    buf_release(&file->window);
    buf_release(&file->key);
    buf_release(&file->heals);
    free(file);
}

void scrub_forget(struct store *s)
{
    file_free(s->scrub.file);
    s->scrub.file = NULL;
}

/* The file with the lowest id that is at least `from`, or a suspect one. */
static struct segment *find_file(const struct store *s, uint64_t from, bool suspect)
{
    struct segment *found = NULL;
    for (size_t i = 0; i < s->segment_count + s->merged_count; i++) {
        struct segment *segment =
            i < s->segment_count ? s->segments[i] : s->merged[i - s->segment_count];
        if (i < s->segment_count && (!space_is_sealed(s, i) || segment->count == 0 ||
                                     segment_last(segment) > s->applied.index))
            continue;
        if (suspect && !atomic_load_explicit(&segment->suspect, memory_order_relaxed))
            continue;
        if (segment->file_id >= from && (!found || segment->file_id < found->file_id))
            found = segment;
    }
    return found;
}

static uint64_t all_bytes(const struct store *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i + 1 < s->segment_count; i++)
        bytes += s->segments[i]->used;
    for (size_t i = 0; i < s->merged_count; i++)
        bytes += s->merged[i]->used;
    return bytes;
}

static struct segment *next_file(struct store *s)
{
    struct scrub *scrub = &s->scrub;
    struct segment *next = find_file(s, scrub->next_id, false);
    if (next && next->file_id < scrub->limit_id)
        return next;
    if (scrub->limit_id > 0) {
        scrub->complete_us = clock_real_us();
        s->stats.scrubs++;
        damage_prune(s);
    }
    scrub->next_id = 0;
    scrub->limit_id = s->next_file_id;
    scrub->unsaved = true;
    return find_file(s, 0, false);
}

static struct scrub_file *file_new(struct segment *segment, bool urgent)
{
    struct scrub_file *file = calloc(1, sizeof(*file));
    if (!file)
        return NULL;
    file->segment = segment_ref(segment);
    file->urgent = urgent;
    file->end = SEGMENT_HEADER;
    atomic_store_explicit(&segment->suspect, false, memory_order_relaxed);
    return file;
}

/* A file that is suspect does not wait for one whose turn it is just now. */
static bool choose_file(struct store *s, uint64_t now_us)
{
    struct scrub *scrub = &s->scrub;
    struct segment *suspect = find_file(s, 0, true);
    if (suspect && !(scrub->file && scrub->file->urgent)) {
        scrub_forget(s);
        scrub->file = file_new(suspect, true);
        return scrub->file != NULL;
    }
    if (now_us < scrub->due_us || (!scrub->file && s->scrub_period_us == STORE_NEVER))
        return false;
    if (!scrub->file) {
        struct segment *next = next_file(s);
        scrub->file = next ? file_new(next, false) : NULL;
        if (!next)
            scrub->due_us = now_us + min_u64(s->scrub_period_us, SCRUB_IDLE_US);
    }
    return scrub->file != NULL;
}

static struct store_task *plan(struct store *s, uint64_t now_us)
{
    if (!store_is_ready(s) || !choose_file(s, now_us))
        return NULL;
    struct scrub_task *scrub = calloc(1, sizeof(*scrub));
    if (!scrub)
        return NULL;
    scrub->task = (struct store_task){.kind = &scrub_kind, .store = s};
    return &scrub->task;
}

/* ---- A log segment ----------------------------------------------------------------- */

static uint64_t entry_end(const struct segment *segment, size_t i)
{
    return i + 1 < segment->count ? segment->offsets[i + 1] : segment->used;
}

enum entry_verdict { ENTRY_GOOD, ENTRY_BAD, ENTRY_UNCHAINED };

/* Intact, but unchained: it or the one before it is not what belongs there. */
static enum entry_verdict judge_entry(struct scrub_file *file, size_t i,
                                      const uint8_t *data, size_t length)
{
    struct store_entry entry;
    bool chained = file->chained;
    file->chained = false;
    if (store_entry_verify(data, length, &entry) != 0 || entry.length != length ||
        entry.index != file->segment->first_index + i)
        return ENTRY_BAD;
    bool fits = !chained || chain_continues(&file->chain, &entry);
    file->chained = true;
    file->chain = chain_after(&entry);
    return fits ? ENTRY_GOOD : ENTRY_UNCHAINED;
}

static void bad_entry(struct store *s, struct scrub_file *file, size_t i,
                      const uint8_t *data, size_t length)
{
    struct store_entry entry;
    uint64_t index = file->segment->first_index + i;
    bool have = entry_head_decode(data, length, &entry) == 0 && entry.index == index;
    damage_found_entry(s, index, have ? entry.term : 0);
    file->look_live = true;
}

/* Bytes of a file; where the disk cannot read them, zeros, which are no record. */
static int read_or_zero(const struct store *s, const struct segment *segment,
                        uint64_t offset, size_t length, struct buf *to)
{
    buf_clear(to);
    uint8_t *data = buf_extend(to, length);
    if (!data)
        return -ENOMEM;
    ssize_t n = read_full(s->io, segment->fd, data, length, offset);
    if (n < (ssize_t)length)
        memset(data + max_u64(0, n < 0 ? 0 : (uint64_t)n), 0,
               length - (n < 0 ? 0 : (size_t)n));
    return 0;
}

/* Once more, alone: a repair may have been writing just now (G9). */
static int scrub_entry(struct store *s, struct scrub_file *file, size_t i,
                       const uint8_t *data, size_t length)
{
    struct buf again = {0};
    const struct scrub_file before = *file;
    if (judge_entry(file, i, data, length) == ENTRY_GOOD)
        return 0;
    int rc = read_or_zero(s, file->segment, file->segment->offsets[i], length, &again);
    file->chained = before.chained;
    file->chain = before.chain;
    enum entry_verdict verdict =
        rc == 0 ? judge_entry(file, i, again.data, length) : ENTRY_GOOD;
    if (verdict == ENTRY_UNCHAINED)
        damage_found_entry(s, before.chain.index, before.chain.term);
    if (verdict != ENTRY_GOOD)
        bad_entry(s, file, i, again.data, length);
    buf_release(&again);
    return rc;
}

/* As many entries as fit a stretch, and at least one. 1: more. */
static int scrub_log(struct store *s, struct scrub_file *file, uint64_t *ret_bytes)
{
    const struct segment *segment = file->segment;
    size_t first = file->next, stop = first + 1;
    uint64_t from = segment->offsets[first];
    while (stop < segment->count && entry_end(segment, stop) - from <= STRETCH_BYTES)
        stop++;
    size_t length = (size_t)(entry_end(segment, stop - 1) - from);
    int rc = read_or_zero(s, segment, from, length, &file->window);
    for (size_t i = first; rc == 0 && i < stop; i++) {
        uint64_t at = segment->offsets[i];
        rc = scrub_entry(s, file, i, file->window.data + (at - from),
                         (size_t)(entry_end(segment, i) - at));
    }
    *ret_bytes += length;
    if (rc != 0)
        return rc;
    file->next = stop;
    return stop < segment->count;
}

/* Its hint: all of it can be read, and the entries stand where they do. One that is not
 * there (yet) is no damage. */
static int read_hint(const struct segment *segment, struct hint_reader *hint)
{
    struct hint_record record;
    struct store_entry entry;
    uint32_t offset;
    int rc;
    while ((rc = hint_reader_next(hint, &record)) == 1)
        ;
    size_t i = 0;
    while (rc == 0 && i < segment->count &&
           (rc = hint_reader_entry(hint, &entry, &offset)) == 1) {
        rc = offset == segment->offsets[i] && entry.index == segment->first_index + i
                 ? 0
                 : -EBADMSG;
        i++;
    }
    return rc == 0 && i < segment->count ? -EBADMSG : rc;
}

static int scrub_hint(struct store *s, struct scrub_file *file, uint64_t *ret_bytes)
{
    const struct segment *segment = file->segment;
    struct hint_reader *hint;
    int rc = hint_reader_new(s, segment->file_id, SEGMENT_LOG, segment->used, &hint);
    if (rc == 0) {
        *ret_bytes += hint_reader_bytes(hint);
        rc = read_hint(segment, hint);
        hint_reader_free(hint);
    }
    file->bad_hint = rc == -EBADMSG || rc == -EIO;
    return file->bad_hint || rc == -ENOENT ? 0 : rc;
}

/* ---- A merged file ----------------------------------------------------------------- */

static size_t record_length(const struct hint_record *at)
{
    return STORE_RECORD_HEADER + at->key_size +
           (at->value_size == STORE_TOMBSTONE ? 0 : at->value_size);
}

static bool is_record(const struct hint_record *at, const uint8_t *data)
{
    struct store_record record;
    struct reader r = reader_of(data, record_length(at));
    return store_record_read(&r, &record) == 0 && reader_done(&r) &&
           record.timestamp_us == at->timestamp_us &&
           (at->value_size == STORE_TOMBSTONE) == !record.value &&
           key_compare(record.key, record.key_size, at->key, at->key_size) == 0;
}

static bool is_needed(const struct store *s, const struct segment *segment,
                      const struct hint_record *at)
{
    reading_begin();
    const struct keydir_node *node = keydir_find(store_keydir(s), at->key, at->key_size);
    bool needed = node && keydir_place(node) == place_of(segment, at->offset);
    reading_end();
    return needed;
}

static int bad_record(struct store *s, struct scrub_file *file)
{
    const struct hint_record *at = &file->at;
    if (at->value_size == STORE_TOMBSTONE || at->value) {
        struct buf record = {0};
        record_encode(&record, at->timestamp_us, at->key, at->key_size, at->value,
                      at->value ? at->value_size : 0);
        buf_u32(&file->heals, at->offset);
        buf_u32(&file->heals, (uint32_t)record.length);
        buf_bytes(&file->heals, record.data, record.length);
        bool failed = record.failed || file->heals.failed;
        buf_release(&record);
        return failed ? -ENOMEM : 0;
    }
    if (is_needed(s, file->segment, at))
        damage_found_record(s, at->key, at->key_size, at->timestamp_us);
    else
        file->worn = true;
    return 0;
}

/* The next of the hint. What it says must fill the file without a gap. */
static int advance(struct scrub_file *file)
{
    int rc = hint_reader_next(file->hint, &file->at);
    file->more = rc == 1;
    if (rc == 0 && file->end != file->segment->used)
        return -EBADMSG;
    if (rc == 1 && (file->at.offset != file->end ||
                    file->end + record_length(&file->at) > file->segment->used))
        return -EBADMSG;
    return rc < 0 ? rc : 0;
}

static bool in_window(const struct scrub_file *file)
{
    return file->end >= file->window_at &&
           file->end + record_length(&file->at) <= file->window_at + file->window.length;
}

static int scrub_record(struct store *s, struct scrub_file *file)
{
    struct buf again = {0};
    int rc = 0;
    if (!is_record(&file->at, file->window.data + (file->end - file->window_at))) {
        rc = read_or_zero(s, file->segment, file->end, record_length(&file->at), &again);
        if (rc == 0 && !is_record(&file->at, again.data))
            rc = bad_record(s, file);
        buf_release(&again);
    }
    if (rc != 0)
        return rc;
    file->end += record_length(&file->at);
    return advance(file);
}

/* A window full. 1: more. */
static int scrub_merged(struct store *s, struct scrub_file *file, uint64_t *ret_bytes)
{
    const struct segment *segment = file->segment;
    int rc = 0;
    if (!file->hint) {
        rc = hint_reader_new(s, segment->file_id, SEGMENT_MERGED, segment->used,
                             &file->hint);
        if (rc == 0)
            rc = advance(file);
    }
    if (rc == 0 && file->more) {
        size_t length = max_u64(record_length(&file->at), STRETCH_BYTES);
        length = min_u64(length, segment->used - file->end);
        file->window_at = file->end;
        rc = read_or_zero(s, segment, file->end, length, &file->window);
        *ret_bytes += length;
    }
    while (rc == 0 && file->more && in_window(file))
        rc = scrub_record(s, file);
    if (rc == -EBADMSG || rc == -ENOENT || rc == -EIO) {
        file->bad_hint = file->look_live = true;
        return 0;
    }
    return rc == 0 ? file->more : rc;
}

/* ---- Through the keydir ------------------------------------------------------------ */

/* Some keys in one section; 1: more. */
static int live_section(struct store *s, struct scrub_file *file, struct buf *record,
                        uint64_t *ret_bytes)
{
    struct keydir_cursor cursor;
    const struct keydir_node *node =
        keydir_seek(store_keydir(s), &cursor, file->key.data, file->key.length);
    for (int i = 0; node && i < LIVE_SECTION; i++, node = keydir_next(&cursor)) {
        uint64_t place = keydir_place(node);
        if (place == PLACE_GONE || place >> 32 != file->segment->slot)
            continue;
        buf_clear(record);
        int rc = read_raw(s, node, 0, record);
        *ret_bytes += keydir_record_bytes(node);
        if (rc == -EBADMSG || rc == -EIO)
            damage_found_record(s, keydir_key(node), keydir_key_size(node),
                                node->timestamp_us);
        else if (rc != 0 && rc != -ESTALE)
            return rc;
    }
    if (!node)
        return 0;
    buf_clear(&file->key);
    buf_bytes(&file->key, keydir_key(node), keydir_key_size(node));
    return file->key.failed ? -ENOMEM : 1;
}

static int scrub_live(struct store *s, struct scrub_file *file, uint64_t *ret_bytes)
{
    struct buf record = {0};
    int rc = 1;
    for (int keys = 0; rc == 1 && keys < LIVE_KEYS && *ret_bytes < STRETCH_BYTES;
         keys += LIVE_SECTION) {
        reading_begin();
        rc = live_section(s, file, &record, ret_bytes);
        reading_end();
    }
    buf_release(&record);
    return rc;
}

/* ---- The task ---------------------------------------------------------------------- */

static enum scrub_phase next_phase(const struct scrub_file *file)
{
    if (file->phase == SCRUB_DATA && file->segment->kind == SEGMENT_LOG)
        return SCRUB_HINT;
    if (file->phase != SCRUB_LIVE && file->look_live)
        return SCRUB_LIVE;
    return SCRUB_DONE;
}

static int run_stretch(struct store *s, struct scrub_file *file, uint64_t *ret_bytes)
{
    int rc;
    if (file->phase == SCRUB_LIVE)
        rc = scrub_live(s, file, ret_bytes);
    else if (file->phase == SCRUB_HINT)
        rc = scrub_hint(s, file, ret_bytes);
    else if (file->segment->kind == SEGMENT_LOG)
        rc = scrub_log(s, file, ret_bytes);
    else
        rc = scrub_merged(s, file, ret_bytes);
    if (rc == 0)
        file->phase = next_phase(file);
    return rc;
}

static int run(struct store_task *task, uint64_t *ret_wait_us,
               char error[STORE_ERROR_BYTES])
{
    struct scrub_task *scrub = container_of(task, struct scrub_task, task);
    struct store *s = task->store;
    if (s->scrub.unsaved) {
        state_save(s);
        s->scrub.unsaved = false;
    }
    scrub->rc = run_stretch(s, s->scrub.file, &scrub->bytes);
    return 0;
}

/* What the hint still knew is written back. Where that fails, the next pass tries again.
 */
static void heal(struct store *s, struct scrub_file *file)
{
    struct reader r = reader_of(file->heals.data, file->heals.length);
    while (reader_left(&r) > 0) {
        uint32_t offset = reader_u32(&r), length = reader_u32(&r);
        const uint8_t *record = reader_bytes(&r, length);
        ensure(record);
        repair_here(s, file->segment, offset, record, length);
    }
}

static void finish_file(struct store *s, struct scrub_file *file)
{
    struct segment *segment = file->segment;
    heal(s, file);
    if (file->bad_hint)
        segment->hint_bytes = 0;
    if (file->worn)
        segment->worn = true;
    if (!file->urgent) {
        s->scrub.next_id = segment->file_id + 1;
        s->scrub.unsaved = true;
    }
    scrub_forget(s);
}

/* A pass takes the period; what is urgent goes at the rate of merging. */
static uint64_t wait_us(const struct store *s, uint64_t bytes, bool urgent)
{
    uint64_t fastest = (uint64_t)((double)bytes * 1e6 / (double)s->merge_bytes_per_s);
    if (urgent)
        return fastest;
    double share = (double)bytes / (double)max_u64(all_bytes(s), 1);
    double even = (double)s->scrub_period_us * (share < 1 ? share : 1);
    return max_u64(fastest, (uint64_t)even);
}

static bool step(struct store *s, struct store_task *task)
{
    struct scrub_task *scrub = container_of(task, struct scrub_task, task);
    struct scrub_file *file = s->scrub.file;
    bool urgent = file->urgent;
    s->stats.scrubbed_bytes += scrub->bytes;
    if (scrub->rc < 0)
        task_gave_up(s, task);
    else if (file->phase == SCRUB_DONE)
        finish_file(s, file);
    if (!urgent || s->scrub.file)
        s->scrub.due_us = s->task_now_us + wait_us(s, scrub->bytes, urgent);
    return false;
}

static void scrub_free(struct store_task *task)
{
    free(container_of(task, struct scrub_task, task));
}

const struct task_kind scrub_kind = {plan, run, step, scrub_free};
