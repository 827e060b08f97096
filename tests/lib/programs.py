"""Programs that people use, run on mounts: the frame of the tests in tests/cluster/programs.

What a program did through one mount is looked at through the others: `tree` says what is
there, `same` compares it, with a local directory too."""

import hashlib
import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Failure, check, short  # noqa: E402

SECONDS = 150  # a program that takes longer hangs
SHOWN = 12  # differences told of two trees

# Nothing of the user who runs the tests.
ENVIRONMENT = {
    'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'HOME': '/nonexistent', 'LC_ALL': 'C.UTF-8', 'TZ': 'UTC', 'TERM': 'dumb',
    'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_NOSYSTEM': '1',
    'GIT_AUTHOR_NAME': 'A', 'GIT_AUTHOR_EMAIL': 'a@example.org',
    'GIT_COMMITTER_NAME': 'C', 'GIT_COMMITTER_EMAIL': 'c@example.org',
}


def mounts(c):
    """The three mounts of a cluster: first of a follower, then the leader's, then the last."""
    leader = c.leader()
    return [c.path(i % 3) for i in (leader + 1, leader, leader + 2)]


def start(*arguments, cwd=None, **environment):
    return subprocess.Popen(list(map(str, arguments)), cwd=cwd, text=True, errors='replace',
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=dict(ENVIRONMENT, **environment))


def run(*arguments, cwd=None, code=0, input='', seconds=SECONDS, **environment):
    """Runs one program, checks its exit code (None: any), and returns what it printed."""
    process = start(*arguments, cwd=cwd, **environment)
    told = short(' '.join(map(str, arguments)))
    try:
        out, err = process.communicate(input, seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failure(f'{told} in {cwd} did not end within {seconds} s') from None
    if code is not None and process.returncode != code:
        raise Failure(f'{told} in {cwd} gave {process.returncode}, expected {code}\n'
                      f'  stdout: {short(out[-2000:], 2100)}\n'
                      f'  stderr: {short(err[-2000:], 2100)}')
    return out


def bash(script, cwd=None, **keywords):
    return run('bash', '-euo', 'pipefail', '-c', script, cwd=cwd, **keywords)


def digest(path):
    h = hashlib.blake2b(digest_size=16)
    with open(path, 'rb', buffering=0) as f:
        while piece := f.read(1 << 20):
            h.update(piece)
    return h.hexdigest()


def content(path, st):
    """What tells one file's value from another's."""
    if stat.S_ISREG(st.st_mode):
        return digest(path)
    if stat.S_ISLNK(st.st_mode):
        return os.readlink(path)
    return st.st_rdev if not stat.S_ISDIR(st.st_mode) else None


def attributes(path):
    return {name: os.getxattr(path, name, follow_symlinks=False).hex()
            for name in sorted(os.listxattr(path, follow_symlinks=False))}


def describe(path, name, first_names, identity, xattrs):
    st = os.lstat(path)
    directory = stat.S_ISDIR(st.st_mode)
    seen = {'mode': oct(st.st_mode), 'owner': (st.st_uid, st.st_gid),
            'size': None if directory else st.st_size, 'mtime': st.st_mtime_ns,
            'content': content(path, st), 'nlink': st.st_nlink,
            'links to': None if directory else first_names.setdefault(st.st_ino, name)}
    if identity:
        seen.update(inode=st.st_ino, ctime=st.st_ctime_ns, blocks=st.st_blocks)
    if xattrs:
        seen['xattrs'] = attributes(path)
    return seen


def tree(root, identity=False, xattrs=False):
    """What is in a directory: path in it -> its kind, mode, value, ... `identity`: what only two
    hosts of one cluster have in common as well."""
    first_names = {}
    found = {'.': describe(root, '.', first_names, identity, xattrs)}
    for directory, directories, files in os.walk(root):
        directories.sort()
        for name in sorted(directories + files):
            path = os.path.join(directory, name)
            name = os.path.relpath(path, root)
            found[name] = describe(path, name, first_names, identity, xattrs)
    return found


def differences(a, b):
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            yield f'{path}: only in the {"first" if path in a else "second"}'
            continue
        for field in a[path]:
            if a[path][field] != b[path][field]:
                yield f'{path}: {field} {short(a[path][field])} and {short(b[path][field])}'


def same(a, b, what):
    """Both are what tree() returned."""
    found = list(differences(a, b))
    check(not found, f'{what}: {len(found)} differences\n  ' + '\n  '.join(found[:SHOWN]))


def same_everywhere(roots, names, what, **keywords):
    """A directory is the same on all mounts, to inode numbers and change times. Returns it."""
    first = tree(os.path.join(roots[0], names), identity=True, **keywords)
    for root in roots[1:]:
        same(first, tree(os.path.join(root, names), identity=True, **keywords),
             f'{what}, on {roots[0]} and {root}')
    return first
