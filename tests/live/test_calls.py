#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What each call on a socket gives, on the kernel's TCP and over tcpfsmd: the same (socket_calls.c)."""
import contextlib
import difflib
import os
import socket
import struct
import subprocess
import sys
import threading

from lab import BUILD, SLOW, run, variants
from test_programs import CONF, over

PROGRAM = BUILD / 'tests' / 'live' / 'socket_calls'

# Lines that are not the kernel's: what they are over tcpfsmd, and why. tcpfsmctl(1), at run, tells people.
DIFFERENT = {
    # Not counted.
    'info: data segments 1 1, delivered 1, TCP_MAXSEG 1448': 'info: data segments 0 0, delivered 0, TCP_MAXSEG 1448',
}


# Lines that are one of these, for the kernel as for us: the end of the connection, which comes a moment after the last
# FIN, may be an edge of its own.
EITHER = {'edge: told once: nothing', 'edge: told once: IN HUP RDHUP'}


class Peer:
    """The kernel's side; what it does is said by its port. See socket_calls.c."""

    def __init__(self, lab):
        self.lab, self.ended, self.serial, self.go = lab, {}, 0, threading.Event()
        self.known = threading.Condition()
        for port, serve in enumerate((self.command, self.echo, self.greet, self.greet_fin, self.reset, self.fin_reset, self.stopped,
                                      self.big, self.count), 9000):
            self.spawn(self.accept_all, lab.listen('10.9.0.1', port), serve)

    @staticmethod
    def spawn(f, *args):
        def quiet():
            with contextlib.suppress(OSError, ValueError):
                f(*args)
        threading.Thread(target=quiet, daemon=True).start()

    def accept_all(self, listener, serve):
        listener.settimeout(None)
        while True:
            s, _ = listener.accept()
            s.settimeout(60 * SLOW)
            self.spawn(serve, s)

    def echo(self, s):
        with s:
            while got := s.recv(65536):
                s.sendall(got)

    def greet(self, s):
        with s:
            s.sendall(b'0123456789')
            while s.recv(65536):
                pass

    def greet_fin(self, s):
        with s:
            s.sendall(b'0123456789')
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass

    @staticmethod
    def close_by_reset(s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        s.close()

    def reset(self, s):
        s.sendall(b'hello')
        s.recv(1)
        self.close_by_reset(s)

    def fin_reset(self, s):
        s.shutdown(socket.SHUT_WR)
        s.recv(1)
        self.close_by_reset(s)

    def stopped(self, s):
        with s:
            s.settimeout(None)
            self.go.wait(60 * SLOW)
            n = 0
            while got := s.recv(1 << 18):
                n += len(got)
            s.sendall(struct.pack('q', n))

    def big(self, s):
        with s:
            s.sendall(bytes(1 << 20))

    def count(self, s):
        with self.known:
            self.serial += 1
            me = f'{self.serial:07}'
        s.sendall(me.encode())
        n, end = 0, 'FIN'
        try:
            while got := s.recv(65536):
                n += len(got)
                if b'q' in got:
                    s.sendall(b'answer')
        except ConnectionResetError:
            end = 'RST'
        s.close()
        with self.known:
            self.ended[me] = f'{n} and {end}' if end == 'FIN' else end
            self.known.notify_all()

    def command(self, s):
        with s:
            words = s.recv(100).decode().split()
            if words[0] == 'go':
                self.go.set()
                answer = 'going'
            elif words[0] == 'stop':
                self.go.clear()
                answer = 'stopped'
            elif words[0] == 'ended':
                with self.known:
                    self.known.wait_for(lambda: words[1] in self.ended, 20 * SLOW)
                    answer = self.ended.get(words[1], 'nothing')
            else:
                c = self.lab.socket('client')
                try:
                    c.connect(('10.9.0.2', int(words[1])))
                    self.spawn(self.greet, c)
                    answer = 'connected'
                except OSError as e:
                    answer = e.strerror
            s.sendall(answer.encode())


def calls(lab, peer, d, part=None):
    # Somebody is there, so that nothing is unreachable; and silent.
    lab.sh('server', 'ip neigh replace 10.9.0.99 lladdr 02:00:00:00:00:99 dev v1')
    argv = [str(PROGRAM), '10.9.0.2', '10.9.0.1', *([part] if part else [])]
    r = lab.run('server', over(d, *argv) if d else argv, check=False, timeout=150)
    peer.go.clear()
    assert r.returncode == 0, f'exit {r.returncode}\n{r.stdout}{r.stderr}'
    return [min(EITHER) if line in EITHER else line for line in r.stdout.splitlines()]


def compare(kernel, ours):
    bad = []
    for tag, a, b, c, e in difflib.SequenceMatcher(a=kernel, b=ours, autojunk=False).get_opcodes():
        if tag == 'equal':
            continue
        for i in range(max(b - a, e - c)):
            want, got = kernel[a + i] if a + i < b else None, ours[c + i] if c + i < e else None
            if not want or DIFFERENT.get(want) != got:
                bad.append(f'kernel: {want}\n  ours: {got}')
    return bad


def test_calls_give_what_the_kernel_gives(lab):
    part = os.environ.get('PART')
    peer = Peer(lab)
    kernel = calls(lab, peer, None, part)
    ours = calls(lab, peer, lab.daemon(CONF), part)
    bad = compare(kernel, ours)
    assert not bad, 'what differs:\n' + '\n'.join(bad)
    assert part or len(kernel) > 300
    left = set(DIFFERENT) - set(kernel)
    assert part or not left, f'listed as different, but never said: {left}'


if __name__ == '__main__':
    run(globals())
