/* io.c - what every caller of the table of I/O functions needs: all of it, or an error.
 */
#include "store_internal.h"

#include <fcntl.h>
#include <stdarg.h>

ssize_t read_full(const struct store_io *io, int fd, void *to, size_t length,
                  uint64_t offset)
{
    size_t done = 0;
    while (done < length) {
        ssize_t n = io->pread(io->context, fd, (uint8_t *)to + done, length - done,
                              offset + done);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int write_full(const struct store_io *io, int fd, struct iovec *iov, int count,
               uint64_t offset)
{
    while (count > 0) {
        ssize_t n = io->pwritev(io->context, fd, iov, count, offset);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return -EIO; /* no progress and no reason */
        offset += (uint64_t)n;
        size_t left = (size_t)n;
        for (; count > 0 && left >= iov->iov_len; iov++, count--)
            left -= iov->iov_len;
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

int write_gathered(const struct store_io *io, int fd, struct buf *out, uint64_t *offset)
{
    if (out->failed)
        return -ENOMEM;
    struct iovec iov = {out->data, out->length};
    int rc = out->length > 0 ? write_full(io, fd, &iov, 1, *offset) : 0;
    if (rc == 0) {
        *offset += out->length;
        buf_clear(out);
    }
    return rc;
}

int write_piece(const struct store_io *io, int fd, struct buf *out, uint64_t *offset)
{
    uint64_t begin = *offset;
    int rc = write_gathered(io, fd, out, offset);
    return rc == 0 && io->write_out ? io->write_out(io->context, fd, begin, *offset) : rc;
}

int file_write(const struct store_io *io, const char *path, const struct buf *bytes)
{
    int fd = io->open(io->context, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    struct iovec iov = {bytes->data, bytes->length};
    int rc = write_full(io, fd, &iov, 1, 0);
    if (rc == 0)
        rc = io->sync_all(io->context, fd);
    io->close(io->context, fd);
    return rc;
}

int file_read(const struct store_io *io, const char *path, uint64_t limit_bytes,
              struct buf *to)
{
    int fd = io->open(io->context, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    uint64_t size;
    int rc = io->size(io->context, fd, &size);
    if (rc == 0 && size > limit_bytes)
        rc = -EBADMSG;
    uint8_t *data = rc == 0 ? buf_extend(to, size + 1) : NULL;
    if (rc == 0 && !data)
        rc = -ENOMEM;
    if (rc == 0) {
        ssize_t n = read_full(io, fd, data, size, 0);
        rc = n < 0 ? (int)n : 0;
        to->length = n < 0 ? 0 : (size_t)n;
    }
    io->close(io->context, fd);
    return rc;
}

bool all_zero(const uint8_t *data, size_t length)
{
    return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}

int store_fail(char error[STORE_ERROR_BYTES], int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, STORE_ERROR_BYTES, format, args);
    va_end(args);
    return code;
}

int store_fail_call(char error[STORE_ERROR_BYTES], int code, const char *what,
                    const char *path)
{
    return store_fail(error, code, "cannot %s %s: %s", what, path, strerror(-code));
}

int store_fail_format(char error[STORE_ERROR_BYTES], int code, const char *path,
                      const char *what)
{
    if (code == -EPROTONOSUPPORT)
        return store_fail(error, code,
                          "%s is of a newer format than this tierce knows: install a "
                          "newer version of tierce",
                          path);
    return store_fail(error, code, "%s: %s; " STORE_REMEDY, path, what);
}

int store_fail_cluster(char error[STORE_ERROR_BYTES], const struct store *s,
                       const uint8_t cluster_id[STORE_CLUSTER_ID_BYTES], const char *path)
{
    if (memcmp(cluster_id, s->cluster_id, STORE_CLUSTER_ID_BYTES) == 0)
        return 0;
    char theirs[2 * STORE_CLUSTER_ID_BYTES + 1], ours[2 * STORE_CLUSTER_ID_BYTES + 1];
    hex_format(theirs, cluster_id, STORE_CLUSTER_ID_BYTES);
    hex_format(ours, s->cluster_id, STORE_CLUSTER_ID_BYTES);
    return store_fail(error, -EXDEV,
                      "%s belongs to cluster %s, not to %s: use the data directory of "
                      "this cluster",
                      path, theirs, ours);
}
