/*
 * inspect_hint.c - looking at hints: beside what they summarise, or alone.
 *
 * A hint is checked against a summary made from the data file itself: the newest record
 * of each key, in key order, and, of a log segment, its entries. Alone, against itself:
 * its checksums, the order of its keys, the chain of its entries, and its counts.
 */
#include "inspect.h"

/* ---- A summary --------------------------------------------------------------------- */

static const uint8_t *key_of(const struct summary *s, const struct summary_record *r)
{
    return s->bytes.data + r->at;
}

int summary_add(struct summary *s, const struct store_record *record, uint32_t offset)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 1024;
        struct summary_record *records = realloc(s->records, capacity * sizeof(*records));
        if (!records)
            return -ENOMEM;
        s->records = records;
        s->capacity = capacity;
    }
    bool small = record->value && record->value_size <= LIMIT_KEYDIR_INLINE_BYTES;
    struct summary_record *r = &s->records[s->count];
    *r = (struct summary_record){.at = s->bytes.length,
                                 .key_size = record->key_size,
                                 .offset = offset,
                                 .timestamp_us = record->timestamp_us,
                                 .value_size = record->value ? record->value_size
                                                             : STORE_TOMBSTONE};
    buf_bytes(&s->bytes, record->key, record->key_size);
    if (small)
        buf_bytes(&s->bytes, record->value, record->value_size);
    if (s->bytes.failed)
        return -ENOMEM;
    s->count++;
    return 0;
}

int summary_add_entry(struct summary *s, const struct store_entry *entry, uint32_t offset)
{
    if (s->entry_count == s->entry_capacity) {
        size_t capacity = s->entry_capacity ? 2 * s->entry_capacity : 256;
        struct summary_entry *entries = realloc(s->entries, capacity * sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        s->entries = entries;
        s->entry_capacity = capacity;
    }
    s->entries[s->entry_count++] =
        (struct summary_entry){.entry = *entry, .offset = offset};
    return 0;
}

/* By key; of one key the newest first. */
static int compare_records(const void *a, const void *b, void *arg)
{
    const struct summary *s = arg;
    const struct summary_record *x = a, *y = b;
    int order = key_compare(key_of(s, x), x->key_size, key_of(s, y), y->key_size);
    if (order != 0)
        return order;
    return (x->timestamp_us < y->timestamp_us) - (x->timestamp_us > y->timestamp_us);
}

static void summary_sort(struct summary *s)
{
    if (s->count > 0)
        qsort_r(s->records, s->count, sizeof(*s->records), compare_records, s);
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct summary_record *last = kept ? &s->records[kept - 1] : NULL;
        const struct summary_record *r = &s->records[i];
        if (!last ||
            key_compare(key_of(s, last), last->key_size, key_of(s, r), r->key_size) != 0)
            s->records[kept++] = *r;
    }
    s->count = kept;
}

void summary_release(struct summary *s)
{
    buf_release(&s->bytes);
    free(s->records);
    free(s->entries);
    *s = (struct summary){0};
}

/* ---- Hints ------------------------------------------------------------------------- */

static bool same_record(const struct summary *s, const struct summary_record *r,
                        const struct hint_record *hint)
{
    bool small = r->value_size <= LIMIT_KEYDIR_INLINE_BYTES;
    return key_compare(key_of(s, r), r->key_size, hint->key, hint->key_size) == 0 &&
           r->timestamp_us == hint->timestamp_us && r->offset == hint->offset &&
           r->value_size == hint->value_size && small == (hint->value != NULL) &&
           (!small ||
            memcmp(key_of(s, r) + r->key_size, hint->value, r->value_size) == 0);
}

static bool same_entry(const struct summary_entry *ours, const struct store_entry *e,
                       uint32_t offset)
{
    const struct store_entry *o = &ours->entry;
    return o->index == e->index && o->term == e->term &&
           o->timestamp_us == e->timestamp_us && o->session == e->session &&
           o->request == e->request && o->record_count == e->record_count &&
           o->crc == e->crc && o->length == e->length && ours->offset == offset &&
           memcmp(o->result, e->result, sizeof(o->result)) == 0;
}

