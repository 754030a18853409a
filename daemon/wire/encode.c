/* SPDX-License-Identifier: Apache-2.0 */
/* A segment becomes IP and TCP headers; a super-segment becomes its pieces. */
#include "wire.h"

#include <assert.h>

#include "octets.h"

/* SACK blocks that fit beside the other options, whose length is `used`. */
static unsigned sacks_that_fit(const struct segment *seg, unsigned used)
{
	const unsigned room = used + 4 > TCP_OPTIONS_MAX ? 0 : (TCP_OPTIONS_MAX - used - 4) / 8;

	if (!(seg->options & OPT_SACK))
		return 0;
	return seg->sacks_n < room ? seg->sacks_n : room;
}

/* With the NOPs in front that keep words aligned. */
static unsigned fast_open_len(const struct segment *seg)
{
	return (2U + seg->fast_open_n + 3U) / 4 * 4;
}

/* Octets of everything but SACK, in FreeBSD's layout: only what needs an alignment is aligned, before it. */
static unsigned fixed_options_freebsd(const struct segment *seg)
{
	unsigned len = seg->options & OPT_MSS ? 4 : 0;

	if (seg->options & OPT_WSCALE)
		len += 4; /* behind a NOP */
	if (seg->options & OPT_SACK_PERMITTED)
		len += 2;
	if (seg->options & OPT_TIMESTAMPS)
		len += len % 4 == 2 ? 10 : 12;
	if (seg->options & OPT_FAST_OPEN)
		len += 2U + seg->fast_open_n;
	if (seg->options & OPT_USER_TIMEOUT)
		len += 4;
	return (len + 3) / 4 * 4;
}

/* Octets of everything but SACK. */
static unsigned fixed_options_len(const struct segment *seg)
{
	unsigned len = 0;

	if (seg->layout == LAYOUT_FREEBSD)
		return fixed_options_freebsd(seg);

	if (seg->options & OPT_MSS)
		len += 4;
	if (seg->options & OPT_TIMESTAMPS)
		len += 12; /* the two in front are SACK-permitted or NOPs */
	else if (seg->options & OPT_SACK_PERMITTED)
		len += 4;
	if (seg->options & OPT_WSCALE)
		len += 4;
	if (seg->options & OPT_FAST_OPEN)
		len += fast_open_len(seg);
	if (seg->options & OPT_USER_TIMEOUT)
		len += 4;
	return len;
}

unsigned wire_options_len(const struct segment *seg)
{
	const unsigned fixed = fixed_options_len(seg);
	const unsigned sacks = sacks_that_fit(seg, fixed);

	return fixed + (sacks ? 4 + 8 * sacks : 0);
}

static uint8_t *put_word(uint8_t *p, uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	p[0] = a;
	p[1] = b;
	p[2] = c;
	p[3] = d;
	return p + 4;
}

static uint8_t *put_fast_open(const struct segment *seg, uint8_t *p)
{
	*p++ = KIND_FAST_OPEN;
	*p++ = (uint8_t)(2 + seg->fast_open_n);
	memcpy(p, seg->fast_open, seg->fast_open_n);
	return p + seg->fast_open_n;
}

static uint8_t *put_timestamps(const struct segment *seg, uint8_t *p)
{
	p[0] = KIND_TIMESTAMPS;
	p[1] = 10;
	put32(p + 2, seg->ts_val);
	put32(p + 6, seg->ts_ecr);
	return p + 10;
}

/* NOPs until `octets` from the start on are `rest` modulo 4. */
static uint8_t *put_nops(const uint8_t *start, unsigned rest, uint8_t *p)
{
	while ((unsigned)(p - start) % 4 != rest)
		*p++ = KIND_NOP;
	return p;
}

static uint8_t *put_user_timeout(const struct segment *seg, uint8_t *p)
{
	return put_word(p, KIND_USER_TIMEOUT, 4, (uint8_t)(seg->user_timeout >> 8),
			(uint8_t)seg->user_timeout);
}

/* FreeBSD's: by kind, each as its own alignment wants it; EOL and zeros at the end (MUST-69). In front of SACK
 * blocks, which no SYN has, it comes out even.
 */
