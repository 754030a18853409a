#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shield=ingress and Shield=bpf: dropped early what the rules drop, and never more; it follows devices and listeners, and leaves nothing."""
import fcntl
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import struct
import time

from lab import SLOW, TCPFSMD, Skip, pump, run, skip_all, until, variants

NFT = shutil.which('nft', path='/usr/sbin:/usr/bin:/sbin:/bin')
if not NFT:
    skip_all('there is no nft')
INGRESS = '[Daemon]\nShield=ingress\n'
ECHO = INGRESS + '[Listener e]\nAddress=10.9.0.2:7\nService=echo\n'
BOTH = INGRESS + '[Listener e]\nAddress=*:7\nService=echo\n'
BY = ['ingress', 'bpf']


def asked(by, config):
    """The configuration, for either way. The program of BPF stands behind packets of a kernel that has the place for it."""
    if by == 'bpf' and tuple(int(n) for n in os.uname().release.split('.')[:2]) < (6, 6):
        raise Skip('this kernel has no TCX')
    return config.replace('Shield=ingress', f'Shield={by}')


def tables(lab, ns='server'):
    """The tables of the early drop, ours or another's of tcpfsmd."""
    return [line.split()[2] for line in lab.sh(ns, 'nft list tables netdev').splitlines() if 'TCPFSMD' in line]

def table(lab):
    return lab.sh('server', f'nft -n list table netdev {tables(lab)[0]}')

def ruleset(lab):
    """Everything, without counts."""
    return re.sub(r'packets \d+ bytes \d+', '', lab.sh('server', 'nft list ruleset'))

def devices(d):
    return sorted(d.ctl('list', 'rules')['devices'])

def counts(d, family='ipv4', port=7):
    """What one rule has kept from the kernel, and what of it early. The list is at most a second old: settled."""
    def read():
        rows = d.ctl('list', 'rules')['rules']
        return [(r['packets'], r['early']) for r in rows if r['family'] == family and r['port_min'] == port]
    time.sleep(1.1)
    rows = read()
    assert len(rows) == 1, rows
    return rows[0]

def kernel_serves(lab, host, port, ns='server'):
    """A server of the kernel's on a port that is not ours, as a client of the other namespace sees it."""
    listener = lab.listen(host, port, ns)
    c = lab.connect(host, port)
    s, _ = listener.accept()
    s.sendall(b'from the kernel')
    assert c.recv(100) == b'from the kernel'
    for x in (c, s, listener):
        x.close()

def fake_nft(lab, *words):
    """An nft that fails when the file `flag` is there and its input has one of these. Its directory, and the flag."""
    directory = pathlib.Path(lab.dir) / 'fake'
    directory.mkdir()
    flag = directory / 'flag'
    script = directory / 'nft'
    bad = '|'.join(f'*"{w}"*' for w in words)
    script.write_text(f'#!/bin/sh\ncase "$*" in *"-f -"*)\n\ttext=$(cat)\n\t[ ! -e {flag} ] || case "$text" in {bad})\n'
                      f'\t\techo "Error: the test says no" >&2; exit 1;; esac\n\tprintf "%s\\n" "$text" | {NFT} "$@";;\n'
                      f'*)\n\texec {NFT} "$@";;\nesac\n')
    script.chmod(0o755)
    return directory, flag


# ---- what is dropped, and where ----

@variants(by=BY)
def test_both_families_are_served_and_the_kernels_ip_sees_nothing(lab, by):
    d = lab.daemon(asked(by, BOTH))
    assert devices(d) == ['v1'] and len(tables(lab)) == (by == 'ingress')
    for host in ('10.9.0.2', 'fd09::2'):
        assert pump(lab.connect(host, 7), b'x' * 300000) == b'x' * 300000
    for family in ('ipv4', 'ipv6'):
        packets, early = counts(d, family)
        assert packets == early > 3, (family, packets, early)
    # lo has no early drop: there the rules do it
    assert pump(lab.connect('127.0.0.1', 7, ns='server'), b'y' * 1000) == b'y' * 1000
    packets, early2 = counts(d)
    assert packets > early2, (packets, early2)
    d.stop()
    assert tables(lab) == []

@variants(by=BY)
def test_connections_that_we_open(lab, by):
    d = lab.daemon(asked(by, INGRESS))
    server = lab.listen('10.9.0.1', 80)
    d.ctl('connect', '10.9.0.1:80')
    s, _ = server.accept()
    s.settimeout(10 * SLOW)
    s.close()
    packets, early = counts(d, port=61000)
    assert early > 0, (packets, early)

