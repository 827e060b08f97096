#!/usr/bin/python3
"""The protocol of a live node, spoken to it from outside (tests/lib/protocol.py): by a member whose
place the test takes, with its certificate, and by strangers."""

import os
import resource
import ssl
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import protocol as p  # noqa: E402
from cluster import Failure, check, check_equal, main, wait_for  # noqa: E402

CONNECTIONS = 1000
QUIET_SECONDS = 1.0  # how long an answer is waited for that need not come
FAR = 1000  # terms ahead: no election gets there by itself
ELECTIONS = 10  # of a test that must hit the moment


class Outside:
    """A cluster of three, one of whose places the test has taken."""

    def __init__(self, t):
        self.cluster = t.cluster()
        c = self.cluster
        self.place = next(i for i in range(3) if i != c.leader())
        c.stop(self.place)
        self.name, self.address = c.nodes[self.place].name, c.nodes[self.place].address
        self.identity = p.Identity(c.nodes[self.place].data)
        self.member = p.Member(self.identity, self.address)
        self.nodes = [i for i in range(3) if i != self.place]
        wait_for(lambda: len(self.member.peers) == 2, 'both nodes have dialed the test')

    def leader(self):
        return self.cluster.leader(self.nodes)

    def connect(self, i, **keywords):
        return p.open_connection(self.identity, self.cluster.nodes[i].address, self.address,
                                 **keywords)

    def dial(self, i):
        return p.dial(self.cluster.nodes[i].address,
                      self.identity.context(ssl.PROTOCOL_TLS_CLIENT))

    def status(self, i):
        return self.cluster.status(i)

    def check_serves(self):
        self.cluster.check_running()
        for i in self.nodes:
            self.cluster.tierce('put', f'/still-{i}', 'served', data=i)

    def close(self):
        self.member.close()


def outside(function):
    """The test gets an Outside, which is closed again."""
    def run(t):
        o = Outside(t)
        try:
            function(t, o)
            o.check_serves()
        finally:
            o.close()
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


# ---- Hello -------------------------------------------------------------------------------------


@outside
def test_hello(t, o):
    i = o.nodes[0]
    connection = o.connect(i)
    version, oldest, cluster, node = connection.peer
    check_equal((version, oldest), (p.VERSION, p.OLDEST), 'versions that the node speaks')
    check_equal(cluster, o.identity.cluster, 'cluster id')
    check_equal(f'{node:016x}', o.status(i)['id'], 'node id')
    check(connection.is_open(), 'a connection with both HELLOs is open')
    connection.close()
    newer = o.connect(i, version=p.VERSION + 1)
    check(newer.is_open(), 'a newer peer that still speaks this version is let in')
    newer.close()


@outside
def test_hello_that_is_refused(t, o):
    i = o.nodes[0]
    refused = o.status(i)['refused']
    for label, reason, keywords in (
            ('too old', p.OF_VERSION, {'version': p.OLDEST - 1, 'oldest': p.OLDEST - 1}),
            ('too new', p.OF_VERSION, {'version': p.VERSION + 5, 'oldest': p.VERSION + 5}),
            ('of another cluster', p.OTHER, {'cluster': b'x' * 16}),
            ('of another node', p.OTHER, {'node': o.identity.node + 1})):
        connection = o.dial(i)
        connection.send(p.HELLO, p.hello(o.identity, **keywords))
        frames = connection.wait_closed()
        last = frames[-1] if frames else None
        check(last and last.type == p.REFUSAL, f'{label}: {frames}, expected a REFUSAL')
        check_equal(last.value[0], reason, f'the reason why a HELLO {label} is refused')
        check(struct.unpack_from('<H', last.value, 1)[0] == len(last.value) - 3,
              f'{label}: the text fills the frame')
    wait_for(lambda: o.status(i)['refused'] >= refused + 4, 'all four are counted')


