/*
 * reading.c - read-side sections: liburcu, bulletproof flavour (threads need no
 * registration).
 *
 * gcc's thread sanitizer knows neither membarrier(2) nor the library's own accesses: it
 * is told that what a reader did in its section comes before what is deferred behind it.
 */
#include "store_internal.h"

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *address);
void __tsan_release(void *address);
static char section_edge;
#define EDGE_ACQUIRE() __tsan_acquire(&section_edge)
#define EDGE_RELEASE() __tsan_release(&section_edge)
#else
#define EDGE_ACQUIRE() ((void)0)
#define EDGE_RELEASE() ((void)0)
#endif

void reading_begin(void)
{
    rcu_read_lock();
}

void reading_end(void)
{
    EDGE_RELEASE();
    rcu_read_unlock();
}

void reading_defer(struct rcu_head *head, void (*release)(struct rcu_head *head))
{
    EDGE_RELEASE();
    call_rcu(head, release);
}

void reading_deferred(void)
{
    EDGE_ACQUIRE();
}

void reading_barrier(void)
{
    rcu_barrier();
    EDGE_ACQUIRE();
}
