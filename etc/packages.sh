# SPDX-License-Identifier: Apache-2.0
# Sourced by etc/quickstart and tests/run: the Debian packages they need, and how they get them.
# shellcheck shell=bash disable=SC2034
packages_build='gcc libc6-dev meson ninja-build pkg-config libevent-dev libnl-3-dev libnl-route-3-dev libnl-idiag-3-dev
libsqlite3-dev libjansson-dev libsmartcols-dev libinih-dev libcap-ng-dev libcmocka-dev python3 iptables nftables iproute2'
packages_test='clang libclang-rt-14-dev clang-format ethtool tcpdump tshark curl netcat-openbsd conntrack sqlite3 procps
systemd dbus util-linux binutils nginx-light wrk wget ncat socat iperf3 redis-server openssh-server openssh-client
postgresql git libpython3.11-testsuite llvm valgrind'
packages_demo='curl netcat-openbsd'

# Refuses politely where it cannot work; installs only what is missing.
packages_install() {
	local missing=() p
	if [ "$(id -u)" != 0 ]; then
		echo "$0: needs root (raw sockets, iptables, apt-get); try: sudo $0" >&2
		exit 1
	fi
	if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
		echo "$0: made for Debian 12 (bookworm) and its relatives: there is no apt-get here." >&2
		echo "Elsewhere, install by hand: $*" | fmt -w 100 >&2
		exit 1
	fi
	for p; do
		[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null)" = 'ii ' ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "installing: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/tmp/tcpfsmd-apt.$$ 2>&1 || {
		cat /tmp/tcpfsmd-apt.$$ >&2
		rm -f /tmp/tcpfsmd-apt.$$
		echo "$0: apt-get could not install: ${missing[*]}" >&2
		exit 1
	}
	rm -f /tmp/tcpfsmd-apt.$$
}
