/* SPDX-License-Identifier: Apache-2.0 */
/* What somebody can learn or make long who sends what he likes: initial sequence numbers, and the chains of
 * the connection table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/tcb.h"

static struct engine *engine_of(uint32_t conns_max, uint64_t secret, int cookies)
{
	const struct engine_config cfg = {
		.conns_max = conns_max,
		.listeners_max = 1,
		.chunks_max = 2,
		.secret = { secret, 7 },
	};
	const vtime now = { 1000000 };
	struct listener_open open = { .local = { addr_v4(10, 0, 0, 1), 80 }, .backlog = conns_max };
	struct engine *const e = engine_init(calloc(1, engine_size(&cfg)), &cfg, now);
	listener_id id;

	tcp_params_default(&open.params);
	open.params.syn_cookies = cookies;
	assert_int_equal(engine_listen(e, now, &open, &id), 0);
	return e;
}

static struct flow flow_of(uint32_t n)
{
	return (struct flow){ .local = { addr_v4(10, 0, 0, 1), 80 },
			      .remote = { addr_v4(10, 1 + (uint8_t)(n >> 28), (uint8_t)(n >> 20),
						  (uint8_t)(n >> 12 | 1)),
					  (uint16_t)((n & 0x1fff) + 1024) } };
}

/* How often each of the low bits is set in n numbers: none of them may be known beforehand. */
static void assert_unpredictable(const uint32_t *numbers, unsigned n, unsigned bits)
{
	for (unsigned bit = 0; bit < bits; bit++) {
		unsigned set = 0;

		for (unsigned i = 0; i < n; i++)
			set += numbers[i] >> bit & 1;
		assert_in_range(set, n * 2 / 5, n * 3 / 5);
	}
}

enum { SAMPLES = 4000 };

/* RFC 6528: somebody samples the ISNs of his own connections to guess another's. Neighbours differ by nothing
 * that can be known; one flow's moves by one in 4 us and no more.
 */
static void test_rfc6528_isn_sampling(void **state)
{
	static uint32_t steps[SAMPLES];
	struct engine *const e = engine_of(4, 1, 0), *const other = engine_of(4, 2, 0);
	const vtime now = { 5000000 };

	for (unsigned i = 0; i < SAMPLES; i++) {
		const struct flow f = flow_of(i), g = flow_of(i + 1);

		steps[i] = seq_sub(engine_isn(e, &g, now), engine_isn(e, &f, now));
	}
	assert_unpredictable(steps, SAMPLES, 32);
	for (unsigned i = 0; i < SAMPLES; i++) {
		const struct flow f = flow_of(i);

		steps[i] = seq_sub(engine_isn(e, &f, now), engine_isn(other, &f, now));
	}
	assert_unpredictable(steps, SAMPLES, 32);
	for (unsigned i = 0; i < 100; i++) {
		const struct flow f = flow_of(i);

		assert_int_equal(
			seq_sub(engine_isn(e, &f, vtime_add(now, 4000000)), engine_isn(e, &f, now)),
			1000000);
	}
	free(e);
	free(other);
}

/* The same of what SYN-ACKs bring. A cookie's six upper bits, the minute and the MSS, are no secret. */
static void sample_syn_acks(int cookies)
{
	static uint32_t steps[SAMPLES];
	struct engine *const e = engine_of(2 * SAMPLES, 1, cookies);
	seqno last = { 0 };

	for (unsigned i = 0; i < SAMPLES; i++) {
		const struct segment syn = { .flow = flow_of(i), .seq = { 77 }, .ctl = CTL_SYN };
		struct segment out;

		engine_input(e, e->now, &syn, NULL);
		assert_true(engine_output(e, e->now, &out));
		assert_int_equal(out.ctl, CTL_SYN | CTL_ACK);
		steps[i] = seq_sub(out.seq, last);
		last = out.seq;
	}
	assert_unpredictable(steps + 1, SAMPLES - 1, cookies ? 26 : 32);
	free(e);
}

static void test_rfc6528_isn_of_syn_acks(void **state)
{
	sample_syn_acks(TCP_COOKIES_NO);
	sample_syn_acks(TCP_COOKIES_ALWAYS);
}

static unsigned longest_chain(const struct engine *e)
{
	const struct table *const m = &e->tables[BY_FLOW];
	unsigned longest = 0;

	for (uint32_t b = 0; b < m->n; b++) {
		unsigned n = 0;

		for (uint32_t s = m->buckets[b]; s; s = e->slots[s - 1].by[BY_FLOW].next)
			n++;
		longest = n > longest ? n : longest;
	}
	return longest;
}

/* Whoever chooses his addresses and ports makes no chain long: neighbours, equal low bits, equal sums. */
static void test_hash_flooding(void **state)
{
	static const uint32_t strides[] = { 1, 1 << 10, 1 << 13, 0x2001, 0x01000100 };

	for (unsigned k = 0; k < ARRAY_SIZE(strides); k++) {
		struct engine *const e = engine_of(20000, 1, TCP_COOKIES_NO);
		struct segment out;
		struct trace t;

		for (uint32_t i = 0; i < 16384; i++) {
			const uint32_t n = (uint32_t)((uint64_t)i * strides[k] % UINT32_MAX);
			const struct segment syn = { .flow = flow_of(n),
						     .seq = { 77 },
						     .ctl = CTL_SYN };

			engine_input(e, e->now, &syn, NULL);
			while (engine_output(e, e->now, &out))
				;
			while (engine_next_trace(e, &t))
				;
		}
		assert_in_range(longest_chain(e), 1, 12);
		free(e);
	}
}

static void flood(struct engine *e, const struct flow *flows, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct segment syn = { .flow = flows[i], .seq = { 77 }, .ctl = CTL_SYN };
		struct segment out;

		engine_input(e, e->now, &syn, NULL);
		while (engine_output(e, e->now, &out))
			;
	}
	assert_int_equal(e->tables[BY_FLOW].used, n);
}

enum { COLLIDING = 64, COLLIDING_BITS = 0xffff };

/* Flows that somebody has sought out, so that all of them are in one chain, are spread by every other key. The
 * key is the machine's secret: who does not know it seeks in vain.
 */
static void test_hash_flooding_needs_the_key(void **state)
{
	static struct flow flows[COLLIDING];
	struct engine *const known = engine_of(COLLIDING * 2, 1, TCP_COOKIES_NO);
	unsigned found = 0;

	for (uint32_t i = 0; found < COLLIDING; i++) {
		const struct flow f = flow_of(i);

		if ((table_hash(known, &f) & COLLIDING_BITS) == 0)
			flows[found++] = f;
	}
	flood(known, flows, COLLIDING);
	assert_int_equal(longest_chain(known), COLLIDING);
	free(known);
	for (uint64_t secret = 2; secret < 10; secret++) {
		struct engine *const e = engine_of(COLLIDING * 2, secret, TCP_COOKIES_NO);

		flood(e, flows, COLLIDING);
		assert_in_range(longest_chain(e), 1, 8);
		free(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc6528_isn_sampling),
		cmocka_unit_test(test_rfc6528_isn_of_syn_acks),
		cmocka_unit_test(test_hash_flooding),
		cmocka_unit_test(test_hash_flooding_needs_the_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
