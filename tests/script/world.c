/* SPDX-License-Identifier: Apache-2.0 */
/* The engine under test, its clock, and what it says: segments, reports, traces. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "play.h"

struct world w;

void fail(const char *fmt, ...)
{
	va_list ap;
	const unsigned from = w.log_n > LOG_MAX ? w.log_n - LOG_MAX : 0;

	fflush(stdout);
	fprintf(stderr, "%s:%d: ", w.line.file, w.line.no);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n\tthe line  %s\nat %.6f, after\n", w.line.text,
		(double)(w.now.us - w.start.us) / 1e6);
	for (unsigned i = from; i < w.log_n; i++)
		fprintf(stderr, "%s\n", w.log[i % LOG_MAX]);
	exit(1);
}

void families(bool v6)
{
	for (unsigned i = 0; i < CONNS_MAX; i++) {
		struct flow *f = &w.peers[i].flow;

		f->local.addr = addr_v4(192, 0, 2, 1);
		f->remote.addr = addr_v4(192, 0, 2, 9);
		if (v6 && (addr_parse("2001:db8::1", &f->local.addr) ||
			   addr_parse("2001:db8::9", &f->remote.addr)))
			abort();
		f->local.port = 80;
		f->remote.port = (uint16_t)(40001 + i);
	}
}

void world_begin(const char *file)
{
	uint32_t edges[ST__COUNT];

	memcpy(edges, w.edges, sizeof(edges));
	memset(&w, 0, sizeof(w));
	memcpy(w.edges, edges, sizeof(edges));
	w.line.file = file;
	w.cfg = (struct engine_config){
		.conns_max = 32,
		.listeners_max = 8,
		.syn_received_max = 16,
		.time_wait_max = 16,
		.chunks_max = 1024,
		.local_port_min = 61000,
		.local_port_max = 61999,
		.secret = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 },
		.serial_first = 1,
		.serial_step = 1,
	};
	tcp_params_default(&w.params);
	/* RFC 6298's own minimum, so that timeouts of small exchanges are whole seconds. */
	w.params.rto_min_us = 1000000;
	w.params.personality = TCP_AS_PLAIN; /* windows in round numbers */
	w.link_mtu = 1500;
	w.direct_take = UINT32_MAX;
	w.now = w.start = (vtime){ 1000000 };
	families(false);
	for (unsigned i = 0; i < CONNS_MAX; i++)
		w.peers[i].irs = (seqno){ 1000 + 100000 * i };
	w.peer = &w.peers[0];
}

void world_engine(void)
{
	if (w.e)
		return;
	void *const mem = calloc(1, engine_size(&w.cfg));

	if (!mem)
		fail("no memory for the engine");
	w.e = engine_init(mem, &w.cfg, w.now);
}

/* The script's connections find their conn_id by their flow: one in SYN-RECEIVED is not reported. */
static void find_ids(void)
{
	uint32_t cursor = 0;
	conn_id id;
	struct conn_status st;

	while (engine_next_conn(w.e, &cursor, &id)) {
		if (conn_status(w.e, id, &st))
			fail("engine_next_conn gave a stale connection");
		struct peer *const p = peer_of(&st.flow);

		if (!p || st.state == ST_CLOSED)
			continue;
		if (!p->have_id || p->id.slot != id.slot || p->id.gen != id.gen) {
			p->closed_told = false;
			if (w.direct && conn_set_direct(w.e, id, true))
				fail("conn_set_direct");
		}
		p->id = id;
		p->have_id = true;
	}
}

static void take_reports(void)
{
	struct report r;
	struct conn_status st;

	while (engine_next_report(w.e, &r)) {
		if (conn_status(w.e, r.id, &st))
			fail("a report names a stale connection");
		struct peer *const p = peer_of(&st.flow);

		if (!p)
			fail("a report names a connection that the script does not know");
		p->reports |= r.kinds;
		if (!(r.kinds & REPORT_CLOSED))
			continue;
		if (st.state != ST_CLOSED || st.reason != r.reason)
			fail("the report of the end and conn_status differ");
		p->reason = r.reason;
		if (p->have_id && p->id.slot == r.id.slot && p->id.gen == r.id.gen) {
			if (p->closed_told)
				fail("the end was told twice");
			p->closed_told = true;
		} else if (!p->have_id) {
			p->id = r.id;
			p->have_id = p->closed_told = true;
		}
	}
}

