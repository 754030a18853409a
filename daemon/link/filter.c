/* SPDX-License-Identifier: Apache-2.0 */
#include "filter.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <string.h>

#include "emit.h"

enum {
	NEXT_HOP_BY_HOP = 0,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_DESTINATION = 60,
	TYPE_SOLICITATION = 135,
	ICMP_BYTES = 8,
	IP4_BYTES = 20,
	IP6_BYTES = 40,
};

/* Scratch words: the destination port and address of the packet at hand. */
enum { M_PORT = 0, M_ADDR = 1 };

/* Further than any jump: one that emit_tails() has to aim. */
enum { AIMLESS = 1 << 30 };

/* The ends of a program that take the frame. */
enum tail { READ, UNREAD };

static void take(struct filter *f, enum tail tail)
{
	emit(f, BPF_JMP | BPF_JA, AIMLESS + tail);
}

static void emit_tails(struct filter *f, uint32_t most)
{
	const unsigned end = f->n;
	unsigned at[2];

	at[UNREAD] = f->n;
	emit(f, BPF_LD | BPF_W | BPF_LEN, 0);
	emit_jump(f, BPF_JMP | BPF_JGT | BPF_K, most, 0, 1);
	finish(f, FILTER_HEADERS);
	at[READ] = f->n;
	finish(f, UINT32_MAX);
	for (unsigned i = 0; i < end && !f->too_long; i++)
		if (f->insn[i].code == (BPF_JMP | BPF_JA) && f->insn[i].k >= AIMLESS)
			f->insn[i].k = at[f->insn[i].k - AIMLESS] - i - 1;
}

static void take_when(struct filter *f, bool ours)
{
	if (ours)
		take(f, READ);
	else
		finish(f, 0);
}

/* Takes M_PORT in min..max and, when words is not 0, M_ADDR equal to that many words of addr. */
static void emit_owned(struct filter *f, uint16_t min, uint16_t max, const uint8_t *addr,
		       unsigned words, bool unread)
{
	const unsigned rest = 2 * words + 1; /* up to and with the accepting return */

	emit(f, BPF_LD | BPF_MEM, M_PORT);
	emit_jump(f, BPF_JMP | BPF_JGE | BPF_K, min, 0, rest + 1);
	emit_jump(f, BPF_JMP | BPF_JGT | BPF_K, max, rest, 0);
	for (unsigned i = 0; i < words; i++, addr += 4) {
		uint32_t w;

		memcpy(&w, addr, sizeof(w));
		emit(f, BPF_LD | BPF_MEM, M_ADDR + i);
		emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, ntohl(w), 0, rest - 2 * (i + 1));
	}
	take(f, unread ? UNREAD : READ);
}

/* Does the entry concern this family at all? */
static bool concerns(const struct link_owned *o, bool v6)
{
	if (o->port_min > o->port_max)
		return false;
	return addr_eq(&o->addr, &addr_any) || addr_is_v4(&o->addr) == !v6;
}

static void emit_exact(struct filter *f, const struct link_owned *owned, size_t n, bool v6)
{
	for (size_t i = 0; i < n && !f->too_long; i++) {
		const struct link_owned *o = &owned[i];
		const unsigned words = addr_is_any(&o->addr) ? 0 : v6 ? 4 : 1;

		if (concerns(o, v6))
			emit_owned(f, o->port_min, o->port_max, o->addr.b + (v6 ? 0 : 12), words,
				   o->headers_only);
	}
}

static void emit_ports(struct filter *f, const struct link_owned *owned, size_t n, bool v6)
{
	bool port[UINT16_MAX + 2] = { false }; /* the last one ends a range that reaches 65535 */
	unsigned begin = 0;

	for (size_t i = 0; i < n; i++)
		if (concerns(&owned[i], v6))
			memset(port + owned[i].port_min, true,
			       (size_t)owned[i].port_max - owned[i].port_min + 1);
	for (unsigned p = 1; p < UINT16_MAX + 2 && !f->too_long; p++) {
		if (port[p] && !port[p - 1])
			begin = p;
		if (!port[p] && port[p - 1])
			emit_owned(f, (uint16_t)begin, (uint16_t)(p - 1), NULL, 0, false);
	}
}

