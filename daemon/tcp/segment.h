/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP segment after decoding: host order, options parsed, addresses attached.
 *
 * It may be a super-segment: what GRO put together on the way in, or what the device (or the
 * worker) is to cut into pieces of `piece_bytes` on the way out.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "tcp/seqno.h"

/* The eight control bits, in the order of the header's octet (RFC 9293 3.1, RFC 3168). */
enum seg_ctl {
	CTL_FIN = 1 << 0,
	CTL_SYN = 1 << 1,
	CTL_RST = 1 << 2,
	CTL_PSH = 1 << 3,
	CTL_ACK = 1 << 4,
	CTL_URG = 1 << 5,
	CTL_ECE = 1 << 6,
	CTL_CWR = 1 << 7,
};

/* Which options the segment carries. */
enum seg_opt {
	OPT_MSS = 1 << 0, /* RFC 9293 3.7.1 */
	OPT_WSCALE = 1 << 1, /* RFC 7323 2 */
	OPT_SACK_PERMITTED = 1 << 2, /* RFC 2018 2 */
	OPT_TIMESTAMPS = 1 << 3, /* RFC 7323 3 */
	OPT_SACK = 1 << 4, /* RFC 2018 3 */
	OPT_FAST_OPEN = 1 << 5, /* RFC 7413 2 */
	OPT_USER_TIMEOUT = 1 << 6, /* RFC 5482 3.3 */
};

/* In which order options stand, and how they are padded: see wire_encode(). */
enum seg_layout { LAYOUT_LINUX, LAYOUT_FREEBSD };

struct span {
	const uint8_t *base;
	uint32_t len; /* octets */
};

/* A text that repeats: octet i of it is bytes[i % period]. It is not copied, and outlives the engine. */
struct pattern {
	const uint8_t *bytes;
	uint32_t period;
	uint32_t
		size; /* octets at `bytes`, at least period + ENGINE_CHUNK_BYTES: more go out in fewer spans */
};

struct sack_block {
	seqno left; /* first octet of the block */
	seqno right; /* the octet after its last */
};

enum {
	SEG_SPANS =
		10, /* pieces of text in one segment, gathered from buffer chunks, two of each */
	SEG_TEXT_MAX = 65535 - 20 - 60, /* what fits an IPv4 super-segment */
	SEG_SACKS = 4,
	SEG_FAST_OPEN = 16, /* octets of the longest Fast Open cookie */
};

struct segment {
	struct flow flow; /* local is ours, whichever way the segment goes */
	seqno seq;
	seqno ack; /* when CTL_ACK */
	uint16_t wnd; /* as in the header: unscaled, unsigned (MUST-1) */
	uint16_t urgent; /* urgent pointer, when CTL_URG */
	uint8_t ctl; /* enum seg_ctl */
	uint8_t options; /* enum seg_opt */
	uint16_t mss; /* OPT_MSS */
	uint16_t user_timeout; /* OPT_USER_TIMEOUT: as on the wire, never 0 */
	uint8_t wscale; /* OPT_WSCALE, as received: may be above 14 */
	uint8_t sacks_n; /* OPT_SACK: 1..SEG_SACKS */
	struct sack_block sacks[SEG_SACKS];
	uint32_t ts_val, ts_ecr; /* OPT_TIMESTAMPS */
	uint8_t fast_open_n; /* OPT_FAST_OPEN: octets of the cookie; 0: one is asked for */
	uint8_t fast_open[SEG_FAST_OPEN];
	uint16_t piece_bytes; /* text octets of a piece when this is a super-segment, else 0 */
	uint16_t link_mtu; /* in: MTU of the interface it came by, 0 when unknown */
	uint8_t ttl; /* IPv4 TTL or IPv6 hop limit */
	uint8_t tos; /* DSCP and ECN octet */
	uint8_t layout; /* out: enum seg_layout */
	uint16_t ip_id; /* out, IPv4: of the first piece; each further one has the next */
	uint32_t flow_label; /* out, IPv6: 20 bits; 0: none */
	uint8_t spans_n; /* 0..SEG_SPANS */
	struct span text[SEG_SPANS]; /* borrowed: see engine_input() and engine_output() */
};

static inline uint32_t seg_text_len(const struct segment *s)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < s->spans_n; i++)
		n += s->text[i].len;
	return n;
}

/* SEG.LEN: text plus SYN and FIN, RFC 9293 3.4. */
static inline uint32_t seg_len(const struct segment *s)
{
	return seg_text_len(s) + !!(s->ctl & CTL_SYN) + !!(s->ctl & CTL_FIN);
}
