/* test_orphans.c - inodes without a name (S8): who may hold them, and when they go. */
#include "check.h"
#include "ops.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum {
    ROOT = FS_ROOT_INODE,
    FILE_MODE = S_IFREG | 0644,
    DIR_MODE = S_IFDIR | 0755,
    A = OPS_SESSION,
    B = OPS_SESSION + 1,
};

static struct memory m;
static struct fs_view view;

static int setup(void **state)
{
    memory_init(&m);
    view = memory_view(&m);
    op_session(&m, A, true);
    op_session(&m, B, true);
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

static bool is_there(uint64_t number)
{
    struct fs_inode inode;
    return op_stat(&m, number, &inode) == 0;
}

static uint64_t removed(const char *name)
{
    uint64_t inode = make(ROOT, name, FILE_MODE);
    assert_int_equal(op_unlink(&m, ROOT, name), 0);
    return inode;
}

static void test_the_last_session_takes_it_away(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    uint64_t before_ns = (uint64_t)stat_of(f).ctime_ns;
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    assert_int_equal(stat_of(f).nlink, 0);
    assert_true((uint64_t)stat_of(f).ctime_ns > before_ns);
    assert_int_equal(check_count(&view).orphans, 1);
    assert_int_equal(op_release(&m, A, &f, 1), 1);
    assert_int_equal(op_release(&m, A, &f, 1), 1);  /* again: nothing to do */
    assert_int_equal(op_release(&m, 99, &f, 1), 1); /* nor for who is not named */
    assert_true(is_there(f));
    assert_int_equal(op_release(&m, B, &f, 1), 1);
    assert_false(is_there(f));
    assert_int_equal(m.count, 3); /* the root and two sessions */
}

static void test_it_is_read_and_written_on(void **state)
{
    char text[16] = "";
    size_t length;
    uint64_t f = removed("f"), content = 0;
    assert_int_equal(op_write(&m, f, 0, "one", 3), 0);
    assert_int_equal(op_append(&m, f, "two", 3, NULL), 0);
    assert_int_equal(fs_read(&view, f, 0, sizeof(text), (uint8_t *)text, &length), 0);
    assert_string_equal(text, "onetwo");
    assert_int_equal(op_truncate(&m, f, 100000), 0);
    assert_int_equal(op_build(&m, &content, 0, "new", 3), 0);
    assert_int_equal(op_replace(&m, f, content, 0, NULL, 0, 50000), 0);
    assert_int_equal(stat_of(f).size, 50000);
    assert_int_equal(stat_of(f).nlink, 0);
}

static void test_it_gets_no_name(void **state)
{
    uint64_t f = removed("f"), d = make(ROOT, "d", DIR_MODE);
    make(ROOT, "g", FILE_MODE);
    assert_int_equal(op_link(&m, f, ROOT, "again"), -ENOENT);
    assert_int_equal(op_rmdir(&m, ROOT, "d"), 0);
    assert_int_equal(stat_of(d).nlink, 0);
    assert_int_equal(stat_of(ROOT).nlink, 2);
    uint64_t inode;
    assert_int_equal(op_make(&m, d, "x", FILE_MODE, &inode), -ENOENT);
    assert_int_equal(op_rename(&m, ROOT, "g", d, "x", 0), -ENOENT);
    assert_int_equal(op_rename(&m, d, "g", ROOT, "x", 0), -ENOENT);
    assert_int_equal(op_unlink(&m, d, "x"), -ENOENT);
}

static void test_renamed_over(void **state)
{
    struct fs_result result;
    uint64_t old = make(ROOT, "old", FILE_MODE), new = make(ROOT, "new", FILE_MODE);
    struct fs_op op = {.type = FS_RENAME,
                       .parent = ROOT,
                       .parent2 = ROOT,
                       .name = (const uint8_t *)"new",
                       .name_size = 3,
                       .name2 = (const uint8_t *)"old",
                       .name2_size = 3};
    assert_int_equal(memory_do(&m, &op, A, &result), 0);
    assert_int_equal(result.value, new);
    assert_int_equal(result.more, old);
    assert_int_equal(stat_of(old).nlink, 0);
    assert_int_equal(stat_of(new).nlink, 1);
}

static void test_one_name_of_two(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    assert_int_equal(op_link(&m, f, ROOT, "g"), 0);
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    assert_int_equal(stat_of(f).nlink, 1);
    assert_int_equal(check_count(&view).orphans, 0);
    assert_int_equal(op_release(&m, A, &f, 1), 1); /* it has a name: nobody is asked */
    assert_true(is_there(f));
}

/* A session that comes later cannot have looked it up. */
static void test_a_later_session_is_not_waited_for(void **state)
{
    uint64_t f = removed("f");
    op_session(&m, 50, true);
    assert_int_equal(op_release(&m, A, &f, 1), 1);
    assert_int_equal(op_release(&m, B, &f, 1), 1);
    assert_false(is_there(f));
}

static void test_without_any_session_it_goes_at_once(void **state)
{
    op_session(&m, A, false);
    op_session(&m, B, false);
    assert_false(is_there(removed("f")));
}

/* ---- Dead sessions ---- */

static void test_the_dead_hold_nothing(void **state)
{
    uint64_t held = removed("f"), left = removed("g");
    assert_int_equal(op_release(&m, A, &left, 1), 1);
    op_session(&m, B, false);
    assert_true(is_there(left)); /* until the leader has looked */
    assert_int_equal(op_reclaim_orphans(&m, ROOT), 0);
    assert_false(is_there(left));
    assert_true(is_there(held));
    uint64_t sequence = m.sequence;
    assert_int_equal(op_reclaim_orphans(&m, ROOT), 0);
    assert_int_equal(m.sequence, sequence); /* nothing to do: no entry */
    assert_int_equal(op_release(&m, A, &held, 1), 1);
    assert_false(is_there(held));
}

static void test_many_go_in_batches(void **state)
{
    enum { MANY = 1500 };
    uint64_t *inodes = calloc(MANY, sizeof(*inodes));
    char name[16];
    unsigned calls = 0;
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        inodes[i] = removed(name);
    }
    op_session(&m, B, false);
    for (uint64_t from = ROOT; from; calls++) {
        uint64_t next = op_reclaim_orphans(&m, from);
        assert_true(next == 0 || next > from);
        from = next;
    }
    assert_true(calls > 1);
    assert_int_equal(check_count(&view).orphans, MANY); /* A may hold them */
    for (size_t i = 0; i < MANY; i += FS_RELEASE_MOST) {
        size_t count = min_u64(FS_RELEASE_MOST, MANY - i);
        assert_int_equal(op_release(&m, A, inodes + i, count), count);
    }
    assert_int_equal(check_count(&view).orphans, 0);
    assert_int_equal(m.count, 2);
    free(inodes);
}

/* ---- Content, and what is not in memory ---- */

static void test_large_content_goes_with_it(void **state)
{
    uint64_t f = make(ROOT, "f", FILE_MODE);
    for (int i = 0; i < 100; i++)
        assert_int_equal(op_write(&m, f, (uint64_t)i * 65536, "x", 1), 0);
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    assert_int_equal(check_count(&view).extents, 100);
    assert_int_equal(op_release(&m, A, &f, 1), 1);
    assert_int_equal(check_count(&view).extents, 100);
    assert_int_equal(op_release(&m, B, &f, 1), 1);
    while (op_reclaim(&m))
        ;
    assert_int_equal(check_count(&view).extents, 0);
}

/* What is on the disk only is waited for; what was seen to before that counts. */
static void test_a_cold_record_ends_the_batch(void **state)
{
    uint64_t inodes[3] = {removed("a"), removed("b"), removed("c")};
    assert_int_equal(op_release(&m, A, inodes, 3), 3);
    m.fail_error = -EAGAIN;
    m.calls = 0;
    m.fail_at = 6; /* two scans and two gets for each: the second inode's record */
    assert_int_equal(op_release(&m, B, inodes, 3), 1);
    assert_false(is_there(inodes[0]));
    assert_true(is_there(inodes[1]));
    m.calls = 0;
    m.fail_at = 2;
    assert_int_equal(op_release(&m, B, inodes + 1, 2), -EAGAIN);
    m.fail_at = 0;
    assert_int_equal(op_release(&m, B, inodes, 3), 3);
    assert_int_equal(m.count, 3);
}

/* It stays, and those behind it go all the same. */
static void test_a_damaged_one_is_passed(void **state)
{
    uint64_t inodes[3] = {removed("a"), removed("b"), removed("c")};
    assert_int_equal(op_release(&m, A, inodes, 3), 3);
    m.fail_error = -EIO;
    m.calls = 0;
    m.fail_at = 2; /* the first inode's record */
    assert_int_equal(op_release(&m, B, inodes, 2), 2);
    assert_true(is_there(inodes[0]));
    assert_false(is_there(inodes[1]));
    op_session(&m, B, false);
    m.calls = 0;
    m.fail_at = 3; /* again, behind two scans */
    assert_int_equal(op_reclaim_orphans(&m, ROOT), 0);
    assert_true(is_there(inodes[0]));
    assert_false(is_there(inodes[2]));
    m.fail_at = 0;
    assert_int_equal(op_reclaim_orphans(&m, ROOT), 0);
    assert_false(is_there(inodes[0]));
}

static void test_codec(void **state)
{
    struct fs_key key;
    uint64_t inode, session, list[] = {5, 9};
    struct buf bytes = {0};
    struct fs_op got,
        op = {.type = FS_RELEASE, .inodes = (uint8_t *)list, .inode_count = 2};
    fs_key_orphan(&key, 0x0102, 7);
    assert_int_equal(key.bytes[0], 'O');
    assert_true(fs_key_is_orphan(key.bytes, key.size, &inode, &session));
    assert_int_equal(inode, 0x0102);
    assert_int_equal(session, 7);
    assert_false(fs_key_is_orphan(key.bytes, 9, &inode, &session));
    fs_op_encode(&op, &bytes);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
    assert_int_equal(got.inode_count, 2);
    assert_memory_equal(got.inodes, list, sizeof(list));
    put_u64(bytes.data + bytes.length - 8, 5); /* twice */
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
    put_u64(bytes.data + bytes.length - 16, 0);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
    buf_clear(&bytes);
    op.inode_count = 0; /* none at all */
    fs_op_encode(&op, &bytes);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
    buf_release(&bytes);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_the_last_session_takes_it_away),
        CASE(test_it_is_read_and_written_on),
        CASE(test_it_gets_no_name),
        CASE(test_renamed_over),
        CASE(test_one_name_of_two),
        CASE(test_a_later_session_is_not_waited_for),
        CASE(test_without_any_session_it_goes_at_once),
        CASE(test_the_dead_hold_nothing),
        CASE(test_many_go_in_batches),
        CASE(test_large_content_goes_with_it),
        CASE(test_a_cold_record_ends_the_batch),
        CASE(test_a_damaged_one_is_passed),
        CASE(test_codec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
