#!/usr/bin/python3
"""Opening a name: what O_CREAT makes, and the errors of a path, on every host."""

import errno
import os
import shutil
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, in_parallel  # noqa: E402
from posix_rules import fails_with, main, mode, nlink, read  # noqa: E402

ANNA, BERT = 4711, 4712
READ, WRITE, BOTH = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
CREAT, EXCL, TRUNC = os.O_CREAT, os.O_EXCL, os.O_TRUNC


def opened(path, flags, bits=0o666):
    os.close(os.open(path, flags, bits))


def rule_what_is_made(p):
    for k, flags in enumerate((READ | CREAT, WRITE | CREAT, BOTH | CREAT | TRUNC,
                               WRITE | CREAT | EXCL, WRITE | CREAT | EXCL | TRUNC,
                               WRITE | CREAT | os.O_APPEND, READ | CREAT | TRUNC)):
        opened(p.here(f'f{k}'), flags)
        p.check(lambda path: os.stat(path).st_mode, stat.S_IFREG | 0o644, f'f{k}')
        p.check(lambda path: os.stat(path).st_size, 0, f'f{k}')
        p.check(nlink, 1, f'f{k}')
        p.check(lambda path: (os.stat(path).st_uid, os.stat(path).st_gid), (0, 0), f'f{k}')
    p.check(lambda path: len(os.listdir(path)), 7)


def rule_modes(p):
    """Only what is made gets the mode; what is there keeps its own."""
    for way, flags in (('new', CREAT | WRITE), ('whole', CREAT | WRITE | TRUNC),
                       ('only', CREAT | WRITE | EXCL)):
        for asked in (0, 0o200, 0o600, 0o666, 0o777, 0o1644):
            name = f'{way}-{asked:o}'
            opened(p.here(name), flags, asked)
            p.check(mode, oct(asked & ~0o022), name)
    opened(p.there('new-600'), CREAT | WRITE, 0o777)
    opened(p.there('new-600'), CREAT | WRITE | TRUNC, 0o777)
    p.check(mode, oct(0o600), 'new-600')


def rule_a_mode_that_forbids_it(p):
    """Whoever makes a file may do through that descriptor what he asked for."""
    os.chmod(p.here(), 0o777)
    for name, flags in (('a', 'os.O_CREAT | os.O_RDWR'),
                        ('b', 'os.O_CREAT | os.O_RDWR | os.O_TRUNC'),
                        ('c', 'os.O_CREAT | os.O_RDWR | os.O_EXCL')):
        code = (f"fd = os.open('{name}', {flags}, 0o444)\nos.write(fd, b'value')\n"
                f"assert os.pread(fd, 10, 0) == b'value'\nos.fsync(fd)\n"
                f"os.write(fd, b' and more')")
        check_equal(p.as_user(ANNA, code, at=p.there()), 'ok', flags)
        p.check(read, b'value and more', name)
        p.check(mode, oct(0o444), name)
        check_equal(p.as_user(ANNA, f"os.open('{name}', {flags} & ~os.O_EXCL)"), 'EACCES',
                    'the second time')


def rule_owner(p):
    os.chmod(p.here(), 0o777)
    for name, flags in (('a', 'os.O_CREAT'), ('b', 'os.O_CREAT | os.O_WRONLY | os.O_TRUNC')):
        check_equal(p.as_user(ANNA, f"os.open('{name}', {flags})", gid=BERT, at=p.there()),
                    'ok', flags)
        p.check(lambda path: (os.stat(path).st_uid, os.stat(path).st_gid), (ANNA, BERT), name)


def rule_exclusively(p):
    p.write('file')
    os.mkdir(p.here('directory'))
    os.mkfifo(p.here('fifo'))
    os.symlink('nothing', p.here('dangling'))
    os.symlink('file', p.here('link'))
    for name in ('file', 'directory', 'fifo', 'dangling', 'link', '.', '..'):
        for path in p.everywhere(name):
            fails_with(errno.EEXIST, os.open, path, WRITE | CREAT | EXCL)
    fails_with(errno.ENOENT, os.stat, p.there('nothing'))


