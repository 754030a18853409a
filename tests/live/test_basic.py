#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kernel clients and servers against tcpfsmd: the services, both families, veth and lo."""
import hashlib
import os
import re
import socket
import subprocess
import threading

from lab import TCPFSMCTL, pump, read_all, run, until, variants

SERVICES = '''
[Tcp]
MSL=100ms
[Listener echo]
Address={a}:7
Service=echo
[Listener discard]
Address={a}:9
Service=discard
[Listener daytime]
Address={a}:13
Service=daytime
[Listener chargen]
Address={a}:19
Service=chargen
'''
HOST = {'v4': ('10.9.0.2', '10.9.0.2'), 'v6': ('fd09::2', '[fd09::2]')}


@variants(offloads=[True, False], family=['v4', 'v6'])
def test_echo(lab, family):
    host, text = HOST[family]
    d = lab.daemon(SERVICES.format(a=text))
    data = os.urandom(3_000_000)
    assert pump(lab.connect(host, 7), data) == data
    row = d.closed(1)[0]
    assert row['end_reason'] == 'normal' and row['closed_by'] == 'remote', row
    assert row['bytes_in'] == row['bytes_out'] == len(data), row
    assert row['local'] == f'{text}:7' and row['service'] == 'echo' and row['direction'] == 'passive', row
    assert row['rtt_us'] and row['segments_in'] and row['segments_out'], row
    assert row['last_state'] == 'last_ack', row
    if not lab_offloads(lab):
        assert row['snd_mss_bytes'] == (1448 if family == 'v4' else 1428), row


def lab_offloads(lab):
    return 'tcp-segmentation-offload: on' in lab.sh('server', 'ethtool -k v1')


@variants(family=['v4', 'v6'])
def test_services_over_loopback(lab, family):
    host, text = {'v4': ('127.0.0.1', '127.0.0.1'), 'v6': ('::1', '[::1]')}[family]
    d = lab.daemon(SERVICES.format(a=text))
    data = os.urandom(500_000)
    assert pump(lab.connect(host, 7, ns='server'), data) == data
    s = lab.connect(host, 13, ns='server')
    text = read_all(s)
    assert re.fullmatch(rb'\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}.*\r\n', text), text
    s.close()
    d.closed(1, 10, 'sport', '=', ':13')


@variants(offloads=[True, False])
def test_chargen_sends_rfc864_lines(lab, offloads=True):
    d = lab.daemon(SERVICES.format(a='10.9.0.2'))
    s = lab.connect('10.9.0.2', 19)
    got = b''
    while len(got) < 2_000_000:
        got += s.recv(1 << 16)
    lines = got.split(b'\r\n')[:-1]
    first = next(i for i in range(95) if pattern(i) == lines[0])
    for i, line in enumerate(lines):
        assert line == pattern(first + i), (i, line)
    s.close()
    row = d.closed(1)[0]
    assert row['end_reason'] == 'reset_by_peer', row  # the kernel resets: it closed with unread octets


def pattern(i):
    """RFC 864's usual ring: 95 printing characters, space included."""
    ring = bytes(range(32, 127))
    start = (i + 1) % 95
    return (ring + ring)[start:start + 72]


def test_discard_takes_everything(lab):
    d = lab.daemon(SERVICES.format(a='10.9.0.2'))
    assert pump(lab.connect('10.9.0.2', 9), bytes(5_000_000)) == b''
    row = d.closed(1)[0]
    assert row['bytes_in'] == 5_000_000 and row['bytes_out'] == 0 and row['end_reason'] == 'normal', row


def test_wildcard_listener_serves_both_families(lab):
    d = lab.daemon('[Listener e]\nAddress=*:7\nService=echo\n')
    for host, ns in (('10.9.0.2', 'client'), ('fd09::2', 'client'), ('127.0.0.1', 'server'), ('::1', 'server')):
        assert pump(lab.connect(host, 7, ns=ns), b'hello') == b'hello', host
    assert len(d.closed(4)) == 4


