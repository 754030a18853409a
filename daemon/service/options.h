/* SPDX-License-Identifier: Apache-2.0 */
/* What a listener wants of its service besides the service's own argument. */
#pragma once
#include <stdint.h>

#include "service/spawner.h"

enum { SERVICE_ENVIRONMENT = 512, SERVICE_NAME = 64, SERVICE_KILL_AFTER_US = 5000000 };

/* Zeroed but for kill_after_us: no limit, and processes as the daemon is. */
struct service_options {
	uint32_t max_connections_per_peer; /* of one address at a time; 0: no limit */
	/* exec: */
	uint32_t max_processes, max_processes_per_peer; /* at a time; 0: no limit */
	uint64_t kill_after_us; /* from SIGHUP or SIGTERM to SIGKILL */
	struct spawn_setup setup;
	char user[SERVICE_NAME],
		home[SPAWN_PATH_MAX]; /* of setup.uid, for the environment; empty: none */
	char environment[SERVICE_ENVIRONMENT]; /* NAME=VALUE words, quoted as a shell has it */
};
