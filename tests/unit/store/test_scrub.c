/*
 * test_scrub.c - all files are read again in the background: what rots is found without
 * being asked for, what is known here is written back, and the rest is named.
 */
#include "transfer.h"

enum { SEGMENT = 16 << 10 };

#define SECOND ((uint64_t)1000 * 1000)

static uint64_t now_us = SECOND;

/* One task, if there is one that is due. */
static bool scrub_task(struct fixture *f)
{
    struct store_task *task = store_next_task(f->s, now_us);
    if (!task)
        return false;
    int rc;
    do {
        uint64_t wait_us;
        while ((rc = store_run_task(task, &wait_us, f->error)) == 1)
            now_us += wait_us;
        if (rc < 0)
            fail_msg("%s", f->error);
    } while (store_step_task(f->s, task));
    return true;
}

static struct store_stats stats_of(struct fixture *f)
{
    struct store_stats stats;
    store_stats(f->s, &stats);
    return stats;
}

/* Until a whole pass is complete: the one that is under way does not count. */
static void scrub_pass(struct fixture *f)
{
    uint64_t before = stats_of(f).scrubs;
    for (int i = 0; stats_of(f).scrubs < before + 2; i++) {
        scrub_task(f);
        now_us += SECOND;
        assert_true(i < 10000);
    }
    run(f); /* what was known here is written back */
}

static void open_scrubbing(struct fixture *f, uint64_t period_us)
{
    f->options.scrub_period_us = period_us;
    fixture_reopen(f);
}

/* Segments of a log, none of it dead. */
static void log_init(struct fixture *f, uint64_t period_us)
{
    fixture_init(f, SEGMENT);
    open_scrubbing(f, period_us);
    fill(f, 60, 2000);
    store_set_commit_hint(f->s, store_applied(f->s));
    run(f);
    while (scrub_task(f)) /* hints */
        ;
}

/* A store with merged files, and the one it has them from. */
static void merged_init(struct fixture *a, struct fixture *b, uint64_t period_us)
{
    struct transfer t;
    sender_init(a, 60, 500, 9000);
    fixture_init(b, SEGMENT);
    open_scrubbing(b, period_us);
    transfer_all(&t, a, b);
}

static void flip(struct fixture *f, const struct segment *segment, uint64_t offset)
{
    struct path path;
    (segment->kind == SEGMENT_LOG ? segment_path : merged_path)(&path, "d",
                                                                segment->file_id);
    memory_disk_flip(f->disk, path.text, offset, 2);
}

static void flip_key(struct fixture *f, const char *key, uint64_t at)
{
    const struct keydir_node *node = keydir_find(f->s->keydir, key, strlen(key));
    uint64_t place = keydir_place(node);
    flip(f, place_segment(f->s->slots, place), place_offset(place) + at);
}

static void flip_hint(struct fixture *f, const struct segment *segment)
{
    struct path path;
    hint_path(&path, "d", segment->file_id);
    memory_disk_flip(f->disk, path.text, memory_disk_size(f->disk, path.text) / 2, 2);
}

static void assert_counts(struct fixture *f, uint64_t found, uint64_t repaired)
{
    struct store_stats stats = stats_of(f);
    assert_int_equal(stats.damaged, found);
    assert_int_equal(stats.repaired, repaired);
    assert_int_equal(stats.unrepaired, 0);
}

/* ---- What is found ----------------------------------------------------------------- */

static void test_nothing_is_wrong(void **state)
{
    struct fixture a, b;
    struct store_damage damage;
    log_init(&a, 1);
    uint64_t bytes = stats_of(&a).log_bytes - store_active(a.s)->used;
    scrub_pass(&a);
    assert_false(store_next_damage(a.s, &damage));
    assert_true(stats_of(&a).scrubbed_bytes >= bytes * 9 / 10);
    store_check(a.s);
    fixture_release(&a);
    merged_init(&a, &b, 1);
    scrub_pass(&b);
    assert_false(store_next_damage(b.s, &damage));
    assert_true(stats_of(&b).scrubbed_bytes >= stats_of(&b).merged_bytes * 9 / 10);
    store_check(b.s);
    fixture_release(&a);
    fixture_release(&b);
}

