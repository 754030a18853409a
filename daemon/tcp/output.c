/* SPDX-License-Identifier: Apache-2.0 */
/* What to put on the wire next: pulled by the driver once all input is in (MUST-58, MUST-59). Who has
 * something to say is on a list and takes turns.
 */
#include <assert.h>
#include <string.h>

#include "tcb.h"

enum {
	CHALLENGES_MAX = 10, /* RFC 5961 7, per connection */
	CHALLENGES_PERIOD_US = 5000000,
	CHALLENGES_ENGINE_MAX = 1000,
	CHALLENGES_ENGINE_PERIOD_US = 1000000,
	LIMITED_TRANSMIT = 2, /* RFC 3042 */
	TURN_BYTES = 1 << 20, /* sent in a row while others wait */
	FEW_BYTES = 1 << 16, /* with no more than this to send it goes before those who have more */
	FEW_N = 64, /* segments in a row that go before them */
	SEVERAL = 2, /* super-segments: when more wait, the first may be short */
	FIRST_PART = 4, /* of a super-segment's length */
};

void tcb_ack_now(struct engine *e, struct tcb *t)
{
	t->rcv.ack_now = true;
	tcb_want_output(e, t);
}

void tcb_challenge(struct engine *e, struct tcb *t)
{
	if (t->rcv.ack_now)
		return; /* one answers both */
	if (!limit_allows(&t->challenges, e->now, CHALLENGES_MAX, CHALLENGES_PERIOD_US) ||
	    !limit_allows(&e->challenges, e->now, CHALLENGES_ENGINE_MAX,
			  CHALLENGES_ENGINE_PERIOD_US)) {
		e->counters.challenge_acks_limited++;
		return;
	}
	e->counters.challenge_acks++;
	tcb_ack_now(e, t);
}

/* Answers without a connection. */

/* All but the text, which spans_n bounds. */
static void fill_plain(struct segment *out, const struct flow *f, uint8_t ctl, seqno seq, seqno ack)
{
	out->flow = *f;
	out->seq = seq;
	out->ack = ack;
	out->wnd = 0;
	out->urgent = 0;
	out->ctl = ctl;
	out->options = 0;
	out->mss = 0;
	out->wscale = 0;
	out->sacks_n = 0;
	out->fast_open_n = 0;
	out->ts_val = out->ts_ecr = 0;
	out->piece_bytes = 0;
	out->link_mtu = 0;
	out->ttl = 0; /* the caller's */
	out->tos = 0;
	out->layout = LAYOUT_LINUX;
	out->ip_id = 0;
	out->flow_label = 0;
	out->spans_n = 0;
}

struct segment *reply_next(struct engine *e, uint32_t spared)
{
	if (e->replies_n + spared >= REPLIES_MAX) {
		e->counters.replies_limited++;
		return NULL;
	}
	return &e->replies[(e->replies_head + e->replies_n++) % REPLIES_MAX];
}

void reply_reset(struct engine *e, const struct segment *in, uint8_t ttl, uint8_t dscp,
		 uint32_t flow_label)
{
	struct segment *r = reply_next(e, 0);

	if (r && in->ctl & CTL_ACK)
		fill_plain(r, &in->flow, CTL_RST, in->ack, (seqno){ 0 });
	else if (r)
		fill_plain(r, &in->flow, CTL_RST | CTL_ACK, (seqno){ 0 },
			   seq_add(in->seq, e->arriving.len));
	if (!r)
		return;
	r->ttl = ttl; /* MUST-49 */
	r->tos = (uint8_t)(dscp << 2);
	r->flow_label = flow_label;
}

static void output_reply(struct engine *e, struct segment *out)
{
	memcpy(out, &e->replies[e->replies_head], offsetof(struct segment, text));
	e->replies_head = (e->replies_head + 1) % REPLIES_MAX;
	e->replies_n--;
	e->counters.resets_out += !!(out->ctl & CTL_RST);
	e->counters.segments_out++;
}

/* Segments of a connection. */

enum {
	OPTIONS_MOST = 40,
	TIMESTAMPS_OCTETS = 12,
	SACK_OCTETS = 4,
	BLOCK_OCTETS = 8,
	SACKS_BESIDE_UTO = 20
};

static bool owes_dup(const struct tcb *t)
{
	return seq_lt(t->rcv.dup.left, t->rcv.dup.right);
}

