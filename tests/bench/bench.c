/*
 * bench.c - runs one operation on a directory, over and over, from one or more threads,
 * and prints what it cost as one line of JSON. bench.py runs it on a mount and on the
 * local file system and compares.
 *
 *   bench prepare DIR NAMES            makes what read, stat and readdir need
 *   bench OPERATION DIR THREADS SECONDS LIMIT [fsync]
 *
 * It ends after SECONDS, or after LIMIT operations of each thread, whichever comes first.
 * With `fsync` each change is synced before the operation counts as done: the file that
 * was written, or the directory whose names were changed. write64 and read64 move 64 MiB
 * once, whatever the limits; their latencies are those of calls of 128 KiB.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    VALUE_BYTES = 256,
    FILES = 100, /* that read and stat go over */
    PREPARE_THREADS = 16,
    THREADS_MAX = 64,
    SAMPLES_MAX = 1 << 20, /* of one thread */
    SEQUENTIAL_BYTES = 64 << 20,
    CALL_BYTES = 128 << 10, /* one read or write of the sequential ones */
    PATH_BYTES = 4096,
};

struct worker {
    const struct operation *operation;
    const char *directory;
    unsigned number, threads;
    bool sync;
    uint64_t deadline_ns;
    uint64_t limit;
    int directory_fd; /* of names that are synced */
    uint8_t *buffer;
    /* what it found */
    uint64_t *samples;
    uint64_t count, bytes;
    uint64_t begun_ns, ended_ns;
};

