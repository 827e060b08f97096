/* log.c - one line a message, and the ends of a process that must not go on. */
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

static int log_fd = STDERR_FILENO;
static enum log_level log_lowest = LOG_INFO_LEVEL;

int log_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    log_fd = fd;
    return 0;
}

void log_set_level(enum log_level level)
{
    log_lowest = level;
}

static void log_line(enum log_level level, const char *format, va_list args)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char line[1024];
    uint64_t now = clock_real_us();
    time_t seconds = (time_t)(now / 1000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof(line) - n,
                          ".%06uZ %s: ", (unsigned)(now % 1000000), names[level]);
    int more = vsnprintf(line + n, sizeof(line) - n, format, args);
    ensure(more >= 0);
    n += (size_t)more;
    if (n > sizeof(line) - 1)
        n = sizeof(line) - 1;
    line[n] = '\n';
    /* Nowhere to report that the log itself cannot be written. */
    ssize_t written = write(log_fd, line, n + 1);
    (void)written;
}

void log_at(enum log_level level, const char *format, ...)
{
    if (level < log_lowest)
        return;
    int saved = errno;
    va_list args;
    va_start(args, format);
    log_line(level, format, args);
    va_end(args);
    errno = saved;
}

_Noreturn void log_fatal(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(LOG_ERROR_LEVEL, format, args);
    va_end(args);
    _exit(1);
}

_Noreturn void ensure_failed(const char *condition, const char *file, int line)
{
    log_at(LOG_ERROR_LEVEL, "%s:%d: must hold, and does not: %s", file, line, condition);
    abort();
}
