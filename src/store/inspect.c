/*
 * inspect.c - what is in the files of a store that nobody has open: the small files, the
 * list of the others, and what all of them say together. Segments: inspect_log.c.
 *
 * Everything is read and nothing written. What is wrong is a fact of kind "problem"; what
 * the next start sees to without a loss, of kind "note". A file that cannot be read is a
 * problem too: only what makes all the rest pointless is an error.
 */
#include "inspect.h"

#include <fcntl.h>
#include <stdarg.h>

enum {
    PATH_NAMES_BYTES = 64,
    MAGIC_BYTES = 8,
    MANIFEST_BYTES = 256 << 20 /* a larger one is none */
};

/* ---- Facts ------------------------------------------------------------------------- */

void fact_begin(struct inspection *x, const char *kind)
{
    x->kind = kind;
    x->field_count = 0;
}

static void add_field(struct inspection *x, struct fact_field field)
{
    ensure(x->field_count < FACT_FIELDS);
    x->fields[x->field_count++] = field;
}

void fact_number(struct inspection *x, const char *name, uint64_t value)
{
    add_field(x, (struct fact_field){.name = name, .type = FACT_NUMBER, .number = value});
}

void fact_id(struct inspection *x, const char *name, uint64_t value)
{
    add_field(x, (struct fact_field){.name = name, .type = FACT_ID, .number = value});
}

void fact_text(struct inspection *x, const char *name, const char *value)
{
    add_field(x, (struct fact_field){.name = name, .type = FACT_TEXT, .data = value});
}

void fact_bytes(struct inspection *x, const char *name, const void *data, size_t size)
{
    add_field(x, (struct fact_field){
                     .name = name, .type = FACT_BYTES, .data = data, .size = size});
}

void fact_hex(struct inspection *x, const char *name, const void *data, size_t size)
{
    add_field(x, (struct fact_field){
                     .name = name, .type = FACT_HEX, .data = data, .size = size});
}

void fact_flag(struct inspection *x, const char *name, bool value)
{
    add_field(x, (struct fact_field){.name = name, .type = FACT_FLAG, .number = value});
}

int fact_end(struct inspection *x)
{
    struct fact fact = {.kind = x->kind, .fields = x->fields, .count = x->field_count};
    if (x->stopped == 0)
        x->stopped = x->options->fact(x->options->context, &fact);
    return x->stopped;
}

const char *inspect_name(const struct inspection *x, const char *path)
{
    size_t length = strlen(x->place.path);
    bool below = strncmp(path, x->place.path, length) == 0 && path[length] == '/';
    return below ? path + length + 1 : path;
}

static int say(struct inspection *x, const char *kind, const char *path, uint64_t offset,
               const char *format, va_list args)
{
    char text[STORE_ERROR_BYTES];
    vsnprintf(text, sizeof(text), format, args);
    fact_begin(x, kind);
    fact_text(x, "file", inspect_name(x, path));
    if (offset != UINT64_MAX)
        fact_number(x, "offset", offset);
    fact_text(x, "what", text);
    return fact_end(x);
}

int inspect_problem(struct inspection *x, const char *path, uint64_t offset,
                    const char *format, ...)
{
    va_list args;
    va_start(args, format);
    x->problems++;
    int rc = say(x, "problem", path, offset, format, args);
    va_end(args);
    return rc;
}

int inspect_note(struct inspection *x, const char *path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int rc = say(x, "note", path, UINT64_MAX, format, args);
    va_end(args);
    return rc;
}

int inspect_unreadable(struct inspection *x, const char *path, int rc)
{
    if (rc == -ENOMEM)
        return store_fail_call(x->error, rc, "read", path);
    return inspect_problem(x, path, UINT64_MAX, "cannot be read: %s", strerror(-rc));
}

