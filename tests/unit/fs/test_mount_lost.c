/* test_mount_lost.c - on a real mount: what is written under a lock goes the way of the lock,
 * and what is not does not (M21). */
#include "mount_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int set_up(void **state)
{
    backend_start(&backend);
    backend_put(&backend, "f", "start", 5);
    return mount_up(NULL);
}

static int open_f(int flags)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/f", directory);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    return fd;
}

static void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void assert_committed(const char *expected)
{
    size_t size;
    char *value = backend_value(&backend, "f", &size);
    assert_non_null(value);
    assert_string_equal(value, expected);
    free(value);
}

static int lock_f(void)
{
    int fd = open_f(O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    return fd;
}

/* Another has begun, and what was locked in the old one is free. */
static void lose_session(void)
{
    struct fs_op op = {
        .type = FS_ABANDON, .flags = FS_LOCKS_ALONE, .content = backend.session++};
    struct fs_result result;
    assert_int_equal(backend_do(&backend, &op, &result), 0);
}

/* Who has written under the lock, also through another descriptor, is told. */
static void test_written_under_a_lock(void **state)
{
    static const int flags[] = {O_RDWR, O_RDWR | O_APPEND, O_RDWR | O_TRUNC};
    for (size_t i = 0; i < array_length(flags); i++) {
        int locked = lock_f(), other = open_f(flags[i]);
        backend_hold(&backend, true); /* or it may be committed before the loss */
        put(other, "mine");
        lose_session();
        backend_hold(&backend, false);
        assert_fails(fsync(other), EIO);
        assert_committed("start");
        assert_fails((int)write(locked, "x", 1), EIO);
        close(other);
        close(locked);
    }
    assert_committed("start");
}

/* The lock need not be known to be lost when it is closed. */
static void test_closed_before_the_loss(void **state)
{
    int locked = lock_f();
    backend_hold(&backend, true);
    put(locked, "mine");
    int error = 0;
    lose_session();
    backend_hold(&backend, false);
    if (close(locked) != 0)
        error = errno;
    assert_int_equal(error, EIO);
    assert_committed("start");
}

/* While the loser still has its descriptor, what others write is written. */
static void test_bystanders(void **state)
{
    int locked = lock_f(), other = open_f(O_WRONLY);
    lose_session();
    put(other, "STA");
    assert_int_equal(fsync(other), 0);
    assert_committed("STArt");
    int appends = open_f(O_WRONLY | O_APPEND);
    put(appends, "ed");
    assert_int_equal(close(appends), 0);
    assert_committed("STArted");
    int anew = open_f(O_WRONLY | O_TRUNC);
    put(anew, "anew");
    assert_int_equal(close(anew), 0);
    assert_committed("anew");
    assert_int_equal(ftruncate(other, 2), 0);
    assert_committed("an");
    assert_fails((int)write(locked, "x", 1), EIO);
    close(other);
    close(locked);
}

/* Nor does a new value that the loser has not finished stand in the way of another. */
static void test_values_anew(void **state)
{
    int locked = lock_f(), value = open_f(O_WRONLY | O_TRUNC);
    put(value, "mine");
    lose_session();
    int anew = open_f(O_WRONLY | O_TRUNC);
    put(anew, "anew");
    assert_int_equal(close(anew), 0);
    assert_committed("anew");
    close(value);
    close(locked);
    assert_committed("anew");
}

/* What was written before the loss takes nothing with it that comes after. */
static void test_bystanders_behind_the_loss(void **state)
{
    int locked = lock_f(), other = open_f(O_RDWR);
    backend_hold(&backend, true);
    put(locked, "mine");
    lose_session();
    assert_int_equal(pwrite(other, "RT", 2, 3), 2);
    backend_hold(&backend, false);
    assert_fails(close(locked), EIO);
    fsync(other); /* it may be told of the other's, too */
    assert_int_equal(fsync(other), 0);
    assert_committed("staRT");
    assert_int_equal(close(other), 0);
}

/* Who has the new session's lock does not bring about that the old one's counts. */
static void test_locked_anew(void **state)
{
    int lost = lock_f();
    backend_hold(&backend, true);
    put(lost, "mine");
    lose_session();
    backend_hold(&backend, false);
    int other = open_f(O_RDWR);
    assert_fails(fsync(lost), EIO);
    assert_committed("start");
    assert_int_equal(flock(other, LOCK_EX), 0);
    put(other, "OTHER");
    assert_int_equal(close(other), 0);
    assert_committed("OTHER");
    close(lost);
}

/* Nobody knows who has written to a page, or when. */
static void test_pages(void **state)
{
    int locked = lock_f(), other = open_f(O_RDWR);
    char *map = mmap(NULL, 5, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
    assert_true(map != MAP_FAILED);
    memcpy(map, "MAPPE", 5);
    lose_session();
    assert_fails((int)write(locked, "x", 1), EIO);
    msync(map, 5, MS_SYNC);
    assert_committed("start");
    munmap(map, 5);
    close(other);
    close(locked);
}

#define mounted(test) cmocka_unit_test_setup_teardown(test, set_up, mount_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        mounted(test_written_under_a_lock),
        mounted(test_closed_before_the_loss),
        mounted(test_bystanders),
        mounted(test_values_anew),
        mounted(test_bystanders_behind_the_loss),
        mounted(test_locked_anew),
        mounted(test_pages),
    };
    mount_tests_begin(argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mount_tests_end();
    return failed;
}
