/* SPDX-License-Identifier: Apache-2.0 */
/* How fuzz_engine's input is written: one octet for the engine's shape, then one operation after the
 * other, each as long as its first octets say. What runs them and what mutates them both go by this.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* The low four bits of an operation's first octet. The high four are its own. */
enum op {
	OP_LISTENER,
	OP_CONNECT,
	OP_PARAMS,
	OP_CALL,
	OP_CALL_TOO,
	OP_TIME,
	OP_TIME_TOO,
	OP_TAKE_SEGMENTS,
	OP_TAKE_REPORTS,
	OP_TAKE_ALL,
	OP_RELEASE,
	OP_ICMP,
	OP_SEGMENT, /* to 14 */
	OP_ANSWER = 15, /* to the last SYN-ACK, which may have been a cookie */
};

/* Of OP_SEGMENT's first octet: the flow is in 0x30. */
enum { SEGMENT_TOS = 0x40, SEGMENT_PLACED = 0x80 };
/* Of OP_RELEASE's and OP_TIME's. */
enum { RELEASE_OTHER = 0x80, TIME_FOR = 0x80 };

/* OP_SEGMENT's third octet: what else there is. */
enum how {
	HOW_FROM_UNA = 1, /* the acknowledgement counts from SND.UNA, else from SND.NXT */
	HOW_WINDOW = 2, /* of two octets, else one */
	HOW_LONG = 4, /* text, its length of two octets */
	HOW_TEXT = 8, /* text, its length of one */
	HOW_TIMESTAMPS = 16,
	HOW_SYN_OPTIONS = 32,
	HOW_URGENT = 64,
	HOW_SACK = 128,
};

/* OP_ANSWER's second octet. */
enum { ANSWER_WRONG = 1, ANSWER_FIN = 2, ANSWER_TEXT = 4, ANSWER_STAMP_WRONG = 128 };

enum { SACKS_MAX = 4 };

static inline unsigned op_octet(const uint8_t *p, size_t n, size_t at)
{
	return at < n ? p[at] : 0;
}

static inline size_t op_segment_bytes(const uint8_t *p, size_t n)
{
	const unsigned op = op_octet(p, n, 0), how = op_octet(p, n, 2);
	size_t len = 5; /* op, flags, how, seq, ack */

	len += !!(op & SEGMENT_TOS);
	len += !!(op & SEGMENT_PLACED);
	len += how & HOW_WINDOW ? 2 : 1;
	len += how & HOW_LONG ? 2 : how & HOW_TEXT ? 1 : 0;
	len += how & HOW_TIMESTAMPS ? 4 : 0;
	len += how & HOW_SYN_OPTIONS ? 3 : 0;
	len += how & HOW_URGENT ? 2 : 0;
	if (how & HOW_SACK)
		len += 1 + 2 * (size_t)(1 + op_octet(p, n, len) % SACKS_MAX);
	return len + 1; /* how much of a delivery is taken */
}

/* Octets of the operation at p, as if there were enough of them. */
static inline size_t op_bytes(const uint8_t *p, size_t n)
{
	const unsigned op = op_octet(p, n, 0);

	switch ((enum op)(op & 15)) {
	case OP_CONNECT:
		return 2;
	case OP_PARAMS:
		return 5;
	case OP_CALL:
	case OP_CALL_TOO:
		return 3;
	case OP_TIME:
	case OP_TIME_TOO:
		return op & TIME_FOR ? 3 : 1;
	case OP_RELEASE:
		return op & RELEASE_OTHER ? 3 : 1;
	case OP_ICMP:
		return 7;
	case OP_LISTENER:
	case OP_TAKE_SEGMENTS:
	case OP_TAKE_REPORTS:
	case OP_TAKE_ALL:
		return 1;
	case OP_ANSWER:
		return 4;
	case OP_SEGMENT:
		break;
	}
	return op_segment_bytes(p, n);
}
