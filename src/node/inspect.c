/*
 * inspect.c - looking at the files of a data directory that no node runs on.
 *
 * The lock is looked at before and after, and not held between: a look that takes an hour
 * must not keep a node from being started. One that was started makes the look void.
 */
#include "backup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct lock_look {
    bool held;
    struct timespec changed; /* each process that takes the lock writes its pid */
};

static int look_at_lock(const char *data, struct lock_look *ret,
                        char error[NODE_ERROR_BYTES])
{
    struct lock_look look = {0};
    char *file = directory_file(data, DIRECTORY_LOCK);
    if (!file)
        return node_error(error, -ENOMEM, "out of memory");
    int fd = open(file, O_RDONLY | O_CLOEXEC), result = fd < 0 ? -errno : 0;
    struct stat st;
    if (!result && fstat(fd, &st))
        result = -errno;
    if (!result) {
        look.changed = st.st_mtim;
        if (flock(fd, LOCK_SH | LOCK_NB)) {
            result = errno == EWOULDBLOCK ? 0 : -errno;
            look.held = !result;
        }
    }
    if (fd >= 0)
        close(fd);
    if (result == -ENOENT || result == -ENOTDIR) /* no node was ever here */
        result = 0;
    if (result)
        node_error(error, result, "cannot see whether a node runs on %s: %s: %s", data,
                   file, strerror(-result));
    else
        *ret = look;
    free(file);
    return result;
}

static int check_not_running(const char *data, struct lock_look *ret,
                             char error[NODE_ERROR_BYTES])
{
    int result = look_at_lock(data, ret, error);
    if (!result && ret->held)
        result =
            node_error(error, -EBUSY,
                       "a node runs on %s, and its files change: end it with `tierce "
                       "stop --data %s` first",
                       data, data);
    return result;
}

static int check_not_started(const char *data, const struct lock_look *before,
                             char error[NODE_ERROR_BYTES])
{
    struct lock_look now;
    int result = look_at_lock(data, &now, error);
    if (!result && (now.held || now.changed.tv_sec != before->changed.tv_sec ||
                    now.changed.tv_nsec != before->changed.tv_nsec))
        result = node_error(error, -EBUSY,
                            "a node was started on %s meanwhile, so that what was found "
                            "may be wrong: end it with `tierce stop --data %s`, and look "
                            "again",
                            data, data);
    return result;
}

/* ---- Where FILE is ----------------------------------------------------------------- */

static int find_file(const char *data, const char *file, char ret[PATH_MAX],
                     char error[NODE_ERROR_BYTES])
{
    const char *const places[] = {"", "/", "/log/"};
    for (size_t i = 0; i < array_length(places); i++) {
        int n = snprintf(ret, PATH_MAX, "%s%s%s", i ? data : "", places[i], file);
        struct stat st;
        if (n < 0 || n >= PATH_MAX || stat(ret, &st))
            continue;
        if (!S_ISREG(st.st_mode))
            return node_error(
                error, -EINVAL,
                "%s is not a file: name one, or a data directory with --data", ret);
        return 0;
    }
    return node_error(error, -ENOENT, "there is no %s, and no such file in %s or %s/log",
                      file, data, data);
}

/* The directory that a file of a store lies in: with its lock, where it is one. */
static void directory_of(const char *file, char ret[PATH_MAX])
{
    char real[PATH_MAX];
    snprintf(ret, PATH_MAX, "%s", realpath(file, real) ? real : file);
    char *slash = strrchr(ret, '/');
    if (!slash) {
        strcpy(ret, ".");
        return;
    }
    *slash = 0;
    slash = strrchr(ret, '/');
    if (slash && (!strcmp(slash, "/log") || !strcmp(slash, "/incoming")))
        *slash = 0;
}

static bool is_backup(const char *file)
{
    char begin[8] = "";
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    bool is = fd >= 0 && pread(fd, begin, sizeof(begin), 0) == sizeof(begin) &&
              !memcmp(begin, BACKUP_MAGIC, sizeof(begin));
    if (fd >= 0)
        close(fd);
    return is;
}

/* ---- The whole --------------------------------------------------------------------- */

static int inspect(const struct node_inspect *what, const char *data, const char *file,
                   uint64_t *ret_problems, char error[NODE_ERROR_BYTES])
{
    struct store_inspect_options options = {.io = &store_io_posix,
                                            .path = data,
                                            .verify = what->verify,
                                            .fact = what->fact,
                                            .context = what->context};
    char text[STORE_ERROR_BYTES] = "";
    int result = file ? store_inspect_file(&options, file, ret_problems, text)
                      : store_inspect(&options, ret_problems, text);
    if (result)
        node_error(error, result, "%s", text);
    return result;
}

int node_inspect(const struct node_inspect *what, uint64_t *ret_problems,
                 char error[NODE_ERROR_BYTES])
{
    char file[PATH_MAX], place[PATH_MAX];
    struct lock_look before;
    const char *data = what->data;
    int result = 0;
    if (what->file) {
        result = find_file(what->data, what->file, file, error);
        if (!result) {
            directory_of(file, place);
            data = place;
        }
    }
    if (!result && what->file && is_backup(file))
        return inspect_backup(what, file, ret_problems, error);
    if (!result)
        result = check_not_running(data, &before, error);
    if (!result)
        result = inspect(what, data, what->file ? file : NULL, ret_problems, error);
    return result ? result : check_not_started(data, &before, error);
}
