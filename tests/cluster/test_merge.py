#!/usr/bin/python3
"""What years do to a store, in minutes: merges under overwriting, snapshots for nodes that come
late, rot, and disks that hang, fail and fill up.

With --long the overwriting is of the size it is meant for (100 000 files, 10 rounds).
"""

import errno
import glob
import os
import shutil
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (Failure, Node, Pulse, TOKEN, WAIT_SECONDS, Worker, at_most,  # noqa: E402
                     check, check_equal, in_parallel, limit, main, wait_for)

MIB = 1 << 20
SEGMENT = 16 * MIB
STARVED_SECONDS = 0.1  # of the 300 ms that a member may be silent
CONF = {'segment_mib': 16}
FILE_BYTES = 4096
DEAD_MOUNT = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EINTR)


def content(number, round_):
    """4 KiB that tell file and round, and that do not compress."""
    head = f'{number} {round_} '.encode()
    step = (number * 2654435761 + round_ * 40503 + 1) & 0xffffffff
    words = bytearray()
    while len(words) < FILE_BYTES:
        step = (step * 1103515245 + 12345) & 0xffffffff
        words += step.to_bytes(4, 'little') * 16
    return head + bytes(words[len(head):FILE_BYTES])


def write_file(path, data, flags=os.O_TRUNC):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        check_equal(os.write(fd, data), len(data), 'bytes written')
    except BaseException:
        try:
            os.close(fd)
        except OSError:
            pass  # the write's own error is the one to tell
        raise
    os.close(fd)


def read_file(path):
    with open(path, 'rb') as f:
        return f.read()


class Overwriter(threading.Thread):
    """Overwrites its share of the files, round after round, through one mount. On a mount that
    was killed it rests until resume(), and writes the same file again."""

    def __init__(self, cluster, node, numbers, rounds):
        super().__init__(daemon=True)
        self.cluster, self.node, self.numbers, self.rounds = cluster, node, numbers, rounds
        self.last = {}  # number -> round acknowledged
        self.error, self.may_die = None, False
        self.resting, self.resumed = threading.Event(), threading.Event()
        self.written = 0
        self.start()

    def path_on(self, node, number):
        return self.cluster.path(node, f'd{number // 1000}', f'f{number}')

    def run(self):
        try:
            round_ = 0
            while round_ < self.rounds:
                round_ += 1
                for number in self.numbers:
                    if self.rounds == 0:
                        return
                    self.one(number, round_)
        except BaseException as e:
            self.error = e

    def one(self, number, round_):
        while True:
            try:
                write_file(self.path_on(self.node, number), content(number, round_))
                break
            except OSError as e:
                if not (self.may_die and e.errno in DEAD_MOUNT):
                    raise Failure(f'file {number}, round {round_}, mount {self.node}: {e}') from e
                self.resting.set()
                self.resumed.wait()
        self.last[number] = round_
        self.written += 1

    def expect_death(self):
        self.resting.clear()
        self.resumed.clear()
        self.may_die = True

    def resume(self):
        self.may_die = False
        self.resumed.set()

    def check(self):
        if self.error:
            raise self.error


def check_contents(cluster, i, expected):
    """expected: number -> round."""
    def look(numbers):
        for number in numbers:
            data = read_file(cluster.path(i, f'd{number // 1000}', f'f{number}'))
            if data != content(number, expected[number]):
                raise Failure(f'file {number} on mount {i}: begins {data[:20]!r},'
                              f' expected round {expected[number]}')
    numbers = sorted(expected)
    in_parallel(look, [(numbers[k::4],) for k in range(4)], 900)


def disk_bytes(status):
    return status['log_bytes'] + status['merged_bytes'] + status['hint_bytes']


def check_space(cluster, indices):
    """At most twice the live bytes and two segments, once merging has come to rest."""
    def within():
        return all(disk_bytes(s) <= 2 * s['live_bytes'] + 2 * SEGMENT
                   for s in map(cluster.status, indices))
    wait_for(within, 'disk use is within bounds')
    for s in map(cluster.status, indices):
        print(f'# {s["name"]}: live {s["live_bytes"] / MIB:.1f} MiB, disk'
              f' {disk_bytes(s) / MIB:.1f} MiB, {s["merges"]} merges,'
              f' {s["merge_bytes_written"] / MIB:.1f} MiB written by them, base {s["base"]}')


