/* SPDX-License-Identifier: Apache-2.0 */
/* The input is an IP packet, and also an Ethernet frame that may ask for a neighbour. What decodes is
 * encoded, must decode again, and must say the same; its pieces must add up.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of just its length, so that an octet read beyond it is noticed. */
static uint8_t *exact_copy(const uint8_t *data, size_t size)
{
	uint8_t *p = malloc(size ? size : 1);

	assert(p);
	if (size)
		memcpy(p, data, size);
	return p;
}

/* Few random inputs have a right IPv4 header checksum. */
static void fix_ip4_checksum(uint8_t *p, size_t size)
{
	const size_t header = size ? (size_t)(p[0] & 15) * 4 : 0;
	uint16_t sum;

	if (header < 20 || header > size || p[0] >> 4 != 4)
		return;
	memset(p + 10, 0, 2);
	sum = (uint16_t)~wire_sum_fold(wire_sum(0, p, header));
	memcpy(p + 10, &sum, sizeof(sum));
}

/* ICMP in IPv4 without options. */
static void fix_icmp_checksum(uint8_t *p, size_t size)
{
	const size_t end = size >= 28 ? (size_t)p[2] << 8 | p[3] : 0;
	uint16_t sum;

	if (end < 28 || end > size || p[0] != 0x45 || p[9] != 1)
		return;
	memset(p + 22, 0, 2);
	sum = (uint16_t)~wire_sum_fold(wire_sum(0, p + 20, end - 20));
	memcpy(p + 22, &sum, sizeof(sum));
}

static void check_within(const struct segment *s, const uint8_t *p, size_t size)
{
	assert(s->spans_n <= 1 && s->sacks_n <= SEG_SACKS);
	assert(!(s->options & OPT_SACK) == !s->sacks_n);
	if (s->spans_n)
		assert(s->text[0].len > 0 && s->text[0].base > p &&
		       s->text[0].base + s->text[0].len <= p + size);
}

/* b is a, encoded, decoded by the other side. */
static void check_same(const struct segment *a, const struct segment *b)
{
	assert(endpoint_eq(&a->flow.local, &b->flow.remote));
	assert(endpoint_eq(&a->flow.remote, &b->flow.local));
	assert(seq_eq(a->seq, b->seq) && a->ctl == b->ctl && a->wnd == b->wnd);
	assert(!(a->ctl & CTL_ACK) || seq_eq(a->ack, b->ack));
	assert(!(a->ctl & CTL_URG) || a->urgent == b->urgent);
	assert(a->ttl == b->ttl && a->tos == b->tos);
	/* SACK blocks give way when options were packed tighter than we pack them. */
	assert((a->options & ~OPT_SACK) == (b->options & ~OPT_SACK) && b->sacks_n <= a->sacks_n);
	assert(!memcmp(a->sacks, b->sacks, b->sacks_n * sizeof(b->sacks[0])));
	assert(a->mss == b->mss && a->wscale == b->wscale);
	assert(a->ts_val == b->ts_val && a->ts_ecr == b->ts_ecr);
	assert(seg_text_len(a) == seg_text_len(b));
	if (a->spans_n)
		assert(!memcmp(a->text[0].base, b->text[0].base, a->text[0].len));
}

static void check_round_trip(const struct segment *s)
{
	const uint32_t text = seg_text_len(s);
	struct segment again;
	struct wire_header h;
	uint8_t *p;

	if (text > SEG_TEXT_MAX)
		return; /* more than we would ever send */
	wire_encode(s, WIRE_FULL_CHECKSUM, &h);
	assert(h.len <= WIRE_HEADER_MAX && h.len == h.ip_len + 20 + wire_options_len(s));
	p = malloc(h.len + text);
	assert(p);
	memcpy(p, h.bytes, h.len);
	if (text)
		memcpy(p + h.len, s->text[0].base, text);
	assert(wire_decode(p, h.len + text, WIRE_CHECKSUM_VERIFY, &again) == WIRE_OK);
	check_same(s, &again);
	free(p);
}

static void check_pieces(const struct segment *s)
{
	struct segment super = *s, piece;
	uint32_t offset = 0, text = 0, fins = 0;

	super.piece_bytes = s->wnd % 300;
	while (wire_next_piece(&super, &offset, &piece)) {
		const uint32_t n = seg_text_len(&piece);

		assert(n > 0 || text == 0);
		assert(super.piece_bytes == 0 || n <= super.piece_bytes);
		if (n)
			assert(piece.text[0].base == s->text[0].base + text);
		text += n;
		fins += !!(piece.ctl & CTL_FIN);
	}
	assert(text == seg_text_len(s) && fins == !!(s->ctl & CTL_FIN));
}

static void decode(const uint8_t *p, size_t size)
{
	struct segment trusted, verified;
	const enum wire_verdict t = wire_decode(p, size, WIRE_CHECKSUM_TRUSTED, &trusted);
	const enum wire_verdict v = wire_decode(p, size, WIRE_CHECKSUM_VERIFY, &verified);

	assert(wire_verdict_key(t) && wire_verdict_key(v));
	assert(v == t || v == WIRE_BAD_TCP_CHECKSUM);
	if (t != WIRE_OK)
		return;
	check_within(&trusted, p, size);
	check_round_trip(&trusted);
	check_pieces(&trusted);
	if (v == WIRE_OK)
		assert(!memcmp(&trusted, &verified, offsetof(struct segment, text)) &&
		       (!trusted.spans_n || (trusted.text[0].base == verified.text[0].base &&
					     trusted.text[0].len == verified.text[0].len)));
}

static void decode_icmp(const uint8_t *p, size_t size)
{
	struct icmp_message m = { 0 };
	const enum wire_verdict v = wire_decode_icmp(p, size, &m);

	assert(wire_verdict_key(v) && v != WIRE_OK);
	if (v != WIRE_ICMP) {
		assert(m.error == ICMP_ERR_NONE);
		return;
	}
	assert(m.error > ICMP_ERR_NONE && m.error < ICMP_ERR__COUNT);
	assert(m.flow.local.port && m.flow.remote.port && !m.flow.scope);
	assert(addr_is_v4(&m.flow.local.addr) == addr_is_v4(&m.flow.remote.addr));
	assert(m.mtu == 0 || m.error == ICMP_ERR_TOO_BIG);
}

static void ask_neighbour(const uint8_t *p, size_t size)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };
	uint8_t out[WIRE_NEIGH_MAX];
	struct ipaddr target;
	const bool asked = wire_neigh_query(p, size, &target);
	const size_t n = wire_neigh_answer(p, size, mac, out);

	assert(asked == (n > 0) && n <= sizeof(out));
	if (!asked)
		return;
	assert(!addr_is_any(&target) && !addr_is_multicast(&target));
	assert(!memcmp(out + 6, mac, 6) && !wire_neigh_query(out, n, &target));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *p = exact_copy(data, size);

	decode(p, size);
	decode_icmp(p, size);
	ask_neighbour(p, size);
	fix_ip4_checksum(p, size);
	decode(p, size);
	fix_icmp_checksum(p, size);
	decode_icmp(p, size);
	free(p);
	return 0;
}
