/*
 * call_ending.c - `umount X && mount X`: umount returns before the node behind the mount has
 * noticed, and long before it has handed over and let its data directory go.
 */
#include "call.h"

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    ENDING_STATUS_MS = 2000,    /* a node that hangs is no node that ends */
    ENDING_POLL_US = 10 * 1000, /* between two looks */
    ENDING_WAIT_US =
        15000 * 1000, /* a grace for what is buffered, a transfer, the exit */
};

/* Whether a process holds the data directory. *ret_pid: which, as far as is known. */
static bool is_held(const char *data, pid_t *ret_pid)
{
    char *file = directory_file(data, DIRECTORY_LOCK), text[16] = "";
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    bool held = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (held && pread(fd, text, sizeof(text) - 1, 0) > 0)
        *ret_pid = atoi(text);
    if (fd >= 0)
        close(fd);
    free(file);
    return held;
}

/* K9: one that was killed may hold it for ever, with all who wait for its mount. */
static bool is_killed(const char *data, pid_t pid)
{
    char *source = realpath(data, NULL);
    bool killed = source && pid > 0 && fs_mounts_release(source, pid);
    free(source);
    return killed;
}

/* Whether the process that holds it is on its way out, as far as can be told: its mount is
 * gone, or it answers nobody any more. (Or not yet: then its next answer tells.) */
static bool is_ending(const char *data, struct node_status *s)
{
    char error[NODE_ERROR_BYTES] = "";
    struct call c;
    int result = call_open(&c, data, "get the status", error);
    if (!result) {
        call_begin(&c, CONTROL_STATUS);
        result = call_ask(&c, ENDING_STATUS_MS, error);
    }
    if (!result && node_status_decode(c.fields.at, reader_left(&c.fields), s))
        result = -EPROTO;
    call_close(&c);
    if (result)
        return result == -ECONNREFUSED || result == -ECONNRESET || result == -EPIPE;
    return s->mountpoint[0] && !fs_is_mounted(s->mountpoint);
}

void node_call_await_ending(const char *data)
{
    struct node_status *s = calloc(1, sizeof(*s));
    uint64_t begun = clock_boot_us();
    pid_t pid = 0;
    while (s && is_held(data, &pid) && (is_killed(data, pid) || is_ending(data, s)) &&
           clock_boot_us() - begun < ENDING_WAIT_US)
        usleep(ENDING_POLL_US);
    free(s);
}

bool call_end_killed(const char *data)
{
    pid_t pid = 0;
    return is_held(data, &pid) && is_killed(data, pid);
}
