/*
 * segment.c - segment files: header, names, life of a file, the index map.
 *
 *   0  magic "tierceSG"            32  first_index u64
 *   8  version u32                 40  file_id u64
 *  12  header_size u32, 64         48  reserved, 12 zeros
 *  16  cluster_id, 16 bytes        60  crc32 u32, over bytes 0-59
 *
 * Then entries without a gap, then zeros. In every version the crc stands in the last
 * four bytes of header_size bytes, so that a newer header is told from a damaged one.
 */
#include "store_internal.h"

#include <fcntl.h>

static const char magic[8] = {'t', 'i', 'e', 'r', 'c', 'e', 'S', 'G'};

void segment_head_encode(uint8_t to[SEGMENT_HEADER], const struct segment_head *head)
{
    memset(to, 0, SEGMENT_HEADER);
    memcpy(to, magic, sizeof(magic));
    put_u32(to + 8, head->format);
    put_u32(to + 12, SEGMENT_HEADER);
    memcpy(to + 16, head->cluster_id, STORE_CLUSTER_ID_BYTES);
    put_u64(to + 32, head->first_index);
    put_u64(to + 40, head->file_id);
    put_u32(to + 60, crc32_of(0, to, 60));
}

int segment_head_decode(const uint8_t *data, size_t length, uint32_t newest,
                        struct segment_head *ret)
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
    if (size != SEGMENT_HEADER || !all_zero(data + 48, 12))
        return -EBADMSG;
    struct segment_head head = {.first_index = get_u64(data + 32),
                                .file_id = get_u64(data + 40),
                                .format = get_u32(data + 8)};
    if (head.first_index == 0)
        return -EBADMSG;
    memcpy(head.cluster_id, data + 16, STORE_CLUSTER_ID_BYTES);
    *ret = head;
    return 0;
}

/* ---- Names ------------------------------------------------------------------------- */

void log_directory_path(struct path *ret, const char *directory)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log", directory);
}

void segment_path(struct path *ret, const char *directory, uint64_t file_id)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log/%016llx.seg", directory,
             (unsigned long long)file_id);
}

void segment_spare_path(struct path *ret, const char *directory, uint64_t file_id)
{
    snprintf(ret->text, sizeof(ret->text), "%s/log/%016llx.new", directory,
             (unsigned long long)file_id);
}

/* ---- In memory --------------------------------------------------------------------- */

struct slots *slots_new(void)
{
    struct slots *slots = calloc(1, sizeof(*slots));
    if (slots)
        atomic_init(&slots->references, 1);
    return slots;
}

void slots_unref(struct slots *slots)
{
    if (slots &&
        atomic_fetch_sub_explicit(&slots->references, 1, memory_order_acq_rel) == 1)
        free(slots);
}

/* False: all are taken. */
static bool take_slot(struct slots *slots, struct segment *segment)
{
    uint32_t start = atomic_fetch_add_explicit(&slots->next, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < LIMIT_SEGMENTS; i++) {
        uint32_t slot = (start + i) % LIMIT_SEGMENTS;
        struct segment *none = NULL;
        if (!atomic_compare_exchange_strong(&slots->at[slot], &none, segment))
            continue;
        segment->slot = slot;
        segment->slots = slots;
        atomic_fetch_add_explicit(&slots->references, 1, memory_order_relaxed);
        return true;
    }
    return false;
}

struct segment *segment_new(const struct store *s, enum segment_kind kind,
                            uint64_t file_id)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    if (!segment)
        return NULL;
    atomic_init(&segment->references, 1);
    segment->kind = kind;
    segment->fd = -1;
    segment->io = s->io;
    segment->file_id = file_id;
    segment->used = SEGMENT_HEADER;
    if (take_slot(s->slots, segment))
        return segment;
    free(segment);
    return NULL;
}

struct segment *segment_ref(struct segment *segment)
{
    uint32_t before =
        atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
    ensure(before > 0);
    return segment;
}

