/* SPDX-License-Identifier: Apache-2.0 */
/* The classic BPF program of a packet socket: what is ours wakes us, all else never does. Pure. */
#pragma once
#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>

#include "link/link.h"

/* How precise a program is: from what was asked to what always fits. */
enum filter_level {
	FILTER_EXACT, /* addresses and ports */
	FILTER_PORTS, /* local ports of any address */
	FILTER_ALL, /* all TCP */
	FILTER__COUNT,
};

/* Octets of a super-segment whose text nobody looks at: no headers that pass are longer. */
enum { FILTER_HEADERS = 192 };

struct filter {
	unsigned n;
	bool too_long; /* more than the kernel takes */
	struct sock_filter insn[BPF_MAXINSNS];
};

/* A program that drops everything. */
void filter_build_none(struct filter *ret_filter);
/* Takes frames whole, but for those of more than `most` octets whose text nobody looks at: their headers. 0; -E2BIG:
 * too long at this level. */
int filter_build(const struct link_owned *owned, size_t n, bool neigh, enum filter_level level,
		 uint32_t most, struct filter *ret_filter);
