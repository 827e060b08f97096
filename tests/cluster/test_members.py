#!/usr/bin/python3
"""Nodes come and go for good: remove, leave, replace, observers, transfer, other addresses."""

import contextlib
import json
import os
import shutil
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import protocol  # noqa: E402
from cluster import (TOKEN, WAIT_SECONDS, Failure, Node, Worker, at_most, check,  # noqa: E402
                     check_equal, free_port, is_mounted, main, wait_for)

PAUSE_SECONDS = 3  # of writes, at the worst, while another takes the lead


class Writer(threading.Thread):
    """Appends numbered lines through one mount, each acknowledged by fsync, until stop()."""

    def __init__(self, cluster, node, name='lines'):
        super().__init__(daemon=True)
        self.path = cluster.path(node, name)
        self.acknowledged, self.error, self.ending = 0, None, False
        self.seconds = []
        self.start()

    def run(self):
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            while not self.ending:
                begun = time.monotonic()
                os.write(fd, f'{self.acknowledged + 1}\n'.encode())
                os.fsync(fd)
                self.seconds.append(time.monotonic() - begun)
                self.acknowledged += 1
            os.close(fd)
        except BaseException as e:
            self.error = e

    def wait_progress(self, lines=20):
        """So many more lines are acknowledged from now on."""
        target = self.acknowledged + lines
        wait_for(lambda: self.error or self.acknowledged >= target, f'line {target}')
        if self.error:
            raise Failure(f'line {self.acknowledged + 1}: {self.error}')

    def stop(self):
        self.ending = True
        self.join(WAIT_SECONDS)
        check(not self.is_alive(), 'the writer ends')
        if self.error:
            raise Failure(f'line {self.acknowledged + 1}: {self.error}')

    def check_pauses(self):
        worst, usual = max(self.seconds), statistics.median(self.seconds)
        check(worst < at_most(PAUSE_SECONDS, usual), f'a write took {worst:.1f} s')

    def check_seen_by(self, cluster, nodes):
        """Every line once and in order, on each of these mounts."""
        expected = ''.join(f'{i + 1}\n' for i in range(self.acknowledged))
        for node in nodes:
            with open(cluster.path(node, os.path.basename(self.path))) as f:
                got = f.read()
            check_equal(got, expected, f'the lines that node {node} sees')


def members(cluster, i):
    result = cluster.tierce('members', '--json', data=i)
    return {m['name']: m for m in json.loads(result.text)}


def wait_members(cluster, i, names, kind=None):
    def look():
        seen = members(cluster, i)
        return set(seen) == set(names) and (
            kind is None or all(m['kind'] == kind for m in seen.values()))
    wait_for(look, f'node {i} knows the members {names}')


def others(cluster, i):
    return [k for k in cluster.up() if k != i]


def start(t):
    """A cluster of three, its leader, and the two others."""
    c = t.cluster(3)
    leader = c.leader()
    return c, leader, *others(c, leader)


def writing(c, i):
    """A writer at node i that has begun."""
    writer = Writer(c, i)
    writer.wait_progress()
    return writer


def check_refuses_to_start(cluster, i):
    result = cluster.tierce(*cluster.start_arguments(i), data=i, code=1)
    check('was removed from its cluster' in result.error and 'tierce join' in result.error,
          f'a removed node says what happened and what to do\n{result}')
    for command in ('status', 'stop', 'members'):
        result = cluster.tierce(command, data=i, code=1)
        check('was removed from its cluster' in result.error, f'{result}')


def invite(cluster, i):
    return TOKEN.search(cluster.tierce('invite', data=i).text).group()


def test_members_are_listed(t):
    c = t.cluster(3)
    leader = c.leader()
    seen = members(c, leader)
    check_equal(set(seen), {'n0', 'n1', 'n2'}, 'members')
    check(all(m['kind'] == 'voter' and m['reachable'] for m in seen.values()), f'{seen}')
    check_equal([n for n, m in seen.items() if m['leader']], [f'n{leader}'], 'who leads')
    check(all(m['applied'] for m in seen.values()), f'a leader knows who has applied what: {seen}')
    text = c.tierce('members', data=leader).text
    check_equal(len(text.splitlines()), 4, f'lines of the table\n{text}')
    line = [s for s in text.splitlines() if s.startswith(f'n{leader} ')][0]
    check('(leads)' in line and '(this node)' in line, text)


