/* test_evaluate.c - each operation's effect on names and attributes, and each errno. */
#include "check.h"
#include "ops.h"

#include <dirent.h>
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

/* Does `op`, and asserts that an error leaves nothing behind. */
static int run(const struct fs_op *op, struct fs_result *ret)
{
    uint64_t sequence = m.sequence;
    struct fs_result result = {~0ull, ~0ull};
    int error = memory_do(&m, op, OPS_SESSION, &result);
    if (error) {
        assert_true(result.value == ~0ull && result.more == ~0ull);
        assert_int_equal(m.sequence, sequence);
    } else if (ret) {
        *ret = result;
    }
    return error;
}

static struct fs_op make_op(const char *name, uint32_t mode)
{
    return (struct fs_op){
        .type = FS_MAKE,
        .parent = ROOT,
        .name = (const uint8_t *)name,
        .name_size = (uint16_t)strlen(name),
        .mode = mode,
    };
}

/* ---- MAKE ---- */

static void test_make_attributes(void **state)
{
    struct fs_op op = make_op("f", S_IFREG | 04640);
    struct fs_result result;
    op.uid = 7;
    op.gid = 8;
    op.set = FS_SET_MTIME;
    op.mtime_ns = -5;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(result.more, 0);
    struct fs_inode f = stat_of(result.value), root = stat_of(ROOT);
    assert_int_equal(f.version, f.inode); /* its number is its record's timestamp */
    assert_int_equal(f.mode, S_IFREG | 04640);
    assert_int_equal(f.uid, 7);
    assert_int_equal(f.gid, 8);
    assert_int_equal(f.nlink, 1);
    assert_int_equal(f.mtime_ns, -5);
    assert_int_equal(f.ctime_ns, m.change.timestamp_us * 1000);
    assert_int_equal(root.mtime_ns, f.ctime_ns);
    assert_int_equal(root.ctime_ns, f.ctime_ns);
    assert_int_equal(root.size, 1);
    assert_int_equal(root.nlink, 2);
    op = make_op("d", DIR_MODE);
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(stat_of(result.value).nlink, 2);
    assert_int_equal(stat_of(result.value).parent, ROOT);
    assert_int_equal(stat_of(ROOT).nlink, 3);
    op = make_op("c", S_IFCHR | 0600);
    op.rdev = 259;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(stat_of(result.value).rdev, 259);
    make(ROOT, "p", S_IFIFO | 0600);
    make(ROOT, "s", S_IFSOCK | 0600);
}

static void test_make_symlink(void **state)
{
    char target[4097];
    uint64_t inode;
    memset(target, 'x', sizeof(target));
    target[4096] = 0;
    assert_int_equal(op_symlink(&m, ROOT, "l", target, &inode), -ENAMETOOLONG);
    target[4095] = 0;
    assert_int_equal(op_symlink(&m, ROOT, "l", target, &inode), 0);
    struct buf scratch = {0};
    struct fs_inode i;
    assert_int_equal(fs_stat(&view, inode, &scratch, &i), 0);
    assert_int_equal(i.size, 4095);
    assert_memory_equal(i.inline_bytes, target, 4095);
    buf_release(&scratch);
    assert_int_equal(op_symlink(&m, ROOT, "e", "", &inode), -EINVAL);
    struct fs_op op = make_op("n", S_IFLNK | 0777);
    op.target = (const uint8_t *)"a\0b";
    op.target_size = 3;
    assert_int_equal(run(&op, NULL), -EINVAL);
    op = make_op("t", FILE_MODE);
    op.target = (const uint8_t *)"a";
    op.target_size = 1;
    assert_int_equal(run(&op, NULL), -EINVAL);
}

