/*
 * place.c - a data directory while init or join fills it: found empty (or made), locked,
 * and emptied again where that fails.
 *
 * What may be removed is only what was not there before, or what an unfinished join left:
 * a directory with node.key and nothing but names that tierce gives.
 */
#include "setup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    STORE_SEGMENTS =
        2,             /* a store that is opened reserves: the active one and the spare */
    ROOM_SEGMENTS = 3, /* what must be free before a node is made */
};

_Static_assert(ROOM_SEGMENTS > STORE_SEGMENTS, "the other files need room too");

static const char *const own_names[] = {
    DIRECTORY_CA,
    DIRECTORY_CERT,
    DIRECTORY_KEY,
    DIRECTORY_LOCK,
    DIRECTORY_LOG,
    DIRECTORY_SOCKET,
    "log",
    "raft.state",
    "raft.state.new",
    "commit.hint",
    "commit.hint.new",
    DIRECTORY_CA ".new",
    DIRECTORY_CERT ".new",
    DIRECTORY_KEY ".new",
    DIRECTORY_CONF ".new",
};

static bool is_own_name(const char *name)
{
    for (size_t i = 0; i < array_length(own_names); i++)
        if (!strcmp(own_names[i], name))
            return true;
    return false;
}

static bool is_dots(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

/* ---- What is there --------------------------------------------------------------- */

enum contents {
    CONTENTS_NONE,       /* a lost+found, our lock file at most */
    CONTENTS_UNFINISHED, /* of a join: node.key and other names of ours */
    CONTENTS_NODE,
    CONTENTS_OTHER,
};

static int look_into(const char *path, enum contents *ret, char stranger[NAME_MAX + 1])
{
    DIR *dir = opendir(path);
    if (!dir)
        return -errno;
    bool conf = false, key = false, other = false;
    stranger[0] = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (is_dots(e->d_name) || !strcmp(e->d_name, "lost+found") ||
            !strcmp(e->d_name, DIRECTORY_LOCK))
            continue;
        conf |= !strcmp(e->d_name, DIRECTORY_CONF);
        key |=
            !strcmp(e->d_name, DIRECTORY_KEY) || !strcmp(e->d_name, DIRECTORY_KEY ".new");
        if (!is_own_name(e->d_name) || !stranger[0])
            snprintf(stranger, NAME_MAX + 1, "%s", e->d_name);
        other |= !is_own_name(e->d_name);
    }
    closedir(dir);
    *ret = conf              ? CONTENTS_NODE
           : !stranger[0]    ? CONTENTS_NONE
           : (key && !other) ? CONTENTS_UNFINISHED
                             : CONTENTS_OTHER;
    return 0;
}

static int judge(struct place *p, bool join, char error[NODE_ERROR_BYTES])
{
    enum contents contents = CONTENTS_NONE;
    char stranger[NAME_MAX + 1];
    int result = look_into(p->path, &contents, stranger);
    if (result)
        return node_error(error, result, "cannot use %s: %s; %s", p->path,
                          strerror(-result), directory_remedy(result));
    p->unfinished = contents == CONTENTS_UNFINISHED;
    if (contents == CONTENTS_NODE && directory_is_removed(p->path))
        return node_error(
            error, -EEXIST,
            "%s holds a node that was removed from its cluster: remove the directory, if "
            "nothing in it is needed any more, or give another --data",
            p->path);
    if (contents == CONTENTS_NODE)
        return node_error(
            error, -EEXIST,
            "%s holds a node already: start it with `tierce mount --data %s "
            "MOUNTPOINT`, or give another --data",
            p->path, p->path);
    if (contents == CONTENTS_UNFINISHED && !join)
        return node_error(error, -EEXIST,
                          "%s holds a join that was not finished: run `tierce join TOKEN "
                          "--data %s` again with the same token, or remove the directory",
                          p->path, p->path);
    if (contents == CONTENTS_OTHER)
        return node_error(error, -EEXIST,
                          "%s is not empty (it holds \"%s\"): give an empty or a new "
                          "directory as --data",
                          p->path, stranger);
    return 0;
}

/* ---- Removing -------------------------------------------------------------------- */

static int remove_inside(int parent_fd, const char *name, bool (*keep)(const char *name));

static int remove_entry(int dir_fd, const char *name)
{
    if (!unlinkat(dir_fd, name, 0))
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int result = remove_inside(dir_fd, name, NULL);
    if (!result && unlinkat(dir_fd, name, AT_REMOVEDIR))
        result = -errno;
    return result;
}

/* Symbolic links are removed, never followed. */
static int remove_inside(int parent_fd, const char *name, bool (*keep)(const char *name))
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int result = dir ? 0 : -errno;
    if (!dir && fd >= 0)
        close(fd);
    for (struct dirent *e; dir && !result && (e = readdir(dir));)
        if (!is_dots(e->d_name) && !(keep && keep(e->d_name)))
            result = remove_entry(fd, e->d_name);
    if (dir)
        closedir(dir);
    return result;
}

int place_remove(const char *path)
{
    int result = remove_inside(AT_FDCWD, path, NULL);
    return result ? result : rmdir(path) ? -errno : 0;
}

static bool keep_key_and_lock(const char *name)
{
    return !is_own_name(name) || !strcmp(name, DIRECTORY_KEY) ||
           !strcmp(name, DIRECTORY_LOCK);
}