def fill(cluster, i, files, rounds, first=0):
    """Makes the log grow: `files` files, `rounds` times, through mount i, 4 at a time."""
    def some(k):
        for round_ in range(1, rounds + 1):
            for number in range(first + k, first + files, 4):
                write_file(cluster.path(i, f'f{number}'), content(number, round_))
    in_parallel(some, [(k,) for k in range(4)])


def wait_merged(cluster, indices):
    """Until the logs of these nodes begin later than with entry 1."""
    wait_for(lambda: all(cluster.status(i)['base'] > 0 for i in indices),
             f'the logs of nodes {indices} are merged')


# ---- Overwriting, with kills

@limit(3600)
def test_overwriting_through_three_mounts(t):
    files, rounds, kills = (100000, 10, 20) if t.long else (1200, 12, 3)
    c = t.cluster(conf=CONF)
    for k in range((files + 999) // 1000):
        os.mkdir(c.path(0, f'd{k}'))
    c.wait_caught_up([0, 1, 2])
    writers = [Overwriter(c, i, range(i, files, 3), rounds) for i in range(3)]
    all_writes = files * rounds
    killed = 0
    try:
        while any(w.is_alive() for w in writers):
            for w in writers:
                w.check()
            done = sum(w.written for w in writers)
            if killed < kills and done > all_writes * (killed + 1) // (kills + 1):
                victim = t.random.randrange(3)
                w = writers[victim]
                w.expect_death()
                c.kill9(victim)
                wait_for(lambda: w.resting.is_set() or not w.is_alive(), 'the writer rests')
                c.start(victim)
                w.resume()
                killed += 1
            time.sleep(0.02)
    finally:
        for w in writers:
            w.resume()
    for w in writers:
        w.join()
        w.check()
    check_equal(killed, kills, 'nodes killed')
    expected = {n: r for w in writers for n, r in w.last.items()}
    check_equal(len(expected), files, 'files written')
    c.wait_caught_up([0, 1, 2])
    wait_merged(c, [0, 1, 2])
    for i in range(3):
        check_contents(c, i, expected)
    check_space(c, [0, 1, 2])
    for i in range(3):  # and after a restart, from hints
        c.kill9(i)
        c.start(i)
    c.wait_ready()
    for i in range(3):
        check_contents(c, i, expected)


# ---- Snapshots

def wipe_and_join(c, gone):
    """Node `gone` is lost for ever; another one takes its place. Returns its index."""
    c.kill9(gone)
    shutil.rmtree(c.nodes[gone].data)
    node = Node(c.base, len(c.nodes), f'n{len(c.nodes)}')
    os.makedirs(node.mount)
    token = TOKEN.search(c.tierce('invite', data=0).text).group()
    c.nodes.append(node)
    c.tierce('join', token, '--listen', node.address, '--name', node.name, data=node.index)
    c._configure(node)
    return node.index


def is_voter(c, i):
    status = c.status(i)
    return status and any(m['voter'] and m['name'] == c.nodes[i].name
                          for m in status['members'])


def test_a_wiped_node_gets_a_snapshot_while_writes_go_on(t):
    c = t.cluster(conf=CONF)
    fill(c, 0, 600, 20)
    c.wait_caught_up([0, 1, 2])
    wait_merged(c, [0, 1])
    stop = threading.Event()
    written = []

    def go_on():
        while not stop.is_set():
            write_file(c.path(0, f'on-{len(written) % 50}'), f'{len(written)}'.encode())
            written.append(time.monotonic())
    writer = Worker(go_on)
    try:
        new = wipe_and_join(c, 2)
        begun = time.monotonic()
        c.start(new)
        wait_for(lambda: (c.status(new) or {}).get('base', 0) > 0, 'a snapshot is installed')
        wait_for(lambda: is_voter(c, new), 'it votes')
        during = [w for w in written if w > begun]
    finally:
        stop.set()
    writer.result()
    check(len(during) > 5, f'only {len(during)} writes during the snapshot')
    print(f'# {len(during)} writes while it was fetched and installed')
    c.wait_caught_up([0, 1, new])
    log = read_file(f'{c.nodes[new].data}/node.log').decode()
    check('is installed: the log begins after' in log, 'its log tells of the snapshot')
    for name in os.listdir(c.path(0)):
        check_equal(read_file(c.path(new, name)), read_file(c.path(0, name)), f'{name} on it')
    check_equal(sorted(os.listdir(c.path(new))), sorted(os.listdir(c.path(0))), 'names on it')
    # It takes part: with it and without another one there is a majority of the four.
    write_file(c.path(new, 'by-the-new-one'), b'x')
    check_equal(read_file(c.path(1, 'by-the-new-one')), b'x', 'what it wrote, on another')
    # What it has survives its own restart.
    c.kill9(new)
    c.start(new)
    c.wait_caught_up([0, 1, new])
    for name in sorted(os.listdir(c.path(0)))[::7]:
        check_equal(read_file(c.path(new, name)), read_file(c.path(0, name)), f'{name} again')


def make_lead(c, i):
    """Freezes whoever else leads until this node does. No process ends, no session either."""
    for _ in range(30):
        leader = c.leader()
        if leader == i:
            return
        c.freeze(leader)
        try:
            c.leader([k for k in c.up() if k != leader])
        finally:
            c.thaw(leader)
        c.wait_ready()
    raise Failure(f'node {i} never leads')


def test_a_node_behind_the_log_s_start_comes_back(t):
    """It keeps what it has, while the others merge what it would need: a snapshot again. With it
    comes what only the entries said: the sessions of the others, whose windows it keeps when it
    leads."""
    c = t.cluster(conf=CONF)
    fill(c, 0, 300, 4)
    c.wait_caught_up([0, 1, 2])
    c.kill9(2)
    applied = c.status(0)['applied']
    for i in (0, 1):  # sessions that it has never heard of
        c.kill9(i)
        c.start(i)
    fill(c, 0, 300, 20, first=100)
    wait_for(lambda: min(c.status(i)['base'] for i in (0, 1)) > applied,
             'the others merge what it has not seen')
    c.start(2)
    wait_for(lambda: c.status(2)['base'] > applied, 'a snapshot is installed')
    c.wait_ready()
    for i in (0, 1, 2):
        names = sorted(os.listdir(c.path(i)))
        check_equal(len(names), 400, f'names on mount {i}')
        for number in range(400):
            round_ = 20 if number >= 100 else 4
            check_equal(read_file(c.path(i, f'f{number}')), content(number, round_),
                        f'f{number} on mount {i}')
    c.kill9(2)  # and they survive its restart
    c.start(2)
    c.wait_ready()
    make_lead(c, 2)
    for i in (0, 1):
        os.mkdir(c.path(i, f'dir-of-{i}'))
        check('the session of this node is over' not in
              read_file(f'{c.nodes[i].data}/node.log').decode(), f'node {i} keeps its session')


def fill_large(t, c, i, files=40, writes=280):
    """Files of 1 MiB, overwritten in no order, so that live records are copied into merged
    files of some segments. Returns name -> bytes."""
    piece = t.random_bytes(MIB)
    last = {}
    for k in range(10 * writes):
        number = k if k < files else t.random.randrange(files)
        last[f'large-{number}'] = piece[k:] + piece[:k]
        write_file(c.path(i, f'large-{number}'), last[f'large-{number}'])
        if k >= writes and k % 8 == 0 and c.status(i)['merged_bytes'] > 22 * MIB:
            break
    c.wait_caught_up(c.up())
    # A merge of merged files may have made them fewer meanwhile.
    check(c.status(i)['merged_bytes'] > 14 * MIB, 'more than 14 MiB are merged')
    return last


def bytes_here(c, i):
    """What the node had of a snapshot each time it began or went on, from its log."""
    lines = read_file(f'{c.nodes[i].data}/node.log').decode().splitlines()
    return [int(line.split(' of ')[-2].split()[-1]) for line in lines if 'bytes are here' in line]


def test_a_snapshot_goes_on_where_it_was_cut(t):
    """The receiver is killed in the middle, then the sender's process is frozen and its
    connections cut; what was synced is not fetched again."""
    c = t.cluster(conf=CONF)
    expected = fill_large(t, c, 0)
    new = wipe_and_join(c, 2)
    c.use_fault_disk(new)
    c.fault_disk(new, 'part hang 9')  # merges may still make the files fewer
    starting = Worker(c.start, new)
    wait_for(lambda: c.fault_count(new) > 0, 'its disk hangs in the middle of the snapshot')
    started = starting.result()  # it does without what is still to come, and says so
    check('this node is behind' in started.error and 'no majority' not in started.error,
          f'it says at its start: {started.error}')
    status = c.status(new)
    check_equal(status['base'], 0, 'where its log begins')
    check(status['snapshot_total'] > 9 * MIB and 0 < status['snapshot_bytes'] <= 9 * MIB,
          f'status tells of the snapshot: {status["snapshot_bytes"]} of {status["snapshot_total"]}')
    write_file(c.path(0, 'meanwhile'), b'x')  # the others do not wait for it
    c.kill9(new)
    c.fault_disk(new)
    c.start(new)
    wait_for(lambda: is_voter(c, new), 'it votes')
    here = bytes_here(c, new)
    check(len(here) >= 2 and here[0] == 0 and here[1] >= 4 * MIB,
          f'what was here at the begin of each attempt: {here}')
    print(f'# {here[1] / MIB:.1f} MiB were there when it went on')
    c.wait_caught_up([0, 1, new])
    expected['meanwhile'] = b'x'
    for name, data in expected.items():
        check_equal(read_file(c.path(new, name)), data, f'{name} on it')


# ---- Rot

def find_on_disk(data, needle):
    """(path, offset) of each place in the store's data files."""
    found = []
    for path in sorted(glob.glob(f'{data}/log/*.seg') + glob.glob(f'{data}/log/*.mrg')):
        blob = read_file(path)
        at = blob.find(needle)
        while at >= 0:
            found.append((path, at))
            at = blob.find(needle, at + 1)
    return found


def flip(path, offset):
    with open(path, 'r+b') as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 0x40]))


