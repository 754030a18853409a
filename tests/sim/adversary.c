/* SPDX-License-Identifier: Apache-2.0 */
/* One engine, and a peer that means harm: it sees what the engine sends, and answers with segments left of,
 * in, and right of the windows, acknowledgements of what was never sent, windows that shrink and close,
 * SACK blocks that lie, any flags, any options, ICMP errors; in between it behaves, so as to get far.
 *
 * usage: adversary SEED	one run, shown
 *	  adversary all N [FIRST]
 *
 * Checked: engine_check() after each step; text is what its sequence number says, whatever overlaps;
 * nothing outside the windows, no early timer, causes that were there (watch.h); no RST for a RST, at most two
 * answers without text to a segment; and when the peer falls silent and the user closes, all is gone in a
 * bounded time, with one end told for each connection.
 */
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "tcp/engine.h"

#include "net.h"
#include "watch.h"

enum { FLOWS = 4, SERIALS = 8192, TEXT_MAX = 3000, STEPS_MAX = 2000000, PORT = 40000 };

/* R2 of everything, FIN-WAIT-2's limit and two MSL follow each other at the most. */
enum { SILENCE_S = 400 };

/* What the peer knows of one flow: what it saw, and where it is itself. */
struct foe {
	struct flow flow; /* as the engine has it */
	bool active; /* the engine opens it */
	seqno iss; /* ours */
	seqno high; /* the end of all that the engine sent */
	seqno acked,
		wanted; /* una as we believe; what the engine acknowledged, that is what it wants next */
	uint32_t wnd; /* that it offered, scaled as its SYN said */
	uint8_t shift;
	bool syn_seen;
	uint32_t ts; /* its latest */
	/* The engine's user of it. */
	conn_id id;
	bool have, opened, closed_told;
	struct watch watch;
};

struct run {
	uint64_t seed;
	bool verbose;
	struct rng rng;
	vtime now, start;
	struct engine *e;
	void *mem;
	struct tcp_params params;
	struct foe foe[FLOWS];
	unsigned kindness; /* permille of what the peer does that is right */
	unsigned small_answers, resets; /* since the last input */
	uint8_t path[SERIALS];
	vtime entered[SERIALS];
	listener_id listener;
};

static char reproduce[64];
static uint32_t edges_taken[ST__COUNT];

static void on_abort(int sig)
{
	const ssize_t n = write(STDERR_FILENO, reproduce, strlen(reproduce));

	(void)n;
	signal(sig, SIG_DFL);
	raise(sig);
}

__attribute__((noreturn)) static void fail(const struct run *r, const char *fmt, ...)
	PRINTF_LIKE(2, 3);
static void fail(const struct run *r, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ", at %.6f s\n%s", (double)(r->now.us - r->start.us) / 1e6, reproduce);
	exit(1);
}

/* The peer's octet at a sequence number. */
static uint8_t octet(seqno at)
{
	return (uint8_t)((at.v ^ at.v >> 8 ^ at.v >> 17) & 0xff);
}

static void show(const struct run *r, const char *dir, const struct segment *s)
{
	char flags[9] = "";
	size_t k = 0;

	if (!r->verbose)
		return;
	for (unsigned i = 0; i < 8; i++)
		if (s->ctl >> i & 1)
			flags[k++] = "FSRP.UEW"[i];
	printf("%12.6f %s %5u %-8s seq %u len %u ack %u win %u", (double)r->now.us / 1e6, dir,
	       s->flow.remote.port, flags, s->seq.v, seg_text_len(s), s->ack.v, s->wnd);
	for (unsigned i = 0; s->options & OPT_SACK && i < s->sacks_n; i++)
		printf(" sack %u:%u", s->sacks[i].left.v, s->sacks[i].right.v);
	printf("%s\n", s->options & OPT_TIMESTAMPS ? " TS" : "");
}

static struct foe *foe_of(struct run *r, const struct flow *f)
{
	for (unsigned i = 0; i < FLOWS; i++)
		if (flow_eq(&r->foe[i].flow, f))
			return &r->foe[i];
	fail(r, "a segment for nobody");
}

/* ---- the engine's side ---- */

