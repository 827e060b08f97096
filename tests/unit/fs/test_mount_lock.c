/* test_mount_lock.c - a real mount over a name space in memory: when locks go, what becomes of
 * what was written under them, and of those whose session has ended (M19-M21). */
#include "test_mount_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct backend backend;
static struct fs_mount *mount_;
static char directory[] = "/tmp/tierce-mount-XXXXXX";

static const char *at(const char *name)
{
    static char path[4][400];
    static unsigned turn;
    char *to = path[turn++ % array_length(path)];
    snprintf(to, sizeof(path[0]), "%s/%s", directory, name);
    return to;
}

static int set_up(void **state)
{
    char error[FS_ERROR_BYTES] = "";
    struct fs_mount_options options = {.mountpoint = directory, .source = "test"};
    backend_start(&backend);
    int result = fs_mount_start(&mount_, &options, &backend.table, error);
    backend.mount = mount_;
    if (result)
        print_error("%s\n", error);
    backend_put(&backend, "f", "old", 3);
    return result;
}

static int tear_down(void **state)
{
    backend_fail(&backend, 0, 0);
    backend_hold(&backend, false);
    if (mount_ && fs_mount_stop(mount_, true) != 0)
        return -1;
    backend.mount = NULL;
    fs_mount_free(mount_);
    mount_ = NULL;
    backend_stop(&backend);
    return 0;
}

static void must(int result)
{
    if (result < 0)
        fail_msg("%s", strerror(errno));
}

static void assert_fails(ssize_t result, int error)
{
    int got = errno;
    assert_int_equal(result, -1);
    assert_int_equal(got, error);
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

static void on_test_alarm(int signal_number)
{
    umount2(directory, MNT_FORCE);
    umount2(directory, MNT_DETACH);
    _exit(3);
}

#define mounted(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        mounted(test_an_unlock_swallows_no_error),
    };
    if (!mkdtemp(directory))
        return 1;
    signal(SIGALRM, on_test_alarm);
    alarm(100);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return failed;
}
