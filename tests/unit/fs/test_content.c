/* test_content.c - what files hold: how much is emitted, content in progress, what is
 * left over, errors of the view, and readers while entries are applied. */
#include "check.h"
#include "ops.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { ROOT = FS_ROOT_INODE, FILE_MODE = S_IFREG | 0644, BIG = 3 << 20 };

static struct memory m;
static struct fs_view view;
static uint64_t file;
static uint8_t *data; /* BIG bytes, none of them zero */

static int setup(void **state)
{
    memory_init(&m);
    view = memory_view(&m);
    data = malloc(BIG);
    uint64_t random = 99;
    for (size_t i = 0; i < BIG; i++)
        data[i] = (uint8_t)(1 + random_next(&random) % 255);
    return op_make(&m, ROOT, "f", FILE_MODE, &file);
}

static int teardown(void **state)
{
    check_view(&view);
    memory_release(&m);
    free(data);
    return 0;
}

static void assert_content(uint64_t inode, const uint8_t *expected, size_t size)
{
    uint8_t *got = malloc(size + 1);
    size_t length;
    assert_int_equal(fs_read(&view, inode, 0, size + 1, got, &length), 0);
    assert_int_equal(length, size);
    assert_memory_equal(got, expected, size);
    free(got);
}

static struct fs_inode stat_of(uint64_t number)
{
    struct fs_inode inode;
    assert_int_equal(op_stat(&m, number, &inode), 0);
    return inode;
}

/* ---- How much is emitted ---- */

static uint64_t emitted;

/* Counts as a store would: keys, values, 20 bytes a record and 97 an entry. */
static int counted_write(uint64_t offset, const uint8_t *bytes, size_t length,
                         bool append)
{
    struct buf ranges = {0};
    struct fs_result result;
    fs_range_add(&ranges, offset, bytes, length);
    struct fs_op op = {
        .type = FS_WRITE,
        .inode = file,
        .flags = append ? FS_APPEND : 0,
        .ranges = ranges.data,
        .ranges_size = (uint32_t)ranges.length,
    };
    struct fs_change *change = memory_begin(&m, OPS_SESSION, 0);
    int error = fs_evaluate(&view, &op, change, &result);
    emitted = m.pending_bytes + 20 * m.pending_count + 97;
    memory_commit(&m);
    buf_release(&ranges);
    return error;
}

static void test_small_appends(void **state)
{
    uint64_t all = 0, most = 0;
    size_t size = 0;
    for (; size + 100 <= 256 * KiB; size += 100) {
        assert_int_equal(counted_write(0, data + size, 100, true), 0);
        all += emitted;
        most = max_u64(most, emitted);
    }
    assert_content(file, data, size);
    /* The grain at the end, each time: 2 KiB in the mean, one of 4 and a part at most. */
    assert_true(all / (size / 100) < 2600);
    assert_true(most < 4096 + 100 + 512);
    assert_int_equal(check_count(&view).extents, (size + 4095) / 4096);
}

static void test_large_appends(void **state)
{
    uint64_t all = 0;
    size_t size = 0;
    for (; size + 100000 <= BIG; size += 100000) {
        assert_int_equal(counted_write(0, data + size, 100000, true), 0);
        all += emitted;
    }
    assert_content(file, data, size);
    assert_true(all < size * 11 / 10);
}

/* In any order, a grain is emitted in vain at most four times: for 64, 32, 16, 8 KiB. */
static void check_overwrites(const size_t *order, size_t count, uint64_t limit)
{
    uint64_t all = 0;
    uint8_t *expected = malloc(1 << 20);
    assert_int_equal(op_replace(&m, file, 0, 0, data, 1 << 20, 1 << 20), 0);
    memcpy(expected, data, 1 << 20);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = data + (1 << 20) + (i % 256) * 4096;
        assert_int_equal(counted_write(order[i], from, 4096, false), 0);
        memcpy(expected + order[i], from, 4096);
        all += emitted;
        assert_true(emitted < 2 * 65536 + 4096);
    }
    assert_true(all < limit);
    assert_content(file, expected, 1 << 20);
    free(expected);
}

static void test_overwrites(void **state)
{
    size_t order[1024];
    uint64_t random = 5, written = 256 * 4096;
    for (size_t i = 0; i < 256; i++)
        order[i] = i * 4096;
    check_overwrites(order, 256, written * 7 / 2); /* in sequence */
    for (size_t i = 255; i > 0; i--) {
        size_t other = random_next(&random) % (i + 1), swap = order[i];
        order[i] = order[other];
        order[other] = swap;
    }
    check_overwrites(order, 256, written * 7 / 2); /* each once, in any order */
    for (size_t i = 0; i < 1024; i++)
        order[i] = random_next(&random) % 256 * 4096;
    check_overwrites(order, 1024, 4 * written * 7 / 4);
    for (size_t i = 0; i < 1024; i++) /* across grains */
        order[i] = random_next(&random) % ((1 << 20) - 4096);
    check_overwrites(order, 1024, 4 * written * 7 / 2);
}