/* How many SACK blocks there are to give in at most `octets` of options. */
static unsigned sacks_to_give(const struct tcb *t, uint32_t octets)
{
	const uint32_t left = min_u32(OPTIONS_MOST - (t->timestamps ? TIMESTAMPS_OCTETS : 0),
				      octets);

	if (!t->sack || left < SACK_OCTETS + BLOCK_OCTETS)
		return 0;
	return min_u32(min_u32((left - SACK_OCTETS) / BLOCK_OCTETS, SEG_SACKS),
		       owes_dup(t) + t->recvq.ranges_n);
}

/* RFC 2018 4: what arrived out of order, the latest first; in front of it what arrived twice (RFC 2883
 * 4).
 */
static void fill_sacks(struct engine *e, struct tcb *t, struct segment *out, unsigned sacks)
{
	unsigned n = 0;

	if (sacks == 0)
		return;
	if (owes_dup(t)) {
		out->sacks[n++] = t->rcv.dup;
		t->rcv.dup = (struct sack_block){ 0 };
		e->counters.dsack_out++;
	}
	n += recvq_blocks(&e->pool, &t->recvq, out->sacks + n, sacks - n);
	out->sacks_n = (uint8_t)n;
	out->options |= OPT_SACK;
	e->counters.sack_blocks_out += n;
}

static void fill(const struct engine *e, struct tcb *t, struct segment *out, seqno seq)
{
	fill_plain(out, &t->flow, t->ecn.echo ? CTL_ACK | CTL_ECE : CTL_ACK, seq, t->rcv.nxt);
	out->ttl = t->params->ttl; /* MUST-49 */
	out->tos = (uint8_t)(t->params->dscp << 2); /* MUST-48, SHLD-22 */
	out->layout = personality_layout(t);
	out->flow_label = t->flow_label;
	if (t->timestamps) {
		out->options = OPT_TIMESTAMPS;
		out->ts_val = tcb_ts_now(e, t);
		out->ts_ecr = t->ts.recent;
	}
}

/* MUST-62: the pointer is to the octet after the last urgent one. When that is too far for 16 bits, as far as
 * they go: the peer hears the rest from later segments.
 */
static void fill_urgent(const struct tcb *t, struct segment *out)
{
	if (!t->snd.urgent || !seq_lt(out->seq, t->snd.up))
		return;
	out->ctl |= CTL_URG;
	out->urgent = (uint16_t)min_u32(seq_sub(t->snd.up, out->seq), UINT16_MAX);
}

/* Every segment but the first SYN acknowledges, and so settles what was owed. */
static void acknowledged(struct engine *e, struct tcb *t, struct segment *out, uint32_t pieces)
{
	out->ip_id = personality_ip_id(t, pieces);
	t->rcv.acked = t->rcv.nxt;
	t->rcv.unacked = 0;
	t->rcv.ack_now = false;
	timer_clear(t, TIMER_DELAYED_ACK);
	tcb_time_wait_acked(e, t);
	t->segments_out += pieces;
	e->counters.segments_out += pieces;
}

static void output_reset(struct engine *e, struct tcb *t, struct segment *out)
{
	const seqno right = seq_add(t->snd.una, t->snd.wnd);

	/* <SEQ=SND.NXT><CTL=RST>, as far as the peer can accept it. */
	fill_plain(out, &t->flow, CTL_RST, seq_min(t->snd.nxt, seq_max(right, t->snd.una)),
		   (seqno){ 0 });
	out->ttl = t->params->ttl;
	out->tos = (uint8_t)(t->params->dscp << 2);
	out->ip_id = personality_ip_id(t, 1);
	out->flow_label = t->flow_label;
	t->rst_owed = false;
	t->segments_out++;
	e->counters.resets_out++;
	e->counters.segments_out++;
	if (!t->in_use)
		tcb_free(e, t);
}

static void count_again(struct engine *e, struct tcb *t, uint32_t pieces, uint32_t octets)
{
	t->snd.timing = false; /* RFC 6298 3, Karn */
	t->snd.ambiguous = true;
	t->retransmitted_segments += pieces;
	t->retransmitted_bytes += octets;
	e->counters.retransmitted_segments += pieces;
	e->counters.retransmitted_bytes += octets;
}