static void check_text(const struct run *r, seqno at, const uint8_t *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] != octet(seq_add(at, (uint32_t)i)))
			fail(r, "an octet is wrong");
}

static void read_some(struct run *r, struct foe *f)
{
	uint8_t buf[2000];
	struct conn_status st;
	size_t n = 0;

	if (conn_status(r->e, f->id, &st) ||
	    conn_receive(r->e, r->now, f->id, buf, 1 + below(&r->rng, sizeof(buf)), &n))
		return;
	const uint32_t behind = st.receive_queue_bytes + st.remote_fin;

	check_text(r, (seqno){ seq_sub(st.rcv_nxt, (seqno){ behind }) }, buf, n);
}

static void take_reports(struct run *r)
{
	struct report rep;
	struct conn_status st;

	while (engine_next_report(r->e, &rep)) {
		if (conn_status(r->e, rep.id, &st))
			fail(r, "a report for a stale connection");
		struct foe *const f = foe_of(r, &st.flow);
		const bool mine = f->have && f->id.slot == rep.id.slot && f->id.gen == rep.id.gen;

		if (rep.kinds & REPORT_OPENED && !mine && f->have)
			(void)conn_abort(r->e, r->now, rep.id, CAUSE_USER, END_RESET_BY_SERVICE);
		else if (rep.kinds & REPORT_OPENED) {
			f->have = f->opened = true;
			f->id = rep.id;
			(void)conn_set_direct(r->e, rep.id, chance(&r->rng, 300));
		}
		if (!(rep.kinds & REPORT_CLOSED))
			continue;
		if (st.state != ST_CLOSED || rep.reason == END_NONE || rep.reason != st.reason)
			fail(r, "an end that is none");
		if (f->have && f->id.slot == rep.id.slot && f->id.gen == rep.id.gen)
			f->have = f->opened = false;
		conn_release(r->e, rep.id);
	}
}

static void take_traces(struct run *r, enum cause phase)
{
	struct trace t;

	while (engine_next_trace(r->e, &t)) {
		const bool known = t.serial && t.serial < SERIALS;
		const char *const wrong = watch_trace(&t, phase, &r->params,
						      known ? r->entered[t.serial] : t.at);

		if (wrong)
			fail(r, "%s: %s -> %s by %s, %s", wrong, state_name(t.from),
			     state_name(t.to), cause_key(t.cause), rule_text(t.rule));
		if (t.kind != TRACE_TRANSITION || !known)
			continue;
		if (r->path[t.serial] && r->path[t.serial] - 1U != t.from)
			fail(r, "a transition from %s, but it was elsewhere", state_name(t.from));
		if (!state_may_follow(t.from, t.to))
			fail(r, "an illegal transition");
		r->path[t.serial] = (uint8_t)(t.to + 1);
		r->entered[t.serial] = t.at;
	}
}

/* What the peer learns from what the engine sends. */
static void overhear(struct foe *f, const struct segment *s)
{
	const seqno end = seq_add(s->seq, seg_len(s));

	if (s->ctl & CTL_RST)
		return;
	if (s->ctl & CTL_SYN) {
		if (!f->syn_seen || s->seq.v != f->iss.v)
			f->high = f->acked = s->seq;
		f->iss = s->seq;
		f->syn_seen = true;
		f->shift = s->options & OPT_WSCALE ? s->wscale : 0;
	}
	if (seq_lt(f->high, end))
		f->high = end;
	if (s->ctl & CTL_ACK)
		f->wanted = s->ack;
	f->wnd = (uint32_t)s->wnd << (s->ctl & CTL_SYN ? 0 : f->shift);
	if (s->options & OPT_TIMESTAMPS)
		f->ts = s->ts_val;
}

static void output(struct run *r)
{
	struct segment s;
	struct conn_status st;

	while (engine_output(r->e, r->now, &s)) {
		struct foe *const f = foe_of(r, &s.flow);
		const bool known = f->have && !conn_status(r->e, f->id, &st);
		const char *const wrong = watch_sent(&f->watch, &s, known ? &st : NULL, r->now);

		show(r, ">", &s);
		if (wrong)
			fail(r, "%s", wrong);
		r->small_answers += !seg_text_len(&s);
		r->resets += !!(s.ctl & CTL_RST);
		overhear(f, &s);
	}
}

