#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The firewall rules: scoped, tagged, reconciled, kept over a crash, gone after a wanted stop."""
import os
import re

from lab import TCPFSMD, pump, run, until

ECHO = '[Listener e]\nAddress=10.9.0.2:7\nService=echo\n'

def ours(lab):
    return [line for line in lab.rules().splitlines() if 'tcpfsmd' in line]

def test_rules_are_scoped_and_tagged(lab):
    d = lab.daemon(ECHO)
    rules = ours(lab)
    assert rules, 'no rules'
    assert all(f'tcpfsmd {d.run}' in r for r in rules), rules
    drops = [r for r in rules if '-j DROP' in r]
    assert any('10.9.0.2' in r and '--dport 7 ' in r for r in drops), drops
    assert any('--dport 61000:65535' in r for r in drops), drops
    assert all('-p tcp' in r and 'LOCAL' in r and '--dport' in r for r in drops), drops
    listed = d.ctl('list', 'rules')
    assert listed['shield'] == 'iptables'
    assert any(r['address'] == '10.9.0.2' and r['port_min'] == 7 for r in listed['rules']), listed
    d.stop()
    assert ours(lab) == []

def test_rules_of_others_are_left_alone(lab):
    lab.sh('server', 'iptables -t raw -A PREROUTING -p tcp --dport 9999 -m comment --comment mine -j DROP')
    before = re.sub(r'\[\d+:\d+\]|^#.*$', '', lab.sh('server', 'iptables-save -t raw'), flags=re.M)
    d = lab.daemon(ECHO)
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    d.stop()
    after = re.sub(r'\[\d+:\d+\]|^#.*$', '', lab.sh('server', 'iptables-save -t raw'), flags=re.M)
    assert before == after, (before, after)

def test_rules_outlive_a_crash_and_are_found_again(lab):
    d = lab.daemon(ECHO)
    d.kill()
    kept = ours(lab)
    assert kept, 'the rules went with the crash'
    d2 = lab.daemon(None, base=d.base)
    assert sorted(re.sub(r'\[.*?\]', '', r) for r in ours(lab)) == sorted(re.sub(r'\[.*?\]', '', r) for r in kept)
    d2.kill()
    d3 = lab.daemon('[Listener other]\nAddress=10.9.0.2:70\nService=echo\n', base=d.base)
    assert not any('--dport 7 ' in r for r in ours(lab)), 'a stale rule'
    d3.stop()
    assert ours(lab) == []

def test_cleanup_command(lab):
    d = lab.daemon(ECHO)
    d.kill()
    env = dict(os.environ, RUNTIME_DIRECTORY=str(d.run))
    lab.run('server', [str(TCPFSMD), '--cleanup'], env=env)
    assert ours(lab) == []
    lab.run('server', [str(TCPFSMD), '--cleanup'], env=env)  # twice is fine

def test_two_daemons_beside_each_other(lab):
    """Two in one namespace: different ports live together; the same ports are refused by name."""
    a = lab.daemon(ECHO + '[Daemon]\nLocalPorts=61000-61999\n')
    b = lab.daemon('[Daemon]\nLocalPorts=62000-62999\n[Listener f]\nAddress=10.9.0.2:70\nService=echo\n')
    assert pump(lab.connect('10.9.0.2', 7), b'a') == b'a' and pump(lab.connect('10.9.0.2', 70), b'b') == b'b'
    c = lab.daemon('[Daemon]\nLocalPorts=63000-63999\n' + ECHO, wait=False)
    assert c.proc.wait(20) != 0
    text = c.log.read_text()
    assert str(a.run) in text and '10.9.0.2' in text and 'port 7 ' in text, text
    b.stop()
    assert pump(lab.connect('10.9.0.2', 7), b'a') == b'a'
    a.stop()
    lab.daemons.remove(c)

def test_kernel_ports_are_refused_with_their_owner(lab):
    lab.popen('server', ['python3', '-c', 'import socket,time; s=socket.socket(); s.bind(("0.0.0.0",8080)); s.listen(); time.sleep(100)'])
    until(lambda: '8080' in lab.sh('server', 'ss -Htln'))
    d = lab.daemon('')
    r = d.ctl_run('listen', '10.9.0.2:8080', '--service', 'echo')
    assert r.returncode == 1 and '0.0.0.0:8080' in r.stderr and 'root' in r.stderr, r
    assert d.ctl('list', 'listeners')['listeners'] == [] and '8080' not in lab.rules()
    e = lab.daemon('[Daemon]\nLocalPorts=20000-20010\n[Listener x]\nAddress=*:8080\nService=echo\n', wait=False)
    assert e.proc.wait(20) != 0 and 'python3' in e.log.read_text(), e.log.read_text()
    lab.daemons.remove(e)

def test_local_ports_inside_the_ephemeral_range_are_refused(lab):
    d = lab.daemon('[Daemon]\nLocalPorts=40000-40100\n', wait=False)
    assert d.proc.wait(20) != 0
    assert '40000' in d.log.read_text() and 'ip_local_port_range' in d.log.read_text(), d.log.read_text()
    lab.daemons.remove(d)
    assert ours(lab) == []

def test_we_never_answer_for_what_is_not_ours(lab):
    """Segments to other ports and to other machines' addresses: no answer of ours, and they are forwarded."""
    lab.daemon('[Listener e]\nAddress=*:7\nService=echo\n')
    cap = lab.capture('client', 'v0', 'tcp')
    lab.sh('server', 'ip link add d0 type veth peer name d1; ip link set d0 up; ip addr add 10.7.0.1/24 dev d0; ip link set d1 up;'
                     'sysctl -qw net.ipv4.ip_forward=1')
    lab.sh('client', 'ip route add 10.7.0.0/24 via 10.9.0.2')
    s = lab.socket(timeout=0.3)
    assert s.connect_ex(('10.7.0.5', 7)) != 0  # nobody there; port 7 is ours on our addresses only
    assert lab.tshark(cap.stop(), '-Y', 'ip.src==10.7.0.5') == ''

def test_shield_list_without_iptables(lab):
    d = lab.daemon('[Daemon]\nShield=none\n')
    assert d.ctl('list', 'rules') == {'rules': [], 'shield': 'none'}
    assert ours(lab) == []

if __name__ == '__main__':
    run(globals())
