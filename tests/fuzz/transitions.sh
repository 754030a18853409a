#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: transitions.sh SCRIPT-RUNNER REPLAY-ENGINE CORPUS
# Fails for a legal transition that no input of the corpus takes: there the fuzzer would start blind.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"$1" --legal | sort >"$dir/legal"
FUZZ_SHOW=1 "$2" "$3" 2>&1 | sed -n 's/^reached //p' | sort -u >"$dir/taken"
never=$(comm -23 "$dir/legal" "$dir/taken")
if [ -n "$never" ]; then
	echo "legal transitions that no input of $3 takes; a campaign and tests/fuzz/campaign --merge engine would add some:"
	echo "$never"
	exit 1
fi
echo "all $(wc -l <"$dir/legal") legal transitions are taken"
