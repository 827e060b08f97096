/* fdinfo.c - what /proc says of a caller: its other descriptors (K10), its death (K14).
 * Files are never opened nor asked for attributes through their descriptors: that would
 * be a request to ourselves. */
#include "mount_internal.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

enum { PROC_BYTES = 4096, EXITING = 4 /* PF_EXITING */ };

static int proc_read(const char *path, char text[PROC_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, PROC_BYTES - 1);
    close(fd);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    return 0;
}

/* The number after `label`; false where there is none. */
static bool proc_number(const char *text, const char *label, int base, uint64_t *ret)
{
    const char *at = strstr(text, label);
    if (!at)
        return false;
    *ret = strtoull(at + strlen(label), NULL, base);
    return true;
}

/* Whether a mount id, as that process sees it, is ours: a bind mount, or another mount
 * name space, gives the same file system another id. */
static bool mount_is_ours(struct fs_mount *m, pid_t pid, uint64_t id)
{
    dev_t device = 0;
    return id == (uint64_t)m->mount_id ||
           (mountinfo_find_id(pid, (int)id, &device) == 0 && device == m->device);
}

static bool descriptor_matches(struct fs_mount *m, pid_t pid, const char *path,
                               uint64_t inode)
{
    char text[PROC_BYTES];
    uint64_t flags, id, number;
    return proc_read(path, text) == 0 && proc_number(text, "\nino:\t", 10, &number) &&
           number == inode && proc_number(text, "flags:\t", 8, &flags) &&
           (flags & O_ACCMODE) != O_RDONLY && proc_number(text, "\nmnt_id:\t", 10, &id) &&
           mount_is_ours(m, pid, id);
}

bool fdinfo_holds(struct fs_mount *m, pid_t pid, uint64_t inode)
{
    char path[64 + 256];
    snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
    DIR *dir = pid ? opendir(path) : NULL;
    if (!dir)
        return false;
    bool holds = false;
    for (struct dirent *d; !holds && (d = readdir(dir));) {
        if (d->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)pid, d->d_name);
        holds = descriptor_matches(m, pid, path, inode);
    }
    closedir(dir);
    return holds;
}

/* A process that ends closes its files on the way out. Where SIGKILL has ended it nobody
 * waits for that; a SIGKILL that comes later is not to be seen. */
static enum caller_fate process_end(pid_t pid)
{
    char path[64], text[PROC_BYTES];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (proc_read(path, text) != 0)
        return CALLER_KILLED;
    const char *at = strrchr(text, ')'), *last = strrchr(text, ' ');
    unsigned flags;
    if (!at || !last || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1 ||
        !(flags & EXITING))
        return CALLER_LIVES;
    return (atoi(last) & 0x7f) == SIGKILL ? CALLER_KILLED : CALLER_EXITS;
}

enum caller_fate caller_fate(pid_t pid)
{
    char path[64], text[PROC_BYTES];
    uint64_t own = 0, shared = 0;
    if (!pid)
        return CALLER_LIVES;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    if (proc_read(path, text) != 0)
        return CALLER_KILLED;
    proc_number(text, "\nSigPnd:\t", 16, &own);
    proc_number(text, "\nShdPnd:\t", 16, &shared);
    if ((own | shared) >> (SIGKILL - 1) & 1)
        return CALLER_KILLED;
    return process_end(pid);
}
