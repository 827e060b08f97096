"""Processes that lock files: a test tells each what to do, line by line, and is told what came of
it. So that locks are of processes, and nobody waits in the test itself."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys

from cluster import Failure, check_equal, wait_for

ANSWER_SECONDS = 60

# fcntl.fcntl() retries after signals, and knows no OFD locks by name: so libc is called.
PROGRAM = r"""
import ctypes, errno, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
files = {}
F = {'getlk': 5, 'setlk': 6, 'setlkw': 7, 'ofd_getlk': 36, 'ofd_setlk': 37, 'ofd_setlkw': 38}
TYPES = {'r': 0, 'w': 1, 'u': 2}
def noted(number, frame):
    pass
for number in (signal.SIGUSR1, signal.SIGCHLD):
    signal.signal(number, noted)
    signal.siginterrupt(number, number == signal.SIGUSR1)
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), 'x')
    return result
def lock(name, command, kind, start, end):
    flock = ctypes.create_string_buffer(struct.pack('hhqqi4x', TYPES[kind], 0, int(start),
        0 if end == '-' else int(end) - int(start) + 1, 0))
    call(libc.fcntl(files[name], F[command], flock))
    if 'getlk' in command:
        t, _, s, n, pid = struct.unpack('hhqqi4x', flock.raw[:32])
        return 'rwu'[t] + (f' {s} {s + n - 1 if n else "-"} {pid}' if t != 2 else '')
    return 'ok'
def do(command, *a):
    if command == 'open':
        files[a[0]] = os.open(a[1], os.O_RDWR | os.O_CREAT)
    elif command == 'dup':
        files[a[0]] = os.dup(files[a[1]])
    elif command == 'close':
        os.close(files.pop(a[0]))
    elif command == 'flock':
        how = {'sh': 1, 'ex': 2, 'un': 8}[a[1]] | (4 if len(a) > 2 else 0)
        call(libc.flock(files[a[0]], how))
    elif command in F:
        return lock(a[0], command, *a[1:])
    elif command == 'write':
        os.pwrite(files[a[0]], a[1].encode(), 0)
    elif command == 'read':
        return os.pread(files[a[0]], 100, 0).decode() or '-'
    elif command == 'fsync':
        os.fsync(files[a[0]])
    elif command == 'fork':
        child = os.fork()
        if child == 0:
            signal.pause()
        return str(child)
    return 'ok'
print('ready', flush=True)
while line := sys.stdin.readline():
    try:
        print(do(*line.split()), flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
"""


class Locker:
    """One process at a node's mount. `locker('flock', 'f', 'ex')` waits for the answer; `begin()`
    does not."""

    def __init__(self, cluster, node, name=None):
        self.cluster, self.node, self.children = cluster, node, []
        self.process = subprocess.Popen([sys.executable, '-I', '-S', '-c', PROGRAM],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        check_equal(self.answer(), 'ready', 'a process that locks')
        if name:
            check_equal(self('open', 'f', cluster.path(node, name)), 'ok', f'open {name}')

    def begin(self, *words):
        self.process.stdin.write((' '.join(str(w) for w in words) + '\n').encode())
        self.process.stdin.flush()

    def answer(self, seconds=ANSWER_SECONDS):
        """A line; they come one by one, so that none is left in a buffer."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise Failure(f'no answer of process {self.pid} in {seconds} s')
        return self.process.stdout.readline().decode().rstrip('\n')

    def __call__(self, *words):
        self.begin(*words)
        return self.answer()

    def has_answered(self):
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def await_queued(self, count=1):
        """So many of its locks wait, as its own node knows it."""
        name = self.cluster.nodes[self.node].name
        wait_for(lambda: sum(lock['waits'] and lock['node'] == name and lock['pid'] == self.pid
                             for lock in locks(self.cluster, self.node)) == count,
                 f'{count} locks of process {self.pid} wait')

    def fork(self):
        """A child, which does nothing, and outlives it."""
        child = int(self('fork'))
        self.children.append(child)
        return child

    def kill(self):
        self.process.kill()
        return self.process.wait()


def locks(cluster, node):
    return json.loads(cluster.tierce('locks', '--json', data=node).text)


class Lockers:
    """Those of a test, which end with it."""

    def __init__(self, cluster):
        self.cluster, self.all = cluster, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for locker in self.all:
            if locker.process.poll() is None:
                locker.kill()
            for child in locker.children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            locker.process.stdin.close()
            locker.process.stdout.close()

    def __call__(self, node, name=None):
        self.all.append(Locker(self.cluster, node, name))
        return self.all[-1]
