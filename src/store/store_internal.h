/*
 * store_internal.h - what the files of this folder share. The invariants named I1-I13 are
 * listed in README.md and checked by check.c.
 */
#ifndef TIERCE_STORE_INTERNAL_H
#define TIERCE_STORE_INTERNAL_H

#include "store.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <urcu-bp.h>

/* ---- Bounds and formats ------------------------------------------------------------ */

enum {
    SEGMENT_HEADER = 64,
    SLOT_BYTES = 64,    /* one slot of a state file */
    SLOT_STRIDE = 4096, /* slots stand apart, so that no torn block holds both */
    SEGMENT_MIN = 4096, /* smaller ones make no sense; only tests go below the contract */
    /* Of disk held back: below it only deletes are taken. Two for those, and one for the
     * output of a merge. */
    RESERVE_SEGMENTS = 3,
    TAIL_CACHE_BYTES = LIMIT_OF(8 << 20, 32 << 10),
    WINDOW_BYTES = 1 << 20, /* recovery reads this much at a time */
    BATCH_IOV = 512,        /* entries in one pwritev */
    LIMIT_SEGMENTS = 65536, /* data files open at once, leftovers in use included */
    CHECK_STEP_KEYS = 1024, /* larger stores are not checked at each step */
    SKIP_HEIGHT = 12,       /* of a skip list with one in four: for 16 million keys */
    MAP_WIDTH = 64,         /* records of a leaf, children of an inner node */
    MAP_HEIGHT = 16,        /* levels above the leaves: each is cut in halves when full */
    MAP_PREFETCH = 8,       /* records that a scan asks the memory for in advance */
};

/* What the options say of formats. */
static inline uint32_t format_newest(const struct store_options *options)
{
    return options->format_newest ? options->format_newest : STORE_FORMAT_VERSION;
}

static inline uint32_t format_of(const struct store_options *options)
{
    uint32_t format = options->format ? options->format : STORE_FORMAT_VERSION;
    ensure(format >= STORE_FORMAT_OLDEST && format <= format_newest(options));
    return format;
}

/* What a file's version may be to be read: 0; -EPROTONOSUPPORT: a newer tierce made it;
 * -EBADMSG: no tierce did. */
static inline int format_check(uint32_t format, uint32_t newest)
{
    if (format > newest)
        return -EPROTONOSUPPORT;
    return format >= STORE_FORMAT_OLDEST ? 0 : -EBADMSG;
}

_Static_assert(LIMIT_KEY_BYTES <= UINT16_MAX, "a node holds its key's size in 16 bits");
_Static_assert(LIMIT_SEGMENTS <= UINT32_MAX, "no place is PLACE_GONE");
_Static_assert(SLOT_BYTES <= SLOT_STRIDE, "slots do not overlap");

struct path {
    char text[LIMIT_PATH_BYTES + 1];
};

