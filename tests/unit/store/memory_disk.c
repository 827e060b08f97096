/*
 * memory_disk.c - see the header. A file has its content now, its content as of its last
 * sync, and the changes between them; so has the table of names.
 */
#include "memory_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

enum {
    PAGE = 4096,
    PAGES = 2304, /* of a file: 9 MiB */
    FILES = 256,
    NAMES = 64,
    DESCRIPTORS = 64,
    SECTOR = 512,
    PATH_BYTES = 256,
};

struct content {
    uint64_t size;
    uint8_t *pages[PAGES]; /* NULL: zeros */
};

enum change_kind { CHANGE_WRITE, CHANGE_SIZE, CHANGE_LINK, CHANGE_UNLINK, CHANGE_RENAME };

struct change {
    enum change_kind kind;
    int file;        /* WRITE, SIZE, LINK */
    uint64_t offset; /* WRITE; SIZE: the size */
    uint8_t *data;
    size_t length;
    char from[PATH_BYTES], to[PATH_BYTES];
};

struct name {
    char path[PATH_BYTES];
    int file; /* -1: a directory */
};

struct names {
    struct name all[NAMES];
    size_t count;
};

struct memory_disk {
    pthread_mutex_t lock;
    struct content *now[FILES], *synced[FILES];
    int file_count;
    struct names names, synced_names;
    struct change *loose;
    size_t loose_count, loose_capacity;
    int descriptors[DESCRIPTORS]; /* file + 1; 0: free */
    uint64_t calls, fail_call, power_call, capacity;
    int fail_error;
    bool cold, forgetful;
};

/* ---- Contents ---------------------------------------------------------------------- */

static struct content *content_new(void)
{
    struct content *c = calloc(1, sizeof(*c));
    ensure(c);
    return c;
}

static void content_free(struct content *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < PAGES; i++)
        free(c->pages[i]);
    free(c);
}

static struct content *content_copy(const struct content *from)
{
    struct content *c = content_new();
    c->size = from->size;
    for (size_t i = 0; i < PAGES; i++) {
        if (!from->pages[i])
            continue;
        c->pages[i] = malloc(PAGE);
        ensure(c->pages[i]);
        memcpy(c->pages[i], from->pages[i], PAGE);
    }
    return c;
}

static void content_write(struct content *c, uint64_t offset, const uint8_t *data,
                          size_t length)
{
    ensure(offset + length <= (uint64_t)PAGES * PAGE);
    c->size = max_u64(c->size, offset + length);
    while (length > 0) {
        size_t within = offset % PAGE, n = min_u64(PAGE - within, length);
        uint8_t **page = &c->pages[offset / PAGE];
        if (!*page)
            *page = calloc(1, PAGE);
        ensure(*page);
        memcpy(*page + within, data, n);
        offset += n;
        data += n;
        length -= n;
    }
}

static size_t content_read(const struct content *c, uint64_t offset, uint8_t *to,
                           size_t length)
{
    if (offset >= c->size)
        return 0;
    length = min_u64(length, c->size - offset);
    for (size_t done = 0; done < length;) {
        size_t within = (offset + done) % PAGE, n = min_u64(PAGE - within, length - done);
        const uint8_t *page = c->pages[(offset + done) / PAGE];
        if (page)
            memcpy(to + done, page + within, n);
        else
            memset(to + done, 0, n);
        done += n;
    }
    return length;
}

static void content_resize(struct content *c, uint64_t size)
{
    ensure(size <= (uint64_t)PAGES * PAGE);
    for (uint64_t at = size; at < c->size;) {
        size_t within = at % PAGE, n = min_u64(PAGE - within, c->size - at);
        uint8_t **page = &c->pages[at / PAGE];
        if (*page)
            memset(*page + within, 0, n);
        at += n;
    }
    c->size = size;
}

static bool content_equal(const struct content *a, const struct content *b)
{
    static const uint8_t zeros[PAGE];
    if (a->size != b->size)
        return false;
    for (size_t i = 0; i < PAGES; i++) {
        const uint8_t *x = a->pages[i] ? a->pages[i] : zeros;
        const uint8_t *y = b->pages[i] ? b->pages[i] : zeros;
        if (memcmp(x, y, PAGE) != 0)
            return false;
    }
    return true;
}

/* ---- Names ------------------------------------------------------------------------- */

static struct name *names_find(const struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->all[i].path, path) == 0)
            return (struct name *)&names->all[i];
    return NULL;
}

