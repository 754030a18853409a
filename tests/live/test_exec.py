#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exec: a process per connection."""
import contextlib
import os
import pathlib
import re
import resource
import signal
import socket
import threading
import time

from lab import SLOW, SOURCE, pump, read_all, run, until, variants


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
    d = server(lab, script(lab, 'read line; kill -KILL $$\n'))  # not before connect() has returned
    s = lab.connect('10.9.0.2', 80)
    s.sendall(b'die\n')
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

    def full():
        """Two windows are queued, 64 KiB at least, or there is less than a quarter of that to be told of."""
        row = d.ctl('show', 'connection', conn)
        assert row['send_queue_bytes'] <= 128 << 10, row
        most = min(128 << 10, max(64 << 10, 2 * row['detail']['cwnd_bytes']))
        return row['detail']['snd_wnd_bytes'] == 0 and row['send_queue_bytes'] > most * 3 // 4
    until(full, what='a full queue')
    # It stands, and so reads nothing: neither is all of this taken.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    s.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 5_000_000:
            sent += s.send(bytes(1 << 16))
    assert sent < 1_000_000, 'the process does not read, yet the peer goes on'
    assert d.ctl('show', 'connection', conn)['recv_queue_bytes'] <= 128 << 10
    s.settimeout(60 * SLOW)
    assert len(read_all(s, 30_000_000)) == 30_000_000
    s.sendall(bytes(5_000_000 - sent))
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


def test_another_user_with_limits(lab):
    """As root the daemon can, and its processes have no capability all the same."""
    prog = script(lab, 'id -un; id -Gn; pwd; ulimit -n; ulimit -v; echo $HOME $USER $A; touch /root/x 2>/dev/null || echo denied\n'
                       'grep -c "^Cap\\(Prm\\|Eff\\|Inh\\|Amb\\):.0*$" /proc/self/status\n')
    d = lab.daemon('')
    r = d.ctl_run('listen', '10.9.0.2:80', f'exec:{prog}', '--listener',
                  'User=nobody,WorkingDirectory=/tmp,LimitNOFILE=40,LimitAS=1GiB,Environment=A=b')
    assert r.returncode == 0, r.stderr
    said = read_all(lab.connect('10.9.0.2', 80)).decode().splitlines()
    assert said == ['nobody', 'nogroup', '/tmp', '40', '1048576', '/nonexistent nobody b', 'denied', '4'], said


def test_processor_time_is_limited(lab):
    d = server(lab, script(lab, 'while :; do :; done\n'), 'LimitCPU=1s\n')
    s = lab.connect('10.9.0.2', 80, timeout=60)
    try:
        s.recv(1)
        raise AssertionError('no reset')
    except ConnectionResetError:
        pass
    assert d.closed(1)[0]['exit_signal'] == 24, d.closed(1)  # SIGXCPU


def test_user_needs_the_capabilities(lab):
    """As by its unit: another user, two capabilities."""
    conf = lab.dir + '/conf'
    with open(conf, 'w') as f:
        f.write('[Listener x]\nAddress=10.9.0.2:80\nService=exec:/bin/cat\nUser=daemon\n')
    os.chmod(lab.dir, 0o755)
    base = lab.dir + '/base'
    for sub in ('run', 'state'):
        os.makedirs(f'{base}/{sub}')
        os.chown(f'{base}/{sub}', 65534, 65534)
    r = lab.run('server', ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all,+net_admin,+net_raw',
                           '--ambient-caps=-all,+net_admin,+net_raw', '--bounding-set=-all,+net_admin,+net_raw', str(lab_tcpfsmd()), '-c', conf],
                env=dict(os.environ, RUNTIME_DIRECTORY=f'{base}/run', STATE_DIRECTORY=f'{base}/state'), check=False)
    assert r.returncode and 'User=daemon: only a daemon that was started as root' in r.stderr, r


