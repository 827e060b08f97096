/*
 * mount_io.c - what libfuse 3.14 does not pass on, read off the requests and written into the
 * answer to INIT (K16).
 *
 * With HANDLE_KILLPRIV_V2 the kernel asks for security.capability once, not before each write,
 * and leaves it to us to drop set-id bits: it says in each WRITE, SETATTR and OPEN whether
 * its caller may keep them. The thread that reads a request is the one that handles it.
 */
#include "mount_internal.h"

#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

static __thread bool told_to_drop;

/* The argument behind the header, if it is whole. */
static const void *argument(const struct fuse_in_header *header, size_t size, size_t want)
{
    return size >= sizeof(*header) + want ? header + 1 : NULL;
}

static bool drops_setid(const struct fuse_in_header *header, size_t size)
{
    const struct fuse_write_in *write;
    const struct fuse_setattr_in *setattr;
    const struct fuse_open_in *open;
    switch (header->opcode) {
    case FUSE_WRITE:
        write = argument(header, size, sizeof(*write));
        return write && write->write_flags & FUSE_WRITE_KILL_SUIDGID;
    case FUSE_SETATTR:
        setattr = argument(header, size, sizeof(*setattr));
        return setattr && setattr->valid & FATTR_KILL_SUIDGID;
    case FUSE_OPEN:
        open = argument(header, size, sizeof(*open));
        return open && open->open_flags & FUSE_OPEN_KILL_SUIDGID;
    default:
        return false;
    }
}

static ssize_t io_read(int fd, void *to, size_t size, void *mount)
{
    struct fs_mount *m = mount;
    const struct fuse_in_header *header = to;
    ssize_t got = read(fd, to, size);
    told_to_drop = false;
    if (got < (ssize_t)sizeof(*header))
        return got;
    told_to_drop = drops_setid(header, (size_t)got);
    const struct fuse_init_in *init = argument(header, (size_t)got, sizeof(uint32_t[4]));
    if (header->opcode == FUSE_INIT && init) {
        m->init_unique = header->unique;
        m->tells_setid = init->flags & FUSE_HANDLE_KILLPRIV_V2;
    }
    return got;
}

static void answer_init(const struct fs_mount *m, const struct iovec *iov, int count)
{
    const struct fuse_out_header *header = iov[0].iov_base;
    if (count < 2 || header->unique != m->init_unique || header->error ||
        iov[1].iov_len < offsetof(struct fuse_init_out, max_background))
        return;
    struct fuse_init_out *init = iov[1].iov_base;
    init->flags |= FUSE_HANDLE_KILLPRIV_V2;
}

static ssize_t total(const struct iovec *iov, int count)
{
    ssize_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += (ssize_t)iov[i].iov_len;
    return bytes;
}

/* An answer to INIT is the first one there is. */
static ssize_t io_writev(int fd, struct iovec *iov, int count, void *mount)
{
    struct fs_mount *m = mount;
    if (m->io_ended) {
        m->answers_kept++;
        return total(iov, count);
    }
    if (m->init_unique) {
        if (m->tells_setid)
            answer_init(m, iov, count);
        m->init_unique = 0;
    }
    return writev(fd, iov, count);
}

int mount_io_start(struct fs_mount *m)
{
    static const struct fuse_custom_io io = {.read = io_read, .writev = io_writev};
    return fuse_session_custom_io(m->session, &io, fuse_session_fd(m->session));
}

/* With each request that libfuse sees it lets go of one INTERRUPT that has found none, and answers
 * that one too. BMAP is a request that nothing here handles. */
void mount_io_end(struct fs_mount *m)
{
    struct {
        struct fuse_in_header header;
        struct fuse_bmap_in argument;
    } request = {.header = {.len = sizeof(request), .opcode = FUSE_BMAP}};
    struct fuse_buf buffer = {.size = sizeof(request), .mem = &request};
    m->io_ended = true;
    do {
        m->answers_kept = 0;
        fuse_session_process_buf(m->session, &buffer);
    } while (m->answers_kept > 1);
}

bool request_drops_setid(fuse_req_t req)
{
    const struct fs_mount *m = fuse_req_userdata(req);
    return m->tells_setid ? told_to_drop : fuse_req_ctx(req)->uid != 0;
}
