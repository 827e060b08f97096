/*
 * hint_read.c - reads hints, a block at a time: records from the first or from any key
 * on, and, apart from them, a segment's entries. What does not fit the format is
 * -EBADMSG.
 */
#include "hint.h"

#include <fcntl.h>

/* ---- Reading: header and trailer --------------------------------------------------- */

enum { NEXT_ITEM = 64 }; /* bytes ahead: the one after the next begins about there */

struct block {
    uint64_t offset;
    const uint8_t *key; /* its first, in the trailer */
    uint32_t key_size;
};

struct hint_reader {
    struct store *s;
    int fd;
    struct hint_info info;
    uint64_t bytes, entries_at, trailer_at;
    struct buf trailer;
    struct block *blocks;
    uint32_t block_count;
    /* Where the records are read: */
    uint32_t next_block;
    struct buf block;
    struct reader items;
    const uint8_t *last_key; /* of the last record: in its block, or */
    uint32_t last_size;      /* 0: none yet */
    uint8_t kept_key[LIMIT_KEY_BYTES];
    struct hint_record seen; /* by a seek, and to be given */
    bool has_seen;
    /* Where the entries are read: */
    struct buf entry_block;
    struct reader entry_items;
    uint64_t entry_offset; /* of the next block */
    uint64_t entries_read;
    struct chain entry_end;   /* of the last one that was read */
    struct store_entry entry; /* read, but the next one tells its length */
    uint32_t entry_at;
    bool has_entry;
};

static int read_exact(struct hint_reader *r, void *to, size_t length, uint64_t offset)
{
    ssize_t n = read_full(r->s->io, r->fd, to, length, offset);
    if (n < 0)
        return (int)n;
    return (size_t)n == length ? 0 : -EBADMSG;
}

static int read_header(struct hint_reader *r, uint64_t file_id, enum segment_kind kind,
                       uint64_t data_bytes)
{
    uint8_t head[SEGMENT_HEADER];
    int rc = read_exact(r, head, sizeof(head), 0);
    if (rc != 0)
        return rc;
    if (memcmp(head, HINT_MAGIC, HINT_MAGIC_BYTES) != 0 ||
        format_check(get_u32(head + 8), r->s->format_newest) != 0 ||
        get_u32(head + 12) != SEGMENT_HEADER ||
        memcmp(head + 16, r->s->cluster_id, STORE_CLUSTER_ID_BYTES) != 0 ||
        get_u64(head + 32) != file_id || get_u64(head + 40) != data_bytes ||
        get_u32(head + 48) != (uint32_t)kind || !all_zero(head + 52, 8) ||
        get_u32(head + 60) != crc32_of(0, head, 60))
        return -EBADMSG;
    r->info.file_id = file_id;
    r->info.kind = kind;
    r->info.data_bytes = data_bytes;
    return 0;
}

/* A block of `size` bytes in all, or at most that where its own length says so. */
static int read_block(struct hint_reader *r, uint64_t offset, uint64_t size, bool exact,
                      int kind, struct buf *to, struct reader *ret)
{
    if (size < BLOCK_HEADER)
        return -EBADMSG;
    buf_clear(to);
    uint8_t *block = buf_extend(to, size);
    if (!block)
        return -ENOMEM;
    int rc = read_exact(r, block, size, offset);
    if (rc != 0)
        return rc;
    uint32_t length = get_u32(block);
    if (length < 1 || length > size - 8 || (exact && length != size - 8) ||
        block[8] != kind || get_u32(block + 4) != crc32_of(0, block + 8, length))
        return -EBADMSG;
    *ret = reader_of(block + BLOCK_HEADER, length - 1);
    return 0;
}

