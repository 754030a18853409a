#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tcpfsmd beside the kernel's own TCP, in the same minute, on the same veth, with the same client.

usage: bench.py [--quick | --smoke | --train | --long] [--reps N] [--only WORD]... [--json FILE] [--list]

Every repetition of a line runs both servers, one right after the other and each time in the other
order, and yields the ratio of the two. The table has the median of the ratios with least and most,
and the medians of the figures. --json writes every measurement, one object a line, and the summary.
--only takes lines whose "CONFIGURATION LINE" contains a WORD. TCPFSM_BUILD names the build.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'live'))
import lab as live
import crowd

PROGRAMS = live.BUILD / 'tests' / 'bench'
SOURCES = ['-a', '10.9.0.16', '-n', '200']
CONFIGS = {
    'plain': {},
    'no-offloads': {'offloads': False},
    'mtu9000': {'mtu': 9000},
    'ipv6': {'host': 'fd09::2'},
}
FAULTS = RuntimeError, AssertionError, ValueError, OSError, subprocess.SubprocessError
# Figures where more is better; of all others less is.
MORE = {'gbps', 'rate'}
# How often a repetition is taken again whose runs had not the same distance between the cores.
AGAIN_MAX = 8
DAEMON = '''[Daemon]
Shield={shield}
Workers={workers}
MaxConnections={conns}
BufferMemory=1GiB
[Tcp]
MSL=1s
[Storage]
Record={record}
[Listener echo]
Address={host}:7
Service=echo
Backlog=65536
[Listener discard]
Address={host}:9
Service=discard
[Listener chargen]
Address={host}:19
Service=chargen
'''


class Line:
    def __init__(self, name, mode, *args, figures, servers=('kernel', 'tcpfsmd'), flood=None, known=False, conns=65536, idle=0):
        self.name, self.mode, self.args, self.figures = name, mode, list(args), figures
        self.servers, self.flood, self.known, self.conns, self.idle = servers, flood, known, conns, idle


def lines(config, scale, idle, quick=False):
    """What is measured in this configuration; scale stretches the time of each measurement."""
    t = ['-t', f'{scale:g}']
    bulk = ['gbps', 'srv_cpu_per_gb', 'both_cpu_per_gb']
    ask = ['rate', 'p50_us', 'p99_us', 'srv_us_per_op', 'both_us_per_op']
    short = ['rate', 'p99_us', 'srv_us_per_op', 'both_us_per_op']
    v6 = config == 'ipv6'
    source = [] if v6 else SOURCES
    all_lines = [
        Line('upload 1', 'up', *t, figures=bulk),
        Line('upload 8', 'up', '-c', '8', *t, figures=bulk),
        Line('download 1', 'down', *t, figures=bulk),
        Line('download 8', 'down', '-c', '8', *t, figures=bulk),
        Line('echo 1 connection', 'echo', '-s', str(int(scale * (1 << 30))), figures=bulk),
        *(Line(f'request {size} x{n}', 'rr', '-s', str(size), '-c', str(n), *t, figures=ask)
          for size in ((64,) if quick else (1, 64, 1024)) for n in (1, 64)),
        Line('short, client closes', 'cps', '-c', '64', *source, *t, figures=short),
        Line('short, client resets', 'cps', '-c', '64', '-R', *source, *t, figures=short),
    ]
    if config != 'plain':
        few = ('upload 1', 'request 64 x64') if quick else (
            'upload 1', 'upload 8', 'download 1', 'echo 1 connection', 'request 64 x1', 'request 64 x64', 'short, client resets')
        return [x for x in all_lines if x.name in few]
    return all_lines + [
        Line('short, recording / not', 'cps', '-c', '64', '-R', *source, *t, figures=short + ['rows_dropped'],
             servers=('tcpfsmd', 'recording')),
        Line('download 8, 2 workers', 'down', '-c', '8', *t, figures=bulk, servers=('kernel', 'workers')),
        Line('request 64 x64, 2 workers / 1', 'rr', '-s', '64', '-c', '64', *t, figures=ask, servers=('tcpfsmd', 'workers')),
        Line('short, 2 workers / 1', 'cps', '-c', '64', '-R', *source, *t, figures=short, servers=('tcpfsmd', 'workers')),
        Line('short, flood beside', 'cps', '-c', '16', '-R', *source, *t, figures=short + ['failed'], flood=23),
        # Long enough for a SYN that is sent again.
        Line('short, flood on the port', 'cps', '-c', '16', '-R', *source, '-t', f'{max(2, 2 * scale):g}', figures=short + ['failed'],
             flood=7, known=True),
        Line('short, the same, new clients', 'cps', '-c', '16', '-R', *source, '-t', f'{max(3, 2 * scale):g}', figures=short + ['failed'],
             flood=7),
        Line(f'idle {idle}', 'hold', '-c', str(idle), *source, figures=['rate', 'srv_us_per_op', 'rss_per_conn', 'slab_per_conn'],
             conns=idle + 1000, idle=idle),
    ]


