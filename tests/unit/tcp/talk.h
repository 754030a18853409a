/* SPDX-License-Identifier: Apache-2.0 */
/* Two engines that talk through memory, in virtual time. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcp/engine.h"

enum { TALK_A, TALK_B };

struct talk {
	struct engine *e[2];
	vtime now;
	uint64_t delay_us; /* one way */
	uint16_t mtu;
	/* Asked for each segment before it is handed over: true loses it. May be NULL. */
	bool (*lose)(void *arg, int from, const struct segment *seg);
	void *arg;
	unsigned reports[2]; /* kinds seen since they were last cleared */
	struct report last[2];
	uint64_t segments[2]; /* by sender */
	struct parcel *first, *last_parcel;
};

struct engine_config talk_config(void);
void talk_open(struct talk *t, const struct engine_config *a, const struct engine_config *b);
void talk_close(struct talk *t);
/* Everything that can happen until `us` from now. */
void talk_run(struct talk *t, uint64_t us);
/* B listens on port 80; A connects and both see OPENED. B's connection is the one of its last report. */
void talk_connect(struct talk *t, const struct tcp_params *a, const struct tcp_params *b,
		  conn_id ret_id[2]);
enum tcp_state talk_state(const struct talk *t, int side, conn_id id);
