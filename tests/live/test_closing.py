#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every way a connection can end, against the kernel."""
import socket
import struct
import time

from lab import SLOW, pump, read_all, run, until, variants

ECHO = '[Listener e]\nAddress=10.9.0.2:7\nService=echo\n'


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()


def opened(lab, d, port=7):
    s = lab.connect('10.9.0.2', port)
    s.sendall(b'hi')
    assert s.recv(2, socket.MSG_WAITALL) == b'hi'
    return s, d.connections()[0]['id']


@variants(offloads=[True, False])
def test_client_half_closes_and_still_reads_a_megabyte(lab):
    d = lab.daemon('[Listener x]\nAddress=10.9.0.2:90\n'
                   'Service=exec:/bin/sh -c "cat >/dev/null; head -c 1048576 /dev/zero"\n')
    s = lab.connect('10.9.0.2', 90)
    s.sendall(b'question')
    s.shutdown(socket.SHUT_WR)
    got = read_all(s)
    assert len(got) == 1048576 and not any(got)
    row = d.closed(1)[0]
    assert row['end_reason'] == 'normal' and row['bytes_in'] == 8 and row['bytes_out'] == 1048576, row


def test_we_half_close_and_still_receive_a_megabyte(lab):
    """The service ends its output first; its input still flows: FIN-WAIT-2 with data."""
    d = lab.daemon('[Listener x]\nAddress=10.9.0.2:90\n'
                   'Service=exec:/bin/sh -c "exec >&-; wc -c > %s/count"\n' % lab.dir + '[Tcp]\nMSL=50ms\n')
    s = lab.connect('10.9.0.2', 90)
    assert s.recv(1) == b''  # its FIN
    until(lambda: d.connections('state', 'fin-wait-2'), what='FIN-WAIT-2')
    s.sendall(bytes(1 << 20))
    s.close()
    row = d.closed(1)[0]
    assert row['bytes_in'] == 1 << 20 and row['end_reason'] == 'normal' and row['closed_by'] == 'local', row
    assert open(f'{lab.dir}/count').read().strip() == '1048576'


def test_peer_resets(lab):
    d = lab.daemon(ECHO)
    s, _ = opened(lab, d)
    reset(s)
    row = d.closed(1)[0]
    assert row['end_reason'] == 'reset_by_peer' and row['closed_by'] == 'remote' and row['last_state'] == 'established', row


def test_operator_resets(lab):
    d = lab.daemon(ECHO)
    s, conn = opened(lab, d)
    d.ctl('reset', 'connection', conn)
    try:
        s.recv(1)
        raise AssertionError('no reset seen')
    except ConnectionResetError:
        pass
    assert d.closed(1)[0]['end_reason'] == 'reset_by_operator'
    step = d.ctl('show', 'transitions', conn)['transitions'][-1]
    assert step['cause'] == 'operator' and '3.10.5' in step['rule'], step


def test_operator_closes(lab):
    d = lab.daemon(ECHO + '[Tcp]\nMSL=50ms\n')
    s, conn = opened(lab, d)
    d.ctl('close', 'connection', conn)
    assert s.recv(1) == b''
    s.close()
    row = d.closed(1)[0]
    assert row['end_reason'] == 'normal' and row['closed_by'] == 'local' and row['last_state'] == 'time_wait', row


def test_time_wait_lasts_two_msl_and_acknowledges_the_fin_again(lab):
    d = lab.daemon(ECHO + '[Tcp]\nMSL=1s\n')
    s, conn = opened(lab, d)
    d.ctl('close', 'connection', conn)
    assert s.recv(1) == b''
    s.close()
    until(lambda: d.connections('state', 'time-wait'), what='TIME-WAIT')
    until(lambda: not d.connections(), 10, 'the end of TIME-WAIT')
    steps = d.ctl('show', 'transitions', conn)['transitions']
    assert [t['to'] for t in steps[-2:]] == ['time_wait', 'closed'], steps
    assert 2_000_000 <= steps[-1]['at_us'] - steps[-2]['at_us'] < 2_000_000 + 1_900_000 * SLOW, steps


