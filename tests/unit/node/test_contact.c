/*
 * test_contact.c - which sessions are alive (S6), and what they may take: memory, places
 * in the cluster, room while they wait.
 */
#include "one_node.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

enum { OTHER = 77 };

static int setup(void **state)
{
    *state = one_node_start();
    return 0;
}

static int teardown(void **state)
{
    one_node_stop(*state);
    return 0;
}

static bool is_applied(struct node *n, void *arg)
{
    return store_applied(n->store) >= *(uint64_t *)arg;
}

static void settle(struct node *n)
{
    driver_flush_soon(n);
    uint64_t last = store_last_index(n->store);
    one_node_run(n, is_applied, &last);
}

static uint64_t open_session(struct node *n, uint64_t node_id, uint64_t nonce)
{
    struct node_op op = {.type = NODE_OP_SESSION, .node_id = node_id, .nonce = nonce};
    struct fs_result result;
    assert_int_equal(one_node_op(n, &op, &result), 0);
    return result.value;
}

/* Ticks of a leader whose clock says that so much time has passed between them. */
static void tick(struct node *n, unsigned ticks, uint64_t apart_us)
{
    for (unsigned i = 0; i < ticks; i++)
        contact_tick(n, n->leader.contact_us + apart_us);
    settle(n);
}

enum { TICKS_TO_DEATH = NODE_SESSION_SILENT_US / NODE_TICK_US };

static struct buf build_op(size_t length)
{
    struct buf op = {0}, ranges = {0};
    uint8_t *data = calloc(1, length);
    assert_non_null(data);
    fs_range_add(&ranges, 0, data, length);
    fs_op_encode(&(struct fs_op){.type = FS_BUILD,
                                 .ranges = ranges.data,
                                 .ranges_size = (uint32_t)ranges.length},
                 &op);
    buf_release(&ranges);
    free(data);
    return op;
}

static void send_build(struct node *n, uint64_t session, uint64_t request, size_t length)
{
    struct buf op = build_op(length);
    struct operation_head head = {.session = session, .request = request, .lowest = 1};
    leader_own_operation(n, &head, op.data, op.length);
    buf_release(&op);
}

static bool builds(struct node *n, uint64_t session, uint64_t request)
{
    uint64_t before = store_last_index(n->store);
    send_build(n, session, request, 100);
    bool appended = store_last_index(n->store) > before;
    settle(n);
    return appended;
}

static int count_one(void *arg, const struct store_item *item)
{
    ++*(unsigned *)arg;
    return 0;
}

static bool is_reclaimed(struct node *n, void *arg)
{
    unsigned count = 0;
    uint8_t from = FS_CLASS_CONTENT, to = FS_CLASS_CONTENT + 1;
    store_scan(n->store, &from, 1, &to, 1, count_one, &count);
    return count == 0;
}

/* ---- Death
 * ----------------------------------------------------------------------------------- */

static void test_a_silent_session_is_ended_by_an_entry(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n, OTHER, 5);
    assert_true(builds(n, session, 1));
    uint64_t before = store_last_index(n->store);
    tick(n, TICKS_TO_DEATH / 2, NODE_TICK_US);
    assert_non_null(session_find(n, session));
    tick(n, TICKS_TO_DEATH, NODE_TICK_US);
    assert_null(session_find(n, session));
    assert_true(store_last_index(n->store) > before);
    assert_false(builds(n, session, 2));
    one_node_run(n, is_reclaimed, NULL); /* S7: nothing of it stays */
}

static void test_the_node_itself_is_always_in_contact(void **state)
{
    struct node *n = *state;
    uint64_t session = n->client.session;
    tick(n, 3 * TICKS_TO_DEATH, NODE_TICK_US);
    assert_non_null(session_find(n, session));
    assert_int_equal(n->client.session, session);
}

/* An earlier life's session that its successor could not end has no contact. */
static void test_an_older_session_of_the_node_has_no_contact(void **state)
{
    struct node *n = *state;
    struct session *old = session_find(n, open_session(n, OTHER, 5));
    uint64_t number = old->number;
    old->node_id = n->directory.node_id;
    assert_true(number > n->client.session);
    uint64_t own = n->client.session;
    tick(n, 2 * TICKS_TO_DEATH, NODE_TICK_US);
    assert_null(session_find(n, own)); /* the older of the two */
    assert_non_null(session_find(n, number));
}

/* A leader that was stopped for an hour has not heard anybody for an hour, which says
 * nothing: what came meanwhile is still to be read. */
static void test_a_paused_leader_ends_nobody(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n, OTHER, 5);
    for (unsigned i = 0; i < 5; i++)
        tick(n, 1, (uint64_t)3600 * 1000 * 1000);
    assert_non_null(session_find(n, session));
}

static void test_a_new_leader_counts_from_nothing(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n, OTHER, 5);
    tick(n, TICKS_TO_DEATH - 5, NODE_TICK_US);
    contact_begin(n);
    tick(n, TICKS_TO_DEATH - 5, NODE_TICK_US);
    assert_non_null(session_find(n, session));
}

