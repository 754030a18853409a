#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs inside systemd-lab, as root, beside a real systemd: tcpfsmd as its users start it. Prints TAP."""
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import traceback

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
CONFIG = '''
[Control]
SocketGroup=tcpfsm
[Tcp]
MSL=200ms
[Listener echo]
Address=10.9.0.2:7
Service=echo
[Listener web]
Address=10.9.0.2:80
Service=exec:/usr/libexec/tcpfsmd/http-hello
'''


def sh(command, check=True, **kw):
    r = subprocess.run(['bash', '-c', command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if check and r.returncode:
        raise AssertionError(f'{command}: exit {r.returncode}: {r.stdout}')
    return r.stdout


def until(condition, seconds=60, what='condition'):
    """The time only ends a test that hangs."""
    seconds = max(seconds, 60)
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f'{what}: not within {seconds} s')
        time.sleep(0.005)
    return value


def connect(port, host='10.9.0.2', timeout=30):
    """From the peer namespace, the kernel's TCP."""
    with open('/proc/thread-self/ns/net') as home, open('/run/netns/peer') as there:
        assert libc.setns(there.fileno(), CLONE_NEWNET) == 0
        try:
            s = socket.socket()
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)
    s.settimeout(timeout)
    s.connect((host, port))
    return s


def main_pid():
    return int(sh('systemctl show -p MainPID --value tcpfsmd'))


def rules():
    return [line for line in sh('iptables-save -t raw; ip6tables-save -t raw').splitlines() if 'tcpfsm' in line.lower()]


def setup():
    sh('systemd-sysusers; systemctl daemon-reload')
    sh('ip netns add peer; ip link add v1 type veth peer name v0 netns peer; ip addr add 10.9.0.2/24 dev v1; ip link set v1 up;'
       'ip -n peer link set lo up; ip -n peer addr add 10.9.0.1/24 dev v0; ip -n peer link set v0 up')
    pathlib.Path('/etc/tcpfsmd').mkdir(exist_ok=True)
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text(CONFIG)


def test_start_serve_list():
    sh('systemctl start tcpfsmd')
    assert sh('systemctl is-active tcpfsmd').strip() == 'active'
    assert sh(f'stat -c %U /proc/{main_pid()}').strip() == 'tcpfsm'
    s = connect(7)
    s.sendall(b'hello')
    assert s.recv(5) == b'hello'
    got = json.loads(sh('tcpfsmctl list connections -o json'))
    rows = got['connections'] if isinstance(got, dict) else got
    assert len(rows) == 1 and rows[0]['state'] == 'established' and rows[0]['local'] == '10.9.0.2:7', rows
    assert '10.9.0.1' in sh('tcpfsmctl list connections')
    assert 'Status:' in sh('systemctl status tcpfsmd')
    s.close()


def test_capabilities_are_two():
    text = pathlib.Path(f'/proc/{main_pid()}/status').read_text()
    caps = {line.split(':')[0]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith('Cap')}
    two = 1 << 12 | 1 << 13  # CAP_NET_ADMIN, CAP_NET_RAW
    assert caps['CapEff'] == caps['CapPrm'] == two and caps['CapBnd'] & ~two == 0, caps


def test_exec_service_in_the_sandbox():
    text = sh('ip netns exec peer curl -sS -i --max-time 30 http://10.9.0.2/')
    assert '200 OK' in text, text


def test_group_may_use_the_socket():
    assert sh('setpriv --reuid nobody --regid nogroup --groups tcpfsm tcpfsmctl version')
    out = sh('setpriv --reuid nobody --clear-groups tcpfsmctl -s /run/tcpfsmd/control.sock shutdown; echo $?', check=False)
    assert out.splitlines()[-1] == '5', out


