#!/usr/bin/python3
"""One node after another gets the next version of the program, and can go back until the last
one has it. The program of the next version is this one with its version raised."""

import glob
import os
import struct
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (Failure, TOKEN, check, check_equal, find_raised_binary,  # noqa: E402
                     main, wait_for)

OLD, NEW = 3, 4  # the versions of the protocol
OLD_FORMAT, NEW_FORMAT = 1, 2


class Writer(threading.Thread):
    """Appends numbered lines through one mount, each acknowledged by fsync, until stop(). Rests
    while its node is another program's."""

    def __init__(self, cluster, node):
        super().__init__(daemon=True)
        self.cluster, self.node, self.name = cluster, node, f'lines-{node}'
        self.acknowledged, self.error, self.ending = 0, None, False
        self.running, self.resting = threading.Event(), threading.Event()
        self.running.set()
        self.start()

    def run(self):
        try:
            while not self.ending:
                if not self.running.is_set():
                    self.resting.set()
                    self.running.wait()
                    continue
                fd = os.open(self.cluster.path(self.node, self.name),
                             os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                try:
                    os.write(fd, f'{self.acknowledged + 1}\n'.encode())
                    os.fsync(fd)
                finally:
                    os.close(fd)
                self.acknowledged += 1
        except BaseException as e:
            self.error = e

    def check_error(self):
        if self.error:
            raise Failure(f'line {self.acknowledged + 1} by node {self.node}: {self.error}')

    def rest(self):
        self.running.clear()
        wait_for(lambda: self.error or self.resting.is_set(), 'the writer rests')
        self.check_error()

    def resume(self):
        self.resting.clear()
        self.running.set()

    def wait_progress(self, lines=10):
        target = self.acknowledged + lines
        wait_for(lambda: self.error or self.acknowledged >= target, f'{self.name} {target}')
        self.check_error()

    def stop(self):
        self.ending = True
        self.running.set()
        self.join(60)
        check(not self.is_alive(), 'the writer ends')
        self.check_error()


def is_complete(path, count):
    try:
        with open(path) as f:
            return f.read() == ''.join(f'{i + 1}\n' for i in range(count))
    except FileNotFoundError:
        return False


class Upgrade:
    """A cluster of which some nodes run the next version, under the writes of all mounts."""

    def __init__(self, t, n=3):
        self.raised = find_raised_binary()
        self.c = t.cluster(n)
        self.writers = [Writer(self.c, i) for i in range(n)]

    def change(self, i, binary):
        """The node goes on with another program: as a user would do it."""
        self.writers[i].rest()
        self.c.stop(i)
        self.c.nodes[i].binary = binary
        self.c.start(i)
        self.c.wait_caught_up([i])
        self.writers[i].resume()
        self.progress()

    def up(self, i):
        self.change(i, self.raised)
        self.wait_reported(i, NEW)

    def raise_two(self):
        """Nodes 1 and 0, which have no majority while one of them is down: nobody writes."""
        for i in 0, 1:
            self.writers[i].rest()
        for i in 1, 0:
            self.c.stop(i)
            self.c.nodes[i].binary = self.raised
            self.c.start(i)
            self.wait_reported(i, NEW)
        for i in 0, 1:
            self.writers[i].resume()

    def down(self, i):
        self.change(i, None)
        self.wait_reported(i, OLD)

    def wait_reported(self, i, version):
        def look():
            status = self.c.status(i)
            return status and [m['protocol'] for m in status['members']
                               if m['name'] == self.c.nodes[i].name] == [version]
        wait_for(look, f'node {i} has said that it speaks version {version}')

    def progress(self):
        """All mounts write on, and each sees what the others have written."""
        for w in self.writers:
            w.wait_progress()
        for w in self.writers:
            w.rest()
        for w in self.writers:
            for i in range(len(self.writers)):
                path = self.c.path(i, w.name)
                check(is_complete(path, w.acknowledged),
                      f'node {i} sees the {w.acknowledged} lines of node {w.node}')
        for w in self.writers:
            w.resume()

    def lead(self, i):
        self.c.tierce('transfer', self.c.nodes[i].name, data=i)
        wait_for(lambda: self.c.status(i)['role'] == 'leader', f'node {i} leads')
        self.progress()

    def protocol(self, i):
        return self.c.status(i)['protocol']

    def wait_raised(self, nodes):
        for i in nodes:
            wait_for(lambda: self.protocol(i) == NEW, f'node {i} knows that the cluster is raised')

    def check_old(self):
        for i in self.c.up():
            check_equal(self.protocol(i), OLD, f'the version of the cluster, by node {i}')
            for name, formats in file_formats(self.c.nodes[i].data).items():
                check_equal(formats, {OLD_FORMAT}, f'the format of {name} of node {i}')

    def stop(self):
        for w in self.writers:
            w.stop()


def version_at(path, offset):
    with open(path, 'rb') as f:
        f.seek(offset + 8)
        return struct.unpack('<I', f.read(4))[0]


def file_formats(data):
    found = {'raft.state': {version_at(f'{data}/raft.state', at) for at in (0, 4096)}}
    for path in glob.glob(f'{data}/log/*.seg') + glob.glob(f'{data}/log/*.mrg'):
        found[os.path.basename(path)] = {version_at(path, 0)}
    return found


def counted_refusals(c):
    """What a node of one version refused of another's, beyond connections that came too early."""
    return {i: c.status(i)['refused'] for i in c.up()}


def test_one_node_after_another(t):
    u = Upgrade(t)
    c = u.c
    leader = c.leader()
    others = [i for i in c.up() if i != leader]
    u.progress()
    u.check_old()

    u.up(others[0])         # old, old (leads), new
    u.check_old()
    u.lead(others[0])       # a new one leads two old ones
    u.check_old()
    u.lead(leader)
    u.up(others[1])         # an old one leads two new ones
    u.lead(leader)
    u.check_old()
    u.down(others[1])       # and one of them goes back
    u.check_old()
    u.up(others[1])
    u.check_old()
    refused = counted_refusals(c)
    check_equal(set(refused.values()), {0}, f'frames and connections refused: {refused}')

    u.up(leader)            # the last one
    u.wait_raised(c.up())
    u.progress()
    for i in c.up():
        def programs_known():
            members = c.status(i)['members']
            return all(m['program'] and m['program'].endswith('+next') for m in members)
        wait_for(programs_known, f'node {i} knows which program each member runs')
    for i in c.up():  # each is elected once: raft.state is written
        u.lead(i)
    for i in c.up():
        check_equal(file_formats(c.nodes[i].data)['raft.state'], {NEW_FORMAT},
                    f'the format of raft.state of node {i}')

    # From now on the older program is refused, by what it finds on its own disk.
    i = others[0]
    u.writers[i].rest()
    c.stop(i)
    c.nodes[i].binary = None
    before = file_formats(c.nodes[i].data)
    result = c.tierce(*c.start_arguments(i), data=i, code=1)
    check('newer' in result.error, f'the older program says what is wrong\n{result}')
    check_equal(file_formats(c.nodes[i].data), before, 'the older program changes nothing')
    c.nodes[i].binary = u.raised
    c.start(i)
    c.wait_caught_up([i])
    u.writers[i].resume()
    u.progress()
    u.stop()


def test_an_older_program_comes_back_too_late(t):
    """Its own disk does not know yet that the cluster was raised; its peers do."""
    u = Upgrade(t)
    c = u.c
    u.lead(0)
    u.up(2)
    u.writers[2].rest()
    c.stop(2)
    u.raise_two()
    u.wait_raised((0, 1))
    c.nodes[2].binary = None
    result = c.tierce(*c.start_arguments(2), data=2, code=1)
    check(f'the cluster speaks protocol version {NEW} since all of its nodes did, and'
          f' n2\'s program no newer one than {OLD}: start the newer program again'
          in result.error, f'the older program is told by its peers\n{result}')
    c.nodes[2].binary = u.raised
    c.start(2)
    c.wait_caught_up([2])
    u.writers[2].resume()
    u.progress()
    u.stop()


def test_a_member_that_is_gone_holds_it_up(t):
    """Until it is removed: nobody knows what it would come back with."""
    u = Upgrade(t)
    c = u.c
    u.writers[2].rest()
    c.stop(2)
    u.raise_two()
    leader = c.leader()
    for w in u.writers[:2]:
        w.wait_progress(50)
    for i in 0, 1:
        check_equal(u.protocol(i), OLD, 'the version while a member has not said a newer one')
    c.tierce('remove', 'n2', data=leader)
    u.wait_raised((0, 1))
    for w in u.writers[:2]:
        w.wait_progress()

    # Who joins must speak the cluster's version; the token outlives a wrong program.
    token = TOKEN.search(c.tierce('invite', data=leader).text).group()
    joiner, directory = c.nodes[2], f'{c.base}/again'
    join = ['join', token, '--listen', joiner.address, '--name', 'n3']
    result = c.tierce(*join, data=directory, code=1)
    check('newer version' in result.error and 'the token is still good' in result.error,
          f'an older program is not let in\n{result}')
    joiner.data, joiner.binary, joiner.name = directory, u.raised, 'n3'
    c.tierce(*join, data=2)
    c.start(2)
    c.wait_caught_up([2])
    check_equal(u.protocol(2), NEW, 'the version that a joiner knows')
    for w in u.writers[:2]:
        w.stop()
        check(is_complete(c.path(2, w.name), w.acknowledged), f'the joiner sees {w.name}')


if __name__ == '__main__':
    main(globals())
