#!/usr/bin/python3
"""Processes come and go (K9, K14): programs that are killed in a call, that catch signals in one,
or that have files open while the node behind their mount dies and comes back."""

import errno
import glob
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import at_most, check, check_equal, is_mounted, limit, main, wait_for  # noqa: E402

PYTHON = [sys.executable, '-I', '-S', '-c']
KILLED_SECONDS = 1.0  # K14: how long a program may live on after kill -9

PRELUDE = r'''
import ctypes, fcntl, mmap, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def rename2(source, target, flags):
    must(libc.renameat2(-100, source.encode(), -100, target.encode(), flags))
def begun(name, flags=0):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags)
    os.write(fd, b'begun')
    return fd
'''

# What is prepared, and the call that waits; each in a directory of its own, with a file `f` and a
# directory `d` in it.
CALLS = {
    'mkdir': ('', "os.mkdir('n')"),
    'rmdir': ('', "os.rmdir('d')"),
    'mkfifo': ('', "os.mkfifo('n')"),
    'symlink': ('', "os.symlink('f', 'n')"),
    'link': ('', "os.link('f', 'n')"),
    'unlink': ('', "os.unlink('f')"),
    'unlink-open': ("fd = os.open('f', os.O_RDONLY)", "os.unlink('f')"),
    'rename': ('', "os.rename('f', 'n')"),
    'rename-over': ("os.close(os.open('o', os.O_CREAT | os.O_WRONLY | os.O_EXCL))",
                    "os.rename('f', 'o')"),
    'rename-pending': ("fd = begun('p')", "os.rename('p', 'n')"),
    'exchange': ('', "rename2('f', 'd', 2)"),
    'create': ('', "os.open('n', os.O_CREAT | os.O_EXCL | os.O_WRONLY)"),
    'chmod': ('', "os.chmod('f', 0o600)"),
    'chmod-written': ("fd = os.open('f', os.O_WRONLY)",
                      "os.write(fd, b'x')\nos.fchmod(fd, 0o600)"),
    'chown': ('', "os.chown('f', 1, 1)"),
    'utime': ('', "os.utime('f')"),
    'truncate': ('', "os.truncate('f', 1)"),
    'ftruncate': ("fd = os.open('f', os.O_RDWR)", "os.ftruncate(fd, 100000)"),
    'fsync': ("fd = os.open('f', os.O_WRONLY)", "os.write(fd, b'x')\nos.fsync(fd)"),
    'fsync-new': ("fd = begun('n')", "os.fsync(fd)"),
    'close': ("fd = os.open('f', os.O_WRONLY)", "os.write(fd, b'x')\nos.close(fd)"),
    'close-new': ("fd = begun('n')", "os.close(fd)"),
    'close-replaced': ("fd = begun('f')", "os.close(fd)"),
    'write-synced': ("fd = os.open('f', os.O_WRONLY | os.O_SYNC)", "os.write(fd, b'x')"),
    'write-much': ("fd = os.open('f', os.O_WRONLY)", "os.write(fd, bytes(8 << 20))"),
    'append-synced': ("fd = os.open('f', os.O_WRONLY | os.O_APPEND | os.O_DSYNC)",
                      "os.write(fd, b'x')"),
    'write-direct': ("fd = os.open('f', os.O_WRONLY | os.O_DIRECT)\nm = mmap.mmap(-1, 4096)",
                     "os.write(fd, m)"),
    'msync': ("fd = os.open('f', os.O_RDWR)\nos.ftruncate(fd, 4096)\nm = mmap.mmap(fd, 4096)",
              "m[0] = 1\nm.flush()"),
    'thread': ("import threading", "t = threading.Thread(target=os.mkdir, args=('n',))\n"
                                   "t.start()\nt.join()"),
    'exit': ("fd = os.open('f', os.O_WRONLY)", "os.write(fd, b'x')\nos._exit(0)"),
}

# That of a program which ends by itself is told apart from one that was killed only by this: that
# there is no majority, for a second. Then nobody is there to be told the fate of its last write.
EXITS = ('exit',)


