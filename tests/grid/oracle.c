/* SPDX-License-Identifier: Apache-2.0 */
#include "oracle.h"

#include <stddef.h>

/* Where the RFC leaves a choice, or an implementation knowingly differs, the comment says CHOICE. */

enum next { GOES_ON, RETURNS };

static int64_t length(const struct oracle_segment *s)
{
	return s->text + (s->syn ? 1 : 0) + (s->fin ? 1 : 0);
}

static void acknowledge(struct oracle_answer *a, const char *rule)
{
	a->ack = SENDS_MUST;
	a->rule = rule;
}

static void closed(struct oracle_tcb *t, struct oracle_answer *a, enum oracle_end end)
{
	t->state = ST_CLOSED;
	a->end = end;
}

/* "If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>; if off, <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>" */
static void reset(struct oracle_answer *a, const struct oracle_segment *s, const char *rule)
{
	a->reset = true;
	a->reset_acks = !s->ack_on;
	a->reset_seq = s->ack_on ? s->ack : 0;
	a->reset_ack = s->seq + length(s);
	a->rule = rule;
}

/* 3.10.7.1 */
static void in_closed(const struct oracle_segment *s, struct oracle_answer *a)
{
	a->rule = "3.10.7.1";
	if (!s->rst)
		reset(a, s, "3.10.7.1");
}

static void window_from_syn(struct oracle_tcb *t, const struct oracle_segment *s)
{
	t->rcv_nxt = s->seq + 1;
	t->wnd = t->wnd_max = s->wnd;
	t->wl1 = s->seq;
	t->wl2 = s->ack_on ? s->ack : 0;
	t->timestamps = t->timestamps && s->stamped;
	t->ts_recent = s->stamp;
}

/* 3.10.7.2. CHOICE: text and FIN of the SYN "should be queued"; they are not acknowledged by the SYN,ACK
 * in either case, so nothing of it shows here.
 */
static void in_listen(struct oracle_tcb *t, const struct oracle_segment *s, struct oracle_answer *a)
{
	a->rule = "3.10.7.2 first";
	if (s->rst)
		return;
	if (s->ack_on) {
		reset(a, s, "3.10.7.2 second");
		return;
	}
	a->rule = "3.10.7.2 fourth";
	if (!s->syn)
		return;
	a->rule = "3.10.7.2 third";
	window_from_syn(t, s);
	t->una = 0;
	t->nxt = 1;
	t->passive = true;
	t->state = ST_SYN_RECEIVED;
	a->syn_ack = true;
}

/* Seventh and eighth, for a segment that begins at RCV.NXT. */
static void take(struct oracle_tcb *t, const struct oracle_segment *s, struct oracle_answer *a)
{
	const bool reads = t->state == ST_ESTABLISHED || t->state == ST_FIN_WAIT_1 ||
			   t->state == ST_FIN_WAIT_2;

	if (!reads) {
		/* "This should not occur [...]. Ignore the segment text." CHOICE: what lies behind the peer's
		 * FIN may be answered with an ACK or not. */
		if (a->ack == SENDS_NONE && length(s))
			a->ack = SENDS_MAY;
		return;
	}
	if (s->text) {
		t->rcv_nxt += s->text;
		t->rcv_wnd -= s->text;
		a->delivered += s->text;
		acknowledge(a, "3.10.7.4 seventh");
	}
	if (!s->fin)
		return;
	t->rcv_nxt++;
	t->rcv_wnd--;
	t->fin_seen = true;
	a->closing = true;
	acknowledge(a, "3.10.7.4 eighth");
	if (t->state == ST_ESTABLISHED) {
		t->state = ST_CLOSE_WAIT;
	} else if (t->state ==
		   ST_FIN_WAIT_1) { /* its ACK of our FIN would have led to FIN-WAIT-2 */
		t->state = ST_CLOSING;
	} else {
		t->state = ST_TIME_WAIT;
		a->waits = true;
	}
}

/* "trimming off any portions that lie outside the window (including SYN and FIN)" */
static void trim_left(struct oracle_segment *s, int64_t left)
{
	while (s->seq < left && length(s)) {
		if (s->syn)
			s->syn = false;
		else if (s->text)
			s->text--;
		else
			s->fin = false;
		s->seq++;
	}
}

