/*
 * storm.h - a seeded run of a cluster with every fault at once, which must then converge;
 * the properties are checked after each step by cluster.c.
 */
#ifndef TIERCE_TEST_RAFT_STORM_H
#define TIERCE_TEST_RAFT_STORM_H

#include "cluster.h"

void storm_run(uint64_t seed, cluster_watch *watch);

/* Of all runs so far. */
extern struct counts storm_totals;
extern uint64_t
    storm_all_at_once; /* seeds in which all of what lesson 15 names happened */

#endif
