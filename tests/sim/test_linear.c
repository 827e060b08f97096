/* test_linear.c - the checker of histories, by histories known to be good and to be bad.
 */
#include "linear.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { BUDGET = 1000 * 1000 };
#define NEVER UINT64_MAX

#define WRITE(from, to, value)                                                           \
    {                                                                                    \
        .invoked = from, .returned = to, .kind = REGISTER_WRITE, .a = value              \
    }
#define READ(from, to, value)                                                            \
    {                                                                                    \
        .invoked = from, .returned = to, .kind = REGISTER_READ, .r1 = value              \
    }
#define APPEND(from, to, value, length)                                                  \
    {                                                                                    \
        .invoked = from, .returned = to, .kind = LIST_APPEND, .a = value, .r1 = length   \
    }
#define NAME(from, to, what, n1, n2, e, i1, i2)                                          \
    {                                                                                    \
        .invoked = from, .returned = to, .kind = what, .a = n1, .b = n2, .error = e,     \
        .r1 = i1, .r2 = i2                                                               \
    }

#define check(model, calls)                                                              \
    linear_check(model, calls, array_length(calls), BUDGET, &stuck)
#define good(model, calls)                                                               \
    do {                                                                                 \
        size_t stuck;                                                                    \
        assert_int_equal(check(model, calls), LINEAR_YES);                               \
    } while (0)
#define bad(model, calls)                                                                \
    do {                                                                                 \
        size_t stuck;                                                                    \
        assert_int_equal(check(model, calls), LINEAR_NO);                                \
    } while (0)

static void test_one_after_the_other(void **state)
{
    const struct linear_call right[] = {WRITE(1, 2, 7), READ(3, 4, 7), WRITE(5, 6, 8),
                                        READ(7, 8, 8)};
    const struct linear_call stale[] = {WRITE(1, 2, 7), WRITE(3, 4, 8), READ(5, 6, 7)};
    const struct linear_call never[] = {WRITE(1, 2, 7), READ(3, 4, 9)};
    good(&linear_register, right);
    bad(&linear_register, stale);
    bad(&linear_register, never);
}

static void test_calls_that_overlap_may_go_either_way(void **state)
{
    const struct linear_call before[] = {WRITE(1, 2, 7), WRITE(3, 6, 8), READ(4, 5, 7)};
    const struct linear_call after[] = {WRITE(1, 2, 7), WRITE(3, 6, 8), READ(4, 5, 8)};
    const struct linear_call back[] = {WRITE(1, 2, 7), WRITE(3, 10, 8), READ(4, 5, 8),
                                       READ(6, 7, 7)};
    good(&linear_register, before);
    good(&linear_register, after);
    bad(&linear_register, back); /* what was seen once is not unseen */
}

/* It may have happened, late, or not at all; but not twice. */
static void test_a_call_without_an_answer(void **state)
{
    const struct linear_call late[] = {WRITE(1, 2, 7), WRITE(3, NEVER, 8), READ(4, 5, 7),
                                       READ(6, 7, 8)};
    const struct linear_call not [] = {WRITE(1, 2, 7), WRITE(3, NEVER, 8), READ(4, 5, 7),
                                       READ(6, 7, 7)};
    const struct linear_call twice[] = {WRITE(1, 2, 7), WRITE(3, NEVER, 8), READ(4, 5, 8),
                                        WRITE(6, 7, 9), READ(8, 9, 8)};
    const struct linear_call early[] = {READ(1, 2, 8), WRITE(3, NEVER, 8)};
    good(&linear_register, late);
    good(&linear_register, not );
    bad(&linear_register, twice);
    bad(&linear_register, early);
}

static void test_lists(void **state)
{
    uint64_t h1 = linear_list_hash(0, 1), h12 = linear_list_hash(h1, 2);
    const struct linear_call right[] = {
        APPEND(1, 4, 1, 1),
        APPEND(2, 3, 2, 2),
        {.invoked = 5, .returned = 6, .kind = LIST_READ, .r1 = 2, .r2 = h12}};
    const struct linear_call lost[] = {
        APPEND(1, 2, 1, 1),
        APPEND(3, 4, 2, 2),
        {.invoked = 5, .returned = 6, .kind = LIST_READ, .r1 = 1, .r2 = h1}};
    const struct linear_call twice[] = {APPEND(1, 2, 1, 1), APPEND(3, 4, 2, 3)};
    const struct linear_call order[] = {
        APPEND(1, 2, 2, 1),
        APPEND(3, 4, 1, 2),
        {.invoked = 5, .returned = 6, .kind = LIST_READ, .r1 = 2, .r2 = h12}};
    good(&linear_list, right);
    bad(&linear_list, lost);
    bad(&linear_list, twice); /* a retry that was executed again */
    bad(&linear_list, order);
}

