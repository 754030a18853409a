#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Joins RFC 9293's requirement ids with the code that cites them and the tests that name them.

usage: rfc.py SOURCE_ROOT [--list]

Fails when code or tests cite an id that does not exist, and when README.md lists a deviation that the
code does not have, or the other way round. --list prints the table.
"""
import pathlib
import re
import sys

COUNT = {'MUST': 69, 'SHLD': 31, 'MAY': 18, 'REC': 1}
ID = re.compile(r'\b(MUST|SHLD|MAY|REC)-(\d+)\b')


def ids_in(text):
    return {(m[1], int(m[2])) for m in ID.finditer(text)}


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
    if not code or not tests:
        print('nothing cites a requirement: wrong root?')
        bad = 1
    if '--list' in sys.argv:
        for kind, n in COUNT.items():
            for k in range(1, n + 1):
                print(f'{kind}-{k:<3} code: {", ".join(code.get((kind, k), ["-"])):60} tests: {", ".join(tests.get((kind, k), ["-"]))}')
    sys.exit(bad)


main()
