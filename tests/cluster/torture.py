#!/usr/bin/python3
"""Everything that happens to hosts, all mixed, for as long as asked, and what callers at all
mounts saw of it.

Three and five nodes, each on a host of its own (tests/lib/network.py) with a small disk of its own,
mounted; callers at each mount (tests/lib/history.py). In rounds: some faults at once, drawn
from the seed, each kind as often as any other; then everything is mended, each mount must
acknowledge a change within a bound, and the histories that ended are judged by
tests/sim/check_history. At the end all mounts show the same, byte for byte, and
`inspect --verify` finds every disk sound.

A fault is counted where it happened. What the seed draws is the plan; threads and disks take their
own time, so that a seed plays the same plan again, not the same moments.
"""

import argparse
import contextlib
import glob
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (Failure, Worker, check, check_equal, find_binary,  # noqa: E402
                     is_mounted, unmount_lazily, wait_for)
from faults import FAULTS  # noqa: E402
from history import TOP, Work  # noqa: E402
from hosts import HostCluster  # noqa: E402
from network import sweep  # noqa: E402

ALIVE_SECONDS = 120  # after everything was mended, until each mount acknowledges a change
ROUND_SECONDS = 900  # what all faults wait for, one after another, on a machine that is slow
CALLERS = 3  # at each mount
KEPT = 40  # retired objects that stay to be compared at the end


class Tally:
    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}

    def add(self, name):
        with self.lock:
            self.counts[name] = self.counts.get(name, 0) + 1

    def text(self):
        return ', '.join(f'{name} {count}' for name, count in sorted(self.counts.items()))


