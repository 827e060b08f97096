#!/usr/bin/python3
"""The command line: every command and option, and what bad input gets."""

import errno
import glob
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (ROOT, TOKEN, WAIT_SECONDS, Failure, Node, alive, check,  # noqa: E402
                     check_equal, free_port, is_mounted, main, wait_for)

COMMANDS = ('init', 'join', 'invite', 'mount', 'serve', 'stop', 'status', 'get', 'put', 'del',
            'ls', 'backup', 'restore', 'inspect', 'help')


def spare(c, name='spare'):
    """A node's place in this cluster's directory that is not made yet."""
    node = Node(c.base, len(c.nodes), name)
    os.makedirs(node.mount, exist_ok=True)
    return node


def add(c, node):
    """Lets the cluster start, stop, and clean up after, a node made by hand."""
    node.index = len(c.nodes)
    c.nodes.append(node)
    return node.index


def says(result, *words):
    """The message names the thing and the remedy: each of `words` (a regex) is in it."""
    check(result.error.strip(), f'no message\n{result}')
    check(len(result.error.strip().splitlines()) <= 4, f'more than a message\n{result}')
    for word in words:
        check(re.search(word, result.error, re.IGNORECASE),
              f'the message does not say {word!r}\n{result}')


def nothing_made(path):
    left = os.listdir(path) if os.path.isdir(path) else []
    check(not left, f'{path} was left half-made: {left}')


# ---- Usage ---------------------------------------------------------------------------


def test_help_and_version(t):
    c = t.cluster(0)
    version = c.tierce('--version').text
    declared = re.search(r"version: '([0-9.]+)'", open(f'{ROOT}/meson.build').read()).group(1)
    check(declared in version and len(version.splitlines()) == 1, f'--version says {version!r}')
    text = c.tierce('help').text
    for command in COMMANDS:
        check(re.search(rf'\b{command}\b', text), f'help does not name {command}')
        if command != 'help':
            own = c.tierce('help', command).text
            check(f'tierce {command}' in own, f'help {command} says {own!r}')
    for word in ('--help', '-h'):
        check(re.search(rf'(^|\s){word}\b', text), f'help does not name {word}')
        check_equal(c.tierce(word).text, text, word)
        check_equal(c.tierce('join', word).text, c.tierce('help', 'join').text, word)
    for command in ('init', 'join', 'restore'):
        usage = c.tierce('help', command).text.splitlines()[0]
        for option in ('--data', '--listen', '--advertise', '--name'):
            check(option in usage, f'the usage of {command} omits {option}')
    for command in ('init', 'join', 'mount', 'serve', 'status', 'get'):
        check('--data' in c.tierce('help', command).text, f'help {command} omits --data')


def test_usage_errors(t):
    c = t.cluster(0)
    for arguments, word in ((['frobnicate'], 'frobnicate'), (['status', '--frob'], '--frob'),
                            (['--frob'], '--frob'), (['join'], 'token'),
                            (['mount'], 'mountpoint'), (['backup'], 'file'), (['restore'], 'file'),
                            (['get'], 'path'), (['put'], 'path'),
                            (['status', '--data'], '--data'), (['status', 'extra'], 'extra'),
                            (['get', 'a', 'b'], ''), (['put', 'a', 'b', 'c'], ''),
                            (['invite', '--ttl', 'soon'], 'ttl'),
                            (['invite', '--ttl', '-5'], 'ttl'),
                            (['help', 'frobnicate'], 'frobnicate'), ([], 'usage|help')):
        result = c.tierce(*arguments, code=2)
        says_usage = result.error.strip() or result.text.strip()
        check(re.search(word, says_usage, re.IGNORECASE),
              f'the message does not say {word!r}\n{result}')
        check(not result.out.strip() or not arguments, f'a usage error on stdout\n{result}')


# ---- init, join, invite --------------------------------------------------------------


