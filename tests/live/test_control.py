#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The control sockets and tcpfsmctl, with the real daemon behind them."""
import json
import os
import socket
import stat

from lab import SLOW, TCPFSMCTL, pump, run

ECHO = '[Listener e]\nAddress=10.9.0.2:7\nService=echo\n'


def ask(s, line):
    s.sendall(line if isinstance(line, bytes) else (json.dumps(line) + '\n').encode())
    return json.loads(s.makefile('rb').readline())


def test_sockets_and_their_modes(lab):
    d = lab.daemon('')
    assert stat.S_IMODE(os.stat(d.run / 'control.sock').st_mode) == 0o660
    assert stat.S_IMODE(os.stat(d.run / 'observe.sock').st_mode) == 0o666
    d.stop()
    assert not list(d.run.glob('*.sock'))


def test_text_lines_through_nc(lab):
    d = lab.daemon(ECHO)
    r = lab.run('server', ['nc', '-UN', str(d.run / 'control.sock')], input='list listeners\n')
    assert '10.9.0.2:7' in r.stdout and r.stdout.endswith('\n\n'), r.stdout
    r = lab.run('server', ['nc', '-UN', str(d.run / 'observe.sock')], input='list connections\nversion\nnonsense here\n')
    assert 'nonsense' in r.stdout, r.stdout


def test_bad_lines_get_an_error_object_and_the_daemon_goes_on(lab):
    d = lab.daemon(ECHO)
    with d.control() as s:
        assert ask(s, b'{"jsonrpc": "2.0", oops\n')['error']['code'] == -32700
        assert ask(s, b'{}\n')['error']['code'] == -32600
        assert ask(s, {'jsonrpc': '2.0', 'id': 1, 'method': 'no.such'})['error']['code'] == -32601
        e = ask(s, {'jsonrpc': '2.0', 'id': 2, 'method': 'show.connection', 'params': {'id': 'seven'}})['error']
        assert e['code'] == -32602 and 'id' in e['message'], e
        e = ask(s, {'jsonrpc': '2.0', 'id': 2, 'method': 'version', 'params': {'surplus': 1}})['error']
        assert e['code'] == -32602 and 'surplus' in e['message'], e
        e = ask(s, {'jsonrpc': '2.0', 'id': 3, 'method': 'show.connection', 'params': {'id': 123456}})['error']
        assert e['code'] == -32001 and e['data']['name'] == 'not_found', e
        assert ask(s, {'jsonrpc': '2.0', 'id': 'x', 'method': 'version'})['id'] == 'x'
    with d.control() as s:  # too long
        s.sendall(b'{' + b'x' * 70000)
        assert json.loads(s.makefile('rb').readline())['error']['code'] in (-32005, -32700)
    with d.control() as s:  # half a line, then gone
        s.sendall(b'{"jsonrpc"')
    with d.control() as s:
        s.sendall(b'\xff\xfe\x00\n')
        assert s.recv(1000)
    assert d.ctl('version')['protocol'] == 1
    assert pump(lab.connect('10.9.0.2', 7), b'x') == b'x'


def test_a_client_that_never_reads_is_dropped(lab):
    d = lab.daemon(ECHO)
    with d.control() as s:
        s.settimeout(20 * SLOW)
        line = b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n' * 50
        try:
            for _ in range(100000):
                s.sendall(line)
            raise AssertionError('it took everything')
        except (BrokenPipeError, ConnectionResetError, TimeoutError, socket.timeout):
            pass
    assert d.ctl('version')['protocol'] == 1


def test_observe_socket_only_observes(lab):
    d = lab.daemon('')
    with d.control('observe.sock') as s:
        assert 'result' in ask(s, {'jsonrpc': '2.0', 'id': 1, 'method': 'status'})
        for method, params in (('listen', {'address': '10.9.0.2:7', 'service': 'echo'}), ('shutdown', {}), ('reload', {})):
            e = ask(s, {'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': params})['error']
            assert e['code'] == -32002, e


