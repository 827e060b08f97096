/*
 * inspect_log.c - looking at segments: entries, the chain over all of them, and whether
 * an end that is not intact is torn (the next start cuts it) or damaged (G6): damaged
 * where commit.hint, the manifest, a later segment or a later entry proves that it was
 * committed.
 */
#include "inspect.h"

enum { HEAD_WINDOW = 4096 };

/* One segment being walked; `end` goes on from one to the next. */
struct walk {
    struct inspection *x;
    const char *path;
    uint64_t file_id;
    struct image *image;
    struct segment_head head;
    bool whole;          /* data records are read too */
    bool details;        /* and told */
    bool alone;          /* nothing is known of the rest of the log */
    bool last;           /* no segment follows; else: */
    uint64_t next_first; /* the first index of the one that does */
    bool begun;          /* it is not the first */
    bool chained;        /* `end` is known: else the first entry says what is before it */
    struct chain end;
    uint64_t offset; /* where the walk stands */
    uint64_t entries, records;
    /* A bad entry of the last segment that nothing proves yet: */
    bool pending;
    uint64_t pending_index, pending_offset;
    uint64_t later_commit; /* the highest that an entry behind it names */
    bool told_term;
    struct summary *summary; /* of the segment; NULL: none is made */
};

/* ---- What is told ------------------------------------------------------------------ */

void inspect_say_record(struct inspection *x, const struct store_record *record,
                        uint64_t offset)
{
    fact_begin(x, "record");
    fact_number(x, "offset", offset);
    fact_number(x, "timestamp_us", record->timestamp_us);
    fact_bytes(x, "key", record->key, record->key_size);
    if (!record->value)
        fact_flag(x, "tombstone", true);
    else
        fact_number(x, "value_size", record->value_size);
    if (record->value && record->value_size <= LIMIT_KEYDIR_INLINE_BYTES)
        fact_bytes(x, "value", record->value, record->value_size);
    fact_end(x);
}

void inspect_say_entry(struct inspection *x, const struct store_entry *e, uint64_t offset,
                       bool whole)
{
    fact_begin(x, "entry");
    fact_number(x, "offset", offset);
    fact_number(x, "index", e->index);
    fact_number(x, "term", e->term);
    fact_number(x, "timestamp_us", e->timestamp_us);
    fact_number(x, "length", e->length);
    fact_number(x, "records", e->record_count);
    fact_number(x, "session", e->session);
    fact_number(x, "request", e->request);
    fact_hex(x, "result", e->result, sizeof(e->result));
    fact_id(x, "crc", e->crc);
    if (whole) {
        fact_number(x, "commit", e->commit);
        fact_number(x, "prev_term", e->prev_term);
        fact_id(x, "prev_crc", e->prev_crc);
    }
    fact_end(x);
}

static int say_segment(struct walk *w)
{
    struct inspection *x = w->x;
    fact_begin(x, "segment");
    fact_text(x, "file", inspect_name(x, w->path));
    fact_number(x, "bytes", w->image->size);
    fact_number(x, "first_index", w->head.first_index);
    if (w->alone) {
        fact_id(x, "file_id", w->head.file_id);
        fact_hex(x, "cluster", w->head.cluster_id, STORE_CLUSTER_ID_BYTES);
        return fact_end(x);
    }
    fact_number(x, "last_index", w->end.index);
    fact_number(x, "last_term", w->end.term);
    fact_number(x, "entries", w->entries);
    if (w->whole)
        fact_number(x, "records", w->records);
    fact_number(x, "used", w->offset);
    fact_text(x, "state", w->last ? "active" : "sealed");
    return fact_end(x);
}

/* ---- Judging ----------------------------------------------------------------------- */

/* What proves that entry `index` was committed, though it is not intact; NULL: nothing
 * that is known now. */
static const char *proof_of(const struct walk *w, uint64_t index)
{
    if (w->x->commit >= index)
        return "commit.hint says that it was committed";
    if (w->x->manifest.applied_index >= index)
        return "MANIFEST says that it was committed";
    return w->last ? NULL : "the log goes on in the next segment";
}