@outside
def test_frames_before_hello_and_hello_twice(t, o):
    i = o.nodes[0]
    for label, frames in (
            ('an operation', [(p.OPERATION, b'\0' * 60)]),
            ('a vote', [(p.VOTE, p.vote(99, 0, 0))]),
            ('HELLO twice', [(p.HELLO, p.hello(o.identity))] * 2)):
        term = o.status(i)['term']
        connection = o.dial(i)
        for kind, value in frames:
            connection.send(kind, value)
        connection.wait_closed()
        check(o.status(i)['term'] < 99, f'{label} was heard (term {term} before)')


# ---- Frames ------------------------------------------------------------------------------------


@outside
def test_unknown_types_are_answered_and_skipped(t, o):
    connection = o.connect(o.nodes[0])
    for kind in (0x00, 0x16, 0x2f, 0x40, 0x7f, 0xff):
        connection.send(kind, t.random_bytes(t.random.randrange(100000)), stream=kind)
        got = connection.expect(p.ERROR)
        check_equal((got.stream, got.value), (kind, bytes([kind])), f'ERROR of {kind:#x}')
    # Known, but not from a node.
    for kind in (p.JOIN, p.CONTROL, p.CONTROL_ANSWER):
        connection.send(kind, b'\3', stream=9)
        check_equal(connection.expect(p.ERROR).value, bytes([kind]), f'ERROR of {kind:#x}')
    check(connection.is_open(), 'the connection goes on')
    connection.close()


@outside
def test_a_frame_in_pieces(t, o):
    """Cut anywhere, down to single bytes: the same frames."""
    connection = o.connect(o.nodes[0])
    data = b''.join(p.frame(0xee, t.random_bytes(t.random.randrange(40)), stream=k)
                    for k in range(50))
    at = 0
    while at < len(data):
        size = t.random.choice((1, 1, 2, 3, 7, 30))
        connection.tls.sendall(data[at:at + size])
        at += size
    for k in range(50):
        check_equal(connection.expect(p.ERROR).stream, k, 'stream of an ERROR')
    connection.close()


def good_frames(o):
    """Of each type that a member may send, one that is right."""
    status = o.status(o.leader())
    term, last = status['term'], status['last']
    op = struct.pack('<QQQQ', 1, 1, 1, term) + p.mkdir('x')
    return [('vote', p.VOTE, p.vote(1, 0, 0, p.PRE)),
            ('vote reply', p.VOTE_REPLY, struct.pack('<QB', 1, 0)),
            ('append', p.APPEND, p.append(1, last, 1)),
            ('append reply', p.APPEND_REPLY, p.append_reply(1, 0, 1)),
            ('timeout now', p.TIMEOUT_NOW, struct.pack('<Q', 1)),
            ('snapshot', p.SNAPSHOT, struct.pack('<QQQQQQ', 1, 1, 1, 1, 1, 0)),
            ('operation', p.OPERATION, op),
            ('answer', p.ANSWER, struct.pack('<BQQIQQ', p.NOT_LEADER, 1, 1, 0, 0, 0)),
            ('fetch', p.FETCH, struct.pack('<QBQQ', 1, 5, last, term)),
            ('error', p.ERROR, b'\xee')]


@outside
def test_truncated_and_overlong_frames(t, o):
    """Fields that do not fill their frame end the connection; the same frame, whole, does not."""
    for label, kind, value in good_frames(o):
        connection = o.connect(o.nodes[0])
        connection.send(kind, value)
        check(connection.is_open(), f'a good {label} ends the connection')
        connection.close()
        bad = [('nothing', b''), ('a byte less', value[:-1])]
        if kind not in (p.APPEND, p.OPERATION):  # in these bytes more are entries, or an operation's
            bad.append(('a byte more', value + b'\0'))
        if kind == p.OPERATION:
            bad[1] = ('no operation', value[:32])
        if kind == p.APPEND:
            bad.append(('entries that are none', value + b'\0' * 100))
        for how, data in bad:
            connection = o.connect(o.nodes[0])
            connection.send(kind, data)
            try:
                connection.wait_closed()
            except Failure as e:
                raise Failure(f'{label}, {how}: {e}') from None


