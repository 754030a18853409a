#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: shrink_test.sh SIM
# Runs that fail for something harmless become short: one connection, and no fault but the one that does it;
# and the line that is printed fails in the same way, each time with the same packets.
set -eu
sim=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
	echo "$1"
	cat "$dir/out" "$dir/err"
	exit 1
}

# The first even seed that it happens to: which that is changes with the core.
seed_for() { # WHAT
	seed=2
	while "$sim" "$seed" break="$1" >"$dir/out" 2>"$dir/err"; do
		seed=$((seed + 2))
		[ $seed -lt 200 ] || fail "break=$1: no seed does it"
	done
	echo $seed
}

short() { # WHAT SEED PATTERN
	if "$sim" shrink "$2" break="$1" >"$dir/out" 2>"$dir/err"; then
		fail "shrink $2 break=$1: it ended well"
	fi
	line=$(sed -n 's/^as short as it gets: sim //p' "$dir/out")
	echo "$line" | grep -Eq "$3" || fail "shrink $2 break=$1: not short: $line"
	for again in a b; do
		# shellcheck disable=SC2086
		if "$sim" $line >"$dir/$again" 2>"$dir/$again.err"; then
			fail "$line: does not fail"
		fi
	done
	grep -q 'which is what was looked for' "$dir/a.err" || fail "$line: fails otherwise"
	grep -qx "reproduce: sim $line" "$dir/a.err" || fail "$line: says another line"
	cmp "$dir/a" "$dir/b" || fail "$line: another run each time"
	# The ladder is printed once more at the end, and it is short.
	grep -v '^as short' "$dir/out" | cmp - "$dir/a" || fail "$line: another ladder"
	[ "$(wc -l <"$dir/a")" -lt 60 ] || fail "$line: a long ladder"
}

short late-text "$(seed_for late-text)" '(mask|only)=.*break'
short late-text "$(seed_for late-text)" 'conns=1 stream=[0-9]{1,5} '
short lost-fin "$(seed_for lost-fin)" 'mask=0x[1248]0* conns=1 stream=0 no='
if "$sim" shrink 2 >"$dir/out" 2>"$dir/err"; then
	fail "shrink 2: what does not fail is no success"
fi
grep -qx 'it does not fail' "$dir/out" || fail "shrink 2: does not say that it does not fail"
"$sim" 18 only=none conns=1 >"$dir/out" 2>"$dir/err" || fail "18 only=none"
if grep -E 'LOST|MARKED|CORRUPTED' "$dir/out"; then
	fail "18 only=none: a packet suffered"
fi
for bad in no=nothing only=3,2 only=x conns=0 something=1; do
	if "$sim" 4 $bad >"$dir/out" 2>"$dir/err" || ! grep -q usage "$dir/err"; then
		fail "$bad: was taken"
	fi
done
echo "shrinking works"
