/* test_fetch.c - FETCH and FETCHED as bytes. */
#include "fetch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct fetch_request requests[] = {
    {.id = 1, .kind = FETCH_SNAPSHOT},
    {.id = 2,
     .kind = FETCH_CHUNK,
     .snapshot = 3,
     .file = 4,
     .offset = 5,
     .length = STORE_CHUNK_BYTES},
    {.id = 6, .kind = FETCH_CLOSE, .snapshot = 7},
    {.id = 8, .kind = FETCH_RECORD, .timestamp_us = 9, .key = "key", .key_size = 3},
    {.id = 10, .kind = FETCH_ENTRY, .index = 11, .term = 12},
    {.id = 13, .kind = FETCH_KEEP, .snapshot = 14},
};

static int decode(const void *data, size_t length, struct fetch_request *ret)
{
    /* A copy of its own size, so that a sanitizer sees a read beyond it. */
    void *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, data, length);
    int result = fetch_request_decode(copy, length, ret);
    free(copy);
    return result;
}

static void test_each_kind_comes_back(void **state)
{
    for (size_t i = 0; i < array_length(requests); i++) {
        struct buf bytes = {0};
        struct fetch_request back;
        memset(&back, 0xff, sizeof(back));
        fetch_request_encode(&requests[i], &bytes);
        assert_int_equal(decode(bytes.data, bytes.length, &back), 0);
        assert_memory_equal(&back, &requests[i], sizeof(back));
        buf_release(&bytes);
    }
}

static void test_what_does_not_fill_its_frame_is_refused(void **state)
{
    for (size_t i = 0; i < array_length(requests); i++) {
        struct buf bytes = {0};
        struct fetch_request back;
        fetch_request_encode(&requests[i], &bytes);
        for (size_t length = 0; length < bytes.length; length++)
            assert_int_equal(decode(bytes.data, length, &back), -EPROTO);
        buf_u8(&bytes, 0);
        assert_int_equal(decode(bytes.data, bytes.length, &back), -EPROTO);
        buf_release(&bytes);
    }
}

static void expect_refused(struct fetch_request q)
{
    struct buf bytes = {0};
    struct fetch_request back;
    fetch_request_encode(&q, &bytes);
    assert_int_equal(decode(bytes.data, bytes.length, &back), -EPROTO);
    buf_release(&bytes);
}

static void test_bounds(void **state)
{
    struct fetch_request q = requests[1];
    q.length = STORE_CHUNK_BYTES + 1;
    expect_refused(q);
    q.length = 0;
    expect_refused(q);
    q = requests[1];
    q.offset = UINT64_MAX; /* offset + length would wrap */
    expect_refused(q);
    q = requests[3];
    q.key_size = 0;
    expect_refused(q);
    q = requests[4];
    q.index = 0;
    expect_refused(q);
    uint8_t unknown[9] = {1, 0, 0, 0, 0, 0, 0, 0, FETCH_KEEP + 1};
    assert_int_equal(decode(unknown, sizeof(unknown), &q), -EPROTO);
    unknown[8] = 0;
    assert_int_equal(decode(unknown, sizeof(unknown), &q), -EPROTO);
}

static void test_a_key_beyond_its_bound_is_refused(void **state)
{
    struct buf bytes = {0};
    struct fetch_request back;
    uint8_t key[LIMIT_KEY_BYTES + 1] = {0};
    buf_u64(&bytes, 1);
    buf_u8(&bytes, FETCH_RECORD);
    buf_u64(&bytes, 2);
    buf_string(&bytes, key, sizeof(key));
    assert_int_equal(decode(bytes.data, bytes.length, &back), -EPROTO);
    buf_release(&bytes);
}

static void test_answers(void **state)
{
    uint8_t frame[FETCH_HEAD_BYTES + 3] = {0};
    const uint8_t *bytes;
    uint64_t id;
    size_t length;
    int error;
    fetch_answer_head(frame, 7, 0);
    memcpy(frame + FETCH_HEAD_BYTES, "abc", 3);
    assert_int_equal(
        fetch_answer_decode(frame, sizeof(frame), &id, &error, &bytes, &length), 0);
    assert_int_equal(id, 7);
    assert_int_equal(error, 0);
    assert_int_equal(length, 3);
    assert_memory_equal(bytes, "abc", 3);
    fetch_answer_head(frame, 7, ENOENT); /* an error brings no bytes */
    assert_int_equal(
        fetch_answer_decode(frame, sizeof(frame), &id, &error, &bytes, &length), -EPROTO);
    assert_int_equal(
        fetch_answer_decode(frame, FETCH_HEAD_BYTES, &id, &error, &bytes, &length), 0);
    assert_int_equal(error, ENOENT);
    fetch_answer_head(frame, 7, 4096);
    assert_int_equal(
        fetch_answer_decode(frame, FETCH_HEAD_BYTES, &id, &error, &bytes, &length),
        -EPROTO);
    for (size_t i = 0; i < FETCH_HEAD_BYTES; i++)
        assert_int_equal(fetch_answer_decode(frame, i, &id, &error, &bytes, &length),
                         -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_comes_back),
        cmocka_unit_test(test_what_does_not_fill_its_frame_is_refused),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_a_key_beyond_its_bound_is_refused),
        cmocka_unit_test(test_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