def test_the_kernels_port_is_refused_by_the_name_of_its_service():
    sh('systemd-run --quiet --unit=kernelweb python3 -m http.server 8080')
    until(lambda: '8080' in sh('ss -Htln'), what='the kernel listens')
    out = sh('tcpfsmctl listen 10.9.0.2:8080 --service echo; echo exit $?', check=False)
    assert 'kernelweb.service' in out and '0.0.0.0:8080' in out and 'exit 1' in out, out
    sh('systemctl stop kernelweb')


def test_reload():
    pid = main_pid()
    s = connect(7)
    with open('/etc/tcpfsmd/tcpfsmd.conf', 'a') as f:
        f.write('[Listener day]\nAddress=10.9.0.2:13\nService=daytime\n')
    sh('systemctl reload tcpfsmd')
    assert connect(13).recv(100).endswith(b'\r\n')
    s.sendall(b'still here')
    assert s.recv(100) == b'still here' and main_pid() == pid
    with open('/etc/tcpfsmd/tcpfsmd.conf', 'a') as f:
        f.write('[Tcp]\nMSL=wrong\n')
    out = sh('systemctl reload tcpfsmd; echo exit $?', check=False)
    assert 'exit 0' not in out, out
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text(CONFIG)
    sh('systemctl reload tcpfsmd')
    s.sendall(b'x')
    assert s.recv(1) == b'x'


def test_killed_and_restarted_without_a_reset_of_the_kernel():
    capture = subprocess.Popen(['ip', 'netns', 'exec', 'peer', 'tcpdump', '-i', 'v0', '-U', '-w', '/run/rst.pcap',
                                'tcp[tcpflags] & tcp-rst != 0 and src host 10.9.0.2'], stderr=subprocess.PIPE, text=True)
    while 'listening' not in capture.stderr.readline():
        pass
    old = connect(7)
    old.sendall(b'a')
    assert old.recv(1) == b'a'
    before = main_pid()
    restarts = int(sh('systemctl show -p NRestarts --value tcpfsmd'))
    os.kill(before, signal.SIGKILL)
    tried = worked = 0
    end = time.monotonic() + 60
    while not worked:  # a client that goes on trying, through the gap and into the new daemon
        assert time.monotonic() < end, f'no service after {tried} tries'
        tried += 1
        try:
            s = connect(7, timeout=0.25)
            s.sendall(b'b')
            worked = s.recv(1) == b'b'
        except (TimeoutError, socket.timeout):
            pass  # unanswered: as it should be, no refusal
    until(lambda: main_pid() not in (0, before), what='a new main process')
    assert int(sh('systemctl show -p NRestarts --value tcpfsmd')) == restarts + 1
    time.sleep(0.1)
    capture.send_signal(signal.SIGINT)
    capture.wait()
    seen = sh('tcpdump -nn -r /run/rst.pcap 2>/dev/null | wc -l').strip()
    assert seen == '0', 'RST: ' + sh('tcpdump -nn -r /run/rst.pcap')
    old.sendall(b'c')  # the old connection is unknown now: tcpfsmd itself says so
    try:
        old.recv(1)
        raise AssertionError('the old connection lives?')
    except ConnectionResetError:
        pass
    got = json.loads(sh('tcpfsmctl list connections --closed -o json'))
    rows = got['connections'] if isinstance(got, dict) else got
    assert any(r['end_reason'] == 'daemon_lost' for r in rows), rows


def test_watchdog_is_fed():
    assert sh('systemctl show -p WatchdogUSec --value tcpfsmd').strip() not in ('0', 'infinity')
    a = int(sh('systemctl show -p WatchdogTimestampMonotonic --value tcpfsmd'))
    until(lambda: int(sh('systemctl show -p WatchdogTimestampMonotonic --value tcpfsmd')) > a, 15, 'a watchdog ping')


def test_watchdog_ends_a_daemon_that_hangs():
    sh('mkdir -p /run/systemd/system/tcpfsmd.service.d; printf "[Service]\\nWatchdogSec=3s\\n" > /run/systemd/system/tcpfsmd.service.d/w.conf;'
       'systemctl daemon-reload; systemctl restart tcpfsmd')
    pid = main_pid()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: main_pid() not in (0, pid) and sh('systemctl is-active tcpfsmd', check=False).strip() == 'active', 20, 'a restart')
    assert connect(7)
    sh('rm /run/systemd/system/tcpfsmd.service.d/w.conf; systemctl daemon-reload')


