/*
 * test_background.c - what goes on beside the loop of a node of one: merging, who reads
 * while the state is not complete (G7), damage that nobody else has (G9).
 */
#include "one_node.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

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

/* ---- Files ------------------------------------------------------------------------- */

static uint64_t make(struct node *n, const char *name)
{
    struct fs_op op = {.type = FS_MAKE,
                       .parent = FS_ROOT_INODE,
                       .name = (const uint8_t *)name,
                       .name_size = (uint16_t)strlen(name),
                       .mode = S_IFREG | 0644};
    struct fs_result result;
    assert_int_equal(one_node_fs(n, &op, &result), 0);
    return result.value;
}

static void replace(struct node *n, uint64_t inode, const void *bytes, size_t length)
{
    struct buf ranges = {0};
    buf_u64(&ranges, 0);
    buf_u32(&ranges, (uint32_t)length);
    buf_bytes(&ranges, bytes, length);
    struct fs_op op = {.type = FS_REPLACE,
                       .inode = inode,
                       .size = length,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    assert_int_equal(one_node_fs(n, &op, NULL), 0);
    buf_release(&ranges);
}

static int read_all(struct node *n, uint64_t inode, uint8_t *to, size_t size,
                    size_t *ret_length)
{
    return fs_read(&n->view, inode, 0, size, to, ret_length);
}

/* ---- Merging ----------------------------------------------------------------------- */

enum { BIG = 1 << 20 };

static bool is_merged(struct node *n, void *arg)
{
    return n->base > 0 && !n->merge.out;
}

static void test_merges_go_on_beside_the_loop(void **state)
{
    struct node *n = *state;
    static uint8_t bytes[BIG], back[BIG];
    uint64_t inode = make(n, "big");
    for (int round = 1; round <= 40; round++) {
        memset(bytes, round, sizeof(bytes));
        replace(n, inode, bytes, sizeof(bytes));
    }
    one_node_run(n, is_merged, NULL);
    struct store_stats stats;
    store_stats(n->store, &stats);
    assert_true(stats.merges > 0);
    assert_int_equal(raft_base(n->driver.raft), n->base);
    size_t length;
    assert_int_equal(read_all(n, inode, back, sizeof(back), &length), 0);
    assert_int_equal(length, sizeof(back));
    assert_memory_equal(back, bytes, sizeof(bytes));
    /* And it goes on from there. */
    replace(n, inode, "small", 5);
    assert_int_equal(read_all(n, inode, back, sizeof(back), &length), 0);
    assert_int_equal(length, 5);
}

struct queued {
    struct pager_task task;
    int *next;
    int number;
    bool done;
};

static void queued_work(struct pager_task *task)
{
    struct queued *q = container_of(task, struct queued, task);
    q->number = ++*q->next;
}

static void queued_done(struct pager_task *task)
{
    container_of(task, struct queued, task)->done = true;
}

static bool all_done(struct node *n, void *arg)
{
    struct queued *q = arg;
    return q[0].done && q[1].done && q[2].done;
}

static void test_what_is_queued_is_done_in_order(void **state)
{
    struct node *n = *state;
    struct queued q[3] = {0};
    int next = 0;
    for (int i = 0; i < 3; i++) {
        q[i].task = (struct pager_task){.work = queued_work, .done = queued_done};
        q[i].next = &next;
        merge_thread_submit(n, &q[i].task);
    }
    one_node_run(n, all_done, q);
    for (int i = 0; i < 3; i++)
        assert_int_equal(q[i].number, i + 1);
}

/* ---- The gate ---------------------------------------------------------------------- */

struct reading {
    struct node *node;
    uint64_t inode;
    _Atomic int state; /* 1: it reads, 2: it has */
    int result;
    uint8_t bytes[16];
    size_t length;
};

static void *read_once(void *arg)
{
    struct reading *r = arg;
    atomic_store(&r->state, 1);
    r->result = read_all(r->node, r->inode, r->bytes, sizeof(r->bytes), &r->length);
    atomic_store(&r->state, 2);
    return NULL;
}

static bool has_begun(struct node *n, void *arg)
{
    struct reading *r = arg;
    return atomic_load(&r->state) >= 1;
}

static void test_readers_wait_until_the_state_is_complete(void **state)
{
    struct node *n = *state;
    struct reading r = {.node = n, .inode = make(n, "f")};
    pthread_t thread;
    replace(n, r.inode, "old", 3);
    gate_set(n, false);
    assert_int_equal(pthread_create(&thread, NULL, read_once, &r), 0);
    one_node_run(n, has_begun, &r);
    assert_int_equal(atomic_load(&r.state), 1);
    replace(n, r.inode, "newer", 5); /* applying it completes the state */
    assert_true(gate_is_open(n));
    pthread_join(thread, NULL);
    assert_int_equal(r.result, 0);
    assert_int_equal(r.length, 5);
    assert_memory_equal(r.bytes, "newer", 5);
}

static int no_item(void *arg, const struct fs_item *item)
{
    fail_msg("an item of a state that is not complete");
    return 0;
}

static void test_readers_are_told_when_it_takes_too_long(void **state)
{
    struct node *n = *state;
    uint64_t inode = make(n, "f");
    uint8_t bytes[16];
    size_t length;
    n->gate.patience_us = 20 * 1000;
    gate_set(n, false);
    assert_int_equal(read_all(n, inode, bytes, sizeof(bytes), &length), -EIO);
    assert_int_equal(n->view.scan(n->view.context, "A", 1, "\xff", 1, no_item, NULL),
                     -EIO);
    gate_set(n, true);
    assert_int_equal(read_all(n, inode, bytes, sizeof(bytes), &length), 0);
}

/* Lesson 5: a local read that sleeps between the look at whether it may and the look at the
 * bytes. It is judged anew after it has read, and what it read does not count. */
static struct {
    struct node *node; /* NULL: nobody sleeps */
    uint64_t inode;
    unsigned reads;
} sleeper;

int __real_store_get(struct store *s, const void *key, size_t key_size, unsigned flags,
                     struct buf *to, uint64_t *ret_timestamp);
int __wrap_store_get(struct store *s, const void *key, size_t key_size, unsigned flags,
                     struct buf *to, uint64_t *ret_timestamp);

int __wrap_store_get(struct store *s, const void *key, size_t key_size, unsigned flags,
                     struct buf *to, uint64_t *ret_timestamp)
{
    int ret = __real_store_get(s, key, key_size, flags, to, ret_timestamp);
    struct node *n = sleeper.node;
    if (n && key_size > 0 && *(const uint8_t *)key == FS_CLASS_INODE) {
        sleeper.node = NULL;
        sleeper.reads++;
        gate_set(n, false);
        replace(n, sleeper.inode, "newer", 5); /* and the state is complete again */
        assert_true(gate_is_open(n));
    }
    return ret;
}

static void lesson_05_what_was_read_before_a_sleep_does_not_count(void **state)
{
    struct node *n = *state;
    uint64_t inode = make(n, "f"), timestamp;
    uint8_t key[9] = {FS_CLASS_INODE};
    struct buf got = {0};
    replace(n, inode, "old", 3);
    for (int i = 0; i < 8; i++)
        key[1 + i] = (uint8_t)(inode >> (56 - 8 * i));
    sleeper.node = n;
    sleeper.inode = inode;
    assert_int_equal(n->view.get(n->view.context, key, sizeof(key), &got, &timestamp), 0);
    assert_int_equal(sleeper.reads, 1);
    assert_non_null(memmem(got.data, got.length, "newer", 5));
    assert_null(memmem(got.data, got.length, "old", 3));
    buf_release(&got);
}

/* A state that goes while it is being read: -EIO to who was given some of it. */
static int shut_and_open(void *arg, const struct fs_item *item)
{
    gate_set(arg, false);
    gate_set(arg, true);
    return 0;
}

static void lesson_05_a_list_of_a_state_that_went_does_not_count(void **state)
{
    struct node *n = *state;
    make(n, "f");
    assert_int_equal(n->view.scan(n->view.context, "A", 1, "\xff", 1, shut_and_open, n),
                     -EIO);
}

/* ---- Damage ------------------------------------------------------------------------ */

/* Flips a byte of the one place of these bytes in the first segment. */
static void spoil(struct node *n, const void *bytes, size_t length)
{
    char *log = directory_file(n->directory.path, "log/0000000000000001.seg");
    int fd = open(log, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    off_t size = lseek(fd, 0, SEEK_END);
    uint8_t *all = malloc((size_t)size);
    assert_int_equal(pread(fd, all, (size_t)size, 0), size);
    uint8_t *at = memmem(all, (size_t)size, bytes, length);
    assert_non_null(at);
    uint8_t wrong = *at ^ 1;
    assert_int_equal(pwrite(fd, &wrong, 1, at - all), 1);
    close(fd);
    free(all);
    free(log);
}

enum { LONG_US = 40 * 1000 * 1000 }; /* what does not pass, however slow this machine */

static bool has_read(struct node *n, void *arg)
{
    struct reading *r = arg;
    return atomic_load(&r->state) == 2;
}

/* Nobody else has it: it is said at once, not after the patience for repairs. */
static void test_damage_that_nobody_can_repair_is_an_error_at_once(void **state)
{
    struct node *n = *state;
    struct reading r = {.node = n, .inode = make(n, "f")};
    pthread_t thread;
    static const char value[] = "a value of more than sixteen bytes";
    replace(n, r.inode, value, sizeof(value));
    spoil(n, value, sizeof(value));
    n->gate.patience_us = LONG_US;
    uint64_t begun = node_now();
    assert_int_equal(pthread_create(&thread, NULL, read_once, &r), 0);
    one_node_run(n, has_read, &r);
    pthread_join(thread, NULL);
    assert_int_equal(r.result, -EIO);
    assert_true(node_now() - begun < LONG_US);
    struct store_stats stats;
    store_stats(n->store, &stats);
    assert_int_equal(stats.damaged, 1);
    assert_int_equal(stats.unrepaired, 1);
}

/* Whoever else there is may be connected in a moment. */
static void test_damage_waits_a_moment_for_a_connection(void **state)
{
    struct node *n = *state;
    struct reading r = {.node = n, .inode = make(n, "f")};
    pthread_t thread;
    static const char value[] = "a value of more than sixteen bytes";
    one_node_join(n, "127.0.0.1:1");
    replace(n, r.inode, value, sizeof(value));
    spoil(n, value, sizeof(value));
    n->gate.patience_us = LONG_US;
    uint64_t begun = node_now();
    assert_int_equal(pthread_create(&thread, NULL, read_once, &r), 0);
    one_node_run(n, has_read, &r);
    pthread_join(thread, NULL);
    assert_int_equal(r.result, -EIO);
    assert_true(node_now() - begun >= NODE_REPAIR_WAIT_US);
    assert_true(node_now() - begun < LONG_US);
    assert_null(n->repairs);
}

/* An evaluation that needs it is told too, and what comes behind it goes on. */
static void test_an_operation_on_what_is_damaged_fails(void **state)
{
    struct node *n = *state;
    uint64_t inode = make(n, "f"), other = make(n, "g");
    static const char value[] = "a value of more than sixteen bytes";
    replace(n, inode, value, sizeof(value));
    spoil(n, value, sizeof(value));
    n->gate.patience_us = 100 * 1000;
    struct fs_op op = {
        .type = FS_SETATTR, .inode = inode, .set = FS_SET_MODE, .mode = 0600};
    assert_int_equal(one_node_fs(n, &op, NULL), -EIO);
    n->gate.patience_us = NODE_READ_PATIENCE_US;
    op.inode = other;
    assert_int_equal(one_node_fs(n, &op, NULL), 0);
    op = (struct fs_op){.type = FS_UNLINK,
                        .parent = FS_ROOT_INODE,
                        .name = (const uint8_t *)"g",
                        .name_size = 1};
    assert_int_equal(one_node_fs(n, &op, NULL), 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) /* one of them, by its name */
        cmocka_set_test_filter(argv[1]);
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_merges_go_on_beside_the_loop),
        TEST(test_what_is_queued_is_done_in_order),
        TEST(test_readers_wait_until_the_state_is_complete),
        TEST(test_readers_are_told_when_it_takes_too_long),
        TEST(lesson_05_what_was_read_before_a_sleep_does_not_count),
        TEST(lesson_05_a_list_of_a_state_that_went_does_not_count),
        TEST(test_damage_that_nobody_can_repair_is_an_error_at_once),
        TEST(test_damage_waits_a_moment_for_a_connection),
        TEST(test_an_operation_on_what_is_damaged_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
