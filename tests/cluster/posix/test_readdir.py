#!/usr/bin/python3
"""readdir: a name that is there throughout is seen once, whatever others do meanwhile."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import Worker, check, check_equal  # noqa: E402
from posix_rules import main  # noqa: E402


def listed(path):
    return [e.name for e in os.scandir(path)]


def check_once(path, expected, others=()):
    seen = listed(path)
    check_equal(len(seen), len(set(seen)), f'names listed, of {len(set(seen))} different ones')
    check_equal(sorted(set(seen) - set(others)), sorted(expected), 'names')


def while_changing(p, change, look):
    """Looks while `change` goes on on another host (or beside it, on one)."""
    stopped = False

    def run():
        turns = 0
        while not stopped:
            change(turns)
            turns += 1
        return turns
    worker = Worker(run)
    try:
        for _ in range(25):
            look()
    finally:
        stopped = True
    check(worker.result() > 0, 'nothing was changed meanwhile')


def rule_replaced_names_stay(p):
    names = [f'n{k:03}' for k in range(300)]
    for name in names:
        p.write(name)

    def replace(turn):
        temporary = p.there('.new')
        open(temporary, 'w').close()
        os.rename(temporary, p.there(names[turn * 7 % len(names)]))
    while_changing(p, replace, lambda: check_once(p.here(), names, ['.new']))


def rule_replaced_after_the_first_page(p):
    names = [f'n{k:03}'.ljust(100, 'x') for k in range(900)]
    for name in names:
        p.write(name)
    entries = os.scandir(p.here())
    seen = [next(entries).name]
    for name in (names[-1], names[-100]):
        open(p.there('.new'), 'w').close()
        os.rename(p.there('.new'), p.there(name))
    seen += [e.name for e in entries]
    check_equal(sorted(seen), names, 'names')


def rule_others_come_and_go(p):
    names = [f'n{k:03}' for k in range(0, 300, 2)]
    passing = [f'n{k:03}' for k in range(1, 300, 2)]
    for name in names:
        p.write(name)

    def come_and_go(turn):
        path = p.there(passing[turn * 11 % len(passing)])
        open(path, 'w').close()
        os.unlink(path)
    while_changing(p, come_and_go, lambda: check_once(p.here(), names, passing))


def rule_removed_while_listed(p):
    """What rm -r does: each listing goes on where it was."""
    for k in range(500):
        p.write(f'n{k}')
    removed = 0
    for entry in os.scandir(p.here()):
        os.unlink(p.there(entry.name))
        removed += 1
    check_equal(removed, 500, 'removed')
    p.check(os.listdir, [])


def rule_types_and_numbers(p):
    p.write('f')
    os.mkdir(p.here('d'))
    os.symlink('f', p.here('s'))
    os.mkfifo(p.here('p'))
    os.link(p.here('f'), p.here('g'))
    for path in p.everywhere():
        for entry in os.scandir(path):
            st = os.lstat(os.path.join(path, entry.name))
            check_equal(entry.inode(), st.st_ino, f'inode of {entry.name}')
            check_equal((entry.is_dir(follow_symlinks=False), entry.is_symlink()),
                        (entry.name == 'd', entry.name == 's'), f'type of {entry.name}')


if __name__ == '__main__':
    main(globals())
