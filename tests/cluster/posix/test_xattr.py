#!/usr/bin/python3
"""Extended attributes: set, read, listed and removed, on one host and seen on the others."""

import errno
import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main, mode  # noqa: E402

ANNA, BERT = 4711, 4712
CAPABILITY = 'security.capability'
# VFS_CAP_REVISION_2 with the effective bit, CAP_NET_BIND_SERVICE permitted.
BIND = bytes.fromhex('0100000200040000000000000000000000000000')


def names(path):
    return sorted(os.listxattr(path, follow_symlinks=False))


def value(name):
    def xattr(path):
        return os.getxattr(path, name, follow_symlinks=False)
    return xattr


def has_capability(path):
    return CAPABILITY in os.listxattr(path)


def rule_set_get_list_remove(p):
    p.write('f', b'value')
    check_equal(names(p.here('f')), [], 'names')
    fails_with(errno.ENODATA, os.getxattr, p.here('f'), 'user.a')
    os.setxattr(p.here('f'), 'user.a', b'one')
    os.setxattr(p.there('f'), 'user.b', b'')
    os.setxattr(p.there('f'), 'trusted.c', bytes(range(256)))
    p.check(value('user.a'), b'one', 'f')
    p.check(value('user.b'), b'', 'f')
    p.check(value('trusted.c'), bytes(range(256)), 'f')
    p.check(names, ['trusted.c', 'user.a', 'user.b'], 'f')
    os.setxattr(p.there('f'), 'user.a', b'another')
    p.check(value('user.a'), b'another', 'f')
    os.removexattr(p.there('f'), 'user.a')
    fails_with(errno.ENODATA, os.getxattr, p.here('f'), 'user.a')
    fails_with(errno.ENODATA, os.removexattr, p.here('f'), 'user.a')
    p.check(names, ['trusted.c', 'user.b'], 'f')


def rule_create_and_replace(p):
    p.write('f')
    fails_with(errno.ENODATA, os.setxattr, p.here('f'), 'user.a', b'1', os.XATTR_REPLACE)
    os.setxattr(p.there('f'), 'user.a', b'1', os.XATTR_CREATE)
    fails_with(errno.EEXIST, os.setxattr, p.here('f'), 'user.a', b'2', os.XATTR_CREATE)
    p.check(value('user.a'), b'1', 'f')
    os.setxattr(p.here('f'), 'user.a', b'2', os.XATTR_REPLACE)
    p.check(value('user.a'), b'2', 'f')


def rule_name_spaces(p):
    p.write('f')
    for name in ('other.x', 'user', 'system.x', 'x'):
        fails_with(errno.EOPNOTSUPP, os.setxattr, p.here('f'), name, b'x')
        fails_with(errno.EOPNOTSUPP, os.getxattr, p.here('f'), name)
        fails_with(errno.EOPNOTSUPP, os.removexattr, p.here('f'), name)
    fails_with(errno.EINVAL, os.setxattr, p.here('f'), 'user.', b'x')
    os.setxattr(p.here('f'), 'user.' + 250 * 'n', b'x')
    fails_with(errno.ERANGE, os.setxattr, p.here('f'), 'user.' + 251 * 'n', b'x')
    for name in ('security.x', 'trusted.x', 'user.x'):
        os.setxattr(p.here('f'), name, b'x')
        p.check(value(name), b'x', 'f')