static uint8_t *put_fixed_freebsd(const struct segment *seg, unsigned sacks, uint8_t *p)
{
	const uint8_t *const start = p;

	if (seg->options & OPT_MSS)
		p = put_word(p, KIND_MSS, 4, (uint8_t)(seg->mss >> 8), (uint8_t)seg->mss);
	if (seg->options & OPT_WSCALE)
		p = put_word(p, KIND_NOP, KIND_WSCALE, 3, seg->wscale);
	if (seg->options & OPT_SACK_PERMITTED) {
		*p++ = KIND_SACK_PERMITTED;
		*p++ = 2;
	}
	if (seg->options & OPT_TIMESTAMPS)
		p = put_timestamps(seg, put_nops(start, 2, p));
	if (seg->options & OPT_FAST_OPEN)
		p = put_fast_open(seg, p);
	if (seg->options & OPT_USER_TIMEOUT)
		p = put_user_timeout(seg, p);
	while ((unsigned)(p - start) % 4)
		*p++ = sacks ? KIND_NOP : KIND_EOL; /* EOL is 0, as the padding behind it */
	return p;
}

/* Linux's order, which middleboxes know. NOPs in front keep words aligned, so that the header ends
 * where the options do and no padding follows (MUST-69).
 */
static uint8_t *put_fixed_linux(const struct segment *seg, uint8_t *p)
{
	const bool permitted = seg->options & OPT_SACK_PERMITTED;
	const uint8_t *const start = p;

	if (seg->options & OPT_MSS)
		p = put_word(p, KIND_MSS, 4, (uint8_t)(seg->mss >> 8), (uint8_t)seg->mss);
	if (seg->options & OPT_TIMESTAMPS) {
		*p++ = permitted ? KIND_SACK_PERMITTED : KIND_NOP;
		*p++ = permitted ? 2 : KIND_NOP;
		p = put_timestamps(seg, p);
	} else if (permitted) {
		p = put_word(p, KIND_NOP, KIND_NOP, KIND_SACK_PERMITTED, 2);
	}
	if (seg->options & OPT_WSCALE)
		p = put_word(p, KIND_NOP, KIND_WSCALE, 3, seg->wscale);
	if (seg->options & OPT_FAST_OPEN)
		p = put_fast_open(seg, put_nops(start, (22U - seg->fast_open_n) % 4, p));
	if (seg->options & OPT_USER_TIMEOUT)
		p = put_user_timeout(seg, p);
	return p;
}

static void put_options(const struct segment *seg, uint8_t *p)
{
	const unsigned sacks = sacks_that_fit(seg, fixed_options_len(seg));

	p = seg->layout == LAYOUT_FREEBSD ? put_fixed_freebsd(seg, sacks, p)
					  : put_fixed_linux(seg, p);
	if (sacks)
		p = put_word(p, KIND_NOP, KIND_NOP, KIND_SACK, (uint8_t)(2 + 8 * sacks));
	for (unsigned i = 0; i < sacks; i++, p += 8) {
		put32(p, seg->sacks[i].left.v);
		put32(p + 4, seg->sacks[i].right.v);
	}
}

static void put_ip4(const struct segment *seg, uint32_t total, uint8_t *p)
{
	p[0] = 0x45;
	p[1] = seg->tos;
	put16(p + 2, (uint16_t)total);
	put16(p + 4, seg->ip_id);
	put16(p + 6, 0x4000); /* DF */
	p[8] = seg->ttl;
	p[9] = PROTO_TCP;
	memcpy(p + 12, seg->flow.local.addr.b + 12, 4);
	memcpy(p + 16, seg->flow.remote.addr.b + 12, 4);
	put_sum(p + 10, (uint16_t)~wire_sum_fold(wire_sum(0, p, IP4_HEADER)));
}

static void put_ip6(const struct segment *seg, uint32_t payload, uint8_t *p)
{
	put32(p, 6U << 28 | (uint32_t)seg->tos << 20 | seg->flow_label);
	put16(p + 4, (uint16_t)payload);
	p[6] = PROTO_TCP;
	p[7] = seg->ttl;
	memcpy(p + 8, seg->flow.local.addr.b, 16);
	memcpy(p + 24, seg->flow.remote.addr.b, 16);
}

static void put_tcp(const struct segment *seg, unsigned header, uint8_t *p)
{
	put16(p, seg->flow.local.port);
	put16(p + 2, seg->flow.remote.port);
	put32(p + 4, seg->seq.v);
	put32(p + 8, seg->ctl & CTL_ACK ? seg->ack.v : 0);
	p[12] = (uint8_t)(header / 4 << 4);
	p[13] = seg->ctl;
	put16(p + 14, seg->wnd);
	put16(p + 18, seg->ctl & CTL_URG ? seg->urgent : 0);
	put_options(seg, p + TCP_HEADER);
}

