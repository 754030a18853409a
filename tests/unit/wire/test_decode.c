/* SPDX-License-Identifier: Apache-2.0 */
/* Packets written by hand, and each way in which one can be wrong. */
#include "wire_test.h"

/* A SYN as Linux sends it: 10.9.0.1:40000 to 10.9.0.2:7, with the five options. */
static const uint8_t linux_syn[60] = {
	0x45, 0x10, 0x00, 0x3c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2,
	/* TCP */
	0x9c, 0x40, 0x00, 0x07, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0, 0xa0, 0x02, 0xfa, 0xf0, 0, 0, 0,
	0,
	/* MSS 1460, SACK permitted, timestamps 1 and 0, NOP, window scale 7 */
	2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7
};

static void store16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* Makes both checksums of a packet right, by the naive sum. tcp: where its TCP header begins. */
static void fix(uint8_t *p, size_t len, size_t tcp)
{
	uint8_t pseudo[40] = { 0 };
	const bool v4 = p[0] >> 4 == 4;
	uint32_t sum;

	if (v4) {
		store16(p + 10, 0);
		store16(p + 10, (uint16_t)~naive_sum(p, (size_t)(p[0] & 15) * 4));
		memcpy(pseudo, p + 12, 8);
	} else {
		memcpy(pseudo, p + 8, 32);
	}
	store16(pseudo + 34, (unsigned)(len - tcp));
	pseudo[39] = 6;
	store16(p + tcp + 16, 0);
	sum = (uint32_t)naive_sum(pseudo, 40) + naive_sum(p + tcp, len - tcp);
	sum = (sum & 0xffff) + (sum >> 16);
	store16(p + tcp + 16, (uint16_t)~sum);
}

static enum wire_verdict decode(const uint8_t *p, size_t len, struct segment *seg)
{
	/* A copy of just this length: an octet read beyond it is found by the sanitizer. */
	uint8_t *exact = test_malloc(len ? len : 1);
	enum wire_verdict v;

	memcpy(exact, p, len);
	v = wire_decode(exact, len, WIRE_CHECKSUM_VERIFY, seg);
	if (v == WIRE_OK && seg->spans_n)
		seg->text[0].base = p + (seg->text[0].base - exact);
	test_free(exact);
	return v;
}

static void decodes_a_syn_with_every_option(void **state)
{
	uint8_t p[60];
	struct segment s;
	const struct ipaddr local = addr_v4(10, 9, 0, 2), remote = addr_v4(10, 9, 0, 1);

	memcpy(p, linux_syn, 60);
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_OK);
	assert_true(addr_eq(&s.flow.local.addr, &local));
	assert_true(addr_eq(&s.flow.remote.addr, &remote));
	assert_int_equal(s.flow.local.port, 7);
	assert_int_equal(s.flow.remote.port, 40000);
	assert_int_equal(s.flow.scope, 0);
	assert_int_equal(s.seq.v, 0x01020304);
	assert_int_equal(s.ctl, CTL_SYN);
	assert_int_equal(s.wnd, 0xfaf0); /* MUST-1: unsigned */
	assert_int_equal(s.ttl, 64);
	assert_int_equal(s.tos, 0x10);
	assert_int_equal(s.options, OPT_MSS | OPT_SACK_PERMITTED | OPT_TIMESTAMPS | OPT_WSCALE);
	assert_int_equal(s.mss, 1460);
	assert_int_equal(s.wscale, 7);
	assert_int_equal(s.ts_val, 1);
	assert_int_equal(s.ts_ecr, 0);
	assert_int_equal(s.spans_n, 0);
	assert_int_equal(s.link_mtu, 0);
	assert_int_equal(s.piece_bytes, 0);
}

/* A packet of `options` and 3 octets of text. Its length. */
static size_t with_options(const uint8_t *options, size_t n, uint8_t *p)
{
	const size_t padded = (n + 3) / 4 * 4;

	memcpy(p, linux_syn, 40);
	memset(p + 40, 0, padded);
	memcpy(p + 40, options, n);
	memcpy(p + 40 + padded, "abc", 3);
	p[32] = (uint8_t)((20 + padded) / 4 << 4);
	p[33] = CTL_ACK;
	store16(p + 2, (unsigned)(43 + padded));
	fix(p, 43 + padded, 20);
	return 43 + padded;
}

