/*
 * test_recovery.c - torn or damaged (G6), the hard state's slots (G5), which files count
 * (G7), and what is said of directories that are missing, of another cluster, of a newer
 * format, or not a store. The whole table is in test_table.c, holes in test_hole.c.
 */
#include "fixture.h"

static const char long_value[] = "a value of more than sixteen bytes";

/* ---- Helpers ----------------------------------------------------------------------- */

/* Entries 1 .. count in one segment, closed; their commit fields are `commit` or, where
 * that is 0, 0. */
static void write_log(struct fixture *f, unsigned count, uint64_t hint, uint64_t commit)
{
    fixture_init(f, SMALL_SEGMENT);
    fixture_reopen(f);
    for (unsigned i = 1; i <= count; i++) {
        struct put puts[] = {{"k", long_value}, {"l", long_value}};
        uint64_t said = min_u64(commit, i - 1);
        struct store_bytes *bytes = make_entry(f->s, 1, said, puts, 2);
        assert_int_equal(store_append(f->s, bytes, false), 0);
        store_bytes_unref(bytes);
    }
    if (hint > 0)
        store_set_commit_hint(f->s, hint);
    run(f);
    fixture_close(f);
}

enum spoil {
    SPOIL_HEAD,   /* the entry record: its length cannot be believed */
    SPOIL_BODY,   /* a data record: the length is intact */
    SPOIL_ZEROS,  /* all of it: a lost write */
    SPOIL_LENGTH, /* the file ends in the middle of it */
};

static void spoil_entry(struct fixture *f, const char *file, uint64_t index,
                        enum spoil spoil)
{
    uint8_t zeros[1024] = {0}, head[STORE_ENTRY_HEADER];
    uint64_t offset = entry_offset(f->disk, file, index);
    memory_disk_peek(f->disk, file, offset, head, sizeof(head));
    uint32_t length = get_u32(head + STORE_RECORD_HEADER + 1 + 72);
    ensure(length < sizeof(zeros));
    if (spoil == SPOIL_HEAD)
        memory_disk_poke(f->disk, file, offset + 30, "?", 1);
    else if (spoil == SPOIL_BODY)
        memory_disk_poke(f->disk, file, offset + STORE_ENTRY_HEADER + 40, "?", 1);
    else if (spoil == SPOIL_ZEROS)
        memory_disk_poke(f->disk, file, offset, zeros, length);
    else
        memory_disk_resize(f->disk, file, offset + length - 3);
}

static void expect_torn(struct fixture *f, uint64_t last)
{
    if (fixture_open(f) != 0)
        fail_msg("%s", f->error);
    assert_int_equal(f->recovery.last_index, last);
    store_check(f->s);
    append_one(f, 9, "k", "after the cut");
    run(f);
    fixture_reopen(f);
    assert_int_equal(f->recovery.last_index, last + 1);
    store_check(f->s);
}

/* Refused, with these words said, and not a byte changed. */
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

static void expect_damaged(struct fixture *f, const char *proof)
{
    expect_refused(f, -EBADMSG, proof);
    assert_non_null(strstr(f->error, "remove this node's data directory"));
    assert_non_null(strstr(f->error, "under another name (--name)"));
    assert_non_null(strstr(f->error, "d/log"));
}

/* Opened, ending before the hole, with this said; and behind the end not a byte changed.
 */
static void expect_hole(struct fixture *f, uint64_t last, uint64_t claim,
                        const char *proof)
{
    f->unchecked = true;
    if (fixture_open(f) != 0)
        fail_msg("%s", f->error);
    assert_int_equal(f->recovery.last_index, last);
    assert_int_equal(f->recovery.claim_index, claim);
    assert_int_equal(f->recovery.cut_bytes, 0);
    if (!strstr(f->recovery.damage, proof))
        fail_msg("'%s' does not say '%s'", f->recovery.damage, proof);
    assert_non_null(strstr(f->recovery.damage, "d/log"));
}

/* ---- The table of G6 --------------------------------------------------------------- */

