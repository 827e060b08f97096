/*
 * test_pool.c - the memory of the keydir's nodes. White-box: what goes back to the kernel,
 * and when, is not to be seen from outside. Linked with mmap wrapped (by its name where
 * offsets have 64 bits), so that it can fail.
 */
#include "fixture.h"
#include "pool.h"

#include <pthread.h>
#include <sys/mman.h>

static bool mmap_fails;

void *__real_mmap64(void *, size_t, int, int, int, off_t);
void *__wrap_mmap64(void *, size_t, int, int, int, off_t);

void *__wrap_mmap64(void *at, size_t length, int protection, int flags, int fd,
                    off_t from)
{
    if (mmap_fails) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap64(at, length, protection, flags, fd, from);
}

/* ---- A model: each block is filled with a byte of its own --------------------------- */

enum { BLOCKS = 40000 };

struct model {
    struct pool *pool;
    uint8_t *blocks[BLOCKS]; /* NULL: not taken */
    size_t sizes[BLOCKS];
    uint64_t used;
};

static uint8_t byte_of(size_t i)
{
    return (uint8_t)(i * 37 + 11);
}

static void model_take(struct model *m, size_t i, size_t size)
{
    m->blocks[i] = pool_take(m->pool, size);
    assert_non_null(m->blocks[i]);
    assert_int_equal((uintptr_t)m->blocks[i] % POOL_GRAIN, 0);
    m->sizes[i] = size;
    memset(m->blocks[i], byte_of(i), size);
    m->used++;
}

/* Nobody else has written to it. */
static void model_look(const struct model *m, size_t i)
{
    for (size_t at = 0; at < m->sizes[i]; at++)
        if (m->blocks[i][at] != byte_of(i))
            fail_msg("block %zu of %zu bytes was overwritten", i, m->sizes[i]);
}

static void model_drop(struct model *m, size_t i)
{
    model_look(m, i);
    m->used--;
}

static void model_give(struct model *m, size_t i)
{
    model_drop(m, i);
    pool_give(m->pool, m->blocks[i]);
    m->blocks[i] = NULL;
}

static void model_init(struct model *m)
{
    *m = (struct model){.pool = pool_new()};
    assert_non_null(m->pool);
}

static void model_give_all(struct model *m)
{
    for (size_t i = 0; i < BLOCKS; i++)
        if (m->blocks[i])
            model_give(m, i);
    assert_int_equal(pool_used(m->pool), 0);
}

static struct model model; /* too large for a stack */

/* ---- Tests ------------------------------------------------------------------------- */

static void test_every_size(void **state)
{
    struct model *m = &model;
    model_init(m);
    for (size_t size = 1; size <= POOL_BLOCK_MOST; size++)
        for (size_t n = 0; n < 3; n++)
            model_take(m, size * 3 + n, size);
    pool_check(m->pool);
    assert_int_equal(pool_used(m->pool), 3 * POOL_BLOCK_MOST);
    model_give_all(m);
    pool_check(m->pool);
    pool_unref(m->pool);
}

static void random_step(struct model *m, uint64_t *random, size_t most)
{
    size_t i = random_next(random) % BLOCKS;
    if (m->blocks[i])
        model_give(m, i);
    else
        model_take(m, i, 1 + random_next(random) % most);
}

static void test_random(void **state)
{
    struct model *m = &model;
    uint64_t random = 20;
    model_init(m);
    for (unsigned round = 0; round < 8; round++) {
        size_t most = round % 2 ? POOL_BLOCK_MOST : 64;
        for (unsigned n = 0; n < 2 * BLOCKS; n++)
            random_step(m, &random, most);
        pool_check(m->pool);
        assert_int_equal(pool_used(m->pool), m->used);
    }
    model_give_all(m);
    pool_unref(m->pool);
}

/* Of what a load takes one after another. */
static void test_close_together(void **state)
{
    if (!pool_frees_all())
        skip();
    struct model *m = &model;
    model_init(m);
    pool_expect_many(m->pool, true);
    for (size_t i = 0; i < BLOCKS; i++)
        model_take(m, i, 46);
    uint64_t mapped = pool_mapped(m->pool), bytes = (uint64_t)BLOCKS * 48;
    assert_true(mapped >= bytes && mapped <= bytes + bytes / 50 + POOL_CHUNK);
    for (size_t i = 1; i < 1000; i++)
        assert_ptr_equal(m->blocks[i], m->blocks[i - 1] + 48);
    model_give_all(m);
    pool_unref(m->pool);
}

/* All but one chunk, whatever was in them, and the slabs of one size serve another. */
static void test_back_to_the_kernel(void **state)
{
    if (!pool_frees_all())
        skip();
    struct model *m = &model;
    model_init(m);
    for (size_t i = 0; i < BLOCKS; i++)
        model_take(m, i, 400);
    uint64_t most = pool_mapped(m->pool);
    assert_true(most > 4 * POOL_CHUNK);
    for (size_t i = 0; i < BLOCKS; i += 2)
        model_give(m, i);
    assert_int_equal(pool_mapped(m->pool), most);
    model_give_all(m);
    assert_int_equal(pool_mapped(m->pool), POOL_CHUNK);
    pool_check(m->pool);
    for (size_t i = 0; i < 100; i++)
        model_take(m, i, 8 + i);
    assert_int_equal(pool_mapped(m->pool), POOL_CHUNK);
    pool_check(m->pool);
    model_give_all(m);
    pool_unref(m->pool);
}

