/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

enum { STEP_US = 2000, LISTEN_PORT = 80, CONNECT_PORT = 7, FIRST_PORT = 2000, PORTS = 60000 };

PRINTF_LIKE(2, 3) static void differs(struct world *w, const char *fmt, ...)
{
	const size_t n = strlen(w->wrong);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->wrong + n, sizeof(w->wrong) - n, fmt, ap);
	va_end(ap);
}

WRAPS static uint32_t wire(uint32_t base, int64_t distance)
{
	return base + (uint32_t)distance;
}

WRAPS static int64_t distance(uint32_t base, uint32_t number)
{
	return (int32_t)(number - base);
}

static uint8_t octet(int64_t at)
{
	return (uint8_t)((uint64_t)at * 31 % 251);
}

static struct ipaddr v4(uint8_t last)
{
	return (struct ipaddr){ .b = { [10] = 0xff, [11] = 0xff, 10, 0, 0, last } };
}

static void start_engine(struct world *w)
{
	const struct engine_config cfg = {
		.conns_max = 8,
		.listeners_max = 1,
		.chunks_max = 64,
		.local_port_min = 61000,
		.local_port_max = 61003,
		.secret = { 11, 7 },
	};
	const struct listener_open open = {
		.local = { v4(1), LISTEN_PORT },
		.params = w->params,
		.backlog = 4,
	};

	w->now = (vtime){ 1000000 };
	w->e = engine_init(calloc(1, engine_size(&cfg)), &cfg, w->now);
	if (engine_listen(w->e, w->now, &open, &w->listener))
		abort();
}

void world_begin(struct world *w, enum place place, bool listener, bool rfc5961, bool timestamps)
{
	const uint16_t port = (uint16_t)(FIRST_PORT + w->flows++ % PORTS);

	tcp_params_default(&w->params);
	w->params.receive_buffer_bytes = WINDOW;
	w->params.window_scaling = false;
	w->params.syn_cookies = TCP_COOKIES_NO;
	w->params.timestamps = timestamps;
	w->params.rfc5961 = rfc5961;
	w->params.delayed_ack_us = 0;
	if (!w->e)
		start_engine(w);
	engine_listener_set_params(w->e, w->listener, &w->params);
	w->flow = (struct flow){ .local = { v4(1), LISTEN_PORT }, .remote = { v4(2), port } };
	if (!listener)
		w->flow = (struct flow){ .local = { v4(1), port },
					 .remote = { v4(2), CONNECT_PORT } };
	w->model = (struct oracle_tcb){
		.state = listener ? ST_LISTEN : ST_CLOSED,
		.listener = listener,
		.rfc5961 = rfc5961,
		.timestamps = timestamps,
		.nxt = 1,
		.rcv_wnd = WINDOW,
	};
	w->place = place;
	w->placed = false;
	w->irs = place == PLACE_WRAP   ? UINT32_MAX - WINDOW / 2
		 : place == PLACE_SIGN ? INT32_MAX - WINDOW / 2
				       : port * 65521U % 1000000007U;
	w->iss = 123456;
	w->stamp_base = place == PLACE_WRAP ? UINT32_MAX - 99 : 5000;
	w->have_conn = false;
	w->queued = 0;
	w->timer_at = VTIME_NEVER;
	w->wrong[0] = '\0';
}

/* Time moves to where the ISN will be what is wanted: text and FIN cross the wrap. */
WRAPS static void place_isn(struct world *w)
{
	const uint32_t want = w->place == PLACE_WRAP ? UINT32_MAX - 50 : (uint32_t)INT32_MAX - 50;
	const uint32_t is = engine_isn(w->e, &w->flow, w->now).v;

	if (w->place != PLACE_ANY && !w->placed)
		w->now.us += (uint64_t)(uint32_t)(want - is) * 4;
	w->placed = true;
	engine_expire(w->e, w->now);
}

static void find_conn(struct world *w)
{
	uint32_t cursor = 0;

	w->have_conn = engine_next_conn(w->e, &cursor, &w->id);
}

