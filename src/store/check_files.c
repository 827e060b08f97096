/*
 * check_files.c - the invariants I10-I13 of README.md: what the files say, all of them
 * read, against what is in memory and what the hints and the manifest say. Slow: for
 * tests.
 */
#include "store_internal.h"

struct item { /* a record */
    uint64_t timestamp_us;
    size_t key_at; /* in `keys` */
    uint32_t key_size, offset, value_size;
};

struct items {
    struct buf keys;
    struct item *all;
    size_t count, capacity;
};

struct files {
    struct store *s;
    struct buf data;   /* of the file that is looked at */
    struct items file; /* its records */
    struct items
        state; /* of each file the newest record of each key, where it is applied */
};

/* ---- Records ----------------------------------------------------------------------- */

static const uint8_t *item_key(const struct items *items, const struct item *item)
{
    return items->keys.data + item->key_at;
}

static void items_add(struct items *items, struct item item, const uint8_t *key)
{
    if (items->count == items->capacity) {
        items->capacity = items->capacity ? 2 * items->capacity : 64;
        items->all = realloc(items->all, items->capacity * sizeof(*items->all));
        ensure(items->all);
    }
    item.key_at = items->keys.length;
    buf_bytes(&items->keys, key, item.key_size);
    ensure(!items->keys.failed);
    items->all[items->count++] = item;
}

static void items_add_record(struct items *items, const struct store_record *record,
                             uint32_t offset)
{
    struct item item = {.timestamp_us = record->timestamp_us,
                        .key_size = record->key_size,
                        .offset = offset,
                        .value_size =
                            record->value ? record->value_size : STORE_TOMBSTONE};
    items_add(items, item, record->key);
}

static void items_clear(struct items *items)
{
    items->count = 0;
    buf_clear(&items->keys);
}

static void items_release(struct items *items)
{
    buf_release(&items->keys);
    free(items->all);
}

static int compare_items(const void *a, const void *b, void *arg)
{
    const struct item *x = a, *y = b;
    int order = key_compare(item_key(arg, x), x->key_size, item_key(arg, y), y->key_size);
    if (order != 0)
        return order;
    return (x->timestamp_us < y->timestamp_us) - (x->timestamp_us > y->timestamp_us);
}

/* In key order, of each key the newest record only. */
static void items_settle(struct items *items)
{
    size_t left = 0;
    if (items->count > 0)
        qsort_r(items->all, items->count, sizeof(*items->all), compare_items, items);
    for (size_t i = 0; i < items->count; i++) {
        const struct item *item = &items->all[i], *last = &items->all[left - 1];
        if (left > 0 && key_compare(item_key(items, item), item->key_size,
                                    item_key(items, last), last->key_size) == 0)
            continue;
        items->all[left++] = *item;
    }
    items->count = left;
}

/* ---- Files ------------------------------------------------------------------------- */

/* Of a log segment, what is durable. */
static uint64_t durable_bytes(const struct store *s, const struct segment *segment)
{
    if (segment->kind == SEGMENT_MERGED || segment_last(segment) <= s->durable)
        return segment->used;
    return segment->offsets[s->durable + 1 - segment->first_index];
}

static void read_file(struct files *f, const struct segment *segment)
{
    buf_clear(&f->data);
    items_clear(&f->file);
    if (segment->kind == SEGMENT_LOG && segment->first_index > f->s->durable)
        return;
    size_t length = durable_bytes(f->s, segment);
    uint8_t *data = buf_extend(&f->data, length);
    ensure(data);
    ensure(read_full(f->s->io, segment->fd, data, length, 0) == (ssize_t)length);
}

struct place {
    struct files *f;
    uint32_t entry_offset;
};

static int take_record(void *arg, const struct store_record *record, uint32_t offset)
{
    struct place *p = arg;
    items_add_record(&p->f->file, record, p->entry_offset + offset);
    return 0;
}

