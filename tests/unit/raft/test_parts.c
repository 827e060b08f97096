/* test_parts.c - runs and the quorum function, each against a dumb version. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "raft_internal.h"

enum { ROUNDS = 2000, MODEL_MAX = 200 };

/* The model: the term of each index from the base on. */
struct model {
    uint64_t base, last;
    uint64_t term[MODEL_MAX];
};

static uint64_t seed = 42;

static uint64_t chance(uint64_t below)
{
    return random_next(&seed) % below;
}

static uint64_t model_newest_at(const struct model *m, uint64_t index, uint64_t term)
{
    index = min_u64(index, m->last);
    while (index > m->base && m->term[index] > term)
        index--;
    return max_u64(index, m->base);
}

static void assert_same(const struct runs *l, const struct model *m)
{
    assert_int_equal(runs_last_index(l), m->last);
    assert_int_equal(runs_last_term(l), m->term[m->last]);
    for (uint64_t i = 0; i < MODEL_MAX; i++)
        assert_int_equal(runs_term_of(l, i), i < m->base || i > m->last ? 0 : m->term[i]);
    for (int i = 0; i < 20; i++) {
        uint64_t index = chance(MODEL_MAX), term = chance(12);
        assert_int_equal(runs_newest_at(l, index, term), model_newest_at(m, index, term));
    }
}

static void change(struct runs *l, struct model *m)
{
    if (m->base < m->last && !chance(40)) {
        m->base += 1 + chance(min_u64(m->last - m->base, 3));
        runs_compact(l, m->base);
        return;
    }
    if (m->last == MODEL_MAX - 1 || !chance(3)) {
        m->last = m->base + chance(m->last - m->base + 1);
        runs_truncate(l, m->last);
        return;
    }
    uint64_t last = min_u64(m->last + 1 + chance(9), MODEL_MAX - 1);
    uint64_t term = max_u64(m->term[m->last], 1) + (chance(2) ? chance(3) : 0);
    assert_int_equal(runs_reserve(l, 1), 0);
    runs_append(l, last, term);
    while (m->last < last)
        m->term[++m->last] = term;
}

static void test_runs(void **state)
{
    for (int base = 0; base < 2; base++) {
        struct model m = {.base = base ? 7 : 0, .last = base ? 7 : 0};
        m.term[m.base] = base ? 2 : 0;
        struct runs l = {.base_index = m.base, .base_term = m.term[m.base]};
        for (int i = 0; i < ROUNDS; i++) {
            change(&l, &m);
            assert_same(&l, &m);
        }
        assert_true(l.base_index > 20); /* it was moved */
        runs_restart(&l, 30, 9);
        m = (struct model){.base = 30, .last = 30, .term[30] = 9};
        for (int i = 0; i < ROUNDS / 10; i++) {
            change(&l, &m);
            assert_same(&l, &m);
        }
        runs_release(&l);
    }
}

static void test_difference(void **state)
{
    struct raft_run at[] = {{3, 1}, {6, 2}};
    struct runs l = {.at = at, .count = 2, .capacity = 2};
    const struct {
        uint64_t after, difference;
        size_t count;
        struct raft_run runs[3];
    } cases[] = {
        {0, 0, 2, {{3, 1}, {6, 2}}}, {2, 0, 2, {{3, 1}, {5, 2}}},
        {2, 4, 2, {{4, 1}, {6, 2}}}, {1, 3, 2, {{2, 1}, {6, 2}}},
        {4, 7, 1, {{8, 2}}},         {4, 6, 2, {{5, 2}, {9, 3}}},
        {6, 7, 1, {{7, 3}}},         {6, 0, 0, {{0}}},
    };
    for (size_t i = 0; i < array_length(cases); i++)
        assert_int_equal(
            runs_difference(&l, cases[i].after, cases[i].runs, cases[i].count),
            cases[i].difference);
}

static uint64_t dumb_quorum(const uint64_t *values, uint32_t count)
{
    uint64_t best = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t reached = 0;
        for (uint32_t j = 0; j < count; j++)
            reached += values[j] >= values[i];
        if (2 * reached > count)
            best = max_u64(best, values[i]);
    }
    return best;
}

static void test_quorum(void **state)
{
    for (int i = 0; i < 20 * ROUNDS; i++) {
        uint64_t values[LIMIT_MEMBERS];
        uint32_t count = 1 + chance(LIMIT_MEMBERS);
        for (uint32_t j = 0; j < count; j++)
            values[j] = chance(10);
        uint64_t expected = dumb_quorum(values, count);
        assert_int_equal(quorum_value(values, count), expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_difference),
        cmocka_unit_test(test_quorum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
