/* test_mount_xattr.c - a real mount over a name space in memory: extended attributes of files
 * that are not made yet, or written to. */
#include "mount_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

static int set_up(void **state)
{
    backend_start(&backend);
    return mount_up(*state);
}

static int must_open(const char *name, int flags)
{
    int fd = open(at(name), flags | O_CLOEXEC, 0644);
    must(fd);
    return fd;
}

/* Another user writes a byte to what is open. */
static void write_as(uid_t uid, int fd)
{
    setfsuid(uid);
    ssize_t written = pwrite(fd, "U", 1, 0);
    setfsuid(0);
    assert_int_equal(written, 1);
}

static void assert_is(ssize_t length, const char *got, const char *expected)
{
    if (length < 0)
        fail_msg("%s", strerror(errno));
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(got, expected, (size_t)length);
}

static void test_set_get_list(void **state)
{
    char got[64];
    backend_put(&backend, "f", "value", 5);
    assert_fails(getxattr(at("f"), "user.a", got, sizeof(got)), ENODATA);
    assert_int_equal(listxattr(at("f"), got, sizeof(got)), 0);
    must(setxattr(at("f"), "user.a", "one", 3, 0));
    assert_is(getxattr(at("f"), "user.a", got, sizeof(got)), got, "one");
    assert_int_equal(getxattr(at("f"), "user.a", NULL, 0), 3);
    assert_fails(getxattr(at("f"), "user.a", got, 2), ERANGE);
    assert_int_equal(listxattr(at("f"), NULL, 0), 7);
    assert_fails(listxattr(at("f"), got, 6), ERANGE);
    assert_int_equal(listxattr(at("f"), got, sizeof(got)), 7);
    assert_memory_equal(got, "user.a", 7);
    assert_fails(setxattr(at("f"), "user.a", "x", 1, XATTR_CREATE), EEXIST);
    assert_fails(setxattr(at("f"), "user.b", "x", 1, XATTR_REPLACE), ENODATA);
    must(setxattr(at("f"), "user.a", "", 0, XATTR_REPLACE));
    assert_int_equal(getxattr(at("f"), "user.a", got, sizeof(got)), 0);
    must(removexattr(at("f"), "user.a"));
    assert_fails(removexattr(at("f"), "user.a"), ENODATA);
    assert_fails(setxattr(at("f"), "my.own", "x", 1, 0), EOPNOTSUPP);
    assert_fails(getxattr(at("f"), "my.own", got, sizeof(got)), EOPNOTSUPP);
}

/* What is not made yet is made first; who reads need not wait for it. */
static void test_pending(void **state)
{
    char got[64];
    size_t size;
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    assert_int_equal(write(fd, "value", 5), 5);
    assert_int_equal(backend_total(&backend), 0);
    assert_fails(fgetxattr(fd, "user.a", got, sizeof(got)), ENODATA);
    assert_int_equal(flistxattr(fd, got, sizeof(got)), 0);
    assert_int_equal(backend_total(&backend), 0);
    must(fsetxattr(fd, "user.a", "one", 3, 0));
    assert_int_equal(backend_count(&backend, FS_MAKE), 1);
    assert_int_equal(backend_count(&backend, FS_XATTR), 1);
    assert_is(fgetxattr(fd, "user.a", got, sizeof(got)), got, "one");
    char *value = backend_value(&backend, "f", &size);
    assert_string_equal(value, "value");
    free(value);
    close(fd);
}

/* Made first by another host: the attribute is given to what the name leads to. */
static void test_pending_made_elsewhere(void **state)
{
    char got[64];
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    backend_put(&backend, "f", "theirs", 6);
    must(fsetxattr(fd, "user.a", "one", 3, 0));
    assert_is(fgetxattr(fd, "user.a", got, sizeof(got)), got, "one");
    close(fd);
    assert_is(getxattr(at("f"), "user.a", got, sizeof(got)), got, "one");
}

/* A capability that is given after a write is not taken away by that write's commit. */
static void test_capability_after_a_write(void **state)
{
    static const uint8_t all[20] = {0, 0, 0, 2, 1}; /* VFS_CAP_REVISION_2 */
    char got[64];
    backend_put(&backend, "f", "value", 5);
    int fd = must_open("f", O_RDWR);
    assert_int_equal(write(fd, "V", 1), 1);
    must(fsetxattr(fd, "security.capability", all, sizeof(all), 0));
    assert_int_equal(backend_count(&backend, FS_WRITE), 1);
    assert_int_equal(fgetxattr(fd, "security.capability", got, sizeof(got)), sizeof(all));
    close(fd);
    assert_int_equal(getxattr(at("f"), "security.capability", got, sizeof(got)),
                     sizeof(all));
    fd = must_open("f", O_RDWR);
    assert_int_equal(write(fd, "W", 1), 1); /* and one that comes after it takes it */
    close(fd);
    assert_fails(getxattr(at("f"), "security.capability", got, sizeof(got)), ENODATA);
    fd = must_open("g", O_RDWR | O_CREAT | O_TRUNC);
    assert_int_equal(write(fd, "V", 1), 1);
    must(fsetxattr(fd, "security.capability", all, sizeof(all), 0));
    close(fd);
    assert_int_equal(getxattr(at("g"), "security.capability", got, sizeof(got)),
                     sizeof(all));
}

