/* transfer.c - see the header. */
#include "transfer.h"

/* ---- A sender ---------------------------------------------------------------------- */

void fill(struct fixture *f, int count, size_t value_bytes)
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

/* One that hides nothing any more. */
static void put_tombstone(struct merged_writer *w)
{
    struct buf record = {0};
    record_encode(&record, 1, "~gone", 5, NULL, 0);
    assert_int_equal(merged_writer_put(w, record.data, record.length, NULL), 0);
    buf_release(&record);
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

static bool is_last(const struct store *s, const struct buf *key)
{
    struct keydir_cursor cursor;
    ensure(keydir_seek(s->keydir, &cursor, key->data, key->length));
    return !keydir_next(&cursor);
}

void merge_all(struct fixture *f, size_t bytes)
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
                                    .first_file = 1};
    struct buf state = {0};
    assert_int_equal(s->save_state(s->context, &state), 0);
    s->manifest.state = state.data;
    s->manifest.state_size = state.length;
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
        if (is_last(s, &last))
            put_tombstone(w);
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

void sender_init(struct fixture *f, int count, size_t value_bytes, size_t file_bytes)
{
    fixture_init(f, 64 << 10);
    f->unchecked = true; /* its manifest is not on disk */
    fixture_reopen(f);
    fill(f, count, value_bytes);
    merge_all(f, file_bytes);
}

/* ---- The transfer ------------------------------------------------------------------ */

void transfer_open(struct transfer *t, struct fixture *from, struct fixture *to)
{
    *t = (struct transfer){0};
    assert_int_equal(store_snapshot_open(from->s, &t->snapshot), 0);
    assert_int_equal(store_snapshot_describe(t->snapshot, &t->description), 0);
    if (store_incoming_open(to->s, t->description.data, t->description.length, SENDER,
                            &t->in, to->error) != 0)
        fail_msg("%s", to->error);
}

void transfer_run(struct transfer *t, struct fixture *to, size_t count)
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

int prepare_all(struct store_incoming *in, char error[STORE_ERROR_BYTES])
{
    uint64_t wait_us;
    int rc;
    while ((rc = store_incoming_prepare(in, &wait_us, error)) == 1)
        ;
    return rc;
}

void transfer_prepare(struct transfer *t, struct fixture *to)
{
    if (prepare_all(t->in, to->error) != 0)
        fail_msg("%s", to->error);
}

void transfer_close(struct transfer *t, struct fixture *from)
{
    store_snapshot_close(from->s, t->snapshot);
    store_incoming_free(t->in);
    buf_release(&t->description);
}

void transfer_install(struct transfer *t, struct fixture *to)
{
    assert_int_equal(store_install(to->s, t->in), 0);
    t->in = NULL;
    struct store_done done = run(to);
    assert_true(done.installed && !done.install_failed);
}

void transfer_all(struct transfer *t, struct fixture *from, struct fixture *to)
{
    transfer_open(t, from, to);
    transfer_run(t, to, SIZE_MAX);
    transfer_prepare(t, to);
    transfer_install(t, to);
    transfer_close(t, from);
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

void assert_same(struct fixture *a, struct fixture *b)
{
    struct store_stats x, y;
    store_stats(a->s, &x);
    store_stats(b->s, &y);
    assert_int_equal(x.keys, y.keys);
    assert_int_equal(x.live_bytes, y.live_bytes);
    assert_int_equal(store_scan(a->s, "", 0, NULL, 0, assert_item, b), 0);
}

void follow(struct fixture *from, struct fixture *to)
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
