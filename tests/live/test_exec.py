#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exec: a process per connection."""
import os
import pathlib
import re
import resource
import socket
import threading

from lab import SOURCE, pump, read_all, run, until, variants


def server(lab, service, extra=''):
    return lab.daemon(f'[Listener x]\nAddress=*:80\nService=exec:{service}\n{extra}\n[Tcp]\nMSL=100ms\n')


def script(lab, text):
    path = pathlib.Path(lab.dir) / 'prog'
    path.write_text('#!/bin/sh\n' + text)
    path.chmod(0o755)
    os.chmod(lab.dir, 0o755)
    return path


@variants(offloads=[True, False], host=['10.9.0.2', '[fd09::2]'])
def test_curl_fetches(lab, host):
    d = server(lab, SOURCE / 'etc' / 'http-hello')
    for i in range(5):
        r = lab.run('client', ['curl', '-sS', '-i', '--max-time', '20', f'http://{host}/'])
        assert r.stdout.startswith('HTTP/1.0 200 OK') or r.stdout.startswith('HTTP/1.1 200 OK'), r.stdout
    rows = d.closed(5)
    assert all(r['exit_status'] == 0 and r['pid'] and r['run_us'] > 0 for r in rows), rows
    assert all(r['end_reason'] == 'normal' for r in rows), rows


def test_a_thousand_processes_at_once(lab):
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    d = server(lab, '/bin/cat', 'MaxProcesses=2000\n')
    socks = [lab.connect('10.9.0.2', 80, timeout=60) for _ in range(1000)]
    for i, s in enumerate(socks):
        s.sendall(b'%d\n' % i)
    for i, s in enumerate(socks):
        assert s.recv(100) == b'%d\n' % i
    assert d.ctl('status')['counters']['processes'] == 1000
    for s in socks:
        s.close()
    until(lambda: d.ctl('status')['counters']['processes'] == 0, 20, 'all processes end')


def test_environment_tells_who_is_connected(lab):
    d = server(lab, script(lab, 'env; pwd\n'))
    s = lab.connect('10.9.0.2', 80)
    env = dict(line.split('=', 1) for line in read_all(s).decode().splitlines() if '=' in line)
    assert env['TCPREMOTEIP'] == env['REMOTE_ADDR'] == '10.9.0.1', env
    assert env['TCPREMOTEPORT'] == env['REMOTE_PORT'] == str(s.getsockname()[1]), env
    assert env['TCPLOCALIP'] == '10.9.0.2' and env['TCPLOCALPORT'] == '80' and env['PROTO'] == 'TCP', env
    s.close()
    assert env['TCPFSM_CONNECTION'] == str(d.closed(1)[0]['id']), env
    assert 'NOTIFY_SOCKET' not in env and 'STATE_DIRECTORY' not in env, env


def test_nothing_leaks_into_the_process(lab):
    server(lab, script(lab, 'ls /proc/$$/fd\ngrep -E "^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|SigBlk|SigIgn)" /proc/self/status\n'))
    text = read_all(lab.connect('10.9.0.2', 80)).decode()
    fds = {int(x) for x in re.findall(r'^\d+$', text, re.M)}
    assert fds <= {0, 1, 2, 10}, text  # 10 is the shell's own, for its script
    for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb'):
        assert re.search(rf'^{name}:\s+0+$', text, re.M), text
    assert re.search(r'^NoNewPrivs:\s+1$', text, re.M), text
    assert re.search(r'^SigBlk:\s+0+$', text, re.M) and re.search(r'^SigIgn:\s+0+$', text, re.M), text


def test_exit_status_is_recorded(lab):
    d = server(lab, script(lab, 'echo bye; exit 7\n'))
    s = lab.connect('10.9.0.2', 80)
    assert read_all(s) == b'bye\n'
    s.close()
    row = d.closed(1)[0]
    assert row['exit_status'] == 7 and row['exit_signal'] is None and row['end_reason'] == 'normal', row


def test_death_by_signal_resets(lab):
    d = server(lab, script(lab, 'kill -KILL $$\n'))
    s = lab.connect('10.9.0.2', 80)
    try:
        s.recv(1)
        raise AssertionError('no reset')
    except ConnectionResetError:
        pass
    row = d.closed(1)[0]
    assert row['exit_signal'] == 9 and row['end_reason'] == 'reset_by_service', row


