/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer's mutations of fuzz_engine's input, by whole operations: some are left out, doubled, moved,
 * exchanged, or put in, often the next step of a conversation that makes sense. Plain mutations of octets
 * move every boundary behind them and seldom lead past a handshake.
 */
#include <string.h>

#include "engine_ops.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len,
				 uint8_t *out, size_t max, unsigned seed);

enum { OPS_MAX = 600, OP_BYTES_MAX = 64 };

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

#define CALL(k) (OP_CALL | (k) << 4)

/* Steps of conversations: each is the octets of one or more operations. */
static const struct step {
	uint8_t len, octets[20];
} steps[] = {
	{ 1, { OP_LISTENER | 0x30 } },
	{ 1, { OP_TAKE_ALL } },
	{ 1, { OP_TAKE_REPORTS } },
	{ 2, { OP_CONNECT, 250 } },
	{ 7, { OP_SEGMENT, SYN, 0, 5, 0, 200, 0 } },
	{ 14,
	  { OP_SEGMENT, SYN, HOW_TIMESTAMPS | HOW_SYN_OPTIONS, 5, 0, 200, 0, 9, 0, 0, 0, 100, 3,
	    0 } },
	{ 7, { OP_SEGMENT, SYN | ACK, 0, 5, 0, 200, 0 } },
	{ 14,
	  { OP_SEGMENT, SYN | ACK, HOW_TIMESTAMPS | HOW_SYN_OPTIONS, 5, 0, 200, 0, 9, 0, 0, 0, 100,
	    3, 0 } },
	{ 7, { OP_SEGMENT, ACK, 0, 0, 0, 200, 0 } },
	{ 11, { OP_SEGMENT, ACK, HOW_TIMESTAMPS, 0, 0, 200, 0, 12, 0, 0, 0 } },
	{ 8, { OP_SEGMENT, ACK, HOW_TEXT, 0, 0, 200, 60, 60 } },
	{ 8, { OP_SEGMENT, ACK, HOW_TEXT, 60, 0, 200, 60, 0 } },
	{ 7, { OP_SEGMENT, FIN | ACK, 0, 0, 0, 200, 0 } },
	{ 7, { OP_SEGMENT, FIN | ACK, HOW_FROM_UNA, 0, 0, 200, 0 } },
	{ 7, { OP_SEGMENT, ACK, HOW_FROM_UNA, 0, 0, 200, 0 } },
	{ 7, { OP_SEGMENT, ACK, 0, 0, 0, 0, 0 } },
	{ 7, { OP_SEGMENT, RST, 0, 0, 0, 0, 0 } },
	{ 10, { OP_SEGMENT, ACK, HOW_FROM_UNA | HOW_SACK, 0, 0, 200, 0, 16, 6, 0 } },
	{ 8, { OP_SEGMENT | SEGMENT_PLACED, ACK, HOW_TEXT, 0, 0, 0x21, 200, 60 } },
	{ 3, { CALL(0), 0, 12 } },
	{ 3, { CALL(2), 0, 40 } },
	{ 3, { CALL(3), 0, 0 } },
	{ 3, { CALL(4), 0, 0 } },
	{ 3, { CALL(5), 0, 0 } },
	{ 3, { CALL(6), 0, 0 } },
	{ 3, { CALL(7), 0, 8 } },
	{ 1, { OP_TIME } },
	{ 3, { OP_TIME | TIME_FOR, 10, 0 } },
	{ 3, { OP_TIME | TIME_FOR | 0x70, 200, 0 } },
	{ 1, { OP_RELEASE } },
	{ 4, { OP_ANSWER, 0, 200, 9 } },
	{ 4, { OP_ANSWER, ANSWER_TEXT, 200, 9 } },
};

struct rng {
	uint32_t s;
};

/* xorshift32. */
static unsigned below(struct rng *r, size_t n)
{
	r->s ^= r->s << 13;
	r->s ^= r->s >> 17;
	r->s ^= r->s << 5;
	return n ? (unsigned)(r->s % n) : 0;
}

