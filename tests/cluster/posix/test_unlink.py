#!/usr/bin/python3
"""unlink: the name goes at once, the file when nobody holds it any more, on any host."""

import ctypes
import errno
import mmap
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal, wait_for  # noqa: E402
from posix_rules import AT_FDCWD, fails_with, libc, main, read  # noqa: E402

AT_SYMLINK_FOLLOW = 0x400
SIZES = (0, 5, 4096, 5000, 3 << 20)


def value(size):
    return (b'0123456789abcdef' * (size // 16 + 1))[:size]


def keys(path):
    """How many records the store has, all in all; looked at once a second."""
    st = os.statvfs(path)
    return st.f_files - st.f_ffree


def check_open(f, expected):
    st = os.fstat(f.fileno())
    check_equal((st.st_nlink, st.st_size), (0, len(expected)), 'nlink and size')
    check_equal(os.pread(f.fileno(), len(expected) + 1, 0), expected, 'what is read')


def rule_names(p):
    os.mkdir(p.here('d'))
    os.symlink('nowhere', p.here('link'))
    os.mkfifo(p.here('fifo'))
    fails_with(errno.ENOENT, os.unlink, p.here('none'))
    fails_with(errno.EISDIR, os.unlink, p.here('d'))
    before = os.stat(p.here()).st_mtime_ns
    os.unlink(p.here('link'))
    os.unlink(p.there('fifo'))
    check(os.stat(p.here()).st_mtime_ns > before, 'mtime of the directory did not move')
    p.check(os.listdir, ['d'])


def rule_open_files_outlive_it(p):
    """Whoever removes it, and wherever it is open."""
    for remover in (p.here, p.there):
        for size in SIZES:
            p.write('f', value(size))
            with open(p.here('f'), 'r+b', buffering=0) as here, \
                    open(p.there('f'), 'r+b', buffering=0) as there:
                os.unlink(remover('f'))
                fails_with(errno.ENOENT, os.stat, p.here('f'))
                fails_with(errno.ENOENT, os.stat, p.there('f'))
                check_open(here, value(size))
                check_open(there, value(size))


def rule_it_goes_on_as_a_file(p):
    """What one host commits, the others that have it open see."""
    with open(p.write('f', value(100000)), 'r+b', buffering=0) as here, \
            open(p.there('f'), 'r+b', buffering=0) as there:
        os.unlink(p.there('f'))
        os.pwrite(here.fileno(), b'more', 100000)
        os.fsync(here.fileno())
        check_open(there, value(100000) + b'more')
        os.ftruncate(there.fileno(), 7)
        os.fchmod(there.fileno(), 0o600)
        os.utime(there.fileno(), ns=(5, 7))
        check_open(here, value(7))
        check_equal(oct(os.fstat(here.fileno()).st_mode & 0o7777), oct(0o600), 'mode')
        check_equal(os.fstat(here.fileno()).st_mtime_ns, 7, 'mtime')
        with open(f'/proc/self/fd/{here.fileno()}', 'wb') as again:
            again.write(b'another value')
        check_open(there, b'another value')


def rule_no_name_again(p):
    with open(p.write('f', b'x'), 'rb') as f:
        os.unlink(p.there('f'))
        result = libc.linkat(AT_FDCWD, f'/proc/self/fd/{f.fileno()}'.encode(), AT_FDCWD,
                             p.here('g').encode(), AT_SYMLINK_FOLLOW)
        check_equal((result, ctypes.get_errno()), (-1, errno.ENOENT), 'a link to it')
    fails_with(errno.EOPNOTSUPP, os.open, p.here(), os.O_TMPFILE | os.O_RDWR)
    p.check(os.listdir, [])


def rule_renamed_over(p):
    for size in SIZES:
        p.write('old', value(size))
        p.write('new', b'new')
        with open(p.here('old'), 'rb') as here, open(p.there('old'), 'rb') as there:
            os.rename(p.there('new'), p.there('old'))
            check_open(here, value(size))
            check_open(there, value(size))
            p.check(read, b'new', 'old')


def rule_mapped(p):
    """Without a handle: what is mapped is held."""
    with open(p.write('f', value(100000)), 'r+b') as f:
        mapped = mmap.mmap(f.fileno(), 100000)
    os.unlink(p.there('f'))
    check_equal(mapped[:], value(100000), 'what is mapped')
    mapped[0:4] = b'MINE'
    mapped.flush()
    check_equal(mapped[:8], b'MINE4567', 'what is mapped')
    mapped.close()


def rule_nothing_is_left(p):
    """Also what other hosts have only looked up, or had open."""
    names = [f'f{i}' for i in range(300)]
    # Counted once a second, first a second after the start: what the cluster has made for itself
    # since is in it or not. A file is three records.
    wait_for(lambda: all(keys(path) for path in p.everywhere()), 'the records to be counted')
    before = max(keys(path) for path in p.everywhere()) + 60
    for name in names:
        p.write(name, value(5000))
    wait_for(lambda: keys(p.here()) >= before + len(names), 'the files to be counted')
    held = [open(p.there(name), 'rb') for name in names[:50]]
    for path in p.everywhere():
        check_equal(len([e.stat().st_size for e in os.scandir(path)]), len(names), 'names')
    for i, name in enumerate(names):
        os.unlink((p.here, p.there)[i % 2](name))
    for f in held:
        check_open(f, value(5000))
        f.close()
    for i in range(len(p.cluster.nodes)):
        wait_for(lambda i=i: keys(p.cluster.path(i)) <= before, 'all of it to be gone')


if __name__ == '__main__':
    sys.exit(main(globals()))
