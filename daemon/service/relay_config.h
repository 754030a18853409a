/* SPDX-License-Identifier: Apache-2.0 */
/* A relay's backends: what was written of them, how they fare, and which is next. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "service/service.h"

enum { BACKENDS_MAX = LIMITS_COUNTERS };

struct backend {
	char text[SERVICE_BACKEND_TEXT]; /* as it was written */
	bool ours; /* tcpfsm:, a connection of this engine; else the kernel's, or a UNIX socket */
	struct endpoint remote; /* ours */
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_un local;
	} address; /* not ours */
	socklen_t len;
	uint64_t connected, failed; /* attempts of this worker, ever */
};

struct relay_config {
	unsigned proxy; /* version of the PROXY protocol; 0: none */
	uint32_t timeout_ms; /* of connecting to one backend */
	uint32_t down_ms; /* how long one that failed is tried behind the others; 0: never */
	uint32_t backend_max; /* connections of each at a time; 0: no limit */
	unsigned backends_n;
	struct backend backends[BACKENDS_MAX];
	struct service *
		far; /* a reference: what connections to a backend of ours are served. NULL: none */
};

/* What stands behind "relay:". -EINVAL. */
int relay_config_new(const char *text, struct relay_config **ret_config, struct errmsg *ret_err);
void relay_config_free(struct relay_config *cfg); /* NULL is nothing */
/* The next to try: in the order written, but those that failed lately last, and none of `tried` (a bit each) nor
 * one that is full. -1: there is none. *ret_full: was one left out because it is full? */
int relay_config_choose(const struct relay_config *cfg, const struct limits *l, vtime now,
			uint32_t tried, bool *ret_full);
/* An attempt has ended well or not. */
void backend_connected(struct relay_config *cfg, struct limits *l, unsigned i);
void backend_failed(struct relay_config *cfg, struct limits *l, unsigned i, vtime now);
