/* test_locks.c - LOCK, UNLOCK, ABANDON of locks: one by one, and against a model that knows
 * bytes and no ranges. */
#include "check.h"
#include "locks.h"
#include "ops.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { ROOT = FS_ROOT_INODE, FILE_MODE = S_IFREG | 0644 };

static struct memory m;
static struct fs_view view;
static uint64_t file, file2;

static int setup(void **state)
{
    memory_init(&m);
    view = memory_view(&m);
    assert_int_equal(op_make(&m, ROOT, "f", FILE_MODE, &file), 0);
    assert_int_equal(op_make(&m, ROOT, "g", FILE_MODE, &file2), 0);
    return 0;
}

static int teardown(void **state)
{
    check_view(&view);
    memory_release(&m);
    return 0;
}

/* Who asks: session and owner are one number of two digits. */
struct asked {
    enum fs_op_type type;
    uint64_t inode;
    unsigned who;
    enum fs_lock_kind kind;
    bool writes, waits;
    uint64_t start, end, ticket;
};

static int ask(const struct asked *a, struct fs_result *ret)
{
    struct fs_op op = {
        .type = a->type,
        .flags = a->waits ? FS_LOCK_WAITS : 0,
        .inode = a->inode,
        .lock = {.owner = a->who % 10,
                 .pid = 1000 + a->who,
                 .kind = a->kind,
                 .writes = a->writes,
                 .start = a->start,
                 .end = a->end,
                 .ticket = a->ticket},
    };
    struct buf bytes = {0};
    struct fs_op decoded;
    fs_op_encode(&op, &bytes);
    assert_int_equal(fs_op_decode(bytes.data, bytes.length, &decoded), 0);
    int error = memory_do(&m, &decoded, a->who / 10, ret);
    buf_release(&bytes);
    check_view(&view);
    return error;
}

/* The outcome, or an errno. */
static int lock_range(uint64_t inode, unsigned who, bool writes, bool waits,
                      uint64_t start, uint64_t end)
{
    struct fs_result result = {0};
    static uint64_t tickets;
    int error = ask(&(struct asked){.type = FS_LOCK,
                                    .inode = inode,
                                    .who = who,
                                    .writes = writes,
                                    .waits = waits,
                                    .start = start,
                                    .end = end,
                                    .ticket = waits ? ++tickets : 0},
                    &result);
    return error ? error : (int)result.value;
}

static bool unlock_range(uint64_t inode, unsigned who, uint64_t start, uint64_t end)
{
    struct fs_result result = {0};
    assert_int_equal(ask(&(struct asked){.type = FS_UNLOCK,
                                         .inode = inode,
                                         .who = who,
                                         .start = start,
                                         .end = end},
                         &result),
                     0);
    return result.value;
}

static int lock_file(unsigned who, bool writes, bool waits)
{
    struct fs_result result = {0};
    int error = ask(&(struct asked){.type = FS_LOCK,
                                    .inode = file,
                                    .who = who,
                                    .kind = FS_LOCK_FLOCK,
                                    .writes = writes,
                                    .waits = waits,
                                    .ticket = who},
                    &result);
    return error ? error : (int)result.value;
}

static void unlock_file(unsigned who)
{
    struct fs_result result = {0};
    assert_int_equal(ask(&(struct asked){.type = FS_UNLOCK,
                                         .inode = file,
                                         .who = who,
                                         .kind = FS_LOCK_FLOCK},
                         &result),
                     0);
}

static bool cancel(uint64_t inode, unsigned session, uint64_t ticket)
{
    struct fs_result result = {0};
    assert_int_equal(ask(&(struct asked){.type = FS_UNLOCK,
                                         .inode = inode,
                                         .who = session * 10,
                                         .ticket = ticket},
                         &result),
                     0);
    return result.value;
}

