#!/usr/bin/python3
"""rsync and cp -a to a mount, on to another directory of it, and back: nothing gets lost."""

import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, limit, main  # noqa: E402
from programs import bash, mounts, run, same, same_everywhere, tree  # noqa: E402

FILES = 250
KEEP = '-aHAX'
NANOSECONDS = '--modify-window=-1'  # else it takes times of one second for the same


def make_tree(t, root):
    """Everything that rsync -aHAX carries."""
    r = t.random
    os.mkdir(root)
    os.chmod(root, 0o751)
    directories = [root]
    for k in range(25):
        path = f'{r.choice(directories)}/d{k}'
        os.mkdir(path)
        os.chmod(path, r.choice([0o755, 0o700, 0o1777, 0o2775]))
        directories.append(path)
    files = []
    for k in range(FILES):
        path = f'{r.choice(directories)}/f{k}' + r.choice(['', ' with space', 'ü\n', '*'])
        with open(path, 'wb') as f:
            f.write(r.randbytes(r.choice([0, 1, 100, 4096, 4097, 70000])))
        os.chown(path, r.choice([0, 1, 1000]), r.choice([0, 2, 1000]))
        os.chmod(path, r.choice([0o644, 0o600, 0o4755, 0o2755, 0o444, 0]))
        os.utime(path, ns=(0, r.randrange(1 << 60)))
        files.append(path)
    for k in range(30):
        os.link(r.choice(files), f'{r.choice(directories)}/l{k}', follow_symlinks=False)
        os.symlink(r.choice(['f1', '/nowhere', '../x' * 50]), f'{r.choice(directories)}/s{k}')
    os.lchown(f'{root}/s0' if os.path.islink(f'{root}/s0') else files[0], 7, 8)
    os.mkfifo(f'{root}/fifo', 0o620)
    os.mknod(f'{root}/null', 0o020666, os.makedev(1, 3))
    os.mknod(f'{root}/disk', 0o060640, os.makedev(259, 70000))
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f'{root}/socket')
    with open(f'{root}/sparse', 'wb') as f:
        f.seek(20 << 20)
        f.write(b'end')
    give_attributes(t, files + directories[1:])
    for path in directories:
        os.utime(path, ns=(0, r.randrange(1 << 60)))


def give_attributes(t, paths):
    """Extended attributes and ACLs, default ones too."""
    for path in t.random.sample(paths, 40):
        os.setxattr(path, 'user.note', t.random.randbytes(t.random.choice([0, 1, 40, 3000])))
        os.setxattr(path, 'trusted.note', b'for root')
        run('setfacl', '-m', 'u:1234:r-x,g:4321:rwx,m::r-x', path)
        if os.path.isdir(path):
            run('setfacl', '-d', '-m', 'u:1234:rwx,g::r-x,o::---', path)


def change(t, root):
    """Some of each kind of change."""
    r = t.random
    names = [os.path.join(d, f) for d, _, fs in os.walk(root) for f in sorted(fs)]
    files = [p for p in names if os.path.isfile(p) and not os.path.islink(p)]
    for path in r.sample(files, 60):
        kind = r.randrange(5)
        if kind == 0:
            os.unlink(path)
        elif kind == 1:
            os.rename(path, f'{path}-moved')
        elif kind == 2:
            with open(path, 'ab') as f:
                f.write(r.randbytes(100))
        elif kind == 3:
            os.chmod(path, 0o751)
        else:
            os.unlink(path)
            os.mkdir(path)
    bash('rm -rf "$(ls -d d*/ | head -n 1)"', cwd=root)


def rsync(source, target, *options):
    """Returns what it says it had to do."""
    return run('rsync', KEEP, NANOSECONDS, '--delete', '-i', *options, f'{source}/',
               f'{target}/')


