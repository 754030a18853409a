# SPDX-License-Identifier: Apache-2.0
"""Live tests: namespaces of our own, a tcpfsmd in one of them, kernel peers in the other.

Namespaces are held by processes that die with the test (parent-death signal), so that nothing is
left behind however the test ends. Every test function gets a fresh Lab:

    def test_something(lab):            # a veth pair, 10.9.0.1 (client) - 10.9.0.2 (server)
        d = lab.daemon('[Listener echo]\\nAddress=10.9.0.2:7\\nService=echo\\n')
        s = lab.connect('10.9.0.2', 7)
        ...

run(globals()) at the end of the file runs them and prints TAP.
"""
import collections
import contextlib
import ctypes
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)
BUILD = pathlib.Path(os.environ.get('TCPFSM_BUILD', '.'))
SOURCE = pathlib.Path(os.environ.get('TCPFSM_SOURCE', pathlib.Path(__file__).resolve().parents[2]))
TCPFSMD = BUILD / 'daemon' / 'tcpfsmd'
TCPFSMCTL = BUILD / 'ctl' / 'tcpfsmctl'
WORKERS = os.environ.get('TCPFSM_WORKERS')  # for daemons whose configuration does not say
SLOW = float(os.environ.get('TCPFSM_SLOW', '1'))  # sanitizer builds wait longer


def skip_all(why):
    print(f'1..0 # SKIP {why}')
    sys.exit(0)


class Skip(Exception):
    pass


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


PATIENCE = 30.0  # seconds in which what has to happen happens also on a machine that others use


def until(condition, seconds=PATIENCE, what='condition'):
    """Polls; for what happens in another process. Returns the condition's value. The time only ends a test that hangs."""
    seconds = max(seconds, PATIENCE)
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f'{what}: not within {seconds * SLOW:g} s')
        time.sleep(0.01)


# While somebody wants to know when frames arrived, the kernel stamps each as it enters, before the daemon has it. Else a capture
# stamps what it is given, when it is given it: an answer may be earlier than what it answers.
stamps = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stamps.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS


