#!/usr/bin/env python3
"""Sessions, overload, and slow members: processes that are stopped for too long, writers that are
too many, disks and hosts that do not keep up."""

import errno
import os
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (WAIT_SECONDS, Worker, check, check_equal, main,  # noqa: E402
                     wait_for)

SILENT_SECONDS = 10  # a session without contact is ended after so long
LOG_CACHE_BYTES = 8 << 20  # entries that are kept in memory though they are applied
SLOW_SYNC_MS = 300  # each time: who waits for it takes as long
STARVED_SECONDS = 0.4  # likewise
LATE_SECONDS = 0.1  # so late a member may be, and is no slow one
FAULTS = 8  # so often a slow member is to have been slow while writes are measured
QUEUE_LINE = re.compile(r'^(tierce_queue\w*)\{queue="(\w+)"\} (\d+)$', re.M)


def log_text(cluster, i):
    with open(f'{cluster.nodes[i].data}/node.log', errors='replace') as f:
        return f.read()


def deaths(cluster, indices):
    """How many sessions these nodes have ended."""
    return sum(log_text(cluster, i).count('is ended: nothing came') for i in indices)


def queues(cluster, i):
    """{queue: {'': now, '_most': ..., '_bound': ..., '_waits_total': ...}}"""
    text = cluster.tierce('metrics', data=i).text
    found = {}
    for name, queue, value in QUEUE_LINE.findall(text):
        found.setdefault(queue, {})[name.removeprefix('tierce_queue')] = int(value)
    check(found, f'metrics name queues\n{text[:2000]}')
    return found


def check_bounds(cluster, i):
    """What a bound is exceeded by is one frame, entry or write of each writer at most."""
    for name, q in queues(cluster, i).items():
        slack = (8 << 20) if name.endswith('_bytes') else 0
        check(q['_most'] <= q['_bound'] + slack, f'{name} of node {i} keeps its bound: {q}')


def rss_bytes(pid):
    with open(f'/proc/{pid}/statm') as f:
        return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def memory_bound(cluster, i):
    """What all queues of a node may hold together: what is written once as it is buffered and once
    as operations on their way; operations at the gate and behind others; entries, on a leader not
    visible, on others not on the disk; what is unsent to each member; the log's cache."""
    bound = {name: q['_bound'] for name, q in queues(cluster, i).items()}
    entries = max(bound['inflight_bytes'], bound['log_bytes'])
    unsent = bound['send_bytes'] * (len(cluster.nodes) - 1)
    return (2 * bound['mount_bytes'] + bound['gate_bytes'] + bound['parked_bytes'] + entries
            + unsent + LOG_CACHE_BYTES)


def others_than(cluster, *indices):
    return [i for i in cluster.up() if i not in indices]


class Appender(threading.Thread):
    """Appends numbered lines to one file through one mount, each with a sync, until told to
    stop; notes what was acknowledged, and what was answered with an error."""

    def __init__(self, path, name):
        super().__init__(daemon=True)
        self.path, self.name = path, name
        self.acknowledged, self.errors, self.seconds = [], [], []
        self.ended = threading.Event()
        self.start()

    def run(self):
        count = 0
        while not self.ended.is_set():
            count += 1
            line = f'{self.name} {count}\n'
            begun = time.monotonic()
            try:
                fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_SYNC)
                try:
                    os.write(fd, line.encode())
                finally:
                    os.close(fd)
                self.acknowledged.append(line)
                self.seconds.append(time.monotonic() - begun)
            except OSError as e:
                self.errors.append((line, e.errno))
                self.ended.wait(0.02)

    def finish(self):
        self.ended.set()
        self.join(WAIT_SECONDS)
        check(not self.is_alive(), f'{self.name} ends')
        return self


def check_lines(content, appenders):
    """Each acknowledged line once; each that failed at most once; nothing else."""
    lines = content.splitlines(keepends=True)
    check_equal(len(lines), len(set(lines)), 'lines, each of them once')
    seen = set(lines)
    for a in appenders:
        lost = [line for line in a.acknowledged if line not in seen]
        check(not lost, f'{len(lost)} acknowledged lines of {a.name} are lost: {lost[:5]}')
        seen -= set(a.acknowledged) | {line for line, _ in a.errors}
    check(not seen, f'lines that nobody wrote: {sorted(seen)[:5]}')


