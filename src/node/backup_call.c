/*
 * backup_call.c - the command line's side of a backup: asks for its pieces, checks what
 * comes, and writes the file beside its place, where it is moved when all of it is there
 * and synced.
 */
#include "backup.h"
#include "call.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct writing {
    struct call call;
    const char *file;
    char *beside; /* FILE.new */
    int fd;
    struct wire_hasher *hasher;
    struct backup_summary summary;
    bool quorum;
};

/* ---- The file ---------------------------------------------------------------------- */

static int cannot_write(const struct writing *w, int result, char error[NODE_ERROR_BYTES])
{
    return node_error(error, result, "cannot write the backup %s: %s", w->file,
                      strerror(-result));
}

/* Whether /proc/self/mountinfo says that a mount of tierce has this device number. A line:
 * id parent major:minor root mountpoint options [fields] - type source options */
static bool is_on_tierce(dev_t device)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (mounts && !found && getline(&line, &size, mounts) > 0) {
        unsigned major_number, minor_number;
        found = sscanf(line, "%*u %*u %u:%u", &major_number, &minor_number) == 2 &&
                major_number == major(device) && minor_number == minor(device) &&
                strstr(line, " - fuse.tierce ");
    }
    free(line);
    if (mounts)
        fclose(mounts);
    return found;
}

/* A backup into what it is a backup of would go on until the disks are full: each byte
 * written is one more to be read. */
static int check_not_on_tierce(const struct writing *w, char error[NODE_ERROR_BYTES])
{
    struct stat st;
    const char *slash = strrchr(w->file, '/');
    char *directory =
        slash ? strndup(w->file, (size_t)(slash + 1 - w->file)) : strdup(".");
    if (!directory)
        return node_error(error, -ENOMEM, "out of memory");
    bool refused = stat(directory, &st) == 0 && is_on_tierce(st.st_dev);
    free(directory);
    if (!refused)
        return 0; /* that there is no such directory, opening says */
    return node_error(
        error, -EINVAL,
        "cannot write the backup %s: it lies in a mount of tierce, and would "
        "become a part of what is backed up; give a file on a disk of this "
        "host",
        w->file);
}

static int check_place(const struct writing *w, char error[NODE_ERROR_BYTES])
{
    struct stat st;
    if (stat(w->file, &st))
        return errno == ENOENT ? 0 : cannot_write(w, -errno, error);
    if (S_ISREG(st.st_mode))
        return 0;
    return node_error(
        error, -EINVAL,
        "cannot write the backup %s: it is there, and no regular file; give "
        "the name of a file to be made or replaced",
        w->file);
}

