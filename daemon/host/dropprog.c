/* SPDX-License-Identifier: Apache-2.0 */
#include "dropprog.h"

#include <arpa/inet.h>
#include <assert.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdbool.h>

#include "base/macros.h"

enum {
	TCX_NEXT =
		-1, /* Linux 6.6's linux/bpf.h, where older ones have TC_ACT_UNSPEC and TC_ACT_SHOT */
	TCX_DROP = 2,
	PASS = INT16_MAX, /* a jump to the end, whose place is not known yet */
	KEY = -24, /* of the stack: where the key is made */
	PACKET_TO_HOST = 0,
	DONT_FRAGMENT_ASIDE =
		0x3fff, /* of the IPv4 header's word with the offset: more fragments, and where */
	IPV4_PLAIN = 0x45, /* version, and a header without options */
};

/* Registers that calls leave alone. */
enum { CTX = BPF_REG_6, PACKET = BPF_REG_7, END = BPF_REG_8 };
enum { A = BPF_REG_0, B = BPF_REG_2, FP = BPF_REG_10 };

_Static_assert(sizeof(struct dropprog_key) == 20, "as the program lays it out");

struct text {
	struct bpf_insn *insn;
	size_t n;
	int at; /* of the packet: where the IP header is */
};

static void emit(struct text *t, uint8_t code, uint8_t dst, uint8_t src, int off, int32_t imm)
{
	assert(t->n < DROPPROG_MAX);
	t->insn[t->n++] = (struct bpf_insn){ .code = code,
					     .dst_reg = (uint8_t)(dst & 15),
					     .src_reg = (uint8_t)(src & 15),
					     .off = (int16_t)off,
					     .imm = imm };
}

static void load(struct text *t, uint8_t size, uint8_t dst, uint8_t src, int off)
{
	emit(t, BPF_LDX | BPF_MEM | size, dst, src, off, 0);
}

static void load_ctx(struct text *t, uint8_t dst, size_t off)
{
	load(t, BPF_W, dst, CTX, (int)off);
}

static void store(struct text *t, uint8_t size, int off, uint8_t src)
{
	emit(t, BPF_STX | BPF_MEM | size, FP, src, off, 0);
}

static void store_const(struct text *t, uint8_t size, int off, int32_t imm)
{
	emit(t, BPF_ST | BPF_MEM | size, FP, 0, off, imm);
}

static void jump(struct text *t, uint8_t op, uint8_t dst, int32_t imm, int off)
{
	emit(t, BPF_JMP | op | BPF_K, dst, 0, off, imm);
}

static void load_map(struct text *t, int fd)
{
	emit(t, BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, fd);
	emit(t, 0, 0, 0, 0, 0);
}

/* A: the value of the key, or 0. */
static void look_up(struct text *t, int fd)
{
	load_map(t, fd);
	emit(t, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, FP, 0, 0);
	emit(t, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, KEY);
	emit(t, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem);
}

/* So many octets from the IP header on, or it goes on. */
static void need(struct text *t, int bytes)
{
	emit(t, BPF_ALU64 | BPF_MOV | BPF_X, B, PACKET, 0, 0);
	emit(t, BPF_ALU64 | BPF_ADD | BPF_K, B, 0, 0, t->at + bytes);
	emit(t, BPF_JMP | BPF_JGT | BPF_X, B, END, PASS, 0);
}

static void need_octet(struct text *t, int at, int32_t value)
{
	load(t, BPF_B, B, PACKET, t->at + at);
	jump(t, BPF_JNE, B, value, PASS);
}

static void end_key(struct text *t, int port_at, uint8_t family)
{
	load(t, BPF_H, B, PACKET, t->at + port_at);
	store(t, BPF_H, KEY + (int)offsetof(struct dropprog_key, port), B);
	store_const(t, BPF_B, KEY + (int)offsetof(struct dropprog_key, family), family);
	store_const(t, BPF_B, KEY + (int)offsetof(struct dropprog_key, zero), 0);
}

/* The key of a TCP segment, by RFC 791 and RFC 9293 3.1. */
static void key_of_ipv4(struct text *t)
{
	need(t, 24);
	need_octet(t, 0, IPV4_PLAIN);
	need_octet(t, 9, IPPROTO_TCP);
	load(t, BPF_H, B, PACKET, t->at + 6);
	emit(t, BPF_ALU64 | BPF_AND | BPF_K, B, 0, 0, htons(DONT_FRAGMENT_ASIDE));
	jump(t, BPF_JNE, B, 0, PASS);
	store_const(t, BPF_DW, KEY, 0); /* ::ffff:0:0/96 */
	store_const(t, BPF_W, KEY + 8, (int32_t)htonl(0xffff));
	load(t, BPF_W, B, PACKET, t->at + 16);
	store(t, BPF_W, KEY + 12, B);
	end_key(t, 22, 4);
}

