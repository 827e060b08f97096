#!/usr/bin/python3
"""tierce inspect: what it says of the files of stopped nodes, whole and damaged."""

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import WAIT_SECONDS, check, check_equal, main, wait_for  # noqa: E402

SMALL_SEGMENTS = {'segment_mib': 16}


def facts(c, *arguments, data=0, code=0):
    """The JSON lines of one inspect."""
    result = c.tierce('inspect', '--json', *arguments, data=data, code=code)
    return [json.loads(line) for line in result.text.splitlines()]


def kinds(found, kind):
    return [fact for fact in found if fact['kind'] == kind]


def digests(data):
    found = {}
    for path in sorted(glob.glob(f'{data}/**', recursive=True)):
        if os.path.isfile(path):
            with open(path, 'rb') as f:
                found[path] = hashlib.sha256(f.read()).hexdigest()
    return found


def flip(path, offset):
    with open(path, 'r+b') as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 0x10]))


def fill(c, t, count=5, size=4 << 20):
    """More than one segment of values."""
    for i in range(count):
        c.tierce('put', f'large/{i}', data=0, input=t.random_bytes(size))
    for i in range(20):
        c.tierce('put', f'small/{i}', f'value {i}', data=0)
    c.tierce('del', 'small/3', data=0)


def test_a_stopped_node(t):
    """All that is there is told, in both forms; nothing is wrong and nothing is changed."""
    c = t.cluster(1, mounted=False, conf=SMALL_SEGMENTS)
    fill(c, t)
    status = c.status(0)
    running = c.tierce('inspect', data=0, code=1)
    check(re.search('runs on', running.error) and 'tierce stop' in running.error,
          f'no remedy\n{running}')
    c.stop(0)
    before = digests(c.nodes[0].data)
    found = facts(c, '--verify')
    check_equal(kinds(found, 'problem'), [], 'problems')
    segments = kinds(found, 'segment')
    check(len(segments) >= 2, f'one segment only: {segments}')
    check(segments[-1]['last_index'] >= status['last'], 'the log ends where it ended')
    check_equal([s['state'] for s in segments].count('active'), 1, 'active segments')
    check_equal({f['cluster'] for f in found if 'cluster' in f}, {status['cluster']},
                'the cluster')
    check_equal(len(kinds(found, 'hard_state')), 2, 'copies of the hard state')
    check(kinds(found, 'verified')[0]['bytes'] > 20 << 20, 'everything was read')

    text = c.tierce('inspect', data=0).text
    for fact in segments:
        check(os.path.basename(fact['file']) in text, f'{fact["file"]} is not in\n{text}')
    check_equal(digests(c.nodes[0].data), before, 'the files after looking at them')


def test_one_file(t):
    """A file by its path or by its name alone; entries, and the records in them."""
    c = t.cluster(1, mounted=False)
    c.tierce('put', 'a/name', 'value', data=0)
    c.stop(0)
    data = c.nodes[0].data
    segment = os.path.basename(glob.glob(f'{data}/log/*.seg')[0])
    for file in (segment, f'log/{segment}', f'{data}/log/{segment}'):
        found = facts(c, file)
        entries, records = kinds(found, 'entry'), kinds(found, 'record')
        check_equal([e['index'] for e in entries], list(range(1, len(entries) + 1)), 'entries')
        check_equal(sum(e['records'] for e in entries), len(records), 'records')
        name = 'D'.encode().hex()
        check(any(r['key'].startswith(name) and r['key'].endswith(b'name'.hex())
                  for r in records), 'the name that was put is among the keys')
    text = c.tierce('inspect', segment, data=0).text
    check(re.search(r'\n  entry .*\n    record ', text), f'not entries and records:\n{text}')
    check_equal(len(kinds(facts(c, 'raft.state'), 'hard_state')), 2, 'slots of raft.state')
    hint = max(kinds(facts(c, 'commit.hint'), 'commit_hint'), key=lambda h: h['commit'])
    check_equal([e['term'] for e in entries if e['index'] == hint['commit']], [hint['term']],
                'the term of the entry that commit.hint names')
    missing = c.tierce('inspect', 'frobnicate', data=0, code=1)
    check('frobnicate' in missing.error, str(missing))
    other = c.tierce('inspect', 'tierce.conf', data=0, code=1)
    check('tierce.conf' in other.error, str(other))
    nowhere = c.tierce('inspect', data=f'{c.base}/nowhere', code=1)
    check('no store' in nowhere.error and '--data' in nowhere.error, str(nowhere))


def test_damage_is_told(t):
    """A wrong byte anywhere in what was committed: exit 1 and a line; without --verify, exit 0."""
    c = t.cluster(1, mounted=False, conf=SMALL_SEGMENTS)
    fill(c, t)
    c.stop(0)
    data = c.nodes[0].data
    first = sorted(glob.glob(f'{data}/log/*.seg'))[0]
    size = os.path.getsize(first)
    places = [(first, t.random.randrange(size)) for _ in range(8)] + [(first, 20)]
    places += [(f'{data}/raft.state', 33), (f'{data}/raft.state', 4096 + 41)]
    for path, offset in places:
        flip(path, offset)
        result = c.tierce('inspect', '--verify', data=0, code=1)
        lines = [line for line in result.text.splitlines() if line.startswith('problem')]
        check(lines and os.path.basename(path) in lines[0],
              f'byte {offset} of {path} is wrong\n{result}')
        check('problem' in result.error, f'stderr does not say where to look\n{result}')
        c.tierce('inspect', data=0)
        flip(path, offset)
    os.rename(first, f'{first}.away')
    check(kinds(facts(c, '--verify', code=1), 'problem'), 'a missing segment')
    os.rename(f'{first}.away', first)
    check_equal(kinds(facts(c, '--verify'), 'problem'), [], 'problems once all is mended')


