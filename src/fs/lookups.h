/*
 * lookups.h - how often the kernel was given each inode number, and has not forgotten it:
 * as data, without locks. As long as it is above 0 the kernel holds the inode (K15).
 *
 * A find over a million files makes a million of these: 16 bytes each, in tables that are
 * at most three quarters full. There are many tables, so that none takes long to grow.
 */
#ifndef TIERCE_FS_LOOKUPS_H
#define TIERCE_FS_LOOKUPS_H

#include "base.h"

enum { LOOKUP_SHARDS = 1024 };

struct lookup {
    uint64_t inode; /* 0: free */
    uint64_t count : 63;
    uint64_t orphan : 1; /* to be released when nothing holds it */
};

struct lookup_shard {
    struct lookup *at;
    uint32_t room, used;
};

struct lookups {
    struct lookup_shard shards[LOOKUP_SHARDS];
    uint64_t count; /* of inodes */
};

/* NULL: there is none. Valid until the next call that adds or removes. */
struct lookup *lookups_find(struct lookups *l, uint64_t inode);
/* The one there is, or a new one with count 0. Ends the process where memory is out. */
struct lookup *lookups_get(struct lookups *l, uint64_t inode);
void lookups_remove(struct lookups *l, struct lookup *lookup);
void lookups_release(struct lookups *l);

#endif
