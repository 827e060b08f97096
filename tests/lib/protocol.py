"""The protocol as somebody outside speaks it (docs/protocol.md): frames over TLS, with the certificate
of a member that does not run, or with whatever else one is to try.

Written after the document alone. Nothing here is shared with the program.
"""

import collections
import queue
import socket
import ssl
import struct
import threading
import time

from cluster import WAIT_SECONDS, Failure, check

HELLO, ERROR, JOIN, JOIN_ANSWER, REFUSAL = 0x01, 0x02, 0x03, 0x04, 0x05
VOTE, VOTE_REPLY, APPEND, APPEND_REPLY, TIMEOUT_NOW, SNAPSHOT = range(0x10, 0x16)
OPERATION, ANSWER, FETCH, FETCHED, CONTROL, CONTROL_ANSWER = 0x20, 0x21, 0x28, 0x29, 0x30, 0x31
LIMIT = (4 << 20) + (64 << 10)  # of a frame's value
LIMIT_UNPROVEN = 8192
VERSION = OLDEST = 3
REMOVED, OF_VERSION, OTHER = 1, 2, 3  # reasons of a REFUSAL
OK, FAILED, NOT_LEADER, NO_QUORUM, EXPIRED = range(5)  # statuses
PRE, TRANSFER, GRANTED = 1, 2, 4  # flags of votes

MAKE, UNLINK, SESSION = 1, 2, 64  # operations
ROOT = 1
DIRECTORY_MODE = 0o40755
SET_MODE = 1

Frame = collections.namedtuple('Frame', 'type stream value')


def header(kind, stream, length):
    return struct.pack('<BHI', kind, stream, length)


def frame(kind, value=b'', stream=0):
    return header(kind, stream, len(value)) + value


