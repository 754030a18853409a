#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs over tcpfsmd (tcpfsmctl run), against kernel peers and against each other."""
import contextlib
import hashlib
import json
import os
import pathlib
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from lab import BUILD, SLOW, TCPFSMCTL, Skip, read_all, run, until, variants

CONF = '[Tcp]\nMSL=100ms\nSynTimeout=3s\n'
SIZE = 12 << 20


def need(program):
    if not shutil.which(program):
        raise Skip(f'needs {program}')


def over(d, *argv, only=None):
    """The command line that runs argv over the daemon."""
    return [str(TCPFSMCTL), '-s', str(d.run / 'control.sock'), 'run', *(['--only', only] if only else []), '--', *map(str, argv)]


def blob(lab, name='blob', size=SIZE):
    path = pathlib.Path(lab.dir) / name
    path.write_bytes(os.urandom(size))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def wait_listener(d, port):
    until(lambda: any(l['address'].endswith(f':{port}') for l in d.ctl('list', 'listeners')['listeners']), 15, f'a listener at {port}')


def wait_kernel(lab, ns, port):
    until(lambda: f':{port} ' in lab.sh(ns, 'ss -Hltn'), 15, f'a kernel listener at {port}')


def served(d, n=1):
    """Streams that ended: it was our TCP that carried them, and not the kernel's."""
    rows = d.closed(n)
    assert all(r['service'] == 'stream' for r in rows), rows
    return rows


HTTP = [sys.executable, '-m', 'http.server', '--bind']