/*
 * Six entries, entry `at` spoiled, the hint, and what the entries say was committed. The
 * last three columns: what proves entry `at` was committed. An entry behind a bad one is
 * reached only where the bad one's length is intact.
 */
static void test_table(void **state)
{
    for (unsigned at = 1; at <= 6; at++)
        for (uint64_t hint = 0; hint <= 6; hint++)
            for (uint64_t commit = 0; commit <= 5; commit++)
                for (int spoil = SPOIL_HEAD; spoil <= SPOIL_LENGTH; spoil++) {
                    struct fixture f;
                    write_log(&f, 6, hint, commit);
                    spoil_entry(&f, segment_file(1), at, (enum spoil)spoil);
                    bool later = spoil == SPOIL_BODY && at < 6 && commit >= at;
                    uint64_t reached = spoil == SPOIL_BODY && at < 6 ? 6 : 0;
                    uint64_t claim = max_u64(hint, reached);
                    if (hint >= at)
                        expect_hole(&f, at - 1, claim, "the commit hint says");
                    else if (later)
                        expect_hole(&f, at - 1, claim, "so says the intact entry");
                    else
                        expect_torn(&f, at - 1);
                    fixture_release(&f);
                }
}

static void test_commit_is_what_is_proven(void **state)
{
    struct {
        uint64_t hint, said, expected;
    } cases[] = {{0, 0, 0}, {3, 0, 3}, {0, 4, 4}, {2, 4, 4}, {5, 2, 5}, {6, 5, 6}};
    for (size_t i = 0; i < array_length(cases); i++) {
        struct fixture f;
        write_log(&f, 6, cases[i].hint, cases[i].said);
        fixture_reopen(&f);
        assert_int_equal(f.recovery.commit, cases[i].expected);
        assert_int_equal(f.recovery.last_index, 6);
        assert_value(f.s, "k", cases[i].expected ? long_value : NULL);
        fixture_release(&f);
    }
}

/* A log of several segments, uncommitted as far as hint and entries know. */
static unsigned write_segments(struct fixture *f)
{
    fixture_init(f, SMALL_SEGMENT);
    fixture_reopen(f);
    struct store_stats stats = {0};
    unsigned count = 0;
    for (; stats.segments < 4; count++) {
        struct store_bytes *bytes =
            make_entry(f->s, 1, 0, &(struct put){"k", long_value}, 1);
        assert_int_equal(store_append(f->s, bytes, false), 0);
        store_bytes_unref(bytes);
        run(f);
        store_stats(f->s, &stats);
    }
    fixture_close(f);
    return count;
}

/* A segment that was left cannot be torn: a later one says so. */
static void test_later_segment(void **state)
{
    for (int spoil = SPOIL_HEAD; spoil <= SPOIL_LENGTH; spoil++) {
        struct fixture f;
        unsigned count = write_segments(&f);
        spoil_entry(&f, segment_file(1), 3, (enum spoil)spoil);
        expect_hole(&f, 2, count, "a later segment begins with entry");
        fixture_release(&f);
    }
}

/* The segments' first entries. */
static void find_firsts(struct fixture *f, uint64_t firsts[5])
{
    for (uint64_t id = 1; id <= 4; id++) {
        uint8_t head[8];
        memory_disk_peek(f->disk, segment_file(id), 32, head, sizeof(head));
        firsts[id] = get_u64(head);
    }
}

/* Without what is merged, a log begins with entry 1. */
static void test_missing_segments(void **state)
{
    for (uint64_t id = 1; id <= 4; id++) {
        struct fixture f;
        uint64_t firsts[5];
        unsigned count = write_segments(&f);
        find_firsts(&f, firsts);
        memory_disk_remove(f.disk, segment_file(id));
        if (id == 1)
            expect_damaged(&f, "nothing holds what should be merged before it");
        else if (id < 4)
            expect_hole(&f, firsts[id] - 1, count, "a later segment begins with entry");
        else /* nothing proves that it was there */
            expect_torn(&f, count - 1);
        fixture_release(&f);
    }
}

