/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding against decoding, layouts by hand, pieces against a model, a device's checksum. */
#include "wire_test.h"

enum { POOL = 65536, ROUNDS = 3000 };

static uint8_t pool[POOL], packet[POOL + 200], text[POOL];

static int fill_pool(void **state)
{
	uint64_t r = 77;

	random_fill(&r, pool, sizeof(pool));
	return 0;
}

/* Room for SACK blocks beside the other options. */
static unsigned sacks_expected(const struct segment *s)
{
	const unsigned others = (s->options & OPT_MSS ? 4 : 0) + (s->options & OPT_WSCALE ? 4 : 0) +
				(s->options & OPT_TIMESTAMPS       ? 12
				 : s->options & OPT_SACK_PERMITTED ? 4
								   : 0);
	const unsigned room = (40 - others - 4) / 8;

	return s->options & OPT_SACK ? (s->sacks_n < room ? s->sacks_n : room) : 0;
}

static void copy_text(const struct segment *s, uint8_t *out)
{
	for (unsigned i = 0; i < s->spans_n; i++) {
		memcpy(out, s->text[i].base, s->text[i].len);
		out += s->text[i].len;
	}
}

static void assert_same(const struct segment *sent, const struct segment *got)
{
	const struct flow flow = flow_reversed(got->flow);
	const unsigned sacks = sacks_expected(sent);

	assert_true(flow_eq(&sent->flow, &flow));
	assert_int_equal(got->seq.v, sent->seq.v);
	assert_int_equal(got->ack.v, sent->ctl & CTL_ACK ? sent->ack.v : 0);
	assert_int_equal(got->ctl, sent->ctl);
	assert_int_equal(got->wnd, sent->wnd);
	assert_int_equal(got->urgent, sent->urgent);
	assert_int_equal(got->ttl, sent->ttl);
	assert_int_equal(got->tos, sent->tos);
	assert_int_equal(got->options, sent->options & (sacks ? 0xff : ~OPT_SACK));
	assert_int_equal(got->mss, sent->mss);
	assert_int_equal(got->wscale, sent->wscale);
	assert_int_equal(got->ts_val, sent->ts_val);
	assert_int_equal(got->ts_ecr, sent->ts_ecr);
	assert_int_equal(got->sacks_n, sacks);
	assert_memory_equal(got->sacks, sent->sacks, sacks * sizeof(sent->sacks[0]));
	assert_int_equal(seg_text_len(got), seg_text_len(sent));
	copy_text(sent, text);
	if (got->spans_n)
		assert_memory_equal(got->text[0].base, text, got->text[0].len);
}

/* MUST-2. */
static void what_is_encoded_decodes_to_the_same(void **state)
{
	uint64_t r = 5;

	for (unsigned i = 0; i < ROUNDS; i++) {
		const struct segment s = random_segment(&r, pool, POOL);
		struct wire_header h;
		struct segment got;
		size_t len;

		wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
		assert_int_equal(h.len, h.ip_len + 20 + wire_options_len(&s));
		assert_int_equal(wire_options_len(&s) % 4, 0);
		assert_true(wire_options_len(&s) <= 40);
		len = gather(&h, &s, packet);
		if (h.ip_len == 20) {
			assert_int_equal(packet[4] << 8 | packet[5], s.ip_id);
			assert_int_equal(packet[6] << 8 | packet[7], 0x4000);
		} else { /* RFC 6437 2 */
			assert_int_equal((packet[1] & 15) << 16 | packet[2] << 8 | packet[3],
					 s.flow_label);
		}
		assert_int_equal(wire_decode(packet, len, WIRE_CHECKSUM_VERIFY, &got), WIRE_OK);
		assert_same(&s, &got);
	}
}