/* Spans may have odd lengths: what follows an odd number of octets lies in the other half of each
 * word, which for the sum is a swap of its octets (RFC 1071 2 (B)).
 */
static uint64_t sum_text(const struct segment *seg)
{
	uint64_t sum = 0;
	bool odd = false;

	for (unsigned i = 0; i < seg->spans_n; i++) {
		const uint16_t part = wire_sum_fold(
			wire_sum(0, seg->text[i].base, seg->text[i].len));

		sum += odd ? __builtin_bswap16(part) : part;
		odd ^= seg->text[i].len & 1;
	}
	return sum;
}

void wire_encode(const struct segment *seg, enum wire_offload offload,
		 struct wire_header *ret_header)
{
	const bool v4 = addr_is_v4(&seg->flow.remote.addr);
	const unsigned ip_len = v4 ? IP4_HEADER : IP6_HEADER;
	const unsigned header = TCP_HEADER + wire_options_len(seg);
	const uint32_t payload = header + seg_text_len(seg);
	uint8_t *const tcp = ret_header->bytes + ip_len;
	uint64_t sum;

	assert(v4 == addr_is_v4(&seg->flow.local.addr));
	assert(payload + (v4 ? IP4_HEADER : 0) <= UINT16_MAX);
	memset(ret_header->bytes, 0, ip_len + TCP_HEADER);
	ret_header->len = (uint16_t)(ip_len + header);
	ret_header->ip_len = (uint16_t)ip_len;
	if (v4)
		put_ip4(seg, ip_len + payload, ret_header->bytes);
	else
		put_ip6(seg, payload, ret_header->bytes);
	put_tcp(seg, header, tcp);
	sum = wire_sum_pseudo(&seg->flow.local.addr, &seg->flow.remote.addr, PROTO_TCP, payload);
	if (offload == WIRE_PARTIAL_CHECKSUM) {
		/* The device sums from the TCP header on, this field included, and complements. */
		put_sum(tcp + 16, wire_sum_fold(sum));
		return;
	}
	sum = wire_sum(sum, tcp, header) + sum_text(seg); /* MUST-2 */
	put_sum(tcp + 16, (uint16_t)~wire_sum_fold(sum));
}

/* The n octets of super's text from offset on. */
static void cut_text(const struct segment *super, uint32_t offset, uint32_t n,
		     struct segment *piece)
{
	piece->spans_n = 0;
	for (unsigned i = 0; i < super->spans_n && n; i++) {
		const struct span *s = &super->text[i];
		uint32_t len;

		if (offset >= s->len) {
			offset -= s->len;
			continue;
		}
		len = s->len - offset < n ? s->len - offset : n;
		piece->text[piece->spans_n++] = (struct span){ s->base + offset, len };
		offset = 0;
		n -= len;
	}
}

bool wire_next_piece(const struct segment *super, uint32_t *offset, struct segment *ret_piece)
{
	const uint32_t at = *offset, len = seg_text_len(super);
	const uint32_t left = at < len ? len - at : 0;
	const uint32_t n = super->piece_bytes && super->piece_bytes < left ? super->piece_bytes
									   : left;

	if (at > len || (at == len && len > 0))
		return false;
	*ret_piece = *super;
	ret_piece->piece_bytes = 0;
	cut_text(super, at, n, ret_piece);
	/* A segment without text is its own only piece: one past its end says that it was cut. */
	*offset = len ? at + n : 1;
	ret_piece->ip_id = (uint16_t)((super->ip_id + (at ? at / super->piece_bytes : 0)) &
				      UINT16_MAX);
	if (at > 0) {
		/* A SYN sits before the first octet of text. */
		ret_piece->seq = seq_add(super->seq, at + !!(super->ctl & CTL_SYN));
		ret_piece->ctl &= (uint8_t) ~(CTL_CWR | CTL_SYN); /* RFC 3168 6.1.2: CWR once */
	}
	if (n < left)
		ret_piece->ctl &= (uint8_t) ~(CTL_FIN | CTL_PSH);
	if (super->ctl & CTL_URG) { /* the pointer counts from SEG.SEQ: MUST-62 */
		const uint32_t moved = seq_sub(ret_piece->seq, super->seq);

		ret_piece->urgent = (uint16_t)(super->urgent > moved ? super->urgent - moved : 0);
		if (super->urgent <= moved && moved > 0)
			ret_piece->ctl &= (uint8_t)~CTL_URG;
	}
	return true;
}
