#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a reader should not find in the tree: missing SPDX lines, unfinished words, long functions.

usage: hygiene.py SOURCE_ROOT
"""
import pathlib
import re
import sys

WORDS = re.compile(r'\b(TO' + r'DO|FIX' + r'ME|XX' + r'X|HA' + r'CK)\b')
FOLDERS = ('daemon', 'ctl', 'proto', 'tests', 'etc', 'systemd')
LINES_MAX = 80


def functions(text):
    """(name, first line, lines) of each function body that starts in column 0."""
    lines = text.splitlines()
    start = None
    for n, line in enumerate(lines, 1):
        if line == '{' and start is None:
            start = n
        elif line == '}' and start is not None:
            head = next((lines[k] for k in range(start - 2, max(start - 8, -1), -1) if re.match(r'\S.*\(', lines[k])), '?')
            yield head, start, n - start
            start = None


def main():
    root = pathlib.Path(sys.argv[1])
    bad = checked = 0
    for folder in FOLDERS:
        for f in sorted((root / folder).rglob('*')):
            if not f.is_file() or 'corpus' in f.parts or '__pycache__' in f.parts:
                continue
            rel = f.relative_to(root)
            try:
                text = f.read_text()
            except UnicodeDecodeError:
                print(f'{rel}: not UTF-8')
                bad = 1
                continue
            checked += 1
            code = f.suffix in ('.c', '.h', '.def', '.py', '.sh') or text.startswith('#!')
            if code and 'SPDX-License-Identifier: Apache-2.0' not in '\n'.join(text.splitlines()[:4]):
                print(f'{rel}: no SPDX line at its top')
                bad = 1
            for n, line in enumerate(text.splitlines(), 1):
                if WORDS.search(line):
                    print(f'{rel}:{n}: says that something is unfinished')
                    bad = 1
                if line != line.rstrip() and f.suffix not in ('.seg', '.md'):
                    print(f'{rel}:{n}: white space at its end')
                    bad = 1
            if f.suffix == '.c' and rel.parts[0] != 'tests':
                for head, n, length in functions(text):
                    if length > LINES_MAX:
                        print(f'{rel}:{n}: {head} has {length} lines; {LINES_MAX} fit a screen')
                        bad = 1
    if checked == 0:
        print('no files found: wrong root?')
        bad = 1
    sys.exit(bad)


main()
