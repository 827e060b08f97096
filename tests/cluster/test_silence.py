#!/usr/bin/python3
"""Links that are cut without a word, and mended: how long until what was cut off works again."""

import contextlib
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import check, check_equal, main, wait_for  # noqa: E402
from hosts import HostCluster  # noqa: E402

ELECTION_SECONDS = 0.3  # an election timeout is at most this
BOUND = 20  # of them, from mending a link to the first change through the mount behind it
SHORT_SECONDS = 1.0  # less than a connection may be silent
LONG_SECONDS = 14.0  # TCP has just sent again by then, and would next in another ten
STOPPED_SECONDS = 6.0  # twice what a connection may be silent
SLOW = ('rate', '4mbit', 'burst', '64k', 'latency', '2s')
SLOW_BYTES = 6 << 20  # several times that long on its way


def hosts_of(t):
    if os.getuid() != 0:
        t.skip('network namespaces and disks of its own take root')
    cluster = HostCluster(3)
    t.own.append(cluster)
    cluster.make()
    return cluster


def losses(c):
    """How often any node has lost a connection to another."""
    count = 0
    for node in c.nodes:
        with open(f'{node.data}/node.log', errors='replace') as f:
            count += f.read().count('lost node')
    return count


def write_through(c, i, name):
    fd = os.open(c.path(i, name), os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(fd, b'x')
        os.fsync(fd)
    finally:
        os.close(fd)


def written(c, i, name):
    with contextlib.suppress(OSError):  # without a majority: EROFS
        write_through(c, i, name)
        return True
    return False


def cut_off(c, i, seconds, deaf=True, mute=True):
    """deaf: nothing comes to host i. mute: nothing that it sends arrives."""
    links = [link for k in c.up() if k != i
             for link, is_cut in (((k, i), deaf), ((i, k), mute)) if is_cut]
    for link in links:
        c.network.cut(*link)
    time.sleep(seconds)  # of the plan: how long it is cut
    for link in links:
        c.network.mend(*link)


def alive_after(c, i, seconds, name, **how):
    """Cuts host i off, mends that, and takes the time until a change through its mount is kept."""
    cut_off(c, i, seconds, **how)
    mended = time.monotonic()
    wait_for(lambda: written(c, i, name), f'node {i} takes a change after {seconds} s')
    took = time.monotonic() - mended
    wait_for(c.all_vote, 'all nodes vote and know one leader')
    return took


def check_alive_soon(c, i, what, **how):
    short = alive_after(c, i, SHORT_SECONDS, f'{what}-short', **how)
    long = alive_after(c, i, LONG_SECONDS, f'{what}-long', **how)
    print(f'# {what} cut off: {short:.2f} s after {SHORT_SECONDS} s, {long:.2f} s after'
          f' {LONG_SECONDS} s', flush=True)
    # What a cut costs that no connection has noticed is what this machine takes.
    check(long < BOUND * ELECTION_SECONDS + 10 * short,
          f'the {what} is back after {long / ELECTION_SECONDS:.0f} election timeouts')


def test_a_follower_cut_off_is_soon_back(t):
    c = hosts_of(t)
    leader = c.find_leader()
    check_alive_soon(c, (leader + 1) % 3, 'follower')


def test_a_leader_cut_off_is_soon_back(t):
    c = hosts_of(t)
    check_alive_soon(c, c.find_leader(), 'leader')


def test_a_link_cut_one_way_is_soon_back(t):
    c = hosts_of(t)
    for what, how in (('deaf', {'mute': False}), ('mute', {'deaf': False})):
        check_alive_soon(c, (c.find_leader() + 1) % 3, what, **how)


def test_no_connection_is_lost_over_a_short_cut_or_a_stop(t):
    c = hosts_of(t)
    follower = (c.find_leader() + 1) % 3
    before = losses(c)
    alive_after(c, follower, SHORT_SECONDS, 'there')
    c.pause(follower)
    time.sleep(STOPPED_SECONDS)  # of the plan: how long it is stopped
    c.go_on(follower)
    wait_for(lambda: written(c, follower, 'back'), 'the node that was stopped goes on')
    check_equal(losses(c) - before, 0, 'connections that were lost')


def test_no_connection_is_lost_over_a_slow_link(t):
    """For far longer than a connection may be silent no frame ends, and bytes come."""
    c = hosts_of(t)
    leader = c.find_leader()
    slow = (leader + 1) % 3
    before = losses(c)
    try:
        c.network.slow_down(slow, *SLOW)
    except OSError as e:
        t.skip(f'no link can be made slow here: {e}')
    with open(c.path(leader, 'large'), 'wb') as f:
        f.write(t.random_bytes(SLOW_BYTES))
        os.fsync(f.fileno())
    begun = time.monotonic()
    wait_for(lambda: written(c, slow, 'behind'), 'what came over the slow link is there')
    took = time.monotonic() - begun
    print(f'# {SLOW_BYTES >> 20} MiB took {took:.1f} s to the slow host', flush=True)
    check_equal(losses(c) - before, 0, 'connections that were lost')


if __name__ == '__main__':
    main(globals())
