/*
 * memory_disk.c - the calls. A file has its content now, its content as of its last sync,
 * and the changes between them; so has the table of names.
 */
#include "memory_disk_internal.h"

#include <errno.h>
#include <fcntl.h>

enum { SECTOR = 512 };

struct fault_counts faults;

struct memory_disk_faults memory_disk_faults(void)
{
    return (struct memory_disk_faults){
        .failed = atomic_exchange(&faults.failed, 0),
        .shortened = atomic_exchange(&faults.shortened, 0),
        .misdirected = atomic_exchange(&faults.misdirected, 0),
        .flipped = atomic_exchange(&faults.flipped, 0),
        .full = atomic_exchange(&faults.full, 0),
        .forgotten = atomic_exchange(&faults.forgotten, 0),
        .cut = atomic_exchange(&faults.cut, 0),
        .lost = atomic_exchange(&faults.lost, 0),
        .names = atomic_exchange(&faults.names, 0),
        .torn = atomic_exchange(&faults.torn, 0),
        .reordered = atomic_exchange(&faults.reordered, 0),
    };
}

/* ---- Loose changes ----------------------------------------------------------------- */

struct change *change_add(struct memory_disk *disk, enum change_kind kind, int file)
{
    if (disk->loose_count == disk->loose_capacity) {
        disk->loose_capacity = disk->loose_capacity ? 2 * disk->loose_capacity : 64;
        disk->loose = realloc(disk->loose, disk->loose_capacity * sizeof(*disk->loose));
        ensure(disk->loose);
    }
    struct change *change = &disk->loose[disk->loose_count++];
    *change = (struct change){.kind = kind, .file = file, .call = disk->calls};
    return change;
}

struct change *change_add_name(struct memory_disk *disk, enum change_kind kind, int file,
                               const char *from, const char *to)
{
    struct change *change = change_add(disk, kind, file);
    change->from = from ? strdup(from) : NULL;
    change->to = to ? strdup(to) : NULL;
    ensure((!from || change->from) && (!to || change->to));
    return change;
}

void change_release(struct change *change)
{
    free(change->data);
    free(change->from);
    free(change->to);
}

void change_apply(const struct change *change, struct file *files, struct names *names)
{
    switch (change->kind) {
    case CHANGE_WRITE:
        content_write(&files[change->file].synced, change->offset, change->data,
                      change->length);
        break;
    case CHANGE_SIZE:
        content_resize(&files[change->file].synced, change->offset);
        break;
    case CHANGE_LINK:
        names_link(names, change->to, change->file);
        break;
    case CHANGE_UNLINK:
        names_remove(names, change->from);
        break;
    case CHANGE_RENAME:
        names_rename(names, change->from, change->to);
        break;
    }
}

static void apply_synced(struct memory_disk *disk, struct change *change)
{
    change_apply(change, disk->files, &disk->synced_names);
    change_release(change);
}

/* Makes the file's changes part of what is synced; or forgets that they are not. */
static void settle_file(struct memory_disk *disk, int file, bool forget)
{
    size_t left = 0;
    for (size_t i = 0; i < disk->loose_count; i++) {
        struct change *change = &disk->loose[i];
        bool of_file = change->kind == CHANGE_WRITE || change->kind == CHANGE_SIZE;
        if (!of_file || change->file != file) {
            disk->loose[left++] = *change;
        } else if (forget) {
            faults.forgotten++;
            change_release(change);
        } else {
            apply_synced(disk, change);
        }
    }
    disk->loose_count = left;
}

/* One side of a move between directories: the other stays loose. */
static void split_rename(struct memory_disk *disk, struct change *change, bool to_synced)
{
    struct names *names = &disk->synced_names;
    if (to_synced) {
        names_link(names, change->to, change->file);
        free(change->to);
        change->to = NULL;
        change->kind = CHANGE_UNLINK;
    } else {
        names_remove(names, change->from);
        free(change->from);
        change->from = NULL;
        change->kind = CHANGE_LINK;
    }
}

static void settle_directory(struct memory_disk *disk, const char *path)
{
    size_t left = 0;
    for (size_t i = 0; i < disk->loose_count; i++) {
        struct change *change = &disk->loose[i];
        bool of_names = change->kind >= CHANGE_LINK;
        bool from = of_names && change->from && in_directory(change->from, path);
        bool to = of_names && change->to && in_directory(change->to, path);
        if (change->kind == CHANGE_RENAME && from != to)
            split_rename(disk, change, to);
        else if (from || to) {
            apply_synced(disk, change);
            continue;
        }
        disk->loose[left++] = *change;
    }
    disk->loose_count = left;
}

