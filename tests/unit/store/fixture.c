/* fixture.c - see the header. */
#include "fixture.h"

enum { CHECKED_ENTRIES = 256 };

static void replay(void *context, struct store *s, const struct store_entry *entry)
{
    struct fixture *f = context;
    assert_true(f->replayed == 0 || entry->index == f->replayed + 1);
    if (f->replayed == 0)
        f->first_replayed = entry->index;
    f->replayed = entry->index;
}

static int save_state(void *context, struct buf *to)
{
    struct fixture *f = context;
    f->saved = store_applied(f->s);
    buf_u64(to, f->saved);
    return to->failed ? -ENOMEM : 0;
}

static int load_state(void *context, const void *data, size_t length)
{
    struct fixture *f = context;
    assert_int_equal(length, 8);
    assert_int_equal(f->replayed, 0);
    f->loaded = get_u64(data);
    return 0;
}

void fixture_init_on(struct fixture *f, struct memory_disk *disk, uint64_t segment_bytes)
{
    *f = (struct fixture){.disk = disk, .io = memory_disk_io(disk)};
    f->options = (struct store_options){.path = "d", .segment_bytes = segment_bytes};
    memset(f->options.cluster_id, 0xc1, sizeof(f->options.cluster_id));
}

void fixture_init(struct fixture *f, uint64_t segment_bytes)
{
    fixture_init_on(f, memory_disk_new(), segment_bytes);
    f->options.io = &f->io;
    assert_int_equal(store_create(&f->options, f->error), 0);
    /* The data directory's own name is its maker's to sync. */
    assert_int_equal(f->io.sync_dir(f->io.context, "."), 0);
}

void fixture_release(struct fixture *f)
{
    if (f->s)
        store_close(f->s);
    memory_disk_free(f->disk);
}

static void check_replay(const struct fixture *f)
{
    uint64_t base = f->recovery.base_index;
    struct store_manifest manifest;
    if (f->recovery.commit > base) {
        assert_int_equal(f->first_replayed, base + 1);
        assert_int_equal(f->replayed, f->recovery.commit);
    } else {
        assert_int_equal(f->replayed, 0);
    }
    if (store_manifest(f->s, &manifest))
        assert_int_equal(f->loaded, manifest.applied_index);
    else
        assert_int_equal(f->loaded, 0);
}

int fixture_open(struct fixture *f)
{
    f->options.io = &f->io;
    f->options.replay = replay;
    f->options.save_state = save_state;
    f->options.load_state = load_state;
    f->options.context = f;
    f->replayed = f->loaded = 0;
    f->error[0] = 0;
    int rc = store_open(&f->s, &f->options, &f->recovery, f->error);
    if (rc == 0)
        check_replay(f);
    else
        assert_true(f->error[0]);
    return rc;
}

void fixture_close(struct fixture *f)
{
    store_close(f->s);
    f->s = NULL;
    assert_int_equal(memory_disk_open_count(f->disk), 0);
}

void fixture_reopen(struct fixture *f)
{
    if (f->s)
        fixture_close(f);
    if (fixture_open(f) != 0)
        fail_msg("%s", f->error);
}

struct store_bytes *make_entry(struct store *s, uint64_t term, uint64_t commit,
                               const struct put *puts, size_t count)
{
    struct store_builder builder = {0};
    struct store_entry head = {.term = term,
                               .index = store_last_index(s) + 1,
                               .commit = commit,
                               .session = 7,
                               .request = store_last_index(s) + 1};
    uint64_t timestamp;
    store_chain(s, &head.prev_term, &head.prev_crc, &timestamp);
    store_builder_begin(&builder, timestamp + 1);
    for (size_t i = 0; i < count; i++) {
        size_t size = puts[i].value_size;
        if (puts[i].value && size == 0)
            size = strlen(puts[i].value);
        store_builder_put(&builder, puts[i].key, strlen(puts[i].key), puts[i].value,
                          size);
    }
    struct store_bytes *bytes;
    assert_int_equal(store_builder_finish(&builder, &head, &bytes), 0);
    store_builder_release(&builder);
    return bytes;
}

