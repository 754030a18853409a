#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What people use every day, unmodified, over tcpfsmd: as the server against a kernel's client, as the client against a
kernel's server, and both over tcpfsmd. README has the matrix. $TCPFSM_LONG moves 1 GiB where 64 MiB are enough each day."""
import contextlib
import hashlib
import json
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys

from lab import Skip, run, until, variants
from test_programs import CONF, blob, digest, need, over, wait_kernel, wait_listener

ALL = ['server', 'client', 'both']
LARGE = 1 << 30 if os.environ.get('TCPFSM_LONG') else 64 << 20
POSTGRES = pathlib.Path('/usr/lib/postgresql')


class Sides:
    """A server and clients, of which those of `ours` are over the daemon; the others are in the kernel's namespace."""

    def __init__(self, lab, ours):
        self.lab, self.ours, self.d = lab, ours, lab.daemon(CONF)
        os.chmod(lab.dir, 0o755)  # some servers take another user
        self.host = '10.9.0.1' if ours == 'client' else '10.9.0.2'

    def place(self, role, argv):
        argv = list(map(str, argv))
        return ('server', over(self.d, *argv)) if self.ours in (role, 'both') else ('client', argv)

    def serve(self, argv, port, **kw):
        """Starts the server, waits until it listens, and by whom."""
        kw.setdefault('stdout', subprocess.DEVNULL)
        kw.setdefault('stderr', open(f'{self.lab.dir}/server.log', 'wb'))
        ns, argv = self.place('server', argv)
        p = self.lab.popen(ns, argv, **kw)
        try:
            if ns == 'server':
                wait_listener(self.d, port)
                assert f':{port} ' not in self.lab.sh('server', 'ss -Hltn'), 'the kernel listens'
            else:
                wait_kernel(self.lab, 'client', port)
        except AssertionError as e:
            raise AssertionError(f'{e}\n{self.log()}') from None
        return p

    def listens(self, port):
        if self.ours == 'client':
            return f':{port} ' in self.lab.sh('client', 'ss -Hltn')
        return any(x['address'].endswith(f':{port}') and not x['draining'] for x in self.d.ctl('list', 'listeners')['listeners'])

    def log(self):
        return pathlib.Path(f'{self.lab.dir}/server.log').read_text(errors='replace')[-3000:]

    def client(self, argv, **kw):
        ns, argv = self.place('client', argv)
        r = self.lab.run(ns, argv, check=False, timeout=kw.pop('timeout', 120), **kw)
        if r.returncode:
            raise AssertionError(f'{argv}: exit {r.returncode}: {r.stdout}{r.stderr}\nserver: {self.log()}')
        return r.stdout

    def carried(self, n=1):
        """It was our TCP that carried them: n streams, each on both sides when both are ours."""
        n *= 2 if self.ours == 'both' else 1

        def streams():
            return [c for closed in (False, True) for c in self.d.connections(closed=closed) if c['service'] == 'stream']
        return until(lambda: (got := streams()) and len(got) >= n and got, 10, f'{n} streams')


def end(p, sig=None):
    p.send_signal(sig) if sig else p.terminate()
    p.wait(20)


@variants(ours=ALL)
def test_ncat(lab, ours):
    need('ncat')
    s = Sides(lab, ours)
    path, want = blob(lab)
    with open(f'{lab.dir}/got', 'wb') as out, open(path, 'rb') as src:
        p = s.serve(['ncat', '-l', '9000'], 9000, stdin=subprocess.DEVNULL, stdout=out)
        s.client(['ncat', '--send-only', s.host, '9000'], stdin=src)
        assert p.wait(30) == 0
    assert digest(f'{lab.dir}/got') == want
    s.carried()


