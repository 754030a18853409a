/* SPDX-License-Identifier: Apache-2.0 */
/* Writing programs of classic BPF, for filter.c and fanout.c. Every load of the packet is relative to
 * the network header (SKF_NET_OFF), so that one program serves interfaces with and without a link
 * header. A load beyond the packet's end ends the program with 0.
 */
#pragma once
#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>

#include "link/filter.h"

static inline void emit_jump(struct filter *f, unsigned code, uint32_t k, unsigned jt, unsigned jf)
{
	if (f->n == BPF_MAXINSNS) {
		f->too_long = true;
		return;
	}
	f->insn[f->n++] = (struct sock_filter){ (uint16_t)code, (uint8_t)jt, (uint8_t)jf, k };
}

static inline void emit(struct filter *f, unsigned code, uint32_t k)
{
	emit_jump(f, code, k, 0, 0);
}

/* Loads what the kernel knows about the packet: SKF_AD_PROTOCOL and the like. */
static inline void load_fact(struct filter *f, int fact)
{
	emit(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + fact));
}

/* Loads octets of the IP packet; size is BPF_B, BPF_H or BPF_W. */
static inline void load_ip(struct filter *f, unsigned size, int offset)
{
	emit(f, BPF_LD | size | BPF_ABS, (uint32_t)(SKF_NET_OFF + offset));
}

/* Octets relative to X. */
static inline void load_from_x(struct filter *f, unsigned size, int offset)
{
	emit(f, BPF_LD | size | BPF_IND, (uint32_t)(SKF_NET_OFF + offset));
}

static inline void finish(struct filter *f, uint32_t result)
{
	emit(f, BPF_RET | BPF_K, result);
}

/* Compares A by `test` (BPF_JEQ, BPF_JGT, BPF_JSET) and ends with 0 when it is not so, or is. */
static inline void require(struct filter *f, unsigned test, uint32_t k)
{
	emit_jump(f, BPF_JMP | test | BPF_K, k, 1, 0);
	finish(f, 0);
}

static inline void refuse(struct filter *f, unsigned test, uint32_t k)
{
	emit_jump(f, BPF_JMP | test | BPF_K, k, 0, 1);
	finish(f, 0);
}

/* Jumps over what follows, up to skip_end(). */
static inline unsigned skip(struct filter *f)
{
	emit(f, BPF_JMP | BPF_JA, 0);
	return f->n - 1;
}

static inline void skip_end(struct filter *f, unsigned begin)
{
	if (!f->too_long)
		f->insn[begin].k = f->n - begin - 1;
}

/* What follows, up to when_end(), runs only when A == k. What falls out of its end goes on behind it. */
static inline unsigned when(struct filter *f, uint32_t k)
{
	emit_jump(f, BPF_JMP | BPF_JEQ | BPF_K, k, 1, 0);
	return skip(f);
}

static inline void when_end(struct filter *f, unsigned begin)
{
	skip_end(f, begin);
}