/* Whether the hint equals the summary: 1, 0, or an error of reading it. */
static int compare_hint(struct hint_reader *reader, struct summary *s)
{
    struct hint_record record;
    struct store_entry entry;
    uint32_t offset;
    int rc = 1;
    summary_sort(s);
    for (size_t i = 0; i < s->count; i++) {
        rc = hint_reader_next(reader, &record);
        if (rc <= 0)
            return rc;
        if (!same_record(s, &s->records[i], &record))
            return 0;
    }
    rc = hint_reader_next(reader, &record);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    for (size_t i = 0; i < s->entry_count; i++) {
        rc = hint_reader_entry(reader, &entry, &offset);
        if (rc <= 0)
            return rc;
        if (!same_entry(&s->entries[i], &entry, offset))
            return 0;
    }
    rc = hint_reader_entry(reader, &entry, &offset);
    return rc < 0 ? rc : rc == 0;
}

static int say_hint(struct inspection *x, const char *path,
                    const struct hint_reader *reader, bool alone)
{
    const struct hint_info *info = hint_reader_info(reader);
    fact_begin(x, "hint");
    fact_text(x, "file", inspect_name(x, path));
    fact_number(x, "bytes", hint_reader_bytes(reader));
    if (alone) {
        fact_id(x, "file_id", info->file_id);
        fact_hex(x, "cluster", x->place.cluster_id, STORE_CLUSTER_ID_BYTES);
    }
    fact_text(x, "of", info->kind == SEGMENT_LOG ? "log segment" : "merged file");
    fact_number(x, "data_bytes", info->data_bytes);
    fact_number(x, "records", info->records);
    fact_number(x, "tombstones", info->tombstones);
    if (info->kind == SEGMENT_LOG) {
        fact_number(x, "first_index", info->first_index);
        fact_number(x, "entries", info->entries);
        fact_number(x, "last_term", info->end.term);
    }
    return fact_end(x);
}

static int bad_hint(struct inspection *x, const char *path, bool expected,
                    const char *what)
{
    if (expected) /* of a segment that is written to again */
        return inspect_note(x, path, "%s: the next start makes it anew", what);
    return inspect_problem(x, path, UINT64_MAX, "%s: the next start makes it anew", what);
}

/* Against itself, where there is nothing to compare it with: as compare_hint(). */
static int walk_hint(struct hint_reader *reader)
{
    struct hint_record record;
    struct store_entry entry;
    uint32_t offset;
    int rc = 1;
    while (rc > 0)
        rc = hint_reader_next(reader, &record);
    if (rc == 0)
        rc = 1;
    while (rc > 0)
        rc = hint_reader_entry(reader, &entry, &offset);
    return rc < 0 ? rc : 1;
}

static int look_into_hint(struct inspection *x, struct hint_reader *reader,
                          struct summary *summary)
{
    if (summary)
        return compare_hint(reader, summary);
    return x->options->verify ? walk_hint(reader) : 1;
}

int inspect_hint(struct inspection *x, uint64_t file_id, enum segment_kind kind,
                 uint64_t data_bytes, bool active, struct summary *summary,
                 bool *ret_usable)
{
    struct path path;
    struct hint_reader *reader;
    *ret_usable = false;
    hint_path(&path, x->place.path, file_id);
    int rc = hint_reader_new(&x->place, file_id, kind, data_bytes, &reader);
    if (rc == -ENOENT)
        return active ? 0
                      : inspect_note(x, path.text, "missing: the next start makes it");
    if (rc == -EBADMSG)
        return bad_hint(x, path.text, active, "damaged, or not of the file as it is now");
    if (rc != 0)
        return inspect_unreadable(x, path.text, rc);
    x->files++;
    x->bytes += hint_reader_bytes(reader);
    rc = say_hint(x, path.text, reader, false);
    int same = rc == 0 ? look_into_hint(x, reader, summary) : 1;
    hint_reader_free(reader);
    *ret_usable = same == 1;
    if (rc == 0 && same == 0)
        rc = bad_hint(x, path.text, false, "it does not say what is in its data file");
    if (rc == 0 && same == -EBADMSG)
        rc = bad_hint(x, path.text, false, "damaged");
    else if (rc == 0 && same < 0)
        rc = inspect_unreadable(x, path.text, same);
    return rc;
}

/* ---- One file ---------------------------------------------------------------------- */

static void say_hint_record(struct inspection *x, const struct hint_record *r)
{
    fact_begin(x, "record");
    fact_number(x, "offset", r->offset);
    fact_number(x, "timestamp_us", r->timestamp_us);
    fact_bytes(x, "key", r->key, r->key_size);
    if (r->value_size == STORE_TOMBSTONE)
        fact_flag(x, "tombstone", true);
    else
        fact_number(x, "value_size", r->value_size);
    if (r->value)
        fact_bytes(x, "value", r->value, r->value_size);
    fact_end(x);
}

