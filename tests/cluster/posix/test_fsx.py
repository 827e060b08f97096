#!/usr/bin/python3
"""Random changes of one file, each compared with what a file in memory would hold: through one
mount, and by turns through two, where each sees what the other has committed. In the manner of
fsx, but our own: writes, mapped writes, truncations, holes, zeroed ranges, room, copies,
reopening and syncs; reads, mapped reads and where data lies."""

import mmap
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
import cluster  # noqa: E402
from cluster import Failure, check_equal  # noqa: E402
from posix_rules import (  # noqa: E402
    KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate, stretches)

SPACE = 400 * 1024
PAGE = 4096
EDGES = (0, 4096, 8192, 65536, 131072, 262144)


class Fsx:
    def __init__(self, random, paths):
        self.random, self.paths = random, paths
        self.expected = bytearray()
        self.files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o644) for path in paths]
        self.at = 0
        self.done = []
        self.counts = {}

    @property
    def fd(self):
        return self.files[self.at]

    # ---- Chance

    def some_offset(self, most=SPACE):
        r = self.random
        if r.random() < 0.4:
            return min(max(r.choice(EDGES) + r.randint(-2, 2), 0), most)
        return r.randint(0, most)

    def some_range(self, most=SPACE):
        offset = self.some_offset(most - 1)
        length = self.random.choice((1, 100, 4096, 5000, 65536, 100000))
        return offset, min(self.random.randint(1, length), most - offset)

    def some_range_within(self):
        """None: the file is empty."""
        size = len(self.expected)
        return self.some_range(size) if size else None

    def some_data(self, length):
        return self.random.randbytes(length)

    # ---- Changes: of the file, and of what is expected

    def put(self, offset, data):
        end = offset + len(data)
        if len(self.expected) < end:
            self.expected.extend(bytes(end - len(self.expected)))
        self.expected[offset:end] = data

    def do_write(self):
        offset, length = self.some_range()
        data = self.some_data(length)
        check_equal(os.pwrite(self.fd, data, offset), length, 'pwrite')
        self.put(offset, data)
        return offset, length

    def do_append(self):
        length = self.random.randint(1, 5000)
        if len(self.expected) + length > SPACE:
            return None
        data = self.some_data(length)
        fd = os.open(self.paths[self.at], os.O_WRONLY | os.O_APPEND)
        check_equal(os.write(fd, data), length, 'append')
        os.close(fd)
        self.put(len(self.expected), data)
        return length

    def do_map(self):
        """What is written through a mapping, and is in the file when it is gone."""
        chosen = self.some_range_within()
        if not chosen:
            return None
        offset, length = chosen
        data = self.some_data(length)
        with mmap.mmap(self.fd, os.fstat(self.fd).st_size) as m:
            m[offset:offset + length] = data
            if self.random.random() < 0.5:
                m.flush()
        self.put(offset, data)
        return offset, length

    def do_truncate(self):
        size = self.some_offset() if self.random.random() < 0.9 else 0
        os.ftruncate(self.fd, size)
        del self.expected[size:]
        self.expected.extend(bytes(size - len(self.expected)))
        return size

    def do_punch(self):
        offset, length = self.some_range()
        fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
        end = min(offset + length, len(self.expected))
        if offset < end:
            self.put(offset, bytes(end - offset))
        return offset, length

    def do_zero(self):
        offset, length = self.some_range()
        fallocate(self.fd, ZERO_RANGE, offset, length)
        self.put(offset, bytes(length))
        return offset, length

    def do_room(self):
        offset, length = self.some_range()
        keep = self.random.choice((0, KEEP_SIZE))
        fallocate(self.fd, keep, offset, length)
        if not keep:
            self.expected.extend(bytes(max(0, offset + length - len(self.expected))))
        return offset, length, keep

    def do_copy(self):
        chosen = self.some_range_within()
        if not chosen:
            return None
        offset, length = chosen
        to = self.some_offset(SPACE - length)
        if to < offset + length and offset < to + length:
            return None
        os.fstat(self.fd)  # the kernel copies up to the size that it was told last
        done = 0
        while done < length:
            n = os.copy_file_range(self.fd, self.fd, length - done, offset + done, to + done)
            if n == 0:
                raise Failure(f'copy_file_range ended after {done} of {length} bytes')
            done += n
        self.put(to, self.expected[offset:offset + length])
        return offset, length, to

    def do_replace(self):
        """A new value, in one step."""
        data = self.some_data(self.random.randint(0, SPACE // 2))
        with open(self.paths[self.at], 'wb') as f:
            f.write(data)
        self.expected[:] = data
        return len(data)

    def do_reopen(self):
        os.close(self.fd)
        self.files[self.at] = os.open(self.paths[self.at], os.O_RDWR)

    def do_sync(self):
        os.fsync(self.fd)

    # ---- Looks

    def check_range(self, offset, got, how):
        expected = self.expected[offset:offset + len(got)]
        if got != expected:
            bad = next(i for i, (a, b) in enumerate(zip(got, expected)) if a != b)
            raise Failure(f'{how}: the byte at {offset + bad} is {got[bad]},'
                          f' expected {expected[bad]}')

    def do_read(self):
        offset, length = self.some_range()
        got = os.pread(self.fd, length, offset)
        check_equal(len(got), max(0, min(length, len(self.expected) - offset)),
                    f'bytes read at {offset}')
        self.check_range(offset, got, 'read')
        return offset, length

    def do_look(self):
        """Through a mapping."""
        chosen = self.some_range_within()
        if not chosen:
            return None
        offset, length = chosen
        with mmap.mmap(self.fd, os.fstat(self.fd).st_size, prot=mmap.PROT_READ) as m:
            self.check_range(offset, m[offset:offset + length], 'a mapped read')
        return offset, length

    def do_seek(self):
        at = 0
        for start, end in stretches(self.fd):
            if any(self.expected[at:start]):
                raise Failure(f'data in what is said to be a hole, [{at}, {start})')
            at = end
        if any(self.expected[at:]):
            raise Failure(f'data in what is said to be a hole, from {at} on')

    def check_size(self):
        check_equal(os.fstat(self.fd).st_size, len(self.expected), 'st_size')

    def check_all(self):
        self.check_size()
        self.check_range(0, os.pread(self.fd, SPACE + 1, 0), 'all of it')

    # ---- Running

    STEPS = ('write', 'write', 'write', 'append', 'map', 'map', 'truncate', 'punch', 'zero',
             'room', 'copy', 'copy', 'replace', 'reopen', 'sync', 'read', 'read', 'look', 'seek')

    def step(self):
        if len(self.files) > 1 and self.random.random() < 0.5:
            os.fsync(self.fd)  # what is buffered here the other does not see
            self.at = 1 - self.at
            self.done.append(f'host {self.at}')
        name = self.random.choice(self.STEPS)
        self.done.append(name)
        self.done[-1] = f'{name} {getattr(self, "do_" + name)()}'
        self.counts[name] = self.counts.get(name, 0) + 1
        self.check_size()

    def run(self, steps):
        try:
            for i in range(steps):
                self.step()
                if i % 50 == 49:
                    self.check_all()
            for self.at in range(len(self.files)):
                os.fsync(self.fd)
            for self.at in range(len(self.files)):
                self.check_all()
        except BaseException:
            print('the last steps:\n  ' + '\n  '.join(self.done[-30:]))
            raise
        finally:
            for fd in self.files:
                os.close(fd)
        check_equal(set(self.counts), set(self.STEPS), 'every kind of step was taken')


def steps_of(t, usual):
    return 100 * usual if t.long else usual


def test_on_one_node(t):
    c = t.cluster(1)
    Fsx(t.random, [c.path(0, 'f')]).run(steps_of(t, 2000))


def test_on_a_follower(t):
    c = t.cluster(3)
    follower = (c.leader() + 1) % 3
    Fsx(t.random, [c.path(follower, 'f')]).run(steps_of(t, 1000))
    for i in range(3):
        check_equal(os.stat(c.path(i, 'f')).st_size,
                    os.stat(c.path(follower, 'f')).st_size, 'st_size on each host')


def test_by_turns(t):
    c = t.cluster(3)
    leader = c.leader()
    hosts = [(leader + 1) % 3, t.random.choice((leader, (leader + 2) % 3))]
    Fsx(t.random, [c.path(i, 'f') for i in hosts]).run(steps_of(t, 1000))


if __name__ == '__main__':
    cluster.main(globals())
