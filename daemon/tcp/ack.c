/* SPDX-License-Identifier: Apache-2.0 */
/* Fifth, check the ACK field: RFC 9293 3.10.7.4; what it does to the send queue, the timers, the
 * round-trip time and the congestion window (RFC 5681, RFC 6298, RFC 6582).
 */
#include <assert.h>

#include "tcb.h"

enum { DUP_ACKS = 3, CWND_MOST = 1 << 30, RTT_MOST_MS = 600000 };

static void refuse(struct engine *e, const struct tcb *t, enum rule rule)
{
	engine_refused(e, t, t->state, &t->flow, rule);
}

/* RFC 6298 3 (Karn): a segment that was sent twice measures nothing, unless it carries a timestamp
 * (RFC 7323 4). One segment is timed at a time: more measurements than one for a round trip would need
 * other gains (RFC 7323 appendix G).
 */
static void measure(struct engine *e, struct tcb *t, const struct segment *seg, seqno ack)
{
	if (t->snd.timing) {
		if (seq_lt(ack, t->snd.timed_end))
			return;
		t->snd.timing = t->snd.ambiguous = false;
		rtt_sample(t, e->now, vtime_since(e->now, t->snd.timed_at));
	} else if (t->snd.ambiguous && t->timestamps && seg->options & OPT_TIMESTAMPS &&
		   seg->ts_ecr && tcb_syn_acked(t)) {
		const uint32_t ms = seq_sub((seqno){ tcb_ts_now(e, t) }, (seqno){ seg->ts_ecr });

		t->snd.ambiguous = false;
		if (ms < RTT_MOST_MS) /* the clock's grain is the least that it can measure */
			rtt_sample(t, e->now, ms ? ms * 1000ULL : 1000);
	}
}

/* RFC 6582 3.2, step 3: an ACK during fast recovery that acknowledges something. */
static void recovery_acked(struct tcb *t, uint32_t acked)
{
	const uint32_t mss = t->snd.mss;

	if (seq_le(t->cc.recover, t->snd.una)) { /* full */
		t->cc.cwnd = min_u32(t->cc.ssthresh, max_u32(tcb_flight(t), mss) + mss);
		t->cc.recovering = t->snd.fast = false;
		return;
	}
	t->snd.fast = true; /* partial: the next one is missing too */
	t->cc.cwnd = max_u32(t->cc.cwnd > acked ? t->cc.cwnd - acked : 0, mss);
	if (acked >= mss)
		t->cc.cwnd += mss;
}

/* With a scoreboard recovery.c says how much goes meanwhile: RFC 9937. */
static void sack_recovery_acked(struct tcb *t)
{
	if (seq_lt(t->snd.una, t->cc.recover))
		return;
	t->cc.cwnd = max_u32(t->cc.ssthresh, t->snd.mss);
	t->cc.recovering = t->snd.fast = false;
}

/* RFC 8985 6.2 step 4: "if exiting Fast or RTO recovery". */
static void recovery_over(struct tcb *t)
{
	if (t->cc.reo_kept && --t->cc.reo_kept == 0)
		t->cc.reo_steps = 0;
}

/* SND.UNA was `before`. */
static void congestion_acked(struct engine *e, struct tcb *t, seqno before, uint32_t acked)
{
	if (t->cc.recovering && recovery_board(e, t))
		sack_recovery_acked(t);
	else if (t->cc.recovering)
		recovery_acked(t, acked);
	else
		cc_acked(e, t, acked);
	t->cc.dup_acks = 0;
	if (seq_lt(before, t->cc.recover) && seq_le(t->cc.recover, t->snd.una))
		recovery_over(t);
}

/* RFC 6298 5.2, 5.3; the user timeout runs from here anew. In recovery only the first partial ACK
 * restarts the timer: RFC 6582 3.2, "impatient".
 */
static void restart_timers(struct engine *e, struct tcb *t)
{
	const bool later_partial = t->cc.recovering && t->cc.recovery_acked &&
				   !recovery_board(e, t);

	t->cc.recovery_acked = t->cc.recovering;
	if (tcb_flight(t) == 0) {
		timer_clear(t, TIMER_RETRANSMISSION);
		timer_clear(t, TIMER_USER_TIMEOUT);
		return;
	}
	if (!later_partial)
		tcb_rearm(e, t);
	if (tcb_user_timeout_us(t))
		timer_set(e, t, TIMER_USER_TIMEOUT, vtime_add(e->now, tcb_user_timeout_us(t)));
	else
		timer_clear(t, TIMER_USER_TIMEOUT);
}

/* What follows a timeout goes by the backed off value until something is measured: RFC 6298 5.5, Karn.
 * Probes into a closed window timed out as well, but said nothing of the network.
 */
static void end_backoff(struct tcb *t)
{
	if (t->rtt.backoffs && !t->snd.probing)
		t->rtt.rto_us = rtt_rto_us(t);
	t->rtt.backoffs = 0;
	t->snd.probing = false;
}

