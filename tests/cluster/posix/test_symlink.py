#!/usr/bin/python3
"""symlink and readlink, and what follows a symbolic link and what does not."""

import errno
import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, in_parallel  # noqa: E402
from posix_rules import fails_with, libc, main, mode, nlink, read  # noqa: E402

ANNA = 4711
MOST_LINKS = 40  # the kernel follows in one path
LONGEST = 4095   # bytes of a target


def rule_targets(p):
    """Any bytes, up to the longest path; nothing is made of them."""
    for k, target in enumerate([b'a', b'/an/absolute/one', b'../..', b'.', b'//a//', b'a/',
                                b'\xff\xfe\n\t \\', 'ä'.encode(), b'x' * 255, b'x' * 256,
                                b'd/' * 2047, b'y' * LONGEST]):
        os.symlink(target, os.fsencode(p.here(f's{k}')))
        p.check(lambda path: os.readlink(os.fsencode(path)), target, f's{k}')
        p.check(lambda path: os.lstat(path).st_size, len(target), f's{k}')
        p.check(lambda path: os.lstat(path).st_mode, stat.S_IFLNK | 0o777, f's{k}')
        p.check(nlink, 1, f's{k}')
    fails_with(errno.ENAMETOOLONG, os.symlink, 'y' * (LONGEST + 1), p.here('s'))
    fails_with(errno.ENOENT, os.symlink, '', p.here('s'))
    p.check(nlink, 2)


def rule_errors(p):
    p.write('file')
    os.mkdir(p.here('directory'))
    os.symlink('nothing', p.here('dangling'))
    os.symlink('loop', p.here('loop'))
    before = sorted(os.listdir(p.here()))
    for name, expected in (('file', errno.EEXIST), ('directory', errno.EEXIST),
                           ('dangling', errno.EEXIST), ('loop', errno.EEXIST),
                           ('.', errno.EEXIST), ('file/x', errno.ENOTDIR),
                           ('nothing/x', errno.ENOENT), ('dangling/x', errno.ENOENT),
                           ('loop/x', errno.ELOOP), ('n' * 256, errno.ENAMETOOLONG),
                           ('new/', errno.ENOENT)):
        for path in p.everywhere(name):
            fails_with(expected, os.symlink, 'target', path)
    p.check(lambda path: sorted(os.listdir(path)), before)


def rule_readlink(p):
    p.write('file')
    os.symlink('a target', p.here('s'))
    fails_with(errno.EINVAL, os.readlink, p.there('file'))
    fails_with(errno.EINVAL, os.readlink, p.there())
    fails_with(errno.ENOENT, os.readlink, p.there('nothing'))
    fails_with(errno.ENOTDIR, os.readlink, p.there('file', 'x'))
    for size in (1, 4, 8, 100):  # cut without an error, and without an end
        import ctypes
        to = ctypes.create_string_buffer(b'#' * 200, 200)
        got = libc.readlink(os.fsencode(p.there('s')), to, size)
        check_equal(got, min(size, 8), f'readlink into {size} bytes')
        check_equal(to.raw[:got + 1], b'a target'[:got] + b'#', 'what it wrote')


def rule_what_follows(p):
    p.write('file', b'value')
    os.mkdir(p.here('d'))
    p.write('d/x', b'x')
    os.symlink('file', p.here('s'))
    os.symlink('d', p.here('sd'))
    os.chmod(p.here('s'), 0o604)
    p.check(mode, oct(0o604), 'file')
    os.chown(p.there('s'), ANNA, ANNA)
    p.check(lambda path: (os.stat(path).st_uid, os.lstat(path).st_uid), (ANNA, 0), 's')
    p.check(read, b'value', 's')
    with open(p.there('s'), 'ab') as f:
        f.write(b' and more')
    p.check(read, b'value and more', 'file')
    os.truncate(p.here('s'), 5)
    os.utime(p.here('s'), ns=(10**18, 10**18 + 1))
    p.check(lambda path: os.stat(path).st_mtime_ns, 10**18 + 1, 'file')
    p.check(os.listdir, ['x'], 'sd')
    p.check(read, b'x', 'sd', 'x')
    os.mkdir(p.there('sd', 'e'))
    p.check(nlink, 3, 'd')
    p.check(lambda path: os.stat(path).st_ino, os.stat(p.here()).st_ino, 'sd', '..')


