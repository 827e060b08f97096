/*
 * backup.c - the backup file's codec, and reading one: every byte is checked, by the
 * records' and entries' own checksums, by the order they must have, and by the hash over
 * all.
 */
#include "backup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Codec ------------------------------------------------------------------------- */

void backup_head_encode(uint8_t to[BACKUP_HEADER], const struct backup_head *head)
{
    memcpy(to, BACKUP_MAGIC, 8);
    put_u32(to + 8, head->format);
    put_u32(to + 12, BACKUP_HEADER);
    memcpy(to + 16, head->cluster_id, STORE_CLUSTER_ID_BYTES);
    put_u64(to + 32, head->begin.index);
    put_u64(to + 40, head->begin.term);
    put_u64(to + 48, head->begin.timestamp_us);
    put_u32(to + 56, head->begin.crc);
    put_u32(to + 60, crc32_of(0, to, 60));
}

int backup_head_decode(const uint8_t *data, size_t length, struct backup_head *ret)
{
    if (length < BACKUP_HEADER || memcmp(data, BACKUP_MAGIC, 8))
        return -EBADMSG;
    uint32_t size = get_u32(data + 12);
    if (size < BACKUP_HEADER || size > length ||
        get_u32(data + size - 4) != crc32_of(0, data, size - 4))
        return -EBADMSG;
    ret->format = get_u32(data + 8);
    if (ret->format > version_format(WIRE_PROTOCOL_VERSION))
        return -EPROTONOSUPPORT;
    if (ret->format == 0 || size != BACKUP_HEADER)
        return -EBADMSG;
    memcpy(ret->cluster_id, data + 16, STORE_CLUSTER_ID_BYTES);
    ret->begin = (struct store_point){.index = get_u64(data + 32),
                                      .term = get_u64(data + 40),
                                      .timestamp_us = get_u64(data + 48),
                                      .crc = get_u32(data + 56)};
    return 0;
}

bool backup_is_cluster_key(const uint8_t *key, size_t size)
{
    return size && (key[0] == FS_CLASS_CLUSTER || key[0] == FS_CLASS_SESSION ||
                    key[0] == FS_CLASS_LOCKS || key[0] == FS_CLASS_LOCKER);
}

bool backup_continues(const struct store_point *end, const struct store_entry *entry)
{
    return entry->index == end->index + 1 && entry->prev_term == end->term &&
           entry->prev_crc == end->crc && entry->term >= end->term &&
           entry->timestamp_us > end->timestamp_us;
}

struct store_point backup_after(const struct store_entry *entry)
{
    return (struct store_point){.index = entry->index,
                                .term = entry->term,
                                .timestamp_us = entry->timestamp_us + entry->record_count,
                                .crc = entry->crc};
}

/* ---- Reading ----------------------------------------------------------------------- */

struct reading {
    const struct backup_visitor *visitor;
    const char *path;
    char *error;
    int fd;
    uint64_t size, offset; /* how far it was read */
    struct wire_hasher *hasher;
    struct buf block;
    struct backup_summary summary;
    bool has_entries; /* no records may follow */
    uint8_t last_key[LIMIT_KEY_BYTES];
    size_t last_key_size;
};

static int bad(struct reading *r, uint64_t offset, const char *what)
{
    return node_error(r->error, -EBADMSG,
                      "%s is damaged at byte %llu (%s): take another copy of it, or "
                      "another backup",
                      r->path, (unsigned long long)offset, what);
}

