/* SPDX-License-Identifier: Apache-2.0 */
/* SYN cookies where a script is too small: floods, guesses, and who has his turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/engine.h"

enum { BACKLOG = 8, CONNS = 1024 };

struct world {
	struct engine *e;
	vtime now;
	uint64_t rng;
};

static uint32_t draw(struct world *w)
{
	w->rng = w->rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(w->rng >> 32);
}

static void begin(struct world *w, int cookies, uint64_t secret)
{
	const struct engine_config cfg = {
		.conns_max = CONNS,
		.listeners_max = 1,
		.chunks_max = 16,
		.secret = { secret, 2 },
	};
	struct listener_open open = { .local = { addr_v4(10, 0, 0, 1), 80 }, .backlog = BACKLOG };
	listener_id id;

	*w = (struct world){ .now = { 1000000 }, .rng = 1 };
	w->e = engine_init(calloc(1, engine_size(&cfg)), &cfg, w->now);
	tcp_params_default(&open.params);
	open.params.syn_cookies = cookies;
	assert_int_equal(engine_listen(w->e, w->now, &open, &id), 0);
}

static void end(struct world *w)
{
	engine_check(w->e);
	free(w->e);
}

static struct segment segment(uint32_t host, uint16_t port, uint8_t ctl, uint32_t seq, uint32_t ack)
{
	return (struct segment){
		.flow = { .local = { addr_v4(10, 0, 0, 1), 80 },
			  .remote = { addr_v4(10, 1, (uint8_t)(host >> 8), (uint8_t)(host | 1)),
				      port } },
		.seq = { seq },
		.ack = { ack },
		.ctl = ctl,
		.wnd = 65535,
		.link_mtu = 1500,
	};
}

static void input(struct world *w, const struct segment *seg)
{
	struct delivery d;

	engine_input(w->e, w->now, seg, &d);
	assert_int_equal(d.text.len, 0);
}

static struct engine_counters counters(const struct world *w)
{
	struct engine_counters c;

	engine_counters(w->e, &c);
	return c;
}

/* What is answered to this flow; the rest is thrown away. False: nothing. */
static bool answer(struct world *w, const struct flow *f, struct segment *ret_seg)
{
	struct segment out;
	bool found = false;

	while (engine_output(w->e, w->now, &out)) {
		if (!flow_eq(&out.flow, f))
			continue;
		*ret_seg = out;
		found = true;
	}
	return found;
}

static void drain(struct world *w)
{
	struct report r;
	struct trace t;

	while (engine_next_report(w->e, &r))
		if (r.kinds & REPORT_CLOSED)
			conn_release(w->e, r.id);
	while (engine_next_trace(w->e, &t))
		;
}

/* A whole handshake. */
static void connect_honestly(struct world *w, uint32_t host, uint16_t port)
{
	struct segment seg = segment(host, port, CTL_SYN, draw(w), 0), out;
	const uint64_t accepted = counters(w).passive_opens;

	input(w, &seg);
	assert_true(answer(w, &seg.flow, &out));
	assert_int_equal(out.ctl, CTL_SYN | CTL_ACK);
	seg.ctl = CTL_ACK;
	seg.seq = out.ack;
	seg.ack = seq_add(out.seq, 1);
	input(w, &seg);
	assert_int_equal(counters(w).passive_opens, accepted + 1);
}

/* 200,000 strangers: the records are what they were, and everybody who is honest gets in. */
static void test_rfc4987_flood(void **state)
{
	struct world w;
	unsigned honest = 0;

	begin(&w, TCP_COOKIES_AUTO, 1);
	for (unsigned i = 0; i < 200000; i++) {
		const struct segment syn = segment(draw(&w), (uint16_t)(1024 + (draw(&w) & 0x7fff)),
						   CTL_SYN, draw(&w), 0);
		struct segment out;

		w.now.us += 5;
		engine_expire(w.e, w.now);
		input(&w, &syn);
		(void)answer(&w, &syn.flow, &out);
		if (i % 1000 == 999)
			connect_honestly(&w, 5, (uint16_t)(40000 + honest++));
		drain(&w);
		assert_true(counters(&w).conns <= BACKLOG + honest);
	}
	assert_int_equal(counters(&w).conns_by_state[ST_ESTABLISHED], 200);
	assert_int_equal(counters(&w).traces_lost, 0);
	assert_int_equal(counters(&w).replies_limited, 0);
	assert_true(counters(&w).syn_cookies_sent > 199000);
	end(&w);
}