/* What is left of one extent is a few, not sixteen. */
static void test_cut_into_few(void **state)
{
    assert_int_equal(op_replace(&m, file, 0, 0, data, 65536, 65536), 0);
    assert_int_equal(check_count(&view).extents, 1);
    assert_int_equal(op_write(&m, file, 4096, data, 4096), 0);
    assert_int_equal(check_count(&view).extents, 5); /* of 1, 1, 2, 4, 8 grains */
    assert_int_equal(op_write(&m, file, 0, data, 65536), 0);
    assert_int_equal(check_count(&view).extents, 1);
}

static void test_largest_operation(void **state)
{
    struct buf ranges = {0};
    struct fs_result result;
    assert_int_equal(op_replace(&m, file, 0, 0, data, BIG, BIG), 0);
    /* One byte into each slot: all of them are emitted whole. */
    for (uint64_t i = 0; i < 48; i++)
        fs_range_add(&ranges, i * 65536 + 30000, "x", 1);
    struct fs_op op = {.type = FS_WRITE, .inode = file};
    op.ranges = ranges.data;
    op.ranges_size = (uint32_t)ranges.length;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    for (uint64_t i = 0; i < 48; i++)
        data[i * 65536 + 30000] = 'x';
    assert_content(file, data, BIG);
    for (uint64_t i = 48; i <= FS_OP_SLOTS; i++)
        fs_range_add(&ranges, i * 65536 + 30000, "x", 1);
    op.ranges = ranges.data;
    op.ranges_size = (uint32_t)ranges.length;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), -E2BIG);
    buf_release(&ranges);
}

/* ---- Sizes, holes ---- */

static void test_inline_becomes_extents(void **state)
{
    uint8_t expected[70001] = {0};
    assert_int_equal(op_write(&m, file, 10, data, 4086), 0);
    memcpy(expected + 10, data, 4086);
    assert_int_equal(stat_of(file).kind, FS_CONTENT_INLINE);
    assert_content(file, expected, 4096);
    assert_int_equal(op_write(&m, file, 70000, "x", 1), 0);
    expected[70000] = 'x';
    assert_int_equal(stat_of(file).kind, FS_CONTENT_EXTENTS);
    assert_int_equal(stat_of(file).content_bytes, 4096 + 70000 % 4096 + 1);
    assert_content(file, expected, 70001);
    assert_int_equal(op_truncate(&m, file, 5), 0);
    assert_int_equal(stat_of(file).kind, FS_CONTENT_EXTENTS);
    assert_int_equal(op_truncate(&m, file, 0), 0);
    assert_int_equal(stat_of(file).kind, FS_CONTENT_INLINE);
    assert_int_equal(m.count, 3); /* the root, a name, an inode */
    assert_int_equal(op_truncate(&m, file, 5000), 0);
    memset(expected, 0, 5000);
    assert_content(file, expected, 5000);
}

static void test_file_limits(void **state)
{
    uint64_t end, directory, content = 0;
    assert_int_equal(op_write(&m, file, LIMIT_FILE_BYTES - 3, "abc", 3), 0);
    assert_int_equal(op_write(&m, file, LIMIT_FILE_BYTES - 2, "abc", 3), -EFBIG);
    assert_int_equal(op_append(&m, file, "a", 1, &end), -EFBIG);
    assert_int_equal(op_build(&m, &content, LIMIT_FILE_BYTES, "a", 1), -EFBIG);
    assert_int_equal(op_replace(&m, file, 0, 0, NULL, 0, LIMIT_FILE_BYTES + 1), -EFBIG);
    assert_int_equal(op_replace(&m, file, 0, 0, "abc", 3, 2), -EINVAL);
    assert_int_equal(op_make(&m, ROOT, "d", S_IFDIR | 0755, &directory), 0);
    assert_int_equal(op_write(&m, directory, 0, "a", 1), -EISDIR);
    assert_int_equal(op_replace(&m, directory, 0, 0, "a", 1, 1), -EISDIR);
    assert_int_equal(op_write(&m, 999, 0, "a", 1), -ENOENT);
    assert_int_equal(op_replace(&m, 999, 0, 0, "a", 1, 1), -ENOENT);
    uint64_t link;
    assert_int_equal(op_symlink(&m, ROOT, "l", "x", &link), 0);
    assert_int_equal(op_write(&m, link, 0, "a", 1), -EINVAL);
    struct fs_op op = {.type = FS_WRITE, .inode = file, .set = FS_SET_SIZE};
    struct fs_result result;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), -EINVAL);
    op = (struct fs_op){.type = FS_WRITE, .inode = file};
    uint64_t sequence = m.sequence;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(m.sequence, sequence);
    uint8_t byte;
    size_t length;
    assert_int_equal(fs_read(&view, directory, 0, 1, &byte, &length), -EISDIR);
    assert_int_equal(fs_read(&view, link, 0, 1, &byte, &length), -EINVAL);
    assert_int_equal(fs_read(&view, 999, 0, 1, &byte, &length), -ENOENT);
}

