/*
 * pool.h - memory for the keydir's nodes: many, small, of few sizes, and most of them
 * there to stay.
 *
 * A chunk is mapped from the kernel at its own alignment and cut into slabs; a slab is
 * cut into blocks of one size. So a block has no header, what is loaded one after another
 * stands so in memory, a block leads to its slab by its address, and a chunk without
 * blocks goes back to the kernel. The address sanitizer is given pool_malloc.c instead,
 * which tells it of each block.
 *
 * One thread takes and gives at a time: the keydir's writer. Another thread's blocks
 * (those that readers may have held) are *returned*: the writer finds them later.
 */
#ifndef TIERCE_STORE_POOL_H
#define TIERCE_STORE_POOL_H

#include "store_internal.h"

enum {
    POOL_GRAIN = 8, /* sizes are multiples of it */
    POOL_BLOCK_MOST = 560,
    POOL_SIZES = POOL_BLOCK_MOST / POOL_GRAIN + 1,
    POOL_SLAB = 64 << 10,
    POOL_CHUNK = 2 << 20,
    POOL_SLABS = POOL_CHUNK / POOL_SLAB,
};

_Static_assert(offsetof(struct keydir_node, bytes) + LIMIT_KEY_BYTES +
                       LIMIT_KEYDIR_INLINE_BYTES <=
                   POOL_BLOCK_MOST,
               "every node is a block");

struct pool;

struct pool *pool_new(void); /* with one reference; NULL: no memory */
void pool_ref(struct pool *pool);
void pool_unref(struct pool *pool); /* any thread; NULL is allowed */
/* By the last pool_unref() all blocks must have been given or returned; true: those that
 * were not go with the pool. */
bool pool_frees_all(void);

/* At most POOL_BLOCK_MOST bytes. NULL: no memory. */
void *pool_take(struct pool *pool, size_t size);
void pool_give(struct pool *pool, void *block);
/* Any thread; NULLs are left out. */
void pool_return(struct pool *pool, void *const *blocks, size_t count);
/* The writer, now and then: what was returned is there to be taken again. */
void pool_collect(struct pool *pool);
/* What comes will fill whole slabs (a load): each gets its pages at once. */
void pool_expect_many(struct pool *pool, bool many);

uint64_t pool_used(const struct pool *pool);   /* blocks taken, those returned included */
uint64_t pool_mapped(const struct pool *pool); /* bytes */
void pool_check(const struct pool *pool);

#endif
