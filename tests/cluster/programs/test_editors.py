#!/usr/bin/python3
"""How vim, sed -i and the like save files, and who reads these on other hosts meanwhile."""

import os
import stat
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import Worker, check, check_equal, limit, main  # noqa: E402
from programs import bash, mounts, run  # noqa: E402

EDITS = 150


def read(path):
    with open(path) as f:
        return f.read()


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


def vim(path, *commands, options=''):
    """Without the user's configuration; `options` are those that say how it writes."""
    script = [f'set backupskip= {options}', *commands, 'wq']  # a test's mounts are in /tmp
    run('vim', '-Nes', '-u', 'NONE', '-i', 'NONE',
        *(word for command in script for word in ('-c', command)), os.path.basename(path),
        cwd=os.path.dirname(path))


WAYS = ['', 'backupcopy=yes writebackup', 'backupcopy=no writebackup',
        'backupcopy=auto writebackup', 'nowritebackup', 'backup', 'backup backupcopy=yes',
        'swapsync=fsync directory=.', 'nofsync', 'noswapfile backupcopy=no']


def test_vim(t):
    roots = mounts(t.shared())
    os.mkdir(f'{roots[0]}/vim')
    for k, way in enumerate(WAYS):
        name = f'vim/f{k}'
        write(f'{roots[0]}/{name}', 'one\n' + 'filler\n' * 1000 + 'two\n')
        os.chmod(f'{roots[0]}/{name}', 0o640)
        os.chown(f'{roots[0]}/{name}', 1234, 4321)
        os.link(f'{roots[0]}/{name}', f'{roots[0]}/vim/l{k}')
        expected = read(f'{roots[0]}/{name}')
        for turn in range(3):  # each host in its turn edits what another one saved
            vim(f'{roots[turn]}/{name}', f'%s/$/ {turn}/', '$d', f'normal! Golast {turn}',
                options=way)
            lines = [f'{line} {turn}' for line in expected.split('\n')]
            expected = '\n'.join(lines[:-2] + [f'last {turn}', ''])
            for root in roots:
                check_equal(read(f'{root}/{name}'), expected, f'{root}, {turn}, {way}')
                st = os.stat(f'{root}/{name}')
                check_equal((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid),
                            (0o640, 1234, 4321), f'mode and owner on {root}, {way}')
        if 'backupcopy=yes' in way:
            check_equal(os.stat(f'{roots[1]}/{name}').st_nlink, 2, f'names, with {way}')
    left = set(os.listdir(f'{roots[1]}/vim'))
    wanted = {f'{kind}{k}' for kind in 'fl' for k in range(len(WAYS))}
    wanted |= {f'f{k}~' for k, way in enumerate(WAYS) if way.split(' ')[0] == 'backup'}
    check_equal(sorted(left), sorted(wanted), 'names left')


def test_vim_new_file_and_undo(t):
    roots = mounts(t.shared())
    os.mkdir(f'{roots[0]}/undo')
    name = 'undo/new'
    vim(f'{roots[0]}/{name}', 'normal! ifirst', options='undofile undodir=.')
    vim(f'{roots[1]}/{name}', 'normal! osecond', options='undofile undodir=.')
    check_equal(read(f'{roots[2]}/{name}'), 'first\nsecond\n', 'after both')
    # The undo history that two other hosts wrote.
    vim(f'{roots[2]}/{name}', 'undo', options='undofile undodir=.')
    check_equal(read(f'{roots[0]}/{name}'), 'first\n', 'after undo')


def watch(path, whole, done):
    """Reads a file over and over; returns how many different values it was."""
    seen = set()
    while not done.is_set():
        text = read(path)
        check(whole(text), f'{path} was read as {text[:200]!r}, {len(text)} long')
        seen.add(text)
    return len(seen)


