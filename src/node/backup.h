/*
 * backup.h - the backup file: what writes it, reads it and makes a store of it share.
 *
 *   header, 64 bytes    0 magic "tierceBK" | 8 version u32 | 12 header_size u32, 64
 *                       16 cluster_id | 32 A: index u64 | 40 term u64 | 48 timestamp u64
 *                       56 crc u32 | 60 crc32 of bytes 0 to 59
 *   blocks              kind u8 | length u32 | `length` bytes
 *     1 RECORDS         whole records, in key order over all blocks: each as it was when
 * it was read, at A or later 2 ENTRIES         the entries A + 1 to B, whole, in order 3
 * TRAILER         the last: records u64 | entries u64 | B: index u64, term u64, timestamp
 * u64, crc u32 | SHA-256 of all before the hash
 *
 * The entries laid over the records give what every key was at B (a record that is newer
 * than what an entry says of its key comes from a later one of them). Integers are
 * little-endian, records and entries as in a segment.
 */
#ifndef TIERCE_NODE_BACKUP_H
#define TIERCE_NODE_BACKUP_H

#include "node_internal.h"

enum {
    BACKUP_HEADER = 64,
    BACKUP_BLOCK_HEADER = 5,
    BACKUP_TRAILER = 2 * 8 + 3 * 8 + 4 + WIRE_HASH_BYTES,
    /* A piece, or one entry or record that is larger. */
    BACKUP_BLOCK_BYTES = CONTROL_PIECE_BYTES + LIMIT_ENTRY_BYTES,
};

enum backup_block { BACKUP_RECORDS = 1, BACKUP_ENTRIES = 2, BACKUP_LAST = 3 };

#define BACKUP_MAGIC "tierceBK"

struct backup_head {
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    struct store_point begin; /* A */
    uint32_t format;
};

struct backup_summary {
    struct backup_head head;
    struct store_point end; /* B */
    uint64_t records, entries, bytes;
};

void backup_head_encode(uint8_t to[BACKUP_HEADER], const struct backup_head *head);
/* -EBADMSG, -EPROTONOSUPPORT. */
int backup_head_decode(const uint8_t *data, size_t length, struct backup_head *ret);

/* Whether a key is the cluster's own, not its users': classes C and S. A backup's records
 * have none of them, and what is restored none from its entries. */
bool backup_is_cluster_key(const uint8_t *key, size_t size);

/* Whether an entry may follow this point of the chain; and the point that it makes. */
bool backup_continues(const struct store_point *end, const struct store_entry *entry);
struct store_point backup_after(const struct store_entry *entry);

/* Each gets bytes that were checked, and where they stand in the file; not 0 ends the
 * reading. Each may be NULL. `head` comes first, with what the header and the end of the
 * file say: of the end nothing is checked yet. */
struct backup_visitor {
    void *context;
    int (*head)(void *context, const struct backup_summary *summary);
    int (*record)(void *context, const struct store_record *record, const uint8_t *bytes,
                  size_t length, uint64_t offset);
    int (*entry)(void *context, const struct store_entry *entry, const uint8_t *bytes,
                 uint64_t offset);
};

/* Reads all of it, and checks every byte. Visited things count only once it has returned
 * 0, as the hash is what stands last. -EBADMSG with what is wrong. */
int backup_read(const char *path, const struct backup_visitor *visitor,
                struct backup_summary *ret, char error[NODE_ERROR_BYTES]);

/* What node_inspect() does where the file is a backup. With `verify` only what is wrong,
 * and the sum, are told. */
int inspect_backup(const struct node_inspect *what, const char *file,
                   uint64_t *ret_problems, char error[NODE_ERROR_BYTES]);

/* left_out.c: what does not go into a new cluster. Records of content are noted first, in
 * any order and any version; then it is settled. */
struct left_out {
    struct progress *progress;
    size_t count, capacity;
};

int left_out_note(struct left_out *l, const struct store_record *record); /* -ENOMEM */
void left_out_settle(struct left_out *l);
bool left_out_holds(const struct left_out *l, const uint8_t *key, size_t size);
void left_out_release(struct left_out *l);
/* The state kept with a store that was made so: no session is open, the members are these. */
int left_out_state(const struct members *members, struct buf *to);

/* restore.c: what a store is to be made of. */
struct restore;
int restore_open(const char *path, struct restore **ret, char error[NODE_ERROR_BYTES]);
uint64_t restore_bytes(const struct restore *r); /* of the file */
/* Makes the store, which is not there yet, as of B. */
int restore_store(struct restore *r, const struct store_options *options,
                  const struct members *members, char error[NODE_ERROR_BYTES]);
void restore_close(struct restore *r);

#endif