static void a_device_finishes_a_partial_checksum_to_the_full_one(void **state)
{
	uint64_t r = 6;

	for (unsigned i = 0; i < ROUNDS; i++) {
		const struct segment s = random_segment(&r, pool, POOL);
		struct wire_header full, partial;
		uint16_t sum;
		size_t len;

		wire_encode(&s, WIRE_FULL_CHECKSUM, &full);
		wire_encode(&s, WIRE_PARTIAL_CHECKSUM, &partial);
		len = gather(&partial, &s, packet);
		/* From csum_start to the end, into csum_start + csum_offset. */
		sum = (uint16_t)~naive_sum(packet + partial.ip_len, len - partial.ip_len);
		packet[partial.ip_len + 16] = (uint8_t)(sum >> 8);
		packet[partial.ip_len + 17] = (uint8_t)sum;
		assert_memory_equal(packet, full.bytes, full.len);
	}
}

static struct segment small(void)
{
	return (struct segment){ .flow = { .local = { addr_v4(10, 0, 0, 2), 7 },
					   .remote = { addr_v4(10, 0, 0, 1), 9 } },
				 .seq = { 0x01020304 },
				 .ack = { 0x05060708 },
				 .wnd = 0x1234,
				 .ttl = 64,
				 .mss = 1460,
				 .wscale = 7,
				 .ts_val = 1,
				 .ts_ecr = 2 };
}

/* What the words of a list are on the wire. */
static size_t octets_of(const char *list, uint8_t out[static 40])
{
	static const struct {
		const char *word;
		uint8_t n, octets[18];
	} words[] = {
		{ "eol", 1, { 0 } },
		{ "nop", 1, { 1 } },
		{ "mss", 4, { 2, 4, 5, 0xb4 } },
		{ "wscale", 3, { 3, 3, 7 } },
		{ "sackOK", 2, { 4, 2 } },
		{ "TS", 10, { 8, 10, 0, 0, 0, 1, 0, 0, 0, 2 } },
		{ "uto", 4, { 28, 4, 0x81, 0x2c } },
		{ "sack", 10, { 5, 10, 0, 0, 0, 5, 0, 0, 0, 9 } },
		{ "sack2", 18, { 5, 18, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 15, 0, 0, 0, 19 } },
	};
	size_t at = 0;

	for (const char *p = list; *p; p += strspn(p, ",")) {
		const size_t len = strcspn(p, ",");
		size_t w = 0;

		while (w < ARRAY_SIZE(words) &&
		       (strlen(words[w].word) != len || strncmp(words[w].word, p, len) != 0))
			w++;
		assert_true(w < ARRAY_SIZE(words));
		memcpy(out + at, words[w].octets, words[w].n);
		at += words[w].n;
		p += len;
	}
	return at;
}

static void check_layout(uint8_t layout, uint8_t options, const char *list)
{
	struct segment s = small();
	struct wire_header h;
	uint8_t want[40];
	const size_t n = octets_of(list, want);

	s.ctl = options & OPT_MSS ? CTL_SYN : CTL_ACK;
	s.layout = layout;
	s.options = options;
	s.user_timeout = 0x812c; /* 300 minutes */
	s.sacks_n = strstr(list, "sack2") ? 2 : 1;
	s.sacks[0] = (struct sack_block){ { 5 }, { 9 } };
	s.sacks[1] = (struct sack_block){ { 15 }, { 19 } };
	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	assert_int_equal(wire_options_len(&s), n);
	assert_int_equal(h.len, 40 + n);
	assert_memory_equal(h.bytes + 40, want, n);
	assert_int_equal(h.bytes[32] >> 4, 5 + n / 4); /* the data offset */
}

enum {
	M = OPT_MSS,
	W = OPT_WSCALE,
	P = OPT_SACK_PERMITTED,
	T = OPT_TIMESTAMPS,
	S = OPT_SACK,
	U = OPT_USER_TIMEOUT
};

