/* common.h - a scratch directory, ports, what init and join made, checking messages. */
#ifndef TIERCE_TEST_NODE_COMMON_H
#define TIERCE_TEST_NODE_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node_internal.h"

#include <ftw.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static inline int scratch_remove_one(const char *path, const struct stat *st, int flag,
                                     struct FTW *ftw)
{
    return remove(path);
}

static inline int scratch_make(void **state)
{
    char path[] = "/tmp/tierce-test-XXXXXX";
    *state = mkdtemp(path) ? strdup(path) : NULL;
    return *state ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
    int result = nftw(*state, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return result;
}

enum { ADDRESS_BYTES = 32 };

/* A socket on a port of the kernel's choice, and its address. */
static inline int bind_port(char ret_address[ADDRESS_BYTES])
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t size = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
    snprintf(ret_address, ADDRESS_BYTES, "127.0.0.1:%u", ntohs(a.sin_port));
    return fd;
}

/* One that nobody listens on just now. */
static inline void choose_address(char ret[ADDRESS_BYTES])
{
    close(bind_port(ret));
}

static inline struct store *open_store_of(const struct directory *d,
                                          struct store_recovery *recovery)
{
    struct store_options options = directory_store_options(d);
    struct store *s = NULL;
    char error[STORE_ERROR_BYTES];
    assert_int_equal(store_open(&s, &options, recovery, error), 0);
    return s;
}

/* Of a message: says this. */
#define assert_says(error, text)                                                         \
    do {                                                                                 \
        if (!strstr(error, text))                                                        \
            fail_msg("\"%s\" does not say \"%s\"", error, text);                         \
    } while (0)

#endif
