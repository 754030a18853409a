#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Floods: memory stays what it is, the record is not filled by strangers, and honest peers are served."""
import contextlib
import json
import os
import resource
import socket
import subprocess
import time

from lab import BUILD, SLOW, pump, run, until, variants

FLOOD = BUILD / 'tests' / 'bench' / 'bench_flood'
resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
SERVICES = '''
[Daemon]
MaxConnections=5000
BufferMemory=64MiB
[Tcp]
MSL=100ms
[Listener echo]
Address=*:7
Service=echo
Backlog=64
'''


GROWTH = (8 << 20) * (32 if SLOW > 1 else 1)  # a sanitizer keeps what was freed, up to 256 MiB


def rss(d):
    """Octets of memory that the daemon has."""
    text = open(f'/proc/{d.proc.pid}/status').read()
    return int(text.split('VmRSS:')[1].split()[0]) * 1024


def link(lab):
    """Answers to nobody's addresses leave by the veth, and end there. The server's MAC."""
    mac = {ns: json.loads(lab.sh(ns, f'ip -j link show {dev}'))[0]['address'] for ns, dev in (('client', 'v0'), ('server', 'v1'))}
    lab.sh('server', f'ip route add 10.66.0.0/16 via 10.9.0.1; ip neigh replace 10.9.0.1 lladdr {mac["client"]} dev v1')
    return mac['server']


@contextlib.contextmanager
def flood(lab, port, flags=2, rate=10_000, seconds=60):
    mac = link(lab)
    p = lab.popen('client', [str(FLOOD), 'v0', mac, '10.9.0.2', str(port), str(seconds), str(flags), str(rate)],
                  stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        p.kill()
        p.wait()


def ask(lab, n, size=20_000):
    """n connections, one after the other, each with octets both ways. Most are served at once; some may have to send a SYN
    again, once or twice, which met a full ring while the daemon was not running."""
    took = []
    for _ in range(n):
        t = time.monotonic()
        with lab.connect('10.9.0.2', 7, timeout=20) as s:
            data = os.urandom(size)
            assert pump(s, data) == data
        took.append(time.monotonic() - t)
    took.sort()
    assert took[n // 2] < 0.9 * SLOW and took[-1] < 10 * SLOW, took


def test_syn_flood_on_a_served_port(lab):
    d = lab.daemon(SERVICES)
    ask(lab, 10)
    with flood(lab, 7):
        until(lambda: d.ctl('status')['counters']['syn_cookies_sent'] > 10_000, 30, 'cookies')
        before = rss(d)
        ask(lab, 60)
        got = d.ctl('status')['counters']
        assert got['syn_cookies_accepted'] >= 50, got
        assert got['syn_cookies_refused'] < 20, got  # what comes late, after a connection's end
        assert d.ctl('status')['connections'] <= 64 + 60
        assert rss(d) - before < GROWTH, (before, rss(d))
        # What it agreed on without a record: as good as any other connection.
        s = lab.connect('10.9.0.2', 7)
        s.sendall(b'x')
        s.recv(1)
        c = d.connections('state', 'established')[0]
        shown = {**(row := d.ctl('show', 'connection', c['id'])), **row['detail']}
        assert shown['timestamps'] is True and shown['window_scaling'] and shown['snd_mss_bytes'] == 1448, shown
    # Half-open strangers: as many rows as there were records, not as there were SYNs.
    strangers = [r for r in d.connections() if r['state'] == 'syn_received']
    assert len(strangers) <= 64, len(strangers)
    ask(lab, 10)


def test_syn_flood_that_is_faster_than_answers(lab):
    """All that a core can send. Who was here before notices little; who is new has to send his SYN again."""
    d = lab.daemon(SERVICES)
    lab.sh('client', 'ip addr add 10.9.0.77/24 dev v0')
    ask(lab, 3)
    with flood(lab, 7, rate=0):
        until(lambda: d.ctl('status')['counters']['syns_shed'] > 10_000, 60, 'SYNs that are not answered')
        before = rss(d)
        took = []
        for _ in range(40):
            start = time.monotonic()
            with lab.connect('10.9.0.2', 7, timeout=20) as s:
                assert pump(s, b'x' * 1000) == b'x' * 1000
            took.append(time.monotonic() - start)
        # One of them may have met a full ring while the daemon was not running.
        assert sorted(took)[len(took) * 3 // 4] < 0.5 * SLOW, took
        s = lab.socket(timeout=20)
        s.bind(('10.9.0.77', 0))
        s.connect(('10.9.0.2', 7))
        assert pump(s, b'new') == b'new'
        assert rss(d) - before < GROWTH, (before, rss(d))


def test_syn_flood_that_resets(lab):
    """Records are free again at once, so that each SYN takes one: the database must not be filled by that."""
    d = lab.daemon(SERVICES)
    lab.sh('client', 'ip route add local 10.66.0.0/16 dev lo')  # the kernel answers for them: by RST
    start = time.monotonic()
    with flood(lab, 7, rate=5000):
        until(lambda: d.ctl('status')['counters']['strangers_unrecorded'] > 3000, 60, 'strangers')
        ask(lab, 30)
    status = until(lambda: (s := d.ctl('status')) and s['record']['queue'] == 0 and s, 20, 'the record is written')
    seconds = time.monotonic() - start
    # Begin and end of each that is recorded, and two transitions; all of those that were served.
    assert status['record']['rows_dropped'] == 0
    assert status['record']['rows_written'] < 4 * (4096 + 100 * (seconds + 1)) + 30 * 12, status['record']
    assert status['counters']['passive_opens'] == 30


@variants(flags=[1, 4, 0x10, 0x11, 0x14, 0])  # FIN, RST, ACK, FIN-ACK, RST-ACK, nothing
def test_flood_of_what_belongs_to_no_connection(lab, flags):
    d = lab.daemon(SERVICES)
    ask(lab, 5)
    before = rss(d)
    with flood(lab, 7, flags):
        until(lambda: d.ctl('status')['counters']['drop_listen_other'] > 5000, 60, 'the flood')
        ask(lab, 20)
        got = d.ctl('status')['counters']
        assert rss(d) - before < GROWTH
    assert d.ctl('status')['states']['syn_received'] == 0
    # Only what acknowledges something is answered, and never a RST.
    answered = bool(flags & 0x10 and not flags & 4)
    assert (got['resets_out'] > 1000) == answered, got
    assert got['resets_out'] <= got['drop_listen_other'] + 25


def test_sockstress(lab):
    """Zero windows by the thousand: each is probed, none holds more than its share, and others are served."""
    d = lab.daemon(SERVICES + '[Listener chargen]\nAddress=*:19\nService=chargen\nSendBuffer=64KiB\n')
    hogs = []
    for _ in range(1500):
        s = lab.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        s.connect(('10.9.0.2', 19))
        hogs.append(s)
    until(lambda: d.ctl('status')['counters']['zero_window_probes'] > 100, 30, 'closed windows')
    before = rss(d)
    ask(lab, 50)
    assert d.ctl('status')['counters']['chunks_used'] * 16384 <= 64 << 20
    assert rss(d) - before < 2 * GROWTH and (SLOW > 1 or rss(d) < 200 << 20), rss(d)
    for s in hogs:
        s.close()
    until(lambda: d.ctl('status')['connections'] == 0, 30, 'nothing is left')


if __name__ == '__main__':
    run(globals())
