#!/usr/bin/python3
"""The link count of a directory is 2 and one for each directory in it, on every host, whoever
makes, removes and moves them, and whether or not that succeeds."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, in_parallel  # noqa: E402
from posix_rules import RENAME_EXCHANGE, fails_with, main, nlink, rename2  # noqa: E402


def counts(p, **expected):
    for name, count in expected.items():
        p.check(nlink, count, *([] if name == 'top' else [name]))


def rule_making_and_removing(p):
    counts(p, top=2)
    for k in range(10):
        os.mkdir(p.everywhere(f'd{k}')[k % len(p.everywhere())])
    p.write('f')
    os.symlink('d0', p.here('s'))
    os.mkfifo(p.here('p'))
    counts(p, top=12, d0=2)
    os.mkdir(p.there('d0', 'e'))
    counts(p, top=12, d0=3)
    fails_with(errno.ENOTEMPTY, os.rmdir, p.here('d0'))
    fails_with(errno.EEXIST, os.mkdir, p.here('d1'))
    fails_with(errno.EEXIST, os.mkdir, p.here('f'))
    fails_with(errno.ENOTDIR, os.rmdir, p.here('f'))
    fails_with(errno.EISDIR, os.unlink, p.here('d1'))
    counts(p, top=12, d0=3)
    for k in range(1, 10):
        os.rmdir(p.everywhere(f'd{k}')[k % len(p.everywhere())])
    counts(p, top=3)


def rule_moving(p):
    for name in ('a', 'b', 'a/x', 'a/y', 'b/z'):
        os.mkdir(p.here(name))
    counts(p, top=4, a=4, b=3)
    os.rename(p.there('a/x'), p.there('b/x'))
    counts(p, top=4, a=3, b=4)
    os.rename(p.here('b/x'), p.here('b/w'))
    counts(p, top=4, a=3, b=4)
    os.rename(p.there('a/y'), p.there('b/w'))  # over an empty one
    counts(p, top=4, a=2, b=4)
    os.rename(p.here('b/z'), p.here('z'))
    counts(p, top=5, a=2, b=3, z=2)
    os.rename(p.there('z'), p.there('a'))
    counts(p, top=4, a=2, b=3)
    fails_with(errno.ENOTEMPTY, os.rename, p.here('a'), p.here('b'))
    fails_with(errno.EINVAL, os.rename, p.here('b'), p.here('b/w/v'))
    counts(p, top=4, a=2, b=3)


def rule_exchanging(p):
    os.makedirs(p.here('a', 'x'))
    os.mkdir(p.here('b'))
    p.write('b/f')
    counts(p, top=4, a=3, b=2)
    rename2(p.there('a/x'), p.there('b/f'), RENAME_EXCHANGE)
    counts(p, top=4, a=2, b=3)
    rename2(p.there('b'), p.there('a/x'), RENAME_EXCHANGE)
    counts(p, top=3, a=3)
    p.check(nlink, 3, 'a', 'x')


def rule_all_at_once(p):
    """Every host makes, moves and removes directories in the same two: the sums are right."""
    os.mkdir(p.here('a'))
    os.mkdir(p.here('b'))

    def work(path, i):
        for k in range(30):
            mine = os.path.join(path, 'a', f'{i}-{k}')
            os.mkdir(mine)
            if k % 3 == 0:
                os.rename(mine, os.path.join(path, 'b', f'{i}-{k}'))
            elif k % 3 == 1:
                os.rmdir(mine)
            try:
                os.mkdir(os.path.join(path, 'a', f'all-{k}'))
            except FileExistsError:
                pass
    hosts = p.everywhere()
    in_parallel(work, [(path, i) for i, path in enumerate(hosts)])
    counts(p, top=4, a=2 + 10 * len(hosts) + 30, b=2 + 10 * len(hosts))
    p.check(lambda path: len(os.listdir(path)), 10 * len(hosts) + 30, 'a')

    def remove(path):
        removed = 0
        for name in os.listdir(path):
            try:
                os.rmdir(os.path.join(path, name))
                removed += 1
            except FileNotFoundError:
                pass
        return removed
    removed = in_parallel(remove, [(path,) for path in p.everywhere('a')])
    check_equal(sum(removed), 10 * len(hosts) + 30, 'removed')
    counts(p, top=4, a=2)


def rule_many(p):
    """find(1) goes by it."""
    for k in range(300):
        os.mkdir(p.here(f'd{k}'))
    counts(p, top=302)
    for k in range(300):
        os.rmdir(p.there(f'd{k}'))
    counts(p, top=2)


if __name__ == '__main__':
    main(globals())
