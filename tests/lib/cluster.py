"""Clusters of real tierce processes on this machine, and the runner of the tests that use them.

A test file defines functions test_*(t) and ends with `main(globals())`. `t` (class Test) gives
clusters, a seeded random.Random, a scratch directory, and ways to wait for events. Nothing
is retried: what is asserted once and fails has failed. What is waited for has a deadline, which
ends what hangs and measures nothing: a machine ten times as slow as ours does not reach it. How
long something may take is asked beside what takes its usual time in the same run (`at_most`).

Everything is started by the `tierce` binary, as a user would, talks to loopback only, and is
ended by process id and removed when the test ends, however it ends.
"""

import argparse
import atexit
import contextlib
import ctypes
import faulthandler
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from spawner import run_here

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOKEN = re.compile(r'tierce1:\S+')

WAIT_SECONDS = 120  # hundreds of times what nearly everything takes that is waited for
COMMAND_SECONDS = WAIT_SECONDS
READY_SECONDS = WAIT_SECONDS
TEST_SECONDS = 900  # twenty times what nearly every test takes
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 40

MNT_FORCE, MNT_DETACH = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


class Failure(AssertionError):
    """What a test found wrong."""


class Skip(Exception):
    """Why a test was not run; counted and printed."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def check_equal(actual, expected, what):
    if actual != expected:
        raise Failure(f'{what}: {short(actual)}, expected {short(expected)}')


def short(value, limit=300):
    text = repr(value)
    return text if len(text) <= limit else f'{text[:limit]}... ({len(text)} characters)'


def at_most(seconds, usual):
    """What a limit of the design is on this machine: besides it, fifty times what takes `usual`
    seconds here, measured in the same run."""
    return seconds + 50 * usual


def wait_for(predicate, what, seconds=WAIT_SECONDS):
    """Polls until predicate() is true, and returns that; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f'waited {seconds} s in vain: {what}')
        time.sleep(POLL_SECONDS)


def find_binary():
    for path in (os.environ.get('TIERCE_BINARY'), f'{ROOT}/build/tierce',
                 f'{ROOT}/build/src/cli/tierce'):
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    sys.exit('no tierce binary: build first (tests/run.sh build), or set TIERCE_BINARY')


def find_raised_binary():
    """A program one version newer than it is (meson's raise_version), made if need be."""
    path = os.environ.get('TIERCE_RAISED_BINARY')
    if not path:
        made = subprocess.run([f'{ROOT}/tests/lib/build.sh', 'build-raised',
                               '-Draise_version=true'], stdout=subprocess.PIPE, text=True,
                              env=dict(os.environ, ONLY='src/cli/tierce'))
        check(made.returncode == 0, 'the program of the next version is built')
        path = made.stdout.strip().splitlines()[-1]
    return os.path.abspath(path)


def find_fault_disk(binary):
    directory = os.path.dirname(binary)
    while directory != '/':
        path = f'{directory}/tests/lib/libfault_disk.so'
        if os.path.exists(path):
            return path
        directory = os.path.dirname(directory)
    raise Skip('libfault_disk.so was not built: a sanitizer wants to be loaded first')


def alive(pid):
    """Whether the process runs; a zombie that nobody has reaped yet does not. One whose first
    thread has ended lives, and keeps its files and locks, while another is in the kernel."""
    for path in glob.glob(f'/proc/{pid}/task/*/stat'):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(path) as f:
                if f.read().rsplit(')', 1)[1].split()[0] not in 'ZX':
                    return True
    return False


def unmount_lazily(path):
    """Ends its requests first: once detached, who waits in one is out of reach."""
    libc.umount2(os.fsencode(path), MNT_FORCE)
    libc.umount2(os.fsencode(path), MNT_DETACH)


def is_mounted(path):
    return any(line.split()[1] == path for line in open('/proc/self/mounts'))


_given_ports = {}  # port -> what keeps other processes of tests from it


def free_port():
    """A port outside the range from which the kernel takes its own, and no other test's."""
    for port in random.SystemRandom().sample(range(20000, 32000), 2000):
        if port in _given_ports:
            continue
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f'\0tierce-test-port-{port}')
            with socket.socket() as s:
                s.bind(('127.0.0.1', port))
        except OSError:
            claim.close()
            continue
        _given_ports[port] = claim
        return port
    raise Failure('no free port on 127.0.0.1')


