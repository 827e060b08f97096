/*
 * fault_disk.c - a disk that hangs or fails, for a whole process: preloaded, it stands
 * before the C library's calls.
 *
 *   LD_PRELOAD=libfault_disk.so FAULT_DISK=/path/of/a/file tierce ...
 *
 * The file says what is to happen now, in one line:
 *
 *   sync hang      fsync and fdatasync of files of a store's log do not return while the
 *                  file says so
 *   sync slow 300  they take so many milliseconds more
 *   sync fail 5    they return -1 with this errno
 *   write fail 28  pwritev does, of those files
 *   read hang      pread of those files does not return, but on the first thread
 *   part hang 20   pwritev of files of a snapshot that comes in hangs, but the first 20
 * times
 *
 * Missing or empty: nothing. Each call that was hung or failed adds a byte to FILE.count.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int fsync(int fd);
int fdatasync(int fd);
ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset);
ssize_t pread64(int fd, void *to, size_t length, off64_t offset);

/* What kind of file: "log" in DATA/log, "part" in DATA/incoming, else "" (pipes, the
 * node's own log file). */
static const char *kind_of(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length <= 0)
        return "";
    path[length] = '\0';
    if (strstr(path, "/incoming/") && strstr(path, ".part"))
        return "part";
    return strstr(path, "/log/") && (strstr(path, ".seg") || strstr(path, ".new")) ? "log"
                                                                                   : "";
}

/* The order for this call; false: none. */
static bool read_order(const char *call, char action[16], int *ret_error)
{
    const char *file = getenv("FAULT_DISK");
    char line[64] = "", order_call[16] = "";
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    ssize_t length = read(fd, line, sizeof(line) - 1);
    close(fd);
    if (length <= 0)
        return false;
    *ret_error = 0;
    int fields = sscanf(line, "%15s %15s %d", order_call, action, ret_error);
    return fields >= 2 && strcmp(order_call, call) == 0;
}

static void count(void)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s.count", getenv("FAULT_DISK"));
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    ssize_t written = write(fd, "x", 1);
    (void)written;
    close(fd);
}

static atomic_int parts; /* written so far */

/* True: the call is to fail, with errno set. */
static bool interfere(const char *call, int fd)
{
    char action[16] = "";
    int error = 0;
    const char *kind = kind_of(fd);
    if (strcmp(kind, "part") == 0)
        call = strcmp(call, "write") == 0 ? "part" : "";
    else if (strcmp(kind, "log") != 0)
        return false;
    if (!read_order(call, action, &error))
        return false;
    if (strcmp(kind, "part") == 0 && atomic_fetch_add(&parts, 1) < error)
        return false;
    count();
    while (strcmp(action, "hang") == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 5 * 1000 * 1000}, NULL);
        if (!read_order(call, action, &error))
            return false;
    }
    if (strcmp(action, "slow") == 0) {
        nanosleep(&(struct timespec){error / 1000, error % 1000 * 1000000L}, NULL);
        return false;
    }
    errno = error;
    return true;
}

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (!function)
        abort();
    return function;
}

int fsync(int fd)
{
    static int (*call)(int fd);
    if (!call)
        call = (int (*)(int))real("fsync");
    return interfere("sync", fd) ? -1 : call(fd);
}

int fdatasync(int fd)
{
    static int (*call)(int fd);
    if (!call)
        call = (int (*)(int))real("fdatasync");
    return interfere("sync", fd) ? -1 : call(fd);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int iov_count, off64_t offset)
{
    static ssize_t (*call)(int fd, const struct iovec *iov, int iov_count,
                           off64_t offset);
    if (!call)
        call = (ssize_t(*)(int, const struct iovec *, int, off64_t))real("pwritev64");
    return interfere("write", fd) ? -1 : call(fd, iov, iov_count, offset);
}

ssize_t pread64(int fd, void *to, size_t length, off64_t offset)
{
    static ssize_t (*call)(int fd, void *to, size_t length, off64_t offset);
    if (!call)
        call = (ssize_t(*)(int, void *, size_t, off64_t))real("pread64");
    if (gettid() != getpid() && interfere("read", fd))
        return -1;
    return call(fd, to, length, offset);
}
