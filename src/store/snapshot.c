/*
 * snapshot.c - the sender's side of a snapshot: the merged files as they are published,
 * and the log after them.
 *
 * A snapshot holds references to the files, so that a merge meanwhile takes only their
 * names, and pins the log behind them, so that the receiver can go on from it. What is
 * described is the manifest's own bytes. What is read is verified on its way, as far as
 * it is read in order: rot is then found, and repaired, where it is, and not by a
 * receiver that asks again and again.
 */
#include "store_internal.h"

/* Follows a merged file's records through pieces of it. */
struct verifier {
    uint64_t at; /* of the file's content: what comes next */
    uint8_t head[STORE_RECORD_HEADER];
    size_t have;   /* bytes of the head */
    uint64_t left; /* bytes of key and value that are still to come */
    uint32_t crc;
};

struct store_snapshot {
    struct store *s;
    struct buf description;
    struct segment **files; /* a reference to each */
    struct verifier *verifiers;
    size_t count;
    struct store_pin *pin; /* the log after it */
    pthread_mutex_t lock;  /* of verifiers */
};

/* ---- Verifying in passing ---------------------------------------------------------- */

/* The head is complete; false: it is none. */
static bool take_head(struct verifier *v)
{
    uint32_t key_size = get_u32(v->head + 12), value_size = get_u32(v->head + 16);
    if (value_size == STORE_TOMBSTONE)
        value_size = 0;
    if (key_size == 0 || key_size > LIMIT_KEY_BYTES || value_size > LIMIT_ENTRY_BYTES)
        return false;
    v->left = (uint64_t)key_size + value_size;
    v->crc = crc32_of(0, v->head + 4, STORE_RECORD_HEADER - 4);
    return true;
}

static bool verify_piece(struct verifier *v, const uint8_t *data, size_t length)
{
    v->at += length;
    while (length > 0) {
        size_t n;
        if (v->have < STORE_RECORD_HEADER) {
            n = min_u64(length, STORE_RECORD_HEADER - v->have);
            memcpy(v->head + v->have, data, n);
            v->have += n;
            if (v->have == STORE_RECORD_HEADER && !take_head(v))
                return false;
        } else {
            n = min_u64(length, v->left);
            v->crc = crc32_of(v->crc, data, n);
            v->left -= n;
            if (v->left == 0) {
                if (v->crc != get_u32(v->head))
                    return false;
                v->have = 0;
            }
        }
        data += n;
        length -= n;
    }
    return true;
}

/* Whether this piece is good, as far as can be told: one that is not the next in order is
 * not looked at. */
static bool verify(struct store_snapshot *snapshot, uint32_t file, uint64_t offset,
                   const uint8_t *data, size_t length)
{
    struct verifier *v = &snapshot->verifiers[file];
    bool good = true;
    pthread_mutex_lock(&snapshot->lock);
    if (offset == 0)
        *v = (struct verifier){0};
    struct verifier before = *v;
    if (offset == v->at)
        good = verify_piece(v, data, length);
    if (!good)
        *v = before; /* it is read again, once it is repaired */
    pthread_mutex_unlock(&snapshot->lock);
    return good;
}

/* ---- The interface ----------------------------------------------------------------- */

static int take_files(struct store *s, struct store_snapshot *snapshot)
{
    ensure(s->manifest.count == s->merged_count);
    snapshot->files = calloc(s->merged_count + 1, sizeof(*snapshot->files));
    snapshot->verifiers = calloc(s->merged_count + 1, sizeof(*snapshot->verifiers));
    if (!snapshot->files || !snapshot->verifiers)
        return -ENOMEM;
    for (; snapshot->count < s->merged_count; snapshot->count++) {
        struct segment *file = s->merged[snapshot->count];
        ensure(file->file_id == s->manifest.files[snapshot->count].file_id);
        snapshot->files[snapshot->count] = segment_ref(file);
    }
    return manifest_encode(&s->manifest, s->cluster_id, s->format,
                           &snapshot->description);
}

int store_snapshot_open(struct store *s, struct store_snapshot **ret)
{
    if (s->manifest.applied_index == 0)
        return -ENOENT;
    struct store_snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (!snapshot)
        return -ENOMEM;
    ensure(pthread_mutex_init(&snapshot->lock, NULL) == 0);
    snapshot->s = s;
    int rc = take_files(s, snapshot);
    if (rc == 0)
        rc = store_pin_log(s, s->manifest.merged.index + 1, &snapshot->pin);
    if (rc != 0) {
        store_snapshot_close(s, snapshot);
        return rc;
    }
    *ret = snapshot;
    return 0;
}

int store_snapshot_describe(const struct store_snapshot *snapshot, struct buf *to)
{
    buf_bytes(to, snapshot->description.data, snapshot->description.length);
    return to->failed ? -ENOMEM : 0;
}

int store_snapshot_read(struct store_snapshot *snapshot, uint32_t file, uint64_t offset,
                        size_t length, struct buf *to)
{
    if (file >= snapshot->count)
        return -ENOENT;
    struct segment *segment = snapshot->files[file];
    uint64_t size = segment->used - SEGMENT_HEADER;
    if (offset > size || length > size - offset || length > STORE_CHUNK_BYTES)
        return -EINVAL;
    size_t start = to->length;
    uint8_t *data = buf_extend(to, length);
    if (!data)
        return -ENOMEM;
    int rc = -EBADMSG;
    for (int attempt = 0; attempt < 2 && rc == -EBADMSG; attempt++) {
        ssize_t n =
            read_full(segment->io, segment->fd, data, length, SEGMENT_HEADER + offset);
        rc = n < 0                                           ? (int)n
             : (size_t)n < length                            ? -EBADMSG
             : !verify(snapshot, file, offset, data, length) ? -EBADMSG
                                                             : 0;
    }
    if (rc == -EBADMSG || rc == -EIO)
        scrub_suspect(snapshot->s, segment);
    if (rc != 0)
        to->length = start;
    return rc;
}

void store_snapshot_close(struct store *s, struct store_snapshot *snapshot)
{
    if (!snapshot)
        return;
    ensure(snapshot->s == s);
    store_unpin_log(s, snapshot->pin);
    for (size_t i = 0; i < snapshot->count; i++)
        segment_unref(snapshot->files[i]);
    if (snapshot->count > 0)
        s->dropped = true; /* they may be closed later than now */
    buf_release(&snapshot->description);
    pthread_mutex_destroy(&snapshot->lock);
    free(snapshot->verifiers);
    free(snapshot->files);
    free(snapshot);
}
