#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""relay: ordinary servers behind our TCP. file: a file to everybody."""
import hashlib
import os
import shutil
import socket
import struct
import threading
import time

from lab import SLOW, Skip, pump, read_all, run, until, variants


def relay(lab, backend, extra=''):
    return lab.daemon(f'[Listener x]\nAddress=*:80\nService=relay:{backend}\n{extra}\n[Tcp]\nMSL=100ms\n')


KINDS = ['kernel', 'unix', 'ours']


def listen_behind(lab, kind='kernel'):
    """A backend's listening socket, and how the relay writes it."""
    if kind == 'kernel':
        return lab.listen('127.0.0.1', 8080, ns='server'), '127.0.0.1:8080'
    if kind == 'ours':
        return lab.listen('10.9.0.1', 8080, ns='client'), 'tcpfsm:10.9.0.1:8080'
    path = f'{lab.dir}/backend.sock'
    backend = socket.socket(socket.AF_UNIX)
    backend.settimeout(10 * SLOW)
    lab.sockets.append(backend)
    backend.bind(path)
    backend.listen(64)
    return backend, f'unix:{path}'


def pair(lab, extra='', options='', kind='kernel'):
    """A client's socket, the backend's socket behind the relay, the daemon."""
    backend, text = listen_behind(lab, kind)
    d = relay(lab, f'{options}{text}', extra)
    c = lab.connect('10.9.0.2', 80)
    b = backend.accept()[0]
    b.settimeout(10 * SLOW)
    lab.sockets.append(b)
    return c, b, d


def accepted(d):
    """The connection that a relay has accepted, not the one that it may have opened."""
    return until(lambda: [x for x in d.connections() if x['local'].endswith(':80')], what='a connection')[0]