def test_shield_ingress():
    """nft as the daemon's child, in its sandbox; its table is kept over a crash and goes with the rules."""
    def tables():
        return [line for line in sh('nft list tables netdev').splitlines() if 'TCPFSMD' in line]

    def devices():
        return sorted(json.loads(sh('tcpfsmctl list rules -o json'))['devices'])
    assert tables() == []
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text('[Daemon]\nShield=ingress\n' + CONFIG)
    sh('systemctl restart tcpfsmd')
    assert len(tables()) == 1 and devices() == ['v1'], (tables(), devices())
    s = connect(7)
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    sh('tcpfsmctl listen 10.9.0.2:70 --service echo')
    assert '. 70 counter' in sh('nft -n list ruleset')
    sh('ip link add d0 type veth peer name d1')
    until(lambda: devices() == ['d0', 'd1', 'v1'], what='the drop on a new device')
    sh('ip link del d0')
    until(lambda: devices() == ['v1'], what='the end of it')
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: main_pid() not in (0, before) and sh('systemctl is-active tcpfsmd', check=False).strip() == 'active', what='a restart')
    assert len(tables()) == 1 and '. 70 counter' not in sh('nft -n list ruleset')
    s = connect(7)
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    s.close()
    sh('systemctl stop tcpfsmd')
    assert tables() == [] and rules() == [], (tables(), rules())
    # when systemd gives up on it
    sh('systemctl start tcpfsmd; kill -9 $(systemctl show -p MainPID --value tcpfsmd); systemctl stop tcpfsmd; systemctl start tcpfsmd-cleanup')
    assert tables() == [] and rules() == [], (tables(), rules())
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text(CONFIG)
    sh('systemctl start tcpfsmd')


