#!/usr/bin/python3
"""link: one file of several names, on every host."""

import errno
import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main, nlink, read  # noqa: E402


def inode(path):
    return os.lstat(path).st_ino


def rule_one_file(p):
    p.write('a', b'value')
    os.mkdir(p.here('d'))
    before = os.stat(p.here('a'))
    os.link(p.here('a'), p.here('d', 'b'))
    p.check(nlink, 2, 'a')
    p.check(inode, before.st_ino, 'd', 'b')
    after = os.stat(p.there('a'))
    check(after.st_ctime_ns > before.st_ctime_ns, 'ctime did not move')
    check_equal(after.st_mtime_ns, before.st_mtime_ns, 'mtime')
    with open(p.there('d', 'b'), 'r+b') as f:
        f.write(b'VALUE and more')
    p.check(read, b'VALUE and more', 'a')
    os.chmod(p.there('a'), 0o640)
    p.check(lambda path: os.stat(path).st_mode, stat.S_IFREG | 0o640, 'd', 'b')


def rule_removal(p):
    """The last name takes the value with it, and only that one."""
    value = bytes(range(256)) * 1000
    p.write('a', value)
    os.link(p.here('a'), p.here('b'))
    os.unlink(p.there('a'))
    p.check(nlink, 1, 'b')
    p.check(read, value, 'b')
    fails_with(errno.ENOENT, os.stat, p.here('a'))
    os.unlink(p.here('b'))
    p.check(os.listdir, [])


def rule_open_while_one_name_goes(p):
    for size in (3, 5000, 2 << 20):
        p.write('a', b'x' * size)
        os.link(p.here('a'), p.here('b'))
        with open(p.here('a'), 'r+b', buffering=0) as here, \
                open(p.there('a'), 'r+b', buffering=0) as there:
            os.unlink(p.here('a'))
            check_equal(os.fstat(here.fileno()).st_nlink, 1, 'nlink here')
            check_equal(os.fstat(there.fileno()).st_nlink, 1, 'nlink there')
            os.pwrite(here.fileno(), b'H', 0)
            os.fsync(here.fileno())
            os.pwrite(there.fileno(), b'T', 1)
            os.fsync(there.fileno())
            check_equal(os.pread(here.fileno(), 3, 0), b'HTx', 'read here')
        p.check(lambda path: read(path)[:3], b'HTx', 'b')
        os.unlink(p.here('b'))


def rule_rename(p):
    """Over one of two names the file lives on; from one to the other nothing happens."""
    p.write('a', b'old')
    p.write('new', b'new')
    os.link(p.here('a'), p.here('b'))
    os.rename(p.here('a'), p.here('b'))
    p.check(lambda path: sorted(os.listdir(path)), ['a', 'b', 'new'])
    os.rename(p.here('new'), p.here('a'))
    p.check(read, b'old', 'b')
    p.check(nlink, 1, 'b')
    p.check(read, b'new', 'a')


def rule_kinds(p):
    os.mkfifo(p.here('fifo'))
    os.symlink('nowhere', p.here('symlink'))
    os.mknod(p.here('null'), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for name in ('fifo', 'symlink', 'null'):
        os.link(p.here(name), p.here(name + '2'), follow_symlinks=False)
        p.check(nlink, 2, name + '2')
        p.check(lambda path: stat.S_IFMT(os.lstat(path).st_mode),
                stat.S_IFMT(os.lstat(p.here(name)).st_mode), name + '2')
    p.check(os.readlink, 'nowhere', 'symlink2')


def rule_errors(p):
    p.write('a', b'')
    os.mkdir(p.here('d'))
    os.symlink('loop', p.here('loop'))
    link = os.link
    fails_with(errno.EEXIST, link, p.here('a'), p.here('a'))
    fails_with(errno.EEXIST, link, p.here('a'), p.here('d'))
    fails_with(errno.EPERM, link, p.here('d'), p.here('e'))
    fails_with(errno.ENOENT, link, p.here('nothing'), p.here('b'))
    fails_with(errno.ENOENT, link, p.here('a'), p.here('nothing', 'b'))
    fails_with(errno.ENOTDIR, link, p.here('a'), p.here('a', 'b'))
    fails_with(errno.ENAMETOOLONG, link, p.here('a'), p.here('n' * 256))
    fails_with(errno.ELOOP, link, p.here('a'), p.here('loop', 'b'))
    fails_with(errno.EXDEV, link, p.here('a'), '/dev/shm/tierce-link')
    link(p.here('a'), p.here('n' * 255))
    p.check(nlink, 2, 'a')


def rule_one_of_two_callers_wins(p):
    """The same new name from two hosts at once."""
    from cluster import in_parallel
    p.write('a', b'')

    def try_link(path, k):
        try:
            os.link(os.path.join(path, 'a'), os.path.join(path, f'l{k}'))
        except FileExistsError:
            return 0
        return 1
    for k in range(20):
        won = in_parallel(try_link, [(path, k) for path in p.everywhere()])
        check_equal(sum(won), 1, f'how many made l{k}')
    p.check(nlink, 21, 'a')


if __name__ == '__main__':
    main(globals())
