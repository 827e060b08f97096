#!/usr/bin/python3
"""Replacing what is in a file: whoever opens it on another host between an O_TRUNC open and its
close (or fsync) gets the old content, whatever the size, and after it the new (K10, K11). On the
writer's own host it grows, as on any file system."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import Worker, check, check_equal, in_parallel, wait_for  # noqa: E402
from posix_rules import main, read  # noqa: E402

BLOCK = 64
SIZES = (BLOCK, 100 * BLOCK, 60_000 * BLOCK)  # inline; extents; more than is buffered at once
TURNS = {SIZES[0]: 40, SIZES[1]: 25, SIZES[2]: 5}
ENOUGH = 3  # whole reads among the writes, or the test tells nothing


def value(k, size):
    """Each block of it says of which value it is."""
    return (b'%08d' % k * (BLOCK // 8 - 1) + b'0000000\n') * (size // BLOCK)


def numbers_in(data, size):
    """Of which values its blocks are; anything else is no value that was written."""
    check_equal(len(data), size, 'the size of what was read')
    blocks = {data[i:i + BLOCK] for i in range(0, size, BLOCK)}
    for block in blocks:
        check(block[:8].isdigit() and block == value(int(block[:8]), BLOCK),
              f'{block!r} was read')
    return sorted(int(block[:8]) for block in blocks)


class Watcher:
    """Opens and reads the file on another host, again and again, until it is `last`. A value that
    is replaced while it is read may be read in two parts, and none is older than one that was
    whole before."""

    def __init__(self, path, size, last):
        self.path, self.size, self.last = path, size, last
        self.stop, self.whole, self.mixed, self.different = False, 0, 0, set()
        self.worker = Worker(self.run)

    def run(self):
        newest = 0
        while newest != self.last and not self.stop:
            with open(self.path, 'rb', buffering=0) as f:
                first = f.read(BLOCK)
                rest = b''
                while piece := f.read(1 << 20):
                    rest += piece
            seen = numbers_in(first + rest, self.size)
            check(seen[0] >= newest, f'{seen} was read after {newest}')
            newest = seen[0]
            self.whole += len(seen) == 1
            self.mixed += len(seen) > 1
            self.different.add(newest)
        return newest


def watched(p, name, size, turns, write):
    """Calls write(k) for 1, 2, ... while the other hosts read; each is seen by all when it
    returns."""
    p.write(name, value(0, size))
    watchers = [Watcher(p.cluster.path(i, p.name, name), size, turns) for i in p.others]
    try:
        for k in range(1, turns + 1):
            write(k)
            p.check(lambda path: numbers_in(read(path), size), [k], name)
        for w in watchers:
            check_equal(w.worker.result(60), turns, 'the last value')
    finally:
        for w in watchers:
            w.stop = True
    for w in watchers:
        check(w.whole >= ENOUGH, f'{w.whole} whole values were read among {turns}')
        print(f'# {name}: {w.whole} reads of one value, {w.mixed} of two,'
              f' {len(w.different)} of {turns} values')


def by_command(p, name, size, shell, command):
    source = f'{p.cluster.base}/{name}'

    def write(k):
        with open(source, 'wb') as f:
            f.write(value(k, size))
        subprocess.run([shell, '-e', '-c', command], check=True, timeout=60,
                       env=dict(os.environ, F=p.here(name), S=source))
    watched(p, name, size, TURNS[size], write)


SHELLS = {
    'redirect': 'cat "$S" > "$F"',
    'group': '{ cat "$S"; } > "$F"',
    'sub-shell': '(cat "$S") > "$F"',
    'nested': '( ( cat "$S" ) ; true ) > "$F"',
    'descriptor': 'exec 3> "$F"; cat "$S" >&3; exec 3>&-',
    'function': 'f() { cat "$S"; }; f > "$F"',
    'pipe': 'cat "$S" | cat > "$F"',
    'loop': 'while IFS= read -r l; do printf "%s\\n" "$l"; done < "$S" > "$F"',
    'noclobber': 'set -C; cat "$S" >| "$F"',
    'background': 'cat "$S" > "$F" & wait $!',
}

PROGRAMS = {
    'cp': 'cp "$S" "$F"',
    'cp-p': 'cp -p "$S" "$F"',
    'tee': 'tee "$F" < "$S" > /dev/null',
    'tee-twice': 'cat "$S" | tee "$F" > "$F.copy"',
    'dd': 'dd if="$S" of="$F" status=none',
    'dd-4k': 'dd if="$S" of="$F" bs=4k status=none',
    'dd-1M': 'dd if="$S" of="$F" bs=1M conv=fsync status=none',
    'sed-w': 'sed -n "w $F" "$S"',
    'awk': 'awk \'{ print > ENVIRON["F"] }\' "$S"',
}


def rule_shells(p):
    for way, command in SHELLS.items():
        for shell in ('bash', 'dash'):
            by_command(p, f'{shell}-{way}', SIZES[1], shell, command)


def rule_shells_own_words(p):
    """What the shell writes itself, in one go and in several."""
    for shell in ('bash', 'dash'):
        for way, command in (('echo', 'V=$(cat "$S"); echo "$V" > "$F"'),
                             ('printf', 'V=$(cat "$S"); printf "%s\\n" "$V" > "$F"'),
                             ('here', 'V=$(cat "$S"); cat > "$F" <<END\n$V\nEND')):
            by_command(p, f'{shell}-{way}', SIZES[0], shell, command)


def rule_programs(p):
    for way, command in PROGRAMS.items():
        by_command(p, way, SIZES[1], 'dash', command)


def rule_any_size(p):
    for size in (SIZES[0], SIZES[2]):
        for way in ('cp', 'dd-4k' if size < SIZES[2] else 'dd-1M', 'tee'):
            by_command(p, f'{way}-{size}', size, 'dash', PROGRAMS[way])
        by_command(p, f'redirect-{size}', size, 'bash', SHELLS['redirect'])


def rule_python(p):
    for size in SIZES:
        def whole(k):
            with open(p.here(f'whole-{size}'), 'wb') as f:
                f.write(value(k, size))

        def pieces(k):
            data = value(k, size)
            with open(p.here(f'pieces-{size}'), 'wb', buffering=0) as f:
                for at in range(0, size, size // 16 or 1):
                    f.write(data[at:at + (size // 16 or 1)])

        def synced(k):
            with open(p.here(f'synced-{size}'), 'wb') as f:
                f.write(value(k, size))
                f.flush()
                os.fsync(f.fileno())

        def of_a_child(k):
            source = f'{p.cluster.base}/of-a-child'
            with open(source, 'wb') as f:
                f.write(value(k, size))
            with open(p.here(f'child-{size}'), 'wb') as f:
                subprocess.run(['cat', source], stdout=f, check=True)

        def backwards(k):
            """From the end to the start: it has its size long before it has its bytes."""
            data, step = value(k, size), size // 16 or 1
            with open(p.here(f'backwards-{size}'), 'wb', buffering=0) as f:
                for at in reversed(range(0, size, step)):
                    os.pwrite(f.fileno(), data[at:at + step], at)
        for name, way in (('whole', whole), ('pieces', pieces), ('synced', synced),
                          ('child', of_a_child), ('backwards', backwards)):
            watched(p, f'{name}-{size}', size, TURNS[size], way)


def rule_two_writers_of_one_host(p):
    """Each with a descriptor of its own: whoever closes publishes a whole value, of one of them,
    and never the emptiness that the other's O_TRUNC has just begun."""
    size, turns = SIZES[1], 100
    p.write('f', value(0, size))
    stop = False

    def look(path):
        reads = 0
        while not stop:
            data = read(path)
            check(data in allowed, f'{data[:20]!r}, {len(data)} bytes, was read')
            reads += 1
        return reads
    allowed = {value(k, size) for k in range(3)}
    watchers = [Worker(look, p.cluster.path(i, p.name, 'f')) for i in p.others]

    def write(k):
        for _ in range(turns):
            with open(p.here('f'), 'wb', buffering=0) as f:
                f.write(value(k, size))
    try:
        in_parallel(write, [(1,), (2,)])
    finally:
        stop = True
    for watcher in watchers:
        check(watcher.result() >= ENOUGH, 'few reads')
    check(read(p.here('f')) in allowed, 'the last')
    p.check(read, read(p.here('f')), 'f')


