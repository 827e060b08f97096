/*
 * alloc.h - memory that runs out: the Nth allocation of the code under test fails.
 *
 * Linked with -Wl,--wrap for malloc and its kin. An allocation counts while this thread
 * is armed, and not inside the memory disk. What is allocated and not freed is counted
 * always, over all threads.
 */
#ifndef TIERCE_STORE_ALLOC_H
#define TIERCE_STORE_ALLOC_H

#include "base.h"

void alloc_arm(void);
void alloc_disarm(void);
/* The armed allocation with this number, counted from 1 from now on, fails; 0: none. */
void alloc_fail(uint64_t number);
/* That one, and all that follow until this thread is disarmed: to the end of the call. */
void alloc_fail_from(uint64_t number);
/* How many have failed since it was asked last. */
uint64_t alloc_failures(void);
/* Allocated and not freed. */
int64_t alloc_live(void);

#endif
