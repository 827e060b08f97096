/*
 * main.c - what the store costs, in process: no mount, no network. A line of JSON for
 * each row, beside its yardstick of the same run and its mark.
 *
 *   store_bench [--smoke] [--check] [--dir DIRECTORY] [ROW...]
 *
 * --smoke: little of everything. --check: exit code 1 where a mark is missed.
 */
#include "rig.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

static const struct row {
    const char *name;
    void (*run)(struct bench *b);
} rows[] = {
    {"append", row_append},
    {"written", row_written},
    {"overwrite", row_overwrite},
    {"single", row_single},
    {"get", row_get},
    {"beside-writer", row_beside_writer},
    {"beside-merges", row_beside_merges},
    {"keys", row_keys},
    {"scan", row_scan},
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static const struct row *row_named(const char *name)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    die("no such row", name);
}

int main(int argc, char **argv)
{
    struct bench b = {.directory = "."};
    const struct row *chosen[ROWS];
    size_t count = 0;
    bool check = false;
    mallopt(M_MMAP_THRESHOLD, 2 * LIMIT_ENTRY_BYTES); /* as a node does */
    mallopt(M_TRIM_THRESHOLD, LIMIT_INFLIGHT_BYTES);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--smoke") == 0)
            b.smoke = true;
        else if (strcmp(argv[i], "--check") == 0)
            check = true;
        else if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc)
            b.directory = argv[++i];
        else if (count < ROWS)
            chosen[count++] = row_named(argv[i]);
    }
    for (size_t i = 0; i < (count ? count : ROWS); i++)
        in_child(&b, (count ? chosen[i] : &rows[i])->run);
    return check && b.missed ? 1 : 0;
}
