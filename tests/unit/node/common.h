/* common.h - a scratch directory, and checking messages. */
#ifndef TIERCE_TEST_NODE_COMMON_H
#define TIERCE_TEST_NODE_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node_internal.h"

#include <ftw.h>
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

/* Of a message: says this. */
#define assert_says(error, text)                                                         \
    do {                                                                                 \
        if (!strstr(error, text))                                                        \
            fail_msg("\"%s\" does not say \"%s\"", error, text);                         \
    } while (0)

#endif
