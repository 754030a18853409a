#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Urgent data with a kernel peer, both ways: RFC 9293 3.8.5, RFC 6093."""
import select
import socket

from lab import run, until


def test_from_the_kernel(lab):
    """MSG_OOB of a kernel: the octet stays in line, and while it is not read, it is known how far it is."""
    d = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n[Listener c]\nAddress=10.9.0.2:19\nService=chargen\n')
    s = lab.connect('10.9.0.2', 7)
    s.sendall(b'before')
    s.send(b'!', socket.MSG_OOB)
    s.sendall(b'after')
    got = b''
    while len(got) < 12:
        got += s.recv(100)
    assert got == b'before!after', got
    assert d.ctl('status')['counters']['urgent_in'] == 1


def test_unread(lab):
    """MUST-33: a service that does not read; the octet is behind a MiB."""
    d = lab.daemon('[Tcp]\nReceiveBufferInitial=all\n[Listener x]\nAddress=10.9.0.2:7\nService=exec:/bin/sleep 1000\n')
    s = lab.connect('10.9.0.2', 7)
    s.sendall(bytes(1 << 20))
    s.send(b'!', socket.MSG_OOB)
    number = d.connections()[0]['id']

    def shown():
        row = d.ctl('show', 'connection', number)
        return row['recv_queue_bytes'], row['detail']['urgent_bytes']
    until(lambda: shown()[1], what='urgent data')
    until(lambda: shown()[0] == shown()[1] > 100000, what='all of it')
    r = d.ctl_run('show', 'connection', str(number))
    assert f'urgent          {shown()[1]}' in r.stdout, r.stdout


def test_to_the_kernel(lab):
    """send.urgent: the kernel's user gets SIGURG's sign, the octet by MSG_OOB, and the mark at its place."""
    d = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    s = lab.connect('10.9.0.2', 7)
    s.sendall(b'abc')
    assert s.recv(3) == b'abc'
    number = d.connections()[0]['id']
    r = d.ctl('send', 'urgent', number, 'stop!')
    assert r['bytes'] == 5, r
    poll = select.poll()
    poll.register(s, select.POLLPRI)
    assert poll.poll(10000), 'no POLLPRI'
    assert s.recv(1, socket.MSG_OOB) == b'!'  # the last octet, as the pointer is to the one behind it
    assert s.recv(100) == b'stop'
    s.sendall(b'goes on')
    assert s.recv(100) == b'goes on'
    r = d.ctl_run('send', 'urgent', '999', 'x')
    assert r.returncode == 4 and 'connection 999' in r.stderr, r
    s.shutdown(socket.SHUT_WR)
    until(lambda: d.closed(1), what='the end')
    r = d.ctl_run('send', 'urgent', str(number), 'x')
    assert r.returncode == 4, r


run(globals())
