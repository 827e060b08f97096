/*
 * threads.c - pthread_* and the monotonic clock for the code under test (linked with
 * --wrap). A thread is a coroutine that runs until it waits; a mutex is held only across
 * waits, and contended only there.
 */
#include "sim.h"

#include <errno.h>
#include <time.h>

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr,
                          void *(*main)(void *arg), void *arg);
int __wrap_pthread_join(pthread_t thread, void **ret);
int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr);
int __wrap_pthread_cond_destroy(pthread_cond_t *c);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until);
int __wrap_pthread_cond_signal(pthread_cond_t *c);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);

enum { WAKE_US = 20 };

static uint64_t wake_delay(void)
{
    return chance_latency(CHANCE_CPU, WAKE_US);
}

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr,
                          void *(*main)(void *arg), void *arg)
{
    struct sim_thread *t = sim_thread_new(sim_at_node, main, arg, wake_delay());
    *ret = (pthread_t)t;
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **ret)
{
    struct sim_thread *t = (struct sim_thread *)thread;
    while (!t->done)
        sim_wait(t, UINT64_MAX);
    free(t);
    return 0;
}

/* Its first byte: whether it is held. */
static uint8_t *held(pthread_mutex_t *m)
{
    return (uint8_t *)m;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    memset(m, 0, sizeof(*m));
    return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    while (*held(m))
        sim_wait(m, UINT64_MAX);
    *held(m) = 1;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    *held(m) = 0;
    sim_wake(m, false, 0);
    return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr)
{
    return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *c)
{
    return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    __wrap_pthread_mutex_unlock(m);
    sim_wait(c, UINT64_MAX);
    return __wrap_pthread_mutex_lock(m);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until)
{
    uint64_t at_us = (uint64_t)until->tv_sec * 1000000 + (uint64_t)until->tv_nsec / 1000;
    uint64_t now_us = clock_boot_us();
    if (at_us <= now_us)
        return ETIMEDOUT;
    __wrap_pthread_mutex_unlock(m);
    int ret = sim_wait(c, at_us - now_us);
    __wrap_pthread_mutex_lock(m);
    return -ret;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
    sim_wake(c, false, wake_delay());
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
    sim_wake(c, true, wake_delay());
    return 0;
}

/* CLOCK_MONOTONIC of who waits on conditions. */
int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
    uint64_t us = id == CLOCK_REALTIME ? clock_real_us() : clock_boot_us();
    *ret = (struct timespec){(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    return 0;
}
