/* test_acl.c - ACLs: which are valid, how they and the mode follow each other, what is handed
 * down. */
#include "check.h"
#include "ops.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { ROOT = FS_ROOT_INODE, FILE_MODE = S_IFREG | 0644, DIR_MODE = S_IFDIR | 0755 };
enum { U = 1, USER = 2, G = 4, GROUP = 8, MASK = 16, O = 32 };

#define ACCESS  "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

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

static uint64_t make(uint64_t parent, const char *name, uint32_t mode)
{
    uint64_t inode;
    assert_int_equal(op_make(&m, parent, name, mode, &inode), 0);
    return inode;
}

static uint32_t mode_of(uint64_t inode)
{
    struct fs_inode found;
    assert_int_equal(op_stat(&m, inode, &found), 0);
    return found.mode;
}

struct entry {
    uint16_t tag, permissions;
    uint32_t id;
};

struct acl {
    size_t size;
    uint8_t bytes[128];
};

static struct acl acl_of(const struct entry *entries, size_t count)
{
    struct acl acl = {.size = 4 + 8 * count};
    put_u32(acl.bytes, 2);
    for (size_t i = 0; i < count; i++) {
        put_u16(acl.bytes + 4 + 8 * i, entries[i].tag);
        put_u16(acl.bytes + 6 + 8 * i, entries[i].permissions);
        put_u32(acl.bytes + 8 + 8 * i, entries[i].id);
    }
    return acl;
}

#define ACL(...)                                                                         \
    acl_of((const struct entry[]){__VA_ARGS__},                                          \
           array_length(((const struct entry[]){__VA_ARGS__})))

static int set(uint64_t inode, const char *name, const struct acl *acl, uint32_t flags)
{
    return op_xattr(&m, inode, name, acl ? acl->bytes : NULL, acl ? acl->size : 0, flags);
}

static void assert_acl(uint64_t inode, const char *name, const struct acl *expected)
{
    struct buf value = {0};
    int error = fs_xattr_get(&view, inode, name, strlen(name), &value);
    assert_int_equal(error, expected ? 0 : -ENODATA);
    assert_int_equal(value.length, expected ? expected->size : 0);
    if (expected)
        assert_memory_equal(value.data, expected->bytes, expected->size);
    buf_release(&value);
}

static int chmod_(uint64_t inode, uint32_t mode)
{
    struct fs_op op = {
        .type = FS_SETATTR, .inode = inode, .set = FS_SET_MODE, .mode = mode};
    struct fs_result result;
    return memory_do(&m, &op, OPS_SESSION, &result);
}

static void test_valid(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    const struct acl good[] = {
        ACL({U, 6, -1}, {G, 4, -1}, {O, 0, -1}),
        ACL({U, 6, -1}, {G, 4, -1}, {MASK, 7, -1}, {O, 0, -1}),
        ACL({U, 6, -1}, {USER, 7, 9}, {USER, 7, 8}, {G, 4, -1}, {GROUP, 1, 7},
            {MASK, 7, -1}, {O, 0, -1}),
    };
    const struct acl bad[] = {
        ACL({U, 6, -1}, {G, 4, -1}),
        ACL({U, 6, -1}, {O, 4, -1}),
        ACL({G, 4, -1}, {O, 4, -1}),
        ACL({U, 8, -1}, {G, 4, -1}, {O, 0, -1}),
        ACL({U, 6, -1}, {U, 6, -1}, {G, 4, -1}, {O, 0, -1}),
        ACL({U, 6, -1}, {USER, 7, 9}, {G, 4, -1}, {O, 0, -1}),
        ACL({U, 6, -1}, {G, 4, -1}, {GROUP, 7, 9}, {O, 0, -1}),
        ACL({U, 6, -1}, {G, 4, -1}, {USER, 7, 9}, {MASK, 7, -1}, {O, 0, -1}),
        ACL({U, 6, -1}, {G, 4, -1}, {O, 0, -1}, {MASK, 7, -1}),
        ACL({U, 6, -1}, {G, 4, -1}, {O, 0, -1}, {64, 7, -1}),
        ACL({0, 6, -1}, {U, 6, -1}, {G, 4, -1}, {O, 0, -1}),
        ACL({U, 6, -1}, {3, 6, -1}, {G, 4, -1}, {O, 0, -1}),
    };
    for (size_t i = 0; i < array_length(good); i++)
        assert_int_equal(set(f, ACCESS, &good[i], 0), 0);
    for (size_t i = 0; i < array_length(bad); i++)
        assert_int_equal(set(f, ACCESS, &bad[i], 0), -EINVAL);
    for (size_t size = 0; size < good[0].size; size++)
        assert_int_equal(op_xattr(&m, f, ACCESS, good[0].bytes, size, 0), -EINVAL);
    struct acl old = good[0];
    put_u32(old.bytes, 1);
    assert_int_equal(set(f, ACCESS, &old, 0), -EINVAL);
    assert_int_equal(set(f, ACCESS, &good[0], FS_XATTR_CREATE), -EINVAL);
    uint8_t *large = calloc(1, 8192);
    put_u32(large, 2);
    assert_int_equal(op_xattr(&m, f, ACCESS, large, 4100, 0), -EINVAL);
    free(large);
}

