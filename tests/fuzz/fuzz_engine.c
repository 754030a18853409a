/* SPDX-License-Identifier: Apache-2.0 */
/* Octets become what may happen to an engine: segments near the window of a connection, user calls in
 * any state, time, and draining or not draining what it has to say; engine_ops.h says how they are
 * written. engine_check() after each, and text is compared: an octet is what its sequence number says.
 * With FUZZ_SHOW in the environment each is printed as it happens, and at the end the states and
 * transitions that there were, as `reached` lines.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "engine_ops.h"
#include "tcp/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IDS = 8, FLOWS = 4, TEXT_MAX = 4096 };

struct in {
	const uint8_t *p;
	size_t n;
};

struct fuzz {
	struct in in;
	struct engine *e;
	vtime now;
	struct tcp_params params;
	conn_id ids[IDS];
	bool rest; /* all who may, after each step */
	bool live[IDS], told[IDS]; /* told: REPORT_CLOSED came, not yet released */
	uint8_t path[256]; /* by serial: last state plus one */
	listener_id listener;
	uint8_t fast_open[8]; /* the last Fast Open cookie that was given */
	struct segment synacks[FLOWS]; /* the last that was sent to each, maybe a cookie */
};

static bool shown;

/* libFuzzer takes what is in this section for coverage: transitions, and each kind of segment (its flags
 * but for those of ECN) in each state, so that inputs which reach one are kept.
 */
static struct {
	uint8_t transitions[ST__COUNT][ST__COUNT], segments[ST__COUNT][64];
} reached __attribute__((section("__libfuzzer_extra_counters")));

