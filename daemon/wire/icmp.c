/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP and ICMPv6 errors about TCP segments: RFC 792, RFC 1191, RFC 1812 5.2.7.1, RFC 4443 3. What they
 * quote is cut off anywhere behind its first octets, and comes from a stranger as everything does.
 */
#include "wire.h"

#include "datagram.h"
#include "octets.h"

enum {
	ICMP_HEADER = 8,
	QUOTED_TCP = 8, /* ports and sequence number: RFC 792 promises no more */
};

/* RFC 792 and RFC 1812: destination unreachable (3), by its code. */
static enum icmp_error unreachable4(uint8_t code)
{
	switch (code) {
	case 0: /* net */
	case 6: /* net unknown */
	case 11: /* net, for this type of service */
		return ICMP_ERR_NET_UNREACHABLE;
	case 2:
		return ICMP_ERR_PROTOCOL_UNREACHABLE;
	case 3:
		return ICMP_ERR_PORT_UNREACHABLE;
	case 4:
		return ICMP_ERR_TOO_BIG;
	case 5:
		return ICMP_ERR_SOURCE_ROUTE_FAILED;
	case 9: /* net prohibited */
	case 10: /* host prohibited */
	case 13: /* by filtering */
		return ICMP_ERR_PROHIBITED;
	default:
		return ICMP_ERR_HOST_UNREACHABLE;
	}
}

static enum icmp_error error4(uint8_t type, uint8_t code)
{
	switch (type) {
	case 3:
		return unreachable4(code);
	case 4:
		return ICMP_ERR_SOURCE_QUENCH;
	case 11:
		return ICMP_ERR_TIME_EXCEEDED;
	case 12:
		return ICMP_ERR_PARAMETER_PROBLEM;
	default:
		return ICMP_ERR_NONE;
	}
}

/* RFC 4443 3.1: destination unreachable (1), by its code. */
static enum icmp_error unreachable6(uint8_t code)
{
	switch (code) {
	case 0:
		return ICMP_ERR_NET_UNREACHABLE;
	case 1: /* administratively */
	case 5: /* by policy */
	case 6: /* a rejecting route */
		return ICMP_ERR_PROHIBITED;
	case 4:
		return ICMP_ERR_PORT_UNREACHABLE;
	default:
		return ICMP_ERR_HOST_UNREACHABLE;
	}
}

static enum icmp_error error6(uint8_t type, uint8_t code)
{
	switch (type) {
	case 1:
		return unreachable6(code);
	case 2:
		return ICMP_ERR_TOO_BIG;
	case 3:
		return ICMP_ERR_TIME_EXCEEDED;
	case 4:
		return ICMP_ERR_PARAMETER_PROBLEM;
	default:
		return ICMP_ERR_NONE;
	}
}

static bool checksum_is_good(const struct datagram *d)
{
	uint64_t sum = 0;

	if (d->protocol == PROTO_ICMP6)
		sum = wire_sum_pseudo(&d->src, &d->dst, PROTO_ICMP6, (uint32_t)d->len);
	return wire_sum_fold(wire_sum(sum, d->payload, d->len)) == 0xffff;
}

/* The quoted packet: its flow, sequence number and length. We sent it, so that it is an IPv4 packet that
 * is no fragment, or an IPv6 packet without extension headers.
 */
static enum wire_verdict decode_quote(const uint8_t *p, size_t len, bool v4,
				      struct icmp_message *ret)
{
	const size_t least = v4 ? IP4_HEADER : IP6_HEADER;
	const uint8_t *tcp;
	size_t header;

	if (len < least)
		return WIRE_TRUNCATED_ICMP;
	header = v4 ? (size_t)(p[0] & 0x0f) * 4 : IP6_HEADER;
	if (p[0] >> 4 != (v4 ? 4 : 6) || header < least || p[v4 ? 9 : 6] != PROTO_TCP ||
	    (v4 && get16(p + 6) & 0x3fff))
		return WIRE_BAD_ICMP_QUOTE;
	if (len - least < header - least + QUOTED_TCP)
		return WIRE_TRUNCATED_ICMP;
	tcp = p + header;
	if (v4) {
		ret->flow.local.addr = addr_from_v4(p + 12);
		ret->flow.remote.addr = addr_from_v4(p + 16);
		ret->quoted_bytes = get16(p + 2);
	} else {
		memcpy(ret->flow.local.addr.b, p + 8, 16);
		memcpy(ret->flow.remote.addr.b, p + 24, 16);
		ret->quoted_bytes = (uint32_t)IP6_HEADER + get16(p + 4);
	}
	ret->flow.local.port = get16(tcp);
	ret->flow.remote.port = get16(tcp + 2);
	ret->seq.v = get32(tcp + 4);
	return WIRE_OK;
}

/* It comes to who sent the segment, and the segment was one that TCP sends. */
static bool quote_is_possible(const struct datagram *d, const struct flow *f)
{
	const struct ipaddr *const peer = &f->remote.addr;

	return addr_eq(&f->local.addr, &d->dst) && f->local.port && f->remote.port &&
	       addr_is_v4(peer) == addr_is_v4(&d->dst) && !addr_is_any(peer) &&
	       !addr_is_multicast(peer) && !addr_is_broadcast(peer);
}

static enum wire_verdict decode_error(const struct datagram *d, struct icmp_message *ret)
{
	const bool v4 = d->protocol == PROTO_ICMP;
	const uint8_t *const p = d->payload;
	struct icmp_message m = { 0 };
	enum wire_verdict v;

	if (d->len < ICMP_HEADER)
		return WIRE_TRUNCATED_ICMP;
	m.error = v4 ? error4(p[0], p[1]) : error6(p[0], p[1]);
	if (m.error == ICMP_ERR_NONE)
		return WIRE_NOT_TCP;
	if (!checksum_is_good(d))
		return WIRE_BAD_ICMP_CHECKSUM;
	if (m.error == ICMP_ERR_TOO_BIG)
		m.mtu = v4 ? get16(p + 6) : get32(p + 4);
	v = decode_quote(p + ICMP_HEADER, d->len - ICMP_HEADER, v4, &m);
	if (v != WIRE_OK)
		return v;
	if (!quote_is_possible(d, &m.flow))
		return WIRE_BAD_ICMP_QUOTE;
	*ret = m;
	return WIRE_ICMP;
}

enum wire_verdict wire_decode_icmp(const uint8_t *packet, size_t len,
				   struct icmp_message *ret_message)
{
	struct datagram d;
	const enum wire_verdict v = datagram_decode(packet, len, &d);

	if (v != WIRE_OK)
		return v;
	if (d.protocol != (addr_is_v4(&d.dst) ? PROTO_ICMP : PROTO_ICMP6))
		return WIRE_NOT_TCP;
	return decode_error(&d, ret_message);
}