def test_peer_reset_ends_the_process(lab):
    d = server(lab, script(lab, f'echo $$; exec sleep 1000\n'))
    s = lab.connect('10.9.0.2', 80)
    pid = int(s.makefile().readline())
    import struct
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    os.close(s.detach())
    until(lambda: not os.path.exists(f'/proc/{pid}'), 15, 'the process ends')
    row = until(lambda: (r := d.closed(1)[0]) and r['exit_signal'] and r, 10, 'the exit status, later than the end of the connection')
    assert row['end_reason'] == 'reset_by_peer' and row['exit_signal'] == 1, row


def test_both_halves_flow_independently(lab):
    server(lab, '/bin/cat')
    data = os.urandom(4_000_000)
    assert pump(lab.connect('10.9.0.2', 80), data) == data


def test_back_pressure(lab):
    """A peer that does not read stops the process; a process that does not read stops the peer."""
    d = server(lab, script(lab, 'head -c 30000000 /dev/zero; cat >/dev/null\n'), 'SendBuffer=128K\nReceiveBuffer=128K\n')
    s = lab.connect('10.9.0.2', 80)
    conn = until(lambda: d.connections())[0]['id']
    sizes = []
    until(lambda: (sizes.append(d.ctl('show', 'connection', conn)['send_queue_bytes']) or sizes[-1] > 100_000), what='a full queue')
    assert max(sizes) <= 128 * 1024, sizes
    assert len(read_all(s, 30_000_000)) == 30_000_000
    s.settimeout(2)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    s.sendall(bytes(5_000_000))
    s.shutdown(socket.SHUT_WR)
    assert read_all(s) == b''
    assert d.closed(1)[0]['bytes_in'] == 5_000_000


def test_limit_on_processes(lab):
    d = server(lab, '/bin/cat', 'MaxProcesses=3\n')
    held = []
    for _ in range(3):
        s = lab.connect('10.9.0.2', 80)
        s.sendall(b'x')
        assert s.recv(1) == b'x'
        held.append(s)
    assert once(lab) is None, 'a fourth process'
    held.pop().close()
    d.closed(2)
    s = until(lambda: once(lab), 10, 'a free place')
    assert s


def once(lab):
    try:
        s = lab.connect('10.9.0.2', 80)
        s.sendall(b'y')
        return s.recv(1) == b'y' and s
    except ConnectionResetError:
        return None


def test_processes_end_with_the_daemon(lab):
    d = server(lab, script(lab, 'echo $$; exec sleep 1000\n'))
    pids = [int(lab.connect('10.9.0.2', 80).makefile().readline()) for _ in range(3)]
    d.kill()
    until(lambda: not any(os.path.exists(f'/proc/{p}') for p in pids), 15, 'the processes end')
    lab.run('server', [str(lab_tcpfsmd()), '--cleanup'], env=dict(os.environ, RUNTIME_DIRECTORY=str(d.run)))


def lab_tcpfsmd():
    from lab import TCPFSMD
    return TCPFSMD


def test_program_that_is_missing_is_refused(lab):
    d = lab.daemon('')
    r = d.ctl_run('listen', '10.9.0.2:81', '--service', 'exec:/no/such/program')
    assert r.returncode in (1, 2) and '/no/such/program' in r.stderr, r
    assert d.ctl('list', 'listeners')['listeners'] == []


def test_two_hundred_at_once(lab):
    d = server(lab, '/bin/cat', 'MaxProcesses=300\n')
    out = []

    def one():
        out.append(pump(lab.connect('10.9.0.2', 80, timeout=60), b'x' * 10000) == b'x' * 10000)
    threads = [threading.Thread(target=one) for _ in range(200)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert out == [True] * 200
    rows = until(lambda: (r := d.connections(closed=True)) and len(r) == 200 and r, 20)
    assert {r['exit_status'] for r in rows} == {0} and len({r['pid'] for r in rows}) == 200


if __name__ == '__main__':
    run(globals())
