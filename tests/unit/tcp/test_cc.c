/* SPDX-License-Identifier: Apache-2.0 */
/* The congestion controllers alone, on a TCB without a connection: CUBIC against RFC 9438's formulas in
 * floating point, the phases of HyStart++ (RFC 9406), what is no growth, and undoing.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/tcb.h"

static const double C = 0.4, BETA = 0.7;

static struct tcp_params params;

static void begin(struct tcb *t, int algorithm, uint32_t mss, uint32_t rtt_us)
{
	memset(t, 0, sizeof(*t));
	tcp_params_default(&params);
	params.congestion_control = algorithm;
	t->params = &params;
	t->snd.mss = mss;
	t->rtt.srtt_8 = 8 * rtt_us;
	cc_open(t);
}

/* In use: the window was full. */
static void ack(struct tcb *t, uint32_t n, uint64_t now_us)
{
	t->cc.ops->on_ack(t, n, (vtime){ now_us }, true);
}

static void assert_near(double got, double want, double within)
{
	if (!(fabs(got - want) <= within))
		fail_msg("%.1f, not %.1f within %.1f", got, want, within);
}

/* RFC 9438 in floating point, by the ACK; windows in segments, time in seconds. */
struct oracle {
	double cwnd, w_max, prior, k, w_est, epoch;
};

static void oracle_begin(struct oracle *o, double now)
{
	o->epoch = now;
	o->k = o->w_max > o->cwnd ? cbrt((o->w_max - o->cwnd) / C) : 0;
	if (o->w_max < o->cwnd)
		o->w_max = o->cwnd;
	o->w_est = o->cwnd;
}

static double oracle_cubic(const struct oracle *o, double t)
{
	return C * pow(t - o->k, 3) + o->w_max;
}

static void oracle_ack(struct oracle *o, double segments, double now, double rtt)
{
	const double t = now - o->epoch;
	const double alpha = o->w_est < o->prior ? 3 * (1 - BETA) / (1 + BETA) : 1;

	o->w_est += alpha * segments / o->cwnd;
	if (oracle_cubic(o, t) < o->w_est) {
		o->cwnd = fmax(o->cwnd, o->w_est);
	} else {
		const double w = oracle_cubic(o, t + rtt);
		const double target = fmin(fmax(w, o->cwnd), 1.5 * o->cwnd);

		o->cwnd += (target - o->cwnd) / o->cwnd * segments;
	}
}

/* From a loss at `cwnd` segments for `seconds`, an ACK for every `per_ack` segments. */
static void follow(uint32_t mss, uint32_t cwnd, uint32_t rtt_us, double seconds, unsigned per_ack)
{
	struct tcb t;
	struct oracle o = { .w_max = cwnd, .prior = cwnd, .cwnd = cwnd * BETA };
	double now = 1;

	begin(&t, TCP_CC_CUBIC, mss, rtt_us);
	t.cc.cwnd = cwnd * mss;
	t.cc.cwnd = t.cc.ssthresh = t.cc.ops->ssthresh(&t, cwnd * mss);
	assert_near((double)t.cc.cwnd / mss, o.cwnd, 1);
	o.cwnd = (double)t.cc.cwnd / mss;
	oracle_begin(&o, now);
	while (now < 1 + seconds) {
		ack(&t, per_ack * mss, (uint64_t)(now * 1e6));
		oracle_ack(&o, per_ack, now, rtt_us / 1e6);
		/* A tick of the clock is worth this much where the curve is steepest. */
		assert_near((double)t.cc.cwnd / mss, o.cwnd, 1 + o.cwnd * 0.004);
		now += per_ack * (rtt_us / 1e6) / o.cwnd;
	}
	assert_true(t.cc.cwnd > cwnd * mss * BETA);
}

static void test_rfc9438_window_follows_the_formula(void **state)
{
	follow(1460, 100, 100000, 20, 1);
	follow(1460, 100, 100000, 20, 2);
	follow(1448, 2000, 100000, 40, 20);
	follow(1448, 2000, 300000, 40, 10);
	follow(1448, 50, 10000, 20, 2); /* Reno-friendly */
	follow(1448, 10, 1000, 5, 1);
	follow(100, 500, 50000, 20, 2);
	follow(9000, 5000, 50000, 30, 50);
	follow(65483, 300, 20000, 20, 1);
}

