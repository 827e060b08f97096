/* test_entry.c - records, entries and the builder: what is valid, and that nothing else
 * is. */
#include "fixture.h"
#include "store_internal.h"

static struct store_bytes *sample(unsigned count)
{
    struct store_builder b = {0};
    store_builder_begin(&b, 1000);
    for (unsigned i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key%u", i);
        bool tombstone = i % 3 == 2;
        uint64_t timestamp =
            store_builder_put(&b, key, strlen(key), tombstone ? NULL : "some value here",
                              tombstone ? 0 : i % 16);
        assert_int_equal(timestamp, 1001 + i);
    }
    struct store_entry head = {.index = 15,
                               .term = 3,
                               .prev_term = 2,
                               .prev_crc = 0x12345678,
                               .commit = 14,
                               .session = 99,
                               .request = 100,
                               .result = "result of 16 byt"};
    struct store_bytes *bytes;
    size_t length = store_builder_length(&b);
    assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
    assert_int_equal(bytes->length, length);
    store_builder_release(&b);
    return bytes;
}

static int count_record(void *arg, const struct store_record *record, uint32_t offset)
{
    unsigned *count = arg;
    char key[16];
    snprintf(key, sizeof(key), "key%u", *count);
    assert_int_equal(record->key_size, strlen(key));
    assert_memory_equal(record->key, key, strlen(key));
    assert_int_equal(record->timestamp_us, 1001 + *count);
    assert_int_equal(record->value == NULL, *count % 3 == 2);
    assert_true(offset >= STORE_ENTRY_HEADER);
    (*count)++;
    return 0;
}

static void test_round_trip(void **state)
{
    struct store_bytes *bytes = sample(5);
    struct store_entry e;
    assert_int_equal(store_entry_verify(bytes->data, bytes->length, &e), 0);
    assert_int_equal(e.timestamp_us, 1000);
    assert_int_equal(e.index, 15);
    assert_int_equal(e.term, 3);
    assert_int_equal(e.prev_term, 2);
    assert_int_equal(e.prev_crc, 0x12345678);
    assert_int_equal(e.commit, 14);
    assert_int_equal(e.session, 99);
    assert_int_equal(e.request, 100);
    assert_memory_equal(e.result, "result of 16 byt", 16);
    assert_int_equal(e.record_count, 5);
    assert_int_equal(e.length, bytes->length);
    assert_int_equal(e.crc, get_u32(bytes->data));
    unsigned count = 0;
    assert_int_equal(store_entry_each(bytes->data, bytes->length, count_record, &count),
                     0);
    assert_int_equal(count, 5);
    store_bytes_unref(bytes);
}

/* The format, byte for byte, written down by hand. */
static void test_bytes(void **state)
{
    struct store_builder b = {0};
    store_builder_begin(&b, 0x0102030405060708);
    store_builder_put(&b, "Dk", 2, "vv", 2);
    struct store_entry head = {.index = 1, .term = 2, .session = 3, .request = 4};
    struct store_bytes *bytes;
    assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
    store_builder_release(&b);
    assert_int_equal(bytes->length, 97 + 24);
    const uint8_t *d = bytes->data;
    static const uint8_t start[] = {8, 7, 6, 5, 4, 3, 2, 1, 1, 0, 0, 0, 76, 0, 0, 0, 0};
    assert_memory_equal(d + 4, start, sizeof(start));
    assert_int_equal(get_u32(d), crc32_of(0, d + 4, 93));
    assert_int_equal(get_u64(d + 21), 1);      /* index */
    assert_int_equal(get_u64(d + 21 + 8), 2);  /* term */
    assert_int_equal(get_u64(d + 21 + 36), 3); /* session */
    assert_int_equal(get_u64(d + 21 + 44), 4); /* request */
    assert_int_equal(get_u32(d + 21 + 68), 1); /* records */
    assert_int_equal(get_u32(d + 21 + 72), 121);
    static const uint8_t record[] = {9, 7, 6, 5, 4, 3, 2,   1,   2,   0,
                                     0, 0, 2, 0, 0, 0, 'D', 'k', 'v', 'v'};
    assert_memory_equal(d + 97 + 4, record, sizeof(record));
    assert_int_equal(get_u32(d + 97), crc32_of(0, d + 101, 20));
    store_bytes_unref(bytes);
}

static void test_every_corruption_is_found(void **state)
{
    struct store_bytes *bytes = sample(4);
    struct store_entry e;
    for (uint32_t i = 0; i < bytes->length; i++) {
        for (unsigned flip = 1; flip < 256; flip += 37) {
            bytes->data[i] ^= (uint8_t)flip;
            assert_int_equal(store_entry_verify(bytes->data, bytes->length, &e),
                             -EBADMSG);
            bytes->data[i] ^= (uint8_t)flip;
        }
    }
    for (uint32_t length = 0; length < bytes->length; length++)
        assert_int_equal(store_entry_verify(bytes->data, length, &e), -EBADMSG);
    assert_int_equal(store_entry_verify(bytes->data, bytes->length, &e), 0);
    store_bytes_unref(bytes);
}

/* The checksum right, the content wrong: what only a faulty peer would send. */
static void resum(uint8_t *record, size_t length)
{
    put_u32(record, crc32_of(0, record + 4, length - 4));
}

static void expect_bad(const struct store_bytes *bytes)
{
    struct store_entry e;
    assert_int_equal(store_entry_verify(bytes->data, bytes->length, &e), -EBADMSG);
}

