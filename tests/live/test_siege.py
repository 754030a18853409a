#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What hostile peers, careless operators and broken networks do, and that everybody else is served meanwhile."""
import os
import resource
import signal
import socket
import subprocess
import time

from lab import SLOW, TCPFSMCTL, pump, run, until, variants

resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
SERVICES = '''
[Tcp]
MSL=100ms
[Listener echo]
Address=*:7
Service=echo
[Listener chargen]
Address=*:19
Service=chargen
'''


def counted(lab, path, ours='10.9.0.2', mtu=1500):
    """What a capture at our side has of one connection, in the record's words, and how many stray segments there are besides.

    Super-segments count as what they are on a wire. Stray is what the network delivered after the end, out of order: each
    is answered by a RST, and belongs to no connection."""
    row = dict.fromkeys(('segments_in', 'segments_out', 'retransmitted_segments', 'retransmitted_bytes'), 0)
    top, stray = None, 0
    for line in lab.tshark(path, '-T', 'fields', '-e', 'ip.src', '-e', 'tcp.len', '-e', 'tcp.seq', '-e', 'tcp.flags',
                          '-e', 'tcp.hdr_len').splitlines():
        src, *numbers = line.split('\t')
        n, seq, flags, header = (int(x, 0) for x in numbers)
        mss = mtu - 20 - header  # options take their share of each piece
        pieces = max(1, -(-n // mss))
        if src != ours:
            row['segments_in'] += pieces
            continue
        if flags & 4:
            stray += 1
            continue
        row['segments_out'] += pieces
        end = seq + n + (flags & 1) + (flags >> 1 & 1)
        if end > seq:
            again = max(0, min(top, end) - seq) if top is not None else 0
            if again:
                row['retransmitted_segments'] += max(1, -(-again // mss))
                row['retransmitted_bytes'] += min(again, n)
            top = max(top or 0, end)
    row['segments_in'] -= stray
    return row, stray


def lose(lab, probability):
    for chain in ('raw -A PREROUTING', 'mangle -A POSTROUTING'):
        lab.sh('client', f'iptables -t {chain} -p tcp -m statistic --mode random --probability {probability} -j DROP')


@variants(offloads=[True, False], loss=[0, 0.04])
def test_the_record_is_what_a_capture_counts(lab, loss):
    d = lab.daemon(SERVICES)
    if loss:
        lose(lab, loss)
    cap = lab.capture('server', 'v1', 'tcp')
    data = os.urandom(600_000)
    s = lab.connect('10.9.0.2', 7, timeout=60)
    assert pump(s, data) == data
    s.close()
    row = d.closed(1, 60)[0]
    path = cap.stop()
    want, stray = counted(lab, path)
    counters = d.ctl('status')['counters']
    assert counters['drop_no_connection'] + counters['drop_listen_other'] == stray, (counters, stray)
    assert {k: row[k] for k in want} == want and row['bytes_in'] == row['bytes_out'] == len(data), (row, want)
    if not loss:
        lab.assert_none_too_soon(lab.repeated(path, '10.9.0.2'))


def test_peers_that_read_nothing_do_not_silence_the_others(lab):
    d = lab.daemon('[Daemon]\nBufferMemory=8MiB\n' + SERVICES)
    hogs = [lab.connect('10.9.0.2', 19) for _ in range(300)]  # 512 chunks: one each is more than half
    until(lambda: d.ctl('status')['counters']['chunks_used'] > 256, 10, 'more than half of the memory is taken')
    data = os.urandom(1_000_000)
    assert pump(lab.connect('10.9.0.2', 7), data) == data
    hogs[0].setblocking(True)
    n = 0
    while n < 8_000_000:  # and the hog goes on when it reads
        n += len(hogs[0].recv(1 << 20))


def test_network_goes_and_comes_back_in_mid_transfer(lab):
    d = lab.daemon(SERVICES)
    s = lab.connect('10.9.0.2', 19, timeout=30)

    def read(n):
        while n > 0:
            n -= len(s.recv(1 << 18))
    for gone, back in (('ip link set v1 down', 'ip link set v1 up'),
                       ('ip addr del 10.9.0.2/24 dev v1', 'ip addr add 10.9.0.2/24 dev v1'),
                       ('ip neigh flush all', 'ip neigh'),
                       ('ip link del v1', f'ip link add v1 type veth peer name v0 netns {lab.holders["client"].pid} && '
                                          'ip addr add 10.9.0.2/24 dev v1 && ip link set v1 up')):
        read(2_000_000)
        lab.sh('server', gone)
        time.sleep(0.05)
        assert d.connections('state', 'established'), gone
        lab.sh('server', back)
        if 'del v1' in gone:
            lab.sh('client', 'ip addr add 10.9.0.1/24 dev v0 && ip link set v0 up')
        read(8_000_000)
    assert pump(lab.connect('10.9.0.2', 7), b'and again') == b'and again'


def test_connect_ends_with_its_client(lab):
    """A connect whose client dies is given up, before and after the peer answered."""
    d = lab.daemon('[Tcp]\nMSL=100ms\n')
    lab.sh('client', 'iptables -A INPUT -p tcp --dport 5001 -j DROP')
    argv = [str(TCPFSMCTL), '-s', str(d.run / 'control.sock'), 'connect']
    p = lab.popen('server', [*argv, '10.9.0.1:5001'], stdin=subprocess.PIPE)
    until(lambda: d.connections('state', 'syn-sent'))
    p.kill()
    row = d.closed(1, 3)[0]
    assert row['end_reason'] == 'cancelled' and row['last_state'] == 'syn_sent', row
    ls = lab.listen('10.9.0.1', 5002)
    p = lab.popen('server', [*argv, '10.9.0.1:5002'], stdin=subprocess.PIPE)
    peer, _ = ls.accept()
    peer.settimeout(10 * SLOW)
    p.stdin.write(b'hello')
    p.stdin.flush()
    assert peer.recv(5) == b'hello'
    p.kill()
    assert peer.recv(1) == b''
    peer.close()
    d.closed(2, 3)


def test_a_reload_that_changes_every_one_of_many_listeners(lab):
    n = 700  # closed and opened: more requests than the worker's mailbox holds
    conf = ''.join(f'[Listener l{i}]\nAddress=10.9.0.2:{10000 + i}\nService=echo\n' for i in range(n))
    d = lab.daemon(conf)
    assert pump(lab.connect('10.9.0.2', 10000 + n - 1), b'before') == b'before'
    lab.sh('server', 'ip addr add 10.9.0.3/24 dev v1')
    d.conf.write_text(conf.replace('10.9.0.2', '10.9.0.3'))
    result = d.ctl('reload')
    assert (result['listeners_added'], result['listeners_removed'], result['warnings']) == (n, n, []), result
    for i in (0, n - 1):
        assert pump(lab.connect('10.9.0.3', 10000 + i), b'after') == b'after'
    until(lambda: '10.9.0.2' not in lab.rules(), 20, 'the rules of those that are gone')


def heard(d):
    """All that systemd was told."""
    while True:
        try:
            d.messages += d.notify.recv(4096, socket.MSG_DONTWAIT).decode() + '\n'
        except BlockingIOError:
            return d.messages


def test_a_storm_of_reloads(lab):
    """Nobody else waits for all of them, however long one takes. And nobody reads what systemd is told meanwhile."""
    d = lab.daemon(SERVICES)
    s = lab.connect('10.9.0.2', 7)
    for _ in range(100):
        d.proc.send_signal(signal.SIGHUP)
        time.sleep(0.001)  # they come while one is at work, and are not one before they arrive
    one, other = d.control(), d.control()
    for client in (one, other):
        client.settimeout(60 * SLOW)
    one.sendall(b'{"jsonrpc":"2.0","id":1,"method":"reload"}\n' * 120)
    got = b''
    while b'\n' not in got:
        got += one.recv(65536)
    other.sendall(b'version\n')
    assert other.recv(100)
    one.setblocking(False)
    try:
        while piece := one.recv(65536):
            got += piece
    except BlockingIOError:
        pass
    done = got.count(b'"id":1')
    assert 1 <= done < 60, f'{done} of 120 reloads were done first'
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    one.close()
    # When systemd reads again, the last that it learns is that we are ready.
    until(lambda: heard(d).rfind('READY=1') > heard(d).rfind('RELOADING=1') >= 0, 60, 'READY=1')
    # A hundred signals were few reloads: those that came during one are one.
    assert d.log.read_text().count('reloaded:') <= 120 + 40


if __name__ == '__main__':
    run(globals())
