#!/usr/bin/python3
"""flock: shared and exclusive, between processes of one host and of several."""

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from lockers import Lockers, locks  # noqa: E402
from posix_rules import main, read  # noqa: E402


def name_of(p):
    return os.path.join(p.name, 'f')


def elsewhere(p):
    return p.others[0] if p.others else p.caller


def rule_shared_and_exclusive(p):
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        c = locker(p.caller, name_of(p))
        check_equal(a('flock', 'f', 'sh', 'nb'), 'ok', 'shared')
        check_equal(b('flock', 'f', 'sh', 'nb'), 'ok', 'shared there')
        check_equal(c('flock', 'f', 'ex', 'nb'), 'EAGAIN', 'exclusive beside shared')
        check_equal(a('flock', 'f', 'un'), 'ok', 'unlock')
        check_equal(c('flock', 'f', 'ex', 'nb'), 'EAGAIN', 'exclusive beside shared there')
        check_equal(b('flock', 'f', 'ex', 'nb'), 'ok', 'what is shared alone gets exclusive')
        check_equal(c('flock', 'f', 'sh', 'nb'), 'EAGAIN', 'shared beside exclusive')
        check_equal(b('flock', 'f', 'sh', 'nb'), 'ok', 'exclusive gets shared')
        check_equal(c('flock', 'f', 'sh', 'nb'), 'ok', 'beside others')


def rule_of_the_open_file(p):
    """Of two opens of one process each is its own; of descriptors of one open all are one, and the
    last of them that is closed unlocks."""
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        a('open', 'g', p.here('f'))
        check_equal(a('flock', 'f', 'ex', 'nb'), 'ok', 'one open')
        check_equal(a('flock', 'g', 'ex', 'nb'), 'EAGAIN', 'another open')
        a('dup', 'd', 'f')
        check_equal(a('flock', 'd', 'ex', 'nb'), 'ok', 'its other descriptor')
        a('close', 'f')
        a('close', 'g')
        check_equal(b('flock', 'f', 'sh', 'nb'), 'EAGAIN', 'one descriptor is left')
        b.begin('flock', 'f', 'sh')
        a('close', 'd')
        check_equal(b.answer(), 'ok', 'none is')


def rule_goes_with_the_last_process(p):
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        check_equal(a('flock', 'f', 'ex'), 'ok', 'locked')
        child = a.fork()
        a.kill()
        check_equal(b('flock', 'f', 'sh', 'nb'), 'EAGAIN', 'a child has it open')
        b.begin('flock', 'f', 'sh')
        b.await_queued()
        os.kill(child, signal.SIGKILL)
        check_equal(b.answer(), 'ok', 'nobody has')


def rule_waits_in_turn(p):
    """First come, first served, on whichever host; who only reads does not pass a writer."""
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        c, d = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        check_equal(a('flock', 'f', 'sh'), 'ok', 'shared')
        for waiting, how in ((b, 'ex'), (c, 'sh'), (d, 'sh')):
            waiting.begin('flock', 'f', how)
            waiting.await_queued()
        check_equal(a('flock', 'f', 'un'), 'ok', 'unlock')
        check_equal(b.answer(), 'ok', 'the writer came first')
        check(not c.has_answered() and not d.has_answered(), 'the readers wait')
        check_equal(b('flock', 'f', 'un'), 'ok', 'unlock')
        check_equal(c.answer() + d.answer(), 'okok', 'both readers have it')


def rule_two_upgrades_do_not_block_each_other(p):
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        a('flock', 'f', 'sh')
        b('flock', 'f', 'sh')
        a.begin('flock', 'f', 'ex')
        a.await_queued()
        b.begin('flock', 'f', 'ex')
        check_equal(a.answer(), 'ok', 'the first')
        a('flock', 'f', 'un')
        check_equal(b.answer(), 'ok', 'then the second')