static void names_remove(struct names *names, const char *path)
{
    struct name *name = names_find(names, path);
    if (name)
        *name = names->all[--names->count];
}

static void path_copy(char to[PATH_BYTES], const char *from)
{
    ensure(strlen(from) < PATH_BYTES);
    strcpy(to, from);
}

static void names_link(struct names *names, const char *path, int file)
{
    names_remove(names, path);
    ensure(names->count < NAMES);
    struct name *name = &names->all[names->count++];
    path_copy(name->path, path);
    name->file = file;
}

static void names_rename(struct names *names, const char *from, const char *to)
{
    struct name *name = names_find(names, from);
    if (!name)
        return; /* what it was linked by is lost */
    int file = name->file;
    names_remove(names, from);
    names_link(names, to, file);
}

static bool in_directory(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/' &&
           !strchr(path + length + 1, '/');
}

/* ---- Loose changes ----------------------------------------------------------------- */

static struct change *change_add(struct memory_disk *disk, enum change_kind kind,
                                 int file)
{
    if (disk->loose_count == disk->loose_capacity) {
        disk->loose_capacity = disk->loose_capacity ? 2 * disk->loose_capacity : 64;
        disk->loose = realloc(disk->loose, disk->loose_capacity * sizeof(*disk->loose));
        ensure(disk->loose);
    }
    struct change *change = &disk->loose[disk->loose_count++];
    *change = (struct change){.kind = kind, .file = file};
    return change;
}

static void change_apply(const struct change *change, struct content **files,
                         struct names *names, size_t length)
{
    switch (change->kind) {
    case CHANGE_WRITE:
        content_write(files[change->file], change->offset, change->data, length);
        break;
    case CHANGE_SIZE:
        content_resize(files[change->file], change->offset);
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

/* Makes the chosen changes part of what is synced; or forgets that they are not. */
static void settle(struct memory_disk *disk,
                   bool (*chosen)(const struct change *change, const void *arg),
                   const void *arg, bool forget)
{
    size_t left = 0;
    for (size_t i = 0; i < disk->loose_count; i++) {
        struct change *change = &disk->loose[i];
        if (chosen(change, arg)) {
            if (!forget)
                change_apply(change, disk->synced, &disk->synced_names, change->length);
            free(change->data);
        } else {
            disk->loose[left++] = *change;
        }
    }
    disk->loose_count = left;
}

static bool of_file(const struct change *change, const void *arg)
{
    return (change->kind == CHANGE_WRITE || change->kind == CHANGE_SIZE) &&
           change->file == *(const int *)arg;
}

static bool of_directory(const struct change *change, const void *arg)
{
    return (change->kind == CHANGE_LINK && in_directory(change->to, arg)) ||
           ((change->kind == CHANGE_UNLINK || change->kind == CHANGE_RENAME) &&
            in_directory(change->from, arg));
}

/* ---- The calls --------------------------------------------------------------------- */

static bool power_is_gone(const struct memory_disk *disk)
{
    return disk->power_call && disk->calls >= disk->power_call;
}

/* Counts a call that changes the disk. */
static int call(struct memory_disk *disk)
{
    disk->calls++;
    if (power_is_gone(disk))
        return -EIO;
    return disk->calls == disk->fail_call ? disk->fail_error : 0;
}

static uint64_t used(const struct memory_disk *disk)
{
    bool counted[FILES] = {false};
    uint64_t sum = 0;
    for (size_t i = 0; i < disk->names.count; i++) {
        int file = disk->names.all[i].file;
        if (file >= 0 && !counted[file])
            sum += disk->now[file]->size;
        if (file >= 0)
            counted[file] = true;
    }
    return sum;
}

static int grow(const struct memory_disk *disk, int file, uint64_t size)
{
    uint64_t before = disk->now[file]->size;
    return size <= before || used(disk) + (size - before) <= disk->capacity ? 0 : -ENOSPC;
}

static int file_of(const struct memory_disk *disk, int fd)
{
    ensure(fd >= 0 && fd < DESCRIPTORS && disk->descriptors[fd]);
    return disk->descriptors[fd] - 1;
}

static int descriptor_of(struct memory_disk *disk, int file)
{
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        if (!disk->descriptors[fd]) {
            disk->descriptors[fd] = file + 1;
            return fd;
        }
    return -EMFILE;
}

static int file_new(struct memory_disk *disk)
{
    ensure(disk->file_count < FILES);
    int file = disk->file_count++;
    disk->now[file] = content_new();
    disk->synced[file] = content_new();
    return file;
}

static void resize(struct memory_disk *disk, int file, uint64_t size)
{
    content_resize(disk->now[file], size);
    change_add(disk, CHANGE_SIZE, file)->offset = size;
}

static int open_locked(struct memory_disk *disk, const char *path, int flags)
{
    struct name *name = names_find(&disk->names, path);
    if (power_is_gone(disk))
        return -EIO;
    if (!name && !(flags & O_CREAT))
        return -ENOENT;
    if (name && name->file < 0)
        return -EISDIR;
    int rc = flags & O_CREAT ? call(disk) : 0;
    if (rc != 0)
        return rc;
    int file = name ? name->file : file_new(disk);
    if (!name) {
        names_link(&disk->names, path, file);
        path_copy(change_add(disk, CHANGE_LINK, file)->to, path);
    } else if (flags & O_TRUNC) {
        resize(disk, file, 0);
    }
    return descriptor_of(disk, file);
}

static int memory_open(void *context, const char *path, int flags, int mode)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int fd = open_locked(disk, path, flags);
    pthread_mutex_unlock(&disk->lock);
    return fd;
}

static int memory_close(void *context, int fd)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    file_of(disk, fd);
    disk->descriptors[fd] = 0;
    pthread_mutex_unlock(&disk->lock);
    return 0;
}

