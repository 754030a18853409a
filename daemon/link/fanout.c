/* SPDX-License-Identifier: Apache-2.0 */
/* Loads are relative to the network header; one beyond the packet's end gives it to the first worker. */
#include "fanout.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "emit.h"

#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000 /* Linux 6.2; before that it means nothing */
#endif

enum {
	IP4_SRC = 12,
	IP4_DST = 16,
	IP4_BYTES = 20,
	IP6_SRC = 8,
	IP6_DST = 24,
	IP6_BYTES = 40,
	ICMP_BYTES = 8,
	TYPE_SOLICITATION = 135,
	EXTENSIONS_MAX = 8,
};

/* Scratch words: the hash; what waits for its turn. */
enum { M_HASH = 0, M_OTHER = 1 };

/* A holds a word: the hash goes on with it. */
static void emit_mix(struct filter *f, uint32_t key)
{
	emit(f, BPF_MISC | BPF_TAX, 0);
	emit(f, BPF_LD | BPF_MEM, M_HASH);
	emit(f, BPF_ALU | BPF_XOR | BPF_X, 0);
	emit(f, BPF_ALU | BPF_MUL | BPF_K, key);
	emit(f, BPF_ST, M_HASH);
}

/* A holds remote and local port: this is the result. */
static void emit_finish(struct filter *f, const struct steer *s)
{
	emit_mix(f, s->key[1]);
	emit(f, BPF_ALU | BPF_RSH | BPF_K, 16);
	emit(f, BPF_MISC | BPF_TAX, 0);
	emit(f, BPF_LD | BPF_MEM, M_HASH);
	emit(f, BPF_ALU | BPF_XOR | BPF_X, 0);
	emit(f, BPF_ALU | BPF_MUL | BPF_K, s->key[0]);
	emit(f, BPF_ALU | BPF_RSH | BPF_K, 8);
	emit(f, BPF_RET | BPF_A, 0);
}

/* A holds ports of a quoted packet, which is one of ours: local, remote. */
static void emit_swap(struct filter *f)
{
	emit(f, BPF_ST, M_OTHER);
	emit(f, BPF_ALU | BPF_LSH | BPF_K, 16);
	emit(f, BPF_MISC | BPF_TAX, 0);
	emit(f, BPF_LD | BPF_MEM, M_OTHER);
	emit(f, BPF_ALU | BPF_RSH | BPF_K, 16);
	emit(f, BPF_ALU | BPF_OR | BPF_X, 0);
}

static void load_header_length(struct filter *f)
{
	emit(f, BPF_LDX | BPF_B | BPF_MSH, (uint32_t)SKF_NET_OFF);
}

static void emit_ip4(struct filter *f, const struct steer *s)
{
	unsigned block;

	load_ip(f, BPF_B, 9);
	block = when(f, IPPROTO_TCP);
	load_ip(f, BPF_W, IP4_SRC);
	emit_mix(f, s->key[0]);
	load_header_length(f);
	load_from_x(f, BPF_W, 0);
	emit_finish(f, s);
	when_end(f, block);
	require(f, BPF_JEQ, IPPROTO_ICMP);
	load_header_length(f);
	load_from_x(f, BPF_W, ICMP_BYTES + IP4_DST);
	emit_mix(f, s->key[0]);
	load_header_length(f);
	load_from_x(f, BPF_W, ICMP_BYTES + IP4_BYTES);
	emit_swap(f);
	emit_finish(f, s);
}

static void emit_address6(struct filter *f, const struct steer *s, int offset)
{
	for (int i = 0; i < 16; i += 4) {
		load_ip(f, BPF_W, offset + i);
		emit_mix(f, s->key[0]);
	}
}

/* A: a next header; X: where it begins. Steps over one that may stand before TCP: A and X are the next
 * one's. At TCP, and at anything else, nothing happens.
 */
