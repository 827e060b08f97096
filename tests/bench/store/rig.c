/* rig.c - see rig.h. */
#include "rig.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void die(const char *what, const char *why)
{
    fprintf(stderr, "store_bench: %s: %s\n", what, why);
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t thread_cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *numbers, size_t count)
{
    qsort(numbers, count, sizeof(*numbers), compare_doubles);
    return numbers[count / 2];
}

static uint64_t read_number(const char *path, const char *format)
{
    unsigned long long number = 0;
    char line[256];
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file) && sscanf(line, format, &number) != 1)
        ;
    if (file)
        fclose(file);
    return number;
}

uint64_t bytes_written(void)
{
    return read_number("/proc/self/io", "wchar: %llu");
}

uint64_t bytes_resident(void)
{
    return read_number("/proc/self/status", "VmRSS: %llu kB") * 1024;
}

const char *path_in(const struct bench *b, const char *name)
{
    static char path[LIMIT_PATH_BYTES + 1];
    snprintf(path, sizeof(path), "%s/%s", b->directory, name);
    return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static uint64_t used;

static int add_use(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    used += kind == FTW_F ? (uint64_t)st->st_blocks * 512 : 0;
    return 0;
}

uint64_t disk_use(const char *path)
{
    used = 0;
    nftw(path, add_use, 16, FTW_PHYS);
    return used;
}

void print_line(struct bench *b, const struct line *line)
{
    double judged = line->yardstick > 0 ? line->ratio : line->value;
    bool kept = line->at_most ? judged <= line->mark : judged >= line->mark;
    printf("{\"row\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",", line->row, line->value,
           line->unit);
    if (line->yardstick > 0)
        printf("\"yardstick\":%.4g,\"ratio\":%.3f,", line->yardstick, line->ratio);
    printf("\"mark\":\"%s %g\",\"kept\":%s}\n", line->at_most ? "at most" : "at least",
           line->mark, kept ? "true" : "false");
    fflush(stdout);
    b->missed = b->missed || !kept;
}

void in_child(struct bench *b, void (*run)(struct bench *b))
{
    pid_t pid = fork();
    if (pid == 0) {
        run(b);
        _exit(b->missed);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        die("row", "its process ended badly");
    b->missed = b->missed || WEXITSTATUS(status) != 0;
}

/* ---- The store --------------------------------------------------------------------- */

void rig_open(struct rig *rig, const char *path)
{
    char error[STORE_ERROR_BYTES];
    *rig = (struct rig){.options = {.io = &store_io_posix,
                                    .path = strdup(path),
                                    .segment_bytes = SEGMENT_MIB * MiB}};
    if (!rig->options.path)
        die("open", strerror(ENOMEM));
    int rc = store_create(&rig->options, error);
    if (rc != 0 && rc != -EEXIST)
        die("create", error);
    uint64_t begun = now_ns();
    if (store_open(&rig->s, &rig->options, &rig->recovery, error) != 0)
        die("open", error);
    rig->opened_ns = now_ns() - begun;
}

void rig_make(struct rig *rig, const char *path)
{
    remove_tree(path);
    rig_open(rig, path);
}

void rig_close(struct rig *rig)
{
    if (rig->background)
        rig_finish_background(rig);
    store_builder_release(&rig->builder);
    store_close(rig->s);
    free((char *)rig->options.path);
}

static void begin_entry(struct rig *rig)
{
    uint64_t term, timestamp_us;
    uint32_t crc;
    store_chain(rig->s, &term, &crc, &timestamp_us);
    store_builder_begin(&rig->builder, timestamp_us + 1);
}

void rig_put(struct rig *rig, const void *key, size_t key_size, const void *value,
             size_t value_size)
{
    size_t more = STORE_RECORD_HEADER + key_size + value_size;
    if (rig->records == LIMIT_ENTRY_RECORDS ||
        (rig->records > 0 &&
         store_builder_length(&rig->builder) + more > LIMIT_ENTRY_BYTES))
        rig_entry(rig);
    if (rig->records++ == 0)
        begin_entry(rig);
    store_builder_put(&rig->builder, key, key_size, value, value_size);
}

void rig_entry(struct rig *rig)
{
    uint64_t timestamp_us;
    struct store_bytes *bytes;
    struct store_entry head = {.index = store_last_index(rig->s) + 1,
                               .term = 1,
                               .commit = store_applied(rig->s)};
    store_chain(rig->s, &head.prev_term, &head.prev_crc, &timestamp_us);
    if (store_builder_finish(&rig->builder, &head, &bytes) != 0)
        die("build an entry", strerror(ENOMEM));
    rig->records = 0;
    for (int i = 0; i < 2 && store_has_room(rig->s, bytes->length) != 0; i++)
        rig_commit(rig); /* makes the next segment */
    if (store_append(rig->s, bytes, false) != 0)
        die("append", strerror(ENOMEM));
    store_bytes_unref(bytes);
}

/* ---- The merge thread -------------------------------------------------------------- */

enum work { WORK_NONE, WORK_RUN, WORK_DONE, WORK_STOP };

struct background {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum work work;
    bool hurry; /* no pauses */
    struct store_task *task;
};

/* A pause that ends when it is no more wanted. */
static void pause_for(struct background *b, uint64_t us)
{
    struct timespec until;
    if (us == 0)
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(us % 1000000) * 1000;
    until.tv_sec += (time_t)(us / 1000000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!b->hurry && pthread_cond_timedwait(&b->changed, &b->lock, &until) == 0)
        ;
}

static void *background_main(void *arg)
{
    struct background *b = arg;
    char error[STORE_ERROR_BYTES];
    pthread_mutex_lock(&b->lock);
    while (b->work != WORK_STOP) {
        if (b->work != WORK_RUN) {
            pthread_cond_wait(&b->changed, &b->lock);
            continue;
        }
        uint64_t wait_us = 0;
        pthread_mutex_unlock(&b->lock);
        int rc = store_run_task(b->task, &wait_us, error);
        pthread_mutex_lock(&b->lock);
        if (rc < 0)
            die("merge", error);
        if (rc == 0)
            b->work = WORK_DONE;
        else
            pause_for(b, wait_us);
        pthread_cond_broadcast(&b->changed);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

void rig_start_background(struct rig *rig)
{
    struct background *b = calloc(1, sizeof(*b));
    if (!b)
        die("start", strerror(ENOMEM));
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    if (pthread_create(&b->thread, NULL, background_main, b) != 0)
        die("start", "the merge thread");
    rig->background = b;
}

/* The loop's part, with the lock held. */
static void background_step(struct rig *rig)
{
    struct background *b = rig->background;
    if (b->work == WORK_DONE && !store_step_task(rig->s, b->task))
        b->task = NULL;
    if (b->work != WORK_RUN) {
        if (!b->task)
            b->task = store_next_task(rig->s, now_ns() / 1000);
        b->work = b->task ? WORK_RUN : WORK_NONE;
        pthread_cond_broadcast(&b->changed);
    }
}

void rig_finish_background(struct rig *rig)
{
    struct background *b = rig->background;
    pthread_mutex_lock(&b->lock);
    b->hurry = true;
    uint64_t idle_ns = 0;
    while (b->work == WORK_RUN || idle_ns == 0 || now_ns() - idle_ns < 2000000000) {
        background_step(rig);
        if (b->work != WORK_RUN) {
            idle_ns = idle_ns ? idle_ns : now_ns();
            sched_yield();
            continue;
        }
        idle_ns = 0;
        pthread_cond_broadcast(&b->changed);
        pthread_cond_wait(&b->changed, &b->lock);
    }
    b->work = WORK_STOP;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
    free(b);
    rig->background = NULL;
}

/* ---- The log thread ---------------------------------------------------------------- */

struct log_thread {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct store_job *job; /* NULL: none */
    bool done, stop;
};

static void run_job(struct store_job *job)
{
    char error[STORE_ERROR_BYTES];
    if (store_run_job(job, error) != 0)
        die("write", error);
}

static void *log_main(void *arg)
{
    struct log_thread *log = arg;
    pthread_mutex_lock(&log->lock);
    while (!log->stop) {
        if (!log->job || log->done) {
            pthread_cond_wait(&log->changed, &log->lock);
            continue;
        }
        pthread_mutex_unlock(&log->lock);
        run_job(log->job);
        pthread_mutex_lock(&log->lock);
        log->done = true;
        pthread_cond_broadcast(&log->changed);
    }
    pthread_mutex_unlock(&log->lock);
    return NULL;
}

void rig_start_log(struct rig *rig)
{
    struct log_thread *log = calloc(1, sizeof(*log));
    if (!log)
        die("start", strerror(ENOMEM));
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->changed, NULL);
    if (pthread_create(&log->thread, NULL, log_main, log) != 0)
        die("start", "the log thread");
    rig->log = log;
}

static void finish_job(struct rig *rig, struct store_job *job)
{
    uint64_t durable = store_finish_job(rig->s, job).durable_index;
    while (store_applied(rig->s) < durable)
        if (store_apply(rig->s, store_applied(rig->s) + 1, NULL, NULL) != 0)
            die("apply", strerror(ENOMEM));
}

static void await_log(struct rig *rig)
{
    struct log_thread *log = rig->log;
    pthread_mutex_lock(&log->lock);
    while (log->job && !log->done)
        pthread_cond_wait(&log->changed, &log->lock);
    pthread_mutex_unlock(&log->lock);
    if (log->job)
        finish_job(rig, log->job);
    log->job = NULL;
}

static void hand_to_log(struct rig *rig, struct store_job *job)
{
    struct log_thread *log = rig->log;
    pthread_mutex_lock(&log->lock);
    log->job = job;
    log->done = false;
    pthread_cond_broadcast(&log->changed);
    pthread_mutex_unlock(&log->lock);
}

void rig_finish_log(struct rig *rig)
{
    struct log_thread *log = rig->log;
    rig_commit(rig);
    await_log(rig);
    pthread_mutex_lock(&log->lock);
    log->stop = true;
    pthread_cond_broadcast(&log->changed);
    pthread_mutex_unlock(&log->lock);
    pthread_join(log->thread, NULL);
    free(log);
    rig->log = NULL;
}

/* ---- Commits ----------------------------------------------------------------------- */

void rig_commit(struct rig *rig)
{
    if (rig->background) {
        pthread_mutex_lock(&rig->background->lock);
        background_step(rig);
        pthread_mutex_unlock(&rig->background->lock);
    }
    if (rig->log)
        await_log(rig);
    struct store_job *job = store_take_job(rig->s);
    if (!job)
        return;
    if (rig->log) {
        hand_to_log(rig, job);
        return;
    }
    run_job(job);
    finish_job(rig, job);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

void key_of(uint64_t i, uint8_t to[KEY_BYTES])
{
    char text[KEY_BYTES + 1];
    uint64_t spread = mix(i + 1);
    snprintf(text, sizeof(text), "D%02x%015llx/.conf", (unsigned)(spread >> 60),
             (unsigned long long)(spread & 0xfffffffffffffff));
    memcpy(to, text, KEY_BYTES);
}

void rig_fill(struct rig *rig, uint64_t keys, size_t value_bytes)
{
    uint8_t key[KEY_BYTES], *value = calloc(1, value_bytes);
    if (!value)
        die("fill", strerror(ENOMEM));
    for (uint64_t i = 0; i < keys; i++) {
        key_of(i, key);
        rig_put(rig, key, sizeof(key), value, value_bytes);
        if (i % (16 * LIMIT_ENTRY_RECORDS) == 0 && rig->records > 0) {
            rig_entry(rig);
            rig_commit(rig);
        }
    }
    rig_entry(rig);
    rig_commit(rig);
    free(value);
}