static void test_make_setgid(void **state)
{
    struct fs_op op = make_op("g", S_IFDIR | 02755);
    struct fs_result result;
    op.gid = 50;
    assert_int_equal(run(&op, &result), 0);
    uint64_t g = result.value;
    op = make_op("f", FILE_MODE);
    op.parent = g;
    op.gid = 60;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(stat_of(result.value).gid, 50);
    assert_int_equal(stat_of(result.value).mode, FILE_MODE);
    op.name = (const uint8_t *)"d";
    op.mode = DIR_MODE;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(stat_of(result.value).gid, 50);
    assert_int_equal(stat_of(result.value).mode, S_IFDIR | 02755);
}

static void test_make_names(void **state)
{
    char name[257];
    uint64_t inode;
    memset(name, 'n', sizeof(name));
    name[256] = 0;
    assert_int_equal(op_make(&m, ROOT, name, FILE_MODE, &inode), -ENAMETOOLONG);
    name[255] = 0;
    assert_int_equal(op_make(&m, ROOT, name, FILE_MODE, &inode), 0);
    static const char *bad[] = {"", ".", "..", "a/b", "/"};
    for (size_t i = 0; i < array_length(bad); i++)
        assert_int_equal(op_make(&m, ROOT, bad[i], FILE_MODE, &inode), -EINVAL);
    assert_int_equal(op_make(&m, ROOT, "...", FILE_MODE, &inode), 0);
    assert_int_equal(op_make(&m, ROOT, ".a", FILE_MODE, &inode), 0);
    assert_int_equal(op_make(&m, ROOT, "\xff\x01\n", FILE_MODE, &inode), 0);
    struct fs_op op = make_op("a", FILE_MODE);
    op.name = (const uint8_t *)"a\0";
    op.name_size = 2;
    assert_int_equal(run(&op, NULL), -EINVAL);
}

static void test_make_errors(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE), inode;
    make(ROOT, "d", DIR_MODE);
    assert_int_equal(op_make(&m, ROOT, "f", FILE_MODE, &inode), -EEXIST);
    assert_int_equal(op_make(&m, f, "x", FILE_MODE, &inode), -ENOTDIR);
    assert_int_equal(op_make(&m, 999, "x", FILE_MODE, &inode), -ENOENT);
    assert_int_equal(op_make(&m, ROOT, "x", 0644, &inode), -EINVAL);
    assert_int_equal(op_make(&m, ROOT, "x", S_IFMT | 0644, &inode), -EINVAL);
    assert_int_equal(op_make(&m, ROOT, "x", 01000000 | FILE_MODE, &inode), -EINVAL);
    struct fs_op op = make_op("x", DIR_MODE);
    op.size = 1;
    assert_int_equal(run(&op, NULL), -EINVAL);
    op = make_op("x", FILE_MODE);
    op.size = LIMIT_FILE_BYTES + 1;
    assert_int_equal(run(&op, NULL), -EFBIG);
    op.size = 10;
    op.content = 12345;
    assert_int_equal(run(&op, NULL), -ESTALE);
    op = make_op("x", FILE_MODE);
    op.type = 0;
    assert_int_equal(run(&op, NULL), -EPROTO);
    op.type = 63;
    assert_int_equal(run(&op, NULL), -EPROTO);
}

static void test_make_reserved(void **state)
{
    struct fs_op reserve = {.type = FS_RESERVE, .size = 100};
    struct fs_result result;
    uint64_t newest = m.timestamp_us;
    assert_int_equal(run(&reserve, &result), 0);
    assert_true(result.value > newest);
    assert_true(result.value + 99 < m.timestamp_us + 1);
    struct fs_op op = make_op("f", FILE_MODE);
    op.inode = result.value;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(result.value, op.inode);
    op.name = (const uint8_t *)"g";
    assert_int_equal(run(&op, NULL), -EEXIST);
    op.inode = ROOT;
    assert_int_equal(run(&op, NULL), -EINVAL);
    op.inode = m.timestamp_us + 1000;
    assert_int_equal(run(&op, NULL), -EINVAL);
    reserve.size = 0;
    assert_int_equal(run(&reserve, NULL), -EINVAL);
    reserve.size = 65537;
    assert_int_equal(run(&reserve, NULL), -EINVAL);
}

