#!/usr/bin/python3
"""Mapped files: shared and private, reading and writing, msync; and what other hosts see."""

import errno
import mmap
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import fails_with, main, opened, read  # noqa: E402

PAGE = mmap.PAGESIZE
DATA = bytes(range(1, 251)) * 100  # 25 000 bytes


def rule_a_mapping_reads_the_file(p):
    p.write('f', DATA)
    for path in p.everywhere('f'):
        with opened(path, os.O_RDONLY) as fd:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
                check_equal(m[:], DATA, path)


def rule_what_is_mapped_shared_is_written(p):
    """It is in the file for local readers at once, and everywhere after msync."""
    p.write('f', DATA)
    with opened(p.there('f')) as fd, mmap.mmap(fd, 0) as m:
        m[10000:10005] = b'hello'
        expected = DATA[:10000] + b'hello' + DATA[10005:]
        check_equal(os.pread(fd, len(DATA), 0), expected, 'read by the same host')
        m.flush()
        p.check(read, expected, 'f')
        os.pwrite(fd, b'WORLD', 20000)
        check_equal(m[20000:20005], b'WORLD', 'written by write, read in the mapping')


def rule_a_mapping_outlives_its_descriptor(p):
    p.write('f', DATA)
    with opened(p.there('f')) as fd:
        m = mmap.mmap(fd, 0)
    m[0:3] = b'abc'
    m.flush()
    p.check(read, b'abc' + DATA[3:], 'f')
    m[3:6] = b'def'
    m.close()
    with opened(p.there('f')) as fd:
        os.fsync(fd)
    p.check(read, b'abcdef' + DATA[6:], 'f')


def rule_what_is_mapped_private_stays_private(p):
    p.write('f', DATA)
    with opened(p.there('f'), os.O_RDONLY) as fd:
        with mmap.mmap(fd, 0, access=mmap.ACCESS_COPY) as m:
            m[0:5] = b'mine!'
            check_equal(os.pread(fd, 5, 0), DATA[:5], 'the file')
            check_equal(m[:10], b'mine!' + DATA[5:10], 'the mapping')
    p.check(read, DATA, 'f')


def rule_rights_of_the_descriptor_hold(p):
    p.write('f', DATA)
    with opened(p.there('f'), os.O_RDONLY) as fd:
        try:
            mmap.mmap(fd, 0)
        except PermissionError:
            pass
        else:
            raise AssertionError('a descriptor for reading was mapped for writing')


def rule_behind_the_end(p):
    """The rest of the last page is zeros, and what is written there is not in the file; pages
    behind it are SIGBUS."""
    p.write('f', b'abc')
    with opened(p.there('f')) as fd:
        os.ftruncate(fd, PAGE)
        with mmap.mmap(fd, PAGE) as m:
            os.ftruncate(fd, 3)
            check_equal(m[:10], b'abc' + bytes(7), 'the page')
            m[3:6] = b'xyz'
            m.flush()
        os.ftruncate(fd, 10)
        check_equal(os.pread(fd, 100, 0)[:3], b'abc', 'the start')
    code = ('import mmap, os; fd = os.open("f", os.O_RDWR); os.ftruncate(fd, 20000);'
            ' m = mmap.mmap(fd, 20000); os.ftruncate(fd, 3); m[10000]')
    done = subprocess.run([sys.executable, '-c', code], cwd=p.there(), timeout=60)
    check_equal(done.returncode, -signal.SIGBUS, 'how it ended')


def rule_an_empty_file(p):
    p.write('f')
    with opened(p.there('f')) as fd:
        os.ftruncate(fd, PAGE)
        m = mmap.mmap(fd, PAGE)
        m[:5] = b'hello'
        m.flush()
        m.close()
    p.check(read, b'hello' + bytes(PAGE - 5), 'f')


def rule_a_mapping_of_a_new_value(p):
    """As linkers do it: made, made longer, mapped, written, closed."""
    with opened(p.there('f'), os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd:
        os.ftruncate(fd, 3 * PAGE)
        m = mmap.mmap(fd, 0)
        m[PAGE:PAGE + 4] = b'code'
        m.close()
    with opened(p.there('f')) as fd:
        os.fsync(fd)
    p.check(read, bytes(PAGE) + b'code' + bytes(2 * PAGE - 4), 'f')


def rule_append_and_direct(p):
    """A descriptor for reading and appending can be mapped; a directory cannot."""
    p.write('f', DATA)
    with opened(p.there('f'), os.O_RDWR | os.O_APPEND) as fd:
        with mmap.mmap(fd, 0) as m:
            m[:3] = b'abc'
            m.flush()
    p.check(read, b'abc' + DATA[3:], 'f')
    with opened(p.there(), os.O_RDONLY) as fd:
        fails_with(errno.ENODEV, mmap.mmap, fd, PAGE, prot=mmap.PROT_READ)


def rule_programs_run_from_it(p):
    """exec maps the file."""
    with open('/bin/true', 'rb') as f:
        p.write('true', f.read())
    os.chmod(p.here('true'), 0o755)
    for path in p.everywhere('true'):
        check_equal(subprocess.run([path], timeout=60).returncode, 0, path)


if __name__ == '__main__':
    main(globals())
