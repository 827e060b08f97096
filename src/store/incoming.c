/*
 * incoming.c - the receiver's side of a snapshot, until all of it has come. Then it is made
 * ready (incoming_ready.c) and installed (install.c).
 *
 *   DATA/incoming/STATE      whose files, which, and how much of each is synced; below
 *   DATA/incoming/ID.part    one of them, under the sender's file id: 64 bytes for the
 *                            header, which is written at the end, then what has come
 *
 * STATE, written as STATE.new, synced, renamed:
 *
 *   0  magic "tierceIN"            32  sender u64
 *   8  version u32                 40  count u32
 *  12  reserved u32, 0             44  received u64 of each file
 *  16  cluster_id, 16 bytes            description length u32, description
 *                                      crc32 u32, over all before it
 *
 * Nothing here counts for the store's state, and all of it may be lost. What STATE calls
 * received is on disk; an attempt that was cut goes on from there, file by file, as far
 * as the sender still has the same files. Nothing is believed before all is verified.
 */
#include "store_internal.h"

#include <fcntl.h>

static const char magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'I', 'N'};

enum { FIXED_BYTES = 44 };

#define SYNC_BYTES  ((uint64_t)2 << 20)   /* of a file, between two syncs */
#define STATE_BYTES ((uint64_t)300 << 20) /* it is read whole */

void incoming_path(struct path *ret, const char *directory, const char *name)
{
    snprintf(ret->text, sizeof(ret->text), "%s/incoming%s%s", directory, *name ? "/" : "",
             name);
}

void incoming_part_path(struct path *ret, const char *directory, uint64_t file_id)
{
    char name[32];
    snprintf(name, sizeof(name), "%016llx.part", (unsigned long long)file_id);
    incoming_path(ret, directory, name);
}

/* ---- STATE ------------------------------------------------------------------------- */

/* What STATE says; {0}: nothing. */
struct saved {
    uint64_t sender;
    uint64_t *received;
    struct manifest manifest;
};

static void saved_release(struct saved *saved)
{
    manifest_release(&saved->manifest);
    free(saved->received);
    *saved = (struct saved){0};
}

static int state_encode(const struct store_incoming *in, struct buf *to)
{
    buf_bytes(to, magic, sizeof(magic));
    buf_u32(to, in->s->format);
    buf_u32(to, 0);
    buf_bytes(to, in->s->cluster_id, STORE_CLUSTER_ID_BYTES);
    buf_u64(to, in->sender);
    buf_u32(to, (uint32_t)in->count);
    for (size_t i = 0; i < in->count; i++)
        buf_u64(to, in->files[i].synced);
    buf_u32(to, (uint32_t)in->description.length);
    buf_bytes(to, in->description.data, in->description.length);
    if (to->failed)
        return -ENOMEM;
    buf_u32(to, crc32_of(0, to->data, to->length));
    return to->failed ? -ENOMEM : 0;
}

static int state_parse(struct reader *r, const struct store *s, struct saved *ret)
{
    uint8_t described_cluster[STORE_CLUSTER_ID_BYTES];
    const uint8_t *cluster = reader_bytes(r, STORE_CLUSTER_ID_BYTES);
    ret->sender = reader_u64(r);
    uint32_t count = reader_u32(r);
    if (r->bad || memcmp(cluster, s->cluster_id, STORE_CLUSTER_ID_BYTES) != 0 ||
        count > reader_left(r) / 8)
        return -EBADMSG;
    ret->received = calloc((size_t)count + 1, sizeof(*ret->received));
    if (!ret->received)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        ret->received[i] = reader_u64(r);
    uint32_t length = reader_u32(r);
    const uint8_t *description = reader_bytes(r, length);
    if (!reader_done(r))
        return -EBADMSG;
    int rc = manifest_decode(description, length, s->format_newest, &ret->manifest,
                             described_cluster);
    return rc == 0 && ret->manifest.count != count ? -EBADMSG : rc;
}

static int state_decode(const uint8_t *data, size_t length, const struct store *s,
                        struct saved *ret)
{
    if (length < FIXED_BYTES + 4 || memcmp(data, magic, sizeof(magic)) != 0 ||
        format_check(get_u32(data + 8), s->format_newest) != 0 ||
        get_u32(data + length - 4) != crc32_of(0, data, length - 4))
        return -EBADMSG;
    struct reader r = reader_of(data + 16, length - 16 - 4);
    int rc = state_parse(&r, s, ret);
    if (rc != 0)
        saved_release(ret);
    return rc;
}

