/* test_mount.c - a real FUSE mount over a name space in memory: what programs see, which
 * operations they cause (K10, K11, K12, K14, K16), how it starts and ends. */
#include "mount_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- Helpers ---- */

/* What is to happen before the view is asked next, in the thread that asks it. */
static int fsync_before_view = -1;

static void before_view(void *arg)
{
    int fd = __atomic_exchange_n(&fsync_before_view, -1, __ATOMIC_SEQ_CST);
    if (fd >= 0)
        fsync(fd);
}

static int fsync_after_get = -1;

static void after_get(void)
{
    int fd = __atomic_exchange_n(&fsync_after_get, -1, __ATOMIC_SEQ_CST);
    if (fd >= 0)
        fsync(fd);
}

static int set_up(void **state)
{
    alarm(MOUNT_TEST_SECONDS);
    backend_start(&backend);
    backend.memory.before = before_view;
    backend.after_get = after_get;
    return mount_up(NULL);
}

static int must_open(const char *name, int flags)
{
    int fd = open(at(name), flags | O_CLOEXEC, 0644);
    must(fd);
    return fd;
}

static void must_write(int fd, const void *data, size_t size)
{
    assert_int_equal(write(fd, data, size), size);
}

/* Runs a command with $D set to the mount. */
static int run(const char *shell, const char *command)
{
    pid_t pid = fork();
    if (pid == 0) {
        setenv("D", directory, 1);
        execlp(shell, shell, "-c", command, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void assert_value(const char *name, const char *expected)
{
    size_t size = 0;
    char *value = backend_value(&backend, name, &size);
    assert_non_null(value);
    assert_string_equal(value, expected);
    free(value);
}

static void assert_reads(const char *name, const char *expected)
{
    char text[256] = "";
    int fd = must_open(name, O_RDONLY);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    must((int)n);
    text[n] = '\0';
    close(fd);
    assert_string_equal(text, expected);
}

static void fill(uint8_t *to, size_t size, uint64_t seed)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t r = random_next(&seed);
        memcpy(to + i, &r, min_u64(8, size - i));
    }
}

static void assert_bytes(const char *name, const uint8_t *expected, size_t size)
{
    size_t got = 0;
    char *value = backend_value(&backend, name, &got);
    assert_non_null(value);
    assert_int_equal(got, size);
    assert_memory_equal(value, expected, size);
    free(value);
    uint8_t *read_back = malloc(size + 1);
    int fd = must_open(name, O_RDONLY);
    size_t done = 0;
    for (ssize_t n; (n = read(fd, read_back + done, size + 1 - done)) > 0;)
        done += (size_t)n;
    close(fd);
    assert_int_equal(done, size);
    assert_memory_equal(read_back, expected, size);
    free(read_back);
}

/* ---- Names ---- */

static void test_names(void **state)
{
    struct stat st;
    char target[64] = "";
    must(mkdir(at("d"), 0750));
    must(stat(at("d"), &st));
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0750);
    assert_int_equal(mkdir(at("d"), 0750), -1);
    assert_int_equal(errno, EEXIST);
    must(symlink("where/to", at("d/link")));
    assert_int_equal(readlink(at("d/link"), target, sizeof(target) - 1), 8);
    assert_string_equal(target, "where/to");
    must(mkfifo(at("d/fifo"), 0600));
    must(stat(at("d/fifo"), &st));
    assert_true(S_ISFIFO(st.st_mode));
    must(mknod(at("d/null"), S_IFCHR | 0600, makedev(1, 3)));
    must(stat(at("d/null"), &st));
    assert_int_equal(st.st_rdev, makedev(1, 3));
    assert_int_equal(rmdir(at("d")), -1);
    assert_int_equal(errno, ENOTEMPTY);
    must(rename(at("d"), at("e")));
    assert_int_equal(stat(at("d"), &st), -1);
    must(unlink(at("e/link")));
    must(unlink(at("e/fifo")));
    must(unlink(at("e/null")));
    must(rmdir(at("e")));
    assert_int_equal(unlink(at("nothing")), -1);
    assert_int_equal(errno, ENOENT);
}

static void test_links(void **state)
{
    struct stat st, other;
    assert_int_equal(run("sh", "mkdir $D/d; echo v > $D/f; ln $D/f $D/d/g"), 0);
    must(stat(at("f"), &st));
    must(stat(at("d/g"), &other));
    assert_int_equal(st.st_ino, other.st_ino);
    assert_int_equal(other.st_nlink, 2);
    assert_int_equal(link(at("d"), at("e")), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(link(at("f"), at("d/g")), -1);
    assert_int_equal(errno, EEXIST);
    must(unlink(at("f")));
    assert_reads("d/g", "v\n");
    must(stat(at("d/g"), &st));
    assert_int_equal(st.st_nlink, 1);
    must(mkfifo(at("fifo"), 0600));
    must(link(at("fifo"), at("d/fifo")));
    must(symlink("to", at("s")));
    must(link(at("s"), at("d/s")));
    must(lstat(at("d/s"), &st));
    assert_int_equal(st.st_nlink, 2);
}

static void test_long_names(void **state)
{
    char name[300];
    memset(name, 'n', sizeof(name));
    name[255] = '\0';
    must(mkdir(at(name), 0700));
    must(rmdir(at(name)));
    name[255] = 'n';
    name[256] = '\0';
    assert_int_equal(mkdir(at(name), 0700), -1);
    assert_int_equal(errno, ENAMETOOLONG);
}

static void test_rename_flags(void **state)
{
    assert_int_equal(run("sh", "echo a > $D/a; echo b > $D/b"), 0);
    assert_int_equal(renameat2(AT_FDCWD, at("a"), AT_FDCWD, at("b"), RENAME_NOREPLACE),
                     -1);
    assert_int_equal(errno, EEXIST);
    int fd = must_open("b", O_RDWR);
    must(renameat2(AT_FDCWD, at("a"), AT_FDCWD, at("b"), RENAME_EXCHANGE));
    must_write(fd, "B", 1); /* it has a name still */
    must(close(fd));
    assert_value("a", "B\n");
    assert_reads("b", "a\n");
    must(rename(at("b"), at("a")));
    assert_reads("a", "a\n");
    assert_int_equal(renameat2(AT_FDCWD, at("a"), AT_FDCWD, at("b"), RENAME_EXCHANGE),
                     -1);
    assert_int_equal(errno, ENOENT);
    fd = must_open("pending", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "new", 3);
    must(renameat2(AT_FDCWD, at("pending"), AT_FDCWD, at("a"), RENAME_EXCHANGE));
    assert_value("a", "new");
    assert_value("pending", "a\n");
    must(close(fd));
}

static void test_attributes(void **state)
{
    struct stat st;
    struct timespec times[2] = {{.tv_sec = 1000, .tv_nsec = 5}, {.tv_sec = 2000}};
    backend_put(&backend, "f", "value", 5);
    must(chmod(at("f"), 0604));
    must(chown(at("f"), 12, 34));
    must(utimensat(AT_FDCWD, at("f"), times, 0));
    must(stat(at("f"), &st));
    assert_int_equal(st.st_mode, S_IFREG | 0604);
    assert_int_equal(st.st_uid, 12);
    assert_int_equal(st.st_gid, 34);
    assert_int_equal(st.st_atim.tv_sec, 1000);
    assert_int_equal(st.st_atim.tv_nsec, 5);
    assert_int_equal(st.st_mtim.tv_sec, 2000);
    must(truncate(at("f"), 2));
    assert_reads("f", "va");
    must(truncate(at("f"), 4));
    must(stat(at("f"), &st));
    assert_int_equal(st.st_size, 4);
    assert_int_equal(truncate(at("f"), (off_t)LIMIT_FILE_BYTES + 1), -1);
    assert_int_equal(errno, EFBIG);
    struct statvfs vfs;
    must(statvfs(directory, &vfs));
    assert_int_equal(vfs.f_blocks, 4 * GiB / 4096);
    assert_int_equal(vfs.f_namemax, 255);
}

/* Other hosts' changes are seen by the next call: nothing is cached. */
static void test_remote_changes(void **state)
{
    backend_put(&backend, "f", "one", 3);
    assert_reads("f", "one");
    backend_put(&backend, "f", "another", 7);
    assert_reads("f", "another");
    int fd = must_open("f", O_RDONLY);
    char text[16] = "";
    assert_int_equal(pread(fd, text, 16, 0), 7);
    backend_put(&backend, "f", "changed", 7);
    assert_int_equal(pread(fd, text, 16, 0), 7);
    assert_string_equal(text, "changed");
    close(fd);
}

/* A mapping never asks (K1): only a notification takes its page away. */
static void test_a_replaced_state_drops_pages(void **state)
{
    backend_put(&backend, "f", "one", 3);
    int fd = must_open("f", O_RDONLY);
    const volatile char *page = mmap(NULL, 3, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(page != MAP_FAILED);
    assert_int_equal(page[0], 'o');
    backend_put(&backend, "f", "two", 3);
    assert_int_equal(page[0], 'o');
    fs_mount_replaced(mount_);
    uint64_t deadline = clock_boot_us() + 60 * 1000 * 1000;
    while (page[0] != 't' && clock_boot_us() < deadline)
        usleep(1000);
    assert_int_equal(page[0], 't');
    munmap((void *)page, 3);
    close(fd);
}

/* ---- K10: one operation, and never an empty value ---- */

static void check_one_operation(const char *shell, const char *command, const char *value)
{
    strcpy(backend.watched, "f");
    for (int existing = 0; existing < 2; existing++) {
        backend_reset_counts(&backend);
        assert_int_equal(run(shell, command), 0);
        assert_value("f", value);
        assert_reads("f", value);
        if (backend_total(&backend) != 1 || backend.empties)
            fail_msg("%s: %s (existing: %d): %u operations, %u times empty", shell,
                     command, existing, backend_total(&backend), backend.empties);
    }
    must(unlink(at("f")));
}

static void test_shell_redirections(void **state)
{
    static const char *const shells[] = {"dash", "bash"};
    for (size_t i = 0; i < array_length(shells); i++) {
        const char *shell = shells[i];
        check_one_operation(shell, "echo v > $D/f", "v\n");
        check_one_operation(shell, "/bin/echo v > $D/f", "v\n");
        check_one_operation(shell, "(echo a; echo b) > $D/f", "a\nb\n");
        check_one_operation(shell, "{ echo a; echo b; } > $D/f", "a\nb\n");
        check_one_operation(shell, "exec 3> $D/f; echo x >&3; exec 3>&-", "x\n");
        check_one_operation(shell, "printf %s v | tee $D/f > /dev/null", "v");
        check_one_operation(shell, "printf %s v | dd of=$D/f status=none", "v");
    }
}

static void test_programs(void **state)
{
    check_one_operation("sh", "printf %s v > $D.v && cat $D.v > $D/f", "v");
    check_one_operation(
        "sh", "python3 -c \"import os; open(os.environ['D'] + '/f', 'w').write('p')\"",
        "p");
    backend_put(&backend, "f", "old", 3);
    backend_reset_counts(&backend);
    assert_int_equal(run("sh", "cp $D.v $D/f && rm $D.v"), 0);
    assert_int_equal(backend_total(&backend), 1);
    assert_int_equal(backend.empties, 0);
    assert_value("f", "v");
}

/* An empty value is one all the same, once it is clear that nothing follows. */
static void test_empty_values(void **state)
{
    backend_put(&backend, "f", "old", 3);
    assert_int_equal(run("dash", ": > $D/f"), 0);
    assert_value("f", "");
    assert_int_equal(run("bash", ": > $D/g"), 0);
    assert_value("g", "");
    backend_put(&backend, "f", "old", 3);
    int fd = must_open("f", O_WRONLY | O_TRUNC);
    close(fd); /* no other descriptor: published here */
    assert_value("f", "");
    backend_put(&backend, "f", "old", 3);
    fd = must_open("f", O_WRONLY | O_TRUNC);
    int copy = dup(fd);
    close(copy);
    assert_value("f", "old");
    must(fsync(fd));
    assert_value("f", "");
    close(fd);
}

/* A late RELEASE, or another handle's close, must not publish another's new emptiness. */
static void test_no_foreign_emptiness(void **state)
{
    backend_put(&backend, "f", "old", 3);
    int a = must_open("f", O_WRONLY);
    must_write(a, "OLD", 3);
    int b = must_open("f", O_WRONLY | O_TRUNC);
    close(a);
    strcpy(backend.watched, "f");
    backend_reset_counts(&backend);
    must_write(b, "new", 3);
    must(close(b));
    assert_value("f", "new");
    assert_int_equal(backend.empties, 0);
    for (int i = 0; i < 100; i++) {
        int fd = must_open("f", O_WRONLY | O_TRUNC);
        must_write(fd, "v", 1);
        must(close(fd));
    }
    assert_int_equal(backend.empties, 0);
}

/* ---- Pending names ---- */

static bool listed(const char *name)
{
    DIR *dir = opendir(directory);
    bool found = false;
    for (struct dirent *d; (d = readdir(dir));)
        found |= strcmp(d->d_name, name) == 0;
    closedir(dir);
    return found;
}

static void test_pending_is_local(void **state)
{
    struct stat st;
    struct fs_inode inode;
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "abc", 3);
    assert_int_equal(backend_total(&backend), 0);
    assert_int_equal(backend_stat(&backend, "f", &inode), -ENOENT);
    must(stat(at("f"), &st));
    assert_int_equal(st.st_size, 3);
    assert_reads("f", "abc");
    assert_true(listed("f"));
    must(fchmod(fd, 0640));
    must(fchown(fd, 7, 8));
    struct timespec times[2] = {{.tv_sec = 100}, {.tv_sec = 200}};
    must(futimens(fd, times));
    must(stat(at("f"), &st));
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(st.st_mtim.tv_sec, 200);
    must(close(fd));
    assert_int_equal(backend_total(&backend), 1);
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    assert_int_equal(inode.mode & 07777, 0640);
    assert_int_equal(inode.uid, 7);
    assert_int_equal(inode.gid, 8);
    assert_int_equal(inode.mtime_ns, 200 * 1000000000ll);
    assert_int_equal(inode.inode, st.st_ino);
    assert_value("f", "abc");
}

static void test_pending_is_made_first(void **state)
{
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "abc", 3);
    assert_int_equal(mkdir(at("f"), 0700), -1);
    assert_int_equal(errno, EEXIST);
    close(fd);
    fd = must_open("g", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "def", 3);
    must(rename(at("g"), at("h")));
    assert_value("h", "def");
    must_write(fd, "ghi", 3);
    close(fd);
    assert_value("h", "defghi");
    must(mkdir(at("d"), 0700));
    fd = must_open("d/x", O_RDWR | O_CREAT | O_TRUNC);
    assert_int_equal(rmdir(at("d")), -1);
    assert_int_equal(errno, ENOTEMPTY);
    must(unlink(at("d/x")));
    must_write(fd, "gone", 4);
    must(close(fd));
    must(rmdir(at("d")));
    assert_int_equal(open(at("f"), O_CREAT | O_EXCL | O_WRONLY, 0600), -1);
    assert_int_equal(errno, EEXIST);
}

