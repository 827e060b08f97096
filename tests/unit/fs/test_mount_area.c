/* test_mount_area.c - stretches of files on a real mount: room, holes, copies, where data
 * lies; while nothing, a part or all of a value is buffered. */
#include "mount_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint8_t data[3 << 20];

static int set_up(void **state)
{
    backend_start(&backend);
    return mount_up(NULL);
}

static int must_open(const char *name, int flags)
{
    int fd = open(at(name), flags | O_CLOEXEC, 0644);
    must(fd);
    return fd;
}

/* What a descriptor shows is `expected`, all of it. */
static void assert_shows(int fd, const uint8_t *expected, size_t size)
{
    uint8_t *got = malloc(size + 1);
    struct stat st;
    must(fstat(fd, &st));
    assert_int_equal(st.st_size, size);
    assert_int_equal(pread(fd, got, size + 1, 0), size);
    assert_memory_equal(got, expected, size);
    free(got);
}

static void assert_committed(const char *name, const uint8_t *expected, size_t size)
{
    size_t got = 0;
    char *value = backend_value(&backend, name, &got);
    assert_non_null(value);
    assert_int_equal(got, size);
    assert_memory_equal(value, expected, size);
    free(value);
}

enum { SIZE = 300000 };

/* A file with `data`: committed, or (with O_TRUNC) still being written. */
static int prepare(const char *name, int flags, uint8_t *copy)
{
    backend_put(&backend, name, data, SIZE);
    memcpy(copy, data, SIZE);
    int fd = must_open(name, O_RDWR | flags);
    if (flags)
        assert_int_equal(pwrite(fd, data, SIZE, 0), SIZE);
    return fd;
}

static void test_holes(void **state)
{
    static uint8_t expected[SIZE + 100000];
    static const int flags[] = {0, O_TRUNC};
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    for (size_t i = 0; i < array_length(flags); i++) {
        memset(expected, 0, sizeof(expected));
        int fd = prepare("f", flags[i], expected);
        assert_int_equal(pwrite(fd, "buffered", 8, 70000), 8);
        memcpy(expected + 70000, "buffered", 8);
        must(fallocate(fd, punch, 70003, 100000));
        memset(expected + 70003, 0, 100000);
        assert_shows(fd, expected, SIZE);
        assert_int_equal(pwrite(fd, "after", 5, 80000), 5);
        memcpy(expected + 80000, "after", 5);
        must(fallocate(fd, FALLOC_FL_ZERO_RANGE, SIZE - 10, 100010));
        memset(expected + SIZE - 10, 0, 10);
        assert_shows(fd, expected, SIZE + 100000);
        must(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 1 << 30));
        memset(expected, 0, SIZE);
        assert_shows(fd, expected, SIZE + 100000);
        assert_int_equal(pwrite(fd, data, 10, 5), 10);
        memcpy(expected + 5, data, 10);
        must(close(fd));
        assert_committed("f", expected, SIZE + 100000);
    }
}

static void test_room(void **state)
{
    struct stat st;
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must(fallocate(fd, 0, 10, 90));
    assert_int_equal(backend_total(&backend), 0); /* unseen, like its value */
    must(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1000));
    assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
    must(fstat(fd, &st));
    assert_int_equal(st.st_size, 100);
    must(close(fd));
    assert_int_equal(backend_total(&backend), 1);
    fd = must_open("f", O_RDWR);
    assert_int_equal(pwrite(fd, "d", 1, 199), 1);
    must(posix_fallocate(fd, 0, 150) ? -1 : 0);
    must(fstat(fd, &st));
    assert_int_equal(st.st_size, 200);
    must(fallocate(fd, 0, 0, 250));
    must(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1000000));
    must(fstat(fd, &st));
    assert_int_equal(st.st_size, 250);
    assert_fails(fallocate(fd, 0, 0, 2 * GiB), ENOSPC); /* there is one GiB */
    assert_fails(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 2 * GiB), ENOSPC);
    assert_fails(fallocate(fd, 0, 1, (off_t)LIMIT_FILE_BYTES), EFBIG);
    assert_fails(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
    assert_fails(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096), EOPNOTSUPP);
    backend.full = true;
    assert_fails(fallocate(fd, 0, 0, 300), ENOSPC);
    must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 300));
    backend.full = false;
    must(close(fd));
}

