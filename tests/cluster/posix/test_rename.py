#!/usr/bin/python3
"""rename, and renameat2 with its flags, as every host is to see them."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import Failure, Worker, check, check_equal, in_parallel  # noqa: E402
from posix_rules import (RENAME_EXCHANGE, RENAME_NOREPLACE, fails_with, main,  # noqa: E402
                         nlink, read, rename2)

RENAME_WHITEOUT = 4


def names(path):
    return sorted(os.listdir(path))


def rule_moves(p):
    p.write('a', b'value')
    os.makedirs(p.here('d', 'e'))
    before = os.stat(p.here('a'))
    os.rename(p.here('a'), p.here('d', 'b'))
    p.check(names, ['d'])
    p.check(read, b'value', 'd', 'b')
    after = os.stat(p.there('d', 'b'))
    check_equal(after.st_ino, before.st_ino, 'inode')
    check_equal(after.st_mtime_ns, before.st_mtime_ns, 'mtime')
    check(after.st_ctime_ns > before.st_ctime_ns, 'ctime did not move')
    os.rename(p.here('d', 'e'), p.here('e'))
    p.check(nlink, 2, 'd')
    p.check(lambda path: os.stat(os.path.join(path, '..')).st_ino,
            os.stat(p.here()).st_ino, 'e')


def rule_over(p):
    p.write('a', b'new')
    p.write('b', b'old')
    os.rename(p.here('a'), p.here('b'))
    p.check(read, b'new', 'b')
    os.mkdir(p.here('d'))
    os.mkdir(p.here('e'))
    os.rename(p.here('d'), p.here('e'))
    p.check(names, ['b', 'e'])
    p.check(nlink, 3)
    os.symlink('b', p.here('s'))
    os.rename(p.here('s'), p.here('b'))  # the symlink itself, not what it leads to
    p.check(os.readlink, 'b', 'b')


def rule_kinds_must_match(p):
    p.write('f')
    os.mkdir(p.here('d'))
    os.mkdir(p.here('full'))
    p.write('full/x')
    fails_with(errno.ENOTDIR, os.rename, p.here('d'), p.here('f'))
    fails_with(errno.EISDIR, os.rename, p.here('f'), p.here('d'))
    fails_with(errno.ENOTEMPTY, os.rename, p.here('d'), p.here('full'))
    fails_with(errno.ENOTDIR, os.rename, p.here('f') + '/', p.here('g'))
    p.check(names, ['d', 'f', 'full'])


def rule_not_below_itself(p):
    os.makedirs(p.here('a', 'b', 'c'))
    fails_with(errno.EINVAL, os.rename, p.here('a'), p.here('a', 'x'))
    fails_with(errno.EINVAL, os.rename, p.here('a'), p.here('a', 'b', 'c', 'x'))
    fails_with(errno.ENOTEMPTY, os.rename, p.here('a', 'b'), p.here('a'))
    fails_with(errno.EBUSY, os.rename, p.here('a', '.'), p.here('x'))
    fails_with(errno.EBUSY, os.rename, p.here('a', 'b', '..'), p.here('x'))
    p.check(names, ['a'])


def rule_hosts_cross(p):
    """a into b on one host, b into a on another: one of them comes too late."""
    def move(source, target):
        try:
            os.rename(source, target)
        except OSError as e:
            check(e.errno in (errno.EINVAL, errno.ENOENT, errno.ELOOP), str(e))
            return 0
        return 1
    for k in range(10):
        a, b = f'a{k}', f'b{k}'
        os.mkdir(p.here(a))
        os.mkdir(p.here(b))
        moved = in_parallel(move, [(p.here(a), p.here(b, a)), (p.there(b), p.there(a, b))])
        check_equal(sum(moved), 1, 'how many moved')
        outer, inner = (b, a) if moved[0] else (a, b)
        p.check(names, [inner], outer)


def rule_same_file(p):
    p.write('a', b'one')
    os.link(p.here('a'), p.here('b'))
    os.rename(p.here('a'), p.here('b'))
    os.rename(p.here('a'), p.here('a'))
    p.check(names, ['a', 'b'])


def rule_errors(p):
    p.write('a')
    os.symlink('loop', p.here('loop'))
    fails_with(errno.ENOENT, os.rename, p.here('nothing'), p.here('b'))
    fails_with(errno.ENOENT, os.rename, p.here('a'), p.here('nothing', 'b'))
    fails_with(errno.ENOTDIR, os.rename, p.here('a'), p.here('a', 'b'))
    fails_with(errno.ENAMETOOLONG, os.rename, p.here('a'), p.here('n' * 256))
    fails_with(errno.ENAMETOOLONG, os.rename, p.here('n' * 256), p.here('a'))
    fails_with(errno.ELOOP, os.rename, p.here('a'), p.here('loop', 'b'))
    fails_with(errno.EXDEV, os.rename, p.here('a'), '/dev/shm/tierce-rename')
    os.rename(p.here('a'), p.here('n' * 255))
    p.check(names, sorted(['loop', 'n' * 255]))


def rule_noreplace(p):
    p.write('a', b'a')
    p.write('b', b'b')
    fails_with(errno.EEXIST, rename2, p.here('a'), p.here('b'), RENAME_NOREPLACE)
    fails_with(errno.EEXIST, rename2, p.here('a'), p.here('a'), RENAME_NOREPLACE)
    rename2(p.here('a'), p.here('c'), RENAME_NOREPLACE)
    p.check(read, b'a', 'c')
    p.check(names, ['b', 'c'])


def rule_noreplace_between_hosts(p):
    def take(path, k, i):
        try:
            rename2(os.path.join(path, f'from{i}'), os.path.join(path, f'to{k}'),
                    RENAME_NOREPLACE)
        except FileExistsError:
            return 0
        return 1
    for k in range(10):
        for i in range(len(p.everywhere())):
            p.write(f'from{i}')
        won = in_parallel(take, [(path, k, i) for i, path in enumerate(p.everywhere())])
        check_equal(sum(won), 1, 'how many took the name')


def rule_exchange(p):
    p.write('f', b'file')
    os.makedirs(p.here('d', 'sub'))
    os.mkdir(p.here('other'))
    p.write('other/x', b'x')
    rename2(p.here('f'), p.here('d'), RENAME_EXCHANGE)
    p.check(read, b'file', 'd')
    p.check(names, ['sub'], 'f')
    rename2(p.here('f', 'sub'), p.here('other', 'x'), RENAME_EXCHANGE)
    p.check(read, b'x', 'f', 'sub')
    p.check(nlink, 2, 'f')
    p.check(nlink, 3, 'other')
    p.check(lambda path: os.stat(os.path.join(path, '..')).st_ino,
            os.stat(p.here('other')).st_ino, 'other', 'x')
    fails_with(errno.ENOENT, rename2, p.here('f'), p.here('nothing'), RENAME_EXCHANGE)
    fails_with(errno.EINVAL, rename2, p.here('other'), p.here('other', 'x'), RENAME_EXCHANGE)
    fails_with(errno.EINVAL, rename2, p.here('other', 'x'), p.here('other'), RENAME_EXCHANGE)
    fails_with(errno.EINVAL, rename2, p.here('f'), p.here('other'),
               RENAME_EXCHANGE | RENAME_NOREPLACE)
    fails_with(errno.EINVAL, rename2, p.here('f'), p.here('other'), RENAME_WHITEOUT)
    p.check(names, ['d', 'f', 'other'])


def rule_exchange_while_open(p):
    p.write('a', b'first')
    p.write('b', b'second')
    with open(p.here('a'), 'r+b', buffering=0) as here, \
            open(p.there('a'), 'r+b', buffering=0) as there:
        rename2(p.here('a'), p.here('b'), RENAME_EXCHANGE)
        os.pwrite(here.fileno(), b'F', 0)
        os.fsync(here.fileno())
        check_equal(os.pread(there.fileno(), 10, 0), b'First', 'read there')
        check_equal(os.fstat(there.fileno()).st_nlink, 1, 'nlink there')
    p.check(read, b'First', 'b')
    p.check(read, b'second', 'a')


def rule_exchanged_names_are_always_there(p):
    p.write('a', b'1')
    p.write('b', b'2')
    stopped = False

    def look(path):
        while not stopped:
            for name in 'ab':
                check(read(os.path.join(path, name)) in (b'1', b'2'), 'a foreign value')
    readers = [Worker(look, path) for path in p.everywhere()]

    def swap(path):
        for _ in range(30):
            rename2(os.path.join(path, 'a'), os.path.join(path, 'b'), RENAME_EXCHANGE)
    try:
        in_parallel(swap, [(path,) for path in p.everywhere()])
    finally:
        stopped = True
    for reader in readers:
        reader.result()
    values = {read(p.here('a')), read(p.here('b'))}
    if values != {b'1', b'2'}:
        raise Failure(f'after exchanges the values are {values}')


if __name__ == '__main__':
    main(globals())
