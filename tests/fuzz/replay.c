/*
 * replay.c - runs the files named, and those in the directories named, through one fuzz
 * target: the corpus as a test, with any compiler.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { INPUT_BYTES = 8 << 20, PATH_BYTES = 4096 };

static unsigned replayed;

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_BYTES);
    if (!file || !data) {
        perror(path);
        return 1;
    }
    size_t size = fread(data, 1, INPUT_BYTES, file);
    int rc = ferror(file) ? 1 : 0;
    fclose(file);
    if (rc == 0)
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    replayed++;
    return rc;
}

static int replay_directory(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        perror(path);
        return 1;
    }
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        char name[PATH_BYTES];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        rc = replay_file(name);
    }
    closedir(dir);
    return rc;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0) {
            perror(argv[i]);
            return 1;
        }
        int rc = S_ISDIR(st.st_mode) ? replay_directory(argv[i]) : replay_file(argv[i]);
        if (rc != 0)
            return rc;
    }
    printf("%u inputs\n", replayed);
    return replayed > 0 ? 0 : 1;
}
