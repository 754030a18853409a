#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the path between says and does: ICMP errors of a real kernel."""
import socket
import time

from lab import SLOW, pump, read_all, run, until, variants

FAMILY = {
    4: ('10.9.0.1:81', '10.9.0.2', 'iptables', 'icmp'),
    6: ('[fd09::1]:81', 'fd09::2', 'ip6tables', 'icmp6'),
}


def reject(lab, tool, kind, match, ns='client'):
    lab.sh(ns, f'{tool} -A INPUT -p tcp {match} -j REJECT --reject-with {kind}')


def counters(d):
    return d.ctl('status')['counters']


@variants(family=[4, 6])
def test_refused_by_icmp(lab, family):
    """RFC 9293 3.9.2.2 SHLD-26: a hard error ends the open, long before SynTimeout does."""
    where, _, tool, icmp = FAMILY[family]
    d = lab.daemon('')
    reject(lab, tool, f'{icmp}-port-unreachable', '--dport 81')
    start = time.monotonic()
    r = d.ctl_run('connect', where, input='')
    assert r.returncode == 1 and 'cannot be reached' in r.stderr, r
    assert time.monotonic() - start < 10 * SLOW
    row = d.closed()[0]
    assert row['end_reason'] == 'unreachable' and row['last_state'] == 'syn_sent', row
    steps = d.ctl('show', 'transitions', row['id'])['transitions']
    assert steps[-1]['cause'] == 'icmp port_unreachable', steps
    assert counters(d)['icmp_ended'] == 1, counters(d)


@variants(family=[4, 6])
def test_soft_error(lab, family):
    """MUST-56: it ends nothing; SHLD-25: it is shown. IcmpMayReset makes it end an open."""
    where, _, tool, icmp = FAMILY[family]
    kind = 'icmp-host-unreachable' if family == 4 else 'icmp6-addr-unreachable'
    d = lab.daemon('[Tcp]\nRtoInitial=300ms\n')
    reject(lab, tool, kind, '--dport 81')
    r = d.ctl_run('connect', where, '--tcp', 'IcmpMayReset=yes', input='')
    assert r.returncode == 1 and 'cannot be reached' in r.stderr, r
    d.closed()
    r = d.ctl_run('connect', where, '--tcp', 'SynTimeout=2s', input='')
    assert r.returncode == 1 and 'cannot be reached' in r.stderr, r
    rows = d.closed(2)
    causes = [d.ctl('show', 'transitions', row['id'])['transitions'][-1]['cause'] for row in rows]
    assert causes == ['timer user_timeout', 'icmp host_unreachable'], causes


@variants(family=[4, 6])
def test_error_on_an_open_connection(lab, family):
    """RFC 5927 5.2: even a hard error is soft then. What was refused meanwhile arrives later."""
    _, host, tool, icmp = FAMILY[family]
    address = f'[{host}]' if family == 6 else host
    d = lab.daemon(f'[Listener echo]\nAddress={address}:7\nService=echo\n')
    s = lab.connect(host, 7)
    s.sendall(b'one')
    assert s.recv(100) == b'one'
    reject(lab, tool, f'{icmp}-port-unreachable', '--sport 7')
    s.sendall(b'two')
    number = d.connections()[0]['id']
    until(lambda: d.ctl('show', 'connection', number)['detail']['soft_error'] == 'port_unreachable', what='soft error')
    assert d.connections()[0]['state'] == 'established'
    assert 'port_unreachable' in d.ctl_run('show', 'connection', number).stdout
    lab.sh('client', f'{tool} -F INPUT')
    assert s.recv(100) == b'two'
    s.close()
    row = d.closed()[0]
    assert row['end_reason'] == 'normal', row


@variants(family=[4, 6])
def test_neighbour_falls_silent(lab, family):
    """The host cannot resolve the peer any more, and says so: a soft error, and what waits arrives when he is back."""
    _, host, tool, _ = FAMILY[family]
    address = f'[{host}]' if family == 6 else host
    d = lab.daemon(f'[Listener echo]\nAddress={address}:7\nService=echo\n')
    s = lab.connect(host, 7)
    s.sendall(b'one')
    assert s.recv(100) == b'one'
    # He knows us, and so does not ask; we do, and he does not answer.
    mac = lab.sh('server', 'ip -br link show v1').split()[2]
    lab.sh('client', f'ip neigh replace {host} lladdr {mac} nud permanent dev v0')
    if family == 4:
        lab.sh('client', 'echo 8 > /proc/sys/net/ipv4/conf/v0/arp_ignore')
    else:
        lab.sh('client', f'{tool} -A OUTPUT -p icmpv6 --icmpv6-type neighbour-advertisement -j DROP')
    lab.sh('server', 'ip neigh flush all')
    number = d.connections()[0]['id']
    sent = []

    def says_so():
        # What comes before the daemon has heard that the neighbour is gone is still sent to where it was.
        s.sendall(b'two')
        sent.append(b'two')
        return d.ctl('show', 'connection', number)['detail']['soft_error'] == 'host_unreachable'
    until(says_so, 20, 'soft error')
    assert d.connections()[0]['state'] == 'established'
    lab.sh('client', 'echo 0 > /proc/sys/net/ipv4/conf/v0/arp_ignore' if family == 4 else f'{tool} -F OUTPUT')
    s.settimeout(40)
    s.shutdown(socket.SHUT_WR)
    assert read_all(s) == b''.join(sent)
    s.close()
    row = d.closed()[0]
    assert row['end_reason'] == 'normal' and row['retransmitted_segments'] > 0, row