/* Every byte of an entry counts, also of those that no key needs any more. */
static void test_a_log(void **state)
{
    struct fixture f, peer;
    log_init(&f, 1);
    fixture_init_on(&peer, memory_disk_copy(f.disk), SEGMENT);
    fixture_reopen(&peer);
    apply_to(&peer, store_last_index(peer.s));
    f.unchecked = true;
    uint64_t found = 0;
    for (uint64_t index = 2; index <= 50; index += 7) {
        struct segment *segment = store_segment_of(f.s, index);
        uint64_t offset = segment->offsets[index - segment->first_index];
        bool in_head = index % 2;
        flip(&f, segment, offset + (in_head ? 40 : STORE_ENTRY_HEADER + 21));
        scrub_pass(&f);
        struct store_damage damage;
        bool entry = false, record = false;
        while (store_next_damage(f.s, &damage)) {
            found++;
            entry = entry || damage.kind == STORE_DAMAGED_ENTRY;
            record = record || damage.kind == STORE_DAMAGED_RECORD;
            if (damage.kind == STORE_DAMAGED_ENTRY) {
                assert_int_equal(damage.index, index);
                assert_int_equal(damage.term, in_head ? 0 : 1);
            }
        }
        assert_true(entry && record == !in_head);
        struct store_read *read;
        struct store_bytes *bytes;
        uint64_t last;
        assert_int_equal(store_read_plan(peer.s, index, 1, &read), 0);
        assert_int_equal(store_read_run(read, &bytes, &last), 0);
        assert_int_equal(store_repair_entry(f.s, bytes->data, bytes->length), 0);
        assert_int_equal(run(&f).repaired, 1);
        assert_counts(&f, found, found); /* the record with its entry */
        store_read_free(read);
        store_bytes_unref(bytes);
    }
    scrub_pass(&f);
    assert_counts(&f, found, found);
    store_check(f.s);
    fixture_release(&f);
    fixture_release(&peer);
}

/* Intact, with the right index, but not the one that was here: the chain tells. */
static void test_another_entry(void **state)
{
    struct fixture f;
    log_init(&f, 1);
    f.unchecked = true;
    struct segment *segment = f.s->segments[1];
    uint64_t index = segment->first_index + 1, offset = segment->offsets[1];
    uint8_t head[STORE_ENTRY_HEADER];
    const char *path = segment_file(segment->file_id);
    memory_disk_peek(f.disk, path, offset, head, sizeof(head));
    uint8_t *request = head + STORE_RECORD_HEADER + 1 + 44;
    put_u64(request, get_u64(request) + 1);
    put_u32(head, crc32_of(0, head + 4, sizeof(head) - 4));
    memory_disk_poke(f.disk, path, offset, head, sizeof(head));
    scrub_pass(&f);
    struct store_damage damage;
    for (uint64_t i = index; i <= index + 1; i++) { /* either of them may be it */
        assert_true(store_next_damage(f.s, &damage));
        assert_int_equal(damage.kind, STORE_DAMAGED_ENTRY);
        assert_int_equal(damage.index, i);
    }
    assert_false(store_next_damage(f.s, &damage));
    fixture_release(&f);
}

static void test_a_merged_file(void **state)
{
    struct fixture a, b;
    merged_init(&a, &b, 1);
    b.unchecked = true;
    static const char *const keys[] = {"key 00003", "key 00021", "key 00059"};
    for (size_t i = 0; i < array_length(keys); i++)
        flip_key(&b, keys[i], 10 + 15 * i); /* its header, its key, its value */
    scrub_pass(&b);
    struct store_damage damage;
    for (size_t i = 0; i < array_length(keys); i++) {
        struct buf record = {0};
        assert_true(store_next_damage(b.s, &damage));
        assert_memory_equal(damage.key, keys[i], 9);
        assert_int_equal(
            store_get_raw(a.s, damage.key, damage.key_size, damage.timestamp_us, &record),
            0);
        assert_int_equal(store_repair_record(b.s, record.data, record.length), 0);
        buf_release(&record);
    }
    assert_false(store_next_damage(b.s, &damage));
    assert_int_equal(run(&b).repaired, 3);
    assert_counts(&b, 3, 3);
    assert_same(&a, &b);
    store_check(b.s);
    fixture_release(&a);
    fixture_release(&b);
}

/* ---- What is known here ------------------------------------------------------------ */

