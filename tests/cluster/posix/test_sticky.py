#!/usr/bin/python3
"""Sticky directories: who may take a name away, on whichever host the bit was set."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import main, mode  # noqa: E402

ANNA, BERT = 4711, 4712


def sticky(p, owner=0):
    os.chown(p.here(), owner, owner)
    os.chmod(p.here(), 0o1777)
    p.check(mode, oct(0o1777))


def rule_only_owners_remove(p):
    sticky(p)
    check_equal(p.as_user(ANNA, "open('f', 'w')\nos.mkdir('d')"), 'ok', 'making')
    for at in p.everywhere():
        for code in ("os.unlink('f')", "os.rmdir('d')", "os.rename('f', 'g')",
                     "os.rename('d', 'e')", "open('own', 'w')\nos.rename('own', 'f')"):
            check_equal(p.as_user(BERT, code, at=at), 'EPERM', f'{code} in {at}')
    p.check(lambda path: sorted(os.listdir(path)), ['d', 'f', 'own'])
    for code in ("os.rename('f', 'g')", "os.unlink('g')", "os.rmdir('d')"):
        check_equal(p.as_user(ANNA, code, at=p.there()), 'ok', code)


def rule_the_directory_s_owner_may(p):
    sticky(p, BERT)
    p.write('f')
    os.chown(p.here('f'), ANNA, ANNA)
    check_equal(p.as_user(ANNA + 10, "os.unlink('f')", at=p.there()), 'EPERM', 'a third')
    check_equal(p.as_user(BERT, "os.unlink('f')", at=p.there()), 'ok', 'its owner')


def rule_the_bit_counts_at_once(p):
    """Another host's chmod is seen by the next call."""
    os.chmod(p.here(), 0o777)
    for k in range(5):
        p.write('f')
        os.chmod(p.here(), 0o1777)
        check_equal(p.as_user(BERT, "os.unlink('f')", at=p.there()), 'EPERM', 'sticky')
        os.chmod(p.here(), 0o777)
        check_equal(p.as_user(BERT, "os.unlink('f')", at=p.there()), 'ok', 'not sticky')


def rule_exchange_takes_from_both(p):
    """Each of the two names is taken from its directory."""
    sticky(p)
    check_equal(p.as_user(ANNA, "open('a', 'w')"), 'ok', 'making a')
    check_equal(p.as_user(BERT, "open('b', 'w')"), 'ok', 'making b')
    swap = ("import ctypes\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "if libc.renameat2(-100, b'a', -100, b'b', 2): raise OSError(ctypes.get_errno(), '')")
    for user in (ANNA, BERT):
        check_equal(p.as_user(user, swap, at=p.there()), 'EPERM', f'exchange by {user}')


def rule_users_may_set_it(p):
    """On a directory of one's own; on a file it is without effect."""
    os.chmod(p.here(), 0o777)
    check_equal(p.as_user(ANNA, "os.mkdir('d')\nos.chmod('d', 0o1770)"), 'ok', 'chmod')
    p.check(mode, oct(0o1770), 'd')
    check_equal(p.as_user(BERT, "os.chmod('d', 0o770)", at=p.there()), 'EPERM', 'foreign chmod')


if __name__ == '__main__':
    main(globals())
