/* SPDX-License-Identifier: Apache-2.0 */
/* SEGMENT ARRIVES: RFC 9293 3.10.7, step by step and in its order, with RFC 5961 and RFC 7323 where
 * they apply. The fifth step is in ack.c, the sixth and later in arrives_text.c.
 *
 * One function per numbered step. A step answers DONE where the RFC says "return". Read it with the
 * RFC open beside it.
 */
#include <assert.h>
#include <string.h>

#include "tcb.h"

/* RFC 7323 5.5: TS.Recent is worth nothing after 24 days. */
#define TS_RECENT_LIFE_US (24ULL * 24 * 3600 * 1000000)

static void refuse(struct engine *e, const struct tcb *t, enum rule rule)
{
	engine_refused(e, t, t->state, &t->flow, rule);
}

/* MUST-57, MUST-63; and a segment that claims to come from the very endpoint it goes to (land). */
static bool addresses_are_bad(const struct flow *f)
{
	const struct ipaddr *from = &f->remote.addr, *to = &f->local.addr;

	return addr_is_any(from) || addr_is_multicast(from) || addr_is_broadcast(from) ||
	       addr_is_any(to) || addr_is_multicast(to) || addr_is_broadcast(to) ||
	       endpoint_eq(&f->remote, &f->local);
}

/* The RST for what belongs to no connection (RFC 9293 3.5.2), unless Blackhole withholds it. */
static void no_connection(struct engine *e, const struct segment *seg, const struct listener *l,
			  enum rule rule)
{
	const bool blackhole = l ? l->params->blackhole : e->unserved.blackhole;
	const uint8_t ttl = l ? l->params->ttl : e->unserved.ttl;
	const uint8_t dscp = l ? l->params->dscp : e->unserved.dscp;
	const int as = l ? l->params->personality : e->unserved.personality;

	engine_refused(e, NULL, l ? ST_LISTEN : ST_CLOSED, &seg->flow,
		       blackhole ? RULE_BLACKHOLE : rule);
	if (blackhole)
		e->counters.drop_blackhole++;
	else
		reply_reset(e, seg, ttl, dscp, personality_flow_label(e, as, &seg->flow));
}

/* 3.10.7.1 CLOSED STATE */
static void arrives_closed(struct engine *e, const struct segment *seg)
{
	if (seg->ctl & CTL_RST)
		return;
	e->counters.drop_no_connection++;
	no_connection(e, seg, NULL, RULE_CLOSED_STATE);
}

/* DropSynFin: no peer means it (RFC 9293 has it as a SYN). */
static bool drops_syn_fin(struct engine *e, const struct tcb *t, const struct listener *l,
			  const struct segment *seg)
{
	const uint8_t both = CTL_SYN | CTL_FIN;
	const bool drops = t   ? t->params->drop_syn_fin
			   : l ? l->params->drop_syn_fin
			       : e->unserved.drop_syn_fin;

	if ((seg->ctl & both) != both || !drops)
		return false;
	e->counters.drop_syn_fin++;
	engine_refused(e, t, t ? t->state : l ? ST_LISTEN : ST_CLOSED, &seg->flow, RULE_SYN_FIN);
	return true;
}

void engine_set_unserved(struct engine *e, const struct tcp_params *params)
{
	e->unserved.drop_syn_fin = params->drop_syn_fin;
	e->unserved.blackhole = params->blackhole;
	e->unserved.ttl = params->ttl;
	e->unserved.dscp = params->dscp;
	e->unserved.personality = params->personality;
}

static bool has_record(const struct engine *e, const struct listener *l)
{
	return l->syn_received < l->backlog &&
	       e->counters.conns_by_state[ST_SYN_RECEIVED] < e->cfg.syn_received_max;
}

/* Is there room for one more connection, if so many half-open ones give way to it, and `spared` are kept? */
static bool has_place(const struct engine *e, const struct listener *l, uint32_t give_way,
		      uint32_t spared)
{
	return (!l->conns_max || l->live - give_way < l->conns_max) &&
	       e->counters.conns - give_way + spared < e->cfg.conns_max;
}

/* May a SYN have a record? With cookies the last sixteenth is for who has shown that he hears us. */
static bool takes_record(const struct engine *e, const struct listener *l)
{
	const uint32_t spared = l->params->syn_cookies ? e->cfg.conns_max / 16 : 0;

	return l->room && has_record(e, l) && has_place(e, l, 0, spared);
}

