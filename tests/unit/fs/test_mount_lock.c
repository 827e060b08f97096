/* test_mount_lock.c - a real mount over a name space in memory: when locks go, what becomes of
 * what was written under them, and of those whose session has ended (M19-M21). */
#include "mount_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int set_up(void **state)
{
    backend_start(&backend);
    backend_put(&backend, "f", "old", 3);
    return mount_up(NULL);
}

static int must_open(int flags)
{
    int fd = open(at("f"), flags | O_CLOEXEC, 0644);
    must(fd);
    return fd;
}

static void must_write(int fd, const char *text)
{
    assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
}

static void assert_value(const char *expected)
{
    size_t size = 0;
    char *value = backend_value(&backend, "f", &size);
    assert_non_null(value);
    assert_string_equal(value, expected);
    free(value);
}

/* ---- Errors ---- */

/* An unlock is not asked whether what was written is there: fsync and close are. */
static void test_an_unlock_swallows_no_error(void **state)
{
    int fd = must_open(O_RDWR);
    for (int i = 0; i < 2; i++) {
        must(flock(fd, LOCK_EX));
        backend_fail(&backend, FS_WRITE, -ENOSPC);
        must_write(fd, "NEW");
        must(flock(fd, LOCK_UN));
        backend_fail(&backend, 0, 0);
        if (i == 0)
            assert_fails(fsync(fd), ENOSPC);
    }
    assert_fails(close(fd), ENOSPC);
    assert_value("old");
}

/* ---- Unlocking ---- */

static void await_unlocks(unsigned count)
{
    pthread_mutex_lock(&backend.lock);
    while (backend.counts[FS_UNLOCK] < count)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
}

/* What another host is told that asks for it all, and does not wait. */
static uint64_t other_locks(void)
{
    struct fs_inode inode;
    struct fs_result result;
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    struct fs_op op = {
        .type = FS_LOCK,
        .inode = inode.inode,
        .lock = {.owner = 1, .kind = FS_LOCK_FLOCK, .writes = true, .end = FS_LOCK_END}};
    assert_int_equal(backend_do(&backend, &op, &result), 0);
    return result.value;
}

static _Atomic bool writer_ends;

static void *writer_main(void *arg)
{
    int fd = must_open(O_WRONLY);
    while (!writer_ends)
        must_write(fd, "written");
    close(fd);
    return NULL;
}

/* Another process that writes without end leaves always something that is not committed. */
static void test_unlocked_beside_a_writer(void **state)
{
    pthread_t thread;
    int fd = must_open(O_RDONLY);
    must(flock(fd, LOCK_EX));
    pthread_mutex_lock(&backend.lock);
    backend.delay_us = 1000; /* so that it writes during each commit */
    pthread_mutex_unlock(&backend.lock);
    writer_ends = false;
    pthread_create(&thread, NULL, writer_main, NULL);
    pthread_mutex_lock(&backend.lock);
    while (!backend.counts[FS_WRITE])
        pthread_cond_wait(&backend.changed, &backend.lock);
    unsigned bound = backend.counts[FS_WRITE] + 20;
    pthread_mutex_unlock(&backend.lock);
    close(fd);
    pthread_mutex_lock(&backend.lock);
    while (!backend.counts[FS_UNLOCK] && backend.counts[FS_WRITE] < bound)
        pthread_cond_wait(&backend.changed, &backend.lock);
    unsigned unlocks = backend.counts[FS_UNLOCK];
    pthread_mutex_unlock(&backend.lock);
    writer_ends = true;
    pthread_join(thread, NULL);
    assert_int_equal(unlocks, 1);
}

/* One that goes on to have a new value open does not keep the lock, nor is its value published
 * half for that. */
static void test_unlocked_beside_a_value_in_progress(void **state)
{
    int writer = must_open(O_WRONLY | O_TRUNC);
    must_write(writer, "half");
    int fd = must_open(O_RDONLY);
    must(flock(fd, LOCK_EX));
    close(fd);
    await_unlocks(1);
    assert_value("old");
    must_write(writer, "whole");
    must(close(writer));
    assert_value("whole");
    assert_int_equal(other_locks(), FS_LOCK_GRANTED);
}

