/* local.c - the control socket's file: its address, and taking over an old one's place.
 */
#include "wire_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int local_address(const char *path, struct sockaddr_un *ret, int *ret_directory)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int directory = -1;
    if (strlen(path) < sizeof(address.sun_path)) {
        strcpy(address.sun_path, path);
    } else {
        const char *slash = strrchr(path, '/');
        if (!slash || strlen(slash) > 32)
            return -ENAMETOOLONG;
        char *parent = strndup(path, (size_t)(slash - path) + 1);
        if (!parent)
            return -ENOMEM;
        directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
        int error = errno;
        free(parent);
        if (directory < 0)
            return -error;
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d%s",
                 directory, slash);
    }
    *ret = address;
    *ret_directory = directory;
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Removes a socket file that nobody listens on. -EADDRINUSE: somebody does; -EEXIST: it
 * is no socket. */
static int remove_old(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    int fd;
    int rc = wire_call_local_open(path, &fd);
    if (rc == 0) {
        close(fd);
        return -EADDRINUSE;
    }
    if (rc == -EAGAIN) /* its backlog is full */
        return -EADDRINUSE;
    if (rc != -ECONNREFUSED)
        return rc == -ENOENT ? 0 : rc;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_at(const char *path, int *ret_fd)
{
    struct sockaddr_un address;
    int directory = -1;
    int rc = local_address(path, &address, &directory);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* The mode of the socket is that of the file which bind makes: never open to others,
     * not for a moment. */
    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        rc = -errno;
        close_if_open(fd);
    } else {
        *ret_fd = fd;
    }
    close_if_open(directory);
    return rc;
}

static void explain(int rc, const char *path, char error[WIRE_ERROR_BYTES])
{
    const char *why = strerror(-rc), *remedy = "";
    if (rc == -EADDRINUSE) {
        why = "a node runs there";
        remedy = "; stop it, or choose another directory with --data";
    } else if (rc == -EEXIST) {
        why = "a file that is no socket is there";
        remedy = "; move it away";
    } else if (rc == -ENOENT) {
        why = "its directory does not exist";
    }
    snprintf(error, WIRE_ERROR_BYTES, "cannot listen on %.300s: %s%s", path, why, remedy);
}

int wire_listen_local(struct wire_endpoint *e, const char *path,
                      char error[WIRE_ERROR_BYTES])
{
    ensure(!e->local_path);
    int fd = -1;
    char *copy = strdup(path);
    int rc = copy ? remove_old(path) : -ENOMEM;
    if (rc == 0)
        rc = bind_at(path, &fd);
    if (rc == 0) {
        rc = endpoint_add_listener(e, fd, true);
        if (rc < 0)
            unlink(path);
    }
    if (rc < 0) {
        explain(rc, path, error);
        free(copy);
        return rc;
    }
    e->local_path = copy;
    return 0;
}
