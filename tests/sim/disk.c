/*
 * disk.c - a node's store_io: the memory disk, whose calls take their time, and fail as
 * the plan says. What rots or is written elsewhere does so on the nodes with a bad disk
 * alone, which are never a majority: some good copy is always there, so that any loss is
 * a bug.
 */
#include "sim.h"

#include "store_internal.h"

#include <errno.h>
#include <fcntl.h>

enum { DESCRIPTORS = 4096 };
/* A segment of the log, and the hard state: what is misdirected there twice is beyond
 * repair. */
static bool is_spared[SIM_NODES][DESCRIPTORS];

static struct sim_node *node_at(void *context)
{
    return context;
}

static bool may_wait(const struct sim_node *n)
{
    return sim_thread && sim_thread->node == n;
}

static void take_time(struct sim_node *n, uint64_t mean_us)
{
    if (!may_wait(n))
        return;
    if (sim_now < n->hang_until)
        sim_sleep(n->hang_until - sim_now);
    sim_sleep(chance_latency(CHANCE_DISK, mean_us));
}

static bool roll(double probability)
{
    return plan.faults && chance_of(CHANCE_DISK, probability);
}

static void maybe_fail_read(struct sim_node *n)
{
    if (n->node && n->serves && roll(plan.read_error)) {
        fault(read_failed);
        memory_disk_fail_read(n->disk, memory_disk_reads(n->disk) + 1, -EIO);
    }
}

static void maybe_fail_write(struct sim_node *n, int fd)
{
    uint64_t next = memory_disk_calls(n->disk) + 1;
    if (roll(plan.write_error)) {
        fault(write_failed);
        memory_disk_fail_call(n->disk, next, -EIO);
    } else if (roll(plan.shorten)) {
        fault(write_shortened);
        memory_disk_shorten_call(n->disk, next);
    } else if (n->bad_disk && !is_spared[n->number][fd] && roll(plan.misdirect)) {
        fault(write_misdirected);
        trace("a write is misdirected");
        memory_disk_misdirect_call(n->disk, next,
                                   512 * (1 + chance_below(CHANCE_DISK, 8)));
    }
}

static void maybe_fail_sync(struct sim_node *n)
{
    if (roll(plan.sync_error)) {
        fault(sync_failed);
        memory_disk_fail_call(n->disk, memory_disk_calls(n->disk) + 1, -EIO);
    }
}

/* ---- The calls -------------------------------------------------------------------- */

static int io_open(void *context, const char *path, int flags, int mode)
{
    struct sim_node *n = node_at(context);
    take_time(n, 5);
    int fd = n->disk_io.open(n->disk_io.context, path, flags, mode);
    const char *dot = strrchr(path, '.');
    ensure(fd < DESCRIPTORS);
    if (flags & O_CREAT)
        trace("makes %s", path);
    if (fd >= 0)
        is_spared[n->number][fd] =
            dot && (strcmp(dot, ".seg") == 0 || strcmp(dot, ".new") == 0 ||
                    strcmp(dot, ".state") == 0);
    return fd;
}

static int io_close(void *context, int fd)
{
    struct sim_node *n = node_at(context);
    return n->disk_io.close(n->disk_io.context, fd);
}

static ssize_t io_pread(void *context, int fd, void *to, size_t length, uint64_t offset)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.read_us);
    maybe_fail_read(n);
    return n->disk_io.pread(n->disk_io.context, fd, to, length, offset);
}

static ssize_t io_pread_nowait(void *context, int fd, void *to, size_t length,
                               uint64_t offset)
{
    struct sim_node *n = node_at(context);
    if (roll(plan.cold)) {
        fault(cold_reads);
        return -EAGAIN;
    }
    return n->disk_io.pread_nowait(n->disk_io.context, fd, to, length, offset);
}

