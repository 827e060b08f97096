/*
 * extent.h - private: how content lies in extents, as README E1-E6 say, and how it is
 * read.
 *
 * A file is cut into *slots* of 64 KiB, a slot into 16 *grains* of 4 KiB. An extent stays
 * within its slot and begins with a grain.
 */
#ifndef TIERCE_FS_EXTENT_H
#define TIERCE_FS_EXTENT_H

#include "fs.h"

enum {
    SLOT_BYTES = LIMIT_EXTENT_BYTES,
    GRAIN_BYTES = 4096,
    SLOT_GRAINS = SLOT_BYTES / GRAIN_BYTES,
    TRIM_UNIT_BYTES = 4 << 20, /* a trim begins at a multiple of this */
    TRIM_UNIT_EXTENTS = TRIM_UNIT_BYTES / GRAIN_BYTES, /* at most, in one unit */
    TRIM_MAX = 256, /* of a file: truncated once more before that is reclaimed: -EBUSY */
    TRIM_RECORD_BYTES = 16,
};

_Static_assert((size_t)LIMIT_INLINE_BYTES <= GRAIN_BYTES,
               "inline content becomes one grain");
_Static_assert(SLOT_GRAINS == 16, "grains of a slot are counted in 16 bits");

struct extent {
    uint32_t start, length; /* bytes, within the slot */
    uint64_t timestamp_us;
    bool is_void; /* E6: trimmed away, not yet reclaimed */
};

struct slot {
    uint64_t content;
    uint64_t offset; /* of the slot in the file */
    unsigned count;
    struct extent extents[SLOT_GRAINS];
};

/* Extents at `offset` that are older than this are void. */
uint64_t trims_floor(const uint8_t *trims, uint32_t count, uint64_t offset);
/* What is stored in the slot at `offset`; older than `floor` is marked. -EBADMSG where
 * the extents break E1-E3. */
int slot_load(const struct fs_view *view, uint64_t content, uint64_t offset,
              uint64_t floor, struct slot *ret);
/* The bytes of one extent; `scratch` is cleared first. -EBADMSG where it is not the
 * extent that was loaded any more, -ENOENT where it is gone. */
int extent_get(const struct fs_view *view, const struct slot *slot,
               const struct extent *extent, struct buf *scratch);

/* Name records: inode u64 | type u8. -ENOENT, -EBADMSG. */
int name_get(const struct fs_view *view, uint64_t parent, const void *name,
             size_t name_size, uint64_t *ret_inode, uint8_t *ret_type);
bool name_value_read(const uint8_t *value, size_t size, uint64_t *ret_inode,
                     uint8_t *ret_type);
enum { NAME_VALUE_BYTES = 9 };

#endif