/* The first record that is not valid, of an entry that is not. */
static uint64_t bad_record_offset(const struct walk *w, const uint8_t *data,
                                  const struct store_entry *e)
{
    struct reader r =
        reader_of(data + STORE_ENTRY_HEADER, e->length - STORE_ENTRY_HEADER);
    struct store_record record;
    const uint8_t *at = r.at;
    while (reader_left(&r) > 0 && store_record_read(&r, &record) == 0)
        at = r.at;
    return w->offset + (uint64_t)(at - data);
}

/* Its entry record is good: the walk can go on behind it. */
static int judge_bad_body(struct walk *w, const struct store_entry *e,
                          const uint8_t *data)
{
    uint64_t offset = bad_record_offset(w, data, e);
    const char *proof =
        w->alone ? "it may be torn where it is the log's end" : proof_of(w, e->index);
    if (proof)
        return inspect_problem(w->x, w->path, offset,
                               "a record of entry %llu is damaged; %s",
                               (unsigned long long)e->index, proof);
    if (!w->pending) {
        w->pending = true;
        w->pending_index = e->index;
        w->pending_offset = offset;
    }
    return 0;
}

static int judge_tail(struct walk *w)
{
    struct inspection *x = w->x;
    bool zero = true;
    uint64_t next = w->end.index + 1;
    int rc = w->whole || w->last ? image_is_zero(w->image, w->offset, &zero) : 0;
    if (rc != 0)
        return inspect_unreadable(x, w->path, rc);
    if (w->alone)
        return zero
                   ? 0
                   : inspect_problem(x, w->path, w->offset,
                                     "no entry here that continues the chain after entry "
                                     "%llu",
                                     (unsigned long long)w->end.index);
    if (!w->last && w->next_first == next)
        return zero ? 0
                    : inspect_note(x, w->path, "bytes after its last entry, at %llu",
                                   (unsigned long long)w->offset);
    const char *proof = proof_of(w, next);
    if (proof)
        return inspect_problem(x, w->path, w->offset,
                               "entry %llu is missing or damaged here; %s",
                               (unsigned long long)next, proof);
    return zero
               ? 0
               : inspect_note(x, w->path,
                              "torn after entry %llu: what is from offset %llu on is cut "
                              "at the next start",
                              (unsigned long long)w->end.index,
                              (unsigned long long)w->offset);
}

/* Of the last segment, when all that is behind it has been seen. */
static int judge_pending(struct walk *w)
{
    if (!w->pending)
        return 0;
    if (w->later_commit >= w->pending_index)
        return inspect_problem(
            w->x, w->path, w->pending_offset,
            "a record of entry %llu is damaged; a later entry says that "
            "it was committed",
            (unsigned long long)w->pending_index);
    return inspect_note(w->x, w->path,
                        "torn in entry %llu, at %llu: it and what is behind it is cut at "
                        "the next start",
                        (unsigned long long)w->pending_index,
                        (unsigned long long)w->pending_offset);
}

static int judge_commit_term(struct walk *w, const struct store_entry *e)
{
    const struct inspection *x = w->x;
    if (w->alone || e->index != x->commit || x->commit_term == 0 ||
        e->term == x->commit_term)
        return 0;
    return inspect_problem(
        w->x, w->path, w->offset,
        "entry %llu is of term %llu, and commit.hint says %llu: one of "
        "them is an old one",
        (unsigned long long)e->index, (unsigned long long)e->term,
        (unsigned long long)x->commit_term);
}

static int judge_term(struct walk *w, const struct store_entry *e)
{
    if (w->alone || w->told_term || !w->x->has_state || e->term <= w->x->state_term)
        return 0;
    w->told_term = true;
    return inspect_problem(w->x, w->path, w->offset,
                           "entry %llu is of term %llu, but raft.state knows of none "
                           "above %llu: it is an old one",
                           (unsigned long long)e->index, (unsigned long long)e->term,
                           (unsigned long long)w->x->state_term);
}

/* ---- Walking ----------------------------------------------------------------------- */

static int each_record(void *arg, const struct store_record *record, uint32_t offset)
{
    struct walk *w = arg;
    w->records++;
    if (w->details)
        inspect_say_record(w->x, record, w->offset + offset);
    if (w->summary && summary_add(w->summary, record, (uint32_t)w->offset + offset) != 0)
        return inspect_unreadable(w->x, w->path, -ENOMEM);
    return w->x->stopped;
}