/* Formats `error` and returns `code`. */
int store_fail(char error[STORE_ERROR_BYTES], int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a call that failed: "<what> <path>: <strerror>". */
int store_fail_call(char error[STORE_ERROR_BYTES], int code, const char *what,
                    const char *path);

#define STORE_REMEDY                                                                     \
    "restore the disk, or remove this node's data directory and join the cluster again " \
    "under another name (--name)"

/* A file that is of a newer format (-EPROTONOSUPPORT) or damaged (-EBADMSG: `what`). */
int store_fail_format(char error[STORE_ERROR_BYTES], int code, const char *path,
                      const char *what);
/* 0, or -EXDEV where `cluster_id` is not the store's. */
int store_fail_cluster(char error[STORE_ERROR_BYTES], const struct store *s,
                       const uint8_t cluster_id[STORE_CLUSTER_ID_BYTES],
                       const char *path);

/* ---- Whole reads and writes -------------------------------------------------------- */

/* Bytes read, fewer only at the file's end; or a negative errno. */
ssize_t read_full(const struct store_io *io, int fd, void *to, size_t length,
                  uint64_t offset);
/* Writes all; uses `iov` up. */
int write_full(const struct store_io *io, int fd, struct iovec *iov, int count,
               uint64_t offset);
/* Of a long write what was gathered, at *offset, which moves on; `out` is empty then. */
int write_gathered(const struct store_io *io, int fd, struct buf *out, uint64_t *offset);
/* The same where more will come: few such pieces are on their way to the disk, and who syncs
 * another file meanwhile waits for no more. */
int write_piece(const struct store_io *io, int fd, struct buf *out, uint64_t *offset);
/* A small file, made anew and synced; its name is the caller's to sync. */
int file_write(const struct store_io *io, const char *path, const struct buf *bytes);
/* A small file, into an empty buffer. -EBADMSG: it is larger than that. */
int file_read(const struct store_io *io, const char *path, uint64_t limit_bytes,
              struct buf *to);
bool all_zero(const uint8_t *data, size_t length);

/* ---- Read-side sections (RCU) ------------------------------------------------------ */

void reading_begin(void);
void reading_end(void);
/* Calls `release` when no reader that is inside now is inside any more, on a thread of
 * liburcu's; it begins with reading_deferred(). */
void reading_defer(struct rcu_head *head, void (*release)(struct rcu_head *head));
void reading_deferred(void);
void reading_barrier(void); /* waits for everything that was deferred */

/* ---- Entry record ------------------------------------------------------------------ */

/* Only the entry record's own STORE_ENTRY_HEADER bytes. */
int entry_head_decode(const void *data, size_t length, struct store_entry *ret);

/* A place in the chain: the entry that the next one follows. */
struct chain {
    uint64_t index, term;
    uint64_t timestamp_us; /* of the newest record */
    uint32_t crc;
};

bool chain_continues(const struct chain *end, const struct store_entry *entry);
struct chain chain_after(const struct store_entry *entry);

/* ---- Hints: what is in a data file, without values; see hint.h ----------------------
 */

enum segment_kind { SEGMENT_LOG = 1, SEGMENT_MERGED = 2 };

struct segment;

struct hint_record {
    const uint8_t *key;
    uint32_t key_size;
    uint64_t timestamp_us;
    uint32_t offset;
    uint32_t value_size;  /* STORE_TOMBSTONE: one */
    const uint8_t *value; /* NULL unless it is small */
};

struct hint_info {
    enum segment_kind kind;
    uint64_t file_id, data_bytes;
    uint64_t records, tombstones;
    /* Of a log segment: */
    uint64_t first_index, entries;
    uint64_t prev_term; /* the entry before its first */
    uint32_t prev_crc;
    struct chain end; /* its last */
};

/* Makes ID.new: records in key order, then, of a log segment, its entries. */
struct hint_writer;
int hint_writer_new(struct store *s, const struct hint_info *info,
                    struct hint_writer **ret);
int hint_writer_record(struct hint_writer *w, const struct hint_record *record);
int hint_writer_entry(struct hint_writer *w, const struct store_entry *entry,
                      uint32_t offset);
/* Synced, renamed to ID.hint; the directory is the caller's to sync. */
int hint_writer_finish(struct hint_writer *w, uint64_t *ret_bytes);
void hint_writer_free(struct hint_writer *w); /* removes what is not finished */
/* Before _finish, where info did not say it. */
void hint_writer_set_bytes(struct hint_writer *w, uint64_t data_bytes);

/* Reads one, a block at a time. -ENOENT: none; -EBADMSG: wrong, stale or damaged. */
struct hint_reader;
int hint_reader_new(struct store *s, uint64_t file_id, enum segment_kind kind,
                    uint64_t data_bytes, struct hint_reader **ret);
/* The same of one that lies anywhere; of the store its I/O and cluster count. */
int hint_reader_open(struct store *s, const char *path, uint64_t file_id,
                     enum segment_kind kind, uint64_t data_bytes,
                     struct hint_reader **ret);
const struct hint_info *hint_reader_info(const struct hint_reader *r);
uint64_t hint_reader_bytes(const struct hint_reader *r); /* of the hint file */
/* 1: a record, valid until the next call; 0: the end. */
int hint_reader_next(struct hint_reader *r, struct hint_record *ret);
/* The next record is the first whose key is not below this; never goes back. */
int hint_reader_seek(struct hint_reader *r, const void *key, size_t size);
/* 1: the log's next entry (index, term, timestamp, session, request, result,
 * record_count, crc and length are set); 0: the end. Independent of the records' place.
 */
int hint_reader_entry(struct hint_reader *r, struct store_entry *ret,
                      uint32_t *ret_offset);
void hint_reader_free(struct hint_reader *r);
/* Reads the whole data file and writes its hint. -EBADMSG: the data file is damaged. */
int hint_build(struct store *s, struct segment *segment, uint64_t data_bytes,
               uint64_t *ret_bytes);
/* The same in steps of at most about 1 MiB: 1: call again; 0: done. */
struct hint_builder;
int hint_builder_new(struct store *s, struct segment *segment, uint64_t data_bytes,
                     struct hint_builder **ret);
int hint_builder_step(struct hint_builder *b, uint64_t *ret_bytes);
void hint_builder_free(struct hint_builder *b);

/* ---- Merged files and the manifest; see merged.c, manifest.c -------------------------
 */

struct manifest_file {
    uint64_t file_id, bytes, records, tombstones;
    uint64_t min_timestamp_us, max_timestamp_us;
};

struct manifest {
    struct chain merged;                  /* M: the log begins after it */
    uint64_t applied_index, applied_term; /* E: the state it was made at */
    uint64_t first_file;                  /* log segments of lower file ids are gone */
    size_t count;
    struct manifest_file *files;
    void *state; /* the caller's */
    size_t state_size;
};

int manifest_encode(const struct manifest *manifest,
                    const uint8_t cluster_id[STORE_CLUSTER_ID_BYTES], uint32_t format,
                    struct buf *to);
int manifest_decode(const void *data, size_t length, uint32_t newest,
                    struct manifest *ret, uint8_t ret_cluster_id[STORE_CLUSTER_ID_BYTES]);
/* MANIFEST.new, sync, rename, sync of the directory. */
int manifest_write(struct store *s, const struct manifest *manifest,
                   char error[STORE_ERROR_BYTES]);
/* -ENOENT: there is none. */
int manifest_read(struct store *s, struct manifest *ret, char error[STORE_ERROR_BYTES]);
void manifest_release(struct manifest *manifest);

/* Makes ID.mrg and its hint, of whole verified records in key order. */
struct merged_writer;
int merged_writer_new(struct store *s, uint64_t file_id, struct merged_writer **ret);
/* *ret_offset: where it stands. -EFBIG: it is full. */
int merged_writer_put(struct merged_writer *w, const void *record, size_t length,
                      uint32_t *ret_offset);
uint64_t merged_writer_bytes(const struct merged_writer *w); /* so far, of data */
/* Both synced and renamed; the directory is the caller's to sync. */
int merged_writer_finish(struct merged_writer *w, struct manifest_file *ret,
                         uint64_t *ret_hint_bytes);
void merged_writer_free(struct merged_writer *w); /* removes what is not finished */
void merged_path(struct path *ret, const char *directory, uint64_t file_id);
void hint_path(struct path *ret, const char *directory, uint64_t file_id);
void manifest_path(struct path *ret, const char *directory, const char *suffix);
/* The header of a merged file: -EBADMSG, -EPROTONOSUPPORT. */
void merged_head_encode(uint8_t to[SEGMENT_HEADER],
                        const uint8_t cluster_id[STORE_CLUSTER_ID_BYTES], uint32_t format,
                        uint64_t file_id);
int merged_head_decode(const uint8_t *data, size_t length, uint32_t newest,
                       uint8_t ret_cluster_id[STORE_CLUSTER_ID_BYTES],
                       uint64_t *ret_file_id);

/* ---- Slots: a number for every data file that is open -------------------------------
 */

/*
 * A place says where a record is: slot << 32 | offset. A slot is free again when its
 * segment is freed, which is after every reader that may have met one of its places. So
 * inside a read-side section a place that was loaded from a node stays good.
 */
struct slots {
    _Atomic uint32_t references; /* the store, and each segment */
    _Atomic uint32_t next;       /* where to look for a free one */
    _Atomic(struct segment *) at[LIMIT_SEGMENTS];
};

#define PLACE_GONE UINT64_MAX /* the node has left the keydir: look the key up anew */

struct slots *slots_new(void);         /* NULL: no memory */
void slots_unref(struct slots *slots); /* NULL is allowed */

/* The segment of a place that is not gone. */
static inline struct segment *place_segment(const struct slots *slots, uint64_t place)
{
    return atomic_load_explicit(&slots->at[place >> 32], memory_order_acquire);
}

static inline uint32_t place_offset(uint64_t place)
{
    return (uint32_t)place;
}

/* ---- Segments ---------------------------------------------------------------------- */

/*
 *            OP_SPACE                 OP_ROLL               roll, open
 *  reserved ----------> spare (.new) ---------> active (.seg) --------> sealed
 *                                                  ^------- truncate ------'
 */
struct segment {
    _Atomic uint32_t references;
    enum segment_kind kind;
    int fd; /* -1 until made */
    uint64_t file_id;
    uint64_t first_index; /* LOG */
    const struct store_io *io;
    struct slots *slots;         /* a reference: */
    uint32_t slot;               /* its own, until it is freed */
    _Atomic uint64_t live_bytes; /* of the records the keydir points to in it */
    /* The loop's, LOG (but `used`): */
    uint32_t *offsets; /* of entry first_index + i: the index map */
    size_t count, capacity;
    uint64_t used;        /* bytes, header included */
    uint64_t limit_bytes; /* how far appends may go */
    bool worn;            /* something dead in it is bad: to be merged away */
    _Atomic bool suspect; /* to be scrubbed soon */
    bool sealed;          /* on disk too: it has its used length, and a successor */
    uint64_t hint_bytes;  /* of its hint file; 0: there is none */
    /* Beyond a hole: what its first entry says of the one before it. */
    struct chain before;
    bool before_known;
    /* A merge met a bad record in it: merged again when that is repaired, or then. */
    uint64_t hurt_until_us; /* 0: it is not */
    uint64_t kept_bytes;    /* of tombstones that had to stay when it was merged */
    _Atomic bool merging;   /* its live records are moving to another file */
    struct rcu_head rcu;
};

static inline uint64_t place_of(const struct segment *segment, uint32_t offset)
{
    return (uint64_t)segment->slot << 32 | offset;
}

struct segment_head {
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    uint64_t first_index;
    uint64_t file_id;
    uint32_t format;
};

void segment_head_encode(uint8_t to[SEGMENT_HEADER], const struct segment_head *head);
/* -EBADMSG: no segment header; -EPROTONOSUPPORT: of a newer format. */
int segment_head_decode(const uint8_t *data, size_t length, uint32_t newest,
                        struct segment_head *ret);

/* With a slot. NULL: no memory, or more files than LIMIT_SEGMENTS. Any thread. */
struct segment *segment_new(const struct store *s, enum segment_kind kind,
                            uint64_t file_id);
struct segment *segment_ref(struct segment *segment);
/* The last one closes the file, when no reader can be inside (RCU). */
void segment_unref(struct segment *segment);
void segment_unref_unread(struct segment *segment); /* no reader is inside: at once */
int segment_reserve(struct segment *segment, size_t more); /* room in the index map */
void segment_add(struct segment *segment, uint32_t offset, uint32_t length);
uint64_t segment_last(const struct segment *segment); /* first_index - 1: none */
uint32_t segment_entry_length(const struct segment *segment, uint64_t index);

void segment_path(struct path *ret, const char *directory, uint64_t file_id);
void segment_spare_path(struct path *ret, const char *directory, uint64_t file_id);
void log_directory_path(struct path *ret, const char *directory);

/* The log thread, and recovery: the file `.new`, with its space. */
int segment_make_spare(struct store *s, struct segment *segment,
                       char error[STORE_ERROR_BYTES]);
/* Header, sync, `.seg`, sync of the directory. */
int segment_activate(struct store *s, struct segment *segment,
                     char error[STORE_ERROR_BYTES]);

struct keydir_node;

/* ---- Skip list --------------------------------------------------------------------- */

/* Stands last in its owner; the key's bytes follow the tower. */
struct skip_node {
    uint16_t key_size;
    uint8_t height;
    struct skip_node *next[];
};

/* One writer; readers need a read-side section, and nodes stay as long as those last. */
struct skip_list {
    struct skip_node *head[SKIP_HEIGHT];
    uint64_t seed;
    uint64_t count;
};

void skip_init(struct skip_list *list);
unsigned skip_draw_height(struct skip_list *list);
/* Bytes after the struct for this tower and key. */
size_t skip_extra(unsigned height, size_t key_size);
void skip_node_init(struct skip_node *node, unsigned height, const void *key,
                    size_t size);
const uint8_t *skip_key(const struct skip_node *node);
int key_compare(const void *a, size_t a_size, const void *b, size_t b_size);

/* Whether a sorts before b. Of neighbours the first 8 bytes mostly tell. */
static inline bool key_precedes(const void *a, size_t a_size, const void *b, size_t b_size)
{
    if (a_size >= 8 && b_size >= 8) {
        uint64_t x = get_be64(a), y = get_be64(b);
        if (x != y)
            return x < y;
    }
    return key_compare(a, a_size, b, b_size) < 0;
}

struct skip_node *skip_find(const struct skip_list *list, const void *key, size_t size);
/* The first node whose key is not below `key`. */
struct skip_node *skip_seek(const struct skip_list *list, const void *key, size_t size);
struct skip_node *skip_next(const struct skip_node *node);
/* Returns the node of the same key that was replaced, or NULL. */
struct skip_node *skip_put(struct skip_list *list, struct skip_node *node);
/* Takes the key's node out and returns it, or NULL. */
struct skip_node *skip_remove(struct skip_list *list, const void *key, size_t size);
void skip_check(const struct skip_list *list); /* I1 */

/* ---- Map: the keydir's order; see map.h ---------------------------------------------
 */

enum map_kind { MAP_LEAF, MAP_INNER, MAP_SEPARATOR, MAP_KINDS };

struct map_block;
struct map_reserve {
    struct map_block *blocks;
    size_t count;
};

/* One writer; readers need a read-side section, and what is retired stays as long as
 * those last. */
struct map {
    struct map_node *root; /* NULL: empty */
    uint64_t count;
    struct map_leaf *last; /* while it is loaded */
    struct map_block *retired;
    struct map_reserve reserves[MAP_KINDS];
    /* What the changes that are to come may need: */
    size_t claims, cuts;
    uint32_t claim_epoch;
};

struct keydir_cursor { /* good as long as the read-side section */
    const struct map *map;
    const struct map_leaf *leaf;
    const struct map_separator *behind; /* where the next leaf begins */
    unsigned at;
};

struct keydir_node *map_find(const struct map *map, const uint8_t *key, size_t size);
const struct keydir_node *map_seek(const struct map *map, struct keydir_cursor *cursor,
                                   const uint8_t *key, size_t size);
const struct keydir_node *map_next(struct keydir_cursor *cursor);
/* Before a group of changes, whose keys differ: forgets former claims. */
void map_begin_claims(struct map *map);
/* Allocates what putting, or removing, this key may need; -ENOMEM. */
int map_claim(struct map *map, const uint8_t *key, size_t size, bool put);
/* The record of the same key that was replaced, or NULL. */
struct keydir_node *map_put(struct map *map, struct keydir_node *record);
/* The record that was removed, or NULL. */
struct keydir_node *map_remove(struct map *map, const uint8_t *key, size_t size);
/* Of a key above all; before there are readers, and before any other change. -ENOMEM. */
int map_append(struct map *map, struct keydir_node *record);
/* What readers may still hold, since the last call; freed with map_free_blocks. */
struct map_block *map_take_retired(struct map *map);
void map_free_blocks(struct map_block *blocks);
void map_release(struct map *map); /* not the records; no readers */
void map_check(const struct map *map);

/* ---- Keydir ------------------------------------------------------------------------ */

/*
 * Never changed once it is published, but for its place, which the merge thread moves to
 * where it has copied the record (keydir_relocate), and the loop sets to PLACE_GONE when
 * the node has left the keydir: exactly one of them takes a place's bytes off its
 * segment.
 */
struct keydir_node {
    uint64_t timestamp_us;
    _Atomic uint64_t place; /* of the record */
    uint32_t value_size;
    uint16_t key_size;
    uint8_t bytes[]; /* the key, then the value, where it is small */
};

struct pool;

struct keydir {
    struct slots *slots; /* the store's */
    struct map map;
    struct pool *pool;   /* a reference; its nodes are from there, see pool.h */
    uint64_t live_bytes; /* of the records pointed to */
    struct rcu_head rcu;
};

struct keydir_change;

struct keydir *keydir_new(struct slots *slots);   /* NULL: no memory */
void keydir_free(struct keydir *keydir);          /* no readers; NULL is allowed */
void keydir_free_deferred(struct keydir *keydir); /* when no reader is inside any more */

/* Reading: in a read-side section, or on the loop. */
uint64_t keydir_count(const struct keydir *keydir);
const uint8_t *keydir_key(const struct keydir_node *node);
uint32_t keydir_key_size(const struct keydir_node *node);
const uint8_t *keydir_value(const struct keydir_node *node); /* NULL: not in the keydir */
uint64_t keydir_record_bytes(const struct keydir_node *node);
uint64_t keydir_place(const struct keydir_node *node);
const struct keydir_node *keydir_find(const struct keydir *keydir, const void *key,
                                      size_t size);

/* The first node whose key is not below `key`, then those that follow; NULL: the end. */
const struct keydir_node *keydir_seek(const struct keydir *keydir,
                                      struct keydir_cursor *cursor, const void *key,
                                      size_t size);
const struct keydir_node *keydir_next(struct keydir_cursor *cursor);

/* Allocates all that applying this entry needs; -ENOMEM. */
int keydir_prepare(struct keydir *keydir, const struct store_bytes *entry,
                   const struct store_entry *head, struct segment *segment,
                   uint32_t offset, struct keydir_change **ret);
/* `shared`: there may be readers. */
void keydir_commit(struct keydir *keydir, struct keydir_change *change,
                   const struct store_bytes *entry, bool shared);
/* Any thread, in a read-side section: the node's record was copied from `from` to `to`.
 * False: it is not at `from` (any more). */
bool keydir_relocate(const struct keydir *keydir, const struct keydir_node *node,
                     uint64_t from, uint64_t to);
void keydir_check(const struct keydir *keydir); /* I1 */

/* ---- Loading the keydir from hints; see load.c ------------------------------------- */

/* A put that is the newest of its key, keys ascending, before there are readers. */
int keydir_load(struct keydir *keydir, const struct hint_record *record,
                struct segment *segment);

struct load_source {
    struct hint_reader *hint; /* at its beginning */
    struct segment *segment;
};

/* Of all hints' records the newest of each key, tombstones dropped, into a keydir that is
 * empty. -EBADMSG: *ret_bad is the source whose hint is damaged; the keydir is then in
 * part loaded and of no use. */
int keydir_load_all(struct keydir *keydir, const struct load_source *sources,
                    size_t count, size_t *ret_bad);
/* The same in steps of so many records; 1: call again; 0: done. `sources` must stay. */
struct keydir_loader;
int keydir_loader_new(struct keydir *keydir, const struct load_source *sources,
                      size_t count, struct keydir_loader **ret);
int keydir_loader_step(struct keydir_loader *load, size_t records, size_t *ret_bad);
void keydir_loader_free(struct keydir_loader *load);

/* ---- Ahead: what a leader has appended and not applied ----------------------------- */

struct ahead_node {
    uint64_t index;
    uint64_t timestamp_us;
    struct store_bytes *bytes; /* a reference; `value` points into it */
    const uint8_t *value;      /* NULL: a tombstone */
    uint32_t value_size;
    struct skip_node skip;
};

const struct ahead_node *ahead_node_of(const struct skip_node *node);
int ahead_add(struct skip_list *ahead, struct store_bytes *entry, uint64_t index);
/* The entry was applied: drops its nodes, unless a later entry has taken the key. */
void ahead_applied(struct skip_list *ahead, const struct store_bytes *entry,
                   uint64_t index);
void ahead_clear(struct skip_list *ahead);

/* ---- Tail: the entries in memory --------------------------------------------------- */

struct tail_entry {
    struct store_bytes *bytes;
    bool ahead;
};

struct tail { /* a ring of entries first .. first + count - 1 */
    struct tail_entry *ring;
    size_t capacity, start, count;
    uint64_t first;
    uint64_t bytes;
};

int tail_reserve(struct tail *tail);
void tail_push(struct tail *tail, struct store_bytes *bytes, uint64_t index, bool ahead);
struct tail_entry *tail_at(const struct tail *tail, uint64_t index); /* NULL: not here */
void tail_pop_last(struct tail *tail);
/* Drops the oldest applied entries beyond the bound. */
void tail_trim(struct tail *tail, uint64_t applied);
/* Drops what was merged: entries up to this one. */
void tail_drop(struct tail *tail, uint64_t index);
void tail_release(struct tail *tail);

/* ---- Jobs -------------------------------------------------------------------------- */

enum op_kind {
    OP_APPEND,
    OP_ROLL, /* seals `segment` and makes `next` the active one */
    OP_UNLINK,
    OP_TRUNCATE,
    OP_HARD_STATE,
    OP_COMMIT_HINT,
    OP_SPACE, /* prepares `segment`, where there is one, and looks at the disk */
    OP_REPAIR,
    OP_INSTALL,
};

struct op {
    enum op_kind kind;
    bool failed;             /* SPACE: no room for the spare */
    bool adopt;              /* ROLL: `next` is there already, with what it holds */
    struct segment *segment; /* a reference */
    struct segment *next;    /* ROLL: a reference */
    struct store_bytes *bytes;
    uint64_t offset; /* APPEND, TRUNCATE; ROLL: the used length */
    uint64_t index;  /* APPEND, TRUNCATE; COMMIT_HINT: the commit */
    uint64_t generation;
    uint64_t term, vote, sequence;
    /* REPAIR: `bytes` belong at `offset`; index 0: a record. Of an entry that must still
     * be proven: `next` holds the one that follows, `former` (or, NULL, `before`) the one
     * before it. */
    bool active; /* it is the log's active segment */
    struct segment *former;
    uint64_t former_offset;
    struct chain before;
    struct store_incoming *install; /* INSTALL; owned */
};

struct store_job {
    struct store *store; /* the log thread reads only what never changes */
    struct op *ops;
    size_t count, capacity;
    uint64_t lowest_truncate; /* UINT64_MAX: none */
    /* Results: */
    uint64_t bytes_written, syncs;
    uint64_t disk_free, disk_total;
    bool looked;
};

/* Room for `more` operations in the pending job. */
int job_reserve(struct store *s, size_t more);
/* Never fails after job_reserve. */
struct op *job_add(struct store *s, enum op_kind kind);
void job_free(struct store_job *job);

/* ---- State files ------------------------------------------------------------------- */

struct hard_state {
    uint64_t sequence, term, vote;
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    uint32_t format;
};

struct commit_hint {
    uint64_t commit, term; /* the term of that entry; 0: not told */
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    uint32_t format;
};

void hard_state_encode(uint8_t to[SLOT_BYTES], const struct hard_state *state);
int hard_state_decode(const uint8_t *data, size_t length, uint32_t newest,
                      struct hard_state *ret);
void commit_hint_encode(uint8_t to[SLOT_BYTES], const struct commit_hint *hint);
int commit_hint_decode(const uint8_t *data, size_t length, uint32_t newest,
                       struct commit_hint *ret);

void hard_state_path(struct path *ret, const char *directory, const char *suffix);
void commit_hint_path(struct path *ret, const char *directory);
/* One slot, synced. */
int hard_state_write(const struct store_io *io, int fd, const struct hard_state *state,
                     int slot);
int commit_hint_write(const struct store_io *io, int fd, const struct commit_hint *hint,
                      int slot);
/* The newest valid slot and its number; -EBADMSG where there is none. */
int hard_state_read(const struct store_io *io, int fd, uint32_t newest,
                    struct hard_state *ret, int *ret_slot);
int commit_hint_read(const struct store_io *io, int fd, uint32_t newest,
                     struct commit_hint *ret, int *ret_slot);

/* ---- Damage and repair; see damage.c, repair.c ------------------------------------- */

enum { DAMAGE_MAX = 1024 }; /* more are found again, later */

struct damage_item;

struct damage_list {
    pthread_mutex_t lock;
    struct damage_item *items;
    size_t count, capacity;
    uint64_t found, repaired; /* since open */
    uint64_t stay;            /* of the items: not repaired */
};

void damage_init(struct damage_list *list);
void damage_release(struct damage_list *list);
/* Any thread: a record that the keydir means, or an applied entry, is bad on disk. */
void damage_found_record(struct store *s, const void *key, size_t key_size,
                         uint64_t timestamp_us);
/* The loop: one that needs no peer. */
void damage_found_here(struct store *s, const struct store_record *record);
void damage_found_entry(struct store *s, uint64_t index, uint64_t term); /* 0: unknown */
/* The loop: it is repaired, or nobody needs it any more. */
void damage_ended_record(struct store *s, const struct store_record *record,
                         bool repaired);
void damage_ended_entry(struct store *s, uint64_t index, bool repaired);
/* The log ends before a hole; it has none any more. Counted once for each start. */
void damage_found_hole(struct store *s);
void damage_ended_hole(struct store *s);
void damage_stays(struct store *s, const struct store_damage *damage);
void damage_prune(struct store *s); /* forgets what nobody needs any more */
void damage_clear(struct store *s);
void damage_stats(struct store *s, struct store_stats *ret);

/* A whole record's bytes; value NULL: a tombstone. */
void record_encode(struct buf *to, uint64_t timestamp_us, const void *key,
                   size_t key_size, const void *value, size_t value_size);
/* As read_raw, and from memory where the value is there. */
int read_current(const struct store *s, const struct keydir_node *node, struct buf *to);
int repair_run(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES]);
bool repair_finish(struct store *s, const struct op *op); /* whether it is repaired */
/* Writes a record back whose bytes are known here. */
void repair_here(struct store *s, struct segment *segment, uint32_t offset,
                 const void *record, size_t length);

