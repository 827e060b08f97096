#!/usr/bin/python3
"""Certificates that renew themselves, and a CA that is replaced while all goes on."""

import os
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (Pulse, WAIT_SECONDS, Worker, check, check_equal, free_port,  # noqa: E402
                     main, wait_for)

LIFE_SECONDS = 20
LINES = 10  # of each writer, and more
ROTATIONS = 6  # in each of which a node is killed
QUICK_SECONDS = 0.05  # a third of the shortest election timeout


class Writer:
    """Appends numbered lines to a file of one mount until it is told to stop, and remembers the
    longest time that one took."""

    def __init__(self, c, i):
        self.path = c.path(i, f'lines-{i}')
        self.stopping = threading.Event()
        self.count, self.slowest, self.error = 0, 0.0, None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            with open(self.path, 'a') as f:
                while not self.stopping.is_set():
                    begun = time.monotonic()
                    f.write(f'{self.count}\n')
                    f.flush()
                    os.fsync(f.fileno())
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    self.count += 1
        except OSError as error:
            self.error = error

    def stop(self):
        wait_for(lambda: self.count > LINES or self.error, f'{LINES} lines in {self.path}')
        self.stopping.set()
        self.thread.join()
        return self


def check_written(c, writers):
    """Each wrote without an error, and what it wrote is on every mount."""
    for w in writers:
        check(w.error is None, f'writing to {w.path} failed: {w.error}')
        expected = ''.join(f'{k}\n' for k in range(w.count))
        for i in c.up():
            with open(c.path(i, os.path.basename(w.path))) as f:
                check_equal(f.read(), expected, f'{os.path.basename(w.path)} at node {i}')


def shown(c, i):
    """The certificate that a node shows to who connects."""
    return ssl.get_server_certificate(('127.0.0.1', c.nodes[i].port))


def is_signed_by(c, pem, ca_pem):
    certificate, ca = f'{c.base}/shown.crt', f'{c.base}/believed.crt'
    for path, text in ((certificate, pem), (ca, ca_pem)):
        with open(path, 'w') as f:
            f.write(text)
    return subprocess.run(['openssl', 'verify', '-partial_chain', '-CAfile', ca, certificate],
                          capture_output=True).returncode == 0


def ends(c):
    return [c.status(i)['certificate_end'] for i in range(len(c.nodes))]


def terms(c):
    return {c.status(i)['term'] for i in c.up()}


def check_nobody_was_elected(t, c, term, pulse):
    """Where nodes get their turn in time; they lose leaders for that alone otherwise, as they do
    under a sanitizer."""
    worst = pulse.stop()
    if t.patience == 1 and worst < QUICK_SECONDS:
        check_equal(terms(c), term, 'the term')
    else:
        print(f'# terms {term}, then {terms(c)}; a turn came {worst * 1000:.0f} ms late')


def test_certificates_are_renewed_under_writes(t):
    c = t.cluster(3, conf={'certificate_life': f'{LIFE_SECONDS}s'})
    # That of `init` was for a year: it is renewed in the time that is asked for now.
    before, certificates = ends(c), [shown(c, i) for i in range(3)]
    term, pulse = terms(c), Pulse()
    writers = [Writer(c, i) for i in range(3)]
    wait_for(lambda: all(now != was for now, was in zip(ends(c), before)),
             'every node has renewed its certificate')
    first = ends(c)
    wait_for(lambda: all(now > was for now, was in zip(ends(c), first)),
             'every node has renewed it again')
    # What was valid when the connections were opened is not any more.
    wait_for(lambda: time.time() > max(first), 'the first of them have ended')
    check_written(c, [w.stop() for w in writers])
    check_nobody_was_elected(t, c, term, pulse)
    for i in range(3):
        check(shown(c, i) != certificates[i], f'node {i} shows its first certificate')
    # Who connects anew is let in, and lets in.
    c.kill9(1)
    c.start(1)
    c.wait_ready()
    check_equal(c.tierce('get', 'lines-0', data=1).text.splitlines()[0], '0', 'a line')