/* No record: a cookie, or no answer, and the peer sends its SYN again. */
static void listen_without(struct engine *e, struct listener *l, const struct segment *seg)
{
	if (l->room == 0) {
		listener_is_crowded(e, l, &seg->flow);
		return;
	}
	if (l->params->syn_cookies && has_place(e, l, l->syn_received, 0)) {
		cookie_answer(e, l, seg);
		return;
	}
	l->refused++;
	if (has_record(e, l)) {
		e->counters.drop_connections_max++;
		engine_refused(e, NULL, ST_LISTEN, &seg->flow, RULE_CONNECTIONS_MAX);
	} else {
		e->counters.drop_backlog_full++;
		engine_refused(e, NULL, ST_LISTEN, &seg->flow, RULE_BACKLOG_FULL);
	}
}

/* Third, check for a SYN: the connection gets a TCB, the listener stays. Text and FIN that come with
 * the SYN are not kept: they are not acknowledged either, so the peer sends them again; a stranger's
 * SYN costs no buffer. Who is none brings a cookie: RFC 7413.
 */
static struct tcb *listen_syn(struct engine *e, struct listener *l, struct segment *seg,
			      uint32_t hash)
{
	struct tcb *t = listener_accept(e, l, &seg->flow, hash);
	bool early;

	if (!t)
		return NULL;
	tcb_open(e, t, l->params, seg->link_mtu);
	tcb_limit_handshake(e, t);
	tcb_take_syn(e, t, seg);
	t->segments_in = 1;
	early = fast_open_arrives(e, t, l, seg);
	tcb_enter(e, t, ST_SYN_RECEIVED, CAUSE_SEGMENT, e->arriving.ctl,
		  early ? RULE_FAST_OPEN : RULE_LISTEN_SYN);
	if (early)
		arrives_text_of_syn(e, t, seg);
	tcb_want_output(e, t); /* <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK> */
	return t;
}

/* Second, check for an ACK: none is acceptable but one that brings a SYN cookie back. */
static struct tcb *listen_ack(struct engine *e, struct listener *l, const struct segment *seg,
			      uint32_t hash)
{
	struct tcb *t = NULL;

	if (cookie_arrives(e, l, seg, hash, &t) == COOKIE_NONE) {
		e->counters.drop_listen_other++;
		no_connection(e, seg, l, RULE_LISTEN_ACK);
	}
	return t;
}

/* 3.10.7.2 LISTEN STATE. Its connection, in SYN-RECEIVED, when there is more to look at in the segment. */
static struct tcb *arrives_listen(struct engine *e, struct listener *l, struct segment *seg,
				  uint32_t hash)
{
	/* First, check for a RST. */
	if (seg->ctl & CTL_RST) {
		e->counters.drop_listen_other++;
		engine_refused(e, NULL, ST_LISTEN, &seg->flow, RULE_LISTEN_RST);
		return NULL;
	}
	/* Second, check for an ACK. */
	if (seg->ctl & CTL_ACK)
		return listen_ack(e, l, seg, hash);
	/* Fourth: "any other control or data-bearing segment" */
	if (!(seg->ctl & CTL_SYN)) {
		e->counters.drop_listen_other++;
		engine_refused(e, NULL, ST_LISTEN, &seg->flow, RULE_LISTEN_OTHER);
		return NULL;
	}
	if (takes_record(e, l) && l->params->syn_cookies != TCP_COOKIES_ALWAYS)
		(void)listen_syn(e, l, seg, hash);
	else
		listen_without(e, l, seg);
	return NULL;
}

/* 3.10.7.3 fourth, without an ACK: simultaneous open, MUST-10. */
static void syn_sent_crossed(struct engine *e, struct tcb *t)
{
	tcb_enter(e, t, ST_SYN_RECEIVED, CAUSE_SEGMENT, e->arriving.ctl, RULE_SYN_SENT_SYN);
	t->snd.rtx = t->iss; /* <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK> */
	tcb_want_output(e, t);
}

/* Our SYN is acknowledged. Text that went with it and was not taken goes again at once: RFC 7413 4.2.1. */
static void syn_acked(struct engine *e, struct tcb *t, const struct segment *seg)
{
	const bool text = !seq_eq(t->snd.nxt, seq_add(t->iss, 1));

	tcb_acked(e, t, seg, seg->ack);
	t->fast_open.early = text && !seq_eq(t->snd.una, seq_add(t->iss, 1));
	t->snd.rtx = t->snd.una;
}

