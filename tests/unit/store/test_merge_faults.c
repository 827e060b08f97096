/* test_merge_faults.c - merging: what it lacks, what it meets, and cuts at every call. */
#include "merging.h"

#include "store_internal.h" /* where a record is, to damage it */

#include <fcntl.h>
#include <stdlib.h>

/* ---- What goes wrong --------------------------------------------------------------- */

static void test_a_lack_of_room_costs_nothing(void **state)
{
    unsigned given_up = 0;
    for (unsigned n = 1;; n++) {
        struct fixture f;
        make_due(&f);
        uint64_t merges = stats_of(&f).merges;
        uint64_t call = memory_disk_calls(f.disk) + n;
        memory_disk_fail_call(f.disk, call, -ENOSPC);
        int rc;
        while ((rc = try_task(&f)) == 1)
            given_up += f.s->task_retry_us[TASK_MERGE] > f.now_us;
        bool clean = memory_disk_calls(f.disk) < call;
        if (rc != 0) {
            assert_int_equal(rc, -ENOSPC); /* a directory's sync: final */
            assert_true(f.error[0]);
        } else {
            check_due(&f);
            store_check(f.s);
            assert_true(stats_of(&f).merges > merges);
            check_due(&f);
            check_names(&f);
            store_check(f.s);
        }
        fixture_release(&f);
        if (clean)
            break;
    }
    print_message("given up %u times\n", given_up);
    assert_true(given_up >= 5);
}

/* ---- A full disk ------------------------------------------------------------------- */

static bool is_low(struct fixture *f)
{
    assert_int_equal(store_refresh_space(f->s), 0);
    run(f);
    return store_space(f->s) == STORE_SPACE_LOW;
}

/* Puts of new keys until only deletes are taken; how many there are then. */
static unsigned fill_disk(struct fixture *f, unsigned key, size_t size)
{
    while (!is_low(f)) {
        put_key(f, key++, 0, size);
        run_tasks(f);
    }
    return key;
}

static void test_a_full_disk_recovers_by_itself(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    memory_disk_set_capacity(f.disk, STATE_FILES + 24 * SEGMENT);
    unsigned last = fill_disk(&f, 0, 1000), first = 0;
    assert_true(last > 200);
    for (int round = 0; round < 5; round++) {
        unsigned deleted = 0;
        while (is_low(&f) || deleted < last / 4) {
            assert_int_equal(store_has_room(f.s, 200), 0); /* deletes work */
            assert_true(first < last);
            put_one(&f, key_of(first++), NULL);
            deleted++;
            run_tasks(&f);
        }
        unsigned former = last;
        last = fill_disk(&f, last, 1000);
        assert_true(last > former + deleted / 2); /* what was made room for */
    }
    for (unsigned key = 0; key < last; key++)
        assert_value(f.s, key_of(key), key < first ? NULL : value_of(key, 0, 1000));
    assert_true(stats_of(&f).merges > 5);
    store_check(f.s);
    check_names(&f);
    fixture_release(&f);
}

/* What people remove first is the newest: then the log begins with what stays. */
static void test_a_full_disk_recovers_when_the_newest_goes(void **state)
{
    enum { LARGE_SEGMENT = 128 << 10, LARGE = 16000 };
    struct fixture f;
    open_new(&f, LARGE_SEGMENT);
    memory_disk_set_capacity(f.disk, STATE_FILES + 16 * LARGE_SEGMENT);
    unsigned last = fill_disk(&f, 0, LARGE);
    assert_true(last > 80);
    for (int round = 0; round < 3; round++) {
        unsigned former = last;
        while (last > former / 2) {
            assert_int_equal(store_has_room(f.s, 200), 0);
            put_one(&f, key_of(--last), NULL);
            run_tasks(&f);
        }
        assert_false(is_low(&f));
        last = fill_disk(&f, last, LARGE);
        assert_true(last > former - former / 8);
    }
    for (unsigned key = 0; key < last; key++)
        assert_value(f.s, key_of(key), value_of(key, 0, LARGE));
    store_check(f.s);
    check_names(&f);
    fixture_release(&f);
}