def test_a_member_is_removed_while_it_writes(t):
    c, leader, gone, stays = start(t)
    writer, doomed = Writer(c, stays), Writer(c, gone, 'doomed')
    writer.wait_progress()
    doomed.wait_progress(5)
    c.tierce('remove', f'n{gone}', data=stays)
    c.wait_ended(gone)
    check(not is_mounted(c.nodes[gone].mount), 'the mount of a removed node goes')
    doomed.join(WAIT_SECONDS)
    check(doomed.error, 'a writer on a removed node hears of it')
    for i in (leader, stays):
        wait_members(c, i, {f'n{leader}', f'n{stays}'}, 'voter')
    writer.wait_progress()
    c.tierce('remove', f'n{gone}', data=leader, code=1)
    check_refuses_to_start(c, gone)
    writer.stop()
    writer.check_seen_by(c, (leader, stays))
    with open(c.path(stays, 'doomed')) as f:
        lines = f.read().splitlines()
    check(lines[:doomed.acknowledged] == [str(i + 1) for i in range(doomed.acknowledged)]
          and len(lines) <= doomed.acknowledged + 1, 'what a removed node was told is there')


def test_a_leader_is_removed(t):
    c, leader, first, second = start(t)
    writer = writing(c, first)
    c.tierce('remove', f'n{leader}', data=second)
    c.wait_ended(leader)
    check(not is_mounted(c.nodes[leader].mount), 'the mount of a removed node goes')
    wait_members(c, first, {f'n{first}', f'n{second}'}, 'voter')
    writer.wait_progress()
    writer.stop()
    writer.check_seen_by(c, (first, second))
    writer.check_pauses()
    check_refuses_to_start(c, leader)


def test_a_removal_outlives_the_leader_that_was_asked(t):
    c = t.cluster(5, mounted=False)
    leader = c.leader()
    gone, asked, *rest = others(c, leader)
    removal = Worker(lambda: c.tierce('remove', f'n{gone}', data=asked))
    c.kill9(leader)
    removal.result()
    c.wait_ended(gone)
    for i in (asked, *rest):
        wait_members(c, i, {f'n{k}' for k in (leader, asked, *rest)}, 'voter')
    c.tierce('remove', f'n{leader}', data=asked)
    for i in (asked, *rest):
        wait_members(c, i, {f'n{k}' for k in (asked, *rest)}, 'voter')
    c.tierce('put', '/after', 'both', data=rest[0])


def test_a_removed_node_that_was_down_is_turned_away(t):
    c, leader, gone, stays = start(t)
    c.kill9(gone)
    writer = Writer(c, stays)
    c.tierce('remove', f'n{gone}', data=leader)
    wait_members(c, stays, {f'n{leader}', f'n{stays}'})
    result = c.tierce(*c.start_arguments(gone), data=gone, code=1)
    check('removed from the cluster' in result.error and 'tierce join' in result.error,
          f'{result}')
    check_refuses_to_start(c, gone)
    check('removed from its cluster' in c.tierce('join', invite(c, leader), data=gone, code=1).error,
          'join does not take the directory of a removed node')
    # Whatever speaks with its certificate is turned away, by everybody, and told why.
    identity = protocol.Identity(c.nodes[gone].data)
    for i in (leader, stays):
        connection = protocol.open_connection(identity, c.nodes[i].address)
        with contextlib.suppress(OSError):
            connection.send(protocol.OPERATION, protocol.operation(protocol.SESSION))
        frames = connection.wait_closed()
        check_equal([(f.type, f.value[0]) for f in frames],
                    [(protocol.REFUSAL, protocol.REMOVED)], f'what node {i} says to it')
    # Without the mark it is the others who say so, for good.
    os.unlink(f'{c.nodes[gone].data}/removed')
    result = c.tierce(*c.start_arguments(gone), data=gone, code=1)
    check('removed from the cluster' in result.error, f'{result}')
    writer.wait_progress()
    writer.stop()
    # A new identity is welcome, under the old name and address.
    shutil.rmtree(c.nodes[gone].data)
    c.tierce('join', invite(c, stays), '--listen', c.nodes[gone].address, '--name',
             c.nodes[gone].name, data=gone)
    c.start(gone)
    c.wait_ready()
    writer.check_seen_by(c, (0, 1, 2))