def rule_it_grows_here_and_not_there(p):
    """The writer's host sees each byte, in any process; the others the old content."""
    old = value(0, SIZES[1])
    p.write('f', old)
    with open(p.here('f'), 'rb') as reader:
        with open(p.here('f'), 'wb', buffering=0) as f:
            check_equal(os.fstat(reader.fileno()).st_size, 0, 'its size here')
            for k in range(1, 11):
                f.write(value(k, BLOCK))
                check_equal(os.stat(p.here('f')).st_size, k * BLOCK, 'its size here')
                check_equal(os.pread(reader.fileno(), BLOCK, (k - 1) * BLOCK), value(k, BLOCK),
                            'the new bytes, by a descriptor of before')
                check_equal(len(read(p.here('f'))), k * BLOCK, 'what is read here')
                for i in p.others:
                    path = p.cluster.path(i, p.name, 'f')
                    check_equal(os.stat(path).st_size, len(old), 'its size there')
                    check_equal(read(path), old, 'what is read there')
    p.check(read, b''.join(value(k, BLOCK) for k in range(1, 11)), 'f')


def rule_fsync_publishes(p):
    """What is there by then; close the rest."""
    p.write('f', b'old')
    with open(p.here('f'), 'wb', buffering=0) as f:
        f.write(b'new')
        for i in p.others:
            check_equal(read(p.cluster.path(i, p.name, 'f')), b'old', 'before fsync')
        os.fsync(f.fileno())
        p.check(read, b'new', 'f')
        f.write(b' and more')
    p.check(read, b'new and more', 'f')