/* ---- Scrubbing; see scrub.c -------------------------------------------------------- */

#define SCRUB_IDLE_US ((uint64_t)60 * 1000 * 1000) /* where there is nothing to scrub */

struct scrub_file;

struct scrub { /* the loop's, and its task's while there is one */
    struct scrub_file *file;
    uint64_t complete_us;       /* the last pass was, by the wall clock */
    uint64_t next_id, limit_id; /* of this pass: files next_id .. limit_id - 1 are left */
    uint64_t due_us;            /* the next stretch */
    bool unsaved;
};

void scrub_state_path(struct path *ret, const char *directory);
void scrub_load(struct store *s);   /* what scrub.state says */
void scrub_forget(struct store *s); /* the file that is being scrubbed */
/* Any thread: something in this file is wrong: it is scrubbed soon. */
void scrub_suspect(struct store *s, struct segment *segment);

/* ---- A snapshot that comes in; see incoming.c, incoming_ready.c, install.c ------------- */

enum incoming_step {
    INCOMING_BEGIN,
    INCOMING_HINT,  /* of file `at`: reads all of it */
    INCOMING_CHECK, /* of file `at`: what the hint says */
    INCOMING_LOAD,
    INCOMING_READY,
};

struct incoming_file {
    struct manifest_file from; /* as the sender has it */
    int fd;                    /* of its .part; -1: a segment has it */
    _Atomic uint64_t received; /* bytes of content */
    uint64_t synced;           /* of them */
};

