#!/usr/bin/python3
"""Writing: where, how much, with which flags of the descriptor."""

import errno
import fcntl
import os
import resource
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import fails_with, main, opened, read  # noqa: E402

LIMIT = 1 << 40  # a file's size


def rule_where(p):
    with opened(p.there('f')) as fd:
        os.write(fd, b'abc')
        os.write(fd, b'def')
        os.pwrite(fd, b'X', 1)
        os.pwrite(fd, b'Y', 9)
        os.write(fd, b'g')
        check_equal(os.pread(fd, 20, 0), b'aXcdefg\0\0Y', 'on that host')
    p.check(read, b'aXcdefg\0\0Y', 'f')


def rule_nothing(p):
    p.write('f', b'abc')
    os.utime(p.here('f'), ns=(1, 1))
    with opened(p.there('f')) as fd:
        check_equal(os.write(fd, b''), 0, 'written')
        check_equal(os.pwrite(fd, b'', 100), 0, 'written')
    p.check(read, b'abc', 'f')
    p.check(lambda path: os.stat(path).st_mtime_ns, 1, 'f')


def rule_many_parts(p):
    with opened(p.there('f')) as fd:
        os.pwritev(fd, [b'ab', b'', b'cde', b'f' * 10000], 3)
        check_equal(os.preadv(fd, [bytearray(2), bytearray(5)], 3), 7, 'read')
    p.check(read, bytes(3) + b'abcde' + b'f' * 10000, 'f')


def rule_rights(p):
    p.write('f', b'abc')
    with opened(p.there('f'), os.O_RDONLY) as fd:
        fails_with(errno.EBADF, os.write, fd, b'x')
    with opened(p.there('f'), os.O_WRONLY) as fd:
        fails_with(errno.EBADF, os.read, fd, 1)
        fails_with(errno.EINVAL, os.pwrite, fd, b'x', -1)


def rule_synced_writes_are_everywhere(p):
    """O_SYNC, O_DSYNC, O_DIRECT, RWF_DSYNC: when the call returns."""
    p.write('f', b'.' * 8192)
    for i, flag in enumerate((os.O_SYNC, os.O_DSYNC, os.O_DIRECT)):
        with opened(p.there('f'), os.O_RDWR | flag) as fd:
            for j in range(3):
                os.pwrite(fd, bytes([65 + 3 * i + j]) * 100, 4000)
                for path in p.everywhere('f'):
                    check_equal(read(path)[3999:4101],
                                b'.' + bytes([65 + 3 * i + j]) * 100 + b'.', path)
    with opened(p.there('f')) as fd:
        os.pwritev(fd, [b'per', b' write'], 0, os.RWF_DSYNC)
        for path in p.everywhere('f'):
            check_equal(read(path)[:9], b'per write', path)


def rule_the_flag_may_come_later(p):
    """fcntl gives a descriptor O_APPEND and O_DIRECT."""
    p.write('f', b'abc')
    with opened(p.there('f'), os.O_RDWR) as fd:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        os.pwrite(fd, b'd', 0)  # as on Linux: at the end
        os.write(fd, b'e')
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        os.pwrite(fd, b'A', 0)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
        os.pwrite(fd, b'B', 1)
        check_equal(read(p.here('f')), b'ABcde', 'after a direct write')
    p.check(read, b'ABcde', 'f')


def rule_direct_reads_see_what_is_buffered(p):
    p.write('f', b'old' * 3000)
    with opened(p.there('f'), os.O_RDWR) as fd:
        os.pwrite(fd, b'new', 3)
        with opened(p.there('f'), os.O_RDONLY | os.O_DIRECT) as direct:
            check_equal(os.pread(direct, 9, 0), b'oldnewold', 'read directly')


def rule_appends_of_two_hosts(p):
    """Neither loses a line, nor overwrites the other's, whatever each thinks the end is."""
    p.write('f')
    with opened(p.here('f'), os.O_WRONLY | os.O_APPEND) as a:
        with opened(p.there('f'), os.O_WRONLY | os.O_APPEND) as b:
            for i in range(50):
                os.write(a, b'a%d\n' % i)
                os.write(b, b'b%d\n' % i)
    for path in p.everywhere('f'):
        lines = read(path).decode().split('\n')[:-1]
        for host in 'ab':
            check_equal([line for line in lines if line[0] == host],
                        [f'{host}{i}' for i in range(50)], f'lines of {host} in {path}')
        check_equal(len(lines), 100, 'lines')


def rule_the_largest_file(p):
    """Up to the limit a write does what it can, at the limit it fails; what is in the middle
    costs no more than anywhere."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with opened(p.there('f')) as fd:
        check_equal(os.pwrite(fd, b'abcdef', LIMIT - 3), 3, 'written')
        fails_with(errno.EFBIG, os.pwrite, fd, b'x', LIMIT)
        fails_with(errno.EFBIG, os.pwrite, fd, b'x', LIMIT + 100)
        fails_with(errno.EFBIG, os.ftruncate, fd, LIMIT + 1)
        os.pwrite(fd, b'middle', LIMIT // 2 - 3)
        os.fsync(fd)
    for path in p.everywhere('f'):
        with opened(path, os.O_RDONLY) as fd:
            st = os.fstat(fd)
            check_equal(st.st_size, LIMIT, 'st_size')
            check_equal(st.st_blocks <= 64, True, f'{st.st_blocks} blocks')
            check_equal(os.pread(fd, 10, LIMIT - 4), b'\0abc', 'the end')
            check_equal(os.pread(fd, 8, LIMIT // 2 - 4), b'\0middle\0', 'the middle')
    with opened(p.there('f')) as fd:
        os.lseek(fd, LIMIT, os.SEEK_SET)
        fails_with(errno.EFBIG, os.write, fd, b'x')
    with opened(p.there('f'), os.O_WRONLY | os.O_APPEND) as fd:
        fails_with(errno.EFBIG, os.write, fd, b'x')
    os.truncate(p.there('f'), LIMIT // 2)
    p.check(lambda path: os.stat(path).st_size, LIMIT // 2, 'f')


def rule_the_processs_own_limit(p):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(p.there('f')) as fd:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, before[1]))
        try:
            check_equal(os.pwrite(fd, b'x' * 100, 9950), 50, 'written')
            fails_with(errno.EFBIG, os.pwrite, fd, b'x', 10000)
            fails_with(errno.EFBIG, os.ftruncate, fd, 10001)
            fails_with(errno.EFBIG, os.posix_fallocate, fd, 0, 10001)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    p.check(lambda path: os.stat(path).st_size, 10000, 'f')


if __name__ == '__main__':
    main(globals())
