#!/usr/bin/python3
"""Room for a file, and holes in it: fallocate, posix_fallocate."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import (  # noqa: E402
    COLLAPSE_RANGE, INSERT_RANGE, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE,
    fails_with, fallocate, main, mode, opened, read, stretches_of)

MiB = 1 << 20
DATA = bytes(range(1, 251)) * 2000  # 500 000 bytes, none of them zero
BERT = 4712


def size(path):
    return os.stat(path).st_size


def blocks(path):
    return os.stat(path).st_blocks


def rule_room_makes_a_file_longer(p):
    """And what was there stays; the new part is zeros."""
    p.write('f', b'abc')
    with opened(p.there('f')) as fd:
        fallocate(fd, 0, 1, 9)
        check_equal(os.pread(fd, 100, 0), b'abc' + bytes(7), 'on that host')
        p.check(read, b'abc' + bytes(7), 'f')
        os.posix_fallocate(fd, 0, 5)  # within the size: nothing changes
        p.check(size, 10, 'f')
        os.posix_fallocate(fd, MiB, MiB)
        p.check(size, 2 * MiB, 'f')


def rule_room_may_lie_behind_the_end(p):
    p.write('f', b'abc')
    with opened(p.there('f')) as fd:
        fallocate(fd, KEEP_SIZE, 0, 10 * MiB)
    p.check(read, b'abc', 'f')


def rule_a_hole_is_zeros_and_takes_no_room(p):
    p.write('f', DATA)
    before = blocks(p.here('f'))
    expected = bytearray(DATA)
    with opened(p.there('f')) as fd:
        for offset, length in ((5000, 1), (100, 4000), (65536, 65536), (200000, 150001)):
            fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
            expected[offset:offset + length] = bytes(length)
            check_equal(os.pread(fd, len(DATA) + 1, 0), bytes(expected), 'on that host')
            p.check(read, bytes(expected), 'f')
    for path in p.everywhere('f'):
        check(blocks(path) <= before - 400, f'{blocks(path)} blocks, {before} before')
        check_equal([s for s in stretches_of(path) if s[0] >= 65536],
                    [(131072, 200704), (348160, 500000)], f'data of {path}')


def rule_a_hole_ends_with_the_file(p):
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 400000, 10 * MiB)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 10 * MiB, 10 * MiB)
        fails_with(errno.EOPNOTSUPP, fallocate, fd, PUNCH_HOLE, 0, 10)  # as the call says
    p.check(read, DATA[:400000] + bytes(100000), 'f')


def rule_a_range_is_zeroed(p):
    """It may make the file longer, or not."""
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        fallocate(fd, ZERO_RANGE | KEEP_SIZE, 499990, 100)
        p.check(read, DATA[:-10] + bytes(10), 'f')
        fallocate(fd, ZERO_RANGE, 10, 600000)
    p.check(read, DATA[:10] + bytes(600000), 'f')


def rule_what_is_written_before_and_after(p):
    """Buffered writes of the same process lie before and behind the hole, in that order."""
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        os.pwrite(fd, b'before' * 1000, 1000)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 2000, 3000)
        os.pwrite(fd, b'after', 3000)
        expected = bytearray(DATA)
        expected[1000:7000] = b'before' * 1000
        expected[2000:5000] = bytes(3000)
        expected[3000:3005] = b'after'
        check_equal(os.pread(fd, len(DATA), 0), bytes(expected), 'on that host')
        os.fsync(fd)
    p.check(read, bytes(expected), 'f')


def rule_a_value_in_progress(p):
    """Room and holes of one that is being replaced are unseen elsewhere, as it is."""
    p.write('f', b'old')
    with opened(p.there('f'), os.O_RDWR | os.O_TRUNC) as fd:
        fallocate(fd, 0, 0, 100)
        os.pwrite(fd, b'new value', 0)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 3, 1)
        check_equal(os.pread(fd, 9, 0), b'new\0value', 'on that host')
        if p.others:
            check_equal(read(p.here('f')), b'old', 'elsewhere')
    p.check(read, b'new\0value' + bytes(91), 'f')


def rule_errors(p):
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        fails_with(errno.EINVAL, fallocate, fd, 0, -1, 10)
        fails_with(errno.EINVAL, fallocate, fd, 0, 0, 0)
        fails_with(errno.EFBIG, fallocate, fd, 0, 1 << 40, 1)
        fails_with(errno.EFBIG, fallocate, fd, KEEP_SIZE, 1 << 40, 1)
        fails_with(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE_RANGE, 0, 4096)
        fails_with(errno.EOPNOTSUPP, fallocate, fd, INSERT_RANGE, 0, 4096)
        fails_with(errno.ENOSPC, fallocate, fd, 0, 0, 1 << 40)  # no such disk
        fails_with(errno.ENOSPC, fallocate, fd, KEEP_SIZE, 0, 1 << 40)
    p.check(read, DATA, 'f')
    with opened(p.there('f'), os.O_RDONLY) as fd:
        fails_with(errno.EBADF, fallocate, fd, 0, 0, 10)
    with opened(p.there(), os.O_RDONLY) as fd:
        fails_with(errno.EBADF, fallocate, fd, 0, 0, 10)


def rule_times_and_set_id(p):
    p.write('f', DATA)
    for change in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE):
        os.utime(p.here('f'), ns=(1, 1))
        with opened(p.there('f')) as fd:
            fallocate(fd, change, 0, 600000)
        for path in p.everywhere('f'):
            check(os.stat(path).st_mtime_ns > 1, f'mtime after fallocate {change}')
    os.chmod(p.here('f'), 0o6777)
    check_equal(p.as_user(BERT, "os.posix_fallocate(os.open('f', os.O_RDWR), 0, 700000)",
                          at=p.there()), 'ok', 'room')
    p.check(mode, oct(0o777), 'f')


def rule_a_terabyte(p):
    """A hole of what was never written costs nothing, however large."""
    with opened(p.there('f')) as fd:
        os.ftruncate(fd, 1 << 40)
        os.pwrite(fd, b'middle', 1 << 39)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, (1 << 39) + 3)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, (1 << 39) + 5, (1 << 39) - 5)
        check_equal(os.pread(fd, 6, 1 << 39), bytes(3) + b'dl\0', 'the middle')
    p.check(size, 1 << 40, 'f')
    p.check(stretches_of, [(1 << 39, (1 << 39) + 4096)], 'f')


if __name__ == '__main__':
    main(globals())
