/* test_import.c - a store made of records, opened; and one whose making fails at any
 * call. */
#include "fixture.h"

enum { RECORDS = 150, TIMESTAMP = 1000 };

static const struct store_point end = {
    .index = 77, .term = 3, .timestamp_us = 5000, .crc = 0x1234};

static void nth_key(unsigned i, char key[32])
{
    snprintf(key, 32, "key %04u", i);
}

static size_t nth_value(unsigned i, char value[256])
{
    memset(value, 'a' + (int)(i % 26), 256);
    value[i % 250] = 0;
    return i % 250;
}

static int import_records(struct store_import *import, char *error)
{
    struct store_builder b = {0};
    struct store_entry head = {.index = 1, .term = 1};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < RECORDS; i++) {
        char key[32], value[256];
        struct store_bytes *bytes;
        nth_key(i, key);
        size_t size = nth_value(i, value);
        store_builder_begin(&b, TIMESTAMP + i);
        store_builder_put(&b, key, strlen(key), value, size);
        assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
        rc = store_import_record(import, bytes->data + STORE_ENTRY_HEADER,
                                 bytes->length - STORE_ENTRY_HEADER, error);
        store_bytes_unref(bytes);
    }
    store_builder_release(&b);
    return rc;
}

static int make(struct fixture *f)
{
    struct store_import *import = NULL;
    int rc = store_import_new(&f->options, &import, f->error);
    if (rc == 0)
        rc = import_records(import, f->error);
    if (rc == 0)
        rc = store_import_finish(import, &end, "state", 5, f->error);
    store_import_free(import);
    assert_int_equal(memory_disk_open_count(f->disk), 0);
    return rc;
}

static void begin(struct fixture *f)
{
    fixture_init_on(f, memory_disk_new(), SMALL_SEGMENT);
    f->options.io = &f->io;
}

static int load_state(void *context, const void *data, size_t length)
{
    assert_int_equal(length, 5);
    assert_memory_equal(data, "state", 5);
    ++*(unsigned *)context;
    return 0;
}

static void check_content(struct store *s)
{
    for (unsigned i = 0; i < RECORDS; i++) {
        char key[32], value[256];
        struct buf got = {0};
        uint64_t timestamp;
        nth_key(i, key);
        size_t size = nth_value(i, value);
        assert_int_equal(store_get(s, key, strlen(key), 0, &got, &timestamp), 0);
        assert_int_equal(timestamp, TIMESTAMP + 1 + i);
        assert_int_equal(got.length, size);
        if (size)
            assert_memory_equal(got.data, value, size);
        buf_release(&got);
    }
}

/* It is there, the log goes on after it, and it stays over another start. */
static void test_an_import_is_a_store(void **state)
{
    struct fixture f;
    unsigned loaded = 0;
    begin(&f);
    assert_int_equal(make(&f), 0);
    assert_int_equal(make(&f), -EEXIST);
    f.options.load_state = load_state;
    f.options.context = &loaded;
    assert_int_equal(store_open(&f.s, &f.options, &f.recovery, f.error), 0);
    assert_int_equal(loaded, 1);
    assert_int_equal(f.recovery.base_index, end.index);
    assert_int_equal(f.recovery.base_term, end.term);
    assert_int_equal(f.recovery.last_index, end.index);
    uint64_t term, timestamp;
    uint32_t crc;
    store_chain(f.s, &term, &crc, &timestamp);
    assert_int_equal(term, end.term);
    assert_int_equal(crc, end.crc);
    assert_int_equal(timestamp, end.timestamp_us);
    struct store_point applied = store_applied_point(f.s);
    assert_int_equal(applied.index, end.index);
    assert_int_equal(applied.crc, end.crc);
    assert_true(store_is_ready(f.s));
    check_content(f.s);
    store_check(f.s);
    append_one(&f, 4, "key 0003", "newer");
    run(&f);
    apply_to(&f, end.index + 1);
    assert_value(f.s, "key 0003", "newer");
    assert_int_equal(store_set_commit_hint(f.s, end.index + 1), 0);
    run(&f);
    fixture_close(&f);
    assert_int_equal(store_open(&f.s, &f.options, &f.recovery, f.error), 0);
    assert_value(f.s, "key 0003", "newer");
    assert_value(f.s, "key 0000", "");
    store_check(f.s);
    fixture_release(&f);
}

static void test_every_call_can_fail(void **state)
{
    struct fixture f;
    begin(&f);
    assert_int_equal(make(&f), 0);
    uint64_t calls = memory_disk_calls(f.disk);
    fixture_release(&f);
    assert_true(calls > 20);
    for (uint64_t call = 1; call <= calls; call++) {
        begin(&f);
        memory_disk_fail_call(f.disk, call, -ENOSPC);
        assert_int_equal(make(&f), -ENOSPC);
        assert_true(f.error[0]);
        fixture_release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_import_is_a_store),
        cmocka_unit_test(test_every_call_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
