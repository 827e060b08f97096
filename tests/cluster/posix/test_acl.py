#!/usr/bin/python3
"""POSIX ACLs: set on one host, enforced by the kernel of each, and handed down."""

import errno
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main, mode, read  # noqa: E402

ANNA, BERT, CORA, STAFF = 4711, 4712, 4713, 4800
ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
TAGS = {'u': 1, 'user': 2, 'g': 4, 'group': 8, 'mask': 16, 'o': 32}
NOBODY = 0xffffffff


def acl(text):
    """'u:7 user:4711:6 g:5 mask:7 o:0' as the attribute's bytes."""
    value = struct.pack('<I', 2)
    for entry in text.split():
        tag, *name, permissions = entry.split(':')
        value += struct.pack('<HHI', TAGS[tag], int(permissions), int(*name or [NOBODY]))
    return value


def text(value):
    names = {number: name for name, number in TAGS.items()}
    check_equal(value[:4], struct.pack('<I', 2), 'version')
    return ' '.join(f'{names[tag]}:{permissions}' if name == NOBODY
                    else f'{names[tag]}:{name}:{permissions}'
                    for tag, permissions, name in struct.iter_unpack('<HHI', value[4:]))


def access(path):
    return text(os.getxattr(path, ACCESS))


def default(path):
    return text(os.getxattr(path, DEFAULT))


def names(path):
    return sorted(os.listxattr(path))


def rule_set_and_read(p):
    p.write('f')
    os.setxattr(p.here('f'), ACCESS, acl(f'u:6 user:{ANNA}:6 g:4 group:{STAFF}:1 mask:7 o:0'))
    p.check(access, f'u:6 user:{ANNA}:6 g:4 group:{STAFF}:1 mask:7 o:0', 'f')
    p.check(names, [ACCESS], 'f')
    p.check(mode, oct(0o670), 'f')
    os.removexattr(p.there('f'), ACCESS)
    p.check(names, [], 'f')
    os.removexattr(p.there('f'), ACCESS)  # nothing to do
    fails_with(errno.ENODATA, os.getxattr, p.here('f'), ACCESS)


def rule_what_is_no_acl(p):
    p.write('f')
    os.symlink('f', p.here('l'))
    for bad in ('u:6 g:4', 'g:4 u:6 o:0', f'u:6 user:{ANNA}:7 g:4 o:0', 'u:8 g:4 o:0'):
        fails_with(errno.EINVAL, os.setxattr, p.here('f'), ACCESS, acl(bad))
    fails_with(errno.EINVAL, os.setxattr, p.here('f'), ACCESS, acl('u:6 g:4 o:0') + b'!')
    fails_with(errno.EACCES, os.setxattr, p.here('f'), DEFAULT, acl('u:6 g:4 o:0'))
    fails_with(errno.EOPNOTSUPP, os.setxattr, p.here('l'), ACCESS, acl('u:6 g:4 o:0'),
               follow_symlinks=False)


def rule_one_that_says_no_more_than_the_mode(p):
    p.write('f')
    os.setxattr(p.here('f'), ACCESS, acl(f'u:6 user:{ANNA}:6 g:4 mask:6 o:0'))
    os.setxattr(p.there('f'), ACCESS, acl('u:7 g:5 o:1'))
    p.check(mode, oct(0o751), 'f')
    p.check(names, [], 'f')


def rule_who_may_what(p):
    """Each host's kernel says the same."""
    os.chmod(p.here(), 0o755)
    p.write('f', b'value')
    os.chmod(p.here('f'), 0o600)
    os.setxattr(p.here('f'), ACCESS,
                acl(f'u:6 user:{ANNA}:4 user:{BERT}:0 g:0 group:{STAFF}:6 mask:6 o:0'))
    reads, writes = "open('f').read()", "open('f', 'r+')"
    for at in p.everywhere():
        check_equal(p.as_user(ANNA, reads, at=at), 'ok', 'a named user reads')
        check_equal(p.as_user(ANNA, writes, at=at), 'EACCES', 'and does not write')
        check_equal(p.as_user(BERT, reads, groups=[STAFF], at=at), 'EACCES', 'refused by name')
        check_equal(p.as_user(CORA, writes, groups=[STAFF], at=at), 'ok', 'of a named group')
        check_equal(p.as_user(CORA, reads, at=at), 'EACCES', 'of none')
    os.chmod(p.there('f'), 0o640)  # the mask
    for at in p.everywhere():
        check_equal(p.as_user(CORA, writes, groups=[STAFF], at=at), 'EACCES', 'masked')
        check_equal(p.as_user(CORA, reads, groups=[STAFF], at=at), 'ok', 'masked')
    os.removexattr(p.here('f'), ACCESS)
    for at in p.everywhere():
        check_equal(p.as_user(ANNA, reads, at=at), 'EACCES', 'without the ACL')


def rule_a_directory_to_walk_through(p):
    os.chmod(p.here(), 0o755)
    os.mkdir(p.here('d'), 0o700)
    p.write('d/f', b'value')
    os.chmod(p.here('d/f'), 0o644)
    os.setxattr(p.here('d'), ACCESS, acl(f'u:7 user:{ANNA}:1 g:0 mask:7 o:0'))
    for at in p.everywhere():
        check_equal(p.as_user(ANNA, "open('d/f').read()", at=at), 'ok', 'walking')
        check_equal(p.as_user(ANNA, "os.listdir('d')", at=at), 'EACCES', 'listing')
        check_equal(p.as_user(ANNA, "open('d/g', 'w')", at=at), 'EACCES', 'making')
        check_equal(p.as_user(BERT, "open('d/f').read()", at=at), 'EACCES', 'another')
    os.setxattr(p.there('d'), ACCESS, acl(f'u:7 user:{ANNA}:7 g:0 mask:7 o:0'))
    for i, at in enumerate(p.everywhere()):
        check_equal(p.as_user(ANNA, f"open('d/g{i}', 'w').close()\nos.listdir('d')", at=at),
                    'ok', 'making')