/* 3.10.7.3 SYN-SENT STATE */
static void arrives_syn_sent(struct engine *e, struct tcb *t, struct segment *seg,
			     struct delivery *ret)
{
	/* First, check the ACK bit. */
	if (seg->ctl & CTL_ACK && (seq_le(seg->ack, t->iss) || seq_lt(t->snd.nxt, seg->ack))) {
		e->counters.drop_bad_ack++;
		refuse(e, t, RULE_SYN_SENT_ACK);
		if (!(seg->ctl & CTL_RST))
			reply_reset(e, seg, t->params->ttl, t->params->dscp, t->flow_label);
		return;
	}
	/* Second, check the RST bit. SHLD-2: with text or without. */
	if (seg->ctl & CTL_RST) {
		if (seg->ctl & CTL_ACK) {
			e->counters.resets_in++;
			tcb_end(e, t, END_REFUSED, CAUSE_SEGMENT, e->arriving.ctl,
				RULE_SYN_SENT_RST);
		} else {
			refuse(e, t, RULE_SYN_SENT_RST);
		}
		return;
	}
	/* Third, check security: no security labels here. Fifth: neither SYN nor RST. */
	if (!(seg->ctl & CTL_SYN)) {
		e->counters.drop_no_ack += !(seg->ctl & CTL_ACK);
		refuse(e, t, RULE_SYN_SENT_OTHER);
		return;
	}
	/* Fourth, check the SYN bit. */
	tcb_take_syn(e, t, seg);
	if (!(seg->ctl & CTL_ACK)) {
		syn_sent_crossed(e, t);
		return;
	}
	fast_open_answered(e, t, seg);
	syn_acked(e, t, seg);
	tcb_enter(e, t, ST_ESTABLISHED, CAUSE_SEGMENT, e->arriving.ctl, RULE_SYN_SENT_SYN);
	tcb_established(e, t);
	tcb_ack_now(e, t);
	seg_trim_front(seg, 1);
	seg_trim_back(seg, tcb_rcv_wnd(t));
	arrives_from_sixth(e, t, seg, ret);
}

/* 3.10.7.4 Other States */

/* Table 6. */
static bool acceptable(const struct tcb *t, const struct segment *seg)
{
	const uint32_t len = seg_len(seg);
	const uint32_t wnd = tcb_rcv_wnd(t);

	if (len == 0)
		return wnd == 0 ? seq_eq(seg->seq, t->rcv.nxt) : seq_in(seg->seq, t->rcv.nxt, wnd);
	if (wnd == 0)
		return false;
	return seq_in(seg->seq, t->rcv.nxt, wnd) ||
	       seq_in(seq_add(seg->seq, len - 1), t->rcv.nxt, wnd);
}

/* A SYN in TIME-WAIT may begin the flow's next incarnation: MAY-2, by the rules of RFC 6191 2
 * (SHLD-4).
 */
static bool syn_is_newer(const struct tcb *t, const struct segment *seg)
{
	const bool stamped = seg->options & OPT_TIMESTAMPS;
	const seqno then = { t->ts.recent }, now = { seg->ts_val };

	if (t->timestamps && stamped && !seq_eq(then, now))
		return seq_lt(then, now);
	if (!t->timestamps && stamped && t->params->timestamps)
		return true; /* the old incarnation had none: no segment of it can pass PAWS */
	return seq_le(t->rcv.nxt, seg->seq); /* the largest number seen is the FIN's, before it */
}

static enum verdict check_time_wait_syn(struct engine *e, struct tcb *t, struct segment *seg)
{
	const bool syn = (seg->ctl & (CTL_SYN | CTL_ACK | CTL_RST)) == CTL_SYN;
	struct listener *l;
	struct tcb *next;
	const seqno past = seq_add(t->snd.nxt, 1);

	if (t->state != ST_TIME_WAIT || !syn || !syn_is_newer(t, seg))
		return CONTINUE;
	l = listener_find(e, &seg->flow.local, e->slots[t->slot].by[BY_FLOW].hash);
	/* Never by a cookie: its ISN says nothing of the last one's. */
	if (!l || !takes_record(e, l))
		return CONTINUE;
	tcb_end(e, t, END_NORMAL, CAUSE_SEGMENT, e->arriving.ctl, RULE_TIME_WAIT_SYN);
	next = listen_syn(e, l, seg, e->slots[t->slot].by[BY_FLOW].hash);
	/* "larger than the largest sequence number it used on the previous connection incarnation" */
	if (next && seq_lt(next->iss, past))
		tcb_set_iss(next, past);
	return DONE;
}

