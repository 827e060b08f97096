/* mount.c - the life of a mount: the session with the kernel, its threads, its end. */
#include "mount_internal.h"

#include <linux/magic.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* READDIRPLUS always: `find` is an order of magnitude faster (K16). HANDLE_KILLPRIV is
 * not taken, but its second version, by mount_io.c. Requests without
 * a handler are answered ENOSYS, and the kernel stops asking: FSYNCDIR (success:
 * names are committed when they are made). */
static void on_init(void *mount, struct fuse_conn_info *conn)
{
    conn->want &=
        ~(unsigned)(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_READDIRPLUS_AUTO |
                    FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_EXPLICIT_INVAL_DATA |
                    FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    conn->want |= conn->capable & (FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA |
                                   FUSE_CAP_READDIRPLUS | FUSE_CAP_PARALLEL_DIROPS |
                                   FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK);
    if (((const struct fs_mount *)mount)->shown.no_acl)
        conn->want &= ~(unsigned)FUSE_CAP_POSIX_ACL;
    conn->max_write = MOUNT_WRITE_BYTES;
    conn->max_background = conn->congestion_threshold = MOUNT_BACKGROUND;
    conn->time_gran = 1;
}

const struct fuse_lowlevel_ops mount_operations = {
    .init = on_init,
    .lookup = on_lookup,
    .forget = on_forget,
    .forget_multi = on_forget_multi,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .readlink = on_readlink,
    .mknod = on_mknod,
    .mkdir = on_mkdir,
    .symlink = on_symlink,
    .link = on_link,
    .unlink = on_unlink,
    .rmdir = on_rmdir,
    .rename = on_rename,
    .create = on_create,
    .open = on_open,
    .read = on_read,
    .write = on_write,
    .flush = on_flush,
    .fsync = on_fsync,
    .release = on_release,
    .fallocate = on_fallocate,
    .copy_file_range = on_copy_file_range,
    .lseek = on_lseek,
    .getlk = on_getlk,
    .setlk = on_setlk,
    .flock = on_flock,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .readdirplus = on_readdirplus,
    .releasedir = on_releasedir,
    .statfs = on_statfs,
    .setxattr = on_setxattr,
    .getxattr = on_getxattr,
    .listxattr = on_listxattr,
    .removexattr = on_removexattr,
};

/* ---- Checks ---- */

static int fail(char error[FS_ERROR_BYTES], int result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(char error[FS_ERROR_BYTES], int result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, FS_ERROR_BYTES, format, args);
    va_end(args);
    return result;
}

/* Runs fusermount3, which may unmount for those who are not root. */
static int fusermount(const char *flag, const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", flag, "-q", "--", path, (char *)NULL);
        _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int unmount_lazily(const char *path)
{
    if (umount2(path, MNT_DETACH) == 0)
        return 0;
    return fusermount("-uz", path);
}

bool is_of_dead_mount(int error)
{
    return error == ENOTCONN || error == ECONNABORTED;
}

static int mountpoint_check(const char *path, char **ret_real, char error[FS_ERROR_BYTES])
{
    struct stat st;
    struct statfs fs;
    /* Not stat: the kernel may have kept attributes, and would answer for the dead. */
    bool dead = statfs(path, &fs) != 0 && is_of_dead_mount(errno);
    if (dead && unmount_lazily(path) != 0)
        return fail(error, -ENOTCONN, "a dead mount is in the way at %s: umount -l %s",
                    path, path);
    if (stat(path, &st) != 0) {
        int result = -errno;
        if (result == -ENOENT)
            return fail(error, result, "mountpoint %s does not exist: mkdir -p %s", path,
                        path);
        return fail(error, result, "mountpoint %s: %s", path, strerror(-result));
    }
    if (!S_ISDIR(st.st_mode))
        return fail(error, -ENOTDIR, "mountpoint %s is not a directory", path);
    char *real = realpath(path, NULL);
    if (!real)
        return fail(error, -errno, "mountpoint %s: %s", path, strerror(errno));
    dev_t device;
    if (mountinfo_find(real, &device) >= 0 && statfs(real, &fs) == 0 &&
        fs.f_type == FUSE_SUPER_MAGIC) {
        free(real);
        return fail(error, -EBUSY, "%s is mounted already: umount %s", path, path);
    }
    *ret_real = real;
    return 0;
}

/* ---- Threads ---- */

static int start_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
    sigset_t all, before; /* signals are the node's business */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

static void *session_main(void *mount)
{
    struct fs_mount *m = mount;
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, MOUNT_WORKERS);
    fuse_loop_cfg_set_idle_threads(config, MOUNT_IDLE_WORKERS);
    fuse_session_loop_mt(m->session, config);
    fuse_loop_cfg_destroy(config);
    locks_end(m);
    mount_flush_all(m);
    pthread_mutex_lock(&m->lock);
    m->ended = true;
    pthread_cond_broadcast(&m->idle);
    pthread_mutex_unlock(&m->lock);
    m->backend.unmounted(m->backend.context);
    return NULL;
}

static int threads_start(struct fs_mount *m)
{
    int error = start_thread(&m->committer_thread, committer_main, m);
    if (error)
        return error;
    error = start_thread(&m->notifier_thread, notifier_main, m);
    m->helpers_started = true;
    if (!error)
        error = start_thread(&m->namer_thread, namer_main, m);
    if (error)
        log_fatal("no thread for the mount's notifications: %s", strerror(-error));
    error = start_thread(&m->session_thread, session_main, m);
    m->session_started = !error;
    return error;
}

static void helpers_stop(struct fs_mount *m)
{
    if (!m->helpers_started)
        return;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_cond_broadcast(&m->timer);
    pthread_cond_broadcast(&m->drops_changed);
    pthread_cond_broadcast(&m->names_changed);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->committer_thread, NULL);
    pthread_join(m->notifier_thread, NULL);
    pthread_join(m->namer_thread, NULL);
    m->helpers_started = false;
}

