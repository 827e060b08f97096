/*
 * fuzz_fs.c - the decoders of the name space, and what follows from operations that
 * decode. The first byte of the input chooses:
 *
 *   'i'  the value of an I record
 *   'l'  the value of an L record
 *   'k'  a key, which may be that of an O record
 *   'o'  an operation
 *   'e'  { length u16, operation }*, evaluated one after the other on an empty name
 * space, whose invariants must hold at the end
 *   's'  { session u8, length u16, operation }*, the same of several sessions that live,
 * one of which ends then: of 1 to 4, others are session 0
 *
 * A finding is a crash, a sanitizer's report, or a property below that does not hold.
 */
#include "check.h"
#include "locks.h"
#include "ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OPERATIONS = 64, SESSION = 5, SESSIONS = 4 };

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

static void fuzz_locks(const uint8_t *data, size_t size)
{
    struct fs_locks locks;
    struct buf again = {0};
    if (fs_locks_decode(data, size, &locks) < 0)
        return;
    locks_encode(&locks, &again);
    ensure(again.length == size && memcmp(again.data, data, size) == 0);
    ensure(locks.held <= locks.count && locks.count < locks.room);
    for (size_t i = 0; i < locks.count; i++)
        ensure(locks.at[i].waits == (i >= locks.held));
    buf_release(&again);
    fs_locks_release(&locks);
}

static void fuzz_key(const uint8_t *data, size_t size)
{
    struct fs_key key;
    uint64_t inode, session;
    if (!fs_key_is_orphan(data, size, &inode, &session))
        return;
    fs_key_orphan(&key, inode, session);
    ensure(key.size == size && memcmp(key.bytes, data, size) == 0);
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

/* What a session that has ended leaves is seen to, as by who leads. */
static void end_session(struct memory *m)
{
    struct fs_op op = {.type = FS_ABANDON, .flags = FS_LOCKS_ALONE, .content = 1};
    struct fs_result result;
    uint64_t from = FS_ROOT_INODE;
    op_session(m, 1, false);
    do
        ensure(memory_do(m, &op, 0, &result) == 0);
    while (result.more);
    while (from)
        from = op_reclaim_orphans(m, from);
}

static void fuzz_sessions(const uint8_t *data, size_t size)
{
    struct memory m;
    struct reader r = reader_of(data, size);
    memory_init(&m);
    for (uint64_t session = 1; session <= SESSIONS; session++)
        op_session(&m, session, true);
    for (int i = 0; i < OPERATIONS && reader_left(&r); i++) {
        size_t length;
        struct fs_op op;
        struct fs_result result;
        uint8_t session = reader_u8(&r);
        const uint8_t *bytes = reader_string(&r, &length);
        if (bytes && fs_op_decode(bytes, length, &op) == 0)
            memory_do(&m, &op, session <= SESSIONS ? session : 0, &result);
    }
    struct fs_view view = memory_view(&m);
    check_view(&view);
    end_session(&m);
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
    case 'l':
        fuzz_locks(data + 1, size - 1);
        break;
    case 'k':
        fuzz_key(data + 1, size - 1);
        break;
    case 'o':
        fuzz_op(data + 1, size - 1);
        break;
    case 'e':
        fuzz_evaluation(data + 1, size - 1);
        break;
    case 's':
        fuzz_sessions(data + 1, size - 1);
        break;
    }
    return 0;
}