static void test_write_attributes(void **state)
{
    struct buf ranges = {0};
    struct fs_result result;
    fs_range_add(&ranges, 100, "abc", 3);
    struct fs_op op = {
        .type = FS_WRITE,
        .inode = file,
        .set = FS_SET_MTIME,
        .mtime_ns = 77,
        .ranges = ranges.data,
        .ranges_size = (uint32_t)ranges.length,
    };
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(result.value, 103);
    assert_int_equal(stat_of(file).mtime_ns, 77);
    assert_int_equal(stat_of(file).ctime_ns, m.change.timestamp_us * 1000);
    op.set = 0;
    op.flags = FS_APPEND;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(result.value, 106);
    assert_int_equal(stat_of(file).mtime_ns, m.change.timestamp_us * 1000);
    fs_range_add(&ranges, 200, "abc", 3); /* two ranges have no one end */
    op.ranges = ranges.data;
    op.ranges_size = (uint32_t)ranges.length;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), -EINVAL);
    buf_release(&ranges);
}

/* M23: the times that the writer was shown, while they can be right. */
static void test_times_of_the_writer(void **state)
{
    const int64_t second = 1000000000;
    struct buf ranges = {0};
    struct fs_result result;
    fs_range_add(&ranges, 100, "abc", 3);
    struct fs_op op = {
        .type = FS_WRITE,
        .inode = file,
        .set = FS_SET_WRITTEN,
        .ranges = ranges.data,
        .ranges_size = (uint32_t)ranges.length,
    };
    int64_t now = (int64_t)m.change.timestamp_us * 1000, ctime = stat_of(file).ctime_ns;
    op.written_ns = op.changed_ns = now + 59 * second;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(stat_of(file).mtime_ns, op.written_ns);
    assert_int_equal(stat_of(file).ctime_ns, op.written_ns);
    ctime = op.written_ns;
    op.written_ns = op.changed_ns = now; /* never back */
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(stat_of(file).mtime_ns, ctime + 1);
    assert_int_equal(stat_of(file).ctime_ns, ctime + 1);
    op.set = FS_SET_MODE; /* whose time is the entry's, which is less */
    op.type = FS_SETATTR;
    op.mode = 0600;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(stat_of(file).mtime_ns, ctime + 1);
    assert_int_equal(stat_of(file).ctime_ns, ctime + 2);
    op.type = FS_WRITE;
    op.set = FS_SET_WRITTEN | FS_SET_MTIME; /* set by hand before it was committed */
    op.mtime_ns = 77;
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_int_equal(stat_of(file).mtime_ns, 77);
    assert_int_equal(stat_of(file).ctime_ns, ctime + 3);
    buf_release(&ranges);
}

static void test_times_of_a_wrong_clock(void **state)
{
    const int64_t second = 1000000000, off[] = {-24 * 3600 - 1, 62, 1000000000};
    struct fs_result result;
    for (size_t i = 0; i < array_length(off); i++) {
        char name[] = {'a', (char)('0' + i)};
        int64_t now = (int64_t)m.change.timestamp_us * 1000;
        struct fs_op op = {.type = FS_MAKE,
                           .set = FS_SET_WRITTEN,
                           .parent = FS_ROOT_INODE,
                           .name = (const uint8_t *)name,
                           .name_size = sizeof(name),
                           .mode = S_IFREG | 0644};
        op.atime_ns = op.written_ns = op.changed_ns = now + off[i] * second;
        assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
        now = (int64_t)m.change.timestamp_us * 1000;
        assert_int_equal(stat_of(result.value).atime_ns, now);
        assert_int_equal(stat_of(result.value).mtime_ns, now);
        assert_int_equal(stat_of(result.value).ctime_ns, now);
    }
}

/* ---- Holes ---- */

static void assert_stretches(uint64_t inode, const uint64_t *expected, size_t count)
{
    uint64_t at = 0, start, end;
    for (size_t i = 0; i < count; i++, at = end) {
        assert_int_equal(fs_data(&view, inode, at, &start, &end), 0);
        assert_int_equal(start, expected[2 * i]);
        assert_int_equal(end, expected[2 * i + 1]);
    }
    assert_int_equal(fs_data(&view, inode, at, &start, &end), -ENXIO);
}

static void test_punch_cuts(void **state)
{
    static uint8_t expected[300000];
    const uint64_t stretches[] = {0, 8192, 65536, 303104};
    memcpy(expected, data, 300000);
    assert_int_equal(op_write(&m, file, 0, data, 300000), 0);
    int64_t before = stat_of(file).mtime_ns;
    assert_int_equal(op_zero(&m, file, FS_PUNCH | FS_KEEP_SIZE, 5000, 63000, NULL), 0);
    memset(expected + 5000, 0, 63000);
    assert_content(file, expected, 300000);
    assert_stretches(file, stretches, 2);
    assert_true(stat_of(file).mtime_ns > before);
    assert_int_equal(stat_of(file).content_bytes, 300000 - 65536 + 5000);
    assert_int_equal(op_zero(&m, file, FS_PUNCH | FS_KEEP_SIZE, 200000, 1 << 30, NULL),
                     0);
    memset(expected + 200000, 0, 100000);
    assert_content(file, expected, 300000);
    assert_int_equal(op_zero(&m, file, FS_PUNCH, 299000, 101000, NULL), 0);
    assert_int_equal(stat_of(file).size, 400000);
    assert_int_equal(op_zero(&m, file, FS_PUNCH, 0, 400000, NULL), 0);
    assert_int_equal(stat_of(file).content_bytes, 0);
    assert_stretches(file, NULL, 0);
}