/* One that is missing or bad is as good as none. */
static int state_load(const struct store *s, struct saved *ret)
{
    struct path path;
    struct buf bytes = {0};
    incoming_path(&path, s->path, "STATE");
    int rc = file_read(s->io, path.text, STATE_BYTES, &bytes);
    if (rc == 0)
        rc = state_decode(bytes.data, bytes.length, s, ret);
    buf_release(&bytes);
    return rc == -ENOENT || rc == -EBADMSG || rc == -EPROTONOSUPPORT ? 0 : rc;
}

static int state_save(struct store_incoming *in, char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = in->s->io;
    struct path new_path, path, directory;
    struct buf bytes = {0};
    incoming_path(&new_path, in->s->path, "STATE.new");
    incoming_path(&path, in->s->path, "STATE");
    incoming_path(&directory, in->s->path, "");
    int rc = state_encode(in, &bytes);
    if (rc == 0)
        rc = file_write(io, new_path.text, &bytes);
    if (rc == 0)
        rc = io->rename(io->context, new_path.text, path.text);
    if (rc == 0)
        rc = io->sync_dir(io->context, directory.text);
    buf_release(&bytes);
    return rc == 0 ? 0 : store_fail_call(error, rc, "write", path.text);
}

/* ---- Beginning, or going on -------------------------------------------------------- */

static bool is_same_file(const struct manifest_file *a, const struct manifest_file *b)
{
    return a->file_id == b->file_id && a->bytes == b->bytes && a->records == b->records &&
           a->tombstones == b->tombstones && a->min_timestamp_us == b->min_timestamp_us &&
           a->max_timestamp_us == b->max_timestamp_us;
}

/* What is there already of files that the sender still has. */
static void take_over(struct store_incoming *in, const struct saved *saved)
{
    if (saved->sender != in->sender)
        return;
    for (size_t i = 0, k = 0; i < in->count; i++) {
        struct incoming_file *file = &in->files[i];
        while (k < saved->manifest.count &&
               saved->manifest.files[k].file_id < file->from.file_id)
            k++;
        if (k < saved->manifest.count &&
            is_same_file(&saved->manifest.files[k], &file->from))
            file->synced = saved->received[k];
    }
}

static bool is_wanted(const struct store_incoming *in, uint64_t file_id)
{
    for (size_t i = 0; i < in->count; i++) {
        if (in->files[i].from.file_id == file_id)
            return in->files[i].synced > 0;
    }
    return false;
}

static int gather_part(void *arg, const char *name)
{
    struct buf *ids = arg;
    uint8_t id[8];
    char hex[17] = {0};
    if (strlen(name) != 16 + 5 || strcmp(name + 16, ".part") != 0)
        return 0;
    memcpy(hex, name, 16);
    if (hex_parse(hex, id, sizeof(id)) == 0)
        buf_u64(ids, get_be64(id));
    return ids->failed ? -ENOMEM : 0;
}

/* Removes what of an earlier attempt is of no use to this one. */
static int remove_parts(struct store_incoming *in, bool all,
                        char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = in->s->io;
    struct path path;
    struct buf ids = {0};
    incoming_path(&path, in->s->path, "");
    int rc = io->list(io->context, path.text, gather_part, &ids);
    if (rc != 0)
        store_fail_call(error, rc, "read", path.text);
    for (size_t at = 0; rc == 0 && at < ids.length; at += 8) {
        uint64_t id = get_u64(ids.data + at);
        if (!all && is_wanted(in, id))
            continue;
        incoming_part_path(&path, in->s->path, id);
        rc = io->unlink(io->context, path.text);
        if (rc != 0)
            store_fail_call(error, rc, "remove", path.text);
    }
    buf_release(&ids);
    return rc;
}

static int open_part(struct store_incoming *in, struct incoming_file *file,
                     char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = in->s->io;
    struct path path;
    uint64_t size, content = file->from.bytes - SEGMENT_HEADER;
    incoming_part_path(&path, in->s->path, file->from.file_id);
    file->fd = io->open(io->context, path.text, O_RDWR | O_CREAT, 0600);
    if (file->fd < 0)
        return store_fail_call(error, file->fd, "open", path.text);
    int rc = io->size(io->context, file->fd, &size);
    if (rc != 0)
        return store_fail_call(error, rc, "look at", path.text);
    uint64_t there = size - min_u64(size, SEGMENT_HEADER);
    file->synced = min_u64(file->synced, min_u64(there, content));
    atomic_store(&file->received, file->synced);
    return 0;
}