/* Nobody pulls traces: what strangers do leaves room for what connections do. */
static void test_flood_leaves_room_for_traces(void **state)
{
	struct segment seg, out;
	struct world w;
	bool seen = false;
	struct report r;
	struct trace t;

	begin(&w, TCP_COOKIES_AUTO, 1);
	connect_honestly(&w, 5, 40000);
	drain(&w);
	for (unsigned i = 0; i < 20000; i++) { /* each takes a record, and gives it up */
		seg = segment(7, (uint16_t)(1024 + i), CTL_SYN, 100, 0);
		input(&w, &seg);
		seg.ctl = CTL_RST;
		seg.seq.v = 101;
		input(&w, &seg);
		(void)answer(&w, &seg.flow, &out);
		while (engine_next_report(w.e, &r))
			conn_release(w.e, r.id);
	}
	connect_honestly(&w, 5, 40001);
	while (engine_next_trace(w.e, &t))
		seen |= t.flow.remote.port == 40001 && t.to == ST_ESTABLISHED;
	assert_true(counters(&w).traces_lost > 0);
	assert_true(seen);
	end(&w);
}

/* Of 2^32 acknowledgements 32 are right: none of these. Half of them are of the last two periods, and so might be of
 * a peer whose first text is late.
 */
static void test_rfc4987_guessing(void **state)
{
	struct segment seg, out;
	unsigned resets = 0;
	struct world w;

	begin(&w, TCP_COOKIES_ALWAYS, 1);
	seg = segment(5, 40000, CTL_SYN, 100, 0);
	input(&w, &seg);
	assert_true(answer(&w, &seg.flow, &out));
	for (unsigned i = 0; i < 200000; i++) {
		seg = segment(5, 40000, CTL_ACK, 101, draw(&w));
		input(&w, &seg);
		if (answer(&w, &seg.flow, &out)) {
			assert_int_equal(out.ctl, CTL_RST);
			resets++;
		}
		drain(&w);
	}
	assert_in_range(resets, 99000, 101000);
	assert_int_equal(counters(&w).syn_cookies_refused, 200000);
	assert_int_equal(counters(&w).conns, 0);
	end(&w);
}

/* A cookie is worth nothing where another secret rules, and for no other port of the peer's. */
static void test_rfc4987_secret_and_flow(void **state)
{
	struct segment seg = segment(5, 40000, CTL_SYN, 100, 0), out, other;
	struct world w, v;

	begin(&w, TCP_COOKIES_ALWAYS, 1);
	begin(&v, TCP_COOKIES_ALWAYS, 3);
	input(&w, &seg);
	assert_true(answer(&w, &seg.flow, &out));
	input(&v, &seg);
	assert_true(answer(&v, &seg.flow, &other));
	assert_int_not_equal(out.seq.v, other.seq.v);
	seg = segment(5, 40000, CTL_ACK, 101, out.seq.v + 1);
	input(&v, &seg);
	seg.flow.remote.port++;
	input(&w, &seg);
	assert_int_equal(counters(&v).syn_cookies_refused, 1);
	assert_int_equal(counters(&w).syn_cookies_refused, 1);
	seg.flow.remote.port--;
	input(&w, &seg);
	assert_int_equal(counters(&w).syn_cookies_accepted, 1);
	end(&v);
	end(&w);
}

/* Answers to strangers and what connections say alternate; a RST finds room beside the cookies. */
static void test_flood_holds_nobody_up(void **state)
{
	struct world w;
	struct segment seg, out;
	unsigned replies = 0, cookies = 0, resets = 0, text = 0, before = 0;
	uint32_t cursor = 0;
	conn_id id;
	size_t n;

	begin(&w, TCP_COOKIES_ALWAYS, 1);
	connect_honestly(&w, 5, 40000);
	assert_true(engine_next_conn(w.e, &cursor, &id));
	assert_int_equal(conn_send(w.e, w.now, id, &(uint8_t[5000]){ 0 }, 5000, &n), 0);
	for (unsigned i = 0; i < 2000; i++) {
		seg = segment(i, 1024, CTL_SYN, 100, 0);
		input(&w, &seg);
	}
	seg = segment(5, 9, CTL_SYN, 100, 0);
	seg.flow.local.port = 9999;
	input(&w, &seg);
	while (engine_output(w.e, w.now, &out)) {
		replies += out.ctl & (CTL_SYN | CTL_RST) ? 1 : 0;
		cookies += out.ctl & CTL_SYN ? 1 : 0;
		resets += out.ctl & CTL_RST ? 1 : 0;
		if (out.spans_n == 0)
			continue;
		text++;
		assert_true(replies <= before + 1);
		before = replies;
	}
	assert_true(text >= 4);
	assert_true(cookies > 100 && cookies < 2000);
	assert_int_equal(resets, 1);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc4987_flood),
		cmocka_unit_test(test_flood_leaves_room_for_traces),
		cmocka_unit_test(test_rfc4987_guessing),
		cmocka_unit_test(test_rfc4987_secret_and_flow),
		cmocka_unit_test(test_flood_holds_nobody_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