static void test_healed_here(void **state)
{
    struct fixture a, b;
    merged_init(&a, &b, 1);
    b.unchecked = true;
    struct store_damage damage;
    flip_key(&b, "key 00000", 31); /* small values are in the hint */
    flip_key(&b, "key 00035", 31);
    const struct segment *last = b.s->merged[b.s->merged_count - 1];
    flip(&b, last, last->used - 2); /* and a tombstone has none */
    scrub_pass(&b);
    assert_false(store_next_damage(b.s, &damage)); /* no peer is asked */
    assert_counts(&b, 3, 3);
    store_check(b.s);
    scrub_pass(&b);
    assert_counts(&b, 3, 3);
    fixture_release(&a);
    fixture_release(&b);
}

/* So a merge copies them from there, whatever has become of the data. */
static void test_merged_from_the_hint(void **state)
{
    struct fixture f;
    char key[32], value[2001];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = 0;
    log_init(&f, STORE_NEVER);
    f.unchecked = true;
    uint64_t first = f.s->segments[0]->file_id;
    flip_key(&f, "key 00000", 31);
    flip_key(&f, "key 00035", 31);
    for (int i = 0; i < 180; i++, now_us += SECOND) {
        snprintf(key, sizeof(key), "key %05d", i % 60);
        if (i % 5 != 0) /* those are small */
            put_one(&f, key, value);
        scrub_task(&f);
    }
    assert_true(stats_of(&f).merges > 0);
    assert_false(memory_disk_exists(f.disk, segment_file(first)));
    assert_counts(&f, 0, 0);
    store_check(f.s);
    fixture_release(&f);
}

static void test_bad_hints(void **state)
{
    struct fixture a, b;
    merged_init(&a, &b, 1);
    b.unchecked = true;
    flip_hint(&b, b.s->merged[1]);
    scrub_pass(&b);
    for (int i = 0; i < 10; i++, now_us += SECOND)
        scrub_task(&b);
    store_check(b.s); /* it is right again */
    assert_counts(&b, 0, 0);
    fixture_release(&a);
    fixture_release(&b);
    log_init(&a, 1);
    a.unchecked = true;
    flip_hint(&a, a.s->segments[1]);
    scrub_pass(&a);
    for (int i = 0; i < 10; i++, now_us += SECOND)
        scrub_task(&a);
    store_check(a.s);
    assert_counts(&a, 0, 0);
    fixture_release(&a);
}

/* With its hint gone as well, the records are found through the keydir. */
static void test_bad_hint_and_bad_record(void **state)
{
    struct fixture a, b;
    struct store_damage damage;
    merged_init(&a, &b, 1);
    b.unchecked = true;
    const struct keydir_node *node = keydir_find(b.s->keydir, "key 00021", 9);
    flip_hint(&b, place_segment(b.s->slots, keydir_place(node)));
    flip_key(&b, "key 00021", 300);
    scrub_pass(&b);
    assert_true(store_next_damage(b.s, &damage));
    assert_memory_equal(damage.key, "key 00021", 9);
    assert_false(store_next_damage(b.s, &damage));
    struct buf record = {0};
    assert_int_equal(store_get_raw(a.s, "key 00021", 9, damage.timestamp_us, &record), 0);
    assert_int_equal(store_repair_record(b.s, record.data, record.length), 0);
    buf_release(&record);
    assert_int_equal(run(&b).repaired, 1);
    for (int i = 0; i < 100; i++, now_us += SECOND) /* the hint gets another try */
        scrub_task(&b);
    store_check(b.s);
    fixture_release(&a);
    fixture_release(&b);
}

static bool is_listed(const struct store *s, uint64_t file_id)
{
    for (size_t i = 0; i < s->merged_count; i++) {
        if (s->merged[i]->file_id == file_id)
            return true;
    }
    return false;
}

/* Nobody has a record that was superseded everywhere: the file is merged away, though too
 * little in it is dead for that. */
