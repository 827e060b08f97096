/*
 * inspect_merged.c - looking at merged files, and at hints beside what they summarise.
 *
 * A hint is checked against a summary made from the data file itself: the newest record
 * of each key, in key order, and, of a log segment, its entries.
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
                    const struct hint_reader *reader)
{
    const struct hint_info *info = hint_reader_info(reader);
    fact_begin(x, "hint");
    fact_text(x, "file", inspect_name(x, path));
    fact_number(x, "bytes", hint_reader_bytes(reader));
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

int inspect_hint(struct inspection *x, uint64_t file_id, enum segment_kind kind,
                 uint64_t data_bytes, bool active, struct summary *summary)
{
    struct path path;
    struct hint_reader *reader;
    hint_path(&path, x->place.path, file_id);
    int rc = hint_reader_new(&x->place, file_id, kind, data_bytes, &reader);
    if (rc == -ENOENT)
        return 0;
    if (rc == -EBADMSG)
        return bad_hint(x, path.text, active, "damaged, or not of the file as it is now");
    if (rc != 0)
        return inspect_unreadable(x, path.text, rc);
    x->files++;
    x->bytes += hint_reader_bytes(reader);
    rc = say_hint(x, path.text, reader);
    int same = rc == 0 && summary ? compare_hint(reader, summary) : 1;
    hint_reader_free(reader);
    if (rc == 0 && same == 0)
        rc = bad_hint(x, path.text, false, "it does not say what is in its data file");
    if (rc == 0 && same == -EBADMSG)
        rc = bad_hint(x, path.text, false, "damaged");
    else if (rc == 0 && same < 0)
        rc = inspect_unreadable(x, path.text, same);
    return rc;
}

/* ---- Merged files ------------------------------------------------------------------ */

struct merged_walk {
    struct inspection *x;
    const char *path;
    struct image *image;
    uint64_t file_id;
    bool details;
    struct manifest_file found; /* counted as MANIFEST does */
    struct summary summary;
    uint8_t last_key[LIMIT_KEY_BYTES];
    uint32_t last_size;
    bool broken; /* nothing can be said of what is behind */
};

static int take_merged_head(struct merged_walk *w, bool *ret_good)
{
    const uint8_t *data;
    size_t length;
    uint8_t cluster[STORE_CLUSTER_ID_BYTES];
    struct inspection *x = w->x;
    *ret_good = false;
    int rc = image_look(w->image, 0, SEGMENT_HEADER, &data, &length);
    if (rc != 0)
        return inspect_unreadable(x, w->path, rc);
    rc = merged_head_decode(data, length, cluster, &w->file_id);
    if (rc == -EPROTONOSUPPORT)
        return inspect_problem(x, w->path, 0, "of a newer format than this tierce knows");
    if (rc != 0)
        return inspect_problem(x, w->path, 0,
                               "its header is damaged: the node cannot be started");
    *ret_good = true;
    return inspect_cluster(x, w->path, cluster);
}

static void count_record(struct manifest_file *found, const struct store_record *record)
{
    if (found->records == 0 || record->timestamp_us < found->min_timestamp_us)
        found->min_timestamp_us = record->timestamp_us;
    found->max_timestamp_us = max_u64(found->max_timestamp_us, record->timestamp_us);
    found->records++;
    found->tombstones += !record->value;
}

static int take_record(struct merged_walk *w, const struct store_record *record,
                       uint64_t offset)
{
    struct inspection *x = w->x;
    int rc = 0;
    if (w->last_size > 0 &&
        key_compare(w->last_key, w->last_size, record->key, record->key_size) >= 0)
        rc = inspect_problem(x, w->path, offset,
                             "its key is not above that of the record before it");
    memcpy(w->last_key, record->key, record->key_size);
    w->last_size = record->key_size;
    count_record(&w->found, record);
    if (w->details)
        inspect_say_record(x, record, offset);
    else if (rc == 0 && summary_add(&w->summary, record, (uint32_t)offset) != 0)
        rc = inspect_unreadable(x, w->path, -ENOMEM);
    return rc ? rc : x->stopped;
}

/* Bytes of the record at the look's beginning, by its sizes; 0: those make no sense. */
static size_t record_length(const uint8_t *data, size_t length)
{
    if (length < STORE_RECORD_HEADER)
        return 0;
    uint32_t key_size = get_u32(data + 12), value_size = get_u32(data + 16);
    if (key_size == 0 || key_size > LIMIT_KEY_BYTES ||
        (value_size != STORE_TOMBSTONE && value_size > LIMIT_ENTRY_BYTES))
        return 0;
    return STORE_RECORD_HEADER + (size_t)key_size +
           (value_size == STORE_TOMBSTONE ? 0 : value_size);
}

