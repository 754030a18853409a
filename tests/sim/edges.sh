#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: edges.sh SCRIPT-RUNNER SIM DIRECTORY-OF-SCRIPTS
# Plays all scripts and some seeds, and fails for a legal transition that none of them took.
set -eu
run=$1 sim=$2 scripts=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"$run" --legal | sort >"$dir/legal"
"$run" --edges "$dir/by_script" "$scripts"/*.seg
"$sim" --edges "$dir/by_sim" all 40
sort -u "$dir/by_script" "$dir/by_sim" >"$dir/taken"
never=$(comm -23 "$dir/legal" "$dir/taken")
if [ -n "$never" ]; then
	echo "legal transitions that no test takes:"
	echo "$never"
	exit 1
fi
echo "all $(wc -l <"$dir/legal") legal transitions are taken"
