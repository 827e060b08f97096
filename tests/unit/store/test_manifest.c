/*
 * test_manifest.c - a store with merged files opens as its manifest says (G7): what is
 * listed counts, what is not is removed, what is missing is said, and nothing is changed
 * then. White-box: the files are made by hand.
 */
#include "fixture.h"
#include "store_internal.h"

enum { MERGED = 3, APPLIED = 6, LAST = 8 };

static char value[1200];

/* Entries 1-8 in segments 1-3; 1-3 merged at E = 6 into files 20 and 21; segment 1 gone.
 */
static void write_store(struct fixture *f)
{
    fixture_init(f, SMALL_SEGMENT);
    fixture_reopen(f);
    struct store_bytes *entries[LAST + 1];
    memset(value, 'v', sizeof(value));
    for (unsigned i = 1; i <= LAST; i++) {
        char key[8];
        snprintf(key, sizeof(key), "k%u", i);
        struct put put = {key, value, sizeof(value)};
        entries[i] = make_entry(f->s, 1, 0, &put, 1);
        assert_int_equal(store_append(f->s, entries[i], false), 0);
    }
    run(f);
    assert_int_equal(f->s->segment_count, 3);
    struct manifest_file files[2];
    struct store_entry last;
    for (unsigned i = 0, next = 1; i < 2; i++) {
        struct merged_writer *w;
        uint64_t hint_bytes;
        assert_int_equal(merged_writer_new(f->s, 20 + i, &w), 0);
        for (; next <= (i == 0 ? 2 : 3); next++)
            assert_int_equal(
                merged_writer_put(w, entries[next]->data + STORE_ENTRY_HEADER,
                                  entries[next]->length - STORE_ENTRY_HEADER, NULL),
                0);
        assert_int_equal(merged_writer_finish(w, &files[i], &hint_bytes), 0);
        merged_writer_free(w);
    }
    ensure(store_entry_decode(entries[MERGED]->data, entries[MERGED]->length, &last) ==
           0);
    uint8_t state[8];
    put_u64(state, APPLIED);
    struct manifest m = {.merged = chain_after(&last),
                         .applied_index = APPLIED,
                         .applied_term = 1,
                         .first_file = 2,
                         .count = 2,
                         .files = files,
                         .state = state,
                         .state_size = sizeof(state)};
    assert_int_equal(manifest_write(f->s, &m, f->error), 0);
    for (unsigned i = 1; i <= LAST; i++)
        store_bytes_unref(entries[i]);
    fixture_close(f);
    memory_disk_remove(f->disk, segment_file(1));
}

static const char *name_of(uint64_t id, const char *suffix)
{
    static char path[64];
    snprintf(path, sizeof(path), "d/log/%016llx%s", (unsigned long long)id, suffix);
    return path;
}

static void expect_refused(struct fixture *f, int error, const char *words)
{
    struct memory_disk *before = memory_disk_copy(f->disk);
    assert_int_equal(fixture_open(f), error);
    if (!strstr(f->error, words))
        fail_msg("'%s' does not say '%s'", f->error, words);
    assert_true(memory_disk_equal(before, f->disk));
    assert_int_equal(memory_disk_open_count(f->disk), 0);
    memory_disk_free(before);
}

static void expect_whole(struct fixture *f)
{
    fixture_reopen(f);
    assert_int_equal(f->recovery.base_index, MERGED);
    assert_int_equal(f->recovery.last_index, LAST);
    assert_int_equal(f->recovery.commit, APPLIED);
    assert_int_equal(f->recovery.claim_index, 0);
    assert_string_equal(f->recovery.damage, "");
    assert_true(store_is_ready(f->s));
    store_check(f->s);
    for (unsigned i = 1; i <= LAST; i++) {
        struct buf got = {0};
        char key[8];
        snprintf(key, sizeof(key), "k%u", i);
        int rc = store_get(f->s, key, strlen(key), 0, &got, NULL);
        assert_int_equal(rc, i <= APPLIED ? 0 : -ENOENT);
        buf_release(&got);
    }
}

static void make_file(struct fixture *f, const char *path, const void *data,
                      size_t length)
{
    int fd = f->io.open(f->io.context, path, 0100 | 2 /* O_CREAT, O_RDWR */, 0600);
    assert_true(fd >= 0);
    f->io.close(f->io.context, fd);
    if (length > 0)
        memory_disk_poke(f->disk, path, 0, data, length);
}

