/* SPDX-License-Identifier: Apache-2.0 */
/* An engine without TCP: what services call, on queues that a test fills and empties. */
#pragma once
#include "tcp/engine.h"

enum { FAKE_CONNS = 64, FAKE_QUEUE = 1 << 21 };

struct fake_conn {
	uint8_t *in, *out; /* FAKE_QUEUE each: unread text, text sent */
	size_t in_len, out_len;
	size_t room; /* how many octets conn_send() may still take */
	bool wants_room; /* conn_send() took less than was offered */
	bool peer_fin, closed, aborted, stopped_reading, direct;
	enum cause close_cause;
	enum end_reason abort_reason;
	struct flow flow; /* for conn_status(), which says no more */
	struct tcp_params params;
	size_t urgent_end; /* of out: up to where it is urgent */
};

struct engine {
	struct fake_conn conns[FAKE_CONNS];
	unsigned calls; /* of any function that changes something */
};

struct engine *fake_engine_new(void);
void fake_engine_free(struct engine *e);
void fake_arrive(struct engine *e, unsigned slot, const void *data, size_t len);
