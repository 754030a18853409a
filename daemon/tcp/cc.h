/* SPDX-License-Identifier: Apache-2.0 */
/* Congestion control: what an algorithm decides (MAY-18: others may stand beside NewReno). When to ask
 * it, and fast recovery (RFC 6582), is in ack.c and timeouts.c; they keep tcb.cc. Private to daemon/tcp/.
 */
#pragma once
#include <stdint.h>

struct tcb;

struct cc_ops {
	const char *name;
	/* ssthresh after a loss with `flight` octets outstanding. */
	uint32_t (*ssthresh)(const struct tcb *t, uint32_t flight);
	/* `acked` new octets were acknowledged outside recovery: grow cwnd. */
	void (*grow)(struct tcb *t, uint32_t acked);
};

extern const struct cc_ops cc_newreno;

/* At ESTABLISHED: the initial window. */
void cc_open(struct tcb *t);
/* RFC 5681 3.1 and RFC 6928: the window a new or long idle connection starts with. */
uint32_t cc_initial_window(const struct tcb *t);
