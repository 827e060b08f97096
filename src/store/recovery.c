/*
 * recovery.c - from the files to the state in memory. A decision table (G6):
 *
 *   the log ends at a position (the first that holds no intact entry of the chain), and
 * ...
 *   ... the commit hint is at or beyond its index              damaged
 *   ... it is not in the last segment                          damaged
 *   ... an entry behind it, reached through intact lengths,
 *       says that its index was committed                      damaged
 *   ... none of these                                          torn, or simply the end:
 * cut
 *
 * Damaged: an error, and no byte is changed. Else everything after the position is cut
 * off, and what stays is synced before it counts (G4). Nothing is ever searched for: an
 * entry is where the one before it ends, or nowhere.
 */
#include "store_internal.h"

#include <fcntl.h>

#define REMEDY STORE_REMEDY

struct id_list {
    uint64_t *ids;
    size_t count, capacity;
};

struct recovery {
    struct store *s;
    const struct store_options *options;
    char *error;
    struct hard_state state;
    int state_slot;
    uint64_t hint;
    struct id_list segments, spares;
    uint64_t *sizes; /* of the segment files */
    uint64_t commit; /* the highest an intact entry names */
    /* A window on the segment that is being walked. */
    struct segment *at;
    uint64_t at_size;
    struct buf window;
    uint64_t window_offset;
    /* The end of the last segment: */
    uint64_t end_offset;
    uint64_t later_commit; /* the highest that an entry behind a bad one names, */
    uint64_t later_index;  /* and which one that is */
    uint64_t cut_bytes;
};

/* ---- Small files ------------------------------------------------------------------- */

static int fail_format(struct recovery *r, int rc, const char *path, const char *what)
{
    if (rc == -EPROTONOSUPPORT || rc == -EBADMSG)
        return store_fail_format(r->error, rc, path, what);
    return store_fail_call(r->error, rc, "read", path);
}

static int check_cluster(struct recovery *r, const uint8_t *id, const char *path)
{
    return store_fail_cluster(r->error, r->s, id, path);
}

static int no_hard_state(struct recovery *r, const char *path)
{
    if (r->segments.count == 0)
        return store_fail(r->error, -ENOENT,
                          "no store in %s: make one with tierce init or tierce join",
                          r->s->path);
    return store_fail(r->error, -EBADMSG, "%s is missing beside a log; " REMEDY, path);
}

static int load_hard_state(struct recovery *r)
{
    struct store *s = r->s;
    struct path path;
    hard_state_path(&path, s->path, "");
    s->state_fd = s->io->open(s->io->context, path.text, O_RDWR, 0);
    if (s->state_fd == -ENOENT || s->state_fd == -ENOTDIR)
        return no_hard_state(r, path.text);
    if (s->state_fd < 0)
        return store_fail_call(r->error, s->state_fd, "open", path.text);
    int rc = hard_state_read(s->io, s->state_fd, &r->state, &r->state_slot);
    if (rc != 0)
        return fail_format(r, rc, path.text, "neither copy of term and vote is intact");
    return check_cluster(r, r->state.cluster_id, path.text);
}

/* A hint may be lost, never wrong: none is as good as 0. */
static int load_commit_hint(struct recovery *r)
{
    struct store *s = r->s;
    struct path path;
    commit_hint_path(&path, s->path);
    s->hint_fd = s->io->open(s->io->context, path.text, O_RDWR, 0);
    if (s->hint_fd == -ENOENT)
        return 0;
    if (s->hint_fd < 0)
        return store_fail_call(r->error, s->hint_fd, "open", path.text);
    struct commit_hint hint;
    int rc = commit_hint_read(s->io, s->hint_fd, &hint, &s->hint_slot);
    if (rc == -EBADMSG)
        return 0;
    if (rc != 0)
        return fail_format(r, rc, path.text, "");
    r->hint = hint.commit;
    return check_cluster(r, hint.cluster_id, path.text);
}

/* ---- The list of files ------------------------------------------------------------- */