def test_a_change_that_would_lose_the_majority_is_refused(t):
    c, leader, down, up = start(t)
    c.kill9(down)
    writer = Writer(c, up)
    wait_for(lambda: not members(c, leader)[f'n{down}']['reachable'], 'it is unreachable')
    for i, command in ((leader, ('remove', f'n{up}')), (up, ('leave',)), (leader, ('leave',)),
                       (up, ('remove', f'n{leader}'))):
        result = c.tierce(*command, data=i, code=1)
        check('majority' in result.error and f'n{down} cannot be reached' in result.error,
              f'who is in the way is named\n{result}')
    writer.wait_progress()
    c.tierce('remove', f'n{down}', data=up)  # that one may go
    wait_members(c, leader, {f'n{leader}', f'n{up}'})
    writer.wait_progress()
    c.tierce('remove', f'n{up}', data=leader)  # two of two are there, and one can be alone
    c.wait_ended(up)
    wait_members(c, leader, {f'n{leader}'})
    result = c.tierce('leave', data=leader, code=1)
    check('last voter' in result.error, f'{result}')
    with open(c.path(leader, 'after'), 'w') as f:
        f.write('alone')


def test_leave(t):
    c, leader, leaver, stays = start(t)
    with open(c.path(leaver, 'held'), 'w') as f:
        f.write('x')
        f.flush()
        result = c.tierce('leave', data=leaver, code=1)
        check('fuser' in result.error, f'open files are in the way, as with stop\n{result}')
    check_equal(len(members(c, leaver)), 3, 'members after a leave that was refused')
    writer = writing(c, stays)
    result = c.tierce('leave', data=leaver)
    check('has left the cluster' in result.text, f'{result}')
    check(not is_mounted(c.nodes[leaver].mount), 'the mount of a node that leaves goes')
    c.wait_ended(leaver)
    check_refuses_to_start(c, leaver)
    wait_members(c, stays, {f'n{leader}', f'n{stays}'}, 'voter')
    writer.wait_progress()
    writer.stop()
    # The leader leaves: it hands over, then goes.
    c.tierce('leave', data=leader)
    c.wait_ended(leader)
    wait_members(c, stays, {f'n{stays}'})
    writer.check_seen_by(c, (stays,))
    with open(c.path(stays, 'after'), 'w') as f:
        f.write('alone')


def test_a_lost_host_is_replaced(t):
    c, leader, lost, stays = start(t)
    writer = writing(c, stays)
    spare = f'{c.base}/spare'
    token = invite(c, leader)
    result = c.tierce('join', token, '--replace', f'n{lost}', '--name', 'new', '--listen',
                      c.nodes[lost].address, data=spare, code=1)
    check('in use' in result.error or 'there and well' in result.error, f'{result}')
    result = c.tierce('join', token, '--replace', f'n{lost}', '--name', 'new', '--listen',
                      f'127.0.0.1:{free_port()}', data=spare, code=1)
    check('there and well' in result.error, f'who is reachable is not replaced\n{result}')
    c.kill9(lost)
    wait_for(lambda: not members(c, leader)[f'n{lost}']['reachable'], 'it is unreachable')
    result = c.tierce('join', token, '--replace', 'nobody', '--listen', c.nodes[lost].address,
                      data=spare, code=1)
    check('no member is called "nobody"' in result.error, f'{result}')
    check(not os.path.exists(spare), 'a join that was refused leaves nothing')
    dead = f'{c.base}/dead'
    os.rename(c.nodes[lost].data, dead)  # the old host's disk, which shows up again later
    c.tierce('join', token, '--replace', f'n{lost}', '--listen', c.nodes[lost].address,
             '--name', c.nodes[lost].name, data=lost)
    ids = {m['id'] for m in members(c, leader).values()}
    check_equal(len(ids), 3, 'members: the dead one went as the new one came')
    c.start(lost)
    c.wait_ready()
    writer.wait_progress()
    # The dead come back: turned away, while the one in its place goes on.
    c.stop(lost)
    result = c.tierce('serve', data=dead, code=1)
    check('removed from the cluster' in result.error, f'{result}')
    result = c.tierce('serve', data=dead, code=1)
    check('was removed from its cluster' in result.error, f'{result}')
    c.start(lost)
    c.wait_ready()
    writer.wait_progress()
    writer.stop()
    writer.check_seen_by(c, (0, 1, 2))