/* Another host makes the name while it is pending here: the handle goes on there. */
static void test_pending_made_elsewhere(void **state)
{
    struct fs_inode inode;
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "mine", 4);
    backend_put(&backend, "f", "theirs", 6);
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    uint64_t number = inode.inode;
    must(fsync(fd));
    assert_value("f", "mine");
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    assert_int_equal(inode.inode, number);
    must_write(fd, " more", 5);
    char text[16] = "";
    assert_int_equal(pread(fd, text, 16, 0), 9);
    assert_string_equal(text, "mine more");
    must(fsync(fd));
    assert_value("f", "mine more");
    must(ftruncate(fd, 4));
    assert_value("f", "mine");
    backend_put(&backend, "f", "changed", 7);
    assert_int_equal(pread(fd, text, 16, 0), 7);
    must(close(fd));
    assert_reads("f", "changed");
}

static void assert_mode(const char *name, mode_t mode)
{
    struct stat st;
    struct fs_inode inode;
    must(stat(at(name), &st));
    assert_int_equal(st.st_mode & 07777, mode);
    assert_int_equal(backend_stat(&backend, name, &inode), 0);
    assert_int_equal(inode.mode & 07777, mode);
}

/* An open with O_TRUNC by another user drops set-id bits, together with the value. */
static void test_setid_and_truncation(void **state)
{
    struct stat st;
    backend_put(&backend, "f", "program", 7);
    for (int root = 0; root < 2; root++)
        for (int size = 0; size < 2; size++) {
            must(chmod(at("f"), 06777));
            setfsuid(root ? 0 : 65534);
            int fd = open(at("f"), O_WRONLY | O_TRUNC | O_CLOEXEC);
            setfsuid(0);
            must(fd);
            if (size)
                must_write(fd, "other", 5);
            must(fstat(fd, &st));
            assert_int_equal(st.st_mode & 07777, root ? 06777 : 0777);
            must(close(fd));
            assert_mode("f", root ? 06777 : 0777);
        }
    must(chmod(at("f"),
               02767)); /* nobody executes it as the group: that bit says nothing */
    setfsuid(65534);
    int fd = open(at("f"), O_WRONLY | O_TRUNC | O_CLOEXEC);
    setfsuid(0);
    must(fd);
    must(close(fd));
    assert_mode("f", 02767);
    must(chmod(at("f"), 06777)); /* times that are set meanwhile do not undo it */
    setfsuid(65534);
    fd = open(at("f"), O_WRONLY | O_TRUNC | O_CLOEXEC);
    setfsuid(0);
    must(fd);
    must_write(fd, "x", 1);
    must(fstat(fd, &st));
    assert_int_equal(st.st_mode & 07777, 0777);
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    must(futimens(fd, times));
    must(close(fd));
    assert_mode("f", 0777);
}

/* What gets a second name is made first, and under the number that it has by then. */
static void test_link_of_a_pending_name(void **state)
{
    struct stat st;
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "mine", 4);
    must(link(at("f"), at("g")));
    assert_value("g", "mine");
    must(fstat(fd, &st));
    assert_int_equal(st.st_nlink, 2);
    must(close(fd));
    fd = must_open("x", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "mine", 4);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    backend_put(&backend, "x", "theirs", 6);
    must(linkat(AT_FDCWD, path, AT_FDCWD, at("y"), AT_SYMLINK_FOLLOW));
    struct fs_inode x, y;
    assert_int_equal(backend_stat(&backend, "x", &x), 0);
    assert_int_equal(backend_stat(&backend, "y", &y), 0);
    assert_int_equal(x.inode, y.inode);
    assert_int_equal(x.nlink, 2);
    must_write(fd, " more", 5);
    must(close(fd));
    assert_reads("y", "mine more");
}

static void test_group_of_directory(void **state)
{
    struct stat before, after;
    must(mkdir(at("d"), 0700));
    must(chown(at("d"), 0, 77));
    must(chmod(at("d"), 02770));
    int fd = must_open("d/f", O_WRONLY | O_CREAT | O_TRUNC);
    must(fstat(fd, &before));
    must(close(fd));
    must(stat(at("d/f"), &after));
    assert_int_equal(before.st_gid, 77);
    assert_int_equal(after.st_gid, 77);
}

static void test_no_reserved_inodes(void **state)
{
    pthread_mutex_lock(&backend.lock);
    backend.no_inodes = true;
    pthread_mutex_unlock(&backend.lock);
    assert_int_equal(run("dash", "echo v > $D/f"), 0);
    assert_value("f", "v\n");
    assert_int_equal(backend_count(&backend, FS_MAKE), 1);
    int fd = must_open("g", O_WRONLY | O_CREAT | O_EXCL);
    close(fd);
    assert_value("g", "");
}

/* ---- K11: several handles ---- */

static void test_two_handles(void **state)
{
    char text[16] = "";
    struct stat st;
    backend_put(&backend, "f", "0123456789", 10);
    int a = must_open("f", O_RDWR), b = must_open("f", O_RDWR);
    assert_int_equal(pwrite(a, "AB", 2, 2), 2);
    assert_int_equal(pread(b, text, 16, 0), 10);
    assert_string_equal(text, "01AB456789");
    assert_int_equal(pwrite(b, "xyz", 3, 9), 3);
    must(fstat(a, &st));
    assert_int_equal(st.st_size, 12);
    must(ftruncate(a, 4));
    assert_value("f", "01AB");
    assert_int_equal(pwrite(b, "z", 1, 6), 1);
    must(close(a));
    must(close(b));
    assert_bytes("f", (const uint8_t *)"01AB\0\0z", 7);
}

/* From a local O_TRUNC on, everybody here sees the new value; nobody elsewhere does. */
static void test_replacing_is_shared_here(void **state)
{
    char text[16] = "";
    backend_put(&backend, "f", "old value", 9);
    int reader = must_open("f", O_RDONLY);
    int a = must_open("f", O_RDWR | O_TRUNC);
    must_write(a, "new", 3);
    assert_int_equal(pread(reader, text, 16, 0), 3);
    assert_reads("f", "new");
    assert_value("f", "old value");
    must(ftruncate(a, 5));
    assert_value("f", "old value");
    must(chmod(at("f"), 0600)); /* carries the value with it */
    assert_bytes("f", (const uint8_t *)"new\0\0", 5);
    assert_int_equal(pwrite(a, "!", 1, 5), 1);
    must(close(a));
    assert_bytes("f", (const uint8_t *)"new\0\0!", 6);
    close(reader);
}

static void test_attributes_of_unwritten_replacement(void **state)
{
    backend_put(&backend, "f", "old", 3);
    int fd = must_open("f", O_WRONLY | O_TRUNC);
    must(fchmod(fd, 0600));
    assert_value("f", "old");
    assert_int_equal(backend_count(&backend, FS_SETATTR), 1);
    must_write(fd, "new", 3);
    must(close(fd));
    assert_value("f", "new");
    struct fs_inode inode;
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    assert_int_equal(inode.mode & 07777, 0600);
}

static void test_times_are_kept(void **state)
{
    struct stat st;
    assert_int_equal(run("sh",
                         "t=$(mktemp) && chmod 644 $t && echo data > $t && "
                         "touch -d @12345 $t && cp -p $t $D/new && echo old > $D/f && "
                         "cp -p $t $D/f && rm $t"),
                     0);
    must(stat(at("new"), &st));
    assert_int_equal(st.st_mtim.tv_sec, 12345);
    must(stat(at("f"), &st));
    assert_int_equal(st.st_mtim.tv_sec, 12345);
    assert_reads("f", "data\n");
    /* data buffered, then the time: one operation, in that order */
    int fd = must_open("f", O_WRONLY);
    backend_reset_counts(&backend);
    must_write(fd, "DA", 2);
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    must(futimens(fd, times));
    must(close(fd));
    assert_int_equal(backend_total(&backend), 1);
    must(stat(at("f"), &st));
    assert_int_equal(st.st_mtim.tv_sec, 2);
    assert_reads("f", "DAta\n");
}

