/*
 * call.c - the command line's side of the control socket. Each call opens a connection,
 * asks, and turns what comes back into a line for a user.
 */
#include "call.h"

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALL_STATUS_TIMEOUT_MS = 10000 };

static int no_node(const char *data, char error[NODE_ERROR_BYTES])
{
    return node_error(error, -ECONNREFUSED,
                      "no node is running on %s: start it with `tierce mount --data %s "
                      "MOUNTPOINT` or `tierce serve --data %s`",
                      data, data, data);
}

int call_open(struct call *c, const char *data, const char *what,
              char error[NODE_ERROR_BYTES])
{
    *c = (struct call){.data = data, .what = what, .fd = -1};
    int result = directory_look(data, error);
    if (result)
        return result;
    char *socket = directory_file(data, DIRECTORY_SOCKET);
    result = socket ? wire_call_local_open(socket, &c->fd) : -ENOMEM;
    if (result == -ENOENT || result == -ECONNREFUSED)
        result = no_node(data, error);
    else if (result)
        node_error(error, result, "cannot ask the node by %s: %s",
                   socket ? socket : DIRECTORY_SOCKET, strerror(-result));
    free(socket);
    return result;
}

void call_close(struct call *c)
{
    if (c->fd >= 0)
        close(c->fd);
    buf_release(&c->request);
    buf_release(&c->answer);
}

struct buf *call_begin(struct call *c, enum control_command command)
{
    buf_clear(&c->request);
    buf_u8(&c->request, (uint8_t)command);
    return &c->request;
}

static int no_quorum(const struct call *c, char error[NODE_ERROR_BYTES])
{
    return node_error(
        error, -EROFS,
        "cannot %s: no majority of the cluster is reachable, so nothing can "
        "be changed; see `tierce status --data %s`",
        c->what, c->data);
}

static int failed(const struct call *c, int code, const char *text,
                  char error[NODE_ERROR_BYTES])
{
    const char *remedy = text;
    if (!text[0]) {
        switch (code) {
        case ENOSPC:
            remedy =
                "a disk of the cluster is full; `tierce del` and removing files still "
                "work";
            break;
        case EFBIG:
            remedy = "it would be larger than 1 GiB";
            break;
        case ENOTDIR:
            remedy = "a part of the path is not a directory";
            break;
        case ENAMETOOLONG:
            remedy = "a name has more than 255 bytes";
            break;
        case ENOENT:
            remedy = "there is no such key";
            break;
        case EISDIR:
            remedy = "it is a directory";
            break;
        case ENOTEMPTY:
            remedy = "the directory is not empty";
            break;
        case EEXIST:
            remedy = "something that is not a regular file has this name";
            break;
        case EAGAIN:
        case ESTALE:
            remedy = "it was changed while it was read: try again";
            break;
        default:
            remedy = strerror(code);
        }
    }
    return node_error(error, -code, "cannot %s: %s", c->what, remedy);
}

static int read_status(struct call *c, char error[NODE_ERROR_BYTES])
{
    static char text[LIMIT_PATH_BYTES + 512];
    c->fields = reader_of(c->answer.data, c->answer.length);
    uint8_t status = reader_u8(&c->fields);
    if (status == WIRE_OK && !c->fields.bad)
        return 0;
    uint32_t code = status == WIRE_FAILED ? reader_u32(&c->fields) : 0;
    reader_cstring(&c->fields, text, sizeof(text));
    if (reader_done(&c->fields)) {
        if (status == WIRE_FAILED && code && code < 4096)
            return failed(c, (int)code, text, error);
        if (status == WIRE_NO_QUORUM)
            return no_quorum(c, error);
        if (status == WIRE_REFUSED)
            return node_error(error, -EINVAL, "cannot %s: %s", c->what, text);
    }
    return node_error(
        error, -EPROTO,
        "cannot %s: the node on %s gave an answer that this tierce does not "
        "understand; restart it with this version",
        c->what, c->data);
}

int call_bad_answer(const struct call *c, char error[NODE_ERROR_BYTES])
{
    return node_error(error, -EPROTO,
                      "cannot %s: the node on %s gave a malformed answer; is it of this "
                      "version (%s)?",
                      c->what, c->data, TIERCE_VERSION);
}

