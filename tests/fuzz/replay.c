/*
 * replay.c - runs a fuzz target over a kept corpus, without a fuzzer: every file of the
 * directories given, and every beginning of the short ones.
 */
#include "base.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { EVERY_BEGINNING_BYTES = 1024 };

/* On memory of exactly that size, so that a read too far is seen. */
static void run_exactly(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    ensure(copy);
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static bool replay_file(int directory, const char *name)
{
    struct stat st;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    ensure(fd >= 0 && fstat(fd, &st) == 0);
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return false;
    }
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size + 1);
    ensure(data && read(fd, data, size) == (ssize_t)size);
    close(fd);
    for (size_t length = 0; size <= EVERY_BEGINNING_BYTES && length < size; length++)
        run_exactly(data, length);
    run_exactly(data, size);
    free(data);
    return true;
}

static unsigned replay_directory(const char *path)
{
    unsigned count = 0;
    DIR *d = opendir(path);
    if (!d) {
        perror(path);
        exit(1);
    }
    struct dirent *entry;
    while ((entry = readdir(d)))
        count += replay_file(dirfd(d), entry->d_name);
    closedir(d);
    return count;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++)
        count += replay_directory(argv[i]);
    printf("%u files\n", count);
    return count ? 0 : 1; /* a corpus that is not there tests nothing */
}