/* What the trailer says of all of it, which the reader has no use for. */
static int check_hint_counts(struct inspection *x, const char *path,
                             const struct hint_info *info, uint64_t records,
                             uint64_t tombstones)
{
    if (info->records == records && info->tombstones == tombstones)
        return 0;
    return inspect_problem(
        x, path, UINT64_MAX,
        "its trailer says %llu records (%llu tombstones), and there are %llu (%llu)",
        (unsigned long long)info->records, (unsigned long long)info->tombstones,
        (unsigned long long)records, (unsigned long long)tombstones);
}

static int say_hint_items(struct inspection *x, const char *path,
                          struct hint_reader *reader)
{
    struct hint_record record;
    struct store_entry entry;
    uint32_t offset;
    uint64_t records = 0, tombstones = 0;
    int rc;
    while ((rc = hint_reader_next(reader, &record)) > 0 && x->stopped == 0) {
        say_hint_record(x, &record);
        records++;
        tombstones += record.value_size == STORE_TOMBSTONE;
    }
    while (rc >= 0 && x->stopped == 0 &&
           (rc = hint_reader_entry(reader, &entry, &offset)) > 0)
        inspect_say_entry(x, &entry, offset, false);
    if (x->stopped != 0)
        return x->stopped;
    if (rc == -EBADMSG)
        return inspect_problem(x, path, UINT64_MAX, "damaged behind what was shown");
    if (rc < 0)
        return inspect_unreadable(x, path, rc);
    return check_hint_counts(x, path, hint_reader_info(reader), records, tombstones);
}

/* ID.seg or ID.mrg in the directory that the hint is in, whatever the hint's own name. */
static int look_beside(struct inspection *x, const char *path,
                       const struct hint_info *info)
{
    char data[LIMIT_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    int directory = slash ? (int)(slash + 1 - path) : 0;
    int n = snprintf(data, sizeof(data), "%.*s%016llx.%s", directory, path,
                     (unsigned long long)info->file_id,
                     info->kind == SEGMENT_LOG ? "seg" : "mrg");
    struct image image;
    int rc = n < (int)sizeof(data) ? image_open(x, data, 0, &image) : -ENAMETOOLONG;
    if (rc == -ENOENT)
        return inspect_note(x, path,
                            "%s is not beside it: only the hint itself was looked at",
                            data + directory);
    if (rc != 0)
        return inspect_note(x, path, "%s cannot be opened: %s", data + directory,
                            strerror(-rc));
    uint64_t size = image.size;
    image_close(&image);
    if (size == info->data_bytes)
        return 0;
    return inspect_note(
        x, path,
        "%s has %llu bytes, and the hint is of %llu: it is an old one, or "
        "of another file",
        data + directory, (unsigned long long)size, (unsigned long long)info->data_bytes);
}

static int open_hint_file(struct inspection *x, const char *path, struct image *image,
                          struct hint_reader **ret)
{
    const uint8_t *data;
    size_t length;
    int rc = image_look(image, 0, SEGMENT_HEADER, &data, &length);
    if (rc != 0)
        return rc;
    if (length < SEGMENT_HEADER || get_u32(data + 60) != crc32_of(0, data, 60))
        return -EBADMSG;
    if (get_u32(data + 8) > x->place.format_newest)
        return -EPROTONOSUPPORT;
    uint32_t kind = get_u32(data + 48);
    if (kind != SEGMENT_LOG && kind != SEGMENT_MERGED)
        return -EBADMSG;
    memcpy(x->place.cluster_id, data + 16, STORE_CLUSTER_ID_BYTES);
    return hint_reader_open(&x->place, path, get_u64(data + 32), (enum segment_kind)kind,
                            get_u64(data + 40), ret);
}

int inspect_hint_file(struct inspection *x, const char *path, struct image *image)
{
    struct hint_reader *reader = NULL;
    int rc = open_hint_file(x, path, image, &reader);
    if (rc == -EBADMSG)
        return inspect_problem(x, path, UINT64_MAX, "its header or trailer is damaged");
    if (rc == -EPROTONOSUPPORT)
        return inspect_problem(x, path, 0, "of a newer format than this tierce knows");
    if (rc != 0)
        return inspect_unreadable(x, path, rc);
    rc = say_hint(x, path, reader, true);
    if (rc == 0)
        rc = say_hint_items(x, path, reader);
    if (rc == 0)
        rc = look_beside(x, path, hint_reader_info(reader));
    hint_reader_free(reader);
    return rc;
}
