/*
 * test_files.c - hints, merged files and the manifest: what is written is read back, and
 * whatever byte of it is wrong is noticed. White-box: none of them is in store.h.
 */
#include "fixture.h"
#include "store_internal.h"

enum { RECORDS = 5000, ENTRIES = 3000 };

/* Just enough of a store for files: its disk and its identity. */
static struct store *files_store(struct fixture *f)
{
    fixture_init(f, 1 << 20);
    struct store *s = calloc(1, sizeof(*s));
    s->io = &f->io;
    s->path = (char *)f->options.path;
    s->segment_bytes = f->options.segment_bytes;
    s->slots = slots_new();
    memcpy(s->cluster_id, f->options.cluster_id, sizeof(s->cluster_id));
    s->format = s->format_newest = 1;
    return s;
}

static void files_release(struct fixture *f, struct store *s)
{
    assert_int_equal(memory_disk_open_count(f->disk), 0);
    slots_unref(s->slots);
    free(s);
    fixture_release(f);
}

static const char *log_file(const char *name)
{
    static char path[64];
    snprintf(path, sizeof(path), "d/log/%s", name);
    return path;
}

/* ---- Hints ------------------------------------------------------------------------- */

/* The i-th record of a test: tombstones, small and large values in turn. */
static struct hint_record nth_record(unsigned i, char key[32])
{
    static const uint8_t value[] = "0123456789abcdef";
    struct hint_record r = {.key = (uint8_t *)key, .timestamp_us = 1000 + i};
    r.key_size = (uint32_t)snprintf(key, 32, "key %08u", 2 * i);
    r.offset = 64 + 100 * i;
    r.value_size = i % 3 == 0 ? STORE_TOMBSTONE : i % 3 == 1 ? i % 17 : 17 + i;
    r.value = r.value_size <= 16 ? value : NULL;
    return r;
}

static struct store_entry nth_entry(unsigned i, const struct chain *end)
{
    struct store_entry e = {.index = end->index + 1,
                            .term = 3 + i / 1000,
                            .prev_term = end->term,
                            .prev_crc = end->crc,
                            .timestamp_us = end->timestamp_us + 5,
                            .session = 4 * i,
                            .request = i,
                            .record_count = i % 4,
                            .crc = 77 * i};
    e.result[i % 16] = 0xab;
    return e;
}

enum { DATA_BYTES = 8 << 20, FIRST_INDEX = 41 };

static int write_hint(struct store *s, enum segment_kind kind, unsigned records,
                      unsigned entries, uint64_t *ret_bytes)
{
    struct hint_info info = {.kind = kind, .file_id = 9, .data_bytes = DATA_BYTES};
    info.first_index = kind == SEGMENT_LOG ? FIRST_INDEX : 0;
    struct hint_writer *w;
    int rc = hint_writer_new(s, &info, &w);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; rc == 0 && i < records; i++) {
        char key[32];
        struct hint_record r = nth_record(i, key);
        rc = hint_writer_record(w, &r);
    }
    struct chain end = {.index = FIRST_INDEX - 1, .term = 2, .crc = 5};
    for (unsigned i = 0; rc == 0 && i < entries; i++) {
        struct store_entry e = nth_entry(i, &end);
        rc = hint_writer_entry(w, &e, 64 + 200 * i);
        end = chain_after(&e);
    }
    if (rc == 0)
        rc = hint_writer_finish(w, ret_bytes);
    hint_writer_free(w);
    return rc;
}

static void expect_record(const struct hint_record *got, unsigned i)
{
    char key[32];
    struct hint_record r = nth_record(i, key);
    assert_int_equal(got->timestamp_us, r.timestamp_us);
    assert_int_equal(got->offset, r.offset);
    assert_int_equal(got->value_size, r.value_size);
    assert_int_equal(got->key_size, r.key_size);
    assert_memory_equal(got->key, key, r.key_size);
    assert_int_equal(!got->value, !r.value);
    if (r.value && r.value_size > 0)
        assert_memory_equal(got->value, r.value, r.value_size);
}