#define OPTIONS(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static struct segment options_of(const uint8_t *options, size_t n)
{
	static uint8_t p[128];
	struct segment s;
	const size_t len = with_options(options, n, p);

	assert_int_equal(decode(p, len, &s), WIRE_OK);
	assert_int_equal(seg_text_len(&s), 3);
	assert_memory_equal(s.text[0].base, "abc", 3);
	return s;
}

static void must_4_must_5_options_in_any_segment(void **state)
{
	struct segment s = options_of(OPTIONS(1, 1, 1, 1, 2, 4, 2, 0x18, 0));

	assert_int_equal(s.options, OPT_MSS);
	assert_int_equal(s.mss, 536);
	assert_int_equal(s.ctl, CTL_ACK);
}

static void must_64_options_at_odd_offsets(void **state)
{
	struct segment s = options_of(OPTIONS(1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 1, 2));

	assert_int_equal(s.options, OPT_MSS | OPT_TIMESTAMPS);
	assert_int_equal(s.ts_val, 0x01020304);
	assert_int_equal(s.ts_ecr, 0x05060708);
	assert_int_equal(s.mss, 0x0102);
}

static void must_6_must_68_unknown_options_are_skipped_by_their_length(void **state)
{
	struct segment s = options_of(OPTIONS(253, 6, 2, 4, 9, 9, 77, 2, 254, 3, 2, 2, 4, 5, 0xb4));

	assert_int_equal(s.options, OPT_MSS);
	assert_int_equal(s.mss, 1460);
}

static void must_7_impossible_lengths_end_the_options(void **state)
{
	/* What stands before it counts, what stands after does not. */
	assert_int_equal(options_of(OPTIONS(3, 3, 9, 77, 0, 2, 4, 5, 0xb4)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(3, 3, 9, 77, 1, 2, 4, 5, 0xb4)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(3, 3, 9, 77, 6, 2, 4, 5)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(3, 3, 9, 2, 4, 5, 1, 2)).mss, 0x501);
	/* Beyond the header, into the text; a kind alone in the last octet. */
	assert_int_equal(options_of(OPTIONS(1, 1, 2, 4)).options, 0);
	assert_int_equal(options_of(OPTIONS(1, 1, 1, 2)).options, 0);
	assert_int_equal(options_of(OPTIONS(1, 1, 1, 8)).options, 0);
	assert_int_equal(options_of(OPTIONS(2, 255, 5, 0xb4)).options, 0);
}

static void must_69_nothing_counts_after_end_of_options(void **state)
{
	assert_int_equal(options_of(OPTIONS(3, 3, 9, 0, 2, 4, 5, 0xb4)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(0, 0, 0, 0)).options, 0);
}

static void known_options_of_wrong_length_are_ignored(void **state)
{
	assert_int_equal(options_of(OPTIONS(2, 3, 5, 3, 3, 9)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(3, 4, 5, 5, 4, 2)).options, OPT_SACK_PERMITTED);
	assert_int_equal(options_of(OPTIONS(4, 3, 5, 3, 3, 9)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(8, 9, 1, 2, 3, 4, 5, 6, 7, 3, 3, 9)).options,
			 OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(5, 2, 3, 3, 9)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(34, 4, 1, 2, 3, 3, 9)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(34, 7, 1, 2, 3, 4, 5, 3, 3, 9)).options, OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(34, 2, 3, 3, 9)).options, OPT_WSCALE | OPT_FAST_OPEN);
	assert_int_equal(options_of(OPTIONS(5, 9, 0, 0, 0, 0, 0, 0, 0, 3, 3, 9)).options,
			 OPT_WSCALE);
	assert_int_equal(options_of(OPTIONS(2, 4, 0, 0)).options, 0); /* MSS 0 */
}

static void sack_blocks(void **state)
{
	uint8_t o[36] = { 1, 1, 5, 34 };
	struct segment s;

	for (uint8_t i = 4; i < 36; i++)
		o[i] = i;
	s = options_of(o, sizeof(o));
	assert_int_equal(s.options, OPT_SACK);
	assert_int_equal(s.sacks_n, 4);
	assert_int_equal(s.sacks[0].left.v, 0x04050607);
	assert_int_equal(s.sacks[0].right.v, 0x08090a0b);
	assert_int_equal(s.sacks[3].right.v, 0x20212223);
}