def rule_one_of_the_callers_makes_it(p):
    def make(path):
        try:
            opened(path, WRITE | CREAT | EXCL)
        except FileExistsError:
            return 0
        return 1
    for k in range(20):
        made = in_parallel(make, [(path,) for path in p.everywhere(f'f{k}') * 2])
        check_equal(sum(made), 1, f'how many made f{k}')


def rule_directories_are_not_written(p):
    os.mkdir(p.here('d'))
    os.symlink('d', p.here('s'))
    for name in ('d', 's', '.'):
        for flags in (WRITE, BOTH, READ | CREAT, WRITE | CREAT, WRITE | TRUNC,
                      WRITE | CREAT | TRUNC):
            fails_with(errno.EISDIR, os.open, p.there(name), flags)
    fails_with(errno.EISDIR, os.open, p.there('d') + '/', WRITE | CREAT)
    fails_with(errno.EISDIR, os.open, p.there('new') + '/', WRITE | CREAT)
    opened(p.there('d'), READ)
    opened(p.there('s') + '/', READ | os.O_DIRECTORY)
    p.write('f')
    fails_with(errno.ENOTDIR, os.open, p.there('f'), READ | os.O_DIRECTORY)
    fails_with(errno.ENOTDIR, os.open, p.there('f') + '/', READ)
    p.check(lambda path: sorted(os.listdir(path)), ['d', 'f', 's'])


def rule_paths_that_lead_nowhere(p):
    p.write('file')
    os.symlink('loop', p.here('loop'))
    for flags in (READ, WRITE, BOTH | CREAT, BOTH | CREAT | EXCL, WRITE | CREAT | TRUNC):
        for there in (p.here, p.there):
            fails_with(errno.ENOENT, os.open, there('nothing', 'x'), flags)
            fails_with(errno.ENOTDIR, os.open, there('file', 'x'), flags)
            fails_with(errno.ELOOP, os.open, there('loop', 'x'), flags)
            fails_with(errno.ENAMETOOLONG, os.open, there('n' * 256), flags)
            fails_with(errno.ENAMETOOLONG, os.open, there('ä' * 128), flags)
            fails_with(errno.ENAMETOOLONG, os.open, there('n' * 256, 'x'), flags)
            fails_with(errno.ENAMETOOLONG, os.open, p.here() + '/.' * 2048 + '/x', flags)
    for there in (p.here, p.there):
        fails_with(errno.ENOENT, os.open, there('nothing'), READ)
        fails_with(errno.ENOENT, os.open, there('nothing'), WRITE | TRUNC)
        fails_with(errno.ELOOP, os.open, there('loop'), READ)
    for name in ('n' * 255, 'ä' * 127 + 'n'):
        p.write(name, b'v')
        p.check(read, b'v', name)


def rule_permissions(p):
    """Of the file, and of the directories on the way, as they are on whichever host."""
    os.chmod(p.here(), 0o755)
    os.mkdir(p.here('d'))
    p.write('d/f', b'value')
    os.chown(p.here('d'), ANNA, ANNA)
    os.chown(p.here('d', 'f'), ANNA, ANNA)

    def tries(bits, directory, user, expected, at, **keywords):
        os.chmod(p.here('d', 'f'), bits)
        os.chmod(p.here('d'), directory)
        for code, answer in zip(("open('d/f', 'rb')", "open('d/f', 'r+b')",
                                 "os.close(os.open('d/new', os.O_CREAT | os.O_WRONLY))\n"
                                 "os.unlink('d/new')",
                                 "open('d/new', 'w').close()\nos.unlink('d/new')"), expected):
            check_equal(p.as_user(user, code, at=at, **keywords), answer,
                        f'{code!r} as {user}, {bits:o} in {directory:o}')
    no, ok = 'EACCES', 'ok'
    for at in p.everywhere():
        tries(0o600, 0o755, ANNA, (ok, ok, ok, ok), at)
        tries(0o400, 0o755, ANNA, (ok, no, ok, ok), at)
        tries(0o066, 0o077, ANNA, (no, no, no, no), at)  # the owner's bits count for the owner
        tries(0o640, 0o755, BERT, (no, no, no, no), at)
        tries(0o640, 0o755, BERT, (ok, no, no, no), at, groups=[ANNA])
        tries(0o606, 0o777, BERT, (no, no, ok, ok), at, groups=[ANNA])
        tries(0o666, 0o666, BERT, (no, no, no, no), at)  # no x: nothing in it is reached
        tries(0o666, 0o711, BERT, (ok, ok, no, no), at)
        tries(0o000, 0o000, 0, (ok, ok, ok, ok), at)  # root


