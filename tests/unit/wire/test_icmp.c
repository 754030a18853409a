/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors: what each type and code is taken for, and each way in which one can be wrong. MUST-54. */
#include "wire_test.h"

enum { QUOTE4 = 28, QUOTE6 = 48, LEN4 = QUOTE4 + 28, LEN6 = QUOTE6 + 48 };

static void store16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void fix(uint8_t *p, size_t len)
{
	uint8_t all[40 + 256] = { 0 };
	const bool v4 = p[0] >> 4 == 4;
	const size_t icmp = v4 ? (size_t)(p[0] & 15) * 4 : 40;

	if (v4) {
		store16(p + 2, (unsigned)len);
		store16(p + 10, 0);
		store16(p + 10, (uint16_t)~naive_sum(p, icmp));
	} else {
		store16(p + 4, (unsigned)len - 40);
		memcpy(all, p + 8, 32);
		store16(all + 34, (unsigned)(len - 40));
		all[39] = 58;
	}
	store16(p + icmp + 2, 0);
	memcpy(all + 40, p + icmp, len - icmp);
	store16(p + icmp + 2,
		(uint16_t)~naive_sum(all + (v4 ? 40 : 0), len - icmp + (v4 ? 0 : 40)));
}

/* The router 10.9.9.9 tells 10.9.0.2 about its segment 10.9.0.2:7 to 10.9.0.1:40000, sequence number 01020304,
 * in a packet of 1500 octets. As little as RFC 792 asks for is quoted.
 */
static void make4(uint8_t p[LEN4], uint8_t type, uint8_t code, unsigned mtu)
{
	static const uint8_t plain[LEN4] = { 0x45, 0, 0, LEN4, 0, 1, 0, 0, 64, 1, 0, 0, 10, 9, 9, 9,
					     10, 9, 0, 2,
					     /* ICMP */
					     0, 0, 0, 0, 0, 0, 0, 0,
					     /* quoted */
					     0x45, 0, 0x05, 0xdc, 0, 7, 0x40, 0, 60, 6, 0, 0, 10, 9,
					     0, 2, 10, 9, 0, 1, 0, 7, 0x9c, 0x40, 1, 2, 3, 4 };

	memcpy(p, plain, LEN4);
	p[20] = type;
	p[21] = code;
	store16(p + 26, mtu);
	fix(p, LEN4);
}

/* The same over IPv6: fd00::9 tells fd00::2 about fd00::2 to fd00::1. */
static void make6(uint8_t p[LEN6], uint8_t type, uint8_t code, uint32_t mtu)
{
	memset(p, 0, LEN6);
	p[0] = 0x60;
	p[6] = 58;
	p[7] = 64;
	p[8] = p[24] = p[QUOTE6 + 8] = p[QUOTE6 + 24] = 0xfd;
	p[23] = 9;
	p[39] = 2;
	p[40] = type;
	p[41] = code;
	store16(p + 44, mtu >> 16);
	store16(p + 46, mtu & 0xffff);
	p[QUOTE6] = 0x60;
	store16(p + QUOTE6 + 4, 1460);
	p[QUOTE6 + 6] = 6;
	p[QUOTE6 + 23] = 2;
	p[QUOTE6 + 39] = 1;
	store16(p + QUOTE6 + 40, 7);
	store16(p + QUOTE6 + 42, 40000);
	store16(p + QUOTE6 + 44, 0x0102);
	store16(p + QUOTE6 + 46, 0x0304);
	fix(p, LEN6);
}

static enum wire_verdict decode(const uint8_t *p, size_t len, struct icmp_message *m)
{
	/* A copy of just this length: an octet read beyond it is found by the sanitizer. */
	uint8_t *const exact = test_malloc(len ? len : 1);
	enum wire_verdict v;

	memcpy(exact, p, len);
	v = wire_decode_icmp(exact, len, m);
	test_free(exact);
	return v;
}

static void expect4(uint8_t type, uint8_t code, enum icmp_error error)
{
	struct icmp_message m;
	uint8_t p[LEN4];

	make4(p, type, code, 1400);
	assert_int_equal(decode(p, LEN4, &m), WIRE_ICMP);
	assert_int_equal(m.error, error);
	assert_int_equal(m.mtu, error == ICMP_ERR_TOO_BIG ? 1400 : 0);
	assert_int_equal(m.seq.v, 0x01020304);
	assert_int_equal(m.quoted_bytes, 1500);
	assert_int_equal(m.flow.local.port, 7);
	assert_int_equal(m.flow.remote.port, 40000);
	assert_memory_equal(m.flow.local.addr.b + 12, p + 16, 4);
	assert_memory_equal(m.flow.remote.addr.b + 12, p + QUOTE4 + 16, 4);
}

static void expect6(uint8_t type, uint8_t code, enum icmp_error error)
{
	struct icmp_message m;
	uint8_t p[LEN6];

	make6(p, type, code, 0x12345);
	assert_int_equal(decode(p, LEN6, &m), WIRE_ICMP);
	assert_int_equal(m.error, error);
	assert_int_equal(m.mtu, error == ICMP_ERR_TOO_BIG ? 0x12345 : 0);
	assert_int_equal(m.seq.v, 0x01020304);
	assert_int_equal(m.quoted_bytes, 1500);
	assert_memory_equal(m.flow.local.addr.b, p + 24, 16);
	assert_memory_equal(m.flow.remote.addr.b, p + QUOTE6 + 24, 16);
}