def test_init_alone(t):
    """init without a mountpoint makes the directory and ends; mount starts it."""
    c = t.cluster(0)
    node = spare(c)
    result = c.tierce('init', '--listen', node.address, '--name', 'alone', data=node.data)
    check(TOKEN.search(result.text), f'no join line\n{result}')
    check('tierce join' in result.text, f'the join line is not a command\n{result}')
    check_equal(stat.S_IMODE(os.stat(node.data).st_mode) & 0o077, 0, 'others may enter the data')
    for key in glob.glob(f'{node.data}/*.key'):
        check_equal(stat.S_IMODE(os.stat(key).st_mode) & 0o077, 0, f'others may read {key}')
    down = c.tierce('status', data=node.data, code=1)
    says(down, 'not running|no node|not started', 'tierce (mount|serve)')
    before = sorted(os.listdir(node.data))
    again = c.tierce('init', '--listen', node.address, data=node.data, code=1)
    says(again, re.escape(node.data), 'already|holds')
    check_equal(sorted(os.listdir(node.data)), before, 'files after a second init')
    i = add(c, node)
    c.start(i)
    check_equal(c.status(i)['name'], 'alone', 'the name given')
    check_equal(c.status(i)['role'], 'leader', 'the role of a node alone')
    with open(f'{node.mount}/key', 'w') as f:
        f.write('value')
    check_equal(c.tierce('get', '/key', data=i).text, 'value', 'its value')
    c.stop(i)


def test_init_with_mountpoint_and_printed_tokens(t):
    """The three commands of the README: init, join, join, each going on as mount does; the
    third host joins with the line that the second was given."""
    c = t.cluster(0)
    nodes = [spare(c, name) for name in ('one', 'two', 'three')]
    token = None
    for node in nodes:
        first = [] if token is None else [token]
        result = c.tierce('join' if token else 'init', *first, '--listen', node.address,
                          '--name', node.name, node.mount, data=node.data)
        check(is_mounted(node.mount), f'{node.mount} is not mounted when it returns\n{result}')
        os.listdir(node.mount)
        c._started(add(c, node))
        found = TOKEN.search(result.text)
        check(found, f'no line for the next host\n{result}')
        check(found.group() != token, 'the next host was given a used token')
        token = found.group()
    c.wait_ready()
    with open(f'{nodes[0].mount}/key', 'w') as f:
        f.write('value')
    for node in nodes:
        check_equal(open(f'{node.mount}/key').read(), 'value', f'on {node.name}')
    names = {m['name'] for m in c.status(2)['members']}
    check_equal(names, {'one', 'two', 'three'}, 'names of the members')


def test_names_and_addresses(t):
    c = t.cluster(0)
    node = spare(c)
    c.tierce('init', '--listen', f':{node.port}', '--advertise', node.address, data=node.data)
    i = add(c, node)
    c.start(i)
    status = c.status(i)
    check_equal(status['name'], socket.gethostname(), 'the default name')
    check_equal(status['members'][0]['address'], node.address, 'the advertised address')
    check(node.address in c.tierce('invite', data=i).text, 'the token lacks that address')
    for bad in ('127.0.0.1:99999', '127.0.0.1:port', '127.0.0.1:-1', '[::1:7370'):
        other = spare(c, 'other')
        result = c.tierce('init', '--listen', bad, data=other.data, code=None)
        check(result.code in (1, 2), f'--listen {bad}\n{result}')
        says(result, re.escape(bad))
        nothing_made(other.data)
    other = spare(c, 'other')
    result = c.tierce('init', '--name', 'x' * 256, '--listen', other.address,
                      data=other.data, code=None)
    check(result.code in (1, 2), f'a name of 256 bytes\n{result}')
    nothing_made(other.data)


def test_invite_prints_the_token_alone(t):
    c = t.shared()
    tokens = set()
    for i in range(3):
        result = c.tierce('invite', data=i)
        check(TOKEN.fullmatch(result.text.strip()), f'more than a token\n{result}')
        check_equal(result.text.count('\n'), 1, 'lines of invite')
        tokens.add(result.text)
    check_equal(len(tokens), 3, 'different tokens')


