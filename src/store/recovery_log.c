/*
 * recovery_log.c - walks the entries that no hint tells of, and judges the position where
 * they end (the table is in recovery.c and docs/format.md).
 *
 * Nothing is ever searched for: an entry is where the one before it ends, where a segment
 * begins, or nowhere.
 */
#include "recovery.h"

/* ---- Walking ----------------------------------------------------------------------- */

int recovery_look(struct recovery *r, uint64_t offset, size_t length, const uint8_t **ret,
                  size_t *ret_length)
{
    uint64_t left = r->at_size - min_u64(offset, r->at_size);
    length = min_u64(length, left);
    bool inside = offset >= r->window_offset &&
                  offset + length <= r->window_offset + r->window.length;
    if (!inside) {
        size_t more = min_u64(left, length > WINDOW_BYTES ? length : WINDOW_BYTES);
        buf_clear(&r->window);
        if (more > 0 && !buf_extend(&r->window, more))
            return -ENOMEM;
        ssize_t n = read_full(r->s->io, r->at->fd, r->window.data, more, offset);
        if (n < 0)
            return (int)n;
        r->window.length = (size_t)n;
        r->window_offset = offset;
        length = min_u64(length, (uint64_t)n);
    }
    static const uint8_t nothing[1];
    *ret = length > 0 ? r->window.data + (offset - r->window_offset) : nothing;
    *ret_length = length;
    return 0;
}

enum found {
    FOUND_NOTHING,  /* no entry record that continues the chain */
    FOUND_BAD_BODY, /* one, and its length, but a data record is wrong */
    FOUND_ENTRY,
};

static int examine(struct recovery *r, uint64_t offset, const struct chain *after,
                   enum found *ret_found, struct store_entry *ret,
                   const uint8_t **ret_data)
{
    const uint8_t *data;
    size_t length;
    struct store_entry head;
    *ret_found = FOUND_NOTHING;
    int rc = recovery_look(r, offset, STORE_ENTRY_HEADER, &data, &length);
    if (rc != 0 || entry_head_decode(data, length, &head) != 0 ||
        !chain_continues(after, &head) || head.length > r->at_size - offset)
        return rc;
    rc = recovery_look(r, offset, head.length, &data, &length);
    if (rc != 0)
        return rc;
    *ret = head;
    *ret_data = data;
    *ret_found =
        store_entry_verify(data, length, &head) == 0 ? FOUND_ENTRY : FOUND_BAD_BODY;
    return 0;
}

int recovery_add_run(struct store *s, const struct store_entry *entry)
{
    if (s->run_count > 0 && s->runs[s->run_count - 1].term == entry->term) {
        s->runs[s->run_count - 1].last = entry->index;
        return 0;
    }
    /* Grown by doubling, at each power of two. */
    if ((s->run_count & (s->run_count - 1)) == 0) {
        size_t capacity = s->run_count ? 2 * s->run_count : 1;
        struct store_run *runs = realloc(s->runs, capacity * sizeof(*runs));
        if (!runs)
            return -ENOMEM;
        s->runs = runs;
    }
    s->runs[s->run_count++] =
        (struct store_run){.last = entry->index, .term = entry->term};
    return 0;
}

/* As soon as an entry is proven it is applied: few wait in memory. */
static int apply_proven(struct recovery *r)
{
    struct store *s = r->s;
    uint64_t proven = min_u64(max_u64(r->proven, r->commit), s->end.index);
    while (s->applied.index < proven) {
        struct store_entry entry;
        if (store_apply(s, s->applied.index + 1, &entry, NULL) != 0)
            return -ENOMEM;
        if (r->options->replay)
            r->options->replay(r->options->context, s, &entry);
    }
    return 0;
}

/* store_adopt adds to the last segment of the list, which is the one that is walked. */
static int adopt(struct recovery *r, const struct store_entry *entry, const uint8_t *data)
{
    struct store *s = r->s;
    struct store_bytes *bytes = store_bytes_of(data, entry->length);
    if (!bytes)
        return -ENOMEM;
    int rc = recovery_add_run(s, entry);
    if (rc == 0)
        rc = store_adopt(s, bytes, entry, false);
    store_bytes_unref(bytes);
    if (rc != 0)
        return rc;
    s->durable = s->end.index;
    r->commit = max_u64(r->commit, entry->commit);
    return apply_proven(r);
}

