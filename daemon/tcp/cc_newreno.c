/* SPDX-License-Identifier: Apache-2.0 */
/* Slow start and congestion avoidance of RFC 5681 (MUST-19), counted in octets (RFC 3465). */
#include "tcb.h"

static void newreno_open(struct tcb *t)
{
	t->cc.hystart.on = false;
}

static uint32_t newreno_ssthresh(struct tcb *t, uint32_t flight)
{
	ecn_reduced(t);
	return max_u32(flight / 2, 2 * t->snd.mss); /* RFC 5681 (4) */
}

static uint32_t newreno_ssthresh_ecn(struct tcb *t, uint32_t flight)
{
	ecn_reduced(t);
	return max_u32(flight / 5 * 4, 2 * t->snd.mss); /* RFC 8511 3.1 */
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

static void newreno_on_ack(struct tcb *t, uint32_t acked, vtime now, bool in_use)
{
	(void)now;
	if (!in_use)
		return;
	if (t->cc.cwnd < t->cc.ssthresh)
		cc_slow_start(t, acked);
	else
		congestion_avoidance(t, acked);
}

static void nothing(struct tcb *t)
{
	(void)t;
}

static void nothing_at(struct tcb *t, vtime now)
{
	(void)t;
	(void)now;
}

const struct cc_ops cc_newreno = {
	.name = "newreno",
	.open = newreno_open,
	.on_ack = newreno_on_ack,
	.ssthresh = newreno_ssthresh,
	.ssthresh_ecn = newreno_ssthresh_ecn,
	.on_rto = nothing,
	.on_idle_end = nothing_at,
	.on_undo = nothing,
};