/* Every combination that two ends can agree on: tcp_options_write() of net/ipv4/tcp_output.c. */
static void options_are_laid_out_as_linux_does(void **state)
{
	check_layout(LAYOUT_LINUX, M, "mss");
	check_layout(LAYOUT_LINUX, M | W, "mss,nop,wscale");
	check_layout(LAYOUT_LINUX, M | P, "mss,nop,nop,sackOK");
	check_layout(LAYOUT_LINUX, M | P | W, "mss,nop,nop,sackOK,nop,wscale");
	check_layout(LAYOUT_LINUX, M | T, "mss,nop,nop,TS");
	check_layout(LAYOUT_LINUX, M | T | W, "mss,nop,nop,TS,nop,wscale");
	check_layout(LAYOUT_LINUX, M | P | T, "mss,sackOK,TS");
	check_layout(LAYOUT_LINUX, M | P | T | W, "mss,sackOK,TS,nop,wscale");
	check_layout(LAYOUT_LINUX, 0, "");
	check_layout(LAYOUT_LINUX, T, "nop,nop,TS");
	check_layout(LAYOUT_LINUX, S, "nop,nop,sack");
	check_layout(LAYOUT_LINUX, T | S, "nop,nop,TS,nop,nop,sack2");
}

/* RFC 5482: behind what each system has. */
static void the_user_timeout_stands_last(void **state)
{
	check_layout(LAYOUT_LINUX, M | P | T | W | U, "mss,sackOK,TS,nop,wscale,uto");
	check_layout(LAYOUT_LINUX, T | U | S, "nop,nop,TS,uto,nop,nop,sack");
	check_layout(LAYOUT_FREEBSD, M | P | T | W | U, "mss,nop,wscale,sackOK,TS,uto");
	check_layout(LAYOUT_FREEBSD, M | P | U, "mss,sackOK,uto,eol,eol");
	check_layout(LAYOUT_FREEBSD, T | U, "nop,nop,TS,uto");
}

/* To be ignored, in seconds and in minutes. */
static void rfc5482_3_3_a_user_timeout_of_zero_is_reserved(void **state)
{
	struct segment s = small(), got;
	struct wire_header h;

	s.options = OPT_USER_TIMEOUT;
	for (unsigned i = 0; i < 4; i++) {
		s.user_timeout = (uint16_t)((i & 1) << 15 | i >> 1);
		wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
		assert_int_equal(
			wire_decode(packet, gather(&h, &s, packet), WIRE_CHECKSUM_VERIFY, &got),
			WIRE_OK);
		assert_int_equal(got.options, i >> 1 ? OPT_USER_TIMEOUT : 0);
		assert_int_equal(got.user_timeout, i >> 1 ? s.user_timeout : 0);
	}
}

/* tcp_addoptions() of sys/netinet/tcp_output.c. */
static void options_are_laid_out_as_freebsd_does(void **state)
{
	check_layout(LAYOUT_FREEBSD, M, "mss");
	check_layout(LAYOUT_FREEBSD, M | W, "mss,nop,wscale");
	check_layout(LAYOUT_FREEBSD, M | P, "mss,sackOK,eol,eol");
	check_layout(LAYOUT_FREEBSD, M | P | W, "mss,nop,wscale,sackOK,eol,eol");
	check_layout(LAYOUT_FREEBSD, M | T, "mss,nop,nop,TS");
	check_layout(LAYOUT_FREEBSD, M | T | W, "mss,nop,wscale,nop,nop,TS");
	check_layout(LAYOUT_FREEBSD, M | P | T, "mss,sackOK,TS");
	check_layout(LAYOUT_FREEBSD, M | P | T | W, "mss,nop,wscale,sackOK,TS");
	check_layout(LAYOUT_FREEBSD, 0, "");
	check_layout(LAYOUT_FREEBSD, T, "nop,nop,TS");
	check_layout(LAYOUT_FREEBSD, S, "nop,nop,sack");
	check_layout(LAYOUT_FREEBSD, T | S, "nop,nop,TS,nop,nop,sack2");
}

