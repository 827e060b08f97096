/* test_codec.c - keys, inodes, operations, ranges and results as bytes. */
#include "fs.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static int key_order(const struct fs_key *a, const struct fs_key *b)
{
    int order = memcmp(a->bytes, b->bytes, min_u64(a->size, b->size));
    return order ? order : (int)a->size - (int)b->size;
}

static void test_keys_sort(void **state)
{
    struct fs_key a, b;
    fs_key_name(&a, 1, "zz", 2);
    fs_key_name(&b, 256, "a", 1);
    assert_true(key_order(&a, &b) < 0);
    fs_key_name(&b, 1, "zzz", 3);
    assert_true(key_order(&a, &b) < 0);
    fs_key_extent(&a, 7, 65535);
    fs_key_extent(&b, 7, 65536);
    assert_true(key_order(&a, &b) < 0);
    assert_int_equal(a.size, 17);
    fs_key_inode(&a, 0x0102030405060708);
    fs_key_xattr(&b, 9, "user.a", 6);
    assert_int_equal(b.size, 15);
    assert_memory_equal(b.bytes, "X\0\0\0\0\0\0\0\11user.a", 15);
    assert_memory_equal(a.bytes, "I\1\2\3\4\5\6\7\10", 9);
    fs_key_content(&a, 9);
    assert_int_equal(a.bytes[0], 'P');
}

static struct fs_inode inode_of(uint32_t mode, enum fs_content_kind kind)
{
    return (struct fs_inode){
        .inode = 77,
        .version = 99,
        .mode = mode,
        .nlink = 3,
        .uid = 4,
        .gid = 5,
        .rdev = 6,
        .atime_ns = -7,
        .mtime_ns = INT64_MAX,
        .ctime_ns = 8,
        .kind = kind,
    };
}

static void assert_same_inode(const struct fs_inode *a, const struct fs_inode *b)
{
    struct buf one = {0}, two = {0};
    fs_inode_encode(a, &one);
    fs_inode_encode(b, &two);
    assert_int_equal(one.length, two.length);
    assert_memory_equal(one.data, two.data, one.length);
    assert_int_equal(a->size, b->size);
    assert_int_equal(a->mtime_ns, b->mtime_ns);
    assert_int_equal(a->rdev, b->rdev);
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->inode, b->inode);
    buf_release(&one);
    buf_release(&two);
}

/* Round trip, then every shorter and every longer value is refused. `open`: the value has
 * a part without a length of its own, whose prefixes are values too. */
static void check_inode(const struct fs_inode *inode, size_t open)
{
    struct buf value = {0};
    struct fs_inode got;
    fs_inode_encode(inode, &value);
    assert_int_equal(fs_inode_decode(77, 99, value.data, value.length, &got), 0);
    assert_same_inode(inode, &got);
    for (size_t n = 0; n < value.length - open; n++)
        assert_int_equal(fs_inode_decode(77, 99, value.data, n, &got), -EBADMSG);
    buf_release(&value);
}

static void test_inode_round_trip(void **state)
{
    struct fs_inode i = inode_of(S_IFDIR | 01755, FS_CONTENT_NONE);
    i.size = 12;
    i.parent = 1;
    check_inode(&i, 0);
    i = inode_of(S_IFBLK | 0600, FS_CONTENT_NONE);
    check_inode(&i, 0);
    i = inode_of(S_IFREG | 0644, FS_CONTENT_INLINE);
    i.size = 5;
    i.inline_bytes = (const uint8_t *)"hello";
    check_inode(&i, 5);
    i = inode_of(S_IFLNK | 0777, FS_CONTENT_INLINE);
    i.size = 3;
    i.inline_bytes = (const uint8_t *)"a/b";
    check_inode(&i, 2);
    i = inode_of(S_IFREG | 0644, FS_CONTENT_EXTENTS);
    i.size = LIMIT_FILE_BYTES;
    i.content = 1234;
    i.content_bytes = 4096;
    check_inode(&i, 0);
    uint8_t trims[32];
    put_u64(trims, 4 << 20);
    put_u64(trims + 8, 100);
    put_u64(trims + 16, 12 << 20);
    put_u64(trims + 24, 101);
    i.trims = trims;
    i.trim_count = 1;
    check_inode(&i, 16);
    i.trim_count = 2;
    struct buf value = {0};
    struct fs_inode got;
    fs_inode_encode(&i, &value);
    assert_int_equal(fs_inode_decode(77, 99, value.data, value.length, &got), 0);
    assert_int_equal(got.trim_count, 2);
    assert_memory_equal(got.trims, trims, 32);
    buf_release(&value);
}