/* ---- Files ------------------------------------------------------------------------- */

static void mark_names(const struct names *names, bool *in_use)
{
    for (size_t i = 0; i < names->count; i++)
        if (names->all[i].file >= 0)
            in_use[names->all[i].file] = true;
}

/* A file that nothing leads to; -1: there is none. */
static int find_free_file(const struct memory_disk *disk)
{
    bool *in_use = calloc((size_t)disk->file_count + 1, sizeof(*in_use));
    ensure(in_use);
    mark_names(&disk->names, in_use);
    mark_names(&disk->synced_names, in_use);
    for (size_t i = 0; i < disk->loose_count; i++)
        if (disk->loose[i].file >= 0)
            in_use[disk->loose[i].file] = true;
    for (int fd = 0; fd < disk->descriptor_count; fd++)
        if (disk->descriptors[fd])
            in_use[disk->descriptors[fd] - 1] = true;
    int file = 0;
    while (file < disk->file_count && in_use[file])
        file++;
    free(in_use);
    return file < disk->file_count ? file : -1;
}

static int file_new(struct memory_disk *disk)
{
    int file = find_free_file(disk);
    if (file >= 0) {
        content_release(&disk->files[file].now);
        content_release(&disk->files[file].synced);
        return file;
    }
    if (disk->file_count == disk->file_capacity) {
        disk->file_capacity = disk->file_capacity ? 2 * disk->file_capacity : 32;
        disk->files =
            realloc(disk->files, (size_t)disk->file_capacity * sizeof(*disk->files));
        ensure(disk->files);
    }
    disk->files[disk->file_count] = (struct file){0};
    return disk->file_count++;
}

static int file_of(const struct memory_disk *disk, int fd)
{
    ensure(fd >= 0 && fd < disk->descriptor_count && disk->descriptors[fd]);
    return disk->descriptors[fd] - 1;
}

static int descriptor_of(struct memory_disk *disk, int file)
{
    int fd = 0;
    while (fd < disk->descriptor_count && disk->descriptors[fd])
        fd++;
    if (fd == disk->descriptor_count) {
        int count = fd ? 2 * fd : 32;
        disk->descriptors =
            realloc(disk->descriptors, (size_t)count * sizeof(*disk->descriptors));
        ensure(disk->descriptors);
        memset(disk->descriptors + fd, 0,
               (size_t)(count - fd) * sizeof(*disk->descriptors));
        disk->descriptor_count = count;
    }
    disk->descriptors[fd] = file + 1;
    return fd;
}

uint64_t memory_disk_used(const struct memory_disk *disk)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < disk->names.count; i++)
        if (disk->names.all[i].file >= 0)
            sum += disk->files[disk->names.all[i].file].now.size;
    return sum;
}

static int grow(const struct memory_disk *disk, int file, uint64_t size)
{
    uint64_t before = disk->files[file].now.size;
    if (size <= before || disk->capacity == UINT64_MAX ||
        memory_disk_used(disk) + (size - before) <= disk->capacity)
        return 0;
    faults.full++;
    return -ENOSPC;
}

static void resize(struct memory_disk *disk, int file, uint64_t size)
{
    content_resize(&disk->files[file].now, size);
    change_add(disk, CHANGE_SIZE, file)->offset = size;
}

/* ---- The calls --------------------------------------------------------------------- */

static _Thread_local bool inside;

bool memory_disk_inside(void)
{
    return inside;
}

static void enter(struct memory_disk *disk)
{
    inside = true;
    pthread_mutex_lock(&disk->lock);
}

static void leave(struct memory_disk *disk)
{
    pthread_mutex_unlock(&disk->lock);
    inside = false;
}

static bool power_is_gone(const struct memory_disk *disk)
{
    bool gone = disk->power_call && disk->calls >= disk->power_call;
    faults.cut += gone;
    return gone;
}

/* Counts a call that changes the disk. */
static int call(struct memory_disk *disk)
{
    if (disk->quiet)
        return 0;
    disk->calls++;
    if (power_is_gone(disk))
        return -EIO;
    if (disk->calls != disk->fail_call)
        return 0;
    faults.failed++;
    return disk->fail_error;
}