class Stage:
    """One cluster, its callers and its faults."""

    def __init__(self, nodes, seed, options, tally):
        self.random = random.Random(f'{seed} stage of {nodes}')
        self.options, self.tally = options, tally
        self.nodes = nodes
        self.cluster = HostCluster(nodes, spare=1, conf={'segment_mib': 16},
                                   binary=find_binary(), base=directory_of(os.getpid()))
        self.work = Work(nodes + 1, CALLERS, seed, find_checker(), self.cluster.base,
                         self.cluster.run)
        self.membership = threading.Lock()
        self.deck = []
        self.alive_after, self.finished = [], []

    # ---- Nodes with callers

    def begin(self):
        c = self.cluster
        c.make()
        self.work.prepare(c.nodes[0].mount)
        for i in c.up():
            self.let_callers_in(i)
        self.work.begin()

    def let_callers_in(self, i):
        mount = self.cluster.nodes[i].mount

        def there():
            check(is_mounted(mount), f'{mount} is not mounted')
            return os.path.exists(f'{mount}/{TOP}')
        wait_for(there, f'node {i} shows what the others have')
        self.work.mounted(i, mount)

    def start(self, i):
        self.cluster.start(i)
        self.let_callers_in(i)

    def kill(self, i):
        self.cluster.kill9(i)
        self.work.unmounted(i)

    # ---- Rounds

    def draw(self):
        """Kinds of faults as cards: each comes once before one comes again."""
        if not self.deck:
            self.deck = list(self.options.faults)
            self.random.shuffle(self.deck)
        return self.deck.pop()

    def round(self):
        faults = []
        for _ in range(self.random.randint(1, 4)):
            kind = self.draw()
            faults.append(kind(self, random.Random(self.random.getrandbits(64))))
        workers = [Worker(fault.run) for fault in faults]
        for worker in workers:
            worker.join(ROUND_SECONDS)
        for worker in workers:
            worker.result(10)
        self.cluster.network.mend_all()
        self.check_alive()
        self.finished += self.work.check_histories()
        self.remove_finished()

    def check_alive(self):
        mended = time.monotonic()

        def all_alive():
            self.work.check_callers()
            return all(self.work.changed_since(i, mended) for i in self.cluster.up())
        try:
            wait_for(all_alive, 'each mount acknowledges a change', ALIVE_SECONDS)
        except Failure:
            silent = [i for i in self.cluster.up() if not self.work.changed_since(i, mended)]
            print(f'# no change through mounts {silent}')
            raise
        self.alive_after.append(time.monotonic() - mended)
        wait_for(self.cluster.all_settled, 'all members that are to vote do', ALIVE_SECONDS)
        self.cluster.check_running()

    def remove_finished(self):
        """Through any mount; what cannot be removed now is tried again."""
        left = []
        for obj in self.finished[:-KEPT]:
            life = self.work.life(self.random.choice(self.cluster.up()))
            try:
                remove_object(life.fd, obj)
            except OSError:
                left.append(obj)
        self.finished = left + self.finished[-KEPT:]

    # ---- The end

    def end(self):
        c = self.cluster
        self.work.end()
        check_equal(len(c.up()), len(c.voters), 'nodes that run at the end')
        c.wait_caught_up(c.up())
        for caller in self.work.callers:
            if caller.client % 16 == 0 and self.work.life(caller.slot):
                caller.life = self.work.life(caller.slot)
                for obj in self.work.objects:
                    if obj.made:
                        caller.read_object(obj)
        self.work.check_histories()
        c.wait_caught_up(c.up())
        trees = {i: tree(c.path(i)) for i in c.up()}
        first = min(trees)
        for i, files in trees.items():
            differing = [p for p in trees[first].keys() | files.keys()
                         if trees[first].get(p) != files.get(p)]
            check(not differing, f'mounts {first} and {i} differ: ' + '; '.join(
                f'{p}: {trees[first].get(p)} and {files.get(p)}' for p in differing[:5]))
        c.check_running()
        for i in list(c.up()):
            self.work.unmounted(i)
            c.stop(i)
            c.tierce('inspect', '--verify', data=i, seconds=120)
        self.report(len(trees[first]))

    def report(self, files):
        w = self.work
        print(f'# {self.nodes} nodes: {w.changes} changes acknowledged, {w.histories} histories'
              f' with {w.calls} calls judged, {w.undecided} undecided, {files} files equal on'
              f' {len(self.cluster.voters)} mounts; {w.torn} reads anew; errors {w.errors}')
        print(f'# alive again after at most {max(self.alive_after):.2f} s', flush=True)
        check(w.undecided * 50 <= w.histories, f'{w.undecided} histories were not decided')

    def close(self, failed):
        if failed:
            for i in self.cluster.up():
                print(f'# node {i}: {self.cluster.status(i)}')
            self.cluster.log_tails()
        self.work.ending.set()
        if failed and self.options.keep:
            keep(self.cluster)
        self.cluster.close()


def directory_of(pid):
    """Below which a run with that process id has all that it makes."""
    return f'{tempfile.gettempdir()}/tierce-torture-{pid}'


def keep(cluster):
    """What can be looked at later: the data of nodes that have ended."""
    cluster.kill_all()
    path = f'{cluster.base}-kept'
    for node in cluster.nodes:
        if os.path.isdir(node.data):
            shutil.copytree(node.data, f'{path}/{node.name}',
                            ignore=shutil.ignore_patterns('control*'))
    print(f'# kept: {path}')