/* One byte more, or one field that is wrong. */
static void assert_refused(const struct buf *good, size_t at, uint64_t v, size_t size)
{
    uint8_t bytes[8192];
    struct fs_inode got;
    assert_int_equal(fs_inode_decode(1, 1, good->data, good->length, &got), 0);
    memcpy(bytes, good->data, good->length);
    for (size_t i = 0; i < size; i++)
        bytes[at + i] = (uint8_t)(v >> (8 * i));
    size_t length = max_u64(good->length, at + size);
    assert_int_equal(fs_inode_decode(1, 1, bytes, length, &got), -EBADMSG);
}

enum { INODE_KIND = 44, INODE_BODY = 45 };

static void test_inode_refused(void **state)
{
    struct buf value = {0};
    struct fs_inode i = inode_of(S_IFDIR | 0755, FS_CONTENT_NONE);
    i.parent = 1;
    fs_inode_encode(&i, &value);
    assert_refused(&value, 0, 0, 4);                 /* no type */
    assert_refused(&value, 0, 0x20000 | S_IFDIR, 4); /* bits that no mode has */
    assert_refused(&value, 0, S_IFREG | 0644, 4);    /* a file without content */
    assert_refused(&value, INODE_KIND, 3, 1);        /* no such kind */
    assert_refused(&value, INODE_KIND, 0, 1);        /* a directory with bytes */
    assert_refused(&value, INODE_BODY + 8, 0, 8);    /* no parent */
    assert_refused(&value, value.length, 0, 1);      /* a byte too many */
    buf_clear(&value);
    i = inode_of(S_IFREG | 0644, FS_CONTENT_EXTENTS);
    i.content = 5;
    uint8_t trims[16];
    put_u64(trims, 4 << 20);
    put_u64(trims + 8, 100);
    i.trims = trims;
    i.trim_count = 1;
    fs_inode_encode(&i, &value);
    assert_refused(&value, 0, S_IFLNK | 0777, 4);
    assert_refused(&value, INODE_BODY, LIMIT_FILE_BYTES + 1, 8);
    assert_refused(&value, INODE_BODY + 8, 0, 8);
    assert_refused(&value, INODE_BODY + 16, LIMIT_FILE_BYTES + 1, 8);
    assert_refused(&value, INODE_BODY + 24, 4096, 8);             /* not a unit */
    assert_refused(&value, INODE_BODY + 24, 0, 8);                /* from the start */
    assert_refused(&value, INODE_BODY + 24, LIMIT_FILE_BYTES, 8); /* beyond */
    assert_refused(&value, INODE_BODY + 32, 0, 8);                /* of no time */
    assert_refused(&value, value.length, 0, 8);                   /* half a trim */
    buf_bytes(&value, trims, 16);
    struct fs_inode got; /* twice the same */
    assert_int_equal(fs_inode_decode(1, 1, value.data, value.length, &got), -EBADMSG);
    buf_clear(&value);
    i = inode_of(S_IFREG | 0644, FS_CONTENT_INLINE);
    fs_inode_encode(&i, &value);
    assert_refused(&value, INODE_BODY + LIMIT_INLINE_BYTES, 0, 1);
    assert_refused(&value, 0, S_IFLNK | 0777, 4); /* an empty target */
    buf_release(&value);
}

static struct fs_op sample(struct buf *ranges)
{
    fs_range_add(ranges, 0, "abc", 3);
    fs_range_add(ranges, 3, "d", 1);
    fs_range_add(ranges, 70000, "efg", 3);
    return (struct fs_op){
        .type = FS_MAKE,
        .flags = FS_OVER,
        .set = FS_SET_MTIME | FS_SET_WRITTEN,
        .inode = 2,
        .parent = 3,
        .parent2 = 4,
        .name = (const uint8_t *)"na",
        .name_size = 2,
        .name2 = (const uint8_t *)"other",
        .name2_size = 5,
        .mode = 6,
        .uid = 7,
        .gid = 8,
        .rdev = 9,
        .size = 10,
        .content = 11,
        .atime_ns = -12,
        .mtime_ns = 13,
        .written_ns = -14,
        .changed_ns = 15,
        .target = (const uint8_t *)"to",
        .target_size = 2,
        .ranges = ranges->data,
        .ranges_size = (uint32_t)ranges->length,
    };
}