static int begin_file(struct writing *w, char error[NODE_ERROR_BYTES])
{
    int result = check_not_on_tierce(w, error);
    if (!result)
        result = check_place(w, error);
    if (result)
        return result;
    w->hasher = wire_hasher_new();
    if (!w->hasher || asprintf(&w->beside, "%s.new", w->file) < 0) {
        w->beside = NULL;
        return node_error(error, -ENOMEM, "out of memory");
    }
    w->fd = open(w->beside, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (w->fd < 0)
        return cannot_write(w, -errno, error);
    if (flock(w->fd, LOCK_EX | LOCK_NB)) {
        close(w->fd);
        w->fd = -1; /* it is not ours to remove */
        return node_error(error, -EBUSY,
                          "cannot write the backup %s: another `tierce backup` writes it "
                          "just now",
                          w->file);
    }
    return ftruncate(w->fd, 0) ? cannot_write(w, -errno, error) : 0;
}

static int add_bytes(struct writing *w, const void *data, size_t length,
                     char error[NODE_ERROR_BYTES])
{
    const uint8_t *at = data;
    size_t left = length;
    while (left) {
        ssize_t n = write(w->fd, at, left);
        if (n < 0 && errno != EINTR)
            return cannot_write(w, -errno, error);
        at += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    wire_hasher_add(w->hasher, data, length);
    w->summary.bytes += length;
    return 0;
}

static int add_block(struct writing *w, enum backup_block kind, const void *data,
                     size_t length, char error[NODE_ERROR_BYTES])
{
    uint8_t head[BACKUP_BLOCK_HEADER] = {(uint8_t)kind};
    if (!length)
        return 0;
    put_u32(head + 1, (uint32_t)length);
    int result = add_bytes(w, head, sizeof(head), error);
    return result ? result : add_bytes(w, data, length, error);
}

static int add_head(struct writing *w, char error[NODE_ERROR_BYTES])
{
    uint8_t head[BACKUP_HEADER];
    backup_head_encode(head, &w->summary.head);
    return add_bytes(w, head, sizeof(head), error);
}

static int add_last(struct writing *w, char error[NODE_ERROR_BYTES])
{
    uint8_t block[BACKUP_BLOCK_HEADER + BACKUP_TRAILER] = {BACKUP_LAST}, *at = block + 1;
    const struct backup_summary *s = &w->summary;
    const uint64_t numbers[] = {s->records, s->entries, s->end.index, s->end.term,
                                s->end.timestamp_us};
    put_u32(at, BACKUP_TRAILER);
    at += 4;
    for (size_t i = 0; i < array_length(numbers); i++, at += 8)
        put_u64(at, numbers[i]);
    put_u32(at, s->end.crc);
    at += 4;
    int result = add_bytes(w, block, (size_t)(at - block), error);
    if (result)
        return result;
    wire_hasher_get(w->hasher, at);
    return add_bytes(w, at, WIRE_HASH_BYTES, error);
}

static int sync_directory_of(const char *file)
{
    char *path = strdup(file);
    char *slash = path ? strrchr(path, '/') : NULL;
    if (!path)
        return -ENOMEM;
    if (slash)
        slash[slash == path] = 0;
    int fd = open(slash ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 || fsync(fd) ? -errno : 0;
    if (fd >= 0)
        close(fd);
    free(path);
    return result;
}

static int end_file(struct writing *w, char error[NODE_ERROR_BYTES])
{
    int result = add_last(w, error);
    if (result)
        return result;
    if (fsync(w->fd) || rename(w->beside, w->file))
        return cannot_write(w, -errno, error);
    result = sync_directory_of(w->file);
    return result ? cannot_write(w, result, error) : 0;
}

/* ---- What the node gives ----------------------------------------------------------- */

static int begin(struct writing *w, char error[NODE_ERROR_BYTES])
{
    struct call *c = &w->call;
    call_begin(c, CONTROL_BACKUP);
    int result = call_ask(c, 0, error);
    if (result)
        return result;
    struct backup_head *head = &w->summary.head;
    const uint8_t *cluster = reader_bytes(&c->fields, STORE_CLUSTER_ID_BYTES);
    head->begin.index = reader_u64(&c->fields);
    head->begin.term = reader_u64(&c->fields);
    head->begin.timestamp_us = reader_u64(&c->fields);
    head->begin.crc = reader_u32(&c->fields);
    w->quorum = reader_u8(&c->fields) != 0;
    head->format = reader_u32(&c->fields);
    if (!reader_done(&c->fields))
        return call_bad_answer(c, error);
    memcpy(head->cluster_id, cluster, STORE_CLUSTER_ID_BYTES);
    w->summary.end = head->begin;
    return add_head(w, error);
}

/* Each record is checked before it is kept: a backup that cannot be restored is none. */
static int count_records(struct writing *w, const uint8_t *data, size_t length)
{
    struct reader r = reader_of(data, length);
    while (reader_left(&r)) {
        struct store_record record;
        if (store_record_read(&r, &record))
            return -EBADMSG;
        w->summary.records++;
    }
    return 0;
}

static int get_records(struct writing *w, char error[NODE_ERROR_BYTES])
{
    struct call *c = &w->call;
    uint8_t after[LIMIT_KEY_BYTES];
    size_t after_size = 0;
    for (;;) {
        buf_string(call_begin(c, CONTROL_BACKUP_RECORDS), after, after_size);
        int result = call_ask(c, 0, error);
        if (result)
            return result;
        size_t last_size;
        const uint8_t *last = reader_string(&c->fields, &last_size);
        size_t length = reader_left(&c->fields);
        if (c->fields.bad || last_size > sizeof(after) || (!last_size && length) ||
            count_records(w, c->fields.at, length))
            return call_bad_answer(c, error);
        if (!last_size)
            return 0;
        memcpy(after, last, last_size);
        after_size = last_size;
        result = add_block(w, BACKUP_RECORDS, c->fields.at, length, error);
        if (result)
            return result;
    }
}

static int count_entries(struct writing *w, const uint8_t *data, size_t length)
{
    struct store_point *end = &w->summary.end;
    while (length) {
        struct store_entry e;
        if (store_entry_verify(data, length, &e) || !backup_continues(end, &e))
            return -EBADMSG;
        *end = backup_after(&e);
        w->summary.entries++;
        data += e.length;
        length -= e.length;
    }
    return 0;
}

static int get_entries(struct writing *w, char error[NODE_ERROR_BYTES])
{
    struct call *c = &w->call;
    uint64_t last = 0;
    for (;;) {
        struct buf *request = call_begin(c, CONTROL_BACKUP_ENTRIES);
        buf_u64(request, w->summary.end.index + 1);
        buf_u64(request, last);
        int result = call_ask(c, 0, error);
        if (result)
            return result;
        uint64_t to = reader_u64(&c->fields);
        size_t length = reader_left(&c->fields);
        if (c->fields.bad || (last && to != last) ||
            count_entries(w, c->fields.at, length) || w->summary.end.index > to ||
            (!length && w->summary.end.index < to))
            return call_bad_answer(c, error);
        last = to;
        result = add_block(w, BACKUP_ENTRIES, c->fields.at, length, error);
        if (result || w->summary.end.index == last)
            return result;
    }
}

static void say(const struct writing *w, struct node_backup *ret)
{
    const struct backup_summary *s = &w->summary;
    *ret = (struct node_backup){.index = s->end.index,
                                .term = s->end.term,
                                .records = s->records,
                                .entries = s->entries,
                                .bytes = s->bytes,
                                .quorum = w->quorum};
    memcpy(ret->cluster, s->head.cluster_id, sizeof(ret->cluster));
}

int node_call_backup(const char *data, const char *file, struct node_backup *ret,
                     char error[NODE_ERROR_BYTES])
{
    struct writing w = {.file = file, .fd = -1};
    int result = call_open(&w.call, data, "make a backup", error);
    if (!result)
        result = begin_file(&w, error);
    if (!result)
        result = begin(&w, error);
    if (!result)
        result = get_records(&w, error);
    if (!result)
        result = get_entries(&w, error);
    if (!result)
        result = end_file(&w, error);
    if (!result)
        say(&w, ret);
    else if (w.fd >= 0)
        unlink(w.beside);
    if (w.fd >= 0)
        close(w.fd);
    call_close(&w.call);
    wire_hasher_free(w.hasher);
    free(w.beside);
    return result;
}