def rule_interrupted(p):
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        c = locker(p.caller, name_of(p))
        check_equal(a('flock', 'f', 'ex'), 'ok', 'locked')
        b.begin('flock', 'f', 'ex')
        b.await_queued()
        c.begin('flock', 'f', 'ex')
        c.await_queued()
        os.kill(b.pid, signal.SIGUSR1)
        check_equal(b.answer(10), 'EINTR', 'a signal ends the wait')
        b.await_queued(0)
        check(not c.has_answered(), 'the other one goes on waiting')
        a('flock', 'f', 'un')
        check_equal(c.answer(), 'ok', 'and gets it')
        check_equal(b('flock', 'f', 'ex', 'nb'), 'EAGAIN', 'but for who gave up')


def rule_killed_while_it_waits(p):
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        c = locker(p.caller, name_of(p))
        check_equal(a('flock', 'f', 'ex'), 'ok', 'locked')
        b.begin('flock', 'f', 'ex')
        b.await_queued()
        c.begin('flock', 'f', 'sh')
        c.await_queued()
        b.kill()
        b.await_queued(0)
        a('flock', 'f', 'un')
        check_equal(c.answer(), 'ok', 'who waited behind it')


def rule_what_was_written_is_seen(p):
    """Without a sync: who gets the lock reads what was written under it."""
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        for turn in range(20):
            for writer, reader in ((a, b), (b, a)):
                check_equal(writer('flock', 'f', 'ex'), 'ok', 'locked')
                text = f'{turn}-{writer.pid}'
                check_equal(writer('write', 'f', text), 'ok', 'written')
                check_equal(writer('flock', 'f', 'un'), 'ok', 'unlocked')
                check_equal(reader('flock', 'f', 'sh'), 'ok', 'locked')
                check_equal(reader('read', 'f')[:len(text)], text, 'what is read')
                check_equal(reader('flock', 'f', 'un'), 'ok', 'unlocked')


def rule_does_not_know_of_fcntl(p):
    with Lockers(p.cluster) as locker:
        a, b = locker(p.caller, name_of(p)), locker(elsewhere(p), name_of(p))
        check_equal(a('flock', 'f', 'ex', 'nb'), 'ok', 'flock')
        check_equal(b('setlk', 'f', 'w', 0, '-'), 'ok', 'fcntl')
        check_equal(a('setlk', 'f', 'r', 0, '-'), 'EAGAIN', 'fcntl beside fcntl')


def rule_of_a_file_that_is_made(p):
    """Locked before anything of it was committed."""
    fd = os.open(p.here('new'), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    import fcntl
    fcntl.flock(fd, fcntl.LOCK_EX)
    with Lockers(p.cluster) as locker:
        b = locker(elsewhere(p), os.path.join(p.name, 'new'))
        check_equal(b('flock', 'f', 'ex', 'nb'), 'EAGAIN', 'locked')
        os.write(fd, b'value')
        fcntl.flock(fd, fcntl.LOCK_UN)
        check_equal(b('flock', 'f', 'ex'), 'ok', 'unlocked')
        check_equal(read(p.there('new')), b'value', 'its value')
    os.close(fd)


def rule_leaves_nothing(p):
    with Lockers(p.cluster) as locker:
        a = locker(p.caller, name_of(p))
        a('flock', 'f', 'ex')
        a('setlk', 'f', 'w', 5, 9)
        a('ofd_setlk', 'f', 'r', 20, 29)
        mine = [lock for lock in locks(p.cluster, p.caller) if lock['path'] == '/' + name_of(p)]
        check_equal(sorted((lock['kind'], lock['type'], lock['start'], lock['end'])
                           for lock in mine),
                    [('fcntl', 'read', 20, 29), ('fcntl', 'write', 5, 9),
                     ('flock', 'write', 0, None)], 'what `tierce locks` says')
        check_equal({(lock['node'], lock['waits']) for lock in mine},
                    {(p.cluster.nodes[p.caller].name, False)}, 'whose they are')
        a.kill()
        b = locker(elsewhere(p), name_of(p))
        check_equal(b('flock', 'f', 'ex') + b('setlkw', 'f', 'w', 0, '-'), 'okok', 'both')
        b('close', 'f')


if __name__ == '__main__':
    main(globals())
