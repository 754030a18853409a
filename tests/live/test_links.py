#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Against the kernel's TCP over links that delay, lose, swap, double and damage: every octet arrives, in both
directions, and what we sent is sound. A capture at our side is looked through by tshark: nothing malformed, no
wrong checksum, and no remark of its analysis that the link does not explain."""
import collections
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

from lab import BUILD, SLOW, Skip, run, until, variants

OURS = {'4': '10.9.0.2', '6': 'fd09::2'}
FROM_US = f'(ip.src == {OURS["4"]} or ipv6.src == {OURS["6"]})'
MIB = 1 << 20
REMARKS = 5  # of tshark, for a segment that is sent again: that it is, whether needlessly, a DSACK, a duplicate ACK
PEERS = 10  # segments that the kernel sends again although nothing is lost, of some thousand
SERVICES = '''
[Tcp]
MSL=100ms
[Listener echo]
Address=*:7
Service=echo
[Listener blob]
Address=*:19
Service=file:{}
'''

# What tshark may say of an exchange. A receiver that is full is no fault of the link.
ALWAYS = ['Connection (establish|finish)', 'This frame (initiates|undergoes) the connection closing', 'TCP window update', 'TCP window specified by the receiver is now completely full',
          'TCP Zero Window segment', 'TCP keep-alive segment', 'ACK to a TCP keep-alive segment', 'TCP Zero Window Probe',
          'ACK to a TCP Zero Window Probe',
          # Without offloads the kernel finishes checksums, its own and ours, by skb_checksum_help(), which has one rule for UDP and TCP.
          'TCP Checksum 0xffff instead of 0x0000']
LATE = ['This frame is a \\(suspected\\) out-of-order segment', 'Duplicate ACK', 'Previous segment\\(s\\) not captured']
AGAIN = LATE + ['This frame is a \\(suspected\\) (fast |spurious )?retransmission', 'A new tcp session is started',
                'ACKed segment that wasn.t captured', 'D-SACK Sequence',
                'Connection reset']  # of what arrives when the connection has ended
SCENARIOS = {
    # name: what the link does, what tshark may say more, MiB back and forth. A seed is one whose first faults come among the
    # first frames, each way where that can be: however few super-segments there are, the link has done its part.
    'good': ('', [], 8),
    'far': ('delay=15000 jitter=2000', [], 4),
    'swaps': ('seed=10 delay=2000 reorder=20 held=3000', AGAIN, 2),
    'loses': ('seed=3 delay=2000 loss=20', AGAIN, 1),
    'loses many in a row': ('seed=231 delay=2000 burst=4', AGAIN, 1),
    'doubles': ('seed=3 delay=2000 dup=50', AGAIN, 2),
    'damages': ('seed=11 delay=2000 corrupt=20', AGAIN, 1),
    'is slow': ('delay=5000 rate=1500000 queue=40000', AGAIN, 1),
    'everything': ('seed=51841 delay=5000 jitter=2000 loss=10 burst=1 dup=10 corrupt=10 reorder=10 rate=3000000', AGAIN, 1),
}


class Link:
    """In between: v0 - m0 | badlink | m1 - v1, in place of the lab's veth."""

    def __init__(self, lab, offloads, how):
        self.lab = lab
        lab.holders['middle'] = lab.hold()
        middle = lab.holders['middle'].pid
        lab.sh('client', f'ip link del v0; ip link add v0 type veth peer name m0 netns {middle}')
        lab.sh('server', f'ip link add v1 type veth peer name m1 netns {middle}')
        for ns, dev, n in (('client', 'v0', 1), ('server', 'v1', 2)):
            lab.sh(ns, f'ip addr add 10.9.0.{n}/24 dev {dev}; ip -6 addr add fd09::{n}/64 dev {dev} nodad; ip link set {dev} up')
        lab.sh('middle', 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set m0 up; ip link set m1 up')
        if not offloads:
            for ns, dev in (('client', 'v0'), ('middle', 'm0'), ('middle', 'm1'), ('server', 'v1')):
                lab.sh(ns, f'ethtool -K {dev} tx off rx off sg off tso off gso off gro off >/dev/null')
        for ns, devs in (('client', ['v0']), ('middle', ['m0', 'm1']), ('server', ['v1'])):
            lab.keep_order(ns, *devs)
        self.proc = lab.popen('middle', [str(BUILD / 'tests' / 'live' / 'badlink'), 'm0', 'm1', *how.split()],
                              stdout=subprocess.PIPE)
        assert self.proc.stdout.readline() == b'ready\n', 'the link did not start'

    def stop(self):
        self.proc.send_signal(signal.SIGTERM)
        return dict(zip(('to us', 'from us'), json.loads(self.proc.communicate(timeout=20)[0])))


def exchange(s, data, back):
    """Sends data and closes, reads to the end; hashes of what came and of what should have."""
    got, want = hashlib.sha256(), hashlib.sha256(back)

    def feed():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=feed, daemon=True)
    t.start()
    while piece := s.recv(1 << 18):
        got.update(piece)
    t.join(60 * SLOW)
    return got.hexdigest(), want.hexdigest()


