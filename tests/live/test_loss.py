#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A network that loses: what arrives is whole, and in a time that the kernel's TCP needs as well.

Both sides of the comparison use the same congestion control, by name. A kernel's default may be another: BBR does
not answer to single losses at all, and needs a tenth of the time.
"""
import socket
import threading
import time

from lab import SLOW, run, variants
from test_bulk import stream_and_hash

MIB = 1 << 20
CUBIC = b'cubic'
SHOWN = ('rto_expired', 'fast_retransmits', 'tlp_probes', 'spurious_rto', 'spurious_recoveries', 'dsack_in',
         'scoreboards_missed', 'retransmitted_segments')


def echo_of_the_kernel(listener):
    s, _ = listener.accept()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CUBIC)
    buf = bytearray(1 << 18)
    while n := s.recv_into(buf):
        s.sendall(memoryview(buf)[:n])
    s.shutdown(socket.SHUT_WR)


def lossy(lab, permille):
    """Segments of a packet each; of either side's, text and acknowledgements, some get lost on the way."""
    for ns, dev in (('client', 'v0'), ('server', 'v1')):
        lab.sh(ns, f'ethtool -K {dev} tx off rx off sg off tso off gso off gro off >/dev/null')
        lab.sh(ns, 'iptables -t raw -A PREROUTING -p tcp -m statistic --mode random '
               f'--probability {permille / 1000} -j DROP')


def timed_echo(lab, port, total):
    s = lab.socket(timeout=120)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CUBIC)
    s.connect(('10.9.0.2', port))
    at = time.monotonic()
    sent, back, n = stream_and_hash(s, total)
    took = time.monotonic() - at
    assert n == total and sent == back, (n, sent, back)
    return took


@variants(permille=[5, 10, 30])
def test_losses_both_ways(lab, permille):
    total = (30 if permille < 30 else 10) * MIB if SLOW == 1 else 3 * MIB
    lossy(lab, permille)
    d = lab.daemon('[Tcp]\nCongestionControl=cubic\n[Listener e]\nAddress=10.9.0.2:7\nService=echo\n')
    listener = lab.listen('10.9.0.2', 8, ns='server')
    threading.Thread(target=echo_of_the_kernel, args=(listener,), daemon=True).start()
    kernel = timed_echo(lab, 8, total)
    ours = timed_echo(lab, 7, total)
    print(f'# {permille / 10:g} % lost, {total // MIB} MiB back and forth: {ours:.2f} s, the kernel {kernel:.2f} s, '
          f'{ours / kernel:.2f} of it')
    row = d.closed(1)[0]
    assert row['bytes_in'] == row['bytes_out'] == total and row['end_reason'] == 'normal', row
    # Losses are found by what arrives: a timeout for each would take minutes.
    assert ours < 2 * kernel + 5, (ours, kernel)
    counters = d.rpc('status')
    counters = counters.get('counters', counters)
    print('#', {k: counters[k] for k in SHOWN})
    # Not more timeouts than losses in a row explain, and no recovery without a loss.
    assert counters['rto_expired'] < 3 + counters['fast_retransmits'] // 10, counters
    assert counters['fast_retransmits'] <= counters['retransmitted_segments'], counters


if __name__ == '__main__':
    run(globals())