static void test_worn(void **state)
{
    struct fixture a, b;
    struct store_damage damage;
    merged_init(&a, &b, 1);
    b.unchecked = true;
    uint64_t place = keydir_place(keydir_find(b.s->keydir, "key 00021", 9));
    const struct segment *segment = place_segment(b.s->slots, place);
    uint64_t file_id = segment->file_id;
    put_one(&b, "key 00021", "is another now, before it was noticed");
    for (int i = 0; i < 10; i++, now_us += SECOND)
        scrub_task(&b);
    assert_true(is_listed(b.s, file_id));
    flip(&b, segment, place_offset(place) + 300);
    scrub_pass(&b);
    assert_false(store_next_damage(b.s, &damage));
    for (int i = 0; i < 10; i++, now_us += SECOND)
        scrub_task(&b);
    assert_false(is_listed(b.s, file_id));
    assert_value(b.s, "key 00021", "is another now, before it was noticed");
    store_check(b.s);
    fixture_release(&a);
    fixture_release(&b);
}

/* ---- When -------------------------------------------------------------------------- */

static void test_suspect_goes_first(void **state)
{
    struct fixture a, b;
    struct store_damage damage;
    merged_init(&a, &b, STORE_NEVER);
    b.unchecked = true;
    flip_key(&b, "key 00021", 300);
    for (int i = 0; i < 10; i++, now_us += 3600 * SECOND)
        assert_false(scrub_task(&b));
    const struct keydir_node *node = keydir_find(b.s->keydir, "key 00021", 9);
    scrub_suspect(b.s, place_segment(b.s->slots, keydir_place(node)));
    for (int i = 0; i < 10; i++, now_us += SECOND)
        scrub_task(&b);
    assert_true(store_next_damage(b.s, &damage));
    assert_memory_equal(damage.key, "key 00021", 9);
    assert_int_equal(stats_of(&b).scrubs, 0);
    fixture_release(&a);
    fixture_release(&b);
}

static void test_a_pass_takes_the_period(void **state)
{
    struct fixture f;
    log_init(&f, 1000 * SECOND);
    uint64_t before = stats_of(&f).scrubbed_bytes, passes = stats_of(&f).scrubs;
    uint64_t bytes = stats_of(&f).log_bytes - store_active(f.s)->used;
    uint64_t start = now_us, half = 0;
    while (stats_of(&f).scrubs < passes + 3) {
        scrub_task(&f);
        now_us += SECOND;
        if (now_us - start < 500 * SECOND)
            half = stats_of(&f).scrubbed_bytes - before;
    }
    uint64_t seconds = (now_us - start) / SECOND;
    print_message("3 passes of %llu bytes take %llu s\n", (unsigned long long)bytes,
                  (unsigned long long)seconds);
    assert_true(seconds > 2000 && seconds < 3500);
    assert_true(half > bytes / 3 && half < bytes);
    fixture_release(&f);
}

/* A restart goes on with the file it was at. */
static void test_resume(void **state)
{
    struct fixture f;
    log_init(&f, 1000 * SECOND);
    uint64_t bytes = stats_of(&f).log_bytes - store_active(f.s)->used;
    while (f.s->scrub.next_id < store_active(f.s)->file_id / 2) {
        scrub_task(&f);
        now_us += SECOND;
    }
    uint64_t at = f.s->scrub.next_id;
    scrub_task(&f);
    now_us += 1000 * SECOND;
    scrub_task(&f);
    fixture_reopen(&f);
    assert_true(f.s->scrub.next_id >= at);
    for (; stats_of(&f).scrubs == 0; now_us += SECOND)
        scrub_task(&f);
    assert_true(stats_of(&f).scrubbed_bytes < bytes * 9 / 10);
    /* What is wrong with the file is no harm. */
    memory_disk_flip(f.disk, "d/scrub.state", 44, 1);
    fixture_reopen(&f);
    assert_int_equal(f.s->scrub.next_id, 0);
    assert_int_equal(f.s->scrub.complete_us, 0);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_wrong),
        cmocka_unit_test(test_a_log),
        cmocka_unit_test(test_another_entry),
        cmocka_unit_test(test_a_merged_file),
        cmocka_unit_test(test_healed_here),
        cmocka_unit_test(test_merged_from_the_hint),
        cmocka_unit_test(test_bad_hints),
        cmocka_unit_test(test_bad_hint_and_bad_record),
        cmocka_unit_test(test_worn),
        cmocka_unit_test(test_suspect_goes_first),
        cmocka_unit_test(test_a_pass_takes_the_period),
        cmocka_unit_test(test_resume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
