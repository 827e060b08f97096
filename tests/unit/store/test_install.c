/*
 * test_install.c - an installation is cut at each of its calls, or one of them fails: the
 * store is then what it was before, or what was installed, and nothing between.
 */
#include "alloc.h"
#include "transfer.h"

enum { SEGMENT = 16 << 10, EXHAUSTIVE = 10, SAMPLES = 200 };

static void receiver_init(struct fixture *b)
{
    fixture_init(b, SEGMENT);
    fixture_reopen(b);
    fill(b, 30, 900);
    put_one(b, "mine", "was here before");
    put_one(b, "key 00001", "in another version");
    store_set_commit_hint(b->s, store_applied(b->s));
    run(b);
}

/* What the receiver was, or became. True: it is the sender's. */
static bool check_found(struct fixture *a, struct fixture *after)
{
    fixture_reopen(after);
    bool installed = store_base(after->s, &(uint64_t){0}) > 0;
    if (installed) {
        assert_int_equal(store_applied(after->s), store_applied(a->s));
        assert_value(after->s, "mine", NULL);
        assert_same(a, after);
    } else {
        assert_int_equal(store_applied(after->s), 32);
        assert_value(after->s, "mine", "was here before");
        assert_value(after->s, "key 00001", "in another version");
    }
    store_check(after->s);
    return installed;
}

/* It goes on: what was interrupted is done, what was done stays. */
static void check_goes_on(struct fixture *a, struct fixture *after, bool installed)
{
    if (!installed) {
        struct transfer t;
        transfer_all(&t, a, after);
    }
    append_one(after, 100, "new", "a value written after the crash");
    run(after);
    apply_to(after, store_last_index(after->s));
    store_set_commit_hint(after->s, store_applied(after->s));
    run(after);
    fixture_reopen(after);
    assert_value(after->s, "new", "a value written after the crash");
    assert_value(after->s, "mine", NULL);
    store_check(after->s);
}

struct found {
    uint64_t disks, former, installed;
    uint64_t random;
};

static void try_disk(struct found *found, struct fixture *a, struct memory_disk *disk)
{
    struct fixture after;
    fixture_init_on(&after, disk, SEGMENT);
    bool installed = check_found(a, &after);
    *(installed ? &found->installed : &found->former) += 1;
    if (found->disks++ % 8 == 0)
        check_goes_on(a, &after, installed);
    fixture_release(&after);
}

/* Every subset of what is loose, or a sample of them, with a torn write. */
static void try_crashes(struct found *found, struct fixture *a, struct fixture *b)
{
    size_t loose = memory_disk_loose(b->disk);
    bool *keep = calloc(loose + 1, sizeof(*keep));
    bool all = loose <= EXHAUSTIVE;
    size_t count = all ? (size_t)1 << loose : SAMPLES;
    for (size_t n = 0; n < count; n++) {
        size_t torn = SIZE_MAX;
        for (size_t i = 0; i < loose; i++)
            keep[i] = all     ? n >> i & 1
                      : n < 2 ? n == 1
                              : random_next(&found->random) >> 40 & 1;
        if (!all && n % 4 == 3)
            torn = random_next(&found->random) % loose;
        if (torn != SIZE_MAX)
            keep[torn] = true;
        try_disk(found, a, memory_disk_crash(b->disk, keep, torn));
    }
    free(keep);
}

/* The process goes on. */
static void check_finished(struct fixture *a, struct fixture *b, struct store_done done,
                           bool failed)
{
    assert_true(done.installed != done.install_failed);
    assert_true(done.installed || failed);
    assert_true(done.installed == !done.incoming);
    store_incoming_free(done.incoming);
    store_check(b->s);
    if (done.installed)
        assert_same(a, b);
    else
        assert_value(b->s, "mine", "was here before");
}

/* Transfers all, then installs it with the fault set by `inject`; false: there was none.
 * It may stop the process. */