def test_a_log_that_knows_nobody_of_today_is_replayed(t):
    """Every member was replaced since the log began. Who joins now replays it, and is led by a
    node that is no member in what it has applied so far."""
    c = t.cluster(3)
    for i in range(40):  # more than is on its way to a node at a time
        c.tierce('put', f'/value-{i}', data=0, input=t.random_bytes(1 << 20))
    for old in range(3):
        new = add_node(c, f'new{old}')
        wait_for(lambda: members(c, new)[f'new{old}']['voter'], f'new{old} votes')
        c.tierce('remove', f'n{old}', data=new)
        c.wait_ended(old)
    last = add_node(c, 'last')
    wait_for(lambda: members(c, new)['last']['voter'], 'the node that joined last votes')
    c.wait_caught_up([last])
    check_equal(len(c.tierce('get', '/value-39', data=last).out), 1 << 20, 'what it has replayed')


def test_an_observer_never_votes(t):
    c = t.cluster(1)
    node = add_node(c, 'watcher', '--learner')
    wait_members(c, 0, {'n0', 'watcher'})
    c.wait_caught_up([node])
    writer = Writer(c, node)
    writer.wait_progress(200)  # three times as many as a learner may lag to be promoted
    seen = members(c, 0)['watcher']
    check_equal((seen['kind'], seen['reachable']), ('observer', True), 'the observer')
    check_equal(c.status(node)['role'], 'observer', 'its role')
    result = c.tierce('transfer', 'watcher', data=0, code=1)
    check('does not vote' in result.error, f'{result}')
    # Nobody needs it for a majority, nor is it missed.
    c.kill9(node)
    writer.join(WAIT_SECONDS)
    with open(c.path(0, 'without'), 'w') as f:
        f.write('it')
    c.start(node)
    with open(c.path(node, 'without')) as f:
        check_equal(f.read(), 'it', 'what it missed')
    c.tierce('leave', data=node)
    c.wait_ended(node)
    wait_members(c, 0, {'n0'})


def add_node(c, name, *options):
    node = Node(c.base, len(c.nodes), name)
    os.makedirs(node.mount)
    c.nodes.append(node)
    c.tierce('join', invite(c, c.up()[-1]), '--listen', node.address, '--name', name, *options,
             data=node.index)
    c.start(node.index)
    return node.index


def test_transfer(t):
    c, leader, first, second = start(t)
    writer = writing(c, first)
    for to, by in ((first, first), (second, first), (second, second), (leader, first)):
        result = c.tierce('transfer', f'n{to}', data=by)
        check_equal(result.text, f'n{to} leads\n', 'what transfer says')
        check_equal(c.leader(), to, 'who leads')
    result = c.tierce('transfer', data=second)
    heir = c.leader()
    check(heir != leader, 'without a name somebody else leads')
    check_equal(result.text, f'n{heir} leads\n', 'what transfer says')
    result = c.tierce('transfer', 'n9', data=0, code=1)
    check('no member is called' in result.error, f'{result}')
    down = next(i for i in (0, 1, 2) if i not in (heir, first))
    c.kill9(down)
    wait_for(lambda: not members(c, heir)[f'n{down}']['reachable'], 'it is unreachable')
    result = c.tierce('transfer', f'n{down}', data=first, code=1)
    check(f'n{down} cannot be reached' in result.error, f'{result}')
    check_equal(c.leader(), heir, 'who leads after a transfer that was refused')
    writer.wait_progress()
    writer.stop()
    writer.check_seen_by(c, others(c, down))
    writer.check_pauses()


def move(c, i, port=None):
    """Another port, as its tierce.conf says from the next start on."""
    node = c.nodes[i]
    node.port = port or free_port()
    node.address = f'127.0.0.1:{node.port}'
    rewrite(c, i, lambda key, value: node.address if key in ('listen', 'advertise') else value)


def rewrite(c, i, change):
    path = f'{c.nodes[i].data}/tierce.conf'
    lines = []
    for line in open(path).read().splitlines():
        key, _, value = (part.strip() for part in line.partition('='))
        lines.append(f'{key} = {change(key, value)}')
    with open(path, 'w') as f:
        f.write('\n'.join(lines) + '\n')