static void test_make_over(void **state)
{
    struct buf ranges = {0};
    struct fs_result result;
    uint8_t got[10];
    size_t length;
    fs_range_add(&ranges, 0, "value", 5);
    struct fs_op op = make_op("f", FILE_MODE);
    op.flags = FS_OVER;
    op.size = 5;
    op.ranges = ranges.data;
    op.ranges_size = (uint32_t)ranges.length;
    assert_int_equal(run(&op, &result), 0); /* new: with its value, at once */
    assert_int_equal(result.more, 0);
    uint64_t f = result.value;
    op.size = 7;
    op.mode = S_IFREG | 0600;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(result.value, f);
    assert_int_equal(result.more, 1);
    assert_int_equal(stat_of(f).mode, FILE_MODE); /* it keeps what it is */
    assert_int_equal(fs_read(&view, f, 0, 10, got, &length), 0);
    assert_int_equal(length, 7);
    assert_memory_equal(got, "value\0\0", 7);
    make(ROOT, "d", DIR_MODE);
    make(ROOT, "p", S_IFIFO | 0600);
    uint64_t l;
    assert_int_equal(op_symlink(&m, ROOT, "l", "f", &l), 0);
    op.name = (const uint8_t *)"d";
    assert_int_equal(run(&op, NULL), -EISDIR);
    op.name = (const uint8_t *)"l";
    assert_int_equal(run(&op, NULL), -ELOOP);
    op.name = (const uint8_t *)"p";
    assert_int_equal(run(&op, NULL), -EEXIST);
    op.name = (const uint8_t *)"f";
    op.size = 4; /* less than the range reaches */
    assert_int_equal(run(&op, NULL), -EINVAL);
    buf_release(&ranges);
}

/* ---- UNLINK, RMDIR ---- */

static void test_remove(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE), f = make(d, "f", FILE_MODE);
    struct fs_inode gone;
    assert_int_equal(op_unlink(&m, ROOT, "d"), -EISDIR);
    assert_int_equal(op_rmdir(&m, ROOT, "d"), -ENOTEMPTY);
    assert_int_equal(op_rmdir(&m, d, "f"), -ENOTDIR);
    assert_int_equal(op_unlink(&m, d, "x"), -ENOENT);
    assert_int_equal(op_rmdir(&m, d, "x"), -ENOENT);
    assert_int_equal(op_unlink(&m, f, "x"), -ENOTDIR);
    assert_int_equal(op_unlink(&m, 999, "x"), -ENOENT);
    assert_int_equal(op_unlink(&m, d, "."), -EINVAL);
    assert_int_equal(op_rmdir(&m, d, ".."), -EINVAL);
    struct fs_op op = {
        .type = FS_UNLINK, .parent = d, .name = (void *)"f", .name_size = 1};
    struct fs_result result;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(result.value, f);
    assert_int_equal(op_stat(&m, f, &gone), -ENOENT);
    assert_int_equal(stat_of(d).size, 0);
    assert_int_equal(stat_of(d).mtime_ns, m.change.timestamp_us * 1000);
    assert_int_equal(op_rmdir(&m, ROOT, "d"), 0);
    assert_int_equal(op_stat(&m, d, &gone), -ENOENT);
    assert_int_equal(stat_of(ROOT).nlink, 2);
    assert_int_equal(op_make(&m, d, "x", FILE_MODE, &d), -ENOENT);
    assert_int_equal(m.count, 1);
}

/* ---- RENAME ---- */

