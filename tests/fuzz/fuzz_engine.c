/* SPDX-License-Identifier: Apache-2.0 */
/* Octets become what may happen to an engine: segments near the window of a connection, user calls in
 * any state, time, and draining or not draining what it has to say. engine_check() after each.
 * With FUZZ_SHOW in the environment each is printed as it happens.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "tcp/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IDS = 8, FLOWS = 4 };

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
	bool live[IDS], told[IDS]; /* told: REPORT_CLOSED came, not yet released */
	uint8_t path[256]; /* by serial: last state plus one */
	listener_id listener;
};

static bool shown;

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
		assert(out.ctl & (CTL_ACK | CTL_SYN | CTL_RST));
		assert(seg_text_len(&out) <= SEG_TEXT_MAX);
	}
	(void)sum;
}

/* Numbers count from where the connection is, so that the interesting ones are near. */
static void input(struct fuzz *f, unsigned op)
{
	static const uint8_t text[4096];
	struct in *const in = &f->in;
	struct segment seg = { .flow = flow_of(op >> 4), .ttl = 64, .link_mtu = 1500 };
	struct delivery d = { .text = { NULL, 0 } };
	struct conn_status st = { .rcv_nxt = { 0 } };

	for (unsigned i = 0; i < IDS; i++) {
		struct conn_status one;

		if (f->live[i] && !conn_status(f->e, f->ids[i], &one) &&
		    flow_eq(&one.flow, &seg.flow))
			st = one;
	}
	seg.ctl = (uint8_t)u8(in);
	const unsigned how = u8(in);

	seg.seq = seq_add(st.rcv_nxt, (uint32_t)(int8_t)u8(in));
	seg.ack = seq_add(how & 1 ? st.snd_una : st.snd_nxt, (uint32_t)(int8_t)u8(in));
	seg.wnd = (uint16_t)(how & 2 ? u16(in) : u8(in));
	const uint32_t len = how & 4 ? u16(in) % sizeof(text) : how & 8 ? u8(in) : 0;

	if (len) {
		seg.text[0] = (struct span){ text, len / 2 };
		seg.text[1] = (struct span){ text, len - len / 2 };
		seg.spans_n = 2;
		seg.piece_bytes = (uint16_t)(how & 4 ? 50 : 0);
	}
	if (how & 16) {
		seg.options |= OPT_TIMESTAMPS;
		seg.ts_val = u16(in);
		seg.ts_ecr = u16(in);
	}
	if (how & 32) {
		seg.options |= OPT_MSS | OPT_WSCALE | OPT_SACK_PERMITTED;
		seg.mss = (uint16_t)u16(in);
		seg.wscale = (uint8_t)u8(in);
	}
	if (how & 128) {
		seg.options |= OPT_SACK;
		seg.sacks_n = (uint8_t)(1 + u8(in) % SEG_SACKS);
		for (unsigned i = 0; i < seg.sacks_n; i++) {
			seg.sacks[i].left = seq_add(st.snd_una, u8(in) * 25 - 300);
			seg.sacks[i].right = seq_add(seg.sacks[i].left, u8(in) * 25 - 50);
		}
	}
	if (how & 64)
		seg.urgent = (uint16_t)u16(in);
	show_segment("<", &seg);
	engine_input(f->e, f->now, &seg, &d);
	if (d.text.len)
		conn_delivered(f->e, f->now, &d, u8(in) % (d.text.len + 1));
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
	static uint8_t buf[4096];
	struct span spans[2];
	struct conn_status st;
	const size_t len = u8(&f->in) * 8U;
	size_t n = 0;

	show("call %u slot %u len %zu", op >> 4 & 7, id.slot, len);
	switch (op >> 4 & 7) {
	case 0:
	case 1:
		(void)conn_send(f->e, f->now, id, buf, len, &n);
		assert(n <= len);
		break;
	case 2:
		(void)conn_receive(f->e, f->now, id, buf, len, &n);
		assert(n <= len);
		break;
	case 3:
		if (conn_peek(f->e, id, spans, 2))
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

static void one(struct fuzz *f)
{
	const unsigned op = u8(&f->in);

	switch (op & 15) {
	case 0:
		change_listener(f, op);
		break;
	case 1:
		open_active(f, op);
		break;
	case 2:
		change_params(f, f->ids[u8(&f->in) % IDS]);
		break;
	case 3:
	case 4:
		user_call(f, op, f->ids[u8(&f->in) % IDS]);
		break;
	case 5:
	case 6:
		pass_time(f, op);
		break;
	case 7:
		take_segments(f, op & 128 ? 1 : 1000);
		break;
	case 8:
		take_reports(f, op & 128);
		break;
	case 9:
		take_segments(f, 1000);
		take_reports(f, true);
		take_traces(f);
		break;
	case 10:
		release_late(f, op >> 4 & (IDS - 1));
		break;
	case 11:
		icmp(f, op);
		break;
	default:
		input(f, op);
		break;
	}
	find_ids(f);
	engine_check(f->e);
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
	free(mem);
	return 0;
}