static bool install_with(struct fixture *a, struct fixture *b,
                         void (*inject)(struct fixture *b, uint64_t at, int error),
                         uint64_t at, int error, bool *ret_stopped)
{
    struct transfer t;
    receiver_init(b);
    transfer_open(&t, a, b);
    transfer_run(&t, b, SIZE_MAX);
    transfer_prepare(&t, b);
    memory_disk_faults();
    inject(b, at, error);
    assert_int_equal(store_install(b->s, t.in), 0);
    t.in = NULL;
    transfer_close(&t, a);
    struct store_job *job = store_take_job(b->s);
    b->error[0] = 0;
    int rc = store_run_job(job, b->error);
    struct memory_disk_faults faults = memory_disk_faults();
    memory_disk_fail_call(b->disk, 0, 0);
    if (rc != 0)
        assert_true(strstr(b->error, " d/"));
    else
        check_finished(a, b, store_finish_job(b->s, job), faults.failed > 0);
    *ret_stopped = rc != 0;
    return rc != 0 || faults.failed > 0;
}

static void inject_cut(struct fixture *b, uint64_t at, int error)
{
    memory_disk_cut_power(b->disk, memory_disk_calls(b->disk) + at);
}

static void inject_failure(struct fixture *b, uint64_t at, int error)
{
    memory_disk_fail_call(b->disk, memory_disk_calls(b->disk) + at, error);
}

static void test_power_cuts(void **state)
{
    struct fixture a;
    struct found found = {.random = 0x5eed};
    sender_init(&a, 60, 900, 12000);
    bool cut = true;
    uint64_t at = 1;
    for (; cut; at++) {
        struct fixture b;
        bool stopped;
        cut = install_with(&a, &b, inject_cut, at, 0, &stopped);
        try_crashes(&found, &a, &b);
        fixture_release(&b);
    }
    print_message("%llu cuts, %llu disks: %llu as before, %llu installed\n",
                  (unsigned long long)at, (unsigned long long)found.disks,
                  (unsigned long long)found.former, (unsigned long long)found.installed);
    assert_true(at > 15 && found.former > 100 && found.installed > 100);
    fixture_release(&a);
}

static void fail_calls(int error)
{
    struct fixture a;
    struct found found = {.random = 0x5eed};
    sender_init(&a, 60, 900, 12000);
    bool failed = true;
    for (uint64_t at = 1; failed; at++) {
        struct fixture b;
        bool stopped;
        uint64_t former = found.former;
        failed = install_with(&a, &b, inject_failure, at, error, &stopped);
        try_disk(&found, &a, memory_disk_copy(b.disk)); /* the process stops */
        /* Without room or memory it goes on as it was, as long as it can. */
        assert_true(error == -EIO || !stopped || found.former == former);
        if (store_base(b.s, &(uint64_t){0}) > 0) /* or goes on */
            check_goes_on(&a, &b, true);
        fixture_release(&b);
    }
    assert_true(found.former > 3 && found.installed > 3);
    fixture_release(&a);
}

static void test_failing_calls(void **state)
{
    fail_calls(-EIO);
    fail_calls(-ENOSPC);
    fail_calls(-ENOMEM);
}

/* The same while it is received and made ready: nothing of it counts. */
static void test_power_cuts_while_receiving(void **state)
{
    struct fixture a;
    struct found found = {.random = 0x5eed};
    sender_init(&a, 60, 900, 12000);
    struct store_snapshot *snapshot;
    struct buf description = {0}, piece = {0};
    assert_int_equal(store_snapshot_open(a.s, &snapshot), 0);
    assert_int_equal(store_snapshot_describe(snapshot, &description), 0);
    bool cut = true;
    for (uint64_t at = 1; cut; at++) {
        struct fixture b;
        struct store_incoming *in = NULL;
        receiver_init(&b);
        memory_disk_cut_power(b.disk, memory_disk_calls(b.disk) + at);
        int rc = store_incoming_open(b.s, description.data, description.length, SENDER,
                                     &in, b.error);
        uint32_t file, length;
        uint64_t offset;
        while (rc == 0 && store_incoming_next(in, &file, &offset, &length)) {
            buf_clear(&piece);
            assert_int_equal(store_snapshot_read(snapshot, file, offset, length, &piece),
                             0);
            rc = store_incoming_write(in, file, offset, piece.data, length, b.error);
        }
        if (rc == 0)
            rc = prepare_all(in, b.error);
        cut = rc != 0;
        assert_true(rc == 0 || rc == -EIO);
        assert_true(rc == 0 || strstr(b.error, " d/"));
        try_crashes(&found, &a, &b);
        store_incoming_free(in);
        fixture_release(&b);
    }
    assert_true(found.former > 100 && found.installed == 0);
    buf_release(&description);
    buf_release(&piece);
    store_snapshot_close(a.s, snapshot);
    fixture_release(&a);
}