def test_certificates_that_ended_meanwhile(t):
    c = t.cluster(3, mounted=False, conf={'certificate_life': f'{LIFE_SECONDS}s'})
    c.tierce('put', 'k', data=0, input=b'before')
    # One node is off until its certificate has ended.
    c.kill9(2)
    end = time.time() + LIFE_SECONDS + 1
    wait_for(lambda: time.time() > end, 'its certificate has ended')
    c.tierce('put', 'k', data=0, input=b'between')
    c.start(2)
    c.wait_ready()
    check_equal(c.tierce('get', 'k', data=2).text, 'between', 'the value')
    check(c.status(2)['certificate_end'] > time.time(), 'its certificate is valid')
    # All of them are: nobody is there who could sign.
    c.kill9(0, 1, 2)
    end = time.time() + LIFE_SECONDS + 1
    wait_for(lambda: time.time() > end, 'all certificates have ended')
    c.start_all(range(3))
    c.wait_ready()
    check_equal(c.tierce('get', 'k', data=1).text, 'between', 'the value')


def test_a_full_disk_only_delays_it(t):
    c = t.cluster(1, mounted=False, disk='224m',
                  conf={'certificate_life': f'{LIFE_SECONDS}s', 'segment_mib': 16})
    filler, log = f'{c.nodes[0].data}/filler', f'{c.nodes[0].data}/node.log'
    end = c.status(0)['certificate_end']
    with open(filler, 'wb', buffering=0) as f:
        try:
            while f.write(b'x' * 4096):
                pass
        except OSError:
            pass
    wait_for(lambda: 'cannot be renewed' in open(log).read(), 'it is said')
    check_equal(c.status(0)['certificate_end'], end, 'the end of the certificate')
    os.unlink(filler)
    wait_for(lambda: c.status(0)['certificate_end'] != end, 'it is renewed')
    c.check_running()


def test_what_is_broken_is_made_good(t):
    """As a crash between the two files leaves them, or a copy that is too old."""
    c = t.cluster(1, mounted=False)
    data = c.nodes[0].data
    good = {name: open(f'{data}/{name}').read() for name in ('ca.crt', 'node.crt')}
    c.stop(0)
    for name in good:
        with open(f'{data}/{name}', 'w') as f:
            f.write('not a certificate\n')
    c.start(0)
    c.wait_ready()
    check_equal(open(f'{data}/ca.crt').read(), good['ca.crt'], 'ca.crt')
    check(is_signed_by(c, open(f'{data}/node.crt').read(), good['ca.crt']), 'node.crt')
    check_equal(shown(c, 0), ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(
        open(f'{data}/node.crt').read())), 'what the node shows')


def ca_of(c, i):
    with open(f'{c.nodes[i].data}/ca.crt') as f:
        return f.read()


def test_the_ca_is_replaced_under_writes(t):
    """By followers and the leader, again and again; and while nodes are killed."""
    c = t.cluster(3)
    old_ca, cert = ca_of(c, 0), shown(c, 1)
    check(is_signed_by(c, cert, old_ca), 'the first certificate is not of the first CA')
    token = c.tierce('invite', data=0).text.strip()
    term, pulse = terms(c), Pulse()
    writers = [Writer(c, i) for i in range(3)]
    for i in (c.leader(), (c.leader() + 1) % 3):
        text = c.tierce('rotate-ca', data=i).text
        for step in ('step 1 of 3', 'step 2 of 3', 'step 3 of 3', 'The CA is replaced'):
            check(step in text, f'"{step}" is not told:\n{text}')
        check(len({ca_of(c, i) for i in range(3)}) == 1, 'the nodes believe different CAs')
        check(ca_of(c, 0).count('BEGIN') == 1, 'more than one CA is believed')
    check_written(c, [w.stop() for w in writers])
    check_nobody_was_elected(t, c, term, pulse)
    for i in range(3):
        check(is_signed_by(c, shown(c, i), ca_of(c, 0)), f'the certificate of node {i}')
        check(not is_signed_by(c, shown(c, i), old_ca), f'the certificate of node {i}')
        check_equal(c.status(i)['members'][0]['ca_step'], 6, 'the step')
    # What was made under the former CA is of no use any more.
    new, address = f'{c.base}/new', f'127.0.0.1:{free_port()}'
    result = c.tierce('join', token, '--data', new, '--listen', address, '--name', 'late',
                      code=1)
    check('replaced its CA' in result.error and 'tierce invite' in result.error, f'{result}')
    # A restart, with what is on disk; and a token of the new CA.
    c.kill9(0, 1, 2)
    c.start_all(range(3))
    c.wait_ready()
    token = c.tierce('invite', data=2).text.strip()
    c.tierce('join', token, '--data', new, '--listen', address, '--name', 'late')
    check_equal(open(f'{new}/ca.crt').read(), ca_of(c, 0), 'what a new node believes')


