/*
 * test_repair.c - what rots on disk is noticed when it is read, named, and written back
 * from what a peer has; the disk then holds the very bytes it held before.
 */
#include "fixture.h"
#include "store_internal.h"

/* A store and its peer: the same disk before anything rots. */
struct pair {
    struct fixture f, peer;
    unsigned told; /* by the callback */
};

static void damaged(void *context)
{
    struct fixture *f = context;
    container_of(f, struct pair, f)->told++;
}

static void fill(struct fixture *f)
{
    char key[32], value[1300];
    for (int i = 0; i < 30; i++) {
        size_t size = (size_t)(i * 41 % 1200 + 20);
        memset(value, 'a' + i % 26, size);
        snprintf(key, sizeof(key), "key %02d", i);
        struct put puts[] = {{key, value, size},
                             {i % 2 ? "small" : "other", "inline", 0}};
        append(f, 1 + (uint64_t)i / 10, puts, 2);
    }
    run(f);
    apply_to(f, store_last_index(f->s));
    store_set_commit_hint(f->s, store_last_index(f->s));
    run(f);
}

static void put_later(struct fixture *f, const char *key, const char *value)
{
    append_one(f, 3, key, value);
    run(f);
    apply_to(f, store_last_index(f->s));
}

static void pair_init(struct pair *p)
{
    *p = (struct pair){0};
    fixture_init(&p->f, SMALL_SEGMENT);
    fixture_reopen(&p->f);
    fill(&p->f);
    fixture_close(&p->f);
    fixture_init_on(&p->peer, memory_disk_copy(p->f.disk), SMALL_SEGMENT);
    p->f.options.damaged = damaged;
    p->f.unchecked = true; /* until it is repaired */
    fixture_reopen(&p->f);
    fixture_reopen(&p->peer);
    assert_int_equal(store_applied(p->f.s), 30);
}

static void pair_release(struct pair *p)
{
    fixture_release(&p->f);
    fixture_release(&p->peer);
}

/* A bit of the record or entry that stands there. */
static void rot(struct pair *p, const struct segment *segment, uint64_t offset)
{
    memory_disk_flip(p->f.disk, segment_file(segment->file_id), offset, 3);
}

static uint64_t place_of_key(struct store *s, const char *key, struct segment **ret)
{
    const struct keydir_node *node = keydir_find(s->keydir, key, strlen(key));
    assert_non_null(node);
    *ret = place_segment(s->slots, keydir_place(node));
    return place_offset(keydir_place(node));
}

static void rot_key(struct pair *p, const char *key, uint64_t at)
{
    struct segment *segment;
    uint64_t offset = place_of_key(p->f.s, key, &segment);
    rot(p, segment, offset + at);
}

static int read_key(struct store *s, const char *key)
{
    struct buf got = {0};
    int rc = store_get(s, key, strlen(key), 0, &got, NULL);
    assert_true(rc == 0 || got.length == 0);
    buf_release(&got);
    return rc;
}

/* The bytes of a segment are those of the peer. */
static void assert_healed(struct pair *p, uint64_t file_id)
{
    uint64_t size = memory_disk_size(p->f.disk, segment_file(file_id));
    uint8_t *a = malloc(size), *b = malloc(size);
    memory_disk_peek(p->f.disk, segment_file(file_id), 0, a, size);
    memory_disk_peek(p->peer.disk, segment_file(file_id), 0, b, size);
    assert_int_equal(size, memory_disk_size(p->peer.disk, segment_file(file_id)));
    assert_memory_equal(a, b, size);
    free(a);
    free(b);
}

static void assert_counts(struct pair *p, uint64_t found, uint64_t repaired,
                          uint64_t unrepaired)
{
    struct store_stats stats;
    store_stats(p->f.s, &stats);
    assert_int_equal(stats.damaged, found);
    assert_int_equal(stats.repaired, repaired);
    assert_int_equal(stats.unrepaired, unrepaired);
}

