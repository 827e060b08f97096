/*
 * bench.h - fs_bench: what programs do with a file system, timed. fs.py runs it on a mount and
 * on the local file system and compares. Each command prints one line of JSON.
 */
#ifndef TIERCE_BENCH_FS_H
#define TIERCE_BENCH_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BLOCK_BYTES = 4096, CALL_BYTES = 1 << 20 };

_Noreturn void die(const char *what, const char *path);
uint64_t now_ns(void);
/* Whole numbers only; dies of anything else. */
uint64_t number_of(const char *text);
/* A generator of its own, so that what is done can be repeated. */
uint64_t random_of(uint64_t *state);

/* What each of many steps took. */
struct samples {
    uint64_t *ns;
    size_t count, most;
};

void samples_add(struct samples *s, uint64_t ns);
/* `"NAME_p50_us": ..., ` and so on, into a line of JSON; frees them. */
void samples_print(struct samples *s, const char *name);

/* Each gets what follows its name on the command line. */
void run_overwrite(int count, char **arguments);
void run_append(int count, char **arguments);
void run_turns(int count, char **arguments);
void run_write(int count, char **arguments);
void run_read(int count, char **arguments);
void run_files(int count, char **arguments);

#endif