struct store_incoming {
    struct store *s;
    uint64_t sender;
    struct buf description;
    struct manifest manifest; /* what it says */
    struct incoming_file *files;
    size_t count;
    bool dropped; /* its files are gone */
    /* On the way to being prepared: */
    enum incoming_step step;
    size_t at;
    struct hint_builder *builder;
    struct hint_reader *reader;
    struct manifest_file found;   /* by the reader */
    struct load_source *sources;  /* with their hints */
    struct keydir_loader *loader; /* into keydir */
    /* Prepared: */
    bool hints_stay; /* they are the store's, or gone */
    struct segment **segments;
    struct keydir *keydir;
    struct manifest installed; /* with this store's own file ids */
    /* Being installed: */
    struct segment *next; /* the new log's first */
    struct buf former;    /* { file_id u64, kind u8 } of what goes */
};

void incoming_path(struct path *ret, const char *directory, const char *name);
void incoming_part_path(struct path *ret, const char *directory, uint64_t file_id);
/* Removes all files of it. */
int incoming_drop(struct store_incoming *in, char error[STORE_ERROR_BYTES]);
void incoming_remove_hints(struct store_incoming *in);
/* As if it had not been begun to be prepared. */
void incoming_unprepare(struct store_incoming *in);
int install_run(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES]);
/* False: nothing has changed, and it is the caller's to be freed, where it may wait. */
bool install_finish(struct store *s, struct op *op, struct store_incoming **ret_failed);