static void append_end(struct node *n, uint64_t session)
{
    struct buf op = {0};
    node_op_encode(&(struct node_op){.type = NODE_OP_END_SESSION, .session = session},
                   &op);
    leader_run_internal(n, &op);
    buf_release(&op);
}

/* Between the entry's append and its commit the session is still in the list: what is
 * evaluated there would stand behind its death, and be nobody's to reclaim. */
static void test_nothing_is_evaluated_behind_a_death_on_its_way(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n, OTHER, 5);
    append_end(n, session);
    assert_non_null(session_find(n, session));
    assert_false(builds(n, session, 1));
    assert_null(session_find(n, session));
    one_node_run(n, is_reclaimed, NULL);
}

static bool has_another(struct node *n, void *arg)
{
    return n->client.session != 0 && n->client.session != *(uint64_t *)arg;
}

/* A zombie: it is told, and goes on under another session. */
static void test_the_origin_reports_eio_and_opens_another(void **state)
{
    struct node *n = *state;
    uint64_t session = n->client.session;
    struct fs_op op = {.type = FS_MAKE,
                       .parent = FS_ROOT_INODE,
                       .name = (const uint8_t *)"f",
                       .name_size = 1,
                       .mode = S_IFREG | 0644};
    append_end(n, session);
    assert_int_equal(one_node_fs(n, &op, NULL), -EIO);
    one_node_run(n, has_another, &session);
    assert_int_equal(one_node_fs(n, &op, NULL), 0);
}

/* What waits in it when it dies hears of that. */
static void test_what_is_parked_in_a_dying_session_is_answered(void **state)
{
    struct node *n = *state;
    uint64_t session = open_session(n, OTHER, 5);
    session_find(n, session)->paging = true; /* it waits for the reader thread */
    send_build(n, session, 1, 100);
    assert_true(n->leader.parked_bytes > 0);
    append_end(n, session);
    settle(n);
    assert_null(session_find(n, session));
    assert_int_equal(n->leader.parked_bytes, 0);
}

/* ---- Bounds
 * ------------------------------------------------------------------------------------ */

static void test_there_are_so_many_sessions_and_no_more(void **state)
{
    struct node *n = *state;
    uint64_t first = 0;
    for (uint64_t i = 1; i < LIMIT_SESSIONS; i++) { /* and this node's own */
        uint64_t number = open_session(n, 1000 + i, i);
        first = first ? first : number;
    }
    struct node_op op = {.type = NODE_OP_SESSION, .node_id = 5000, .nonce = 1};
    assert_int_equal(one_node_op(n, &op, NULL), -EUSERS);
    op.node_id = 1001; /* another one of a node that has one takes its place */
    op.nonce = 9999;
    assert_int_equal(one_node_op(n, &op, NULL), 0);
    assert_null(session_find(n, first));
    append_end(n, session_find(n, open_session(n, 1002, 9999))->number); /* one dies */
    settle(n);
    op.node_id = 5000;
    assert_int_equal(one_node_op(n, &op, NULL), 0);
}

static unsigned chunks_of(const struct session *s)
{
    unsigned count = 0;
    for (size_t i = 0; i < SESSION_CHUNKS; i++)
        count += s->chunks[i] != NULL;
    return count;
}

static void test_slots_take_memory_as_they_are_used(void **state)
{
    struct node *n = *state;
    struct session *s = session_find(n, open_session(n, OTHER, 5));
    assert_int_equal(chunks_of(s), 0);
    for (uint64_t request = 1; request <= 10; request++)
        builds(n, s->number, request);
    assert_int_equal(chunks_of(s), 1);
}

/* A node that is restarted again and again opens session after session in one log. */
static void test_recovery_keeps_no_dead_sessions(void **state)
{
    struct node *n = *state;
    struct session *before = n->sessions;
    for (uint64_t number = 1; number <= 1000; number++) {
        struct store_entry e = {.index = number, .session = number};
        assert_int_equal(session_replay(n, n->store, &e), 0);
        assert_null(session_find(n, number));
    }
    assert_ptr_equal(n->sessions, before);
    assert_non_null(session_find(n, n->client.session));
}

/* S3: what is turned away for want of room keeps those behind it waiting. */
static void test_none_overtakes_one_that_was_turned_away(void **state)
{
    struct node *n = *state;
    struct session *s = session_find(n, open_session(n, OTHER, 5));
    uint64_t number = s->number, before = store_last_index(n->store), request = 1;
    s->damaged = true;
    s->damaged_until_us = UINT64_MAX;
    while (!s->refused)
        send_build(n, number, request++, 1 << 20);
    uint64_t refused = s->refused;
    assert_int_equal(refused, request - 1);
    assert_true(s->parked_bytes <= LIMIT_PARKED_BYTES);
    send_build(n, number, refused + 1, 10); /* for this one there would be room */
    s->damaged = false;
    leader_tick(n);
    settle(n);
    assert_int_equal(store_last_index(n->store), before + refused - 1);
    send_build(n, number, refused + 2, 10);
    settle(n);
    assert_int_equal(store_last_index(n->store), before + refused - 1);
    for (request = refused; request <= refused + 2; request++)
        send_build(n, number, request, 10);
    settle(n);
    assert_int_equal(store_last_index(n->store), before + refused + 2);
    assert_int_equal(s->highest, refused + 2);
}