static void emit_level(struct filter *f, const struct link_owned *owned, size_t n, bool v6,
		       enum filter_level level)
{
	switch (level) {
	case FILTER_EXACT:
		emit_exact(f, owned, n, v6);
		finish(f, 0);
		break;
	case FILTER_PORTS:
		emit_ports(f, owned, n, v6);
		finish(f, 0);
		break;
	case FILTER_ALL:
	case FILTER__COUNT:
		take_when(f, n > 0);
		break;
	}
}

/* An ICMP error in a packet that is no fragment: M_PORT and M_ADDR become the source of the TCP segment that
 * it quotes, which is to be ours. We send no IP options, so none are quoted.
 */
static void emit_icmp4(struct filter *f)
{
	load_ip(f, BPF_H, 6);
	refuse(f, BPF_JSET, 0x3fff);
	emit(f, BPF_LDX | BPF_B | BPF_MSH, (uint32_t)SKF_NET_OFF);
	load_from_x(f, BPF_B, 0);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, 3, 4, 0); /* destination unreachable */
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, 4, 3, 0); /* source quench */
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, 11, 2, 0); /* time exceeded */
	require(f, BPF_JEQ, 12); /* parameter problem */
	load_from_x(f, BPF_B, ICMP_BYTES);
	require(f, BPF_JEQ, 0x45);
	load_from_x(f, BPF_B, ICMP_BYTES + 9);
	require(f, BPF_JEQ, IPPROTO_TCP);
	load_from_x(f, BPF_H, ICMP_BYTES + IP4_BYTES);
	emit(f, BPF_ST, M_PORT);
	load_from_x(f, BPF_W, ICMP_BYTES + 12);
	emit(f, BPF_ST, M_ADDR);
}

/* The same of ICMPv6: unreachable, too big, time exceeded, parameter problem. */
static void emit_icmp6(struct filter *f)
{
	load_ip(f, BPF_B, IP6_BYTES);
	refuse(f, BPF_JEQ, 0);
	refuse(f, BPF_JGT, 4);
	load_ip(f, BPF_B, IP6_BYTES + ICMP_BYTES + 6);
	require(f, BPF_JEQ, IPPROTO_TCP);
	load_ip(f, BPF_H, IP6_BYTES + ICMP_BYTES + IP6_BYTES);
	emit(f, BPF_ST, M_PORT);
	for (unsigned i = 0; i < 4; i++) {
		load_ip(f, BPF_W, IP6_BYTES + ICMP_BYTES + 8 + 4 * (int)i);
		emit(f, BPF_ST, M_ADDR + i);
	}
}

static void emit_ip4(struct filter *f, const struct link_owned *owned, size_t n,
		     enum filter_level level)
{
	unsigned block, over;

	load_fact(f, SKF_AD_PKTTYPE);
	require(f, BPF_JEQ, PACKET_HOST);
	load_ip(f, BPF_B, 9);
	block = when(f, IPPROTO_ICMP);
	emit_icmp4(f);
	over = skip(f);
	when_end(f, block);
	require(f, BPF_JEQ, IPPROTO_TCP);
	load_ip(f, BPF_H, 6);
	refuse(f, BPF_JSET, 0x1fff); /* a later fragment has no ports; the first one is counted */
	emit(f, BPF_LDX | BPF_B | BPF_MSH, (uint32_t)SKF_NET_OFF);
	emit(f, BPF_LD | BPF_H | BPF_IND, (uint32_t)(SKF_NET_OFF + 2));
	emit(f, BPF_ST, M_PORT);
	load_ip(f, BPF_W, 16);
	emit(f, BPF_ST, M_ADDR);
	skip_end(f, over);
	emit_level(f, owned, n, false, level);
}