@outside
def test_oversized_frames(t, o):
    """Ended when the header is read: the value is not waited for."""
    i = o.nodes[0]
    refused = o.status(i)['refused']
    for length in (p.LIMIT + 1, 1 << 31, (1 << 32) - 1):
        connection = o.connect(i)
        connection.tls.sendall(p.header(0xee, 1, length))
        connection.wait_closed()
    connection = o.dial(i)
    connection.tls.sendall(p.header(p.HELLO, 0, p.LIMIT_UNPROVEN + 1))
    connection.wait_closed()
    wait_for(lambda: o.status(i)['refused'] >= refused + 4, 'all four are counted')
    connection = o.connect(i)
    connection.send(0xee, bytes(p.LIMIT), stream=5)
    check_equal(connection.expect(p.ERROR).stream, 5, 'a frame of the largest size')
    connection.close()


# ---- Certificates ------------------------------------------------------------------------------


@outside
def test_certificates_that_are_not_the_clusters(t, o):
    """Of another CA with the right names in it, and of another cluster: not a byte."""
    i = o.nodes[0]
    other = t.cluster(1, mounted=False)
    other.stop(0)
    stranger = p.Identity(other.nodes[0].data)
    stranger.ca = o.identity.ca
    for label, identity in (('another cluster', stranger), ('none', None)):
        refused = o.status(i)['refused']
        if identity:
            context = identity.context(ssl.PROTOCOL_TLS_CLIENT)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        frames = []
        try:
            connection = p.dial(o.cluster.nodes[i].address, context)
            connection.send(p.HELLO, p.hello(o.identity))
            frames = connection.wait_closed()
        except (ssl.SSLError, ConnectionError):
            pass
        check(not frames, f'a certificate of {label} got frames: {frames}')
        wait_for(lambda: o.status(i)['refused'] > refused, f'{label} is counted')


# ---- Consensus ---------------------------------------------------------------------------------


@outside
def test_a_higher_term_makes_a_leader_step_down(t, o):
    for _ in range(3):
        leader = o.leader()
        term = o.status(leader)['term']
        connection = o.connect(leader)
        connection.send(p.APPEND_REPLY, p.append_reply(term + 5, 0, 1))
        wait_for(lambda: o.status(leader)['term'] >= term + 5, 'the leader takes the term over')
        o.leader()
        connection.close()
        check(all(o.status(i)['term'] >= term + 5 for i in o.nodes), 'terms after it')


@outside
def test_a_lower_term_is_told(t, o):
    """A leader of an old term hears of the new one, and is not followed."""
    for i in o.nodes:
        status = o.status(i)
        o.member.forget()
        connection = o.connect(i)
        connection.send(p.APPEND, p.append(1, status['last'], 1))
        got = o.member.wait_frame(p.APPEND_REPLY)
        connection.close()
        check(got, f'node {i} answers an APPEND of an old term')
        term, ok = struct.unpack_from('<QB', got[1])
        after = o.status(i)
        check(status['term'] <= term <= after['term'] and ok == 0,
              f'term {term}, ok {ok} in the answer of {i}: its terms {status["term"]} to'
              f' {after["term"]}')
        check(after['leader'] != o.name, 'who sent it is followed')


def ask_vote(o, i, term, last_index, last_term, flags, seconds=p.WAIT_SECONDS):
    """(term, granted) of the answer; None: there was none."""
    o.member.forget()
    peer = int(o.status(i)['id'], 16)
    connection = o.connect(i)
    connection.send(p.VOTE, p.vote(term, last_index, last_term, flags))
    got = o.member.wait_frame(p.VOTE_REPLY, lambda node, _: node == peer, seconds)
    connection.close()
    if got is None:
        return None
    answered, flags = struct.unpack_from('<QB', got[1])
    return answered, bool(flags & p.GRANTED)


@outside
def test_a_leader_that_lives_is_not_voted_out(t, o):
    """Stickiness: a candidate nobody asked for moves no term, however current its log."""
    o.leader()
    term, last = max(o.status(i)['term'] for i in o.nodes), 1 << 40
    for flags in (p.PRE, 0):
        for i in o.nodes:
            got = ask_vote(o, i, term + FAR, last, term, flags, QUIET_SECONDS)
            check(got is None or not got[1], f'node {i} votes against a leader that lives')
    for i in o.nodes:
        after = o.status(i)
        check(after['term'] < term + FAR, f'the term of node {i} is {after["term"]}')
        check(after['leader'] != o.name, f'node {i} follows the candidate')


