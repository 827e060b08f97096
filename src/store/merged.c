/*
 * merged.c - merged files: what stays of former files, records as they were, without
 * entries around them.
 *
 *   0  magic "tierceMS"            32  file_id u64
 *   8  version u32                 40  reserved, 20 zeros
 *  12  header_size u32, 64         60  crc32 u32, over bytes 0-59
 *  16  cluster_id, 16 bytes
 *
 * Then records without a gap to the file's end, by ascending key, none twice. A tombstone
 * among them hides an older record in another merged file.
 */
#include "store_internal.h"

#include <fcntl.h>

static const char magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'M', 'S'};

void merged_head_encode(uint8_t to[SEGMENT_HEADER],
                        const uint8_t cluster_id[STORE_CLUSTER_ID_BYTES], uint32_t format,
                        uint64_t file_id)
{
    memset(to, 0, SEGMENT_HEADER);
    memcpy(to, magic, sizeof(magic));
    put_u32(to + 8, format);
    put_u32(to + 12, SEGMENT_HEADER);
    memcpy(to + 16, cluster_id, STORE_CLUSTER_ID_BYTES);
    put_u64(to + 32, file_id);
    put_u32(to + 60, crc32_of(0, to, 60));
}

int merged_head_decode(const uint8_t *data, size_t length, uint32_t newest,
                       uint8_t ret_cluster_id[STORE_CLUSTER_ID_BYTES],
                       uint64_t *ret_file_id)
{
    if (length < SEGMENT_HEADER || memcmp(data, magic, sizeof(magic)) != 0)
        return -EBADMSG;
    uint32_t size = get_u32(data + 12);
    if (size < SEGMENT_HEADER || size > length ||
        get_u32(data + size - 4) != crc32_of(0, data, size - 4))
        return -EBADMSG;
    int rc = format_check(get_u32(data + 8), newest);
    if (rc != 0)
        return rc;
    if (size != SEGMENT_HEADER || !all_zero(data + 40, 20))
        return -EBADMSG;
    memcpy(ret_cluster_id, data + 16, STORE_CLUSTER_ID_BYTES);
    *ret_file_id = get_u64(data + 32);
    return 0;
}

void merged_path(struct path *ret, const char *directory, uint64_t file_id)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log/%016llx.mrg", directory,
             (unsigned long long)file_id);
}

static void merged_new_path(struct path *ret, const char *directory, uint64_t file_id)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log/%016llx.mrg.new", directory,
             (unsigned long long)file_id);
}

/* ---- Writing ----------------------------------------------------------------------- */

struct merged_writer {
    struct store *s;
    int fd; /* -1: finished */
    struct manifest_file file;
    struct buf out; /* not written yet */
    uint64_t out_offset;
    struct hint_writer *hint;
};

int merged_writer_new(struct store *s, uint64_t file_id, struct merged_writer **ret)
{
    struct merged_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    struct path path;
    merged_new_path(&path, s->path, file_id);
    w->s = s;
    w->file.file_id = file_id;
    w->file.bytes = SEGMENT_HEADER;
    uint8_t head[SEGMENT_HEADER];
    merged_head_encode(head, s->cluster_id, s->format, file_id);
    buf_bytes(&w->out, head, sizeof(head));
    struct hint_info info = {.kind = SEGMENT_MERGED, .file_id = file_id};
    w->fd = s->io->open(s->io->context, path.text, O_RDWR | O_CREAT | O_TRUNC, 0600);
    int rc = w->fd < 0 ? w->fd : hint_writer_new(s, &info, &w->hint);
    if (rc != 0) {
        merged_writer_free(w);
        return rc;
    }
    *ret = w;
    return 0;
}

static void count(struct manifest_file *file, const struct hint_record *record,
                  size_t length)
{
    if (file->records == 0 || record->timestamp_us < file->min_timestamp_us)
        file->min_timestamp_us = record->timestamp_us;
    file->max_timestamp_us = max_u64(file->max_timestamp_us, record->timestamp_us);
    file->records++;
    file->tombstones += record->value_size == STORE_TOMBSTONE;
    file->bytes += length;
}

int merged_writer_put(struct merged_writer *w, const void *record, size_t length,
                      uint32_t *ret_offset)
{
    const uint8_t *data = record;
    if (w->file.records > 0 && w->file.bytes + length > w->s->segment_bytes)
        return -EFBIG;
    ensure(w->file.bytes + length <= UINT32_MAX);
    struct hint_record hint = {.key = data + STORE_RECORD_HEADER,
                               .key_size = get_u32(data + 12),
                               .timestamp_us = get_u64(data + 4),
                               .offset = (uint32_t)w->file.bytes,
                               .value_size = get_u32(data + 16)};
    uint64_t value_size = hint.value_size == STORE_TOMBSTONE ? 0 : hint.value_size;
    ensure(length == STORE_RECORD_HEADER + hint.key_size + value_size);
    if (hint.value_size <= LIMIT_KEYDIR_INLINE_BYTES)
        hint.value = hint.key + hint.key_size;
    buf_bytes(&w->out, record, length);
    int rc = w->out.failed ? -ENOMEM : hint_writer_record(w->hint, &hint);
    if (rc == 0 && w->out.length >= PIECE_BYTES)
        rc = write_piece(w->s->io, w->fd, &w->out, &w->out_offset);
    if (rc != 0)
        return rc;
    if (ret_offset)
        *ret_offset = hint.offset;
    count(&w->file, &hint, length);
    return 0;
}

uint64_t merged_writer_bytes(const struct merged_writer *w)
{
    return w->file.bytes;
}

/* The data file has its name first: a hint without its file means nothing. */
int merged_writer_finish(struct merged_writer *w, struct manifest_file *ret,
                         uint64_t *ret_hint_bytes)
{
    const struct store_io *io = w->s->io;
    struct path from, to;
    merged_new_path(&from, w->s->path, w->file.file_id);
    merged_path(&to, w->s->path, w->file.file_id);
    int rc = write_gathered(io, w->fd, &w->out, &w->out_offset);
    if (rc == 0)
        rc = io->sync_all(io->context, w->fd);
    if (rc == 0)
        rc = io->rename(io->context, from.text, to.text);
    if (rc != 0)
        return rc;
    io->close(io->context, w->fd);
    w->fd = -1;
    hint_writer_set_bytes(w->hint, w->file.bytes);
    uint64_t hint_bytes;
    rc = hint_writer_finish(w->hint, &hint_bytes);
    if (rc != 0)
        return rc;
    *ret = w->file;
    *ret_hint_bytes = hint_bytes;
    return 0;
}

void merged_writer_free(struct merged_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0) {
        const struct store_io *io = w->s->io;
        struct path path;
        merged_new_path(&path, w->s->path, w->file.file_id);
        io->close(io->context, w->fd);
        io->unlink(io->context, path.text);
    }
    hint_writer_free(w->hint);
    buf_release(&w->out);
    free(w);
}
