/* one_file.c - writing and reading one file: a step at a time, or from end to end. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        die("open", path);
    return fd;
}

static uint64_t size_of(int fd, const char *path)
{
    struct stat st;
    if (fstat(fd, &st) || st.st_size < BLOCK_BYTES)
        die("the size of", path);
    return (uint64_t)st.st_size;
}

static uint8_t *call_bytes(void)
{
    uint8_t *bytes = malloc(CALL_BYTES);
    uint64_t state = 1;
    if (!bytes)
        die("allocate", "a buffer");
    for (size_t i = 0; i < CALL_BYTES; i += 8)
        *(uint64_t *)(void *)(bytes + i) = random_of(&state);
    return bytes;
}

static void must_write(int fd, const void *bytes, size_t size, off_t offset,
                       const char *path)
{
    ssize_t done = offset < 0 ? write(fd, bytes, size) : pwrite(fd, bytes, size, offset);
    if (done != (ssize_t)size)
        die("write", path);
}

static off_t random_block(uint64_t *state, uint64_t size)
{
    return (off_t)(random_of(state) % (size / BLOCK_BYTES) * BLOCK_BYTES);
}

/* Blocks, each synced, until the time is over; `size` 0: at the end. */
static void run_synced(const char *path, int flags, double seconds)
{
    int fd = open_file(path, O_WRONLY | flags);
    uint64_t size = flags & O_APPEND ? 0 : size_of(fd, path), state = 2;
    uint8_t *bytes = call_bytes();
    struct samples samples = {0};
    uint64_t begun = now_ns(), at = begun;
    while ((double)(at - begun) < seconds * 1e9) {
        off_t offset = size ? random_block(&state, size) : -1;
        must_write(fd, bytes + random_of(&state) % 64 * BLOCK_BYTES, BLOCK_BYTES, offset,
                   path);
        if (fsync(fd))
            die("fsync", path);
        uint64_t now = now_ns();
        samples_add(&samples, now - at);
        at = now;
    }
    if (close(fd))
        die("close", path);
    free(bytes);
    size_t count = samples.count;
    printf("{");
    samples_print(&samples, "step");
    printf("\"count\": %zu}\n", count);
}

void run_overwrite(int count, char **arguments)
{
    run_synced(arguments[0], 0, atof(arguments[1]));
}

void run_append(int count, char **arguments)
{
    run_synced(arguments[0], O_APPEND | O_CREAT, atof(arguments[1]));
}

static uint64_t read_all(int fd, const char *path, uint8_t *bytes)
{
    uint64_t total = 0;
    for (;;) {
        ssize_t n = read(fd, bytes, CALL_BYTES);
        if (n < 0)
            die("read", path);
        if (n == 0)
            return total;
        total += (uint64_t)n;
    }
}

void run_turns(int count, char **arguments)
{
    const char *path = arguments[0];
    int fd = open_file(path, O_RDWR);
    uint64_t size = size_of(fd, path), state = 3;
    uint8_t *bytes = call_bytes(), block[BLOCK_BYTES];
    struct samples writes = {0}, reads = {0};
    read_all(fd, path, bytes);
    uint64_t begun = now_ns(), at = begun;
    while ((double)(at - begun) < atof(arguments[1]) * 1e9) {
        must_write(fd, bytes, BLOCK_BYTES, random_block(&state, size), path);
        uint64_t written = now_ns();
        if (pread(fd, block, BLOCK_BYTES, random_block(&state, size)) != BLOCK_BYTES)
            die("read", path);
        uint64_t now = now_ns();
        samples_add(&writes, written - at);
        samples_add(&reads, now - written);
        at = now;
    }
    size_t turns = reads.count;
    if (close(fd))
        die("close", path);
    free(bytes);
    printf("{");
    samples_print(&writes, "write");
    samples_print(&reads, "read");
    printf("\"count\": %zu}\n", turns);
}

static void print_rate(uint64_t bytes, uint64_t begun)
{
    double seconds = (double)(now_ns() - begun) / 1e9;
    printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", (unsigned long long)bytes, seconds);
}

void run_write(int count, char **arguments)
{
    const char *path = arguments[0];
    uint64_t left = number_of(arguments[1]), size = left;
    uint8_t *bytes = call_bytes();
    uint64_t begun = now_ns();
    int fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
    while (left) {
        size_t part = left < CALL_BYTES ? left : CALL_BYTES;
        must_write(fd, bytes, part, -1, path);
        left -= part;
    }
    if (fsync(fd))
        die("fsync", path);
    if (close(fd))
        die("close", path);
    print_rate(size, begun);
    free(bytes);
}

void run_read(int count, char **arguments)
{
    uint8_t *bytes = call_bytes();
    uint64_t begun = now_ns();
    int fd = open_file(arguments[0], O_RDONLY);
    uint64_t size = read_all(fd, arguments[0], bytes);
    close(fd);
    print_rate(size, begun);
    free(bytes);
}
