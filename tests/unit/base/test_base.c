/* test_base.c - bounded bytes, buffers, checksum, hex, chance. */
#include "base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_reader_reads_what_a_buffer_wrote(void **state)
{
    struct buf b = {0};
    buf_u8(&b, 0xfe);
    buf_u16(&b, 0xfedc);
    buf_u32(&b, 0xfedcba98);
    buf_u64(&b, 0xfedcba9876543210);
    buf_be64(&b, 0x0102030405060708);
    buf_cstring(&b, "name");
    assert_false(b.failed);
    assert_int_equal(b.data[1], 0xdc);  /* little-endian */
    assert_int_equal(b.data[15], 0x01); /* big-endian */
    struct reader r = reader_of(b.data, b.length);
    assert_int_equal(reader_u8(&r), 0xfe);
    assert_int_equal(reader_u16(&r), 0xfedc);
    assert_int_equal(reader_u32(&r), 0xfedcba98);
    assert_int_equal(reader_u64(&r), 0xfedcba9876543210);
    assert_int_equal(reader_be64(&r), 0x0102030405060708);
    char name[5];
    reader_cstring(&r, name, sizeof(name));
    assert_string_equal(name, "name");
    assert_true(reader_done(&r));
    buf_release(&b);
}

static void test_reader_never_passes_its_end(void **state)
{
    const uint8_t bytes[3] = {1, 2, 3};
    struct reader r = reader_of(bytes, sizeof(bytes));
    assert_int_equal(reader_u32(&r), 0);
    assert_true(r.bad);
    assert_int_equal(reader_left(&r), 0);
    assert_int_equal(reader_u8(&r), 0);
    assert_false(reader_done(&r));
    r = reader_of(NULL, 0);
    assert_true(reader_done(&r));
    assert_null(reader_bytes(&r, 1));
}

static void test_reader_is_not_done_before_its_end(void **state)
{
    struct reader r = reader_of("ab", 2);
    reader_u8(&r);
    assert_false(reader_done(&r));
}

static void test_cstring_must_fit_and_hold_no_nul(void **state)
{
    char to[4];
    struct reader r = reader_of("\4\0abcd", 6);
    reader_cstring(&r, to, sizeof(to));
    assert_true(r.bad);
    assert_string_equal(to, "");
    r = reader_of("\3\0a\0b", 5);
    reader_cstring(&r, to, sizeof(to));
    assert_true(r.bad);
}

static void test_buffer_grows_and_is_stolen(void **state)
{
    struct buf b = {0};
    for (int i = 0; i < 10000; i++)
        buf_u8(&b, (uint8_t)i);
    buf_printf(&b, "%s-%d", "x", 42);
    size_t length;
    uint8_t *data = buf_steal(&b, &length);
    assert_int_equal(length, 10004);
    assert_int_equal(data[9999], (uint8_t)9999);
    assert_memory_equal(data + 10000, "x-42", 4);
    assert_null(b.data);
    free(data);
}

static void test_buffer_is_no_larger_than_a_large_piece(void **state)
{
    struct buf b = {0};
    buf_reserve(&b, (1 << 20) + 1);
    assert_int_equal(b.capacity, (1 << 20) + 1);
    b.length = b.capacity;
    buf_u8(&b, 1); /* but piece by piece it doubles */
    assert_int_equal(b.capacity, 2 * ((1 << 20) + 1));
    buf_release(&b);
}

static void test_buffer_that_cannot_grow_says_so(void **state)
{
    struct buf b = {0};
    buf_u8(&b, 1);
    buf_reserve(&b, SIZE_MAX / 2);
    assert_true(b.failed);
    assert_null(buf_extend(&b, 1));
    buf_u8(&b, 2);
    assert_int_equal(b.length, 1);
    buf_release(&b);
}

static void test_crc_is_ieee_and_continues(void **state)
{
    assert_int_equal(crc32_of(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(crc32_of(crc32_of(0, "1234", 4), "56789", 5), 0xcbf43926);
    assert_int_equal(crc32_of(5, NULL, 0), 5);
}

static void test_hex(void **state)
{
    char text[7];
    uint8_t back[3];
    hex_format(text, "\x00\xab\xff", 3);
    assert_string_equal(text, "00abff");
    assert_int_equal(hex_parse(text, back, 3), 0);
    assert_memory_equal(back, "\x00\xab\xff", 3);
    assert_int_equal(hex_parse("00abf", back, 3), -EINVAL);
    assert_int_equal(hex_parse("00abfg", back, 3), -EINVAL);
    assert_int_equal(hex_parse("00ABFF", back, 3), -EINVAL);
}

static void test_chance_follows_its_seed(void **state)
{
    uint64_t a = 1, b = 1, c = 2;
    for (int i = 0; i < 100; i++) {
        uint64_t x = random_next(&a);
        assert_int_equal(x, random_next(&b));
        assert_int_not_equal(x, random_next(&c));
    }
}

static void test_clocks_go_on(void **state)
{
    uint64_t before = clock_boot_us();
    assert_true(clock_boot_us() >= before);
    assert_true(clock_real_us() > 1700000000000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_reads_what_a_buffer_wrote),
        cmocka_unit_test(test_reader_never_passes_its_end),
        cmocka_unit_test(test_reader_is_not_done_before_its_end),
        cmocka_unit_test(test_cstring_must_fit_and_hold_no_nul),
        cmocka_unit_test(test_buffer_grows_and_is_stolen),
        cmocka_unit_test(test_buffer_is_no_larger_than_a_large_piece),
        cmocka_unit_test(test_buffer_that_cannot_grow_says_so),
        cmocka_unit_test(test_crc_is_ieee_and_continues),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_chance_follows_its_seed),
        cmocka_unit_test(test_clocks_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
