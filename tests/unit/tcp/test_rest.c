/* SPDX-License-Identifier: Apache-2.0 */
/* Many connections: quiet ones go to rest and cost little, what is not used is given back, and each is
 * still itself when it wakes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/tcb.h"

enum { CONNS = 50000, CACHE = 1000 };

struct world {
	struct engine *e;
	vtime now;
	struct tcp_params params;
	uint32_t irs;
};

static void begin(struct world *w, uint32_t working_max)
{
	const struct engine_config cfg = {
		.conns_max = CONNS + CONNS / 8, /* the last sixteenth is not for SYNs */
		.listeners_max = 1,
		.chunks_max = 2000,
		.working_max = working_max,
		.working_cache = CACHE,
		.secret = { 5, 6 },
		.serial_first = 1,
	};
	struct listener_open open = { .local = { addr_v4(10, 0, 0, 1), 7 }, .backlog = 16 };
	void *const mem = aligned_alloc(4096, (engine_size(&cfg) + 4095) / 4096 * 4096);
	listener_id id;

	assert_non_null(mem);
	memset(mem, 0, engine_size(&cfg));
	*w = (struct world){ .now = { 1000000 }, .irs = 4000 };
	w->e = engine_init(mem, &cfg, w->now);
	tcp_params_default(&open.params);
	assert_int_equal(engine_listen(w->e, w->now, &open, &id), 0);
}

static struct flow flow_of(uint32_t n, bool v6)
{
	struct flow f = { .local = { addr_v4(10, 0, 0, 1), 7 },
			  .remote = { addr_v4(10, 1, (uint8_t)(n >> 14), 1),
				      (uint16_t)(1024 + (n & 0x3fff)) } };

	if (v6) {
		(void)addr_parse("2001:db8::1", &f.local.addr);
		(void)addr_parse("2001:db8::2", &f.remote.addr);
	}
	return f;
}

static void put(struct world *w, uint32_t n, uint8_t ctl, uint32_t seq, seqno ack, uint32_t text)
{
	static const uint8_t zeros[100];
	struct segment s = {
		.flow = flow_of(n, false),
		.seq = { w->irs + seq },
		.ack = ack,
		.ctl = ctl,
		.wnd = 60000,
		.options = OPT_TIMESTAMPS,
		.ts_val = 1000,
		.ts_ecr = 1,
		.ttl = 64,
		.link_mtu = 1500,
		.spans_n = text > 0,
		.text = { { zeros, text } },
	};
	struct delivery d;

	if (ctl & CTL_SYN) {
		s.options |= OPT_MSS | OPT_WSCALE | OPT_SACK_PERMITTED;
		s.mss = 1460;
		s.wscale = 7;
	}
	engine_input(w->e, w->now, &s, &d);
}

/* The last segment sent; the reports are taken. */
static bool pump(struct world *w, struct segment *ret)
{
	struct report r;
	struct trace t;
	bool any = false;

	while (engine_next_report(w->e, &r)) {
		char buf[200];
		size_t n;

		if (r.kinds & REPORT_READABLE) /* echo */
			if (!conn_receive(w->e, w->now, r.id, buf, sizeof(buf), &n) && n)
				assert_int_equal(conn_send(w->e, w->now, r.id, buf, n, &n), 0);
		if (r.kinds & REPORT_CLOSED)
			conn_release(w->e, r.id);
	}
	while (engine_output(w->e, w->now, ret))
		any = true;
	while (engine_next_trace(w->e, &t))
		;
	return any;
}

static seqno open_conn(struct world *w, uint32_t n)
{
	struct segment s;

	put(w, n, CTL_SYN, 0, (seqno){ 0 }, 0);
	assert_true(pump(w, &s));
	assert_int_equal(s.ctl, CTL_SYN | CTL_ACK);
	put(w, n, CTL_ACK, 1, seq_add(s.seq, 1), 0);
	(void)pump(w, &s);
	return seq_add(s.seq, 1);
}

static uint64_t resting_each(const struct world *w)
{
	struct engine_counters c;

	engine_counters(w->e, &c);
	return c.resting_bytes / c.conns_resting;
}

