#!/usr/bin/python3
"""`echo line >> log` from three hosts at once; who follows a log on another host."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal, in_parallel, limit, main  # noqa: E402
from programs import bash, mounts, run, start  # noqa: E402

LINES = 10000  # of each host

# Lengths from short to longer than two grains; the end of the line says how long it is.
BASH = r'''
pad=$(printf '%*s' 300 '' | tr ' ' x)
for ((k = 0; k < COUNT; k++)); do
    echo "$WHO $k ${pad:0:k * 7 % 300} $((k * 7 % 300))" >> log
done
'''
DASH = r'''
pad=x k=0
while [ $k -lt $COUNT ]; do
    if [ ${#pad} -gt 200 ]; then pad=x; else pad=${pad}xy; fi
    echo "$WHO $k $pad ${#pad}" >> log
    k=$((k + 1))
done
'''
LINE = re.compile(r'(\d) (\d+) ([xy]*) (\d+)')


def check_log(path):
    following = [0, 0, 0]
    with open(path) as f:
        lines = f.read().split('\n')
    check_equal(lines.pop(), '', f'what follows the last line of {path}')
    for number, line in enumerate(lines):
        match = LINE.fullmatch(line)
        check(match and len(match[3]) == int(match[4]),
              f'line {number} of {path} is torn: {line[:100]!r}')
        who, k = int(match[1]), int(match[2])
        check_equal(k, following[who], f'the next line of host {who}, at {number} of {path}')
        following[who] += 1
    check_equal(following, [LINES] * 3, f'lines of each host in {path}')


@limit(300)
def test_thirty_thousand_lines(t):
    roots = mounts(t.shared())
    shells = [('bash', BASH), ('bash', BASH), ('dash', DASH)]

    def append(root, who, shell, script):
        run(shell, '-euc', script, cwd=root, WHO=str(who), COUNT=str(LINES), seconds=290)
    in_parallel(append, [(roots[k], k, *shells[k]) for k in range(3)], 290)
    for root in roots:
        check_log(f'{root}/log')


def test_tail_follows(t):
    """tail -F on two other hosts, past a rotation and a truncation."""
    roots = mounts(t.shared())
    bash('echo 0 > followed', cwd=roots[0])
    tails = [start('stdbuf', '-oL', 'tail', '-n', '+1', '-s', '0.02', '-F', 'followed', cwd=root)
             for root in roots[1:]]
    for tail in tails:
        check_equal(tail.stdout.readline(), '0\n', 'the first line')
    steps = ['echo {k} >> followed'] * 20 + ['mv followed followed.1; echo {k} > followed']
    steps += ['echo {k} >> followed'] * 5 + [': > followed; echo {k} >> followed']
    for k, step in enumerate(steps + ['printf "%s\\n" {k} | tee -a followed'] * 5, 1):
        bash(step.format(k=k), cwd=roots[k % 3 if step.startswith('echo') else 0])
        for tail in tails:
            check_equal(tail.stdout.readline(), f'{k}\n', f'what follows line {k - 1}')
    for tail in tails:
        tail.terminate()
        tail.communicate()


if __name__ == '__main__':
    main(globals())
