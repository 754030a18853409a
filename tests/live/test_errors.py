#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bad input gets: one clear line, a non-zero exit, nothing left behind."""
import os
import pathlib
import random
import socket
import sqlite3
import struct

from lab import TCPFSMD, pump, run, until

ECHO = '[Listener e]\nAddress=10.9.0.2:7\nService=echo\n'


def fails(lab, config, *words, args=(), env=(), prefix=(), prepare=None):
    """tcpfsmd refuses to start, says so in one line that has these words, and leaves nothing behind."""
    base = pathlib.Path(lab.dir) / f'f{random.getrandbits(40):x}'
    for name in ('run', 'state'):
        (base / name).mkdir(parents=True)
    conf = base / 'tcpfsmd.conf'
    if config is not None:
        conf.write_text(config)
    if prepare:
        prepare(base)
    e = dict(os.environ, RUNTIME_DIRECTORY=str(base / 'run'), STATE_DIRECTORY=str(base / 'state'))
    e.update(env)
    r = lab.run('server', [*prefix, str(TCPFSMD), '-c', str(conf), *args], check=False, env=e)
    assert r.returncode not in (0, None) and r.returncode > 0, (r.returncode, r.stderr)
    lines = [line for line in r.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, f'not one line: {r.stderr}'
    for w in words:
        assert w in lines[0], f'no {w!r} in {lines[0]!r}'
    left = [line for line in lab.rules().splitlines() if str(base) in line]
    assert not left, f'rules left behind: {left}'
    assert not list((base / 'run').glob('*.sock')), 'a socket is left'
    return lines[0]


def test_wrong_configuration(lab):
    fails(lab, '[Tcp]\nMSL=banana\n', 'tcpfsmd.conf:2', 'MSL', 'banana')
    fails(lab, '[Tcp]\nInitialWindow=0\n', 'tcpfsmd.conf:2', 'InitialWindow')
    fails(lab, '[Daemon]\nLocalPorts=9-5\n', 'tcpfsmd.conf:2', 'LocalPorts')
    fails(lab, '[Listener x]\nAddress=10.9.0.2:99999\nService=echo\n', 'tcpfsmd.conf:2', 'Address')
    fails(lab, '[Listener x]\nAddress=10.9.0.2:7\nService=nonsense\n', 'nonsense', 'echo')
    fails(lab, '[Listener x]\nAddress=10.9.0.2:7\n', 'Service')
    fails(lab, ECHO + ECHO.replace(' e]', ' f]'), '10.9.0.2:7')
    fails(lab, None, 'tcpfsmd.conf', 'No such file')
    fails(lab, '', 'Tcp.MSL=never', args=['-o', 'Tcp.MSL=never'])
    fails(lab, '', '--no-such-option', args=['--no-such-option'])


def test_check_and_print_config(lab):
    conf = pathlib.Path(lab.dir) / 'c.conf'
    conf.write_text('[Tcp]\nMSL=5s\nNoSuchKey=1\n' + ECHO)
    r = lab.run('server', [str(TCPFSMD), '-c', str(conf), '--check'])
    assert 'c.conf:3' in r.stderr and 'NoSuchKey' in r.stderr, r
    first = lab.run('server', [str(TCPFSMD), '-c', str(conf), '--print-config']).stdout
    assert 'c.conf:2' in first and 'MSL=5s' in first, first
    conf.write_text(first)
    second = lab.run('server', [str(TCPFSMD), '-c', str(conf), '--print-config']).stdout

    def strip(text):
        return [line.split('#')[0].strip() for line in text.splitlines() if line.split('#')[0].strip()]
    assert strip(first) == strip(second)


def test_no_capabilities(lab):
    fails(lab, ECHO, 'CAP_NET_ADMIN', prefix=['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin'])
    fails(lab, ECHO, 'CAP_NET_RAW', prefix=['setpriv', '--bounding-set', '-net_raw', '--inh-caps', '-net_raw'])


def test_no_iptables(lab):
    """Nothing of that name can be run: hidden in a mount namespace of the daemon's own."""
    hide = ('for d in /usr/sbin /sbin; do for f in $d/*tables* $d/xtables*; do [ ! -e "$f" ] || mount --bind /dev/null "$f"; done; done;'
            ' exec "$@"')
    fails(lab, ECHO, 'iptables', prefix=['unshare', '--mount', 'sh', '-c', hide, 'sh'])


def test_no_such_directories(lab):
    fails(lab, '', '/proc/nowhere', env={'RUNTIME_DIRECTORY': '/proc/nowhere'})
    fails(lab, '', '/proc/nowhere', env={'STATE_DIRECTORY': '/proc/nowhere'})


def test_second_daemon_on_the_same_directory(lab):
    d = lab.daemon(ECHO)
    e = dict(os.environ, RUNTIME_DIRECTORY=str(d.run), STATE_DIRECTORY=lab.dir)
    r = lab.run('server', [str(TCPFSMD), '-c', str(d.conf)], check=False, env=e)
    assert r.returncode > 0 and str(d.run) in r.stderr and str(d.proc.pid) in r.stderr, r
    assert len(r.stderr.splitlines()) == 1, r.stderr
    assert pump(lab.connect('10.9.0.2', 7), b'alive') == b'alive'


def test_databases_that_cannot_be_used(lab):
    def corrupt(base):
        (base / 'state' / 'tcpfsmd.db').write_bytes(b'this is no database at all, is it?' * 100)
    fails(lab, ECHO, 'tcpfsmd.db', prepare=corrupt)

    def newer(base):
        with sqlite3.connect(base / 'state' / 'tcpfsmd.db') as c:
            c.execute('create table connection (id integer primary key)')
            c.execute('pragma user_version=999')
            app = c.execute('pragma application_id')
            app.fetchall()
    fails(lab, ECHO, 'tcpfsmd.db', prepare=newer)
    d = lab.daemon('[Daemon]\nLocalPorts=61000-61999\n' + ECHO)
    fails(lab, f'[Daemon]\nLocalPorts=65000-65100\n[Storage]\nDatabase={d.state}/tcpfsmd.db\n', 'tcpfsmd.db')
    text = (d.state / 'tcpfsmd.db')
    d.stop()
    with sqlite3.connect(text) as c:
        version = c.execute('pragma user_version').fetchone()[0]
        c.execute(f'pragma user_version={version + 1}')
    fails(lab, f'[Storage]\nDatabase={text}\n', 'newer')


def test_a_database_of_the_first_version(lab):
    """Converted at start: it is said, systemd is told to wait, and what connections went through is still there."""
    d = lab.daemon(ECHO)
    assert pump(lab.connect('10.9.0.2', 7), b'alive') == b'alive'
    closed = until(lambda: d.rpc('list.connections', closed=True)['connections'], what='an ended connection')
    before = d.ctl('show', 'transitions', closed[0]['id'])
    file = d.state / 'tcpfsmd.db'
    d.stop()
    with sqlite3.connect(file) as c:
        c.executescript('''create table old(connection integer not null, n integer not null, at_us integer not null,
            from_state text not null, to_state text not null, cause text not null, detail integer not null, rule text not null,
            seq integer, ack integer, primary key(connection, n)) strict, without rowid;
            insert into old select connection, 10 * n + 3, at_us, from_state, to_state, cause, detail, rule, seq, ack from transition;
            drop view transition; drop table history; drop table transition_kind;
            alter table old rename to transition; pragma user_version=1;''')
    d = lab.daemon(ECHO, args=['-o', f'Storage.Database={file}'])
    assert 'EXTEND_TIMEOUT_USEC=' in d.messages and 'converting' in d.messages, d.messages
    assert f'{file}: converting' in d.log.read_text(), d.log.read_text()
    assert d.ctl('show', 'transitions', closed[0]['id']) == before


def test_full_disk_does_not_stop_tcp(lab):
    small = pathlib.Path(lab.dir) / 'small'
    small.mkdir()
    mount = f'mount -t tmpfs -o size=400k small {small} && exec "$@" -o Storage.Database={small}/tcpfsmd.db'
    d = lab.daemon(ECHO, prefix=['unshare', '--mount', 'sh', '-c', mount, 'sh'])
    record = None
    for _ in range(60):
        for _ in range(50):
            s = lab.connect('10.9.0.2', 7)
            s.sendall(b'x')
            assert s.recv(1) == b'x'
            s.close()
        record = d.ctl('status')['record']
        if record['errors']:
            break
    assert record['errors'] and 'full' in record['last_error'], record
    until(lambda: 'full' in d.log.read_text(), 5, 'a line in the log')
    assert pump(lab.connect('10.9.0.2', 7), b'tcp goes on') == b'tcp goes on'


def raw_tcp(lab, sport, dport, seq, flags, payload=b'', options=b'', offset=None, checksum=None, cut=None):
    """One hand-made segment from the client namespace."""
    src, dst = socket.inet_aton('10.9.0.1'), socket.inet_aton('10.9.0.2')
    off = (20 + len(options)) // 4 if offset is None else offset

    def header(c):
        return struct.pack('!HHIIBBHHH', sport, dport, seq, 0, off << 4, flags, 65535, c, 0) + options
    body = header(0) + payload
    pseudo = src + dst + struct.pack('!BBH', 0, 6, len(body))
    data = pseudo + body + (b'\0' if len(body) % 2 else b'')
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    segment = header(~total & 0xffff if checksum is None else checksum) + payload
    if cut is not None:
        segment = segment[:cut]
    s = lab.socket(kind=socket.SOCK_RAW, proto=socket.IPPROTO_TCP)
    s.sendto(segment, ('10.9.0.2', 0))
    s.close()


def test_broken_segments_are_counted_by_reason(lab):
    for ns, dev in (('client', 'v0'), ('server', 'v1')):
        lab.sh(ns, f'ethtool -K {dev} tx off rx off >/dev/null')
    d = lab.daemon(ECHO)
    raw_tcp(lab, 1000, 7, 1, 2, checksum=0x1234)
    raw_tcp(lab, 1000, 7, 1, 2, offset=3)
    raw_tcp(lab, 1000, 7, 1, 2, offset=15)
    raw_tcp(lab, 1000, 7, 1, 2, cut=12)

    def counted(key, n):
        until(lambda: d.ctl('status')['packets'][key] >= n, 5, f'{key} {n}')
    counted('bad_tcp_checksum', 1)
    counted('bad_tcp_offset', 2)
    counted('truncated_tcp', 1)
    for options in (b'\x02\x00\x00\x00', b'\x02\x01\x00\x00', b'\x02\xff\x00\x00', b'\x08\x0a\x00\x00', b'\xfd\x28' + bytes(38)):
        raw_tcp(lab, 1001, 7, 1, 2, options=options)
    random.seed(7)
    for _ in range(300):
        raw_tcp(lab, random.randrange(65536), 7, random.getrandbits(32), random.getrandbits(8), random.randbytes(random.randrange(40)),
                random.randbytes(4 * random.randrange(11)))
    assert pump(lab.connect('10.9.0.2', 7), b'undisturbed') == b'undisturbed'


if __name__ == '__main__':
    run(globals())
