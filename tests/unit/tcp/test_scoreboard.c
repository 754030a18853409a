/* SPDX-License-Identifier: Apache-2.0 */
/* The scoreboard against a naive one: a byte for each octet in flight. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/scoreboard.h"

enum { SPACE = 4000, RUNS = 300 };

struct model {
	uint8_t is[SPACE]; /* enum run_is */
	uint32_t una, nxt;
	uint32_t arrived, seen;
	seqno base;
};

static uint32_t below(uint32_t *s, uint32_t n)
{
	*s = (uint32_t)(*s * 1664525ULL + 1013904223ULL);
	return n ? (uint32_t)((uint64_t)(*s >> 8) * n >> 24) : 0;
}

static void arrived(void *arg, const struct run *r)
{
	((struct model *)arg)->seen += seq_sub(r->right, r->left);
}

static void compare(const struct runs *m, const struct scoreboard *b, const struct model *o)
{
	uint32_t sacked = 0, lost = 0;

	scoreboard_check(m, b, seq_add(o->base, o->una), seq_add(o->base, o->nxt));
	for (uint32_t i = o->una; i < o->nxt; i++) {
		sacked += o->is[i] & RUN_SACKED ? 1 : 0;
		lost += o->is[i] & RUN_LOST ? 1 : 0;
	}
	assert_true(seq_in(b->fack, seq_add(o->base, o->una), o->nxt - o->una + 1));
	assert_int_equal(b->sacked, sacked);
	assert_int_equal(b->lost, lost);
	assert_int_equal(o->seen, o->arrived);
	for (uint32_t id = b->head; id; id = run_at(m, id)->next) {
		const struct run *r = run_at(m, id);

		for (uint32_t i = seq_sub(r->left, o->base); i < seq_sub(r->right, o->base); i++)
			assert_int_equal(r->is & (RUN_SACKED | RUN_LOST),
					 o->is[i] & (RUN_SACKED | RUN_LOST));
	}
}

static void do_sack(struct runs *m, struct scoreboard *b, struct model *o, uint32_t *s)
{
	const uint32_t from = o->una + below(s, o->nxt - o->una);
	const uint32_t to = from + 1 + below(s, o->nxt - from);

	for (uint32_t i = from; i < to; i++) {
		o->arrived += o->is[i] & RUN_SACKED ? 0 : 1;
		o->is[i] = RUN_SACKED;
	}
	assert_true(
		scoreboard_sack(m, b, seq_add(o->base, from), seq_add(o->base, to), arrived, o));
}

static void do_ack(struct runs *m, struct scoreboard *b, struct model *o, uint32_t *s)
{
	const uint32_t to = o->una + 1 + below(s, o->nxt - o->una);

	for (uint32_t i = o->una; i < to; i++)
		o->arrived += o->is[i] & RUN_SACKED ? 0 : 1;
	o->una = to;
	scoreboard_ack(m, b, seq_add(o->base, to), arrived, o);
}

static void do_lose(struct runs *m, struct scoreboard *b, struct model *o)
{
	const struct run *r;

	if (!b->oldest)
		return;
	r = run_at(m, b->oldest);
	for (uint32_t i = seq_sub(r->left, o->base); i < seq_sub(r->right, o->base); i++)
		o->is[i] = RUN_LOST;
	scoreboard_lose(m, b, b->oldest);
}

static void do_again(struct runs *m, struct scoreboard *b, struct model *o, uint32_t *s, vtime now)
{
	const struct run *r;
	uint32_t from, n;

	if (!b->first_lost)
		return;
	r = run_at(m, b->first_lost);
	from = seq_sub(r->left, o->base);
	n = 1 + below(s, seq_sub(r->right, r->left));
	memset(&o->is[from], 0, n);
	assert_true(
		scoreboard_again(m, b, seq_add(o->base, from), seq_add(o->base, from + n), now));
}

static void test_model(void **state)
{
	struct run *all = calloc(SPACE, sizeof(*all));

	for (uint32_t seed = 1; seed <= 400; seed++) {
		uint32_t s = seed * 7919;
		struct runs m = { .all = all, .max = SPACE };
		struct model o = { .base = { 0xffffffffU - seed } };
		struct scoreboard b = { .fack = o.base };
		vtime now = { 1000 };

		for (unsigned step = 0; step < 300 && o.nxt < SPACE - 100; step++) {
			const unsigned what = below(&s, 8);

			now.us += below(&s, 3);
			if (what < 2 || o.una == o.nxt) {
				const uint32_t n = 1 + below(&s, 60);

				assert_true(scoreboard_sent(&m, &b, seq_add(o.base, o.nxt),
							    seq_add(o.base, o.nxt + n), now));
				o.nxt += n;
			} else if (what < 4) {
				do_sack(&m, &b, &o, &s);
			} else if (what == 4 && below(&s, 2)) {
				do_ack(&m, &b, &o, &s);
			} else if (what == 5) {
				do_lose(&m, &b, &o);
			} else if (what == 6) {
				do_again(&m, &b, &o, &s, now);
			} else if (below(&s, 10) == 0) {
				scoreboard_lose_all(&m, &b, false);
				for (uint32_t i = o.una; i < o.nxt; i++)
					o.is[i] = o.is[i] & RUN_SACKED ? RUN_SACKED : RUN_LOST;
			} else if (below(&s, 10) == 0) {
				scoreboard_unlose(&m, &b);
				for (uint32_t i = o.una; i < o.nxt; i++)
					o.is[i] &= (uint8_t)~RUN_LOST;
			}
			compare(&m, &b, &o);
		}
		scoreboard_clear(&m, &b);
		assert_int_equal(b.n, 0);
	}
	free(all);
}

/* A peer that sacks every other octet uses up its share, is refused, and everything is given back. */
static void test_limits(void **state)
{
	struct run *all = calloc(RUNS, sizeof(*all));
	struct runs m = { .all = all, .max = RUNS };
	struct scoreboard b = { .n = 0 };
	struct model o = { .una = 0 };
	const seqno zero = { 0 };
	uint32_t at = 1;

	assert_true(scoreboard_sent(&m, &b, zero, seq_add(zero, SPACE), (vtime){ 1 }));
	while (at < SPACE &&
	       scoreboard_sack(&m, &b, seq_add(zero, at), seq_add(zero, at + 1), arrived, &o))
		at += 2;
	assert_true(at < SPACE);
	assert_true(b.n <= RUNS);
	scoreboard_check(&m, &b, zero, seq_add(zero, SPACE));
	scoreboard_clear(&m, &b);
	assert_int_equal(b.n, 0);
	assert_true(scoreboard_sent(&m, &b, zero, seq_add(zero, 10), (vtime){ 1 }));
	scoreboard_clear(&m, &b);
	free(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