def wait_addresses(c):
    """Every node's log says where each member is."""
    def look():
        seen = [members(c, i) for i in c.up()]
        return all(s[node.name]['address'] == node.address for s in seen for node in c.nodes)
    wait_for(look, 'all know where the members are')


def test_a_node_that_moved_is_found_by_its_certificate(t):
    c, leader, mover, stays = start(t)
    writer = writing(c, stays)
    c.stop(mover)
    move(c, mover)
    c.start(mover)
    wait_for(lambda: members(c, leader)[f'n{mover}']['reachable'], 'the leader reaches it')
    writer.wait_progress()
    c.wait_caught_up([mover])
    # Now it is needed for a majority, so it votes.
    writer.stop()
    c.kill9(stays)
    with open(c.path(mover, 'moved'), 'w') as f:
        f.write('here')
    c.start(stays)
    wait_addresses(c)
    # The leader moves, and who was down meanwhile finds both.
    leader = c.leader()
    down = others(c, leader)[0]
    c.kill9(down)
    c.stop(leader)
    move(c, leader)
    c.start_all((leader, down))
    c.wait_ready()
    wait_addresses(c)
    writer.check_seen_by(c, (0, 1, 2))


def test_who_cannot_be_dialed_is_told(t):
    """A mistyped advertise: it reaches the others, and they do not reach it."""
    c = t.cluster(3)
    i = others(c, c.leader())[0]
    c.stop(i)
    mistyped = f'127.0.0.1:{free_port()}'
    rewrite(c, i, lambda key, value: mistyped if key == 'advertise' else value)
    started = c.start(i)
    check(mistyped in started.error and 'correct advertise' in started.error, f'{started}')
    c.stop(i)
    rewrite(c, i, lambda key, value: c.nodes[i].address if key == 'advertise' else value)
    started = c.start(i)
    check_equal(started.error, '', 'warnings once it is corrected')
    c.wait_ready()


def exchange(c, one, two):
    ports = c.nodes[one].port, c.nodes[two].port
    move(c, one, ports[1])
    move(c, two, ports[0])


def wait_reaches_all(c, leader):
    wait_for(lambda: all(m['reachable'] for m in members(c, leader).values()),
             f'node {leader} reaches all')


def test_two_nodes_exchange_their_addresses(t):
    c = t.cluster(3)
    one, two = others(c, c.leader())
    for i in (one, two):
        c.stop(i)
    exchange(c, one, two)
    # The first leads when the second comes, which has it recorded where it is itself.
    c.start(one)
    c.wait_ready()
    c.tierce('transfer', f'n{one}', data=one)
    wait_for(lambda: members(c, one)[f'n{one}']['address'] == c.nodes[one].address,
             'its report is taken')
    c.start(two)
    wait_addresses(c)
    wait_reaches_all(c, one)
    # And back, both at once.
    for i in (one, two):
        c.stop(i)
    exchange(c, one, two)
    c.start_all((one, two))
    c.wait_ready()
    wait_addresses(c)
    for i in (one, two):
        c.tierce('transfer', f'n{i}', data=i)
        wait_reaches_all(c, i)


def test_all_nodes_move_at_once(t):
    c = t.cluster(3)
    with open(c.path(0, 'before'), 'w') as f:
        f.write('there')
    for i in (0, 1, 2):
        c.stop(i)
        move(c, i)
    ids = {}
    for i in (0, 1, 2):
        conf = dict(line.split(' = ', 1) for line in open(f'{c.nodes[i].data}/tierce.conf')
                    if ' = ' in line)
        ids[conf['id'].strip()] = c.nodes[i].address
    for i in (0, 1, 2):
        path = f'{c.nodes[i].data}/tierce.conf'
        lines = [line for line in open(path).read().splitlines() if 'member' not in line]
        lines += [f'member = {id} voter {address} x{id}' for id, address in ids.items()]
        with open(path, 'w') as f:
            f.write('\n'.join(lines) + '\n')
    c.start_all((0, 1, 2))
    c.wait_ready()
    wait_addresses(c)
    for i in (0, 1, 2):
        with open(c.path(i, 'before')) as f:
            check_equal(f.read(), 'there', f'what node {i} has')


if __name__ == '__main__':
    main(globals())