static void start_timing(const struct engine *e, struct tcb *t)
{
	t->snd.timing = true;
	t->snd.timed_end = t->snd.nxt;
	t->snd.timed_at = e->now;
}

/* MUST-14, SHLD-5, MAY-3: always with the MSS option; MUST-65: nowhere else. */
void tcb_fill_syn(const struct engine *e, struct tcb *t, struct segment *out)
{
	const bool again = !seq_eq(t->snd.nxt, t->iss);

	fill(e, t, out, t->iss);
	out->ctl = CTL_SYN | CTL_ACK;
	out->options |= OPT_MSS;
	out->mss = t->rcv.mss;
	if (t->window_scaling) {
		out->options |= OPT_WSCALE;
		out->wscale = t->rcv.wscale;
	}
	if (t->sack)
		out->options |= OPT_SACK_PERMITTED;
	if (t->state == ST_SYN_SENT) {
		out->ctl = CTL_SYN;
		out->ack = (seqno){ 0 };
		out->wnd = personality_syn_window(t, t->rcv.limit);
	} else {
		/* RFC 7323 2.2: not scaled */
		out->wnd = personality_syn_window(t, tcb_rcv_wnd(t));
		fast_open_fill_syn_ack(e, t, out);
	}
	uto_fill(t, out);
	out->ctl |= ecn_syn_ctl(t, again);
}

/* RFC 7413: n octets of the text go with our SYN. */
static void put_text_on_syn(struct engine *e, struct tcb *t, struct segment *out, uint32_t n)
{
	const seqno first = seq_add(t->iss, 1);

	out->spans_n = sendq_spans(&e->pool, &t->sendq, first, n, out->text);
	if (n == t->sendq.used)
		out->ctl |= CTL_PSH;
	t->snd.rtx = t->snd.nxt = t->snd.small_end = seq_add(first, n);
	e->counters.fast_open_sent++;
	e->counters.text_bytes_out += n;
}

static void output_syn(struct engine *e, struct tcb *t, struct segment *out)
{
	const bool again = !seq_eq(t->snd.nxt, t->iss);
	uint32_t text = 0;

	tcb_fill_syn(e, t, out);
	if (t->state == ST_SYN_SENT) {
		if (again) /* RFC 7413 4.2.1: without the option, and without text */
			fast_open_lost(e, t);
		else
			text = fast_open_fill_syn(e, t, out);
		if (out->options & OPT_FAST_OPEN) /* no room for both */
			out->options &= (uint8_t)~OPT_USER_TIMEOUT;
		out->ip_id = personality_ip_id(t, 1);
		t->segments_out++;
		e->counters.segments_out++;
	} else {
		acknowledged(e, t, out, 1);
	}
	t->snd.rtx = seq_add(t->iss, 1);
	t->snd.nxt = seq_max(t->snd.nxt, t->snd.rtx);
	if (again)
		count_again(e, t, 1, 0);
	else
		start_timing(e, t);
	if (text)
		put_text_on_syn(e, t, out, text);
	if (!vtime_is_set(t->timers[TIMER_RETRANSMISSION]))
		tcb_rearm(e, t);
}

/* A bare ACK, <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>. Where SND.NXT lies beyond the peer's window (a probe
 * is out, or the window shrank) the peer would not accept it: then the window's edge.
 */
static void output_ack(struct engine *e, struct tcb *t, struct segment *out)
{
	const seqno right = seq_add(t->snd.una, t->snd.wnd);

	fill(e, t, out, tcb_syn_acked(t) ? seq_min(t->snd.nxt, right) : t->snd.nxt);
	if (t->rcv.dup_acks)
		t->rcv.dup_acks--;
	if (t->uto.owed)
		uto_fill(t, out);
	t->uto.owed = false;
	fill_sacks(e, t, out,
		   sacks_to_give(t, out->options & OPT_USER_TIMEOUT ? SACKS_BESIDE_UTO
								    : OPTIONS_MOST));
	fill_urgent(t, out);
	out->wnd = window_offer(e, t);
	acknowledged(e, t, out, 1);
}

/* SHLD-12: without text. One octet left of the peer's window, so that it has to answer. */
static void output_keepalive(struct engine *e, struct tcb *t, struct segment *out)
{
	output_ack(e, t, out);
	out->seq = seq_add(t->snd.una, UINT32_MAX);
	e->counters.keepalive_probes++;
}

