/*
 * repair.c - a record or an entry that a peer sent is written back in place (G9).
 *
 * It is named by (key, timestamp) or by its index: files differ between nodes, what is in
 * them does not. The log thread writes whole blocks of 4 KiB, because a block that the
 * disk cannot read any more is replaced only by a write of all of it; what is around the
 * record is written as it was read. Then it is synced, read back and compared.
 *
 * A record is the right one when its key, timestamp and checksum are: a timestamp is
 * given once. An entry is when the chain says so: its neighbour's prev_crc is its
 * checksum, or it continues its other neighbour.
 *
 * Where writing fails in a file that nothing is appended to, the damage stays and is
 * counted. In the active segment it is the log's failure, and final.
 */
#include "store_internal.h"

enum { BLOCK_BYTES = 4096 };

/* ---- For a peer -------------------------------------------------------------------- */

/* In a read-side section. What is small is in memory, and good whatever the disk says. */
int read_current(const struct store *s, const struct keydir_node *node, struct buf *to)
{
    const uint8_t *value = keydir_value(node);
    if (!value)
        return read_raw(s, node, 0, to);
    record_encode(to, node->timestamp_us, keydir_key(node), keydir_key_size(node), value,
                  node->value_size);
    return to->failed ? -ENOMEM : 0;
}

static int raw_once(struct store *s, const void *key, size_t key_size,
                    uint64_t timestamp_us, struct buf *to)
{
    const struct keydir_node *node = keydir_find(store_keydir(s), key, key_size);
    if (!node || node->timestamp_us != timestamp_us)
        return -ENOENT;
    return read_current(s, node, to);
}

int store_get_raw(struct store *s, const void *key, size_t key_size,
                  uint64_t timestamp_us, struct buf *to)
{
    int rc = -EBADMSG;
    for (int attempt = 0; attempt < 2 && rc == -EBADMSG; attempt++) {
        do {
            reading_begin();
            rc = raw_once(s, key, key_size, timestamp_us, to);
            reading_end();
        } while (rc == -ESTALE);
        if (rc == -EIO)
            rc = -EBADMSG;
    }
    if (rc == -EBADMSG)
        damage_found_record(s, key, key_size, timestamp_us);
    return rc;
}

/* ---- The loop ---------------------------------------------------------------------- */

void store_damage_stays(struct store *s, const struct store_damage *damage)
{
    damage_stays(s, damage);
}

static struct op *add_repair(struct store *s, struct segment *segment, uint64_t offset,
                             const void *data, size_t length)
{
    struct store_bytes *bytes = store_bytes_of(data, length);
    if (!bytes || job_reserve(s, 1) != 0) {
        store_bytes_unref(bytes);
        return NULL;
    }
    struct op *op = job_add(s, OP_REPAIR);
    op->segment = segment_ref(segment);
    op->offset = offset;
    op->bytes = bytes;
    op->active = segment == store_active(s);
    return op;
}

void repair_here(struct store *s, struct segment *segment, uint32_t offset,
                 const void *record, size_t length)
{
    struct store_record r;
    struct reader reader = reader_of(record, length);
    ensure(store_record_read(&reader, &r) == 0 && reader_done(&reader));
    if (add_repair(s, segment, offset, record, length))
        damage_found_here(s, &r);
}

int store_repair_record(struct store *s, const void *record, size_t length)
{
    struct store_record r;
    struct reader reader = reader_of(record, length);
    if (store_record_read(&reader, &r) != 0 || !reader_done(&reader) || !r.value)
        return -EBADMSG;
    const struct keydir_node *node = keydir_find(s->keydir, r.key, r.key_size);
    if (!node || node->timestamp_us != r.timestamp_us) {
        damage_ended_record(s, &r, false);
        return -ENOENT;
    }
    if (node->value_size != r.value_size)
        return -EBADMSG;
    uint64_t place = keydir_place(node);
    struct segment *segment = place_segment(s->slots, place);
    return add_repair(s, segment, place_offset(place), record, length) ? 0 : -ENOMEM;
}

static bool is_follower(const struct store_entry *next, const struct store_entry *entry)
{
    return next->index == entry->index + 1 && next->prev_term == entry->term &&
           next->prev_crc == entry->crc;
}

enum proof { PROOF_NONE, PROOF_FOR, PROOF_AGAINST };

