#!/usr/bin/python3
"""Without a majority, and without room: what callers are told, and that it passes."""

import errno
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (WAIT_SECONDS, Failure, at_most, check, check_equal, main,  # noqa: E402
                     wait_for)

REFUSED_SECONDS = 5.0  # where a write takes next to nothing
DIES_SECONDS = 2.5  # ... after kill -9 in a write that waits

# A process that appends numbered lines, each fsynced, and tells on stdout what it has done.
APPENDER = r'''
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
k = 0
while True:
    k += 1
    os.write(fd, b"%d\n" % k)
    os.fsync(fd)
    os.write(1, b"%d\n" % k)
'''


class Appender:
    def __init__(self, path):
        self.path = path
        self.process = subprocess.Popen(['/usr/bin/python3', '-c', APPENDER, path],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output = b''

    def acknowledged(self):
        """How many lines it has been told are written."""
        while piece := self.process.stdout.read():
            self.output += piece
        return self.output.count(b'\n')

    def kill(self):
        """SIGKILL; returns how long the process took to die of it."""
        at = time.monotonic()
        self.process.kill()
        self.process.wait(WAIT_SECONDS)
        return time.monotonic() - at

    def check_running(self):
        if self.process.poll() is not None:
            raise Failure(f'the writer ended with {self.process.returncode}:'
                          f' {self.process.stderr.read().decode()}')


def timed(call, *arguments):
    """(errno or 0, seconds) of one call."""
    begun = time.monotonic()
    try:
        call(*arguments)
        code = 0
    except OSError as e:
        code = e.errno
    return code, time.monotonic() - begun


def write_value(path, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def check_refused(c, i, label, usual):
    """Every kind of change is refused with EROFS, in time; again once that is known."""
    os_calls = [('create', write_value, (c.path(i, f'{label}-new'), b'x')),
                ('mkdir', os.mkdir, (c.path(i, f'{label}-dir'),)),
                ('unlink', os.unlink, (c.path(i, 'there'),)),
                ('rename', os.rename, (c.path(i, 'there'), c.path(i, 'moved'))),
                ('chmod', os.chmod, (c.path(i, 'there'), 0o600)),
                ('overwrite', write_value, (c.path(i, 'there'), b'lost'))]
    for shell in ('bash', 'dash'):  # they look at open's error, and dash not at close's
        for name in ('there', f'{label}-new'):
            done = subprocess.run([shell, '-c', f'echo lost > {c.path(i, name)}'],
                                  capture_output=True, text=True)
            check(done.returncode and 'Read-only' in done.stderr,
                  f'{shell}: echo > {name} without a majority: {done}')
    for name, call, arguments in os_calls:
        code, seconds = timed(call, *arguments)
        print(f'# {label}: {name} without a majority: {errno.errorcode.get(code, code)}'
              f' after {seconds:.2f} s')
        check_equal(errno.errorcode.get(code, code), 'EROFS', f'{name} without a majority')
        check(seconds < at_most(REFUSED_SECONDS, usual),
              f'{name} was refused after {seconds:.2f} s')


def test_two_of_three_killed(t):
    c = t.cluster()
    for turn in ('with the leader left', 'with a follower left'):
        usual = timed(write_value, c.path(0, 'there'), b'value')[1]
        leader = c.leader()
        if turn == 'with the leader left':
            left = leader
        else:
            left = (leader + 1 + t.random.randrange(2)) % 3
        killed = [i for i in range(3) if i != left]
        c.kill9(*killed)
        # A call from before the node knows is one "caught in the middle", and waits.
        wait_for(lambda: (c.status(left) or {}).get('quorum') is False,
                 'the node notices that it has no majority')
        check_refused(c, left, turn.split()[2], usual)
        with open(f'{c.nodes[left].data}/node.log', encoding='utf-8') as f:
            log = f.read()
        check(', no leader' in log and 'leader 0000000000000000' not in log, log)
        status = c.status(left)
        check(status and status['quorum'] is False, f'status without a majority: {status}')
        reachable = {m['name']: m['reachable'] for m in status['members']}
        for i in killed:
            check(not reachable[f'n{i}'], f'a killed node is said to be reachable: {reachable}')
        put = c.tierce('put', '/refused', 'x', data=left, code=1)
        check(put.error.strip(), f'put without a majority says nothing\n{put}')
        c.start(killed[0])
        c.leader()
        write_value(c.path(left, 'again'), turn.encode())
        with open(c.path(killed[0], 'again'), 'rb') as f:
            check_equal(f.read(), turn.encode(), 'a write with two of three')
        c.start(killed[1])
        c.wait_ready()
        for i in range(3):
            with open(c.path(i, 'there'), 'rb') as f:
                check_equal(f.read(), b'value', f'what was refused left no trace on {i}')
            check(not any(n.endswith(('-new', '-dir')) for n in os.listdir(c.path(i))),
                  f'a refused name is there on mount {i}: {os.listdir(c.path(i))}')


def test_a_write_caught_in_the_middle(t):
    """Both others freeze under a stream of writes: the one on its way waits, can be killed,
    and goes through when they thaw."""
    c = t.cluster()
    for kind in ('leader', 'follower'):
        for fate in ('killed', 'waits'):
            leader = c.leader()
            here = leader if kind == 'leader' else (leader + 1) % 3
            others = [i for i in range(3) if i != here]
            name = f'{kind}-{fate}'
            w = Appender(c.path(here, name))
            try:
                wait_for(lambda: w.acknowledged() >= 1, 'the writer has begun')
                begun, first = time.monotonic(), w.acknowledged()
                wait_for(lambda: w.acknowledged() >= first + 20, 'the writer writes')
                usual = (time.monotonic() - begun) / 20
                c.freeze(*others)
                wait_for(lambda: (c.status(here) or {}).get('quorum') is False,
                         'the node notices that it has no majority')
                done = w.acknowledged()
                w.check_running()  # it waits: it was not refused
                if fate == 'killed':
                    seconds = w.kill()
                    print(f'# {name}: the waiting writer died {seconds:.2f} s after kill -9')
                    check(seconds < at_most(DIES_SECONDS, usual),
                          f'a waiting writer took {seconds:.1f} s to die')
                c.thaw(*others)
                if fate == 'waits':
                    wait_for(lambda: w.acknowledged() > done + 10, 'the write goes through')
                    w.check_running()
            finally:
                c.thaw(*others)
                w.kill()
            acknowledged = w.acknowledged()
            c.wait_ready()
            for i in range(3):
                with open(c.path(i, name), 'rb') as f:
                    lines = [int(line) for line in f.read().split()]
                check(len(lines) in (acknowledged, acknowledged + 1),
                      f'{len(lines)} lines on mount {i}, {acknowledged} acknowledged')
                check_equal(lines, list(range(1, len(lines) + 1)), f'{name} on mount {i}')


def test_one_frozen_follower_does_not_stop_writes(t):
    c = t.cluster()
    leader = c.leader()
    frozen, other = [i for i in range(3) if i != leader]
    write_value(c.path(other, 'first'), b'1')
    c.freeze(frozen)
    try:
        for k in range(20):
            for i in (leader, other):
                write_value(c.path(i, f'value-{i}-{k}'), b'%d' % k)
    finally:
        c.thaw(frozen)
    c.wait_caught_up([frozen])
    for k in range(20):
        for i in (leader, other):
            with open(c.path(frozen, f'value-{i}-{k}'), 'rb') as f:
                check_equal(f.read(), b'%d' % k, 'a value written meanwhile')


def test_an_interrupted_caller_keeps_its_write(t):
    """A signal that is handled does not make a write fail while there is a majority (K14)."""
    c = t.cluster()
    script = r'''
import os, signal, sys
hits = [0]
signal.signal(signal.SIGALRM, lambda *_: hits.__setitem__(0, hits[0] + 1))
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
k = 0
while k < 300 or hits[0] <= 10:
    os.mkdir(f"{sys.argv[1]}-{k}")
    k += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(k, hits[0])
'''
    run = subprocess.run(['/usr/bin/python3', '-c', script, c.path(1, 'signalled')],
                         capture_output=True, text=True, timeout=WAIT_SECONDS)
    check_equal((run.returncode, run.stderr), (0, ''), 'mkdir under SIGALRM')
    check_equal(len(os.listdir(c.path(2))), int(run.stdout.split()[0]), 'directories made')


def test_full_disk(t):
    """Data directories on file systems of 192 MiB: ENOSPC, deletes, room, and writes again."""
    c = t.cluster(conf={'segment_mib': 16}, disk='192m')
    piece = t.random_bytes(1 << 20)
    written = []
    code = 0
    for k in range(400):
        name = f'fill-{k:03}'
        try:
            write_value(c.path(k % 3, name), piece[k:] + piece[:k])
        except OSError as e:
            code = e.errno
            break
        written.append(k)
    check_equal(errno.errorcode.get(code, code), 'ENOSPC', f'after {len(written)} MiB')
    check(len(written) > 20, f'the disk was full after {len(written)} MiB of 192')
    print(f'# ENOSPC after {len(written)} files of 1 MiB')
    check_equal(timed(write_value, c.path(0, 'more'), piece)[0], errno.ENOSPC, 'one more')

    # A shell does not look at the error of close: opening is what must fail.
    for i in range(3):
        check_equal(timed(write_value, c.path(i, 'more'), piece)[0], errno.ENOSPC, 'more')
        for shell, to in (('bash', '>'), ('dash', '>'), ('bash', '>>')):
            script = f'echo hi {to} {c.path(i, "shell")}'
            run = subprocess.run([shell, '-c', script], capture_output=True, text=True)
            check(run.returncode != 0, f'{script}: success on a full disk ({shell})')
            check('No space left' in run.stderr, f'{script}: {run.stderr}')
        check(not os.path.exists(c.path(i, 'shell')), 'a file that could not be written')

    def holds(k, i):
        with open(c.path(i, f'fill-{k:03}'), 'rb') as f:
            return f.read() == piece[k:] + piece[:k]
    for k in written[::7]:
        check(holds(k, k % 2), f'fill-{k:03} differs on a full disk')
    removed = written[:10]
    for k in removed:
        os.unlink(c.path(k % 3, f'fill-{k:03}'))
    pids = [node.pid for node in c.nodes]
    for node in c.nodes:
        subprocess.run(['mount', '-o', 'remount,size=512m', node.data], check=True)

    def has_room():
        code = timed(write_value, c.path(1, 'room'), b'again')[0]
        check(code in (0, errno.ENOSPC), f'a write said {errno.errorcode.get(code, code)}')
        return code == 0
    wait_for(has_room, 'writes work again without a restart')
    for k in range(20):
        write_value(c.path(k % 3, f'later-{k}'), piece)
    check_equal([c.status(i)['pid'] for i in range(3)], pids, 'no node was restarted')
    c.wait_caught_up([0, 1, 2])
    for i in range(3):
        names = set(os.listdir(c.path(i)))
        for k in written:
            if k in removed:
                check(f'fill-{k:03}' not in names, f'a deleted file is there on mount {i}')
            else:
                check(holds(k, i), f'fill-{k:03} differs on mount {i}')
        check({f'later-{k}' for k in range(20)} <= names, f'later writes on mount {i}')
    # And it is all there after a restart.
    c.kill9(0, 1, 2)
    c.start_all([0, 1, 2])
    c.wait_ready()
    for k in written[10::5]:
        check(holds(k, k % 3), f'fill-{k:03} differs after a restart')


if __name__ == "__main__":
    main(globals())
