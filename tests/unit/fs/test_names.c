/* test_names.c - files of several names: LINK, and what the other operations make of it. */
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

static uint64_t make(uint64_t parent, const char *name, uint32_t mode)
{
    uint64_t inode;
    assert_int_equal(op_make(&m, parent, name, mode, &inode), 0);
    return inode;
}

static struct fs_inode stat_of(uint64_t number)
{
    struct fs_inode inode;
    assert_int_equal(op_stat(&m, number, &inode), 0);
    return inode;
}

static uint64_t lookup(uint64_t parent, const char *name)
{
    uint64_t inode;
    int error = fs_lookup(&view, parent, name, strlen(name), &inode);
    assert_true(error == 0 || error == -ENOENT);
    return error ? 0 : inode;
}

static struct fs_result run(enum fs_op_type type, const char *name, const char *name2)
{
    struct fs_op op = {
        .type = type,
        .parent = ROOT,
        .parent2 = name2 ? ROOT : 0,
        .name = (const uint8_t *)name,
        .name_size = (uint16_t)strlen(name),
        .name2 = (const uint8_t *)name2,
        .name2_size = (uint16_t)(name2 ? strlen(name2) : 0),
    };
    struct fs_result result;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    return result;
}

/* ---- LINK ---- */

static void test_link(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE), f = make(ROOT, "f", FILE_MODE);
    struct fs_inode before = stat_of(f);
    assert_int_equal(op_link(&m, f, d, "g"), 0);
    int64_t now = (int64_t)m.change.timestamp_us * 1000;
    struct fs_inode after = stat_of(f);
    assert_int_equal(lookup(d, "g"), f);
    assert_int_equal(lookup(ROOT, "f"), f);
    assert_int_equal(after.nlink, 2);
    assert_int_equal(after.ctime_ns, now);
    assert_int_equal(after.mtime_ns, before.mtime_ns);
    assert_int_equal(stat_of(d).size, 1);
    assert_int_equal(stat_of(d).nlink, 2);
    assert_int_equal(stat_of(d).mtime_ns, now);
    assert_int_equal(op_write(&m, f, 0, "one file", 8), 0);
    assert_int_equal(stat_of(lookup(d, "g")).size, 8);
    assert_int_equal(stat_of(f).nlink, 2); /* a write leaves it alone */
}

static void test_link_kinds(void **state)
{
    uint64_t l, p = make(ROOT, "p", S_IFIFO | 0600);
    assert_int_equal(op_symlink(&m, ROOT, "l", "target", &l), 0);
    assert_int_equal(op_link(&m, p, ROOT, "q"), 0);
    assert_int_equal(op_link(&m, l, ROOT, "k"), 0);
    assert_int_equal(stat_of(lookup(ROOT, "q")).mode, S_IFIFO | 0600);
    assert_int_equal(stat_of(lookup(ROOT, "k")).nlink, 2);
}

static void test_link_errors(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE), f = make(ROOT, "f", FILE_MODE);
    uint64_t sequence = m.sequence;
    char name[257];
    memset(name, 'n', 256);
    name[256] = 0;
    assert_int_equal(op_link(&m, f, ROOT, "d"), -EEXIST);
    assert_int_equal(op_link(&m, f, ROOT, "f"), -EEXIST);
    assert_int_equal(op_link(&m, d, ROOT, "e"), -EPERM);
    assert_int_equal(op_link(&m, d, ROOT, "f"), -EEXIST);
    assert_int_equal(op_link(&m, 999, ROOT, "e"), -ENOENT);
    assert_int_equal(op_link(&m, 0, ROOT, "e"), -ENOENT);
    assert_int_equal(op_link(&m, f, 999, "e"), -ENOENT);
    assert_int_equal(op_link(&m, f, f, "e"), -ENOTDIR);
    assert_int_equal(op_link(&m, f, ROOT, ".."), -EINVAL);
    assert_int_equal(op_link(&m, f, ROOT, ""), -EINVAL);
    assert_int_equal(op_link(&m, f, ROOT, name), -ENAMETOOLONG);
    struct fs_op op = {.type = FS_LINK,
                       .flags = FS_OVER,
                       .inode = f,
                       .parent = ROOT,
                       .name = (const uint8_t *)"e",
                       .name_size = 1};
    struct fs_result result;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), -EINVAL);
    assert_int_equal(m.sequence, sequence);
}