static void expect_entries(struct hint_reader *r, unsigned entries)
{
    struct chain end = {.index = FIRST_INDEX - 1, .term = 2, .crc = 5};
    struct store_entry got;
    uint32_t offset;
    for (unsigned i = 0; i < entries; i++) {
        struct store_entry e = nth_entry(i, &end);
        assert_int_equal(hint_reader_entry(r, &got, &offset), 1);
        assert_int_equal(offset, 64 + 200 * i);
        e.length = i + 1 < entries ? 200 : DATA_BYTES - offset;
        assert_memory_equal(&got, &e, sizeof(e));
        end = chain_after(&e);
    }
    assert_int_equal(hint_reader_entry(r, &got, &offset), 0);
    assert_int_equal(hint_reader_entry(r, &got, &offset), 0);
}

static void test_hint_round_trip(void **state)
{
    for (int kind = SEGMENT_LOG; kind <= SEGMENT_MERGED; kind++) {
        struct fixture f;
        struct store *s = files_store(&f);
        uint64_t bytes;
        /* The last entry may have at most LIMIT_ENTRY_BYTES: to the end of the file. */
        unsigned entries = kind == SEGMENT_LOG ? (DATA_BYTES - (2 << 20)) / 200 : 0;
        assert_int_equal(write_hint(s, kind, RECORDS, entries, &bytes), 0);
        assert_int_equal(memory_disk_size(f.disk, log_file("0000000000000009.hint")),
                         bytes);
        struct hint_reader *r;
        assert_int_equal(hint_reader_new(s, 9, kind, DATA_BYTES, &r), 0);
        const struct hint_info *info = hint_reader_info(r);
        assert_int_equal(info->records, RECORDS);
        assert_int_equal(info->tombstones, (RECORDS + 2) / 3);
        assert_int_equal(info->entries, entries);
        assert_int_equal(hint_reader_bytes(r), bytes);
        struct hint_record got;
        for (unsigned i = 0; i < RECORDS; i++) {
            assert_int_equal(hint_reader_next(r, &got), 1);
            expect_record(&got, i);
        }
        assert_int_equal(hint_reader_next(r, &got), 0);
        if (kind == SEGMENT_LOG) {
            assert_int_equal(info->first_index, FIRST_INDEX);
            assert_int_equal(info->prev_term, 2);
            assert_int_equal(info->prev_crc, 5);
            expect_entries(r, entries);
            assert_int_equal(info->end.index, FIRST_INDEX + entries - 1);
        }
        hint_reader_free(r);
        files_release(&f, s);
    }
}

/* Every way to go forward gives what a walk would. */
static void test_hint_seek(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    uint64_t bytes, random = 5;
    assert_int_equal(write_hint(s, SEGMENT_MERGED, RECORDS, 0, &bytes), 0);
    for (int round = 0; round < 200; round++) {
        struct hint_reader *r;
        assert_int_equal(hint_reader_new(s, 9, SEGMENT_MERGED, DATA_BYTES, &r), 0);
        unsigned next = 0; /* what stands next */
        for (unsigned step = 1u << random_next(&random) % 12; next < RECORDS;) {
            struct hint_record got;
            char key[32];
            unsigned to = next + (unsigned)(random_next(&random) % step);
            unsigned odd = (unsigned)(random_next(&random) & 1);
            int size = snprintf(key, sizeof(key), "key %08u", 2 * to + odd);
            assert_int_equal(hint_reader_seek(r, key, (size_t)size), 0);
            next = max_u64(next, to + odd);
            if (random_next(&random) & 1)
                continue; /* and once more, with what was found not taken */
            assert_int_equal(hint_reader_next(r, &got), next < RECORDS);
            if (next < RECORDS)
                expect_record(&got, next++);
        }
        /* Never back. */
        struct hint_record got;
        assert_int_equal(hint_reader_seek(r, "a", 1), 0);
        if (next == RECORDS)
            assert_int_equal(hint_reader_next(r, &got), 0);
        hint_reader_free(r);
    }
    files_release(&f, s);
}