/* By RFC 8200 3. */
static void key_of_ipv6(struct text *t)
{
	need(t, 44);
	load(t, BPF_B, B, PACKET, t->at);
	emit(t, BPF_ALU64 | BPF_RSH | BPF_K, B, 0, 0, 4);
	jump(t, BPF_JNE, B, 6, PASS);
	need_octet(t, 6, IPPROTO_TCP);
	for (int i = 0; i < 16; i += 4) {
		load(t, BPF_W, B, PACKET, t->at + 24 + i);
		store(t, BPF_W, KEY + i, B);
	}
	end_key(t, 42, 6);
}

static void count_and_drop(struct text *t)
{
	load(t, BPF_DW, B, A, offsetof(struct dropprog_count, packets));
	emit(t, BPF_ALU64 | BPF_ADD | BPF_K, B, 0, 0, 1);
	emit(t, BPF_STX | BPF_MEM | BPF_DW, A, B, offsetof(struct dropprog_count, packets), 0);
	load_ctx(t, BPF_REG_3, offsetof(struct __sk_buff, len));
	emit(t, BPF_ALU64 | BPF_SUB | BPF_K, BPF_REG_3, 0, 0, t->at);
	load(t, BPF_DW, B, A, offsetof(struct dropprog_count, bytes));
	emit(t, BPF_ALU64 | BPF_ADD | BPF_X, B, BPF_REG_3, 0, 0);
	emit(t, BPF_STX | BPF_MEM | BPF_DW, A, B, offsetof(struct dropprog_count, bytes), 0);
	emit(t, BPF_ALU64 | BPF_MOV | BPF_K, A, 0, 0, TCX_DROP);
	emit(t, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* A jump from there on to the next instruction. */
static void land(struct text *t, size_t from)
{
	t->insn[from].off = (int16_t)(t->n - from - 1);
}

static size_t jump_later(struct text *t, uint8_t op, uint8_t dst, int32_t imm)
{
	jump(t, op, dst, imm, 0);
	return t->n - 1;
}

static void find_key(struct text *t)
{
	size_t other, found;

	load_ctx(t, A, offsetof(struct __sk_buff, protocol));
	other = jump_later(t, BPF_JNE, A, htons(ETH_P_IP));
	key_of_ipv4(t);
	found = jump_later(t, BPF_JA, 0, 0);
	land(t, other);
	jump(t, BPF_JNE, A, htons(ETH_P_IPV6), PASS);
	key_of_ipv6(t);
	land(t, found);
}

size_t dropprog_write(struct bpf_insn ret_insn[static DROPPROG_MAX], uint8_t link_header,
		      int locals_fd, int members_fd)
{
	struct text t = { .insn = ret_insn, .at = link_header };
	size_t found;

	emit(&t, BPF_ALU64 | BPF_MOV | BPF_X, CTX, BPF_REG_1, 0, 0);
	load_ctx(&t, A, offsetof(struct __sk_buff, pkt_type));
	jump(&t, BPF_JNE, A, PACKET_TO_HOST, PASS);
	/* A tag is another interface's. */
	load_ctx(&t, A, offsetof(struct __sk_buff, vlan_present));
	jump(&t, BPF_JNE, A, 0, PASS);
	load_ctx(&t, PACKET, offsetof(struct __sk_buff, data));
	load_ctx(&t, END, offsetof(struct __sk_buff, data_end));
	find_key(&t);
	look_up(&t, locals_fd);
	jump(&t, BPF_JEQ, A, 0, PASS);
	look_up(&t, members_fd);
	found = jump_later(&t, BPF_JNE, A, 0);
	store_const(&t, BPF_DW, KEY, 0);
	store_const(&t, BPF_DW, KEY + 8, 0);
	look_up(&t, members_fd);
	jump(&t, BPF_JEQ, A, 0, PASS);
	land(&t, found);
	count_and_drop(&t);
	for (size_t i = 0; i < t.n; i++) {
		if (t.insn[i].off == PASS)
			land(&t, i);
	}
	emit(&t, BPF_ALU64 | BPF_MOV | BPF_K, A, 0, 0, TCX_NEXT);
	emit(&t, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	return t.n;
}
