/*
 * manifest.c - MANIFEST: which merged files there are, and where the log begins.
 *
 *   0  magic "tierceMF"         60  E index u64
 *   8  version u32              68  E term u64
 *  12  reserved u32, 0          76  first_file u64
 *  16  cluster_id, 16 bytes     84  files u32, then of each: file_id u64 | bytes u64 |
 *  32  M index u64                  records u64 | tombstones u64 | min_timestamp u64 |
 *  40  M term u64                   max_timestamp u64
 *  48  M timestamp u64              state length u32 | state
 *  56  M crc u32                    crc32 u32, over all before it
 *
 * It is written as MANIFEST.new, synced, renamed, and the directory synced: that rename
 * is what publishes a merge or an install (G7).
 */
#include "store_internal.h"

static const char magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'M', 'F'};

enum { FIXED_BYTES = 96, FILE_BYTES = 48 };

#define MANIFEST_BYTES ((size_t)256 << 20) /* it is read whole */

void manifest_path(struct path *ret, const char *directory, const char *suffix)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log/MANIFEST%s", directory, suffix);
}

void manifest_release(struct manifest *manifest)
{
    free(manifest->files);
    free(manifest->state);
    *manifest = (struct manifest){0};
}

int manifest_encode(const struct manifest *manifest,
                    const uint8_t cluster_id[STORE_CLUSTER_ID_BYTES], uint32_t format,
                    struct buf *to)
{
    size_t at = to->length;
    ensure(manifest->applied_index >= manifest->merged.index);
    if (manifest->state_size > MANIFEST_BYTES - FIXED_BYTES ||
        manifest->count >
            (MANIFEST_BYTES - FIXED_BYTES - manifest->state_size) / FILE_BYTES)
        return -E2BIG;
    buf_bytes(to, magic, sizeof(magic));
    buf_u32(to, format);
    buf_u32(to, 0);
    buf_bytes(to, cluster_id, STORE_CLUSTER_ID_BYTES);
    buf_u64(to, manifest->merged.index);
    buf_u64(to, manifest->merged.term);
    buf_u64(to, manifest->merged.timestamp_us);
    buf_u32(to, manifest->merged.crc);
    buf_u64(to, manifest->applied_index);
    buf_u64(to, manifest->applied_term);
    buf_u64(to, manifest->first_file);
    buf_u32(to, (uint32_t)manifest->count);
    for (size_t i = 0; i < manifest->count; i++) {
        const struct manifest_file *file = &manifest->files[i];
        buf_u64(to, file->file_id);
        buf_u64(to, file->bytes);
        buf_u64(to, file->records);
        buf_u64(to, file->tombstones);
        buf_u64(to, file->min_timestamp_us);
        buf_u64(to, file->max_timestamp_us);
    }
    buf_u32(to, (uint32_t)manifest->state_size);
    buf_bytes(to, manifest->state, manifest->state_size);
    if (to->failed)
        return -ENOMEM;
    buf_u32(to, crc32_of(0, to->data + at, to->length - at));
    return to->failed ? -ENOMEM : 0;
}

/* ---- Decoding ---------------------------------------------------------------------- */

static int decode_files(struct reader *r, uint32_t count, struct manifest *ret)
{
    if (count > reader_left(r) / FILE_BYTES)
        return -EBADMSG;
    ret->files = calloc((size_t)count + 1, sizeof(*ret->files));
    if (!ret->files)
        return -ENOMEM;
    ret->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct manifest_file *file = &ret->files[i];
        file->file_id = reader_u64(r);
        file->bytes = reader_u64(r);
        file->records = reader_u64(r);
        file->tombstones = reader_u64(r);
        file->min_timestamp_us = reader_u64(r);
        file->max_timestamp_us = reader_u64(r);
        if (file->bytes < SEGMENT_HEADER || file->bytes > UINT32_MAX ||
            file->tombstones > file->records || file->file_id == UINT64_MAX ||
            (i > 0 && file->file_id <= file[-1].file_id))
            return -EBADMSG;
    }
    return 0;
}

