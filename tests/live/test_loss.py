#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A network that loses: what arrives is whole, and in a time that the kernel's TCP needs as well."""
import socket
import threading
import time

from lab import SLOW, run
from test_bulk import stream_and_hash

MIB = 1 << 20


def echo_of_the_kernel(listener):
    s, _ = listener.accept()
    buf = bytearray(1 << 18)
    while n := s.recv_into(buf):
        s.sendall(memoryview(buf)[:n])
    s.shutdown(socket.SHUT_WR)


def lossy(lab, permille):
    """Segments of a packet each; what the server sends, text and acknowledgements, gets lost on the way."""
    for ns, dev in (('client', 'v0'), ('server', 'v1')):
        lab.sh(ns, f'ethtool -K {dev} tx off rx off sg off tso off gso off gro off >/dev/null')
    lab.sh('client', 'iptables -t raw -A PREROUTING -p tcp -m statistic --mode random '
           f'--probability {permille / 1000} -j DROP')


def timed_echo(lab, port, total):
    s = lab.connect('10.9.0.2', port, timeout=120)
    at = time.monotonic()
    sent, back, n = stream_and_hash(s, total)
    took = time.monotonic() - at
    assert n == total and sent == back, (n, sent, back)
    return took


def test_three_percent_are_lost(lab):
    total = 100 * MIB if SLOW == 1 else 10 * MIB
    lossy(lab, 30)
    d = lab.daemon('[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    listener = lab.listen('10.9.0.2', 8, ns='server')
    threading.Thread(target=echo_of_the_kernel, args=(listener,), daemon=True).start()
    kernel = timed_echo(lab, 8, total)
    ours = timed_echo(lab, 7, total)
    print(f'# {total // MIB} MiB back and forth: {ours:.1f} s, the kernel {kernel:.1f} s, '
          f'ratio {kernel / ours:.2f}')
    row = d.closed(1)[0]
    assert row['bytes_in'] == row['bytes_out'] == total and row['end_reason'] == 'normal', row
    # Losses are found by what arrives: a timeout for each would take minutes.
    assert ours < 6 * kernel + 10, (ours, kernel)
    counters = d.rpc('status')
    print('#', {k: v for k, v in counters.get('counters', counters).items()
                if k in ('rto_expired', 'fast_retransmits', 'tlp_probes', 'spurious_rto', 'spurious_recoveries',
                         'dsack_in', 'scoreboards_missed', 'retransmitted_segments')})


if __name__ == '__main__':
    run(globals())
