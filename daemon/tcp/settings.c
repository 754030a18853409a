/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a connection that runs, and what follows when they change: SHLD-21, MUST-17, MUST-21,
 * MUST-24. What only the handshake goes by (the scale that the SYN said, say) stays as it is.
 */
#include <errno.h>

#include "tcb.h"

int conn_params(const struct engine *e, conn_id id, struct tcp_params *ret_params)
{
	struct tcb copy;
	const struct tcb *const t = engine_look(e, id, &copy);

	if (!t)
		return -EBADF;
	*ret_params = *t->params;
	return 0;
}

/* The instant at which a timer that was set for `before` would fall due, had it been set for `after`. */
static vtime moved(vtime due, uint64_t before_us, uint64_t after_us)
{
	return vtime_add((vtime){ due.us - before_us }, after_us);
}

/* MUST-21: counted from the last progress. During the handshake the timer is SynTimeout's. */
void tcb_refit_user_timeout(struct engine *e, struct tcb *t, uint64_t before_us)
{
	const uint64_t us = tcb_user_timeout_us(t);
	const vtime due = t->timers[TIMER_USER_TIMEOUT];

	if (us == before_us || !tcb_syn_acked(t))
		return;
	if (us == 0)
		timer_clear(t, TIMER_USER_TIMEOUT);
	else if (vtime_is_set(due))
		timer_set(e, t, TIMER_USER_TIMEOUT, moved(due, before_us, us));
	else if (tcb_flight(t))
		timer_set(e, t, TIMER_USER_TIMEOUT, vtime_add(e->now, us));
}

static void refit_rto(struct engine *e, struct tcb *t, const struct tcp_params *before)
{
	if (t->params->rto_min_us == before->rto_min_us &&
	    t->params->rto_max_us == before->rto_max_us)
		return;
	rtt_refit(t);
	if (vtime_is_set(t->timers[TIMER_RETRANSMISSION]))
		tcb_rearm(e, t);
}

static void refit_delayed_ack(struct engine *e, struct tcb *t, uint64_t before_us)
{
	const uint64_t us = t->params->delayed_ack_us;
	const vtime due = t->timers[TIMER_DELAYED_ACK];

	if (us == before_us || !vtime_is_set(due))
		return;
	if (us)
		timer_set(e, t, TIMER_DELAYED_ACK, moved(due, before_us, us));
	else
		tcb_ack_now(e, t);
}

static void refit_keepalive(struct engine *e, struct tcb *t, const struct tcp_params *before,
			    uint64_t idle_us)
{
	const struct tcp_params *const p = t->params;

	if (p->keepalive != before->keepalive || tcb_keepalive_idle_us(t) != idle_us ||
	    p->keepalive_interval_us != before->keepalive_interval_us ||
	    p->keepalive_probes != before->keepalive_probes)
		tcb_keepalive_start(e, t);
}

int conn_set_params(struct engine *e, vtime now, conn_id id, const struct tcp_params *params)
{
	struct tcb *t = engine_find(e, id);
	const struct tcp_params *held;
	struct tcp_params before;
	uint64_t user_timeout_us, idle_us;

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	if (t->state == ST_CLOSED)
		return -ENOTCONN;
	held = params_take(e, params);
	if (!held)
		return -ENOBUFS;
	before = *t->params;
	user_timeout_us = tcb_user_timeout_us(t);
	idle_us = tcb_keepalive_idle_us(t);
	params_drop(e, t->params);
	t->params = held;
	cc_choose(t);
	window_set_limit(e, t);
	tcb_limit_fin_wait_2(e, t);
	tcb_refit_user_timeout(e, t, user_timeout_us);
	uto_open(e, t, &before);
	refit_rto(e, t, &before);
	refit_delayed_ack(e, t, before.delayed_ack_us);
	refit_keepalive(e, t, &before, idle_us);
	tcb_tell_room(e, t);
	if (t->state != ST_SYN_SENT)
		window_tell(e, t);
	tcb_want_output(e, t);
	return 0;
}