def test_errors_about_others_are_not_taken(lab):
    """An error about a port that is not ours never reaches a connection; the kernel's own TCP has it."""
    d = lab.daemon('[Listener echo]\nAddress=10.9.0.2:7\nService=echo\n')
    reject(lab, 'iptables', 'icmp-port-unreachable', '--dport 81')
    s = lab.socket('server')
    try:
        s.connect(('10.9.0.1', 81))
        raise AssertionError('it connected')
    except ConnectionRefusedError:
        pass
    assert counters(d)['icmp_in'] == 0, counters(d)
    assert pump(lab.connect('10.9.0.2', 7), b'hello') == b'hello'


def narrow(lab, mtu=1300):
    """A third namespace, `far`, behind `client`, which forwards through a link of a smaller MTU than `far` knows of."""
    lab.holders['far'] = lab.hold()
    lab.sh('client', f'ip link add w0 mtu {mtu} type veth peer name w1 mtu 1500 netns {lab.holders["far"].pid}')
    lab.sh('client', 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding')
    for ns, dev, n in (('client', 'w0', 1), ('far', 'w1', 2)):
        lab.sh(ns, f'ip link set lo up; ip addr add 10.9.5.{n}/24 dev {dev}; ip -6 addr add fd95::{n}/64 dev {dev} nodad; ip link set {dev} up')
    lab.sh('far', 'ip route add default via 10.9.5.1; ip -6 route add default via fd95::1')
    lab.sh('server', 'ip route add 10.9.5.0/24 via 10.9.0.1; ip -6 route add fd95::/64 via fd09::1')


SERVED = '[Listener s]\nAddress={0}:80\nService=exec:/usr/bin/seq 1 200000\n[Listener c]\nAddress={0}:19\nService=chargen\n'
NUMBERS = ''.join(f'{i}\n' for i in range(1, 200001)).encode()


def path_mtu(d):
    rows = d.connections('state', 'established')
    return d.ctl('show', 'connection', rows[0]['id'])['detail']['path_mtu_bytes'] if rows else 0


@variants(family=[4, 6], offloads=[True, False])
def test_path_mtu_is_discovered(lab, family):
    """RFC 1191, RFC 8201: a router on the way says what fits; everything arrives, long before a timeout of minutes."""
    _, host, _, _ = FAMILY[family]
    address = f'[{host}]' if family == 6 else host
    narrow(lab)
    d = lab.daemon(SERVED.format(address))
    assert read_all(lab.connect(host, 80, ns='far')) == NUMBERS
    assert counters(d)['path_mtu_lowered'] == 1, counters(d)
    s = lab.connect(host, 19, ns='far')
    read_all(s, 200_000)
    assert path_mtu(d) == 1300
    assert counters(d)['black_holes'] == 0, counters(d)


@variants(family=[4, 6])
def test_black_hole(lab, family):
    """RFC 4821: nobody says what fits. Timeouts of large segments make them smaller."""
    _, host, tool, icmp = FAMILY[family]
    address = f'[{host}]' if family == 6 else host
    narrow(lab)
    kind = 'icmp --icmp-type fragmentation-needed' if family == 4 else 'icmpv6 --icmpv6-type packet-too-big'
    lab.sh('client', f'{tool} -A OUTPUT -p {kind} -j DROP')
    d = lab.daemon(SERVED.format(address))
    assert read_all(lab.connect(host, 80, ns='far', timeout=30)) == NUMBERS
    assert counters(d)['path_mtu_lowered'] == 0 and counters(d)['black_holes'] == 1, counters(d)


def test_mtu_of_the_interface_changes(lab):
    """A running connection cuts its segments anew, and no segment is larger than the link."""
    d = lab.daemon(SERVED.format('10.9.0.2'))
    s = lab.connect('10.9.0.2', 19)
    read_all(s, 100_000)
    assert path_mtu(d) == 1500
    lab.sh('server', 'ip link set v1 mtu 1200')
    until(lambda: path_mtu(d) == 1200, what='new MTU')
    read_all(s, 8_000_000)  # more than was on its way
    assert d.connections('state', 'established')[0]['snd_mss_bytes'] == 1200 - 52
    lab.sh('server', 'ip link set v1 mtu 1500')
    until(lambda: path_mtu(d) == 1500, what='old MTU')
    read_all(s, 8_000_000)
    assert d.connections('state', 'established')[0]['snd_mss_bytes'] == 1448
    assert d.ctl('status')['links']['packet']['send_too_big'] == 0


def test_keepalive(lab):
    """RFC 9293 3.8.4: a silent peer that lives stays; one that is gone is found out."""
    d = lab.daemon('[Listener echo]\nAddress=10.9.0.2:7\nService=echo\n'
                   '[Tcp]\nKeepAlive=yes\nKeepAliveTime=300ms\nKeepAliveInterval=100ms\nKeepAliveProbes=3\n')
    s = lab.connect('10.9.0.2', 7)
    until(lambda: counters(d)['keepalive_probes'] >= 3, what='keep-alives')
    assert d.connections()[0]['state'] == 'established'
    s.sendall(b'still here')
    assert s.recv(100) == b'still here'
    lab.sh('client', 'iptables -A INPUT -p tcp --sport 7 -j DROP')
    row = d.closed()[0]
    assert row['end_reason'] == 'keepalive_timeout', row
    assert d.ctl('show', 'transitions', row['id'])['transitions'][-1]['cause'] == 'timer keepalive'


run(globals())
