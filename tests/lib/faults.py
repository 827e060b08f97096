"""What happens to the hosts of tests/cluster/torture.py: each fault one class.

All that a fault draws is drawn when it is made, from the plan's seed. It happens in a thread of its
own, beside others: of one node one fault at a time starts and ends the process (its lock),
and one at a time changes who is a member (Stage.membership, taken before a node's).
"""

import os
import signal
import time

from cluster import Failure, alive, wait_for

SETTLE_SECONDS = 600  # other faults end in a tenth of it; then what was begun comes to its end


class Fault:
    """One thing that happens, and how it ends again."""

    most_seconds = 5.0

    def __init__(self, stage, rng):
        self.stage, self.c, self.random = stage, stage.cluster, rng
        self.delay = rng.random() * 2
        self.seconds = rng.random() ** 2 * self.most_seconds + 0.05
        self.aim = rng.random()  # below a half: whoever leads
        self.pick = rng.randrange(1 << 30)

    def run(self):
        time.sleep(self.delay)  # of the plan
        if self.happen():
            self.stage.tally.add(type(self).__name__)

    def hold(self):
        time.sleep(self.seconds)  # of the plan

    def target(self):
        """A node that votes; it may be in another fault's hands."""
        leader = self.c.find_leader() if self.aim < 0.5 else None
        voters = self.c.voters
        return voters[self.pick % len(voters)] if leader is None else leader

    def other(self, i):
        others = [k for k in self.c.voters if k != i]
        return others[(self.pick >> 8) % len(others)]


class ProcessFault(Fault):
    """Of one process, which no other fault starts or ends meanwhile."""

    def happen(self):
        i = self.target()
        with self.c.nodes[i].lock:
            if not self.c.nodes[i].up:
                return False
            return self.strike(i)


class Killed(ProcessFault):
    def strike(self, i):
        self.stage.kill(i)
        self.hold()
        self.stage.start(i)
        return True


class KilledAtOnce(Fault):
    """All of them."""

    def happen(self):
        voters = sorted(self.c.voters)
        for i in voters:
            self.c.nodes[i].lock.acquire()
        try:
            up = [i for i in voters if self.c.nodes[i].up]
            self.c.kill9(*up)
            for i in up:
                self.stage.work.unmounted(i)
            self.c.start_all(up)
            for i in up:
                self.stage.let_callers_in(i)
        finally:
            for i in voters:
                self.c.nodes[i].lock.release()
        return True


class RestartedInALoop(ProcessFault):
    """Killed anywhere in its start, again and again."""

    def strike(self, i):
        self.stage.kill(i)
        for _ in range(2 + self.pick % 4):
            self.c.kill_start(i, self.random.random() ** 2)
        self.stage.start(i)
        return True


class Terminated(ProcessFault):
    """SIGTERM: the mount goes though callers are in it."""

    def strike(self, i):
        os.kill(self.c.nodes[i].pid, signal.SIGTERM)
        self.stage.work.unmounted(i)
        self.c.wait_ended(i)
        self.hold()
        self.stage.start(i)
        return True


class Stopped(ProcessFault):
    """`tierce stop`, when the callers have left the mount."""

    def strike(self, i):
        life = self.stage.work.unmounted(i)
        wait_for(lambda: life.fd < 0, f'the callers of node {i} leave')
        self.c.stop(i)
        self.hold()
        self.stage.start(i)
        return True


class Paused(ProcessFault):
    most_seconds = 14.0  # beyond the death of a session (S6)

    def strike(self, i):
        self.c.pause(i)
        try:
            self.hold()
        finally:
            self.c.go_on(i)
        return True


class PausedInPulses(ProcessFault):
    def strike(self, i):
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            self.c.pause(i)
            time.sleep(self.random.random() * 0.3)  # of the plan
            self.c.go_on(i)
            time.sleep(self.random.random() * 0.2)  # of the plan
        return True


class DiskFull(ProcessFault):
    def strike(self, i):
        filled = self.c.fill_disk(i, self.pick % (4 << 20))
        try:
            self.hold()
        finally:
            self.c.empty_disk(i)
        return filled


class CutOneWay(Fault):
    def happen(self):
        a = self.target()
        b = self.other(a)
        if self.pick & 1:
            a, b = b, a
        self.c.network.cut(a, b)
        self.hold()
        self.c.network.mend(a, b)
        return True


class CutTwoWays(Fault):
    def happen(self):
        a = self.target()
        b = self.other(a)
        self.cut_between([a], [b])
        return True

    def cut_between(self, these, those):
        pairs = [(a, b) for a in these for b in those]
        for a, b in pairs:
            self.c.network.cut(a, b)
            self.c.network.cut(b, a)
        self.hold()
        for a, b in pairs:
            self.c.network.mend(a, b)
            self.c.network.mend(b, a)


class Parted(CutTwoWays):
    """In two groups; either may have the majority, and the leader."""

    def happen(self):
        hosts = list(range(len(self.c.nodes)))
        self.random.shuffle(hosts)
        size = 1 + self.pick % (len(hosts) - 1)
        self.cut_between(hosts[:size], hosts[size:])
        return True


