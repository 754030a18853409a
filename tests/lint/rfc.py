#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Joins RFC 9293's requirement ids with the code that cites them and the tests that name them.

usage: rfc.py SOURCE_ROOT [--list]

Fails for a MUST or SHLD that no code cites or no test names, unless it is a deviation or EXPLAINED; for a MAY or
REC that code cites and no test names; for an id that does not exist; and when README.md lists a deviation that
the code does not have, or the other way round. A test names one in words (MUST-7) or in a name (must_7_...).
--list prints the table.
"""
import pathlib
import re
import sys

COUNT = {'MUST': 69, 'SHLD': 31, 'MAY': 18, 'REC': 1}
ID = re.compile(r'(?<![A-Za-z])(MUST|SHLD|MAY|REC)[-_](\d+)(?!\d)', re.I)
# What is for others than a TCP to do, or for none.
EXPLAINED = {
    ('SHLD', 13): 'asks it of applications: not to use urgent data',
    ('SHLD', 20): 'errors are asked for (conn_status, show connection), none is pushed: there is nothing to switch off',
    ('SHLD', 23): 'asks it of applications: not to change the DSCP in mid-connection',
}


def ids_in(text):
    return {(m[1].upper(), int(m[2])) for m in ID.finditer(text)}


def missing(code, tests, deviations):
    """What is neither done nor explained, in words."""
    for kind, n in COUNT.items():
        for i in ((kind, k) for k in range(1, n + 1)):
            name = f'{kind}-{i[1]}'
            if i in EXPLAINED and (i in code or i in tests):
                yield f'{name} is in EXPLAINED and is cited: take it out there'
            if i in EXPLAINED or i in deviations:
                continue
            if i not in code and kind in ('MUST', 'SHLD'):
                yield f'no code cites {name}: cite it where it is done, or list the deviation (README.md, DEVIATION in the code)'
            if i not in tests and (kind in ('MUST', 'SHLD') or i in code):
                yield f'no test names {name}: name it in the test that would fail without it'


def main():
    root = pathlib.Path(sys.argv[1])
    code, tests, deviations, bad = {}, {}, set(), 0
    for folder, where in (('daemon', code), ('tests', tests)):
        for f in sorted((root / folder).rglob('*')):
            if f.suffix not in ('.c', '.h', '.def', '.seg', '.py') or f.name == 'rfc.py':
                continue
            text = f.read_text(errors='replace')
            for i in ids_in(text):
                where.setdefault(i, []).append(str(f.relative_to(root)))
                if not 1 <= i[1] <= COUNT[i[0]]:
                    print(f'{f.relative_to(root)}: RFC 9293 has no {i[0]}-{i[1]}')
                    bad = 1
            if folder == 'daemon':
                for m in re.finditer(r'DEVIATION\(([^)]*)\)', text):
                    deviations |= ids_in(m[1])
    readme = root / 'README.md'
    if readme.exists():
        m = re.search(r'^## Deviations.*?(?=^## |\Z)', readme.read_text(), re.S | re.M)
        listed = {i for line in (m[0].splitlines() if m else []) if line.startswith('| MUST') or line.startswith('| SHLD')
                  for i in ids_in(line.split('|')[1])}
        for i in sorted(deviations - listed):
            print(f'README.md, Deviations: {i[0]}-{i[1]} is marked DEVIATION in the code and not listed')
            bad = 1
        for i in sorted(listed - deviations):
            print(f'README.md, Deviations: {i[0]}-{i[1]} is listed and no code says DEVIATION({i[0]}-{i[1]})')
            bad = 1
    for line in missing(code, tests, deviations):
        print(line)
        bad = 1
    if not code or not tests:
        print('nothing cites a requirement: wrong root?')
        bad = 1
    if '--list' in sys.argv:
        for kind, n in COUNT.items():
            for k in range(1, n + 1):
                print(f'{kind}-{k:<3} code: {", ".join(code.get((kind, k), ["-"])):60} tests: {", ".join(tests.get((kind, k), ["-"]))}')
    sys.exit(bad)


main()