@variants(by=BY)
def test_a_subset_of_what_the_rules_drop(lab, by):
    """Frame by frame: what the early drop must leave to others, and what it takes. Each has a port of its own."""
    macs = [bytes.fromhex(re.search(r'link/ether ([\da-f:]+)', lab.sh(ns, f'ip link show {dev}'))[1].replace(':', ''))
            for ns, dev in (('server', 'v1'), ('client', 'v0'))]
    other = bytes([2, 0, 0, 0, 0, 9])

    def tcp(port):
        return struct.pack('!HHIIBBHHH', 40000, port, 1, 0, 5 << 4, 16, 1000, 0, 0)  # an ACK of nothing; the checksum is wrong

    def ip4(dst='10.9.0.2', proto=6, fragment=0, options=b'', version=4):
        def packet(port):
            words = 5 + len(options) // 4
            head = struct.pack('!BBHHHBBH', version << 4 | words, 0, 4 * words + len(tcp(port)), 1, fragment, 64, proto, 0)
            head += socket.inet_aton('10.9.0.1') + socket.inet_aton(dst) + options
            total = sum(struct.unpack(f'!{2 * words}H', head))
            total = (total & 0xffff) + (total >> 16)
            return head[:10] + struct.pack('!H', ~((total & 0xffff) + (total >> 16)) & 0xffff) + head[12:] + tcp(port)
        return 0x800, packet

    def ip6(dst='fd09::2', extension=False, version=6):
        def packet(port):
            rest = (bytes([6, 0, 1, 4, 0, 0, 0, 0]) if extension else b'') + tcp(port)
            return struct.pack('!IHBB', version << 28, len(rest), 60 if extension else 6, 64) + socket.inet_pton(
                socket.AF_INET6, 'fd09::1') + socket.inet_pton(socket.AF_INET6, dst) + rest
        return 0x86dd, packet

    tag, two = b'\x81\x00\x00\x05', b'\x88\xa8\x00\x06\x81\x00\x00\x05'
    cases = [('IPv4', ip4(), {}, 4), ('IPv4 with options', ip4(options=bytes(4)), {}, 4 if by == 'ingress' else 0), ('IPv6', ip6(), {}, 6),
             ('a tag of VLAN 5', ip4(), {'tag': tag}, 0), ('a tag of VLAN 5, IPv6', ip6(), {'tag': tag}, 0), ('two tags', ip4(), {'tag': two}, 0),
             ('a first fragment', ip4(fragment=0x2000), {}, 0), ('a later fragment', ip4(fragment=3), {}, 0),
             ('another protocol', ip4(proto=17), {}, 0), ('another host', ip4(dst='10.9.0.77'), {}, 0),
             ('another host, IPv6', ip6(dst='fd09::77'), {}, 0), ('another station', ip4(), {'to': other}, 0),
             ('everybody', ip4(), {'to': b'\xff' * 6}, 0), ('an extension header', ip6(extension=True), {}, 0)]
    d = lab.daemon(asked(by, INGRESS) + '[Listener l]\nAddress=*:7\nService=discard\n' + ''.join(
        f'[Listener l{n}]\nAddress=*:{100 + n}\nService=discard\n[Listener m{n}]\nAddress=10.9.0.2:{300 + n}\nService=discard\n'
        f'[Listener n{n}]\nAddress=[fd09::2]:{300 + n}\nService=discard\n' for n in range(len(cases))))
    raw = lab.socket('client', socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(('v0', 0))
    for n, (_, (kind, packet), how, _) in enumerate(cases):
        for port in (100 + n, 300 + n):  # of a wildcard, and of an address
            raw.send(how.get('to', macs[0]) + macs[1] + how.get('tag', b'') + struct.pack('!H', kind) + packet(port))
    # and one that is taken, behind them: then all have been looked at
    raw.send(macs[0] + macs[1] + struct.pack('!H', 0x800) + ip4()[1](7))
    until(lambda: counts(d)[1] == 1, what='the last one')
    early = {(r['family'], r['port_min']): r['early'] for r in d.ctl('list', 'rules')['rules']}
    for n, (name, _, _, taken) in enumerate(cases):
        for port in (100 + n, 300 + n):
            got = [early['ipv4', port], early['ipv6', port]]
            assert got == [taken == 4, taken == 6], (name, port, got)
    d.stop()

@variants(by=BY)
def test_an_address_that_moves(lab, by):
    """Its segments are ours while it is here, and go on to who has it when we are a router for it."""
    lab.sh('server', 'ip addr add 10.9.0.77/32 dev v1; echo 1 > /proc/sys/net/ipv4/ip_forward')
    lab.sh('client', 'ip route add 10.9.0.77 via 10.9.0.2')
    d = lab.daemon(asked(by, BOTH) + '[Listener f]\nAddress=10.9.0.77:70\nService=echo\n')
    for port in (7, 70):
        assert pump(lab.connect('10.9.0.77', port), b'x' * 1000) == b'x' * 1000
        assert counts(d, port=port)[1] > 3
    lab.holders['third'] = lab.hold()
    lab.sh('server', f'ip link add d0 type veth peer name d1 netns {lab.holders["third"].pid}; ip link set d0 up; ip addr add 10.7.0.1/24 dev d0')
    lab.sh('third', 'ip link set lo up; ip addr add 10.7.0.2/24 dev d1; ip addr add 10.9.0.77/32 dev lo; ip link set d1 up; ip route add 10.9.0.0/24 via 10.7.0.1')
    lab.sh('server', 'ip addr del 10.9.0.77/32 dev v1; ip route add 10.9.0.77 via 10.7.0.2')
    before = [counts(d, port=port) for port in (7, 70)]
    for port in (7, 70):
        kernel_serves(lab, '10.9.0.77', port, 'third')
    assert [counts(d, port=port) for port in (7, 70)] == before
    lab.sh('server', 'ip route del 10.9.0.77; ip addr add 10.9.0.77/32 dev v1')
    for n, port in enumerate((7, 70)):
        # what comes before the daemon has heard of the address is dropped by the rules
        until(lambda: pump(lab.connect('10.9.0.77', port), b'x' * 1000) == b'x' * 1000 and counts(d, port=port)[1] > before[n][1] + 3,
              what='the address again')
    d.stop()

@variants(by=BY)
def test_without_ethernet(lab, by):
    """A tun device: the same, without an Ethernet header."""
    d = lab.daemon(asked(by, BOTH))
    with lab.inside('server'):
        tun = os.open('/dev/net/tun', os.O_RDWR)
        fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'tun0', 0x1001))  # TUNSETIFF: IFF_TUN | IFF_NO_PI
    lab.sh('server', 'ip addr add 10.8.0.2/24 dev tun0; ip link set tun0 up')
    until(lambda: devices(d) == ['tun0', 'v1'], what='the drop on tun0')
    _, before = counts(d)
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 40, 1, 0, 64, 6, 0, socket.inet_aton('10.8.0.1'), socket.inet_aton('10.8.0.2'))
    total = sum(struct.unpack('!10H', head))
    head = head[:10] + struct.pack('!H', ~((total & 0xffff) + (total >> 16)) & 0xffff) + head[12:]
    os.write(tun, head + struct.pack('!HHIIBBHHH', 40000, 7, 1, 0, 5 << 4, 16, 1000, 0, 0))
    _, after = counts(d)
    assert after == before + 1, (before, after)
    os.close(tun)
    until(lambda: devices(d) == ['v1'], what='the end of tun0')

