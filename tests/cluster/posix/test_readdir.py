#!/usr/bin/python3
"""readdir, telldir, seekdir, rewinddir: a name that is there throughout is seen once, whatever
others do meanwhile."""

import ctypes
import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import Worker, check, check_equal  # noqa: E402
from posix_rules import fails_with, libc, main  # noqa: E402


class Dirent(ctypes.Structure):
    _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), ('reclen', ctypes.c_uint16),
                ('type', ctypes.c_uint8), ('name', ctypes.c_char * 256)]


libc.opendir.restype = ctypes.c_void_p
libc.opendir.argtypes = [ctypes.c_char_p]
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
for function in (libc.readdir, libc.telldir, libc.rewinddir, libc.closedir):
    function.argtypes = [ctypes.c_void_p]


class Stream:
    """A DIR, which Python does not have."""

    def __init__(self, path):
        self.dir = libc.opendir(os.fsencode(path))
        check(self.dir, f'opendir {path}')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        libc.closedir(self.dir)

    def next(self):
        """A name, but for "." and ".."; None at the end."""
        while True:
            ctypes.set_errno(0)
            entry = libc.readdir(self.dir)
            if not entry:
                check_equal(ctypes.get_errno(), 0, 'errno of readdir')
                return None
            if entry.contents.name not in (b'.', b'..'):
                return os.fsdecode(entry.contents.name)

    def rest(self):
        names = []
        while (name := self.next()) is not None:
            names.append(name)
        return names

    def tell(self):
        return libc.telldir(self.dir)

    def seek(self, place):
        libc.seekdir(self.dir, place)

    def rewind(self):
        libc.rewinddir(self.dir)


def listed(path):
    return [e.name for e in os.scandir(path)]


def check_once(path, expected, others=()):
    seen = listed(path)
    check_equal(len(seen), len(set(seen)), f'names listed, of {len(set(seen))} different ones')
    check_equal(sorted(set(seen) - set(others)), sorted(expected), 'names')


def while_changing(p, change, look):
    """Looks while `change` goes on on another host (or beside it, on one)."""
    stopped = False

    def run():
        turns = 0
        while not stopped:
            change(turns)
            turns += 1
        return turns
    worker = Worker(run)
    try:
        for _ in range(25):
            look()
    finally:
        stopped = True
    check(worker.result() > 0, 'nothing was changed meanwhile')


def rule_replaced_names_stay(p):
    names = [f'n{k:03}' for k in range(300)]
    for name in names:
        p.write(name)

    def replace(turn):
        temporary = p.there('.new')
        open(temporary, 'w').close()
        os.rename(temporary, p.there(names[turn * 7 % len(names)]))
    while_changing(p, replace, lambda: check_once(p.here(), names, ['.new']))


def rule_replaced_after_the_first_page(p):
    names = [f'n{k:03}'.ljust(100, 'x') for k in range(900)]
    for name in names:
        p.write(name)
    entries = os.scandir(p.here())
    seen = [next(entries).name]
    for name in (names[-1], names[-100]):
        open(p.there('.new'), 'w').close()
        os.rename(p.there('.new'), p.there(name))
    seen += [e.name for e in entries]
    check_equal(sorted(seen), names, 'names')


def rule_others_come_and_go(p):
    names = [f'n{k:03}' for k in range(0, 300, 2)]
    passing = [f'n{k:03}' for k in range(1, 300, 2)]
    for name in names:
        p.write(name)

    def come_and_go(turn):
        path = p.there(passing[turn * 11 % len(passing)])
        open(path, 'w').close()
        os.unlink(path)
    while_changing(p, come_and_go, lambda: check_once(p.here(), names, passing))


def rule_removed_while_listed(p):
    """What rm -r does: each listing goes on where it was."""
    for k in range(500):
        p.write(f'n{k}')
    removed = 0
    for entry in os.scandir(p.here()):
        os.unlink(p.there(entry.name))
        removed += 1
    check_equal(removed, 500, 'removed')
    p.check(os.listdir, [])


