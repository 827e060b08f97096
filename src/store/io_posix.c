/* io_posix.c - the disk as the kernel has it. Calls cut short by a signal are repeated.
 */
#include "store_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    WRITE_OUT_BYTES = 1 << 20, /* of one file, on their way to the disk */
};

static ssize_t result(ssize_t n)
{
    return n < 0 ? -errno : n;
}

/* Whether a call that returned -1 should be made again. */
static bool again(ssize_t n)
{
    return n < 0 && errno == EINTR;
}

static int posix_open(void *context, const char *path, int flags, int mode)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (again(fd));
    return (int)result(fd);
}

static int posix_close(void *context, int fd)
{
    return (int)result(close(fd)); /* not again: on Linux the descriptor is gone */
}

static ssize_t posix_pread(void *context, int fd, void *to, size_t length,
                           uint64_t offset)
{
    ssize_t n;
    do
        n = pread(fd, to, length, (off_t)offset);
    while (again(n));
    return result(n);
}

static ssize_t posix_pread_nowait(void *context, int fd, void *to, size_t length,
                                  uint64_t offset)
{
    struct iovec iov = {.iov_base = to, .iov_len = length};
    ssize_t n;
    do
        n = preadv2(fd, &iov, 1, (off_t)offset, RWF_NOWAIT);
    while (again(n));
    /* File systems in memory do not know the flag, and never wait. */
    if (n < 0 && errno == EOPNOTSUPP)
        return posix_pread(context, fd, to, length, offset);
    return result(n);
}

static ssize_t posix_pwritev(void *context, int fd, const struct iovec *iov, int count,
                             uint64_t offset)
{
    ssize_t n;
    do
        n = pwritev(fd, iov, count, (off_t)offset);
    while (again(n));
    return result(n);
}

/* Not again after EINTR: what a sync that failed has forgotten is not known. */
static int posix_sync(void *context, int fd)
{
    return (int)result(fdatasync(fd));
}

static int posix_sync_all(void *context, int fd)
{
    return (int)result(fsync(fd));
}

/* Whole pages: the last one is not full yet. An error is told once, here or by a sync. */
static int posix_write_out(void *context, int fd, uint64_t begin, uint64_t end)
{
    off_t from = (off_t)(begin & ~(uint64_t)(PAGE_BYTES - 1));
    off_t to = (off_t)(end & ~(uint64_t)(PAGE_BYTES - 1));
    int rc = 0;
    if (from > WRITE_OUT_BYTES)
        rc = sync_file_range(fd, 0, from - WRITE_OUT_BYTES, SYNC_FILE_RANGE_WAIT_BEFORE);
    if (rc == 0 && to > from)
        rc = sync_file_range(fd, from, to - from, SYNC_FILE_RANGE_WRITE);
    return rc != 0 && errno == ENOSYS ? 0 : (int)result(rc);
}

static int posix_truncate(void *context, int fd, uint64_t size)
{
    int rc;
    do
        rc = ftruncate(fd, (off_t)size);
    while (again(rc));
    return (int)result(rc);
}

static int posix_size(void *context, int fd, uint64_t *ret)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    *ret = (uint64_t)st.st_size;
    return 0;
}

/* Where the file system cannot reserve: writes the zeros. */
static int extend_with_zeros(int fd, uint64_t size)
{
    static const uint8_t zeros[64 * 1024];
    uint64_t at;
    int rc = posix_size(NULL, fd, &at);
    while (rc == 0 && at < size) {
        struct iovec iov = {(void *)zeros, min_u64(sizeof(zeros), size - at)};
        ssize_t n = posix_pwritev(NULL, fd, &iov, 1, at);
        if (n < 0)
            rc = (int)n;
        else
            at += (uint64_t)n;
    }
    return rc;
}

static int posix_allocate(void *context, int fd, uint64_t size)
{
    int rc;
    do
        rc = fallocate(fd, 0, 0, (off_t)size);
    while (again(rc));
    if (rc != 0 && errno == EOPNOTSUPP)
        return extend_with_zeros(fd, size);
    return (int)result(rc);
}

static int posix_mkdir(void *context, const char *path, int mode)
{
    if (mkdir(path, (mode_t)mode) == 0)
        return 0;
    int rc = -errno;
    struct stat st;
    if (rc == -EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return rc;
}

static int posix_unlink(void *context, const char *path)
{
    return (int)result(unlink(path));
}

static int posix_rename(void *context, const char *from, const char *to)
{
    return (int)result(rename(from, to));
}

static int posix_sync_dir(void *context, const char *path)
{
    int fd = posix_open(context, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int rc = posix_sync_all(context, fd);
    close(fd);
    return rc;
}

static int posix_list(void *context, const char *path,
                      int (*each)(void *arg, const char *name), void *arg)
{
    DIR *dir = opendir(path);
    if (!dir)
        return -errno;
    int rc = 0;
    while (rc == 0) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            rc = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = each(arg, entry->d_name);
    }
    closedir(dir);
    return rc;
}

static int posix_space(void *context, const char *path, uint64_t *ret_free,
                       uint64_t *ret_total)
{
    struct statvfs st;
    if (statvfs(path, &st) != 0)
        return -errno;
    *ret_free = (uint64_t)st.f_bavail * st.f_frsize;
    *ret_total = (uint64_t)st.f_blocks * st.f_frsize;
    return 0;
}

const struct store_io store_io_posix = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pread_nowait = posix_pread_nowait,
    .pwritev = posix_pwritev,
    .sync = posix_sync,
    .sync_all = posix_sync_all,
    .write_out = posix_write_out,
    .truncate = posix_truncate,
    .allocate = posix_allocate,
    .size = posix_size,
    .mkdir = posix_mkdir,
    .unlink = posix_unlink,
    .rename = posix_rename,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .space = posix_space,
};