/* Exactly `length` bytes from where it stands. */
static int read_bytes(struct reading *r, void *to, size_t length)
{
    size_t done = 0;
    while (done < length) {
        ssize_t n =
            pread(r->fd, (uint8_t *)to + done, length - done, (off_t)(r->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return node_error(r->error, -errno, "cannot read %s: %s", r->path,
                              strerror(errno));
        if (n == 0)
            return bad(r, r->offset + done, "its end is missing");
        done += (size_t)n;
    }
    r->offset += length;
    return 0;
}

static int read_head(struct reading *r)
{
    uint8_t bytes[BACKUP_HEADER];
    int result = read_bytes(r, bytes, sizeof(bytes));
    if (result)
        return result;
    result = backup_head_decode(bytes, sizeof(bytes), &r->summary.head);
    if (result == -EPROTONOSUPPORT)
        return node_error(r->error, result,
                          "%s was written by a newer tierce: upgrade tierce on this host",
                          r->path);
    if (result && memcmp(bytes, BACKUP_MAGIC, 8))
        return node_error(r->error, result,
                          "%s is not a backup: give a file that `tierce backup` wrote",
                          r->path);
    if (result)
        return bad(r, 0, "its header");
    r->summary.end = r->summary.head.begin;
    wire_hasher_add(r->hasher, bytes, sizeof(bytes));
    return 0;
}

/* What its end says, for who wants to know first; where it has none, that is told later. */
static int visit_head(struct reading *r)
{
    uint8_t bytes[BACKUP_BLOCK_HEADER + BACKUP_TRAILER];
    struct backup_summary s = r->summary;
    if (!r->visitor->head || r->size < BACKUP_HEADER + sizeof(bytes) ||
        pread(r->fd, bytes, sizeof(bytes), (off_t)(r->size - sizeof(bytes))) !=
            sizeof(bytes) ||
        bytes[0] != BACKUP_LAST || get_u32(bytes + 1) != BACKUP_TRAILER)
        return 0;
    struct reader t = reader_of(bytes + BACKUP_BLOCK_HEADER, BACKUP_TRAILER);
    s.records = reader_u64(&t);
    s.entries = reader_u64(&t);
    s.end.index = reader_u64(&t);
    s.end.term = reader_u64(&t);
    s.end.timestamp_us = reader_u64(&t);
    s.end.crc = reader_u32(&t);
    return r->visitor->head(r->visitor->context, &s);
}

static int compare_keys(const void *a, size_t a_size, const void *b, size_t b_size)
{
    int order = memcmp(a, b, min_u64(a_size, b_size));
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int take_records(struct reading *r, uint64_t at)
{
    struct reader bytes = reader_of(r->block.data, r->block.length);
    if (r->has_entries)
        return bad(r, at, "records after entries");
    int result = 0;
    while (!result && reader_left(&bytes)) {
        struct store_record record;
        const uint8_t *begin = bytes.at;
        uint64_t offset = at + (uint64_t)(begin - r->block.data);
        if (store_record_read(&bytes, &record) || !record.value ||
            backup_is_cluster_key(record.key, record.key_size))
            return bad(r, offset, "a record");
        if (r->last_key_size &&
            compare_keys(r->last_key, r->last_key_size, record.key, record.key_size) >= 0)
            return bad(r, offset, "the records' order");
        memcpy(r->last_key, record.key, record.key_size);
        r->last_key_size = record.key_size;
        r->summary.records++;
        if (r->visitor->record)
            result = r->visitor->record(r->visitor->context, &record, begin,
                                        (size_t)(bytes.at - begin), offset);
    }
    return result;
}

static int take_entries(struct reading *r, uint64_t at)
{
    const uint8_t *data = r->block.data;
    size_t left = r->block.length;
    int result = 0;
    r->has_entries = true;
    while (!result && left) {
        struct store_entry e;
        uint64_t offset = at + (uint64_t)(data - r->block.data);
        if (store_entry_verify(data, left, &e) || !backup_continues(&r->summary.end, &e))
            return bad(r, offset, "an entry of the log");
        r->summary.end = backup_after(&e);
        r->summary.entries++;
        if (r->visitor->entry)
            result = r->visitor->entry(r->visitor->context, &e, data, offset);
        data += e.length;
        left -= e.length;
    }
    return result;
}

/* Its hash is of all before the hash. */
static int take_last(struct reading *r, uint64_t at)
{
    uint8_t hash[WIRE_HASH_BYTES];
    struct reader t = reader_of(r->block.data, r->block.length);
    const struct backup_summary *s = &r->summary;
    wire_hasher_add(r->hasher, r->block.data, r->block.length - WIRE_HASH_BYTES);
    wire_hasher_get(r->hasher, hash);
    bool same = reader_u64(&t) == s->records && reader_u64(&t) == s->entries &&
                reader_u64(&t) == s->end.index && reader_u64(&t) == s->end.term &&
                reader_u64(&t) == s->end.timestamp_us && reader_u32(&t) == s->end.crc;
    if (!same)
        return bad(r, at, "it does not hold what its end says");
    if (memcmp(t.at, hash, sizeof(hash)))
        return bad(r, at, "its hash over all");
    if (r->offset != r->size)
        return bad(r, r->offset, "bytes after its end");
    return 0;
}

static int read_block(struct reading *r, bool *ret_last)
{
    uint8_t head[BACKUP_BLOCK_HEADER];
    uint64_t at = r->offset;
    int result = read_bytes(r, head, sizeof(head));
    if (result)
        return result;
    uint8_t kind = head[0];
    uint32_t length = get_u32(head + 1);
    *ret_last = kind == BACKUP_LAST;
    if (kind < BACKUP_RECORDS || kind > BACKUP_LAST || !length ||
        length > BACKUP_BLOCK_BYTES || (*ret_last && length != BACKUP_TRAILER))
        return bad(r, at, "the head of a block");
    if (length > r->size - min_u64(r->offset, r->size))
        return bad(r, r->size, "its end is missing");
    buf_clear(&r->block);
    if (!buf_extend(&r->block, length))
        return node_error(r->error, -ENOMEM, "out of memory");
    at = r->offset;
    result = read_bytes(r, r->block.data, length);
    if (result)
        return result;
    wire_hasher_add(r->hasher, head, sizeof(head));
    if (*ret_last)
        return take_last(r, at);
    wire_hasher_add(r->hasher, r->block.data, length);
    return kind == BACKUP_RECORDS ? take_records(r, at) : take_entries(r, at);
}

static int open_file(struct reading *r)
{
    struct stat st;
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &st))
        return node_error(r->error, -errno, "cannot read %s: %s", r->path,
                          strerror(errno));
    r->size = r->summary.bytes = (uint64_t)st.st_size;
    r->hasher = wire_hasher_new();
    return r->hasher ? 0 : node_error(r->error, -ENOMEM, "out of memory");
}

int backup_read(const char *path, const struct backup_visitor *visitor,
                struct backup_summary *ret, char error[NODE_ERROR_BYTES])
{
    struct reading *r = calloc(1, sizeof(*r));
    if (!r)
        return node_error(error, -ENOMEM, "out of memory");
    *r = (struct reading){.visitor = visitor, .path = path, .error = error, .fd = -1};
    int result = open_file(r);
    if (!result)
        result = read_head(r);
    if (!result)
        result = visit_head(r);
    for (bool last = false; !result && !last;)
        result = read_block(r, &last);
    if (!result)
        *ret = r->summary;
    if (r->fd >= 0)
        close(r->fd);
    wire_hasher_free(r->hasher);
    buf_release(&r->block);
    free(r);
    return result;
}
