/*
 * recovery_hints.c - what hints tell: which entries the first segments hold, and what the
 * keydir was when the last of them was applied. Their values are not read.
 *
 * Everything is checked before the first entry is taken: a hint whose blocks turn out bad
 * is made again from its data file; where that is damaged too, the segment is walked.
 */
#include "recovery.h"

static bool is_sealed(const struct recovery *r, size_t i)
{
    return i + 1 < r->file_count;
}

/* What the file holds, if nothing of it is missing. */
static uint64_t last_of(const struct recovery *r, size_t i)
{
    return r->files[i + 1].segment->first_index - 1;
}

static int open_hint(struct recovery *r, size_t i, struct hint_reader **ret)
{
    const struct log_file *file = &r->files[i];
    int rc = hint_reader_new(r->s, file->segment->file_id, SEGMENT_LOG, file->size, ret);
    if (rc != 0)
        return rc;
    const struct hint_info *info = hint_reader_info(*ret);
    if (info->first_index == file->segment->first_index)
        return 0;
    hint_reader_free(*ret);
    *ret = NULL;
    return -EBADMSG;
}

/* Only what is applied gets a hint: one that is whole proves its segment committed. */
static int find_proven(struct recovery *r)
{
    for (size_t i = 0; i < r->file_count; i++) {
        struct hint_reader *hint = NULL;
        int rc = open_hint(r, i, &hint);
        if (rc == 0) {
            const struct chain *end = &hint_reader_info(hint)->end;
            r->proven = max_u64(r->proven, end->index);
            recovery_claim(r, end->index, end->term);
        }
        hint_reader_free(hint);
        if (rc != 0 && rc != -ENOENT && rc != -EBADMSG)
            return rc;
    }
    return 0;
}

/* Its entries continue the chain, and are all that the segment can hold. */
static int check_entries(struct recovery *r, size_t i, struct chain *end)
{
    struct hint_reader *hint = NULL;
    int rc = open_hint(r, i, &hint);
    struct store_entry entry;
    uint32_t offset;
    while (rc == 0 && (rc = hint_reader_entry(hint, &entry, &offset)) == 1) {
        rc = chain_continues(end, &entry) ? 0 : -EBADMSG;
        *end = chain_after(&entry);
    }
    if (rc == 0 && end->index != last_of(r, i))
        rc = -EBADMSG;
    hint_reader_free(hint);
    return rc;
}

static bool is_unusable(int rc)
{
    return rc == -ENOENT || rc == -EBADMSG;
}

/* Without room for the hint the segment is walked. */
static bool cannot_be_made(int rc)
{
    return rc == -EBADMSG || rc == -ENOSPC || rc == -EDQUOT;
}

static int rebuild(struct recovery *r, struct segment *segment, uint64_t bytes)
{
    uint64_t hint_bytes;
    int rc = hint_build(r->s, segment, bytes, &hint_bytes);
    if (rc == 0)
        r->hints_rebuilt++;
    return rc;
}

/* 0, and r->hinted grows; or -EBADMSG: this one must be walked. */
static int use_file(struct recovery *r, size_t i, struct chain *end)
{
    struct log_file *file = &r->files[i];
    struct chain from = *end;
    if (file->segment->first_index != end->index + 1)
        return -EBADMSG;
    int rc = check_entries(r, i, end);
    if (is_unusable(rc) && last_of(r, i) <= r->proven) {
        *end = from;
        rc = rebuild(r, file->segment, file->size);
        if (rc == 0)
            rc = check_entries(r, i, end);
    }
    if (is_unusable(rc) || cannot_be_made(rc))
        return -EBADMSG;
    file->end = *end;
    r->hinted += rc == 0;
    return rc;
}

/* ---- The keydir -------------------------------------------------------------------- */

struct loading {
    struct load_source *sources; /* merged files, then hinted segments */
    bool *rebuilt;
    size_t count;
};

static void close_hints(struct loading *l)
{
    for (size_t i = 0; i < l->count; i++) {
        hint_reader_free(l->sources[i].hint);
        l->sources[i].hint = NULL;
    }
}

static uint64_t bytes_of(const struct recovery *r, size_t i)
{
    return i < r->s->merged_count ? r->s->manifest.files[i].bytes
                                  : r->files[i - r->s->merged_count].size;
}

static struct segment *segment_at(const struct recovery *r, size_t i)
{
    return i < r->s->merged_count ? r->s->merged[i]
                                  : r->files[i - r->s->merged_count].segment;
}

static int open_hints(struct recovery *r, struct loading *l, size_t *ret_bad)
{
    l->count = r->s->merged_count + r->hinted;
    for (size_t i = 0; i < l->count; i++) {
        struct load_source *source = &l->sources[i];
        source->segment = segment_at(r, i);
        int rc = hint_reader_new(r->s, source->segment->file_id, source->segment->kind,
                                 bytes_of(r, i), &source->hint);
        if (rc != 0) {
            *ret_bad = i;
            return is_unusable(rc) ? -EBADMSG : rc;
        }
        source->segment->hint_bytes = hint_reader_bytes(source->hint);
    }
    return 0;
}

