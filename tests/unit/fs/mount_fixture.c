/* mount_fixture.c - what the tests of a real mount share. */
#include "mount_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

struct backend backend;
struct fs_mount *mount_;
char directory[] = "/tmp/tierce-mount-XXXXXX";

static void on_test_alarm(int signal_number)
{
    static const char text[] = "a test hangs; unmounting\n";
    if (write(2, text, sizeof(text) - 1) < 0)
        _exit(3);
    umount2(directory, MNT_FORCE); /* ends all requests: callers get ECONNABORTED */
    umount2(directory, MNT_DETACH);
    _exit(3);
}

void mount_tests_begin(int argc, char **argv)
{
    if (!mkdtemp(directory)) {
        perror(directory);
        exit(1);
    }
    signal(SIGALRM, on_test_alarm);
    alarm(MOUNT_TEST_SECONDS);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
}

void mount_tests_end(void)
{
    rmdir(directory);
}

int mount_up(const char *options)
{
    char error[FS_ERROR_BYTES] = "";
    struct fs_mount_options o = {
        .mountpoint = directory, .source = "test", .options = options};
    int result = fs_mount_start(&mount_, &o, &backend.table, error);
    backend.mount = mount_;
    if (result)
        print_error("%s\n", error);
    return result;
}

int mount_down(void **state)
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

const char *at(const char *name)
{
    static char path[4][4400];
    static unsigned turn;
    char *to = path[turn++ % array_length(path)];
    snprintf(to, sizeof(path[0]), "%s/%s", directory, name);
    return to;
}

void must(int result)
{
    if (result < 0)
        fail_msg("%s", strerror(errno));
}

void assert_fails(ssize_t result, int error)
{
    int got = errno;
    assert_int_equal(result, -1);
    assert_int_equal(got, error);
}
