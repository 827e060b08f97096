#!/usr/bin/python3
"""access, and what the kernel goes by: modes and owners of whichever host set them."""

import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal  # noqa: E402
from posix_rules import main, mode  # noqa: E402

ANNA, BERT, STAFF = 4711, 4712, 4800


def allowed(p, user, name, at, **keywords):
    """'rwx' with '-' for what access() denies."""
    code = (f"os.write(1, ''.join(c if os.access('{name}', m) else '-' for c, m in "
            f"(('r', os.R_OK), ('w', os.W_OK), ('x', os.X_OK))).encode() + b'\\n')")
    lines = p.as_user(user, code, at=at, **keywords).splitlines()
    check_equal(lines[1:], ['ok'], 'asking')
    return lines[0]


def bits(number):
    return ''.join(c if number & b else '-' for c, b in (('r', 4), ('w', 2), ('x', 1)))


def rule_owner_group_others(p):
    """Exactly one of the three counts, the first that fits."""
    p.write('f')
    os.chown(p.here('f'), ANNA, STAFF)
    for value in (0o777, 0o000, 0o700, 0o070, 0o007, 0o421, 0o142, 0o755, 0o640):
        os.chmod(p.here('f'), value)
        at = p.there()
        check_equal(allowed(p, ANNA, 'f', at), bits(value >> 6), f'owner, {value:o}')
        check_equal(allowed(p, ANNA, 'f', at, groups=[STAFF]), bits(value >> 6),
                    f'owner in the group, {value:o}')
        check_equal(allowed(p, BERT, 'f', at, gid=STAFF), bits(value >> 3), f'group, {value:o}')
        check_equal(allowed(p, BERT, 'f', at, groups=[1, STAFF]), bits(value >> 3),
                    f'a member, {value:o}')
        check_equal(allowed(p, BERT, 'f', at), bits(value), f'others, {value:o}')


def rule_root(p):
    """Reads and writes everything; runs what anybody may run; searches all directories."""
    p.write('f')
    os.mkdir(p.here('d'))
    for value, expected in ((0, 'rw-'), (0o666, 'rw-'), (0o001, 'rwx'), (0o100, 'rwx')):
        os.chmod(p.here('f'), value)
        check_equal(allowed(p, 0, 'f', p.there()), expected, f'{value:o}')
        os.chmod(p.here('d'), value)
        check_equal(allowed(p, 0, 'd', p.there()), 'rwx', f'a directory, {value:o}')


def rule_directories(p):
    """r lists, x reaches what is in it, w with x changes it."""
    os.mkdir(p.here('d'))
    p.write('d/f', b'value')
    cases = {0o777: ('ok', 'ok', 'ok'), 0o775: ('ok', 'ok', 'EACCES'),
             0o774: ('ok', 'EACCES', 'EACCES'), 0o771: ('EACCES', 'ok', 'EACCES'),
             0o773: ('EACCES', 'ok', 'ok'), 0o772: ('EACCES', 'EACCES', 'EACCES'),
             0o776: ('ok', 'EACCES', 'EACCES'), 0o770: ('EACCES', 'EACCES', 'EACCES')}
    for value, (lists, reaches, changes) in cases.items():
        os.chmod(p.here('d'), value)
        for at in p.everywhere():
            for code, expected in (("os.listdir('d')", lists), ("os.stat('d/f')", reaches),
                                   ("open('d/f').close()", reaches),
                                   ("os.mkdir('d/e')\nos.rmdir('d/e')", changes),
                                   ("os.chdir('d')", reaches)):
                check_equal(p.as_user(ANNA, code, at=at), expected, f'{code!r} in {value:o}')


def rule_a_change_counts_at_once(p):
    """chmod and chown of one host, and the next call on another."""
    p.write('f')
    for _ in range(10):
        os.chmod(p.here('f'), 0o644)
        check_equal(p.as_user(ANNA, "open('f').close()", at=p.there()), 'ok', 'readable')
        os.chmod(p.here('f'), 0o600)
        check_equal(p.as_user(ANNA, "open('f').close()", at=p.there()), 'EACCES', 'not so')
        os.chown(p.here('f'), ANNA, ANNA)
        check_equal(p.as_user(ANNA, "open('f').close()", at=p.there()), 'ok', 'owned')
        os.chown(p.here('f'), 0, 0)