/* "11w0-9 12r?5-5": who, what, '?' where it waits, the range; F for flock. */
static const char *shown(uint64_t inode)
{
    static struct buf text;
    struct fs_locks locks;
    buf_clear(&text);
    assert_int_equal(fs_locks_read(&view, inode, &locks), 0);
    for (size_t i = 0; i < locks.count; i++) {
        const struct fs_lock *l = &locks.at[i];
        buf_printf(&text, "%s%s%llu%llu%c%s", i ? " " : "",
                   l->kind == FS_LOCK_FLOCK ? "F" : "", (unsigned long long)l->session,
                   (unsigned long long)l->owner, l->writes ? 'w' : 'r',
                   l->waits ? "?" : "");
        if (l->kind == FS_LOCK_FCNTL && l->end == FS_LOCK_END)
            buf_printf(&text, "%llu-", (unsigned long long)l->start);
        else if (l->kind == FS_LOCK_FCNTL)
            buf_printf(&text, "%llu-%llu", (unsigned long long)l->start,
                       (unsigned long long)l->end);
    }
    buf_u8(&text, 0);
    fs_locks_release(&locks);
    return (const char *)text.data;
}

/* ---- fcntl ---- */

static void test_conflicts(void **state)
{
    assert_int_equal(lock_range(file, 11, true, false, 10, 19), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 12, false, false, 19, 30), FS_LOCK_REFUSED);
    assert_int_equal(lock_range(file, 21, false, false, 0, 10), FS_LOCK_REFUSED);
    assert_int_equal(lock_range(file, 12, false, false, 20, 30), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 21, false, false, 20, 40), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 21, true, false, 30, 40), FS_LOCK_REFUSED);
    assert_int_equal(lock_range(file2, 21, true, false, 0, FS_LOCK_END), FS_LOCK_GRANTED);
    assert_string_equal(shown(file), "11w10-19 12r20-30 21r20-40");
    assert_string_equal(shown(file2), "21w0-");
    assert_false(unlock_range(file, 12, 0, 19));
    assert_true(unlock_range(file, 12, 0, FS_LOCK_END));
    assert_string_equal(shown(file), "11w10-19 21r20-40");
}

/* As POSIX has it: one owner's locks are one state for each byte. */
static void test_ranges_of_one_owner(void **state)
{
    lock_range(file, 11, false, false, 0, 99);
    lock_range(file, 11, true, false, 40, 49);
    assert_string_equal(shown(file), "11r0-39 11r50-99 11w40-49");
    assert_true(unlock_range(file, 11, 45, 59));
    assert_string_equal(shown(file), "11r0-39 11r60-99 11w40-44");
    lock_range(file, 11, false, false, 30, 59);
    assert_string_equal(shown(file), "11r0-99");
    lock_range(file, 11, false, false, 100, FS_LOCK_END); /* next to it */
    assert_string_equal(shown(file), "11r0-");
    lock_range(file, 11, true, false, 0, FS_LOCK_END);
    assert_string_equal(shown(file), "11w0-");
    unlock_range(file, 11, 1, FS_LOCK_END - 1);
    assert_string_equal(shown(file), "11w0-0 11w9223372036854775807-");
    unlock_range(file, 11, 0, FS_LOCK_END);
    assert_string_equal(shown(file), "");
}

static void test_what_is_held_already_is_no_entry(void **state)
{
    lock_range(file, 11, true, false, 0, 99);
    uint64_t sequence = m.sequence;
    assert_int_equal(lock_range(file, 11, true, false, 10, 20), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 21, true, false, 10, 20), FS_LOCK_REFUSED);
    assert_false(unlock_range(file, 21, 0, 99));
    assert_int_equal(m.sequence, sequence);
}