def test_list_and_show_connection(lab):
    d = lab.daemon(SERVICES.format(a='10.9.0.2'))
    s = lab.connect('10.9.0.2', 7)
    s.sendall(b'x' * 100)
    assert len(s.recv(100, socket.MSG_WAITALL)) == 100
    rows = d.connections()
    assert len(rows) == 1, rows
    row = rows[0]
    assert row['state'] == 'established' and row['remote'] == '10.9.0.1:%d' % s.getsockname()[1], row
    shown = d.ctl('show', 'connection', row['id'])
    assert shown['bytes_in'] == 100 and shown['detail']['timestamps'] is True, shown
    assert shown['detail']['sack'] is True, shown
    assert d.connections('state', 'established') and not d.connections('state', 'time-wait')
    assert d.connections('src', '10.9.0.2', 'and', 'sport', '=', ':7') and not d.connections('dst', '10.8.0.0/16')
    assert d.connections('not', 'dport', '=', ':1') and d.connections('(', 'sport', '=', ':1', 'or', 'dst', '10.9.0.0/24', ')')
    s.shutdown(socket.SHUT_WR)
    read_all(s)
    d.closed(1)
    steps = d.ctl('show', 'transitions', row['id'])['transitions']
    assert [t['to'] for t in steps] == ['syn_received', 'established', 'close_wait', 'last_ack', 'closed'], steps
    assert all(t['cause'] and t['rule'] for t in steps), steps
    table = d.ctl_run('list', 'connections', '--closed').stdout
    assert '10.9.0.2:7' in table and 'normal' in table.lower(), table


def test_active_open_to_a_kernel_server(lab):
    d = lab.daemon('')
    ls = lab.listen('10.9.0.1', 5555)
    got = {}

    def serve():
        c, peer = ls.accept()
        got['peer'] = peer
        got['data'] = read_all(c)
        c.sendall(hashlib.sha256(got['data']).hexdigest().encode())
        c.close()
    t = threading.Thread(target=serve)
    t.start()
    data = os.urandom(2_000_000)
    r = lab.run('server', [str(TCPFSMCTL), '-s', str(d.run / 'control.sock'), 'connect', '10.9.0.1:5555'], input=data,
                text=False, check=False)
    t.join()
    assert r.returncode == 0, (r.returncode, r.stderr)
    assert got['data'] == data and r.stdout == hashlib.sha256(data).hexdigest().encode(), r.stderr
    assert got['peer'][0] == '10.9.0.2' and 61000 <= got['peer'][1] <= 65535, got['peer']
    row = until(lambda: (rows := d.connections(closed=True) + d.connections()) and rows[0])
    assert row['direction'] == 'active' and row['service'] == 'stream', row


def test_active_open_over_ipv6_and_loopback(lab):
    d = lab.daemon('')
    for host, ns in (('fd09::1', 'client'), ('127.0.0.1', 'server'), ('::1', 'server')):
        ls = lab.listen(host, 5556, ns=ns)

        def serve():
            c, _ = ls.accept()
            c.sendall(read_all(c).upper())
            c.close()
        t = threading.Thread(target=serve)
        t.start()
        where = f'[{host}]:5556' if ':' in host else f'{host}:5556'
        r = d.ctl_run('connect', where, input='hello')
        t.join()
        assert (r.returncode, r.stdout) == (0, 'HELLO'), (host, r)