class Program:
    """Prepares a call, says so, makes it when it is told to, and says what came of it."""

    def __init__(self, directory, prepare, call):
        code = (f'{PRELUDE}{prepare}\nos.write(1, b"ready\\n")\nsys.stdin.readline()\ntry:\n'
                + ''.join(f'    {line}\n' for line in call.splitlines())
                + 'except OSError as e:\n    os.write(1, str(e).encode())\n'
                  'else:\n    os.write(1, b"done")\nsys.stdin.readline()\n')
        self.process = subprocess.Popen(PYTHON + [code], stdin=subprocess.PIPE, cwd=directory,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.name = os.path.basename(directory)

    def ready(self):
        line = self.process.stdout.readline()
        check_equal(line, b'ready\n', f'{self.name} prepares')

    def go(self):
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()

    def is_in_the_kernel(self):
        """Waiting for an answer: uninterruptibly, or in what only FUSE's requests wait in."""
        for task in os.listdir(f'/proc/{self.process.pid}/task'):
            with open(f'/proc/{self.process.pid}/task/{task}/wchan') as f:
                if 'request' in (where := f.read()) or 'fuse' in where:
                    return True
        return False

    def end(self):
        self.process.kill()
        self.process.wait(60)


def waiting_calls(c, i):
    """How many requests the node has read from the kernel and not answered."""
    text = c.tierce('metrics', data=i).text
    return int(re.search(r'tierce_queue\{queue="mount_calls"\} (\d+)', text).group(1))


def time_to_die(processes):
    """kill -9 to all of them: how long the last one lives on."""
    begun = time.monotonic()
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(60)
    return time.monotonic() - begun


def sleepers(count):
    processes = [subprocess.Popen(PYTHON + ['import sys; sys.stdin.read()'],
                                  stdin=subprocess.PIPE) for _ in range(count)]
    return processes


def prepare_directories(c, i, label):
    os.mkdir(c.path(i, label))
    for name in CALLS:
        os.makedirs(c.path(i, label, name, 'd'))
        with open(c.path(i, label, name, 'f'), 'wb') as f:
            f.write(b'value')


def tree(path):
    """Every name, with its kind and what is in it."""
    found = {}
    for where, directories, files in os.walk(path):
        for name in directories + files:
            at = os.path.join(where, name)
            st = os.lstat(at)
            data = b''
            if (st.st_mode & 0o170000) == 0o100000:
                with open(at, 'rb') as f:
                    data = f.read()
            found[os.path.relpath(at, path)] = (oct(st.st_mode), st.st_uid, st.st_nlink, data)
    return found


@limit(300)
def test_killed_in_any_call(t):
    """A program that waits in a call, for a leader or for a majority, is gone soon after kill -9,
    and nothing of it stays: no request, no open file; what it asked for was done or was not."""
    c = t.cluster()
    for kind in ('leader', 'follower'):
        leader = c.leader()
        here = leader if kind == 'leader' else (leader + 1) % 3
        others = [i for i in range(3) if i != here]
        prepare_directories(c, here, kind)
        programs = [Program(c.path(here, kind, name), *CALLS[name]) for name in CALLS]
        idle = sleepers(len(programs))
        try:
            for program in programs:
                program.ready()
            c.freeze(*others)
            for program in programs:
                program.go()
            for program in programs:
                wait_for(program.is_in_the_kernel, f'{program.name} waits')
            wait_for(lambda: waiting_calls(c, here) >= len(programs), 'all of them wait')
            for program in programs:
                check(program.process.poll() is None, f'{program.name} ended by itself')
            ordinary = time_to_die(idle)
            slowest = {}
            begun = time.monotonic()
            for program in programs:
                program.process.kill()
            for program in programs:
                program.process.wait(60)
                slowest[program.name] = time.monotonic() - begun
            took = max(seconds for name, seconds in slowest.items() if name not in EXITS)
            print(f'# {kind}: {len(programs)} programs died in {took:.2f} s, as many that only'
                  f' slept in {ordinary:.2f} s; one in its exit after {slowest["exit"]:.2f} s')
            check(took < at_most(KILLED_SECONDS, ordinary), f'the last one after {took:.2f} s:'
                  f' {sorted(slowest.items(), key=lambda item: -item[1])[:5]}')
            wait_for(lambda: waiting_calls(c, here) == 0, 'no request of theirs stays')
            for program in programs:
                said = program.process.stdout.read()
                check_equal(said, b'', f'what {program.name} saw of its call')
        finally:
            c.thaw(*others)
            for program in programs:
                program.end()
            time_to_die(idle)
        c.wait_ready()
        check_same_trees(c, kind)
        os.sync()
        c.stop(here)  # it is not busy: no handle of a killed program is left
        c.start(here)
        c.wait_ready()
        check_same_trees(c, kind)


def check_same_trees(c, label):
    def same():
        trees = [tree(c.path(i, label)) for i in range(3)]
        return trees[0] if trees[0] == trees[1] == trees[2] else None
    found = wait_for(same, 'all hosts show the same')
    for name in CALLS:
        check(f'{name}/f' in found or name in ('unlink', 'unlink-open', 'rename', 'rename-over',
                                               'exchange'), f'{name}: f has gone')
    for path, (mode, _, nlink, data) in found.items():
        if path.endswith('/f') and path.split('/')[0] not in (
                'close-replaced', 'exchange', 'truncate', 'ftruncate', 'write-much', 'msync',
                'write-direct'):
            check(len(data) in (5, 6), f'{path}: {data[:20]!r}')


@limit(240)
def test_killed_while_the_open_waits(t):
    """Without a majority an open for writing waits to be refused."""
    c = t.cluster()
    here = c.leader()
    others = [i for i in range(3) if i != here]
    with open(c.path(here, 'f'), 'w') as f:
        f.write('value')
    calls = {'open': "os.open('f', os.O_WRONLY | os.O_TRUNC)",
             'create': "os.open('n', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)",
             'append': "os.open('f', os.O_WRONLY | os.O_APPEND)"}
    programs = [Program(c.path(here), '', call) for call in calls.values()]
    ordinary = time_to_die(sleepers(len(programs)))
    try:
        for program in programs:
            program.ready()
        c.freeze(*others)
        wait_for(lambda: c.status(here)['quorum'] is False, 'the node notices')
        for program in programs:
            program.go()
        took = time_to_die([program.process for program in programs])
        for program in programs:
            said = program.process.stdout.read()
            check(said == b'' or b'Read-only' in said, f'it saw {said}')
    finally:
        c.thaw(*others)
        for program in programs:
            program.end()
    check(took < at_most(KILLED_SECONDS, ordinary), f'they died after {took:.2f} s')
    c.wait_ready()
    for i in range(3):
        check_equal(open(c.path(i, 'f')).read(), 'value', 'the file')
    c.stop(here)


def test_a_crowd_is_killed(t):
    """More callers wait than are looked at in one turn, those that are killed among the last.
    (Not in one directory: there all but one would wait in the kernel, for its lock.)"""
    c = t.cluster()
    here = (c.leader() + 1) % 3
    others = [i for i in range(3) if i != here]
    program = ('import os, sys, threading\n'
               'def change(k):\n    os.chmod(f"{sys.argv[1]}-{k}", 0o600)\n'
               'threads = [threading.Thread(target=change, args=(k,)) for k in range(100)]\n'
               'for k in range(100): os.mkdir(f"{sys.argv[1]}-{k}")\n'
               'os.write(1, b"ready\\n")\nsys.stdin.readline()\n'
               'for t in threads: t.start()\nfor t in threads: t.join()\n')
    crowd = [subprocess.Popen(PYTHON + [program, c.path(here, f'd{k}')], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) for k in range(6)]
    try:
        for process in crowd:
            check_equal(process.stdout.readline(), b'ready\n', 'a process of the crowd')
        c.freeze(*others)
        for process in crowd:
            process.stdin.write(b'\n')
            process.stdin.flush()
        wait_for(lambda: waiting_calls(c, here) >= 600, 'all of them wait')
        last = time_to_die(crowd[3:])
        wait_for(lambda: waiting_calls(c, here) == 300, 'their requests are gone')
        first = time_to_die(crowd[:3])
        print(f'# 300 callers died in {last:.2f} s, 300 more in {first:.2f} s')
        wait_for(lambda: waiting_calls(c, here) == 0, 'all requests are gone')
    finally:
        c.thaw(*others)
        time_to_die(crowd)
    c.wait_ready()
    os.mkdir(c.path(here, 'after'))


# ---- Signals that are caught ------------------------------------------------------------


STORMED = {
    'mkdir': "os.mkdir(f'd{k}')",
    'rename': "os.rename(f'd{k}', f'e{k}')",
    'rmdir': "os.rmdir(f'e{k}')",
    'create': "os.close(os.open(f'f{k}', os.O_CREAT | os.O_EXCL | os.O_WRONLY))",
    'write': "fd = os.open(f'f{k}', os.O_WRONLY); os.write(fd, b'value'); os.fsync(fd);"
             " os.close(fd)",
    'replace': "fd = os.open(f'f{k}', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'val');"
               " os.close(fd)",
    'append': "fd = os.open(f'f{k}', os.O_WRONLY | os.O_APPEND | os.O_SYNC);"
              " os.write(fd, b'ue'); os.close(fd)",
    'link': "os.link(f'f{k}', f'l{k}')",
    'symlink': "os.symlink('x', f's{k}')",
    'mkfifo': "os.mkfifo(f'p{k}')",
    'chmod': "os.chmod(f'f{k}', 0o600)",
    'truncate': "os.truncate(f'f{k}', 5)",
    'utime': "os.utime(f'f{k}', (1, 1))",
    'exchange': "rename2(f'f{k}', f's{k}', 2)",
    'unlink': "os.unlink(f'l{k}')",
}


@limit(240)
def test_caught_signals_are_no_errors(t):
    """A program that catches SIGALRM every half millisecond: nothing fails of what cannot be
    interrupted on any other file system. Python would begin such calls anew: they are made so that
    the first EINTR is seen."""
    c = t.cluster()
    count = 60
    for i in (c.leader(), (c.leader() + 1) % 3):
        os.mkdir(c.path(i, f'on-{i}'))
        for name, call in STORMED.items():
            program = (PRELUDE + 'hits = 0\ndef hit(*_):\n    global hits\n    hits += 1\n'
                       'signal.signal(signal.SIGALRM, hit)\n'
                       'signal.siginterrupt(signal.SIGALRM, True)\n'
                       'signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\n'
                       f'for k in range({count}):\n    {call}\n'
                       'signal.setitimer(signal.ITIMER_REAL, 0)\nprint(hits)\n')
            run = subprocess.run(PYTHON + [no_retry(program)], capture_output=True, text=True,
                                 timeout=120, cwd=c.path(i, f'on-{i}'))
            check_equal((run.returncode, run.stderr), (0, ''), f'{name} under signals')
            check(int(run.stdout) > 0, f'no signal fell into {name}')
        left = {k: sum(n[0] == k for n in os.listdir(c.path(1, f'on-{i}'))) for k in 'deflsp'}
        check_equal(left, {'d': 0, 'e': 0, 'f': count, 'l': 0, 's': count, 'p': count},
                    'names in the end')


def no_retry(program):
    """Python's own functions begin anew after EINTR (PEP 475), but not mkdir and the like; those
    that do go through the C library here."""
    return program.replace('os.fsync(fd)', 'must(libc.fsync(fd))').replace(
        'os.close(fd)', 'must(libc.close(fd))')


# ---- A node that dies -------------------------------------------------------------------


HOLDER = r'''
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.chdir(os.path.dirname(sys.argv[1]))
def what(call, *arguments):
    try:
        call(*arguments)
        return b'ok'
    except OSError as e:
        return errno_name(e.errno)
def errno_name(number):
    import errno
    return errno.errorcode[number].encode()
while True:
    os.write(1, b' '.join([what(os.pread, fd, 1, 0), what(os.pwrite, fd, b'x', 0),
                           what(os.fsync, fd), what(os.fstat, fd), what(os.stat, 'f'),
                           what(os.stat, sys.argv[1])]) + b'\n')
    if not sys.stdin.readline():
        break
print(what(os.close, fd).decode())
'''


class Holder:
    """Holds a file and a working directory."""

    def __init__(self, path):
        self.process = subprocess.Popen(PYTHON + [HOLDER, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        check_equal(self.seen(), ['ok'] * 6, 'at first')

    def seen(self):
        return self.process.stdout.readline().decode().split()

    def look(self):
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()
        return self.seen()

    def end(self):
        self.process.stdin.close()
        said = self.process.stdout.read()
        self.process.wait(60)
        return said


def mounts_at(path):
    return sum(line.split()[1] == path for line in open('/proc/self/mounts'))


def test_files_that_are_open_over_a_restart(t):
    """They fail, ENOTCONN; so does the working directory. Whoever opens them anew goes on, and
    nothing of the old mount stays when they are closed."""
    c = t.cluster()
    for i in (c.leader(), (c.leader() + 1) % 3):
        with open(c.path(i, 'f'), 'w') as f:
            f.write('value')
        holder = Holder(c.path(i, 'f'))
        try:
            c.kill9(i)
            check_equal(holder.look(), ['ENOTCONN'] * 6, 'while it is down')
            c.start(i)
            check_equal(mounts_at(c.nodes[i].mount), 1, 'mounts there')
            check_equal(holder.look(), ['ENOTCONN'] * 5 + ['ok'], 'when it is back')
            check_equal(open(c.path(i, 'f')).read(), 'xalue', 'opened anew')
            with open(c.path(i, 'f'), 'w') as f:
                f.write('other')
            check_equal(open(c.path((i + 1) % 3, 'f')).read(), 'other', 'on another host')
            c.stop(i)  # what is open in the old mount is not busy in the new one
            c.start(i)
            check_equal(holder.look(), ['ENOTCONN'] * 5 + ['ok'], 'after another restart')
        finally:
            said = holder.end()
        check(said.strip() in (b'ENOTCONN', b'ok'), f'close: {said}')
        c.wait_ready()


def test_what_a_killed_node_leaves(t):
    """Its mount: `mount` at the same place or another, `serve` and `stop` take it away."""
    c = t.cluster(1)
    node = c.nodes[0]
    other = f'{c.base}/other'
    os.mkdir(other)
    with open(c.path(0, 'f'), 'w') as f:
        f.write('value')
    for way in ('mount', 'elsewhere', 'serve', 'stop'):
        c.kill9(0)
        check(is_mounted(node.mount), 'nothing is left')
        check_equal(errno_of(os.stat, c.path(0, 'f')), 'ENOTCONN', 'what users see')
        if way == 'mount':
            c.start(0)
        elif way == 'elsewhere':
            c.tierce('mount', other, data=0)
            c._started(0)
            check_equal(open(f'{other}/f').read(), 'value', 'at another place')
        elif way == 'serve':
            c.tierce('serve', data=0)
            c._started(0)
        else:
            c.tierce('stop', data=0)
            refused = c.tierce('stop', data=0, code=1)
            check('no node' in refused.error, f'{refused}')
        check_equal(is_mounted(node.mount), way == 'mount', f'{way}: its old mount is there')
        if way in ('elsewhere', 'serve'):
            c.stop(0)
        if way != 'mount':
            c.start(0)
    check(not is_mounted(other), 'the other place')
    # Another node, when the data of the first are gone.
    c.kill9(0)
    subprocess.run(['rm', '-rf', node.data], check=True)
    c.tierce('init', '--listen', node.address, data=0)
    c.start(0)
    check_equal(os.listdir(node.mount), [], 'a new cluster')


def errno_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as e:
        return errno.errorcode[e.errno]
    return None


def cannot_end(t, way):
    """K9: a notification of a node that is killed waits in the kernel for a page that a reader
    holds, who waits for the node. It ends only with its connection."""
    c = t.cluster(3)
    here = (c.leader() + 1) % 3
    others = [i for i in range(3) if i != here]
    c.stop(here)
    c.use_fault_disk(here)
    c.start(here)
    c.wait_ready()
    with open(c.path(here, 'f'), 'wb') as f:
        f.write(bytes(1 << 20))
    mapped = "fd = os.open('f', os.O_RDWR)\nm = mmap.mmap(fd, 1 << 20)"
    reader = Program(c.path(here), mapped, 'm[0]')  # by nothing but a READ
    reader.ready()
    writer = Program(c.path(here), f'{mapped}\nm[1000000]', 'm[1000000] = 1\nm.flush()')
    writer.ready()
    c.kill9(*others)
    wait_for(lambda: c.status(here)['quorum'] is False, 'no majority')
    c.fault_disk(here, 'read hang')
    reader.go()
    pid, mount = c.nodes[here].pid, c.nodes[here].mount
    try:
        wait_for(lambda: c.fault_count(here), 'a read hangs')
        writer.go()  # its failure drops the pages, one of which the read holds
        wait_for(lambda: 'D' in thread_states(pid), 'the notification waits')
        os.kill(pid, signal.SIGKILL)
        c.nodes[here].up = False
        wait_for(lambda: sorted(thread_states(pid)) == ['D', 'Z'], 'it ends but for that')
        check_equal(reader.process.poll(), None, 'how the reader ended')
        c.fault_disk(here)
        if way == 'mount':
            c.start_all(range(3))
        else:
            c.tierce('stop', data=here)
            check(not is_mounted(mount), 'its mount is there after `stop`')
        check('D' not in thread_states(pid), 'it has not ended')
        reader.process.wait(60)  # of SIGBUS: the page could not be read
        if way == 'mount':
            c.wait_ready()
            check_equal(os.stat(c.path(here, 'f')).st_size, 1 << 20, 'the file')
    finally:
        writer.end()
        reader.end()


@limit(240)
def test_mount_ends_a_killed_node_that_cannot_end(t):
    cannot_end(t, 'mount')


@limit(240)
def test_stop_ends_a_killed_node_that_cannot_end(t):
    cannot_end(t, 'stop')


def thread_states(pid):
    states = []
    for task in glob.glob(f'/proc/{pid}/task/*/stat'):
        try:
            with open(task) as f:
                states.append(f.read().rsplit(')', 1)[1].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return states


# ---- Unmounting -------------------------------------------------------------------------


def test_umount_while_it_is_busy(t):
    """EBUSY, by umount(8) and by `tierce stop`, and nothing has happened; then it works."""
    c = t.cluster()
    here = (c.leader() + 1) % 3
    mount = c.nodes[here].mount
    with open(c.path(here, 'f'), 'w') as f:
        f.write('value')
    os.mkdir(c.path(here, 'd'))
    ways = {'open file': "fd = os.open('f', os.O_RDONLY)\nos.chdir('/')",
            'working directory': "os.chdir('d')",
            'mapping': "fd = os.open('f', os.O_RDONLY)\nm = mmap.mmap(fd, 5, prot=1)\n"
                       "os.close(fd)\nos.chdir('/')",
            'program': "os.chdir('/')\nos.execv(sys.argv[1], ['sleep', '1000'])"}
    subprocess.run(['cp', '/bin/sleep', c.path(here, 'program')], check=True)
    for way, code in ways.items():
        process = subprocess.Popen(
            PYTHON + [f'{PRELUDE}{code}\nos.write(1, b"held")\nsys.stdin.read()',
                      c.path(here, 'program')],
            cwd=mount, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            if way == 'program':
                wait_for(lambda: os.readlink(f'/proc/{process.pid}/exe')
                         == c.path(here, 'program'), 'it runs')
            else:
                check_equal(process.stdout.read(4), b'held', way)
            busy = subprocess.run(['umount', mount], capture_output=True, text=True)
            check(busy.returncode and 'busy' in busy.stderr, f'umount, {way}: {busy}')
            refused = c.tierce('stop', data=here, code=1)
            check(re.search('open|busy', refused.error), f'stop, {way}: {refused}')
            check_equal(open(c.path(here, 'f')).read(), 'value', 'after both')
            with open(c.path(here, 'f'), 'w') as f:
                f.write('value')
        finally:
            process.kill()
            process.wait(60)
    subprocess.run(['umount', mount], check=True)
    c.wait_ended(here)
    c.start(here)
    c.wait_ready()


if __name__ == '__main__':
    main(globals())