/* K, where the window is w_max again, and the plateau around it. */
static void test_rfc9438_4_2_plateau_at_k(void **state)
{
	const double k = cbrt(1000 * (1 - BETA) / C);
	struct tcb t;
	uint64_t now = 1000000;

	begin(&t, TCP_CC_CUBIC, 1000, 50000);
	t.cc.cwnd = 1000000;
	t.cc.cwnd = t.cc.ssthresh = t.cc.ops->ssthresh(&t, 1000000);
	assert_int_equal(t.cc.cwnd, 700000);
	ack(&t, 1000, now);
	assert_near(t.cc.cubic.curve.k / 1024.0, k, 0.002);
	for (; now < 1000000 + (uint64_t)(k * 1e6); now += 100)
		ack(&t, 2000, now);
	assert_near(t.cc.cwnd, 1000000, 1000);
}

static void test_rfc9438_4_7_fast_convergence(void **state)
{
	struct tcb t;

	begin(&t, TCP_CC_CUBIC, 1000, 50000);
	t.cc.cwnd = 100000;
	t.cc.cwnd = t.cc.ops->ssthresh(&t, 100000);
	assert_int_equal(t.cc.cubic.curve.w_max, 100000);
	t.cc.cwnd = t.cc.ops->ssthresh(&t, 70000); /* w_max was not reached */
	assert_int_equal(t.cc.cwnd, 49000);
	assert_int_equal(t.cc.cubic.curve.w_max, 59500);
	t.cc.cwnd = 60000;
	(void)t.cc.ops->ssthresh(&t, 60000);
	assert_int_equal(t.cc.cubic.curve.w_max, 60000);
}

static void test_reductions(void **state)
{
	struct tcb t;

	begin(&t, TCP_CC_CUBIC, 1000, 50000);
	assert_int_equal(t.cc.ops->ssthresh(&t, 100000), 70000);
	assert_int_equal(t.cc.ops->ssthresh_ecn(&t, 100000), 85000); /* RFC 8511 */
	assert_int_equal(t.cc.ops->ssthresh(&t, 1000), 2000);
	assert_int_equal(t.cc.ops->ssthresh_ecn(&t, 0), 2000);
	begin(&t, TCP_CC_NEWRENO, 1000, 50000);
	assert_int_equal(t.cc.ops->ssthresh(&t, 100000), 50000);
	assert_int_equal(t.cc.ops->ssthresh_ecn(&t, 100000), 80000); /* RFC 8511 */
	assert_int_equal(t.cc.ops->ssthresh(&t, 1000), 2000);
	assert_int_equal(t.cc.ops->ssthresh_ecn(&t, 0), 2000);
}

/* RFC 9438 4.8: after a timeout the curve begins at the window that slow start reached. */
static void test_rfc9438_4_8_after_a_timeout(void **state)
{
	struct tcb t;

	begin(&t, TCP_CC_CUBIC, 1000, 50000);
	t.cc.cwnd = 100000;
	t.cc.ssthresh = t.cc.ops->ssthresh(&t, 100000);
	t.cc.ops->on_rto(&t);
	t.cc.cwnd = 1000;
	for (uint64_t now = 1000000; t.cc.cwnd < t.cc.ssthresh; now += 1000)
		ack(&t, 1000, now);
	assert_int_equal(t.cc.cwnd, 70000);
	ack(&t, 1000, 2000000);
	assert_int_equal(t.cc.cubic.curve.k, 0);
	assert_int_equal(t.cc.cubic.curve.w_max, 70000);
	ack(&t, 70000, 4000000); /* two seconds on: 0.4 * 8 segments, and a round trip ahead */
	assert_near(t.cc.cwnd, 73200, 500);
}

/* RFC 9438 4.2: "if W_cubic(t + RTT) > 1.5 * cwnd, target = 1.5 * cwnd": a window is not passed by half of it in
 * one round trip, however far the curve has gone meanwhile.
 */