/* The records of a log segment's entries up to `last`. */
static void take_entries(struct files *f, const struct segment *segment, uint64_t last)
{
    for (uint64_t index = segment->first_index;
         index <= segment_last(segment) && index <= last; index++) {
        struct place p = {f, segment->offsets[index - segment->first_index]};
        uint32_t length = segment_entry_length(segment, index);
        struct store_entry entry;
        const uint8_t *data = f->data.data + p.entry_offset;
        ensure(store_entry_verify(data, length, &entry) == 0 && entry.length == length &&
               entry.index == index);
        store_entry_each(data, length, take_record, &p);
    }
}

/* I12: a merged file is what the manifest says: records in key order, intact, none twice.
 */
static void take_merged(struct files *f, const struct segment *segment,
                        const struct manifest_file *said)
{
    struct manifest_file found = {.file_id = segment->file_id, .bytes = segment->used};
    struct reader r = reader_of(f->data.data, f->data.length);
    reader_bytes(&r, SEGMENT_HEADER);
    for (struct store_record record; reader_left(&r) > 0; found.records++) {
        uint32_t offset = (uint32_t)(r.at - f->data.data);
        ensure(store_record_read(&r, &record) == 0);
        if (found.records == 0 || record.timestamp_us < found.min_timestamp_us)
            found.min_timestamp_us = record.timestamp_us;
        found.max_timestamp_us = max_u64(found.max_timestamp_us, record.timestamp_us);
        found.tombstones += !record.value;
        const struct item *last =
            f->file.count > 0 ? &f->file.all[f->file.count - 1] : NULL;
        ensure(!last || key_compare(item_key(&f->file, last), last->key_size, record.key,
                                    record.key_size) < 0);
        items_add_record(&f->file, &record, offset);
    }
    ensure(memcmp(&found, said, sizeof(found)) == 0);
}

/* ---- I11: a hint equals what it summarises ----------------------------------------- */

static void check_hint_entries(const struct segment *segment, struct hint_reader *hint,
                               const uint8_t *data)
{
    struct store_entry said, found;
    uint32_t offset;
    uint64_t index = segment->first_index;
    for (; hint_reader_entry(hint, &said, &offset) == 1; index++) {
        ensure(index <= segment_last(segment));
        ensure(offset == segment->offsets[index - segment->first_index]);
        ensure(store_entry_decode(data + offset, segment->used - offset, &found) == 0);
        ensure(said.index == index && said.term == found.term && said.crc == found.crc &&
               said.timestamp_us == found.timestamp_us && said.session == found.session &&
               said.request == found.request && said.record_count == found.record_count &&
               said.length == found.length &&
               memcmp(said.result, found.result, sizeof(said.result)) == 0);
    }
    ensure(index == segment_last(segment) + 1);
}

static void check_hint_records(const struct files *f, struct hint_reader *hint)
{
    struct hint_record said;
    size_t i = 0;
    for (; hint_reader_next(hint, &said) == 1; i++) {
        ensure(i < f->file.count);
        const struct item *item = &f->file.all[i];
        ensure(key_compare(said.key, said.key_size, item_key(&f->file, item),
                           item->key_size) == 0);
        ensure(said.timestamp_us == item->timestamp_us && said.offset == item->offset &&
               said.value_size == item->value_size);
        ensure(!said.value ||
               memcmp(said.value,
                      f->data.data + said.offset + STORE_RECORD_HEADER + said.key_size,
                      said.value_size) == 0);
    }
    ensure(i == f->file.count);
}

/* `file`: settled. One that has no hint now has none, whatever its name may say. */
static void check_hint(struct files *f, const struct segment *segment)
{
    if (segment->hint_bytes == 0)
        return;
    struct hint_reader *hint;
    ensure(hint_reader_new(f->s, segment->file_id, segment->kind, segment->used, &hint) ==
           0);
    ensure(hint_reader_bytes(hint) == segment->hint_bytes);
    check_hint_records(f, hint);
    if (segment->kind == SEGMENT_LOG) {
        ensure(segment != store_active(f->s));
        ensure(segment_last(segment) <= f->s->applied.index);
        check_hint_entries(segment, hint, f->data.data);
    }
    hint_reader_free(hint);
}