def clean_up_after(pid):
    """What is left of a run that could not do it."""
    sweep(pid)
    directory = directory_of(pid)
    with open('/proc/self/mounts') as f:
        points = [line.split()[1] for line in f]
    for path in reversed(points):
        if path.startswith(directory + '/'):
            unmount_lazily(path)
    for path in glob.glob(f'{directory}/*'):
        if not path.endswith('-kept'):
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def remove_object(fd, obj):
    if obj.kind != 'names':
        os.unlink(obj.name, dir_fd=fd)
        return
    directory = os.open(obj.name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    try:
        with os.scandir(directory) as entries:
            for entry in list(entries):
                (os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink)(
                    entry.name, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(obj.name, dir_fd=fd)


def tree(top):
    """{path: what there is to see of it}"""
    found = {}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            s = os.lstat(path)
            content = ''
            if name in files:
                with open(path, 'rb') as f:
                    content = hashlib.sha256(f.read()).hexdigest()
            found[os.path.relpath(path, top)] = (s.st_ino, s.st_mode, s.st_nlink, s.st_size,
                                                 s.st_mtime_ns, content)
    return found


# ---- All together ------------------------------------------------------------------------------


def find_checker():
    directory = os.path.dirname(find_binary())
    while directory != '/':
        path = f'{directory}/tests/sim/check_history'
        if os.access(path, os.X_OK):
            return path
        directory = os.path.dirname(directory)
    sys.exit('torture: check_history was not built: build without a sanitizer')


def check_network(stage):
    """The network can be cut: else nothing below is a test."""
    n = stage.cluster.network
    wait_for(lambda: n.arrives(0, 1) and n.arrives(1, 0), 'hosts reach each other')
    n.cut(0, 1)
    check(not n.arrives(0, 1) and n.arrives(1, 0), 'a link is cut one way')
    n.mend(0, 1)
    n.unplug(1)
    check(not n.arrives(0, 1) and not n.arrives(2, 1), 'a host is unplugged')
    n.plug(1)
    wait_for(lambda: n.arrives(0, 1) and n.arrives(2, 1), 'a host is plugged in again')


def run_stage(nodes, seconds, seed, options, tally):
    stage = Stage(nodes, seed, options, tally)
    failed = True
    try:
        stage.begin()
        check_network(stage)
        until = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < until:
            stage.round()
            rounds += 1
            if options.verbose:
                print(f'# round {rounds}: alive after {stage.alive_after[-1]:.2f} s,'
                      f' {stage.work.changes} changes; {tally.text()}', flush=True)
        stage.end()
        failed = False
        return rounds
    finally:
        stage.close(failed)


def faults_of(names):
    by_name = {f.__name__: f for f in FAULTS}
    try:
        return [by_name[name] for name in names.split(',')]
    except KeyError as e:
        raise argparse.ArgumentTypeError(f'there is no fault {e}') from None


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--minutes', type=float, default=10.0)
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument('--nodes', type=int, help='only a cluster of that many')
    parser.add_argument('--faults', type=faults_of, default=FAULTS, metavar='NAME,NAME...',
                        help='only these: ' + ', '.join(f.__name__ for f in FAULTS))
    parser.add_argument('--keep', action='store_true', help='what a failure leaves')
    parser.add_argument('--verbose', action='store_true', help='a line for each round')
    parser.add_argument('--sweep', type=int, metavar='PID',
                        help='only clean up after a run that could not')
    return parser.parse_args()


def main():
    options = parse()
    if options.sweep:
        clean_up_after(options.sweep)
        return
    if os.getuid() != 0:
        sys.exit('torture: network namespaces and disks of its own take root')
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    os.makedirs(directory_of(os.getpid()), exist_ok=True)
    print(f'# torture --minutes {options.minutes} --seed {options.seed}', flush=True)
    tally, passed, failed = Tally(), 0, 0
    sizes = [options.nodes] if options.nodes else [3, 5]
    for nodes in sizes:
        try:
            rounds = run_stage(nodes, options.minutes * 60 / len(sizes), options.seed, options,
                               tally)
            print(f'ok {nodes} nodes, {rounds} rounds', flush=True)
            passed += 1
        except Exception:
            print(f'FAIL {nodes} nodes (seed {options.seed})')
            traceback.print_exc(file=sys.stdout)
            failed += 1
    print(f'# faults: {tally.text()}')
    never = [f.__name__ for f in options.faults if f.__name__ not in tally.counts]
    if sum(tally.counts.values()) >= 3 * len(options.faults) and never:
        print(f'FAIL these faults never happened: {", ".join(never)}')
        failed += 1
    print(f'{passed} passed, {failed} failed, 0 skipped', flush=True)
    # Not sys.exit: a caller that hangs in a call must not keep this process.
    os._exit(1 if failed else 0)


if __name__ == '__main__':
    main()
