#!/usr/bin/python3
"""flock(1) as a mutex of the whole cluster: a counter in a file, incremented from three hosts, with
the holder's host killed in between."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check_equal, in_parallel, limit, main, wait_for  # noqa: E402
from programs import mounts, run, start  # noqa: E402

TURNS = 1000  # of each of three hosts
TURNS_BESIDE_A_KILL = 60  # of each of the two others

# `inside` is made with O_EXCL: two within the lock at once would find it there.
INCREMENT = ('set -C; echo > inside || exit 1; '
             'read n < counter; echo $((n + 1)) >| counter; rm inside')
LOOP = r'''
for ((k = 0; k < COUNT; k++)); do
    flock -x lock -c "$INCREMENT"
done
'''

# Of hosts that may die at any point, and leave things: a whole new value, or none.
STEP = 'read n < counter; echo $((n + 1)) > new.$$; mv new.$$ counter'


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


def read(path):
    with open(path) as f:
        return f.read()


def locks(c, i):
    return json.loads(c.tierce('locks', '--json', data=i).text)


@limit(300)
def test_three_thousand_increments(t):
    roots = mounts(t.shared())
    write(f'{roots[0]}/counter', '0\n')

    def count(root):
        run('bash', '-euc', LOOP, cwd=root, COUNT=str(TURNS), INCREMENT=INCREMENT, seconds=290)
    in_parallel(count, [(root,) for root in roots], 295)
    for root in roots:
        check_equal(read(f'{root}/counter'), f'{3 * TURNS}\n', f'the counter on {root}')


@limit(300)
def test_the_holders_host_is_killed(t):
    """Its lock goes to those who wait, and nothing that they counted is lost; three times, so that the
    leader is among the victims."""
    c = t.cluster(3)
    write(c.path(0, 'counter'), '0\n')
    expected = 0
    for turn in range(3):
        victim = (c.leader() + turn) % 3 if turn < 2 else c.leader()
        others = [i for i in range(3) if i != victim]
        holder = start('flock', '-x', 'lock', '-c', f'{STEP}; echo inside; read line',
                       cwd=c.path(victim))
        check_equal(holder.stdout.readline(), 'inside\n', 'what the holder says')
        expected += 1
        waiting = [start('bash', '-euc', LOOP, cwd=c.path(i), COUNT=str(TURNS_BESIDE_A_KILL),
                         INCREMENT=STEP) for i in others]
        wait_for(lambda: len(locks(c, victim)) == 3, 'the others wait for the lock')
        c.kill9(victim)
        for process in waiting:
            _, err = process.communicate(timeout=120)
            check_equal((process.returncode, err), (0, ''), f'who waited in turn {turn}')
        expected += 2 * TURNS_BESIDE_A_KILL
        holder.communicate('\n', timeout=30)  # its descriptors are dead
        for i in others:
            check_equal(read(c.path(i, 'counter')), f'{expected}\n', f'the counter on {i}')
        c.start(victim)
        c.wait_ready()
        check_equal(read(c.path(victim, 'counter')), f'{expected}\n', 'on the host killed')


if __name__ == '__main__':
    main(globals())