/* RFC 7413 2: 4 to 16 octets or none, beside all that a SYN may have; words stay aligned. */
static void fast_open_cookies_of_every_length(void **state)
{
	struct segment s = small(), got;
	struct wire_header h;

	s.ctl = CTL_SYN;
	s.options = OPT_MSS | OPT_SACK_PERMITTED | OPT_TIMESTAMPS | OPT_WSCALE | OPT_FAST_OPEN;
	memcpy(s.fast_open, "0123456789abcdef", SEG_FAST_OPEN);
	for (unsigned n = 0; n <= 2 * SEG_FAST_OPEN; n += n % SEG_FAST_OPEN == 0 ? 4 : 2) {
		s.layout = n > SEG_FAST_OPEN ? LAYOUT_FREEBSD : LAYOUT_LINUX;
		s.fast_open_n = (uint8_t)(n > SEG_FAST_OPEN ? n - SEG_FAST_OPEN : n);
		wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
		assert_int_equal(h.len % 4, 0);
		assert_true(h.len <= 80);
		assert_int_equal(wire_decode(h.bytes, h.len, WIRE_CHECKSUM_VERIFY, &got), WIRE_OK);
		assert_int_equal(got.options, s.options);
		assert_int_equal(got.fast_open_n, s.fast_open_n);
		assert_memory_equal(got.fast_open, s.fast_open, s.fast_open_n);
		assert_int_equal(got.wscale, 7);
	}
}

static void a_header_by_hand(void **state)
{
	static const uint8_t expected[40] = { 0x45, 0x2e, 0, 43, 0xab, 0xcd, 0x40, 0, 64, 6, 0x7a,
					      0xcf, 10, 0, 0, 2, 10, 0, 0, 1,
					      /* TCP */
					      0, 7, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0x12,
					      0x34, 0xb5, 0x0c, 0, 0 };
	struct segment s = small();
	struct wire_header h;

	s.tos = 0x2e;
	s.ip_id = 0xabcd;
	s.ctl = CTL_ACK | CTL_PSH;
	s.urgent = 99; /* without URG it is nothing */
	s.text[0] = (struct span){ (const uint8_t *)"a", 1 };
	s.text[1] = (struct span){ (const uint8_t *)"bc", 2 };
	s.spans_n = 2;
	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	assert_int_equal(h.len, 40);
	assert_memory_equal(h.bytes, expected, 40);
}

static void the_largest_super_segment_fits(void **state)
{
	struct segment s = small(), got;
	struct wire_header h;

	s.options = OPT_TIMESTAMPS | OPT_SACK;
	s.sacks_n = 4; /* three of them fit: 20 + 40 octets of header */
	s.text[0] = (struct span){ pool, SEG_TEXT_MAX };
	s.spans_n = 1;
	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	assert_int_equal(h.len + SEG_TEXT_MAX, 65535);
	assert_int_equal(wire_decode(packet, gather(&h, &s, packet), WIRE_CHECKSUM_VERIFY, &got),
			 WIRE_OK);
	assert_int_equal(got.sacks_n, 3);
	assert_int_equal(seg_text_len(&got), SEG_TEXT_MAX);
}

