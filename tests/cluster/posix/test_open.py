#!/usr/bin/python3
"""Opening files: what the flags mean for what others see and for what may be done."""

import errno
import fcntl
import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main, mode, opened, read  # noqa: E402

BERT = 4712


def rule_exclusive_making(p):
    """Of several hosts one makes it."""
    made = 0
    for path in p.everywhere('f') * 3:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
            made += 1
        except FileExistsError:
            pass
    check_equal(made, 1, 'times it was made')
    os.symlink('nowhere', p.here('s'))
    fails_with(errno.EEXIST, os.open, p.there('s'), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    p.check(os.readlink, 'nowhere', 's')
    p.check(mode, oct(0o640), 'f')


def rule_making_through_a_link(p):
    os.symlink('target', p.here('s'))
    with opened(p.there('s'), os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b'abc')
    p.check(read, b'abc', 'target')
    fails_with(errno.ELOOP, os.open, p.there('s'), os.O_RDONLY | os.O_NOFOLLOW)
    os.symlink('loop', p.here('loop'))
    fails_with(errno.ELOOP, os.open, p.there('loop'), os.O_RDONLY)


def rule_the_umask_counts(p):
    before = os.umask(0o027)
    try:
        os.close(os.open(p.there('f'), os.O_CREAT | os.O_WRONLY, 0o666))
    finally:
        os.umask(before)
    p.check(mode, oct(0o640), 'f')
    with opened(p.there('g'), os.O_CREAT | os.O_RDWR, 0o000) as fd:
        os.write(fd, b'abc')  # who made it may write, whatever the mode
        check_equal(os.pread(fd, 3, 0), b'abc', 'read')
    p.check(mode, oct(0), 'g')


def rule_truncation_needs_no_write(p):
    """O_TRUNC alone empties the file, when it is closed."""
    p.write('f', b'old')
    with opened(p.there('f'), os.O_WRONLY | os.O_TRUNC) as fd:
        check_equal(os.fstat(fd).st_size, 0, 'on that host')
        if p.others:
            check_equal(read(p.here('f')), b'old', 'elsewhere')
    p.check(read, b'', 'f')


def rule_kinds(p):
    os.mkdir(p.here('d'))
    p.write('f', b'abc')
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_CREAT):
        fails_with(errno.EISDIR, os.open, p.there('d'), flags)
    fails_with(errno.ENOTDIR, os.open, p.there('f'), os.O_RDONLY | os.O_DIRECTORY)
    fails_with(errno.ENOTDIR, os.open, p.there('f', 'x'), os.O_RDONLY)
    fails_with(errno.ENOTDIR, os.open, p.there('f', 'x'), os.O_CREAT | os.O_WRONLY)
    fails_with(errno.ENOENT, os.open, p.there('none'), os.O_RDONLY)
    fails_with(errno.ENOENT, os.open, p.there('none', 'x'), os.O_CREAT | os.O_WRONLY)
    fails_with(errno.ENAMETOOLONG, os.open, p.there('n' * 256), os.O_CREAT | os.O_WRONLY)
    fails_with(errno.EOPNOTSUPP, os.open, p.there('d'), os.O_TMPFILE | os.O_RDWR)
    os.mkfifo(p.here('p'))
    fails_with(errno.ENXIO, os.open, p.there('p'), os.O_WRONLY | os.O_NONBLOCK)
    with opened(p.there('f'), os.O_PATH) as fd:
        check(stat.S_ISREG(os.fstat(fd).st_mode), 'a path is a file')
        fails_with(errno.EBADF, os.read, fd, 1)


def rule_rights(p):
    p.write('f', b'abc')
    os.chmod(p.here('f'), 0o640)
    os.chmod(p.here(), 0o755)
    for code, answer in (("os.open('f', os.O_RDONLY)", 'EACCES'),
                         ("os.open('f', os.O_WRONLY)", 'EACCES'),
                         ("os.open('new', os.O_WRONLY | os.O_CREAT)", 'EACCES')):
        check_equal(p.as_user(BERT, code, at=p.there()), answer, code)
    os.chmod(p.here('f'), 0o644)
    check_equal(p.as_user(BERT, "os.open('f', os.O_RDONLY)", at=p.there()), 'ok', 'reading')
    check_equal(p.as_user(BERT, "os.open('f', os.O_RDONLY | os.O_TRUNC)", at=p.there()),
                'EACCES', 'truncation for reading')
    p.check(read, b'abc', 'f')
    fd = os.open(p.there('f'), os.O_RDWR)
    os.chmod(p.here('f'), 0)
    check_equal(os.pread(fd, 3, 0), b'abc', 'what was open stays so')
    os.close(fd)


def rule_flags_are_kept(p):
    """As fcntl says them."""
    p.write('f', b'abc')
    for flags in (os.O_APPEND, os.O_SYNC, os.O_DIRECT, os.O_NOATIME, os.O_NONBLOCK):
        with opened(p.there('f'), os.O_RDWR | flags) as fd:
            check_equal(fcntl.fcntl(fd, fcntl.F_GETFL) & flags, flags, 'F_GETFL')


def rule_a_new_files_times_and_owner(p):
    os.chmod(p.here(), 0o777)
    check_equal(p.as_user(BERT, "os.close(os.open('f', os.O_CREAT | os.O_WRONLY))",
                          at=p.there()), 'ok', 'making')
    for path in p.everywhere('f'):
        st = os.stat(path)
        check_equal((st.st_uid, st.st_gid, st.st_nlink), (BERT, BERT, 1), path)
        check(st.st_mtime_ns == st.st_ctime_ns, 'it was changed when it was made')
        check(st.st_mtime_ns <= os.stat(p.here()).st_mtime_ns + 10**9, 'as its directory')


if __name__ == '__main__':
    main(globals())
