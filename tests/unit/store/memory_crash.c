/* memory_crash.c - a memory disk's life, its crashes, and what tests do to it. */
#include "memory_disk_internal.h"

/* ---- Life and crashes -------------------------------------------------------------- */

struct memory_disk *memory_disk_new(void)
{
    struct memory_disk *disk = calloc(1, sizeof(*disk));
    ensure(disk);
    pthread_mutex_init(&disk->lock, NULL);
    disk->capacity = UINT64_MAX;
    return disk;
}

void memory_disk_free(struct memory_disk *disk)
{
    for (int i = 0; i < disk->file_count; i++) {
        content_release(&disk->files[i].now);
        content_release(&disk->files[i].synced);
    }
    for (size_t i = 0; i < disk->loose_count; i++)
        change_release(&disk->loose[i]);
    free(disk->files);
    free(disk->descriptors);
    free(disk->loose);
    names_release(&disk->names);
    names_release(&disk->synced_names);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

static struct memory_disk *copy_synced(const struct memory_disk *disk)
{
    struct memory_disk *copy = memory_disk_new();
    copy->file_count = copy->file_capacity = disk->file_count;
    copy->files = calloc((size_t)disk->file_count + 1, sizeof(*copy->files));
    ensure(copy->files);
    for (int i = 0; i < disk->file_count; i++)
        content_copy(&copy->files[i].synced, &disk->files[i].synced);
    names_copy(&copy->synced_names, &disk->synced_names);
    copy->capacity = disk->capacity;
    return copy;
}

/* What is now is what was synced. */
static void start_now(struct memory_disk *disk)
{
    for (int i = 0; i < disk->file_count; i++)
        content_copy(&disk->files[i].now, &disk->files[i].synced);
    names_copy(&disk->names, &disk->synced_names);
}

static void crash_change(struct memory_disk *after, const struct change *change,
                         const struct memory_crash *crash, bool torn)
{
    struct change part = *change;
    if (torn && change->kind == CHANGE_WRITE) {
        faults.torn++;
        part.length = min_u64(crash->torn_bytes, change->length);
        if (crash->torn_tail) {
            part.data += change->length - part.length;
            part.offset += change->length - part.length;
        }
    }
    change_apply(&part, after->files, &after->synced_names);
}

struct memory_disk *memory_disk_crash_with(const struct memory_disk *disk,
                                           const struct memory_crash *crash)
{
    struct memory_disk *after = copy_synced(disk);
    for (size_t i = 0; i < disk->loose_count; i++) {
        size_t at = crash->order ? crash->order[i] : i;
        ensure(at < disk->loose_count);
        const struct change *change = &disk->loose[at];
        faults.reordered += at != i;
        if (crash->keep[at]) {
            crash_change(after, change, crash, at == crash->torn);
        } else {
            faults.lost++;
            faults.names += change->kind >= CHANGE_LINK;
        }
    }
    start_now(after);
    return after;
}

struct memory_disk *memory_disk_crash(const struct memory_disk *disk, const bool *keep,
                                      size_t torn)
{
    struct memory_crash crash = {.keep = keep, .torn = torn};
    if (torn < disk->loose_count)
        crash.torn_bytes = disk->loose[torn].length / 2;
    return memory_disk_crash_with(disk, &crash);
}

struct memory_disk *memory_disk_copy(const struct memory_disk *disk)
{
    struct memory_disk *copy = copy_synced(disk);
    for (int i = 0; i < disk->file_count; i++)
        content_copy(&copy->files[i].now, &disk->files[i].now);
    names_copy(&copy->names, &disk->names);
    for (size_t i = 0; i < disk->loose_count; i++) {
        const struct change *from = &disk->loose[i];
        struct change *change =
            change_add_name(copy, from->kind, from->file, from->from, from->to);
        change->call = from->call;
        change->offset = from->offset;
        change->length = from->length;
        if (from->data) {
            change->data = malloc(from->length);
            ensure(change->data);
            memcpy(change->data, from->data, from->length);
        }
    }
    return copy;
}

size_t memory_disk_loose(const struct memory_disk *disk)
{
    return disk->loose_count;
}

uint64_t memory_disk_loose_call(const struct memory_disk *disk, size_t i)
{
    ensure(i < disk->loose_count);
    return disk->loose[i].call;
}

/* ---- What a test sets -------------------------------------------------------------- */

uint64_t memory_disk_calls(const struct memory_disk *disk)
{
    return disk->calls;
}

uint64_t memory_disk_reads(const struct memory_disk *disk)
{
    return disk->reads;
}

void memory_disk_fail_call(struct memory_disk *disk, uint64_t number, int error)
{
    disk->fail_call = number;
    disk->fail_error = error;
}

void memory_disk_fail_read(struct memory_disk *disk, uint64_t number, int error)
{
    disk->fail_read = number;
    disk->fail_read_error = error;
}

void memory_disk_shorten_call(struct memory_disk *disk, uint64_t number)
{
    disk->short_call = number;
}

void memory_disk_shorten_read(struct memory_disk *disk, uint64_t number)
{
    disk->short_read = number;
}

void memory_disk_misdirect_call(struct memory_disk *disk, uint64_t number, uint64_t shift)
{
    disk->shift_call = number;
    disk->shift = shift;
}

void memory_disk_flip_read(struct memory_disk *disk, uint64_t number)
{
    disk->flip_read = number;
}

void memory_disk_cut_power(struct memory_disk *disk, uint64_t number)
{
    disk->power_call = number;
}

void memory_disk_set_capacity(struct memory_disk *disk, uint64_t bytes)
{
    disk->capacity = bytes;
}

void memory_disk_set_cold(struct memory_disk *disk, bool cold)
{
    disk->cold = cold;
}

void memory_disk_set_forgetful(struct memory_disk *disk, bool forgetful)
{
    disk->forgetful = forgetful;
}

void memory_disk_set_quiet(struct memory_disk *disk, bool quiet)
{
    disk->quiet = quiet;
}

unsigned memory_disk_open_count(const struct memory_disk *disk)
{
    unsigned count = 0;
    for (int fd = 0; fd < disk->descriptor_count; fd++)
        count += disk->descriptors[fd] != 0;
    return count;
}

/* ---- Direct access ----------------------------------------------------------------- */

static struct file *find(const struct memory_disk *disk, const char *path)
{
    struct name *name = names_find(&disk->names, path);
    ensure(name && name->file >= 0);
    return &disk->files[name->file];
}

uint64_t memory_disk_size(const struct memory_disk *disk, const char *path)
{
    return find(disk, path)->now.size;
}

void memory_disk_peek(const struct memory_disk *disk, const char *path, uint64_t offset,
                      void *to, size_t length)
{
    ensure(content_read(&find(disk, path)->now, offset, to, length) == length);
}

void memory_disk_poke(struct memory_disk *disk, const char *path, uint64_t offset,
                      const void *data, size_t length)
{
    struct file *file = find(disk, path);
    content_write(&file->now, offset, data, length);
    content_write(&file->synced, offset, data, length);
}

void memory_disk_flip(struct memory_disk *disk, const char *path, uint64_t offset,
                      unsigned bit)
{
    uint8_t byte;
    memory_disk_peek(disk, path, offset, &byte, 1);
    byte ^= (uint8_t)(1u << bit % 8);
    memory_disk_poke(disk, path, offset, &byte, 1);
    faults.flipped++;
}

void memory_disk_resize(struct memory_disk *disk, const char *path, uint64_t size)
{
    struct file *file = find(disk, path);
    content_resize(&file->now, size);
    content_resize(&file->synced, size);
}

void memory_disk_remove(struct memory_disk *disk, const char *path)
{
    names_remove(&disk->names, path);
    names_remove(&disk->synced_names, path);
}

bool memory_disk_exists(const struct memory_disk *disk, const char *path)
{
    return names_find(&disk->names, path) != NULL;
}

bool memory_disk_equal(const struct memory_disk *a, const struct memory_disk *b)
{
    if (a->names.count != b->names.count)
        return false;
    for (size_t i = 0; i < a->names.count; i++) {
        const struct name *x = &a->names.all[i], *y = names_find(&b->names, x->path);
        if (!y || (x->file < 0) != (y->file < 0))
            return false;
        if (x->file >= 0 &&
            !content_equal(&a->files[x->file].now, &b->files[y->file].now))
            return false;
    }
    return true;
}