/* A record that is not valid is stepped over, where its sizes can be right. */
static int walk_record(struct merged_walk *w, uint64_t *offset)
{
    const uint8_t *data;
    size_t length, whole;
    struct store_record record;
    int rc = image_look(w->image, *offset, STORE_RECORD_HEADER, &data, &length);
    if (rc != 0)
        return inspect_unreadable(w->x, w->path, rc);
    whole = record_length(data, length);
    w->broken = whole == 0 || whole > w->image->size - *offset;
    if (w->broken)
        return inspect_problem(w->x, w->path, *offset,
                               "damaged: no record begins here, and what is behind it "
                               "cannot be checked");
    rc = image_look(w->image, *offset, whole, &data, &length);
    if (rc != 0)
        return inspect_unreadable(w->x, w->path, rc);
    struct reader r = reader_of(data, length);
    uint64_t at = *offset;
    *offset += whole;
    if (store_record_read(&r, &record) != 0 || !reader_done(&r)) {
        w->found.records++;
        return inspect_problem(w->x, w->path, at, "this record is damaged");
    }
    return take_record(w, &record, at);
}

static int walk_merged(struct merged_walk *w)
{
    int rc = 0;
    w->found.bytes = w->image->size;
    for (uint64_t at = SEGMENT_HEADER; rc == 0 && at < w->image->size && !w->broken;)
        rc = walk_record(w, &at);
    return rc;
}

static int say_merged(struct merged_walk *w, const struct manifest_file *file)
{
    struct inspection *x = w->x;
    fact_begin(x, "merged");
    fact_text(x, "file", inspect_name(x, w->path));
    fact_number(x, "bytes", w->image->size);
    if (file) {
        fact_number(x, "records", file->records);
        fact_number(x, "tombstones", file->tombstones);
    } else {
        fact_id(x, "file_id", w->file_id);
    }
    return fact_end(x);
}

static int check_counts(struct merged_walk *w, const struct manifest_file *file)
{
    const struct manifest_file *found = &w->found;
    if (w->broken ||
        (found->records == file->records && found->tombstones == file->tombstones &&
         found->min_timestamp_us == file->min_timestamp_us &&
         found->max_timestamp_us == file->max_timestamp_us))
        return 0;
    return inspect_problem(
        w->x, w->path, UINT64_MAX,
        "it holds %llu records (%llu tombstones), and MANIFEST says "
        "%llu (%llu), or their timestamps differ",
        (unsigned long long)found->records, (unsigned long long)found->tombstones,
        (unsigned long long)file->records, (unsigned long long)file->tombstones);
}

static int walk_listed(struct merged_walk *w, const struct manifest_file *file)
{
    struct inspection *x = w->x;
    bool good, verify = x->options->verify;
    int rc = 0;
    if (w->image->size != file->bytes)
        rc = inspect_problem(
            x, w->path, UINT64_MAX, "of %llu bytes, and MANIFEST says %llu",
            (unsigned long long)w->image->size, (unsigned long long)file->bytes);
    if (rc == 0)
        rc = take_merged_head(w, &good);
    if (rc != 0 || !good)
        return rc;
    if (w->file_id != file->file_id)
        return inspect_problem(x, w->path, 32, "its header is that of file %016llx",
                               (unsigned long long)w->file_id);
    uint64_t before = x->problems;
    if (verify)
        rc = walk_merged(w);
    if (rc == 0 && verify)
        rc = check_counts(w, file);
    if (rc == 0)
        rc = say_merged(w, file);
    bool compare = verify && x->problems == before;
    return rc ? rc
              : inspect_hint(x, file->file_id, SEGMENT_MERGED, w->image->size, false,
                             compare ? &w->summary : NULL);
}

static int inspect_listed(struct inspection *x, const struct manifest_file *file)
{
    struct path path;
    struct image image;
    merged_path(&path, x->place.path, file->file_id);
    int rc = image_open(x, path.text, x->options->verify ? WINDOW_BYTES : SEGMENT_HEADER,
                        &image);
    if (rc == -ENOENT)
        return inspect_problem(x, path.text, UINT64_MAX,
                               "missing, and MANIFEST names it: the node cannot be "
                               "started");
    if (rc != 0)
        return inspect_unreadable(x, path.text, rc);
    struct merged_walk *w = calloc(1, sizeof(*w));
    rc = w ? 0 : inspect_unreadable(x, path.text, -ENOMEM);
    if (rc == 0) {
        *w = (struct merged_walk){.x = x, .path = path.text, .image = &image};
        x->files++;
        x->bytes += image.size;
        rc = walk_listed(w, file);
        summary_release(&w->summary);
    }
    free(w);
    image_close(&image);
    return rc;
}