def cheapest_shield():
    return 'bpf' if tuple(int(n) for n in os.uname().release.split('.')[:2]) >= (6, 6) else 'ingress'


class Bench:
    """The namespaces of one configuration, and runs in it."""

    def __init__(self, offloads=True, mtu=1500, host='10.9.0.2', shield=None):
        self.host, self.shield = host, shield or cheapest_shield()
        self.lab = live.Lab(offloads=offloads, mtu=mtu, order=False)
        self.sysctl = {'net.ipv4.tcp_rmem': '4096 131072 33554432', 'net.ipv4.tcp_wmem': '4096 65536 33554432',
                       'net.ipv4.tcp_max_syn_backlog': '65536', 'net.core.somaxconn': '65535', 'net.ipv4.tcp_no_metrics_save': '1',
                       'net.ipv4.neigh.default.gc_thresh3': '4096'}
        self.cc = self.congestion_control()
        mac = {ns: json.loads(self.lab.sh(ns, f'ip -j link show {dev}'))[0]['address'] for ns, dev in (('client', 'v0'), ('server', 'v1'))}
        self.server_mac = mac['server']
        self.lab.sh('server', f'ip route add 10.66.0.0/16 via 10.9.0.1; ip neigh replace 10.9.0.1 lladdr {mac["client"]} dev v1; '
                    + f'for i in $(seq 16 215); do echo neigh replace 10.9.0.$i lladdr {mac["client"]} dev v1; done | ip -b -')
        self.lab.sh('client', f'ip neigh replace 10.9.0.2 lladdr {mac["server"]} dev v0; '
                    'for i in $(seq 16 215); do echo addr add 10.9.0.$i/24 dev v0; done | ip -b -')

    def congestion_control(self):
        """The same for both servers and the client: their sockets choose it, where the kernel has it."""
        for ns in ('client', 'server'):
            for key, value in self.sysctl.items():
                self.lab.run(ns, ['sysctl', '-qw', f'{key}={value}'], check=False)
        self.lab.run('client', ['sysctl', '-qw', 'net.ipv4.ip_local_port_range=1024 65535'])
        used = []
        for ns in ('client', 'server'):
            with self.lab.inside(ns), socket.socket() as s:
                with contextlib.suppress(OSError):
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, os.environ.get('BENCH_CC', 'cubic').encode())
                used.append(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b'\0').decode())
        return '/'.join(sorted(set(used)))

    @contextlib.contextmanager
    def server(self, kind, line, procs):
        """Starts it, gives its process id, stops it."""
        if kind == 'kernel':
            p = self.lab.popen('server', [str(PROGRAMS / 'bench_kserver'), self.host, str(procs)], stdout=subprocess.PIPE)
            try:
                for _ in range(procs):
                    if p.stdout.readline() != b'ready\n':
                        raise RuntimeError('the kernel server did not start')
                yield p.pid
            finally:
                p.kill()
                p.wait()
                p.stdout.close()
            return
        host = f'[{self.host}]' if ':' in self.host else self.host
        record = 'transitions' if kind == 'recording' else 'nothing'
        workers = 2 if kind == 'workers' else 1
        d = self.lab.daemon(DAEMON.format(shield=self.shield, conns=line.conns, record=record, host=host, workers=workers))
        try:
            yield d.proc.pid
            self.status = d.ctl('status')
        finally:
            d.stop()

    def run(self, kind, line):
        procs = -(-line.idle // 15000) if line.idle else 1
        with self.server(kind, line, procs) as pid:
            flood = None
            args = ['-h', self.host, '-p', str(pid), *line.args] + (['-f', str(procs)] if line.idle else [])
            if line.known:  # each of the clients was there before
                self.lab.run('client', [str(PROGRAMS / 'bench_load'), 'cps', '-h', self.host, '-c', '8', '-R', *SOURCES, '-t', '0.3'])
            if line.flood:
                flood = self.lab.popen('client', [str(PROGRAMS / 'bench_flood'), 'v0', self.server_mac, self.host, str(line.flood), '3600'],
                                       stdout=subprocess.DEVNULL)
                time.sleep(0.2)
            r = self.lab.run('client', [str(PROGRAMS / 'bench_load'), line.mode, *args], timeout=900, check=False)
            if flood:
                flood.kill()
                flood.wait()
            if r.returncode or not r.stdout.startswith('{'):
                raise RuntimeError(f'{line.name} against {kind}: {r.stderr.strip() or r.stdout.strip()}')
        got = json.loads(r.stdout)
        if kind != 'kernel':
            got['rows_dropped'] = self.status['record']['rows_dropped']
        return got


def setting(text):
    """KEY=VALUE, for argparse."""
    key, equals, value = text.partition('=')
    if not equals or not pathlib.Path('/proc/sys', *key.split('.')).is_file():
        raise argparse.ArgumentTypeError(f'{text}: no KEY=VALUE of a sysctl that this kernel has')
    return key, value


@contextlib.contextmanager
def sysctls(settings):
    """Of the whole machine; they are what they were when it ends."""
    before = {}
    try:
        for key, value in settings:
            file = pathlib.Path('/proc/sys', *key.split('.'))
            before.setdefault(file, file.read_text())
            try:
                file.write_text(value)
            except OSError as e:
                raise SystemExit(f'bench: {key}={value}: {e.strerror}') from None
        yield
    finally:
        for file, value in before.items():
            file.write_text(value)


@contextlib.contextmanager
def awake():
    """An idle core halts and takes 100 us and more to wake up: keep all busy with what gives way.

    SCHED_IDLE alone does not give way for good: now and then it has a tick of 4 ms in which a server or client stands still.
    """
    loop = ('import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nfew = range(200)\n'
            'while True:\n os.sched_yield()\n for _ in few: pass')
    spinners = [subprocess.Popen([sys.executable, '-c', loop], preexec_fn=live.die_with_parent) for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for p in spinners:
            p.kill()
            p.wait()


def cores_ns():
    """Of a round trip between two cores: a host that moves those of a virtual machine changes what all that crosses costs."""
    return float(subprocess.run([str(PROGRAMS / 'bench_cores')], check=True, stdout=subprocess.PIPE, timeout=60).stdout)


class Distances:
    """How far apart the cores were, before and after each run."""

    def __init__(self):
        self.seen, self.again, self.unlike = [], 0, 0

    def told(self):
        by_size = sorted(self.seen)
        return (f'a round trip between the cores took {number(by_size[0])} to {number(by_size[-1])} ns, median {number(statistics.median(by_size))}; '
                f'repetitions taken again because it changed: {self.again}, left so: {self.unlike}')


def are_alike(distances):
    return max(distances) <= 2 * min(distances)


def one_pair(bench, line, rep, far):
    """A run of each server, and how far apart the cores were."""
    got, seen = {}, [cores_ns()]
    for kind in line.servers if rep % 2 else line.servers[::-1]:
        got[kind] = bench.run(kind, line)
        seen.append(cores_ns())
        got[kind]['cores_ns'] = seen[-2:]
    far.seen += seen
    return got, are_alike(seen)


def measure(bench, config, line, reps, emit, far, again_max=AGAIN_MAX):
    """reps pairs of runs; {figure: [(other, ours), ...]}"""
    pairs = {f: [] for f in line.figures}
    for rep in range(reps):
        for left in range(again_max, -1, -1):
            got, alike = one_pair(bench, line, rep, far)
            counts = alike or not left
            for kind in got:
                emit({'config': config, 'line': line.name, 'rep': rep, 'server': kind, 'counts': counts, **got[kind]})
            if counts:
                break
            far.again += 1
        far.unlike += not alike
        for f in line.figures:
            pairs[f].append(tuple(got[k][f] for k in line.servers))
    return pairs


def summary(config, line, figure, pairs):
    ratios = [ours / other for other, ours in pairs if other > 0]
    return {'config': config, 'line': line.name, 'figure': figure, 'better': 'more' if figure in MORE else 'less',
            'base': line.servers[0], 'base_median': statistics.median(p[0] for p in pairs),
            'tcpfsmd_median': statistics.median(p[1] for p in pairs),
            'ratio': statistics.median(ratios) if ratios else None,
            'ratio_min': min(ratios, default=None), 'ratio_max': max(ratios, default=None), 'reps': len(pairs)}


def number(x):
    if x is None:
        return '-'
    return f'{x:.0f}' if abs(x) >= 1000 else f'{x:.3g}'


def show(s):
    spread = f'{number(s["ratio_min"])}-{number(s["ratio_max"])}'
    print(f'{s["config"]:12}{s["line"]:31}{s["figure"]:16}{number(s["base_median"]):>9}{number(s["tcpfsmd_median"]):>9}'
          f'{number(s["ratio"]):>8}  {spread:14}', flush=True)


def arguments():
    p = argparse.ArgumentParser(description='tcpfsmd beside the kernel\'s TCP', allow_abbrev=False)
    p.add_argument('--quick', action='store_true', help='under a minute: one short repetition, 10,000 idle connections')
    p.add_argument('--smoke', action='store_true', help='do figures come out at all?')
    p.add_argument('--train', action='store_true', help='only puts tcpfsmd under each load, for a profile: see etc/build-release')
    p.add_argument('--long', action='store_true', help='a crowd of 10 million, which takes 4 GB, instead of one million')
    p.add_argument('--reps', type=int, metavar='N', help='repetitions of each line')
    p.add_argument('--idle', type=int, metavar='N', help='idle connections')
    p.add_argument('--crowd', type=int, metavar='N', help='connections of the crowd; 0: none')
    p.add_argument('--cc', metavar='NAME', default='cubic',
                   help='congestion control of the client and of the kernel\'s server (cubic, which tcpfsmd uses)')
    p.add_argument('--only', action='append', metavar='WORD', help='lines whose "CONFIGURATION LINE" contains it')
    p.add_argument('--shield', choices=['bpf', 'ingress', 'iptables'], help='of tcpfsmd; default: bpf, ingress before Linux 6.6')
    p.add_argument('--sysctl', metavar='KEY=VALUE', action='append', type=setting, default=[],
                   help='set for the whole machine while it measures, for both servers (vm.percpu_pagelist_high_fraction=100000)')
    p.add_argument('--json', metavar='FILE', help='every measurement, then the summary, one object a line')
    p.add_argument('--list', action='store_true', help='name the lines and end')
    return p.parse_args()


def main():
    opt = arguments()
    os.environ['BENCH_CC'] = opt.cc
    small = opt.quick or opt.smoke
    reps = opt.reps or (1 if small else 5)
    scale = 0.05 if opt.smoke else 0.3 if opt.quick else 1.5
    idle = opt.idle or (500 if opt.smoke else 10000 if opt.quick else 100000)
    most = opt.crowd if opt.crowd is not None else 500 if opt.smoke else 10000 if opt.quick else 10000000 if opt.long else 1000000
    wants_crowd = most and (not opt.only or any(w in f'plain crowd {most}' for w in opt.only))
    chosen = {c: [x for x in lines(c, scale, idle, opt.quick) if not opt.only or any(w in f'{c} {x.name}' for w in opt.only)]
              for c in (['plain'] if opt.smoke else CONFIGS)}
    if opt.list:
        print('\n'.join(f'{c} {x.name}' for c, some in chosen.items() for x in some))
        if wants_crowd:
            print(f'plain crowd {most}')
        return 0
    if os.geteuid() != 0:
        live.skip_all('needs root')
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    out = open(opt.json, 'w') if opt.json else None

    def emit(row):
        if out:
            print(json.dumps(row), file=out, flush=True)
    if opt.train:
        return train(opt.shield)
    failed, summaries, far = 0, [], Distances()
    print(f'{"":12}{"line":31}{"figure":16}{"base":>9}{"tcpfsmd":>9}{"ratio":>8}  least-most')
    with awake(), sysctls(opt.sysctl):
        for config, some in chosen.items():
            if not some:
                continue
            bench = Bench(shield=opt.shield, **CONFIGS[config])
            try:
                emit({'config': config, 'congestion_control': bench.cc, 'cpus': os.cpu_count(), 'kernel': os.uname().release,
                      'shield': bench.shield, 'sysctls': dict(opt.sysctl)})
                for line in some:
                    try:
                        pairs = measure(bench, config, line, reps, emit, far, 0 if small else AGAIN_MAX)
                    except FAULTS as e:
                        failed += 1
                        print(f'{config:12}{line.name:31}FAILED: {e}', flush=True)
                        continue
                    for figure in line.figures:
                        summaries.append(summary(config, line, figure, pairs[figure]))
                        show(summaries[-1])
            finally:
                bench.lab.close()
    if wants_crowd:
        failed += crowded(most, emit, opt.shield, 1 if opt.smoke else crowd.SETTLE_S)
    if far.seen:
        print(far.told())
    for s in summaries:
        emit(s)
    if opt.smoke:
        return smoke(summaries, failed)
    return 1 if failed else 0


def train(shield):
    """What makes a profile: every load for a while, in every configuration, and nothing measured."""
    for config, options in CONFIGS.items():
        bench = Bench(shield=shield, **options)
        try:
            for line in lines(config, 0.3, 500):
                bench.run('recording' if 'recording' in line.servers else 'tcpfsmd', line)
                print(config, line.name, flush=True)
        finally:
            bench.lab.close()
    return 0


def crowded(most, emit, shield, settle_s):
    bench = Bench(shield=shield)
    try:
        # The last sixteenth of the places is not for SYNs.
        config = DAEMON.format(shield=bench.shield, conns=most + most // 8 + 1000, record='nothing', workers=1, host=bench.host)
        crowd.measure(bench, PROGRAMS, config, most, emit, settle_s)
    except FAULTS as e:
        print(f'{"plain":12}{f"crowd {most}":26}FAILED: {e}', flush=True)
        return 1
    finally:
        bench.lab.close()
    return 0


def smoke(summaries, failed):
    """Every line gave figures above zero for both servers; no limit on what they are."""
    want = {(c, x.name, f) for c in ['plain'] for x in lines(c, 1, 500) for f in x.figures}
    # What a handful of connections costs may round to nothing, and a flood may let nobody through.
    free = re.compile('failed|_per_conn|on the port|rows_dropped')
    good = {(s['config'], s['line'], s['figure']) for s in summaries
            if free.search(s['line'] + s['figure']) or (s['base_median'] > 0 and s['tcpfsmd_median'] > 0)}
    print(f'{len(good)} of {len(want)} figures came out')
    return 1 if failed or good != want else 0


if __name__ == '__main__':
    sys.exit(main())
