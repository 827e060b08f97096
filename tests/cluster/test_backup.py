#!/usr/bin/python3
"""tierce backup and restore: a copy of one moment, in a cluster of its own."""

import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (TOKEN, WAIT_SECONDS, Node, Worker, check, check_equal, main,  # noqa: E402
                     wait_for)

SIZES = (0, 1, 100, 4096, 4097, 65536, 200000, (1 << 20) + 5, 3 << 20)


def write_tree(t, root):
    """Files of all sizes, in directories, with modes and times; links."""
    for depth, name in enumerate(('plain', 'deep/er/still', 'empty')):
        os.makedirs(f'{root}/{name}')
        if name == 'empty':
            continue
        for size in SIZES:
            path = f'{root}/{name}/{size}'
            with open(path, 'wb') as f:
                f.write(t.random_bytes(size))
            os.chmod(path, 0o600 | size % 64)
            os.utime(path, (1e9 + size, 1e9 + depth * 1000 + size))
    os.symlink('plain/100', f'{root}/link')
    with open(f'{root}/sparse', 'wb') as f:
        f.truncate(2 << 20)
        f.seek(1 << 20)
        f.write(b'middle')
    for i in range(100):
        with open(f'{root}/plain/gone{i}', 'w') as f:
            f.write('x' * 5000)
    for i in range(100):
        os.unlink(f'{root}/plain/gone{i}')