static void emit_step(struct filter *f)
{
	unsigned fragment;

	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_HOPOPTS, 4, 0);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ROUTING, 3, 0);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_DSTOPTS, 2, 0);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_FRAGMENT, 1, 0);
	fragment = skip(f); /* over everything */
	emit(f, BPF_ST, M_OTHER);
	load_from_x(f, BPF_B, 0);
	emit(f, BPF_STX, 2);
	emit(f, BPF_ST, 3);
	/* Its length in units of 8 octets; a fragment header has no such field. */
	emit(f, BPF_LD | BPF_MEM, M_OTHER);
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_FRAGMENT, 0, 2);
	emit(f, BPF_LD | BPF_IMM, 0);
	emit(f, BPF_JMP | BPF_JA, 1);
	load_from_x(f, BPF_B, 1);
	emit(f, BPF_ALU | BPF_ADD | BPF_K, 1);
	emit(f, BPF_ALU | BPF_LSH | BPF_K, 3);
	emit(f, BPF_LDX | BPF_MEM, 2);
	emit(f, BPF_ALU | BPF_ADD | BPF_X, 0);
	emit(f, BPF_MISC | BPF_TAX, 0);
	emit(f, BPF_LD | BPF_MEM, 3);
	skip_end(f, fragment);
}

static void emit_ip6(struct filter *f, const struct steer *s)
{
	unsigned block;

	load_ip(f, BPF_B, 6);
	block = when(f, IPPROTO_ICMPV6);
	load_ip(f, BPF_B, IP6_BYTES);
	refuse(f, BPF_JGT, TYPE_SOLICITATION - 1);
	emit_address6(f, s, IP6_BYTES + ICMP_BYTES + IP6_DST);
	load_ip(f, BPF_W, IP6_BYTES + ICMP_BYTES + IP6_BYTES);
	emit_swap(f);
	emit_finish(f, s);
	when_end(f, block);
	emit(f, BPF_LDX | BPF_IMM, IP6_BYTES);
	for (unsigned i = 0; i < EXTENSIONS_MAX; i++)
		emit_step(f);
	require(f, BPF_JEQ, IPPROTO_TCP);
	emit(f, BPF_STX, 2);
	emit_address6(f, s, IP6_SRC);
	emit(f, BPF_LDX | BPF_MEM, 2);
	load_from_x(f, BPF_W, 0);
	emit_finish(f, s);
}

void fanout_build(const struct steer *s, struct filter *ret_program)
{
	struct filter *f = ret_program;
	unsigned block;

	f->n = 0;
	f->too_long = false;
	emit(f, BPF_LD | BPF_IMM, 0);
	emit(f, BPF_ST, M_HASH);
	load_fact(f, SKF_AD_PROTOCOL);
	block = when(f, ETH_P_IP);
	emit_ip4(f, s);
	when_end(f, block);
	require(f, BPF_JEQ, ETH_P_IPV6);
	emit_ip6(f, s);
}

static int set_program(int fd, const struct steer *s)
{
	struct filter f;
	struct sock_fprog prog;

	fanout_build(s, &f);
	prog = (struct sock_fprog){ .len = (unsigned short)f.n, .filter = f.insn };
	return setsockopt(fd, SOL_PACKET, PACKET_FANOUT_DATA, &prog, sizeof(prog)) ? -errno : 0;
}

int fanout_join(int fd, const struct steer *s, struct fanout_group *group)
{
	const unsigned kind = PACKET_FANOUT_CBPF | PACKET_FANOUT_FLAG_IGNORE_OUTGOING |
			      (group->made ? 0 : PACKET_FANOUT_FLAG_UNIQUEID);
	const uint32_t arg = group->id | kind << 16;
	uint32_t now;
	socklen_t len = sizeof(now);

	if (setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &arg, sizeof(arg)) ||
	    getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &now, &len))
		return -errno;
	if (group->made)
		return 0;
	*group = (struct fanout_group){ .made = true, .id = (uint16_t)now };
	return set_program(fd, s);
}