def test_bad_tokens(t):
    c = t.shared()
    stranger = t.cluster(1)
    node = spare(c, 'joiner')

    def refused(token, *words):
        result = c.tierce('join', token, '--listen', node.address, '--name', 'joiner',
                          data=node.data, code=1)
        says(result, *words)
        nothing_made(node.data)
        return result
    good = c.tierce('invite', data=0).text.strip()
    refused('nonsense', 'token', 'invite')
    refused('tierce1:', 'token')
    refused(good[:len(good) // 2], 'token')
    digit = good.index(':') + 5
    flipped = good[:digit] + ('0' if good[digit] != '0' else '1') + good[digit + 1:]
    refused(flipped, 'token')
    refused('tierce9:' + good.split(':', 1)[1], 'token')

    expired = c.tierce('invite', '--ttl', '1', data=0).text.strip()
    time.sleep(1.2)  # what is waited for is the clock itself
    refused(expired, 'expired', 'invite')

    # A token of another cluster, sent to this one's address: the pinned authority differs.
    other = stranger.tierce('invite', data=0).text.strip()
    refused(other.split('@')[0] + '@' + good.split('@')[1], 'another cluster|not .* cluster')

    nobody = good.split('@')[0] + f'@127.0.0.1:{free_port()}'
    refused(nobody, '127.0.0.1', 'refused|reach|connect')
    members = len(c.status(0)['members'])
    check_equal(members, 3, 'members after all that was refused')


def test_used_token(t):
    c = t.cluster(1)
    token = c.tierce('invite', data=0).text.strip()
    first, second = spare(c, 'first'), spare(c, 'second')
    c.tierce('join', token, '--listen', first.address, '--name', 'first', data=first.data)
    result = c.tierce('join', token, '--listen', second.address, '--name', 'second',
                      data=second.data, code=1)
    says(result, 'used', 'invite')
    nothing_made(second.data)
    i = add(c, first)
    c.start(i)
    c.wait_ready()
    again = c.tierce('join', c.tierce('invite', data=0).text.strip(), '--listen',
                     first.address, data=first.data, code=1)
    says(again, re.escape(first.data))
    c.check_running()


def test_a_port_alone_is_no_address(t):
    c = t.cluster(0)
    node = spare(c)
    for option, remedy in (('--listen', f' :{node.port}'), ('--advertise', f'HOST:{node.port}')):
        result = c.tierce('init', option, str(node.port), data=node.data, code=1)
        says(result, f'{option}.*{node.port} is not HOST:PORT', remedy)
        check(not os.path.exists(node.data), f'{node.data} was made')


# ---- Data directories and mountpoints ------------------------------------------------


def test_bad_data_directories(t):
    c = t.cluster(1)
    missing = f'{c.base}/missing'
    strange = f'{c.base}/strange'
    os.mkdir(strange)
    with open(f'{strange}/photo.jpg', 'w') as f:
        f.write('not yours')
    mount = spare(c, 'place').mount
    for command in (['mount', mount], ['serve']):
        says(c.tierce(*command, data=missing, code=1), re.escape(missing), 'tierce (init|join)')
        says(c.tierce(*command, data=strange, code=1), re.escape(strange), 'tierce')
    check(not os.path.exists(missing), 'a missing directory was made')
    says(c.tierce('init', '--listen', '127.0.0.1:1', data=strange, code=1), re.escape(strange))
    says(c.tierce('status', data=missing, code=1), re.escape(missing))
    check_equal(os.listdir(strange), ['photo.jpg'], "files in a directory that is not tierce's")
    as_file = f'{c.base}/file'
    open(as_file, 'w').close()
    says(c.tierce('serve', data=as_file, code=1), re.escape(as_file))

    # In use: the same node again, with a mount and without.
    data = c.nodes[0].data
    for command in (['mount', mount], ['serve']):
        says(c.tierce(*command, data=data, code=1), re.escape(data), 'in use|already|running')
    c.check_running()
    check(c.status(0)['quorum'], 'the node that was there still serves')

    # Of a newer format.
    c.stop(0)
    path = f'{data}/tierce.conf'
    text = open(path).read()
    newer, changes = re.subn(r'(?m)^(format\w*\s*=\s*)1\s*$', r'\g<1>999', text)
    check_equal(changes, 1, f'format lines of tierce.conf:\n{text}')
    with open(path, 'w') as f:
        f.write(newer)
    says(c.tierce('mount', mount, data=data, code=1), re.escape(data), 'newer', 'tierce')
    check_equal(open(path).read(), newer, 'tierce.conf after it was refused')
    with open(path, 'w') as f:
        f.write(text)
    c.start(0)


def test_data_directories_that_cannot_be(t):
    """Not made, or not one's own: the message says what to do."""
    c = t.cluster(1, mounted=False)
    file = f'{c.base}/file'
    open(file, 'w').close()
    for data in (file, f'{file}/below', '/proc/none'):
        for command in ('init', 'serve'):
            says(c.tierce(command, data=data, code=1), re.escape(data), '--data')

    public = t.tmp()
    os.chmod(public, 0o755)
    binary = shutil.copy(c.binary, public)
    closed = f'{public}/closed'
    os.mkdir(closed, 0o700)
    for data in (closed, f'{closed}/below', f'{public}/new'):
        for command in (['init', '--listen', f'127.0.0.1:{free_port()}'], ['status']):
            if command == ['status'] and data == f'{public}/new':
                continue
            run = subprocess.run([binary, *command, '--data', data], user=65534, group=65534,
                                 extra_groups=[], capture_output=True, text=True,
                                 timeout=WAIT_SECONDS)
            check_equal(run.returncode, 1, f'{command} by nobody: {run.stderr}')
            for word in (data, 'Permission denied', 'run it as root', '--data'):
                check(word in run.stderr, f'{command} by nobody omits {word!r}: {run.stderr}')
    check_equal(sorted(os.listdir(public)), sorted([os.path.basename(binary), 'closed']),
                'what was made by nobody')


def test_no_room_for_a_node(t):
    """init and join see it before they make anything, or ask the cluster: the token is good
    afterwards, and nobody is a member."""
    c = t.cluster(1, mounted=False)
    node = spare(c, 'roomy')
    disk = f'{c.base}/disk'
    os.mkdir(disk)
    token = c.tierce('invite', data=0).text.strip()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=150m', 'tierce-test', disk], check=True)
    try:
        for data in (disk, f'{disk}/new/deep'):
            for command in (['init'], ['join', token]):
                result = c.tierce(*command, '--listen', node.address, '--name', 'roomy',
                                  data=data, code=1)
                says(result, '192 MiB', '150 MiB', re.escape(data), '--data')
                nothing_made(disk)
        # An earlier join's rest stays for the next attempt.
        with open(f'{disk}/node.key', 'w') as f:
            f.write('kept')
        says(c.tierce('join', token, '--listen', node.address, data=disk, code=1), '192 MiB')
        check_equal(open(f'{disk}/node.key').read(), 'kept', 'the key of an unfinished join')
    finally:
        subprocess.run(['umount', disk], check=True)
    check_equal(len(c.status(0)['members']), 1, 'members')
    c.tierce('join', token, '--listen', node.address, '--name', 'roomy', data=node.data)


def test_bad_mountpoints(t):
    c = t.cluster(1, mounted=False)
    c.stop(0)
    data = c.nodes[0].data
    missing, file = f'{c.base}/nowhere', f'{c.base}/file'
    open(file, 'w').close()
    os.mkdir(f'{data}/inside')
    link = f'{c.base}/link'
    os.symlink(data, link)
    for mountpoint, words in ((missing, ['mkdir|exist|missing|no such']),
                              (file, ['directory']), (data, ['data directory']),
                              (f'{data}/inside', ['data directory']),
                              (os.path.dirname(data), ['data directory']),
                              (link, ['data directory'])):
        result = c.tierce('mount', mountpoint, data=0, code=1)
        says(result, re.escape(mountpoint), *words)
        check(not is_mounted(mountpoint), f'{mountpoint} is mounted')
    os.rmdir(f'{data}/inside')
    # init and join see it before they make anything.
    fresh = spare(c, 'fresh')
    os.rmdir(fresh.mount)
    says(c.tierce('init', '--listen', fresh.address, fresh.mount, data=fresh.data, code=1),
         re.escape(fresh.mount))
    nothing_made(fresh.data)
    c.start(0)


def test_port_in_use(t):
    c = t.cluster(0)
    node = spare(c)
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', node.port))
        taken.listen()
        result = c.tierce('init', '--listen', node.address, node.mount, data=node.data,
                          code=1)
        says(result, f'{node.port}', 'already in use', '--listen HOST:PORT')
        check(not is_mounted(node.mount), 'mounted without a port')
        check(not os.path.exists(node.data), f'{node.data} was made')
    c.tierce('init', '--listen', node.address, data=node.data)
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', node.port))
        taken.listen()
        for command in (['serve'], ['mount', node.mount]):
            says(c.tierce(*command, data=node.data, code=1), f'{node.port}',
                 'already in use', re.escape(f'{node.data}/tierce.conf'))
    i = add(c, node)
    c.start(i)


def test_bad_certificates(t):
    """A node whose key is another's, or one of whose files is gone, does not start, and says
    why. What else is wrong with its certificates it makes good."""
    c = t.cluster(1, mounted=False)
    stranger = t.cluster(1, mounted=False)
    c.stop(0)
    own, other = c.nodes[0].data, stranger.nodes[0].data
    for name in ('node.crt', 'ca.crt', 'node.key'):
        with open(f'{own}/{name}', 'rb') as f:
            kept = f.read()
        with open(f'{other}/{name}', 'rb') as f:
            foreign = f.read()
        for content in (foreign, b'', b'garbage\n', None):
            if content is None:
                os.unlink(f'{own}/{name}')
            else:
                with open(f'{own}/{name}', 'wb') as f:
                    f.write(content)
            good = content is not None and name != 'node.key'
            result = c.tierce('serve', data=0, code=0 if good else 1)
            if good:
                c.tierce('stop', data=0)
                check(b'BEGIN CERTIFICATE' in open(f'{own}/{name}', 'rb').read(), name)
            else:
                says(result, 'certificate|key|' + re.escape(name))
        with open(f'{own}/{name}', 'wb') as f:
            f.write(kept)
        os.chmod(f'{own}/{name}', 0o600)
    c.start(0)


# ---- Running nodes -------------------------------------------------------------------


def test_status(t):
    c = t.shared()
    seen = [c.status(i) for i in range(3)]
    types = {'name': str, 'id': (int, str), 'cluster': str, 'role': str, 'term': int,
             'leader': str, 'commit': int, 'applied': int, 'quorum': bool, 'members': list,
             'pid': int, 'refused': int, 'certificate_end': int, 'protocol': int}
    member_types = {'name': str, 'id': (int, str), 'address': str, 'voter': bool,
                    'reachable': bool}
    for status in seen:
        for key, kind in types.items():
            check(isinstance(status.get(key), kind), f'{key} is {status.get(key)!r}')
        check(status['quorum'] is True, 'quorum')
        check_equal(len(status['members']), 3, 'members')
        for member in status['members']:
            for key, kind in member_types.items():
                check(isinstance(member.get(key), kind), f'member {key} is {member.get(key)!r}')
            check(member['voter'] and member['reachable'], f'a member: {member}')
            known = member['id'] == status['id'] or status['role'] == 'leader'
            check(isinstance(member['applied'], int if known else type(None)),
                  f'applied of a member, for a {status["role"]}: {member}')
        check(status['applied'] <= status['commit'], 'applied beyond commit')
        own = [m for m in status['members'] if m['id'] == status['id']]
        check(len(own) == 1 and own[0]['name'] == status['name'], f'itself among {own}')
    check_equal({s['name'] for s in seen}, {'n0', 'n1', 'n2'}, 'names')
    check_equal(len({s['cluster'] for s in seen}), 1, 'clusters')
    check_equal(sorted(s['role'] for s in seen), ['follower', 'follower', 'leader'], 'roles')
    leader = [s['name'] for s in seen if s['role'] == 'leader'][0]
    check_equal({s['leader'] for s in seen}, {leader}, 'leaders')
    text = c.tierce('status', data=0).text
    for word in ('n0', 'n1', 'n2', leader):
        check(word in text, f'status for people omits {word}:\n{text}')


def test_keys_without_a_mount(t):
    c = t.shared()
    c.tierce('put', '/put/deep/key', 'a value', data=0)
    check_equal(c.tierce('get', '/put/deep/key', data=1).out, b'a value', 'a value')
    check_equal(c.tierce('get', 'put/deep/key', data=2).out, b'a value', 'without the slash')
    with open(c.path(2, 'put', 'deep', 'key')) as f:
        check_equal(f.read(), 'a value', 'through a mount')
    for size in (0, 1, 4096, 4097, 5 << 20):
        value = t.random_bytes(size)
        c.tierce('put', '/put/stdin', input=value, data=1)
        check(c.tierce('get', '/put/stdin', data=2).out == value, f'{size} bytes from stdin')
        with open(c.path(0, 'put', 'stdin'), 'rb') as f:
            check(f.read() == value, f'{size} bytes from stdin, through a mount')
    c.tierce('put', '/put/empty', '', data=0)
    check_equal(c.tierce('get', '/put/empty', data=1).out, b'', 'an empty VALUE')
    with open(c.path(1, 'put', 'by-mount'), 'wb') as f:
        f.write(b'\0\1\xff')
    check_equal(c.tierce('get', '/put/by-mount', data=2).out, b'\0\1\xff', 'binary')

    listed = c.tierce('ls', '/put', data=0).text.splitlines()
    check_equal([n.rstrip('/') for n in listed], ['by-mount', 'deep', 'empty', 'stdin'], 'ls')
    check('put' in [n.rstrip('/') for n in c.tierce('ls', '/', data=2).text.splitlines()],
          'ls of the root')
    c.tierce('del', '/put/stdin', data=2)
    check(not os.path.exists(c.path(0, 'put', 'stdin')), 'a deleted key is there')

    says(c.tierce('get', '/put/none', data=0, code=1), '/put/none')
    says(c.tierce('del', '/put/none', data=0, code=1), '/put/none')
    says(c.tierce('ls', '/put/none', data=0, code=1), '/put/none')
    says(c.tierce('get', '/put/deep', data=0, code=1), 'directory')
    says(c.tierce('put', '/put/deep', 'x', data=0, code=1), 'directory')
    says(c.tierce('put', '/put/empty/below', 'x', data=0, code=1), '/put/empty')
    says(c.tierce('put', '/' + 'x' * 256, 'x', data=0, code=1), '255|too long')
    c.tierce('del', '/put/deep/key', data=0)
    c.tierce('del', '/put/deep', data=0)
    check(not os.path.exists(c.path(1, 'put', 'deep')), 'an empty directory is deleted')


def test_put_beyond_the_limit(t):
    c = t.shared()
    source = f'{t.tmp()}/too-large'
    with open(source, 'wb') as f:
        f.truncate((1 << 40) + 1)
    c.tierce('put', '/limited', 'before', data=0)
    with open(source, 'rb') as f:
        run = subprocess.run([c.binary, 'put', '--data', c.nodes[0].data, '/limited'], stdin=f,
                             capture_output=True, env=c.environment, timeout=10 * WAIT_SECONDS)
    check_equal(run.returncode, 1, f'put of 1 TiB + 1: {run.stderr!r}')
    check(re.search(rb'at most 1 TiB', run.stderr), f'its message: {run.stderr!r}')
    check_equal(c.tierce('get', '/limited', data=1).out, b'before', 'the value before it')


def test_mount_leaves_no_output_open(t):
    """`tierce mount ... | cat` ends: the daemon keeps nothing of its caller's."""
    c = t.cluster(1, mounted=False)
    c.stop(0)
    node = c.nodes[0]
    line = f'"$0" mount --data {node.data} {node.mount} 2>&1 | cat'
    subprocess.run(['bash', '-c', line, c.binary], check=True, timeout=WAIT_SECONDS,
                   env=c.environment, cwd=c.base)
    c._started(0)
    check(is_mounted(node.mount), 'mounted')
    check_equal(os.readlink(f'/proc/{node.pid}/cwd'), '/', "the daemon's working directory")
    check(os.getsid(node.pid) != os.getsid(0), 'the daemon is in the session of its caller')


def test_closed_standard_streams(t):
    """A closed stdin, stdout or stderr is an error where it is used, and never a socket or
    pipe of the command's own."""
    c = t.cluster(1, mounted=False)
    node = c.nodes[0]

    def run(line):
        return subprocess.run(['bash', '-c', line, c.binary, node.data], timeout=WAIT_SECONDS,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              env=c.environment)
    c.tierce('put', 'closed', 'before', data=0)
    put = run('"$0" put --data "$1" closed <&-')
    check_equal(put.returncode, 1, f'put from a closed stdin: {put.stderr!r}')
    check(b'closed' in put.stderr, f'its message: {put.stderr!r}')
    check_equal(c.tierce('get', 'closed', data=0).text, 'before', 'the value after it')
    for line in ('"$0" get --data "$1" closed >&-', '"$0" status --data "$1" >&-',
                 '"$0" ls --data "$1" >&-', '"$0" help >&-'):
        result = run(line)
        check_equal(result.returncode, 1, f'{line}: {result.stderr!r}')
        check(result.stderr.strip(), f'{line} fails without a message')
    check_equal(run('"$0" get --data "$1" none <&- >&- 2>&-').returncode, 1, 'all closed')
    check_equal(run('"$0" put --data "$1" closed after <&- >&- 2>&-').returncode, 0,
                'a put that uses none of them')
    check_equal(c.tierce('get', 'closed', data=0).text, 'after', 'its value')
    c.stop(0)
    check_equal(run('"$0" serve --data "$1" <&- >&- 2>&-').returncode, 0, 'serve')
    c._started(0)
    for fd in range(3):
        check_equal(os.readlink(f'/proc/{node.pid}/fd/{fd}'), '/dev/null', f'descriptor {fd}')
        with open(f'/proc/{node.pid}/fdinfo/{fd}') as f:
            flags = int(re.search(r'flags:\s*([0-7]+)', f.read()).group(1), 8)
        check_equal(flags & os.O_ACCMODE, os.O_RDWR, f'how descriptor {fd} is open')
    check_equal(c.tierce('get', 'closed', data=0).text, 'after', 'after the restart')


def test_foreground(t):
    c = t.cluster(1, mounted=False)
    c.stop(0)
    node = c.nodes[0]
    for arguments in (['serve'], ['mount', node.mount]):
        for end in ('stop', 'SIGTERM', 'SIGINT'):
            command = [c.binary, arguments[0], '--data', node.data, '--foreground',
                       *arguments[1:]]
            with open(f'{c.base}/foreground', 'wb') as out:
                process = subprocess.Popen(command, stdout=out, stderr=out, env=c.environment)
            wait_for(lambda: process.poll() is None and c.status(0), 'it serves')
            check_equal(c.status(0)['pid'], process.pid, 'its process')
            if end == 'stop':
                c.tierce('stop', data=0)
            else:
                process.send_signal(15 if end == 'SIGTERM' else 2)
            check_equal(process.wait(WAIT_SECONDS), 0,
                        f'{arguments[0]} --foreground ended by {end}')
            check(not is_mounted(node.mount), f'still mounted after {end}')


def test_umount_is_stop(t):
    c = t.cluster()
    for way in (['umount'], ['fusermount3', '-u']):
        leader = c.leader()
        with open(c.path(leader, f'before-{way[0]}'), 'w') as f:
            f.write('kept')
        subprocess.run([*way, c.nodes[leader].mount], check=True)
        c.wait_ended(leader)
        check(not is_mounted(c.nodes[leader].mount), 'still mounted')
        others = [i for i in range(3) if i != leader]
        with open(c.path(others[0], f'after-{way[0]}'), 'w') as f:
            f.write('goes on')
        check_equal(open(c.path(others[1], f'before-{way[0]}')).read(), 'kept', 'its last write')
        c.start(leader)
        c.wait_ready()
        check_equal(open(c.path(leader, f'after-{way[0]}')).read(), 'goes on', 'missed meanwhile')


def test_stop_hands_over(t):
    """The leader stops: the others have a new one at once, not after an election timeout, and
    no write of theirs fails."""
    c = t.cluster()
    for _ in range(3):
        leader = c.leader()
        through = (leader + 1) % 3
        begun = time.monotonic()
        stopped = subprocess.Popen([c.binary, 'stop', '--data', c.nodes[leader].data],
                                   env=c.environment)
        writes, longest = 0, 0.0
        while stopped.poll() is None or writes < 50:
            at = time.monotonic()
            with open(c.path(through, 'beat'), 'w') as f:
                f.write(str(writes))
            longest = max(longest, time.monotonic() - at)
            writes += 1
            check(time.monotonic() - begun < WAIT_SECONDS, 'stop does not return')
        check_equal(stopped.returncode, 0, 'stop of the leader')
        check(not alive(c.nodes[leader].pid), 'the process runs after stop has returned')
        c.nodes[leader].up = False
        print(f'# the longest of {writes} writes while the leader stopped: {longest:.3f} s')
        check_equal(open(c.path((leader + 2) % 3, 'beat')).read(), str(writes - 1), 'the last')
        says(c.tierce('stop', data=leader, code=1), 'not running|no node')
        c.start(leader)
        c.wait_ready()


def test_stop_while_starting(t):
    """A node that still waits for a majority stops when it is told to, not when it has given
    the majority up; who started it learns that it does not serve."""
    c = t.cluster(mounted=False)
    for i in range(3):
        c.kill9(i)
    for options, end in (([], 'stop'), (['--foreground'], 'SIGTERM')):
        command = [c.binary, 'serve', '--data', c.nodes[0].data, *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=c.environment)
        wait_for(lambda: c.tierce('status', data=0, code=None).code == 0, 'it answers')
        if end == 'stop':
            c.tierce('stop', data=0)
        else:
            process.send_signal(15)
        error = process.communicate(timeout=WAIT_SECONDS)[1].decode()
        check_equal(process.returncode, 1 if end == 'stop' else 0, f'{end}: {error}')
        check('stopped before it was ready' in error or end != 'stop', f'{end}: {error}')
        check('warning' not in error, f'it served first: {error}')


def test_stop_while_files_are_open(t):
    c = t.cluster(1)
    fd = os.open(c.path(0, 'open'), os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        result = c.tierce('stop', data=0, code=1)
        says(result, 'open|busy|in use')
        check_equal(os.write(fd, b'still written'), 13, 'a write after a stop that was refused')
    finally:
        os.close(fd)
    check_equal(open(c.path(0, 'open')).read(), 'still written', 'the value')
    c.stop(0)


def test_serve_without_a_mount(t):
    c = t.cluster(mounted=False)
    for i in range(3):
        c.tierce('put', f'/by-{i}', f'value {i}', data=i)
    for i in range(3):
        check_equal(c.tierce('get', f'/by-{i}', data=(i + 1) % 3).text, f'value {i}', 'a value')
        check(not is_mounted(c.nodes[i].mount), 'mounted')
    leader = c.leader()
    c.kill9(leader)
    other = c.leader()
    c.tierce('put', '/after', 'kill', data=other)
    c.start(leader)
    c.wait_caught_up([leader])
    check_equal(c.tierce('get', '/after', data=leader).text, 'kill', 'what it missed')


def test_mount_options(t):
    c = t.cluster(1)
    with open(c.path(0, 'key'), 'w') as f:
        f.write('value')
    c.stop(0)
    c.options = 'ro'
    c.start(0)
    check_equal(open(c.path(0, 'key')).read(), 'value', 'read through a read-only mount')
    try:
        os.mkdir(c.path(0, 'no'))
        raise Failure('mkdir on a read-only mount succeeded')
    except OSError as e:
        check_equal(e.errno, errno.EROFS, 'mkdir on a read-only mount')
    c.tierce('put', '/key', 'by command', data=0)  # the mount is read-only, not the node
    check_equal(open(c.path(0, 'key')).read(), 'by command', 'seen through it')
    c.stop(0)
    result = c.tierce('mount', '-o', 'no_such_option', c.nodes[0].mount, data=0, code=None)
    check(result.code in (1, 2), f'an unknown mount option\n{result}')
    says(result, 'no_such_option')
    check(not is_mounted(c.nodes[0].mount), 'mounted with an unknown option')
    c.options = 'nosuid,nodev'
    c.start(0)
    entry = [line for line in open('/proc/self/mounts') if c.nodes[0].mount in line][0]
    check('fuse' in entry and 'nosuid' in entry, f'/proc/mounts says {entry}')


def test_mount_after_kill(t):
    """After kill -9 the same command starts it: a dead mount is replaced, nothing is lost."""
    c = t.cluster(1)
    with open(c.path(0, 'key'), 'w') as f:
        f.write('value')
    c.kill9(0)
    check(is_mounted(c.nodes[0].mount), 'the dead mount is still there')
    c.start(0)
    check_equal(open(c.path(0, 'key')).read(), 'value', 'after kill -9')
    says(c.tierce('mount', c.nodes[0].mount, data=0, code=1), 'in use|already|running')


if __name__ == "__main__":
    main(globals())