def remarks(lab, path, among='tcp'):
    """What tshark's experts say, and how often. A D-SACK counts once: the kernel writes a super-segment's options, and each
    segment that it is cut into has a copy of them."""
    said, reported = collections.Counter(), set()
    out = lab.tshark(path, '-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE', '-o', 'tcp.desegment_tcp_streams:FALSE',
                     '-Y', among, '-T', 'fields', '-E', 'separator=;', '-E', 'aggregator=|', '-e', '_ws.expert.message', '-e', 'tcp.stream',
                     '-e', 'tcp.srcport', '-e', 'tcp.options.sack_le', '-e', 'tcp.options.sack_re')
    for line in out.splitlines():
        messages, *blocks = line.rsplit(';', 4)
        for message in filter(None, messages.split('|')):
            if message == 'D-SACK Sequence':
                if tuple(blocks) in reported:
                    continue
                reported.add(tuple(blocks))
            said[message] += 1
    return said


def assert_explained(lab, path, allowed, among='tcp'):
    """Of what tshark says nothing is left unexplained: not by the link, nor by a machine that stalls. Where nothing is lost
    that makes senders repeat what they might have waited for: a few remarks each."""
    said = remarks(lab, path, among)
    strange = {what: n for what, n in said.items() if not any(re.match(a, what) for a in ALWAYS + allowed)}
    if not strange:
        return
    again = lab.repeated(path, *OURS.values())
    lab.assert_none_too_soon(again)
    assert all(any(re.match(a, what) for a in AGAIN) for what in strange) and sum(strange.values()) <= REMARKS * len(again), \
        f'tshark says, and the link does not explain it: {strange}; all: {dict(said)}; sent again: {again}'
    assert sum(not x.ours for x in again) <= PEERS, f'we answer too late: {again}'


def assert_sound(lab, path, checksums):
    """Of what we sent: nothing malformed, every checksum right. Where a device leaves that to the kernel, it writes 0xffff for
    0, which is the same in one's complement, and tshark does not take it."""
    bad = lab.tshark(path, '-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE', '-Y',
                     f'{FROM_US} and (_ws.malformed or tcp.option.len.invalid' + (' or (tcp.checksum.status == 0 and tcp.checksum != 0xffff) or ip.checksum.status == 0)'
                                                                             if checksums else ')'))
    assert not bad, bad


def transfer(lab, d, host, size, seed):
    """Octets to and fro, and octets from us alone; nobody's ports meet twice."""
    data = hashlib.shake_128(seed.encode()).digest(size * MIB)
    s = lab.connect(host, 7, timeout=90)
    got, want = exchange(s, data, data)
    assert got == want, 'what came back is not what was sent'
    s.close()
    s = lab.connect(host, 19, timeout=90)
    got, want = exchange(s, b'', blob(size))
    assert got == want, 'the file is another'
    s.close()
    rows = d.closed(2, 60)
    assert {r['end_reason'] for r in rows} == {'normal'}, rows
    assert rows[1]['bytes_in'] == rows[1]['bytes_out'] == len(data), rows


def blob(size):
    return hashlib.shake_128(b'blob').digest(size * MIB)


