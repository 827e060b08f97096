/* test_mount_unlock.c - a real mount over a name space in memory: when locks go that were taken
 * there (K13, M19), and when they do not count any more (M21). */
#include "mount_fixture.h"
#include "mount_internal.h" /* the session */

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t file;

static int set_up(void **state)
{
    struct fs_inode inode;
    backend_start(&backend);
    backend_put(&backend, "f", "value", 5);
    int result = mount_up(NULL);
    if (!result)
        result = backend_stat(&backend, "f", &inode);
    file = inode.inode;
    return result;
}

static int must_open(const char *name)
{
    int fd = open(at(name), O_RDWR | O_CLOEXEC);
    must(fd);
    return fd;
}

static int set_lock(int fd, int command, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    return fcntl(fd, command, &lock);
}

/* "1 held, 0 wait" */
static const char *shown(void)
{
    static char text[64];
    struct fs_view view = memory_view(&backend.memory);
    struct fs_locks locks;
    assert_int_equal(fs_locks_read(&view, file, &locks), 0);
    snprintf(text, sizeof(text), "%zu held, %zu wait", locks.held,
             locks.count - locks.held);
    fs_locks_release(&locks);
    return text;
}

/* Until the operation of the mount is done that makes it so. */
static void await_shown(const char *expected)
{
    pthread_mutex_lock(&backend.lock);
    while (strcmp(shown(), expected) != 0)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
}

/* Another host's; what it is told. */
static uint64_t other(enum fs_op_type type, enum fs_lock_kind kind)
{
    struct fs_result result = {0};
    struct fs_op op = {
        .type = type,
        .inode = file,
        .lock = {.owner = 1, .kind = kind, .writes = true, .end = FS_LOCK_END}};
    assert_int_equal(backend_do(&backend, &op, &result), 0);
    return result.value;
}

/* ---- K13: when they go ---- */

static void test_flock_goes_with_its_open_file(void **state)
{
    int fd = must_open("f"), same = dup(fd);
    must(flock(fd, LOCK_EX));
    assert_int_equal(other(FS_LOCK, FS_LOCK_FLOCK), FS_LOCK_REFUSED);
    must(close(must_open("f")));
    must(close(fd));
    assert_string_equal(shown(), "1 held, 0 wait");
    must(close(same));
    await_shown("0 held, 0 wait");
}

static void test_fcntl_locks_go_with_any_close(void **state)
{
    int fd = must_open("f"), another = must_open("f");
    must(set_lock(fd, F_SETLK, F_WRLCK));
    assert_int_equal(other(FS_LOCK, FS_LOCK_FCNTL), FS_LOCK_REFUSED);
    must(close(another));
    assert_string_equal(shown(), "0 held, 0 wait"); /* when close has returned */
    must(close(fd));
}

static void test_ofd_locks_go_with_the_last_close(void **state)
{
    int fd = must_open("f"), another = must_open("f"), same = dup(fd);
    must(set_lock(fd, F_OFD_SETLK, F_WRLCK));
    assert_fails(set_lock(another, F_OFD_SETLK, F_WRLCK), EAGAIN);
    must(close(another));
    must(close(fd));
    assert_string_equal(shown(), "1 held, 0 wait");
    must(close(same));
    await_shown("0 held, 0 wait");
}

static void test_all_kinds_at_once(void **state)
{
    int fd = must_open("f");
    must(flock(fd, LOCK_SH));
    must(set_lock(fd, F_OFD_SETLK, F_RDLCK));
    must(set_lock(fd, F_SETLK, F_RDLCK));
    assert_string_equal(shown(), "3 held, 0 wait");
    must(close(fd));
    await_shown("0 held, 0 wait");
}

/* Nobody waits for it, and it is done all the same. */
static void test_unlocking_is_tried_again(void **state)
{
    int fd = must_open("f");
    must(flock(fd, LOCK_EX));
    backend_fail(&backend, FS_UNLOCK, -EROFS);
    must(close(fd));
    pthread_mutex_lock(&backend.lock);
    while (backend.failed == 0)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
    assert_string_equal(shown(), "1 held, 0 wait");
    backend_fail(&backend, 0, 0);
    await_shown("0 held, 0 wait");
}

