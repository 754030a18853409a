/* SPDX-License-Identifier: Apache-2.0 */
/* The BPF program against a plain statement of what it should do. It runs in an interpreter of just
 * the instructions it uses; that the kernel takes and runs it the same is test_live.c's part.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>

#include "bpf.h"
#include "link/filter.h"

static struct filter prog;
static uint64_t seed = 99;

static uint32_t below(uint32_t n)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return (uint32_t)((seed >> 20) % n);
}

static bool run(const struct filter *f, const struct shown *s)
{
	return bpf_run(f, s) != 0;
}

/* Addresses and ports are few, so that packets meet entries. */
static struct ipaddr some_addr(bool v6)
{
	struct ipaddr a = addr_v4(10, 0, 0, (uint8_t)below(4));

	if (v6) {
		memset(a.b, 0, 16);
		a.b[0] = 0xfd;
		a.b[below(2) ? 15 : 7] = (uint8_t)below(3);
	}
	return a;
}

static struct link_owned some_owned(void)
{
	struct link_owned o = { .addr = some_addr(below(2)) };

	switch (below(6)) {
	case 0:
		o.addr = addr_any;
		break;
	case 1:
		o.addr = addr_any4;
		break;
	case 2:
		o.addr = addr_any6;
		break;
	default:
		break;
	}
	o.port_min = (uint16_t)below(20);
	o.port_max = (uint16_t)(o.port_min + below(4));
	if (below(20) == 0)
		o.port_max = UINT16_MAX;
	return o;
}

static void store16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* Of TCP mostly. */
static struct shown some_packet(bool v6, struct ipaddr *ret_dst, uint16_t *ret_port)
{
	struct shown s = { .len = 80, .protocol = v6 ? ETH_P_IPV6 : ETH_P_IP };
	const unsigned words = 5 + below(11);
	uint8_t *tcp = s.ip + (v6 ? 40 : words * 4);

	*ret_dst = some_addr(v6);
	*ret_port = (uint16_t)(below(10) ? below(24) : 65530 + below(6));
	if (v6) {
		s.ip[0] = 0x60;
		s.ip[6] = 6;
		memcpy(s.ip + 24, ret_dst->b, 16);
	} else {
		s.ip[0] = (uint8_t)(0x40 | words);
		s.ip[9] = 6;
		memcpy(s.ip + 16, ret_dst->b + 12, 4);
	}
	store16(tcp + 2, *ret_port);
	return s;
}

static bool owns(const struct link_owned *owned, size_t n, const struct ipaddr *dst, uint16_t port,
		 enum filter_level level)
{
	for (size_t i = 0; i < n; i++) {
		const struct link_owned *o = &owned[i];
		const bool family = addr_eq(&o->addr, &addr_any) ||
				    addr_is_v4(&o->addr) == addr_is_v4(dst);

		if (level == FILTER_ALL)
			return true;
		if (family && port >= o->port_min && port <= o->port_max &&
		    (level == FILTER_PORTS || addr_matches(&o->addr, dst)))
			return true;
	}
	return false;
}

static void takes_what_is_owned_and_nothing_else(void **state)
{
	struct link_owned owned[12];
	unsigned taken = 0;

	for (unsigned i = 0; i < 4000; i++) {
		const size_t n = below(ARRAY_SIZE(owned));
		const enum filter_level level = (enum filter_level)below(FILTER__COUNT);

		for (size_t k = 0; k < n; k++)
			owned[k] = some_owned();
		assert_int_equal(filter_build(owned, n, below(2), level, UINT32_MAX, &prog), 0);
		for (unsigned k = 0; k < 20; k++) {
			struct ipaddr dst;
			uint16_t port;
			const struct shown s = some_packet(below(2), &dst, &port);
			const bool got = run(&prog, &s);

			assert_int_equal(got, owns(owned, n, &dst, port, level));
			taken += got;
		}
	}
	assert_in_range(taken, 10000, 70000); /* both answers occur */
}

