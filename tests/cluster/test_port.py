#!/usr/bin/python3
"""Garbage, silence and strangers on the port: closed, counted, never a crash."""

import os
import socket
import ssl
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import (WAIT_SECONDS, Failure, check, check_equal, main,  # noqa: E402
                     wait_for)

CLOSED_SECONDS = WAIT_SECONDS  # far longer than half a handshake may stay open
FRAME_LIMIT = (4 << 20) + (64 << 10)


def dial(node):
    return socket.create_connection(('127.0.0.1', node.port), WAIT_SECONDS)


def is_closed(s):
    """Whether the other side has ended the connection; reads what it sent before."""
    s.setblocking(False)
    try:
        while s.recv(65536):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except (ConnectionError, ssl.SSLError):
        pass
    return True


def wait_closed(s, what, seconds=CLOSED_SECONDS):
    wait_for(lambda: is_closed(s), f'the node closes {what}', seconds)
    s.close()


def client_context(version=ssl.TLSVersion.TLSv1_3, certificate=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    context.minimum_version = version
    if certificate:
        context.load_cert_chain(*certificate)
    return context


def tls(node, **keywords):
    return client_context(**keywords).wrap_socket(dial(node))


def client_hello():
    """The first bytes of a real handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = client_context().wrap_bio(incoming, outgoing)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def frame(kind, value=b'', stream=0, length=None):
    return struct.pack('<BHI', kind, stream, len(value) if length is None else length) + value


def make_stranger(directory):
    """A CA of our own, and a certificate from it that looks like a node's."""
    def openssl(*arguments):
        subprocess.run(['openssl', *arguments], check=True, capture_output=True, cwd=directory)
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
            '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '30', '-subj', '/CN=another')
    openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
            '-keyout', 'node.key', '-out', 'node.csr', '-subj', '/CN=0000000000000001')
    openssl('x509', '-req', '-in', 'node.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key',
            '-CAcreateserial', '-out', 'node.crt', '-days', '30')
    return f'{directory}/node.crt', f'{directory}/node.key'


def refused(c, i=0):
    return c.status(i)['refused']


def check_serves(c, label):
    """Every node still runs, and what is written on one is there on the others."""
    c.check_running()
    for i in range(3):
        c.tierce('put', f'/{label}-{i}', label, data=i)
    for i in range(3):
        result = c.tierce('get', f'/{label}-{i}', data=(i + 1) % 3)
        check_equal(result.text, label, f'{label}-{i} read elsewhere')


def bad_request(c, label, send, counted=True):
    """send(node) returns an open connection that the node must close, and count."""
    before = refused(c)
    connection = send(c.nodes[0])
    wait_closed(connection, label)
    if counted:
        wait_for(lambda: refused(c) > before, f'{label} is counted as refused')
    check_serves(c, label)


