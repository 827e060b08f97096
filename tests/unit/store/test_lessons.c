/*
 * test_lessons.c - bugs that hurt the users of other replicated logs, as far as the store
 * can show that they cannot happen here. docs/lessons.md lists all twenty, and where each is
 * tested. Each is a few lines that are cut, failed or starved at every call.
 */
#include "fixture.h"

enum { SUBSETS = 12, VALUE = 600 };

/* ---- A store that is written to until something fails ---------------------------------- */

struct writer {
    struct fixture f;
    bool stopped;     /* a call failed: the process ends there */
    uint64_t durable; /* what it was told */
};

static void writer_begin(struct writer *w)
{
    *w = (struct writer){0};
    fixture_init(&w->f, SMALL_SEGMENT);
    w->f.unchecked = true;
    fixture_reopen(&w->f);
}

static void writer_run(struct writer *w)
{
    struct store_job *job = w->stopped ? NULL : store_take_job(w->f.s);
    if (!job)
        return;
    w->stopped = store_run_job(job, w->f.error) != 0;
    if (w->stopped)
        return;
    struct store_done done = store_finish_job(w->f.s, job);
    if (done.durable_index)
        w->durable = done.durable_index;
}

/* Its value says which entry wrote it. */
static void writer_append(struct writer *w, uint64_t term, const char *key)
{
    char value[VALUE + 1];
    if (w->stopped)
        return;
    memset(value, '.', VALUE);
    value[VALUE] = 0;
    snprintf(value, sizeof(value), "%llu",
             (unsigned long long)store_last_index(w->f.s) + 1);
    value[strlen(value)] = ' ';
    append(&w->f, term, &(struct put){.key = key, .value = value, .value_size = VALUE},
           1);
}

static void writer_apply(struct writer *w)
{
    if (w->stopped)
        return;
    apply_to(&w->f, w->durable);
    assert_int_equal(store_set_commit_hint(w->f.s, w->durable), 0);
}

static void writer_merge(struct writer *w)
{
    struct store_task *task;
    store_set_retention(w->f.s, UINT64_MAX);
    while (!w->stopped && (task = store_next_task(w->f.s, w->f.now_us += 1000000))) {
        uint64_t wait_us;
        do {
            int rc;
            while ((rc = store_run_task(task, &wait_us, w->f.error)) == 1)
                ;
            w->stopped = rc != 0;
        } while (!w->stopped && store_step_task(w->f.s, task));
    }
}

/* A disk as the power cut leaves it: none, all or some of what was not synced. */
static void fixture_after_cut(struct fixture *ret, const struct memory_disk *disk,
                              unsigned n, uint64_t *random)
{
    size_t loose = memory_disk_loose(disk);
    bool *keep = calloc(loose + 1, sizeof(*keep));
    ensure(keep);
    for (size_t i = 0; i < loose; i++)
        keep[i] = n == 1 || (n > 1 && random_next(random) >> 40 & 1);
    fixture_init_on(ret, memory_disk_crash(disk, keep, SIZE_MAX), SMALL_SEGMENT);
    ret->unchecked = true;
    free(keep);
}

static uint64_t number_of(struct store *s, const char *key)
{
    struct buf got = {0};
    int rc = store_get(s, key, strlen(key), 0, &got, NULL);
    assert_true(rc == 0 || rc == -ENOENT);
    buf_u8(&got, 0);
    uint64_t number = rc == 0 ? strtoull((char *)got.data, NULL, 10) : 0;
    buf_release(&got);
    return number;
}

/* ---- 1: a state, and another state's index --------------------------------------------- */

static void write_and_merge(struct writer *w)
{
    for (unsigned i = 0; i < 18; i++) {
        writer_append(w, 1, i % 3 ? "other" : "more");
        writer_append(w, 1, "counter");
        writer_run(w);
        if (!w->stopped) /* no hint: what was merged, and later entries, prove it */
            apply_to(&w->f, w->durable);
        if (i % 6 == 5)
            writer_merge(w);
    }
}