static void test_one_that_was_given_up_keeps_nobody_waiting(void **state)
{
    struct node *n = *state;
    struct session *s = session_find(n, open_session(n, OTHER, 5));
    s->refused = 3;
    assert_false(builds(n, s->number, 4));
    struct buf op = build_op(10);
    struct operation_head head = {.session = s->number, .request = 5, .lowest = 4};
    uint64_t before = store_last_index(n->store);
    leader_own_operation(n, &head, op.data, op.length);
    assert_int_equal(store_last_index(n->store), before + 1);
    buf_release(&op);
    settle(n);
}

/* ---- Queues
 * ------------------------------------------------------------------------------------ */

static uint64_t value_of(const char *text, const char *name, const char *queue)
{
    char wanted[128];
    unsigned long long value;
    snprintf(wanted, sizeof(wanted), "\n%s{queue=\"%s\"} ", name, queue);
    const char *at = strstr(text, wanted);
    if (!at)
        fail_msg("no line%s", wanted);
    assert_int_equal(sscanf(at + strlen(wanted), "%llu\n", &value), 1);
    return value;
}

/* Every queue that is shown has a bound, and keeps to it. */
static unsigned check_queues(const char *text)
{
    static const char line[] = "\ntierce_queue{queue=\"";
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, line)); at++, count++) {
        char queue[64];
        assert_int_equal(sscanf(at + strlen(line), "%63[a-z_]", queue), 1);
        uint64_t now = value_of(text, "tierce_queue", queue);
        uint64_t most = value_of(text, "tierce_queue_most", queue);
        uint64_t bound = value_of(text, "tierce_queue_bound", queue);
        value_of(text, "tierce_queue_waits_total", queue);
        assert_true(bound > 0 && now <= most && most <= bound);
    }
    return count;
}

static void test_labels_are_escaped(void **state)
{
    struct node *n = *state;
    struct buf text = {0};
    strcpy(n->members.list[0].name, "a\"b\\c");
    metrics_write(n, &text);
    buf_u8(&text, 0);
    assert_non_null(strstr((char *)text.data,
                           "\ntierce_member_reachable{member=\"a\\\"b\\\\c\"} "));
    buf_release(&text);
}

static void test_queues_show_bound_and_use(void **state)
{
    struct node *n = *state;
    struct buf text = {0};
    struct session *s = session_find(n, open_session(n, OTHER, 5));
    s->damaged = true;
    s->damaged_until_us = UINT64_MAX;
    for (uint64_t request = 1; !s->refused; request++)
        send_build(n, s->number, request, 1 << 20);
    metrics_write(n, &text);
    buf_u8(&text, 0);
    assert_int_equal(check_queues((char *)text.data), 17);
    const char *shown = (char *)text.data;
    assert_int_equal(value_of(shown, "tierce_queue", "parked_bytes"), s->parked_bytes);
    assert_int_equal(value_of(shown, "tierce_queue_waits_total", "parked_bytes"), 1);
    assert_int_equal(value_of(shown, "tierce_queue", "sessions"), 2);
    assert_true(value_of(shown, "tierce_queue_most", "log_bytes") > 0);
    assert_non_null(strstr(shown, "\ntierce_raft_leads 1\n"));
    s->damaged = false;
    leader_tick(n);
    settle(n);
    buf_clear(&text);
    metrics_write(n, &text);
    buf_u8(&text, 0);
    shown = (char *)text.data;
    assert_int_equal(value_of(shown, "tierce_queue", "parked_bytes"), 0);
    assert_true(value_of(shown, "tierce_queue_most", "parked_bytes") > 0);
    buf_release(&text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_silent_session_is_ended_by_an_entry),
        TEST(test_the_node_itself_is_always_in_contact),
        TEST(test_an_older_session_of_the_node_has_no_contact),
        TEST(test_a_paused_leader_ends_nobody),
        TEST(test_a_new_leader_counts_from_nothing),
        TEST(test_nothing_is_evaluated_behind_a_death_on_its_way),
        TEST(test_the_origin_reports_eio_and_opens_another),
        TEST(test_what_is_parked_in_a_dying_session_is_answered),
        TEST(test_there_are_so_many_sessions_and_no_more),
        TEST(test_slots_take_memory_as_they_are_used),
        TEST(test_recovery_keeps_no_dead_sessions),
        TEST(test_none_overtakes_one_that_was_turned_away),
        TEST(test_one_that_was_given_up_keeps_nobody_waiting),
        TEST(test_queues_show_bound_and_use),
        TEST(test_labels_are_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
