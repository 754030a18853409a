/* SPDX-License-Identifier: Apache-2.0 */
/* What all congestion controllers share: the initial window, slow start, whether the window is in use, and
 * the window after a pause.
 */
#include "tcb.h"

uint32_t cc_initial_window(const struct tcb *t)
{
	/* RFC 5681 3.1: "if the SYN or SYN/ACK is lost, the initial window [...] MUST be" one SMSS. */
	return t->snd.syn_lost ? t->snd.mss : max_u32(t->params->initial_window, 1) * t->snd.mss;
}

uint32_t cc_flight(const struct tcb *t)
{
	return min_u32(tcb_flight(t), t->cc.cwnd);
}

const struct cc_ops *cc_ops_of(const struct tcp_params *p)
{
	return p->congestion_control == TCP_CC_NEWRENO ? &cc_newreno : &cc_cubic;
}

void cc_open(struct tcb *t)
{
	t->cc.ops = cc_ops_of(t->params);
	t->cc.cwnd = cc_initial_window(t);
	t->cc.ssthresh = CC_WINDOW_MAX;
	t->cc.recover = seq_max(t->iss, seq_add(t->snd.una, UINT32_MAX));
	t->cc.peak_end = t->snd.una;
	t->ecn.reduced = false; /* a lost SYN's window is no more */
	t->cc.ops->open(t);
}

void cc_choose(struct tcb *t)
{
	if (t->cc.ops == cc_ops_of(t->params))
		return;
	t->cc.ops = cc_ops_of(t->params);
	t->cc.acked = 0;
	t->cc.ops->open(t);
}

/* RFC 5681 (2) recommends at most one SMSS per ACK, against ACK division; octets counted are as good
 * against that. With receive offload one ACK covers 64 KiB, and one SMSS for it would be no slow start
 * at all. After a timeout an ACK may jump over what had arrived before: there one SMSS it is (RFC 3465
 * 2.3).
 */
void cc_slow_start(struct tcb *t, uint32_t acked)
{
	const seqno before = seq_add(t->snd.una, UINT32_MAX - acked + 1);
	const bool after_timeout = seq_lt(before, t->cc.recover);

	t->cc.cwnd += after_timeout ? min_u32(acked, t->snd.mss) : acked;
}

/* RFC 7661 in spirit: a window that limits nobody says nothing of the path, and does not grow. In slow
 * start it may be twice of what is used; else it must have been full since the last round trip.
 */
static bool in_use(const struct tcb *t)
{
	return t->cc.cwnd < t->cc.ssthresh ? t->cc.cwnd / 2 < t->cc.peak : t->cc.limited;
}

void cc_acked(struct engine *e, struct tcb *t, uint32_t acked)
{
	const bool marked = t->ecn.on && e->arriving.ctl & CTL_ECE; /* RFC 3168 6.1.2: no growth */

	t->cc.ops->on_ack(t, acked, e->now, !marked && in_use(t));
	t->cc.cwnd = min_u32(t->cc.cwnd, CC_WINDOW_MAX);
}

void cc_sent(const struct engine *e, struct tcb *t, bool idle)
{
	const uint32_t flight = recovery_pipe(e, t); /* what was lost uses nothing */
	const bool limited = flight + t->snd.mss > t->cc.cwnd;

	if (idle)
		t->cc.ops->on_idle_end(t, e->now);
	if (seq_le(t->cc.peak_end, t->snd.una) || limited ||
	    (!t->cc.limited && flight > t->cc.peak)) {
		t->cc.limited = limited;
		t->cc.peak = flight;
		t->cc.peak_end = t->snd.nxt;
	}
	hystart_sent(e, t);
}

/* After a pause of more than an RTO the window may no longer fit the path: slow start brings it back to
 * nearly what it was (RFC 7661 4.4.3 has these three quarters).
 */
void cc_idle(const struct engine *e, struct tcb *t)
{
	const uint32_t restart = cc_initial_window(t);

	if (tcb_flight(t) || t->cc.cwnd <= restart ||
	    vtime_since(e->now, t->snd.last_at) <= rtt_rto_us(t))
		return;
	if (t->cc.ssthresh < CC_WINDOW_MAX)
		t->cc.ssthresh = max_u32(t->cc.ssthresh, t->cc.cwnd - t->cc.cwnd / 4);
	t->cc.cwnd = restart;
}