static int check_room(const struct store_incoming *in, char error[STORE_ERROR_BYTES])
{
    const struct store *s = in->s;
    uint64_t free_bytes, total, all;
    uint64_t done = store_incoming_bytes(in, &all);
    int rc = s->io->space(s->io->context, s->path, &free_bytes, &total);
    if (rc != 0)
        return store_fail_call(error, rc, "look at the free space of", s->path);
    if (free_bytes >= all - done)
        return 0;
    return store_fail(error, -ENOSPC,
                      "no room in %s for the %llu MiB that are to come: free some space",
                      s->path, (unsigned long long)((all - done) >> 20));
}

static int begin(struct store_incoming *in, char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = in->s->io;
    struct path directory;
    struct saved saved = {0};
    incoming_path(&directory, in->s->path, "");
    int rc = io->mkdir(io->context, directory.text, 0700);
    if (rc == 0)
        rc = state_load(in->s, &saved);
    if (rc != 0)
        store_fail_call(error, rc, "use", directory.text);
    if (rc == 0) {
        take_over(in, &saved);
        rc = remove_parts(in, false, error);
    }
    for (size_t i = 0; rc == 0 && i < in->count; i++)
        rc = open_part(in, &in->files[i], error);
    if (rc == 0)
        rc = check_room(in, error);
    if (rc == 0)
        rc = state_save(in, error);
    saved_release(&saved);
    return rc;
}

static int describe(struct store_incoming *in, const void *description, size_t length,
                    char error[STORE_ERROR_BYTES])
{
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    int rc = manifest_decode(description, length, in->s->format_newest, &in->manifest,
                             cluster_id);
    if (rc == -ENOMEM)
        return store_fail(error, rc, "no memory for the description of a snapshot");
    if (rc != 0 || memcmp(cluster_id, in->s->cluster_id, sizeof(cluster_id)) != 0 ||
        in->manifest.merged.index == 0)
        return store_fail(error, -EPROTO,
                          "what a peer sent describes no snapshot of this cluster");
    size_t count = in->manifest.count;
    in->files = calloc(count + 1, sizeof(*in->files));
    buf_bytes(&in->description, description, length);
    if (!in->files || in->description.failed)
        return store_fail(error, -ENOMEM, "no memory for the description of a snapshot");
    for (; in->count < count; in->count++)
        in->files[in->count] =
            (struct incoming_file){.from = in->manifest.files[in->count], .fd = -1};
    return 0;
}

int store_incoming_open(struct store *s, const void *description, size_t length,
                        uint64_t sender, struct store_incoming **ret,
                        char error[STORE_ERROR_BYTES])
{
    struct store_incoming *in = calloc(1, sizeof(*in));
    if (!in)
        return store_fail(error, -ENOMEM, "no memory for a snapshot");
    in->s = s;
    in->sender = sender;
    int rc = describe(in, description, length, error);
    if (rc == 0)
        rc = begin(in, error);
    if (rc != 0) {
        store_incoming_free(in);
        return rc;
    }
    *ret = in;
    return 0;
}

/* ---- What comes -------------------------------------------------------------------- */

static uint64_t content_bytes(const struct incoming_file *file)
{
    return file->from.bytes - SEGMENT_HEADER;
}

bool store_incoming_ahead(const struct store_incoming *in, uint64_t skip,
                          uint32_t *ret_file, uint64_t *ret_offset, uint32_t *ret_length)
{
    for (size_t i = 0; i < in->count; i++) {
        uint64_t at = atomic_load(&in->files[i].received);
        uint64_t left = content_bytes(&in->files[i]) - at;
        uint64_t chunks = (left + STORE_CHUNK_BYTES - 1) / STORE_CHUNK_BYTES;
        if (skip < chunks) {
            *ret_file = (uint32_t)i;
            *ret_offset = at + skip * STORE_CHUNK_BYTES;
            *ret_length =
                (uint32_t)min_u64(left - skip * STORE_CHUNK_BYTES, STORE_CHUNK_BYTES);
            return true;
        }
        skip -= chunks;
    }
    return false;
}

bool store_incoming_next(const struct store_incoming *in, uint32_t *ret_file,
                         uint64_t *ret_offset, uint32_t *ret_length)
{
    return store_incoming_ahead(in, 0, ret_file, ret_offset, ret_length);
}

