/* harness.c - see harness.h. */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/socket.h>
#include <unistd.h>

struct cluster *cluster_new(void)
{
    struct cluster *cl = calloc(1, sizeof(*cl));
    random_bytes(cl->id, sizeof(cl->id));
    assert_int_equal(wire_pki_make_ca(cl->id, &cl->ca_key, &cl->ca_cert), 0);
    return cl;
}

void cluster_free(struct cluster *cl)
{
    free(cl->ca_key);
    free(cl->ca_cert);
    free(cl);
}

void cluster_certify(const struct cluster *cl, uint64_t node_id, char **ret_cert,
                     char **ret_key)
{
    char *request;
    assert_int_equal(wire_pki_make_key(ret_key), 0);
    assert_int_equal(wire_pki_make_request(*ret_key, &request), 0);
    assert_int_equal(wire_pki_sign(cl->ca_key, cl->ca_cert, request, cl->id, node_id,
                                   "node", 10 * 86400, ret_cert),
                     0);
    free(request);
}

/* ---- Sides ----------------------------------------------------------------------- */

static int asked(void *context, struct wire_connection *c, const struct wire_hello *hello,
                 char text[WIRE_ERROR_BYTES])
{
    struct side *s = context;
    s->asked++;
    s->hello = *hello;
    assert_false(wire_is_open(c));
    assert_int_equal(wire_peer_id(c), hello->node_id);
    if (s->refuses)
        snprintf(text, WIRE_ERROR_BYTES, "%s", s->refusal_text);
    if (s->on_admit)
        s->on_admit(s, c);
    return s->refuses;
}

static void saw_opened(void *context, struct wire_connection *c,
                       const struct wire_hello *hello)
{
    struct side *s = context;
    s->opened++;
    s->last = c;
    s->hello = *hello;
    assert_true(wire_is_open(c));
    if (s->on_opened)
        s->on_opened(s, c);
}

static void saw_frame(void *context, struct wire_connection *c,
                      const struct wire_frame *frame)
{
    struct side *s = context;
    s->frames++;
    s->type = frame->type;
    s->stream = frame->stream;
    buf_clear(&s->value);
    buf_bytes(&s->value, frame->value, frame->length);
    if (s->on_frame)
        s->on_frame(s, c, frame);
}

static void saw_closed(void *context, struct wire_connection *c, const char *reason)
{
    struct side *s = context;
    s->closed++;
    if (s->last == c)
        s->last = NULL;
    s->refusal = wire_refusal(c);
    snprintf(s->reason, sizeof(s->reason), "%s", reason);
}

static void saw_drained(void *context, struct wire_connection *c)
{
    struct side *s = context;
    s->drained++;
    if (s->on_drained)
        s->on_drained(s, c);
}

struct event_base *loop_new(void)
{
    alarm(150); /* a wait in vain ends the test */
    struct event_base *loop = event_base_new();
    assert_non_null(loop);
    return loop;
}

void loop_free(struct event_base *loop)
{
    event_base_loop(loop, EVLOOP_NONBLOCK);
    event_base_free(loop);
    alarm(0);
}

struct side *side_new_as(const struct cluster *cl, struct event_base *loop,
                         uint64_t node_id, uint64_t certified_id)
{
    struct side *s = calloc(1, sizeof(*s));
    char error[WIRE_ERROR_BYTES], *cert, *key;
    s->loop = loop;
    s->node_id = node_id;
    cluster_certify(cl, certified_id, &cert, &key);
    struct wire_identity identity = {
        .ca_pem = cl->ca_cert, .cert_pem = cert, .key_pem = key, .node_id = certified_id};
    struct wire_hello hello = {.node_id = certified_id, .features = 5};
    memcpy(identity.cluster_id, cl->id, sizeof(cl->id));
    memcpy(hello.cluster_id, cl->id, sizeof(cl->id));
    snprintf(hello.name, sizeof(hello.name), "node%llu", (unsigned long long)node_id);
    struct wire_handlers handlers = {.context = s,
                                     .admit = asked,
                                     .opened = saw_opened,
                                     .frame = saw_frame,
                                     .closed = saw_closed,
                                     .drained = saw_drained};
    assert_int_equal(
        wire_endpoint_new(&s->endpoint, loop, &identity, &hello, &handlers, error), 0);
    s->endpoint->hello.node_id = node_id;
    free(cert);
    free(key);
    assert_int_equal(wire_listen(s->endpoint, "127.0.0.1:0", error), 0);
    snprintf(s->address, sizeof(s->address), "127.0.0.1:%u",
             wire_listen_port(s->endpoint));
    return s;
}

struct side *side_new(const struct cluster *cl, struct event_base *loop, uint64_t node_id)
{
    return side_new_as(cl, loop, node_id, node_id);
}

void side_speaks(struct side *s, uint16_t oldest, uint16_t newest)
{
    s->endpoint->hello.version = newest;
    s->endpoint->hello.oldest = oldest;
}

void side_free(struct side *s)
{
    wire_endpoint_free(s->endpoint);
    buf_release(&s->value);
    free(s);
}

