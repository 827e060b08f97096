/*
 * test_backup.c - backups of a node that is written to meanwhile, backups with a wrong
 * byte, and what a restore makes of one.
 */
#include "backup.h"
#include "common.h"
#include "twin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

static struct node *twin;
static char *data;
static char address[ADDRESS_BYTES];

static int start(void **state)
{
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    if (scratch_make(state))
        return -1;
    choose_address(address);
    data = directory_file(*state, "data");
    struct node_setup setup = {.data = data, .name = "n1", .listen = address};
    if (node_init(&setup, &token, error))
        return -1;
    free(token);
    twin = twin_start(data);
    return 0;
}

static int stop(void **state)
{
    char error[NODE_ERROR_BYTES] = "";
    int result = node_call_stop(data, error);
    twin_join(twin);
    free(data);
    return result ? result : scratch_remove(state);
}

/* ---- Files ------------------------------------------------------------------------- */

static void read_file(const char *path, struct buf *to)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    buf_clear(to);
    assert_non_null(buf_extend(to, (size_t)st.st_size));
    assert_int_equal(read(fd, to->data, to->length), (ssize_t)to->length);
    close(fd);
}

static void write_file(const char *path, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), (ssize_t)length);
    close(fd);
}

static int read_backup(const char *path)
{
    const struct backup_visitor visitor = {0};
    struct backup_summary summary;
    char error[NODE_ERROR_BYTES] = "";
    int result = backup_read(path, &visitor, &summary, error);
    if (result)
        assert_says(error, path);
    return result;
}

/* ---- A backup made by hand --------------------------------------------------------- */

struct maker {
    struct buf bytes, block;
    struct backup_summary summary;
};

static void end_block(struct maker *m, uint8_t kind)
{
    if (m->block.length) {
        buf_u8(&m->bytes, kind);
        buf_u32(&m->bytes, (uint32_t)m->block.length);
        buf_bytes(&m->bytes, m->block.data, m->block.length);
    }
    buf_clear(&m->block);
}

static void begin_making(struct maker *m)
{
    uint8_t head[BACKUP_HEADER];
    *m = (struct maker){0};
    m->summary.head.begin =
        (struct store_point){.index = 40, .term = 3, .timestamp_us = 5000, .crc = 77};
    memset(m->summary.head.cluster_id, 0x11, STORE_CLUSTER_ID_BYTES);
    m->summary.end = m->summary.head.begin;
    m->summary.head.format = 1;
    backup_head_encode(head, &m->summary.head);
    buf_bytes(&m->bytes, head, sizeof(head));
}

static void make_record(struct maker *m, uint64_t timestamp_us, const struct fs_key *key,
                        const void *value, size_t size)
{
    struct store_builder b = {0};
    struct store_entry head = {.index = 1, .term = 1};
    struct store_bytes *bytes;
    store_builder_begin(&b, timestamp_us - 1);
    store_builder_put(&b, key->bytes, key->size, value, size);
    assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
    buf_bytes(&m->block, bytes->data + STORE_ENTRY_HEADER,
              bytes->length - STORE_ENTRY_HEADER);
    store_bytes_unref(bytes);
    store_builder_release(&b);
    m->summary.records++;
}

/* One record, or a tombstone. Its timestamp is returned. */
static uint64_t make_entry(struct maker *m, const struct fs_key *key, const void *value,
                           size_t size)
{
    struct store_point *end = &m->summary.end;
    struct store_builder b = {0};
    struct store_entry head = {.index = end->index + 1,
                               .term = end->term,
                               .prev_term = end->term,
                               .prev_crc = end->crc};
    struct store_bytes *bytes;
    store_builder_begin(&b, end->timestamp_us + 10);
    uint64_t timestamp = store_builder_put(&b, key->bytes, key->size, value, size);
    assert_int_equal(store_builder_finish(&b, &head, &bytes), 0);
    assert_int_equal(store_entry_decode(bytes->data, bytes->length, &head), 0);
    buf_bytes(&m->block, bytes->data, bytes->length);
    *end = backup_after(&head);
    m->summary.entries++;
    store_bytes_unref(bytes);
    store_builder_release(&b);
    return timestamp;
}

