#!/usr/bin/python3
"""What stat and statfs say: numbers, sizes, blocks, kinds."""

import errno
import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main  # noqa: E402


def ino(path):
    return os.lstat(path).st_ino


def blocks(path):
    return os.lstat(path).st_blocks


def size(path):
    return os.lstat(path).st_size


def rule_inode_numbers(p):
    """Stable over changes of the file and of its name, the same everywhere, never shared."""
    p.write('f', b'value')
    number = ino(p.here('f'))
    p.check(ino, number, 'f')
    p.write('f', b'a new value')
    with open(p.there('f'), 'ab') as f:
        f.write(b'x' * 100000)
    os.link(p.here('f'), p.here('g'))
    os.rename(p.there('f'), p.there('h'))
    p.check(ino, number, 'g')
    p.check(ino, number, 'h')
    seen = {number}
    for i in range(50):
        name = p.write(f'n{i}', b'x') if i % 2 else p.there(f'n{i}')
        if not i % 2:
            os.mkdir(name)
        check(ino(name) not in seen, 'a number was given twice')
        seen.add(ino(name))
    os.unlink(p.here('n1'))
    p.write('n1')
    check(ino(p.there('n1')) not in seen, 'the number of a removed file came back')
    listed = {e.name: e.inode() for e in os.scandir(p.there())}
    for name, inode in listed.items():
        check_equal(inode, ino(p.here(name)), f'd_ino of {name}')


def rule_numbers_while_open(p):
    fd = os.open(p.here('f'), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    number = os.fstat(fd).st_ino
    os.write(fd, b'value')
    check_equal(ino(p.here('f')), number, 'before it is made')
    os.close(fd)
    p.check(ino, number, 'f')


def rule_kinds(p):
    p.write('f')
    os.mkdir(p.here('d'))
    os.symlink('target', p.here('l'))
    os.mkfifo(p.here('p'))
    os.mknod(p.here('s'), stat.S_IFSOCK | 0o600)
    os.mknod(p.here('c'), stat.S_IFCHR | 0o600, os.makedev(511, 70000))
    os.mknod(p.here('b'), stat.S_IFBLK | 0o600, os.makedev(7, 3))
    kinds = {'f': stat.S_IFREG, 'd': stat.S_IFDIR, 'l': stat.S_IFLNK, 'p': stat.S_IFIFO,
             's': stat.S_IFSOCK, 'c': stat.S_IFCHR, 'b': stat.S_IFBLK}
    for name, kind in kinds.items():
        p.check(lambda path: stat.S_IFMT(os.lstat(path).st_mode), kind, name)
    p.check(lambda path: os.lstat(path).st_rdev, os.makedev(511, 70000), 'c')
    p.check(lambda path: os.lstat(path).st_rdev, os.makedev(7, 3), 'b')
    p.check(size, 6, 'l')
    p.check(lambda path: os.stat(path).st_dev == os.stat(os.path.dirname(path)).st_dev, True, 'f')


def rule_blocks(p):
    """Of 512 bytes; a hole has none."""
    p.write('f', b'x' * 100000)
    for path in p.everywhere('f'):
        check(100000 <= blocks(path) * 512 <= 110000, f'{blocks(path)} blocks')
    os.truncate(p.there('f'), 10 ** 8)
    p.check(size, 10 ** 8, 'f')
    for path in p.everywhere('f'):
        check(100000 <= blocks(path) * 512 <= 110000, f'{blocks(path)} blocks and a hole')
    p.write('g')
    p.check(blocks, 0, 'g')


def rule_blocks_of_what_is_not_committed(p):
    with open(p.here('f'), 'wb') as f:
        f.write(b'x' * 50000)
        f.flush()
        check(blocks(p.here('f')) * 512 >= 50000, 'blocks of a buffered write')
        check_equal(size(p.here('f')), 50000, 'size of a buffered write')
        f.seek(10 ** 8)
        f.write(b'x')
        f.flush()
        check(blocks(p.here('f')) * 512 < 200000, 'a hole that is buffered has no blocks')
    for path in p.everywhere('f'):
        check(50000 <= blocks(path) * 512 <= 200000, f'{blocks(path)} blocks after it')


def rule_statfs(p):
    for path in p.everywhere():
        fs = os.statvfs(path)
        check_equal(fs.f_namemax, 255, 'the longest name')
        check(0 < fs.f_bavail <= fs.f_bfree <= fs.f_blocks, 'room')
        check(0 < fs.f_favail <= fs.f_ffree <= fs.f_files, 'inodes')
        check(fs.f_frsize and fs.f_bsize, 'sizes of blocks')


def rule_errors(p):
    p.write('f')
    os.symlink('l', p.here('l'))
    os.symlink('nowhere', p.here('n'))
    for path in (p.there('none'), p.there('none', 'x'), p.there('n'), p.there('f') + 'x'):
        fails_with(errno.ENOENT, os.stat, path)
    fails_with(errno.ENOTDIR, os.stat, p.there('f', 'x'))
    fails_with(errno.ENOTDIR, os.stat, p.there('f') + '/')
    fails_with(errno.ELOOP, os.stat, p.there('l'))
    fails_with(errno.ENAMETOOLONG, os.stat, p.there('x' * 256))
    os.chmod(p.here(), 0o755)
    os.mkdir(p.here('d'), 0o700)
    p.write('d/f')
    check_equal(p.as_user(4711, "os.stat('d/f')", at=p.there()), 'EACCES', 'a closed directory')
    check_equal(p.as_user(4711, "os.stat('d')", at=p.there()), 'ok', 'its own attributes')


if __name__ == '__main__':
    main(globals())
