"""A network of hosts for one test: a namespace each, joined by a switch in one of its own.

Every host has one interface, `eth0`, with 10.77.0.N; nothing else is reachable, and nothing of
it is seen from outside. Namespaces are named by this process's id, so that two runs do not
meet; remove() takes them away, and sweep(pid) what a process left that could not.

A link is cut in one direction by giving the sender a wrong address of the receiver's
interface: packets leave, and nobody takes them, as if a cable had swallowed them. Nothing is
refused and nobody is told.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import threading

from spawner import run_here

CLONE_NEWNET = 0x40000000
NOBODY = '02:00:00:00:ff:ff'
PREFIX = 'tierce-test-'
_made = itertools.count()
libc = ctypes.CDLL(None, use_errno=True)


def call_ip(run, arguments):
    done = run(['ip', *arguments])
    if done.returncode:
        raise OSError(f'ip {" ".join(map(str, arguments))}: {done.stderr.decode().strip()}')
    return done.stdout.decode()


class Network:
    def __init__(self, hosts, run=run_here):
        """run: what runs its commands (spawner.py)."""
        self.hosts, self.run = hosts, run
        self.prefix = f'{PREFIX}{os.getpid()}-{next(_made)}-'
        self.cuts = set()  # (from, to)
        self.lock = threading.Lock()
        self.switch = f'{self.prefix}switch'
        self.ip('netns', 'add', self.switch)
        self.ip('-n', self.switch, 'link', 'add', 'switch', 'type', 'bridge')
        self.ip('-n', self.switch, 'link', 'set', 'switch', 'up')
        for i in range(hosts):
            self._add_host(i)
        for a in range(hosts):
            for b in range(hosts):
                if a != b:
                    self._tell_address(a, b, self.hardware(b))

    def _add_host(self, i):
        name = self.namespace(i)
        self.ip('netns', 'add', name)
        self.ip('-n', self.switch, 'link', 'add', f'port{i}', 'type', 'veth', 'peer', 'name', 'eth0',
           'address', self.hardware(i), 'netns', name)
        self.ip('-n', self.switch, 'link', 'set', f'port{i}', 'master', 'switch', 'up')
        self.ip('-n', name, 'link', 'set', 'lo', 'up')
        self.ip('-n', name, 'address', 'add', f'{self.address(i)}/24', 'dev', 'eth0')
        self.ip('-n', name, 'link', 'set', 'eth0', 'up')

    def ip(self, *arguments):
        return call_ip(self.run, arguments)

    def namespace(self, i):
        return f'{self.prefix}{i}'

    def address(self, i):
        return f'10.77.0.{i + 1}'

    def hardware(self, i):
        return f'02:00:00:00:00:{i + 1:02x}'

    def command(self, i):
        """What to put before a command that is to run on host i."""
        return ['nsenter', f'--net=/run/netns/{self.namespace(i)}', '--']

    # ---- Cutting and mending

    def _tell_address(self, a, b, hardware):
        self.ip('-n', self.namespace(a), 'neighbour', 'replace', self.address(b), 'lladdr',
           hardware, 'nud', 'permanent', 'dev', 'eth0')

    def cut(self, a, b):
        """What a sends to b is lost from now on."""
        with self.lock:
            self.cuts.add((a, b))
            self._tell_address(a, b, NOBODY)

    def mend(self, a, b):
        with self.lock:
            self.cuts.discard((a, b))
            self._tell_address(a, b, self.hardware(b))

    def unplug(self, i):
        """The host's cable, at the switch; the host sees it."""
        self.ip('-n', self.switch, 'link', 'set', f'port{i}', 'down')

    def plug(self, i):
        self.ip('-n', self.switch, 'link', 'set', f'port{i}', 'up')

    def slow_down(self, i, *how):
        """All that is on its way to host i: `how` is said to tc's token bucket."""
        done = self.run(['tc', '-n', self.switch, 'qdisc', 'replace', 'dev', f'port{i}', 'root',
                         'tbf', *how])
        if done.returncode:
            raise OSError(f'tc: {done.stderr.decode().strip()}')

    def mend_all(self):
        for a, b in list(self.cuts):
            self.mend(a, b)
        for i in range(self.hosts):
            self.plug(i)

    def arrives(self, a, b, seconds=0.3):
        """Whether a packet that a sends reaches b."""
        with self._socket_on(b) as receiver, self._socket_on(a) as sender:
            receiver.bind((self.address(b), 0))
            receiver.settimeout(seconds)
            with contextlib.suppress(OSError):
                sender.sendto(b'?', receiver.getsockname())
            try:
                return receiver.recv(1) == b'?'
            except TimeoutError:
                return False

    def _socket_on(self, i):
        """A socket belongs to the namespace of the thread that made it."""
        made = []

        def make():
            fd = os.open(f'/run/netns/{self.namespace(i)}', os.O_RDONLY)
            if libc.setns(fd, CLONE_NEWNET) == 0:
                made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            os.close(fd)
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise OSError(f'namespace {self.namespace(i)} cannot be entered: this takes root')
        return made[0]

    def remove(self):
        sweep_namespaces(self.prefix, self.run)


def sweep(pid, run=run_here):
    """Removes the namespaces that process `pid` made, and ends what runs in them."""
    sweep_namespaces(f'{PREFIX}{pid}-', run)


def sweep_namespaces(prefix, run):
    for line in call_ip(run, ('netns', 'list')).splitlines():
        name = line.split()[0]
        if not name.startswith(prefix):
            continue
        for process in call_ip(run, ('netns', 'pids', name)).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        call_ip(run, ('netns', 'delete', name))