static void end_making(struct maker *m, const char *path)
{
    uint8_t hash[WIRE_HASH_BYTES];
    const struct backup_summary *s = &m->summary;
    end_block(m, BACKUP_ENTRIES);
    buf_u8(&m->bytes, BACKUP_LAST);
    buf_u32(&m->bytes, BACKUP_TRAILER);
    buf_u64(&m->bytes, s->records);
    buf_u64(&m->bytes, s->entries);
    buf_u64(&m->bytes, s->end.index);
    buf_u64(&m->bytes, s->end.term);
    buf_u64(&m->bytes, s->end.timestamp_us);
    buf_u32(&m->bytes, s->end.crc);
    wire_hash(m->bytes.data, m->bytes.length, hash);
    buf_bytes(&m->bytes, hash, sizeof(hash));
    assert_false(m->bytes.failed);
    write_file(path, m->bytes.data, m->bytes.length);
    buf_release(&m->bytes);
    buf_release(&m->block);
}

static struct fs_key extent(uint64_t content)
{
    struct fs_key key;
    fs_key_extent(&key, content, 0);
    return key;
}

static struct fs_key inode(uint64_t number)
{
    struct fs_key key;
    fs_key_inode(&key, number);
    return key;
}

static struct fs_key progress(uint64_t content)
{
    struct fs_key key;
    fs_key_content(&key, content);
    return key;
}

static struct fs_key session(uint64_t number)
{
    struct fs_key key = inode(number);
    key.bytes[0] = FS_CLASS_SESSION;
    return key;
}

/* ---- What was restored ------------------------------------------------------------- */

static struct store *restore(const char *file, const char *to, struct directory *d,
                             struct store_recovery *recovery)
{
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    choose_address(address);
    struct node_setup setup = {.data = to, .name = "r", .listen = address};
    if (node_restore(&setup, file, &token, error))
        fail_msg("%s", error);
    free(token);
    if (directory_open(d, to, error))
        fail_msg("%s", error);
    return open_store_of(d, recovery);
}

static void assert_record(struct store *s, struct fs_key key, uint64_t timestamp_us,
                          const char *value)
{
    struct buf got = {0};
    uint64_t timestamp;
    int result = store_get(s, key.bytes, key.size, 0, &got, &timestamp);
    assert_int_equal(result, value ? 0 : -ENOENT);
    if (value) {
        assert_int_equal(timestamp, timestamp_us);
        assert_int_equal(got.length, strlen(value));
        assert_memory_equal(got.data, value, got.length);
    }
    buf_release(&got);
}

static const uint8_t building[16] = {9}, dropped[16] = {0};