def test_a_node_that_is_stopped_for_long_loses_its_session(t):
    """Its callers are told that nothing is known, it opens another session, and goes on."""
    cluster = t.cluster(3)
    leader = cluster.leader()
    victim, other = others_than(cluster, leader)
    path = cluster.path(leader, 'lines')
    open(path, 'w').close()
    appenders = [Appender(cluster.path(i, 'lines'), f'n{i}') for i in (victim, other)]
    wait_for(lambda: all(len(a.acknowledged) > 20 for a in appenders), 'both write')
    cluster.freeze(victim)
    wait_for(lambda: deaths(cluster, others_than(cluster, victim)) > 0,
             'whoever leads ends the session')
    written = len(appenders[1].acknowledged)
    cluster.thaw(victim)
    wait_for(lambda: 'the session of this node is over' in log_text(cluster, victim),
             'the node hears of it')
    before = len(appenders[0].acknowledged)
    wait_for(lambda: len(appenders[0].acknowledged) > before + 20, 'it writes again')
    wait_for(lambda: len(appenders[1].acknowledged) > written, 'so does the other')
    for a in appenders:
        a.finish()
    check(all(code == errno.EIO for _, code in appenders[0].errors),
          f'what was on its way is EIO: {appenders[0].errors}')
    check(len(appenders[0].errors) <= 2, f'and it is one call: {appenders[0].errors}')
    check_equal(appenders[1].errors, [], 'errors of the other node')
    check_equal(deaths(cluster, cluster.up()), 1, 'deaths')
    cluster.wait_caught_up(cluster.up())
    with open(path) as f:
        check_lines(f.read(), appenders)


def test_who_is_in_contact_keeps_its_session(t):
    """Nodes that are stopped for seconds, the leader for longer than a session lasts, idle mounts: no
    session is lost where its node was heard in time."""
    cluster = t.cluster(3)
    leader = cluster.leader()
    path = cluster.path(leader, 'lines')
    open(path, 'w').close()
    for victim in others_than(cluster, leader):
        cluster.freeze(victim)
        time.sleep(SILENT_SECONDS * 0.6)
        cluster.thaw(victim)
    leader = cluster.leader()
    cluster.freeze(*cluster.up())  # all at once: nobody takes over, and clocks go on
    time.sleep(SILENT_SECONDS * 1.2)
    cluster.thaw(*cluster.up())
    cluster.leader()
    for i in cluster.up():
        a = Appender(cluster.path(i, 'lines'), f'n{i}')
        wait_for(lambda: len(a.acknowledged) > 5, f'node {i} writes')
        a.finish()
    for i in cluster.up():
        check('is ended: nothing came' not in log_text(cluster, i), f'node {i} ended none')
        check('the session of this node is over' not in log_text(cluster, i),
              f'node {i} kept its session')


def test_exactly_once_over_lost_answers(t):
    """Leaders are killed, and hand over with all answers in their hands, while every mount appends:
    what was acknowledged is there once, what failed at most once, though all that was on its way
    was sent again and again."""
    cluster = t.cluster(3)
    path = cluster.path(0, 'lines')
    open(path, 'w').close()
    paths = [cluster.path(i, 'lines') for i in cluster.up()]
    appenders = [Appender(p, f'n{i}-{k}') for i, p in enumerate(paths) for k in range(4)]
    wait_for(lambda: all(len(a.acknowledged) > 5 for a in appenders), 'all write')
    for turn in range(6):
        leader = cluster.leader()
        done = [len(a.acknowledged) for a in appenders]
        if turn % 2:
            cluster.tierce('transfer', data=leader)
        else:
            cluster.kill9(leader)
            cluster.leader()
            cluster.start(leader)
        wait_for(lambda: all(len(a.acknowledged) > n for a, n in zip(appenders, done)),
                 f'all writers go on after turn {turn}')
    for a in appenders:
        a.finish()
    cluster.wait_caught_up(cluster.up())
    contents = []
    for i in cluster.up():
        with open(cluster.path(i, 'lines')) as f:
            contents.append(f.read())
    check(len(set(contents)) == 1, 'all nodes hold the same lines')
    check_lines(contents[0], appenders)


# A process of its own: what it has open it alone closes, also when the test starts a command.
WRITER = """
import os, sys
mount, name, files = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = os.urandom(1 << 20)
fds = [os.open(f'{mount}/{name}-{k}', os.O_CREAT | os.O_WRONLY) for k in range(files)]
print('open', flush=True)
sys.stdin.readline()
for fd in fds:
    os.write(fd, data)
for fd in fds:
    os.close(fd)
print('written', flush=True)
"""


