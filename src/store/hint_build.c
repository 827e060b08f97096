/*
 * hint_build.c - a hint made from its data file: the file is read once, from end to end
 * and verified on the way; a log segment's records are sorted in memory, where only the
 * newest of a key counts. In steps, so that it can be paced.
 */
#include "store_internal.h"

struct item { /* a record; its key, and a small value, at `bytes_at` of the arena */
    uint64_t timestamp_us;
    uint64_t bytes_at;
    uint32_t offset, value_size;
    uint16_t key_size;
};

enum step { STEP_READ, STEP_SORT, STEP_RECORDS, STEP_ENTRIES, STEP_DONE };

struct hint_builder {
    struct store *s;
    struct segment *segment; /* a reference */
    struct hint_info info;
    enum step step;
    struct buf window; /* bytes of the file from `window_at`, not looked at yet */
    uint64_t window_at;
    struct buf items, arena, entries; /* of struct item, bytes, struct entry_at */
    size_t at;                        /* items or entries written */
    struct chain end;                 /* of the log entries seen */
    bool begun;
    uint64_t entry_offset; /* of the entry or merged record that is looked at */
    uint8_t last_key[LIMIT_KEY_BYTES];
    uint32_t last_size;
    struct hint_writer *writer;
};

struct entry_at {
    struct store_entry entry;
    uint32_t offset;
};

enum {
    STEP_BYTES = 1 << 20,  /* read in one step */
    STEP_ITEMS = 16 << 10, /* written in one step */
};

int hint_builder_new(struct store *s, struct segment *segment, uint64_t data_bytes,
                     struct hint_builder **ret)
{
    struct hint_builder *b = calloc(1, sizeof(*b));
    if (!b)
        return -ENOMEM;
    b->s = s;
    b->segment = segment_ref(segment);
    b->info = (struct hint_info){.kind = segment->kind,
                                 .file_id = segment->file_id,
                                 .data_bytes = data_bytes,
                                 .first_index = segment->first_index};
    b->window_at = b->entry_offset = SEGMENT_HEADER;
    int rc = hint_writer_new(s, &b->info, &b->writer);
    if (rc != 0) {
        hint_builder_free(b);
        return rc;
    }
    *ret = b;
    return 0;
}

void hint_builder_free(struct hint_builder *b)
{
    if (!b)
        return;
    hint_writer_free(b->writer);
    segment_unref(b->segment);
    buf_release(&b->window);
    buf_release(&b->items);
    buf_release(&b->arena);
    buf_release(&b->entries);
    free(b);
}

/* ---- Reading ----------------------------------------------------------------------- */

static struct hint_record hint_of(const struct store_record *record, uint32_t offset)
{
    struct hint_record hint = {.key = record->key,
                               .key_size = record->key_size,
                               .timestamp_us = record->timestamp_us,
                               .offset = offset,
                               .value_size = STORE_TOMBSTONE};
    if (record->value) {
        hint.value_size = record->value_size;
        if (record->value_size <= LIMIT_KEYDIR_INLINE_BYTES)
            hint.value = record->value;
    }
    return hint;
}

static int gather(void *arg, const struct store_record *record, uint32_t offset)
{
    struct hint_builder *b = arg;
    struct hint_record hint = hint_of(record, offset + (uint32_t)b->entry_offset);
    struct item item = {.timestamp_us = hint.timestamp_us,
                        .bytes_at = b->arena.length,
                        .offset = hint.offset,
                        .value_size = hint.value_size,
                        .key_size = (uint16_t)hint.key_size};
    buf_bytes(&b->items, &item, sizeof(item));
    buf_bytes(&b->arena, hint.key, hint.key_size);
    if (hint.value)
        buf_bytes(&b->arena, hint.value, hint.value_size);
    return 0;
}

/* The bytes of one entry; *ret: its length, 0 where it is not there in full. */
static int take_entry(struct hint_builder *b, const uint8_t *data, size_t length,
                      size_t *ret)
{
    struct entry_at at = {.offset = (uint32_t)b->entry_offset};
    *ret = 0;
    if (length < STORE_ENTRY_HEADER)
        return 0;
    if (entry_head_decode(data, length, &at.entry) != 0)
        return -EBADMSG;
    if (at.entry.length > length)
        return 0;
    if (store_entry_verify(data, at.entry.length, &at.entry) != 0 ||
        (b->begun ? !chain_continues(&b->end, &at.entry)
                  : at.entry.index != b->info.first_index))
        return -EBADMSG;
    b->begun = true;
    b->end = chain_after(&at.entry);
    store_entry_each(data, at.entry.length, gather, b);
    buf_bytes(&b->entries, &at, sizeof(at));
    *ret = at.entry.length;
    return 0;
}

/* A merged file's records are in order already: they go to the hint at once. */
static int take_record(struct hint_builder *b, const uint8_t *data, size_t length,
                       size_t *ret)
{
    *ret = 0;
    if (length < STORE_RECORD_HEADER)
        return 0;
    uint64_t key_size = get_u32(data + 12), value_size = get_u32(data + 16);
    uint64_t size = STORE_RECORD_HEADER + key_size;
    size += value_size == STORE_TOMBSTONE ? 0 : value_size;
    if (key_size > LIMIT_KEY_BYTES ||
        (value_size > LIMIT_ENTRY_BYTES && value_size != STORE_TOMBSTONE))
        return -EBADMSG;
    if (size > length)
        return 0;
    struct reader r = reader_of(data, size);
    struct store_record record;
    if (store_record_read(&r, &record) != 0 ||
        key_compare(b->last_key, b->last_size, record.key, record.key_size) >= 0)
        return -EBADMSG;
    struct hint_record hint = hint_of(&record, (uint32_t)b->entry_offset);
    memcpy(b->last_key, record.key, record.key_size);
    b->last_size = record.key_size;
    *ret = size;
    return hint_writer_record(b->writer, &hint);
}