/* Each way in which a record and the entries can meet. */
static void test_entries_are_laid_over_records(void **state)
{
    struct maker m;
    struct fs_key key;
    char *file = directory_file(*state, "made"), *to = directory_file(*state, "restored");
    begin_making(&m);
    key = extent(100);
    make_record(&m, 4100, &key, "kept extent", 11);
    key = extent(101);
    make_record(&m, 4101, &key, "of a session", 12);
    key = extent(102);
    make_record(&m, 4102, &key, "finished meanwhile", 18);
    key = inode(1);
    make_record(&m, 4001, &key, "root", 4);
    key = inode(2);
    make_record(&m, 4002, &key, "old", 3);
    key = inode(3);
    make_record(&m, 4003, &key, "to be deleted", 13);
    key = inode(5);
    make_record(&m, 5011, &key, "read late", 9); /* the first entry's: copied after it */
    key = progress(100);
    make_record(&m, 4104, &key, dropped, 16);
    key = progress(101);
    make_record(&m, 4105, &key, building, 16);
    key = progress(102);
    make_record(&m, 4106, &key, building, 16);
    end_block(&m, BACKUP_RECORDS);
    key = inode(5);
    assert_int_equal(make_entry(&m, &key, "read late", 9), 5011);
    key = inode(2);
    make_entry(&m, &key, "newer", 5);
    uint64_t newest = make_entry(&m, &key, "newest", 6);
    key = inode(3);
    make_entry(&m, &key, NULL, 0);
    key = inode(4);
    uint64_t added = make_entry(&m, &key, "added", 5);
    end_block(&m, BACKUP_ENTRIES);
    key = session(7);
    make_entry(&m, &key, building, 16);
    key = inode(6);
    make_entry(&m, &key, "made and deleted", 16);
    make_entry(&m, &key, NULL, 0);
    key = progress(102);
    make_entry(&m, &key, NULL, 0);
    key = extent(103);
    make_entry(&m, &key, "begun meanwhile", 15);
    key = progress(103);
    make_entry(&m, &key, building, 16);
    key = extent(999);
    uint64_t last = make_entry(&m, &key, "last", 4);
    end_making(&m, file);

    struct directory d;
    struct store_recovery recovery;
    struct store *s = restore(file, to, &d, &recovery);
    uint64_t end = 40 + 12;
    assert_int_equal(recovery.base_index, end);
    assert_int_equal(recovery.base_term, 3);
    assert_int_equal(recovery.last_index, end + 1);
    assert_int_equal(recovery.commit, end + 1);
    assert_int_equal(recovery.term, 4);
    assert_int_equal(recovery.vote, d.node_id);
    assert_record(s, extent(100), 4100, "kept extent");
    assert_record(s, extent(101), 0, NULL);
    assert_record(s, extent(102), 4102, "finished meanwhile");
    assert_record(s, extent(103), 0, NULL);
    assert_record(s, extent(999), last, "last");
    assert_record(s, inode(1), 4001, "root");
    assert_record(s, inode(2), newest, "newest");
    assert_record(s, inode(3), 0, NULL);
    assert_record(s, inode(4), added, "added");
    assert_record(s, inode(5), 5011, "read late");
    assert_record(s, inode(6), 0, NULL);
    assert_record(s, session(7), 0, NULL);
    struct store_stats stats;
    store_stats(s, &stats);
    /* Also the dropped content's P, and C: config, ca, token. */
    assert_int_equal(stats.keys, 7 + 1 + 3);
    store_check(s);
    store_close(s);
    directory_release(&d);
    free(file);
    free(to);
}

/* ---- Of a running node ------------------------------------------------------------- */

struct source {
    const char *at;
    size_t left;
};

static ssize_t read_source(void *context, void *to, size_t size)
{
    struct source *source = context;
    size_t n = min_u64(size, source->left);
    memcpy(to, source->at, n);
    source->at += n;
    source->left -= n;
    return (ssize_t)n;
}

static void put(const char *path, const char *value, size_t size)
{
    char error[NODE_ERROR_BYTES] = "";
    struct source source = {value, size};
    if (node_call_put(data, path, read_source, &source, error))
        fail_msg("%s", error);
}

static void backup(const char *file, struct node_backup *ret)
{
    char error[NODE_ERROR_BYTES] = "";
    if (node_call_backup(data, file, ret, error))
        fail_msg("%s", error);
    assert_int_equal(read_backup(file), 0);
}

struct writer {
    pthread_t thread;
    _Atomic bool stopping;
    _Atomic unsigned written;
};

/* a, then b: so at every moment b is a's value or the one before it. */
static void *write_on(void *arg)
{
    struct writer *w = arg;
    for (unsigned i = 1; !w->stopping; i++) {
        char text[16];
        int n = snprintf(text, sizeof(text), "%u", i);
        put("a", text, (size_t)n);
        put("b", text, (size_t)n);
        w->written = i;
    }
    return NULL;
}

