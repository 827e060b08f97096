/* pool.c - see pool.h. */
#include "pool.h"

#include <stdlib.h>
#include <sys/mman.h>

/* In a block that is free. */
struct pool_block {
    struct pool_block *next;
};

struct pool_slab {
    struct pool_slab *next, *previous; /* of its size, with room */
    struct pool_block *free;
    uint16_t used;
    uint16_t fresh;      /* blocks from here on were never taken */
    uint16_t count;      /* of blocks that fit */
    uint16_t block_size; /* 0: the slab is not in use */
};

struct pool_chunk {
    struct pool_chunk *next, *previous; /* with a slab that is not in use, or without */
    uint32_t slabs_used;
    struct pool_slab slabs[POOL_SLABS];
};

struct pool {
    _Atomic uint32_t references;
    _Atomic(struct pool_block *) returned;
    struct pool_slab *roomy[POOL_SIZES]; /* by size: slabs with a free block */
    struct pool_chunk *open, *full;      /* chunks with, and without, a slab to be had */
    uint64_t chunks, used;
    bool many;
};

enum { FIRST_BLOCK = (sizeof(struct pool_chunk) + 63) / 64 * 64 };

_Static_assert(FIRST_BLOCK + 4 * POOL_BLOCK_MOST < POOL_SLAB, "a head leaves room");
_Static_assert(POOL_SLAB / POOL_GRAIN <= UINT16_MAX, "a slab counts its blocks");

/* ---- Lists ------------------------------------------------------------------------- */

#define LIST_PUSH(head, item)                                                            \
    do {                                                                                 \
        (item)->previous = NULL;                                                         \
        (item)->next = *(head);                                                          \
        if (*(head))                                                                     \
            (*(head))->previous = (item);                                                \
        *(head) = (item);                                                                \
    } while (0)

#define LIST_TAKE(head, item)                                                            \
    do {                                                                                 \
        if ((item)->previous)                                                            \
            (item)->previous->next = (item)->next;                                       \
        else                                                                             \
            *(head) = (item)->next;                                                      \
        if ((item)->next)                                                                \
            (item)->next->previous = (item)->previous;                                   \
    } while (0)

/* ---- Chunks ------------------------------------------------------------------------ */

static struct pool_chunk *chunk_of(const void *address)
{
    return (struct pool_chunk *)((uintptr_t)address & ~((uintptr_t)POOL_CHUNK - 1));
}

/* The kernel aligns to pages: what is too much goes back. */
static struct pool_chunk *chunk_map(void)
{
    uint8_t *area = mmap(NULL, 2 * (size_t)POOL_CHUNK, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return NULL;
    uint8_t *chunk = (uint8_t *)chunk_of(area + POOL_CHUNK - 1);
    size_t before = (size_t)(chunk - area);
    if (before > 0)
        munmap(area, before);
    if (before < POOL_CHUNK)
        munmap(chunk + POOL_CHUNK, POOL_CHUNK - before);
    return (struct pool_chunk *)chunk;
}

static struct pool_chunk *chunk_new(struct pool *pool)
{
    struct pool_chunk *chunk = chunk_map();
    if (!chunk)
        return NULL;
    LIST_PUSH(&pool->open, chunk); /* the rest is zeros */
    pool->chunks++;
    return chunk;
}

static void chunk_free(struct pool *pool, struct pool_chunk *chunk)
{
    pool->chunks--;
    munmap(chunk, POOL_CHUNK);
}

/* ---- Slabs ------------------------------------------------------------------------- */

static struct pool_slab *slab_of(const void *block)
{
    return &chunk_of(block)->slabs[(uintptr_t)block % POOL_CHUNK / POOL_SLAB];
}

static uint8_t *slab_blocks(const struct pool_slab *slab)
{
    struct pool_chunk *chunk = chunk_of(slab);
    size_t at = (size_t)(slab - chunk->slabs);
    return (uint8_t *)chunk + (at == 0 ? FIRST_BLOCK : at * POOL_SLAB);
}

static unsigned unused_slab(const struct pool_chunk *chunk)
{
    unsigned at = 0;
    while (chunk->slabs[at].block_size > 0)
        at++;
    ensure(at < POOL_SLABS);
    return at;
}

/* One call for what would be a page fault for each page. */
static void populate(const struct pool_slab *slab)
{
    uintptr_t first = (uintptr_t)slab_blocks(slab) / POOL_SLAB * POOL_SLAB;
    madvise((void *)first, POOL_SLAB, MADV_POPULATE_WRITE); /* only a hint */
}

/* An empty one for blocks of this size, first in its list. */
static struct pool_slab *slab_new(struct pool *pool, unsigned size)
{
    struct pool_chunk *chunk = pool->open ? pool->open : chunk_new(pool);
    if (!chunk)
        return NULL;
    unsigned at = unused_slab(chunk);
    struct pool_slab *slab = &chunk->slabs[at];
    size_t bytes = POOL_SLAB - (at == 0 ? FIRST_BLOCK : 0);
    *slab = (struct pool_slab){.block_size = (uint16_t)(size * POOL_GRAIN),
                               .count = (uint16_t)(bytes / (size * POOL_GRAIN))};
    if (pool->many)
        populate(slab);
    LIST_PUSH(&pool->roomy[size], slab);
    if (++chunk->slabs_used == POOL_SLABS) {
        LIST_TAKE(&pool->open, chunk);
        LIST_PUSH(&pool->full, chunk);
    }
    return slab;
}

/* One chunk that is not in use stays, so that none comes and goes all the time. */
static void slab_free(struct pool *pool, struct pool_slab *slab)
{
    struct pool_chunk *chunk = chunk_of(slab);
    LIST_TAKE(&pool->roomy[slab->block_size / POOL_GRAIN], slab);
    slab->block_size = 0;
    if (chunk->slabs_used-- == POOL_SLABS) {
        LIST_TAKE(&pool->full, chunk);
        LIST_PUSH(&pool->open, chunk);
    }
    if (chunk->slabs_used == 0 && (chunk->next || chunk->previous)) {
        LIST_TAKE(&pool->open, chunk);
        chunk_free(pool, chunk);
    }
}

/* ---- Blocks ------------------------------------------------------------------------ */

bool pool_frees_all(void)
{
    return true;
}

void *pool_take(struct pool *pool, size_t size)
{
    unsigned at = (unsigned)((size + POOL_GRAIN - 1) / POOL_GRAIN);
    ensure(size > 0 && size <= POOL_BLOCK_MOST);
    struct pool_slab *slab = pool->roomy[at];
    if (!slab) {
        slab = slab_new(pool, at);
        if (!slab)
            return NULL;
    }
    struct pool_block *block = slab->free;
    if (block)
        slab->free = block->next;
    else
        block = (void *)(slab_blocks(slab) + (size_t)slab->fresh++ * slab->block_size);
    if (++slab->used == slab->count)
        LIST_TAKE(&pool->roomy[at], slab);
    pool->used++;
    return block;
}

void pool_give(struct pool *pool, void *block)
{
    struct pool_slab *slab = slab_of(block);
    struct pool_block *freed = block;
    ensure(slab->used > 0);
    if (slab->used == slab->count)
        LIST_PUSH(&pool->roomy[slab->block_size / POOL_GRAIN], slab);
    freed->next = slab->free;
    slab->free = freed;
    slab->used--;
    pool->used--;
    if (slab->used == 0)
        slab_free(pool, slab);
}

void pool_return(struct pool *pool, void *const *blocks, size_t count)
{
    struct pool_block *first = NULL, *last = NULL;
    for (size_t i = 0; i < count; i++) {
        struct pool_block *block = blocks[i];
        if (!block)
            continue;
        block->next = first;
        first = block;
        last = last ? last : block;
    }
    if (!first)
        return;
    last->next = atomic_load_explicit(&pool->returned, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &pool->returned, &last->next, first, memory_order_release, memory_order_relaxed))
        ;
}

