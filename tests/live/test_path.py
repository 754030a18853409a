#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the path between says and does: ICMP errors of a real kernel."""
import time

from lab import SLOW, pump, run, until, variants

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


run(globals())