@variants(host=['10.9.0.1', '[fd09::1]'])
def test_curl_from_a_kernel_server(lab, host):
    d = lab.daemon(CONF)
    path, want = blob(lab)
    lab.popen('client', [*HTTP, '::', '8080', '--directory', lab.dir], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_kernel(lab, 'client', 8080)
    got = f'{lab.dir}/got'
    lab.run('server', over(d, 'curl', '-sS', '--max-time', '60', '-o', got, f'http://{host}:8080/{path.name}'))
    assert digest(got) == want
    assert served(d)[0]['end_reason'] == 'normal'


@variants(host=['10.9.0.2', '[fd09::2]'])
def test_http_server_to_kernel_clients(lab, host):
    d = lab.daemon(CONF)
    path, want = blob(lab)
    p = lab.popen('server', over(d, *HTTP, '::', '8080', '--directory', lab.dir), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_listener(d, 8080)
    assert ':8080' not in lab.sh('server', 'ss -Hltn'), 'the kernel listens'
    gets = [lab.popen('client', ['curl', '-sS', '--max-time', '60', '-o', f'{lab.dir}/got{i}', f'http://{host}:8080/{path.name}'])
            for i in range(4)]
    for i, g in enumerate(gets):
        assert g.wait(90) == 0
        assert digest(f'{lab.dir}/got{i}') == want
    served(d, 4)
    p.kill()
    p.wait()
    until(lambda: not d.ctl('list', 'listeners')['listeners'], 10, 'its listener goes with it')


def test_both_sides_over_one_daemon(lab):
    d = lab.daemon(CONF)
    path, want = blob(lab)
    lab.popen('server', over(d, *HTTP, '10.9.0.2', '8080', '--directory', lab.dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_listener(d, 8080)
    lab.run('server', over(d, 'curl', '-sS', '--max-time', '60', '-o', f'{lab.dir}/got', f'http://10.9.0.2:8080/{path.name}'))
    assert digest(f'{lab.dir}/got') == want
    served(d, 2)


def test_nc_listens(lab):
    need('nc')
    d = lab.daemon(CONF)
    path, want = blob(lab)
    with open(f'{lab.dir}/got', 'wb') as out:
        p = lab.popen('server', over(d, 'nc', '-l', '9000'), stdin=subprocess.DEVNULL, stdout=out)
        wait_listener(d, 9000)
        lab.sh('client', f'nc -N 10.9.0.2 9000 < {path}')
        assert p.wait(30) == 0
    assert digest(f'{lab.dir}/got') == want


def test_nc_connects(lab):
    need('nc')
    d = lab.daemon(CONF)
    path, want = blob(lab)
    with open(f'{lab.dir}/got', 'wb') as out:
        p = lab.popen('client', ['nc', '-l', '9000'], stdin=subprocess.DEVNULL, stdout=out)
        wait_kernel(lab, 'client', 9000)
        with open(path, 'rb') as src:
            lab.run('server', over(d, 'nc', '-N', '10.9.0.1', '9000'), stdin=src)
        assert p.wait(30) == 0
    assert digest(f'{lab.dir}/got') == want


def test_socat_forks_and_executes(lab):
    """The accepted descriptor is used by another program, after fork and exec."""
    need('socat')
    d = lab.daemon(CONF)
    lab.popen('server', over(d, 'socat', 'TCP-LISTEN:9000,reuseaddr,fork', 'EXEC:cat,nofork'), stderr=subprocess.DEVNULL)
    wait_listener(d, 9000)
    for i in range(5):
        s = lab.connect('10.9.0.2', 9000)
        s.sendall(b'round %d' % i)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b'round %d' % i
    served(d, 5)


def test_a_port_of_ipv6_alone_leaves_that_of_ipv4(lab):
    """IPV6_V6ONLY: the kernel serves the port by IPv4, the program by IPv6."""
    d = lab.daemon(CONF)
    kernel = lab.listen('0.0.0.0', 9000, ns='server')
    p = lab.popen('server', python(lab, d, '''
import socket
l = socket.socket(socket.AF_INET6)
l.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
l.bind(('::', 9000))
l.listen()
print('ready', flush=True)
l.accept()[0].sendall(b'ours')
input()
'''), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'ready\n'
    assert [l['address'] for l in d.ctl('list', 'listeners')['listeners']] == ['[*]:9000']
    s = lab.connect('10.9.0.2', 9000)
    kernel.accept()[0].sendall(b"the kernel's")
    assert s.recv(100) == b"the kernel's"
    with lab.connect('fd09::2', 9000) as s6:
        assert s6.recv(100) == b'ours'
    d.ctl('unlisten', '[*]:9000')
    assert not [l for l in d.ctl('list', 'listeners')['listeners'] if not l['draining']]


HANDED_ON = '''
import os, socket, struct, sys
S, T, V6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IPV6
def linger(s, on): s.setsockopt(S, socket.SO_LINGER, struct.pack('ii', on, 0))
def execute(s, step):
    s.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], sys.argv[1], step, str(s.fileno())])
if len(sys.argv) == 2:
    l = socket.socket(socket.AF_INET6)
    l.setsockopt(V6, socket.IPV6_V6ONLY, 1)
    l.setsockopt(T, socket.TCP_NODELAY, 1)
    linger(l, 1)
    l.bind(('::', 9000))
    l.listen()
    execute(l, 'listen')
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, int(sys.argv[3]))
print(struct.unpack('ii', s.getsockopt(S, socket.SO_LINGER, 8)), end=' ')
if sys.argv[2] == 'listen':
    print(s.getsockopt(V6, socket.IPV6_V6ONLY), end=' ')
    s.setsockopt(S, socket.SO_KEEPALIVE, 1)
    print('listens', flush=True)
    s.accept()[0].close()
    c = s.accept()[0]
    c.setsockopt(T, socket.TCP_NODELAY, 0)
    c.setsockopt(T, socket.TCP_CORK, 1)
    c.send(b'x')
    execute(c, 'talk')
s.setsockopt(T, socket.TCP_CORK, 0)
linger(s, 0)
print('talks', flush=True)
sys.stdin.read()
'''


def test_options_of_what_is_handed_on(lab):
    """By exec: a listener of IPv6 alone is that still, and what is set of it, or of a connection, is told as ever."""
    d = lab.daemon(CONF)
    p = lab.popen('server', over(d, sys.executable, '-c', HANDED_ON, HANDED_ON), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == '(1, 0) 1 listens\n'
    shown = {r['key']: r['value'] for r in d.rpc('show.tcp', listener='[*]:9000')['tcp']}
    assert (shown['Nagle'], shown['KeepAlive']) == ('no', 'yes'), shown
    end = None
    try:
        with lab.connect('fd09::2', 9000) as s:
            end = s.recv(1)
    except ConnectionResetError:
        pass
    assert end is None, 'it lingers as its listener'
    s = lab.connect('fd09::2', 9000)
    assert p.stdout.readline() == '(1, 0) talks\n'
    assert s.recv(1) == b'x'
    shown = {r['key']: r['value'] for r in d.rpc('show.tcp', connection=d.connections('state', 'established')[0]['id'])['tcp']}
    assert (shown['Nagle'], shown['Cork'], shown['KeepAlive']) == ('yes', 'no', 'yes'), shown
    p.stdin.close()
    assert s.recv(1) == b'', 'an end, and no reset any more'


def test_wget(lab):
    need('wget')
    d = lab.daemon(CONF)
    path, want = blob(lab)
    lab.popen('client', [*HTTP, '10.9.0.1', '8080', '--directory', lab.dir], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_kernel(lab, 'client', 8080)
    lab.run('server', over(d, 'wget', '-q', '-O', f'{lab.dir}/got', f'http://10.9.0.1:8080/{path.name}'))
    assert digest(f'{lab.dir}/got') == want


def test_nginx_with_workers(lab):
    """The listening descriptor is shared by processes, and polled by epoll."""
    need('nginx')
    d = lab.daemon(CONF)
    path, want = blob(lab)
    os.chmod(lab.dir, 0o755)
    conf = pathlib.Path(lab.dir) / 'nginx.conf'
    conf.write_text(f'''daemon off; user root; worker_processes 2; pid {lab.dir}/nginx.pid; error_log {lab.dir}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; client_body_temp_path {lab.dir}/b; proxy_temp_path {lab.dir}/p; fastcgi_temp_path {lab.dir}/f;
uwsgi_temp_path {lab.dir}/u; scgi_temp_path {lab.dir}/s; server {{ listen 8080; root {lab.dir}; }} }}\n''')
    p = lab.popen('server', over(d, shutil.which('nginx'), '-c', conf, '-e', f'{lab.dir}/error.log'), stderr=subprocess.PIPE)
    wait_listener(d, 8080)
    gets = [lab.popen('client', ['curl', '-sS', '--max-time', '60', '-o', f'{lab.dir}/got{i}', f'http://10.9.0.2:8080/{path.name}'])
            for i in range(8)]
    for i, g in enumerate(gets):
        assert g.wait(90) == 0, pathlib.Path(lab.dir, 'error.log').read_text()
        assert digest(f'{lab.dir}/got{i}') == want
    p.send_signal(signal.SIGQUIT)
    p.wait(20)


def python(lab, d, code, *args, ns='server', **kw):
    path = pathlib.Path(lab.dir) / f'prog{abs(hash(code)) % 10**8}.py'
    path.write_text(code)
    return over(d, sys.executable, path, *args, **kw) if d else [sys.executable, str(path), *args]


ASYNC_ECHO = '''
import asyncio, sys
async def serve(r, w):
    while data := await r.read(65536):
        w.write(data)
        await w.drain()
    w.close()
async def main():
    s = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    print('ready', flush=True)
    async with s:
        await s.serve_forever()
asyncio.run(main())
'''
ASYNC_CLIENT = '''
import asyncio, hashlib, os, sys
async def one(i):
    data = os.urandom(300000 + i)
    r, w = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    async def feed():
        w.write(data)
        await w.drain()
        w.write_eof()
    t = asyncio.create_task(feed())
    got = await r.read()
    await t
    w.close()
    assert got == data, (len(got), len(data))
async def main():
    await asyncio.gather(*(one(i) for i in range(40)))
asyncio.run(main())
print('fine')
'''


@variants(ours=['server', 'client'])
def test_asyncio(lab, ours):
    d = lab.daemon(CONF)
    there, back = ('server', 'client') if ours == 'server' else ('client', 'server')
    host = '10.9.0.2' if ours == 'server' else '10.9.0.1'
    p = lab.popen(there, python(lab, d if ours == 'server' else None, ASYNC_ECHO, host, '9000'), stdout=subprocess.PIPE)
    assert p.stdout.readline() == b'ready\n'
    r = lab.run(back, python(lab, d if ours == 'client' else None, ASYNC_CLIENT, host, '9000'))
    assert r.stdout == 'fine\n', r.stderr
    served(d, 40)
    p.kill()


ERRORS = '''
import errno, select, socket, struct, sys
def fails(f, *names):
    try:
        got = f()
    except OSError as e:
        assert errno.errorcode[e.errno] in names, (errno.errorcode[e.errno], names)
    else:
        raise AssertionError(('no error', got, names))
s = socket.socket()
fails(lambda: s.connect(('10.9.0.1', 1)), 'ECONNREFUSED')
fails(lambda: s.connect(('10.9.0.1', 1)), 'ECONNREFUSED')
s = socket.socket()
fails(lambda: s.connect(('10.9.0.77', 1)), 'ETIMEDOUT', 'EHOSTUNREACH')
fails(lambda: socket.socket().connect(('203.0.113.1', 1)), 'ENETUNREACH', 'EHOSTUNREACH')
# Nothing is polled as there before it is there, nor as failed before it has failed.
s = socket.socket()
s.setblocking(False)
ep = select.epoll()
assert s.connect_ex(('10.9.0.77', 1)) == errno.EINPROGRESS
ep.register(s, select.EPOLLOUT | select.EPOLLET)
assert ep.poll(0.3) == []
assert s.connect_ex(('10.9.0.77', 1)) == errno.EALREADY
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
assert ep.poll(20)
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
# A registration made before connect() survives it.
s = socket.socket()
s.setblocking(False)
assert s.connect_ex(('10.9.0.1', 9000)) == errno.EINPROGRESS
ep.register(s, select.EPOLLOUT)
while not (ev := dict(ep.poll(5)).get(s.fileno(), 0)) & select.EPOLLOUT: pass
assert not ev & (select.EPOLLERR | select.EPOLLHUP), ev
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
assert s.getpeername() == ('10.9.0.1', 9000), s.getpeername()
assert s.getsockname()[0] == '10.9.0.2' and s.getsockname()[1] >= 1024, s.getsockname()
s.setblocking(True)
info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
assert info[0] == 1, info[0]
mss, rtt = struct.unpack_from('I', info, 16)[0], struct.unpack_from('I', info, 68)[0]
assert 500 < mss <= 1460 and 0 < rtt < 5000000, (mss, rtt)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
assert socket.socket(fileno=s.detach()).family == socket.AF_INET
'''
RESETS = '''
import errno, socket, sys
s = socket.create_connection(('10.9.0.1', 9000))
if sys.argv[1] == 'half':
    s.shutdown(socket.SHUT_WR)
assert s.recv(5) == b'hello'
print('there', flush=True)
try:
    got = s.recv(100)
    print('no error', got)
except OSError as e:
    print(errno.errorcode[e.errno])
print(s.recv(100))
'''


def test_errors_are_those_of_tcp(lab):
    d = lab.daemon(CONF)
    listener = lab.listen('10.9.0.1', 9000)
    r = lab.run('server', python(lab, d, ERRORS), check=False)
    assert r.returncode == 0, r.stderr
    listener.close()


@variants(how=['open', 'half'])
def test_reset_by_the_peer(lab, how):
    d = lab.daemon(CONF)
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', python(lab, d, RESETS, how), stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    c.sendall(b'hello')
    assert p.stdout.readline() == 'there\n'
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    c.close()
    assert p.stdout.read() == "ECONNRESET\nb''\n"


def test_reset_keeps_what_came_before(lab):
    """A slow reader gets every octet, although the connection is long gone."""
    d = lab.daemon(CONF + '[Tcp]\nReceiveBufferInitial=all\n')  # the window does not wait for the reader
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', python(lab, d, '''
import socket, sys, time
s = socket.create_connection(('10.9.0.1', 9000))
s.shutdown(socket.SHUT_WR)
sys.stdin.readline()
n = 0
while got := s.recv(65536): n += len(got)
print(n)
'''), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    assert c.recv(10) == b''
    c.sendall(bytes(1500000))
    c.close()
    until(lambda: [r['state'] for r in d.connections()] == ['closed'], what='its end')
    p.stdin.write('\n')
    p.stdin.flush()
    assert p.stdout.read() == '1500000\n'
    assert served(d)[0]['end_reason'] == 'normal'


def test_unread_text_at_close_is_a_reset(lab):
    d = lab.daemon(CONF)
    p = lab.popen('server', python(lab, d, '''
import socket, sys
l = socket.create_server(('', 0))
print(l.getsockname()[1], flush=True)
c, who = l.accept()
assert who == c.getpeername() and who[0] == '10.9.0.1'
c.recv(1, socket.MSG_PEEK)
'''), stdout=subprocess.PIPE, text=True)
    s = lab.connect('10.9.0.2', int(p.stdout.readline()))
    s.sendall(b'never read')
    assert p.wait(20) == 0
    try:
        assert not s.recv(10), 'text'
        raise AssertionError('no reset')
    except ConnectionResetError:
        pass


def test_backlog_is_a_limit(lab):
    d = lab.daemon(CONF)
    p = lab.popen('server', python(lab, d, '''
import socket, sys
l = socket.create_server(('10.9.0.2', 9000), backlog=5)
print('ready', flush=True)
sys.stdin.readline()
l.setblocking(False)
n = 0
held = []
while True:
    try: held.append(l.accept())
    except BlockingIOError: break
print(len(held), flush=True)
sys.stdin.readline()
'''), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'ready\n'
    for _ in range(128):
        lab.connect('10.9.0.2', 9000)
    # Each of them is there for its peer before its last ACK is, and counts only then.
    until(lambda: d.ctl('status')['states']['established'] == 128, what='all of them')
    late = [lab.socket() for _ in range(10)]
    for s in late:
        s.setblocking(False)
        s.connect_ex(('10.9.0.2', 9000))
    until(lambda: d.ctl('status')['counters']['drop_accept_full'] >= 10, 10, 'what is above the backlog is not taken')
    time.sleep(0.2)
    assert not select.select([], late, [], 0)[1], "nor is it reset"
    assert d.ctl('status')['counters']['services_refused'] == 0
    p.stdin.write('\n')
    p.stdin.flush()
    assert p.stdout.readline() == '128\n'
    for s in late:  # their SYNs come again, and there is room
        until(lambda: select.select([], [s], [], 0)[1], 20, 'a late connection')
        assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_daemon_that_dies_is_an_error(lab):
    d = lab.daemon(CONF)
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', python(lab, d, '''
import errno, socket, sys, time
def name(f):
    try: return f()
    except OSError as e: return errno.errorcode[e.errno]
l = socket.create_server(('10.9.0.2', 9001))
s = socket.create_connection(('10.9.0.1', 9000))
print('there', flush=True)
print(name(lambda: s.recv(10)))
print(name(lambda: l.accept()))
before = time.monotonic()
print(name(lambda: l.accept()), time.monotonic() - before >= 0.1)  # who tries again for ever does not burn a core
print(name(lambda: socket.create_connection(('10.9.0.1', 9000))))
'''), stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    assert p.stdout.readline() == 'there\n'
    d.kill()
    assert p.stdout.read() == 'ECONNRESET\nEINVAL\nEINVAL True\nENETDOWN\n'
    c.close()
    d2 = lab.daemon(CONF, base=d.base)  # takes the rules down again
    d2.stop()


def test_only_what_is_meant(lab):
    d = lab.daemon(CONF)
    lab.listen('10.9.0.1', 9000)
    code = '''
import socket
l = socket.create_server(('10.9.0.2', 9001))
s = socket.create_connection(('10.9.0.1', 9000))
t = socket.create_server(('10.9.0.2', 9002))
print('up', flush=True)
input()
'''
    for only, connects, listens in (('connect', 1, []), ('listen', 0, [9001, 9002]), ('9001,9500-9600', 0, [9001]), ('listen,9002', 0, [9002])):
        p = lab.popen('server', python(lab, d, code, only=only), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert p.stdout.readline() == 'up\n', only
        ports = sorted(int(l['address'].rsplit(':', 1)[1]) for l in d.ctl('list', 'listeners')['listeners'] if not l['draining'])
        assert ports == listens, (only, ports)
        assert len(d.connections('state', 'established')) == connects, only
        p.communicate('\n')
        until(lambda: not d.ctl('list', 'listeners')['listeners'] and not d.connections('state', 'established'), 10, 'all goes with it')


def test_a_thousand_connections_leave_nothing(lab):
    d = lab.daemon(CONF)
    p = lab.popen('server', python(lab, d, ASYNC_ECHO, '10.9.0.2', '9000'), stdout=subprocess.PIPE)
    assert p.stdout.readline() == b'ready\n'
    fds = pathlib.Path(f'/proc/{d.proc.pid}/fd')

    def some(n):
        for i in range(n):
            s = lab.connect('10.9.0.2', 9000)
            s.sendall(b'x')
            assert s.recv(1) == b'x'
            s.close()
            lab.sockets.remove(s)
    some(20)
    until(lambda: not d.connections('state', 'established'), 10, 'they end')
    before = len(list(fds.iterdir()))
    some(1000)
    until(lambda: not d.connections('state', 'established'), 10, 'they end')
    until(lambda: len(list(fds.iterdir())) <= before, 10, 'no descriptor is left')
    p.kill()


def test_a_thousand_connects_leave_nothing(lab):
    """No descriptor on either side, no connection, no rule, no memory."""
    d = lab.daemon(CONF + '[Storage]\nRecord=nothing\n')  # the record's cache grows with its file
    listener = lab.listen('10.9.0.1', 9000, backlog=1024)
    p = lab.popen('server', python(lab, d, '''
import os, socket, sys
def some(n):
    for i in range(n):
        s = socket.create_connection(('10.9.0.1', 9000))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(b'x')
        if i % 3 == 0: s.shutdown(socket.SHUT_WR)
        s.close()
        try: socket.create_connection(('10.9.0.1', 9))
        except ConnectionRefusedError: pass
        if i % 20 == 0: socket.create_server(('10.9.0.2', 0)).close()
for line in sys.stdin:
    some(int(line))
    print(len(os.listdir('/proc/self/fd')), flush=True)
'''), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                c, _ = listener.accept()
                c.settimeout(20)
                read_all(c)
                c.close()
    threading.Thread(target=serve, daemon=True).start()

    def after(n):
        p.stdin.write(f'{n}\n')
        p.stdin.flush()
        program = int(p.stdout.readline())
        until(lambda: not d.connections(), 20, 'every connection ends')
        until(lambda: not d.ctl('list', 'listeners')['listeners'], 20, 'every listener ends')
        rss = int((proc / 'statm').read_text().split()[1]) * 4096
        return program, len([x for x in lab.rules().splitlines() if 'tcpfsm' in x]), rss

    def descriptors():
        return len(list((proc / 'fd').iterdir()))
    proc = pathlib.Path(f'/proc/{d.proc.pid}')
    *before, rss = after(300)
    held = descriptors()
    *now, rss_now = after(1000)
    # What was there before may still have been about to go, as now the control connection of who has just asked.
    assert all(n <= b for n, b in zip(now, before)), (now, before)
    until(lambda: descriptors() <= held, what=f'no more than {held} descriptors')
    if SLOW == 1:
        assert rss_now - rss < 1 << 20, f'{rss} octets of memory became {rss_now}'
    p.stdin.close()
    p.wait(10)


def test_c_library_as_it_is_installed(lab):
    """Header, library, pkg-config and the example, from where `meson install` puts them."""
    for program in ('cc', 'meson', 'pkg-config'):
        need(program)
    d = lab.daemon(CONF)
    root = f'{lab.dir}/root'
    lab.run('client', ['meson', 'install', '-C', str(BUILD), '--no-rebuild', '--quiet', '--tags', 'devel'], env=dict(os.environ, DESTDIR=root))
    pc = next(pathlib.Path(root).rglob('tcpfsm.pc'))
    flags = lab.run('client', ['pkg-config', '--cflags', '--libs', 'tcpfsm'],
                    env=dict(os.environ, PKG_CONFIG_LIBDIR=str(pc.parent), PKG_CONFIG_SYSROOT_DIR=root)).stdout.split()
    source = next(pathlib.Path(root).rglob('stream_example.c'))
    cc = ['clang', '-fsanitize=address,undefined'] if SLOW > 1 else ['cc']
    r = lab.run('client', [*cc, '-Wall', '-Wextra', '-Werror', str(source), '-o', f'{lab.dir}/example', *flags], check=False)
    assert r.returncode == 0, r.stderr
    env = dict(os.environ, TCPFSM_SOCKET=str(d.run / 'control.sock'))
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', [f'{lab.dir}/example', '10.9.0.1', '9000'], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                  stderr=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    c.sendall(b'from the peer')
    p.stdin.write('from the program')
    p.stdin.close()
    assert read_all(c) == b'from the program'
    c.close()
    assert p.stdout.read() == 'from the peer'
    assert p.wait(10) == 0
    assert p.stderr.read() == 'established, segments of 1448 octets, cubic\n'
    r = lab.run('server', [f'{lab.dir}/example', '10.9.0.1', '9'], env=env, check=False, stdin=subprocess.DEVNULL)
    assert r.returncode == 1 and r.stderr == 'connect: Connection refused\n', r.stderr


def test_c_library(lab):
    d = lab.daemon(CONF)
    env = dict(os.environ, TCPFSM_SOCKET=str(d.run / 'control.sock'))
    tool = str(BUILD / 'tests' / 'live' / 'stream_echo')
    p = lab.popen('server', [tool, 'listen', '10.9.0.2', '9000'], env=env, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'ready\n'
    s = lab.connect('10.9.0.2', 9000)
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    s.shutdown(socket.SHUT_WR)
    assert p.stdout.read() == f'port {s.getsockname()[1]}\n' and p.wait(10) == 0
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', [tool, 'connect', '10.9.0.1', '9000'], env=env, stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    assert read_all(c) == b'over and out\n'
    c.sendall(b'heard\n')
    c.close()
    assert p.stdout.read() == 'established 1\nheard\n' and p.wait(10) == 0
    r = lab.run('server', [tool, 'connect', '10.9.0.1', '9'], env=env, check=False)
    assert r.returncode == 1 and r.stderr == 'connect: Connection refused\n', r.stderr


def test_what_was_written_is_on_the_wire_before_an_answer(lab):
    d = lab.daemon(CONF)
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', python(lab, d, '''
import socket, struct
s = socket.create_connection(('10.9.0.1', 9000))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for i in range(1, 501):
    s.send(b'x')
    sent = struct.unpack_from('Q', s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 200)[0]
    assert sent == i, (sent, i)
print('fine')
'''), stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    assert p.stdout.read() == 'fine\n'
    assert len(read_all(c)) == 500


def text_of(frame):
    """Of the client's TCP in it: sequence number and octets."""
    if frame[12:14] != b'\x08\x00' or frame[26:30] != socket.inet_aton('10.9.0.1'):
        return None
    return int.from_bytes(frame[38:42], 'big'), int.from_bytes(frame[16:18], 'big') - 20 - (frame[46] >> 4) * 4


def test_what_arrived_is_seen_by_the_next_call(lab):
    d = lab.daemon(CONF)
    # Of one interface, it gets a frame after the daemon, whose socket is of all.
    tap = lab.socket('server', socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with lab.inside('server'):
        tap.bind(('v1', 3))
    p = lab.popen('server', python(lab, d, ASYNC_ECHO, '10.9.0.2', '9000'), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert p.stdout.readline() == b'ready\n'
    s = lab.connect('10.9.0.2', 9000)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    me = until(lambda: d.connections('state', 'established'), 5, 'a connection')[0]['id']
    with d.control() as control:
        lines = control.makefile('rb')
        ask = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'show.connection', 'params': {'id': me}}).encode() + b'\n'
        irs = d.ctl('show', 'connection', me)['detail']['irs']
        for i in range(1, 501):
            s.sendall(b'x')
            while text_of(tap.recv(2000)) != ((irs + i) % (1 << 32), 1):  # not the last one, sent again
                pass
            control.sendall(ask)
            got = json.loads(lines.readline())['result']['bytes_in']
            assert got == i, (got, i)
    p.kill()


def test_interface_that_appears_later(lab):
    """A program that runs already serves on it, and connects by it."""
    d = lab.daemon(CONF)
    p = lab.popen('server', python(lab, d, '''
import socket
l = socket.create_server(('', 9000))
print('ready', flush=True)
c, who = l.accept()
c.sendall(who[0].encode())
c.close()
input()
print(socket.create_connection(('10.10.0.1', 9001)).recv(100))
'''), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'ready\n'
    lab.sh('client', f'ip link add w0 type veth peer name w1 netns {lab.holders["server"].pid}')
    for ns, dev, n in (('client', 'w0', 1), ('server', 'w1', 2)):
        lab.sh(ns, f'ip addr add 10.10.0.{n}/24 dev {dev}; ip link set {dev} up')
    assert read_all(lab.connect('10.10.0.2', 9000)) == b'10.10.0.1'
    listener = lab.listen('10.10.0.1', 9001)
    p.stdin.write('\n')
    p.stdin.flush()
    c, _ = listener.accept()
    c.sendall(b'by the new one')
    c.close()
    assert p.stdout.read() == "b'by the new one'\n"


LISTEN_ON = '''
import errno, socket, sys
for port in map(int, sys.argv[1:]):
    try:
        with socket.create_server(('10.9.0.2', port)): print(port)
    except OSError as e:
        print(errno.errorcode[e.errno])
'''


@variants(start=[1024, 80])
def test_who_may_listen_on_what(lab, start):
    d = lab.daemon(CONF + f'[Control]\nUnprivilegedPortStart={start}\n')
    lab.sh('server', 'sysctl -qw net.ipv4.ip_unprivileged_port_start=0')  # so that it is the daemon who refuses
    os.chmod(lab.dir, 0o755)
    for path in (d.base, d.run):
        os.chmod(path, 0o755)
    argv = python(lab, d, LISTEN_ON, '79', '80', '1023', '1024')
    assert lab.run('server', argv).stdout.split() == ['79', '80', '1023', '1024'], 'root may'
    nobody = pwd.getpwnam('nobody')
    plain = ['setpriv', '--reuid', str(nobody.pw_uid), '--regid', str(nobody.pw_gid), '--clear-groups', '--']
    if lab.run('server', [*plain, 'sh', '-c', sys.executable + ' -c ""'], check=False).returncode:
        argv[argv.index(sys.executable)] = '/usr/bin/python3'  # ours is not for everybody
    as_nobody = plain + argv
    r = lab.run('server', as_nobody, check=False)
    assert r.returncode == 5 and 'Permission denied' in r.stderr, 'the socket is not for everybody: ' + r.stderr
    os.chown(d.run / 'control.sock', -1, nobody.pw_gid)
    want = ['EACCES', 'EACCES', 'EACCES', '1024'] if start == 1024 else ['EACCES', '80', '1023', '1024']
    assert lab.run('server', as_nobody).stdout.split() == want
    r = lab.run('server', [*plain, str(TCPFSMCTL), '-s', str(d.run / 'control.sock'), 'listen', '10.9.0.2:79', 'echo'], check=False)
    assert r.returncode == 5 and f'below UnprivilegedPortStart ({start})' in r.stderr, r.stderr
    r = lab.run('server', [*plain, str(TCPFSMCTL), '-s', str(d.run / 'control.sock'), 'connect', '10.9.0.1:9', '--source',
                           '10.9.0.2:79'], check=False)
    assert r.returncode == 5 and f'below UnprivilegedPortStart ({start})' in r.stderr, r.stderr


def converse(lab, d, program, lengths):
    """Runs it with a peer that answers so many octets at a time by a dot: its process, our end, and what it sends."""
    listener = lab.listen('10.9.0.1', 9000)
    capture = lab.capture('client', 'v0', 'tcp and src 10.9.0.2')
    p = lab.popen('server', python(lab, d, program), stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for n in lengths:
        got = b''
        while len(got) < n:
            got += c.recv(n - len(got))
        c.sendall(b'.')
    return p, c, capture


OPTIONS = '''
import socket, sys
T, S, I = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP
s = socket.socket()
s.setsockopt(T, socket.TCP_MAXSEG, 1000)
s.setsockopt(I, socket.IP_TTL, 61)
s.setsockopt(T, socket.TCP_KEEPIDLE, 100)
s.setsockopt(S, socket.SO_KEEPALIVE, 1)
s.connect(('10.9.0.1', 9000))
s.recv(1)
s.setsockopt(I, socket.IP_TOS, 0xb8)
s.setsockopt(I, socket.IP_TTL, 33)
s.send(b'a' * 10)
s.recv(1)
s.setsockopt(T, socket.TCP_CORK, 1)
s.send(b'b' * 20)
s.send(b'c' * 21)
s.setsockopt(T, socket.TCP_CORK, 0)
s.recv(1)
s.send(b'd' * 30, socket.MSG_MORE)
s.send(b'e' * 31)
s.recv(1)
s.setsockopt(T, socket.TCP_NODELAY, 1)
s.send(b'f' * 3)
s.send(b'g' * 4)
s.recv(1)
s.setsockopt(T, socket.TCP_KEEPIDLE, 1)
s.setsockopt(T, socket.TCP_CONGESTION, b'reno')
print(s.getsockopt(T, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode(), flush=True)
s.recv(1)
'''


def test_options_take_effect(lab):
    d = lab.daemon(CONF)
    p, c, capture = converse(lab, d, OPTIONS, (0, 10, 41, 61, 7))
    assert p.stdout.readline() == 'reno\n'
    name = d.connections('state', 'established')[0]['id']
    assert d.rpc('show.connection', id=name)['detail']['congestion_control'] == 'newreno'
    shown = {r['key']: r['value'] for r in d.rpc('show.tcp', connection=name)['tcp']}
    assert (shown['Nagle'], shown['Cork'], shown['KeepAliveTime']) == ('no', 'no', '1s'), shown
    # Its keep-alive, after a second of silence: an octet less than what is acknowledged.
    until(lambda: d.ctl('status')['counters']['keepalive_probes'], 10, 'a keep-alive')
    c.sendall(b'.')
    p.wait(10)
    rows = [r.split('\t') for r in lab.tshark(capture.stop(), '-T', 'fields', '-e', 'tcp.len', '-e', 'ip.ttl', '-e', 'ip.dsfield', '-e',
                                              'tcp.options.mss_val', '-e', 'tcp.analysis.keep_alive').splitlines()]
    assert rows[0][3] == '1000', rows[0]
    texts = [r for r in rows if r[0] != '0']
    assert [r[0] for r in texts][:3] == ['10', '41', '61'], texts
    assert rows[0][1] == '61' and {r[1] for r in texts} == {'33'}, rows
    assert {int(r[2], 16) for r in texts} == {0xb8}, rows
    assert any(r[4] for r in rows), 'no keep-alive'


CHOSEN = '''
import socket, sys
def told(f):
    try: return f()
    except OSError as e: return e.strerror
def connected(s):
    s.connect((host, 9000))
    return s.recv(10).decode()
host, ours = sys.argv[1:]
family = socket.AF_INET6 if ':' in host else socket.AF_INET
s = socket.socket(family)
s.bind((ours, 5555))
assert s.getsockname()[1] == 5555
print(told(lambda: connected(s)), flush=True)
assert s.getsockname()[1] == 5555
t = socket.socket(family)
t.bind((ours, 0))
before = t.getsockname()[1]
print(told(lambda: connected(t)) == str(before) == str(t.getsockname()[1]), flush=True)
sys.stdin.readline()
'''


@variants(host=['10.9.0.1', 'fd09::1'], ours=['any', 'one'])
def test_a_port_of_its_choice(lab, host, ours):
    """A port that is none of LocalPorts gets a rule before the SYN leaves, which goes with the connection."""
    d = lab.daemon(CONF)
    v6 = ':' in host
    source = {'any': '::' if v6 else '0.0.0.0', 'one': host[:-1] + '2'}[ours]
    rules = 'ip6tables-save -t raw' if v6 else 'iptables-save -t raw'
    listener = lab.listen(host, 9000)
    capture = lab.capture('client', 'v0', 'tcp[13] & 4 != 0' if not v6 else 'ip6 proto 6 and ip6[53] & 4 != 0')
    p = lab.popen('server', python(lab, d, CHOSEN, host, source), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    kept = []
    for _ in range(2):
        c, peer = listener.accept()
        kept.append(c)
        c.sendall(str(peer[1]).encode())
    assert p.stdout.readline() == '5555\n'
    assert p.stdout.readline() == 'True\n'
    assert '--dport 5555 ' in lab.sh('server', rules)
    assert ':5555 ' not in lab.sh('server', 'ss -Htan'), "the kernel's TCP has it"
    with lab.socket('server', socket.AF_INET6 if v6 else socket.AF_INET) as k, contextlib.suppress(OSError):
        k.bind((source, 5555))
        raise AssertionError("the kernel's sockets are not kept off")
    p.stdin.close()
    p.wait(10)
    for c in kept:
        assert read_all(c) == b''
        c.close()
    until(lambda: '--dport 5555 ' not in lab.sh('server', rules), 10, 'the rule goes')
    resets = lab.tshark(capture.stop())
    assert not resets, resets


def test_a_port_of_its_choice_that_the_kernel_has(lab):
    d = lab.daemon(CONF)
    listener = lab.listen('10.9.0.1', 9000)
    # Connected, and bound with SO_REUSEADDR: the program can bind it as well.
    k = lab.socket('server')
    k.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    k.bind(('10.9.0.2', 5555))
    k.connect(('10.9.0.1', 9000))
    c, _ = listener.accept()
    r = lab.run('server', python(lab, d, '''
import errno, socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('10.9.0.2', 5555))
print(errno.errorcode[s.connect_ex(('10.9.0.1', 9001))])
'''))
    assert r.stdout == 'EADDRINUSE\n', r.stdout
    assert '5555' not in lab.sh('server', 'iptables-save -t raw')
    c.sendall(b'still there')
    assert k.recv(100) == b'still there'


def test_who_says_nothing_is_accepted_later(lab):
    """TCP_DEFER_ACCEPT: by text, by an end, or when its time is over; who resets before was never there."""
    seconds = int(6 * SLOW)  # in which all but the last are to have their turn
    d = lab.daemon(CONF)
    p = lab.popen('server', python(lab, d, f'''
import socket
l = socket.socket()
l.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, {seconds})
l.bind(('10.9.0.2', 9000))
l.listen()
print('ready', flush=True)
while True:
    c, who = l.accept()
    print(who[1], c.recv(10, socket.MSG_DONTWAIT), flush=True)
'''), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'ready\n'
    gone = lab.connect('10.9.0.2', 9000)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    talks, ends = (lab.connect('10.9.0.2', 9000) for _ in range(2))
    until(lambda: len(d.connections('state', 'established')) == 3, 5, 'all are open')
    gone.close()
    assert not select.select([p.stdout], [], [], 0.3)[0], 'somebody was accepted'
    talks.sendall(b'hello')
    assert p.stdout.readline() == f"{talks.getsockname()[1]} b'hello'\n"
    ends.shutdown(socket.SHUT_WR)
    assert p.stdout.readline() == f"{ends.getsockname()[1]} b''\n"
    start = time.monotonic()
    silent = lab.connect('10.9.0.2', 9000)
    # Nothing is there to be read: that ends the program, which had it.
    assert 'BlockingIOError' in p.stderr.read()
    assert 0.75 * seconds < time.monotonic() - start < seconds + 10 * SLOW
    assert silent.recv(1) == b''
    p.wait(10)


def test_a_window_is_clamped(lab):
    """TCP_WINDOW_CLAMP: no window above it is offered, before and after it is set."""
    d = lab.daemon(CONF)
    listener = lab.listen('10.9.0.1', 9000)
    capture = lab.capture('client', 'v0', 'tcp')
    p = lab.popen('server', python(lab, d, '''
import socket
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 30000)
s.connect(('10.9.0.1', 9000))
print('there', flush=True)
n = 0
while got := s.recv(65536): n += len(got)
print(n, flush=True)
'''), stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    assert p.stdout.readline() == 'there\n'
    assert d.rpc('show.connection', id=d.connections()[0]['id'])['detail']['rcv_wnd_bytes'] <= 30000
    c.sendall(bytes(3000000))
    c.shutdown(socket.SHUT_WR)
    assert p.stdout.readline() == '3000000\n'
    c.close()
    p.wait(10)
    windows = lab.tshark(capture.stop(), '-Y', 'tcp.flags.syn == 0 and ip.src == 10.9.0.2', '-T', 'fields', '-e', 'tcp.window_size').split()
    assert 15000 < max(map(int, windows)) <= 30000, windows


def test_cork_and_sendfile(lab):
    """As a web server answers: more than any buffer holds between the cork and its end, and files right behind an order. No answer
    waits for a timer, and no octet is lost or added. The program has cleared its environment, as nginx does."""
    d = lab.daemon(CONF)
    path, _ = blob(lab, size=1 << 20)
    listener = lab.listen('10.9.0.1', 9000)
    p = lab.popen('server', python(lab, d, '''
import os, socket, sys
T = socket.IPPROTO_TCP
f = open(sys.argv[1], 'rb')
os.environ.clear()
s = socket.create_connection(('10.9.0.1', 9000))
def file(n):
    at = 0
    while at < n: at += os.sendfile(s.fileno(), f.fileno(), at, n - at)
r, w = os.pipe()
for i in range(20):
    s.setsockopt(T, socket.TCP_CORK, 1)
    s.send(b'head')
    file(1 << 20)
    s.setsockopt(T, socket.TCP_CORK, 0)
    s.recv(1)
    s.setsockopt(T, socket.TCP_CORK, 1)
    file(70000)
    s.setsockopt(T, socket.TCP_CORK, 0)
    s.recv(1)
    s.setsockopt(T, socket.TCP_NODELAY, i % 2)
    assert os.write(w, bytes(range(100))) == 100
    n = 100
    while n: n -= os.splice(r, s.fileno(), n)
    s.recv(1)
''', path), stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    text = path.read_bytes()
    want = (b'head' + text, text[:70000], bytes(range(100)))
    slow = 0
    for i in range(60):
        start = time.monotonic()
        got = c.recv(len(want[i % 3]), socket.MSG_WAITALL)
        slow += time.monotonic() - start > 0.19
        assert got == want[i % 3], (i, len(got))
        c.sendall(b'.')
    p.wait(10)
    assert slow < (20 if SLOW > 1 else 10), f'{slow} of 60 answers took as long as a timer'


def test_corks_without_end(lab):
    """TCP_CORK and MSG_MORE as often as a program likes: each answer of two writes is a segment."""
    d = lab.daemon(CONF)
    p, c, capture = converse(lab, d, '''
import socket
T = socket.IPPROTO_TCP
s = socket.create_connection(('10.9.0.1', 9000))
for i in range(30):
    s.setsockopt(T, socket.TCP_NODELAY, i % 2)
    s.setsockopt(T, socket.TCP_CORK, 1)
    s.send(b'b' * 20)
    s.send(b'c' * 21)
    s.setsockopt(T, socket.TCP_CORK, 0)
    s.recv(1)
    s.send(b'd' * 22, socket.MSG_MORE)
    s.send(b'e' * 19)
    s.recv(1)
s.setsockopt(T, socket.TCP_NODELAY, 1)
s.setsockopt(T, socket.TCP_CORK, 1)
s.setsockopt(T, socket.TCP_CORK, 0)
print('still', flush=True)
s.recv(1)
''', [41] * 60)
    assert p.stdout.readline() == 'still\n'
    shown = {r['key']: r['value'] for r in d.rpc('show.tcp', connection=d.connections()[0]['id'])['tcp']}
    assert (shown['Nagle'], shown['Cork']) == ('no', 'no'), shown
    c.sendall(b'.')
    p.wait(10)
    lengths = lab.tshark(capture.stop(), '-Y', 'tcp.len > 0', '-T', 'fields', '-e', 'tcp.len').split()
    assert lengths == ['41'] * 60, lengths


def test_orders_without_a_descriptor_left(lab):
    """Where none can be had to mark an order by, it is told later, and is no text."""
    d = lab.daemon(CONF)
    p, c, _ = converse(lab, d, '''
import errno, os, resource, socket
T = socket.IPPROTO_TCP
s = socket.create_connection(('10.9.0.1', 9000))
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
held = []
try:
    while True: held.append(os.dup(0))
except OSError: pass
s.setsockopt(T, socket.TCP_NODELAY, 1)
s.setsockopt(T, socket.TCP_CORK, 1)
s.sendall(b'a' * 10)
s.setsockopt(T, socket.TCP_CORK, 0)
s.sendall(b'b' * 10)
try: s.send(b'!', socket.MSG_OOB)
except OSError as e: print(errno.errorcode[e.errno], end=' ')
for fd in held: os.close(fd)
s.sendall(b'c' * 10)
print('sent', flush=True)
s.recv(1)
''', [])
    assert p.stdout.readline() == 'ENOBUFS sent\n'
    got = b''
    while len(got) < 30:
        got += c.recv(100)
    assert got == b'a' * 10 + b'b' * 10 + b'c' * 10, got
    shown = {r['key']: r['value'] for r in d.rpc('show.tcp', connection=d.connections()[0]['id'])['tcp']}
    assert (shown['Nagle'], shown['Cork']) == ('no', 'no'), shown
    p.kill()


@variants(told=['before', 'behind'])
def test_linger_of_nothing_when_it_is_killed(lab, told):
    """SO_LINGER of 0 resets at once, however its program went, and whatever waits for a peer that does not read."""
    d = lab.daemon(CONF + 'SendBuffer=64KiB\n')
    listener = lab.listen('10.9.0.1', 9000)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100000)
    p = lab.popen('server', python(lab, d, f'''
import socket, struct, time
def linger(): s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
def goes(n):
    try: return s.send(bytes(n))
    except BlockingIOError: return 0
s = socket.create_connection(('10.9.0.1', 9000))
if {told == 'before'}: linger()
s.setblocking(False)
last = time.monotonic()
while time.monotonic() < last + 0.3:
    if goes(65536): last = time.monotonic()
    else: time.sleep(0.01)
print('full', flush=True)
input()
while not goes(1): time.sleep(0.01)
linger()
print('told', flush=True)
input()
'''), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    c, _ = listener.accept()
    assert p.stdout.readline() == 'full\n'
    shut = lambda: d.rpc('show.connection', id=d.connections()[0]['id'])['detail']['snd_wnd_bytes'] == 0
    until(shut, 10, 'a window that is shut')
    if told == 'behind':
        # Some room, and the order stands in it behind text.
        p.stdin.write('\n')
        p.stdin.flush()
        for _ in range(150):
            assert c.recv(1000, socket.MSG_WAITALL)
        # How much memory its kernel thinks that is, and when it opens the window, is the kernel's affair.
        while not select.select([p.stdout], [], [], 0.1)[0]:
            assert c.recv(5000, socket.MSG_WAITALL)
        assert p.stdout.readline() == 'told\n'
        until(shut, 10, 'a window that is shut again')
    p.kill()
    assert select.select([c], [], [], 10)[0]
    until(lambda: select_err(c), 5, 'a reset')
    until(lambda: not d.connections(), 5, 'it is gone')


def select_err(s):
    poll = select.poll()
    poll.register(s, 0)
    return any(e & select.POLLERR for _, e in poll.poll(0))


FAST_OPEN = {
    'MSG_FASTOPEN': '''
def opened():
    s = socket.socket()
    assert s.sendto(b'early', socket.MSG_FASTOPEN, ('10.9.0.1', 9000)) == 5
    return s
def refused():
    socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('10.9.0.1', 9))
''',
    'TCP_FASTOPEN_CONNECT': '''
import select
def dial(port):
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, 30, 1)
    s.connect(('10.9.0.1', port))
    return s
def opened():
    s = dial(9000)
    poll = select.poll()
    poll.register(s)
    assert [e for _, e in poll.poll(30000)] == [select.POLLOUT]
    assert s.connect_ex(('10.9.0.1', 9000)) == 106
    assert s.send(b'early') == 5
    return s
def refused():
    dial(9).send(b'x')  # told by the one or the other, as a cookie of the host is known or not
''',
}


@variants(how=['MSG_FASTOPEN', 'TCP_FASTOPEN_CONNECT'])
def test_fast_open_as_a_client(lab, how):
    """The first gets a cookie, the next sends its text with the SYN. Each worker has cookies of its own."""
    workers = int(os.environ.get('TCPFSM_WORKERS', '1'))
    d = lab.daemon(CONF)
    lab.sh('client', 'sysctl -qw net.ipv4.tcp_fastopen=3')
    listener = lab.socket()
    listener.bind(('10.9.0.1', 9000))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
    listener.listen(5)
    capture = lab.capture('client', 'v0', 'tcp and src 10.9.0.2')
    p = lab.popen('server', python(lab, d, 'import socket, sys\n' + FAST_OPEN[how] + '''
for line in sys.stdin:
    s = opened()
    s.sendall(b' and late')
    s.shutdown(socket.SHUT_WR)
    print(s.recv(10).decode(), flush=True)
try: refused()
except ConnectionRefusedError: print('refused', flush=True)
'''), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(10 * workers if workers > 1 else 2):
        p.stdin.write('\n')
        p.stdin.flush()
        c, _ = listener.accept()
        assert read_all(c) == b'early and late'
        c.sendall(b'heard')
        c.close()
        assert p.stdout.readline() == 'heard\n'
    p.stdin.close()
    assert p.stdout.read() == 'refused\n'
    syns = lab.tshark(capture.stop(), '-Y', 'tcp.flags.syn==1 and tcp.dstport==9000', '-T', 'fields', '-e', 'tcp.len').split()
    assert set(syns) == {'0', '5'} and syns[0] == '0' and syns.count('0') <= workers, syns


def test_shutdown_of_a_listener_for_writing_is_nothing(lab):
    d = lab.daemon(CONF)
    p = lab.popen('server', python(lab, d, '''
import socket
l = socket.create_server(('10.9.0.2', 9000))
l.shutdown(socket.SHUT_WR)
print('ready', flush=True)
l.accept()[0].sendall(b'there')
'''), stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'ready\n'
    assert read_all(lab.connect('10.9.0.2', 9000)) == b'there'


def test_control_refuses_what_is_no_stream(lab):
    d = lab.daemon(CONF)
    for method, params in (('connect', {'address': '10.9.0.1:9', 'passed': True}), ('listen.stream', {'address': '10.9.0.2:9'})):
        try:
            d.rpc(method, **params)
            raise AssertionError('no error')
        except RuntimeError as e:
            assert 'no descriptor' in str(e), e
        with d.control() as s, open(os.devnull) as null:
            line = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': params}).encode() + b'\n'
            socket.send_fds(s, [line], [null.fileno()])
            assert 'no UNIX stream socket' in s.makefile().readline()
    with d.control('observe.sock') as s:
        a, b = socket.socketpair()
        socket.send_fds(s, [b'listen stream 10.9.0.2:9\n'], [b.fileno()])
        assert 'permission_denied' in s.makefile().readline()


if __name__ == '__main__':
    run(globals())
