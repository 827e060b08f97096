/*
 * files.c - many files: made with their content, listed, looked at, removed.
 *
 *   files STEP DIRECTORY SHAPE FIRST COUNT THREADS BYTES
 *
 * STEP: create, list (names alone, by readdir), stat (readdir, and each name's attributes),
 * remove. SHAPE: `flat`, all in DIRECTORY, or `tree`, 500 to a directory and 20 directories to
 * one. `create` and `remove` are of files FIRST to FIRST + COUNT - 1; the others
 * of all there is, by one thread, and the count must be COUNT.
 */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LEAF_FILES = 500, INNER_DIRECTORIES = 20, THREADS_MOST = 64, PATH_BYTES = 4096 };

struct files {
    const char *directory;
    bool tree;
    uint64_t first, count, bytes;
    unsigned threads;
    void (*step)(const struct files *f, const char *path);
};

struct share {
    const struct files *files;
    unsigned number;
};

static void leaf_path(const struct files *f, uint64_t leaf, char *to)
{
    snprintf(to, PATH_BYTES, "%s/%05u/%02u", f->directory,
             (unsigned)(leaf / INNER_DIRECTORIES), (unsigned)(leaf % INNER_DIRECTORIES));
}

static void file_path(const struct files *f, uint64_t i, char *to)
{
    if (f->tree)
        leaf_path(f, i / LEAF_FILES, to);
    else
        snprintf(to, PATH_BYTES, "%s", f->directory);
    size_t size = strlen(to);
    snprintf(to + size, PATH_BYTES - size, "/file-%07u", (unsigned)i);
}

/* ---- Steps of one file ---- */

static void create_one(const struct files *f, const char *path)
{
    static const char bytes[1 << 16];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        die("create", path);
    if (f->bytes && write(fd, bytes, f->bytes) != (ssize_t)f->bytes)
        die("write", path);
    if (close(fd))
        die("close", path);
}

static void remove_one(const struct files *f, const char *path)
{
    if (unlink(path))
        die("unlink", path);
}

static void *run_share(void *arg)
{
    const struct share *s = arg;
    const struct files *f = s->files;
    char path[PATH_BYTES];
    for (uint64_t i = s->number; i < f->count; i += f->threads) {
        file_path(f, f->first + i, path);
        f->step(f, path);
    }
    return NULL;
}

static void each_file(const struct files *f)
{
    pthread_t ids[THREADS_MOST];
    struct share shares[THREADS_MOST];
    for (unsigned i = 0; i < f->threads; i++) {
        shares[i] = (struct share){f, i};
        errno = pthread_create(&ids[i], NULL, run_share, &shares[i]);
        if (errno)
            die("start", "a thread");
    }
    for (unsigned i = 0; i < f->threads; i++)
        pthread_join(ids[i], NULL);
}

/* ---- Directories ---- */

static void make_directory(const char *path)
{
    if (mkdir(path, 0755) && errno != EEXIST)
        die("mkdir", path);
}

static void make_directories(const struct files *f)
{
    char path[PATH_BYTES];
    uint64_t end = (f->first + f->count + LEAF_FILES - 1) / LEAF_FILES;
    for (uint64_t leaf = f->first / LEAF_FILES; f->tree && leaf < end; leaf++) {
        leaf_path(f, leaf, path);
        *strrchr(path, '/') = '\0';
        make_directory(path);
        leaf_path(f, leaf, path);
        make_directory(path);
    }
}

/* Other hosts may still have files in some of them. */
static void remove_directories(const struct files *f)
{
    char path[PATH_BYTES];
    uint64_t end = (f->first + f->count + LEAF_FILES - 1) / LEAF_FILES;
    for (uint64_t leaf = f->first / LEAF_FILES; f->tree && leaf < end; leaf++) {
        leaf_path(f, leaf, path);
        for (int level = 0; level < 2; level++) {
            if (rmdir(path) && errno != ENOTEMPTY && errno != ENOENT)
                die("rmdir", path);
            *strrchr(path, '/') = '\0';
        }
    }
}

/* How many files are in a directory and in those in it. */
static uint64_t walk(int parent, const char *name, bool attributes)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    uint64_t count = 0;
    struct stat st;
    if (!dir)
        die("opendir", name);
    for (struct dirent *d; (d = readdir(dir));) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        if (d->d_type == DT_DIR) {
            count += walk(fd, d->d_name, attributes);
            continue;
        }
        if (attributes && fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
            die("stat", d->d_name);
        count++;
    }
    closedir(dir);
    return count;
}

static void must_find(const struct files *f, bool attributes)
{
    uint64_t found = walk(AT_FDCWD, f->directory, attributes);
    if (found == f->count)
        return;
    fprintf(stderr, "fs_bench: %llu files in %s, not %llu\n", (unsigned long long)found,
            f->directory, (unsigned long long)f->count);
    exit(1);
}

void run_files(int count, char **arguments)
{
    const char *step = arguments[0];
    struct files f = {
        .directory = arguments[1],
        .tree = strcmp(arguments[2], "tree") == 0,
        .first = number_of(arguments[3]),
        .count = number_of(arguments[4]),
        .threads = (unsigned)number_of(arguments[5]),
        .bytes = number_of(arguments[6]),
    };
    errno = EINVAL;
    if (f.threads < 1 || f.threads > THREADS_MOST || f.bytes > 1 << 16)
        die("threads or bytes of", step);
    uint64_t begun = now_ns();
    if (strcmp(step, "create") == 0) {
        make_directories(&f);
        f.step = create_one;
        each_file(&f);
    } else if (strcmp(step, "remove") == 0) {
        f.step = remove_one;
        each_file(&f);
        remove_directories(&f);
    } else if (strcmp(step, "list") == 0 || strcmp(step, "stat") == 0) {
        must_find(&f, *step == 's');
    } else {
        die("unknown step", step);
    }
    printf("{\"count\": %llu, \"seconds\": %.6f}\n", (unsigned long long)f.count,
           (double)(now_ns() - begun) / 1e9);
}