/* Each the highest seen: terms do not fall along a log. */
void recovery_claim(struct recovery *r, uint64_t index, uint64_t term)
{
    r->claim_index = max_u64(r->claim_index, index);
    r->claim_term = max_u64(r->claim_term, term);
}

/* An intact entry that is behind the end. */
static void note_later(struct recovery *r, const struct store_entry *entry)
{
    if (entry->commit > r->later_commit) {
        r->later_commit = entry->commit;
        r->later_index = entry->index;
    }
    recovery_claim(r, entry->index, entry->term);
}

static int walk(struct recovery *r, struct chain chain, bool bad)
{
    uint64_t offset = SEGMENT_HEADER;
    for (;;) {
        enum found found;
        struct store_entry entry;
        const uint8_t *data;
        int rc = examine(r, offset, &chain, &found, &entry, &data);
        if (rc != 0 || found == FOUND_NOTHING)
            return rc;
        bad = bad || found == FOUND_BAD_BODY;
        if (!bad) {
            rc = adopt(r, &entry, data);
            if (rc != 0)
                return rc;
            r->end_offset = offset + entry.length;
        } else if (found == FOUND_ENTRY) {
            note_later(r, &entry);
        }
        chain = chain_after(&entry);
        offset += entry.length;
    }
}

static void look_at(struct recovery *r, size_t i)
{
    r->at = r->files[i].segment;
    r->at_size = r->files[i].size;
    buf_clear(&r->window);
}

static int fail_walk(struct recovery *r, int rc)
{
    struct path path;
    if (rc == 0)
        return 0;
    segment_path(&path, r->s->path, r->at->file_id);
    return store_fail_call(r->error, rc, "read", path.text);
}

int recovery_walk(struct recovery *r)
{
    struct store *s = r->s;
    int rc = 0;
    for (size_t i = r->walked; rc == 0 && i < r->file_count; i++) {
        if (r->files[i].segment->first_index != s->end.index + 1)
            break;
        look_at(r, i);
        rc = store_reserve_segment(s);
        if (rc != 0)
            return fail_walk(r, rc);
        store_add_segment(s, segment_ref(r->at));
        r->walked = i + 1;
        r->end_offset = SEGMENT_HEADER;
        r->later_commit = r->later_index = 0;
        rc = walk(r, s->end, false);
    }
    if (rc != 0)
        return fail_walk(r, rc);
    if (r->walked == r->hinted && r->hinted > 0) {
        look_at(r, r->hinted - 1);
        r->end_offset = r->at->used;
    }
    return 0;
}

/* ---- Judging ----------------------------------------------------------------------- */

/* What a segment behind the end says. Its first entry has its place, whatever is before
 * it; that it continues what is missing nobody can check yet. */
static int look_beyond(struct recovery *r, size_t i)
{
    const uint8_t *data;
    size_t length;
    struct store_entry head;
    struct segment *segment = r->files[i].segment;
    uint64_t before_term = r->state.term;
    look_at(r, i);
    int rc = recovery_look(r, SEGMENT_HEADER, STORE_ENTRY_HEADER, &data, &length);
    if (rc != 0)
        return fail_walk(r, rc);
    if (entry_head_decode(data, length, &head) == 0 &&
        head.index == segment->first_index) {
        struct chain chain = {
            .index = head.index - 1, .term = head.prev_term, .crc = head.prev_crc};
        before_term = head.prev_term;
        segment->before = chain;
        segment->before_known = true;
        rc = walk(r, chain, true);
    }
    /* All before a segment was on disk when it was begun. */
    recovery_claim(r, segment->first_index - 1, before_term);
    segment->limit_bytes = max_u64(r->s->segment_bytes, r->files[i].size);
    return fail_walk(r, rc);
}

/* An entry that was committed here, whose term is known: none before it has a higher one,
 * whatever was taken for theirs. */
static void claim_committed(struct recovery *r, uint64_t index, uint64_t term)
{
    if (r->claim_index > index || term == 0)
        return;
    r->claim_index = index;
    r->claim_term = term;
}

/* A commit hint of an earlier tierce tells no term: it is at most that of the hard state.
 * A claim too high costs a vote, one too low an entry. */
static void complete_claim(struct recovery *r)
{
    const struct manifest *manifest = &r->s->manifest;
    claim_committed(r, manifest->applied_index, manifest->applied_term);
    claim_committed(r, r->hint, r->hint_term);
    if (r->claim_index < r->proven)
        recovery_claim(r, r->proven, r->state.term);
}

