#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A thousand connections of every service, ended in every way, leave nothing behind: no descriptor, process, connection,
rule or octet of memory."""
import os
import socket
import struct
import threading

from lab import SLOW, read_all, run, until, variants

RUNS = 1000 if SLOW == 1 else 200
SERVICES = ['echo', 'discard', 'chargen', 'daytime', 'exec', 'file', 'http', 'relay', 'relay_unix', 'relay_ours']


def backends(lab):
    """What relays connect to: sends back what it gets, over kernel TCP here and there, and over a UNIX socket."""
    path = f'{lab.dir}/backend.sock'
    local = socket.socket(socket.AF_UNIX)
    lab.sockets.append(local)
    local.bind(path)
    local.listen(512)
    for s in (lab.listen('127.0.0.1', 8080, ns='server', backlog=512), lab.listen('10.9.0.1', 8080, ns='client', backlog=512), local):
        s.settimeout(None)
        threading.Thread(target=serve, args=(s,), daemon=True).start()
    return {'relay': 'relay:127.0.0.1:8080', 'relay_unix': f'relay:unix:{path}', 'relay_ours': 'relay:tcpfsm:10.9.0.1:8080'}


def serve(listening):
    try:
        while True:
            b = listening.accept()[0]
            try:
                while (got := b.recv(4096)):
                    b.sendall(got)
            except OSError:
                pass
            b.close()
    except OSError:
        pass


def visit(lab, port, how):
    """One connection: asks, hears something where there is something to hear, and goes in one of four ways."""
    s = lab.connect('10.9.0.2', port, timeout=30)
    lab.sockets.remove(s)
    try:
        if how != 3:
            s.sendall(b'GET / HTTP/1.0\r\n\r\n')
        if how == 0:
            s.shutdown(socket.SHUT_WR)
            read_all(s, 100_000)
        if how == 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    except OSError:
        pass  # it was quicker than we
    s.close()


def resident(pid):
    """Octets that are the process's own: RSS without what is a file's."""
    with open(f'/proc/{pid}/status') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('RssAnon'))


def descriptors(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children') as f:
        return [int(p) for p in f.read().split()]


def quiet(d):
    status = d.ctl('status')
    return not status['connections'] and not status['counters']['processes']


@variants(service=SERVICES)
def test_nothing_is_left(lab, service):
    www = f'{lab.dir}/index.html'
    with open(www, 'w') as f:
        f.write('x' * 5000)
    text = {'exec': 'exec:/bin/cat', 'file': f'file:{www}', 'http': f'http:{www}', **backends(lab)}.get(service, service)
    # Few slots, so that all are in use before it is measured.
    d = lab.daemon(f'[Daemon]\nMaxConnections=64\n[Listener x]\nAddress=*:80\nService={text}\nKillAfter=100ms\nMaxConnectionsPerPeer=500\n'
                   '[Tcp]\nMSL=10ms\nFinWait2Timeout=500ms\n[Storage]\nRecord=nothing\n')
    pids = [d.proc.pid, *children(d.proc.pid)]

    def visits(n):
        for i in range(n):
            visit(lab, 80, i % 4)
        until(lambda: quiet(d), 30, 'the end of all')
    visits(RUNS)  # rings, tables and arenas are in use once
    before = [descriptors(p) for p in pids]
    # An arena may grow once more, a leak goes on: in one round of these nothing is added but a page or two.
    for _ in range(6):
        memory = [resident(p) for p in pids]
        visits(RUNS)
        grown = [resident(p) - m for p, m in zip(pids, memory)]
        print('#', *(f'{n:+d}' for n in grown), 'octets')
        if SLOW != 1 or max(grown) <= 8192:
            break
    else:
        raise AssertionError(f'memory goes on growing: {grown} in {RUNS} connections')
    # The client that asked whether it is quiet may not have been missed yet.
    until(lambda: all(descriptors(p) <= n for p, n in zip(pids, before)), what='descriptors')
    assert [c for p in pids[1:] for c in children(p)] == [], 'processes'
    assert len(lab.rules().split('tcpfsmd')) > 1
    d.stop()
    lab.assert_clean()


if __name__ == '__main__':
    run(globals())