static void test_all_segments_missing(void **state)
{
    struct fixture f;
    write_log(&f, 3, 3, 0);
    memory_disk_remove(f.disk, segment_file(1));
    expect_hole(&f, 0, 3, "the commit hint says 3");
    store_check(f.s);
    fixture_release(&f);
}

static void test_segments_overlap(void **state)
{
    struct fixture f;
    uint8_t head[64];
    write_segments(&f);
    memory_disk_peek(f.disk, segment_file(3), 0, head, sizeof(head));
    put_u64(head + 32, 5);
    put_u32(head + 60, crc32_of(0, head, 60));
    memory_disk_poke(f.disk, segment_file(3), 0, head, sizeof(head));
    expect_damaged(&f, "begins with entry 5, which another segment has");
    fixture_release(&f);
}

/* G1: 14 and 15 of term 2 are truncated, 14 of term 1 is written; an intact 15 of the
 * same place stays behind it, and must not be taken for its successor. */
static void test_stale_successor(void **state)
{
    struct fixture f;
    fixture_init(&f, SMALL_SEGMENT);
    fixture_reopen(&f);
    for (int i = 1; i <= 13; i++)
        append_one(&f, 1, "k", "v");
    append_one(&f, 2, "k", "v");
    append_one(&f, 2, "k", "v");
    run(&f);
    const char *file = segment_file(1);
    uint64_t offset = entry_offset(f.disk, file, 15);
    uint8_t stale[STORE_ENTRY_HEADER + 22];
    memory_disk_peek(f.disk, file, offset, stale, sizeof(stale));
    assert_int_equal(store_truncate(f.s, 13, 2), 0);
    append_one(&f, 3, "k", "w");
    run(&f);
    fixture_close(&f);
    memory_disk_poke(f.disk, file, offset, stale, sizeof(stale));
    struct store_entry e;
    assert_int_equal(store_entry_verify(stale, sizeof(stale), &e), 0);
    fixture_reopen(&f);
    assert_int_equal(f.recovery.last_index, 14);
    assert_int_equal(f.recovery.cut_bytes, sizeof(stale));
    assert_int_equal(f.recovery.run_count, 2);
    store_check(f.s);
    fixture_release(&f);
}

/* A user may store a segment as a value: what stands behind a bad length is not searched.
 */
static void test_no_scan(void **state)
{
    struct fixture f;
    write_log(&f, 6, 0, 5);
    spoil_entry(&f, segment_file(1), 2, SPOIL_HEAD);
    expect_torn(&f, 1);
    fixture_release(&f);
}

static void test_segment_header(void **state)
{
    struct fixture f;
    for (uint64_t at = 0; at < 64; at++) {
        write_log(&f, 2, 0, 0);
        memory_disk_poke(f.disk, segment_file(1), at, "\xee", 1);
        expect_damaged(&f, "its header is damaged");
        fixture_release(&f);
    }
}

static void test_renamed_segment(void **state)
{
    struct fixture f;
    write_log(&f, 2, 0, 0);
    assert_int_equal(
        f.io.rename(f.io.context, "d/log/0000000000000001.seg", segment_file(9)), 0);
    expect_damaged(&f, "its header is that of file 0000000000000001");
    fixture_release(&f);
}

static void test_spares_and_strangers(void **state)
{
    struct fixture f;
    write_log(&f, 2, 0, 0);
    const char *names[] = {"d/log/00000000000000ff.new", "d/log/notes.txt",
                           "d/log/00000000000000FF.seg"};
    for (size_t i = 0; i < array_length(names); i++) {
        int fd = f.io.open(f.io.context, names[i], 0100 /* O_CREAT */, 0600);
        assert_true(fd >= 0);
        f.io.close(f.io.context, fd);
    }
    fixture_reopen(&f);
    assert_false(memory_disk_exists(f.disk, names[0]));
    assert_true(memory_disk_exists(f.disk, names[1]));
    assert_true(memory_disk_exists(f.disk, names[2]));
    store_check(f.s);
    fixture_release(&f);
}

