#!/usr/bin/python3
"""The set-user-id and set-group-id bits: what drops them, what inherits them."""

import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import main, mode  # noqa: E402

ANNA, BERT, STAFF = 4711, 4712, 4800


def prepare(p, bits, owner=ANNA, name='f'):
    p.write(name, b'program')
    os.chown(p.here(name), owner, owner)
    os.chmod(p.here(name), bits)
    p.check(mode, oct(bits), name)


def drops(p, code, before, after, user=BERT, at=None):
    prepare(p, before)
    check_equal(p.as_user(user, code, at=at or p.there()), 'ok', code)
    p.check(mode, oct(after), 'f')


def rule_a_write_drops_them(p):
    write = "os.write(os.open('f', os.O_WRONLY), b'x')"
    for at in p.everywhere():
        drops(p, write, 0o6777, 0o777, at=at)
        drops(p, write, 0o4767, 0o767, at=at)
        drops(p, write, 0o2767, 0o2767, user=ANNA, at=at)  # not executable: no set-group-id
        drops(p, write, 0o6777, 0o777, user=ANNA, at=at)  # the owner's own writes too


def rule_truncation_drops_them(p):
    for at in p.everywhere():
        drops(p, "os.truncate('f', 3)", 0o6777, 0o777, at=at)
        drops(p, "os.ftruncate(os.open('f', os.O_WRONLY), 3)", 0o6777, 0o777, at=at)
        drops(p, "os.close(os.open('f', os.O_WRONLY | os.O_TRUNC))", 0o6777, 0o777, at=at)


def rule_root_s_writes_leave_them(p):
    prepare(p, 0o6755)
    fd = os.open(p.there('f'), os.O_WRONLY)
    os.write(fd, b'x')
    os.close(fd)
    p.check(mode, oct(0o6755), 'f')
    os.truncate(p.there('f'), 0)
    p.check(mode, oct(0o6755), 'f')


def rule_chown_drops_them(p):
    """Even root's; a directory keeps them."""
    prepare(p, 0o6755)
    os.chown(p.there('f'), BERT, BERT)
    p.check(mode, oct(0o755), 'f')
    prepare(p, 0o2745, name='g')
    os.chown(p.there('g'), -1, BERT)
    p.check(mode, oct(0o2745), 'g')
    os.mkdir(p.here('d'))
    os.chmod(p.here('d'), 0o6755)
    os.chown(p.there('d'), BERT, BERT)
    p.check(mode, oct(0o6755), 'd')


def rule_chown_to_nobody_drops_them(p):
    """Of -1 and -1, which changes no owner, but ctime; a directory keeps them."""
    os.mkdir(p.here('d'))
    os.chmod(p.here('d'), 0o6755)
    prepare(p, 0o6755)
    prepare(p, 0o2745, name='g')
    for name, after in (('f', 0o755), ('g', 0o2745), ('d', 0o6755)):
        before = os.stat(p.here(name)).st_ctime_ns
        os.chown(p.there(name), -1, -1)
        p.check(mode, oct(after), name)
        for path in p.everywhere(name):
            check_equal(os.stat(path).st_ctime_ns > before, True, f'ctime of {path} rose')
    fd = os.open(p.here('h'), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(fd, b'value')
    os.fchmod(fd, 0o4755)
    os.fchown(fd, -1, -1)
    os.close(fd)
    p.check(mode, oct(0o755), 'h')


def rule_chmod_of_another_group(p):
    """Who is not in the file's group cannot give it set-group-id."""
    p.write('f')
    os.chown(p.here('f'), ANNA, STAFF)
    check_equal(p.as_user(ANNA, "os.chmod('f', 0o2755)", at=p.there()), 'ok', 'chmod')
    p.check(mode, oct(0o755), 'f')
    check_equal(p.as_user(ANNA, "os.chmod('f', 0o2755)", groups=[STAFF], at=p.there()), 'ok',
                'chmod by a member')
    p.check(mode, oct(0o2755), 'f')


def rule_reading_and_links_leave_them(p):
    os.chmod(p.here(), 0o777)
    prepare(p, 0o6755)
    os.link(p.there('f'), p.there('g'))
    os.rename(p.there('f'), p.there('h'))
    with open(p.there('h'), 'rb') as f:
        f.read()
    p.check(mode, oct(0o6755), 'g')


def rule_directories_hand_their_group_down(p):
    os.chown(p.here(), 0, STAFF)
    os.chmod(p.here(), 0o2777)
    check_equal(p.as_user(ANNA, "os.mkdir('d', 0o755)\nopen('f', 'w')\nos.mkfifo('p')\n"
                                "os.symlink('f', 's')\nos.mkdir('d/e')\n"
                                "os.close(os.open('x', os.O_CREAT | os.O_EXCL, 0o640))",
                          at=p.there()), 'ok', 'making')
    for name in ('d', 'f', 'p', 's', 'd/e', 'x'):
        p.check(lambda path: os.lstat(path).st_gid, STAFF, name)
    p.check(mode, oct(0o2755), 'd')
    p.check(mode, oct(0o2755), 'd/e')
    p.check(mode, oct(0o640), 'x')
    os.chmod(p.here(), 0o777)
    check_equal(p.as_user(ANNA, "os.mkdir('own')", at=p.there()), 'ok', 'making')
    p.check(lambda path: os.lstat(path).st_gid, ANNA, 'own')


def rule_foreign_groups_programs(p):
    """Made in such a directory by who is not in its group: without set-group-id."""
    os.chown(p.here(), 0, STAFF)
    os.chmod(p.here(), 0o2777)
    code = ("os.umask(0)\n"
            "os.close(os.open('f', os.O_CREAT | os.O_WRONLY, 0o2775))\n"
            "os.close(os.open('g', os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o2775))\n"
            "os.mknod('h', 0o2775)")
    check_equal(p.as_user(ANNA, code, at=p.there()), 'ok', 'making')
    for name in 'fgh':
        p.check(lambda path: os.stat(path).st_mode, stat.S_IFREG | 0o775, name)
        p.check(lambda path: os.stat(path).st_gid, STAFF, name)


if __name__ == '__main__':
    main(globals())