static void test_opens(void **state)
{
    struct fixture f;
    write_store(&f);
    expect_whole(&f);
    assert_int_equal(f.recovery.hints_rebuilt, 1); /* of segment 2: proven by E */
    expect_whole(&f);
    assert_int_equal(f.recovery.hints_used, 1);
    assert_int_equal(f.recovery.hints_rebuilt, 0);
    fixture_release(&f);
}

/* What means nothing goes, and its file ids are not used again. */
static void test_leftovers(void **state)
{
    static const char *const names[] = {
        "d/log/00000000000000f0.mrg",     "d/log/00000000000000f0.hint",
        "d/log/00000000000000f1.mrg.new", "d/log/00000000000000f2.hint.new",
        "d/log/00000000000000f3.new",     "d/log/MANIFEST.new",
        "d/log/00000000000000f4.hint",    "d/log/0000000000000001.seg",
        "d/log/0000000000000001.hint",
    };
    struct fixture f;
    write_store(&f);
    for (size_t i = 0; i < array_length(names); i++)
        make_file(&f, names[i], "whatever", 8);
    expect_whole(&f);
    for (size_t i = 0; i < array_length(names); i++)
        assert_false(memory_disk_exists(f.disk, names[i]));
    assert_true(memory_disk_exists(f.disk, name_of(20, ".mrg")));
    assert_true(memory_disk_exists(f.disk, name_of(20, ".hint")));
    assert_true(f.s->next_file_id > 0xf4);
    fixture_release(&f);
}

/* Without a manifest merged files are what a crash left before the first was published.
 */
static void test_never_published(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    put_one(&f, "k", "v");
    fixture_close(&f);
    make_file(&f, name_of(9, ".mrg"), "half of one", 11);
    fixture_reopen(&f);
    assert_false(memory_disk_exists(f.disk, name_of(9, ".mrg")));
    assert_int_equal(f.recovery.last_index, 1);
    fixture_release(&f);
}

static void test_manifest_missing(void **state)
{
    struct fixture f;
    write_store(&f);
    memory_disk_remove(f.disk, "d/log/MANIFEST");
    expect_refused(&f, -EBADMSG, "begins with entry 4, and nothing holds");
    fixture_release(&f);
}

static void test_manifest_damaged(void **state)
{
    struct fixture f;
    write_store(&f);
    memory_disk_flip(f.disk, "d/log/MANIFEST", 50, 3);
    expect_refused(&f, -EBADMSG, "d/log/MANIFEST: it is damaged");
    fixture_release(&f);
}

static void test_newer_manifest(void **state)
{
    struct fixture f;
    uint8_t bytes[512];
    write_store(&f);
    uint64_t size = memory_disk_size(f.disk, "d/log/MANIFEST");
    assert_true(size <= sizeof(bytes));
    memory_disk_peek(f.disk, "d/log/MANIFEST", 0, bytes, size);
    put_u32(bytes + 8, STORE_FORMAT_VERSION + 1);
    put_u32(bytes + size - 4, crc32_of(0, bytes, size - 4));
    memory_disk_poke(f.disk, "d/log/MANIFEST", 0, bytes, size);
    expect_refused(&f, -EPROTONOSUPPORT, "d/log/MANIFEST is of a newer format");
    fixture_release(&f);
}

static void test_merged_missing(void **state)
{
    struct fixture f;
    write_store(&f);
    memory_disk_remove(f.disk, name_of(21, ".mrg"));
    expect_refused(&f, -EBADMSG, "0000000000000015.mrg is missing");
    fixture_release(&f);
}

static void test_merged_short(void **state)
{
    struct fixture f;
    write_store(&f);
    uint64_t size = memory_disk_size(f.disk, name_of(20, ".mrg"));
    memory_disk_resize(f.disk, name_of(20, ".mrg"), size - 1);
    expect_refused(&f, -EBADMSG, "0000000000000014.mrg: it has");
    fixture_release(&f);
}

static void test_merged_header(void **state)
{
    for (uint64_t at = 0; at < SEGMENT_HEADER; at++) {
        struct fixture f;
        write_store(&f);
        memory_disk_flip(f.disk, name_of(20, ".mrg"), at, (unsigned)at % 8);
        expect_refused(&f, -EBADMSG, "0000000000000014.mrg: its header is damaged");
        fixture_release(&f);
    }
}

/* A record may rot: it is found when it is read. With its hint gone too, nobody can tell
 * which keys the file holds. */
