/* SPDX-License-Identifier: Apache-2.0 */
/* Smoothing of round-trip times alone, against RFC 6298's formulas in floating point: short ones must not be
 * lost in rounding.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/tcb.h"

static struct tcp_params params;

struct oracle {
	double srtt, var;
};

static void begin(struct tcb *t)
{
	memset(t, 0, sizeof(*t));
	tcp_params_default(&params);
	params.rto_min_us = 0;
	t->params = &params;
	rtt_open(t);
}

static void oracle_sample(struct oracle *o, double us)
{
	if (o->srtt == 0) {
		*o = (struct oracle){ us, us / 2 };
		return;
	}
	o->var = 0.75 * o->var + 0.25 * fabs(o->srtt - us);
	o->srtt = 0.875 * o->srtt + 0.125 * us;
}

static void assert_within(uint64_t got, double want, double within)
{
	if (!(fabs((double)got - want) <= within))
		fail_msg("%llu, not %.2f within %.2f", (unsigned long long)got, want, within);
}

static void sample(struct tcb *t, struct oracle *o, uint64_t us)
{
	const double slack = 2 + (double)us / 1000000;

	rtt_sample(t, (vtime){ 0 }, us);
	oracle_sample(o, (double)us);
	assert_within(rtt_smoothed_us(t), o->srtt, slack);
	assert_within(rtt_variation_us(t), o->var, slack);
	assert_within(rtt_rto_us(t), fmin(o->srtt + fmax(1000, 4 * o->var), 60e6), 5 * slack);
}

/* A mean over many must be theirs, to a part of a microsecond: no bias. */
static void test_rfc6298_2_3_no_bias(void **state)
{
	static const unsigned ranges[][2] = { { 1, 3 }, { 4, 9 }, { 20, 60 }, { 900, 1100 } };
	uint32_t x = 12345;

	(void)state;
	for (unsigned k = 0; k < 4; k++) {
		struct oracle o = { 0, 0 };
		double sum = 0, want = 0;
		struct tcb t;

		begin(&t);
		for (unsigned i = 0; i < 20000; i++) {
			x = (uint32_t)((x * 1103515245ULL + 12345) & UINT32_MAX);
			sample(&t, &o,
			       ranges[k][0] + (x >> 16) % (ranges[k][1] - ranges[k][0] + 1));
			sum += t.rtt.srtt_8 / 8.0;
			want += o.srtt;
		}
		if (!(fabs(sum - want) < 20000 * 0.1))
			fail_msg("%u to %u us: %.3f on average, not %.3f", ranges[k][0],
				 ranges[k][1], sum / 20000, want / 20000);
	}
}

/* What is steady comes out as it is, from below and from above, and its variation is nothing. */
static void test_rfc6298_2_3_steady(void **state)
{
	(void)state;
	for (uint64_t us = 1; us < 3000; us += us < 20 ? 1 : 97) {
		for (unsigned above = 0; above < 2; above++) {
			struct oracle o = { 0, 0 };
			struct tcb t;

			begin(&t);
			sample(&t, &o, above ? 5000 : 1);
			for (unsigned i = 0; i < 200; i++)
				sample(&t, &o, us);
			assert_int_equal(rtt_smoothed_us(&t), us);
			assert_int_equal(rtt_variation_us(&t), 0);
			assert_int_equal(t.rtt.min_us, above ? us : 1);
		}
	}
}

/* RFC 8985 6.2 step 1: the least of the last minutes, in stretches of 150 s. */
static void test_rfc8985_6_2_least_of_some_minutes(void **state)
{
	static const struct {
		unsigned s, us, least;
	} steps[] = {
		{ 1, 900, 900 },   { 2, 500, 500 },
		{ 149, 800, 500 }, { 151, 700, 500 }, /* the last stretch counts */
		{ 299, 650, 500 }, { 300, 800, 650 }, /* no more: the one behind it does */
		{ 600, 900, 900 }, /* after a pause none does */
		{ 749, 950, 900 }, { 751, 990, 900 },
		{ 900, 995, 990 }, { 901, 100, 100 },
	};
	struct tcb t;

	(void)state;
	begin(&t);
	t.created_at.us = 7000000;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		rtt_sample(&t, vtime_add(t.created_at, steps[i].s * 1000000ULL), steps[i].us);
		assert_int_equal(t.rtt.min_us, steps[i].least);
	}
}

static void test_extremes(void **state)
{
	struct oracle o = { 0, 0 };
	struct tcb t;

	(void)state;
	begin(&t);
	rtt_sample(&t, (vtime){ 0 }, 0); /* the clock stood still */
	assert_int_equal(rtt_smoothed_us(&t), 1);
	begin(&t);
	assert_int_equal(rtt_smoothed_us(&t), 0);
	sample(&t, &o, 1 << 28);
	sample(&t, &o, 1);
	sample(&t, &o, 1 << 28);
	begin(&t);
	rtt_sample(&t, (vtime){ 0 }, UINT64_MAX);
	rtt_sample(&t, (vtime){ 0 }, UINT64_MAX);
	assert_int_equal(rtt_smoothed_us(&t), 1 << 28);
	assert_int_equal(rtt_rto_us(&t), params.rto_max_us);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc6298_2_3_no_bias),
		cmocka_unit_test(test_rfc6298_2_3_steady),
		cmocka_unit_test(test_rfc8985_6_2_least_of_some_minutes),
		cmocka_unit_test(test_extremes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