def rule_a_second_truncation_begins_anew(p):
    """Of two who replace it at once the first to close has nothing to publish any more: what he
    wrote was truncated away."""
    p.write('f', b'old')
    first = open(p.here('f'), 'wb', buffering=0)
    first.write(b'first')
    second = open(p.here('f'), 'wb', buffering=0)
    second.write(b'2')
    first.close()
    for i in p.others:
        check_equal(read(p.cluster.path(i, p.name, 'f')), b'old', 'when the first has closed')
    second.write(b'nd')
    second.close()
    p.check(read, b'2nd', 'f')


def rule_another_handle_writes_into_it(p):
    """Which was open before: its bytes are part of the new value, and its fsync publishes it."""
    p.write('f', b'old content')
    with open(p.here('f'), 'r+b', buffering=0) as other:
        with open(p.here('f'), 'wb', buffering=0) as f:
            f.write(b'new')
            os.pwrite(other.fileno(), b'!', 5)
            for i in p.others:
                check_equal(read(p.cluster.path(i, p.name, 'f')), b'old content', 'there')
            check_equal(read(p.here('f')), b'new\0\0!', 'here')
            os.fsync(other.fileno())
            p.check(read, b'new\0\0!', 'f')
            os.ftruncate(f.fileno(), 2)
    p.check(read, b'ne', 'f')


def rule_emptied(p):
    """No value follows: it is empty when the last descriptor that could bring one is closed."""
    for way, command in (('bash', ': > "$F"'), ('dash', ': > "$F"'), ('bash', '> "$F"'),
                         ('dash', 'cp /dev/null "$F"'), ('bash', 'exec 3> "$F"; exec 3>&-'),
                         ('dash', 'dd if=/dev/null of="$F" status=none'),
                         ('dash', '(true) > "$F"'), ('bash', '(exit 1) > "$F" || true')):
        p.write('f', b'value')
        subprocess.run([way, '-c', command], check=True, timeout=60,
                       env=dict(os.environ, F=p.here('f')))
        for path in p.everywhere('f'):  # where RELEASE does it, close has returned before
            wait_for(lambda: read(path) == b'', f'{path} is empty after {command}')


