#!/usr/bin/python3
"""Three mounts, one view: what is written through one is there on all."""

import errno
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (Failure, Worker, check, check_equal, in_parallel, limit,  # noqa: E402
                     main)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
FILE_LIMIT = 1 << 40


def write_file(path, data, pieces=None):
    """Writes and closes; `pieces`: in writes of these sizes, over and over."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view, at, turn = memoryview(data), 0, 0
        while at < len(data):
            size = pieces[turn % len(pieces)] if pieces else MIB
            at += os.write(fd, view[at:at + size])
            turn += 1
    finally:
        os.close(fd)


def digest(path):
    h = hashlib.blake2b(digest_size=16)
    with open(path, 'rb', buffering=0) as f:
        while piece := f.read(MIB):
            h.update(piece)
    return h.hexdigest()


def read_file(path):
    with open(path, 'rb', buffering=0) as f:
        return f.read()


def fails_with(expected, call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except OSError as e:
        check_equal(errno.errorcode.get(e.errno), errno.errorcode[expected],
                    f'{call.__name__}{arguments!r:.120}')
    else:
        raise Failure(f'{call.__name__}{arguments!r:.120} succeeded,'
                      f' expected {errno.errorcode[expected]}')


# ---- Content -------------------------------------------------------------------------


def random_size(r):
    """Sizes around every edge of the format, and some in between."""
    kind = r.random()
    if kind < 0.35:
        edge = r.choice([0, 1, 16, 17, 4096, 64 * KIB, 128 * KIB, MIB, 4 * MIB])
        return max(0, edge + r.randint(-2, 2))
    if kind < 0.7:
        return r.randrange(16 * KIB)
    return r.randrange(4 * MIB) if kind < 0.85 else r.randrange(512 * KIB)


def test_random_files(t):
    c = t.shared()
    sizes = [random_size(t.random) for _ in range(197)] + [0, 16 * MIB + 1, 64 * MIB]
    os.mkdir(c.path(0, 'random'))
    plan = []
    for k, size in enumerate(sizes):
        pieces = t.random.choice([None, [4096], [1, 4095, 100000], [64 * KIB], [777777]])
        if size > MIB:
            pieces = None
        plan.append((f'f{k}', t.random_bytes(size), pieces, t.random.randrange(3)))

    def write_share(share):
        for name, data, pieces, through in plan[share::3]:
            write_file(c.path(through, 'random', name), data, pieces)
    in_parallel(write_share, [(k,) for k in range(3)])

    def compare(i):
        check_equal(sorted(os.listdir(c.path(i, 'random'))), sorted(p[0] for p in plan),
                    f'names on mount {i}')
        for name, data, _, through in plan:
            path = c.path(i, 'random', name)
            check_equal(os.stat(path).st_size, len(data),
                        f'size of {name}, written through {through}, on mount {i}')
            check_equal(digest(path), hashlib.blake2b(data, digest_size=16).hexdigest(),
                        f'bytes of {name} ({len(data)}), written through {through}, on {i}')
    in_parallel(compare, [(i,) for i in range(3)])


@limit(1200)
def test_one_gibibyte(t):
    c = t.cluster()
    free = os.statvfs(c.base)
    if free.f_bavail * free.f_frsize < 8 * GIB:  # three logs, and what else runs
        t.skip(f'less than 8 GiB are free at {c.base}')
    h = hashlib.blake2b(digest_size=16)
    with open(c.path(0, 'large'), 'wb', buffering=0) as f:
        for _ in range(GIB // MIB):
            piece = t.random_bytes(MIB)
            h.update(piece)
            check_equal(f.write(piece), MIB, 'bytes written')
    for i in range(3):
        check_equal(os.stat(c.path(i, 'large')).st_size, GIB, f'size on mount {i}')
        check_equal(digest(c.path(i, 'large')), h.hexdigest(), f'bytes on mount {i}')


def test_writes_at_any_offset(t):
    """Random writes and truncations, by turns through three mounts, against a model."""
    c = t.shared()
    model = bytearray()
    os.close(os.open(c.path(0, 'patched'), os.O_WRONLY | os.O_CREAT, 0o644))
    for turn in range(150):
        i = t.random.randrange(3)
        path = c.path(i, 'patched')
        if t.random.random() < 0.2:
            size = t.random.randrange(400 * KIB)
            os.truncate(path, size)
            model[size:] = b''
            model.extend(bytes(size - len(model)))
        else:
            offset = t.random.randrange(300 * KIB)
            data = t.random_bytes(t.random.choice([1, 100, 4096, 5000, 70000]))
            fd = os.open(path, os.O_WRONLY)
            os.pwrite(fd, data, offset)
            os.close(fd)
            model.extend(bytes(max(0, offset + len(data) - len(model))))
            model[offset:offset + len(data)] = data
        j = t.random.randrange(3)
        if read_file(c.path(j, 'patched')) != bytes(model):
            raise Failure(f'turn {turn}: what {i} wrote differs from what {j} reads')


# ---- A tree --------------------------------------------------------------------------


def make_tree(root, r, files=3000):
    """A tree with what cp -a keeps: modes, owners, times, symlinks, empty and odd names."""
    directories = ['']
    os.mkdir(root)
    for k in range(120):
        path = os.path.join(r.choice(directories), f'd{k}')
        os.mkdir(os.path.join(root, path))
        directories.append(path)
    made = []
    for k in range(files):
        name = f'f{k}' if k % 50 else f'odd name \n\t{k} é *?'
        path = os.path.join(root, r.choice(directories), name)
        size = r.choice([0, 1, 15, 200, 4096, 4097]) if r.random() < 0.3 else r.randrange(8000)
        if k % 300 == 7:
            size = r.randrange(2 * MIB)
        with open(path, 'wb') as f:
            f.write(r.randbytes(size))
        os.chmod(path, r.choice([0o644, 0o600, 0o755, 0o444, 0o000, 0o4755, 0o2711]))
        made.append(path)
    for k in range(150):
        target = r.choice(['/nowhere', '..', 'f1', 'x' * 200, os.path.relpath(made[k], root)])
        os.symlink(target, os.path.join(root, r.choice(directories), f'l{k}'))
    for path in made[::7]:
        mode = os.lstat(path).st_mode
        os.chown(path, r.randrange(70000), r.randrange(70000))
        os.chmod(path, stat.S_IMODE(mode))  # chown drops set-id bits
    for path in made:
        at = r.randrange(10**9, 17 * 10**8) * 10**9 + r.randrange(10**9)
        os.utime(path, ns=(at, at))
    for path in reversed(directories):
        full = os.path.join(root, path)
        os.chmod(full, r.choice([0o755, 0o700, 0o1777, 0o2755]))
        os.utime(full, ns=(10**18 + r.randrange(10**17),) * 2)


def describe_tree(root):
    """{path: (mode, owner, group, mtime, size or target)} of all that is in a tree."""
    seen = {}
    for directory, names, files in os.walk(root):
        for name in ['.'] + names + files:
            path = os.path.join(directory, name)
            s = os.lstat(path)
            if stat.S_ISLNK(s.st_mode):
                what = os.readlink(path)
            else:
                what = s.st_size if stat.S_ISREG(s.st_mode) else None
            # A symlink's times are kept too, its mode is always the same.
            seen[os.path.relpath(path, root)] = (oct(s.st_mode), s.st_uid, s.st_gid,
                                                 s.st_mtime_ns, what)
    return seen


def test_copy_a_tree(t):
    c = t.shared()
    source = f'{t.tmp()}/tree'
    make_tree(source, t.random)
    subprocess.run(['cp', '-a', source, c.path(0, 'tree')], check=True)
    expected = describe_tree(source)
    check(len(expected) > 3200, f'the tree has only {len(expected)} names')
    for i in (1, 2):
        diff = subprocess.run(['diff', '-r', '--no-dereference', source, c.path(i, 'tree')],
                              capture_output=True, text=True)
        check_equal((diff.returncode, diff.stdout + diff.stderr), (0, ''), f'diff on mount {i}')
        actual = describe_tree(c.path(i, 'tree'))
        check_equal(sorted(actual), sorted(expected), f'names on mount {i}')
        for path, meta in expected.items():
            check_equal(actual[path], meta, f'{path!r} on mount {i}')
    subprocess.run(['rm', '-r', c.path(1, 'tree')], check=True)
    check('tree' not in os.listdir(c.path(2)), 'a removed tree is still listed elsewhere')


# ---- Many writers --------------------------------------------------------------------


def test_writers_of_one_directory(t):
    c = t.shared()
    os.mkdir(c.path(0, 'together'))
    values = {(w, k): t.random_bytes(t.random.randrange(9000))
              for w in range(6) for k in range(60)}

    def write_all(w):
        for k in range(60):
            write_file(c.path(w % 3, 'together', f'{w}-{k}'), values[w, k])
    in_parallel(write_all, [(w,) for w in range(6)])
    for i in range(3):
        check_equal(sorted(os.listdir(c.path(i, 'together'))),
                    sorted(f'{w}-{k}' for w, k in values), f'names on mount {i}')
        for (w, k), data in values.items():
            check(read_file(c.path(i, 'together', f'{w}-{k}')) == data,
                  f'{w}-{k} differs on mount {i}')


def test_many_large_writers_on_a_follower(t):
    """More than a connection may queue at once: it is slowed down, not cut."""
    c = t.cluster()
    through = (c.leader() + 1) % 3
    block = t.random_bytes(1 << 20)

    def write(k):
        with open(c.path(through, f'large-{k}'), 'wb') as f:
            for piece in range(3):
                f.write(block[k + piece:] + block[:k + piece])
    in_parallel(write, [(k,) for k in range(64)])
    for k in range(64):
        with open(c.path((through + 1) % 3, f'large-{k}'), 'rb') as f:
            check(f.read() == b''.join(block[k + p:] + block[:k + p] for p in range(3)),
                  f'large-{k} differs')
    with open(f'{c.nodes[through].data}/node.log') as log:
        check('lost node' not in log.read(), 'a connection was lost')


def test_appends_are_all_there(t):
    """Lines appended through all mounts: none lost, torn or twice, each writer's in order."""
    c = t.shared()
    lengths = [1, 10, 80, 200, 5000]
    fills = {(w, k): 'x' * t.random.choice(lengths) for w in range(6) for k in range(150)}

    def append(w):
        path = c.path(w % 3, 'appended')
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        held = os.open(path, flags, 0o644) if w >= 3 else None  # one handle, or one a line
        for k in range(150):
            fd = os.open(path, flags, 0o644) if held is None else held
            line = f'{w} {k} {fills[w, k]}\n'.encode()
            check_equal(os.write(fd, line), len(line), 'bytes appended')
            if held is None:
                os.close(fd)
        if held is not None:
            os.close(held)
    in_parallel(append, [(w,) for w in range(6)])
    expected = sorted(f'{w} {k} {fill}' for (w, k), fill in fills.items())
    for i in range(3):
        text = read_file(c.path(i, 'appended')).decode()
        check(text.endswith('\n'), f'the last line is torn on mount {i}')
        lines = text[:-1].split('\n')
        check_equal(sorted(lines), expected, f'lines on mount {i}')
        for w in range(6):
            order = [int(line.split(' ', 2)[1]) for line in lines if line.startswith(f'{w} ')]
            check_equal(order, list(range(150)), f'order of writer {w} on mount {i}')


