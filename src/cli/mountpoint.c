/* mountpoint.c - where a mount may go. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

/* `path` without its last part ("." and "/" where there is none), malloc'ed; *ret_last:
 * into path. Trailing slashes do not count. */
static char *parent_of(const char *path, const char **ret_last, size_t *ret_length)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start && path[start - 1] != '/')
        start--;
    *ret_last = path + start;
    *ret_length = end - start;
    return start ? strndup(path, start) : strdup(".");
}

/* The process behind a mount has died: long ago, or while this call waited for it. */
static bool is_of_dead_mount(int error)
{
    return error == ENOTCONN || error == ECONNABORTED;
}

/* realpath() of what exists of a path, and the rest as it is. */
static char *resolve(const char *path)
{
    char *real = realpath(path, NULL);
    if (real || (errno != ENOENT && !is_of_dead_mount(errno)))
        return real;
    const char *last;
    size_t length;
    char *parent = parent_of(path, &last, &length), *whole = NULL;
    char *above = parent && length && strcmp(parent, path) ? resolve(parent) : NULL;
    if (above && asprintf(&whole, "%s%s%.*s", above, strcmp(above, "/") ? "/" : "",
                          (int)length, last) < 0)
        whole = NULL;
    free(parent);
    free(above);
    return whole;
}

static bool is_inside(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    if (!strcmp(directory, "/"))
        return true;
    return !strncmp(path, directory, length) && (!path[length] || path[length] == '/');
}

static int check_directory(const char *path)
{
    struct stat st;
    if (!stat(path, &st)) {
        if (S_ISDIR(st.st_mode))
            return 0;
        cli_fail("the mountpoint %s is not a directory: give an empty directory", path);
        return -1;
    }
    if (is_of_dead_mount(errno)) /* it will be replaced */
        return 0;
    if (errno == ENOENT)
        cli_fail("the mountpoint %s does not exist: mkdir -p %s", path, path);
    else
        cli_fail("cannot use the mountpoint %s: %s", path, strerror(errno));
    return -1;
}

int cli_mountpoint(const char *path, const char *data, char **ret)
{
    if (check_directory(path))
        return -1;
    char *real = resolve(path), *real_data = resolve(data);
    int result = -1;
    if (!real)
        cli_fail("cannot use the mountpoint %s: %s", path, strerror(errno));
    else if (strlen(real) > LIMIT_PATH_BYTES)
        cli_fail("the path of the mountpoint is too long");
    else if (real_data && (is_inside(real, real_data) || is_inside(real_data, real)))
        cli_fail(
            "the mountpoint %s and the data directory %s overlap: the mount would hide "
            "the data, or lie in it; give another directory",
            path, data);
    else
        result = 0;
    free(real_data);
    if (result)
        free(real);
    else
        *ret = real;
    return result;
}