static bool has_id(const struct file_id_list *list, uint64_t id)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->ids[i] == id)
            return true;
    return false;
}

static bool is_listed(const struct manifest *m, uint64_t id)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->files[i].file_id == id)
            return true;
    return false;
}

static int note_leftovers(struct inspection *x)
{
    struct path path;
    int rc = 0;
    for (size_t i = 0; i < x->merged.count && rc == 0; i++) {
        merged_path(&path, x->place.path, x->merged.ids[i]);
        if (!is_listed(&x->manifest, x->merged.ids[i]))
            rc = inspect_note(x, path.text,
                              "MANIFEST does not name it: the next start "
                              "removes it");
    }
    for (size_t i = 0; i < x->hints.count && rc == 0; i++) {
        uint64_t id = x->hints.ids[i];
        hint_path(&path, x->place.path, id);
        if (!has_id(&x->segments, id) && !is_listed(&x->manifest, id))
            rc = inspect_note(x, path.text,
                              "the file that it is of is gone: the next "
                              "start removes it");
    }
    return rc;
}

int inspect_merged(struct inspection *x)
{
    int rc = 0;
    for (size_t i = 0; i < x->manifest.count && rc == 0; i++)
        rc = inspect_listed(x, &x->manifest.files[i]);
    return rc ? rc : note_leftovers(x);
}

/* ---- One file ---------------------------------------------------------------------- */

int inspect_merged_file(struct inspection *x, const char *path, struct image *image)
{
    bool good;
    struct merged_walk *w = calloc(1, sizeof(*w));
    if (!w)
        return inspect_unreadable(x, path, -ENOMEM);
    *w = (struct merged_walk){.x = x, .path = path, .image = image, .details = true};
    int rc = take_merged_head(w, &good);
    if (rc == 0 && good)
        rc = say_merged(w, NULL);
    if (rc == 0 && good)
        rc = walk_merged(w);
    free(w);
    return rc;
}

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

static int say_hint_items(struct inspection *x, const char *path,
                          struct hint_reader *reader)
{
    struct hint_record record;
    struct store_entry entry;
    uint32_t offset;
    int rc;
    while ((rc = hint_reader_next(reader, &record)) > 0 && x->stopped == 0)
        say_hint_record(x, &record);
    while (rc >= 0 && x->stopped == 0 &&
           (rc = hint_reader_entry(reader, &entry, &offset)) > 0)
        inspect_say_entry(x, &entry, offset, false);
    if (rc < 0 && rc != -EBADMSG)
        return inspect_unreadable(x, path, rc);
    if (rc < 0)
        return inspect_problem(x, path, UINT64_MAX, "damaged behind what was shown");
    return x->stopped;
}

/* Its reader looks in the log directory, by the file's id. */
int inspect_hint_file(struct inspection *x, const char *path, struct image *image)
{
    const uint8_t *data;
    size_t length;
    struct hint_reader *reader;
    int rc = image_look(image, 0, SEGMENT_HEADER, &data, &length);
    if (rc != 0)
        return inspect_unreadable(x, path, rc);
    if (length < SEGMENT_HEADER || get_u32(data + 60) != crc32_of(0, data, 60))
        return inspect_problem(x, path, 0, "its header is damaged");
    memcpy(x->place.cluster_id, data + 16, STORE_CLUSTER_ID_BYTES);
    rc = hint_reader_new(&x->place, get_u64(data + 32),
                         (enum segment_kind)get_u32(data + 48), get_u64(data + 40),
                         &reader);
    if (rc == -EBADMSG)
        return inspect_problem(x, path, UINT64_MAX, "damaged");
    if (rc == -ENOENT)
        return store_fail(
            x->error, -EINVAL,
            "%s is the hint of file %016llx: it can be read only beside it, "
            "in log/ of a data directory",
            path, (unsigned long long)get_u64(data + 32));
    if (rc != 0)
        return inspect_unreadable(x, path, rc);
    rc = say_hint(x, path, reader);
    if (rc == 0)
        rc = say_hint_items(x, path, reader);
    hint_reader_free(reader);
    return rc;
}