static int read_hint(struct store *s, enum segment_kind kind)
{
    struct hint_reader *r;
    int rc = hint_reader_new(s, 9, kind, DATA_BYTES, &r);
    if (rc != 0)
        return rc;
    struct hint_record record;
    struct store_entry entry;
    uint32_t offset;
    while ((rc = hint_reader_next(r, &record)) == 1)
        ;
    while (rc == 0 && (rc = hint_reader_entry(r, &entry, &offset)) == 1)
        rc = 0;
    hint_reader_free(r);
    return rc;
}

static void test_hint_bytes_matter(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    uint64_t bytes;
    const char *path = log_file("0000000000000009.hint");
    assert_int_equal(read_hint(s, SEGMENT_LOG), -ENOENT);
    assert_int_equal(write_hint(s, SEGMENT_LOG, 20, 0, &bytes), 0);
    assert_int_equal(read_hint(s, SEGMENT_LOG), 0);
    for (uint64_t at = 0; at < bytes; at++) {
        uint8_t was, now;
        memory_disk_peek(f.disk, path, at, &was, 1);
        now = was ^ (uint8_t)(1 + at % 255);
        memory_disk_poke(f.disk, path, at, &now, 1);
        assert_int_equal(read_hint(s, SEGMENT_LOG), -EBADMSG);
        memory_disk_poke(f.disk, path, at, &was, 1);
    }
    for (uint64_t size = bytes; size-- > 0;) {
        memory_disk_resize(f.disk, path, size);
        assert_int_equal(read_hint(s, SEGMENT_LOG), -EBADMSG);
    }
    files_release(&f, s);
}

/* Of another file, another length, another kind, another cluster. */
static void test_hint_of_another(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    struct hint_reader *r;
    uint64_t bytes;
    assert_int_equal(write_hint(s, SEGMENT_LOG, 20, 20, &bytes), 0);
    assert_int_equal(hint_reader_new(s, 9, SEGMENT_MERGED, DATA_BYTES, &r), -EBADMSG);
    assert_int_equal(hint_reader_new(s, 9, SEGMENT_LOG, DATA_BYTES - 1, &r), -EBADMSG);
    assert_int_equal(hint_reader_new(s, 8, SEGMENT_LOG, DATA_BYTES, &r), -ENOENT);
    assert_int_equal(f.io.rename(f.io.context, log_file("0000000000000009.hint"),
                                 "d/log/0000000000000008.hint"),
                     0);
    assert_int_equal(hint_reader_new(s, 8, SEGMENT_LOG, DATA_BYTES, &r), -EBADMSG);
    assert_int_equal(write_hint(s, SEGMENT_LOG, 20, 20, &bytes), 0);
    s->cluster_id[3] ^= 1;
    assert_int_equal(hint_reader_new(s, 9, SEGMENT_LOG, DATA_BYTES, &r), -EBADMSG);
    files_release(&f, s);
}

/* Each call of the disk fails once: an error, nothing left behind, nothing open. */
static void test_hint_faults(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    uint64_t bytes;
    int rc = -EIO;
    unsigned faults = 0;
    for (uint64_t call = 1; rc != 0; call++) {
        memory_disk_fail_call(f.disk, memory_disk_calls(f.disk) + call, -EIO);
        rc = write_hint(s, SEGMENT_LOG, 500, 10, &bytes);
        memory_disk_fail_call(f.disk, 0, 0);
        assert_true(rc == 0 || rc == -EIO);
        faults += rc != 0;
        assert_int_equal(memory_disk_open_count(f.disk), 0);
        assert_false(memory_disk_exists(f.disk, log_file("0000000000000009.hint.new")));
        assert_int_equal(memory_disk_exists(f.disk, log_file("0000000000000009.hint")),
                         rc == 0);
    }
    assert_true(faults >= 5); /* open, two writes, sync, rename */
    files_release(&f, s);
}

