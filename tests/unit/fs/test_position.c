/* test_position.c - places in a directory, as numbers: what stays is on its side of each,
 * whatever comes and goes, and little is kept for it. */
#include "position.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct name {
    uint8_t bytes[LIMIT_NAME_BYTES + 1];
    size_t size;
};

static int compare(const void *a, const void *b)
{
    const struct name *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, min_u64(x->size, y->size));
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/* Sorted, each once. Returns how many are left. */
static size_t sort(struct name *names, size_t count)
{
    qsort(names, count, sizeof(*names), compare);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || compare(&names[kept - 1], &names[i]) != 0)
            names[kept++] = names[i];
    return kept;
}

static uint64_t number_of(struct positions *all, const struct name *names, size_t count,
                          size_t i)
{
    uint64_t number;
    bool last = i + 1 == count;
    assert_int_equal(positions_number(all, names[i].bytes, names[i].size,
                                      last ? NULL : names[i + 1].bytes,
                                      last ? 0 : names[i + 1].size, &number),
                     0);
    assert_true(number > 0 && number <= INT64_MAX);
    return number;
}

static void assert_divides(const struct positions *all, uint64_t number,
                           const struct name *names, size_t count, size_t at)
{
    struct position place;
    assert_int_equal(positions_find(all, number, &place), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(position_is_before(&place, names[i].bytes, names[i].size),
                         i > at);
}

/* ---- Names of many kinds ---- */

static void number_name(struct name *to, uint64_t *random)
{
    to->size = (size_t)sprintf((char *)to->bytes, "file-%07u.txt",
                               (unsigned)(random_next(random) % 1000000));
}

/* Two letters, so that many names begin with others. */
static void nested_name(struct name *to, uint64_t *random)
{
    to->size = 1 + random_next(random) % 12;
    for (size_t i = 0; i < to->size; i++)
        to->bytes[i] = "ab"[random_next(random) % 2];
}

static void any_name(struct name *to, uint64_t *random)
{
    to->size = 1 + random_next(random) % LIMIT_NAME_BYTES;
    for (size_t i = 0; i < to->size; i++)
        to->bytes[i] = (uint8_t)(1 + random_next(random) % 255);
}

/* As long as they may be, and different in few places. */
static void long_name(struct name *to, uint64_t *random)
{
    to->size = LIMIT_NAME_BYTES - random_next(random) % 3;
    memset(to->bytes, 0xff, to->size);
    for (int i = 0; i < 3; i++)
        to->bytes[random_next(random) % to->size] = (uint8_t)(0xff - i);
}

static void paired_name(struct name *to, uint64_t *random)
{
    to->size = (size_t)sprintf((char *)to->bytes, "%06u, a title of some length.%s",
                               (unsigned)(random_next(random) % 200),
                               random_next(random) % 2 ? "jpg" : "xmp");
}

static void test_what_stays_keeps_its_side(void **state)
{
    static void (*const kinds[])(struct name * to, uint64_t * random) = {
        number_name, nested_name, any_name, long_name, paired_name};
    enum { MOST = 400 };
    struct name *names = calloc(MOST, sizeof(*names));
    uint64_t *numbers = calloc(MOST, sizeof(*numbers));
    uint64_t random = 7;
    for (unsigned turn = 0; turn < 20; turn++) {
        struct positions all = {0};
        for (size_t i = 0; i < MOST; i++)
            kinds[turn % array_length(kinds)](&names[i], &random);
        size_t count = sort(names, MOST);
        for (size_t i = 0; i < count; i++)
            numbers[i] = number_of(&all, names, count, i);
        for (size_t i = 0; i < count; i++) {
            assert_divides(&all, numbers[i], names, count, i);
            for (size_t j = 0; j < i; j++)
                assert_int_not_equal(numbers[i], numbers[j]);
        }
        positions_release(&all);
    }
    free(names);
    free(numbers);
}

/* Between two names others are made, and a program goes back, and forward again. */
static void test_numbers_stay_as_names_come(void **state)
{
    enum { ROUNDS = 6, MOST = 600 };
    struct name *names = calloc(MOST, sizeof(*names)),
                *first = calloc(100, sizeof(*first));
    uint64_t numbers[100], random = 11;
    struct positions all = {0};
    for (size_t i = 0; i < 100; i++)
        nested_name(&first[i], &random);
    size_t old = sort(first, 100);
    for (size_t i = 0; i < old; i++)
        numbers[i] = number_of(&all, first, old, i);
    for (unsigned round = 0; round < ROUNDS; round++) {
        size_t count = old + round * 80;
        memcpy(names, first, old * sizeof(*names));
        for (size_t i = old; i < count; i++)
            nested_name(&names[i], &random);
        count = sort(names, count);
        for (size_t i = 0; i < count; i++)
            assert_divides(&all, number_of(&all, names, count, i), names, count, i);
        for (size_t i = 0; i < old; i++)
            assert_divides(&all, numbers[i], first, old, i);
    }
    positions_release(&all);
    free(names);
    free(first);
}

/* ---- What is kept ---- */

static size_t prefixes_bytes(const struct prefixes *p)
{
    return p->bytes.length + p->ends.length + p->slots.length;
}

static size_t kept_bytes(const struct positions *all)
{
    return prefixes_bytes(&all->now) + prefixes_bytes(&all->former);
}

static void test_a_million_numbered_names(void **state)
{
    struct positions all = {0};
    struct name names[2] = {{.size = 8, .bytes = "f0000000"}};
    for (unsigned i = 1; i < 1000000; i++) {
        names[1].size = (size_t)sprintf((char *)names[1].bytes, "f%07u", i);
        number_of(&all, names, 2, 0);
        names[0] = names[1];
    }
    assert_true(kept_bytes(&all) < 1024);
    positions_release(&all);
}

static void test_names_of_random_digits(void **state)
{
    enum { COUNT = 100000 };
    struct name *names = calloc(COUNT, sizeof(*names));
    uint64_t random = 3;
    for (size_t i = 0; i < COUNT; i++)
        names[i].size = (size_t)sprintf((char *)names[i].bytes, "%016llx%016llx",
                                        (unsigned long long)random_next(&random),
                                        (unsigned long long)random_next(&random));
    size_t count = sort(names, COUNT);
    struct positions all = {0};
    for (size_t i = 0; i < count; i++)
        number_of(&all, names, count, i);
    assert_true(kept_bytes(&all) < 128 * KiB);
    positions_release(&all);
    free(names);
}

/* Each second name needs a prefix of its own. */
static struct name pair_of(unsigned i)
{
    struct name name;
    name.size = (size_t)sprintf((char *)name.bytes, "%07u with a common middle %c", i / 2,
                                i % 2 ? 'b' : 'a');
    return name;
}

static void test_what_is_kept_is_bounded(void **state)
{
    enum { COUNT = 300000, REMEMBERED = 8192 };
    struct positions all = {0};
    uint64_t *numbers = calloc(COUNT, sizeof(*numbers));
    for (unsigned i = 0; i + 1 < COUNT; i++) {
        struct name names[2] = {pair_of(i), pair_of(i + 1)};
        numbers[i] = number_of(&all, names, 2, 0);
        assert_true(kept_bytes(&all) <= 2 * POSITION_BYTES);
        unsigned before = i > REMEMBERED ? i - REMEMBERED : 0;
        struct name around[2] = {pair_of(before), pair_of(before + 1)};
        assert_divides(&all, numbers[before], around, 2, 0);
    }
    struct position place;
    assert_int_equal(positions_find(&all, numbers[0], &place), -EINVAL);
    positions_release(&all);
    free(numbers);
}

/* Who reads the same names again and again needs no more for it. */
static void test_the_same_again(void **state)
{
    enum { COUNT = 2000 };
    struct positions all = {0};
    size_t kept = 0;
    for (unsigned turn = 0; turn < 50; turn++) {
        for (unsigned i = 0; i + 1 < COUNT; i++) {
            struct name names[2] = {pair_of(i), pair_of(i + 1)};
            number_of(&all, names, 2, 0);
        }
        if (turn == 0)
            kept = kept_bytes(&all);
    }
    assert_int_equal(kept_bytes(&all), kept);
    positions_release(&all);
}

static void test_numbers_that_were_not_given(void **state)
{
    struct positions all = {0};
    struct position place;
    assert_int_equal(positions_find(&all, 3, &place), -EINVAL);
    struct name name = {.size = 1, .bytes = "n"};
    uint64_t number = number_of(&all, &name, 1, 0);
    assert_int_equal(positions_find(&all, number, &place), 0);
    assert_int_equal(positions_find(&all, number + ((uint64_t)1 << 40), &place), -EINVAL);
    assert_int_equal(positions_find(&all, UINT64_MAX, &place), -EINVAL);
    assert_int_equal(positions_find(&all, 0, &place), -EINVAL);
    positions_release(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_stays_keeps_its_side),
        cmocka_unit_test(test_numbers_stay_as_names_come),
        cmocka_unit_test(test_a_million_numbered_names),
        cmocka_unit_test(test_names_of_random_digits),
        cmocka_unit_test(test_what_is_kept_is_bounded),
        cmocka_unit_test(test_the_same_again),
        cmocka_unit_test(test_numbers_that_were_not_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