class Daemon:
    """A running tcpfsmd with directories of its own."""

    def __init__(self, lab, ns, config, args=(), wait=True, base=None, prefix=()):
        self.lab, self.ns = lab, ns
        self.base = pathlib.Path(base or tempfile.mkdtemp(dir=lab.dir))
        self.run, self.state = self.base / 'run', self.base / 'state'
        self.run.mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)
        self.conf = self.base / 'tcpfsmd.conf'
        if config is not None:
            self.conf.write_text(config)
        self.log = self.base / 'log'
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f'{self.base}/notify'
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        self.notify.bind(name)
        if WORKERS and 'Workers=' not in (config or ''):
            args = ['-o', f'Daemon.Workers={WORKERS}', *args]
        env = dict(os.environ, RUNTIME_DIRECTORY=str(self.run), STATE_DIRECTORY=str(self.state), NOTIFY_SOCKET=name)
        self.proc = lab.popen(ns, [*prefix, str(TCPFSMD), '-c', str(self.conf), *args], env=env,
                              stdout=subprocess.DEVNULL, stderr=self.log.open('ab'))
        self.messages = ''
        lab.daemons.append(self)
        if wait:
            self.wait_for('READY=1')

    def wait_for(self, word, seconds=PATIENCE):
        end = time.monotonic() + seconds * SLOW
        while word not in self.messages:
            if self.proc.poll() is not None:
                raise AssertionError(f'tcpfsmd ended with {self.proc.returncode}:\n{self.log.read_text()}')
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f'no {word} from tcpfsmd:\n{self.log.read_text()}')
            if select.select([self.notify], [], [], min(left, 0.2))[0]:
                self.messages += self.notify.recv(4096).decode() + '\n'

    def ctl_run(self, *args, **kw):
        return self.lab.run(self.ns, [str(TCPFSMCTL), '-s', str(self.run / 'control.sock'), *map(str, args)],
                            check=False, **kw)

    def ctl(self, *args):
        """tcpfsmctl ... -o json, decoded; fails the test when tcpfsmctl fails."""
        r = self.ctl_run(*args, '-o', 'json')
        assert r.returncode == 0, f'tcpfsmctl {" ".join(map(str, args))}: exit {r.returncode}: {r.stderr}'
        return json.loads(r.stdout)

    def rpc(self, method, **params):
        """One JSON-RPC call without tcpfsmctl; returns result or raises RuntimeError(error)."""
        with self.control() as s:
            s.sendall(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': params}).encode() + b'\n')
            answer = json.loads(s.makefile('rb').readline())
        if 'error' in answer:
            raise RuntimeError(answer['error'])
        return answer['result']

    def control(self, name='control.sock'):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(PATIENCE * SLOW)
        s.connect(str(self.run / name))
        return s

    def connections(self, *filter, closed=False):
        args = ['list', 'connections', *filter] + (['--closed'] if closed else [])
        got = self.ctl(*args)
        return got['connections'] if isinstance(got, dict) else got

    def closed(self, n=1, seconds=PATIENCE, *filter):
        """Waits for n rows in the record, newest first."""
        return until(lambda: (rows := self.connections(*filter, closed=True)) and len(rows) >= n and rows, seconds,
                     f'{n} closed connections')

    def stop(self, sig=signal.SIGTERM, code=0):
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        self.proc.wait(60 * SLOW)
        self.notify.close()
        text = self.log.read_text()
        assert 'Sanitizer' not in text, text
        assert self.proc.returncode == code, f'tcpfsmd ended with {self.proc.returncode}, not {code}:\n{text}'
        return text

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        self.notify.close()


Repeated = collections.namedtuple('Repeated', 'ours stream seq seconds acked least')


class Side:
    """What one side of a connection sent, as a capture has it: see Lab.repeated()."""

    def __init__(self):
        self.top = None  # behind the last octet that was sent
        self.una, self.acks = 0, []  # acknowledged so far; (up to, when)
        self.all, self.flight = [], []  # what was sent, and of that what is not acknowledged: (first, behind the last, when, again)
        self.rtt = None  # the least

    def acknowledged(self, ack, at):
        if ack <= self.una:
            return
        self.una = ack
        self.acks.append((ack, at))
        done = [f for f in self.flight if f[1] <= ack]
        if done and not done[-1][3]:
            self.rtt = min(at - done[-1][2], at if self.rtt is None else self.rtt)
        self.flight = [f for f in self.flight if f[1] > ack]

    def sent(self, seq, end, at):
        """None: it is new."""
        again = None
        if self.top is not None and seq < self.top:
            before = [f[2] for f in self.all if f[0] <= seq < f[1]]
            ack = next((at - when for upto, when in self.acks if upto >= min(end, self.top)), None)
            least = 0.2 if self.rtt is None else min(2 * self.rtt + 0.002, 0.2)
            again = seq, at - before[-1] if before else None, ack, least
        for sent in (self.all, self.flight):
            sent.append((seq, end, at, again is not None))
        self.top = max(self.top or 0, end)
        return again


class Lab:
    """Two namespaces, `client` and `server`, joined by a veth pair; lo is up in both. order: see keep_order()."""

    def __init__(self, offloads=True, mtu=1500, order=True):
        self.dir = tempfile.mkdtemp(prefix='tcpfsm-live.')
        self.offloads = offloads
        self.procs, self.daemons, self.sockets, self.holders = [], [], [], {}
        try:
            for ns in ('client', 'server'):
                self.holders[ns] = self.hold()
                # duplicate address detection would hold IPv6 back for a second
                self.sh(ns, 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad')
            self.sh('client', f'ip link add v0 mtu {mtu} type veth peer name v1 mtu {mtu} netns {self.holders["server"].pid}')
            for ns, dev, n in (('client', 'v0', 1), ('server', 'v1', 2)):
                self.sh(ns, 'ip link set lo up')
                self.sh(ns, f'ip addr add 10.9.0.{n}/24 dev {dev}')
                self.sh(ns, f'ip -6 addr add fd09::{n}/64 dev {dev} nodad')
                self.sh(ns, f'ip link set {dev} up')
                if not offloads:
                    self.sh(ns, f'ethtool -K {dev} tx off rx off sg off tso off gso off gro off >/dev/null')
                if order:
                    self.keep_order(ns, dev)
            for ns, dev in ('client', 'v0'), ('server', 'v1'):  # the kernel hears of carriers later, and drops what is sent before
                self.sh(ns, f"until ip -o link show {dev} | grep -q 'state UP'; do :; done")
        except BaseException:
            self.close()
            raise

    def hold(self):
        p = subprocess.Popen(['unshare', '--net', 'sh', '-c', 'echo ready; exec sleep 3600'], stdout=subprocess.PIPE,
                             preexec_fn=die_with_parent)
        assert p.stdout.readline() == b'ready\n', 'cannot make a network namespace'
        return p

    def keep_order(self, ns, *devs):
        """Else a veth queues a frame at the processor that its sender is on, and they overtake each other."""
        self.run(ns, ['unshare', '-m', 'sh', '-c', 'mount -t sysfs none /sys && for d in ' + ' '.join(devs) +
                      '; do echo 1 >/sys/class/net/$d/queues/rx-0/rps_cpus; done'])

    def enter(self, ns):
        return ['nsenter', f'--net=/proc/{self.holders[ns].pid}/ns/net', '--']

    def popen(self, ns, argv, **kw):
        p = subprocess.Popen(self.enter(ns) + argv, preexec_fn=die_with_parent, **kw)
        self.procs.append(p)
        return p

    def run(self, ns, argv, check=True, timeout=60, **kw):
        r = subprocess.run(self.enter(ns) + argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=kw.pop('text', True),
                           timeout=timeout * SLOW, preexec_fn=die_with_parent, **kw)
        if check and r.returncode:
            raise AssertionError(f'{argv}: exit {r.returncode}: {r.stdout}{r.stderr}')
        return r

    def sh(self, ns, command, **kw):
        return self.run(ns, ['sh', '-c', command], **kw).stdout

    @contextlib.contextmanager
    def inside(self, ns):
        """This thread is in the namespace meanwhile; sockets made in it stay there."""
        with open('/proc/thread-self/ns/net') as home, open(f'/proc/{self.holders[ns].pid}/ns/net') as there:
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), 'setns')
            try:
                yield
            finally:
                libc.setns(home.fileno(), CLONE_NEWNET)

    def socket(self, ns='client', family=socket.AF_INET, kind=socket.SOCK_STREAM, proto=0, timeout=PATIENCE):
        with self.inside(ns):
            s = socket.socket(family, kind, proto)
        s.settimeout(timeout * SLOW if timeout else None)
        self.sockets.append(s)
        return s

    def connect(self, host, port, ns='client', timeout=PATIENCE):
        s = self.socket(ns, socket.AF_INET6 if ':' in host else socket.AF_INET, timeout=timeout)
        s.connect((host, port))
        return s

    def listen(self, host, port, ns='client', backlog=64):
        s = self.socket(ns, socket.AF_INET6 if ':' in host else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
        s.listen(backlog)
        return s

    def daemon(self, config='', args=(), ns='server', **kw):
        return Daemon(self, ns, config, args, **kw)

    def capture(self, ns, dev, expr='tcp'):
        """A tcpdump that has started; .stop() ends it and gives the path of the capture."""
        path = tempfile.mktemp(suffix='.pcap', dir=self.dir)
        p = self.popen(ns, ['tcpdump', '-i', dev, '-U', '--immediate-mode', '--time-stamp-precision=nano', '-s', '0', '-B', '65536', '-w', path,
                            expr], stderr=subprocess.PIPE, text=True)
        while 'listening on' not in p.stderr.readline():
            assert p.poll() is None, 'tcpdump did not start'

        class Capture:
            def stop(self):
                time.sleep(0.1 * SLOW)
                for _ in range(3):  # what is in the kernel's ring has reached tcpdump when it sleeps
                    until(lambda: open(f'/proc/{p.pid}/stat').read().rsplit(')', 1)[1].split()[0] == 'S', what='tcpdump has seen all')
                    time.sleep(0.01)
                p.send_signal(signal.SIGINT)
                p.wait()
                # A frame that arrives is given to the daemon first: tcpdump may have got the answer before.
                subprocess.run(['reordercap', path, path + '.sorted'], stdout=subprocess.DEVNULL, check=True)
                os.rename(path + '.sorted', path)
                return path
        return Capture()

    def tshark(self, path, *args):
        return subprocess.run(['tshark', '-r', path, *args], capture_output=True, text=True, check=True).stdout

    def repeated(self, path, *ours):
        """The segments of a capture at our side, on a link that loses nothing, that repeat what their side has sent before.
        `seconds`: since then; `acked`: since its acknowledgement was on its way here, None if it was not; `least`: what a
        correct sender waits at least, that is for the probe of RFC 8985 7.2, or the least RTO."""
        fields = ('frame.time_epoch', 'tcp.stream', 'ip.src', 'ipv6.src', 'tcp.seq', 'tcp.len', 'tcp.ack', 'tcp.flags')
        out = self.tshark(path, '-o', 'tcp.desegment_tcp_streams:FALSE', '-T', 'fields', '-E', 'separator=;', '-E', 'occurrence=f',
                          *(w for f in fields for w in ('-e', f)))
        sides, found = {}, []
        for line in out.splitlines():
            at, stream, v4, v6, seq, n, ack, flags = line.split(';')
            at, seq, flags = float(at), int(seq), int(flags, 16)
            end = seq + int(n) + (flags & 1) + (flags >> 1 & 1)
            mine = (v4 or v6) in ours
            me, peer = (sides.setdefault((stream, side), Side()) for side in (mine, not mine))
            if flags & 0x10:
                peer.acknowledged(int(ack), at)
            if end > seq:
                again = me.sent(seq, end, at)
                if again:
                    found.append(Repeated(mine, stream, *again))
        return found

    def assert_none_too_soon(self, repeated):
        """Where nothing is lost we send again only what has had no answer for as long as a probe waits, since a machine may
        stall. An answer may be on its way through a kernel that stalls."""
        bad = [x for x in repeated if x.ours and not (x.seconds and x.seconds >= x.least and (x.acked is None or x.acked < 0.1))]
        assert not bad, bad

    def rules(self, ns='server'):
        return ''.join(self.sh(ns, f'{tool}-save 2>/dev/null || true') for tool in ('iptables', 'ip6tables'))

    def assert_clean(self, ns='server'):
        """No rule of ours, nothing of ours in ss."""
        left = [line for line in self.rules(ns).splitlines() if re.search('tcpfsm', line, re.I)]
        assert not left, f'rules left behind: {left}'

    def kill_children_of_children(self):
        """A server's workers outlive it when it is killed: whoever is in a namespace of ours goes."""
        def namespace(pid):
            try:
                return os.stat(f'/proc/{pid}/ns/net').st_ino
            except OSError:  # it has ended
                return None
        holders = {p.pid for p in self.holders.values() if p.poll() is None}
        ours = {namespace(pid) for pid in holders} - {None, namespace('self')}
        for pid in (int(name) for name in os.listdir('/proc') if name.isdigit()):
            if pid not in holders and namespace(pid) in ours:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self):
        for d in self.daemons:
            if d.proc.poll() is None:
                d.proc.terminate()
                try:
                    d.proc.wait(20 * SLOW)
                except subprocess.TimeoutExpired:
                    d.proc.kill()
        for s in self.sockets:
            s.close()
        for p in self.procs:
            if p.poll() is None:
                p.kill()
            p.wait()
        self.kill_children_of_children()
        for p in self.procs + list(self.holders.values()):
            if p.poll() is None:
                p.kill()
            p.wait()
            for f in (p.stdin, p.stdout, p.stderr):
                if f:
                    f.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def read_all(s, limit=None):
    """Until end of file (or limit octets)."""
    parts, n = [], 0
    while limit is None or n < limit:
        got = s.recv(1 << 18)
        if not got:
            break
        parts.append(got)
        n += len(got)
    return b''.join(parts)