static uint64_t calls_so_far(void)
{
    pthread_mutex_lock(&backend.memory.mutex);
    uint64_t calls = backend.memory.calls;
    pthread_mutex_unlock(&backend.memory.mutex);
    return calls;
}

/* The kernel asks once whether there is a capability, not before each write (K16). */
static void test_writes_ask_for_nothing(void **state)
{
    enum { WRITES = 100 };
    backend_put(&backend, "f", "value", 5);
    int fd = must_open("f", O_RDWR);
    backend_hold(&backend, true); /* an evaluation asks too */
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    uint64_t before = calls_so_far();
    for (int i = 0; i < WRITES; i++)
        assert_int_equal(pwrite(fd, "x", 1, i), 1);
    uint64_t asked = calls_so_far() - before;
    assert_true(asked < WRITES / 10);
    backend_hold(&backend, false);
    close(fd);
}

/* Who may not keep set-id bits is said with each write; they are shown as gone at once. */
static void test_setid_goes_with_a_write(void **state)
{
    struct stat st;
    struct fs_inode inode;
    backend_put(&backend, "f", "value", 5);
    must(chmod(at("f"), 06777));
    int fd = must_open("f", O_RDWR), root = must_open("f", O_RDWR);
    assert_int_equal(pwrite(root, "R", 1, 0), 1);
    must(fsync(root));
    must(stat(at("f"), &st));
    assert_int_equal(st.st_mode, S_IFREG | 06777);
    write_as(1, fd);
    must(stat(at("f"), &st));
    assert_int_equal(st.st_mode, S_IFREG | 0777);
    must(fsync(fd));
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    assert_int_equal(inode.mode, S_IFREG | 0777);
    must(chmod(at("f"), 04755)); /* after it: stays */
    must(fsync(fd));
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    assert_int_equal(inode.mode, S_IFREG | 04755);
    close(fd);
    close(root);
}

/* A write that a new value hides takes the bits away all the same. */
static void test_setid_goes_with_a_hidden_write(void **state)
{
    struct fs_inode inode;
    backend_put(&backend, "f", "value", 5);
    must(chmod(at("f"), 04777));
    int fd = must_open("f", O_RDWR);
    write_as(1, fd);
    int root = must_open("f", O_RDWR | O_TRUNC);
    must(fsync(root));
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    assert_int_equal(inode.mode, S_IFREG | 0777);
    close(fd);
    close(root);
}

static void test_virtual(void **state)
{
    char got[64];
    assert_int_equal(listxattr(at(".tierce/status"), got, sizeof(got)), 0);
    assert_fails(getxattr(at(".tierce/status"), "user.a", got, sizeof(got)), ENODATA);
    assert_fails(setxattr(at(".tierce/status"), "trusted.a", "x", 1, 0), EROFS);
    assert_fails(removexattr(at(".tierce"), "trusted.a"), EROFS);
}

/* noacl: this host goes by modes, and ACLs stay as they are. */
static void test_no_acl(void **state)
{
    static const char name[] = "system.posix_acl_access";
    static const uint8_t acl[] = {2,   0,   0,   0,   1,   0,   6,  0,   255, 255, 255,
                                  255, 2,   0,   0,   0,   1,   0,  0,   0,   4,   0,
                                  0,   0,   255, 255, 255, 255, 16, 0,   7,   0,   255,
                                  255, 255, 255, 32,  0,   4,   0,  255, 255, 255, 255};
    char got[64];
    struct fs_result result;
    struct fs_inode inode;
    backend_put(&backend, "f", "value", 5);
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    struct fs_op op = {.type = FS_XATTR,
                       .inode = inode.inode,
                       .name = (const uint8_t *)name,
                       .name_size = sizeof(name) - 1,
                       .value = acl,
                       .value_size = sizeof(acl)};
    assert_int_equal(backend_do(&backend, &op, &result), 0);
    assert_fails(getxattr(at("f"), name, got, sizeof(got)), EOPNOTSUPP);
    assert_fails(setxattr(at("f"), name, acl, sizeof(acl), 0), EOPNOTSUPP);
    assert_int_equal(listxattr(at("f"), got, sizeof(got)), 0);
    setfsuid(1); /* whom the ACL refuses, and the mode does not */
    int fd = open(at("f"), O_RDONLY);
    setfsuid(0);
    must(fd);
    close(fd);
}

#define mounted(test) cmocka_unit_test_setup_teardown(test, set_up, mount_down)

int main(int argc, char **argv)
{
    char no_acl[] = "noacl";
    const struct CMUnitTest tests[] = {
        mounted(test_set_get_list),
        mounted(test_pending),
        mounted(test_pending_made_elsewhere),
        mounted(test_capability_after_a_write),
        mounted(test_writes_ask_for_nothing),
        mounted(test_setid_goes_with_a_write),
        mounted(test_setid_goes_with_a_hidden_write),
        mounted(test_virtual),
        cmocka_unit_test_prestate_setup_teardown(test_no_acl, set_up, mount_down, no_acl),
    };
    mount_tests_begin(argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mount_tests_end();
    return failed;
}
