#!/usr/bin/python3
"""mknod: FIFOs, sockets and device nodes. Their names are on every host; what goes through them
stays on the host, as with any file system that several hosts share."""

import errno
import os
import select
import socket
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'lib'))
from cluster import check, check_equal  # noqa: E402
from posix_rules import fails_with, main, mode, nlink  # noqa: E402

ANNA = 4711
CHARACTER, BLOCK = stat.S_IFCHR | 0o640, stat.S_IFBLK | 0o640


def kind(path):
    return stat.S_IFMT(os.lstat(path).st_mode)


def rule_kinds(p):
    for name, of in (('fifo', stat.S_IFIFO), ('socket', stat.S_IFSOCK), ('file', stat.S_IFREG),
                     ('character', stat.S_IFCHR), ('block', stat.S_IFBLK), ('plain', 0)):
        os.mknod(p.here(name), of | 0o666, os.makedev(1, 3))
        p.check(kind, of or stat.S_IFREG, name)
        p.check(mode, oct(0o644), name)
        p.check(nlink, 1, name)
        p.check(lambda path: os.lstat(path).st_size, 0, name)
    fails_with(errno.EPERM, os.mknod, p.here('directory'), stat.S_IFDIR | 0o777)
    fails_with(errno.EINVAL, os.mknod, p.here('link'), stat.S_IFLNK | 0o777)
    p.check(lambda path: len(os.listdir(path)), 6)
    p.check(nlink, 2)


def rule_numbers_of_devices(p):
    for major, minor in ((0, 0), (1, 3), (8, 255), (259, 65536), (4095, 0xfffff)):
        for of in (CHARACTER, BLOCK):
            name = f'{of}-{major}-{minor}'
            os.mknod(p.here(name), of, os.makedev(major, minor))
            p.check(lambda path: (os.major(os.stat(path).st_rdev),
                                  os.minor(os.stat(path).st_rdev)), (major, minor), name)
    os.rename(p.there(name), p.there('moved'))
    os.chmod(p.there('moved'), 0o600)
    p.check(lambda path: os.stat(path).st_rdev, os.makedev(major, minor), 'moved')
    for name in os.listdir(p.here()):
        os.unlink(p.there(name))
    p.check(os.listdir, [])


def rule_who_may(p):
    os.chmod(p.here(), 0o777)
    code = "os.mknod('n', {}, os.makedev(1, 3))"
    for of in (CHARACTER, BLOCK):
        check_equal(p.as_user(ANNA, code.format(of), at=p.there()), 'EPERM', 'a device')
    for name, of in (('fifo', stat.S_IFIFO), ('socket', stat.S_IFSOCK), ('file', stat.S_IFREG)):
        check_equal(p.as_user(ANNA, f"os.mknod('{name}', {of} | 0o600)", at=p.there()), 'ok',
                    name)
        p.check(lambda path: (os.lstat(path).st_uid, os.lstat(path).st_gid), (ANNA, ANNA), name)
    os.chmod(p.here(), 0o755)
    check_equal(p.as_user(ANNA, "os.mkfifo('more')"), 'EACCES', 'in a directory of another')


def rule_errors(p):
    p.write('file')
    os.symlink('nothing', p.here('dangling'))
    os.symlink('loop', p.here('loop'))
    for name, expected in (('file', errno.EEXIST), ('dangling', errno.EEXIST),
                           ('loop', errno.EEXIST), ('file/x', errno.ENOTDIR),
                           ('nothing/x', errno.ENOENT), ('loop/x', errno.ELOOP),
                           ('n' * 256, errno.ENAMETOOLONG), ('x/', errno.ENOENT)):
        for path in p.everywhere(name):
            fails_with(expected, os.mkfifo, path)
            fails_with(expected, os.mknod, path, stat.S_IFREG | 0o600)
    p.check(lambda path: sorted(os.listdir(path)), ['dangling', 'file', 'loop'])


def rule_bytes_through_a_fifo(p):
    """Between processes of one host: both ends wait for each other, the end is seen, and many
    writers are not torn. Nothing of it is in the file system."""
    os.mkfifo(p.there('fifo'))
    path = p.here('fifo')
    reader = subprocess.Popen(['cat', path], stdout=subprocess.PIPE)
    writer = subprocess.Popen(['dd', f'of={path}', 'bs=64k', 'status=none'],
                              stdin=subprocess.PIPE)
    data = os.urandom(1 << 20)
    out, _ = in_two(reader, writer, data)
    check_equal(out, data, 'what came through')
    line = 'x' * 100
    reader = subprocess.Popen(['cat', path], stdout=subprocess.PIPE)
    loop = f'exec 3> "$F"; i=0; while [ $i -lt 200 ]; do echo {line} >&3; i=$((i+1)); done'
    with open(path, 'wb'):  # else the reader sees an end before the last of them has begun
        writers = [subprocess.Popen(['dash', '-c', loop], env=dict(os.environ, F=path))
                   for _ in range(3)]
        out = [reader.stdout.read(101) for _ in range(600)]
        for writer in writers:
            check_equal(writer.wait(60), 0, 'a writer')
    out = b''.join(out) + reader.communicate(timeout=60)[0]
    check_equal(set(out.split()), {line.encode()}, 'lines')
    check_equal(out.count(b'\n'), 600, 'how many lines')
    p.check(lambda path: os.stat(path).st_size, 0, 'fifo')