class Result:
    """A finished command."""

    def __init__(self, arguments, code, out, err):
        self.arguments, self.code, self.out, self.err = arguments, code, out, err

    @property
    def text(self):
        return self.out.decode(errors='replace')

    @property
    def error(self):
        return self.err.decode(errors='replace')

    def __str__(self):
        return (f'`tierce {" ".join(map(str, self.arguments))}` gave {self.code}\n'
                f'  stdout: {short(self.text, 2000)}\n  stderr: {short(self.error, 2000)}')


class Node:
    def __init__(self, base, index, name):
        self.index, self.name = index, name
        self.data = f'{base}/{name}/data'
        self.mount = f'{base}/{name}/mnt'
        self.port = free_port()
        self.address = f'127.0.0.1:{self.port}'
        self.pid = None
        self.up = False  # whether a test expects it to run
        self.environment = {}  # of its commands, beside the cluster's
        self.prefix = []  # what stands before its commands
        self.binary = None  # its program; None: the cluster's


class Cluster:
    """`n` nodes n0, n1, ... made by init and join, each mounted unless mounted=False."""

    def __init__(self, n=3, mounted=True, conf=None, disk=None, options=None, base=None,
                 binary=None):
        """conf: lines for each tierce.conf. disk: the size of a tmpfs of its own under each data
        directory ('128m'). options: what mount gets after -o."""
        self.binary = binary or find_binary()
        self.base = tempfile.mkdtemp(prefix='tierce-test-', dir=base)
        self.mounted, self.conf, self.disk, self.options = mounted, conf, disk, options
        self.nodes = [Node(self.base, i, f'n{i}') for i in range(n)]
        self.closed = False
        self.run = run_here  # what runs its commands
        self.environment = dict(os.environ, ASAN_OPTIONS=self._sanitizer('asan'),
                                TSAN_OPTIONS=self._sanitizer('tsan'),
                                UBSAN_OPTIONS=self._sanitizer('ubsan'))
        _open_clusters.append(self)
        for node in self.nodes:
            os.makedirs(node.mount)
            if disk:
                os.makedirs(node.data)
                subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={disk}', 'tierce-test',
                                node.data], check=True)

    def _sanitizer(self, name):
        own = {'asan': '', 'tsan': ':' + os.environ.get('TSAN_OPTIONS', ''),
               'ubsan': ':print_stacktrace=1:halt_on_error=1'}[name]
        return f'log_path={self.base}/{name}-report{own}'

    def make(self):
        """init, join, mount, until all vote. Apart from the constructor so that its caller
        can clean up, and show the logs, when it fails half-way."""
        first = self.nodes[0]
        result = self.tierce('init', '--listen', first.address, '--name', first.name, data=0)
        token = TOKEN.search(result.text)
        check(token, f'init prints the join line\n{result}')
        token = token.group()
        self._configure(first)
        self.start(0)
        for node in self.nodes[1:]:
            self.tierce('join', token, '--listen', node.address, '--name', node.name,
                        data=node.index)
            self._configure(node)
            self.start(node.index)
            if node is not self.nodes[-1]:
                token = self.tierce('invite', data=0).text.strip()
        self.wait_ready()

    def configure(self, i):
        """Puts what the constructor was given into a tierce.conf just made."""
        self._configure(self.nodes[i])

    def _configure(self, node):
        if not self.conf:
            return
        path = f'{node.data}/tierce.conf'
        lines = [line for line in open(path).read().splitlines()
                 if line.split('=')[0].strip() not in self.conf]
        lines += [f'{key} = {value}' for key, value in self.conf.items()]
        with open(path, 'w') as f:
            f.write('\n'.join(lines) + '\n')

    # ---- Commands

    def tierce(self, *arguments, data=None, code=0, input=None, seconds=COMMAND_SECONDS):
        """Runs one command and checks its exit code (None: any). data: a node's index, or a
        path. The command's pipes must close when it returns: a daemon that holds them is
        found by the time-out."""
        arguments = list(map(str, arguments))
        environment, prefix, binary = self.environment, [], self.binary
        if isinstance(data, int):
            environment = dict(environment, **self.nodes[data].environment)
            prefix = self.nodes[data].prefix
            binary = self.nodes[data].binary or binary
        if data is not None:
            path = self.nodes[data].data if isinstance(data, int) else data
            arguments[1:1] = ['--data', path]
        try:
            done = self.run(prefix + [binary] + arguments, b'' if input is None else input,
                            seconds, environment, self.base)
        except subprocess.TimeoutExpired:
            raise Failure(f'`tierce {" ".join(arguments)}` did not end, or left its output'
                          f' open, within {seconds} s') from None
        result = Result(arguments, done.returncode, done.stdout, done.stderr)
        if code is not None and result.code != code:
            raise Failure(f'{result}\n  expected {code}')
        return result

    def status(self, i, seconds=10):
        """What `status --json` says; None where the node does not answer."""
        try:
            result = self.tierce('status', '--json', data=i, code=None, seconds=seconds)
        except Failure:
            return None
        return json.loads(result.text) if result.code == 0 else None

    # ---- Starting and ending nodes

    def start_arguments(self, i):
        node = self.nodes[i]
        if not self.mounted:
            return ['serve']
        options = ['-o', self.options] if self.options else []
        return ['mount', *options, node.mount]

    def start(self, i):
        started = self.tierce(*self.start_arguments(i), data=i)
        self._started(i)
        return started

    def start_all(self, indices):
        """Starts several at once: none has a majority before the others run."""
        errors = []

        def one(i):
            try:
                self.start(i)
            except BaseException as e:
                errors.append(e)
        threads = [threading.Thread(target=one, args=(i,)) for i in indices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _started(self, i):
        status = self.status(i, WAIT_SECONDS)
        check(status, f'node {i} answers status right after it was started')
        self.nodes[i].pid = status['pid']
        self.nodes[i].up = True

    def stop(self, i):
        """As a user stops it. Returns when the process is gone."""
        node = self.nodes[i]
        self.tierce('stop', data=i)
        self.wait_ended(i)
        check(not is_mounted(node.mount), f'{node.mount} is still mounted after stop')

    def wait_ended(self, i, seconds=WAIT_SECONDS):
        pid = self.nodes[i].pid
        wait_for(lambda: not alive(pid), f'process {pid} of node {i} ends', seconds)
        self.nodes[i].up = False

    def kill9(self, *indices):
        """All of them at once. Returns the time at which the signals were sent."""
        for i in indices:
            self.nodes[i].up = False
        at = time.monotonic()
        for i in indices:
            os.kill(self.nodes[i].pid, signal.SIGKILL)
        for i in indices:
            self.wait_ended(i)
        return at

    def freeze(self, *indices):
        for i in indices:
            os.kill(self.nodes[i].pid, signal.SIGSTOP)

    def thaw(self, *indices):
        for i in indices:
            os.kill(self.nodes[i].pid, signal.SIGCONT)

    # ---- Disks that hang or fail (tests/lib/fault_disk.c)

    def use_fault_disk(self, *indices):
        """These nodes get it when they are started next. Raises Skip where it was not built."""
        library = find_fault_disk(self.binary)
        for i in indices:
            node = self.nodes[i]
            node.environment.update(LD_PRELOAD=library, FAULT_DISK=f'{node.data}.fault')

    def fault_disk(self, i, order=''):
        """What happens from now on; '': nothing any more."""
        path = self.nodes[i].environment['FAULT_DISK']
        with open(f'{path}.new', 'w') as f:
            f.write(order)
        os.rename(f'{path}.new', path)

    def fault_count(self, i):
        try:
            return os.stat(self.nodes[i].environment['FAULT_DISK'] + '.count').st_size
        except FileNotFoundError:
            return 0

    # ---- Looking

    def up(self):
        return [node.index for node in self.nodes if node.up]

    def path(self, i, *names):
        mount = self.nodes[i].mount
        if names and isinstance(names[0], bytes):
            return os.path.join(os.fsencode(mount), *names)
        return os.path.join(mount, *names)

    def leader(self, among=None):
        """The index of the node that leads with a majority, waiting until there is one."""
        def look():
            for i in among if among is not None else self.up():
                status = self.status(i)
                if status and status['role'] == 'leader' and status['quorum']:
                    return i + 1  # 0 would read as "none"
            return None
        return wait_for(look, 'a leader', READY_SECONDS) - 1

    def wait_ready(self):
        """All nodes vote, know one leader, and have applied what it had committed."""
        def ready():
            seen = [self.status(i) for i in self.up()]
            if not all(seen):
                return False
            return (all(s['quorum'] for s in seen) and len({s['leader'] for s in seen}) == 1
                    and all(len(s['members']) == len(self.nodes) for s in seen)
                    and all(m['voter'] for s in seen for m in s['members']))
        wait_for(ready, 'all nodes vote and know one leader', READY_SECONDS)
        self.wait_caught_up(self.up())

    def wait_caught_up(self, indices, seconds=READY_SECONDS):
        """These nodes have applied what any node had committed when this was called."""
        commit = max(s['commit'] for s in map(self.status, self.up()) if s)

        def caught_up():
            seen = [self.status(i) for i in indices]
            return all(s and s['applied'] >= commit for s in seen)
        wait_for(caught_up, f'nodes {indices} have applied entry {commit}', seconds)

    def quiet_commit(self, i, seconds=WAIT_SECONDS):
        """The commit index, once it has stood still for a second."""
        deadline = time.monotonic() + seconds
        last, since = None, None
        while time.monotonic() < deadline:
            commit = self.status(i)['commit']
            now = time.monotonic()
            if commit != last:
                last, since = commit, now
            elif now - since >= 1.0:
                return commit
            time.sleep(POLL_SECONDS)
        raise Failure(f'the commit index still grows after {seconds} s without a change')

    def check_running(self):
        """No node has ended that should not have, and no sanitizer has complained."""
        for node in self.nodes:
            if node.up:
                check(alive(node.pid), f'node {node.index} (process {node.pid}) has ended')
        reports = sorted(glob.glob(f'{self.base}/*-report*'))
        if reports:
            text = ''.join(open(path, errors='replace').read()[:6000] for path in reports)
            raise Failure(f'a sanitizer reports\n{text}')

    def log_tails(self):
        for node in self.nodes:
            for path in sorted(glob.glob(f'{node.data}/*log')):
                if not os.path.isfile(path):
                    continue
                with open(path, errors='replace') as f:
                    lines = f.readlines()[-LOG_TAIL_LINES:]
                print(f'---- {node.name}: the end of {os.path.basename(path)}'
                      f' ({"up" if node.up else "down"}, process {node.pid})')
                print(''.join(lines), end='')

    # ---- The end

    def processes(self):
        """Every process that names this cluster's own directory in its arguments."""
        found = []
        for entry in os.listdir('/proc'):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                with open(f'/proc/{entry}/cmdline', 'rb') as f:
                    if os.fsencode(self.base) + b'/' in f.read():
                        found.append(int(entry))
        return found

    def mounts(self):
        """Every mount below this cluster's own directory, the innermost first."""
        points = [line.split()[1] for line in open('/proc/self/mounts')]
        return [p for p in reversed(points) if p.startswith(self.base + '/')]

    def kill_all(self):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self):
        """Ends and removes everything; may be called at any time, and again."""
        if self.closed:
            return
        self.kill_all()
        for path in self.mounts():
            unmount_lazily(path)
        deadline = time.monotonic() + WAIT_SECONDS
        while self.processes() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        shutil.rmtree(self.base, ignore_errors=True)
        self.closed = True
        _open_clusters.remove(self)


