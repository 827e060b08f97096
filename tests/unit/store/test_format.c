/*
 * test_format.c - versions of the files: a program reads its own and the one before, writes
 * the one it was told, and never goes back. White-box: which version a file has.
 *
 * What is written differs in nothing but its version here: 1, and 2 as if there were one.
 */
#include "merging.h"
#include "transfer.h"

enum { OLD = 1, NEW = 2 };

/* As a program that knows both, in a cluster that is of the older one, or the newer. */
static void speak(struct fixture *f, uint32_t format, uint32_t newest)
{
    f->options.format = format;
    f->options.format_newest = newest;
}

static void init(struct fixture *f, uint32_t format, uint32_t newest)
{
    fixture_init_on(f, memory_disk_new(), SMALL_SEGMENT);
    f->options.io = &f->io;
    speak(f, format, newest);
    assert_int_equal(store_create(&f->options, f->error), 0);
    assert_int_equal(f->io.sync_dir(f->io.context, "."), 0);
    fixture_reopen(f);
}

/* What is applied is proven to the next start. */
static void prove(struct fixture *f)
{
    assert_int_equal(store_set_commit_hint(f->s, store_applied(f->s)), 0);
    run(f);
}

static uint32_t version_at(struct fixture *f, const char *path, uint64_t offset)
{
    uint8_t bytes[4];
    memory_disk_peek(f->disk, path, offset + 8, bytes, sizeof(bytes));
    return get_u32(bytes);
}

static uint32_t version_of(struct fixture *f, const char *path)
{
    return version_at(f, path, 0);
}

static const char *active_file(struct fixture *f)
{
    return segment_file(f->s->segments[f->s->segment_count - 1]->file_id);
}

static void expect_refused(struct fixture *f, const char *file)
{
    struct memory_disk *before = memory_disk_copy(f->disk);
    assert_int_equal(fixture_open(f), -EPROTONOSUPPORT);
    if (!strstr(f->error, file))
        fail_msg("'%s' does not name %s", f->error, file);
    assert_true(memory_disk_equal(before, f->disk));
    memory_disk_free(before);
}

static void test_the_older_is_written(void **state)
{
    struct fixture f;
    init(&f, OLD, NEW);
    assert_int_equal(store_format(f.s), OLD);
    put_one(&f, "a", "1");
    prove(&f);
    fixture_close(&f);
    assert_int_equal(version_of(&f, segment_file(1)), OLD);
    for (uint64_t slot = 0; slot < 2 * SLOT_STRIDE; slot += SLOT_STRIDE)
        assert_int_equal(version_at(&f, "d/raft.state", slot), OLD);
    speak(&f, OLD, OLD); /* the program of before, back again */
    fixture_reopen(&f);
    assert_value(f.s, "a", "1");
    fixture_release(&f);
}

static void test_both_are_read(void **state)
{
    struct fixture f;
    init(&f, OLD, OLD);
    unsigned next = fill_segments(&f, 0, 2);
    prove(&f);
    speak(&f, OLD, NEW);
    fixture_reopen(&f);
    store_set_format(f.s, NEW);
    assert_int_equal(store_format(f.s), NEW);
    unsigned end = fill_segments(&f, next, 2);
    prove(&f);
    assert_int_equal(version_of(&f, segment_file(f.s->segments[0]->file_id)), OLD);
    assert_int_equal(version_of(&f, active_file(&f)), NEW);
    fixture_reopen(&f);
    assert_int_equal(store_format(f.s), OLD); /* raft.state was not written since */
    store_set_format(f.s, NEW);
    assert_int_equal(store_set_hard_state(f.s, 2, 5), 0);
    run(&f);
    fixture_reopen(&f);
    assert_int_equal(store_format(f.s), NEW);
    for (unsigned key = 0; key < end; key++) {
        struct buf value = {0};
        assert_int_equal(
            store_get(f.s, key_of(key), strlen(key_of(key)), 0, &value, NULL), 0);
        buf_release(&value);
    }
    fixture_release(&f);
}

/* It says in its own files that it was raised, and stays so whatever it is told. */
static void test_never_lower(void **state)
{
    struct fixture f;
    init(&f, NEW, NEW);
    put_one(&f, "a", "1");
    speak(&f, OLD, NEW);
    fixture_reopen(&f);
    assert_int_equal(store_format(f.s), NEW);
    store_set_format(f.s, OLD);
    assert_int_equal(store_format(f.s), NEW);
    for (uint64_t slot = 0; slot < 2 * SLOT_STRIDE; slot += SLOT_STRIDE)
        assert_int_equal(version_at(&f, "d/raft.state", slot), NEW);
    fixture_release(&f);
}

