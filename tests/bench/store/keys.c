/* keys.c - rows of many keys: the memory of each, and how long a start takes. */
#include "rig.h"

#include <stdio.h>

enum { MANY_KEYS = 10000000, SMOKE_KEYS = 50000 };

static uint64_t key_count(const struct bench *b)
{
    return b->smoke ? SMOKE_KEYS : MANY_KEYS;
}

static void print_memory(struct bench *b, const char *row, uint64_t bytes)
{
    print_line(b, &(struct line){.row = row,
                                 .unit = "bytes",
                                 .value = (double)bytes / (double)key_count(b),
                                 .mark = b->smoke ? 4096 : 96,
                                 .at_most = true});
}

/* All in: nodes, index, allocator, what the log keeps in memory; not the tail cache,
 * whose size is fixed. */
static void grow(struct bench *b)
{
    struct rig rig;
    rig_make(&rig, path_in(b, "store"));
    uint64_t before = bytes_resident();
    rig_fill(&rig, key_count(b));
    print_memory(b, "memory_per_key_written", bytes_resident() - before);
    rig_close(&rig);
}

void row_keys(struct bench *b)
{
    in_child(b, grow);
    remove_tree(path_in(b, "store"));
}