static int id_list_add(struct id_list *list, uint64_t id)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 16;
        uint64_t *ids = realloc(list->ids, capacity * sizeof(*ids));
        if (!ids)
            return -ENOMEM;
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return 0;
}

static int sort_name(void *arg, const char *name)
{
    struct recovery *r = arg;
    char digits[17];
    uint8_t bytes[8];
    if (strlen(name) != 20)
        return 0;
    memcpy(digits, name, 16);
    digits[16] = 0;
    if (hex_parse(digits, bytes, sizeof(bytes)) != 0)
        return 0;
    uint64_t id = get_be64(bytes);
    struct id_list *list = strcmp(name + 16, ".seg") == 0   ? &r->segments
                           : strcmp(name + 16, ".new") == 0 ? &r->spares
                                                            : NULL;
    if (!list || id == UINT64_MAX)
        return 0;
    r->s->next_file_id = max_u64(r->s->next_file_id, id + 1);
    return id_list_add(list, id);
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* *ret_missing: there is no log directory. */
static int list_log(struct recovery *r, bool *ret_missing)
{
    struct path path;
    log_directory_path(&path, r->s->path);
    int rc = r->s->io->list(r->s->io->context, path.text, sort_name, r);
    *ret_missing = rc == -ENOENT || rc == -ENOTDIR;
    if (*ret_missing)
        return 0;
    if (rc != 0)
        return store_fail_call(r->error, rc, "list", path.text);
    if (r->segments.count > 0)
        qsort(r->segments.ids, r->segments.count, sizeof(uint64_t), compare_ids);
    r->sizes = calloc(r->segments.count + 1, sizeof(uint64_t));
    return r->sizes ? 0 : store_fail_call(r->error, -ENOMEM, "read", path.text);
}

/* ---- Opening segments -------------------------------------------------------------- */

/* The header is synced before the file gets its name: a bad one was never torn. */
static int read_segment_head(struct recovery *r, struct segment *segment,
                             const char *path)
{
    uint8_t bytes[SLOT_STRIDE];
    struct segment_head head;
    ssize_t n = read_full(r->s->io, segment->fd, bytes, sizeof(bytes), 0);
    if (n < 0)
        return store_fail_call(r->error, (int)n, "read", path);
    int rc = segment_head_decode(bytes, (size_t)n, &head);
    if (rc != 0)
        return fail_format(r, rc, path, "its header is damaged");
    rc = check_cluster(r, head.cluster_id, path);
    if (rc != 0)
        return rc;
    if (head.file_id != segment->file_id)
        return store_fail(r->error, -EBADMSG,
                          "%s: its header is that of file %016llx; " REMEDY, path,
                          (unsigned long long)head.file_id);
    segment->first_index = head.first_index;
    return 0;
}

static int open_segment(struct recovery *r, size_t i)
{
    struct store *s = r->s;
    struct path path;
    segment_path(&path, s->path, r->segments.ids[i]);
    struct segment *segment = segment_new(s, SEGMENT_LOG, r->segments.ids[i]);
    if (!segment || store_reserve_segment(s) != 0) {
        segment_unref(segment);
        return store_fail_call(r->error, -ENOMEM, "open", path.text);
    }
    store_add_segment(s, segment);
    segment->fd = s->io->open(s->io->context, path.text, O_RDWR, 0);
    if (segment->fd < 0)
        return store_fail_call(r->error, segment->fd, "open", path.text);
    int rc = s->io->size(s->io->context, segment->fd, &r->sizes[i]);
    if (rc != 0)
        return store_fail_call(r->error, rc, "look at", path.text);
    if (r->sizes[i] > UINT32_MAX)
        return store_fail(r->error, -EBADMSG, "%s: larger than a segment can be; " REMEDY,
                          path.text);
    return read_segment_head(r, segment, path.text);
}

/* ---- Walking ----------------------------------------------------------------------- */

/* At least `length` bytes at `offset`, unless the file ends before. */
static int look(struct recovery *r, uint64_t offset, size_t length, const uint8_t **ret,
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
    int rc = look(r, offset, STORE_ENTRY_HEADER, &data, &length);
    if (rc != 0 || entry_head_decode(data, length, &head) != 0 ||
        !chain_continues(after, &head) || head.length > r->at_size - offset)
        return rc;
    rc = look(r, offset, head.length, &data, &length);
    if (rc != 0)
        return rc;
    *ret = head;
    *ret_data = data;
    *ret_found =
        store_entry_verify(data, length, &head) == 0 ? FOUND_ENTRY : FOUND_BAD_BODY;
    return 0;
}

static int add_run(struct store *s, const struct store_entry *entry)
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
    uint64_t proven = min_u64(max_u64(r->hint, r->commit), s->end.index);
    while (s->applied.index < proven) {
        struct store_entry entry;
        if (store_apply(s, s->applied.index + 1, &entry, NULL) != 0)
            return -ENOMEM;
        if (r->options->replay)
            r->options->replay(r->options->context, &entry);
    }
    return 0;
}