static void test_waiting_is_fair(void **state)
{
    lock_range(file, 11, false, false, 0, 9);
    assert_int_equal(lock_range(file, 12, true, true, 5, 14), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 21, false, true, 0, 9), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 22, false, false, 9, 9), FS_LOCK_REFUSED);
    assert_int_equal(lock_range(file, 22, false, false, 0, 4), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 23, true, true, 14, 20), FS_LOCK_QUEUED);
    assert_string_equal(shown(file), "11r0-9 22r0-4 12w?5-14 21r?0-9 23w?14-20");
    unlock_range(file, 11, 0, 9);
    assert_string_equal(shown(file), "22r0-4 12w5-14 21r?0-9 23w?14-20");
    unlock_range(file, 12, 0, 13);
    assert_string_equal(shown(file), "22r0-4 12w14-14 21r0-9 23w?14-20");
    unlock_range(file, 12, 0, 99);
    assert_string_equal(shown(file), "22r0-4 21r0-9 23w14-20");
}

/* Who waits for it does not keep a holder from more. */
static void test_a_holder_passes_who_waits(void **state)
{
    lock_range(file, 11, false, false, 0, 9);
    assert_int_equal(lock_range(file, 21, true, true, 0, 99), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 11, false, false, 5, 50), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 11, true, true, 0, 9), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 12, false, false, 60, 70), FS_LOCK_REFUSED);
    unlock_range(file, 11, 0, FS_LOCK_END);
    assert_string_equal(shown(file), "21w0-99");
}

static void test_weakening_lets_others_in(void **state)
{
    lock_range(file, 11, true, false, 0, 99);
    assert_int_equal(lock_range(file, 21, false, true, 10, 20), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 22, false, true, 50, 60), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 11, false, false, 0, 30), FS_LOCK_GRANTED);
    assert_string_equal(shown(file), "11w31-99 11r0-30 21r10-20 22r?50-60");
}

/* A grant that weakens its owner's own lock lets those go on that came before it. */
static void test_a_grant_that_weakens(void **state)
{
    lock_range(file, 11, true, false, 0, 9);
    lock_range(file, 12, true, false, 20, 29);
    assert_int_equal(lock_range(file, 21, false, true, 0, 9), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 11, false, true, 0, 25), FS_LOCK_QUEUED);
    unlock_range(file, 12, 20, 29);
    assert_string_equal(shown(file), "11r0-25 21r0-9");
}

static void test_cancel(void **state)
{
    lock_range(file, 11, true, false, 0, 9);
    ask(&(struct asked){FS_LOCK, file, 21, FS_LOCK_FCNTL, true, true, 0, 9, 77},
        &(struct fs_result){0});
    ask(&(struct asked){FS_LOCK, file, 31, FS_LOCK_FCNTL, true, true, 0, 9, 78},
        &(struct fs_result){0});
    assert_false(cancel(file, 3, 77)); /* another session's */
    assert_true(cancel(file, 2, 77));
    assert_false(cancel(file, 2, 77));
    assert_string_equal(shown(file), "11w0-9 31w?0-9");
    unlock_range(file, 11, 0, 9);
    assert_false(cancel(file, 3, 78)); /* granted */
    assert_string_equal(shown(file), "31w0-9");
}

static void test_cancel_lets_those_behind_go_on(void **state)
{
    lock_range(file, 11, false, false, 0, 9);
    ask(&(struct asked){FS_LOCK, file, 21, FS_LOCK_FCNTL, true, true, 0, 9, 77},
        &(struct fs_result){0});
    assert_int_equal(lock_range(file, 31, false, true, 0, 9), FS_LOCK_QUEUED);
    assert_true(cancel(file, 2, 77));
    assert_string_equal(shown(file), "11r0-9 31r0-9");
}

/* ---- Deadlock ---- */

static void test_deadlock_of_two(void **state)
{
    lock_range(file, 11, true, false, 0, 0);
    lock_range(file2, 21, true, false, 0, 0);
    assert_int_equal(lock_range(file, 21, true, true, 0, 0), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file2, 11, true, true, 0, 0), -EDEADLK);
    assert_int_equal(lock_range(file2, 11, true, false, 0, 0), FS_LOCK_REFUSED);
    assert_string_equal(shown(file2), "21w0-0");
    assert_int_equal(lock_range(file2, 12, true, true, 0, 0), FS_LOCK_QUEUED);
    unlock_range(file, 11, 0, 0);
    assert_string_equal(shown(file), "21w0-0");
}