@variants(ours=ALL)
def test_socat(lab, ours):
    """Both directions at a time, and the end of each."""
    need('socat')
    s = Sides(lab, ours)
    path, want = blob(lab)
    s.serve(['socat', '-b65536', 'TCP-LISTEN:9000,reuseaddr,fork', 'EXEC:cat'], 9000)
    s.client(['sh', '-c', f'socat -t60 -b65536 - TCP:{s.host}:9000 < {path} > {lab.dir}/got'])
    assert digest(f'{lab.dir}/got') == want
    s.carried()


@variants(ours=ALL)
def test_nc(lab, ours):
    need('nc')
    s = Sides(lab, ours)
    path, want = blob(lab)
    with open(f'{lab.dir}/got', 'wb') as out, open(path, 'rb') as src:
        p = s.serve(['nc', '-l', '9000'], 9000, stdin=subprocess.DEVNULL, stdout=out)
        s.client(['nc', '-N', s.host, '9000'], stdin=src)
        assert p.wait(30) == 0
    assert digest(f'{lab.dir}/got') == want
    s.carried()


@variants(ours=ALL)
def test_iperf3(lab, ours):
    """Its server checks by TCP_INFO and TCP_MAXSEG, its client asks for the congestion control's name."""
    need('iperf3')
    s = Sides(lab, ours)
    s.serve(['iperf3', '-s', '-B', s.host], 5201)
    for args, streams in ([], 1), (['-R'], 1), (['-P', '8'], 8), (['-P', '8', '-R'], 8):
        # Between two tests its server closes its listener, and opens it again.
        r = until(lambda: s.listens(5201) and json.loads(s.client(['iperf3', '-c', s.host, '-J', '-t', '1', *args])), 10, 'its listener')
        assert 'error' not in r, r['error']
        got = r['end']
        assert len(got['streams']) == streams and all(x['receiver']['bytes'] > 100000 for x in got['streams']), got
        assert got['sum_received']['bytes'] <= got['sum_sent']['bytes']
    s.carried(4 + 1 + 1 + 8 + 8)


def nginx_conf(lab, more='', nopush='on'):
    conf = pathlib.Path(lab.dir) / 'nginx.conf'
    temp = ' '.join(f'{x}_temp_path {lab.dir}/t-{x};' for x in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))
    conf.write_text(f'''daemon off; user root; worker_processes 2; pid {lab.dir}/nginx.pid; error_log {lab.dir}/error.log;
events {{ worker_connections 512; }}
http {{ access_log off; sendfile on; tcp_nopush {nopush}; keepalive_requests 100000; {temp} {more}
server {{ listen 8080 backlog=256; root {lab.dir}; }} }}\n''')
    return conf


@variants(ours=ALL)
def test_nginx_and_wrk(lab, ours):
    need('nginx')
    need('wrk')
    s = Sides(lab, ours)
    path, want = blob(lab)
    pathlib.Path(lab.dir, 'small').write_bytes(b'x' * 600)
    s.serve([shutil.which('nginx'), '-c', nginx_conf(lab), '-e', f'{lab.dir}/error.log'], 8080)
    out = s.client(['wrk', '-t', '2', '-c', '50', '-d', '2', '--timeout', '30s', f'http://{s.host}:8080/small'])
    assert 'Non-2xx' not in out and 'Socket errors' not in out, out
    assert int(re.search(r'(\d+) requests in', out)[1]) > 200, out
    s.client(['curl', '-sS', '--max-time', '60', '-o', f'{lab.dir}/got', f'http://{s.host}:8080/{path.name}'])
    assert digest(f'{lab.dir}/got') == want
    s.carried(50)


@variants(ours=ALL)
def test_redis(lab, ours):
    need('redis-server')
    need('redis-benchmark')
    s = Sides(lab, ours)
    s.serve(['redis-server', '--bind', s.host, '--port', '6379', '--save', '', '--dir', lab.dir, '--protected-mode', 'no'], 6379)
    for args in (['-n', '4000'], ['-n', '20000', '-P', '16'], ['-n', '500', '-k', '0'], ['-n', '500', '-d', '20000']):
        out = s.client(['redis-benchmark', '-h', s.host, '-c', '50', '-t', 'set,get', '--csv', *args])
        assert out.count('"SET"') == 1 and out.count('"GET"') == 1, out
    s.client(['redis-cli', '-h', s.host, 'SET', 'k', 'tcpfsm'])
    assert s.client(['redis-cli', '-h', s.host, 'GET', 'k']) == 'tcpfsm\n'
    s.carried(1000)


