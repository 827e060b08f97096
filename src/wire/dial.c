/*
 * dial.c - from HOST:PORT to a connected socket, without blocking the loop.
 *
 * A numeric host needs no look-up; a name is looked up in /etc/hosts, then by DNS
 * (libevent's evdns; no other source of nsswitch.conf is asked). Its addresses are tried
 * one after the other.
 */
#include "wire_internal.h"

#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

/* Outlives its connection where a look-up is under way: libevent calls back even for one
 * that was cancelled. */
struct dial {
    struct wire_connection *c; /* NULL: the connection is gone */
    struct evdns_getaddrinfo_request *request;
    bool resolving;
    struct evutil_addrinfo *addresses;
    const struct evutil_addrinfo *next;
    struct event connected;
    int fd;
    int last_error;
    char resolve_error[128];
};

static void dial_connected(evutil_socket_t fd, short what, void *context);

static void dial_release(struct dial *d)
{
    if (d->addresses)
        evutil_freeaddrinfo(d->addresses);
    free(d);
}

static void dial_resolved(int result, struct evutil_addrinfo *addresses, void *context)
{
    struct dial *d = context;
    d->resolving = false;
    d->addresses = addresses;
    d->next = addresses;
    if (!d->c) {
        dial_release(d);
        return;
    }
    if (result != 0)
        snprintf(d->resolve_error, sizeof(d->resolve_error), "%s",
                 evutil_gai_strerror(result));
    event_active(&d->c->later, 0, 0);
}

static struct evutil_addrinfo look_for(int flags)
{
    return (struct evutil_addrinfo){.ai_family = PF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_protocol = IPPROTO_TCP,
                                    .ai_flags = flags};
}

/* The endpoint's resolver. /etc/hosts is read for every dial: it may have changed. */
static struct evdns_base *resolver(struct wire_endpoint *e)
{
    if (!e->names)
        e->names = evdns_base_new(e->loop, EVDNS_BASE_INITIALIZE_NAMESERVERS |
                                               EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (e->names) {
        evdns_base_clear_host_addresses(e->names);
        evdns_base_load_hosts(e->names, NULL);
    }
    return e->names;
}

static int resolve(struct dial *d, const char *host, uint16_t port)
{
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    struct evutil_addrinfo numeric =
        look_for(EVUTIL_AI_NUMERICHOST | EVUTIL_AI_NUMERICSERV);
    struct evutil_addrinfo *found = NULL;
    if (evutil_getaddrinfo(host, service, &numeric, &found) == 0) {
        dial_resolved(0, found, d);
        return 0;
    }
    struct evdns_base *names = resolver(d->c->endpoint);
    if (!names)
        return -ENOMEM;
    struct evutil_addrinfo any = look_for(EVUTIL_AI_NUMERICSERV);
    d->resolving = true;
    struct evdns_getaddrinfo_request *request =
        evdns_getaddrinfo(names, host, service, &any, dial_resolved, d);
    /* It may have called back already, from /etc/hosts. */
    if (d->resolving)
        d->request = request;
    return 0;
}

int dial_new(struct wire_connection *c, const char *host, uint16_t port)
{
    struct dial *d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->c = c;
    d->fd = -1;
    c->dial = d;
    event_assign(&d->connected, c->endpoint->loop, -1, 0, dial_connected, c);
    return resolve(d, host, port);
}

static void forget_attempt(struct dial *d)
{
    event_del(&d->connected);
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

void dial_free(struct wire_connection *c)
{
    struct dial *d = c->dial;
    if (!d)
        return;
    c->dial = NULL;
    forget_attempt(d);
    d->c = NULL;
    if (!d->resolving)
        dial_release(d);
    else if (d->request)
        evdns_getaddrinfo_cancel(d->request);
}

/* Begins to connect to one address; false: it failed at once. */
static bool try_address(struct wire_connection *c, const struct evutil_addrinfo *a)
{
    struct dial *d = c->dial;
    d->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->fd >= 0 &&
        (connect(d->fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS)) {
        struct timeval patience = {.tv_sec = TIMEOUT_ADDRESS_MS / 1000};
        event_assign(&d->connected, c->endpoint->loop, d->fd, EV_WRITE, dial_connected,
                     c);
        event_add(&d->connected, d->next ? &patience : NULL);
        return true;
    }
    d->last_error = errno;
    forget_attempt(d);
    return false;
}

void dial_go_on(struct wire_connection *c)
{
    struct dial *d = c->dial;
    while (d->next) {
        const struct evutil_addrinfo *a = d->next;
        d->next = a->ai_next;
        if (try_address(c, a))
            return;
    }
    connection_fail(c, "cannot connect to %s: %s", c->peer,
                    d->resolve_error[0] ? d->resolve_error : strerror(d->last_error));
}

static void dial_connected(evutil_socket_t fd, short what, void *context)
{
    struct wire_connection *c = context;
    struct dial *d = c->dial;
    int error = 0;
    socklen_t size = sizeof(error);
    connection_enter(c);
    if (what & EV_TIMEOUT)
        error = ETIMEDOUT;
    else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    if (error) {
        d->last_error = error;
        forget_attempt(d);
        dial_go_on(c);
    } else {
        d->fd = -1;
        dial_free(c);
        connection_start_tls(c, (int)fd);
    }
    connection_leave(c);
}