static void pump(struct world *w)
{
	struct report r;
	struct trace trace;
	struct segment seg;

	engine_check(w->e);
	while (engine_output(w->e, w->now, &seg)) {
		if (w->sent_n < SENT_MAX)
			w->sent[w->sent_n++] = seg;
	}
	while (engine_next_report(w->e, &r)) {
		w->reports |= r.kinds;
		if (r.kinds & REPORT_CLOSED)
			w->reason = r.reason;
	}
	while (engine_next_trace(w->e, &trace))
		;
	if (w->rest)
		engine_rest_all(w->e);
	engine_check(w->e);
}

static void begin_step(struct world *w)
{
	w->now.us += STEP_US;
	engine_expire(w->e, w->now);
	w->sent_n = 0;
	w->reports = 0;
	w->reason = END_NONE;
}

/* What the wire says of our window, and of our ISN. */
static void learn(struct world *w)
{
	for (unsigned i = 0; i < w->sent_n; i++) {
		const struct segment *s = &w->sent[i];

		if (s->ctl & CTL_SYN)
			w->iss = s->seq.v;
		if (s->ctl & CTL_RST)
			continue;
		w->model.rcv_wnd = s->wnd;
		if (s->ctl & CTL_ACK)
			w->model.rcv_wnd += distance(w->irs, s->ack.v) - w->model.rcv_nxt;
	}
}

void world_connect(struct world *w)
{
	struct conn_open open = { .flow = w->flow, .params = w->params, .link_mtu = 1500 };

	begin_step(w);
	place_isn(w);
	if (engine_connect(w->e, w->now, &open, &w->id))
		abort();
	w->have_conn = true;
	w->model.state = ST_SYN_SENT;
	pump(w);
	learn(w);
}

/* What user calls send is the scripts' business; here it is known. */
static void pump_sent(struct world *w)
{
	pump(w);
	learn(w);
	w->timer_at = VTIME_NEVER;
}

void world_send(struct world *w, size_t octets)
{
	static const uint8_t text[TEXT_MAX];
	size_t taken;

	begin_step(w);
	if (conn_send(w->e, w->now, w->id, text, octets, &taken) || taken != octets)
		abort();
	oracle_send(&w->model, (int64_t)octets);
	pump_sent(w);
}

void world_close(struct world *w)
{
	begin_step(w);
	if (conn_close(w->e, w->now, w->id, CAUSE_USER))
		abort();
	oracle_close(&w->model);
	pump_sent(w);
}

/* What was sent, against what the oracle says. */

static void compare_ack(struct world *w, const struct segment *s, const struct oracle_tcb *before)
{
	const struct oracle_tcb *m = &w->model;
	const int64_t right = distance(w->irs, s->ack.v) + s->wnd;

	if (distance(w->iss, s->seq.v) != m->nxt || distance(w->irs, s->ack.v) != m->rcv_nxt)
		differs(w, " ACK seq %lld ack %lld, not seq %lld ack %lld;",
			(long long)distance(w->iss, s->seq.v),
			(long long)distance(w->irs, s->ack.v), (long long)m->nxt,
			(long long)m->rcv_nxt);
	if (before->state != ST_SYN_SENT && !m->fin_seen &&
	    right < before->rcv_nxt + before->rcv_wnd)
		differs(w, " right edge moved left to %lld;", (long long)right);
}

static void compare_reset(struct world *w, const struct segment *s, const struct oracle_answer *a)
{
	const bool acks = s->ctl & CTL_ACK;
	const bool same = acks ? s->seq.v == 0 && s->ack.v == wire(w->irs, a->reset_ack)
			       : s->seq.v == wire(w->iss, a->reset_seq);

	if (acks != a->reset_acks || !same)
		differs(w, " RST%s seq %u ack %u;", acks ? ",ACK" : "", s->seq.v, s->ack.v);
}