void append(struct fixture *f, uint64_t term, const struct put *puts, size_t count)
{
    struct store_bytes *bytes = make_entry(f->s, term, store_applied(f->s), puts, count);
    assert_int_equal(store_has_room(f->s, bytes->length), 0);
    assert_int_equal(store_append(f->s, bytes, true), 0);
    store_bytes_unref(bytes);
}

void append_one(struct fixture *f, uint64_t term, const char *key, const char *value)
{
    struct put put = {.key = key, .value = value};
    append(f, term, &put, 1);
}

/* After each step, while the store is small. */
static void check(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->s, &stats);
    if (!f->unchecked && stats.entries <= CHECKED_ENTRIES && stats.keys <= CHECKED_ENTRIES)
        store_check(f->s);
}

struct store_done run(struct fixture *f)
{
    struct store_done done = {0};
    struct store_job *job = store_take_job(f->s);
    if (!job)
        return done;
    if (store_run_job(job, f->error) != 0)
        fail_msg("%s", f->error);
    done = store_finish_job(f->s, job);
    check(f);
    return done;
}

void apply_to(struct fixture *f, uint64_t index)
{
    while (store_applied(f->s) < index) {
        struct store_entry entry;
        struct store_bytes *bytes;
        uint64_t next = store_applied(f->s) + 1;
        assert_int_equal(store_apply(f->s, next, &entry, &bytes), 0);
        assert_int_equal(entry.index, next);
        store_bytes_unref(bytes);
    }
    check(f);
}

void put_one(struct fixture *f, const char *key, const char *value)
{
    append_one(f, 1, key, value);
    run(f);
    apply_to(f, store_last_index(f->s));
}

bool run_task(struct fixture *f)
{
    f->now_us += 1000000;
    struct store_task *task = store_next_task(f->s, f->now_us);
    if (!task)
        return false;
    uint64_t wait_us;
    do {
        int rc;
        while ((rc = store_run_task(task, &wait_us, f->error)) == 1)
            ;
        if (rc != 0)
            fail_msg("%s", f->error);
    } while (store_step_task(f->s, task));
    return true;
}

unsigned run_tasks(struct fixture *f)
{
    unsigned count = 0;
    while (run_task(f))
        count++;
    return count;
}

static void check_value(int rc, const struct buf *got, const char *value)
{
    if (!value) {
        assert_int_equal(rc, -ENOENT);
        return;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(got->length, strlen(value));
    if (got->length > 0)
        assert_memory_equal(got->data, value, got->length);
}

void assert_value(struct store *s, const char *key, const char *value)
{
    struct buf got = {0};
    check_value(store_get(s, key, strlen(key), 0, &got, NULL), &got, value);
    buf_release(&got);
}

void assert_value_ahead(struct store *s, const char *key, const char *value)
{
    struct buf got = {0};
    check_value(store_get_ahead(s, key, strlen(key), &got, NULL), &got, value);
    buf_release(&got);
}

const char *segment_file(uint64_t id)
{
    static char path[64];
    snprintf(path, sizeof(path), "d/log/%016llx.seg", (unsigned long long)id);
    return path;
}

uint64_t entry_offset(struct memory_disk *disk, const char *path, uint64_t index)
{
    uint64_t offset = 64;
    for (;;) {
        uint8_t head[STORE_ENTRY_HEADER];
        memory_disk_peek(disk, path, offset, head, sizeof(head));
        const uint8_t *value = head + STORE_RECORD_HEADER + 1;
        if (get_u64(value) == index)
            return offset;
        ensure(get_u64(value) != 0 && get_u64(value) < index);
        offset += get_u32(value + 72);
    }
}