/* Others have taken all that was free. */
static void test_a_disk_filled_by_others(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    unsigned last = fill_segments_with(&f, 0, 12, 1000), key = 0;
    run_tasks(&f);
    memory_disk_set_capacity(f.disk, memory_disk_used(f.disk));
    assert_true(is_low(&f) && stats_of(&f).disk_free_bytes == 0);
    while (is_low(&f)) {
        assert_int_equal(store_has_room(f.s, 200), 0); /* deletes work */
        assert_true(key < last);
        put_one(&f, key_of(key++), NULL);
        run_tasks(&f);
        store_check(f.s);
    }
    assert_true(key < last / 2);
    for (unsigned i = 0; i < last; i++)
        assert_value(f.s, key_of(i), i < key ? NULL : value_of(i, 0, 1000));
    check_names(&f);
    fixture_reopen(&f);
    store_check(f.s);
    fixture_release(&f);
}

static void test_a_bad_record_is_not_copied(void **state)
{
    struct fixture f;
    make_due(&f);
    /* The newest version of key 29 is in the first log segment, or merged. */
    reading_begin();
    const struct keydir_node *node = keydir_find(f.s->keydir, key_of(29), 8);
    uint64_t place = keydir_place(node);
    struct segment *segment = place_segment(f.s->slots, place);
    reading_end();
    const char *path =
        file_of(segment->file_id, segment->kind == SEGMENT_LOG ? "seg" : "mrg");
    uint8_t byte;
    memory_disk_peek(f.disk, path, place_offset(place) + 100, &byte, 1);
    byte ^= 4;
    memory_disk_poke(f.disk, path, place_offset(place) + 100, &byte, 1);
    uint64_t merges = stats_of(&f).merges;
    uint64_t file_id = segment->file_id;
    for (int i = 0; i < 10; i++)
        run_task(&f);
    assert_true(memory_disk_exists(f.disk, path));
    struct buf got = {0};
    assert_int_equal(store_get(f.s, key_of(29), 8, 0, &got, NULL), -EBADMSG);
    check_names(&f);
    byte ^= 4;
    memory_disk_poke(f.disk, path, place_offset(place) + 100, &byte, 1);
    f.now_us += HURT_US;
    run_tasks(&f);
    assert_true(stats_of(&f).merges > merges);
    assert_false(memory_disk_exists(f.disk, file_of(file_id, "seg")));
    check_due(&f);
    store_check(f.s);
    buf_release(&got);
    fixture_release(&f);
}

/* It is none of a round's while it is hurt: nothing else is merged in its stead. */
static void test_a_worn_file_waits(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    unsigned last = fill_segments_with(&f, 0, 40, 1000);
    for (unsigned i = 0; i < last; i += 3)
        put_one(&f, key_of(i), NULL);
    run_tasks(&f);
    fill_segments_with(&f, 1000, 1, 200);
    for (unsigned i = 1; i < last / 6; i += 3)
        put_one(&f, key_of(i), NULL);
    run_tasks(&f); /* until none is due */
    uint64_t merges = stats_of(&f).merges;
    assert_true(merges > 0);
    struct segment *worn = f.s->merged[f.s->merged_count - 1];
    uint64_t file_id = worn->file_id;
    worn->worn = true;
    worn->hurt_until_us = UINT64_MAX;
    run_tasks(&f);
    assert_int_equal(stats_of(&f).merges, merges);
    worn->hurt_until_us = 0;
    run_tasks(&f);
    assert_int_equal(stats_of(&f).merges, merges + 1);
    assert_false(memory_disk_exists(f.disk, file_of(file_id, "mrg")));
    store_check(f.s);
    fixture_release(&f);
}

/* ---- Damaged hints ----------------------------------------------------------------- */

static void spoil_hint(struct fixture *f, const struct segment *segment)
{
    char path[64];
    snprintf(path, sizeof(path), "%s", file_of(segment->file_id, "hint"));
    memory_disk_flip(f->disk, path, SEGMENT_HEADER + 20, 3);
}

/* Of victims and of files that are only asked: the round is given up, or keeps its
 * tombstones, and the hint is made anew. */