uint64_t store_incoming_bytes(const struct store_incoming *in, uint64_t *ret_total)
{
    uint64_t done = 0, total = 0;
    for (size_t i = 0; i < in->count; i++) {
        done += atomic_load(&in->files[i].received);
        total += content_bytes(&in->files[i]);
    }
    if (ret_total)
        *ret_total = total;
    return done;
}

void store_incoming_manifest(const struct store_incoming *in, struct store_manifest *ret)
{
    const struct manifest *m = &in->manifest;
    *ret = (struct store_manifest){.merged_index = m->merged.index,
                                   .merged_term = m->merged.term,
                                   .applied_index = m->applied_index,
                                   .applied_term = m->applied_term,
                                   .files = in->count};
    for (size_t i = 0; i < in->count; i++)
        ret->bytes += in->files[i].from.bytes;
}

/* Nothing is called received in STATE that is not on disk. */
static int sync_part(struct store_incoming *in, struct incoming_file *file,
                     const char *path, char error[STORE_ERROR_BYTES])
{
    int rc = in->s->io->sync_all(in->s->io->context, file->fd);
    if (rc != 0)
        return store_fail_call(error, rc, "sync", path);
    file->synced = atomic_load(&file->received);
    return state_save(in, error);
}

int incoming_drop(struct store_incoming *in, char error[STORE_ERROR_BYTES])
{
    struct path path;
    in->dropped = true;
    incoming_path(&path, in->s->path, "STATE");
    int rc = in->s->io->unlink(in->s->io->context, path.text);
    if (rc != 0 && rc != -ENOENT)
        return store_fail_call(error, rc, "remove", path.text);
    return remove_parts(in, true, error);
}

int store_incoming_write(struct store_incoming *in, uint32_t file_number, uint64_t offset,
                         const void *data, size_t length, char error[STORE_ERROR_BYTES])
{
    uint32_t next;
    uint64_t next_offset;
    uint32_t next_length;
    struct path path;
    if (!store_incoming_next(in, &next, &next_offset, &next_length) ||
        next != file_number || next_offset != offset || length == 0 ||
        length > next_length)
        return store_fail(error, -EINVAL, "a piece of a snapshot that is not the next");
    struct incoming_file *file = &in->files[file_number];
    incoming_part_path(&path, in->s->path, file->from.file_id);
    struct iovec iov = {(void *)data, length};
    int rc = write_full(in->s->io, file->fd, &iov, 1, SEGMENT_HEADER + offset);
    if (no_room(rc)) { /* what is here of it must not keep a full disk full */
        char ignored[STORE_ERROR_BYTES];
        incoming_drop(in, ignored);
    }
    if (rc != 0)
        return store_fail_call(error, rc, "write to", path.text);
    uint64_t received = offset + length;
    atomic_store(&file->received, received);
    if (received < content_bytes(file) && received - file->synced < SYNC_BYTES)
        return 0;
    return sync_part(in, file, path.text, error);
}

/* ---- The end ----------------------------------------------------------------------- */

/* What has come since the last sync; without it no more is lost than that. */
static void keep_progress(struct store_incoming *in)
{
    char ignored[STORE_ERROR_BYTES];
    struct path path;
    for (size_t i = 0; i < in->count && !in->dropped; i++) {
        struct incoming_file *file = &in->files[i];
        incoming_part_path(&path, in->s->path, file->from.file_id);
        if (file->fd >= 0 && atomic_load(&file->received) > file->synced)
            sync_part(in, file, path.text, ignored);
    }
}

/* The log's first segment to be, where there is another spare already. */
static void remove_spare(const struct store_incoming *in)
{
    struct path path;
    if (!in->next || in->next->fd < 0)
        return;
    segment_spare_path(&path, in->s->path, in->next->file_id);
    in->s->io->unlink(in->s->io->context, path.text);
}

void store_incoming_free(struct store_incoming *in)
{
    if (!in)
        return;
    incoming_unprepare(in);
    keep_progress(in);
    for (size_t i = 0; i < in->count; i++) {
        if (in->files[i].fd >= 0)
            in->s->io->close(in->s->io->context, in->files[i].fd);
    }
    free(in->files);
    remove_spare(in);
    segment_unref(in->next);
    manifest_release(&in->manifest);
    buf_release(&in->description);
    buf_release(&in->former);
    free(in);
}