/* ---- What a node does with a damage ------------------------------------------------ */

static int fetch_record(struct pair *p, const struct store_damage *damage,
                        struct buf *record)
{
    return store_get_raw(p->peer.s, damage->key, damage->key_size, damage->timestamp_us,
                         record);
}

static struct store_bytes *fetch_entry(struct store *s, uint64_t index)
{
    struct store_read *read;
    struct store_bytes *bytes;
    uint64_t last;
    assert_int_equal(store_read_plan(s, index, 1, &read), 0);
    assert_int_equal(store_read_run(read, &bytes, &last), 0);
    store_read_free(read);
    return bytes;
}

static void repair(struct pair *p, const struct store_damage *damage)
{
    struct buf record = {0};
    if (damage->kind == STORE_DAMAGED_RECORD) {
        assert_int_equal(fetch_record(p, damage, &record), 0);
        assert_int_equal(store_repair_record(p->f.s, record.data, record.length), 0);
    } else {
        struct store_bytes *bytes = fetch_entry(p->peer.s, damage->index);
        assert_int_equal(store_repair_entry(p->f.s, bytes->data, bytes->length), 0);
        store_bytes_unref(bytes);
    }
    buf_release(&record);
}

static unsigned repair_all(struct pair *p)
{
    struct store_damage damage;
    unsigned count = 0;
    for (; store_next_damage(p->f.s, &damage); count++)
        repair(p, &damage);
    assert_int_equal(run(&p->f).repaired, count);
    return count;
}

/* ---- Records ----------------------------------------------------------------------- */

static void test_every_record(void **state)
{
    struct pair p;
    pair_init(&p);
    for (int i = 0; i < 30; i++) {
        char key[32];
        snprintf(key, sizeof(key), "key %02d", i);
        struct segment *segment;
        uint64_t offset = place_of_key(p.f.s, key, &segment);
        /* its checksum, timestamp, key, value, in turn */
        uint64_t at[] = {0, 5, 22, 26 + (uint64_t)i % 20};
        rot(&p, segment, offset + at[i % 4]);
        assert_int_equal(read_key(p.f.s, key), -EBADMSG);
        assert_int_equal(p.told, i + 1);
        struct store_damage damage;
        assert_true(store_next_damage(p.f.s, &damage));
        assert_int_equal(damage.kind, STORE_DAMAGED_RECORD);
        assert_int_equal(damage.key_size, strlen(key));
        assert_memory_equal(damage.key, key, strlen(key));
        assert_false(store_next_damage(p.f.s, &damage));
        assert_int_equal(read_key(p.f.s, key), -EBADMSG);
        assert_false(store_next_damage(p.f.s, &damage)); /* it is being seen to */
        repair(&p, &damage);
        assert_int_equal(run(&p.f).repaired, 1);
        assert_int_equal(read_key(p.f.s, key), 0);
        assert_healed(&p, segment->file_id);
        assert_counts(&p, (uint64_t)i + 1, (uint64_t)i + 1, 0);
        assert_false(store_is_damaged(p.f.s, &damage));
    }
    store_check(p.f.s);
    pair_release(&p);
}

/* It is written back beside appends to the very same file. */
static void test_beside_appends(void **state)
{
    struct pair p;
    pair_init(&p);
    struct segment *segment;
    place_of_key(p.f.s, "key 29", &segment);
    assert_ptr_equal(segment, store_active(p.f.s));
    rot_key(&p, "key 29", 30);
    assert_int_equal(read_key(p.f.s, "key 29"), -EBADMSG);
    append_one(&p.f, 3, "before", "in the same job, and in the same block");
    struct store_damage damage;
    assert_true(store_next_damage(p.f.s, &damage));
    repair(&p, &damage);
    append_one(&p.f, 3, "behind", "it, too");
    assert_int_equal(run(&p.f).repaired, 1);
    apply_to(&p.f, store_last_index(p.f.s));
    assert_int_equal(read_key(p.f.s, "key 29"), 0);
    store_check(p.f.s);
    fixture_reopen(&p.f);
    apply_to(&p.f, store_last_index(p.f.s));
    assert_value(p.f.s, "behind", "it, too");
    store_check(p.f.s);
    pair_release(&p);
}