static void test_rename_moves(void **state)
{
    uint64_t a = make(ROOT, "a", DIR_MODE), b = make(ROOT, "b", DIR_MODE);
    uint64_t d = make(a, "d", DIR_MODE), f = make(d, "f", FILE_MODE), found;
    int64_t before = stat_of(d).mtime_ns;
    assert_int_equal(op_rename(&m, a, "d", b, "e", 0), 0);
    int64_t now = (int64_t)m.change.timestamp_us * 1000;
    assert_int_equal(fs_lookup(&view, a, "d", 1, &found), -ENOENT);
    assert_int_equal(fs_lookup(&view, b, "e", 1, &found), 0);
    assert_int_equal(found, d);
    assert_int_equal(stat_of(d).parent, b);
    assert_int_equal(stat_of(d).mtime_ns, before);
    assert_int_equal(stat_of(d).ctime_ns, now);
    assert_int_equal(stat_of(a).nlink, 2);
    assert_int_equal(stat_of(b).nlink, 3);
    assert_int_equal(stat_of(a).mtime_ns, now);
    assert_int_equal(stat_of(b).mtime_ns, now);
    assert_int_equal(op_rename(&m, d, "f", d, "g", 0), 0); /* within one directory */
    assert_int_equal(fs_lookup(&view, d, "g", 1, &found), 0);
    assert_int_equal(found, f);
    assert_int_equal(stat_of(d).size, 1);
}

static void test_rename_over(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE), g = make(ROOT, "g", FILE_MODE), found;
    uint64_t d = make(ROOT, "d", DIR_MODE), e = make(ROOT, "e", DIR_MODE);
    struct fs_op op = {
        .type = FS_RENAME,
        .parent = ROOT,
        .parent2 = ROOT,
        .name = (void *)"f",
        .name_size = 1,
        .name2 = (void *)"g",
        .name2_size = 1,
        .flags = FS_NOREPLACE,
    };
    struct fs_result result;
    assert_int_equal(run(&op, &result), -EEXIST);
    op.flags = FS_APPEND;
    assert_int_equal(run(&op, &result), -EINVAL);
    op.flags = 0;
    assert_int_equal(run(&op, &result), 0);
    assert_int_equal(result.value, f);
    assert_int_equal(result.more, g);
    struct fs_inode gone;
    assert_int_equal(op_stat(&m, g, &gone), -ENOENT);
    assert_int_equal(stat_of(ROOT).size, 3);
    assert_int_equal(op_rename(&m, ROOT, "g", ROOT, "d", 0), -EISDIR);
    assert_int_equal(op_rename(&m, ROOT, "d", ROOT, "g", 0), -ENOTDIR);
    make(e, "x", FILE_MODE);
    assert_int_equal(op_rename(&m, ROOT, "d", ROOT, "e", 0), -ENOTEMPTY);
    assert_int_equal(op_unlink(&m, e, "x"), 0);
    assert_int_equal(op_rename(&m, ROOT, "d", ROOT, "e", 0), 0);
    assert_int_equal(fs_lookup(&view, ROOT, "e", 1, &found), 0);
    assert_int_equal(found, d);
    assert_int_equal(stat_of(ROOT).nlink, 3);
    uint64_t sequence = m.sequence;
    assert_int_equal(op_rename(&m, ROOT, "g", ROOT, "g", 0), 0); /* nothing to do */
    assert_int_equal(m.sequence, sequence);
    assert_int_equal(op_rename(&m, ROOT, "g", ROOT, "g", FS_NOREPLACE), -EEXIST);
}

static void test_rename_errors(void **state)
{
    uint64_t a = make(ROOT, "a", DIR_MODE), b = make(a, "b", DIR_MODE);
    uint64_t c = make(b, "c", DIR_MODE), f = make(c, "f", FILE_MODE);
    assert_int_equal(op_rename(&m, ROOT, "a", a, "x", 0), -EINVAL);
    assert_int_equal(op_rename(&m, ROOT, "a", c, "x", 0), -EINVAL);
    assert_int_equal(op_rename(&m, a, "b", c, "x", 0), -EINVAL);
    assert_int_equal(op_rename(&m, b, "c", ROOT, "a", 0), -ENOTEMPTY);
    assert_int_equal(op_rename(&m, c, "f", ROOT, "a", 0), -EISDIR);
    assert_int_equal(op_rename(&m, ROOT, "x", a, "y", 0), -ENOENT);
    assert_int_equal(op_rename(&m, 999, "x", a, "y", 0), -ENOENT);
    assert_int_equal(op_rename(&m, ROOT, "a", 999, "y", 0), -ENOENT);
    assert_int_equal(op_rename(&m, f, "x", a, "y", 0), -ENOTDIR);
    assert_int_equal(op_rename(&m, ROOT, "a", f, "y", 0), -ENOTDIR);
    assert_int_equal(op_rename(&m, ROOT, "a", ROOT, "..", 0), -EINVAL);
    assert_int_equal(op_rename(&m, ROOT, ".", ROOT, "y", 0), -EINVAL);
    char name[257];
    memset(name, 'n', 256);
    name[256] = 0;
    assert_int_equal(op_rename(&m, ROOT, "a", ROOT, name, 0), -ENAMETOOLONG);
    assert_int_equal(op_rename(&m, c, "f", ROOT, "f", 0), 0);
}