static void test_link_limit(void **state)
{
    char name[16];
    uint64_t f = make(ROOT, "f", FILE_MODE);
    for (int i = 1; i < FS_LINKS_MOST; i++) {
        snprintf(name, sizeof(name), "g%d", i);
        assert_int_equal(op_link(&m, f, ROOT, name), 0);
    }
    assert_int_equal(stat_of(f).nlink, FS_LINKS_MOST);
    assert_int_equal(op_link(&m, f, ROOT, "more"), -EMLINK);
    assert_int_equal(op_unlink(&m, ROOT, "g1"), 0);
    assert_int_equal(op_link(&m, f, ROOT, "more"), 0);
}

/* ---- Removing and renaming one of several names ---- */

static void test_unlink_one_of_two(void **state)
{
    uint8_t *data = calloc(1, 100000), back[8];
    size_t length;
    uint64_t f = make(ROOT, "f", FILE_MODE);
    memcpy(data + 99992, "the end", 8);
    assert_int_equal(op_write(&m, f, 0, data, 100000), 0);
    assert_int_equal(op_link(&m, f, ROOT, "g"), 0);
    struct fs_result result = run(FS_UNLINK, "f", NULL);
    assert_int_equal(result.value, f);
    assert_int_equal(result.more, 1);
    assert_int_equal(lookup(ROOT, "f"), 0);
    assert_int_equal(stat_of(f).nlink, 1);
    assert_int_equal(stat_of(f).ctime_ns, m.change.timestamp_us * 1000);
    assert_false(op_reclaim(&m));
    assert_int_equal(fs_read(&view, f, 99992, 8, back, &length), 0);
    assert_memory_equal(back, "the end", 8);
    result = run(FS_UNLINK, "g", NULL);
    assert_int_equal(result.value, f);
    assert_int_equal(result.more, 0);
    struct fs_inode gone;
    assert_int_equal(op_stat(&m, f, &gone), -ENOENT);
    while (op_reclaim(&m))
        ;
    assert_int_equal(m.count, 1);
    free(data);
}

static void test_rename_over_one_of_two(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE), g = make(ROOT, "g", FILE_MODE);
    assert_int_equal(op_link(&m, f, ROOT, "h"), 0);
    struct fs_result result = run(FS_RENAME, "g", "f");
    assert_int_equal(result.value, g);
    assert_int_equal(result.more, 0); /* h is left */
    assert_int_equal(lookup(ROOT, "f"), g);
    assert_int_equal(lookup(ROOT, "h"), f);
    assert_int_equal(stat_of(f).nlink, 1);
    result = run(FS_RENAME, "f", "h");
    assert_int_equal(result.more, f);
    assert_int_equal(stat_of(ROOT).size, 1);
}

/* POSIX: two names of one file are left as they are. */
static void test_rename_to_its_other_name(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    assert_int_equal(op_link(&m, f, ROOT, "g"), 0);
    uint64_t sequence = m.sequence;
    run(FS_RENAME, "f", "g");
    assert_int_equal(m.sequence, sequence);
    assert_int_equal(stat_of(f).nlink, 2);
    assert_int_equal(op_rename(&m, ROOT, "f", ROOT, "g", FS_NOREPLACE), -EEXIST);
}

