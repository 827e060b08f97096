#!/usr/bin/python3
"""What consensus costs: three nodes without mounts on this machine, and clients that speak the
protocol to their leader (raft_bench) over a few connections. A line of JSON for each row, with
its mark, and what the machine itself can do, measured in the same run beside the three nodes.

- throughput: committed writes of 256 bytes a second, 64 clients each with one on its way, over
  4 connections. Beside it: records of 256 bytes, synced one after the other, in a plain file.
- latency: the median of one client's writes; its mark is two round trips (a frame to the leader
  that is answered at once) and 1.2 times a write and fdatasync of 512 bytes, both in the median
  and taken meanwhile, every 10 ms.
- catch-up: a node that was stopped while a GiB was written is started again. Bytes a second from its
  start until it has applied what was committed then, and the p99 of 16 others' writes (one each
  20 ms) meanwhile and before; beside it a plain file written from one end to the other.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import Cluster, Failure, check, wait_for  # noqa: E402

VALUE_BYTES, CLIENTS, LINKS = 256, 64, 4
FILL_BYTES = 64 << 10  # of a write, while a node is away
OTHERS, OTHERS_PAUSE_US = 16, 20000
CATCH_UP_SECONDS = 600


class Clients:
    """raft_bench: reports when it is asked, and at its end."""

    def __init__(self, bench, clients, links, value_bytes, pause_us=0, limit=0, spread=False):
        c, i = bench.cluster, bench.cluster.leader()
        status = c.status(i)
        arguments = [bench.binary, 'run', bench.ca, f'{c.base}/probe', c.nodes[i].address,
                     status['id'], status['term'], clients, links, value_bytes, pause_us, limit]
        self.process = subprocess.Popen([str(a) for a in arguments] + ['spread'] * spread,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _read(self):
        line = self.process.stdout.readline()
        check(line, 'raft_bench has ended; the leader may have changed (see above)')
        return json.loads(line)

    def report(self):
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()
        return self._read()

    def measure(self, seconds):
        self.report()
        time.sleep(seconds)
        return self.report()

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Bench:
    def __init__(self, options):
        self.binary, self.options, self.rows = options.bench, options, []
        self.cluster = Cluster(3, mounted=False, base=options.dir)
        self.ca = f'{self.cluster.base}/ca'

    def make(self):
        """The store of a node that does not run is copied: the CA's key is in it."""
        c = self.cluster
        c.make()
        i = next(i for i in range(3) if i != c.leader())
        c.stop(i)
        shutil.copytree(c.nodes[i].data, self.ca, ignore=shutil.ignore_patterns('*.sock', 'sock*'))
        c.start(i)
        c.wait_ready()

    def machine(self, what, value):
        done = subprocess.run([self.binary, what, f'{self.cluster.base}/{what}', str(value)],
                              stdout=subprocess.PIPE, check=True)
        return float(done.stdout)

    def row(self, **fields):
        fields['load'] = round(os.getloadavg()[0], 1)
        print(json.dumps(fields, separators=(',', ':')), flush=True)
        self.rows.append(fields)


def throughput(bench):
    mark = 20000 if os.cpu_count() >= 4 else 12000
    raw = bench.machine('records', VALUE_BYTES)
    clients = Clients(bench, CLIENTS, LINKS, VALUE_BYTES)
    clients.measure(bench.options.seconds / 5)
    r = clients.measure(bench.options.seconds)
    clients.end()
    rate = r['writes'] / r['seconds']
    bench.row(row='throughput', value=round(rate), unit='writes/s', p50_us=r['p50_us'],
              p99_us=r['p99_us'], yardstick=round(raw), ratio=round(rate / raw, 2),
              sync_beside_us=r['sync_p50_us'], mark=f'at least {mark}', kept=rate >= mark)


def latency(bench):
    clients = Clients(bench, 1, 1, VALUE_BYTES)
    clients.measure(bench.options.seconds / 5)
    r = clients.measure(bench.options.seconds)
    clients.end()
    check(r['syncs'] and r['trips'], 'the machine was measured meanwhile')
    yardstick = 2 * r['trip_p50_us'] + 1.2 * r['sync_p50_us']
    bench.row(row='latency', value=r['p50_us'], unit='us', p99_us=r['p99_us'],
              trip_us=r['trip_p50_us'], sync_us=r['sync_p50_us'], yardstick=round(yardstick),
              ratio=round(r['p50_us'] / yardstick, 2), mark='at most 1',
              kept=r['p50_us'] <= yardstick)


def fall_behind(bench, behind):
    """Writes that many bytes while node `away` is."""
    c = bench.cluster
    away = next(i for i in range(3) if i != c.leader())
    c.stop(away)
    writes = behind // FILL_BYTES
    clients = Clients(bench, OTHERS, LINKS, FILL_BYTES, limit=writes, spread=True)
    check(clients._read()['writes'] == writes, 'all was written')
    clients.end()
    return away


def catch_up(bench):
    c, behind = bench.cluster, bench.options.behind
    away = fall_behind(bench, behind)
    others = Clients(bench, OTHERS, LINKS, VALUE_BYTES, OTHERS_PAUSE_US)
    others.measure(1)
    before = others.measure(bench.options.seconds / 2)
    commit = c.status(c.leader(c.up()))['commit']
    begun = time.monotonic()
    c.start(away)
    wait_for(lambda: (c.status(away) or {'applied': 0})['applied'] >= commit,
             'the node has caught up', CATCH_UP_SECONDS)
    seconds = time.monotonic() - begun
    during = others.report()
    raw = bench.machine('sequential', behind)
    others.end()
    speed, slower = behind / seconds, during['p99_us'] / before['p99_us']
    bench.row(row='catch_up', value=round(speed / 2**20, 1), unit='MiB/s',
              yardstick=round(raw / 2**20, 1), ratio=round(speed / raw, 2),
              mark='at least 0.5', kept=speed >= 0.5 * raw)
    bench.row(row='others_meanwhile', value=during['p99_us'], unit='us', p50_us=during['p50_us'],
              yardstick=before['p99_us'], ratio=round(slower, 2), mark='at most 2',
              kept=slower <= 2)


ROWS = {'throughput': throughput, 'latency': latency, 'catch-up': catch_up}


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--bench', required=True, help='the program raft_bench')
    parser.add_argument('--dir', help='where the nodes put their data')
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument('--smoke', action='store_true', help='short; the numbers mean little')
    parser.add_argument('--check', action='store_true', help='exit 1 where a mark is missed')
    parser.add_argument('rows', nargs='*', choices=[[], *ROWS])
    options = parser.parse_args()
    options.behind = 8 << 20 if options.smoke else 1 << 30
    if options.smoke:
        options.seconds = 1
    return options


def main():
    options = parse()
    bench = Bench(options)
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
    return 1 if options.check and not all(row['kept'] for row in bench.rows) else 0


if __name__ == '__main__':
    sys.exit(main())
