#!/usr/bin/python3
"""tierce recover --force: a cluster of one node out of what a stopped node has."""

import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import TOKEN, check, check_equal, main, wait_for  # noqa: E402

FILES = 40
ROUNDS = 20


def write_files(t, c, i, prefix):
    """Acknowledged by a majority, of all sizes; what they are."""
    files = {}
    for k in range(FILES):
        name, content = f'{prefix}{k}', t.random_bytes(t.random.choice((10, 5000, 200000)))
        with open(c.path(i, name), 'wb') as f:
            f.write(content)
        files[name] = content
    return files


def check_files(c, i, files):
    for name, content in files.items():
        with open(c.path(i, name), 'rb') as f:
            check(f.read() == content, f'{name} at node {i} is not what was written')


def recover(c, i, *arguments, code=0):
    return c.tierce('recover', *arguments, data=i, code=code)


def snapshot_of(directory):
    """What stands in a directory, but for the lock's pid."""
    seen = {}
    for path, _, names in os.walk(directory):
        for name in names:
            file = os.path.join(path, name)
            seen[file] = (name != 'lock' and os.stat(file).st_mtime_ns, os.stat(file).st_size)
    return seen


def test_two_of_three_are_lost(t):
    c = t.cluster(3)
    files = write_files(t, c, c.leader(), 'file')
    c.wait_caught_up(range(3))
    old = c.status(2)
    c.kill9(0, 1)
    shutil.rmtree(c.nodes[1].data)
    check('in use' in recover(c, 2, '--force', code=1).error, 'a running node is recovered')
    c.stop(2)

    before = snapshot_of(c.nodes[2].data)
    told = recover(c, 2, code=1)
    check_equal(snapshot_of(c.nodes[2].data), before, 'files after no --force')
    for word in ('new id', 'is lost', old['cluster']):
        check(word in told.text, f'it does not say "{word}":\n{told}')
    check('nothing was changed' in told.error, f'{told}')

    made = recover(c, 2, '--force')
    token = TOKEN.search(made.text).group()
    c.start(2)
    wait_for(lambda: c.status(2)['quorum'], 'it leads itself')
    new = c.status(2)
    check(new['cluster'] != old['cluster'] and new['id'] != old['id'], 'the ids are old')
    check_equal([m['name'] for m in new['members']], ['n2'], 'its members')
    check_files(c, 2, files)
    files.update(write_files(t, c, 2, 'later'))

    # The former cluster's other node is a stranger: it neither gets in nor disturbs.
    c.start(0)
    wait_for(lambda: c.status(2)['refused'] > new['refused'], 'it was refused')
    check_equal(c.status(0)['quorum'], False, 'the quorum of the former node')
    check_equal(c.status(2)['term'], new['term'], 'the term')
    c.kill9(0)

    for i in (0, 1):
        shutil.rmtree(c.nodes[i].data, ignore_errors=True)
        joined = c.tierce('join', token, '--listen', c.nodes[i].address, '--name', f'n{i}',
                          data=i)
        token = TOKEN.search(joined.text).group()
        c.start(i)
    c.wait_ready()
    for i in range(3):
        check_files(c, i, files)


def test_killed_at_any_moment(t):
    c = t.cluster(1)
    files = write_files(t, c, 0, 'file')
    c.stop(0)
    old = c.tierce('inspect', '--json', data=0).text
    data = c.nodes[0].data
    kept = f'{data}-kept'
    shutil.copytree(data, kept)
    begun = time.monotonic()
    c.tierce('recover', '--force', data=0)
    takes = time.monotonic() - begun
    kills = 0
    for k in range(ROUNDS):
        shutil.rmtree(data)
        shutil.copytree(kept, data)
        process = subprocess.Popen([c.binary, 'recover', '--force', '--data', data],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # No event tells these moments: from the first to the usual end, whatever that is here.
        time.sleep(takes * k / ROUNDS)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            continue
        kills += 1
        c.tierce('recover', '--force', data=0)
        check(c.tierce('inspect', '--verify', '--json', data=0).text != old, 'nothing was done')
        check(not os.path.exists(f'{data}/recovery'), 'something is left')
    check(kills > 0, 'it was never killed')
    c.start(0)
    wait_for(lambda: c.status(0)['quorum'], 'it leads itself')
    check_files(c, 0, files)


if __name__ == '__main__':
    main(globals())