def rule_several_programs_into_one(p):
    """(a; b) > f: the end of the first publishes what is there (it closes a descriptor it has
    written to, as the last one does); nobody ever meets it empty."""
    sources = []
    for k in (1, 2):
        sources.append(f'{p.cluster.base}/part-{k}')
        with open(sources[-1], 'wb') as f:
            f.write(value(k, 10 * BLOCK))
    sizes = (10 * BLOCK, 20 * BLOCK)
    p.write('f', value(0, 20 * BLOCK))
    stop = False

    def look(path):
        reads = 0
        while not stop:
            size = os.stat(path).st_size
            check(size in sizes, f'{size} bytes were there')
            reads += 1
        return reads
    watchers = [Worker(look, p.cluster.path(i, p.name, 'f')) for i in p.others]
    try:
        for shell in ('bash', 'dash'):
            for _ in range(10):
                subprocess.run([shell, '-c', '(cat "$A"; cat "$B") > "$F"'], check=True,
                               env=dict(os.environ, F=p.here('f'), A=sources[0], B=sources[1]))
                p.check(read, value(1, 10 * BLOCK) + value(2, 10 * BLOCK), 'f')
    finally:
        stop = True
    for watcher in watchers:
        check(watcher.result() >= ENOUGH, 'few looks')


def rule_a_new_name_comes_with_its_value(p):
    """O_CREAT|O_TRUNC of a name that is not there: other hosts meet it with its first value."""
    if not p.others:
        return
    for k in range(20):
        for shell in ('bash', 'dash'):
            path = p.there(f'{shell}-{k}')

            def first_sight():
                while True:
                    try:
                        return read(path)
                    except FileNotFoundError:
                        pass
            sight = Worker(first_sight)
            subprocess.run([shell, '-c', 'echo value > "$F"'], check=True,
                           env=dict(os.environ, F=p.here(f'{shell}-{k}')))
            check_equal(sight.result(30), b'value\n', 'at first sight')


def test_the_writer_s_host_dies(t):
    """Between the open and the close: the old content stays, everywhere."""
    c = t.cluster(3)
    writer = (c.leader() + 1) % 3
    for size in SIZES:
        with open(c.path(writer, 'f'), 'wb') as f:
            f.write(value(1, size))
        f = open(c.path(writer, 'f'), 'wb', buffering=0)
        f.write(value(2, size)[:size - 1])
        c.kill9(writer)
        try:
            f.close()
        except OSError:
            pass
        for i in c.up():
            check_equal(numbers_in(read(c.path(i, 'f')), size), [1], 'while it is down')
        c.start(writer)
        c.wait_ready()
        for i in range(3):
            check_equal(numbers_in(read(c.path(i, 'f')), size), [1], 'when it is back')


def test_the_writer_is_killed(t):
    """The program, not the host: what it has written by then is there, as on any file system;
    until then the old content was."""
    c = t.cluster(3)
    here, there = c.leader(), (c.leader() + 1) % 3
    with open(c.path(here, 'f'), 'wb') as f:
        f.write(b'old')
    program = ('import os, sys\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)\n'
               'os.write(fd, b"new")\nos.write(1, b"written")\nsys.stdin.read()\n')
    child = subprocess.Popen([sys.executable, '-I', '-S', '-c', program, c.path(here, 'f')],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        check_equal(child.stdout.read(7), b'written', 'the child')
        check_equal(read(c.path(there, 'f')), b'old', 'while it lives')
        child.kill()
        child.wait(60)
    for i in range(3):
        wait_for(lambda: read(c.path(i, 'f')) == b'new', 'what it wrote')


if __name__ == '__main__':
    main(globals())