def read_tree(root, without=()):
    """{path: what it is} of everything below."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            short = os.path.relpath(path, root)
            st = os.lstat(path)
            if short in without:
                continue
            if stat.S_ISLNK(st.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(st.st_mode):
                with open(path, 'rb') as f:
                    content = f.read()
            else:
                content = None
            size = st.st_size if content is not None else 0
            found[short] = (st.st_mode, size, st.st_uid, st.st_mtime_ns, content)
    return found


def same_tree(found, expected, what):
    check_equal(sorted(found), sorted(expected), f'names {what}')
    for name, value in expected.items():
        check(found[name] == value, f'{name} is not the same {what}')


def place(c, name):
    """A node of another cluster, known to `c` only to be started and cleaned up."""
    node = Node(c.base, len(c.nodes), name)
    os.makedirs(node.mount, exist_ok=True)
    c.nodes.append(node)
    return node


def restore(c, file, name):
    """A new cluster of one node, mounted. Returns its node and the token for the next."""
    node = place(c, name)
    result = c.tierce('restore', file, '--listen', node.address, '--name', name, node.mount,
                      data=node.index)
    token = TOKEN.search(result.text)
    check(token, f'no join line\n{result}')
    c._started(node.index)
    return node, token.group()


class Counting:
    """Writes ascending numbers to `a`, then `b`: at every moment b is a, or the one before."""

    def __init__(self, root):
        self.root, self.stopping, self.last = root, threading.Event(), 0
        self.worker = Worker(self.run)
        wait_for(lambda: self.last > 3, 'something is written')

    def write(self, name, text):
        with open(f'{self.root}/{name}', 'w') as f:
            f.write(text)

    def run(self):
        i = 0
        while not self.stopping.is_set():
            i += 1
            self.write('a', str(i))
            self.write('b', str(i))
            self.write(f'noise{i % 50}', 'x' * (i % 9000))
            self.last = i

    def stop(self):
        self.stopping.set()
        self.worker.result()


def numbers(root):
    return [int(open(f'{root}/{name}').read()) for name in ('a', 'b')]


def test_one_moment_under_writes(t):
    """Backups from each node while two hosts write; the last is restored, and is of one moment
    between its begin and its end. A second node joins what was restored."""
    c = t.cluster(3)
    for node in c.nodes[:3]:
        os.makedirs(f'{node.mount}/count{node.index}', exist_ok=True)
    write_tree(t, f'{c.nodes[0].mount}')
    skip = [f'count{i}' for i in range(3)]
    counting = [Counting(f'{c.nodes[i].mount}/count{i}') for i in (0, 1)]
    files = []
    for i in range(3):
        c.wait_caught_up([i])
        begun = [one.last for one in counting]
        file = f'{c.base}/backup{i}'
        result = c.tierce('backup', file, data=i)
        check('entry' in result.text, f'it does not say as of when\n{result}')
        check_equal(stat.S_IMODE(os.stat(file).st_mode), 0o600, 'the mode of a backup')
        files.append((file, begun, [one.last + 1 for one in counting]))
    for one in counting:
        one.stop()
    expected = {k: v for k, v in read_tree(c.nodes[2].mount).items()
                if k.split('/')[0] not in skip}
    same_tree({k: v for k, v in read_tree(c.nodes[0].mount).items()
               if k.split('/')[0] not in skip}, expected, 'on two nodes')
    cluster = c.status(0)['cluster']

    for file, begun, ended in files:
        c.tierce('inspect', '--verify', file)
        shown = c.tierce('inspect', file).text
        check(shown.startswith('backup ') and shown.count('\nbackup ') == 0, shown[:200])
    file, begun, ended = files[-1]
    node, token = restore(c, file, 'restored')
    status = c.status(node.index)
    check(status['cluster'] != cluster, 'it is a new cluster')
    check_equal([m['name'] for m in status['members']], ['restored'], 'its members')
    same_tree({k: v for k, v in read_tree(node.mount).items() if k.split('/')[0] not in skip},
              expected, 'in the restored cluster')
    for i in (0, 1):
        a, b = numbers(f'{node.mount}/count{i}')
        check(b in (a, a - 1), f'count{i}: a is {a} and b is {b}: of no one moment')
        check(begun[i] <= a <= ended[i],
              f'count{i} is {a}, and the backup was made from {begun[i]} to {ended[i]}')

    with open(f'{node.mount}/new', 'w') as f:
        f.write('after the restore')
    second = place(c, 'second')
    c.tierce('join', token, '--listen', second.address, '--name', 'second', second.mount,
             data=second.index)
    c._started(second.index)
    wait_for(lambda: all(m['voter'] for m in c.status(second.index)['members']),
             'the second node votes')
    wait_for(lambda: os.path.exists(f'{second.mount}/new'), 'it has what is new')
    same_tree(read_tree(second.mount), read_tree(node.mount), 'on the node that joined')
    with open(f'{second.mount}/new', 'a') as f:
        f.write(', and here')
    check_equal(open(f'{node.mount}/new').read(), 'after the restore, and here', 'the new file')
    # Restarts find it again.
    c.stop(second.index)
    c.stop(node.index)
    for i in (node.index, second.index):  # one has what was restored, the other a snapshot of it
        c.tierce('inspect', '--verify', data=i)
    c.start_all([node.index, second.index])
    check_equal(numbers(f'{node.mount}/count0'), numbers(f'{second.mount}/count0'),
                'the counters after a restart')


def flip(path, offset):
    with open(path, 'r+b') as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 1 << offset % 8]))


def test_a_wrong_byte_is_noticed(t):
    """Wherever it is; nothing is made of such a backup."""
    c = t.cluster(1, mounted=False)
    for size in (10, 100000, 2 << 20):
        c.tierce('put', f'dir/{size}', data=0, input=t.random_bytes(size))
    file = f'{c.base}/backup'
    c.tierce('backup', file, data=0)
    size = os.path.getsize(file)
    node = Node(c.base, 1, 'bad')
    offsets = [0, 9, 40, 62, 64, 65, size - 1, size - 40, size - 100]
    offsets += [t.random.randrange(size) for _ in range(30)]
    for offset in offsets:
        flip(file, offset)
        result = c.tierce('restore', file, '--listen', node.address, data=node.data, code=1)
        check(file in result.error, f'it does not name the file\n{result}')
        check(not os.path.exists(node.data), f'byte {offset}: {node.data} was made')
        if offset >= 8:
            c.tierce('inspect', '--verify', file, code=1)
        flip(file, offset)
    for length in (0, 10, 64, size // 2, size - 1):
        shutil.copy(file, f'{file}.short')
        os.truncate(f'{file}.short', length)
        c.tierce('restore', f'{file}.short', data=node.data, code=1)
    c.tierce('restore', file, '--listen', node.address, '--name', 'bad', data=node.data)


CONTROL, BACKUP, BACKUP_RECORDS, BACKUP_ENTRIES = 0x30, 8, 9, 10


class Control:
    """A connection to a node's control socket."""

    def __init__(self, node):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_SECONDS)
        self.socket.connect(f'{node.data}/control')

    def read(self, size):
        data = b''
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            check(piece, 'the node closed the connection')
            data += piece
        return data

    def ask(self, command, fields=b''):
        """The fields of a good answer."""
        value = bytes([command]) + fields
        self.socket.sendall(struct.pack('<BHI', CONTROL, 7, len(value)) + value)
        _, _, length = struct.unpack('<BHI', self.read(7))
        answer = self.read(length)
        check_equal(answer[0], 0, f'the status of {answer[:200]!r}')
        return answer[1:]

    def close(self):
        self.socket.close()


