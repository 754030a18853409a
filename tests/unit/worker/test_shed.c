/* SPDX-License-Identifier: Apache-2.0 */
/* Which SYNs are dropped when too many come: never those of who was here before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include "worker/shed.h"

enum { SECOND = 1000000 };
static const uint64_t start_us = 50ULL * SECOND;

static struct ipaddr ip4(uint32_t a)
{
	struct ipaddr ip = addr_any4;

	for (int i = 0; i < 4; i++)
		ip.b[12 + i] = (uint8_t)(a >> (24 - 8 * i));
	return ip;
}

static struct flow flow_of(const struct ipaddr *a, uint16_t port)
{
	return (struct flow){ .local = { ip4(0x0a000001), 7 }, .remote = { *a, port } };
}

/* A SYN from another port than any before. */
static bool drops(struct shed *s, const struct ipaddr *a, enum link_pressure p, uint64_t now_us)
{
	static uint16_t port;
	const struct flow f = flow_of(a, ++port);

	return shed_drops(s, &f, p, now_us);
}

/* 2001:db8:NET:SUBNET::HOST */
static struct ipaddr ip6(uint8_t net, uint8_t subnet, uint8_t host)
{
	return (struct ipaddr){ { 0x20, 1, 0xd, 0xb8, 0, net, 0, subnet, [15] = host } };
}

static int setup(void **state)
{
	static struct shed s;
	const int rc = shed_init(&s);

	/* Two networks share their places for one key in some hundreds: chance decides no test. */
	s.key[0] = 0x0123456789abcdefULL;
	s.key[1] = 0xfedcba9876543210ULL;
	*state = &s;
	return rc;
}

static int teardown(void **state)
{
	shed_fini(*state);
	return 0;
}

/* How many of n SYNs from one network, each from another of its hosts, are dropped. */
static unsigned dropped_of(struct shed *s, uint32_t net, unsigned n, enum link_pressure p,
			   uint64_t now_us)
{
	unsigned dropped = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct ipaddr a = ip4(net | (i & 0xff));

		dropped += drops(s, &a, p, now_us);
	}
	return dropped;
}

/* The few strangers that are always answered have come. */
static void few_are_left(struct shed *s, uint64_t now_us)
{
	const struct ipaddr a = ip4(0x01000000);

	(void)drops(s, &a, LINK_FULL, now_us);
	s->few = SHED_FEW;
}

static void without_pressure_nothing_is_dropped(void **state)
{
	struct shed *const s = *state;

	assert_int_equal(dropped_of(s, 0x0a420100, 10000, LINK_EASY, start_us), 0);
	assert_int_equal(s->dropped, 0);
}

static void who_was_here_is_answered_also_when_it_is_full(void **state)
{
	struct shed *const s = *state;
	const struct ipaddr known = ip4(0x0a090001), other = ip4(0x0a090002);

	shed_know(s, &known, start_us);
	few_are_left(s, start_us);
	assert_false(drops(s, &known, LINK_FULL, start_us));
	assert_true(drops(s, &other, LINK_FULL, start_us));
	assert_int_equal(s->dropped, 1);
}

static void a_subnet_is_one_host(void **state)
{
	struct shed *const s = *state;
	const struct ipaddr known = ip6(1, 2, 3), same = ip6(1, 2, 4), other = ip6(1, 3, 3);

	shed_know(s, &known, start_us);
	few_are_left(s, start_us);
	assert_false(drops(s, &same, LINK_FULL, start_us));
	assert_true(drops(s, &other, LINK_FULL, start_us));
}

static void it_is_forgotten_who_was_here_long_ago(void **state)
{
	struct shed *const s = *state;
	const struct ipaddr old = ip4(0x0a090001), other = ip4(0x0a090003);
	uint64_t now_us = start_us;

	shed_know(s, &old, now_us);
	for (int i = 0; i < 3; i++) {
		few_are_left(s, now_us);
		assert_int_equal(drops(s, &old, LINK_FULL, now_us), i == 2);
		now_us += SHED_KNOWN_US;
		shed_know(s, &other, now_us);
	}
}

/* A flood from 256 networks, for two seconds. */
static uint64_t flood(struct shed *s, unsigned of_each, uint64_t now_us)
{
	for (unsigned i = 0; i < 20; i++, now_us += SHED_TURN_US)
		for (uint32_t net = 0; net < 256; net++)
			(void)dropped_of(s, 0x0a420000 | net << 8, of_each, LINK_FULL, now_us);
	return now_us;
}

static void of_strangers_those_of_busy_networks_go_first(void **state)
{
	struct shed *const s = *state;
	const uint64_t now_us = flood(s, 200, start_us);

	/* Sets may err, though seldom. */
	assert_in_range(dropped_of(s, 0x0a420100, 1000, LINK_FULL, now_us), 950, 1000);
	assert_int_equal(dropped_of(s, 0xc0000200, 500, LINK_FULL, now_us), 0);
}

