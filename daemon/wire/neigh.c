/* SPDX-License-Identifier: Apache-2.0 */
/* Who has this address? ARP (RFC 826) and neighbour discovery (RFC 4861), as far as answering for an
 * address that no kernel owns needs it. No cache, no questions of our own.
 */
#include "wire.h"

#include "octets.h"

enum {
	ARP_PACKET = 28,
	ND_SOLICITATION = 24, /* without options */
	ND_ADVERTISEMENT = 32, /* with the target's link-layer address */
	ND_HOP_LIMIT = 255,
	TYPE_SOLICITATION = 135,
	TYPE_ADVERTISEMENT = 136,
	OPTION_SOURCE_LLADDR = 1,
	OPTION_TARGET_LLADDR = 2,
	FLAG_SOLICITED = 0x40,
	FLAG_OVERRIDE = 0x20,
};

/* Both kinds of question, understood. */
struct question {
	bool arp;
	struct ipaddr target;
	struct ipaddr asker; /* unspecified: a probe for duplicates */
	const uint8_t *asker_mac;
};

static bool is_group_mac(const uint8_t *mac)
{
	return mac[0] & 1;
}

static bool parse_arp(const uint8_t *frame, size_t len, struct question *ret)
{
	/* Ethernet, IPv4, sizes 6 and 4, request */
	static const uint8_t fixed[8] = { 0, 1, 8, 0, 6, 4, 0, 1 };
	const uint8_t *p = frame + ETH_HEADER;

	if (len < ETH_HEADER + ARP_PACKET || memcmp(p, fixed, sizeof(fixed)) || is_group_mac(p + 8))
		return false;
	*ret = (struct question){ .arp = true,
				  .target = addr_from_v4(p + 24),
				  .asker = addr_from_v4(p + 14),
				  .asker_mac = p + 8 };
	/* An announcement names its sender twice and asks nothing (RFC 5227 2.3). */
	return !addr_eq(&ret->asker, &ret->target) && !addr_is_any(&ret->target) &&
	       !addr_is_multicast(&ret->target) && !addr_is_broadcast(&ret->target);
}

/* The asker's link-layer address, when an option gives one. False: the options are malformed, or a
 * probe carries one (RFC 4861 7.1.1).
 */
static bool parse_nd_options(const uint8_t *p, size_t n, bool probe, const uint8_t **mac)
{
	while (n > 0) {
		size_t len;

		if (n < 8 || p[1] == 0)
			return false;
		len = (size_t)p[1] * 8;
		if (len > n)
			return false;
		if (p[0] == OPTION_SOURCE_LLADDR) {
			if (probe)
				return false;
			if (!is_group_mac(p + 2))
				*mac = p + 2;
		}
		p += len;
		n -= len;
	}
	return true;
}

static bool is_solicited_node(const struct ipaddr *a)
{
	static const uint8_t prefix[13] = { 0xff, 2, [11] = 1, [12] = 0xff };

	return !memcmp(a->b, prefix, sizeof(prefix));
}

/* RFC 4861 7.1.1, all of it. */
static bool parse_nd(const uint8_t *frame, size_t len, struct question *ret)
{
	const uint8_t *ip = frame + ETH_HEADER, *icmp = ip + IP6_HEADER;
	struct question q = { .asker_mac = frame + 6 };
	struct ipaddr dst;
	size_t n;

	if (len < ETH_HEADER + IP6_HEADER + ND_SOLICITATION || ip[0] >> 4 != 6 ||
	    ip[6] != PROTO_ICMP6 || ip[7] != ND_HOP_LIMIT)
		return false;
	n = get16(ip + 4);
	if (n < ND_SOLICITATION || n > len - ETH_HEADER - IP6_HEADER ||
	    icmp[0] != TYPE_SOLICITATION || icmp[1] != 0)
		return false;
	memcpy(q.asker.b, ip + 8, 16);
	memcpy(dst.b, ip + 24, 16);
	memcpy(q.target.b, icmp + 8, 16);
	if (wire_sum_fold(wire_sum(wire_sum_pseudo(&q.asker, &dst, PROTO_ICMP6, (uint32_t)n), icmp,
				   n)) != 0xffff)
		return false;
	if (addr_is_multicast(&q.target) || addr_is_any(&q.target) || addr_is_v4(&q.target) ||
	    addr_is_multicast(&q.asker) || addr_is_v4(&q.asker) || addr_is_v4(&dst))
		return false;
	if (addr_is_any(&q.asker) && !is_solicited_node(&dst))
		return false;
	if (!parse_nd_options(icmp + ND_SOLICITATION, n - ND_SOLICITATION, addr_is_any(&q.asker),
			      &q.asker_mac) ||
	    is_group_mac(q.asker_mac))
		return false;
	*ret = q;
	return true;
}

