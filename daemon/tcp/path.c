/* SPDX-License-Identifier: Apache-2.0 */
/* What the path carries: RFC 1191 and RFC 8201, believed only as far as RFC 5927 7 allows; and the paths
 * that drop large packets without a word (RFC 2923 2.1), in a simple form of RFC 4821: full segments time out, so
 * the next goes as a smaller one. When that passes, and no full one has ever passed, large ones vanish. Where
 * they did pass before, random loss may look like that: full ones are tried once more. Much later one larger
 * segment is sent, and when it passes, the others are as large.
 */
#include <errno.h>

#include "tcb.h"

/* RFC 1191 6.3, RFC 8201 4: how long a smaller MTU is believed before the link's is tried again. */
#define LIFE_US (10ULL * 60 * 1000000)

enum {
	MTU4_LEAST =
		552, /* below it an attacker gains more than any real path needs: RFC 5927 7.2 */
	MTU6_LEAST = 1280, /* RFC 8200 5 */
	SUSPICIOUS = 2, /* timeouts of a full segment, while none passes */
	PROOFS = 2, /* smaller ones that passed in its place, where full ones once did */
	VANISHED_MAX = 15,
};

static bool is_v4(const struct tcb *t)
{
	return addr_is_v4(&t->flow.remote.addr);
}

static uint32_t headers(const struct tcb *t)
{
	return (is_v4(t) ? 40U : 60U) + (t->timestamps ? 12U : 0U);
}

uint32_t tcb_path_mtu(const struct tcb *t)
{
	const uint32_t link = t->link_mtu ? t->link_mtu : UINT16_MAX;

	return t->path_mtu ? min_u32(t->path_mtu, link) : link;
}

/* RFC 1191 7.1: for routers that do not tell, the next size that is common below what did not fit. */
static uint32_t plateau_below(uint32_t bytes)
{
	static const uint16_t plateaus[] = { 65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006 };

	for (unsigned i = 0; i < sizeof(plateaus) / sizeof(plateaus[0]); i++)
		if (plateaus[i] < bytes)
			return plateaus[i];
	return MTU4_LEAST;
}

static void set_path_mtu(struct engine *e, struct tcb *t, uint32_t mtu)
{
	t->hole = (struct hole){ .passed = t->hole.passed };
	t->path_mtu = (uint16_t)mtu;
	timer_set(e, t, TIMER_PATH_MTU, vtime_add(e->now, LIFE_US));
	tcb_fit_mss(t);
}

/* What is out was too large, so that it is lost: again at once, in smaller pieces. RFC 1191 6.4: it says
 * nothing of congestion, so the window is kept as the threshold of a slow start.
 */
static void send_again(struct engine *e, struct tcb *t)
{
	t->cc.ssthresh = max_u32(t->cc.cwnd, 2 * t->snd.mss);
	t->cc.cwnd = t->snd.mss;
	t->cc.acked = 0;
	t->cc.dup_acks = 0;
	t->cc.recovering = t->snd.fast = false;
	t->cc.recover = t->snd.nxt;
	t->snd.rtx = t->snd.una;
	t->snd.timing = false; /* Karn */
	tcb_rearm(e, t);
	tcb_want_output(e, t);
}

void tcb_too_big(struct engine *e, struct tcb *t, const struct icmp_message *m)
{
	const uint32_t current = tcb_path_mtu(t);
	uint32_t mtu = m->mtu;

	if (is_v4(t))
		mtu = max_u32(mtu ? mtu : plateau_below(m->quoted_bytes), MTU4_LEAST);
	/* RFC 8201 4; and nothing that would have fitted can have been too large: RFC 5927 7.2. */
	if (!tcb_syn_acked(t) || (!is_v4(t) && mtu < MTU6_LEAST) || m->quoted_bytes <= mtu) {
		e->counters.icmp_implausible++;
		return;
	}
	if (mtu >= current) { /* the rest of a window of which the first told it */
		e->counters.icmp_ignored++;
		return;
	}
	e->counters.path_mtu_lowered++;
	set_path_mtu(e, t, mtu);
	if (t->snd.wnd)
		send_again(e, t);
}

/* The k-th step below, or the last that there is; 0: there is none. */
static uint32_t step_below(const struct tcb *t, uint32_t bytes, unsigned k)
{
	static const uint16_t steps[] = { 1500, MTU6_LEAST, 576 };
	const uint32_t least = is_v4(t) ? 576 : MTU6_LEAST;
	uint32_t found = 0;

	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]) && k; i++)
		if (steps[i] < bytes && steps[i] >= least) {
			found = steps[i];
			k--;
		}
	return found;
}