static void segment_free(struct segment *segment)
{
    if (segment->fd >= 0)
        segment->io->close(segment->io->context, segment->fd);
    atomic_store_explicit(&segment->slots->at[segment->slot], NULL, memory_order_release);
    slots_unref(segment->slots);
    free(segment->offsets);
    free(segment);
}

static void segment_free_deferred(struct rcu_head *head)
{
    reading_deferred();
    segment_free(container_of(head, struct segment, rcu));
}

/* Whether that was the last one. */
static bool put_reference(struct segment *segment)
{
    uint32_t before =
        atomic_fetch_sub_explicit(&segment->references, 1, memory_order_acq_rel);
    ensure(before > 0);
    return before == 1;
}

void segment_unref(struct segment *segment)
{
    if (segment && put_reference(segment))
        reading_defer(&segment->rcu, segment_free_deferred);
}

void segment_unref_unread(struct segment *segment)
{
    if (segment && put_reference(segment))
        segment_free(segment);
}

int segment_reserve(struct segment *segment, size_t more)
{
    if (segment->capacity - segment->count >= more)
        return 0;
    size_t capacity = segment->capacity ? segment->capacity : 64;
    while (capacity - segment->count < more)
        capacity *= 2;
    uint32_t *offsets = realloc(segment->offsets, capacity * sizeof(*offsets));
    if (!offsets)
        return -ENOMEM;
    segment->offsets = offsets;
    segment->capacity = capacity;
    return 0;
}

void segment_add(struct segment *segment, uint32_t offset, uint32_t length)
{
    ensure(segment->count < segment->capacity && offset == segment->used);
    segment->offsets[segment->count++] = offset;
    segment->used += length;
}

uint64_t segment_last(const struct segment *segment)
{
    return segment->first_index + segment->count - 1;
}

uint32_t segment_entry_length(const struct segment *segment, uint64_t index)
{
    size_t i = (size_t)(index - segment->first_index);
    ensure(index >= segment->first_index && i < segment->count);
    uint64_t end = i + 1 < segment->count ? segment->offsets[i + 1] : segment->used;
    return (uint32_t)(end - segment->offsets[i]);
}

/* ---- On disk ----------------------------------------------------------------------- */

int segment_make_spare(struct store *s, struct segment *segment,
                       char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = s->io;
    struct path path;
    segment_spare_path(&path, s->path, segment->file_id);
    int fd = io->open(io->context, path.text, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return store_fail_call(error, fd, "create", path.text);
    int rc = io->allocate(io->context, fd, s->segment_bytes);
    if (rc == 0)
        rc = io->sync_all(io->context, fd);
    if (rc != 0) {
        io->close(io->context, fd);
        io->unlink(io->context, path.text);
        return store_fail_call(error, rc, "reserve space for", path.text);
    }
    segment->fd = fd;
    return 0;
}

/* A name that ends in .seg says: header and all before this segment are on disk. */
int segment_activate(struct store *s, struct segment *segment,
                     char error[STORE_ERROR_BYTES])
{
    const struct store_io *io = s->io;
    struct path spare, path, directory;
    segment_spare_path(&spare, s->path, segment->file_id);
    segment_path(&path, s->path, segment->file_id);
    log_directory_path(&directory, s->path);
    struct segment_head head = {.first_index = segment->first_index,
                                .file_id = segment->file_id,
                                .format = s->format};
    memcpy(head.cluster_id, s->cluster_id, sizeof(head.cluster_id));
    uint8_t bytes[SEGMENT_HEADER];
    segment_head_encode(bytes, &head);
    struct iovec iov = {bytes, sizeof(bytes)};
    int rc = write_full(io, segment->fd, &iov, 1, 0);
    if (rc != 0)
        return store_fail_call(error, rc, "write", spare.text);
    rc = io->sync_all(io->context, segment->fd);
    if (rc != 0)
        return store_fail_call(error, rc, "sync", spare.text);
    rc = io->rename(io->context, spare.text, path.text);
    if (rc != 0)
        return store_fail_call(error, rc, "rename", spare.text);
    rc = io->sync_dir(io->context, directory.text);
    if (rc != 0)
        return store_fail_call(error, rc, "sync", directory.text);
    return 0;
}
