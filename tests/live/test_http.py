#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""http: a directory, for curl, wget and wrk."""
import contextlib
import hashlib
import os
import re
import shutil
import socket
import struct

from lab import SLOW, Skip, read_all, run, until, variants

SIZE = 20_000_000


def server(lab, options='', extra=''):
    www = f'{lab.dir}/www'
    os.makedirs(f'{www}/sub')
    os.chmod(lab.dir, 0o755)
    with open(f'{www}/big', 'wb') as f:
        f.write(os.urandom(SIZE))
    with open(f'{www}/sub/index.html', 'w') as f:
        f.write('<p>index\n')
    with open(f'{www}/small.txt', 'w') as f:
        f.write('x' * 600)
    for name in ('big', 'small.txt'):
        os.utime(f'{www}/{name}', (1e9, 1e9))
    return lab.daemon(f'[Listener x]\nAddress=*:80\nService=http:{options}{www}\n{extra}\n[Tcp]\nMSL=100ms\n')


def digest(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def curl(lab, *args):
    return lab.run('client', ['curl', '-sS', '--max-time', '40', *args]).stdout


def request(lab, text, **kw):
    s = lab.connect('10.9.0.2', 80, **kw)
    s.sendall(text.encode())
    return s


@variants(offloads=[True, False], host=['10.9.0.2', '[fd09::2]'])
def test_curl_gets_a_large_file(lab, host):
    server(lab)
    got = f'{lab.dir}/got'
    out = curl(lab, '-o', got, '-w', '%{http_code} %{size_download} %{http_version}', f'http://{host}/big')
    assert out == f'200 {SIZE} 1.1', out
    assert digest(got) == digest(f'{lab.dir}/www/big')


def test_curl_resumes_and_asks_whether_it_changed(lab):
    server(lab)
    got, big = f'{lab.dir}/got', f'{lab.dir}/www/big'
    with open(big, 'rb') as f, open(got, 'wb') as g:
        g.write(f.read(7_000_001))
    assert curl(lab, '-C', '-', '-o', got, '-w', '%{http_code} %{size_download}', 'http://10.9.0.2/big') == f'206 {SIZE - 7_000_001}'
    assert digest(got) == digest(big)
    assert curl(lab, '-r', '0-99', '-o', got, '-w', '%{http_code} %{size_download}', 'http://10.9.0.2/big') == '206 100'
    assert curl(lab, '-r', f'{SIZE}-', '-o', got, '-w', '%{http_code}', 'http://10.9.0.2/big') == '416'
    assert curl(lab, '-z', big, '-o', got, '-w', '%{http_code}', 'http://10.9.0.2/big') == '304'
    etag = f'{lab.dir}/etag'
    assert curl(lab, '--etag-save', etag, '-o', got, '-w', '%{http_code}', 'http://10.9.0.2/small.txt') == '200'
    assert curl(lab, '--etag-compare', etag, '-o', got, '-w', '%{http_code}', 'http://10.9.0.2/small.txt') == '304'


def test_curl_keeps_one_connection(lab):
    d = server(lab)
    out = curl(lab, '-w', '%{num_connects} ', '-o', '/dev/null', 'http://10.9.0.2/small.txt', '-o', '/dev/null', 'http://10.9.0.2/sub/',
               '-o', '/dev/null', 'http://10.9.0.2/nothing', '-o', '/dev/null', '-L', 'http://10.9.0.2/sub')
    assert sum(map(int, out.split())) == 1, out
    assert len(d.closed(1)) == 1
    counters = d.ctl('status')['counters']
    assert counters['http_requests'] == 5 and counters['http_errors'] == 1, counters
    out = curl(lab, '-0', '-w', '%{num_connects} ', '-o', '/dev/null', 'http://10.9.0.2/small.txt', '-o', '/dev/null', 'http://10.9.0.2/small.txt')
    assert sum(map(int, out.split())) == 2, out


def test_wget_mirrors_a_listing(lab):
    if not shutil.which('wget'):
        raise Skip('needs wget')
    server(lab, 'list,')
    lab.run('client', ['wget', '-q', '-r', '-np', '-nH', '-P', f'{lab.dir}/mirror', 'http://10.9.0.2/'])
    for name in ('big', 'small.txt', 'sub/index.html'):
        assert digest(f'{lab.dir}/mirror/{name}') == digest(f'{lab.dir}/www/{name}'), name


@variants(offloads=[True, False])
def test_wrk_finds_no_error(lab):
    if not shutil.which('wrk'):
        raise Skip('needs wrk')
    d = server(lab)
    out = lab.run('client', ['wrk', '-t1', '-c32', '-d2s', '--timeout', '30s', 'http://10.9.0.2/small.txt']).stdout
    n = int(re.search(r'(\d+) requests in', out)[1])
    assert n > 100 and 'Socket errors' not in out and 'Non-2xx' not in out, out
    assert d.ctl('status')['counters']['http_requests'] >= n
    out = lab.run('client', ['wrk', '-t1', '-c8', '-d2s', '--timeout', '30s', '-H', 'Connection: close', 'http://10.9.0.2/small.txt']).stdout
    assert 'Socket errors' not in out and 'Non-2xx' not in out, out


def test_a_pipeline_over_several_segments(lab):
    server(lab)
    one = 'GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n'
    s = request(lab, one * 500 + 'GET /small.txt HTTP/1.0\r\n\r\n')
    got = read_all(s)
    assert got.count(b'HTTP/1.1 200 OK\r\n') == 501 and got.count(b'\r\n\r\n' + b'x' * 600) == 501


def test_who_closes(lab):
    """By Connection: close it is us, else the peer; a peer that half-closes is answered first."""
    d = server(lab)
    s = request(lab, 'GET /small.txt HTTP/1.0\r\n\r\n')
    assert read_all(s).endswith(b'\r\n\r\n' + b'x' * 600)
    s.close()
    assert d.closed(1)[0]['closed_by'] == 'local', d.closed(1)
    s = request(lab, 'GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n')
    s.shutdown(socket.SHUT_WR)
    assert read_all(s).endswith(b'\r\n\r\n' + b'x' * 600)
    s.close()
    rows = d.closed(2)
    assert rows[0]['closed_by'] == 'remote' and {r['end_reason'] for r in rows} == {'normal'}, rows


def test_back_pressure(lab):
    """A peer that does not read holds its file open, but no memory beyond its send buffer; others go on."""
    d = server(lab, extra='SendBuffer=128K\n')
    stuck = [request(lab, 'GET /big HTTP/1.1\r\nHost: a\r\n\r\n') for _ in range(20)]
    # Of 64 KiB at least, less than a quarter that it is not worth to tell of.
    until(lambda: sum(c['send_queue_bytes'] > 48 << 10 for c in d.connections()) == 20, what='full queues')
    assert max(c['send_queue_bytes'] for c in d.connections()) <= 128 * 1024
    assert curl(lab, '-o', '/dev/null', '-w', '%{http_code}', 'http://10.9.0.2/small.txt') == '200'
    got = read_all(stuck[0], SIZE)
    head = got.index(b'\r\n\r\n') + 4
    got += read_all(stuck[0], head + SIZE - len(got))
    assert got[head:] == open(f'{lab.dir}/www/big', 'rb').read()


def test_timeouts(lab):
    d = server(lab, 'timeout=1s,')
    assert read_all(lab.connect('10.9.0.2', 80)) == b''
    assert read_all(request(lab, 'GET /')).startswith(b'HTTP/1.1 408 ')
    s = request(lab, 'GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n')
    assert read_all(s).endswith(b'x' * 600)
    until(lambda: d.ctl('status')['counters']['http_timeouts'] == 3, what='the counter')


def test_a_reset_closes_the_file(lab):
    d = server(lab)

    def opened():
        n = 0
        for fd in os.listdir(f'/proc/{d.proc.pid}/fd'):
            with contextlib.suppress(FileNotFoundError):
                n += os.readlink(f'/proc/{d.proc.pid}/fd/{fd}').endswith('/www/big')
        return n
    socks = [request(lab, 'GET /big HTTP/1.1\r\nHost: a\r\n\r\n') for _ in range(10)]
    until(lambda: opened() == 10, what='open files')
    for s in socks:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        os.close(s.detach())
    until(lambda: opened() == 0, what='closed files')
    assert {r['end_reason'] for r in d.closed(10)} == {'reset_by_peer'}


def test_nothing_outside_of_the_directory(lab):
    server(lab)
    os.symlink('/etc/passwd', f'{lab.dir}/www/link')
    os.symlink('..', f'{lab.dir}/www/up')
    for path in ('/../../etc/passwd', '/..%2f..%2fetc/passwd', '/link', '/up/log', '/sub/../../log', '//etc/passwd'):
        status = curl(lab, '--path-as-is', '-o', '/dev/null', '-w', '%{http_code}', f'http://10.9.0.2{path}')
        assert status in ('403', '404'), (path, status)


if __name__ == '__main__':
    run(globals())