static void test_not_needed_any_more(void **state)
{
    struct pair p;
    struct buf record = {0};
    struct store_damage damage;
    pair_init(&p);
    rot_key(&p, "key 05", 40);
    assert_int_equal(read_key(p.f.s, "key 05"), -EBADMSG);
    assert_true(store_next_damage(p.f.s, &damage));
    assert_int_equal(fetch_record(&p, &damage, &record), 0);
    put_later(&p.f, "key 05", "something else has been written meanwhile");
    assert_int_equal(store_repair_record(p.f.s, record.data, record.length), -ENOENT);
    assert_counts(&p, 1, 0, 0);
    /* Or no peer has it, because it was removed. */
    rot_key(&p, "key 06", 40);
    assert_int_equal(read_key(p.f.s, "key 06"), -EBADMSG);
    assert_true(store_next_damage(p.f.s, &damage));
    put_later(&p.f, "key 06", NULL);
    store_damage_stays(p.f.s, &damage);
    assert_counts(&p, 2, 0, 0);
    buf_release(&record);
    pair_release(&p);
}

static void test_no_peer_has_it(void **state)
{
    struct pair p;
    struct store_damage damage;
    pair_init(&p);
    rot_key(&p, "key 05", 40);
    assert_int_equal(read_key(p.f.s, "key 05"), -EBADMSG);
    assert_true(store_next_damage(p.f.s, &damage));
    store_damage_stays(p.f.s, &damage);
    assert_counts(&p, 1, 0, 1);
    assert_false(store_next_damage(p.f.s, &damage));
    assert_int_equal(p.told, 1);
    assert_int_equal(read_key(p.f.s, "key 05"), -EBADMSG);
    assert_int_equal(p.told, 2);
    assert_counts(&p, 1, 0, 0);
    assert_int_equal(repair_all(&p), 1);
    assert_counts(&p, 1, 1, 0);
    assert_int_equal(read_key(p.f.s, "key 05"), 0);
    pair_release(&p);
}

static void test_wrong_answers(void **state)
{
    struct pair p;
    struct buf record = {0};
    pair_init(&p);
    rot_key(&p, "key 05", 40);
    assert_int_equal(read_key(p.f.s, "key 05"), -EBADMSG);
    struct store_damage damage;
    assert_true(store_next_damage(p.f.s, &damage));
    assert_int_equal(fetch_record(&p, &damage, &record), 0);
    for (size_t i = 0; i < record.length; i++) {
        record.data[i] ^= 4;
        assert_int_equal(store_repair_record(p.f.s, record.data, record.length),
                         -EBADMSG);
        record.data[i] ^= 4;
        assert_int_equal(store_repair_record(p.f.s, record.data, i), -EBADMSG);
    }
    /* A right record, but of another version, of another size, a tombstone. */
    struct buf other = {0};
    record_encode(&other, damage.timestamp_us + 1, "key 05", 6, "x", 1);
    assert_int_equal(store_repair_record(p.f.s, other.data, other.length), -ENOENT);
    buf_clear(&other);
    record_encode(&other, damage.timestamp_us, "key 05", 6, "x", 1);
    assert_int_equal(store_repair_record(p.f.s, other.data, other.length), -EBADMSG);
    buf_clear(&other);
    record_encode(&other, damage.timestamp_us, "key 05", 6, NULL, 0);
    assert_int_equal(store_repair_record(p.f.s, other.data, other.length), -EBADMSG);
    assert_null(store_take_job(p.f.s));
    buf_release(&other);
    buf_release(&record);
    pair_release(&p);
}

