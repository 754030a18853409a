#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tcpfsmctl against a daemon of canned answers: exit codes, messages, forms of output, connect.
usage: test_tcpfsmctl.py TCPFSMCTL SOURCE_ROOT"""
import csv
import io
import json
import os
import pathlib
import pty
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from fake import Fake

TCPFSMCTL, SOURCE = sys.argv[1:3]


def connection(i, **more):
    row = {'id': i, 'local': '10.0.0.2:7', 'remote': f'10.0.0.1:{40000 + i}', 'state': 'established',
           'direction': 'passive', 'service': 'echo', 'interface': 'eth0', 'start_us': 1700000000000000,
           'opened_us': 1700000000000250, 'end_us': None, 'end_reason': None, 'end_text': None, 'closed_by': None,
           'last_state': None, 'bytes_in': 1500, 'bytes_out': 3, 'segments_in': 4, 'segments_out': 5,
           'retransmitted_segments': 0, 'retransmitted_bytes': 0, 'rtt_us': 250, 'rttvar_us': 100, 'rttmin_us': 200,
           'snd_mss_bytes': 1448, 'rcv_mss_bytes': 1460, 'recv_queue_bytes': 0, 'send_queue_bytes': 0, 'pid': None,
           'exit_status': None, 'exit_signal': None, 'run_us': None}
    return row | more


def ended(i, reason, text):
    return connection(i, state='closed', end_us=1700000001000000, end_reason=reason, end_text=text, closed_by='peer',
                      last_state='established')


def page(params, fake, total=2500):
    start = int(params.get('after', '0'))
    end = min(start + min(params.get('limit', 1000), 1000), total)
    return {'connections': [connection(i) for i in range(start, end)], 'next': str(end) if end < total else None,
            'total': total}


class Base(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, 'control.sock')
        self.fakes = []

    def tearDown(self):
        for f in self.fakes:
            f.close()
        self.dir.cleanup()

    def fake(self, answers, name='control.sock'):
        self.fakes.append(Fake(os.path.join(self.dir.name, name), answers))
        return self.fakes[-1]

    def run_ctl(self, *words, socket_path=True, env=None, stdin=b'', **more):
        env = {'PATH': os.environ['PATH'], 'LC_ALL': 'C.UTF-8', 'TZ': 'UTC'} | (env or {})
        for name in ('ASAN_OPTIONS', 'UBSAN_OPTIONS'):
            if name in os.environ:
                env[name] = os.environ[name]
        if socket_path:
            words += ('-s', self.path)
        return subprocess.run([TCPFSMCTL, *words], input=stdin, capture_output=True, env=env, timeout=60, **more)

    def check(self, done, code, out=None, err=None):
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        self.assertEqual(done.returncode, code, stdout + stderr)
        if out is not None:
            self.assertEqual(stdout, out)
        if err is None:
            self.assertEqual(stderr, '')
        else:
            self.assertIn(err, stderr)
            self.assertEqual(stderr.count('\n'), 1, 'one line: ' + stderr)


class Usage(Base):
    """None of these may connect: no daemon is there, and the exit code is 2, not 3."""

    def test_wrong_words(self):
        self.check(self.run_ctl('lst'), 2, '', 'tcpfsmctl: "lst": no such command; did you mean "list"?')
        self.check(self.run_ctl('list', 'conections'), 2, '', 'did you mean "list connections"')
        self.check(self.run_ctl('list'), 2, '', 'list: a word is missing; possible: connections, listeners, services, rules')
        self.check(self.run_ctl('status', 'now'), 2, '', 'status: "now": nothing more was expected')

    def test_wrong_options(self):
        self.check(self.run_ctl('status', '-o', 'xml'), 2, '', 'possible: table, json, json-seq, csv, tsv')
        self.check(self.run_ctl('status', '--timeout', 'soon'), 2, '', '--timeout "soon": expected a time')
        self.check(self.run_ctl('status', '--jsn'), 2, '', 'status: "--jsn": no such option')
        self.check(self.run_ctl('status', '-x'), 2, '', '"-x": no such option')
        self.check(self.run_ctl('status', '--version=1'), 2, '', '--version has no value')
        self.check(self.run_ctl('status', '-o', socket_path=False), 2, '', '-o: a value is missing')
        self.check(self.run_ctl('status', '-s', '', socket_path=False), 2, '', 'path of a socket')

    def test_wrong_values(self):
        self.check(self.run_ctl('show', 'connection', 'x'), 2, '', 'id: "x": expected an integer')
        self.check(self.run_ctl('list', 'connections', 'sprot', '=', ':80'), 2, '', 'character 1, "sprot"')
        self.check(self.run_ctl('connect', '10.0.0.2'), 2, '', 'address: "10.0.0.2": expected ADDR:PORT')

    def test_no_words(self):
        done = self.run_ctl()
        self.assertEqual((done.returncode, done.stdout), (2, b''))
        self.assertIn(b'Usage: tcpfsmctl', done.stderr)


class Tcp(Base):
    ROWS = [{'key': 'TTL', 'value': '64', 'whose': 'daemon', 'from': 'default', 'running': True, 'expected': 'a number', 'help': 'h'},
            {'key': 'DSCP', 'value': '46', 'whose': 'connection', 'from': None, 'running': True, 'expected': 'n', 'help': 'h'}]

    def test_show(self):
        f = self.fake({'show.tcp': {'tcp': self.ROWS, 'connection': 7}})
        self.check(self.run_ctl('show', 'tcp', '--connection', '7'), 0,
                   'Key  Value Whose      From\nTTL  64    daemon     default\nDSCP 46    connection -\n')
        self.assertEqual(f.requests[0]['params'], {'connection': 7})
        self.check(self.run_ctl('show', 'tcp', '-o', 'tsv'), 0,
                   'key\tvalue\twhose\tfrom\trunning\texpected\thelp\nTTL\t64\tdaemon\tdefault\ttrue\ta number\th\n'
                   'DSCP\t46\tconnection\t\ttrue\tn\th\n')

    def test_set(self):
        f = self.fake({'set.tcp': {'key': 'DSCP', 'value': '46', 'was': '0', 'until_reload': True, 'own': 2}})
        self.check(self.run_ctl('set', 'tcp.DSCP', '46'), 0, 'tcp.DSCP is 46 (was 0), for connections from now on '
                   '(2 of the listeners have their own), until the next reload\n')
        self.assertEqual(f.requests[0]['params'], {'key': 'tcp.DSCP', 'value': '46'})
        f.answers['set.tcp'] = {'key': 'DSCP', 'value': '46', 'was': '0', 'until_reload': False, 'connection': 7}
        self.check(self.run_ctl('set', 'tcp.DSCP', '46', '--connection', '7'), 0, 'tcp.DSCP is 46 (was 0), for connection 7\n')
        f.answers['set.tcp'] = {'key': 'DSCP', 'value': '46', 'was': '0', 'until_reload': True, 'listener': '10.0.0.2:7'}
        self.check(self.run_ctl('set', 'tcp.DSCP', '46', '--listener', '10.0.0.2:7'), 0,
                   'tcp.DSCP is 46 (was 0), for what 10.0.0.2:7 accepts from now on, until the next reload\n')

    def test_urgent(self):
        f = self.fake({'send.urgent': {'id': 7, 'bytes': 4}})
        self.check(self.run_ctl('send', 'urgent', '7', 'stop'), 0, 'connection 7: 4 octets queued, urgent\n')
        self.assertEqual(f.requests[0]['params'], {'id': 7, 'text': 'stop'})

    def test_what_is_refused(self):
        self.check(self.run_ctl('set'), 2, '', 'set: key is missing')
        self.check(self.run_ctl('set', 'tcp.DSCP'), 2, '', 'set: value is missing')
        self.check(self.run_ctl('set', 'tcp.DSCP', '1', '--conection', '7'), 2, '', 'did you mean "--connection"')
        for code, name, exit_code in ((-32602, 'invalid_params', 2), (-32000, 'refused', 1), (-32001, 'not_found', 4)):
            f = self.fake({'set.tcp': (code, name, 'key: [Tcp] has no key DSPC; the nearest is DSCP')})
            self.check(self.run_ctl('set', 'tcp.DSPC', '46'), exit_code, '', 'the nearest is DSCP')
            f.close()
            self.fakes.clear()

    def test_help_lists_the_keys(self):
        done = self.run_ctl('set', '--help')
        self.check(done, 0)
        self.assertIn(b' * tcp.Timestamps ', done.stdout)
        self.assertIn(b'   tcp.DSCP ', done.stdout)


class Help(Base):
    def test_help(self):
        for words in (['--help'], ['-h'], ['help']):
            done = self.run_ctl(*words)
            self.check(done, 0)
            self.assertIn(b'list connections', done.stdout)
            self.assertIn(b'Exit: 0 ok', done.stdout)

    def test_help_of_a_command(self):
        for words in (['listen', '--help'], ['-h', 'listen'], ['help', 'listen'], ['listen', '*:7', 'echo', '-h']):
            done = self.run_ctl(*words)
            self.check(done, 0)
            self.assertIn(b'Usage: tcpfsmctl listen ADDR:PORT SERVICE', done.stdout)
            self.assertIn(b'--max-processes', done.stdout)

    def test_help_of_a_verb(self):
        done = self.run_ctl('list', '--help')
        self.check(done, 0)
        self.assertEqual(len(done.stdout.splitlines()), 4)

    def test_help_of_nothing(self):
        self.check(self.run_ctl('frob', '--help'), 2, '', '"frob": no such command')

    def test_version(self):
        self.assertRegex(self.run_ctl('--version').stdout.decode(), r'^tcpfsmctl \d+\.\d+\.\d+\n$')

    def test_complete(self):
        def complete(*words):
            return self.run_ctl('--complete', *words, socket_path=False).stdout.decode().split()
        self.assertIn('list', complete(''))
        self.assertEqual(complete('list', 'conn'), ['connections'])
        self.assertEqual(complete('show', ''), ['connection', 'transitions', 'tcp'])
        self.assertIn('tcp.RtoMin', complete('set', ''))
        self.assertEqual(complete('set', 'tcp.UserTimeout', ''), ['infinity'])
        self.assertIn('--closed', complete('list', 'connections', '--'))
        self.assertNotIn('--closed', complete('status', '--'))
        self.assertEqual(complete('-o', 'json', 'list', 'connections', 'state', 'est'), ['established'])
        self.assertEqual(complete('-o', 'json'), ['json', 'json-seq'])
        self.assertEqual(complete('listen', '*:7', 'ec'), ['echo'])
        self.assertEqual(complete('nonsense', ''), [])


class Manual(unittest.TestCase):
    """What the table of methods has, the manual page has too."""

    def setUp(self):
        text = (pathlib.Path(SOURCE) / 'ctl/tcpfsmctl.1').read_text().replace('\\-', '-')
        self.commands = re.findall(r'^\.It Cm (.*)', text, re.M)
        self.options = set(re.findall(r'--[a-z-]+', re.sub(r'(Fl|,) -', r'\1 --', text)))
        self.words = set(re.findall(r'\w+', text))

    def test_commands_and_options(self):
        text = subprocess.run([TCPFSMCTL, '--help'], capture_output=True, text=True, check=True).stdout
        commands = [line[2:22].strip() for line in text.split('Commands:\n')[1].split('\n\n')[0].splitlines()]
        self.assertGreater(len(commands), 15)
        for command in commands:
            self.assertTrue(any(f'{c} '.startswith(f'{command} ') for c in self.commands), command)
            text = subprocess.run([TCPFSMCTL, 'help', *command.split()], capture_output=True, text=True, check=True).stdout
            self.assertLessEqual(set(re.findall(r'--[a-z-]+', text)), self.options)

    def test_fields(self):
        keys = re.findall(r'^FIELD\(\w+, "(\w+)"', (pathlib.Path(SOURCE) / 'proto/fields.def').read_text(), re.M)
        self.assertGreater(len(keys), 40)
        self.assertLessEqual(set(keys), self.words)


class NoDaemon(Base):
    def test_nothing_there(self):
        self.check(self.run_ctl('status'), 3, '', f'no tcpfsmd at {self.path}: No such file or directory '
                   '(is it running? systemctl start tcpfsmd)')

    def test_dead_socket(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path)
        self.check(self.run_ctl('status'), 3, '', 'Connection refused (is it running?')

    def test_path_too_long(self):
        self.check(self.run_ctl('status', '-s', '/' + 'x' * 200, socket_path=False), 3, '', 'File name too long')

    def test_where_it_is(self):
        run = self.run_ctl('status', socket_path=False, env={'RUNTIME_DIRECTORY': '/nowhere/a:/nowhere/b'})
        self.check(run, 3, '', 'no tcpfsmd at /nowhere/a/control.sock')
        run = self.run_ctl('status', socket_path=False, env={'RUNTIME_DIRECTORY': '/nowhere', 'TCPFSM_SOCKET': '/else'})
        self.check(run, 3, '', 'no tcpfsmd at /else')
        run = self.run_ctl('-s/given', 'status', socket_path=False, env={'TCPFSM_SOCKET': '/else'})
        self.check(run, 3, '', 'no tcpfsmd at /given')

    def test_closed_without_answer(self):
        self.fake({'status': Fake.CLOSE})
        self.check(self.run_ctl('status'), 3, '', 'closed the connection without an answer')


class Errors(Base):
    def test_exit_codes(self):
        for code, name, exit_code in ((-32602, 'invalid_params', 2), (-32603, 'internal_error', 1), (-32000, 'refused', 1),
                                      (-32001, 'not_found', 4), (-32002, 'permission_denied', 5), (-32003, 'busy', 1),
                                      (-32004, 'timed_out', 6), (-32005, 'too_large', 2), (-32006, 'no_record', 1),
                                      (-32601, 'method_not_found', 2), (-1, 'of_the_future', 1)):
            with self.subTest(name):
                f = Fake(self.path, {'show.connection': (code, name, 'connection 7: what it was')})
                try:
                    self.check(self.run_ctl('show', 'connection', '7'), exit_code, '', 'tcpfsmctl: connection 7: what it was\n')
                finally:
                    f.close()

    def test_timeout(self):
        self.fake({'status': Fake.HANG})
        start = time.monotonic()
        self.check(self.run_ctl('status', '--timeout', '200ms'), 6, '', 'no answer within 0.2 s')
        self.assertLess(time.monotonic() - start, 10)

    def test_no_json(self):
        self.fake({'status': b'hello\n'})
        self.check(self.run_ctl('status'), 1, '', 'Protocol error')

    def test_wrong_id(self):
        self.fake({'status': b'{"jsonrpc":"2.0","id":99,"result":{}}\n'})
        self.check(self.run_ctl('status'), 1, '', 'Protocol error')

    def test_error_for_the_client(self):
        self.fake({'status': b'{"jsonrpc":"2.0","id":null,"error":{"code":-32003,"message":"too many clients"}}\n'})
        self.check(self.run_ctl('status'), 1, '', 'too many clients')

    def test_full_disk(self):
        self.fake({'version': {'version': '0.1.0', 'protocol': 1, 'schema': 1}})
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([TCPFSMCTL, '-s', self.path, 'version'], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b'standard output: No space left on device', done.stderr)


@unittest.skipUnless(os.geteuid() == 0, 'needs root, to become somebody who is not')
class Permission(Base):
    def setUp(self):
        super().setUp()
        os.chmod(self.dir.name, 0o755)

    def run_as_nobody(self, *words):
        # A sanitizer's leak check cannot look at a process that changed its user.
        return self.run_ctl(*words, user=65534, group=65534, extra_groups=[], env={'ASAN_OPTIONS': 'detect_leaks=0'})

    def test_observe_instead(self):
        self.fake({'version': (-1, '', 'the wrong socket')})
        self.fake({'version': {'version': '0.1.0', 'protocol': 1, 'schema': 1}}, 'observe.sock')
        os.chmod(self.path, 0o600)
        os.chmod(os.path.join(self.dir.name, 'observe.sock'), 0o666)
        if self.run_as_nobody('--version').returncode:
            self.skipTest('tcpfsmctl is where nobody else may run it')
        self.check(self.run_as_nobody('version'), 0, 'tcpfsmd 0.1.0, protocol 1, schema 1\n')
        self.check(self.run_as_nobody('shutdown'), 5, '', f'{self.path}: Permission denied')


class Output(Base):
    def test_table(self):
        self.fake({'list.connections': lambda p, f: page(p, f, 2)})
        self.check(self.run_ctl('list', 'connections'), 0,
                   'ID State       Recv-Q Send-Q Local      Peer           Service   In Out Retrans   RTT\n'
                   ' 0 ESTABLISHED      0      0 10.0.0.2:7 10.0.0.1:40000 echo    1.5k   3       0 250us\n'
                   ' 1 ESTABLISHED      0      0 10.0.0.2:7 10.0.0.1:40001 echo    1.5k   3       0 250us\n')

    def test_empty_table(self):
        self.fake({'list.connections': {'connections': [], 'next': None, 'total': 0}})
        done = self.run_ctl('list', 'connections')
        self.check(done, 0)
        self.assertTrue(done.stdout.startswith(b'ID  State'))

    def test_closed_table(self):
        f = self.fake({'list.connections': {'connections': [ended(3, 'reset_by_peer', 'the peer sent a RST')], 'next': None,
                                            'total': None}})
        done = self.run_ctl('list', '--closed', 'connections')
        self.check(done, 0)
        self.assertIn(b'reset_by_peer peer', done.stdout)
        self.assertIn(b'2023-11-14 22:13:20.000', done.stdout)
        self.assertIs(f.requests[0]['params']['closed'], True)

    def test_filter_goes_along(self):
        f = self.fake({'list.connections': page})
        self.check(self.run_ctl('list', 'connections', 'state', 'established', '-o', 'json', 'and', 'dport', '=', ':7',
                                '--limit', '1'), 0)
        self.assertEqual(f.requests[0]['params'], {'filter': 'state established and dport = :7', 'limit': 1})

    def test_pages(self):
        for form in ('json', 'json-seq', 'csv', 'tsv', 'table'):
            with self.subTest(form):
                f = Fake(self.path, {'list.connections': page})
                try:
                    done = self.run_ctl('-o', form, 'list', 'connections')
                    self.check(done, 0)
                    self.assertEqual(len(f.requests), 3)
                    lines = done.stdout.decode().splitlines()
                    if form == 'json':
                        whole = json.loads(done.stdout)
                        self.assertEqual([c['id'] for c in whole['connections']], list(range(2500)))
                        self.assertEqual((whole['next'], whole['total']), (None, 2500))
                    elif form == 'json-seq':
                        rows = [json.loads(x) for x in done.stdout.decode().split('\x1e')[1:]]
                        self.assertEqual([r['id'] for r in rows], list(range(2500)))
                    else:
                        self.assertEqual(len(lines), 2501)
                finally:
                    f.close()

    def test_limit_in_total(self):
        f = self.fake({'list.connections': page})
        done = self.run_ctl('-o', 'json', 'list', 'connections', '--limit=1200')
        self.check(done, 0)
        self.assertEqual(len(json.loads(done.stdout)['connections']), 1200)
        self.assertEqual([r['params'].get('limit') for r in f.requests], [1000, 200])
        self.assertEqual(json.loads(done.stdout)['next'], '1200')

    def test_error_in_a_later_page(self):
        self.fake({'list.connections': lambda p, f: (-32003, 'busy', 'too much waits') if 'after' in p else page(p, f)})
        done = self.run_ctl('-o', 'csv', 'list', 'connections')
        self.check(done, 1, None, 'too much waits')

    def test_csv(self):
        row = connection(1, service='a"b,c\n', pid=5)
        self.fake({'list.connections': {'connections': [row], 'next': None, 'total': 1}})
        done = self.run_ctl('list', 'connections', '-ocsv')
        self.check(done, 0)
        read = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline='')))
        self.assertEqual(len(read), 1)
        self.assertEqual(set(read[0]), set(row))
        self.assertEqual(read[0]['service'], 'a"b,c\n')
        self.assertEqual((read[0]['bytes_in'], read[0]['end_us'], read[0]['rtt_us'], read[0]['pid']), ('1500', '', '250', '5'))

    def test_tsv(self):
        self.fake({'list.services': {'services': [{'name': 'a\tb', 'argument': None, 'help': 'c\\d'}]}})
        self.check(self.run_ctl('list', 'services', '--output=tsv'), 0, 'name\targument\thelp\na\\tb\t\tc\\\\d\n')

    def test_pairs(self):
        self.fake({'status': {'version': '0.1.0', 'links': {'packet': {'frames_in': 5}}, 'ok': True}})
        self.check(self.run_ctl('status', '-o', 'csv'), 0, 'key,value\nversion,0.1.0\nlinks.packet.frames_in,5\nok,true\n')

    def test_json(self):
        self.fake({'version': {'version': '0.1.0', 'protocol': 1, 'schema': 9007199254740991}})
        self.check(self.run_ctl('version', '-o', 'json'), 0, '{"version":"0.1.0","protocol":1,"schema":9007199254740991}\n')

    def test_large_answer(self):
        self.fake({'list.services': {'services': [{'name': 'x' * 1000, 'argument': None, 'help': ''}] * 5000}})
        done = self.run_ctl('list', 'services', '-o', 'json')
        self.check(done, 0)
        self.assertEqual(len(json.loads(done.stdout)['services']), 5000)

    def test_transitions(self):
        self.fake({'show.transitions': {'connection': 7, 'more': False, 'transitions': [
            {'at_us': 1000000, 'from': 'listen', 'to': 'syn_received', 'cause': 'segment SYN', 'rule': 'r1'},
            {'at_us': 1000123, 'from': 'syn_received', 'to': 'established', 'cause': 'segment ACK', 'rule': 'r2'}]}})
        self.check(self.run_ctl('show', 'transitions', '7'), 0,
                   'connection 7\n'
                   '        At From         To           Cause       Rule\n'
                   '+0.000000s LISTEN       SYN-RECEIVED segment SYN r1\n'
                   '+0.000123s SYN-RECEIVED ESTABLISHED  segment ACK r2\n')

    def test_rules(self):
        self.fake({'list.rules': {'shield': 'iptables', 'rules': [
            {'family': 'ipv4', 'address': '10.0.0.2', 'port_min': 61000, 'port_max': 65535, 'packets': 1, 'bytes': 2}]}})
        done = self.run_ctl('list', 'rules')
        self.check(done, 0)
        self.assertIn(b'61000-65535', done.stdout)
        self.assertTrue(done.stdout.endswith(b'shield: iptables\n'))

    def test_rules_at_ingress(self):
        answer = {'shield': 'ingress', 'devices': ['eth0'], 'trouble': None, 'rules': [
            {'family': 'ipv4', 'address': '10.0.0.2', 'port_min': 7, 'port_max': 7, 'packets': 1, 'bytes': 2, 'early': 1}]}
        fake = self.fake({'list.rules': answer})
        self.assertTrue(self.run_ctl('list', 'rules').stdout.endswith(b'shield: ingress\n'))
        fake.answers['list.rules'] = dict(answer, devices=[], trouble='nft is ill')
        self.assertTrue(self.run_ctl('list', 'rules').stdout.endswith(b'shield: ingress\niptables alone: nft is ill\n'))

    def test_connection_page(self):
        self.fake({'show.connection': connection(7, detail={'rto_us': 200000, 'iss': 4294967295})})
        done = self.run_ctl('show', 'connection', '7')
        self.check(done, 0)
        self.assertIn(b'connection 7: ESTABLISHED, passive', done.stdout)
        self.assertIn(b'4294967295', done.stdout)

    def test_discover(self):
        self.fake({'rpc.discover': {'protocol': 1, 'methods': []}})
        self.check(self.run_ctl('help', '-o', 'json'), 0, '{"methods":[\n],"protocol":1}\n'.replace('[\n]', '[]'))

    def on_terminal(self, env):
        leader, follower = pty.openpty()
        env = {'PATH': os.environ['PATH'], 'TERM': 'xterm'} | env
        with subprocess.Popen([TCPFSMCTL, '-s', self.path, 'list', 'connections'], stdout=follower, env=env) as p:
            os.close(follower)
            out = b''
            while True:
                try:
                    some = os.read(leader, 65536)
                except OSError:
                    break
                if not some:
                    break
                out += some
        os.close(leader)
        self.assertEqual(p.returncode, 0)
        self.assertIn(b'ESTABLISHED', out)
        return out

    def test_colour(self):
        self.fake({'list.connections': lambda p, f: page(p, f, 2)})
        self.assertIn(b'\x1b[32m', self.on_terminal({}))
        self.assertNotIn(b'\x1b', self.on_terminal({'NO_COLOR': '1'}))
        self.assertNotIn(b'\x1b', self.on_terminal({'TERM': 'dumb'}))
        self.assertNotIn(b'\x1b', self.run_ctl('list', 'connections').stdout)


class Connect(Base):
    def daemon(self, peer, end=None):
        """peer(socket) runs as the connection's other side; end is what show.connection then gives."""
        self.peer_error = None

        def run(ours):
            try:
                with ours:
                    peer(ours)
            except Exception as e:  # told by the test
                self.peer_error = e

        def connect(params, fake):
            ours, theirs = socket.socketpair()
            self.peer = threading.Thread(target=run, args=(ours,), daemon=True)
            self.peer.start()
            return 'fd', {'id': 7, 'local': '10.0.0.1:61000', 'remote': '10.0.0.2:80'}, theirs
        return self.fake({'connect': connect, 'show.connection': end or ended(7, 'normal', 'both sides closed')})

    def finish(self):
        self.peer.join(30)
        self.assertFalse(self.peer.is_alive())
        self.assertIsNone(self.peer_error)

    def test_both_ways(self):
        def peer(s):
            s.sendall(b'hello\n')
            got = b''
            while some := s.recv(65536):
                got += some
            s.sendall(b'you said ' + got)
        f = self.daemon(peer)
        self.check(self.run_ctl('connect', '10.0.0.2:80', stdin=b'abc'), 0, 'hello\nyou said abc')
        self.finish()
        self.assertIs(f.requests[0]['params']['stream'], True)
        self.assertEqual(f.requests[1]['method'], 'show.connection')

    def test_back_pressure(self):
        """Both directions are full at once, and the reader of standard output is late: every octet arrives."""
        size = 8 << 20
        up, down = os.urandom(size), os.urandom(size)
        got = bytearray()

        def peer(s):
            sender = threading.Thread(target=lambda: (s.sendall(down), s.shutdown(socket.SHUT_WR)))
            sender.start()
            time.sleep(0.1)
            while some := s.recv(65536):
                got.extend(some)
            sender.join()
        self.daemon(peer)
        self.assertEqual(self.run_ctl('connect', '10.0.0.2:80', stdin=up).stdout, down)
        self.finish()
        self.assertEqual(bytes(got), up)

    def test_half_close_by_peer(self):
        """The peer's FIN comes first; what is written afterwards still goes out."""
        got = bytearray()
        closed = threading.Event()

        def peer(s):
            s.sendall(b'bye')
            s.shutdown(socket.SHUT_WR)
            closed.set()
            while some := s.recv(65536):
                got.extend(some)
        self.daemon(peer)
        with subprocess.Popen([TCPFSMCTL, '-s', self.path, 'connect', '10.0.0.2:80'], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as p:
            self.assertEqual(p.stdout.read(3), b'bye')
            self.assertTrue(closed.wait(10))
            p.stdin.write(b'later')
            p.stdin.close()
            self.assertEqual(p.wait(30), 0)
        self.finish()
        self.assertEqual(bytes(got), b'later')

    def test_reset(self):
        def peer(s):
            s.recv(1)
        self.daemon(peer, ended(7, 'reset_by_peer', 'the peer sent a RST'))
        with subprocess.Popen([TCPFSMCTL, '-s', self.path, 'connect', '10.0.0.2:80'], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            p.stdin.write(b'x')
            p.stdin.flush()
            # Standard input stays open: that the connection is gone must end it all the same.
            self.assertEqual(p.wait(30), 1)
            self.assertEqual(p.stderr.read(), b'tcpfsmctl: connection 7 to 10.0.0.2:80: the peer sent a RST\n')
        self.finish()

    def test_still_closing(self):
        self.daemon(lambda s: None, connection(7, state='time_wait'))
        self.check(self.run_ctl('connect', '10.0.0.2:80'), 0, '')
        self.finish()

    def test_timed_out_later(self):
        self.daemon(lambda s: None, ended(7, 'user_timeout', 'sent octets were not acknowledged in time'))
        self.check(self.run_ctl('connect', '10.0.0.2:80'), 6, '', 'were not acknowledged in time')
        self.finish()

    def test_nobody_reads_the_output(self):
        def peer(s):
            try:
                while True:
                    s.sendall(b'x' * 65536)
            except BrokenPipeError:
                pass
        self.daemon(peer)
        with subprocess.Popen([TCPFSMCTL, '-s', self.path, 'connect', '10.0.0.2:80'], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            p.stdout.read(10)
            p.stdout.close()
            self.assertEqual(p.wait(30), 1)
            self.assertEqual(p.stderr.read(), b'tcpfsmctl: standard output: Broken pipe\n')
        self.finish()

    def test_refused(self):
        message = 'connect 10.0.0.2:81: connection refused (the peer answered our SYN with a RST)'
        self.fake({'connect': (-32000, 'refused', message)})
        self.check(self.run_ctl('connect', '10.0.0.2:81'), 1, '', f'tcpfsmctl: {message}\n')

    def test_names_the_peer(self):
        for message in ('connection refused', '10.0.0.2:81: connection refused', 'connect 10.0.0.2:81: connection refused'):
            f = Fake(self.path, {'connect': (-32000, 'refused', message)})
            try:
                self.check(self.run_ctl('connect', '10.0.0.2:81'), 1, '', 'tcpfsmctl: connect 10.0.0.2:81: connection refused\n')
            finally:
                f.close()

    def test_timed_out(self):
        self.fake({'connect': (-32004, 'timed_out', 'connect 10.0.0.2:81: no answer')})
        self.check(self.run_ctl('connect', '10.0.0.2:81'), 6, '', 'no answer')

    def test_no_descriptor(self):
        self.fake({'connect': {'id': 7, 'local': 'a', 'remote': 'b'}})
        self.check(self.run_ctl('connect', '10.0.0.2:81'), 1, '', 'sent no descriptor')

    def test_json_opens_only(self):
        f = self.fake({'connect': {'id': 7, 'local': 'a', 'remote': 'b'}})
        self.check(self.run_ctl('connect', '10.0.0.2:81', '-o', 'json'), 0, '{"id":7,"local":"a","remote":"b"}\n')
        self.assertNotIn('stream', f.requests[0]['params'])


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
