/* SPDX-License-Identifier: Apache-2.0 */
/* Loads and stores in network order at any alignment, and the numbers that wire/ shares. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "base/addr.h"

enum {
	ETH_HEADER = 14,
	IP4_HEADER = 20,
	IP6_HEADER = 40,
	TCP_HEADER = 20,
	TCP_OPTIONS_MAX = 40,
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_ICMP6 = 58,
};

/* TCP option kinds, RFC 9293 3.2, RFC 7323, RFC 2018. */
enum {
	KIND_EOL = 0,
	KIND_NOP = 1,
	KIND_MSS = 2,
	KIND_WSCALE = 3,
	KIND_SACK_PERMITTED = 4,
	KIND_SACK = 5,
	KIND_TIMESTAMPS = 8,
	KIND_USER_TIMEOUT = 28, /* RFC 5482 */
	KIND_FAST_OPEN = 34, /* RFC 7413 */
};

/* Compilers make one load or store and a swap of each. */
static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

/* A checksum as wire_sum_fold() gives it is in memory order already. */
static inline void put_sum(uint8_t *p, uint16_t sum)
{
	memcpy(p, &sum, sizeof(sum));
}

/* The pseudo-header's part of the checksum: RFC 9293 3.1 for IPv4, RFC 8200 8.1 for IPv6. */
uint64_t wire_sum_pseudo(const struct ipaddr *src, const struct ipaddr *dst, uint8_t protocol,
			 uint32_t len);
