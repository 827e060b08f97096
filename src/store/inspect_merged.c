/*
 * inspect_merged.c - looking at merged files, by MANIFEST or alone.
 */
#include "inspect.h"

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
    rc =
        merged_head_decode(data, length, w->x->place.format_newest, cluster, &w->file_id);
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

size_t inspect_record_bytes(const uint8_t *data, size_t length)
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
    whole = inspect_record_bytes(data, length);
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

/* A hint that is missing or damaged is made from the file: not from a damaged one. */
static int judge_with_hint(struct merged_walk *w, uint64_t file_id, bool damaged)
{
    struct inspection *x = w->x;
    bool usable;
    int rc = inspect_hint(x, file_id, SEGMENT_MERGED, w->image->size, false,
                          damaged || !x->options->verify ? NULL : &w->summary, &usable);
    if (rc == 0 && damaged && !usable)
        rc =
            inspect_problem(x, w->path, UINT64_MAX,
                            "damaged, and its hint is missing or damaged too, and cannot "
                            "be made from it: the node cannot be started");
    return rc;
}

/* `file`: what MANIFEST says of it; NULL: MANIFEST is lost. */
static int walk_listed(struct merged_walk *w, uint64_t file_id,
                       const struct manifest_file *file)
{
    struct inspection *x = w->x;
    bool good, verify = x->options->verify;
    int rc = 0;
    if (file && w->image->size != file->bytes)
        rc = inspect_problem(
            x, w->path, UINT64_MAX, "of %llu bytes, and MANIFEST says %llu",
            (unsigned long long)w->image->size, (unsigned long long)file->bytes);
    if (rc == 0)
        rc = take_merged_head(w, &good);
    if (rc != 0 || !good)
        return rc;
    if (w->file_id != file_id)
        return inspect_problem(x, w->path, 32, "its header is that of file %016llx",
                               (unsigned long long)w->file_id);
    uint64_t before = x->problems;
    if (verify)
        rc = walk_merged(w);
    if (rc == 0 && verify && file)
        rc = check_counts(w, file);
    if (rc == 0)
        rc = say_merged(w, file);
    return rc ? rc : judge_with_hint(w, file_id, x->problems != before);
}

static int inspect_listed(struct inspection *x, uint64_t file_id,
                          const struct manifest_file *file)
{
    struct path path;
    struct image image;
    merged_path(&path, x->place.path, file_id);
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
        rc = walk_listed(w, file_id, file);
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
        rc = inspect_listed(x, x->manifest.files[i].file_id, &x->manifest.files[i]);
    if (!x->lost_manifest)
        return rc ? rc : note_leftovers(x);
    for (size_t i = 0; i < x->merged.count && rc == 0; i++)
        rc = inspect_listed(x, x->merged.ids[i], NULL);
    return rc;
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