static bool parse_question(const uint8_t *frame, size_t len, struct question *ret)
{
	if (len < ETH_HEADER)
		return false;
	switch (get16(frame + 12)) {
	case 0x0806:
		return parse_arp(frame, len, ret);
	case 0x86dd:
		return parse_nd(frame, len, ret);
	default:
		return false;
	}
}

static size_t answer_arp(const struct question *q, const uint8_t mac[6], uint8_t *out)
{
	static const uint8_t fixed[10] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 2 };
	uint8_t *p = out + ETH_HEADER;

	memcpy(out, q->asker_mac, 6);
	memcpy(out + 6, mac, 6);
	memcpy(out + 12, fixed, sizeof(fixed));
	memcpy(p + 8, mac, 6);
	memcpy(p + 14, q->target.b + 12, 4);
	memcpy(p + 18, q->asker_mac, 6);
	memcpy(p + 24, q->asker.b + 12, 4);
	return ETH_HEADER + ARP_PACKET;
}

/* RFC 4861 7.2.4. A probe is answered to all nodes, and is no solicitation of the asker's. */
static size_t answer_nd(const struct question *q, const uint8_t mac[6], uint8_t *out)
{
	static const struct ipaddr all_nodes = { { 0xff, 2, [15] = 1 } };
	static const uint8_t all_nodes_mac[6] = { 0x33, 0x33, 0, 0, 0, 1 };
	const bool probe = addr_is_any(&q->asker);
	const struct ipaddr *to = probe ? &all_nodes : &q->asker;
	uint8_t *ip = out + ETH_HEADER, *icmp = ip + IP6_HEADER;

	memset(out, 0, ETH_HEADER + IP6_HEADER + ND_ADVERTISEMENT);
	memcpy(out, probe ? all_nodes_mac : q->asker_mac, 6);
	memcpy(out + 6, mac, 6);
	put16(out + 12, 0x86dd);
	ip[0] = 0x60;
	put16(ip + 4, ND_ADVERTISEMENT);
	ip[6] = PROTO_ICMP6;
	ip[7] = ND_HOP_LIMIT;
	memcpy(ip + 8, q->target.b, 16);
	memcpy(ip + 24, to->b, 16);
	icmp[0] = TYPE_ADVERTISEMENT;
	icmp[4] = probe ? FLAG_OVERRIDE : FLAG_SOLICITED | FLAG_OVERRIDE;
	memcpy(icmp + 8, q->target.b, 16);
	icmp[24] = OPTION_TARGET_LLADDR;
	icmp[25] = 1;
	memcpy(icmp + 26, mac, 6);
	put_sum(icmp + 2, (uint16_t)~wire_sum_fold(wire_sum(
				  wire_sum_pseudo(&q->target, to, PROTO_ICMP6, ND_ADVERTISEMENT),
				  icmp, ND_ADVERTISEMENT)));
	return ETH_HEADER + IP6_HEADER + ND_ADVERTISEMENT;
}

bool wire_neigh_query(const uint8_t *frame, size_t len, struct ipaddr *ret_target)
{
	struct question q;

	if (!parse_question(frame, len, &q))
		return false;
	*ret_target = q.target;
	return true;
}

size_t wire_neigh_answer(const uint8_t *frame, size_t len, const uint8_t mac[6],
			 uint8_t out[static WIRE_NEIGH_MAX])
{
	struct question q;

	if (!parse_question(frame, len, &q))
		return 0;
	return q.arp ? answer_arp(&q, mac, out) : answer_nd(&q, mac, out);
}