/* What is to be sent at `at`. */
struct plan {
	seqno at;
	uint32_t n; /* text octets */
	uint32_t piece; /* of a full segment: SND.MSS without the SACK option */
	unsigned sacks; /* blocks in that option */
	bool fin;
	bool probe; /* into a closed window */
	bool larger; /* than the path is known to take */
	bool tail; /* a tail loss probe */
};

static bool may_send_text(const struct tcb *t)
{
	switch (t->state) {
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_1:
	case ST_CLOSE_WAIT:
	case ST_CLOSING:
	case ST_LAST_ACK:
		return true;
	case ST_SYN_RECEIVED: /* RFC 7413 4.2.2; a path that lost our SYN-ACK is spared more */
		return t->fast_open.early && t->passive && !t->snd.syn_lost;
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST_FIN_WAIT_2:
	case ST_TIME_WAIT:
	case ST__COUNT:
		break;
	}
	return false;
}

bool tcb_has_unsent(const struct tcb *t)
{
	return may_send_text(t) && seq_lt(t->snd.rtx, seq_add(tcb_text_end(t), t->snd.fin_queued));
}

/* How far the congestion window lets text at `at` go. RFC 3042: two segments more of new text while the first two
 * duplicate ACKs say that something still arrives.
 */
static uint32_t congestion_room(const struct engine *e, const struct tcb *t, seqno at)
{
	const bool limited = !t->cc.recovering && !seq_lt(at, t->snd.nxt);
	const uint32_t extra = limited ? min_u32(t->cc.dup_acks, LIMITED_TRANSMIT) : 0;
	const uint32_t frto = t->cc.frto == FRTO_SECOND ? t->cc.frto_room : 0;
	uint32_t room;

	if (recovery_board(e, t)) { /* RFC 6675 5 (C) */
		const uint32_t pipe = recovery_pipe(e, t);

		room = t->cc.cwnd > pipe ? t->cc.cwnd - pipe : 0;
	} else {
		room = seq_ahead(seq_add(t->snd.una, t->cc.cwnd + extra * t->snd.mss), at);
	}
	return max_u32(room, frto);
}

/* Nagle's algorithm (MUST-17), or a cork: no short segment at all, but for what the timer of the sender's
 * silly window avoidance lets go. DEVIATION(SHLD-7): as Minshall changed it and as the deployed stacks have
 * it: what is unacknowledged holds a short segment back only when it is short itself. The end of a long
 * message does not wait for a peer that delays its ACK of an odd number of segments.
 */
static bool nagle_holds(const struct tcb *t)
{
	if (t->snd.fin_queued || t->snd.urgent)
		return false;
	return t->params->cork || (t->params->nagle && seq_lt(t->snd.una, t->snd.small_end));
}

/* Is text shorter than a segment worth sending? RFC 9293 3.8.6.2.1 (MUST-38), with Nagle in (2) and (3).
 * (1) is a full segment; (4) is snd.force.
 */
static bool small_may_go(const struct tcb *t, seqno at, uint32_t n, uint32_t queued)
{
	if (t->snd.force || t->cc.frto == FRTO_SECOND || seq_lt(at, t->snd.nxt))
		return true;
	return (n == queued || n >= t->snd.wnd_max / 2) && !nagle_holds(t);
}

/* The urgent pointer counts from each segment, and RFC 2883 4 (3) wants a duplicate reported in one: neither knows
 * the device that cuts a super-segment.
 */
static uint32_t burst_of(const struct engine *e, const struct tcb *t, const struct plan *p)
{
	if (t->snd.urgent || owes_dup(t))
		return p->piece;
	return max_u32(e->cfg.segment_bytes_max / p->piece * p->piece, p->piece);
}

/* The super-segment that is sent while nothing else is on its way, and several wait, is a short one. Of its buffer Linux
 * offers what has been free with a segment in it (tcp_grow_window()). Are all of one length, each leaves as much free as was
 * offered, and is acknowledged at once, where it arrives (__tcp_ack_snd_check()): between two namespaces of a machine
 * inside our sendmsg(), which then wakes the reader for each. A short one raises the offer, and the reader acknowledges
 * what it has read. Segments are whole (SHLD-28) all the same.
 */