def rule_chmod_changes_the_acl(p):
    p.write('f')
    os.setxattr(p.here('f'), ACCESS, acl(f'u:7 user:{ANNA}:6 g:4 mask:3 o:1'))
    p.check(mode, oct(0o731), 'f')
    os.chmod(p.there('f'), 0o652)
    p.check(mode, oct(0o652), 'f')
    p.check(access, f'u:6 user:{ANNA}:6 g:4 mask:5 o:2', 'f')
    with open(p.here('f'), 'wb') as f:  # with something buffered
        f.write(b'value')
        f.flush()
        os.fchmod(f.fileno(), 0o631)
    p.check(access, f'u:6 user:{ANNA}:6 g:4 mask:3 o:1', 'f')
    p.check(read, b'value', 'f')


def rule_times(p):
    p.write('f')
    before = os.stat(p.here('f'))
    os.setxattr(p.there('f'), ACCESS, acl(f'u:6 user:{ANNA}:6 g:4 mask:6 o:0'))
    for path in p.everywhere('f'):
        after = os.stat(path)
        check(after.st_ctime_ns > before.st_ctime_ns, 'ctime stayed')
        check_equal(after.st_mtime_ns, before.st_mtime_ns, 'mtime')


def make_all(p, path):
    os.mkdir(os.path.join(path, 'd'), 0o777)
    os.close(os.open(os.path.join(path, 'f'), os.O_CREAT | os.O_WRONLY, 0o666))
    with open(os.path.join(path, 't'), 'wb') as f:  # O_TRUNC
        f.write(b'value')
    os.close(os.open(os.path.join(path, 'x'), os.O_CREAT | os.O_EXCL, 0o640))
    os.mkfifo(os.path.join(path, 'p'), 0o666)
    os.mknod(os.path.join(path, 'n'), 0o666)
    os.symlink('f', os.path.join(path, 'l'))


def rule_a_default_acl_is_inherited(p):
    """And stands in for the umask."""
    os.setxattr(p.here(), DEFAULT, acl(f'u:7 user:{ANNA}:7 g:5 mask:7 o:0'))
    p.check(default, f'u:7 user:{ANNA}:7 g:5 mask:7 o:0')
    before = os.umask(0o077)
    try:
        make_all(p, p.there())
    finally:
        os.umask(before)
    p.check(default, f'u:7 user:{ANNA}:7 g:5 mask:7 o:0', 'd')
    p.check(access, f'u:7 user:{ANNA}:7 g:5 mask:7 o:0', 'd')
    p.check(mode, oct(0o770), 'd')
    for name in 'ftpn':
        p.check(access, f'u:6 user:{ANNA}:7 g:5 mask:6 o:0', name)
        p.check(names, [ACCESS], name)
        p.check(mode, oct(0o660), name)
    p.check(access, f'u:6 user:{ANNA}:7 g:5 mask:4 o:0', 'x')
    p.check(mode, oct(0o640), 'x')
    p.check(lambda path: os.lstat(path).st_mode & 0o777, 0o777, 'l')
    os.chmod(p.here(), 0o755)
    check_equal(p.as_user(ANNA, "open('t').read()", at=p.here()), 'ok', 'inherited')
    check_equal(p.as_user(BERT, "open('t').read()", at=p.here()), 'EACCES', 'inherited')
    os.mkdir(p.there('d', 'e'))
    p.check(default, f'u:7 user:{ANNA}:7 g:5 mask:7 o:0', 'd', 'e')


def rule_a_plain_default_acl(p):
    os.setxattr(p.here(), DEFAULT, acl('u:7 g:7 o:0'))
    before = os.umask(0o077)
    try:
        make_all(p, p.there())
    finally:
        os.umask(before)
    for name in 'ftpn':
        p.check(mode, oct(0o660), name)
        p.check(names, [], name)
    p.check(mode, oct(0o640), 'x')
    p.check(mode, oct(0o770), 'd')
    p.check(names, [DEFAULT], 'd')


def rule_without_one_the_umask_counts(p):
    before = os.umask(0o027)
    try:
        make_all(p, p.there())
    finally:
        os.umask(before)
    for name in 'ftxpn':
        p.check(mode, oct(0o640), name)
    p.check(mode, oct(0o750), 'd')
    p.check(names, [], 'd')


def rule_a_default_acl_goes(p):
    os.setxattr(p.here(), DEFAULT, acl('u:7 g:7 o:7'))
    os.removexattr(p.there(), DEFAULT)
    before = os.umask(0o022)
    try:
        make_all(p, p.here())
    finally:
        os.umask(before)
    p.check(mode, oct(0o644), 'f')


def rule_setgid_of_a_foreign_group(p):
    """Who sets the ACL of a program of a group he is not in takes the bit away."""
    os.chmod(p.here(), 0o755)
    given = acl(f'u:7 user:{BERT}:7 g:5 mask:7 o:5')
    code = f'os.setxattr("f", "{ACCESS}", {given!r})'
    for groups, expected in (([], 0o775), ([STAFF], 0o2775)):
        p.write('f')
        os.chown(p.here('f'), ANNA, STAFF)
        os.chmod(p.here('f'), 0o2755)
        check_equal(p.as_user(ANNA, code, groups=groups, at=p.there()), 'ok', 'setting')
        p.check(mode, oct(expected), 'f')
    check_equal(p.as_user(BERT, code, at=p.there()), 'EPERM', 'not the owner')


if __name__ == '__main__':
    main(globals())