static void test_damaged_hints_are_made_anew(void **state)
{
    struct fixture f;
    make_due(&f);
    while (stats_of(&f).merges < 2) /* also those of the newest segments */
        assert_true(run_task(&f));
    f.unchecked = true; /* what is damaged is no hint */
    for (size_t i = 0; i < f.s->merged_count; i++)
        spoil_hint(&f, f.s->merged[i]);
    for (size_t i = 0; i < f.s->segment_count; i++) {
        if (f.s->segments[i]->hint_bytes > 0)
            spoil_hint(&f, f.s->segments[i]);
    }
    uint64_t merges = stats_of(&f).merges;
    for (unsigned i = 0; i < 10; i++)
        put_one(&f, key_of(i), NULL);
    for (unsigned version = 5000; stats_of(&f).merges < merges + 3; version++) {
        put_key(&f, 28, version, 400);
        put_key(&f, 28, 2000, 400);
        run_tasks(&f);
        assert_true(version < 10000);
    }
    put_key(&f, 28, 60 + 28, 400);
    for (unsigned key = 10; key < 30; key++) { /* every file is merged once */
        put_key(&f, key, 0, 400);
        run_tasks(&f);
    }
    store_check(f.s);
    check_names(&f);
    fixture_release(&f);
}

/* ---- Power cuts, and what must not come back (G7) ---------------------------------- */

/* A store on a disk as it is found after a cut, or after kill -9. */
static void open_on(struct fixture *f, struct memory_disk *disk)
{
    fixture_init_on(f, disk, SEGMENT);
    if (fixture_open(f) != 0)
        fail_msg("%s", f->error);
}

/* It has everything, and goes on. */
static void check_after(struct memory_disk *disk)
{
    struct fixture after;
    open_on(&after, disk);
    assert_true(store_is_ready(after.s));
    check_due(&after);
    store_check(after.s);
    run_tasks(&after);
    fill_segments(&after, 40, 3);
    run_tasks(&after);
    check_due(&after);
    check_names(&after);
    fixture_reopen(&after);
    check_due(&after);
    store_check(after.s);
    fixture_release(&after);
}

static struct memory_disk *crashed(struct memory_disk *disk, uint64_t *seed, int kept)
{
    size_t loose = memory_disk_loose(disk);
    bool *keep = calloc(loose + 1, sizeof(*keep));
    for (size_t i = 0; i < loose; i++)
        keep[i] = kept == 0 ? false : kept == 1 ? true : random_next(seed) & 1;
    struct memory_disk *after = memory_disk_crash(disk, keep, SIZE_MAX);
    free(keep);
    return after;
}

/* Of what was not synced nothing, all, or some is there; no commit hint says what was
 * committed: only the manifest does. */
static void test_a_cut_at_every_call(void **state)
{
    uint64_t seed = 3, published = 0;
    for (unsigned n = 1;; n++) {
        struct fixture f;
        make_due(&f);
        /* An entry that nothing proves may be lost: this one is not needed. */
        put_one(&f, "unproven", "x");
        uint64_t call = memory_disk_calls(f.disk) + n;
        memory_disk_cut_power(f.disk, call);
        int rc;
        while ((rc = try_task(&f)) == 1)
            ;
        bool clean = memory_disk_calls(f.disk) < call;
        assert_true(clean == (rc == 0));
        struct store_manifest manifest;
        published += store_manifest(f.s, &manifest);
        for (int kept = 0; kept < 4; kept++)
            check_after(crashed(f.disk, &seed, kept));
        fixture_release(&f);
        if (clean)
            break;
        assert_true(n < 1000);
    }
    assert_true(published > 5);
}

/* A process that is killed between any two stretches leaves no more and no less. */
static void test_a_kill_between_stretches(void **state)
{
    for (unsigned n = 1;; n++) {
        struct fixture f;
        make_due(&f);
        unsigned stretches = 0;
        bool killed = false;
        for (struct store_task *task;
             !killed && (task = store_next_task(f.s, f.now_us += 2000000));) {
            bool more = true;
            while (more && !killed) {
                uint64_t wait_us;
                int rc = store_run_task(task, &wait_us, f.error);
                assert_true(rc >= 0);
                killed = ++stretches == n;
                more = rc == 1 || (!killed && store_step_task(f.s, task));
            }
        }
        check_after(memory_disk_copy(f.disk));
        fixture_release(&f);
        if (!killed)
            break;
    }
}

/* Schedule of G7: a record is superseded after M and before E, and the merge leaves it
 * out. Whoever starts from the manifest must apply up to E before it serves anything. */
