#!/usr/bin/python3
"""kill -9, of the leader and of all: what returned success is there, and there once."""

import errno
import os
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (WAIT_SECONDS, Failure, Worker, at_most, check, check_equal,  # noqa: E402
                     in_parallel, main, wait_for)

KILLS = 20
MEDIAN_SECONDS = 1.5  # where a change takes next to nothing
DEAD_MOUNT = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EINTR)


class Stream(threading.Thread):
    """Changes through one mount, one after another, and what became of each.

    A change is acknowledged when its last call returned success. Any that cannot bear to be
    applied twice is among them: an append, mkdir, an exclusive create, a chain of renames. On
    a mount whose node was killed the stream rests until resume().
    """

    def __init__(self, cluster, node):
        super().__init__(daemon=True)
        self.cluster, self.node = cluster, node
        self.acknowledged = {'append': set(), 'mkdir': set(), 'create': set()}
        self.tried = {'append': set(), 'mkdir': set(), 'create': set()}
        self.value, self.values_tried = 0, {0}
        self.link, self.link_known = 0, True
        self.number = 0
        self.log = []  # (begun, ended) of each acknowledged change
        self.unacknowledged = 0
        self.error = None
        self.may_die, self.ending = False, False
        self.resting, self.resumed = threading.Event(), threading.Event()
        self._write('value', b'0')
        self._write('link-0', b'')
        self.start()

    def path(self, name):
        return self.cluster.path(self.node, f's{self.node}-{name}')

    def _write(self, name, data, flags=os.O_TRUNC):
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | flags, 0o644)
        try:
            check_equal(os.write(fd, data), len(data), 'bytes written')
        except BaseException:
            try:
                os.close(fd)
            except OSError:
                pass  # the write's own error is the one to tell
            raise
        os.close(fd)  # the error of the commit comes here

    # ---- The changes

    def append(self, k):
        self.tried['append'].add(k)
        fd = os.open(self.cluster.path(self.node, 'all-append'),
                     os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(fd, f'{self.node} {k}\n'.encode())
            os.fsync(fd)
        finally:
            try:
                os.close(fd)
            except OSError:
                pass  # fsync has told
        self.acknowledged['append'].add(k)

    def mkdir(self, k):
        self.tried['mkdir'].add(k)
        os.mkdir(self.path(f'dir-{k}'))  # applied twice, it would say EEXIST
        self.acknowledged['mkdir'].add(k)

    def create(self, k):
        self.tried['create'].add(k)
        self._write(f'file-{k}', f'{self.node} {k}'.encode(), os.O_EXCL)
        self.acknowledged['create'].add(k)

    def replace(self, k):
        self.values_tried.add(k)
        self._write('value', str(k).encode())
        self.value, self.values_tried = k, {k}

    def rename(self, k):
        if not self.link_known:
            names = [n for n in (self.link, self.link + 1)
                     if os.path.exists(self.path(f'link-{n}'))]
            check_equal(len(names), 1, 'names of the file renamed when the node died')
            self.link, self.link_known = names[0], True
        self.link_known = False
        # Applied twice, it would say ENOENT.
        os.rename(self.path(f'link-{self.link}'), self.path(f'link-{self.link + 1}'))
        self.link, self.link_known = self.link + 1, True

    # ---- The loop

    def run(self):
        kinds = [self.append, self.mkdir, self.replace, self.create, self.rename]
        while not self.ending:
            self.number += 1
            begun = time.monotonic()
            try:
                kinds[self.number % len(kinds)](self.number)
            except OSError as e:
                self.unacknowledged += 1
                if not (self.may_die and e.errno in DEAD_MOUNT):
                    self.error = Failure(f'change {self.number} through mount {self.node}:'
                                         f' {e}')
                    self.error.__cause__ = e
                    return
                self.resting.set()
                self.resumed.wait()
                continue
            except BaseException as e:
                self.error = e
                return
            self.log.append((begun, time.monotonic()))

    def check(self):
        if self.error:
            raise self.error

    def first_after(self, at):
        """When the first change that began after `at` returned; None yet."""
        self.check()
        first = None
        for begun, ended in reversed(self.log[:]):
            if begun < at:
                break
            first = ended
        return first

    def expect_death(self):
        self.resting.clear()
        self.resumed.clear()
        self.may_die = True

    def resume(self):
        self.may_die = False
        self.resumed.set()

    def end(self):
        self.ending = True
        self.resumed.set()
        self.join(WAIT_SECONDS)
        check(not self.is_alive(), f'a change through mount {self.node} does not return')
        self.check()


def check_streams(cluster, streams, i):
    """Looks at everything through mount i."""
    with open(cluster.path(i, 'all-append'), 'rb') as f:
        text = f.read().decode()
    check(text.endswith('\n') and '\0' not in text, f'the appended lines are torn on mount {i}')
    appended = {s.node: [] for s in streams}
    for line in text[:-1].split('\n'):
        node, k = line.split(' ')
        appended[int(node)].append(int(k))
    listed = os.listdir(cluster.path(i))
    for s in streams:
        lines = appended[s.node]
        check_equal(len(lines), len(set(lines)), f'lines of stream {s.node} without doubles')
        missing = s.acknowledged['append'] - set(lines)
        check(not missing, f'acknowledged lines of stream {s.node} are missing: {missing}')
        check(set(lines) <= s.tried['append'], f'stream {s.node} has lines nobody wrote')
        for kind, prefix in (('mkdir', 'dir'), ('create', 'file')):
            there = {int(n.rsplit('-', 1)[1]) for n in listed
                     if n.startswith(f's{s.node}-{prefix}-')}
            missing = s.acknowledged[kind] - there
            check(not missing, f'{kind} of stream {s.node}, acknowledged, not there: {missing}')
            check(there <= s.tried[kind], f'{kind} of stream {s.node} nobody asked for')
        for k in s.acknowledged['create']:
            with open(cluster.path(i, f's{s.node}-file-{k}'), 'rb') as f:
                check_equal(f.read(), f'{s.node} {k}'.encode(), f'file {k} of {s.node} on {i}')
        with open(cluster.path(i, f's{s.node}-value'), 'rb') as f:
            check(int(f.read()) in s.values_tried | {s.value},
                  f'the value of stream {s.node} on mount {i}')
        links = [n for n in listed if n.startswith(f's{s.node}-link-')]
        allowed = [s.link] if s.link_known else [s.link, s.link + 1]
        check(len(links) == 1 and int(links[0].rsplit('-', 1)[1]) in allowed,
              f'links of stream {s.node} on mount {i}: {links}, expected {allowed}')


def kill_and_start(c, streams, i):
    """Under the streams of all; that of node i rests afterwards. Returns after how long all others
    wrote again."""
    victim, survivors = streams[i], [s for s in streams if s.node != i]
    victim.expect_death()
    at = c.kill9(i)
    wait_for(lambda: all(s.first_after(at) for s in survivors), 'writes go on after the kill')
    gap = max(s.first_after(at) for s in survivors) - at
    wait_for(lambda: victim.resting.is_set() or victim.error,
             'the stream of the killed node notices')
    victim.check()
    c.start(i)
    c.wait_caught_up([i])
    return gap


def let_end(streams):
    for s in streams:
        s.ending = True
        s.resumed.set()


def test_leader_killed_in_a_stream_of_writes(t):
    c = t.cluster()
    streams = [Stream(c, i) for i in range(3)]
    gaps, interrupted = [], 0
    try:
        for turn in range(KILLS):
            marks = [len(s.log) for s in streams]

            def all_write():
                for s in streams:
                    s.check()
                return all(len(s.log) >= mark + 10 for s, mark in zip(streams, marks))
            wait_for(all_write, f'all streams make progress before kill {turn}')
            leader = c.leader()
            before = streams[leader].unacknowledged
            gaps.append(kill_and_start(c, streams, leader))
            interrupted += streams[leader].unacknowledged - before
            streams[leader].resume()
    finally:
        let_end(streams)
    for s in streams:
        s.end()
    done = sum(len(s.log) for s in streams)
    print('# writes went on after ' + ' '.join(f'{gap:.2f}' for gap in gaps) + ' s; median'
          f' {statistics.median(gaps):.2f}; {done} changes acknowledged, {interrupted} not')
    check_equal(len(gaps), KILLS, 'kills')
    check_equal(interrupted, KILLS, 'changes cut off by a kill, one each')
    c.wait_caught_up([0, 1, 2])
    for i in range(3):
        check_streams(c, streams, i)
    usual = statistics.median(ended - begun for s in streams for begun, ended in s.log)
    check(statistics.median(gaps) < at_most(MEDIAN_SECONDS, usual),
          f'writes went on after {statistics.median(gaps):.2f} s in the median, where a change'
          f' takes {usual:.4f} s')


class FsyncedWriter:
    """Files and appends with fsync until the node dies; knows what was acknowledged."""

    def __init__(self, cluster, node, name, seed):
        self.cluster, self.node, self.name, self.seed = cluster, node, name, seed
        self.files, self.lines = [], []
        self.error = None

    def content(self, k):
        size = [10, 3000, 5000, 200000][(k + self.seed) % 4]
        return (f'{self.name} {k} '.encode() * (size // 8 + 1))[:size]

    def write_on(self):
        try:
            with open(self.cluster.path(self.node, f'{self.name}-log'), 'ab', 0) as log:
                for k in range(10 ** 6):
                    if self.cluster.closed:  # the test has failed, the mount is gone
                        return
                    fd = os.open(self.cluster.path(self.node, f'{self.name}-{k}'),
                                 os.O_WRONLY | os.O_CREAT, 0o644)
                    try:
                        os.write(fd, self.content(k))
                        os.fsync(fd)
                        self.files.append(k)
                    finally:
                        os.close(fd)
                    log.write(f'{k}\n'.encode())
                    os.fsync(log.fileno())
                    self.lines.append(k)
        except OSError as e:
            self.error = e

    def verify(self, i):
        for k in self.files:
            with open(self.cluster.path(i, f'{self.name}-{k}'), 'rb') as f:
                check(f.read() == self.content(k), f'{self.name}-{k} differs on mount {i}')
        with open(self.cluster.path(i, f'{self.name}-log'), 'rb') as f:
            lines = [int(line) for line in f.read().split(b'\n')[:-1]]
        check_equal(lines[:len(self.lines)], self.lines, f'fsynced lines of {self.name}')
        check(len(lines) <= len(self.lines) + 1, f'{self.name}-log has lines twice: {lines}')


def test_all_killed_at_once(t):
    c = t.cluster()
    for turn in range(3):
        writers = [FsyncedWriter(c, i % 3, f't{turn}w{i}', t.random.randrange(4))
                   for i in range(6)]
        workers = [Worker(w.write_on) for w in writers]
        goal = t.random.randrange(20, 60)
        wait_for(lambda: all(len(w.files) >= goal or w.error for w in writers),
                 f'{goal} files of each writer')
        for w in writers:
            check(w.error is None, f'a write failed before the kill: {w.error}')
        c.kill9(0, 1, 2)
        for worker in workers:
            worker.result()
        for w in writers:
            check(w.error and w.error.errno in DEAD_MOUNT, f'the kill gave {w.error}')
        c.start_all([0, 1, 2])
        c.wait_ready()
        print(f'# {sum(len(w.files) + len(w.lines) for w in writers)} fsyncs acknowledged'
              f' before all three were killed')
        for i in range(3):
            for w in writers:
                w.verify(i)
        # And it goes on from there.
        with open(c.path(turn, f'after-{turn}'), 'wb') as f:
            f.write(b'fine')


def test_node_down_for_10000_writes(t):
    c = t.cluster()
    down = t.random.choice([i for i in range(3) if i != c.leader()])
    others = [i for i in range(3) if i != down]
    with open(c.path(down, 'k0'), 'wb') as f:
        f.write(b'old')
    c.kill9(down)
    expected = {}

    def write(share, through):
        for k in range(share, 10000, 16):
            data = f'{k}'.encode() * (1 + k % 30)
            name = f'k{k % 1600}'  # the same share writes each name, in order
            with open(c.path(through, name), 'wb', 0) as f:
                f.write(data)
            expected[name] = data
    in_parallel(write, [(s, others[s % 2]) for s in range(16)])
    check_equal(len(expected), 1600, 'names')
    c.start(down)
    c.wait_caught_up([down])
    check_equal(sorted(os.listdir(c.path(down))), sorted(expected), 'names after catching up')
    for name, data in expected.items():
        with open(c.path(down, name), 'rb', 0) as f:
            check_equal(f.read(), data, f'{name} after catching up')
    with open(c.path(down, 'k0'), 'wb') as f:
        f.write(b'from the one that was down')
    with open(c.path(others[0], 'k0'), 'rb') as f:
        check_equal(f.read(), b'from the one that was down', 'its own write, elsewhere')


def test_follower_killed_does_not_stop_writes(t):
    """Each follower in turn, several times: the streams of the others see no error at all."""
    c = t.cluster()
    streams = [Stream(c, i) for i in range(3)]
    try:
        for turn in range(4):
            follower = [i for i in range(3) if i != c.leader()][turn % 2]
            kill_and_start(c, streams, follower)
            streams[follower].resume()
    finally:
        let_end(streams)
    for s in streams:
        s.end()
    for i in range(3):
        check_streams(c, streams, i)


if __name__ == "__main__":
    main(globals())
