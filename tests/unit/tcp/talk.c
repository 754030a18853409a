/* SPDX-License-Identifier: Apache-2.0 */
#include "talk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct parcel {
	struct parcel *next;
	vtime at;
	int to;
	struct segment seg;
	uint8_t text[65536];
};

struct engine_config talk_config(void)
{
	return (struct engine_config){
		.conns_max = 16,
		.listeners_max = 4,
		.chunks_max = 1024,
		.local_port_min = 61000,
		.local_port_max = 61003,
		.secret = { 1, 2 },
	};
}

void talk_open(struct talk *t, const struct engine_config *a, const struct engine_config *b)
{
	*t = (struct talk){ .now = { 1000000 }, .delay_us = 5000, .mtu = 1500 };
	t->e[TALK_A] = engine_init(calloc(1, engine_size(a)), a, t->now);
	t->e[TALK_B] = engine_init(calloc(1, engine_size(b)), b, t->now);
}

void talk_close(struct talk *t)
{
	while (t->first) {
		struct parcel *p = t->first;

		t->first = p->next;
		free(p);
	}
	free(t->e[TALK_A]);
	free(t->e[TALK_B]);
}

static void post(struct talk *t, int from, const struct segment *seg)
{
	struct parcel *p = malloc(sizeof(*p));
	uint32_t n = 0;

	t->segments[from]++;
	if (t->lose && t->lose(t->arg, from, seg)) {
		free(p);
		return;
	}
	p->next = NULL;
	p->at = vtime_add(t->now, t->delay_us);
	p->to = !from;
	p->seg = *seg;
	for (unsigned i = 0; i < seg->spans_n; i++) {
		memcpy(p->text + n, seg->text[i].base, seg->text[i].len);
		n += seg->text[i].len;
	}
	p->seg.flow.local = seg->flow.remote;
	p->seg.flow.remote = seg->flow.local;
	p->seg.link_mtu = t->mtu;
	p->seg.spans_n = n ? 1 : 0;
	p->seg.text[0] = (struct span){ p->text, n };
	if (t->first)
		t->last_parcel->next = p;
	else
		t->first = p;
	t->last_parcel = p;
}

static void pump(struct talk *t, int side)
{
	struct engine *e = t->e[side];
	struct segment seg;
	struct report r;
	struct trace tr;

	engine_check(e);
	while (engine_next_report(e, &r)) {
		t->reports[side] |= r.kinds;
		t->last[side] = r;
	}
	while (engine_output(e, t->now, &seg)) {
		post(t, side, &seg);
		engine_check(e);
	}
	while (engine_next_trace(e, &tr))
		assert(tr.kind == TRACE_REFUSED || state_may_follow(tr.from, tr.to));
	engine_check(e);
}

static void arrive(struct talk *t)
{
	struct parcel *p = t->first;

	t->first = p->next;
	engine_input(t->e[p->to], t->now, &p->seg, NULL);
	pump(t, p->to);
	free(p);
}

void talk_run(struct talk *t, uint64_t us)
{
	const vtime end = vtime_add(t->now, us);

	pump(t, TALK_A);
	pump(t, TALK_B);
	for (;;) {
		vtime at = vtime_min(engine_deadline(t->e[TALK_A]), engine_deadline(t->e[TALK_B]));

		if (t->first)
			at = vtime_min(at, t->first->at);
		if (!vtime_before(at, end))
			break;
		if (vtime_before(t->now, at))
			t->now = at;
		if (t->first && !vtime_before(t->now, t->first->at)) {
			arrive(t);
			continue;
		}
		for (int side = 0; side < 2; side++) {
			engine_expire(t->e[side], t->now);
			pump(t, side);
		}
	}
	t->now = end;
}

void talk_connect(struct talk *t, const struct tcp_params *a, const struct tcp_params *b,
		  conn_id ret_id[2])
{
	struct listener_open listen = {
		.local = { addr_v4(10, 0, 0, 2), 80 },
		.params = *b,
		.backlog = 4,
	};
	const struct conn_open open = {
		.flow = { .local = { addr_v4(10, 0, 0, 1), 0 },
			  .remote = { addr_v4(10, 0, 0, 2), 80 } },
		.params = *a,
		.link_mtu = t->mtu,
	};
	listener_id listener;
	int rc = engine_listen(t->e[TALK_B], t->now, &listen, &listener);

	assert(rc == 0 || rc == -98 /* it listens from the last time */);
	rc = engine_connect(t->e[TALK_A], t->now, &open, &ret_id[TALK_A]);
	assert(rc == 0);
	talk_run(t, 100000);
	assert(t->reports[TALK_A] & t->reports[TALK_B] & REPORT_OPENED);
	ret_id[TALK_B] = t->last[TALK_B].id;
}

enum tcp_state talk_state(const struct talk *t, int side, conn_id id)
{
	struct conn_status s;
	const int rc = conn_status(t->e[side], id, &s);

	assert(rc == 0);
	return s.state;
}
