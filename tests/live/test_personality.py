#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a fingerprint sees. As Linux: our headers beside the kernel's own, sent in the same namespaces to the same
peer. As FreeBSD: beside the octets that its sources give."""
import fcntl
import socket
import struct
import threading
import time

from lab import read_all, run, variants

# As a machine has them that nobody has tuned: tcp_rmem decides the window and the scale.
RMEM = 'sysctl -qw net.ipv4.tcp_rmem="4096 131072 6291456" net.ipv4.tcp_ecn=2'
SIOCOUTQ = 0x5411
FIELDS = ('ip.id', 'ip.flags.df', 'ip.ttl', 'ip.dsfield', 'ipv6.hlim', 'ipv6.tclass', 'tcp.flags', 'tcp.window_size_value', 'tcp.options')
SWITCHES = {'T': 'tcp_timestamps', 'S': 'tcp_sack', 'W': 'tcp_window_scaling'}
OPTIONS = ['', 'T', 'S', 'W', 'TS', 'TW', 'SW', 'TSW']


def mask(options):
    """TSval and TSecr are the clock's: zeros."""
    octets, i = bytearray.fromhex(options.replace(':', '')), 0
    while i < len(octets) and octets[i] != 0:
        if octets[i] == 1:
            i += 1
            continue
        if octets[i] == 8:
            octets[i + 2:i + 10] = bytes(8)
        i += octets[i + 1]
    return octets.hex()


def headers(lab, path, match):
    out = lab.tshark(path, '-o', 'tcp.desegment_tcp_streams:false', '-Y', match, '-T', 'fields', '-E', 'separator=|', '-E', 'occurrence=f',
                     *(w for f in FIELDS for w in ('-e', f)))
    rows = [dict(zip(FIELDS, line.split('|'))) for line in out.splitlines()]
    for r in rows:
        r['tcp.options'] = mask(r['tcp.options'])
    return rows


def switch(lab, ns, options):
    for letter, name in SWITCHES.items():
        lab.sh(ns, f'sysctl -qw net.ipv4.{name}={int(letter in options)}')


def serve(s, answer=b'answer'):
    """A kernel server: reads a little, answers, ends."""
    def go():
        c, _ = s.accept()
        with c:
            c.recv(100)
            c.sendall(answer)
            read_all(c)
    t = threading.Thread(target=go, daemon=True)
    t.start()
    return t


def talk(lab, host, port):
    c = lab.connect(host, port)
    c.sendall(b'question')
    assert c.recv(100)
    c.close()


@variants(family=[4, 6])
def test_syn_ack_as_the_kernel(lab, family):
    """The kernel's SYN-ACK and ours to each SYN that a kernel client can send."""
    host, at = ('10.9.0.2', '10.9.0.2') if family == 4 else ('fd09::2', '[fd09::2]')
    lab.sh('client', RMEM), lab.sh('server', RMEM)
    lab.daemon(f'[Listener e]\nAddress={at}:7\nService=echo\n')
    kernel = lab.listen(host, 8007, ns='server')
    for options in OPTIONS:
        switch(lab, 'client', options)
        capture = lab.capture('client', 'v0', 'tcp')
        t = serve(kernel)
        talk(lab, host, 8007)
        t.join()
        talk(lab, host, 7)
        path = capture.stop()
        theirs = headers(lab, path, 'tcp.srcport==8007 && tcp.flags.syn==1')
        ours = headers(lab, path, 'tcp.srcport==7 && tcp.flags.syn==1')
        assert theirs == ours and len(ours) == 1, f'{options}:\nkernel {theirs}\nours   {ours}'


@variants(family=[4, 6])
def test_syn_as_the_kernel(lab, family):
    host, at = ('10.9.0.1', '10.9.0.1') if family == 4 else ('fd09::1', '[fd09::1]')
    lab.sh('client', RMEM), lab.sh('server', RMEM)
    d = lab.daemon('')
    s = lab.listen(host, 81)
    for options in OPTIONS:
        switch(lab, 'server', options)
        capture = lab.capture('client', 'v0', 'tcp')
        t = serve(s)
        with lab.inside('server'):
            c = socket.create_connection((host, 81), 10)
        c.sendall(b'question'), c.recv(100)
        port = c.getsockname()[1]
        c.close()
        t.join()
        t = serve(s)
        keys = ','.join(f'{key}={"yes" if letter in options else "no"}'
                        for letter, key in (('T', 'Timestamps'), ('S', 'Sack'), ('W', 'WindowScaling')))
        r = d.ctl_run('connect', f'{at}:81', '--tcp', keys, input='question')
        assert r.returncode == 0 and 'answer' in r.stdout, r
        t.join()
        path = capture.stop()
        theirs = headers(lab, path, f'tcp.srcport=={port} && tcp.flags.syn==1')
        ours = headers(lab, path, f'tcp.dstport==81 && tcp.srcport!={port} && tcp.flags.syn==1')
        for r in theirs + ours:
            assert family == 6 or r.pop('ip.id') != '0x0000'  # it counts from anywhere
        assert theirs == ours and len(ours) == 1, f'{options}:\nkernel {theirs}\nours   {ours}'