static void test_without_memory(void **state)
{
    if (!pool_frees_all())
        skip();
    struct model *m = &model;
    model_init(m);
    mmap_fails = true;
    assert_null(pool_take(m->pool, 100));
    pool_check(m->pool);
    mmap_fails = false;
    model_take(m, 0, 100);
    mmap_fails = true;
    size_t i = 1; /* what is mapped suffices for these */
    for (; (m->blocks[i] = pool_take(m->pool, 500)); i++) {
        m->sizes[i] = 0;
        m->used++;
    }
    assert_true(i > 3000);
    pool_check(m->pool);
    model_give(m, 1);
    model_take(m, 1, 500);
    assert_null(pool_take(m->pool, 500));
    mmap_fails = false;
    model_take(m, i, 500);
    assert_int_equal(pool_mapped(m->pool), 2 * (uint64_t)POOL_CHUNK);
    model_give_all(m);
    pool_unref(m->pool);
}

/* What was returned is there again when the writer has collected it, not before. */
static void test_returned(void **state)
{
    struct model *m = &model;
    model_init(m);
    for (size_t i = 0; i < 5000; i++)
        model_take(m, i, 40);
    uint64_t mapped = pool_mapped(m->pool);
    for (unsigned round = 0; round < 20; round++) {
        pool_return(m->pool, (void **)m->blocks, 5001); /* the last is NULL */
        if (pool_frees_all())
            assert_int_equal(pool_used(m->pool), 5000);
        pool_collect(m->pool);
        pool_check(m->pool);
        assert_int_equal(pool_used(m->pool), 0);
        m->used = 0;
        for (size_t i = 0; i < 5000; i++)
            model_take(m, i, 40);
        assert_int_equal(pool_mapped(m->pool), mapped);
    }
    model_give_all(m);
    pool_unref(m->pool);
}

/* ---- Returned by other threads, while the writer takes ------------------------------
 */

enum { THREADS = 3, BATCH = 50, BATCHES = 2000 };

struct batch {
    _Atomic(struct batch *) next;
    void *blocks[BATCH];
};

struct returner {
    struct pool *pool;
    _Atomic(struct batch *) queue;
    _Atomic bool stop;
};

static struct batch *take_batch(struct returner *r)
{
    struct batch *batch = atomic_load(&r->queue);
    while (batch && !atomic_compare_exchange_weak(&r->queue, &batch, NULL))
        ;
    return batch;
}

static void *returner_main(void *arg)
{
    struct returner *r = arg;
    for (;;) {
        bool stop = r->stop;
        struct batch *batch = take_batch(r);
        if (!batch && stop)
            break;
        if (!batch)
            sched_yield();
        while (batch) {
            struct batch *next = batch->next;
            pool_return(r->pool, batch->blocks, BATCH);
            pool_unref(r->pool); /* each batch has one, as a change of the keydir */
            free(batch);
            batch = next;
        }
    }
    return NULL;
}

static void hand_over(struct returner *r, struct batch *batch)
{
    struct batch *next = atomic_load(&r->queue);
    do
        batch->next = next;
    while (!atomic_compare_exchange_weak(&r->queue, &next, batch));
}

static struct batch *batch_new(struct pool *pool, uint64_t *random)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    assert_non_null(batch);
    for (unsigned i = 0; i < BATCH; i++) {
        size_t size = 24 + random_next(random) % 60;
        batch->blocks[i] = random_next(random) % 8 ? pool_take(pool, size) : NULL;
        if (batch->blocks[i])
            memset(batch->blocks[i], (int)i, size);
    }
    return batch;
}

/* The pool stays until the last has been returned, though its owner is gone. */
static void test_threads(void **state)
{
    struct pool *pool = pool_new();
    struct returner returners[THREADS];
    pthread_t threads[THREADS];
    uint64_t random = 7;
    for (unsigned i = 0; i < THREADS; i++) {
        returners[i] = (struct returner){.pool = pool};
        assert_int_equal(pthread_create(&threads[i], NULL, returner_main, &returners[i]),
                         0);
    }
    for (unsigned n = 0; n < BATCHES; n++) {
        pool_collect(pool);
        pool_ref(pool);
        hand_over(&returners[n % THREADS], batch_new(pool, &random));
    }
    pool_collect(pool);
    pool_check(pool);
    pool_unref(pool);
    for (unsigned i = 0; i < THREADS; i++)
        returners[i].stop = true;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* ---- In the keydir ----------------------------------------------------------------- */

/* Nodes that were replaced and removed serve again: as many are in use as there are
 * keys, but for those that readers may still hold. */
static void test_keydir_gives_back(void **state)
{
    struct fixture f;
    fixture_init(&f, 1 << 20);
    fixture_reopen(&f);
    for (unsigned i = 0; i < 1000; i++) {
        char key[8];
        snprintf(key, sizeof(key), "%u", i % 10);
        put_one(&f, key, i % 7 ? "a value" : NULL);
    }
    reading_barrier();
    put_one(&f, "1", "a value"); /* a change finds what has come back */
    struct keydir *keydir = f.s->keydir;
    assert_true(pool_used(keydir->pool) <= keydir_count(keydir) + 1);
    store_check(f.s);
    fixture_release(&f);
}

/* A node that a reader holds is not another's. */
static void test_reader_keeps_a_node(void **state)
{
    struct fixture f;
    fixture_init(&f, 1 << 20);
    fixture_reopen(&f);
    put_one(&f, "key", "value");
    reading_begin();
    const struct keydir_node *node = keydir_find(f.s->keydir, "key", 3);
    for (unsigned i = 0; i < 1000; i++)
        put_one(&f, "key", "other");
    assert_memory_equal(keydir_value(node), "value", 5);
    assert_int_equal(keydir_place(node), PLACE_GONE);
    reading_end();
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_size),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_close_together),
        cmocka_unit_test(test_back_to_the_kernel),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_returned),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_keydir_gives_back),
        cmocka_unit_test(test_reader_keeps_a_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
