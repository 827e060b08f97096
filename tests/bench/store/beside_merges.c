/* beside_merges.c - what merging costs those who write and read: the slowest of a hundred. */
#include "rig.h"

#include <stdlib.h>

enum {
    LIVE_KEYS = 200 * 1000,
    LARGER_BYTES = 1000,
    ROUNDS = 8,
    OPERATIONS = 1000, /* of a round */
    SMOKE_KEYS = 2000,
    SMOKE_OPERATIONS = 100,
};

struct slow {
    double append[ROUNDS * OPERATIONS], get[ROUNDS * OPERATIONS]; /* us */
    unsigned count;
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double p99(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare);
    return values[count * 99 / 100];
}

/* One entry at a time, each synced, and a look-up after each. */
static void measure(struct rig *rig, uint64_t keys, unsigned count, struct slow *ret)
{
    uint8_t key[KEY_BYTES], value[LARGER_BYTES] = {1};
    uint64_t random = 7;
    struct buf got = {0};
    for (unsigned i = 0; i < count; i++, ret->count++) {
        key_of(random_next(&random) % keys, key);
        uint64_t begun = now_ns();
        rig_put(rig, key, sizeof(key), value, sizeof(value));
        rig_entry(rig);
        rig_commit(rig);
        ret->append[ret->count] = (double)(now_ns() - begun) / 1e3;
        key_of(random_next(&random) % keys, key);
        buf_clear(&got);
        begun = now_ns();
        if (store_get(rig->s, key, sizeof(key), 0, &got, NULL) != 0)
            die("beside-merges", "a key is not there");
        ret->get[ret->count] = (double)(now_ns() - begun) / 1e3;
    }
    buf_release(&got);
}

static void print(struct bench *b, const char *row, double *beside, double *alone,
                  unsigned count)
{
    double ours = p99(beside, count), yardstick = p99(alone, count);
    print_line(b, &(struct line){.row = row,
                                 .unit = "us",
                                 .value = ours,
                                 .yardstick = yardstick,
                                 .ratio = ours / yardstick,
                                 .mark = b->smoke ? 99 : 2,
                                 .at_most = true});
}

/* Alone and beside take turns: what the disk does meanwhile for others changes by the second.
 * Every key is overwritten before, so that a merge is due as soon as there may be one. */
void row_beside_merges(struct bench *b)
{
    static struct slow alone, beside;
    struct rig rig;
    struct store_stats stats;
    uint64_t keys = b->smoke ? SMOKE_KEYS : LIVE_KEYS;
    unsigned count = b->smoke ? SMOKE_OPERATIONS : OPERATIONS;
    rig_make(&rig, path_in(b, "store"));
    rig_fill(&rig, keys, LARGER_BYTES);
    for (int round = 0; round < (b->smoke ? 1 : ROUNDS); round++) {
        rig_fill(&rig, keys, LARGER_BYTES);
        rig_fill(&rig, keys, LARGER_BYTES);
        measure(&rig, keys, count, &alone);
        rig_start_background(&rig);
        measure(&rig, keys, count, &beside);
        rig_finish_background(&rig);
    }
    store_stats(rig.s, &stats);
    if (!b->smoke && stats.merges < ROUNDS)
        die("beside-merges", "little was merged");
    print(b, "append_beside_merges_p99", beside.append, alone.append, alone.count);
    print(b, "get_beside_merges_p99", beside.get, alone.get, alone.count);
    rig_close(&rig);
    remove_tree(path_in(b, "store"));
}
