/* SPDX-License-Identifier: Apache-2.0 */
#include "watch.h"

#include "base/macros.h"

/* A timer of the engine's may be early by as much as its clock is coarse. */
enum { COARSE_US = 2000 };

static uint32_t text_and_fin(const struct segment *s)
{
	return seg_text_len(s) + !!(s->ctl & CTL_FIN);
}

/* RFC 9293 3.8.6: what is sent lies in a window that was offered; MUST-36: but for the octet of a probe. */
static const char *check_edge(const struct watch *w, seqno end)
{
	if (w->edge_known && seq_lt(seq_add(w->edge, 1), end))
		return "sent more than the peer ever offered to take";
	return NULL;
}

/* RFC 5681 3.1: new text only while less than cwnd is in flight. Beyond it limited transmit sends two
 * segments (RFC 3042), a loss probe one (RFC 8985 7.3). While something may be missing, what is in flight is
 * the sender's estimate, and an onlooker cannot tell.
 */
static const char *check_flight(const struct watch *w, seqno end, const struct conn_status *st)
{
	const uint32_t most = st->cwnd_bytes + 3 * st->snd_mss;

	if (w->clean && st->opened && seq_sub(end, st->snd_una) > most)
		return "more is in flight than the congestion window allows";
	return NULL;
}

/* An onlooker does not know which SYN was taken: of those since ours the one that scales most counts. */
static void take_scale(struct watch *w, const struct segment *seg)
{
	const uint8_t shift = seg->wscale < 14 ? seg->wscale : 14;

	if (!(seg->options & OPT_WSCALE))
		return;
	if (!w->peer_scales || w->peer_shift < shift)
		w->peer_shift = shift;
	w->peer_scales = true;
}

/* MAY-3, SHLD-5: every SYN has the MSS option; MUST-65: nothing else has. */
static const char *check_options(const struct segment *seg)
{
	const unsigned of_syn = OPT_MSS | OPT_WSCALE | OPT_SACK_PERMITTED;

	if (seg->ctl & CTL_SYN && !(seg->options & OPT_MSS))
		return "a SYN without MSS option";
	if (!(seg->ctl & CTL_SYN) && seg->options & of_syn)
		return "an option that only a SYN has";
	return NULL;
}

const char *watch_sent(struct watch *w, const struct segment *seg, const struct conn_status *st,
		       vtime now)
{
	const seqno end = seq_add(seg->seq, seg_len(seg));
	const char *wrong = check_options(seg);

	if (seg->ctl & CTL_RST || wrong)
		return wrong;
	if (seg->ctl & CTL_SYN && (!w->begun || w->iss.v != seg->seq.v)) {
		*w = (struct watch){ .begun = true,
				     .clean = true,
				     .iss = seg->seq,
				     .armed = now,
				     .last_syn = w->last_syn };
		if (seg->ctl & CTL_ACK)
			take_scale(w, &w->last_syn);
		w->high = w->una = w->again = seg->seq;
		w->backoff_at = now;
	}
	if (!w->begun || !seg_len(seg))
		return NULL;
	if (seg->ctl & CTL_SYN)
		w->we_scale = seg->options & OPT_WSCALE;
	if (seg->ctl & CTL_SYN && seg_text_len(seg) && !seg->fast_open_n)
		return "text in a SYN without a Fast Open cookie";
	if (!seq_lt(w->high, end)) { /* again; RFC 7413 4.2.1: without the option and text */
		if ((seg->ctl & (CTL_SYN | CTL_ACK)) == CTL_SYN &&
		    (seg->options & OPT_FAST_OPEN || seg_text_len(seg)))
			return "a SYN went again with what may be why it was lost";
		w->again = w->high;
		w->clean = false;
		return NULL;
	}
	if (text_and_fin(seg))
		wrong = check_edge(w, end);
	if (!wrong && st && seg_text_len(seg))
		wrong = check_flight(w, end, st);
	/* Nothing was outstanding: now its timer starts. */
	if (w->high.v == w->una.v)
		w->armed = now;
	w->high = end;
	return wrong;
}

