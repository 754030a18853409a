#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Parameters of TCP that change at run time, seen on the wire by a kernel peer."""
import signal

from lab import PATIENCE, pump, run, until

ECHO = '[Listener e]\nAddress=10.9.0.2:7\nService=echo\n[Listener f]\nAddress=10.9.0.2:70\nService=echo\nDSCP=1\n'


def shown(d, key, *place):
    row = next(r for r in d.ctl('show', 'tcp', *place)['tcp'] if r['key'] == key)
    return row['value'], row['whose'], row['from']


def dscps(lab, path, stream):
    """The DSCP of each segment with text that the server sent in the n-th connection of the capture."""
    out = lab.tshark(path, '-Y', f'ip.src==10.9.0.2 && tcp.len>0 && tcp.stream=={stream}', '-T', 'fields', '-e', 'ip.dsfield.dscp')
    return [int(n) for n in out.split()]


def test_dscp_of_a_running_connection(lab):
    """SHLD-21: changed in mid-connection, at once, and for this connection alone."""
    d = lab.daemon(ECHO)
    capture = lab.capture('client', 'v0', 'tcp')
    s, other = lab.connect('10.9.0.2', 7), lab.connect('10.9.0.2', 7)
    for i, c in enumerate((s, other)):
        c.sendall(b'before')
        assert c.recv(6) == b'before', i
    port = s.getsockname()[1]
    number = next(c['id'] for c in d.connections() if c['remote'].endswith(f':{port}'))
    r = d.ctl('set', 'tcp.DSCP', '46', '--connection', number)
    assert (r['value'], r['was']) == ('46', '0'), r
    assert shown(d, 'DSCP', '--connection', number) == ('46', 'connection', None)
    assert shown(d, 'TTL', '--connection', number) == ('64', 'daemon', 'default')
    for c in (s, other):
        c.sendall(b'after!')
        assert c.recv(6) == b'after!'
    path = capture.stop()
    assert dscps(lab, path, 0) == [0, 46], lab.tshark(path)
    assert dscps(lab, path, 1) == [0, 0], lab.tshark(path)


def test_the_daemon_s_value_and_who_follows(lab):
    d = lab.daemon(ECHO)
    capture = lab.capture('client', 'v0', 'tcp')
    r = d.ctl('set', 'tcp.DSCP', '8')
    assert r['own'] == 1 and r['until_reload'], r
    assert shown(d, 'DSCP') == ('8', 'daemon', 'run time')
    assert shown(d, 'DSCP', '--listener', '10.9.0.2:7') == ('8', 'daemon', 'run time')
    own = shown(d, 'DSCP', '--listener', '10.9.0.2:70')
    assert own[:2] == ('1', 'listener') and own[2].endswith('tcpfsmd.conf:7'), own
    d.ctl('listen', '10.9.0.2:71', 'echo')
    for port in (7, 70, 71):
        assert pump(lab.connect('10.9.0.2', port), b'x') == b'x'
    path = capture.stop()
    seen = lab.tshark(path, '-Y', 'ip.src==10.9.0.2 && tcp.flags.syn==1', '-T', 'fields', '-e', 'tcp.srcport', '-e', 'ip.dsfield.dscp')
    assert seen.split() == ['7', '8', '70', '1', '71', '8'], seen
    # The file is in force again, and what changes by that is named.
    r = d.ctl('reload')
    assert r['warnings'] == ['Tcp.DSCP: 8, which was set at run time, is 0 again'], r
    assert shown(d, 'DSCP', '--listener', '10.9.0.2:7') == ('0', 'daemon', 'default')
    assert shown(d, 'DSCP', '--listener', '10.9.0.2:71') == ('0', 'daemon', 'default')


def attempt(lab, port, seconds=PATIENCE):
    """What a kernel client is told of a port."""
    s = lab.socket(timeout=seconds)
    try:
        s.connect(('10.9.0.2', port))
        return 'connected'
    except ConnectionRefusedError:
        return 'refused'
    except TimeoutError:
        return 'nothing'
    finally:
        s.close()


def test_black_hole_where_nobody_listens(lab):
    """A port of ours that is not served: refused, or not answered; what is served is, in any case."""
    d = lab.daemon('[Daemon]\nLocalPorts=61000-62000\n' + ECHO)
    assert attempt(lab, 61500) == 'refused'
    d.ctl('set', 'tcp.Blackhole', 'yes')
    assert attempt(lab, 61500, 1) == 'nothing'
    assert attempt(lab, 7) == 'connected'
    assert d.ctl('status')['counters']['drop_blackhole'] >= 1
    d.proc.send_signal(signal.SIGHUP)  # the file says nothing of it
    until(lambda: attempt(lab, 61500, 1) == 'refused', 10, 'the reload')


def test_what_is_refused(lab):
    d = lab.daemon(ECHO)
    s = lab.connect('10.9.0.2', 7)
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    number = d.connections()[0]['id']
    for words, code, text in ((('tcp.DSPC', '1'), 2, 'the nearest is DSCP'),
                              (('tcp.DSCP', '64'), 2, 'expected a number, 0 to 63'),
                              (('tcp.DSCP', '1', '--listener', '10.9.0.2:8'), 4, '10.9.0.2:8'),
                              (('tcp.DSCP', '1', '--connection', '999'), 4, 'connection 999'),
                              (('tcp.Timestamps', 'no', '--connection', number), 1, 'settled when a connection opens'),
                              (('tcp.RtoMax', '100ms', '--connection', number), 2, 'RtoMin is above RtoMax')):
        r = d.ctl_run('set', *map(str, words))
        assert r.returncode == code and text in r.stderr, (words, r)
    assert shown(d, 'DSCP') == ('0', 'daemon', 'default')
    d.ctl('set', 'tcp.CongestionControl', 'newreno', '--connection', number)
    assert d.ctl('show', 'connection', number)['detail']['congestion_control'] == 'newreno'


run(globals())
