/*
 * test_snapshot.c - merged files travel from one store to another and are installed
 * there. White-box: what a merge makes is made here by hand, to have it of any shape.
 */
#include "fixture.h"
#include "store_internal.h"

enum { SENDER = 77 };

/* ---- A sender ---------------------------------------------------------------------- */

static void fill(struct fixture *f, int count, size_t value_bytes)
{
    char key[32];
    char *value = malloc(value_bytes + 1);
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "key %05d", i * 7 % count);
        memset(value, 'a' + i % 26, value_bytes);
        value[value_bytes] = 0;
        put_one(f, key, i % 5 == 0 ? "small" : value);
    }
    free(value);
}

static struct segment *open_merged(struct store *s, const struct manifest_file *file)
{
    struct path path;
    struct segment *segment = segment_new(s, SEGMENT_MERGED, file->file_id);
    merged_path(&path, s->path, file->file_id);
    segment->fd = s->io->open(s->io->context, path.text, 2, 0);
    assert_true(segment->fd >= 0);
    segment->used = file->bytes;
    return segment;
}

static void put_records(struct merged_writer *w, const struct buf *records)
{
    struct reader r = reader_of(records->data, records->length);
    uint32_t offset;
    while (reader_left(&r) > 0) {
        const uint8_t *at = r.at;
        struct store_record record;
        assert_int_equal(store_record_read(&r, &record), 0);
        assert_int_equal(merged_writer_put(w, at, (size_t)(r.at - at), &offset), 0);
    }
}

/* Everything that is live, in merged files of about `bytes` each, published in memory: M
 * and E are what is applied. */
static void merge_all(struct fixture *f, size_t bytes)
{
    struct store *s = f->s;
    struct buf records = {0}, last = {0}, after = {0};
    for (size_t i = 0; i < s->merged_count; i++)
        segment_unref(s->merged[i]);
    free(s->merged);
    s->merged = calloc(1000, sizeof(*s->merged));
    s->merged_count = 0;
    manifest_release(&s->manifest);
    s->manifest = (struct manifest){.merged = s->applied,
                                    .applied_index = s->applied.index,
                                    .applied_term = s->applied.term,
                                    .first_file = 1,
                                    .state = strdup("the state"),
                                    .state_size = 9};
    s->manifest.files = calloc(1000, sizeof(*s->manifest.files));
    for (;;) {
        buf_clear(&records);
        assert_int_equal(store_copy(s, after.data, after.length, bytes, &records, &last),
                         0);
        if (last.length == 0)
            break;
        struct merged_writer *w;
        uint64_t hint_bytes;
        struct manifest_file *file = &s->manifest.files[s->manifest.count++];
        assert_int_equal(merged_writer_new(s, store_new_file_id(s), &w), 0);
        put_records(w, &records);
        assert_int_equal(merged_writer_finish(w, file, &hint_bytes), 0);
        merged_writer_free(w);
        s->merged[s->merged_count++] = open_merged(s, file);
        buf_clear(&after);
        buf_bytes(&after, last.data, last.length);
    }
    buf_release(&records);
    buf_release(&last);
    buf_release(&after);
    s->dropped = true;
}

static void sender_init(struct fixture *f, int count, size_t value_bytes,
                        size_t file_bytes)
{
    fixture_init(f, 64 << 10);
    fixture_reopen(f);
    fill(f, count, value_bytes);
    merge_all(f, file_bytes);
}

/* ---- The transfer ------------------------------------------------------------------ */

struct transfer {
    struct store_snapshot *snapshot;
    struct store_incoming *in;
    struct buf description;
    uint64_t bytes; /* that were sent */
};

static void transfer_open(struct transfer *t, struct fixture *from, struct fixture *to)
{
    *t = (struct transfer){0};
    assert_int_equal(store_snapshot_open(from->s, &t->snapshot), 0);
    assert_int_equal(store_snapshot_describe(t->snapshot, &t->description), 0);
    if (store_incoming_open(to->s, t->description.data, t->description.length, SENDER,
                            &t->in, to->error) != 0)
        fail_msg("%s", to->error);
}

/* Up to `count` pieces. */
static void transfer_run(struct transfer *t, struct fixture *to, size_t count)
{
    struct buf piece = {0};
    uint32_t file, length;
    uint64_t offset;
    for (; count > 0 && store_incoming_next(t->in, &file, &offset, &length); count--) {
        buf_clear(&piece);
        assert_int_equal(store_snapshot_read(t->snapshot, file, offset, length, &piece),
                         0);
        assert_int_equal(piece.length, length);
        if (store_incoming_write(t->in, file, offset, piece.data, length, to->error) != 0)
            fail_msg("%s", to->error);
        t->bytes += length;
    }
    buf_release(&piece);
}

static void transfer_prepare(struct transfer *t, struct fixture *to)
{
    if (store_incoming_prepare(t->in, to->error) != 0)
        fail_msg("%s", to->error);
}

static void transfer_close(struct transfer *t, struct fixture *from)
{
    store_snapshot_close(from->s, t->snapshot);
    store_incoming_free(t->in);
    buf_release(&t->description);
}