@variants(ours=ALL)
def test_ssh(lab, ours):
    """sshd forks and executes itself for each connection; keys and configuration are the test's own."""
    sshd = '/usr/sbin/sshd'
    need(sshd)
    s = Sides(lab, ours)
    for key in ('host', 'user'):
        lab.run('client', ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', f'{lab.dir}/{key}'])
    shutil.copy(f'{lab.dir}/user.pub', f'{lab.dir}/authorized')
    pathlib.Path(lab.dir, 'known').write_text(f'[{s.host}]:2222 ' + pathlib.Path(lab.dir, 'host.pub').read_text())
    pathlib.Path(lab.dir, 'sshd_config').write_text(
        f'Port 2222\nListenAddress {s.host}\nHostKey {lab.dir}/host\nAuthorizedKeysFile {lab.dir}/authorized\nStrictModes no\n'
        f'PidFile none\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 50\nTCPKeepAlive yes\n')
    os.makedirs('/run/sshd', exist_ok=True)
    s.serve([sshd, '-D', '-e', '-f', f'{lab.dir}/sshd_config'], 2222)
    options = ['-F', 'none', '-o', f'UserKnownHostsFile={lab.dir}/known', '-o', 'BatchMode=yes', '-i', f'{lab.dir}/user',
               '-o', 'IdentitiesOnly=yes', '-o', f'User={pwd.getpwuid(0).pw_name}']
    where = s.client(['ssh', *options, '-p', '2222', s.host, 'echo $SSH_CONNECTION'])
    assert where.split()[2:] == [s.host, '2222'], where
    path, want = blob(lab, size=LARGE)
    s.client(['scp', *options, '-P', '2222', path, f'{s.host}:{lab.dir}/up'], timeout=900)
    assert digest(f'{lab.dir}/up') == want
    if ours == 'both':
        s.client(['scp', *options, '-P', '2222', f'{s.host}:{lab.dir}/up', f'{lab.dir}/down'], timeout=900)
        assert digest(f'{lab.dir}/down') == want
    s.carried(2)


@variants(ours=ALL)
def test_postgresql(lab, ours):
    found = sorted(POSTGRES.glob('*/bin/initdb'))
    if not found:
        raise Skip('needs postgresql')
    bins = found[-1].parent
    who = pwd.getpwnam('postgres')
    s = Sides(lab, ours)
    data = pathlib.Path(lab.dir) / 'pg'
    data.mkdir()
    os.chown(data, who.pw_uid, who.pw_gid)
    # It is another user, who needs the daemon's socket; an operator would put him into its group.
    os.chown(s.d.run / 'control.sock', who.pw_uid, -1)
    for p in (s.d.base, s.d.run):
        os.chmod(p, 0o755)
    as_user = ['setpriv', '--reuid', who.pw_name, '--regid', str(who.pw_gid), '--init-groups', '--']
    env = dict(os.environ, HOME=str(data), PATH=f'{bins}:/usr/bin:/bin', PGUSER='postgres', LC_ALL='C')
    lab.run('client', [*as_user, str(bins / 'initdb'), '-D', str(data / 'db'), '-A', 'trust', '-N', '-U', 'postgres'], env=env)
    with open(data / 'db' / 'pg_hba.conf', 'a') as f:
        f.write('host all all 10.9.0.0/24 trust\n')
    p = s.serve([*as_user, bins / 'postgres', '-D', data / 'db', '-h', s.host, '-k', '', '-c', 'fsync=off'], 5432, env=env)
    env.update(PGHOST=s.host, PGDATABASE='postgres')
    until(lambda: 'ready to accept' in s.log(), 20, 'PostgreSQL')
    s.client([bins / 'pgbench', '-q', '-i', '-s', '2'], env=env)
    out = s.client([bins / 'pgbench', '-c', '8', '-j', '2', '-t', '50', '-C'], env=env)
    assert 'number of transactions actually processed: 400/400' in out, out
    out = s.client([bins / 'pgbench', '-c', '8', '-j', '2', '-T', '2', '-S'], env=env)
    assert 'number of failed transactions: 0' in out, out
    want = hashlib.sha256(b''.join(b'%d\n' % i for i in range(300000))).hexdigest()
    got = s.client([bins / 'psql', '-AtX', '-c', 'select generate_series(0, 299999)'], env=env)
    assert hashlib.sha256(got.encode()).hexdigest() == want
    end(p)
    s.carried(400)


@variants(ours=ALL)
def test_git(lab, ours):
    need('git')
    s = Sides(lab, ours)
    env = dict(os.environ, HOME=lab.dir, GIT_CONFIG_NOSYSTEM='1')
    repo = pathlib.Path(lab.dir) / 'repo'
    git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@x', '-c', 'safe.directory=*']
    lab.run('client', [*git, 'init', '-q', str(repo)], env=env)
    (repo / 'blob').write_bytes(os.urandom(4 << 20))
    for i in range(50):
        (repo / f'file{i}').write_text(f'{i}\n' * 1000)
    lab.run('client', [*git, '-C', str(repo), 'add', '.'], env=env)
    lab.run('client', [*git, '-C', str(repo), 'commit', '-qm', 'all'], env=env)
    s.serve(['git', '-c', 'safe.directory=*', 'daemon', '--export-all', f'--base-path={lab.dir}', '--reuseaddr', '--listen=' + s.host], 9418,
            env=env)
    s.client([*git, 'clone', '-q', f'git://{s.host}/repo', f'{lab.dir}/clone'], env=env)
    assert digest(f'{lab.dir}/clone/blob') == digest(repo / 'blob')
    ids = [lab.run('client', [*git, '-C', str(x), 'rev-parse', 'HEAD'], env=env).stdout for x in (repo, f'{lab.dir}/clone')]
    assert ids[0] == ids[1]
    s.carried()


# CPython's own tests of TCP sockets; both sides over the daemon.
CPYTHON = """BasicTCPTest BasicTCPTest2 TCPCloserTest NonBlockingTCPTests FileObjectClassTestCase UnbufferedFileObjectClassTestCase
LineBufferedFileObjectClassTestCase SmallBufferedFileObjectClassTestCase UnicodeReadFileObjectClassTestCase
UnicodeWriteFileObjectClassTestCase UnicodeReadWriteFileObjectClassTestCase NetworkConnectionNoServer
NetworkConnectionAttributesTest NetworkConnectionBehaviourTest TCPTimeoutTest InheritanceTest
SendfileUsingSendTest SendfileUsingSendfileTest BufferIOTest SendmsgTCPTest RecvmsgTCPTest RecvmsgIntoTCPTest InterruptedRecvTimeoutTest
InterruptedSendTimeoutTest CreateServerTest CreateServerFunctionalTest""".split()


def test_cpythons_test_socket(lab):
    if not pathlib.Path('/usr/lib/python3.11/test/test_socket.py').exists():
        raise Skip('needs libpython3.11-testsuite')
    d = lab.daemon(CONF)
    parts = [lab.popen('server', over(d, '/usr/bin/python3.11', '-m', 'unittest', *[f'test.test_socket.{c}' for c in CPYTHON[i::3]]),
                       stderr=subprocess.PIPE, text=True) for i in range(3)]
    ran = 0
    for p in parts:
        said = p.communicate(timeout=200)[1]
        assert p.returncode == 0, said[-3000:]
        ran += int(re.search(r'Ran (\d+) tests', said)[1])
    assert ran > 200, ran
    assert len(d.connections(closed=True)) > 200


if __name__ == '__main__':
    run(globals())
