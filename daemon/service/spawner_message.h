/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon and its spawner say to each other. Two halves of one program: no versions. */
#pragma once
#include <stdint.h>

#include "service/spawner.h"

enum spawner_op {
	SPAWNER_CHANNEL, /* on the spawner's own socket; one descriptor: the channel */
	SPAWNER_SPAWN, /* two descriptors; struct spawn_setup, then argc and envc strings follow */
	SPAWNER_SIGNAL,
	SPAWNER_PROBE,
};

struct spawner_request {
	enum spawner_op op;
	uint32_t argc, envc;
	int sig;
	uint64_t token;
};

enum {
	SPAWNER_MESSAGE_MAX = sizeof(struct spawner_request) + sizeof(struct spawn_setup) +
			      SPAWN_TEXT_MAX,
	SPAWNER_STRINGS_MAX = 256
};

/* First message of the spawner: 0, or the errno of what went wrong in `step`. */
struct spawner_hello {
	int error;
	char step[60];
};

/* The child's main: never returns. fd: the spawner's own socket. */
_Noreturn void spawner_main(int fd);