/* Every transition starts where the one before it ended. */
static void check_path(const struct trace *t)
{
	const unsigned at = t->serial % NOTES_MAX;
	const bool known = w.paths[at].serial == t->serial;

	if (known && w.paths[at].state != t->from)
		fail("transition from %s, but the connection was in %s", state_name(t->from),
		     state_name(w.paths[at].state));
	if (!known && t->from != ST_CLOSED && t->from != ST_LISTEN)
		fail("the first transition is from %s", state_name(t->from));
	if (!state_may_follow(t->from, t->to))
		fail("illegal transition %s -> %s", state_name(t->from), state_name(t->to));
	w.paths[at].serial = t->serial;
	w.paths[at].state = t->to;
}

static void take_traces(void)
{
	struct trace t;

	while (engine_next_trace(w.e, &t)) {
		struct peer *const p = peer_of(&t.flow);

		if (t.kind == TRACE_TRANSITION && t.serial)
			check_path(&t);
		if (!p)
			continue;
		if (t.kind == TRACE_TRANSITION && p->transitions_n < NOTES_MAX)
			p->transitions[p->transitions_n++] = t;
		if (t.kind == TRACE_REFUSED && p->refusals_n < NOTES_MAX)
			p->refusals[p->refusals_n++] = t;
	}
}

static void check_text(const struct peer *p, const struct segment *s)
{
	uint32_t rel = seq_sub(s->seq, p->iss) + (s->ctl & CTL_SYN ? 1U : 0U);

	for (unsigned i = 0; i < s->spans_n; i++)
		for (uint32_t k = 0; k < s->text[i].len; k++, rel++)
			if (s->text[i].base[k] != octet_at(rel, false))
				fail("octet %u of the text sent is wrong", rel);
}

static void take_segment(const struct segment *s)
{
	struct peer *const p = peer_of(&s->flow);

	if (!p)
		fail("a segment was sent for a connection that the script does not know");
	if (s->ctl & CTL_SYN) {
		if (p->iss_known && !seq_eq(p->iss, s->seq))
			p->sent_octets = p->read_octets = 0;
		if (p->iss_known && !seq_eq(p->iss, s->seq))
			p->iss_before = p->iss;
		p->iss = s->seq;
		p->iss_known = true;
	}
	if (s->options & OPT_TIMESTAMPS) {
		if (!p->ts_known)
			p->ts_first = s->ts_val;
		p->ts_known = true;
		p->ts_last = s->ts_val;
	}
	segment_log(p, '>', s);
	if (!(s->ctl & CTL_RST))
		check_text(p, s);
	if (w.sent_n == SENT_MAX)
		fail("segments without end");
	w.sent[w.sent_n++] = (struct sent){ w.now, *s, seg_text_len(s), p };
}

/* As a driver does: what is due, reports, then what leaves. */
static void pump_once(void)
{
	struct segment s;

	engine_expire(w.e, w.now);
	find_ids();
	take_reports();
	while (engine_output(w.e, w.now, &s))
		take_segment(&s);
	take_reports();
	take_traces();
	if (w.rest)
		engine_rest_all(w.e);
	engine_check(w.e);
}

void pump(void)
{
	unsigned turns = 0;

	do {
		pump_once();
		if (++turns > 1000)
			fail("a timer is due for ever");
	} while (!vtime_before(w.now, engine_deadline(w.e)));
}

void advance(vtime to)
{
	unsigned turns = 0;

	while (!vtime_before(to, engine_deadline(w.e))) {
		const vtime due = engine_deadline(w.e);

		w.now = vtime_before(w.now, due) ? due : w.now;
		pump();
		if (++turns > 100000)
			fail("timers without end");
	}
	w.now = to;
}

void use_peer(unsigned n)
{
	if (n < 1 || n > CONNS_MAX)
		fail("connections are 1 to %d", CONNS_MAX);
	w.peer = &w.peers[n - 1];
}

void world_end(void)
{
	char shown[240];

	if (!w.e)
		fail("the script does nothing");
	if (w.sent_n) {
		segment_format(w.sent[0].peer, '>', &w.sent[0].seg, shown);
		fail("the script ends, but a segment was sent\n\tgot       %s", shown);
	}
	uint32_t edges[ST__COUNT];

	engine_edges(w.e, edges);
	for (unsigned i = 0; i < ST__COUNT; i++)
		w.edges[i] |= edges[i];
	free(w.e);
	w.e = NULL;
}