int inspect_cluster(struct inspection *x, const char *path,
                    const uint8_t id[STORE_CLUSTER_ID_BYTES])
{
    uint8_t *ours = x->place.cluster_id;
    if (!x->has_cluster) {
        memcpy(ours, id, STORE_CLUSTER_ID_BYTES);
        x->has_cluster = true;
    }
    if (memcmp(id, ours, STORE_CLUSTER_ID_BYTES) == 0)
        return 0;
    char theirs_text[2 * STORE_CLUSTER_ID_BYTES + 1], ours_text[sizeof(theirs_text)];
    hex_format(theirs_text, id, STORE_CLUSTER_ID_BYTES);
    hex_format(ours_text, ours, STORE_CLUSTER_ID_BYTES);
    return inspect_problem(x, path, 16, "of cluster %s, and the others of %s",
                           theirs_text, ours_text);
}

/* ---- A file ------------------------------------------------------------------------ */

int image_open(struct inspection *x, const char *path, size_t window_bytes,
               struct image *ret)
{
    const struct store_io *io = x->io;
    struct image image = {.io = io, .window_bytes = window_bytes};
    image.fd = io->open(io->context, path, O_RDONLY, 0);
    if (image.fd < 0)
        return image.fd;
    int rc = io->size(io->context, image.fd, &image.size);
    if (rc != 0) {
        io->close(io->context, image.fd);
        return rc;
    }
    *ret = image;
    return 0;
}

int image_look(struct image *image, uint64_t offset, size_t length, const uint8_t **ret,
               size_t *ret_length)
{
    uint64_t left = image->size - min_u64(offset, image->size);
    length = min_u64(length, left);
    if (offset < image->window_offset ||
        offset + length > image->window_offset + image->window.length) {
        size_t more = min_u64(left, max_u64(length, image->window_bytes));
        buf_clear(&image->window);
        if (more > 0 && !buf_extend(&image->window, more))
            return -ENOMEM;
        ssize_t n = read_full(image->io, image->fd, image->window.data, more, offset);
        image->window.length = n < 0 ? 0 : (size_t)n;
        image->window_offset = offset;
        if (n < 0)
            return (int)n;
        length = min_u64(length, (uint64_t)n);
    }
    static const uint8_t nothing[1];
    *ret = length > 0 ? image->window.data + (offset - image->window_offset) : nothing;
    *ret_length = length;
    return 0;
}

int image_is_zero(struct image *image, uint64_t offset, bool *ret)
{
    bool zero = true;
    while (zero && offset < image->size) {
        const uint8_t *data;
        size_t length;
        int rc = image_look(image, offset, WINDOW_BYTES, &data, &length);
        if (rc != 0)
            return rc;
        if (length == 0)
            break; /* it became shorter */
        zero = all_zero(data, length);
        offset += length;
    }
    *ret = zero;
    return 0;
}

void image_close(struct image *image)
{
    image->io->close(image->io->context, image->fd);
    buf_release(&image->window);
}

/* ---- raft.state and commit.hint ---------------------------------------------------- */

/* 0, or what is wrong with the slot. */
static int slot_state(struct inspection *x, const char *path, int slot,
                      const uint8_t *data, size_t length, struct hard_state *ret)
{
    int rc = hard_state_decode(data, length, x->place.format_newest, ret);
    fact_begin(x, "hard_state");
    fact_text(x, "file", inspect_name(x, path));
    fact_number(x, "slot", (uint64_t)slot);
    fact_flag(x, "valid", rc == 0);
    if (rc == 0) {
        fact_number(x, "sequence", ret->sequence);
        fact_number(x, "term", ret->term);
        fact_id(x, "vote", ret->vote);
        fact_hex(x, "cluster", ret->cluster_id, STORE_CLUSTER_ID_BYTES);
    }
    fact_end(x);
    return rc;
}

static int slot_hint(struct inspection *x, const char *path, int slot,
                     const uint8_t *data, size_t length, struct commit_hint *ret)
{
    int rc = commit_hint_decode(data, length, x->place.format_newest, ret);
    if (rc == -EBADMSG && all_zero(data, length))
        return rc; /* not written yet */
    fact_begin(x, "commit_hint");
    fact_text(x, "file", inspect_name(x, path));
    fact_number(x, "slot", (uint64_t)slot);
    fact_flag(x, "valid", rc == 0);
    if (rc == 0) {
        fact_number(x, "commit", ret->commit);
        fact_number(x, "term", ret->term);
        fact_hex(x, "cluster", ret->cluster_id, STORE_CLUSTER_ID_BYTES);
    }
    fact_end(x);
    return rc;
}

