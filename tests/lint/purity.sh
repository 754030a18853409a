#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The core may call memcpy and friends, and nothing else: no clock, no allocator, no I/O, no errno;
# and it has no writable global.
# usage: purity.sh ARCHIVE
set -eu
allowed='^(mem(cpy|move|set|cmp)|bcmp|strlen|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__(ubsan|asan)_.*)$'
defined=$(nm --defined-only -g "$1" 2>/dev/null | awk 'NF == 3 { print $3 }')
[ -n "$defined" ] || { echo "$1 defines nothing: wrong archive?"; exit 1; }
pure_base='addr_any addr_any4 addr_any6 addr_is_v4 addr_is_any addr_is_multicast addr_is_broadcast addr_is_loopback addr_is_link_local6 addr_matches addr_in_prefix addr_from_v4 addr_v4'
bad=$(nm -u "$1" 2>/dev/null | awk 'NF == 2 && $1 == "U" { print $2 }' | sort -u |
	grep -Fvx "$defined" | grep -Fvx "$(echo "$pure_base" | tr ' ' '\n')" | grep -Ev "$allowed" || true)
[ -z "$bad" ] || { echo "the core reaches outside:" $bad; exit 1; }
bad=$(objdump -t "$1" | awk '$3 == "O" && $4 ~ /^\.(data|bss|tdata|tbss)$/ || $0 ~ /\*COM\*/ { print $NF }')
[ -z "$bad" ] || { echo "writable global in the core:" $bad; exit 1; }
