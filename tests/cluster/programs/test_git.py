#!/usr/bin/python3
"""git on a mount, looked at from the others."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal, in_parallel, limit, main  # noqa: E402
from programs import bash, mounts, run, same_everywhere  # noqa: E402

FILES = 100
HISTORY = 60  # commits of the repository that is cloned
COMMITS = 200
PUSHES = 12  # of each of three hosts


def git(*arguments, cwd, **keywords):
    return run('git', *arguments, cwd=cwd, **keywords).strip()


def blob(r, k):
    """Text, more of it than fits an inode, and what is not text."""
    kind = k % 5
    if kind == 0:
        return r.randbytes(r.randrange(1, 20000))
    return ''.join(f'line {r.randrange(1 << 30)} of {k}\n'
                   for _ in range(r.randrange(1, 40 if kind < 4 else 2000))).encode()


def make_origin(t, path):
    """A bare repository with a history, made beside the cluster."""
    run('git', 'init', '-q', '--bare', '-b', 'main', path)
    stream = [b'reset refs/heads/main\n']

    def put(name, data):
        stream.append(b'M 100644 inline %s\ndata %d\n%s\n' % (name.encode(), len(data), data))
    for commit in range(HISTORY):
        stream.append(b'commit refs/heads/main\ncommitter C <c@example.org> %d +0000\n'
                      b'data 3\nc%02d\n' % (1700000000 + commit, commit % 100))
        for k in range(FILES) if commit == 0 else t.random.sample(range(FILES), 5):
            put(f'd{k % 7}/e{k % 3}/f{k}', blob(t.random, k))
        if commit == 0:
            stream.append(b'M 120000 inline d0/link\ndata 5\ne0/f0\n'
                          b'M 100755 inline run\ndata 10\n#!/bin/sh\n\n')
    stream.append(b'reset refs/tags/first\nfrom refs/heads/main\n')
    data = b''.join(stream)
    with open(f'{path}.stream', 'wb') as f:
        f.write(data)
    bash(f'git fast-import --quiet < {path}.stream', cwd=path)


def check_unchanged(path, what):
    """By what git noted of each file that it wrote: the same inode numbers and times on every host.
    `git status` would look into files, this may not."""
    check_equal(git('diff-files', '--name-only', cwd=path), '', f'{what}: files with other'
                ' attributes than git noted')


def check_clean(path, what):
    check_unchanged(path, what)
    check_equal(git('status', '--porcelain', cwd=path), '', f'{what}: status')


# A commit changes two files, makes one, and now and then moves or removes some.
COMMIT = r'''
for ((k = FIRST; k < FIRST + COUNT; k++)); do
    echo "changed in $k" >> "d1/e1/f1"
    echo "only $k" > "d2/new$k"
    printf '%s\n' "$k" "$k" > d3/e0/f3
    if ((k % 10 == 3)); then git mv "d2/new$((k - 2))" "d4/moved$k"; fi
    if ((k % 10 == 7)); then git rm -q "d2/new$((k - 3))"; fi
    git add -A .
    git commit -q -m "commit $k"
done
'''


@limit(300)
def test_clone_commit_collect(t):
    """Cloned on one host; 200 commits, by turns of all; packed by one, checked by the others."""
    roots = mounts(t.shared())
    origin = f'{t.tmp()}/origin'
    make_origin(t, origin)
    git('clone', '-q', f'file://{origin}', 'work', cwd=roots[0])
    for root in roots:
        check_unchanged(f'{root}/work', 'cloned')
    for root in roots:
        check_clean(f'{root}/work', root)
    share = COMMITS // 10
    for turn in range(10):
        bash(COMMIT, cwd=f'{roots[turn % 3]}/work', FIRST=str(turn * share), COUNT=str(share))
    for root in roots:
        check_clean(f'{root}/work', root)
        check_equal(int(git('rev-list', '--count', 'HEAD', cwd=f'{root}/work')),
                    HISTORY + COMMITS, f'commits seen on {root}')
    head = git('rev-parse', 'HEAD', cwd=f'{roots[0]}/work')
    archive = 'git archive HEAD | sha256sum'
    before = bash(archive, cwd=f'{roots[0]}/work')
    git('gc', '-q', '--prune=now', cwd=f'{roots[0]}/work')
    loose = bash('git count-objects', cwd=f'{roots[1]}/work')
    check_equal(loose.split()[0], '0', 'loose objects after gc')
    for root in roots:
        git('fsck', '--full', '--strict', cwd=f'{root}/work')
        check_equal(git('rev-parse', 'HEAD', cwd=f'{root}/work'), head, f'HEAD on {root}')
        check_equal(bash(archive, cwd=f'{root}/work'), before, f'the tree on {root}')
    git('push', '-q', 'origin', 'main', cwd=f'{roots[2]}/work')
    check_equal(git('rev-parse', 'main', cwd=origin), head, 'what was pushed out of the mount')
    same_everywhere(roots, 'work', 'the repository')


@limit(240)
def test_local_clone_and_worktree(t):
    """A clone within the mount makes hard links to the objects."""
    roots = mounts(t.shared())
    origin = f'{t.tmp()}/origin'
    make_origin(t, origin)
    git('clone', '-q', '--bare', f'file://{origin}', 'a.git', cwd=roots[0])
    git('clone', '-q', 'a.git', 'b', cwd=roots[1])
    pack = bash('ls b/.git/objects/pack/*.pack', cwd=roots[2]).strip()
    check_equal(os.stat(f'{roots[2]}/{pack}').st_nlink, 2, 'names of the pack')
    git('worktree', 'add', '-q', '-b', 'side', '../c', cwd=f'{roots[2]}/b')
    bash('echo more >> run && git commit -qam side', cwd=f'{roots[2]}/c')
    git('checkout', '-q', '-b', 'other', 'HEAD~5', cwd=f'{roots[0]}/b')
    bash('echo less >> d1/e1/f1 && git commit -qam other', cwd=f'{roots[0]}/b')
    git('rebase', '-q', 'side', cwd=f'{roots[1]}/b')
    git('stash', cwd=f'{roots[1]}/b')  # nothing to do, says so
    check_equal(git('log', '-2', '--format=%s', cwd=f'{roots[2]}/b').split(), ['other', 'side'],
                'the newest commits')
    run('rm', '-rf', 'a.git', cwd=roots[0])
    for root in roots:
        check_equal(os.stat(f'{root}/{pack}').st_nlink, 1, f'names of the pack on {root}')
        git('fsck', '--full', '--strict', cwd=f'{root}/b')
        check_clean(f'{root}/b', root)
        check_clean(f'{root}/c', root)


PUSH = r'''
git clone -q ../shared.git "own$WHO"
cd "own$WHO"
for ((k = 0; k < COUNT; k++)); do
    echo "$k" >> "of$WHO"
    git add -A .
    git commit -q -m "$WHO $k"
    tries=0
    until git push -q origin main 2>/dev/null; do
        # Another one was first, or has the branch's lock at this moment.
        if ((++tries > 200)); then echo "no push came through" >&2; exit 1; fi
        git pull -q --rebase origin main 2>/dev/null || git rebase --abort 2>/dev/null || true
    done
done
'''


@limit(300)
def test_pushes_from_three_hosts(t):
    """To one branch of one repository: its locks are names made with O_EXCL."""
    roots = mounts(t.shared())
    os.mkdir(f'{roots[0]}/pushes')
    bash('git init -q --bare -b main shared.git && git clone -q shared.git first 2>/dev/null &&'
         ' cd first && git commit -q --allow-empty -m first && git push -q origin main',
         cwd=f'{roots[0]}/pushes')
    for root in roots:
        os.mkdir(f'{roots[0]}/pushes/{os.path.basename(os.path.dirname(root))}')

    def push(root, who):
        place = f'{root}/pushes/{os.path.basename(os.path.dirname(root))}'
        bash(PUSH, cwd=place, WHO=str(who), COUNT=str(PUSHES))
    in_parallel(push, [(root, k) for k, root in enumerate(roots)], 280)
    for root in roots:
        path = f'{root}/pushes/shared.git'
        check_equal(int(git('rev-list', '--count', 'main', cwd=path)), 3 * PUSHES + 1,
                    f'commits on {root}')
        git('fsck', '--full', '--strict', cwd=path)
        for who in range(3):
            lines = git('show', f'main:of{who}', cwd=path).split()
            check_equal(lines, [str(k) for k in range(PUSHES)], f'what {who} pushed')
        check(not [name for name in os.listdir(path) if name.endswith('.lock')],
              'a lock is left')


if __name__ == '__main__':
    main(globals())
