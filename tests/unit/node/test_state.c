/* test_state.c - members and windows kept with what is merged (S2, G7). */
#include "node_core.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct nodes {
    struct node *from, *to;
};

static int setup(void **state)
{
    struct nodes *both = calloc(1, sizeof(*both));
    assert_non_null(both);
    both->from = calloc(1, sizeof(struct node));
    both->to = calloc(1, sizeof(struct node));
    assert_true(both->from && both->to);
    both->from->members_applied = (struct members){
        .version = 3,
        .count = 2,
        .list = {{.id = 1, .voter = true, .version = 3, .name = "a", .address = "h:1"},
                 {.id = 2, .version = 3, .name = "b", .address = "h:2"}}};
    *state = both;
    return 0;
}

static int teardown(void **state)
{
    struct nodes *both = *state;
    sessions_release(both->from);
    sessions_release(both->to);
    free(both->from);
    free(both->to);
    free(both);
    return 0;
}

static void note(struct node *n, uint64_t session, uint64_t request, uint64_t index)
{
    struct store_entry e = {.index = index, .session = session, .request = request};
    e.result[0] = (uint8_t)(request + index);
    assert_int_equal(session_note_entry(n, &e), 0);
}

static void make_sessions(struct node *n)
{
    note(n, 100, 0, 1);
    note(n, 200, 0, 2);
    session_find(n, 100)->node_id = 7;
    session_find(n, 100)->nonce = 8;
    for (uint64_t r = 1; r <= LIMIT_SESSION_WINDOW + 3; r += 2)
        note(n, 100, r, 10 + r);
}

static bool is_equal(const struct session *a, const struct session *b)
{
    if (a->number != b->number || a->node_id != b->node_id || a->nonce != b->nonce ||
        a->highest != b->highest)
        return false;
    static const struct window_slot none;
    for (size_t i = 0; i < LIMIT_SESSION_WINDOW; i++) {
        const struct window_slot *x = session_slot(a, i), *y = session_slot(b, i);
        if (memcmp(x ? x : &none, y ? y : &none, sizeof(none)) != 0)
            return false;
    }
    return true;
}

static void assert_sessions_equal(struct node *a, struct node *b)
{
    size_t count_a = 0, count_b = 0;
    for (struct session *s = a->sessions; s; s = s->next) {
        struct session *other = session_find(b, s->number);
        assert_non_null(other);
        assert_true(is_equal(s, other));
        count_a++;
    }
    for (struct session *s = b->sessions; s; s = s->next)
        count_b++;
    assert_int_equal(count_a, count_b);
}

static void test_members_and_windows_come_back(void **state)
{
    struct nodes *both = *state;
    struct buf bytes = {0};
    make_sessions(both->from);
    note(both->to, 300, 0, 1); /* of a former state: goes */
    assert_int_equal(state_save(both->from, &bytes), 0);
    assert_int_equal(state_load(both->to, bytes.data, bytes.length), 0);
    assert_sessions_equal(both->from, both->to);
    assert_true(both->to->has_state);
    assert_int_equal(both->to->members_applied.count, 2);
    assert_string_equal(both->to->members_applied.list[1].address, "h:2");
    assert_false(both->to->members_applied.list[1].voter);
    buf_release(&bytes);
}

/* The state is of E; the log begins after M < E: entries in between are replayed upon it.
 */
static void test_what_is_replayed_upon_it_changes_nothing(void **state)
{
    struct nodes *both = *state;
    struct buf bytes = {0};
    make_sessions(both->from);
    assert_int_equal(state_save(both->from, &bytes), 0);
    assert_int_equal(state_load(both->to, bytes.data, bytes.length), 0);
    make_sessions(both->to);
    assert_sessions_equal(both->from, both->to);
    buf_release(&bytes);
}

/* And what comes after E counts: the same as on a node that has applied all. */
static void test_it_goes_on_from_there(void **state)
{
    struct nodes *both = *state;
    struct buf bytes = {0};
    make_sessions(both->from);
    assert_int_equal(state_save(both->from, &bytes), 0);
    assert_int_equal(state_load(both->to, bytes.data, bytes.length), 0);
    struct node *list[] = {both->from, both->to};
    for (size_t i = 0; i < 2; i++) {
        note(list[i], 400, 0, 5000);
        for (uint64_t r = 2; r < 2 * LIMIT_SESSION_WINDOW; r += 3)
            note(list[i], 100, r, 6000 + r);
    }
    assert_sessions_equal(both->from, both->to);
    buf_release(&bytes);
}

/* Of a cluster that is of a newer version; one number says it of state and members. */
static void test_a_newer_clusters_state(void **state)
{
    struct nodes *both = *state;
    struct buf bytes = {0};
    both->from->members_applied.version = NODE_VERSION_PROGRAMS;
    strcpy(both->from->members_applied.list[1].program, "1.2");
    assert_int_equal(state_save(both->from, &bytes), 0);
    assert_int_equal(bytes.data[0], version_format(NODE_VERSION_PROGRAMS));
    assert_int_equal(state_load(both->to, bytes.data, bytes.length), 0);
    assert_int_equal(both->to->members_applied.version, NODE_VERSION_PROGRAMS);
    assert_string_equal(both->to->members_applied.list[1].program, "1.2");
    bytes.data[0]--;
    assert_int_equal(state_load(both->to, bytes.data, bytes.length), -EBADMSG);
    buf_release(&bytes);
}

static void test_damaged_bytes_change_nothing(void **state)
{
    struct nodes *both = *state;
    struct buf bytes = {0};
    make_sessions(both->from);
    note(both->to, 300, 0, 1);
    assert_int_equal(state_save(both->from, &bytes), 0);
    for (size_t length = 0; length < bytes.length; length += 1 + length / 8) {
        void *copy = malloc(length + 1);
        assert_non_null(copy);
        memcpy(copy, bytes.data, length);
        assert_int_equal(state_load(both->to, copy, length), -EBADMSG);
        free(copy);
    }
    bytes.data[0]++; /* of a later version */
    assert_int_equal(state_load(both->to, bytes.data, bytes.length), -EBADMSG);
    bytes.data[0]--;
    buf_u8(&bytes, 0);
    assert_int_equal(state_load(both->to, bytes.data, bytes.length), -EBADMSG);
    assert_non_null(session_find(both->to, 300));
    assert_false(both->to->has_state);
    buf_release(&bytes);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_members_and_windows_come_back),
        TEST(test_what_is_replayed_upon_it_changes_nothing),
        TEST(test_it_goes_on_from_there),
        TEST(test_a_newer_clusters_state),
        TEST(test_damaged_bytes_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