static uint32_t first_of_several(const struct tcb *t, const struct plan *p, uint32_t burst,
				 uint32_t queued)
{
	if (!seq_eq(p->at, t->snd.una) || queued <= SEVERAL * burst)
		return burst;
	return max_u32(burst / FIRST_PART, p->piece); /* cut() makes it whole segments */
}

/* Whole segments (SHLD-28), and a short one behind them when it may go. */
static uint32_t cut(const struct engine *e, const struct tcb *t, const struct plan *p, uint32_t n,
		    uint32_t queued)
{
	const uint32_t mss = p->piece;
	const seqno at = p->at;
	const uint32_t some = min_u32(n, first_of_several(t, p, burst_of(e, t, p), queued));

	if (some < mss)
		return some && small_may_go(t, at, some, queued) ? some : 0;
	if (some % mss == 0)
		return some;
	if (some == queued && small_may_go(t, at, some, queued))
		return some;
	return some - some % mss;
}

/* RFC 6675 4, NextSeg() (1): what was lost goes first. */
static bool plan_again(const struct engine *e, const struct tcb *t, const struct recovery *r,
		       struct plan *p)
{
	const struct run *run = run_at(&e->runs, r->board.first_lost);
	const seqno end = tcb_text_end(t), right = seq_add(t->snd.una, t->snd.wnd);
	const uint32_t text = seq_ahead(seq_min(end, run->right), run->left);
	const uint32_t window = seq_ahead(right, run->left);
	const uint32_t room = congestion_room(e, t, run->left);
	const uint32_t cwnd = t->snd.fast ? max_u32(room, p->piece) : room;

	p->at = run->left;
	p->n = min_u32(min_u32(text, window), burst_of(e, t, p));
	if (p->n > cwnd)
		p->n = cwnd - cwnd % p->piece;
	p->fin = seq_lt(end, run->right) && p->n == text && p->n < window && cwnd > 0;
	return p->n || p->fin;
}

/* RFC 8985 7.3: something new when that is possible, or the last segment again. */
static bool plan_tail_probe(const struct engine *e, const struct tcb *t, const struct recovery *r,
			    struct plan *p)
{
	const seqno end = tcb_text_end(t), right = seq_add(t->snd.una, t->snd.wnd);
	const uint32_t queued = seq_ahead(end, t->snd.nxt), room = seq_ahead(right, t->snd.nxt);
	const struct run *tail = run_at(&e->runs, r->board.tail);
	const seqno text = seq_min(end, t->snd.nxt);
	const uint32_t sent = seq_ahead(text, tail->left);

	p->tail = true;
	p->at = t->snd.nxt;
	p->n = min_u32(min_u32(queued, room), p->piece);
	if (p->n) {
		p->fin = t->snd.fin_queued && p->n < room && seq_eq(seq_add(p->at, p->n), end);
		return true;
	}
	p->n = min_u32(sent, p->piece);
	p->at = seq_add(tail->left, sent - p->n);
	p->fin = seq_lt(end, t->snd.nxt);
	return seq_le(t->snd.nxt, right);
}

/* Does the path take larger segments again? */
static bool plan_larger(const struct engine *e, const struct tcb *t, struct plan *p,
			uint32_t queued, uint32_t room)
{
	const uint32_t mss = tcb_larger_mss(t);

	if (mss <= t->snd.mss || p->sacks || !seq_eq(p->at, t->snd.nxt) || queued < 2 * mss ||
	    min_u32(room, congestion_room(e, t, p->at)) < mss)
		return false;
	p->n = p->piece = mss;
	p->larger = true;
	return true;
}

