/* SPDX-License-Identifier: Apache-2.0 */
/* Sequence numbers: modulo-2^32 arithmetic, RFC 9293 3.4.
 *
 * A struct, so that `a < b` on two sequence numbers does not compile. All wrapping
 * arithmetic of the core is in this file; everywhere else unsigned wrap is a bug and
 * the sanitizer build says so.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"

typedef struct seqno {
	uint32_t v;
} seqno;

WRAPS static inline seqno seq_add(seqno a, uint32_t n)
{
	return (seqno){ a.v + n };
}

/* Distance from b forward to a. */
WRAPS static inline uint32_t seq_sub(seqno a, seqno b)
{
	return a.v - b.v;
}

static inline bool seq_lt(seqno a, seqno b)
{
	return seq_sub(a, b) >> 31;
}

static inline bool seq_le(seqno a, seqno b)
{
	return !seq_lt(b, a);
}

static inline bool seq_eq(seqno a, seqno b)
{
	return a.v == b.v;
}

/* base =< s < base + len */
static inline bool seq_in(seqno s, seqno base, uint32_t len)
{
	return seq_sub(s, base) < len;
}

static inline seqno seq_max(seqno a, seqno b)
{
	return seq_lt(a, b) ? b : a;
}

static inline seqno seq_min(seqno a, seqno b)
{
	return seq_lt(b, a) ? b : a;
}

/* How far `to` lies ahead of `from`; 0 when it does not. */
static inline uint32_t seq_ahead(seqno to, seqno from)
{
	return seq_lt(from, to) ? seq_sub(to, from) : 0;
}
