#!/usr/bin/python3
"""Written means written: fsync, fdatasync, close, sync; and what they say of what failed."""

import errno
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, wait_for  # noqa: E402
from posix_rules import fails_with, main, opened, read  # noqa: E402

def rule_synced_is_everywhere(p):
    for i, sync in enumerate((os.fsync, os.fdatasync)):
        with opened(p.there('f')) as fd:
            for j in range(20):
                os.pwrite(fd, b'%d.%d' % (i, j), 0)
                sync(fd)
                p.check(lambda path: read(path)[:len(b'%d.%d' % (i, j))], b'%d.%d' % (i, j),
                        'f')


def rule_closed_is_everywhere(p):
    for j in range(20):
        with opened(p.there('f'), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            os.write(fd, b'%d' % j)
        p.check(read, b'%d' % j, 'f')
    for j in range(20):
        with opened(p.there('f'), os.O_WRONLY) as fd:
            os.pwrite(fd, b'%d' % (j % 10), 0)
        p.check(lambda path: read(path)[:1], b'%d' % (j % 10), 'f')


def rule_what_another_wrote(p):
    """fsync is for the file, not for what the descriptor has written; one for reading may."""
    p.write('f', b'old')
    with opened(p.there('f')) as writer, opened(p.there('f'), os.O_RDONLY) as reader:
        os.pwrite(writer, b'new', 0)
        os.fsync(reader)
        p.check(read, b'new', 'f')


def rule_names_are_written_when_they_are_made(p):
    os.mkdir(p.there('d'))
    os.rename(p.there('d'), p.there('e'))
    p.check(os.listdir, [], 'e')
    with opened(p.there(), os.O_RDONLY) as directory:
        os.fsync(directory)
        os.fdatasync(directory)


def rule_buffered_is_written_soon(p):
    """By itself, where nobody syncs or closes."""
    p.write('f', b'old')
    with opened(p.there('f')) as fd:
        os.pwrite(fd, b'new', 0)
        for path in p.everywhere('f'):
            wait_for(lambda: read(path) == b'new', f'{path} has what was written')


def rule_other_descriptors(p):
    os.mkfifo(p.here('p'))
    with opened(p.there('p'), os.O_RDWR) as fd:
        fails_with(errno.EINVAL, os.fsync, fd)


def rule_dd_conv_fsync(p):
    subprocess.run(['dd', 'if=/dev/zero', f'of={p.there("f")}', 'bs=64k', 'count=40',
                    'conv=fsync', 'status=none'], check=True, timeout=100)
    p.check(lambda path: os.stat(path).st_size, 40 << 16, 'f')
    subprocess.run(['sync', p.there('f')], check=True, timeout=100)
    subprocess.run(['sync', '-d', p.there('f')], check=True, timeout=100)


def rule_a_write_that_failed_is_told(p):
    """By fsync or close of who wrote it, once; here since the file's end is not where the
    writer thought: two hosts fill it up to its limit."""
    limit = 1 << 40
    with opened(p.here('f')) as fd:
        os.ftruncate(fd, limit - 5)
    with opened(p.there('f'), os.O_WRONLY | os.O_APPEND) as late:
        os.lseek(late, 0, os.SEEK_END)
        with opened(p.here('f')) as fd:
            os.pwrite(fd, b'first', limit - 5)
            os.fsync(fd)
        try:
            os.write(late, b'four')
        except OSError as e:
            check_equal(e.errno, errno.EFBIG, 'the write')
            return  # it was told already
        fails_with(errno.EFBIG, os.fsync, late)
        os.fsync(late)
    with opened(p.here('f'), os.O_RDONLY) as fd:
        check_equal(os.pread(fd, 9, limit - 5), b'first', 'the end')


if __name__ == '__main__':
    main(globals())