/* RFC 7323 5.3 R1: before the sequence number is looked at. */
static enum verdict check_timestamp(struct engine *e, struct tcb *t, const struct segment *seg)
{
	const bool fresh = vtime_since(e->now, t->ts.recent_at) < TS_RECENT_LIFE_US;

	if (!t->timestamps || seg->ctl & CTL_RST)
		return CONTINUE;
	if (!(seg->options & OPT_TIMESTAMPS)) {
		if (seg->ctl & CTL_SYN)
			return CONTINUE; /* a peer that restarted: the fourth step's */
		e->counters.drop_paws++;
		refuse(e, t, RULE_TIMESTAMP_MISSING);
		return DONE;
	}
	if (!fresh || !seq_lt((seqno){ seg->ts_val }, (seqno){ t->ts.recent }))
		return CONTINUE;
	e->counters.drop_paws++;
	refuse(e, t, RULE_PAWS);
	if (seg_text_len(seg) || seg->ctl & CTL_FIN)
		tcb_ack_now(e, t);
	else
		tcb_challenge(e, t);
	return DONE;
}

/* "special allowance should be made to accept valid ACKs": of a probe into our closed window; and, as the
 * BSDs do, of what has arrived before but acknowledges something new. Two sides that both had their
 * probe accepted would else refuse each other's window updates for ever: each update stands at the
 * octet before, because its sender cannot know that it was accepted.
 */
static bool ack_is_worth_it(const struct tcb *t, const struct segment *seg)
{
	if (seg->ctl & CTL_SYN || !(seg->ctl & CTL_ACK))
		return false;
	if (seq_eq(seg->seq, t->rcv.nxt))
		return tcb_rcv_wnd(t) == 0;
	return tcb_syn_acked(t) && seq_lt(t->snd.una, seg->ack) &&
	       seq_sub(t->rcv.nxt, seg->seq) <= max_u32(t->rcv.limit, UINT16_MAX);
}

/* The peer did not hear our SYN,ACK: its SYN again, with or without text. An ACK, as the RFC's letter has it,
 * would tell a SYN-SENT peer nothing.
 */
static bool is_syn_again(const struct tcb *t, const struct segment *seg)
{
	return t->state == ST_SYN_RECEIVED &&
	       (seg->ctl & (CTL_SYN | CTL_ACK | CTL_RST)) == CTL_SYN && seq_eq(seg->seq, t->irs);
}

/* RFC 5961 4.2: a SYN is answered "irrespective of the sequence number", in the synchronized states. */
static bool challenges_syn(const struct tcb *t)
{
	if (t->state == ST_SYN_RECEIVED && t->passive)
		return false;
	return t->params->rfc5961 || t->state == ST_TIME_WAIT;
}

/* What the first step does with a segment that has no octet in the window. */
static enum verdict unacceptable(struct engine *e, struct tcb *t, struct segment *seg)
{
	const uint32_t text = seg_text_len(seg);
	const bool fin = seg->ctl & CTL_FIN;

	e->counters.drop_out_of_window++;
	e->counters.duplicate_bytes += seq_lt(seg->seq, t->rcv.nxt) ? text : 0;
	refuse(e, t, RULE_ARRIVES_SEQ);
	if (text && tcb_syn_acked(t) && seq_le(seq_add(seg->seq, text), t->rcv.nxt) &&
	    !(seg->ctl & CTL_SYN))
		tcb_duplicate(t, seg->seq, seq_add(seg->seq, text));
	if (text || fin)
		tcb_ack_now(e, t);
	else
		tcb_challenge(e, t); /* bare ACKs that answer bare ACKs would never end */
	/* The peer's FIN again, so our ACK was lost: the fifth step's rule for TIME-WAIT, at the only
	 * place where that FIN is seen. */
	if (t->state == ST_TIME_WAIT && fin && seq_eq(seq_add(seg->seq, seg_len(seg)), t->rcv.nxt))
		tcb_start_time_wait(e, t, RULE_ARRIVES_FIN);
	if (!ack_is_worth_it(t, seg))
		return DONE;
	seg->seq = t->rcv.nxt;
	seg_trim_back(seg, 0);
	return CONTINUE;
}

