/*
 * test_faults.c - each allocation and each call to the disk fails once, in everything a
 * store does; see crash.h. (That power fails is test_crash.c.)
 */
#include "crash.h"

#include <urcu-bp.h>

/* A store's life, with all it does to its log. */
static void scenario_life(struct scenario_run *r)
{
    do_hard_state(r, 1, 7);
    do_append(r, 1, 4, 700);
    do_run(r);
    do_apply(r, 3);
    do_look(r);
    do_append(r, 1, 8, 900); /* three segments */
    do_run(r);
    do_truncate(r, 6, 2);
    do_append(r, 2, 3, 500);
    do_hint(r, 5);
    do_run(r);
    do_apply(r, 8);
    do_look(r);
    do_reopen(r);
    do_look(r);
    do_append(r, 2, 2, 300);
    do_run(r);
    do_apply(r, 10);
    do_look(r);
}

static void test_life_without_memory(void **state)
{
    starve_everywhere(scenario_life);
}

static void test_life_without_reads(void **state)
{
    fail_reads_everywhere(scenario_life);
}

static void test_life_with_failing_calls(void **state)
{
    fail_everywhere(scenario_life);
}

/* ---- Making stores and entries ----------------------------------------------------- */

/* A store whose making failed is made with the next try. */
static void check_create(int rc, struct fixture *f)
{
    assert_true(rc == -ENOMEM || rc == -EIO || rc == -ENOSPC);
    assert_true(f->error[0]);
    assert_int_equal(memory_disk_open_count(f->disk), 0);
    if (fixture_open(f) == -ENOENT) {
        assert_int_equal(store_create(&f->options, f->error), 0);
        fixture_reopen(f);
    }
}

static bool create_with(void (*inject)(struct memory_disk *disk, uint64_t at),
                        uint64_t at)
{
    struct fixture f;
    rcu_barrier(); /* what was deferred is freed */
    int64_t before = alloc_live();
    fixture_init_on(&f, memory_disk_new(), SMALL_SEGMENT);
    f.options.io = &f.io;
    inject(f.disk, at);
    alloc_arm();
    int rc = store_create(&f.options, f.error);
    alloc_disarm();
    alloc_fail(0);
    bool failed = alloc_failures() + memory_disk_faults().failed > 0;
    assert_true(failed || rc == 0);
    if (rc != 0)
        check_create(rc, &f);
    fixture_release(&f);
    rcu_barrier();
    assert_int_equal(alloc_live(), before);
    return failed;
}

static void inject_starvation(struct memory_disk *disk, uint64_t at)
{
    alloc_fail(at);
}

static void inject_failure(struct memory_disk *disk, uint64_t at)
{
    memory_disk_fail_call(disk, at, at % 2 ? -EIO : -ENOSPC);
}

static void inject_read_failure(struct memory_disk *disk, uint64_t at)
{
    memory_disk_fail_read(disk, at, -EIO);
}

static void test_create(void **state)
{
    uint64_t calls = 1, reads = 1;
    memory_disk_faults();
    for (uint64_t at = 1; create_with(inject_starvation, at); at++)
        ;
    while (create_with(inject_failure, calls))
        calls++;
    while (create_with(inject_read_failure, reads))
        reads++;
    assert_true(calls > 8 && reads > 1);
}

static int build(struct store_bytes **ret)
{
    struct store_builder builder = {0};
    static const char value[3000];
    store_builder_begin(&builder, 1000);
    for (int i = 0; i < 5; i++)
        store_builder_put(&builder, &"abcde"[i], 1, value, sizeof(value));
    int rc = store_builder_finish(&builder, &(struct store_entry){.index = 1}, ret);
    store_builder_release(&builder);
    return rc;
}

static void test_builder(void **state)
{
    rcu_barrier();
    int64_t before = alloc_live();
    uint64_t at = 1;
    for (bool failed = true; failed; at++) {
        struct store_bytes *bytes = NULL;
        alloc_fail(at);
        alloc_arm();
        int rc = build(&bytes);
        alloc_disarm();
        failed = alloc_failures() > 0;
        assert_int_equal(rc, failed ? -ENOMEM : 0);
        assert_true(failed == !bytes);
        store_bytes_unref(bytes);
        assert_int_equal(alloc_live(), before);
    }
    assert_true(at > 4);
}

/* An argument is a pattern of tests' names. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life_without_memory),
        cmocka_unit_test(test_life_without_reads),
        cmocka_unit_test(test_life_with_failing_calls),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_builder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
