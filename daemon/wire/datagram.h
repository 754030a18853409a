/* SPDX-License-Identifier: Apache-2.0 */
/* What the IP layer found in a packet. Private to daemon/wire/. */
#pragma once
#include "base/addr.h"
#include "wire/wire.h"

struct datagram {
	struct ipaddr src, dst;
	const uint8_t *payload; /* within the packet */
	size_t len; /* octets of it */
	uint8_t protocol; /* of the payload, behind IPv6 extension headers */
	uint8_t ttl, tos;
};

/* Whole packets of any protocol: WIRE_OK, or why not. */
enum wire_verdict datagram_decode(const uint8_t *packet, size_t len, struct datagram *ret);
