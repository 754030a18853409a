/* SPDX-License-Identifier: Apache-2.0 */
/* What active and passive opens share: the first values of a TCB, what a SYN says, and the moment the
 * handshake is complete.
 */
#include <assert.h>

#include "tcb.h"

enum {
	IP4_TCP_BYTES = 40,
	IP6_TCP_BYTES = 60,
	MSS_DEFAULT = 536, /* MUST-15 */
	MSS_DEFAULT6 = 1220,
	MSS_LEAST = 48,
};

uint16_t mss_default(bool v4)
{
	return v4 ? MSS_DEFAULT : MSS_DEFAULT6;
}

/* MUST-67: at most MMS_R - 20. SHLD-6. */
uint16_t mss_of_link(uint16_t link_mtu, bool v4)
{
	const uint16_t headers = v4 ? IP4_TCP_BYTES : IP6_TCP_BYTES;

	if (link_mtu == 0)
		return mss_default(v4);
	return link_mtu > headers + MSS_LEAST ? (uint16_t)(link_mtu - headers) : MSS_LEAST;
}

/* RFC 7323 2.2: the least shift by which 16 bits span the buffer. */
uint8_t tcb_scale_for(const struct tcp_params *params)
{
	const uint32_t bytes = personality_scaled_bytes(params);
	uint8_t shift = 0;

	while (shift < TCP_WSCALE_MAX && bytes >> shift > UINT16_MAX)
		shift++;
	return shift;
}

void tcb_set_iss(struct tcb *t, seqno iss)
{
	t->iss = iss;
	t->snd.una = t->snd.rtx = t->snd.nxt = t->snd.small_end = t->snd.wl2 = iss;
	t->cc.recover = iss;
	t->sendq.front = seq_add(iss, 1);
}

void tcb_open(struct engine *e, struct tcb *t, const struct tcp_params *params, uint16_t link_mtu)
{
	const bool v4 = addr_is_v4(&t->flow.remote.addr);
	const uint16_t mss = mss_of_link(link_mtu, v4);

	t->params = params_hold(e, params);
	t->link_mtu = link_mtu;
	t->rcv.mss = params->mss && params->mss < mss ? params->mss : mss;
	t->rcv.mss_seen = min_u32(mss_default(v4), t->rcv.mss);
	t->rcv.wscale = params->window_scaling ? tcb_scale_for(params) : 0;
	t->window_scaling = params->window_scaling; /* until the peer's SYN says otherwise */
	t->timestamps = params->timestamps;
	t->sack = params->sack;
	t->ts.offset = isn_ts_offset(e, &t->flow);
	t->snd.ip_id = isn_ip_id(e, t);
	t->flow_label = personality_flow_label(e, params->personality, &t->flow);
	uto_open(e, t, NULL);
	tcb_set_iss(t, engine_isn(e, &t->flow, e->now));
	t->snd.mss = min_u32(mss_default(v4), mss);
	cc_open(t);
	rtt_open(t);
	window_set_limit(e, t);
}

/* R2 for SYN, MUST-22 and MUST-23; 0 is for ever. */
void tcb_limit_handshake(struct engine *e, struct tcb *t)
{
	if (t->params->syn_timeout_us)
		timer_set(e, t, TIMER_USER_TIMEOUT, vtime_add(e->now, t->params->syn_timeout_us));
}

/* MUST-16: Eff.snd.MSS = min(SendMSS + 20, MMS_S) - TCPhdrsize - IPoptionsize. DEVIATION(MUST-16): an MSS
 * below 48 is taken for 48, as deployed stacks do: no peer makes us send a header for each octet.
 */
uint32_t tcb_mss_by(const struct tcb *t, uint32_t mtu)
{
	const bool v4 = addr_is_v4(&t->flow.remote.addr);
	const uint32_t path = mss_of_link((uint16_t)mtu, v4);
	const uint32_t mss = max_u32(min_u32(t->snd.mss_peer, path), MSS_LEAST);

	return t->timestamps ? mss - TCP_TIMESTAMPS_BYTES : mss;
}

void tcb_fit_mss(struct tcb *t)
{
	t->snd.mss = tcb_mss_by(t, tcb_path_mtu(t));
	t->cc.cwnd = max_u32(t->cc.cwnd, t->snd.mss);
}

void tcb_take_syn(const struct engine *e, struct tcb *t, const struct segment *seg)
{
	t->irs = seg->seq;
	t->rcv.dscp = seg->tos >> 2;
	t->rcv.nxt = t->rcv.acked = seq_add(seg->seq, 1);
	t->recvq.front = t->rcv.nxt;
	if (seg->link_mtu)
		t->link_mtu = seg->link_mtu;
	/* RFC 7323 1.3: both SYNs carry an option, or it is not used. */
	t->timestamps = t->timestamps && seg->options & OPT_TIMESTAMPS;
	t->window_scaling = t->window_scaling && seg->options & OPT_WSCALE;
	t->sack = t->sack && seg->options & OPT_SACK_PERMITTED; /* RFC 2018 2 */
	if (t->timestamps) {
		t->ts.recent = seg->ts_val;
		t->ts.recent_at = e->now;
	}
	if (t->window_scaling)
		t->snd.wscale = (uint8_t)min_u32(seg->wscale, TCP_WSCALE_MAX); /* RFC 7323 2.3 */
	else
		t->rcv.wscale = 0;
	ecn_take_syn(t, seg);
	uto_take(t, seg);
	t->snd.mss_peer = seg->options & OPT_MSS && seg->mss
				  ? seg->mss
				  : mss_default(addr_is_v4(&t->flow.remote.addr));
	tcb_fit_mss(t);
	window_set_limit(e, t);
	cc_open(t); /* counts in segments, whose size is known now */
	t->snd.wnd = seg->wnd; /* RFC 7323 2.2: in a SYN it is never scaled */
	t->snd.wnd_max = seg->wnd;
	t->snd.wl1 = seg->seq;
	t->snd.wl2 = seg->ctl & CTL_ACK ? seg->ack : t->iss;
	/* What our SYN offers, or has offered. */
	t->rcv.adv = seq_add(t->rcv.nxt, personality_rounds_down(t)
						 ? t->rcv.limit
						 : personality_syn_window(t, t->rcv.limit));
}

void tcb_opened(struct engine *e, struct tcb *t)
{
	struct listener *l = t->passive ? listener_of(e, t->listener) : NULL;

	if (t->opened)
		return;
	t->opened = true;
	t->opened_at = e->now;
	tcb_report(e, t, REPORT_OPENED);
	if (!t->passive)
		return;
	e->counters.passive_opens++;
	if (!l)
		return;
	l->accepted++;
	if (l->room != UINT32_MAX)
		l->room--;
}

void tcb_established(struct engine *e, struct tcb *t)
{
	tcb_opened(e, t);
	cc_open(t);
	if (t->snd.syn_lost)
		rtt_after_lost_syn(t);
	t->snd.last_at = e->now;
	tcb_keepalive_start(e, t);
	tcb_want_output(e, t);
}
