/*
 * memory_disk.h - a disk in memory that can lose what was not synced.
 *
 * Every change since the last sync of its file (or directory) is kept as a *loose*
 * change: writes cut at 512-byte sectors, truncations, allocations; names linked, moved,
 * removed. A crash keeps any subset of them, in order, and may tear one write at a byte.
 * Changes of a directory that is not synced are lost like any other.
 *
 * Calls are counted; the Nth can be made to fail (an error, nothing done), and from the
 * Nth on the power can be gone (everything fails). A file's reserved bytes count as used.
 */
#ifndef TIERCE_MEMORY_DISK_H
#define TIERCE_MEMORY_DISK_H

#include "store.h"

struct memory_disk;

struct memory_disk *memory_disk_new(void);
void memory_disk_free(struct memory_disk *disk);
struct store_io memory_disk_io(struct memory_disk *disk);

/* Calls so far that change the disk: open with O_CREAT, pwritev, sync and the like. */
uint64_t memory_disk_calls(const struct memory_disk *disk);
/* The call with this number (counted from 1, as memory_disk_calls does) fails; 0: none.
 */
void memory_disk_fail_call(struct memory_disk *disk, uint64_t number, int error);
/* From this call on everything fails with -EIO; 0: never. */
void memory_disk_cut_power(struct memory_disk *disk, uint64_t number);
/* Bytes in all; UINT64_MAX: no bound. */
void memory_disk_set_capacity(struct memory_disk *disk, uint64_t bytes);
/* pread_nowait answers -EAGAIN. */
void memory_disk_set_cold(struct memory_disk *disk, bool cold);
/* A sync that fails leaves the bytes in the cache, clean, and not on disk, as Linux does.
 */
void memory_disk_set_forgetful(struct memory_disk *disk, bool forgetful);
/* Open descriptors. */
unsigned memory_disk_open_count(const struct memory_disk *disk);

/* What is loose now. */
size_t memory_disk_loose(const struct memory_disk *disk);
/* A new disk as after a power cut: all that was synced, and of the loose changes those
 * whose `keep` is set; of the one at `torn` (SIZE_MAX: none), a write, half the bytes
 * only. */
struct memory_disk *memory_disk_crash(const struct memory_disk *disk, const bool *keep,
                                      size_t torn);
/* A new disk as after kill -9: all of it, what is loose or forgotten still so. */
struct memory_disk *memory_disk_copy(const struct memory_disk *disk);

/* Direct access for tests that damage files; they abort where the file is not there. */
uint64_t memory_disk_size(const struct memory_disk *disk, const char *path);
void memory_disk_peek(const struct memory_disk *disk, const char *path, uint64_t offset,
                      void *to, size_t length);
void memory_disk_poke(struct memory_disk *disk, const char *path, uint64_t offset,
                      const void *data, size_t length);
void memory_disk_resize(struct memory_disk *disk, const char *path, uint64_t size);
void memory_disk_remove(struct memory_disk *disk, const char *path);
bool memory_disk_exists(const struct memory_disk *disk, const char *path);
/* Whether both hold the same names and bytes. */
bool memory_disk_equal(const struct memory_disk *a, const struct memory_disk *b);

#endif