static void build_any(bool neigh)
{
	const struct link_owned all = { .addr = addr_any, .port_min = 7, .port_max = 7 };

	assert_int_equal(filter_build(&all, 1, neigh, FILTER_EXACT, UINT32_MAX, &prog), 0);
}

static struct shown packet_to_7(bool v6)
{
	struct ipaddr dst;
	uint16_t port;
	struct shown s = some_packet(v6, &dst, &port);

	if (!v6)
		s.ip[0] = 0x45;
	store16(s.ip + (v6 ? 42 : 22), 7);
	return s;
}

/* An ICMP error about a TCP segment from (addr, port). */
static struct shown some_icmp(bool v6, struct ipaddr *ret_addr, uint16_t *ret_port)
{
	struct shown s = { .len = v6 ? 96 : 120, .protocol = v6 ? ETH_P_IPV6 : ETH_P_IP };
	const unsigned words = 5 + below(11);
	uint8_t *const icmp = s.ip + (v6 ? 40 : words * 4), *const quote = icmp + 8;
	static const uint8_t types4[] = { 3, 4, 11, 12 };

	*ret_addr = some_addr(v6);
	*ret_port = (uint16_t)below(24);
	if (v6) {
		s.ip[0] = quote[0] = 0x60;
		s.ip[6] = 58;
		icmp[0] = (uint8_t)(1 + below(4));
		quote[6] = 6;
		memcpy(quote + 8, ret_addr->b, 16);
		store16(quote + 40, *ret_port);
	} else {
		s.ip[0] = (uint8_t)(0x40 | words);
		s.ip[9] = 1;
		icmp[0] = types4[below(4)];
		quote[0] = 0x45;
		quote[9] = 6;
		memcpy(quote + 12, ret_addr->b + 12, 4);
		store16(quote + 20, *ret_port);
	}
	return s;
}

static void takes_icmp_errors_about_what_is_owned(void **state)
{
	struct link_owned owned[6];
	unsigned taken = 0;

	for (unsigned i = 0; i < 2000; i++) {
		const size_t n = below(ARRAY_SIZE(owned));
		const enum filter_level level = (enum filter_level)below(FILTER__COUNT);

		for (size_t k = 0; k < n; k++)
			owned[k] = some_owned();
		assert_int_equal(filter_build(owned, n, below(2), level, UINT32_MAX, &prog), 0);
		for (unsigned k = 0; k < 20; k++) {
			struct ipaddr from;
			uint16_t port;
			const struct shown s = some_icmp(below(2), &from, &port);
			const bool got = run(&prog, &s);

			assert_int_equal(got, owns(owned, n, &from, port, level));
			taken += got;
		}
	}
	assert_in_range(taken, 3000, 37000);
}

static void takes_no_other_icmp(void **state)
{
	const struct link_owned all = { .addr = addr_any, .port_min = 0, .port_max = UINT16_MAX };

	for (unsigned i = 0; i < 1024; i++) {
		const bool v6 = i % 2;
		struct ipaddr from;
		uint16_t port;
		struct shown s = some_icmp(v6, &from, &port);
		const size_t at = v6 ? 40 : (size_t)(s.ip[0] & 15) * 4;
		const uint8_t type = (uint8_t)(i / 2 % 256);
		const bool error = v6 ? type >= 1 && type <= 4
				      : type == 3 || type == 4 || type == 11 || type == 12;

		s.ip[at] = type;
		assert_int_equal(filter_build(&all, 1, i >= 512, FILTER_EXACT, UINT32_MAX, &prog),
				 0);
		assert_int_equal(run(&prog, &s), error || (v6 && i >= 512 && type == 135));
		if (!error)
			continue;
		s.pkttype = PACKET_BROADCAST;
		assert_false(run(&prog, &s));
		s.pkttype = PACKET_HOST;
		s.ip[at + 8 + (v6 ? 6 : 9)] = 17; /* about UDP */
		assert_false(run(&prog, &s));
		s.ip[at + 8 + (v6 ? 6 : 9)] = 6;
		s.len = (uint32_t)(at + 8 + (v6 ? 41 : 21)); /* cut short in the port */
		assert_false(run(&prog, &s));
		if (v6)
			continue;
		s.len = 120;
		store16(s.ip + 6, 0x2000);
		assert_false(run(&prog, &s));
	}
}

