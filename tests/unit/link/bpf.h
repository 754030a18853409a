/* SPDX-License-Identifier: Apache-2.0 */
/* An interpreter of classic BPF, of just the instructions that our programs use. Include it behind cmocka. */
#pragma once
#include "link/filter.h"

/* A packet as the kernel shows it to a filter: from the network header on, and some facts. */
struct shown {
	uint8_t ip[128];
	uint32_t len;
	uint32_t protocol, pkttype;
	bool tagged;
	uint32_t tag;
};

static inline bool bpf_load(const struct shown *s, uint32_t k, uint32_t x, unsigned size,
			    uint32_t *ret)
{
	const int32_t at = (int32_t)k;
	const uint32_t n = size == BPF_W ? 4 : size == BPF_H ? 2 : 1;
	uint32_t off, v = 0;

	if (at >= SKF_AD_OFF) {
		switch (at - SKF_AD_OFF) {
		case SKF_AD_PROTOCOL:
			*ret = s->protocol;
			return true;
		case SKF_AD_PKTTYPE:
			*ret = s->pkttype;
			return true;
		case SKF_AD_VLAN_TAG:
			*ret = s->tag;
			return true;
		case SKF_AD_VLAN_TAG_PRESENT:
			*ret = s->tagged;
			return true;
		default:
			fail_msg("unknown fact %d", at - SKF_AD_OFF);
		}
	}
	assert_true(at >= SKF_NET_OFF);
	off = (uint32_t)(at - SKF_NET_OFF) + x;
	if (off + n > s->len)
		return false;
	for (uint32_t i = 0; i < n; i++)
		v = v << 8 | s->ip[off + i];
	*ret = v;
	return true;
}

static inline bool bpf_compare(unsigned code, uint32_t a, uint32_t k)
{
	switch (BPF_OP(code)) {
	case BPF_JEQ:
		return a == k;
	case BPF_JGT:
		return a > k;
	case BPF_JGE:
		return a >= k;
	case BPF_JSET:
		return (a & k) != 0;
	default:
		fail_msg("unknown jump %x", code);
		return false;
	}
}

static inline uint32_t bpf_alu(unsigned code, uint32_t a, uint32_t operand)
{
	switch (BPF_OP(code)) {
	case BPF_ADD:
		return (uint32_t)((uint64_t)a + operand);
	case BPF_MUL:
		return (uint32_t)((uint64_t)a * operand);
	case BPF_XOR:
		return a ^ operand;
	case BPF_OR:
		return a | operand;
	case BPF_LSH:
		return (uint32_t)((uint64_t)a << operand);
	case BPF_RSH:
		return a >> operand;
	default:
		fail_msg("unknown operation %x", code);
		return 0;
	}
}

/* What the program returns. */
static inline uint32_t bpf_run(const struct filter *f, const struct shown *s)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = { 0 };

	for (uint32_t pc = 0;; pc++) {
		const struct sock_filter *in = &f->insn[pc];

		assert_true(pc < f->n);
		switch (BPF_CLASS(in->code)) {
		case BPF_RET:
			return BPF_RVAL(in->code) == BPF_A ? a : in->k;
		case BPF_LD:
			if (BPF_MODE(in->code) == BPF_MEM)
				a = mem[in->k];
			else if (BPF_MODE(in->code) == BPF_IMM)
				a = in->k;
			else if (BPF_MODE(in->code) == BPF_LEN)
				a = s->len;
			else if (!bpf_load(s, in->k, BPF_MODE(in->code) == BPF_IND ? x : 0,
					   BPF_SIZE(in->code), &a))
				return 0;
			break;
		case BPF_LDX:
			if (BPF_MODE(in->code) == BPF_MEM) {
				x = mem[in->k];
				break;
			}
			if (BPF_MODE(in->code) == BPF_IMM) {
				x = in->k;
				break;
			}
			assert_int_equal(in->code, BPF_LDX | BPF_B | BPF_MSH);
			if (!bpf_load(s, in->k, 0, BPF_B, &x))
				return 0;
			x = (x & 15) * 4;
			break;
		case BPF_ST:
			mem[in->k] = a;
			break;
		case BPF_STX:
			mem[in->k] = x;
			break;
		case BPF_ALU:
			a = bpf_alu(in->code, a, BPF_SRC(in->code) == BPF_X ? x : in->k);
			break;
		case BPF_MISC:
			if (in->code == (BPF_MISC | BPF_TAX))
				x = a;
			else
				a = x;
			break;
		case BPF_JMP:
			if (BPF_OP(in->code) == BPF_JA)
				pc += in->k;
			else
				pc += bpf_compare(in->code, a, in->k) ? in->jt : in->jf;
			break;
		default:
			fail_msg("unknown class %x", in->code);
		}
	}
}
