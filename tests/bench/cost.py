#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a segment costs the core, in instructions, counted by callgrind: the same on a busy machine and an idle one.

usage: cost.py [BENCH_COST] [--update]

bench_cost does each thing 1000 and 2000 times; the difference is what 1000 cost. Instructions of daemon/tcp and
daemon/base count, those of libc (copies) and of the driver do not. cost.baseline has what they were; more than
TOLERANCE above it fails, and so does as much below it, so that the file is kept true: --update writes it. The
baseline is of one compiler: with another one the ratios are shown and nothing fails. TCPFSM_BUILD names the build.
"""
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BASELINE = HERE / 'cost.baseline'
N = 1000
TOLERANCE = 0.05
WHATS = {
    'receive': 'a segment of 1448 octets in order, taken as it arrives; every second one is acknowledged',
    'receive-super': 'a super-segment of 45, and its ACK',
    'receive-copied': 'a segment, buffered and read',
    'send': 'two segments of 1448 octets, and the ACK of both',
    'send-super': 'a super-segment of 45, and its ACK',
    'ack': 'an ACK that says nothing new',
    'request': '64 octets in, 64 octets out',
    'open-close': 'a connection opened and closed by the peer: SYN, SYN-ACK, ACK, FIN, FIN, ACK',
}
COUNTED = re.compile(r'daemon/(tcp|base)/')


def instructions(path):
    """The core's own of a callgrind file, calls not included, by the file that each line is of."""
    names, here, total, skip = {}, '', 0, False
    for line in open(path):
        m = re.match(r'(fl|fi|fe|cfi|cfl)=\((\d+)\)(?: (.*))?$', line)
        if m:
            if m[3]:
                names[m[2]] = m[3]
            if m[1][0] == 'f':
                here = names[m[2]]
        elif line.startswith('calls='):
            skip = True
        elif m := re.match(r'(?:[+-]?\d+|\*) (\d+)$', line):
            if not skip and COUNTED.search(here):
                total += int(m[1])
            skip = False
    return total


def count(program, what, n, scratch):
    out = f'{scratch}/callgrind'
    # meson has malloc() fill what it gives out, which takes callgrind ten times as long as the rest.
    subprocess.run(['valgrind', '-q', '--tool=callgrind', f'--callgrind-out-file={out}', program, what, str(n)], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, 'MALLOC_PERTURB_': '0'})
    return instructions(out)


def compiler(program):
    """What the baseline is of: the compiler says it in the program."""
    text = subprocess.run(['readelf', '-p', '.comment', program], capture_output=True, text=True, check=True).stdout
    return platform.machine() + ' ' + ' '.join(re.findall(r'(?:GCC|clang)[^\n]*?(\d+)\.\d+', text)[:1]) + \
        (' clang' if 'clang' in text else ' gcc')


def main():
    args = [a for a in sys.argv[1:] if a != '--update']
    build = pathlib.Path(os.environ.get('TCPFSM_BUILD', '.'))
    program = args[0] if args else str(build / 'tests' / 'bench' / 'bench_cost')
    if not shutil.which('valgrind') or not shutil.which('readelf'):
        print('valgrind or readelf is missing')
        sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch:
        now = {w: round((count(program, w, 2 * N, scratch) - count(program, w, N, scratch)) / N, 1) for w in WHATS}
    if '--update' in sys.argv:
        BASELINE.write_text(json.dumps({'compiler': compiler(program), 'instructions': now}, indent=1) + '\n')
    was = json.loads(BASELINE.read_text())
    same = was['compiler'] == compiler(program)
    if not same:
        print(f'the baseline is of {was["compiler"]}, this is {compiler(program)}: nothing is compared')
    bad = 0
    print(f'{"":16}{"instructions":>14}{"baseline":>10}{"ratio":>7}')
    for what, text in WHATS.items():
        before = was['instructions'].get(what, 0)
        ratio = now[what] / before if before else float('inf')
        wrong = same and abs(ratio - 1) > TOLERANCE
        bad |= wrong
        print(f'{what:16}{now[what]:14}{before:10}{ratio:7.2f}  {text}{"  <--" if wrong else ""}')
    if min(now.values()) <= 0:
        print('something costs nothing: nothing was counted')
        bad = 1
    if bad:
        print(f'more than {TOLERANCE:.0%} off: make it cheaper again, or, when it is worth it, cost.py --update')
    sys.exit(bad)


if __name__ == '__main__':
    main()