/* ---- Tasks: background work in stretches; see task.c ------------------------------- */

enum {
    STRETCH_BYTES = 1 << 20,     /* of I/O, at most about, between two waits */
    TASK_LOOK_US = 100 * 1000,   /* how often a quiet store is looked at */
    TASK_RETRY_US = 1000 * 1000, /* after one that was given up */
    HURT_US = 60 * 1000 * 1000,  /* a damaged file is tried again after this */
    PIECE_BYTES = 256 << 10,     /* gathered of a merged file or hint before it is written */
    MERGE_VICTIMS = 64,          /* of one round, at most */
    HURRY_FULL = 1000,
};

struct task_kind {
    /* The loop: one that is due; NULL: none, or no memory for it now. */
    struct store_task *(*plan)(struct store *s, uint64_t now_us);
    /* The merge thread: a stretch, as store_run_task. What the loop changes it may not
     * look at. */
    int (*run)(struct store_task *task, uint64_t *ret_wait_us,
               char error[STORE_ERROR_BYTES]);
    /* The loop, after 0: true: run again. */
    bool (*step)(struct store *s, struct store_task *task);
    void (*free)(struct store_task *task);
};

/* Stands first in each kind's own. A kind that is never done (scrubbing) makes tasks of a
 * few stretches, so that others come to their turn. */