def test_fin_wait_2_limit(lab):
    d = lab.daemon(ECHO + '[Tcp]\nFinWait2Timeout=300ms\n')
    s, conn = opened(lab, d)
    d.ctl('close', 'connection', conn)
    row = d.closed(1)[0]
    assert row['end_reason'] == 'fin_wait_2_timeout', row
    assert s.recv(1) == b''


def test_fin_wait_2_for_ever(lab):
    d = lab.daemon(ECHO + '[Tcp]\nFinWait2Timeout=infinity\n')
    s, conn = opened(lab, d)
    d.ctl('close', 'connection', conn)
    until(lambda: d.connections('state', 'fin-wait-2'), what='FIN-WAIT-2')
    assert d.ctl('show', 'connection', conn)['detail']['timer_in_us'] is None
    s.close()
    until(lambda: d.connections('state', 'time-wait'), what='TIME-WAIT')


def test_half_open_peer_is_found_out(lab):
    """The peer forgets; our next octets draw its RST. Then we forget; our RST tells the peer."""
    d = lab.daemon(ECHO)
    s, conn = opened(lab, d)
    assert d.ctl('show', 'transitions', conn)['transitions']  # written: a query sees all that came before it
    d.kill()
    d2 = lab.daemon(None, base=d.base)
    s.sendall(b'anybody there?')
    try:
        s.recv(1)
        raise AssertionError('no reset seen')
    except ConnectionResetError:
        pass
    row = d2.closed(1)[0]
    assert row['end_reason'] == 'daemon_lost', row


def test_no_kernel_reset_while_the_daemon_is_dead(lab):
    d = lab.daemon(ECHO)
    s, _ = opened(lab, d)
    cap = lab.capture('client', 'v0', 'tcp[tcpflags] & tcp-rst != 0')
    d.kill()
    s.sendall(b'into the void')
    assert lab.socket(timeout=0.4).connect_ex(('10.9.0.2', 7)) != 0
    assert lab.tshark(cap.stop()) == '', 'the kernel answered with a RST'
    d2 = lab.daemon(None, base=d.base)
    assert pump(lab.connect('10.9.0.2', 7), b'back') == b'back'
    d2.stop()


def test_wanted_stop_ends_connections_and_says_why(lab):
    d = lab.daemon(ECHO + '[Daemon]\nStopGrace=100ms\n')
    s, _ = opened(lab, d)
    d.stop()
    try:
        while s.recv(100):
            pass
    except ConnectionResetError:
        pass
    lab.assert_clean()
    d2 = lab.daemon(None, base=d.base)
    assert d2.closed(1)[0]['end_reason'] in ('daemon_stopped', 'normal')


def test_user_timeout(lab):
    d = lab.daemon('[Listener c]\nAddress=10.9.0.2:19\nService=chargen\n[Tcp]\nUserTimeout=1s\n')
    s = lab.connect('10.9.0.2', 19)
    s.recv(1000)
    lab.sh('client', 'ip link set v0 down')
    row = d.closed(1, 20)[0]
    assert row['end_reason'] == 'user_timeout', row


def test_many_reuse_of_one_port_pair(lab):
    """A client that binds its port and connects again while we are in no TIME-WAIT: each works."""
    d = lab.daemon(ECHO)
    for i in range(20):
        s = lab.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('10.9.0.1', 34567))
        s.connect(('10.9.0.2', 7))
        s.sendall(b'%d' % i)
        assert s.recv(10) == b'%d' % i
        reset(s)
    assert len(d.closed(20)) == 20


def test_syn_in_time_wait_opens_again(lab):
    """RFC 6191: the peer reuses the 4-tuple while we wait 2MSL."""
    d = lab.daemon('[Listener t]\nAddress=10.9.0.2:13\nService=daytime\n')
    for i in range(5):
        s = lab.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('10.9.0.1', 34568))
        s.connect(('10.9.0.2', 13))  # we close first: TIME-WAIT is ours
        assert read_all(s).endswith(b'\r\n')
        s.close()
        time.sleep(0.01)  # a tick of the peer's timestamp clock
    rows = until(lambda: (r := d.connections(closed=True)) and len(r) >= 4 and r)
    assert all(r['end_reason'] == 'normal' for r in rows), rows


if __name__ == '__main__':
    run(globals())