void watch_arrives(struct watch *w, const struct segment *seg)
{
	/* RFC 7323 2.2: that of a SYN is not scaled. */
	const bool scaled = !(seg->ctl & CTL_SYN) && w->we_scale && w->peer_scales;
	const unsigned shift = scaled ? w->peer_shift : 0;
	seqno edge;

	if (seg->ctl & CTL_RST)
		return;
	if (seg->ctl & CTL_SYN) {
		take_scale(w, seg);
		w->last_syn = *seg;
	}
	if (!w->begun)
		return;
	edge = seq_add(seg->ctl & CTL_ACK ? seg->ack : seq_add(w->iss, 1),
		       (uint32_t)seg->wnd << shift);
	if (!w->edge_known || seq_lt(w->edge, edge))
		w->edge = edge;
	w->edge_known = true;
	/* A gap is told by a SACK block, without SACK by an ACK that acknowledges nothing new. And what a mark that
	 * is echoed takes from cwnd is in flight yet, while a loss probe goes all the same. */
	if (seg->options & OPT_SACK || seg->ctl & CTL_ECE ||
	    (seg->ctl & CTL_ACK && !seg_len(seg) && seg->ack.v == w->una.v)) {
		w->again = w->high;
		w->clean = false;
	}
}

void watch_status(struct watch *w, const struct conn_status *st, vtime now)
{
	if (!w->begun || st->iss.v != w->iss.v)
		return;
	/* RFC 6582 3.2 (5): of the partial ACKs of a recovery only the first restarts it. */
	if (w->una.v != st->snd_una.v && w->clean)
		w->armed = now;
	w->una = st->snd_una;
	w->clean = w->clean || (seq_le(w->again, w->una) && w->una.v != w->iss.v);
	if (st->backoffs < w->backoffs)
		w->backoff_at = now;
	w->backoffs = (uint8_t)st->backoffs;
}

/* RFC 6298 2.4 and 5.5: the first timeout not before RTO's least, each one behind it not before twice as long. */
const char *watch_expired(struct watch *w, const struct conn_status *st,
			  const struct tcp_params *params, vtime now)
{
	const unsigned was = w->backoffs;
	const bool timeout = w->begun && st->iss.v == w->iss.v && st->backoffs > was;
	uint64_t least = params->rto_min_us << (was < 20 ? was : 20);

	if (least > params->rto_max_us)
		least = params->rto_max_us;
	const vtime from = was ? w->backoff_at : w->armed;
	const bool early = timeout && now.us - from.us + COARSE_US < least;

	watch_status(w, st, now);
	if (timeout)
		w->backoff_at = now;
	return !early ? NULL : was ? "the timer did not back off" : "a timeout before RTO's least";
}

static const char *check_timer(const struct trace *t, const struct tcp_params *p, vtime entered)
{
	const uint64_t in_state = t->at.us - entered.us + COARSE_US;

	if (t->detail >= TIMER__COUNT)
		return "a timer that there is not";
	if (t->from == ST_TIME_WAIT && t->detail == TIMER_TIME_WAIT && in_state < 2 * p->msl_us)
		return "TIME-WAIT was shorter than two MSL";
	if (t->detail == TIMER_FIN_WAIT_2 && in_state < p->fin_wait_2_us)
		return "FIN-WAIT-2 was shorter than its limit";
	if (t->from == ST_SYN_SENT && t->detail == TIMER_USER_TIMEOUT &&
	    in_state < p->syn_timeout_us)
		return "the SYN was given up before its time";
	return NULL;
}

/* RFC 9293 3.10.4: a CLOSE in SYN-RECEIVED waits until ESTABLISHED, and is the user's all the same. */
static bool close_waited(const struct trace *t, enum cause phase)
{
	return phase == CAUSE_SEGMENT && t->cause == CAUSE_USER && t->from == ST_ESTABLISHED &&
	       t->to == ST_FIN_WAIT_1;
}

const char *watch_trace(const struct trace *t, enum cause phase, const struct tcp_params *params,
			vtime entered)
{
	if ((unsigned)t->cause >= CAUSE__COUNT || (unsigned)t->rule >= RULE__COUNT)
		return "a cause or rule that there is not";
	if (t->kind == TRACE_REFUSED && t->cause != CAUSE_SEGMENT)
		return "something was refused that is no segment";
	if (t->kind == TRACE_TRANSITION && t->cause != phase &&
	    !(phase == CAUSE_USER && t->cause == CAUSE_OPERATOR) && !close_waited(t, phase))
		return "a transition names a cause that was not there";
	return t->kind == TRACE_TRANSITION && t->cause == CAUSE_TIMER
		       ? check_timer(t, params, entered)
		       : NULL;
}