@variants(by=BY)
def test_only_the_interfaces_that_are_served(lab, by):
    lab.sh('server', 'ip link add d0 type veth peer name d1')
    d = lab.daemon(asked(by, ECHO.replace('[Daemon]\n', '[Daemon]\nInterfaces=v1 lo nothere\nLocalPorts=61000-61999\n')))
    assert devices(d) == ['v1']
    e = lab.daemon(asked(by, '[Listener f]\nAddress=10.9.0.2:70\nService=echo\n[Daemon]\nLocalPorts=62000-62999\nShield=ingress\n'))
    assert devices(e) == ['d0', 'd1', 'v1']


# ---- listeners ----

@variants(by=BY)
def test_listeners_come_and_go(lab, by):
    """A port that is free again is the kernel's, on the spot and in both families."""
    d = lab.daemon(asked(by, INGRESS))
    for address, host, family in (('10.9.0.2:70', '10.9.0.2', 'ipv4'), ('[fd09::2]:70', 'fd09::2', 'ipv6'), ('*:70', 'fd09::2', 'ipv6'),
                                  ('*:70', '10.9.0.2', 'ipv4')):
        d.ctl('listen', address, '--service', 'echo')
        c = lab.connect(host, 70)
        c.sendall(b'hello')
        assert c.recv(5) == b'hello'
        packets, early = counts(d, family, 70)
        assert packets == early > 0, (address, packets, early)
        d.ctl('unlisten', address)
        c.sendall(b'draining')  # its connection lives: what comes for it is still ours
        assert c.recv(8) == b'draining'
        c.close()
        until(lambda: '--dport 70' not in lab.rules(), 10, 'the end of the rule')
        assert by == 'bpf' or not re.search(r'\b70\b', table(lab)), table(lab)
        kernel_serves(lab, host, 70)

