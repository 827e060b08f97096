#!/usr/bin/python3
"""sqlite3 with three hosts writing to one database under its own locks, in the journal modes that
do not need shared memory."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal, in_parallel, limit, main  # noqa: E402
from programs import mounts, run, start  # noqa: E402

TRANSACTIONS = 100  # of each host, in each mode
KILLS = 12
BUSY_MS = 120000

SCHEMA = '''
PRAGMA journal_mode = {mode};
CREATE TABLE counter(n INTEGER);
INSERT INTO counter VALUES(0);
CREATE TABLE log(host INTEGER, k INTEGER, n INTEGER UNIQUE, pad BLOB);
CREATE INDEX log_host ON log(host, k);
'''

# The number that a transaction read is the one that it writes, or another came in between. What
# is printed was committed.
TRANSACTION = '''
BEGIN IMMEDIATE;
UPDATE counter SET n = n + 1;
INSERT INTO log VALUES({host}, {k}, (SELECT n FROM counter), randomblob(abs(random() % 3000)));
COMMIT;
SELECT 'committed {k}';
'''


def sqlite(*arguments):
    """The arguments of a program that waits for locks, and prints each line at once."""
    return ['stdbuf', '-oL', 'sqlite3', '-bail', '-batch', '-cmd', f'.timeout {BUSY_MS}', *arguments]


def transactions(mode, host, first, count):
    return f'PRAGMA journal_mode = {mode};' + ''.join(
        TRANSACTION.format(host=host, k=k) for k in range(first, first + count))


def check_database(root, name, rows):
    """By each host's own look: no page of an older state is left in a cache."""
    said = run(*sqlite(name), cwd=root, input='PRAGMA integrity_check; SELECT n FROM counter;'
               ' SELECT count(*) FROM log; SELECT max(n) FROM log;').split()
    check_equal(said, ['ok', str(rows), str(rows), str(rows)],
                f'integrity, counter, rows and the highest number, on {root}')


def write_from_all(t, mode):
    roots = mounts(t.shared())
    name = f'{mode}.db'
    run(*sqlite(name), cwd=roots[0], input=SCHEMA.format(mode=mode))

    def write(root, host):
        run(*sqlite(name), cwd=root, input=transactions(mode, host, 0, TRANSACTIONS),
            seconds=280)
    in_parallel(write, [(root, host) for host, root in enumerate(roots)], 290)
    for root in roots:
        check_database(root, name, 3 * TRANSACTIONS)
        left = [each for each in os.listdir(root) if each.startswith(f'{name}-')]
        check_equal(left, [f'{name}-journal'] if mode != 'DELETE' else [], 'files beside it')


@limit(300)
def test_journal_mode_delete(t):
    write_from_all(t, 'DELETE')


@limit(300)
def test_journal_mode_truncate(t):
    write_from_all(t, 'TRUNCATE')


@limit(300)
def test_journal_mode_persist(t):
    write_from_all(t, 'PERSIST')


@limit(300)
def test_killed_writers(t):
    """Whose locks go with them, and whose journals the next one on another host rolls back."""
    roots = mounts(t.shared())
    run(*sqlite('killed.db'), cwd=roots[0], input=SCHEMA.format(mode='DELETE'))
    committed, between = 0, 0
    for turn in range(KILLS):
        root = roots[turn % 3]
        victim = start(*sqlite('killed.db'), cwd=root)
        victim.stdin.write(transactions('DELETE', turn, 0, 200))
        victim.stdin.flush()
        seen = victim.stdout.readline()  # the journal mode
        took, at = 0, time.monotonic()
        for _ in range(t.random.randrange(2, 20)):
            seen = victim.stdout.readline()
            check('committed' in seen, f'turn {turn}: {seen!r}')
            took, at = time.monotonic() - at, time.monotonic()
        time.sleep(t.random.random() * took)  # somewhere within the next one
        victim.send_signal(signal.SIGKILL)
        rest = victim.stdout.read()
        victim.communicate()
        told = (seen + rest).count('\n') and int((seen + rest).split()[-1]) + 1
        between += os.path.exists(f'{root}/killed.db-journal')
        rows = run(*sqlite('killed.db'), cwd=roots[(turn + 1) % 3],
                   input=f'PRAGMA integrity_check; SELECT count(*) FROM log WHERE host = {turn};'
                   ).split()
        check_equal(rows[0], 'ok', f'integrity after kill {turn}')
        # The transaction whose end was not told may be there.
        check(told <= int(rows[1]) <= told + 1, f'turn {turn}: {told} told, {rows[1]} there')
        committed += int(rows[1])
    for root in roots:
        check_database(root, 'killed.db', committed)
    check(between, f'none of {KILLS} kills left a journal')


@limit(120)
def test_reader_sees_each_commit(t):
    """A connection that stays open on another host."""
    roots = mounts(t.shared())
    run(*sqlite('seen.db'), cwd=roots[0], input=SCHEMA.format(mode='DELETE'))
    reader = start(*sqlite('seen.db'), cwd=roots[1])
    for k in range(60):
        run(*sqlite('seen.db'), cwd=roots[k % 2 * 2], input=transactions('DELETE', 0, k, 1))
        reader.stdin.write('SELECT n, (SELECT count(*) FROM log) FROM counter;\n')
        reader.stdin.flush()
        check_equal(reader.stdout.readline(), f'{k + 1}|{k + 1}\n', f'what is read after {k}')
    reader.communicate()
    check_equal(reader.returncode, 0, 'how the reader ended')


if __name__ == '__main__':
    main(globals())
