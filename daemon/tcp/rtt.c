/* SPDX-License-Identifier: Apache-2.0 */
/* Round-trip times and the retransmission timeout: RFC 6298 (MUST-18). */
#include "tcb.h"

/* Floor of every timeout, whatever the parameters say: the engine must not spin. */
enum {
	RTO_FLOOR_US = 1000,
	GRANULARITY_US = 1000,
	BACKOFFS_MAX = 32,
	AFTER_LOST_SYN_US = 3000000, /* RFC 6298 5.7 */
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

/* RFC 6298 2.2, 2.3 */
static uint64_t measured(const struct tcb *t)
{
	return t->rtt.srtt_us + (uint64_t)max_u32(GRANULARITY_US, 4 * t->rtt.var_us);
}

void rtt_refit(struct tcb *t)
{
	t->rtt.rto_us = clamp_rto(t, t->rtt.srtt_us ? measured(t) : t->rtt.rto_us);
}

void rtt_sample(struct tcb *t, uint64_t sample_us)
{
	const uint32_t us = (uint32_t)(sample_us == 0               ? 1
				       : sample_us > UINT32_MAX / 8 ? UINT32_MAX / 8
								    : sample_us);

	if (t->rtt.srtt_us == 0) { /* RFC 6298 2.2 */
		t->rtt.srtt_us = us;
		t->rtt.var_us = us / 2;
		t->rtt.min_us = us;
	} else { /* RFC 6298 2.3 */
		const uint32_t srtt = t->rtt.srtt_us;
		const uint32_t off = srtt > us ? srtt - us : us - srtt;

		t->rtt.var_us = (uint32_t)((3ULL * t->rtt.var_us + off) / 4);
		t->rtt.srtt_us = max_u32((uint32_t)((7ULL * srtt + us) / 8), 1);
		t->rtt.min_us = min_u32(t->rtt.min_us, us);
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