/* A value by its path, from a store alone. */
static unsigned number_at(struct store *s, const char *name)
{
    struct fs_key key;
    struct buf value = {0};
    struct fs_inode found;
    fs_key_name(&key, FS_ROOT_INODE, name, strlen(name));
    assert_int_equal(store_get(s, key.bytes, key.size, 0, &value, NULL), 0);
    uint64_t number = get_u64(value.data);
    fs_key_inode(&key, number);
    buf_clear(&value);
    assert_int_equal(store_get(s, key.bytes, key.size, 0, &value, NULL), 0);
    assert_int_equal(fs_inode_decode(number, 1, value.data, value.length, &found), 0);
    char text[16] = "";
    memcpy(text, found.inline_bytes, min_u64(found.size, sizeof(text) - 1));
    unsigned result = (unsigned)strtoul(text, NULL, 10);
    buf_release(&value);
    return result;
}

static void test_one_moment_under_writes(void **state)
{
    char *file = directory_file(*state, "live"), *to = directory_file(*state, "again");
    char *large = calloc(1, 3 * MiB);
    struct writer w = {0};
    struct node_backup b = {0};
    for (int i = 0; i < 8; i++) {
        char path[16];
        snprintf(path, sizeof(path), "large%d", i);
        put(path, large, 3 * MiB);
    }
    put("a", "0", 1);
    put("b", "0", 1);
    assert_int_equal(pthread_create(&w.thread, NULL, write_on, &w), 0);
    uint64_t last = 0;
    for (int i = 0; i < 5 || b.entries < 2; i++) {
        backup(file, &b);
        assert_true(b.index >= last);
        last = b.index;
    }
    unsigned written = w.written;
    w.stopping = true;
    pthread_join(w.thread, NULL);

    struct directory d;
    struct store_recovery recovery;
    struct store *s = restore(file, to, &d, &recovery);
    unsigned first = number_at(s, "a"), second = number_at(s, "b");
    if (first != second && first != second + 1)
        fail_msg("a is %u and b is %u: of no one moment", first, second);
    assert_true(first > 0 && first <= written + 1);
    assert_int_equal(recovery.base_index, b.index);
    store_close(s);
    directory_release(&d);
    free(large);
    free(file);
    free(to);
}

static int find_text(void *context, const struct store_record *record,
                     const uint8_t *bytes, size_t length, uint64_t offset)
{
    if (backup_is_cluster_key(record->key, record->key_size))
        ++*(unsigned *)context;
    return 0;
}

/* The CA's private key is in every node's store, and must not get around with backups. */
static void test_holds_no_key_of_the_cluster(void **state)
{
    char *file = directory_file(*state, "keys"), error[NODE_ERROR_BYTES] = "";
    struct buf bytes = {0};
    struct node_backup b;
    unsigned found = 0;
    const struct backup_visitor visitor = {.context = &found, .record = find_text};
    struct backup_summary summary;
    put("x", "y", 1);
    backup(file, &b);
    assert_int_equal(backup_read(file, &visitor, &summary, error), 0);
    assert_int_equal(found, 0);
    assert_true(summary.records > 0);
    read_file(file, &bytes);
    assert_null(memmem(bytes.data, bytes.length, "PRIVATE KEY", 11));
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    buf_release(&bytes);
    free(file);
}