# A sanitizer build is slow: it sees each kind of link once.
@variants(scenario=list(SCENARIOS), family=['4', '6'] if SLOW == 1 else ['4'], offloads=[True, False] if SLOW == 1 else [False])
def test_link(lab, scenario, family):
    how, allowed, size = SCENARIOS[scenario]
    offloads = lab.offloads
    if 'damages' == scenario and offloads:
        raise Skip('a super-segment carries no checksum that could find it')
    if SLOW > 1:
        size = 1
    link = Link(lab, offloads, how)
    path = os.path.join(lab.dir, 'blob')
    with open(path, 'wb') as f:
        f.write(blob(size))
    d = lab.daemon(SERVICES.format(path))
    cap = lab.capture('server', 'v1', 'tcp and not port 22')
    transfer(lab, d, OURS[family], size, scenario + family)
    said = link.stop()
    captured = cap.stop()
    for key, did in (('loss=', 'lost'), ('burst=', 'lost'), ('dup=', 'doubled'), ('reorder=', 'held'), ('corrupt=', 'corrupted')):
        if key in how and not (did == 'corrupted' and offloads):
            assert sum(way[did] for way in said.values()), f'the link did not do its part: {said}'
    assert_sound(lab, captured, checksums=not offloads)
    if not offloads: # tshark's analysis knows no super-segments
        # What is damaged on its way to us looks strange in any way; nothing is on its way from us yet.
        assert_explained(lab, captured, allowed, FROM_US if 'corrupt=' in how else 'tcp')
    if 'corrupt=' in how and not offloads:
        packets = d.ctl('status')['packets']
        assert packets['bad_tcp_checksum'], packets


def read_for_ever(s):
    with contextlib.suppress(OSError):
        while s.recv(1 << 18):
            pass


def test_what_has_arrived_comes_before_a_timer_that_is_due(lab):
    """We stand still for longer than any timer. What wakes us first is not the link, where all that was sent is acknowledged."""
    Link(lab, True, 'delay=50000')
    d = lab.daemon('[Listener c]\nAddress=10.9.0.2:19\nService=chargen\n')
    s = lab.connect('10.9.0.2', 19, timeout=60)

    threading.Thread(target=read_for_ever, args=(s,), daemon=True).start()
    until(lambda: (c := d.connections()) and c[0]['bytes_out'] > 1_000_000, 20, 'text on its way')
    for i in range(3):
        d.proc.send_signal(signal.SIGSTOP)
        lab.sh('server', f'ip addr add 10.8.0.{i}/32 dev lo')
        time.sleep(1)
        d.proc.send_signal(signal.SIGCONT)
        sent = d.connections()[0]['bytes_out']
        until(lambda: d.connections()[0]['bytes_out'] > sent + 1_000_000, 20, 'more text')
    counters = d.ctl('status')['counters']
    assert counters['tlp_probes'] == counters['rto_expired'] == counters['retransmitted_segments'] == 0, counters


def test_a_neighbour_that_is_checked_costs_no_order(lab):
    """Now and then a segment goes the kernel's way, so that it asks whether the neighbour is still there. Those behind it wait."""
    Link(lab, True, 'delay=20000')
    d = lab.daemon('[Listener c]\nAddress=10.9.0.2:19\nService=chargen\nSendBuffer=512K\n')
    s = lab.connect('10.9.0.2', 19, timeout=60)
    mac = lab.sh('client', 'ip -br link show v0').split()[2]
    threading.Thread(target=read_for_ever, args=(s,), daemon=True).start()

    def goes_on():
        sent = d.connections()[0]['bytes_out']
        until(lambda: d.connections()[0]['bytes_out'] > sent + 1_000_000, 20, 'more text')
    goes_on()
    before = d.ctl('status')['links']['rawip']['frames_out']

    def asked():
        lab.sh('server', f'ip neigh replace 10.9.0.1 lladdr {mac} nud stale dev v1')
        return d.ctl('status')['links']['rawip']['frames_out'] >= before + 3
    until(asked, 20, "a super-segment the kernel's way")
    goes_on()
    counters = d.ctl('status')['counters']
    assert counters['fast_retransmits'] == 0, counters


@variants(family=['4', '6'], offloads=[True, False])
def test_loss_by_iptables(lab, family):
    """In both directions, by the kernel's own filter on the client's side."""
    tool = 'iptables' if family == '4' else 'ip6tables'
    for chain in ('raw -A PREROUTING', 'mangle -A POSTROUTING'):
        lab.sh('client', f'{tool} -t {chain} -p tcp -m statistic --mode random --probability 0.02 -j DROP')
    path = os.path.join(lab.dir, 'blob')
    with open(path, 'wb') as f:
        f.write(blob(1))
    d = lab.daemon(SERVICES.format(path))
    cap = lab.capture('server', 'v1', 'tcp')
    transfer(lab, d, OURS[family], 1, 'iptables' + family)
    captured = cap.stop()
    assert_sound(lab, captured, checksums=not lab.offloads)
    if not lab.offloads:
        assert_explained(lab, captured, AGAIN)


if __name__ == '__main__':
    run(globals())