/* What is whole in the window; the rest moves to its beginning. */
static int take_window(struct hint_builder *b)
{
    size_t at = 0;
    for (;;) {
        size_t size, left = b->window.length - at;
        b->entry_offset = b->window_at + at;
        int rc = b->info.kind == SEGMENT_LOG
                     ? take_entry(b, b->window.data + at, left, &size)
                     : take_record(b, b->window.data + at, left, &size);
        if (rc != 0)
            return rc;
        if (size == 0)
            break;
        at += size;
    }
    memmove(b->window.data, b->window.data + at, b->window.length - at);
    b->window.length -= at;
    b->window_at += at;
    return 0;
}

static int step_read(struct hint_builder *b)
{
    uint64_t offset = b->window_at + b->window.length;
    uint64_t left = b->info.data_bytes - min_u64(offset, b->info.data_bytes);
    if (left == 0) {
        b->step = b->info.kind == SEGMENT_LOG ? STEP_SORT : STEP_DONE;
        return b->window.length == 0 ? 0 : -EBADMSG;
    }
    size_t more = min_u64(left, STEP_BYTES);
    uint8_t *to = buf_extend(&b->window, more);
    if (!to)
        return -ENOMEM;
    ssize_t n = read_full(b->s->io, b->segment->fd, to, more, offset);
    if (n < 0)
        return (int)n;
    if ((size_t)n < more)
        return -EBADMSG;
    int rc = take_window(b);
    if (b->items.failed || b->arena.failed || b->entries.failed)
        rc = -ENOMEM;
    return rc;
}

/* ---- Writing ----------------------------------------------------------------------- */

static int compare_items(const void *a, const void *b, void *arg)
{
    const struct item *x = a, *y = b;
    const uint8_t *arena = arg;
    int order =
        key_compare(arena + x->bytes_at, x->key_size, arena + y->bytes_at, y->key_size);
    return order != 0 ? order
                      : (x->timestamp_us < y->timestamp_us) -
                            (x->timestamp_us > y->timestamp_us);
}

static int step_sort(struct hint_builder *b)
{
    size_t count = b->items.length / sizeof(struct item);
    if (count > 0)
        qsort_r(b->items.data, count, sizeof(struct item), compare_items, b->arena.data);
    b->step = STEP_RECORDS;
    return 0;
}

/* The newest of a key stands before the others. */
static bool is_older(const struct hint_builder *b, const struct item *items, size_t i)
{
    const uint8_t *arena = b->arena.data;
    return i > 0 && items[i].key_size == items[i - 1].key_size &&
           memcmp(arena + items[i].bytes_at, arena + items[i - 1].bytes_at,
                  items[i].key_size) == 0;
}

static int step_records(struct hint_builder *b)
{
    const struct item *items = (const struct item *)b->items.data;
    size_t count = b->items.length / sizeof(struct item);
    size_t stop = min_u64(count, b->at + STEP_ITEMS);
    int rc = 0;
    for (; rc == 0 && b->at < stop; b->at++) {
        const struct item *item = &items[b->at];
        struct hint_record hint = {.key = b->arena.data + item->bytes_at,
                                   .key_size = item->key_size,
                                   .timestamp_us = item->timestamp_us,
                                   .offset = item->offset,
                                   .value_size = item->value_size};
        if (hint.value_size <= LIMIT_KEYDIR_INLINE_BYTES)
            hint.value = hint.key + hint.key_size;
        if (!is_older(b, items, b->at))
            rc = hint_writer_record(b->writer, &hint);
    }
    if (b->at == count) {
        b->step = STEP_ENTRIES;
        b->at = 0;
    }
    return rc;
}

static int step_entries(struct hint_builder *b)
{
    const struct entry_at *entries = (const struct entry_at *)b->entries.data;
    size_t count = b->entries.length / sizeof(*entries);
    size_t stop = min_u64(count, b->at + STEP_ITEMS);
    int rc = 0;
    for (; rc == 0 && b->at < stop; b->at++)
        rc = hint_writer_entry(b->writer, &entries[b->at].entry, entries[b->at].offset);
    if (b->at == count)
        b->step = STEP_DONE;
    return rc;
}

static int (*const steps[])(struct hint_builder *b) = {
    [STEP_READ] = step_read,
    [STEP_SORT] = step_sort,
    [STEP_RECORDS] = step_records,
    [STEP_ENTRIES] = step_entries,
};

int hint_builder_step(struct hint_builder *b, uint64_t *ret_bytes)
{
    if (b->step != STEP_DONE) {
        int rc = steps[b->step](b);
        return rc == 0 ? 1 : rc;
    }
    return hint_writer_finish(b->writer, ret_bytes);
}

int hint_build(struct store *s, struct segment *segment, uint64_t data_bytes,
               uint64_t *ret_bytes)
{
    struct hint_builder *b;
    int rc = hint_builder_new(s, segment, data_bytes, &b);
    if (rc != 0)
        return rc;
    while ((rc = hint_builder_step(b, ret_bytes)) == 1)
        ;
    hint_builder_free(b);
    return rc;
}