static void test_deadlock_of_two_upgrades(void **state)
{
    lock_range(file, 11, false, false, 0, 9);
    lock_range(file, 21, false, false, 0, 9);
    assert_int_equal(lock_range(file, 11, true, true, 0, 9), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 21, true, true, 0, 9), -EDEADLK);
    unlock_range(file, 21, 0, 9);
    assert_string_equal(shown(file), "11w0-9");
}

/* A ring of many, each of another host, the last one closing it. */
static void test_deadlock_of_a_ring(void **state)
{
    enum { RING = 9 };
    uint64_t files[RING];
    char name[2] = "a";
    for (unsigned i = 0; i < RING; i++, name[0]++) {
        assert_int_equal(op_make(&m, ROOT, name + 0, FILE_MODE, &files[i]),
                         name[0] == 'f' || name[0] == 'g' ? -EEXIST : 0);
        if (name[0] == 'f' || name[0] == 'g')
            files[i] = name[0] == 'f' ? file : file2;
        lock_range(files[i], 10 * (i + 1), true, false, 0, 0);
    }
    for (unsigned i = 0; i + 1 < RING; i++)
        assert_int_equal(lock_range(files[i + 1], 10 * (i + 1), true, true, 0, 0),
                         FS_LOCK_QUEUED);
    assert_int_equal(lock_range(files[0], 10 * RING, true, true, 0, 0), -EDEADLK);
    assert_int_equal(lock_range(files[0], 101, true, true, 0, 0), FS_LOCK_QUEUED);
}

/* Without those that wait before it there would be no ring: it passes them. */
static void test_no_deadlock_by_fairness(void **state)
{
    lock_range(file, 11, true, false, 0, 0);
    lock_range(file2, 21, false, false, 0, 9);
    assert_int_equal(lock_range(file2, 31, true, true, 0, 9), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file, 21, true, true, 0, 0), FS_LOCK_QUEUED);
    assert_int_equal(lock_range(file2, 11, false, true, 0, 9), FS_LOCK_GRANTED);
}

static int lock_of(uint64_t inode, uint64_t session, uint64_t owner, bool writes)
{
    struct fs_op op = {.type = FS_LOCK, .flags = FS_LOCK_WAITS, .inode = inode};
    struct fs_result result = {0};
    op.lock = (struct fs_lock){.owner = owner, .kind = FS_LOCK_FCNTL, .writes = writes};
    op.lock.ticket = owner;
    int error = memory_do(&m, &op, session, &result);
    return error ? error : (int)result.value;
}

/* It runs on the loop of who leads: whatever the number of owners, a session's records are
 * looked at once, and so are the locks of a file. */
static void test_deadlock_reads_nothing_twice(void **state)
{
    enum { OWNERS = LIMIT_OF(200, 20), MOST_CALLS = 10 };
    assert_int_equal(lock_of(file2, 1, 1, true), FS_LOCK_GRANTED);
    for (uint64_t i = 1; i <= OWNERS; i++)
        assert_int_equal(lock_of(file, 2, i, false), FS_LOCK_GRANTED);
    m.calls = 0;
    assert_int_equal(lock_of(file, 1, 2, true), FS_LOCK_QUEUED);
    assert_in_range(m.calls, 1, MOST_CALLS);
    assert_int_equal(lock_of(file2, 2, OWNERS, true), FS_LOCK_QUEUED);
    m.calls = 0;
    assert_int_equal(lock_of(file, 1, 1, true), -EDEADLK);
    assert_in_range(m.calls, 1, MOST_CALLS);
}

/* ---- flock ---- */