/* Counts one that does not. */
static int call_read(struct memory_disk *disk)
{
    if (disk->quiet)
        return 0;
    disk->reads++;
    if (power_is_gone(disk))
        return -EIO;
    if (disk->reads != disk->fail_read)
        return 0;
    faults.failed++;
    return disk->fail_read_error;
}

static int open_locked(struct memory_disk *disk, const char *path, int flags)
{
    int rc = flags & O_CREAT ? call(disk) : call_read(disk);
    if (rc != 0)
        return rc;
    struct name *name = names_find(&disk->names, path);
    if (!name && !(flags & O_CREAT))
        return -ENOENT;
    if (name && name->file < 0)
        return -EISDIR;
    if (name && (flags & O_CREAT) && (flags & O_EXCL))
        return -EEXIST;
    int file = name ? name->file : file_new(disk);
    if (!name) {
        names_link(&disk->names, path, file);
        change_add_name(disk, CHANGE_LINK, file, NULL, path);
    } else if (flags & O_TRUNC) {
        resize(disk, file, 0);
    }
    return descriptor_of(disk, file);
}

static int memory_open(void *context, const char *path, int flags, int mode)
{
    struct memory_disk *disk = context;
    enter(disk);
    int fd = open_locked(disk, path, flags);
    leave(disk);
    return fd;
}

static int memory_close(void *context, int fd)
{
    struct memory_disk *disk = context;
    enter(disk);
    file_of(disk, fd);
    disk->descriptors[fd] = 0;
    leave(disk);
    return 0;
}

static ssize_t memory_pread(void *context, int fd, void *to, size_t length,
                            uint64_t offset)
{
    struct memory_disk *disk = context;
    enter(disk);
    ssize_t n = call_read(disk);
    bool shortened = !disk->quiet && disk->reads == disk->short_read && length > 1;
    if (n == 0)
        n = (ssize_t)content_read(&disk->files[file_of(disk, fd)].now, offset, to,
                                  shortened ? length / 2 : length);
    faults.shortened += shortened;
    if (n > 0 && !disk->quiet && disk->reads == disk->flip_read) {
        ((uint8_t *)to)[n / 2] ^= 0x10;
        faults.flipped++;
    }
    leave(disk);
    return n;
}

static ssize_t memory_pread_nowait(void *context, int fd, void *to, size_t length,
                                   uint64_t offset)
{
    struct memory_disk *disk = context;
    return disk->cold ? -EAGAIN : memory_pread(context, fd, to, length, offset);
}

/* One change for every sector the bytes touch. */
static void write_sectors(struct memory_disk *disk, int file, uint64_t offset,
                          const uint8_t *data, size_t length)
{
    content_write(&disk->files[file].now, offset, data, length);
    while (length > 0) {
        size_t n = min_u64(SECTOR - offset % SECTOR, length);
        struct change *change = change_add(disk, CHANGE_WRITE, file);
        change->offset = offset;
        change->length = n;
        change->data = malloc(n);
        ensure(change->data);
        memcpy(change->data, data, n);
        offset += n;
        data += n;
        length -= n;
    }
}

static size_t total_of(const struct iovec *iov, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total;
}

static ssize_t memory_pwritev(void *context, int fd, const struct iovec *iov, int count,
                              uint64_t offset)
{
    struct memory_disk *disk = context;
    enter(disk);
    int file = file_of(disk, fd), rc = call(disk);
    size_t total = total_of(iov, count);
    if (disk->calls == disk->short_call && total > 1) {
        total /= 2;
        faults.shortened++;
    }
    if (disk->calls == disk->shift_call) {
        offset += disk->shift;
        faults.misdirected++;
    }
    if (rc == 0)
        rc = grow(disk, file, offset + total);
    size_t left = total;
    for (int i = 0; rc == 0 && left > 0; i++) {
        size_t n = min_u64(iov[i].iov_len, left);
        write_sectors(disk, file, offset, iov[i].iov_base, n);
        offset += n;
        left -= n;
    }
    leave(disk);
    return rc == 0 ? (ssize_t)total : rc;
}

static int memory_sync(void *context, int fd)
{
    struct memory_disk *disk = context;
    enter(disk);
    int file = file_of(disk, fd), rc = call(disk);
    if (rc == 0 || disk->forgetful)
        settle_file(disk, file, rc != 0);
    leave(disk);
    return rc;
}