struct store_task {
    const struct task_kind *kind;
    struct store *store;
};

enum { TASK_SEAL, TASK_MERGE, TASK_SCRUB, TASK_KINDS }; /* in the order they are asked */

extern const struct task_kind seal_kind, merge_kind, scrub_kind;

/* The merge thread: how long to wait after this many bytes. */
uint64_t task_pace(const struct store *s, uint64_t bytes);
/* And how many bytes, at most about, a merge copies before that. */
uint64_t task_stretch(const struct store *s);
/* The merge thread: the running task is not wanted any more; it ends as soon as it can
 * (store_stop_task). */
bool task_stopping(const struct store *s);
/* The loop: makes a running task end early, as far as it can; an install waits for that.
 * True: there is none. */
bool task_stop(struct store *s);
/* The loop, in `step`: it was given up, for lack of room or memory: not again at once. */
void task_gave_up(struct store *s, const struct store_task *task);
/* ENOSPC and its like: what can be given up, is. */
bool no_room(int rc);
bool no_descriptor(int rc); /* the process has as many as it may: in a while it may not */

/* ---- Space: what is on disk, and what of it is dead; see space.c ------------------- */

struct space {
    uint64_t live; /* bytes of the keydir's records */
    uint64_t data; /* of sealed data files */
    uint64_t hints;
    uint64_t dead;    /* what merging all of them gave back, about */
    uint64_t trigger; /* of dead bytes: a merge is due */
    uint64_t bound;   /* of dead bytes: twice the live ones are on disk */
};