static void check_state_is_of_its_index(struct fixture *after)
{
    fixture_reopen(after);
    uint64_t applied = after->recovery.commit;
    assert_int_equal(number_of(after->s, "counter"), applied - applied % 2);
    apply_to(after, after->recovery.last_index);
    assert_int_equal(number_of(after->s, "counter"),
                     after->recovery.last_index - after->recovery.last_index % 2);
}

/* The counter says in which state of the log it was written: after a cut at any call it is
 * of the very index that the store says it has applied. */
static void lesson_01_a_state_and_its_index_are_one(void **state)
{
    uint64_t random = 0x5eed, merged = 0;
    bool stopped = true;
    for (uint64_t at = 1; stopped; at += 3) {
        struct writer w;
        writer_begin(&w);
        memory_disk_cut_power(w.f.disk, memory_disk_calls(w.f.disk) + at);
        write_and_merge(&w);
        stopped = w.stopped;
        for (unsigned n = 0; n < SUBSETS; n++) {
            struct fixture after;
            fixture_after_cut(&after, w.f.disk, n, &random);
            check_state_is_of_its_index(&after);
            merged += after.recovery.base_index > 0;
            fixture_release(&after);
        }
        fixture_release(&w.f);
    }
    assert_true(merged > 100);
}

/* ---- 7: a batch that reached the disk with a hole in it -------------------------------- */

/* Entries up to here are on this disk as they were written. */
static uint64_t whole_prefix(const struct memory_disk *disk,
                             const struct memory_disk *written, const uint64_t *offsets,
                             uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint8_t a[1024], b[sizeof(a)];
        size_t length = (size_t)(offsets[i + 1] - offsets[i]);
        memory_disk_peek(written, segment_file(1), offsets[i], a, length);
        memory_disk_peek(disk, segment_file(1), offsets[i], b, length);
        if (memcmp(a, b, length) != 0)
            return i;
    }
    return count;
}

static void check_torn_batch(struct writer *after, uint64_t expected)
{
    fixture_reopen(&after->f); /* it starts, whatever is missing */
    assert_int_equal(after->f.recovery.last_index, expected);
    assert_int_equal(after->f.recovery.claim_index, 0);
    /* And what was whole behind the hole is not the successor of what comes instead. */
    writer_append(after, 1, "k");
    writer_run(after);
    fixture_reopen(&after->f);
    assert_int_equal(after->f.recovery.last_index, expected + 1);
}

static void lesson_07_a_batch_may_have_holes(void **state)
{
    enum { ENTRIES = 4 };
    struct writer w;
    writer_begin(&w);
    for (unsigned i = 0; i < ENTRIES; i++)
        writer_append(&w, 1, "k");
    memory_disk_cut_power(w.f.disk, memory_disk_calls(w.f.disk) + 2); /* its sync */
    writer_run(&w);
    assert_true(w.stopped);
    uint64_t offsets[ENTRIES + 1];
    for (unsigned i = 0; i < ENTRIES; i++)
        offsets[i] = entry_offset(w.f.disk, segment_file(1), i + 1);
    offsets[ENTRIES] = 2 * offsets[ENTRIES - 1] - offsets[ENTRIES - 2];
    size_t loose = memory_disk_loose(w.f.disk);
    assert_true(loose >= ENTRIES && loose < 12);
    unsigned ends[ENTRIES + 1] = {0}, holes = 0;
    for (uint64_t n = 0; n < (uint64_t)1 << loose; n++) {
        bool keep[12];
        for (size_t i = 0; i < loose; i++)
            keep[i] = n >> i & 1;
        struct writer after = {0};
        fixture_init_on(&after.f, memory_disk_crash(w.f.disk, keep, SIZE_MAX),
                        SMALL_SEGMENT);
        after.f.unchecked = true;
        uint64_t whole = whole_prefix(after.f.disk, w.f.disk, offsets, ENTRIES);
        ends[whole]++;
        holes += whole < ENTRIES && keep[loose - 1];
        check_torn_batch(&after, whole);
        fixture_release(&after.f);
    }
    for (unsigned i = 0; i <= ENTRIES; i++)
        assert_true(ends[i] > 0);
    assert_true(holes > 0);
    fixture_release(&w.f);
}

