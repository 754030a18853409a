#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Much data and many connections."""
import hashlib
import os
import resource
import select
import socket
import threading

from lab import SLOW, run, until, variants

GIB = 1 << 30


def stream_and_hash(s, total, block=os.urandom(1 << 20)):
    """Sends `total` octets and hashes both directions; (sent digest, received digest, received)."""
    out, back = hashlib.sha256(), hashlib.sha256()

    def feed():
        left, i = total, 0
        while left:
            piece = memoryview(block)[i % 997:][:min(left, len(block) - i % 997)]
            out.update(piece)
            s.sendall(piece)
            left -= len(piece)
            i += 1
        s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=feed, daemon=True)
    t.start()
    n = 0
    buf = bytearray(1 << 20)
    while got := s.recv_into(buf):
        back.update(memoryview(buf)[:got])
        n += got
    t.join()
    return out.hexdigest(), back.hexdigest(), n


@variants(where=['veth', 'veth without offloads', 'lo'])
def test_a_gibibyte_through_echo(lab, where):
    total = GIB if SLOW == 1 and where != 'veth without offloads' else GIB // 8
    if where.endswith('without offloads'):
        for ns, dev in (('client', 'v0'), ('server', 'v1')):
            lab.sh(ns, f'ethtool -K {dev} tx off rx off sg off tso off gso off gro off >/dev/null')
    d = lab.daemon('[Listener e]\nAddress=*:7\nService=echo\n')
    s = lab.connect('127.0.0.1', 7, ns='server', timeout=60) if where == 'lo' else lab.connect('10.9.0.2', 7, timeout=60)
    sent, back, n = stream_and_hash(s, total)
    assert n == total and sent == back, (n, sent, back)
    row = d.closed(1)[0]
    assert row['bytes_in'] == row['bytes_out'] == total and row['end_reason'] == 'normal', row


def test_who_reads_the_echo_late(lab):
    """Everything that is on its way waits in the daemon, of each as much as its windows allow: the others go on."""
    d = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    block = os.urandom(1 << 20)
    late = [lab.connect('10.9.0.2', 7, timeout=60) for _ in range(6)]
    sent = [0] * len(late)
    for i, s in enumerate(late):
        s.setblocking(False)
        while select.select([], [s], [], 0.3)[1]:
            sent[i] += s.send(memoryview(block)[(sent[i] + i) % len(block):][:65536])
        s.setblocking(True)
    assert all(n > 1 << 18 for n in sent), sent
    s = lab.connect('10.9.0.2', 7, timeout=60)
    out, back, n = stream_and_hash(s, 1 << 26)
    assert n == 1 << 26 and out == back
    for i, s in enumerate(late):
        s.settimeout(60 * SLOW)
        s.shutdown(socket.SHUT_WR)
        got = bytearray()
        while more := s.recv(1 << 20):
            got += more
        want = (block * (2 + sent[i] // len(block)))[i:][:sent[i]]
        assert len(got) == sent[i] and got == want, (i, len(got), sent[i])
    rows = d.closed(len(late) + 1)
    assert all(r['bytes_in'] == r['bytes_out'] and r['end_reason'] == 'normal' for r in rows), rows


def test_some_of_what_was_sent_is_kept_and_told(lab):
    """In the kernel, so that the next is written elsewhere; and none of it any more when nobody is connected."""
    d = lab.daemon('[Listener c]\nAddress=10.9.0.2:19\nService=chargen\n')

    def kept():
        return d.ctl('status')['links']['packet']['kept']
    s = lab.connect('10.9.0.2', 19, timeout=60)
    assert kept() < 24
    left = 1 << 26
    while left > 0:
        got = s.recv(1 << 20)
        assert got, left
        left -= len(got)
    assert 0 < kept() < 24, kept()
    s.close()
    until(lambda: kept() == 0, what='the return of it')


@variants(delay=['128us', '0'])
def test_a_worker_that_is_busy_lets_more_arrive(lab, delay):
    """Coalesce=: in an upload it does, unless it may not; and then it sleeps until it is woken, as before."""
    d = lab.daemon(f'[Daemon]\nCoalesce={delay}\n[Listener d]\nAddress=10.9.0.2:9\nService=discard\n'
                   '[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')

    def counters():
        return d.ctl('status')['counters']

    def waits():
        return counters()['coalesced']
    up = lab.connect('10.9.0.2', 9, timeout=60)
    quiet = lab.connect('10.9.0.2', 7, timeout=60)
    block = bytes(1 << 20)

    def upload():
        for _ in range(32):
            up.sendall(block)
        return waits()
    if delay == '0':
        assert upload() == 0
    else:
        until(lambda: upload() > 300, 60, 'hundreds of wakeups that waited')

    def ask(n):
        for i in range(n):
            quiet.sendall(b'%d' % (i % 10))
            assert quiet.recv(1) == b'%d' % (i % 10)
    ask(20)
    before = counters()
    ask(100)
    after = counters()
    assert after['coalesced'] == before['coalesced']
    assert 100 <= after['wakeups'] - before['wakeups'] < 600, (before['wakeups'], after['wakeups'])
    up.shutdown(socket.SHUT_WR)
    assert up.recv(1) == b''


@variants(offloads=[True, False])
def test_a_thousand_connections_at_once(lab):
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    d = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    n = 1000
    socks = []
    for i in range(n):
        s = lab.connect('10.9.0.2', 7, timeout=30)
        s.setblocking(False)
        socks.append(s)
    assert d.ctl('status')['states']['established'] == n
    assert len(d.connections('state', 'established')) == n
    want = {s: i.to_bytes(4, 'big') * 5000 for i, s in enumerate(socks)}
    todo = {s: memoryview(want[s]) for s in socks}
    got = {s: bytearray() for s in socks}
    ep = select.epoll()
    by_fd = {s.fileno(): s for s in socks}
    for fd in by_fd:
        ep.register(fd, select.EPOLLIN | select.EPOLLOUT)
    done = 0
    while done < n:
        events = ep.poll(20 * SLOW)
        assert events, f'stuck with {done} of {n} done'
        for fd, ev in events:
            s = by_fd[fd]
            if ev & select.EPOLLOUT and todo[s] is not None:
                if todo[s]:
                    todo[s] = todo[s][s.send(todo[s]):]
                if not todo[s]:
                    todo[s] = None
                    s.shutdown(socket.SHUT_WR)
                    ep.modify(fd, select.EPOLLIN)
            if ev & (select.EPOLLIN | select.EPOLLHUP):
                data = s.recv(1 << 16)
                got[s] += data
                if not data:
                    assert bytes(got[s]) == want[s]
                    ep.unregister(fd)
                    done += 1
    rows = until(lambda: (r := d.connections(closed=True)) and len(r) == n and r, 20, 'every connection in the record')
    assert {r['end_reason'] for r in rows} == {'normal'} and {r['closed_by'] for r in rows} == {'remote'}
    assert {r['bytes_in'] for r in rows} == {20000} and {r['bytes_out'] for r in rows} == {20000}
    assert len({r['remote'] for r in rows}) == n
    assert d.connections() == []
    status = d.ctl('status')
    assert status['connections'] == 0 and status['record']['rows_dropped'] == 0, status


if __name__ == '__main__':
    run(globals())