/* ---- Hints from data files --------------------------------------------------------- */

/* What a hint says of each key is what the newest record in the file says. */
static void test_build_from_log(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    for (unsigned i = 0; f.s->segment_count < 3; i++) {
        char key[8];
        snprintf(key, sizeof(key), "k%u", i % 7);
        struct put puts[] = {{key, i % 5 == 0 ? NULL : "a value that is not a small one"},
                             {"small", "tiny"}};
        append(&f, 1 + i / 10, puts, 2);
    }
    run(&f);
    apply_to(&f, store_last_index(f.s));
    uint64_t bytes;
    for (size_t i = 0; i < 2; i++) {
        struct segment *segment = f.s->segments[i];
        assert_int_equal(hint_build(f.s, segment, segment->used, &bytes), 0);
        struct hint_reader *r;
        assert_int_equal(
            hint_reader_new(f.s, segment->file_id, SEGMENT_LOG, segment->used, &r), 0);
        const struct hint_info *info = hint_reader_info(r);
        assert_int_equal(info->entries, segment->count);
        assert_int_equal(info->records, 8);
        assert_int_equal(info->first_index, segment->first_index);
        assert_int_equal(info->end.index, segment_last(segment));
        struct store_entry e;
        uint32_t offset;
        for (size_t k = 0; k < segment->count; k++) {
            assert_int_equal(hint_reader_entry(r, &e, &offset), 1);
            assert_int_equal(offset, segment->offsets[k]);
            assert_int_equal(e.length,
                             segment_entry_length(segment, segment->first_index + k));
            assert_int_equal(e.request, segment->first_index + k);
        }
        struct hint_record record;
        unsigned count = 0;
        for (; hint_reader_next(r, &record) == 1; count++) {
            uint8_t head[STORE_RECORD_HEADER];
            memory_disk_peek(f.disk, segment_file(segment->file_id), record.offset, head,
                             sizeof(head));
            assert_int_equal(get_u64(head + 4), record.timestamp_us);
            assert_int_equal(get_u32(head + 16), record.value_size);
            assert_int_equal(record.value ? 1 : 0, record.value_size == 4);
            /* No later record of this key in this segment. */
            for (size_t k = 0; k < segment->count; k++) {
                uint8_t two[2];
                memory_disk_peek(f.disk, segment_file(segment->file_id),
                                 segment->offsets[k] + STORE_ENTRY_HEADER +
                                     STORE_RECORD_HEADER,
                                 two, 2);
                if (record.key_size == 2 && memcmp(two, record.key, 2) == 0)
                    assert_true(segment->offsets[k] < record.offset);
            }
        }
        assert_int_equal(count, 8);
        hint_reader_free(r);
    }
    /* Damage in the data file gives no hint. */
    struct segment *segment = f.s->segments[0];
    memory_disk_poke(f.disk, segment_file(segment->file_id), segment->used - 3, "?", 1);
    assert_int_equal(hint_build(f.s, segment, segment->used, &bytes), -EBADMSG);
    assert_int_equal(hint_build(f.s, segment, segment->used - 3, &bytes), -EBADMSG);
    assert_false(memory_disk_exists(f.disk, log_file("0000000000000001.hint.new")));
    fixture_release(&f);
}

/* ---- Merged files ------------------------------------------------------------------ */

/* A whole record. */
static size_t make_record(struct buf *to, const char *key, const char *value,
                          uint64_t timestamp_us)
{
    buf_clear(to);
    record_encode(to, timestamp_us, key, strlen(key), value, value ? strlen(value) : 0);
    return to->length;
}

static const char long_value[] = "a value of more than sixteen bytes";