static void say_damage(struct recovery *r, const char *what, uint64_t proof)
{
    struct path path;
    if (r->walked > 0)
        segment_path(&path, r->s->path, r->files[r->walked - 1].segment->file_id);
    else
        log_directory_path(&path, r->s->path);
    store_fail(r->damage, -EBADMSG,
               "%s, offset %llu: entry %llu is missing or damaged, and was committed "
               "here: %s %llu; it is fetched from the other nodes, or, if there is none, "
               "restore the disk or a backup",
               path.text, (unsigned long long)r->end_offset,
               (unsigned long long)(r->s->end.index + 1), what,
               (unsigned long long)proof);
}

/* The position that ends the log. */
static void judge_end(struct recovery *r)
{
    const struct store *s = r->s;
    uint64_t index = s->end.index + 1;
    bool installed = s->end.index == s->base.index && r->file_count <= 1;
    r->hole = true;
    if (r->walked < r->file_count)
        say_damage(r, "a later segment begins with entry",
                   r->files[r->walked].segment->first_index);
    else if (r->hint >= index)
        say_damage(r, "the commit hint says", r->hint);
    else if (r->later_commit >= index)
        say_damage(r, "so says the intact entry", r->later_index);
    else if (s->manifest.applied_index >= index && !installed)
        say_damage(r, "what is merged was applied up to entry",
                   s->manifest.applied_index);
    else
        r->hole = r->proven >= index;
    r->proven = max_u64(r->proven, r->later_commit);
    if (r->hole)
        complete_claim(r);
}

/* How many bytes after the end are not zeros, up to the last that is not. */
static int measure_tail(struct recovery *r)
{
    uint64_t offset = r->end_offset;
    while (offset < r->at_size) {
        const uint8_t *data;
        size_t length;
        int rc = recovery_look(r, offset, WINDOW_BYTES, &data, &length);
        if (rc != 0 || length == 0)
            return rc;
        offset += length;
        if (all_zero(data, length))
            continue;
        while (data[length - 1] == 0)
            length--;
        r->tail_bytes =
            (uint64_t)(data - r->window.data) + r->window_offset + length - r->end_offset;
    }
    return 0;
}

static int check_order(struct recovery *r)
{
    for (size_t i = r->walked; i < r->file_count; i++) {
        uint64_t first = r->files[i].segment->first_index;
        uint64_t least =
            i == r->walked ? r->s->end.index + 1 : r->files[i - 1].segment->first_index;
        if (first >= least)
            continue;
        struct path path;
        segment_path(&path, r->s->path, r->files[i].segment->file_id);
        return store_fail(r->error, -EBADMSG,
                          "%s begins with entry %llu, which another segment "
                          "has; " STORE_REMEDY,
                          path.text, (unsigned long long)first);
    }
    return 0;
}

/* The log that runs ends before the hole; what is beyond stays until it is reached. */
static int keep_beyond(struct recovery *r)
{
    struct store *s = r->s;
    ensure(r->claim_index > s->end.index);
    s->claim_index = r->claim_index;
    s->claim_term = r->claim_term;
    s->behind = r->tail_bytes > 0;
    s->beyond = calloc(r->file_count + 1, sizeof(struct segment *));
    if (!s->beyond)
        return store_fail_call(r->error, -ENOMEM, "read the log in", s->path);
    for (size_t i = r->walked; i < r->file_count; i++)
        s->beyond[s->beyond_count++] = segment_ref(r->files[i].segment);
    damage_found_hole(s);
    return 0;
}

int recovery_judge(struct recovery *r)
{
    int rc = check_order(r);
    for (size_t i = r->walked; rc == 0 && i < r->file_count; i++)
        rc = look_beyond(r, i);
    if (rc != 0)
        return rc;
    judge_end(r);
    if (r->walked > 0) {
        look_at(r, r->walked - 1);
        rc = measure_tail(r);
    }
    if (rc != 0)
        return fail_walk(r, rc);
    if (apply_proven(r) != 0)
        return store_fail_call(r->error, -ENOMEM, "read the log in", r->s->path);
    if (r->hole)
        return keep_beyond(r);
    r->cut_bytes = r->tail_bytes;
    return 0;
}