int call_ask(struct call *c, unsigned timeout_ms, char error[NODE_ERROR_BYTES])
{
    if (c->request.failed)
        return node_error(error, -ENOMEM, "out of memory");
    buf_clear(&c->answer);
    int result = wire_call_local(c->fd, c->request.data, c->request.length, timeout_ms,
                                 &c->answer);
    if (result == -EPIPE || result == -ECONNRESET)
        return node_error(error, result,
                          "the node on %s ended before it answered (it could not be seen "
                          "whether it did %s); its log is %s/%s",
                          c->data, c->what, c->data, DIRECTORY_LOG);
    if (result == -ETIMEDOUT)
        return node_error(error, result,
                          "the node on %s does not answer; its log is %s/%s", c->data,
                          c->data, DIRECTORY_LOG);
    if (result)
        return node_error(error, result, "cannot %s: asking the node failed: %s", c->what,
                          strerror(-result));
    return read_status(c, error);
}

int node_call_status(const char *data, struct node_status *ret,
                     char error[NODE_ERROR_BYTES])
{
    struct call c;
    int result = call_open(&c, data, "get the status", error);
    if (!result) {
        call_begin(&c, CONTROL_STATUS);
        result = call_ask(&c, CALL_STATUS_TIMEOUT_MS, error);
    }
    if (!result && node_status_decode(c.fields.at, reader_left(&c.fields), ret))
        result = call_bad_answer(&c, error);
    call_close(&c);
    return result;
}

int node_call_metrics(const char *data, char **ret_text, char error[NODE_ERROR_BYTES])
{
    struct call c;
    int result = call_open(&c, data, "get the metrics", error);
    if (!result) {
        call_begin(&c, CONTROL_METRICS);
        result = call_ask(&c, CALL_STATUS_TIMEOUT_MS, error);
    }
    if (!result) {
        size_t length = reader_left(&c.fields);
        *ret_text = strndup((const char *)c.fields.at, length);
        if (!*ret_text)
            result = node_error(error, -ENOMEM, "out of memory");
    }
    call_close(&c);
    return result;
}

int node_call_invite(const char *data, uint64_t ttl_s, char **ret_token,
                     char error[NODE_ERROR_BYTES])
{
    if (!ttl_s || ttl_s > TOKEN_LIFETIME_MAX_S)
        return node_error(error, -EINVAL, "a token can last from 1 second to 365 days");
    struct call c;
    int result = call_open(&c, data, "make a token", error);
    if (!result) {
        buf_u64(call_begin(&c, CONTROL_INVITE), ttl_s);
        result = call_ask(&c, 0, error);
    }
    size_t length = result ? 0 : reader_left(&c.fields);
    if (!result && (!length || memchr(c.fields.at, 0, length)))
        result = call_bad_answer(&c, error);
    char *token = result ? NULL : strndup((const char *)c.fields.at, length);
    if (!result && !token)
        result = node_error(error, -ENOMEM, "out of memory");
    if (!result)
        *ret_token = token;
    call_close(&c);
    return result;
}

/* The lock is free when the process that held it is gone, however it ended. */
static int wait_for_end(const char *data, char error[NODE_ERROR_BYTES])
{
    char *file = directory_file(data, DIRECTORY_LOCK);
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1, result = 0;
    while (fd >= 0 && !result && flock(fd, LOCK_SH))
        if (errno != EINTR)
            result = -errno;
    if (!file)
        result = -ENOMEM;
    else if (fd < 0)
        result = -errno;
    if (fd >= 0)
        close(fd);
    free(file);
    if (result)
        node_error(error, result, "cannot see whether the node on %s has ended: %s", data,
                   strerror(-result));
    return result;
}

/* A descriptor that becomes readable when the node's process ends; -1: its pid cannot be
 * seen from here (another pid namespace), or it is this process (a test). */
static int watch_process(const struct call *c)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.pid <= 0 ||
        peer.pid == getpid())
        return -1;
    return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

