#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""TCP Fast Open (RFC 7413) with the kernel at the other end, as client and as server."""
import json
import os
import socket
import threading

from lab import SLOW, Skip, read_all, run, until

TCP_FASTOPEN = 23
MSG_FASTOPEN = 0x20000000
SERVER = '[Tcp]\nMSL=100ms\n[Listener echo]\nAddress=*:7\nService=echo\nFastOpen=server\n'


def allow(lab):
    """Client and server, in the kernel of the client's namespace."""
    r = lab.run('client', ['sysctl', '-qw', 'net.ipv4.tcp_fastopen=3'], check=False)
    if r.returncode:
        raise Skip('net.ipv4.tcp_fastopen cannot be set here')


def fast_connect(lab, host, text):
    s = lab.socket('client', socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.setblocking(True)
    assert s.sendto(text, MSG_FASTOPEN, (host, 7)) == len(text)
    s.settimeout(10 * SLOW)
    return s


def counters(d):
    return d.ctl('status')['counters']


def test_kernel_client(lab):
    allow(lab)
    d = lab.daemon(SERVER)
    for host in ('10.9.0.2', 'fd09::2'):
        before = counters(d)['fast_open_accepted']
        for n in range(3):  # the first asks for a cookie, the others use it
            s = fast_connect(lab, host, b'hello %d' % n)
            assert s.recv(100) == b'hello %d' % n
            s.shutdown(socket.SHUT_WR)
            assert s.recv(100) == b''
            s.close()
        assert counters(d)['fast_open_accepted'] == before + 2, (host, counters(d))
    assert counters(d)['fast_open_refused'] == 0


def test_kernel_client_whose_cookie_is_of_another_daemon(lab):
    allow(lab)
    d = lab.daemon(SERVER)
    fast_connect(lab, '10.9.0.2', b'x').recv(1)
    d.stop()
    d = lab.daemon(SERVER)  # another secret
    for n in range(2):
        s = fast_connect(lab, '10.9.0.2', b'hello')
        assert read_all(s, 5) == b'hello'
        s.close()
    got = counters(d)
    assert got['fast_open_refused'] == 1 and got['fast_open_accepted'] == 1, got


def fast_connect_ours(d, text, port=9000):
    """By descriptor, the text in front of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.settimeout(10 * SLOW)
    ours.sendall(text)
    request = {'jsonrpc': '2.0', 'id': 1, 'method': 'connect',
               'params': {'address': f'10.9.0.1:{port}', 'passed': True, 'syn_text': len(text), 'tcp': 'FastOpen=client'}}
    with d.control() as s:
        socket.send_fds(s, [json.dumps(request).encode() + b'\n'], [theirs.fileno()])
        answer = json.loads(s.makefile('rb').readline())
    theirs.close()
    assert 'error' not in answer, answer
    return ours, answer['result']['id']


def test_kernel_server(lab):
    allow(lab)
    d = lab.daemon(SERVER)
    listener = lab.listen('10.9.0.1', 9000)
    listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)

    def serve():
        for _ in range(3):
            c, _ = listener.accept()
            c.sendall(b'got ' + c.recv(1000))
            c.close()
    t = threading.Thread(target=serve, daemon=True)
    t.start()
    for n in range(3):
        text = os.urandom(300 + n)
        s, _ = fast_connect_ours(d, text)
        assert read_all(s) == b'got ' + text
        s.close()
    t.join(10 * SLOW)
    got = counters(d)
    assert got['fast_open_cookies'] == 1 and got['fast_open_sent'] == 2, got
    until(lambda: len(d.connections(closed=True)) == 3, 10, 'all are closed')


def test_path_that_eats_such_syns(lab):
    """A SYN with text is lost; it goes again without, and the peer is spared from then on."""
    allow(lab)
    d = lab.daemon(SERVER)
    listener = lab.listen('10.9.0.1', 9000)
    listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    s, _ = fast_connect_ours(d, b'first')
    assert listener.accept()[0].recv(100) == b'first'
    lab.sh('client', 'iptables -t raw -A PREROUTING -p tcp --dport 9000 --syn -m length --length 80:1500 -j DROP')
    s, _ = fast_connect_ours(d, b'x' * 200)
    assert read_all(listener.accept()[0], 200) == b'x' * 200
    s, _ = fast_connect_ours(d, b'y' * 200)
    assert read_all(listener.accept()[0], 200) == b'y' * 200
    got = counters(d)
    assert got['fast_open_lost'] == 1 and got['fast_open_sent'] == 1, got


if __name__ == '__main__':
    run(globals())
