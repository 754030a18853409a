#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The bash completion, called as the shell would. usage: test_completion.sh TCPFSMCTL COMPLETION
set -eu
# shellcheck disable=SC1090
source "$2"
tcpfsmctl=$1 failed=0
compopt() { :; } # works only while the shell completes

expect() { # WANTED WORD...: the completions of the last word
	local wanted=$1
	shift
	COMP_WORDS=("$tcpfsmctl" "$@") COMP_CWORD=$# COMPREPLY=()
	_tcpfsmctl
	if [[ "${COMPREPLY[*]}" != "$wanted" ]]; then
		echo "'$*' gave '${COMPREPLY[*]}', not '$wanted'"
		failed=1
	fi
}
expect "list listen" li
expect "connections" list conn
expect "connection transitions tcp" show ""
expect "--closed" list connections --cl
expect "--limit" list connections --limi
expect "time-wait" list connections state time
expect "csv" -o c
expect "" nonsense x
expect "tcp.KeepAliveInterval" set tcp.KeepAliveI
expect "cubic" set tcp.CongestionControl c
expect "yes no" set tcp.Nagle ""
expect "--listener" set tcp.Nagle no --li
expect "TTL=" connect 10.0.0.2:7 --tcp TT
expect "TTL=5,DSCP=" connect 10.0.0.2:7 --tcp TTL=5,DS
[[ $(complete -p tcpfsmctl) == *_tcpfsmctl* ]]
exit "$failed"