static void test_for_a_peer(void **state)
{
    struct pair p;
    struct buf record = {0};
    pair_init(&p);
    const struct keydir_node *node = keydir_find(p.f.s->keydir, "small", 5);
    uint64_t timestamp = node->timestamp_us;
    assert_int_equal(store_get_raw(p.f.s, "small", 5, timestamp - 1, &record), -ENOENT);
    assert_int_equal(store_get_raw(p.f.s, "smaller", 7, timestamp, &record), -ENOENT);
    rot_key(&p, "small", 30); /* what is in memory is good all the same */
    assert_int_equal(store_get_raw(p.f.s, "small", 5, timestamp, &record), 0);
    struct store_record decoded;
    struct reader r = reader_of(record.data, record.length);
    assert_int_equal(store_record_read(&r, &decoded), 0);
    assert_true(reader_done(&r));
    assert_memory_equal(decoded.value, "inline", 6);
    assert_int_equal(decoded.timestamp_us, timestamp);
    rot_key(&p, "key 07", 30);
    buf_clear(&record);
    node = keydir_find(p.f.s->keydir, "key 07", 6);
    assert_int_equal(store_get_raw(p.f.s, "key 07", 6, node->timestamp_us, &record),
                     -EBADMSG);
    assert_int_equal(record.length, 0);
    assert_int_equal(repair_all(&p), 1);
    buf_release(&record);
    pair_release(&p);
}

/* ---- Entries ----------------------------------------------------------------------- */

static int read_entry(struct store *s, uint64_t index)
{
    struct store_read *read;
    struct store_bytes *bytes;
    uint64_t last;
    assert_int_equal(store_read_plan(s, index, 1, &read), 0);
    int rc = store_read_run(read, &bytes, &last);
    store_read_free(read);
    if (rc == 0)
        store_bytes_unref(bytes);
    return rc;
}

/* Nothing is cached: entries are read from disk. */
static void forget_tail(struct store *s)
{
    while (s->tail.count > 0)
        tail_pop_last(&s->tail);
}

static void test_every_entry(void **state)
{
    struct pair p;
    pair_init(&p);
    forget_tail(p.f.s);
    for (uint64_t index = 1; index <= 30; index++) {
        struct segment *segment = store_segment_of(p.f.s, index);
        uint64_t offset = segment->offsets[index - segment->first_index];
        uint64_t at[] = {0, 25, 60, STORE_ENTRY_HEADER + 3, STORE_ENTRY_HEADER + 40};
        rot(&p, segment, offset + at[index % 5]);
        assert_int_equal(read_entry(p.f.s, index), -EBADMSG);
        struct store_damage damage;
        assert_true(store_next_damage(p.f.s, &damage));
        assert_int_equal(damage.kind, STORE_DAMAGED_ENTRY);
        assert_int_equal(damage.index, index);
        bool head_is_good = index % 5 > 2;
        assert_int_equal(damage.term, head_is_good ? 1 + (index - 1) / 10 : 0);
        repair(&p, &damage);
        assert_int_equal(run(&p.f).repaired, 1);
        assert_int_equal(read_entry(p.f.s, index), 0);
        assert_healed(&p, segment->file_id);
    }
    assert_counts(&p, 30, 30, 0);
    pair_release(&p);
}

/* Several that follow each other vouch for each other one by one. */
static void test_a_run_of_entries(void **state)
{
    struct pair p;
    pair_init(&p);
    forget_tail(p.f.s);
    for (uint64_t index = 9; index <= 14; index++) {
        struct segment *segment = store_segment_of(p.f.s, index);
        rot(&p, segment, segment->offsets[index - segment->first_index] + 30);
    }
    for (uint64_t index = 9; index <= 14; index++)
        assert_int_equal(read_entry(p.f.s, index), -EBADMSG);
    assert_int_equal(repair_all(&p), 6);
    for (uint64_t id = 1; id <= store_active(p.f.s)->file_id; id++) {
        if (memory_disk_exists(p.f.disk, segment_file(id)))
            assert_healed(&p, id);
    }
    pair_release(&p);
}