/* Behind extension headers the ports cannot be found here: user space looks. A loop is not to be had
 * in classic BPF.
 */
static void emit_extensions(struct filter *f, bool any)
{
	unsigned block = when(f, NEXT_FRAGMENT);

	load_ip(f, BPF_B, 40);
	refuse(f, BPF_JEQ, IPPROTO_UDP);
	refuse(f, BPF_JEQ, IPPROTO_ICMPV6);
	load_ip(f, BPF_H, 42);
	refuse(f, BPF_JSET, 0xfff8);
	take_when(f, any);
	when_end(f, block);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, NEXT_HOP_BY_HOP, 3, 0);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, NEXT_ROUTING, 2, 0);
	require(f, BPF_JEQ, NEXT_DESTINATION);
	take_when(f, any);
}

static void emit_ip6(struct filter *f, const struct link_owned *owned, size_t n, bool neigh,
		     enum filter_level level)
{
	bool any = false;
	unsigned block, over;

	for (size_t i = 0; i < n; i++)
		any |= concerns(&owned[i], true);
	load_ip(f, BPF_B, 6);
	if (neigh) {
		block = when(f, IPPROTO_ICMPV6);
		load_ip(f, BPF_B, 40);
		emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, TYPE_SOLICITATION, 0, 1);
		take(f, READ);
		load_ip(f, BPF_B, 6);
		when_end(f, block);
	}
	emit(f, BPF_MISC | BPF_TAX, 0);
	load_fact(f, SKF_AD_PKTTYPE);
	require(f, BPF_JEQ, PACKET_HOST);
	emit(f, BPF_MISC | BPF_TXA, 0);
	block = when(f, IPPROTO_ICMPV6);
	emit_icmp6(f);
	over = skip(f);
	when_end(f, block);
	block = when(f, IPPROTO_TCP);
	load_ip(f, BPF_H, 42);
	emit(f, BPF_ST, M_PORT);
	for (unsigned i = 0; i < 4; i++) {
		load_ip(f, BPF_W, 24 + 4 * (int)i);
		emit(f, BPF_ST, M_ADDR + i);
	}
	skip_end(f, over);
	emit_level(f, owned, n, true, level);
	when_end(f, block);
	emit_extensions(f, any);
}

/* A frame with a VLAN id belongs to the VLAN's interface, which shows it again without the tag.
 * Id 0 is a priority alone: the kernel takes it as untagged.
 */
static void emit_vlan(struct filter *f)
{
	load_fact(f, SKF_AD_VLAN_TAG_PRESENT);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 0);
	load_fact(f, SKF_AD_VLAN_TAG);
	refuse(f, BPF_JSET, 0x0fff);
}

void filter_build_none(struct filter *ret_filter)
{
	ret_filter->n = 0;
	ret_filter->too_long = false;
	finish(ret_filter, 0);
}

int filter_build(const struct link_owned *owned, size_t n, bool neigh, enum filter_level level,
		 uint32_t most, struct filter *ret_filter)
{
	struct filter *f = ret_filter;
	unsigned block;

	f->n = 0;
	f->too_long = false;
	emit_vlan(f);
	load_fact(f, SKF_AD_PKTTYPE);
	refuse(f, BPF_JGT, PACKET_MULTICAST); /* another host's, or outgoing */
	load_fact(f, SKF_AD_PROTOCOL);
	block = when(f, ETH_P_IP);
	emit_ip4(f, owned, n, level);
	when_end(f, block);
	block = when(f, ETH_P_IPV6);
	emit_ip6(f, owned, n, neigh, level);
	when_end(f, block);
	if (neigh) {
		require(f, BPF_JEQ, ETH_P_ARP);
		load_ip(f, BPF_H, 6);
		require(f, BPF_JEQ, 1); /* a request */
		take(f, READ);
	} else {
		finish(f, 0);
	}
	emit_tails(f, most);
	return f->too_long ? -E2BIG : 0;
}