static void test_room(void **state)
{
    assert_int_equal(op_zero(&m, file, FS_KEEP_SIZE, 0, 1 << 30, NULL), 0);
    assert_int_equal(stat_of(file).size, 0);
    assert_int_equal(op_write(&m, file, 0, "abc", 3), 0);
    assert_int_equal(op_zero(&m, file, 0, 1, 99, NULL), 0);
    assert_int_equal(stat_of(file).size, 100);
    assert_int_equal(stat_of(file).kind, FS_CONTENT_INLINE);
    assert_int_equal(op_zero(&m, file, FS_PUNCH, 1, 1, NULL), 0);
    assert_int_equal(op_zero(&m, file, 0, 0, LIMIT_FILE_BYTES, NULL), 0);
    assert_int_equal(stat_of(file).size, LIMIT_FILE_BYTES);
    assert_true(stat_of(file).content_bytes <= 4096);
    uint8_t got[5];
    size_t length;
    assert_int_equal(fs_read(&view, file, 0, 5, got, &length), 0);
    assert_memory_equal(got, "a\0c\0", 5);
    assert_int_equal(op_zero(&m, file, 0, 1, LIMIT_FILE_BYTES, NULL), -EFBIG);
    assert_int_equal(op_zero(&m, file, 0, UINT64_MAX, 2, NULL), -EINVAL);
    assert_int_equal(op_zero(&m, file, FS_PUNCH, 0, 0, NULL), -EINVAL);
    assert_int_equal(op_zero(&m, ROOT, 0, 0, 1, NULL), -EISDIR);
    assert_int_equal(op_zero(&m, 999, 0, 0, 1, NULL), -ENOENT);
}

/* What a write costs depends neither on the size of the file nor on the offset. */
static void test_far_writes(void **state)
{
    static const uint64_t offsets[] = {1 << 20, (uint64_t)1 << 35, (uint64_t)1 << 39,
                                       LIMIT_FILE_BYTES - 4096};
    assert_int_equal(op_truncate(&m, file, LIMIT_FILE_BYTES), 0);
    for (size_t i = 0; i < array_length(offsets); i++) {
        uint64_t start, end, calls = m.calls;
        assert_int_equal(counted_write(offsets[i], data, 4096, false), 0);
        assert_true(emitted < 4096 + 512);
        assert_true(m.calls - calls < 8);
        assert_int_equal(
            fs_data(&view, file, i ? offsets[i - 1] + 4096 : 0, &start, &end), 0);
        assert_int_equal(start, offsets[i]);
        assert_int_equal(end, offsets[i] + 4096);
    }
    assert_int_equal(stat_of(file).content_bytes, 4 * 4096);
    assert_int_equal(op_truncate(&m, file, ((uint64_t)1 << 35) + 10), 0);
    assert_int_equal(stat_of(file).content_bytes, 4096 + 10);
}

/* ---- Copies ---- */

static void test_copies(void **state)
{
    static uint8_t expected[BIG];
    uint64_t other, size, start, end;
    assert_int_equal(op_make(&m, ROOT, "g", FILE_MODE, &other), 0);
    assert_int_equal(op_write(&m, file, 0, data, 100000), 0);
    assert_int_equal(op_write(&m, file, 1000000, data, 700000), 0);
    memcpy(expected + 77, data, 100000);
    memcpy(expected + 77 + 1000000, data, 700000);
    assert_int_equal(op_copy(&m, file, 0, other, 77, UINT32_MAX, &size), 0);
    assert_int_equal(size, 1700000);
    assert_content(other, expected, 1700077);
    assert_int_equal(fs_data(&view, other, 200000, &start, &end), 0);
    assert_int_equal(start, (1000000 + 77) / 4096 * 4096); /* the hole stayed one */
    assert_int_equal(op_copy(&m, file, 1700000, other, 0, 1, &size), 0);
    assert_int_equal(size, 0);
    assert_int_equal(op_copy(&m, file, 1600000, other, 77, 5000, &size), 0);
    memcpy(expected + 77, data + 600000, 5000);
    assert_int_equal(op_copy(&m, other, 0, other, 1000, 50, &size), 0); /* of itself */
    memcpy(expected + 1000, expected, 50);
    assert_content(other, expected, 1700077);
    assert_int_equal(op_copy(&m, file, 0, other, LIMIT_FILE_BYTES - 5, 5, &size), 0);
    assert_int_equal(op_copy(&m, file, 0, other, LIMIT_FILE_BYTES, 5, &size), -EFBIG);
    assert_int_equal(op_copy(&m, 999, 0, other, 0, 5, &size), -ENOENT);
    assert_int_equal(op_copy(&m, file, 0, 999, 0, 5, &size), -ENOENT);
    assert_int_equal(op_copy(&m, ROOT, 0, other, 0, 5, &size), -EISDIR);
    assert_int_equal(op_copy(&m, other, 0, ROOT, 0, 5, &size), -EISDIR);
}

/* A hole costs what the target has in its place. */
static void test_copies_of_holes(void **state)
{
    const uint64_t far = (uint64_t)1 << 38;
    struct fs_op op = {.type = FS_COPY, .source = file, .size = LIMIT_FILE_BYTES};
    struct fs_result result;
    uint8_t got[6];
    size_t length;
    assert_int_equal(op_make(&m, ROOT, "g", FILE_MODE, &op.inode), 0);
    assert_int_equal(op_write(&m, file, far, "data", 4), 0);
    assert_int_equal(op_truncate(&m, file, 2 * far), 0);
    assert_int_equal(op_write(&m, op.inode, 0, data, 5000), 0);
    assert_int_equal(op_write(&m, op.inode, far / 2, data, 100000), 0);
    op.offset = 77;
    assert_int_equal(memory_do(&m, &op, 1, &result), 0);
    assert_int_equal(result.value, far); /* up to the data, */
    assert_int_equal(stat_of(op.inode).size, far + 77);
    assert_int_equal(fs_read(&view, op.inode, 71, 6, got, &length), 0);
    assert_memory_equal(got, data + 71, 6);
    assert_int_equal(fs_read(&view, op.inode, 77, 6, got, &length), 0);
    assert_memory_equal(got, "\0\0\0\0\0\0", 6);
    assert_int_equal(check_count(&view).extents, 2);
    for (unsigned i = 0; i < 2; i++) { /* ... that, and the rest */
        op.offset += result.value;
        op.source_offset += result.value;
        assert_int_equal(memory_do(&m, &op, 1, &result), 0);
    }
    assert_int_equal(op.source_offset + result.value, 2 * far);
    assert_int_equal(stat_of(op.inode).size, 2 * far + 77);
    assert_in_range(check_count(&view).extents, 3, 4); /* the data may lie in two */
    assert_int_equal(fs_read(&view, op.inode, far + 76, 6, got, &length), 0);
    assert_memory_equal(got, "\0data\0", 6);
}

/* Of a target that has more there than one entry deletes it says how far it came, and the
 * target is no longer than that. */
static void test_copies_of_holes_over_much(void **state)
{
    enum { MANY = 1100 };
    const uint64_t end = (uint64_t)MANY * 65536;
    struct fs_op op = {.type = FS_COPY, .source = file, .size = 2 * end};
    struct fs_result result;
    assert_int_equal(op_make(&m, ROOT, "g", FILE_MODE, &op.inode), 0);
    assert_int_equal(op_truncate(&m, file, 2 * end), 0);
    for (uint64_t at = 0; at < end; at += 65536)
        assert_int_equal(op_write(&m, op.inode, at, data, 65536), 0);
    uint64_t size = stat_of(op.inode).size;
    assert_int_equal(memory_do(&m, &op, 1, &result), 0);
    assert_in_range(result.value, 1 << 21, end - 1);
    assert_int_equal(stat_of(op.inode).size, size);
    op.offset = op.source_offset = result.value;
    op.size -= result.value;
    assert_int_equal(memory_do(&m, &op, 1, &result), 0);
    assert_int_equal(op.offset + result.value, 2 * end);
    assert_int_equal(stat_of(op.inode).size, 2 * end);
    assert_int_equal(check_count(&view).extents, 0);
}

/* ---- Content in progress ---- */

static void test_build(void **state)
{
    uint64_t content = 0, none = 0;
    uint8_t got[200];
    struct fs_result result;
    assert_int_equal(op_write(&m, file, 0, "old", 3), 0);
    assert_int_equal(op_build(&m, &content, 0, data, 1 << 20), 0);
    assert_int_equal(op_build(&m, &content, 1 << 20, data + (1 << 20), 1 << 20), 0);
    assert_content(file, (const uint8_t *)"old", 3); /* unseen */
    assert_int_equal(fs_read_content(&view, content, (1 << 20) - 100, 200, got), 0);
    assert_memory_equal(got, data + (1 << 20) - 100, 200);
    struct fs_op other = {.type = FS_BUILD, .content = content};
    assert_int_equal(memory_do(&m, &other, OPS_SESSION + 1, &result), -ESTALE);
    other = (struct fs_op){
        .type = FS_REPLACE, .inode = file, .content = content, .size = 2 << 20};
    assert_int_equal(memory_do(&m, &other, OPS_SESSION + 1, &result), -ESTALE);
    other.content = 0;
    other.type = FS_BUILD;
    assert_int_equal(memory_do(&m, &other, 0, &result), -EINVAL);
    assert_int_equal(
        op_replace(&m, file, content, 2 << 20, data + (2 << 20), 1000, (2 << 20) + 1000),
        0);
    assert_content(file, data, (2 << 20) + 1000);
    assert_int_equal(check_count(&view).contents, 0);
    assert_int_equal(op_build(&m, &content, 0, data, 1), -ESTALE);
    assert_int_equal(op_replace(&m, file, content, 0, data, 1, 1), -ESTALE);
    assert_int_equal(op_build(&m, &none, 0, NULL, 0), 0); /* nothing yet */
    assert_int_equal(op_replace(&m, file, none, 0, NULL, 0, 0), 0);
    assert_int_equal(stat_of(file).size, 0);
    assert_int_equal(check_count(&view).contents, 1); /* the old value */
    assert_true(op_reclaim(&m));
    assert_false(op_reclaim(&m));
    assert_int_equal(m.count, 3);
}

static void test_make_of_built(void **state)
{
    uint64_t content = 0;
    struct fs_result result;
    assert_int_equal(op_build(&m, &content, 0, data, 100000), 0);
    struct fs_op op = {
        .type = FS_MAKE,
        .parent = ROOT,
        .name = (const uint8_t *)"b",
        .name_size = 1,
        .mode = FILE_MODE,
        .content = content,
        .size = 99999,
    };
    assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    assert_content(result.value, data, 99999);
    assert_int_equal(check_count(&view).contents, 0);
}

static void test_abandon(void **state)
{
    uint64_t content = 0, other = 0;
    struct fs_result result;
    assert_int_equal(op_build(&m, &content, 0, data, 100), 0);
    assert_int_equal(op_build(&m, &other, 0, data, 100), 0);
    struct fs_op build = {.type = FS_BUILD};
    assert_int_equal(memory_do(&m, &build, OPS_SESSION + 1, &result), 0);
    assert_false(op_reclaim(&m));
    struct fs_op op = {.type = FS_ABANDON, .content = OPS_SESSION};
    assert_int_equal(memory_do(&m, &op, 77, &result), 0);
    assert_int_equal(result.value, 2);
    assert_int_equal(result.more, 0);
    assert_int_equal(op_build(&m, &content, 0, data, 100), -ESTALE);
    assert_int_equal(op_replace(&m, file, other, 0, NULL, 0, 1), -ESTALE);
    while (op_reclaim(&m))
        ;
    assert_int_equal(check_count(&view).contents, 1);
    assert_int_equal(check_count(&view).extents, 0);
    op.content = 0;
    assert_int_equal(memory_do(&m, &op, 77, &result), -EINVAL);
}

/* ---- What is left over ---- */

static void sparse_at(uint64_t inode, uint64_t first, uint64_t slots)
{
    struct buf ranges = {0};
    struct fs_result result;
    for (uint64_t slot = first; slot < first + slots; slot += FS_OP_SLOTS) {
        buf_clear(&ranges);
        uint64_t end = min_u64(slot + FS_OP_SLOTS, first + slots);
        for (uint64_t at = slot * 65536; at < end * 65536; at += 8192)
            fs_range_add(&ranges, at, "x", 1);
        struct fs_op op = {.type = FS_WRITE, .inode = inode};
        op.ranges = ranges.data;
        op.ranges_size = (uint32_t)ranges.length;
        assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    }
    buf_release(&ranges);
}

static void sparse(uint64_t inode, uint64_t slots)
{
    sparse_at(inode, 0, slots);
}

static void test_drop_is_bounded(void **state)
{
    sparse(file, 2); /* 16 extents: gone with the name */
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    assert_int_equal(m.count, 1);
    assert_int_equal(op_make(&m, ROOT, "f", FILE_MODE, &file), 0);
    sparse(file, 400); /* 3200 */
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    assert_int_equal(m.count, 1 + 1 + 3200);
    check_view(&view);
    unsigned batches = 0;
    while (op_reclaim(&m)) {
        assert_true(m.change.records <= 1025);
        batches++;
        check_view(&view);
    }
    assert_int_equal(batches, 4);
    assert_int_equal(m.count, 1);
}

static void test_replace_drops(void **state)
{
    uint64_t other;
    sparse(file, 3);
    assert_int_equal(op_replace(&m, file, 0, 0, "new", 3, 3), 0);
    assert_content(file, (const uint8_t *)"new", 3);
    assert_int_equal(check_count(&view).contents, 1);
    assert_int_equal(op_make(&m, ROOT, "g", FILE_MODE, &other), 0);
    sparse(other, 4);
    assert_int_equal(op_rename(&m, ROOT, "f", ROOT, "g", 0), 0);
    assert_int_equal(check_count(&view).contents, 2);
    while (op_reclaim(&m))
        ;
    assert_int_equal(m.count, 3);
}

/* Void extents behind more live ones than one RECLAIM looks at: it gets there. */
static void test_reclaim_advances(void **state)
{
    enum { SLOTS = 1200, LIVE = 1100 };
    sparse(file, SLOTS);
    assert_int_equal(op_truncate(&m, file, 5000), 0);
    assert_true(m.change.records <= 1024 + 64);
    sparse(file, LIVE);
    assert_int_equal(check_count(&view).void_extents, 8 * (SLOTS - LIVE));
    assert_int_equal(op_write(&m, file, 0, "y", 1), 0);
    assert_int_equal(m.change.records, 2); /* an extent and the inode: nothing of trims */
    unsigned batches = 0;
    while (op_reclaim(&m))
        assert_true(++batches <= 3);
    assert_int_equal(check_count(&view).void_extents, 0);
    assert_int_equal(check_count(&view).contents, 0);
    assert_int_equal(check_count(&view).extents, 8 * LIVE);
}

/* Removed with few extents left and trims still recorded: the P record goes too. */
static void test_drop_of_trimmed(void **state)
{
    sparse(file, 193); /* 8 to a slot; 64 slots to a trim's unit */
    assert_int_equal(op_truncate(&m, file, 5000), 0);
    assert_true(op_reclaim(&m));
    assert_int_equal(check_count(&view).void_extents, (193 - 64) * 8 - 1024);
    assert_int_equal(check_count(&view).contents, 1);
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    assert_int_equal(m.count, 1);
}

/* As many trims as an inode can have: a truncation more is refused until one is gone. */
static void test_trims_are_bounded(void **state)
{
    const uint64_t unit = 4 << 20, behind = (uint64_t)1 << 39;
    uint64_t size = unit - 1;
    unsigned done = 0;
    int error;
    do {
        sparse_at(file, behind / 65536, 168); /* more than one operation deletes */
        error = op_truncate(&m, file, size);
        size += unit;
        done += !error;
    } while (!error && done < 1000);
    assert_int_equal(error, -EBUSY);
    assert_int_equal(done, 256);
    assert_true(op_reclaim(&m));
    while (op_reclaim(&m))
        ;
    assert_int_equal(op_truncate(&m, file, size), 0);
}

/* ---- Errors of the view ---- */

/* Fails call 1, 2, ... of the operation until it comes through; then it is done. */
static void fail_each(const struct fs_op *op, int error)
{
    struct fs_result result;
    for (uint64_t n = 1;; n++) {
        uint64_t sequence = m.sequence;
        m.fail_at = m.calls + n;
        m.fail_error = error;
        int got = memory_do(&m, op, OPS_SESSION, &result);
        bool reached = m.calls >= m.fail_at;
        m.fail_at = 0;
        if (!reached) {
            assert_int_equal(got, 0);
            assert_true(n > 1);
            return;
        }
        assert_int_equal(got, error);
        assert_int_equal(m.sequence, sequence);
    }
}

static void fail_all(int error)
{
    struct buf ranges = {0};
    struct fs_result result;
    uint64_t content = 0, d;
    sparse(file, 200);
    assert_int_equal(op_build(&m, &content, 0, data, 300000), 0);
    assert_int_equal(op_make(&m, ROOT, "d", S_IFDIR | 0755, &d), 0);
    fs_range_add(&ranges, 1000, data, 100000);
    fs_range_add(&ranges, 200001, data, 70000);
    const uint8_t *f = (const uint8_t *)"f", *g = (const uint8_t *)"g";
    const struct fs_op ops[] = {
        {.type = FS_MAKE, .parent = ROOT, .name = g, .name_size = 1, .mode = FILE_MODE},
        {.type = FS_WRITE,
         .inode = file,
         .ranges = ranges.data,
         .ranges_size = (uint32_t)ranges.length},
        {.type = FS_COPY,
         .inode = file,
         .offset = 60000,
         .source = file,
         .source_offset = 200000,
         .size = 100000},
        {.type = FS_ZERO,
         .flags = FS_PUNCH,
         .inode = file,
         .offset = 3000,
         .size = 1 << 20},
        {.type = FS_SETATTR, .inode = file, .set = FS_SET_SIZE, .size = 150001},
        {.type = FS_RECLAIM},
        {.type = FS_BUILD,
         .content = content,
         .ranges = ranges.data,
         .ranges_size = (uint32_t)ranges.length},
        {.type = FS_REPLACE,
         .inode = file,
         .content = content,
         .ranges = ranges.data,
         .ranges_size = (uint32_t)ranges.length,
         .size = 270001},
        {.type = FS_RENAME,
         .parent = ROOT,
         .name = f,
         .name_size = 1,
         .parent2 = ROOT,
         .name2 = g,
         .name2_size = 1},
        {.type = FS_RENAME,
         .parent = ROOT,
         .name = g,
         .name_size = 1,
         .parent2 = d,
         .name2 = f,
         .name2_size = 1},
        {.type = FS_UNLINK, .parent = d, .name = f, .name_size = 1},
        {.type = FS_RECLAIM},
        {.type = FS_RMDIR, .parent = ROOT, .name = (const uint8_t *)"d", .name_size = 1},
        {.type = FS_ABANDON, .content = OPS_SESSION},
    };
    for (size_t i = 0; i < array_length(ops); i++) {
        fail_each(&ops[i], error);
        check_view(&view);
    }
    struct fs_op reclaim = {.type = FS_RECLAIM};
    assert_int_equal(memory_do(&m, &reclaim, OPS_SESSION, &result), 0);
    buf_release(&ranges);
}

static void test_view_eagain(void **state)
{
    fail_all(-EAGAIN);
}

static void test_view_eio(void **state)
{
    fail_all(-EIO);
}

static void test_read_errors(void **state)
{
    static uint8_t got[300000];
    assert_int_equal(op_write(&m, file, 0, data, 300000), 0);
    for (uint64_t n = 1;; n++) {
        size_t length = 4711;
        m.fail_at = m.calls + n;
        m.fail_error = -EIO;
        int error = fs_read(&view, file, 0, sizeof(got), got, &length);
        bool reached = m.calls >= m.fail_at;
        m.fail_at = 0;
        if (!reached) {
            assert_int_equal(error, 0);
            break;
        }
        assert_int_equal(error, -EIO);
        assert_int_equal(length, 4711);
    }
}