static void test_rfc9438_4_2_target_is_limited(void **state)
{
	struct tcb t;

	begin(&t, TCP_CC_CUBIC, 1000, 50000);
	t.cc.cwnd = 100000;
	t.cc.cwnd = t.cc.ssthresh = t.cc.ops->ssthresh(&t, 100000);
	ack(&t, 1000, 1000000);
	t.cc.cwnd = 70000;
	ack(&t, 70000, 60000000);
	assert_int_equal(t.cc.cwnd, 105000);
}

/* RFC 9438 4.2: t does not count pauses, nor what passes while something else is the limit. */
static void test_pauses_do_not_count(void **state)
{
	struct tcb t, u;

	begin(&t, TCP_CC_CUBIC, 1000, 50000);
	t.cc.cwnd = 1000000;
	t.cc.cwnd = t.cc.ssthresh = t.cc.ops->ssthresh(&t, 1000000);
	ack(&t, 1000, 1000000);
	ack(&t, 1000, 2000000);
	u = t;
	u.cc.ops->on_idle_end(&u, (vtime){ 60000000 });
	ack(&t, 1000, 3000000);
	ack(&u, 1000, 61000000);
	assert_int_equal(u.cc.cwnd, t.cc.cwnd);
	u.cc.ops->on_ack(&u, 1000, (vtime){ 90000000 }, false);
	assert_int_equal(u.cc.cwnd, t.cc.cwnd);
	ack(&t, 1000, 4000000);
	ack(&u, 1000, 91000000);
	assert_int_equal(u.cc.cwnd, t.cc.cwnd);
	ack(&u, 1000, 95000000); /* while these do */
	assert_true(u.cc.cwnd > t.cc.cwnd);
}

static void test_rfc9438_4_9_undo(void **state)
{
	struct tcb t;
	struct cubic_curve before;

	begin(&t, TCP_CC_CUBIC, 1000, 50000);
	t.cc.cwnd = 1000000;
	t.cc.cwnd = t.cc.ssthresh = t.cc.ops->ssthresh(&t, 1000000);
	ack(&t, 1000, 1000000);
	before = t.cc.cubic.curve;
	(void)t.cc.ops->ssthresh(&t, 700000);
	t.cc.ops->on_rto(&t);
	assert_int_not_equal(t.cc.cubic.curve.w_max, before.w_max);
	t.cc.ops->on_undo(&t);
	assert_memory_equal(&t.cc.cubic.curve, &before, sizeof(before));
}

/* Whatever comes, the window stays in its limits. */
static void test_extremes(void **state)
{
	static const uint32_t mss[] = { 36, 536, 1460, 65483 };
	struct tcb t;

	for (size_t i = 0; i < sizeof(mss) / sizeof(mss[0]); i++) {
		begin(&t, TCP_CC_CUBIC, mss[i], 600000000);
		t.cc.cwnd = CC_WINDOW_MAX;
		t.cc.cwnd = t.cc.ssthresh = t.cc.ops->ssthresh(&t, CC_WINDOW_MAX);
		for (uint64_t now = 1; now < UINT64_MAX / 32; now *= 3) {
			const uint32_t was = t.cc.cwnd;

			ack(&t, CC_WINDOW_MAX, now);
			t.cc.cwnd = min_u32(t.cc.cwnd, CC_WINDOW_MAX);
			assert_true(t.cc.cwnd >= was);
		}
		assert_int_equal(t.cc.cwnd, CC_WINDOW_MAX);
	}
}

/* One round trip: `n` segments go out, spread over half of it, and come back after rtt_us each. */
static void round_trip(struct engine *e, struct tcb *t, unsigned n, uint32_t rtt_us)
{
	const uint64_t start = e->now.us;

	for (unsigned i = 0; i < n; i++) {
		e->now.us = start + (uint64_t)i * (rtt_us / 2 / n);
		t->snd.nxt = seq_add(t->snd.nxt, t->snd.mss);
		cc_sent(e, t, i == 0);
	}
	for (unsigned i = 0; i < n; i++) {
		e->now.us = start + rtt_us + (uint64_t)i * (rtt_us / 2 / n);
		t->snd.una = seq_add(t->snd.una, t->snd.mss);
		cc_acked(e, t, t->snd.mss);
	}
}