struct wire_connection *side_dial(struct side *from, const struct side *to)
{
    struct wire_connection *c;
    assert_int_equal(wire_dial(from->endpoint, to->address, to->node_id, &c), 0);
    return c;
}

void connect_sides(struct side *from, struct side *to)
{
    unsigned had = from->opened, other = to->opened;
    side_dial(from, to);
    run_until(from->loop, from->opened > had && to->opened > other);
}

const struct wire_counters *counters_of(const struct side *s)
{
    return wire_endpoint_counters(s->endpoint);
}

/* ---- A raw peer ------------------------------------------------------------------ */

struct raw raw_connect(struct side *to)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(wire_listen_port(to->endpoint)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct raw r = {.loop = to->loop};
    r.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(r.fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return r;
}

static void raw_load(struct raw *r, const struct raw_tls *how)
{
    BIO *bio = BIO_new_mem_buf(how->cert, -1);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    EVP_PKEY *key = pki_read_key(how->key);
    assert_true(SSL_CTX_use_certificate(r->context, cert));
    assert_true(SSL_CTX_use_PrivateKey(r->context, key));
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(bio);
}

static void pump(struct raw *r)
{
    event_base_loop(r->loop, EVLOOP_NONBLOCK);
}

static bool try_again(struct raw *r, int n)
{
    int error = SSL_get_error(r->tls, n);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

int raw_handshake(struct raw *r, const struct raw_tls *how)
{
    int n;
    evutil_make_socket_nonblocking(r->fd);
    r->context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_options(r->context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    if (how->max_version)
        SSL_CTX_set_max_proto_version(r->context, how->max_version);
    if (how->cert)
        raw_load(r, how);
    r->tls = SSL_new(r->context);
    assert_int_equal(tls_attach(r->tls, r->fd), 0);
    while ((n = SSL_connect(r->tls)) != 1) {
        if (!try_again(r, n))
            return -1;
        pump(r);
    }
    return 0;
}

void raw_send(struct raw *r, const void *data, size_t length)
{
    const uint8_t *at = data;
    while (length) {
        ssize_t n = r->tls ? SSL_write(r->tls, at, (int)length)
                           : send(r->fd, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        } else if (r->tls ? !try_again(r, (int)n) : errno != EAGAIN) {
            return; /* the other end has closed, which the test will see */
        }
        pump(r);
    }
}

void raw_send_frame(struct raw *r, uint8_t type, uint16_t stream, const void *value,
                    size_t length)
{
    struct buf frame = {0};
    buf_u8(&frame, type);
    buf_u16(&frame, stream);
    buf_u32(&frame, (uint32_t)length);
    buf_bytes(&frame, value, length);
    raw_send(r, frame.data, frame.length);
    buf_release(&frame);
}

void raw_send_hello(struct raw *r, const struct cluster *cl, uint64_t node_id)
{
    struct wire_hello hello = {.version = WIRE_PROTOCOL_VERSION,
                               .oldest = WIRE_PROTOCOL_OLDEST,
                               .node_id = node_id};
    struct buf value = {0};
    memcpy(hello.cluster_id, cl->id, sizeof(cl->id));
    wire_hello_encode(&hello, &value);
    raw_send_frame(r, WIRE_HELLO, 0, value.data, value.length);
    buf_release(&value);
}

/* Bytes read; 0: none yet; -1: closed. */
static ssize_t raw_read(struct raw *r, void *to, size_t length)
{
    if (!r->tls) {
        ssize_t n = recv(r->fd, to, length, MSG_DONTWAIT);
        return n > 0 ? n : n < 0 && errno == EAGAIN ? 0 : -1;
    }
    ERR_clear_error();
    int n = SSL_read(r->tls, to, (int)length);
    return n > 0 ? n : try_again(r, n) ? 0 : -1;
}

bool raw_receive(struct raw *r, void *to, size_t length)
{
    uint8_t *at = to;
    while (length) {
        pump(r);
        ssize_t n = raw_read(r, at, length);
        if (n < 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

size_t raw_until_closed(struct raw *r)
{
    uint8_t bytes[4096];
    size_t total = 0;
    for (;;) {
        pump(r);
        ssize_t n = raw_read(r, bytes, sizeof(bytes));
        if (n < 0)
            return total;
        total += (size_t)n;
    }
}

void raw_close(struct raw *r)
{
    SSL_free(r->tls);
    SSL_CTX_free(r->context);
    close(r->fd);
    ERR_clear_error();
}

/* ---- Two sides of a cluster, as a fixture ------------------------------------------ */

int pair_setup(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));
    p->cl = cluster_new();
    p->loop = loop_new();
    p->a = side_new(p->cl, p->loop, 1);
    p->b = side_new(p->cl, p->loop, 2);
    *state = p;
    return 0;
}

int pair_teardown(void **state)
{
    struct pair *p = *state;
    side_free(p->a);
    side_free(p->b);
    loop_free(p->loop);
    cluster_free(p->cl);
    free(p);
    return 0;
}