static ssize_t io_pwritev(void *context, int fd, const struct iovec *iov, int count,
                          uint64_t offset)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.write_us);
    maybe_fail_write(n, fd);
    return n->disk_io.pwritev(n->disk_io.context, fd, iov, count, offset);
}

static int io_sync(void *context, int fd)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.sync_us);
    maybe_fail_sync(n);
    return n->disk_io.sync(n->disk_io.context, fd);
}

static int io_sync_all(void *context, int fd)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.sync_us);
    maybe_fail_sync(n);
    return n->disk_io.sync_all(n->disk_io.context, fd);
}

static int io_truncate(void *context, int fd, uint64_t size)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.write_us);
    return n->disk_io.truncate(n->disk_io.context, fd, size);
}

static int io_allocate(void *context, int fd, uint64_t size)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.write_us);
    return n->disk_io.allocate(n->disk_io.context, fd, size);
}

static int io_size(void *context, int fd, uint64_t *ret)
{
    struct sim_node *n = node_at(context);
    return n->disk_io.size(n->disk_io.context, fd, ret);
}

static int io_mkdir(void *context, const char *path, int mode)
{
    struct sim_node *n = node_at(context);
    return n->disk_io.mkdir(n->disk_io.context, path, mode);
}

static int io_unlink(void *context, const char *path)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.write_us);
    trace("removes %s", path);
    return n->disk_io.unlink(n->disk_io.context, path);
}

static int io_rename(void *context, const char *from, const char *to)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.write_us);
    trace("renames %s to %s", from, to);
    return n->disk_io.rename(n->disk_io.context, from, to);
}

static int io_sync_dir(void *context, const char *path)
{
    struct sim_node *n = node_at(context);
    take_time(n, plan.sync_us);
    maybe_fail_sync(n);
    return n->disk_io.sync_dir(n->disk_io.context, path);
}

static int io_list(void *context, const char *path,
                   int (*each)(void *arg, const char *name), void *arg)
{
    struct sim_node *n = node_at(context);
    return n->disk_io.list(n->disk_io.context, path, each, arg);
}

static int io_space(void *context, const char *path, uint64_t *ret_free,
                    uint64_t *ret_total)
{
    struct sim_node *n = node_at(context);
    return n->disk_io.space(n->disk_io.context, path, ret_free, ret_total);
}

struct store_io *sim_disk_io(struct sim_node *n)
{
    struct store_io *io = malloc(sizeof(*io));
    ensure(io);
    n->disk_io = memory_disk_io(n->disk);
    *io = (struct store_io){.context = n,
                            .open = io_open,
                            .close = io_close,
                            .pread = io_pread,
                            .pread_nowait = io_pread_nowait,
                            .pwritev = io_pwritev,
                            .sync = io_sync,
                            .sync_all = io_sync_all,
                            .truncate = io_truncate,
                            .allocate = io_allocate,
                            .size = io_size,
                            .mkdir = io_mkdir,
                            .unlink = io_unlink,
                            .rename = io_rename,
                            .sync_dir = io_sync_dir,
                            .list = io_list,
                            .space = io_space};
    return io;
}

/* ---- Crashes and rot --------------------------------------------------------------- */

/* All, nothing, or any subset of what was not synced, with a write torn. */
void sim_disk_crash(struct sim_node *n)
{
    size_t loose = memory_disk_loose(n->disk);
    bool *keep = calloc(loose + 1, sizeof(*keep));
    struct memory_crash crash = {.keep = keep, .torn = SIZE_MAX};
    ensure(keep);
    uint64_t how = plan.faults          ? chance_below(CHANCE_DISK, 4)
                   : plan.lose_unsynced ? 1
                                        : 0;
    for (size_t i = 0; i < loose; i++)
        keep[i] = how == 0 || (how >= 2 && chance_below(CHANCE_DISK, 2));
    if (loose && how == 0)
        fault(unsynced_kept_all);
    if (loose && how == 1)
        fault(unsynced_lost_all);
    if (loose && how >= 2)
        fault(unsynced_subset);
    if (loose && how == 3) {
        fault(sector_torn);
        crash.torn = chance_below(CHANCE_DISK, loose);
        crash.torn_bytes = chance_below(CHANCE_DISK, 512);
        crash.torn_tail = chance_below(CHANCE_DISK, 2);
        keep[crash.torn] = true;
    }
    /* A process that is killed leaves the page cache: nothing is lost then. */
    bool power = plan.exact || chance_below(CHANCE_DISK, 4) != 0;
    struct memory_disk *disk =
        power ? memory_disk_crash_with(n->disk, &crash) : memory_disk_copy(n->disk);
    memory_disk_free(n->disk);
    free(keep);
    n->disk = disk;
}

