/*
 * position.h - private: places in a directory, as the numbers that telldir gives.
 *
 * A directory is listed in the order of its names, and a program may go back to any place
 * it was at, by a number of 63 bits, after whatever has changed meanwhile. A number that
 * counted names would lead elsewhere then; so it tells the place itself:
 *
 *   number = prefix + 1 (23 bits) | 5 bytes
 *
 * that is "behind all names up to, and beginning with, that prefix and these bytes"; where
 * the name is shorter they are filled up with zeros, and it is "behind the name". Prefixes
 * are kept and numbered. One is chosen so that the next name is not what the number takes
 * in: it differs within the five bytes. So what was there throughout stays on its side of
 * a place, exactly, even when the name that it is behind has gone.
 *
 * Most directories need few prefixes: a million names f0000000 ... need ten. At most
 * POSITION_BYTES of them are kept, twice; beyond, the older half is forgotten, with the
 * places that need it. An answer of READDIR takes more bytes than its prefixes, and at
 * most so many: what the kernel was last given is known.
 */
#ifndef TIERCE_FS_POSITION_H
#define TIERCE_FS_POSITION_H

#include "base.h"

enum {
    POSITION_BYTES = 1 << 20,
    POSITION_DEPTH = 32, /* prefixes of prefixes that are looked at again */
};

struct position {
    uint8_t bytes[LIMIT_NAME_BYTES];
    uint16_t size;
    bool beyond; /* behind all names that begin so */
};

/* A place right behind a name. */
void position_set(struct position *p, const void *name, size_t size);
/* Whether the name lies behind the place. */
bool position_is_before(const struct position *p, const void *name, size_t size);

struct prefixes {
    struct buf bytes, ends; /* u32: where each ends in `bytes` */
    struct buf slots;       /* u32: a hash table of which they are, from 1 on */
    uint64_t first;         /* number of the first one */
};

struct positions {
    struct prefixes now, former;
    uint64_t active[POSITION_DEPTH]; /* each begins with the one before */
    unsigned depth;
};

void positions_release(struct positions *all);
/* The number of the place between a name and the next one (NULL: there is none). */
int positions_number(struct positions *all, const void *name, size_t size,
                     const void *next, size_t next_size, uint64_t *ret);
/* -EINVAL: never given, or forgotten. */
int positions_find(const struct positions *all, uint64_t number, struct position *ret);

#endif