def feed(s, sizes):
    """A kernel server: reads a little, sends text of each size, in peace, and ends."""
    def go():
        c, _ = s.accept()
        with c:
            c.recv(100)
            for n in sizes:
                c.sendall(bytes(n))
                while struct.unpack('i', fcntl.ioctl(c, SIOCOUTQ, bytes(4)))[0]:  # each has an ACK of its own
                    time.sleep(0.01)
                time.sleep(0.05)
            c.shutdown(socket.SHUT_WR)
            read_all(c)
    t = threading.Thread(target=go, daemon=True)
    t.start()
    return t


def windows(lab, path, match, acks):
    """By acknowledgement, what the last segment with it offers."""
    out = lab.tshark(path, '-Y', f'{match} && tcp.flags.syn==0 && tcp.flags.reset==0', '-T', 'fields', '-e', 'tcp.ack', '-e', 'tcp.window_size_value')
    rows = dict(line.split() for line in out.splitlines())
    return [rows.get(str(a)) for a in acks]


def test_first_windows_as_the_kernel(lab):
    """The ACK of the SYN-ACK, and what is offered behind the first small segments: later it is a matter of memory."""
    lab.sh('client', RMEM), lab.sh('server', RMEM)
    d = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    s, kernel = lab.listen('10.9.0.1', 81), lab.listen('10.9.0.2', 8007, ns='server')
    for options in ('W', 'TW', 'SW', 'TSW'):
        switch(lab, 'server', options), switch(lab, 'client', options)
        capture = lab.capture('client', 'v0', 'tcp')
        t = feed(s, (8, 500))
        with lab.inside('server'):
            c = socket.create_connection(('10.9.0.1', 81), 10)
        c.sendall(b'question'), read_all(c)
        port = c.getsockname()[1]
        c.close()
        t.join()
        t = feed(s, (8, 500))
        keys = ','.join(f'{key}={"yes" if letter in options else "no"}'
                        for letter, key in (('T', 'Timestamps'), ('S', 'Sack'), ('W', 'WindowScaling')))
        r = d.ctl_run('connect', '10.9.0.1:81', '--tcp', keys, input='question')
        assert r.returncode == 0, r
        t.join()
        t = serve(kernel, bytes(8))
        talk(lab, '10.9.0.2', 8007)
        t.join()
        talk(lab, '10.9.0.2', 7)
        path = capture.stop()
        theirs = windows(lab, path, f'tcp.srcport=={port}', (1, 9, 509))
        ours = windows(lab, path, f'tcp.dstport==81 && tcp.srcport!={port}', (1, 9, 509))
        assert theirs == ours and None not in ours, f'{options}, active: kernel {theirs}, ours {ours}'
        theirs, ours = windows(lab, path, 'tcp.srcport==8007', (9,)), windows(lab, path, 'tcp.srcport==7', (9,))
        assert theirs == ours and None not in ours, f'{options}, passive: kernel {theirs}, ours {ours}'


def test_flow_label_as_the_kernel(lab):
    """RFC 6437: one for each connection, and another for the next; none as plain."""
    lab.sh('client', RMEM), lab.sh('server', RMEM)
    lab.daemon('[Listener e]\nAddress=[fd09::2]:7\nService=echo\n[Listener p]\nAddress=[fd09::2]:9\nService=echo\nPersonality=plain\n')
    kernel = lab.listen('fd09::2', 8007, ns='server')
    capture = lab.capture('client', 'v0', 'tcp')
    for _ in range(2):
        t = serve(kernel)
        talk(lab, 'fd09::2', 8007)
        t.join()
        talk(lab, 'fd09::2', 7)
    talk(lab, 'fd09::2', 9)
    path = capture.stop()
    for port in (8007, 7, 9):
        out = lab.tshark(path, '-Y', f'tcp.srcport=={port}', '-T', 'fields', '-e', 'tcp.dstport', '-e', 'ipv6.flow')
        labels = {}
        for line in out.splitlines():
            peer, label = line.split()
            labels.setdefault(peer, set()).add(int(label, 16))
        assert all(len(seen) == 1 for seen in labels.values()), (port, labels)
        each = set().union(*labels.values())
        assert (each == {0}) if port == 9 else (len(each) == 2 and 0 not in each), (port, labels)