static void test_op_round_trip(void **state)
{
    struct buf ranges = {0}, bytes = {0}, again = {0};
    struct fs_op op = sample(&ranges), got;
    fs_op_encode(&op, &bytes);
    assert_int_equal(bytes.capacity,
                     bytes.length); /* it waits in no more memory than that */
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
    fs_op_encode(&got, &again);
    assert_int_equal(bytes.length, again.length);
    assert_memory_equal(bytes.data, again.data, bytes.length);
    assert_int_equal(got.type, FS_MAKE);
    assert_int_equal(got.atime_ns, -12);
    assert_int_equal(got.written_ns, -14);
    assert_int_equal(got.changed_ns, 15);
    assert_int_equal(got.rdev, 9);
    assert_memory_equal(got.name2, "other", 5);
    assert_memory_equal(got.target, "to", 2);

    struct reader r = reader_of(got.ranges, got.ranges_size);
    uint64_t offset;
    const uint8_t *data;
    uint32_t length;
    assert_true(fs_range_next(&r, &offset, &data, &length));
    assert_true(fs_range_next(&r, &offset, &data, &length));
    assert_true(fs_range_next(&r, &offset, &data, &length));
    assert_int_equal(offset, 70000);
    assert_memory_equal(data, "efg", 3);
    assert_false(fs_range_next(&r, &offset, &data, &length));
    buf_release(&ranges);
    buf_release(&bytes);
    buf_release(&again);
}

/* ZERO and COPY end with where they take place, others do not. */
static void test_op_area(void **state)
{
    const enum fs_op_type types[] = {FS_ZERO, FS_COPY, FS_WRITE};
    for (size_t i = 0; i < array_length(types); i++) {
        struct buf bytes = {0};
        struct fs_op op = {.type = types[i],
                           .flags = FS_KEEP_SIZE,
                           .inode = 2,
                           .size = 3},
                     got;
        op.offset = (uint64_t)4 << 32;
        op.source = 5;
        op.source_offset = (uint64_t)6 << 32;
        bool has = types[i] != FS_WRITE;
        fs_op_encode(&op, &bytes);
        assert_int_equal(bytes.capacity, bytes.length);
        assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
        assert_int_equal(got.offset, has ? op.offset : 0);
        assert_int_equal(got.source, has ? op.source : 0);
        assert_int_equal(got.source_offset, has ? op.source_offset : 0);
        for (size_t n = 0; n < bytes.length; n++)
            assert_int_equal(fs_op_decode(bytes.data, n, &got), -EPROTO);
        buf_u8(&bytes, 0);
        assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
        buf_release(&bytes);
    }
}

static void test_op_refused(void **state)
{
    struct buf ranges = {0}, bytes = {0};
    struct fs_op op = sample(&ranges), got;
    fs_op_encode(&op, &bytes);
    for (size_t n = 0; n < bytes.length; n++)
        assert_int_equal(fs_op_decode(bytes.data, n, &got), -EPROTO);
    buf_u8(&bytes, 0);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
    bytes.length--;
    enum { FLAGS = 1, SET = 5, NAME = 33, NAME2 = 37, TARGET = 92, RANGES = 96 };
    /* Each length, wrong by one in either direction and by much, and other fields. */
    const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {
        {0, 0},
        {0, 63},
        {FLAGS + 2, 0x80},
        {FLAGS + 3, 1},
        {SET + 1, 4},
        {NAME, 1},
        {NAME, 3},
        {NAME + 1, 1},
        {NAME2, 4},
        {NAME2, 6},
        {NAME2 + 1, 0xff},
        {TARGET, 1},
        {TARGET, 3},
        {TARGET + 1, 0x10},
        {RANGES, 0},
        {RANGES + 3, 0xff},
        {RANGES + 4 + 8, 0},         /* the first range is empty */
        {RANGES + 4 + 8, 2},         /* shorter than it is */
        {RANGES + 4 + 15, 2},        /* the second one overlaps it */
        {RANGES + 4 + 15 + 7, 0x80}, /* or lies beyond all numbers */
        {RANGES + 4 + 7, 1},         /* they do not ascend */
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        uint8_t old = bytes.data[wrong[i].at];
        assert_int_not_equal(old, wrong[i].value);
        bytes.data[wrong[i].at] = wrong[i].value;
        assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
        bytes.data[wrong[i].at] = old;
        assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
    }
    buf_clear(&bytes);
    uint8_t name[256] = {0};
    op.name = name;
    op.name_size = 256;
    fs_op_encode(&op, &bytes);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
    buf_release(&ranges);
    buf_release(&bytes);
}

