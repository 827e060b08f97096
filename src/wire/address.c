/* address.c - "HOST:PORT" as a user writes it. */
#include "wire_internal.h"

#include <errno.h>

static int port_parse(const char *text, uint16_t *ret)
{
    size_t length = strlen(text);
    if (length == 0 || length > 5 || strspn(text, "0123456789") != length)
        return -EINVAL;
    unsigned long port = strtoul(text, NULL, 10);
    if (port > UINT16_MAX)
        return -EINVAL;
    *ret = (uint16_t)port;
    return 0;
}

static bool host_is_sane(const char *at, size_t length)
{
    if (length > LIMIT_ADDRESS_BYTES)
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)at[i] <= ' ' || at[i] == 0x7f || strchr("[]/", at[i]))
            return false;
    return true;
}

/* Where host and port lie in the text. `*ret_port` NULL: there is none. */
static int find_parts(const char *text, const char **ret_host, size_t *ret_length,
                      const char **ret_port)
{
    const char *host = text;
    const char *end, *rest;
    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end || end == host)
            return -EINVAL;
        rest = end + 1;
    } else {
        end = rest = text + strcspn(text, ":");
        /* A bare v6 address: where its port would begin cannot be seen. */
        if (*rest && strchr(rest + 1, ':'))
            return -EINVAL;
    }
    if (*rest && *rest != ':')
        return -EINVAL;
    *ret_host = host;
    *ret_length = (size_t)(end - host);
    *ret_port = *rest ? rest + 1 : NULL;
    return 0;
}

int wire_address_split(const char *text, uint16_t default_port,
                       char host[LIMIT_ADDRESS_BYTES + 1], uint16_t *ret_port)
{
    const char *at = NULL, *port_text = NULL;
    size_t length = 0;
    uint16_t port = default_port;
    if (*text == 0 || find_parts(text, &at, &length, &port_text) < 0)
        return -EINVAL;
    if (port_text && port_parse(port_text, &port) < 0)
        return -EINVAL;
    if (!host_is_sane(at, length))
        return -EINVAL;
    memcpy(host, at, length);
    host[length] = 0;
    *ret_port = port;
    return 0;
}