static void test_flock(void **state)
{
    assert_int_equal(lock_file(11, false, false), FS_LOCK_GRANTED);
    assert_int_equal(lock_file(21, false, false), FS_LOCK_GRANTED);
    assert_int_equal(lock_range(file, 31, true, false, 0, 9), FS_LOCK_GRANTED);
    assert_int_equal(lock_file(31, true, false), FS_LOCK_REFUSED);
    assert_int_equal(lock_file(32, true, true), FS_LOCK_QUEUED);
    assert_int_equal(lock_file(33, false, true), FS_LOCK_QUEUED);
    unlock_file(11);
    unlock_file(21);
    assert_string_equal(shown(file), "31w0-9 F32w F33r?");
    unlock_file(32);
    assert_string_equal(shown(file), "31w0-9 F33r");
}

/* The old lock goes first: two that want more do not wait for each other. */
static void test_flock_conversion(void **state)
{
    lock_file(11, false, false);
    lock_file(21, false, false);
    assert_int_equal(lock_file(11, true, true), FS_LOCK_QUEUED);
    assert_string_equal(shown(file), "F21r F11w?");
    assert_int_equal(lock_file(21, true, true), FS_LOCK_QUEUED);
    assert_string_equal(shown(file), "F11w F21w?");
    assert_int_equal(lock_file(11, false, false), FS_LOCK_REFUSED);
    assert_string_equal(shown(file), "F21w");
    assert_int_equal(lock_file(21, false, true), FS_LOCK_GRANTED);
    assert_string_equal(shown(file), "F21r");
}

/* ---- Bounds, ends ---- */

static void test_too_many(void **state)
{
    for (unsigned i = 0; i < FS_LOCKS_MOST; i++)
        assert_int_equal(memory_do(&m,
                                   &(struct fs_op){.type = FS_LOCK,
                                                   .inode = file,
                                                   .lock = {.owner = 1,
                                                            .writes = i % 2,
                                                            .start = 3 * i,
                                                            .end = 3 * i + 1}},
                                   OPS_SESSION, &(struct fs_result){0}),
                         0);
    check_view(&view);
    assert_int_equal(lock_range(file, 51, false, false, 1 << 20, 1 << 20), -ENOLCK);
    assert_int_equal(lock_range(file, 61, true, true, 0, 9), -ENOLCK);
    assert_int_equal(lock_range(file, 51, false, false, 0, 1 << 20), FS_LOCK_GRANTED);
    assert_string_equal(shown(file), "51r0-1048576");
}

/* Two that are granted become three each, and one went: it is one more than there may be. */
static void test_a_grant_is_not_too_many(void **state)
{
    struct fs_result result;
    lock_range(file, 11, false, false, 0, 99);
    for (unsigned i = 0; i < 2; i++) {
        lock_range(file, 21 + i, false, false, 10 + 50 * i, 40 + 50 * i);
        assert_int_equal(lock_range(file, 21 + i, true, true, 20 + 50 * i, 20 + 50 * i),
                         FS_LOCK_QUEUED);
    }
    for (unsigned i = 0; i < FS_LOCKS_MOST - 5; i++) {
        struct fs_op op = {
            .type = FS_LOCK,
            .inode = file,
            .lock = {.owner = 1, .start = 1000 + 2 * i, .end = 1000 + 2 * i}};
        assert_int_equal(memory_do(&m, &op, OPS_SESSION, &result), 0);
    }
    assert_int_equal(lock_range(file, 51, false, false, 0, 0), -ENOLCK);
    assert_true(unlock_range(file, 11, 0, FS_LOCK_END));
    assert_int_equal(lock_range(file, 31, false, false, 20, 20), FS_LOCK_REFUSED);
    assert_int_equal(lock_range(file, 31, false, false, 70, 70), FS_LOCK_REFUSED);
    assert_true(unlock_range(file, 51, 0, FS_LOCK_END));
    assert_string_equal(shown(file),
                        "21r10-19 21r21-40 22r60-69 22r71-90 21w20-20 22w70-70");
}