@outside
def test_a_stale_candidate_is_refused(t, o):
    """With the mark of a transfer it is heard though a leader lives: a stale log gets no vote, a
    current one does (so that this test can tell)."""
    for turn in range(ELECTIONS):
        leader = o.leader()
        follower = next(i for i in o.nodes if i != leader)
        status = o.status(follower)
        term = status['term']
        for index, log_term in ((0, 0), (status['applied'] - 1, term), (1 << 40, term - 1)):
            term += 1
            got = ask_vote(o, follower, term, index, log_term, p.TRANSFER)
            check(got and not got[1], f'a log that ends at {index} of term {log_term}: {got}')
            check(got[0] >= term, f'the answer to term {term} is of term {got[0]}')
        term = max(o.status(i)['term'] for i in o.nodes) + 1
        got = ask_vote(o, follower, term, 1 << 40, term - 1, p.TRANSFER)
        if got and got[1] and got[0] == term:
            again = ask_vote(o, follower, term, 1 << 40, term - 1, p.TRANSFER, QUIET_SECONDS)
            check(again is None or again[1] or again[0] > term,
                  'the same candidate is told otherwise')
            return
    raise Failure(f'no current candidate got a vote in {ELECTIONS} elections')


# ---- Operations --------------------------------------------------------------------------------


class Session:
    def __init__(self, o):
        self.leader = o.leader()
        self.term = o.status(self.leader)['term']
        self.connection = o.connect(self.leader)
        nonce = time.monotonic_ns()
        self.send_raw(0, 0, 0, struct.pack('<BQQ', p.SESSION, o.identity.node, nonce))
        answer = self.answer()
        check_equal(answer.status, p.OK, 'the answer to SESSION')
        self.number, self.next = answer.value, 1

    def send_raw(self, session, request, lowest, operation, stream=0):
        self.connection.send(p.OPERATION, struct.pack('<QQQQ', session, request, lowest, self.term)
                             + operation, stream)

    def send(self, operation, request=None, lowest=1, stream=0):
        if request is None:
            request, self.next = self.next, self.next + 1
        self.send_raw(self.number, request, lowest, operation, stream)
        return request

    def answer(self):
        while True:
            got = self.connection.receive()
            if got.type == p.ANSWER:
                return p.parse_answer(got)