static ssize_t memory_pread(void *context, int fd, void *to, size_t length,
                            uint64_t offset)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    ssize_t n = -EIO;
    if (!power_is_gone(disk))
        n = (ssize_t)content_read(disk->now[file_of(disk, fd)], offset, to, length);
    pthread_mutex_unlock(&disk->lock);
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
    content_write(disk->now[file], offset, data, length);
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

static ssize_t memory_pwritev(void *context, int fd, const struct iovec *iov, int count,
                              uint64_t offset)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    int file = file_of(disk, fd);
    int rc = call(disk);
    if (rc == 0)
        rc = grow(disk, file, offset + total);
    for (int i = 0; rc == 0 && i < count; i++) {
        write_sectors(disk, file, offset, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    pthread_mutex_unlock(&disk->lock);
    return rc == 0 ? (ssize_t)total : rc;
}

static int memory_sync(void *context, int fd)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int file = file_of(disk, fd), rc = call(disk);
    if (rc == 0 || disk->forgetful)
        settle(disk, of_file, &file, rc != 0);
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_truncate(void *context, int fd, uint64_t size)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int rc = call(disk);
    if (rc == 0)
        resize(disk, file_of(disk, fd), size);
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_allocate(void *context, int fd, uint64_t size)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int file = file_of(disk, fd), rc = call(disk);
    if (rc == 0)
        rc = grow(disk, file, size);
    if (rc == 0 && size > disk->now[file]->size)
        resize(disk, file, size);
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_size(void *context, int fd, uint64_t *ret)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    *ret = disk->now[file_of(disk, fd)]->size;
    pthread_mutex_unlock(&disk->lock);
    return 0;
}

static int memory_mkdir(void *context, const char *path, int mode)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int rc = call(disk);
    if (rc == 0 && !names_find(&disk->names, path)) {
        names_link(&disk->names, path, -1);
        path_copy(change_add(disk, CHANGE_LINK, -1)->to, path);
    }
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_unlink(void *context, const char *path)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int rc = names_find(&disk->names, path) ? call(disk) : -ENOENT;
    if (rc == 0) {
        names_remove(&disk->names, path);
        path_copy(change_add(disk, CHANGE_UNLINK, -1)->from, path);
    }
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_rename(void *context, const char *from, const char *to)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int rc = names_find(&disk->names, from) ? call(disk) : -ENOENT;
    if (rc == 0) {
        names_rename(&disk->names, from, to);
        struct change *change = change_add(disk, CHANGE_RENAME, -1);
        path_copy(change->from, from);
        path_copy(change->to, to);
    }
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_sync_dir(void *context, const char *path)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int rc = call(disk);
    if (rc == 0)
        settle(disk, of_directory, path, false);
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_list(void *context, const char *path,
                       int (*each)(void *arg, const char *name), void *arg)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int rc = power_is_gone(disk) ? -EIO : names_find(&disk->names, path) ? 0 : -ENOENT;
    for (size_t i = 0; rc == 0 && i < disk->names.count; i++)
        if (in_directory(disk->names.all[i].path, path))
            rc = each(arg, disk->names.all[i].path + strlen(path) + 1);
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