static int newer_format(struct inspection *x, const char *path)
{
    return inspect_problem(x, path, UINT64_MAX,
                           "of a newer format than this tierce knows");
}

static int judge_states(struct inspection *x, const char *path, const int rc[2],
                        const struct hard_state states[2])
{
    if (rc[0] == -EPROTONOSUPPORT || rc[1] == -EPROTONOSUPPORT)
        return newer_format(x, path);
    if (rc[0] != 0 && rc[1] != 0)
        return inspect_problem(x, path, UINT64_MAX,
                               "neither copy of term and vote is intact: the node cannot "
                               "be started");
    if (rc[0] != 0 || rc[1] != 0)
        return inspect_problem(x, path, rc[0] ? 0 : SLOT_STRIDE,
                               "this copy of term and vote is damaged; the other counts, "
                               "and the next start writes both");
    if (states[0].sequence != states[1].sequence)
        return inspect_note(x, path,
                            "a change of term and vote was cut off: the newer "
                            "copy counts, and the next start writes both");
    if (states[0].term != states[1].term || states[0].vote != states[1].vote)
        return inspect_problem(x, path, UINT64_MAX,
                               "both copies have one sequence number and differ");
    return 0;
}

static int inspect_state(struct inspection *x, const char *path, struct image *image)
{
    struct hard_state states[2] = {0};
    int rc[2];
    for (int slot = 0; slot < 2; slot++) {
        const uint8_t *data;
        size_t length;
        int result =
            image_look(image, (uint64_t)slot * SLOT_STRIDE, SLOT_BYTES, &data, &length);
        if (result != 0)
            return inspect_unreadable(x, path, result);
        rc[slot] = slot_state(x, path, slot, data, length, &states[slot]);
        if (rc[slot] == 0) {
            x->has_state = true;
            x->state_term = max_u64(x->state_term, states[slot].term);
            result = inspect_cluster(x, path, states[slot].cluster_id);
            if (result != 0)
                return result;
        }
    }
    int result = judge_states(x, path, rc, states);
    return result ? result : x->stopped;
}

static int inspect_hint_slots(struct inspection *x, const char *path, struct image *image)
{
    int valid = 0;
    for (int slot = 0; slot < 2; slot++) {
        const uint8_t *data;
        size_t length;
        struct commit_hint hint;
        int result =
            image_look(image, (uint64_t)slot * SLOT_STRIDE, SLOT_BYTES, &data, &length);
        if (result != 0)
            return inspect_unreadable(x, path, result);
        int rc = slot_hint(x, path, slot, data, length, &hint);
        if (rc == -EPROTONOSUPPORT)
            return newer_format(x, path);
        if (rc != 0 && !all_zero(data, length))
            inspect_note(x, path, "slot %d is torn or damaged: it does not count", slot);
        if (rc == 0) {
            valid++;
            if (hint.commit >= x->commit) {
                x->commit = hint.commit;
                x->commit_term = hint.term;
            }
            result = inspect_cluster(x, path, hint.cluster_id);
            if (result != 0)
                return result;
        }
    }
    if (valid == 0)
        return inspect_note(x, path, "no valid commit hint: as good as 0");
    return x->stopped;
}

/* ---- The manifest ------------------------------------------------------------------ */