def pump(s, data, limit=None):
    """Sends data and reads at the same time; half-closes after it. Returns what came back."""
    def feed():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=feed, daemon=True)
    t.start()
    got = read_all(s, limit)
    t.join(60 * SLOW)
    return got


def variants(**choices):
    """Marks a test: it runs once for each value, e.g. variants(offloads=[True, False])."""
    def mark(f):
        f.variants = choices
        return f
    return mark


def expand(name, f):
    cases = [(name, {})]
    for key, values in getattr(f, 'variants', {}).items():
        cases = [(f'{n} {key}={v}', {**kw, key: v}) for n, kw in cases for v in values]
    return cases


def run(scope):
    if os.geteuid() != 0:
        skip_all('needs root')
    for tool in ('ip', 'nsenter', 'unshare', 'iptables', 'ethtool', 'tcpdump'):
        if not shutil.which(tool):
            skip_all(f'needs {tool}')
    only = sys.argv[1:]
    cases = [(n, f, kw) for name, f in scope.items() if name.startswith('test_') and callable(f)
             for n, kw in expand(name, f) if not only or any(o in n for o in only)]
    print(f'1..{len(cases)}')
    failed = 0
    for i, (name, f, kw) in enumerate(cases, 1):
        lab_kw = {k: kw.pop(k) for k in list(kw) if k in ('offloads', 'mtu')}
        lab = None
        start = time.monotonic()
        try:
            lab = Lab(**lab_kw)
            f(lab, **kw)
            for d in lab.daemons:
                if d.proc.poll() is None:
                    d.stop()
            lab.assert_clean()
            print(f'ok {i} {name} ({time.monotonic() - start:.1f} s)')
        except Skip as e:
            print(f'ok {i} {name} # SKIP {e}')
        except BaseException as e:
            failed += 1
            print(f'not ok {i} {name}')
            for line in traceback.format_exc().splitlines():
                print(f'# {line}')
            for d in lab.daemons if lab else ():
                if d.proc.poll() is not None:
                    print(f'# tcpfsmd has ended with {d.proc.returncode}')
                for line in d.log.read_text(errors='replace').splitlines()[-30:]:
                    print(f'# log: {line}')
            if isinstance(e, KeyboardInterrupt):
                raise
        finally:
            sys.stdout.flush()
            if lab:
                lab.close()
    sys.exit(1 if failed else 0)
