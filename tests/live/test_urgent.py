#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Urgent data with a kernel peer, both ways: RFC 9293 3.8.5, RFC 6093."""
import select
import socket
import subprocess

from lab import read_all, run, until
from test_programs import python


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


URGENT = '''
import socket
s = socket.create_connection(('10.9.0.1', 9000))
print(s.send(b'abc', socket.MSG_OOB), flush=True)
s.sendall(b'then')
assert s.recv(1) == b'.'
print(s.send(b'!', socket.MSG_OOB), s.send(b'?'), flush=True)
# Nobody reads: the octet waits for room like all others, and is urgent all the same.
n = 0
while s.recv(1) == b'+':
    s.setblocking(False)
    before = n
    try:
        while True: n += s.send(bytes(65536))
    except BlockingIOError: pass
    s.setblocking(True)
    print(n - before, flush=True)
s.setblocking(False)
try: s.send(b'x', socket.MSG_OOB)
except BlockingIOError: print('full', flush=True)
s.setblocking(True)
s.send(b'late', socket.MSG_OOB)
s.shutdown(socket.SHUT_WR)
print(n, flush=True)
s.recv(1)
'''


def test_of_a_program(lab):
    """MSG_OOB over `tcpfsmctl run`: the last octet is urgent, and none is lost."""
    d = lab.daemon()
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', python(lab, d, URGENT), stdout=subprocess.PIPE, text=True)
    s, _ = listener.accept()
    poll = select.poll()
    poll.register(s, select.POLLPRI)

    def urgent():
        assert poll.poll(10000), 'no POLLPRI'
        return s.recv(1, socket.MSG_OOB)

    def text(n):
        got = b''
        while len(got) < n:
            got += s.recv(n - len(got))
        return got
    assert p.stdout.readline() == '3\n'
    assert urgent() == b'c'
    assert text(2) == b'ab' and text(4) == b'then'
    s.sendall(b'.')
    assert p.stdout.readline() == '1 1\n'
    assert urgent() == b'!'
    # Full is when nothing more goes in though the daemon, which has answered, took all that it has room for.
    went = [1, 1]
    while any(went[-2:]):
        d.ctl('status')
        s.sendall(b'+')
        went.append(int(p.stdout.readline()))
    s.sendall(b'.')
    assert p.stdout.readline() == 'full\n'
    assert text(1) == b'?'
    got = read_all(s)  # in line no more: what was urgent has been put aside, or is in its place when it was never asked for
    n = int(p.stdout.readline())
    assert len(got) in (n + 3, n + 4) and got[:n] == bytes(n) and got[n:].startswith(b'lat'), (len(got), n, got[-8:])
    assert d.ctl('status')['counters']['urgent_out'] >= 3
    s.sendall(b'.')
    p.wait(10)


run(globals())
