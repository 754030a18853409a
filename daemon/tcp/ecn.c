/* SPDX-License-Identifier: Apache-2.0 */
/* Explicit congestion notification: RFC 3168 6.1; by how much a mark reduces is the controller's to say
 * (RFC 8511).
 */
#include "tcb.h"

static const uint8_t both = CTL_ECE | CTL_CWR;

/* RFC 3168 6.1.1.1: some path may eat an ECN-setup SYN, so it is no such when it goes again. */
uint8_t ecn_syn_ctl(struct tcb *t, bool again)
{
	if (t->state != ST_SYN_SENT)
		return t->ecn.on ? CTL_ECE : 0;
	t->ecn.asked = t->params->ecn == TCP_ECN_ON && !again;
	return t->ecn.asked ? both : 0;
}

/* RFC 3168 6.1.1. SYNs that cross agree on nothing: our SYN-ACK says so. */
void ecn_take_syn(struct tcb *t, const struct segment *seg)
{
	t->ecn.until = t->iss;
	if (t->passive)
		t->ecn.on = t->params->ecn != TCP_ECN_OFF && (seg->ctl & both) == both;
	else
		t->ecn.on = t->ecn.asked && seg->ctl & CTL_ACK && (seg->ctl & both) == CTL_ECE;
}

/* "If a host has received at least one non-ECN-setup SYN [...] it SHOULD NOT set ECT" */
void ecn_syn_again(struct tcb *t, const struct segment *seg)
{
	if ((seg->ctl & both) != both)
		t->ecn.on = false;
}

/* RFC 3168 6.1.2: once for the data of a window, and not for one that a loss has already answered for. */
void ecn_ack(struct engine *e, struct tcb *t, const struct segment *seg)
{
	const bool echoes = seg->ctl & CTL_ECE && !(e->arriving.ctl & CTL_SYN);
	struct recovery *const r = recovery_of(e, t);

	if (!t->ecn.on || !echoes || tcb_flight(t) == 0 || t->cc.recovering ||
	    !seq_lt(t->cc.recover, seg->ack) || !seq_lt(t->ecn.until, seg->ack))
		return;
	t->ecn.until = t->snd.nxt;
	t->cc.ssthresh = t->cc.ops->ssthresh_ecn(t, cc_flight(t));
	t->cc.cwnd = min_u32(t->cc.cwnd, t->cc.ssthresh);
	t->cc.acked = 0;
	if (r)
		r->undo.armed = false; /* this one was no mistake */
	e->counters.ecn_reductions++;
}

/* RFC 3168 6.1.3. A mark is told at once: a delayed ACK would tell it as surely, but later. */
void ecn_text(struct engine *e, struct tcb *t, const struct segment *seg)
{
	if (!t->ecn.on || seg_text_len(seg) == 0)
		return;
	if (seg->ctl & CTL_CWR)
		t->ecn.echo = false;
	if ((seg->tos & ECN_MASK) != ECN_CE)
		return;
	e->counters.ecn_marks_in++;
	if (!t->ecn.echo)
		tcb_ack_now(e, t);
	t->ecn.echo = true;
}

void ecn_reduced(struct tcb *t)
{
	t->ecn.reduced = t->ecn.on;
}

/* RFC 3168 6.1.2, 6.1.5, 6.1.6: never on what is sent again, on probes and on bare ACKs. */
void ecn_send(struct tcb *t, struct segment *out, bool is_new)
{
	if (!t->ecn.on || !is_new)
		return;
	out->tos |= ECN_ECT0;
	if (t->ecn.reduced)
		out->ctl |= CTL_CWR;
	t->ecn.reduced = false;
}