def test_shield_bpf():
    """Refused without the drop-in of the man page; with it the capability is given up, and a program is where it should be."""
    if tuple(int(n) for n in os.uname().release.split('.')[:2]) < (6, 6):
        return 'this kernel has no TCX'
    drop_in = pathlib.Path('/run/systemd/system/tcpfsmd.service.d/bpf.conf')
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text('[Daemon]\nShield=bpf\n' + CONFIG)
    sh('systemctl stop tcpfsmd')
    assert sh('systemctl start tcpfsmd || echo failed').strip().endswith('failed')
    assert 'Shield=bpf takes CAP_BPF' in sh('journalctl -u tcpfsmd -n 20 --no-pager')
    assert rules() == [], rules()
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text('[Service]\nCapabilityBoundingSet=CAP_BPF\nAmbientCapabilities=CAP_BPF\nSystemCallFilter=bpf\n')
    sh('systemctl daemon-reload; systemctl reset-failed tcpfsmd; systemctl start tcpfsmd')

    def listed():
        return json.loads(sh('tcpfsmctl list rules -o json'))
    assert listed()['devices'] == ['v1'] and listed()['trouble'] is None, listed()
    sh('ip link add d0 type veth peer name d1')
    until(lambda: sorted(listed()['devices']) == ['d0', 'd1', 'v1'], what='the program on a new device')
    sh('ip link del d0')
    status = pathlib.Path(f'/proc/{main_pid()}/status').read_text()
    caps = {line.split(':')[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith('Cap')}
    assert caps['CapEff'] == caps['CapPrm'] == caps['CapAmb'] == 1 << 12 | 1 << 13, caps
    s = connect(7)
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    s.close()
    until(lambda: sum(r['early'] for r in listed()['rules']) > 3, what='a count of the program')
    sh('systemctl stop tcpfsmd')
    assert rules() == [], rules()
    drop_in.unlink()
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text(CONFIG)
    sh('systemctl daemon-reload; systemctl start tcpfsmd')
    return None


def test_stop_leaves_nothing():
    s = connect(7)
    assert rules()
    sh('systemctl stop tcpfsmd')
    assert rules() == [], rules()
    assert not os.path.exists('/run/tcpfsmd/control.sock')
    s.close()
    try:
        connect(7)
        raise AssertionError('connected to a stopped daemon')
    except ConnectionRefusedError:
        pass  # the kernel's answer: the port is its own again
    assert sh('systemctl show -p Result --value tcpfsmd').strip() == 'success'


def test_example_configuration():
    """The example of the documentation, with its comments, for addresses that appear later."""
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text('''[Daemon]
Interfaces=any               # or names
Shield=iptables              # iptables | none (an address that no kernel owns)
LocalPorts=61000-65535       # of our own, for active opens
[Control]
SocketGroup=tcpfsm           # control.sock and observe.sock in $RUNTIME_DIRECTORY
[Tcp]
MSL=30s
FinWait2Timeout=60s
InitialWindow=10
[Storage]
Database=tcpfsmd.db          # in $STATE_DIRECTORY; tables connection, transition, ...
Record=transitions
Retain=7d
RetainSize=2GiB
[Listener echo]
Address=10.0.0.2:7
Service=echo
[Listener web]
Address=[2001:db8::2]:80
Service=exec:/usr/libexec/tcpfsmd/http-hello
MaxProcesses=200
''')
    sh('systemctl start tcpfsmd')
    sh('ip addr add 10.0.0.2/32 dev v1; ip -6 addr add 2001:db8::2/64 dev v1 nodad; ip -n peer route add 10.0.0.2 via 10.9.0.2;'
       'ip -n peer -6 addr add 2001:db8::1/64 dev v0 nodad')
    s = connect(7, '10.0.0.2')
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    text = until(lambda: sh('ip netns exec peer curl -sS --max-time 30 "http://[2001:db8::2]/"', check=False), what='curl over IPv6')
    assert 'Hello' in text, text
    assert sh("sqlite3 -readonly /var/lib/tcpfsmd/tcpfsmd.db 'select count(*) > 0 from connection'").strip() == '1'
    sh('systemctl stop tcpfsmd')
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text(CONFIG)


def test_giving_up_leaves_nothing():
    """A configuration that cannot work: systemd gives up, and tcpfsmd-cleanup takes the rules."""
    sh('systemctl start tcpfsmd')
    pathlib.Path('/etc/tcpfsmd/tcpfsmd.conf').write_text('[Tcp]\nMSL=wrong\n')
    os.kill(main_pid(), signal.SIGKILL)
    until(lambda: sh('systemctl is-failed tcpfsmd', check=False).strip() == 'failed', 30, 'systemd gives up')
    until(lambda: rules() == [], 10, 'the rules go')
    assert 'MSL' in sh('journalctl -u tcpfsmd --no-pager | tail -n 40')


def test_unit_is_hardened():
    out = sh('systemd-analyze security tcpfsmd --no-pager || true', check=False)
    overall = [line for line in out.splitlines() if 'Overall exposure level' in line]
    assert overall and float(overall[0].split(':')[1].split()[0]) < 3.0, out


def main():
    tests = [(n, f) for n, f in globals().items() if n.startswith('test_')]
    print(f'1..{len(tests)}')
    setup()
    failed = 0
    for i, (name, f) in enumerate(tests, 1):
        try:
            why = f()
            print(f'ok {i} {name}' + (f' # SKIP {why}' if why else ''))
        except Exception:
            failed = 1
            print(f'not ok {i} {name}')
            print('# ' + traceback.format_exc().replace('\n', '\n# '))
            print('# ' + sh('systemctl status tcpfsmd --no-pager; journalctl -u tcpfsmd --no-pager | tail -n 15', check=False).replace('\n', '\n# '))
        sys.stdout.flush()
    sys.exit(failed)


main()