/* Each of them alone sent more than can be answered. */
static void networks_that_send_most_of_all_are_no_strangers(void **state)
{
	struct shed *const s = *state;
	const uint64_t now_us = start_us + SHED_TURN_US;

	for (uint32_t net = 0; net < 64; net++)
		(void)dropped_of(s, 0x0a420000 | net << 8, 12000, LINK_FULL, start_us);
	for (uint32_t net = 0; net < 64; net++)
		assert_in_range(dropped_of(s, 0x0a420000 | net << 8, 100, LINK_FULL, now_us), 80,
				100);
	assert_int_equal(dropped_of(s, 0xc0000200, 500, LINK_FULL, now_us), 0);
}

static void a_flood_is_known_for_one_in_two_turns(void **state)
{
	struct shed *const s = *state;

	for (unsigned i = 0; i < 2; i++)
		for (uint32_t net = 0; net < 256; net++)
			(void)dropped_of(s, 0x0a420000 | net << 8, 200, LINK_FULL,
					 start_us + i * SHED_TURN_US);
	assert_int_equal(dropped_of(s, 0xc0000200, 200, LINK_FULL, start_us + 2 * SHED_TURN_US), 0);
}

/* Their share is what is left for networks like them: too little for all of this one's. */
static void networks_that_send_alike_are_treated_alike(void **state)
{
	struct shed *const s = *state;
	const uint64_t now_us = flood(s, 20, start_us);

	assert_in_range(dropped_of(s, 0xc0000200, 500, LINK_BUSY, now_us), 500 - 255, 500 - 60);
	assert_int_equal(dropped_of(s, 0xc0000300, 60, LINK_BUSY, now_us), 0);
}

static void a_few_of_each_network_may_come_however_many_they_are(void **state)
{
	struct shed *const s = *state;
	const uint64_t now_us = flood(s, 6, start_us);

	assert_int_equal(dropped_of(s, 0xc0000200, SHED_NET_SYNS, LINK_BUSY, now_us), 0);
	assert_int_not_equal(dropped_of(s, 0xc0000200, 100, LINK_BUSY, now_us), 0);
}

/* From everywhere, a few of each network. */
static void when_it_is_full_only_a_few_strangers_are_answered(void **state)
{
	struct shed *const s = *state;
	unsigned answered = 0;

	for (uint32_t i = 0; i < 20000; i++) {
		const struct ipaddr a = ip4(i << 8);

		answered += !drops(s, &a, LINK_FULL, start_us);
	}
	assert_in_range(answered, SHED_FEW, 2 * SHED_FEW);
	assert_int_equal(dropped_of(s, 0xc6336400, 1, LINK_FULL, start_us + SHED_TURN_US), 0);
}

static void a_syn_that_comes_again_is_answered(void **state)
{
	struct shed *const s = *state;
	const struct ipaddr a = ip4(0x0a090001);
	const struct flow f = flow_of(&a, 40000), other = flow_of(&a, 40001);

	few_are_left(s, start_us);
	assert_true(shed_drops(s, &f, LINK_FULL, start_us));
	few_are_left(s, start_us + SECOND);
	assert_true(shed_drops(s, &other, LINK_FULL, start_us + SECOND));
	assert_false(shed_drops(s, &f, LINK_FULL, start_us + SECOND));
	few_are_left(s, start_us + 20 * SECOND);
	assert_true(shed_drops(s, &f, LINK_FULL, start_us + 20 * SECOND));
}

static void a_network_that_is_quiet_again_is_like_any_other(void **state)
{
	struct shed *const s = *state;
	uint64_t now_us = start_us;

	assert_int_not_equal(dropped_of(s, 0x0a420100, 100000, LINK_BUSY, now_us), 0);
	now_us += 2 * SECOND;
	/* A few of them may be taken for ones that come again. */
	assert_in_range(dropped_of(s, 0x0a420100, 100, LINK_BUSY, now_us), 80, 100);
	now_us += 20 * SECOND;
	assert_int_equal(dropped_of(s, 0x0a420100, 1, LINK_BUSY, now_us), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(without_pressure_nothing_is_dropped),
		TEST(who_was_here_is_answered_also_when_it_is_full),
		TEST(a_subnet_is_one_host),
		TEST(it_is_forgotten_who_was_here_long_ago),
		TEST(of_strangers_those_of_busy_networks_go_first),
		TEST(networks_that_send_most_of_all_are_no_strangers),
		TEST(a_flood_is_known_for_one_in_two_turns),
		TEST(networks_that_send_alike_are_treated_alike),
		TEST(a_few_of_each_network_may_come_however_many_they_are),
		TEST(a_syn_that_comes_again_is_answered),
		TEST(when_it_is_full_only_a_few_strangers_are_answered),
		TEST(a_network_that_is_quiet_again_is_like_any_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
