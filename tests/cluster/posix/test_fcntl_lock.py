#!/usr/bin/python3
"""fcntl locks of processes: ranges, F_GETLK, waiting, deadlocks, and when they go."""

import errno
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from lockers import Lockers, locks  # noqa: E402
from posix_rules import main  # noqa: E402

EDEADLK = errno.errorcode[errno.EDEADLK]  # it has two names


def two(p, locker, name='f'):
    path = os.path.join(p.name, name)
    return locker(p.caller, path), locker(p.others[0] if p.others else p.caller, path)


def rule_ranges(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        check_equal(a('setlk', 'f', 'w', 10, 19), 'ok', 'write')
        check_equal(b('setlk', 'f', 'w', 20, '-'), 'ok', 'beside it')
        check_equal(b('setlk', 'f', 'r', 19, 19), 'EAGAIN', 'its last byte')
        check_equal(b('setlk', 'f', 'r', 0, 10), 'EAGAIN', 'its first byte')
        check_equal(a('setlk', 'f', 'u', 12, 14), 'ok', 'a hole in it')
        check_equal(b('setlk', 'f', 'w', 12, 14), 'ok', 'is another\'s')
        check_equal(b('setlk', 'f', 'w', 11, 11), 'EAGAIN', 'what is left before it')
        check_equal(b('setlk', 'f', 'w', 15, 15), 'EAGAIN', 'what is left behind it')
        check_equal(a('setlk', 'f', 'r', 15, 19), 'ok', 'it becomes a read lock')
        check_equal(b('setlk', 'f', 'r', 15, 15), 'ok', 'beside another')


def rule_getlk(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        c = locker(p.caller, os.path.join(p.name, 'f'))
        check_equal(b('getlk', 'f', 'w', 0, '-'), 'u', 'nobody')
        a('setlk', 'f', 'w', 30, '-')
        a('setlk', 'f', 'r', 10, 19)
        check_equal(a('getlk', 'f', 'w', 0, '-'), 'u', 'its own')
        check_equal(b('getlk', 'f', 'r', 0, 29), 'u', 'both read')
        there = 0 if p.others else a.pid  # who is on another host has no number here
        check_equal(b('getlk', 'f', 'w', 0, 29), f'r 10 19 {there}', 'a reader')
        check_equal(b('getlk', 'f', 'r', 25, 40), f'w 30 - {there}', 'a writer')
        check_equal(c('getlk', 'f', 'w', 15, 16), f'r 10 19 {a.pid}', 'on the same host')


def rule_of_the_process(p):
    """Any close of the file by its process unlocks all; a child has none."""
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('open', 'g', p.here('f'))
        check_equal(a('setlk', 'f', 'w', 0, 9), 'ok', 'by one descriptor')
        check_equal(a('setlk', 'g', 'w', 0, 9), 'ok', 'by the other')
        a.fork()
        check_equal(b('setlk', 'f', 'w', 0, 9), 'EAGAIN', 'locked')
        check_equal(a('close', 'g'), 'ok', 'close')
        check_equal(b('setlk', 'f', 'w', 0, 9), 'ok', 'all of them are gone')
        check_equal(a('setlk', 'f', 'w', 20, 29), 'ok', 'again')
        a.kill()
        check_equal(b('setlkw', 'f', 'w', 20, 29), 'ok', 'they end with their process')


def rule_waits(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('setlk', 'f', 'w', 0, 9)
        b.begin('setlkw', 'f', 'w', 5, 14)
        b.await_queued()
        check_equal(a('setlk', 'f', 'u', 0, 4), 'ok', 'a part that it does not want')
        check(not b.has_answered(), 'it waits')
        check_equal(a('setlk', 'f', 'u', 5, 9), 'ok', 'the rest')
        check_equal(b.answer(), 'ok', 'it has it')
        check_equal(a('setlk', 'f', 'r', 14, 14), 'EAGAIN', 'so nobody else')


def rule_interrupted(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('setlk', 'f', 'w', 0, 9)
        b('setlk', 'f', 'r', 20, 20)
        b.begin('setlkw', 'f', 'w', 0, 20)
        b.await_queued()
        os.kill(b.pid, signal.SIGUSR1)
        check_equal(b.answer(10), 'EINTR', 'a signal ends the wait')
        b.await_queued(0)
        check_equal(a('getlk', 'f', 'w', 15, 25)[:7], 'r 20 20', 'what it had it has')
        os.kill(b.pid, signal.SIGCHLD)
        b.begin('setlkw', 'f', 'w', 0, 20)
        b.await_queued()
        os.kill(b.pid, signal.SIGCHLD)  # which restarts the call
        b.await_queued()
        a('setlk', 'f', 'u', 0, 9)
        check_equal(b.answer(), 'ok', 'granted')


def rule_killed(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('setlk', 'f', 'w', 0, 9)
        b('setlk', 'f', 'w', 30, 39)
        b.begin('setlkw', 'f', 'w', 0, 9)
        b.await_queued()
        b.kill()
        check_equal(a('setlkw', 'f', 'w', 0, 39), 'ok', 'nothing of it is left')


def rule_deadlock(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        for one in (a, b):
            one('open', 'g', p.cluster.path(one.node, p.name, 'g'))
        check_equal(a('setlk', 'f', 'w', 0, 0) + b('setlk', 'g', 'w', 0, 0), 'okok', 'locked')
        a.begin('setlkw', 'g', 'w', 0, 0)
        a.await_queued()
        check_equal(b('setlkw', 'f', 'w', 0, 0), EDEADLK, 'the second to wait')
        check_equal(b('setlk', 'g', 'u', 0, 0), 'ok', 'unlock')
        check_equal(a.answer(), 'ok', 'the first goes on')


def rule_deadlock_of_upgrades(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        check_equal(a('setlk', 'f', 'r', 0, 9) + b('setlk', 'f', 'r', 0, 9), 'okok', 'both read')
        a.begin('setlkw', 'f', 'w', 0, 9)
        a.await_queued()
        check_equal(b('setlkw', 'f', 'w', 0, 9), EDEADLK, 'both want to write')
        b('setlk', 'f', 'u', 0, 9)
        check_equal(a.answer(), 'ok', 'one of them')


def rule_what_was_written_is_seen(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        for turn in range(20):
            for writer, reader in ((a, b), (b, a)):
                check_equal(writer('setlkw', 'f', 'w', 0, 99), 'ok', 'locked')
                text = f'{turn}-{writer.pid}'
                check_equal(writer('write', 'f', text), 'ok', 'written')
                check_equal(writer('setlk', 'f', 'u', 0, 99), 'ok', 'unlocked')
                check_equal(reader('setlkw', 'f', 'r', 0, 99), 'ok', 'locked')
                check_equal(reader('read', 'f')[:len(text)], text, 'what is read')
                check_equal(reader('setlk', 'f', 'u', 0, 99), 'ok', 'unlocked')


def rule_too_many(p):
    most = 1024
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        for i in range(most):
            check_equal(a('setlk', 'f', 'rw'[i % 2], i, i), 'ok', f'lock {i}')
        check_equal(b('setlk', 'f', 'r', most, most), 'ENOLCK', 'one more')
        check_equal(len(locks(p.cluster, p.caller)), most, 'locks')
        a('close', 'f')
        check_equal(b('setlk', 'f', 'r', most, most), 'ok', 'they are gone')


if __name__ == '__main__':
    main(globals())
