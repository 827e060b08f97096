#!/usr/bin/env python3
"""Locks across hosts while hosts die, stop, lose the others, and take leadership over; `flock` as
people use it, for a mutex of the cluster."""

import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import check, check_equal, limit, main, wait_for  # noqa: E402
from lockers import Lockers, locks  # noqa: E402

SILENT_SECONDS = 10  # a session without contact is ended after so long
SURE_SECONDS = 8     # a node believes in its own for so long

# Each turn is acknowledged when the lock is free again. What fails ends it: a shell does not look
# at what close says of its ">", dd at what fsync does.
INCREMENT = r"""
cd "$1" || exit 1
for i in $(seq "$2"); do
    flock lock -c 'v=$(cat counter) && echo $((v + 1)) |
        dd of=counter conv=fsync status=none' 2> /dev/null || exit 1
    echo $i
done
"""


class Incrementer:
    def __init__(self, cluster, node, turns):
        self.process = subprocess.Popen(
            ['sh', '-c', INCREMENT, 'sh', cluster.path(node), str(turns)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def finish(self):
        """How many turns it was told of."""
        out, self.errors = self.process.communicate(timeout=600)
        return len(out.splitlines())

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def counter(cluster, node):
    """On the host that writes it a file is empty for a moment."""
    def look():
        with open(cluster.path(node, 'counter')) as f:
            return f.read()
    return int(wait_for(look, 'a value'))


def begin_counting(cluster):
    open(cluster.path(0, 'lock'), 'w').close()
    with open(cluster.path(0, 'counter'), 'w') as f:
        f.write('0\n')


def others_than(cluster, *indices):
    return [i for i in cluster.up() if i not in indices]


@limit(600)
def test_a_mutex_of_three_hosts(t):
    turns = 1000 if t.long else 60
    cluster = t.cluster(3)
    begin_counting(cluster)
    begun = time.monotonic()
    crowd = [Incrementer(cluster, i, turns) for i in cluster.up()]
    check_equal([i.finish() for i in crowd], [turns] * 3, 'turns of each')
    seconds = time.monotonic() - begun
    print(f'  {3 * turns} turns, {seconds / 3 / turns * 1e3:.1f} ms each', flush=True)
    check_equal([counter(cluster, i) for i in cluster.up()], [3 * turns] * 3, 'counted')
    check_equal(locks(cluster, 0), [], 'locks at the end')


@limit(600)
def test_a_mutex_while_hosts_die(t):
    """What was acknowledged is counted; of each host that dies one turn may be beyond that."""
    turns = 400 if t.long else 40
    cluster = t.cluster(3)
    begin_counting(cluster)
    acknowledged, deaths = 0, 0
    crowd = {i: Incrementer(cluster, i, 100000) for i in cluster.up()}
    victims = [cluster.leader()]
    victims += others_than(cluster, *victims)[:1]
    for victim in victims:
        before = counter(cluster, victim)
        wait_for(lambda: counter(cluster, victim) >= before + turns, 'turns', 120)
        name = cluster.nodes[victim].name
        wait_for(lambda: any(lock['node'] == name and not lock['waits']
                             for lock in locks(cluster, victim)), 'it holds the lock')
        cluster.kill9(victim)
        acknowledged += crowd.pop(victim).finish()
        deaths += 1
        other = cluster.leader()
        before = counter(cluster, other)
        wait_for(lambda: counter(cluster, other) >= before + 5, 'the others go on', 120)
        cluster.start(victim)
        cluster.wait_ready()
        crowd[victim] = Incrementer(cluster, victim, 100000)
    before = counter(cluster, 0)
    wait_for(lambda: counter(cluster, 0) >= before + turns, 'all go on', 120)
    for incrementer in crowd.values():
        os.killpg(incrementer.process.pid, signal.SIGKILL)
        acknowledged += incrementer.finish()
        deaths += 1
    cluster.wait_caught_up(cluster.up())
    value = counter(cluster, 0)
    print(f'  {value} counted, {acknowledged} acknowledged, {deaths} killed', flush=True)
    check(acknowledged <= value <= acknowledged + deaths, 'no turn is lost, none is made twice')


@limit(180)
def test_a_host_that_dies_leaves_no_lock(t):
    cluster = t.cluster(3)
    leader = cluster.leader()
    victim, other = others_than(cluster, leader)
    with Lockers(cluster) as locker:
        a, b, c = locker(victim, 'f'), locker(other, 'f'), locker(leader, 'f')
        check_equal(a('flock', 'f', 'ex') + a('setlk', 'f', 'w', 0, 9), 'okok', 'locked')
        b.begin('flock', 'f', 'ex')
        c.begin('setlkw', 'f', 'r', 5, 5)
        b.await_queued()
        c.await_queued()
        begun = time.monotonic()
        cluster.kill9(victim)
        check_equal(b.answer(60) + c.answer(60), 'okok', 'granted')
        check(time.monotonic() - begun > SURE_SECONDS, 'not before it cannot believe any more')
        check(all(lock['node'] != cluster.nodes[victim].name for lock in locks(cluster, leader)),
              'nothing of it is left')


@limit(180)
def test_who_was_stopped_is_told(t):
    """Its descriptors with locks fail, others of the same process and file do not."""
    cluster = t.cluster(3)
    leader = cluster.leader()
    victim, other = others_than(cluster, leader)
    with Lockers(cluster) as locker:
        a, b = locker(victim, 'f'), locker(other, 'f')
        a('open', 'g', cluster.path(victim, 'f'))
        check_equal(a('flock', 'f', 'ex') + a('write', 'f', 'before'), 'okok', 'locked')
        b.begin('flock', 'f', 'ex')
        b.await_queued()
        cluster.freeze(victim)
        check_equal(b.answer(60), 'ok', 'granted to another')
        check_equal(b('write', 'f', 'other!') + b('fsync', 'f'), 'okok', 'which writes')
        cluster.thaw(victim)
        check_equal([a(*call) for call in (('read', 'f'), ('write', 'f', 'late'), ('fsync', 'f'))],
                    ['EIO'] * 3, 'read, write, fsync')
        wait_for(lambda: a('read', 'g') == 'other!', 'a descriptor without locks reads')
        check_equal(a('flock', 'f', 'sh', 'nb'), 'EIO', 'another lock by it')
        check_equal(a('write', 'g', 'other?') + a('fsync', 'g'), 'okok', 'and is written to')
        with open(cluster.path(victim, 'f'), 'w') as f:
            f.write('anew')  # by who was never concerned
        check_equal(b('read', 'f'), 'anew', 'which another host sees')
        check_equal(b('write', 'f', 'other!') + b('fsync', 'f'), 'okok', 'and writes over')
        a('close', 'f')
        check_equal(a('open', 'f', cluster.path(victim, 'f')), 'ok', 'opened again')
        check_equal(a('flock', 'f', 'ex', 'nb'), 'EAGAIN', 'the other has it')
        b('close', 'f')
        check_equal(a('flock', 'f', 'ex') + a('read', 'f'), 'okother!', 'and then not')


@limit(180)
def test_who_is_alone_does_not_believe_in_its_locks(t):
    """Nobody tells it: the others are stopped, so that nobody can have ended its session."""
    cluster = t.cluster(3)
    leader = cluster.leader()
    follower = others_than(cluster, leader)[0]
    with Lockers(cluster) as locker:
        a = locker(follower, 'f')
        b = locker(follower, 'f')  # it does nothing meanwhile
        check_equal(a('setlk', 'f', 'w', 0, 9) + b('setlk', 'f', 'w', 10, 19), 'okok', 'locked')
        check_equal(a('write', 'f', 'value') + a('fsync', 'f'), 'okok', 'written')
        others = others_than(cluster, follower)
        cluster.freeze(*others)
        begun = time.monotonic()
        wait_for(lambda: a('read', 'f') == 'EIO', 'it reads no more')
        check(time.monotonic() - begun < SILENT_SECONDS, 'before others could have the lock')
        cluster.thaw(*others)
        cluster.leader()
        check_equal(a('read', 'f'), 'EIO', 'nor when they are back')
        check_equal(a('close', 'f'), 'ok', 'close')
        c = locker(leader, 'f')
        check_equal(c('setlkw', 'f', 'w', 0, 9), 'ok', 'its lock is free')


@limit(180)
def test_the_turn_outlives_leaders(t):
    cluster = t.cluster(3)
    nodes = cluster.up()
    with Lockers(cluster) as locker:
        holder = locker(nodes[0], 'f')
        check_equal(holder('flock', 'f', 'ex'), 'ok', 'locked')
        waiting = [locker(nodes[i % 3], 'f') for i in range(1, 7)]
        for w in waiting:
            w.begin('flock', 'f', 'ex')
            w.await_queued()
        for i in range(3):
            target = nodes[(cluster.leader() + 1) % 3]
            cluster.tierce('transfer', cluster.nodes[target].name, data=target)
            check(not any(w.has_answered() for w in waiting), 'all of them wait')
        last = holder
        for w in waiting:
            check_equal(last('flock', 'f', 'un'), 'ok', 'unlock')
            check_equal(w.answer(), 'ok', 'the next in turn')
            last = w
            cluster.tierce('transfer', data=cluster.leader())


@limit(180)
def test_no_majority(t):
    """What waits can be ended, what is unlocked is unlocked later, and nobody gets a lock."""
    cluster = t.cluster(3)
    leader = cluster.leader()
    alone, other = others_than(cluster, leader)
    with Lockers(cluster) as locker:
        a, b, c = locker(alone, 'f'), locker(alone, 'f'), locker(alone, 'f')
        d = locker(alone, 'g')
        check_equal(a('flock', 'f', 'ex') + d('setlk', 'f', 'w', 0, 9), 'okok', 'locked')
        for waiting in (b, c):
            waiting.begin('flock', 'f', 'ex')
            waiting.await_queued()
        cluster.freeze(leader, other)
        wait_for(lambda: not cluster.status(alone)['quorum'], 'it knows')
        check_equal(d('flock', 'f', 'ex'), 'EROFS', 'a new lock')
        begun = time.monotonic()
        b.kill()
        check(time.monotonic() - begun < 5, 'a killed process is gone')
        os.kill(c.pid, signal.SIGUSR1)
        check_equal(c.answer(), 'EINTR', 'a signal')
        a.kill()
        d.kill()
        cluster.thaw(leader, other)
        e = locker(other, 'f')
        e('open', 'g', cluster.path(other, 'g'))
        check_equal(e('flock', 'f', 'ex') + e('setlkw', 'g', 'w', 0, 9), 'okok', 'all are free')
        wait_for(lambda: len(locks(cluster, alone)) == 2, 'and nothing else is there')


@limit(180)
def test_all_hosts_die(t):
    cluster = t.cluster(3)
    with Lockers(cluster) as locker:
        for i in cluster.up():
            check_equal(locker(i, f'f{i}')('flock', 'f', 'ex'), 'ok', 'locked')
        cluster.kill9(*cluster.up())
    for i in range(3):
        cluster.start(i)
    cluster.wait_ready()
    with Lockers(cluster) as locker:
        a = locker(1, 'f0')
        check_equal(a('flock', 'f', 'ex'), 'ok', 'a lock of before')
        wait_for(lambda: len(locks(cluster, 0)) == 1, 'the others are gone, too')


@limit(120)
def test_unmounting(t):
    cluster = t.cluster(3)
    leader = cluster.leader()
    victim, other = others_than(cluster, leader)
    with Lockers(cluster) as locker:
        a, b, c = locker(victim, 'f'), locker(victim, 'f'), locker(other, 'f')
        check_equal(a('flock', 'f', 'ex'), 'ok', 'locked')
        b.begin('flock', 'f', 'ex')
        b.await_queued()
        check('open' in cluster.tierce('stop', data=victim, code=1).error, 'it is busy')
        c.begin('flock', 'f', 'ex')
        c.await_queued()
        b.kill()
        a.kill()
        check_equal(c.answer(5), 'ok', 'its processes have ended')
        cluster.stop(victim)


if __name__ == '__main__':
    main(globals())
