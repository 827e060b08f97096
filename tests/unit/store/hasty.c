/*
 * hasty.c - liburcu's helper thread sleeps 10 ms between two batches of what was
 * deferred, by poll() without descriptors. Tests that close ten thousand stores, each
 * waiting for its last batch, are linked with this one, which does not sleep.
 */
#include <poll.h>
#include <sched.h>
#include <stddef.h>

int poll(struct pollfd *descriptors, nfds_t count, int timeout_ms)
{
    if (count == 0 && timeout_ms >= 0)
        return sched_yield();
    struct timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    return ppoll(descriptors, count, timeout_ms < 0 ? NULL : &timeout, NULL);
}
