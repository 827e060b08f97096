/* test_xattr.c - extended attributes: XATTR, what takes them away, and reading them. */
#include "check.h"
#include "ops.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { ROOT = FS_ROOT_INODE, FILE_MODE = S_IFREG | 0644, DIR_MODE = S_IFDIR | 0755 };

static struct memory m;
static struct fs_view view;

static int setup(void **state)
{
    memory_init(&m);
    view = memory_view(&m);
    return 0;
}

static int teardown(void **state)
{
    check_view(&view);
    memory_release(&m);
    return 0;
}

static uint64_t make(const char *name, uint32_t mode)
{
    uint64_t inode;
    assert_int_equal(op_make(&m, ROOT, name, mode, &inode), 0);
    return inode;
}

static int set(uint64_t inode, const char *name, const char *value, uint32_t flags)
{
    return op_xattr(&m, inode, name, value, value ? strlen(value) : 0, flags);
}

static int drop(uint64_t inode, const char *name)
{
    return set(inode, name, NULL, FS_XATTR_REMOVE);
}

static void assert_value(uint64_t inode, const char *name, const char *expected)
{
    struct buf value = {0};
    assert_int_equal(fs_xattr_get(&view, inode, name, strlen(name), &value), 0);
    assert_int_equal(value.length, strlen(expected));
    if (value.length)
        assert_memory_equal(value.data, expected, value.length);
    buf_release(&value);
}

static void assert_none(uint64_t inode, const char *name)
{
    struct buf value = {0};
    assert_int_equal(fs_xattr_get(&view, inode, name, strlen(name), &value), -ENODATA);
    buf_release(&value);
}

static uint64_t count(void)
{
    return check_count(&view).xattrs;
}

static void test_set_and_remove(void **state)
{
    uint64_t f = make("f", FILE_MODE), g = make("g", FILE_MODE);
    struct fs_inode before, after;
    assert_int_equal(op_stat(&m, f, &before), 0);
    assert_none(f, "user.a");
    assert_int_equal(set(f, "user.a", "one", 0), 0);
    assert_int_equal(op_stat(&m, f, &after), 0);
    assert_true(after.ctime_ns > before.ctime_ns);
    assert_int_equal(after.mtime_ns, before.mtime_ns);
    assert_value(f, "user.a", "one");
    assert_none(g, "user.a");
    assert_int_equal(set(f, "user.a", "a longer value than lies in the keydir", 0), 0);
    assert_value(f, "user.a", "a longer value than lies in the keydir");
    assert_int_equal(set(f, "user.a", "", 0), 0);
    assert_value(f, "user.a", "");
    assert_int_equal(set(f, "user.a", "x", FS_XATTR_CREATE), -EEXIST);
    assert_int_equal(set(f, "user.b", "x", FS_XATTR_REPLACE), -ENODATA);
    assert_int_equal(set(f, "user.b", "new", FS_XATTR_CREATE), 0);
    assert_int_equal(set(f, "user.a", "two", FS_XATTR_REPLACE), 0);
    assert_value(f, "user.a", "two");
    assert_int_equal(count(), 2);
    before = after;
    assert_int_equal(drop(f, "user.a"), 0);
    assert_int_equal(op_stat(&m, f, &after), 0);
    assert_true(after.ctime_ns > before.ctime_ns);
    assert_none(f, "user.a");
    assert_int_equal(drop(f, "user.a"), -ENODATA);
    assert_value(f, "user.b", "new");
}

static void test_list(void **state)
{
    uint64_t f = make("f", FILE_MODE), g = make("g", FILE_MODE);
    struct buf names = {0};
    assert_int_equal(fs_xattr_list(&view, f, &names), 0);
    assert_int_equal(names.length, 0);
    assert_int_equal(set(g, "user.z", "", 0), 0);
    assert_int_equal(set(f, "user.b", "x", 0), 0);
    assert_int_equal(set(f, "trusted.a", "x", 0), 0);
    assert_int_equal(fs_xattr_list(&view, f, &names), 0);
    assert_int_equal(names.length, 17);
    assert_memory_equal(names.data, "trusted.a\0user.b\0", 17);
    buf_release(&names);
}

static void test_names(void **state)
{
    char name[257] = "user.";
    uint64_t f = make("f", FILE_MODE);
    memset(name + 5, 'n', 251);
    struct fs_op op = {.type = FS_XATTR, .inode = f, .name = (const uint8_t *)name};
    struct fs_result result;
    op.name_size = 255;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    op.name_size = 256;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), -EINVAL);
    op.name = (const uint8_t *)"user.a\0b";
    op.name_size = 8;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), -EINVAL);
    assert_int_equal(set(f, "user.", "x", 0), -EINVAL);
    assert_int_equal(set(f, "user", "x", 0), -EOPNOTSUPP);
    assert_int_equal(set(f, "", "x", 0), -EOPNOTSUPP);
    assert_int_equal(set(f, "system.other", "x", 0), -EOPNOTSUPP);
    assert_int_equal(set(f, "my.own", "x", 0), -EOPNOTSUPP);
    assert_int_equal(fs_xattr_get(&view, f, "my.own", 6, NULL), -EOPNOTSUPP);
    assert_int_equal(set(f, "security.x", "x", 0), 0);
    assert_int_equal(set(f, "trusted.x", "x", 0), 0);
    assert_int_equal(set(f, "user.x", "x", FS_OVER), -EINVAL);
    assert_int_equal(set(f, "user.x", "x", FS_XATTR_REMOVE), -EINVAL);
    assert_int_equal(set(f, "user.x", NULL, FS_XATTR_REMOVE | FS_XATTR_CREATE), -EINVAL);
    assert_int_equal(set(999, "user.x", "x", 0), -ENOENT);
}