def rule_what_may_have_them(p):
    os.mkdir(p.here('d'))
    os.mkfifo(p.here('p'))
    os.symlink('nowhere', p.here('l'))
    os.mknod(p.here('n'), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.setxattr(p.here('d'), 'user.a', b'of a directory')
    p.check(value('user.a'), b'of a directory', 'd')
    for name in 'pln':
        fails_with(errno.EPERM, os.setxattr, p.here(name), 'user.a', b'x',
                   follow_symlinks=False)
        os.setxattr(p.here(name), 'trusted.a', b'x', follow_symlinks=False)
        p.check(value('trusted.a'), b'x', name)
        p.check(names, ['trusted.a'], name)


def rule_who_may(p):
    p.write('f')
    os.chown(p.here('f'), ANNA, ANNA)
    os.chmod(p.here('f'), 0o644)
    os.setxattr(p.here('f'), 'trusted.secret', b'x')
    check_equal(p.as_user(ANNA, "os.setxattr('f', 'user.a', b'mine')", at=p.there()), 'ok', 'own')
    check_equal(p.as_user(BERT, "assert os.getxattr('f', 'user.a') == b'mine'", at=p.there()),
                'ok', 'reading')
    check_equal(p.as_user(BERT, "os.setxattr('f', 'user.a', b'x')", at=p.there()), 'EACCES',
                'foreign')
    check_equal(p.as_user(BERT, "os.removexattr('f', 'user.a')", at=p.there()), 'EACCES',
                'foreign')
    check_equal(p.as_user(ANNA, "os.setxattr('f', 'trusted.a', b'x')", at=p.there()), 'EPERM',
                'trusted')
    check_equal(p.as_user(ANNA, "os.setxattr('f', 'security.a', b'x')", at=p.there()), 'EPERM',
                'security')
    check_equal(p.as_user(ANNA, "os.getxattr('f', 'trusted.secret')", at=p.there()), 'ENODATA',
                'trusted')
    check_equal(p.as_user(ANNA, "assert os.listxattr('f') == ['user.a'], os.listxattr('f')",
                          at=p.there()), 'ok', 'listing')


def rule_limits(p):
    p.write('f')
    large = os.urandom(65536)
    os.setxattr(p.here('f'), 'user.large', large)
    p.check(value('user.large'), large, 'f')
    fails_with(errno.E2BIG, os.setxattr, p.here('f'), 'user.large', large + b'x')
    p.check(value('user.large'), large, 'f')
    for i in range(255):
        os.setxattr(p.here('f'), f'user.{i:0250}', b'x')
    fails_with(errno.ENOSPC, os.setxattr, p.here('f'), 'user.more', b'x')
    p.check(lambda path: len(names(path)), 256, 'f')
    os.removexattr(p.there('f'), 'user.large')
    os.setxattr(p.here('f'), 'user.more', b'x')


def rule_they_belong_to_the_inode(p):
    p.write('f')
    os.setxattr(p.here('f'), 'user.a', b'x')
    os.link(p.here('f'), p.here('g'))
    os.rename(p.there('f'), p.there('h'))
    p.check(value('user.a'), b'x', 'g')
    p.check(value('user.a'), b'x', 'h')
    os.unlink(p.here('h'))
    p.check(value('user.a'), b'x', 'g')
    with open(p.here('g'), 'wb') as f:  # a new value is the same file
        f.write(b'new')
    p.check(value('user.a'), b'x', 'g')
    os.unlink(p.there('g'))
    p.write('g')
    p.check(names, [], 'g')


def rule_times(p):
    """ctime alone, on set and on removal."""
    p.write('f')
    for change in (lambda: os.setxattr(p.there('f'), 'user.a', b'x'),
                   lambda: os.removexattr(p.there('f'), 'user.a')):
        before = os.stat(p.here('f'))
        change()
        for path in p.everywhere('f'):
            after = os.stat(path)
            check(after.st_ctime_ns > before.st_ctime_ns, 'ctime stayed')
            check_equal(after.st_mtime_ns, before.st_mtime_ns, 'mtime')


def rule_of_an_open_file(p):
    fd = os.open(p.here('f'), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.setxattr(fd, 'user.a', b'before a byte')
    p.check(value('user.a'), b'before a byte', 'f')
    os.write(fd, b'value')
    os.setxattr(fd, 'user.a', b'after')
    os.close(fd)
    p.check(value('user.a'), b'after', 'f')
    fd = os.open(p.here('f'), os.O_RDONLY)
    check_equal(os.getxattr(fd, 'user.a'), b'after', 'by descriptor')
    check_equal(os.listxattr(fd), ['user.a'], 'by descriptor')
    os.close(fd)


def give(p):
    os.setxattr(p.here('f'), CAPABILITY, BIND)
    p.check(has_capability, True, 'f')


def rule_a_write_takes_the_capability(p):
    """Root's too, and that of another host."""
    p.write('f', b'program')
    os.chmod(p.here('f'), 0o755)
    os.chown(p.here('f'), ANNA, ANNA)
    changes = (lambda path: os.write(os.open(path, os.O_WRONLY), b'x'),
               lambda path: os.truncate(path, 3),
               lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
               lambda path: os.chown(path, ANNA, BERT))
    for change in changes:
        for path in p.everywhere('f'):
            give(p)
            change(path)
            fd = os.open(path, os.O_WRONLY)
            os.fsync(fd)
            os.close(fd)
            p.check(has_capability, False, 'f')
    for code in ("os.write(os.open('f', os.O_WRONLY), b'x')", "os.truncate('f', 1)"):
        give(p)
        check_equal(p.as_user(ANNA, code, at=p.there()), 'ok', code)
        p.check(has_capability, False, 'f')


def rule_other_changes_leave_it(p):
    p.write('f', b'program')
    give(p)
    os.chmod(p.there('f'), 0o755)
    os.utime(p.there('f'))
    os.rename(p.there('f'), p.there('g'))
    os.rename(p.there('g'), p.there('f'))
    with open(p.there('f'), 'rb') as f:
        f.read()
    p.check(has_capability, True, 'f')
    p.check(mode, oct(0o755), 'f')


def rule_a_capability_given_after_a_write_stays(p):
    """As unpackers give them: with the file still open."""
    with open(p.here('f'), 'wb') as f:
        f.write(b'program')
        f.flush()
        os.setxattr(f.fileno(), CAPABILITY, BIND)
    p.check(has_capability, True, 'f')


if __name__ == '__main__':
    main(globals())