static int parse_blocks(struct hint_reader *r, struct reader *t)
{
    /* Each takes at least 11 bytes of the trailer, which bounds what is allocated. */
    if (r->block_count > reader_left(t) / 11)
        return -EBADMSG;
    r->blocks = calloc((size_t)r->block_count + 1, sizeof(*r->blocks));
    if (!r->blocks)
        return -ENOMEM;
    uint64_t least = SEGMENT_HEADER;
    for (uint32_t i = 0; i < r->block_count; i++) {
        struct block *b = &r->blocks[i];
        size_t key_size;
        b->offset = reader_u64(t);
        b->key = reader_string(t, &key_size);
        b->key_size = (uint32_t)key_size;
        if (t->bad || key_size == 0 || key_size > LIMIT_KEY_BYTES ||
            (i == 0 ? b->offset != SEGMENT_HEADER : b->offset < least))
            return -EBADMSG;
        least = b->offset + BLOCK_HEADER;
    }
    r->blocks[r->block_count].offset = r->entries_at;
    if (r->block_count == 0)
        return r->entries_at == SEGMENT_HEADER ? 0 : -EBADMSG;
    return r->entries_at >= least ? 0 : -EBADMSG;
}

static int parse_trailer(struct hint_reader *r, struct reader *t)
{
    struct hint_info *info = &r->info;
    info->records = reader_u64(t);
    info->tombstones = reader_u64(t);
    info->entries = reader_u64(t);
    info->first_index = reader_u64(t);
    info->prev_term = reader_u64(t);
    info->prev_crc = reader_u32(t);
    info->end.term = reader_u64(t);
    info->end.timestamp_us = reader_u64(t);
    info->end.crc = reader_u32(t);
    r->entries_at = reader_u64(t);
    r->block_count = reader_u32(t);
    if (t->bad || info->tombstones > info->records || r->entries_at > r->trailer_at ||
        info->first_index > UINT64_MAX - info->entries)
        return -EBADMSG;
    if (info->kind == SEGMENT_LOG ? info->first_index == 0 : info->entries != 0)
        return -EBADMSG;
    info->end.index =
        info->kind == SEGMENT_LOG ? info->first_index + info->entries - 1 : 0;
    r->entry_offset = r->entries_at;
    r->entry_end.index = info->first_index - 1;
    r->entry_end.term = info->prev_term;
    r->entry_end.crc = info->prev_crc;
    int rc = parse_blocks(r, t);
    return rc == 0 && !reader_done(t) ? -EBADMSG : rc;
}

static int read_trailer(struct hint_reader *r)
{
    uint8_t end[END_BYTES];
    struct reader t;
    int rc = r->s->io->size(r->s->io->context, r->fd, &r->bytes);
    if (rc != 0)
        return rc;
    if (r->bytes < SEGMENT_HEADER + BLOCK_HEADER + TRAILER_FIXED + END_BYTES)
        return -EBADMSG;
    rc = read_exact(r, end, sizeof(end), r->bytes - END_BYTES);
    if (rc != 0)
        return rc;
    r->trailer_at = get_u64(end);
    uint64_t limit = r->bytes - END_BYTES;
    if (get_u32(end + 8) != crc32_of(0, end, 8) || r->trailer_at < SEGMENT_HEADER ||
        r->trailer_at > limit || limit - r->trailer_at > TRAILER_MAX)
        return -EBADMSG;
    rc = read_block(r, r->trailer_at, limit - r->trailer_at, true, BLOCK_TRAILER,
                    &r->trailer, &t);
    return rc == 0 ? parse_trailer(r, &t) : rc;
}

