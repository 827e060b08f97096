/*
 * import.c - a store made of records that come from elsewhere: merged files and a
 * MANIFEST, as a merge would have left them, and no log yet. E is M: nothing was
 * superseded on the way.
 */
#include "store_internal.h"

struct store_import {
    struct store place; /* directory, cluster, I/O and segment size, for the writers */
    struct merged_writer *writer;
    uint64_t next_file_id;
    struct manifest_file *files;
    size_t count, capacity;
};

static int fail(struct store_import *import, int rc, char error[STORE_ERROR_BYTES])
{
    struct path path;
    log_directory_path(&path, import->place.path);
    return store_fail_call(error, rc, "write merged files in", path.text);
}

int store_import_new(const struct store_options *options, struct store_import **ret,
                     char error[STORE_ERROR_BYTES])
{
    int rc = store_create(options, error);
    if (rc != 0)
        return rc;
    struct store_import *import = calloc(1, sizeof(*import));
    if (!import)
        return store_fail_call(error, -ENOMEM, "make", options->path);
    import->place.io = options->io;
    import->place.path = strdup(options->path);
    import->place.segment_bytes = options->segment_bytes;
    import->place.format_newest = format_newest(options);
    import->place.format = format_of(options);
    memcpy(import->place.cluster_id, options->cluster_id, STORE_CLUSTER_ID_BYTES);
    import->next_file_id = 1;
    if (!import->place.path) {
        store_import_free(import);
        return store_fail_call(error, -ENOMEM, "make", options->path);
    }
    *ret = import;
    return 0;
}

static int begin_file(struct store_import *import)
{
    if (import->count == import->capacity) {
        size_t capacity = import->capacity ? 2 * import->capacity : 16;
        struct manifest_file *files = realloc(import->files, capacity * sizeof(*files));
        if (!files)
            return -ENOMEM;
        import->files = files;
        import->capacity = capacity;
    }
    int rc = merged_writer_new(&import->place, import->next_file_id, &import->writer);
    if (rc == 0)
        import->next_file_id++;
    return rc;
}

static int end_file(struct store_import *import)
{
    uint64_t hint_bytes;
    if (!import->writer)
        return 0;
    int rc =
        merged_writer_finish(import->writer, &import->files[import->count], &hint_bytes);
    if (rc == 0)
        import->count++;
    merged_writer_free(import->writer);
    import->writer = NULL;
    return rc;
}

int store_import_record(struct store_import *import, const void *record, size_t length,
                        char error[STORE_ERROR_BYTES])
{
    int rc =
        import->writer ? merged_writer_put(import->writer, record, length, NULL) : -EFBIG;
    if (rc == -EFBIG) { /* full: the next one */
        rc = end_file(import);
        if (rc == 0)
            rc = begin_file(import);
        if (rc == 0)
            rc = merged_writer_put(import->writer, record, length, NULL);
    }
    return rc ? fail(import, rc, error) : 0;
}

int store_import_finish(struct store_import *import, const struct store_point *end,
                        const void *state, size_t state_size,
                        char error[STORE_ERROR_BYTES])
{
    int rc = end_file(import);
    if (rc != 0)
        return fail(import, rc, error);
    struct manifest manifest = {.merged = {.index = end->index,
                                           .term = end->term,
                                           .timestamp_us = end->timestamp_us,
                                           .crc = end->crc},
                                .applied_index = end->index,
                                .applied_term = end->term,
                                .first_file = import->next_file_id,
                                .count = import->count,
                                .files = import->files,
                                .state = (void *)state,
                                .state_size = state_size};
    return manifest_write(&import->place, &manifest, error);
}

void store_import_free(struct store_import *import)
{
    if (!import)
        return;
    merged_writer_free(import->writer);
    free(import->files);
    free(import->place.path);
    free(import);
}
