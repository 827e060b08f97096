"""Rules of one host's file system, which are to hold between hosts: the frame of the tests in
tests/cluster/posix.

A file there has functions `rule_*`, which get a Place. Each runs on a cluster of one node, and
on one of three with the caller on a follower: what it did is looked at on all of them. What needs
a cluster of its own is a function `test_*`, as in other tests."""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cluster  # noqa: E402
from cluster import Failure, check_equal  # noqa: E402


class Place:
    """A directory of a rule's own."""

    def __init__(self, c, caller, name):
        self.cluster, self.caller, self.name = c, caller, name
        self.others = [i for i in range(len(c.nodes)) if i != caller]

    def here(self, *names):
        return self.cluster.path(self.caller, self.name, *names)

    def there(self, *names):
        """On another host, where there is one."""
        return self.cluster.path(self.others[0] if self.others else self.caller,
                                 self.name, *names)

    def everywhere(self, *names):
        return [self.cluster.path(i, self.name, *names)
                for i in range(len(self.cluster.nodes))]

    def write(self, name, data=b''):
        with open(self.here(name), 'wb') as f:
            f.write(data)
        return self.here(name)

    def check(self, function, expected, *names):
        """What `function` says of a path, on every host."""
        for path in self.everywhere(*names):
            check_equal(function(path), expected, f'{function.__name__} of {path}')

    def as_user(self, uid, code, gid=None, groups=(), at=None):
        """Runs Python in the directory (that of the caller, or `at`) as another user. Returns
        'ok', or the name of the errno."""
        program = ('import errno, os, sys\ntry:\n'
                   + ''.join(f'    {line}\n' for line in code.splitlines())
                   + "except OSError as e:\n    print(errno.errorcode[e.errno])\n"
                     "else:\n    print('ok')\n")
        run = subprocess.run([sys.executable, '-I', '-S', '-c', program], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, user=uid,
                             group=uid if gid is None else gid, extra_groups=groups,
                             timeout=60, cwd=at or self.here())
        return run.stdout.strip()


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def nlink(path):
    return os.lstat(path).st_nlink


def mode(path):
    return oct(os.lstat(path).st_mode & 0o7777)


RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


def rename2(source, target, flags):
    """renameat2, which Python does not have."""
    if libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source)


KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 1, 2, 8, 16, 32


def fallocate(fd, mode, offset, length):
    """fallocate(2): Python has posix_fallocate alone."""
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def stretches(fd):
    """Where data lies: [(start, end), ...], and holes between."""
    found, at, end = [], 0, os.fstat(fd).st_size
    while at < end:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))
    return found


def stretches_of(path):
    with open(path, 'rb') as f:
        return stretches(f.fileno())


def opened(path, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
    """A descriptor that is closed at the end of a `with`."""
    return contextlib.closing(Descriptor(os.open(path, flags, mode)))


class Descriptor(int):
    def close(self):
        os.close(self)


def fails_with(expected, call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except OSError as e:
        check_equal(errno.errorcode.get(e.errno), errno.errorcode[expected],
                    f'{call.__name__}{arguments!r:.120}')
    else:
        raise Failure(f'{call.__name__}{arguments!r:.120} succeeded,'
                      f' expected {errno.errorcode[expected]}')


def run_rules(c, caller, rules):
    failed = []
    os.umask(0o022)
    for rule in rules:
        place = Place(c, caller, rule.__name__)
        os.mkdir(place.here())
        try:
            rule(place)
        except Exception:
            failed.append(rule.__name__)
            traceback.print_exc(file=sys.stdout)
    if failed:
        raise Failure(f'broken: {", ".join(failed)}')


def main(names):
    rules = [f for name, f in names.items() if name.startswith('rule_')]

    def test_on_one_node(t):
        run_rules(t.cluster(1), 0, rules)

    def test_on_a_follower(t):
        c = t.cluster(3)
        run_rules(c, (c.leader() + 1) % 3, rules)

    cluster.main({'__file__': names['__file__'], 'test_on_one_node': test_on_one_node,
                  'test_on_a_follower': test_on_a_follower,
                  **{name: f for name, f in names.items() if name.startswith('test_')}})
