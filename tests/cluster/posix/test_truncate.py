#!/usr/bin/python3
"""Other sizes: truncate, ftruncate."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main, opened, read, stretches_of  # noqa: E402

MiB = 1 << 20
DATA = bytes(range(1, 251)) * 2000
BERT = 4712


def rule_shorter_and_longer(p):
    """What was cut is zeros when the file is longer again, in and behind a page."""
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        for size in (300001, 70000, 4097, 100):
            os.ftruncate(fd, size)
            check_equal(os.fstat(fd).st_size, size, 'st_size')
            os.ftruncate(fd, 400000)
            check_equal(os.pread(fd, 500000, 0), DATA[:size] + bytes(400000 - size), 'here')
            p.check(read, DATA[:size] + bytes(400000 - size), 'f')
    os.truncate(p.there('f'), 0)
    p.check(read, b'', 'f')
    os.truncate(p.there('f'), 10)
    p.check(read, bytes(10), 'f')


def rule_sizes_do_not_move_the_offset(p):
    with opened(p.there('f')) as fd:
        os.write(fd, b'abcdef')
        os.ftruncate(fd, 2)
        os.write(fd, b'g')
    p.check(read, b'ab\0\0\0\0g', 'f')


def rule_what_is_buffered_is_cut(p):
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        os.pwrite(fd, b'x' * 1000, 499900)
        os.ftruncate(fd, 500000)
        check_equal(os.pread(fd, 2000, 499890), DATA[499890:499900] + b'x' * 100, 'here')
    p.check(read, DATA[:499900] + b'x' * 100, 'f')


def rule_longer_is_a_hole(p):
    p.write('f', b'abc')
    os.truncate(p.there('f'), 10 * MiB)
    p.check(stretches_of, [(0, 4096)], 'f')
    check(os.stat(p.here('f')).st_blocks <= 64, 'a hole takes no room')


def rule_times(p):
    """mtime and ctime change, also where the size stays (as POSIX says of ftruncate and Linux
    does for both)."""
    p.write('f', b'abc')
    for size in (3, 2, 100):
        os.utime(p.here('f'), ns=(1, 1))
        os.truncate(p.there('f'), size)
        for path in p.everywhere('f'):
            check(os.stat(path).st_mtime_ns > 1, f'mtime of {path} after truncate {size}')


def rule_errors(p):
    p.write('f', DATA)
    os.symlink('loop', p.here('loop'))
    fails_with(errno.EINVAL, os.truncate, p.there('f'), -1)
    fails_with(errno.EFBIG, os.truncate, p.there('f'), (1 << 40) + 1)
    fails_with(errno.EISDIR, os.truncate, p.there(), 0)
    fails_with(errno.ENOENT, os.truncate, p.there('none'), 0)
    fails_with(errno.ENOTDIR, os.truncate, p.there('f', 'x'), 0)
    fails_with(errno.ELOOP, os.truncate, p.there('loop'), 0)
    fails_with(errno.ENAMETOOLONG, os.truncate, p.there('n' * 256), 0)
    with opened(p.there('f'), os.O_RDONLY) as fd:
        fails_with(errno.EINVAL, os.ftruncate, fd, 0)
    os.mkfifo(p.here('p'))
    fails_with(errno.EINVAL, os.truncate, p.there('p'), 0)
    check_equal(p.as_user(BERT, "os.truncate('f', 0)", at=p.there()), 'EACCES', 'another user')
    p.check(read, DATA, 'f')


def rule_a_replaced_value(p):
    """O_TRUNC and ftruncate(0) behind it: one value, when it is closed."""
    p.write('f', DATA)
    with opened(p.there('f'), os.O_RDWR | os.O_TRUNC) as fd:
        os.write(fd, b'first')
        os.ftruncate(fd, 0)
        os.pwrite(fd, b'second', 0)
        if p.others:
            check_equal(read(p.here('f')), DATA, 'elsewhere')
    p.check(read, b'second', 'f')


def rule_a_terabyte(p):
    with opened(p.there('f')) as fd:
        os.ftruncate(fd, 1 << 40)
        for i in range(8, 40, 4):
            os.pwrite(fd, b'x', 1 << i)
        os.fsync(fd)
        for i in range(36, 8, -4):
            os.ftruncate(fd, (1 << i) + 1)
            p.check(lambda path: os.stat(path).st_size, (1 << i) + 1, 'f')
        check_equal(os.pread(fd, 10, 1 << 12), b'x', 'what is left')


if __name__ == '__main__':
    main(globals())