static int write_merged(struct store *s, unsigned records, struct manifest_file *ret,
                        uint64_t *ret_hint_bytes)
{
    struct merged_writer *w;
    struct buf record = {0};
    int rc = merged_writer_new(s, 5, &w);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; rc == 0 && i < records; i++) {
        char key[32];
        uint32_t offset;
        snprintf(key, sizeof(key), "key %08u", i);
        make_record(&record, key,
                    i % 4 == 0   ? NULL
                    : i % 4 == 1 ? "v"
                                 : long_value,
                    5000 - i);
        uint64_t expected = merged_writer_bytes(w);
        rc = merged_writer_put(w, record.data, record.length, &offset);
        ensure(rc != 0 || offset == expected);
    }
    if (rc == 0)
        rc = merged_writer_finish(w, ret, ret_hint_bytes);
    merged_writer_free(w);
    buf_release(&record);
    return rc;
}

static struct segment *open_merged(struct store *s, uint64_t id)
{
    struct segment *segment = segment_new(s, SEGMENT_MERGED, id);
    struct path path;
    merged_path(&path, s->path, id);
    segment->fd = s->io->open(s->io->context, path.text, 0, 0);
    assert_true(segment->fd >= 0);
    return segment;
}

static void test_merged(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    struct manifest_file file;
    uint64_t hint_bytes, again;
    assert_int_equal(write_merged(s, 4000, &file, &hint_bytes), 0);
    const char *path = log_file("0000000000000005.mrg");
    assert_int_equal(memory_disk_size(f.disk, path), file.bytes);
    assert_int_equal(file.records, 4000);
    assert_int_equal(file.tombstones, 1000);
    assert_int_equal(file.min_timestamp_us, 5000 - 3999);
    assert_int_equal(file.max_timestamp_us, 5000);
    uint8_t head[SEGMENT_HEADER], cluster[STORE_CLUSTER_ID_BYTES];
    uint64_t id;
    memory_disk_peek(f.disk, path, 0, head, sizeof(head));
    assert_int_equal(merged_head_decode(head, sizeof(head), 1, cluster, &id), 0);
    assert_int_equal(id, 5);
    assert_memory_equal(cluster, s->cluster_id, sizeof(cluster));
    /* The hint that was written along is the one made from the file. */
    char *hint = strdup(log_file("0000000000000005.hint"));
    uint8_t *first = malloc(hint_bytes), *second = malloc(hint_bytes);
    memory_disk_peek(f.disk, hint, 0, first, hint_bytes);
    memory_disk_remove(f.disk, hint);
    struct segment *segment = open_merged(s, 5);
    assert_int_equal(hint_build(s, segment, file.bytes, &again), 0);
    assert_int_equal(again, hint_bytes);
    memory_disk_peek(f.disk, hint, 0, second, hint_bytes);
    assert_memory_equal(first, second, hint_bytes);
    path = log_file("0000000000000005.mrg");
    for (uint64_t at = 64; at < file.bytes; at += 5003) {
        uint8_t was, now;
        memory_disk_peek(f.disk, path, at, &was, 1);
        now = was ^ (uint8_t)(1 + at % 255);
        memory_disk_poke(f.disk, path, at, &now, 1);
        assert_int_equal(hint_build(s, segment, file.bytes, &again), -EBADMSG);
        memory_disk_poke(f.disk, path, at, &was, 1);
    }
    segment_unref_unread(segment);
    free(hint);
    free(first);
    free(second);
    files_release(&f, s);
}

static void test_merged_full(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    s->segment_bytes = 4096;
    struct manifest_file file;
    uint64_t bytes;
    assert_int_equal(write_merged(s, 4000, &file, &bytes), -EFBIG);
    assert_false(memory_disk_exists(f.disk, log_file("0000000000000005.mrg.new")));
    assert_false(memory_disk_exists(f.disk, log_file("0000000000000005.hint.new")));
    files_release(&f, s);
}

enum { BULK_FILES = 16 };

