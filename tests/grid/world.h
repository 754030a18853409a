/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of a real engine and the oracle's picture of it, told the same. */
#pragma once
#include "oracle.h"
#include "tcp/engine.h"

enum { WINDOW = 20000, PEER_WINDOW = 30000, SENT_MAX = 8, TEXT_MAX = 65536 };

/* Where the initial sequence numbers lie. */
enum place { PLACE_ANY, PLACE_WRAP, PLACE_SIGN, PLACE__COUNT };

struct world {
	struct engine *e;
	vtime now;
	struct flow flow;
	listener_id listener;
	bool rest; /* connections rest whenever they may */
	uint32_t flows; /* used so far: each connection has a flow of its own */
	struct tcp_params params;

	struct oracle_tcb model;
	enum place place;
	bool placed;
	uint32_t irs, iss, stamp_base;
	bool have_conn;
	conn_id id;
	uint32_t queued; /* receive_queue_bytes */
	vtime timer_at;
	unsigned reports;
	enum end_reason reason;

	struct segment sent[SENT_MAX];
	unsigned sent_n;
	char wrong[512]; /* what differs; empty when nothing does */
};

/* A connection that has not begun: CLOSED, or LISTEN with a listener. */
void world_begin(struct world *w, enum place place, bool listener, bool rfc5961, bool timestamps);
/* Everything goes; the text that came is compared. */
void world_end(struct world *w);
/* The segment arrives on both sides. False: they differ, see wrong. */
bool world_arrives(struct world *w, const struct oracle_segment *s);
void world_connect(struct world *w);
void world_send(struct world *w, size_t octets);
void world_close(struct world *w);