/* An owner is one of a kind. */
static void test_kinds_are_apart(void **state)
{
    lock_file(11, true, false);
    lock_range(file, 11, true, false, 0, 9);
    assert_int_equal(lock_range(file, 21, true, true, 5, 5), FS_LOCK_QUEUED);
    assert_string_equal(shown(file), "F11w 11w0-9 21w?5-5");
    unlock_range(file, 11, 0, FS_LOCK_END);
    assert_string_equal(shown(file), "F11w 21w5-5");
}

static void test_session_ends(void **state)
{
    struct fs_op op = {.type = FS_ABANDON, .flags = FS_LOCKS_ALONE, .content = 1};
    struct fs_result result;
    lock_range(file, 11, true, false, 0, 9);
    lock_range(file, 12, true, true, 5, 5);
    lock_range(file, 21, true, true, 0, 9);
    lock_range(file2, 12, false, false, 0, 9);
    lock_range(file2, 22, false, false, 0, 9);
    lock_file(11, true, false);
    assert_int_equal(memory_do(&m, &op, 0, &result), 0);
    check_view(&view);
    assert_int_equal(result.value, 2);
    assert_int_equal(result.more, 0);
    assert_string_equal(shown(file), "21w0-9");
    assert_string_equal(shown(file2), "22r0-9");
    assert_int_equal(memory_do(&m, &op, 0, &result), 0);
    assert_int_equal(result.value, 0);
}

/* In batches, each of which frees what it has seen to. */
static void test_session_with_many_locks_ends(void **state)
{
    enum { FILES = 600 };
    struct fs_op op = {.type = FS_ABANDON, .flags = FS_LOCKS_ALONE, .content = 1};
    struct fs_result result = {.more = 1};
    uint64_t seen = 0, inode;
    unsigned batches = 0;
    for (unsigned i = 0; i < FILES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(op_make(&m, ROOT, name, FILE_MODE, &inode), 0);
        struct fs_op lock = {.type = FS_LOCK, .inode = inode, .lock.writes = true};
        assert_int_equal(memory_do(&m, &lock, 1, &result), 0);
    }
    for (result.more = 1; result.more; batches++) {
        assert_int_equal(memory_do(&m, &op, 0, &result), 0);
        assert_in_range(result.value, 1, 256);
        seen += result.value;
        assert_true(seen <= FILES); /* else it would not end */
        check_view(&view);
    }
    assert_int_equal(seen, FILES);
    assert_int_equal(batches, 3);
}

static void put_locker(struct fs_change *change, uint64_t session, uint64_t inode)
{
    struct fs_key key;
    uint8_t none[8] = {0};
    fs_key_locker(&key, session, inode);
    change->records++;
    change->put(change->context, key.bytes, key.size, none, sizeof(none));
}

/* Session 1 reads a byte, session 9 as many others as there may be. */
static void put_many_locks(uint64_t inode)
{
    static struct fs_lock all[FS_LOCKS_MOST];
    struct fs_locks locks = {.at = all, .count = FS_LOCKS_MOST, .held = FS_LOCKS_MOST};
    struct fs_key key;
    struct buf value = {0};
    for (uint64_t i = 0; i < FS_LOCKS_MOST; i++)
        all[i] = (struct fs_lock){.session = i ? 9 : 1, .start = 2 * i, .end = 2 * i};
    locks_encode(&locks, &value);
    struct fs_change *change = memory_begin(&m, 0, 0);
    fs_key_locks(&key, inode);
    change->records++;
    change->put(change->context, key.bytes, key.size, value.data, value.length);
    put_locker(change, 1, inode);
    put_locker(change, 9, inode);
    memory_commit(&m);
    buf_release(&value);
}