/* What was noted long ago stays behind, also when more than half of the sequence space was acknowledged
 * since: it would lie ahead else.
 */
static void keep_behind(struct tcb *t)
{
	const seqno last = seq_add(t->snd.una, UINT32_MAX);

	t->cc.recover = seq_max(t->cc.recover, last);
	t->ecn.until = seq_max(t->ecn.until, last);
}

void tcb_acked(struct engine *e, struct tcb *t, const struct segment *seg, seqno ack)
{
	const uint32_t syn = tcb_syn_acked(t) ? 0 : 1;
	const seqno before = t->snd.una;
	const uint32_t n = seq_sub(ack, before) - syn;
	const uint32_t text = min_u32(n, t->sendq.used);

	end_backoff(t);
	measure(e, t, seg, ack);
	t->snd.una = ack;
	t->snd.syn_acked = true;
	t->snd.rtx = seq_max(t->snd.rtx, ack);
	t->snd.small_end = seq_max(t->snd.small_end, ack);
	t->snd.urgent = t->snd.urgent && seq_lt(ack, t->snd.up);
	sendq_drop(&e->pool, &t->sendq, text);
	t->bytes_out += text;
	if (n > text) {
		t->snd.fin_acked = true;
		tcb_report(e, t, REPORT_ALL_ACKED);
	}
	/* What a timer wanted sent is not wanted any more, or will be by the next one. */
	t->snd.force = false;
	if (tcb_flight(t) == 0)
		t->snd.fast = t->snd.tail_probe = false;
	recovery_cumulative(e, t);
	/* Without a scoreboard, which knows what left in one go. */
	if ((!t->hole.passed || t->hole.vanished) && !recovery_board(e, t))
		tcb_arrived_at_once(t, text);
	if (t->hole.trial)
		tcb_trial_acked(e, t, text);
	congestion_acked(e, t, before, n);
	keep_behind(t);
	restart_timers(e, t);
	tcb_tell_room(e, t);
	tcb_want_output(e, t);
}

/* RFC 5681 2: "duplicate acknowledgment". */
static bool is_duplicate(const struct engine *e, const struct tcb *t, const struct segment *seg)
{
	const struct recovery *r = recovery_board(e, t);

	if (r) /* RFC 6675 2: it says that something arrived */
		return r->news.sacked > 0;
	return tcb_flight(t) && e->arriving.len == 0 && seq_eq(seg->ack, t->snd.una) &&
	       t->snd.wnd != 0 && (uint32_t)seg->wnd << t->snd.wscale == t->snd.wnd;
}

/* RFC 5681 3.2, RFC 6582 3.2. */
static void duplicate_ack(struct engine *e, struct tcb *t)
{
	if (t->cc.dup_acks < UINT8_MAX)
		t->cc.dup_acks++;
	if (recovery_board(e, t))
		return; /* what arrived makes room: RFC 6675 */
	tcb_want_output(e, t); /* RFC 3042: the first two let a new segment each go */
	if (t->cc.recovering) {
		t->cc.cwnd = min_u32(t->cc.cwnd + t->snd.mss, CWND_MOST);
		return;
	}
	if (t->cc.dup_acks != DUP_ACKS || !seq_lt(t->cc.recover, t->snd.una))
		return;
	e->counters.fast_retransmits++;
	recovery_remember(e, t, false);
	t->cc.ssthresh = t->cc.ops->ssthresh(t, cc_flight(t));
	t->cc.cwnd = t->cc.ssthresh + DUP_ACKS * t->snd.mss;
	t->cc.acked = 0;
	t->cc.recover = t->snd.nxt;
	t->cc.recovering = true;
	t->snd.fast = true;
}

/* The window opened: what was sent as a probe, or was to be, goes now, and is no loss. */
static void window_opened(struct engine *e, struct tcb *t)
{
	t->rtt.backoffs = 0;
	t->snd.force = false;
	if (t->snd.probing) {
		t->snd.rtx = t->snd.una;
		t->snd.probing = false;
		tcb_rearm(e, t);
	}
}

/* SND.WL1 and SND.WL2 keep old segments from setting the window. MUST-34: it may shrink; RFC 7323 2.3:
 * in a SYN it is not scaled.
 */
static void window_update(struct engine *e, struct tcb *t, const struct segment *seg, bool advanced)
{
	const bool was_shut = t->snd.wnd == 0;
	const uint8_t shift = e->arriving.ctl & CTL_SYN ? 0 : t->snd.wscale;

	/* An ACK of something new is newer than any before, wherever its text stands. */
	if (!advanced && !seq_lt(t->snd.wl1, seg->seq) &&
	    !(seq_eq(t->snd.wl1, seg->seq) && seq_le(t->snd.wl2, seg->ack)))
		return;
	t->snd.wnd = (uint32_t)seg->wnd << shift;
	t->snd.wnd_max = max_u32(t->snd.wnd_max, t->snd.wnd);
	t->snd.wl1 = seg->seq;
	t->snd.wl2 = seg->ack;
	if (was_shut && t->snd.wnd)
		window_opened(e, t);
	/* MUST-37: a peer that answers probes is alive. The next one, which may be long in coming, starts it. */
	if (t->snd.wnd == 0)
		timer_clear(t, TIMER_USER_TIMEOUT);
	tcb_want_output(e, t);
}

static enum verdict ack_refused(struct engine *e, struct tcb *t, enum rule rule)
{
	e->counters.drop_bad_ack++;
	refuse(e, t, rule);
	tcb_challenge(e, t);
	return DONE;
}

/* "Do the same processing as for the ESTABLISHED state." */
static enum verdict ack_established(struct engine *e, struct tcb *t, const struct segment *seg)
{
	const bool advances = seq_lt(t->snd.una, seg->ack);
	bool duplicate;

	if (seq_lt(t->snd.nxt, seg->ack))
		return ack_refused(e, t, RULE_ARRIVES_ACK);
	if (seq_lt(seg->ack, t->snd.una)) { /* "SEG.ACK =< SND.UNA [...] can be ignored" */
		if (t->params->rfc5961 && seq_sub(t->snd.una, seg->ack) > t->snd.wnd_max)
			return ack_refused(e, t, RULE_ACK_RANGE); /* RFC 5961 5.2, MAY-12 */
		return CONTINUE;
	}
	recovery_sacks(e, t, seg);
	duplicate = !advances && is_duplicate(e, t, seg);
	ecn_ack(e, t, seg);
	if (advances)
		tcb_acked(e, t, seg, seg->ack);
	else if (duplicate)
		duplicate_ack(e, t);
	recovery_judge(e, t, seg, advances, duplicate);
	window_update(e, t, seg, advances);
	return CONTINUE;
}

/* "If the connection is in SYN-RECEIVED": the handshake is complete, or the ACK is not ours. */
static enum verdict ack_syn_received(struct engine *e, struct tcb *t, const struct segment *seg)
{
	const struct listener *const l = listener_of(e, t->listener);

	if (!seq_lt(t->snd.una, seg->ack) || seq_lt(t->snd.nxt, seg->ack)) {
		e->counters.drop_bad_ack++;
		refuse(e, t, RULE_ARRIVES_ACK);
		reply_reset(e, seg, t->params->ttl, t->params->dscp, t->flow_label);
		return DONE;
	}
	if (t->passive && l && l->room == 0 && !t->opened) { /* as if it were lost */
		e->counters.drop_accept_full++;
		refuse(e, t, RULE_ACCEPT_FULL);
		return DONE;
	}
	tcb_enter(e, t, ST_ESTABLISHED, CAUSE_SEGMENT, e->arriving.ctl, RULE_ARRIVES_ACK);
	(void)ack_established(e, t, seg);
	tcb_established(e, t);
	if (t->close_queued)
		tcb_close_now(e, t, t->close_cause);
	return CONTINUE;
}

static enum verdict ack_fin_wait_1(struct engine *e, struct tcb *t)
{
	if (!t->snd.fin_acked)
		return CONTINUE;
	tcb_enter(e, t, ST_FIN_WAIT_2, CAUSE_SEGMENT, e->arriving.ctl, RULE_ARRIVES_ACK);
	tcb_limit_fin_wait_2(e, t);
	return CONTINUE;
}

/* The part of the fifth step that differs by state. */
static enum verdict ack_by_state(struct engine *e, struct tcb *t)
{
	switch (t->state) {
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_2:
	case ST_CLOSE_WAIT:
	case ST_TIME_WAIT:
		return CONTINUE;
	case ST_FIN_WAIT_1:
		return ack_fin_wait_1(e, t);
	case ST_CLOSING:
		if (t->snd.fin_acked)
			tcb_start_time_wait(e, t, RULE_ARRIVES_ACK);
		return DONE;
	case ST_LAST_ACK:
		if (t->snd.fin_acked)
			tcb_end(e, t, END_NORMAL, CAUSE_SEGMENT, e->arriving.ctl, RULE_ARRIVES_ACK);
		return DONE;
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST_SYN_RECEIVED:
	case ST__COUNT:
		break;
	}
	assert(false && "not a state of 3.10.7.4, fifth");
	return DONE;
}

enum verdict arrives_check_ack(struct engine *e, struct tcb *t, struct segment *seg)
{
	if (!(seg->ctl & CTL_ACK)) {
		e->counters.drop_no_ack++;
		refuse(e, t, RULE_ARRIVES_ACK);
		return DONE;
	}
	if (t->state == ST_SYN_RECEIVED) {
		if (ack_syn_received(e, t, seg) == DONE)
			return DONE;
	} else if (ack_established(e, t, seg) == DONE) {
		return DONE;
	}
	return ack_by_state(e, t);
}