class Unplugged(Fault):
    most_seconds = 14.0

    def happen(self):
        i = self.target()
        self.c.network.unplug(i)
        self.hold()
        self.c.network.plug(i)
        return True


class Flapping(Fault):
    """A link that comes and goes, one way."""

    def happen(self):
        a = self.target()
        b = self.other(a)
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            self.c.network.cut(a, b)
            time.sleep(self.random.random() * 0.4)  # of the plan
            self.c.network.mend(a, b)
            time.sleep(self.random.random() * 0.2)  # of the plan
        return True


FAULTS = [Killed, KilledAtOnce, RestartedInALoop, Terminated, Stopped, Paused, PausedInPulses,
          DiskFull, CutOneWay, CutTwoWays, Parted, Unplugged, Flapping]


# ---- Who is a member ---------------------------------------------------------------------------


class MembershipFault(Fault):
    """What is refused for now, or not answered, is asked again until it is done: other faults end.
    """

    def happen(self):
        with self.stage.membership:
            i = self.target()
            with self.c.nodes[i].lock:
                return self.c.nodes[i].up and self.change(i)

    def helper(self, i):
        """A node to ask: not this one, nor one that is known to be frozen."""
        return [k for k in self.c.up() if k != i and k not in self.c.paused]

    def ask(self, i, *arguments, at=None, is_done=lambda said: False):
        """Any other node (or `at`), again and again, until it is done, or is_done(what was said)."""
        deadline, said = time.monotonic() + SETTLE_SECONDS, None
        while time.monotonic() < deadline:
            nodes = self.helper(i) if at is None else [at]
            if nodes:
                try:
                    said = self.c.tierce(*arguments, code=None, seconds=40,
                                         data=nodes[self.random.randrange(len(nodes))])
                except Failure as e:
                    said = e
                else:
                    if said.code == 0 or is_done(said):
                        return said
            time.sleep(0.2)  # between two tries
        raise Failure(f'not done after {SETTLE_SECONDS} s: {said}')

    def remove(self, i, name):
        """By another node. That there is no such member is what one says that lags behind, too: it
        counts where the process has ended, as that of a removed node does by itself."""
        pid = self.c.nodes[i].pid
        self.ask(i, 'remove', name,
                 is_done=lambda said: 'no member is called' in said.error and not alive(pid))

    def come_back(self, i, *options):
        """As another node, with another name and an empty disk, on the same host."""
        self.c.forget(i)
        node = self.c.nodes[i]
        token = self.ask(i, 'invite').text.strip()
        self.ask(i, 'join', token, '--listen', node.address, '--name', node.name, *options, at=i)
        self.c.configure(i)
        self.stage.start(i)

    def wait_gone(self, i):
        """The process of a node that was removed ends by itself."""
        self.c.wait_ended(i, SETTLE_SECONDS)
        self.stage.work.unmounted(i)


class Removed(MembershipFault):
    def change(self, i):
        self.remove(i, self.c.nodes[i].name)
        self.wait_gone(i)
        self.come_back(i)
        return True


class Left(MembershipFault):
    """By itself; where that is refused for now it goes on."""

    def change(self, i):
        life = self.stage.work.unmounted(i)
        wait_for(lambda: life.fd < 0, f'the callers of node {i} leave')
        name = self.c.nodes[i].name
        left = self.c.tierce('leave', data=i, code=None, seconds=60)
        if left.code and self.runs_on(i):
            self.stage.let_callers_in(i)
            return False
        self.c.wait_ended(i)
        if left.code:  # it was not told that it is out
            self.remove(i, name)
        self.come_back(i)
        return True

    def runs_on(self, i):
        status = self.c.status(i)
        return status is not None and status['pid'] == self.c.nodes[i].pid


class Replaced(MembershipFault):
    """Its disk is lost; another takes its place."""

    def change(self, i):
        name = self.c.nodes[i].name
        self.stage.kill(i)
        self.come_back(i, '--replace', name)
        return True


class Observed(MembershipFault):
    """A host more, that never votes, comes, is called at, and goes."""

    most_seconds = 8.0

    def target(self):
        return len(self.c.nodes) - 1

    def happen(self):
        with self.stage.membership, self.c.nodes[self.target()].lock:
            i = self.target()
            self.come_back(i, '--learner')
            self.hold()
            self.remove(i, self.c.nodes[i].name)
            self.wait_gone(i)
        return True


class Transferred(MembershipFault):
    """To whoever is best, or to one by name; it may be refused."""

    def happen(self):
        i = self.target()
        asked = self.helper(None)
        if not asked:
            return False
        to = [self.c.nodes[i].name] if self.pick & 1 else []
        done = self.c.tierce('transfer', *to, code=None, seconds=40,
                             data=asked[(self.pick >> 4) % len(asked)])
        return done.code == 0


FAULTS += [Removed, Left, Replaced, Observed, Transferred]