static bool plan_text(const struct engine *e, struct tcb *t, struct plan *ret)
{
	/* SHLD-15: nothing new goes beyond the right edge, also when the peer moved it left; SHLD-16: what is
	 * sent again goes up to it, and MAY-7 is not made use of. */
	const seqno end = tcb_text_end(t), right = seq_add(t->snd.una, t->snd.wnd);
	struct recovery *r = recovery_board(e, t);
	const bool fast = t->snd.fast && !r;
	struct plan p = { .at = fast ? t->snd.una : t->snd.rtx };
	const uint32_t queued = seq_ahead(end, p.at);
	uint32_t room = seq_ahead(right, p.at);

	/* MUST-16 counts options, and the text shrinks by them; never below half. */
	p.sacks = sacks_to_give(t, t->snd.mss / 2);
	p.piece = t->snd.mss - (p.sacks ? SACK_OCTETS + p.sacks * BLOCK_OCTETS : 0);
	if (r && !t->snd.force && r->board.lost && t->cc.frto != FRTO_SECOND) {
		*ret = p;
		return plan_again(e, t, r, ret);
	}
	if (r && t->snd.tail_probe && !t->snd.force) {
		*ret = p;
		return plan_tail_probe(e, t, r, ret);
	}
	if (room == 0 && t->snd.force) { /* MUST-36 */
		p.probe = true;
		room = 1;
	}
	if (fast || t->snd.force)
		p.n = min_u32(min_u32(queued, room), p.piece);
	else if (!t->hole.raise || !plan_larger(e, t, &p, queued, room))
		p.n = cut(e, t, &p, min_u32(min_u32(queued, room), congestion_room(e, t, p.at)),
			  queued);
	p.fin = t->snd.fin_queued && p.n < room && seq_eq(seq_add(p.at, p.n), end);
	if (p.n == 0 && !p.fin)
		return false;
	*ret = p;
	return true;
}

static uint32_t pieces_of(const struct plan *p, uint32_t n)
{
	return n > p->piece ? (n + p->piece - 1) / p->piece : 1;
}

static void sent(struct engine *e, struct tcb *t, const struct plan *p)
{
	const bool idle = tcb_flight(t) == 0;
	const seqno next = seq_add(p->at, p->n + p->fin), nxt = t->snd.nxt;
	const uint32_t again = min_u32(seq_ahead(t->snd.nxt, p->at), p->n + p->fin);

	t->snd.rtx = seq_max(t->snd.rtx, next);
	t->snd.nxt = seq_max(t->snd.nxt, next);
	if (t->want_writable)
		tcb_tell_room(e, t);
	if (p->n % p->piece)
		t->snd.small_end = seq_max(t->snd.small_end, seq_add(p->at, p->n));
	if (p->larger)
		tcb_larger_sent(t, next);
	else if (again && t->hole.trial == TRIAL_LARGER && seq_lt(p->at, t->hole.end))
		tcb_larger_lost(e, t);
	if (again)
		count_again(e, t, pieces_of(p, again), min_u32(again, p->n));
	else if (!t->snd.timing && !p->probe)
		start_timing(e, t);
	if (p->probe) {
		t->snd.probing = true;
		e->counters.zero_window_probes++;
	}
	if (p->tail) {
		t->tlp.out = true;
		t->tlp.again = again;
		t->tlp.unmeasured = true;
		t->tlp.end = t->snd.nxt;
		e->counters.tlp_probes++;
	}
	e->counters.text_bytes_out += p->n;
	t->snd.last_at = e->now;
	/* A probe's timer was set when the one before expired: its intervals double. */
	if (!vtime_is_set(t->timers[TIMER_RETRANSMISSION]) || (idle && !p->probe))
		tcb_rearm(e, t);
	if (tcb_user_timeout_us(t) && !vtime_is_set(t->timers[TIMER_USER_TIMEOUT]))
		timer_set(e, t, TIMER_USER_TIMEOUT, vtime_add(e->now, tcb_user_timeout_us(t)));
	t->snd.fast = t->snd.force = t->snd.tail_probe = false;
	t->cc.frto_room -= min_u32(t->cc.frto_room, seq_ahead(next, nxt));
	recovery_sent(e, t, p->at, next, nxt);
	cc_sent(e, t, idle);
}

/* After a window that was shut, what is outstanding goes again: by the scoreboard, when there is one. */
static void leave_probing(struct engine *e, struct tcb *t)
{
	struct recovery *r = recovery_board(e, t);

	if (!r || t->snd.wnd == 0 || !seq_lt(t->snd.rtx, t->snd.nxt))
		return;
	scoreboard_lose_all(&e->runs, &r->board, false);
	t->snd.rtx = t->snd.nxt;
}