def abort(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    os.close(s.detach())


def assert_reset(s):
    try:
        got = s.recv(1)
        raise AssertionError(f'no reset but {got}')
    except ConnectionResetError:
        pass


@variants(kind=KINDS)
def test_octets_and_half_close_from_the_client(lab, kind):
    c, b, d = pair(lab, kind=kind)
    c.sendall(b'question')
    c.shutdown(socket.SHUT_WR)
    assert read_all(b) == b'question'
    assert accepted(d)['state'].lower().replace('-', '_') == 'close_wait', d.connections()
    # Both sides have chosen their segments, also where the connection to the backend is one of ours.
    for row in d.connections():
        shown = {r['key']: r['value'] for r in d.rpc('show.tcp', connection=row['id'])['tcp']}
        assert shown['Nagle'] == 'no', row
    b.sendall(b'a long answer' * 1000)
    b.close()
    assert read_all(c) == b'a long answer' * 1000
    c.close()
    row = d.closed(1)[0]
    assert row['end_reason'] == 'normal' and row['service'] == 'relay', row


@variants(kind=KINDS)
def test_half_close_from_the_backend(lab, kind):
    c, b, d = pair(lab, kind=kind)
    b.sendall(b'hello')
    b.shutdown(socket.SHUT_WR)
    assert read_all(c) == b'hello'
    c.sendall(b'still here')
    assert b.recv(100) == b'still here'
    c.close()
    assert read_all(b) == b''
    assert d.closed(1)[0]['end_reason'] == 'normal'


@variants(kind=['kernel', 'ours'], after=['nothing', 'text', 'much'])
def test_reset_by_the_client_reaches_the_backend(lab, kind, after):
    c, b, d = pair(lab, kind=kind)
    if after != 'nothing':
        c.sendall(b'x')
        assert b.recv(1) == b'x'
    if after == 'much':  # on its way in both directions, and read by nobody
        flood(c, b)
    abort(c)
    assert_reset_after_all(b)
    assert d.closed(1, 10, 'sport', '=', ':80')[0]['end_reason'] == 'reset_by_peer', d.closed(1)


@variants(kind=['kernel', 'ours'], after=['nothing', 'text', 'much'])
def test_reset_by_the_backend_reaches_the_client(lab, kind, after):
    c, b, d = pair(lab, kind=kind)
    if after != 'nothing':
        b.sendall(b'x')
        assert c.recv(1) == b'x'
    if after == 'much':
        flood(c, b)
    abort(b)
    assert_reset_after_all(c)
    assert d.closed(1, 10, 'sport', '=', ':80')[0]['end_reason'] == 'reset_by_service', d.closed(1)


def flood(*socks):
    for s in socks:
        s.settimeout(0.3)
        try:
            while True:
                s.send(bytes(1 << 16))
        except TimeoutError:
            s.settimeout(10 * SLOW)


def assert_reset_after_all(s):
    """What the kernel had got before may be read first."""
    try:
        while s.recv(1 << 20):
            pass
        raise AssertionError('an end, no reset')
    except ConnectionResetError:
        pass


@variants(kind=['kernel', 'ours'])
def test_answer_before_a_refused_upload_arrives(lab, kind):
    """A server answers 413, ends its direction and closes with text unread: the kernel sends FIN, then RST."""
    c, b, d = pair(lab, kind=kind)
    c.sendall(bytes(100_000))
    b.recv(1)
    b.sendall(b'413' * 10_000)
    b.shutdown(socket.SHUT_WR)
    until(lambda: 'FIN-WAIT-2' in lab.sh('client' if kind == 'ours' else 'server', 'ss -Htan'), what='its FIN has arrived')
    b.close()
    assert read_all(c, 30_000) == b'413' * 10_000
    c.sendall(b'more')
    until(lambda: not d.connections('state', 'established') and not d.connections('state', 'close-wait'), what='the end')


@variants(kind=['kernel', 'ours'])
def test_answer_cut_short_by_a_reset_does_not_look_whole(lab, kind):
    """The backend's kernel throws away what it has not sent yet: its RST comes before any FIN."""
    c, b, d = pair(lab, kind=kind)
    c.sendall(bytes(100_000))
    b.recv(1)
    b.sendall(b'413' * 300_000)
    b.shutdown(socket.SHUT_WR)
    b.close()
    try:
        assert len(read_all(c)) == 900_000, 'cut short, and a FIN behind it'
    except ConnectionResetError:
        assert d.closed(1, 10, 'sport', '=', ':80')[0]['end_reason'] == 'reset_by_service'


@variants(kind=KINDS)
def test_operator_reset_reaches_both(lab, kind):
    c, b, d = pair(lab, kind=kind)
    assert d.ctl_run('reset', 'connection', accepted(d)['id']).returncode == 0
    assert_reset(c)
    if kind == 'unix':
        assert b.recv(1) == b''  # which has no other way to say it
    else:
        assert_reset(b)


def test_operator_reset_of_the_far_side_reaches_both(lab):
    c, b, d = pair(lab, kind='ours')
    far = next(x for x in d.connections() if x['remote'] == '10.9.0.1:8080')
    assert d.ctl_run('reset', 'connection', far['id']).returncode == 0
    assert_reset(c)
    assert_reset(b)


@variants(kind=KINDS)
def test_back_pressure_towards_the_backend(lab, kind):
    c, b, d = pair(lab, 'ReceiveBuffer=64K\n', kind=kind)
    c.settimeout(1)
    sent = 0
    try:
        while sent < 200_000_000:
            sent += c.send(bytes(1 << 16))
    except TimeoutError:
        pass
    assert sent < 100_000_000, 'the backend does not read, yet the client goes on'
    assert 0 < accepted(d)['recv_queue_bytes'] <= 64 * 1024
    c.shutdown(socket.SHUT_WR)
    got = read_all(b)
    assert len(got) == sent, (len(got), sent)


@variants(kind=KINDS)
def test_back_pressure_towards_the_client(lab, kind):
    c, b, d = pair(lab, 'SendBuffer=64K\n', kind=kind)
    b.settimeout(1)
    sent = 0
    try:
        while sent < 200_000_000:
            sent += b.send(bytes(1 << 16))
    except TimeoutError:
        pass
    assert sent < 100_000_000, 'the client does not read, yet the backend goes on'
    assert accepted(d)['send_queue_bytes'] <= 64 * 1024
    b.close()
    assert len(read_all(c)) == sent


@variants(offloads=[True, False], kind=KINDS)
def test_bulk_both_ways_at_once_by_hash(lab, kind):
    """64 MiB in each direction at the same time, other octets in each."""
    size = 64 << 20 if SLOW == 1 else 8 << 20
    up, down = os.urandom(size), os.urandom(size)
    c, b, d = pair(lab, kind=kind)
    for s in (c, b):
        s.settimeout(60 * SLOW)
    got = []
    t = threading.Thread(target=lambda: got.append(pump(b, down)), daemon=True)
    t.start()
    assert hashlib.sha256(pump(c, up)).digest() == hashlib.sha256(down).digest()
    t.join(60 * SLOW)
    assert hashlib.sha256(got[0]).digest() == hashlib.sha256(up).digest()
    c.close()
    b.close()
    row = d.closed(1, 10, 'sport', '=', ':80')[0]
    assert (row['bytes_in'], row['bytes_out'], row['end_reason']) == (size, size, 'normal'), row


@variants(kind=KINDS)
def test_a_reader_that_stops_closes_the_window_end_to_end(lab, kind):
    """What is on its way is held in queues that have a limit; when the reader goes on, so does the writer."""
    c, b, d = pair(lab, 'ReceiveBuffer=64K\nSendBuffer=64K\n', kind=kind)
    data = os.urandom(30_000_000)
    sent = []

    def write():
        c.settimeout(60 * SLOW)
        for at in range(0, len(data), 10_000):
            c.sendall(data[at:at + 10_000])
            sent.append(at)
        c.shutdown(socket.SHUT_WR)
    threading.Thread(target=write, daemon=True).start()
    before = -1
    while before != len(sent):  # until it stands
        before = len(sent)
        time.sleep(0.5 * SLOW)
    assert before < len(data) / 10_000, 'nobody reads, yet the writer is done'
    for row in d.connections():
        assert row['recv_queue_bytes'] <= 64 * 1024 and row['send_queue_bytes'] <= 64 * 1024, row
    until(lambda: d.ctl('show', 'connection', accepted(d)['id'])['detail']['rcv_wnd_bytes'] < 1460, what='the window is closed')
    assert hashlib.sha256(read_all(b)).digest() == hashlib.sha256(data).digest()


@variants(backend=['127.0.0.1:8080', '[::1]:8080'])
def test_next_backend_and_none(lab, backend):
    d = relay(lab, f'127.0.0.1:8079,{backend},127.0.0.1:8081')
    try:
        assert_reset(lab.connect('10.9.0.2', 80))
    except ConnectionResetError:
        pass  # before connect() had returned
    row = d.closed(1)[0]
    assert row['end_reason'] == 'reset_by_service', row
    counters = d.ctl('status')['counters']
    assert counters['relay_failed'] == 3 and counters['services_refused'] == 1, counters
    host, port = backend.rsplit(':', 1)
    b = lab.listen(host.strip('[]'), int(port), ns='server')
    c = lab.connect('10.9.0.2', 80)
    c.sendall(b'x')
    assert b.accept()[0].recv(1) == b'x'
    assert d.ctl('status')['counters']['relay_connected'] == 1


@variants(dead=['10.9.0.77:80', 'tcpfsm:10.9.0.77:80'], kind=['kernel', 'ours'])
def test_connect_timeout_then_the_next(lab, dead, kind):
    lab.sh('server', 'ip neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev v1')  # nobody is there
    b, text = listen_behind(lab, kind)
    d = relay(lab, f'timeout=1s,{dead},{text}')
    c = lab.connect('10.9.0.2', 80)
    c.sendall(b'early')
    assert b.accept()[0].recv(5) == b'early'
    assert d.ctl('status')['counters']['relay_failed'] == 1
    rows = d.ctl('list', 'listeners')['listeners'][0]['backends']
    assert rows == [dict(backend=dead, connections=0, connected=0, failed=1, down=True),
                    dict(backend=text, connections=1, connected=1, failed=0, down=False)], rows
    c.close()
    b.settimeout(10 * SLOW)
    start = time.monotonic()
    c = lab.connect('10.9.0.2', 80)  # the one that failed is not waited for again
    c.sendall(b'late')
    assert b.accept()[0].recv(4) == b'late'
    assert d.ctl('status')['counters']['relay_failed'] == 1, time.monotonic() - start


def test_a_backend_has_a_limit_and_comes_back(lab):
    first, second = listen_behind(lab)[0], lab.listen('127.0.0.1', 8081, ns='server')
    d = relay(lab, 'max=2,down=300ms,127.0.0.1:8080,127.0.0.1:8081')
    held = [lab.connect('10.9.0.2', 80) for _ in range(4)]
    ends = [first.accept()[0] for _ in range(2)] + [second.accept()[0] for _ in range(2)]
    try:
        assert_reset(lab.connect('10.9.0.2', 80))
    except ConnectionResetError:
        pass  # before connect() had returned
    counters = d.ctl('status')['counters']
    assert counters['relay_full'] == 1 and counters['relay_failed'] == 0, counters
    held[0].close()
    ends[0].close()
    until(lambda: d.ctl('list', 'listeners')['listeners'][0]['backends'][0]['connections'] == 1, what='a free place')
    held.append(lab.connect('10.9.0.2', 80))
    ends.append(first.accept()[0])
    # It goes away, is tried behind the other, and is the first again soon after.
    for s in held + ends + [first]:
        s.close()
    until(lambda: not d.connections('state', 'established'), what='the end of all')
    c = lab.connect('10.9.0.2', 80)
    second.accept()[0].close()
    c.close()
    assert d.ctl('list', 'listeners')['listeners'][0]['backends'][0]['failed'] == 1
    first = lab.listen('127.0.0.1', 8080, ns='server')
    until(lambda: not d.ctl('list', 'listeners')['listeners'][0]['backends'][0]['down'], what='it is up again')
    lab.connect('10.9.0.2', 80)
    first.accept()[0].close()


def proxy_v1(line):
    word, family, source, destination, sport, dport = line.decode().rstrip('\r\n').split(' ')
    assert word == 'PROXY'
    return {'TCP4': 4, 'TCP6': 6}[family], source, int(sport), destination, int(dport)


def proxy_v2(b):
    head = b.recv(16, socket.MSG_WAITALL)
    assert head[:12] == b'\r\n\r\n\0\r\nQUIT\n' and head[12] == 0x21, head
    family = {0x11: socket.AF_INET, 0x21: socket.AF_INET6}[head[13]]
    size = 4 if family == socket.AF_INET else 16
    rest = b.recv(struct.unpack('!H', head[14:])[0], socket.MSG_WAITALL)
    assert len(rest) == 2 * size + 4
    source, destination = (socket.inet_ntop(family, rest[i:i + size]) for i in (0, size))
    sport, dport = struct.unpack('!HH', rest[2 * size:])
    return 4 if size == 4 else 6, source, sport, destination, dport


@variants(version=['v1', 'v2'], host=['10.9.0.2', 'fd09::2'], kind=['kernel', 'ours'])
def test_proxy_protocol(lab, version, host, kind):
    backend, text = listen_behind(lab, kind)
    relay(lab, f'proxy={version},{text}')
    c = lab.connect(host, 80)
    c.sendall(b'payload')
    b = backend.accept()[0]
    if version == 'v1':
        line = b''
        while not line.endswith(b'\r\n'):
            line += b.recv(1)
        got = proxy_v1(line)
    else:
        got = proxy_v2(b)
    family, client = (6, 'fd09::1') if ':' in host else (4, '10.9.0.1')
    assert got == (family, client, c.getsockname()[1], host, 80), got
    assert b.recv(7, socket.MSG_WAITALL) == b'payload'


def test_unix_backend(lab):
    path = f'{lab.dir}/backend.sock'
    backend = socket.socket(socket.AF_UNIX)
    lab.sockets.append(backend)
    backend.bind(path)
    backend.listen(8)
    d = relay(lab, f'unix:{path}')
    c = lab.connect('10.9.0.2', 80)
    b = backend.accept()[0]
    c.sendall(b'ping')
    assert b.recv(4) == b'ping'
    b.sendall(b'pong')
    b.close()
    assert read_all(c) == b'pong'
    c.close()
    assert d.closed(1)[0]['end_reason'] == 'normal'


def test_a_listener_of_ours_as_backend(lab):
    """The kernel connects to it over lo."""
    lab.daemon('[Listener echo]\nAddress=127.0.0.1:7\nService=echo\n'
               '[Listener x]\nAddress=10.9.0.2:80\nService=relay:127.0.0.1:7\n[Tcp]\nMSL=100ms\n')
    data = os.urandom(2_000_000)
    assert pump(lab.connect('10.9.0.2', 80, timeout=60), data) == data


def nginx(lab):
    if not shutil.which('nginx'):
        raise Skip('needs nginx')
    os.mkdir(f'{lab.dir}/www')
    os.chmod(lab.dir, 0o755)
    with open(f'{lab.dir}/www/big', 'wb') as f:
        f.write(os.urandom(5_000_000))
    with open(f'{lab.dir}/nginx.conf', 'w') as f:
        f.write(f'daemon off; master_process off; pid {lab.dir}/nginx.pid; error_log {lab.dir}/nginx.log;\n'
                f'events {{}}\nhttp {{ access_log off; client_body_temp_path {lab.dir}/b; proxy_temp_path {lab.dir}/p;\n'
                f'fastcgi_temp_path {lab.dir}/f; uwsgi_temp_path {lab.dir}/u; scgi_temp_path {lab.dir}/s;\n'
                f'server {{ listen 127.0.0.1:8080 proxy_protocol; root {lab.dir}/www;\n'
                f'add_header X-Client "$proxy_protocol_addr:$proxy_protocol_port"; }} }}\n')
    p = lab.popen('server', ['nginx', '-e', f'{lab.dir}/nginx.log', '-c', f'{lab.dir}/nginx.conf'])

    def up():
        assert p.poll() is None, open(f'{lab.dir}/nginx.log').read()
        return lab.sh('server', 'ss -Hltn sport = 8080')
    until(up, 10, 'nginx listens')
    return f'{lab.dir}/www/big'


@variants(version=['v1', 'v2'])
def test_nginx_behind_it_knows_the_client(lab, version):
    big = nginx(lab)
    relay(lab, f'proxy={version},127.0.0.1:8080')
    r = lab.run('client', ['curl', '-sS', '--max-time', '30', '-D', f'{lab.dir}/head', '-o', f'{lab.dir}/got', '--local-port', '40123',
                           'http://10.9.0.2/big'])
    assert r.returncode == 0
    assert open(f'{lab.dir}/got', 'rb').read() == open(big, 'rb').read()
    assert 'X-Client: 10.9.0.1:40123' in open(f'{lab.dir}/head').read()


def test_a_thousand_connections_leave_nothing(lab):
    backend = lab.listen('127.0.0.1', 8080, ns='server', backlog=512)

    def serve():
        try:
            while True:
                b = backend.accept()[0]
                b.sendall(b.recv(100))
                b.close()
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
    d = relay(lab, '127.0.0.1:8080')
    before = len(os.listdir(f'/proc/{d.proc.pid}/fd'))
    for i in range(1000):
        c = lab.connect('10.9.0.2', 80)
        c.sendall(b'%d' % i)
        assert read_all(c) == b'%d' % i
        c.close()
    until(lambda: not d.connections(), 20, 'all connections end')
    until(lambda: len(os.listdir(f'/proc/{d.proc.pid}/fd')) <= before + 1, what=f'no more descriptors than before, {before}')
    assert d.ctl('status')['counters']['relay_connected'] == 1000


@variants(offloads=[True, False])
def test_a_file_goes_to_everybody(lab):
    data = os.urandom(8_000_000)
    path = f'{lab.dir}/file'
    with open(path, 'wb') as f:
        f.write(data)
    d = lab.daemon(f'[Listener f]\nAddress=*:80\nService=file:{path}\n[Tcp]\nMSL=100ms\nSendBuffer=128K\n')
    slow = lab.connect('10.9.0.2', 80)
    slow.sendall(b'GET / HTTP/1.0\r\n\r\n')
    for _ in range(3):
        assert read_all(lab.connect('10.9.0.2', 80)) == data
    assert d.connections('state', 'established')[0]['send_queue_bytes'] <= 128 * 1024
    assert read_all(slow) == data
    slow.close()
    os.unlink(path)
    try:
        assert_reset(lab.connect('10.9.0.2', 80))
    except ConnectionResetError:
        pass  # before connect() had returned


if __name__ == '__main__':
    run(globals())
