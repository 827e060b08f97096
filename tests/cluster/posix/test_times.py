#!/usr/bin/python3
"""Which calls change which times, on every host. Reading changes none: atime is what was set, or
when the file was made."""

import ctypes
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import RENAME_EXCHANGE, libc, main, rename2  # noqa: E402

UTIME_NOW, UTIME_OMIT, AT_FDCWD = (1 << 30) - 1, (1 << 30) - 2, -100
NAMES = {'a': 'st_atime_ns', 'm': 'st_mtime_ns', 'c': 'st_ctime_ns'}


class Timespec(ctypes.Structure):
    _fields_ = [('seconds', ctypes.c_long), ('nanoseconds', ctypes.c_long)]


def utimensat(path, atime, mtime):
    """utimensat itself, for UTIME_NOW and UTIME_OMIT."""
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    if libc.utimensat(AT_FDCWD, os.fsencode(path), ctypes.byref(times), 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def times(path):
    st = os.lstat(path)
    return {key: getattr(st, name) for key, name in NAMES.items()}


def changes(p, expected, call):
    """`expected`: names to the times (of 'amc') that `call` must change, and it no others."""
    before = {name: times(p.here(name)) for name in expected}
    call()
    for name, wanted in expected.items():
        for path in p.everywhere(name):
            now = times(path)
            changed = ''.join(key for key in 'amc' if now[key] != before[name][key])
            check_equal(changed, wanted, f'what changed of {name}')
            for key in changed:
                check_equal(now[key] > before[name][key], True, f'{key}time of {name} rose')


def rule_a_new_file(p):
    changes(p, {'.': 'mc'}, lambda: p.write('f'))
    st = os.stat(p.there('f'))
    check_equal(st.st_mtime_ns == st.st_ctime_ns, True, 'times of a new file agree')
    for make in (lambda: os.mkdir(p.there('d')), lambda: os.symlink('x', p.there('l')),
                 lambda: os.mkfifo(p.there('p')),
                 lambda: os.close(os.open(p.there('x'), os.O_CREAT | os.O_EXCL))):
        changes(p, {'.': 'mc'}, make)
    changes(p, {'.': '', 'd': 'mc'}, lambda: os.mkdir(p.there('d', 'e')))


def append(path, data=b'more'):
    with open(path, 'ab') as f:
        f.write(data)


def rule_what_changes_a_file(p):
    p.write('f', b'value')
    f = p.there('f')
    changes(p, {'f': 'mc', '.': ''}, lambda: append(f))
    changes(p, {'f': 'mc'}, lambda: os.truncate(f, 3))
    changes(p, {'f': 'mc'}, lambda: os.truncate(f, 100))
    changes(p, {'f': 'mc'}, lambda: open(f, 'wb').close())
    changes(p, {'f': 'mc'}, lambda: append(f, b'x' * 100000))
    changes(p, {'f': 'c', '.': ''}, lambda: os.chmod(f, 0o600))
    changes(p, {'f': 'c'}, lambda: os.chmod(f, 0o600))
    changes(p, {'f': 'c', '.': ''}, lambda: os.chown(f, 1, 1))
    changes(p, {'f': 'c', '.': ''}, lambda: os.setxattr(f, 'user.a', b'x'))
    changes(p, {'f': 'c', '.': ''}, lambda: os.removexattr(f, 'user.a'))


def rule_what_changes_nothing(p):
    p.write('f', b'value')
    os.symlink('f', p.here('l'))
    os.mkdir(p.here('d'))

    def look():
        with open(p.there('f'), 'rb') as f:
            f.read()
        os.readlink(p.there('l'))
        os.listdir(p.there('d'))
        os.stat(p.there('l'))
        os.listxattr(p.there('f'))
        os.close(os.open(p.there('f'), os.O_RDWR | os.O_CREAT | os.O_APPEND))
    changes(p, {'f': '', 'l': '', 'd': '', '.': ''}, look)


def rule_names(p):
    p.write('f', b'value')
    os.mkdir(p.here('d'))
    os.mkdir(p.here('e'))
    changes(p, {'f': 'c', '.': '', 'd': 'mc'}, lambda: os.link(p.there('f'), p.there('d', 'g')))
    changes(p, {'f': 'c', '.': '', 'd': 'mc'}, lambda: os.unlink(p.there('d', 'g')))
    changes(p, {'.': 'mc', 'd': 'mc', 'e': ''},
            lambda: os.rename(p.there('f'), p.there('d', 'f')))
    changes(p, {'d/f': 'c', 'd': 'mc'},
            lambda: (os.rename(p.there('d', 'f'), p.there('d', 'x')),
                     os.rename(p.there('d', 'x'), p.there('d', 'f'))))
    p.write('g')
    os.link(p.here('g'), p.here('h'))
    changes(p, {'h': 'c', '.': 'mc', 'd': 'mc'},  # renamed over a name of it
            lambda: os.rename(p.there('d', 'f'), p.there('g')))
    changes(p, {'.': 'mc', 'd': ''}, lambda: os.rmdir(p.there('e')))
    p.write('d/i')
    changes(p, {'.': 'mc', 'd': 'mc'},
            lambda: rename2(p.there('d', 'i'), p.there('g'), RENAME_EXCHANGE))


def rule_times_are_set_to_the_nanosecond(p):
    p.write('f')
    for atime, mtime in ((1, 2), (1234567890123456789, 987654321987654321),
                         (-1, -1500000001), (0, 4102444800000000007)):
        changes(p, {'.': ''}, lambda: os.utime(p.there('f'), ns=(atime, mtime)))
        for path in p.everywhere('f'):
            now = times(path)
            check_equal((now['a'], now['m']), (atime, mtime), 'times set')
    for far, kept in ((16725225600, 9223372036), (1 << 62, 9223372036),
                      (-11676096000, -9223372036), (-(1 << 62), -9223372036)):
        utimensat(p.there('f'), (far, 5), (far, 7))  # beyond what there is room for: its end
        for path in p.everywhere('f'):
            now = times(path)
            check_equal((now['a'], now['m']), (kept * 10 ** 9,) * 2, f'{far} s')
        check_equal(os.stat(p.here('f')).st_size, len(open(p.here('f'), 'rb').read()), 'read')
    os.symlink('f', p.here('l'))
    os.utime(p.there('l'), ns=(5, 6), follow_symlinks=False)
    for path in p.everywhere('l'):
        check_equal((times(path)['a'], times(path)['m']), (5, 6), 'times of a link')


def rule_now_and_omit(p):
    p.write('f', b'value')
    changes(p, {'f': 'c'}, lambda: os.chmod(p.here('f'), 0o644))
    os.utime(p.here('f'), ns=(5, 7))
    changes(p, {'f': 'mc'}, lambda: utimensat(p.there('f'), (0, UTIME_OMIT), (0, UTIME_NOW)))
    changes(p, {'f': 'ac'}, lambda: utimensat(p.there('f'), (0, UTIME_NOW), (0, UTIME_OMIT)))
    changes(p, {'f': 'ac'}, lambda: utimensat(p.there('f'), (4102444800, 3), (0, UTIME_OMIT)))
    changes(p, {'f': ''}, lambda: utimensat(p.there('f'), (0, UTIME_OMIT), (0, UTIME_OMIT)))
    utimensat(p.there('f'), (0, UTIME_NOW), (0, UTIME_NOW))
    for path in p.everywhere('f'):
        now = times(path)
        check_equal(abs(now['a'] - now['m']) < 10 ** 9, True, 'both are now')


def rule_who_may_set_them(p):
    os.chmod(p.here(), 0o755)
    p.write('f')
    os.chown(p.here('f'), 4711, 4711)
    os.chmod(p.here('f'), 0o666)
    for at in p.everywhere():
        check_equal(p.as_user(4711, "os.utime('f', ns=(5, 7))", at=at), 'ok', 'the owner')
        check_equal(p.as_user(4712, "os.utime('f', ns=(5, 7))", at=at), 'EPERM', 'another')
        check_equal(p.as_user(4712, "os.utime('f')", at=at), 'ok', 'who may write: to now')
    os.chmod(p.here('f'), 0o644)
    for at in p.everywhere():
        check_equal(p.as_user(4712, "os.utime('f')", at=at), 'EACCES', 'who may not write')


def rule_of_what_is_written_and_open(p):
    """Shown here before it is committed; set by hand, it stays."""
    fd = os.open(p.here('f'), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(fd, b'value')
    os.utime(fd, ns=(5, 7))
    check_equal(os.fstat(fd).st_mtime_ns, 7, 'mtime set by hand')
    os.close(fd)
    for path in p.everywhere('f'):
        check_equal(times(path)['m'], 7, 'mtime after close')
    fd = os.open(p.here('f'), os.O_RDWR)
    os.pwrite(fd, b'V', 0)
    os.utime(fd, ns=(5, 8))
    os.close(fd)
    for path in p.everywhere('f'):
        check_equal(times(path)['m'], 8, 'mtime after close')


def rule_shown_is_what_is_committed(p):
    """What a writer's host has shown of times the commit does not change, and others show it."""
    def final(name, act, flags):
        other = os.open(p.here(name), os.O_RDONLY) if not flags & os.O_CREAT else None
        fd = os.open(p.here(name), flags, 0o644)
        act(fd)
        st = os.fstat(fd)
        shown = {key: getattr(st, field) for key, field in NAMES.items()}
        os.fsync(fd)
        os.close(fd)
        for path in p.everywhere(name):
            check_equal(times(path), shown, f'times of {path}')
        if other is not None:
            os.close(other)
    value = b'x' * 200000
    for flags in (os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_EXCL):
        for k, act in enumerate((lambda fd: os.write(fd, b'value'),
                                 lambda fd: [os.write(fd, value) for _ in range(40)],
                                 lambda fd: (os.write(fd, b'value'), os.fchmod(fd, 0o755)),
                                 lambda fd: (os.write(fd, b'value'), os.utime(fd, ns=(5, 7))))):
            final(f'{flags:x}-{k}', act, os.O_RDWR | flags)
    name = f'{os.O_CREAT | os.O_EXCL:x}-0'
    final(name, lambda fd: os.pwrite(fd, b'V', 0), os.O_RDWR)
    final(name, lambda fd: os.write(fd, b'more'), os.O_WRONLY | os.O_APPEND)
    final(name, lambda fd: os.write(fd, b'new'), os.O_WRONLY | os.O_TRUNC)
    final(name, lambda fd: None, os.O_WRONLY | os.O_TRUNC)
    final(name, lambda fd: (os.utime(fd, ns=(5, 7)), os.write(fd, b'new')),
          os.O_WRONLY | os.O_TRUNC)
    final(name, lambda fd: (os.write(fd, b'new'), os.utime(fd, ns=(5, 7))),
          os.O_WRONLY | os.O_TRUNC)


if __name__ == '__main__':
    main(globals())