static void test_names(void **state)
{
    const struct linear_call right[] = {NAME(1, 2, NAMES_MAKE, 0, 0, 0, 11, 0),
                                        NAME(3, 4, NAMES_MAKE, 1, 0, 0, 12, 0),
                                        NAME(5, 6, NAMES_RENAME, 0, 1, 0, 11, 12),
                                        NAME(7, 8, NAMES_LOOKUP, 0, 0, 0, 0, 0),
                                        NAME(9, 10, NAMES_LOOKUP, 1, 0, 0, 11, 0),
                                        NAME(11, 12, NAMES_UNLINK, 1, 0, 0, 11, 0),
                                        NAME(13, 14, NAMES_UNLINK, 1, 0, -ENOENT, 0, 0)};
    const struct linear_call both[] = {/* seen under both names, one after the other */
                                       NAME(1, 2, NAMES_MAKE, 0, 0, 0, 11, 0),
                                       NAME(3, 8, NAMES_RENAME, 0, 1, 0, 11, 0),
                                       NAME(4, 5, NAMES_LOOKUP, 1, 0, 0, 11, 0),
                                       NAME(6, 7, NAMES_LOOKUP, 0, 0, 0, 11, 0)};
    const struct linear_call neither[] = {
        NAME(1, 2, NAMES_MAKE, 0, 0, 0, 11, 0), NAME(3, 8, NAMES_RENAME, 0, 1, 0, 11, 0),
        NAME(4, 5, NAMES_LOOKUP, 0, 0, 0, 0, 0), NAME(6, 7, NAMES_LOOKUP, 1, 0, 0, 0, 0)};
    const struct linear_call two[] = {/* both were told that they made it */
                                      NAME(1, 3, NAMES_MAKE, 0, 0, 0, 11, 0),
                                      NAME(2, 4, NAMES_MAKE, 0, 0, 0, 12, 0)};
    const struct linear_call kind[] = {NAME(1, 2, NAMES_MKDIR, 0, 0, 0, 11, 0),
                                       NAME(3, 4, NAMES_UNLINK, 0, 0, 0, 11, 0)};
    good(&linear_names, right);
    bad(&linear_names, both);
    bad(&linear_names, neither);
    bad(&linear_names, two);
    bad(&linear_names, kind);
}

