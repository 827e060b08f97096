/*
 * daemon.c - running the node: in this process, or in a child of which this process waits
 * to hear, over a pipe, that it serves or why it does not.
 *
 * On the pipe: 'R' and a warning (mostly none), or 'F' and what failed; then its end.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_FILE "node.log"

enum { REPORT_READY = 'R', REPORT_FAILED = 'F' };

/* ---- The child ------------------------------------------------------------------- */

static int report(int fd, char kind, const char *text)
{
    char message[1 + NODE_ERROR_BYTES];
    int n = snprintf(message, sizeof(message), "%c%s", kind, text ? text : "");
    size_t length = min_u64((uint64_t)n, sizeof(message) - 1);
    ssize_t written = write(fd, message, length); /* below PIPE_BUF: whole or not */
    close(fd);
    return written == (ssize_t)length ? 0 : -EPIPE;
}

static void child_ready(void *context, const char *warning)
{
    int *fd = context;
    int result = report(*fd, REPORT_READY, warning);
    *fd = -1;
    if (warning)
        log_warn("%s", warning);
    /* Who started us has given up waiting: a node that nobody knows of must not stay. */
    if (result)
        kill(getpid(), SIGTERM);
}

/* Nothing of the caller's: no terminal, working directory or descriptor. */
static int let_go(int keep_fd)
{
    if (setsid() < 0 || chdir("/"))
        return -errno;
    int null = open("/dev/null", O_RDWR);
    if (null < 0)
        return -errno;
    for (int fd = 0; fd <= 2; fd++)
        if (null != fd && dup2(null, fd) < 0)
            return -errno;
    umask(077);
    if (keep_fd > 3 && close_range(3, (unsigned)keep_fd - 1, 0))
        return -errno;
    return close_range((unsigned)keep_fd + 1, UINT_MAX, 0) ? -errno : 0;
}

/* Only into a directory of tierce's: of another one node_run() says what is wrong. */
static int open_log(const char *data)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/tierce.conf", data);
    if (n < 0 || (size_t)n >= sizeof(path) || access(path, F_OK))
        return 0;
    snprintf(path, sizeof(path), "%s/" LOG_FILE, data);
    return log_open(path);
}

static int run_child(struct node_run_options *options, int fd)
{
    char error[NODE_ERROR_BYTES] = "";
    int result = let_go(fd);
    if (result)
        snprintf(error, sizeof(error), "cannot become a daemon: %s", strerror(-result));
    if (!result) {
        result = open_log(options->data);
        if (result)
            snprintf(error, sizeof(error), "cannot open %.800s/" LOG_FILE ": %s",
                     options->data, strerror(-result));
    }
    if (!result) {
        options->ready = child_ready;
        options->context = &fd;
        result = node_run(options, error);
    }
    if (!result && fd < 0)
        return CLI_OK;
    if (!result)
        snprintf(error, sizeof(error), "the node was stopped before it was ready");
    log_error("%s", error);
    if (fd >= 0)
        report(fd, REPORT_FAILED, error);
    return CLI_FAILED;
}

/* ---- The parent ------------------------------------------------------------------ */

static size_t read_report(int fd, char *to, size_t size)
{
    size_t length = 0;
    while (length < size - 1) {
        ssize_t n = read(fd, to + length, size - 1 - length);
        if (n == 0 || (n < 0 && errno != EINTR))
            break;
        length += n > 0 ? (size_t)n : 0;
    }
    to[length] = 0;
    return length;
}

static int wait_until_ready(int fd, pid_t child, const char *data)
{
    char message[1 + NODE_ERROR_BYTES];
    size_t length = read_report(fd, message, sizeof(message));
    if (length && message[0] == REPORT_READY) {
        if (message[1])
            fprintf(stderr, "tierce: warning: %s\n", message + 1);
        return CLI_OK;
    }
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    if (length)
        return cli_fail("%s", message + 1);
    return cli_fail("the node ended before it was ready; see %s/" LOG_FILE, data);
}

static int run_in_background(struct node_run_options *options)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return cli_fail("cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        exit(run_child(options, fds[1])); /* not _exit: a leak check runs at exit */
    }
    close(fds[1]);
    int result = child < 0 ? cli_fail("cannot start a process: %s", strerror(errno))
                           : wait_until_ready(fds[0], child, options->data);
    close(fds[0]);
    return result;
}

static void foreground_ready(void *context, const char *warning)
{
    if (warning)
        log_warn("%s", warning);
    log_info("ready");
}

static int run_in_foreground(struct node_run_options *options)
{
    char error[NODE_ERROR_BYTES] = "";
    options->ready = foreground_ready;
    return node_run(options, error) ? cli_fail("%s", error) : CLI_OK;
}

int cli_run_node(struct cli_call *call, const char *mountpoint)
{
    /* Absolute, as the child's working directory is another. Where it does not exist
     * node_run() says so, by the name that was given. */
    char *data = realpath(call->data, NULL);
    struct node_run_options options = {
        .data = data ? data : call->data,
        .mountpoint = mountpoint,
        .show_status = cli_json_status,
        .show_members = cli_format_members,
        .mount_options =
            call->mount_options.length ? (const char *)call->mount_options.data : NULL,
    };
    struct node_identity identity;
    char error[NODE_ERROR_BYTES];
    int result;
    node_call_await_ending(call->data);
    if (node_identify(call->data, &identity, error))
        result = cli_fail("%s", error);
    else if (call->given & CLI_FOREGROUND)
        result = run_in_foreground(&options);
    else
        result = run_in_background(&options);
    free(data);
    return result;
}