/* The mode is the ACL's classes, and the ACL follows the mode. */
static void test_mode(void **state)
{
    uint64_t f = make(ROOT, "f", S_IFREG | 02644);
    struct acl acl = ACL({U, 7, -1}, {USER, 6, 9}, {G, 4, -1}, {MASK, 3, -1}, {O, 1, -1});
    assert_int_equal(set(f, ACCESS, &acl, 0), 0);
    assert_acl(f, ACCESS, &acl);
    assert_int_equal(mode_of(f), S_IFREG | 02731);
    assert_int_equal(set(f, ACCESS, &acl, FS_XATTR_NO_SETGID), 0);
    assert_int_equal(mode_of(f), S_IFREG | 0731);
    assert_int_equal(chmod_(f, 04752), 0);
    assert_int_equal(mode_of(f), S_IFREG | 04752);
    acl = ACL({U, 7, -1}, {USER, 6, 9}, {G, 4, -1}, {MASK, 5, -1}, {O, 2, -1});
    assert_acl(f, ACCESS, &acl);
    uint64_t records = check_count(&view).xattrs;
    struct acl plain = ACL({U, 6, -1}, {G, 4, -1}, {O, 0, -1});
    assert_int_equal(set(f, ACCESS, &plain, 0), 0); /* says no more than the mode */
    assert_acl(f, ACCESS, NULL);
    assert_int_equal(check_count(&view).xattrs, records - 1);
    assert_int_equal(mode_of(f), S_IFREG | 04640);
    assert_int_equal(set(f, ACCESS, &plain, 0), 0);
    assert_int_equal(set(f, ACCESS, NULL, FS_XATTR_REMOVE), 0);
    assert_int_equal(set(f, ACCESS, &acl, 0), 0);
    assert_int_equal(set(f, ACCESS, NULL, FS_XATTR_REMOVE), 0);
    assert_acl(f, ACCESS, NULL);
    assert_int_equal(mode_of(f), S_IFREG | 04752); /* as ext4 leaves it */
}

/* chmod that travels with a write, or with a new value. */
static void test_mode_with_a_write(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    struct acl acl = ACL({U, 7, -1}, {USER, 6, 9}, {G, 4, -1}, {MASK, 3, -1}, {O, 1, -1});
    struct buf ranges = {0};
    struct fs_result result;
    fs_range_add(&ranges, 0, "x", 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(set(f, ACCESS, &acl, 0), 0);
        struct fs_op op = {.type = i == 0   ? FS_WRITE
                                   : i == 1 ? FS_REPLACE
                                            : FS_MAKE,
                           .flags = i == 2 ? FS_OVER : 0,
                           .inode = i < 2 ? f : 0,
                           .parent = ROOT,
                           .name = (const uint8_t *)"f",
                           .name_size = 1,
                           .set = FS_SET_MODE,
                           .mode = S_IFREG | 0765,
                           .size = 1,
                           .ranges = ranges.data,
                           .ranges_size = (uint32_t)ranges.length};
        assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
        struct acl after =
            ACL({U, 7, -1}, {USER, 6, 9}, {G, 4, -1}, {MASK, 6, -1}, {O, 5, -1});
        assert_acl(f, ACCESS, &after);
        assert_int_equal(mode_of(f), S_IFREG | 0765);
    }
    buf_release(&ranges);
}

static void test_kinds(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE), p = make(ROOT, "p", S_IFIFO | 0600), l;
    uint64_t d = make(ROOT, "d", DIR_MODE);
    struct acl acl = ACL({U, 7, -1}, {USER, 6, 9}, {G, 4, -1}, {MASK, 3, -1}, {O, 1, -1});
    assert_int_equal(op_symlink(&m, ROOT, "l", "to", &l), 0);
    assert_int_equal(set(l, ACCESS, &acl, 0), -EOPNOTSUPP);
    assert_int_equal(set(f, DEFAULT, &acl, 0), -EACCES);
    assert_int_equal(set(p, ACCESS, &acl, 0), 0);
    assert_int_equal(set(d, DEFAULT, &acl, 0), 0);
    assert_int_equal(mode_of(d), DIR_MODE);
    assert_acl(d, DEFAULT, &acl);
    assert_acl(d, ACCESS, NULL);
    assert_int_equal(set(d, DEFAULT, NULL, FS_XATTR_REMOVE), 0);
    assert_int_equal(set(d, DEFAULT, NULL, FS_XATTR_REMOVE), 0);
    assert_int_equal(set(999, ACCESS, &acl, 0), -ENOENT);
}

