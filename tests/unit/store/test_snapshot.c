/*
 * test_snapshot.c - merged files travel from one store to another and are installed
 * there.
 */
#include "transfer.h"

#include <sched.h>

/* ---- Tests ------------------------------------------------------------------------- */

static void test_install(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 300, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    fill(&b, 40, 3000); /* some segments of its own, which go */
    put_one(&b, "gone", "with all that was here");
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, SIZE_MAX);
    transfer_prepare(&t, &b);
    assert_value(b.s, "gone", "with all that was here");
    transfer_install(&t, &b);
    assert_value(b.s, "gone", NULL);
    assert_int_equal(store_applied(b.s), store_applied(a.s));
    assert_int_equal(store_last_index(b.s), store_applied(a.s));
    size_t length, sent;
    const void *sent_state = store_state(a.s, &sent);
    assert_memory_equal(store_state(b.s, &length), sent_state, sent);
    assert_int_equal(length, sent);
    assert_same(&a, &b);
    store_check(b.s);
    assert_false(memory_disk_exists(b.disk, segment_file(1)));
    fixture_reopen(&b);
    assert_same(&a, &b);
    store_check(b.s);
    put_one(&a, "after", "the snapshot");
    follow(&a, &b);
    fixture_reopen(&b);
    apply_to(&b, store_last_index(b.s));
    assert_value(b.s, "after", "the snapshot");
    assert_same(&a, &b);
    store_check(b.s);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

/* What is merged was made at E, later than M: until the log behind M is here up to E, it
 * lacks what was superseded on the way (G7). */
static void test_not_ready_before_e(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 50, 500, 20000);
    struct chain merged = a.s->applied;
    put_one(&a, "key 00001", "superseded");
    put_one(&a, "key 00002", NULL);
    put_one(&a, "key 00001", "a value of more than sixteen bytes");
    merge_all(&a, 20000);
    a.s->manifest.merged = merged;
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_all(&t, &a, &b);
    assert_int_equal(store_applied(b.s), merged.index);
    assert_false(store_is_ready(b.s));
    assert_null(store_next_task(b.s, 1000 * 1000)); /* and nothing is merged */
    fixture_reopen(&b);
    assert_false(store_is_ready(b.s));
    put_one(&a, "later", "than E");
    follow(&a, &b);
    assert_true(store_is_ready(b.s));
    assert_same(&a, &b);
    assert_value(b.s, "key 00002", NULL);
    store_check(b.s);
    fixture_reopen(&b);
    assert_true(store_is_ready(b.s)); /* E is committed, whatever the hint says */
    store_check(b.s);
    fixture_release(&a);
    fixture_release(&b);
}