static int memory_space(void *context, const char *path, uint64_t *ret_free,
                        uint64_t *ret_total)
{
    struct memory_disk *disk = context;
    pthread_mutex_lock(&disk->lock);
    int rc = power_is_gone(disk) ? -EIO : 0;
    if (rc == 0) {
        *ret_total = disk->capacity;
        *ret_free = disk->capacity - min_u64(disk->capacity, used(disk));
    }
    pthread_mutex_unlock(&disk->lock);
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

/* ---- For tests --------------------------------------------------------------------- */

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
        content_free(disk->now[i]);
        content_free(disk->synced[i]);
    }
    for (size_t i = 0; i < disk->loose_count; i++)
        free(disk->loose[i].data);
    free(disk->loose);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

uint64_t memory_disk_calls(const struct memory_disk *disk)
{
    return disk->calls;
}

void memory_disk_fail_call(struct memory_disk *disk, uint64_t number, int error)
{
    disk->fail_call = number;
    disk->fail_error = error;
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

unsigned memory_disk_open_count(const struct memory_disk *disk)
{
    unsigned count = 0;
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        count += disk->descriptors[fd] != 0;
    return count;
}

size_t memory_disk_loose(const struct memory_disk *disk)
{
    return disk->loose_count;
}

static struct memory_disk *copy_synced(const struct memory_disk *disk)
{
    struct memory_disk *copy = memory_disk_new();
    copy->file_count = disk->file_count;
    for (int i = 0; i < disk->file_count; i++)
        copy->synced[i] = content_copy(disk->synced[i]);
    copy->synced_names = disk->synced_names;
    copy->capacity = disk->capacity;
    return copy;
}

/* What is now is what was synced. */
static void start_now(struct memory_disk *disk)
{
    for (int i = 0; i < disk->file_count; i++)
        disk->now[i] = content_copy(disk->synced[i]);
    disk->names = disk->synced_names;
}

struct memory_disk *memory_disk_crash(const struct memory_disk *disk, const bool *keep,
                                      size_t torn)
{
    struct memory_disk *after = copy_synced(disk);
    for (size_t i = 0; i < disk->loose_count; i++) {
        const struct change *change = &disk->loose[i];
        size_t length = i == torn ? change->length / 2 : change->length;
        if (keep[i])
            change_apply(change, after->synced, &after->synced_names, length);
    }
    start_now(after);
    return after;
}

struct memory_disk *memory_disk_copy(const struct memory_disk *disk)
{
    struct memory_disk *copy = copy_synced(disk);
    for (int i = 0; i < disk->file_count; i++)
        copy->now[i] = content_copy(disk->now[i]);
    copy->names = disk->names;
    for (size_t i = 0; i < disk->loose_count; i++) {
        const struct change *from = &disk->loose[i];
        struct change *change = change_add(copy, from->kind, from->file);
        *change = *from;
        if (from->data) {
            change->data = malloc(from->length);
            ensure(change->data);
            memcpy(change->data, from->data, from->length);
        }
    }
    return copy;
}

static int find(const struct memory_disk *disk, const char *path)
{
    struct name *name = names_find(&disk->names, path);
    ensure(name && name->file >= 0);
    return name->file;
}

uint64_t memory_disk_size(const struct memory_disk *disk, const char *path)
{
    return disk->now[find(disk, path)]->size;
}

void memory_disk_peek(const struct memory_disk *disk, const char *path, uint64_t offset,
                      void *to, size_t length)
{
    ensure(content_read(disk->now[find(disk, path)], offset, to, length) == length);
}

void memory_disk_poke(struct memory_disk *disk, const char *path, uint64_t offset,
                      const void *data, size_t length)
{
    int file = find(disk, path);
    content_write(disk->now[file], offset, data, length);
    content_write(disk->synced[file], offset, data, length);
}

void memory_disk_resize(struct memory_disk *disk, const char *path, uint64_t size)
{
    int file = find(disk, path);
    content_resize(disk->now[file], size);
    content_resize(disk->synced[file], size);
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
        if (x->file >= 0 && !content_equal(a->now[x->file], b->now[y->file]))
            return false;
    }
    return true;
}
