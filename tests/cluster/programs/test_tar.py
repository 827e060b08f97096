#!/usr/bin/python3
"""tar with ACLs and extended attributes into a mount and out of it; other archivers."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, limit, main  # noqa: E402
from programs import bash, mounts, run, same, same_everywhere, tree  # noqa: E402
from test_rsync import make_tree  # noqa: E402

ALL = ['--acls', '--xattrs', '--xattrs-include=*', '--sparse', '--numeric-owner',
       '--format=pax']


@limit(240)
def test_tar(t):
    roots = mounts(t.shared())
    make_tree(t, f'{t.tmp()}/source')
    os.unlink(f'{t.tmp()}/source/socket')  # tar has none
    os.utime(f'{t.tmp()}/source', ns=(0, 1 << 60))
    archive = f'{t.tmp()}/archive.tar'
    run('tar', *ALL, '-C', t.tmp(), '-cf', archive, 'source')
    run('tar', *ALL, '-xpf', archive, cwd=roots[0])
    expected = tree(f'{t.tmp()}/source', xattrs=True)
    same_everywhere(roots, 'source', 'unpacked', xattrs=True)
    same(expected, tree(f'{roots[1]}/source', xattrs=True), 'what was packed, and the mount')
    run('tar', *ALL, '--overwrite', '-xpf', archive, 'source/sparse', cwd=roots[2])
    # Compared by tar itself; packed on another host; unpacked on a third, over what is there.
    run('tar', *ALL, '-df', archive, cwd=roots[1])
    run('tar', *ALL, '-czf', 'again.tgz', 'source', cwd=roots[2])
    run('tar', *ALL, '-xpzf', 'again.tgz', cwd=roots[1])
    same(expected, tree(f'{roots[0]}/source', xattrs=True), 'unpacked once more')
    os.mkdir(f'{t.tmp()}/out')
    run('tar', *ALL, '-xpzf', f'{roots[0]}/again.tgz', '-C', f'{t.tmp()}/out')
    same(expected, tree(f'{t.tmp()}/out/source', xattrs=True), 'what came back')


@limit(120)
def test_append_and_stream(t):
    """An archive that grows by turns of three hosts; one that is piped from mount to mount."""
    roots = mounts(t.shared())
    os.mkdir(f'{roots[0]}/grow')
    for k in range(12):
        bash(f'head -c {k * 1500} /dev/zero | tr "\\0" {k % 10} > f{k};'
             f' tar -rf all.tar f{k} && rm f{k}', cwd=f'{roots[k % 3]}/grow')
    names = run('tar', '-tf', 'all.tar', cwd=f'{roots[1]}/grow').split()
    check_equal(names, [f'f{k}' for k in range(12)], 'names in the archive')
    bash(f'mkdir ../piped && tar -xf all.tar && tar -cf - f* | tar -C {roots[2]}/piped -xf -',
         cwd=f'{roots[0]}/grow')
    for k in range(12):
        check_equal(os.stat(f'{roots[1]}/piped/f{k}').st_size, k * 1500, f'size of f{k}')
    run('tar', '--delete', '-f', 'all.tar', 'f5', cwd=f'{roots[2]}/grow')
    names = run('tar', '-tf', 'all.tar', cwd=f'{roots[0]}/grow').split()
    check_equal(len(names), 11, 'names in the archive after one was taken out')


if __name__ == '__main__':
    main(globals())
