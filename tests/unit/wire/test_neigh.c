/* SPDX-License-Identifier: Apache-2.0 */
#include "wire_test.h"

static const uint8_t our_mac[6] = { 2, 9, 0, 0, 0, 2 };

static const uint8_t arp_request[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 9, 0, 0, 0, 1, 8, 6,
					 /* ARP: who has 10.9.0.3, tell 10.9.0.1 */
					 0, 1, 8, 0, 6, 4, 0, 1, 2, 9, 0, 0, 0, 1, 10, 9, 0, 1, 0,
					 0, 0, 0, 0, 0, 10, 9, 0, 3 };

/* fe80::1 asks for 2001:db8::3, with its link-layer address. */
static const uint8_t solicitation[86] = { 0x33, 0x33, 0xff, 0, 0, 3, 2, 9, 0, 0, 0, 1, 0x86, 0xdd,
					  /* IPv6 */
					  0x60, 0, 0, 0, 0, 32, 58, 255, 0xfe, 0x80, 0, 0, 0, 0, 0,
					  0, 0, 0, 0, 0, 0, 0, 0, 1,
					  /* to ff02::1:ff00:3 */
					  0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 3,
					  /* ICMPv6; the checksum is filled in */
					  135, 0, 0, 0, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0,
					  0, 0, 0, 0, 0, 0, 0, 3,
					  /* source link-layer address */
					  1, 1, 2, 9, 0, 0, 0, 1 };

static uint16_t icmp_sum(const uint8_t *frame)
{
	const unsigned n = (unsigned)(frame[18] << 8 | frame[19]);
	uint8_t pseudo[40] = { 0 };
	uint32_t sum;

	memcpy(pseudo, frame + 22, 32);
	pseudo[34] = (uint8_t)(n >> 8);
	pseudo[35] = (uint8_t)n;
	pseudo[39] = 58;
	sum = (uint32_t)naive_sum(pseudo, 40) + naive_sum(frame + 54, n);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static void fix(uint8_t *frame)
{
	uint16_t sum;

	frame[56] = frame[57] = 0;
	sum = (uint16_t)~icmp_sum(frame);
	frame[56] = (uint8_t)(sum >> 8);
	frame[57] = (uint8_t)sum;
}

static void arp_is_answered(void **state)
{
	static const uint8_t expected[42] = { 2, 9, 0, 0, 0, 1, 2, 9, 0, 0, 0, 2, 8, 6,
					      /* ARP */
					      0, 1, 8, 0, 6, 4, 0, 2, 2, 9, 0, 0, 0, 2, 10, 9, 0, 3,
					      2, 9, 0, 0, 0, 1, 10, 9, 0, 1 };
	const struct ipaddr want = addr_v4(10, 9, 0, 3);
	uint8_t out[WIRE_NEIGH_MAX];
	struct ipaddr target;

	assert_true(wire_neigh_query(arp_request, 42, &target));
	assert_true(addr_eq(&target, &want));
	assert_int_equal(wire_neigh_answer(arp_request, 42, our_mac, out), 42);
	assert_memory_equal(out, expected, 42);
}

static void arp_probes_are_answered_announcements_are_not(void **state)
{
	uint8_t f[42];
	struct ipaddr target;

	memcpy(f, arp_request, 42);
	memset(f + 28, 0, 4); /* RFC 5227: a probe has no sender address */
	assert_true(wire_neigh_query(f, 42, &target));
	memcpy(f + 28, f + 38, 4);
	assert_false(wire_neigh_query(f, 42, &target));
}

static void wrong_arp_is_ignored(void **state)
{
	static const struct {
		unsigned at;
		uint8_t value;
	} wrong[] = { { 13, 0 },  { 15, 6 }, { 16, 9 }, { 18, 8 },
		      { 19, 16 }, { 21, 2 }, { 22, 3 }, { 38, 224 } };
	uint8_t f[42], out[WIRE_NEIGH_MAX];
	struct ipaddr target;

	for (size_t n = 0; n < 42; n++)
		assert_false(wire_neigh_query(arp_request, n, &target));
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		memcpy(f, arp_request, 42);
		f[wrong[i].at] = wrong[i].value;
		assert_false(wire_neigh_query(f, 42, &target));
		assert_int_equal(wire_neigh_answer(f, 42, our_mac, out), 0);
	}
}

