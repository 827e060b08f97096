#!/usr/bin/python3
"""Bytes of one file for another: copy_file_range."""

import errno
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main, mode, opened, read, stretches_of  # noqa: E402

MiB = 1 << 20
DATA = os.urandom(3 * MiB)
BERT = 4712


def copy(source, target, length, from_, to):
    """All of it: a call may do a part."""
    done = 0
    while done < length:
        n = os.copy_file_range(source, target, length - done, from_ + done, to + done)
        if n == 0:
            break
        done += n
    return done


def rule_between_files(p):
    p.write('source', DATA)
    p.write('target', b'abc')
    with opened(p.there('source'), os.O_RDONLY) as a, opened(p.there('target')) as b:
        check_equal(copy(a, b, 10 * MiB, 1000, 2), len(DATA) - 1000, 'bytes copied')
        expected = b'ab' + DATA[1000:]
        check_equal(os.pread(b, 4 * MiB, 0), expected, 'on that host')
        check_equal(os.copy_file_range(a, b, 10, len(DATA), 0), 0, 'behind the end')
    p.check(read, expected, 'target')


def rule_within_a_file(p):
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        check_equal(copy(fd, fd, 100000, 0, 200001), 100000, 'bytes copied')
        fails_with(errno.EINVAL, os.copy_file_range, fd, fd, 100, 0, 50)
    p.check(read, DATA[:200001] + DATA[:100000] + DATA[300001:], 'f')


def rule_offsets_move(p):
    p.write('source', b'0123456789')
    with opened(p.there('source'), os.O_RDONLY) as a, opened(p.there('target')) as b:
        check_equal(os.copy_file_range(a, b, 4), 4, 'bytes copied')
        check_equal(os.copy_file_range(a, b, 100), 6, 'the rest')
        check_equal(os.copy_file_range(a, b, 100), 0, 'the end')
        check_equal(os.lseek(b, 0, os.SEEK_CUR), 10, "the target's offset")
    p.check(read, b'0123456789', 'target')


def rule_what_is_buffered(p):
    """Is copied, and is copied over."""
    p.write('source', b'old source')
    p.write('target', b'old target')
    with opened(p.there('source')) as a, opened(p.there('target')) as b:
        os.pwrite(a, b'new', 0)
        os.pwrite(b, b'XXXXXXXX', 1)
        check_equal(copy(a, b, 10, 0, 3), 10, 'bytes copied')
        os.pwrite(b, b'!', 12)
        check_equal(os.pread(b, 20, 0), b'oXXnew sourc!', 'on that host')
    p.check(read, b'oXXnew sourc!', 'target')


def rule_values_in_progress(p):
    """`cp`: the copy is a new value, unseen elsewhere until it is closed."""
    p.write('source', DATA)
    p.write('target', b'old')
    with opened(p.there('source'), os.O_RDWR) as a:
        with opened(p.there('target'), os.O_RDWR | os.O_TRUNC) as b:
            check_equal(copy(a, b, len(DATA), 0, 0), len(DATA), 'bytes copied')
            if p.others:
                check_equal(read(p.here('target')), b'old', 'elsewhere')
    p.check(read, DATA, 'target')
    with opened(p.there('source'), os.O_RDWR | os.O_TRUNC) as a:
        os.write(a, b'in progress')
        with opened(p.there('other')) as b:
            check_equal(copy(a, b, 100, 0, 0), 11, 'bytes copied')
        p.check(read, b'in progress', 'other')


def rule_holes_stay_holes(p):
    with opened(p.there('source')) as a, opened(p.there('target')) as b:
        os.pwrite(a, b'x' * 4096, MiB)
        os.pwrite(a, b'x' * 4096, 2 * MiB)
        os.pwrite(b, DATA, 0)
        check_equal(copy(a, b, 3 * MiB, 0, 0), 2 * MiB + 4096, 'bytes copied')
        os.fsync(b)
    with open(p.there('target'), 'rb') as f:
        got = f.read()
    check_equal(got, read(p.here('source')) + DATA[2 * MiB + 4096:], 'the target')
    p.check(stretches_of, [(MiB, MiB + 4096), (2 * MiB, 3 * MiB)], 'target')


def rule_errors(p):
    p.write('f', DATA)
    with opened(p.there('f')) as fd, opened(p.there('g')) as other:
        with opened(p.there('g'), os.O_RDONLY) as reading:
            fails_with(errno.EBADF, os.copy_file_range, fd, reading, 10, 0, 0)
        with opened(p.there('g'), os.O_WRONLY | os.O_APPEND) as appending:
            fails_with(errno.EBADF, os.copy_file_range, fd, appending, 10, 0, 0)
            fails_with(errno.EBADF, os.copy_file_range, appending, fd, 10, 0, 0)
        fails_with(errno.EFBIG, os.copy_file_range, fd, other, 10, 0, 1 << 40)
        with opened(p.there(), os.O_RDONLY) as directory:
            fails_with(errno.EISDIR, os.copy_file_range, directory, other, 10, 0, 0)


def rule_times_and_set_id(p):
    p.write('source', b'abc')
    p.write('target', b'abc')
    os.chmod(p.here('target'), 0o6777)
    os.utime(p.here('target'), ns=(1, 1))
    os.utime(p.here('source'), ns=(1, 1))
    check_equal(p.as_user(BERT, "os.copy_file_range(os.open('source', os.O_RDONLY),"
                                " os.open('target', os.O_RDWR), 3, 0, 0)", at=p.there()),
                'ok', 'copying')
    p.check(mode, oct(0o777), 'target')
    for path in p.everywhere('target'):
        check(os.stat(path).st_mtime_ns > 1, 'the target was changed now')
    p.check(lambda path: os.stat(path).st_mtime_ns, 1, 'source')


def rule_cp_of_sparse_files(p):
    with opened(p.there('f')) as fd:
        os.ftruncate(fd, 1 << 40)
        os.pwrite(fd, b'middle', 1 << 39)
    for kind in ('auto', 'always'):
        subprocess.run(['cp', '--sparse', kind, '--reflink=auto', p.there('f'), p.there(kind)],
                       check=True, timeout=100)
        p.check(stretches_of, [(1 << 39, (1 << 39) + 4096)], kind)


if __name__ == '__main__':
    main(globals())
