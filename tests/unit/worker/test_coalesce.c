/* SPDX-License-Identifier: Apache-2.0 */
/* How long a busy worker waits: longer as long as more comes, not at all when the peer waits for us. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include "worker/coalesce.h"

enum { MAX_US = 64, SUPER = 65226 };

static void took(struct coalesce *c, uint32_t frames, uint64_t bytes, uint64_t tail_us)
{
	const struct coalesce_load load = { .frames = frames, .bytes = bytes, .tail_us = tail_us };

	coalesce_took(c, &load);
}

/* One of a peer that sends all the time: what was waited for came until the end. */
static void took_a_lot(struct coalesce *c)
{
	if (c->delay_us)
		coalesce_waited(c, true);
	took(c, 1, SUPER, 0);
}

/* One of a peer that sends so much and waits for the ACK. */
static void took_a_window(struct coalesce *c)
{
	if (c->delay_us)
		coalesce_waited(c, false);
	took(c, 2, 2 * SUPER, 1);
}

/* How many wakeups there are before one is waited after; 0: none of n. */
static unsigned wakeups_until_a_delay(struct coalesce *c, unsigned n)
{
	for (unsigned i = 1; i <= n; i++) {
		took_a_window(c);
		if (c->delay_us)
			return i;
	}
	return 0;
}

static void a_sender_that_goes_on_is_waited_for_longer_and_longer(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	for (unsigned i = 1; i < COALESCE_TRY; i++) {
		took_a_lot(&c);
		assert_int_equal(c.delay_us, 0);
	}
	for (uint32_t us = COALESCE_MIN_US; us < MAX_US; us *= 2) {
		took_a_lot(&c);
		assert_int_equal(c.delay_us, us);
	}
	for (unsigned i = 0; i < 10; i++) {
		took_a_lot(&c);
		assert_int_equal(c.delay_us, MAX_US);
	}
}

/* What it sent before may have been read by someone: then the delay is longer than that already. */
static void text_that_nobody_reads_is_acknowledged_sooner(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; i < 20; i++) {
			const struct coalesce_load load = { .frames = 2,
							    .bytes = 2 * SUPER,
							    .unread = 2 * SUPER };

			if (c.delay_us)
				coalesce_waited(&c, true);
			coalesce_took(&c, &load);
			assert_true(c.delay_us <= COALESCE_UNREAD_MAX_US);
		}
		assert_int_equal(c.delay_us, COALESCE_UNREAD_MAX_US);
		while (c.delay_us < MAX_US) {
			coalesce_waited(&c, true);
			took(&c, 2, 2 * SUPER, 0);
		}
	}
}

/* Others may have sent most of it. */
static void as_long_as_it_is_most_of_what_came(void **state)
{
	struct coalesce_load load = { .frames = 3, .bytes = 3 * SUPER, .unread = SUPER };
	struct coalesce c = { .max_us = MAX_US, .delay_us = MAX_US };

	coalesce_waited(&c, true);
	coalesce_took(&c, &load);
	assert_int_equal(c.delay_us, MAX_US);
	load.unread = 2 * SUPER;
	coalesce_waited(&c, true);
	coalesce_took(&c, &load);
	assert_int_equal(c.delay_us, COALESCE_UNREAD_MAX_US);
}

/* After failures the first delay is longer than that, and so is half of a long one. */
static void also_at_first_and_when_it_came_early(void **state)
{
	const struct coalesce_load load = { .frames = 2, .bytes = 2 * SUPER, .unread = 2 * SUPER };
	struct coalesce c = { .max_us = MAX_US, .first_us = COALESCE_FIRST_MAX_US };

	for (unsigned i = 0; i < COALESCE_TRY; i++)
		coalesce_took(&c, &load);
	assert_int_equal(c.delay_us, COALESCE_UNREAD_MAX_US);
	c = (struct coalesce){ .max_us = MAX_US, .delay_us = MAX_US };
	coalesce_waited(&c, true);
	coalesce_took(&c, &(struct coalesce_load){ .frames = 2,
						   .bytes = 2 * SUPER,
						   .unread = 2 * SUPER,
						   .tail_us = MAX_US });
	assert_int_equal(c.delay_us, COALESCE_UNREAD_MAX_US);
}

static void a_limit_below_that_is_kept(void **state)
{
	const struct coalesce_load load = { .frames = 2, .bytes = 2 * SUPER, .unread = 2 * SUPER };
	struct coalesce c = { .max_us = 12, .delay_us = 12 };

	for (unsigned i = 0; i < 3; i++) {
		coalesce_waited(&c, true);
		coalesce_took(&c, &load);
		assert_int_equal(c.delay_us, 12);
	}
}

static void one_question_at_a_time_is_never_waited_after(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	for (unsigned i = 0; i < 100000; i++) {
		took(&c, 1, 1500, i % 50);
		assert_int_equal(c.delay_us, 0);
	}
}

static void several_packets_at_a_time_are(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	for (unsigned i = 0; i < COALESCE_TRY; i++)
		took(&c, COALESCE_FRAMES, 120, 0);
	assert_int_equal(c.delay_us, COALESCE_MIN_US);
}

static void a_sender_that_waits_for_us_is_held_up_ever_more_seldom(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	for (unsigned n = COALESCE_TRY; n < COALESCE_TRY_MAX; n *= 4)
		assert_int_equal(wakeups_until_a_delay(&c, COALESCE_TRY_MAX), n);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(wakeups_until_a_delay(&c, COALESCE_TRY_MAX), COALESCE_TRY_MAX);
}