static int say_manifest(struct inspection *x, const char *path, uint64_t bytes)
{
    const struct manifest *m = &x->manifest;
    fact_begin(x, "manifest");
    fact_text(x, "file", inspect_name(x, path));
    fact_number(x, "bytes", bytes);
    fact_number(x, "merged_index", m->merged.index);
    fact_number(x, "merged_term", m->merged.term);
    fact_number(x, "merged_timestamp_us", m->merged.timestamp_us);
    fact_id(x, "merged_crc", m->merged.crc);
    fact_number(x, "applied_index", m->applied_index);
    fact_number(x, "applied_term", m->applied_term);
    fact_id(x, "first_file", m->first_file);
    fact_number(x, "merged_files", m->count);
    fact_number(x, "state_bytes", m->state_size);
    for (size_t i = 0; i < m->count && fact_end(x) == 0; i++) {
        const struct manifest_file *f = &m->files[i];
        fact_begin(x, "manifest_file");
        fact_id(x, "file_id", f->file_id);
        fact_number(x, "bytes", f->bytes);
        fact_number(x, "records", f->records);
        fact_number(x, "tombstones", f->tombstones);
        fact_number(x, "min_timestamp_us", f->min_timestamp_us);
        fact_number(x, "max_timestamp_us", f->max_timestamp_us);
    }
    return fact_end(x);
}

static int inspect_manifest(struct inspection *x, const char *path, struct image *image)
{
    const uint8_t *data;
    size_t length;
    uint8_t cluster[STORE_CLUSTER_ID_BYTES];
    if (image->size > MANIFEST_BYTES)
        return inspect_problem(x, path, UINT64_MAX, "larger than a manifest can be");
    int rc = image_look(image, 0, (size_t)image->size, &data, &length);
    if (rc != 0)
        return inspect_unreadable(x, path, rc);
    rc = manifest_decode(data, length, x->place.format_newest, &x->manifest, cluster);
    if (rc == -EPROTONOSUPPORT)
        return newer_format(x, path);
    if (rc == -ENOMEM)
        return inspect_unreadable(x, path, rc);
    if (rc != 0)
        return inspect_problem(x, path, UINT64_MAX,
                               "damaged: the node cannot be started");
    x->has_manifest = true;
    rc = inspect_cluster(x, path, cluster);
    return rc ? rc : say_manifest(x, path, image->size);
}

/* ---- By name, and by how it begins ------------------------------------------------- */

static const struct file_kind {
    char magic[MAGIC_BYTES + 1];
    const char *ending; /* of its name */
    inspect_fn *inspect;
} file_kinds[] = {
    {"tierceHS", "raft.state", inspect_state},
    {"tierceCH", "commit.hint", inspect_hint_slots},
    {"tierceMF", "MANIFEST", inspect_manifest},
    {"tierceSG", ".seg", inspect_segment_file},
    {"tierceMS", ".mrg", inspect_merged_file},
    {"tierceHT", ".hint", inspect_hint_file},
    {"tierceSC", "scrub.state", inspect_scrub_file},
    {"tierceIN", "STATE", inspect_incoming_file},
};

static int inspect_image(struct inspection *x, const char *path, inspect_fn *inspect)
{
    struct image image;
    int rc = image_open(x, path, WINDOW_BYTES, &image);
    if (rc != 0)
        return inspect_unreadable(x, path, rc);
    x->files++;
    x->bytes += image.size;
    rc = inspect(x, path, &image);
    image_close(&image);
    return rc;
}

int inspect_small(struct inspection *x, const char *path, inspect_fn *inspect,
                  bool *ret_missing)
{
    int fd = x->io->open(x->io->context, path, O_RDONLY, 0);
    *ret_missing = fd == -ENOENT || fd == -ENOTDIR;
    if (fd >= 0)
        x->io->close(x->io->context, fd);
    return *ret_missing ? 0 : inspect_image(x, path, inspect);
}

static int id_add(struct file_id_list *list, uint64_t id)
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

/* Where the name is 16 digits and this suffix. */
static int add_named(struct file_id_list *list, const char *name, const char *suffix)
{
    char digits[17];
    uint8_t bytes[8];
    if (strlen(name) < 16 || strcmp(name + 16, suffix) != 0)
        return 0;
    memcpy(digits, name, 16);
    digits[16] = 0;
    return hex_parse(digits, bytes, sizeof(bytes)) == 0 ? id_add(list, get_be64(bytes))
                                                        : 0;
}

static const char *const unfinished_suffixes[INSPECT_UNFINISHED] = {".new", ".mrg.new",
                                                                    ".hint.new"};