def test_sed_in_place(t):
    """By turns of three hosts, each on what the one before it left; two others read meanwhile."""
    roots = mounts(t.shared())
    os.mkdir(f'{roots[0]}/sed')
    filler = ''.join(f'setting{k} = 1\n' for k in range(1500))
    write(f'{roots[0]}/sed/conf', f'count = 0\n{filler}end = 0\n')

    def whole(text):
        first, rest = text.split('\n', 1)
        number = first.removeprefix('count = ')
        return number.isdigit() and rest == f'{filler}end = {number}\n'
    done = threading.Event()
    readers = [Worker(watch, f'{root}/sed/conf', whole, done) for root in roots[1:]]
    for k in range(1, EDITS + 1):
        run('sed', '-i', f's/^count = {k - 1}$/count = {k}/; s/^end = {k - 1}$/end = {k}/',
            'conf', cwd=f'{roots[k % 3]}/sed')
    done.set()
    values = [reader.result() for reader in readers]
    check(max(values) > EDITS // 10, f'of {EDITS} values the readers saw {values}')
    for root in roots:
        check_equal(read(f'{root}/sed/conf').split('\n', 1)[0], f'count = {EDITS}', root)
        check_equal(os.listdir(f'{root}/sed'), ['conf'], f'names on {root}')


def test_what_in_place_keeps(t):
    roots = mounts(t.shared())
    os.mkdir(f'{roots[0]}/keeps')
    write(f'{roots[0]}/keeps/a', 'old\n')
    os.chmod(f'{roots[0]}/keeps/a', 0o604)
    os.chown(f'{roots[0]}/keeps/a', 5, 6)
    os.link(f'{roots[0]}/keeps/a', f'{roots[0]}/keeps/b')
    os.symlink('a', f'{roots[0]}/keeps/c')
    run('sed', '-i.bak', '--follow-symlinks', 's/old/new/', 'c', cwd=f'{roots[1]}/keeps')
    for root in roots:
        texts = [read(f'{root}/keeps/{name}') for name in ('a', 'b', 'a.bak', 'c')]
        check_equal(texts, ['new\n', 'old\n', 'old\n', 'new\n'], f'values on {root}')
        check(os.path.samefile(f'{root}/keeps/a.bak', f'{root}/keeps/b'), 'the old file')
        st = os.stat(f'{root}/keeps/a')
        check_equal((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid), (0o604, 5, 6), root)


def test_other_tools_that_write_in_place(t):
    """sort -o onto its own input, perl -i, patch, dd conv=notrunc, truncate, split and cat."""
    roots = mounts(t.shared())
    os.mkdir(f'{roots[0]}/tools')
    places = [f'{root}/tools' for root in roots]
    bash('seq 20000 -1 1 > numbers && sort -n -o numbers numbers', cwd=places[0])
    check_equal(read(f'{places[1]}/numbers'), ''.join(f'{k}\n' for k in range(1, 20001)), 'sort')
    run('perl', '-i.orig', '-pe', 's/^(\\d+)$/$1 x/', 'numbers', cwd=places[1])
    bash('cp numbers other && sed -i "7000s/.*/changed/; 15000d" other &&'
         ' (diff -u numbers other > change || true) && patch -s numbers change', cwd=places[2])
    bash('cmp numbers other && test "$(sed -n 7000p numbers)" = changed', cwd=places[0])
    bash('dd if=numbers.orig of=numbers bs=1000 seek=3 count=5 conv=notrunc status=none',
         cwd=places[0])
    bash('split -b 30000 numbers part. && cat part.* | cmp - numbers && rm part.*',
         cwd=places[1])
    bash('truncate -s 10 numbers && test "$(wc -c < numbers)" = 10 && truncate -s 8k numbers',
         cwd=places[2])
    data = b'1 x\n2 x\n3 ' + bytes(8182)
    for place in places:
        with open(f'{place}/numbers', 'rb') as f:
            check_equal(f.read(), data, f'after truncate, in {place}')


@limit(120)
def test_replaced_while_read(t):
    """cp and mv over a file that a program on another host has open and goes on reading."""
    roots = mounts(t.shared())
    write(f'{roots[0]}/reader', 'a' * 300000)
    with open(f'{roots[1]}/reader') as f:
        check_equal(f.read(10), 'a' * 10, 'before')
        write(f'{roots[0]}/reader.new', 'b' * 400000)
        run('mv', 'reader.new', 'reader', cwd=roots[0])
        check_equal(f.read(), 'a' * 299990, 'the file that was open')
    check_equal(read(f'{roots[1]}/reader'), 'b' * 400000, 'opened anew')


if __name__ == '__main__':
    main(globals())