static int memory_write_out(void *context, int fd, uint64_t begin, uint64_t end)
{
    struct memory_disk *disk = context;
    enter(disk);
    int rc = call(disk);
    ensure(begin <= end && file_of(disk, fd) >= 0);
    leave(disk);
    return rc;
}

static int memory_truncate(void *context, int fd, uint64_t size)
{
    struct memory_disk *disk = context;
    enter(disk);
    int file = file_of(disk, fd), rc = call(disk);
    if (rc == 0)
        rc = grow(disk, file, size);
    if (rc == 0)
        resize(disk, file, size);
    leave(disk);
    return rc;
}

static int memory_allocate(void *context, int fd, uint64_t size)
{
    struct memory_disk *disk = context;
    enter(disk);
    int file = file_of(disk, fd), rc = call(disk);
    if (rc == 0)
        rc = grow(disk, file, size);
    if (rc == 0 && size > disk->files[file].now.size)
        resize(disk, file, size);
    leave(disk);
    return rc;
}

static int memory_size(void *context, int fd, uint64_t *ret)
{
    struct memory_disk *disk = context;
    enter(disk);
    int file = file_of(disk, fd), rc = call_read(disk);
    if (rc == 0)
        *ret = disk->files[file].now.size;
    leave(disk);
    return rc;
}

static int memory_mkdir(void *context, const char *path, int mode)
{
    struct memory_disk *disk = context;
    enter(disk);
    int rc = call(disk);
    if (rc == 0 && !names_find(&disk->names, path)) {
        names_link(&disk->names, path, NAME_DIRECTORY);
        change_add_name(disk, CHANGE_LINK, NAME_DIRECTORY, NULL, path);
    }
    leave(disk);
    return rc;
}

static int memory_unlink(void *context, const char *path)
{
    struct memory_disk *disk = context;
    enter(disk);
    int rc = names_find(&disk->names, path) ? call(disk) : -ENOENT;
    if (rc == 0) {
        names_remove(&disk->names, path);
        change_add_name(disk, CHANGE_UNLINK, NAME_DIRECTORY, path, NULL);
    }
    leave(disk);
    return rc;
}

static int memory_rename(void *context, const char *from, const char *to)
{
    struct memory_disk *disk = context;
    enter(disk);
    struct name *name = names_find(&disk->names, from);
    int rc = name ? call(disk) : -ENOENT;
    if (rc == 0) {
        int file = name->file;
        names_rename(&disk->names, from, to);
        change_add_name(disk, CHANGE_RENAME, file, from, to);
    }
    leave(disk);
    return rc;
}

static int memory_sync_dir(void *context, const char *path)
{
    struct memory_disk *disk = context;
    enter(disk);
    int rc = call(disk);
    if (rc == 0)
        settle_directory(disk, path);
    leave(disk);
    return rc;
}

static int memory_list(void *context, const char *path,
                       int (*each)(void *arg, const char *name), void *arg)
{
    struct memory_disk *disk = context;
    enter(disk);
    int rc = call_read(disk);
    if (rc == 0 && !names_find(&disk->names, path))
        rc = -ENOENT;
    for (size_t i = 0; rc == 0 && i < disk->names.count; i++)
        if (in_directory(disk->names.all[i].path, path))
            rc = each(arg, disk->names.all[i].path + strlen(path) + 1);
    leave(disk);
    return rc;
}

static int memory_space(void *context, const char *path, uint64_t *ret_free,
                        uint64_t *ret_total)
{
    struct memory_disk *disk = context;
    enter(disk);
    int rc = call_read(disk);
    if (rc == 0) {
        *ret_total = disk->capacity;
        *ret_free = disk->capacity - min_u64(disk->capacity, memory_disk_used(disk));
    }
    leave(disk);
    return rc;
}

struct store_io memory_disk_io(struct memory_disk *disk)
{
    return (struct store_io){
        .context = disk,
        .open = memory_open,
        .close = memory_close,
        .pread = memory_pread,
        .pread_nowait = memory_pread_nowait,
        .pwritev = memory_pwritev,
        .sync = memory_sync,
        .sync_all = memory_sync,
        .write_out = memory_write_out,
        .truncate = memory_truncate,
        .allocate = memory_allocate,
        .size = memory_size,
        .mkdir = memory_mkdir,
        .unlink = memory_unlink,
        .rename = memory_rename,
        .sync_dir = memory_sync_dir,
        .list = memory_list,
        .space = memory_space,
    };
}
