#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Unmodified servers over tcpfsmd, by tcpfsmctl run and behind its relay, beside the same servers on the kernel's TCP;
the client is the kernel's.

    tests/bench/programs.py [--reps N] [--time S] [--only WORD]... [--json FILE]

TCPFSM_BUILD names the build. Needs iperf3, nginx, wrk, redis-server.
"""
import argparse
import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

import bench
from bench import live

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'live'))
from test_matrix import nginx_conf
from test_programs import over, wait_kernel, wait_listener

DAEMON = '[Tcp]\nMSL=1s\n[Storage]\nRecord=nothing\n'


RELAY = '[Listener relay]\nAddress={front}:{port}\nService=relay:{host}:{port}\n'
HOST, FRONT = '10.9.0.2', '10.9.0.3'


class Line:
    """A server's command, a client's, and the figure in what the client says."""

    def __init__(self, name, figure, server, port, client, read, ours='run'):
        self.name, self.figure, self.server, self.port, self.client, self.read = name, figure, server, port, client, read
        self.servers = ('kernel', ours)

    def behind_relay(self):
        return Line(self.name + ', relay', self.figure, self.server, self.port, self.client, self.read, 'relay')

    def client_of(self, kind):
        return [x.replace(HOST, FRONT) for x in self.client] if kind == 'relay' else self.client


def iperf3(out):
    return json.loads(out)['end']['sum_received']['bits_per_second'] / 1e9


def wrk(out):
    assert 'Socket errors' not in out and 'Non-2xx' not in out, out
    return float(re.search(r'Requests/sec:\s+([\d.]+)', out)[1])


def redis(out):
    return float(re.search(r'"GET","([\d.]+)"', out)[1])


def lines(lab, seconds):
    host = HOST
    iperf = ['iperf3', '-c', host, '-J', '-t', str(seconds)]
    serve_iperf = ['iperf3', '-s', '-1', '-B', host]
    serve_nginx = [shutil.which('nginx') or 'nginx', '-c', str(nginx_conf(lab)), '-e', f'{lab.dir}/error.log']
    serve_redis = ['redis-server', '--bind', host, '--port', '6379', '--save', '', '--dir', lab.dir, '--protected-mode', 'no']
    ask = ['redis-benchmark', '-h', host, '-c', '50', '-t', 'get', '--csv']
    get = ['wrk', '-t', '1', '-d', f'{seconds}s']
    pathlib.Path(lab.dir, 'small').write_bytes(b'x' * 600)
    pathlib.Path(lab.dir, 'large').write_bytes(bytes(1 << 20))
    run = [
        Line('iperf3 upload', 'gbps', serve_iperf, 5201, iperf, iperf3),
        Line('iperf3 upload -P 8', 'gbps', serve_iperf, 5201, [*iperf, '-P', '8'], iperf3),
        Line('iperf3 download', 'gbps', serve_iperf, 5201, [*iperf, '-R'], iperf3),
        Line('iperf3 download -P 8', 'gbps', serve_iperf, 5201, [*iperf, '-R', '-P', '8'], iperf3),
        Line('nginx, 600 octets', 'rate', serve_nginx, 8080, [*get, '-c', '50', f'http://{host}:8080/small'], wrk),
        Line('nginx, 1 MiB', 'rate', serve_nginx, 8080, [*get, '-c', '8', f'http://{host}:8080/large'], wrk),
        Line('redis GET', 'rate', serve_redis, 6379, [*ask, '-n', str(20000 * seconds)], redis),
        Line('redis GET, 16 at a time', 'rate', serve_redis, 6379, [*ask, '-P', '16', '-n', str(100000 * seconds)], redis),
    ]
    return run + [x.behind_relay() for x in run]


@contextlib.contextmanager
def server(lab, kind, line):
    relay = RELAY.format(front=FRONT, host=HOST, port=line.port) if kind == 'relay' else ''
    d = lab.daemon(DAEMON + relay) if kind != 'kernel' else None
    p = lab.popen('server', over(d, *line.server) if kind == 'run' else line.server, stdout=subprocess.DEVNULL,
                  stderr=subprocess.DEVNULL)
    try:
        if kind == 'run':
            wait_listener(d, line.port)
        else:
            wait_kernel(lab, 'server', line.port)
        yield
    finally:
        p.terminate()
        p.wait()
        if d:
            d.stop()


def measure(lab, line, reps, emit):
    pairs = []
    for rep in range(reps):
        got = {}
        for kind in line.servers if rep % 2 else line.servers[::-1]:
            with server(lab, kind, line):
                r = lab.run('client', line.client_of(kind), timeout=120, check=False)
            if r.returncode:
                raise RuntimeError(f'{line.name} against {kind}: {r.stdout[-300:]}{r.stderr[-300:]}')
            got[kind] = line.read(r.stdout)
            emit({'line': line.name, 'rep': rep, 'server': kind, line.figure: got[kind]})
        pairs.append(tuple(got[k] for k in line.servers))
    return pairs


def main():
    p = argparse.ArgumentParser(description='servers over tcpfsmd beside the same on the kernel\'s TCP', allow_abbrev=False)
    p.add_argument('--reps', type=int, default=3, metavar='N', help='repetitions of each line')
    p.add_argument('--time', type=int, default=3, metavar='S', help='seconds of each measurement')
    p.add_argument('--only', action='append', metavar='WORD', help='lines whose name contains it')
    p.add_argument('--json', metavar='FILE', help='every measurement, then the summary, one object a line')
    opt = p.parse_args()
    for tool in ('iperf3', 'nginx', 'wrk', 'redis-server', 'redis-benchmark'):
        if not shutil.which(tool):
            live.skip_all(f'needs {tool}')
    out = open(opt.json, 'w') if opt.json else None

    def emit(row):
        if out:
            print(json.dumps(row), file=out, flush=True)
    failed = 0
    print(f'{"":12}{"line":31}{"figure":16}{"kernel":>9}{"tcpfsmd":>9}{"ratio":>8}  least-most')
    b = bench.Bench()
    try:
        b.lab.sh('server', f'ip addr add {FRONT}/24 dev v1')
        with bench.awake():
            for line in lines(b.lab, opt.time):
                if opt.only and not any(w in line.name for w in opt.only):
                    continue
                try:
                    s = bench.summary('programs', line, line.figure, measure(b.lab, line, opt.reps, emit))
                except bench.FAULTS as e:
                    failed += 1
                    print(f'programs    {line.name:31}FAILED: {e}', flush=True)
                    continue
                bench.show(s)
                emit(s)
    finally:
        b.lab.close()
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