static void test_many_idle_connections(void **state)
{
	seqno *const nxt = calloc(CONNS, sizeof(*nxt));
	struct engine_counters c;
	struct segment s;
	struct world w;
	unsigned returned = 0;
	size_t bytes;
	void *p;

	begin(&w, 0);
	for (uint32_t n = 0; n < CONNS; n++) {
		w.now = vtime_add(w.now, 10);
		nxt[n] = open_conn(&w, n);
	}
	engine_counters(w.e, &c);
	assert_int_equal(c.conns, CONNS);
	/* The cache is no hard limit, but who is quiet does not stay beyond it. */
	assert_in_range(w.e->tcbs.used, 1, CACHE + 1);
	engine_check(w.e);
	/* After two rounds nobody works. */
	for (vtime at = w.now; at.us != VTIME_NEVER.us; w.now = at)
		at = vtime_min(engine_rest(w.e, w.now), VTIME_NEVER);
	w.now = vtime_add(w.e->now, 1);
	assert_int_equal(w.e->tcbs.used, 0);
	assert_in_range(resting_each(&w), 100, 180); /* an octet more is much, times a million */
	printf("%llu octets at rest\n", (unsigned long long)resting_each(&w));
	/* Each answers, and rests again. */
	for (uint32_t n = 0; n < CONNS; n += 7) {
		put(&w, n, CTL_ACK | CTL_PSH, 1, nxt[n], 100);
		assert_true(pump(&w, &s));
		assert_int_equal(seg_text_len(&s), 100);
		assert_int_equal(s.ack.v, w.irs + 101);
		nxt[n] = seq_add(nxt[n], 100);
		put(&w, n, CTL_ACK, 101, nxt[n], 0);
		(void)pump(&w, &s);
	}
	engine_rest_all(w.e);
	engine_check(w.e);
	assert_int_equal(w.e->tcbs.used, 0);
	assert_in_range(resting_each(&w), 100, 180);
	/* All go: the memory with them. */
	for (uint32_t n = 0; n < CONNS; n++) {
		put(&w, n, CTL_RST, n % 7 ? 1 : 101, (seqno){ 0 }, 0);
		(void)pump(&w, &s);
	}
	engine_counters(w.e, &c);
	assert_int_equal(c.conns, 0);
	assert_false(engine_next_unused(w.e, &p, &bytes)); /* it was in use a moment ago */
	while (engine_next_unused(w.e, &p, &bytes)) {
		memset(p, 0xaa, bytes);
		returned++;
	}
	assert_true(returned > CONNS * 160 / SLAB_BYTES);
	assert_true(w.e->rests.empty_n <= 16 && w.e->tcbs.empty_n <= 16);
	(void)open_conn(&w, 1);
	engine_check(w.e);
	free(w.e);
	free(nxt);
}

/* 40 octets of addresses cost what they are. */
static void test_ipv6_costs_little_more(void **state)
{
	struct world w;
	struct conn_open open = { .flow = flow_of(0, true), .link_mtu = 1500 };
	struct segment s;
	conn_id id;

	begin(&w, 0);
	tcp_params_default(&open.params);
	open.flow.local.port = 9;
	assert_int_equal(engine_connect(w.e, w.now, &open, &id), 0);
	assert_true(engine_output(w.e, w.now, &s));
	s.ack = seq_add(s.seq, 1);
	s.seq = (seqno){ 77 };
	s.ctl = CTL_SYN | CTL_ACK;
	s.ts_ecr = s.ts_val;
	engine_input(w.e, w.now, &s, NULL);
	(void)pump(&w, &s);
	engine_rest_all(w.e);
	assert_int_equal(w.e->rests.used, 1);
	assert_in_range(resting_each(&w), 100, 256);
	free(w.e);
}

/* A round finds who was not busy since the last; who is busy stays. */
static void test_rounds(void **state)
{
	struct segment s;
	struct world w;
	seqno nxt[2];
	vtime at;

	begin(&w, 0);
	assert_int_equal(engine_rest(w.e, w.now).us, VTIME_NEVER.us); /* nobody is there */
	nxt[0] = open_conn(&w, 0);
	nxt[1] = open_conn(&w, 1);
	at = engine_rest(w.e, w.now);
	assert_true(at.us > w.now.us && at.us <= w.now.us + 1000000);
	assert_int_equal(w.e->tcbs.used, 2);
	put(&w, 0, CTL_ACK | CTL_PSH, 1, nxt[0], 100);
	(void)pump(&w, &s);
	put(&w, 0, CTL_ACK, 101, seq_add(nxt[0], 100), 0);
	(void)pump(&w, &s);
	w.now = at;
	at = engine_rest(w.e, w.now); /* 1 was quiet, 0 was not */
	assert_int_equal(w.e->tcbs.used, 1);
	assert_int_equal(w.e->rests.used, 1);
	w.now = at;
	at = engine_rest(w.e, w.now);
	assert_int_equal(w.e->tcbs.used, 0);
	assert_int_equal(at.us, VTIME_NEVER.us);
	free(w.e);
}

/* A timer that was set back leaves the node where it was: when that falls due nobody wakes for it. */
static void test_a_stale_timer_wakes_nobody(void **state)
{
	struct engine_counters c;
	struct world w;
	uint64_t wakes;

	begin(&w, 0);
	(void)open_conn(&w, 0); /* the handshake's user timeout had the node */
	engine_rest_all(w.e);
	engine_counters(w.e, &c);
	wakes = c.wakes;
	assert_true(vtime_is_set(engine_deadline(w.e)));
	w.now = vtime_add(w.now, 1000000000);
	engine_expire(w.e, w.now);
	engine_counters(w.e, &c);
	assert_int_equal(c.wakes, wakes);
	assert_int_equal(engine_deadline(w.e).us, VTIME_NEVER.us);
	free(w.e);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_idle_connections),
		cmocka_unit_test(test_ipv6_costs_little_more),
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_a_stale_timer_wakes_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