static void compare_syn_ack(struct world *w, const struct segment *s, const struct oracle_tcb *m,
			    const struct oracle_segment *in, const struct oracle_answer *a)
{
	const int64_t acks = distance(w->irs, s->ack.v);

	if (a->reopened) {
		if (acks != in->seq + 1 || distance(w->iss, s->seq.v) < m->nxt)
			differs(w, " SYN,ACK of the next incarnation: seq %lld ack %lld;",
				(long long)distance(w->iss, s->seq.v), (long long)acks);
		return;
	}
	if (acks != m->rcv_nxt || (m->nxt > 1 && s->seq.v != w->iss))
		differs(w, " SYN,ACK ack %lld, not %lld;", (long long)acks, (long long)m->rcv_nxt);
}

static void compare_sent(struct world *w, const struct oracle_tcb *before,
			 const struct oracle_segment *in, const struct oracle_answer *a)
{
	unsigned acks = 0, resets = 0, syns = 0;

	for (unsigned i = 0; i < w->sent_n; i++) {
		const struct segment *s = &w->sent[i];

		if (s->ctl & CTL_RST) {
			resets++;
			compare_reset(w, s, a);
		} else if (s->ctl & CTL_SYN) {
			syns++;
			compare_syn_ack(w, s, &w->model, in, a);
		} else if (s->ctl == CTL_ACK && !s->spans_n) {
			acks++;
			compare_ack(w, s, before);
		} else {
			differs(w, " sent something with flags %#x;", s->ctl);
		}
	}
	if (acks > 1 || (a->ack == SENDS_MUST && !acks) || (a->ack == SENDS_NONE && acks))
		differs(w, " %u ACKs;", acks);
	if (resets != a->reset)
		differs(w, " %u RSTs;", resets);
	if (syns != (unsigned)(a->syn_ack || a->reopened))
		differs(w, " %u SYN,ACKs;", syns);
}

/* What the user was told. */

static bool end_is(enum oracle_end end, enum end_reason reason)
{
	switch (end) {
	case ENDS_NOT:
		return reason == END_NONE;
	case ENDS_NORMAL:
		return reason == END_NORMAL;
	case ENDS_RESET:
		return reason == END_RESET_BY_PEER;
	case ENDS_REFUSED:
		return reason == END_REFUSED;
	case ENDS_HANDSHAKE:
		return reason == END_HANDSHAKE_RESET;
	case ENDS_RESTARTED:
		return reason == END_PEER_RESTARTED;
	}
	return false;
}