/* First, check sequence number. Leaves in seg the part that is new and in the window. */
static enum verdict check_sequence(struct engine *e, struct tcb *t, struct segment *seg)
{
	if (seg->ctl & CTL_RST) { /* by its first octet alone: RFC 5961 3.2, MUST-66 */
		if (seq_eq(seg->seq, t->rcv.nxt) || seq_in(seg->seq, t->rcv.nxt, tcb_rcv_wnd(t)))
			return CONTINUE;
		e->counters.drop_rst_out_of_window++;
		refuse(e, t, RULE_ARRIVES_SEQ);
		return DONE;
	}
	if (is_syn_again(t, seg)) {
		ecn_syn_again(t, seg);
		t->snd.rtx = t->iss;
		tcb_want_output(e, t);
		return DONE;
	}
	if (!acceptable(t, seg))
		return unacceptable(e, t, seg);
	/* RFC 7323 4.3 (2), 5.3 R3 */
	if (t->timestamps && seg->options & OPT_TIMESTAMPS && seq_le(seg->seq, t->rcv.acked)) {
		t->ts.recent = seg->ts_val;
		t->ts.recent_at = e->now;
	}
	if (seg->ctl & CTL_SYN && (challenges_syn(t) || !seq_lt(seg->seq, t->rcv.nxt)))
		return CONTINUE; /* the fourth step's; one left of the window is trimmed off */
	if (seq_lt(seg->seq, t->rcv.nxt)) {
		const uint32_t old = seq_sub(t->rcv.nxt, seg->seq);

		e->counters.duplicate_bytes += min_u32(old, seg_text_len(seg));
		tcb_duplicate(t, seg->seq, seq_add(seg->seq, min_u32(old, seg_text_len(seg))));
		seg_trim_front(seg, old);
	}
	seg_trim_back(seg, seq_ahead(t->rcv.adv, seg->seq));
	return CONTINUE;
}

static void reset_by_peer(struct engine *e, struct tcb *t)
{
	enum end_reason reason = END_RESET_BY_PEER;

	if (t->state == ST_SYN_RECEIVED)
		reason = t->passive ? END_HANDSHAKE_RESET : END_REFUSED;
	else if (t->closed_by == CLOSED_BY_NOBODY)
		t->closed_by = CLOSED_BY_REMOTE;
	e->counters.resets_in++;
	tcb_end(e, t, reason, CAUSE_SEGMENT, e->arriving.ctl, RULE_ARRIVES_RST);
}

/* Second, check the RST bit; with the checks of RFC 5961 3.2. MUST-12: the user is told. */
static enum verdict check_rst(struct engine *e, struct tcb *t, const struct segment *seg)
{
	if (!(seg->ctl & CTL_RST))
		return CONTINUE;
	switch (t->state) {
	case ST_TIME_WAIT: /* RFC 1337: it would end the wait that protects the next incarnation */
		refuse(e, t, RULE_TIME_WAIT_RST);
		return DONE;
	case ST_SYN_RECEIVED:
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_1:
	case ST_FIN_WAIT_2:
	case ST_CLOSE_WAIT:
	case ST_CLOSING:
	case ST_LAST_ACK:
		break;
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST__COUNT:
		assert(false && "not a state of 3.10.7.4");
	}
	if (t->params->rfc5961 && !seq_eq(seg->seq, t->rcv.nxt)) {
		refuse(e, t, RULE_RST_CHALLENGE);
		tcb_challenge(e, t);
		return DONE;
	}
	reset_by_peer(e, t);
	return DONE;
}

/* Fourth, check the SYN bit; RFC 5961 4.2. */
static enum verdict check_syn(struct engine *e, struct tcb *t, const struct segment *seg)
{
	if (!(seg->ctl & CTL_SYN))
		return CONTINUE;
	if (t->state == ST_SYN_RECEIVED && t->passive) {
		/* "return this connection to the LISTEN state" */
		tcb_end(e, t, END_HANDSHAKE_RESET, CAUSE_SEGMENT, e->arriving.ctl,
			RULE_ARRIVES_SYN);
	} else if (challenges_syn(t)) {
		refuse(e, t, RULE_SYN_CHALLENGE);
		tcb_challenge(e, t);
	} else {
		if (t->closed_by == CLOSED_BY_NOBODY && t->opened)
			t->closed_by = CLOSED_BY_REMOTE;
		tcb_reset(e, t, END_PEER_RESTARTED, CAUSE_SEGMENT, e->arriving.ctl,
			  RULE_ARRIVES_SYN);
	}
	return DONE;
}