static struct engine *engine_at(uint64_t us)
{
	struct engine *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	e->now.us = us;
	return e;
}

/* RFC 9406 4.2: a delay that grows by an eighth, 4 to 16 ms, ends slow start softly. */
static void test_rfc9406_phases(void **state)
{
	struct engine *const e = engine_at(1000000);
	struct tcb t;
	uint32_t cwnd;

	begin(&t, TCP_CC_CUBIC, 1000, 100000);
	for (unsigned i = 0; i < 4; i++)
		round_trip(e, &t, t.cc.cwnd / 1000, 100000);
	assert_int_equal(t.cc.cwnd, 160000);
	round_trip(e, &t, t.cc.cwnd / 1000, 111000); /* the threshold is an eighth */
	assert_false(t.cc.hystart.css);
	round_trip(e, &t, t.cc.cwnd / 1000, 126000);
	assert_true(t.cc.hystart.css);
	cwnd = t.cc.cwnd;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(t.cc.ssthresh, CC_WINDOW_MAX);
		cwnd += (t.cc.cwnd / 1000) * 250;
		round_trip(e, &t, t.cc.cwnd / 1000, 126000);
		assert_int_equal(t.cc.cwnd, cwnd);
	}
	round_trip(e, &t, t.cc.cwnd / 1000, 126000);
	assert_true(t.cc.ssthresh < CC_WINDOW_MAX && !t.cc.hystart.on);
	free(e);
}

static void test_rfc9406_css_was_a_mistake(void **state)
{
	struct engine *const e = engine_at(1000000);
	struct tcb t;
	uint32_t cwnd;

	begin(&t, TCP_CC_CUBIC, 1000, 100000);
	for (unsigned i = 0; i < 3; i++)
		round_trip(e, &t, t.cc.cwnd / 1000, 100000);
	round_trip(e, &t, t.cc.cwnd / 1000, 150000);
	assert_true(t.cc.hystart.css);
	round_trip(e, &t, t.cc.cwnd / 1000, 100000);
	assert_false(t.cc.hystart.css);
	cwnd = t.cc.cwnd;
	round_trip(e, &t, t.cc.cwnd / 1000, 100000);
	assert_near(t.cc.cwnd, 2.0 * cwnd, 1000);
	free(e);
}

/* Too few samples say nothing, nor do a few ms on a short path. */
static void test_rfc9406_what_is_no_sign(void **state)
{
	struct engine *const e = engine_at(UINT32_MAX - 2000); /* low bits of the clock wrap */
	struct tcb t;

	begin(&t, TCP_CC_CUBIC, 1000, 10000);
	t.cc.cwnd = 7000;
	round_trip(e, &t, 7, 10000);
	t.cc.cwnd = 7000;
	round_trip(e, &t, 7, 50000);
	assert_false(t.cc.hystart.css);
	begin(&t, TCP_CC_CUBIC, 1000, 1000);
	for (unsigned i = 0; i < 4; i++)
		round_trip(e, &t, t.cc.cwnd / 1000, 1000 + i * 1300);
	assert_false(t.cc.hystart.css);
	assert_int_equal(t.cc.cwnd, 160000);
	free(e);
}

/* Only the first slow start is HyStart++'s; NewReno's never is. */
static void test_rfc9406_initial_slow_start_only(void **state)
{
	struct engine *const e = engine_at(1000000);
	struct tcb t;

	begin(&t, TCP_CC_NEWRENO, 1000, 100000);
	for (unsigned i = 0; i < 5; i++)
		round_trip(e, &t, t.cc.cwnd / 1000, 100000 + 50000 * i);
	assert_int_equal(t.cc.cwnd, 320000);
	begin(&t, TCP_CC_CUBIC, 1000, 100000);
	t.cc.ssthresh = t.cc.ops->ssthresh(&t, 400000);
	t.cc.cwnd = 10000;
	for (unsigned i = 0; i < 4; i++)
		round_trip(e, &t, t.cc.cwnd / 1000, 100000 + 50000 * i);
	assert_int_equal(t.cc.cwnd, 160000);
	free(e);
}