static void a_solicitation_is_answered(void **state)
{
	uint8_t f[86], out[WIRE_NEIGH_MAX];
	struct ipaddr target;

	memcpy(f, solicitation, 86);
	fix(f);
	assert_true(wire_neigh_query(f, 86, &target));
	assert_memory_equal(target.b, f + 62, 16);
	assert_int_equal(wire_neigh_answer(f, 86, our_mac, out), 86);
	assert_memory_equal(out, f + 6, 6);
	assert_memory_equal(out + 6, our_mac, 6);
	assert_int_equal(out[21], 255);
	assert_memory_equal(out + 22, target.b, 16); /* from the target */
	assert_memory_equal(out + 38, f + 22, 16); /* to the asker */
	assert_int_equal(out[54], 136);
	assert_int_equal(out[58], 0x60); /* solicited, override; no router */
	assert_memory_equal(out + 62, target.b, 16);
	assert_int_equal(out[78], 2);
	assert_int_equal(out[79], 1);
	assert_memory_equal(out + 80, our_mac, 6);
	assert_int_equal(icmp_sum(out), 0xffff);
}

static void a_probe_for_duplicates_is_answered_to_all_nodes(void **state)
{
	static const uint8_t all_nodes[22] = { 0x33, 0x33, 0, 0, 0, 1 };
	uint8_t f[86], out[WIRE_NEIGH_MAX];
	struct ipaddr target;

	memcpy(f, solicitation, 86);
	memset(f + 22, 0, 16);
	fix(f);
	assert_false(wire_neigh_query(f, 86, &target)); /* it carries a source address option */
	f[19] = 24;
	fix(f);
	assert_true(wire_neigh_query(f, 78, &target));
	assert_int_equal(wire_neigh_answer(f, 78, our_mac, out), 86);
	assert_memory_equal(out, all_nodes, 6);
	assert_int_equal(out[38], 0xff);
	assert_int_equal(out[53], 1);
	assert_int_equal(out[58], 0x20); /* override alone */
	assert_int_equal(icmp_sum(out), 0xffff);
	f[49] = 0; /* no solicited-node address any more */
	fix(f);
	assert_false(wire_neigh_query(f, 78, &target));
}

static void rfc4861_7_1_1_wrong_solicitations_are_ignored(void **state)
{
	static const struct {
		unsigned at;
		uint8_t value;
	} wrong[] = { { 14, 0x40 }, { 20, 6 }, { 21, 254 }, { 54, 136 }, { 55, 1 },
		      { 62, 0xff }, { 79, 0 }, { 79, 2 },   { 22, 0xff } };
	uint8_t f[86];
	struct ipaddr target;

	memcpy(f, solicitation, 86);
	assert_false(wire_neigh_query(f, 86, &target)); /* checksum */
	fix(f);
	for (size_t n = 0; n < 86; n++)
		assert_false(wire_neigh_query(f, n, &target));
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		memcpy(f, solicitation, 86);
		f[wrong[i].at] = wrong[i].value;
		fix(f);
		assert_false(wire_neigh_query(f, 86, &target));
	}
	memcpy(f, solicitation, 86);
	f[19] = 16;
	fix(f);
	assert_false(wire_neigh_query(f, 86, &target));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arp_is_answered),
		cmocka_unit_test(arp_probes_are_answered_announcements_are_not),
		cmocka_unit_test(wrong_arp_is_ignored),
		cmocka_unit_test(a_solicitation_is_answered),
		cmocka_unit_test(a_probe_for_duplicates_is_answered_to_all_nodes),
		cmocka_unit_test(rfc4861_7_1_1_wrong_solicitations_are_ignored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