static bool output_text(struct engine *e, struct tcb *t, struct segment *out)
{
	struct plan p;

	cc_idle(e, t);
	leave_probing(e, t);
	if (!plan_text(e, t, &p)) {
		t->snd.fast = t->snd.force = t->snd.tail_probe = false;
		if (!vtime_is_set(t->timers[TIMER_RETRANSMISSION]))
			tcb_rearm(e, t); /* only a timer can go on: see stuck() */
		return false;
	}
	fill(e, t, out, p.at);
	out->spans_n = sendq_spans(&e->pool, &t->sendq, p.at, p.n, out->text);
	fill_sacks(e, t, out, p.sacks);
	if (p.n > p.piece)
		out->piece_bytes = (uint16_t)p.piece;
	if (p.n && seq_eq(seq_add(p.at, p.n), tcb_text_end(t)))
		out->ctl |= CTL_PSH; /* MUST-60, MUST-61; SHLD-27 */
	if (p.fin)
		out->ctl |= CTL_FIN;
	fill_urgent(t, out);
	ecn_send(t, out, p.n && !p.probe && seq_eq(p.at, t->snd.nxt));
	out->wnd = window_offer(e, t);
	acknowledged(e, t, out, pieces_of(&p, p.n));
	sent(e, t, &p);
	return true;
}

static bool output_tcb(struct engine *e, struct tcb *t, struct segment *out)
{
	if (t->state == ST_CLOSED) {
		if (!t->rst_owed)
			return false;
		output_reset(e, t, out);
		return true;
	}
	if (!tcb_syn_acked(t) && seq_eq(t->snd.rtx, t->iss)) {
		output_syn(e, t, out);
		return true;
	}
	if (t->rcv.dup_acks) { /* first, so that text does not take their place: RFC 5681 4.2 */
		output_ack(e, t, out);
		return true;
	}
	/* RFC 5482: in the first segment that is no SYN, as cookies remember nothing of that. By itself, for
	 * full segments have no room for it: MUST-16. */
	if (t->uto.owed && tcb_syn_acked(t)) {
		output_ack(e, t, out);
		return true;
	}
	if (may_send_text(t) && output_text(e, t, out))
		return true;
	if (t->keepalive.owed) {
		t->keepalive.owed = false;
		output_keepalive(e, t, out);
		return true;
	}
	if (!t->rcv.ack_now)
		return false;
	output_ack(e, t, out);
	return true;
}

bool tcb_has_little(const struct tcb *t)
{
	return seq_ahead(tcb_text_end(t), t->snd.nxt) <= FEW_BYTES;
}

/* One that has sent may have more. It goes on for a while: who reads that is woken once for all of it, and
 * acknowledges it once, not for each super-segment of many connections. Then the others come first.
 */
static void go_on(struct engine *e, struct tcb *t, bool few, uint32_t bytes)
{
	uint32_t *const row = few ? &e->few_bytes : &e->turn_bytes;

	*row += bytes;
	if (t->state != ST_CLOSED && *row < (few ? FEW_BYTES : TURN_BYTES)) {
		list_prepend(few ? &e->out_few : &e->out, &t->out);
		return;
	}
	*row = 0;
	if (t->state != ST_CLOSED)
		list_append(&e->out, &t->out);
}

/* Those with little to send do not wait for the turns of those with much, who have a segment now and then nonetheless. */
static bool few_are_next(struct engine *e)
{
	const bool few = list_first(&e->out_few) && (e->few_n < FEW_N || !list_first(&e->out));

	e->few_n = few && list_first(&e->out) ? e->few_n + 1 : 0;
	return few;
}

static bool output_connections(struct engine *e, struct segment *ret_seg)
{
	for (;;) {
		const bool few = few_are_next(e);
		struct link *const l = list_first(few ? &e->out_few : &e->out);
		struct tcb *t;

		if (!l)
			return false;
		t = LINK_OWNER(l, struct tcb, out);
		list_remove(l);
		if (output_tcb(e, t, ret_seg)) {
			go_on(e, t, few, seg_text_len(ret_seg));
			return true;
		}
		*(few ? &e->few_bytes : &e->turn_bytes) = 0;
		rest_if_waiting(e, t);
	}
}

/* What strangers are answered and what connections have to say take turns: a flood of SYNs holds nobody up.
 */
bool engine_output(struct engine *e, vtime now, struct segment *ret_seg)
{
	engine_clock(e, now);
	if ((e->replied || !e->replies_n) && output_connections(e, ret_seg)) {
		e->replied = false;
		return true;
	}
	e->replied = e->replies_n;
	if (!e->replies_n)
		return false;
	output_reply(e, ret_seg);
	return true;
}