def string(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack('<H', len(data)) + data


class Identity:
    """Who a data directory says it is; its node must not run."""

    def __init__(self, directory):
        self.key, self.certificate = f'{directory}/node.key', f'{directory}/node.crt'
        self.ca = f'{directory}/ca.crt'
        with open(f'{directory}/tierce.conf') as f:
            lines = [line.split('=', 1) for line in f if '=' in line]
        conf = {key.strip(): value.strip() for key, value in lines}
        self.cluster = bytes.fromhex(conf['cluster'])
        self.node = int(conf['id'], 16)

    def context(self, purpose):
        context = ssl.SSLContext(purpose)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Connection:
    """Frames over a TLS connection that is made already."""

    def __init__(self, tls):
        self.tls, self.buffer = tls, b''

    def send(self, kind, value=b'', stream=0):
        self.tls.sendall(frame(kind, value, stream))

    def _fill(self, size):
        while len(self.buffer) < size:
            data = self.tls.recv(1 << 20)
            if not data:
                raise ConnectionError('the node has closed the connection')
            self.buffer += data

    def receive(self, seconds=WAIT_SECONDS):
        """The next frame. TimeoutError; ConnectionError: there is none, it is closed."""
        self.tls.settimeout(seconds)
        try:
            self._fill(7)
            kind, stream, length = struct.unpack_from('<BHI', self.buffer)
            self._fill(7 + length)
        except (ssl.SSLError, OSError) as e:
            if isinstance(e, (TimeoutError, ConnectionError)):
                raise
            raise ConnectionError(str(e)) from e
        value, self.buffer = self.buffer[7:7 + length], self.buffer[7 + length:]
        return Frame(kind, stream, value)

    def expect(self, kind, seconds=WAIT_SECONDS):
        got = self.receive(seconds)
        check(got.type == kind, f'a frame of type {got.type:#x}, expected {kind:#x}')
        return got

    def wait_closed(self, seconds=WAIT_SECONDS):
        """What came before the node closed it."""
        frames, deadline = [], time.monotonic() + seconds
        while True:
            try:
                frames.append(self.receive(max(0.01, deadline - time.monotonic())))
            except ConnectionError:
                self.close()
                return frames
            except TimeoutError:
                raise Failure(f'the node has not closed a connection after {seconds} s'
                              ) from None

    def is_open(self):
        """By a frame that nobody knows: its ERROR comes back."""
        try:
            self.send(0xee, stream=77)
            while True:
                got = self.receive()
                if got.type == ERROR:
                    return got.value == b'\xee' and got.stream == 77
        except (ConnectionError, ssl.SSLError, OSError):
            return False

    def close(self):
        self.tls.close()


def hello(identity, version=VERSION, oldest=OLDEST, cluster=None, node=None, address=''):
    return (struct.pack('<HH', version, oldest) + (cluster or identity.cluster)
            + struct.pack('<QQQ', identity.node if node is None else node, 0,
                          int(time.time() * 1e6)) + string('outside') + string(address))


def dial(address, context):
    host, port = address.rsplit(':', 1)
    return Connection(context.wrap_socket(socket.create_connection((host, int(port)), WAIT_SECONDS)))


def open_connection(identity, address, own_address='', **keywords):
    """Dials, and says HELLO; the node's comes back, as (version, oldest, node id)."""
    connection = dial(address, identity.context(ssl.PROTOCOL_TLS_CLIENT))
    connection.send(HELLO, hello(identity, address=own_address, **keywords))
    got = connection.expect(HELLO)
    connection.peer = struct.unpack_from('<HH16sQ', got.value)
    return connection


class Member:
    """A member of the cluster: listens where it is dialed, keeps what it is sent, and answers
    nothing by itself but HELLO."""

    def __init__(self, identity, address):
        self.identity, self.address = identity, address
        self.frames = queue.Queue()  # (node id, frame)
        self.peers = set()  # node ids that have dialed it
        host, port = address.rsplit(':', 1)
        self.listener = socket.create_server((host, int(port)))
        self.context = identity.context(ssl.PROTOCOL_TLS_SERVER)
        self.closed = False
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        try:
            connection = Connection(self.context.wrap_socket(s, server_side=True))
            self.connections.append(connection)
            connection.send(HELLO, hello(self.identity, address=self.address))
            peer = struct.unpack_from('<HH16sQ', connection.expect(HELLO).value)[3]
            self.peers.add(peer)
            while not self.closed:
                self.frames.put((peer, connection.receive(3600)))
        except (OSError, ConnectionError, Failure):
            s.close()

    def forget(self):
        while not self.frames.empty():
            self.frames.get_nowait()

    def wait_frame(self, kind, wanted=lambda node, value: True,
                   seconds=WAIT_SECONDS):
        """The first such frame from now on; None where none comes."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                node, got = self.frames.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if got.type == kind and wanted(node, got.value):
                return node, got.value

    def close(self):
        self.closed = True
        self.listener.close()
        for connection in self.connections:
            connection.close()


# ---- Consensus -----------------------------------------------------------------------------


def vote(term, last_index, last_term, flags=0):
    return struct.pack('<QBQQQ', term, flags, last_index, last_term, int(time.time() * 1e6))


def append(term, prev_index, prev_term, commit=0, number=1):
    """A heartbeat."""
    return struct.pack('<QQQQQQQ', term, prev_index, prev_term, prev_index, commit, number, 0)


def append_reply(term, ok, number, match=0, hint_index=0, hint_term=0):
    return struct.pack('<QBQQQQQQ', term, ok, number, match, 0, hint_index, hint_term,
                       int(time.time() * 1e6))


# ---- Operations ----------------------------------------------------------------------------


def operation(kind, name=b'', parent=0, mode=0, flags=0, set_fields=0):
    return (struct.pack('<BIIQQQ', kind, flags, set_fields, 0, parent, 0) + string(name)
            + string(b'') + struct.pack('<IIIIQQqq', mode, 0, 0, 0, 0, 0, 0, 0) + string(b'')
            + struct.pack('<I', 0))


def mkdir(name):
    return operation(MAKE, name, parent=ROOT, mode=DIRECTORY_MODE, set_fields=SET_MODE)


def unlink(name):
    return operation(UNLINK, name, parent=ROOT)


Answer = collections.namedtuple('Answer', 'stream status request index errno value more')


def parse_answer(got):
    check(got.type == ANSWER, f'a frame of type {got.type:#x}, expected an ANSWER')
    check(len(got.value) == 37, f'an ANSWER of {len(got.value)} bytes')
    return Answer(got.stream, *struct.unpack('<BQQIQQ', got.value))