/* ---- The commit hint --------------------------------------------------------------- */

static void test_hint_may_be_lost(void **state)
{
    struct fixture f;
    write_log(&f, 4, 4, 0);
    memory_disk_remove(f.disk, "d/commit.hint");
    fixture_reopen(&f);
    assert_int_equal(f.recovery.commit, 0);
    apply_to(&f, 4);
    store_set_commit_hint(f.s, 4);
    run(&f);
    fixture_reopen(&f);
    assert_int_equal(f.recovery.commit, 4);
    fixture_release(&f);
}

/* Of the two slots a torn one leaves the other; both torn leave none. */
static void test_hint_slots(void **state)
{
    struct fixture f;
    write_log(&f, 4, 3, 0);
    fixture_reopen(&f);
    store_set_commit_hint(f.s, 4);
    run(&f);
    fixture_close(&f);
    uint64_t expected = 4;
    for (uint64_t slot = 0; slot < 2; slot++) {
        memory_disk_poke(f.disk, "d/commit.hint", slot * 4096 + 33, "\xee", 1);
        fixture_reopen(&f);
        assert_true(f.recovery.commit < expected);
        expected = f.recovery.commit;
        fixture_close(&f);
    }
    assert_int_equal(expected, 0);
    fixture_release(&f);
}

/* ---- The hard state (G5) ----------------------------------------------------------- */

static void set_hard_state(struct fixture *f, uint64_t term, uint64_t vote)
{
    assert_int_equal(store_set_hard_state(f->s, term, vote), 0);
    assert_true(run(f).hard_state);
}

static void spoil_slot(struct fixture *f, unsigned slot)
{
    memory_disk_poke(f->disk, "d/raft.state", slot * 4096 + 40, "\xee", 1);
}

static void test_hard_state_slots(void **state)
{
    for (unsigned slot = 0; slot < 2; slot++) {
        struct fixture f;
        write_log(&f, 1, 0, 0);
        fixture_reopen(&f);
        set_hard_state(&f, 3, 0);
        set_hard_state(&f, 3, 17);
        fixture_close(&f);
        spoil_slot(&f, slot); /* rot in either does not bring back an older vote */
        fixture_reopen(&f);
        assert_int_equal(f.recovery.term, 3);
        assert_int_equal(f.recovery.vote, 17);
        fixture_close(&f);
        spoil_slot(&f, !slot); /* the spoiled one has been written anew */
        fixture_reopen(&f);
        assert_int_equal(f.recovery.vote, 17);
        fixture_close(&f);
        spoil_slot(&f, 0);
        spoil_slot(&f, 1);
        expect_refused(&f, -EBADMSG, "d/raft.state: neither copy of term and vote");
        fixture_release(&f);
    }
}

static void test_hard_state_missing(void **state)
{
    struct fixture f;
    write_log(&f, 1, 0, 0);
    memory_disk_remove(f.disk, "d/raft.state");
    expect_refused(&f, -EBADMSG, "d/raft.state is missing beside a log");
    assert_int_equal(store_create(&f.options, f.error), -EEXIST);
    fixture_release(&f);
}

/* ---- Other directories ------------------------------------------------------------- */

static void test_no_store(void **state)
{
    struct fixture f;
    fixture_init_on(&f, memory_disk_new(), SMALL_SEGMENT);
    expect_refused(&f, -ENOENT, "no store in d");
    fixture_release(&f);
}

static void test_other_cluster(void **state)
{
    struct fixture f;
    write_log(&f, 1, 0, 0);
    f.options.cluster_id[0] ^= 1;
    expect_refused(&f, -EXDEV, "d/raft.state belongs to cluster c1c1c1c1");
    fixture_release(&f);
}