/* A type with a part of its own: of nothing, and of as much as may be. */
static void test_op_value(void **state)
{
    struct buf bytes = {0};
    struct fs_op got, op = {.type = FS_XATTR,
                            .flags = FS_XATTR_CREATE,
                            .inode = 7,
                            .name = (const uint8_t *)"user.a",
                            .name_size = 6};
    uint8_t *value = calloc(1, FS_XATTR_BYTES + 1);
    fs_op_encode(&op, &bytes);
    assert_int_equal(bytes.capacity, bytes.length);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
    assert_int_equal(got.value_size, 0);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length - 1, &got), -EPROTO);
    fs_op_retarget(&bytes, 0x1122334455667788);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
    assert_int_equal(got.inode, 0x1122334455667788);
    assert_int_equal(got.flags, FS_XATTR_CREATE);
    buf_clear(&bytes);
    op.value = value;
    op.value_size = FS_XATTR_BYTES;
    value[FS_XATTR_BYTES - 1] = 'x';
    fs_op_encode(&op, &bytes);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
    assert_int_equal(got.value_size, FS_XATTR_BYTES);
    assert_memory_equal(got.value, value, FS_XATTR_BYTES);
    buf_clear(&bytes);
    op.value_size++;
    fs_op_encode(&op, &bytes);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
    buf_release(&bytes);
    free(value);
}

static void test_op_umask(void **state)
{
    struct buf bytes = {0};
    struct fs_op got, op = {.type = FS_MAKE, .flags = FS_UMASK, .umask = 0777};
    fs_op_encode(&op, &bytes);
    assert_int_equal(bytes.capacity, bytes.length);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), 0);
    assert_int_equal(got.umask, 0777);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length - 4, &got), -EPROTO);
    op.umask = 01000;
    buf_clear(&bytes);
    fs_op_encode(&op, &bytes);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &got), -EPROTO);
    buf_release(&bytes);
}

static void test_slots(void **state)
{
    struct buf ranges = {0};
    uint8_t *many = calloc(1, 2 * 65536);
    assert_int_equal(fs_ranges_slots(NULL, 0), 0);
    fs_range_add(&ranges, 0, many, 10);
    fs_range_add(&ranges, 100, many, 10);
    assert_int_equal(fs_ranges_slots(ranges.data, ranges.length), 1);
    fs_range_add(&ranges, 65535, many, 2);
    assert_int_equal(fs_ranges_slots(ranges.data, ranges.length), 2);
    fs_range_add(&ranges, 3 * 65536, many, 2 * 65536);
    assert_int_equal(fs_ranges_slots(ranges.data, ranges.length), 4);
    free(many);
    buf_release(&ranges);
}

static void test_result(void **state)
{
    struct fs_result in = {0x1122334455667788, 42}, out;
    uint8_t bytes[16];
    fs_result_encode(&in, bytes);
    assert_int_equal(bytes[0], 0x88);
    fs_result_decode(bytes, &out);
    assert_memory_equal(&in, &out, sizeof(in));
}

static void test_subject(void **state)
{
    struct fs_op op = {.type = FS_WRITE, .inode = 5, .parent = 6};
    assert_int_equal(fs_op_subject(&op), 5);
    op.inode = 0;
    assert_int_equal(fs_op_subject(&op), 6);
    op = (struct fs_op){.type = FS_BUILD, .content = 7};
    assert_int_equal(fs_op_subject(&op), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_sort),     cmocka_unit_test(test_inode_round_trip),
        cmocka_unit_test(test_inode_refused), cmocka_unit_test(test_op_round_trip),
        cmocka_unit_test(test_op_refused),    cmocka_unit_test(test_op_value),
        cmocka_unit_test(test_op_umask),      cmocka_unit_test(test_op_area),
        cmocka_unit_test(test_slots),         cmocka_unit_test(test_result),
        cmocka_unit_test(test_subject),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