static int sort_name(void *arg, const char *name)
{
    struct inspection *x = arg;
    const struct {
        const char *suffix;
        struct file_id_list *list;
    } lists[] = {{".seg", &x->segments},
                 {".mrg", &x->merged},
                 {".hint", &x->hints},
                 {unfinished_suffixes[0], &x->unfinished[0]},
                 {unfinished_suffixes[1], &x->unfinished[1]},
                 {unfinished_suffixes[2], &x->unfinished[2]}};
    int rc = 0;
    for (size_t i = 0; i < array_length(lists) && rc == 0; i++)
        rc = add_named(lists[i].list, name, lists[i].suffix);
    return rc;
}

static int add_part(void *arg, const char *name)
{
    return add_named(arg, name, ".part");
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int list_files(struct inspection *x, bool *ret_missing)
{
    struct path path;
    log_directory_path(&path, x->place.path);
    int rc = x->io->list(x->io->context, path.text, sort_name, x);
    *ret_missing = rc == -ENOENT || rc == -ENOTDIR;
    if (*ret_missing)
        return 0;
    if (rc != 0)
        return store_fail_call(x->error, rc, "list", path.text);
    incoming_path(&path, x->place.path, "");
    rc = x->io->list(x->io->context, path.text, add_part, &x->parts);
    if (rc != 0 && rc != -ENOENT && rc != -ENOTDIR)
        return store_fail_call(x->error, rc, "list", path.text);
    struct file_id_list *lists[] = {
        &x->segments,      &x->merged,        &x->hints, &x->unfinished[0],
        &x->unfinished[1], &x->unfinished[2], &x->parts};
    for (size_t i = 0; i < array_length(lists); i++)
        if (lists[i]->count > 0)
            qsort(lists[i]->ids, lists[i]->count, sizeof(uint64_t), compare_ids);
    return 0;
}

/* One that is damaged was told of. Where the log begins with entry 1 there need be none. */
static int judge_manifest(struct inspection *x, const char *path, bool missing)
{
    uint64_t first;
    x->lost_manifest = !missing && !x->has_manifest;
    if (!missing || x->segments.count == 0 ||
        inspect_first_index(x, x->segments.ids[0], &first) != 0 || first == 1)
        return x->stopped;
    x->lost_manifest = true;
    return inspect_problem(x, path, UINT64_MAX,
                           "missing, and the log begins with entry %llu: the node cannot "
                           "be started",
                           (unsigned long long)first);
}

/* ---- The whole --------------------------------------------------------------------- */

static int inspect_small_files(struct inspection *x)
{
    struct path path;
    bool missing, no_log;
    int rc = list_files(x, &no_log);
    hard_state_path(&path, x->place.path, "");
    if (rc == 0)
        rc = inspect_small(x, path.text, inspect_state, &missing);
    if (rc == 0 && missing && x->segments.count == 0)
        return store_fail(x->error, -ENOENT, "no store in %s: give another --data",
                          x->place.path);
    if (rc == 0 && missing)
        rc = inspect_problem(x, path.text, UINT64_MAX,
                             "missing beside a log: the node cannot be started");
    if (rc == 0 && no_log) {
        log_directory_path(&path, x->place.path);
        rc = inspect_problem(x, path.text, UINT64_MAX, "missing");
    }
    commit_hint_path(&path, x->place.path);
    if (rc == 0)
        rc = inspect_small(x, path.text, inspect_hint_slots, &missing);
    if (rc == 0 && missing)
        rc = inspect_note(x, path.text, "missing: as good as 0");
    manifest_path(&path, x->place.path, "");
    if (rc == 0)
        rc = inspect_small(x, path.text, inspect_manifest, &missing);
    return rc ? rc : judge_manifest(x, path.text, missing);
}

static int say_unfinished(struct inspection *x)
{
    struct path path, name;
    int rc = 0;
    log_directory_path(&path, x->place.path);
    for (size_t kind = 0; kind < INSPECT_UNFINISHED; kind++)
        for (size_t i = 0; i < x->unfinished[kind].count && rc == 0; i++) {
            snprintf(name.text, sizeof(name.text), "%s/%016llx%s",
                     inspect_name(x, path.text),
                     (unsigned long long)x->unfinished[kind].ids[i],
                     unfinished_suffixes[kind]);
            fact_begin(x, "unfinished");
            fact_text(x, "file", name.text);
            rc = fact_end(x);
        }
    return rc;
}

static int inspect_all(struct inspection *x)
{
    int rc = inspect_small_files(x);
    if (rc == 0)
        rc = inspect_merged(x);
    if (rc == 0)
        rc = inspect_log(x);
    if (rc == 0)
        rc = say_unfinished(x);
    if (rc == 0)
        rc = inspect_lost(x);
    if (rc != 0 || !x->options->verify)
        return rc;
    fact_begin(x, "verified");
    fact_number(x, "files", x->files);
    fact_number(x, "bytes", x->bytes);
    fact_number(x, "problems", x->problems);
    return fact_end(x);
}

static struct inspection *inspection_new(const struct store_inspect_options *options,
                                         char error[STORE_ERROR_BYTES])
{
    struct inspection *x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    x->options = options;
    x->io = options->io;
    x->error = error;
    x->place.io = options->io;
    x->place.format_newest = STORE_FORMAT_VERSION;
    x->place.path = strdup(options->path);
    if (x->place.path)
        return x;
    free(x);
    return NULL;
}

static void inspection_free(struct inspection *x)
{
    manifest_release(&x->manifest);
    free(x->segments.ids);
    free(x->merged.ids);
    free(x->hints.ids);
    for (size_t i = 0; i < INSPECT_UNFINISHED; i++)
        free(x->unfinished[i].ids);
    free(x->parts.ids);
    free(x->place.path);
    free(x);
}

int store_inspect(const struct store_inspect_options *options, uint64_t *ret_problems,
                  char error[STORE_ERROR_BYTES])
{
    if (strlen(options->path) + PATH_NAMES_BYTES > LIMIT_PATH_BYTES)
        return store_fail_call(error, -ENAMETOOLONG, "use", options->path);
    struct inspection *x = inspection_new(options, error);
    if (!x)
        return store_fail_call(error, -ENOMEM, "read", options->path);
    int rc = inspect_all(x);
    if (rc == 0)
        *ret_problems = x->problems;
    inspection_free(x);
    return rc;
}

static bool has_name(const char *file, const char *ending)
{
    size_t length = strlen(file), end = strlen(ending);
    return length >= end && strcmp(file + length - end, ending) == 0;
}

/* The name too, as the first bytes may be what is damaged. */
static int inspect_by_kind(struct inspection *x, const char *file, const uint8_t *magic)
{
    for (int by_name = 0; by_name < 2; by_name++)
        for (size_t i = 0; i < array_length(file_kinds); i++) {
            const struct file_kind *kind = &file_kinds[i];
            if (by_name ? has_name(file, kind->ending)
                        : memcmp(magic, kind->magic, MAGIC_BYTES) == 0)
                return inspect_image(x, file, kind->inspect);
        }
    return store_fail(x->error, -EINVAL,
                      "%s does not begin as a file of the store does (tierce..): give a "
                      "segment, merged file, hint, MANIFEST, raft.state, commit.hint, "
                      "scrub.state or incoming/STATE",
                      file);
}

int store_inspect_file(const struct store_inspect_options *options, const char *file,
                       uint64_t *ret_problems, char error[STORE_ERROR_BYTES])
{
    struct inspection *x = inspection_new(options, error);
    if (!x)
        return store_fail_call(error, -ENOMEM, "read", file);
    struct image image;
    uint8_t magic[MAGIC_BYTES] = {0};
    int rc = image_open(x, file, MAGIC_BYTES, &image);
    if (rc == 0) {
        ssize_t n = read_full(x->io, image.fd, magic, sizeof(magic), 0);
        rc = n < 0 ? (int)n : 0;
        image_close(&image);
    }
    if (rc == 0)
        rc = inspect_by_kind(x, file, magic);
    else
        store_fail_call(error, rc, "read", file);
    if (rc == 0)
        *ret_problems = x->problems;
    inspection_free(x);
    return rc;
}