/* ---- SETATTR ---- */

static void test_setattr(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE), d = make(ROOT, "d", DIR_MODE);
    struct fs_op op = {
        .type = FS_SETATTR,
        .inode = f,
        .set = FS_SET_MODE | FS_SET_UID | FS_SET_GID | FS_SET_ATIME | FS_SET_MTIME,
        .mode = S_IFDIR | 0421,
        .uid = 1,
        .gid = 2,
        .atime_ns = 3,
        .mtime_ns = 4,
    };
    assert_int_equal(run(&op, NULL), 0);
    struct fs_inode i = stat_of(f);
    int64_t now = (int64_t)m.change.timestamp_us * 1000;
    assert_int_equal(i.mode, S_IFREG | 0421); /* never the type */
    assert_int_equal(i.uid, 1);
    assert_int_equal(i.gid, 2);
    assert_int_equal(i.atime_ns, 3);
    assert_int_equal(i.mtime_ns, 4);
    assert_int_equal(i.ctime_ns, now);
    op = (struct fs_op){.type = FS_SETATTR, .inode = f};
    uint64_t sequence = m.sequence;
    assert_int_equal(run(&op, NULL), 0);
    assert_int_equal(m.sequence, sequence); /* nothing to do */
    op.set = FS_SET_ATIME_NOW | FS_SET_MTIME_NOW;
    assert_int_equal(run(&op, NULL), 0);
    now = (int64_t)m.change.timestamp_us * 1000;
    assert_int_equal(stat_of(f).atime_ns, now);
    assert_int_equal(stat_of(f).mtime_ns, now);
    op.inode = 999;
    assert_int_equal(run(&op, NULL), -ENOENT);
    assert_int_equal(op_truncate(&m, d, 0), -EISDIR);
    assert_int_equal(op_truncate(&m, f, LIMIT_FILE_BYTES + 1), -EFBIG);
    assert_int_equal(op_truncate(&m, f, LIMIT_FILE_BYTES), 0);
    assert_int_equal(stat_of(f).size, LIMIT_FILE_BYTES);
    assert_int_equal(stat_of(f).content_bytes, 0);
    uint64_t p = make(ROOT, "p", S_IFIFO | 0600);
    assert_int_equal(op_truncate(&m, p, 0), -EINVAL);
}

static uint32_t mode_after(uint64_t f, uint32_t before, uint32_t set, uint32_t mode)
{
    struct fs_op op = {
        .type = FS_SETATTR, .inode = f, .set = FS_SET_MODE, .mode = before};
    assert_int_equal(run(&op, NULL), 0);
    op.set = set;
    op.mode = mode;
    assert_int_equal(run(&op, NULL), 0);
    return stat_of(f).mode & 07777;
}

static void test_no_setid(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    const uint32_t set = FS_SET_NO_SETID;
    assert_int_equal(mode_after(f, 06777, set, 0), 0777);
    assert_int_equal(mode_after(f, 07767, set, 0), 03767);
    assert_int_equal(mode_after(f, 06755, set | FS_SET_MODE, 04700), 04700);
    assert_int_equal(mode_after(f, 06755, FS_SET_MTIME_NOW, 0), 06755);
    struct fs_op op = make_op("f", FILE_MODE); /* made by two hosts */
    op.flags = FS_OVER;
    assert_int_equal(mode_after(f, 06755, 0, 0), 06755);
    assert_int_equal(run(&op, NULL), 0);
    assert_int_equal(stat_of(f).mode & 07777, 06755);
    op.uid = 7;
    assert_int_equal(run(&op, NULL), 0);
    assert_int_equal(stat_of(f).mode & 07777, 0755);
}