/* store_adopt adds to the last segment of the list, so the list ends with the one that is
 * being walked. */
static int adopt(struct recovery *r, const struct store_entry *entry, const uint8_t *data)
{
    struct store *s = r->s;
    struct store_bytes *bytes = store_bytes_of(data, entry->length);
    if (!bytes)
        return -ENOMEM;
    int rc = add_run(s, entry);
    if (rc == 0)
        rc = store_adopt(s, bytes, entry, false);
    store_bytes_unref(bytes);
    if (rc != 0)
        return rc;
    s->durable = s->end.index;
    r->commit = max_u64(r->commit, entry->commit);
    return apply_proven(r);
}

static int walk(struct recovery *r)
{
    struct chain chain = r->s->end;
    uint64_t offset = SEGMENT_HEADER;
    bool bad = false;
    r->end_offset = offset;
    r->later_commit = r->later_index = 0;
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
        } else if (found == FOUND_ENTRY && entry.commit > r->later_commit) {
            r->later_commit = entry.commit;
            r->later_index = entry.index;
        }
        chain = chain_after(&entry);
        offset += entry.length;
    }
}

/* ---- Judging ----------------------------------------------------------------------- */

static int fail_damage(struct recovery *r, const char *what, uint64_t proof)
{
    struct path path;
    if (r->at)
        segment_path(&path, r->s->path, r->at->file_id);
    else
        log_directory_path(&path, r->s->path);
    return store_fail(
        r->error, -EBADMSG,
        "%s, offset %llu: entry %llu is missing or damaged, and was committed "
        "here: %s %llu; " REMEDY,
        path.text, (unsigned long long)r->end_offset,
        (unsigned long long)(r->s->end.index + 1), what, (unsigned long long)proof);
}

/* The position that ends the last segment. */
static int judge_end(struct recovery *r)
{
    uint64_t index = r->s->end.index + 1;
    if (r->hint >= index)
        return fail_damage(r, "the commit hint says", r->hint);
    if (r->later_commit >= index)
        return fail_damage(r, "so says the intact entry", r->later_index);
    return 0;
}

static int walk_segments(struct recovery *r)
{
    struct store *s = r->s;
    size_t count = s->segment_count;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        uint64_t first = s->segments[i]->first_index;
        if (first != s->end.index + 1) {
            rc = fail_damage(r, "a later segment begins with entry", first);
            break;
        }
        s->segment_count = i + 1;
        r->at = s->segments[i];
        r->at_size = r->sizes[i];
        buf_clear(&r->window);
        rc = walk(r);
        if (rc != 0) {
            struct path path;
            segment_path(&path, s->path, r->at->file_id);
            store_fail_call(r->error, rc, "read", path.text);
        }
    }
    s->segment_count = count;
    return rc == 0 ? judge_end(r) : rc;
}

/* How many bytes after the end are not zeros, up to the last that is not. */
static int measure_tail(struct recovery *r)
{
    uint64_t offset = r->end_offset;
    while (r->at && offset < r->at_size) {
        const uint8_t *data;
        size_t length;
        int rc = look(r, offset, WINDOW_BYTES, &data, &length);
        if (rc != 0 || length == 0)
            return rc;
        offset += length;
        if (all_zero(data, length))
            continue;
        while (data[length - 1] == 0)
            length--;
        r->cut_bytes =
            (uint64_t)(data - r->window.data) + r->window_offset + length - r->end_offset;
    }
    return 0;
}

