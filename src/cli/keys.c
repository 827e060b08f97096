/* keys.c - get, put, del, ls: keys without a mount. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

struct output {
    bool broken; /* nobody reads any more: the end, without a word */
};

static int write_stdout(void *context, const void *bytes, size_t length)
{
    struct output *output = context;
    const uint8_t *at = bytes;
    while (length) {
        ssize_t n = write(STDOUT_FILENO, at, length);
        if (n < 0 && errno != EINTR) {
            output->broken = errno == EPIPE;
            return -errno;
        }
        at += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int cli_get(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    struct output output = {0};
    if (!node_call_get(call->data, call->arguments[0], write_stdout, &output, error))
        return CLI_OK;
    return output.broken ? CLI_FAILED : cli_fail("%s", error);
}

/* ---- put ------------------------------------------------------------------------- */

struct input {
    const char *at; /* of the argument */
    size_t left;
};

static ssize_t read_argument(void *context, void *to, size_t size)
{
    struct input *input = context;
    size_t n = min_u64(size, input->left);
    memcpy(to, input->at, n);
    input->at += n;
    input->left -= n;
    return (ssize_t)n;
}

static ssize_t read_stdin(void *context, void *to, size_t size)
{
    ssize_t n;
    do
        n = read(STDIN_FILENO, to, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* Of a regular file it is known before hours have gone by. */
static bool stdin_is_too_large(void)
{
    struct stat file;
    off_t at = lseek(STDIN_FILENO, 0, SEEK_CUR);
    return at >= 0 && fstat(STDIN_FILENO, &file) == 0 && S_ISREG(file.st_mode) &&
           file.st_size > at && (uint64_t)(file.st_size - at) > LIMIT_FILE_BYTES;
}

int cli_put(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    const char *value = call->argument_count > 1 ? call->arguments[1] : NULL;
    if (!value && stdin_is_too_large())
        return cli_fail(
            "cannot put %s: a value has at most 1 TiB, and standard input is a "
            "larger file",
            call->arguments[0]);
    struct input input = {.at = value, .left = value ? strlen(value) : 0};
    int result = node_call_put(call->data, call->arguments[0],
                               value ? read_argument : read_stdin, &input, error);
    return result ? cli_fail("%s", error) : CLI_OK;
}

int cli_del(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    return node_call_del(call->data, call->arguments[0], error) ? cli_fail("%s", error)
                                                                : CLI_OK;
}

/* ---- ls -------------------------------------------------------------------------- */

struct listing {
    char end; /* after each name */
    bool broken;
};

static int print_name(void *context, const char *name, size_t name_size, uint8_t type)
{
    struct listing *l = context;
    fwrite(name, 1, name_size, stdout);
    if (type == DT_DIR)
        putchar('/');
    putchar(l->end);
    if (!ferror(stdout))
        return 0;
    l->broken = errno == EPIPE;
    return -EIO;
}

int cli_ls(struct cli_call *call)
{
    char error[NODE_ERROR_BYTES] = "";
    struct listing l = {.end = call->given & CLI_NUL ? 0 : '\n'};
    const char *path = call->argument_count ? call->arguments[0] : "/";
    if (!node_call_ls(call->data, path, print_name, &l, error))
        return cli_flush();
    return l.broken ? CLI_FAILED : cli_fail("%s", error);
}
