/* keys.c - rows of many keys: the memory of each, and how long a start takes. */
#include "rig.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { MANY_KEYS = 10000000, SMOKE_KEYS = 400000 };

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

/* All in: nodes, index, allocator, what the log keeps in memory. */
static void grow(struct bench *b)
{
    struct rig rig;
    rig_make(&rig, path_in(b, "store"));
    uint64_t before = bytes_resident();
    rig_start_background(&rig);
    rig_fill(&rig, key_count(b), VALUE_BYTES);
    print_memory(b, "memory_per_key_written", bytes_resident() - before);
    store_set_commit_hint(rig.s, store_applied(rig.s));
    rig_commit(&rig);
    rig_close(&rig); /* with a hint for each segment but the last */
}

static double *opened_s; /* shared: with hints, without */

static void open_again(struct bench *b, bool hints)
{
    struct rig rig;
    struct store_stats stats;
    uint64_t before = bytes_resident();
    rig_open(&rig, path_in(b, "store"));
    store_stats(rig.s, &stats);
    if (stats.keys != key_count(b) || (rig.recovery.hints_rebuilt == 0) != hints)
        die("open", "not as it was left");
    opened_s[!hints] = (double)rig.opened_ns / 1e9;
    if (hints)
        print_memory(b, "memory_per_key_loaded", bytes_resident() - before);
    rig_close(&rig);
}

static void open_with_hints(struct bench *b)
{
    open_again(b, true);
}

static int remove_hint(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    size_t length = strlen(path);
    return length > 5 && strcmp(path + length - 5, ".hint") == 0 ? remove(path) : 0;
}

static void open_without_hints(struct bench *b)
{
    nftw(path_in(b, "store/log"), remove_hint, 16, FTW_PHYS);
    open_again(b, false);
}

/* What is read is in the page cache. Without hints each segment is read, and its hint made
 * again and synced. */
void row_keys(struct bench *b)
{
    opened_s = mmap(NULL, 2 * sizeof(*opened_s), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (opened_s == MAP_FAILED)
        die("keys", strerror(errno));
    in_child(b, grow);
    in_child(b, open_with_hints);
    in_child(b, open_without_hints);
    print_line(b, &(struct line){.row = "startup",
                                 .unit = "s",
                                 .value = opened_s[0],
                                 .mark = 4,
                                 .at_most = true});
    print_line(b, &(struct line){.row = "startup_without_hints",
                                 .unit = "s",
                                 .value = opened_s[1],
                                 .yardstick = opened_s[0],
                                 .ratio = opened_s[1] / opened_s[0],
                                 .mark = b->smoke ? 0 : 5});
    remove_tree(path_in(b, "store"));
}
