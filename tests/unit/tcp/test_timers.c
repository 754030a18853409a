/* SPDX-License-Identifier: Apache-2.0 */
/* The timing wheel against a model that looks at every node. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"
#include "tcp/timers.h"

enum { NODES = 200 };

struct world {
	struct wheel w;
	struct timer_node nodes[NODES];
	bool runs[NODES];
	vtime at[NODES];
	vtime now;
	uint64_t seed;
};

WRAPS static uint64_t draw(struct world *x)
{
	x->seed = x->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return x->seed >> 16;
}

/* Near instants and far ones, in the proportion that finds each level. */
static uint64_t distance(struct world *x)
{
	return (draw(x) << 16) >> (16 + draw(x) % 47);
}

static vtime earliest(const struct world *x)
{
	vtime at = VTIME_NEVER;

	for (int i = 0; i < NODES; i++)
		at = vtime_min(at, x->runs[i] ? x->at[i] : VTIME_NEVER);
	return at;
}

static void step(struct world *x)
{
	const unsigned i = (unsigned)(draw(x) % NODES);

	switch (draw(x) % 4) {
	case 0:
	case 1:
		x->at[i] = draw(x) % 20 ? vtime_add(x->now, distance(x)) : (vtime){ x->now.us / 2 };
		x->runs[i] = true;
		wheel_set(&x->w, &x->nodes[i], x->at[i]);
		break;
	case 2:
		x->runs[i] = false;
		wheel_clear(&x->w, &x->nodes[i]);
		break;
	default: {
		struct timer_node *n;
		const vtime next = earliest(x);

		/* To the next instant, just short of it, or anywhere. */
		if (vtime_before(next, VTIME_NEVER) && vtime_before(x->now, next) && draw(x) % 2)
			x->now = next;
		else if (x->now.us < UINT64_MAX / 4)
			x->now = vtime_add(x->now, distance(x) % 5000000);
		while ((n = wheel_expire(&x->w, x->now))) {
			const size_t k = (size_t)(n - x->nodes);

			assert_true(x->runs[k]);
			assert_false(vtime_before(x->now, x->at[k]));
			assert_false(timer_node_runs(n));
			x->runs[k] = false;
		}
		assert_true(vtime_before(x->now, earliest(x)));
	}
	}
}

static void test_model(void **state)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world x = { .seed = seed, .now = { seed % 2 ? 12345678 : UINT64_MAX / 8 } };

		wheel_init(&x.w, x.now);
		for (int i = 0; i < 20000 && x.now.us < UINT64_MAX / 2; i++) {
			const vtime deadline = wheel_deadline(&x.w);

			/* A lower bound, and never nothing while something runs. */
			assert_false(vtime_before(earliest(&x), deadline));
			assert_int_equal(vtime_before(deadline, VTIME_NEVER),
					 vtime_before(earliest(&x), VTIME_NEVER));
			step(&x);
		}
	}
}

/* Sleeping until the deadline again and again gets there, in few steps. */
static void test_progress(void **state)
{
	static struct timer_node nodes[100];
	struct wheel w;
	vtime now = { 999 };
	unsigned wakeups = 0, fired = 0;

	wheel_init(&w, now);
	for (unsigned i = 0; i < 100; i++)
		wheel_set(&w, &nodes[i], vtime_add(now, 123456789012ULL + i));
	while (vtime_before(wheel_deadline(&w), VTIME_NEVER)) {
		const vtime next = wheel_deadline(&w);

		assert_true(vtime_before(now, next));
		now = next;
		while (wheel_expire(&w, now))
			fired++;
		wakeups++;
	}
	assert_int_equal(fired, 100);
	assert_in_range(wakeups, 100, 100 + WHEEL_LEVELS);
}

/* In one slot of the lowest level: first set, first out. */
static void test_order(void **state)
{
	static struct timer_node nodes[3];
	struct wheel w;

	wheel_init(&w, (vtime){ 0 });
	for (int i = 0; i < 3; i++)
		wheel_set(&w, &nodes[i], (vtime){ 40 });
	for (int i = 0; i < 3; i++)
		assert_ptr_equal(wheel_expire(&w, (vtime){ 40 }), &nodes[i]);
	assert_null(wheel_expire(&w, (vtime){ 40 }));
	assert_int_equal(wheel_deadline(&w).us, VTIME_NEVER.us);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
