/* SPDX-License-Identifier: Apache-2.0 */
/* Sixth to eighth: RFC 9293 3.10.7.4, and where 3.10.7.3 continues. Urgent data, text, FIN; text out of
 * order is kept (SHLD-31), and so is where the FIN is.
 */
#include <assert.h>

#include "tcb.h"

void seg_trim_front(struct segment *seg, uint32_t n)
{
	seg->seq = seq_add(seg->seq, n);
	if (n && seg->ctl & CTL_SYN) {
		seg->ctl &= (uint8_t)~CTL_SYN;
		n--;
	}
	for (unsigned i = 0; i < seg->spans_n && n; i++) {
		const uint32_t k = min_u32(n, seg->text[i].len);

		seg->text[i].base += k;
		seg->text[i].len -= k;
		n -= k;
	}
	if (n)
		seg->ctl &= (uint8_t)~CTL_FIN;
}

void seg_trim_back(struct segment *seg, uint32_t keep)
{
	uint32_t left = keep;

	for (unsigned i = 0; i < seg->spans_n; i++) {
		seg->text[i].len = min_u32(seg->text[i].len, left);
		left -= seg->text[i].len;
	}
	/* The FIN stands behind the text: it is in the window when one octet of that is left. */
	if (left == 0)
		seg->ctl &= (uint8_t)~CTL_FIN;
}

/* MUST-58, MUST-59: one ACK for many segments, after all input; SHLD-18: delayed; SHLD-19: not beyond
 * two full-sized segments.
 */
static void text_arrived(struct engine *e, struct tcb *t, uint32_t len, uint32_t piece)
{
	t->rcv.mss_seen = max_u32(t->rcv.mss_seen, min_u32(piece, t->rcv.mss));
	t->rcv.unacked += len;
	t->rcv.dup_acks = 0;
	if (t->params->delayed_ack_us == 0 || t->rcv.unacked >= 2 * t->rcv.mss_seen)
		tcb_ack_now(e, t);
	else if (!t->rcv.ack_now && !vtime_is_set(t->timers[TIMER_DELAYED_ACK]))
		timer_set(e, t, TIMER_DELAYED_ACK, vtime_add(e->now, t->params->delayed_ack_us));
}

/* RCV.NXT follows what is in order now; what came out of order before may be next. hole: there was one. */
static void advance(struct engine *e, struct tcb *t, uint32_t len, uint32_t piece, bool hole)
{
	uint32_t n = len;

	if (hole) {
		n += recvq_join(&e->pool, &t->recvq);
		tcb_ack_now(e, t); /* RFC 5681 4.2: it fills in all or part of a gap */
	}
	t->rcv.nxt = seq_add(t->recvq.front, t->recvq.unread);
	t->bytes_in += n;
	e->counters.text_bytes_in += n;
	if (len)
		text_arrived(e, t, n, piece);
	if (t->recvq.unread)
		tcb_report(e, t, REPORT_READABLE);
}

static uint32_t piece_of(const struct segment *seg, uint32_t len)
{
	return seg->piece_bytes ? seg->piece_bytes : len;
}

static void no_buffer(struct engine *e, struct tcb *t)
{
	e->counters.drop_no_buffer++;
	engine_refused(e, t, t->state, &t->flow, RULE_OUT_OF_BUFFERS);
	tcb_ack_now(e, t);
}

/* In order. */
static void append_text(struct engine *e, struct tcb *t, const struct segment *seg, uint32_t len)
{
	const bool hole = t->recvq.ranges; /* which may give way to this text */
	uint32_t done = 0;

	for (unsigned i = 0; i < seg->spans_n; i++) {
		const uint32_t n = recvq_append(&e->pool, &t->recvq, seg->text[i].base,
						seg->text[i].len);

		done += n;
		if (n < seg->text[i].len)
			break;
	}
	if (done < len)
		no_buffer(e, t);
	advance(e, t, done, piece_of(seg, len), hole);
}

void tcb_duplicate(struct tcb *t, seqno left, seqno right)
{
	struct sack_block *const d = &t->rcv.dup;

	if (!t->sack || !seq_lt(left, right))
		return;
	if (seq_lt(d->left, d->right) && seq_eq(d->right, left))
		d->right = right; /* one ACK for both: MUST-58 */
	else
		*d = (struct sack_block){ left, right };
}

/* Out of order: kept, and each such segment answered by a duplicate ACK (RFC 5681 4.2, MAY-13), that
 * the peer can count.
 */