/* RFC 4821 7.7, RFC 8899 4.3: large segments may vanish where small ones pass. */
void tcb_suspect_black_hole(struct engine *e, struct tcb *t)
{
	struct hole *const h = &t->hole;
	uint32_t mtu;

	(void)e;
	if (!t->params->black_hole_detection || !tcb_syn_acked(t) || t->sendq.used < t->snd.mss ||
	    h->trial == TRIAL_LARGER)
		return;
	if (h->vanished < VANISHED_MAX)
		h->vanished++;
	if (h->trial == TRIAL_NONE) {
		h->full_mtu = t->path_mtu;
		h->full_mss = t->snd.mss;
	}
	mtu = step_below(t, h->full_mss + headers(t), h->vanished / SUSPICIOUS);
	if (mtu == 0)
		return;
	h->trial = TRIAL_SMALLER;
	t->path_mtu = (uint16_t)mtu;
	tcb_fit_mss(t);
	t->cc.cwnd = t->snd.mss; /* the loss window of the smaller segment */
}

/* The trial is over, and nothing follows from it. */
static void full_again(struct tcb *t)
{
	t->hole.trial = TRIAL_NONE;
	t->path_mtu = t->hole.full_mtu;
	tcb_fit_mss(t);
}

void tcb_full_passed(struct tcb *t, uint32_t octets)
{
	struct hole *const h = &t->hole;

	if (h->trial == TRIAL_SMALLER && octets < h->full_mss)
		return;
	if (h->trial == TRIAL_SMALLER)
		full_again(t);
	h->passed = true;
	h->vanished = h->proofs = 0;
}

static void smaller_passed(struct engine *e, struct tcb *t)
{
	struct hole *const h = &t->hole;

	if (h->passed && ++h->proofs < PROOFS) {
		full_again(t);
		return;
	}
	e->counters.black_holes++;
	set_path_mtu(e, t, t->path_mtu);
	h->passed = h->silent = true;
}

/* RFC 4821 7.3, 7.5: one segment, with others behind it so that its loss is soon known. 0: not now. */
uint32_t tcb_larger_mss(const struct tcb *t)
{
	const uint32_t link = t->link_mtu ? t->link_mtu : UINT16_MAX;

	return t->cc.recovering || t->rtt.backoffs || t->hole.vanished ? 0 : tcb_mss_by(t, link);
}

void tcb_larger_sent(struct tcb *t, seqno end)
{
	t->hole.raise = false;
	t->hole.trial = TRIAL_LARGER;
	t->hole.end = end;
}

void tcb_larger_lost(struct engine *e, struct tcb *t)
{
	t->hole.trial = TRIAL_NONE;
	timer_set(e, t, TIMER_PATH_MTU, vtime_add(e->now, LIFE_US));
}

void tcb_trial_acked(struct engine *e, struct tcb *t, uint32_t n)
{
	if (t->hole.trial == TRIAL_SMALLER && n >= t->hole.full_mss) {
		tcb_full_passed(t, n); /* the full one was late, not lost */
	} else if (t->hole.trial == TRIAL_SMALLER) {
		smaller_passed(e, t);
	} else if (seq_le(t->hole.end, t->snd.una)) {
		t->hole = (struct hole){ .passed = true };
		t->path_mtu = 0;
		tcb_fit_mss(t);
	}
}

void tcb_path_mtu_aged(struct tcb *t)
{
	timer_clear(t, TIMER_PATH_MTU);
	if (t->hole.trial == TRIAL_SMALLER) {
		t->hole.full_mtu = 0;
	} else if (t->hole.silent) {
		t->hole.raise = true;
	} else {
		t->path_mtu = 0;
		t->hole.passed = false;
		tcb_fit_mss(t);
	}
}

int conn_set_mtu(struct engine *e, vtime now, conn_id id, uint16_t link_mtu)
{
	struct tcb *t = engine_find(e, id);

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	if (t->state == ST_CLOSED)
		return -ENOTCONN;
	if (link_mtu == 0 || link_mtu == t->link_mtu)
		return 0;
	t->link_mtu = link_mtu;
	t->hole.passed = false;
	if (t->state != ST_SYN_SENT) /* the peer's MSS is known */
		tcb_fit_mss(t);
	tcb_want_output(e, t);
	return 0;
}
