/*
 * memory_disk.h - a disk in memory that loses, tears, lies, rots, fails and fills up.
 *
 * Every change since the last sync of its file (or directory) is kept as a *loose*
 * change: writes cut at 512-byte sectors, truncations, allocations; names linked, moved,
 * removed. A crash keeps any subset of them, in any order, and may tear one write at any
 * byte. Changes of a directory that is not synced are lost like any other; a name that
 * was moved to another directory takes a sync of each.
 *
 * Calls are counted, those that change the disk and those that only read it; the Nth can
 * be made to fail, to do half, to do it at another place, and from the Nth on the power
 * can be gone (everything fails). A file's reserved bytes count as used.
 *
 * What a test injects is counted, over all disks of the process: a test that means to
 * inject a fault shows that it did.
 */
#ifndef TIERCE_MEMORY_DISK_H
#define TIERCE_MEMORY_DISK_H

#include "store.h"

struct memory_disk;

struct memory_disk *memory_disk_new(void);
void memory_disk_free(struct memory_disk *disk);
struct store_io memory_disk_io(struct memory_disk *disk);
/* Whether this thread is in one of its calls. */
bool memory_disk_inside(void);
/* Open descriptors. */
unsigned memory_disk_open_count(const struct memory_disk *disk);

/* ---- Faults ------------------------------------------------------------------------ */

/* Calls so far that change the disk: open with O_CREAT, pwritev, sync and the like. */
uint64_t memory_disk_calls(const struct memory_disk *disk);
/* The others: open, pread, size, list, space. */
uint64_t memory_disk_reads(const struct memory_disk *disk);
/* The call with this number (counted from 1, as memory_disk_calls does) fails; 0: none.
 */
void memory_disk_fail_call(struct memory_disk *disk, uint64_t number, int error);
void memory_disk_fail_read(struct memory_disk *disk, uint64_t number, int error);
/* If it is a write, it writes the first half of its bytes and says so. */
void memory_disk_shorten_call(struct memory_disk *disk, uint64_t number);
void memory_disk_shorten_read(struct memory_disk *disk, uint64_t number);
/* If it is a write, its bytes land `shift` further on than asked, and it says nothing. */
void memory_disk_misdirect_call(struct memory_disk *disk, uint64_t number,
                                uint64_t shift);
/* If it is a pread, one bit of what it gives is wrong, this time. */
void memory_disk_flip_read(struct memory_disk *disk, uint64_t number);
/* From this call on everything fails with -EIO; 0: never. */
void memory_disk_cut_power(struct memory_disk *disk, uint64_t number);
/* Bytes in all; UINT64_MAX: no bound. */
void memory_disk_set_capacity(struct memory_disk *disk, uint64_t bytes);
/* pread_nowait answers -EAGAIN. */
void memory_disk_set_cold(struct memory_disk *disk, bool cold);
/* A sync that fails leaves the bytes in the cache, clean, and not on disk, as Linux does.
 */
void memory_disk_set_forgetful(struct memory_disk *disk, bool forgetful);
/* One bit of a file rots. */
void memory_disk_flip(struct memory_disk *disk, const char *path, uint64_t offset,
                      unsigned bit);

/* Meanwhile no call is counted and none fails: for looks that are not the test's. */
void memory_disk_set_quiet(struct memory_disk *disk, bool quiet);

struct memory_disk_faults {
    uint64_t failed, shortened, misdirected, flipped, full, forgotten;
    uint64_t cut;   /* calls that found the power gone */
    uint64_t lost;  /* loose changes that a crash did not keep, */
    uint64_t names; /* those of them that were names */
    uint64_t torn, reordered;
};
/* Since the last time it was asked, by all disks. */
struct memory_disk_faults memory_disk_faults(void);

/* ---- Crashes ----------------------------------------------------------------------- */

/* What is loose now, in the order it was done. */
size_t memory_disk_loose(const struct memory_disk *disk);
/* The number of the call that made it. */
uint64_t memory_disk_loose_call(const struct memory_disk *disk, size_t i);

struct memory_crash {
    const bool *keep; /* by loose change */
    const size_t
        *order;        /* all of them, as they reach the disk; NULL: as they were done */
    size_t torn;       /* this one, if it is a write, in part only; SIZE_MAX: none */
    size_t torn_bytes; /* that many of it; at its end, if `torn_tail` */
    bool torn_tail;
};
/* A new disk as after a power cut: all that was synced, and what was kept. */
struct memory_disk *memory_disk_crash_with(const struct memory_disk *disk,
                                           const struct memory_crash *crash);
/* In order; of the one at `torn` (SIZE_MAX: none) half the bytes only. */
struct memory_disk *memory_disk_crash(const struct memory_disk *disk, const bool *keep,
                                      size_t torn);
/* A new disk as after kill -9: all of it, what is loose or forgotten still so. */
struct memory_disk *memory_disk_copy(const struct memory_disk *disk);

/* ---- Direct access; it aborts where the file is not there -------------------------- */

uint64_t memory_disk_size(const struct memory_disk *disk, const char *path);
void memory_disk_peek(const struct memory_disk *disk, const char *path, uint64_t offset,
                      void *to, size_t length);
void memory_disk_poke(struct memory_disk *disk, const char *path, uint64_t offset,
                      const void *data, size_t length);
void memory_disk_resize(struct memory_disk *disk, const char *path, uint64_t size);
void memory_disk_remove(struct memory_disk *disk, const char *path);
bool memory_disk_exists(const struct memory_disk *disk, const char *path);
/* Bytes of all files that have a name, reserved ones included. */
uint64_t memory_disk_used(const struct memory_disk *disk);
/* Whether both hold the same names and bytes. */
bool memory_disk_equal(const struct memory_disk *a, const struct memory_disk *b);

#endif
