#!/usr/bin/python3
"""Runs bench on a three-node mount and on the local file system, by turns, and compares.

The data directories and the local directory are on the same disk. Columns: `local` is the local
file system without any sync, `synced` with one for each change, `follower` and `leader` the
mounts of a follower and of the leader. The ratios of a mount: how many times what `synced`
(for reading: `local`) takes it takes in the median, and what part of its throughput it gives.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Cluster, find_binary  # noqa: E402

# operation, most operations of one thread, whether it changes anything
OPERATIONS = (('create', 20000, True), ('overwrite', 100000, True), ('read', 100000, False),
              ('stat', 200000, False), ('readdir', 100, False), ('rename', 50000, True),
              ('unlink', 500, True), ('write64', 1, True), ('read64', 1, False))
MEMORY_FILE_SYSTEMS = ('tmpfs', 'ramfs')
P50_TIMES, THROUGHPUT_PART = 3.0, 1 / 3  # the marks of overwrite


def file_system(path):
    return subprocess.run(['stat', '-f', '-c', '%T', path], check=True, capture_output=True,
                          text=True).stdout.strip()


def pick_base(wanted):
    """A directory on a disk: fsync must cost what it costs."""
    candidates = [wanted] if wanted else [os.environ.get('TMPDIR'), '/var/tmp',
                                          f'{ROOT}/build']
    for path in candidates:
        if path and os.path.isdir(path) and file_system(path) not in MEMORY_FILE_SYSTEMS:
            return path
    sys.exit('bench: no directory on a disk; name one with --dir')


class Place:
    """Where an operation is run: a directory, with or without a sync for each change."""

    def __init__(self, name, directory, sync=False):
        self.name, self.directory, self.sync = name, directory, sync


def run_bench(bench, *arguments):
    done = subprocess.run([bench, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'bench {" ".join(map(str, arguments))} failed: {done.stderr.strip()}')
    return json.loads(done.stdout) if done.stdout else None


def measure(options, places):
    """One result for each operation, number of threads and place."""
    results = []
    for operation, limit, changes in OPERATIONS:
        for threads in options.threads:
            for place in places:
                if place.sync and not changes:
                    continue
                most = min(limit, options.limit or limit)
                extra = ['fsync'] if place.sync else []
                result = run_bench(options.bench, operation, place.directory, threads,
                                   options.seconds, most, *extra)
                result['place'] = place.name
                results.append(result)
                if operation == 'readdir':
                    result['names'] = options.names
    return results


def add_ratios(results):
    """Of each mount's result to the local one that promises the most like it."""
    by_key = {(r['operation'], r['threads'], r['place']): r for r in results}
    for r in results:
        if r['place'] not in ('follower', 'leader'):
            continue
        base = by_key.get((r['operation'], r['threads'], 'synced'))
        base = base or by_key[r['operation'], r['threads'], 'local']
        r['compared_with'] = base['place']
        r['p50_ratio'] = round(r['p50_us'] / max(base['p50_us'], 0.1), 3)
        r['throughput_ratio'] = round(r['per_second'] / base['per_second'], 4)
    return by_key


def rate(result):
    if result['bytes_per_second']:
        return f'{result["bytes_per_second"] / (1 << 20):.0f} MiB/s'
    return f'{result["per_second"]:.0f}/s'


def print_table(results):
    line = '{:<10} {:>3}  {:<9} {:>12} {:>10} {:>10}  {:<22}'
    print(line.format('operation', 'thr', 'where', 'throughput', 'p50 us', 'p99 us',
                      'p50, throughput ratio'))
    for r in results:
        ratio = ''
        if 'p50_ratio' in r:
            ratio = (f'{r["p50_ratio"]:.2f}x, {r["throughput_ratio"]:.3f}'
                     f' of {r["compared_with"]}')
        print(line.format(r['operation'], r['threads'], r['place'], rate(r), r['p50_us'],
                          r['p99_us'], ratio).rstrip())


def print_marks(by_key, threads):
    """The first marks: overwrite against open(O_TRUNC), write, fsync, close. True: all met."""
    met = True
    for place in ('follower', 'leader'):
        marks = []
        if 1 in threads:
            r = by_key['overwrite', 1, place]
            marks.append((f'p50 {r["p50_ratio"]:.2f}x of synced, at most {P50_TIMES:.0f}x',
                          r['p50_ratio'] <= P50_TIMES))
        if 16 in threads:
            r = by_key['overwrite', 16, place]
            marks.append((f'throughput of 16 threads {r["throughput_ratio"]:.3f} of synced, at'
                          f' least {THROUGHPUT_PART:.3f}',
                          r['throughput_ratio'] >= THROUGHPUT_PART))
        for text, good in marks:
            print(f'mark: overwrite through the {place}: {text}: {"met" if good else "MISSED"}')
            met = met and good
    return met


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--bench', required=True)
    parser.add_argument('--json', help='where the JSON lines go (default: after the table)')
    parser.add_argument('--dir', help='a directory on a disk, for everything')
    parser.add_argument('--seconds', type=float, default=2.0, help='of each measurement')
    parser.add_argument('--smoke', action='store_true', help='short; the numbers mean little')
    parser.add_argument('--check', action='store_true', help='exit 1 where a mark is missed')
    options = parser.parse_args()
    options.threads, options.names, options.limit = (1, 16), 10000, None
    if options.smoke:
        options.seconds, options.names, options.limit = 0.2, 500, 100
    return options


def run_all(options, base, cluster):
    cluster.make()
    leader = cluster.leader()
    follower = (leader + 1) % 3
    places = [Place('local', f'{base}/local'), Place('synced', f'{base}/local-synced', True),
              Place('follower', cluster.path(follower, 'bench-follower')),
              Place('leader', cluster.path(leader, 'bench-leader'))]
    for place in places:
        os.mkdir(place.directory)
        run_bench(options.bench, 'prepare', place.directory, options.names)
    if os.stat(places[0].directory).st_dev != os.stat(cluster.nodes[0].data).st_dev:
        sys.exit('bench: the local directory is on another disk than the data')
    print(f'# three nodes on one machine, {os.cpu_count()} cores, {file_system(base)};'
          f' leader n{leader}, follower n{follower}', flush=True)
    results = measure(options, places)
    if cluster.leader() != leader:
        sys.exit('bench: the leader changed meanwhile; the columns are not what they say')
    return results


def main():
    options = parse()
    base = tempfile.mkdtemp(prefix='tierce-bench-', dir=pick_base(options.dir))
    cluster = Cluster(3, base=base, binary=find_binary())
    try:
        results = run_all(options, base, cluster)
    finally:
        cluster.close()
        shutil.rmtree(base, ignore_errors=True)
    by_key = add_ratios(results)
    print_table(results)
    met = print_marks(by_key, options.threads)
    lines = ''.join(json.dumps(r) + '\n' for r in results)
    if options.json:
        with open(options.json, 'w') as f:
            f.write(lines)
    else:
        print(lines, end='')
    return 1 if options.check and not met else 0


if __name__ == '__main__':
    sys.exit(main())