/* A hole in what was built already: the value is published, then it is cut. */
static void test_hole_in_what_is_built(void **state)
{
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    static uint8_t expected[sizeof(data)];
    memcpy(expected, data, sizeof(data));
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 2000000));
    memset(expected + 1000, 0, 2000000);
    assert_shows(fd, expected, sizeof(data));
    must(close(fd));
    assert_committed("f", expected, sizeof(data));
}

/* More than one operation deletes. */
static void test_large_hole(void **state)
{
    int fd = must_open("f", O_RDWR | O_CREAT);
    for (off_t i = 0; i < 1500; i++)
        assert_int_equal(pwrite(fd, "x", 1, i * 65536), 1);
    must(fsync(fd));
    backend_reset_counts(&backend);
    must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 1500 * 65536));
    assert_int_equal(backend_count(&backend, FS_ZERO), 2);
    assert_int_equal(lseek(fd, 0, SEEK_HOLE), 4096);
    assert_fails((int)lseek(fd, 4096, SEEK_DATA), ENXIO);
    must(close(fd));
}

static void assert_seeks(int fd, off_t from, off_t data_at, off_t hole_at)
{
    off_t got = lseek(fd, from, SEEK_DATA);
    if (got != data_at)
        fail_msg("data from %ld on: %ld, expected %ld", from, got, data_at);
    if (data_at < 0)
        assert_int_equal(errno, ENXIO);
    got = lseek(fd, from, SEEK_HOLE);
    if (got != hole_at)
        fail_msg("a hole from %ld on: %ld, expected %ld", from, got, hole_at);
}

static void check_seeks(int fd)
{
    assert_seeks(fd, 0, 65536, 0);
    assert_seeks(fd, 65536 + 100, 65536 + 100, 65536 + 8192);
    assert_seeks(fd, 65536 + 8192, 200704, 65536 + 8192);
    assert_seeks(fd, 200704 + 9, 200704 + 9, 200704 + 4096);
    assert_seeks(fd, 200704 + 4096, -1, 200704 + 4096);
    assert_seeks(fd, SIZE, -1, -1);
    assert_seeks(fd, SIZE + 1, -1, -1);
}

static void test_seeks(void **state)
{
    static const int flags[] = {O_CREAT, O_TRUNC, 0};
    for (size_t i = 0; i < array_length(flags); i++) {
        int fd = must_open("f", O_RDWR | flags[i]);
        must(ftruncate(fd, 0));
        must(ftruncate(fd, SIZE));
        assert_int_equal(pwrite(fd, data, 4097, 65536), 4097);
        assert_int_equal(pwrite(fd, data, 10, 201000), 10);
        check_seeks(fd);
        must(fsync(fd));
        check_seeks(fd);
        must(close(fd));
    }
    backend_put(&backend, "f", "inline", 6);
    int fd = must_open("f", O_RDWR);
    assert_seeks(fd, 3, 3, 6);
    assert_int_equal(pwrite(fd, "x", 1, 100000), 1);
    assert_seeks(fd, 6, 6, 4096);
    must(fsync(fd));
    assert_seeks(fd, 6, 6, 4096);
    must(close(fd));
}

static void test_seeks_in_what_is_built(void **state)
{
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    assert_int_equal(pwrite(fd, data, sizeof(data), 1 << 20), sizeof(data));
    assert_int_equal(pwrite(fd, data, 1, 9 << 20), 1);
    assert_seeks(fd, 0, 1 << 20, 0);
    assert_seeks(fd, 2 << 20, 2 << 20, 4 << 20);
    assert_seeks(fd, 4 << 20, 9 << 20, 4 << 20);
    must(close(fd));
}

