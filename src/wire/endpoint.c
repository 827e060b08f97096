/* endpoint.c - one node's listener, its limits, and the making of connections. */
#include "wire_internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Accepting ------------------------------------------------------------------- */

/* W8: what is beyond a limit is closed before it costs anything. */
static bool within_limits(const struct wire_endpoint *e, bool local)
{
    if (local)
        return e->local < LIMIT_LOCAL_CONNECTIONS;
    return e->accepted < LIMIT_CONNECTIONS && e->unproven < LIMIT_UNPROVEN_CONNECTIONS;
}

static void peer_text(const struct sockaddr *address, socklen_t size, char *to,
                      size_t limit)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo(address, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(to, limit, "a peer");
    else
        snprintf(to, limit, strchr(host, ':') ? "[%.100s]:%s" : "%.100s:%s", host, port);
}

void endpoint_accept_local(struct wire_endpoint *e, int fd)
{
    struct wire_connection *c = connection_new(e, WIRE_PEER_LOCAL);
    if (!c) {
        close(fd);
        return;
    }
    e->local++;
    snprintf(c->peer, sizeof(c->peer), "the command line");
    if (connection_start_local(c, fd) < 0)
        connection_free(c);
}

static void endpoint_accept(struct wire_endpoint *e, int fd,
                            const struct sockaddr *address, socklen_t size)
{
    struct wire_connection *c = connection_new(e, WIRE_PEER_NODE);
    if (!c) {
        close(fd);
        return;
    }
    e->accepted++;
    e->unproven++;
    c->unproven = true;
    peer_text(address, size, c->peer, sizeof(c->peer));
    connection_start_tls(c, fd);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd,
                      struct sockaddr *address, int size, void *context)
{
    struct listener *l = context;
    struct wire_endpoint *e = l->endpoint;
    e->counters.accepted++;
    if (!within_limits(e, l->local)) {
        e->counters.over_limit++;
        close((int)fd);
    } else if (l->local) {
        endpoint_accept_local(e, (int)fd);
    } else {
        endpoint_accept(e, (int)fd, address, (socklen_t)size);
    }
}

/* Out of descriptors or memory: the pending connection stays, and would wake the loop
 * again at once. */
static void on_accept_error(struct evconnlistener *listener, void *context)
{
    struct listener *l = context;
    struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
    l->endpoint->counters.over_limit++;
    evconnlistener_disable(listener);
    event_add(&l->resume, &pause);
}

static void on_resume(evutil_socket_t fd, short what, void *context)
{
    struct listener *l = context;
    evconnlistener_enable(l->listener);
}

int endpoint_add_listener(struct wire_endpoint *e, int fd, bool local)
{
    if (e->listener_count == LISTENERS_MAX) {
        close(fd);
        return -E2BIG;
    }
    struct listener *l = &e->listeners[e->listener_count];
    *l = (struct listener){.endpoint = e, .local = local};
    errno = ENOMEM;
    l->listener = evconnlistener_new(e->loop, on_accept, l,
                                     LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
                                     LISTEN_BACKLOG, fd);
    if (!l->listener) {
        int error = errno;
        close(fd);
        return -error;
    }
    evconnlistener_set_error_cb(l->listener, on_accept_error);
    event_assign(&l->resume, e->loop, -1, 0, on_resume, l);
    e->listener_count++;
    return 0;
}

static void remove_last_listener(struct wire_endpoint *e)
{
    struct listener *l = &e->listeners[--e->listener_count];
    event_del(&l->resume);
    evconnlistener_free(l->listener);
}

/* ---- Listening on the TLS port --------------------------------------------------- */

static int socket_port(int fd, uint16_t *ret)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return -errno;
    if (address.ss_family == AF_INET6)
        *ret = ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    else
        *ret = ntohs(((struct sockaddr_in *)&address)->sin_port);
    return 0;
}

static int bind_address(const struct sockaddr *address, socklen_t size, bool v6_only,
                        int *ret_fd)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int on = 1, only = v6_only;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (address->sa_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) < 0) ||
        bind(fd, address, size) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    *ret_fd = fd;
    return 0;
}

/* Bound and listening: one per address that was asked for. */
struct sockets {
    int fds[LISTENERS_MAX];
    size_t count;
};

static void close_sockets(struct sockets *s)
{
    while (s->count)
        close(s->fds[--s->count]);
}

