/* SPDX-License-Identifier: Apache-2.0 */
/* An ICMP or ICMPv6 error about a TCP segment, after decoding: what it says, and the head of the segment
 * that it quotes. Anybody can make one up; the engine believes only what fits a connection.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "tcp/seqno.h"

/* icmp_errors.def is the one list. */
enum icmp_error {
#define ICMP_ERR(name, key, hard, text) ICMP_ERR_##name,
#include "tcp/icmp_errors.def"
#undef ICMP_ERR
	ICMP_ERR__COUNT,
};

struct icmp_message {
	struct flow flow; /* of the quoted segment: local is where it came from */
	seqno seq; /* of the quoted segment */
	enum icmp_error error;
	uint32_t mtu; /* ICMP_ERR_TOO_BIG: of the next hop; 0: it does not say (before RFC 1191) */
	uint32_t quoted_bytes; /* of the quoted packet when it was whole, IP header included */
};

const char *icmp_error_key(enum icmp_error e); /* "host_unreachable" */
const char *icmp_error_text(enum icmp_error e); /* "the host cannot be reached" */
bool icmp_error_is_hard(enum icmp_error e);