def test_a_node_that_is_off_holds_the_rotation_up(t):
    c = t.cluster(3, mounted=False)
    c.kill9(2)
    worker = Worker(lambda: c.tierce('rotate-ca', data=0, code=None, seconds=120))
    leader = c.leader([0, 1])
    steps = lambda: [m['ca_step'] for m in c.status(leader)['members'][:2]]  # noqa: E731
    wait_for(lambda: steps() == [1, 1], 'two have taken the first step')
    check_equal(c.status(0)['ca_rotation'], 1, 'the step that is under way')
    text = c.tierce('status', data=0).text
    check('step 1 of 3: waits for n2' in text, text)
    c.tierce('put', 'k', data=1, input=b'while it waits')
    # Its certificate is of the former CA, which is believed still.
    c.kill9(0, 1)
    check('goes on all the same' in worker.result().error, 'the command says so')
    c.start_all([0, 1])
    wait_for(lambda: all(c.status(i) and c.status(i)['quorum'] for i in (0, 1)), 'a majority')
    worker = Worker(lambda: c.tierce('rotate-ca', data=1, seconds=120))
    c.start(2)
    text = worker.result().text
    check('goes on' in text and 'is replaced' in text, text)
    c.wait_ready()
    check_equal(c.tierce('get', 'k', data=2).text, 'while it waits', 'the value')
    check_equal([m['ca_step'] for m in c.status(2)['members']], [3, 3, 3], 'the steps')
    check_equal(c.status(2)['ca_rotation'], 0, 'no step is under way')
    check('is being replaced' not in c.tierce('status', data=2).text, 'status')


def test_who_holds_it_up_is_named_and_may_be_removed(t):
    c = t.cluster(3, mounted=False)
    c.kill9(1)
    process = subprocess.Popen([c.binary, 'rotate-ca', '--data', c.nodes[0].data],
                               stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    check('n1 (cannot be reached)' in line and 'tierce remove' in line, line)
    c.tierce('remove', 'n1', data=2)
    out, _ = process.communicate(timeout=WAIT_SECONDS)
    check(process.returncode == 0 and 'is replaced' in out, out)


def test_killed_in_the_rotation(t):
    """A node that is killed at any moment of it comes back, and it ends."""
    c = t.cluster(3, mounted=False)
    begun = time.monotonic()
    c.tierce('rotate-ca', data=0)
    takes, caught = time.monotonic() - begun, 0
    for k in range(ROTATIONS):
        victim = t.random.randrange(3)
        process = subprocess.Popen([c.binary, 'rotate-ca', '--data',
                                    c.nodes[(victim + 1) % 3].data], stdout=subprocess.DEVNULL)
        # No event tells these moments: from the first to the usual end, whatever that is here.
        time.sleep(takes * (k + t.random.random() * (k > 0)) / ROTATIONS)
        caught += process.poll() is None
        c.kill9(victim)
        c.start(victim)
        check_equal(process.wait(WAIT_SECONDS), 0, 'rotate-ca')
        c.wait_ready()
        check_equal(len({ca_of(c, i) for i in range(3)}), 1, 'believed CAs')
    check(caught > 0, 'no rotation was going on when a node was killed')


if __name__ == '__main__':
    main(globals())
