/* probe.c - see client.h. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PROBE_BYTES = 512, FILE_BYTES = 64 << 20, PIECE_BYTES = 1 << 20 };

/* ---- Samples ----------------------------------------------------------------------- */

void samples_add(struct samples *s, uint64_t ns)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 4096;
        s->us = realloc(s->us, s->capacity * sizeof(*s->us));
        if (!s->us)
            die("measure", strerror(ENOMEM));
    }
    s->us[s->count++] = (uint32_t)(ns / 1000);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

uint32_t samples_quantile(struct samples *s, double q)
{
    if (s->count == 0)
        return 0;
    qsort(s->us, s->count, sizeof(*s->us), compare);
    return s->us[(size_t)(q * (double)(s->count - 1))];
}

void samples_clear(struct samples *s)
{
    s->count = 0;
}

/* ---- The disk ---------------------------------------------------------------------- */

/* With its space, as a segment of the log. */
static int make_file(const char *path, uint64_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)bytes) != 0 || fsync(fd) != 0)
        die(path, strerror(errno));
    return fd;
}

static void write_at(int fd, const char *path, const void *data, size_t bytes,
                     uint64_t offset)
{
    if (pwrite(fd, data, bytes, (off_t)offset) != (ssize_t)bytes)
        die(path, strerror(errno));
}

static void sync_file(int fd, const char *path)
{
    if (fdatasync(fd) != 0)
        die(path, strerror(errno));
}

double probe_records(const char *path, size_t bytes)
{
    int fd = make_file(path, FILE_BYTES);
    uint8_t data[4096] = {1};
    uint64_t begun = now_ns(), n = 0;
    for (; now_ns() - begun < 1000000000 && (n + 1) * bytes <= FILE_BYTES; n++) {
        write_at(fd, path, data, bytes, n * bytes);
        sync_file(fd, path);
    }
    double seconds = (double)(now_ns() - begun) / 1e9;
    close(fd);
    unlink(path);
    return (double)n / seconds;
}

double probe_sequential(const char *path, uint64_t bytes)
{
    int fd = make_file(path, bytes);
    uint8_t *piece = malloc(PIECE_BYTES);
    if (!piece)
        die("measure", strerror(ENOMEM));
    random_bytes(piece, PIECE_BYTES);
    uint64_t begun = now_ns();
    for (uint64_t at = 0; at < bytes; at += PIECE_BYTES) {
        write_at(fd, path, piece, PIECE_BYTES, at);
        if ((at + PIECE_BYTES) % FILE_BYTES == 0)
            sync_file(fd, path);
    }
    sync_file(fd, path);
    double seconds = (double)(now_ns() - begun) / 1e9;
    close(fd);
    unlink(path);
    free(piece);
    return (double)bytes / seconds;
}

/* ---- Beside a load ------------------------------------------------------------------ */

struct probe {
    const char *path;
    int fd;
    unsigned pause_ms;
    pthread_mutex_t lock;
    struct samples samples;
};

static void *probe_main(void *arg)
{
    struct probe *p = arg;
    static const uint8_t data[PROBE_BYTES] = {1};
    struct timespec pause = {.tv_nsec = (long)p->pause_ms * 1000000};
    for (uint64_t at = 0;; at = (at + PROBE_BYTES) % FILE_BYTES) {
        nanosleep(&pause, NULL);
        uint64_t begun = now_ns();
        write_at(p->fd, p->path, data, sizeof(data), at);
        sync_file(p->fd, p->path);
        uint64_t took = now_ns() - begun;
        pthread_mutex_lock(&p->lock);
        samples_add(&p->samples, took);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

struct probe *probe_start(const char *path, unsigned pause_ms)
{
    struct probe *p = calloc(1, sizeof(*p));
    pthread_t thread;
    if (!p)
        die("measure", strerror(ENOMEM));
    p->path = path;
    p->fd = make_file(path, FILE_BYTES);
    p->pause_ms = pause_ms;
    pthread_mutex_init(&p->lock, NULL);
    if (pthread_create(&thread, NULL, probe_main, p) != 0)
        die("measure", "no thread");
    pthread_detach(thread);
    return p;
}

void probe_take(struct probe *p, struct samples *to)
{
    pthread_mutex_lock(&p->lock);
    struct samples had = *to;
    *to = p->samples;
    p->samples = had;
    samples_clear(&p->samples);
    pthread_mutex_unlock(&p->lock);
}