static void insert_text(struct engine *e, struct tcb *t, const struct segment *seg, uint32_t len)
{
	const uint32_t piece = piece_of(seg, len);
	const uint32_t acks = t->rcv.dup_acks + (len + piece - 1) / piece;
	const seqno right = seq_add(seg->seq, len);
	struct sack_block had;
	uint32_t done = 0;

	/* With SACK one ACK tells of all of them. */
	t->rcv.dup_acks = (uint8_t)min_u32(acks, t->sack ? 1 : UINT8_MAX);
	tcb_want_output(e, t);
	if (recvq_overlap(&e->pool, &t->recvq, seg->seq, right, &had)) /* RFC 2883 4 */
		tcb_duplicate(t, seq_max(seg->seq, had.left), seq_min(right, had.right));
	if (!recvq_has_range(&e->pool, &t->recvq, seg->seq)) {
		e->counters.drop_reassembly_full++;
		return;
	}
	for (unsigned i = 0; i < seg->spans_n; i++) {
		const uint32_t n = recvq_insert(&e->pool, &t->recvq, seq_add(seg->seq, done),
						seg->text[i].base, seg->text[i].len);

		done += n;
		if (n < seg->text[i].len) {
			e->counters.drop_no_buffer++;
			break;
		}
	}
	if (done == 0)
		return;
	e->counters.out_of_order_segments++;
	recvq_add_range(&e->pool, &t->recvq, seg->seq, seq_add(seg->seq, done));
}

/* May the text go to the service without a copy? */
static bool may_deliver(const struct tcb *t, const struct segment *seg, uint32_t len)
{
	return t->direct && t->recvq.unread == 0 && seg->spans_n == 1 && seg->text[0].len == len;
}

static void deliver(struct engine *e, struct tcb *t, const struct segment *seg,
		    struct delivery *ret)
{
	const struct span text = seg->text[0];

	e->direct.tcb = t;
	e->direct.text = text.base;
	e->direct.len = text.len;
	e->direct.piece = piece_of(seg, text.len);
	t->rcv.nxt = seq_add(t->rcv.nxt, text.len);
	*ret = (struct delivery){ .id = engine_id(e, t), .text = text };
}

static void keep_text(struct engine *e, struct tcb *t, struct segment *seg, struct delivery *ret)
{
	uint32_t len;

	if (t->rcv.fin_known) /* nothing comes behind the FIN */
		seg_trim_back(seg, seq_ahead(t->rcv.fin_at, seg->seq));
	len = seg_text_len(seg);
	if (len == 0)
		return;
	if (t->stopped) { /* SHLD-3: what nobody will read was lost */
		e->counters.drop_text_refused++;
		tcb_reset(e, t, END_RESET_BY_SERVICE, CAUSE_SEGMENT, e->arriving.ctl,
			  RULE_CLOSE_UNREAD);
		return;
	}
	if (seq_eq(seg->seq, t->rcv.nxt))
		window_heard(e, t, seg);
	if (!seq_eq(seg->seq, t->rcv.nxt))
		insert_text(e, t, seg, len);
	else if (ret && may_deliver(t, seg, len))
		deliver(e, t, seg, ret);
	else
		append_text(e, t, seg, len);
}

/* Seventh, process the segment text. */
static void process_text(struct engine *e, struct tcb *t, struct segment *seg, struct delivery *ret)
{
	switch (t->state) {
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_1:
	case ST_FIN_WAIT_2:
		keep_text(e, t, seg, ret);
		return;
	case ST_CLOSE_WAIT:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST_TIME_WAIT:
		return; /* "Ignore the segment text." */
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST_SYN_RECEIVED:
	case ST__COUNT:
		break;
	}
	assert(false && "not a state of 3.10.7.4, seventh");
}

/* Eighth, check the FIN bit: RCV.NXT has come to it. */
static void fin_reached(struct engine *e, struct tcb *t)
{
	t->rcv.fin = true;
	t->rcv.nxt = seq_add(t->rcv.nxt, 1);
	recvq_drop_ranges(&e->pool, &t->recvq);
	tcb_report(e, t, REPORT_PEER_CLOSED);
	tcb_ack_now(e, t);
	switch (t->state) {
	case ST_ESTABLISHED:
		t->closed_by = CLOSED_BY_REMOTE;
		tcb_enter(e, t, ST_CLOSE_WAIT, CAUSE_SEGMENT, e->arriving.ctl, RULE_ARRIVES_FIN);
		return;
	case ST_FIN_WAIT_1:
		t->closed_by = CLOSED_BY_BOTH;
		tcb_enter(e, t, ST_CLOSING, CAUSE_SEGMENT, e->arriving.ctl, RULE_ARRIVES_FIN);
		return;
	case ST_FIN_WAIT_2:
		tcb_start_time_wait(e, t, RULE_ARRIVES_FIN);
		return;
	case ST_CLOSE_WAIT:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST_TIME_WAIT:
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST_SYN_RECEIVED:
	case ST__COUNT:
		break;
	}
	assert(false && "a second FIN of the peer");
}