def rule_o_trunc_needs_the_right_to_write(p):
    p.write('f', b'value')
    os.chmod(p.here('f'), 0o444)
    for at in p.everywhere():
        check_equal(p.as_user(ANNA, "os.open('f', os.O_RDONLY | os.O_TRUNC)", at=at), 'EACCES',
                    'O_RDONLY | O_TRUNC')
        check_equal(p.as_user(ANNA, "os.truncate('f', 0)", at=at), 'EACCES', 'truncate')
    p.check(read, b'value', 'f')


def rule_what_is_no_file(p):
    os.mkfifo(p.here('fifo'))
    os.mknod(p.here('socket'), stat.S_IFSOCK | 0o666)
    fails_with(errno.ENXIO, os.open, p.there('fifo'), WRITE | os.O_NONBLOCK)
    fails_with(errno.ENXIO, os.open, p.there('socket'), BOTH)
    opened(p.there('fifo'), READ | os.O_NONBLOCK)
    opened(p.there('fifo'), BOTH | CREAT | TRUNC)
    for name in ('fifo', 'socket'):
        opened(p.there(name), os.O_PATH)
    p.check(lambda path: sorted(os.listdir(path)), ['fifo', 'socket'])


def rule_files_without_a_name(p):
    """O_TMPFILE is not there, and programs that ask for it have another way."""
    fails_with(errno.EOPNOTSUPP, os.open, p.here(), os.O_TMPFILE | BOTH)
    p.check(os.listdir, [])


def rule_a_program_that_runs(p):
    """Nobody of its host writes to it; who writes has it not run."""
    shutil.copy('/bin/sleep', p.here('program'))
    os.chmod(p.here('program'), 0o755)
    running = subprocess.Popen([p.there('program'), '1000'])
    try:
        fails_with(errno.ETXTBSY, os.open, p.there('program'), WRITE)
        fails_with(errno.ETXTBSY, os.truncate, p.there('program'), 0)
        os.unlink(p.there('program'))
        check_equal(running.poll(), None, 'how it ended')
    finally:
        running.kill()
        check_equal(running.wait(60), -9, 'how it ended')
    shutil.copy('/bin/true', p.here('true'))
    with open(p.here('true'), 'ab'):
        fails_with(errno.ETXTBSY, subprocess.run, [p.here('true')])
    for path in p.everywhere('true'):
        check_equal(subprocess.run([path]).returncode, 0, f'{path} run')


def rule_the_name_goes_and_comes(p):
    """O_CREAT without O_EXCL while other hosts remove the name: it never fails."""
    stop = False

    def remove(path):
        while not stop:
            try:
                os.unlink(os.path.join(path, 'f'))
            except FileNotFoundError:
                pass
    from cluster import Worker
    removers = [Worker(remove, path) for path in p.everywhere()]
    try:
        for flags in (WRITE | CREAT, WRITE | CREAT | TRUNC):
            for _ in range(100):
                opened(p.here('f'), flags)
    finally:
        stop = True
    for remover in removers:
        remover.result()


if __name__ == '__main__':
    main(globals())