/* A hint that cannot be used is made again, once; a segment's that cannot be made is left
 * out, with those behind it: they are walked. */
static int mend(struct recovery *r, struct loading *l, size_t bad)
{
    struct segment *segment = segment_at(r, bad);
    int rc = l->rebuilt[bad] ? -EBADMSG : rebuild(r, segment, bytes_of(r, bad));
    l->rebuilt[bad] = true;
    if (rc == 0)
        return 0;
    if (bad >= r->s->merged_count && cannot_be_made(rc)) {
        r->hinted = bad - r->s->merged_count;
        return 0;
    }
    struct path path;
    merged_path(&path, r->s->path, segment->file_id);
    if (rc == -EBADMSG)
        return store_fail(r->error, rc,
                          "%s: neither its hint nor all of its records are "
                          "intact; " STORE_REMEDY,
                          path.text);
    return store_fail_call(r->error, rc, "make the hint of", path.text);
}

static int load_once(struct recovery *r, struct loading *l, size_t *ret_bad)
{
    struct store *s = r->s;
    keydir_free(s->keydir);
    s->keydir = keydir_new(s->slots);
    if (!s->keydir)
        return -ENOMEM;
    int rc = open_hints(r, l, ret_bad);
    if (rc == 0)
        rc = keydir_load_all(s->keydir, l->sources, l->count, ret_bad);
    close_hints(l);
    return rc;
}

static int load_keydir(struct recovery *r)
{
    size_t most = r->s->merged_count + r->hinted;
    struct loading l = {.sources = calloc(most + 1, sizeof(*l.sources)),
                        .rebuilt = calloc(most + 1, sizeof(*l.rebuilt))};
    int rc = l.sources && l.rebuilt ? -EBADMSG : -ENOMEM;
    bool said = false; /* the error has its words */
    while (rc == -EBADMSG) {
        size_t bad = 0;
        rc = load_once(r, &l, &bad);
        if (rc != -EBADMSG)
            break;
        int mended = mend(r, &l, bad);
        said = mended != 0;
        if (said) {
            rc = mended;
            break;
        }
    }
    if (rc != 0 && !said)
        store_fail_call(r->error, rc, "read the hints in", r->s->path);
    free(l.sources);
    free(l.rebuilt);
    return rc;
}

/* ---- The entries ------------------------------------------------------------------- */

static int take_entry(struct recovery *r, struct segment *segment,
                      const struct store_entry *entry, uint32_t offset)
{
    struct store *s = r->s;
    if (segment_reserve(segment, 1) != 0 || recovery_add_run(s, entry) != 0)
        return -ENOMEM;
    segment_add(segment, offset, entry->length);
    s->end = s->applied = chain_after(entry);
    s->durable = s->end.index;
    if (r->options->replay)
        r->options->replay(r->options->context, s, entry);
    return 0;
}

static int take_file(struct recovery *r, size_t i)
{
    struct log_file *file = &r->files[i];
    struct segment *segment = file->segment;
    if (store_reserve_segment(r->s) != 0)
        return -ENOMEM;
    store_add_segment(r->s, segment_ref(segment));
    struct hint_reader *hint = NULL;
    struct store_entry entry;
    uint32_t offset;
    int rc = open_hint(r, i, &hint);
    while (rc == 0 && (rc = hint_reader_entry(hint, &entry, &offset)) == 1)
        rc = take_entry(r, segment, &entry, offset);
    hint_reader_free(hint);
    r->hints_used += rc == 0;
    return rc;
}

static int give_state(struct recovery *r)
{
    const struct manifest *manifest = &r->s->manifest;
    if (manifest->applied_index == 0 || !r->options->load_state)
        return 0;
    int rc = r->options->load_state(r->options->context, manifest->state,
                                    manifest->state_size);
    if (rc == 0)
        return 0;
    struct path path;
    manifest_path(&path, r->s->path, "");
    if (rc == -EBADMSG)
        return store_fail_format(r->error, rc, path.text,
                                 "the members and sessions in it are not");
    return store_fail_call(r->error, rc, "use", path.text);
}

int recovery_use_hints(struct recovery *r)
{
    int rc = find_proven(r);
    struct chain end = r->s->base;
    for (size_t i = 0; rc == 0 && is_sealed(r, i); i++)
        rc = use_file(r, i, &end);
    if (rc != 0 && rc != -EBADMSG)
        return store_fail_call(r->error, rc, "read the hints in", r->s->path);
    rc = load_keydir(r);
    if (rc == 0)
        rc = give_state(r);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < r->hinted; i++)
        rc = take_file(r, i);
    r->walked = r->hinted;
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "read the hints in", r->s->path);
}