@variants(by=BY)
def test_counts_outlive_changes_but_not_their_rule(lab, by):
    d = lab.daemon(asked(by, ECHO))
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
    first = counts(d)
    d.ctl('listen', '10.9.0.2:70', '--service', 'echo')
    d.ctl('unlisten', '10.9.0.2:70')
    until(lambda: '--dport 70' not in lab.rules(), 10)
    assert counts(d) == first and first[1] > 3, (counts(d), first)
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
    assert counts(d)[1] > first[1]
    d.ctl('listen', '10.9.0.2:70', '--service', 'echo')
    assert counts(d, port=70) == (0, 0)

@variants(by=BY)
def test_a_reload_that_takes_and_gives(lab, by):
    d = lab.daemon(asked(by, ECHO + '[Listener f]\nAddress=10.9.0.2:8\nService=echo\n'))
    d.conf.write_text(asked(by, ECHO) + '[Listener g]\nAddress=*:9\nService=echo\n')
    d.ctl('reload')
    assert pump(lab.connect('10.9.0.2', 9), b'x') == b'x' and pump(lab.connect('fd09::2', 9), b'x') == b'x'
    until(lambda: '--dport 8 ' not in lab.rules(), 10)
    assert by == 'bpf' or not re.search(r'\b8\b', re.sub('comment.*', '', table(lab))), table(lab)
    kernel_serves(lab, '10.9.0.2', 8)
    d.conf.write_text(ECHO.replace('ingress', 'iptables'))
    assert any('Shield' in w for w in d.ctl('reload')['warnings'])

@variants(by=BY)
def test_a_thousand_listeners(lab, by):
    d = lab.daemon(asked(by, INGRESS + ''.join(f'[Listener l{n}]\nAddress=10.9.0.2:{1000 + n}\nService=echo\n' for n in range(1000))))
    for port in (1000, 1500, 1999):
        assert pump(lab.connect('10.9.0.2', port), b'x') == b'x'
        assert counts(d, port=port)[1] > 0
    d.ctl('unlisten', '10.9.0.2:1500')
    until(lambda: '--dport 1500 ' not in lab.rules(), 10)
    kernel_serves(lab, '10.9.0.2', 1500)
    d.stop()
    assert tables(lab) == []


# ---- others ----

def test_tables_of_others_are_left_alone(lab):
    lab.daemon('').stop()  # tables of iptables-nft are there from now on
    lab.sh('server', 'nft -f - <<"."\ntable netdev mine {\n\tset own4 { type ipv4_addr; }\n\tchain in { type filter hook ingress device "v1" priority 0; '
                     'tcp dport 7 counter; }\n}\ntable inet other { chain early { type filter hook input priority 0; policy accept; }; }\n.')
    before = ruleset(lab)
    d = lab.daemon(ECHO)
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
    assert re.search(r'packets [1-9]', lab.sh('server', 'nft list table netdev mine')), 'others see nothing any more'
    d.ctl('listen', '10.9.0.2:70', '--service', 'echo')
    assert ruleset(lab) != before
    d.stop()
    assert ruleset(lab) == before, (before, ruleset(lab))

@variants(by=BY)
def test_two_daemons_beside_each_other(lab, by):
    a = lab.daemon(asked(by, ECHO + '[Daemon]\nLocalPorts=61000-61999\n'))
    b = lab.daemon(asked(by, '[Daemon]\nLocalPorts=62000-62999\nShield=ingress\n[Listener f]\nAddress=10.9.0.2:70\nService=echo\n'))
    assert len(tables(lab)) == 2 * (by == 'ingress')
    for port, d in ((7, a), (70, b)):
        assert pump(lab.connect('10.9.0.2', port), b'a' * 1000) == b'a' * 1000
        assert counts(d, port=port)[1] > 0
    b.stop()
    assert len(tables(lab)) == (by == 'ingress')
    assert pump(lab.connect('10.9.0.2', 7), b'a') == b'a'
    kernel_serves(lab, '10.9.0.2', 70)
    # one that fails at its start, for it wants what the first one owns
    c = lab.daemon(asked(by, '[Daemon]\nLocalPorts=63000-63999\n' + ECHO), wait=False)
    assert c.proc.wait(20 * SLOW) != 0
    lab.daemons.remove(c)
    assert len(tables(lab)) == (by == 'ingress')
    a.stop()
    assert tables(lab) == []