/* tar does so with an empty file that was there: the commit of the empty value comes after. */
static void test_times_of_an_emptied_file(void **state)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 2, .tv_nsec = 3}};
    struct stat st;
    for (int writes_after = 0; writes_after < 2; writes_after++) {
        backend_put(&backend, "f", "old", 3);
        int fd = must_open("f", O_WRONLY | O_TRUNC);
        must(futimens(fd, times));
        must(fchown(fd, 1, 1));
        must(fstat(fd, &st));
        assert_int_equal(st.st_mtim.tv_sec, 2);
        if (writes_after)
            must_write(fd, "new", 3);
        must(fstat(fd, &st));
        assert_int_equal(st.st_mtim.tv_sec == 2, !writes_after);
        must(close(fd));
        must(stat(at("f"), &st));
        assert_int_equal(st.st_mtim.tv_sec == 2, !writes_after);
        assert_int_equal(st.st_mtim.tv_nsec == 3, !writes_after);
        assert_value("f", writes_after ? "new" : "");
    }
    int fd = must_open("f", O_WRONLY | O_TRUNC);
    must(futimens(fd, times));
    must(close(must_open("f", O_WRONLY | O_TRUNC)));
    must(close(fd));
    must(stat(at("f"), &st));
    assert_int_not_equal(st.st_mtim.tv_sec, 2);
}

/* K16: shown constant while it is buffered, so that the kernel keeps its pages. */
static void test_mtime_is_constant_while_buffered(void **state)
{
    struct stat first, second;
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "a", 1);
    must(fstat(fd, &first));
    for (uint64_t until = clock_boot_us() + 2000; clock_boot_us() < until;)
        must_write(fd, "b", 1);
    must(fstat(fd, &second));
    assert_int_equal(first.st_mtim.tv_nsec, second.st_mtim.tv_nsec);
    must(close(fd));
}

static void assert_times_stay(const char *name, const struct stat *shown,
                              const char *what)
{
    struct fs_inode inode;
    struct stat st;
    must(stat(at(name), &st));
    assert_int_equal(backend_stat(&backend, name, &inode), 0);
    int64_t mtime = shown->st_mtim.tv_sec * 1000000000 + shown->st_mtim.tv_nsec;
    int64_t ctime = shown->st_ctim.tv_sec * 1000000000 + shown->st_ctim.tv_nsec;
    if (inode.mtime_ns != mtime || inode.ctime_ns != ctime)
        fail_msg("%s: mtime +%lld, ctime +%lld at the commit", what,
                 (long long)(inode.mtime_ns - mtime),
                 (long long)(inode.ctime_ns - ctime));
    assert_memory_equal(&st.st_mtim, &shown->st_mtim, sizeof(st.st_mtim));
    assert_memory_equal(&st.st_ctim, &shown->st_ctim, sizeof(st.st_ctim));
}

/* M23: the commit makes of them what was shown. */
static void test_times_outlive_the_commit(void **state)
{
    struct stat st;
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "a", 1);
    must(fstat(fd, &st));
    must(close(fd));
    assert_times_stay("f", &st, "made");
    struct stat made = st;
    must(stat(at("f"), &st));
    assert_memory_equal(&st.st_atim, &made.st_atim, sizeof(st.st_atim));

    fd = must_open("f", O_RDWR);
    must_write(fd, "b", 1);
    must(fstat(fd, &st));
    must(fsync(fd));
    assert_times_stay("f", &st, "written");
    must_write(fd, "c", 1);
    must(stat(at("f"), &st));
    must(close(fd));
    assert_times_stay("f", &st, "written again");

    fd = must_open("f", O_RDWR | O_TRUNC);
    must_write(fd, "d", 1);
    must(fstat(fd, &st));
    must(close(fd));
    assert_times_stay("f", &st, "replaced");
}

/* The committed ctime is ahead of this host's clock: what is shown is behind it, and stays. */
static void test_times_behind_the_leader_s(void **state)
{
    struct fs_result result;
    struct fs_inode inode;
    struct stat st;
    backend_put(&backend, "f", "12", 2);
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    struct buf ranges = {0};
    fs_range_add(&ranges, 0, "34", 2);
    struct fs_op op = {.type = FS_WRITE,
                       .set = FS_SET_WRITTEN,
                       .inode = inode.inode,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    op.written_ns = op.changed_ns = (int64_t)clock_real_us() * 1000 + 40000000000;
    assert_int_equal(backend_do(&backend, &op, &result), 0);
    buf_release(&ranges);
    int fd = must_open("f", O_RDWR);
    must_write(fd, "b", 1);
    must(stat(at("f"), &st));
    assert_int_equal(st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
                     op.written_ns + 1);
    must(close(fd));
    assert_times_stay("f", &st, "written");
}

/* ---- K12: appends ---- */

static void test_appends(void **state)
{
    assert_int_equal(run("sh", "echo a > $D/f; echo b >> $D/f; echo c >> $D/f"), 0);
    assert_value("f", "a\nb\nc\n");
    int a = must_open("f", O_WRONLY | O_APPEND), b = must_open("f", O_RDWR | O_APPEND);
    for (int i = 0; i < 50; i++) {
        must_write(a, "A", 1);
        must_write(b, "B", 1);
    }
    must(close(a));
    char text[200] = "";
    assert_int_equal(pread(b, text, sizeof(text), 0), 106);
    must(close(b));
    assert_int_equal(strspn(text + 6, "AB"), 100);
    size_t size = 0;
    char *value = backend_value(&backend, "f", &size);
    assert_int_equal(size, 106);
    assert_memory_equal(value, text, 106);
    free(value);
}

/* Another host's append comes first: ours goes behind it, and is seen there. */
static void test_append_lands_elsewhere(void **state)
{
    char text[32] = "";
    struct fs_result result;
    struct fs_inode inode;
    struct buf ranges = {0};
    backend_put(&backend, "f", "12", 2);
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    int fd = must_open("f", O_RDWR | O_APPEND);
    backend_hold(&backend, true); /* whatever the timer does meanwhile */
    must_write(fd, "mine", 4);
    fs_range_add(&ranges, 0, "theirs", 6);
    struct fs_op op = {.type = FS_WRITE,
                       .flags = FS_APPEND,
                       .inode = inode.inode,
                       .ranges = ranges.data,
                       .ranges_size = (uint32_t)ranges.length};
    assert_int_equal(backend_do(&backend, &op, &result), 0);
    buf_release(&ranges);
    backend_hold(&backend, false);
    must(fsync(fd));
    assert_value("f", "12theirsmine");
    assert_int_equal(pread(fd, text, 32, 0), 12);
    assert_string_equal(text, "12theirsmine");
    assert_int_equal(pwrite(fd, "x", 1, 0), 1); /* Linux appends here too */
    must(close(fd));
    assert_value("f", "12theirsminex");
}

static void test_append_set_later(void **state)
{
    backend_put(&backend, "f", "12", 2);
    int fd = must_open("f", O_WRONLY);
    must(fcntl(fd, F_SETFL, O_APPEND));
    must_write(fd, "34", 2);
    must(close(fd));
    assert_value("f", "1234");
}

/* ---- Large values ---- */

static void test_large_values(void **state)
{
    size_t size = 5 * MiB + 12345;
    uint8_t *data = malloc(size);
    fill(data, size, 11);
    strcpy(backend.watched, "big");
    for (int existing = 0; existing < 2; existing++) {
        backend_reset_counts(&backend);
        int fd = must_open("big", O_RDWR | O_CREAT | O_TRUNC);
        for (size_t done = 0; done < size;) {
            ssize_t n = write(fd, data + done, min_u64(size - done, 300000));
            must((int)n);
            done += (size_t)n;
        }
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, (off_t)size - 1), 1);
        assert_int_equal(byte, data[size - 1]);
        must(close(fd));
        assert_bytes("big", data, size);
        assert_true(backend_count(&backend, FS_BUILD) >= 4);
        assert_int_equal(backend_count(&backend, existing ? FS_REPLACE : FS_MAKE), 1);
        assert_int_equal(backend.empties, 0);
        data[77]++;
    }
    free(data);
}

static void test_large_random_writes(void **state)
{
    enum { SIZE = 3 << 20 };
    uint8_t *data = malloc(SIZE), block[5000];
    uint64_t seed = 99;
    fill(data, SIZE, 5);
    for (int truncates = 0; truncates < 2; truncates++) {
        int fd = must_open("f", O_RDWR | O_CREAT | (truncates ? O_TRUNC : 0));
        assert_int_equal(pwrite(fd, data, SIZE, 0), SIZE);
        for (int i = 0; i < 500; i++) {
            size_t length = 1 + random_next(&seed) % sizeof(block);
            size_t offset = random_next(&seed) % (SIZE - length);
            fill(block, length, i + 1);
            memcpy(data + offset, block, length);
            assert_int_equal(pwrite(fd, block, length, (off_t)offset), length);
            if (i % 100 == 50)
                must(fdatasync(fd));
        }
        must(close(fd));
        assert_bytes("f", data, SIZE);
    }
    free(data);
}

/* Cutting into what was built already, then growing again: what was cut is zeros. */
static void test_cut_of_a_large_replacement(void **state)
{
    size_t size = 3 * MiB;
    uint8_t *data = malloc(size);
    fill(data, size, 3);
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    assert_int_equal(write(fd, data, size), size);
    must(ftruncate(fd, 1000000));
    must(ftruncate(fd, 2000000));
    assert_int_equal(pwrite(fd, data, 10, 2500000), 10);
    memset(data + 1000000, 0, 1500000);
    memcpy(data + 2500000, data, 10);
    must(close(fd));
    assert_bytes("f", data, 2500010);
    fd = must_open("f", O_RDWR | O_TRUNC);
    assert_int_equal(write(fd, data, size), size);
    must(ftruncate(fd, 0));
    must(pwrite(fd, "tail", 4, 1500000) == 4 ? 0 : -1);
    must(close(fd));
    memset(data, 0, 1500000);
    memcpy(data + 1500000, "tail", 4);
    assert_bytes("f", data, 1500004);
    free(data);
}

static void test_file_limit(void **state)
{
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)LIMIT_FILE_BYTES), -1);
    assert_int_equal(errno, EFBIG);
    assert_int_equal(pwrite(fd, "xyz", 3, (off_t)LIMIT_FILE_BYTES - 1), 1);
    must(close(fd));
    struct stat st;
    must(stat(at("f"), &st));
    assert_int_equal(st.st_size, LIMIT_FILE_BYTES);
}

static void test_timer_commits(void **state)
{
    backend_put(&backend, "f", "old", 3);
    int fd = must_open("f", O_WRONLY);
    must_write(fd, "NEW", 3);
    pthread_mutex_lock(&backend.lock);
    while (!backend.total)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
    assert_value("f", "NEW");
    must(close(fd));
    assert_int_equal(backend_total(&backend), 1);
}

static void test_sync_writes(void **state)
{
    static const int flags[] = {O_SYNC, O_DSYNC, O_DIRECT};
    backend_put(&backend, "f", "old", 3);
    for (size_t i = 0; i < array_length(flags); i++) {
        char *block = NULL;
        assert_int_equal(posix_memalign((void **)&block, 4096, 4096), 0);
        memset(block, 'a' + (int)i, 4096);
        int fd = must_open("f", O_WRONLY | flags[i]);
        must_write(fd, block, 4096);
        size_t size = 0;
        char *value = backend_value(&backend, "f", &size);
        assert_int_equal(size, 4096);
        assert_memory_equal(value, block, 4096);
        free(value);
        free(block);
        must(close(fd));
    }
}