static void show(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void show(const char *fmt, ...)
{
	va_list ap;

	if (!shown)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void show_segment(const char *dir, const struct segment *s)
{
	show("  %s port %u flags %#x seq %u len %u ack %u win %u options %#x", dir,
	     s->flow.remote.port, s->ctl, s->seq.v, seg_text_len(s), s->ack.v, s->wnd, s->options);
}

static unsigned u8(struct in *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->p++;
}

static unsigned u16(struct in *in)
{
	const unsigned hi = u8(in);

	return hi << 8 | u8(in);
}

/* The octet that stands at a sequence number, so that a moved one shows. */
static uint8_t octet(seqno at)
{
	return (uint8_t)((at.v ^ at.v >> 7 ^ at.v >> 15) & 0xff);
}

static void check_text(seqno at, struct span text)
{
	for (uint32_t i = 0; i < text.len; i++)
		assert(text.base[i] == octet(seq_add(at, i)));
}

/* Where the next octet stands that the user has not read. */
WRAPS static seqno unread(const struct conn_status *st)
{
	return seq_add(st->rcv_nxt, -(st->receive_queue_bytes + st->remote_fin));
}

static struct flow flow_of(unsigned n)
{
	return (struct flow){ .local = { addr_v4(10, 0, 0, 1), 80 },
			      .remote = { addr_v4(10, 0, 0, 2), (uint16_t)(1000 + n % FLOWS) } };
}

static void remember(struct fuzz *f, conn_id id)
{
	for (unsigned i = 0; i < IDS; i++)
		if (f->live[i] && f->ids[i].slot == id.slot && f->ids[i].gen == id.gen)
			return;
	for (unsigned i = 0; i < IDS; i++)
		if (!f->live[i]) {
			f->ids[i] = id;
			f->live[i] = true;
			f->told[i] = false;
			return;
		}
}

/* Connections in SYN-RECEIVED are not reported: they are found by walking. */
static void find_ids(struct fuzz *f)
{
	uint32_t cursor = 0;
	conn_id id;

	while (engine_next_conn(f->e, &cursor, &id))
		remember(f, id);
}

static void told(struct fuzz *f, conn_id id)
{
	for (unsigned i = 0; i < IDS; i++)
		if (f->live[i] && f->ids[i].slot == id.slot && f->ids[i].gen == id.gen)
			f->told[i] = true;
}

/* A driver may take its time to release what has ended. */
static void release_late(struct fuzz *f, unsigned i)
{
	if (!f->live[i] || !f->told[i])
		return;
	conn_release(f->e, f->ids[i]);
	f->live[i] = false;
}

static void take_reports(struct fuzz *f, bool release)
{
	struct report r;
	struct conn_status st;

	while (engine_next_report(f->e, &r)) {
		show("report slot %u kinds %#x", r.id.slot, r.kinds);
		remember(f, r.id);
		if (!(r.kinds & REPORT_CLOSED))
			continue;
		assert(!conn_status(f->e, r.id, &st));
		assert(st.state == ST_CLOSED && st.reason == r.reason && st.reason != END_NONE);
		if (release)
			conn_release(f->e, r.id);
		else
			told(f, r.id);
		assert(!release || conn_status(f->e, r.id, &st) == -EBADF);
	}
	for (unsigned i = 0; i < IDS; i++)
		f->live[i] = f->live[i] && !conn_status(f->e, f->ids[i], &st);
}

static void take_traces(struct fuzz *f)
{
	struct trace t;

	while (engine_next_trace(f->e, &t)) {
		if (t.kind != TRACE_TRANSITION || !t.serial || t.serial >= sizeof(f->path))
			continue;
		show("transition %s -> %s", state_name(t.from), state_name(t.to));
		assert(state_may_follow(t.from, t.to));
		assert(!f->path[t.serial] || f->path[t.serial] - 1U == t.from);
		f->path[t.serial] = (uint8_t)(t.to + 1);
	}
}

static void take_segments(struct fuzz *f, unsigned most)
{
	struct segment out;
	uint8_t sum = 0;

	for (; most && engine_output(f->e, f->now, &out); most--) {
		show_segment(">", &out);
		for (unsigned i = 0; i < out.spans_n; i++)
			for (uint32_t k = 0; k < out.text[i].len; k++)
				sum ^= out.text[i].base
					       [k]; /* The sanitizer sees that it may be read. */
		assert(!(out.ctl & CTL_SYN) || out.options & OPT_MSS);
		if (out.ctl & CTL_SYN)
			f->synacks[(out.flow.remote.port - 1000U) % FLOWS] = out;
		if (out.options & OPT_FAST_OPEN && out.fast_open_n == 8)
			memcpy(f->fast_open, out.fast_open, 8);
		assert(out.ctl & (CTL_ACK | CTL_SYN | CTL_RST));
		assert(seg_text_len(&out) <= SEG_TEXT_MAX);
	}
	(void)sum;
}

/* The connection of a flow, as it is; zeros when there is none. */
static struct conn_status status_of(const struct fuzz *f, const struct flow *flow)
{
	struct conn_status st = { .rcv_nxt = { 0 } }, one;

	for (unsigned i = 0; i < IDS; i++)
		if (f->live[i] && !conn_status(f->e, f->ids[i], &one) && flow_eq(&one.flow, flow))
			st = one;
	return st;
}

/* Numbers count from where the connection is, so that the interesting ones are near: the edges of the
 * windows, half the number space away, the other side's ISN.
 */
WRAPS static void place(struct segment *seg, const struct conn_status *st, unsigned where)
{
	const uint32_t seqs[] = { 0, st->rcv_wnd, st->rcv_wnd / 2, 0x80000000U };
	const uint32_t acks[] = { 0, -st->snd_wnd, st->unacked_bytes / 2, 0x80000000U };

	seg->seq = where & 8 ? seq_add(seg->seq, seq_sub(st->irs, st->rcv_nxt))
			     : seq_add(seg->seq, seqs[where & 3]);
	seg->ack = where & 128 ? seq_add(seg->ack, seq_sub(st->iss, st->snd_nxt))
			       : seq_add(seg->ack, acks[where >> 4 & 3]);
}

/* The last cookie that was given, spoilt or not; or the wish for one. */
static void add_fast_open(struct fuzz *f, struct segment *seg)
{
	seg->options |= OPT_FAST_OPEN;
	seg->fast_open_n = seg->mss & 2 ? 8 : 0;
	memcpy(seg->fast_open, f->fast_open, 8);
	seg->fast_open[0] ^= seg->mss >> 8 & 1;
}

static void add_options(struct fuzz *f, struct segment *seg, unsigned how, seqno una)
{
	struct in *const in = &f->in;

	if (how & HOW_TIMESTAMPS) {
		seg->options |= OPT_TIMESTAMPS;
		seg->ts_val = u16(in);
		seg->ts_ecr = u16(in);
	}
	if (how & HOW_SYN_OPTIONS) {
		seg->options |= OPT_MSS | OPT_WSCALE | OPT_SACK_PERMITTED;
		seg->mss = (uint16_t)u16(in);
		seg->wscale = (uint8_t)u8(in);
		if (seg->mss & 1)
			add_fast_open(f, seg);
	}
	if (how & HOW_URGENT)
		seg->urgent = (uint16_t)u16(in);
	if (!(how & HOW_SACK))
		return;
	seg->options |= OPT_SACK;
	seg->sacks_n = (uint8_t)(1 + u8(in) % SACKS_MAX);
	for (unsigned i = 0; i < seg->sacks_n; i++) {
		seg->sacks[i].left = seq_add(una, u8(in) * 25 - 300);
		seg->sacks[i].right = seq_add(seg->sacks[i].left, u8(in) * 25 - 50);
	}
}

static void add_text(struct segment *seg, unsigned how, uint32_t len)
{
	static uint8_t text[TEXT_MAX];
	const seqno first = seq_add(seg->seq, !!(seg->ctl & CTL_SYN));

	if (!len)
		return;
	for (uint32_t i = 0; i < len; i++)
		text[i] = octet(seq_add(first, i));
	seg->text[0] = (struct span){ text, len / 2 };
	seg->text[1] = (struct span){ text + len / 2, len - len / 2 };
	seg->spans_n = 2;
	seg->piece_bytes = (uint16_t)(how & HOW_LONG ? 50 : 0);
}

static void input(struct fuzz *f, unsigned op)
{
	struct in *const in = &f->in;
	struct segment seg = { .flow = flow_of(op >> 4), .ttl = 64, .link_mtu = 1500 };
	struct delivery d = { .text = { NULL, 0 } };
	size_t sent = 0;
	const struct conn_status st = status_of(f, &seg.flow);

	seg.ctl = (uint8_t)u8(in);
	const unsigned how = u8(in);

	seg.seq = seq_add(st.rcv_nxt, (uint32_t)(int8_t)u8(in));
	seg.ack = seq_add(how & HOW_FROM_UNA ? st.snd_una : st.snd_nxt, (uint32_t)(int8_t)u8(in));
	seg.tos = (uint8_t)(op & SEGMENT_TOS ? u8(in) : 0);
	if (op & SEGMENT_PLACED)
		place(&seg, &st, u8(in));
	seg.wnd = (uint16_t)(how & HOW_WINDOW ? u16(in) : u8(in));
	const uint32_t len = how & HOW_LONG ? u16(in) % TEXT_MAX : how & HOW_TEXT ? u8(in) : 0;

	add_text(&seg, how, len);
	add_options(f, &seg, how, st.snd_una);
	const uint32_t take = u8(in);

	show_segment("<", &seg);
	reached.segments[st.state][seg.ctl & 63] = 1;
	engine_input(f->e, f->now, &seg, &d);
	if (!d.text.len)
		return;
	check_text(unread(&st), d.text);
	if (take & 64) /* as an echo does */
		(void)conn_pass_on(f->e, f->now, d.id, d.text.base, d.text.len, 0, &sent);
	conn_delivered(f->e, f->now, &d, take % (d.text.len + 1));
}

/* What a peer answers to the last SYN-ACK that it got, now or much later. */
static void answer_syn_ack(struct fuzz *f, unsigned op)
{
	const struct segment *const last = &f->synacks[(op >> 4) % FLOWS];
	const unsigned how = u8(&f->in);
	struct segment seg = { .flow = flow_of(op >> 4),
			       .seq = last->ack,
			       .ack = seq_add(last->seq, 1 + (how & ANSWER_WRONG)),
			       .ctl = (uint8_t)(CTL_ACK | (how & ANSWER_FIN ? CTL_FIN : 0)),
			       .wnd = (uint16_t)u8(&f->in),
			       .options = last->options & OPT_TIMESTAMPS,
			       .ts_val = u8(&f->in),
			       .ts_ecr = last->ts_val ^ (how & ANSWER_STAMP_WRONG ? 1 : 0),
			       .link_mtu = 1500 };
	const struct conn_status st = status_of(f, &seg.flow);
	struct delivery d = { .text = { NULL, 0 } };

	add_text(&seg, 0, how & ANSWER_TEXT ? how >> 2 : 0);
	show_segment("<", &seg);
	engine_input(f->e, f->now, &seg, &d);
	if (!d.text.len)
		return;
	check_text(unread(&st), d.text);
	conn_delivered(f->e, f->now, &d, d.text.len);
}

static void open_active(struct fuzz *f, unsigned op)
{
	const struct conn_open open = {
		.flow = flow_of(op >> 4),
		.params = f->params,
		.link_mtu = (uint16_t)(u8(&f->in) * 6),
	};
	conn_id id;

	const int rc = engine_connect(f->e, f->now, &open, &id);

	show("connect port %u mtu %u: %d", open.flow.remote.port, open.link_mtu, rc);
	if (!rc)
		remember(f, id);
}

static void change_listener(struct fuzz *f, unsigned op)
{
	const struct flow any = flow_of(0);
	const struct listener_open open = {
		.local = any.local,
		.params = f->params,
		.backlog = 1 + (op >> 4 & 3),
		.conns_max = op >> 6,
	};

	show("%s", op & 128 ? "unlisten" : "listen");
	if (op & 128)
		(void)engine_unlisten(f->e, f->now, f->listener);
	else
		(void)engine_listen(f->e, f->now, &open, &f->listener);
}

static void change_params(struct fuzz *f, conn_id id)
{
	const unsigned bits = u8(&f->in);

	f->params.nagle = bits & 1;
	f->params.timestamps = bits & 2;
	f->params.window_scaling = bits & 4;
	f->params.rfc5961 = bits & 8;
	f->params.sack = (bits & 24) != 24;
	f->params.keepalive = bits & 1;
	f->params.icmp_may_reset = bits & 4;
	f->params.black_hole_detection = bits & 2;
	f->params.congestion_control = bits & 2 ? TCP_CC_CUBIC : TCP_CC_NEWRENO;
	f->params.ecn = bits % 3;
	f->params.syn_cookies = bits / 3 % 3;
	f->params.fast_open = bits % 4;
	f->params.fast_open_queue = 1;
	f->params.drop_syn_fin = (bits & 9) == 9;
	f->params.blackhole = (bits & 10) == 10;
	f->params.delayed_ack_us = bits & 16 ? 1000 : 0;
	f->params.receive_buffer_bytes = 30 + u8(&f->in) * 20;
	f->params.send_buffer_bytes = 30 + u8(&f->in) * 20;
	f->params.fin_wait_2_us = bits & 32 ? 20000 : 0;
	f->params.msl_us = bits & 64 ? 5000 : 0;
	show("params %#x receive %u send %u, %s", bits, f->params.receive_buffer_bytes,
	     f->params.send_buffer_bytes, bits & 128 ? "of a connection" : "from now on");
	if (bits & 128)
		(void)conn_set_params(f->e, f->now, id, &f->params);
}

static void pass_time(struct fuzz *f, unsigned op)
{
	const vtime due = engine_deadline(f->e);

	if (op & 128)
		f->now = vtime_add(f->now, (uint64_t)u16(&f->in) << (op >> 4 & 7));
	else if (due.us != UINT64_MAX && vtime_before(f->now, due))
		f->now = due;
	show("time %llu", (unsigned long long)f->now.us);
	engine_expire(f->e, f->now);
}

static void user_call(struct fuzz *f, unsigned op, conn_id id)
{
	static uint8_t buf[4096], repeated[100 + 3 * ENGINE_CHUNK_BYTES];
	static const struct pattern pattern = { repeated, 100, sizeof(repeated) };
	struct span spans[2];
	struct conn_status st;
	const size_t len = u8(&f->in) * 8U;
	size_t n = 0;
	const bool known = !conn_status(f->e, id, &st);

	show("call %u slot %u len %zu", op >> 4 & 7, id.slot, len);
	switch (op >> 4 & 7) {
	case 0:
		(void)conn_send(f->e, f->now, id, buf, len, &n);
		assert(n <= len);
		break;
	case 1:
		(void)conn_send_pattern(f->e, f->now, id, &pattern, op, len * 16, &n);
		assert(n <= len * 16);
		break;
	case 2:
		(void)conn_receive(f->e, f->now, id, buf, len, &n);
		assert(n <= len && (known || !n));
		if (n)
			check_text(unread(&st), (struct span){ buf, (uint32_t)n });
		break;
	case 3:
		if (!conn_peek(f->e, id, spans, 2))
			break;
		assert(known);
		check_text(unread(&st), spans[0]);
		if (len & 64)
			(void)conn_pass_on(f->e, f->now, id, spans[0].base, spans[0].len, 0, &n);
		(void)conn_consume(f->e, f->now, id, spans[0].len);
		break;
	case 4:
		(void)conn_close(f->e, f->now, id, CAUSE_USER);
		break;
	case 5:
		(void)conn_stop_reading(f->e, f->now, id);
		break;
	case 6:
		(void)conn_abort(f->e, f->now, id, CAUSE_OPERATOR, END_RESET_BY_OPERATOR);
		break;
	default:
		(void)conn_set_direct(f->e, id, len & 8);
		(void)conn_at_eof(f->e, id);
		(void)conn_status(f->e, id, &st);
		break;
	}
}

static void icmp(struct fuzz *f, unsigned op)
{
	struct icmp_message m = {
		.flow = flow_of(u8(&f->in)),
		.error = (enum icmp_error)(op >> 4 & 7),
		.mtu = u16(&f->in),
		.quoted_bytes = u16(&f->in),
	};
	const unsigned at = u8(&f->in);
	struct conn_status st;

	if (m.error == ICMP_ERR_NONE)
		m.error = ICMP_ERR_TIME_EXCEEDED;
	if (!conn_status(f->e, f->ids[at % IDS], &st)) {
		m.flow = st.flow;
		m.seq = seq_add(st.snd_una, at >> 4);
	}
	show("icmp %s mtu %u quoted %u", icmp_error_key(m.error), m.mtu, m.quoted_bytes);
	engine_icmp(f->e, f->now, &m);
}

/* What is changed from outside: the interface's MTU, the listener's parameters; and what is only looked at. */
static void change_other(struct fuzz *f, unsigned op)
{
	const conn_id id = f->ids[op >> 4 & (IDS - 1)];
	const unsigned n = u16(&f->in);
	struct listener_status st;

	show("mtu %u", n);
	(void)conn_set_mtu(f->e, f->now, id, (uint16_t)n);
	if (n & 1)
		(void)engine_listener_set_params(f->e, f->listener, &f->params);
	if (n & 8)
		engine_set_unserved(f->e, &f->params);
	(void)engine_listener_set_room(f->e, f->listener, n & 6 ? UINT32_MAX : n >> 3 & 3);
	if (n & 512)
		(void)engine_rest(f->e, f->now);
	(void)engine_listener_status(f->e, f->listener, &st);
}

static void do_op(struct fuzz *f, unsigned op)
{
	switch ((enum op)(op & 15)) {
	case OP_LISTENER:
		change_listener(f, op);
		break;
	case OP_CONNECT:
		open_active(f, op);
		break;
	case OP_PARAMS:
		change_params(f, f->ids[u8(&f->in) % IDS]);
		break;
	case OP_CALL:
	case OP_CALL_TOO:
		user_call(f, op, f->ids[u8(&f->in) % IDS]);
		break;
	case OP_TIME:
	case OP_TIME_TOO:
		pass_time(f, op);
		break;
	case OP_TAKE_SEGMENTS:
		take_segments(f, op & 128 ? 1 : 1000);
		break;
	case OP_TAKE_REPORTS:
		take_reports(f, op & 128);
		break;
	case OP_TAKE_ALL:
		take_segments(f, 1000);
		take_reports(f, true);
		take_traces(f);
		break;
	case OP_RELEASE:
		if (op & RELEASE_OTHER)
			change_other(f, op);
		else
			release_late(f, op >> 4 & (IDS - 1));
		break;
	case OP_ICMP:
		icmp(f, op);
		break;
	case OP_ANSWER:
		answer_syn_ack(f, op);
		break;
	case OP_SEGMENT:
	default:
		input(f, op);
		break;
	}
}

static void one(struct fuzz *f)
{
	const size_t had = f->in.n, bytes = op_bytes(f->in.p, f->in.n);

	do_op(f, u8(&f->in));
	/* The mutator's idea of an operation's length is this one's. */
	assert(had - f->in.n == (bytes < had ? bytes : had));
	find_ids(f);
	if (f->rest)
		engine_rest_all(f->e);
	engine_check(f->e);
}

static void note_reached(const struct fuzz *f)
{
	uint32_t edges[ST__COUNT];

	engine_edges(f->e, edges);
	for (unsigned a = 0; a < ST__COUNT; a++)
		for (unsigned b = 0; b < ST__COUNT; b++) {
			if (!(edges[a] >> b & 1))
				continue;
			reached.transitions[a][b] = 1;
			show("reached %s -> %s", state_name((enum tcp_state)a),
			     state_name((enum tcp_state)b));
		}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = { .in = { data, size } };
	const unsigned shape = u8(&f.in);
	const struct engine_config cfg = {
		.conns_max = 1 + (shape & 3),
		.listeners_max = 1,
		.syn_received_max = 2,
		.time_wait_max = 1 + (shape >> 2 & 1),
		.chunks_max = 1 + (shape >> 3 & 3),
		.working_max = 1 + (shape >> 2 & 3),
		.working_cache = 1 + (shape >> 4 & 3),
		.segment_bytes_max = shape & 32 ? 500 : 0,
		.local_port_min = 60000,
		.local_port_max = 60001,
		.secret = { 1, 3 },
		.serial_first = 1,
		.serial_step = 1,
	};
	void *const mem = calloc(1, engine_size(&cfg));

	if (!mem)
		return 0;
	shown = getenv("FUZZ_SHOW") != NULL;
	show("conns %u chunks %u", cfg.conns_max, cfg.chunks_max);
	f.rest = shape & 128;
	f.now.us = shape & 64 ? 0 : 0xffffffffU * 4ULL;
	f.e = engine_init(mem, &cfg, f.now);
	tcp_params_default(&f.params);
	f.params.receive_buffer_bytes = 300;
	f.params.send_buffer_bytes = 300;
	f.params.rto_min_us = 1000;
	f.params.rto_initial_us = 3000;
	f.params.rto_max_us = 60000;
	f.params.user_timeout_us = f.params.syn_timeout_us = 1000000;
	f.params.msl_us = 5000;
	f.params.mss = 100;
	f.params.keepalive_time_us = 20000;
	f.params.keepalive_interval_us = 5000;
	f.params.keepalive_probes = 2;
	while (f.in.n)
		one(&f);
	note_reached(&f);
	free(mem);
	return 0;
}