/* By what is in memory of the chain. */
static enum proof prove_in_memory(const struct store *s, const struct store_entry *entry)
{
    if (entry->index == s->applied.index)
        return entry->crc == s->applied.crc && entry->term == s->applied.term
                   ? PROOF_FOR
                   : PROOF_AGAINST;
    const struct tail_entry *next = tail_at(&s->tail, entry->index + 1);
    struct store_entry head;
    if (!next)
        return PROOF_NONE;
    ensure(store_entry_decode(next->bytes->data, next->bytes->length, &head) == 0);
    return is_follower(&head, entry) ? PROOF_FOR : PROOF_AGAINST;
}

/* Where the log thread finds the entries around it. */
static void add_neighbours(struct store *s, struct op *op,
                           const struct store_entry *entry)
{
    uint64_t next = entry->index + 1, former = entry->index - 1;
    op->index = entry->index;
    op->next = segment_ref(store_segment_of(s, next));
    if (former == s->base.index) {
        op->before = s->base;
        return;
    }
    op->former = segment_ref(store_segment_of(s, former));
    op->former_offset = op->former->offsets[former - op->former->first_index];
}

int store_repair_entry(struct store *s, const void *entry, size_t length)
{
    struct store_entry head;
    if (store_entry_verify(entry, length, &head) != 0 || head.length != length)
        return -EBADMSG;
    if (head.index <= s->base.index || head.index > s->applied.index) {
        damage_ended_entry(s, head.index, false);
        return -ENOENT;
    }
    struct segment *segment = store_segment_of(s, head.index);
    enum proof proof = prove_in_memory(s, &head);
    if (segment_entry_length(segment, head.index) != length || proof == PROOF_AGAINST)
        return -EBADMSG;
    struct op *op = add_repair(
        s, segment, segment->offsets[head.index - segment->first_index], entry, length);
    if (!op)
        return -ENOMEM;
    op->index = head.index;
    if (proof == PROOF_NONE)
        add_neighbours(s, op, &head);
    return 0;
}

/* ---- The log thread ---------------------------------------------------------------- */

/* The neighbour that follows is the better witness: it names this very entry. */
static bool is_proven(const struct store_io *io, const struct op *op)
{
    uint8_t data[STORE_ENTRY_HEADER];
    struct store_entry entry, other;
    ensure(entry_head_decode(op->bytes->data, op->bytes->length, &entry) == 0);
    uint64_t after =
        op->next == op->segment ? op->offset + op->bytes->length : SEGMENT_HEADER;
    if (read_full(io, op->next->fd, data, sizeof(data), after) == sizeof(data) &&
        entry_head_decode(data, sizeof(data), &other) == 0 &&
        other.index == entry.index + 1)
        return is_follower(&other, &entry);
    struct chain before = op->before;
    if (op->former) {
        if (read_full(io, op->former->fd, data, sizeof(data), op->former_offset) !=
                sizeof(data) ||
            entry_head_decode(data, sizeof(data), &other) != 0 ||
            other.index + 1 != entry.index)
            return false;
        return is_follower(&entry, &other);
    }
    return entry.prev_term == before.term && entry.prev_crc == before.crc;
}

struct blocks {
    uint8_t *data;
    uint64_t first;  /* offset in the file */
    size_t length;   /* whole blocks, as far as the file goes */
    bool unreadable; /* one could not be read: it is zeros here */
};