def in_two(reader, writer, data):
    """Feeds one process and reads from the other, both through pipes, without a deadlock."""
    import threading
    feeder = threading.Thread(target=writer.communicate, args=(data,))
    feeder.start()
    out = reader.communicate(timeout=60)
    feeder.join(60)
    check_equal((reader.wait(60), writer.wait(60)), (0, 0), 'both ends')
    return out


def rule_a_fifo_without_another_end(p):
    os.mkfifo(p.here('fifo'))
    fails_with(errno.ENXIO, os.open, p.here('fifo'), os.O_WRONLY | os.O_NONBLOCK)
    fd = os.open(p.here('fifo'), os.O_RDONLY | os.O_NONBLOCK)
    try:
        if p.others:  # its reader is on another host
            fails_with(errno.ENXIO, os.open, p.there('fifo'), os.O_WRONLY | os.O_NONBLOCK)
        check_equal(os.read(fd, 1), b'', 'read without a writer')
        with open(p.here('fifo'), 'wb', buffering=0) as f:
            f.write(b'here')
            check_equal(select.select([fd], [], [], 30)[0], [fd], 'what can be read')
            check_equal(os.read(fd, 10), b'here', 'read')
            os.unlink(p.there('fifo'))
            f.write(b'gone')
            check_equal(os.read(fd, 10), b'gone', 'read through a fifo without a name')
    finally:
        os.close(fd)


def rule_truncating_a_fifo(p):
    """> into a FIFO replaces nothing."""
    os.mkfifo(p.here('fifo'))
    for shell in ('bash', 'dash'):
        reader = subprocess.Popen(['cat', p.here('fifo')], stdout=subprocess.PIPE)
        subprocess.run([shell, '-c', 'echo value > "$F"'], check=True, timeout=60,
                       env=dict(os.environ, F=p.here('fifo')))
        check_equal(reader.communicate(timeout=60)[0], b'value\n', shell)
    p.check(kind, stat.S_IFIFO, 'fifo')


def rule_sockets(p):
    """Bound here, seen everywhere, served here."""
    server = socket.socket(socket.AF_UNIX)
    with server:
        server.bind(p.here('socket'))
        server.listen(8)
        p.check(kind, stat.S_IFSOCK, 'socket')
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(p.here('socket'))
            served, _ = server.accept()
            with served:
                client.sendall(b'hello')
                check_equal(served.recv(10), b'hello', 'through the socket')
        again = socket.socket(socket.AF_UNIX)
        with again:
            fails_with(errno.EADDRINUSE, again.bind, p.here('socket'))
            if p.others:
                fails_with(errno.ECONNREFUSED, again.connect, p.there('socket'))
        fails_with(errno.ENXIO, os.open, p.there('socket'), os.O_RDWR)
        os.rename(p.there('socket'), p.there('moved'))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(p.here('moved'))
    with socket.socket(socket.AF_UNIX) as client:
        fails_with(errno.ECONNREFUSED, client.connect, p.here('moved'))
    os.unlink(p.there('moved'))
    p.check(os.listdir, [])


def rule_devices_are_not_opened(p):
    """A mount is nodev unless told otherwise: whoever may write to another host's copy of the
    directory is not to open this host's disks."""
    os.mknod(p.here('null'), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in p.everywhere('null'):
        fails_with(errno.EACCES, os.open, path, os.O_RDWR)


def test_devices_where_they_are_wanted(t):
    c = t.cluster(1, options='dev')
    os.mknod(c.path(0, 'null'), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(c.path(0, 'zero'), stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with open(c.path(0, 'null'), 'r+b', buffering=0) as f:
        check_equal(f.write(b'nothing'), 7, 'written to /dev/null')
        check_equal(f.read(10), b'', 'read from it')
    with open(c.path(0, 'null'), 'wb') as f:
        f.write(b'replaced')
    with open(c.path(0, 'zero'), 'rb', buffering=0) as f:
        check_equal(f.read(1000), bytes(1000), 'read from /dev/zero')
    check(stat.S_ISCHR(os.stat(c.path(0, 'null')).st_mode), 'it was replaced by a file')


if __name__ == '__main__':
    main(globals())
