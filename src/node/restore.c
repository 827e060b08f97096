/*
 * restore.c - a store from a backup, as of its entry B.
 *
 * The file is read twice. First to check all of it, and to remember of the entries'
 * records where the newest of each key stands: keys in memory, as in any store, values
 * not. Then records and those are merged in key order into the store's merged files.
 */
#include "backup.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { FIRST_COMPACTION = 4096 };

/* A record of an entry: its key's newest, once compacted. */
struct change {
    uint64_t timestamp_us;
    uint64_t offset; /* of the record, in the file */
    uint32_t length; /* of it; 0: a tombstone */
    uint32_t key_size;
    uint8_t key[];
};

struct restore {
    char *path;
    struct backup_summary summary;
    struct change **changes; /* once read: one a key, in key order */
    size_t change_count, change_capacity;
    size_t compact_at;        /* drop what is superseded when there are so many */
    struct left_out left_out; /* once read */
    /* While the store is made: */
    int fd;
    struct store_import *import;
    size_t next_change;
    struct buf record;
    char *error;
};

/* ---- The first reading: changes ---------------------------------------------------- */

static int compare_keys(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, min_u64(a_size, b_size));
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

/* By key; of one key the newest first. */
static int compare_changes(const void *a, const void *b)
{
    const struct change *x = *(struct change *const *)a, *y = *(struct change *const *)b;
    int order = compare_keys(x->key, x->key_size, y->key, y->key_size);
    return order ? order
                 : (x->timestamp_us < y->timestamp_us) -
                       (x->timestamp_us > y->timestamp_us);
}

static void compact(struct restore *r)
{
    size_t kept = 0;
    if (r->change_count)
        qsort(r->changes, r->change_count, sizeof(*r->changes), compare_changes);
    for (size_t i = 0; i < r->change_count; i++) {
        struct change *c = r->changes[i], *last = kept ? r->changes[kept - 1] : NULL;
        if (last && !compare_keys(last->key, last->key_size, c->key, c->key_size))
            free(c);
        else
            r->changes[kept++] = c;
    }
    r->change_count = kept;
    r->compact_at = max_u64(FIRST_COMPACTION, 2 * kept);
}

static int add_change(struct restore *r, const struct store_record *record,
                      uint64_t offset, uint32_t length)
{
    if (r->change_count >= r->compact_at)
        compact(r);
    if (r->change_count == r->change_capacity) {
        size_t capacity = r->change_capacity ? 2 * r->change_capacity : FIRST_COMPACTION;
        struct change **changes = realloc(r->changes, capacity * sizeof(*changes));
        if (!changes)
            return -ENOMEM;
        r->changes = changes;
        r->change_capacity = capacity;
    }
    struct change *c = malloc(sizeof(*c) + record->key_size);
    if (!c)
        return -ENOMEM;
    *c = (struct change){.timestamp_us = record->timestamp_us,
                         .offset = offset,
                         .length = record->value ? length : 0,
                         .key_size = record->key_size};
    memcpy(c->key, record->key, record->key_size);
    r->changes[r->change_count++] = c;
    return 0;
}

/* ---- The first reading ------------------------------------------------------------- */

static int no_memory(struct restore *r, int result)
{
    return result ? node_error(r->error, result, "out of memory") : 0;
}

static int look_at_record(void *context, const struct store_record *record,
                          const uint8_t *bytes, size_t length, uint64_t offset)
{
    struct restore *r = context;
    return no_memory(r, left_out_note(&r->left_out, record));
}

struct entry_look {
    struct restore *r;
    uint64_t offset; /* of the entry */
};

static int look_at_change(void *arg, const struct store_record *record, uint32_t offset)
{
    struct entry_look *look = arg;
    uint32_t length = STORE_RECORD_HEADER + record->key_size + record->value_size;
    if (backup_is_cluster_key(record->key, record->key_size))
        return 0;
    int result = left_out_note(&look->r->left_out, record);
    return result ? result : add_change(look->r, record, look->offset + offset, length);
}

static int look_at_entry(void *context, const struct store_entry *entry,
                         const uint8_t *bytes, uint64_t offset)
{
    struct entry_look look = {.r = context, .offset = offset};
    return no_memory(look.r,
                     store_entry_each(bytes, entry->length, look_at_change, &look));
}

