#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every behaviour in tests/script/README.md names tests, and each of them exists.

usage: behaviours.py SOURCE_ROOT
"""
import pathlib
import re
import sys


def exists(tests, name):
    """A script (or a pattern of them), FILE:FUNCTION, or a suite and a test of it."""
    if name.endswith('.seg'):
        return any((tests / 'script').glob(name))
    if ':' in name:
        file, function = name.split(':')
        return any(re.search(rf'\b{re.escape(function)}\b *\(', f.read_text()) for f in tests.rglob(file))
    suite, _, test = name.partition(' ')
    build = tests / suite / 'meson.build'
    if not build.exists():
        return False
    kind, _, target = test.rpartition(' of ')
    if kind: # `fuzz corpus of NAME` is one of a loop
        return f"'{target}':" in build.read_text()
    return not test or f"test('{test}'" in build.read_text()


def main():
    tests = pathlib.Path(sys.argv[1]) / 'tests'
    rows = bad = 0
    for n, line in enumerate((tests / 'script' / 'README.md').read_text().splitlines(), 1):
        m = re.match(r'\| (.+?) \| (.+) \|$', line)
        if not m or m[1] == 'behaviour':
            continue
        rows += 1
        names = re.findall(r'`([^`]+)`', m[2])
        if not names:
            print(f'tests/script/README.md:{n}: no test shows this: {m[1]}')
            bad = 1
        for name in names:
            if not exists(tests, name):
                print(f'tests/script/README.md:{n}: there is no test {name}')
                bad = 1
    if rows < 70:
        print(f'only {rows} behaviours were found: wrong root, or another form?')
        bad = 1
    sys.exit(bad)


main()
