/* memory_disk_internal.h - what memory_disk.c (the calls) and memory_crash.c share. */
#ifndef TIERCE_MEMORY_DISK_INTERNAL_H
#define TIERCE_MEMORY_DISK_INTERNAL_H

#include "memory_content.h"
#include "memory_disk.h"

#include <pthread.h>
#include <stdatomic.h>

enum change_kind { CHANGE_WRITE, CHANGE_SIZE, CHANGE_LINK, CHANGE_UNLINK, CHANGE_RENAME };

struct change {
    enum change_kind kind;
    uint64_t call;   /* that made it */
    int file;        /* WRITE, SIZE, LINK; RENAME: of `from` then */
    uint64_t offset; /* WRITE; SIZE: the size */
    uint8_t *data;
    size_t length;
    char *from, *to; /* names */
};

struct file {
    struct content now, synced;
};

struct memory_disk {
    pthread_mutex_t lock;
    struct file *files;
    int file_count, file_capacity;
    struct names names, synced_names;
    struct change *loose;
    size_t loose_count, loose_capacity;
    int *descriptors; /* file + 1; 0: free */
    int descriptor_count;
    uint64_t calls, reads;
    /* Numbers of calls, 0: none. */
    uint64_t fail_call, fail_read, short_call, short_read, shift_call, flip_read;
    uint64_t power_call, capacity, shift;
    int fail_error, fail_read_error;
    bool cold, forgetful, quiet;
};

struct fault_counts {
    _Atomic uint64_t failed, shortened, misdirected, flipped, full, forgotten, cut, lost,
        names, torn, reordered;
};
extern struct fault_counts faults;

struct change *change_add(struct memory_disk *disk, enum change_kind kind, int file);
/* Either path may be NULL. */
struct change *change_add_name(struct memory_disk *disk, enum change_kind kind, int file,
                               const char *from, const char *to);
void change_release(struct change *change);
/* To what is synced. */
void change_apply(const struct change *change, struct file *files, struct names *names);

#endif