static void trim_right(struct oracle_segment *s, int64_t right)
{
	while (s->seq + length(s) > right && length(s)) {
		if (s->fin)
			s->fin = false;
		else if (s->text)
			s->text--;
		else
			s->syn = false;
	}
}

/* Sixth to eighth. "Segments with higher beginning sequence numbers SHOULD be held" (SHLD-31), and, by RFC
 * 5681 4.2, answered by a duplicate ACK at once.
 */
static void from_sixth(struct oracle_tcb *t, const struct oracle_segment *s,
		       struct oracle_answer *a)
{
	if (length(s) && s->seq > t->rcv_nxt && !t->fin_seen) {
		t->holds = true;
		t->held = *s;
		acknowledge(a, "RFC 5681 4.2");
		return;
	}
	take(t, s, a);
	if (t->holds && !t->fin_seen && t->held.seq <= t->rcv_nxt) {
		t->holds = false;
		trim_left(&t->held, t->rcv_nxt);
		take(t, &t->held, a);
	}
}

/* 3.10.7.3 */
static void in_syn_sent(struct oracle_tcb *t, struct oracle_segment *s, struct oracle_answer *a)
{
	a->rule = "3.10.7.3 first";
	if (s->ack_on && (s->ack <= 0 || s->ack > t->nxt)) {
		if (!s->rst)
			reset(a, s, "3.10.7.3 first");
		return;
	}
	a->rule = "3.10.7.3 second";
	if (s->rst) {
		if (s->ack_on)
			closed(t, a, ENDS_REFUSED);
		return;
	}
	a->rule = "3.10.7.3 fifth";
	if (!s->syn)
		return;
	a->rule = "3.10.7.3 fourth";
	window_from_syn(t, s);
	if (!s->ack_on) {
		t->state = ST_SYN_RECEIVED;
		a->syn_ack = true;
		return;
	}
	t->una = s->ack;
	t->state = ST_ESTABLISHED;
	a->opened = true;
	acknowledge(a, "3.10.7.3 fourth");
	trim_left(s, t->rcv_nxt);
	trim_right(s, t->rcv_nxt + t->rcv_wnd);
	from_sixth(t, s, a);
}

/* Table 6. */
static bool acceptable(const struct oracle_tcb *t, const struct oracle_segment *s)
{
	const int64_t left = t->rcv_nxt, right = t->rcv_nxt + t->rcv_wnd;
	const int64_t last = s->seq + length(s) - 1;

	if (length(s) == 0 && t->rcv_wnd == 0)
		return s->seq == left;
	if (length(s) == 0)
		return left <= s->seq && s->seq < right;
	if (t->rcv_wnd == 0)
		return false;
	return (left <= s->seq && s->seq < right) || (left <= last && last < right);
}

/* RFC 6191 2, for MAY-2: may this SYN begin another incarnation? "greater than the last sequence number
 * seen" is greater than that of the FIN, which stands in front of RCV.NXT.
 */
static bool reopens(const struct oracle_tcb *t, const struct oracle_segment *s)
{
	if (t->state != ST_TIME_WAIT || !t->listener || !s->syn || s->ack_on || s->rst)
		return false;
	if (t->timestamps && s->stamped && s->stamp != t->ts_recent)
		return s->stamp > t->ts_recent;
	return s->seq > t->rcv_nxt - 1;
}

/* RFC 7323 3.2 and 5.3 R1. */
static enum next check_stamp(const struct oracle_tcb *t, const struct oracle_segment *s,
			     struct oracle_answer *a)
{
	if (!t->timestamps || s->rst)
		return GOES_ON;
	if (!s->stamped) { /* CHOICE: but a SYN is of a peer that knows nothing of this connection */
		a->rule = "RFC 7323 3.2";
		return s->syn ? GOES_ON : RETURNS;
	}
	if (s->stamp >= t->ts_recent)
		return GOES_ON;
	acknowledge(a, "RFC 7323 5.3 R1");
	return RETURNS;
}

/* First and second for a RST. 3.5.3: it is valid when its sequence number is in the window; MUST-66: also
 * when that is closed. RFC 1337: TIME-WAIT does not end by it.
 */