static bool keep_lock(const char *name)
{
    return !strcmp(name, "lost+found") || !strcmp(name, DIRECTORY_LOCK);
}

/* ---- The place ------------------------------------------------------------------- */

static int sync_parent(const char *path)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(parent, sizeof(parent), "%.*s", slash == path ? 1 : (int)(slash - path),
             path);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fsync(fd) ? -errno : 0;
    close(fd);
    return result;
}

/* As mkdir -p; remembers the first directory that was made. */
static int make_directories(struct place *p)
{
    int result = 0;
    size_t length = strlen(p->path);
    for (size_t i = 1; !result && i <= length; i++) {
        if (p->path[i] != '/' && p->path[i])
            continue;
        char end = p->path[i];
        p->path[i] = 0;
        if (!mkdir(p->path, end ? 0755 : 0700)) {
            if (!p->made_from)
                p->made_from = i;
            result = sync_parent(p->path);
        } else if (errno != EEXIST) {
            result = -errno;
        }
        p->path[i] = end;
    }
    return result;
}

static void remove_made_directories(struct place *p)
{
    if (!p->made_from)
        return;
    for (size_t i = strlen(p->path); i >= p->made_from; i--) {
        char end = p->path[i];
        if (end && end != '/')
            continue;
        p->path[i] = 0;
        rmdir(p->path);
        p->path[i] = end;
    }
}

static int absolute_path(const char *path, char **ret)
{
    char *here = path[0] == '/' ? NULL : getcwd(NULL, 0), *text = NULL;
    if (path[0] != '/' && !here)
        return -errno;
    int n = asprintf(&text, "%s%s%s", here ? here : "", here ? "/" : "", path);
    free(here);
    if (n < 0)
        return -ENOMEM;
    size_t length = strlen(text);
    while (length > 1 && text[length - 1] == '/')
        text[--length] = 0;
    if (!path[0] || length >= PATH_MAX) {
        free(text);
        return path[0] ? -ENAMETOOLONG : -EINVAL;
    }
    *ret = text;
    return 0;
}

static int make_private(struct place *p)
{
    struct stat st;
    if (stat(p->path, &st))
        return -errno;
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    p->mode = st.st_mode & 07777;
    return p->mode == 0700 || !chmod(p->path, 0700) ? 0 : -errno;
}

int place_look(struct place *ret, const char *data, bool join,
               char error[NODE_ERROR_BYTES])
{
    struct place p = {.lock_fd = -1};
    int result = absolute_path(data, &p.path);
    if (result)
        return node_error(error, result, "cannot use \"%s\" as data directory: %s; %s",
                          data, strerror(-result), directory_remedy(result));
    result = judge(&p, join, error);
    if (result && result != -ENOENT) {
        place_release(&p);
        return result;
    }
    *ret = p;
    return 0;
}

/* Free bytes where `path` is, or where it would be made. */
static int free_bytes(const char *path, uint64_t *ret)
{
    char above[PATH_MAX];
    struct statvfs st;
    snprintf(above, sizeof(above), "%s", path);
    while (statvfs(above, &st)) {
        char *slash = strrchr(above, '/');
        if (errno != ENOENT || !slash || !above[1])
            return -errno;
        slash[slash == above] = 0;
    }
    *ret = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}

int place_check_room(const struct place *p, uint64_t segment_bytes, uint64_t more_bytes,
                     char error[NODE_ERROR_BYTES])
{
    uint64_t needed = ROOM_SEGMENTS * segment_bytes + more_bytes, there;
    int result = free_bytes(p->path, &there);
    if (result)
        return node_error(error, result, "cannot use %s: %s; %s", p->path,
                          strerror(-result), directory_remedy(result));
    if (there >= needed)
        return 0;
    return node_error(error, -ENOSPC,
                      "a node needs %llu MiB of disk to begin with, and where %s is %llu "
                      "MiB are free: make room there, or give another --data",
                      (unsigned long long)(needed / MiB), p->path,
                      (unsigned long long)(there / MiB));
}

int place_take(struct place *p, bool join, char error[NODE_ERROR_BYTES])
{
    int result = make_directories(p);
    if (result)
        node_error(error, result, "cannot make %s: %s; %s", p->path, strerror(-result),
                   directory_remedy(result));
    else
        result = directory_lock(p->path, &p->lock_fd, error);
    if (!result)
        result = judge(p, join, error); /* another may have been first */
    if (!result) {
        result = make_private(p);
        if (result)
            node_error(error, result, "cannot make %s private (mode 0700): %s; %s",
                       p->path, strerror(-result), directory_remedy(result));
    }
    if (result)
        remove_made_directories(p);
    return result;
}

int place_clear_but_key(struct place *p, char error[NODE_ERROR_BYTES])
{
    int result = remove_inside(AT_FDCWD, p->path, keep_key_and_lock);
    if (result)
        node_error(error, result, "cannot empty %s: %s", p->path, strerror(-result));
    return result;
}

void place_undo(struct place *p)
{
    remove_inside(AT_FDCWD, p->path, keep_lock);
    char *lock = directory_file(p->path, DIRECTORY_LOCK);
    if (lock)
        unlink(lock);
    free(lock);
    if (p->mode && p->mode != 0700 && chmod(p->path, p->mode))
        log_debug("%s: %s", p->path, strerror(errno));
    remove_made_directories(p);
}

void place_release(struct place *p)
{
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    free(p->path);
    p->lock_fd = -1;
    p->path = NULL;
}