static void test_segment_of_other_cluster(void **state)
{
    struct fixture f;
    write_log(&f, 1, 0, 0);
    uint8_t head[64];
    memory_disk_peek(f.disk, segment_file(1), 0, head, sizeof(head));
    head[16] ^= 1;
    put_u32(head + 60, crc32_of(0, head, 60));
    memory_disk_poke(f.disk, segment_file(1), 0, head, sizeof(head));
    expect_refused(&f, -EXDEV, "belongs to cluster c0c1c1");
    fixture_release(&f);
}

static void test_newer_format(void **state)
{
    const char *files[] = {"d/log/0000000000000001.seg", "d/raft.state", "d/commit.hint"};
    for (size_t i = 0; i < array_length(files); i++) {
        struct fixture f;
        uint8_t head[64];
        write_log(&f, 1, 1, 0);
        for (uint64_t at = 0; at <= (i > 0 ? 4096u : 0u); at += 4096) {
            memory_disk_peek(f.disk, files[i], at, head, sizeof(head));
            put_u32(head + 8, STORE_FORMAT_VERSION + 1);
            put_u32(head + 60, crc32_of(0, head, 60));
            memory_disk_poke(f.disk, files[i], at, head, sizeof(head));
        }
        expect_refused(&f, -EPROTONOSUPPORT, "is of a newer format");
        assert_non_null(strstr(f.error, files[i]));
        fixture_release(&f);
    }
}

static void test_garbage(void **state)
{
    struct fixture f;
    uint8_t garbage[8192];
    uint64_t random = 77;
    for (size_t i = 0; i < sizeof(garbage); i++)
        garbage[i] = (uint8_t)random_next(&random);
    write_log(&f, 1, 0, 0);
    memory_disk_poke(f.disk, "d/raft.state", 0, garbage, sizeof(garbage));
    expect_refused(&f, -EBADMSG, "d/raft.state");
    fixture_release(&f);
    write_log(&f, 1, 0, 0);
    memory_disk_poke(f.disk, segment_file(1), 0, garbage, SMALL_SEGMENT);
    expect_damaged(&f, "its header is damaged");
    fixture_release(&f);
    write_log(&f, 1, 0, 0);
    memory_disk_resize(f.disk, segment_file(1), 10);
    expect_damaged(&f, "its header is damaged");
    fixture_release(&f);
}

/* Random bytes over the tail of the last segment never make an entry, nor a crash. */
static void test_random_tails(void **state)
{
    uint64_t random = 99;
    for (int round = 0; round < 300; round++) {
        struct fixture f;
        write_log(&f, 6, 2, 2);
        uint64_t from = entry_offset(f.disk, segment_file(1), 3);
        uint64_t at = from + random_next(&random) % 1000;
        uint8_t noise[64];
        size_t length = 1 + random_next(&random) % sizeof(noise);
        for (size_t i = 0; i < length; i++)
            noise[i] = (uint8_t)random_next(&random);
        memory_disk_poke(f.disk, segment_file(1), at, noise, length);
        fixture_reopen(&f);
        assert_true(f.recovery.last_index >= 2 && f.recovery.commit >= 2);
        store_check(f.s);
        fixture_release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_commit_is_what_is_proven),
        cmocka_unit_test(test_later_segment),
        cmocka_unit_test(test_missing_segments),
        cmocka_unit_test(test_all_segments_missing),
        cmocka_unit_test(test_segments_overlap),
        cmocka_unit_test(test_stale_successor),
        cmocka_unit_test(test_no_scan),
        cmocka_unit_test(test_segment_header),
        cmocka_unit_test(test_renamed_segment),
        cmocka_unit_test(test_spares_and_strangers),
        cmocka_unit_test(test_hint_may_be_lost),
        cmocka_unit_test(test_hint_slots),
        cmocka_unit_test(test_hard_state_slots),
        cmocka_unit_test(test_hard_state_missing),
        cmocka_unit_test(test_no_store),
        cmocka_unit_test(test_other_cluster),
        cmocka_unit_test(test_segment_of_other_cluster),
        cmocka_unit_test(test_newer_format),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_random_tails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