static void check_rst(struct oracle_tcb *t, const struct oracle_segment *s, struct oracle_answer *a)
{
	const bool exact = s->seq == t->rcv_nxt;

	a->rule = "3.10.7.4 first";
	if (!exact && (s->seq < t->rcv_nxt || s->seq >= t->rcv_nxt + t->rcv_wnd))
		return;
	a->rule = "RFC 1337";
	if (t->state == ST_TIME_WAIT)
		return;
	if (t->rfc5961 && !exact) {
		acknowledge(a, "3.10.7.4 second, RFC 5961 3.2");
		return;
	}
	a->rule = "3.10.7.4 second";
	if (t->state != ST_SYN_RECEIVED)
		closed(t, a, ENDS_RESET);
	else if (!t->passive)
		closed(t, a, ENDS_REFUSED);
	else {
		closed(t, a, ENDS_HANDSHAKE);
		t->state = ST_LISTEN;
	}
}

/* First, for all else. Leaves the idealized segment. */
static enum next check_sequence(struct oracle_tcb *t, struct oracle_segment *s,
				struct oracle_answer *a)
{
	bool worth = false;

	if (acceptable(t, s)) {
		if (t->timestamps && s->stamped && s->seq <= t->last_ack_sent)
			t->ts_recent = s->stamp; /* RFC 7323 4.3 (2) */
		trim_left(s, t->rcv_nxt);
		trim_right(s, t->rcv_nxt + t->rcv_wnd);
		return GOES_ON;
	}
	acknowledge(a, "3.10.7.4 first");
	/* 3.10.7.4 fifth, TIME-WAIT: "a retransmission of the remote FIN. Acknowledge it, and restart the 2 MSL
	 * timeout": this is where one is seen. */
	if (t->state == ST_TIME_WAIT && s->fin && s->seq + length(s) == t->rcv_nxt)
		a->waits = true;
	/* "If the RCV.WND is zero, [...] special allowance should be made to accept valid ACKs" */
	if (t->rcv_wnd == 0 && s->seq == t->rcv_nxt)
		worth = true;
	/* CHOICE, against the letter: the ACK of an old duplicate counts when it acknowledges something new. */
	if (s->seq < t->rcv_nxt && t->una > 0 && s->ack > t->una)
		worth = true;
	if (!worth || s->syn || !s->ack_on)
		return RETURNS;
	s->seq = t->rcv_nxt;
	s->text = 0;
	s->fin = false;
	return GOES_ON;
}

/* Fourth. RFC 5961 4.2 comes before the segment is trimmed: "irrespective of the sequence number". */
static enum next check_syn_5961(const struct oracle_tcb *t, const struct oracle_segment *s,
				struct oracle_answer *a)
{
	/* CHOICE: TIME-WAIT is not ended by a SYN that may not reopen it, whatever RFC 793 says: RFC 1337. */
	const bool challenges = t->rfc5961 || t->state == ST_TIME_WAIT;

	if (!s->syn || !challenges || (t->state == ST_SYN_RECEIVED && t->passive))
		return GOES_ON;
	acknowledge(a, "3.10.7.4 fourth, RFC 5961 4.2");
	return RETURNS;
}

static enum next check_syn(struct oracle_tcb *t, const struct oracle_segment *s,
			   struct oracle_answer *a)
{
	if (!s->syn)
		return GOES_ON;
	a->rule = "3.10.7.4 fourth";
	if (t->state == ST_SYN_RECEIVED && t->passive) {
		closed(t, a, ENDS_HANDSHAKE);
		t->state = ST_LISTEN;
		return RETURNS;
	}
	closed(t, a, ENDS_RESTARTED);
	a->reset = true;
	a->reset_seq = t->nxt;
	return RETURNS;
}

static void update_window(struct oracle_tcb *t, const struct oracle_segment *s)
{
	if (t->wl1 < s->seq || (t->wl1 == s->seq && t->wl2 <= s->ack)) {
		t->wnd = s->wnd;
		t->wl1 = s->seq;
		t->wl2 = s->ack;
		if (t->wnd_max < s->wnd)
			t->wnd_max = s->wnd;
	}
}

static enum next ack_of_established(struct oracle_tcb *t, const struct oracle_segment *s,
				    struct oracle_answer *a)
{
	if (t->rfc5961 && s->ack < t->una - t->wnd_max) {
		acknowledge(a, "3.10.7.4 fifth, MAY-12, RFC 5961 5.2");
		return RETURNS;
	}
	if (s->ack > t->nxt) {
		acknowledge(a, "3.10.7.4 fifth");
		return RETURNS;
	}
	if (s->ack > t->una) {
		a->all_acked = t->fin_sent && s->ack == t->nxt;
		t->una = s->ack;
	}
	if (s->ack >= t->una)
		update_window(t, s);
	return GOES_ON;
}