def test_a_table_that_somebody_removed_comes_again(lab):
    d = lab.daemon(ECHO)
    lab.sh('server', f'nft delete table netdev {tables(lab)[0]}')
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    d.ctl('listen', '10.9.0.2:70', '--service', 'echo')
    assert len(tables(lab)) == 1 and pump(lab.connect('10.9.0.2', 70), b'x') == b'x'
    lab.sh('server', f'nft delete table netdev {tables(lab)[0]}')
    d.stop()
    assert tables(lab) == []


# ---- crash and end ----

def test_the_table_outlives_a_crash_and_is_found_again(lab):
    d = lab.daemon(BOTH)
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
    seen = counts(d)[1]
    d.kill()
    assert len(tables(lab)) == 1 and '7' in table(lab)
    assert lab.socket(timeout=0.3).connect_ex(('10.9.0.2', 7)) == 11, 'the kernel answers'
    d = lab.daemon(None, base=d.base)
    assert len(tables(lab)) == 1 and pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    assert counts(d)[1] > seen
    d.kill()
    d = lab.daemon(INGRESS + '[Listener other]\nAddress=10.9.0.2:70\nService=echo\n', base=d.base)
    kernel_serves(lab, '10.9.0.2', 7)
    assert len(tables(lab)) == 1 and pump(lab.connect('10.9.0.2', 70), b'x') == b'x'
    d.kill()
    d = lab.daemon('[Listener third]\nAddress=10.9.0.2:71\nService=echo\n', base=d.base)  # without Shield=ingress
    assert tables(lab) == []
    kernel_serves(lab, '10.9.0.2', 70)
    d.stop()

def test_cleanup_command(lab):
    d = lab.daemon(ECHO)
    d.kill()
    assert len(tables(lab)) == 1
    env = dict(os.environ, RUNTIME_DIRECTORY=str(d.run))
    lab.run('server', [str(TCPFSMD), '--cleanup'], env=dict(env, SERVICE_RESULT='signal'))
    assert len(tables(lab)) == 1  # systemd is about to start it again
    for _ in range(2):
        lab.run('server', [str(TCPFSMD), '--cleanup'], env=env)
        assert tables(lab) == []

@variants(by=BY)
def test_the_ruleset_is_as_it_was(lab, by):
    lab.daemon('').stop()
    before = ruleset(lab)
    d = lab.daemon(asked(by, ECHO))
    s = lab.connect('10.9.0.2', 7)
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    d.stop()
    assert ruleset(lab) == before
    kernel_serves(lab, '10.9.0.2', 7)
    # a start that fails, with rules made already
    lab.popen('server', ['python3', '-c', 'import socket,time; s=socket.socket(); s.bind(("0.0.0.0",8080)); s.listen(); time.sleep(100)'])
    until(lambda: '8080' in lab.sh('server', 'ss -Htln'))
    e = lab.daemon(asked(by, ECHO + '[Listener x]\nAddress=10.9.0.2:8080\nService=echo\n'), wait=False)
    assert e.proc.wait(20 * SLOW) != 0
    lab.daemons.remove(e)
    assert ruleset(lab) == before


# ---- devices ----

@variants(by=BY)
def test_a_device_that_vanishes_and_comes_again(lab, by):
    d = lab.daemon(asked(by, BOTH))
    pid = lab.holders['server'].pid
    for _ in range(2):
        kept = counts(d)
        lab.sh('client', 'ip link del v0')
        until(lambda: devices(d) == [], what='the end of v1')
        assert counts(d) == kept, (counts(d), kept)
        d.ctl('listen', '10.9.0.2:70', '--service', 'echo')  # with no device at all
        lab.sh('client', f'ip link add v0 type veth peer name v1 netns {pid}; ip addr add 10.9.0.1/24 dev v0; ip link set v0 up')
        lab.sh('server', 'ip addr add 10.9.0.2/24 dev v1; ip link set v1 up')
        until(lambda: devices(d) == ['v1'], what='v1')
        for port in (7, 70):
            _, before = counts(d, port=port)
            assert pump(lab.connect('10.9.0.2', port), b'x' * 1000) == b'x' * 1000
            packets, early = counts(d, port=port)
            assert early > before + 3, (port, before, packets, early)
        d.ctl('unlisten', '10.9.0.2:70')
        until(lambda: '--dport 70' not in lab.rules(), 10)
    lab.sh('server', 'ip link set v1 down; ip link set v1 name w1; ip link set w1 up; ip addr add 10.9.0.2/24 dev w1 2>/dev/null || true')
    until(lambda: devices(d) == ['w1'] and (by == 'bpf' or '"w1"' in table(lab)), what='the new name')
    _, before = counts(d)
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
    assert counts(d)[1] > before
    assert 'arning' not in d.log.read_text() and 'alone' not in d.log.read_text(), d.log.read_text()
    d.stop()
    assert tables(lab) == []