/* ---- Readers while entries are applied ---- */

static struct {
    uint64_t other; /* written to before each of the first `other_calls` calls */
    unsigned other_calls;
    unsigned replace_at; /* the call before which `file` is replaced; 0: none */
    unsigned calls;      /* of the reader */
    bool busy;
} underneath;

static void apply_underneath(void *arg)
{
    if (underneath.busy)
        return;
    underneath.busy = true;
    underneath.calls++;
    if (underneath.calls <= underneath.other_calls)
        assert_int_equal(op_write(&m, underneath.other, 0, "x", 1), 0);
    if (underneath.calls == underneath.replace_at)
        assert_int_equal(op_replace(&m, file, 0, 0, data + 1, 300000, 300000), 0);
    underneath.busy = false;
}

/* Reads `file` whole with that going on; returns the calls that it took. */
static unsigned read_with(uint64_t other, unsigned other_calls, unsigned replace_at,
                          const uint8_t *expected)
{
    static uint8_t got[300000];
    size_t length;
    memset(&underneath, 0, sizeof(underneath));
    underneath.other = other;
    underneath.other_calls = other_calls;
    underneath.replace_at = replace_at;
    m.before = apply_underneath;
    assert_int_equal(fs_read(&view, file, 0, sizeof(got), got, &length), 0);
    m.before = NULL;
    assert_int_equal(length, sizeof(got));
    assert_memory_equal(got, expected, sizeof(got));
    return underneath.calls;
}

/* Other files change before every call: the content is not read again, its version is
 * only looked at once more. */
static void test_reader_is_not_starved(void **state)
{
    uint64_t other;
    assert_int_equal(op_make(&m, ROOT, "o", FILE_MODE, &other), 0);
    assert_int_equal(op_write(&m, file, 0, data, 300000), 0);
    unsigned calls = read_with(0, 0, 0, data);
    assert_int_equal(read_with(other, calls, 0, data), calls + 1);
    assert_int_equal(read_with(other, calls + 3, 0, data), calls + 4);
}

/* The file itself changes before the n-th call: what is read is the new value, whole. */
static void test_reader_starts_anew(void **state)
{
    assert_int_equal(op_write(&m, file, 0, data, 300000), 0);
    unsigned calls = read_with(0, 0, 0, data);
    for (unsigned n = 1; n <= calls; n++) {
        read_with(0, 0, n, data + 1);
        while (op_reclaim(&m))
            ;
        assert_int_equal(op_replace(&m, file, 0, 0, data, 300000, 300000), 0);
    }
}

struct writer {
    uint64_t random;
    _Atomic bool stop;
    unsigned count;
};

/* Value n is all bytes n, of a length that n says. */
static void *write_values(void *arg)
{
    struct writer *w = arg;
    static uint8_t value[200000];
    while (!w->stop) {
        w->count++;
        uint8_t n = (uint8_t)(1 + w->count % 200);
        memset(value, n, sizeof(value));
        size_t size = 20000 + n * 800;
        if (w->count % 2)
            ensure(op_replace(&m, file, 0, 0, value, size, size) == 0);
        else
            ensure(op_write(&m, file, 0, value, sizeof(value)) == 0);
        op_reclaim(&m);
    }
    return NULL;
}

static void test_reads_are_of_one_version(void **state)
{
    static uint8_t got[250000];
    struct writer w = {0};
    pthread_t thread;
    assert_int_equal(op_write(&m, file, 0, data, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, write_values, &w), 0);
    unsigned versions = 0, last = 0;
    while (versions < 300) {
        size_t length;
        assert_int_equal(fs_read(&view, file, 0, sizeof(got), got, &length), 0);
        for (size_t at = 1; at < length; at++)
            assert_int_equal(got[at], got[0]);
        versions += got[0] != last;
        last = got[0];
    }
    w.stop = true;
    pthread_join(thread, NULL);
    while (op_reclaim(&m))
        ;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(small_appends),
        TEST(large_appends),
        TEST(overwrites),
        TEST(cut_into_few),
        TEST(largest_operation),
        TEST(inline_becomes_extents),
        TEST(file_limits),
        TEST(write_attributes),
        TEST(times_of_the_writer),
        TEST(times_of_a_wrong_clock),
        TEST(punch_cuts),
        TEST(room),
        TEST(far_writes),
        TEST(copies),
        TEST(copies_of_holes),
        TEST(copies_of_holes_over_much),
        TEST(build),
        TEST(make_of_built),
        TEST(abandon),
        TEST(drop_is_bounded),
        TEST(replace_drops),
        TEST(reclaim_advances),
        TEST(drop_of_trimmed),
        TEST(trims_are_bounded),
        TEST(view_eagain),
        TEST(view_eio),
        TEST(read_errors),
        TEST(reader_is_not_starved),
        TEST(reader_starts_anew),
        TEST(reads_are_of_one_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