static void test_a_start_applies_up_to_e(void **state)
{
    struct fixture f;
    open_new(&f, SEGMENT);
    put_key(&f, 0, 7, 1000);
    put_key(&f, 1, 7, 1000);
    for (unsigned version = 0; stats_of(&f).segments < 3; version++)
        put_key(&f, 2, version, 1000);
    put_key(&f, 0, 8, 1000);      /* in the active segment: */
    put_one(&f, key_of(1), NULL); /* the versions of the first are dead */
    assert_true(run_tasks(&f) > 0);
    uint64_t applied = store_applied(f.s);
    assert_true(base_of(&f) < applied - 2);
    /* Durable, and nothing says that it is committed. */
    struct put later = {.key = "later", .value = "y"};
    struct store_bytes *entry = make_entry(f.s, 1, 0, &later, 1);
    assert_int_equal(store_append(f.s, entry, true), 0);
    store_bytes_unref(entry);
    run(&f);
    struct fixture after;
    open_on(&after, memory_disk_copy(f.disk));
    assert_int_equal(after.recovery.commit, applied);
    assert_int_equal(after.recovery.base_index, base_of(&f));
    assert_value(after.s, key_of(0), value_of(0, 8, 1000));
    assert_value(after.s, key_of(1), NULL);
    assert_value(after.s, "later", NULL);
    assert_true(store_is_ready(after.s));
    fixture_release(&after);
    fixture_release(&f);
}

/* As after an install, or where a hole in the log comes before E. */
static void test_nothing_is_merged_before_e_is_applied(void **state)
{
    struct fixture f;
    make_due(&f);
    uint64_t merges = stats_of(&f).merges;
    assert_true(merges > 0);
    f.unchecked = true; /* the manifest is not the one on disk */
    uint64_t applied_index = f.s->manifest.applied_index;
    f.s->manifest.applied_index = store_applied(f.s) + 1;
    assert_false(store_is_ready(f.s));
    run_tasks(&f);
    assert_int_equal(stats_of(&f).merges, merges);
    f.s->manifest.applied_index = applied_index;
    assert_true(store_is_ready(f.s));
    run_tasks(&f);
    assert_true(stats_of(&f).merges > merges);
    fixture_release(&f);
}

/* The files of a victim come back, as if their removal had not reached the disk. */
static void test_removed_files_do_not_count(void **state)
{
    struct fixture f;
    make_due(&f);
    struct memory_disk *former = memory_disk_copy(f.disk);
    uint64_t ids = f.s->next_file_id;
    assert_true(run_tasks(&f) > 0);
    struct memory_disk *disk = memory_disk_copy(f.disk);
    struct store_io io = memory_disk_io(disk);
    unsigned put_back = 0;
    for (uint64_t id = 1; id < ids; id++) {
        for (int kind = 0; kind < 2; kind++) {
            const char *path = file_of(id, kind ? "mrg" : "seg");
            if (!memory_disk_exists(former, path) || memory_disk_exists(disk, path))
                continue;
            size_t size = memory_disk_size(former, path);
            uint8_t *bytes = malloc(size);
            memory_disk_peek(former, path, 0, bytes, size);
            int fd = io.open(io.context, path, O_RDWR | O_CREAT, 0600);
            struct iovec iov = {bytes, size};
            assert_int_equal(write_full(&io, fd, &iov, 1, 0), 0);
            io.close(io.context, fd);
            free(bytes);
            put_back++;
        }
    }
    assert_true(put_back >= 3);
    check_after(disk);
    memory_disk_free(former);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lack_of_room_costs_nothing),
        cmocka_unit_test(test_a_full_disk_recovers_by_itself),
        cmocka_unit_test(test_a_full_disk_recovers_when_the_newest_goes),
        cmocka_unit_test(test_a_disk_filled_by_others),
        cmocka_unit_test(test_a_bad_record_is_not_copied),
        cmocka_unit_test(test_a_worn_file_waits),
        cmocka_unit_test(test_damaged_hints_are_made_anew),
        cmocka_unit_test(test_a_cut_at_every_call),
        cmocka_unit_test(test_a_kill_between_stretches),
        cmocka_unit_test(test_a_start_applies_up_to_e),
        cmocka_unit_test(test_nothing_is_merged_before_e_is_applied),
        cmocka_unit_test(test_removed_files_do_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
