#!/usr/bin/python3
"""What a file system costs: three mounted nodes on this machine, and the local file system of the
same disk, by turns. A line of JSON for each row, with its mark. All but `files` is done on one
mount, a follower's unless --on says otherwise.

- sequential: a file written from one end to the other, a sync at the end. Its yardstick is the rate at
  which the disk takes three such files at once, as three nodes do. Then its second read.
- overwrite, append: 4 KiB at random offsets of that file, or at the end of another, a sync for each.
- turns: one 4 KiB write and one 4 KiB read in turn, in a file that is in the page cache.
- tree: a source tree is unpacked by `tar x`, and removed by `rm -r`; locally with a sync behind it.
- files: very many, in one directory and in a tree: made through all mounts, listed and looked at
  through one, removed through all. What each costs, beside what it costs where there are only
  10 000 in all; the processor's time of all nodes and of the programs beside it. And the memory that
  a node takes for each, of the node that takes most.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'),
                os.path.join(os.path.dirname(os.path.abspath(__file__)), '..')]
from bench import pick_base  # noqa: E402
from cluster import Cluster, Failure, check, find_binary  # noqa: E402

FEW_FILES, FEW_TURNS = 10000, 3
SMALL_BYTES, LARGE_BYTES = 1000, 6000  # of a file: in its inode, and beside it
THREADS = 4  # on each mount
STEPS = ('create', 'list', 'stat', 'remove')
TICK_US = 1e6 / os.sysconf('SC_CLK_TCK')


class Bench:
    def __init__(self, options, base):
        self.binary, self.options, self.base, self.rows = options.bench, options, base, []
        self.cluster = Cluster(3, base=base, binary=find_binary())

    def make(self):
        self.cluster.make()
        leader = self.cluster.leader()
        self.at = leader if self.options.on == 'leader' else (leader + 1) % 3
        self.mount, self.local = self.cluster.path(self.at, 'bench'), f'{self.base}/local'
        for path in (self.mount, self.local):
            os.mkdir(path)
        check(os.stat(self.local).st_dev == os.stat(self.cluster.nodes[0].data).st_dev,
              'the local directory is on the disk of the data')

    def start(self, *arguments):
        return subprocess.Popen([self.binary, *map(str, arguments)], stdout=subprocess.PIPE)

    def result(self, process):
        out, _ = process.communicate()
        check(process.returncode == 0, f'{" ".join(process.args)} gave {process.returncode}')
        return json.loads(out)

    def run(self, *arguments):
        return self.result(self.start(*arguments))

    def row(self, name, value, unit, yardstick=None, at_most=None, at_least=None, absolute=False,
            **more):
        fields = {'row': name, 'value': significant(value), 'unit': unit}
        judged = value
        if yardstick is not None:
            fields['yardstick'] = significant(yardstick)
            ratio = value / yardstick if yardstick else 0
            fields['ratio'] = round(ratio, 3)
            judged = value if absolute else ratio
        fields.update(more, load=round(os.getloadavg()[0], 1))
        if at_most is not None:
            fields.update(mark=f'at most {at_most:g}', kept=judged <= at_most)
        if at_least is not None:
            fields.update(mark=f'at least {at_least:g}', kept=judged >= at_least)
        print(json.dumps(fields, separators=(',', ':')), flush=True)
        self.rows.append(fields)


def significant(value):
    return float(f'{value:.4g}')


# ---- One file

def sequential(bench):
    size, places = bench.options.bytes, (bench.local, bench.mount)
    begun = time.monotonic()
    for process in [bench.start('write', f'{bench.local}/three{i}', size) for i in range(3)]:
        bench.result(process)
    three = size / (time.monotonic() - begun)
    for i in range(3):
        os.unlink(f'{bench.local}/three{i}')
    alone, rate = (size / bench.run('write', f'{path}/file', size)['seconds'] for path in places)
    bench.row('sequential_write', rate / 2**20, 'MiB/s', yardstick=three / 2**20, at_least=0.6,
              alone=significant(alone / 2**20))
    first, second = {}, {}
    for path in places:
        first[path], *seconds = (size / bench.run('read', f'{path}/file')['seconds']
                                 for _ in range(4))
        second[path] = statistics.median(seconds)
    bench.row('second_read', second[bench.mount] / 2**20, 'MiB/s',
              yardstick=second[bench.local] / 2**20, at_least=0.8,
              first=significant(first[bench.mount] / 2**20))


def synced(bench, name, path, at_most):
    seconds = bench.options.seconds
    local, mount = (bench.run(name, f'{where}/{path}', seconds)
                    for where in (bench.local, bench.mount))
    bench.row(name, mount['step_p50_us'], 'us', yardstick=local['step_p50_us'], at_most=at_most,
              p99_us=mount['step_p99_us'], mean_us=mount['step_mean_us'],
              mean_ratio=round(mount['step_mean_us'] / local['step_mean_us'], 2))


def overwrite(bench):
    for path in (bench.local, bench.mount):
        if not os.path.exists(f'{path}/file'):
            bench.run('write', f'{path}/file', bench.options.bytes)
    synced(bench, 'overwrite', 'file', 5)


def append(bench):
    synced(bench, 'append', 'appended', 3)


def turns(bench):
    results = []
    for path in (bench.local, bench.mount):
        bench.run('write', f'{path}/turns', bench.options.bytes // 4)
        results.append(bench.run('turns', f'{path}/turns', bench.options.seconds))
        os.unlink(f'{path}/turns')
    local, mount = results
    bench.row('turns_read', mount['read_p50_us'], 'us', yardstick=local['read_p50_us'],
              at_most=100, absolute=True, p99_us=mount['read_p99_us'],
              mean_us=mount['read_mean_us'], write_p50_us=mount['write_p50_us'],
              write_mean_us=mount['write_mean_us'], turns=mount['count'])


# ---- A tree

def make_archive(path, files):
    """Source code, as far as sizes, depths and bytes matter."""
    r = random.Random(1)
    words = [bytes(r.choices(b'abcdefghijklmnopqrstuvwxyz_', k=r.randint(2, 12)))
             for _ in range(2000)]
    with tarfile.open(path, 'w') as tar:
        made = set()
        for i in range(files):
            directory = f'source/part{i // 200}/{"sub" * (i % 3)}{i // 20}'
            for end in [k for k, c in enumerate(directory) if c == '/'] + [len(directory)]:
                if directory[:end] not in made:
                    made.add(directory[:end])
                    entry = tarfile.TarInfo(directory[:end])
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            data = b' '.join(r.choices(words, k=min(20000, int(r.lognormvariate(6.5, 1.2)))))
            entry = tarfile.TarInfo(f'{directory}/file{i}.c')
            entry.size, entry.mtime = len(data), 1700000000 + i
            tar.addfile(entry, io.BytesIO(data))


def timed(*commands):
    begun = time.monotonic()
    for command in commands:
        subprocess.run(command, check=True)
    return time.monotonic() - begun


def tree(bench):
    archive, files = f'{bench.base}/source.tar', bench.options.tree_files
    make_archive(archive, files)
    sync = ['sync', '-f', bench.local]
    local = timed(['tar', 'xf', archive, '-C', bench.local], sync)
    mount = timed(['tar', 'xf', archive, '-C', bench.mount])
    check(subprocess.run(['diff', '-r', f'{bench.local}/source',
                          f'{bench.mount}/source']).returncode == 0, 'the trees are the same')
    bench.row('tar_x', mount, 's', yardstick=local, files=files)
    local = timed(['rm', '-r', f'{bench.local}/source'], sync)
    mount = timed(['rm', '-r', f'{bench.mount}/source'])
    bench.row('rm_r', mount, 's', yardstick=local, files=files)


# ---- Very many files

def nodes_cpu_us(bench):
    ticks = 0
    for node in bench.cluster.nodes:
        with open(f'/proc/{node.pid}/stat') as f:
            fields = f.read().rsplit(')', 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ticks * TICK_US + (usage.ru_utime + usage.ru_stime) * 1e6


def memory(bench):
    """Of each node."""
    found = []
    for node in bench.cluster.nodes:
        with open(f'/proc/{node.pid}/status') as f:
            found.append(next(int(line.split()[1]) * 1024 for line in f
                              if line.startswith('RssAnon:')))
    return found


def run_step(bench, step, shape, name, count, size):
    """(us, us of processor) for each file."""
    cpu, begun = nodes_cpu_us(bench), time.monotonic()
    if step in ('list', 'stat'):
        bench.run('files', step, f'{bench.mount}/{name}', shape, 0, count, 1, size)
    else:
        ends = [count * i // 3 for i in range(4)]
        for process in [bench.start('files', step, bench.cluster.path(i, 'bench', name), shape,
                                    ends[i], ends[i + 1] - ends[i], THREADS, size)
                        for i in range(3)]:
            bench.result(process)
    seconds = time.monotonic() - begun
    return seconds * 1e6 / count, (nodes_cpu_us(bench) - cpu) / count


def few_files(bench, shape):
    """The median of what each step costs."""
    costs = {step: [] for step in STEPS}
    for turn in range(FEW_TURNS):
        os.mkdir(f'{bench.mount}/few')
        for step in STEPS:
            costs[step].append(run_step(bench, step, shape, 'few', bench.options.few, SMALL_BYTES))
        os.rmdir(f'{bench.mount}/few')
    return {step: tuple(map(statistics.median, zip(*c))) for step, c in costs.items()}


def many_files(bench, shape, few):
    count = bench.options.files
    os.mkdir(f'{bench.mount}/many')
    before = memory(bench)
    for step in STEPS:
        cost, cpu = run_step(bench, step, shape, 'many', count, SMALL_BYTES)
        bench.row(f'files_{shape}_{step}', cost, 'us', yardstick=few[step][0], at_most=1.2,
                  files=count, cpu_us=significant(cpu), cpu_ratio=round(cpu / few[step][1], 3))
        if step == 'stat':  # by now the kernel knows all of them through one mount
            memory_row(bench, f'memory_{shape}', before, count, 256)
    os.rmdir(f'{bench.mount}/many')


def memory_row(bench, name, before, count, at_most):
    each = [(now - then) / count for then, now in zip(before, memory(bench))]
    bench.row(name, max(each), 'bytes', at_most=at_most, files=count,
              nodes=[round(e) for e in each])


def large_files(bench):
    count = bench.options.files // 10
    os.mkdir(f'{bench.mount}/large')
    before = memory(bench)
    run_step(bench, 'create', 'flat', 'large', count, LARGE_BYTES)
    run_step(bench, 'stat', 'flat', 'large', count, LARGE_BYTES)
    memory_row(bench, 'memory_large', before, count, 350)
    run_step(bench, 'remove', 'flat', 'large', count, LARGE_BYTES)
    os.rmdir(f'{bench.mount}/large')


def files(bench):
    for shape in ('flat', 'tree'):
        many_files(bench, shape, few_files(bench, shape))
    large_files(bench)


ROWS = {'sequential': sequential, 'overwrite': overwrite, 'append': append, 'turns': turns,
        'tree': tree, 'files': files}


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--bench', required=True, help='the program fs_bench')
    parser.add_argument('--dir', help='a directory on a disk, for everything')
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument('--files', type=int, default=100000, help='how many are very many')
    parser.add_argument('--on', choices=('follower', 'leader'), default='follower')
    parser.add_argument('--smoke', action='store_true', help='short; the numbers mean little')
    parser.add_argument('--check', action='store_true', help='exit 1 where a mark is missed')
    parser.add_argument('rows', nargs='*', choices=[[], *ROWS])
    options = parser.parse_args()
    options.bytes, options.tree_files, options.few = 1 << 30, 5000, FEW_FILES
    if options.smoke:
        options.seconds, options.bytes, options.tree_files = 0.5, 8 << 20, 100
        options.few, options.files = 100, 300
    return options


def main():
    options = parse()
    base = tempfile.mkdtemp(prefix='tierce-bench-', dir=pick_base(options.dir))
    bench = Bench(options, base)
    try:
        bench.make()
        for name in options.rows or ROWS:
            ROWS[name](bench)
        bench.cluster.check_running()
    except Failure as e:
        bench.cluster.log_tails()
        sys.exit(f'failed: {e}')
    finally:
        bench.cluster.close()
        shutil.rmtree(base, ignore_errors=True)
    return 1 if options.check and not all(row.get('kept', True) for row in bench.rows) else 0


if __name__ == '__main__':
    sys.exit(main())
