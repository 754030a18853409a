/* SPDX-License-Identifier: Apache-2.0 */
/* The user timeout option, RFC 5482: each end tells the other for how long it will wait for an
 * acknowledgement, so that both survive the same absence. ENABLED is UserTimeoutOption, ADV_UTO is
 * UserTimeout, U_LIMIT UserTimeoutMax, which holds for what the peer asks; L_LIMIT is two RTOs.
 */
#include "tcb.h"

enum { UTO_MINUTES = 0x8000, UTO_MOST = 0x7fff, SECOND_US = 1000000 };

uint64_t tcb_user_timeout_us(const struct tcb *t)
{
	const struct tcp_params *const p = t->params;
	const uint64_t own = p->user_timeout_us, most = p->user_timeout_max_us;
	const uint64_t remote = (uint64_t)t->uto.remote_s * SECOND_US;
	const uint64_t wanted = remote < most ? remote : most;
	/* 3.1: L_LIMIT "MUST be larger than the current retransmission timeout": what was lost goes again, and
	 * may be answered. */
	const uint64_t least = 2ULL * t->rtt.rto_us, longest = own > wanted ? own : wanted;

	if (own == 0 || p->user_timeout_option != TCP_UTO_YES)
		return own; /* CHANGEABLE is false */
	return longest > least ? longest : least;
}

/* 3.3: seconds, or minutes when they are too many; never 0, which is reserved. For ever: as long as can be said.
 */
static uint16_t advertised(const struct tcp_params *p)
{
	const uint64_t s = (p->user_timeout_us + SECOND_US - 1) / SECOND_US,
		       minutes = (s + 59) / 60;

	if (s && s <= UTO_MOST)
		return (uint16_t)s;
	return (uint16_t)(UTO_MINUTES | (s && minutes < UTO_MOST ? minutes : UTO_MOST));
}

void uto_open(struct engine *e, struct tcb *t, const struct tcp_params *before)
{
	const struct tcp_params *const p = t->params;

	if (p->user_timeout_option == TCP_UTO_NO) {
		t->uto.owed = false;
		return;
	}
	/* 3.2: whenever it is a new one. */
	if (before && before->user_timeout_option != TCP_UTO_NO &&
	    advertised(before) == advertised(p))
		return;
	t->uto.owed = true;
	if (before)
		tcb_want_output(e, t);
}

void uto_take(struct tcb *t, const struct segment *seg)
{
	const uint32_t n = seg->user_timeout & UTO_MOST;

	if (seg->options & OPT_USER_TIMEOUT && t->params->user_timeout_option != TCP_UTO_NO)
		t->uto.remote_s = seg->user_timeout & UTO_MINUTES ? n * 60 : n;
}

void uto_arrives(struct engine *e, struct tcb *t, const struct segment *seg)
{
	const uint64_t before = tcb_user_timeout_us(t);

	uto_take(t, seg);
	tcb_refit_user_timeout(e, t, before);
}

void uto_fill(const struct tcb *t, struct segment *out)
{
	/* A Fast Open cookie leaves it no room; it comes again in what follows the SYN. */
	if (t->params->user_timeout_option == TCP_UTO_NO || out->options & OPT_FAST_OPEN)
		return;
	out->options |= OPT_USER_TIMEOUT;
	out->user_timeout = advertised(t->params);
}