static void wrong_ipv4_headers(void **state)
{
	uint8_t p[100] = { 0 };
	struct segment s;

	assert_int_equal(decode(p, 0, &s), WIRE_TRUNCATED_IP);
	memcpy(p, linux_syn, 60);
	fix(p, 60, 20);
	for (size_t n = 1; n < 60; n++)
		assert_int_equal(decode(p, n, &s), WIRE_TRUNCATED_IP);
	assert_int_equal(decode(p, 60, &s), WIRE_OK);
	assert_int_equal(decode(p, 100, &s), WIRE_OK); /* Ethernet padding */
	assert_int_equal(s.spans_n, 0);
	p[0] = 0x55;
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_IP_VERSION);
	p[0] = 0x44;
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_IP_HEADER);
	p[0] = 0x45;
	store16(p + 2, 19);
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_IP_HEADER);
	store16(p + 2, 0); /* BIG TCP, of which we know nothing */
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_IP_HEADER);
	store16(p + 2, 60);
	p[8] ^= 1;
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_IP_CHECKSUM);
}

static void other_protocols_and_fragments(void **state)
{
	uint8_t p[60];
	struct segment s;

	memcpy(p, linux_syn, 60);
	p[9] = 17;
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_NOT_TCP);
	p[9] = 6;
	store16(p + 6, 0x2000);
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_FRAGMENT);
	store16(p + 6, 0x0001);
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_FRAGMENT);
	store16(p + 6, 0x8000); /* the reserved bit is nobody's business */
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_OK);
}

static void wrong_tcp_headers(void **state)
{
	uint8_t p[60];
	struct segment s;

	memcpy(p, linux_syn, 60);
	store16(p + 2, 39);
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_TRUNCATED_TCP);
	store16(p + 2, 20);
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_TRUNCATED_TCP);
	store16(p + 2, 60);
	p[32] = 0x40;
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_TCP_OFFSET);
	p[32] = 0xb0;
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_TCP_OFFSET);
	p[32] = 0xa0;
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_OK);
	p[20] = p[21] = 0;
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_PORT);
	p[21] = 9;
	p[22] = p[23] = 0;
	fix(p, 60, 20);
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_PORT);
}