def rule_three_hosts_change_it(p):
    """Each its own names, over and over; and one replaces those that stay."""
    names = [f'n{k:04}' for k in range(0, 1500, 3)]
    for name in names:
        p.write(name)
    paths = p.everywhere()
    stopped, turns = [False], [0] * len(paths)

    def change(i):
        while not stopped[0]:
            k = turns[i] * 17 % 1500
            path = os.path.join(paths[i], f'n{k:04}-{i}')
            with open(path, 'w') as f:
                f.write('v')
            if i == 0:
                os.rename(path, os.path.join(paths[i], names[k // 3]))
            else:
                os.rename(path, f'{path}-moved')
                os.unlink(f'{path}-moved')
            turns[i] += 1
    workers = [Worker(change, i) for i in range(len(paths))]
    try:
        for _ in range(10):
            for path in paths:
                seen = listed(path)
                check_equal(len(seen), len(set(seen)), 'names listed, and different ones')
                check_equal(sorted(set(names) & set(seen)), names, 'names that stay')
    finally:
        stopped[0] = True
    for worker in workers:
        worker.result()
    check(all(turns), f'a host changed nothing: {turns}')
    p.check(lambda path: sorted(os.listdir(path)), names)


def make_far(p, names):
    for name in names:
        open(p.there(name), 'w').close()


def rule_places_stay(p):
    """telldir's numbers, after other hosts have removed the names they are behind, and have made
    others: what stays is on its side of each."""
    names = sorted([f'k{k}' for k in range(200)]
                   + [f'{k:03} of a title that is the same.{e}' for k in range(100)
                      for e in ('jpg', 'xmp')]
                   + ['e' * k for k in range(1, 200)])
    make_far(p, names)
    with Stream(p.here()) as d:
        start, order, places = d.tell(), [], []
        while (name := d.next()) is not None:
            order.append(name)
            places.append(d.tell())
        check_equal(sorted(order), names, 'names')
        kept = set(order[::4])
        for name in set(order) - kept:
            os.unlink(p.there(name))
        make_far(p, [name[:-1] + 'z' for name in order[1::7]])
        for i in range(len(order) - 1, -1, -9):
            d.seek(places[i])
            check_equal([n for n in d.rest() if n in kept],
                        [n for n in order[i + 1:] if n in kept], f'names behind {order[i]}')
        d.seek(start)
        check_equal([n for n in d.rest() if n in kept], [n for n in order if n in kept],
                    'names from the start')


def rule_rewind_sees_what_came(p):
    make_far(p, ['a', 'b', 'c'])
    with Stream(p.here()) as d:
        check_equal(sorted(d.rest()), ['a', 'b', 'c'], 'names')
        os.unlink(p.there('b'))
        make_far(p, ['d'])
        check_equal(d.next(), None, 'the end')
        d.rewind()
        check_equal(sorted(d.rest()), ['a', 'c', 'd'], 'names after rewinddir')


def rule_places_of_descriptors(p):
    """A number that was never given is refused; a descriptor's copy shares the place."""
    make_far(p, [f'f{k}' for k in range(10)])
    fd = os.open(p.here(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.lseek(fd, 1 << 61, os.SEEK_SET)
        fails_with(errno.EINVAL, os.listdir, fd)
        os.lseek(fd, 0, os.SEEK_SET)
        check_equal(len(os.listdir(fd)), 10, 'names')
        fails_with(errno.EISDIR, os.read, fd, 10)
    finally:
        os.close(fd)
    fails_with(errno.ENOTDIR, os.listdir, p.here('f1'))
    fails_with(errno.ENOENT, os.listdir, p.here('nothing'))


def rule_removed_directory_is_empty(p):
    for path in p.here('d'), p.there('d'):
        os.mkdir(p.here('d'))
        with Stream(p.here('d')) as d:
            os.rmdir(path)
            check_equal(d.next(), None, f'names in a directory that was removed by {path}')


def rule_names_of_all_bytes(p):
    """Every byte but / and NUL, and 255 of them."""
    names = [bytes([b]) for b in range(1, 256) if b not in b'/.'] + [b'\xff' * 255, b'x' * 255]
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(p.there()), name), os.O_CREAT | os.O_WRONLY))
    for path in p.everywhere():
        check_equal(sorted(os.listdir(os.fsencode(path))), sorted(names), 'names')


def rule_many_names(p):
    """More than the kernel asks for at once, and the numbers of `.` and `..`."""
    names = [f'{k:05}-{"x" * (k % 50)}' for k in range(3000)]
    for name in names:
        p.write(name)
    for path in p.everywhere():
        check_once(path, names)
        with Stream(path) as d:
            dots = [libc.readdir(d.dir).contents for _ in range(2)]
            check_equal({(e.name, e.ino) for e in dots},
                        {(b'.', os.stat(path).st_ino),
                         (b'..', os.stat(os.path.dirname(path)).st_ino)}, '. and ..')
    p.check(lambda path: os.stat(path).st_size, 3000)


def rule_types_and_numbers(p):
    p.write('f')
    os.mkdir(p.here('d'))
    os.symlink('f', p.here('s'))
    os.mkfifo(p.here('p'))
    os.link(p.here('f'), p.here('g'))
    for path in p.everywhere():
        for entry in os.scandir(path):
            st = os.lstat(os.path.join(path, entry.name))
            check_equal(entry.inode(), st.st_ino, f'inode of {entry.name}')
            check_equal((entry.is_dir(follow_symlinks=False), entry.is_symlink()),
                        (entry.name == 'd', entry.name == 's'), f'type of {entry.name}')


if __name__ == '__main__':
    main(globals())
