#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Text that nobody reads stays in the kernel: nothing else changes by that, and who reads gets what was sent."""
import os
import socket
import subprocess
import threading

from lab import SLOW, TCPFSMCTL, pump, run, until, variants
from test_links import Link

MIB = 1 << 20
BLOCK = os.urandom(MIB)
SIZE = 16 * MIB if SLOW == 1 else 4 * MIB


def listener(service, host='*', port=9):
    return f'[Listener {service}{port}]\nAddress={host}:{port}\nService={service}\n'


def upload(s, size):
    for _ in range(size // MIB):
        s.sendall(BLOCK)


def finish(d, s, size):
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b''
    row = d.closed(1)[0]
    assert row['bytes_in'] == size and row['end_reason'] == 'normal', row


def left(d):
    """Frames whose text stayed in the kernel, and segments that were dropped because it was wanted."""
    status = d.ctl('status')
    return status['links']['packet']['headers_only'], status['packets']['text_missing']


@variants(host=['10.9.0.2', 'fd09::2', '127.0.0.1'])
def test_every_octet_counts(lab, host):
    d = lab.daemon(listener('discard'))
    s = lab.connect(host, 9, ns='server' if host == '127.0.0.1' else 'client')
    upload(s, SIZE)
    finish(d, s, SIZE)
    few, missing = left(d)
    assert few > 0 and missing == 0, (few, missing)


@variants(family=['4', '6'])
def test_losses_are_mended(lab, family):
    Link(lab, True, 'seed=3 delay=2000 loss=20')
    d = lab.daemon(listener('discard'))
    s = lab.connect('10.9.0.2' if family == '4' else 'fd09::2', 9)
    upload(s, SIZE)
    finish(d, s, SIZE)
    few, missing = left(d)
    assert few > 0 and missing == 0, (few, missing)
    assert d.ctl('status')['counters']['out_of_order_segments'] > 0


@variants(offloads=[False])
def test_segments_of_ordinary_size_come_whole(lab):
    d = lab.daemon(listener('discard'))
    s = lab.connect('10.9.0.2', 9)
    upload(s, SIZE)
    finish(d, s, SIZE)
    assert left(d) == (0, 0), left(d)


@variants(mtu=[9000], offloads=[False])
def test_where_nobody_has_looked_at_the_checksum_it_takes_all(lab):
    """A frame too long for a small slot, which is no super-segment: the first one is lost, and comes again with its text."""
    d = lab.daemon(listener('discard'))
    s = lab.connect('10.9.0.2', 9)
    upload(s, SIZE)
    few, missing = left(d)
    assert 0 < missing == few < 200, (few, missing)
    upload(s, SIZE)
    assert left(d) == (few, missing), left(d)
    finish(d, s, 2 * SIZE)
    assert d.ctl('status')['packets']['bad_tcp_checksum'] == 0


def test_a_reader_of_the_same_port_gets_what_was_sent(lab):
    """At another address, or as what the port becomes, or what it was: who reads, reads what was sent."""
    d = lab.daemon(listener('discard', '10.9.0.2'))
    old = lab.connect('10.9.0.2', 9)
    upload(old, MIB)
    until(lambda: left(d)[0] > 0, what='text that stays in the kernel')
    d.ctl('listen', '[fd09::2]:9', '--service', 'echo')
    few, missing = left(d)
    assert pump(lab.connect('fd09::2', 9), BLOCK) == BLOCK
    upload(old, MIB)
    d.ctl('unlisten', '[fd09::2]:9')
    d.ctl('unlisten', '10.9.0.2:9')
    d.ctl('listen', '10.9.0.2:9', '--service', 'echo')
    assert pump(lab.connect('10.9.0.2', 9), BLOCK) == BLOCK
    upload(old, MIB)
    echo = lab.connect('10.9.0.2', 9)
    echo.sendall(b'first')
    assert echo.recv(5) == b'first'
    assert left(d) == (few, missing) and missing == 0, (left(d), few, missing)
    d.ctl('unlisten', '10.9.0.2:9')
    d.ctl('listen', '10.9.0.2:9', '--service', 'discard')
    new = lab.connect('10.9.0.2', 9)
    upload(new, MIB)
    assert pump(echo, BLOCK) == BLOCK
    echo.close()
    old.close()
    until(lambda: len(d.connections()) == 1, what='one connection left')
    sent = [MIB]

    def stays():
        upload(new, MIB)
        sent[0] += MIB
        return left(d)[0] > few
    until(stays, what='text that stays in the kernel again')
    finish(d, new, sent[0])
    assert left(d)[1] == 0, left(d)


def test_a_connection_of_ours_from_the_port_reads(lab):
    """We connect from a port that discard listens to, to a server that sends: the connection has another reader."""
    d = lab.daemon(listener('discard') + '[Tcp]\nMSL=1s\n')
    server = lab.listen('10.9.0.1', 80)
    ours = lab.popen('server', [str(TCPFSMCTL), '-s', str(d.run / 'control.sock'), 'connect', '10.9.0.1:80', '--source', '10.9.0.2:9'],
                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    s, _ = server.accept()
    s.settimeout(30 * SLOW)
    sender = threading.Thread(target=lambda: (s.sendall(BLOCK), s.close()), daemon=True)
    sender.start()
    assert ours.stdout.read() == BLOCK
    assert ours.wait() == 0
    sender.join()
    assert left(d) == (0, 0), left(d)


if __name__ == '__main__':
    run(globals())
