/*
 * naming.c - what a node that is being made is called, where it listens, and what the
 * others dial.
 */
#include "setup.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static int choose_name(const struct node_setup *setup, struct directory *d,
                       char error[NODE_ERROR_BYTES])
{
    char host[LIMIT_NAME_BYTES + 1] = "";
    const char *name = setup->name;
    if (!name) {
        if (gethostname(host, sizeof(host) - 1))
            host[0] = 0;
        name = host;
    }
    if (!node_name_valid(name))
        return node_error(error, -EINVAL,
                          "\"%.300s\" cannot be a node's name: give --name with 1 to %d "
                          "printable characters, no spaces and no commas",
                          name, LIMIT_NAME_BYTES);
    strcpy(d->name, name);
    return 0;
}

static bool is_every_address(const char *host)
{
    return !host[0] || !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

/* Loopback, and addresses that mean something on one link only, are nothing to tell
 * others. */
static bool is_public(const struct ifaddrs *i)
{
    if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || i->ifa_flags & IFF_LOOPBACK)
        return false;
    if (i->ifa_addr->sa_family == AF_INET) {
        const struct sockaddr_in *in =
            (const struct sockaddr_in *)(const void *)i->ifa_addr;
        uint32_t a = ntohl(in->sin_addr.s_addr);
        return a >> 24 != 127 && a >> 16 != 0xa9fe;
    }
    if (i->ifa_addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in =
            (const struct sockaddr_in6 *)(const void *)i->ifa_addr;
        return !IN6_IS_ADDR_LINKLOCAL(&in->sin6_addr) &&
               !IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
    }
    return false;
}

static void host_address(char host[LIMIT_ADDRESS_BYTES + 1])
{
    strcpy(host, "127.0.0.1");
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all))
        return;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (!is_public(i))
            continue;
        socklen_t length = i->ifa_addr->sa_family == AF_INET
                               ? sizeof(struct sockaddr_in)
                               : sizeof(struct sockaddr_in6);
        if (!getnameinfo(i->ifa_addr, length, host, LIMIT_ADDRESS_BYTES + 1, NULL, 0,
                         NI_NUMERICHOST))
            break;
        strcpy(host, "127.0.0.1");
    }
    freeifaddrs(all);
}

/* A port alone would be taken for a host, and dialled as one: 21021 is 0.0.82.29. */
static bool is_bare_number(const char *address)
{
    return address[0] && !address[strspn(address, "0123456789")];
}

static int check_is_address(const struct node_setup *setup, char error[NODE_ERROR_BYTES])
{
    if (setup->listen && is_bare_number(setup->listen))
        return node_error(
            error, -EINVAL,
            "--listen: %.300s is not HOST:PORT: for a port on every address "
            "write :%.300s",
            setup->listen, setup->listen);
    if (setup->advertise && is_bare_number(setup->advertise))
        return node_error(error, -EINVAL,
                          "--advertise: %.300s is not HOST:PORT: write the host that "
                          "others dial before it, HOST:%.300s",
                          setup->advertise, setup->advertise);
    return 0;
}

static int choose_addresses(const struct node_setup *setup, struct directory *d,
                            char error[NODE_ERROR_BYTES])
{
    const char *listen = setup->listen ? setup->listen : NODE_DEFAULT_LISTEN;
    char host[LIMIT_ADDRESS_BYTES + 1];
    uint16_t port;
    if (strlen(listen) > LIMIT_ADDRESS_BYTES ||
        wire_address_split(listen, WIRE_DEFAULT_PORT, host, &port) || !port ||
        strpbrk(listen, ", \t"))
        return node_error(
            error, -EINVAL,
            "\"%.300s\" is nothing to listen on: give --listen HOST:PORT, or "
            ":PORT for every address",
            listen);
    strcpy(d->listen, listen);
    const char *advertise = setup->advertise;
    if (advertise &&
        (strlen(advertise) > LIMIT_ADDRESS_BYTES ||
         wire_address_split(advertise, port, host, &port) || is_every_address(host)))
        return node_error(error, -EINVAL,
                          "\"%.300s\" is nothing others could dial: give --advertise "
                          "HOST:PORT",
                          advertise);
    if (is_every_address(host))
        host_address(host);
    bool v6 = strchr(host, ':');
    int n = snprintf(d->advertise, sizeof(d->advertise), "%s%s%s:%u", v6 ? "[" : "", host,
                     v6 ? "]" : "", port);
    if (n < 0 || (size_t)n >= sizeof(d->advertise) || !node_address_valid(d->advertise))
        return node_error(error, -EINVAL,
                          "\"%.300s\" is nothing others could dial: give --advertise "
                          "HOST:PORT",
                          host);
    return 0;
}

int naming_choose(const struct node_setup *setup, struct directory *d,
                  char error[NODE_ERROR_BYTES])
{
    int result = choose_name(setup, d, error);
    if (!result)
        result = check_is_address(setup, error);
    return result ? result : choose_addresses(setup, d, error);
}

int naming_check_port(const struct directory *d, char error[NODE_ERROR_BYTES])
{
    char why[WIRE_ERROR_BYTES] = "";
    int result = wire_listen_try(d->listen, why);
    if (!result)
        return 0;
    return node_error(error, result, "%s; give another with --listen HOST:PORT", why);
}