static void test_links(void **state)
{
    const struct linear_call right[] = {
        NAME(1, 2, NAMES_MAKE, 0, 11, 0, 11, 0),
        NAME(3, 4, NAMES_LINK, 11, 1, 0, 11, 0),
        NAME(5, 6, NAMES_RENAME, 0, 1, 0, 11, 0), /* the same file: both stay */
        NAME(7, 8, NAMES_LOOKUP, 0, 0, 0, 11, 0),
        NAME(9, 10, NAMES_MAKE, 2, 12, 0, 12, 0),
        NAME(11, 12, NAMES_RENAME, 2, 0, 0, 12, 0), /* 11 has a name left */
        NAME(13, 14, NAMES_RENAME, 0, 1, 0, 12, 11),
        NAME(15, 16, NAMES_LINK, 11, 3, -ENOENT, 0, 0),
        NAME(17, 18, NAMES_MKDIR, 4, 13, 0, 13, 0),
        NAME(19, 20, NAMES_LINK, 13, 5, -EPERM, 0, 0),
        NAME(21, 22, NAMES_LINK, 12, 4, -EEXIST, 0, 0),
        NAME(23, 24, NAMES_RMDIR, 4, 0, 0, 13, 0),
        NAME(25, 26, NAMES_LINK, 13, 4, -EPERM, 0, 0), /* it is held by somebody */
        NAME(27, 28, NAMES_LINK, 13, 1, -EEXIST, 0, 0)};
    const struct linear_call lost[] = {/* the second name went with the first */
                                       NAME(1, 2, NAMES_MAKE, 0, 11, 0, 11, 0),
                                       NAME(3, 4, NAMES_LINK, 11, 1, 0, 11, 0),
                                       NAME(5, 6, NAMES_UNLINK, 0, 0, 0, 11, 0),
                                       NAME(7, 8, NAMES_LOOKUP, 1, 0, 0, 0, 0)};
    const struct linear_call gone[] = {/* it had another name, and was said to be gone */
                                       NAME(1, 2, NAMES_MAKE, 0, 11, 0, 11, 0),
                                       NAME(3, 4, NAMES_LINK, 11, 1, 0, 11, 0),
                                       NAME(5, 6, NAMES_MAKE, 2, 12, 0, 12, 0),
                                       NAME(7, 8, NAMES_RENAME, 2, 0, 0, 12, 11)};
    const struct linear_call raised[] = {/* a name for what no longer has one */
                                         NAME(1, 2, NAMES_MAKE, 0, 11, 0, 11, 0),
                                         NAME(3, 4, NAMES_UNLINK, 0, 0, 0, 11, 0),
                                         NAME(5, 6, NAMES_LINK, 11, 1, 0, 11, 0)};
    const struct linear_call learned[] = {/* under one name, and so under the other */
                                          NAME(1, NEVER, NAMES_MAKE, 0, 11, 0, 0, 0),
                                          NAME(2, 3, NAMES_LINK, 11, 1, 0, 11, 0),
                                          NAME(4, 5, NAMES_LOOKUP, 0, 0, 0, 12, 0)};
    good(&linear_names, right);
    bad(&linear_names, lost);
    bad(&linear_names, gone);
    bad(&linear_names, raised);
    bad(&linear_names, learned);
}

static void test_exchanges(void **state)
{
    const struct linear_call right[] = {
        NAME(1, 2, NAMES_MAKE, 0, 11, 0, 11, 0),
        NAME(3, 4, NAMES_MKDIR, 1, 12, 0, 12, 0),
        NAME(5, 6, NAMES_EXCHANGE, 0, 1, 0, 11, 0),
        NAME(7, 8, NAMES_LOOKUP, 0, 0, 0, 12, 0),
        NAME(9, 10, NAMES_UNLINK, 0, 0, -EISDIR, 0, 0),
        NAME(11, 12, NAMES_UNLINK, 1, 0, 0, 11, 0),
        NAME(13, 14, NAMES_EXCHANGE, 0, 1, -ENOENT, 0, 0)};
    const struct linear_call half[] = {/* both names led to one of them, in between */
                                       NAME(1, 2, NAMES_MAKE, 0, 11, 0, 11, 0),
                                       NAME(3, 4, NAMES_MAKE, 1, 12, 0, 12, 0),
                                       NAME(5, 20, NAMES_EXCHANGE, 0, 1, 0, 11, 0),
                                       NAME(6, 7, NAMES_LOOKUP, 0, 0, 0, 12, 0),
                                       NAME(8, 9, NAMES_LOOKUP, 1, 0, 0, 12, 0)};
    good(&linear_names, right);
    bad(&linear_names, half);
}

/* The seed that found it: EEXIST was answered, late, and the copy sent again made the
 * file. */
static void test_an_errno_whose_copy_is_executed(void **state)
{
    const struct linear_call calls[] = {NAME(1, 2, NAMES_MAKE, 0, 0, 0, 11, 0),
                                        NAME(3, 6, NAMES_MAKE, 0, 0, -EEXIST, 0, 0),
                                        NAME(4, 5, NAMES_UNLINK, 0, 0, 0, 11, 0),
                                        NAME(7, 8, NAMES_LOOKUP, 0, 0, 0, 12, 0)};
    bad(&linear_names, calls);
}

/* Who made it got no answer; the first who sees its number tells it. */
static void test_a_number_nobody_was_told(void **state)
{
    const struct linear_call right[] = {NAME(1, NEVER, NAMES_MAKE, 0, 0, 0, 0, 0),
                                        NAME(2, 3, NAMES_LOOKUP, 0, 0, 0, 12, 0),
                                        NAME(4, 5, NAMES_UNLINK, 0, 0, 0, 12, 0)};
    const struct linear_call other[] = {NAME(1, NEVER, NAMES_MAKE, 0, 0, 0, 0, 0),
                                        NAME(2, 3, NAMES_LOOKUP, 0, 0, 0, 12, 0),
                                        NAME(4, 5, NAMES_UNLINK, 0, 0, 0, 13, 0)};
    good(&linear_names, right);
    bad(&linear_names, other);
}