struct operation {
    const char *name;
    void (*before)(struct worker *w); /* untimed; may be NULL */
    void (*step)(struct worker *w, uint64_t k);
    bool sequential; /* one pass over a file: steps are calls, all are counted */
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

_Noreturn static void die(const char *what, const char *path)
{
    fprintf(stderr, "bench: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static void own_path(const struct worker *w, char *to, const char *kind, uint64_t k)
{
    snprintf(to, PATH_BYTES, "%s/%s-%u-%u-%llu", w->directory, kind, w->threads,
             w->number, (unsigned long long)k);
}

static void shared_path(const struct worker *w, char *to, uint64_t k)
{
    snprintf(to, PATH_BYTES, "%s/files/%llu", w->directory,
             (unsigned long long)((k * 7 + w->number * 13) % FILES));
}

static void write_value(const struct worker *w, const char *path, int flags)
{
    static const uint8_t value[VALUE_BYTES] = {'v'};
    int fd = open(path, O_WRONLY | flags, 0644);

    if (fd < 0)
        die("open", path);
    if (write(fd, value, sizeof(value)) != (ssize_t)sizeof(value))
        die("write", path);
    if (w->sync && fsync(fd))
        die("fsync", path);
    if (close(fd))
        die("close", path);
}

static void sync_names(const struct worker *w)
{
    if (w->sync && fsync(w->directory_fd))
        die("fsync", w->directory);
}

/* ---- The operations
 * --------------------------------------------------------------------- */

static void create_step(struct worker *w, uint64_t k)
{
    char path[PATH_BYTES];

    own_path(w, path, "create", k);
    write_value(w, path, O_CREAT | O_EXCL);
}

static void overwrite_before(struct worker *w)
{
    char path[PATH_BYTES];

    own_path(w, path, "overwrite", 0);
    write_value(w, path, O_CREAT | O_TRUNC);
}

static void overwrite_step(struct worker *w, uint64_t k)
{
    char path[PATH_BYTES];

    own_path(w, path, "overwrite", 0);
    write_value(w, path, O_TRUNC);
}

static void read_step(struct worker *w, uint64_t k)
{
    char path[PATH_BYTES];
    uint8_t value[VALUE_BYTES + 1];
    int fd;

    shared_path(w, path, k);
    fd = open(path, O_RDONLY);
    if (fd < 0)
        die("open", path);
    if (read(fd, value, sizeof(value)) != VALUE_BYTES)
        die("read", path);
    close(fd);
}

static void stat_step(struct worker *w, uint64_t k)
{
    char path[PATH_BYTES];
    struct stat s;

    shared_path(w, path, k);
    if (stat(path, &s) || s.st_size != VALUE_BYTES)
        die("stat", path);
}

static void readdir_step(struct worker *w, uint64_t k)
{
    char path[PATH_BYTES];
    uint64_t names = 0;
    DIR *d;

    snprintf(path, sizeof(path), "%s/names", w->directory);
    d = opendir(path);
    if (!d)
        die("opendir", path);
    while (readdir(d))
        names++;
    closedir(d);
    if (names <= 2) {
        errno = ENOENT;
        die("readdir", path);
    }
}

static void rename_before(struct worker *w)
{
    char path[PATH_BYTES];

    own_path(w, path, "rename", 0);
    write_value(w, path, O_CREAT | O_TRUNC);
}

static void rename_step(struct worker *w, uint64_t k)
{
    char from[PATH_BYTES], to[PATH_BYTES];

    own_path(w, from, "rename", k);
    own_path(w, to, "rename", k + 1);
    if (rename(from, to))
        die("rename", from);
    sync_names(w);
}

static void unlink_before(struct worker *w)
{
    char path[PATH_BYTES];
    bool sync = w->sync;

    w->sync = false;
    for (uint64_t k = 0; k < w->limit; k++) {
        own_path(w, path, "unlink", k);
        write_value(w, path, O_CREAT | O_TRUNC);
    }
    w->sync = sync;
}

static void unlink_step(struct worker *w, uint64_t k)
{
    char path[PATH_BYTES];

    own_path(w, path, "unlink", k);
    if (unlink(path))
        die("unlink", path);
    sync_names(w);
}

/* Sequential: 64 MiB in all, shared out to the threads, a file each. The steps are the
 * calls and, at the end, what makes it safe (fsync where asked for, close). */
static uint64_t sequential_steps(const struct worker *w)
{
    return SEQUENTIAL_BYTES / CALL_BYTES / w->threads;
}

static void write64_step(struct worker *w, uint64_t k)
{
    static _Thread_local int fd;
    char path[PATH_BYTES];

    own_path(w, path, "sequential", 0);
    if (k == 0)
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        die("open", path);
    if (write(fd, w->buffer, CALL_BYTES) != CALL_BYTES)
        die("write", path);
    w->bytes += CALL_BYTES;
    if (k + 1 < sequential_steps(w))
        return;
    if (w->sync && fsync(fd))
        die("fsync", path);
    if (close(fd))
        die("close", path);
}

static void read64_step(struct worker *w, uint64_t k)
{
    static _Thread_local int fd;
    char path[PATH_BYTES];

    own_path(w, path, "sequential", 0);
    if (k == 0)
        fd = open(path, O_RDONLY);
    if (fd < 0)
        die("open", path);
    if (read(fd, w->buffer, CALL_BYTES) != CALL_BYTES)
        die("read", path);
    w->bytes += CALL_BYTES;
    if (k + 1 == sequential_steps(w))
        close(fd);
}

static const struct operation operations[] = {
    {"create", NULL, create_step, false},
    {"overwrite", overwrite_before, overwrite_step, false},
    {"read", NULL, read_step, false},
    {"stat", NULL, stat_step, false},
    {"readdir", NULL, readdir_step, false},
    {"rename", rename_before, rename_step, false},
    {"unlink", unlink_before, unlink_step, false},
    {"write64", NULL, write64_step, true},
    {"read64", NULL, read64_step, true},
};

/* ---- Running
 * ------------------------------------------------------------------------------- */

static pthread_barrier_t barrier;

static void *run_worker(void *arg)
{
    struct worker *w = arg;
    uint64_t steps = w->operation->sequential ? sequential_steps(w) : w->limit;
    uint64_t at, ended;

    if (w->operation->before)
        w->operation->before(w);
    pthread_barrier_wait(&barrier);
    w->begun_ns = at = now_ns();
    w->ended_ns = at;
    w->deadline_ns += at;
    for (uint64_t k = 0; k < steps && w->count < SAMPLES_MAX; k++) {
        if (!w->operation->sequential && at >= w->deadline_ns)
            break;
        w->operation->step(w, k);
        ended = now_ns();
        w->samples[w->count++] = ended - at;
        w->ended_ns = at = ended;
    }
    return NULL;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void *allocate(size_t size)
{
    void *p = calloc(1, size);

    if (!p)
        die("allocate", "memory");
    return p;
}

static void report(const struct worker *workers, unsigned threads)
{
    const struct worker *first = &workers[0];
    uint64_t count = 0, bytes = 0, begun = UINT64_MAX, ended = 0, at = 0;
    uint64_t *all;
    double seconds;

    for (unsigned i = 0; i < threads; i++) {
        count += workers[i].count;
        bytes += workers[i].bytes;
        begun = workers[i].begun_ns < begun ? workers[i].begun_ns : begun;
        ended = workers[i].ended_ns > ended ? workers[i].ended_ns : ended;
    }
    all = allocate((count + 1) * sizeof(*all));
    for (unsigned i = 0; i < threads; i++) {
        memcpy(all + at, workers[i].samples, workers[i].count * sizeof(*all));
        at += workers[i].count;
    }
    qsort(all, count, sizeof(*all), compare_u64);
    seconds = (double)(ended - begun) / 1e9;
    printf("{\"operation\": \"%s\", \"threads\": %u, \"fsync\": %s, \"count\": %llu, "
           "\"seconds\": %.6f, \"per_second\": %.1f, \"bytes_per_second\": %.0f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           first->operation->name, threads, first->sync ? "true" : "false",
           (unsigned long long)count, seconds, (double)count / seconds,
           (double)bytes / seconds, (double)all[count / 2] / 1e3,
           (double)all[count - 1 - count / 100] / 1e3);
    free(all);
}

static void run(const struct operation *operation, const char *directory,
                unsigned threads, double seconds, uint64_t limit, bool sync)
{
    struct worker *workers = allocate(threads * sizeof(*workers));
    pthread_t ids[THREADS_MAX];
    int fd = open(directory, O_RDONLY | O_DIRECTORY);

    if (fd < 0)
        die("open", directory);
    pthread_barrier_init(&barrier, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){
            .operation = operation,
            .directory = directory,
            .number = i,
            .threads = threads,
            .sync = sync,
            .deadline_ns = (uint64_t)(seconds * 1e9),
            .limit = limit,
            .directory_fd = fd,
            .buffer = allocate(CALL_BYTES),
            .samples = allocate(SAMPLES_MAX * sizeof(uint64_t)),
        };
        errno = pthread_create(&ids[i], NULL, run_worker, &workers[i]);
        if (errno)
            die("start", "a thread");
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    report(workers, threads);
    for (unsigned i = 0; i < threads; i++) {
        free(workers[i].buffer);
        free(workers[i].samples);
    }
    free(workers);
    close(fd);
}

/* ---- Preparing
 * ------------------------------------------------------------------------------- */

struct preparation {
    const char *directory;
    unsigned number, names;
};

static void *prepare_share(void *arg)
{
    const struct preparation *p = arg;
    const struct worker plain = {0};
    char path[PATH_BYTES];
    int fd;

    for (unsigned k = p->number; k < p->names; k += PREPARE_THREADS) {
        snprintf(path, sizeof(path), "%s/names/name-%05u", p->directory, k);
        fd = open(path, O_WRONLY | O_CREAT, 0644);
        if (fd < 0)
            die("create", path);
        close(fd);
    }
    for (unsigned k = p->number; k < FILES; k += PREPARE_THREADS) {
        snprintf(path, sizeof(path), "%s/files/%u", p->directory, k);
        write_value(&plain, path, O_CREAT | O_TRUNC);
    }
    return NULL;
}

static void prepare(const char *directory, unsigned names)
{
    struct preparation shares[PREPARE_THREADS];
    pthread_t ids[PREPARE_THREADS];
    char path[PATH_BYTES];

    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, i ? "files" : "names");
        if (mkdir(path, 0755))
            die("mkdir", path);
    }
    for (unsigned i = 0; i < PREPARE_THREADS; i++) {
        shares[i] = (struct preparation){directory, i, names};
        errno = pthread_create(&ids[i], NULL, prepare_share, &shares[i]);
        if (errno)
            die("start", "a thread");
    }
    for (unsigned i = 0; i < PREPARE_THREADS; i++)
        pthread_join(ids[i], NULL);
}

static const struct operation *find_operation(const char *name)
{
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        if (strcmp(operations[i].name, name) == 0)
            return &operations[i];
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const struct operation *operation;
    unsigned threads;

    if (argc == 4 && strcmp(argv[1], "prepare") == 0) {
        prepare(argv[2], (unsigned)atoi(argv[3]));
        return 0;
    }
    operation = argc >= 6 ? find_operation(argv[1]) : NULL;
    threads = argc >= 6 ? (unsigned)atoi(argv[3]) : 0;
    if (!operation || threads < 1 || threads > THREADS_MAX) {
        fprintf(stderr, "usage: bench prepare DIR NAMES\n"
                        "       bench OPERATION DIR THREADS SECONDS LIMIT [fsync]\n");
        return 2;
    }
    run(operation, argv[2], threads, atof(argv[4]), strtoull(argv[5], NULL, 10),
        argc > 6 && strcmp(argv[6], "fsync") == 0);
    return 0;
}