def test_limits_of_one_address(lab):
    lab.sh('client', 'ip addr add 10.9.0.3/24 dev v0')
    d = server(lab, '/bin/cat', 'MaxProcessesPerPeer=2\n')
    held = [once(lab) for _ in range(2)]
    assert all(held) and once(lab) is None
    other = lab.socket('client')
    other.bind(('10.9.0.3', 0))
    other.connect(('10.9.0.2', 80))
    other.sendall(b'z')
    assert other.recv(1) == b'z'
    held.pop().close()
    held.append(until(lambda: once(lab), 10, 'a free place'))
    assert d.ctl('status')['counters']['peers_refused'] >= 1


def test_a_stop_waits_for_processes(lab):
    """SIGTERM, what they say to it arrives with a FIN; who does not end by StopGrace is killed."""
    prog = script(lab, 'trap "echo bye; exit 0" TERM\necho up\nwhile :; do sleep 0.1; done\n')
    d = lab.daemon(f'[Daemon]\nStopGrace={60 * SLOW:g}s\n[Listener x]\nAddress=*:80\nService=exec:{prog}\n'
                   f"[Listener y]\nAddress=*:81\nKillAfter=300ms\nService=exec:/bin/sh -c 'trap \"\" TERM HUP; echo up; exec sleep 1000'\n"
                   '[Tcp]\nMSL=100ms\n')
    s, stubborn = lab.connect('10.9.0.2', 80), lab.connect('10.9.0.2', 81)
    assert s.recv(10) == stubborn.recv(10) == b'up\n'
    start = time.monotonic()
    d.proc.send_signal(signal.SIGTERM)
    assert read_all(s) == b'bye\n'
    s.close()
    assert read_all(stubborn) == b''
    stubborn.close()
    d.stop()
    assert time.monotonic() - start < 30 * SLOW


def test_two_hundred_processes_a_second(lab):
    """One after the other for some seconds, with nothing left behind. What counts is the processor time of each, its
    own included, beside what the kernel needs to start it at all, here and now."""
    d = server(lab, '/bin/true')
    spawner = spawner_of(d)
    descriptors = lambda: [len(os.listdir(f'/proc/{p}/fd')) for p in (d.proc.pid, spawner)]

    def one():
        s = lab.connect('10.9.0.2', 80)
        assert s.recv(1) == b''
        s.close()
    one()  # then the spawner, which is made beside us, has all that it keeps
    before = descriptors()
    n, start, used = 0, time.monotonic(), processor_time(d.proc.pid) + processor_time(spawner)
    while time.monotonic() - start < 3:
        one()
        n += 1
    took = time.monotonic() - start
    until(lambda: d.ctl('status')['counters']['processes'] == 0, 10, 'all processes end')
    used = processor_time(d.proc.pid) + processor_time(spawner) - used
    least = bare_process_time(200)
    print(f'# {n / took:.0f} processes a second, {n / used:.0f} in one of processor time, {used / n / least:.1f} times a bare one')
    assert used / n < 6 * SLOW * least, (n, used, least)
    until(lambda: not d.connections(), 10, 'all connections end')
    # A control client's, which was about to go, may have counted before.
    until(lambda: all(n <= b for n, b in zip(descriptors(), before)), 10, f'no more descriptors than before, {before}')
    assert children(spawner) == [], 'zombies'


def bare_process_time(n):
    """Seconds of processor time for each of n."""
    def spent():
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
    before = spent()
    for _ in range(n):
        os.waitpid(os.posix_spawn('/bin/true', ['true'], os.environ), 0)
    return (spent() - before) / n


def processor_time(pid):
    """Seconds, with those of its reaped children."""
    fields = open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')


def children(pid):
    return [p for p in open(f'/proc/{pid}/task/{pid}/children').read().split()]


def spawner_of(d):
    return next(p for p in children(d.proc.pid) if open(f'/proc/{p}/comm').read().startswith('tcpfsmd-spawner'[:15]))


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