/* What is there when the receiver stops need not be sent again. */
static void test_resume(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 300, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    uint64_t total, sent;
    assert_int_equal(store_incoming_bytes(t.in, &total), 0);
    transfer_run(&t, &b, 3);
    sent = t.bytes;
    assert_true(sent > 0 && sent < total);
    transfer_close(&t, &a);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    assert_int_equal(store_incoming_bytes(t.in, NULL), sent);
    transfer_run(&t, &b, SIZE_MAX);
    assert_int_equal(t.bytes, total - sent);
    transfer_prepare(&t, &b);
    transfer_install(&t, &b);
    assert_same(&a, &b);
    store_check(b.s);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

/* A file that is half there goes on in its middle, after a power cut where it was synced.
 */
static void test_resume_within_a_file(void **state)
{
    struct fixture a, b, after;
    struct transfer t;
    fixture_init(&a, 9 << 20);
    a.unchecked = true;
    fixture_reopen(&a);
    fill(&a, 36, 300 << 10);
    merge_all(&a, 100 << 20);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    assert_int_equal(t.in->count, 1);
    transfer_run(&t, &b, 2);
    uint8_t more[1000] = {0}; /* is not synced, and lost */
    assert_int_equal(store_incoming_write(t.in, 0, 2 << 20, more, sizeof(more), b.error),
                     0);
    size_t loose = memory_disk_loose(b.disk);
    bool *keep = calloc(loose + 1, sizeof(*keep));
    fixture_init_on(&after, memory_disk_crash(b.disk, keep, SIZE_MAX), 64 << 10);
    free(keep);
    fixture_reopen(&after);
    store_incoming_free(t.in);
    assert_int_equal(store_incoming_open(after.s, t.description.data,
                                         t.description.length, SENDER, &t.in, b.error),
                     0);
    assert_int_equal(store_incoming_bytes(t.in, NULL), 2 << 20);
    transfer_run(&t, &after, SIZE_MAX);
    transfer_prepare(&t, &after);
    transfer_install(&t, &after);
    assert_same(&a, &after);
    store_check(after.s);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
    fixture_release(&after);
}

/* The sender merges while it sends: what it has begun with stays readable; who begins
 * anew keeps the files that are still the same. */
static void test_merge_on_the_sender(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 300, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, 2);
    for (size_t i = 0; i < a.s->merged_count; i++) {
        struct path path;
        merged_path(&path, a.s->path, a.s->merged[i]->file_id);
        assert_int_equal(a.io.unlink(a.io.context, path.text), 0);
    }
    put_one(&a, "key 00001", "changed meanwhile");
    merge_all(&a, 30000);
    transfer_run(&t, &b, SIZE_MAX);
    transfer_prepare(&t, &b);
    transfer_install(&t, &b);
    follow(&a, &b);
    assert_same(&a, &b);
    assert_value(b.s, "key 00001", "changed meanwhile");
    store_check(b.s);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

static void test_other_files_of_the_sender(void **state)
{
    struct fixture a, b;
    struct transfer t;
    struct store_incoming *in;
    sender_init(&a, 300, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, 3);
    transfer_close(&t, &a);
    struct fixture other; /* for whom it is another sender's */
    fixture_init_on(&other, memory_disk_copy(b.disk), 64 << 10);
    fixture_reopen(&other);
    transfer_open(&t, &a, &b);
    assert_int_equal(store_incoming_open(other.s, t.description.data,
                                         t.description.length, SENDER + 1, &in, b.error),
                     0);
    assert_int_equal(store_incoming_bytes(in, NULL), 0);
    store_incoming_free(in);
    fixture_release(&other);
    transfer_close(&t, &a);
    fixture_init_on(&other, memory_disk_copy(b.disk), 64 << 10);
    fixture_reopen(&other);
    a.s->manifest.files[0].records++; /* not the same, for all its name */
    transfer_open(&t, &a, &other);
    assert_int_equal(store_incoming_bytes(t.in, NULL),
                     2 * (a.s->manifest.files[1].bytes - SEGMENT_HEADER));
    transfer_close(&t, &a);
    fixture_release(&other);
    a.s->manifest.files[0].records--;
    /* The first of three stays, as if the others had been merged. */
    struct manifest_file *files = a.s->manifest.files;
    struct segment **merged = a.s->merged;
    size_t count = a.s->merged_count;
    uint64_t first = files[0].bytes - SEGMENT_HEADER;
    struct path path;
    for (size_t i = 1; i < count; i++) {
        struct path to;
        merged_path(&path, a.s->path, files[i].file_id);
        files[i].file_id += 1000;
        merged[i]->file_id += 1000;
        merged_path(&to, a.s->path, files[i].file_id);
        assert_int_equal(a.io.rename(a.io.context, path.text, to.text), 0);
    }
    transfer_open(&t, &a, &b);
    assert_int_equal(store_incoming_bytes(t.in, NULL), first);
    incoming_part_path(&path, b.s->path, files[1].file_id - 1000);
    assert_false(memory_disk_exists(b.disk, path.text));
    transfer_run(&t, &b, SIZE_MAX);
    transfer_prepare(&t, &b);
    transfer_install(&t, &b);
    assert_same(&a, &b);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

/* ---- Readers ----------------------------------------------------------------------- */

struct reading {
    struct store *s;
    _Atomic bool stop;
    _Atomic uint64_t looks;
};

static int count_item(void *arg, const struct store_item *item)
{
    *(uint64_t *)arg += item->key_size > 0;
    return 0;
}

/* Sees the former state or the new one, each value whole. */
static void *read_on(void *arg)
{
    struct reading *reading = arg;
    while (!atomic_load(&reading->stop)) {
        uint64_t begun, count;
        struct buf got = {0};
        int rc;
        do {
            begun = store_read_begin(reading->s);
            buf_clear(&got);
            count = 0;
            rc = store_get(reading->s, "key 00001", 9, 0, &got, NULL);
            store_scan(reading->s, "", 0, NULL, 0, count_item, &count);
        } while (store_read_retry(reading->s, begun));
        ensure(rc == 0 && (got.length == 3000 || got.length == 500));
        ensure(count == (got.length == 500 ? 300 : 40));
        buf_release(&got);
        atomic_fetch_add(&reading->looks, 1);
    }
    return NULL;
}

static void await_looks(struct reading *reading, uint64_t more)
{
    uint64_t enough = atomic_load(&reading->looks) + more;
    while (atomic_load(&reading->looks) < enough)
        sched_yield();
}

static void test_readers_meanwhile(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 300, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    b.unchecked = true; /* it reads the disk, which is the other thread's too */
    fill(&b, 40, 3000);
    struct reading reading = {.s = b.s};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_on, &reading), 0);
    await_looks(&reading, 3);
    transfer_all(&t, &a, &b);
    await_looks(&reading, 3);
    atomic_store(&reading.stop, true);
    pthread_join(thread, NULL);
    assert_same(&a, &b);
    store_check(b.s);
    fixture_release(&a);
    fixture_release(&b);
}

