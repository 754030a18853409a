#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file is as clang-format lays it out. usage: format.sh SOURCE_ROOT
set -eu
command -v clang-format >/dev/null || { echo "SKIP: clang-format is not installed"; exit 77; }
cd "$1"
find daemon ctl proto tests -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror
