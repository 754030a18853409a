/* SPDX-License-Identifier: Apache-2.0 */
/* USER TIMEOUT, RETRANSMISSION TIMEOUT, TIME-WAIT TIMEOUT: RFC 9293 3.10.8; the zero-window probe of
 * 3.8.6.1, which shares the retransmission timer; the delayed ACK.
 */
#include <assert.h>

#include "tcb.h"

enum { SWS_OVERRIDE_US = 1000000 }; /* RFC 9293 3.8.6.2.1: 0.1 to 1 s */

vtime tcb_next_timer(const struct tcb *t)
{
	vtime at = VTIME_NEVER;

	for (unsigned i = 0; i < TIMER__COUNT; i++)
		at = vtime_min(at, t->timers[i]);
	return at;
}

/* One node per connection. What moves later stays where it is until it falls due: an ACK that pushes
 * the timer back costs nothing.
 */
void timer_set(struct engine *e, struct tcb *t, enum timer_kind kind, vtime at)
{
	t->timers[kind] = at;
	if (!timer_node_runs(&t->node) || vtime_before(at, t->node.at))
		wheel_set(&e->wheel, &t->node, at);
}

void timer_clear(struct tcb *t, enum timer_kind kind)
{
	t->timers[kind] = VTIME_NEVER;
}

void timers_clear(struct engine *e, struct tcb *t)
{
	for (unsigned i = 0; i < TIMER__COUNT; i++)
		t->timers[i] = VTIME_NEVER;
	wheel_clear(&e->wheel, &t->node);
}

/* Text or a FIN waits, and only a timer can get it going: the window is shut, or too small to be
 * worth a segment (3.8.6.1, 3.8.6.2.1).
 */
static bool stuck(const struct tcb *t)
{
	return tcb_flight(t) == 0 && tcb_syn_acked(t) && tcb_has_unsent(t);
}

void tcb_rearm(struct engine *e, struct tcb *t)
{
	uint64_t us = rtt_rto_us(t);

	if (tcb_flight(t) == 0 && !stuck(t)) {
		timer_clear(t, TIMER_RETRANSMISSION);
		return;
	}
	if (tcb_flight(t) == 0 && t->snd.wnd != 0 && us > SWS_OVERRIDE_US)
		us = SWS_OVERRIDE_US;
	timer_set(e, t, TIMER_RETRANSMISSION, vtime_add(e->now, us)); /* SHLD-29 */
}

void tcb_start_time_wait(struct engine *e, struct tcb *t, enum rule rule)
{
	if (t->state != ST_TIME_WAIT) {
		tcb_enter(e, t, ST_TIME_WAIT, CAUSE_SEGMENT, e->arriving.ctl, rule);
		for (unsigned i = 0; i < TIMER__COUNT; i++)
			timer_clear(t, (enum timer_kind)i);
	} else {
		list_remove(&t->age.link);
		list_append(&e->time_wait, &t->age.link);
	}
	/* MUST-13 */
	timer_set(e, t, TIMER_TIME_WAIT, vtime_add(e->now, 2 * t->params->msl_us));
	if (e->counters.conns_by_state[ST_TIME_WAIT] > e->cfg.time_wait_max) {
		const uint32_t oldest = LINK_OWNER(e->time_wait.next, struct aged, link)->conn;

		e->counters.time_wait_cut_short++;
		tcb_end(e, slot_wake(e, oldest), END_NORMAL, CAUSE_TIMER, TIMER_TIME_WAIT,
			RULE_TIME_WAIT_MAX);
	}
}

void tcb_limit_fin_wait_2(struct engine *e, struct tcb *t)
{
	if (t->state == ST_FIN_WAIT_2 && t->stopped && t->params->fin_wait_2_us &&
	    !vtime_is_set(t->timers[TIMER_FIN_WAIT_2]))
		timer_set(e, t, TIMER_FIN_WAIT_2, vtime_add(e->now, t->params->fin_wait_2_us));
}

/* 3.10.8 USER TIMEOUT; R2 of 3.8.3 (MUST-20, MUST-22; SHLD-11 by default). */
static void user_timeout(struct engine *e, struct tcb *t)
{
	const bool handshake = !tcb_syn_acked(t);
	const enum end_reason reason = !handshake      ? END_USER_TIMEOUT
				       : t->soft_error ? END_UNREACHABLE /* SHLD-25 */
						       : END_HANDSHAKE_TIMEOUT;

	tcb_end(e, t, reason, CAUSE_TIMER, TIMER_USER_TIMEOUT,
		handshake ? RULE_SYN_TIMEOUT : RULE_USER_TIMEOUT);
}

/* RFC 5681 3.1, equation 4: only the first timeout of a segment halves. */
static void congestion_timeout(struct engine *e, struct tcb *t)
{
	const bool first = t->rtt.backoffs == 0 && tcb_syn_acked(t);
	const bool again = seq_lt(t->snd.una, t->cc.recover);

	if (first)
		recovery_remember(e, t, true);
	t->cc.frto = first && !again && t->recovery ? FRTO_FIRST : FRTO_NONE; /* RFC 5682 2.1 (1) */
	if (t->rtt.backoffs == 0)
		t->cc.ssthresh = t->cc.ops->ssthresh(t, cc_flight(t));
	t->cc.ops->on_rto(t);
	t->cc.cwnd = t->snd.mss; /* the loss window */
	t->cc.acked = 0;
	t->cc.dup_acks = 0;
	t->cc.recovering = false;
	t->cc.recover = t->snd.nxt; /* RFC 6582 4.1 */
	t->snd.fast = false;
}

static void back_off(struct tcb *t)
{
	if (t->rtt.backoffs < UINT8_MAX)
		t->rtt.backoffs++;
}

/* A peer whose window is shut answers, and is alive: 3.8.6.1. */
bool tcb_in_doubt(const struct tcb *t)
{
	return t->rtt.backoffs >= t->params->r1 && tcb_flight(t) && !t->snd.probing;
}

/* R1 of 3.8.3 (SHLD-9, SHLD-10): the user is told, once for each time that it is passed. */
static void check_r1(struct engine *e, struct tcb *t)
{
	if (t->rtt.backoffs != t->params->r1 || !tcb_in_doubt(t))
		return;
	e->counters.r1_passed++;
	tcb_report(e, t, REPORT_IN_DOUBT);
}

/* 3.10.8 RETRANSMISSION TIMEOUT: RFC 6298 5.4 to 5.6. What was sent is sent again from una on, as the
 * window and slow start allow.
 */
static void retransmission_timeout(struct engine *e, struct tcb *t)
{
	timer_clear(t, TIMER_RETRANSMISSION);
	if (tcb_flight(t) == 0) { /* a persist timer: nothing was lost */
		if (!stuck(t))
			return;
		t->snd.force = true;
		if (t->snd.wnd == 0)
			back_off(t); /* SHLD-30 */
	} else if (t->snd.wnd == 0 && tcb_syn_acked(t)) { /* MUST-35, MUST-36; SHLD-17: no loss */
		t->snd.force = true;
		t->snd.rtx = t->snd.una;
		back_off(t);
	} else {
		e->counters.rto_expired++;
		congestion_timeout(e, t);
		t->snd.syn_lost |= !tcb_syn_acked(t);
		recovery_timeout(e, t);
		back_off(t);
		check_r1(e, t);
		tcb_suspect_black_hole(e, t);
	}
	t->snd.timing = false; /* Karn */
	tcb_rearm(e, t);
	tcb_want_output(e, t);
}

static bool due(const struct engine *e, const struct tcb *t, enum timer_kind kind)
{
	return vtime_is_set(t->timers[kind]) && !vtime_before(e->now, t->timers[kind]);
}

/* 3.10.8 TIME-WAIT TIMEOUT. With an MSL of 0 it may fall due before the driver came to pull the ACK of the
 * peer's FIN: that goes first, and tcb_time_wait_acked() sets the timer again.
 */
static void time_wait_timeout(struct engine *e, struct tcb *t)
{
	if (!t->rcv.ack_now)
		tcb_end(e, t, END_NORMAL, CAUSE_TIMER, TIMER_TIME_WAIT, RULE_TIME_WAIT_TIMEOUT);
}

void tcb_time_wait_acked(struct engine *e, struct tcb *t)
{
	if (t->state == ST_TIME_WAIT && !timer_node_runs(&t->node))
		timer_set(e, t, TIMER_TIME_WAIT, t->timers[TIMER_TIME_WAIT]);
}

static void expire(struct engine *e, struct tcb *t)
{
	if (due(e, t, TIMER_USER_TIMEOUT)) {
		user_timeout(e, t);
	} else if (due(e, t, TIMER_TIME_WAIT)) {
		time_wait_timeout(e, t);
	} else if (due(e, t, TIMER_FIN_WAIT_2)) {
		tcb_end(e, t, END_FIN_WAIT_2_TIMEOUT, CAUSE_TIMER, TIMER_FIN_WAIT_2,
			RULE_FIN_WAIT_2_LIMIT);
	} else {
		if (due(e, t, TIMER_REORDERING))
			recovery_reordering_timeout(e, t);
		if (due(e, t, TIMER_LOSS_PROBE)) /* it comes first, and sets the other back */
			recovery_probe_timeout(e, t);
		if (due(e, t, TIMER_RETRANSMISSION))
			retransmission_timeout(e, t);
		if (due(e, t, TIMER_DELAYED_ACK)) {
			timer_clear(t, TIMER_DELAYED_ACK);
			tcb_ack_now(e, t);
		}
		if (due(e, t, TIMER_PATH_MTU))
			tcb_path_mtu_aged(t);
		if (due(e, t, TIMER_KEEPALIVE)) /* may be its end: the last */
			tcb_keepalive_timeout(e, t);
	}
}

/* The node of a connection at rest stood where a timer was: is the next not due yet? */
static bool sleeps_on(struct engine *e, uint32_t slot)
{
	const vtime next = rest_due(e, slot);

	if (!vtime_before(e->now, next))
		return false;
	if (vtime_is_set(next))
		wheel_set(&e->wheel, rest_node(e, slot), next);
	return true;
}

void engine_expire(struct engine *e, vtime now)
{
	struct timer_node *n;

	engine_clock(e, now);
	while ((n = wheel_expire(&e->wheel, now))) {
		const uint32_t slot = n->conn;
		struct tcb *t;
		vtime next;

		if (slot_rests(e, slot) && sleeps_on(e, slot))
			continue;
		if (slot_rests(e, slot))
			(void)rest_make_room(e, false);
		t = slot_wake(e, slot);
		expire(e, t);
		next = tcb_next_timer(t);
		if (vtime_is_set(next) && vtime_before(now, next))
			wheel_set(&e->wheel, &t->node, next);
	}
}

vtime engine_deadline(const struct engine *e)
{
	return wheel_deadline(&e->wheel);
}