static void use(struct run *r, struct foe *f)
{
	static const uint8_t text[TEXT_MAX];
	struct rng *const g = &r->rng;
	size_t n;

	switch (below(g, 12)) {
	case 0:
	case 1:
	case 2:
		(void)conn_send(r->e, r->now, f->id, text, below(g, TEXT_MAX), &n);
		break;
	case 3:
	case 4:
	case 5:
		read_some(r, f);
		break;
	case 6:
		if (chance(g, 300))
			(void)conn_close(r->e, r->now, f->id, CAUSE_USER);
		break;
	case 7:
		if (chance(g, 100))
			(void)conn_stop_reading(r->e, r->now, f->id);
		break;
	case 8:
		if (chance(g, 50))
			(void)conn_abort(r->e, r->now, f->id, CAUSE_OPERATOR,
					 END_RESET_BY_OPERATOR);
		break;
	default:
		break;
	}
}

static void open_active(struct run *r, struct foe *f)
{
	const struct conn_open open = { .flow = f->flow, .params = r->params, .link_mtu = 1500 };

	if (f->have || engine_connect(r->e, r->now, &open, &f->id))
		return;
	f->have = true;
	f->syn_seen = false;
}

static void look(struct run *r, bool expired)
{
	struct conn_status st;
	const char *wrong = NULL;

	for (unsigned i = 0; i < FLOWS; i++) {
		struct foe *const f = &r->foe[i];

		if (!f->have || conn_status(r->e, f->id, &st))
			continue;
		if (expired)
			wrong = watch_expired(&f->watch, &st, &r->params, r->now);
		else
			watch_status(&f->watch, &st, r->now);
		if (wrong)
			fail(r, "%s", wrong);
	}
	engine_check(r->e);
}

static void settle(struct run *r, enum cause phase)
{
	take_traces(r, phase);
	look(r, phase == CAUSE_TIMER);
	take_reports(r);
	take_traces(r, CAUSE_USER);
	output(r);
	take_reports(r);
	take_traces(r, CAUSE_USER);
	look(r, false);
}

/* ---- the peer's side ---- */

static void arrives(struct run *r, struct foe *f, struct segment *s)
{
	static uint8_t text[TEXT_MAX];
	struct delivery d = { .text = { NULL, 0 } };
	const uint32_t len = s->text[0].len; /* which is all that the caller says of the text */
	const seqno first = seq_add(s->seq, !!(s->ctl & CTL_SYN));
	struct conn_status st;

	for (uint32_t i = 0; i < len; i++)
		text[i] = octet(seq_add(first, i));
	s->text[0].base = text;
	s->spans_n = len != 0;
	show(r, "<", s);
	/* What acknowledges too much, or what is long gone, offers nothing. */
	if (!(s->ctl & CTL_ACK) || seq_sub(f->high, s->ack) < 1 << 20)
		watch_arrives(&f->watch, s);
	r->small_answers = r->resets = 0;
	const bool known = f->have && !conn_status(r->e, f->id, &st);

	engine_input(r->e, r->now, s, &d);
	if (d.text.len) {
		if (!known)
			fail(r, "text was delivered for nobody");
		check_text(r, (seqno){ seq_sub(st.rcv_nxt, (seqno){ st.remote_fin }) }, d.text.base,
			   d.text.len);
		conn_delivered(r->e, r->now, &d, (uint32_t)below(&r->rng, d.text.len + 1));
	}
	settle(r, CAUSE_SEGMENT);
	if (s->ctl & CTL_RST && r->resets)
		fail(r, "a RST was answered by a RST");
	if (r->small_answers > 2)
		fail(r, "%u answers without text to one segment", r->small_answers);
}

static struct segment plain(struct run *r, struct foe *f)
{
	struct segment s = { .flow = f->flow,
			     .seq = f->wanted,
			     .ack = f->high,
			     .ctl = CTL_ACK,
			     .wnd = (uint16_t)(chance(&r->rng, 800) ? 20000
								    : below(&r->rng, 65536)),
			     .ttl = 64,
			     .link_mtu = 1500 };

	if (f->ts) {
		s.options = OPT_TIMESTAMPS;
		s.ts_val = (uint32_t)(r->now.us / 1000 & 0xffffffff);
		s.ts_ecr = f->ts;
	}
	return s;
}

