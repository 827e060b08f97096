#!/usr/bin/python3
"""chmod: who may, what it sets, and that it holds on every host at once."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import fails_with, main, mode, read  # noqa: E402

ANNA, BERT = 4711, 4712


def rule_every_bit(p):
    p.write('f')
    os.mkdir(p.here('d'))
    os.mkfifo(p.here('p'))
    for name in 'fdp':
        for bits in (0, 0o7777, 0o644, 0o4755, 0o2755, 0o1777, 0o111):
            os.chmod(p.there(name), bits)
            p.check(mode, oct(bits), name)


def rule_by_descriptor(p):
    fd = os.open(p.here('f'), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(fd, 0o640)  # not made yet
    check_equal(oct(os.fstat(fd).st_mode & 0o7777), oct(0o640), 'mode')
    os.write(fd, b'value')
    os.fchmod(fd, 0o604)
    check_equal(oct(os.fstat(fd).st_mode & 0o7777), oct(0o604), 'mode')
    os.close(fd)
    p.check(mode, oct(0o604), 'f')
    p.check(read, b'value', 'f')


def rule_a_link_leads_to_its_target(p):
    p.write('f')
    os.symlink('f', p.here('l'))
    os.chmod(p.there('l'), 0o751)
    p.check(mode, oct(0o751), 'f')
    p.check(mode, oct(0o777), 'l')


def rule_who_may(p):
    os.chmod(p.here(), 0o755)
    p.write('f')
    os.chown(p.here('f'), ANNA, ANNA)
    for at in p.everywhere():
        check_equal(p.as_user(ANNA, "os.chmod('f', 0o640)", at=at), 'ok', 'the owner')
        check_equal(p.as_user(BERT, "os.chmod('f', 0o666)", at=at), 'EPERM', 'another')
    p.check(mode, oct(0o640), 'f')
    check_equal(p.as_user(ANNA, "os.chmod('f', 0o1640)", at=p.there()), 'ok', 'sticky')
    p.check(mode, oct(0o1640), 'f')


def rule_it_holds_at_once(p):
    os.chmod(p.here(), 0o755)
    p.write('f', b'value')
    for _ in range(5):
        for bits, expected in ((0o600, 'EACCES'), (0o644, 'ok')):
            os.chmod(p.there('f'), bits)
            for at in p.everywhere():
                check_equal(p.as_user(ANNA, "open('f').read()", at=at), expected, oct(bits))


def rule_what_is_open_stays_open(p):
    os.chmod(p.here(), 0o777)
    code = ("fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)\n"
            "os.fchmod(fd, 0)\nos.write(fd, b'x')\nassert os.pread(fd, 9, 0) == b'x'\n"
            "try:\n    open('f')\n    print('opened')\nexcept PermissionError:\n    pass")
    check_equal(p.as_user(ANNA, code, at=p.there()), 'ok', 'an open descriptor')
    p.check(mode, oct(0), 'f')


def rule_errors(p):
    p.write('f')
    os.symlink('l', p.here('l'))
    fails_with(errno.ENOENT, os.chmod, p.there('none'), 0o600)
    fails_with(errno.ENOTDIR, os.chmod, p.there('f', 'x'), 0o600)
    fails_with(errno.ELOOP, os.chmod, p.there('l'), 0o600)
    fails_with(errno.ENAMETOOLONG, os.chmod, p.there('x' * 256), 0o600)


if __name__ == '__main__':
    main(globals())
