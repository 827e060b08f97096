#!/usr/bin/python3
"""chown: who may give what to whom, and what is left of it on every host."""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import fails_with, main, mode, read  # noqa: E402

ANNA, BERT, STAFF = 4711, 4712, 4800


def owner(path):
    st = os.lstat(path)
    return st.st_uid, st.st_gid


def rule_owner_and_group(p):
    p.write('f')
    os.mkdir(p.here('d'))
    os.mkfifo(p.here('p'))
    for name in 'fdp':
        p.check(owner, (os.geteuid(), os.getegid()), name)
        os.chown(p.there(name), ANNA, BERT)
        p.check(owner, (ANNA, BERT), name)
        os.chown(p.there(name), -1, STAFF)
        p.check(owner, (ANNA, STAFF), name)
        os.chown(p.there(name), BERT, -1)
        p.check(owner, (BERT, STAFF), name)
        os.chown(p.there(name), 2 ** 32 - 2, 2 ** 32 - 2)
        p.check(owner, (2 ** 32 - 2, 2 ** 32 - 2), name)


def rule_links(p):
    p.write('f')
    os.symlink('f', p.here('l'))
    os.chown(p.there('l'), ANNA, ANNA)
    p.check(owner, (ANNA, ANNA), 'f')
    os.lchown(p.there('l'), BERT, BERT)
    p.check(owner, (ANNA, ANNA), 'f')
    p.check(owner, (BERT, BERT), 'l')


def rule_by_descriptor(p):
    fd = os.open(p.here('f'), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.fchown(fd, ANNA, STAFF)  # not made yet
    check_equal(os.fstat(fd).st_uid, ANNA, 'owner')
    os.write(fd, b'value')
    os.fchown(fd, BERT, -1)
    os.close(fd)
    p.check(owner, (BERT, STAFF), 'f')
    p.check(read, b'value', 'f')


def rule_who_may(p):
    os.chmod(p.here(), 0o755)
    p.write('f')
    for at in p.everywhere():
        os.chown(p.here('f'), ANNA, ANNA)
        check_equal(p.as_user(ANNA, f"os.chown('f', {BERT}, -1)", at=at), 'EPERM', 'giving away')
        check_equal(p.as_user(BERT, f"os.chown('f', {BERT}, -1)", at=at), 'EPERM', 'taking')
        check_equal(p.as_user(ANNA, f"os.chown('f', -1, {STAFF})", at=at), 'EPERM',
                    'to a foreign group')
        check_equal(p.as_user(ANNA, f"os.chown('f', {ANNA}, {STAFF})", groups=[STAFF], at=at),
                    'ok', 'to a group of his')
        check_equal(p.as_user(BERT, f"os.chown('f', -1, {STAFF})", groups=[STAFF], at=at),
                    'EPERM', 'what is not his')
        p.check(owner, (ANNA, STAFF), 'f')


def rule_it_holds_at_once(p):
    os.chmod(p.here(), 0o755)
    p.write('f', b'value')
    os.chmod(p.here('f'), 0o600)
    for user, other in ((ANNA, BERT), (BERT, ANNA), (ANNA, BERT)):
        os.chown(p.there('f'), user, user)
        for at in p.everywhere():
            check_equal(p.as_user(user, "open('f').read()", at=at), 'ok', 'the owner')
            check_equal(p.as_user(other, "open('f').read()", at=at), 'EACCES', 'the one before')


def rule_set_id_bits(p):
    """Of a program they go; of a directory they stay."""
    p.write('f')
    os.mkdir(p.here('d'))
    for name, after in (('f', 0o755), ('d', 0o6755)):
        os.chown(p.here(name), ANNA, ANNA)
        os.chmod(p.here(name), 0o6755)
        check_equal(p.as_user(ANNA, f"os.chown('{name}', -1, {STAFF})", groups=[STAFF],
                              at=p.there()), 'ok', 'chown')
        p.check(mode, oct(after), name)


def rule_errors(p):
    p.write('f')
    os.symlink('l', p.here('l'))
    fails_with(errno.ENOENT, os.chown, p.there('none'), 1, 1)
    fails_with(errno.ENOTDIR, os.chown, p.there('f', 'x'), 1, 1)
    fails_with(errno.ELOOP, os.chown, p.there('l'), 1, 1)
    fails_with(errno.ENAMETOOLONG, os.chown, p.there('x' * 256), 1, 1)


if __name__ == '__main__':
    main(globals())
