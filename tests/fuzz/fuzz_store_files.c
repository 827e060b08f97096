/*
 * fuzz_store_files.c - what a store reads of its own beside segments: hints, the
 * manifest, merged files' headers.
 *
 * The first byte chooses the decoder, and whether checksums are put right before (so that
 * the checks behind them are reached too). What is accepted must make sense.
 */
#include "fuzz.h"
#include "store_internal.h"

enum { NEWEST = 2 }; /* a program that reads two formats */

/* ---- A disk of one file ------------------------------------------------------------ */

struct one_file {
    const uint8_t *data;
    size_t length;
};

static int one_open(void *context, const char *path, int flags, int mode)
{
    return 3;
}

static int one_close(void *context, int fd)
{
    return 0;
}

static ssize_t one_pread(void *context, int fd, void *to, size_t length, uint64_t offset)
{
    const struct one_file *file = context;
    if (offset >= file->length)
        return 0;
    length = min_u64(length, file->length - offset);
    memcpy(to, file->data + offset, length);
    return (ssize_t)length;
}

static int one_size(void *context, int fd, uint64_t *ret)
{
    *ret = ((const struct one_file *)context)->length;
    return 0;
}

/* ---- Hints ------------------------------------------------------------------------- */

static void check_record(const struct hint_record *record, uint64_t data_bytes)
{
    ensure(record->key_size >= 1 && record->key_size <= LIMIT_KEY_BYTES);
    ensure(record->offset >= SEGMENT_HEADER);
    uint64_t size = record->value_size == STORE_TOMBSTONE ? 0 : record->value_size;
    ensure(record->offset + STORE_RECORD_HEADER + record->key_size + size <= data_bytes);
    ensure(!record->value == (record->value_size > LIMIT_KEYDIR_INLINE_BYTES));
}

/* Walked, with a seek now and then; keys ascend. */
static void read_records(struct hint_reader *r, uint64_t data_bytes)
{
    struct hint_record record;
    uint8_t key[LIMIT_KEY_BYTES + 1];
    size_t size = 0;
    for (unsigned i = 0; hint_reader_next(r, &record) == 1; i++) {
        check_record(&record, data_bytes);
        ensure(key_compare(key, size, record.key, record.key_size) < 0);
        memcpy(key, record.key, record.key_size);
        size = record.key_size;
        if (i % 3 != 2)
            continue;
        key[0] += key[0] < 0xff; /* further on */
        if (hint_reader_seek(r, key, size) != 0)
            break;
        size--; /* what comes is not below it */
    }
}

static void read_entries(struct hint_reader *r)
{
    struct store_entry entry;
    uint32_t offset;
    uint64_t next = SEGMENT_HEADER, count = 0;
    while (hint_reader_entry(r, &entry, &offset) == 1) {
        ensure(offset == next && entry.length >= STORE_ENTRY_HEADER);
        ensure(entry.index == hint_reader_info(r)->first_index + count++);
        next += entry.length;
    }
}

static void try_hint(const uint8_t *data, size_t length)
{
    if (length < SEGMENT_HEADER)
        return;
    struct one_file file = {data, length};
    struct store_io io = {.context = &file,
                          .open = one_open,
                          .close = one_close,
                          .pread = one_pread,
                          .size = one_size};
    struct store s = {.io = &io, .path = (char *)"d"};
    memcpy(s.cluster_id, data + 16, sizeof(s.cluster_id));
    uint32_t kind = get_u32(data + 48);
    struct hint_reader *r;
    if (kind != SEGMENT_LOG && kind != SEGMENT_MERGED)
        return;
    if (hint_reader_new(&s, get_u64(data + 32), (enum segment_kind)kind,
                        get_u64(data + 40), &r) != 0)
        return;
    read_records(r, get_u64(data + 40));
    read_entries(r);
    hint_reader_free(r);
}

/* Of the header, of each block as far as lengths can be followed, and of the end. */
static void put_hint_sums_right(uint8_t *data, size_t length)
{
    if (length < SEGMENT_HEADER + 12)
        return;
    put_u32(data + 60, crc32_of(0, data, 60));
    for (size_t at = SEGMENT_HEADER; length - 12 - at >= 9;) {
        uint32_t size = get_u32(data + at);
        if (size > length - 12 - at - 8)
            break;
        put_u32(data + at + 4, crc32_of(0, data + at + 8, size));
        at += 8 + (size_t)size;
    }
    put_u32(data + length - 4, crc32_of(0, data + length - 12, 8));
}

/* ---- The others -------------------------------------------------------------------- */

static void try_manifest(const uint8_t *data, size_t length)
{
    struct manifest manifest;
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    if (manifest_decode(data, length, NEWEST, &manifest, cluster_id) != 0)
        return;
    struct buf again = {0};
    ensure(manifest_encode(&manifest, cluster_id, get_u32(data + 8), &again) == 0);
    ensure(again.length == length && memcmp(again.data, data, length) == 0);
    buf_release(&again);
    manifest_release(&manifest);
}

static void try_merged(const uint8_t *data, size_t length)
{
    uint8_t again[SEGMENT_HEADER], cluster_id[STORE_CLUSTER_ID_BYTES];
    uint64_t file_id;
    if (merged_head_decode(data, length, NEWEST, cluster_id, &file_id) != 0)
        return;
    merged_head_encode(again, cluster_id, get_u32(data + 8), file_id);
    ensure(memcmp(again, data, sizeof(again)) == 0);
}

static void put_last_sum_right(uint8_t *data, size_t length)
{
    if (length >= 4)
        put_u32(data + length - 4, crc32_of(0, data, length - 4));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t length = size - 1;
    uint8_t *copy =
        malloc(length ? length : 1); /* exact, so that a read beyond is seen */
    ensure(copy);
    memcpy(copy, data + 1, length);
    bool right = data[0] & 4;
    switch (data[0] & 3) {
    case 0:
        if (right)
            put_hint_sums_right(copy, length);
        try_hint(copy, length);
        break;
    case 1:
        if (right)
            put_last_sum_right(copy, length);
        try_manifest(copy, length);
        break;
    default:
        if (right && length >= SEGMENT_HEADER)
            put_last_sum_right(copy, SEGMENT_HEADER);
        try_merged(copy, length);
        break;
    }
    free(copy);
    return 0;
}