def test_pipelining_keeps_the_order(lab):
    d = lab.daemon(ECHO)
    with d.control() as s:
        for i in range(50):
            s.sendall((json.dumps({'jsonrpc': '2.0', 'id': i, 'method': ('list.connections', 'version', 'status')[i % 3]}) + '\n').encode())
        f = s.makefile('rb')
        assert [json.loads(f.readline())['id'] for _ in range(50)] == list(range(50))


def test_discover_describes_every_method(lab):
    d = lab.daemon('')
    methods = {m['name'] for m in d.rpc('rpc.discover')['methods']}
    assert {'list.connections', 'show.transitions', 'listen', 'connect', 'shutdown', 'status'} <= methods


def test_reload(lab):
    d = lab.daemon(ECHO)
    s = lab.connect('10.9.0.2', 7)
    d.conf.write_text(ECHO + '[Listener t]\nAddress=10.9.0.2:13\nService=daytime\n')
    r = d.ctl('reload')
    assert r['listeners_added'] in (1, ['10.9.0.2:13']), r
    assert lab.connect('10.9.0.2', 13).recv(10)
    s.sendall(b'still')
    assert s.recv(5) == b'still'
    d.conf.write_text('[Tcp]\nMSL=bad\n')
    r = d.ctl_run('reload')
    assert r.returncode == 1 and 'tcpfsmd.conf:2' in r.stderr, r
    assert pump(lab.connect('10.9.0.2', 7), b'as before') == b'as before'
    d.conf.write_text('')
    d.ctl('reload')
    assert lab.socket().connect_ex(('10.9.0.2', 7)) != 0
    s.sendall(b'and still')
    assert s.recv(9) == b'and still'


def test_shutdown(lab):
    d = lab.daemon(ECHO)
    d.ctl('shutdown')
    d.proc.wait(10 * SLOW)
    assert d.proc.returncode == 0
    r = d.ctl_run('status')
    assert r.returncode == 3 and 'control.sock' in r.stderr, r


def test_exit_codes(lab):
    d = lab.daemon(ECHO)
    assert d.ctl_run('list', 'connections').returncode == 0
    assert d.ctl_run('list', 'nonsense').returncode == 2
    assert d.ctl_run('show', 'connection', '999999').returncode == 4
    assert d.ctl_run('listen', '10.9.0.2:7', '--service', 'echo').returncode == 1
    os.chmod(lab.dir, 0o755)
    os.chmod(d.base, 0o755)
    r = lab.run('server', ['setpriv', '--reuid', '65534', '--clear-groups', str(TCPFSMCTL), '-s', str(d.run / 'observe.sock'), 'shutdown'],
                check=False)
    assert r.returncode == 5, r
    r = lab.run('server', ['setpriv', '--reuid', '65534', '--clear-groups', str(TCPFSMCTL), '-s', str(d.run / 'observe.sock'), 'list',
                           'listeners'], check=False)
    assert r.returncode == 0, r


def test_paging(lab):
    d = lab.daemon(ECHO)
    socks = [lab.connect('10.9.0.2', 7) for _ in range(30)]
    seen, after = [], None
    while True:
        got = d.rpc('list.connections', limit=7, **({'after': after} if after else {}))
        assert len(got['connections']) <= 7
        seen += [c['id'] for c in got['connections']]
        after = got['next']
        if after is None:
            break
    assert sorted(seen) == sorted({*seen}) and len(seen) == 30
    assert len(d.connections()) == 30
    for s in socks:
        s.close()
    d.closed(30)
    seen, after = [], None
    while True:
        got = d.rpc('list.connections', closed=True, limit=7, **({'after': after} if after else {}))
        seen += [c['id'] for c in got['connections']]
        after = got['next']
        if after is None:
            break
    assert len(set(seen)) == len(seen) == 30


if __name__ == '__main__':
    run(globals())