_open_clusters = []


@atexit.register
def close_all():
    for cluster in list(_open_clusters):
        cluster.close()


class Worker(threading.Thread):
    """A thread whose exception is raised again where it is joined."""

    def __init__(self, target, *arguments):
        super().__init__(daemon=True)
        self.run_target, self.arguments = target, arguments
        self.error, self.value = None, None
        self.start()

    def run(self):
        try:
            self.value = self.run_target(*self.arguments)
        except BaseException as e:
            self.error = e

    def result(self, seconds=TEST_SECONDS):
        self.join(seconds)
        if self.is_alive():
            raise Failure(f'{self.run_target.__name__} has not ended after {seconds} s')
        if self.error:
            raise self.error
        return self.value


class Pulse(threading.Thread):
    """How long this machine lets one that sleeps wait for its turn, at the worst."""

    def __init__(self):
        super().__init__(daemon=True)
        self.worst, self.ended = 0.0, False
        self.start()

    def run(self):
        while not self.ended:
            begun = time.monotonic()
            time.sleep(0.01)
            self.worst = max(self.worst, time.monotonic() - begun - 0.01)

    def stop(self):
        self.ended = True
        self.join()
        return self.worst


def in_parallel(function, argument_lists, seconds=TEST_SECONDS):
    workers = [Worker(function, *arguments) for arguments in argument_lists]
    return [worker.result(seconds) for worker in workers]