static void only_frames_for_this_host(void **state)
{
	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct shown s = packet_to_7(v6);

		build_any(v6);
		assert_true(run(&prog, &s));
		for (s.pkttype = PACKET_BROADCAST; s.pkttype <= PACKET_LOOPBACK; s.pkttype++)
			assert_false(run(&prog, &s));
	}
}

static void vlan_ids_are_left_to_their_interfaces_priorities_are_not(void **state)
{
	struct shown s = packet_to_7(false);

	build_any(false);
	s.tagged = true;
	s.tag = 0xe000;
	assert_true(run(&prog, &s));
	s.tag = 0xe005;
	assert_false(run(&prog, &s));
}

static void other_protocols_and_later_fragments_do_not_wake_us(void **state)
{
	struct shown s = packet_to_7(false);

	build_any(false);
	s.ip[9] = 17;
	assert_false(run(&prog, &s));
	s.ip[9] = 6;
	store16(s.ip + 6, 0x2000);
	assert_true(run(&prog, &s));
	store16(s.ip + 6, 0x2001);
	assert_false(run(&prog, &s));
	store16(s.ip + 6, 0x4000);
	assert_true(run(&prog, &s));
	s.len = 23; /* cut short in the port */
	assert_false(run(&prog, &s));
	s.protocol = ETH_P_PAE;
	assert_false(run(&prog, &s));
}

static void ipv6_extension_headers_pass(void **state)
{
	static const uint8_t pass[] = { 0, 43, 60, 44 }, drop[] = { 17, 58, 59, 50, 51, 132 };
	struct shown s = packet_to_7(true);

	build_any(false);
	s.ip[40] = 6;
	store16(s.ip + 42, 0);
	for (unsigned i = 0; i < sizeof(pass); i++) {
		s.ip[6] = pass[i];
		assert_true(run(&prog, &s));
	}
	store16(s.ip + 42, 9); /* a later fragment */
	assert_false(run(&prog, &s));
	store16(s.ip + 42, 1);
	assert_true(run(&prog, &s));
	s.ip[40] = 17;
	assert_false(run(&prog, &s));
	for (unsigned i = 0; i < sizeof(drop); i++) {
		s.ip[6] = drop[i];
		assert_false(run(&prog, &s));
	}
	/* No IPv6 owned: none of it. */
	assert_int_equal(filter_build(&(struct link_owned){ addr_any4, 1, 9, false }, 1, false,
				      FILTER_EXACT, UINT32_MAX, &prog),
			 0);
	for (unsigned i = 0; i < sizeof(pass); i++) {
		s.ip[6] = pass[i];
		assert_false(run(&prog, &s));
	}
}

static void neighbour_questions_only_when_asked_for(void **state)
{
	struct shown arp = { .len = 28, .protocol = ETH_P_ARP, .pkttype = PACKET_BROADCAST };
	struct shown ns = { .len = 72, .protocol = ETH_P_IPV6, .pkttype = PACKET_MULTICAST };

	arp.ip[7] = 1;
	ns.ip[6] = 58;
	ns.ip[40] = 135;
	build_any(false);
	assert_false(run(&prog, &arp));
	assert_false(run(&prog, &ns));
	build_any(true);
	assert_true(run(&prog, &arp));
	assert_true(run(&prog, &ns));
	arp.ip[7] = 2; /* a reply */
	ns.ip[40] = 136;
	assert_false(run(&prog, &arp));
	assert_false(run(&prog, &ns));
	arp.ip[7] = 1;
	arp.pkttype = PACKET_OTHERHOST;
	assert_false(run(&prog, &arp));
}