static void test_notices_every_byte(void **state)
{
    char *file = directory_file(*state, "bytes"),
         *to = directory_file(*state, "not-made");
    char error[NODE_ERROR_BYTES] = "", *token = NULL;
    struct maker m;
    struct fs_key key = inode(1);
    begin_making(&m);
    make_record(&m, 4001, &key, "root", 4);
    key = inode(2);
    make_record(&m, 4002, &key, "two", 3);
    end_block(&m, BACKUP_RECORDS);
    make_entry(&m, &key, "three", 5);
    end_making(&m, file);
    struct buf bytes = {0};
    read_file(file, &bytes);
    assert_int_equal(read_backup(file), 0);
    for (size_t i = 0; i < bytes.length; i++) {
        bytes.data[i] ^= (uint8_t)(1 << (i % 8));
        write_file(file, bytes.data, bytes.length);
        int result = read_backup(file);
        if (result != -EBADMSG && result != -EPROTONOSUPPORT)
            fail_msg("byte %zu of the backup is wrong, and it says %d", i, result);
        bytes.data[i] ^= (uint8_t)(1 << (i % 8));
    }
    for (size_t length = 0; length < bytes.length; length++) {
        write_file(file, bytes.data, length);
        assert_int_equal(read_backup(file), -EBADMSG);
    }
    buf_u8(&bytes, 0);
    write_file(file, bytes.data, bytes.length);
    assert_int_equal(read_backup(file), -EBADMSG);
    struct node_setup setup = {.data = to, .name = "r", .listen = address};
    assert_int_equal(node_restore(&setup, file, &token, error), -EBADMSG);
    assert_says(error, "damaged");
    assert_int_equal(access(to, F_OK), -1);
    buf_release(&bytes);
    free(file);
    free(to);
}

/* ---- Refused ----------------------------------------------------------------------- */

static void test_what_is_refused(void **state)
{
    char *file = directory_file(*state, "refused"), error[NODE_ERROR_BYTES] = "";
    char *token = NULL;
    struct node_backup b;
    assert_int_equal(node_call_backup(data, *state, &b, error), -EINVAL);
    assert_says(error, "no regular file");
    assert_int_equal(node_call_backup(data, "/nowhere/at/all", &b, error), -ENOENT);
    assert_int_equal(node_call_backup("/nowhere", file, &b, error), -ENOENT);
    assert_int_equal(access(file, F_OK), -1);
    /* An old backup stays where the new one fails. */
    backup(file, &b);
    assert_int_equal(node_call_backup("/nowhere", file, &b, error), -ENOENT);
    assert_int_equal(read_backup(file), 0);
    struct node_setup setup = {.data = data, .name = "r", .listen = address};
    assert_int_equal(node_restore(&setup, file, &token, error), -EEXIST);
    setup.data = "/nowhere-else";
    assert_int_equal(node_restore(&setup, data, &token, error), -EISDIR);
    write_file(file,
               "something else, and long enough to have had a header of its own....", 64);
    assert_int_equal(node_restore(&setup, file, &token, error), -EBADMSG);
    assert_says(error, "not a backup");
    free(file);
}

/* One request on a connection that stays. */
static int ask(int fd, uint8_t command, size_t zeros, struct buf *answer)
{
    struct buf request = {0};
    buf_u8(&request, command);
    for (size_t i = 0; i < zeros; i++)
        buf_u8(&request, 0);
    buf_clear(answer);
    int result = wire_call_local(fd, request.data, request.length, 0, answer);
    buf_release(&request);
    return result;
}

/* What is kept for a backup belongs to a connection, once. */
static void test_commands_out_of_order(void **state)
{
    static const struct {
        uint8_t command;
        size_t fields;
    } commands[] = {
        {CONTROL_BACKUP, 0}, {CONTROL_BACKUP_RECORDS, 2}, {CONTROL_BACKUP_ENTRIES, 16}};
    char *socket = directory_file(data, DIRECTORY_SOCKET);
    struct buf answer = {0};
    for (size_t i = 0; i < array_length(commands); i++) {
        int fd = -1;
        assert_int_equal(wire_call_local_open(socket, &fd), 0);
        if (commands[i].command == CONTROL_BACKUP) {
            assert_int_equal(ask(fd, CONTROL_BACKUP, 0, &answer), 0);
            assert_int_equal(answer.data[0], WIRE_OK);
        }
        assert_int_equal(ask(fd, commands[i].command, commands[i].fields, &answer),
                         -EPIPE);
        close(fd);
    }
    buf_release(&answer);
    free(socket);
}