static void each_error_is_known(void **state)
{
	expect4(3, 0, ICMP_ERR_NET_UNREACHABLE);
	expect4(3, 1, ICMP_ERR_HOST_UNREACHABLE);
	expect4(3, 2, ICMP_ERR_PROTOCOL_UNREACHABLE);
	expect4(3, 3, ICMP_ERR_PORT_UNREACHABLE);
	expect4(3, 4, ICMP_ERR_TOO_BIG);
	expect4(3, 5, ICMP_ERR_SOURCE_ROUTE_FAILED);
	expect4(3, 13, ICMP_ERR_PROHIBITED);
	expect4(3, 200, ICMP_ERR_HOST_UNREACHABLE);
	expect4(4, 0, ICMP_ERR_SOURCE_QUENCH);
	expect4(11, 0, ICMP_ERR_TIME_EXCEEDED);
	expect4(12, 0, ICMP_ERR_PARAMETER_PROBLEM);
	expect6(1, 0, ICMP_ERR_NET_UNREACHABLE);
	expect6(1, 1, ICMP_ERR_PROHIBITED);
	expect6(1, 3, ICMP_ERR_HOST_UNREACHABLE);
	expect6(1, 4, ICMP_ERR_PORT_UNREACHABLE);
	expect6(2, 0, ICMP_ERR_TOO_BIG);
	expect6(3, 0, ICMP_ERR_TIME_EXCEEDED);
	expect6(4, 0, ICMP_ERR_PARAMETER_PROBLEM);
}

static void what_is_no_error_is_another_protocol(void **state)
{
	struct icmp_message m;
	uint8_t p[LEN6];

	for (unsigned type = 0; type < 256; type++) {
		const bool error4 = type == 3 || type == 4 || type == 11 || type == 12;

		make4(p, (uint8_t)type, 0, 0);
		assert_int_equal(decode(p, LEN4, &m), error4 ? WIRE_ICMP : WIRE_NOT_TCP);
		make6(p, (uint8_t)type, 0, 0);
		assert_int_equal(decode(p, LEN6, &m),
				 type >= 1 && type <= 4 ? WIRE_ICMP : WIRE_NOT_TCP);
	}
	make4(p, 3, 3, 0);
	p[9] = 58; /* ICMPv6 in IPv4 */
	fix(p, LEN4);
	assert_int_equal(decode(p, LEN4, &m), WIRE_NOT_TCP);
}

static void one_changed_octet_is_found(void **state)
{
	struct icmp_message m;
	uint8_t p[LEN6];

	for (size_t i = 22; i < LEN4; i++) {
		make4(p, 3, 3, 0);
		p[i] ^= 0x40;
		assert_int_equal(decode(p, LEN4, &m), WIRE_BAD_ICMP_CHECKSUM);
	}
	for (size_t i = 42; i < LEN6; i++) {
		make6(p, 1, 4, 0);
		p[i] ^= 0x40;
		assert_int_equal(decode(p, LEN6, &m), WIRE_BAD_ICMP_CHECKSUM);
	}
}

static void what_is_cut_short_is_found(void **state)
{
	struct icmp_message m;
	uint8_t p[LEN6];

	for (size_t len = 20; len < LEN4; len++) {
		make4(p, 3, 3, 0);
		assert_int_equal(decode(p, len, &m), WIRE_TRUNCATED_IP);
		if (len >= QUOTE4) {
			fix(p, len);
			assert_int_equal(decode(p, len, &m), WIRE_TRUNCATED_ICMP);
		}
	}
	for (size_t len = QUOTE6; len < LEN6; len++) {
		make6(p, 1, 4, 0);
		fix(p, len);
		assert_int_equal(decode(p, len, &m), WIRE_TRUNCATED_ICMP);
	}
}

/* value at `at` of the quoted packet makes it one that its addressee cannot have sent. */
static void quote4(size_t at, uint8_t value, enum wire_verdict want)
{
	struct icmp_message m;
	uint8_t p[LEN4];

	make4(p, 3, 3, 0);
	p[QUOTE4 + at] = value;
	fix(p, LEN4);
	assert_int_equal(decode(p, LEN4, &m), want);
}

static void what_its_addressee_did_not_send_is_refused(void **state)
{
	struct icmp_message m;
	uint8_t p[LEN6];

	quote4(0, 0x65, WIRE_BAD_ICMP_QUOTE); /* version */
	quote4(0, 0x44, WIRE_BAD_ICMP_QUOTE); /* header length */
	quote4(0, 0x46, WIRE_TRUNCATED_ICMP); /* options: its ports are further on */
	quote4(6, 0x20, WIRE_BAD_ICMP_QUOTE); /* a fragment */
	quote4(7, 1, WIRE_BAD_ICMP_QUOTE);
	quote4(9, 17, WIRE_BAD_ICMP_QUOTE); /* UDP */
	quote4(15, 3, WIRE_BAD_ICMP_QUOTE); /* from somebody else */
	quote4(16, 224, WIRE_BAD_ICMP_QUOTE); /* to a group */
	quote4(21, 0, WIRE_BAD_ICMP_QUOTE); /* from port 0 */
	make6(p, 1, 4, 0);
	p[QUOTE6 + 6] = 44;
	fix(p, LEN6);
	assert_int_equal(decode(p, LEN6, &m), WIRE_BAD_ICMP_QUOTE);
	make6(p, 1, 4, 0);
	p[QUOTE6 + 23] = 3;
	fix(p, LEN6);
	assert_int_equal(decode(p, LEN6, &m), WIRE_BAD_ICMP_QUOTE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_error_is_known),
		cmocka_unit_test(what_is_no_error_is_another_protocol),
		cmocka_unit_test(one_changed_octet_is_found),
		cmocka_unit_test(what_is_cut_short_is_found),
		cmocka_unit_test(what_its_addressee_did_not_send_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