/* An entry like it, intact and as long, but not the one that was here. */
static struct store_bytes *forge(const struct store_bytes *bytes, uint64_t term)
{
    struct store_builder builder = {0};
    struct store_entry head;
    assert_int_equal(store_entry_verify(bytes->data, bytes->length, &head), 0);
    store_builder_begin(&builder, head.timestamp_us);
    struct reader r =
        reader_of(bytes->data + STORE_ENTRY_HEADER, bytes->length - STORE_ENTRY_HEADER);
    for (uint32_t i = 0; i < head.record_count; i++) {
        struct store_record record;
        assert_int_equal(store_record_read(&r, &record), 0);
        store_builder_put(&builder, record.key, record.key_size, record.value,
                          record.value_size);
    }
    head.term = term;
    head.request++;
    struct store_bytes *forged;
    assert_int_equal(store_builder_finish(&builder, &head, &forged), 0);
    store_builder_release(&builder);
    return forged;
}

static void test_wrong_entries(void **state)
{
    struct pair p;
    pair_init(&p);
    forget_tail(p.f.s);
    struct segment *segment = store_segment_of(p.f.s, 12);
    rot(&p, segment, segment->offsets[12 - segment->first_index] + 30);
    assert_int_equal(read_entry(p.f.s, 12), -EBADMSG);
    struct store_damage damage;
    assert_true(store_next_damage(p.f.s, &damage));
    struct store_bytes *right = fetch_entry(p.peer.s, 12);
    struct store_bytes *wrong = forge(right, 2);
    assert_int_equal(wrong->length, right->length);
    assert_int_equal(store_repair_entry(p.f.s, wrong->data, wrong->length), 0);
    assert_int_equal(run(&p.f).repaired, 0); /* the next entry says that it is another */
    assert_counts(&p, 1, 0, 1);
    assert_int_equal(store_repair_entry(p.f.s, right->data, right->length - 1), -EBADMSG);
    struct store_bytes *other = fetch_entry(p.peer.s, 13);
    assert_int_equal(store_repair_entry(p.f.s, other->data, other->length), 0);
    assert_int_equal(run(&p.f).repaired, 1); /* it is there, and stays */
    assert_int_equal(store_repair_entry(p.f.s, right->data, right->length), 0);
    assert_int_equal(run(&p.f).repaired, 1);
    assert_healed(&p, segment->file_id);
    store_bytes_unref(other);
    store_bytes_unref(right);
    store_bytes_unref(wrong);
    /* The last one that is applied is known in memory. */
    right = fetch_entry(p.peer.s, 30);
    wrong = forge(right, 3);
    assert_int_equal(store_repair_entry(p.f.s, wrong->data, wrong->length), -EBADMSG);
    store_bytes_unref(right);
    store_bytes_unref(wrong);
    pair_release(&p);
}

/* ---- The disk ---------------------------------------------------------------------- */

/* One block that cannot be read until it is written whole. */
static struct {
    const struct store_io *io;
    int fd;
    uint64_t block;
    bool bad;
} sector;

static ssize_t sector_pread(void *context, int fd, void *to, size_t length,
                            uint64_t offset)
{
    if (sector.bad && fd == sector.fd && offset < sector.block + 4096 &&
        offset + length > sector.block)
        return -EIO;
    return sector.io->pread(context, fd, to, length, offset);
}

static ssize_t sector_pwritev(void *context, int fd, const struct iovec *iov, int count,
                              uint64_t offset)
{
    if (fd == sector.fd)
        assert_int_equal(offset % 4096, 0);
    ssize_t n = sector.io->pwritev(context, fd, iov, count, offset);
    if (fd == sector.fd && offset <= sector.block && n >= 4096)
        sector.bad = false;
    return n;
}

