#!/usr/bin/python3
"""Files that have lost their name and are open somewhere (S8), while nodes die."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import check, check_equal, main, wait_for  # noqa: E402

SIZES = (100, 5000, 1 << 20)


def value(size):
    return (b'0123456789abcdef' * (size // 16 + 1))[:size]


def keys(c, i):
    st = os.statvfs(c.path(i))
    return st.f_files - st.f_ffree


def keys_before(c):
    """They are counted once a second, for the first time a second after the start."""
    wait_for(lambda: all(keys(c, i) for i in range(3)), 'the records to be counted')
    return max(keys(c, i) for i in range(3))


class Held:
    """Files that are open on one host, and removed by another."""

    def __init__(self, c, holder, remover):
        self.cluster, self.before = c, keys_before(c)
        names = [f'held-{size}' for size in SIZES]
        for name, size in zip(names, SIZES):
            with open(c.path(remover, name), 'wb') as f:
                f.write(value(size))
        wait_for(lambda: keys(c, remover) > self.before, 'the files to be counted')
        self.files = [open(c.path(holder, name), 'rb', buffering=0) for name in names]
        for name in names:
            os.unlink(c.path(remover, name))

    def check(self):
        for f, size in zip(self.files, SIZES):
            check_equal(os.fstat(f.fileno()).st_nlink, 0, 'nlink')
            check_equal(os.pread(f.fileno(), size + 1, 0), value(size), 'what is open')

    def close(self):
        for f in self.files:
            try:
                f.close()
            except OSError:
                pass  # its node is gone

    def wait_gone(self, *nodes):
        """A file of 1 MiB has more records than what else may come."""
        for i in nodes:
            wait_for(lambda i=i: keys(self.cluster, i) < self.before + 14,
                     f'node {i} to have nothing left of it', seconds=60)


def by_role(c):
    leader = c.leader()
    return leader, *(i for i in range(3) if i != leader)


def test_the_holder_dies(t):
    c = t.cluster()
    leader, holder, other = by_role(c)
    held = Held(c, holder, other)
    held.check()
    c.kill9(holder)
    held.close()
    held.wait_gone(leader, other)  # when its session has ended
    c.start(holder)
    held.wait_gone(holder)


def test_the_leader_dies(t):
    """It knows of nobody who holds what: what others hold stays."""
    c = t.cluster()
    leader, holder, other = by_role(c)
    held = Held(c, holder, leader)
    c.kill9(leader)
    c.leader(among=[holder, other])
    held.check()
    with open(c.path(other, 'after'), 'wb') as f:
        f.write(b'x')
    os.unlink(c.path(other, 'after'))
    held.check()
    c.start(leader)
    held.check()
    held.close()
    held.wait_gone(leader, holder, other)


def test_all_die(t):
    c = t.cluster()
    leader, holder, other = by_role(c)
    held = Held(c, holder, other)
    mine = Held(c, leader, other)
    c.kill9(0, 1, 2)
    held.close()
    mine.close()
    c.start_all([0, 1, 2])
    c.wait_ready()
    held.wait_gone(0, 1, 2)


def test_a_holder_that_stops_for_good(t):
    c = t.cluster()
    leader, holder, other = by_role(c)
    held = Held(c, holder, other)
    held.check()
    held.close()
    c.stop(holder)
    held.wait_gone(leader, other)


def test_removed_while_a_node_is_away(t):
    """It had looked the names up, and has missed their removal: it lets go when it is back."""
    c = t.cluster()
    leader, away, other = by_role(c)
    before = keys_before(c)
    names = [f'f{i}' for i in range(50)]
    for name in names:
        with open(c.path(other, name), 'wb') as f:
            f.write(value(5000))
        os.stat(c.path(away, name))
    wait_for(lambda: keys(c, other) >= before + 50, 'the files to be counted')
    c.freeze(away)
    for name in names:
        os.unlink(c.path(other, name))
    check(not [n for n in os.listdir(c.path(other)) if n in names], 'names are still there')
    c.thaw(away)
    for i in range(3):
        wait_for(lambda i=i: keys(c, i) < before + 14, f'node {i} to have nothing left',
                 seconds=60)


if __name__ == '__main__':
    main(globals())