/* ---- 9: a sync that succeeds after one that failed ------------------------------------- */

static void write_life(struct writer *w)
{
    if (!w->stopped)
        assert_int_equal(store_set_hard_state(w->f.s, 1, 7), 0);
    for (unsigned i = 0; i < 8; i++) {
        writer_append(w, 1, "k");
        writer_run(w);
        writer_apply(w);
    }
    writer_merge(w);
    writer_append(w, 1, "k");
    writer_run(w);
}

static unsigned syncs, failing_sync;
static int (*disk_sync)(void *context, int fd);
static int (*disk_sync_all)(void *context, int fd);
static int (*disk_sync_dir)(void *context, const char *path);

static uint64_t fail_if_due(struct memory_disk *disk)
{
    if (++syncs == failing_sync)
        memory_disk_fail_call(disk, memory_disk_calls(disk) + 1, -EIO);
    return syncs;
}

static int sync_or_fail(void *context, int fd)
{
    fail_if_due(context);
    return disk_sync(context, fd);
}

static int sync_all_or_fail(void *context, int fd)
{
    fail_if_due(context);
    return disk_sync_all(context, fd);
}

static int sync_dir_or_fail(void *context, const char *path)
{
    fail_if_due(context);
    return disk_sync_dir(context, path);
}

static void count_syncs(struct fixture *f)
{
    disk_sync = f->io.sync;
    disk_sync_all = f->io.sync_all;
    disk_sync_dir = f->io.sync_dir;
    f->io.sync = sync_or_fail;
    f->io.sync_all = sync_all_or_fail;
    f->io.sync_dir = sync_dir_or_fail;
    syncs = 0;
}

/* The process is started again, and finds in the page cache what the failed sync left
 * there, clean; then the power goes. What the restart counted as durable is there. */
static void check_restart_then_power_cut(struct writer *w)
{
    struct fixture again, after;
    uint64_t random = 0;
    fixture_init_on(&again, memory_disk_copy(w->f.disk), SMALL_SEGMENT);
    again.unchecked = true;
    fixture_reopen(&again);
    assert_true(again.recovery.last_index >= w->durable);
    fixture_after_cut(&after, again.disk, 0, &random);
    fixture_reopen(&after);
    assert_true(after.recovery.last_index >= again.recovery.last_index);
    assert_true(after.recovery.term >= again.recovery.term);
    fixture_release(&after);
    fixture_release(&again);
}

/* Each sync fails once, and would succeed when asked again; nobody asks again. */
static void lesson_09_the_first_failed_sync_is_the_last(void **state)
{
    for (failing_sync = 1;; failing_sync++) {
        struct writer w;
        writer_begin(&w);
        memory_disk_set_forgetful(w.f.disk, true);
        count_syncs(&w.f);
        memory_disk_faults();
        write_life(&w);
        bool failed = memory_disk_faults().failed > 0;
        assert_int_equal(w.stopped, failed);
        assert_int_equal(syncs, failed ? failing_sync : syncs);
        if (failed) {
            uint64_t random = 0;
            struct fixture after; /* or the power goes at once */
            fixture_after_cut(&after, w.f.disk, 0, &random);
            fixture_reopen(&after);
            assert_true(after.recovery.last_index >= w.durable);
            fixture_release(&after);
            check_restart_then_power_cut(&w);
        }
        fixture_release(&w.f);
        if (!failed)
            break;
    }
    assert_true(failing_sync > 20);
}

/* ---- 10: a suffix cut from the front --------------------------------------------------- */