void space_measure(const struct store *s, struct space *ret);
/* After the disk's use has changed: how much merging must hurry. */
void space_update(struct store *s);
/* How many of the first log segments may be merged now. */
size_t space_mergeable(const struct store *s, uint64_t now_us);
bool space_is_sealed(const struct store *s, size_t i); /* segment i of the log */

struct store_pin {
    struct store_pin *next;
    uint64_t first;
};

/* ---- The store --------------------------------------------------------------------- */

enum spare_state { SPARE_NONE, SPARE_PENDING, SPARE_READY };

struct store {
    /* Set once: */
    const struct store_io *io;
    char *path;
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    uint64_t segment_bytes;
    int state_fd, hint_fd;
    uint32_t format_newest;  /* that is read */
    _Atomic uint32_t format; /* that is written; the loop raises it, never lowers it */
    /* The loop's: */
    struct segment **segments; /* in order; the last is active */
    size_t segment_count, segment_capacity;
    _Atomic uint64_t next_file_id; /* see store_new_file_id */
    bool installing;               /* from store_install until it is done */
    struct segment *spare;
    enum spare_state spare_state;
    bool spare_lent; /* its space, to a merge: no other is made meanwhile */
    struct chain base;    /* the log starts after this */
    struct chain end;     /* its last entry */
    struct chain applied; /* the last that was applied */
    uint64_t durable;     /* the last that is synced */
    uint64_t generation;
    uint64_t hint; /* the highest commit hint asked for */
    int hint_slot; /* the one last written */
    uint64_t hard_sequence;
    struct tail tail;
    struct skip_list ahead;
    uint64_t unwritten_bytes; /* of the entries that both jobs append */
    struct store_job *pending, *running;
    struct store_run *runs;
    size_t run_count;
    struct store_stats stats;
    /* What is merged; `merged` has a segment for each of its files, in their order. */
    struct manifest manifest; /* applied_index 0: nothing is */
    struct segment **merged;
    size_t merged_count;
    /* A hole; see hole.c. claim_index 0: there is none. */
    uint64_t claim_index, claim_term;
    struct segment **beyond; /* segments behind it, in order, from `beyond_first` on */
    size_t beyond_first, beyond_count;
    bool behind; /* something stands in the active segment after the log's end */
    /* Tasks: */
    struct store_task *task;
    uint64_t task_now_us, task_due_us;
    uint64_t task_retry_us[TASK_KINDS];
    _Atomic bool task_stop;
    _Atomic uint32_t merge_hurry; /* 0: in peace .. HURRY_FULL: the bound is reached */
    uint64_t merge_bytes_per_s, retain_bytes, scrub_period_us;
    struct scrub scrub;
    uint64_t keep_from; /* G8 */
    struct store_pin *pins;
    int (*save_state)(void *context, struct buf *to);
    void *context;
    bool shared;  /* readers may be inside: not during recovery */
    bool dropped; /* a segment was taken out: its closing may still be deferred */
    /* Readers': */
    struct slots *slots;
    struct keydir *keydir; /* written by the loop; replaced by an install */
    uint64_t sequence;     /* odd while an entry is being applied (G10) */
    _Atomic uint64_t bad_reads;
    struct damage_list damage; /* any thread's */
    void (*damaged)(void *context);
};

