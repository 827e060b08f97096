/* test_disk.c - the memory disk itself: what it loses, tears, moves and counts. */
#include "memory_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct bench {
    struct memory_disk *disk;
    struct store_io io;
};

static struct bench bench_new(void)
{
    struct bench b = {.disk = memory_disk_new()};
    b.io = memory_disk_io(b.disk);
    assert_int_equal(b.io.mkdir(b.io.context, "d", 0700), 0);
    assert_int_equal(b.io.mkdir(b.io.context, "e", 0700), 0);
    assert_int_equal(b.io.mkdir(b.io.context, "./d", 0700), 0);
    memory_disk_faults();
    return b;
}

static int make(struct bench *b, const char *path)
{
    int fd = b->io.open(b->io.context, path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void put(struct bench *b, int fd, char c, size_t length, uint64_t offset)
{
    char bytes[4096];
    assert_true(length <= sizeof(bytes));
    memset(bytes, c, length);
    struct iovec iov = {bytes, length};
    assert_int_equal(b->io.pwritev(b->io.context, fd, &iov, 1, offset), length);
}

static char at(const struct memory_disk *disk, const char *path, uint64_t offset)
{
    char c;
    memory_disk_peek(disk, path, offset, &c, 1);
    return c;
}

/* Crashes with the loose changes of these bits. */
static struct memory_disk *crash(struct bench *b, unsigned kept)
{
    bool keep[32] = {false};
    assert_true(memory_disk_loose(b->disk) <= 32);
    for (size_t i = 0; i < 32; i++)
        keep[i] = kept >> i & 1;
    return memory_disk_crash(b->disk, keep, SIZE_MAX);
}

static void test_any_subset(void **state)
{
    struct bench b = bench_new();
    int fd = make(&b, "d/f");
    assert_int_equal(b.io.sync_dir(b.io.context, "d"), 0);
    size_t before = memory_disk_loose(b.disk); /* the directories' own names */
    put(&b, fd, 'x', 1536, 0);                 /* three sectors */
    assert_int_equal(memory_disk_loose(b.disk), before + 3);
    for (unsigned n = 0; n < 8; n++) {
        struct memory_disk *after = crash(&b, n << before);
        uint64_t size = n & 4 ? 1536 : n & 2 ? 1024 : n & 1 ? 512 : 0;
        assert_int_equal(memory_disk_size(after, "d/f"), size);
        for (unsigned sector = 0; sector < size / 512; sector++)
            assert_int_equal(at(after, "d/f", sector * 512), n >> sector & 1 ? 'x' : 0);
        memory_disk_free(after);
    }
    assert_int_equal(memory_disk_faults().lost, 12 + 8 * before);
    assert_int_equal(b.io.sync(b.io.context, fd), 0);
    struct memory_disk *after = crash(&b, 0);
    assert_int_equal(memory_disk_size(after, "d/f"), 1536);
    memory_disk_free(after);
    memory_disk_free(b.disk);
}

static void test_order_and_tear(void **state)
{
    struct bench b = bench_new();
    int fd = make(&b, "d/f");
    assert_int_equal(b.io.sync_dir(b.io.context, "d"), 0);
    size_t first = memory_disk_loose(b.disk);
    put(&b, fd, '1', 512, 0);
    put(&b, fd, '2', 512, 0);
    bool keep[8] = {false};
    size_t order[8];
    for (size_t i = 0; i < 8; i++)
        order[i] = i;
    keep[first] = keep[first + 1] = true;
    order[first] = first + 1;
    order[first + 1] = first;
    struct memory_crash how = {.keep = keep, .order = order, .torn = SIZE_MAX};
    struct memory_disk *after = memory_disk_crash_with(b.disk, &how);
    assert_int_equal(at(after, "d/f", 0), '1');
    memory_disk_free(after);
    how = (struct memory_crash){.keep = keep, .torn = first + 1, .torn_bytes = 100};
    after = memory_disk_crash_with(b.disk, &how);
    assert_int_equal(at(after, "d/f", 99), '2');
    assert_int_equal(at(after, "d/f", 100), '1');
    memory_disk_free(after);
    how.torn_tail = true;
    after = memory_disk_crash_with(b.disk, &how);
    assert_int_equal(at(after, "d/f", 511 - 100), '1');
    assert_int_equal(at(after, "d/f", 512 - 100), '2');
    memory_disk_free(after);
    struct memory_disk_faults faults = memory_disk_faults();
    assert_int_equal(faults.torn, 2);
    assert_true(faults.reordered == 2);
    memory_disk_free(b.disk);
}

/* A name is there when its directory is synced; one that is moved between directories is
 * new in the one and gone from the other with a sync of each. */
static void test_names(void **state)
{
    struct bench b = bench_new();
    int fd = make(&b, "d/f");
    put(&b, fd, 'x', 10, 0);
    assert_int_equal(b.io.sync(b.io.context, fd), 0);
    struct memory_disk *after = crash(&b, 0);
    assert_false(memory_disk_exists(after, "d/f"));
    memory_disk_free(after);
    assert_int_equal(b.io.sync_dir(b.io.context, "d"), 0);
    assert_int_equal(b.io.rename(b.io.context, "d/f", "d/g"), 0);
    after = crash(&b, 0);
    assert_true(memory_disk_exists(after, "d/f") && !memory_disk_exists(after, "d/g"));
    memory_disk_free(after);
    assert_int_equal(b.io.sync_dir(b.io.context, "d"), 0);
    assert_int_equal(b.io.rename(b.io.context, "d/g", "e/h"), 0);
    assert_int_equal(b.io.sync_dir(b.io.context, "e"), 0);
    after = crash(&b, 0);
    assert_true(memory_disk_exists(after, "d/g") && memory_disk_exists(after, "e/h"));
    assert_int_equal(at(after, "e/h", 9), 'x');
    memory_disk_free(after);
    assert_int_equal(b.io.sync_dir(b.io.context, "d"), 0);
    after = crash(&b, 0);
    assert_true(!memory_disk_exists(after, "d/g") && memory_disk_exists(after, "e/h"));
    memory_disk_free(after);
    assert_true(memory_disk_faults().names >= 2);
    memory_disk_free(b.disk);
}

static void test_calls_that_fail(void **state)
{
    struct bench b = bench_new();
    int fd = make(&b, "d/f");
    put(&b, fd, 'x', 1000, 0);
    char bytes[1000];
    struct iovec iov = {bytes, sizeof(bytes)};
    memset(bytes, 'y', sizeof(bytes));
    memory_disk_fail_call(b.disk, memory_disk_calls(b.disk) + 1, -ENOSPC);
    assert_int_equal(b.io.pwritev(b.io.context, fd, &iov, 1, 0), -ENOSPC);
    memory_disk_shorten_call(b.disk, memory_disk_calls(b.disk) + 1);
    assert_int_equal(b.io.pwritev(b.io.context, fd, &iov, 1, 0), 500);
    assert_true(at(b.disk, "d/f", 499) == 'y' && at(b.disk, "d/f", 500) == 'x');
    memory_disk_misdirect_call(b.disk, memory_disk_calls(b.disk) + 1, 4096);
    assert_int_equal(b.io.pwritev(b.io.context, fd, &iov, 1, 0), 1000);
    assert_true(at(b.disk, "d/f", 999) == 'x' && at(b.disk, "d/f", 4096) == 'y');
    memory_disk_fail_read(b.disk, memory_disk_reads(b.disk) + 1, -EIO);
    assert_int_equal(b.io.pread(b.io.context, fd, bytes, 10, 0), -EIO);
    memory_disk_shorten_read(b.disk, memory_disk_reads(b.disk) + 1);
    assert_int_equal(b.io.pread(b.io.context, fd, bytes, 10, 0), 5);
    memory_disk_flip_read(b.disk, memory_disk_reads(b.disk) + 1);
    assert_int_equal(b.io.pread(b.io.context, fd, bytes, 10, 0), 10);
    assert_int_equal(bytes[5], 'y' ^ 0x10);
    memory_disk_flip(b.disk, "d/f", 0, 0);
    assert_int_equal(at(b.disk, "d/f", 0), 'y' ^ 1);
    memory_disk_set_capacity(b.disk, memory_disk_used(b.disk) + 10);
    assert_int_equal(b.io.allocate(b.io.context, fd, 1 << 20), -ENOSPC);
    struct memory_disk_faults faults = memory_disk_faults();
    assert_int_equal(faults.failed, 2);
    assert_int_equal(faults.shortened, 2);
    assert_int_equal(faults.misdirected, 1);
    assert_int_equal(faults.flipped, 2);
    assert_int_equal(faults.full, 1);
    memory_disk_free(b.disk);
}

/* A sync that fails may leave what it was to write clean in the cache. */
static void test_forgetful(void **state)
{
    struct bench b = bench_new();
    int fd = make(&b, "d/f");
    assert_int_equal(b.io.sync_dir(b.io.context, "d"), 0);
    put(&b, fd, 'x', 10, 0);
    memory_disk_set_forgetful(b.disk, true);
    memory_disk_fail_call(b.disk, memory_disk_calls(b.disk) + 1, -EIO);
    assert_int_equal(b.io.sync(b.io.context, fd), -EIO);
    assert_int_equal(b.io.sync(b.io.context, fd), 0);
    struct memory_disk *after = crash(&b, ~0u);
    assert_int_equal(memory_disk_size(after, "d/f"), 0);
    assert_int_equal(at(b.disk, "d/f", 0), 'x');
    assert_int_equal(memory_disk_faults().forgotten, 1);
    memory_disk_free(after);
    memory_disk_free(b.disk);
}

/* Copies share pages; a write to one is not seen in the other. */
static void test_copies(void **state)
{
    struct bench b = bench_new();
    int fd = make(&b, "d/f");
    put(&b, fd, 'x', 4096, 0);
    struct memory_disk *copy = memory_disk_copy(b.disk);
    assert_true(memory_disk_equal(b.disk, copy));
    put(&b, fd, 'y', 1, 100);
    assert_int_equal(at(copy, "d/f", 100), 'x');
    assert_false(memory_disk_equal(b.disk, copy));
    memory_disk_poke(copy, "d/f", 100, "y", 1);
    assert_true(memory_disk_equal(b.disk, copy));
    assert_int_equal(b.io.truncate(b.io.context, fd, 50), 0);
    assert_int_equal(b.io.allocate(b.io.context, fd, 4096), 0);
    assert_int_equal(at(b.disk, "d/f", 60), 0);
    assert_int_equal(at(copy, "d/f", 60), 'x');
    memory_disk_free(copy);
    memory_disk_free(b.disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_subset), cmocka_unit_test(test_order_and_tear),
        cmocka_unit_test(test_names),      cmocka_unit_test(test_calls_that_fail),
        cmocka_unit_test(test_forgetful),  cmocka_unit_test(test_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
