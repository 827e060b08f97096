#!/usr/bin/python3
"""OFD locks: fcntl ranges that belong to an open file."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from lockers import Lockers  # noqa: E402
from posix_rules import main  # noqa: E402


def two(p, locker):
    path = os.path.join(p.name, 'f')
    return locker(p.caller, path), locker(p.others[0] if p.others else p.caller, path)


def rule_of_the_open_file(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('open', 'g', p.here('f'))
        a('dup', 'd', 'f')
        check_equal(a('ofd_setlk', 'f', 'w', 0, 9), 'ok', 'one open')
        check_equal(a('ofd_setlk', 'g', 'r', 9, 9), 'EAGAIN', 'another open')
        check_equal(a('ofd_setlk', 'd', 'w', 5, 14), 'ok', 'its other descriptor')
        check_equal(a('setlk', 'f', 'r', 0, 0), 'EAGAIN', 'the process is another owner')
        check_equal(b('ofd_setlk', 'f', 'w', 14, 14), 'EAGAIN', 'on another host')
        check_equal(b('setlk', 'f', 'r', 14, 14), 'EAGAIN', 'by a process')


def rule_other_closes_do_not_matter(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('open', 'g', p.here('f'))
        a('dup', 'd', 'f')
        a('ofd_setlk', 'f', 'w', 0, 9)
        check_equal(a('close', 'g') + a('close', 'f'), 'okok', 'close')
        check_equal(b('ofd_setlk', 'f', 'w', 0, 9), 'EAGAIN', 'one descriptor is left')
        b.begin('ofd_setlkw', 'f', 'w', 0, 9)
        b.await_queued()
        a('close', 'd')
        check_equal(b.answer(), 'ok', 'none is')


def rule_goes_with_the_process(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('ofd_setlk', 'f', 'w', 0, 9)
        b.begin('ofd_setlkw', 'f', 'r', 5, 5)
        b.await_queued()
        a.kill()
        check_equal(b.answer(), 'ok', 'granted')


def rule_unlocked(p):
    with Lockers(p.cluster) as locker:
        a, b = two(p, locker)
        a('ofd_setlk', 'f', 'w', 0, '-')
        a('ofd_setlk', 'f', 'u', 10, 19)
        check_equal(b('ofd_setlk', 'f', 'w', 10, 19), 'ok', 'the hole')
        check_equal(b('ofd_setlk', 'f', 'w', 10, 20), 'EAGAIN', 'more')
        check_equal(b('ofd_getlk', 'f', 'w', 0, 19)[:5], 'w 0 9', 'who has it')


if __name__ == '__main__':
    main(globals())