static void add_syn_options(struct run *r, struct segment *s)
{
	struct rng *const g = &r->rng;

	s->options |= (uint8_t)(OPT_MSS | (chance(g, 700) ? OPT_WSCALE : 0) |
				(chance(g, 700) ? OPT_SACK_PERMITTED : 0) |
				(chance(g, 500) ? OPT_TIMESTAMPS : 0));
	s->mss = (uint16_t)(chance(g, 700) ? 1460 : below(g, 65536));
	s->wscale = (uint8_t)(chance(g, 700) ? 3 : below(g, 256));
	s->ts_val = (uint32_t)(r->now.us / 1000 & 0xffffffff);
}

static void is_kind(struct run *r, struct foe *f)
{
	struct segment s = plain(r, f);

	if (!f->syn_seen || (!f->have && !f->active)) {
		if (f->active)
			return;
		s.ctl = CTL_SYN;
		s.seq = (seqno){ (uint32_t)rnd(&r->rng) };
		f->wanted = s.seq;
		f->syn_seen = false;
		s.options = 0;
		add_syn_options(r, &s);
	} else if (f->active && f->high.v == seq_add(f->iss, 1).v && !f->opened) {
		s.ctl = CTL_SYN | CTL_ACK;
		s.seq = f->wanted = (seqno){ (uint32_t)rnd(&r->rng) };
		add_syn_options(r, &s);
	} else if (chance(&r->rng, 500)) {
		const uint32_t most = f->wnd < TEXT_MAX ? f->wnd : TEXT_MAX;

		s.text[0].len = (uint32_t)below(&r->rng, most + 1);
		s.ctl |= chance(&r->rng, 500) ? CTL_PSH : 0;
	} else if (chance(&r->rng, 50)) {
		s.ctl |= CTL_FIN;
	}
	arrives(r, f, &s);
}

/* Near what matters, or anywhere. */
WRAPS static seqno close_to(struct run *r, seqno a, seqno b)
{
	struct rng *const g = &r->rng;
	const uint32_t small = (uint32_t)below(g, 5) - 2, some = (uint32_t)below(g, 6000) - 3000;

	switch (below(g, 5)) {
	case 0:
		return seq_add(a, small);
	case 1:
		return seq_add(b, small);
	case 2:
		return seq_add(a, (uint32_t)below(g, (uint64_t)seq_sub(b, a) + 1));
	case 3:
		return seq_add(chance(g, 500) ? a : b, some);
	default:
		return (seqno){ (uint32_t)rnd(g) };
	}
}

/* Flags that mean something. */
static uint8_t pick_flags(struct rng *g)
{
	static const uint8_t all[] = { CTL_SYN,
				       CTL_SYN | CTL_ACK,
				       CTL_RST,
				       CTL_RST | CTL_ACK,
				       CTL_FIN,
				       CTL_FIN | CTL_ACK,
				       CTL_SYN | CTL_FIN,
				       CTL_ACK | CTL_URG,
				       CTL_ACK | CTL_ECE,
				       CTL_ACK | CTL_CWR,
				       0 };

	return all[below(g, sizeof(all))];
}

static void lie_by_sack(struct run *r, const struct foe *f, struct segment *s)
{
	s->options |= OPT_SACK;
	s->sacks_n = (uint8_t)(1 + below(&r->rng, s->options & OPT_TIMESTAMPS ? 3 : SEG_SACKS));
	for (unsigned i = 0; i < s->sacks_n; i++) {
		s->sacks[i].left = close_to(r, f->acked, f->high);
		s->sacks[i].right = chance(&r->rng, 700) ? seq_add(s->sacks[i].left,
								   (uint32_t)below(&r->rng, 3000))
							 : close_to(r, f->acked, f->high);
	}
}

