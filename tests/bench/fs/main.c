/*
 * main.c - see bench.h.
 *
 *   fs_bench overwrite FILE SECONDS        4 KiB at random offsets of it, a sync for each
 *   fs_bench append FILE SECONDS           4 KiB at its end, a sync for each
 *   fs_bench turns FILE SECONDS            one 4 KiB write and one 4 KiB read in turn, cached
 *   fs_bench write FILE BYTES              from one end to the other, a sync at the end
 *   fs_bench read FILE                     from one end to the other
 *   fs_bench files STEP DIRECTORY SHAPE FIRST COUNT THREADS BYTES
 *                                          STEP of `COUNT` files: see files.c
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

_Noreturn void die(const char *what, const char *path)
{
    fprintf(stderr, "fs_bench: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t number_of(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*end || end == text)
        errno = EINVAL;
    if (errno)
        die("not a number:", text);
    return number;
}

uint64_t random_of(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

void samples_add(struct samples *s, uint64_t ns)
{
    if (s->count == s->most) {
        s->most = s->most ? 2 * s->most : 1024;
        s->ns = realloc(s->ns, s->most * sizeof(*s->ns));
        if (!s->ns)
            die("allocate", "samples");
    }
    s->ns[s->count++] = ns;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void samples_print(struct samples *s, const char *name)
{
    double sum = 0;
    if (!s->count)
        samples_add(s, 0);
    for (size_t i = 0; i < s->count; i++)
        sum += (double)s->ns[i];
    qsort(s->ns, s->count, sizeof(*s->ns), compare);
    printf("\"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, \"%s_mean_us\": %.1f, ", name,
           (double)s->ns[s->count / 2] / 1e3, name,
           (double)s->ns[s->count - 1 - s->count / 100] / 1e3, name,
           sum / (double)s->count / 1e3);
    free(s->ns);
    *s = (struct samples){0};
}

static const struct command {
    const char *name;
    void (*run)(int count, char **arguments);
    int arguments;
} commands[] = {
    {"overwrite", run_overwrite, 2}, {"append", run_append, 2}, {"turns", run_turns, 2},
    {"write", run_write, 2},         {"read", run_read, 1},     {"files", run_files, 7},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(argv[1], commands[i].name) == 0 && argc == commands[i].arguments + 2) {
            commands[i].run(argc - 2, argv + 2);
            return 0;
        }
    fprintf(stderr, "fs_bench: unknown command, or not its arguments: see main.c\n");
    return 2;
}