static void test_copies(void **state)
{
    static uint8_t expected[SIZE + 5000];
    off_t from = 1000, to = 2000;
    int source = prepare("source", 0, expected);
    backend_put(&backend, "target", data, SIZE);
    int target = must_open("target", O_RDWR);
    assert_int_equal(pwrite(source, "buffered", 8, 5000), 8);
    memcpy(expected + 5000, "buffered", 8);
    assert_int_equal(pwrite(target, "gone", 4, 7000), 4);
    backend_reset_counts(&backend);
    assert_int_equal(copy_file_range(source, &from, target, &to, 1 << 30, 0),
                     SIZE - 1000);
    assert_int_equal(backend_count(&backend, FS_COPY), 1);
    memmove(expected + 2000, expected + 1000, SIZE - 1000);
    memcpy(expected, data, 2000);
    assert_shows(target, expected, SIZE + 1000);
    assert_committed("target", expected, SIZE + 1000);
    assert_int_equal(from, SIZE);
    assert_int_equal(copy_file_range(source, &from, target, &to, 10, 0), 0);
    from = 3000, to = 200000;
    assert_int_equal(copy_file_range(target, &from, target, &to, 1000, 0), 1000);
    memcpy(expected + 200000, expected + 3000, 1000);
    assert_shows(target, expected, SIZE + 1000);
    from = 3000, to = 3500;
    assert_fails((int)copy_file_range(target, &from, target, &to, 1000, 0), EINVAL);
    close(source);
    close(target);
}

static void test_copies_of_holes(void **state)
{
    const off_t size = (off_t)1 << 40;
    uint8_t got[4];
    int source = must_open("source", O_RDWR | O_CREAT);
    int target = must_open("target", O_RDWR | O_CREAT);
    must(ftruncate(source, size));
    assert_int_equal(pwrite(source, "data", 4, 5000000000), 4);
    must(fsync(source));
    backend_reset_counts(&backend);
    off_t at = 0;
    while (at < size)
        assert_true(copy_file_range(source, &at, target, NULL, (size_t)(size - at), 0) >
                    0);
    assert_true(backend_count(&backend, FS_COPY) < 2048); /* ... not 2^20 */
    assert_int_equal(pread(target, got, 4, 5000000000), 4);
    assert_memory_equal(got, "data", 4);
    close(source);
    close(target);
}

/* A value in progress is nobody else's: the kernel copies it, by reading and writing. */
static void test_copies_of_what_is_unfinished(void **state)
{
    static uint8_t expected[SIZE];
    int source = prepare("source", O_TRUNC, expected);
    int target = must_open("target", O_RDWR | O_CREAT | O_TRUNC);
    assert_int_equal(pwrite(source, "new", 3, 10), 3);
    memcpy(expected + 10, "new", 3);
    off_t from = 0, to = 0;
    while (copy_file_range(source, &from, target, &to, SIZE, 0) > 0)
        ;
    assert_shows(target, expected, SIZE);
    assert_int_equal(backend_count(&backend, FS_COPY), 0);
    must(close(target));
    assert_committed("target", expected, SIZE);
    must(close(source));
}

static void test_failures(void **state)
{
    static uint8_t expected[SIZE];
    int fd = prepare("f", 0, expected), other = prepare("g", 0, expected);
    backend_fail(&backend, FS_ZERO, -EIO);
    assert_fails(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 100), EIO);
    backend_fail(&backend, FS_COPY, -ENOSPC);
    off_t from = 0, to = 10;
    assert_fails((int)copy_file_range(other, &from, fd, &to, 100, 0), ENOSPC);
    backend_fail(&backend, FS_WRITE, -EIO); /* what was buffered before */
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    assert_fails(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 100), EIO);
    backend_fail(&backend, 0, 0);
    must(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 100));
    must(close(fd) == 0 || errno == EIO ? 0 : -1);
    close(other);
}

static void punch_in_child(void)
{
    int fd = open(at("f"), O_RDWR);
    fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 100);
}

static void test_killed_callers(void **state)
{
    backend_put(&backend, "f", data, SIZE);
    backend_hold(&backend, true);
    pid_t pid = fork();
    if (pid == 0) {
        punch_in_child();
        _exit(0);
    }
    backend_await_queued(&backend, 1);
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid); /* else the alarm ends it */
    assert_true(WIFSIGNALED(status));
    backend_hold(&backend, false);
}

/* Private and shared mappings of a file that is cut. */
static void test_mappings(void **state)
{
    static uint8_t expected[SIZE];
    int fd = prepare("f", 0, expected);
    uint8_t *shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *own = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    assert_true(shared != MAP_FAILED && own != MAP_FAILED);
    own[50000] = 1;
    shared[50001] = 2;
    must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 40000, 40000));
    assert_int_equal(shared[50001], 0);
    assert_int_equal(shared[39999], data[39999]);
    assert_int_equal(own[50000], 1); /* it is its own since it was written to */
    shared[60000] = 3;
    must(msync(shared, SIZE, MS_SYNC));
    memset(expected + 40000, 0, 40000);
    expected[60000] = 3;
    assert_committed("f", expected, SIZE);
    munmap(shared, SIZE);
    munmap(own, SIZE);
    close(fd);
}