def device_index(lab):
    return lab.sh('server', 'ip -o link show v1').split(':')[0]

@variants(by=BY)
def test_a_device_that_comes_again_at_once(lab, by):
    """Another one with its index and its name, before the daemon hears of either."""
    d = lab.daemon(asked(by, ECHO))
    index = device_index(lab)
    d.proc.send_signal(signal.SIGSTOP)
    try:
        lab.sh('server', f'ip link del v1; ip link add v1 index {index} type veth peer name v0 netns {lab.holders["client"].pid}; '
                         'ip addr add 10.9.0.2/24 dev v1; ip link set v1 up')
        lab.sh('client', 'ip addr add 10.9.0.1/24 dev v0; ip link set v0 up')
    finally:
        d.proc.send_signal(signal.SIGCONT)
    assert device_index(lab) == index

    def early():
        _, before = counts(d)
        assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
        return counts(d)[1] > before + 3
    until(early, what='the drop on the new device')
    assert devices(d) == ['v1']
    assert 'alone' not in d.log.read_text(), d.log.read_text()

@variants(by=BY)
def test_devices_in_a_hurry(lab, by):
    """They come and go faster than nft runs: no error, and in the end what there is."""
    d = lab.daemon(asked(by, ECHO))
    lab.sh('server', 'for i in 1 2 3 4 5 6 7 8; do ip link add a$i type veth peer name b$i; ip link del a$i; ip link add c$i type veth peer name e$i; done;'
                     'for i in 1 2 3 4 5 6 7; do ip link del c$i; done')
    until(lambda: devices(d) == ['c8', 'e8', 'v1'], 10, 'the last pair')
    assert d.ctl('list', 'rules')['trouble'] is None
    assert 'alone' not in d.log.read_text(), d.log.read_text()
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'

@variants(by=BY)
def test_more_devices_than_a_chain_may_have(lab, by):
    """The kernel's limit is 255: the rules alone do the rest."""
    lab.run('server', ['ip', '-batch', '-'], input=''.join(f'link add a{n} type veth peer name b{n}\n' for n in range(130)))
    d = lab.daemon(asked(by, ECHO))
    listed = d.ctl('list', 'rules')
    assert len(listed['devices']) == 255 and listed['trouble'] is None, listed
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    d.stop()
    assert tables(lab) == []

@variants(by=BY)
def test_a_port_of_a_bridge(lab, by):
    """What comes by it is the bridge's: the drop goes to the upper device."""
    d = lab.daemon(asked(by, ECHO))
    assert devices(d) == ['v1']
    # br_netfilter would have iptables look at what passes the port, before the bridge has it
    lab.sh('server', 'for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do [ ! -e $f ] || echo 0 > $f; done')
    lab.sh('server', 'ip link add br0 type bridge forward_delay 0 && ip link set br0 up && ip link set v1 master br0 && ip addr del 10.9.0.2/24 dev v1 && '
                     'ip addr add 10.9.0.2/24 dev br0')
    until(lambda: devices(d) == ['br0'], what='the drop on br0')
    _, before = counts(d)
    assert pump(lab.connect('10.9.0.2', 7, timeout=20), b'x' * 1000) == b'x' * 1000
    assert counts(d)[1] > before
    lab.sh('server', 'ip link set v1 nomaster')
    until(lambda: devices(d) == ['br0', 'v1'], what='the drop on v1')

@variants(by=BY)
def test_a_vlan_on_it(lab, by):
    """Its frames pass the lower device with their tag, and are dropped on its own."""
    d = lab.daemon(asked(by, BOTH))
    if lab.run('server', ['ip', 'link', 'add', 'link', 'v1', 'name', 'v1.5', 'type', 'vlan', 'id', '5'], check=False).returncode:
        raise Skip('this kernel has no VLANs')
    lab.sh('server', 'ip addr add 10.8.0.2/24 dev v1.5; ip link set v1.5 up')
    lab.sh('client', 'ip link add link v0 name v0.5 type vlan id 5; ip addr add 10.8.0.1/24 dev v0.5; ip link set v0.5 up')
    until(lambda: devices(d) == ['v1', 'v1.5'], what='the drop on the VLAN')
    for host in ('10.8.0.2', '10.9.0.2'):
        _, before = counts(d)
        assert pump(lab.connect(host, 7), b'x' * 1000) == b'x' * 1000
        assert counts(d)[1] > before, host
        kernel_serves(lab, host, 80)

