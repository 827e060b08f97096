/* clock.c - clocks and randomness. */
#include "base.h"

#include <sys/random.h>
#include <time.h>

static uint64_t clock_us(clockid_t id)
{
    struct timespec t;
    ensure(clock_gettime(id, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t clock_boot_us(void)
{
    return clock_us(CLOCK_BOOTTIME);
}

uint64_t clock_real_us(void)
{
    return clock_us(CLOCK_REALTIME);
}

void random_bytes(void *to, size_t length)
{
    uint8_t *at = to;
    while (length) {
        ssize_t n = getrandom(at, length, 0);
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        }
    }
}

uint64_t random_u64(void)
{
    uint64_t v;
    random_bytes(&v, sizeof(v));
    return v;
}

uint64_t random_next(uint64_t *state)
{
    ensure(*state != 0);
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1DULL;
}
