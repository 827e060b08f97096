#!/usr/bin/python3
"""rmdir: what it refuses, and a directory that somebody stands in, on any host."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal, wait_for  # noqa: E402
from posix_rules import fails_with, main, nlink  # noqa: E402


def errno_of(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except OSError as e:
        return e.errno
    return 0


def rule_refused(p):
    os.makedirs(p.here('d', 'in'))
    p.write('f')
    os.symlink('d', p.here('link'))
    fails_with(errno.ENOENT, os.rmdir, p.here('none'))
    fails_with(errno.ENOTDIR, os.rmdir, p.here('f'))
    fails_with(errno.ENOTDIR, os.rmdir, p.here('link'))
    fails_with(errno.EINVAL, os.rmdir, p.here('d', '.'))
    fails_with(errno.ENOTEMPTY, os.rmdir, p.here('d', 'in', '..'))
    fails_with(errno.ENOTEMPTY, os.rmdir, p.there('d'))


def rule_counts(p):
    os.mkdir(p.here('d'))
    p.check(nlink, 3)
    before = os.stat(p.here()).st_mtime_ns
    os.rmdir(p.there('d'))
    p.check(nlink, 2)
    check(os.stat(p.here()).st_mtime_ns > before, 'mtime of the parent did not move')
    fails_with(errno.ENOENT, os.stat, p.here('d'))


def rule_somebody_stands_in_it(p):
    """Everything in it is ENOENT, here at once, there when the kernel has been told."""
    for where, remover in ((p.here, p.here), (p.here, p.there), (p.there, p.here)):
        os.mkdir(p.here('d'))
        fd = os.open(where('d'), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.rmdir(remover('d'))
            wait_for(lambda: os.fstat(fd).st_nlink == 0, 'the directory to have no name')
            check_equal(errno_of(os.open, 'x', os.O_CREAT | os.O_RDWR, dir_fd=fd), errno.ENOENT,
                        'create')
            check_equal(errno_of(os.mkdir, 'x', dir_fd=fd), errno.ENOENT, 'mkdir')
            check_equal(errno_of(os.stat, 'x', dir_fd=fd), errno.ENOENT, 'stat')
            check_equal(errno_of(os.symlink, 'x', 'y', dir_fd=fd), errno.ENOENT, 'symlink')
            p.write('f')
            check_equal(errno_of(os.rename, where('f'), 'x', dst_dir_fd=fd), errno.ENOENT,
                        'rename into it')
            check_equal(errno_of(os.chmod, fd, 0o700), 0, 'chmod')
        finally:
            os.close(fd)


def rule_renamed_over(p):
    os.mkdir(p.here('old'))
    os.makedirs(p.here('new', 'in'))
    fd = os.open(p.here('old'), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rename(p.there('new'), p.there('old'))
        wait_for(lambda: os.fstat(fd).st_nlink == 0, 'the directory to have no name')
        check_equal(errno_of(os.stat, 'in', dir_fd=fd), errno.ENOENT, 'stat in it')
        p.check(os.listdir, ['in'], 'old')
    finally:
        os.close(fd)


if __name__ == '__main__':
    sys.exit(main(globals()))