/* Where operations begin; the last one is where they end. Their number. */
static size_t cut(const uint8_t *data, size_t size, size_t ret_at[static OPS_MAX + 1])
{
	size_t n = 0, at = size ? 1 : 0;

	while (at < size && n < OPS_MAX) {
		ret_at[n++] = at;
		at += op_bytes(data + at, size - at);
	}
	ret_at[n] = at < size ? at : size;
	return n;
}

static size_t put_in(uint8_t *data, size_t size, size_t max, size_t at, const uint8_t *octets,
		     size_t len)
{
	if (size + len > max)
		return size;
	memmove(data + at + len, data + at, size - at);
	memcpy(data + at, octets, len);
	return size + len;
}

static size_t put_in_step(uint8_t *data, size_t size, size_t max, size_t at, struct rng *r)
{
	const struct step *const s = &steps[below(r, sizeof(steps) / sizeof(*steps))];
	uint8_t octets[sizeof(s->octets)];

	memcpy(octets, s->octets, s->len);
	/* Of another connection, now and then. */
	if (below(r, 4) == 0 && (octets[0] & 15) >= OP_SEGMENT)
		octets[0] |= (uint8_t)(below(r, 4) << 4);
	else if (below(r, 4) == 0 && (octets[0] & 15) == OP_CALL)
		octets[1] = (uint8_t)below(r, 8);
	return put_in(data, size, max, at, octets, s->len);
}

static size_t leave_out(uint8_t *data, size_t size, size_t from, size_t to)
{
	memmove(data + from, data + to, size - to);
	return size - (to - from);
}

/* One operation's octets change, its length as it comes. */
static size_t change_one(uint8_t *data, size_t size, size_t max, size_t from, size_t to)
{
	uint8_t one[OP_BYTES_MAX];
	size_t len = to - from;

	if (len > sizeof(one))
		return size;
	memcpy(one, data + from, len);
	len = LLVMFuzzerMutate(one, len, len);
	size = leave_out(data, size, from, to);
	return put_in(data, size, max, from, one, len);
}

static size_t double_some(uint8_t *data, size_t size, size_t max, size_t from, size_t to,
			  size_t where)
{
	uint8_t some[256];
	const size_t len = to - from < sizeof(some) ? to - from : sizeof(some);

	memcpy(some, data + from, len);
	return put_in(data, size, max, where, some, len);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct rng r = { seed | 1 };
	size_t at[OPS_MAX + 1];
	const size_t n = cut(data, size, at);

	(void)below(&r, 1);
	if (n == 0 || below(&r, 5) == 0)
		return LLVMFuzzerMutate(data, size, max);
	const size_t i = below(&r, n), k = i + below(&r, n - i < 6 ? n - i : 6), to = at[k + 1];

	switch (below(&r, 8)) {
	case 0:
		return n > 1 ? leave_out(data, size, at[i], to) : size;
	case 1:
		return double_some(data, size, max, at[i], to, at[below(&r, n + 1)]);
	case 2:
		return change_one(data, size, max, at[i], at[i + 1]);
	case 3: /* the end, which is where a story goes on */
		size = at[n];
		for (unsigned more = 1 + below(&r, 4); more > 0; more--)
			size = put_in_step(data, size, max, size, &r);
		return size;
	case 4:
		data[0] = (uint8_t)below(&r, 256);
		return size;
	default:
		return put_in_step(data, size, max, at[below(&r, n + 1)], &r);
	}
}

/* What happened in the one, then what happened in the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len,
				 uint8_t *out, size_t max, unsigned seed)
{
	struct rng r = { seed | 1 };
	size_t at_a[OPS_MAX + 1] = { 0 }, at_b[OPS_MAX + 1] = { 0 };
	const size_t n_a = cut(a, a_len, at_a), n_b = cut(b, b_len, at_b);
	const size_t head = at_a[below(&r, n_a + 1)], tail = at_b[below(&r, n_b + 1)];
	const size_t first = head < max ? head : max;
	const size_t left = max - first, second = b_len - tail < left ? b_len - tail : left;

	memcpy(out, a, first);
	memcpy(out + first, b + tail, second);
	return first + second;
}
