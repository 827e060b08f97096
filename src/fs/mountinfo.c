/* mountinfo.c - the table of mounts, and what a process that was killed leaves in it. The
 * table is asked, and a mount itself only where its process is known to be gone: else it
 * would be a request to ourselves, or to a process that never answers. */
#include "mount_internal.h"

#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { DEAD_MOST = 64 }; /* mounts of one source that are taken away at once */

struct mountinfo {
    int id;
    dev_t device;
    char where[4096], type[64], source[4096]; /* blanks and backslashes in octal */
};

/* A line: id, parent, major:minor, root, mountpoint, options, optional fields, "-", type,
 * source, options of the super block. */
static bool mountinfo_parse(const char *line, struct mountinfo *ret)
{
    unsigned major, minor;
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(line, "%d %*d %u:%u %*s %4095s", &ret->id, &major, &minor,
                        ret->where) != 4)
        return false;
    ret->device = makedev(major, minor);
    return sscanf(rest, " - %63s %4095s", ret->type, ret->source) == 2;
}

/* Each line of a process's table (0: this one's) until `each` returns true. */
static bool mountinfo_each(pid_t pid, bool (*each)(void *arg, const struct mountinfo *at),
                           void *arg)
{
    char path[64] = "/proc/self/mountinfo";
    if (pid)
        snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
    FILE *file = fopen(path, "re");
    struct mountinfo *at = malloc(sizeof(*at));
    char *line = NULL;
    size_t room = 0;
    bool done = false;
    while (file && at && !done && getline(&line, &room, file) > 0)
        done = mountinfo_parse(line, at) && each(arg, at);
    free(line);
    free(at);
    if (file)
        fclose(file);
    return done;
}

static void mountinfo_escape(const char *path, struct buf *to)
{
    for (; *path; path++) {
        if (strchr(" \t\n\\", *path))
            buf_printf(to, "\\%03o", (unsigned char)*path);
        else
            buf_u8(to, (uint8_t)*path);
    }
    buf_u8(to, 0);
}

static void mountinfo_unescape(char *path)
{
    char *to = path;
    for (; *path; path++) {
        bool octal = path[0] == '\\' && path[1] && path[2] && path[3];
        *to++ =
            octal ? (char)((path[1] - '0') << 6 | (path[2] - '0') << 3 | (path[3] - '0'))
                  : *path;
        path += octal ? 3 : 0;
    }
    *to = '\0';
}

/* ---- Finding one ---- */

struct wanted {
    int id;            /* one of the two */
    const char *where; /* escaped */
    int ret_id;
    dev_t ret_device;
};

static bool is_wanted(void *arg, const struct mountinfo *at)
{
    struct wanted *w = arg;
    if (w->where ? strcmp(at->where, w->where) : at->id != w->id)
        return false;
    w->ret_id = at->id;
    w->ret_device = at->device;
    return !w->where; /* of several at one place the last one is seen */
}

int mountinfo_find(const char *mountpoint, dev_t *ret_device)
{
    struct buf escaped = {0};
    struct wanted w = {.ret_id = -ENOENT};
    mountinfo_escape(mountpoint, &escaped);
    w.where = (const char *)escaped.data;
    if (!escaped.failed)
        mountinfo_each(0, is_wanted, &w);
    buf_release(&escaped);
    if (w.ret_id >= 0)
        *ret_device = w.ret_device;
    return w.ret_id;
}

int mountinfo_find_id(pid_t pid, int id, dev_t *ret_device)
{
    struct wanted w = {.id = id};
    if (!mountinfo_each(pid, is_wanted, &w))
        return -ENOENT;
    *ret_device = w.ret_device;
    return 0;
}

/* ---- Those of one source ---- */

struct sourced {
    const char *source; /* escaped */
    unsigned count;
    struct {
        char *where;
        dev_t device;
    } at[DEAD_MOST];
};

static bool is_sourced(void *arg, const struct mountinfo *at)
{
    struct sourced *s = arg;
    if (strcmp(at->type, "fuse.tierce") || strcmp(at->source, s->source))
        return false;
    char *where = strdup(at->where);
    if (!where)
        return true;
    mountinfo_unescape(where);
    s->at[s->count].where = where;
    s->at[s->count++].device = at->device;
    return s->count == DEAD_MOST;
}

static void sourced_find(const char *source, struct sourced *ret)
{
    struct buf escaped = {0};
    *ret = (struct sourced){0};
    mountinfo_escape(source, &escaped);
    ret->source = (const char *)escaped.data;
    if (!escaped.failed)
        mountinfo_each(0, is_sourced, ret);
    ret->source = NULL;
    buf_release(&escaped);
}

static void sourced_release(struct sourced *s)
{
    for (unsigned i = 0; i < s->count; i++)
        free(s->at[i].where);
}

void connection_abort(const char *mountpoint, dev_t device)
{
    if (umount2(mountpoint, MNT_FORCE) != 0 && errno == EPERM)
        connection_abort_detached(device); /* -EBUSY: requests were ended all the same */
}

void connection_abort_detached(dev_t device)
{
    char path[64];
    snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", minor(device));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "1", 1) != 1)
        log_warn("cannot abort the FUSE connection: %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

bool fs_mounts_release(const char *source, pid_t pid)
{
    struct sourced s;
    if (caller_fate(pid) != CALLER_KILLED)
        return false;
    sourced_find(source, &s);
    for (unsigned i = 0; i < s.count; i++)
        connection_abort(s.at[i].where, s.at[i].device);
    sourced_release(&s);
    return true;
}

unsigned fs_mounts_clean(const char *source)
{
    struct sourced s;
    struct statfs fs;
    unsigned cleaned = 0;
    sourced_find(source, &s);
    for (unsigned i = s.count; i-- > 0;) { /* the innermost first */
        bool dead = statfs(s.at[i].where, &fs) != 0 && is_of_dead_mount(errno);
        if (!dead || unmount_lazily(s.at[i].where) != 0)
            continue;
        log_info("%s was still mounted by a process that is gone: it is unmounted",
                 s.at[i].where);
        cleaned++;
    }
    sourced_release(&s);
    return cleaned;
}