@outside
def test_answers_of_a_session_come_in_order(t, o):
    """200 operations on their way at once, of which some fail: each is answered once, with its own
    stream and number; those that change something in the order they were sent."""
    s = Session(o)
    s.send(p.mkdir('first'), stream=0xfffa)
    check_equal(s.answer().status, p.OK, 'the first of the session')
    sent = {}
    for k in range(200):
        failing = k % 5 == 4
        stream = (0xfffa + k // 15) & 0xffff  # it counts, and goes round
        request = s.send(p.unlink(f'none-{k}') if failing else p.mkdir(f'dir-{k}'), stream=stream)
        sent[request] = (stream, failing)
    changed = []
    for _ in range(200):
        a = s.answer()
        stream, failing = sent.pop(a.request)
        check_equal(a.stream, stream, f'stream of the answer to {a.request}')
        check_equal((a.status, a.errno), (p.FAILED, 2) if failing else (p.OK, 0),
                    f'the answer to {a.request}')
        if not failing:
            changed.append((a.request, a.index))
    check(not sent, f'requests without an answer: {sorted(sent)}')
    check_equal(changed, sorted(changed), 'order of the answers that stand for an entry')
    check_equal(len({index for _, index in changed}), len(changed), 'entries')
    names = [n for n in os.listdir(o.cluster.path(s.leader)) if n.startswith('dir-')]
    check_equal(len(names), 160, 'directories made')


@outside
def test_a_request_sent_again_is_answered_again_and_not_repeated(t, o):
    s = Session(o)
    request = s.send(p.mkdir('once'))
    first = s.answer()
    s.send(p.mkdir('once'), request=request, stream=3)
    again = s.answer()
    check_equal((again.status, again.index, again.value, again.stream),
                (first.status, first.index, first.value, 3), 'the answer to the second sending')
    given_up = s.send(p.mkdir('of-a-stream-given-up'), stream=2)
    check_equal(s.answer().status, p.NOT_LEADER, 'of a stream that its origin has given up')
    s.send(p.mkdir('later'), lowest=s.next, stream=3)
    check_equal(s.answer().status, p.OK, 'a request that moves the lowest one')
    s.send(p.mkdir('again'), request=request, lowest=request, stream=3)
    a = s.answer()
    check(a.status == p.EXPIRED or (a.status, a.index) == (p.OK, first.index),
          f'a request below the lowest unanswered, answered before: {a}')
    s.send(p.mkdir('again'), request=given_up, lowest=request, stream=3)
    check_equal(s.answer().status, p.EXPIRED, 'a request below the lowest unanswered')
    names = os.listdir(o.cluster.path(s.leader))
    check('again' not in names and 'of-a-stream-given-up' not in names, f'executed: {names}')
    s.send_raw(s.number + 1, 1, 1, p.mkdir('of-no-session'))
    check_equal(s.answer().status, p.EXPIRED, 'a request of no session')
    s.connection.close()
    # On another connection, as after a cut.
    other = o.connect(s.leader)
    s.connection = other
    s.send(p.mkdir('later'), request=s.next - 1, lowest=s.next - 1, stream=4)
    a = s.answer()
    check_equal(a.status, p.OK, 'sent again on another connection')
    other.close()


@outside
def test_operations_where_nobody_leads_or_in_another_term(t, o):
    s = Session(o)
    follower = next(i for i in o.nodes if i != s.leader)
    leader_connection, s.connection = s.connection, o.connect(follower)
    s.send(p.mkdir('to-a-follower'))
    check_equal(s.answer().status, p.NOT_LEADER, 'a follower')
    s.connection.close()
    s.connection = leader_connection
    s.term -= 1
    s.send(p.mkdir('of-another-term'))
    check_equal(s.answer().status, p.NOT_LEADER, 'of another term')
    s.term += 1
    s.send(p.mkdir('of-this-term'))
    check_equal(s.answer().status, p.OK, 'of this term')
    names = os.listdir(o.cluster.path(s.leader))
    check('to-a-follower' not in names and 'of-another-term' not in names, f'{names}')


# ---- Many --------------------------------------------------------------------------------------


@outside
def test_a_thousand_connections(t, o):
    """All open at once, each answered; the node serves others, and gives all back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 200:
        t.skip(f'{hard} descriptors are all that this process may have')
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CONNECTIONS + 200), hard))
    i = o.leader()
    pid = o.cluster.nodes[i].pid

    def descriptors():
        return len(os.listdir(f'/proc/{pid}/fd'))

    def resident_mib():
        with open(f'/proc/{pid}/statm') as f:
            return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') >> 20
    before, memory = descriptors(), resident_mib()
    connections = []
    try:
        for _ in range(CONNECTIONS):
            connections.append(o.connect(i))
        # But for a few of its own, which come and go.
        opened = descriptors() - before
        check(opened >= CONNECTIONS - 5, f'{opened} of {CONNECTIONS} are open at once')
        o.check_serves()
        for k, connection in enumerate(connections):
            connection.send(0xee, b'x', stream=k)
        for k, connection in enumerate(connections):
            check_equal(connection.expect(p.ERROR).stream, k, 'stream of an ERROR')
        grown = resident_mib() - memory
    finally:
        for connection in connections:
            connection.close()
    wait_for(lambda: descriptors() <= before + 5, 'their descriptors are given back')
    print(f'# {CONNECTIONS} connections: {grown} MiB more')
    check(grown < 256, f'{CONNECTIONS} connections took {grown} MiB')


if __name__ == '__main__':
    main(globals())