static void test_replace_all_names_see(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    assert_int_equal(op_link(&m, f, ROOT, "g"), 0);
    assert_int_equal(op_replace(&m, f, 0, 0, "new", 3, 3), 0);
    assert_int_equal(stat_of(lookup(ROOT, "g")).size, 3);
    assert_int_equal(stat_of(f).nlink, 2);
}

/* ---- RENAME with EXCHANGE ---- */

static int swap(uint64_t parent, const char *name, uint64_t parent2, const char *name2)
{
    return op_rename(&m, parent, name, parent2, name2, FS_EXCHANGE);
}

static void test_exchange(void **state)
{
    uint64_t a = make(ROOT, "a", DIR_MODE), b = make(a, "b", DIR_MODE);
    uint64_t d = make(b, "d", DIR_MODE), f = make(ROOT, "f", FILE_MODE);
    make(d, "x", FILE_MODE);
    int64_t before = stat_of(d).mtime_ns;
    assert_int_equal(swap(b, "d", ROOT, "f"), 0);
    int64_t now = (int64_t)m.change.timestamp_us * 1000;
    assert_int_equal(lookup(ROOT, "f"), d);
    assert_int_equal(lookup(b, "d"), f);
    assert_int_equal(stat_of(d).parent, ROOT);
    assert_int_equal(stat_of(d).mtime_ns, before);
    assert_int_equal(stat_of(d).ctime_ns, now);
    assert_int_equal(stat_of(f).ctime_ns, now);
    assert_int_equal(stat_of(b).nlink, 2);
    assert_int_equal(stat_of(ROOT).nlink, 4);
    assert_int_equal(stat_of(b).mtime_ns, now);
    assert_int_equal(stat_of(ROOT).mtime_ns, now);
    check_view(&view);
    assert_int_equal(swap(ROOT, "f", ROOT, "a"), 0); /* two directories of one */
    assert_int_equal(lookup(ROOT, "f"), a);
    assert_int_equal(lookup(ROOT, "a"), d);
    struct fs_result result;
    struct fs_op op = {.type = FS_RENAME,
                       .flags = FS_EXCHANGE,
                       .parent = ROOT,
                       .parent2 = b,
                       .name = (const uint8_t *)"a",
                       .name_size = 1,
                       .name2 = (const uint8_t *)"d",
                       .name2_size = 1};
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(result.value, d);
    assert_int_equal(result.more, 0); /* nothing went */
}

static void test_exchange_errors(void **state)
{
    uint64_t a = make(ROOT, "a", DIR_MODE), b = make(a, "b", DIR_MODE);
    uint64_t f = make(b, "f", FILE_MODE);
    assert_int_equal(op_link(&m, f, ROOT, "g"), 0);
    uint64_t sequence = m.sequence;
    assert_int_equal(swap(ROOT, "a", b, "f"), -EINVAL);
    assert_int_equal(swap(b, "f", ROOT, "a"), -EINVAL);
    assert_int_equal(swap(a, "b", ROOT, "a"), -EINVAL);
    assert_int_equal(swap(ROOT, "a", a, "b"), -EINVAL);
    assert_int_equal(swap(ROOT, "a", ROOT, "x"), -ENOENT);
    assert_int_equal(swap(ROOT, "x", ROOT, "a"), -ENOENT);
    assert_int_equal(op_rename(&m, ROOT, "a", ROOT, "g", FS_EXCHANGE | FS_NOREPLACE),
                     -EINVAL);
    assert_int_equal(swap(ROOT, "g", b, "f"), 0); /* one file: nothing to do */
    assert_int_equal(swap(ROOT, "a", ROOT, "a"), 0);
    assert_int_equal(m.sequence, sequence);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(link),
        TEST(link_kinds),
        TEST(link_errors),
        TEST(link_limit),
        TEST(unlink_one_of_two),
        TEST(rename_over_one_of_two),
        TEST(rename_to_its_other_name),
        TEST(replace_all_names_see),
        TEST(exchange),
        TEST(exchange_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