static struct {
    struct store_io below;
    uint64_t
        waiting[BULK_FILES]; /* by descriptor: written, and not begun to go to the disk */
    uint64_t most;
    unsigned pieces;
} bulk;

static ssize_t bulk_pwritev(void *context, int fd, const struct iovec *iov, int count,
                            uint64_t offset)
{
    ssize_t n = bulk.below.pwritev(context, fd, iov, count, offset);
    ensure(n >= 0 && fd < BULK_FILES);
    bulk.waiting[fd] += (uint64_t)n;
    bulk.most = max_u64(bulk.most, bulk.waiting[fd]);
    return n;
}

static int bulk_write_out(void *context, int fd, uint64_t begin, uint64_t end)
{
    assert_int_equal(end - begin, bulk.waiting[fd]);
    bulk.waiting[fd] = 0;
    bulk.pieces++;
    return bulk.below.write_out(context, fd, begin, end);
}

/* A sync, for which those of other files may have to wait, finds a piece or less to do. */
static void test_long_writes_go_in_pieces(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    struct manifest_file file;
    uint64_t hint_bytes;
    s->segment_bytes = 16 << 20;
    memset(&bulk, 0, sizeof(bulk));
    bulk.below = f.io;
    f.io.pwritev = bulk_pwritev;
    f.io.write_out = bulk_write_out;
    assert_int_equal(write_merged(s, 50000, &file, &hint_bytes), 0);
    assert_true(bulk.pieces >= (file.bytes + hint_bytes) / PIECE_BYTES - 2);
    assert_in_range(bulk.most, PIECE_BYTES, PIECE_BYTES * 3 / 2);
    files_release(&f, s);
}

static void test_merged_faults(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    struct manifest_file file;
    uint64_t bytes;
    int rc = -EIO;
    unsigned faults = 0;
    for (uint64_t call = 1; rc != 0; call++) {
        memory_disk_fail_call(f.disk, memory_disk_calls(f.disk) + call, -ENOSPC);
        rc = write_merged(s, 12000, &file, &bytes); /* pieces of both files */
        memory_disk_fail_call(f.disk, 0, 0);
        assert_true(rc == 0 || rc == -ENOSPC);
        faults += rc != 0;
        assert_int_equal(memory_disk_open_count(f.disk), 0);
        assert_false(memory_disk_exists(f.disk, log_file("0000000000000005.mrg.new")));
        assert_false(memory_disk_exists(f.disk, log_file("0000000000000005.hint.new")));
    }
    assert_true(faults >= 13);
    files_release(&f, s);
}

/* ---- The manifest ------------------------------------------------------------------ */

static struct manifest sample_manifest(struct manifest_file files[3], const char *text)
{
    for (unsigned i = 0; i < 3; i++)
        files[i] = (struct manifest_file){.file_id = 10 + i,
                                          .bytes = 1000 + i,
                                          .records = 30 + i,
                                          .tombstones = i,
                                          .min_timestamp_us = 4,
                                          .max_timestamp_us = 1000 * i};
    return (struct manifest){
        .merged = {.index = 100, .term = 7, .timestamp_us = 123456, .crc = 0xabcdef01},
        .applied_index = 130,
        .applied_term = 8,
        .first_file = 20,
        .count = 3,
        .files = files,
        .state = (void *)text,
        .state_size = strlen(text)};
}

static void expect_manifest(const struct manifest *got, const struct manifest *m)
{
    assert_int_equal(got->merged.index, m->merged.index);
    assert_int_equal(got->merged.term, m->merged.term);
    assert_int_equal(got->merged.timestamp_us, m->merged.timestamp_us);
    assert_int_equal(got->merged.crc, m->merged.crc);
    assert_int_equal(got->applied_index, m->applied_index);
    assert_int_equal(got->applied_term, m->applied_term);
    assert_int_equal(got->first_file, m->first_file);
    assert_int_equal(got->count, m->count);
    assert_memory_equal(got->files, m->files, m->count * sizeof(*m->files));
    assert_int_equal(got->state_size, m->state_size);
    assert_memory_equal(got->state, m->state, m->state_size);
}

