/* SPDX-License-Identifier: Apache-2.0 */
/* One engine and a peer that does exactly what it should, for cost.py to count instructions in: the same ones in
 * each run. No packet is made, no checksum computed, no time passes but what the segments say.
 *
 * usage: bench_cost WHAT N	does it N times; WHAT is a name of `all` below
 */
#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/engine.h"

enum { MSS = 1448, SUPER = 45 * MSS, REQUEST = 64, FIRST_PORT = 1024, PORTS = 60000 };

static struct {
	struct engine *e;
	vtime now;
	struct flow flow;
	conn_id id;
	bool opened, closed;
	seqno seq, ack; /* the peer's next octet; ours that it expects */
	uint32_t ts_ecr;
	uint64_t out, out_bytes;
} p;

static void fatal(const char *what)
{
	fprintf(stderr, "cost: %s\n", what);
	exit(1);
}

static void take(void)
{
	struct report r;
	struct trace t;
	struct segment s;

	while (engine_next_report(p.e, &r)) {
		if (r.kinds & REPORT_OPENED) {
			p.opened = true;
			p.id = r.id;
		}
		if (r.kinds & REPORT_CLOSED) {
			p.closed = true;
			conn_release(p.e, r.id);
		}
	}
	while (engine_output(p.e, p.now, &s)) {
		p.out++;
		p.out_bytes += seg_text_len(&s);
		p.ack = seq_add(s.seq, seg_len(&s));
		if (s.options & OPT_TIMESTAMPS)
			p.ts_ecr = s.ts_val;
	}
	while (engine_next_trace(p.e, &t))
		;
}

static void arrives(unsigned ctl, uint32_t len)
{
	static const uint8_t text[SUPER];
	struct delivery d = { .text = { NULL, 0 } };
	struct segment s = {
		.flow = p.flow,
		.seq = p.seq,
		.ack = p.ack,
		.wnd = 65535,
		.ctl = (uint8_t)ctl,
		.options = OPT_TIMESTAMPS,
		.ts_val = (uint32_t)(p.now.us / 1000),
		.ts_ecr = p.ts_ecr,
		.piece_bytes = len > MSS ? MSS : 0,
		.link_mtu = 1500,
		.ttl = 64,
		.spans_n = len != 0,
		.text = { { text, len } },
	};

	if (ctl & CTL_SYN) {
		s.options |= OPT_MSS | OPT_WSCALE | OPT_SACK_PERMITTED;
		s.mss = 1460;
		s.wscale = 7;
	}
	p.now = vtime_add(p.now, 10);
	engine_input(p.e, p.now, &s, &d);
	p.seq = seq_add(p.seq, seg_len(&s));
	if (d.text.len)
		conn_delivered(p.e, p.now, &d, d.text.len);
	engine_expire(p.e, p.now);
}

static void open_it(unsigned n, bool direct)
{
	p.flow = (struct flow){ { addr_v4(10, 9, 0, 2), 7 },
				{ addr_v4(10, 9, 0, 1), (uint16_t)(FIRST_PORT + n % PORTS) },
				0 };
	p.seq = (seqno){ n * 7919U };
	p.opened = p.closed = false;
	arrives(CTL_SYN, 0);
	take();
	arrives(CTL_ACK, 0);
	take();
	if (!p.opened || (direct && conn_set_direct(p.e, p.id, true)))
		fatal("no connection");
}

static void begin(void)
{
	const struct engine_config cfg = {
		.conns_max = 1000,
		.listeners_max = 1,
		.chunks_max = 4096,
		.segment_bytes_max = 65000,
		.local_port_min = 61000,
		.local_port_max = 61003,
		.secret = { 3, 4 },
		.serial_first = 1,
	};
	struct listener_open open = { .local = { addr_v4(10, 9, 0, 2), 7 }, .backlog = 100 };
	listener_id id;

	p.now.us = 1000000;
	p.e = engine_init(calloc(1, engine_size(&cfg)), &cfg, p.now);
	tcp_params_default(&open.params);
	if (engine_listen(p.e, p.now, &open, &id))
		fatal("no listener");
}

static void receive_segment(void)
{
	arrives(CTL_ACK, MSS);
	take();
}

static void receive_super(void)
{
	arrives(CTL_ACK, SUPER);
	take();
}

static void receive_copied(void)
{
	static uint8_t buf[MSS];
	size_t n;

	arrives(CTL_ACK | CTL_PSH, MSS);
	take();
	if (conn_receive(p.e, p.now, p.id, buf, sizeof(buf), &n) || n != MSS)
		fatal("text did not arrive");
	take();
}

/* All of it; while the congestion window or the send buffer is small, with ACKs in between. */
static void send_octets(size_t len)
{
	static const uint8_t text[SUPER];
	const uint64_t want = p.out_bytes + len;
	size_t taken;

	for (unsigned tries = 0; p.out_bytes < want; tries++) {
		if (tries)
			arrives(CTL_ACK, 0);
		if (tries > 100 || conn_send(p.e, p.now, p.id, text, len, &taken))
			fatal("text was not taken");
		len -= taken;
		take();
	}
}

/* Two segments, which are one ACK. */
static void send_segments(void)
{
	send_octets(MSS);
	send_octets(MSS);
	arrives(CTL_ACK, 0);
	take();
}

static void send_super(void)
{
	send_octets(SUPER);
	arrives(CTL_ACK, 0);
	take();
}

static void pure_ack(void)
{
	arrives(CTL_ACK, 0);
	take();
}

static void request(void)
{
	arrives(CTL_ACK | CTL_PSH, REQUEST);
	send_octets(REQUEST);
}

static void open_close(void)
{
	static unsigned n = 1;

	open_it(n++, false);
	arrives(CTL_FIN | CTL_ACK, 0);
	take();
	if (conn_close(p.e, p.now, p.id, CAUSE_USER))
		fatal("it does not close");
	take();
	arrives(CTL_ACK, 0);
	take();
	if (!p.closed)
		fatal("it did not close");
}

/* direct: text is delivered as it arrives. */
static const struct what {
	const char *name;
	void (*once)(void);
	bool direct;
} all[] = {
	{ "receive", receive_segment, true },
	{ "receive-super", receive_super, true },
	{ "receive-copied", receive_copied, false },
	{ "send", send_segments, true },
	{ "send-super", send_super, true },
	{ "ack", pure_ack, true },
	{ "request", request, true },
	{ "open-close", open_close, false },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 3 && i < sizeof(all) / sizeof(*all); i++) {
		unsigned long n = strtoul(argv[2], NULL, 10);

		if (strcmp(all[i].name, argv[1]) != 0)
			continue;
		begin();
		open_it(0, all[i].direct);
		while (n--)
			all[i].once();
		printf("%llu segments out\n", (unsigned long long)p.out);
		return 0;
	}
	fprintf(stderr, "usage: bench_cost WHAT N; WHAT:");
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		fprintf(stderr, " %s", all[i].name);
	fprintf(stderr, "\n");
	return 2;
}