def rule_what_does_not(p):
    p.write('file', b'value')
    os.mkdir(p.here('d'))
    os.symlink('file', p.here('s'))
    os.symlink('d', p.here('sd'))
    fails_with(errno.ELOOP, os.open, p.there('s'), os.O_RDONLY | os.O_NOFOLLOW)
    fails_with(errno.ELOOP, os.open, p.there('sd'),
               os.O_RDONLY | os.O_NOFOLLOW)
    fails_with(errno.ENOTDIR, os.open, p.there('sd'),
               os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    fd = os.open(p.there('s'), os.O_PATH | os.O_NOFOLLOW)
    check_equal(stat.S_ISLNK(os.fstat(fd).st_mode), True, 'O_PATH | O_NOFOLLOW')
    check_equal(os.readlink('', dir_fd=fd), 'file', 'readlink of a descriptor')
    os.close(fd)
    os.chown(p.there('s'), ANNA, ANNA, follow_symlinks=False)
    p.check(lambda path: (os.stat(path).st_uid, os.lstat(path).st_uid), (0, ANNA), 's')
    os.utime(p.there('s'), ns=(10**18, 10**18), follow_symlinks=False)
    p.check(lambda path: os.lstat(path).st_mtime_ns, 10**18, 's')
    fails_with(errno.ENOTDIR, os.rmdir, p.there('sd'))
    fails_with(errno.ENOTDIR, os.rename, p.there('d'), p.there('sd'))
    os.rename(p.there('sd'), p.there('moved'))
    p.check(os.readlink, 'd', 'moved')
    os.unlink(p.there('moved'))
    os.unlink(p.there('s'))
    p.check(read, b'value', 'file')
    p.check(lambda path: sorted(os.listdir(path)), ['d', 'file'])


def rule_a_slash_behind_it(p):
    p.write('file')
    os.mkdir(p.here('d'))
    for name in ('file', 'd', 'nothing'):
        os.symlink(name, p.here('to-' + name))
    p.check(lambda path: stat.S_ISDIR(os.lstat(path + '/').st_mode), True, 'to-d')
    fails_with(errno.ENOTDIR, os.lstat, p.there('to-file') + '/')
    fails_with(errno.ENOENT, os.lstat, p.there('to-nothing') + '/')
    fails_with(errno.ENOTDIR, os.unlink, p.there('to-d') + '/')
    fails_with(errno.EINVAL, os.readlink, p.there('to-d') + '/')


def rule_dangling(p):
    """Opened with O_CREAT it makes what it leads to, on whichever host; not with O_EXCL."""
    os.symlink('made', p.here('s'))
    fails_with(errno.ENOENT, os.stat, p.there('s'))
    fails_with(errno.ENOENT, os.open, p.there('s'), os.O_RDWR)
    fails_with(errno.EEXIST, os.open, p.there('s'), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    with open(p.there('s'), 'wb') as f:
        f.write(b'value')
    p.check(read, b'value', 'made')
    p.check(os.readlink, 'made', 's')
    os.unlink(p.here('made'))
    fails_with(errno.ENOENT, os.stat, p.there('s'))


def rule_loops_and_chains(p):
    os.symlink('b', p.here('a'))
    os.symlink('a', p.here('b'))
    os.symlink('self/x', p.here('self'))
    for name in ('a', 'b', 'self', 'a/x'):
        for path in p.everywhere(name):
            fails_with(errno.ELOOP, os.stat, path)
            fails_with(errno.ELOOP, os.open, path, os.O_RDWR | os.O_CREAT)
    p.write('s0', b'end')
    for k in range(MOST_LINKS + 1):
        os.symlink(f's{k}', p.here(f's{k + 1}'))
    p.check(read, b'end', f's{MOST_LINKS}')
    fails_with(errno.ELOOP, os.stat, p.there(f's{MOST_LINKS + 1}'))


def rule_a_link_is_exchanged_at_once(p):
    """ln -sf and mv -T: whoever follows it sees one target or the other."""
    p.write('one', b'1')
    p.write('two', b'2')
    os.symlink('one', p.here('current'))
    stop = False

    def follow(path):
        seen = 0
        while not stop:
            value = read(os.path.join(path, 'current'))
            if value not in (b'1', b'2'):
                raise AssertionError(f'{value} was read')
            seen += 1
        return seen
    from cluster import Worker
    readers = [Worker(follow, path) for path in p.everywhere()]

    def switch(path, i):
        for k in range(20):
            new = os.path.join(path, f'new{i}')
            os.symlink(('one', 'two')[k % 2], new)
            os.rename(new, os.path.join(path, 'current'))
    try:
        in_parallel(switch, [(path, i) for i, path in enumerate(p.everywhere())])
    finally:
        stop = True
    for reader in readers:
        check_equal(reader.result() > 0, True, 'reads')
    p.check(lambda path: sorted(os.listdir(path)), ['current', 'one', 'two'])


if __name__ == '__main__':
    main(globals())