static void test_manifest(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    struct manifest_file files[3];
    struct manifest m = sample_manifest(files, "members and sessions"), got = {0};
    assert_int_equal(manifest_read(s, &got, f.error), -ENOENT);
    size_t loose = memory_disk_loose(f.disk);
    assert_int_equal(manifest_write(s, &m, f.error), 0);
    assert_int_equal(memory_disk_loose(f.disk), loose); /* the name is on disk too */
    assert_int_equal(manifest_read(s, &got, f.error), 0);
    expect_manifest(&got, &m);
    manifest_release(&got);
    const char *path = log_file("MANIFEST");
    uint64_t size = memory_disk_size(f.disk, path);
    for (uint64_t at = 0; at < size; at++) {
        uint8_t was, now;
        memory_disk_peek(f.disk, path, at, &was, 1);
        now = was ^ (uint8_t)(1 + at % 255);
        memory_disk_poke(f.disk, path, at, &now, 1);
        assert_int_equal(manifest_read(s, &got, f.error), -EBADMSG);
        assert_non_null(strstr(f.error, "d/log/MANIFEST: it is damaged"));
        memory_disk_poke(f.disk, path, at, &was, 1);
    }
    s->cluster_id[0] ^= 1;
    assert_int_equal(manifest_read(s, &got, f.error), -EXDEV);
    s->cluster_id[0] ^= 1;
    while (size-- > 0) {
        memory_disk_resize(f.disk, path, size);
        assert_int_equal(manifest_read(s, &got, f.error), -EBADMSG);
    }
    files_release(&f, s);
}

/* Whatever fails, or wherever the power goes, the old one or the new one is there. */
static void test_manifest_faults(void **state)
{
    struct fixture f;
    struct store *s = files_store(&f);
    struct manifest_file files[3];
    struct manifest old = sample_manifest(files, "old"), new = old, got = {0};
    new.state = "new";
    assert_int_equal(manifest_write(s, &old, f.error), 0);
    int rc = -EIO;
    unsigned faults = 0;
    for (uint64_t call = 1; rc != 0; call++, faults += rc != 0) {
        memory_disk_fail_call(f.disk, memory_disk_calls(f.disk) + call, -EIO);
        rc = manifest_write(s, &new, f.error);
        memory_disk_fail_call(f.disk, 0, 0);
        size_t loose = memory_disk_loose(f.disk);
        for (unsigned set = 0; set < 1u << min_u64(loose, 10); set++) {
            bool keep[64] = {false};
            assert_true(loose <= array_length(keep));
            for (size_t i = 0; i < loose; i++)
                keep[i] = set >> (i % 10) & 1;
            struct memory_disk *after = memory_disk_crash(f.disk, keep, SIZE_MAX);
            struct store_io io = memory_disk_io(after);
            s->io = &io;
            assert_int_equal(manifest_read(s, &got, f.error), 0);
            expect_manifest(&got, memcmp(got.state, "new", 3) == 0 ? &new : &old);
            manifest_release(&got);
            memory_disk_free(after);
            s->io = &f.io;
        }
        assert_int_equal(manifest_write(s, &old, f.error), 0);
    }
    assert_int_equal(faults, 5); /* open, write, sync, rename, sync of the directory */
    files_release(&f, s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hint_round_trip),
        cmocka_unit_test(test_hint_seek),
        cmocka_unit_test(test_hint_bytes_matter),
        cmocka_unit_test(test_hint_of_another),
        cmocka_unit_test(test_hint_faults),
        cmocka_unit_test(test_build_from_log),
        cmocka_unit_test(test_merged),
        cmocka_unit_test(test_merged_full),
        cmocka_unit_test(test_long_writes_go_in_pieces),
        cmocka_unit_test(test_merged_faults),
        cmocka_unit_test(test_manifest),
        cmocka_unit_test(test_manifest_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