/* A file of a newer version, each in turn, is not for a program that does not know it. */
static void test_a_newer_file_is_refused(void **state)
{
    static const char *const files[] = {"d/raft.state", "d/commit.hint",
                                        "d/log/MANIFEST"};
    for (size_t i = 0; i < array_length(files); i++) {
        struct fixture f;
        uint8_t bytes[8192 + 64];
        make_due(&f);
        run_tasks(&f);
        prove(&f);
        fixture_close(&f);
        uint64_t size = min_u64(memory_disk_size(f.disk, files[i]), sizeof(bytes));
        memory_disk_peek(f.disk, files[i], 0, bytes, size);
        for (uint64_t at = 0; i < 2 && at <= SLOT_STRIDE; at += SLOT_STRIDE) {
            put_u32(bytes + at + 8, NEW);
            put_u32(bytes + at + 60, crc32_of(0, bytes + at, 60));
        }
        if (i == 2) {
            put_u32(bytes + 8, NEW);
            put_u32(bytes + size - 4, crc32_of(0, bytes, size - 4));
        }
        memory_disk_poke(f.disk, files[i], 0, bytes, size);
        speak(&f, OLD, OLD);
        expect_refused(&f, files[i]);
        speak(&f, OLD, NEW);
        fixture_reopen(&f);
        check_due(&f);
        fixture_release(&f);
    }
}

static void test_a_newer_segment_is_refused(void **state)
{
    struct fixture f;
    init(&f, OLD, NEW);
    store_set_format(f.s, NEW);
    fill_segments(&f, 0, 1);
    char file[64];
    snprintf(file, sizeof(file), "%s", active_file(&f));
    fixture_close(&f);
    assert_int_equal(version_of(&f, file), NEW);
    speak(&f, OLD, OLD);
    expect_refused(&f, file);
    fixture_release(&f);
}

/* What may be lost is lost to a program that does not know it. */
static void test_a_newer_hint_is_made_again(void **state)
{
    struct fixture f;
    init(&f, OLD, OLD);
    fill_segments(&f, 0, 1);
    prove(&f);
    fixture_reopen(&f); /* which makes the hint of the one that is sealed */
    uint64_t id = f.s->segments[0]->file_id, used;
    fixture_reopen(&f);
    used = f.recovery.hints_used;
    assert_true(used > 0);
    fixture_close(&f);
    uint8_t head[SEGMENT_HEADER];
    const char *hint = file_of(id, "hint");
    memory_disk_peek(f.disk, hint, 0, head, sizeof(head));
    put_u32(head + 8, NEW);
    put_u32(head + 60, crc32_of(0, head, 60));
    memory_disk_poke(f.disk, hint, 0, head, sizeof(head));
    speak(&f, OLD, NEW);
    fixture_reopen(&f);
    assert_int_equal(f.recovery.hints_used, used);
    speak(&f, OLD, OLD);
    fixture_reopen(&f);
    assert_int_equal(f.recovery.hints_rebuilt, 1);
    assert_int_equal(version_of(&f, file_of(id, "hint")), OLD);
    fixture_release(&f);
}

/* A merge in a raised cluster makes files of the new version out of older ones. */
static void test_a_merge_raises(void **state)
{
    struct fixture f;
    make_due(&f);
    prove(&f);
    speak(&f, OLD, NEW);
    fixture_reopen(&f);
    store_set_format(f.s, NEW);
    assert_true(run_tasks(&f) > 0);
    assert_true(f.s->manifest.count > 0);
    assert_int_equal(version_of(&f, "d/log/MANIFEST"), NEW);
    char merged[64], hint[64];
    uint64_t id = f.s->manifest.files[f.s->manifest.count - 1].file_id;
    snprintf(merged, sizeof(merged), "%s", file_of(id, "mrg"));
    snprintf(hint, sizeof(hint), "%s", file_of(id, "hint"));
    assert_int_equal(version_of(&f, merged), NEW);
    assert_int_equal(version_of(&f, hint), NEW);
    check_due(&f);
    fixture_reopen(&f);
    check_due(&f);
    fixture_release(&f);
}

/* A description is a MANIFEST: one that is too new describes nothing here. */
static void test_a_snapshot(void **state)
{
    struct fixture from, to;
    sender_init(&from, 200, 100, 8 << 10);
    from.s->format_newest = NEW;
    store_set_format(from.s, NEW);
    for (uint32_t newest = OLD; newest <= NEW; newest++) {
        struct transfer t = {0};
        init(&to, OLD, newest);
        if (newest == NEW) {
            transfer_all(&t, &from, &to);
            assert_int_equal(version_of(&to, "d/log/MANIFEST"), OLD);
            assert_same(&from, &to);
        } else {
            assert_int_equal(store_snapshot_open(from.s, &t.snapshot), 0);
            assert_int_equal(store_snapshot_describe(t.snapshot, &t.description), 0);
            assert_int_equal(store_incoming_open(to.s, t.description.data,
                                                 t.description.length, SENDER, &t.in,
                                                 to.error),
                             -EPROTO);
            store_snapshot_close(from.s, t.snapshot);
            buf_release(&t.description);
        }
        fixture_release(&to);
    }
    fixture_release(&from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_older_is_written),
        cmocka_unit_test(test_both_are_read),
        cmocka_unit_test(test_never_lower),
        cmocka_unit_test(test_a_newer_file_is_refused),
        cmocka_unit_test(test_a_newer_segment_is_refused),
        cmocka_unit_test(test_a_newer_hint_is_made_again),
        cmocka_unit_test(test_a_merge_raises),
        cmocka_unit_test(test_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
