/* plan.h - what plan.c and faults.c share. */
#ifndef TIERCE_SIM_PLAN_H
#define TIERCE_SIM_PLAN_H

#include "sim.h"

static inline uint64_t between(uint64_t low, uint64_t high)
{
    return low + chance_below(CHANCE_PLAN, high - low + 1);
}

static inline bool one_in(uint64_t n)
{
    return chance_below(CHANCE_PLAN, n) == 0;
}

/* Boots it, unless it is to stay down. */
void plan_restart(struct sim_node *n);

#endif