static void test_a_block_that_cannot_be_read(void **state)
{
    struct pair p;
    p = (struct pair){0};
    fixture_init(&p.f, 64 << 10);
    p.f.unchecked = true;
    fixture_reopen(&p.f);
    fill(&p.f);
    fixture_close(&p.f);
    fixture_init_on(&p.peer, memory_disk_copy(p.f.disk), 64 << 10);
    fixture_reopen(&p.peer);
    struct store_io twin = p.f.io;
    sector.io = &twin;
    sector.fd = -1;
    p.f.io.pread = sector_pread;
    p.f.io.pwritev = sector_pwritev;
    fixture_reopen(&p.f);
    sector.fd = store_active(p.f.s)->fd;
    sector.block = 8192;
    sector.bad = true;
    char key[32];
    unsigned bad = 0;
    for (int round = 0; round < 20 && (round == 0 || bad > 0); round++) {
        bad = 0;
        for (int i = 0; i < 30; i++) {
            snprintf(key, sizeof(key), "key %02d", i);
            int rc = read_key(p.f.s, key);
            assert_true(rc == 0 || rc == -EBADMSG);
            bad += rc != 0;
        }
        assert_true(round > 0 || bad > 3); /* all in that block, and at its borders */
        repair_all(&p);
    }
    assert_int_equal(bad, 0);
    assert_false(sector.bad);
    /* What no key needs any more is repaired with its entry. */
    forget_tail(p.f.s);
    for (uint64_t index = 1; index <= 30; index++)
        read_entry(p.f.s, index);
    repair_all(&p);
    assert_healed(&p, 1);
    store_check(p.f.s);
    pair_release(&p);
}

static void test_writing_fails(void **state)
{
    struct pair p;
    pair_init(&p);
    struct store_damage damage;
    struct segment *segment;
    place_of_key(p.f.s, "key 05", &segment);
    assert_ptr_not_equal(segment, store_active(p.f.s));
    for (uint64_t call = 1; call <= 2; call++) { /* the write, the sync */
        rot_key(&p, "key 05", 40);
        assert_int_equal(read_key(p.f.s, "key 05"), -EBADMSG);
        assert_true(store_next_damage(p.f.s, &damage));
        repair(&p, &damage);
        memory_disk_fail_call(p.f.disk, memory_disk_calls(p.f.disk) + call, -EIO);
        assert_int_equal(run(&p.f).repaired, 0);
        assert_counts(&p, call, call - 1, 1);
        assert_true(store_is_damaged(p.f.s, &damage));
        memory_disk_fail_call(p.f.disk, 0, 0);
        if (read_key(p.f.s, "key 05") == 0) /* it was written, if not synced */
            rot_key(&p, "key 05", 40);
        assert_int_equal(read_key(p.f.s, "key 05"), -EBADMSG);
        repair_all(&p);
        assert_counts(&p, call, call, 0);
        assert_healed(&p, segment->file_id);
    }
    /* In the active segment that is the log's own failure. */
    rot_key(&p, "key 29", 40);
    assert_int_equal(read_key(p.f.s, "key 29"), -EBADMSG);
    assert_true(store_next_damage(p.f.s, &damage));
    repair(&p, &damage);
    memory_disk_fail_call(p.f.disk, memory_disk_calls(p.f.disk) + 1, -EIO);
    struct store_job *job = store_take_job(p.f.s);
    assert_int_equal(store_run_job(job, p.f.error), -EIO);
    assert_non_null(strstr(p.f.error, "repair d/log/"));
    pair_release(&p);
}

/* The write lands elsewhere: what is read back says so. */
static void test_misdirected(void **state)
{
    struct pair p;
    pair_init(&p);
    rot_key(&p, "key 05", 40);
    assert_int_equal(read_key(p.f.s, "key 05"), -EBADMSG);
    struct store_damage damage;
    assert_true(store_next_damage(p.f.s, &damage));
    repair(&p, &damage);
    memory_disk_misdirect_call(p.f.disk, memory_disk_calls(p.f.disk) + 1, 16384);
    assert_int_equal(run(&p.f).repaired, 0);
    assert_counts(&p, 1, 0, 1);
    pair_release(&p);
}

