/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a list of listeners: one allocation, so that one free() ends it. */
#pragma once
#include <stdlib.h>

#include "service/service.h"
#include "worker/worker.h"

/* Room for n listeners, and behind them for the backends of all, zeroed. NULL: no memory. */
static inline struct worker_listener *listing_new(size_t n, size_t backends_n,
						  struct service_backend **ret_backends)
{
	const size_t bytes = (n + 1) * sizeof(struct worker_listener);
	void *const memory = calloc(1, bytes + backends_n * sizeof(struct service_backend));

	if (memory)
		*ret_backends = (void *)((char *)memory + bytes);
	return memory;
}