static void test_who_waits_and_is_killed(void **state)
{
    assert_int_equal(other(FS_LOCK, FS_LOCK_FLOCK), FS_LOCK_GRANTED);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(at("f"), O_RDWR | O_CLOEXEC);
        _exit(flock(fd, LOCK_EX));
    }
    await_shown("1 held, 1 wait");
    must(kill(child, SIGKILL));
    must(waitpid(child, NULL, 0));
    await_shown("1 held, 0 wait");
}

static void test_who_waits_gets_it(void **state)
{
    int status;
    assert_int_equal(other(FS_LOCK, FS_LOCK_FLOCK), FS_LOCK_GRANTED);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(at("f"), O_RDWR | O_CLOEXEC);
        _exit(flock(fd, LOCK_EX));
    }
    await_shown("1 held, 1 wait");
    assert_int_equal(other(FS_UNLOCK, FS_LOCK_FLOCK), 1);
    must(waitpid(child, &status, 0));
    assert_int_equal(status, 0);
    await_shown("0 held, 0 wait");
}

/* Interrupts that no request follows, of requests that are answered: the address sanitizer tells
 * who keeps them. */
static void test_interrupts_that_come_last(void **state)
{
    struct {
        struct fuse_in_header header;
        struct fuse_interrupt_in argument;
    } late = {.header = {.len = sizeof(late), .opcode = FUSE_INTERRUPT}};
    struct fuse_buf buffer = {.size = sizeof(late), .mem = &late};
    for (uint64_t i = 0; i < 100; i++) {
        late.argument.unique = UINT64_MAX - i;
        fuse_session_process_buf(mount_->session, &buffer);
    }
}

/* ---- M20, M21: what they say of what was written, and of the session ---- */

static void test_what_was_written_is_committed_first(void **state)
{
    int fd = must_open("f");
    size_t size;
    must(flock(fd, LOCK_EX));
    assert_int_equal(pwrite(fd, "other", 5, 0), 5);
    must(flock(fd, LOCK_UN));
    char *value = backend_value(&backend, "f", &size);
    assert_string_equal(value, "other");
    free(value);
    must(close(fd));
}

static void assert_lost(int fd)
{
    char byte;
    assert_fails(pread(fd, &byte, 1, 0), EIO);
    assert_fails(pwrite(fd, "x", 1, 0), EIO);
    assert_fails(flock(fd, LOCK_EX | LOCK_NB), EIO);
}

/* A session that may have ended holds nothing, and never again what it held. */
static void test_a_session_that_is_not_sure(void **state)
{
    int fd = must_open("f"), without = must_open("f");
    char byte;
    must(flock(fd, LOCK_EX));
    backend.unsure = true;
    assert_lost(fd);
    assert_int_equal(pread(without, &byte, 1, 0), 1);
    backend.unsure = false;
    assert_lost(fd);
    close(fd);
    await_shown("0 held, 0 wait");
    must(flock(without, LOCK_EX));
    must(close(without));
}

static void test_another_session(void **state)
{
    int fd = must_open("f");
    must(flock(fd, LOCK_EX));
    backend.session += 10;
    assert_lost(fd);
    close(fd);
}

#define mounted(test) cmocka_unit_test_setup_teardown(test, set_up, mount_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        mounted(test_flock_goes_with_its_open_file),
        mounted(test_fcntl_locks_go_with_any_close),
        mounted(test_ofd_locks_go_with_the_last_close),
        mounted(test_all_kinds_at_once),
        mounted(test_unlocking_is_tried_again),
        mounted(test_who_waits_and_is_killed),
        mounted(test_who_waits_gets_it),
        mounted(test_interrupts_that_come_last),
        mounted(test_what_was_written_is_committed_first),
        mounted(test_a_session_that_is_not_sure),
        mounted(test_another_session),
    };
    mount_tests_begin(argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mount_tests_end();
    return failed;
}