static void install(struct transfer *t, struct fixture *to)
{
    assert_int_equal(store_install(to->s, t->in), 0);
    t->in = NULL;
    struct store_done done = run(to);
    assert_true(done.installed && !done.install_failed);
}

/* ---- What both must hold ----------------------------------------------------------- */

static int assert_item(void *arg, const struct store_item *item)
{
    struct fixture *to = arg;
    struct buf a = {0};
    uint64_t timestamp;
    assert_int_equal(store_get(to->s, item->key, item->key_size, 0, &a, &timestamp), 0);
    assert_int_equal(timestamp, item->timestamp_us);
    assert_int_equal(a.length, item->value_size);
    buf_release(&a);
    return 0;
}

static void assert_same(struct fixture *a, struct fixture *b)
{
    struct store_stats x, y;
    store_stats(a->s, &x);
    store_stats(b->s, &y);
    assert_int_equal(x.keys, y.keys);
    assert_int_equal(x.live_bytes, y.live_bytes);
    assert_int_equal(store_scan(a->s, "", 0, NULL, 0, assert_item, b), 0);
}

/* The receiver follows the sender's log from there on. */
static void follow(struct fixture *from, struct fixture *to)
{
    while (store_last_index(to->s) < store_last_index(from->s)) {
        struct store_read *read;
        struct store_bytes *bytes;
        uint64_t last;
        assert_int_equal(store_read_plan(from->s, store_last_index(to->s) + 1, 1, &read),
                         0);
        assert_int_equal(store_read_run(read, &bytes, &last), 0);
        store_read_free(read);
        assert_int_equal(store_append(to->s, bytes, false), 0);
        store_bytes_unref(bytes);
    }
    run(to);
    apply_to(to, store_last_index(to->s));
}

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
    install(&t, &b);
    assert_value(b.s, "gone", NULL);
    assert_int_equal(store_applied(b.s), store_applied(a.s));
    assert_int_equal(store_last_index(b.s), store_applied(a.s));
    size_t length;
    assert_memory_equal(store_state(b.s, &length), "the state", 9);
    assert_int_equal(length, 9);
    assert_same(&a, &b);
    store_check(b.s);
    put_one(&a, "after", "the snapshot");
    follow(&a, &b);
    assert_value(b.s, "after", "the snapshot");
    assert_same(&a, &b);
    store_check(b.s);
    transfer_close(&t, &a);
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
    install(&t, &b);
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
    fixture_reopen(&a);
    fill(&a, 36, 300 << 10);
    merge_all(&a, 100 << 20);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    assert_int_equal(t.in->count, 1);
    transfer_run(&t, &b, 8);
    uint8_t more[1000] = {0}; /* is not synced, and lost */
    assert_int_equal(store_incoming_write(t.in, 0, 8 << 20, more, sizeof(more), b.error),
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
    assert_int_equal(store_incoming_bytes(t.in, NULL), 8 << 20);
    transfer_run(&t, &after, SIZE_MAX);
    transfer_prepare(&t, &after);
    install(&t, &after);
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
    install(&t, &b);
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
    sender_init(&a, 300, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, 3);
    transfer_close(&t, &a);
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
    install(&t, &b);
    assert_same(&a, &b);
    transfer_close(&t, &a);
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
        assert_int_equal(store_incoming_prepare(t.in, b.error), -EBADMSG);
        assert_true(b.error[0]);
        transfer_close(&t, &a);
        assert_value(b.s, "mine", "stays");
    }
    transfer_prepare(&t, &b);
    install(&t, &b);
    assert_same(&a, &b);
    transfer_close(&t, &a);
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

/* A snapshot that is no newer than what is applied is no use. */
static void test_stale(void **state)
{
    struct fixture a;
    struct transfer t;
    sender_init(&a, 20, 500, 20000);
    transfer_open(&t, &a, &a);
    transfer_run(&t, &a, SIZE_MAX);
    transfer_prepare(&t, &a);
    assert_int_equal(store_install(a.s, t.in), -ESTALE);
    transfer_close(&t, &a);
    store_check(a.s);
    fixture_release(&a);
}

static void test_no_room(void **state)
{
    struct fixture a, b;
    struct transfer t;
    sender_init(&a, 100, 500, 20000);
    fixture_init(&b, 64 << 10);
    fixture_reopen(&b);
    put_one(&b, "mine", "stays");
    transfer_open(&t, &a, &b);
    transfer_run(&t, &b, SIZE_MAX);
    transfer_prepare(&t, &b);
    memory_disk_set_capacity(b.disk, 0);
    assert_int_equal(store_install(b.s, t.in), 0);
    t.in = NULL;
    struct store_done done = run(&b);
    assert_true(!done.installed && done.install_failed);
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
    install(&t, &b);
    assert_same(&a, &b);
    store_check(b.s);
    transfer_close(&t, &a);
    fixture_release(&a);
    fixture_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_install),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_resume_within_a_file),
        cmocka_unit_test(test_merge_on_the_sender),
        cmocka_unit_test(test_other_files_of_the_sender),
        cmocka_unit_test(test_damaged_on_the_way),
        cmocka_unit_test(test_damaged_at_the_sender),
        cmocka_unit_test(test_not_a_description),
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