/* What was written under it, by whichever descriptor, is there when it is free. */
static void test_written_before_unlocked(void **state)
{
    int fd = must_open(O_RDWR), other = must_open(O_RDWR);
    must(flock(fd, LOCK_EX));
    must_write(other, "new");
    close(fd);
    await_unlocks(1);
    assert_value("new");
    close(other);
}

/* An unlock that has failed is tried again: not when its owner has locked anew. */
static void test_a_late_unlock_takes_no_new_lock(void **state)
{
    int fd = must_open(O_RDWR);
    must(flock(fd, LOCK_EX));
    backend_fail(&backend, FS_UNLOCK, -EROFS);
    assert_fails(flock(fd, LOCK_UN), EROFS);
    backend_fail(&backend, 0, 0);
    while (flock(fd, LOCK_EX) != 0) /* what was tried again at once may be on its way */
        assert_int_equal(errno, EROFS);
    await_unlocks(1);
    assert_int_equal(other_locks(), FS_LOCK_REFUSED);
    must(flock(fd, LOCK_UN));
    backend_fail(&backend, FS_UNLOCK, -EROFS);
    must(flock(fd, LOCK_EX));
    assert_fails(flock(fd, LOCK_UN), EROFS);
    assert_fails(flock(fd, LOCK_EX),
                 EROFS); /* nor before it is known what became of it */
    backend_fail(&backend, 0, 0);
    await_unlocks(3);
    assert_int_equal(other_locks(), FS_LOCK_GRANTED);
    close(fd);
}

/* ---- Sessions that end ---- */

/* The mount's session has ended, and another has begun, in which what it locked is free. */
static void begin_session(void)
{
    backend.session = 9;
}

/* Who has lost a lock fails, and nobody else. */
static void test_a_lost_lock_is_of_its_handles_alone(void **state)
{
    char byte;
    int lost = must_open(O_RDWR);
    must(flock(lost, LOCK_EX));
    begin_session();
    assert_fails(pread(lost, &byte, 1, 0), EIO);
    int fd = must_open(O_RDWR);
    must_write(fd, "one");
    must(fsync(fd));
    assert_value("one");
    int other = must_open(O_WRONLY | O_TRUNC);
    must_write(other, "1");
    must(close(other));
    assert_value("1");
    struct flock all = {.l_type = F_WRLCK};
    must(fcntl(fd, F_OFD_SETLK, &all));
    must_write(fd, "two");
    must(close(fd));
    assert_value("two");
    assert_fails(pread(lost, &byte, 1, 0), EIO);
    close(lost);
}

/* What it wrote is not committed by right of a lock that another has got since. */
static void test_written_under_a_lost_lock(void **state)
{
    int lost = must_open(O_RDWR | O_TRUNC);
    must(flock(lost, LOCK_EX));
    must_write(lost, "lost");
    begin_session();
    int fd = must_open(O_RDWR);
    struct flock all = {.l_type = F_WRLCK};
    must(fcntl(fd, F_OFD_SETLK, &all));
    assert_fails(close(lost), EIO);
    assert_value("old");
    must_write(fd, "new");
    must(close(fd));
    assert_value("new");
}

/* Nor is who wrote later told of what was lost, whatever is committed first. */
static void test_written_beside_what_is_lost(void **state)
{
    int lost = must_open(O_RDWR);
    must(flock(lost, LOCK_EX));
    backend_reset_counts(&backend);
    backend_hold(&backend, true);
    must_write(lost, "lost");
    begin_session();
    int fd = must_open(O_RDWR);
    must_write(fd, "new");
    backend_hold(&backend, false);
    must(fsync(fd));
    must(close(fd));
    assert_value("new");
    assert_fails(fsync(lost), EIO);
    close(lost);
}

#define mounted(test) cmocka_unit_test_setup_teardown(test, set_up, mount_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        mounted(test_an_unlock_swallows_no_error),
        mounted(test_unlocked_beside_a_writer),
        mounted(test_unlocked_beside_a_value_in_progress),
        mounted(test_written_before_unlocked),
        mounted(test_a_late_unlock_takes_no_new_lock),
        mounted(test_a_lost_lock_is_of_its_handles_alone),
        mounted(test_written_under_a_lost_lock),
        mounted(test_written_beside_what_is_lost),
    };
    mount_tests_begin(argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mount_tests_end();
    return failed;
}
