/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a program to its end, without a shell: text in, text out, and a limit on its time. */
#pragma once

struct child_result {
	int status; /* exit status; 128 + signal when one ended it */
	char *out, *err; /* what it wrote, zero-terminated; ours to free */
};

/* argv[0] is the whole path. input: its standard input, NULL for none. The child gets no descriptor
 * of ours but 0, 1 and 2, default signals, and LC_ALL=C. 0 when it ran, whatever its status;
 * -ETIME when it took longer than limit_ms (it is killed), or what starting it gave.
 */
int child_run(char *const argv[], const char *input, int limit_ms, struct child_result *ret_result);
void child_result_fini(struct child_result *r);