def test_simultaneous_open_with_the_kernel(lab):
    """Our first SYN is lost; the kernel's own SYN for the same pair of ports meets us in SYN-SENT (MUST-10)."""
    d = lab.daemon('[Tcp]\nMSL=100ms\nRtoInitial=20s\n')  # it is not sent again before the kernel's comes
    lab.sh('client', 'iptables -t raw -A PREROUTING -p tcp --sport 62000 -j DROP')
    p = lab.popen('server', [str(TCPFSMCTL), '-s', str(d.run / 'control.sock'), 'connect', '10.9.0.1:5000', '--source', '10.9.0.2:62000'],
                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    conn = until(lambda: d.connections('state', 'syn-sent'))[0]['id']
    lab.sh('client', 'iptables -t raw -F PREROUTING')
    s = lab.socket()
    s.bind(('10.9.0.1', 5000))
    s.connect(('10.9.0.2', 62000))
    s.sendall(b'from the kernel')
    s.shutdown(socket.SHUT_WR)
    out, _ = p.communicate(b'from us', timeout=30)
    assert out == b'from the kernel' and read_all(s) == b'from us'
    s.close()
    steps = d.ctl('show', 'transitions', conn)['transitions']
    assert [t['to'] for t in steps][:3] == ['syn_sent', 'syn_received', 'established'], steps
    assert steps[1]['cause'] == 'segment SYN' and '3.10.7.3' in steps[1]['rule'], steps
    assert d.closed(1)[0]['end_reason'] == 'normal'


def test_active_open_refused_and_unreachable(lab):
    d = lab.daemon('')
    r = d.ctl_run('connect', '10.9.0.1:81', input='')
    assert r.returncode == 1 and 'refused' in r.stderr, r
    row = d.closed(1)[0]
    assert row['end_reason'] == 'refused', row
    r = d.ctl_run('connect', '10.77.0.1:81', input='')
    assert r.returncode == 1 and 'unreachable' in r.stderr.lower(), r


def test_no_listener_answers_with_a_reset_from_the_kernel_only_where_the_port_is_the_kernels(lab):
    """Ports that are not ours stay the kernel's: it refuses them, and we stay silent."""
    lab.daemon(SERVICES.format(a='10.9.0.2'))
    cap = lab.capture('client', 'v0', 'tcp port 4444')
    s = lab.socket()
    try:
        s.connect(('10.9.0.2', 4444))
        raise AssertionError('connected')
    except ConnectionRefusedError:
        pass
    assert len(lab.tshark(cap.stop(), '-Y', 'tcp.flags.reset==1').splitlines()) == 1


def test_kernel_server_beside_us_is_untouched(lab):
    lab.daemon(SERVICES.format(a='10.9.0.2'))
    ls = lab.listen('10.9.0.2', 8080, ns='server')
    c = lab.connect('10.9.0.2', 8080)
    k, _ = ls.accept()
    k.sendall(b'kernel')
    assert c.recv(10) == b'kernel'


def test_listen_and_unlisten_at_run_time(lab):
    d = lab.daemon('')
    d.ctl('listen', '10.9.0.2:7007', '--service', 'echo')
    s = lab.connect('10.9.0.2', 7007)
    s.sendall(b'a')
    assert s.recv(1) == b'a'
    assert [x['address'] for x in d.ctl('list', 'listeners')['listeners']] == ['10.9.0.2:7007']
    d.ctl('unlisten', '10.9.0.2:7007')
    try:
        lab.connect('10.9.0.2', 7007)
        raise AssertionError('connected to a listener that is gone')
    except ConnectionRefusedError:
        pass
    s.sendall(b'still here')  # an open connection lives on, and the kernel does not reset it
    assert s.recv(100) == b'still here'
    s.shutdown(socket.SHUT_WR)
    assert read_all(s) == b''
    until(lambda: ':7007' not in str(d.ctl('list', 'rules')) and '7007' not in lab.rules(), 10, 'the rule goes with the last connection')
    assert lab.socket().connect_ex(('10.9.0.2', 7007)) != 0


def test_address_that_appears_later(lab):
    d = lab.daemon('[Listener e]\nAddress=10.9.0.77:7\nService=echo\n')
    lab.sh('client', 'ip route add 10.8.0.0/24 via 10.9.0.2')
    lab.sh('server', 'ip addr add 10.9.0.77/24 dev v1')
    assert pump(lab.connect('10.9.0.77', 7), b'later') == b'later'
    d.ctl('listen', '10.8.0.1:7', '--service', 'echo')
    # an interface that was not there at start
    lab.sh('server', f'ip link add v9 type veth peer name v8 netns {lab.holders["client"].pid}; ip addr add 10.8.0.1/24 dev v9; ip link set v9 up')
    lab.sh('client', 'ip route del 10.8.0.0/24; ip addr add 10.8.0.2/24 dev v8; ip link set v8 up')
    assert pump(lab.connect('10.8.0.1', 7, timeout=15), b'new link') == b'new link'


def test_named_interfaces_only(lab):
    lab.daemon('[Daemon]\nInterfaces=lo\n[Listener e]\nAddress=*:7\nService=echo\n')
    assert pump(lab.connect('127.0.0.1', 7, ns='server'), b'x') == b'x'
    s = lab.socket(timeout=0.3)
    assert s.connect_ex(('10.9.0.2', 7)) != 0


def test_two_daemons_in_two_namespaces_do_not_meet(lab):
    a = lab.daemon('[Listener e]\nAddress=*:7\nService=echo\n', ns='server')
    b = lab.daemon('[Tcp]\nMSL=100ms\n[Listener d]\nAddress=*:7\nService=daytime\n', ns='client')
    assert pump(lab.connect('10.9.0.2', 7, ns='client'), b'me') == b'me'
    s = lab.connect('10.9.0.1', 7, ns='server')
    assert read_all(s).endswith(b'\r\n')
    s.close()
    assert len(a.closed(1)) == 1 and len(b.closed(1)) == 1


def test_daemon_to_daemon(lab):
    a = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n', ns='server')
    b = lab.daemon('[Tcp]\nMSL=100ms\n', ns='client')
    data = os.urandom(1_000_000)
    r = lab.run('client', [str(TCPFSMCTL), '-s', str(b.run / 'control.sock'), 'connect', '10.9.0.2:7'], input=data, text=False)
    assert r.stdout == data
    assert a.closed(1)[0]['end_reason'] == 'normal'
    row = b.closed(1)[0]
    assert (row['end_reason'], row['closed_by'], row['last_state']) == ('normal', 'local', 'time_wait'), row


def test_dedicated_address_without_a_shield(lab):
    """Shield=none: an address that no kernel owns; ARP and ND are answered by us; no rule exists."""
    lab.daemon('[Daemon]\nShield=none\n[Listener e]\nAddress=10.9.0.99:7\nService=echo\n'
               '[Listener f]\nAddress=[fd09::99]:7\nService=echo\n')
    assert pump(lab.connect('10.9.0.99', 7), b'arp') == b'arp'
    assert pump(lab.connect('fd09::99', 7), b'nd') == b'nd'
    assert 'DROP' not in lab.rules()


def test_nothing_in_ss_and_conntrack(lab):
    lab.sh('server', 'iptables -A INPUT -m conntrack --ctstate INVALID -j ACCEPT')  # conntrack is on here
    lab.daemon('[Listener e]\nAddress=*:7\nService=echo\n')
    c = lab.connect('10.9.0.2', 7)
    c.sendall(b'1')
    assert c.recv(1) == b'1'
    assert lab.sh('server', 'ss -Htan').strip() == ''
    assert lab.sh('server', 'conntrack -L -p tcp 2>/dev/null || true').strip() == ''
    local = lab.connect('127.0.0.1', 7, ns='server')
    local.sendall(b'1')
    assert local.recv(1) == b'1'
    assert lab.sh('server', 'conntrack -L -p tcp 2>/dev/null || true').strip() == ''


@variants(offloads=[True, False])
def test_wireshark_finds_no_fault(lab, offloads=True):
    lab.daemon(SERVICES.format(a='10.9.0.2'))
    cap, here = lab.capture('client', 'v0', 'tcp'), lab.capture('server', 'v1', 'tcp')
    data = os.urandom(300_000)
    assert pump(lab.connect('10.9.0.2', 7), data) == data
    path = cap.stop()
    if not lab_offloads(lab):
        bad = lab.tshark(path, '-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE', '-Y',
                         'ip.src==10.9.0.2 && ((tcp.checksum.status!=1 && tcp.checksum!=0xffff) || ip.checksum.status!=1)')  # see test_links.py
        assert bad == '', bad
    bad = lab.tshark(path, '-Y', 'ip.src==10.9.0.2 && (_ws.malformed || tcp.analysis.lost_segment'
                                 ' || tcp.analysis.duplicate_ack || tcp.analysis.zero_window)')
    assert bad == '', bad
    lab.assert_none_too_soon(lab.repeated(here.stop(), '10.9.0.2'))


if __name__ == '__main__':
    run(globals())