def test_rot_is_healed(t):
    """A byte goes bad on one node's disk: who reads it there gets the right bytes, and so does
    the disk. On the leader, too, which evaluates by what it reads."""
    c = t.cluster(conf=CONF)
    for number in range(20):
        write_file(c.path(0, f'f{number}'), content(number, 1))
    c.wait_caught_up([0, 1, 2])
    leader = c.leader()
    for i in range(3):
        number = 3 * i
        needle = content(number, 1)[100:1000]
        places = find_on_disk(c.nodes[i].data, needle)
        check_equal(len(places), 1, f'places of file {number} on the disk of node {i}')
        flip(places[0][0], places[0][1] + 50)
        if i == leader:  # an append re-emits what is there
            write_file(c.path(i, f'f{number}'), b'more', os.O_APPEND)
            expected = content(number, 1) + b'more'
        else:
            expected = content(number, 1)
        check_equal(read_file(c.path(i, f'f{number}')), expected, f'file {number} on {i}')
        status = wait_for(lambda: (s := c.status(i))['repaired'] and s, 'it is repaired')
        check_equal((status['damaged'], status['repaired'], status['unrepaired']), (1, 1, 0),
                    f'damage found, repaired, left on node {i}')
        check_equal(find_on_disk(c.nodes[i].data, needle)[:1], places, 'the bytes on disk')
    for i in range(3):
        check_equal(read_file(c.path(i, 'f1')), content(1, 1), f'another file on {i}')