/* Another host's write, with the mtime that the file had. */
static void write_elsewhere(const char *name, uint64_t offset, const char *text)
{
    struct buf ranges = {0};
    struct fs_inode inode;
    struct fs_result result;
    assert_int_equal(backend_stat(&backend, name, &inode), 0);
    fs_range_add(&ranges, offset, text, strlen(text));
    struct fs_op op = {.type = FS_WRITE, .set = FS_SET_MTIME, .inode = inode.inode};
    op.mtime_ns = inode.mtime_ns;
    op.ranges = ranges.data;
    op.ranges_size = (uint32_t)ranges.length;
    assert_int_equal(backend_do(&backend, &op, &result), 0);
    buf_release(&ranges);
}

static size_t resident_pages(void *map)
{
    unsigned char pages[SIZE / 4096 + 1];
    size_t count = 0;
    must(mincore(map, SIZE, pages));
    for (size_t i = 0; i < sizeof(pages); i++)
        count += pages[i] & 1;
    return count;
}

/* The kernel keeps its pages over this host's own commits (M17), and over no others. */
static void test_pages_are_kept(void **state)
{
    static uint8_t expected[SIZE];
    char got[8] = "";
    int fd = prepare("f", 0, expected);
    void *map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    assert_shows(fd, expected, SIZE);
    assert_int_equal(pread(fd, got, 1, 0),
                     1); /* the kernel asks as a reader from now on */
    assert_shows(fd, expected, SIZE);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pwrite(fd, "x", 1, i * 20000), 1);
        expected[i * 20000] = 'x';
        assert_int_equal(pread(fd, got, 1, 100), 1);
        must(fsync(fd));
        assert_int_equal(pread(fd, got, 1, 100), 1);
        assert_int_equal(resident_pages(map), SIZE / 4096 + 1);
    }
    struct stat st;
    must(fstat(fd, &st)); /* the kernel is told the mtime that it keeps */
    assert_shows(fd, expected, SIZE);
    write_elsewhere("f", 250000, "there");
    assert_int_equal(pread(fd, got, 5, 250000), 5);
    assert_memory_equal(got, "there", 5);
    assert_int_equal(pwrite(fd, "x", 1, 7), 1); /* theirs in the midst of ours */
    write_elsewhere("f", 250000, "THERE");
    must(fsync(fd));
    assert_int_equal(pread(fd, got, 5, 250000), 5);
    assert_memory_equal(got, "THERE", 5);
    memcpy(expected + 250000, "THERE", 5);
    expected[7] = 'x';
    assert_shows(fd, expected, SIZE);
    munmap(map, SIZE);
    close(fd);
}

/* ---- A WRITE that is on its way ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool armed, held;
} way = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void way_set(bool armed)
{
    pthread_mutex_lock(&way.lock);
    way.armed = armed;
    pthread_cond_broadcast(&way.changed);
    pthread_mutex_unlock(&way.lock);
}

static void way_await(void)
{
    pthread_mutex_lock(&way.lock);
    while (!way.held)
        pthread_cond_wait(&way.changed, &way.lock);
    pthread_mutex_unlock(&way.lock);
}

/* In place of the C library's, for the mount too: a WRITE that was read from the kernel gets
 * no farther while that is armed. */
ssize_t read(int fd, void *to, size_t size)
{
    ssize_t got = syscall(SYS_read, fd, to, size);
    const struct fuse_in_header *header = to;
    if (got < (ssize_t)sizeof(*header) || size < MiB || header->opcode != FUSE_WRITE)
        return got;
    pthread_mutex_lock(&way.lock);
    way.held = way.armed;
    pthread_cond_broadcast(&way.changed);
    while (way.armed)
        pthread_cond_wait(&way.changed, &way.lock);
    way.held = false;
    pthread_mutex_unlock(&way.lock);
    return got;
}

static void *write_one(void *fd)
{
    return (void *)pwrite(*(int *)fd, "own", 3, 100);
}