static void must_3_every_wrong_bit_is_found(void **state)
{
	uint8_t p[60];
	struct segment s;

	memcpy(p, linux_syn, 60);
	fix(p, 60, 20);
	for (unsigned bit = 20 * 8; bit < 60 * 8; bit++) {
		p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (bit / 8 != 32) /* the data offset is looked at first */
			assert_int_equal(decode(p, 60, &s), WIRE_BAD_TCP_CHECKSUM);
		p[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	p[50] ^= 1;
	assert_int_equal(wire_decode(p, 60, WIRE_CHECKSUM_TRUSTED, &s), WIRE_OK);
}

static void must_57_must_63_addresses_nobody_may_talk_from_or_to(void **state)
{
	static const uint8_t bad[][4] = {
		{ 0, 0, 0, 0 }, { 255, 255, 255, 255 }, { 224, 0, 0, 1 }, { 239, 255, 255, 255 }
	};
	struct segment s;
	uint8_t p[60];

	for (unsigned i = 0; i < 4; i++)
		for (unsigned at = 12; at <= 16; at += 4) {
			memcpy(p, linux_syn, 60);
			memcpy(p + at, bad[i], 4);
			fix(p, 60, 20);
			assert_int_equal(decode(p, 60, &s), WIRE_BAD_ADDRESS);
		}
}

static void must_50_ip_options_are_skipped(void **state)
{
	uint8_t p[100];
	struct segment s;

	for (size_t n = 4; n <= 40; n += 4) {
		memcpy(p, linux_syn, 20);
		memset(p + 20, 0x94, n); /* nonsense: not even looked at */
		memcpy(p + 20 + n, linux_syn + 20, 40);
		p[0] = (uint8_t)(0x45 + n / 4);
		store16(p + 2, (unsigned)(60 + n));
		fix(p, 60 + n, 20 + n);
		assert_int_equal(decode(p, 60 + n, &s), WIRE_OK);
		assert_int_equal(s.seq.v, 0x01020304);
		assert_int_equal(s.mss, 1460);
	}
}

/* IPv6 with `extensions` between the headers: 2001:db8::1 to 2001:db8::2. Its length. */
static size_t ip6(uint8_t next, const uint8_t *extensions, size_t n, uint8_t *p)
{
	memset(p, 0, 40);
	p[0] = 0x6a; /* traffic class 0xab */
	p[1] = 0xb1; /* and a flow label */
	store16(p + 4, (unsigned)(n + 40));
	p[6] = next;
	p[7] = 61;
	p[8] = p[24] = 0x20;
	p[9] = p[25] = 0x01;
	p[23] = 1;
	p[39] = 2;
	if (n)
		memcpy(p + 40, extensions, n);
	memcpy(p + 40 + n, linux_syn + 20, 40);
	fix(p, 80 + n, 40 + n);
	return 80 + n;
}

static enum wire_verdict decode6(uint8_t next, const uint8_t *extensions, size_t n)
{
	uint8_t p[400];
	struct segment s;
	const size_t len = ip6(next, extensions, n, p);
	const enum wire_verdict v = decode(p, len, &s);

	if (v == WIRE_OK) {
		assert_int_equal(s.flow.local.addr.b[15], 2);
		assert_int_equal(s.flow.remote.addr.b[15], 1);
		assert_int_equal(s.tos, 0xab);
		assert_int_equal(s.ttl, 61);
		assert_int_equal(s.mss, 1460);
	}
	return v;
}

static void ipv6_plain(void **state)
{
	uint8_t p[200] = { 0 };
	struct segment s;
	const size_t len = ip6(6, NULL, 0, p);

	assert_int_equal(decode6(6, NULL, 0), WIRE_OK);
	for (size_t n = 1; n < len; n++)
		assert_int_equal(decode(p, n, &s), WIRE_TRUNCATED_IP);
	assert_int_equal(decode(p, len + 7, &s), WIRE_OK);
	assert_int_equal(decode6(17, NULL, 0), WIRE_NOT_TCP);
	assert_int_equal(decode6(59, NULL, 0), WIRE_NOT_TCP);
	assert_int_equal(decode6(50, NULL, 0), WIRE_NOT_TCP);
}

static void ipv6_extension_headers(void **state)
{
	/* hop-by-hop with a router alert, destination options of 16, routing done, atomic fragment */
	assert_int_equal(decode6(0, OPTIONS(6, 0, 5, 2, 0, 0, 1, 0)), WIRE_OK);
	assert_int_equal(decode6(60, OPTIONS(6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
			 WIRE_OK);
	assert_int_equal(decode6(43, OPTIONS(6, 0, 0, 0, 0, 0, 0, 0)), WIRE_OK);
	assert_int_equal(decode6(44, OPTIONS(6, 0, 0, 0, 1, 2, 3, 4)), WIRE_OK);
	assert_int_equal(decode6(0, OPTIONS(60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 6, 0,
					    0, 0, 9, 9, 9, 9)),
			 WIRE_OK);
	assert_int_equal(decode6(60, OPTIONS(58, 0, 1, 4, 0, 0, 0, 0)), WIRE_NOT_TCP);
}

static void ipv6_fragments(void **state)
{
	assert_int_equal(decode6(44, OPTIONS(6, 0, 0, 1, 1, 2, 3, 4)), WIRE_FRAGMENT);
	assert_int_equal(decode6(44, OPTIONS(6, 0, 0, 8, 1, 2, 3, 4)), WIRE_FRAGMENT);
	assert_int_equal(decode6(44, OPTIONS(6, 0, 0x80, 0, 1, 2, 3, 4)), WIRE_FRAGMENT);
	assert_int_equal(decode6(44, OPTIONS(6, 0, 0, 6, 1, 2, 3, 4)), WIRE_OK); /* reserved bits */
}

static void ipv6_impossible_extension_headers(void **state)
{
	uint8_t many[9 * 8] = { 0 };
	uint8_t p[128];
	struct segment s;
	size_t len;

	/* segments left; hop-by-hop not first; longer than the packet; cut short */
	assert_int_equal(decode6(43, OPTIONS(6, 0, 0, 1, 0, 0, 0, 0)), WIRE_BAD_IP_HEADER);
	assert_int_equal(decode6(60, OPTIONS(0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0)),
			 WIRE_BAD_IP_HEADER);
	assert_int_equal(decode6(60, OPTIONS(6, 255, 1, 4, 0, 0, 0, 0)), WIRE_BAD_IP_HEADER);
	len = ip6(60, OPTIONS(6, 0, 1, 4, 0, 0, 0, 0), p);
	for (unsigned n = 0; n < 8; n++) {
		store16(p + 4, n);
		assert_int_equal(decode(p, len, &s), WIRE_BAD_IP_HEADER);
	}
	/* options: discard-if-unknown (the jumbo payload is one), and lengths that overrun */
	assert_int_equal(decode6(0, OPTIONS(6, 0, 0xc2, 4, 0, 1, 0, 0)), WIRE_BAD_IP_HEADER);
	assert_int_equal(decode6(60, OPTIONS(6, 0, 0x7e, 0, 0, 0, 0, 0)), WIRE_BAD_IP_HEADER);
	assert_int_equal(decode6(60, OPTIONS(6, 0, 1, 5, 0, 0, 0, 0)), WIRE_BAD_IP_HEADER);
	assert_int_equal(decode6(60, OPTIONS(6, 0, 0, 0, 0, 0, 0, 1)), WIRE_BAD_IP_HEADER);
	/* eight are skipped, nine are not */
	for (unsigned i = 0; i < 9; i++) {
		many[i * 8] = 60;
		many[i * 8 + 2] = 1;
		many[i * 8 + 3] = 4;
	}
	many[7 * 8] = 6;
	assert_int_equal(decode6(60, many, 64), WIRE_OK);
	many[7 * 8] = 60;
	many[8 * 8] = 6;
	assert_int_equal(decode6(60, many, 72), WIRE_BAD_IP_HEADER);
}

static void ipv6_bad_addresses(void **state)
{
	static const uint8_t bad[][16] = { { 0 },
					   { 0xff, 2, [15] = 1 },
					   { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1 } };
	uint8_t p[128];
	struct segment s;

	for (unsigned i = 0; i < 3; i++)
		for (unsigned at = 8; at <= 24; at += 16) {
			const size_t len = ip6(6, NULL, 0, p);

			memcpy(p + at, bad[i], 16);
			fix(p, len, 40);
			assert_int_equal(decode(p, len, &s), WIRE_BAD_ADDRESS);
		}
}

static void result_is_untouched_unless_ok(void **state)
{
	struct segment s, before;
	uint8_t p[60];

	memset(&s, 0x5a, sizeof(s));
	before = s;
	memcpy(p, linux_syn, 60);
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_IP_CHECKSUM);
	fix(p, 60, 20);
	p[22] = 1;
	assert_int_equal(decode(p, 60, &s), WIRE_BAD_TCP_CHECKSUM);
	assert_memory_equal(&s, &before, sizeof(s));
}

static void every_verdict_has_a_key(void **state)
{
	for (unsigned v = 0; v < WIRE__COUNT; v++)
		assert_true(strlen(wire_verdict_key((enum wire_verdict)v)) > 1);
	assert_string_equal(wire_verdict_key(WIRE_BAD_PORT), "bad_port");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes_a_syn_with_every_option),
		cmocka_unit_test(must_4_must_5_options_in_any_segment),
		cmocka_unit_test(must_64_options_at_odd_offsets),
		cmocka_unit_test(must_6_must_68_unknown_options_are_skipped_by_their_length),
		cmocka_unit_test(must_7_impossible_lengths_end_the_options),
		cmocka_unit_test(must_69_nothing_counts_after_end_of_options),
		cmocka_unit_test(known_options_of_wrong_length_are_ignored),
		cmocka_unit_test(sack_blocks),
		cmocka_unit_test(wrong_ipv4_headers),
		cmocka_unit_test(other_protocols_and_fragments),
		cmocka_unit_test(wrong_tcp_headers),
		cmocka_unit_test(must_3_every_wrong_bit_is_found),
		cmocka_unit_test(must_57_must_63_addresses_nobody_may_talk_from_or_to),
		cmocka_unit_test(must_50_ip_options_are_skipped),
		cmocka_unit_test(ipv6_plain),
		cmocka_unit_test(ipv6_extension_headers),
		cmocka_unit_test(ipv6_fragments),
		cmocka_unit_test(ipv6_impossible_extension_headers),
		cmocka_unit_test(ipv6_bad_addresses),
		cmocka_unit_test(result_is_untouched_unless_ok),
		cmocka_unit_test(every_verdict_has_a_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
