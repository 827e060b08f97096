/*
 * hint.h - what is in a sealed segment or a merged file, without its values, so that a
 * start need not read those, and a merge knows what it will meet.
 *
 *   0  magic "tierceHT"            40  data_bytes u64, of the file it describes
 *   8  version u32                 48  kind u32: 1 log segment, 2 merged file
 *  12  header_size u32, 64         52  reserved, 8 zeros
 *  16  cluster_id, 16 bytes        60  crc32 u32, over bytes 0-59
 *  32  file_id u64
 *
 * Then blocks: length u32, of what follows the crc | crc32 u32, of the same | kind u8 |
 *
 *   1 RECORDS  items: timestamp u64 | offset u32 | value_size u32 (0xFFFFFFFF:
 *              tombstone) | key_size u16 | key | the value where it has at most 16
 *              bytes. Keys ascend over all blocks; of a segment the newest of each.
 *   2 ENTRIES  of a segment, in order: offset u32 | crc u32 | timestamp u64 |
 *              term u64 | record_count u32 | session u64 | request u64 | result 16
 *   3 TRAILER  the last block: records u64 | tombstones u64 | entries u64 |
 *              first_index u64 | prev_term u64 | prev_crc u32 | end_term u64 |
 *              end_timestamp u64 | end_crc u32 | entries_at u64, of the first block
 *              after RECORDS | blocks u32 | { offset u64 | key_size u16 | first key }
 *              of each RECORDS block
 *
 * and in the last 12 bytes the trailer's offset u64 | crc32 u32 of those 8 bytes. What
 * has no such end is not complete, and no hint.
 */
#ifndef TIERCE_STORE_HINT_H
#define TIERCE_STORE_HINT_H

#include "store_internal.h"

#define HINT_MAGIC "tierceHT"

enum { HINT_MAGIC_BYTES = 8 };

enum { BLOCK_RECORDS = 1, BLOCK_ENTRIES = 2, BLOCK_TRAILER = 3 };

enum {
    BLOCK_HEADER = 9, /* length, crc, kind */
    BLOCK_FULL = 64 << 10,
    RECORD_ITEM = 18, /* before key and value */
    ITEM_MAX = RECORD_ITEM + LIMIT_KEY_BYTES + LIMIT_KEYDIR_INLINE_BYTES,
    BLOCK_MAX = BLOCK_HEADER + BLOCK_FULL + ITEM_MAX,
    TRAILER_FIXED = 76,
    TRAILER_MAX = 64 << 20, /* a block of records for each 64 KiB of them */
    END_BYTES = 12,
};

#endif