static void test_sealed_nonsense(void **state)
{
    enum { HEAD = STORE_ENTRY_HEADER, VALUE = STORE_RECORD_HEADER + 1, R1 = HEAD };
    struct store_bytes *good = sample(2), *bytes;
    /* key0 with 0 bytes, key1 with 1 byte: 24 and 25 bytes. */
    struct {
        size_t offset;
        uint8_t value;
        size_t record, length;
    } cases[] = {
        {VALUE + 68, 1, 0, HEAD},            /* fewer records than there are */
        {VALUE + 68, 3, 0, HEAD},            /* more */
        {VALUE + 69, 255, 0, HEAD},          /* beyond the limit */
        {VALUE + 72, 97, 0, HEAD},           /* shorter than its records */
        {VALUE + 72, 96, 0, HEAD},           /* than itself */
        {VALUE + 0, 0, 0, HEAD},             /* index 0 */
        {STORE_RECORD_HEADER, 'x', 0, HEAD}, /* not the entry key */
        {R1 + 4, 0xea, R1, 24},              /* a timestamp twice */
        {R1 + 24 + 4, 0xe9, R1 + 24, 25},    /* not growing */
        {R1 + 24 + 23, '0', R1 + 24, 25},    /* a key twice (G2) */
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        bytes = store_bytes_of(good->data, good->length);
        bytes->data[cases[i].offset] = cases[i].value;
        resum(bytes->data + cases[i].record, cases[i].length);
        expect_bad(bytes);
        store_bytes_unref(bytes);
    }
    store_bytes_unref(good);
}

static void test_record_bounds(void **state)
{
    uint8_t record[64] = {0};
    struct store_record r;
    put_u32(record + 12, LIMIT_KEY_BYTES + 1);
    struct reader reader = reader_of(record, sizeof(record));
    assert_int_equal(store_record_read(&reader, &r), -EBADMSG);
    put_u32(record + 12, 1);
    put_u32(record + 16, LIMIT_ENTRY_BYTES + 1);
    reader = reader_of(record, sizeof(record));
    assert_int_equal(store_record_read(&reader, &r), -EBADMSG);
    put_u32(record + 12, 0);
    put_u32(record + 16, 0);
    put_u32(record, crc32_of(0, record + 4, 16));
    reader = reader_of(record, sizeof(record));
    assert_int_equal(store_record_read(&reader, &r), -EBADMSG);
}

static void test_builder_limits(void **state)
{
    struct store_builder b = {0};
    struct store_entry head = {.index = 1, .term = 1};
    struct store_bytes *bytes;
    uint8_t *big = calloc(1, LIMIT_ENTRY_BYTES);
    size_t fits = LIMIT_ENTRY_BYTES - STORE_ENTRY_HEADER - STORE_RECORD_HEADER - 1;
    store_builder_begin(&b, 1);
    store_builder_put(&b, "k", 1, big, fits);
    assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
    assert_int_equal(bytes->length, LIMIT_ENTRY_BYTES);
    struct store_entry e;
    assert_int_equal(store_entry_verify(bytes->data, bytes->length, &e), 0);
    store_bytes_unref(bytes);
    store_builder_begin(&b, 1);
    store_builder_put(&b, "k", 1, big, fits + 1);
    assert_int_equal(store_builder_finish(&b, &head, &bytes), -E2BIG);
    free(big);
    for (unsigned count = LIMIT_ENTRY_RECORDS; count <= LIMIT_ENTRY_RECORDS + 1;
         count++) {
        store_builder_begin(&b, 1);
        for (unsigned i = 0; i < count; i++) {
            uint8_t key[9] = {'k'};
            put_be64(key + 1, i);
            store_builder_put(&b, key, sizeof(key), NULL, 0);
        }
        int expected = count > LIMIT_ENTRY_RECORDS ? -E2BIG : 0;
        assert_int_equal(store_builder_finish(&b, &head, &bytes), expected);
        if (expected == 0) {
            assert_int_equal(store_entry_verify(bytes->data, bytes->length, &e), 0);
            store_bytes_unref(bytes);
        }
    }
    store_builder_release(&b);
}

static void test_empty_entry(void **state)
{
    struct store_bytes *bytes = sample(0);
    struct store_entry e;
    assert_int_equal(bytes->length, STORE_ENTRY_HEADER);
    assert_int_equal(store_entry_verify(bytes->data, bytes->length, &e), 0);
    store_bytes_unref(store_bytes_ref(bytes));
    store_bytes_unref(bytes);
    store_bytes_unref(NULL);
}

/* G1, link by link; white-box: a reader of files is the only one who meets such entries.
 */
static void test_chain(void **state)
{
    const struct chain end = {.index = 14, .term = 2, .timestamp_us = 1000, .crc = 77};
    const struct store_entry next = {
        .index = 15, .term = 2, .prev_term = 2, .prev_crc = 77, .timestamp_us = 1001};
    struct store_entry e = next;
    assert_true(chain_continues(&end, &e));
    e.term = 3;
    assert_true(chain_continues(&end, &e));
    e.term = 1;
    assert_false(chain_continues(&end, &e));
    e = next;
    e.index = 16;
    assert_false(chain_continues(&end, &e));
    e = next;
    e.prev_term = 1; /* 14 was of term 1 when this was written */
    assert_false(chain_continues(&end, &e));
    e = next;
    e.prev_crc = 78; /* or another entry of term 2 */
    assert_false(chain_continues(&end, &e));
    e = next;
    e.timestamp_us = 1000;
    assert_false(chain_continues(&end, &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_every_corruption_is_found),
        cmocka_unit_test(test_sealed_nonsense),
        cmocka_unit_test(test_record_bounds),
        cmocka_unit_test(test_builder_limits),
        cmocka_unit_test(test_empty_entry),
        cmocka_unit_test(test_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
