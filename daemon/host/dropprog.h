/* SPDX-License-Identifier: Apache-2.0 */
/* The early drop as a program of BPF, for the kernel's verifier to read. Pure. */
#pragma once
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

enum { DROPPROG_MAX = 96 }; /* instructions */

/* What is dropped: a member of the map. addr: addr_any is the wildcard. */
struct dropprog_key {
	struct ipaddr addr;
	uint16_t port; /* network byte order */
	uint8_t family; /* 4 or 6 */
	uint8_t zero;
};

/* What it has counted, for each CPU. */
struct dropprog_count {
	uint64_t packets, bytes; /* bytes: IP's, as nftables and iptables count them */
};

/* A program of type SCHED_CLS, for a device's ingress: drops (TCX_DROP) TCP to an address that is in `locals` (struct
 * ipaddr) and, with its port or as a wildcard's port, in `members` (dropprog_key, dropprog_count). It counts what it
 * drops; all else goes on (TCX_NEXT).
 *
 * It drops less than the rules of ruletext_write_apply(), never more. Not dropped are, besides what earlytext_write()
 * leaves, IPv4 packets with options and those whose headers are not in the packet's first piece of memory.
 *
 * link_header: octets in front of the IP header, 14 with Ethernet, else 0. Returns how many instructions.
 */
size_t dropprog_write(struct bpf_insn ret_insn[static DROPPROG_MAX], uint8_t link_header,
		      int locals_fd, int members_fd);