void pool_collect(struct pool *pool)
{
    if (!atomic_load_explicit(&pool->returned, memory_order_relaxed))
        return;
    struct pool_block *block =
        atomic_exchange_explicit(&pool->returned, NULL, memory_order_acquire);
    while (block) {
        struct pool_block *next = block->next;
        pool_give(pool, block);
        block = next;
    }
}

void pool_expect_many(struct pool *pool, bool many)
{
    pool->many = many;
}

/* ---- Life -------------------------------------------------------------------------- */

struct pool *pool_new(void)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (pool)
        atomic_init(&pool->references, 1);
    return pool;
}

void pool_ref(struct pool *pool)
{
    atomic_fetch_add_explicit(&pool->references, 1, memory_order_relaxed);
}

static void free_chunks(struct pool *pool, struct pool_chunk *chunk)
{
    while (chunk) {
        struct pool_chunk *next = chunk->next;
        chunk_free(pool, chunk);
        chunk = next;
    }
}

void pool_unref(struct pool *pool)
{
    if (!pool ||
        atomic_fetch_sub_explicit(&pool->references, 1, memory_order_acq_rel) > 1)
        return;
    free_chunks(pool, pool->open);
    free_chunks(pool, pool->full);
    ensure(pool->chunks == 0);
    free(pool);
}

uint64_t pool_used(const struct pool *pool)
{
    return pool->used;
}

uint64_t pool_mapped(const struct pool *pool)
{
    return pool->chunks * POOL_CHUNK;
}

/* ---- Checking ---------------------------------------------------------------------- */

static void check_slab(const struct pool_slab *slab)
{
    unsigned free_blocks = 0;
    for (const struct pool_block *b = slab->free; b; b = b->next, free_blocks++) {
        size_t at = (size_t)((const uint8_t *)b - slab_blocks(slab));
        ensure(slab_of(b) == slab && at % slab->block_size == 0);
        ensure(at / slab->block_size < slab->fresh);
    }
    ensure(slab->used + free_blocks == slab->fresh && slab->fresh <= slab->count);
    ensure(slab->used > 0);
}

static uint64_t check_chunk(const struct pool_chunk *chunk)
{
    uint64_t used = 0;
    unsigned slabs = 0;
    for (unsigned i = 0; i < POOL_SLABS; i++) {
        if (chunk->slabs[i].block_size == 0)
            continue;
        check_slab(&chunk->slabs[i]);
        used += chunk->slabs[i].used;
        slabs++;
    }
    ensure(slabs == chunk->slabs_used);
    return used;
}

/* Each block is free or taken; whatever has room is found, and nothing else. */
void pool_check(const struct pool *pool)
{
    uint64_t used = 0, chunks = 0, unused = 0;
    for (const struct pool_chunk *c = pool->open; c; c = c->next, chunks++) {
        ensure(c->slabs_used < POOL_SLABS);
        unused += c->slabs_used == 0;
        used += check_chunk(c);
    }
    for (const struct pool_chunk *c = pool->full; c; c = c->next, chunks++) {
        ensure(c->slabs_used == POOL_SLABS);
        used += check_chunk(c);
    }
    ensure(used == pool->used && chunks == pool->chunks && unused <= 1);
    for (unsigned size = 0; size < POOL_SIZES; size++)
        for (const struct pool_slab *s = pool->roomy[size]; s; s = s->next)
            ensure(s->used < s->count && s->block_size == size * POOL_GRAIN);
}
