/* SPDX-License-Identifier: Apache-2.0 */
/* Slow start and congestion avoidance of RFC 5681 (MUST-19), counted in octets (RFC 3465). */
#include "tcb.h"

enum { CWND_MAX = 1 << 30 };

static uint32_t newreno_ssthresh(const struct tcb *t, uint32_t flight)
{
	return max_u32(flight / 2, 2 * t->snd.mss); /* RFC 5681 (4) */
}

/* RFC 5681 (2) recommends at most one SMSS per ACK, against ACK division; octets counted are as good
 * against that. With receive offload one ACK covers 64 KiB, and one SMSS for it would be no slow start
 * at all. After a timeout an ACK may jump over what had arrived before: there one SMSS it is (RFC 3465
 * 2.3).
 */
static void slow_start(struct tcb *t, uint32_t acked)
{
	const bool after_timeout = seq_lt(t->snd.una, t->cc.recover);
	const uint32_t most = after_timeout ? t->snd.mss : acked;

	t->cc.cwnd += min_u32(acked, most);
}

/* RFC 5681 3.1: one SMSS for each window acknowledged. */
static void congestion_avoidance(struct tcb *t, uint32_t acked)
{
	t->cc.acked += min_u32(acked, t->cc.cwnd);
	if (t->cc.acked < t->cc.cwnd)
		return;
	t->cc.acked -= t->cc.cwnd;
	t->cc.cwnd += t->snd.mss;
}

static void newreno_grow(struct tcb *t, uint32_t acked)
{
	if (t->cc.cwnd < t->cc.ssthresh)
		slow_start(t, acked);
	else
		congestion_avoidance(t, acked);
	t->cc.cwnd = min_u32(t->cc.cwnd, CWND_MAX);
}

const struct cc_ops cc_newreno = {
	.name = "newreno",
	.ssthresh = newreno_ssthresh,
	.grow = newreno_grow,
};

uint32_t cc_initial_window(const struct tcb *t)
{
	/* RFC 5681 3.1: "if the SYN or SYN/ACK is lost, the initial window [...] MUST be" one SMSS. */
	return t->snd.syn_lost ? t->snd.mss : max_u32(t->params.initial_window, 1) * t->snd.mss;
}

void cc_open(struct tcb *t)
{
	t->cc.cwnd = cc_initial_window(t);
	t->cc.ssthresh = CWND_MAX; /* RFC 5681 3.1: "arbitrarily high" */
	t->cc.recover = t->iss;
}