static void test_kinds(void **state)
{
    uint64_t d = make("d", DIR_MODE), p = make("p", S_IFIFO | 0600), l;
    assert_int_equal(op_symlink(&m, ROOT, "l", "to", &l), 0);
    assert_int_equal(set(d, "user.x", "x", 0), 0);
    assert_int_equal(set(p, "user.x", "x", 0), -EPERM);
    assert_int_equal(set(l, "user.x", "x", 0), -EPERM);
    assert_int_equal(set(p, "trusted.x", "x", 0), 0);
    assert_int_equal(set(l, "trusted.x", "x", 0), 0);
}

static void test_limits(void **state)
{
    uint64_t f = make("f", FILE_MODE);
    uint8_t *value = calloc(1, FS_XATTR_BYTES + 1);
    char name[32];
    assert_int_equal(op_xattr(&m, f, "user.big", value, FS_XATTR_BYTES, 0), 0);
    assert_int_equal(op_xattr(&m, f, "user.big", value, FS_XATTR_BYTES + 1, 0), -E2BIG);
    for (int i = 1; i < FS_XATTRS_MOST; i++) {
        snprintf(name, sizeof(name), "user.%d", i);
        assert_int_equal(set(f, name, "v", 0), 0);
    }
    assert_int_equal(set(f, "user.more", "v", 0), -ENOSPC);
    assert_int_equal(set(f, "user.1", "w", 0), 0); /* one that is there may change */
    assert_int_equal(drop(f, "user.1"), 0);
    assert_int_equal(set(f, "user.more", "v", 0), 0);
    assert_int_equal(op_unlink(&m, ROOT, "f"),
                     0); /* as many as there may be, in one entry */
    assert_int_equal(count(), 0);
    free(value);
}

/* They go with the inode, and not with a name. */
static void test_gone_with_inode(void **state)
{
    uint64_t f = make("f", FILE_MODE), g = make("g", FILE_MODE), d = make("d", DIR_MODE);
    assert_int_equal(set(f, "user.x", "x", 0), 0);
    assert_int_equal(set(g, "user.x", "x", 0), 0);
    assert_int_equal(set(d, "user.x", "x", 0), 0);
    assert_int_equal(op_link(&m, f, ROOT, "h"), 0);
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    assert_value(f, "user.x", "x");
    assert_int_equal(op_rename(&m, ROOT, "g", ROOT, "h", 0), 0);
    assert_none(f, "user.x");
    assert_value(g, "user.x", "x");
    assert_int_equal(op_rmdir(&m, ROOT, "d"), 0);
    assert_int_equal(count(), 1);
}

static void give(uint64_t inode)
{
    assert_int_equal(set(inode, "security.capability", "all", 0), 0);
}

/* Programs that change lose what they were allowed. */
static void test_capability(void **state)
{
    uint64_t f = make("f", FILE_MODE), content = 0;
    struct fs_op op = {.type = FS_SETATTR, .inode = f};
    struct fs_result result;
    assert_int_equal(set(f, "user.kept", "x", 0), 0);
    give(f);
    assert_int_equal(op_write(&m, f, 0, "new", 3), 0);
    assert_none(f, "security.capability");
    give(f);
    assert_int_equal(op_append(&m, f, "new", 3, NULL), 0);
    assert_none(f, "security.capability");
    give(f);
    assert_int_equal(op_truncate(&m, f, 2), 0);
    assert_none(f, "security.capability");
    give(f);
    assert_int_equal(op_replace(&m, f, content, 0, "new", 3, 3), 0);
    assert_none(f, "security.capability");
    give(f);
    op.set = FS_SET_GID;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_none(f, "security.capability");
    give(f);
    op.set = FS_SET_MODE | FS_SET_MTIME_NOW;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_value(f, "security.capability", "all");
    op = (struct fs_op){.type = FS_MAKE,
                        .flags = FS_OVER,
                        .parent = ROOT,
                        .name = (const uint8_t *)"f",
                        .name_size = 1,
                        .mode = FILE_MODE};
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_none(f, "security.capability");
    assert_value(f, "user.kept", "x");
}

/* Each look into the view fails once: nothing of what was put counts (V3). */
static void test_faults(void **state)
{
    uint64_t f = make("f", FILE_MODE);
    give(f);
    for (uint64_t n = 1;; n++) {
        m.calls = 0;
        m.fail_at = n;
        m.fail_error = -EAGAIN;
        int error = op_write(&m, f, 0, "x", 1);
        uint64_t calls = m.calls;
        m.fail_at = 0;
        assert_int_equal(error, n <= calls ? -EAGAIN : 0);
        if (!error)
            break;
        assert_value(f, "security.capability", "all");
    }
    assert_none(f, "security.capability");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_set_and_remove, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_with_inode, setup, teardown),
        cmocka_unit_test_setup_teardown(test_capability, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