def rule_an_open_file_stays_open(p):
    """Permissions are asked for when it is opened, on the host that opens it."""
    p.write('f', b'value')
    os.chmod(p.here('f'), 0o666)
    code = ("f = open('f', 'r+b', buffering=0)\nos.write(1, b'open\\n')\nsys.stdin.readline()\n"
            "assert f.read(5) == b'value'\nf.write(b'!')\nos.fsync(f.fileno())")
    program = f"import os, sys\n{code}\n"
    child = subprocess.Popen([sys.executable, '-I', '-S', '-c', program], user=ANNA, group=ANNA,
                             extra_groups=(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             cwd=p.there())
    with child:
        check_equal(child.stdout.readline(), b'open\n', 'the child')
        os.chmod(p.here('f'), 0)
        os.chown(p.here('f'), BERT, BERT)
        child.communicate(b'\n', timeout=60)
        check_equal(child.returncode, 0, 'its read and write')
    p.check(lambda path: os.stat(path).st_size, 6, 'f')


def rule_programs(p):
    """Run where x says so, from every host; scripts too; a mount does not make set-user-id
    programs of what another host's user has set (nosuid unless told otherwise)."""
    p.write('script', b'#!/bin/sh\nid -u\n')
    os.chmod(p.here('script'), 0o644)

    def run(user, path):
        try:
            return subprocess.run([path], user=user, group=user, extra_groups=(), text=True,
                                  stdout=subprocess.PIPE).stdout.strip()
        except PermissionError:
            return 'EACCES'
    os.chmod(p.cluster.base, 0o755)
    for i, path in enumerate(p.everywhere('script')):
        os.chmod(p.here('script'), 0o644)
        check_equal(run(0, path), 'EACCES', 'root, without x')
        os.chmod(p.here('script'), 0o754)
        check_equal(run(0, path), '0', 'root')
        check_equal(run(ANNA, path), 'EACCES', 'others, without x')
        os.chmod(p.here('script'), 0o4755)
        check_equal(run(ANNA, path), str(ANNA), 'others')
    with open('/usr/bin/id', 'rb') as f:
        p.write('id', f.read())
    os.chmod(p.here('id'), 0o4755)
    p.check(mode, oct(0o4755), 'id')
    for path in p.everywhere('id'):
        run_id = subprocess.run([path, '-u'], user=ANNA, group=ANNA, extra_groups=(), text=True,
                                stdout=subprocess.PIPE)
        check_equal(run_id.stdout.strip(), str(ANNA), f'{path} as {ANNA}')


def rule_who_may_chmod_and_chown(p):
    p.write('f')
    os.chown(p.here('f'), ANNA, ANNA)
    at = p.there()
    check_equal(p.as_user(BERT, "os.chmod('f', 0o666)", at=at), 'EPERM', 'chmod of another\'s')
    check_equal(p.as_user(BERT, f"os.chown('f', {BERT}, -1)", at=at), 'EPERM', 'taking it')
    check_equal(p.as_user(ANNA, f"os.chown('f', {BERT}, -1)", at=at), 'EPERM', 'giving it')
    check_equal(p.as_user(ANNA, f"os.chown('f', -1, {STAFF})", at=at), 'EPERM',
                'to a group one is not in')
    check_equal(p.as_user(ANNA, f"os.chown('f', -1, {STAFF})", at=at, groups=[STAFF]), 'ok',
                'to a group one is in')
    p.check(lambda path: (os.stat(path).st_uid, os.stat(path).st_gid), (ANNA, STAFF), 'f')
    check_equal(p.as_user(BERT, "os.utime('f')", at=at), 'EACCES', 'touch of another\'s')
    check_equal(p.as_user(BERT, "os.utime('f', (1, 1))", at=at), 'EPERM', 'its times')
    os.chmod(p.here('f'), 0o666)
    check_equal(p.as_user(BERT, "os.utime('f')", at=at), 'ok', 'touch of what one may write')
    check_equal(p.as_user(BERT, "os.utime('f', (1, 1))", at=at), 'EPERM', 'its times still')
    p.check(lambda path: stat.S_IMODE(os.stat(path).st_mode), 0o666, 'f')


if __name__ == '__main__':
    main(globals())