static void compare_reports(struct world *w, const struct oracle_answer *a)
{
	const struct {
		enum report_kind kind;
		bool expected;
		const char *name;
	} all[] = {
		{ REPORT_OPENED, a->opened, "opened" },
		{ REPORT_PEER_CLOSED, a->closing, "peer_closed" },
		{ REPORT_ALL_ACKED, a->all_acked, "all_acked" },
		{ REPORT_CLOSED, a->end != ENDS_NOT, "closed" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		if (!(w->reports & all[i].kind) == all[i].expected)
			differs(w, " report %s%s;", all[i].expected ? "missing: " : "",
				all[i].name);
	}
	if (!end_is(a->end, w->reason))
		differs(w, " ended: %s;", end_reason_key(w->reason));
}

/* The variables that remain. */

static void compare_number(struct world *w, const char *name, int64_t is, int64_t expected)
{
	if (is != expected)
		differs(w, " %s %lld, not %lld;", name, (long long)is, (long long)expected);
}

static void compare_status(struct world *w, const struct oracle_answer *a)
{
	const struct oracle_tcb *m = &w->model;
	struct conn_status s;

	if (!w->have_conn) {
		if (m->state != ST_CLOSED && m->state != ST_LISTEN)
			differs(w, " no connection, not %s;", state_name(m->state));
		return;
	}
	if (conn_status(w->e, w->id, &s)) {
		differs(w, " the connection is gone;");
		return;
	}
	if (s.state != (m->state == ST_LISTEN ? ST_CLOSED : m->state))
		differs(w, " %s, not %s;", state_name(s.state), state_name(m->state));
	if (s.state == ST_CLOSED || *w->wrong)
		return;
	compare_number(w, "SND.UNA", distance(w->iss, s.snd_una.v), m->una);
	compare_number(w, "SND.NXT", distance(w->iss, s.snd_nxt.v), m->nxt);
	if (s.state == ST_SYN_SENT)
		return; /* nothing is known of the peer */
	compare_number(w, "SND.WND", s.snd_wnd, m->wnd);
	compare_number(w, "RCV.NXT", distance(w->irs, s.rcv_nxt.v), m->rcv_nxt);
	compare_number(w, "delivered", (int64_t)s.receive_queue_bytes - w->queued, a->delivered);
	w->queued = s.receive_queue_bytes;
	if (m->state != ST_TIME_WAIT)
		return;
	if (a->waits != (s.timer_at.us == w->now.us + 2 * w->params.msl_us))
		differs(w, " 2 MSL %s;", a->waits ? "not restarted" : "restarted");
	if (!a->waits && s.timer_at.us != w->timer_at.us)
		differs(w, " the 2 MSL timer moved;");
	w->timer_at = s.timer_at;
}

bool world_arrives(struct world *w, const struct oracle_segment *s)
{
	static uint8_t text[TEXT_MAX];
	const struct oracle_tcb before = w->model;
	/* Octet 1 is the first behind the SYN, wherever that one stands. */
	const int64_t first = before.state == ST_SYN_SENT ? 1 : s->seq + s->syn;
	struct oracle_answer a;
	struct segment seg = {
		.flow = w->flow,
		.seq = { wire(w->irs, s->seq) },
		.ack = { s->ack_on ? wire(w->iss, s->ack) : 0 },
		.ctl = (uint8_t)((s->syn ? CTL_SYN : 0) | (s->fin ? CTL_FIN : 0) |
				 (s->rst ? CTL_RST : 0) | (s->ack_on ? CTL_ACK : 0) |
				 (s->text ? CTL_PSH : 0)),
		.wnd = (uint16_t)s->wnd,
		.ttl = 64,
		.link_mtu = 1500,
		.spans_n = s->text ? 1 : 0,
		.text = { { text, (uint32_t)s->text } },
	};

	for (int64_t i = 0; i < s->text; i++)
		text[i] = octet(first + i);
	if (s->stamped) {
		seg.options = OPT_TIMESTAMPS;
		seg.ts_val = wire(w->stamp_base, s->stamp);
	}
	oracle_arrives(&w->model, s, &a);
	begin_step(w);
	if (before.state == ST_LISTEN)
		place_isn(w);
	engine_input(w->e, w->now, &seg, NULL);
	if (!w->have_conn)
		find_conn(w);
	pump(w);
	compare_sent(w, &before, s, &a);
	compare_reports(w, &a);
	learn(w);
	compare_status(w, &a);
	if (*w->wrong)
		differs(w, " by %s", a.rule ? a.rule : "no rule");
	return !*w->wrong;
}

static void compare_text(struct world *w)
{
	static uint8_t buf[TEXT_MAX];
	size_t got = 0;

	if (conn_receive(w->e, w->now, w->id, buf, sizeof(buf), &got))
		return;
	for (size_t i = 0; i < got; i++) {
		if (buf[i] != octet((int64_t)i + 1)) {
			differs(w, " octet %zu is wrong", i);
			return;
		}
	}
}

void world_end(struct world *w)
{
	uint32_t cursor = 0;
	conn_id id;

	if (w->have_conn) {
		compare_text(w);
		(void)conn_abort(w->e, w->now, w->id, CAUSE_USER, END_RESET_BY_SERVICE);
		pump(w);
		conn_release(w->e, w->id);
	}
	while (engine_next_conn(w->e, &cursor, &id)) {
		(void)conn_abort(w->e, w->now, id, CAUSE_USER, END_RESET_BY_SERVICE);
		pump(w);
		conn_release(w->e, id);
	}
	pump(w);
	w->sent_n = 0;
}
