#!/usr/bin/python3
"""How long a cluster of real processes does not commit when its leader goes.

Three nodes on this machine, mounted; writers at each mount replace a small file, one write after
the other (open, write, close: committed when it returns). Measured:

- kill: from `kill -9` of the leader until a write that began afterwards has returned, on the mount
  where that came first (`next write`) and on the one where it came last (`all mounts`).
- stop: the longest time in which no write returned on the other mounts, from `tierce stop` of
  the leader until it has ended; beside it the same for as long without a stop.
- hold: nothing happens to the cluster under load; a leader that changes is one without cause.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import Cluster, check, find_binary, wait_for  # noqa: E402
from spawner import Spawner  # noqa: E402

WRITERS = 2  # at each mount
MEDIAN_SECONDS, P99_SECONDS, STOP_SECONDS = 0.6, 1.5, 0.05  # the marks
VALUE = b'v' * 256


class Writer(threading.Thread):
    """(begun, ended) of each write that returned success."""

    def __init__(self, cluster, node, number, pause):
        super().__init__(daemon=True)
        self.path = cluster.path(node, f'w{node}-{number}')
        self.node, self.log, self.error, self.pause = node, [], None, pause
        self.ending, self.may_fail = False, threading.Event()
        self.start()

    def run(self):
        while not self.ending:
            begun = time.monotonic()
            try:
                with open(self.path, 'wb', 0) as f:
                    f.write(VALUE)
            except OSError as e:
                if not self.may_fail.is_set():
                    self.error = e
                    return
                time.sleep(0.01)
                continue
            self.log.append((begun, time.monotonic()))
            time.sleep(self.pause)

    def first_after(self, at):
        """When the first write that began after `at` returned; None yet."""
        check(not self.error, f'a write through mount {self.node} failed: {self.error}')
        first = None
        for begun, ended in reversed(self.log[:]):
            if begun < at:
                return first
            first = ended
        return first


class Load:
    def __init__(self, cluster, pause=0):
        self.cluster, self.pause = cluster, pause
        self.writers = [Writer(cluster, i, k, pause) for i in range(len(cluster.nodes))
                        for k in range(WRITERS)]

    def of(self, nodes):
        return [w for w in self.writers if w.node in nodes]

    def allow_failures(self, node, may):
        for w in self.of([node]):
            (w.may_fail.set if may else w.may_fail.clear)()

    def wait_all_write(self):
        since = time.monotonic()
        wait_for(lambda: all(w.first_after(since) for w in self.writers),
                 'every writer writes', 60)

    def longest_silence(self, nodes, begin, end):
        """The longest time in which no write returned on these mounts."""
        ends = sorted(ended for w in self.of(nodes) for _, ended in w.log[:])
        before = [e for e in ends if e < begin][-1:] or [begin]
        within = [e for e in ends if begin <= e <= end]
        times = before + within + [e for e in ends if e > end][:1]
        return max(b - a for a, b in zip(times, times[1:]))

    def count(self):
        return sum(len(w.log) for w in self.writers)

    def end(self):
        for w in self.writers:
            w.may_fail.set()
            w.ending = True
        for w in self.writers:
            w.join(60)


def kill_leader(cluster, load):
    """(next write, all mounts) in seconds."""
    load.wait_all_write()
    leader = cluster.leader()
    others = [i for i in cluster.up() if i != leader]
    load.allow_failures(leader, True)
    at = cluster.kill9(leader)
    firsts = wait_for(lambda: all_firsts(load.of(others), at), 'writes go on', 30)
    cluster.start(leader)
    cluster.wait_caught_up([leader])
    load.allow_failures(leader, False)
    by_mount = [min(f for n, f in firsts if n == i) - at for i in others]
    return min(by_mount), max(by_mount)


def all_firsts(writers, at):
    firsts = [(w.node, w.first_after(at)) for w in writers]
    return firsts if all(first for _, first in firsts) else None


def stop_leader(cluster, load):
    """(longest silence during the stop, the same for as long without) in seconds."""
    load.wait_all_write()
    leader = cluster.leader()
    others = [i for i in cluster.up() if i != leader]
    for w in load.of([leader]):
        w.ending = True
    for w in load.of([leader]):
        w.join(30)
    begin = time.monotonic()
    cluster.stop(leader)
    end = time.monotonic()
    wait_for(lambda: all_firsts(load.of(others), end), 'writes go on', 30)
    silence = load.longest_silence(others, begin, end)
    begin, seconds = time.monotonic(), end - begin
    time.sleep(seconds)  # as long as the stop took
    end = time.monotonic()
    wait_for(lambda: all_firsts(load.of(others), end), 'writes go on', 30)
    usual = load.longest_silence(others, begin, end)
    cluster.start(leader)
    cluster.wait_caught_up([leader])
    load.writers = [w for w in load.writers if w.node != leader]
    load.writers += [Writer(cluster, leader, k, load.pause) for k in range(WRITERS)]
    return silence, usual


def hold(cluster, load, seconds):
    """(writes, terms that passed) with nothing that would be a cause."""
    load.wait_all_write()
    term, count, begun = cluster.status(cluster.leader())['term'], load.count(), time.monotonic()
    while time.monotonic() < begun + seconds:
        load.wait_all_write()
        time.sleep(1)  # between two looks
    return load.count() - count, cluster.status(cluster.leader())['term'] - term


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def report_kills(kills):
    rows = []
    for name, values in (('next write', [k[0] for k in kills]),
                         ('all mounts', [k[1] for k in kills])):
        row = {'row': 'kill', 'until': name, 'kills': len(values),
               'median_ms': round(statistics.median(values) * 1000),
               'p99_ms': round(percentile(values, 0.99) * 1000),
               'worst_ms': round(max(values) * 1000)}
        print(f'{"kill -9 of the leader":<24} {name:<12} median {row["median_ms"]} ms, p99'
              f' {row["p99_ms"]} ms, worst {row["worst_ms"]} ms of {len(values)}')
        rows.append(row)
    return rows


def report_stops(stops):
    silences, usual = [s[0] for s in stops], [s[1] for s in stops]
    row = {'row': 'stop', 'stops': len(stops),
           'median_ms': round(statistics.median(silences) * 1000),
           'worst_ms': round(max(silences) * 1000),
           'usual_median_ms': round(statistics.median(usual) * 1000),
           'usual_worst_ms': round(max(usual) * 1000)}
    print(f'{"stop of the leader":<24} {"silence":<12} median {row["median_ms"]} ms, worst'
          f' {row["worst_ms"]} ms of {len(stops)}; without a stop median'
          f' {row["usual_median_ms"]} ms, worst {row["usual_worst_ms"]} ms')
    return row


def marks(kill, stop, terms):
    """True: all are met."""
    met = True
    for text, good in (
            (f'median after kill -9 {kill["median_ms"]} ms, below {MEDIAN_SECONDS * 1000:.0f}',
             kill['median_ms'] < MEDIAN_SECONDS * 1000),
            (f'p99 after kill -9 {kill["p99_ms"]} ms, below {P99_SECONDS * 1000:.0f}',
             kill['p99_ms'] < P99_SECONDS * 1000),
            (f'silence of a stop {stop["median_ms"]} ms in the median, below'
             f' {STOP_SECONDS * 1000:.0f}', stop['median_ms'] < STOP_SECONDS * 1000),
            (f'leaders that changed without cause {terms}, none', terms == 0)):
        print(f'mark: {text}: {"met" if good else "MISSED"}')
        met = met and good
    return met


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--stops', type=int, default=20)
    parser.add_argument('--hold-minutes', type=float, default=1.0)
    parser.add_argument('--pause-ms', type=float, default=0,
                        help='between the writes of one: what a machine in use can bear for an hour')
    parser.add_argument('--smoke', action='store_true', help='short; the numbers mean little')
    parser.add_argument('--check', action='store_true', help='exit 1 where a mark is missed')
    options = parser.parse_args()
    if options.smoke:
        options.kills, options.stops, options.hold_minutes = 3, 2, 0.05
    return options


def main():
    options = parse()
    cluster, spawner = Cluster(3, binary=find_binary()), Spawner()
    cluster.run = spawner.run
    try:
        cluster.make()
        load = Load(cluster, options.pause_ms / 1000)
        kills = [kill_leader(cluster, load) for _ in range(options.kills)]
        stops = [stop_leader(cluster, load) for _ in range(options.stops)]
        writes, terms = hold(cluster, load, options.hold_minutes * 60)
        load.end()
        cluster.check_running()
    finally:
        cluster.close()
        spawner.close()
    print(f'# three nodes on one machine, {os.cpu_count()} cores, {WRITERS} writers at each mount')
    rows = report_kills(kills) + [report_stops(stops)]
    rows.append({'row': 'hold', 'minutes': options.hold_minutes, 'writes': writes,
                 'terms': terms})
    print(f'{"nothing happens":<24} {options.hold_minutes:g} min       {writes} writes, {terms}'
          ' terms passed')
    met = marks(rows[1], rows[2], terms)
    for row in rows:
        print(json.dumps(row))
    return 1 if options.check and not met else 0


if __name__ == '__main__':
    sys.exit(main())