static void is_cruel(struct run *r, struct foe *f)
{
	struct rng *const g = &r->rng;
	struct segment s = plain(r, f);

	if (chance(g, 300))
		s.ctl = (uint8_t)below(g, 256);
	else if (chance(g, 400))
		s.ctl = pick_flags(g);
	if (chance(g, 500))
		s.seq = close_to(r, f->wanted, seq_add(f->wanted, f->wnd));
	if (chance(g, 500))
		s.ack = close_to(r, f->acked, f->high);
	if (chance(g, 300))
		s.wnd = (uint16_t)(chance(g, 500) ? 0 : below(g, chance(g, 500) ? 20 : 65536));
	if (chance(g, 300))
		s.text[0].len = (uint32_t)below(g, TEXT_MAX);
	if (chance(g, 300))
		lie_by_sack(r, f, &s);
	if (chance(g, 200)) {
		s.options ^= OPT_TIMESTAMPS;
		s.ts_val = (uint32_t)rnd(g);
		s.ts_ecr = (uint32_t)(chance(g, 500) ? rnd(g) : f->ts);
	}
	if (chance(g, 100))
		add_syn_options(r, &s);
	if (chance(g, 100))
		s.urgent = (uint16_t)below(g, 65536);
	if (chance(g, 200))
		s.tos = (uint8_t)below(g, 256);
	arrives(r, f, &s);
}

static void lies_by_icmp(struct run *r, struct foe *f)
{
	struct icmp_message m = {
		.flow = f->flow,
		.error = (enum icmp_error)(1 + below(&r->rng, ICMP_ERR__COUNT - 1)),
		.mtu = (uint32_t)below(&r->rng, 3000),
		.quoted_bytes = (uint32_t)below(&r->rng, 3000),
		.seq = close_to(r, f->acked, f->high),
	};

	engine_icmp(r->e, r->now, &m);
	settle(r, CAUSE_ICMP);
}

/* ---- the run ---- */

static void pass_time(struct run *r, uint64_t us)
{
	const vtime to = vtime_add(r->now, us);
	unsigned steps = 0;
	vtime due = engine_deadline(r->e);

	for (; !vtime_before(to, due); due = engine_deadline(r->e)) {
		if (++steps > STEPS_MAX)
			fail(r, "timers without end");
		r->now = vtime_before(due, r->now) ? r->now : due;
		r->small_answers = r->resets = 0;
		engine_expire(r->e, r->now);
		settle(r, CAUSE_TIMER);
	}
	r->now = to;
}

static uint64_t how_long(struct rng *g)
{
	switch (below(g, 20)) {
	case 0:
		return below(g, 5000000);
	case 1:
		return chance(g, 300) ? below(g, 60000000) : below(g, 1000000);
	case 2:
	case 3:
		return below(g, 300000);
	default:
		return chance(g, 300) ? 0 : below(g, 30000);
	}
}

static void one_thing(struct run *r)
{
	struct rng *const g = &r->rng;
	struct foe *const f = &r->foe[below(g, FLOWS)];

	pass_time(r, how_long(g));
	if (f->active && !f->have && chance(g, 100)) {
		open_active(r, f);
		settle(r, CAUSE_USER);
	} else if (f->opened && chance(g, 250)) {
		use(r, f);
		settle(r, CAUSE_USER);
	} else if (chance(g, 15)) {
		lies_by_icmp(r, f);
	} else if (chance(g, r->kindness)) {
		is_kind(r, f);
	} else {
		is_cruel(r, f);
	}
}

/* The peer is silent from now on, the user wants nothing more. */
static void end(struct run *r)
{
	struct engine_counters c;

	(void)engine_unlisten(r->e, r->now, r->listener);
	for (unsigned i = 0; i < FLOWS; i++) {
		struct foe *const f = &r->foe[i];

		if (!f->have)
			continue;
		(void)conn_close(r->e, r->now, f->id, CAUSE_USER);
		(void)conn_stop_reading(r->e, r->now, f->id);
	}
	take_traces(r, CAUSE_USER);
	settle(r, CAUSE_USER);
	pass_time(r, SILENCE_S * 1000000ULL);
	engine_counters(r->e, &c);
	if (c.conns || c.chunks_used)
		fail(r, "%u connections and %u chunks are left after %u s of silence", c.conns,
		     c.chunks_used, (unsigned)SILENCE_S);
}

