/*
 * pool_malloc.c - pool.h by malloc, a call for each block: for the address sanitizer, and
 * for tests in which each allocation fails in turn.
 */
#include "pool.h"

#include <stdlib.h>

struct pool {
    _Atomic uint32_t references;
    _Atomic uint64_t used;
};

struct pool *pool_new(void)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (pool)
        atomic_init(&pool->references, 1);
    return pool;
}

void pool_ref(struct pool *pool)
{
    atomic_fetch_add(&pool->references, 1);
}

void pool_unref(struct pool *pool)
{
    if (!pool || atomic_fetch_sub(&pool->references, 1) > 1)
        return;
    ensure(atomic_load(&pool->used) == 0);
    free(pool);
}

bool pool_frees_all(void)
{
    return false;
}

void *pool_take(struct pool *pool, size_t size)
{
    ensure(size > 0 && size <= POOL_BLOCK_MOST);
    void *block = malloc(size);
    if (block)
        atomic_fetch_add(&pool->used, 1);
    return block;
}

void pool_give(struct pool *pool, void *block)
{
    atomic_fetch_sub(&pool->used, 1);
    free(block);
}

void pool_return(struct pool *pool, void *const *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (blocks[i])
            pool_give(pool, blocks[i]);
}

void pool_collect(struct pool *pool)
{
}

void pool_expect_many(struct pool *pool, bool many)
{
}

uint64_t pool_used(const struct pool *pool)
{
    return atomic_load(&pool->used);
}

uint64_t pool_mapped(const struct pool *pool)
{
    return 0;
}

void pool_check(const struct pool *pool)
{
}
