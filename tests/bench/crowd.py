# SPDX-License-Identifier: Apache-2.0
"""A crowd of idle connections: what each costs the daemon's memory, how fast they open at each power of ten, and
what a live connection of a kernel client notices of them. crowd.c is the client."""
import json
import pathlib
import subprocess
import time

SETTLE_S = 30
PROBES = 200


def rss_bytes(pid):
    with open(f'/proc/{pid}/smaps_rollup') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('Rss:'))


def settled_rss(pid, settle_s=SETTLE_S):
    """Quiet connections go to rest within two seconds, and what they had goes back to the system after that."""
    seen, deadline = [rss_bytes(pid)], time.monotonic() + settle_s
    while time.monotonic() < deadline and (len(seen) < 9 or max(seen[-4:]) > 1.002 * min(seen[-4:])):
        time.sleep(1)
        seen.append(rss_bytes(pid))
    return seen[-1]


def cpu_us(pid):
    """Of all its threads."""
    return sum(int(p.read_text().split()[0]) for p in pathlib.Path(f'/proc/{pid}/task').glob('*/schedstat')) / 1000


class Crowd:
    def __init__(self, bench, programs, most):
        self.p = bench.lab.popen('client', [str(programs / 'bench_crowd'), 'v0', bench.server_mac, bench.host, '7', str(most)],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, command):
        print(command, file=self.p.stdin, flush=True)
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError(f'the crowd ended: {command}')
        return json.loads(line)

    def close(self):
        self.p.stdin.close()
        self.p.wait()
        self.p.stdout.close()


def powers_of_ten(most):
    n = 10000
    while n < most:
        yield n
        n *= 10
    yield most


def live_p50(bench, programs, pid):
    r = bench.lab.run('client', [str(programs / 'bench_load'), 'rr', '-h', bench.host, '-p', str(pid), '-s', '64', '-c', '1',
                                 '-t', '1'], timeout=60)
    return json.loads(r.stdout)['p50_us']


def measure(bench, programs, config, most, emit, settle_s=SETTLE_S):
    """One row for each power of ten. settle_s: how long memory may take at most until it does not change any more."""
    daemon = bench.lab.daemon(config)
    crowd = None
    try:
        pid = daemon.proc.pid
        live_p50(bench, programs, pid)
        alone, base = live_p50(bench, programs, pid), settled_rss(pid, settle_s)
        crowd = Crowd(bench, programs, most)
        for n in powers_of_ten(most):
            before = cpu_us(pid)
            opened = crowd.ask(f'open {n}')
            spent = (cpu_us(pid) - before) / opened['opened']
            row = {'config': 'plain', 'line': f'crowd {n}', 'server': 'tcpfsmd', 'open_rate': opened['rate'], 'srv_us_per_open': spent,
                   'octets_each': (settled_rss(pid, settle_s) - base) / n, 'probe_p50_us': crowd.ask(f'probe {PROBES}')['p50_us'],
                   'live_p50_us': live_p50(bench, programs, pid), 'live_p50_us_alone': alone}
            emit(row)
            print(f'{"plain":12}{row["line"]:26}opened at {row["open_rate"]:.0f}/s, {spent:.1f} us of CPU and {row["octets_each"]:.0f} octets each; p50 of one '
                  f'of them {row["probe_p50_us"]:.0f} us; of a live connection {row["live_p50_us"]:.0f} us, alone {alone:.0f} us',
                  flush=True)
        if daemon.ctl('status')['connections'] < most:
            raise RuntimeError('connections were lost')
        crowd.ask('reset')
        print(f'{"plain":12}{"crowd gone":26}{settled_rss(pid, settle_s) - base} octets above where it began', flush=True)
    finally:
        if crowd:
            crowd.close()
        daemon.stop()