/* ---- The list ---------------------------------------------------------------------- */

static void test_the_list_is_bounded(void **state)
{
    struct pair p;
    struct store_damage damage;
    pair_init(&p);
    for (uint64_t i = 1; i <= 2 * DAMAGE_MAX; i++)
        damage_found_entry(p.f.s, i, 1);
    unsigned count = 0;
    while (store_next_damage(p.f.s, &damage))
        count++;
    assert_int_equal(count, DAMAGE_MAX);
    for (uint64_t i = 1; i <= DAMAGE_MAX; i++) /* up to 30 they are in the log */
        store_damage_stays(
            p.f.s, &(struct store_damage){.kind = STORE_DAMAGED_ENTRY, .index = i});
    assert_counts(&p, DAMAGE_MAX, 0, 30);
    damage_found_entry(p.f.s, 2000, 1);
    assert_true(store_next_damage(p.f.s, &damage));
    assert_int_equal(damage.index, 2000);
    pair_release(&p);
}

/* ---- A copy ------------------------------------------------------------------------ */

static void check_copy(struct store *s, size_t max_bytes)
{
    struct buf records = {0}, last = {0}, after = {0};
    struct keydir_cursor cursor;
    const struct keydir_node *node = keydir_seek(s->keydir, &cursor, "", 0);
    for (;;) {
        buf_clear(&records);
        assert_int_equal(
            store_copy(s, after.data, after.length, max_bytes, &records, &last), 0);
        if (last.length == 0)
            break;
        struct reader r = reader_of(records.data, records.length);
        assert_true(records.length > 0);
        while (reader_left(&r) > 0) {
            struct store_record record;
            assert_int_equal(store_record_read(&r, &record), 0);
            assert_int_equal(record.timestamp_us, node->timestamp_us);
            assert_int_equal(key_compare(record.key, record.key_size, keydir_key(node),
                                         keydir_key_size(node)),
                             0);
            if (reader_left(&r) == 0)
                assert_memory_equal(last.data, record.key, record.key_size);
            node = keydir_next(&cursor);
        }
        buf_clear(&after);
        buf_bytes(&after, last.data, last.length);
    }
    assert_int_equal(records.length, 0);
    assert_null(node);
    buf_release(&records);
    buf_release(&last);
    buf_release(&after);
}

static void test_copy(void **state)
{
    struct pair p;
    pair_init(&p);
    check_copy(p.f.s, 1);
    check_copy(p.f.s, 3000);
    check_copy(p.f.s, 1 << 20);
    rot_key(&p, "key 02", 40);
    struct buf records = {0}, last = {0};
    assert_int_equal(store_copy(p.f.s, NULL, 0, 1 << 20, &records, &last), 0);
    assert_memory_equal(last.data, "key 01", 6);
    buf_clear(&records);
    assert_int_equal(store_copy(p.f.s, "key 01", 6, 1 << 20, &records, &last), -EBADMSG);
    assert_int_equal(records.length, 0);
    repair_all(&p);
    check_copy(p.f.s, 3000);
    buf_release(&records);
    buf_release(&last);
    pair_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_record),
        cmocka_unit_test(test_beside_appends),
        cmocka_unit_test(test_not_needed_any_more),
        cmocka_unit_test(test_no_peer_has_it),
        cmocka_unit_test(test_wrong_answers),
        cmocka_unit_test(test_for_a_peer),
        cmocka_unit_test(test_every_entry),
        cmocka_unit_test(test_a_run_of_entries),
        cmocka_unit_test(test_wrong_entries),
        cmocka_unit_test(test_a_block_that_cannot_be_read),
        cmocka_unit_test(test_writing_fails),
        cmocka_unit_test(test_misdirected),
        cmocka_unit_test(test_the_list_is_bounded),
        cmocka_unit_test(test_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