static bool continues(struct walk *w, const struct store_entry *e)
{
    if (!w->chained) {
        w->end = (struct chain){
            .index = w->head.first_index - 1, .term = e->prev_term, .crc = e->prev_crc};
        w->chained = true;
    }
    return chain_continues(&w->end, e);
}

static int take_body(struct walk *w, const struct store_entry *e)
{
    const uint8_t *data;
    size_t length;
    struct store_entry same;
    int rc = image_look(w->image, w->offset, e->length, &data, &length);
    if (rc != 0)
        return inspect_unreadable(w->x, w->path, rc);
    if (length == e->length && store_entry_verify(data, length, &same) == 0)
        return store_entry_each(data, length, each_record, w);
    return length == e->length ? judge_bad_body(w, e, data) : 0;
}

/* *ret_more: there was an entry, at least its head. */
static int walk_entry(struct walk *w, bool *ret_more)
{
    const uint8_t *data;
    size_t length;
    struct store_entry e;
    *ret_more = false;
    int rc = image_look(w->image, w->offset, STORE_ENTRY_HEADER, &data, &length);
    if (rc != 0)
        return inspect_unreadable(w->x, w->path, rc);
    if (entry_head_decode(data, length, &e) != 0 || !continues(w, &e) ||
        e.length > w->image->size - w->offset)
        return 0;
    if (w->pending)
        w->later_commit = max_u64(w->later_commit, e.commit);
    if (w->details)
        inspect_say_entry(w->x, &e, w->offset, true);
    rc = judge_term(w, &e);
    if (rc == 0)
        rc = judge_commit_term(w, &e);
    if (rc == 0 && w->summary &&
        summary_add_entry(w->summary, &e, (uint32_t)w->offset) != 0)
        rc = inspect_unreadable(w->x, w->path, -ENOMEM);
    if (rc == 0 && w->whole)
        rc = take_body(w, &e);
    w->end = chain_after(&e);
    w->offset += e.length;
    w->entries++;
    *ret_more = true;
    return rc ? rc : w->x->stopped;
}

/* *ret_good: the header is, and stands in w->head. */
static int take_head(struct walk *w, bool *ret_good)
{
    const uint8_t *data;
    size_t length;
    int rc = image_look(w->image, 0, SEGMENT_HEADER, &data, &length);
    *ret_good = false;
    if (rc != 0)
        return inspect_unreadable(w->x, w->path, rc);
    rc = segment_head_decode(data, length, w->x->place.format_newest, &w->head);
    if (rc == -EPROTONOSUPPORT)
        return inspect_problem(w->x, w->path, 0,
                               "of a newer format than this tierce knows");
    if (rc != 0)
        return inspect_problem(w->x, w->path, 0,
                               "its header is damaged: the node cannot be started");
    *ret_good = true;
    return inspect_cluster(w->x, w->path, w->head.cluster_id);
}

static int walk_entries(struct walk *w)
{
    int rc = 0;
    w->offset = SEGMENT_HEADER;
    for (bool more = true; rc == 0 && more;)
        rc = walk_entry(w, &more);
    if (rc == 0)
        rc = judge_pending(w);
    if (rc == 0 && !w->pending)
        rc = judge_tail(w);
    return rc;
}

/* ---- The log ----------------------------------------------------------------------- */

int inspect_first_index(struct inspection *x, uint64_t file_id, uint64_t *ret)
{
    struct path path;
    struct image image;
    const uint8_t *data;
    size_t length;
    struct segment_head head;
    segment_path(&path, x->place.path, file_id);
    int rc = image_open(x, path.text, SEGMENT_HEADER, &image);
    if (rc != 0)
        return rc;
    rc = image_look(&image, 0, SEGMENT_HEADER, &data, &length);
    if (rc == 0)
        rc = segment_head_decode(data, length, x->place.format_newest, &head);
    image_close(&image);
    if (rc == 0)
        *ret = head.first_index;
    return rc;
}