def test_rot_that_nobody_can_heal_is_eio(t):
    """A cluster of one: never wrong bytes, and a message."""
    c = t.cluster(1, conf=CONF)
    write_file(c.path(0, 'f'), content(1, 1))
    write_file(c.path(0, 'g'), content(2, 1))
    places = find_on_disk(c.nodes[0].data, content(1, 1)[100:1000])
    check_equal(len(places), 1, 'places on the disk')
    flip(places[0][0], places[0][1] + 50)
    for _ in range(2):
        try:
            read_file(c.path(0, 'f'))
            raise Failure('damaged bytes were read')
        except OSError as e:
            check_equal(e.errno, errno.EIO, 'the error of reading damaged bytes')
    check_equal(read_file(c.path(0, 'g')), content(2, 1), 'the other file')
    check_equal(c.status(0)['unrepaired'], 1, 'damage that stays')
    check('no other node could give it' in read_file(f'{c.nodes[0].data}/node.log').decode(),
          'its log tells of the damage')


def test_rot_in_the_log_of_a_node_that_starts(t):
    """A hole before what is proven: neither cut off nor voted over, filled by the leader."""
    c = t.cluster(conf=CONF)
    fill(c, 0, 100, 3)
    c.wait_caught_up([0, 1, 2])
    victim = (c.leader() + 1) % 3
    c.kill9(victim)
    segments = sorted(glob.glob(f'{c.nodes[victim].data}/log/*.seg'))
    places = find_on_disk(c.nodes[victim].data, content(50, 2)[100:1000])
    check_equal(len(places), 1, 'places on the disk')
    flip(places[0][0], places[0][1])
    size = os.stat(segments[-1]).st_size
    c.start(victim)
    c.wait_ready()
    check(os.stat(segments[-1]).st_size >= size, 'the log was not cut')
    status = c.status(victim)
    check_equal((status['damaged'], status['repaired']), (1, 1), 'damage found, repaired')
    log = read_file(f'{c.nodes[victim].data}/node.log').decode()
    check_equal(log.count('it is fetched from the other nodes'), 1, 'said once')
    for number in range(100):
        check_equal(read_file(c.path(victim, f'f{number}')), content(number, 3), f'f{number}')
    check_equal(find_on_disk(c.nodes[victim].data, content(50, 2)[100:1000])[:1], places,
                'the bytes on disk')
    for i in range(3):  # and with its vote
        if i != victim:
            c.kill9(i)
            write_file(c.path(victim, f'without-{i}'), b'x')
            c.start(i)
            c.wait_ready()