/* The segment that holds `index`, which is in the log. */
struct segment *store_segment_of(const struct store *s, uint64_t index);
struct segment *store_active(const struct store *s);
uint64_t store_new_file_id(struct store *s);                  /* any thread */
uint64_t store_new_file_ids(struct store *s, uint64_t count); /* the first of so many */
int store_reserve_segment(struct store *s);
void store_add_segment(struct store *s, struct segment *segment);
/* Takes the entries after `index` out of the active segment, and what else is there. Room
 * for one operation is reserved. */
void log_cut_active(struct store *s, uint64_t index);
/* Takes in an entry that stands in the active segment already (recovery), or is about to.
 */
int store_adopt(struct store *s, struct store_bytes *entry,
                const struct store_entry *head, bool ahead);
/* The keydir as readers find it; see read.c. */
const struct keydir *store_keydir(const struct store *s);
/* In a read-side section: the node's whole record, or its value, checked (G1), appended
 * to `to`. -ESTALE: the node has left the keydir; -EBADMSG: damaged. */
int read_raw(const struct store *s, const struct keydir_node *node, unsigned flags,
             struct buf *to);
int read_value(const struct store *s, const struct keydir_node *node, unsigned flags,
               struct buf *to);
/* ---- A hole in the log (G6); see hole.c -------------------------------------------- */

/* Before the next entry, which is `head`, is appended: the segment that it stood in is
 * active after. -ENOMEM. */
int hole_before_append(struct store *s, const struct store_entry *head);
void hole_after_append(struct store *s);
bool hole_has_room(const struct store *s); /* the next entry has a segment of its own */
/* What stood after the log's end is not needed any more, or was replaced. Room for its
 * operations is reserved. */
void hole_close(struct store *s);
size_t hole_close_operations(const struct store *s);

/* Everything on disk into memory; see recovery.c. */
int store_recover(struct store *s, const struct store_options *options,
                  struct store_recovery *ret, char error[STORE_ERROR_BYTES]);
void store_free(struct store *s);
/* A part of store_check; see check_files.c. */
void check_files(struct store *s);
/* In debug builds, after each step of the loop: the invariants of what is in memory. */
#ifdef TIERCE_CHECKS
void check_step(struct store *s);
#else
static inline void check_step(struct store *s)
{
}
#endif

#endif