static void choose_params(struct run *r)
{
	struct rng *const g = &r->rng;
	struct tcp_params *const p = &r->params;

	tcp_params_default(p);
	p->msl_us = 10000000;
	p->rto_max_us = 10000000;
	p->user_timeout_us = 100000000;
	p->syn_timeout_us = 60000000;
	p->fin_wait_2_us = 60000000;
	p->rto_min_us = chance(g, 500) ? 200000 : 1000000;
	p->delayed_ack_us = chance(g, 500) ? 40000 : 0;
	p->receive_buffer_bytes = chance(g, 500) ? 60000 : 3000;
	p->send_buffer_bytes = chance(g, 500) ? 60000 : 3000;
	p->congestion_control = chance(g, 500) ? TCP_CC_CUBIC : TCP_CC_NEWRENO;
	p->ecn = (int)below(g, 3);
	p->timestamps = chance(g, 700);
	p->window_scaling = chance(g, 700);
	p->sack = chance(g, 700);
	p->rfc5961 = chance(g, 700);
	p->nagle = chance(g, 700);
	p->icmp_may_reset = chance(g, 300);
	p->keepalive = chance(g, 200);
	p->keepalive_time_us = 10000000;
	p->keepalive_interval_us = 2000000;
}

static void begin(struct run *r)
{
	struct rng *const g = &r->rng;
	const struct engine_config cfg = {
		.conns_max = 6,
		.listeners_max = 1,
		.syn_received_max = 3,
		.time_wait_max = 2,
		.chunks_max = chance(g, 300) ? 4 : 64,
		.segment_bytes_max = chance(g, 500) ? 64000 : 0,
		.local_port_min = 50000,
		.local_port_max = 50010,
		.secret = { rnd(g), rnd(g) },
		.serial_first = 1,
		.serial_step = 1,
	};
	struct listener_open open = { .local = { addr_v4(10, 0, 0, 1), 80 }, .backlog = 3 };

	choose_params(r);
	r->now.us = below(g, 1ULL << 40);
	r->start = r->now;
	r->kindness = 300 + (unsigned)below(g, 700);
	r->mem = calloc(1, engine_size(&cfg));
	assert(r->mem);
	r->e = engine_init(r->mem, &cfg, r->now);
	open.params = r->params;
	if (engine_listen(r->e, r->now, &open, &r->listener))
		fail(r, "engine_listen");
	take_traces(r, CAUSE_OPERATOR);
	for (unsigned i = 0; i < FLOWS; i++) {
		struct foe *const f = &r->foe[i];

		f->active = i == 0;
		f->flow = (struct flow){ .local = { addr_v4(10, 0, 0, 1), f->active ? 50000 : 80 },
					 .remote = { addr_v4(10, 0, 0, 2), (uint16_t)(PORT + i) } };
	}
}

static void run(uint64_t seed, bool verbose)
{
	struct run *const r = calloc(1, sizeof(*r));
	uint32_t edges[ST__COUNT];
	unsigned left;

	assert(r);
	snprintf(reproduce, sizeof(reproduce), "reproduce: adversary %" PRIu64 "\n", seed);
	*r = (struct run){ .seed = seed, .verbose = verbose };
	r->rng.s = seed;
	begin(r);
	for (left = 50 + (unsigned)below(&r->rng, 600); left; left--)
		one_thing(r);
	end(r);
	engine_edges(r->e, edges);
	for (unsigned k = 0; k < ST__COUNT; k++)
		edges_taken[k] |= edges[k];
	free(r->mem);
	free(r);
}

int main(int argc, char **argv)
{
	signal(SIGABRT, on_abort);
	if (argc >= 3 && !strcmp(argv[1], "all")) {
		const uint64_t n = strtoull(argv[2], NULL, 0);
		const uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;

		for (uint64_t seed = first; seed < first + n; seed++)
			run(seed, false);
		unsigned edges = 0;

		for (unsigned k = 0; k < ST__COUNT; k++)
			edges += (unsigned)__builtin_popcount(edges_taken[k]);
		printf("%" PRIu64 " seeds, %u transitions\n", n, edges);
	} else if (argc == 2 && strspn(argv[1], "0123456789") == strlen(argv[1])) {
		run(strtoull(argv[1], NULL, 0), true);
	} else {
		fprintf(stderr, "usage: adversary SEED | all N [FIRST]\n");
		return 2;
	}
	return 0;
}