@limit(240)
def test_there_and_back(t):
    roots = mounts(t.shared())
    source, back = f'{t.tmp()}/source', f'{t.tmp()}/back'
    make_tree(t, source)
    expected = tree(source, xattrs=True)
    rsync(source, f'{roots[0]}/copy')
    same_everywhere(roots, 'copy', 'the copy', xattrs=True)
    for root in roots:
        same(expected, tree(f'{root}/copy', xattrs=True), f'source and copy, on {root}')
        check_equal(rsync(source, f'{root}/copy', '-n'), '', f'what is left to do, on {root}')
    change(t, source)
    rsync(source, f'{roots[1]}/copy')
    expected = tree(source, xattrs=True)
    same(expected, tree(f'{roots[2]}/copy', xattrs=True), 'source and copy, changed')
    rsync(f'{roots[2]}/copy', f'{roots[2]}/second')
    rsync(f'{roots[0]}/second', back)
    same(expected, tree(back, xattrs=True), 'source, and what came back')
    check_equal(rsync(back, f'{roots[1]}/second', '-n', '--checksum'), '', 'what is left to do')
    os.mkdir(f'{t.tmp()}/empty')
    rsync(f'{t.tmp()}/empty', f'{roots[0]}/second')
    check_equal(os.listdir(f'{roots[1]}/second'), [], 'after --delete of all')


@limit(240)
def test_ways_to_write(t):
    """In place, as sparse files, appending, with files not put in their place before the end."""
    roots = mounts(t.shared())
    source = f'{t.tmp()}/source'
    os.mkdir(source)
    for name, size in (('small', 1000), ('large', 3 << 20), ('odd', 777777)):
        with open(f'{source}/{name}', 'wb') as f:
            f.write(t.random_bytes(size))
    with open(f'{source}/sparse', 'wb') as f:
        f.seek(5 << 20)
        f.write(b'x' * 5000)
        f.truncate(9 << 20)
    ways = [['--inplace', '--no-whole-file'], ['--sparse'], ['--append-verify'],
            ['--delay-updates'], ['--preallocate'], ['--fsync'], ['--partial', '--bwlimit=0']]
    for turn, way in enumerate(ways):
        for root in roots[turn % 3], roots[(turn + 1) % 3]:
            if way != ['--append-verify']:  # which leaves alone what has its length
                with open(f'{source}/large', 'r+b') as f:
                    f.seek(t.random.randrange(2 << 20))
                    f.write(t.random_bytes(10000))
            with open(f'{source}/small', 'ab') as f:
                f.write(b'one more line\n')
            run('rsync', '-a', NANOSECONDS, '--ignore-times', *way, f'{source}/', f'{root}/ways/')
            for other in roots:
                same(tree(source), tree(f'{other}/ways'), f'{way} through {root}, on {other}')


@limit(120)
def test_cp(t):
    """cp -a, which asks for holes and copies within the kernel where it can; cp -l, cp -s."""
    roots = mounts(t.shared())
    make_tree(t, f'{t.tmp()}/source')
    run('cp', '-a', f'{t.tmp()}/source', f'{roots[0]}/cp')
    run('cp', '-a', 'cp', 'cp2', cwd=roots[1])
    run('cp', '-a', f'{roots[2]}/cp2', f'{t.tmp()}/back')
    expected = tree(f'{t.tmp()}/source', xattrs=True)
    for path in (f'{roots[2]}/cp', f'{roots[0]}/cp2', f'{t.tmp()}/back'):
        same(expected, tree(path, xattrs=True), f'the source and {path}')
    run('cp', '-al', 'cp2', 'links', cwd=roots[0])
    bash('cd cp2 && find . -type f ! -exec test {} -ef ../links/{} \\; -print | (! grep .)',
         cwd=roots[1])
    run('rm', '-rf', 'cp', 'cp2', cwd=roots[2])
    links = tree(f'{roots[0]}/links')
    check_equal({name: seen['content'] for name, seen in links.items()},
                {name: seen['content'] for name, seen in expected.items()},
                'what the links still hold')


if __name__ == '__main__':
    main(globals())
