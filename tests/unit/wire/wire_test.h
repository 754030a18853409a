/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of wire/ share: cmocka, a small random source, random segments. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <string.h>

#include "wire/wire.h"

/* xorshift64*: any nonzero seed, the same numbers everywhere. */
static inline uint64_t random64(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state;
}

static inline uint32_t random_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)((random64(state) >> 16) % n);
}

static inline void random_fill(uint64_t *state, void *data, size_t n)
{
	uint8_t *p = data;

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(random64(state) >> 24);
}

/* RFC 1071 as it is explained: 16-bit big-endian words, one after the other. */
static inline uint16_t naive_sum(const uint8_t *p, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		sum += (uint32_t)p[i] << (i % 2 ? 0 : 8);
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

/* Headers and text in one piece, as the network has them. Octets. */
static inline size_t gather(const struct wire_header *h, const struct segment *seg, uint8_t *out)
{
	size_t n = h->len;

	memcpy(out, h->bytes, n);
	for (unsigned i = 0; i < seg->spans_n; i++) {
		memcpy(out + n, seg->text[i].base, seg->text[i].len);
		n += seg->text[i].len;
	}
	return n;
}

/* The same segment from the other side. */
static inline struct flow flow_reversed(struct flow f)
{
	return (struct flow){ .local = f.remote, .remote = f.local, .scope = f.scope };
}

/* Any segment that may be encoded; its text lies in pool, which has pool_len octets. */
static inline struct segment random_segment(uint64_t *r, const uint8_t *pool, uint32_t pool_len)
{
	struct segment s = { 0 };
	const bool v4 = random_below(r, 2);

	random_fill(r, s.flow.local.addr.b, 16);
	random_fill(r, s.flow.remote.addr.b, 16);
	s.flow.local.addr.b[0] = s.flow.remote.addr.b[0] = 0x20;
	if (v4) {
		s.flow.local.addr = addr_v4(10, 1, s.flow.local.addr.b[1], 2);
		s.flow.remote.addr = addr_v4(10, 2, s.flow.remote.addr.b[1], 2);
	}
	s.flow.local.port = (uint16_t)(1 + random_below(r, 65535));
	s.flow.remote.port = (uint16_t)(1 + random_below(r, 65535));
	s.seq.v = (uint32_t)random64(r);
	s.ctl = (uint8_t)random64(r);
	if (s.ctl & CTL_ACK)
		s.ack.v = (uint32_t)random64(r);
	if (s.ctl & CTL_URG)
		s.urgent = (uint16_t)random64(r);
	s.wnd = (uint16_t)random64(r);
	s.ttl = (uint8_t)random64(r);
	s.tos = (uint8_t)random64(r);
	s.layout = (uint8_t)random_below(r, 2);
	s.ip_id = (uint16_t)random64(r);
	s.flow_label = (uint32_t)random64(r) & 0xfffff;
	s.options = (uint8_t)random_below(r, 32);
	s.mss = s.options & OPT_MSS ? (uint16_t)(1 + random_below(r, 65535)) : 0;
	s.wscale = s.options & OPT_WSCALE ? (uint8_t)random64(r) : 0;
	if (s.options & OPT_TIMESTAMPS) {
		s.ts_val = (uint32_t)random64(r);
		s.ts_ecr = (uint32_t)random64(r);
	}
	if (s.options & OPT_SACK) {
		s.sacks_n = (uint8_t)(1 + random_below(r, SEG_SACKS));
		random_fill(r, s.sacks, s.sacks_n * sizeof(s.sacks[0]));
	}
	s.spans_n = (uint8_t)random_below(r, SEG_SPANS + 1);
	for (unsigned i = 0; i < s.spans_n; i++) {
		const uint32_t len = random_below(r,
						  random_below(r, 8) ? 300 : pool_len / SEG_SPANS);

		s.text[i] = (struct span){ pool + random_below(r, pool_len - len), len };
	}
	return s;
}