/* RFC 7661 in spirit: what is not used does not grow. */
static void test_rfc7661_unused_window_does_not_grow(void **state)
{
	struct engine *const e = engine_at(1000000);
	struct tcb t;

	for (int algorithm = TCP_CC_CUBIC; algorithm <= TCP_CC_NEWRENO; algorithm++) {
		begin(&t, algorithm, 1000, 100000);
		for (unsigned i = 0; i < 10; i++)
			round_trip(e, &t, 4, 100000);
		assert_int_equal(t.cc.cwnd, 10000); /* slow start: 4 is less than half */
		t.cc.cwnd = t.cc.ssthresh = 20000;
		for (unsigned i = 0; i < 50; i++)
			round_trip(e, &t, 15, 100000);
		assert_int_equal(t.cc.cwnd, 20000);
		for (unsigned i = 0; i < 50; i++)
			round_trip(e, &t, t.cc.cwnd / 1000, 100000);
		assert_true(t.cc.cwnd > 40000);
	}
	free(e);
}

/* RFC 5681 4.1 and RFC 7661 4.4.3: slow start, but to three quarters of what was proven. */
static void test_window_after_a_pause(void **state)
{
	struct engine *const e = engine_at(100000000);
	struct tcb t;

	begin(&t, TCP_CC_CUBIC, 1000, 100000);
	t.rtt.rto_us = 200000;
	params.rto_max_us = 60000000;
	t.cc.cwnd = 100000;
	t.cc.ssthresh = 40000;
	t.snd.last_at.us = e->now.us - 200000;
	cc_idle(e, &t);
	assert_int_equal(t.cc.cwnd, 100000);
	t.snd.last_at.us--;
	t.snd.nxt = seq_add(t.snd.una, 1); /* something is outstanding: no pause */
	cc_idle(e, &t);
	assert_int_equal(t.cc.cwnd, 100000);
	t.snd.nxt = t.snd.una;
	cc_idle(e, &t);
	assert_int_equal(t.cc.cwnd, 10000);
	assert_int_equal(t.cc.ssthresh, 75000);
	cc_idle(e, &t);
	assert_int_equal(t.cc.ssthresh, 75000);
	t.cc.cwnd = 5000; /* smaller than the initial one: it stays */
	cc_idle(e, &t);
	assert_int_equal(t.cc.cwnd, 5000);
	free(e);
}

static void test_choice_in_mid_connection(void **state)
{
	struct tcb t;

	begin(&t, TCP_CC_CUBIC, 1000, 100000);
	assert_string_equal(t.cc.ops->name, "cubic");
	t.cc.cwnd = t.cc.ssthresh = 50000;
	params.congestion_control = TCP_CC_NEWRENO;
	cc_choose(&t);
	assert_string_equal(t.cc.ops->name, "newreno");
	assert_int_equal(t.cc.cwnd, 50000);
	ack(&t, 50000, 1000000);
	assert_int_equal(t.cc.cwnd, 51000);
	params.congestion_control = TCP_CC_CUBIC;
	cc_choose(&t);
	ack(&t, 1000, 2000000);
	assert_int_equal(t.cc.cubic.curve.w_max, 51000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc9438_window_follows_the_formula),
		cmocka_unit_test(test_rfc9438_4_2_plateau_at_k),
		cmocka_unit_test(test_rfc9438_4_7_fast_convergence),
		cmocka_unit_test(test_reductions),
		cmocka_unit_test(test_rfc9438_4_8_after_a_timeout),
		cmocka_unit_test(test_rfc9438_4_2_target_is_limited),
		cmocka_unit_test(test_pauses_do_not_count),
		cmocka_unit_test(test_rfc9438_4_9_undo),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_rfc9406_phases),
		cmocka_unit_test(test_rfc9406_css_was_a_mistake),
		cmocka_unit_test(test_rfc9406_what_is_no_sign),
		cmocka_unit_test(test_rfc9406_initial_slow_start_only),
		cmocka_unit_test(test_rfc7661_unused_window_does_not_grow),
		cmocka_unit_test(test_window_after_a_pause),
		cmocka_unit_test(test_choice_in_mid_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
