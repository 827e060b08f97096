/* recovery_files.c - which files there are, and what the small ones and the headers say.
 */
#include "recovery.h"

#include <fcntl.h>

static int fail_format(struct recovery *r, int rc, const char *path, const char *what)
{
    if (rc == -EPROTONOSUPPORT || rc == -EBADMSG)
        return store_fail_format(r->error, rc, path, what);
    return store_fail_call(r->error, rc, "read", path);
}

/* ---- The list of files ------------------------------------------------------------- */

int id_list_add(struct id_list *list, uint64_t id)
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

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bool id_list_has(const struct id_list *list, uint64_t id)
{
    return list->count > 0 &&
           bsearch(&id, list->ids, list->count, sizeof(id), compare_ids) != NULL;
}

static const char *const suffixes[NAME_KINDS] = {
    [NAME_SEGMENT] = ".seg",        [NAME_MERGED] = ".mrg",
    [NAME_HINT] = ".hint",          [NAME_SPARE] = ".new",
    [NAME_MERGED_NEW] = ".mrg.new", [NAME_HINT_NEW] = ".hint.new",
};

static int sort_name(void *arg, const char *name)
{
    struct recovery *r = arg;
    char digits[17];
    uint8_t bytes[8];
    if (strcmp(name, "MANIFEST.new") == 0)
        r->manifest_new = true;
    if (strlen(name) < 20)
        return 0;
    memcpy(digits, name, 16);
    digits[16] = 0;
    if (hex_parse(digits, bytes, sizeof(bytes)) != 0)
        return 0;
    uint64_t id = get_be64(bytes);
    for (int kind = 0; kind < NAME_KINDS && id != UINT64_MAX; kind++) {
        if (strcmp(name + 16, suffixes[kind]) != 0)
            continue;
        r->s->next_file_id = max_u64(r->s->next_file_id, id + 1);
        return id_list_add(&r->names[kind], id);
    }
    return 0;
}

int recovery_list(struct recovery *r, bool *ret_missing)
{
    struct path path;
    log_directory_path(&path, r->s->path);
    int rc = r->s->io->list(r->s->io->context, path.text, sort_name, r);
    *ret_missing = rc == -ENOENT || rc == -ENOTDIR;
    if (*ret_missing)
        return 0;
    if (rc != 0)
        return store_fail_call(r->error, rc, "list", path.text);
    for (int kind = 0; kind < NAME_KINDS; kind++)
        if (r->names[kind].count > 0)
            qsort(r->names[kind].ids, r->names[kind].count, sizeof(uint64_t),
                  compare_ids);
    r->files = calloc(r->names[NAME_SEGMENT].count + 1, sizeof(*r->files));
    return r->files ? 0 : store_fail_call(r->error, -ENOMEM, "read", path.text);
}

/* ---- Small files ------------------------------------------------------------------- */

static int no_hard_state(struct recovery *r, const char *path)
{
    if (r->names[NAME_SEGMENT].count + r->names[NAME_MERGED].count == 0)
        return store_fail(r->error, -ENOENT,
                          "no store in %s: make one with tierce init or tierce join",
                          r->s->path);
    return store_fail(r->error, -EBADMSG, "%s is missing beside a log; " STORE_REMEDY,
                      path);
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
    int rc =
        hard_state_read(s->io, s->state_fd, s->format_newest, &r->state, &r->state_slot);
    if (rc != 0)
        return fail_format(r, rc, path.text, "neither copy of term and vote is intact");
    s->format = (uint32_t)max_u64(s->format, r->state.format);
    return store_fail_cluster(r->error, s, r->state.cluster_id, path.text);
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
    int rc = commit_hint_read(s->io, s->hint_fd, s->format_newest, &hint, &s->hint_slot);
    if (rc == -EBADMSG)
        return 0;
    if (rc != 0)
        return fail_format(r, rc, path.text, "");
    r->hint = hint.commit;
    r->hint_term = hint.term;
    return store_fail_cluster(r->error, s, hint.cluster_id, path.text);
}

static int load_manifest(struct recovery *r)
{
    struct store *s = r->s;
    int rc = manifest_read(s, &s->manifest, r->error);
    if (rc == -ENOENT)
        return 0;
    if (rc != 0)
        return rc;
    s->base = s->end = s->applied = s->manifest.merged;
    s->durable = s->end.index;
    s->next_file_id = max_u64(s->next_file_id, s->manifest.first_file);
    return 0;
}

int recovery_load_small_files(struct recovery *r, bool no_log)
{
    int rc = load_hard_state(r);
    if (rc == 0 && no_log)
        rc = store_fail(r->error, -EBADMSG, "%s/log is missing; " STORE_REMEDY,
                        r->s->path);
    if (rc == 0)
        rc = load_commit_hint(r);
    if (rc == 0)
        rc = load_manifest(r);
    r->proven = max_u64(r->hint, r->s->manifest.applied_index);
    return rc;
}

/* ---- Headers ----------------------------------------------------------------------- */

static int open_file(struct recovery *r, struct segment *segment, const char *path,
                     uint64_t *ret_size)
{
    const struct store_io *io = r->s->io;
    segment->fd = io->open(io->context, path, O_RDWR, 0);
    if (segment->fd < 0)
        return segment->fd;
    return io->size(io->context, segment->fd, ret_size);
}

static int fail_open(struct recovery *r, int rc, const char *path)
{
    if (rc == -ENOENT)
        return store_fail(r->error, -EBADMSG, "%s is missing; " STORE_REMEDY, path);
    return store_fail_call(r->error, rc, "open", path);
}

