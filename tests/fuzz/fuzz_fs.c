/*
 * fuzz_fs.c - the decoders of the name space, and what follows from operations that
 * decode. The first byte of the input chooses:
 *
 *   'i'  the value of an I record
 *   'o'  an operation
 *   'e'  { length u16, operation }*, evaluated one after the other on an empty name
 * space, whose invariants must hold at the end
 *
 * A finding is a crash, a sanitizer's report, or a property below that does not hold.
 */
#include "check.h"
#include "memory_view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OPERATIONS = 64, SESSION = 5 };

static void fuzz_inode(const uint8_t *data, size_t size)
{
    struct fs_inode inode;
    struct buf again = {0};
    if (fs_inode_decode(7, 8, data, size, &inode) < 0)
        return;
    fs_inode_encode(&inode, &again);
    ensure(again.length == size && memcmp(again.data, data, size) == 0);
    buf_release(&again);
}

static void fuzz_op(const uint8_t *data, size_t size)
{
    struct fs_op op;
    struct buf again = {0};
    if (fs_op_decode(data, size, &op) < 0)
        return;
    fs_op_encode(&op, &again);
    ensure(again.length == size && memcmp(again.data, data, size) == 0);
    buf_release(&again);
    struct reader ranges = reader_of(op.ranges, op.ranges_size);
    uint64_t offset, end = 0;
    const uint8_t *bytes;
    uint32_t length;
    while (fs_range_next(&ranges, &offset, &bytes, &length)) {
        ensure(offset >= end && length > 0);
        end = offset + length;
    }
    ensure(reader_done(&ranges));
}

static void fuzz_evaluation(const uint8_t *data, size_t size)
{
    struct memory m;
    struct reader r = reader_of(data, size);
    memory_init(&m);
    for (int i = 0; i < OPERATIONS && reader_left(&r); i++) {
        size_t length;
        struct fs_op op;
        struct fs_result result;
        const uint8_t *bytes = reader_string(&r, &length);
        if (bytes && fs_op_decode(bytes, length, &op) == 0)
            memory_do(&m, &op, SESSION, &result);
    }
    struct fs_view view = memory_view(&m);
    check_view(&view);
    memory_release(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0]) {
    case 'i':
        fuzz_inode(data + 1, size - 1);
        break;
    case 'o':
        fuzz_op(data + 1, size - 1);
        break;
    case 'e':
        fuzz_evaluation(data + 1, size - 1);
        break;
    }
    return 0;
}