/* ---- Memory ------------------------------------------------------------------------ */

enum { STOPPED = 1 };

/* Each returns what the call does, or STOPPED where the process does; where memory fails,
 * the next attempt has it. */
static int receive(struct store_snapshot *snapshot, struct store_incoming *in,
                   char *error)
{
    struct buf piece = {0};
    uint32_t file, length;
    uint64_t offset;
    int rc = 0;
    while (rc == 0 && store_incoming_next(in, &file, &offset, &length)) {
        buf_clear(&piece);
        rc = store_snapshot_read(snapshot, file, offset, length, &piece);
        if (rc == 0)
            rc = store_incoming_write(in, file, offset, piece.data, length, error);
    }
    buf_release(&piece);
    return rc;
}

static int receive_all(struct store_snapshot *snapshot, const struct buf *description,
                       struct fixture *b, struct store_incoming **ret)
{
    int rc = store_incoming_open(b->s, description->data, description->length, SENDER,
                                 ret, b->error);
    if (rc != 0)
        return rc;
    rc = receive(snapshot, *ret, b->error);
    if (rc == 0)
        rc = prepare_all(*ret, b->error);
    if (rc != 0)
        store_incoming_free(*ret);
    return rc;
}

static int install_all(struct store_snapshot *snapshot, const struct buf *description,
                       struct fixture *b)
{
    struct store_incoming *in;
    int rc = receive_all(snapshot, description, b, &in);
    if (rc != 0)
        return rc;
    rc = store_install(b->s, in);
    if (rc != 0) {
        store_incoming_free(in);
        return rc;
    }
    struct store_job *job = store_take_job(b->s);
    rc = store_run_job(job, b->error);
    if (rc != 0)
        return STOPPED;
    struct store_done done = store_finish_job(b->s, job);
    store_incoming_free(done.incoming);
    return done.installed ? 0 : -ENOMEM;
}

/* How many allocations have failed. */
static uint64_t starve(struct fixture *a, struct store_snapshot *snapshot,
                       const struct buf *description, void (*inject)(uint64_t number),
                       uint64_t at)
{
    struct fixture b;
    reading_barrier();
    int64_t before = alloc_live();
    receiver_init(&b);
    alloc_failures();
    inject(at);
    alloc_arm();
    int rc = install_all(snapshot, description, &b);
    alloc_disarm();
    alloc_fail(0);
    uint64_t failures = alloc_failures();
    /* Memory that only what can be done without has asked for, is no error. */
    assert_true(rc == 0 || failures > 0);
    bool stopped = rc == STOPPED;
    if (stopped)
        fixture_reopen(&b);
    store_check(b.s);
    if (rc != 0 && store_base(b.s, &(uint64_t){0}) == 0) {
        assert_value(b.s, "mine", "was here before");
        assert_int_equal(install_all(snapshot, description, &b), 0);
    }
    if (!stopped)
        assert_same(a, &b);
    check_goes_on(a, &b, true);
    fixture_release(&b);
    reading_barrier();
    if (alloc_live() != before)
        fail_msg("allocation %llu: %lld leak", (unsigned long long)at,
                 (long long)(alloc_live() - before));
    return failures;
}

static void test_no_memory(void **state)
{
    struct fixture a;
    struct store_snapshot *snapshot;
    struct buf description = {0};
    sender_init(&a, 60, 900, 12000);
    assert_int_equal(store_snapshot_open(a.s, &snapshot), 0);
    assert_int_equal(store_snapshot_describe(snapshot, &description), 0);
    uint64_t once = 1, on = 1;
    while (starve(&a, snapshot, &description, alloc_fail, once) > 0)
        once++;
    while (starve(&a, snapshot, &description, alloc_fail_from, on) > 0)
        on++;
    assert_true(once > 50 && on == once);
    buf_release(&description);
    store_snapshot_close(a.s, snapshot);
    fixture_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_failing_calls),
        cmocka_unit_test(test_power_cuts_while_receiving),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