static void long_lists_do_not_fit_and_say_so(void **state)
{
	enum { N = 40000 };
	struct link_owned *owned = calloc(N, sizeof(*owned));
	struct shown s = packet_to_7(false);

	assert_non_null(owned);
	for (unsigned i = 0; i < N; i++)
		owned[i] = (struct link_owned){ .addr = addr_v4(10, 0, (uint8_t)(i >> 8),
								(uint8_t)i),
						.port_min = (uint16_t)(2 * i % 65536 | 1),
						.port_max = (uint16_t)(2 * i % 65536 | 1) };
	assert_int_equal(filter_build(owned, 500, true, FILTER_EXACT, UINT32_MAX, &prog), 0);
	assert_int_equal(filter_build(owned, 5000, true, FILTER_EXACT, UINT32_MAX, &prog), -E2BIG);
	assert_int_equal(filter_build(owned, 900, true, FILTER_PORTS, UINT32_MAX, &prog), 0);
	assert_int_equal(filter_build(owned, N, true, FILTER_PORTS, UINT32_MAX, &prog), -E2BIG);
	assert_int_equal(filter_build(owned, N, true, FILTER_ALL, UINT32_MAX, &prog), 0);
	assert_true(run(&prog, &s));
	free(owned);
}

/* Of a long frame to a port where nobody reads text only the headers are wanted. */
static void what_nobody_reads_comes_without_its_text(void **state)
{
	const struct link_owned owned[] = { { addr_any, 7, 7, true }, { addr_any, 8, 8, false } };

	for (unsigned i = 0; i < 8; i++) {
		const bool v6 = i & 1, large = i & 2, unread = i & 4;
		struct shown s = packet_to_7(v6);

		store16(s.ip + (v6 ? 42 : 22), unread ? 7 : 8);
		for (unsigned level = 0; level < FILTER__COUNT; level++) {
			const bool cut = unread && large && level == FILTER_EXACT;

			assert_int_equal(filter_build(owned, 2, i % 3, (enum filter_level)level,
						      large ? s.len - 1 : s.len, &prog),
					 0);
			assert_int_equal(bpf_run(&prog, &s), cut ? FILTER_HEADERS : UINT32_MAX);
		}
	}
}

static void nothing_owned_takes_nothing(void **state)
{
	const struct link_owned reversed = { .addr = addr_any, .port_min = 9, .port_max = 5 };

	for (unsigned v6 = 0; v6 < 2; v6++) {
		const struct shown s = packet_to_7(v6);

		filter_build_none(&prog);
		assert_false(run(&prog, &s));
		for (unsigned level = 0; level < FILTER__COUNT; level++) {
			assert_int_equal(filter_build(NULL, 0, false, (enum filter_level)level,
						      UINT32_MAX, &prog),
					 0);
			assert_false(run(&prog, &s));
		}
		assert_int_equal(filter_build(&reversed, 1, false, FILTER_EXACT, UINT32_MAX, &prog),
				 0);
		assert_false(run(&prog, &s));
		assert_int_equal(filter_build(&reversed, 1, false, FILTER_PORTS, UINT32_MAX, &prog),
				 0);
		assert_false(run(&prog, &s));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_what_is_owned_and_nothing_else),
		cmocka_unit_test(takes_icmp_errors_about_what_is_owned),
		cmocka_unit_test(takes_no_other_icmp),
		cmocka_unit_test(only_frames_for_this_host),
		cmocka_unit_test(vlan_ids_are_left_to_their_interfaces_priorities_are_not),
		cmocka_unit_test(other_protocols_and_later_fragments_do_not_wake_us),
		cmocka_unit_test(ipv6_extension_headers_pass),
		cmocka_unit_test(neighbour_questions_only_when_asked_for),
		cmocka_unit_test(long_lists_do_not_fit_and_say_so),
		cmocka_unit_test(what_nobody_reads_comes_without_its_text),
		cmocka_unit_test(nothing_owned_takes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