/* RFC 9293 3.5 Figure 8: in a simultaneous open the SYN,ACKs cross, and each repeats a SYN that is known
 * already. What is left of it is the ACK.
 */
static void drop_known_syn(struct tcb *t, struct segment *seg)
{
	const uint8_t both = CTL_SYN | CTL_ACK;

	if (t->state == ST_SYN_RECEIVED && !t->passive && (seg->ctl & (both | CTL_RST)) == both &&
	    seq_eq(seg->seq, t->irs))
		seg_trim_front(seg, 1);
}

static void arrives_other(struct engine *e, struct tcb *t, struct segment *seg,
			  struct delivery *ret)
{
	if (check_time_wait_syn(e, t, seg) == DONE)
		return;
	if (check_timestamp(e, t, seg) == DONE)
		return;
	drop_known_syn(t, seg);
	if (check_sequence(e, t, seg) == DONE) /* first */
		return;
	if (check_rst(e, t, seg) == DONE) /* second */
		return;
	/* Third, check security: no security labels here. */
	if (check_syn(e, t, seg) == DONE) /* fourth */
		return;
	if (arrives_check_ack(e, t, seg) == DONE) /* fifth */
		return;
	t->rcv.dscp = seg->tos >> 2; /* MAY-9 */
	if (seq_lt(e->arriving.seq, seg->seq) && !(e->arriving.ctl & CTL_SYN))
		tcb_ack_now(e, t); /* part of it was old: RFC 5681 4.2 */
	ecn_text(e, t, seg);
	arrives_from_sixth(e, t, seg, ret);
}

static uint32_t pieces(const struct segment *seg)
{
	const uint32_t text = seg->piece_bytes ? seg_text_len(seg) : 0;

	return text > seg->piece_bytes ? (text + seg->piece_bytes - 1) / seg->piece_bytes : 1;
}

static void arrives_connection(struct engine *e, struct tcb *t, struct segment *seg,
			       struct delivery *ret)
{
	t->segments_in += pieces(seg);
	t->keepalive.heard_at = e->now;
	t->keepalive.probes = 0;
	if (t->state == ST_SYN_SENT)
		arrives_syn_sent(e, t, seg, ret);
	else
		arrives_other(e, t, seg, ret);
}

static void arrives(struct engine *e, struct tcb *t, struct segment *seg, uint32_t hash,
		    struct delivery *ret)
{
	struct listener *l;

	if (t && t->state == ST_SYN_RECEIVED && t->passive && cookie_supersedes(e, t, seg))
		t = NULL;
	if (t) {
		if (!drops_syn_fin(e, t, NULL, seg))
			arrives_connection(e, t, seg, ret);
		return;
	}
	if (addresses_are_bad(&seg->flow)) {
		e->counters.drop_bad_source++;
		engine_refused(e, NULL, ST_CLOSED, &seg->flow, RULE_BAD_SOURCE);
		return;
	}
	l = listener_find(e, &seg->flow.local, hash);
	if (drops_syn_fin(e, NULL, l, seg))
		return;
	if (!l) {
		arrives_closed(e, seg);
		return;
	}
	t = arrives_listen(e, l, seg, hash);
	if (t)
		arrives_connection(e, t, seg, ret);
}

void engine_input(struct engine *e, vtime now, const struct segment *seg,
		  struct delivery *ret_delivery)
{
	const uint32_t hash = table_hash(e, &seg->flow);
	const uint32_t id = table_find(e, &seg->flow, hash);
	struct tcb *t;
	struct segment mine; /* the steps trim it */

	engine_clock(e, now);
	assert(seg->spans_n <= SEG_SPANS);
	memcpy(&mine, seg, offsetof(struct segment, text) + seg->spans_n * sizeof(seg->text[0]));
	e->arriving.ctl = seg->ctl;
	e->arriving.seq = seg->seq;
	e->arriving.ack = seg->ack;
	e->arriving.len = seg_len(seg);
	e->counters.segments_in += pieces(seg);
	if (ret_delivery)
		*ret_delivery = (struct delivery){ 0 };
	t = id ? slot_arrived(e, id - 1) : NULL;
	if (!id || t) /* else it has not come: the peer sends it again */
		arrives(e, t, &mine, hash, ret_delivery);
}