/* One octet at a time: which sequence number does it have? Does each piece say what it should? */
static void check_pieces(const struct segment *super)
{
	const uint32_t len = seg_text_len(super);
	const uint32_t step = super->piece_bytes ? super->piece_bytes : len;
	const uint32_t pieces = len ? (len + step - 1) / step : 1;
	struct segment p;
	uint32_t offset = 0, done = 0;

	copy_text(super, text);
	for (uint32_t n = 0; n < pieces; n++) {
		const uint32_t want = len - done < step ? len - done : step;
		const bool first = n == 0, last = n == pieces - 1;
		uint32_t at = done;

		assert_true(wire_next_piece(super, &offset, &p));
		assert_int_equal(p.piece_bytes, 0);
		assert_int_equal(p.ip_id, (uint16_t)(super->ip_id + n));
		assert_int_equal(seg_text_len(&p), want);
		assert_int_equal(p.seq.v, (uint32_t)(super->seq.v + done +
						     (first || !(super->ctl & CTL_SYN) ? 0 : 1)));
		for (unsigned i = 0; i < p.spans_n; i++) {
			assert_true(p.text[i].len > 0);
			assert_memory_equal(p.text[i].base, text + at, p.text[i].len);
			at += p.text[i].len;
		}
		assert_int_equal(p.ctl & (CTL_FIN | CTL_PSH),
				 last ? super->ctl & (CTL_FIN | CTL_PSH) : 0);
		assert_int_equal(p.ctl & (CTL_SYN | CTL_CWR),
				 first ? super->ctl & (CTL_SYN | CTL_CWR) : 0);
		assert_int_equal(p.ctl & (CTL_ACK | CTL_ECE | CTL_RST),
				 super->ctl & (CTL_ACK | CTL_ECE | CTL_RST));
		if (p.ctl & CTL_URG)
			assert_int_equal((uint32_t)(p.seq.v + p.urgent),
					 (uint32_t)(super->seq.v + super->urgent));
		assert_int_equal(p.options, super->options);
		assert_int_equal(p.ack.v, super->ack.v);
		done += want;
	}
	assert_int_equal(done, len);
	assert_false(wire_next_piece(super, &offset, &p));
	assert_false(wire_next_piece(super, &offset, &p));
}

static void pieces_are_what_a_naive_cut_gives(void **state)
{
	uint64_t r = 8;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct segment s = random_segment(&r, pool, POOL);

		s.piece_bytes = (uint16_t)random_below(&r, random_below(&r, 2) ? 1500 : 20);
		check_pieces(&s);
	}
}

static void pieces_at_the_edges(void **state)
{
	struct segment s = small();

	s.ctl = CTL_ACK | CTL_FIN | CTL_PSH | CTL_CWR;
	s.piece_bytes = 100;
	check_pieces(&s); /* no text at all */
	s.spans_n = 3;
	s.text[0] = (struct span){ pool, 150 };
	s.text[1] = (struct span){ pool + 500, 0 };
	s.text[2] = (struct span){ pool + 1000, 150 };
	for (uint16_t n = 0; n < 310; n++) {
		s.piece_bytes = n;
		check_pieces(&s);
	}
	s.seq.v = UINT32_MAX - 120; /* across the end of sequence space */
	s.piece_bytes = 100;
	check_pieces(&s);
}

static void must_62_urgent_pointers_move_with_the_pieces(void **state)
{
	struct segment s = small(), p;
	uint32_t offset = 0;

	s.ctl = CTL_ACK | CTL_URG;
	s.urgent = 150;
	s.piece_bytes = 100;
	s.spans_n = 1;
	s.text[0] = (struct span){ pool, 300 };
	assert_true(wire_next_piece(&s, &offset, &p));
	assert_true(p.ctl & CTL_URG);
	assert_int_equal(p.urgent, 150);
	assert_true(wire_next_piece(&s, &offset, &p));
	assert_true(p.ctl & CTL_URG);
	assert_int_equal(p.urgent, 50);
	assert_true(wire_next_piece(&s, &offset, &p));
	assert_false(p.ctl & CTL_URG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_decodes_to_the_same),
		cmocka_unit_test(a_device_finishes_a_partial_checksum_to_the_full_one),
		cmocka_unit_test(options_are_laid_out_as_linux_does),
		cmocka_unit_test(fast_open_cookies_of_every_length),
		cmocka_unit_test(options_are_laid_out_as_freebsd_does),
		cmocka_unit_test(the_user_timeout_stands_last),
		cmocka_unit_test(rfc5482_3_3_a_user_timeout_of_zero_is_reserved),
		cmocka_unit_test(a_header_by_hand),
		cmocka_unit_test(the_largest_super_segment_fits),
		cmocka_unit_test(pieces_are_what_a_naive_cut_gives),
		cmocka_unit_test(pieces_at_the_edges),
		cmocka_unit_test(must_62_urgent_pointers_move_with_the_pieces),
	};

	return cmocka_run_group_tests(tests, fill_pool, NULL);
}