def test_overload_makes_callers_wait_and_no_process_grow(t):
    """Nothing can be committed, and many write many files that they do not close: they wait, and the
    node's memory stays within its bound. When it can be committed again, all goes on."""
    cluster = t.cluster(3)
    leader = cluster.leader()
    followers = others_than(cluster, leader)
    writers, files = 4, 60
    crowd = [subprocess.Popen([sys.executable, '-c', WRITER, cluster.path(leader), str(w),
                               str(files)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
             for w in range(writers)]
    try:
        for writer in crowd:
            check_equal(writer.stdout.readline(), b'open\n', 'a writer is ready')
        before = rss_bytes(cluster.nodes[leader].pid)
        cluster.freeze(*followers)
        for writer in crowd:
            writer.stdin.write(b'write\n')
            writer.stdin.flush()
        wait_for(lambda: queues(cluster, leader)['mount_bytes']['_waits_total'] >= writers,
                 'all writers wait')
        grown = rss_bytes(cluster.nodes[leader].pid) - before
        check(all(w.poll() is None for w in crowd), 'and they still do')
        check(grown < memory_bound(cluster, leader),
              f'{grown >> 20} MiB more than before are in use')
        check_bounds(cluster, leader)
        cluster.thaw(*followers)
        for writer in crowd:
            check_equal(writer.stdout.readline(), b'written\n', 'a writer ends')
    finally:
        cluster.thaw(*followers)
        for writer in crowd:
            writer.kill()
            writer.wait()
    most = max(rss_bytes(cluster.nodes[i].pid) for i in cluster.up())
    print(f'  {grown >> 20} MiB more while all wait, at most {most >> 20} MiB', flush=True)
    bound = memory_bound(cluster, leader)
    check(most - before < bound,
          f'a node has grown to {most >> 20} MiB, its queues take {bound >> 20} MiB')
    for i in cluster.up():
        check_bounds(cluster, i)
    check_equal(queues(cluster, leader)['mount_bytes'][''], 0, 'bytes buffered at the end')
    cluster.wait_caught_up(cluster.up())
    for i in followers:
        check_equal(os.stat(cluster.path(i, '0-0')).st_size, 1 << 20, 'size of a file')


def usual_write(appender, count, until=lambda: True):
    """Of the next `count` writes, and of all that follow until `until()`: the seconds of the one
    that is under way at most moments. Of a hundred quick writes and then one that takes longer
    than all of them it is that one, and not a quick one as the median of their number is."""
    first = len(appender.seconds)
    wait_for(lambda: len(appender.seconds) >= first + count and until(), f'{count} writes')
    seconds = sorted(appender.seconds[first:])
    left = sum(seconds) / 2
    for s in seconds:
        left -= s
        if left <= 0:
            return s
    return seconds[-1]


def check_not_slowed(cluster, leader, slow, make_slow, make_well, faults):
    """The usual write with and without the slow member, in one run. `faults()`: how often it has
    been slow; how many writes a machine does meanwhile differs, so those are waited for."""
    open(cluster.path(leader, 'lines'), 'w').close()
    a = Appender(cluster.path(leader, 'lines'), 'writer')
    usual = usual_write(a, 100)
    make_slow()
    try:
        # It is waited for at first, as long as that is no habit.
        wait_for(lambda: faults() >= FAULTS / 2, 'it is a habit')
        before = faults()
        beside = usual_write(a, 50, lambda: faults() >= before + FAULTS)
    finally:
        make_well()
    a.finish()
    print(f'  the usual write: {usual * 1e3:.1f} ms, beside a slow member'
          f' {beside * 1e3:.1f} ms, {beside / usual:.2f} times', flush=True)
    check(beside < LATE_SECONDS + 4 * usual,
          f'{beside / usual:.1f} times slower beside a slow member')
    cluster.wait_caught_up([slow])
    with open(cluster.path(slow, 'lines')) as f:
        check_lines(f.read(), [a])
    for i in cluster.up():
        check_bounds(cluster, i)


def test_a_slow_disk_slows_nobody(t):
    cluster = t.cluster(3)
    leader = cluster.leader()
    slow = others_than(cluster, leader)[0]
    cluster.stop(slow)
    cluster.use_fault_disk(slow)
    cluster.start(slow)
    cluster.wait_ready()
    leader = cluster.leader()
    check(leader != slow, 'the slow one does not lead')
    check_not_slowed(cluster, leader, slow,
                     lambda: cluster.fault_disk(slow, f'sync slow {SLOW_SYNC_MS}'),
                     lambda: cluster.fault_disk(slow), lambda: cluster.fault_count(slow))


def test_a_starved_host_slows_nobody(t):
    """Stopped and continued all the time, as a host without processor time is."""
    cluster = t.cluster(3)
    leader = cluster.leader()
    slow = others_than(cluster, leader)[0]
    ended = threading.Event()
    pulses = []

    def starve():
        while not ended.is_set():
            cluster.freeze(slow)
            ended.wait(STARVED_SECONDS)
            cluster.thaw(slow)
            ended.wait(0.1)
            pulses.append(1)

    workers = []

    def make_well():
        ended.set()
        workers[0].result()

    check_not_slowed(cluster, leader, slow, lambda: workers.append(Worker(starve)),
                     make_well, lambda: len(pulses))


if __name__ == '__main__':
    main(globals())