static uint64_t make_masked(uint64_t parent, const char *name, uint32_t mode,
                            uint32_t umask)
{
    struct fs_op op = {.type = FS_MAKE,
                       .flags = FS_UMASK,
                       .parent = parent,
                       .name = (const uint8_t *)name,
                       .name_size = (uint16_t)strlen(name),
                       .mode = mode,
                       .umask = umask};
    struct fs_result result;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    return result.value;
}

static void test_umask(void **state)
{
    uint64_t f = make_masked(ROOT, "f", S_IFREG | 04777, 027);
    assert_int_equal(mode_of(f), S_IFREG | 04750);
    assert_int_equal(mode_of(make_masked(ROOT, "d", S_IFDIR | 0777, 077)),
                     S_IFDIR | 0700);
    assert_int_equal(mode_of(make(ROOT, "g", S_IFREG | 0777)), S_IFREG | 0777);
}

/* A default ACL stands in for the umask. */
static void test_inherited(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE), l;
    struct acl given =
        ACL({U, 7, -1}, {USER, 6, 9}, {G, 5, -1}, {MASK, 6, -1}, {O, 4, -1});
    assert_int_equal(set(d, DEFAULT, &given, 0), 0);
    uint64_t f = make_masked(d, "f", S_IFREG | 0646, 077);
    struct acl access =
        ACL({U, 6, -1}, {USER, 6, 9}, {G, 5, -1}, {MASK, 4, -1}, {O, 4, -1});
    assert_acl(f, ACCESS, &access);
    assert_acl(f, DEFAULT, NULL);
    assert_int_equal(mode_of(f), S_IFREG | 0644);
    uint64_t e = make_masked(d, "e", S_IFDIR | 0777, 077);
    access = ACL({U, 7, -1}, {USER, 6, 9}, {G, 5, -1}, {MASK, 6, -1}, {O, 4, -1});
    assert_acl(e, ACCESS, &access);
    assert_acl(e, DEFAULT, &given);
    assert_int_equal(mode_of(e), S_IFDIR | 0764);
    assert_int_equal(op_symlink(&m, d, "l", "to", &l), 0);
    assert_int_equal(mode_of(l), S_IFLNK | 0777);
    assert_acl(l, ACCESS, NULL);
}

static void test_inherited_plain(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE);
    struct acl given = ACL({U, 7, -1}, {G, 5, -1}, {O, 1, -1});
    assert_int_equal(set(d, DEFAULT, &given, 0), 0);
    uint64_t f = make_masked(d, "f", S_IFREG | 0666, 0777);
    assert_int_equal(mode_of(f), S_IFREG | 0640);
    assert_acl(f, ACCESS, NULL); /* its mode says it all */
    uint64_t e = make_masked(d, "e", S_IFDIR | 0777, 0777);
    assert_int_equal(mode_of(e), S_IFDIR | 0751);
    assert_acl(e, ACCESS, NULL);
    assert_acl(e, DEFAULT, &given);
    assert_int_equal(op_unlink(&m, d, "f"), 0);
    assert_int_equal(op_rmdir(&m, d, "e"), 0);
    assert_int_equal(check_count(&view).xattrs, 1);
}

/* ACLs count among an inode's attributes. */
static void test_room(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE);
    struct acl acl = ACL({U, 7, -1}, {USER, 6, 9}, {G, 4, -1}, {MASK, 3, -1}, {O, 1, -1});
    struct acl plain = ACL({U, 6, -1}, {G, 4, -1}, {O, 0, -1});
    char name[32];
    for (int i = 0; i < FS_XATTRS_MOST; i++) {
        snprintf(name, sizeof(name), "user.%d", i);
        assert_int_equal(op_xattr(&m, d, name, "v", 1, 0), 0);
    }
    assert_int_equal(set(d, ACCESS, &acl, 0), -ENOSPC);
    assert_int_equal(set(d, DEFAULT, &acl, 0), -ENOSPC);
    assert_int_equal(mode_of(d), DIR_MODE);
    assert_int_equal(set(d, ACCESS, &plain, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_valid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mode_with_a_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_umask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inherited, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inherited_plain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