def merge(c, t, merges=2):
    """Overwrites until the node has merged so often."""
    piece = t.random_bytes(3 << 20)
    for i in range(200):
        c.tierce('put', f'large/{i % 5}', data=0, input=piece)
        c.tierce('put', f'small/{i % 50}', f'value {i}', data=0)
        if c.status(0)['merges'] >= merges:
            return
    wait_for(lambda: c.status(0)['merges'] >= merges, f'{merges} merges after 600 MiB')


def test_what_was_merged(t):
    """Merged files, their hints, and the manifest: shown, found whole, and found damaged."""
    c = t.cluster(1, mounted=False, conf=SMALL_SEGMENTS)
    merge(c, t)
    c.stop(0)
    found = facts(c, '--verify')
    check_equal(kinds(found, 'problem'), [], 'problems')
    manifest, merged = kinds(found, 'manifest'), kinds(found, 'merged')
    check(len(manifest) == 1 and merged, f'no manifest, or nothing merged: {found}')
    check(manifest[0]['applied_index'] >= manifest[0]['merged_index'] > 0, str(manifest))
    segments, hints = kinds(found, 'segment'), kinds(found, 'hint')
    check_equal(segments[0]['first_index'], manifest[0]['merged_index'] + 1, 'the log begins')
    check(len(hints) >= len(merged), 'a hint for each merged file')
    shown = facts(c)
    check_equal([(s['first_index'], s['last_index']) for s in kinds(shown, 'segment')],
                [(s['first_index'], s['last_index']) for s in segments],
                'segments by their hints, and by reading them')

    data = c.nodes[0].data
    file = merged[0]['file']
    records = kinds(facts(c, f'{data}/{file}'), 'record')
    check_equal(len(records), merged[0]['records'], 'its records')
    summary = facts(c, f'{data}/{file.replace(".mrg", ".hint")}')
    check_equal([r['offset'] for r in kinds(summary, 'record')],
                [r['offset'] for r in records], 'the records that its hint names')
    check(kinds(facts(c, 'MANIFEST'), 'manifest_file'), 'the files that MANIFEST names')
    away = f'{c.base}/away'
    os.mkdir(away)
    for name in glob.glob(f'{data}/log/*') + [f'{data}/raft.state', f'{data}/commit.hint']:
        if name.endswith('.new'):
            continue
        copy = f'{away}/copy'  # told by how it begins; nothing is beside it
        shutil.copyfile(name, copy)
        alone = facts(c, copy)
        check(alone and not kinds(alone, 'problem'), f'{name}, copied: {alone}')
        check_equal(len(kinds(alone, 'note')), int('/log/' in name and name.endswith('.hint')),
                    f'notes on {name}')
    for name in (file, file.replace('.mrg', '.hint'), 'log/MANIFEST'):
        path = f'{data}/{name}'
        for offset in (9, t.random.randrange(os.path.getsize(path))):
            flip(path, offset)
            problems = kinds(facts(c, '--verify', code=1), 'problem')
            check(any(p['file'] == name for p in problems),
                  f'byte {offset} of {name} is wrong: {problems}')
            flip(path, offset)
    check_equal(kinds(facts(c, '--verify'), 'problem'), [], 'problems once all is mended')
    os.rename(f'{data}/log/MANIFEST', f'{away}/MANIFEST')
    found = facts(c, '--verify', code=1)
    check_equal([p['file'] for p in kinds(found, 'problem')], ['log/MANIFEST'], 'problems')
    check_equal([n for n in kinds(found, 'note') if 'removes it' in n['what']], [], 'notes')
    check_equal(len(kinds(found, 'merged')), len(merged), 'merged files verified')
    told = c.tierce('inspect', '--verify', data=0, code=1)
    check('1 problem was found' in told.error, told.error)


def test_after_a_kill(t):
    """A crash leaves nothing that is wrong: at most what the next start cuts."""
    c = t.cluster(1, mounted=False)
    for i in range(10):
        c.tierce('put', f'k{i}', 'v', data=0)
    c.kill9(0)
    found = facts(c, '--verify')
    check_equal(kinds(found, 'problem'), [], 'problems after kill -9')
    c.start(0)
    check_equal(c.tierce('get', 'k9', data=0).text, 'v', 'its value')


def test_a_node_may_start_meanwhile(t):
    """A look that goes on does not keep a node from starting, and says that it was void."""
    c = t.cluster(1, mounted=False)
    for i in range(300):
        c.tierce('put', f'directory/{i}', 'v', data=0)
    c.stop(0)
    data = c.nodes[0].data
    segment = os.path.basename(glob.glob(f'{data}/log/*.seg')[0])
    # It waits for its output to be read, after the first 64 KiB of far more.
    look = subprocess.Popen([c.binary, 'inspect', '--data', data, segment],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=c.environment)
    try:
        begin = look.stdout.read(1)
        check(begin, 'it says something')
        c.start(0)
        wait_for(lambda: c.status(0), 'the node answers')
        _, error = look.communicate(timeout=WAIT_SECONDS)
        check_equal(look.returncode, 1, 'its exit code')
        check(b'meanwhile' in error, f'it says: {error!r}')
    finally:
        look.kill()
        look.wait()


if __name__ == '__main__':
    main(globals())