/* Every address: one socket for v6 and v4, or v4 alone where the kernel has no v6. */
static int bind_everywhere(struct sockets *s, uint16_t port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    int rc = bind_address((struct sockaddr *)&v6, sizeof(v6), false, &s->fds[0]);
    if (rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL)
        rc = bind_address((struct sockaddr *)&v4, sizeof(v4), false, &s->fds[0]);
    s->count = rc < 0 ? 0 : 1;
    return rc;
}

static void set_port(struct sockaddr *address, uint16_t port)
{
    if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

/* All addresses of the host; where the kernel chooses the port, the same one for all. */
static int bind_found(struct sockets *s, const struct addrinfo *found, uint16_t port)
{
    for (const struct addrinfo *a = found; a; a = a->ai_next) {
        int fd;
        set_port(a->ai_addr, port);
        int rc = bind_address(a->ai_addr, a->ai_addrlen, true, &fd);
        if (rc == -EAFNOSUPPORT || (rc == -EADDRNOTAVAIL && a->ai_next))
            continue;
        if (rc == 0 && s->count == LISTENERS_MAX) {
            close(fd);
            rc = -E2BIG;
        }
        if (rc < 0)
            return rc;
        s->fds[s->count++] = fd;
        rc = port ? 0 : socket_port(fd, &port);
        if (rc < 0)
            return rc;
    }
    return s->count ? 0 : -EADDRNOTAVAIL;
}

static int bind_host(struct sockets *s, const char *host, uint16_t port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    int rc = bind_found(s, found, port);
    freeaddrinfo(found);
    return rc;
}

static const char *why_not_bound(int rc)
{
    switch (rc) {
    case -EINVAL:
        return "not an address (HOST:PORT, [V6]:PORT or :PORT)";
    case -EADDRINUSE:
        return "the port is already in use by another process";
    case -EADDRNOTAVAIL:
        return "this host has no such address";
    case -EACCES:
        return "ports below 1024 are reserved for root";
    default:
        return strerror(-rc);
    }
}

static int bind_sockets(struct sockets *ret, const char *address,
                        char error[WIRE_ERROR_BYTES])
{
    char host[LIMIT_ADDRESS_BYTES + 1];
    uint16_t port;
    struct sockets s = {0};
    int rc = wire_address_split(address, WIRE_DEFAULT_PORT, host, &port);
    if (rc == 0)
        rc = host[0] ? bind_host(&s, host, port) : bind_everywhere(&s, port);
    if (rc < 0) {
        close_sockets(&s);
        snprintf(error, WIRE_ERROR_BYTES, "cannot listen on %.280s: %s", address,
                 why_not_bound(rc));
        return rc;
    }
    *ret = s;
    return 0;
}

int wire_listen(struct wire_endpoint *e, const char *address,
                char error[WIRE_ERROR_BYTES])
{
    struct sockets s;
    size_t before = e->listener_count;
    int rc = bind_sockets(&s, address, error);
    if (rc < 0)
        return rc;
    while (rc == 0 && s.count)
        rc = endpoint_add_listener(e, s.fds[--s.count], false);
    if (rc == 0)
        return 0;
    close_sockets(&s);
    while (e->listener_count > before)
        remove_last_listener(e);
    snprintf(error, WIRE_ERROR_BYTES, "cannot listen on %.280s: %s", address,
             strerror(-rc));
    return rc;
}

int wire_listen_try(const char *address, char error[WIRE_ERROR_BYTES])
{
    struct sockets s;
    int rc = bind_sockets(&s, address, error);
    if (rc == 0)
        close_sockets(&s);
    return rc;
}

uint16_t wire_listen_port(const struct wire_endpoint *e)
{
    uint16_t port = 0;
    for (size_t i = 0; i < e->listener_count && port == 0; i++)
        if (!e->listeners[i].local)
            socket_port((int)evconnlistener_get_fd(e->listeners[i].listener), &port);
    return port;
}

/* ---- Life ------------------------------------------------------------------------ */

int wire_endpoint_new(struct wire_endpoint **ret, struct event_base *loop,
                      const struct wire_identity *identity,
                      const struct wire_hello *hello,
                      const struct wire_handlers *handlers, char error[WIRE_ERROR_BYTES])
{
    ensure(handlers->frame);
    ensure(hello->node_id == identity->node_id);
    ensure(memcmp(hello->cluster_id, identity->cluster_id, WIRE_CLUSTER_ID_BYTES) == 0);
    struct wire_endpoint *e = calloc(1, sizeof(*e));
    if (!e) {
        snprintf(error, WIRE_ERROR_BYTES, "cannot set up TLS: out of memory");
        return -ENOMEM;
    }
    int rc = tls_context_new(&e->tls, &e->cas, identity, error);
    if (rc < 0) {
        free(e);
        return rc;
    }
    /* The control socket's writes go through libevent, which cannot ask for MSG_NOSIGNAL.
     */
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    e->loop = loop;
    e->handlers = *handlers;
    e->hello = *hello;
    if (e->hello.version == 0) {
        e->hello.version = WIRE_PROTOCOL_VERSION;
        e->hello.oldest = WIRE_PROTOCOL_OLDEST;
    }
    e->timeouts = (struct wire_timeouts){.hello_ms = TIMEOUT_HELLO_MS,
                                         .frame_ms = TIMEOUT_FRAME_MS,
                                         .joiner_ms = TIMEOUT_JOINER_MS,
                                         .closing_ms = TIMEOUT_CLOSING_MS};
    TAILQ_INIT(&e->connections);
    TAILQ_INIT(&e->unsent);
    event_assign(&e->flush, loop, -1, 0, endpoint_flush, e);
    *ret = e;
    return 0;
}

void wire_endpoint_free(struct wire_endpoint *e)
{
    if (!e)
        return;
    while (e->listener_count)
        remove_last_listener(e);
    struct wire_connection *c;
    while ((c = TAILQ_FIRST(&e->connections)))
        connection_free(c);
    event_del(&e->flush);
    if (e->local_path)
        unlink(e->local_path);
    free(e->local_path);
    if (e->names)
        evdns_base_free(e->names, 1);
    SSL_CTX_free(e->tls);
    pki_free_certificates(e->cas);
    free(e);
}

int wire_endpoint_set_identity(struct wire_endpoint *e,
                               const struct wire_identity *identity,
                               char error[WIRE_ERROR_BYTES])
{
    SSL_CTX *tls;
    STACK_OF(X509) * cas;
    ensure(identity->node_id == e->hello.node_id);
    ensure(memcmp(identity->cluster_id, e->hello.cluster_id, WIRE_CLUSTER_ID_BYTES) == 0);
    int rc = tls_context_new(&tls, &cas, identity, error);
    if (rc < 0)
        return rc;
    SSL_CTX_free(e->tls); /* connections have their own references */
    pki_free_certificates(e->cas);
    e->tls = tls;
    e->cas = cas;
    struct wire_connection *c;
    TAILQ_FOREACH(c, &e->connections, link)
    connection_trust_again(c);
    return 0;
}

struct wire_connection *wire_find(struct wire_endpoint *e, uint64_t node_id)
{
    struct wire_connection *c;
    TAILQ_FOREACH(c, &e->connections, link)
    if (c->kind == WIRE_PEER_NODE && c->peer_id == node_id && wire_is_open(c))
        return c;
    return NULL;
}

int wire_dial(struct wire_endpoint *e, const char *address, uint64_t node_id,
              struct wire_connection **ret)
{
    char host[LIMIT_ADDRESS_BYTES + 1];
    uint16_t port;
    if (node_id == 0 || strlen(address) > LIMIT_ADDRESS_BYTES ||
        wire_address_split(address, WIRE_DEFAULT_PORT, host, &port) < 0 || !host[0] ||
        port == 0)
        return -EINVAL;
    struct wire_connection *c = connection_new(e, WIRE_PEER_NODE);
    if (!c)
        return -ENOMEM;
    c->dialed = true;
    c->announced = true;
    c->peer_id = node_id;
    strcpy(c->peer, address);
    int rc = dial_new(c, host, port);
    if (rc < 0) {
        connection_free(c);
        return rc;
    }
    connection_set_timer(c, c->since_us, e->timeouts.hello_ms);
    e->counters.dialed++;
    *ret = c;
    return 0;
}

void wire_endpoint_load(const struct wire_endpoint *e, struct wire_load *ret)
{
    *ret = (struct wire_load){
        .accepted = e->accepted, .unproven = e->unproven, .local = e->local};
}

void wire_each_heard(struct wire_endpoint *e,
                     void (*each)(void *context, uint64_t node_id), void *context)
{
    struct wire_connection *c;
    TAILQ_FOREACH (c, &e->connections, link)
        if (c->heard && c->kind == WIRE_PEER_NODE && c->state == CONNECTION_OPEN) {
            c->heard = false;
            each(context, c->peer_id);
        }
    for (size_t i = 0; i < e->parted_count; i++)
        each(context, e->parted[i]);
    e->parted_count = 0;
}

const struct wire_counters *wire_endpoint_counters(const struct wire_endpoint *e)
{
    return &e->counters;
}

struct wire_timeouts *wire_endpoint_timeouts(struct wire_endpoint *e)
{
    return &e->timeouts;
}
