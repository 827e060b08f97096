/*
 * fuzz_inspect.c - whole files that come from anywhere: a segment, merged file, MANIFEST
 * or state file that is inspected, and a backup that is to be restored.
 *
 * Where the first byte's high bit is set (no file begins so) it is taken off, and the
 * checksums of a header and of a backup's end are put right, so that what is behind them
 * is reached.
 */
#include "backup.h"
#include "fuzz.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER = 64 };

static int see(void *context, const struct fact *fact)
{
    uint64_t *facts = context;
    ensure(fact->kind[0]);
    for (size_t i = 0; i < fact->count; i++) {
        const struct fact_field *field = &fact->fields[i];
        ensure(field->name[0]);
        ensure(field->type != FACT_TEXT || strlen(field->data) < 4096);
        for (size_t at = 0; field->type == FACT_BYTES && at < field->size; at++)
            *facts += ((const uint8_t *)field->data)[at] & 1; /* all of it is there */
    }
    return 0;
}

static int take_record(void *context, const struct store_record *record,
                       const uint8_t *bytes, size_t length, uint64_t offset)
{
    ensure(record->value && record->key >= bytes &&
           record->value + record->value_size == bytes + length);
    return 0;
}

static int take_entry(void *context, const struct store_entry *entry,
                      const uint8_t *bytes, uint64_t offset)
{
    struct store_entry again;
    ensure(store_entry_verify(bytes, entry->length, &again) == 0);
    return 0;
}

static void put_checksums_right(uint8_t *data, size_t size)
{
    if (size >= HEADER)
        put_u32(data + HEADER - 4, crc32_of(0, data, HEADER - 4));
    if (size >= WIRE_HASH_BYTES)
        wire_hash(data, size - WIRE_HASH_BYTES, data + size - WIRE_HASH_BYTES);
}

static void look_at(const char *path)
{
    uint64_t facts = 0, problems = 0;
    char error[NODE_ERROR_BYTES], text[STORE_ERROR_BYTES];
    struct store_inspect_options options = {
        .io = &store_io_posix, .path = "/proc/self/fd", .fact = see, .context = &facts};
    store_inspect_file(&options, path, &problems, text);
    const struct backup_visitor visitor = {.record = take_record, .entry = take_entry};
    struct backup_summary summary;
    if (backup_read(path, &visitor, &summary, error) == 0)
        ensure(summary.end.index == summary.head.begin.index + summary.entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct buf copy = {0};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    ensure(fd >= 0);
    buf_bytes(&copy, data, size);
    if (size && data[0] & 0x80) {
        copy.data[0] &= 0x7f;
        put_checksums_right(copy.data, size);
    }
    ensure(!copy.failed && write(fd, copy.data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    look_at(path);
    close(fd);
    buf_release(&copy);
    return 0;
}
