#!/usr/bin/python3
"""mount(8), /etc/fstab and mount options, in a mount name space of its own: nothing of the
host's /etc/fstab, /sbin, /run or /usr/local/bin is touched or seen by others."""

import ctypes
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (WAIT_SECONDS, Failure, at_most, check, check_equal,  # noqa: E402
                     find_binary, is_mounted, main, wait_for)

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
MOUNT_FAILED = 32
BOOT_SECONDS = 20  # twice the time after which a node serves without a majority

OWN_FSTAB = '/run/fstab'  # on a tmpfs that nobody else sees, and that ends with this process


def enter_own_name_space():
    """Everything that this process starts from now on is in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b'none', b'/', None, MS_REC | MS_PRIVATE, None):
        sys.exit(f'no mount name space: {os.strerror(ctypes.get_errno())}')
    binary, helpers = find_binary(), '/run/helpers'
    subprocess.run(['mount', '-t', 'tmpfs', 'none', '/run'], check=True)  # mount's own notes too
    os.mkdir(helpers)
    for name in ('tierce', 'mount.tierce'):
        os.symlink(binary, f'{helpers}/{name}')
    for name in ('mount.fuse3', 'mount.fuse'):
        shutil.copy(f'/sbin/{name}', f'{helpers}/{name}')
    fstab('')
    for source, target in ((helpers, '/usr/local/bin'), (helpers, os.path.realpath('/sbin')),
                           (OWN_FSTAB, '/etc/fstab')):
        subprocess.run(['mount', '--bind', source, target], check=True)


def fstab(line):
    with open(OWN_FSTAB, 'w') as f:
        f.write(line + '\n')


def mount(c, *arguments, code=0):
    done = subprocess.run(['mount', *arguments], capture_output=True, text=True, timeout=WAIT_SECONDS,
                          env=c.environment)
    if code is not None and done.returncode != code:
        raise Failure(f'mount {" ".join(arguments)} gave {done.returncode}: {done.stderr}')
    return done


def mounted(c, i):
    """It was, by mount(8): what the cluster does when it starts a node itself."""
    c._started(i)


def umount(c, i):
    subprocess.run(['umount', c.nodes[i].mount], check=True, timeout=WAIT_SECONDS)
    c.nodes[i].up = False


def options_of(path):
    lines = [line.split() for line in open('/proc/self/mounts') if line.split()[1] == path]
    check_equal(len(lines), 1, f'mounts at {path}')
    check_equal(lines[0][2], 'fuse.tierce', 'its type')
    return lines[0][0], lines[0][3].split(',')


def error_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as e:
        return errno.errorcode[e.errno]
    return None


def stopped(t, n=1):
    """A cluster whose nodes are all down, and what each has at `key`."""
    c = t.cluster(n, mounted=False)
    c.tierce('put', '/key', 'value', data=0)
    c.wait_caught_up(range(n))
    for i in range(n):
        c.stop(i)
    return c


def read(path):
    with open(path) as f:
        return f.read()


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


# ---- mount(8) --------------------------------------------------------------------------


def test_mount_type(t):
    c = stopped(t)
    node = c.nodes[0]
    mount(c, '-t', 'tierce', node.data, node.mount, '-o', 'ro')
    mounted(c, 0)
    check_equal(read(c.path(0, 'key')), 'value', 'through the mount')
    check_equal(error_of(write, c.path(0, 'key'), 'other'), 'EROFS', 'a write to ro')
    source, options = options_of(node.mount)
    check_equal(source, node.data, 'the source that /proc/mounts shows')
    check('ro' in options, f'{options}')
    umount(c, 0)
    mount(c, '-t', 'tierce', node.data, node.mount)
    mounted(c, 0)
    write(c.path(0, 'key'), 'other')
    again = mount(c, '-t', 'tierce', node.data, node.mount, code=None)
    check(again.returncode, 'mounted twice')
    again = mount(c, '-o', 'remount,ro', node.mount, code=None)
    check(again.returncode and 'umount' in again.stderr, f'a remount: {again.stderr}')
    c.stop(0)


def test_what_mount_is_told(t):
    """Exit codes as of any mount helper, and a message that names what is wrong."""
    c = stopped(t)
    node = c.nodes[0]
    for arguments, word in (([f'{c.base}/nowhere', node.mount], 'nowhere'),
                            ([node.data, node.mount, '-o', 'no_such_option'], 'no_such_option'),
                            ([node.data, node.mount, '-o', 'uid=me'], 'uid=me'),
                            ([node.data, node.mount, '-o', 'umask=8'], 'umask=8')):
        done = mount(c, '-t', 'tierce', *arguments, code=MOUNT_FAILED)
        check(word in done.stderr, f'{arguments}: {done.stderr}')
    check(not is_mounted(node.mount), 'mounted all the same')
    helper = subprocess.run(['/sbin/mount.tierce', node.data], capture_output=True, text=True)
    check(helper.returncode == 1 and 'MOUNTPOINT' in helper.stderr, f'{helper}')
    mount(c, '-f', '-t', 'tierce', node.data, node.mount)
    check(not is_mounted(node.mount), 'mount -f has mounted')
    mount(c, '-s', '-t', 'tierce', node.data, node.mount, '-o', 'no_such_option,noexec')
    mounted(c, 0)
    check('noexec' in options_of(node.mount)[1], 'what stood behind an option it does not know')
    c.stop(0)


def test_fstab(t):
    c = stopped(t)
    node = c.nodes[0]
    fstab(f'{node.data} {node.mount} tierce rw,nofail,_netdev,user,noauto,x-systemd.after=a.b 0 0')
    mount(c, node.mount)
    mounted(c, 0)
    options = options_of(node.mount)[1]
    for option in ('rw', 'nosuid', 'nodev', 'noexec'):  # `user` means these
        check(option in options, f'{option} is not among {options}')
    write(c.path(0, 'key'), 'other')
    umount(c, 0)
    mount(c, '-a')  # noauto
    check(not is_mounted(node.mount), 'mount -a has mounted what is noauto')
    fstab(f'{node.data} {node.mount} tierce defaults,nofail,_netdev 0 0')
    mount(c, '-a', '-O', '_netdev')
    mounted(c, 0)
    check_equal(read(c.path(0, 'key')), 'other', 'written before')
    mount(c, '-a')  # it is mounted: nothing to do
    c.stop(0)


def test_fuse_type(t):
    """/sbin/mount.fuse runs `tierce SOURCE MOUNTPOINT -o ...`."""
    c = stopped(t)
    node = c.nodes[0]
    mount(c, '-t', 'fuse.tierce', node.data, node.mount, '-o', 'ro,nofail,_netdev,user')
    mounted(c, 0)
    check_equal(read(c.path(0, 'key')), 'value', 'through the mount')
    check_equal(error_of(write, c.path(0, 'key'), 'other'), 'EROFS', 'a write to ro')
    check('noexec' in options_of(node.mount)[1], 'user means noexec')
    umount(c, 0)
    c.tierce('mount', node.mount, data=0)  # the same again, and at once
    mounted(c, 0)
    c.stop(0)
    direct = c.tierce(node.data, f'{c.base}/nowhere', code=1)
    check('nowhere' in direct.error, f'{direct}')
    c.tierce(node.data, node.mount, '-o', 'noexec')
    mounted(c, 0)
    c.stop(0)


def test_umount_and_mount_at_once(t):
    """umount returns before the node has noticed: the next mount waits until it is gone."""
    c = t.cluster(3)
    leader = c.leader()
    node = c.nodes[leader]
    fstab(f'{node.data} {node.mount} tierce noauto 0 0')
    for turn in range(4):
        pid = c.nodes[leader].pid
        write(c.path(leader, 'key'), str(turn))
        done = subprocess.run(f'umount {node.mount} && mount {node.mount}', shell=True,
                              capture_output=True, text=True, timeout=WAIT_SECONDS)
        check_equal(done.returncode, 0, f'turn {turn}: {done.stderr}')
        mounted(c, leader)
        check(c.nodes[leader].pid != pid, 'a process of its own')
        check_equal(read(c.path(leader, 'key')), str(turn), 'written before')
    busy = mount(c, node.mount, code=None)
    check(busy.returncode, 'mounted twice')


def test_boot_without_a_majority(t):
    c = stopped(t, 3)
    node = c.nodes[0]
    fstab(f'{node.data} {node.mount} tierce defaults,nofail,_netdev 0 0')
    begun = time.monotonic()
    c.tierce('inspect', data=0)
    usual = time.monotonic() - begun  # of a command that looks at all that the node has
    begun = time.monotonic()
    mount(c, '-a')
    took = time.monotonic() - begun
    mounted(c, 0)
    check(took < at_most(BOOT_SECONDS, usual), f'mount -a took {took:.1f} s')
    check_equal(read(c.path(0, 'key')), 'value', 'what this node has')
    check_equal(error_of(os.mkdir, c.path(0, 'directory')), 'EROFS', 'mkdir')
    check_equal(error_of(write, c.path(0, 'key'), 'other'), 'EROFS', 'a write')
    c.tierce('serve', data=1)
    c._started(1)
    wait_for(lambda: c.status(0)['quorum'], 'a majority')
    wait_for(lambda: error_of(write, c.path(0, 'key'), 'other') is None, 'a write')
    check_equal(c.tierce('get', '/key', data=1).text, 'other', 'on the other host')


# ---- Options ----------------------------------------------------------------------------


def test_owner_and_mask(t):
    """uid, gid and umask are what this host shows, and what its kernel goes by."""
    c = t.cluster(2, options='uid=1234,gid=4321,umask=027')
    path = c.path(0, 'file')
    write(path, 'value')
    os.mkdir(c.path(0, 'directory'))
    seen = [os.stat(path), os.stat(c.path(0, 'directory')), os.stat(c.path(0)),
            os.stat(c.path(1, 'file'))]
    seen += [e.stat() for e in os.scandir(c.path(0))]
    for st in seen:
        check_equal((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (1234, 4321, 0o750),
                    'owner and mode')

    def as_user(uid, gid):
        return subprocess.run(['setpriv', f'--reuid={uid}', f'--regid={gid}', '--clear-groups',
                               'cat', path], capture_output=True).returncode
    os.chmod(c.base, 0o755)
    check_equal(as_user(1234, 1), 0, 'the owner reads')
    check_equal(as_user(1, 4321), 0, 'the group reads')
    check(as_user(1, 1), 'others read in spite of the mask')
    c.stop(1)
    c.options = None
    c.start(1)
    st = os.stat(c.path(1, 'file'))
    check_equal((st.st_uid, st.st_gid), (0, 0), 'the owner that was committed')


# ---- .tierce/ -----------------------------------------------------------------------------


def test_node_files(t):
    """What status, members and metrics print, as files; fresh, and seen by who asks by name."""
    c = t.cluster(3)
    for i in range(3):
        status = json.loads(read(c.path(i, '.tierce/status')))
        check_equal(status['name'], c.nodes[i].name, 'whose status it is')
        check_equal(sorted(status), sorted(c.status(i)), 'what is in it')
        check_equal(os.listdir(c.path(i)), [], 'names in the root')
        check_equal(sorted(os.listdir(c.path(i, '.tierce'))), ['members', 'metrics', 'status'],
                    'names in .tierce')
        members = read(c.path(i, '.tierce/members'))
        check_equal(members.splitlines()[0], c.tierce('members', data=i).text.splitlines()[0],
                    'the head of the table')
        check_equal(len(members.splitlines()), 4, 'lines of members')
        ours, theirs = (set(line.split()[0] for line in text.splitlines() if line[0] != '#')
                        for text in (read(c.path(i, '.tierce/metrics')),
                                     c.tierce('metrics', data=i).text))
        check_equal(ours, theirs, 'the metrics')
    before = json.loads(read(c.path(0, '.tierce/status')))['applied']
    write(c.path(0, 'key'), 'value')
    check(json.loads(read(c.path(0, '.tierce/status')))['applied'] > before, 'not fresh')
    copy = f'{c.base}/copy'
    subprocess.run(['cp', '-r', c.path(0), copy], check=True)
    check_equal(os.listdir(copy), ['key'], 'what cp -r takes along')
    subprocess.run(['cp', c.path(0, '.tierce/metrics'), copy], check=True)
    check('tierce_raft_quorum 1' in read(f'{copy}/metrics'), 'cp of one of them')
    check_equal(error_of(write, c.path(0, '.tierce/status'), 'x'), 'EROFS', 'a write')
    for path in ('/.tierce', '.tierce/status', '/.tierce//x/y'):
        refused = c.tierce('put', path, 'x', data=0, code=1)
        check('.tierce' in refused.error and 'another name' in refused.error, f'{refused}')
    c.tierce('put', '/.tierces', 'x', data=0)
    c.tierce('put', '/a/.tierce', 'x', data=0)
    check_equal(read(c.path(1, 'a/.tierce')), 'x', 'below another directory')
    # Without a majority they tell so, and do not wait.
    c.kill9(1, 2)
    wait_for(lambda: json.loads(read(c.path(0, '.tierce/status')))['quorum'] is False,
             'no majority, says .tierce/status')
    check('tierce_raft_quorum 0' in read(c.path(0, '.tierce/metrics')), 'the metrics say it too')
    with open(c.path(0, '.tierce/status')) as f:
        busy = c.tierce('stop', data=0, code=1)
        check('open' in busy.error, f'{busy}')
        check(f.read(1) == '{', 'what was open while it was asked to stop')


if __name__ == "__main__":
    enter_own_name_space()
    main(globals())
