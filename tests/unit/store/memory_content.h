/*
 * memory_content.h - what a memory disk keeps: the bytes of files, and names.
 *
 * Copies share their pages until one of them is written to, so that a test can make a
 * hundred thousand disks of one. Lengths are bounded by memory only; what is never
 * written is zeros and takes none.
 */
#ifndef TIERCE_MEMORY_CONTENT_H
#define TIERCE_MEMORY_CONTENT_H

#include "base.h"

struct page;

struct content { /* {0}: an empty file */
    uint64_t size;
    struct page **pages; /* NULL: zeros */
    size_t page_count;
};

void content_release(struct content *c);
void content_copy(struct content *to, const struct content *from);
void content_write(struct content *c, uint64_t offset, const uint8_t *data,
                   size_t length);
size_t content_read(const struct content *c, uint64_t offset, uint8_t *to, size_t length);
/* What is cut off is zeros when the file grows again. */
void content_resize(struct content *c, uint64_t size);
bool content_equal(const struct content *a, const struct content *b);

enum { NAME_DIRECTORY = -1, NAME_PATH_BYTES = 256 };

struct name {
    char path[NAME_PATH_BYTES];
    int file; /* or NAME_DIRECTORY */
};

struct names { /* {0}: none */
    struct name *all;
    size_t count, capacity;
};

void names_release(struct names *names);
void names_copy(struct names *to, const struct names *from);
struct name *names_find(const struct names *names, const char *path);
void names_link(struct names *names, const char *path, int file);
void names_remove(struct names *names, const char *path);
/* Does nothing where `from` is not there: what it was linked by is lost. */
void names_rename(struct names *names, const char *from, const char *to);
bool in_directory(const char *path, const char *directory);

#endif