/* As through a mount: neither where an append landed nor what a removal removed. */
static void test_what_is_not_told(void **state)
{
    const uint64_t no = LINEAR_NOT_TOLD;
    uint64_t h21 = linear_list_hash(linear_list_hash(0, 2), 1);
    const struct linear_call list[] = {
        APPEND(1, 4, 1, no),
        APPEND(2, 3, 2, no),
        {.invoked = 5, .returned = 6, .kind = LIST_READ, .r1 = 2, .r2 = h21}};
    const struct linear_call doubled[] = {
        APPEND(1, 2, 1, no),
        {.invoked = 5, .returned = 6, .kind = LIST_READ, .r1 = 2, .r2 = h21}};
    const struct linear_call names[] = {NAME(1, 2, NAMES_MKDIR, 0, 0, 0, no, 0),
                                        NAME(3, 4, NAMES_RENAME, 0, 1, 0, no, no),
                                        NAME(5, 6, NAMES_LOOKUP, 1, 0, 0, 9, 0),
                                        NAME(7, 8, NAMES_RMDIR, 1, 0, 0, no, 0),
                                        NAME(9, 10, NAMES_LOOKUP, 1, 0, 0, 0, 0)};
    const struct linear_call removed_twice[] = {NAME(1, 2, NAMES_MAKE, 0, 0, 0, 5, 0),
                                                NAME(3, 4, NAMES_UNLINK, 0, 0, 0, no, 0),
                                                NAME(5, 6, NAMES_UNLINK, 0, 0, 0, no, 0)};
    struct linear_call full[NAMES + 1];
    for (uint64_t i = 0; i < NAMES; i++)
        full[i] = (struct linear_call)NAME(2 * i, 2 * i + 1, NAMES_MKDIR, i, 0, 0, no, 0);
    full[NAMES] = (struct linear_call)NAME(20, 21, NAMES_LOOKUP, 3, 0, 0, 0, 0);
    good(&linear_list, list);
    bad(&linear_list, doubled);
    good(&linear_names, names);
    bad(&linear_names, removed_twice);
    bad(&linear_names, full); /* it was made, and is not there */
}

/* Against a random order that is right by construction, and the same with one answer
 * bent. */
static void test_random_histories(void **state)
{
    uint64_t seed = 0x1234567;
    for (int round = 0; round < 300; round++) {
        struct linear_call calls[60];
        uint64_t value = 0;
        for (size_t i = 0; i < array_length(calls); i++) {
            uint64_t at = 100 * (i + 1), slack = 1 + random_next(&seed) % 300;
            bool reads = random_next(&seed) % 2;
            calls[i] =
                (struct linear_call){.invoked = at - slack % at,
                                     .returned = at + 1 + random_next(&seed) % 300,
                                     .kind = reads ? REGISTER_READ : REGISTER_WRITE,
                                     .a = i + 1};
            if (!reads)
                value = i + 1;
            calls[i].r1 = value;
        }
        size_t stuck;
        assert_int_equal(check(&linear_register, calls), LINEAR_YES);
        calls[59].kind = REGISTER_READ;
        calls[59].r1 = 1000;
        assert_int_equal(check(&linear_register, calls), LINEAR_NO);
    }
}

static void test_a_budget_ends_the_search(void **state)
{
    const struct linear_call calls[] = {WRITE(1, 9, 7), WRITE(2, 10, 8), READ(11, 12, 3)};
    size_t stuck;
    assert_int_equal(linear_check(&linear_register, calls, 3, 2, &stuck),
                     LINEAR_UNDECIDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_after_the_other),
        cmocka_unit_test(test_calls_that_overlap_may_go_either_way),
        cmocka_unit_test(test_a_call_without_an_answer),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_exchanges),
        cmocka_unit_test(test_an_errno_whose_copy_is_executed),
        cmocka_unit_test(test_a_number_nobody_was_told),
        cmocka_unit_test(test_what_is_not_told),
        cmocka_unit_test(test_random_histories),
        cmocka_unit_test(test_a_budget_ends_the_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