int restore_open(const char *path, struct restore **ret, char error[NODE_ERROR_BYTES])
{
    struct restore *r = calloc(1, sizeof(*r));
    if (!r)
        return node_error(error, -ENOMEM, "out of memory");
    *r = (struct restore){.fd = -1, .error = error, .compact_at = FIRST_COMPACTION};
    r->path = strdup(path);
    struct backup_visitor visitor = {
        .context = r, .record = look_at_record, .entry = look_at_entry};
    int result =
        r->path ? backup_read(path, &visitor, &r->summary, error) : no_memory(r, -ENOMEM);
    if (result) {
        restore_close(r);
        return result;
    }
    compact(r);
    left_out_settle(&r->left_out);
    *ret = r;
    return 0;
}

uint64_t restore_bytes(const struct restore *r)
{
    return r->summary.bytes;
}

/* ---- The second reading ------------------------------------------------------------ */

static int changed_meanwhile(struct restore *r)
{
    return node_error(r->error, -ESTALE, "%s changed while it was read: try again",
                      r->path);
}

static int import(struct restore *r, const uint8_t *record, size_t length)
{
    char text[STORE_ERROR_BYTES] = "";
    int result = store_import_record(r->import, record, length, text);
    return result ? node_error(r->error, result, "%s", text) : 0;
}

static int import_change(struct restore *r, const struct change *c)
{
    if (!c->length || left_out_holds(&r->left_out, c->key, c->key_size))
        return 0;
    buf_clear(&r->record);
    uint8_t *to = buf_extend(&r->record, c->length);
    if (!to)
        return no_memory(r, -ENOMEM);
    struct store_record record;
    ssize_t n = pread(r->fd, to, c->length, (off_t)c->offset);
    struct reader bytes = reader_of(to, n < 0 ? 0 : (size_t)n);
    if (n < 0)
        return node_error(r->error, -errno, "cannot read %s: %s", r->path,
                          strerror(errno));
    if ((size_t)n < c->length || store_record_read(&bytes, &record) ||
        record.timestamp_us != c->timestamp_us)
        return changed_meanwhile(r);
    return import(r, to, c->length);
}

/* Changes whose keys are below this one; `key` NULL: all that are left. */
static int import_changes_below(struct restore *r, const uint8_t *key, size_t size)
{
    int result = 0;
    while (!result && r->next_change < r->change_count) {
        const struct change *c = r->changes[r->next_change];
        if (key && compare_keys(c->key, c->key_size, key, size) >= 0)
            break;
        result = import_change(r, c);
        r->next_change++;
    }
    return result;
}

static int merge_record(void *context, const struct store_record *record,
                        const uint8_t *bytes, size_t length, uint64_t offset)
{
    struct restore *r = context;
    int result = import_changes_below(r, record->key, record->key_size);
    if (result)
        return result;
    const struct change *c =
        r->next_change < r->change_count ? r->changes[r->next_change] : NULL;
    bool superseded =
        c && !compare_keys(c->key, c->key_size, record->key, record->key_size);
    if (superseded || left_out_holds(&r->left_out, record->key, record->key_size))
        return 0;
    return import(r, bytes, length);
}

static int import_all(struct restore *r, const struct members *members)
{
    struct backup_visitor visitor = {.context = r, .record = merge_record};
    struct backup_summary summary;
    struct buf state = {0};
    char text[STORE_ERROR_BYTES] = "";
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0)
        return node_error(r->error, -errno, "cannot read %s: %s", r->path,
                          strerror(errno));
    int result = backup_read(r->path, &visitor, &summary, r->error);
    if (!result &&
        (summary.bytes != r->summary.bytes || summary.end.index != r->summary.end.index ||
         summary.end.crc != r->summary.end.crc))
        result = changed_meanwhile(r);
    if (!result)
        result = import_changes_below(r, NULL, 0);
    if (!result)
        result = no_memory(r, left_out_state(members, &state));
    if (!result) {
        result = store_import_finish(r->import, &r->summary.end, state.data, state.length,
                                     text);
        if (result)
            node_error(r->error, result, "%s", text);
    }
    buf_release(&state);
    return result;
}

int restore_store(struct restore *r, const struct store_options *options,
                  const struct members *members, char error[NODE_ERROR_BYTES])
{
    char text[STORE_ERROR_BYTES] = "";
    int result = store_import_new(options, &r->import, text);
    if (result)
        return node_error(error, result, "cannot make the store: %s", text);
    r->error = error;
    return import_all(r, members);
}

void restore_close(struct restore *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->change_count; i++)
        free(r->changes[i]);
    free(r->changes);
    left_out_release(&r->left_out);
    if (r->fd >= 0)
        close(r->fd);
    store_import_free(r->import);
    buf_release(&r->record);
    free(r->path);
    free(r);
}
