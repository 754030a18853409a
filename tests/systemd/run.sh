#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the build into a staging directory, boots a real systemd over it, and runs inside.py there.
# usage: run.sh SOURCE_ROOT BUILD_ROOT
set -eu
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
for tool in /lib/systemd/systemd dbus-daemon ip nsenter iptables nft tcpdump; do
	type -P "$tool" >/dev/null || { echo "1..0 # SKIP needs $tool"; exit 0; }
done
findmnt -rnt cgroup2 >/dev/null || { echo "1..0 # SKIP needs a cgroup2 file system"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
meson install -C "$2" --no-rebuild --quiet --destdir "$work/root" >&2
mkdir -p "$work/root/usr/lib/tcpfsmd-test"
cp "$1/tests/systemd/inside.py" "$work/root/usr/lib/tcpfsmd-test/"
cd /
"$1/tests/systemd/systemd-lab" -d "$work/root" -j "$work/journal" -k -- python3 /usr/lib/tcpfsmd-test/inside.py 2>"$work/err" && rc=0 || rc=$?
cat "$work/err" >&2
if [ $rc = 125 ]; then
	echo "1..0 # SKIP systemd cannot be booted here: $(tail -n 1 "$work/err")"
	exit 0
fi
if [ $rc != 0 ]; then
	sed 's/^/# journal: /' "$work/journal" | grep -a tcpfsm | tail -n 60
fi
exit $rc