@variants(by=BY)
def test_a_macvlan_on_it(lab, by):
    """In another namespace a kernel's server has the port that is ours here; in this one the lower device is left alone."""
    d = lab.daemon(asked(by, BOTH))
    lab.holders['third'] = lab.hold()
    third = lab.holders['third'].pid
    if lab.run('server', ['ip', 'link', 'add', 'm0', 'link', 'v1', 'type', 'macvlan', 'mode', 'bridge'], check=False).returncode:
        raise Skip('this kernel has no macvlan')
    until(lambda: devices(d) == ['m0'], what='v1 left alone')
    lab.sh('server', f'ip link set m0 netns {third}')
    lab.sh('third', 'ip link set lo up; ip addr add 10.9.0.3/24 dev m0; ip link set m0 up')
    until(lambda: devices(d) == ['v1'], what='the drop on v1 again')
    listener = lab.listen('10.9.0.3', 7, 'third')
    c = lab.connect('10.9.0.3', 7)
    s, _ = listener.accept()
    s.sendall(b'third')
    assert c.recv(5) == b'third'
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'

@variants(by=BY)
def test_a_vrf(lab, by):
    d = lab.daemon(asked(by, BOTH))
    if lab.run('server', ['ip', 'link', 'add', 'red', 'type', 'vrf', 'table', '10'], check=False).returncode:
        raise Skip('this kernel has no vrf')
    lab.sh('server', 'ip link set red up; ip link set v1 master red')
    until(lambda: 'v1' not in devices(d), what='v1 left alone')


# ---- BPF ----

def test_nothing_outlives_a_crash(lab):
    """The rules do, and the program does not: it goes with the daemon."""
    d = lab.daemon(asked('bpf', BOTH))
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
    d.kill()
    assert '--dport 7' in lab.rules()
    lab.sh('server', f'{shutil.which("iptables")} -t raw -F')
    kernel_serves(lab, '10.9.0.2', 7)
    d = lab.daemon(None, base=d.base)
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000 and counts(d)[1] > 3
    # a table of nftables that an earlier run left goes
    d.kill()
    d = lab.daemon(BOTH, base=d.base)
    d.kill()
    assert len(tables(lab)) == 1
    d = lab.daemon(asked('bpf', BOTH), base=d.base)
    assert tables(lab) == [] and pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    d.stop()

def test_no_right_to_bpf(lab):
    d = lab.daemon(asked('bpf', ECHO), wait=False, prefix=['setpriv', '--bounding-set=-bpf,-sys_admin'])
    assert d.proc.wait(20 * SLOW) == 1
    text = d.log.read_text()
    assert 'CAP_BPF' in text and 'Shield=ingress' in text and len(text.splitlines()) == 1, text
    assert 'tcpfsmd' not in lab.rules()
    lab.daemons.remove(d)

def test_a_program_that_cannot_be_put_there(lab):
    """The rules go on alone, no count is lost, and the next change tries again."""
    d = lab.daemon(asked('bpf', ECHO))
    assert pump(lab.connect('10.9.0.2', 7), b'x' * 1000) == b'x' * 1000
    packets, early = counts(d)
    assert early > 3
    limit = resource.prlimit(d.proc.pid, resource.RLIMIT_NOFILE)
    used = {int(fd) for fd in os.listdir(f'/proc/{d.proc.pid}/fd')}
    resource.prlimit(d.proc.pid, resource.RLIMIT_NOFILE, (min(set(range(len(used) + 1)) - used), limit[1]))
    lab.sh('server', 'ip link add d0 type veth peer name d1')
    until(lambda: 'rules are alone' in d.log.read_text(), what='a word about it')
    resource.prlimit(d.proc.pid, resource.RLIMIT_NOFILE, limit)
    d.ctl('listen', '10.9.0.2:70', '--service', 'echo')
    assert d.ctl('list', 'rules')['trouble'] is None and devices(d) == ['d0', 'd1', 'v1']
    assert 'Too many open files' in d.log.read_text() and counts(d) == (packets, early), (counts(d), packets, early)
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x' and counts(d)[1] > early
    d.stop()