static void test_mapped_writes(void **state)
{
    backend_put(&backend, "f", "0123456789", 10);
    int fd = must_open("f", O_RDWR);
    char *map = mmap(NULL, 10, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    close(fd);
    memcpy(map + 3, "abc", 3);
    must(msync(map, 10, MS_SYNC));
    must(munmap(map, 10));
    assert_reads("f", "012abc6789");
    assert_int_equal(run("sh", "sync -f $D"), 0);
    pthread_mutex_lock(&backend.lock);
    while (!backend.total)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
    assert_value("f", "012abc6789");
}

/* ---- Errors ---- */

static void test_failed_commits(void **state)
{
    char text[16] = "";
    backend_put(&backend, "f", "old", 3);
    int fd = must_open("f", O_RDWR);
    volatile char *map = mmap(NULL, 3, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED && map[0] == 'o');
    backend_fail(&backend, FS_WRITE, -ENOSPC);
    assert_int_equal(pwrite(fd, "NEW", 3, 0), 3);
    assert_int_equal(map[0], 'N');
    assert_int_equal(fsync(fd), -1);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(map[0], 'o'); /* nothing asks for attributes here */
    must(munmap((void *)map, 3));
    assert_int_equal(pread(fd, text, 16, 0), 3);
    assert_string_equal(text, "old"); /* the kernel's pages went with the buffer */
    must(fsync(fd));                  /* told once */
    assert_int_equal(pwrite(fd, "NEW", 3, 0), 3);
    assert_int_equal(close(fd), -1);
    assert_int_equal(errno, ENOSPC);
    fd = must_open("f", O_WRONLY | O_SYNC);
    assert_int_equal(write(fd, "NEW", 3), -1);
    assert_int_equal(errno, ENOSPC);
    must(close(fd));
    backend_fail(&backend, FS_REPLACE, -EROFS);
    fd = must_open("f", O_RDWR | O_TRUNC);
    must_write(fd, "NEW", 3);
    assert_int_equal(close(fd), -1);
    assert_int_equal(errno, EROFS);
    assert_reads("f", "old");
}

/* The timer's commit has no caller: its error waits for fsync or close. */
/* Without a majority open says so, not only a close that nobody looks at. */
static void test_open_without_a_majority(void **state)
{
    backend_put(&backend, "f", "old", 3);
    backend.alone = true;
    backend_fail(&backend, FS_SETATTR, -EROFS);
    assert_int_equal(open(at("f"), O_WRONLY | O_TRUNC), -1);
    assert_int_equal(errno, EROFS);
    assert_int_equal(open(at("f"), O_WRONLY | O_APPEND), -1);
    assert_int_equal(errno, EROFS);
    must(close(must_open("f", O_RDONLY)));
    backend_fail(&backend, FS_MAKE, -EROFS);
    assert_int_equal(open(at("new"), O_WRONLY | O_CREAT | O_TRUNC, 0644), -1);
    assert_int_equal(errno, EROFS);
    size_t size;
    char *value = backend_value(&backend, "f", &size);
    assert_string_equal(value, "old");
    free(value);
    backend_fail(&backend, 0, 0); /* it is back before the node has noticed */
    int fd = must_open("f", O_WRONLY | O_TRUNC);
    must_write(fd, "new", 3);
    must(close(fd));
    value = backend_value(&backend, "f", &size);
    assert_string_equal(value, "new");
    free(value);
    backend.alone = false;
}

/* Without room so does what opens to replace or to append; what frees is let through. */
static void test_open_without_room(void **state)
{
    backend_put(&backend, "f", "old", 3);
    backend.full = true;
    backend_fail(&backend, FS_SETATTR, -ENOSPC);
    assert_int_equal(open(at("f"), O_WRONLY | O_TRUNC), -1);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(open(at("f"), O_WRONLY | O_APPEND), -1);
    assert_int_equal(errno, ENOSPC);
    must(close(must_open("f", O_RDONLY)));
    must(close(must_open("f", O_WRONLY)));
    backend_fail(&backend, FS_MAKE, -ENOSPC);
    assert_int_equal(open(at("new"), O_WRONLY | O_CREAT | O_TRUNC, 0644), -1);
    assert_int_equal(errno, ENOSPC);
    backend_fail(&backend, 0, 0);
    assert_reads("f", "old");
    must(truncate(at("f"), 0));
    assert_reads("f", "");
    int fd = must_open("f", O_WRONLY | O_TRUNC);
    must_write(fd, "new", 3);
    must(close(fd));
    assert_reads("f", "new");
    backend.full = false;
}

static void test_sticky_errors(void **state)
{
    backend_put(&backend, "f", "old", 3);
    int fd = must_open("f", O_RDWR), other = must_open("f", O_RDWR);
    backend_fail(&backend, FS_WRITE, -EIO);
    must_write(fd, "NEW", 3);
    pthread_mutex_lock(&backend.lock);
    while (!backend.failed)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
    must(close(other)); /* it has written nothing */
    assert_int_equal(close(fd), -1);
    assert_int_equal(errno, EIO);
}

static void test_failed_making(void **state)
{
    struct stat st;
    backend_fail(&backend, FS_MAKE, -EROFS);
    int fd = must_open("f", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "value", 5);
    assert_int_equal(fsync(fd), -1);
    assert_int_equal(errno, EROFS);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(errno, ESTALE);
    close(fd);
    assert_int_equal(stat(at("f"), &st), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(mkdir(at("d"), 0700), -1);
    assert_int_equal(errno, EROFS);
    backend_fail(&backend, FS_BUILD, -ENOSPC);
    size_t size = 3 * MiB;
    char *data = calloc(1, size);
    fd = must_open("g", O_RDWR | O_CREAT | O_TRUNC);
    ssize_t n = write(fd, data, size); /* may be told here already */
    assert_true((n < 0 && errno == ENOSPC) || n > 0);
    int result = close(fd);
    assert_true(result == 0 || errno == ENOSPC);
    assert_true((n >= 0 && (size_t)n == size) ? result < 0 : true);
    assert_int_equal(stat(at("g"), &st), -1);
    free(data);
}

static void test_removed_while_open(void **state)
{
    char text[16];
    struct stat st;
    backend_put(&backend, "f", "old", 3);
    int fd = must_open("f", O_RDWR);
    must_write(fd, "NEW", 3);
    must(unlink(at("f")));
    must_write(fd, "more", 4);
    must(close(fd));
    assert_int_equal(stat(at("f"), &st), -1);
    backend_put(&backend, "g", "old", 3);
    fd = must_open("g", O_RDWR | O_TRUNC);
    must_write(fd, "whole", 5);
    must(unlink(at("g")));
    assert_int_equal(pread(fd, text, 16, 0), 5);
    must(fstat(fd, &st));
    assert_int_equal(st.st_size, 5);
    must(close(fd));
    assert_int_equal(backend_stat(&backend, "g", &(struct fs_inode){0}), -ENOENT);
}

/* ---- Directories ---- */

static void make_names(int from, int count)
{
    char name[32];
    for (int i = from; i < from + count; i++) {
        snprintf(name, sizeof(name), "name-%06d", i);
        backend_put(&backend, name, "v", 1);
    }
}

static void test_dots(void **state)
{
    struct stat outer, inner, root;
    must(mkdir(at("d"), 0700));
    must(mkdir(at("d/e"), 0700));
    must(stat(directory, &root));
    must(stat(at("d"), &outer));
    must(stat(at("d/e"), &inner));
    assert_int_equal(root.st_nlink, 3);
    assert_int_equal(outer.st_nlink, 3);
    assert_int_equal(inner.st_nlink, 2);
    DIR *dir = opendir(at("d/e"));
    assert_non_null(dir);
    for (int moved = 0; moved < 2; moved++) {
        struct dirent *d = readdir(dir);
        assert_string_equal(d->d_name, ".");
        assert_int_equal(d->d_ino, inner.st_ino);
        d = readdir(dir);
        assert_string_equal(d->d_name, "..");
        assert_int_equal(d->d_ino, moved ? root.st_ino : outer.st_ino);
        assert_null(readdir(dir));
        if (!moved)
            must(rename(at("d/e"), at("e")));
        rewinddir(dir);
    }
    closedir(dir);
}

/* A name that another host gives to another file, after it was read from the view and
 * before it is shown, is there throughout. */
static void test_replaced_while_listing(void **state)
{
    make_names(0, 1000);
    DIR *dir = opendir(directory);
    assert_non_null(dir);
    assert_non_null(readdir(dir));
    backend_put(&backend, "new", "v", 1);
    struct fs_inode inode;
    assert_int_equal(backend_stat(&backend, "new", &inode), 0);
    struct fs_op op = {.type = FS_RENAME,
                       .parent = FS_ROOT_INODE,
                       .parent2 = FS_ROOT_INODE,
                       .name = (const uint8_t *)"new",
                       .name_size = 3,
                       .name2 = (const uint8_t *)"name-000990",
                       .name2_size = 11};
    assert_int_equal(backend_do(&backend, &op, &(struct fs_result){0}), 0);
    unsigned seen = 0;
    for (struct dirent *d; (d = readdir(dir));)
        if (strcmp(d->d_name, "name-000990") == 0) {
            assert_int_equal(d->d_ino, inode.inode);
            seen++;
        }
    closedir(dir);
    assert_int_equal(seen, 1);
}

/* Names that stay are seen exactly once, whatever happens to others meanwhile. */
static void test_large_directory(void **state)
{
    enum { COUNT = 20000 };
    uint8_t *seen = calloc(COUNT, 1);
    char name[32];
    make_names(0, COUNT);
    for (int pass = 0; pass < 2; pass++) {
        DIR *dir = opendir(directory);
        int number, entries = 0;
        memset(seen, 0, COUNT);
        for (struct dirent *d; (d = readdir(dir)); entries++) {
            if (sscanf(d->d_name, "name-%d", &number) == 1 && number < COUNT)
                seen[number]++;
            if (pass && entries % 100 == 7) { /* odd ones go, others come */
                struct fs_result result;
                snprintf(name, sizeof(name), "name-%06d", (entries * 7 % COUNT) | 1);
                struct fs_op op = {.type = FS_UNLINK,
                                   .parent = FS_ROOT_INODE,
                                   .name = (const uint8_t *)name,
                                   .name_size = (uint16_t)strlen(name)};
                backend_do(&backend, &op, &result);
                snprintf(name, sizeof(name), "aaaa-%06d", entries);
                backend_put(&backend, name, "w", 1);
            }
        }
        for (int i = 0; i < COUNT; i++)
            assert_true(seen[i] == 1 || (pass && i % 2 && seen[i] == 0));
        rewinddir(dir);
        long place = -1;
        char after[256] = "";
        for (int i = 0; i < 5000; i++) {
            struct dirent *d = readdir(dir);
            if (i == 2500)
                place = telldir(dir);
            if (i == 2501)
                strcpy(after, d->d_name);
        }
        seekdir(dir, place);
        assert_string_equal(readdir(dir)->d_name, after);
        closedir(dir);
    }
    free(seen);
}

/* Three neighbours differ in their last byte only. */
static void titled_name(int i, char to[64])
{
    snprintf(to, 64, "%04d of one and the same title, part %c", i / 3, 'a' + i % 3);
}

static int titled_number(const char *name)
{
    int number;
    char part;
    bool good =
        sscanf(name, "%d of one and the same title, part %c", &number, &part) == 2;
    return good ? number * 3 + part - 'a' : -1;
}

/* A place that telldir gave stays where it was, between the names that stay, when the
 * name that it is behind has gone, and others have come. */
static void test_places_outlive_names(void **state)
{
    enum { COUNT = 2000 };
    long places[COUNT];
    char name[80];
    for (int i = 0; i < COUNT; i++) {
        titled_name(i, name);
        backend_put(&backend, name, "v", 1);
    }
    DIR *dir = opendir(directory);
    int entries = 0;
    for (struct dirent *d; (d = readdir(dir));)
        if (titled_number(d->d_name) >= 0) {
            assert_int_equal(titled_number(d->d_name), entries);
            places[entries++] = telldir(dir);
        }
    assert_int_equal(entries, COUNT);
    for (int i = 0; i < COUNT; i++) {
        struct fs_result result;
        titled_name(i, name);
        struct fs_op op = {.type = FS_UNLINK,
                           .parent = FS_ROOT_INODE,
                           .name = (const uint8_t *)name,
                           .name_size = (uint16_t)strlen(name)};
        if (i % 5)
            assert_int_equal(backend_do(&backend, &op, &result), 0);
        strcat(name, "z"); /* right behind it */
        if (i % 7 == 0)
            backend_put(&backend, name, "w", 1);
    }
    for (int i = COUNT - 1; i >= 0; i--) {
        int next = (i / 5 + 1) * 5; /* the first behind it that is still there */
        seekdir(dir, places[i]);
        for (struct dirent *d; (d = readdir(dir)) && next < i + 50;)
            if (!strchr(d->d_name, 'z') && titled_number(d->d_name) >= 0) {
                assert_int_equal(titled_number(d->d_name), next);
                next += 5;
            }
        assert_true(next >= (i + 50 < COUNT ? i + 50 : COUNT));
    }
    closedir(dir);
}

static size_t bytes_in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* What an open directory takes does not grow with what is in it. A worker that is started
 * meanwhile takes more; but there are only so many. */
static void test_an_open_directory_takes_little(void **state)
{
    enum { COUNT = 20000, WORKERS = 16 };
    DIR *open[WORKERS + 3];
    size_t least = SIZE_MAX;
    make_names(0, COUNT);
    for (size_t k = 0; k < array_length(open); k++) {
        size_t before = bytes_in_use(), most = before;
        open[k] = opendir(directory);
        for (int i = 0; readdir(open[k]); i++)
            if (i % (COUNT / 4) == 100)
                most = max_u64(most, bytes_in_use());
        least = min_u64(least, most - before);
    }
    for (size_t k = 0; k < array_length(open); k++)
        closedir(open[k]);
    assert_true(least < 256 * KiB);
}

static void test_pending_names_are_listed_once(void **state)
{
    make_names(0, 3000);
    int fds[3] = {must_open("aaa", O_WRONLY | O_CREAT | O_TRUNC),
                  must_open("name-001500x", O_WRONLY | O_CREAT | O_TRUNC),
                  must_open("zzz", O_WRONLY | O_CREAT | O_TRUNC)};
    DIR *dir = opendir(directory);
    int found = 0, entries = 0;
    for (struct dirent *d; (d = readdir(dir)); entries++) {
        found += strncmp(d->d_name, "aaa", 3) == 0 || strncmp(d->d_name, "zzz", 3) == 0 ||
                 strcmp(d->d_name, "name-001500x") == 0;
        if (entries == 10)
            for (int i = 0; i < 3; i++)
                must(close(fds[i])); /* made meanwhile */
    }
    closedir(dir);
    assert_int_equal(found, 3);
    assert_int_equal(entries, 3000 + 3 + 2);
}

/* A pending name that is made between the look at the pending names and the one at the
 * view. */
static void test_pending_made_while_listing(void **state)
{
    make_names(0, 10);
    int fd = must_open("name-000005x", O_WRONLY | O_CREAT | O_TRUNC), found = 0;
    DIR *dir = opendir(directory);
    __atomic_store_n(&fsync_before_view, fd, __ATOMIC_SEQ_CST);
    for (struct dirent *d; (d = readdir(dir));)
        found += strcmp(d->d_name, "name-000005x") == 0;
    closedir(dir);
    assert_int_equal(__atomic_load_n(&fsync_before_view, __ATOMIC_SEQ_CST), -1);
    assert_int_equal(found, 1);
    close(fd);
}

/* How many pages of a file the kernel has right after an open. */
static unsigned pages_after_open(const char *name)
{
    unsigned char resident[64] = {0};
    unsigned count = 0;
    int fd = must_open(name, O_RDONLY);
    void *map = mmap(NULL, sizeof(resident) * 4096, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    must(mincore(map, sizeof(resident) * 4096, resident));
    for (size_t i = 0; i < sizeof(resident); i++)
        count += resident[i] & 1;
    must(munmap(map, sizeof(resident) * 4096));
    must(close(fd));
    return count;
}

enum { PAGED_BYTES = 64 * 4096 };

static void assert_all_read(const char *name, uint8_t byte)
{
    uint8_t *data = malloc(PAGED_BYTES);
    int fd = must_open(name, O_RDONLY);
    for (size_t got = 0; got < PAGED_BYTES;) {
        ssize_t n = read(fd, data + got, PAGED_BYTES - got);
        assert_true(n > 0);
        got += (size_t)n;
    }
    for (size_t i = 0; i < PAGED_BYTES; i++)
        assert_int_equal(data[i], byte);
    must(close(fd));
    free(data);
}

static void put_filled(const char *name, uint8_t byte)
{
    uint8_t *data = malloc(PAGED_BYTES);
    memset(data, byte, PAGED_BYTES);
    backend_put(&backend, name, data, PAGED_BYTES);
    free(data);
}

static void test_pages_stay_while_nothing_changes(void **state)
{
    put_filled("f", 'a');
    assert_int_equal(pages_after_open("f"), 0);
    assert_all_read("f", 'a');
    assert_int_equal(pages_after_open("f"), 64);
    int fd = must_open("f", O_RDONLY); /* a second one drops nothing either */
    assert_int_equal(pages_after_open("f"), 64);
    must(close(fd));
    must(chmod(at("f"), 0600)); /* another version: it cannot be told from a new value */
    assert_int_equal(pages_after_open("f"), 0);
    assert_all_read("f", 'a');
    assert_int_equal(pages_after_open("f"), 64);
}

/* Another host puts a value of the same size there, and sets the mtime to what it was, as
 * rsync does. */
static void test_pages_go_with_a_value_of_the_same_size_and_time(void **state)
{
    struct fs_inode inode;
    put_filled("f", 'a');
    assert_all_read("f", 'a');
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    put_filled("f", 'b');
    struct fs_op op = {.type = FS_SETATTR,
                       .inode = inode.inode,
                       .set = FS_SET_MTIME,
                       .mtime_ns = inode.mtime_ns};
    assert_int_equal(backend_do(&backend, &op, &(struct fs_result){0}), 0);
    assert_all_read("f", 'b');
}

/* Pages of two versions, the later of which was read first in part. */
static void test_pages_of_two_versions_go(void **state)
{
    char byte;
    put_filled("f", 'a');
    int fd = must_open("f", O_RDONLY);
    assert_int_equal(pread(fd, &byte, 1, 0), 1);
    put_filled("f", 'b');
    assert_int_equal(pread(fd, &byte, 1, PAGED_BYTES - 1), 1);
    must(close(fd));
    assert_int_equal(pages_after_open("f"), 0);
    assert_all_read("f", 'b');
}

static void test_pages_that_were_written_go(void **state)
{
    put_filled("f", 'a');
    assert_all_read("f", 'a');
    assert_int_equal(pages_after_open("f"), 64);
    int fd = must_open("f", O_RDWR);
    must_write(fd, "b", 1);
    backend_fail(&backend, FS_WRITE, -EIO);
    assert_int_equal(fsync(fd), -1);
    backend_fail(&backend, 0, 0);
    must(close(fd));
    assert_all_read("f", 'a');
    fd = must_open("f", O_RDWR);
    must_write(fd, "a", 1);
    must(close(fd));
    assert_int_equal(pages_after_open("f"), 0);
    assert_all_read("f", 'a');
    assert_int_equal(pages_after_open("f"), 64);
}

/* A commit that lands between the look at the overlay and the read below it. */
static void test_commit_overtakes_reader(void **state)
{
    struct stat st;
    char text[16] = "";
    backend_put(&backend, "f", "old", 3);
    int fd = must_open("f", O_RDWR), raw = must_open("f", O_RDONLY | O_DIRECT);
    must_write(fd, "longer", 6);
    __atomic_store_n(&fsync_after_get, fd, __ATOMIC_SEQ_CST);
    must(fstat(raw, &st));
    assert_int_equal(st.st_size, 6);
    assert_int_equal(pwrite(fd, "LONGEST", 7, 0), 7);
    __atomic_store_n(&fsync_after_get, fd, __ATOMIC_SEQ_CST);
    assert_int_equal(pread(raw, text, 16, 0), 7);
    assert_string_equal(text, "LONGEST");
    close(fd);
    close(raw);
}

/* ---- K14: interrupted and killed callers ---- */

static pid_t in_child(void (*what)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        what();
        _exit(0);
    }
    return pid;
}

static void await_death(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 60 * 1000), 1);
    close(fd);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void child_mkdir(void)
{
    mkdir(at("held"), 0700);
}

static void child_close(void)
{
    int fd = open(at("held"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (write(fd, "value", 5) == 5)
        close(fd);
}

static void child_fsync(void)
{
    int fd = open(at("f"), O_WRONLY);
    if (write(fd, "value", 5) == 5)
        fsync(fd);
}

static void child_rename_pending(void)
{
    rename(at("pending"), at("other"));
}

static void check_killed(void (*what)(void))
{
    backend_reset_counts(&backend);
    backend_hold(&backend, true);
    pid_t pid = in_child(what);
    backend_await_queued(&backend, 1);
    kill(pid, SIGKILL);
    await_death(pid);
    backend_hold(&backend, false);
    backend_reset_counts(&backend);
}

static void test_killed_callers(void **state)
{
    struct stat st;
    backend_put(&backend, "f", "old..", 5);
    check_killed(child_mkdir);
    assert_true(backend.fatal_interrupts > 0);
    assert_int_equal(stat(at("held"), &st), -1);
    check_killed(child_close); /* what it wrote is committed all the same */
    assert_value("held", "value");
    check_killed(child_fsync);
    assert_value("f", "value");
    int fd = must_open("pending", O_WRONLY | O_CREAT | O_TRUNC);
    check_killed(child_rename_pending);
    must(close(fd));
    assert_value("pending", "");
}

static void on_alarm(int signal_number)
{
}

static void child_alarmed(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval soon = {.it_value = {.tv_usec = 20000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    _exit(mkdir(at("held"), 0700) == 0 ? 0 : 1);
}

/* A mere SIGALRM is told to the node, which does not let go; a SIGKILL after it is seen.
 */
static void test_interrupted_callers(void **state)
{
    int status;
    backend_hold(&backend, true);
    pid_t pid = in_child(child_alarmed);
    pthread_mutex_lock(&backend.lock);
    while (!backend.interrupts)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
    assert_int_equal(backend.fatal_interrupts, 0);
    backend_hold(&backend, false);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 0);
    must(rmdir(at("held")));
    backend_hold(&backend, true);
    backend.interrupts = 0;
    pid = in_child(child_alarmed);
    pthread_mutex_lock(&backend.lock);
    while (!backend.interrupts)
        pthread_cond_wait(&backend.changed, &backend.lock);
    pthread_mutex_unlock(&backend.lock);
    kill(pid, SIGKILL);
    await_death(pid);
    backend_hold(&backend, false);
}

/* ---- Many files at once: what is buffered has a bound ---- */

enum { CROWD = 4, CROWD_FILES = 48, CROWD_BYTES = 512 << 10 };

static _Atomic uint64_t crowd_done; /* who had written all before it was full */

static void *write_crowd(void *arg)
{
    int *fds = arg;
    static const uint8_t data[CROWD_BYTES];
    for (int i = 0; i < CROWD_FILES; i++) {
        ensure(write(fds[i], data, sizeof(data)) == sizeof(data));
        ensure(i % 2 || fds[i] >= 0);
    }
    crowd_done++;
    return NULL;
}

static struct fs_mount_load load_now(void)
{
    struct fs_mount_load load;
    fs_mount_load(mount_, &load);
    return load;
}

/* Nothing is committed, and nobody closes: the writers wait, the process does not grow. */
static void test_writers_wait_when_much_is_buffered(void **state)
{
    static int fds[CROWD][CROWD_FILES];
    pthread_t threads[CROWD];
    char name[32];
    assert_true((uint64_t)CROWD * CROWD_FILES * CROWD_BYTES > FS_BUFFERED_BYTES * 5 / 4);
    for (int t = 0; t < CROWD; t++)
        for (int i = 0; i < CROWD_FILES; i++) {
            snprintf(name, sizeof(name), "crowd-%d-%d", t, i);
            fds[t][i] = must_open(name, O_CREAT | O_RDWR | (i % 2 ? O_TRUNC : 0));
        }
    backend_hold(&backend, true);
    for (int t = 0; t < CROWD; t++)
        assert_int_equal(pthread_create(&threads[t], NULL, write_crowd, fds[t]), 0);
    while (load_now().buffered_waits + crowd_done < CROWD)
        usleep(1000);
    struct fs_mount_load load = load_now();
    assert_true(load.buffered_waits > 0);
    assert_true(load.buffered > FS_BUFFERED_BYTES);
    assert_true(load.buffered_most <= FS_BUFFERED_BYTES + CROWD * (1 << 20));
    backend_hold(&backend, false);
    for (int t = 0; t < CROWD; t++)
        pthread_join(threads[t], NULL);
    load = load_now();
    assert_true(load.buffered_most <= FS_BUFFERED_BYTES + CROWD * (1 << 20));
    for (int t = 0; t < CROWD; t++)
        for (int i = 0; i < CROWD_FILES; i++) {
            struct stat st;
            must(fstat(fds[t][i], &st));
            assert_int_equal(st.st_size, CROWD_BYTES);
            must(close(fds[t][i]));
        }
    assert_int_equal(load_now().buffered, 0);
}

static void rewrite(int fds[CROWD_FILES])
{
    static uint8_t data[1 << 20];
    for (int i = 0; i < CROWD_FILES; i++) {
        assert_int_equal(pwrite(fds[i], data, sizeof(data), 0), sizeof(data));
        must(fsync(fds[i]));
    }
}

/* What was committed is in the view, and nowhere else, though its file is still open. */
static void test_an_open_file_keeps_nothing_that_is_committed(void **state)
{
    int fds[CROWD_FILES];
    char name[32];
    for (int turn = 0; turn < 2; turn++) {
        size_t before = mallinfo2().uordblks;
        for (int i = 0; i < CROWD_FILES; i++) {
            snprintf(name, sizeof(name), "kept-%d", i);
            fds[i] = must_open(name, O_CREAT | O_RDWR);
        }
        rewrite(fds);
        size_t after = mallinfo2().uordblks;
        /* The first turn is what the view holds; the second writes over that. */
        assert_true(turn == 0 || after < before + CROWD_FILES * ((size_t)1 << 19));
        for (int i = 0; i < CROWD_FILES; i++)
            must(close(fds[i]));
    }
}

/* ---- Buffers: held commits ---- */

static void *held_writer(void *arg)
{
    size_t size = 4 * MiB;
    uint8_t *data = malloc(size);
    fill(data, size, 21);
    int fd = must_open("f", O_WRONLY);
    assert_int_equal(write(fd, data, size), size);
    must(close(fd));
    free(data);
    return NULL;
}

/* ---- Removed while open ---- */

static void remote(enum fs_op_type type, const char *name, const char *to)
{
    struct fs_result result;
    struct fs_op op = {.type = type,
                       .parent = FS_ROOT_INODE,
                       .parent2 = FS_ROOT_INODE,
                       .name = (const uint8_t *)name,
                       .name_size = (uint16_t)strlen(name),
                       .name2 = (const uint8_t *)to,
                       .name2_size = (uint16_t)(to ? strlen(to) : 0)};
    assert_int_equal(backend_do(&backend, &op, &result), 0);
}

static void assert_holds(int fd, const char *expected)
{
    char text[256] = "";
    assert_int_equal(pread(fd, text, sizeof(text) - 1, 0), strlen(expected));
    assert_string_equal(text, expected);
}

static void assert_removed(int fd, off_t size)
{
    struct stat st;
    must(fstat(fd, &st));
    assert_int_equal(st.st_nlink, 0);
    assert_int_equal(st.st_size, size);
}

/* M10: what another host removes stays readable here, where its record holds it all. */
static uint64_t number_of(int fd)
{
    struct stat st;
    must(fstat(fd, &st));
    return st.st_ino;
}

static void test_removed_elsewhere(void **state)
{
    static uint8_t large[100000], back[100001];
    backend_put(&backend, "f", "first", 5);
    int fd = must_open("f", O_RDWR), idle = must_open("f", O_RDONLY);
    backend_put(&backend, "f", "second", 6);
    assert_holds(fd, "second");
    backend_put(&backend, "g", "new", 3);
    remote(FS_RENAME, "g", "f");
    assert_removed(fd, 6);
    assert_holds(fd, "second");
    assert_holds(idle, "second");
    assert_reads("f", "new");
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    must(fsync(fd));
    assert_holds(idle, "xecond");
    uint64_t old = number_of(fd);
    must(close(fd));
    assert_true(backend_is_there(&backend, old)); /* the other one has it still */
    must(close(idle));
    backend_await_gone(&backend, old);
    fill(large, sizeof(large), 3);
    backend_put(&backend, "big", large, sizeof(large));
    fd = must_open("big", O_RDWR);
    old = number_of(fd);
    remote(FS_UNLINK, "big", NULL);
    assert_removed(fd, sizeof(large));
    assert_int_equal(pread(fd, back, sizeof(back), 0), sizeof(large));
    assert_memory_equal(back, large, sizeof(large));
    assert_int_equal(pwrite(fd, "more", 4, sizeof(large)), 4);
    must(fsync(fd));
    assert_int_equal(pread(fd, back, sizeof(back), sizeof(large)), 4);
    must(close(fd));
    backend_await_gone(&backend, old);
}

/* What this host changed since it saw the record must not be read as it was before. */
static void test_removed_elsewhere_after_own_change(void **state)
{
    backend_put(&backend, "f", "value", 5);
    int fd = must_open("f", O_RDWR | O_DIRECT);
    must(truncate(at("f"), 2));
    remote(FS_UNLINK, "f", NULL);
    char text[16] = "";
    ssize_t n = pread(fd, text, sizeof(text), 0);
    assert_int_equal(n, 2);
    close(fd);
}

/* Made here, and gone before the kernel asks for its attributes: one file was made. */
static void test_removed_elsewhere_while_it_is_made(void **state)
{
    const int flags[] = {O_CREAT | O_EXCL | O_WRONLY, O_CREAT | O_RDWR};
    for (size_t i = 0; i < array_length(flags); i++) {
        struct fs_inode inode;
        unsigned before = backend_count(&backend, FS_MAKE);
        pthread_mutex_lock(&backend.lock);
        backend.remove_made = "made";
        pthread_mutex_unlock(&backend.lock);
        int fd = must_open("made", flags[i]);
        assert_int_equal(backend_count(&backend, FS_MAKE), before + 1);
        assert_removed(fd, 0);
        close(fd);
        assert_int_equal(backend_stat(&backend, "made", &inode), -ENOENT);
    }
}

/* Between a look-up and the open. */
static void test_removed_before_open(void **state)
{
    static uint8_t large[100000];
    char path[64], target[16] = "";
    backend_put(&backend, "f", "value", 5);
    backend_put(&backend, "big", large, sizeof(large));
    must(symlink("where", at("link")));
    int found[] = {must_open("f", O_PATH), must_open("big", O_PATH),
                   must_open("link", O_PATH | O_NOFOLLOW)};
    remote(FS_UNLINK, "f", NULL);
    remote(FS_UNLINK, "big", NULL);
    remote(FS_UNLINK, "link", NULL);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", found[0]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd);
    assert_holds(fd, "value");
    must(close(fd));
    fd = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
    must(fd);
    must_write(fd, "again", 5);
    must(close(fd));
    assert_removed(found[0], 5);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", found[1]);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd);
    assert_removed(fd, sizeof(large));
    must(close(fd));
    assert_int_equal(readlinkat(found[2], "", target, sizeof(target)), 5);
    for (size_t i = 0; i < array_length(found); i++)
        close(found[i]);
}

static int replace_after = -1;

static void replace_after_get(void)
{
    if (__atomic_fetch_sub(&replace_after, 1, __ATOMIC_SEQ_CST) == 0)
        remote(FS_RENAME, "g", "f");
}

/* Whenever another host renames a file over the name: readers meet one or the other. */
static void test_replaced_at_any_moment(void **state)
{
    char text[16];
    struct stat st;
    backend.after_get = replace_after_get;
    for (int i = 0; i < 12; i++) {
        backend_put(&backend, "f", "old", 3);
        backend_put(&backend, "g", "new", 3);
        __atomic_store_n(&replace_after, i, __ATOMIC_SEQ_CST);
        int fd = must_open("f", O_RDONLY);
        memset(text, 0, sizeof(text));
        assert_int_equal(read(fd, text, sizeof(text)), 3);
        assert_true(!strcmp(text, "old") || !strcmp(text, "new"));
        must(fstat(fd, &st));
        must(stat(at("f"), &st));
        close(fd);
        __atomic_store_n(&replace_after, -1, __ATOMIC_SEQ_CST);
        backend_put(&backend, "g", "new", 3);
        remote(FS_RENAME, "g", "f");
    }
}

/* What this host removes goes on for those who have it open, and goes with the last one. */
static void test_removed_here(void **state)
{
    static uint8_t data[100000], back[100001];
    struct stat st;
    int fd = must_open("t", O_RDWR | O_CREAT | O_EXCL);
    must_write(fd, "hello", 5);
    must(unlink(at("t")));
    assert_removed(fd, 5);
    assert_holds(fd, "hello");
    must_write(fd, " world", 6);
    must(fsync(fd));
    assert_holds(fd, "hello world");
    must(ftruncate(fd, 4));
    must(fchmod(fd, 0640));
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    must(futimens(fd, times));
    must(fstat(fd, &st));
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(st.st_mtim.tv_sec, 2);
    assert_int_equal(pwrite(fd, "!", 1, 6), 1);
    assert_int_equal(pread(fd, back, 100, 0), 7);
    assert_memory_equal(back, "hell\0\0!", 7);
    must(close(fd));
    backend_await_gone(&backend, (uint64_t)st.st_ino);

    fill(data, sizeof(data), 5);
    backend_put(&backend, "f", data, sizeof(data));
    fd = must_open("f", O_RDWR | O_APPEND);
    must(unlink(at("f")));
    assert_int_equal(pread(fd, back, sizeof(back), 0), sizeof(data));
    assert_memory_equal(back, data, sizeof(data));
    must_write(fd, "end", 3);
    assert_removed(fd, sizeof(data) + 3);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int other = open(path, O_RDONLY | O_CLOEXEC);
    must(other);
    must(close(fd));
    assert_int_equal(pread(other, back, 10, sizeof(data)), 3);
    assert_memory_equal(back, "end", 3);
    uint64_t number = number_of(other);
    must(close(other));
    backend_await_gone(&backend, number);
}

static void test_replaced_here(void **state)
{
    backend_put(&backend, "a", "old", 3);
    backend_put(&backend, "b", "new", 3);
    int fd = must_open("a", O_RDWR);
    must(rename(at("b"), at("a")));
    assert_removed(fd, 3);
    assert_holds(fd, "old");
    assert_reads("a", "new");
    must_write(fd, "OLDER", 5);
    must(close(fd));
    assert_value("a", "new");
    /* a name that is not made yet */
    fd = must_open("p", O_RDWR | O_CREAT | O_TRUNC);
    must_write(fd, "pending", 7);
    must(unlink(at("p")));
    assert_holds(fd, "pending");
    assert_removed(fd, 7);
    must(close(fd));
    /* a value that is not published, nor will be */
    fd = must_open("a", O_RDWR | O_TRUNC);
    must_write(fd, "unseen", 6);
    must(unlink(at("a")));
    assert_holds(fd, "unseen");
    must(close(fd));
    assert_int_equal(run("bash", "export TMPDIR=$D; x=$(printf %0200000d 0);"
                                 "test $(wc -c <<< \"$x\") = 200001"),
                     0);
}

/* The removal of one of two names takes nothing from those who have the file open. */
static void test_one_of_two_removed_here(void **state)
{
    struct stat st;
    backend_put(&backend, "f", "value", 5);
    must(link(at("f"), at("g")));
    int fd = must_open("f", O_RDWR);
    must(unlink(at("f")));
    must(fstat(fd, &st));
    assert_int_equal(st.st_nlink, 1);
    must_write(fd, "V", 1);
    must(fsync(fd));
    assert_value("g", "Value");
    backend_put(&backend, "g", "theirs", 6);
    assert_holds(fd, "theirs");
    backend_put(&backend, "h", "new", 3);
    must(link(at("g"), at("i")));
    must(rename(at("h"), at("g")));
    assert_int_equal(pwrite(fd, "T", 1, 0), 1);
    must(close(fd));
    assert_value("i", "Theirs");
    fd = must_open("i", O_RDWR);
    must(unlink(at("i"))); /* the last one */
    assert_removed(fd, 6);
    assert_holds(fd, "Theirs");
    must(close(fd));
}

static void *unlink_f(void *arg)
{
    return (void *)(intptr_t)unlink(at("f"));
}

/* What another host does to a file while the removal of a name is on its way. */
static void test_one_of_two_removed_meanwhile(void **state)
{
    pthread_t thread;
    void *result;
    struct fs_inode inode;
    backend_put(&backend, "f", "value", 5);
    must(link(at("f"), at("g")));
    int fd = must_open("g", O_RDWR);
    backend_hold(&backend, true);
    pthread_create(&thread, NULL, unlink_f, NULL);
    backend_await_queued(&backend, 1);
    backend_put(&backend, "g", "theirs", 6);
    assert_holds(fd, "theirs"); /* it is nothing of this host's own */
    backend_hold(&backend, false);
    pthread_join(thread, &result);
    assert_null(result);
    close(fd);
    must(rename(at("g"), at("f"))); /* one name, and then another host makes a second */
    assert_int_equal(backend_stat(&backend, "f", &inode), 0);
    fd = must_open("f", O_RDWR);
    backend_hold(&backend, true);
    pthread_create(&thread, NULL, unlink_f, NULL);
    backend_await_queued(&backend, 1);
    struct fs_op op = {.type = FS_LINK,
                       .inode = inode.inode,
                       .parent = FS_ROOT_INODE,
                       .name = (const uint8_t *)"h",
                       .name_size = 1};
    assert_int_equal(backend_do(&backend, &op, &(struct fs_result){0}), 0);
    backend_hold(&backend, false);
    pthread_join(thread, &result);
    assert_null(result);
    must_write(fd, "T", 1);
    must(close(fd));
    assert_value("h", "Theirs");
}

/* What the kernel holds is counted: a name that was looked up, a directory that a process stands in,
 * and what is mapped have no handle (K15). */
static void test_held_without_a_handle(void **state)
{
    struct fs_inode f, d;
    must(mkdir(at("d"), 0755));
    backend_put(&backend, "f", "value", 5);
    assert_int_equal(backend_stat(&backend, "f", &f), 0);
    assert_int_equal(backend_stat(&backend, "d", &d), 0);
    int fd = must_open("f", O_RDWR), in = must_open("d", O_PATH | O_DIRECTORY);
    char *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(mapped, MAP_FAILED);
    must(close(fd));
    remote(FS_UNLINK, "f", NULL);
    remote(FS_RMDIR, "d", NULL);
    assert_memory_equal(mapped, "value", 5);
    assert_true(backend_is_there(&backend, f.inode));
    assert_true(backend_is_there(&backend, d.inode));
    must(munmap(mapped, 4096));
    backend_await_gone(&backend, f.inode);
    while (openat(in, "x", O_CREAT | O_RDWR | O_CLOEXEC, 0644) >= 0 || errno != ENOENT)
        assert_true(errno == ENOENT);
    assert_fails(mkdirat(in, "y", 0755), ENOENT);
    must(close(in));
    backend_await_gone(&backend, d.inode);
}

/* A name that the kernel remembers, and which another host removes, is forgotten though nobody
 * walks there again. */
static void test_names_removed_elsewhere_are_forgotten(void **state)
{
    enum { MANY = 200 };
    uint64_t inodes[MANY];
    char name[32];
    for (int i = 0; i < MANY; i++) {
        struct fs_inode inode;
        struct stat st;
        snprintf(name, sizeof(name), "n%d", i);
        backend_put(&backend, name, "x", 1);
        must(stat(at(name), &st));
        assert_int_equal(backend_stat(&backend, name, &inode), 0);
        inodes[i] = inode.inode;
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        remote(FS_UNLINK, name, NULL);
    }
    for (int i = 0; i < MANY; i++)
        backend_await_gone(&backend, inodes[i]);
}

/* A look-up that has read the name when it goes: what it gives the kernel stays. */
static void test_removed_while_it_is_looked_up(void **state)
{
    struct stat st;
    backend.after_get = replace_after_get;
    for (int i = 0; i < 6; i++) {
        backend_put(&backend, "f", "old", 3);
        backend_put(&backend, "g", "new", 3);
        __atomic_store_n(&replace_after, i, __ATOMIC_SEQ_CST);
        int fd = open(at("f"), O_PATH | O_CLOEXEC);
        must(fd);
        must(fstat(fd, &st));
        assert_true(backend_is_there(&backend, st.st_ino));
        must(close(fd));
        __atomic_store_n(&replace_after, -1, __ATOMIC_SEQ_CST);
        backend_put(&backend, "g", "new", 3);
        remote(FS_RENAME, "g", "f");
    }
}

/* A removal that fails: all goes on as before, and what is written is committed. (The
 * kernel holds the file's own lock during a removal: writes come before or after it.) */
static void test_failed_removal(void **state)
{
    backend_put(&backend, "f", "value", 5);
    int fd = must_open("f", O_RDWR);
    backend_fail(&backend, FS_UNLINK, -EIO);
    assert_fails(unlink(at("f")), EIO);
    assert_int_equal(backend_total(&backend), 0);
    assert_holds(fd, "value");
    must_write(fd, "V", 1);
    must(fsync(fd));
    assert_value("f", "Value");
    int other = must_open("f", O_WRONLY | O_TRUNC);
    must_write(other, "new", 3);
    assert_fails(unlink(at("f")), EIO);
    assert_holds(fd, "new");
    assert_value("f", "Value"); /* its turn has not come */
    must(close(other));
    assert_value("f", "new");
    assert_int_equal(pwrite(fd, "N", 1, 0), 1);
    assert_fails(unlink(at("f")), EIO);
    must(close(fd));
    assert_value("f", "New");
}

/* One commit in flight, one buffer behind it, and the writer waits. */
static void test_bounded_buffer(void **state)
{
    pthread_t thread;
    size_t size = 4 * MiB;
    uint8_t *data = malloc(size);
    fill(data, size, 21);
    backend_put(&backend, "f", "", 0);
    backend_hold(&backend, true);
    pthread_create(&thread, NULL, held_writer, NULL);
    backend_await_queued(&backend, 1);
    pthread_mutex_lock(&backend.lock);
    assert_int_equal(backend.queued_count, 1);
    pthread_mutex_unlock(&backend.lock);
    backend_hold(&backend, false);
    pthread_join(thread, NULL);
    assert_bytes("f", data, size);
    free(data);
}

/* ---- Start and end ---- */

static void child_fsync_new(void)
{
    int fd = open(at("new"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (write(fd, "value", 5) == 5)
        fsync(fd);
}

static void *stop_unforced(void *arg)
{
    return (void *)(intptr_t)fs_mount_stop(mount_, false);
}

static void test_umount(void **state)
{
    int fd = must_open("f", O_WRONLY | O_CREAT | O_TRUNC);
    must_write(fd, "value", 5);
    assert_int_equal(fs_mount_stop(mount_, false), -EBUSY);
    assert_value("f", "value"); /* committed before it was tried */
    must_write(fd, "!", 1);     /* and the mount goes on */
    must(close(fd));
    assert_value("f", "value!");
    assert_false(backend_is_unmounted(&backend));
    must(umount(directory));
    backend_await_unmounted(&backend);
    assert_int_equal(fs_mount_stop(mount_, false), 0);
    fs_mount_free(mount_);
    mount_ = NULL;
}

/* A writer that goes on does not keep a stop from ending. */
static void test_stop_beside_a_writer(void **state)
{
    backend_hold(&backend, true);
    pid_t pid = in_child(child_fsync_new);
    backend_await_queued(&backend, 1);
    int fd = must_open("open", O_WRONLY | O_CREAT | O_TRUNC);
    pthread_t thread;
    pthread_create(&thread, NULL, stop_unforced, NULL);
    backend_await_queued(&backend, 2); /* what is buffered is on its way ... */
    int later = must_open("later", O_WRONLY | O_CREAT | O_TRUNC);
    must_write(later, "value", 5);
    backend_hold(&backend, false);
    void *result;
    pthread_join(thread, &result);
    assert_int_equal((intptr_t)result, -EBUSY);
    must(close(later));
    assert_value("later", "value");
    close(fd);
    await_death(pid);
}

static void test_forced_stop(void **state)
{
    int fd = must_open("f", O_WRONLY | O_CREAT | O_TRUNC);
    must_write(fd, "value", 5);
    assert_int_equal(fs_mount_stop(mount_, true), 0);
    assert_true(backend_is_unmounted(&backend));
    fs_mount_free(mount_);
    mount_ = NULL;
    assert_value("f", "value");
    close(fd);
}

static int try_start(const char *mountpoint, const char *options,
                     char error[FS_ERROR_BYTES])
{
    struct fs_mount *m;
    struct fs_mount_options o = {
        .mountpoint = mountpoint, .options = options, .source = "a,b"};
    error[0] = '\0';
    int result = fs_mount_start(&m, &o, &backend.table, error);
    if (result == 0) {
        assert_int_equal(fs_mount_stop(m, true), 0);
        fs_mount_free(m);
    }
    return result;
}

/* Detached with a file open: a stop says so, as it does of what is attached. */
static void test_stop_of_what_is_detached(void **state)
{
    int fd = must_open("f", O_RDWR | O_CREAT);
    assert_int_equal(fs_mount_stop(mount_, false), -EBUSY);
    must(umount2(directory, MNT_DETACH));
    assert_int_equal(fs_mount_stop(mount_, false), -EBUSY);
    must_write(fd, "value", 5);
    must(close(fd));
    assert_int_equal(fs_mount_stop(mount_, false), 0);
    fs_mount_free(mount_);
    mount_ = NULL;
    assert_value("f", "value");
}

/* A text or directory that is open when the mount is taken away leaves with it. */
static void test_forced_stop_of_texts_and_directories(void **state)
{
    DIR *dir = opendir(directory);
    assert_non_null(dir);
    assert_non_null(readdir(dir));
    int fd = must_open(".tierce/status", O_RDONLY);
    int other = must_open(".tierce/metrics", O_RDONLY);
    assert_int_equal(fs_mount_stop(mount_, true), 0);
    fs_mount_free(mount_);
    mount_ = NULL;
    close(fd);
    close(other);
    closedir(dir);
}

static void test_bad_starts(void **state)
{
    char error[FS_ERROR_BYTES], other[] = "/tmp/tierce-other-XXXXXX";
    assert_int_equal(try_start("/tmp/tierce-nowhere", NULL, error), -ENOENT);
    assert_non_null(strstr(error, "mkdir -p /tmp/tierce-nowhere"));
    assert_int_equal(try_start("/dev/null", NULL, error), -ENOTDIR);
    assert_non_null(strstr(error, "/dev/null"));
    assert_int_equal(try_start(directory, "ro,frobnicate=1,noexec", error), -EINVAL);
    assert_non_null(strstr(error, "frobnicate=1"));
    assert_int_equal(try_start(directory, NULL, error), -EBUSY);
    assert_non_null(strstr(error, directory));
    assert_non_null(mkdtemp(other));
    assert_int_equal(try_start(other,
                               "ro,nosuid,nodev,noexec,noatime,x-systemd.automount,"
                               "_netdev,default_permissions,allow_other",
                               error),
                     0);
    static const char *const usual[] = {
        "defaults,noatime,nodiratime", "diratime,relatime,norelatime,atime",
        "strictatime,nostrictatime,lazytime,nolazytime,noiversion",
        "rw,suid,dev,exec,async,silent,auto,nofail,acl",
        "sync,dirsync,fsname=a,subtype=b,max_read=65536"};
    for (size_t i = 0; i < array_length(usual); i++)
        if (try_start(other, usual[i], error))
            fail_msg("-o %s: %s", usual[i], error);
    assert_int_equal(
        try_start(other, "user=me,comment=a b,X-own,owner,nonempty,allow_root", error),
        0);
    assert_int_equal(try_start(other, "uid=0,gid=4294967294,umask=0777", error), 0);
    static const char *const bad[] = {"uid=",     "uid=-1",  "uid=4294967295",
                                      "gid=root", "umask=8", "umask=1000",
                                      "gid=1 "};
    for (size_t i = 0; i < array_length(bad); i++) {
        assert_int_equal(try_start(other, bad[i], error), -EINVAL);
        assert_non_null(strstr(error, bad[i]));
        assert_int_equal(try_start(other, "sloppy,uid=x", error), -EINVAL);
    }
    assert_int_equal(try_start(other, "frobnicate=1,sloppy,noexec", error), 0);
    rmdir(other);
}

/* ---- .tierce ---- */

/* All that a file of .tierce says, after an open of its own; NUL-terminated. */
static char *text_read(const char *name, size_t *ret_size)
{
    char *text = malloc(2 * LONG_TEXT_BYTES);
    int fd = must_open(name, O_RDONLY);
    size_t size = 0;
    for (ssize_t n; (n = read(fd, text + size, 10000)) > 0;)
        size += (size_t)n;
    text[size] = '\0';
    close(fd);
    *ret_size = size;
    return text;
}

/* The names in a directory, each with a blank behind it. */
static void list_names(const char *name, char *to)
{
    DIR *dir = opendir(at(name));
    assert_non_null(dir);
    *to = '\0';
    for (struct dirent *d; (d = readdir(dir));)
        strcat(strcat(to, d->d_name), " ");
    closedir(dir);
}

static void test_virtual_texts(void **state)
{
    size_t size;
    char *text = text_read(".tierce/status", &size);
    assert_string_equal(text, "text 0, asked for 1 times\n");
    free(text);
    int fd = must_open(".tierce/members", O_RDONLY);
    text = text_read(".tierce/members", &size); /* fresh */
    assert_string_equal(text, "text 1, asked for 3 times\n");
    free(text);
    char some[100] = "";
    assert_int_equal(pread(fd, some, 4, 5), 4); /* of its own open, in pieces */
    assert_string_equal(some, "1, a");
    assert_int_equal(pread(fd, some, 100, 1000000), 0);
    assert_int_equal(fsync(fd), 0);
    close(fd);
    text = text_read(".tierce/metrics", &size);
    assert_true(size >= LONG_TEXT_BYTES);
    free(text);
    backend.no_texts = true;
    assert_int_equal(open(at(".tierce/status"), O_RDONLY), -1);
    assert_int_equal(errno, ENOMEM);
    backend_reset_counts(&backend);
    assert_int_equal(backend_total(&backend), 0);
}

static void test_virtual_names(void **state)
{
    char names[1000];
    struct stat st;
    must(mkdir(at("d"), 0755));
    must(mkdir(at("d/.tierce"), 0755)); /* elsewhere it is a name as any other */
    must(rmdir(at("d/.tierce")));
    list_names("", names);
    assert_null(strstr(names, ".tierce"));
    list_names(".tierce", names);
    assert_string_equal(names, ". .. status members metrics ");
    must(stat(at(".tierce"), &st));
    assert_int_equal(st.st_mode, S_IFDIR | 0555);
    must(stat(at(".tierce/metrics"), &st));
    assert_int_equal(st.st_mode, S_IFREG | 0444);
    assert_int_equal(stat(at(".tierce/other"), &st), -1);
    assert_int_equal(errno, ENOENT);
    /* Whatever another host made there by other means is not seen. */
    backend_put(&backend, ".tierce", "value", 5);
    list_names("", names);
    assert_null(strstr(names, ".tierce"));
    must(stat(at(".tierce"), &st));
    assert_int_equal(st.st_mode, S_IFDIR | 0555);
}

static void assert_refused(int result, int error)
{
    int is = errno;
    assert_int_equal(result, -1);
    assert_int_equal(is, error);
}

static void test_virtual_is_read_only(void **state)
{
    int fd = must_open("f", O_WRONLY | O_CREAT | O_TRUNC);
    close(fd);
    must(mkdir(at("d"), 0755));
    backend_reset_counts(&backend);
    assert_refused(open(at(".tierce/status"), O_WRONLY), EROFS);
    assert_refused(open(at(".tierce/status"), O_RDWR), EROFS);
    assert_refused(open(at(".tierce/status"), O_RDONLY | O_TRUNC), EROFS);
    assert_refused(open(at(".tierce/new"), O_WRONLY | O_CREAT, 0644), EROFS);
    assert_refused(truncate(at(".tierce/status"), 0), EROFS);
    assert_refused(chmod(at(".tierce/status"), 0777), EROFS);
    assert_refused(chmod(at(".tierce"), 0777), EROFS);
    assert_refused(mkdir(at(".tierce/new"), 0755), EROFS);
    assert_refused(mkfifo(at(".tierce/new"), 0644), EROFS);
    assert_refused(symlink("x", at(".tierce/new")), EROFS);
    assert_refused(link(at("f"), at(".tierce/new")), EROFS);
    assert_refused(link(at(".tierce/status"), at("g")), EPERM);
    assert_refused(unlink(at(".tierce/status")), EROFS);
    assert_refused(rename(at(".tierce/status"), at("g")), EROFS);
    assert_refused(rename(at("f"), at(".tierce/status")), EROFS);
    assert_refused(mkdir(at(".tierce"), 0755), EEXIST);
    assert_refused(rmdir(at(".tierce")), EBUSY);
    assert_refused(rename(at(".tierce"), at("g")), EBUSY);
    assert_refused(rename(at("d"), at(".tierce")), EBUSY);
    assert_int_equal(backend_total(&backend), 0);
}

/* A daemon of its own, for test_dead_mount_is_replaced: says that it is ready on stdout.
 */
static int serve(const char *mountpoint)
{
    char error[FS_ERROR_BYTES];
    struct fs_mount *m;
    struct fs_mount_options o = {.mountpoint = mountpoint, .source = "dead"};
    backend_start(&backend);
    if (fs_mount_start(&m, &o, &backend.table, error) != 0 || write(1, "r", 1) != 1)
        return 1;
    for (;;)
        pause();
}

/* A daemon that was killed leaves a dead mount; the next one takes its place. */
static void test_dead_mount_is_replaced(void **state)
{
    char error[FS_ERROR_BYTES], other[] = "/tmp/tierce-dead-XXXXXX";
    struct stat st;
    assert_non_null(mkdtemp(other));
    int ready[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ready[1], 1);
        execl("/proc/self/exe", "test_fs_mount", "--serve", other, (char *)NULL);
        _exit(127);
    }
    char byte;
    struct statvfs fs;
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    must(stat(other, &st)); /* the kernel keeps these attributes beyond the kill */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    int asked = statvfs(other, &fs), why = errno;
    int started = try_start(other, NULL, error);
    int replaced = stat(other, &st);
    umount2(other, MNT_DETACH); /* nothing is there unless the test fails */
    assert_int_equal(asked, -1);
    assert_int_equal(why, ENOTCONN);
    assert_int_equal(started, 0);
    assert_int_equal(replaced, 0);
    rmdir(other);
}

#define mounted(test) cmocka_unit_test_setup_teardown(test, set_up, mount_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        mounted(test_names),
        mounted(test_links),
        mounted(test_long_names),
        mounted(test_rename_flags),
        mounted(test_attributes),
        mounted(test_remote_changes),
        mounted(test_a_replaced_state_drops_pages),
        mounted(test_shell_redirections),
        mounted(test_programs),
        mounted(test_empty_values),
        mounted(test_no_foreign_emptiness),
        mounted(test_pending_is_local),
        mounted(test_pending_is_made_first),
        mounted(test_pending_made_elsewhere),
        mounted(test_setid_and_truncation),
        mounted(test_link_of_a_pending_name),
        mounted(test_group_of_directory),
        mounted(test_no_reserved_inodes),
        mounted(test_two_handles),
        mounted(test_replacing_is_shared_here),
        mounted(test_attributes_of_unwritten_replacement),
        mounted(test_times_are_kept),
        mounted(test_times_of_an_emptied_file),
        mounted(test_mtime_is_constant_while_buffered),
        mounted(test_times_outlive_the_commit),
        mounted(test_times_behind_the_leader_s),
        mounted(test_appends),
        mounted(test_append_lands_elsewhere),
        mounted(test_append_set_later),
        mounted(test_large_values),
        mounted(test_large_random_writes),
        mounted(test_cut_of_a_large_replacement),
        mounted(test_file_limit),
        mounted(test_timer_commits),
        mounted(test_sync_writes),
        mounted(test_mapped_writes),
        mounted(test_failed_commits),
        mounted(test_open_without_a_majority),
        mounted(test_open_without_room),
        mounted(test_sticky_errors),
        mounted(test_failed_making),
        mounted(test_removed_while_open),
        mounted(test_dots),
        mounted(test_replaced_while_listing),
        mounted(test_places_outlive_names),
        mounted(test_pages_stay_while_nothing_changes),
        mounted(test_pages_go_with_a_value_of_the_same_size_and_time),
        mounted(test_pages_of_two_versions_go),
        mounted(test_pages_that_were_written_go),
        mounted(test_an_open_directory_takes_little),
        mounted(test_large_directory),
        mounted(test_pending_names_are_listed_once),
        mounted(test_pending_made_while_listing),
        mounted(test_commit_overtakes_reader),
        mounted(test_killed_callers),
        mounted(test_interrupted_callers),
        mounted(test_writers_wait_when_much_is_buffered),
        mounted(test_an_open_file_keeps_nothing_that_is_committed),
        mounted(test_bounded_buffer),
        mounted(test_removed_elsewhere),
        mounted(test_removed_elsewhere_after_own_change),
        mounted(test_removed_elsewhere_while_it_is_made),
        mounted(test_removed_before_open),
        mounted(test_replaced_at_any_moment),
        mounted(test_removed_here),
        mounted(test_replaced_here),
        mounted(test_one_of_two_removed_here),
        mounted(test_one_of_two_removed_meanwhile),
        mounted(test_held_without_a_handle),
        mounted(test_names_removed_elsewhere_are_forgotten),
        mounted(test_removed_while_it_is_looked_up),
        mounted(test_failed_removal),
        mounted(test_umount),
        mounted(test_stop_beside_a_writer),
        mounted(test_stop_of_what_is_detached),
        mounted(test_forced_stop),
        mounted(test_bad_starts),
        mounted(test_virtual_texts),
        mounted(test_forced_stop_of_texts_and_directories),
        mounted(test_virtual_names),
        mounted(test_virtual_is_read_only),
        mounted(test_dead_mount_is_replaced),
    };
    if (argc == 3 && strcmp(argv[1], "--serve") == 0)
        return serve(argv[2]);
    mount_tests_begin(argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mount_tests_end();
    return failed;
}