/* ---- What is wrong is noticed ------------------------------------------------------ */

static void test_damaged_on_the_way(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 100, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    put_one(&b, "mine", "stays");
    for (int round = 0; round < 2; round++) {
        transfer_open(&t, &a, &b);
        assert_int_equal(store_incoming_bytes(t.in, NULL), 0); /* nothing was kept */
        transfer_run(&t, &b, SIZE_MAX);
        if (round > 0)
            break;
        struct path path;
        incoming_part_path(&path, "d", t.in->files[1].from.file_id);
        uint8_t byte;
        memory_disk_peek(b.disk, path.text, 700, &byte, 1);
        byte ^= 1;
        memory_disk_poke(b.disk, path.text, 700, &byte, 1);
        assert_int_equal(prepare_all(t.in, b.error), -EBADMSG);
        assert_true(b.error[0]);
        transfer_close(&t, &a);
        assert_value(b.s, "mine", "stays");
    }
    transfer_prepare(&t, &b);
    transfer_install(&t, &b);
    assert_same(&a, &b);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

/* All records are intact, but they are not what was described. */
static void test_not_what_was_described(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 100, 500, 20000);
    struct manifest_file *file = &a.s->manifest.files[1];
    uint64_t *const numbers[] = {&file->records, &file->min_timestamp_us,
                                 &file->max_timestamp_us};
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    for (size_t i = 0; i < array_length(numbers); i++) {
        *numbers[i] += 1;
        transfer_open(&t, &a, &b);
        transfer_run(&t, &b, SIZE_MAX);
        assert_int_equal(prepare_all(t.in, b.error), -EBADMSG);
        transfer_close(&t, &a);
        *numbers[i] -= 1;
    }
    transfer_all(&t, &a, &b);
    assert_same(&a, &b);
    fixture_release(&a);
    fixture_release(&b);
}

static void test_damaged_at_the_sender(void **state)
{
    struct fixture a;
    struct store_snapshot *snapshot;
    sender_init(&a, 100, 500, 20000);
    struct path path;
    merged_path(&path, "d", a.s->merged[1]->file_id);
    uint8_t byte = 0xee;
    memory_disk_poke(a.disk, path.text, 5000, &byte, 1);
    assert_int_equal(store_snapshot_open(a.s, &snapshot), 0);
    struct buf piece = {0};
    size_t good = 0;
    int rc = 0;
    while (rc == 0 && good < a.s->merged[1]->used) {
        buf_clear(&piece);
        rc = store_snapshot_read(snapshot, 1, good, 100, &piece);
        good += piece.length;
    }
    assert_int_equal(rc, -EBADMSG);
    assert_true(good >= 4900 && good < 5600);
    assert_true(atomic_load(&a.s->merged[1]->suspect));
    assert_false(atomic_load(&a.s->merged[0]->suspect));
    assert_int_equal(store_snapshot_read(snapshot, 9999, 0, 1, &piece), -ENOENT);
    assert_int_equal(store_snapshot_read(snapshot, 0, 1 << 30, 1, &piece), -EINVAL);
    buf_release(&piece);
    store_snapshot_close(a.s, snapshot);
    fixture_release(&a);
}

