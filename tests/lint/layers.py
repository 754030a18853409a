#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks which folder includes which. The table is the design; README shows it.

usage: layers.py SOURCE_ROOT
"""
import pathlib
import re
import sys

CORE = ['daemon/base', 'daemon/tcp']
MIDDLE = CORE + ['daemon/wire', 'daemon/link', 'daemon/host', 'daemon/service', 'daemon/record', 'daemon/config']
MAY = {
    'daemon/base': [],
    'daemon/tcp': ['daemon/base'],
    'daemon/wire': CORE,
    'daemon/fault': CORE,
    'daemon/link': ['daemon/base'],
    'daemon/host': CORE + ['daemon/wire'],  # the self-test makes a segment
    'daemon/service': CORE,
    'daemon/record': CORE,
    'daemon/config': CORE,
    'daemon/worker': CORE + ['daemon/wire', 'daemon/link', 'daemon/host', 'daemon/service', 'daemon/record'],
    'daemon/control': MIDDLE + ['daemon/worker', 'proto'],
    'daemon': ['*'],
    'proto': [],
    'ctl': ['proto'],
    'tests': ['*'],
}
# What others may include of a pure folder; the rest of it is private.
PUBLIC = {'daemon/tcp': {'engine.h', 'icmp.h', 'icmp_errors.def', 'params.h', 'segment.h', 'seqno.h', 'state.h', 'trace.h', 'vtime.h',
                         'counters.def', 'rules.def', 'end_reasons.def'}}
# Folders that may use nothing of the system but these headers.
PURE = {'daemon/tcp', 'daemon/wire', 'daemon/fault'}
FREESTANDING = {'assert.h', 'errno.h', 'inttypes.h', 'limits.h', 'stdbool.h', 'stddef.h', 'stdint.h', 'string.h'}
# Libraries and the only folders that may know them.
ONLY = {
    r'event2/': {'daemon/worker', 'daemon/control', 'daemon', 'daemon/service'},
    r'sqlite3\.h': {'daemon/record'},
    r'netlink/|linux/(rtnetlink|inet_diag)': {'daemon/host'},
    r'libsmartcols': {'ctl'},
    r'ini\.h': {'daemon/config'},
    r'jansson': {'proto', 'ctl', 'daemon/control', 'daemon'},
}


def layer(path):
    p = str(path)
    return max((k for k in MAY if p == k or p.startswith(k + '/')), key=len, default=None)


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    bad = checked = 0
    for f in sorted(root.rglob('*.[ch]')):
        rel = f.relative_to(root)
        me = layer(rel.parent)
        if me is None or me == 'tests' or rel.parts[0].startswith(('build', '.')):
            continue
        checked += 1
        for n, line in enumerate(f.read_text().splitlines(), 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)', line)
            if not m:
                continue

            def complain(what):
                nonlocal bad
                print(f'{rel}:{n}: {what}')
                bad = 1

            if m[1] == '<':
                if me in PURE and m[2] not in FREESTANDING:
                    complain(f'{me} is pure and may not use <{m[2]}>')
                for pattern, folders in ONLY.items():
                    if re.match(pattern, m[2]) and me not in folders:
                        complain(f'<{m[2]}> belongs to {", ".join(sorted(folders))}, not to {me}')
                continue
            places = [d / m[2] for d in (f.parent, root, root / 'daemon')]
            target = next((p for p in places if p.exists()), None)
            if target is None:
                continue  # generated
            target = target.resolve().relative_to(root)
            them = layer(target.parent)
            if them != me and '*' not in MAY[me] and them not in MAY[me]:
                complain(f'{me} may not include {them}')
            if them != me and them in PUBLIC and target.name not in PUBLIC[them]:
                complain(f'{target} is private to {them}')
    if checked == 0:
        print('no source files found: wrong root?')
        bad = 1
    sys.exit(bad)


main()