/* ---- Looking ---- */

struct list {
    char names[32];
    int stop_after;
};

static int list_name(void *arg, const uint8_t *name, size_t name_size, uint64_t inode,
                     uint8_t type)
{
    struct list *l = arg;
    strncat(l->names, (const char *)name, name_size);
    assert_int_equal(type, name[0] == 'd' ? DT_DIR : DT_REG);
    return --l->stop_after == 0 ? 42 : 0;
}

static void test_list(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE);
    static const char *names[] = {"c", "a", "ab", "d", "b"};
    for (size_t i = 0; i < array_length(names); i++)
        make(d, names[i], names[i][0] == 'd' ? DIR_MODE : FILE_MODE);
    make(ROOT, "e", FILE_MODE);
    struct list l = {0};
    assert_int_equal(fs_list(&view, d, NULL, 0, list_name, &l), 0);
    assert_string_equal(l.names, "aabbcd");
    l = (struct list){0};
    assert_int_equal(fs_list(&view, d, "a", 1, list_name, &l), 0);
    assert_string_equal(l.names, "abbcd");
    l = (struct list){0};
    assert_int_equal(fs_list(&view, d, "aa", 2, list_name, &l),
                     0); /* not there (any more) */
    assert_string_equal(l.names, "abbcd");
    l = (struct list){.stop_after = 2};
    assert_int_equal(fs_list(&view, d, "ab", 2, list_name, &l), 42);
    assert_string_equal(l.names, "bc");
    assert_int_equal(fs_list(&view, d, "d", 1, list_name, &l), 0);
}

static void test_resolve(void **state)
{
    uint64_t d = make(ROOT, "d", DIR_MODE), f = make(d, "f", FILE_MODE), parent, inode;
    uint64_t l;
    const char *name;
    assert_int_equal(op_symlink(&m, ROOT, "l", "d", &l), 0);
    assert_int_equal(fs_resolve(&view, "/d//f", &parent, &name, &inode), 0);
    assert_int_equal(parent, d);
    assert_int_equal(inode, f);
    assert_string_equal(name, "f");
    assert_int_equal(fs_resolve(&view, "d/new", &parent, &name, &inode), 0);
    assert_int_equal(parent, d);
    assert_int_equal(inode, 0);
    assert_string_equal(name, "new");
    assert_int_equal(fs_resolve(&view, "/", &parent, &name, &inode), 0);
    assert_int_equal(inode, ROOT);
    assert_int_equal(fs_resolve(&view, "d/", &parent, &name, &inode), 0);
    assert_int_equal(inode, d);
    assert_int_equal(fs_resolve(&view, "l", &parent, &name, &inode), 0);
    assert_int_equal(inode, l);
    assert_int_equal(fs_resolve(&view, "l/f", &parent, &name, &inode), -ELOOP);
    assert_int_equal(fs_resolve(&view, "d/f/x", &parent, &name, &inode), -ENOTDIR);
    assert_int_equal(fs_resolve(&view, "x/y", &parent, &name, &inode), -ENOENT);
    assert_int_equal(fs_resolve(&view, "d/../d", &parent, &name, &inode), -EINVAL);
    assert_int_equal(fs_resolve(&view, "./d", &parent, &name, &inode), -EINVAL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(make_attributes), TEST(make_symlink),  TEST(make_setgid),   TEST(make_names),
        TEST(make_errors),     TEST(make_reserved), TEST(make_over),     TEST(remove),
        TEST(rename_moves),    TEST(rename_over),   TEST(rename_errors), TEST(setattr),
        TEST(no_setid),        TEST(list),          TEST(resolve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