static void test_merged_rots(void **state)
{
    struct fixture f;
    struct buf got = {0};
    write_store(&f);
    f.unchecked = true;
    memory_disk_flip(f.disk, name_of(20, ".mrg"), SEGMENT_HEADER + 100, 0);
    fixture_reopen(&f);
    assert_int_equal(store_get(f.s, "k1", 2, 0, &got, NULL), -EBADMSG);
    assert_int_equal(store_get(f.s, "k2", 2, 0, &got, NULL), 0);
    fixture_close(&f);
    memory_disk_remove(f.disk, name_of(20, ".hint"));
    assert_int_equal(fixture_open(&f), -EBADMSG);
    assert_non_null(strstr(f.error, "neither its hint nor all of its records"));
    buf_release(&got);
    fixture_release(&f);
}

/* An install has replaced the log: former segments go though their entries are later. */
static void test_installed(void **state)
{
    struct fixture f;
    write_store(&f);
    fixture_reopen(&f);
    struct manifest m = f.s->manifest;
    m.merged = (struct chain){.index = 5, .term = 4, .timestamp_us = 99999, .crc = 77};
    m.applied_index = 6;
    m.applied_term = 4;
    m.first_file = 100;
    uint8_t loaded[8];
    put_u64(loaded, 6);
    m.state = loaded;
    assert_int_equal(manifest_write(f.s, &m, f.error), 0);
    fixture_reopen(&f);
    assert_int_equal(f.recovery.base_index, 5);
    assert_int_equal(f.recovery.base_term, 4);
    assert_int_equal(f.recovery.last_index, 5);
    assert_int_equal(f.recovery.claim_index, 6); /* E */
    assert_int_equal(f.recovery.claim_term, 4);
    assert_string_equal(f.recovery.damage, "");
    assert_false(store_is_ready(f.s));
    assert_true(store_active(f.s)->file_id >= 100);
    assert_false(memory_disk_exists(f.disk, segment_file(2)));
    assert_false(memory_disk_exists(f.disk, segment_file(3)));
    append_one(&f, 4, "k", "v");
    run(&f);
    apply_to(&f, 6);
    assert_true(store_is_ready(f.s));
    fixture_reopen(&f);
    assert_int_equal(f.recovery.last_index, 6);
    assert_int_equal(f.recovery.claim_index, 0);
    store_check(f.s);
    fixture_release(&f);
}

/* Where there is no room for a hint, a segment is walked; a merged file must have one. */
static void test_no_room_for_hints(void **state)
{
    struct fixture f;
    write_store(&f);
    memory_disk_set_capacity(f.disk, 0);
    expect_whole(&f);
    assert_int_equal(f.recovery.hints_used, 0);
    fixture_close(&f);
    memory_disk_remove(f.disk, name_of(20, ".hint"));
    assert_int_equal(fixture_open(&f), -ENOSPC);
    assert_non_null(strstr(f.error, "0000000000000014.mrg"));
    fixture_release(&f);
}

/* Every call of an opening that repairs what it can fails once. */
static void test_faults(void **state)
{
    unsigned faults = 0;
    for (int reads = 0; reads < 2; reads++) {
        int rc = -EIO;
        for (uint64_t call = 1; rc != 0; call++, faults += rc != 0) {
            struct fixture f;
            write_store(&f);
            memory_disk_remove(f.disk, name_of(21, ".hint"));
            make_file(&f, name_of(0xf0, ".mrg"), "x", 1);
            if (reads)
                memory_disk_fail_read(f.disk, memory_disk_reads(f.disk) + call, -EIO);
            else
                memory_disk_fail_call(f.disk, memory_disk_calls(f.disk) + call, -EIO);
            rc = fixture_open(&f);
            if (rc != 0)
                assert_int_equal(memory_disk_open_count(f.disk), 0);
            assert_true(rc == 0 || rc == -EIO);
            memory_disk_fail_call(f.disk, 0, 0);
            memory_disk_fail_read(f.disk, 0, 0);
            expect_whole(&f);
            fixture_release(&f);
        }
    }
    assert_true(faults > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_never_published),
        cmocka_unit_test(test_manifest_missing),
        cmocka_unit_test(test_manifest_damaged),
        cmocka_unit_test(test_newer_manifest),
        cmocka_unit_test(test_merged_missing),
        cmocka_unit_test(test_merged_short),
        cmocka_unit_test(test_merged_header),
        cmocka_unit_test(test_merged_rots),
        cmocka_unit_test(test_installed),
        cmocka_unit_test(test_no_room_for_hints),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