static void drop_by_read(int fd)
{
    char got[8];
    write_elsewhere("f", 250000, "there");
    assert_int_equal(pread(fd, got, 5, 250000), 5);
}

static void drop_by_open(int fd)
{
    write_elsewhere("f", 250000, "there");
    must(close(must_open("f", O_RDONLY)));
}

static void drop_by_stat(int fd)
{
    struct stat st;
    write_elsewhere("f", 250000, "there");
    must(stat(at("f"), &st));
}

/* Pages that go while a WRITE is on its way are read anew without it: that lasts no longer
 * than until it is committed (K1). */
static void test_overtaken_writes(void **state)
{
    static void (*const drops[])(int fd) = {drop_by_read, drop_by_open, drop_by_stat};
    static uint8_t expected[SIZE];
    for (size_t i = 0; i < array_length(drops); i++) {
        pthread_t writer;
        void *written;
        char got[8] = "";
        int fd = prepare("f", 0, expected);
        assert_int_equal(pread(fd, got, 1, 0), 1);
        assert_shows(fd, expected, SIZE);
        way_set(true);
        assert_int_equal(pthread_create(&writer, NULL, write_one, &fd), 0);
        way_await();
        drops[i](fd);
        assert_int_equal(pread(fd, got, 3, 100), 3);
        assert_memory_equal(got, data + 100, 3);
        way_set(false);
        assert_int_equal(pthread_join(writer, &written), 0);
        assert_int_equal((intptr_t)written, 3);
        must(fsync(fd));
        assert_int_equal(pread(fd, got, 3, 100), 3);
        assert_memory_equal(got, "own", 3);
        close(fd);
    }
}

/* A file that the kernel has under two numbers, each with pages of its own. */
static void test_pages_of_two_inodes(void **state)
{
    static uint8_t expected[SIZE];
    char got[4] = "";
    int fd = must_open("g", O_RDWR | O_CREAT | O_TRUNC);
    assert_int_equal(pwrite(fd, data, SIZE, 0), SIZE);
    backend_put(&backend, "g", "theirs", 6);
    must(fsync(fd));
    memcpy(expected, data, SIZE);
    int other = must_open("g", O_RDWR);
    const int both[] = {fd, other};
    for (int i = 0; i < 10; i++) {
        int writer = both[i % 2], reader = both[1 - i % 2];
        assert_int_equal(pread(reader, got, 1, 0), 1);
        assert_shows(reader, expected, SIZE);
        for (int j = 0; j < 2; j++) {
            assert_int_equal(pwrite(writer, &"abcdefghijklmnopqrst"[i * 2 + j], 1, i + j),
                             1);
            expected[i + j] = (uint8_t) "abcdefghijklmnopqrst"[i * 2 + j];
            assert_int_equal(pread(reader, got, 2, i), 2);
            assert_memory_equal(got, expected + i, 2);
        }
        must(fsync(writer));
        assert_int_equal(pread(reader, got, 2, i), 2);
        assert_memory_equal(got, expected + i, 2);
    }
    close(fd);
    close(other);
}

static void test_texts(void **state)
{
    int fd = open(at(".tierce/status"), O_RDONLY);
    int to = must_open("f", O_RDWR | O_CREAT);
    must(fd);
    assert_int_equal(lseek(fd, 3, SEEK_DATA), 3);
    assert_true(lseek(fd, 3, SEEK_HOLE) > 3);
    must((int)copy_file_range(fd, NULL, to, NULL, 100, 0));
    close(fd);
    close(to);
}

#define mounted(test) cmocka_unit_test_setup_teardown(test, set_up, mount_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        mounted(test_holes),
        mounted(test_room),
        mounted(test_hole_in_what_is_built),
        mounted(test_large_hole),
        mounted(test_seeks),
        mounted(test_seeks_in_what_is_built),
        mounted(test_copies),
        mounted(test_copies_of_holes),
        mounted(test_copies_of_what_is_unfinished),
        mounted(test_failures),
        mounted(test_killed_callers),
        mounted(test_mappings),
        mounted(test_pages_are_kept),
        mounted(test_overtaken_writes),
        mounted(test_pages_of_two_inodes),
        mounted(test_texts),
    };
    uint64_t random = 5;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(1 + random_next(&random) % 255);
    mount_tests_begin(argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mount_tests_end();
    return failed;
}