int hint_reader_open(struct store *s, const char *path, uint64_t file_id,
                     enum segment_kind kind, uint64_t data_bytes,
                     struct hint_reader **ret)
{
    struct hint_reader *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->s = s;
    r->items = r->entry_items = reader_of("", 0);
    r->last_key = r->kept_key;
    r->fd = s->io->open(s->io->context, path, O_RDONLY, 0);
    int rc = r->fd < 0 ? r->fd : read_header(r, file_id, kind, data_bytes);
    if (rc == 0)
        rc = read_trailer(r);
    if (rc != 0) {
        hint_reader_free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

int hint_reader_new(struct store *s, uint64_t file_id, enum segment_kind kind,
                    uint64_t data_bytes, struct hint_reader **ret)
{
    struct path path;
    hint_path(&path, s->path, file_id);
    return hint_reader_open(s, path.text, file_id, kind, data_bytes, ret);
}

const struct hint_info *hint_reader_info(const struct hint_reader *r)
{
    return &r->info;
}

uint64_t hint_reader_bytes(const struct hint_reader *r)
{
    return r->bytes;
}

void hint_reader_free(struct hint_reader *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        r->s->io->close(r->s->io->context, r->fd);
    buf_release(&r->trailer);
    buf_release(&r->block);
    buf_release(&r->entry_block);
    free(r->blocks);
    free(r);
}

/* ---- Reading: records -------------------------------------------------------------- */

/* Its block's memory is about to be used again. */
static void keep_last_key(struct hint_reader *r)
{
    if (r->last_size == 0 || r->last_key == r->kept_key)
        return;
    memcpy(r->kept_key, r->last_key, r->last_size);
    r->last_key = r->kept_key;
}

static int load_records(struct hint_reader *r)
{
    const struct block *b = &r->blocks[r->next_block];
    uint64_t size = b[1].offset - b->offset;
    if (size > BLOCK_MAX)
        return -EBADMSG;
    keep_last_key(r);
    int rc = read_block(r, b->offset, size, true, BLOCK_RECORDS, &r->block, &r->items);
    if (rc == 0) /* else the same block is read by the next call */
        r->next_block++;
    return rc;
}

static int parse_record(struct hint_reader *r, struct hint_record *ret)
{
    size_t key_size;
    ret->timestamp_us = reader_u64(&r->items);
    ret->offset = reader_u32(&r->items);
    ret->value_size = reader_u32(&r->items);
    ret->key = reader_string(&r->items, &key_size);
    ret->key_size = (uint32_t)key_size;
    ret->value = NULL;
    if (ret->value_size <= LIMIT_KEYDIR_INLINE_BYTES)
        ret->value = reader_bytes(&r->items, ret->value_size);
    if (r->items.bad || key_size == 0 || key_size > LIMIT_KEY_BYTES ||
        (ret->value_size > LIMIT_ENTRY_BYTES && ret->value_size != STORE_TOMBSTONE) ||
        !key_precedes(r->last_key, r->last_size, ret->key, ret->key_size))
        return -EBADMSG;
    uint64_t value_size = ret->value_size == STORE_TOMBSTONE ? 0 : ret->value_size;
    if (ret->offset < SEGMENT_HEADER ||
        ret->offset + STORE_RECORD_HEADER + key_size + value_size > r->info.data_bytes)
        return -EBADMSG;
    r->last_key = ret->key;
    r->last_size = ret->key_size;
    /* A merge of many hints is back here after a record of each of the others. */
    __builtin_prefetch(r->items.at + NEXT_ITEM);
    return 0;
}

int hint_reader_next(struct hint_reader *r, struct hint_record *ret)
{
    if (r->has_seen) {
        r->has_seen = false;
        *ret = r->seen;
        return 1;
    }
    while (reader_left(&r->items) == 0) {
        if (r->next_block == r->block_count)
            return 0;
        int rc = load_records(r);
        if (rc != 0)
            return rc;
    }
    struct hint_record record;
    int rc = parse_record(r, &record);
    if (rc != 0)
        return rc;
    *ret = record;
    return 1;
}

/* The last block that may hold `key`: no later one begins at or below it. */
static void skip_blocks(struct hint_reader *r, const void *key, size_t size)
{
    uint32_t low = r->next_block, high = r->block_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct block *b = &r->blocks[middle];
        if (key_compare(b->key, b->key_size, key, size) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low <= r->next_block)
        return;
    r->next_block = low - 1;
    r->items = reader_of("", 0);
    r->has_seen = false;
}

int hint_reader_seek(struct hint_reader *r, const void *key, size_t size)
{
    skip_blocks(r, key, size);
    struct hint_record record;
    int rc;
    while ((rc = hint_reader_next(r, &record)) == 1) {
        if (key_compare(record.key, record.key_size, key, size) < 0)
            continue;
        r->seen = record;
        r->has_seen = true;
        break;
    }
    return rc < 0 ? rc : 0;
}

/* ---- Reading: entries -------------------------------------------------------------- */

static int load_entries(struct hint_reader *r)
{
    uint64_t left = r->trailer_at - r->entry_offset;
    int rc = read_block(r, r->entry_offset, min_u64(left, BLOCK_MAX), false,
                        BLOCK_ENTRIES, &r->entry_block, &r->entry_items);
    if (rc == 0 && reader_left(&r->entry_items) == 0)
        rc = -EBADMSG;
    if (rc == 0)
        r->entry_offset += BLOCK_HEADER + reader_left(&r->entry_items);
    return rc;
}

static int parse_entry(struct hint_reader *r, struct store_entry *ret,
                       uint32_t *ret_offset)
{
    struct reader *items = &r->entry_items;
    uint32_t offset = reader_u32(items);
    struct store_entry e = {.index = r->entry_end.index + 1,
                            .prev_term = r->entry_end.term,
                            .prev_crc = r->entry_end.crc};
    e.crc = reader_u32(items);
    e.timestamp_us = reader_u64(items);
    e.term = reader_u64(items);
    e.record_count = reader_u32(items);
    e.session = reader_u64(items);
    e.request = reader_u64(items);
    const uint8_t *result = reader_bytes(items, STORE_RESULT_BYTES);
    if (items->bad || e.record_count > LIMIT_ENTRY_RECORDS || offset < SEGMENT_HEADER ||
        (r->entries_read == 0 && offset != SEGMENT_HEADER) ||
        offset > r->info.data_bytes ||
        e.timestamp_us > UINT64_MAX - LIMIT_ENTRY_RECORDS ||
        !chain_continues(&r->entry_end, &e))
        return -EBADMSG;
    memcpy(e.result, result, sizeof(e.result));
    r->entry_end = chain_after(&e);
    r->entries_read++;
    *ret = e;
    *ret_offset = offset;
    return 0;
}

/* 1, 0, or an error: one item further. */
static int next_entry(struct hint_reader *r, struct store_entry *ret,
                      uint32_t *ret_offset)
{
    if (r->entries_read == r->info.entries)
        return r->entry_offset == r->trailer_at && reader_left(&r->entry_items) == 0
                   ? 0
                   : -EBADMSG;
    int rc = reader_left(&r->entry_items) == 0 ? load_entries(r) : 0;
    if (rc == 0)
        rc = parse_entry(r, ret, ret_offset);
    return rc == 0 ? 1 : rc;
}

static bool is_end(const struct hint_reader *r)
{
    const struct chain *a = &r->info.end, *b = &r->entry_end;
    return a->index == b->index && a->term == b->term && a->crc == b->crc &&
           a->timestamp_us == b->timestamp_us;
}

/* An entry ends where the next one begins, so one is read ahead. */
int hint_reader_entry(struct hint_reader *r, struct store_entry *ret,
                      uint32_t *ret_offset)
{
    int rc = 1;
    if (!r->has_entry && r->entries_read == 0) {
        rc = next_entry(r, &r->entry, &r->entry_at);
        r->has_entry = rc == 1;
    }
    if (!r->has_entry)
        return rc < 0 ? rc : 0;
    struct store_entry next = {0};
    uint32_t next_at = 0;
    rc = next_entry(r, &next, &next_at);
    if (rc < 0 || (rc == 0 && !is_end(r)))
        return rc < 0 ? rc : -EBADMSG;
    uint64_t end = rc == 1 ? next_at : r->info.data_bytes;
    if (end < r->entry_at + (uint64_t)STORE_ENTRY_HEADER ||
        end - r->entry_at > LIMIT_ENTRY_BYTES)
        return -EBADMSG;
    *ret = r->entry;
    ret->length = (uint32_t)(end - r->entry_at);
    *ret_offset = r->entry_at;
    r->entry = next;
    r->entry_at = next_at;
    r->has_entry = rc == 1;
    return 1;
}
