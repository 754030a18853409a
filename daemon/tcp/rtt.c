/* SPDX-License-Identifier: Apache-2.0 */
/* Round-trip times and the retransmission timeout: RFC 6298 (MUST-18). */
#include "tcb.h"

/* Floor of every timeout, whatever the parameters say: the engine must not spin. */
enum {
	RTO_FLOOR_US = 1000,
	GRANULARITY_US = 1000,
	BACKOFFS_MAX = 32,
	AFTER_LOST_SYN_US = 3000000, /* RFC 6298 5.7 */
	SAMPLE_MAX_US = 1 << 28, /* 8 times it is a number yet */
	STRETCH_US = 150000000, /* the least is remembered for one to two of it */
};

static uint32_t clamp_rto(const struct tcb *t, uint64_t us)
{
	us = us < t->params->rto_min_us ? t->params->rto_min_us : us; /* RFC 6298 2.4 */
	us = us > t->params->rto_max_us ? t->params->rto_max_us : us; /* RFC 6298 2.5 */
	us = us < RTO_FLOOR_US ? RTO_FLOOR_US : us;
	return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

void rtt_open(struct tcb *t)
{
	t->rtt.rto_us = clamp_rto(t, t->params->rto_initial_us); /* RFC 6298 2.1 */
}

uint32_t rtt_smoothed_us(const struct tcb *t)
{
	return t->rtt.srtt_8 ? max_u32((t->rtt.srtt_8 + 4) / 8, 1) : 0;
}

uint32_t rtt_variation_us(const struct tcb *t)
{
	return (t->rtt.var_4 + 2) / 4;
}

/* RFC 6298 2.2, 2.3 */
static uint64_t measured(const struct tcb *t)
{
	return rtt_smoothed_us(t) + (uint64_t)max_u32(GRANULARITY_US, t->rtt.var_4);
}

void rtt_refit(struct tcb *t)
{
	t->rtt.rto_us = clamp_rto(t, t->rtt.srtt_8 ? measured(t) : t->rtt.rto_us);
}

/* RFC 8985 6.2 step 1, min_RTT: the least of some minutes, for the path may have become longer. That is of this
 * stretch of time and the one before it, counted from the connection's beginning: 2.5 to 5 minutes.
 */
static void keep_least(struct tcb *t, vtime now, uint32_t us)
{
	const uint32_t stretch = (uint32_t)(vtime_since(now, t->created_at) / STRETCH_US);

	if (t->rtt.srtt_8 == 0 || stretch != t->rtt.stretch) {
		const bool next = t->rtt.srtt_8 && stretch == t->rtt.stretch + 1;

		t->rtt.min_us = next ? t->rtt.stretch_us : us;
		t->rtt.stretch_us = us;
		t->rtt.stretch = stretch;
	}
	t->rtt.min_us = min_u32(t->rtt.min_us, us);
	t->rtt.stretch_us = min_u32(t->rtt.stretch_us, us);
}

/* One measurement for each round trip, and not one for each ACK (see measure()): RFC 6298's gains are
 * meant for that; RFC 7323 appendix G is about more of them. Fractions are kept and rounded, so that a
 * steady round trip of a few microseconds is what comes out.
 */
void rtt_sample(struct tcb *t, vtime now, uint64_t sample_us)
{
	const uint32_t us = max_u32(
		(uint32_t)(sample_us < SAMPLE_MAX_US ? sample_us : SAMPLE_MAX_US), 1);

	keep_least(t, now, us);
	t->tlp.unmeasured = false;
	if (t->rtt.srtt_8 == 0) { /* RFC 6298 2.2 */
		t->rtt.srtt_8 = 8 * us;
		t->rtt.var_4 = 2 * us;
	} else { /* RFC 6298 2.3; RTTVAR first */
		const uint32_t srtt_8 = t->rtt.srtt_8;
		const uint32_t off_8 = srtt_8 > 8 * us ? srtt_8 - 8 * us : 8 * us - srtt_8;

		t->rtt.var_4 = t->rtt.var_4 - (t->rtt.var_4 + 2) / 4 + (off_8 + 3) / 8;
		t->rtt.srtt_8 = max_u32(srtt_8 - (srtt_8 + 4) / 8 + us, 1);
	}
	t->rtt.rto_us = clamp_rto(t, measured(t));
}

void rtt_after_lost_syn(struct tcb *t)
{
	if (t->params->rto_initial_us < AFTER_LOST_SYN_US)
		t->rtt.rto_us = clamp_rto(t, AFTER_LOST_SYN_US);
}

uint32_t rtt_rto_us(const struct tcb *t)
{
	const unsigned shift = min_u32(t->rtt.backoffs, BACKOFFS_MAX - 1);
	const uint64_t us = (uint64_t)t->rtt.rto_us << shift; /* RFC 6298 5.5 */

	return us > t->params->rto_max_us ? max_u32((uint32_t)t->params->rto_max_us, t->rtt.rto_us)
					  : (uint32_t)us;
}
