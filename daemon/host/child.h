/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a program to its end, without a shell: text in, text out, and a limit on its time. */
#pragma once
#include <stdbool.h>

enum { CHILD_PROGRAM = 256 };

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

/* The whole path of a program: in $PATH, and in the directories of administrators' programs, which a
 * service's PATH may lack. False: there is none. */
bool child_find_program(const char *name, char ret_path[static CHILD_PROGRAM]);
/* A program's words on one line. */
void child_flatten(char *text);