/* What others have there is put anew: a batch ends by its bytes, and another follows. */
static void test_session_among_many_locks_ends(void **state)
{
    enum { FILES = 24 };
    struct fs_op op = {.type = FS_ABANDON, .flags = FS_LOCKS_ALONE, .content = 1};
    struct fs_result result = {.more = 1};
    uint64_t seen = 0, inode;
    unsigned batches = 0;
    for (unsigned i = 0; i < FILES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(op_make(&m, ROOT, name, FILE_MODE, &inode), 0);
        put_many_locks(inode);
    }
    check_view(&view);
    for (; result.more; batches++) {
        assert_int_equal(memory_do(&m, &op, 0, &result), 0);
        seen += result.value;
        assert_true(seen <= FILES);
        check_view(&view);
    }
    assert_int_equal(seen, FILES);
    assert_true(batches > 1);
}

static void test_a_file_that_goes_takes_its_locks_along(void **state)
{
    lock_range(file, 11, true, false, 0, 9);
    lock_range(file, 21, true, true, 0, 9);
    assert_int_equal(op_unlink(&m, ROOT, "f"), 0);
    check_view(&view);
    assert_string_equal(shown(file), "");
    assert_int_equal(lock_range(file, 11, true, false, 0, 9), -ENOENT);
    lock_range(file2, 11, true, false, 0, 9);
    assert_int_equal(op_make(&m, ROOT, "f", FILE_MODE, &file), 0);
    assert_int_equal(op_rename(&m, ROOT, "f", ROOT, "g", 0), 0);
    check_view(&view);
    assert_string_equal(shown(file2), "");
}

static void test_no_session_no_lock(void **state)
{
    struct fs_op op = {.type = FS_LOCK, .inode = file};
    assert_int_equal(memory_do(&m, &op, 0, &(struct fs_result){0}), -EINVAL);
}

/* Each read and scan of the view failing in turn leaves nothing behind. */
static void test_view_fails(void **state)
{
    lock_range(file, 11, true, false, 0, 0);
    lock_range(file2, 21, true, false, 0, 0);
    lock_range(file, 21, true, true, 0, 0);
    struct fs_op op = {.type = FS_LOCK,
                       .inode = file2,
                       .flags = FS_LOCK_WAITS,
                       .lock = {.owner = 1, .writes = true, .ticket = 5}};
    struct fs_result result;
    int error = -EAGAIN;
    m.fail_error = -EAGAIN;
    for (unsigned i = 1; error == -EAGAIN; i++) {
        uint64_t sequence = m.sequence;
        m.calls = 0;
        m.fail_at = i;
        error = memory_do(&m, &op, 1, &result);
        m.fail_at = 0;
        assert_int_equal(m.sequence, sequence);
        assert_true(i < 20);
    }
    assert_int_equal(error, -EDEADLK);
}

static void test_records_refused(void **state)
{
    struct fs_locks locks;
    uint8_t good[2 * FS_LOCK_BYTES] = {0}, bad[sizeof(good)];
    assert_int_equal(fs_locks_decode(good, sizeof(good), &locks), 0);
    assert_int_equal(locks.held, 2);
    fs_locks_release(&locks);
    assert_int_equal(fs_locks_decode(good, 0, &locks), -EBADMSG);
    assert_int_equal(fs_locks_decode(good, sizeof(good) - 1, &locks), -EBADMSG);
    static const struct {
        size_t at;
        uint8_t value;
    } slips[] = {{20, 8}, {21, 1}, {20, 4}, {22, 1}, {22 + 8 + 7, 0x80}};
    for (size_t i = 0; i < array_length(slips); i++) {
        memcpy(bad, good, sizeof(bad));
        bad[slips[i].at] = slips[i].value;
        assert_int_equal(fs_locks_decode(bad, sizeof(bad), &locks), -EBADMSG);
    }
}

/* ---- Against a model ---- */

enum { BYTES = 24, SESSIONS = 3, OWNERS = 2, WHO = SESSIONS * OWNERS, STEPS = 20000 };

static char model[WHO][BYTES]; /* 0, 'r', 'w' */

static unsigned who_of(unsigned i)
{
    return 10 * (1 + i / OWNERS) + i % OWNERS;
}

static bool model_conflicts(unsigned who, bool writes, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < WHO; i++)
        for (uint64_t b = start; b <= end && i != who; b++)
            if (model[i][b] == 'w' || (model[i][b] && writes))
                return true;
    return false;
}

/* The state that the records say: for each owner and byte one lock at most. */
static void read_state(char to[WHO][BYTES], unsigned *ret_waiting)
{
    struct fs_locks locks;
    memset(to, 0, WHO * BYTES);
    assert_int_equal(fs_locks_read(&view, file, &locks), 0);
    for (size_t i = 0; i < locks.held; i++) {
        const struct fs_lock *l = &locks.at[i];
        for (uint64_t b = l->start; b <= l->end; b++) {
            char *at = &to[(l->session - 1) * OWNERS + l->owner][b];
            assert_int_equal(*at, 0);
            *at = l->writes ? 'w' : 'r';
        }
    }
    *ret_waiting = (unsigned)(locks.count - locks.held);
    fs_locks_release(&locks);
}

/* Locks that never wait are as the model says; with some that do, whatever is granted then
 * is what check_view lets pass. */
static void run_model(uint64_t seed, bool waits)
{
    char now[WHO][BYTES];
    unsigned waiting;
    memset(model, 0, sizeof(model));
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)(random_next(&seed) % WHO);
        uint64_t a = random_next(&seed) % BYTES, b = random_next(&seed) % BYTES;
        uint64_t start = min_u64(a, b), end = max_u64(a, b);
        bool writes = random_next(&seed) % 2, locks = random_next(&seed) % 3;
        if (!locks) {
            unlock_range(file, who_of(i), start, end);
            memset(&model[i][start], 0, end - start + 1);
        } else {
            int ret = lock_range(file, who_of(i), writes, waits, start, end);
            if (!waits)
                assert_int_equal(ret, model_conflicts(i, writes, start, end)
                                          ? FS_LOCK_REFUSED
                                          : FS_LOCK_GRANTED);
            else if (ret < 0)
                assert_true(ret == -EDEADLK || ret == -ENOLCK);
            if (ret == FS_LOCK_GRANTED)
                memset(&model[i][start], writes ? 'w' : 'r', end - start + 1);
        }
        read_state(now, &waiting);
        if (!waits)
            assert_memory_equal(now, model, sizeof(now));
    }
}

static void test_model(void **state)
{
    run_model(1, false);
}

static void test_model_with_waiting(void **state)
{
    run_model(2, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_conflicts),
        TEST(test_ranges_of_one_owner),
        TEST(test_what_is_held_already_is_no_entry),
        TEST(test_waiting_is_fair),
        TEST(test_a_holder_passes_who_waits),
        TEST(test_weakening_lets_others_in),
        TEST(test_a_grant_that_weakens),
        TEST(test_cancel),
        TEST(test_cancel_lets_those_behind_go_on),
        TEST(test_deadlock_of_two),
        TEST(test_deadlock_of_two_upgrades),
        TEST(test_deadlock_of_a_ring),
        TEST(test_no_deadlock_by_fairness),
        TEST(test_deadlock_reads_nothing_twice),
        TEST(test_flock),
        TEST(test_flock_conversion),
        TEST(test_too_many),
        TEST(test_a_grant_is_not_too_many),
        TEST(test_kinds_are_apart),
        TEST(test_session_ends),
        TEST(test_session_with_many_locks_ends),
        TEST(test_session_among_many_locks_ends),
        TEST(test_a_file_that_goes_takes_its_locks_along),
        TEST(test_no_session_no_lock),
        TEST(test_view_fails),
        TEST(test_records_refused),
        TEST(test_model),
        TEST(test_model_with_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