class Test:
    """What a test function gets."""

    def __init__(self, name, options, shared):
        self.name = name
        self.random = random.Random(f'{options.seed} {name}')
        self.long, self.patience = options.long, options.patience
        self.own, self._shared, self._tmp = [], shared, None

    def cluster(self, n=3, **keywords):
        """A cluster of this test's own."""
        cluster = Cluster(n, **keywords)
        self.own.append(cluster)
        if n > 0:
            cluster.make()
        return cluster

    def shared(self):
        """A cluster of three for tests that leave it running as they found it."""
        self._shared['used'] = True
        if self._shared['cluster'] is None:
            self._shared['cluster'] = Cluster(3)
            self._shared['cluster'].make()
        return self._shared['cluster']

    def tmp(self):
        if self._tmp is None:
            self._tmp = tempfile.mkdtemp(prefix='tierce-scratch-')
        return self._tmp

    def random_bytes(self, size):
        return self.random.randbytes(size)

    def skip(self, why):
        raise Skip(why)

    def clusters(self):
        used = self._shared['used'] and self._shared['cluster']
        return self.own + ([used] if used else [])

    def release(self, failed):
        for cluster in self.own:
            cluster.close()
        if failed and self._shared['used'] and self._shared['cluster']:
            self._shared['cluster'].close()
            self._shared['cluster'] = None
        self._shared['used'] = False
        if self._tmp:
            shutil.rmtree(self._tmp, ignore_errors=True)