def test_ip_id_as_the_kernel(lab):
    """In a connection the numbers follow each other; RST to nobody has 0 and DF."""
    lab.sh('client', RMEM), lab.sh('server', RMEM)
    lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    kernel = lab.listen('10.9.0.2', 8007, ns='server')
    capture = lab.capture('client', 'v0', 'tcp')
    t = serve(kernel)
    talk(lab, '10.9.0.2', 8007)
    t.join()
    talk(lab, '10.9.0.2', 7)
    path = capture.stop()
    for port in (8007, 7):
        ids = [int(r['ip.id'], 16) for r in headers(lab, path, f'tcp.srcport=={port} && tcp.flags.syn==0')]
        assert len(ids) >= 2 and [(b - a) % 65536 for a, b in zip(ids, ids[1:])] == [1] * (len(ids) - 1), (port, ids)


def test_rst_of_no_connection_as_the_kernel(lab):
    lab.sh('client', RMEM), lab.sh('server', RMEM)
    d = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    capture = lab.capture('client', 'v0', 'tcp')
    with lab.inside('client'):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    assert lab.socket().connect_ex(('10.9.0.2', 8007)) != 0
    # An ACK out of nowhere, to the kernel's port and to ours.
    for port in (8007, 7):
        raw.sendto(ack_packet(port), ('10.9.0.2', 0))
    d.ctl('version')
    path = capture.stop()
    theirs = headers(lab, path, 'tcp.srcport==8007 && tcp.flags.reset==1 && tcp.dstport==5555')
    ours = headers(lab, path, 'tcp.srcport==7 && tcp.flags.reset==1 && tcp.dstport==5555')
    assert theirs == ours and len(ours) == 1, f'\nkernel {theirs}\nours   {ours}'


def ack_packet(port):
    def total(b):
        s = sum(int.from_bytes(b[i:i + 2], 'big') for i in range(0, len(b), 2))
        while s >> 16:
            s = (s & 0xffff) + (s >> 16)
        return (~s & 0xffff).to_bytes(2, 'big')
    src, dst = socket.inet_aton('10.9.0.1'), socket.inet_aton('10.9.0.2')
    tcp = (5555).to_bytes(2, 'big') + port.to_bytes(2, 'big') + bytes(4) + (99).to_bytes(4, 'big') + b'\x50\x10\x01\x00' + bytes(4)
    tcp = tcp[:16] + total(src + dst + b'\0\6\0\x14' + tcp) + tcp[18:]
    return b'\x45\0\0\x28\0\0\x40\0\x40\6\0\0' + src + dst + tcp


def test_freebsd(lab):
    """SYN-ACK and SYN by sys/netinet: tcp_addoptions(), tcp_syncache.c, tcp_output(); no kernel here to compare with."""
    d = lab.daemon('[Tcp]\nPersonality=freebsd\n[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    mss, wscale, sack, ts = '020405b4', '030306', '0402', '080a' + '00' * 8
    layouts = {'': mss, 'T': mss + '0101' + ts, 'S': mss + sack + '0000', 'W': mss + '01' + wscale, 'TS': mss + sack + ts,
               'TW': mss + '01' + wscale + '0101' + ts, 'SW': mss + '01' + wscale + sack + '0000', 'TSW': mss + '01' + wscale + sack + ts}
    for options, layout in layouts.items():
        switch(lab, 'client', options)
        capture = lab.capture('client', 'v0', 'tcp')
        talk(lab, '10.9.0.2', 7)
        path = capture.stop()
        rows = headers(lab, path, 'tcp.srcport==7 && tcp.flags.syn==1')
        assert len(rows) == 1, rows
        got = rows[0]
        assert got['tcp.options'] == layout, (options, got)
        assert (got['tcp.window_size_value'], got['ip.id'], got['ip.ttl']) == ('65535', '0x0000', '64'), got
        first = headers(lab, path, 'tcp.srcport==7 && tcp.flags.syn==0')[0]
        assert first['ip.id'] == '0x0000', first
        if 'W' in options:  # 65700 octets, less the question, which is not read yet or is
            assert first['tcp.window_size_value'] == '1026', first
    s = lab.listen('10.9.0.1', 81)
    capture = lab.capture('client', 'v0', 'tcp')
    t = serve(s)
    r = d.ctl_run('connect', '10.9.0.1:81', input='question')
    assert r.returncode == 0, r
    t.join()
    path = capture.stop()
    syn = headers(lab, path, 'tcp.dstport==81 && tcp.flags.syn==1')[0]
    assert syn['tcp.options'] == layouts['TSW'] and syn['tcp.window_size_value'] == '65535' and syn['ip.id'] == '0x0000', syn


run(globals())