def test_the_right_is_given_up(lab):
    """It is needed at the start alone: devices and listeners that come later are served without."""
    d = lab.daemon(asked('bpf', ECHO))
    caps = re.findall(r'Cap(?:Eff|Prm|Bnd):\s*([\da-f]+)', pathlib.Path(f'/proc/{d.proc.pid}/status').read_text())
    assert len(caps) == 3 and not any(int(c, 16) >> 39 & 1 for c in caps), caps
    lab.sh('server', 'ip link add d0 type veth peer name d1')
    until(lambda: devices(d) == ['d0', 'd1', 'v1'], what='the drop on a new device')
    d.ctl('listen', '10.9.0.2:70', '--service', 'echo')
    assert pump(lab.connect('10.9.0.2', 70), b'x') == b'x' and counts(d, port=70)[1] > 0
    d.stop()


# ---- nft fails ----

def test_without_nft(lab):
    """Refused at the start with what to do; nothing is left."""
    hide = ['unshare', '-m', 'sh', '-c', f'mount --bind /dev/null {NFT} && exec "$@"', 'sh']
    d = lab.daemon(ECHO, wait=False, prefix=hide)
    assert d.proc.wait(20 * SLOW) == 1
    text = d.log.read_text()
    assert 'install nftables' in text and 'Shield=iptables' in text and len(text.splitlines()) == 1, text
    assert 'tcpfsmd' not in lab.rules()
    lab.daemons.remove(d)
    e = lab.daemon(ECHO.replace('ingress', 'iptables'), prefix=hide)  # who does not ask for it does not need it
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    e.stop()

def test_a_kernel_that_cannot(lab):
    directory, flag = fake_nft(lab, 'hook ingress')
    flag.touch()
    d = lab.daemon(ECHO, wait=False, prefix=['env', f'PATH={directory}:{os.environ["PATH"]}'])
    assert d.proc.wait(20 * SLOW) == 1
    text = d.log.read_text()
    assert 'CONFIG_NF_TABLES_NETDEV' in text and 'Shield=iptables' in text and 'the test says no' in text, text
    assert 'tcpfsmd' not in lab.rules() and tables(lab) == []
    lab.daemons.remove(d)

def test_nft_fails_and_the_rules_go_on_alone(lab):
    directory, flag = fake_nft(lab, 'hook ingress', 'add element')
    d = lab.daemon(ECHO, prefix=['env', f'PATH={directory}:{os.environ["PATH"]}'])
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    flag.touch()
    for port in (70, 71, 72):
        d.ctl('listen', f'10.9.0.2:{port}', '--service', 'echo')
        assert pump(lab.connect('10.9.0.2', port), b'x') == b'x'
    assert tables(lab) == []
    listed = d.ctl('list', 'rules')
    assert listed['devices'] == [] and 'the test says no' in listed['trouble'], listed
    assert 'iptables alone: ' in d.ctl_run('list', 'rules').stdout
    packets, early = counts(d)
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    assert counts(d)[0] > packets and counts(d)[1] == early > 0
    assert d.log.read_text().count('the test says no') == 1, d.log.read_text()
    flag.unlink()
    d.ctl('unlisten', '10.9.0.2:70')
    until(lambda: devices(d) == ['v1'], 10, 'the drop again')
    assert len(tables(lab)) == 1 and 'again' in d.log.read_text()
    assert d.ctl('list', 'rules')['trouble'] is None
    kernel_serves(lab, '10.9.0.2', 70)
    d.stop()

def test_nft_fails_altogether(lab):
    """Not even taken away can it be: then the rule stays too, and both go when they can."""
    directory, flag = fake_nft(lab, 'netdev')
    d = lab.daemon(ECHO, prefix=['env', f'PATH={directory}:{os.environ["PATH"]}'])
    d.ctl('listen', '10.9.0.2:70', '--service', 'echo')
    flag.touch()
    d.ctl('unlisten', '10.9.0.2:70')
    until(lambda: 'tried again' in d.log.read_text(), 10, 'a word about it')
    assert '--dport 70 ' in lab.rules() and re.search(r'\b70\b', table(lab))
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'
    flag.unlink()
    until(lambda: '--dport 70 ' not in lab.rules(), 10, 'the end of the rule')
    assert not re.search(r'\b70\b', table(lab)), table(lab)
    kernel_serves(lab, '10.9.0.2', 70)
    d.stop()
    assert tables(lab) == []


if __name__ == '__main__':
    run(globals())