static int blocks_read(const struct store_io *io, const struct op *op, struct blocks *b)
{
    uint64_t end = op->offset + op->bytes->length, size;
    int rc = io->size(io->context, op->segment->fd, &size);
    if (rc != 0)
        return rc;
    b->first = op->offset - op->offset % BLOCK_BYTES;
    uint64_t rounded = (end + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    b->length = (size_t)(max_u64(end, min_u64(rounded, size)) - b->first);
    b->data = calloc(1, b->length);
    if (!b->data)
        return -ENOMEM;
    for (size_t at = 0; at < b->length; at += BLOCK_BYTES) {
        size_t n = min_u64(BLOCK_BYTES, b->length - at);
        if (read_full(io, op->segment->fd, b->data + at, n, b->first + at) < 0) {
            memset(b->data + at, 0, n);
            b->unreadable = true;
        }
    }
    return 0;
}

static int blocks_write(struct store_job *job, const struct op *op, struct blocks *b)
{
    const struct store_io *io = job->store->io;
    struct iovec iov = {b->data, b->length};
    int rc = write_full(io, op->segment->fd, &iov, 1, b->first);
    if (rc == 0)
        rc = io->sync(io->context, op->segment->fd);
    job->bytes_written += b->length;
    job->syncs++;
    if (rc != 0)
        return rc;
    uint8_t *again = malloc(b->length);
    if (!again)
        return -ENOMEM;
    ssize_t n = read_full(io, op->segment->fd, again, b->length, b->first);
    bool same = n == (ssize_t)b->length && memcmp(again, b->data, b->length) == 0;
    free(again);
    return same ? 0 : -EIO;
}

int repair_run(struct store_job *job, struct op *op, char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = job->store->io;
    struct blocks b = {0};
    bool write = false;
    int rc = op->next && !is_proven(io, op) ? -EBADMSG : blocks_read(io, op, &b);
    if (rc == 0) {
        uint8_t *place = b.data + (op->offset - b.first);
        write = b.unreadable || memcmp(place, op->bytes->data, op->bytes->length) != 0;
        memcpy(place, op->bytes->data, op->bytes->length);
    }
    if (write)
        rc = blocks_write(job, op, &b);
    free(b.data);
    op->failed = rc != 0;
    if (rc == 0 || !write || !op->active)
        return 0;
    struct path path;
    segment_path(&path, job->store->path, op->segment->file_id);
    return store_fail_call(error, rc, "repair", path.text);
}

/* ---- The loop again ---------------------------------------------------------------- */

static int record_ended(void *arg, const struct store_record *record, uint32_t offset)
{
    damage_ended_record(arg, record, true);
    return 0;
}

static void finish_entry(struct store *s, const struct op *op)
{
    struct store_damage damage = {.kind = STORE_DAMAGED_ENTRY, .index = op->index};
    if (op->failed) {
        damage_stays(s, &damage);
        return;
    }
    damage_ended_entry(s, op->index, true);
    store_entry_each(op->bytes->data, op->bytes->length, record_ended, s);
}

static void finish_record(struct store *s, const struct op *op)
{
    struct store_record record;
    struct reader reader = reader_of(op->bytes->data, op->bytes->length);
    ensure(store_record_read(&reader, &record) == 0);
    if (!op->failed) {
        damage_ended_record(s, &record, true);
        return;
    }
    struct store_damage damage = {.kind = STORE_DAMAGED_RECORD,
                                  .key_size = record.key_size,
                                  .timestamp_us = record.timestamp_us};
    memcpy(damage.key, record.key, record.key_size);
    damage_stays(s, &damage);
}

bool repair_finish(struct store *s, const struct op *op)
{
    if (op->index)
        finish_entry(s, op);
    else
        finish_record(s, op);
    if (!op->failed)
        op->segment->hurt_until_us = 0;
    return !op->failed;
}

/* ---- A copy of everything ---------------------------------------------------------- */

/* The first live record above `after`, if it fits: 1; 0: it does not, or there is none.
 */
static int copy_next(struct store *s, const struct buf *after, size_t room, bool any,
                     struct buf *to, struct buf *ret_last)
{
    struct keydir_cursor cursor;
    const struct keydir_node *node =
        keydir_seek(store_keydir(s), &cursor, after->data, after->length);
    if (node && after->length > 0 &&
        key_compare(keydir_key(node), keydir_key_size(node), after->data,
                    after->length) == 0)
        node = keydir_next(&cursor);
    if (!node || (any && keydir_record_bytes(node) > room))
        return 0;
    int rc = read_current(s, node, to);
    if (rc == -EIO)
        rc = -EBADMSG;
    if (rc == -EBADMSG)
        damage_found_record(s, keydir_key(node), keydir_key_size(node),
                            node->timestamp_us);
    if (rc != 0)
        return rc;
    buf_clear(ret_last);
    buf_bytes(ret_last, keydir_key(node), keydir_key_size(node));
    return ret_last->failed ? -ENOMEM : 1;
}

int store_copy(struct store *s, const void *after, size_t after_size, size_t max_bytes,
               struct buf *to, struct buf *ret_last)
{
    struct buf last = {0};
    size_t start = to->length;
    buf_bytes(&last, after, after_size);
    int rc = last.failed ? -ENOMEM : 1;
    buf_clear(ret_last);
    while (rc > 0 || rc == -ESTALE) {
        size_t done = to->length - start;
        reading_begin();
        rc = copy_next(s, &last, max_bytes - min_u64(done, max_bytes), done > 0, to,
                       ret_last);
        reading_end();
        if (rc > 0) {
            buf_clear(&last);
            buf_bytes(&last, ret_last->data, ret_last->length);
            rc = last.failed ? -ENOMEM : 1;
        }
    }
    buf_release(&last);
    /* What was copied is given; the damage is met again at the start of the next call. */
    return rc == -EBADMSG && to->length > start ? 0 : rc;
}
