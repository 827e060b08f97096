/* test_posix.c - the store on a real file system, with the log thread as a thread. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct directory {
    char path[64];
    struct store_options options;
    char error[STORE_ERROR_BYTES];
};

static int set_up(void **state)
{
    struct directory *d = calloc(1, sizeof(*d));
    strcpy(d->path, "/tmp/tierce-store-XXXXXX");
    if (!mkdtemp(d->path))
        return -1;
    d->options = (struct store_options){
        .io = &store_io_posix, .path = d->path, .segment_bytes = 2 * LIMIT_ENTRY_BYTES};
    *state = d;
    return 0;
}

static int remove_name(void *arg, const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", (const char *)arg, name);
    if (unlink(path) != 0) {
        store_io_posix.list(NULL, path, remove_name, path);
        rmdir(path);
    }
    return 0;
}

static int tear_down(void **state)
{
    struct directory *d = *state;
    store_io_posix.list(NULL, d->path, remove_name, d->path);
    rmdir(d->path);
    free(d);
    return 0;
}

static void test_table(void **state)
{
    struct directory *d = *state;
    const struct store_io *io = &store_io_posix;
    char a[128], b[128];
    snprintf(a, sizeof(a), "%s/sub", d->path);
    assert_int_equal(io->mkdir(NULL, a, 0700), 0);
    assert_int_equal(io->mkdir(NULL, a, 0700), 0);
    snprintf(a, sizeof(a), "%s/sub/a", d->path);
    assert_int_equal(io->open(NULL, a, O_RDWR, 0), -ENOENT);
    int fd = io->open(NULL, a, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(io->mkdir(NULL, a, 0700), -EEXIST);
    assert_int_equal(io->allocate(NULL, fd, 10000), 0);
    uint64_t size, free_bytes, total;
    assert_int_equal(io->size(NULL, fd, &size), 0);
    assert_int_equal(size, 10000);
    struct iovec iov[2] = {{"abc", 3}, {"defg", 4}};
    assert_int_equal(io->pwritev(NULL, fd, iov, 2, 5), 7);
    assert_int_equal(io->sync(NULL, fd), 0);
    assert_int_equal(io->sync_all(NULL, fd), 0);
    assert_int_equal(io->write_out(NULL, fd, 0, 10000), 0);
    assert_int_equal(io->write_out(NULL, fd, 5000, 10000), 0);
    assert_int_equal(io->write_out(NULL, -1, 0, 10000), -EBADF);
    char got[16] = "";
    assert_int_equal(io->pread(NULL, fd, got, 16, 4), 16);
    assert_memory_equal(got, "\0abcdefg\0\0", 10);
    ssize_t n = io->pread_nowait(NULL, fd, got, 16, 5);
    assert_true(n == 16 || n == -EAGAIN);
    assert_int_equal(io->truncate(NULL, fd, 8), 0);
    assert_int_equal(io->pread(NULL, fd, got, 16, 4), 4);
    assert_int_equal(io->pread(NULL, -1, got, 16, 4), -EBADF);
    assert_int_equal(io->close(NULL, fd), 0);
    snprintf(b, sizeof(b), "%s/sub/b", d->path);
    assert_int_equal(io->rename(NULL, a, b), 0);
    assert_int_equal(io->unlink(NULL, a), -ENOENT);
    assert_int_equal(io->unlink(NULL, b), 0);
    assert_int_equal(io->sync_dir(NULL, d->path), 0);
    assert_int_equal(io->sync_dir(NULL, b), -ENOENT);
    assert_int_equal(io->list(NULL, b, remove_name, NULL), -ENOENT);
    assert_int_equal(io->space(NULL, d->path, &free_bytes, &total), 0);
    assert_true(total > 0 && free_bytes <= total);
}

static struct store *open_store(struct directory *d, struct store_recovery *recovery)
{
    struct store *s;
    if (store_open(&s, &d->options, recovery, d->error) != 0)
        fail_msg("%s", d->error);
    return s;
}

static struct store_bytes *next_entry(struct store *s, struct store_builder *builder,
                                      size_t size)
{
    static uint8_t value[1 << 20];
    struct store_entry head = {.index = store_last_index(s) + 1, .term = 1};
    uint64_t timestamp;
    char key[32];
    store_chain(s, &head.prev_term, &head.prev_crc, &timestamp);
    head.commit = store_applied(s);
    store_builder_begin(builder, timestamp + 1);
    snprintf(key, sizeof(key), "key%llu", (unsigned long long)head.index % 10);
    put_u64(value, head.index);
    store_builder_put(builder, key, strlen(key), value, size);
    struct store_bytes *bytes;
    assert_int_equal(store_builder_finish(builder, &head, &bytes), 0);
    return bytes;
}

struct log_thread {
    struct store_job *job;
    int rc;
    char error[STORE_ERROR_BYTES];
};

static void *run_job(void *arg)
{
    struct log_thread *t = arg;
    t->rc = store_run_job(t->job, t->error);
    return NULL;
}

/* The loop goes on appending while the log thread runs the former job. */
static void test_log_thread(void **state)
{
    struct directory *d = *state;
    struct store_recovery recovery;
    struct store_builder builder = {0};
    assert_int_equal(store_create(&d->options, d->error), 0);
    assert_int_equal(store_create(&d->options, d->error), -EEXIST);
    struct store *s = open_store(d, &recovery);
    uint64_t durable = 0;
    while (durable < 60) {
        struct log_thread t = {.job = store_take_job(s)};
        pthread_t thread;
        if (t.job)
            assert_int_equal(pthread_create(&thread, NULL, run_job, &t), 0);
        for (int i = 0; i < 3; i++) {
            struct store_bytes *bytes = next_entry(s, &builder, 500000);
            assert_int_equal(store_has_room(s, bytes->length), 0);
            assert_int_equal(store_append(s, bytes, false), 0);
            store_bytes_unref(bytes);
        }
        if (!t.job)
            continue;
        pthread_join(thread, NULL);
        if (t.rc != 0)
            fail_msg("%s", t.error);
        durable = store_finish_job(s, t.job).durable_index;
        while (store_applied(s) < durable)
            assert_int_equal(store_apply(s, store_applied(s) + 1, NULL, NULL), 0);
    }
    store_check(s);
    store_close(s); /* what no job was run for is dropped */
    s = open_store(d, &recovery);
    assert_int_equal(recovery.last_index, durable);
    assert_true(recovery.commit >= durable - 6 && recovery.commit < durable);
    store_check(s);
    store_close(s);
    store_builder_release(&builder);
}

static void test_missing_directory(void **state)
{
    struct directory *d = *state;
    struct store *s;
    struct store_recovery recovery;
    d->options.path = "/nonexistent/tierce";
    assert_int_equal(store_open(&s, &d->options, &recovery, d->error), -ENOENT);
    assert_non_null(strstr(d->error, "no store in /nonexistent/tierce"));
    assert_int_equal(store_create(&d->options, d->error), -ENOENT);
    assert_non_null(strstr(d->error, "/nonexistent/tierce: No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_table, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_log_thread, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_directory, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