static void test_not_a_description(void **state)
{
    struct fixture a, b;
    struct store_snapshot *snapshot;
    struct store_incoming *in;
    struct buf description = {0};
    sender_init(&a, 20, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    assert_int_equal(store_snapshot_open(b.s, &snapshot), -ENOENT);
    assert_int_equal(store_snapshot_open(a.s, &snapshot), 0);
    assert_int_equal(store_snapshot_describe(snapshot, &description), 0);
    for (size_t length = 0; length < description.length; length++)
        assert_int_equal(
            store_incoming_open(b.s, description.data, length, 1, &in, b.error), -EPROTO);
    b.s->cluster_id[3] ^= 1;
    assert_int_equal(
        store_incoming_open(b.s, description.data, description.length, 1, &in, b.error),
        -EPROTO);
    b.s->cluster_id[3] ^= 1;
    buf_release(&description);
    store_snapshot_close(a.s, snapshot);
    fixture_release(&a);
    fixture_release(&b);
}

static void test_out_of_order(void **state)
{
    struct fixture a, b;
    struct transfer t;
    uint8_t bytes[16] = {0};
    sender_init(&a, 100, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    assert_int_equal(store_incoming_write(t.in, 0, 16, bytes, 16, b.error), -EINVAL);
    assert_int_equal(store_incoming_write(t.in, 1, 0, bytes, 16, b.error), -EINVAL);
    assert_int_equal(store_incoming_write(t.in, 0, 0, bytes, 16, b.error), 0);
    assert_int_equal(store_incoming_write(t.in, 0, 0, bytes, 16, b.error), -EINVAL);
    uint32_t file, length;
    uint64_t offset;
    assert_true(store_incoming_ahead(t.in, 1, &file, &offset, &length));
    assert_int_equal(file, 1);
    assert_int_equal(offset, 0);
    assert_false(store_incoming_ahead(t.in, t.in->count, &file, &offset, &length));
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

/* A snapshot that is no newer than what is applied is no use. What was installed can be
 * sent on. */
static void test_stale(void **state)
{
    struct fixture a, b, c;
    struct transfer t;
    sender_init(&a, 20, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_all(&t, &a, &b);
    transfer_open(&t, &b, &b);
    transfer_run(&t, &b, SIZE_MAX);
    transfer_prepare(&t, &b);
    assert_int_equal(store_install(b.s, t.in), -ESTALE);
    transfer_close(&t, &b);
    store_check(b.s);
    fixture_init(&c, 64 << 10);
    fixture_reopen(&c);
    transfer_all(&t, &b, &c);
    assert_same(&a, &c);
    store_check(c.s);
    fixture_release(&a);
    fixture_release(&b);
    fixture_release(&c);
}

/* A task that is running is waited for. */
static void test_beside_a_task(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 100, 500, 20000);
    fixture_init(&b, 16 << 10);
    fixture_reopen(&b);
    fill(&b, 60, 1000);
    transfer_open(&t, &a, &b);
    assert_non_null(a.s->pins); /* what comes after the snapshot stays meanwhile */
    transfer_run(&t, &b, SIZE_MAX);
    transfer_prepare(&t, &b);
    struct store_task *task = store_next_task(b.s, 1000 * 1000);
    assert_non_null(task);
    assert_int_equal(store_install(b.s, t.in), -EBUSY);
    do {
        uint64_t wait_us;
        while (store_run_task(task, &wait_us, b.error) == 1)
            ;
    } while (store_step_task(b.s, task));
    damage_found_entry(b.s, 3, 1);
    assert_int_equal(store_install(b.s, t.in), 0);
    assert_null(store_next_task(b.s, 9000 * 1000));
    t.in = NULL;
    assert_true(run(&b).installed);
    struct store_damage damage;
    assert_false(store_next_damage(b.s, &damage));
    assert_same(&a, &b);
    store_check(b.s);
    transfer_close(&t, &a);
    assert_null(a.s->pins);
    fixture_release(&a);
    fixture_release(&b);
}

static int count_name(void *arg, const char *name)
{
    *(size_t *)arg += 1;
    return 0;
}

static size_t count_files(const struct fixture *f)
{
    size_t count = 0;
    assert_int_equal(f->s->io->list(f->s->io->context, "d/log", count_name, &count), 0);
    return count;
}

/* Each step does little, so that others have their turn; whichever is the last one. */
static void test_prepared_in_steps(void **state)
{
    struct fixture a, b;
    struct transfer t;
    bool more = true;
    fixture_init(&a, 4 << 20);
    a.unchecked = true; /* its manifest is not on disk */
    fixture_reopen(&a);
    fill(&a, 3000, 1000);
    merge_all(&a, 2 << 20);
    fixture_init(&b, 4 << 20);
    fixture_reopen(&b);
    size_t files = count_files(&b), count = 0;
    for (size_t stop = 1; more; stop++) {
        int rc = 1;
        transfer_open(&t, &a, &b);
        transfer_run(&t, &b, SIZE_MAX);
        for (count = 0; rc == 1 && count < stop; count++) {
            uint64_t wait_us;
            uint64_t before = memory_disk_reads(b.disk) + memory_disk_calls(b.disk);
            rc = store_incoming_prepare(t.in, &wait_us, b.error);
            assert_true(rc == 0 || rc == 1);
            assert_true(memory_disk_reads(b.disk) + memory_disk_calls(b.disk) - before <
                        12);
            assert_true(wait_us <= 1000000);
        }
        more = rc == 1;
        transfer_close(&t, &a);
        assert_int_equal(count_files(&b), files);
    }
    assert_true(count > 4 * a.s->merged_count);
    transfer_all(&t, &a, &b);
    assert_same(&a, &b);
    fixture_release(&a);
    fixture_release(&b);
}

static void test_no_room(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 100, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    put_one(&b, "mine", "stays");
    size_t files = count_files(&b);
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, SIZE_MAX);
    transfer_prepare(&t, &b);
    memory_disk_set_capacity(b.disk, 0);
    assert_int_equal(store_install(b.s, t.in), 0);
    t.in = NULL;
    struct store_done done = run(&b);
    assert_true(!done.installed && done.install_failed && done.incoming);
    store_incoming_free(done.incoming);
    assert_int_equal(count_files(&b), files);
    assert_int_equal(b.s->spare_state, SPARE_READY); /* its space is still the log's */
    assert_value(b.s, "mine", "stays");
    memory_disk_set_capacity(b.disk, UINT64_MAX);
    store_refresh_space(b.s);
    run(&b);
    put_one(&b, "more", "is taken");
    store_check(b.s);
    transfer_close(&t, &a);
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, SIZE_MAX);
    assert_int_equal(t.bytes, 0);
    transfer_prepare(&t, &b);
    transfer_install(&t, &b);
    assert_same(&a, &b);
    store_check(b.s);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

/* A full disk is not kept full by what has come of a snapshot that does not fit. */
static void test_no_room_for_a_piece(void **state)
{
    struct fixture a, b;
    struct transfer t;
    uint32_t file, length;
    uint64_t offset;
    struct buf piece = {0};
    sender_init(&a, 400, 500, 50000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    uint64_t used = memory_disk_used(b.disk);
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, 1);
    assert_true(memory_disk_used(b.disk) > used + 40000);
    assert_true(store_incoming_next(t.in, &file, &offset, &length));
    assert_int_equal(store_snapshot_read(t.snapshot, file, offset, length, &piece), 0);
    memory_disk_set_capacity(b.disk, memory_disk_used(b.disk));
    assert_int_equal(
        store_incoming_write(t.in, file, offset, piece.data, length, b.error), -ENOSPC);
    assert_true(memory_disk_used(b.disk) <= used);
    transfer_close(&t, &a);
    memory_disk_set_capacity(b.disk, UINT64_MAX);
    transfer_all(&t, &a, &b);
    assert_same(&a, &b);
    buf_release(&piece);
    fixture_release(&a);
    fixture_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_install),
        cmocka_unit_test(test_not_ready_before_e),
        cmocka_unit_test(test_readers_meanwhile),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_resume_within_a_file),
        cmocka_unit_test(test_merge_on_the_sender),
        cmocka_unit_test(test_other_files_of_the_sender),
        cmocka_unit_test(test_damaged_on_the_way),
        cmocka_unit_test(test_not_what_was_described),
        cmocka_unit_test(test_damaged_at_the_sender),
        cmocka_unit_test(test_not_a_description),
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_beside_a_task),
        cmocka_unit_test(test_prepared_in_steps),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_no_room_for_a_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