def test_garbage(t):
    c = t.shared()

    def send_garbage(size):
        def send(node):
            s = dial(node)
            try:
                s.sendall(t.random_bytes(size))
            except ConnectionError:
                pass  # closed before all of it was sent
            return s
        return send
    bad_request(c, 'http', lambda node: send_text(node, b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
    bad_request(c, 'plain-frame', lambda node: send_text(node, frame(1, b'\1' * 200)))
    for size in (1000, 100000, 5 << 20):
        bad_request(c, f'garbage-{size}', send_garbage(size))


def send_text(node, text):
    s = dial(node)
    s.sendall(text)
    return s


def test_silence_and_half_a_handshake(t):
    """Some say nothing, some half a greeting, some a byte at a time: all are closed in time."""
    c = t.shared()
    before = refused(c)
    hello = client_hello()
    silent = dial(c.nodes[0])
    half = send_text(c.nodes[0], hello[:len(hello) // 2])
    trickle = dial(c.nodes[0])
    begun, sent = time.monotonic(), 0
    ended = {}
    while len(ended) < 3:
        check(time.monotonic() - begun < CLOSED_SECONDS,
              f'still open after {CLOSED_SECONDS} s: all but {sorted(ended)}')
        for name, s in (('silent', silent), ('half', half), ('trickle', trickle)):
            if name not in ended and is_closed(s):
                ended[name] = time.monotonic() - begun
        if 'trickle' not in ended and sent < len(hello) - 1:
            try:
                sent += trickle.send(hello[sent:sent + 1])
            except ConnectionError:
                ended['trickle'] = time.monotonic() - begun
        time.sleep(0.3)  # the pace of the trickle
    print('# closed after ' + ', '.join(f'{k} {v:.1f} s' for k, v in sorted(ended.items())))
    wait_for(lambda: refused(c) >= before + 3, 'all three are counted')
    check_serves(c, 'silence')


def test_without_a_certificate(t):
    """A peer that proves nothing may only ask to join, and not at length."""
    c = t.shared()
    kinds = [('operation', frame(0x20, b'\0' * 100)), ('append', frame(0x12, b'\0' * 100)),
             ('vote', frame(0x10, b'\0' * 64)), ('control', frame(0x30, b'\3')),
             ('join', frame(0x03, b'\xff' * 300)), ('hello', frame(0x01, b'\0' * 10)),
             ('unknown', frame(0xee, b'x')),
             ('oversized', frame(0x03, b'x', length=FRAME_LIMIT + 1)),
             ('huge', frame(0x20, b'', length=0xffffffff)),
             ('beyond-a-joiner', frame(0x03, b'x' * 20000))]
    for label, data in kinds:
        def send(node):
            s = tls(node)
            s.sendall(data)
            return s
        bad_request(c, f'nocert-{label}', send)
    check(all(c.status(i) for i in range(3)), 'a stranger could stop a node')


def test_half_a_frame(t):
    c = t.shared()

    def send(node):
        s = tls(node)
        s.sendall(frame(0x01, b'\0' * 10, length=200))
        return s
    bad_request(c, 'half-a-frame', send)


def test_certificate_of_another_ca(t):
    c = t.shared()
    certificate = make_stranger(t.tmp())
    before = refused(c)
    for label, data in (('stranger-operation', frame(0x20, b'\0' * 100)),
                        ('stranger-append', frame(0x12, b'\0' * 100))):
        s = None
        try:
            # In TLS 1.3 the client learns of the refusal with its first read.
            s = tls(c.nodes[0], certificate=certificate)
            s.sendall(data)
            wait_closed(s, label)
        except (ssl.SSLError, ConnectionError):
            pass
        finally:
            if s:
                s.close()
    wait_for(lambda: refused(c) >= before + 2, 'both are counted')
    check_serves(c, 'stranger')


def test_old_tls(t):
    c = t.shared()
    before = refused(c)
    try:
        tls(c.nodes[0], version=ssl.TLSVersion.TLSv1_2).close()
    except (ssl.SSLError, ConnectionError):
        pass
    else:
        raise Failure('TLS 1.2 was accepted')
    wait_for(lambda: refused(c) > before, 'TLS 1.2 is counted as refused')
    check_serves(c, 'tls12')


def test_many_idle_connections(t):
    c = t.shared()
    before = refused(c)
    idle = []
    try:
        for _ in range(300):
            idle.append(dial(c.nodes[0]))
        check_serves(c, 'crowded')
        gone = set()

        def all_closed():
            gone.update(s for s in idle if s not in gone and is_closed(s))
            return len(gone) == len(idle)
        wait_for(all_closed, 'all idle connections are closed')
    finally:
        for s in idle:
            s.close()
    wait_for(lambda: refused(c) >= before + 300, 'all are counted')
    check_serves(c, 'uncrowded')


def test_connections_that_come_and_go(t):
    """Closed by the peer at any point of the handshake, many times: nothing is left behind."""
    c = t.shared()
    hello = client_hello()

    def descriptors():
        return len(os.listdir(f'/proc/{c.nodes[0].pid}/fd'))
    before = descriptors()
    for k in range(200):
        s = send_text(c.nodes[0], hello[:t.random.randrange(len(hello) + 1)])
        s.close()
    for k in range(50):
        tls(c.nodes[0]).close()
    wait_for(lambda: descriptors() <= before + 5, 'their descriptors are given back')
    check_serves(c, 'come-and-go')


if __name__ == "__main__":
    main(globals())
