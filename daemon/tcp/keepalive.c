/* SPDX-License-Identifier: Apache-2.0 */
/* Keep-alives: RFC 9293 3.8.4 (MAY-5). Off unless asked for (MUST-25), for each connection (MUST-24). */
#include "tcb.h"

/* MUST-26: nothing is outstanding, for else a retransmission or a probe into the window asks already. */
static bool may_probe(const struct tcb *t)
{
	switch (t->state) {
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_2:
	case ST_CLOSE_WAIT:
		return tcb_flight(t) == 0 && !tcb_has_unsent(t);
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST_SYN_RECEIVED:
	case ST_FIN_WAIT_1:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST_TIME_WAIT:
	case ST__COUNT:
		break;
	}
	return false;
}

/* MUST-27. RFC 5482 4.2: where that option is used, the time "MUST be set to a value
 * larger than that of the adopted USER TIMEOUT", or keep-alives would end what that is to save.
 */
uint64_t tcb_keepalive_idle_us(const struct tcb *t)
{
	const uint64_t time_us = t->params->keepalive_time_us;
	const uint64_t user_us = tcb_user_timeout_us(t);

	if (t->params->user_timeout_option == TCP_UTO_NO || time_us > user_us)
		return time_us;
	return user_us + 1;
}

void tcb_keepalive_start(struct engine *e, struct tcb *t)
{
	t->keepalive.probes = 0;
	t->keepalive.owed = false;
	if (t->params->keepalive && t->opened && t->state != ST_TIME_WAIT)
		timer_set(e, t, TIMER_KEEPALIVE, vtime_add(e->now, tcb_keepalive_idle_us(t)));
	else
		timer_clear(t, TIMER_KEEPALIVE);
}

void tcb_keepalive_timeout(struct engine *e, struct tcb *t)
{
	const uint64_t idle_us = vtime_since(e->now, t->keepalive.heard_at);
	const uint64_t time_us = tcb_keepalive_idle_us(t);

	if (!may_probe(t)) {
		tcb_keepalive_start(e, t);
	} else if (idle_us < time_us) {
		timer_set(e, t, TIMER_KEEPALIVE, vtime_add(t->keepalive.heard_at, time_us));
	} else if (t->keepalive.probes < t->params->keepalive_probes) {
		t->keepalive.probes++;
		t->keepalive.owed = true;
		tcb_want_output(e, t);
		timer_set(e, t, TIMER_KEEPALIVE,
			  vtime_add(e->now, t->params->keepalive_interval_us));
	} else { /* MUST-29: it takes several that are not answered */
		tcb_reset(e, t, END_KEEPALIVE_TIMEOUT, CAUSE_TIMER, TIMER_KEEPALIVE,
			  RULE_KEEPALIVE);
	}
}