/* ---- I10: the keydir equals a replay of all files ---------------------------------- */

static void add_to_state(struct files *f)
{
    for (size_t i = 0; i < f->file.count; i++)
        items_add(&f->state, f->file.all[i], item_key(&f->file, &f->file.all[i]));
}

static void check_state(struct files *f)
{
    struct keydir_cursor cursor;
    items_settle(&f->state);
    const struct keydir_node *node = keydir_seek(f->s->keydir, &cursor, "", 0);
    for (size_t i = 0; i < f->state.count; i++) {
        const struct item *item = &f->state.all[i];
        if (item->value_size == STORE_TOMBSTONE)
            continue;
        ensure(node && key_compare(keydir_key(node), keydir_key_size(node),
                                   item_key(&f->state, item), item->key_size) == 0);
        ensure(node->timestamp_us == item->timestamp_us &&
               node->value_size == item->value_size);
        node = keydir_next(&cursor);
    }
    ensure(!node);
}

/* ---- I12, I13: the manifest, and the names ----------------------------------------- */

/* That each file is as it says is checked file by file. */
static void check_manifest(const struct store *s)
{
    struct manifest found = {0};
    char error[STORE_ERROR_BYTES];
    int rc = manifest_read((struct store *)s, &found, error);
    ensure(s->manifest.count == s->merged_count);
    ensure((rc == 0) == (s->manifest.applied_index > 0));
    ensure(rc == 0 || s->base.index == 0);
    if (rc != 0)
        return;
    const struct manifest *said = &s->manifest;
    ensure(found.merged.index == said->merged.index &&
           found.merged.term == said->merged.term &&
           found.merged.crc == said->merged.crc &&
           found.merged.timestamp_us == said->merged.timestamp_us);
    ensure(found.merged.index == s->base.index && found.merged.crc == s->base.crc);
    ensure(found.applied_index == said->applied_index &&
           found.applied_term == said->applied_term &&
           found.merged.index <= found.applied_index);
    ensure(found.first_file == said->first_file &&
           found.first_file <= s->segments[0]->file_id);
    ensure(found.count == said->count);
    for (size_t i = 0; i < found.count; i++) {
        ensure(memcmp(&found.files[i], &said->files[i], sizeof(found.files[i])) == 0);
        ensure(found.files[i].file_id == s->merged[i]->file_id);
    }
    manifest_release(&found);
}

struct names {
    const struct store *s;
    size_t logs, merged;
};

static int check_name(void *arg, const char *name)
{
    struct names *names = arg;
    size_t length = strlen(name);
    names->logs += length > 4 && strcmp(name + length - 4, ".seg") == 0;
    names->merged += length > 4 && strcmp(name + length - 4, ".mrg") == 0;
    return 0;
}

/* While nothing is under way. Beyond a hole there may be more of the log. */
static void check_names(const struct store *s)
{
    struct names names = {.s = s};
    struct path directory;
    log_directory_path(&directory, s->path);
    ensure(s->io->list(s->io->context, directory.text, check_name, &names) == 0);
    ensure(names.logs >= s->segment_count && names.merged == s->merged_count);
}

void check_files(struct store *s)
{
    struct files f = {.s = s};
    for (size_t i = 0; i < s->merged_count; i++) {
        read_file(&f, s->merged[i]);
        take_merged(&f, s->merged[i], &s->manifest.files[i]);
        check_hint(&f, s->merged[i]);
        add_to_state(&f);
    }
    for (size_t i = 0; i < s->segment_count; i++) {
        read_file(&f, s->segments[i]);
        take_entries(&f, s->segments[i], min_u64(s->applied.index, s->durable));
        items_settle(&f.file);
        check_hint(&f, s->segments[i]);
        add_to_state(&f);
    }
    check_state(&f);
    if (!s->task && !s->pending && !s->running) {
        check_manifest(s);
        check_names(s);
    }
    buf_release(&f.data);
    items_release(&f.file);
    items_release(&f.state);
}