/* ---- Making it durable (G4) -------------------------------------------------------- */

/* A restart may have read from the page cache what a failed sync left clean there and not
 * on disk. Such bytes are in the last segment, above the hint: written again, they are
 * synced for certain. */
static int rewrite_tail(struct recovery *r)
{
    struct store *s = r->s;
    uint64_t index = max_u64(r->hint + 1, r->at->first_index);
    if (index > s->end.index)
        return 0;
    uint64_t offset = r->at->offsets[index - r->at->first_index];
    while (offset < r->end_offset) {
        const uint8_t *data;
        size_t length;
        int rc = look(r, offset, min_u64(WINDOW_BYTES, r->end_offset - offset), &data,
                      &length);
        struct iovec iov = {(void *)data, length};
        if (rc == 0)
            rc = length > 0 ? write_full(s->io, r->at->fd, &iov, 1, offset) : -EIO;
        if (rc != 0)
            return rc;
        offset += length;
    }
    return 0;
}

static int settle_last(struct recovery *r)
{
    struct store *s = r->s;
    int rc = 0;
    if (r->cut_bytes > 0)
        rc = s->io->truncate(s->io->context, r->at->fd, r->end_offset);
    if (rc == 0)
        rc = rewrite_tail(r);
    if (rc != 0)
        return rc;
    r->at->limit_bytes = max_u64(s->segment_bytes, r->at->used);
    if (r->cut_bytes == 0 && r->at_size >= s->segment_bytes)
        return 0;
    rc = s->io->allocate(s->io->context, r->at->fd, s->segment_bytes);
    if (rc == -ENOSPC || rc == -EDQUOT) { /* as good as full */
        r->at->limit_bytes = r->at->used;
        rc = 0;
    }
    return rc;
}

static int settle_segments(struct recovery *r)
{
    struct store *s = r->s;
    for (size_t i = 0; i < s->segment_count; i++) {
        struct segment *segment = s->segments[i];
        segment->limit_bytes = segment->used;
        int rc = i + 1 == s->segment_count ? settle_last(r) : 0;
        if (rc == 0)
            rc = s->io->sync_all(s->io->context, segment->fd);
        if (rc != 0) {
            struct path path;
            segment_path(&path, s->path, segment->file_id);
            return store_fail_call(r->error, rc, "settle", path.text);
        }
    }
    return 0;
}

/* Both slots anew, the one it was read from last. */
static int settle_hard_state(struct recovery *r)
{
    struct store *s = r->s;
    s->hard_sequence = r->state.sequence;
    int rc = hard_state_write(s->io, s->state_fd, &r->state, !r->state_slot);
    if (rc == 0)
        rc = hard_state_write(s->io, s->state_fd, &r->state, r->state_slot);
    if (rc == 0)
        return 0;
    struct path path;
    hard_state_path(&path, s->path, "");
    return store_fail_call(r->error, rc, "write", path.text);
}

static int settle_commit_hint(struct recovery *r)
{
    struct store *s = r->s;
    struct path path;
    commit_hint_path(&path, s->path);
    if (s->hint_fd < 0)
        s->hint_fd = s->io->open(s->io->context, path.text, O_RDWR | O_CREAT, 0600);
    if (s->hint_fd < 0)
        return store_fail_call(r->error, s->hint_fd, "create", path.text);
    int rc = s->io->allocate(s->io->context, s->hint_fd, 2 * SLOT_STRIDE);
    s->hint = r->hint;
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "reserve space for", path.text);
}

static int remove_spares(struct recovery *r)
{
    for (size_t i = 0; i < r->spares.count; i++) {
        struct path path;
        segment_spare_path(&path, r->s->path, r->spares.ids[i]);
        int rc = r->s->io->unlink(r->s->io->context, path.text);
        if (rc != 0)
            return store_fail_call(r->error, rc, "remove", path.text);
    }
    return 0;
}