def limit(seconds):
    """Decorator: how long a test may take on a slow machine before it counts as hanging."""
    def set_limit(function):
        function.seconds = seconds
        return function
    return set_limit


class Watchdog:
    """Ends the nodes of a test that hangs, so that its calls return and it can fail."""

    GRACE_SECONDS = 60

    def __init__(self, test, seconds):
        self.test, self.seconds, self.fired = test, seconds, False
        self.timer = threading.Timer(seconds, self.fire)
        self.timer.daemon = True

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *_):
        self.timer.cancel()
        if self.fired:
            self.last.cancel()

    def fire(self):
        self.fired = True
        print(f'---- {self.test.name} hangs after {self.seconds} s; the threads of the test:',
              flush=True)
        faulthandler.dump_traceback(sys.stdout, all_threads=True)
        for cluster in self.test.clusters():
            cluster.log_tails()
        self.last = threading.Timer(self.GRACE_SECONDS, self.give_up)
        self.last.daemon = True
        self.last.start()
        for cluster in self.test.clusters():
            cluster.kill_all()

    def give_up(self):
        print(f'FAIL {self.test.name}: still hangs with its nodes killed', flush=True)
        with contextlib.suppress(BaseException):
            close_all()
        os._exit(1)


def run_test(function, options, shared):
    """Runs one test and prints its line. Returns 'passed', 'failed' or 'skipped'."""
    name = function.__name__
    test = Test(name, options, shared)
    begun = time.monotonic()
    seconds = getattr(function, 'seconds', TEST_SECONDS) * options.patience
    outcome = 'passed'
    try:
        with Watchdog(test, seconds) as watchdog:
            function(test)
            for cluster in test.clusters():
                cluster.check_running()
        check(not watchdog.fired, f'took more than {seconds} s')
        print(f'ok {name} {time.monotonic() - begun:.1f}', flush=True)
    except Skip as why:
        outcome = 'skipped'
        print(f'skip {name}: {why}', flush=True)
    except Exception:
        outcome = 'failed'
        print(f'FAIL {name} after {time.monotonic() - begun:.1f} (seed {options.seed})')
        traceback.print_exc(file=sys.stdout)
        for cluster in test.clusters():
            cluster.log_tails()
        sys.stdout.flush()
    finally:
        test.release(outcome != 'passed')
    return outcome


def parse(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument('names', nargs='*', help='tests whose name contains one of these')
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--long', action='store_true',
                        help='the size that a test is meant for, where that takes long')
    parser.add_argument('--patience', type=float, default=1.0,
                        help='multiplies the time after which a test counts as hanging')
    return parser.parse_args(arguments)


def main(names, arguments=None):
    """Runs the test_* functions of a file, in their order; the exit code says how it went."""
    options = parse(arguments)
    tests = [f for name, f in names.items() if name.startswith('test_') and callable(f)
             and (not options.names or any(part in name for part in options.names))]
    if options.list:
        print('\n'.join(f.__name__ for f in tests))
        return
    if not tests:
        sys.exit(f'no test has a name with {" or ".join(options.names)} in it')
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    print(f'# {os.path.basename(names["__file__"])} --seed {options.seed}', flush=True)
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    shared = {'cluster': None, 'used': False}
    for function in tests:
        counts[run_test(function, options, shared)] += 1
    close_all()
    print(f'{counts["passed"]} passed, {counts["failed"]} failed,'
          f' {counts["skipped"]} skipped', flush=True)
    # Not sys.exit: a worker thread that hangs in a call must not keep this process.
    os._exit(1 if counts['failed'] else 0)
