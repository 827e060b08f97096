/* hint.c - writes hints; their format is in hint.h. */
#include "hint.h"

#include <fcntl.h>

void hint_path(struct path *ret, const char *directory, uint64_t file_id)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log/%016llx.hint", directory,
             (unsigned long long)file_id);
}

static void hint_new_path(struct path *ret, const char *directory, uint64_t file_id)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log/%016llx.hint.new", directory,
             (unsigned long long)file_id);
}

/* ---- Writing ----------------------------------------------------------------------- */

struct hint_writer {
    struct store *s;
    struct hint_info info;
    int fd;         /* -1: finished */
    struct buf out; /* not written yet; it goes to `out_offset` */
    uint64_t out_offset;
    int block_kind;  /* of the open block; 0: none */
    size_t block_at; /* where it begins in `out` */
    struct buf index;
    uint32_t blocks;
    uint64_t entries_at;
    uint8_t last_key[LIMIT_KEY_BYTES];
    uint32_t last_size;
};

int hint_writer_new(struct store *s, const struct hint_info *info,
                    struct hint_writer **ret)
{
    struct hint_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    struct path path;
    hint_new_path(&path, s->path, info->file_id);
    w->s = s;
    w->info = *info;
    w->info.records = w->info.tombstones = w->info.entries = 0;
    w->info.end = (struct chain){0};
    w->out_offset = SEGMENT_HEADER;
    w->fd = s->io->open(s->io->context, path.text, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (w->fd < 0) {
        int rc = w->fd;
        free(w);
        return rc;
    }
    *ret = w;
    return 0;
}

void hint_writer_set_bytes(struct hint_writer *w, uint64_t data_bytes)
{
    w->info.data_bytes = data_bytes;
}

static uint64_t writer_offset(const struct hint_writer *w)
{
    return w->out_offset + w->out.length;
}

static int close_block(struct hint_writer *w)
{
    if (w->out.failed || w->index.failed)
        return -ENOMEM;
    if (w->block_kind == 0)
        return 0;
    uint8_t *block = w->out.data + w->block_at;
    size_t length = w->out.length - w->block_at - 8;
    put_u32(block, (uint32_t)length);
    block[8] = (uint8_t)w->block_kind;
    put_u32(block + 4, crc32_of(0, block + 8, length));
    w->block_kind = 0;
    if (w->out.length < PIECE_BYTES)
        return 0;
    return write_piece(w->s->io, w->fd, &w->out, &w->out_offset);
}

static void open_block(struct hint_writer *w, int kind)
{
    w->block_kind = kind;
    w->block_at = w->out.length;
    buf_extend(&w->out, BLOCK_HEADER);
}

/* The open block has this kind, and room for an item. */
static int need_block(struct hint_writer *w, int kind, bool *ret_begun)
{
    *ret_begun = false;
    if (w->block_kind == kind && w->out.length - w->block_at < BLOCK_FULL)
        return 0;
    int rc = close_block(w);
    if (rc == 0)
        open_block(w, kind);
    *ret_begun = true;
    return rc;
}

int hint_writer_record(struct hint_writer *w, const struct hint_record *record)
{
    bool begun, tombstone = record->value_size == STORE_TOMBSTONE;
    ensure(record->key_size > 0 && record->key_size <= LIMIT_KEY_BYTES);
    ensure(w->info.entries == 0);
    ensure(key_compare(w->last_key, w->last_size, record->key, record->key_size) < 0);
    int rc = need_block(w, BLOCK_RECORDS, &begun);
    if (rc != 0)
        return rc;
    if (begun) {
        w->blocks++;
        buf_u64(&w->index, w->out_offset + w->block_at);
        buf_string(&w->index, record->key, record->key_size);
    }
    buf_u64(&w->out, record->timestamp_us);
    buf_u32(&w->out, record->offset);
    buf_u32(&w->out, record->value_size);
    buf_string(&w->out, record->key, record->key_size);
    if (record->value_size <= LIMIT_KEYDIR_INLINE_BYTES)
        buf_bytes(&w->out, record->value, record->value_size);
    memcpy(w->last_key, record->key, record->key_size);
    w->last_size = record->key_size;
    w->info.records++;
    w->info.tombstones += tombstone;
    return w->out.failed ? -ENOMEM : 0;
}

int hint_writer_entry(struct hint_writer *w, const struct store_entry *entry,
                      uint32_t offset)
{
    bool begun;
    ensure(w->info.kind == SEGMENT_LOG);
    int rc = need_block(w, BLOCK_ENTRIES, &begun);
    if (rc != 0)
        return rc;
    if (w->info.entries == 0) {
        w->entries_at = w->out_offset + w->block_at;
        w->info.first_index = entry->index;
        w->info.prev_term = entry->prev_term;
        w->info.prev_crc = entry->prev_crc;
    }
    ensure(entry->index == w->info.first_index + w->info.entries);
    buf_u32(&w->out, offset);
    buf_u32(&w->out, entry->crc);
    buf_u64(&w->out, entry->timestamp_us);
    buf_u64(&w->out, entry->term);
    buf_u32(&w->out, entry->record_count);
    buf_u64(&w->out, entry->session);
    buf_u64(&w->out, entry->request);
    buf_bytes(&w->out, entry->result, sizeof(entry->result));
    w->info.entries++;
    w->info.end = chain_after(entry);
    return w->out.failed ? -ENOMEM : 0;
}

static void put_trailer(struct hint_writer *w)
{
    const struct hint_info *info = &w->info;
    uint64_t entries_at = info->entries > 0 ? w->entries_at : writer_offset(w);
    open_block(w, BLOCK_TRAILER);
    buf_u64(&w->out, info->records);
    buf_u64(&w->out, info->tombstones);
    buf_u64(&w->out, info->entries);
    buf_u64(&w->out, info->first_index);
    buf_u64(&w->out, info->prev_term);
    buf_u32(&w->out, info->prev_crc);
    buf_u64(&w->out, info->end.term);
    buf_u64(&w->out, info->end.timestamp_us);
    buf_u32(&w->out, info->end.crc);
    buf_u64(&w->out, entries_at);
    buf_u32(&w->out, w->blocks);
    buf_bytes(&w->out, w->index.data, w->index.length);
}

static int put_end(struct hint_writer *w)
{
    int rc = close_block(w);
    uint64_t trailer_at = writer_offset(w);
    if (rc == 0) {
        put_trailer(w);
        rc = close_block(w);
    }
    uint8_t end[END_BYTES];
    put_u64(end, trailer_at);
    put_u32(end + 8, crc32_of(0, end, 8));
    buf_bytes(&w->out, end, sizeof(end));
    return rc == 0 ? write_gathered(w->s->io, w->fd, &w->out, &w->out_offset) : rc;
}

static int put_header(struct hint_writer *w)
{
    uint8_t head[SEGMENT_HEADER] = {0};
    memcpy(head, HINT_MAGIC, HINT_MAGIC_BYTES);
    put_u32(head + 8, w->s->format);
    put_u32(head + 12, SEGMENT_HEADER);
    memcpy(head + 16, w->s->cluster_id, STORE_CLUSTER_ID_BYTES);
    put_u64(head + 32, w->info.file_id);
    put_u64(head + 40, w->info.data_bytes);
    put_u32(head + 48, w->info.kind);
    put_u32(head + 60, crc32_of(0, head, 60));
    struct iovec iov = {head, sizeof(head)};
    return write_full(w->s->io, w->fd, &iov, 1, 0);
}

int hint_writer_finish(struct hint_writer *w, uint64_t *ret_bytes)
{
    const struct store_io *io = w->s->io;
    struct path from, to;
    hint_new_path(&from, w->s->path, w->info.file_id);
    hint_path(&to, w->s->path, w->info.file_id);
    int rc = put_end(w);
    if (rc == 0)
        rc = put_header(w);
    if (rc == 0)
        rc = io->sync_all(io->context, w->fd);
    if (rc == 0)
        rc = io->rename(io->context, from.text, to.text);
    if (rc != 0)
        return rc;
    io->close(io->context, w->fd);
    w->fd = -1;
    *ret_bytes = w->out_offset;
    return 0;
}

void hint_writer_free(struct hint_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0) {
        const struct store_io *io = w->s->io;
        struct path path;
        hint_new_path(&path, w->s->path, w->info.file_id);
        io->close(io->context, w->fd);
        io->unlink(io->context, path.text);
    }
    buf_release(&w->out);
    buf_release(&w->index);
    free(w);
}