/* Fifth. MAY-12 is for the synchronized states: in SYN-RECEIVED 3.5.2, group 2, wants the reset. */
static enum next check_ack(struct oracle_tcb *t, const struct oracle_segment *s,
			   struct oracle_answer *a)
{
	const bool finished = t->fin_sent && s->ack == t->nxt;

	a->rule = a->rule ? a->rule : "3.10.7.4 fifth";
	if (!s->ack_on)
		return RETURNS;
	if (t->state == ST_SYN_RECEIVED) {
		if (!(t->una < s->ack && s->ack <= t->nxt)) {
			reset(a, s, "3.10.7.4 fifth, SYN-RECEIVED");
			return RETURNS;
		}
		t->state = ST_ESTABLISHED;
		a->opened = true;
		t->una = s->ack;
		t->wnd = s->wnd;
		t->wl1 = s->seq;
		t->wl2 = s->ack;
		if (t->wnd_max < s->wnd)
			t->wnd_max = s->wnd;
		return GOES_ON;
	}
	if (ack_of_established(t, s, a) == RETURNS)
		return RETURNS;
	if (t->state == ST_FIN_WAIT_1 && finished) {
		t->state = ST_FIN_WAIT_2;
	} else if (t->state == ST_CLOSING && finished) {
		t->state = ST_TIME_WAIT;
		a->waits = true;
	} else if (t->state == ST_LAST_ACK && finished) {
		closed(t, a, ENDS_NORMAL);
		if (a->ack == SENDS_MUST)
			a->ack = SENDS_MAY; /* of the old duplicate, see check_sequence() */
		return RETURNS;
	}
	return GOES_ON;
}

/* 3.10.7.4 */
static void in_other(struct oracle_tcb *t, struct oracle_segment *s, struct oracle_answer *a)
{
	if (reopens(t, s)) {
		a->rule = "RFC 6191 2, MAY-2";
		closed(t, a, ENDS_NORMAL);
		a->reopened = true;
		return;
	}
	if (check_stamp(t, s, a) == RETURNS)
		return;
	if (s->rst) {
		check_rst(t, s, a);
		return;
	}
	if (t->state == ST_SYN_RECEIVED && s->syn && s->seq == 0) {
		/* CHOICE: "an acknowledgment should be sent": the SYN,ACK again, which a peer in SYN-SENT
		 * understands. */
		if (!s->ack_on) {
			a->syn_ack = true;
			a->rule = "3.10.7.4 first, SYN again";
			return;
		}
		/* 3.5 Figure 8: the SYN,ACKs of a simultaneous open cross. */
		if (!t->passive)
			trim_left(s, t->rcv_nxt);
	}
	if (check_syn_5961(t, s, a) == RETURNS)
		return;
	if (check_sequence(t, s, a) == RETURNS)
		return;
	if (check_syn(t, s, a) == RETURNS)
		return;
	if (check_ack(t, s, a) == RETURNS)
		return;
	from_sixth(t, s, a);
}

void oracle_arrives(struct oracle_tcb *t, const struct oracle_segment *s,
		    struct oracle_answer *ret_answer)
{
	struct oracle_segment mine = *s;

	*ret_answer = (struct oracle_answer){ 0 };
	if (t->state == ST_CLOSED)
		in_closed(&mine, ret_answer);
	else if (t->state == ST_LISTEN)
		in_listen(t, &mine, ret_answer);
	else if (t->state == ST_SYN_SENT)
		in_syn_sent(t, &mine, ret_answer);
	else
		in_other(t, &mine, ret_answer);
	if (ret_answer->ack == SENDS_MUST || ret_answer->syn_ack)
		t->last_ack_sent = t->rcv_nxt;
}

void oracle_send(struct oracle_tcb *t, int64_t octets)
{
	t->nxt += octets;
}

void oracle_close(struct oracle_tcb *t)
{
	t->nxt++;
	t->fin_sent = true;
	t->state = t->state == ST_CLOSE_WAIT ? ST_LAST_ACK : ST_FIN_WAIT_1;
}
