#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header compiles on its own. usage: headers.sh SOURCE_ROOT CC...
set -eu
cd "$1"
shift
rc=0
for h in $(find daemon proto ctl -name '*.h'); do
	printf '#include "%s"\n' "$h" |
		"$@" -std=gnu17 -D_GNU_SOURCE -DTCPFSM_VERSION='"0"' -I. -Idaemon $(pkg-config --cflags libnl-3.0 libnl-route-3.0) \
			-Wall -Wextra -Wno-unused-parameter -Werror -fsyntax-only -x c - ||
		{ echo "$h does not stand alone"; rc=1; }
done
exit $rc
