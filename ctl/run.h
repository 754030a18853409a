/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmctl run: a program whose TCP goes through the daemon. */
#pragma once
#include <stdbool.h>

/* Is it `help run`, or `[-s SOCKET] run [--only WHAT] [--] PROGRAM ARGS`? Then, and when it
 * does not become the program, *ret_code is what to exit with. What stands behind PROGRAM is the program's own, options too. */
bool run_program(int argc, char **argv, int *ret_code);