/* ---- Start ---- */

static struct fs_mount *mount_new(const struct fs_backend *backend)
{
    struct fs_mount *m = calloc(1, sizeof(*m));
    pthread_condattr_t monotonic;
    if (!m)
        return NULL;
    m->backend = *backend;
    m->next_layer = m->next_call = m->next_generation = 1;
    m->drops_end = &m->drops;
    m->lock_looks_end = &m->lock_looks;
    m->names_end = &m->names;
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&m->timer, &monotonic);
    pthread_cond_init(&m->names_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&m->idle, NULL);
    pthread_cond_init(&m->drops_changed, NULL);
    return m;
}

/* libfuse says why on stderr; that belongs into the error: its first line, which may come in
 * pieces. */
static __thread char *fuse_complaint;

static void fuse_complains(enum fuse_log_level level, const char *format, va_list args)
{
    size_t length = fuse_complaint ? strlen(fuse_complaint) : 0;
    if (!fuse_complaint || strchr(fuse_complaint, '\n'))
        return;
    vsnprintf(fuse_complaint + length, FS_ERROR_BYTES - length, format, args);
}

static int session_mount(struct fs_mount *m, char *argument, char error[FS_ERROR_BYTES])
{
    char *arguments[] = {"tierce", argument, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, arguments);
    char complaint[FS_ERROR_BYTES - 200] = "";
    char whole[FS_ERROR_BYTES] = "";
    struct fuse_lowlevel_ops operations = mount_operations;
    virtual_route(&operations);
    fuse_set_log_func(fuse_complains);
    fuse_complaint = whole;
    m->session = fuse_session_new(&args, &operations, sizeof(operations), m);
    int result = m->session ? 0 : -EINVAL;
    if (!result && fuse_session_mount(m->session, m->mountpoint) != 0)
        result = errno ? -errno : -EPERM;
    fuse_complaint = NULL;
    fuse_opt_free_args(&args);
    whole[strcspn(whole, "\n")] = '\0';
    memcpy(complaint, whole, sizeof(complaint) - 1);
    if (!m->session)
        return fail(error, result, "cannot mount at %s: %s", m->mountpoint,
                    *complaint ? complaint : strerror(-result));
    if (!result)
        result = mount_io_start(m);
    if (result)
        return fail(error, result,
                    "cannot mount at %s: %s (is the fuse module loaded, /dev/fuse there, "
                    "fusermount3 installed?)",
                    m->mountpoint, *complaint ? complaint : strerror(-result));
    m->mount_id = mountinfo_find(m->mountpoint, &m->device);
    if (m->mount_id < 0)
        return fail(error, -ENOENT, "%s vanished from the mount table", m->mountpoint);
    return 0;
}

/* The kernel holds every request back until INIT was answered: an answer to this one says
 * that it was. */
static int await_ready(struct fs_mount *m, char error[FS_ERROR_BYTES])
{
    struct stat st;
    if (stat(m->mountpoint, &st) != 0 && is_of_dead_mount(errno))
        return fail(error, -ENOTCONN, "the kernel refused the mount at %s",
                    m->mountpoint);
    return 0;
}

bool fs_is_mounted(const char *mountpoint)
{
    dev_t device;
    return mountinfo_find(mountpoint, &device) >= 0;
}

int fs_mount_start(struct fs_mount **ret, const struct fs_mount_options *options,
                   const struct fs_backend *backend, char error[FS_ERROR_BYTES])
{
    char *argument = NULL, *real = NULL;
    struct fs_mount *m = NULL;
    struct mount_shown shown = {0};
    int result = mount_options_parse(options, &argument, &shown, error);
    if (!result)
        result = mountpoint_check(options->mountpoint, &real, error);
    if (!result && !(m = mount_new(backend)))
        result = fail(error, -ENOMEM, "out of memory");
    if (result)
        goto out;
    m->mountpoint = real;
    m->shown = shown;
    real = NULL;
    result = session_mount(m, argument, error);
    if (!result && (result = threads_start(m)) != 0)
        fail(error, result, "no threads for the mount: %s", strerror(-result));
    if (!result)
        result = await_ready(m, error);
    if (result)
        fs_mount_free(m);
    else
        *ret = m;
out:
    free(argument);
    free(real);
    return result;
}

/* ---- End ---- */

/* 1: somebody else did. */
static int unmount(struct fs_mount *m, bool force)
{
    if (umount2(m->mountpoint, 0) == 0)
        return 0;
    if (errno == EINVAL)
        return 1; /* it is no mountpoint any more */
    if (errno == EPERM && fusermount("-u", m->mountpoint) == 0)
        return 0;
    if (!force)
        return -EBUSY;
    connection_abort(m->mountpoint, m->device); /* detached it is out of reach */
    unmount_lazily(m->mountpoint);
    return 0;
}

/* It does, unless somebody has unmounted it lazily while files are open. */
static bool has_ended_soon(struct fs_mount *m)
{
    uint64_t until_us = ticks_us() + MOUNT_DETACHED_US;
    struct timespec until = {.tv_sec = (time_t)(until_us / 1000000),
                             .tv_nsec = (long)(until_us % 1000000) * 1000};
    int error = 0;
    pthread_mutex_lock(&m->lock);
    while (!m->ended && !error)
        error = pthread_cond_clockwait(&m->idle, &m->lock, CLOCK_MONOTONIC, &until);
    bool ended = m->ended;
    pthread_mutex_unlock(&m->lock);
    return ended;
}

int fs_mount_stop(struct fs_mount *m, bool force)
{
    pthread_mutex_lock(&m->lock);
    bool ended = m->ended;
    pthread_mutex_unlock(&m->lock);
    if (!ended) {
        mount_flush_all(m);
        int error = unmount(m, force);
        if (error > 0 && !has_ended_soon(m)) {
            if (!force)
                return -EBUSY;
            connection_abort_detached(m->device);
        }
        if (error < 0)
            return error;
    }
    pthread_join(m->session_thread, NULL);
    m->session_started = false;
    helpers_stop(m);
    return 0;
}

static void files_free(struct fs_mount *m)
{
    for (size_t i = 0; i < MOUNT_BUCKETS; i++)
        while (m->files[i]) {
            struct file *file = m->files[i];
            m->files[i] = file->next;
            while (file->handles)
                handle_free(file->handles);
            if (file->pending)
                pending_end(file);
            lock_drops_free(&file->lock_drops);
            overlay_release(&file->overlay);
            buf_release(&file->flight.op);
            free(file);
        }
}

void fs_mount_free(struct fs_mount *m)
{
    if (!m)
        return;
    if (m->session_started)
        fs_mount_stop(m, true);
    helpers_stop(m);
    if (m->session) {
        fuse_session_unmount(m->session);
        mount_io_end(m);
        fuse_session_destroy(m->session);
    }
    files_free(m);
    buf_release(&m->session_check.op);
    virtual_release_all(m);
    listings_free(m);
    orphans_end(m);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->idle);
    pthread_cond_destroy(&m->timer);
    pthread_cond_destroy(&m->drops_changed);
    pthread_cond_destroy(&m->names_changed);
    free(m->mountpoint);
    free(m);
}
