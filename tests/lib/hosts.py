"""Clusters whose nodes run on hosts of a network of their own, each with a disk of its own."""

import contextlib
import os
import shutil
import signal
import threading

from cluster import Cluster, Worker, alive, check, wait_for
from network import Network
from spawner import Spawner

PORT = 7370
DISK_MIB = 512
STATUS_SECONDS = 3


class HostCluster(Cluster):
    """`n` nodes mounted on hosts of their own, and `spare` hosts more that none runs on yet. Of one
    node one thread at a time may start and end the process: who holds its lock."""

    def __init__(self, n, spare=0, conf=None, binary=None, base=None):
        super().__init__(n + spare, conf=conf, binary=binary, base=base)
        self.spawner = Spawner()
        self.run = self.spawner.run
        self.network = None
        self.paused, self.names = set(), n
        for node in self.nodes:
            node.lock = threading.Lock()
            node.disk = f'{self.base}/{node.name}/disk'
            node.data = f'{node.disk}/data'
        self.voters = list(range(n))

    def make(self):
        self.network = Network(len(self.nodes), self.run)
        for node in self.nodes:
            node.prefix = self.network.command(node.index)
            node.address = f'{self.network.address(node.index)}:{PORT}'
            self._make_disk(node)
        first = self.nodes[0]
        self.tierce('init', '--listen', first.address, '--name', first.name, data=0)
        self._configure(first)
        self.start(0)
        for i in self.voters[1:]:
            self.join(i, self.tierce('invite', data=0).text.strip())
        wait_for(self.all_vote, 'all nodes vote and know one leader')

    def _make_disk(self, node):
        image = f'{self.base}/{node.name}/image'
        with open(image, 'wb') as f:
            f.truncate(DISK_MIB << 20)
        os.makedirs(node.disk)
        self.run(['mkfs.ext4', '-q', '-m', '0', image]).check_returncode()
        self.run(['mount', '-o', 'loop', image, node.disk]).check_returncode()

    def join(self, i, token, *options):
        node = self.nodes[i]
        self.tierce('join', token, '--listen', node.address, '--name', node.name, *options,
                    data=i)
        self.configure(i)
        self.start(i)

    def forget(self, i):
        """Its disk is lost, and what comes next is another node."""
        node = self.nodes[i]
        check(not node.up, 'a node that runs keeps its disk')
        shutil.rmtree(node.data, ignore_errors=True)
        node.name = f'n{self.names}'
        self.names += 1

    # ---- Looking

    def status(self, i, seconds=STATUS_SECONDS):
        return None if i in self.paused else super().status(i, seconds)

    def find_leader(self):
        """Who leads, as the nodes say it at this moment; None where they do not know."""
        for i in self.up():
            status = self.status(i)
            if status and status['role'] == 'leader' and status['quorum']:
                return i
        return None

    def all_settled(self):
        """Every node that runs is a member, and no other; and votes, unless it never will."""
        names = {self.nodes[i].name for i in self.up()}
        leader = self.find_leader()
        seen = self.status(leader) if leader is not None else None
        return (seen and {m['name'] for m in seen['members']} == names
                and sum(m['voter'] for m in seen['members']) == len(self.voters))

    def all_vote(self):
        seen = [self.status(i) for i in self.up()]
        return (all(s and s['quorum'] for s in seen) and len({s['leader'] for s in seen}) == 1
                and all(len(s['members']) == len(seen) for s in seen)
                and all(m['voter'] for s in seen for m in s['members']))

    # ---- Ending processes

    def kill_start(self, i, seconds):
        """Starts it, and kills whatever runs for it after that time, wherever it is by then."""
        starting = Worker(lambda: self.tierce(*self.start_arguments(i), data=i, code=None))
        starting.join(seconds)

        def all_killed():
            ended = not starting.is_alive()
            running = self.processes_of(i)
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return ended and not any(alive(pid) for pid in running)
        wait_for(all_killed, f'what starts node {i} ends')
        self.nodes[i].up = False

    def processes_of(self, i):
        data, found = os.fsencode(self.nodes[i].data), []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                with open(f'/proc/{pid}/cmdline', 'rb') as f:
                    if data in f.read().split(b'\0'):
                        found.append(pid)
        return found

    def pause(self, i):
        self.paused.add(i)
        self.freeze(i)

    def go_on(self, i):
        self.thaw(i)
        self.paused.discard(i)

    # ---- Full disks

    def fill_disk(self, i, left_bytes):
        """Leaves that many bytes on the host's disk to others."""
        space = os.statvfs(self.nodes[i].disk)
        free = space.f_bavail * space.f_frsize
        if free <= left_bytes:
            return False
        fd = os.open(f'{self.nodes[i].disk}/ballast', os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, free - left_bytes)
        except OSError:
            pass  # it takes all there is
        finally:
            os.close(fd)
        return True

    def empty_disk(self, i):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f'{self.nodes[i].disk}/ballast')

    def close(self):
        if self.closed:
            return
        super().close()
        if self.network:
            self.network.remove()
        self.spawner.close()