static int sync_directories(struct recovery *r)
{
    struct store *s = r->s;
    struct path path;
    log_directory_path(&path, s->path);
    int rc = s->io->sync_dir(s->io->context, path.text);
    if (rc != 0)
        return store_fail_call(r->error, rc, "sync", path.text);
    rc = s->io->sync_dir(s->io->context, s->path);
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "sync", s->path);
}

/* ---- What the running store needs -------------------------------------------------- */

static int make_first_segment(struct recovery *r)
{
    struct store *s = r->s;
    struct segment *segment = segment_new(s, SEGMENT_LOG, s->next_file_id);
    if (!segment || store_reserve_segment(s) != 0) {
        segment_unref(segment);
        return store_fail_call(r->error, -ENOMEM, "make a segment in", s->path);
    }
    s->next_file_id++;
    store_add_segment(s, segment);
    segment->first_index = s->base.index + 1;
    segment->limit_bytes = s->segment_bytes;
    int rc = segment_make_spare(s, segment, r->error);
    return rc == 0 ? segment_activate(s, segment, r->error) : rc;
}

/* Without room the store opens all the same: it can be read, and deletes may make some.
 */
static int make_spare(struct recovery *r)
{
    struct store *s = r->s;
    struct segment *spare = segment_new(s, SEGMENT_LOG, s->next_file_id);
    if (!spare)
        return store_fail_call(r->error, -ENOMEM, "make a segment in", s->path);
    s->next_file_id++;
    int rc = segment_make_spare(s, spare, r->error);
    if (rc == 0) {
        s->spare = spare;
        s->spare_state = SPARE_READY;
    } else {
        segment_unref(spare);
        if (rc != -ENOSPC && rc != -EDQUOT)
            return rc;
    }
    rc = s->io->space(s->io->context, s->path, &s->stats.disk_free_bytes,
                      &s->stats.disk_total_bytes);
    return rc == 0 ? 0
                   : store_fail_call(r->error, rc, "look at the free space of", s->path);
}

/* ---- All of it --------------------------------------------------------------------- */

static int load(struct recovery *r)
{
    bool no_log;
    int rc = list_log(r, &no_log);
    if (rc == 0)
        rc = load_hard_state(r);
    if (rc == 0 && no_log)
        rc = store_fail(r->error, -EBADMSG, "%s/log is missing; " REMEDY, r->s->path);
    if (rc == 0)
        rc = load_commit_hint(r);
    for (size_t i = 0; rc == 0 && i < r->segments.count; i++)
        rc = open_segment(r, i);
    if (rc == 0)
        rc = walk_segments(r);
    if (rc != 0)
        return rc;
    rc = measure_tail(r);
    return rc == 0 ? 0 : store_fail_call(r->error, rc, "read the log in", r->s->path);
}

static int settle(struct recovery *r)
{
    int rc = remove_spares(r);
    if (rc == 0)
        rc = settle_segments(r);
    if (rc == 0)
        rc = settle_hard_state(r);
    if (rc == 0)
        rc = settle_commit_hint(r);
    if (rc == 0 && r->s->segment_count == 0)
        rc = make_first_segment(r);
    if (rc == 0)
        rc = sync_directories(r);
    if (rc == 0)
        rc = make_spare(r);
    return rc;
}

int store_recover(struct store *s, const struct store_options *options,
                  struct store_recovery *ret, char error[STORE_ERROR_BYTES])
{
    struct recovery r = {.s = s, .options = options, .error = error};
    int rc = load(&r);
    if (rc == 0)
        rc = settle(&r);
    if (rc == 0)
        *ret = (struct store_recovery){.term = r.state.term,
                                       .vote = r.state.vote,
                                       .base_index = s->base.index,
                                       .base_term = s->base.term,
                                       .last_index = s->end.index,
                                       .commit = s->applied.index,
                                       .runs = s->runs,
                                       .run_count = s->run_count,
                                       .cut_bytes = r.cut_bytes};
    buf_release(&r.window);
    free(r.segments.ids);
    free(r.spares.ids);
    free(r.sizes);
    return rc;
}