static void lesson_10_the_newest_segment_goes_first(void **state)
{
    uint64_t random = 0x5eed, shorter = 0;
    bool stopped = true;
    for (uint64_t at = 1; stopped; at++) {
        struct writer w;
        writer_begin(&w);
        for (unsigned i = 0; i < 20; i++)
            writer_append(&w, 1, "k"); /* four segments */
        writer_run(&w);
        memory_disk_cut_power(w.f.disk, memory_disk_calls(w.f.disk) + at);
        assert_int_equal(store_truncate(w.f.s, 3, 2), 0);
        for (unsigned i = 0; i < 3; i++)
            writer_append(&w, 2, "k");
        writer_run(&w);
        stopped = w.stopped;
        for (unsigned n = 0; n < SUBSETS; n++) {
            struct fixture after;
            fixture_after_cut(&after, w.f.disk, n, &random);
            fixture_reopen(&after);
            assert_true(after.recovery.last_index >= 3);
            assert_int_equal(after.recovery.claim_index, 0); /* a hole */
            shorter += after.recovery.last_index < 20 && after.recovery.last_index > 6;
            fixture_release(&after);
        }
        fixture_release(&w.f);
    }
    assert_true(shorter > 0);
}

/* ---- 14: a full disk, half a change ---------------------------------------------------- */

/* Refused by the store before anything is written, or done. */
static bool append_if_room(struct writer *w, uint64_t term)
{
    if (store_has_room(w->f.s, VALUE + 200) != 0)
        return false;
    writer_append(w, term, "k");
    return true;
}

static void lesson_14_no_room_is_a_refusal(void **state)
{
    unsigned refused = 0;
    for (uint64_t more = 0; more < 5 * SMALL_SEGMENT; more += 512) {
        struct writer w;
        uint64_t term = 1;
        writer_begin(&w);
        memory_disk_set_capacity(w.f.disk, memory_disk_used(w.f.disk) + more);
        for (unsigned i = 0; i < 24; i++) {
            uint64_t last = store_last_index(w.f.s);
            refused += !append_if_room(&w, term);
            writer_run(&w);
            if (w.stopped)
                fail_msg("%s", w.f.error);
            if (i == 11 && last > 4) { /* and a truncation, in its place of the queue */
                assert_int_equal(store_truncate(w.f.s, last - 3, 2), 0);
                append_if_room(&w, ++term);
                writer_run(&w);
            }
            if (i % 6 == 5) {
                assert_int_equal(store_refresh_space(w.f.s), 0);
                writer_run(&w);
            }
            assert_false(w.stopped);
        }
        uint64_t last = store_last_index(w.f.s);
        assert_int_equal(w.durable, last);
        fixture_reopen(&w.f); /* on the full disk */
        assert_int_equal(w.f.recovery.last_index, last);
        fixture_release(&w.f);
    }
    assert_true(refused > 100);
}

/* ---- 16: the vote, lost while it was replaced ------------------------------------------ */

static void check_vote(struct fixture *after, uint64_t term)
{
    uint64_t found = after->recovery.term;
    assert_true(found >= term && found <= term + 1);
    assert_int_equal(after->recovery.vote, found * 7);
}

static void lesson_16_a_vote_is_never_lost(void **state)
{
    uint64_t random = 0x5eed;
    bool stopped = true;
    for (uint64_t at = 1; stopped; at++) {
        struct writer w;
        uint64_t term = 0; /* the last that was acknowledged */
        writer_begin(&w);
        memory_disk_cut_power(w.f.disk, memory_disk_calls(w.f.disk) + at);
        while (term < 4 && !w.stopped) {
            assert_int_equal(store_set_hard_state(w.f.s, term + 1, (term + 1) * 7), 0);
            writer_run(&w);
            term += !w.stopped;
        }
        stopped = w.stopped;
        for (unsigned n = 0; n < SUBSETS; n++) {
            struct fixture after;
            fixture_after_cut(&after, w.f.disk, n, &random);
            /* What is acknowledged is in two places: one of them may rot. */
            if (!stopped)
                memory_disk_flip(after.disk, "d/raft.state", n % 2 * 4096 + 41, 0);
            fixture_reopen(&after);
            check_vote(&after, term);
            fixture_release(&after);
        }
        fixture_release(&w.f);
    }
}