/* A header is synced before the file gets its name: a bad one was never torn. */
static int read_header(struct recovery *r, const struct segment *segment,
                       const char *path, uint64_t *ret_first_index)
{
    uint8_t bytes[SLOT_STRIDE];
    struct segment_head head = {0};
    ssize_t n = read_full(r->s->io, segment->fd, bytes, sizeof(bytes), 0);
    if (n < 0)
        return store_fail_call(r->error, (int)n, "read", path);
    uint32_t newest = r->s->format_newest;
    int rc = segment->kind == SEGMENT_LOG
                 ? segment_head_decode(bytes, (size_t)n, newest, &head)
                 : merged_head_decode(bytes, (size_t)n, newest, head.cluster_id,
                                      &head.file_id);
    if (rc != 0)
        return fail_format(r, rc, path, "its header is damaged");
    rc = store_fail_cluster(r->error, r->s, head.cluster_id, path);
    if (rc == 0 && head.file_id != segment->file_id)
        rc = store_fail(r->error, -EBADMSG,
                        "%s: its header is that of file %016llx; " STORE_REMEDY, path,
                        (unsigned long long)head.file_id);
    if (rc == 0)
        *ret_first_index = head.first_index;
    return rc;
}

static int open_merged(struct recovery *r, const struct manifest_file *file)
{
    struct store *s = r->s;
    struct path path;
    uint64_t size = 0, none;
    merged_path(&path, s->path, file->file_id);
    struct segment *segment = segment_new(s, SEGMENT_MERGED, file->file_id);
    if (!segment)
        return store_fail_call(r->error, -ENOMEM, "open", path.text);
    s->merged[s->merged_count++] = segment;
    int rc = open_file(r, segment, path.text, &size);
    if (rc != 0)
        return fail_open(r, rc, path.text);
    if (size < file->bytes)
        return store_fail(r->error, -EBADMSG,
                          "%s: it has %llu bytes and should have %llu; " STORE_REMEDY,
                          path.text, (unsigned long long)size,
                          (unsigned long long)file->bytes);
    segment->used = segment->limit_bytes = file->bytes;
    return read_header(r, segment, path.text, &none);
}

static int open_segment(struct recovery *r, uint64_t file_id)
{
    struct store *s = r->s;
    struct path path;
    segment_path(&path, s->path, file_id);
    struct segment *segment = segment_new(s, SEGMENT_LOG, file_id);
    if (!segment)
        return store_fail_call(r->error, -ENOMEM, "open", path.text);
    struct log_file *file = &r->files[r->file_count++];
    file->segment = segment;
    int rc = open_file(r, segment, path.text, &file->size);
    if (rc != 0)
        return fail_open(r, rc, path.text);
    if (file->size > UINT32_MAX)
        return store_fail(r->error, -EBADMSG,
                          "%s: larger than a segment can be; " STORE_REMEDY, path.text);
    return read_header(r, segment, path.text, &segment->first_index);
}

/* Of two that begin with one entry the first is empty. */
static int compare_files(const void *a, const void *b)
{
    const struct segment *x = ((const struct log_file *)a)->segment;
    const struct segment *y = ((const struct log_file *)b)->segment;
    if (x->first_index != y->first_index)
        return x->first_index < y->first_index ? -1 : 1;
    return (x->file_id > y->file_id) - (x->file_id < y->file_id);
}

/* G7: what a merge has replaced is not looked at, or deleted keys come back. */
static int drop_merged(struct recovery *r)
{
    size_t drop = 0;
    while (r->s->manifest.applied_index > 0 && drop + 1 < r->file_count &&
           r->files[drop + 1].segment->first_index <= r->s->base.index + 1)
        drop++;
    for (size_t i = 0; i < drop; i++) {
        if (id_list_add(&r->merged_away, r->files[i].segment->file_id) != 0)
            return store_fail_call(r->error, -ENOMEM, "read the log in", r->s->path);
        segment_unref_unread(r->files[i].segment);
        r->files[i].segment = NULL;
    }
    r->file_count -= drop;
    memmove(r->files, r->files + drop, r->file_count * sizeof(*r->files));
    return 0;
}

static int check_first(struct recovery *r)
{
    const struct store *s = r->s;
    if (r->file_count == 0)
        return 0;
    uint64_t first = r->files[0].segment->first_index;
    bool fits = s->manifest.applied_index > 0 ? first > s->base.index : first == 1;
    if (fits)
        return 0;
    struct path path;
    segment_path(&path, s->path, r->files[0].segment->file_id);
    return store_fail(r->error, -EBADMSG,
                      "%s begins with entry %llu, and nothing holds what should be "
                      "merged before it; " STORE_REMEDY,
                      path.text, (unsigned long long)first);
}

int recovery_open_files(struct recovery *r)
{
    struct store *s = r->s;
    int rc = 0;
    s->merged = calloc(s->manifest.count + 1, sizeof(struct segment *));
    if (!s->merged)
        return store_fail_call(r->error, -ENOMEM, "open", s->path);
    for (size_t i = 0; rc == 0 && i < s->manifest.count; i++)
        rc = open_merged(r, &s->manifest.files[i]);
    const struct id_list *names = &r->names[NAME_SEGMENT];
    for (size_t i = 0; rc == 0 && i < names->count; i++)
        if (names->ids[i] >= s->manifest.first_file)
            rc = open_segment(r, names->ids[i]);
        else if (id_list_add(&r->merged_away, names->ids[i]) != 0)
            rc = store_fail_call(r->error, -ENOMEM, "read the log in", s->path);
    if (rc != 0)
        return rc;
    qsort(r->files, r->file_count, sizeof(*r->files), compare_files);
    rc = drop_merged(r);
    return rc == 0 ? check_first(r) : rc;
}