struct files {
    char names[64][64], newest[64];
    size_t count;
};

/* What was acknowledged last, and nothing proves yet, is beyond repair (G6: the limit
 * that is left): the segment that is being written is spared. So are MANIFEST and spares;
 * and of a file and its hint one stays good, for each is healed by the other. */
static int note_file(void *arg, const char *name)
{
    struct files *f = arg;
    const char *dot = strrchr(name, '.');
    if (!dot || strcmp(dot, ".new") == 0 || f->count == array_length(f->names) ||
        (strcmp(dot, ".hint") == 0) != plan.rot_hints)
        return 0;
    if (strcmp(dot, ".seg") != 0) {
        snprintf(f->names[f->count++], sizeof(f->names[0]), "%s", name);
        return 0;
    }
    bool newer = strcmp(name, f->newest) > 0;
    const char *older = newer ? f->newest : name;
    if (older[0])
        snprintf(f->names[f->count++], sizeof(f->names[0]), "%s", older);
    if (newer)
        snprintf(f->newest, sizeof(f->newest), "%s", name);
    return 0;
}

static void rot(struct sim_node *n, const char *path, uint64_t from, uint64_t to)
{
    uint64_t offset = from + chance_below(CHANCE_DISK, to - from);
    memory_disk_flip(n->disk, path, offset, (unsigned)chance_below(CHANCE_DISK, 8));
    fault(bit_rotted);
    trace("rot in %s at %llu", path, (unsigned long long)offset);
}

/* In the segment that is being written, below what a hint of a while ago proves to have
 * been committed: a hole (G6). */
static bool rot_active(struct sim_node *n)
{
    uint64_t proven = n->proven_life == n->life ? n->proven : 0;
    if (!n->node || !n->node->store || !n->serves)
        return false;
    const struct segment *active = store_active(n->node->store);
    n->proven = n->node->hinted_commit;
    n->proven_life = n->life;
    if (proven <= active->first_index || proven - active->first_index >= active->count ||
        chance_below(CHANCE_DISK, 2))
        return false;
    char path[96];
    snprintf(path, sizeof(path), "/%s/log/%016llx.seg", n->name,
             (unsigned long long)active->file_id);
    size_t i = chance_below(CHANCE_DISK, proven - active->first_index);
    uint64_t from = active->offsets[i] + STORE_ENTRY_HEADER, to = active->offsets[i + 1];
    if (from < to)
        rot(n, path, from, to);
    return from < to;
}

void sim_disk_rot(struct sim_node *n)
{
    struct files files = {.count = 0};
    char directory[64], path[160];
    struct store_io io = memory_disk_io(n->disk);
    if (!plan.rot_hints && rot_active(n))
        return;
    snprintf(directory, sizeof(directory), "/%s/log", n->name);
    io.list(io.context, directory, note_file, &files);
    if (files.count == 0)
        return;
    snprintf(path, sizeof(path), "%s/%s", directory,
             files.names[chance_below(CHANCE_DISK, files.count)]);
    uint64_t size = memory_disk_size(n->disk, path);
    if (size <= 64)
        return;
    rot(n, path, 64, size); /* beyond the header, whose loss is refused with a message */
}
