/* SPDX-License-Identifier: Apache-2.0 */
/* What an onlooker beside one connection of one side can say, who sees its segments, its status and the
 * clock, and knows nothing of how the core does it. Each function gives NULL, or what is wrong.
 */
#pragma once
#include "tcp/engine.h"

struct watch {
	bool begun;
	seqno iss, high; /* high: the end of all that was sent */
	seqno edge; /* the greatest right edge that the peer ever offered */
	bool edge_known;
	bool we_scale, peer_scales; /* the SYNs had the option */
	uint8_t peer_shift;
	struct segment last_syn; /* of the peer; its text is gone */
	seqno una; /* as last seen */
	seqno again; /* what was sent when something was last sent again, or reported missing */
	bool clean; /* nothing was, since `again` was acknowledged */
	vtime armed; /* the retransmission timer cannot have been started before */
	uint8_t backoffs;
	vtime backoff_at; /* of the last one */
};

/* The side sends. st: just before, NULL when there is no connection that is known. */
const char *watch_sent(struct watch *w, const struct segment *seg, const struct conn_status *st,
		       vtime now);
/* A segment of the peer's is about to arrive. */
void watch_arrives(struct watch *w, const struct segment *seg);
/* The status as it is now, after anything. */
void watch_status(struct watch *w, const struct conn_status *st, vtime now);
/* The clock has moved: the same, and timeouts are judged. */
const char *watch_expired(struct watch *w, const struct conn_status *st,
			  const struct tcp_params *params, vtime now);
/* A state change or refusal. phase: what the engine was told at the time. entered: when `from` was. */
const char *watch_trace(const struct trace *t, enum cause phase, const struct tcp_params *params,
			vtime entered);