/* ---- 19: written elsewhere; and under a term that is not there yet --------------------- */

/* The write of one entry lands on another one of its size: the place has an intact entry,
 * which is not the one that belongs there. */
static void lesson_19_what_was_written_elsewhere_is_not_taken(void **state)
{
    enum { ENTRIES = 5 };
    for (uint64_t to = 1; to <= ENTRIES; to++) {
        for (uint64_t from = 1; from <= ENTRIES; from++) {
            struct writer w;
            uint8_t bytes[STORE_ENTRY_HEADER + STORE_RECORD_HEADER + 1 + VALUE];
            writer_begin(&w);
            for (unsigned i = 0; i < ENTRIES; i++)
                writer_append(&w, 1, "k");
            writer_run(&w);
            writer_apply(&w); /* a hint: all is committed */
            writer_run(&w);
            fixture_close(&w.f);
            const char *file = segment_file(1);
            uint64_t at = entry_offset(w.f.disk, file, to);
            memory_disk_peek(w.f.disk, file, entry_offset(w.f.disk, file, from), bytes,
                             sizeof(bytes));
            memory_disk_poke(w.f.disk, file, at, bytes, sizeof(bytes));
            fixture_reopen(&w.f);
            assert_int_equal(w.f.recovery.last_index, from == to ? ENTRIES : to - 1);
            assert_int_equal(w.f.recovery.claim_index, from == to ? 0 : ENTRIES);
            assert_int_equal(number_of(w.f.s, "k"), w.f.recovery.last_index);
            fixture_release(&w.f);
        }
    }
}

static void lesson_19_no_entry_is_of_a_term_that_is_not_there(void **state)
{
    uint64_t random = 0x5eed, of_new = 0;
    bool stopped = true;
    for (uint64_t at = 1; stopped; at++) {
        struct writer w;
        writer_begin(&w);
        assert_int_equal(store_set_hard_state(w.f.s, 1, 7), 0);
        for (unsigned i = 0; i < 4; i++)
            writer_append(&w, 1, "k");
        writer_run(&w);
        memory_disk_cut_power(w.f.disk, memory_disk_calls(w.f.disk) + at);
        assert_int_equal(store_set_hard_state(w.f.s, 2, 0), 0);
        assert_int_equal(store_truncate(w.f.s, 2, 2), 0);
        for (unsigned i = 0; i < 2; i++)
            writer_append(&w, 2, "k");
        writer_run(&w);
        stopped = w.stopped;
        for (unsigned n = 0; n < 4 * SUBSETS; n++) {
            struct fixture after;
            fixture_after_cut(&after, w.f.disk, n, &random);
            fixture_reopen(&after);
            const struct store_recovery *found = &after.recovery;
            uint64_t last_term = found->runs[found->run_count - 1].term;
            assert_true(found->last_index >= 2 && found->term >= last_term);
            /* Nor is anything dropped under it before. */
            assert_true(found->last_index >= 4 || found->term == 2);
            of_new += last_term == 2;
            fixture_release(&after);
        }
        fixture_release(&w.f);
    }
    assert_true(of_new > 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) /* one of them, by its name */
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lesson_01_a_state_and_its_index_are_one),
        cmocka_unit_test(lesson_07_a_batch_may_have_holes),
        cmocka_unit_test(lesson_09_the_first_failed_sync_is_the_last),
        cmocka_unit_test(lesson_10_the_newest_segment_goes_first),
        cmocka_unit_test(lesson_14_no_room_is_a_refusal),
        cmocka_unit_test(lesson_16_a_vote_is_never_lost),
        cmocka_unit_test(lesson_19_what_was_written_elsewhere_is_not_taken),
        cmocka_unit_test(lesson_19_no_entry_is_of_a_term_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
