#!/usr/bin/python3
"""mkdir: what is made, whose it is, and what refuses it, on every host."""

import errno
import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, in_parallel, wait_for  # noqa: E402
from posix_rules import fails_with, main, mode, nlink  # noqa: E402

ANNA, BERT = 4711, 4712


def rule_a_new_directory(p):
    os.mkdir(p.here('d'))
    p.check(lambda path: stat.S_ISDIR(os.lstat(path).st_mode), True, 'd')
    p.check(os.listdir, [], 'd')
    p.check(nlink, 2, 'd')
    p.check(nlink, 3)
    inode = os.stat(p.here('d')).st_ino
    p.check(lambda path: os.stat(path).st_ino, inode, 'd', '.')
    p.check(lambda path: os.stat(path).st_ino, os.stat(p.here()).st_ino, 'd', '..')
    os.mkdir(p.there('d', 'e'))
    p.check(os.listdir, ['e'], 'd')
    os.mkdir(p.here('slash') + '/')
    p.check(sorted_names, ['d', 'slash'])


def sorted_names(path):
    return sorted(os.listdir(path))


def rule_modes(p):
    """Less the umask; set-user-id and set-group-id are not asked for by mkdir, sticky is."""
    for asked in (0, 0o700, 0o755, 0o777, 0o1777, 0o7777):
        for mask in (0, 0o022, 0o077):
            name = f'{asked:o}-{mask:o}'
            os.umask(mask)
            try:
                os.mkdir(p.here(name), asked)
            finally:
                os.umask(0o022)
            p.check(mode, oct(asked & 0o1777 & ~mask), name)


def rule_owner(p):
    os.chmod(p.here(), 0o777)
    check_equal(p.as_user(ANNA, "os.mkdir('d')", gid=BERT, at=p.there()), 'ok', 'mkdir')
    p.check(lambda path: (os.stat(path).st_uid, os.stat(path).st_gid), (ANNA, BERT), 'd')
    check_equal(p.as_user(BERT, "os.mkdir('d/e')"), 'EACCES', 'in a directory of another')
    os.chmod(p.here('d'), 0o777)
    check_equal(p.as_user(BERT, "os.mkdir('d/e')", at=p.there()), 'ok', 'after chmod')
    os.chmod(p.here('d'), 0o666)  # not to be walked through
    check_equal(p.as_user(BERT, "os.mkdir('d/f')", at=p.there()), 'EACCES', 'without x')
    os.chmod(p.here('d'), 0o555)
    check_equal(p.as_user(ANNA, "os.mkdir('d/f')", at=p.there()), 'EACCES', 'without w')


def rule_what_is_there_already(p):
    p.write('file')
    os.mkdir(p.here('directory'))
    os.mkfifo(p.here('fifo'))
    for name, target in (('to-file', 'file'), ('to-directory', 'directory'),
                         ('to-nothing', 'nothing'), ('to-itself', 'to-itself')):
        os.symlink(target, p.here(name))
    before = sorted_names(p.here())
    for name in before + ['.', '..', 'directory/.', 'directory/..']:
        for path in p.everywhere(name):
            fails_with(errno.EEXIST, os.mkdir, path)
    p.check(sorted_names, before)


def rule_paths_that_lead_nowhere(p):
    p.write('file')
    os.symlink('loop', p.here('loop'))
    os.symlink('nothing', p.here('dangling'))
    for there in (p.here, p.there):
        fails_with(errno.ENOENT, os.mkdir, there('nothing', 'd'))
        fails_with(errno.ENOENT, os.mkdir, there('dangling', 'd'))
        fails_with(errno.ENOENT, os.mkdir, '')
        fails_with(errno.ENOTDIR, os.mkdir, there('file', 'd'))
        fails_with(errno.ELOOP, os.mkdir, there('loop', 'd'))
    p.check(sorted_names, ['dangling', 'file', 'loop'])


def rule_names_are_measured_in_bytes(p):
    longest = ('n' * 255, 'ä' * 127 + 'n', '\U0001f40c' * 63 + 'nnn')
    for name in longest:
        check_equal(len(os.fsencode(name)), 255, 'bytes of a name')
        os.mkdir(p.here(name))
        fails_with(errno.ENAMETOOLONG, os.mkdir, p.here(name + 'n'))
        fails_with(errno.ENAMETOOLONG, os.mkdir, p.there(name + 'n', 'd'))
    p.check(sorted_names, sorted(longest))
    deep = p.here()
    while len(os.fsencode(deep)) + 200 < 4090:
        deep = os.path.join(deep, 'd' * 199)
        os.mkdir(deep)
    room = 4095 - len(os.fsencode(deep)) - 1
    os.mkdir(os.path.join(deep, 'e' * min(room, 255)))
    fails_with(errno.ENAMETOOLONG, os.mkdir, p.here() + '/.' * 2048 + '/d')


def rule_in_a_removed_directory(p):
    """Whoever stands in it, on whatever host it was removed."""
    for stands, remover in ((p.here, p.here), (p.here, p.there), (p.there, p.here)):
        os.mkdir(p.here('d'))
        fd = os.open('.', os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.chdir(stands('d'))
            os.rmdir(remover('d'))
            wait_for(lambda: os.stat('.').st_nlink == 0, 'the directory to have no name')
            fails_with(errno.ENOENT, os.mkdir, 'e')
            fails_with(errno.ENOENT, os.mkdir, './e')
            fails_with(errno.EEXIST, os.mkdir, '.')
        finally:
            os.fchdir(fd)
            os.close(fd)
    p.check(sorted_names, [])


def rule_one_of_the_callers_makes_it(p):
    def make(path):
        try:
            os.mkdir(path)
        except FileExistsError:
            return 0
        return 1
    for k in range(20):
        made = in_parallel(make, [(path,) for path in p.everywhere(f'd{k}') * 2])
        check_equal(sum(made), 1, f'how many made d{k}')
    p.check(nlink, 22)


def rule_by_descriptor(p):
    os.mkdir(p.here('d'))
    fd = os.open(p.here('d'), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.mkdir('e', dir_fd=fd)
        p.check(os.listdir, ['e'], 'd')
        os.rename(p.there('d'), p.there('moved'))
        os.mkdir('f', dir_fd=fd)
        p.check(sorted_names, ['e', 'f'], 'moved')
    finally:
        os.close(fd)


if __name__ == '__main__':
    main(globals())