static void check_fin(struct engine *e, struct tcb *t)
{
	if (t->rcv.fin_known && !t->rcv.fin && t->state != ST_CLOSED &&
	    seq_eq(t->rcv.nxt, t->rcv.fin_at) && !e->direct.tcb)
		fin_reached(e, t);
}

/* A FIN is remembered where it is, also when the text in front of it has not come. One that would stand
 * in front of text that has come already is a lie.
 */
static void note_fin(struct tcb *t, const struct segment *seg)
{
	if (!(seg->ctl & CTL_FIN) || t->rcv.fin_known)
		return;
	t->rcv.fin_known = true;
	t->rcv.fin_at = seq_add(seg->seq, seg_text_len(seg));
}

void arrives_text_of_syn(struct engine *e, struct tcb *t, struct segment *seg)
{
	seg_trim_front(seg, 1);
	seg_trim_back(seg, tcb_rcv_wnd(t));
	append_text(e, t, seg, seg_text_len(seg)); /* a FIN comes again */
	tcb_opened(e, t);
}

/* The user is told again only after he has read it: MUST-32, "continuous sequence of urgent data". */
static void signal_urgent(struct engine *e, struct tcb *t, seqno up)
{
	if (t->rcv.urgent) {
		t->rcv.up = seq_max(t->rcv.up, up);
		return;
	}
	if (!seq_lt(t->recvq.front, up))
		return; /* not in advance of what is read */
	t->rcv.up = up;
	t->rcv.urgent = true;
	e->counters.urgent_in++;
	tcb_report(e, t, REPORT_URGENT);
}

void tcb_read_urgent(struct tcb *t)
{
	if (t->rcv.urgent && seq_le(t->rcv.up, t->recvq.front))
		t->rcv.urgent = false;
}

/* Sixth, check the URG bit: MUST-30, MUST-31. The text itself stays in line, as RFC 6093 has it. */
static void check_urg(struct engine *e, struct tcb *t, const struct segment *seg)
{
	if (!(seg->ctl & CTL_URG))
		return;
	switch (t->state) {
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_1:
	case ST_FIN_WAIT_2:
		/* As the segment came: what was known of it may have been trimmed since. */
		signal_urgent(e, t, seq_add(e->arriving.seq, seg->urgent));
		return;
	case ST_CLOSE_WAIT:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST_TIME_WAIT:
		return; /* "This should not occur [...]. Ignore the URG." */
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST_SYN_RECEIVED:
	case ST__COUNT:
		break;
	}
	assert(false && "not a state of 3.10.7.4, sixth");
}

void arrives_from_sixth(struct engine *e, struct tcb *t, struct segment *seg, struct delivery *ret)
{
	const bool fin = seg->ctl & CTL_FIN && !seq_eq(seg->seq, t->rcv.nxt);

	if (seg->options & OPT_USER_TIMEOUT)
		uto_arrives(e, t, seg);
	check_urg(e, t, seg);
	note_fin(t, seg);
	process_text(e, t, seg, ret);
	check_fin(e, t);
	if (fin && t->state != ST_CLOSED && !t->rcv.fin)
		tcb_ack_now(e, t); /* out of order: RFC 5681 4.2 */
}

void conn_delivered(struct engine *e, vtime now, const struct delivery *d, uint32_t taken)
{
	struct tcb *t = e->direct.tcb;
	const uint32_t len = e->direct.len, n = min_u32(taken, len);
	bool hole;
	uint32_t kept;

	e->direct.tcb = NULL;
	engine_clock(e, now);
	if (!t || engine_find(e, d->id) != t)
		return;
	hole = t->recvq.ranges;
	recvq_skip(&e->pool, &t->recvq, n);
	window_read(e, t, n);
	tcb_read_urgent(t);
	kept = recvq_append(&e->pool, &t->recvq, e->direct.text + n, len - n);
	if (kept < len - n)
		no_buffer(e, t); /* nothing of it was acknowledged yet: RCV.NXT goes back */
	advance(e, t, n + kept, e->direct.piece, hole);
	check_fin(e, t);
}