static void one_that_goes_on_later_is_found_out_sooner(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	while (c.patience < COALESCE_TRY_MAX)
		(void)wakeups_until_a_delay(&c, COALESCE_TRY_MAX);
	while (c.delay_us < MAX_US)
		took_a_lot(&c);
	assert_int_equal(c.patience, COALESCE_TRY);
}

/* Packets of many flows come every now and then, one by one: a short delay is too short for them. */
static void many_flows_are_waited_for_once_the_delay_is_long_enough(void **state)
{
	const struct coalesce_load one = { .frames = 1, .bytes = 66, .mixed = true };
	struct coalesce c = { .max_us = MAX_US };
	unsigned wakeups = 0, failed = 0;

	while (c.delay_us < MAX_US) {
		/* One in 12 us. */
		const uint32_t delay = c.delay_us;
		const struct coalesce_load some = { .frames = delay / 12,
						    .bytes = 66,
						    .mixed = true };

		assert_true(wakeups++ < 200);
		if (delay)
			coalesce_waited(&c, some.frames);
		coalesce_took(&c, some.frames ? &some : &one);
		failed += delay && !c.delay_us;
	}
	assert_int_equal(failed, 2); /* of 8 us, and of 16 */
	assert_int_equal(c.first_us, COALESCE_MIN_US);
}

static void the_first_delay_has_an_end_and_the_limit_is_kept(void **state)
{
	const struct coalesce_load one = { .frames = 1, .bytes = 66, .mixed = true };

	for (uint32_t max = 0; max < 2 * COALESCE_FIRST_MAX_US; max += 4) {
		struct coalesce c = { .max_us = max };
		uint32_t longest = 0;

		for (unsigned i = 0; i < 20000; i++) {
			if (c.delay_us)
				coalesce_waited(&c, false);
			coalesce_took(&c, &one);
			longest = c.delay_us > longest ? c.delay_us : longest;
		}
		assert_int_equal(longest,
				 max < COALESCE_FIRST_MAX_US ? max : COALESCE_FIRST_MAX_US);
	}
}

static void connections_one_after_the_other_are_not_waited_after(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	for (unsigned i = 0; i < 100000; i++) {
		const struct coalesce_load load = { .frames = 1, .bytes = 66, .mixed = i % 4 == 0 };

		coalesce_took(&c, &load);
		assert_int_equal(c.delay_us, 0);
	}
}

static void what_came_early_in_a_delay_halves_it(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	while (c.delay_us < MAX_US)
		took_a_lot(&c);
	coalesce_waited(&c, true);
	took(&c, 4, 4 * SUPER, MAX_US / 2 + 1);
	assert_int_equal(c.delay_us, MAX_US / 2);
	coalesce_waited(&c, true);
	took(&c, 4, 4 * SUPER, MAX_US / 4);
	assert_int_equal(c.delay_us, MAX_US);
}

static void little_in_a_delay_halves_it_whenever_it_came(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	while (c.delay_us < MAX_US)
		took_a_lot(&c);
	coalesce_waited(&c, true);
	took(&c, 1, 66, 0);
	assert_int_equal(c.delay_us, MAX_US / 2);
	for (unsigned i = 0; c.delay_us; i++) {
		assert_true(i < 8);
		coalesce_waited(&c, false);
		took(&c, 1, 66, 0);
	}
}

static void busy_wakeups_between_quiet_ones_are_no_stream(void **state)
{
	struct coalesce c = { .max_us = MAX_US };

	for (unsigned i = 0; i < 10000; i++) {
		took(&c, 1, i % 2 ? SUPER : 66, 0);
		assert_int_equal(c.delay_us, 0);
	}
}

static void the_limit_is_never_exceeded_and_zero_is_never_waited(void **state)
{
	for (uint32_t max = 0; max < 3 * COALESCE_MIN_US; max++) {
		struct coalesce c = { .max_us = max };

		for (unsigned i = 0; i < 100; i++) {
			took_a_lot(&c);
			assert_true(c.delay_us <= max);
		}
		assert_int_equal(c.delay_us, max);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sender_that_goes_on_is_waited_for_longer_and_longer),
		cmocka_unit_test(text_that_nobody_reads_is_acknowledged_sooner),
		cmocka_unit_test(as_long_as_it_is_most_of_what_came),
		cmocka_unit_test(also_at_first_and_when_it_came_early),
		cmocka_unit_test(a_limit_below_that_is_kept),
		cmocka_unit_test(one_question_at_a_time_is_never_waited_after),
		cmocka_unit_test(several_packets_at_a_time_are),
		cmocka_unit_test(a_sender_that_waits_for_us_is_held_up_ever_more_seldom),
		cmocka_unit_test(one_that_goes_on_later_is_found_out_sooner),
		cmocka_unit_test(many_flows_are_waited_for_once_the_delay_is_long_enough),
		cmocka_unit_test(the_first_delay_has_an_end_and_the_limit_is_kept),
		cmocka_unit_test(connections_one_after_the_other_are_not_waited_after),
		cmocka_unit_test(what_came_early_in_a_delay_halves_it),
		cmocka_unit_test(little_in_a_delay_halves_it_whenever_it_came),
		cmocka_unit_test(busy_wakeups_between_quiet_ones_are_no_stream),
		cmocka_unit_test(the_limit_is_never_exceeded_and_zero_is_never_waited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