static void wait_for_process(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    while (pidfd >= 0 && poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
}

int call_until_end(const char *data, enum control_command command, const char *what,
                   char error[NODE_ERROR_BYTES])
{
    struct call c;
    int pidfd = -1;
    if (call_end_killed(data)) {
        int result = wait_for_end(data, error);
        return result ? result : no_node(data, error);
    }
    int result = call_open(&c, data, what, error);
    if (!result) {
        pidfd = watch_process(&c);
        call_begin(&c, command);
        result = call_ask(&c, 0, error);
        if (result == -EPIPE || result == -ECONNRESET) /* it ended, which was asked for */
            result = 0;
        if (!result)
            result = wait_for_end(data, error);
        if (!result)
            wait_for_process(pidfd);
    }
    if (pidfd >= 0)
        close(pidfd);
    call_close(&c);
    return result;
}

/* A process that was killed has left its mount, and nobody else serves it. */
static bool clean_mounts(const char *data)
{
    char *path = realpath(data, NULL), error[NODE_ERROR_BYTES];
    int fd = -1;
    bool cleaned = path && directory_lock(path, &fd, error) == 0 && fs_mounts_clean(path);
    if (fd >= 0)
        close(fd);
    free(path);
    return cleaned;
}

int node_call_stop(const char *data, char error[NODE_ERROR_BYTES])
{
    int result = call_until_end(data, CONTROL_STOP, "stop the node", error);
    return result == -ECONNREFUSED && clean_mounts(data) ? 0 : result;
}

/* ---- Keys ------------------------------------------------------------------------ */

struct key_path {
    char text[LIMIT_PATH_BYTES + 1];
    char what[LIMIT_PATH_BYTES + 16]; /* of struct call */
    bool slash;                       /* it said that it names a directory */
};

/* Without leading, doubled and trailing slashes. */
static int clean_path(struct key_path *ret, const char *verb, const char *path,
                      char error[NODE_ERROR_BYTES])
{
    size_t length = 0;
    snprintf(ret->what, sizeof(ret->what), "%s \"%s\"", verb, path);
    if (!path[0])
        return node_error(error, -ENOENT, "cannot %s: the path is empty", ret->what);
    if (strlen(path) > LIMIT_PATH_BYTES)
        return node_error(error, -ENAMETOOLONG,
                          "cannot %s \"%.40s...\": a path has at most %d bytes", verb,
                          path, LIMIT_PATH_BYTES);
    for (const char *at = path; *at;) {
        at += strspn(at, "/");
        size_t size = strcspn(at, "/");
        if (size > LIMIT_NAME_BYTES)
            return node_error(
                error, -ENAMETOOLONG,
                "cannot %s \"%.40s...\": the name \"%.40s...\" has %zu bytes, "
                "more than %d",
                verb, path, at, size, LIMIT_NAME_BYTES);
        if ((size == 1 && at[0] == '.') || (size == 2 && !memcmp(at, "..", 2)))
            return node_error(error, -EINVAL,
                              "cannot %s: \".\" and \"..\" are no keys; write the path "
                              "from the root",
                              ret->what);
        if (size && length)
            ret->text[length++] = '/';
        memcpy(ret->text + length, at, size);
        length += size;
        at += size;
    }
    ret->text[length] = 0;
    ret->slash = path[strlen(path) - 1] == '/';
    return 0;
}

static int key_open(struct call *c, struct key_path **ret, const char *data,
                    const char *verb, const char *path, char error[NODE_ERROR_BYTES])
{
    *c = (struct call){.fd = -1};
    struct key_path *p = calloc(1, sizeof(*p));
    int result = p ? clean_path(p, verb, path, error)
                   : node_error(error, -ENOMEM, "out of memory");
    if (!result)
        result = call_open(c, data, p->what, error);
    *ret = p;
    return result;
}

static void key_close(struct call *c, struct key_path *p)
{
    call_close(c);
    free(p);
}

static int must_be_a_key(const struct call *c, const struct key_path *p,
                         char error[NODE_ERROR_BYTES])
{
    return p->slash || !p->text[0] ? failed(c, EISDIR, "", error) : 0;
}

/* No mount would show it: each has its own `.tierce` there. */
static int must_not_be_hidden(const struct key_path *p, char error[NODE_ERROR_BYTES])
{
    static const char own[] = ".tierce";
    size_t size = strlen(own);
    if (strncmp(p->text, own, size) || (p->text[size] && p->text[size] != '/'))
        return 0;
    return node_error(
        error, -EINVAL,
        "cannot %s: %s at the root is the node's own on every mount; choose "
        "another name",
        p->what, own);
}

int node_call_get(const char *data, const char *path,
                  int (*write)(void *context, const void *bytes, size_t length),
                  void *context, char error[NODE_ERROR_BYTES])
{
    struct call c;
    struct key_path *p;
    uint64_t version = 0, offset = 0, size = 1;
    int result = key_open(&c, &p, data, "get", path, error);
    if (!result)
        result = must_be_a_key(&c, p, error);
    while (!result && offset < size) {
        struct buf *request = call_begin(&c, CONTROL_GET);
        buf_cstring(request, p->text);
        buf_u64(request, version);
        buf_u64(request, offset);
        result = call_ask(&c, 0, error);
        if (result)
            break;
        version = reader_u64(&c.fields);
        size = reader_u64(&c.fields);
        size_t length = reader_left(&c.fields);
        if (c.fields.bad || length > size - min_u64(offset, size) ||
            (!length && offset < size)) {
            result = call_bad_answer(&c, error);
            break;
        }
        offset += length;
        result = length ? write(context, c.fields.at, length) : 0;
        if (result)
            node_error(error, result, "cannot write the value of \"%s\": %s", path,
                       strerror(-result));
    }
    key_close(&c, p);
    return result;
}

/* A whole piece, or what there is before the end. */
static int read_piece(struct call *c,
                      ssize_t (*read)(void *context, void *to, size_t size),
                      void *context, uint8_t *to, size_t *ret_length,
                      char error[NODE_ERROR_BYTES])
{
    size_t length = 0;
    while (length < CONTROL_PIECE_BYTES) {
        ssize_t n = read(context, to + length, CONTROL_PIECE_BYTES - length);
        if (n < 0)
            return node_error(error, (int)n, "cannot %s: reading the value failed: %s",
                              c->what, strerror((int)-n));
        if (n == 0)
            break;
        length += (size_t)n;
    }
    *ret_length = length;
    return 0;
}

static int put_pieces(struct call *c, const struct key_path *p,
                      ssize_t (*read)(void *context, void *to, size_t size),
                      void *context, uint8_t *piece, char error[NODE_ERROR_BYTES])
{
    uint64_t content = 0, offset = 0;
    for (bool last = false; !last;) {
        size_t length = 0;
        int result = read_piece(c, read, context, piece, &length, error);
        if (result)
            return result;
        last = length < CONTROL_PIECE_BYTES;
        struct buf *request = call_begin(c, CONTROL_PUT);
        buf_cstring(request, p->text);
        buf_u8(request, last ? CONTROL_PUT_LAST : 0);
        buf_u64(request, content);
        buf_u64(request, offset);
        buf_bytes(request, piece, length);
        result = call_ask(c, 0, error);
        if (result)
            return result;
        content = reader_u64(&c->fields);
        if (!reader_done(&c->fields))
            return call_bad_answer(c, error);
        offset += length;
    }
    return 0;
}

int node_call_put(const char *data, const char *path,
                  ssize_t (*read)(void *context, void *to, size_t size), void *context,
                  char error[NODE_ERROR_BYTES])
{
    struct call c;
    struct key_path *p;
    uint8_t *piece = NULL;
    int result = key_open(&c, &p, data, "put", path, error);
    if (!result)
        result = must_be_a_key(&c, p, error);
    if (!result)
        result = must_not_be_hidden(p, error);
    if (!result) {
        piece = malloc(CONTROL_PIECE_BYTES);
        result = piece ? put_pieces(&c, p, read, context, piece, error)
                       : node_error(error, -ENOMEM, "out of memory");
    }
    free(piece);
    key_close(&c, p);
    return result;
}

int node_call_del(const char *data, const char *path, char error[NODE_ERROR_BYTES])
{
    struct call c;
    struct key_path *p;
    int result = key_open(&c, &p, data, "delete", path, error);
    if (!result) {
        buf_cstring(call_begin(&c, CONTROL_DEL), p->text);
        result = call_ask(&c, 0, error);
    }
    key_close(&c, p);
    return result;
}

struct listing {
    int (*each)(void *context, const char *name, size_t name_size, uint8_t type);
    void *context;
    char last[LIMIT_NAME_BYTES + 1];
    bool more;
};

static int list_names(struct call *c, struct listing *l, char error[NODE_ERROR_BYTES])
{
    l->more = reader_u8(&c->fields) != 0;
    size_t count = 0;
    while (!c->fields.bad && reader_left(&c->fields)) {
        uint8_t type = reader_u8(&c->fields);
        reader_cstring(&c->fields, l->last, sizeof(l->last));
        if (c->fields.bad)
            break;
        count++;
        int result = l->each(l->context, l->last, strlen(l->last), type);
        if (result)
            return node_error(error, result, "cannot write the names: %s",
                              strerror(-result));
    }
    if (c->fields.bad || (l->more && !count))
        return call_bad_answer(c, error);
    return 0;
}

int node_call_ls(const char *data, const char *path,
                 int (*each)(void *context, const char *name, size_t name_size,
                             uint8_t type),
                 void *context, char error[NODE_ERROR_BYTES])
{
    struct call c;
    struct key_path *p;
    struct listing l = {.each = each, .context = context, .more = true};
    int result = key_open(&c, &p, data, "list", path, error);
    while (!result && l.more) {
        struct buf *request = call_begin(&c, CONTROL_LIST);
        buf_cstring(request, p->text);
        buf_cstring(request, l.last);
        result = call_ask(&c, 0, error);
        if (!result)
            result = list_names(&c, &l, error);
    }
    key_close(&c, p);
    return result;
}