def test_counter_under_a_mkdir_lock(t):
    """mkdir as a lock: who gets it sees what the last holder wrote, on every host."""
    c = t.shared()
    write_file(c.path(0, 'counter'), b'0')

    def count(i):
        for _ in range(40):
            while True:
                try:
                    os.mkdir(c.path(i, 'counter.lock'))
                    break
                except FileExistsError:
                    time.sleep(0.001)
            value = int(read_file(c.path(i, 'counter')))
            write_file(c.path(i, 'counter'), str(value + 1).encode())
            os.rmdir(c.path(i, 'counter.lock'))
    in_parallel(count, [(i,) for i in range(3)])
    for i in range(3):
        check_equal(int(read_file(c.path(i, 'counter'))), 120, f'the counter on mount {i}')


def test_exclusive_create_has_one_winner(t):
    c = t.shared()
    os.mkdir(c.path(0, 'won'))

    def compete(i):
        won = set()
        for k in range(80):
            try:
                os.close(os.open(c.path(i, 'won', str(k)),
                                 os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
                won.add(k)
            except FileExistsError:
                pass
        return won
    winners = in_parallel(compete, [(i,) for i in range(3)])
    check_equal(sorted(k for won in winners for k in won), list(range(80)),
                'each name was made once')


# ---- echo here, cat there ------------------------------------------------------------


def watch_key(path, seen):
    """Reads until the value is the last one; no value is ever empty, or older than one before."""
    newest = -1
    while newest != seen['last'] and not seen['stop']:
        try:
            data = read_file(path)
        except FileNotFoundError:
            check(newest == -1, 'the key has gone')
            continue
        check(data != b'', f'an empty value was seen after {newest}')
        check(data.endswith(b'\n'), f'a part of a value was seen: {data!r}')
        value = int(data)
        check(value >= newest, f'{value} was seen after {newest}')
        newest = value
        seen['reads'] += 1
    return newest


def shell_loop(shell, count, command, first=1):
    return [shell, '-c', f'i={first}; while [ $i -lt {first + count} ]; do {command};'
                         ' i=$((i + 1)); done']


def test_echo_is_never_seen_empty(t):
    """K10: replacing one key, from the shells, while the other mounts read it."""
    c = t.shared()
    ways = {'bash': ('bash', 'echo $i > "$F"'), 'dash': ('dash', 'echo $i > "$F"'),
            'tee': ('dash', 'echo $i | tee "$F" > /dev/null'),
            'dd': ('dash', 'echo $i | dd of="$F" status=none'),
            'cp': ('dash', 'echo $i > "$S"; cp "$S" "$F"'),
            'subshell': ('bash', '(echo $i) > "$F"'),
            'python': (None, None)}
    source = f'{t.tmp()}/source'

    def write_values(first, count):
        if shell:
            subprocess.run(shell_loop(shell, count, command, first), check=True,
                           env=dict(os.environ, F=path, S=source))
            return
        for k in range(first, first + count):
            with open(path, 'w') as f:
                f.write(f'{k}\n')
    for way, (shell, command) in ways.items():
        path = c.path(0, f'echo-{way}')
        with open(path, 'w') as f:  # cp makes a new file with O_EXCL, which shows at once
            f.write('0\n')
        seen = {'stop': False, 'reads': 0, 'last': None}
        watchers = [Worker(watch_key, c.path(i, f'echo-{way}'), seen) for i in (1, 2)]
        try:
            first = 1
            while first == 1 or (seen['reads'] <= 20 and not any(w.error for w in watchers)):
                write_values(first, 200)  # until enough reads have fallen among them
                first += 200
            seen['last'] = first
            write_values(first, 1)
            newest = [w.result() for w in watchers]
        finally:
            seen['stop'] = True
        check_equal(newest, [first, first], f'the last value seen ({way})')


def test_new_keys_are_never_seen_empty(t):
    c = t.shared()
    os.mkdir(c.path(0, 'fresh'))
    stop = threading.Event()

    def follow(i, shell):
        for k in range(1, 151):
            path = c.path(i, 'fresh', f'{shell}-{k}')
            while not stop.is_set():
                try:
                    data = read_file(path)
                    break
                except FileNotFoundError:
                    continue
            else:
                raise Failure(f'{path} was never seen')
            check_equal(data, f'{k}\n'.encode(), f'the first sight of {path}')
    for shell in ('bash', 'dash'):
        followers = [Worker(follow, i, shell) for i in (1, 2)]
        try:
            subprocess.run(shell_loop(shell, 150, f'echo $i > "$D"/{shell}-$i'), check=True,
                           env=dict(os.environ, D=c.path(0, 'fresh')))
            for follower in followers:
                follower.result()
        finally:
            stop.set()
        stop.clear()


def test_replacing_echo_is_one_entry(t):
    """K10: echo over an existing key costs a single entry of the log."""
    c = t.cluster()
    for i in (c.leader(), (c.leader() + 1) % 3):
        path = c.path(i, f'single-{i}')
        write_file(path, b'before\n')
        for shell in ('bash', 'dash'):
            before = c.quiet_commit(i)
            subprocess.run(shell_loop(shell, 200, 'echo $i > "$F"'), check=True,
                           env=dict(os.environ, F=path))
            after = c.quiet_commit(i)
            check_equal(after - before, 200,
                        f'entries of 200 replacing echos from {shell} on mount {i}')
            check_equal(read_file(c.path((i + 1) % 3, f'single-{i}')), b'200\n', 'the value')


def test_replace_is_whole(t):
    """A value of many extents is published in one step: who opens it meets old or new."""
    c = t.shared()
    size = 3 * MIB + 5
    write_file(c.path(0, 'whole'), bytes([0]) * size)
    stop, reads = threading.Event(), {1: 0, 2: 0}

    def read_on(i):
        while not stop.is_set():
            with open(c.path(i, 'whole'), 'rb', buffering=0) as f:
                first = f.read(1)
                check(len(first) == 1, 'an empty value was opened')
                check_equal(os.fstat(f.fileno()).st_size, size, 'the size of an open value')
            reads[i] += 1
    readers = [Worker(read_on, i) for i in (1, 2)]
    try:
        k = 0
        while k < 15 or (min(reads.values()) <= 5 and not any(r.error for r in readers)):
            k += 1  # until enough reads have fallen among the writes
            value = bytes([k % 256]) * size
            write_file(c.path(0, 'whole'), value)
            for i in range(3):
                data = read_file(c.path(i, 'whole'))
                check(data == value, f'value {k} read on mount {i} is not whole')
    finally:
        stop.set()
    for r in readers:
        r.result()


# ---- Names ---------------------------------------------------------------------------


def test_rename_over_is_atomic(t):
    c = t.shared()
    target = 'renamed'

    def value(k):
        return f'{k} '.encode() * 300
    write_file(c.path(0, target), value(0))
    stop, reads = threading.Event(), {1: 0, 2: 0}

    def read_on(i):
        newest = 0
        while not stop.is_set():
            data = read_file(c.path(i, target))  # FileNotFoundError would fail the test
            k = int(data.split(b' ', 1)[0])
            check(data == value(k), f'a mixed value was read: {data[:40]!r}')
            check(k >= newest, f'value {k} was read after {newest}')
            newest, reads[i] = k, reads[i] + 1
    readers = [Worker(read_on, i) for i in (1, 2)]
    try:
        k = 0
        while k < 300 or (min(reads.values()) <= 20 and not any(r.error for r in readers)):
            k += 1  # until enough reads have fallen among the renames
            write_file(c.path(0, f'{target}.new'), value(k))
            os.rename(c.path(0, f'{target}.new'), c.path(0, target))
    finally:
        stop.set()
    for r in readers:
        r.result()
    for i in range(3):
        check(read_file(c.path(i, target)) == value(k), f'the last value on mount {i}')


def test_removed_while_open(t):
    """What this host removes goes on in memory; a small file that another one does is read."""
    c = t.shared()
    data = t.random_bytes(200 * KIB)
    fd, path = tempfile.mkstemp(dir=c.path(0))
    try:
        os.unlink(path)
        check_equal(os.write(fd, data), len(data), 'bytes written')
        check(os.pread(fd, len(data) + 1, 0) == data, 'the bytes of a removed file')
        os.ftruncate(fd, 100)
        check_equal((os.fstat(fd).st_size, os.fstat(fd).st_nlink), (100, 0), 'size, nlink')
        check_equal(os.pread(fd, 1000, 0), data[:100], 'the bytes left')
    finally:
        os.close(fd)
    for i in range(3):
        check(not os.path.exists(c.path(i, os.path.basename(path))), f'removed on mount {i}')
    write_file(c.path(0, 'small'), b'small value')
    with open(c.path(1, 'small'), 'rb', buffering=0) as f:
        os.unlink(c.path(2, 'small'))
        # Mount 1 has applied it once the name is gone there.
        while os.path.exists(c.path(1, 'small')):
            pass
        check_equal(os.fstat(f.fileno()).st_nlink, 0, 'nlink of a removed file')
        check_equal(f.read(), b'small value', 'the value of a removed file')


def test_rename_of_directories(t):
    c = t.shared()
    os.makedirs(c.path(0, 'from', 'deep', 'deeper'))
    for k in range(50):
        write_file(c.path(0, 'from', 'deep', f'f{k}'), f'{k}'.encode())
    os.mkdir(c.path(1, 'full'))
    write_file(c.path(1, 'full', 'x'), b'x')
    os.mkdir(c.path(1, 'empty'))
    fails_with(errno.ENOTEMPTY, os.rename, c.path(2, 'from'), c.path(2, 'full'))
    fails_with(errno.EINVAL, os.rename, c.path(2, 'from'), c.path(2, 'from', 'deep', 'in'))
    fails_with(errno.ENOTDIR, os.rename, c.path(2, 'from'), c.path(2, 'full', 'x'))
    fails_with(errno.EISDIR, os.rename, c.path(2, 'full', 'x'), c.path(2, 'empty'))
    fails_with(errno.ENOENT, os.rename, c.path(2, 'none'), c.path(2, 'other'))
    os.rename(c.path(2, 'from'), c.path(2, 'empty'))
    os.rename(c.path(0, 'empty', 'deep'), c.path(0, 'moved'))
    for i in range(3):
        check(not os.path.exists(c.path(i, 'from')), f'the old name is there on mount {i}')
        check_equal(os.listdir(c.path(i, 'empty')), [], f'what is left on mount {i}')
        check_equal(sorted(os.listdir(c.path(i, 'moved'))),
                    sorted([f'f{k}' for k in range(50)] + ['deeper']), f'moved on mount {i}')
        check_equal(read_file(c.path(i, 'moved', 'f7')), b'7', f'a moved file on mount {i}')
        check_equal(os.stat(c.path(i)).st_ino,
                    os.stat(c.path(i, 'moved', '..')).st_ino, f'.. on mount {i}')


def test_large_directory(t):
    c = t.shared()
    os.mkdir(c.path(0, 'large'))
    count = 20000

    def make(share):
        for k in range(share, count, 16):
            os.close(os.open(c.path(0, 'large', f'name-{k:05}'),
                             os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    in_parallel(make, [(share,) for share in range(16)])
    expected = [f'name-{k:05}' for k in range(count)]
    for i in range(3):
        check_equal(sorted(os.listdir(c.path(i, 'large'))), expected, f'names on mount {i}')
    for k in range(0, count, 2000):
        os.unlink(c.path(1, 'large', f'name-{k:05}'))
    for i in range(3):
        check_equal(len(os.listdir(c.path(i, 'large'))), count - 10, f'names left on mount {i}')


def test_names_of_any_bytes(t):
    c = t.shared()
    os.mkdir(c.path(0, 'bytes'))
    names = [bytes([b]) for b in range(1, 256) if b not in b'/.']
    names += [b'...', b'.hidden', b'  ', b'-rf', b'a\nb', b'\xff\xfe', 'naïve'.encode(),
              b'x' * 255, bytes(b for b in range(1, 256) if b != ord('/')), b'%s%n', b'a' * 254]
    for k, name in enumerate(names):
        write_file(c.path(k % 3, b'bytes', name), name)
    for i in range(3):
        check_equal(sorted(os.listdir(os.fsencode(c.path(i, 'bytes')))), sorted(names),
                    f'names on mount {i}')
        for name in names:
            check_equal(read_file(c.path(i, b'bytes', name)), name, f'value on mount {i}')
    long = b'y' * 256
    path = c.path(0, b'bytes', long)
    fails_with(errno.ENAMETOOLONG, os.mkdir, path)
    fails_with(errno.ENAMETOOLONG, os.stat, path)
    fails_with(errno.ENAMETOOLONG, os.open, path, os.O_WRONLY | os.O_CREAT)
    fails_with(errno.ENAMETOOLONG, os.rename, c.path(0, b'bytes', names[0]), path)
    fails_with(errno.ENAMETOOLONG, os.symlink, b'x', path)
    fails_with(errno.ENAMETOOLONG, os.unlink, path)
    check_equal(os.statvfs(c.path(1)).f_namemax, 255, 'f_namemax')


# ---- Limits and attributes -----------------------------------------------------------


def test_file_size_limit(t):
    c = t.shared()
    path = c.path(0, 'limit')
    write_file(path, b'begin')
    fails_with(errno.EFBIG, os.truncate, path, FILE_LIMIT + 1)
    fd = os.open(path, os.O_RDWR)
    try:
        fails_with(errno.EFBIG, os.pwrite, fd, b'x', FILE_LIMIT)
        fails_with(errno.EFBIG, os.ftruncate, fd, 1 << 50)
        check_equal(os.fstat(fd).st_size, 5, 'size after what was refused')
        check_equal(os.pwrite(fd, b'end', FILE_LIMIT - 3), 3, 'the last bytes that fit')
    finally:
        os.close(fd)
    for i in range(3):
        check_equal(os.stat(c.path(i, 'limit')).st_size, FILE_LIMIT, f'size on mount {i}')
        with open(c.path(i, 'limit'), 'rb', buffering=0) as f:
            check_equal(f.read(8), b'begin\0\0\0', f'the first bytes on mount {i}')
            check_equal(os.pread(f.fileno(), 10, FILE_LIMIT - 6), b'\0\0\0end',
                        f'the last bytes on mount {i}')
    os.truncate(c.path(1, 'limit'), 3)
    check_equal(read_file(c.path(2, 'limit')), b'beg', 'after truncation elsewhere')


def test_attributes_are_seen(t):
    c = t.shared()
    write_file(c.path(0, 'attributes'), b'value')
    os.mkdir(c.path(0, 'directory'))

    def everywhere(what, expected, look, name='attributes'):
        for i in range(3):
            check_equal(look(os.lstat(c.path(i, name))), expected, f'{what} on mount {i}')
    os.chmod(c.path(1, 'attributes'), 0o4751)
    everywhere('mode', 0o4751, lambda s: stat.S_IMODE(s.st_mode))
    os.chown(c.path(2, 'attributes'), 12345, 54321)
    everywhere('owner', (12345, 54321), lambda s: (s.st_uid, s.st_gid))
    os.utime(c.path(0, 'attributes'), ns=(123456789012345678, 987654321098765432))
    everywhere('times', (123456789012345678, 987654321098765432),
               lambda s: (s.st_atime_ns, s.st_mtime_ns))
    inode = os.stat(c.path(0, 'attributes')).st_ino
    everywhere('inode', inode, lambda s: s.st_ino)
    os.symlink('target/of/link', c.path(1, 'link'))
    everywhere('a symlink', True, lambda s: stat.S_ISLNK(s.st_mode), 'link')
    for i in range(3):
        check_equal(os.readlink(c.path(i, 'link')), 'target/of/link', f'target on mount {i}')
    long_target = 'z' * 4095
    os.symlink(long_target, c.path(2, 'long-link'))
    check_equal(os.readlink(c.path(0, 'long-link')), long_target, 'a long target')

    os.truncate(c.path(2, 'attributes'), 2)
    everywhere('size', 2, lambda s: s.st_size)
    with open(c.path(1, 'attributes'), 'ab') as f:
        f.write(b'+more')
    for i in range(3):
        check_equal(read_file(c.path(i, 'attributes')), b'va+more', f'value on mount {i}')
    os.truncate(c.path(0, 'attributes'), 100000)
    for i in range(3):
        check_equal(read_file(c.path(i, 'attributes')), b'va+more' + bytes(99993),
                    f'an extended value on mount {i}')
    before = time.time() - 60
    write_file(c.path(0, 'attributes'), b'now')
    everywhere('mtime is now', True, lambda s: before < s.st_mtime < time.time() + 60)
    os.chmod(c.path(2, 'directory'), 0o1700)
    everywhere('mode', 0o1700, lambda s: stat.S_IMODE(s.st_mode), 'directory')
    os.unlink(c.path(1, 'attributes'))
    for i in range(3):
        fails_with(errno.ENOENT, os.stat, c.path(i, 'attributes'))


def test_errors_name_what_is_wrong(t):
    """Each call is made on another mount than the one that made what it meets."""
    c = t.shared()
    os.mkdir(c.path(0, 'e'))
    os.mkdir(c.path(0, 'e', 'dir'))
    write_file(c.path(0, 'e', 'dir', 'in'), b'')
    write_file(c.path(0, 'e', 'file'), b'')

    def at(*names):
        return c.path(1, 'e', *names)
    fails_with(errno.ENOTEMPTY, os.rmdir, at('dir'))
    fails_with(errno.ENOTDIR, os.rmdir, at('file'))
    fails_with(errno.EISDIR, os.unlink, at('dir'))
    fails_with(errno.EEXIST, os.mkdir, at('file'))
    fails_with(errno.EEXIST, os.mkdir, at('dir'))
    fails_with(errno.EEXIST, os.symlink, 'x', at('file'))
    fails_with(errno.EEXIST, os.open, at('file'), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    fails_with(errno.ENOENT, os.open, at('none'), os.O_RDONLY)
    fails_with(errno.ENOENT, os.unlink, at('none'))
    fails_with(errno.ENOENT, os.mkdir, at('none', 'x'))
    fails_with(errno.ENOTDIR, os.mkdir, at('file', 'x'))
    fails_with(errno.EISDIR, os.open, at('dir'), os.O_WRONLY)
    fails_with(errno.ENOTDIR, os.listdir, at('file'))
    os.unlink(c.path(2, 'e', 'dir', 'in'))
    os.rmdir(at('dir'))
    fails_with(errno.ENOENT, os.listdir, c.path(2, 'e', 'dir'))


def test_statfs_is_of_the_disk(t):
    c = t.shared()
    for i in range(3):
        s = os.statvfs(c.path(i))
        check(s.f_blocks > 0 and s.f_bavail > 0, f'no space on mount {i}: {s}')
        check(s.f_bavail <= s.f_bfree <= s.f_blocks, f'space that cannot be on mount {i}: {s}')
    df = subprocess.run(['df', c.path(0)], capture_output=True, text=True)
    check_equal(df.returncode, 0, f'df: {df.stderr}')


def test_permissions_are_checked(t):
    """As another user: the modes of one mount hold on another."""
    c = t.shared()
    write_file(c.path(0, 'private'), b'secret')
    os.chmod(c.path(0, 'private'), 0o600)
    os.chmod(c.path(0), 0o755)
    as_nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
    allowed = subprocess.run([*as_nobody, 'ls', c.path(1)], capture_output=True)
    if allowed.returncode:
        # Without allow_other no other user may enter at all, which is as private.
        check(b'ermission denied' in allowed.stderr, f'ls as nobody: {allowed.stderr!r}')
    read = subprocess.run([*as_nobody, 'cat', c.path(1, 'private')], capture_output=True)
    check(read.returncode != 0 and read.stdout == b'', 'nobody could read a file of mode 0600')


def test_tools_work(t):
    """What people do in a directory: an editor's save, sed -i, tar, sort -o, mv, touch."""
    c = t.shared()
    os.mkdir(c.path(0, 'tools'))
    script = '''set -e
        cd "$1"
        printf 'b\\na\\nc\\n' > list
        sort -o list list
        sed -i s/b/B/ list
        touch new list
        mkdir sub; mv new sub/old
        tar cf archive.tar list sub
        mkdir out; tar xf archive.tar -C out
        cp list copy~; mv copy~ copy
        ln -s list link
        truncate -s 3 copy'''
    subprocess.run(['bash', '-c', script, 'tools', c.path(0, 'tools')], check=True)
    for i in (1, 2):
        check_equal(read_file(c.path(i, 'tools', 'out', 'list')), b'a\nB\nc\n', 'the list')
        check_equal(read_file(c.path(i, 'tools', 'link')), b'a\nB\nc\n', 'through the link')
        check_equal(read_file(c.path(i, 'tools', 'copy')), b'a\nB', 'the truncated copy')
        check_equal(os.listdir(c.path(i, 'tools', 'sub')), ['old'], 'the moved file')


if __name__ == "__main__":
    main(globals())