def overwrite(c, t, merges):
    """Until the node has merged so many times more."""
    piece = t.random_bytes(3 << 20)
    before = c.status(0)['merges']
    for i in range(200):
        c.tierce('put', f'large/{i % 3}', data=0, input=piece)
        if c.status(0)['merges'] >= before + merges:
            return
    wait_for(lambda: c.status(0)['merges'] >= before + merges, 'merges after 600 MiB')


def test_the_log_stays_while_a_backup_lasts(t):
    """However long it takes and whatever is merged: but not for longer."""
    c = t.cluster(1, mounted=False, conf={'segment_mib': 16})
    overwrite(c, t, 1)
    control = Control(c.nodes[0])
    begin = struct.unpack_from('<Q', control.ask(BACKUP), 16)[0]
    for _ in range(30):
        c.tierce('put', 'large/0', data=0, input=t.random_bytes(3 << 20))
    first = control.ask(BACKUP_ENTRIES, struct.pack('<QQ', begin + 1, 0))
    check_equal(struct.unpack_from('<Q', first, 8 + 21)[0], begin + 1, 'the first entry')
    control.ask(BACKUP_RECORDS, struct.pack('<H', 0))
    before = c.status(0)['log_bytes']
    control.close()
    overwrite(c, t, 2)
    wait_for(lambda: c.status(0)['log_bytes'] < before, 'the log is shortened again')


def test_not_into_the_mount_itself(t):
    """It would feed on itself, by whatever path, and before a byte is written."""
    c = t.cluster(1)
    with open(c.path(0, 'k'), 'w') as f:
        f.write('v')
    os.mkdir(c.path(0, 'd'))
    os.symlink(c.path(0), f'{c.base}/link')
    for file in (c.path(0, 'backup'), c.path(0, 'd/backup'), f'{c.base}/link/backup'):
        into = c.tierce('backup', file, data=0, code=1)
        check('lies in a mount of tierce' in into.error and file in into.error, str(into))
    check_equal(sorted(os.listdir(c.path(0))), ['d', 'k'], 'what is in the mount')
    c.tierce('backup', f'{c.base}/backup', data=0)
    here = subprocess.run([c.binary, 'backup', '--data', c.nodes[0].data, 'backup'],
                          cwd=c.path(0), env=c.environment, capture_output=True, text=True)
    check_equal(here.returncode, 1, 'a backup into the current directory')


def test_what_is_refused(t):
    c = t.cluster(1, mounted=False)
    file = f'{c.base}/backup'
    c.tierce('put', 'k', 'v', data=0)
    c.tierce('backup', file, data=0)
    first = open(file, 'rb').read()
    check(b'PRIVATE KEY' not in first, 'the key of the cluster is in the backup')
    over = c.tierce('restore', file, data=0, code=1)
    check('already' in over.error, str(over))
    here = c.tierce('backup', c.base, data=0, code=1)
    check(c.base in here.error, str(here))
    nowhere = c.tierce('backup', f'{c.base}/no/where', data=0, code=1)
    check('no/where' in nowhere.error, str(nowhere))
    none = c.tierce('restore', f'{c.base}/none', data=f'{c.base}/x', code=1)
    check('none' in none.error, str(none))
    # It is replaced by the next one, in one step.
    c.tierce('put', 'k', 'another value', data=0)
    c.tierce('backup', file, data=0)
    check(open(file, 'rb').read() != first, 'the second backup is the first')
    check(not os.path.exists(f'{file}.new'), 'a rest is left')
    c.stop(0)
    down = c.tierce('backup', file, data=0, code=1)
    check(re.search('no node', down.error), str(down))


def test_without_a_majority(t):
    """A node that is left alone still gives what it has, and says so."""
    c = t.cluster(3, mounted=False)
    c.tierce('put', 'k', 'v', data=0)
    c.wait_caught_up([0, 1, 2])
    c.kill9(1, 2)
    wait_for(lambda: not c.status(0)['quorum'], 'it knows that it is alone')
    result = c.tierce('backup', f'{c.base}/backup', data=0)
    check('warning' in result.error and 'majority' in result.error, str(result))
    node = place(c, 'restored')
    c.tierce('restore', f'{c.base}/backup', '--listen', node.address, data=node.index)
    c.mounted = False
    c.start(node.index)
    check_equal(c.tierce('get', 'k', data=node.index).text, 'v', 'its value')


if __name__ == '__main__':
    main(globals())