/* The log after A is there until the end, though a second backup ends meanwhile. */
static void test_two_at_once(void **state)
{
    char *socket = directory_file(data, DIRECTORY_SOCKET);
    char *file = directory_file(*state, "second");
    struct buf answer = {0}, again = {0};
    struct node_backup b;
    int fd = -1;
    assert_int_equal(wire_call_local_open(socket, &fd), 0);
    assert_int_equal(ask(fd, CONTROL_BACKUP, 0, &answer), 0);
    uint64_t begun = get_u64(answer.data + 1 + STORE_CLUSTER_ID_BYTES);
    put("meanwhile", "1", 1);
    backup(file, &b);
    assert_true(b.index > begun);
    buf_u8(&again, CONTROL_BACKUP_ENTRIES);
    buf_u64(&again, begun + 1);
    buf_u64(&again, 0);
    buf_clear(&answer);
    assert_int_equal(wire_call_local(fd, again.data, again.length, 0, &answer), 0);
    assert_int_equal(answer.data[0], WIRE_OK);
    assert_int_equal(get_u64(answer.data + 1), b.index);
    struct store_entry e;
    assert_int_equal(store_entry_verify(answer.data + 9, answer.length - 9, &e), 0);
    assert_int_equal(e.index, begun + 1);
    close(fd);
    buf_release(&answer);
    buf_release(&again);
    free(socket);
    free(file);
}

static int begin_backup(void)
{
    char *socket = directory_file(data, DIRECTORY_SOCKET);
    struct buf answer = {0};
    int fd = -1;
    assert_int_equal(wire_call_local_open(socket, &fd), 0);
    assert_int_equal(ask(fd, CONTROL_BACKUP, 0, &answer), 0);
    assert_int_equal(answer.data[0], WIRE_OK);
    buf_release(&answer);
    free(socket);
    return fd;
}

static bool is_closed(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&p, 1, wait_ms) == 1 && read(fd, &byte, 1) <= 0;
}

/* One that moves on keeps its log, however long it takes; one that stands still does not,
 * though it began later. */
static void test_who_stands_still_is_closed(void **state)
{
    /* The loop's clock is the coarse one: it is behind by a tick of the kernel's. */
    enum { LIMIT_MS = 1000, TICK_MS = 10, PATIENCE_MS = 60 * 1000 };
    const uint32_t before = twin->backup_idle_ms;
    struct buf answer = {0};
    twin->backup_idle_ms = LIMIT_MS;
    uint64_t start = clock_boot_us();
    int moving = begin_backup(), still = begin_backup();
    while (!is_closed(still, 10)) {
        assert_int_equal(ask(moving, CONTROL_BACKUP_RECORDS, 2, &answer), 0);
        assert_true(clock_boot_us() - start < PATIENCE_MS * 1000);
    }
    assert_true(clock_boot_us() - start >= (LIMIT_MS - TICK_MS) * 1000);
    assert_int_equal(ask(moving, CONTROL_BACKUP_RECORDS, 2, &answer), 0);
    assert_int_equal(answer.data[0], WIRE_OK);
    /* What the other one had is gone with it. */
    assert_true(ask(still, CONTROL_BACKUP_RECORDS, 2, &answer) < 0);
    /* Then this one stands still. */
    assert_true(is_closed(moving, PATIENCE_MS));
    twin->backup_idle_ms = before;
    close(moving);
    close(still);
    buf_release(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_notices_every_byte),
        cmocka_unit_test(test_holds_no_key_of_the_cluster),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_commands_out_of_order),
        cmocka_unit_test(test_two_at_once),
        cmocka_unit_test(test_who_stands_still_is_closed),
        cmocka_unit_test(test_entries_are_laid_over_records),
        cmocka_unit_test(test_one_moment_under_writes),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