def entry_heads(path):
    """Where the entry records of a log segment begin, as far as its records are whole."""
    data = read_file(path)
    found, at = [], 64
    while at + 20 <= len(data):
        key_size, value_size = struct.unpack_from('<II', data, at + 12)
        if key_size == 0:
            break  # zeros: nothing was written there yet
        if (key_size, value_size) == (1, 76):
            found.append(at)
        at += 20 + key_size + (0 if value_size == 0xffffffff else value_size)
    return found


def test_rot_in_the_head_of_an_entry_that_another_needs(t):
    """The leader has to send entries from its disk, and cannot tell of which term the damaged
    one is: it gets it back all the same."""
    c = t.cluster(conf=CONF)
    c.kill9(2)
    piece = t.random_bytes(MIB)
    for k in range(36):
        write_file(c.path(0, f'large-{k}'), piece[k:] + piece[:k])
    c.wait_caught_up([0, 1])
    damaged = {}
    for i in (0, 1):  # another entry on each, as any of the two may lead
        segment = sorted(glob.glob(f'{c.nodes[i].data}/log/*.seg'))[1]
        hint = segment[:-len('seg')] + 'hint'
        wait_for(lambda: os.path.exists(hint), 'the segment is done with')
        c.kill9(i)  # what it has in memory goes
        heads = entry_heads(segment)
        flip(segment, heads[len(heads) // 2 + 2 * i] + 30)
        damaged[i] = segment, read_file(segment)
    for i in (0, 1):
        c.start(i)
    leader = c.leader([0, 1])
    c.start(2)
    c.wait_caught_up([0, 1, 2])
    status = c.status(leader)
    check_equal((status['damaged'], status['repaired'], status['unrepaired']), (1, 1, 0),
                'damage found, repaired, left')
    segment, before = damaged[leader]
    check(read_file(segment) != before, 'the bytes on disk are others')
    for k in range(36):
        check_equal(read_file(c.path(2, f'large-{k}')), piece[k:] + piece[:k], f'large-{k}')


class Reader(threading.Thread):
    """Reads files at random through one mount: what it gets is what somebody wrote. (It may be
    behind: its node may have been frozen.) Errors are for a mount whose node dies."""

    def __init__(self, cluster, node, writers, random):
        super().__init__(daemon=True)
        self.cluster, self.node, self.writers, self.random = cluster, node, writers, random
        self.error, self.reads, self.failed, self.ending = None, 0, 0, False
        self.start()

    def run(self):
        try:
            while not self.ending:
                self.one()
        except BaseException as e:
            self.error = e

    def one(self):
        writer = self.random.choice(self.writers)
        number = self.random.choice(writer.numbers)
        try:
            data = read_file(writer.path_on(self.node, number))
        except OSError as e:
            if e.errno not in DEAD_MOUNT + (errno.ENOENT, errno.ESTALE):
                raise
            self.failed += 1
            time.sleep(0.01)
            return
        if data:  # empty: being made
            round_ = int(data.split(b' ', 2)[1])
            check(data == content(number, round_), f'wrong bytes of file {number} on mount'
                  f' {self.node}: {data[:30]!r}')
        self.reads += 1


def rot_somewhere(c, i, random):
    """A byte of a data file of node i that nothing is appended to any more; not of its header,
    which is not repaired, and not of hints: where one is damaged besides its data file, the node
    asks for help. True: done."""
    log = sorted(glob.glob(f'{c.nodes[i].data}/log/*.seg'))[:-1]
    files = log + glob.glob(f'{c.nodes[i].data}/log/*.mrg')
    if not files:
        return False
    path = random.choice(files)
    try:
        size = os.stat(path).st_size
        flip(path, random.randrange(64, size))
    except (FileNotFoundError, ValueError):
        return False  # merged away just now
    return True


def rot_in_a_head(c, i, random):
    """The same, in the head of an entry."""
    log = sorted(glob.glob(f'{c.nodes[i].data}/log/*.seg'))[:-1]
    if not log:
        return False
    path = random.choice(log)
    try:
        heads = entry_heads(path)
        if not heads:
            return False
        flip(path, random.choice(heads) + random.randrange(97))
    except FileNotFoundError:
        return False  # merged away just now
    return True


def rot_in_a_value(c, i, writers, random):
    """The same, in what somebody will read."""
    writer = random.choice(writers)
    number = random.choice(writer.numbers)
    round_ = writer.last.get(number)
    if not round_:
        return False
    try:
        places = find_on_disk(c.nodes[i].data, content(number, round_)[:1000])
        active = sorted(glob.glob(f'{c.nodes[i].data}/log/*.seg'))[-1]
        if not places or places[0][0] == active:
            return False
        flip(places[0][0], places[0][1] + random.randrange(1000))
    except (FileNotFoundError, IndexError):
        return False
    return True


@limit(3600)
def test_everything_at_once(t):
    """Overwriting, reading, merging; kills, freezes, and rot on one of three disks."""
    seconds = 900 if t.long else 25
    c = t.cluster(conf=CONF)
    os.mkdir(c.path(0, 'd0'))
    still = {number: 1 for number in range(900, 930)}  # written once, read at the end
    for number in still:
        write_file(c.path(0, 'd0', f'f{number}'), content(number, 1))
    c.wait_caught_up([0, 1, 2])
    writers = [Overwriter(c, i, range(i, 300, 3), 1 << 30) for i in range(3)]
    readers = [Reader(c, i, writers, t.random) for i in range(3)]
    counts = {'kill': 0, 'freeze': 0, 'rot': 0}
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or (min(counts.values()) == 0 and
                                         time.monotonic() < end + WAIT_SECONDS):
            for thread in writers + readers:
                if thread.error:
                    raise thread.error
            what = t.random.choice(['kill', 'freeze', 'rot', 'rot', 'rot'])
            i = 2 if what == 'rot' else t.random.randrange(3)
            if what == 'kill':
                writers[i].expect_death()
                c.kill9(i)
                wait_for(lambda: writers[i].resting.is_set() or not writers[i].is_alive(),
                         'the writer rests')
                c.start(i)
                writers[i].resume()
            elif what == 'freeze':
                c.freeze(i)
                time.sleep(t.random.random())
                c.thaw(i)
            else:
                kind = t.random.randrange(4)
                if not (rot_somewhere(c, i, t.random) if kind == 0 else
                        rot_in_a_head(c, i, t.random) if kind == 1 else
                        rot_in_a_value(c, i, writers, t.random)):
                    continue
            counts[what] += 1
            time.sleep(t.random.random())
    finally:
        for w in writers:
            w.rounds = 0
            w.resume()
        for r in readers:
            r.ending = True
    for thread in writers + readers:
        thread.join(WAIT_SECONDS)
        if thread.error:
            raise thread.error
        check(not thread.is_alive(), 'a call through a mount does not return')
    check(min(counts.values()) > 0, f'each of {counts} happened')
    c.wait_ready()
    number = t.random.choice(list(still))

    def rot_what_is_still():
        try:
            for path, offset in find_on_disk(c.nodes[2].data, content(number, 1)[:1000]):
                flip(path, offset + t.random.randrange(1000))
            return True
        except FileNotFoundError:
            return False  # merged away just now
    wait_for(rot_what_is_still, 'a file that nobody overwrites rots')
    expected = {n: r for w in writers for n, r in w.last.items()} | still
    for i in range(3):
        check_contents(c, i, expected)
    log = read_file(f'{c.nodes[2].data}/node.log').decode()
    check(log.count('and is repaired') > 0, f'{counts["rot"]} times rot, and no repair')
    print(f'# {counts}, {sum(w.written for w in writers)} writes, {sum(r.reads for r in readers)}'
          f' reads, {sum(r.failed for r in readers)} failed; {log.count("and is repaired")}'
          f' repairs, {log.count("no other node could give it")} times nobody could;'
          f' merges since the last start {[c.status(i)["merges"] for i in range(3)]}')


# ---- Disks that hang, fail, fill up

def cluster_with_fault_disks(t, **keywords):
    c = t.cluster(0, **keywords)
    c.nodes = [Node(c.base, i, f'n{i}') for i in range(3)]
    for node in c.nodes:
        os.makedirs(node.mount)
    c.use_fault_disk(0, 1, 2)
    c.make()
    return c


def test_a_slow_follower_needs_no_snapshot(t):
    """G8: what a member that is there has not on its disk yet stays in the others' logs."""
    c = cluster_with_fault_disks(t, conf=CONF)
    fill(c, 0, 100, 2)
    make_lead(c, 0)
    c.wait_caught_up([0, 1, 2])
    c.fault_disk(2, 'sync hang')
    wait_for(lambda: c.fault_count(2) > 0 or write_file(c.path(0, 'x'), b'x'), 'its disk hangs')
    applied, term = c.status(2)['applied'], c.status(0)['term']
    pulse = Pulse()
    fill(c, 0, 600, 16, first=1000)
    late = pulse.stop()
    if c.status(0)['term'] != term:  # whose term this disk cannot note, so that it is silent
        t.skip('another leader was elected meanwhile: this machine is too slow')
    if late > STARVED_SECONDS:  # so may node 2 be, and who is silent for so long is not there
        t.skip(f'a turn came {late * 1000:.0f} ms late: this machine is too slow')
    for i in (0, 1):
        status = c.status(i)
        check(status['last'] - applied > 5000, f'node 2 is behind: {status["last"]}, {applied}')
        check(status['base'] <= applied + 1000, f'the log of node {i} begins after'
              f' {status["base"]}, node 2 has {applied}')
    c.fault_disk(2)
    c.wait_caught_up([0, 1, 2])
    check('is installed' not in read_file(f'{c.nodes[2].data}/node.log').decode(),
          'it fetched no snapshot')
    wait_for(lambda: c.status(0)['base'] > applied + 1000, 'merges go on behind it')
    for number in range(1000, 1600, 7):
        check_equal(read_file(c.path(2, f'f{number}')), content(number, 16), f'f{number}')

def test_a_hung_disk_hands_over(t):
    c = cluster_with_fault_disks(t)
    leader = c.leader()
    other = (leader + 1) % 3
    begun = time.monotonic()
    for k in range(20):
        write_file(c.path(other, f'before-{k}'), b'x')
    usual = (time.monotonic() - begun) / 20
    c.fault_disk(leader, 'sync hang')
    begun = time.monotonic()
    worker = Worker(write_file, c.path(other, 'during'), b'y')
    worker.result()
    took = time.monotonic() - begun
    new = c.leader()
    check(new != leader, 'another node leads')
    check(c.fault_count(leader) > 0, 'a sync was hung')
    check(c.status(leader)['disk_hung'], 'its status says so')
    check(took < at_most(8, usual), f'a write took {took:.1f} s')
    print(f'# a write beside a leader whose disk hangs took {took:.2f} s')
    for k in range(20):
        write_file(c.path(other, f'more-{k}'), b'z')
    c.fault_disk(leader)
    wait_for(lambda: not c.status(leader)['disk_hung'], 'the disk answers again')
    c.wait_ready()
    check_equal(read_file(c.path(leader, 'during')), b'y', 'what was written meanwhile')
    write_file(c.path(leader, 'after'), b'w')


def test_a_failed_sync_stops_the_node(t):
    c = cluster_with_fault_disks(t)
    for order, what in (('sync fail 5', 'Input/output error'), ('write fail 5', 'Input/output')):
        victim = (c.leader() + 1) % 3
        other = (c.leader() + 2) % 3
        before = c.fault_count(victim)
        c.fault_disk(victim, order)
        c.nodes[victim].up = False
        write_file(c.path(other, 'x'), order.encode())
        c.wait_ended(victim)
        check(c.fault_count(victim) > before, f'{order}: it was injected')
        check(what in read_file(f'{c.nodes[victim].data}/node.log').decode().splitlines()[-1],
              f'{order}: the last line of its log tells')
        write_file(c.path(other, 'y'), order.encode())
        c.fault_disk(victim)
        c.start(victim)
        c.wait_ready()
        check_equal(read_file(c.path(victim, 'y')), order.encode(), 'after its restart')


def test_a_full_disk_frees_itself(t):
    """More is overwritten than the disk could hold; then it is filled, and deletes make room."""
    c = t.cluster(conf=CONF, disk='256m')
    piece = t.random_bytes(MIB)
    for k in range(400):
        write_file(c.path(k % 3, f'over-{k % 10}'), piece[k:] + piece[:k])
    c.wait_caught_up([0, 1, 2])
    wait_merged(c, [0, 1, 2])
    check_space(c, [0, 1, 2])
    filled, code = [], 0
    for k in range(400):
        try:
            write_file(c.path(k % 3, f'fill-{k}'), piece[k:] + piece[:k])
        except OSError as e:
            code = e.errno
            break
        filled.append(k)
    check_equal(errno.errorcode.get(code, code), 'ENOSPC', f'after {len(filled)} MiB')
    print(f'# ENOSPC with {len(filled) + 10} MiB of live data on 256')
    check(len(filled) >= 40, f'the disk was full after {len(filled)} MiB of 256')
    for k in filled[::2]:
        os.unlink(c.path(k % 3, f'fill-{k}'))

    def has_room(k):
        try:
            write_file(c.path(k % 3, f'later-{k}'), piece)
            return True
        except OSError as e:
            check_equal(e.errno, errno.ENOSPC, 'the error of a write')
            return False
    for k in range(15):
        wait_for(lambda: has_room(k), 'merges make room, without a restart')
    c.wait_caught_up([0, 1, 2])
    for i in range(3):
        for k in filled[1::2]:
            check_equal(read_file(c.path(i, f'fill-{k}')), piece[k:] + piece[:k],
                        f'fill-{k} on mount {i}')


if __name__ == '__main__':
    main(globals())
