/*
 * call.c - the command line's blocking calls: one request, one answer, a deadline.
 *
 * They raise no SIGPIPE, and leave the caller's signals alone.
 */
#include "wire_internal.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Waiting --------------------------------------------------------------------- */

struct deadline {
    uint64_t end_us; /* 0: none */
};

static struct deadline deadline_in(unsigned timeout_ms)
{
    return (struct deadline){timeout_ms ? clock_boot_us() + timeout_ms * (uint64_t)1000
                                        : 0};
}

static int wait_for(int fd, short events, struct deadline deadline)
{
    for (;;) {
        int ms = -1;
        if (deadline.end_us) {
            uint64_t now = clock_boot_us();
            if (now >= deadline.end_us)
                return -ETIMEDOUT;
            ms = (int)min_u64((deadline.end_us - now + 999) / 1000, INT_MAX);
        }
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, ms);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* ---- Streams: the same frames over a socket, or over TLS ------------------------- */

struct stream {
    int fd;
    SSL *tls; /* NULL: none, the control socket */
    struct deadline deadline;
};

/* What to do about an OpenSSL call that gave `n`: 0 try again, else the error. */
static int tls_wait(struct stream *s, int n)
{
    int error = errno;
    switch (SSL_get_error(s->tls, n)) {
    case SSL_ERROR_WANT_READ:
        return wait_for(s->fd, POLLIN, s->deadline);
    case SSL_ERROR_WANT_WRITE:
        return wait_for(s->fd, POLLOUT, s->deadline);
    case SSL_ERROR_ZERO_RETURN:
        return -EPIPE;
    case SSL_ERROR_SYSCALL:
        return error ? -error : -EPIPE;
    default:
        return -EPROTO;
    }
}

/* Bytes moved, or 0: try again, or an error. */
static ssize_t plain_step(struct stream *s, void *to, const void *from, size_t length)
{
    ssize_t n = from ? send(s->fd, from, length, MSG_DONTWAIT | MSG_NOSIGNAL)
                     : recv(s->fd, to, length, MSG_DONTWAIT);
    if (n > 0)
        return n;
    if (n == 0 || errno == EPIPE || errno == ECONNRESET)
        return -EPIPE;
    if (errno == EAGAIN)
        return wait_for(s->fd, from ? POLLOUT : POLLIN, s->deadline);
    return errno == EINTR ? 0 : -errno;
}

static ssize_t tls_step(struct stream *s, void *to, const void *from, size_t length)
{
    ERR_clear_error();
    errno = 0;
    int chunk = (int)min_u64(length, TLS_RECORD_BYTES);
    int n = from ? SSL_write(s->tls, from, chunk) : SSL_read(s->tls, to, chunk);
    return n > 0 ? n : tls_wait(s, n);
}

static ssize_t stream_step(struct stream *s, void *to, const void *from, size_t length)
{
    return s->tls ? tls_step(s, to, from, length) : plain_step(s, to, from, length);
}

static int stream_write(struct stream *s, const void *data, size_t length)
{
    const uint8_t *at = data;
    while (length) {
        ssize_t n = stream_step(s, NULL, at, length);
        if (n < 0)
            return (int)n;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

static int stream_read(struct stream *s, void *to, size_t length)
{
    uint8_t *at = to;
    while (length) {
        ssize_t n = stream_step(s, at, NULL, length);
        if (n < 0)
            return (int)n;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

static int send_frame(struct stream *s, uint8_t type, uint16_t stream, const void *value,
                      size_t length)
{
    struct buf frame = {0};
    uint8_t *header = buf_extend(&frame, WIRE_FRAME_HEADER);
    if (header)
        frame_header_put(header, (struct frame_header){.type = type,
                                                       .stream = stream,
                                                       .length = (uint32_t)length});
    buf_bytes(&frame, value, length);
    int rc = frame.failed ? -ENOMEM : stream_write(s, frame.data, frame.length);
    buf_release(&frame);
    return rc;
}

/* The next frame of that type and stream; other streams' are late answers to calls that
 * were given up, and are skipped. -EPROTONOSUPPORT: a REFUSAL came, and is in *ret. */
static int receive_frame(struct stream *s, uint8_t type, uint16_t stream, struct buf *ret)
{
    for (;;) {
        uint8_t bytes[WIRE_FRAME_HEADER];
        int rc = stream_read(s, bytes, sizeof(bytes));
        if (rc < 0)
            return rc;
        struct frame_header header = frame_header_get(bytes);
        if (header.length > LIMIT_FRAME_BYTES)
            return -EPROTO;
        struct buf value = {0};
        uint8_t *to = buf_extend(&value, header.length);
        rc = value.failed ? -ENOMEM : stream_read(s, to, header.length);
        if (rc == 0 && header.type == WIRE_REFUSAL) {
            buf_bytes(ret, value.data, value.length);
            rc = ret->failed ? -ENOMEM : -EPROTONOSUPPORT;
        } else if (rc == 0 && header.stream == stream) {
            if (header.type == type)
                buf_bytes(ret, value.data, value.length);
            rc = header.type != type ? -EPROTO : ret->failed ? -ENOMEM : 1;
        }
        buf_release(&value);
        if (rc != 0)
            return rc < 0 ? rc : 0;
    }
}

/* ---- The control socket ---------------------------------------------------------- */

int wire_call_local_open(const char *path, int *ret_fd)
{
    struct sockaddr_un address;
    int directory = -1;
    int rc = local_address(path, &address, &directory);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
    } else {
        *ret_fd = fd;
    }
    if (directory >= 0)
        close(directory);
    return rc;
}

int wire_call_local(int fd, const void *request, size_t length, unsigned timeout_ms,
                    struct buf *ret_answer)
{
    if (length > LIMIT_FRAME_BYTES)
        return -EMSGSIZE;
    struct stream s = {.fd = fd, .deadline = deadline_in(timeout_ms)};
    uint16_t stream = (uint16_t)random_u64();
    int rc = send_frame(&s, WIRE_CONTROL, stream, request, length);
    return rc < 0 ? rc : receive_frame(&s, WIRE_CONTROL_ANSWER, stream, ret_answer);
}

/* ---- Joining --------------------------------------------------------------------- */

static int connect_address(const struct addrinfo *a, struct deadline deadline,
                           int *ret_fd)
{
    int error = 0;
    socklen_t size = sizeof(error);
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int rc = connect(fd, a->ai_addr, a->ai_addrlen) < 0 ? -errno : 0;
    if (rc == -EINPROGRESS) {
        rc = wait_for(fd, POLLOUT, deadline);
        if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
            rc = -errno;
        if (rc == 0)
            rc = -error;
    }
    if (rc < 0)
        close(fd);
    else
        *ret_fd = fd;
    return rc;
}

/* No address may use up the time of those after it. */
static struct deadline deadline_of_address(const struct addrinfo *a, struct deadline all)
{
    if (!a->ai_next)
        return all;
    uint64_t end = clock_boot_us() + TIMEOUT_ADDRESS_MS * (uint64_t)1000;
    return (struct deadline){all.end_us ? min_u64(all.end_us, end) : end};
}

static int connect_to(const char *address, struct deadline deadline, int *ret_fd,
                      char error[WIRE_ERROR_BYTES])
{
    char host[LIMIT_ADDRESS_BYTES + 1], service[8];
    uint16_t port;
    if (wire_address_split(address, WIRE_DEFAULT_PORT, host, &port) < 0 || !host[0] ||
        !port) {
        snprintf(error, WIRE_ERROR_BYTES, "not an address: %.280s; it is HOST:PORT",
                 address);
        return -EINVAL;
    }
    snprintf(service, sizeof(service), "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int failed = getaddrinfo(host, service, &hints, &found);
    if (failed) {
        snprintf(error, WIRE_ERROR_BYTES, "cannot find host %.280s: %s", host,
                 gai_strerror(failed));
        return -EHOSTUNREACH;
    }
    int rc = -EHOSTUNREACH;
    for (const struct addrinfo *a = found; a && rc < 0; a = a->ai_next)
        rc = connect_address(a, deadline_of_address(a, deadline), ret_fd);
    freeaddrinfo(found);
    if (rc < 0)
        snprintf(
            error, WIRE_ERROR_BYTES,
            "cannot connect to %.280s: %s; is the node there running, and reachable?",
            address, strerror(-rc));
    return rc;
}

/* The certificate with that hash, of those the server showed. */
static X509 *find_ca(SSL *tls, const uint8_t ca_hash[WIRE_HASH_BYTES])
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(tls);
    for (int i = 0; chain && i < sk_X509_num(chain); i++) {
        uint8_t hash[WIRE_HASH_BYTES];
        X509 *candidate = sk_X509_value(chain, i);
        if (pki_certificate_hash(candidate, hash) == 0 &&
            memcmp(hash, ca_hash, sizeof(hash)) == 0)
            return candidate;
    }
    return NULL;
}

/* Under that CA and no other. */
static int verify_under(X509 *certificate, X509 *ca)
{
    STACK_OF(X509) *cas = sk_X509_new_null();
    int result = cas && sk_X509_push(cas, ca) ? pki_verify(certificate, cas)
                                              : X509_V_ERR_OUT_OF_MEM;
    sk_X509_free(cas);
    return result;
}

/* That the server is a node of the cluster whose CA has this hash (W5). */
static int check_server(SSL *tls, const uint8_t ca_hash[WIRE_HASH_BYTES],
                        const char *address,
                        uint8_t ret_cluster_id[WIRE_CLUSTER_ID_BYTES],
                        char error[WIRE_ERROR_BYTES])
{
    uint64_t node_id;
    X509 *certificate = SSL_get0_peer_certificate(tls);
    X509 *ca = find_ca(tls, ca_hash);
    if (!certificate || !ca) {
        snprintf(
            error, WIRE_ERROR_BYTES,
            "%.280s is of another cluster than the token, or the cluster has "
            "replaced its CA since the token was made; run `tierce invite` there for "
            "a fresh one",
            address);
        return -EKEYREJECTED;
    }
    int result = verify_under(certificate, ca);
    if (result != X509_V_OK) {
        snprintf(error, WIRE_ERROR_BYTES,
                 "%.280s has no valid certificate of its cluster: %s%s", address,
                 X509_verify_cert_error_string(result),
                 result == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
                     ? "; if the cluster is replacing its CA, run `tierce invite` there "
                       "for a fresh token"
                     : "");
        return -EKEYREJECTED;
    }
    if (pki_certificate_ids(certificate, ret_cluster_id, &node_id) < 0) {
        snprintf(error, WIRE_ERROR_BYTES, "the certificate of %.280s is no node's",
                 address);
        return -EKEYREJECTED;
    }
    return 0;
}

static int shake_hands(struct stream *s)
{
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int n = SSL_connect(s->tls);
        if (n == 1)
            return 0;
        int rc = tls_wait(s, n);
        if (rc < 0)
            return rc;
    }
}

static int say_hello(struct stream *s, const uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES])
{
    struct wire_hello hello = {.version = WIRE_PROTOCOL_VERSION,
                               .oldest = WIRE_PROTOCOL_OLDEST,
                               .clock_us = clock_real_us()};
    memcpy(hello.cluster_id, cluster_id, sizeof(hello.cluster_id));
    struct buf value = {0};
    wire_hello_encode(&hello, &value);
    int rc =
        value.failed ? -ENOMEM : send_frame(s, WIRE_HELLO, 0, value.data, value.length);
    buf_release(&value);
    return rc;
}

static void explain_join(int rc, const char *address, char error[WIRE_ERROR_BYTES])
{
    const char *what = rc == -ETIMEDOUT
                           ? "did not answer in time; try again, or another node"
                       : rc == -EPIPE  ? "closed the connection; see the log of the node"
                                         " there"
                       : rc == -EPROTO ? "does not speak tierce's protocol; is it another"
                                         " program's port?"
                                       : strerror(-rc);
    snprintf(error, WIRE_ERROR_BYTES, "cannot join through %.280s: it %s", address, what);
}

/* The server does not speak with this program, and said why. */
static void explain_refusal(struct buf *refusal, const char *address,
                            char error[WIRE_ERROR_BYTES])
{
    enum wire_refusal reason;
    char text[WIRE_ERROR_BYTES];
    if (refusal_decode(refusal->data, refusal->length, &reason, text) < 0)
        explain_join(-EPROTO, address, error);
    else
        snprintf(error, WIRE_ERROR_BYTES, "cannot join through %.100s: %.380s", address,
                 text);
    buf_clear(refusal);
}

static int ask_to_join(struct stream *s, const uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES],
                       const void *request, size_t length, struct buf *ret_answer)
{
    int rc = say_hello(s, cluster_id);
    if (rc == 0)
        rc = send_frame(s, WIRE_JOIN, 1, request, length);
    if (rc == 0)
        rc = receive_frame(s, WIRE_JOIN_ANSWER, 1, ret_answer);
    return rc;
}

int wire_call_join(const char *address, const uint8_t ca_hash[WIRE_HASH_BYTES],
                   const void *request, size_t length, unsigned timeout_ms,
                   struct buf *ret_answer, char error[WIRE_ERROR_BYTES])
{
    ensure(length <= LIMIT_JOIN_FRAME_BYTES);
    uint8_t cluster_id[WIRE_CLUSTER_ID_BYTES];
    struct stream s = {.fd = -1, .deadline = deadline_in(timeout_ms)};
    int rc = connect_to(address, s.deadline, &s.fd, error);
    if (rc < 0)
        return rc;
    SSL_CTX *context = tls_joiner_context_new();
    s.tls = context ? SSL_new(context) : NULL;
    rc = s.tls ? tls_attach(s.tls, s.fd) : -ENOMEM;
    if (rc == 0)
        rc = shake_hands(&s);
    if (rc < 0) {
        explain_join(rc, address, error);
        goto out;
    }
    rc = check_server(s.tls, ca_hash, address, cluster_id, error);
    if (rc < 0)
        goto out;
    rc = ask_to_join(&s, cluster_id, request, length, ret_answer);
    if (rc == -EPROTONOSUPPORT)
        explain_refusal(ret_answer, address, error);
    else if (rc < 0)
        explain_join(rc, address, error);
    else
        SSL_shutdown(s.tls);
out:
    SSL_free(s.tls);
    SSL_CTX_free(context);
    close(s.fd);
    ERR_clear_error();
    return rc;
}