static int decode_state(struct reader *r, struct manifest *ret)
{
    uint32_t size = reader_u32(r);
    const uint8_t *state = reader_bytes(r, size);
    if (!reader_done(r))
        return -EBADMSG;
    ret->state = malloc(size ? size : 1);
    if (!ret->state)
        return -ENOMEM;
    memcpy(ret->state, state, size);
    ret->state_size = size;
    return 0;
}

static int decode(struct reader *r, struct manifest *ret)
{
    ret->merged.index = reader_u64(r);
    ret->merged.term = reader_u64(r);
    ret->merged.timestamp_us = reader_u64(r);
    ret->merged.crc = reader_u32(r);
    ret->applied_index = reader_u64(r);
    ret->applied_term = reader_u64(r);
    ret->first_file = reader_u64(r);
    uint32_t count = reader_u32(r);
    if (r->bad || ret->applied_index < ret->merged.index ||
        ret->applied_term < ret->merged.term || ret->applied_index == UINT64_MAX)
        return -EBADMSG;
    int rc = decode_files(r, count, ret);
    return rc == 0 ? decode_state(r, ret) : rc;
}

/* In every version magic, version and the crc at the end have these places. */
int manifest_decode(const void *data, size_t length, uint32_t newest,
                    struct manifest *ret, uint8_t ret_cluster_id[STORE_CLUSTER_ID_BYTES])
{
    const uint8_t *bytes = data;
    if (length < 32 + 4 || memcmp(bytes, magic, sizeof(magic)) != 0 ||
        get_u32(bytes + length - 4) != crc32_of(0, bytes, length - 4))
        return -EBADMSG;
    int rc = format_check(get_u32(bytes + 8), newest);
    if (rc != 0)
        return rc;
    if (get_u32(bytes + 12) != 0)
        return -EBADMSG;
    struct reader r = reader_of(bytes + 32, length - 32 - 4);
    struct manifest manifest = {0};
    rc = decode(&r, &manifest);
    if (rc != 0) {
        manifest_release(&manifest);
        return rc;
    }
    memcpy(ret_cluster_id, bytes + 16, STORE_CLUSTER_ID_BYTES);
    *ret = manifest;
    return 0;
}

/* ---- The file ---------------------------------------------------------------------- */

int manifest_write(struct store *s, const struct manifest *manifest,
                   char error[STORE_ERROR_BYTES])
{
    struct path new_path, path, directory;
    struct buf bytes = {0};
    manifest_path(&new_path, s->path, ".new");
    manifest_path(&path, s->path, "");
    log_directory_path(&directory, s->path);
    int rc = manifest_encode(manifest, s->cluster_id, s->format, &bytes);
    if (rc == 0)
        rc = file_write(s->io, new_path.text, &bytes);
    if (rc == 0)
        rc = s->io->rename(s->io->context, new_path.text, path.text);
    if (rc != 0) /* what it holds may be the last room there is */
        s->io->unlink(s->io->context, new_path.text);
    if (rc == 0)
        rc = s->io->sync_dir(s->io->context, directory.text);
    if (rc != 0)
        store_fail_call(error, rc, "write", path.text);
    buf_release(&bytes);
    return rc;
}

int manifest_read(struct store *s, struct manifest *ret, char error[STORE_ERROR_BYTES])
{
    struct path path;
    struct buf bytes = {0};
    struct manifest manifest = {0};
    uint8_t cluster_id[STORE_CLUSTER_ID_BYTES];
    manifest_path(&path, s->path, "");
    int rc = file_read(s->io, path.text, MANIFEST_BYTES, &bytes);
    if (rc == 0)
        rc = manifest_decode(bytes.data, bytes.length, s->format_newest, &manifest,
                             cluster_id);
    if (rc == -EPROTONOSUPPORT || rc == -EBADMSG)
        store_fail_format(error, rc, path.text, "it is damaged");
    else if (rc != 0)
        store_fail_call(error, rc, "read", path.text);
    else
        rc = store_fail_cluster(error, s, cluster_id, path.text);
    buf_release(&bytes);
    if (rc != 0)
        manifest_release(&manifest);
    else
        *ret = manifest;
    return rc;
}
