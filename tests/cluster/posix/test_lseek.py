#!/usr/bin/python3
"""Where data lies: lseek with SEEK_DATA and SEEK_HOLE; and the other kinds of it."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import fails_with, main, opened, stretches, stretches_of  # noqa: E402

MiB = 1 << 20


def rule_holes_are_told(p):
    with opened(p.there('f')) as fd:
        os.ftruncate(fd, 3 * MiB)
        os.pwrite(fd, b'x' * 8192, MiB)
        os.pwrite(fd, b'y', 2 * MiB + 5000)
        expected = [(MiB, MiB + 8192), (2 * MiB + 4096, 2 * MiB + 8192)]
        check_equal(stretches(fd), expected, 'while it is buffered')
        os.fsync(fd)
        check_equal(stretches(fd), expected, 'when it is committed')
        p.check(stretches_of, expected, 'f')
        check_equal(os.lseek(fd, MiB + 17, os.SEEK_DATA), MiB + 17, 'within data')
        check_equal(os.lseek(fd, MiB + 17, os.SEEK_HOLE), MiB + 8192, 'its end')
        check_equal(os.lseek(fd, 17, os.SEEK_HOLE), 17, 'within a hole')
        check_equal(os.lseek(fd, 0, os.SEEK_CUR), 17, 'where it stands then')


def rule_behind_the_last_data(p):
    p.write('f', b'abc')
    with opened(p.there('f')) as fd:
        check_equal(os.lseek(fd, 2, os.SEEK_DATA), 2, 'data')
        check_equal(os.lseek(fd, 0, os.SEEK_HOLE), 3, 'the end is a hole')
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            fails_with(errno.ENXIO, os.lseek, fd, 3, whence)
            fails_with(errno.ENXIO, os.lseek, fd, 4, whence)
            fails_with(errno.ENXIO, os.lseek, fd, -1, whence)
        os.ftruncate(fd, MiB)
        fails_with(errno.ENXIO, os.lseek, fd, 4096, os.SEEK_DATA)
        check_equal(os.lseek(fd, MiB - 1, os.SEEK_HOLE), MiB - 1, 'the hole at the end')
        os.ftruncate(fd, 0)
        fails_with(errno.ENXIO, os.lseek, fd, 0, os.SEEK_DATA)
        fails_with(errno.ENXIO, os.lseek, fd, 0, os.SEEK_HOLE)


def rule_a_value_in_progress(p):
    """As far as it is written, on the writer's host; elsewhere the old one."""
    with opened(p.there('f')) as fd:
        os.ftruncate(fd, MiB)
    with opened(p.there('f'), os.O_RDWR | os.O_TRUNC) as fd:
        os.pwrite(fd, b'x' * (3 * MiB), MiB)
        os.pwrite(fd, b'x', 6 * MiB)
        check_equal(stretches(fd), [(MiB, 4 * MiB), (6 * MiB, 6 * MiB + 1)], 'here')
        if p.others:
            check_equal(stretches_of(p.here('f')), [], 'elsewhere')
    p.check(stretches_of, [(MiB, 4 * MiB), (6 * MiB, 6 * MiB + 1)], 'f')


def rule_other_hosts_writes(p):
    """Are in it at once when they are committed."""
    with opened(p.here('f')) as here, opened(p.there('f')) as there:
        os.ftruncate(here, MiB)
        for i in range(5):
            at = (5 - i) * 131072
            os.pwrite(there, b'x' * 4096, at)
            os.fsync(there)
            check_equal(os.lseek(here, 0, os.SEEK_DATA), at, 'the first data')


def rule_offsets(p):
    p.write('f', b'abcdef')
    with opened(p.there('f')) as fd:
        check_equal(os.lseek(fd, 4, os.SEEK_SET), 4, 'set')
        check_equal(os.read(fd, 10), b'ef', 'read from there')
        check_equal(os.lseek(fd, -3, os.SEEK_CUR), 3, 'back')
        fails_with(errno.EINVAL, os.lseek, fd, -4, os.SEEK_CUR)
        fails_with(errno.EINVAL, os.lseek, fd, -7, os.SEEK_END)
        fails_with(errno.EINVAL, os.lseek, fd, 0, 77)
        with opened(p.here('f')) as other:
            os.pwrite(other, b'ghi', 6)
            os.fsync(other)
        check_equal(os.lseek(fd, 0, os.SEEK_END), 9, 'the end that another host made')
        check_equal(os.lseek(fd, 1 << 39, os.SEEK_END), (1 << 39) + 9, 'beyond')
        check_equal(os.read(fd, 1), b'', 'nothing is there')
    os.mkfifo(p.here('p'))
    with opened(p.there('p'), os.O_RDWR) as fd:
        fails_with(errno.ESPIPE, os.lseek, fd, 0, os.SEEK_SET)


if __name__ == '__main__':
    main(globals())