/* Whether this segment begins where the one before it, or what is merged, ends. */
static int check_place(struct walk *w)
{
    struct inspection *x = w->x;
    if (w->head.file_id != w->file_id)
        return inspect_problem(x, w->path, 40, "its header is that of file %016llx",
                               (unsigned long long)w->head.file_id);
    if (w->head.first_index == w->end.index + 1)
        return 0;
    w->chained = false;
    if (w->begun)
        return 0; /* it was told where the log breaks off */
    return inspect_problem(x, w->path, 32,
                           "the log begins with entry %llu, and what is merged ends with "
                           "%llu",
                           (unsigned long long)w->head.first_index,
                           (unsigned long long)w->end.index);
}

/* Where its hint says all that is to be shown, the segment is not read. */
static bool skip_by_hint(struct walk *w)
{
    struct hint_reader *reader;
    if (w->whole || w->last || !w->chained ||
        hint_reader_new(&w->x->place, w->file_id, SEGMENT_LOG, w->image->size, &reader) !=
            0)
        return false;
    const struct hint_info *info = hint_reader_info(reader);
    bool fits = info->first_index == w->head.first_index && info->entries > 0 &&
                info->prev_term == w->end.term && info->prev_crc == w->end.crc;
    if (fits) {
        w->end = info->end;
        w->entries = info->entries;
        w->offset = info->data_bytes;
    }
    hint_reader_free(reader);
    return fits;
}

static int walk_segment(struct walk *w)
{
    struct inspection *x = w->x;
    bool good;
    int rc = take_head(w, &good);
    if (rc == 0 && good)
        rc = check_place(w);
    w->begun = true;
    if (rc != 0 || !good)
        return rc;
    uint64_t before = x->problems;
    rc = skip_by_hint(w) ? judge_tail(w) : walk_entries(w);
    if (rc == 0)
        rc = say_segment(w);
    bool compare = w->whole && x->problems == before && !w->pending;
    bool usable;
    return rc ? rc
              : inspect_hint(x, w->file_id, SEGMENT_LOG, w->image->size, w->last,
                             compare ? w->summary : NULL, &usable);
}

static int inspect_segment(struct walk *w, size_t i)
{
    struct inspection *x = w->x;
    struct path path;
    struct image image;
    w->file_id = x->segments.ids[i];
    w->last = i + 1 == x->segments.count;
    w->next_first = 0;
    w->entries = w->records = 0;
    segment_path(&path, x->place.path, w->file_id);
    w->path = path.text;
    if (!w->last && inspect_first_index(x, x->segments.ids[i + 1], &w->next_first) != 0)
        w->next_first = 0; /* that one's own problem */
    int rc = image_open(x, path.text, w->whole ? WINDOW_BYTES : HEAD_WINDOW, &image);
    if (rc != 0)
        return inspect_unreadable(x, path.text, rc);
    struct summary summary = {0};
    w->image = &image;
    w->summary = w->whole ? &summary : NULL;
    x->files++;
    x->bytes += image.size;
    rc = walk_segment(w);
    summary_release(&summary);
    image_close(&image);
    return rc;
}

int inspect_log(struct inspection *x)
{
    struct walk w = {.x = x,
                     .whole = x->options->verify,
                     .chained = !x->lost_manifest, /* where the log begins is not known */
                     .begun = x->lost_manifest,
                     .end = x->manifest.merged};
    int rc = 0;
    for (size_t i = 0; i < x->segments.count && rc == 0; i++) {
        struct path path;
        segment_path(&path, x->place.path, x->segments.ids[i]);
        if (x->segments.ids[i] < x->manifest.first_file)
            rc = inspect_note(x, path.text,
                              "of before the last merge: the next start "
                              "removes it");
        else
            rc = inspect_segment(&w, i);
    }
    return rc;
}

int inspect_segment_file(struct inspection *x, const char *path, struct image *image)
{
    struct walk w = {.x = x,
                     .path = path,
                     .image = image,
                     .whole = true,
                     .details = true,
                     .alone = true,
                     .last = true};
    bool good;
    int rc = take_head(&w, &good);
    if (rc == 0 && good)
        rc = say_segment(&w);
    if (rc == 0 && good)
        rc = walk_entries(&w);
    return rc;
}
